"""Laws of predictions: a perfect model answers perfectly, whatever windows and batches are."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minilm.functional import IGNORE_INDEX
from minilm.metrics_text import entity_f1, squad_f1
from minilm.models.bert import BertConfig
from minilm.models.bert_heads import BertOutput
from minilm.nn import Module
from minilm.optim import AdamW
from minilm.tasks import table
from minilm.tasks.examples import ChoiceExample, SpanExample, TaggedExample, TextExample
from minilm.tasks.features import choice_features, span_features, tag_features, text_features
from minilm.tasks.predictions import (
    HEADS,
    best_span,
    gold,
    merge_windows,
    predict,
    predict_choices,
    predict_labels,
    predict_spans,
    predict_tags,
    score,
)
from minilm.tensor import Tensor, grad_enabled
from minilm.tokenizers import WordPieceTokenizer
from minilm.training import evaluate, train_step

TEXT = "the old lowlands lay beyond sand and marsh until dry summers came again to cover all"
WORDS = TEXT.split()
CHINESE = "红楼梦是曹雪芹在北京写的长篇小说"
TOKENIZER = WordPieceTokenizer.train([TEXT, CHINESE, "right who ?"] * 2, 140)
TAGS = ["O", "B-PER", "I-PER"]


class Oracle(Module):
    """A model that knows the targets of the rows it was shown, and says so with `logits`."""

    def __init__(self, features, n_labels=1, sure=9.0):
        self.targets = {row.inputs["input_ids"].tobytes(): row.targets for row in features.rows}
        self.n_labels, self.sure = n_labels, sure
        self.n_rows = []  # of each call

    def forward(self, input_ids, attention_mask, token_type_ids):
        assert not grad_enabled() and not self.training
        shape = input_ids.shape
        self.n_rows.append(len(input_ids))
        spans, tags = np.zeros((2, *shape)), np.zeros((*shape, self.n_labels))
        texts = np.zeros((shape[0], self.n_labels))
        for i, length in enumerate(attention_mask.sum(1)):
            targets = self.targets[input_ids[i, :length].astype(np.int32).tobytes()]
            if "start_positions" in targets:
                spans[0, i, targets["start_positions"]] = self.sure
                spans[1, i, targets["end_positions"]] = self.sure
                spans[:, i, length:] = 2 * self.sure  # padding must not count
                continue
            labels = targets["labels"]
            if labels.ndim:
                at = np.flatnonzero(labels != IGNORE_INDEX)
                tags[i, at, labels[at]] = self.sure
                tags[i, :length][labels == IGNORE_INDEX, -1] = (
                    2 * self.sure
                )  # nor what is no first piece
            elif self.n_labels == 1:
                texts[i] = labels
            else:
                texts[i, labels] = self.sure
        if "start_positions" in targets:
            return BertOutput(start_logits=Tensor(spans[0]), end_logits=Tensor(spans[1]))
        return BertOutput(logits=Tensor(tags if targets["labels"].ndim else texts))


def question(number, start, stop, words=WORDS):
    """A question about the context's words from start up to stop, or without an answer."""
    context = " ".join(words)
    text = " ".join(words[start:stop])
    at = len(" ".join([*words[:start], ""])) if start else 0
    answers = ((at, text),) if text else ()
    return SpanExample(f"q{number}", f"who {number * 'the '}", context, answers)


# --- A perfect model --------------------------------------------------------------------------


@settings(max_examples=30)
@given(
    st.lists(st.lists(st.sampled_from(WORDS), unique=True), min_size=1, max_size=4),
    st.integers(9, 30),
    st.integers(0, 3),
)
def test_a_perfect_model_gives_each_word_its_tag_also_across_windows(sentences, max_len, stride):
    tag = {word: TAGS[TOKENIZER.encode(word)[0] % 3] for word in WORDS}  # a window tells it
    examples = [TaggedExample(tuple(s), tuple(tag[word] for word in s)) for s in sentences]
    features = tag_features(examples, TOKENIZER, max_len, TAGS, stride)
    predicted = predict_tags(Oracle(features, len(TAGS)), features, batch_size=2)
    assert predicted == gold(features) == [list(example.tags) for example in examples]


@settings(max_examples=30)
@given(
    st.lists(st.tuples(st.integers(0, 15), st.integers(0, 5)), min_size=1, max_size=4),
    st.integers(22, 60),
)
def test_a_perfect_model_gives_each_answer_also_across_windows(spans, max_len):
    examples = [question(i, a, min(a + n, a + 4)) for i, (a, n) in enumerate(spans)]
    features = span_features(examples, TOKENIZER, max_len, stride=7)
    seen = {row.example for row in features.rows if row.targets["end_positions"]}
    predicted = predict_spans(Oracle(features), features, batch_size=2, null_threshold=0.0)
    assert list(predicted) == [example.id for example in examples]
    for i, example in enumerate(examples):
        # An answer that no window holds whole cannot be found.
        assert predicted[example.id] == (example.answers[0][1] if i in seen else "")


def test_a_perfect_model_gives_chinese_answers():
    context = CHINESE * 4
    ids = range(len(CHINESE) - 3)
    examples = [
        SpanExample(f"q{i}", "who " + "? " * i, context, ((i + 17, context[i + 17 : i + 20]),))
        for i in ids
    ]
    features = span_features(examples, TOKENIZER, 40, stride=7)
    assert len(features.rows) > len(examples)
    predicted = predict_spans(Oracle(features), features)
    assert [[answer] for answer in predicted.values()] == gold(features)


def test_a_perfect_model_gives_each_text_its_label_also_across_windows():
    examples = [TextExample(f"{WORDS[i]} " * 16, label="abc"[i % 3]) for i in range(12)]
    features = text_features(examples, TOKENIZER, 15, list("abc"), stride=5)
    assert len(features.rows) > len(examples)
    model = Oracle(features, 3)
    predicted = predict_labels(model, features, batch_size=5)
    assert sum(model.n_rows) == len(features.rows) and max(model.n_rows) == 5
    assert predicted.tolist() == gold(features) == [i % 3 for i in range(12)]


def test_a_regression_is_the_mean_number_of_the_windows():
    examples = [TextExample(f"{word} " * 16, label=i / 4) for i, word in enumerate(WORDS)]
    features = text_features(examples, TOKENIZER, 12, stride=2)
    assert len(features.rows) > len(examples)
    assert predict_labels(Oracle(features), features).tolist() == gold(features)


def test_the_choice_with_the_largest_score_is_predicted():
    class Counts(Module):
        def forward(self, input_ids, **inputs):
            return BertOutput(logits=Tensor((input_ids == TOKENIZER.ids["r"]).sum(2) * 1.0))

    tokenizer = WordPieceTokenizer([*TOKENIZER.tokens], max_word=1)  # a word is a letter or unknown
    examples = [
        ChoiceExample("the " * i, tuple("r" if k == i % 3 else "w" for k in range(3)), i % 3)
        for i in range(7)
    ]
    features = choice_features(examples, tokenizer, 20)
    assert predict_choices(Counts(), features, 2).tolist() == gold(features)


# --- Spans ------------------------------------------------------------------------------------


@given(
    st.lists(st.tuples(st.integers(-9, 9), st.integers(-9, 9)), min_size=1, max_size=12),
    st.integers(1, 14),
)
def test_the_best_span_is_the_one_that_two_loops_find(scores, max_tokens):
    start, end = np.array(scores, np.float64).T
    pairs = [
        (start[i] + end[j], i, j)
        for i in range(len(start))
        for j in range(i, min(i + max_tokens, len(end)))
    ]
    i, j, best = best_span(start, end, max_tokens)
    assert best == max(pairs)[0] and (best, i, j) in pairs


class Fixed(Module):
    """start and end scores by the row's place in the features, context first."""

    def __init__(self, features, scores):
        self.known = {
            row.inputs["input_ids"].tobytes(): array
            for row, array in zip(features.rows, scores, strict=True)
        }

    def forward(self, input_ids, attention_mask, token_type_ids):
        spans = np.zeros((2, *input_ids.shape))
        for i, length in enumerate(attention_mask.sum(1)):
            spans[:, i, :length] = self.known[input_ids[i, :length].astype(np.int32).tobytes()].T
        return BertOutput(start_logits=Tensor(spans[0]), end_logits=Tensor(spans[1]))


def windows(seed=0, n_words=30):
    rng = np.random.default_rng(seed)
    context = " ".join(rng.choice(WORDS, n_words))
    features = span_features([SpanExample("q", "who?", context)], TOKENIZER, 25, stride=4)
    return features, [rng.normal(size=(len(row.places), 2)) for row in features.rows]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("limit", [1, 3, 30])
def test_the_answer_is_the_best_pair_of_all_windows_inside_the_context(seed, limit):
    features, scores = windows(seed)
    assert len(features.rows) > 1
    best, answer = -np.inf, ""
    for row, array in zip(features.rows, scores, strict=True):
        array[row.places[:, 0] < 0] += 100  # outside the context
        inside = np.flatnonzero(row.places[:, 0] >= 0)
        for i in inside:
            for j in inside[(inside >= i) & (inside < i + limit)]:
                if array[i, 0] + array[j, 1] > best:
                    best = array[i, 0] + array[j, 1]
                    answer = features.examples[0].context[row.places[i, 0] : row.places[j, 1]]
    found = predict_spans(Fixed(features, scores), features, max_answer_tokens=limit)
    assert found == {"q": answer} and answer


def test_a_question_has_no_answer_where_the_least_cls_score_exceeds_the_best_by_the_threshold():
    features, scores = windows()
    for k, array in enumerate(scores):
        array[:] = 0.0
        array[0] = [2.0 + k, 1.0]  # the least is 3, of the first window
    scores[-1][-2] = [0.5, 0.5]  # the best is 1
    model = Fixed(features, scores)
    answered = {t: predict_spans(model, features, null_threshold=t)["q"] for t in (1.9, 2.0, 2.1)}
    assert answered[1.9] == "" and answered[2.0] == answered[2.1] != ""
    assert predict_spans(model, features)["q"] == answered[2.0]


def test_a_context_without_tokens_has_no_answer():
    features = span_features([SpanExample("q", "who?", " ")], TOKENIZER, 25)
    assert predict_spans(Oracle(features), features) == {"q": ""}


# --- Windows and batches ----------------------------------------------------------------------


@settings(max_examples=30)
@given(st.integers(1, 4), st.integers(1, 6), st.integers(0, 99))
def test_merged_windows_are_means_of_log_probabilities(count, extra, seed):
    rng = np.random.default_rng(seed)
    owners = rng.permutation(np.append(np.arange(count), rng.integers(0, count, extra)))
    scores = rng.normal(size=(len(owners), 3)) * 5
    logs = scores - np.log(np.exp(scores).sum(1, keepdims=True))
    means = [logs[owners == i].mean(0) for i in range(count)]
    np.testing.assert_allclose(merge_windows(scores, owners, count), means, atol=1e-12)
    numbers = [scores[owners == i, :1].mean(0) for i in range(count)]
    np.testing.assert_allclose(merge_windows(scores[:, :1], owners, count), numbers, atol=1e-12)


def test_a_word_in_two_windows_gets_the_tag_of_their_merged_scores():
    class Position(Module):
        """Sure of class 1 near the row's start, less so of class 0 later on."""

        def forward(self, input_ids, **inputs):
            early = np.arange(input_ids.shape[1]) < 3
            logits = np.where(early[:, None], [0.0, 5.0], [1.0, 0.0])
            return BertOutput(
                logits=Tensor(np.broadcast_to(logits, (len(input_ids), *logits.shape)))
            )

    features = tag_features(
        [TaggedExample(("the",) * 10, ("O",) * 10)], TOKENIZER, 8, ["O", "X"], stride=2
    )
    assert [row.places[[1, -2], 0].tolist() for row in features.rows] == [[0, 5], [4, 9]]
    # Tokens 1 and 2 of each window are early; words 4 and 5 are late in the first window.
    (tags,) = predict_tags(Position(), features)
    assert tags == [*"XXOOXXOOOO"]


EXAMPLES = {
    table.CLASSES: [TextExample(" ".join(WORDS[: i % 7 + 1]), label="ab"[i % 2]) for i in range(9)],
    table.NUMBER: [TextExample("old " * i, "lands", float(i)) for i in range(9)],
    table.TAGS: [TaggedExample(tuple(WORDS[i:]), ("O", *["B-X"] * (15 - i))) for i in range(9)],
    table.SPAN: [question(i, i, i + 2 if i % 3 else i) for i in range(9)],
    table.CHOICE: [
        ChoiceExample("the old " * (i % 4), ("lay", "came again"), i % 2) for i in range(9)
    ],
}
LABELS = {table.CLASSES: ["a", "b"], table.TAGS: ["O", "B-X"]}
METRICS = {
    table.CLASSES: ["accuracy", "f1", "macro_f1", "matthews"],
    table.NUMBER: ["pearson", "spearman"],
    table.TAGS: ["entity_f1"],
    table.SPAN: ["squad_f1", "exact_match"],
    table.CHOICE: ["accuracy"],
}


def prepared(name, **fields):
    """A head's features of its examples, and a tiny model of it."""
    labels = LABELS.get(name, ())
    features = HEADS[name].features(EXAMPLES[name], TOKENIZER, 32, labels=labels, stride=2)
    config = BertConfig(
        TOKENIZER.vocab_size, 32, 8, 2, 1, 16, dropout=0.5,
        n_labels=1 if name == table.NUMBER else 2, init_std=1.0,
    )  # fmt: skip
    return HEADS[name], features, HEADS[name].model(config, np.random.default_rng(0))


@pytest.mark.parametrize("name", HEADS)
def test_scores_in_batches_by_length_are_those_of_each_row_alone(name):
    _, features, model = prepared(name)
    model.astype(np.float64)
    model.bert.dropout.training = False
    together = predict(model, features, batch_size=4, workers=2)
    assert model.training and not model.bert.dropout.training  # as it was
    model.eval()
    for i, scores in enumerate(together):
        row = {key: array[None] for key, array in features.rows[i].inputs.items()}
        output = model(**row)
        alone = output.logits
        if name == table.SPAN:
            alone = np.stack([output.start_logits.data, output.end_logits.data], -1)
        assert scores.shape == np.shape(getattr(alone, "data", alone))[1:]
        np.testing.assert_allclose(scores, np.asarray(getattr(alone, "data", alone))[0], atol=1e-10)


@pytest.mark.parametrize("name", HEADS)
def test_every_head_learns_from_its_samples_and_predicts_for_every_example(name):
    head, features, model = prepared(name)
    rng, optimizer = np.random.default_rng(1), AdamW(model.parameters(), lr=1e-3)
    before = [parameter.data.copy() for parameter in model.parameters()]
    assert np.isfinite(train_step(model, optimizer, features.sample(rng, 4)))
    assert any((a != b.data).any() for a, b in zip(before, model.parameters(), strict=True))
    losses = [evaluate(model, features.evaluation(n)) for n in (1, 4)]
    if name != table.SPAN:  # whose softmax runs over padding too
        np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)  # float32
    scores = score(METRICS[name], gold(features), head.predict(model, features))
    assert list(scores) == METRICS[name] and all(v <= 1 for v in scores.values())


# --- Scores -----------------------------------------------------------------------------------


def test_every_head_and_metric_of_the_tasks_is_known():
    assert set(HEADS) == {head for heads in table.FORMATS.values() for head in heads}
    assert set(sum(METRICS.values(), [])) == set(table.METRICS)


@pytest.mark.parametrize("name", HEADS)
def test_what_is_gold_scores_one(name):
    expected = gold(prepared(name)[1])
    answers = [texts[0] for texts in expected] if name == table.SPAN else expected
    scores = score(METRICS[name], expected, answers)
    np.testing.assert_allclose(list(scores.values()), 1.0, rtol=1e-12)


def test_scores_are_the_metrics_of_their_names():
    labels, found = [0, 1, 1, 1], [0, 1, 0, 0]
    assert score(["accuracy", "f1", "macro_f1"], labels, found) == {
        "accuracy": 0.5, "f1": 0.5, "macro_f1": 0.5,
    }  # fmt: skip
    labels, found = [0, 0, 0, 1], [0, 0, 0, 0]
    scores = score(["f1", "macro_f1", "matthews"], labels, found)
    assert scores["f1"] == scores["matthews"] == 0 and scores["macro_f1"] == pytest.approx(3 / 7)
    tags = [["B-PER", "O"]], [["B-PER", "B-LOC"]]
    assert score(["entity_f1"], *tags)["entity_f1"] == entity_f1(*tags).micro.f1
    texts, answers = [["北京大学"], [""]], ["北京", ""]
    scores = score(["squad_f1", "exact_match"], texts, answers, language="zh")
    assert scores["exact_match"] == 0.5
    assert scores["squad_f1"] == (squad_f1("北京", ["北京大学"], "zh") + 1) / 2
    ranks = score(["pearson", "spearman"], [1.0, 2.0, 3.0], [1.0, 2.0, 9.0])
    assert ranks["spearman"] == 1 > ranks["pearson"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: score(["bleu"], [0], [0]), "accuracy, .*got .'bleu'"),
        (lambda: score(["accuracy"], [0, 1], [0]), "got 1 for 2"),
        (lambda: score(["accuracy"], [], []), "got 0 for 0"),
        (lambda: predict_spans(Module(), windows()[0], max_answer_tokens=0), "got 0; BERT has 30"),
        (
            lambda: best_span(np.ones(3), np.ones(3), 0),
            "max_tokens >= 1 .*got 0 and 3 scores; BERT",
        ),
        (lambda: best_span(np.ones(0), np.ones(0)), "a score or more, got 30 and 0 scores; BERT"),
        (
            lambda: gold(text_features([TextExample("old")], TOKENIZER, 20, ["a"])),
            "with labels, got none",
        ),
    ],
)
def test_what_cannot_be_judged_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
