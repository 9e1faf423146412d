"""The LSTM layer, and the state that stands for all it has read."""

import math
from typing import Any

import numpy as np

from minilm import functional as F
from minilm.nn.layers import Dropout
from minilm.nn.module import Module, parameter
from minilm.tensor import Array, Tensor, concatenate, needs_grad

State = tuple[Tensor, Tensor]  # h and c, (L, B, H) each


class LSTM(Module):
    """Layer k reads what layer k-1 wrote: i, f, o = σ(a), g = tanh(a); c = f c + i g; h = o tanh c.

    Weights bear torch's names, `weight_ih_l0` (4H, C), `weight_hh_l0` (4H, H), `bias_ih_l0` and
    `bias_hh_l0` (4H), of which only the sum counts; the gates stand in the order i, f, g, o. They
    are drawn uniformly from ±1/√H; biases start at zero, that of the forget gate at `forget_bias`.
    `dropout` falls between the layers.

    Shapes: (B, T, input_size) -> (B, T, hidden_size), (L, B, hidden_size), (L, B, hidden_size)
    Source: Hochreiter & Schmidhuber 1997; Gers et al. 2000; Zaremba et al. 2014, arXiv 1409.2329
        (dropout); Jozefowicz et al. 2015, PMLR 37 (the forget gate's bias).
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        dropout: float = 0.0,
        *,
        rng: np.random.Generator,
        forget_bias: float = 1.0,
    ) -> None:
        if min(input_size, hidden_size, num_layers) < 1:
            raise ValueError(
                "LSTM: expected input_size, hidden_size and num_layers >= 1, got "
                f"{input_size}, {hidden_size}, {num_layers}; give each layer something to keep"
            )
        self.hidden_size, self.num_layers = hidden_size, num_layers
        self.dropout = Dropout(dropout)
        bound = 1 / math.sqrt(hidden_size)
        for k in range(num_layers):
            for name, width in (("ih", input_size if k == 0 else hidden_size), ("hh", hidden_size)):
                weight = rng.uniform(-bound, bound, (4 * hidden_size, width))
                setattr(self, f"weight_{name}_l{k}", parameter(weight.astype(np.float32)))
            for name, value in (("ih", forget_bias), ("hh", 0.0)):
                start = np.zeros(4 * hidden_size, np.float32)
                start[hidden_size : 2 * hidden_size] = value
                setattr(self, f"bias_{name}_l{k}", parameter(start))

    def forward(
        self, x: Tensor, state: State | None = None, rng: np.random.Generator | None = None
    ) -> tuple[Tensor, State]:
        """What the last layer wrote, and the state (h, c) of all layers after the last step.

        Without a `state` to begin with, it is zeros.

        Raises: ValueError — a state of another shape.
        """
        h0, c0 = self._begin(x, state)
        ends = []
        for k in range(self.num_layers):
            if k:
                x = self.dropout(x, rng)
            y = F.lstm(x, h0[k], c0[k], *self._weights(k))
            x = y[0]
            ends.append(y[:, :, -1:] if x.shape[1] else concatenate([h0[k], c0[k]]))
        shape = (2, 1, *h0.shape[1:])
        last = concatenate([end.reshape(shape) for end in ends], axis=1)
        return x, (last[0], last[1])

    def _weights(self, k: int) -> tuple[Tensor, Tensor, Tensor]:
        """weight_ih, weight_hh and the sum of the biases of layer k."""
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        weight_ih, weight_hh, bias_ih, bias_hh = (getattr(self, f"{n}_l{k}") for n in names)
        return weight_ih, weight_hh, bias_ih + bias_hh

    def _begin(self, x: Tensor, state: State | None) -> State:
        shape = (self.num_layers, x.shape[0], self.hidden_size)
        if state is None:
            zeros = Tensor(np.zeros(shape, x.dtype))
            return zeros, zeros
        h0, c0 = state
        if h0.shape != shape or c0.shape != shape:
            raise ValueError(
                f"LSTM: expected a state (h, c) of shape {shape} each, got {h0.shape} and "
                f"{c0.shape}; it has a row for each layer and each row of x"
            )
        return h0, c0


class RecurrentState:
    """The place of a cache: what all layers of an LSTM keep of the `length` tokens it has read.

    Shapes: hidden, cell (L, B, H)
    """

    def __init__(
        self, num_layers: int, batch: int, hidden_size: int, dtype: Any = np.float32
    ) -> None:
        self.hidden = np.zeros((num_layers, batch, hidden_size), dtype)
        self.cell = np.zeros_like(self.hidden)
        self.length = 0

    def read(self, layer: LSTM, x: Tensor) -> Tensor:
        """What the layer writes as it reads x (B, T, C) on from here.

        Raises: ValueError — gradients are recorded.
        """
        y, (h, c) = layer(x, (Tensor(self.hidden), Tensor(self.cell)))
        if needs_grad(y):
            raise ValueError(
                "RecurrentState: expected no gradients, got some recorded; decode inside "
                "`with no_grad():`, or pass the state to the layer itself"
            )
        self.hidden, self.cell = h.data, c.data
        self.length += x.shape[1]
        return y

    def reorder(self, rows: Array, start: int = 0) -> None:
        """Row i becomes what row rows[i] was; there may be more rows, or fewer, than before.

        A state is about its whole text: `start`, before which the rows are equal, saves nothing.
        """
        self.hidden, self.cell = self.hidden[:, rows], self.cell[:, rows]
