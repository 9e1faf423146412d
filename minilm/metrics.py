"""Figures that say how good a model is, and that can be compared between models.

Classes are integers from 0 up. A position whose label is `ignore_index` counts for nothing,
whatever is predicted there: padding, and in tagging all pieces of a word but one.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from minilm.functional import IGNORE_INDEX
from minilm.tensor import Array


def perplexity(nats: float) -> float:
    """exp(nats): among how many equally likely tokens the model is as uncertain.

    `nats` is the mean loss per token; infinite where the exponential is too large for a float.

    >>> round(perplexity(math.log(65)), 9)
    65.0
    """
    try:
        return math.exp(nats)
    except OverflowError:
        return math.inf


def bits_per_byte(nats_per_token: float, tokens: int, n_bytes: int) -> float:
    """nats · tokens / (n_bytes · ln 2): the loss per byte of text, whatever the tokenizer.

    Raises: ValueError — tokens < 0 or n_bytes < 1.

    >>> bits_per_byte(math.log(2), tokens=50, n_bytes=100)
    0.5
    """
    return _per(nats_per_token, tokens, n_bytes, "n_bytes") / math.log(2)


def nats_per_character(nats_per_token: float, tokens: int, characters: int) -> float:
    """nats · tokens / characters: the loss per character of text, whatever the tokenizer.

    Raises: ValueError — tokens < 0 or characters < 1.

    >>> nats_per_character(4.5, tokens=100, characters=300)
    1.5
    """
    return _per(nats_per_token, tokens, characters, "characters")


def _per(nats_per_token: float, tokens: int, units: int, name: str) -> float:
    if tokens < 0 or units < 1:
        raise ValueError(
            f"expected tokens >= 0 and {name} >= 1, got {tokens} and {units}; count both in the "
            "text that the loss was measured on"
        )
    return nats_per_token * tokens / units


def accuracy(labels: ArrayLike, predictions: ArrayLike, ignore_index: int = IGNORE_INDEX) -> float:
    """#(label = prediction) / N over the N positions that count; nan where there are none.

    Shapes: (B, T)i, (B, T)i -> ()
    Raises: ValueError — shapes that differ, classes that are not integers from 0 up.

    >>> accuracy([0, 1, 2, -100], [0, 1, 1, 0])
    0.6666666666666666
    """
    labels, predictions, _ = _counted(labels, predictions, ignore_index)
    return float(np.mean(labels == predictions)) if labels.size else math.nan


def confusion_matrix(
    labels: ArrayLike,
    predictions: ArrayLike,
    n_classes: int | None = None,
    ignore_index: int = IGNORE_INDEX,
) -> Array:
    """Mᵢⱼ = #(label = i and prediction = j).

    K, the number of classes, is `n_classes`, or one more than the largest class that occurs.

    Shapes: (B, T)i, (B, T)i -> (K, K)i
    Raises: ValueError — shapes that differ, classes that are not integers in 0..K-1.

    >>> confusion_matrix([0, 0, 1, 2], [0, 1, 1, 0])
    array([[1, 1, 0],
           [0, 1, 0],
           [1, 0, 0]])
    """
    labels, predictions, k = _counted(labels, predictions, ignore_index, n_classes)
    return np.bincount(labels * k + predictions, minlength=k * k).reshape(k, k)


class PrecisionRecallF1(NamedTuple):
    """Numbers, or arrays with one entry per class; `support` counts the labels behind them."""

    precision: Any
    recall: Any
    f1: Any
    support: Any

    @classmethod
    def from_counts(
        cls, right: Any, predicted: Any, labelled: Any, *, zero_division: float = 0.0
    ) -> "PrecisionRecallF1":
        """right / predicted,  right / labelled,  2 right / (predicted + labelled).

        Shapes: (K)i, (K)i, (K)i -> (K), (K), (K), (K)i

        >>> PrecisionRecallF1.from_counts(right=1, predicted=1, labelled=3)
        PrecisionRecallF1(precision=1.0, recall=0.3333333333333333, f1=0.5, support=3)
        """
        pairs = ((right, predicted), (right, labelled), (2 * right, predicted + labelled))
        precision, recall, f1 = (
            np.where(of > 0, part / np.maximum(of, 1), zero_division) for part, of in pairs
        )
        if not precision.ndim:
            return cls(float(precision), float(recall), float(f1), int(labelled))
        return cls(precision, recall, f1, labelled)


def precision_recall_f1(
    labels: ArrayLike,
    predictions: ArrayLike,
    average: str | None = "macro",
    n_classes: int | None = None,
    zero_division: float = 0.0,
    ignore_index: int = IGNORE_INDEX,
) -> PrecisionRecallF1:
    """P = TP / (TP + FP),  R = TP / (TP + FN),  F1 = 2 TP / (2 TP + FP + FN) = 2 P R / (P + R).

    average=None: arrays whose entry k takes class k against all others.
    "binary": class 1 alone. "micro": TP, FP and FN summed over the classes, so that P = R = F1 =
    accuracy. "macro": the mean of the classes' figures, F1 among them; "weighted": that mean
    weighted by support.

    0/0 is `zero_division`; classes where it is nan are left out of the mean. Without `n_classes` a
    macro mean is over the classes that occur in the labels or the predictions, else over all.

    Shapes: (B, T)i, (B, T)i -> (), (), (), ()
    Raises: ValueError — shapes that differ, classes that are not integers in 0..K-1, an unknown
        average, "binary" with more than two classes.
    Source: van Rijsbergen 1979, Information Retrieval, chapter 7.
    Differs: scikit-learn's average=None skips classes that do not occur, and moves up the others.

    >>> precision_recall_f1([0, 1, 1, 1], [0, 1, 1, 0], average="binary")
    PrecisionRecallF1(precision=1.0, recall=0.6666666666666666, f1=0.8, support=3)
    >>> precision_recall_f1([0, 1, 1, 3], [0, 1, 1, 0], average=None).f1.round(2)
    array([0.67, 1.  , 0.  , 0.  ])
    """
    if average not in (None, "binary", "micro", "macro", "weighted"):
        raise ValueError(
            f"expected average None, 'binary', 'micro', 'macro' or 'weighted', got {average!r}; "
            "'macro' weighs all classes alike"
        )
    labels, predictions, k = _counted(labels, predictions, ignore_index, n_classes)
    if average == "binary" and k > 2:
        raise ValueError(
            f"average 'binary': expected classes 0 and 1, got {k} classes; "
            "use 'macro', 'micro' or 'weighted'"
        )
    k = 2 if average == "binary" else k
    kinds = (labels[labels == predictions], predictions, labels)
    counts = np.stack([np.bincount(kind, minlength=k) for kind in kinds])  # (3, K)
    if average == "micro":
        counts = counts.sum(1)
    elif average == "binary":
        counts = counts[:, 1]
    elif average and n_classes is None:
        counts = counts[:, counts.any(0)]
    scores = PrecisionRecallF1.from_counts(*counts, zero_division=zero_division)
    if average not in ("macro", "weighted"):
        return scores
    weights = scores.support if average == "weighted" else np.ones_like(scores.support)
    precision, recall, f1 = (_mean(score, weights, zero_division) for score in scores[:3])
    return PrecisionRecallF1(precision, recall, f1, int(scores.support.sum()))


def matthews_correlation(
    labels: ArrayLike, predictions: ArrayLike, ignore_index: int = IGNORE_INDEX
) -> float:
    """The correlation of labels and predictions, each written as one-hot vectors.

    With two classes (TP TN - FP FN) / √((TP + FP) (TP + FN) (TN + FP) (TN + FN)), with any number
    (N c - Σₖ tₖ pₖ) / √((N² - Σₖ tₖ²) (N² - Σₖ pₖ²)), where c of N positions are right and class k
    is tₖ times the label and pₖ times the prediction. 0 where that is 0/0: one class alone.

    Shapes: (B, T)i, (B, T)i -> ()
    Raises: ValueError — shapes that differ, classes that are not integers from 0 up.
    Source: Matthews 1975; for more than two classes Gorodkin 2004.

    >>> matthews_correlation([1, 1, 1, 0], [1, 0, 1, 1])
    -0.3333333333333333
    """
    labels, predictions, k = _counted(labels, predictions, ignore_index)
    t, p = (np.bincount(classes, minlength=k) for classes in (labels, predictions))
    n, right = labels.size, int(np.count_nonzero(labels == predictions))
    # Products in Python's integers, which do not overflow.
    spread = (n * n - int(t @ t)) * (n * n - int(p @ p))
    return (n * right - int(t @ p)) / math.sqrt(spread) if spread else 0.0


def pearson(x: ArrayLike, y: ArrayLike) -> float:
    """Σ (xᵢ - x̄)(yᵢ - ȳ) / √(Σ (xᵢ - x̄)² Σ (yᵢ - ȳ)²); nan where x or y is constant.

    Shapes: (N), (N) -> ()
    Raises: ValueError — shapes that differ, fewer than two points, numbers that are not finite.
    Source: Pearson 1895.

    >>> pearson([1, 2, 3], [2, 4, 7])
    0.9933992677987828
    """
    x, y = _points(x, y)
    if (x == x[0]).all() or (y == y[0]).all():  # rounding can leave a constant not quite centred
        return math.nan
    x, y = _centred(x), _centred(y)
    return max(-1.0, min(1.0, float(x @ y) / math.sqrt((x @ x) * (y @ y))))


def spearman(x: ArrayLike, y: ArrayLike) -> float:
    """Pearson's correlation of the ranks; equal values share the mean of the ranks they take up.

    Shapes: (N), (N) -> ()
    Raises: ValueError — shapes that differ, fewer than two points, numbers that are not finite.
    Source: Spearman 1904.

    >>> spearman([1, 2, 3], [10, 20, 1000])
    1.0
    """
    x, y = _points(x, y)
    return pearson(_ranks(x), _ranks(y))


def _counted(
    labels: ArrayLike, predictions: ArrayLike, ignore_index: int, n_classes: int | None = None
) -> tuple[Array, Array, int]:
    """The labels and predictions that count, as (N), (N), and the number of classes."""
    pair = np.asarray(labels), np.asarray(predictions)
    if pair[0].shape != pair[1].shape:
        raise ValueError(
            f"expected one prediction per label, got labels of shape {pair[0].shape} and "
            f"predictions of shape {pair[1].shape}; take the argmax of scores over the classes"
        )
    for name, array in zip(("labels", "predictions"), pair, strict=True):
        if array.size and array.dtype.kind not in "biu":
            raise ValueError(
                f"expected integer classes as {name}, got {array.dtype}; take the argmax of scores "
                "and give each class a number from 0 up"
            )
    kept = pair[0] != ignore_index
    both = np.stack([array[kept].astype(np.int64) for array in pair])  # (2, N)
    low, high = (int(both.min()), int(both.max())) if both.size else (0, -1)
    k = high + 1 if n_classes is None else n_classes
    if low < 0 or high >= k:
        raise ValueError(
            f"expected classes in 0..{k - 1}, got {low}..{high}; check n_classes and the label "
            f"that counts for nothing ({ignore_index})"
        )
    return both[0], both[1], k


def _mean(values: Array, weights: Array, zero_division: float) -> float:
    """Of the values that are not nan; not weighted where no weight is left."""
    defined = ~np.isnan(values)
    values, weights = values[defined], weights[defined]
    if not values.size:
        return zero_division
    return float(np.average(values, weights=weights if weights.any() else None))


def _points(x: ArrayLike, y: ArrayLike) -> tuple[Array, Array]:
    """x and y as finite float64 arrays (N), N >= 2."""
    pair = np.asarray(x), np.asarray(y)
    if pair[0].shape != pair[1].shape or pair[0].size < 2:
        raise ValueError(
            f"expected two points or more, an x and a y for each, got x of shape {pair[0].shape} "
            f"and y of shape {pair[1].shape}; flatten both, and gather scores over the batches"
        )
    for name, array in zip("xy", pair, strict=True):
        if array.dtype.kind not in "biuf" or not np.isfinite(array).all():
            raise ValueError(
                f"expected finite real numbers as {name}, got {array.dtype} or an infinity or nan; "
                "drop points without a value"
            )
    return pair[0].reshape(-1).astype(np.float64), pair[1].reshape(-1).astype(np.float64)


def _centred(x: Array) -> Array:
    """x without its mean, and so scaled that its largest entry is 1 or -1."""
    x = x - x.mean()
    x -= x.mean()  # what rounding left of the mean, where the values are close together
    return x / np.abs(x).max()  # or squares could overflow, or vanish


def _ranks(x: Array) -> Array:
    """1 for the smallest value; the mean rank for equal ones."""
    _, which, counts = np.unique(x, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[which]
