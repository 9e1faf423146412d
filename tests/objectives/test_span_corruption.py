"""Laws of span corruption and prefix language modelling."""

import itertools
import math
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minilm import functional as F
from minilm.functional import IGNORE_INDEX
from minilm.models.causal import shift
from minilm.objectives.causal import windows
from minilm.objectives.span_corruption import (
    PrefixBatches,
    SpanCorruptionBatches,
    corrupt,
    corrupted_lengths,
    noise_counts,
    noise_spans,
    prefix_labels,
    prefix_mask,
    restore,
)
from minilm.objectives.text_to_text import MixedTasks
from minilm.tensor import Tensor

PAD, EOS = 0, 1
SENTINELS = np.arange(199, 99, -1)  # as in T5: the last ids of the vocabulary, the last one first
STREAM = np.arange(1000, 1400, dtype=np.uint16)  # a token tells its place: token - 1000

densities = st.sampled_from([0.05, 0.15, 0.3, 0.5, 0.8, 0.95])
means = st.sampled_from([1, 1.5, 3, 10])


def runs(row):
    """The lengths of the stretches of noise."""
    return [len(list(group)) for noise, group in itertools.groupby(row) if noise]


# --- How much noise ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("length", "density", "mean", "counts"),
    [
        (512, 0.15, 3, (77, 26)),  # 76.8 and 25.67
        (568, 0.15, 3, (85, 28)),  # 85.2 and 28.33; with it T5 fills inputs of 512
        (10, 0.15, 3, (2, 1)),  # 1.5: halves go to the even number
        (30, 0.15, 3, (4, 1)),  # 4.5
        (2, 0.15, 3, (1, 1)),  # 0.3 and 0.33: at least one
        (3, 0.99, 3, (2, 1)),  # at least one token of text
        (10, 0.8, 1, (8, 2)),  # no more spans than there is text to part them
    ],
)
def test_counts_are_rounded_as_the_released_code_does(length, density, mean, counts):
    assert noise_counts(length, density, mean) == counts


@given(st.integers(2, 300), densities, means, st.integers(0, 1000))
def test_a_mask_has_exactly_m_noise_tokens_and_n_spans_on_the_ring(length, density, mean, seed):
    mask = noise_spans(length, density, mean, np.random.default_rng(seed))
    m, n = noise_counts(length, density, mean)
    assert mask.shape == (length,) and mask.dtype == bool
    assert mask.sum() == m
    assert len(runs(mask)) == n + int(mask[0] and mask[-1])


@pytest.mark.parametrize("case", [(1, 0.15, 3), (9, 0.0, 3), (9, 1.0, 3), (9, 0.15, 0.9)])
def test_a_row_without_noise_or_without_text_is_an_error(case):
    with pytest.raises(ValueError, match=f"got {case[0]}, {case[1]} and {case[2]}; T5 has 0.15"):
        noise_spans(*case, np.random.default_rng(0))


# --- Where the noise is -----------------------------------------------------------------------


class Told:
    """In the place of a generator: gives what it was told to, each answer once."""

    def __init__(self, *answers):
        self.answers = list(answers)

    def choice(self, count, size, replace):
        answer = self.answers.pop(0)
        assert not replace and len(answer) == size and set(answer) <= set(range(count))
        return np.array(answer, np.int64)

    def integers(self, stop):
        assert self.answers[0] in range(stop)
        return self.answers.pop(0)


def outcomes(length, density, mean):
    """The masks of all equally likely answers of the generator."""
    m, n = noise_counts(length, density, mean)
    text_cuts = itertools.combinations(range(length - m - 1), n - 1)
    noise_cuts = itertools.combinations(range(m - 1), n - 1)
    for answers in itertools.product(text_cuts, noise_cuts, range(length)):
        told = Told(*answers)
        yield tuple(noise_spans(length, density, mean, told).tolist())
        assert not told.answers


SMALL = [
    (2, 0.5, 3),
    (3, 0.6, 3),
    (8, 0.15, 3),
    (9, 0.5, 1),
    (9, 0.5, 2),
    (10, 0.3, 1),
    (11, 0.4, 2),
]


@pytest.mark.parametrize("case", SMALL)
def test_all_masks_with_m_tokens_in_n_spans_on_the_ring_are_equally_likely(case):
    length, (m, n) = case[0], noise_counts(*case)
    found = Counter(outcomes(*case))
    wanted = {
        mask
        for mask in itertools.product([False, True], repeat=length)
        if sum(mask) == m and sum(mask[i] and not mask[i - 1] for i in range(length)) == n
    }
    assert set(found) == wanted
    assert set(found.values()) == {n}


@pytest.mark.parametrize("case", SMALL)
def test_each_place_is_noise_with_probability_m_over_length_exactly(case):
    length, (m, _) = case[0], noise_counts(*case)
    masks = np.array(list(outcomes(*case)))
    assert {Fraction(int(k), len(masks)) for k in masks.sum(0)} == {Fraction(m, length)}


@pytest.mark.parametrize("case", SMALL)
@pytest.mark.parametrize("width", [2, 3])
def test_a_pattern_of_neighbours_is_as_likely_at_one_place_as_at_another(case, width):
    masks = list(outcomes(*case))
    places = [Counter(m[i : i + width] for m in masks) for i in range(case[0] - width + 1)]
    assert all(place == places[0] for place in places)


@pytest.mark.parametrize("case", SMALL)
def test_a_span_is_cut_in_two_with_probability_m_minus_n_over_length_exactly(case):
    length, (m, n) = case[0], noise_counts(*case)
    masks = list(outcomes(*case))
    cut = sum(len(runs(mask)) == n + 1 for mask in masks)
    assert Fraction(cut, len(masks)) == Fraction(m - n, length)


def test_a_real_generator_has_the_same_shares():
    rng = np.random.default_rng(0)
    counts = sum(noise_spans(20, 0.25, 2, rng).astype(int) for _ in range(2000))
    assert counts.sum() == 2000 * 5
    assert np.abs(counts - 500).max() < 5 * 19.4  # √(2000 · 5/20 · 15/20)


def test_the_same_seed_gives_the_same_spans_and_the_next_call_others():
    rng = np.random.default_rng(4)
    first, second = (noise_spans(200, 0.15, 3, rng) for _ in range(2))
    assert np.array_equal(first, noise_spans(200, 0.15, 3, np.random.default_rng(4)))
    assert not np.array_equal(first, second)


# --- Inputs and targets -----------------------------------------------------------------------


@st.composite
def corrupted(draw):
    """Any tokens but sentinels, eos and padding among them, and any mask."""
    tokens = draw(st.lists(st.integers(0, 9) | st.integers(200, 2**31), max_size=40))
    mask = draw(st.lists(st.booleans(), min_size=len(tokens), max_size=len(tokens)))
    return np.array(tokens, np.int64), np.array(mask, bool)


@given(corrupted())
def test_inputs_and_targets_give_back_the_text_whatever_the_mask(case):
    tokens, mask = case
    assert restore(*corrupt(tokens, mask, SENTINELS, EOS), SENTINELS).tolist() == tokens.tolist()


@given(st.integers(2, 120), densities, means, st.integers(0, 2**32))
def test_inputs_and_targets_give_back_the_text_for_any_generator(length, density, mean, seed):
    rng = np.random.default_rng(seed)
    tokens = rng.integers(0, 100, length)
    pair = corrupt(tokens, noise_spans(length, density, mean, rng), SENTINELS, EOS)
    assert np.array_equal(restore(*pair, SENTINELS), tokens)


@given(corrupted())
def test_each_span_has_its_own_sentinel_the_first_one_first(case):
    tokens, mask = case
    inputs, targets, used = [], [], iter(SENTINELS.tolist())
    for noise, group in itertools.groupby(zip(tokens.tolist(), mask, strict=True), lambda x: x[1]):
        stretch = [token for token, _ in group]
        if noise:
            sentinel = next(used)
            inputs.append(sentinel)
            targets += [sentinel, *stretch]
        else:
            inputs += stretch
    found = corrupt(tokens, mask, SENTINELS, EOS)
    assert [row.tolist() for row in found] == [[*inputs, EOS], [*targets, EOS]]
    assert {row.dtype for row in found} == {np.dtype(np.int64)}


@given(st.integers(2, 300), st.integers(0, 1000))
def test_sentinels_descend_in_inputs_and_targets_as_in_t5(length, seed):
    mask = noise_spans(length, 0.15, 3, np.random.default_rng(seed))
    for row in corrupt(np.full(length, 7), mask, SENTINELS, EOS):
        ids = row[row >= SENTINELS[-1]].tolist()
        assert ids == list(range(199, 199 - len(runs(mask)), -1))


def test_the_text_and_the_mask_stay_as_they_were():
    tokens, mask = np.arange(5), np.array([0, 1, 0, 1, 1], bool)
    corrupt(tokens, mask, SENTINELS, EOS)
    assert tokens.tolist() == [0, 1, 2, 3, 4] and mask.tolist() == [0, 1, 0, 1, 1]


def test_the_example_of_the_papers_figure_2_comes_out_but_for_its_last_sentinel():
    words = ["Thank", "you", "for", "inviting", "me", "to", "your", "party", "last", "week", "."]
    names = dict(enumerate(words)) | {199: "<X>", 198: "<Y>", EOS + 500: "</s>"}
    mask = np.isin(words, ["for", "inviting", "last"])
    inputs, targets = corrupt(np.arange(len(words)), mask, SENTINELS, EOS + 500)
    assert " ".join(names[i] for i in inputs) == "Thank you <X> me to your party <Y> week . </s>"
    assert " ".join(names[i] for i in targets) == "<X> for inviting <Y> last </s>"


def test_fewer_sentinels_than_spans_is_an_error_that_says_how_many_are_needed():
    mask = np.array([1, 0, 1, 0, 1])
    assert len(corrupt(np.arange(5), mask, SENTINELS[:3], EOS)[0]) == 6
    with pytest.raises(ValueError, match="a sentinel for each of 3 spans, got 2; add"):
        corrupt(np.arange(5), mask, SENTINELS[:2], EOS)
    with pytest.raises(ValueError, match="a sentinel for each of 29 spans, got 28; add"):
        SpanCorruptionBatches(np.zeros(600), SENTINELS[:28], 512, pad_id=PAD, eos_id=EOS)
    SpanCorruptionBatches(np.zeros(600), SENTINELS[:29], 512, pad_id=PAD, eos_id=EOS)


def test_a_sentinel_in_the_text_is_an_error():
    with pytest.raises(ValueError, match=r"a text without sentinels, got \[120, 199\] in it"):
        corrupt(np.array([5, 199, 120, 199]), np.zeros(4), SENTINELS, EOS)


def test_a_mask_of_another_shape_is_an_error():
    for tokens, mask in ((np.arange(4), np.zeros(3)), (np.zeros((2, 2)), np.zeros((2, 2)))):
        with pytest.raises(ValueError, match=r"tokens \(N\) and a mask of their shape"):
            corrupt(tokens, mask, SENTINELS, EOS)


@pytest.mark.parametrize(
    ("inputs", "targets"),
    [
        ([5, 199, 6, 198, EOS], [199, 7, EOS]),  # one is missing
        ([5, 199, 6, EOS], [199, 7, 198, 8, EOS]),  # one too many
        ([199, 6, 198, EOS], [198, 7, 199, 8, EOS]),  # in another order
        ([5, 199, 6, EOS], [7, 199, 8, EOS]),  # a token before the first
        ([5, 6, EOS], [7, EOS]),
    ],
)
def test_targets_that_do_not_belong_to_the_inputs_are_an_error(inputs, targets):
    with pytest.raises(ValueError, match="targets with the inputs' sentinels"):
        restore(np.array(inputs), np.array(targets), SENTINELS)


# --- Lengths ----------------------------------------------------------------------------------


@pytest.mark.parametrize("case", [(9, 0.5, 2), (11, 0.4, 2), (10, 0.3, 1), (8, 0.15, 3)])
def test_inputs_have_l_minus_m_plus_n_plus_1_tokens_and_targets_m_plus_n_plus_1(case):
    length, (m, n) = case[0], noise_counts(*case)
    for mask in set(outcomes(*case)):
        cut = mask[0] and mask[-1]
        inputs, targets = corrupt(np.full(length, 5), np.array(mask), SENTINELS, EOS)
        assert (len(inputs), len(targets)) == (length - m + n + 1 + cut, m + n + 1 + cut)


@pytest.mark.parametrize("density", [0.1, 0.15, 0.5])
@pytest.mark.parametrize("mean", [1, 2, 3, 5])
def test_corrupted_lengths_is_the_greatest_length_whose_inputs_always_fit(density, mean):
    longest = {}
    for length in range(2, 400):
        m, n = noise_counts(length, density, mean)
        longest[length] = length - m + n + 1 + (m > n), m + n + 1 + (m > n)
    for inputs_length in range(3, 200):
        length, targets_length = corrupted_lengths(inputs_length, density, mean)
        assert longest[length] == (inputs_length, targets_length)  # nothing is left over
        assert length == max(k for k, (size, _) in longest.items() if size <= inputs_length)
    with pytest.raises(ValueError, match="expected inputs_length >= 3, .* got 2"):
        corrupted_lengths(2, density, mean)


# --- Batches of span corruption ---------------------------------------------------------------


def span_batches(max_len=40, **options):
    return SpanCorruptionBatches(STREAM, SENTINELS, max_len, pad_id=PAD, eos_id=EOS, **options)


def texts(batch):
    """The rows as they were before corruption; checks what is padding."""
    found = []
    for ids, real, labels in zip(*(batch[name] for name in NAMES), strict=True):
        n = int(real.sum())
        assert real[:n].all() and (ids[n:] == PAD).all()
        kept = labels != IGNORE_INDEX
        assert kept[: kept.sum()].all()
        assert ids[n - 1] == labels[kept][-1] == EOS
        found.append(restore(ids[:n], labels[kept], SENTINELS))
    return np.array(found)


NAMES = ("input_ids", "attention_mask", "labels")


def same(a, b):
    return set(a) == set(b) == set(NAMES) and all(np.array_equal(a[k], b[k]) for k in NAMES)


@pytest.mark.parametrize("max_len", [3, 7, 40, 200])
def test_batches_have_one_shape_and_rows_at_most_one_token_of_padding(max_len):
    batches, rng = span_batches(max_len), np.random.default_rng(0)
    length, targets_length = corrupted_lengths(max_len)
    seen = set()
    for _ in range(20):
        batch = batches.sample(rng, 8)
        assert batch["input_ids"].shape == batch["attention_mask"].shape == (8, max_len)
        assert batch["labels"].shape == (8, targets_length)
        assert {array.dtype for array in batch.values()} == {np.dtype(np.int64)}
        assert texts(batch).shape == (8, length)
        padding = (batch["attention_mask"] == 0).sum(1)
        assert np.array_equal(padding, (batch["labels"] == IGNORE_INDEX).sum(1))
        seen |= set(padding.tolist())
    m, n = noise_counts(length, 0.15, 3)
    assert seen == ({0, 1} if m > n else {0})


def test_sampled_rows_are_windows_from_anywhere_corrupted_anew():
    length, _ = corrupted_lengths(30)
    stream, rng = STREAM[: length + 9], np.random.default_rng(0)
    batches = SpanCorruptionBatches(stream, SENTINELS, 30, pad_id=PAD, eos_id=EOS)
    batch, other = batches.sample(rng, 200), batches.sample(rng, 200)
    rows = texts(batch)
    assert np.array_equal(rows, rows[:, :1] + np.arange(length))
    assert set(rows[:, 0].tolist()) == set(range(1000, 1010))  # every place there is
    assert not same(batch, other)
    shapes = {tuple(np.flatnonzero(row >= 1000)) for row in batch["input_ids"]}
    assert len(shapes) > 100  # hardly two masks alike


@pytest.mark.parametrize(
    "make", [span_batches, lambda: PrefixBatches(STREAM, 30, pad_id=0, eos_id=1)]
)
def test_a_generator_put_back_gives_the_same_samples_again(make):
    batches, rng = make(), np.random.default_rng(5)
    batches.sample(rng, 3)
    state = rng.bit_generator.state
    second = batches.sample(rng, 3)
    assert not same(second, batches.sample(rng, 3))
    resumed = np.random.default_rng()
    resumed.bit_generator.state = state
    assert same(make().sample(resumed, 3), second)


@pytest.mark.parametrize(
    "make", [span_batches, lambda: PrefixBatches(STREAM, 30, pad_id=0, eos_id=1)]
)
def test_evaluation_reads_the_whole_stream_and_is_the_same_for_any_batch_size(make):
    batches = make()

    def rows(batch_size, seed=0):
        found = []
        for batch in batches.evaluation(batch_size, seed):
            for ids, real, labels in zip(*(batch[name] for name in NAMES), strict=True):
                found.append((*ids[real > 0], *labels[labels != IGNORE_INDEX]))
        return found

    assert rows(1) == rows(7) == rows(100) != rows(7, seed=1)
    assert len(rows(7)) == math.ceil(len(STREAM) / batches.length)
    assert {i for row in rows(7) for i in row if i >= 1000} == set(STREAM.tolist())


def test_a_stream_without_room_for_a_window_is_an_error():
    length, _ = corrupted_lengths(40)
    with pytest.raises(ValueError, match=f"at least length \\+ 1 = {length + 1} tokens"):
        SpanCorruptionBatches(STREAM[:length], SENTINELS, 40, pad_id=PAD, eos_id=EOS)


def test_a_sentinel_in_the_stream_is_an_error():
    batches = SpanCorruptionBatches(np.full(90, 150), SENTINELS, 40, pad_id=PAD, eos_id=EOS)
    with pytest.raises(ValueError, match=r"without sentinels, got \[150\]"):
        batches.sample(np.random.default_rng(0), 1)


# --- Prefix language modelling ----------------------------------------------------------------


@given(st.lists(st.integers(0, 7), max_size=4), st.integers(0, 7))
def test_a_position_sees_the_prefix_and_what_is_behind_it(prefixes, length):
    mask = prefix_mask(np.array(prefixes, np.int64), length)
    assert mask.shape == (len(prefixes), 1, length, length) and mask.dtype == bool
    for b, i, j in itertools.product(range(len(prefixes)), range(length), range(length)):
        assert mask[b, 0, i, j] == (j <= i or j < prefixes[b])


def test_attention_sees_all_of_the_prefix_and_nothing_that_is_to_be_predicted():
    rng, prefixes = np.random.default_rng(0), np.array([1, 3, 6])
    x = rng.normal(size=(3, 2, 6, 4))

    def attend(x):
        return F.attention(*(Tensor(x) for _ in range(3)), mask=prefix_mask(prefixes, 6)).data

    before = attend(x)
    for j in range(6):
        changed = x.copy()
        changed[:, :, j] += 1
        moved = (attend(changed) != before).any((1, 3))  # (B, T)
        for b, prefix in enumerate(prefixes):
            assert moved[b].tolist() == [j < prefix or j <= i for i in range(6)]


def test_the_loss_begins_with_the_first_token_behind_the_prefix():
    batch = windows(np.arange(10, 30), np.array([0, 8]), 5)
    targets = shift(prefix_labels(batch["labels"], np.array([1, 3])), 5)
    assert targets.tolist() == [[11, 12, 13, 14, 15], [-100, -100, 21, 22, 23]]


def test_of_a_window_the_encoder_reads_the_first_part_and_the_decoder_writes_the_rest():
    batch = PrefixBatches(STREAM, 9, pad_id=PAD, eos_id=EOS).sample(np.random.default_rng(0), 50)
    splits = []
    for ids, real, labels in zip(*(batch[name] for name in NAMES), strict=True):
        source, target = ids[real > 0].tolist(), labels[labels != IGNORE_INDEX].tolist()
        assert source.pop() == target.pop() == EOS
        assert source + target == list(range(source[0], source[0] + 9))
        assert ids[: len(source)].tolist() == source and labels[: len(target)].tolist() == target
        splits.append(len(source))
    assert batch["input_ids"].shape[1] == max(splits) + 1
    assert batch["labels"].shape[1] == 9 - min(splits) + 1


def test_all_splits_with_a_token_on_both_sides_are_equally_likely():
    batch = PrefixBatches(STREAM, 5, pad_id=PAD, eos_id=EOS).sample(np.random.default_rng(0), 8000)
    sizes, counts = np.unique(batch["attention_mask"].sum(1) - 1, return_counts=True)
    assert sizes.tolist() == [1, 2, 3, 4]
    assert np.abs(counts - 2000).max() < 5 * 38.8  # √(8000 · 1/4 · 3/4)
    with pytest.raises(ValueError, match="expected max_len >= 2, .* got 1"):
        PrefixBatches(STREAM, 1, pad_id=PAD, eos_id=EOS)


def test_both_can_be_mixed():
    spans, prefixes = span_batches(), PrefixBatches(STREAM, 30, pad_id=PAD, eos_id=EOS)
    batch = MixedTasks([spans, prefixes], [0.5, 0.5]).sample(np.random.default_rng(0), 40)
    has_sentinel = np.isin(batch["input_ids"], SENTINELS).any(1)
    assert 5 < has_sentinel.sum() < 35
    only = MixedTasks([spans, prefixes], [0, 1]).sample(np.random.default_rng(0), 40)
    assert not np.isin(only["input_ids"], SENTINELS).any()
