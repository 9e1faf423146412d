"""WordPiece, the training: begin with characters, keep joining the most frequent pair.

The idea, in a few lines, is `naive_learn_tokens`; `learn_tokens` gives the same, faster.
"""

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

from minilm.tokenizers.bpe_training import Pair, Progress, join_pair


def naive_learn_tokens(
    word_counts: Mapping[str, int],
    tokens: Sequence[str],
    size: int,
    prefix: str = "##",
    min_frequency: int = 2,
) -> list[str]:
    """What training means: `learn_tokens`, counting all pairs each time."""
    tokens = list(tokens)
    words = _spell(word_counts, tokens, prefix)
    while len(tokens) < size:
        counts: Counter[Pair] = Counter()
        for word, count in zip(words, word_counts.values(), strict=True):
            for pair in pairwise(word):
                counts[pair] += count
        joined = {(a, b): tokens[a] + tokens[b].removeprefix(prefix) for a, b in counts}
        new = [pair for pair in counts if joined[pair] not in tokens]
        best = min(new, key=lambda pair: (-counts[pair], pair), default=None)
        if best is None or counts[best] < min_frequency:
            break
        words = [join_pair(word, best, len(tokens)) for word in words]
        tokens.append(joined[best])
    return tokens


def learn_tokens(
    word_counts: Mapping[str, int],
    tokens: Sequence[str],
    size: int,
    prefix: str = "##",
    min_frequency: int = 2,
    progress: Progress | None = None,
) -> list[str]:
    """Join the most frequent pair of neighbours in the words, until there are `size` tokens.

    Of equally frequent pairs that with the smallest ids comes first. A pair that spells an old
    token, such as a special one, is not joined. Each pair has its count and the words where it
    stands, or stood. Joining changes these words only; counts of old pairs can only fall, and their
    entries in the heap are put right when they come up.

    Source: WordPieceTrainer of Hugging Face `tokenizers`.
    Differs: Schuster and Nakajima join what makes the texts most likely, by a program that was
        never published. The rule often told in its place, the highest n(ab) / (n(a)·n(b)), joins
        rare characters first; see docs/07-tokenizers.md.
    """
    tokens, known = list(tokens), set(tokens)
    words, weights = _spell(word_counts, tokens, prefix), list(word_counts.values())
    counts: Counter[Pair] = Counter()
    places: defaultdict[Pair, set[int]] = defaultdict(set)
    for place, word in enumerate(words):
        for pair in pairwise(word):
            counts[pair] += weights[place]
            places[pair].add(place)
    heap = [(-count, pair) for pair, count in counts.items()]
    heapq.heapify(heap)
    first = len(tokens)
    while heap and len(tokens) < size:
        negative_count, best = heapq.heappop(heap)
        if -negative_count != counts[best]:
            heapq.heappush(heap, (-counts[best], best))
            continue
        if counts[best] < max(1, min_frequency):
            break
        joined = tokens[best[0]] + tokens[best[1]].removeprefix(prefix)
        if joined in known:
            continue
        new = len(tokens)
        fresh: set[Pair] = set()
        for place in places.pop(best):
            for pair in pairwise(words[place]):
                counts[pair] -= weights[place]
            words[place] = join_pair(words[place], best, new)
            for pair in pairwise(words[place]):
                counts[pair] += weights[place]
                if new in pair:
                    places[pair].add(place)
                    fresh.add(pair)
        for pair in fresh:
            heapq.heappush(heap, (-counts[pair], pair))
        tokens.append(joined)
        known.add(joined)
        if progress is not None:
            progress(len(tokens) - first, size - first)
    return tokens


def _spell(words: Iterable[str], tokens: Sequence[str], prefix: str) -> list[list[int]]:
    """Each word as the ids of its characters."""
    ids = {token: i for i, token in enumerate(tokens)}
    return [[ids[w[0]], *(ids[prefix + c] for c in w[1:])] for w in words]
