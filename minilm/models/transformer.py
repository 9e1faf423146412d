"""The Transformer of 2017 as it was printed: an encoder, a decoder, norms after the sums.

Source: Vaswani et al. 2017, "Attention Is All You Need", arXiv 1706.03762. Its schedule is
`optim.inverse_sqrt_schedule`; its optimizer Adam with betas (0.9, 0.98) and eps 1e-9.
"""

import math
from dataclasses import dataclass

import numpy as np

from minilm import functional as F
from minilm.models.config import check_config
from minilm.models.seq2seq import DecoderCaches, Record, Rng, Seq2SeqLM
from minilm.nn import (
    Dropout,
    Embedding,
    FeedForward,
    KeyValueCache,
    KeyValues,
    LayerNorm,
    Module,
    MultiHeadAttention,
    sinusoidal_positions,
)
from minilm.tensor import Array, Tensor


@dataclass(frozen=True)
class TransformerConfig:
    """The shape of a Transformer; the defaults are the paper's base model (table 3)."""

    vocab_size: int = 37000
    max_len: int = 512
    d_model: int = 512
    n_heads: int = 8
    n_layers: int = 6
    n_decoder_layers: int | None = None  # n_layers unless given
    d_ff: int = 2048
    dropout: float = 0.1
    label_smoothing: float = 0.1
    layer_norm_eps: float = 1e-5
    pad_token_id: int = 0
    eos_token_id: int = 1
    decoder_start_token_id: int = 0

    def __post_init__(self) -> None:
        check_config(self)


def attention(
    config: TransformerConfig, rng: np.random.Generator, causal: bool = False
) -> MultiHeadAttention:
    """Section 3.2.2. How weights begin is left open there: here with the variance 2 / (in + out).

    Source: Glorot & Bengio 2010, eq. 12.
    """
    std = config.d_model**-0.5
    return MultiHeadAttention(
        config.d_model, config.n_heads, rng=rng, causal=causal, std=std, out_std=std
    )


def feed_forward(config: TransformerConfig, rng: np.random.Generator) -> FeedForward:
    """Section 3.3, eq. 2: max(0, x W₁ + b₁) W₂ + b₂."""
    std = math.sqrt(2 / (config.d_model + config.d_ff))
    return FeedForward(
        config.d_model, config.d_ff, rng=rng, std=std, out_std=std, activation=F.relu
    )


class EncoderBlock(Module):
    """norm(x + attention(x)), then norm(x + feed_forward(x))."""

    def __init__(self, config: TransformerConfig, rng: np.random.Generator) -> None:
        self.attention = attention(config, rng)
        self.norm1 = LayerNorm(config.d_model, config.layer_norm_eps)
        self.feed_forward = feed_forward(config, rng)
        self.norm2 = LayerNorm(config.d_model, config.layer_norm_eps)
        self.dropout = Dropout(config.dropout)

    def forward(self, x: Tensor, mask: Array | None, rng: Rng, record: Record) -> Tensor:
        record.attention(self.attention, x, None, mask)
        x = self.norm1(x + self.dropout(self.attention(x, mask=mask), rng))
        return self.norm2(x + self.dropout(self.feed_forward(x), rng))


class Encoder(Module):
    """Section 3.1: n_layers blocks."""

    def __init__(self, config: TransformerConfig, rng: np.random.Generator) -> None:
        self.blocks = [EncoderBlock(config, rng) for _ in range(config.n_layers)]

    def forward(self, x: Tensor, mask: Array | None, rng: Rng, record: Record) -> Tensor:
        record.state(x)
        for block in self.blocks:
            x = block(x, mask, rng, record)
            record.state(x)
        return x


class DecoderBlock(Module):
    """As the encoder's, with norm(x + cross_attention(x, source)) between the two."""

    def __init__(self, config: TransformerConfig, rng: np.random.Generator) -> None:
        self.attention = attention(config, rng, causal=True)
        self.norm1 = LayerNorm(config.d_model, config.layer_norm_eps)
        self.cross_attention = attention(config, rng)
        self.norm2 = LayerNorm(config.d_model, config.layer_norm_eps)
        self.feed_forward = feed_forward(config, rng)
        self.norm3 = LayerNorm(config.d_model, config.layer_norm_eps)
        self.dropout = Dropout(config.dropout)

    def forward(
        self,
        x: Tensor,
        source: Tensor | KeyValues,
        mask: Array | None,
        source_mask: Array | None,
        cache: KeyValueCache | None,
        rng: Rng,
        record: Record,
    ) -> Tensor:
        record.attention(self.attention, x, None, mask)
        x = self.norm1(x + self.dropout(self.attention(x, mask=mask, cache=cache), rng))
        record.cross_attention(self.cross_attention, x, source, source_mask)
        x = self.norm2(x + self.dropout(self.cross_attention(x, source, source_mask), rng))
        return self.norm3(x + self.dropout(self.feed_forward(x), rng))


class Decoder(Module):
    """Section 3.1: blocks that see the target up to where they stand, and all of the source."""

    def __init__(self, config: TransformerConfig, rng: np.random.Generator) -> None:
        n_layers = config.n_decoder_layers or config.n_layers
        self.blocks = [DecoderBlock(config, rng) for _ in range(n_layers)]

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
        record.state(x)
        for i, (block, source) in enumerate(zip(self.blocks, sources, strict=True)):
            cache = None if caches is None else caches.layers[i]
            x = block(x, source, mask, source_mask, cache, rng, record)
            record.state(x)
        return x


class Transformer(Seq2SeqLM):
    """The encoder-decoder of "Attention Is All You Need".

    One matrix embeds source and target and gives the logits (section 3.4).

    >>> config = TransformerConfig(vocab_size=11, max_len=8, d_model=8, n_heads=2, n_layers=1,
    ...                            d_ff=16)
    >>> model = Transformer(config, np.random.default_rng(0))
    >>> output = model(np.array([[4, 5, 6, 1]]), labels=np.array([[7, 8, 1]]))
    >>> output.logits.shape, output.loss.shape
    ((1, 3, 11), ())
    """

    def __init__(self, config: TransformerConfig, rng: np.random.Generator) -> None:
        self.config, self.rng = config, rng
        d_model = config.d_model
        self.token_embedding = Embedding(config.vocab_size, d_model, rng=rng, std=d_model**-0.5)
        self.positions = sinusoidal_positions(config.max_len, d_model)
        self.dropout = Dropout(config.dropout)
        self.encoder = Encoder(config, rng)
        self.decoder = Decoder(config, rng)

    def embed(self, ids: Array, start: int, rng: Rng) -> Tensor:
        x = self.token_embedding(ids) * math.sqrt(self.config.d_model)
        positions = self.positions[start : start + ids.shape[1]]
        return self.dropout(x + Tensor(positions.astype(x.dtype)), rng)

    def project(self, hidden: Tensor) -> Tensor:
        return F.linear(hidden, self.token_embedding.weight)  # tied: reads twice and writes
