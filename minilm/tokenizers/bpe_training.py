"""Byte-pair encoding, the training: begin with bytes, keep joining the most frequent pair.

The idea, in ten lines, is `naive_learn_merges`; `learn_merges` gives the same, faster.

Source: Sennrich, Haddow, Birch 2016, arXiv 1508.07909, algorithm 1.
"""

import heapq
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import islice, pairwise
from multiprocessing import get_context
from typing import Any

import numpy as np

from minilm.tokenizers.base import check_unicode
from minilm.tokenizers.pretokenize import BYTE_CHARACTERS, Splitter

Pair = tuple[int, int]
Progress = Callable[[int, int], None]  # merges learned, merges wanted
# The ids of the 256 bytes, in GPT-2's order: printable ones first.
BYTE_TOKENS = [bytes([byte]) for byte in sorted(range(256), key=BYTE_CHARACTERS.__getitem__)]
BYTE_IDS = [BYTE_TOKENS.index(bytes([byte])) for byte in range(256)]
BORDER, DEAD = -1, -2  # between chunks; a place joined to the one before it
FEW = 50  # places: up to here they are quicker visited one by one
BYTES = ("utf-8", "surrogateescape")  # what is no UTF-8 becomes lone surrogates, and back
Array = np.ndarray[Any, np.dtype[Any]]


def count_chunks(texts: Iterable[str], pattern: str, workers: int = 1) -> Counter[str]:
    """How often each different chunk occurs in the texts.

    Raises: ValueError — not a pattern, a lone surrogate.
    """
    counts: Counter[str] = Counter()
    count = partial(_count, splitter=Splitter(pattern))
    if workers == 1:
        for text in texts:
            counts.update(count(text))
        return counts
    rest = iter(texts)
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        while batch := list(islice(rest, 4 * workers)):
            for part in pool.map(count, batch):
                counts.update(part)
    return counts


def _count(text: str, splitter: Splitter) -> Counter[str]:
    check_unicode(text)
    return Counter(splitter.split(text))


def join_pair(word: list[int], pair: Pair, joined: int) -> list[int]:
    """The word with the pair, wherever it occurs, replaced by one id, from left to right.

    >>> join_pair([1, 1, 1, 2], (1, 1), 9)
    [9, 1, 2]
    """
    result = []
    i = 0
    while i < len(word):
        if word[i] == pair[0] and i + 1 < len(word) and word[i + 1] == pair[1]:
            result.append(joined)
            i += 2
        else:
            result.append(word[i])
            i += 1
    return result


def naive_learn_merges(
    chunk_counts: Mapping[str, int], n: int, min_frequency: int = 2
) -> list[Pair]:
    """What byte-pair encoding means: `learn_merges` in ten lines that count all pairs each time."""
    words = [[BYTE_IDS[byte] for byte in chunk.encode()] for chunk in chunk_counts]
    merges: list[Pair] = []
    while len(merges) < n:
        counts: Counter[Pair] = Counter()
        for word, count in zip(words, chunk_counts.values(), strict=True):
            for pair in pairwise(word):
                counts[pair] += count
        best = min(counts, key=lambda pair: (-counts[pair], pair), default=None)
        if best is None or counts[best] < min_frequency:
            break
        words = [join_pair(word, best, 256 + len(merges)) for word in words]
        merges.append(best)
    return merges


def learn_merges(
    chunk_counts: Mapping[str, int],
    n: int,
    min_frequency: int = 2,
    progress: Progress | None = None,
) -> list[Pair]:
    """At most n merges: each of the most frequent pair, of equals the one with the smallest ids.

    No two merges spell the same bytes: a token's bytes, wherever they stand between two borders of
    tokens, are cut as they would be alone.
    """
    chunks = [chunk.encode(*BYTES) for chunk in chunk_counts]
    symbols = np.array(BYTE_IDS)[np.frombuffer(b"".join(chunks), np.uint8)]
    lengths = np.fromiter(map(len, chunks), np.int64, len(chunks))
    weights = np.fromiter(chunk_counts.values(), np.int64, len(chunks))
    pairs = Pairs(symbols, lengths, weights, max(1, min_frequency))
    return join_most_frequent(pairs, 256, n, progress)


def join_most_frequent(
    pairs: "Pairs",
    first_id: int,
    n: int,
    progress: Progress | None = None,
    accept: Callable[[Pair], bool] = lambda pair: True,
) -> list[Pair]:
    """Join the most frequent pair that `accept` takes, until n are joined or none is left.

    The new tokens are first_id, first_id + 1 ... A merge can only lower the counts of old pairs,
    whose entries in the heap are put right when they come up.
    """
    heap = [(-pairs.counts[pair], pair) for pair in pairs.places]
    heapq.heapify(heap)
    merges: list[Pair] = []
    while heap and len(merges) < n:
        negative_count, best = heapq.heappop(heap)
        count = pairs.counts[best]
        if -negative_count != count:
            heapq.heappush(heap, (-count, best))
            continue
        if count < pairs.least:
            break
        if not accept(best):
            continue
        for pair in pairs.join(best, first_id + len(merges)):
            heapq.heappush(heap, (-pairs.counts[pair], pair))
        merges.append(best)
        if progress is not None:
            progress(len(merges), n)
    return merges


class Pairs:
    """All words' tokens in one linked list, and of each pair its count and its places.

    `symbols` (N) are the tokens of all words, `lengths` and `weights` (W) how many of them each
    word has, and how often it occurs.

    A place that was joined to the one before it is DEAD. A merge visits the places of its pair
    only. Its new pairs all have the new token, so that the places of a pair are found during one
    merge, from left to right; some may be gone when their turn comes.

    Each table is an array that Python reads number by number and NumPy as a whole (the same
    memory): few places are quicker visited one by one, many all at once. Of pairs that begin with
    a count below `least` the places are not kept, for counts only fall.
    """

    def __init__(self, symbols: Array, lengths: Array, weights: Array, least: int) -> None:
        self.least = least
        words = np.repeat(np.arange(len(lengths)), lengths)  # of each symbol
        places = np.arange(len(words)) + words + 1  # a border before each word, one at the end
        row = np.arange(len(words) + len(lengths) + 1)
        laid_out, weight_at = np.full(len(row), BORDER, np.int64), np.zeros(len(row), np.int64)
        laid_out[places], weight_at[places] = symbols, weights[words]
        self.symbols, self.weights = _shared(laid_out), _shared(weight_at)
        self.after, self.before = _shared(row + 1), _shared(row - 1)
        self.counts: dict[Pair, int] = {}
        self.places: dict[Pair, Sequence[int] | Array] = {}
        here = np.flatnonzero((laid_out[:-1] >= 0) & (laid_out[1:] >= 0))
        for left, mine, _ in _groups(laid_out[here], here, weight_at[here]):
            for right, both, count in _groups(laid_out[mine + 1], mine, weight_at[mine]):
                self._add((left, right), both, count)

    def _add(self, pair: Pair, places: Array, count: int) -> None:
        self.counts[pair] = count
        if count >= self.least:
            self.places[pair] = places

    def join(self, pair: Pair, new: int) -> list[Pair]:
        """Make the pair one token wherever it stands; the pairs that this brings about."""
        places = self.places.pop(pair)
        # Places of (a, a) can overlap, as in aaa: these are visited from left to right.
        if len(places) > FEW and pair[0] != pair[1]:
            return self._join_at_once(pair, new, np.asarray(places))
        listed = places.tolist() if isinstance(places, np.ndarray) else places
        return self._join_one_by_one(pair, new, listed)

    def _join_one_by_one(self, pair: Pair, new: int, joined_at: Sequence[int]) -> list[Pair]:
        symbols, after, before = self.symbols, self.after, self.before
        counts, left, right = self.counts, *pair
        places: dict[Pair, list[int]] = {}  # of the new pairs
        for i in joined_at:
            j = after[i]
            if symbols[i] != left or symbols[j] != right:
                continue
            weight, h, k = self.weights[i], before[i], after[j]
            if (x := symbols[h]) >= 0:
                counts[x, left] -= weight
                if (fresh := (x, new)) in places:
                    counts[fresh] += weight
                    places[fresh].append(h)
                else:
                    counts[fresh], places[fresh] = weight, [h]
            if (x := symbols[k]) >= 0:
                counts[right, x] -= weight
                if (fresh := (new, x)) in places:
                    counts[fresh] += weight
                    places[fresh].append(i)
                else:
                    counts[fresh], places[fresh] = weight, [i]
            symbols[i], symbols[j] = new, DEAD
            after[i], before[k] = k, i
        kept = {pair: listed for pair, listed in places.items() if counts[pair] >= self.least}
        self.places.update(kept)
        return list(kept)

    def _join_at_once(self, pair: Pair, new: int, at: Array) -> list[Pair]:
        """The same for all places together: first they are joined, then their neighbours counted.

        Where two joined places are neighbours, abab, the old pair (b, a) and the new one stand
        between them: both are counted for the place on the right.
        """
        left, right = pair
        symbols, weights, after, before = map(
            np.asarray, (self.symbols, self.weights, self.after, self.before)
        )
        at = at[(symbols[at] == left) & (symbols[after[at]] == right)]
        second = after[at]
        behind = after[second]
        symbols[at], symbols[second] = new, DEAD
        after[at], before[behind] = behind, at
        ahead, weight = before[at], weights[at]
        x, y = symbols[ahead], symbols[behind]
        fresh: list[Pair] = []
        for neighbour, places, count in _groups(x, ahead, weight):
            if neighbour >= 0:
                self.counts[right if neighbour == new else neighbour, left] -= count
                fresh.append((neighbour, new))
                self._add(fresh[-1], places, count)
        for neighbour, places, count in _groups(y, at, weight):
            if neighbour >= 0 and neighbour != new:
                self.counts[right, neighbour] -= count
                fresh.append((new, neighbour))
                self._add(fresh[-1], places, count)
        return [pair for pair in fresh if pair in self.places]


def _shared(numbers: Array) -> "array[int]":
    return array("q", numbers.astype(np.int64).tobytes())


def _groups(keys: Array, values: Array, weights: Array) -> Iterator[tuple[int, Array, int]]:
    """(key, its values in their order, the sum of its weights) for each different key."""
    if not len(keys):
        return
    order = np.argsort(keys, kind="stable")
    keys, values = keys[order], values[order]
    starts = np.flatnonzero(np.diff(keys, prepend=keys[0] - 1))
    sums = np.add.reduceat(weights[order], starts).tolist()
    stops = [*starts[1:].tolist(), len(keys)]
    for key, start, stop, total in zip(
        keys[starts].tolist(), starts.tolist(), stops, sums, strict=True
    ):
        yield key, values[start:stop], total
