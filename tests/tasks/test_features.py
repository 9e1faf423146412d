"""Laws of the rows that examples become: what stands where, what is cut, what is a target."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minilm.functional import IGNORE_INDEX
from minilm.tasks.examples import ChoiceExample, SpanExample, TaggedExample, TextExample
from minilm.tasks.features import choice_features, span_features, tag_features, text_features
from minilm.tokenizers import BPETokenizer, WordPieceTokenizer

TEXT = "The unloading of the old lowlands, called Unland, began in 1998. 红楼梦是曹雪芹在北京写的。"
TOKENIZER = WordPieceTokenizer.train([TEXT] * 3, 120)
CLS, SEP, PAD, UNK = (TOKENIZER.ids[name] for name in ("[CLS]", "[SEP]", "[PAD]", "[UNK]"))
WORDS = [*TEXT.replace("。", "").split(), "unold", "landed", "x", "写的", "[SEP]"]
TAGS = ["O", "B-PER", "I-PER"]

words = st.lists(st.sampled_from(WORDS), max_size=25)
# Texts of words and Chinese, with what offsets have to step over: accents, controls, wide spaces.
contexts = st.lists(
    st.sampled_from([*WORDS, "é", "\u200b", "　", " ", "红", "[SEP]", "İ"]), min_size=1
)


@st.composite
def questions(draw):
    """A context and an answer in it that begins and ends where words and Chinese characters do."""
    parts = [part + draw(st.sampled_from([" ", "  "])) for part in draw(contexts)]
    start = draw(st.integers(0, len(parts) - 1))
    stop = draw(st.integers(start + 1, len(parts)))
    answer = "".join(parts[start:stop]).rstrip(" ")
    return SpanExample(
        "q", draw(st.sampled_from(["Who?", " ".join(WORDS)])), "".join(parts),
        ((len("".join(parts[:start])), answer),) if answer else (),
    )  # fmt: skip


def tokens(row):
    return [TOKENIZER.tokens[i] for i in row.inputs["input_ids"]]


def pieces(text):
    return TOKENIZER.encode(text, disallowed_special=())


def visible(text):
    """The text without what the tokenizer drops at its ends: spaces and format characters."""
    return text.strip(" 　\u200b")


# --- Tags -------------------------------------------------------------------------------------


@settings(max_examples=40)
@given(st.lists(words, min_size=1, max_size=3), st.integers(8, 40), st.integers(0, 5))
def test_a_words_tag_stands_on_its_first_piece_and_nowhere_else(sentences, max_len, stride):
    examples = [TaggedExample(tuple(s), tuple(TAGS[len(w) % 3] for w in s)) for s in sentences]
    features = tag_features(examples, TOKENIZER, max_len, TAGS, stride)
    seen = [set() for _ in examples]
    for row in features.rows:
        example, labels = examples[row.example], row.targets["labels"]
        assert len(labels) == len(row.places) == len(row.inputs["input_ids"]) <= max_len
        assert np.array_equal(labels != IGNORE_INDEX, row.places[:, 0] >= 0)
        for at in np.flatnonzero(labels != IGNORE_INDEX):
            word = row.places[at, 0]
            assert TAGS[labels[at]] == example.tags[word]
            inside = pieces(example.words[word])
            follows = row.inputs["input_ids"][at : at + len(inside)].tolist()
            cut = follows.index(SEP) if SEP in follows else len(follows)
            assert follows[:cut] == inside[:cut] and cut > 0
            seen[row.example].add(int(word))
    assert seen == [set(range(len(s))) for s in sentences]


def test_a_word_without_pieces_is_unknown_and_shifts_no_other():
    example = TaggedExample(("old", "\ufe0f", "", "lowlands"), ("O", "B-PER", "I-PER", "O"))
    (row,) = tag_features([example], TOKENIZER, 40, TAGS).rows
    first = row.places[:, 0] >= 0
    assert row.targets["labels"][first].tolist() == [0, 1, 2, 0]
    assert row.inputs["input_ids"][first].tolist()[1:3] == [UNK, UNK]
    assert row.places[first, 0].tolist() == [0, 1, 2, 3]
    bpe = BPETokenizer.train("old lands", 260, special_tokens=["<pad>"])
    with pytest.raises(ValueError, match="unk_token; drop the word"):
        tag_features([example], bpe, 40, TAGS)


# --- Spans ------------------------------------------------------------------------------------


@given(questions(), st.integers(16, 60), st.integers(0, 3))
def test_a_window_that_holds_the_answer_reads_back_as_it_and_others_have_cls(example, size, stride):
    context, spans = TOKENIZER.encode_with_offsets(example.context, disallowed_special=())
    start, text = example.answers[0] if example.answers else (0, "")
    inside = {s for s in spans if s[0] < start + len(text) and s[1] > start}
    for row in span_features([example], TOKENIZER, size, stride).rows:
        a, b = int(row.targets["start_positions"]), int(row.targets["end_positions"])
        own = {tuple(place) for place in row.places.tolist()}
        if inside and inside <= own:
            assert example.context[row.places[a, 0] : row.places[b, 1]].strip() == visible(text)
        else:
            assert a == b == 0 and row.inputs["input_ids"][0] == CLS


@given(questions(), st.integers(16, 60), st.integers(0, 3))
def test_every_token_of_the_context_stands_in_a_window_and_only_those_have_places(
    example, size, stride
):
    ids, spans = TOKENIZER.encode_with_offsets(example.context, disallowed_special=())
    asked = pieces(example.question)[: size // 2]
    found = set()
    for row in span_features([example], TOKENIZER, size, stride).rows:
        row_ids, real = row.inputs["input_ids"], row.places[:, 0] >= 0
        assert len(row_ids) <= size
        assert row_ids[1 : len(asked) + 1].tolist() == asked and row_ids[-1] == SEP
        assert np.flatnonzero(real).tolist() == list(range(len(asked) + 2, len(row_ids) - 1))
        found |= set(zip(row_ids[real].tolist(), map(tuple, row.places[real]), strict=True))
    assert found == set(zip(ids, spans, strict=True))


def test_a_chinese_answer_reads_back_from_each_window_that_holds_it():
    context = "红楼梦是曹雪芹在北京写的。" * 6
    for start in (4, 43, 56, 70):
        example = SpanExample("q", "谁？", context, ((start, context[start : start + 3]),))
        rows = span_features([example], TOKENIZER, 40).rows
        held = [row for row in rows if row.targets["end_positions"]]
        assert 0 < len(held) < len(rows)
        for row in held:
            a, b = int(row.targets["start_positions"]), int(row.targets["end_positions"])
            assert row.places[[a, b]].tolist() == [[start, start + 1], [start + 2, start + 3]]


def test_an_answer_that_ends_inside_a_word_is_widened_to_its_pieces():
    (row,) = span_features([SpanExample("q", "a", "in 红1998", ((3, "红19"),))], TOKENIZER, 40).rows
    end = row.places[int(row.targets["end_positions"])]
    assert end[0] < 6 <= end[1]


def test_only_the_first_answer_is_the_target():
    example = SpanExample("q", "old", "old lands", ((4, "lands"), (0, "old")))
    (row,) = span_features([example], TOKENIZER, 40).rows
    assert row.places[int(row.targets["start_positions"]), 0] == 4


# --- Texts and choices ------------------------------------------------------------------------


def test_texts_and_pairs_become_what_the_tokenizer_makes_of_them():
    examples = [TextExample("the old lands", label="b"), TextExample("the", "old", label="a")]
    features = text_features(examples, TOKENIZER, 40, ["a", "b"])
    assert features.batch([0, 1])["labels"].tolist() == [1, 0]
    for row, example in zip(features.rows, examples, strict=True):
        encoding = TOKENIZER(example.text, example.text_pair)
        for name in encoding.names:
            assert np.array_equal(row.inputs[name], encoding[name][0])


@settings(max_examples=40)
@given(words.filter(bool), st.integers(3, 20), st.integers(0, 9))
def test_a_long_text_is_cut_or_becomes_windows_that_hold_all_of_it(text, max_len, stride):
    examples, ids = [TextExample(" ".join(text), label="b")], pieces(" ".join(text))
    (row,) = text_features(examples, TOKENIZER, max_len, ["a", "b"]).rows
    assert row.inputs["input_ids"].tolist() == [CLS, *ids[: max_len - 2], SEP]
    stride = min(stride, max_len - 3)
    rows = text_features(examples, TOKENIZER, max_len, ["a", "b"], stride).rows
    joined = rows[0].inputs["input_ids"][1:-1].tolist()
    for row in rows[1:]:
        joined += row.inputs["input_ids"][1 + stride : -1].tolist()
    assert joined == ids and all(row.targets["labels"] == 1 for row in rows)


def test_a_pair_is_cut_even_where_single_texts_become_windows():
    long = TextExample("old " * 30, "lands " * 30, "a")
    (row,) = text_features([long], TOKENIZER, 20, ["a"], stride=4).rows
    assert len(row.inputs["input_ids"]) == 20


def test_regression_has_numbers_as_targets():
    examples = [TextExample("old", label=2.5), TextExample("lands", "old", label=3)]
    labels = text_features(examples, TOKENIZER, 20).batch([0, 1])["labels"]
    assert labels.dtype == np.float32 and labels.tolist() == [2.5, 3.0]


def test_a_choice_stands_behind_question_and_context_of_which_the_end_is_cut():
    context = "the old lands " * 20
    example = ChoiceExample(context, ("old", "the lands"), 1, "Who?")
    features = choice_features([example, ChoiceExample("old", ("a", "b"), 0)], TOKENIZER, 20)
    batch = features.batch([0, 1])
    assert batch["labels"].tolist() == [1, 0] and batch["input_ids"].shape == (2, 2, 20)
    for i, choice in enumerate(example.choices):
        ending = pieces(f"Who? {choice}")
        start = pieces(context)[: 20 - 3 - len(ending)]
        assert batch["input_ids"][0, i].tolist() == [CLS, *start, SEP, *ending, SEP]
    assert (batch["attention_mask"] == (batch["input_ids"] != PAD)).all()


def test_rows_are_the_same_whichever_side_the_tokenizer_pads(monkeypatch):
    def rows():
        tags = tag_features(tagged([30, 2]), TOKENIZER, 12, TAGS, 3).rows
        return [
            *tags,
            *choice_features([ChoiceExample("old", ("a", "the old"), 0)], TOKENIZER, 20).rows,
        ]

    right = rows()
    monkeypatch.setattr(TOKENIZER, "padding_side", "left")
    for one, other in zip(rows(), right, strict=True):
        assert np.array_equal(one.places, other.places)
        for name, array in one.inputs.items():
            assert np.array_equal(array, other.inputs[name])


def test_special_tokens_in_a_text_are_ordinary_text():
    example = SpanExample("q", "[MASK]", "[SEP] old", ((6, "old"),))
    (row,) = span_features([example], TOKENIZER, 40).rows
    assert row.inputs["input_ids"].tolist().count(SEP) == 2


# --- Batches ----------------------------------------------------------------------------------


def tagged(lengths):
    return [TaggedExample(("old",) * n, ("O",) * n) for n in lengths]


def test_a_batch_is_padded_to_its_longest_row_and_the_padding_is_no_token():
    features = tag_features(tagged([3, 1, 9]), TOKENIZER, 40, TAGS)
    batch = features.batch([0, 1])
    lengths = [len(features.rows[i].places) for i in (0, 1)]
    assert batch["input_ids"].shape == (2, max(lengths))
    assert batch["attention_mask"].sum(1).tolist() == lengths
    assert set(batch["input_ids"][1, lengths[1] :]) == {PAD}
    assert set(batch["labels"][1, lengths[1] :]) == {IGNORE_INDEX}
    assert {array.dtype for array in batch.values()} == {np.dtype(np.int64)}
    assert "labels" not in features.batch([0], targets=False)


@given(st.lists(st.integers(0, 12), min_size=1, max_size=20), st.integers(1, 5))
def test_an_evaluation_has_each_row_once_and_is_sorted_by_length(lengths, batch_size):
    features = tag_features(tagged(lengths), TOKENIZER, 40, TAGS)
    batches = list(features.evaluation(batch_size))
    sizes = [n for batch in batches for n in batch["attention_mask"].sum(1)]
    assert sizes == sorted(len(row.places) for row in features.rows)
    assert all(len(batch["labels"]) <= batch_size for batch in batches)


def test_samples_depend_on_the_generator_alone_and_reach_every_row():
    features = text_features([TextExample("old " * n, label=n) for n in range(8)], TOKENIZER, 40)
    draws = [features.sample(np.random.default_rng(3), 5) for _ in range(2)]
    for name in draws[0]:
        assert np.array_equal(draws[0][name], draws[1][name])
    rng = np.random.default_rng(0)
    samples = [features.sample(rng, 5)["labels"].tolist() for _ in range(20)]
    assert all(len(set(labels)) == 5 for labels in samples)
    assert set(sum(samples, [])) == set(range(8))
    assert len(features.sample(rng, 50)["labels"]) == 50


def test_rows_have_the_arrays_that_the_tokenizers_models_take():
    bpe = BPETokenizer.train("old lands", 260, special_tokens=["<pad>"])
    features = text_features([TextExample("old", "lands", label=1)], bpe, 20)
    assert set(features.batch([0])) == {"input_ids", "attention_mask", "labels"}


# --- Errors -----------------------------------------------------------------------------------


TEXT_EXAMPLE = TextExample("old", label="c")
CHOICE_EXAMPLE = ChoiceExample("old", ("a", "b"), 0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: text_features([TEXT_EXAMPLE], TOKENIZER, 20, ["a", "b"]), "labels a, b, got 'c'"),
        (lambda: text_features([TEXT_EXAMPLE], TOKENIZER, 20), "a number for each text, got 'c'"),
        (lambda: text_features([TextExample("", label=np.nan)], TOKENIZER, 20), "number .*got nan"),
        (lambda: text_features([TEXT_EXAMPLE], TOKENIZER, 2, ["c"]), "max_len >= 3.*got 2"),
        (lambda: text_features([], TOKENIZER, 20, ["c"]), "got 0 examples"),
        (
            lambda: text_features([TEXT_EXAMPLE, TextExample("")], TOKENIZER, 20, ["c"]),
            "2 examples, 1 without",
        ),
        (
            lambda: text_features([TextExample("old")], TOKENIZER, 20, ["c"]).batch([0]),
            "with labels, got none",
        ),
        (lambda: text_features([TEXT_EXAMPLE], TOKENIZER, 9, ["c"], -1), "stride >= 0, got 9 and"),
        (
            lambda: tag_features([TaggedExample(("a",), ("X",))], TOKENIZER, 20, TAGS),
            "labels O, B-PER, I-PER, got 'X'",
        ),
        (
            lambda: tag_features([TaggedExample(("a", "b"), ("O",))], TOKENIZER, 20, TAGS),
            "2 words and 1 tags in example 0",
        ),
        (lambda: tag_features(tagged([30]), TOKENIZER, 9, TAGS, 7), "room .*more than stride"),
        (lambda: span_features([SpanExample("q", "", "")] * 2, TOKENIZER, 20), "got one twice"),
        (lambda: span_features([SpanExample("q", "", "")], TOKENIZER, 4), "max_len >= 5"),
        (
            lambda: choice_features(
                [CHOICE_EXAMPLE, ChoiceExample("", ("a", "b", "c"), 0)], TOKENIZER, 20
            ),
            "expected 2 choices .* got 3 and 0 in example 1",
        ),
        (
            lambda: choice_features([ChoiceExample("", ("a", "b"), 2)], TOKENIZER, 20),
            "got 2 and 2",
        ),
        (lambda: choice_features([CHOICE_EXAMPLE], TOKENIZER, 4), "max_len >= 5"),
    ],
)
def test_what_cannot_become_rows_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
