"""BERT: a post-norm encoder, whose tokens see both sides; its heads stand in `bert_heads`.

Source: Devlin, Chang, Lee, Toutanova 2018, "BERT: Pre-training of Deep Bidirectional Transformers
for Language Understanding", arXiv 1810.04805. RoBERTa (Liu et al. 2019, arXiv 1907.11692) and
DistilBERT (Sanh et al. 2019, arXiv 1910.01108) are configurations of it: `roberta_config`,
`distilbert_config`.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from minilm import functional as F
from minilm.models.base import Model, key_mask
from minilm.models.config import check_config
from minilm.nn import Dropout, Embedding, FeedForward, LayerNorm, Linear, Module, MultiHeadAttention
from minilm.tensor import Array, Tensor, tanh

Rng = np.random.Generator | None
POOLERS = {"tanh": tanh, "relu": F.relu}


@dataclass(frozen=True)
class BertConfig:
    """The shape of a BERT; the defaults are BERT-base with its 110 million parameters."""

    vocab_size: int = 30522
    max_len: int = 512
    d_model: int = 768
    n_heads: int = 12
    n_layers: int = 12
    d_ff: int = 3072
    dropout: float = 0.1
    head_dropout: float | None = None  # before a classifier: dropout unless given
    n_token_types: int = field(default=2, metadata={"least": 0})  # 0: there are none
    first_position: int = 0  # RoBERTa's positions begin at 2
    layer_norm_eps: float = 1e-12
    pooler: str | None = "tanh"  # its activation, "tanh" or "relu"; None: no pooler
    tie_embeddings: bool = True  # the masked head's matrix is the embedding's
    init_std: float = 0.02
    n_labels: int = 2  # of the classification heads; 1 makes sequence classification a regression

    def __post_init__(self) -> None:
        check_config(self)
        if self.pooler is not None and self.pooler not in POOLERS:
            raise ValueError(
                f"BertConfig: expected pooler to be one of {sorted(POOLERS)} or None, got "
                f"{self.pooler!r}; it is the activation of the pooler"
            )


def roberta_config(**fields: Any) -> BertConfig:
    """RoBERTa-base: no token types, positions from 2 on, another vocabulary.

    >>> roberta_config(n_layers=6).first_position
    2
    """
    roberta = {"vocab_size": 50265, "n_token_types": 1, "first_position": 2, "layer_norm_eps": 1e-5}
    return BertConfig(**{**roberta, **fields})


def distilbert_config(**fields: Any) -> BertConfig:
    """DistilBERT-base: half of the layers, no token types, ReLU before its classifiers.

    >>> distilbert_config(pooler=None).n_layers
    6
    """
    return BertConfig(**{"n_layers": 6, "n_token_types": 0, "pooler": "relu", **fields})


@dataclass
class EncoderOutput:
    """What the encoder gives; the last two only where they were asked for."""

    last_hidden_state: Tensor  # (B, T, C)
    pooler_output: Tensor | None  # (B, C); None without a pooler
    hidden_states: tuple[Tensor, ...] | None = None  # n_layers + 1 of (B, T, C)
    attentions: tuple[Array, ...] | None = None  # n_layers of (B, H, T, T), without dropout


class EncoderBlock(Module):
    """norm(x + attention(x)), then norm(x + feed_forward(x)): the norm comes after the sum."""

    def __init__(self, config: BertConfig, rng: np.random.Generator) -> None:
        d_model, std, eps = config.d_model, config.init_std, config.layer_norm_eps
        self.attention = MultiHeadAttention(
            d_model, config.n_heads, rng=rng, dropout=config.dropout, std=std, out_std=std
        )
        self.norm1 = LayerNorm(d_model, eps)
        self.feed_forward = FeedForward(
            d_model, config.d_ff, rng=rng, std=std, out_std=std, activation=F.gelu
        )
        self.norm2 = LayerNorm(d_model, eps)
        self.dropout = Dropout(config.dropout)

    def forward(
        self, x: Tensor, mask: Array | None, rng: Rng, wanted: Array | None = None
    ) -> Tensor:
        """With `wanted` (B, K) only those positions, which attend to all of x."""
        y = x if wanted is None else take_positions(x, wanted)
        y = self.norm1(y + self.dropout(self.attention(y, x, mask, rng=rng), rng))
        return self.norm2(y + self.dropout(self.feed_forward(y), rng))


def take_positions(x: Tensor, wanted: Array) -> Tensor:
    """y[b, k] = x[b, wanted[b, k]].

    Shapes: (B, T, C), (B, K)i -> (B, K, C)
    """
    batch, length, width = x.shape
    rows = np.arange(batch)[:, None] * length
    return F.embedding(rows + wanted, x.reshape(batch * length, width))


class Bert(Model):
    """The encoder: embeddings, blocks, and a pooler over the first position.

    >>> model = Bert(BertConfig(vocab_size=11, max_len=8, d_model=8, n_heads=2, n_layers=1,
    ...                         d_ff=16), np.random.default_rng(0)).eval()
    >>> output = model(np.array([[1, 2, 3, 4]]))
    >>> output.last_hidden_state.shape, output.pooler_output.shape
    ((1, 4, 8), (1, 8))
    """

    def __init__(self, config: BertConfig, rng: np.random.Generator) -> None:
        self.config, self.rng = config, rng
        d_model, std = config.d_model, config.init_std
        n_positions = config.max_len + config.first_position
        self.token_embedding = Embedding(config.vocab_size, d_model, rng=rng, std=std)
        self.position_embedding = Embedding(n_positions, d_model, rng=rng, std=std)
        self.type_embedding = (
            Embedding(config.n_token_types, d_model, rng=rng, std=std)
            if config.n_token_types
            else None
        )
        self.norm = LayerNorm(d_model, config.layer_norm_eps)
        self.dropout = Dropout(config.dropout)
        self.blocks = [EncoderBlock(config, rng) for _ in range(config.n_layers)]
        self.pooler = Linear(d_model, d_model, rng=rng, std=std) if config.pooler else None

    def forward(
        self,
        input_ids: Array,
        attention_mask: Array | None = None,
        token_type_ids: Array | None = None,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
        wanted: Array | None = None,
        rng: Rng = None,
    ) -> EncoderOutput:
        """`attention_mask` (B, T): 1 = a token, 0 = padding. `token_type_ids` (B, T): which text.

        `wanted` (B, K) are the positions that somebody reads: the output is then (B, K, C), and
        the first of each row is pooled. The last block is worked out for them alone, unless the
        states or weights of every layer are asked for.

        Shapes: (B, T) -> (B, T, C), (B, C)
        Raises: ValueError — input_ids is not (B, T) or longer than max_len, a mask or types of
            another shape; IndexError — a token or a type that there is not.
        """
        input_ids = np.asarray(input_ids)
        self.check(input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids)
        rng = self.rng if rng is None else rng
        mask = key_mask(attention_mask)
        positions = np.arange(input_ids.shape[1]) + self.config.first_position
        x = self.token_embedding(input_ids)
        if self.type_embedding is not None:
            types = np.zeros_like(input_ids) if token_type_ids is None else token_type_ids
            x = x + self.type_embedding(np.asarray(types))
        x = self.dropout(self.norm(x + self.position_embedding(positions)), rng)
        hidden, attentions = [x], []
        everywhere = output_hidden_states or output_attentions
        for block in self.blocks:
            if output_attentions:
                attentions.append(block.attention.weights(x, mask=mask))
            is_last = block is self.blocks[-1]
            x = block(x, mask, rng, None if everywhere or not is_last else wanted)
            hidden.append(x)
        if everywhere and wanted is not None:
            x = take_positions(x, wanted)
        return EncoderOutput(
            x,
            self._pool(x),
            tuple(hidden) if output_hidden_states else None,
            tuple(attentions) if output_attentions else None,
        )

    def _pool(self, x: Tensor) -> Tensor | None:
        """The first position, once more projected."""
        if self.pooler is None or self.config.pooler is None:
            return None
        return POOLERS[self.config.pooler](self.pooler(x[:, 0]))

    def check(self, input_ids: Array, **others: Array | None) -> None:
        """Raises what `forward` says it does."""
        limit = self.config.max_len
        if input_ids.ndim != 2 or not 0 < input_ids.shape[1] <= limit:
            raise ValueError(
                f"Bert: expected input_ids (B, T) with 1 to max_len = {limit} positions, got shape "
                f"{input_ids.shape}; cut the text into windows, or build it with a larger max_len"
            )
        for name, array in others.items():
            if array is not None and np.shape(array) != input_ids.shape:
                raise ValueError(
                    f"Bert: expected {name} of input_ids' shape {input_ids.shape}, got "
                    f"{np.shape(array)}; take both from one tokenizer call"
                )
        types, known = others.get("token_type_ids"), self.config.n_token_types
        if types is not None and np.size(types) and not 0 <= np.min(types) <= np.max(types) < known:
            raise IndexError(
                f"Bert: expected token_type_ids in 0..{known - 1} (n_token_types = {known}), got "
                f"{np.min(types)}..{np.max(types)}; build the model with more, or leave them out"
            )
