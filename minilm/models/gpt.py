"""GPT-2: learned positions, pre-norm blocks, GELU, output embedding tied to the input's.

Source: Radford et al. 2019, "Language Models are Unsupervised Multitask Learners".
"""

import math
from dataclasses import dataclass

import numpy as np

from minilm import functional as F
from minilm.models.causal import CausalLM
from minilm.models.config import check_config
from minilm.nn import (
    Dropout,
    Embedding,
    FeedForward,
    KeyValueCache,
    LayerNorm,
    Linear,
    Module,
    MultiHeadAttention,
)
from minilm.tensor import Array, Tensor


@dataclass(frozen=True)
class GPTConfig:
    """The shape of a GPT; the defaults are GPT-2 with 124 million parameters."""

    vocab_size: int = 50257
    max_len: int = 1024
    d_model: int = 768
    n_heads: int = 12
    n_layers: int = 12
    d_ff: int | None = None  # 4 d_model unless given
    dropout: float = 0.0
    layer_norm_eps: float = 1e-5
    tie_embeddings: bool = True
    init_std: float = 0.02

    def __post_init__(self) -> None:
        check_config(self)


class Block(Module):
    """x + attention(norm(x)), then x + feed_forward(norm(x))."""

    def __init__(self, config: GPTConfig, rng: np.random.Generator) -> None:
        d_model, std = config.d_model, config.init_std
        # Each layer adds to the residual stream twice: keep its variance from growing with depth.
        out_std = std / math.sqrt(2 * config.n_layers)
        self.norm1 = LayerNorm(d_model, config.layer_norm_eps)
        self.attention = MultiHeadAttention(
            d_model,
            config.n_heads,
            rng=rng,
            causal=True,
            dropout=config.dropout,
            std=std,
            out_std=out_std,
        )
        self.norm2 = LayerNorm(d_model, config.layer_norm_eps)
        d_ff = config.d_ff or 4 * d_model
        self.feed_forward = FeedForward(d_model, d_ff, rng=rng, std=std, out_std=out_std)
        self.dropout = Dropout(config.dropout)

    def forward(
        self,
        x: Tensor,
        mask: Array | None,
        cache: KeyValueCache | None,
        rng: np.random.Generator | None,
        keep: int | None = None,
    ) -> Tensor:
        """With `keep` only the last so many positions, which attend to all of x."""
        attended = self.attention(self.norm1(x), mask=mask, cache=cache, rng=rng, keep=keep)
        x = (x[:, -keep:] if keep else x) + self.dropout(attended, rng)
        return x + self.dropout(self.feed_forward(self.norm2(x)), rng)


class GPT(CausalLM):
    """The GPT-2 language model.

    >>> model = GPT(GPTConfig(vocab_size=11, max_len=8, d_model=8, n_heads=2, n_layers=1),
    ...             np.random.default_rng(0))
    >>> ids = np.array([[1, 2, 3, 4]])
    >>> output = model(ids, labels=ids)
    >>> output.logits.shape, output.loss.shape
    ((1, 4, 11), ())
    """

    def __init__(self, config: GPTConfig, rng: np.random.Generator) -> None:
        self.config, self.rng = config, rng
        d_model, std = config.d_model, config.init_std
        self.token_embedding = Embedding(config.vocab_size, d_model, rng=rng, std=std)
        self.position_embedding = Embedding(config.max_len, d_model, rng=rng, std=std)
        self.dropout = Dropout(config.dropout)
        self.blocks = [Block(config, rng) for _ in range(config.n_layers)]
        self.final_norm = LayerNorm(d_model, config.layer_norm_eps)
        self.head = (
            None
            if config.tie_embeddings
            else Linear(d_model, config.vocab_size, bias=False, rng=rng, std=std)
        )

    def hidden(
        self,
        input_ids: Array,
        mask: Array | None,
        caches: list[KeyValueCache] | None,
        rng: np.random.Generator | None,
        keep: int | None = None,
    ) -> Tensor:
        start = caches[0].length if caches else 0
        positions = np.arange(start, start + input_ids.shape[1])
        x = self.token_embedding(input_ids) + self.position_embedding(positions)
        x = self.dropout(x, rng)
        return self.final_norm(self.through_blocks(x, mask, caches, rng, keep))

    def project(self, hidden: Tensor) -> Tensor:
        if self.head is None:  # tied: reads and writes
            return F.linear(hidden, self.token_embedding.weight)
        return self.head(hidden)
