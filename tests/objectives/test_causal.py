"""Laws of the causal objective's windows."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minilm.functional import IGNORE_INDEX
from minilm.objectives.causal import evaluation_windows, sample_windows, windows

STREAM = np.arange(1000, 1050, dtype=np.uint16)  # a token tells its place: token - 1000


@st.composite
def evaluations(draw):
    n = draw(st.integers(2, 60))
    length = draw(st.integers(1, 20))
    stride = draw(st.none() | st.integers(1, length))
    return np.arange(n), draw(st.integers(1, 5)), length, stride


@given(st.integers(1, 20), st.data())
def test_labels_are_the_window_and_the_token_after_it(length, data):
    starts = data.draw(st.lists(st.integers(0, len(STREAM) - length - 1)))
    batch = windows(STREAM, np.array(starts, np.int64), length)
    for b, start in enumerate(starts):
        assert batch["input_ids"][b].tolist() == STREAM[start : start + length].tolist()
        assert batch["labels"][b].tolist() == STREAM[start : start + length + 1].tolist()
    assert batch["input_ids"].shape == (len(starts), length)
    assert batch["labels"].shape == (len(starts), length + 1)
    assert {array.dtype for array in batch.values()} == {np.dtype(np.int64)}


def test_windows_of_a_memory_map_are_ordinary_arrays_of_their_own(tmp_path):
    np.save(tmp_path / "tokens.npy", STREAM)
    stream = np.load(tmp_path / "tokens.npy", mmap_mode="r")
    batch = windows(stream, np.array([3, 7]), 5)
    assert {type(array) for array in batch.values()} == {np.ndarray}
    batch["labels"][:] = 0
    assert batch["input_ids"][0, 0] == stream[3] == 1003


def test_the_last_window_reaches_the_end_and_none_reaches_over_it():
    assert windows(STREAM, np.array([39]), 10)["labels"][0, -1] == STREAM[-1]
    for start in (40, -1):
        with pytest.raises(ValueError, match=f"expected starts from 0 to 39.*got {start}"):
            windows(STREAM, np.array([start]), 10)


@pytest.mark.parametrize("length", [0, -1, 50, 51])
def test_a_stream_without_room_for_a_window_is_an_error(length):
    for call in (
        lambda: windows(STREAM, np.array([0]), length),
        lambda: sample_windows(STREAM, 2, length, np.random.default_rng(0)),
    ):
        with pytest.raises(ValueError, match=f"at least length \\+ 1 = {length + 1} tokens"):
            call()


def test_a_stream_of_several_rows_is_an_error():
    with pytest.raises(ValueError, match=r"expected one row .*got shape \(5, 10\)"):
        windows(STREAM.reshape(5, 10), np.array([0]), 2)


def test_the_same_seed_gives_the_same_samples_and_the_next_call_others():
    first = sample_windows(STREAM, 8, 5, np.random.default_rng(1))
    rng = np.random.default_rng(1)
    again, other = sample_windows(STREAM, 8, 5, rng), sample_windows(STREAM, 8, 5, rng)
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert not np.array_equal(first["input_ids"], other["input_ids"])
    assert first["input_ids"].shape == (8, 5) and first["labels"].shape == (8, 6)


def test_samples_begin_at_every_possible_place_equally_often():
    batch = sample_windows(STREAM[:10], 70_000, 3, np.random.default_rng(0))
    counts = np.bincount(batch["input_ids"][:, 0] - 1000)
    assert len(counts) == 7
    # 10,000 expected each, standard deviation about 93: five of them
    assert np.abs(counts - 10_000).max() < 5 * 93


@given(evaluations())
def test_each_token_but_the_first_is_a_target_exactly_once(case):
    targets = np.concatenate(
        [batch["labels"][:, 1:].ravel() for batch in evaluation_windows(*case)]
    )
    assert sorted(targets[targets != IGNORE_INDEX]) == list(range(1, len(case[0])))


@given(evaluations())
def test_windows_are_full_batches_are_full_and_labels_are_the_input(case):
    tokens, batch_size, length, _ = case
    batches = list(evaluation_windows(*case))
    assert all(len(batch["input_ids"]) == batch_size for batch in batches[:-1])
    assert 1 <= len(batches[-1]["input_ids"]) <= batch_size
    for batch in batches:
        ids, labels = batch["input_ids"], batch["labels"]
        assert ids.shape[1] == labels.shape[1] - 1 == min(length, len(tokens) - 1)
        assert np.array_equal(ids, ids[:, :1] + np.arange(ids.shape[1]))  # consecutive tokens
        assert np.array_equal(labels[:, 0], ids[:, 0])
        wanted = ids + 1  # in this stream the next token is one larger
        assert ((labels[:, 1:] == wanted) | (labels[:, 1:] == IGNORE_INDEX)).all()


@given(evaluations())
def test_targets_behind_the_first_window_see_at_least_length_less_stride(case):
    _, _, length, stride = case
    stride = length if stride is None else stride
    for batch in evaluation_windows(*case):
        rows, columns = np.nonzero(batch["labels"][:, 1:] != IGNORE_INDEX)
        behind_the_first = batch["labels"][rows, columns + 1] > length
        context = columns + 1
        assert (context[behind_the_first] > length - stride).all()


def test_the_windows_of_a_small_stream_by_hand():
    (batch,) = evaluation_windows(np.arange(8), batch_size=9, length=4, stride=2)
    skip = IGNORE_INDEX
    assert batch["input_ids"].tolist() == [[0, 1, 2, 3], [2, 3, 4, 5], [3, 4, 5, 6]]
    assert batch["labels"].tolist() == [
        [0, 1, 2, 3, 4],
        [2, skip, skip, 5, 6],
        [3, skip, skip, skip, 7],
    ]
    (short,) = evaluation_windows(np.arange(3), batch_size=9, length=4)
    assert short["input_ids"].tolist() == [[0, 1]]
    assert short["labels"].tolist() == [[0, 1, 2]]


@pytest.mark.parametrize(("length", "stride"), [(4, 5), (4, 0), (4, -1), (0, None)])
def test_a_stride_that_leaves_tokens_out_is_an_error(length, stride):
    with pytest.raises(ValueError, match=f"a stride from 1 to length {length}"):
        evaluation_windows(STREAM, 2, length, stride)


def test_a_batch_of_no_windows_is_an_error():
    with pytest.raises(ValueError, match="expected batch_size >= 1"):
        evaluation_windows(STREAM, 0, 4)


@pytest.mark.parametrize("n", [0, 1])
def test_a_stream_without_a_target_is_an_error(n):
    with pytest.raises(ValueError, match=r"expected one row of at least length \+ 1 = 2 tokens"):
        evaluation_windows(STREAM[:n], 2, 4)
