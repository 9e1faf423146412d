"""Laws of reading task files: every row exactly, or an error that says where."""

import csv
import json
import random
import re
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minilm.tasks import (
    TASKS,
    ChoiceExample,
    SpanExample,
    TaggedExample,
    Task,
    TaskFileError,
    TextExample,
    collect_labels,
    read_task,
)

in_one_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
CONTEXT = "Ada Lovelace was born in London. 她住在伦敦。"


def squad_file(*questions, context=CONTEXT):
    return json.dumps({"version": "x", "data": [{"title": "Ada", "paragraphs": [
        {"context": context, "qas": list(questions)}]}]})  # fmt: skip


def question(**changes):
    made = {"id": "q1", "question": "Where?", "answers": [{"text": "London", "answer_start": 25}]}
    return {key: value for key, value in (made | changes).items() if value is not ...}


RACE = {
    "id": "high1.txt",
    "article": "It rained.",
    "questions": ["What fell?", "It _ ."],
    "options": [["Rain", "Snow", "Leaves", "Hail"], ["rained", "snowed", "shone", "froze"]],
    "answers": ["A", "C"],
}
RACE_EXAMPLES = [
    ChoiceExample("It rained.", ("Rain", "Snow", "Leaves", "Hail"), 0, "What fell?"),
    ChoiceExample("It rained.", ("rained", "snowed", "shone", "froze"), 2, "It _ ."),
]
COPA = {"premise": "It rained.", "choice1": "Snow fell.", "choice2": "I got wet."}
MNLI_DEV = "index\tpairID\tsentence1\tlabel1\tsentence2\tlabel2\tgold_label"
# A task, its file as it is distributed, and what stands in it.
FILES = {
    "cola": (
        'gj04\t1\t\tThe "sailors" rode.\ngj04\t0\t*\tThe more.\n',
        [TextExample('The "sailors" rode.', None, "1"), TextExample("The more.", None, "0")],
    ),
    "cola, test": ("index\tsentence\n0\tBill sat.\n", [TextExample("Bill sat.")]),
    "sst2": (
        'sentence\tlabel\nhide "it \t0\n"\t1\n',
        [TextExample('hide "it ', None, "0"), TextExample('"', None, "1")],
    ),
    "mrpc": (
        "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\r\n1\t70\t71\tA\tB \r\n",
        [TextExample("A", "B ", "1")],
    ),
    "stsb": (
        "index\tgenre\tsentence1\tsentence2\tscore\n0\tnews\tA\tB\t5.000\n1\tnews\tC\tD\t-.5\n",
        [TextExample("A", "B", 5.0), TextExample("C", "D", -0.5)],
    ),
    "qqp": (
        "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n1\t2\t3\tA?\tB?\t0\n",
        [TextExample("A?", "B?", "0")],
    ),
    "mnli": (
        "index\tsentence1\tsentence2\tgold_label\n0\tA\tB\tneutral\n\n1\tC\tD\tentailment",
        [TextExample("A", "B", "neutral"), TextExample("C", "D", "entailment")],
    ),
    "mnli, dev": (
        f"{MNLI_DEV}\n0\t9e\tA\tneutral\tB\tneutral\tcontradiction\n",
        [TextExample("A", "B", "contradiction")],
    ),
    "mnli, test": ("index\tsentence2\tsentence1\n0\tB\tA\n", [TextExample("A", "B")]),
    "qnli": (
        "index\tquestion\tsentence\tlabel\n0\tA\tB\tnot_entailment\n",
        [TextExample("A", "B", "not_entailment")],
    ),
    "rte": (
        "index\tsentence1\tsentence2\tlabel\n0\tA\u2028C\x85\tB\tentailment\n",
        [TextExample("A\u2028C\x85", "B", "entailment")],
    ),
    "wnli": ("index\tsentence1\tsentence2\tlabel\n0\tA\tB\t1\n", [TextExample("A", "B", "1")]),
    "boolq": (
        '{"question": "is it", "passage": "It is.", "idx": 0, "label": true}\r\n\r\n'
        '{"question": "was it", "passage": "It\u2028is.", "idx": 1, "label": false}\n',
        [TextExample("is it", "It is.", "true"), TextExample("was it", "It\u2028is.", "false")],
    ),
    "cb": (
        '{"premise": "A", "hypothesis": "B", "label": "neutral", "idx": 0}\n',
        [TextExample("A", "B", "neutral")],
    ),
    "cb, test": ('{"premise": "A", "hypothesis": "B", "idx": 0}\n', [TextExample("A", "B")]),
    "copa": (
        json.dumps(COPA | {"question": "effect", "label": 1})
        + "\n"
        + json.dumps(COPA | {"question": "cause", "label": 0}),
        [
            ChoiceExample(
                "It rained.", ("Snow fell.", "I got wet."), 1, "What happened because of this?"
            ),
            ChoiceExample(
                "It rained.", ("Snow fell.", "I got wet."), 0, "What was the cause of this?"
            ),
        ],
    ),
    "copa, test": (
        json.dumps(COPA | {"question": "cause"}),
        [
            ChoiceExample(
                "It rained.", ("Snow fell.", "I got wet."), None, "What was the cause of this?"
            )
        ],
    ),
    "wic": (
        '{"word": "bank", "sentence1": "A", "sentence2": "B", "label": false, "start1": 1}',
        [TextExample("bank: A", "B", "false")],
    ),
    "superglue_rte": (
        '{"premise": "A", "hypothesis": "B", "label": "entailment", "idx": 0}',
        [TextExample("A", "B", "entailment")],
    ),
    "squad": (
        "\ufeff"
        + squad_file(
            question(),
            question(id="q2", answers=[{"text": "Ada", "answer_start": 0}] * 2),
            question(id="q3", answers=[{"text": "伦敦", "answer_start": 36}]),
        ),
        [
            SpanExample("q1", "Where?", CONTEXT, ((25, "London"),)),
            SpanExample("q2", "Where?", CONTEXT, ((0, "Ada"), (0, "Ada"))),
            SpanExample("q3", "Where?", CONTEXT, ((36, "伦敦"),)),
        ],
    ),
    "squad, test": (
        squad_file(question(answers=...)),
        [SpanExample("q1", "Where?", CONTEXT)],
    ),
    "squad2": (
        squad_file(
            question(is_impossible=False),
            question(id="q2", is_impossible=True, answers=[], plausible_answers=[{"text": "Ada"}]),
            question(id="q3", answers=[]),
        ),
        [
            SpanExample("q1", "Where?", CONTEXT, ((25, "London"),)),
            SpanExample("q2", "Where?", CONTEXT),
            SpanExample("q3", "Where?", CONTEXT),
        ],
    ),
    "race": (json.dumps(RACE), RACE_EXAMPLES),
    "race, list": (json.dumps([RACE, RACE]), RACE_EXAMPLES * 2),
    "race, test": (
        json.dumps({**RACE, "answers": None}),
        [replace(example, label=None) for example in RACE_EXAMPLES],
    ),
    "conll": (
        "-DOCSTART- -X- O O\n\nEU NNP I-NP B-ORG\nrejects VBZ I-VP O\n\n\nRome NNP I-NP I-LOC",
        [
            TaggedExample(("EU", "rejects"), ("B-ORG", "O")),
            TaggedExample(("Rome",), ("I-LOC",)),
        ],
    ),
    "conll, tabs": (
        "New York\tB-location\r\n\x85\u2028x\tO\r\n\t\r\n \t \r\n!\tO\r\n\r\n",
        [
            TaggedExample(("New York", "\x85\u2028x"), ("B-location", "O")),
            TaggedExample(("!",), ("O",)),
        ],
    ),
    "conll, test": ("EU\nwins\n\nYes\n", [TaggedExample(("EU", "wins")), TaggedExample(("Yes",))]),
    "tsv": ("Good.\tpos\nBad.\tneg\n", [TextExample("Good.", None, "pos"),
                                        TextExample("Bad.", None, "neg")]),
    "tsv, pairs": ("A\tB\tpos\n", [TextExample("A", "B", "pos")]),
    "tsv, header": (
        "label\ttext_pair\ttext\nx\tB\tA\n",
        [TextExample("A", "B", "x")],
    ),
    "tsv, more columns": ("id\ttext\tlabel\n7\tA\tx\n", [TextExample("A", None, "x")]),
    "tsv, unlabelled": ("index\ttext\n7\tA\n", [TextExample("A")]),
    "csv": (
        'text,label\r\n"a ""b"",\r\nc\n",x\r\n\r\n d ,y\n',
        [TextExample('a "b",\r\nc\n', None, "x"), TextExample(" d ", None, "y")],
    ),
    "csv, no header": ('"a, b",x\n', [TextExample("a, b", None, "x")]),
    "jsonl": (
        '{"text": "a\\n", "text_pair": "b", "label": 3}\n{"label": true, "text": "c"}\n',
        [TextExample("a\n", "b", "3"), TextExample("c", None, "true")],
    ),
    "jsonl, test": (
        '{"text": "a", "text_pair": null, "label": null}\n{"text": "c", "text": "d"}\n',
        [TextExample("a"), TextExample("d")],
    ),
}  # fmt: skip


def write(folder, content, name="file"):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def task_of(name):
    return name.split(",")[0]


# --- Rows that are right ----------------------------------------------------------------------


@pytest.mark.parametrize("name", FILES)
def test_a_file_as_it_is_distributed_is_read_exactly(name, tmp_path):
    content, examples = FILES[name]
    assert read_task(task_of(name), write(tmp_path, content)) == (examples, [])


def test_every_task_of_the_table_has_a_file_here():
    assert {task_of(name) for name in FILES} == set(TASKS)


@pytest.mark.parametrize("name", FILES)
def test_line_ends_and_a_byte_order_mark_change_nothing(name, tmp_path):
    content, examples = FILES[name]
    if "\r" not in content:
        content = "\ufeff" + content.removeprefix("\ufeff").replace("\n", "\r\n")
        assert read_task(task_of(name), write(tmp_path, content)).examples == examples


def test_several_files_are_read_in_their_order(tmp_path):
    paths = [write(tmp_path, f"{name}\tx\n", name) for name in "bac"]
    read = read_task("tsv", (str(path) for path in paths)).examples
    assert [example.text for example in read] == ["b", "a", "c"]


def test_a_directory_of_race_is_read_with_its_sub_directories_in_sorted_order(tmp_path):
    for name in ("high/2.txt", "high/10.txt", "high/a/1.json", ".git/1.txt", "high/notes.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        write(tmp_path, json.dumps({**RACE, "article": name}), name)
    lines = "\n".join(json.dumps({**RACE, "article": f"line {i}"}) for i in range(2))
    write(tmp_path, lines, "middle.jsonl")
    read = read_task("race", tmp_path).examples[::2]
    assert [example.context for example in read] == [
        *("high/10.txt", "high/2.txt", "high/a/1.json", "line 0", "line 1")
    ]


def test_a_task_of_ones_own_names_its_own_columns(tmp_path):
    task = Task("mine", "csv", "regression", ("pearson",), "review", None, "stars", None)
    path = write(tmp_path, "stars,review\n4,Nice.\n")
    assert read_task(task, path).examples == [TextExample("Nice.", None, 4.0)]


@pytest.mark.parametrize(
    ("field", "value", "got"),
    [
        ("format", "xml", "xml"),
        ("head", "span", "span"),
        ("head", "token_classification", "token_classification"),
        ("metrics", ("accuracy", "bleu"), "bleu"),
    ],
)
def test_a_task_that_nothing_can_read_or_score_is_an_error(field, value, got):
    with pytest.raises(ValueError, match=f"task tsv: expected one of .*, got '{got}'"):
        replace(TASKS["tsv"], **{field: value})


def test_the_classes_of_a_task_that_is_scored_by_f1_have_the_positive_one_at_index_1():
    for task in TASKS.values():
        assert "f1" not in task.metrics or task.labels == ("0", "1")


ROUND_TRIP = st.text().filter(lambda text: text.strip())
TSV_TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\t\n\r")).filter(
    lambda text: text.strip()
)


def rows_of(text):
    pair = st.lists(st.builds(TextExample, text, text, text), min_size=1, max_size=5)
    return pair | st.lists(st.builds(TextExample, text, st.none(), text), min_size=1, max_size=5)


def cells_of(examples):
    """A header and the rows."""
    has_pair = examples[0].text_pair is not None
    rows = [["text", *(["text_pair"] * has_pair), "label"]]
    for example in examples:
        rows.append([example.text, *([example.text_pair] * has_pair), example.label])
    return rows


@in_one_folder
@given(rows_of(TSV_TEXT))
def test_texts_without_tabs_and_newlines_come_back_from_tsv(tmp_path, examples):
    content = "".join("\t".join(row) + "\n" for row in cells_of(examples))
    assert read_task("tsv", write(tmp_path, content)).examples == examples


@in_one_folder
@given(rows_of(ROUND_TRIP), st.sampled_from(["\n", "\r\n"]))
def test_any_text_comes_back_from_csv(tmp_path, examples, newline):
    with (tmp_path / "file").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator=newline, quoting=csv.QUOTE_ALL).writerows(
            cells_of(examples)
        )
    assert read_task("csv", tmp_path / "file").examples == examples


@in_one_folder
@given(rows_of(ROUND_TRIP), st.booleans())
def test_any_text_comes_back_from_json_lines(tmp_path, examples, ascii):
    rows = [{"text": e.text, "text_pair": e.text_pair, "label": e.label} for e in examples]
    content = "\n".join(json.dumps(row, ensure_ascii=ascii) for row in rows)
    assert read_task("jsonl", write(tmp_path, content)).examples == examples


# --- Rows that are not ------------------------------------------------------------------------


DEEP = "[" * 100_000
BAD = [  # a task, a file, the place of its one bad row, what the error says
    ("sst2", "sentence\tlabel\na\t0\nb\n", "line 3", "expected 2 columns .*'label'.* got .'b'.;"),
    ("sst2", "sentence\tlabel\na\t0\nb\t1\tc\n", "line 3", "expected 2 columns"),
    ("sst2", "sentence\tlabel\na\t0\n\nb\t2\n", "line 4", "expected 'label' of 0, 1, got '2'"),
    ("sst2", "sentence\tlabel\na\t0\nb\t\n", "line 3", "expected text as 'label', got ''"),
    ("sst2", "sentence\tlabel\na\t0\n \t1\n", "line 3", "expected text as 'sentence', got ' '"),
    ("sst2", b"sentence\tlabel\na\t0\nb\xe9\t1\n", "line 3", r"UTF-8 in .*udce9.*iconv"),
    ("cola", "a\t1\t\tb\na\t1\tb\n", "line 2", "expected 4 columns"),
    ("mnli", "sentence1\tsentence2\tgold_label\na\tb\tneutral\na\tb\t-\n", "line 3",
     "of entailment, neutral, contradiction, got '-'"),
    *(("stsb", f"sentence1\tsentence2\tscore\na\tb\t1\na\tb\t{score}\n", "line 3",
       f"expected a finite number as 'score', got '{score}'")
      for score in ("nan", "inf", "-Infinity", "x", "", "1,5")),
    ("tsv", "a\tx\nb\tc\ty\n", "line 2", "expected 2 columns"),
    ("tsv", "a b\na\tx\n", "line 1", "expected 2 columns"),
    ("csv", 'text,label\na,x\n"b\nc",y,z\nd,x\n', "line 3", "expected 2 columns"),
    ("csv", 'text,label\na,x\n"b,y\nc,z\n', "line 3", "row of CSV.*unexpected end.*quotes"),
    ("csv", 'text,label\na,x\n"b"c,y\n', "line 3", "row of CSV"),
    ("csv", "text,label\na,x\n" + "b" * 200_000 + ",y\n", "line 3", "field limit"),
    ("csv", b"text,label\na,x\n\xff,y\n", "line 3", "expected UTF-8 in 'text'"),
    ("jsonl", '{"text": "a"}\n{"text": "b"\n', "line 2", "expected JSON"),
    ("jsonl", '{"text": "a"}\n["b"]\n', "line 2", "expected a JSON object, got"),
    ("jsonl", '{"text": "a"}\n{"txt": "b"}\n', "line 2", r"expected 'text' among .*, got .'txt'.;"),
    ("jsonl", '{"text": "a"}\n{"text": 3}\n', "line 2", "expected text as 'text', got 3"),
    ("jsonl", '{"text": "a"}\n{"text": "\\ud83d"}\n', "line 2", "expected UTF-8 in 'text'"),
    ("jsonl", '{"text": "a"}\n{"text": "b", "text_pair": 1}\n', "line 2", "as 'text_pair', got 1"),
    ("jsonl", '{"text": "a", "label": 1}\n{"text": "b"}\n', "line 2", "'label' as other rows have"),
    ("jsonl", '{"text": "a", "label": 1}\n{"text": "b", "label": 1.5}\n', "line 2", "got 1.5"),
    ("jsonl", '{"text": "a", "label": 1}\n{"text": "b", "label": []}\n', "line 2", "label', got"),
    ("jsonl", '{"text": "a"}\n{"text": ' + DEEP + "\n", "line 2", "expected JSON .*recursion"),
    ("jsonl", '{"text": "a"}\n{"text": ' + "1" * 5000 + "}\n", "line 2", "expected JSON .*4300"),
    ("jsonl", b'{"text": "a"}\n{"text": "\xff"}\n', "line 2", "expected UTF-8 in 'text'"),
    ("boolq", '{"question": "a", "passage": "b"}\n{"question": "a"}', "line 2", "'passage' among"),
    ("boolq", '{"question": "a", "passage": "b", "label": true}\n'
              '{"question": "a", "passage": "b", "label": 1}', "line 2", "of false, true, got '1'"),
    ("wic", '{"word": "w", "sentence1": "a", "sentence2": "b"}\n'
            '{"sentence1": "a", "sentence2": "b"}', "line 2", "'word' among"),
    *(("copa", "\n".join(json.dumps(COPA | {"question": "cause", "label": 0} | change)
                         for change in ({}, wrong)), "line 2", message)
      for wrong, message in [
          ({"label": 2}, "expected 'label' from 0 to 1, got 2"), ({"label": True}, "got True"),
          ({"label": -1}, "got -1"), ({"question": "why"}, "of cause, effect, got 'why'"),
          ({"choice2": ""}, "as 'choice2', got ''"), ({"premise": None}, "as 'premise', got None")
      ]),
    *(("squad", squad_file(question(), question(**wrong)), "data[0].paragraphs[0].qas[1]", message)
      for wrong, message in [
          ({"answers": [{"text": "london", "answer_start": 25}]},
           "the answer london from character 25, got 'London'"),
          ({"answers": [{"text": "。", "answer_start": -1}]}, "'answer_start' of 0 or more"),
          ({"answers": [{"text": "London", "answer_start": 25.0}]}, "'answer_start' of 0 or more"),
          ({"answers": [{"text": "A", "answer_start": False}]}, "'answer_start' of 0 or more"),
          ({"answers": [{"text": "London"}]}, "'answer_start' of 0 or more"),
          ({"answers": [{"text": "", "answer_start": 2}]}, "text as 'text', got ''"),
          ({"answers": ["London"]}, "a JSON object in 'answers', got 'London'"),
          ({"answers": {}}, "a list 'answers'"), ({"answers": ...}, "'answers' as other rows"),
          ({"answers": []}, "an answer, got .*; read it as 'squad2'"),
          ({"is_impossible": True}, "answers unless 'is_impossible'"),
          ({"id": 5}, "text as 'id', got 5"), ({"question": ...}, "'question' among the names"),
      ]),
    *(("squad2", squad_file(question(), question(answers=[], is_impossible=flag)),
       "data[0].paragraphs[0].qas[1]", "answers unless 'is_impossible'")
      for flag in (False, None, "yes")),
    ("squad", json.dumps({"data": [{"paragraphs": [{"context": CONTEXT, "qas": [question()]},
                                                   {"context": CONTEXT}]}]}),
     "data[0].paragraphs[1]", "expected a list under 'qas'"),
    ("squad", json.dumps({"data": [json.loads(squad_file(question()))["data"][0], 7]}),
     "data[1]", "expected a JSON object, got 7"),
    *(("race", json.dumps([RACE, RACE | wrong]), place, message) for wrong, place, message in [
        ({"answers": ["A", "E"]}, "document[1].questions[1]", "an answer of A, B, C, D, got 'E'"),
        ({"answers": ["A", []]}, "document[1].questions[1]", "an answer of A, B, C, D, got"),
        ({"questions": ["Q", ""]}, "document[1].questions[1]", "text as 'questions', got ''"),
        ({"options": [["a", "b"], ["a", "b", " "]]}, "document[1].questions[1]", "as 'options'"),
        ({"options": [["a", "b"], ["a"]]}, "document[1].questions[1]", "a list of options"),
        ({"answers": ["A"]}, "document[1]", "questions, options, answers of one length"),
        ({"options": None}, "document[1]", "questions, options, answers of one length"),
        ({"questions": "ab"}, "document[1]", "questions, options, answers of one length"),
    ]),
    ("conll", "a\tO\n\nb\tO\nc\tE-LOC\n", "line 4", "O, B-type or I-type.*got .*E-LOC.*as BIO"),
    ("conll", "a\tO\n\nb\tO\nc\tB-\n", "line 4", "O, B-type or I-type"),
    ("conll", "a\tO\n\nb\tO\nc\n", "line 4", "expected 2 columns as in most lines, got .'c'.;"),
    ("conll", "a X B-LOC\n\nb X O\nc B-NP\n", "line 4", "expected 3 columns"),
    ("conll", "a\tO\n\nb\tO\n\tO\n", "line 4", "expected a word"),
    ("conll", b"a\tO\n\nb\tO\n\xff\tO\n", "line 4", "in UTF-8"),
    ("conll", "a\n\nb\n\u3000\n", "line 4", "expected a word"),
    *((replace(TASKS["jsonl"], head="regression"),
       f'{{"text": "a", "label": 2}}\n{{"text": "b", "label": {number}}}\n', "line 2",
       "expected a finite number as 'label'")
      for number in ("true", "NaN", "1e999", "1" + "0" * 400, "[1]", '"one"')),
]  # fmt: skip


@pytest.mark.parametrize(("task", "content", "place", "message"), BAD)
def test_a_malformed_row_is_an_error_with_its_place_or_left_out(
    task, content, place, message, tmp_path
):
    path = write(tmp_path, content)
    with pytest.raises(TaskFileError, match=message) as raised:
        read_task(task, path)
    assert str(raised.value).startswith(f"{path}, {place}: expected ")
    fix = "or leave such rows out: skip_bad_rows=True, in scripts --skip-bad-rows"
    assert re.search(f"got .*; .*, {fix}$", str(raised.value))
    reading = read_task(task, path, skip_bad_rows=True)
    assert len(reading.skipped) == 1 and len(reading.examples) >= 1
    assert str(raised.value).startswith(str(reading.skipped[0]))
    str(raised.value).encode()  # can be shown whatever the file holds


@pytest.mark.parametrize(
    ("task", "content", "message"),
    [
        ("tsv", "", "got none, and 0 malformed"),
        ("conll", "\n\n-DOCSTART- O\n", "got none"),
        ("race", "[]", "got none"),
        ("squad", '{"data": []}', "got none"),
        ("mrpc", "0\t1\t2\ta\tb\n" * 3, "expected a header with #1 String, #2 String, Quality"),
        ("qnli", "question\tlabel\na\tentailment\n", "expected a header with question, sentence"),
        ("sst2", "sentence\tlabel\n", "got none"),
        ("sst2", "sentence\tlabel\tlabel\na\t0\t1\n", "sentence, label, each once"),
        ("squad", "[" * 100_000, "document: expected JSON"),
        ("squad", "[1]", "document: expected a JSON object"),
        ("race", '{"article": "a"}', "document: expected lists"),
        ("jsonl", "x\ny\nz\n", "and 3 malformed rows .the first: .*line 1: expected JSON"),
    ],
)
def test_a_file_without_an_example_is_an_error_even_where_bad_rows_are_left_out(
    task, content, message, tmp_path
):
    path = write(tmp_path, content)
    with pytest.raises(TaskFileError, match=message):
        read_task(task, path, skip_bad_rows=True)
    with pytest.raises(TaskFileError):
        read_task(task, path)
    good = write(tmp_path, FILES[task][0], "good")
    with pytest.raises(TaskFileError, match=message):
        read_task(task, [good, path], skip_bad_rows=True)


def test_one_bad_article_does_not_stop_a_directory(tmp_path):
    write(tmp_path, json.dumps(RACE), "1.txt")
    write(tmp_path, "{", "2.txt")
    reading = read_task("race", tmp_path, skip_bad_rows=True)
    assert reading.examples == RACE_EXAMPLES and "2.txt, document" in str(reading.skipped[0])


def test_a_bad_line_of_race_is_named_with_its_question(tmp_path):
    content = "\n".join(json.dumps(a) for a in (RACE, {**RACE, "answers": ["B", "b"]}))
    with pytest.raises(TaskFileError, match=r"f.jsonl, line 2.questions\[1\]: expected an answer"):
        read_task("race", write(tmp_path, content, "f.jsonl"))


def test_paths_that_are_no_files_and_unknown_tasks_are_errors(tmp_path):
    with pytest.raises(TaskFileError, match="expected a file of the task sst2, got no such file"):
        read_task("sst2", tmp_path / "none")
    with pytest.raises(TaskFileError, match="got a directory"):
        read_task("sst2", tmp_path)
    with pytest.raises(TaskFileError, match=r"or a directory with files .txt .json"):
        read_task("race", tmp_path)
    with pytest.raises(TaskFileError, match="expected files of the task sst2, got none"):
        read_task("sst2", [])
    with pytest.raises(ValueError, match="expected a task of cola, sst2, .*jsonl, got 'sst-2'"):
        read_task("sst-2", tmp_path)


def test_labels_are_kept_to_those_of_the_task(tmp_path):
    path = write(tmp_path, "a\tB-LOC\n\nb\tB-PER\n")
    task = replace(TASKS["conll"], labels=("O", "B-LOC", "I-LOC"))
    reading = read_task(task, path, skip_bad_rows=True)
    assert len(reading.examples) == 1
    assert "line 3: expected tags of O, B-LOC, I-LOC, got ['B-PER']" in str(reading.skipped[0])


# --- Damage -----------------------------------------------------------------------------------


def mutate(data, rng):
    """Overwrite, cut out, double or cut off some bytes."""
    start = rng.randrange(len(data))
    stop = min(len(data), start + rng.choice([1, 1, 2, 10]))
    return rng.choice([
        data[:start] + rng.randbytes(stop - start) + data[stop:],
        data[:start] + rng.choice([b'"', b"\t", b"\n", b"[", b"{}", b"1e999"]) + data[stop:],
        data[:start] + data[stop:],
        data[:stop] + data[start:],
        data[:stop],
    ])  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_gives_a_named_error_or_examples(name, tmp_path):
    rng = random.Random(0)
    data = FILES[name][0].encode()
    outcomes = set()
    for i in range(80):
        mutant = data
        for _ in range(rng.choice([1, 1, 3])):
            mutant = mutate(mutant, rng) or b"\n"
        path = write(tmp_path, mutant)
        try:
            examples = read_task(task_of(name), path, skip_bad_rows=i % 2 == 0).examples
        except TaskFileError as error:
            assert all(part in str(error) for part in ("expected", "got", str(path)))
            str(error).encode()
            outcomes.add("error")
        else:
            assert examples and {type(e) for e in examples} == {type(FILES[name][1][0])}
            outcomes.add("examples")
    assert outcomes == {"error", "examples"}


# --- Labels -----------------------------------------------------------------------------------


def test_collected_labels_are_sorted_and_o_is_the_first_tag():
    texts = [TextExample("a", None, label) for label in ("b", "a", "b", "O", None)]
    assert collect_labels(texts) == ("O", "a", "b")
    tagged = [TaggedExample(("x", "y"), ("I-B", "B-A")), TaggedExample(("z",), ("O",))]
    assert collect_labels([*tagged, TaggedExample(("w",))]) == ("O", "B-A", "I-B")


@pytest.mark.parametrize(
    "examples", [[], [TextExample("a")], [TextExample("a", None, 1.0)], [TaggedExample(("a",))]]
)
def test_nothing_to_collect_labels_from_is_an_error(examples):
    with pytest.raises(ValueError, match="expected examples with classes or tags, got none; give"):
        collect_labels(examples)
