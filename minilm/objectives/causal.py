"""Predict the next token: windows over a stream of tokens.

A batch is {"input_ids": (B, T), "labels": (B, T+1)}. The labels begin like the input and end with
the token after the window; the model compares position t with labels[t + 1], so that every
position is trained. A label IGNORE_INDEX counts for nothing.
"""

from collections.abc import Iterator

import numpy as np

from minilm.functional import IGNORE_INDEX

Batch = dict[str, np.ndarray]


def windows(tokens: np.ndarray, starts: np.ndarray, length: int) -> Batch:
    """The windows of `length` tokens that begin at `starts`.

    input_ids[b, t] = tokens[starts[b] + t], labels[b, t] likewise. Of a memory-mapped stream only
    the windows are read.

    Shapes: (N), (B) -> (B, T), (B, T+1)
    Raises: ValueError — a window, or the token after it, reaches out of the stream.

    >>> batch = windows(np.arange(100, 110), np.array([0, 5]), length=3)
    >>> batch["input_ids"]
    array([[100, 101, 102],
           [105, 106, 107]])
    >>> batch["labels"]
    array([[100, 101, 102, 103],
           [105, 106, 107, 108]])
    """
    check_stream(tokens, length)
    starts = np.asarray(starts)
    last = len(tokens) - length - 1
    if starts.size and not 0 <= starts.min() <= starts.max() <= last:
        raise ValueError(
            f"windows: expected starts from 0 to {last}, so that {length} tokens and the one after "
            f"them are in the stream, got {starts.min()} to {starts.max()}; choose other starts"
        )
    labels = tokens[starts[:, None] + np.arange(length + 1)].astype(np.int64)
    return {"input_ids": labels[:, :-1].copy(), "labels": labels}


def sample_windows(
    tokens: np.ndarray, batch_size: int, length: int, rng: np.random.Generator
) -> Batch:
    """Windows that begin anywhere in the stream, all places equally likely.

    Shapes: (N) -> (B, T), (B, T+1)
    Raises: ValueError — a stream shorter than length + 1.
    """
    check_stream(tokens, length)
    return windows(tokens, rng.integers(0, len(tokens) - length, batch_size), length)


def evaluation_windows(
    tokens: np.ndarray, batch_size: int, length: int, stride: int | None = None
) -> Iterator[Batch]:
    """Batches in which each token of the stream but the first is a target exactly once.

    A window begins `stride` tokens after the one before; by default they touch. Targets that an
    earlier window has are IGNORE_INDEX in a later one, so that with stride < length each target
    outside the first window is predicted from at least length - stride tokens, for
    length / stride times the work. The last window is moved back to end with the stream; a stream
    of N <= length tokens gives one window of N - 1.

    Shapes: (N) -> (B, T), (B, T+1)
    Raises: ValueError — fewer than two tokens, stride not in 1 ... length.
    """
    stride = length if stride is None else stride
    if not 1 <= stride <= length or batch_size < 1:
        raise ValueError(
            f"evaluation_windows: expected batch_size >= 1 and a stride from 1 to length {length}, "
            f"got {batch_size} and {stride}; a larger stride would leave tokens out"
        )
    length = max(1, min(length, len(tokens) - 1))
    check_stream(tokens, length)
    last = len(tokens) - 1 - length
    starts = np.append(np.arange(0, last, stride), last)
    scored = np.append(0, starts[:-1] + length)  # the last target of the window before
    return _batches(tokens, starts, scored, batch_size, length)


def _batches(
    tokens: np.ndarray, starts: np.ndarray, scored: np.ndarray, batch_size: int, length: int
) -> Iterator[Batch]:
    for i in range(0, len(starts), batch_size):
        rows = slice(i, i + batch_size)
        batch = windows(tokens, starts[rows], length)
        targets = starts[rows, None] + np.arange(1, length + 1)
        batch["labels"][:, 1:][targets <= scored[rows, None]] = IGNORE_INDEX
        yield batch


def check_stream(tokens: np.ndarray, length: int) -> None:
    """Raises: ValueError — the stream has no window of `length` tokens and one after it."""
    if np.ndim(tokens) != 1 or length < 1 or len(tokens) <= length:
        raise ValueError(
            f"expected one row of at least length + 1 = {length + 1} tokens, length >= 1, got "
            f"shape {np.shape(tokens)}; use more text or a shorter window"
        )
