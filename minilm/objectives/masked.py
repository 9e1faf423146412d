"""Predict the tokens that were hidden, from all the others around them.

Of every row 15 % of the tokens are selected: they alone have labels. Of the selected, 80 % are
replaced by [MASK], 10 % by any token, and 10 % stay as they are, so that the model cannot rely on
what stands at a place without [MASK]. With whole words, all pieces of a word are selected together.

Dynamic masking selects anew for each batch, static masking before training: `static_masks`.

Source: Devlin et al. 2018, arXiv 1810.04805, section 3.1 and appendix A.1, and its code; dynamic
masking, full windows and no next sentence from Liu et al. 2019, arXiv 1907.11692, section 4.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from minilm import functional as F
from minilm.functional import IGNORE_INDEX
from minilm.objectives.causal import Batch, check_stream
from minilm.tensor import Array, Tensor

MASKED, RANDOM = 0.8, 0.1  # shares of the selected tokens; the rest stay
ROLES = ("[CLS]", "[SEP]", "[PAD]", "[MASK]")


def mask_tokens(
    input_ids: Array,
    special_tokens_mask: Array,
    mask_id: int,
    random_ids: Array,
    rng: np.random.Generator,
    *,
    probability: float = 0.15,
    words: Array | None = None,
) -> tuple[Array, Array]:
    """Select tokens, replace most of them, and label them with what they were.

    Of the n tokens of a row that are not special, max(1, round(probability · n)) are selected, all
    sets of them equally likely; with `words` (see `word_ids`), words in random order that fit into
    that many, which may be none. The selected of the batch are put in random order. The place
    k = 0 … N-1 of each decides alone what becomes of it, with one u uniform in [0, 1):

        k + u < 0.8 N: mask_id      k + u < 0.9 N: any of random_ids      else: it stays

    (k + u) / N is uniform too: each token has exactly the chances 80/10/10, and the counts are
    exact up to the rounding to whole tokens. Two draws, one for the 10 % to replace and one of the
    others for 10 % to keep, would give 81/10/9.

    Shapes: (B, T), (B, T), (), (V) -> (B, T), (B, T)
    Raises: ValueError — arrays of different shapes, probability not in (0, 1], no random_ids;
        TypeError — ids that are not integers.
    Source: Devlin et al. 2018, arXiv 1810.04805, section 3.1 and appendix A.1.
    Differs: BERT counts special tokens into n, draws 80/10/10 for each token on its own, and its
        random tokens may be special ones.

    >>> ids, special = np.array([[1, 11, 12, 13, 14, 2]]), np.array([[1, 0, 0, 0, 0, 1]])
    >>> rng = np.random.default_rng(3)
    >>> masked, labels = mask_tokens(ids, special, 3, np.arange(10, 20), rng, probability=0.5)
    >>> masked
    array([[ 1,  3, 12, 13,  3,  2]])
    >>> labels
    array([[-100,   11, -100, -100,   14, -100]])
    """
    input_ids, random_ids = np.array(input_ids), np.asarray(random_ids)
    eligible = ~np.asarray(special_tokens_mask, bool)
    shapes = [input_ids.shape, eligible.shape, *([] if words is None else [np.shape(words)])]
    _check(shapes, probability, len(random_ids))
    for ids in (input_ids, random_ids):
        if ids.dtype.kind not in "iu":
            raise TypeError(
                f"mask_tokens: expected integer ids, got {ids.dtype}; tokenize the text"
            )
    input_ids = input_ids.astype(np.int64)
    budget = np.rint(probability * eligible.sum(1)).astype(np.int64)
    budget = np.maximum(budget, eligible.any(1))
    if words is None:
        selected = _choose_tokens(eligible, budget, rng)
    else:
        selected = _choose_words(eligible, budget, np.asarray(words), rng)
    labels = np.where(selected, input_ids, IGNORE_INDEX)
    tokens = input_ids[selected]  # (N)
    place = rng.permutation(len(tokens)) + rng.random()
    masked = place < MASKED * len(tokens)
    random = ~masked & (place < (MASKED + RANDOM) * len(tokens))
    tokens[masked] = mask_id
    tokens[random] = random_ids[rng.integers(len(random_ids), size=random.sum())]
    input_ids[selected] = tokens
    return input_ids, labels


def _check(shapes: list[tuple[int, ...]], probability: float, count: int) -> None:
    if len(set(shapes)) > 1 or len(shapes[0]) != 2:
        raise ValueError(
            "mask_tokens: expected input_ids, special_tokens_mask and words of one shape (B, T), "
            f"got {shapes}; give each token its entry"
        )
    if not 0 < probability <= 1 or not count:
        raise ValueError(
            f"mask_tokens: expected 0 < probability <= 1 and ids to draw from, got {probability} "
            f"and {count} random_ids; give 0.15, and all ids that are not special"
        )


def _choose_tokens(eligible: Array, budget: Array, rng: np.random.Generator) -> Array:
    """In each row the `budget` eligible tokens with the smallest random keys."""
    keys = np.where(eligible, rng.random(eligible.shape), 2.0)
    return keys.argsort(1).argsort(1) < budget[:, None]  # a key's rank in its row


def _choose_words(eligible: Array, budget: Array, words: Array, rng: np.random.Generator) -> Array:
    """Each row's words in random order, those left out that are longer than what is left."""
    eligible = eligible & (words >= 0)
    rows, count = np.arange(len(words)), int(words.max(initial=-1)) + 1
    flat = (rows[:, None] * count + words)[eligible]
    sizes = np.bincount(flat, minlength=len(words) * count).reshape(len(words), count)
    order = np.where(sizes, rng.random(sizes.shape), 2.0).argsort(1)
    chosen, room = np.zeros(sizes.shape, bool), budget.copy()
    for word in order.T:  # of all rows at once the next word, (B)
        size = sizes[rows, word]
        fits = (0 < size) & (size <= room)
        chosen[rows, word] = fits
        room -= np.where(fits, size, 0)
        if not room.any():
            break
    selected = np.zeros(eligible.shape, bool)
    selected[eligible] = chosen.reshape(-1)[flat]
    return selected


def word_ids(input_ids: Array, special_tokens_mask: Array, continues: Array) -> Array:
    """Which word of its row a token belongs to: 0, 1, 2 ..., and -1 for special tokens.

    A token begins a word unless continues[its id], a flag for each token of the vocabulary, and a
    token that is not special stands before it.

    Shapes: (B, T), (B, T), (V) -> (B, T)

    >>> continues = np.array([token.startswith("##") for token in ["[CLS]", "un", "##do", "it"]])
    >>> word_ids(np.array([[0, 1, 2, 3, 2]]), np.array([[1, 0, 0, 0, 0]]), continues)
    array([[-1,  0,  0,  1,  1]])
    """
    ordinary = ~np.asarray(special_tokens_mask, bool)
    goes_on = np.asarray(continues, bool)[np.asarray(input_ids)]
    goes_on[:, 1:] &= ordinary[:, :-1]
    goes_on[:, :1] = False
    return np.where(ordinary, (ordinary & ~goes_on).cumsum(1) - 1, -1)


@dataclass(frozen=True, eq=False)
class Masking:
    """How the tokens of one vocabulary are masked, and which of them are put around a text.

    `random_ids` (V') are the tokens that may stand in for others. `continues` (V), see `word_ids`,
    asks for whole words; None masks single tokens.
    """

    cls_id: int
    sep_id: int
    pad_id: int
    mask_id: int
    random_ids: Array
    continues: Array | None = None
    probability: float = 0.15

    @classmethod
    def of(cls, tokenizer: Any, probability: float = 0.15, whole_words: bool = False) -> "Masking":
        """That of a tokenizer with [CLS], [SEP], [PAD] and [MASK], as WordPiece has them.

        Raises: ValueError — one of them is missing, or whole words of a tokenizer without a prefix
            for tokens inside words.
        """
        special, prefix = tokenizer.special_tokens, getattr(tokenizer, "prefix", None)
        missing = [name for name in ROLES if name not in special]
        if missing or (whole_words and not prefix):
            raise ValueError(
                f"Masking: expected special tokens {ROLES}, and for whole words a prefix of tokens "
                f"inside words, got none of {missing} and prefix {prefix!r}; train a "
                "WordPieceTokenizer, or make a Masking from ids"
            )
        inner = np.array([token.startswith(prefix or "##") for token in tokenizer.tokens])
        ordinary = np.setdiff1d(np.arange(tokenizer.vocab_size), list(special.values()))
        continues = inner if whole_words else None
        cls_id, sep_id, pad_id, mask_id = (special[name] for name in ROLES)
        return cls(cls_id, sep_id, pad_id, mask_id, ordinary, continues, probability)

    def __call__(
        self, input_ids: Array, special: Array, rng: np.random.Generator
    ) -> tuple[Array, Array]:
        """`mask_tokens` of the rows: what the model reads, and the labels."""
        inner, ids = self.continues, (self.mask_id, self.random_ids)
        words = None if inner is None else word_ids(input_ids, special, inner)
        p = self.probability
        return mask_tokens(input_ids, special, *ids, rng, probability=p, words=words)


def static_masks(
    input_ids: Array, special: Array, masking: Masking, rng: np.random.Generator, copies: int = 10
) -> tuple[Array, Array]:
    """The rows, masked in `copies` ways; epoch e trains on copy e mod copies.

    Shapes: (B, T), (B, T) -> (K, B, T), (K, B, T)
    Raises: ValueError — copies below 1.
    Source: Liu et al. 2019, arXiv 1907.11692, section 4.1, on what BERT did.
    """
    if copies < 1:
        raise ValueError(f"static_masks: expected copies >= 1, got {copies}; BERT has 10")
    masked = [masking(input_ids, special, rng) for _ in range(copies)]
    return np.stack([ids for ids, _ in masked]), np.stack([labels for _, labels in masked])


def masked_loss(logits: Tensor, labels: Array, reduction: str = "mean") -> Tensor:
    """L = -Σ_{i ∈ selected} ln P(wᵢ | w_∖ᵢ) with reduction "sum"; "mean" is L / |selected|.

    w_∖ᵢ is the row as the model reads it, with what `mask_tokens` replaced. Position i of the
    logits is compared with labels[i]: there is no shift as in causal models.

    Shapes: (B, T, V), (B, T)i -> ()
    Source: Devlin et al. 2018, arXiv 1810.04805, section 3.1.
    """
    return F.cross_entropy(logits, labels, reduction=reduction)


class MaskedBatches:
    """Batches without pairs: [CLS], max_len - 2 of the `tokens` (N) of all documents, [SEP].

    Raises: ValueError — max_len below 3, a stream that is not longer than a window.
    """

    def __init__(self, tokens: Array, masking: Masking, max_len: int) -> None:
        self.tokens, self.masking, self.length = tokens, masking, max_len - 2
        check_stream(tokens, self.length)

    def sample(self, rng: np.random.Generator, batch_size: int) -> Batch:
        """Windows from anywhere, masked anew: input_ids and labels (B, T)."""
        starts = rng.integers(0, len(self.tokens) - self.length + 1, batch_size)
        return self._batch(starts, rng)

    def evaluation(self, batch_size: int, seed: int = 0) -> Iterator[Batch]:
        """Windows side by side, the last moved back; masked alike for the same batch_size."""
        rng = np.random.default_rng(seed)
        last = len(self.tokens) - self.length
        starts = np.append(np.arange(0, last, self.length), last)
        for i in range(0, len(starts), batch_size):
            yield self._batch(starts[i : i + batch_size], rng)

    def _batch(self, starts: Array, rng: np.random.Generator) -> Batch:
        window = self.tokens[starts[:, None] + np.arange(self.length)].astype(np.int64)
        sides = ((0, 0), (1, 1))
        ids = np.pad(window, sides, constant_values=(self.masking.cls_id, self.masking.sep_id))
        special = np.pad(np.zeros_like(window), sides, constant_values=1)
        input_ids, labels = self.masking(ids, special, rng)
        return {"input_ids": input_ids, "labels": labels}
