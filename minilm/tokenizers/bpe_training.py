"""Byte-pair encoding, the training: begin with bytes, keep joining the most frequent pair.

The idea, in ten lines, is `naive_learn_merges`; `learn_merges` gives the same, faster.

Source: Sennrich, Haddow, Birch 2016, arXiv 1508.07909, algorithm 1.
"""

import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import islice, pairwise
from multiprocessing import get_context

from minilm.tokenizers.base import check_unicode
from minilm.tokenizers.pretokenize import BYTE_CHARACTERS, Splitter

Pair = tuple[int, int]
Progress = Callable[[int, int], None]  # merges learned, merges wanted
# The ids of the 256 bytes, in GPT-2's order: printable ones first.
BYTE_TOKENS = [bytes([byte]) for byte in sorted(range(256), key=BYTE_CHARACTERS.__getitem__)]
BYTE_IDS = [BYTE_TOKENS.index(bytes([byte])) for byte in range(256)]
BORDER, DEAD = -1, -2  # between chunks; a place joined to the one before it


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

    A merge can only lower the counts of old pairs, whose entries in the heap are put right when
    they come up. (No two merges spell the same bytes: a token's bytes, wherever they stand between
    two borders of tokens, are cut as they would be alone.)
    """
    pairs = _Pairs(chunk_counts)
    heap = [(-count, pair) for pair, count in pairs.counts.items()]
    heapq.heapify(heap)
    merges: list[Pair] = []
    while heap and len(merges) < n:
        negative_count, best = heapq.heappop(heap)
        count = pairs.counts[best]
        if -negative_count != count:
            heapq.heappush(heap, (-count, best))
            continue
        if count < max(1, min_frequency):
            break
        for pair in pairs.join(best, 256 + len(merges)):
            heapq.heappush(heap, (-pairs.counts[pair], pair))
        merges.append(best)
        if progress is not None:
            progress(len(merges), n)
    return merges


class _Pairs:
    """All chunks' tokens in one linked list, and of each pair its count and its places.

    A place that was joined to the one before it is DEAD. A merge visits the places of its pair
    only. Its new pairs all have the new token, so that the places of a pair are found during one
    merge, from left to right; some may be gone when their turn comes.
    """

    def __init__(self, chunk_counts: Mapping[str, int]) -> None:
        self.symbols, self.weights = [BORDER], [0]
        for chunk, count in chunk_counts.items():
            word = [BYTE_IDS[byte] for byte in chunk.encode()]
            self.symbols += [*word, BORDER]
            self.weights += [count] * (len(word) + 1)
        length = len(self.symbols)
        self.after, self.before = list(range(1, length + 1)), list(range(-1, length - 1))
        self.counts: dict[Pair, int] = {}
        self.places: dict[Pair, list[int]] = {}
        for i, pair in enumerate(pairwise(self.symbols)):
            if pair[0] >= 0 and pair[1] >= 0:
                self.counts[pair] = self.counts.get(pair, 0) + self.weights[i]
                self.places.setdefault(pair, []).append(i)

    def join(self, pair: Pair, new: int) -> list[Pair]:
        """Make the pair one token wherever it stands; the pairs that this brings about."""
        symbols, after, before = self.symbols, self.after, self.before
        counts, places = self.counts, self.places
        left, right = pair
        fresh: list[Pair] = []
        for i in places.pop(pair):
            j = after[i]
            if symbols[i] != left or symbols[j] != right:
                continue
            weight, h, k = self.weights[i], before[i], after[j]
            if (x := symbols[h]) >= 0:
                counts[x, left] -= weight
                if (joined := (x, new)) in places:
                    counts[joined] += weight
                    places[joined].append(h)
                else:
                    counts[joined], places[joined] = weight, [h]
                    fresh.append(joined)
            if (x := symbols[k]) >= 0:
                counts[right, x] -= weight
                if (joined := (new, x)) in places:
                    counts[joined] += weight
                    places[joined].append(i)
                else:
                    counts[joined], places[joined] = weight, [i]
                    fresh.append(joined)
            symbols[i], symbols[j] = new, DEAD
            after[i], before[k] = k, i
        return fresh
