"""The n-gram model: how often did this token follow these? The yardstick of the neural models.

Interpolated Kneser-Ney smoothing with three discounts: what a token's count loses (D) goes to all
tokens in proportion to their probability after a shorter context, and in a shorter context not
occurrences count but the number of different tokens before (a token seen only after "San" is
unlikely elsewhere, however often it is seen).

    P(w | h) = max(c(hw) - D(c(hw)), 0) / c(h·) + γ(h) P(w | h'),   h' = h without its first token
    γ(h) = Σ_w D(c(hw)) / c(h·)

with c the count in the longest order and |{v : c(vhw) > 0}| in the shorter ones; the shortest
interpolates with the uniform distribution 1/V.

Source: Chen and Goodman 1998, Harvard TR-10-98, section 3 (modified Kneser-Ney, eq. 26).
"""

from typing import NamedTuple, Self

import numpy as np

UNKNOWN = -1  # as an index: the last entry of each array


class Order(NamedTuple):
    """The grams of one length k, sorted by key.

    A gram's id is its place in `keys`; its key is (id of its first k - 1 tokens) · V + last token.
    The last entry of `discounted` and of `backoff` stands for grams and contexts never seen.
    """

    keys: np.ndarray  # (n)
    discounted: np.ndarray  # (n + 1): (c(hw) - D) / c(h·)
    backoff: np.ndarray  # (number of contexts + 1): γ(h)


class NGram:
    """P(token | the order - 1 tokens before it), learned by counting.

    >>> tokens = np.array([0, 1, 2, 0, 1, 2, 0, 1])
    >>> model = NGram.train(tokens, order=3, vocab_size=3)
    >>> bool(np.exp(model.log_probabilities(np.array([0, 1, 2])))[2] > 0.8)
    True
    """

    def __init__(self, orders: list[Order], vocab_size: int) -> None:
        self.orders = orders
        self.vocab_size = vocab_size

    @classmethod
    def train(cls, tokens: np.ndarray, order: int, vocab_size: int) -> Self:
        """Count all grams of 1 ... order tokens.

        Shapes: (N)
        Raises: ValueError — order < 1, no tokens, a token outside the vocabulary.
        """
        tokens = _check_tokens(tokens, vocab_size)
        if order < 1 or not len(tokens):
            raise ValueError(
                f"NGram.train: expected order >= 1 and some tokens, got order {order} and "
                f"{len(tokens)} tokens; pass a stream of token ids"
            )
        keys: list[np.ndarray] = []
        counts: list[np.ndarray] = []
        grams = np.zeros(len(tokens) + 1, np.int64)  # id of the gram of k - 1 that begins at i
        for k in range(1, order + 1):
            found, first, following, occurrences = np.unique(
                grams[:-1] * vocab_size + tokens[k - 1 :],
                return_index=True,
                return_inverse=True,
                return_counts=True,
            )
            if k > 1:  # each different gram counts once for the gram without its first token
                counts[-1] = np.bincount(grams[first + 1], minlength=len(keys[-1]))
            keys.append(found)
            counts.append(occurrences)
            grams = following
        n_contexts = [1, *map(len, keys[:-1])]  # the contexts of an order: the grams before it
        levels = zip(keys, counts, n_contexts, strict=True)
        return cls([_smooth(*level, vocab_size) for level in levels], vocab_size)

    @property
    def parameters(self) -> int:
        """How many counts the model keeps: the different grams of all lengths."""
        return sum(len(order.keys) for order in self.orders)

    def log_probabilities(self, tokens: np.ndarray) -> np.ndarray:
        """ln P(tokens[i] | the order - 1 tokens before it), for each i; the first have fewer.

        Shapes: (N) -> (N)
        Raises: ValueError — a token outside the vocabulary.
        """
        tokens = _check_tokens(tokens, self.vocab_size)
        probability = np.full(len(tokens), 1 / self.vocab_size)
        context = np.zeros(len(tokens), np.int64)  # id of the gram of k - 1 that ends before i
        for keys, discounted, backoff in self.orders:
            gram = _find(keys, context * self.vocab_size + tokens)  # keys < 0: unknown contexts
            probability = discounted[gram] + backoff[context] * probability
            context = np.append(UNKNOWN, gram[:-1])
        return np.log(probability)

    def evaluate(self, tokens: np.ndarray) -> float:
        """The loss in nats per token: -1/N Σᵢ ln P(tokens[i] | the tokens before it).

        Raises: ValueError — no tokens, or one outside the vocabulary.
        """
        if not len(tokens):
            raise ValueError(
                "NGram.evaluate: expected tokens, got none; pass a stream of token ids"
            )
        return -float(self.log_probabilities(tokens).mean())


def discounts(counts: np.ndarray) -> np.ndarray:
    """What a count of 0, 1, 2, and 3 or more loses, by how many grams n₁ ... n₄ have 1 ... 4.

    D₁ = 1 - 2Y n₂/n₁,  D₂ = 2 - 3Y n₃/n₂,  D₃ = 3 - 4Y n₄/n₃,  Y = n₁ / (n₁ + 2n₂)

    Where a count of counts is zero or a discount not positive, as with few or very frequent
    tokens: 1/2, 1, 3/2.

    Shapes: (N) -> (4)
    Source: Chen and Goodman 1998, eq. 26. Differs: the fall-back, which the paper does not need.
    """
    n = np.bincount(np.minimum(counts, 5), minlength=6).astype(float)
    if n[1:5].all():
        y = n[1] / (n[1] + 2 * n[2])
        r = np.arange(1, 4)
        estimate = r - (r + 1) * y * n[2:5] / n[1:4]
        if (estimate > 0).all():
            return np.append(0, estimate)
    return np.array([0, 0.5, 1, 1.5])


def _smooth(keys: np.ndarray, counts: np.ndarray, n_contexts: int, vocab_size: int) -> Order:
    """One order's discounted shares c - D and back-off weights γ, both over c(h·)."""
    context = keys // vocab_size
    discount = discounts(counts)[np.minimum(counts, 3)]
    total = np.bincount(context, counts, n_contexts)
    freed = np.bincount(context, discount, n_contexts)
    seen = total > 0  # a context only at the stream's very beginning has grams that count zero
    backoff = np.divide(freed, total, out=np.ones(n_contexts), where=seen)
    discounted = (counts - discount) / np.where(seen, total, 1)[context]
    return Order(keys, np.append(discounted, 0), np.append(backoff, 1))


def _find(keys: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The place of each wanted key among the sorted keys, UNKNOWN where it is missing."""
    if not len(keys):
        return np.full(len(wanted), UNKNOWN)
    place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[place] == wanted, place, UNKNOWN)


def _check_tokens(tokens: np.ndarray, vocab_size: int) -> np.ndarray:
    tokens = np.asarray(tokens)
    if tokens.ndim != 1 or (tokens.size and not 0 <= tokens.min() <= tokens.max() < vocab_size):
        raise ValueError(
            f"expected one row of token ids from 0 to {vocab_size - 1}, got shape {tokens.shape}"
            + (f", {tokens.min()} to {tokens.max()}" if tokens.size else "")
            + "; pass the ids and the vocab_size of one tokenizer"
        )
    return tokens.astype(np.int64)
