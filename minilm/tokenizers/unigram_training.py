"""Learning a unigram model: many pieces first, then fewer and fewer, each time the least missed.

1. Begin with all characters and the most frequent substrings of the words.
2. EM: how often each piece is expected to occur, over all segmentations of all words, gives its
   new probability, and that the new expectation.
3. Drop the pieces without which the words would be least less probable, and go to 2.

`naive_learn_pieces` says it in a few lines; `learn_pieces` gives the same with whole arrays: all
words' lattices are walked at once, from the first character of each to the second, and so on.

Source: Kudo 2018, arXiv 1804.10959, section 3.2; the loss of a piece is SentencePiece's.
Differs: SentencePiece's M-step has the digamma function in place of the logarithm, a prior for few
pieces; ours is EM as the paper names it. SentencePiece counts seeds once in each different word.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Set
from typing import Any, NamedTuple, Self

import numpy as np

from minilm.tokenizers.unigram_lattice import (
    Array,
    Lattices,
    best_paths,
    expected_counts,
    naive_segmentations,
)

Progress = Callable[[int, int], None]  # pieces left, pieces wanted
Scores = dict[str, float]
LONGEST_PIECE = 16  # characters
LONGEST_WORD = 1024  # characters: longer ones are cut
MOST_CHARACTERS = 2**20  # of all different words together; at the worst each begins 16 edges
MOST_SEEDS = 2**18
SHRINK = 0.75  # the share of the pieces that is left after a round
EM_STEPS = 2  # in each round
DIGITS = 9  # what is equal but for rounding is a tie, so that all processors learn the same
RAREST = 0.5  # an expected count below is taken for this, so that no probability is 0


# --- The idea -----------------------------------------------------------------------------------


def naive_learn_pieces(counts: Mapping[str, int], n: int) -> Scores:
    """What training means: EM over all segmentations, and dropping what is missed least."""
    scores = _log_shares(naive_seeds(counts))
    while True:
        for _ in range(EM_STEPS):
            scores = _log_shares(naive_expected_counts(counts, scores))
        if len(scores) <= n:
            return scores
        losses, used = naive_losses(counts, scores)
        size = max(n, min(int(SHRINK * len(scores)), used))
        kept = set(sorted(scores, key=lambda x: (-losses[x], -_round(scores[x])))[:size])
        scores = {x: score for x, score in scores.items() if x in kept}


def naive_seeds(counts: Mapping[str, int]) -> Scores:
    """Count · length of all characters, and of all substrings that occur twice.

    Not those that are always followed by one and the same character: the longer one does as well.
    """
    found: Counter[str] = Counter()
    for word, count in counts.items():
        for start in range(len(word)):
            for end in range(start + 1, min(len(word), start + LONGEST_PIECE) + 1):
                found[word[start:end]] += count
    longer = {(x[:-1], count) for x, count in found.items()}
    characters = sorted(x for x in found if len(x) == 1)
    others = [x for x, c in found.items() if len(x) > 1 and c > 1 and (x, c) not in longer]
    others.sort(key=lambda x: (-found[x] * len(x), len(x), x))
    return {x: float(found[x] * len(x)) for x in characters + others}


def naive_expected_counts(counts: Mapping[str, int], scores: Scores) -> Scores:
    """E-step: Σ over words of count · Σ over segmentations of P(segmentation | word) · pieces."""
    expected = dict.fromkeys(scores, 0.0)
    for word, count in counts.items():
        paths = list(naive_segmentations(word, scores))
        total = sum(math.exp(score) for score, _ in paths)
        for score, pieces in paths:
            for piece in pieces:
                expected[piece] += count * math.exp(score) / total
    return expected


def naive_losses(counts: Mapping[str, int], scores: Scores) -> tuple[Scores, int]:
    """How much less probable the words' best segmentations are without each piece, and the number
    of pieces that they need; the loss of a character is infinite.

    Without x, of count c(x) in the best segmentations, its best segmentation into other pieces y
    takes its place, which then have the counts c(y) + c(x), of C + c(x) · (pieces y - 1) in all:
    loss(x) = c(x) · (log c(x)/C - Σ_y log (c(y) + c(x)) / (C + c(x) · (pieces y - 1))).
    """
    used = dict.fromkeys(scores, 0.0)
    for word, count in counts.items():
        for piece in max(naive_segmentations(word, scores))[1]:
            used[piece] += count
    total, losses = sum(used.values()), {}
    for x, c in used.items():
        others = {y: score for y, score in scores.items() if y != x}
        if len(x) == 1 or not c:
            losses[x] = 0.0 if len(x) > 1 else math.inf
            continue
        pieces = max(naive_segmentations(x, others))[1]
        more = math.log(total + c * (len(pieces) - 1))
        loss = c * (math.log(c / total) - sum(math.log(used[y] + c) - more for y in pieces))
        losses[x] = _round(loss)
    return losses, sum(c > 0 or len(x) == 1 for x, c in used.items())


def _round(x: Any) -> Any:
    return np.round(x, DIGITS)


def _log_shares(counts: Scores) -> Scores:
    """M-step: p(x) = c(x) / Σ c, with every count at least RAREST."""
    total = sum(max(c, RAREST) for c in counts.values())
    return {x: math.log(max(c, RAREST) / total) for x, c in counts.items()}


# --- The same, for all words at once ------------------------------------------------------------


def count_words(words: Iterable[str]) -> Counter[str]:
    """How often each different word occurs; of longer words their stretches of LONGEST_WORD."""
    counts: Counter[str] = Counter(words)
    for word in [word for word in counts if len(word) > LONGEST_WORD]:
        count = counts.pop(word)
        for start in range(0, len(word), LONGEST_WORD):
            counts[word[start : start + LONGEST_WORD]] += count
    return counts


def learn_pieces(
    counts: Mapping[str, int],
    n: int,
    reserved: Set[str] = frozenset(),
    progress: Progress | None = None,
) -> list[tuple[str, float]]:
    """At most n pieces and their log probabilities, the most probable first.

    All characters are among them, no string of `reserved` is. Fewer than n if the words have fewer
    substrings that occur twice. `progress` is called with (pieces left, n) after each round.

    So that the memory is bounded (prose takes some 0.1 GB, one long period repeated 1.5 GB), the
    most frequent different words are learned from, until they have MOST_CHARACTERS characters
    together, and there are MOST_SEEDS seeds at first, those with the largest count · length.

    Raises: ValueError — n below the number of characters.
    """
    characters = set().union(*counts)
    if n < len(characters - reserved):
        raise ValueError(
            f"UnigramTokenizer.train: expected room for the {len(characters - reserved)} different "
            f"characters of the texts, got room for {n}; each is a token: raise vocab_size"
        )
    if not characters:
        return []
    corpus = _Corpus.of(counts)
    missing = characters - set(corpus.text)  # of words that are left out
    wanted = n - len(missing - reserved) + len(set(corpus.text) & reserved)
    pieces, edges = find_seeds(corpus, reserved)
    scores = np.log(pieces.weight / pieces.weight.sum())
    while True:
        lattice = corpus.lattice(edges)
        for _ in range(EM_STEPS):
            expected = np.maximum(expected_counts(lattice, scores, corpus.weights), RAREST)
            scores = np.log(expected / expected.sum())
        if progress is not None:
            progress(len(scores), wanted)
        if len(scores) <= wanted:
            break
        losses, used = find_losses(lattice, pieces, edges, scores, corpus.weights)
        size = max(wanted, min(int(SHRINK * len(scores)), used))
        kept = np.sort(np.lexsort((-_round(scores), -losses))[:size])
        pieces, edges, scores = pieces.keep(kept), edges.keep(kept, len(scores)), scores[kept]
    spelt = [corpus.text[i : i + k] for i, k in zip(pieces.place, pieces.length, strict=True)]
    learned = [(x, float(score)) for x, score in zip(spelt, scores, strict=True)]
    learned += [(x, float(scores.min())) for x in missing]
    return sorted((x for x in learned if x[0] not in reserved), key=lambda x: (-_round(x[1]), x[0]))


class _Corpus(NamedTuple):
    """The words, one after the other."""

    text: str
    starts: Array  # of each word, in the text
    lengths: Array
    weights: Array  # how often it occurs

    @classmethod
    def of(cls, counts: Mapping[str, int]) -> Self:
        words = sorted(counts, key=lambda word: -counts[word])
        ends = np.cumsum([len(word) for word in words])
        words = words[: int(np.searchsorted(ends, MOST_CHARACTERS, "right"))]
        lengths = np.array([len(word) for word in words])
        weights = np.array([counts[word] for word in words], float)
        return cls("".join(words), np.cumsum(lengths) - lengths, lengths, weights)

    def lattice(self, edges: "_Edges") -> Lattices:
        """The lattices of all words."""
        numbers = np.arange(len(self.lengths), dtype=np.int32)
        word = np.repeat(numbers, self.lengths)[edges.place]
        start = edges.place - self.starts[word]
        return Lattices(self.lengths, word, start, edges.length, edges.piece)


class _Pieces(NamedTuple):
    """Substrings: where each stands for the first time, and its count · length."""

    place: Array
    length: Array
    weight: Array

    def keep(self, kept: Array) -> Self:
        return type(self)(*(column[kept] for column in self))


class _Edges(NamedTuple):
    """All places where pieces stand, from left to right."""

    place: Array
    length: Array
    piece: Array

    def keep(self, kept: Array, n: int) -> Self:
        """Those of the kept of n pieces, which are numbered anew."""
        number = np.full(n, -1, np.int32)
        number[kept] = np.arange(len(kept))
        piece = number[self.piece]
        here = piece >= 0
        return type(self)(self.place[here], self.length[here], piece[here])


def find_seeds(corpus: _Corpus, reserved: Set[str] = frozenset()) -> tuple[_Pieces, _Edges]:
    """`naive_seeds`, and where they stand.

    A substring of n characters that occurs twice is made of two of n - 1 that do, which overlap.
    So the numbers of these, side by side, number those.
    """
    n = len(corpus.text)
    weights = np.repeat(corpus.weights, corpus.lengths)
    left = np.repeat(corpus.starts + corpus.lengths, corpus.lengths) - np.arange(n)  # in the word
    place: Array = np.arange(n, dtype=np.int32)  # of the substrings of one length
    key = np.frombuffer(corpus.text.encode("utf-32-le"), "<u4").astype(np.int64)
    levels: list[_Level] = []
    for length in range(1, LONGEST_PIECE + 1):
        level, distinct = _Level.of(length, place, key, weights)
        if length > 2:
            before = distinct // len(levels[-1].total)  # of each, itself without its last character
            levels[-1].wanted[before[level.total == levels[-1].total[before]]] = False
        levels.append(level)
        at = np.full(n + 1, -1)
        at[level.place] = level.number
        place = np.flatnonzero((at[:-1] >= 0) & (at[1:] >= 0) & (left > length)).astype(np.int32)
        key = at[place] * len(level.total) + at[place + 1]
    return _choose(levels, corpus.text, reserved)


class _Level(NamedTuple):
    """The different substrings of one length that occur twice (the characters: all of them)."""

    place: Array  # of each occurrence
    number: Array  # its substring
    first: Array  # of each substring, its first place
    total: Array  # how often it occurs
    wanted: Array  # whether it may be a seed

    @classmethod
    def of(cls, length: int, place: Array, key: Array, weights: Array) -> tuple[Self, Array]:
        """The level, and its keys: two occurrences have equal keys if the substring is the same."""
        distinct, first, number = np.unique(key, return_index=True, return_inverse=True)
        total = np.bincount(number, weights[place], len(distinct))
        kept = (total > 1) | (length == 1)
        new = np.where(kept, np.cumsum(kept) - 1, -1).astype(np.int32)[number]
        here = new >= 0
        wanted = np.ones(int(kept.sum()), bool)
        columns = place[here], new[here], place[first[kept]], total[kept], wanted
        return cls(*columns), distinct[kept]


def _choose(levels: list[_Level], text: str, reserved: Set[str]) -> tuple[_Pieces, _Edges]:
    """The pieces with the largest count · length, and all characters; and where they stand."""
    sizes = [len(level.total) for level in levels]
    first = np.concatenate([level.first for level in levels])
    length = np.repeat(np.arange(1, len(levels) + 1), sizes)
    weight = np.concatenate([level.total for level in levels]) * length
    seeds = np.flatnonzero((length > 1) & np.concatenate([level.wanted for level in levels]))
    seeds = seeds[np.argsort(-weight[seeds], kind="stable")][:MOST_SEEDS]
    seeds = np.array(
        [i for i in seeds if text[first[i] : first[i] + length[i]] not in reserved], int
    )
    chosen = np.concatenate([np.arange(sizes[0]), seeds])
    number: Array = np.full(len(first), -1, np.int32)
    number[chosen] = np.arange(len(chosen))
    parts, done = [], 0
    for k, level in enumerate(levels, 1):
        piece = number[done + level.number]
        here = piece >= 0
        parts.append((level.place[here], np.full(int(here.sum()), k, np.int32), piece[here]))
        done += len(level.total)
    edges = _Edges(*(np.concatenate(column) for column in zip(*parts, strict=True)))
    order = np.argsort(edges.place, kind="stable")
    edges = _Edges(*(column[order] for column in edges))
    return _Pieces(first[chosen], length[chosen], weight[chosen]), edges


def find_losses(
    lattice: Lattices, pieces: _Pieces, edges: _Edges, scores: Array, weights: Array
) -> tuple[Array, int]:
    """`naive_losses`."""
    path = best_paths(lattice, scores)
    used = np.bincount(lattice.piece[path], weights[lattice.word[path]], len(scores))
    longer = np.flatnonzero((pieces.length > 1) & (used > 0))
    inner = _inner_lattice(pieces.keep(longer), edges)
    path = best_paths(inner, scores)
    count, x, y = used[longer], inner.word[path], inner.piece[path]
    n_others = np.bincount(x, minlength=len(longer))
    logs = np.bincount(x, np.log(used[y] + count[x]), len(longer))
    more = np.log(used.sum() + count * (n_others - 1))
    losses = np.where(pieces.length == 1, np.inf, 0.0)
    losses[longer] = _round(count * (np.log(count / used.sum()) - logs + n_others * more))
    return losses, int(((used > 0) | (pieces.length == 1)).sum())


def _inner_lattice(pieces: _Pieces, edges: _Edges) -> Lattices:
    """The lattices of the pieces, without the edges that are the whole piece."""
    place, owner = _ranges(pieces.place, pieces.length)
    first = np.searchsorted(edges.place, np.stack([place, place + 1]))
    edge, which = _ranges(first[0], first[1] - first[0])
    owner = owner[which]
    start = edges.place[edge] - pieces.place[owner]
    length = edges.length[edge]
    inside = (start + length <= pieces.length[owner]) & (length < pieces.length[owner])
    edge, owner, start = edge[inside], owner[inside], start[inside]
    return Lattices(pieces.length, owner, start, edges.length[edge], edges.piece[edge])


def _ranges(first: Array, sizes: Array) -> tuple[Array, Array]:
    """The numbers from first[i], sizes[i] of them, of all i; and of each of them the i."""
    which = np.repeat(np.arange(len(sizes)), sizes)
    return first[which] + np.arange(len(which)) - (np.cumsum(sizes) - sizes)[which], which
