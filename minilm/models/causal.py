"""What every causal language model shares: its calls, its loss, its caches."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from minilm import functional as F
from minilm.models.base import Model, key_mask
from minilm.tensor import Array, Tensor


@dataclass
class CausalOutput:
    """`logits` (B, T, V), and, where labels were given, `loss`: nats per token."""

    logits: Tensor
    loss: Tensor | None = None


class CausalLM(Model):
    """P(w₁ … w_T) = Πₜ P(wₜ | w₁ … wₜ₋₁): base of the models that predict the next token.

    A subclass has `config` (with max_len, n_layers ...), `hidden` and `project`, and `blocks` with
    an `attention` each, or else a `new_caches` of its own; this class turns them into logits, loss
    and cached decoding. `rng` is where dropout draws from unless a call brings its own.
    """

    config: Any
    rng: np.random.Generator | None
    blocks: list[Any]  # (x (B, T, C), mask, cache, rng, keep) -> (B, T, C); for `through_blocks`

    @property
    def window(self) -> int:
        """How many tokens it can read at once."""
        return self.config.max_len

    def hidden(
        self,
        input_ids: Array,
        mask: Array | None,
        caches: list[Any] | None,
        rng: np.random.Generator | None,
        keep: int | None = None,
    ) -> Tensor:
        """The last layer's normalised output (B, T, C), or its last `keep` positions.

        Of a `KeyValueCache` it may use `length`, and hand it to the attention: see `prefill`.
        """
        raise NotImplementedError(f"{type(self).__name__} needs a hidden method")

    def through_blocks(
        self,
        x: Tensor,
        mask: Array | None,
        caches: list[Any] | None,
        rng: np.random.Generator | None,
        keep: int | None,
    ) -> Tensor:
        """x after all `blocks`; the last is worked out for the last `keep` positions only.

        Shapes: (B, T, C) -> (B, T, C), or (B, keep, C)
        """
        for i, block in enumerate(self.blocks):
            is_last = block is self.blocks[-1]
            x = block(x, mask, caches[i] if caches else None, rng, keep if is_last else None)
        return x

    def project(self, hidden: Tensor) -> Tensor:
        """(B, T, C) -> logits (B, T, V)."""
        raise NotImplementedError(f"{type(self).__name__} needs a project method")

    def new_caches(self, batch: int) -> list[Any]:
        """Empty caches, one a layer, with room for the whole context window."""
        return [block.attention.new_cache(batch, self.config.max_len) for block in self.blocks]

    def forward(
        self,
        input_ids: Array,
        labels: Array | None = None,
        attention_mask: Array | None = None,
        caches: list[Any] | None = None,
        logits_to_keep: int | None = None,
        rng: np.random.Generator | None = None,
    ) -> CausalOutput:
        """Logits for every position and, with labels, the mean loss.

        `attention_mask` (B, S), 1 = a real token, 0 = padding. `caches` (from `new_caches`) hold
        the positions before input_ids. With `logits_to_keep` only so many last positions are
        projected, and worked out by the last block (None or 0: all).

        Shapes: input_ids (B, T), labels (B, T) or (B, T+1) -> logits (B, T, V)
        Raises: ValueError — input_ids is not (B, T), or reaches beyond max_len.
        """
        input_ids = np.asarray(input_ids)
        past = caches[0].length if caches else 0
        if input_ids.ndim != 2 or past + input_ids.shape[1] > self.window:
            raise ValueError(
                f"{type(self).__name__}: expected input_ids (B, T) with at most max_len = "
                f"{self.window} positions, got shape {input_ids.shape} after {past} cached "
                "ones; cut the text into windows, or build the model with a larger max_len"
            )
        if attention_mask is not None:
            expected = (len(input_ids), past + input_ids.shape[1])
            if np.shape(attention_mask) != expected:
                raise ValueError(
                    f"{type(self).__name__}: expected attention_mask of shape {expected}, one "
                    f"entry for each position so far, got {np.shape(attention_mask)}; take it "
                    "from the tokenizer call that gave the ids"
                )
        mask = key_mask(attention_mask)
        rng = self.rng if rng is None else rng
        logits = self.project(self.hidden(input_ids, mask, caches, rng, logits_to_keep))
        if labels is None:
            return CausalOutput(logits)
        return CausalOutput(logits, F.cross_entropy(logits, shift(labels, input_ids.shape[1])))

    def count_targets(self, batch: dict[str, Array]) -> int:
        """Over how many targets the loss of this batch is a mean."""
        targets = shift(batch["labels"], np.shape(batch["input_ids"])[1])
        return int(np.count_nonzero(targets != F.IGNORE_INDEX))


def shift(labels: Array, length: int) -> Array:
    """The causal shift, done here and nowhere else: position t is to predict labels[t + 1].

    Labels as long as the input (labels = input_ids, as in transformers) leave the last position
    without a target. Labels one longer, whose last column is the token after the window, train
    every position.

    Shapes: (B, T) or (B, T+1) -> (B, T)
    Raises: ValueError — labels of another shape.

    >>> shift(np.array([[5, 6, 7]]), 3)
    array([[   6,    7, -100]])
    >>> shift(np.array([[5, 6, 7, 8]]), 3)
    array([[6, 7, 8]])
    """
    labels = np.asarray(labels)
    if (
        labels.ndim != 2
        or labels.shape[1] not in (length, length + 1)
        or labels.dtype.kind not in "iu"
    ):
        raise ValueError(
            f"labels: expected shape (B, {length}) or (B, {length + 1}) of integers for input_ids "
            f"(B, {length}), got {labels.shape} of {labels.dtype}; pass labels=input_ids, or one "
            "more column for the token after the window"
        )
    targets = np.full((len(labels), length), F.IGNORE_INDEX, np.int64)
    targets[:, : labels.shape[1] - 1] = labels[:, 1:]
    return targets
