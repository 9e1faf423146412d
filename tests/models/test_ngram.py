"""Laws of the n-gram model."""

from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minilm.models.ngram import NGram, discounts


@st.composite
def streams(draw, min_size=1):
    """A vocabulary size, and a stream that leaves part of the vocabulary out."""
    vocab_size = draw(st.integers(1, 6))
    tokens = st.integers(0, draw(st.integers(0, vocab_size - 1)))
    stream = draw(st.lists(tokens, min_size=min_size, max_size=60))
    return vocab_size, np.array(stream, np.uint16)


def natural_stream(n=3000, vocab_size=30, seed=0):
    """Tokens with Zipf's frequencies that depend on the token before."""
    rng = np.random.default_rng(seed)
    stream = [0]
    for _ in range(n - 1):
        stream.append((stream[-1] * 7 + min(rng.zipf(1.6), vocab_size)) % vocab_size)
    return np.array(stream)


class Specification:
    """Interpolated modified Kneser-Ney in dictionaries, straight from Chen and Goodman 1998."""

    def __init__(self, tokens, order, vocab_size):
        self.order, self.vocab_size = order, vocab_size
        tokens = [int(token) for token in tokens]
        grams = {
            k: Counter(tuple(tokens[i : i + k]) for i in range(len(tokens) - k + 1))
            for k in range(1, order + 1)
        }
        self.counts = {order: grams[order]}
        for k in range(1, order):
            before = defaultdict(set)
            for gram in grams[k + 1]:
                before[gram[1:]].add(gram[0])
            self.counts[k] = {gram: len(tokens) for gram, tokens in before.items()}
        self.discounts = {k: self.estimate(self.counts[k].values()) for k in self.counts}
        self.after = {k: defaultdict(dict) for k in self.counts}
        for k, counts in self.counts.items():
            for gram, count in counts.items():
                self.after[k][gram[:-1]][gram[-1]] = count

    @staticmethod
    def estimate(counts):
        n = Counter(counts)
        if not all(n[r] for r in (1, 2, 3, 4)):
            return [0, 0.5, 1, 1.5]
        y = n[1] / (n[1] + 2 * n[2])
        d = [0, 1 - 2 * y * n[2] / n[1], 2 - 3 * y * n[3] / n[2], 3 - 4 * y * n[4] / n[3]]
        return d if min(d[1:]) > 0 else [0, 0.5, 1, 1.5]

    def probability(self, context, token):
        k = len(context) + 1
        lower = self.probability(context[1:], token) if context else 1 / self.vocab_size
        after = self.after[k].get(context)
        if not after:
            return lower
        d = self.discounts[k]
        total = sum(after.values())
        freed = sum(d[min(count, 3)] for count in after.values())
        count = after.get(token, 0)
        return (count - d[min(count, 3)]) / total + freed / total * lower

    def log_probabilities(self, tokens):
        tokens = tuple(int(token) for token in tokens)
        contexts = [tokens[max(0, i - self.order + 1) : i] for i in range(len(tokens))]
        return [np.log(self.probability(*pair)) for pair in zip(contexts, tokens, strict=True)]


@given(streams(), st.integers(1, 5), st.data())
def test_the_model_equals_its_specification(case, order, data):
    vocab_size, stream = case
    text = data.draw(st.lists(st.integers(0, vocab_size - 1), max_size=12))
    expected = Specification(stream, order, vocab_size).log_probabilities(text)
    actual = NGram.train(stream, order, vocab_size).log_probabilities(np.array(text, np.int64))
    np.testing.assert_allclose(actual, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("order", range(1, 7))
def test_the_model_equals_its_specification_where_discounts_are_estimated(order):
    stream, text = natural_stream(), natural_stream(400, seed=1)
    specification = Specification(stream, order, 31)
    if order > 1:
        assert specification.discounts[order] != [0, 0.5, 1, 1.5]
    actual = NGram.train(stream, order, 31).log_probabilities(text)
    np.testing.assert_allclose(actual, specification.log_probabilities(text), rtol=1e-12)


@given(streams(), st.integers(1, 8), st.data())
def test_probabilities_over_the_vocabulary_sum_to_one_for_any_context(case, order, data):
    vocab_size, stream = case
    model = NGram.train(stream, order, vocab_size)
    context = data.draw(st.lists(st.integers(0, vocab_size - 1), max_size=9))
    last = [model.log_probabilities(np.array([*context, w]))[-1] for w in range(vocab_size)]
    assert np.isfinite(last).all()
    assert np.exp(last).sum() == pytest.approx(1, abs=1e-12)


@given(streams(), st.integers(1, 5), st.data())
def test_only_the_tokens_of_the_order_count(case, order, data):
    vocab_size, stream = case
    tokens = st.integers(0, vocab_size - 1)
    near = data.draw(st.lists(tokens, min_size=order, max_size=order))
    far = data.draw(st.lists(tokens, max_size=5))
    model = NGram.train(stream, order, vocab_size)
    alone = model.log_probabilities(np.array(near))[-1]
    assert model.log_probabilities(np.array(far + near))[-1] == alone


@given(streams(min_size=2), st.integers(1, 5))
def test_changing_a_future_token_leaves_earlier_probabilities_unchanged(case, order):
    vocab_size, stream = case
    model = NGram.train(stream, order, vocab_size)
    changed = stream.copy()
    changed[-1] = (changed[-1] + 1) % vocab_size
    before, after = model.log_probabilities(stream), model.log_probabilities(changed)
    assert np.array_equal(before[:-1], after[:-1])


def test_by_hand():
    """Unigrams of 0 0 1 over three tokens: D = 1/2, 1; freed 1 + 1/2 of 3, shared by three."""
    model = NGram.train(np.array([0, 0, 1]), order=1, vocab_size=3)
    expected = [1 / 3 + 1 / 6, 0.5 / 3 + 1 / 6, 1 / 6]
    np.testing.assert_allclose(np.exp(model.log_probabilities(np.arange(3))), expected, rtol=1e-15)


def test_a_token_seen_behind_one_other_only_is_unlikely_elsewhere():
    """Kneser-Ney's idea: 1 is frequent but always behind 0; 2 is rare but behind many."""
    stream = np.array([0, 1] * 20 + [3, 2, 4, 2, 5, 2, 6, 2])
    model = NGram.train(stream, order=2, vocab_size=8)
    behind_unseen = [model.log_probabilities(np.array([7, w]))[-1] for w in (1, 2)]
    assert behind_unseen[0] < behind_unseen[1]


def test_discounts_by_hand():
    """n₁ ... n₄ = 8, 4, 2, 1: Y = 1/2, D₁ = 1 - 1/2, D₂ = 2 - 3/4, D₃ = 3 - 1."""
    counts = np.repeat([1, 2, 3, 4, 9], [8, 4, 2, 1, 5])
    assert discounts(counts).tolist() == [0, 0.5, 1.25, 2]


@pytest.mark.parametrize("numbers", [[8, 4, 2, 0], [0, 0, 0, 0], [9, 1, 40, 1]])
def test_discounts_that_cannot_be_estimated_fall_back(numbers):
    counts = np.repeat([1, 2, 3, 4], numbers)
    assert discounts(counts).tolist() == [0, 0.5, 1, 1.5]


def test_evaluate_is_the_mean_loss_and_more_context_helps():
    stream, text = natural_stream(), natural_stream(500, seed=1)
    losses = [NGram.train(stream, order, 31).evaluate(text) for order in (1, 2)]
    assert losses[1] < losses[0] - 0.3
    model = NGram.train(stream, 2, 31)
    assert model.evaluate(text) == pytest.approx(-model.log_probabilities(text).mean(), rel=1e-15)


def test_parameters_are_the_different_grams_of_all_lengths():
    assert NGram.train(np.array([0, 1, 0, 1, 2]), order=3, vocab_size=9).parameters == 3 + 3 + 3


def test_a_vocabulary_of_65536_and_order_8_fit():
    stream = np.tile(np.arange(65_536, dtype=np.uint16)[::-37], 2)
    model = NGram.train(stream, order=8, vocab_size=65_536)
    assert model.evaluate(stream[8:2000]) < 1
    assert np.isfinite(model.log_probabilities(np.array([1, 65_535, 3]))).all()


def test_an_order_longer_than_the_stream_is_the_longest_order_there_is():
    stream = np.array([0, 1, 0])
    model = NGram.train(stream, order=7, vocab_size=2)
    assert np.isfinite(model.log_probabilities(stream)).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.uint64])
def test_any_integer_type_gives_the_same_model(dtype):
    stream = natural_stream(200)
    same = NGram.train(stream.astype(dtype), 3, 31)
    assert same.evaluate(stream.astype(dtype)) == NGram.train(stream, 3, 31).evaluate(stream)


def test_a_memory_mapped_stream_trains(tmp_path):
    np.save(tmp_path / "tokens.npy", natural_stream(200).astype(np.uint16))
    stream = np.load(tmp_path / "tokens.npy", mmap_mode="r")
    assert NGram.train(stream, 3, 31).evaluate(stream) < np.log(31)


def test_no_tokens_have_no_probabilities_and_no_mean():
    model = NGram.train(np.array([0]), 2, 1)
    assert model.log_probabilities(np.array([], np.int64)).shape == (0,)
    with pytest.raises(ValueError, match="expected tokens, got none"):
        model.evaluate(np.array([], np.int64))


def test_bad_input_is_an_error():
    with pytest.raises(ValueError, match="order >= 1 and some tokens, got order 0"):
        NGram.train(np.array([0]), 0, 1)
    with pytest.raises(ValueError, match="and 0 tokens"):
        NGram.train(np.array([], np.int64), 1, 1)
    for stream in ([0, 3], [-1], [[0, 1]]):
        with pytest.raises(ValueError, match="expected one row of token ids from 0 to 2"):
            NGram.train(np.array(stream), 2, 3)
    with pytest.raises(ValueError, match="got shape \\(1,\\), 5 to 5"):
        NGram.train(np.array([0]), 2, 3).log_probabilities(np.array([5]))
