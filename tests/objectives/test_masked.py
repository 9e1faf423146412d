"""Laws of masking: what is selected, what becomes of it, and what it costs."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minilm.functional import IGNORE_INDEX
from minilm.objectives.masked import (
    MaskedBatches,
    Masking,
    mask_tokens,
    masked_loss,
    static_masks,
    word_ids,
)
from minilm.tensor import Tensor
from minilm.tokenizers import BPETokenizer, WordPieceTokenizer

# No token of a text is one that masking writes: what happened to each can be counted exactly.
CLS, SEP, PAD, MASK = range(4)
RANDOM = np.arange(10, 20)
TEXT = 100  # the tokens of texts begin here
STREAM = np.arange(TEXT, TEXT + 60, dtype=np.uint16)
MASKING = Masking(CLS, SEP, PAD, MASK, RANDOM)


@st.composite
def rows(draw, max_width=30):
    """input_ids and special_tokens_mask, any tokens of a row being special."""
    shape = draw(st.integers(0, 5)), draw(st.integers(0, max_width))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    special = rng.random(shape) < draw(st.sampled_from([0.0, 0.2, 0.8, 1.0]))
    ids = np.where(special, PAD, rng.integers(TEXT, 200, shape))
    return ids, special.astype(np.int64)


def mask(ids, special, seed=0, **options):
    return mask_tokens(ids, special, MASK, RANDOM, np.random.default_rng(seed), **options)


def fates(ids, masked, labels):
    """How many tokens were selected, and of them masked, replaced and kept."""
    chosen = labels != IGNORE_INDEX
    is_mask, is_random = masked[chosen] == MASK, np.isin(masked[chosen], RANDOM)
    kept = masked[chosen] == ids[chosen]
    return tuple(int(flags.sum()) for flags in (chosen, is_mask, is_random, kept))


def restored(batch):
    """The rows as they were before masking."""
    return np.where(batch["labels"] == IGNORE_INDEX, batch["input_ids"], batch["labels"])


# --- What is selected -------------------------------------------------------------------------


@given(rows(), st.sampled_from([0.05, 0.15, 0.5, 1.0]), st.integers(0, 100))
def test_each_row_has_round_p_n_labels_at_least_one_if_it_has_a_token(case, probability, seed):
    ids, special = case
    _, labels = mask(ids, special, seed, probability=probability)
    for row, row_labels in zip(special, labels, strict=True):
        n = int((row == 0).sum())
        wanted = max(1, round(probability * n)) if n else 0
        assert (row_labels != IGNORE_INDEX).sum() == wanted


@given(rows(), st.booleans(), st.integers(0, 100))
def test_special_tokens_and_padding_are_never_selected_and_never_changed(case, whole, seed):
    ids, special = case
    words = np.where(special, -1, np.arange(ids.shape[1]) // 2) if whole else None
    masked, labels = mask(ids, special, seed, probability=0.6, words=words)
    assert (labels[special == 1] == IGNORE_INDEX).all()
    assert np.array_equal(masked[special == 1], ids[special == 1])


@given(rows(), st.integers(0, 100))
def test_labels_are_the_tokens_that_were_there_and_all_others_are_unchanged(case, seed):
    ids, special = case
    before = ids.copy()
    masked, labels = mask(ids, special, seed, probability=0.4)
    chosen = labels != IGNORE_INDEX
    assert np.array_equal(ids, before)
    assert np.array_equal(labels[chosen], ids[chosen])
    assert np.array_equal(masked[~chosen], ids[~chosen])
    assert masked.dtype == labels.dtype == np.int64


def test_all_sets_of_tokens_are_selected_equally_often():
    ids = np.tile([CLS, 100, 101, PAD, 102, 103, PAD], (60_000, 1))
    _, labels = mask(ids, ids < TEXT, probability=0.5)
    sets, counts = np.unique(labels != IGNORE_INDEX, axis=0, return_counts=True)
    assert len(sets) == math.comb(4, 2)
    assert np.abs(counts - 10_000).max() < 5 * 92  # standard deviation √(60000 · 1/6 · 5/6)


# --- What becomes of it -----------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_of_what_is_selected_exactly_80_10_10_percent_are_masked_replaced_and_kept(seed):
    ids = np.random.default_rng(seed).integers(TEXT, 200, (50, 200))
    result = mask(ids, np.zeros_like(ids), seed)
    assert fates(ids, *result) == (1500, 1200, 150, 150)  # of 10,000; the slip: 1215, 150, 135


@given(rows(), st.integers(0, 1000))
def test_counts_are_exact_up_to_the_rounding_to_whole_tokens(case, seed):
    ids, special = case
    selected, masked, replaced, kept = fates(ids, *mask(ids, special, seed, probability=0.7))
    assert masked + replaced + kept == selected
    assert abs(masked - 0.8 * selected) < 1
    assert abs(masked + replaced - 0.9 * selected) < 1


def test_a_token_alone_has_the_chances_80_10_10():
    rng, ids = np.random.default_rng(0), np.array([[TEXT]])
    trials = [mask_tokens(ids, ids < TEXT, MASK, RANDOM, rng) for _ in range(4000)]
    counts = np.sum([fates(ids, *trial) for trial in trials], 0)
    # standard deviations √(4000 · 0.8 · 0.2) and √(4000 · 0.1 · 0.9)
    assert counts[0] == 4000 and abs(counts[1] - 3200) < 5 * 25.3
    assert np.abs(counts[2:] - 400).max() < 5 * 19


def test_what_becomes_of_a_token_does_not_depend_on_its_place():
    ids = np.full((400, 400), TEXT)
    masked, _ = mask(ids, np.zeros_like(ids), probability=1.0)
    for axis in (0, 1):  # of 400 each; the standard deviations are √(400 · 0.8 · 0.2) and 6
        assert np.abs((masked == MASK).sum(axis) - 320).max() < 5 * 8
        assert np.abs(np.isin(masked, RANDOM).sum(axis) - 40).max() < 5 * 6


def test_random_tokens_are_all_those_given_equally_often_and_no_other():
    ids = np.full((100, 1000), TEXT)
    masked, _ = mask(ids, np.zeros_like(ids), probability=1.0)
    found, counts = np.unique(masked[(masked != MASK) & (masked != TEXT)], return_counts=True)
    assert found.tolist() == RANDOM.tolist()
    assert np.abs(counts - 1000).max() < 5 * 30


def test_the_same_seed_gives_the_same_bits_and_the_next_call_others():
    ids = np.arange(TEXT, TEXT + 200).reshape(4, 50)
    special, rng = np.zeros_like(ids), np.random.default_rng(3)
    first = mask_tokens(ids, special, MASK, RANDOM, rng)
    second = mask_tokens(ids, special, MASK, RANDOM, rng)
    again = mask(ids, special, seed=3)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[1], second[1])


# --- Whole words ------------------------------------------------------------------------------


@st.composite
def rows_of_words(draw):
    """Special tokens, and words of one to four pieces; the ids of pieces inside words are odd."""
    words = st.one_of(st.just([PAD]), st.integers(1, 4).map(lambda n: [100] + [101] * (n - 1)))
    lines = [sum(draw(st.lists(words, max_size=12)), []) for _ in range(draw(st.integers(1, 4)))]
    width = max(map(len, lines))
    return np.array([[*line, *[PAD] * (width - len(line))] for line in lines], np.int64)


CONTINUES = np.arange(200) % 2 == 1


@given(rows_of_words())
def test_word_ids_count_the_words_of_a_row(ids):
    special = ids < TEXT
    found = word_ids(ids, special, CONTINUES)
    for row, row_found in zip(ids, found, strict=True):
        word, wanted = -1, []
        for i, token in enumerate(row):
            word += token == 100
            wanted.append(-1 if row[i] == PAD else word)
        assert row_found.tolist() == wanted


def test_a_piece_behind_a_special_token_or_at_the_beginning_begins_a_word():
    ids = np.array([[101, 101, CLS, 101, 101, 100], [CLS, 101, 100, 101, PAD, PAD]])
    expected = [[0, 0, -1, 1, 1, 2], [-1, 0, 1, 1, -1, -1]]
    assert word_ids(ids, ids < TEXT, CONTINUES).tolist() == expected


@given(rows_of_words(), st.sampled_from([0.15, 0.4, 1.0]), st.integers(0, 100))
def test_words_are_selected_whole_within_the_budget_until_no_other_fits(ids, probability, seed):
    special = ids < TEXT
    words = word_ids(ids, special, CONTINUES)
    _, labels = mask(ids, special, seed, probability=probability, words=words)
    chosen = labels != IGNORE_INDEX
    for row, row_chosen in zip(words, chosen, strict=True):
        n = int((row >= 0).sum())
        room = (max(1, round(probability * n)) if n else 0) - int(row_chosen.sum())
        assert room >= 0
        for word in set(row[row >= 0].tolist()):
            pieces = row_chosen[row == word]
            assert pieces.all() or (not pieces.any() and len(pieces) > room)


def test_words_of_one_length_are_selected_equally_often():
    ids = np.tile([CLS, 100, 101, 100, 101, 100, 101, 100, 101, SEP], (20_000, 1))
    words = word_ids(ids, ids < TEXT, CONTINUES)
    _, labels = mask(ids, ids < TEXT, probability=0.25, words=words)
    counts = (labels != IGNORE_INDEX).sum(0)
    assert counts[[0, -1]].tolist() == [0, 0] and counts.sum() == 40_000
    assert np.abs(counts[1:-1] - 5_000).max() < 5 * 61.3  # √(20000 · 1/4 · 3/4)


def test_long_rows_of_words_have_nearly_the_share_of_labels_that_was_asked_for():
    sizes = np.random.default_rng(0).integers(1, 5, (64, 100))
    ids = np.full((64, 200), 101)
    for row, row_sizes in zip(ids, sizes, strict=True):
        row[np.cumsum(row_sizes)[np.cumsum(row_sizes) < 200]] = 100
    words = word_ids(ids, np.zeros_like(ids), CONTINUES)
    _, labels = mask(ids, np.zeros_like(ids), words=words)
    assert ((labels != IGNORE_INDEX).sum(1) == 30).all()  # words of one piece fill what is left


@pytest.mark.parametrize(("ids", "random_ids"), [([[7.5]], [8]), ([[7]], [8.5])])
def test_ids_that_are_not_integers_are_an_error(ids, random_ids):
    with pytest.raises(TypeError, match="expected integer ids, got float64; tokenize the text"):
        mask_tokens(ids, [[0]], MASK, random_ids, np.random.default_rng(0))


# --- Static masks, tokenizers, batches --------------------------------------------------------


def test_static_masks_are_so_many_different_maskings_of_the_same_rows():
    ids = np.tile(STREAM, (3, 1))
    special = np.zeros_like(ids)
    inputs, labels = static_masks(ids, special, MASKING, np.random.default_rng(0), copies=4)
    again, _ = static_masks(ids, special, MASKING, np.random.default_rng(0), copies=4)
    assert inputs.shape == labels.shape == (4, 3, 60) and np.array_equal(inputs, again)
    for copy in range(4):
        batch = {"input_ids": inputs[copy], "labels": labels[copy]}
        assert np.array_equal(restored(batch), ids)
        assert ((labels[copy] != IGNORE_INDEX).sum(1) == 9).all()
    assert not any(np.array_equal(a, b) for a, b in itertools.combinations(labels, 2))
    with pytest.raises(ValueError, match="expected copies >= 1, got 0"):
        static_masks(ids, special, MASKING, np.random.default_rng(0), copies=0)


def test_masking_of_a_tokenizer_knows_its_special_tokens_and_its_words():
    text = "unaffable lowering lowest affable unlow " * 4
    tokenizer = WordPieceTokenizer.train(text, vocab_size=40)
    masking = Masking.of(tokenizer, probability=0.5, whole_words=True)
    special = tokenizer.special_tokens
    names = ("[CLS]", "[SEP]", "[PAD]", "[MASK]")
    ids = (masking.cls_id, masking.sep_id, masking.pad_id, masking.mask_id)
    assert ids == tuple(special[name] for name in names)
    ordinary = set(range(tokenizer.vocab_size)) - set(special.values())
    assert set(masking.random_ids.tolist()) == ordinary
    rows = tokenizer([text, text[:50]], padding=True)
    words = word_ids(rows.input_ids, rows.special_tokens_mask, masking.continues)
    assert words.max(1).tolist() == [len(text.split()) - 1, len(text[:50].split()) - 1]
    _, labels = masking(rows.input_ids, rows.special_tokens_mask, np.random.default_rng(0))
    chosen = labels != IGNORE_INDEX
    assert chosen.sum() > 20 and not chosen[words < 0].any()
    for b, word in {*zip(*np.nonzero(words >= 0), strict=True)}:
        pieces = chosen[b, words[b] == words[b, word]]
        assert pieces.all() or not pieces.any()
    single = Masking.of(tokenizer)
    assert single.continues is None and single.probability == 0.15


def test_a_tokenizer_without_the_special_tokens_or_the_prefix_is_an_error():
    names = ["[CLS]", "[SEP]", "[PAD]", "[MASK]"]
    with pytest.raises(ValueError, match=r"got none of \['\[MASK\]'\]"):
        Masking.of(WordPieceTokenizer(["[UNK]", "a", *names[:3]]))
    tokenizer = BPETokenizer.train("low lower", 260, special_tokens=names)
    assert Masking.of(tokenizer).mask_id == tokenizer.special_tokens["[MASK]"]
    with pytest.raises(ValueError, match="prefix None; train a WordPieceTokenizer"):
        Masking.of(tokenizer, whole_words=True)


def test_sampled_rows_are_windows_between_cls_and_sep_masked_anew_each_time():
    batches = MaskedBatches(STREAM, MASKING, max_len=22)
    rng = np.random.default_rng(0)
    batch, other = batches.sample(rng, 500), batches.sample(rng, 500)
    before = restored(batch)
    assert before.shape == (500, 22)
    assert (before[:, 0] == CLS).all() and (before[:, -1] == SEP).all()
    assert np.array_equal(before[:, 1:-1], before[:, 1:2] + np.arange(20))
    assert set(before[:, 1].tolist()) == set(range(TEXT, TEXT + 41))  # every place there is
    assert ((batch["labels"] != IGNORE_INDEX).sum(1) == 3).all()
    assert (batch["labels"][:, [0, -1]] == IGNORE_INDEX).all()
    assert not np.array_equal(batch["labels"], other["labels"])
    again = batches.sample(np.random.default_rng(0), 500)
    assert all(np.array_equal(batch[name], again[name]) for name in batch)


@pytest.mark.parametrize(("max_len", "batch_size"), [(3, 7), (12, 2), (22, 100), (61, 1)])
def test_evaluation_reads_the_whole_stream_and_is_the_same_each_time(max_len, batch_size):
    batches = MaskedBatches(STREAM, MASKING, max_len)
    first, again = (list(batches.evaluation(batch_size)) for _ in range(2))
    for a, b in zip(first, again, strict=True):
        assert all(np.array_equal(a[name], b[name]) for name in a)
    rows = np.concatenate([restored(batch) for batch in first])
    assert set(rows[:, 1:-1].ravel().tolist()) == set(STREAM.tolist())
    assert len(rows) == math.ceil(60 / (max_len - 2))
    other = next(batches.evaluation(100, seed=1))
    assert not np.array_equal(other["input_ids"], next(batches.evaluation(100))["input_ids"])


@pytest.mark.parametrize("max_len", [2, 62])
def test_a_stream_without_room_for_a_window_is_an_error(max_len):
    with pytest.raises(ValueError, match=f"at least length \\+ 1 = {max_len - 1} tokens"):
        MaskedBatches(STREAM, MASKING, max_len)


# --- The loss ---------------------------------------------------------------------------------


def test_the_loss_is_the_sum_of_minus_ln_p_of_the_selected_tokens_at_their_own_places():
    rng = np.random.default_rng(0)
    ids = rng.integers(4, 9, (3, 20))
    _, labels = mask_tokens(ids, np.zeros_like(ids), 3, np.arange(4, 9), rng)
    z = rng.normal(size=(3, 20, 9))
    expected, count = 0.0, 0
    for b in range(3):
        for i in range(20):
            if labels[b, i] != IGNORE_INDEX:
                total = sum(math.exp(value) for value in z[b, i])
                expected -= math.log(math.exp(z[b, i, ids[b, i]]) / total)
                count += 1
    logits = Tensor(z, requires_grad=True)
    loss = masked_loss(logits, labels, reduction="sum")
    assert count == 9
    assert loss.item() == pytest.approx(expected, rel=1e-13)
    assert masked_loss(logits, labels).item() == pytest.approx(expected / count, rel=1e-13)
    loss.backward()
    touched = (logits.grad != 0).any(-1)
    assert np.array_equal(touched, labels != IGNORE_INDEX)


# --- Errors -----------------------------------------------------------------------------------


@pytest.mark.parametrize("probability", [0.0, -0.1, 1.1, math.nan])
def test_a_probability_outside_0_to_1_is_an_error(probability):
    with pytest.raises(ValueError, match="expected 0 < probability <= 1"):
        mask(np.full((2, 3), TEXT), np.zeros((2, 3)), probability=probability)


def test_nothing_to_draw_random_tokens_from_is_an_error():
    ids = np.full((2, 3), TEXT)
    with pytest.raises(ValueError, match="got 0.15 and 0 random_ids"):
        mask_tokens(ids, ids < TEXT, MASK, np.array([], int), np.random.default_rng(0))


@pytest.mark.parametrize(
    ("ids", "special", "words"),
    [((2, 3), (2, 4), None), ((3,), (3,), None), ((2, 3),) * 2 + ((3,),)],
)
def test_arrays_of_different_shapes_are_an_error(ids, special, words):
    words = None if words is None else np.zeros(words, int)
    with pytest.raises(ValueError, match=r"of one shape \(B, T\), got"):
        mask(np.full(ids, TEXT), np.zeros(special), words=words)
