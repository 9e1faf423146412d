"""The figures agree with scikit-learn's, SciPy's and seqeval's."""

import math
import warnings

import numpy as np
import pytest

from minilm.metrics import (
    accuracy,
    confusion_matrix,
    matthews_correlation,
    pearson,
    precision_recall_f1,
    spearman,
)
from minilm.metrics_text import entities, entity_f1

sklearn = pytest.importorskip("sklearn.metrics", reason="compares with scikit-learn's figures")
CASES = range(600)
EXACT = 1e-13  # sums of tens of ratios, each rounded at 1e-16


def classified(seed, n_classes=6):
    """Labels and predictions, each from a few of the classes: the other classes are empty."""
    rng = np.random.default_rng(seed)
    size = rng.integers(1, 40)
    few = [rng.integers(0, n_classes, rng.integers(1, n_classes + 1)) for _ in range(2)]
    labels, predictions = (rng.choice(classes, size) for classes in few)
    agree = rng.random(size) < rng.choice([0, 0.5, 0.9])
    return labels, np.where(agree, labels, predictions)


def with_ignored(seed, labels, predictions):
    """The same with positions between that count for nothing."""
    rng = np.random.default_rng(seed)
    kept = rng.permutation(len(labels) + 5) < len(labels)
    longer = np.full(len(kept), -100), rng.integers(-100, 100, len(kept))
    longer[0][kept], longer[1][kept] = labels, predictions
    return longer


def assert_close(got, want):
    np.testing.assert_allclose(got, want, rtol=EXACT, atol=EXACT)


def test_the_cases_have_empty_classes_of_every_kind():
    kinds = set()
    for seed in CASES:
        labels, predictions = classified(seed)
        kinds |= {(k in labels, k in predictions) for k in range(6)}
        kinds.add(len(set(labels)) == 1 and len(set(predictions)) == 1)
    assert kinds == {(a, b) for a in (True, False) for b in (True, False)} | {True, False}


@pytest.mark.filterwarnings("ignore:A single label was found")
@pytest.mark.parametrize("n_classes", [2, 6])
def test_accuracy_confusion_matrix_and_matthews_correlation_equal_scikit_learns(n_classes):
    for seed in CASES:
        case = classified(seed, n_classes)
        longer = with_ignored(seed, *case)
        assert_close(accuracy(*longer), sklearn.accuracy_score(*case))
        matrix = sklearn.confusion_matrix(*case, labels=range(n_classes))
        np.testing.assert_array_equal(confusion_matrix(*longer, n_classes), matrix)
        assert_close(matthews_correlation(*longer), sklearn.matthews_corrcoef(*case))


@pytest.mark.parametrize("zero_division", [0.0, 1.0, math.nan])
@pytest.mark.parametrize("average", ["micro", "macro", "weighted"])
def test_averaged_figures_equal_scikit_learns_over_all_classes_and_over_those_that_occur(
    average, zero_division
):
    for seed in CASES:
        case = classified(seed)
        # Without labels scikit-learn, too, takes the classes that occur.
        n_classes, classes = ((6, range(6)), (None, None))[seed % 2]
        want = sklearn.precision_recall_fscore_support(
            *case, average=average, labels=classes, zero_division=zero_division
        )
        longer = with_ignored(seed, *case)
        got = precision_recall_f1(*longer, average, n_classes, zero_division)
        assert_close(got[:3], want[:3])
        assert got.support == len(case[0])


@pytest.mark.parametrize("zero_division", [0.0, 1.0, math.nan])
def test_figures_of_each_class_equal_scikit_learns(zero_division):
    for seed in CASES:
        case = classified(seed)
        k = 6 if seed % 2 else max(map(max, case)) + 1
        want = sklearn.precision_recall_fscore_support(
            *case, labels=range(k), zero_division=zero_division
        )
        got = precision_recall_f1(*case, None, 6 if seed % 2 else None, zero_division)
        assert_close(got, want)


@pytest.mark.parametrize("zero_division", [0.0, 1.0, math.nan])
def test_binary_figures_equal_scikit_learns(zero_division):
    for seed in CASES:
        case = classified(seed, 2)
        want = sklearn.precision_recall_fscore_support(
            *case, average="binary", zero_division=zero_division
        )
        got = precision_recall_f1(*case, "binary", zero_division=zero_division)
        assert_close(got[:3], want[:3])


def test_correlations_equal_scipys():
    stats = pytest.importorskip("scipy.stats", reason="compares with SciPy's correlations")
    for seed in CASES:
        rng = np.random.default_rng(seed)
        size = rng.integers(2, 40)
        x, y = rng.normal(size=(2, size)) * 10.0 ** rng.integers(-6, 7, (2, 1))
        y += rng.choice([0, 1, -10]) * x
        if seed % 2:  # ties, and constants
            x, y = rng.integers(0, rng.integers(1, 6), (2, size))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of constants, for which it gives nan as well
            want = stats.pearsonr(x, y).statistic, stats.spearmanr(x, y).statistic
        assert_close((pearson(x, y), spearman(x, y)), want)


def tagged(seed):
    """Gold and predicted BIO tags of a few sentences; continuations may stand anywhere."""
    rng = np.random.default_rng(seed)
    tags = ["O", *(f"{prefix}-{kind}" for kind in ("PER", "LOC", "a-b") for prefix in "BI")]
    few = rng.choice(tags, rng.integers(2, 8))
    gold = [rng.choice(few, rng.integers(0, 9)).tolist() for _ in range(rng.integers(1, 5))]
    noise = rng.choice([0.1, 0.5])
    predicted = [
        [str(rng.choice(tags)) if rng.random() < noise else tag for tag in sentence]
        for sentence in gold
    ]
    return gold, predicted


@pytest.mark.parametrize("zero_division", [0, 1])
def test_entity_figures_equal_seqevals(zero_division):
    oracle = pytest.importorskip(
        "seqeval.metrics", reason="compares with seqeval's reading of BIO tags"
    )
    for seed in CASES:
        gold, predicted = tagged(seed)
        for tags in gold:
            want = oracle.sequence_labeling.get_entities(tags)
            assert entities(tags) == [(kind, start, last + 1) for kind, start, last in want]
        scores = entity_f1(gold, predicted, zero_division)
        figures = (oracle.precision_score, oracle.recall_score, oracle.f1_score)
        want = [f(gold, predicted, zero_division=zero_division) for f in figures]
        assert_close(scores.micro[:3], want)
        if scores.by_type:  # without entities seqeval's report fails
            report = oracle.classification_report(
                gold, predicted, output_dict=True, zero_division=zero_division
            )
            for kind, got in scores.by_type.items():
                names = ("precision", "recall", "f1-score", "support")
                assert_close(got, [report[kind][name] for name in names])
