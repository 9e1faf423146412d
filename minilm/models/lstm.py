"""The recurrent language model: an embedding, an LSTM that reads token by token, a projection.

Source: Mikolov et al. 2010, "Recurrent neural network based language model"; with an LSTM,
Sundermeyer et al. 2012, "LSTM Neural Networks for Language Modeling".
"""

import sys
from dataclasses import dataclass

import numpy as np

from minilm.models.causal import CausalLM
from minilm.models.config import check_config
from minilm.nn import LSTM, Dropout, Embedding, Linear, RecurrentState
from minilm.tensor import Array, Tensor


@dataclass(frozen=True)
class LSTMConfig:
    """The shape of an LSTM language model; the defaults are a small one that trains on a laptop.

    `max_len` is the length of the windows it is trained on. It reads texts of any length.
    """

    vocab_size: int = 10000
    max_len: int = 64
    d_embedding: int | None = None  # d_model unless given
    d_model: int = 128
    n_layers: int = 1
    dropout: float = 0.0
    forget_bias: float = 1.0
    init_std: float = 0.02

    def __post_init__(self) -> None:
        check_config(self)


class LSTMLanguageModel(CausalLM):
    """Embedding, LSTM, Linear.

    Its state after t tokens is all that it knows of them, so a token costs the same wherever it
    stands, and a text may be longer than any it was trained on.

    >>> config = LSTMConfig(vocab_size=11, d_embedding=4, d_model=8)
    >>> LSTMLanguageModel(config, np.random.default_rng(0))(np.array([[1, 2, 3]])).logits.shape
    (1, 3, 11)
    """

    def __init__(self, config: LSTMConfig, rng: np.random.Generator) -> None:
        self.config, self.rng = config, rng
        c, d_embedding = config, config.d_embedding or config.d_model
        self.token_embedding = Embedding(c.vocab_size, d_embedding, rng=rng)
        self.lstm = LSTM(
            d_embedding,
            c.d_model,
            c.n_layers,
            dropout=c.dropout,
            rng=rng,
            forget_bias=c.forget_bias,
        )
        self.dropout = Dropout(c.dropout)
        self.head = Linear(c.d_model, c.vocab_size, rng=rng, std=c.init_std)

    @property
    def window(self) -> int:
        return sys.maxsize

    def new_caches(self, batch: int) -> list[RecurrentState]:
        """The state before the first token, in a list of one."""
        c, dtype = self.config, self.parameters()[0].dtype
        return [RecurrentState(c.n_layers, batch, c.d_model, dtype)]

    def hidden(
        self,
        input_ids: Array,
        mask: Array | None,
        caches: list[RecurrentState] | None,
        rng: np.random.Generator | None,
        keep: int | None = None,
    ) -> Tensor:
        """The last layer's output (B, T, C), or its last `keep` positions.

        Raises: ValueError — padding before a token: the state would have read it.
        """
        if mask is not None and (mask[..., 1:] > mask[..., :-1]).any():
            raise ValueError(
                "LSTMLanguageModel: expected an attention_mask with padding behind the tokens "
                "only, got some before; pad on the right, or read rows of one length at a time"
            )
        x = self.dropout(self.token_embedding(input_ids), rng)
        y = caches[0].read(self.lstm, x) if caches else self.lstm(x, rng=rng)[0]
        return self.dropout(y[:, -keep:] if keep else y, rng)

    def project(self, hidden: Tensor) -> Tensor:
        return self.head(hidden)
