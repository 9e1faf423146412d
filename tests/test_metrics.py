"""Laws of the figures."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minilm.metrics import (
    PrecisionRecallF1,
    accuracy,
    bits_per_byte,
    confusion_matrix,
    matthews_correlation,
    nats_per_character,
    pearson,
    perplexity,
    precision_recall_f1,
    spearman,
)

LOSSES = st.floats(0, 50)
COUNTS = st.integers(1, 10**9)
EXACT = 1e-13  # sums of tens of ratios, each rounded at 1e-16


@st.composite
def classified(draw, n_classes=5, min_size=0, ignored=True):
    """Labels and predictions from a few of the classes, so that others stay empty."""
    few = st.lists(st.integers(0, n_classes - 1), min_size=1, max_size=n_classes)
    size = draw(st.integers(min_size, 25))
    labels = st.sampled_from(draw(few) + [-100] * ignored)
    predictions = st.sampled_from(draw(few))
    return (
        np.array(draw(st.lists(labels, min_size=size, max_size=size)), np.int64),
        np.array(draw(st.lists(predictions, min_size=size, max_size=size)), np.int64),
    )


def counted(labels, predictions):
    return [(a, b) for a, b in zip(labels, predictions, strict=True) if a != -100]


def classes_that_occur(pairs):
    return sorted({a for a, _ in pairs} | {b for _, b in pairs})


def ratio(part, of, zero_division=0.0):
    return part / of if of else zero_division


def one_against_all(pairs, k, zero_division=0.0):
    """Precision, recall, F1 and support of class k, from their definitions."""
    true_positives = sum(a == k and b == k for a, b in pairs)
    false_positives = sum(a != k and b == k for a, b in pairs)
    false_negatives = sum(a == k and b != k for a, b in pairs)
    return (
        ratio(true_positives, true_positives + false_positives, zero_division),
        ratio(true_positives, true_positives + false_negatives, zero_division),
        ratio(
            2 * true_positives,
            2 * true_positives + false_positives + false_negatives,
            zero_division,
        ),
        true_positives + false_negatives,
    )


def assert_close(got, want):
    np.testing.assert_allclose(got, want, rtol=EXACT, atol=EXACT)


@given(st.integers(1, 10**6))
def test_perplexity_of_the_uniform_distribution_is_the_vocabulary_size(vocab_size):
    assert perplexity(math.log(vocab_size)) == pytest.approx(vocab_size, rel=1e-13)


def test_perplexity_too_large_for_a_float_is_infinite():
    assert perplexity(1e4) == math.inf
    assert perplexity(math.inf) == math.inf
    assert perplexity(0.0) == 1.0


@given(LOSSES, COUNTS, COUNTS)
def test_bits_per_byte_is_the_loss_of_the_whole_text_spread_over_its_bytes(loss, tokens, n_bytes):
    bits = bits_per_byte(loss, tokens, n_bytes)
    assert bits * n_bytes * math.log(2) == pytest.approx(loss * tokens, rel=1e-13)


@given(LOSSES, COUNTS, COUNTS)
def test_nats_per_character_does_not_depend_on_how_text_is_cut_into_tokens(
    loss, tokens, characters
):
    nats = nats_per_character(loss, tokens, characters)
    assert nats * characters == pytest.approx(loss * tokens, rel=1e-13)
    assert nats_per_character(loss / 2, 2 * tokens, characters) == pytest.approx(nats, rel=1e-13)


def test_known_values():
    assert bits_per_byte(8 * math.log(2), tokens=1, n_bytes=1) == 8.0
    assert nats_per_character(4.5, tokens=100, characters=300) == 1.5


@pytest.mark.parametrize(("tokens", "units"), [(1, 0), (1, -1), (-1, 1)])
def test_counts_that_cannot_be_are_errors(tokens, units):
    with pytest.raises(ValueError, match=f"n_bytes >= 1, got {tokens} and {units}"):
        bits_per_byte(1.0, tokens, units)
    with pytest.raises(ValueError, match=f"characters >= 1, got {tokens} and {units}"):
        nats_per_character(1.0, tokens, units)


@given(classified())
def test_accuracy_is_the_share_of_right_predictions_among_the_positions_that_count(case):
    pairs = counted(*case)
    if pairs:
        assert accuracy(*case) == sum(a == b for a, b in pairs) / len(pairs)
    else:
        assert math.isnan(accuracy(*case))


@given(classified(), st.randoms())
def test_what_is_predicted_at_ignored_positions_changes_nothing(case, random):
    labels, predictions = case
    other = predictions.copy()
    for i in np.flatnonzero(labels == -100):
        other[i] = random.choice([-100, -1, 0, 3, 99])
    for average in (None, "micro", "macro", "weighted"):
        np.testing.assert_equal(
            precision_recall_f1(labels, other, average),
            precision_recall_f1(labels, predictions, average),
        )
    for figure in (accuracy, confusion_matrix, matthews_correlation):
        np.testing.assert_equal(figure(labels, other), figure(labels, predictions))


@given(classified())
def test_another_ignored_label_serves_as_well(case):
    labels, predictions = case
    other = np.where(labels == -100, 7, labels)
    assert_close(
        precision_recall_f1(other, predictions, ignore_index=7),
        precision_recall_f1(labels, predictions),
    )
    for figure in (accuracy, confusion_matrix, matthews_correlation):
        np.testing.assert_equal(
            figure(other, predictions, ignore_index=7), figure(labels, predictions)
        )


@given(classified(min_size=12), st.randoms(use_true_random=False))
def test_neither_the_order_of_examples_nor_the_shape_matters(case, random):
    labels, predictions = (classes[:12] for classes in case)
    order = random.sample(range(12), 12)
    for figure in (accuracy, confusion_matrix, precision_recall_f1, matthews_correlation):
        want = figure(labels, predictions)
        np.testing.assert_equal(figure(labels[order], predictions[order]), want)
        np.testing.assert_equal(
            figure(labels.reshape(3, 4), predictions.astype(np.uint8).reshape(3, 4)), want
        )
        np.testing.assert_equal(figure(labels.tolist(), predictions.tolist()), want)


@given(classified(), st.sampled_from([None, 5, 7]))
def test_the_confusion_matrix_counts_each_pair(case, n_classes):
    pairs = counted(*case)
    k = n_classes or max(classes_that_occur(pairs), default=-1) + 1
    want = [[sum(pair == (i, j) for pair in pairs) for j in range(k)] for i in range(k)]
    got = confusion_matrix(*case, n_classes)
    assert got.dtype.kind == "i"
    np.testing.assert_array_equal(got, np.array(want).reshape(k, k))


@given(classified(), st.sampled_from([None, 5, 7]), st.sampled_from([0.0, 1.0, 0.25, math.nan]))
def test_each_class_has_its_figures_against_all_others(case, n_classes, zero_division):
    pairs = counted(*case)
    k = n_classes or max(classes_that_occur(pairs), default=-1) + 1
    want = [one_against_all(pairs, c, zero_division) for c in range(k)]
    got = precision_recall_f1(*case, None, n_classes, zero_division)
    assert_close(np.array(got).T, np.array(want).reshape(k, 4))
    assert got.support.dtype.kind == "i"


@given(classified(), st.sampled_from([None, 5, 7]), st.sampled_from([0.0, 1.0]))
def test_macro_is_the_mean_over_all_classes_or_where_their_number_is_not_given_those_that_occur(
    case, n_classes, zero_division
):
    pairs = counted(*case)
    classes = range(n_classes) if n_classes else classes_that_occur(pairs)
    each = [one_against_all(pairs, c, zero_division)[:3] for c in classes]
    want = [sum(row) / len(each) for row in zip(*each, strict=True)] or [zero_division] * 3
    got = precision_recall_f1(*case, "macro", n_classes, zero_division)
    assert_close(got[:3], want)
    assert got.support == len(pairs)


@given(classified(), st.sampled_from([None, 5, 7]), st.sampled_from([0.0, 1.0]))
def test_weighted_is_the_mean_over_the_labels_of_the_figures_of_their_class(
    case, n_classes, zero_division
):
    pairs = counted(*case)
    each = [one_against_all(pairs, a, zero_division)[:3] for a, _ in pairs]
    want = [sum(row) / len(each) for row in zip(*each, strict=True)] or [zero_division] * 3
    got = precision_recall_f1(*case, "weighted", n_classes, zero_division)
    assert_close(got[:3], want)
    assert got.support == len(pairs)


@given(classified(), st.sampled_from([None, 5, 7]))
def test_micro_is_accuracy(case, n_classes):
    pairs = counted(*case)
    want = ratio(sum(a == b for a, b in pairs), len(pairs), 0.5)
    got = precision_recall_f1(*case, "micro", n_classes, zero_division=0.5)
    assert got == (want, want, want, len(pairs))


@given(classified(n_classes=2), st.sampled_from([None, 2]))
def test_binary_is_class_one_alone(case, n_classes):
    got = precision_recall_f1(*case, "binary", n_classes, zero_division=0.5)
    assert_close(got, one_against_all(counted(*case), 1, 0.5))
    assert_close(got, [row[1] for row in precision_recall_f1(*case, None, 2, zero_division=0.5)])


@given(classified(ignored=False), st.sampled_from([None, "micro", "macro"]))
def test_labels_and_predictions_changing_places_precision_and_recall_do_too(case, average):
    got, swapped = (precision_recall_f1(*pair, average) for pair in (case, case[::-1]))
    assert_close(swapped[:3], (got.recall, got.precision, got.f1))
    np.testing.assert_array_equal(confusion_matrix(*case[::-1]), confusion_matrix(*case).T)
    assert matthews_correlation(*case[::-1]) == pytest.approx(
        matthews_correlation(*case), abs=EXACT
    )


@pytest.mark.parametrize("zero_division", [0.0, 1.0, math.nan])
def test_nothing_over_nothing_is_zero_division(zero_division):
    z = zero_division
    # Class 0 is missed, 1 is found half, 2 is never a label, 3 is neither label nor prediction.
    labels, predictions = [0, 1, 1], [1, 1, 2]
    got = precision_recall_f1(labels, predictions, None, 4, z)
    np.testing.assert_equal(got.precision, [z, 0.5, 0, z])
    np.testing.assert_equal(got.recall, [0, 0.5, z, z])
    np.testing.assert_equal(got.f1, [0, 0.5, 0, z])
    np.testing.assert_equal(got.support, [1, 2, 0, 0])
    for average in ("binary", "micro", "macro", "weighted"):
        empty = precision_recall_f1([], [], average, zero_division=z)
        np.testing.assert_equal(empty, (z, z, z, 0))


def test_a_class_whose_figure_is_nan_is_left_out_of_the_mean():
    labels, predictions = [0, 1, 1, 1], [1, 1, 2, 2]
    got = precision_recall_f1(labels, predictions, "macro", 4, math.nan)
    assert_close(got[:3], [(0.5 + 0) / 2, (0 + 1 / 3) / 2, (0 + 2 / 5 + 0) / 3])
    got = precision_recall_f1(labels, predictions, "weighted", 4, math.nan)
    assert_close(got[:3], [0.5, (0 + 3 * 1 / 3) / 4, (0 + 3 * 2 / 5) / 4])
    # Only class 1, which no label has, is ever predicted: its weight is 0, and it is alone.
    assert precision_recall_f1([0, 0], [1, 1], "weighted", None, math.nan).precision == 0.0


def test_figures_of_known_counts():
    got = PrecisionRecallF1.from_counts(right=3, predicted=4, labelled=6)
    assert got == (0.75, 0.5, 0.6, 6)
    assert [type(figure) for figure in got] == [float, float, float, int]
    labels, predictions = [1, 1, 0, 0], [True, False, False, False]
    assert precision_recall_f1(labels, predictions, "binary") == (1.0, 0.5, 2 / 3, 2)
    for average in ("binary", "micro", "macro", "weighted"):
        got = precision_recall_f1(labels, predictions, average)
        assert [type(figure) for figure in got] == [float, float, float, int]
    assert accuracy(1, 1) == 1.0


@given(classified(n_classes=4))
def test_matthews_correlation_is_the_correlation_of_one_hot_vectors(case):
    pairs = counted(*case)
    classes = classes_that_occur(pairs)

    def covariance(left, right):
        """Σₖ cov(leftₖ, rightₖ), where each is 1 at the positions of class k, times N²."""
        total = 0
        for k in classes:
            ones = [(pair[left] == k, pair[right] == k) for pair in pairs]
            both, a, b = sum(x and y for x, y in ones), *map(sum, zip(*ones, strict=True))
            total += len(pairs) * both - a * b
        return total

    spread = covariance(0, 0) * covariance(1, 1)
    want = covariance(0, 1) / math.sqrt(spread) if spread else 0.0
    assert matthews_correlation(*case) == pytest.approx(want, abs=EXACT)


@given(classified(n_classes=2, min_size=2, ignored=False))
def test_matthews_correlation_of_two_classes_is_pearsons(case):
    want = pearson(*case)
    assert matthews_correlation(*case) == pytest.approx(0 if math.isnan(want) else want, abs=EXACT)


@given(classified(n_classes=2))
def test_matthews_correlation_of_two_classes_is_the_formula_of_1975(case):
    (tn, fp), (fn, tp) = confusion_matrix(*case, 2).tolist()
    square = (tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)
    want = (tp * tn - fp * fn) / math.sqrt(square) if square else 0.0
    assert matthews_correlation(*case) == pytest.approx(want, abs=EXACT)


@given(classified(n_classes=4, ignored=False), st.permutations(range(4)))
def test_matthews_correlation_does_not_depend_on_how_classes_are_numbered(case, numbers):
    renumbered = [np.array(numbers)[classes] for classes in case]
    assert matthews_correlation(*renumbered) == pytest.approx(
        matthews_correlation(*case), abs=EXACT
    )


def test_matthews_correlation_of_many_positions_does_not_overflow():
    labels = np.arange(200_000) % 2
    assert matthews_correlation(labels, labels) == 1.0
    assert matthews_correlation(labels, 1 - labels) == -1.0
    assert matthews_correlation(labels, 0 * labels) == 0.0


PAIRS = st.lists(st.tuples(st.integers(-20, 20), st.integers(-20, 20)), min_size=2, max_size=20)


def pearson_by_hand(pairs):
    """The formula in fractions, rounded only by the root and the last division."""
    mean_x, mean_y = (Fraction(sum(values), len(pairs)) for values in zip(*pairs, strict=True))
    covariance = sum((x - mean_x) * (y - mean_y) for x, y in pairs)
    spread = sum((x - mean_x) ** 2 for x, _ in pairs) * sum((y - mean_y) ** 2 for _, y in pairs)
    return float(covariance) / math.sqrt(spread) if spread else math.nan


def same(got, want, tolerance=EXACT):
    return got == pytest.approx(want, abs=tolerance, nan_ok=True)


@given(PAIRS)
def test_pearson_is_its_formula_and_nan_for_a_constant(pairs):
    x, y = zip(*pairs, strict=True)
    assert same(pearson(x, y), pearson_by_hand(pairs))


@given(PAIRS, st.sampled_from([1e-200, 0.1, 3.0, 1e200]), st.sampled_from([-1e6, 0.0, 0.1, 1e3]))
def test_pearson_keeps_its_value_when_x_is_scaled_and_its_size_when_x_is_turned_over(
    pairs, scale, shift
):
    x, y = (np.array(values) for values in zip(*pairs, strict=True))
    if len(set(x.tolist())) > 1 and len(set(y.tolist())) > 1:
        want = pearson_by_hand(pairs)
        assert same(pearson(x * scale, y), want)
        assert same(pearson(-x * scale, y), -want)
        assert same(pearson(x + shift, y), want, 1e-9)  # x + 1e6 keeps ten of x's digits
        assert same(pearson(y, x), want)


def test_pearson_of_values_that_differ_in_the_last_digit_is_right():
    x = 1 + np.array([0, 1, 1, 0, 1]) * 2.0**-52
    assert same(pearson(x, [0, 1, 1, 0, 1]), 1.0)
    assert same(pearson(x.astype(np.float32) + np.float32(1), x), math.nan)
    assert math.isnan(pearson([0.1] * 3, [1, 2, 4]))  # whose mean is not 0.1


def test_pearson_never_leaves_minus_one_to_one():
    for x in np.random.default_rng(0).normal(size=(200, 10)):
        for y in (x * 0.1, x * -0.1):  # whose rounding carries one case in six past 1
            assert abs(pearson(x, y)) <= 1
            assert same(abs(pearson(x, y)), 1)


@given(PAIRS)
def test_spearman_is_pearson_of_ranks_that_equal_values_share(pairs):
    x, y = zip(*pairs, strict=True)

    def rank(values, value):
        """The mean place of the value when they stand in order, from 1."""
        places = [i + 1 for i, other in enumerate(sorted(values)) if other == value]
        return Fraction(sum(places), len(places))

    want = pearson_by_hand([(rank(x, a), rank(y, b)) for a, b in pairs])
    assert same(spearman(x, y), want)


@given(PAIRS)
def test_spearman_sees_only_the_order(pairs):
    x, y = (np.array(values) for values in zip(*pairs, strict=True))
    assert same(spearman(np.exp(x), y**3), spearman(x, y))
    assert same(spearman(-x, y), -spearman(x, y))


CLASSIFIERS = [accuracy, confusion_matrix, precision_recall_f1, matthews_correlation]


@pytest.mark.parametrize("figure", CLASSIFIERS)
@pytest.mark.parametrize(
    ("labels", "predictions", "message"),
    [
        ([0, 1], [0], r"one prediction per label, got labels of shape \(2,\) and .* \(1,\)"),
        ([0, 1], [[0.1, 0.9], [0.8, 0.2]], "one prediction per label"),
        ([0, 1], [0.0, 1.0], "integer classes as predictions, got float64; take the argmax"),
        ([0.0, 1.0], [0, 1], "integer classes as labels, got float64"),
        (["a", "b"], ["a", "a"], "integer classes as labels, got <U1"),
        ([0, -1], [0, 1], r"classes in 0\.\.1, got -1\.\.1; check n_classes"),
        ([0, 1], [0, -100], r"got -100\.\.1; check n_classes"),
    ],
)
def test_what_is_no_pair_of_classes_is_an_error(figure, labels, predictions, message):
    with pytest.raises(ValueError, match=message):
        figure(labels, predictions)


def test_classes_beyond_their_number_and_unknown_averages_are_errors():
    for figure in (confusion_matrix, precision_recall_f1):
        with pytest.raises(ValueError, match=r"expected classes in 0\.\.1, got 0\.\.2"):
            figure([0, 2], [0, 1], n_classes=2)
        with pytest.raises(ValueError, match=r"expected classes in 0\.\.1, got 1\.\.2"):
            figure([1, 1], [2, 1], n_classes=2)
    with pytest.raises(ValueError, match="'macro' or 'weighted', got 'samples'"):
        precision_recall_f1([0], [0], "samples")
    with pytest.raises(ValueError, match="expected classes 0 and 1, got 3 classes; use 'macro'"):
        precision_recall_f1([0, 2], [0, 1], "binary")
    with pytest.raises(ValueError, match="expected classes 0 and 1, got 4 classes"):
        precision_recall_f1([0, 1], [0, 1], "binary", n_classes=4)


@pytest.mark.parametrize("figure", [pearson, spearman])
@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        ([1.0], [2.0], "two points or more"),
        ([], [], "two points or more"),
        ([1, 2], [1, 2, 3], r"got x of shape \(2,\) and y of shape \(3,\)"),
        ([1, math.nan], [1, 2], "finite real numbers as x, got float64"),
        ([1, 2], [1, -math.inf], "finite real numbers as y"),
        (["a", "b"], [1, 2], "finite real numbers as x, got <U1"),
        ([1j, 2], [1, 2], "finite real numbers as x, got complex128"),
    ],
)
def test_what_has_no_correlation_is_an_error(figure, x, y, message):
    with pytest.raises(ValueError, match=message):
        figure(x, y)
