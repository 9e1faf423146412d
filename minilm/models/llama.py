"""Llama: the decoder as it is built today.

RMSNorm for LayerNorm, rotary positions for learned ones, SwiGLU for GELU, heads that share keys
and values, no biases.

Source: Touvron et al. 2023, arXiv 2302.13971 and 2307.09288.
"""

from dataclasses import dataclass

import numpy as np

from minilm import functional as F
from minilm.models.causal import CausalLM
from minilm.models.config import check_config
from minilm.nn import (
    Dropout,
    Embedding,
    KeyValueCache,
    Linear,
    Module,
    MultiHeadAttention,
    RMSNorm,
    Rotary,
    SwiGLU,
)
from minilm.tensor import Array, Tensor


@dataclass(frozen=True)
class LlamaConfig:
    """The shape of a Llama; the defaults are a small one that trains on a laptop.

    `qk_norm` and `zero_init` are not in the paper but in the recipes that train fastest: queries
    and keys are normalised, and each block's last projection starts at zero, so that a new model
    is the identity on the residual stream.
    """

    vocab_size: int = 32000
    max_len: int = 128
    d_model: int = 128
    n_heads: int = 4
    n_layers: int = 4
    n_kv_heads: int | None = None  # n_heads unless given
    d_kv: int | None = None  # the width of a head: d_model / n_heads unless given
    d_ff: int | None = None  # 8/3 d_model, rounded up to a multiple of 32, unless given
    dropout: float = 0.0
    norm_eps: float = 1e-5
    rope_theta: float = 10000.0
    tie_embeddings: bool = False
    qk_norm: bool = False
    zero_init: bool = False
    init_std: float = 0.02

    def __post_init__(self) -> None:
        check_config(self)

    @property
    def hidden_width(self) -> int:
        return self.d_ff or -(-8 * self.d_model // 96) * 32


class Block(Module):
    """x + attention(norm(x)), then x + swiglu(norm(x))."""

    def __init__(self, config: LlamaConfig, rotary: Rotary, rng: np.random.Generator) -> None:
        c, std = config, config.init_std
        out_std = 0.0 if c.zero_init else std
        self.norm1 = RMSNorm(c.d_model, c.norm_eps)
        self.attention = MultiHeadAttention(
            c.d_model,
            c.n_heads,
            c.n_kv_heads,
            rng=rng,
            bias=False,
            causal=True,
            dropout=c.dropout,
            rotary=rotary,
            qk_norm=c.qk_norm,
            norm_eps=c.norm_eps,
            head_width=c.d_kv,
            std=std,
            out_std=out_std,
        )
        self.norm2 = RMSNorm(c.d_model, c.norm_eps)
        self.feed_forward = SwiGLU(c.d_model, c.hidden_width, rng=rng, std=std, out_std=out_std)
        self.dropout = Dropout(c.dropout)

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


class Llama(CausalLM):
    """The Llama language model.

    >>> config = LlamaConfig(vocab_size=11, max_len=8, d_model=8, n_heads=2, n_layers=1)
    >>> Llama(config, np.random.default_rng(0))(np.array([[1, 2, 3]])).logits.shape
    (1, 3, 11)
    """

    def __init__(self, config: LlamaConfig, rng: np.random.Generator) -> None:
        self.config, self.rng = config, rng
        c = config
        rotary = Rotary(c.d_kv or c.d_model // c.n_heads, c.max_len, c.rope_theta)
        self.token_embedding = Embedding(c.vocab_size, c.d_model, rng=rng, std=c.init_std)
        self.blocks = [Block(c, rotary, rng) for _ in range(c.n_layers)]
        self.final_norm = RMSNorm(c.d_model, c.norm_eps)
        self.head = (
            None
            if c.tie_embeddings
            else Linear(c.d_model, c.vocab_size, bias=False, rng=rng, std=c.init_std)
        )

    def hidden(
        self,
        input_ids: Array,
        mask: Array | None,
        caches: list[KeyValueCache] | None,
        rng: np.random.Generator | None,
        keep: int | None = None,
    ) -> Tensor:
        x = self.token_embedding(input_ids)
        return self.final_norm(self.through_blocks(x, mask, caches, rng, keep))

    def project(self, hidden: Tensor) -> Tensor:
        if self.head is None:  # tied
            return F.linear(hidden, self.token_embedding.weight)
        return self.head(hidden)
