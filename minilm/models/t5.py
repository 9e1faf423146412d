"""T5: every task as text to text, by an encoder-decoder that knows positions only as distances.

Source: Raffel et al. 2020, "Exploring the Limits of Transfer Learning with a Unified Text-to-Text
Transformer", arXiv 1910.10683, section 2.1. Version 1.1 (the released code's; gated units from
Shazeer 2020, arXiv 2002.05202) is a configuration of it: `t5_v1_1_config`.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from minilm import functional as F
from minilm.models.config import check_config
from minilm.models.seq2seq import DecoderCaches, Record, Rng, Seq2SeqLM
from minilm.nn import (
    Dropout,
    Embedding,
    KeyValueCache,
    KeyValues,
    Linear,
    Module,
    MultiHeadAttention,
    RelativePositionBias,
    RMSNorm,
)
from minilm.tensor import Array, Tensor, grad_enabled


@dataclass(frozen=True)
class T5Config:
    """The shape of a T5; the defaults are T5-small with its 60 million parameters."""

    vocab_size: int = 32128
    max_len: int = 512
    d_model: int = 512
    n_heads: int = 8
    n_layers: int = 6
    n_decoder_layers: int | None = None  # n_layers unless given
    d_kv: int | None = None  # the width of a head: d_model / n_heads unless given
    d_ff: int = 2048
    dropout: float = 0.1
    label_smoothing: float = 0.0
    gated: bool = False  # feed_forward: gelu(x G) · x U for relu(x U)
    tie_embeddings: bool = True
    scale_logits: bool | None = None  # by 1/√d_model: where embeddings are tied, unless given
    n_buckets: int = 32
    max_distance: int = 128
    norm_eps: float = 1e-6
    init_factor: float = 1.0  # of every weight's first deviation
    pad_token_id: int = 0
    eos_token_id: int = 1
    decoder_start_token_id: int = 0

    def __post_init__(self) -> None:
        check_config(self)


def t5_v1_1_config(**fields: Any) -> T5Config:
    """T5 1.1 small: gated GELU for ReLU, an output matrix of its own.

    >>> t5_v1_1_config(n_layers=6).gated
    True
    """
    small = {"n_heads": 6, "n_layers": 8, "d_kv": 64, "d_ff": 1024}
    return T5Config(**{**small, "gated": True, "tie_embeddings": False, **fields})


def attention(
    config: T5Config, rng: np.random.Generator, causal: bool = False
) -> MultiHeadAttention:
    """Attention without biases and without 1/√D: the queries' weights begin smaller by it."""
    width = config.d_kv or config.d_model // config.n_heads
    layer = MultiHeadAttention(
        config.d_model,
        config.n_heads,
        rng=rng,
        bias=False,
        causal=causal,
        dropout=config.dropout,
        head_width=width,
        scale=1.0,
        std=config.init_factor * config.d_model**-0.5,
        out_std=config.init_factor * (config.n_heads * width) ** -0.5,
    )
    layer.q.weight.data = layer.q.weight.data * width**-0.5
    return layer


class FeedForward(Module):
    """y = dropout(relu(x Uᵀ)) Dᵀ; gated: y = dropout(gelu(x Gᵀ) · x Uᵀ) Dᵀ."""

    def __init__(self, config: T5Config, rng: np.random.Generator) -> None:
        d_model, d_ff, factor = config.d_model, config.d_ff, config.init_factor
        std = factor * d_model**-0.5
        self.gate = Linear(d_model, d_ff, False, rng=rng, std=std) if config.gated else None
        self.up = Linear(d_model, d_ff, False, rng=rng, std=std)
        self.down = Linear(d_ff, d_model, False, rng=rng, std=factor * d_ff**-0.5)
        self.dropout = Dropout(config.dropout)

    def forward(self, x: Tensor, rng: Rng) -> Tensor:
        if self.gate is None:
            hidden = F.relu(self.up(x))
        else:
            hidden = F.gelu(self.gate(x), approximate="tanh") * self.up(x)
        return self.down(self.dropout(hidden, rng))


class EncoderBlock(Module):
    """x + attention(norm(x)), then x + feed_forward(norm(x))."""

    def __init__(self, config: T5Config, rng: np.random.Generator) -> None:
        self.norm1 = RMSNorm(config.d_model, config.norm_eps)
        self.attention = attention(config, rng)
        self.norm2 = RMSNorm(config.d_model, config.norm_eps)
        self.feed_forward = FeedForward(config, rng)
        self.dropout = Dropout(config.dropout)

    def forward(
        self, x: Tensor, mask: Array | None, bias: Tensor, rng: Rng, record: Record
    ) -> Tensor:
        y = self.norm1(x)
        record.attention(self.attention, y, None, mask, bias)
        x = x + self.dropout(self.attention(y, mask=mask, bias=bias, rng=rng), rng)
        return x + self.dropout(self.feed_forward(self.norm2(x), rng), rng)


class Encoder(Module):
    """Blocks that share one bias for each distance, before and after, and a norm at the end."""

    def __init__(self, config: T5Config, rng: np.random.Generator) -> None:
        self.relative_bias = relative_bias(config, rng, bidirectional=True)
        self.blocks = [EncoderBlock(config, rng) for _ in range(config.n_layers)]
        self.final_norm = RMSNorm(config.d_model, config.norm_eps)
        self.dropout = Dropout(config.dropout)

    def forward(self, x: Tensor, mask: Array | None, rng: Rng, record: Record) -> Tensor:
        bias = self.relative_bias(x.shape[1], x.shape[1])
        for block in self.blocks:
            record.state(x)
            x = block(x, mask, bias, rng, record)
        x = self.dropout(self.final_norm(x), rng)
        record.state(x)
        return x


class DecoderBlock(Module):
    """As the encoder's, with x + cross_attention(norm(x), source) between the two."""

    def __init__(self, config: T5Config, rng: np.random.Generator) -> None:
        self.norm1 = RMSNorm(config.d_model, config.norm_eps)
        self.attention = attention(config, rng, causal=True)
        self.norm2 = RMSNorm(config.d_model, config.norm_eps)
        self.cross_attention = attention(config, rng)
        self.norm3 = RMSNorm(config.d_model, config.norm_eps)
        self.feed_forward = FeedForward(config, rng)
        self.dropout = Dropout(config.dropout)

    def forward(
        self,
        x: Tensor,
        source: Tensor | KeyValues,
        mask: Array | None,
        source_mask: Array | None,
        bias: Tensor,
        cache: KeyValueCache | None,
        rng: Rng,
        record: Record,
    ) -> Tensor:
        y = self.norm1(x)
        record.attention(self.attention, y, None, mask, bias)
        x = x + self.dropout(self.attention(y, None, mask, bias, cache, rng), rng)
        y = self.norm2(x)
        record.cross_attention(self.cross_attention, y, source, source_mask)
        x = x + self.dropout(self.cross_attention(y, source, source_mask, rng=rng), rng)
        return x + self.dropout(self.feed_forward(self.norm3(x), rng), rng)


class Decoder(Module):
    """Blocks that share one bias for each distance back, and a norm at the end."""

    def __init__(self, config: T5Config, rng: np.random.Generator) -> None:
        n_layers = config.n_decoder_layers or config.n_layers
        self.relative_bias = relative_bias(config, rng, bidirectional=False)
        self.blocks = [DecoderBlock(config, rng) for _ in range(n_layers)]
        self.final_norm = RMSNorm(config.d_model, config.norm_eps)
        self.dropout = Dropout(config.dropout)

    def forward(
        self,
        x: Tensor,
        sources: list[Tensor] | list[KeyValues],
        mask: Array | None,
        source_mask: Array | None,
        caches: DecoderCaches | None,
        rng: Rng,
        record: Record,
    ) -> Tensor:
        bias = self.bias(x.shape[1], caches)
        for i, (block, source) in enumerate(zip(self.blocks, sources, strict=True)):
            record.state(x)
            cache = None if caches is None else caches.layers[i]
            x = block(x, source, mask, source_mask, bias, cache, rng, record)
        x = self.dropout(self.final_norm(x), rng)
        record.state(x)
        return x

    def bias(self, length: int, caches: DecoderCaches | None) -> Tensor:
        """What to add to the scores of `length` new positions: (H, T, S).

        subtle: a bias depends only on the distance between query and key. So the last query's row
        for the longest text is looked up once, and the last n of its columns are the row of a text
        of n tokens.
        """
        past = 0 if caches is None else caches.length
        if caches is None or length > 1 or grad_enabled():
            return self.relative_bias(length, past + length)
        if caches.bias is None:
            caches.bias = self.relative_bias(1, caches.layers[0].keys.shape[2])
        return Tensor(caches.bias.data[:, :, -past - 1 :])


def relative_bias(
    config: T5Config, rng: np.random.Generator, bidirectional: bool
) -> RelativePositionBias:
    """The bias of one stack."""
    return RelativePositionBias(
        config.n_heads,
        config.n_buckets,
        config.max_distance,
        rng=rng,
        bidirectional=bidirectional,
        std=config.init_factor * config.d_model**-0.5,
    )


class T5(Seq2SeqLM):
    """The text-to-text encoder-decoder.

    >>> config = T5Config(vocab_size=11, max_len=8, d_model=8, n_heads=2, n_layers=1, d_ff=16)
    >>> model = T5(config, np.random.default_rng(0))
    >>> output = model(np.array([[4, 5, 6, 1]]), labels=np.array([[7, 8, 1]]))
    >>> output.logits.shape, output.loss.shape
    ((1, 3, 11), ())
    """

    def __init__(self, config: T5Config, rng: np.random.Generator) -> None:
        self.config, self.rng = config, rng
        c, factor = config, config.init_factor
        self.token_embedding = Embedding(c.vocab_size, c.d_model, rng=rng, std=factor)
        self.dropout = Dropout(c.dropout)
        self.encoder = Encoder(c, rng)
        self.decoder = Decoder(c, rng)
        std = factor * c.d_model**-0.5
        self.head = (
            None if c.tie_embeddings else Linear(c.d_model, c.vocab_size, False, rng=rng, std=std)
        )

    def embed(self, ids: Array, start: int, rng: Rng) -> Tensor:
        return self.dropout(self.token_embedding(ids), rng)

    def project(self, hidden: Tensor) -> Tensor:
        c = self.config
        if c.tie_embeddings if c.scale_logits is None else c.scale_logits:
            hidden = hidden * c.d_model**-0.5  # the embeddings begin with deviation 1
        if self.head is None:  # tied
            return F.linear(hidden, self.token_embedding.weight)
        return self.head(hidden)
