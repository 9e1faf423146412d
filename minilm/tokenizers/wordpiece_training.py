"""WordPiece, the training: begin with characters, keep joining the most frequent pair.

The idea, in a few lines, is `naive_learn_tokens`; `learn_tokens` gives the same, faster.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, pairwise

import numpy as np

from minilm.tokenizers.bpe_training import Pair, Pairs, Progress, join_most_frequent, join_pair


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
    token, such as a special one, is not joined. How it is done quickly: see `bpe_training`.

    Source: WordPieceTrainer of Hugging Face `tokenizers`.
    Differs: Schuster and Nakajima join what makes the texts most likely, by a program that was
        never published. The rule often told in its place, the highest n(ab) / (n(a)·n(b)), joins
        rare characters first; see docs/07-tokenizers.md.
    """
    tokens, known = list(tokens), set(tokens)
    words = _spell(word_counts, tokens, prefix)
    symbols = np.fromiter(chain.from_iterable(words), np.int64)
    lengths = np.fromiter(map(len, words), np.int64, len(words))
    weights = np.fromiter(word_counts.values(), np.int64, len(words))
    pairs = Pairs(symbols, lengths, weights, max(1, min_frequency))

    def accept(pair: Pair) -> bool:
        joined = tokens[pair[0]] + tokens[pair[1]].removeprefix(prefix)
        if joined in known:
            return False
        known.add(joined)
        tokens.append(joined)
        return True

    join_most_frequent(pairs, len(tokens), size - len(tokens), progress, accept)
    return tokens


def _spell(words: Iterable[str], tokens: Sequence[str], prefix: str) -> list[list[int]]:
    """Each word as the ids of its characters."""
    ids = {token: i for i, token in enumerate(tokens)}
    return [[ids[w[0]], *(ids[prefix + c] for c in w[1:])] for w in words]
