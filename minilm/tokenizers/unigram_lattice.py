"""All ways to cut a word into pieces: the best one, the n best, and one drawn by lot.

A node is a place in the word, 0 to its length; an edge from start to end is the piece
word[start:end] with its score, a log probability. A segmentation is a path from the first node to
the last, and its score the sum of its edges'. A character without a piece is an edge all the same,
with the score `unknown`. The naive functions, which list all paths, are the specification.

Source: Kudo 2018, arXiv 1804.10959, section 3; Rabiner 1989, section III.
"""

import math
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from heapq import nlargest
from itertools import accumulate
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
Path = tuple[float, list[str]]  # a segmentation's score, and its pieces


# --- The idea -----------------------------------------------------------------------------------


def naive_segmentations(
    word: str, scores: Mapping[str, float], unknown: float | None = None
) -> Iterator[Path]:
    """All ways to cut the word into known pieces and, if they have a score, unknown characters.

    >>> list(naive_segmentations("aab", {"a": -1.0, "aa": -1.5, "b": -2.0}))
    [(-4.0, ['a', 'a', 'b']), (-3.5, ['aa', 'b'])]
    """
    if not word:
        yield 0.0, []
    for end in range(1, len(word) + 1):
        score = scores.get(word[:end], unknown if end == 1 else None)
        if score is not None:
            for rest, pieces in naive_segmentations(word[end:], scores, unknown):
                yield score + rest, [word[:end], *pieces]


def naive_best(word: str, scores: Mapping[str, float], unknown: float) -> Path:
    """The best segmentation: that of the beginning, and a last piece; of equals the longest.

    It sums from left to right, as `tokenizers` does: rounding decides between near equals.
    """
    if not word:
        return 0.0, []
    options = []
    for start in range(len(word)):
        piece = word[start:]
        if piece in scores or len(piece) == 1:
            before, pieces = naive_best(word[:start], scores, unknown)
            options.append((before + scores.get(piece, unknown), [*pieces, piece]))
    return max(options, key=lambda option: option[0])


# --- The same, faster ---------------------------------------------------------------------------


def match_table(scores: Mapping[str, float], unknown: float) -> dict[str, float]:
    """The scores of all pieces and of all their prefixes, so that a search knows when to stop.

    A prefix that is no piece has the score -inf, or `unknown` if it is a single character.

    >>> match_table({"abc": -1.0}, -11.0)
    {'abc': -1.0, 'a': -11.0, 'ab': -inf}
    """
    table = dict(scores)
    for piece in scores:
        for end in range(1, len(piece)):
            table.setdefault(piece[:end], unknown if end == 1 else -math.inf)
    return table


def best(word: str, table: Mapping[str, float], unknown: float) -> list[str]:
    """The pieces of `naive_best`, in one walk: n characters take n · (longest piece) steps.

    totals[j] = maxᵢ totals[i] + score(word[i:j]), of equals the first i.
    """
    n = len(word)
    look_up = table.get
    totals, starts = [0.0] + [-math.inf] * n, [0] * (n + 1)
    for start in range(n):
        before, end = totals[start], start + 1
        score: float | None = look_up(word[start:end], unknown)
        while score is not None:
            total = before + score
            if total > totals[end]:
                totals[end], starts[end] = total, start
            end += 1
            score = look_up(word[start:end]) if end <= n else None
    pieces = []
    end = n
    while end:
        start = starts[end]
        pieces.append(word[start:end])
        end = start
    pieces.reverse()
    return pieces


def _edges(
    word: str, table: Mapping[str, float], unknown: float
) -> Iterator[list[tuple[int, float]]]:
    """For each place, first to last, the edges that end there: (start, score), longest first."""
    ending: list[list[tuple[int, float]]] = [[] for _ in range(len(word) + 1)]
    for start in range(len(word)):
        score: float | None = table.get(word[start], unknown)
        end = start + 1
        while score is not None:
            if score > -math.inf:
                ending[end].append((start, score))
            end += 1
            score = table.get(word[start:end]) if end <= len(word) else None
    yield from ending


def n_best(word: str, n: int, table: Mapping[str, float], unknown: float) -> list[Path]:
    """The n best segmentations, best first: at each place the n best of its beginning.

    Of those that end in one piece, only the n best before it can be among the n best.
    """
    paths: list[list[tuple[float, int, int]]] = []  # score, start of the last piece, rank there
    for end, edges in enumerate(_edges(word, table, unknown)):
        longer = (
            (before + score, start, rank)
            for start, score in edges
            for rank, (before, _, _) in enumerate(paths[start])
        )
        paths.append(nlargest(n, longer, key=lambda path: path[0]) if end else [(0.0, 0, 0)])
    found = []
    for total, start, rank in paths[-1]:
        pieces, end = [], len(word)
        while end:
            pieces.append(word[start:end])
            end, (_, start, rank) = start, paths[start][rank]
        found.append((total, pieces[::-1]))
    return found


def draw(
    word: str,
    rng: np.random.Generator,
    alpha: float,
    table: Mapping[str, float],
    unknown: float,
) -> list[str]:
    """A segmentation drawn with a probability proportional to exp(alpha · score).

    forward[j] = log Σᵢ exp(forward[i] + alpha · score(word[i:j])) is the weight of all ways to
    cut word[:j]. From the end backwards, the piece before j begins at i with the probability
    exp(forward[i] + alpha · score(word[i:j]) - forward[j]): the product over a path is its share.
    """
    edges = list(_edges(word, table, unknown))
    forward = [0.0]
    for ending in edges[1:]:
        weights = [forward[start] + alpha * score for start, score in ending]
        most = max(weights)
        forward.append(most + math.log(sum(math.exp(weight - most) for weight in weights)))
    pieces, end = [], len(word)
    while end:
        shares = (math.exp(forward[i] + alpha * score - forward[end]) for i, score in edges[end])
        sums = list(accumulate(shares))  # the last is 1, but for rounding
        which = bisect_right(sums, rng.random() * sums[-1])
        start = edges[end][min(which, len(sums) - 1)][0]
        pieces.append(word[start:end])
        end = start
    return pieces[::-1]


# --- Many words at once --------------------------------------------------------------------------


class Lattices:
    """The lattices of many words, side by side: the nodes of all words at one place follow.

    The longest word comes first, so that the words that have a place are always the first ones.
    Edges are sorted by the node where they end, and once more (`outward`) by where they start.
    """

    def __init__(self, lengths: Array, word: Array, start: Array, length: Array, piece: Array):
        order = np.argsort(-lengths, kind="stable")
        rank = np.empty_like(order)
        rank[order] = np.arange(len(order))
        longest = int(lengths.max(initial=0))
        # how many words have a node at each place, and the first of these nodes
        self.n_words = np.searchsorted(-lengths[order], -np.arange(longest + 1), "right")
        self.offset = np.concatenate([[0], np.cumsum(self.n_words)])
        source = (self.offset[start] + rank[word]).astype(np.int32)
        target = (self.offset[start + length] + rank[word]).astype(np.int32)
        inward = np.lexsort((source, target)).astype(np.int32)
        self.word, self.piece = word[inward], piece[inward]
        self.source, self.target = source[inward], target[inward]
        self.outward = np.argsort(self.source, kind="stable").astype(np.int32)
        nodes = np.arange(self.offset[-1] + 1)
        self.first_in = np.searchsorted(self.target, nodes)
        self.first_out = np.searchsorted(self.source[self.outward], nodes)
        self.last = self.offset[lengths] + rank  # of each word, its last node


def expected_counts(lattice: Lattices, scores: Array, weights: Array) -> Array:
    """How often each piece is expected in the words, which occur `weights` times.

    forward[j] = log Σ exp(forward[i] + score) over the edges i -> j: all ways from the beginning;
    backward[i] = log Σ exp(score + backward[j]) over the edges i -> j: all ways to the end.
    A way through i -> j is one of the first, the edge, and one of the second; so the piece is
    there with the probability exp(forward[i] + score + backward[j] - forward[end]).
    """
    score = scores[lattice.piece]
    forward = np.zeros(lattice.offset[-1])
    backward = np.zeros(lattice.offset[-1])
    for place in range(1, len(lattice.n_words)):
        a, b = lattice.offset[place], lattice.offset[place + 1]
        first = lattice.first_in[a : b + 1]
        edges = slice(first[0], first[-1])
        forward[a:b] = _log_sums(forward[lattice.source[edges]] + score[edges], first)
    for place in range(len(lattice.n_words) - 2, -1, -1):
        a = lattice.offset[place]
        b = a + lattice.n_words[place + 1]  # the other words end here
        first = lattice.first_out[a : b + 1]
        out = lattice.outward[first[0] : first[-1]]
        backward[a:b] = _log_sums(score[out] + backward[lattice.target[out]], first)
    through = forward[lattice.source] + score + backward[lattice.target]
    share = np.exp(through - forward[lattice.last][lattice.word])
    return np.bincount(lattice.piece, share * weights[lattice.word], len(scores))


def _log_sums(x: Array, first: Array) -> Array:
    """log Σ exp(x) of each group, which begins at first[i] - first[0]."""
    begin, sizes = first[:-1] - first[0], np.diff(first)
    most = np.maximum.reduceat(x, begin)
    return most + np.log(np.add.reduceat(np.exp(x - np.repeat(most, sizes)), begin))


def best_paths(lattice: Lattices, scores: Array) -> Array:
    """The edges of all words' best segmentations."""
    score = scores[lattice.piece]
    total = np.zeros(lattice.offset[-1])
    choice = np.zeros(lattice.offset[-1], np.int64)
    for place in range(1, len(lattice.n_words)):
        a, b = lattice.offset[place], lattice.offset[place + 1]
        first = lattice.first_in[a : b + 1]
        x = total[lattice.source[first[0] : first[-1]]] + score[first[0] : first[-1]]
        total[a:b] = np.maximum.reduceat(x, first[:-1] - first[0])
        node = lattice.target[first[0] : first[-1]]
        best = np.flatnonzero(x == total[node])[::-1]
        choice[node[best]] = first[0] + best  # of equals the first, the longest, is written last
    nodes: Array = lattice.last
    edges = [np.zeros(0, np.int64)]
    while len(nodes):
        edges.append(choice[nodes])
        nodes = lattice.source[edges[-1]]
        nodes = nodes[nodes >= lattice.offset[1]]
    return np.concatenate(edges)
