"""From a model's scores back to answers: labels, tags, stretches of text; and how good they are."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from minilm import functional as F
from minilm import kernels, metrics, metrics_text
from minilm.models.bert_heads import (
    BertForMultipleChoice,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertHead,
)
from minilm.nn import Module, evaluation_mode
from minilm.tasks.examples import SpanExample, TaggedExample
from minilm.tasks.features import (
    Features,
    choice_features,
    span_features,
    tag_features,
    text_features,
)
from minilm.tasks.table import CHOICE, CLASSES, NUMBER, SPAN, TAGS
from minilm.tensor import Array, Tensor, no_grad

# --- Scores -----------------------------------------------------------------------------------


def head_scores(output: Any) -> Array:
    """Of a head's output its logits; of starts and ends (B, T, 2)."""
    if output.logits is not None:
        return output.logits.data
    return np.stack([output.start_logits.data, output.end_logits.data], -1)


def predict(
    model: Module,
    features: Features,
    batch_size: int = 32,
    workers: int | None = None,
    read: Callable[[Any], Array] = head_scores,
) -> list[Array]:
    """What is to `read` of the output for each row, in their order, without dropout and padding.

    That is (K) for a text, (T, K) for tags, (T, 2) for starts and ends, (n) for choices. Batches of
    rows of similar length are dealt to `workers` threads (as many as cores, unless given).
    """
    workers = kernels.cores() if workers is None else workers
    batches = features.by_length(batch_size)
    lanes = [batches[i::workers] for i in range(min(workers, len(batches)))]
    with kernels.blas_threads(1), evaluation_mode(model):
        run = [partial(_lane, model, features, lane, read) for lane in lanes]
        found = kernels.run_parallel(run)
    scores = {i: array for lane in found for i, array in lane}
    return [scores[i] for i in range(len(features.rows))]


@no_grad()
def _lane(
    model: Module, features: Features, batches: list[Array], read: Callable[[Any], Array]
) -> list[tuple[int, Array]]:
    """The scores of some batches' rows, beside what other threads do."""
    scores = []
    for indices in batches:
        found = read(model(**features.batch(indices, targets=False)))
        for i, array in zip(indices.tolist(), found, strict=True):
            real = len(features.rows[i].places) if found.ndim == 3 else None  # (T, K), or (K)
            scores.append((i, array[:real]))
    return scores


def merge_windows(scores: Array, owners: Array, count: int) -> Array:
    """For each of `count` texts the mean of its windows' log-probabilities; of K = 1 score itself.

    Where windows share a word, the same for the word: it is that of the geometric mean of the
    distributions, a window that is sure counting for more.

    Shapes: (N, K), (N)i, () -> (count, K)

    >>> sure, unsure = np.log([0.9, 0.1]), np.log([0.4, 0.6])
    >>> merge_windows(np.stack([sure, unsure]), np.array([0, 0]), 1).argmax(1)
    array([0])
    """
    scores = np.asarray(scores, np.float64)
    if scores.shape[1] > 1:
        scores = F.log_softmax(Tensor(scores)).data
    sums = np.zeros((count, scores.shape[1]))
    np.add.at(sums, owners, scores)
    return sums / np.bincount(owners, minlength=count)[:, None]


# --- Predictions, one for each example --------------------------------------------------------


def predict_labels(model: Module, features: Features, batch_size: int = 32) -> Array:
    """Each text's class index, or, of a regression, its number. Windows of a text are merged."""
    scores = np.stack(predict(model, features, batch_size))
    owners = np.array([row.example for row in features.rows])
    merged = merge_windows(scores, owners, len(features.examples))  # (examples, K)
    return merged.argmax(1) if features.labels else merged[:, 0]


def predict_tags(model: Module, features: Features, batch_size: int = 32) -> list[list[str]]:
    """The tag of each word of each sentence; where windows share a word, of both merged."""
    examples: Sequence[Any] = features.examples
    ends = np.cumsum([0, *(len(example.words) for example in examples)])
    if not ends[-1]:
        return [[] for _ in examples]
    scores, owners = [], []
    for row, logits in zip(features.rows, predict(model, features, batch_size), strict=True):
        first = row.places[:, 0] >= 0
        scores.append(logits[first])
        owners.append(ends[row.example] + row.places[first, 0])
    merged = merge_windows(np.concatenate(scores), np.concatenate(owners), int(ends[-1]))
    names = [features.labels[i] for i in merged.argmax(1)]
    return [names[a:b] for a, b in zip(ends, ends[1:], strict=False)]


def best_span(start: Array, end: Array, max_tokens: int = 30) -> tuple[int, int, float]:
    """The i, j with i <= j < i + max_tokens and the largest startᵢ + endⱼ, and that sum.

    Shapes: (T), (T) -> (), (), ()
    Raises: ValueError — max_tokens below 1, no scores.
    Source: Devlin et al. 2018, arXiv 1810.04805, section 4.2; the released code looks among the 20
        best starts and ends only.

    >>> best_span(np.array([1.0, 0.0, 5.0]), np.array([4.0, 2.0, 0.5]))
    (2, 2, 5.5)
    """
    ((i, j, score),) = best_spans(start, end, max_tokens)
    return i, j, score


def best_spans(
    start: Array, end: Array, max_tokens: int = 30, count: int = 1
) -> list[tuple[int, int, float]]:
    """The `count` best of what `best_span` gives the best of; fewer where there are not as many.

    >>> best_spans(np.array([1.0, 0.0, 5.0]), np.array([4.0, 2.0, 0.5]), count=2)
    [(2, 2, 5.5), (0, 0, 5.0)]
    """
    length = min(max_tokens, len(end))
    if length < 1:
        raise ValueError(
            f"best_span: expected max_tokens >= 1 and a score or more, got {max_tokens} and "
            f"{len(end)} scores; BERT has 30 tokens"
        )
    ends = np.pad(end, (0, length - 1), constant_values=-np.inf)
    sums = start[:, None] + sliding_window_view(ends, length)  # [i, k] = startᵢ + endᵢ₊ₖ
    order = np.argsort(-sums, axis=None, kind="stable")[:count]
    i, k = np.divmod(order, length)
    scores = sums.ravel()[order]
    kept = scores > -np.inf
    triples = zip(i[kept].tolist(), (i + k)[kept].tolist(), scores[kept].tolist(), strict=True)
    return list(triples)


def predict_spans(
    model: Module,
    features: Features,
    batch_size: int = 32,
    max_answer_tokens: int = 30,
    null_threshold: float | None = None,
) -> dict[str, str]:
    """The answer to each question, by its id: the best span of all its windows.

    With a null_threshold "" is the answer to a question where the score of [CLS] as start and end,
    the least of its windows', exceeds the best span's by more than that; otherwise there is always
    an answer, unless the context is empty.

    Raises: ValueError — max_answer_tokens below 1.
    Source: Devlin et al. 2018, arXiv 1810.04805, sections 4.2 and 4.3, and the released code.
    """
    if max_answer_tokens < 1:
        raise ValueError(
            f"predict_spans: expected max_answer_tokens >= 1, got {max_answer_tokens}; BERT has 30"
        )
    examples: Sequence[Any] = features.examples
    answers = [""] * len(examples)
    best, null = np.full(len(examples), -np.inf), np.full(len(examples), np.inf)
    for row, scores in zip(features.rows, predict(model, features, batch_size), strict=True):
        i = row.example
        null[i] = min(null[i], scores[0].sum())
        context = np.flatnonzero(row.places[:, 0] >= 0)
        if not context.size:
            continue
        first, last, score = best_span(scores[context, 0], scores[context, 1], max_answer_tokens)
        if score > best[i]:
            start, end = row.places[context[first], 0], row.places[context[last], 1]
            best[i], answers[i] = score, examples[i].context[start:end]
    margin = np.inf if null_threshold is None else null_threshold
    pairs = zip(examples, answers, null - best > margin, strict=True)
    return {example.id: "" if none else answer for example, answer, none in pairs}


def predict_choices(model: Module, features: Features, batch_size: int = 32) -> Array:
    """The index of the choice with the largest score, for each example."""
    return np.stack(predict(model, features, batch_size)).argmax(1)


# --- What belongs to a head, and the metrics by name ------------------------------------------


def gold(features: Features) -> list[Any]:
    """What should be predicted for each example: a class's index, a number, tags, a choice's index.

    Of a question, all answers that are right, [""] if it has none.

    Raises: ValueError — examples without labels.
    """
    features.batch([0])  # which tells of missing labels
    return [_gold(example, features.labels) for example in features.examples]


def _gold(example: Any, labels: Sequence[str]) -> Any:
    match example:
        case TaggedExample():
            return list(example.tags or ())
        case SpanExample():
            return [text for _, text in example.answers] or [""]
    return labels.index(example.label) if labels else example.label


class Head(NamedTuple):
    """The steps of a task, called alike for every head.

    model(config, rng), features(examples, tokenizer, max_len, labels, stride) and predict(model,
    features), whose answers stand in the order of the examples, as do those of `gold(features)`.
    """

    model: type[BertHead]
    features: Callable[..., Features]
    predict: Callable[..., Any]


def _spans(
    examples: Any, tokenizer: Any, max_len: int, labels: Any = (), stride: int | None = None
) -> Features:
    return span_features(examples, tokenizer, max_len, stride)


def _choices(
    examples: Any, tokenizer: Any, max_len: int, labels: Any = (), stride: int | None = None
) -> Features:
    return choice_features(examples, tokenizer, max_len)


def _answers(*arguments: Any, **options: Any) -> list[str]:
    return list(predict_spans(*arguments, **options).values())


HEADS = {
    CLASSES: Head(BertForSequenceClassification, text_features, predict_labels),
    NUMBER: Head(BertForSequenceClassification, text_features, predict_labels),
    TAGS: Head(BertForTokenClassification, tag_features, predict_tags),
    SPAN: Head(BertForQuestionAnswering, _spans, _answers),
    CHOICE: Head(BertForMultipleChoice, _choices, predict_choices),
}


def score(
    names: Sequence[str], expected: Sequence[Any], predicted: Sequence[Any], language: str = "en"
) -> dict[str, float]:
    """The named metrics, each a figure up to 1, of what a head predicts for examples.

    "f1" is that of class 1 of two; "entity_f1" takes BIO tags; "squad_f1" and "exact_match" take
    lists of answers and one answer for each question, in the `language` "en" or "zh".

    Raises: ValueError — a name that is none of them, numbers of examples that differ.

    >>> score(["accuracy", "f1"], [0, 1, 1], [0, 1, 0])
    {'accuracy': 0.6666666666666666, 'f1': 0.6666666666666666}
    """
    if len(expected) != len(predicted) or not len(expected):
        raise ValueError(
            f"score: expected a prediction for each example, got {len(predicted)} for "
            f"{len(expected)}; take both from the same features"
        )
    answers = partial(_mean_answer, language=language)
    known: dict[str, Callable[..., float]] = {
        "accuracy": metrics.accuracy,
        "f1": lambda labels, found: metrics.precision_recall_f1(labels, found, "binary").f1,
        "macro_f1": lambda labels, found: metrics.precision_recall_f1(labels, found, "macro").f1,
        "matthews": metrics.matthews_correlation,
        "pearson": metrics.pearson,
        "spearman": metrics.spearman,
        "entity_f1": lambda *pair: metrics_text.entity_f1(*pair).micro.f1,
        "squad_f1": partial(answers, metrics_text.squad_f1),
        "exact_match": partial(answers, metrics_text.squad_exact_match),
    }
    unknown = sorted(set(names) - set(known))
    if unknown:
        raise ValueError(
            f"score: expected metrics of {', '.join(known)}, got {unknown}; correct these names"
        )
    return {name: known[name](expected, predicted) for name in names}


def _mean_answer(
    metric: Callable[..., float],
    expected: Sequence[Sequence[str]],
    predicted: Sequence[str],
    language: str,
) -> float:
    pairs = zip(predicted, expected, strict=True)
    return float(np.mean([metric(text, answers, language) for text, answers in pairs]))
