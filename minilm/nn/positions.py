"""How a model learns where a token stands: sinusoids and rotations (or simply an Embedding)."""

import numpy as np

from minilm import functional as F
from minilm.tensor import Array, Tensor


def sinusoidal_positions(max_len: int, d_model: int) -> Array:
    """PE(t, 2i) = sin(t / 10000^(2i/C)),  PE(t, 2i+1) = cos(t / 10000^(2i/C)).

    Shapes: -> (max_len, d_model)
    Source: Vaswani et al. 2017, arXiv 1706.03762, section 3.5.

    >>> sinusoidal_positions(2, 4).round(3)
    array([[0.   , 1.   , 0.   , 1.   ],
           [0.841, 0.54 , 0.01 , 1.   ]], dtype=float32)
    """
    if d_model % 2:
        raise ValueError(f"sinusoidal_positions: expected an even d_model, got {d_model}")
    angles = np.arange(max_len)[:, None] / 10000 ** (np.arange(0, d_model, 2) / d_model)
    table = np.empty((max_len, d_model), np.float32)
    table[:, 0::2], table[:, 1::2] = np.sin(angles), np.cos(angles)
    return table


class Rotary:
    """Turns queries and keys by angles that grow with the position: q·k sees only distances.

    Pair i of head width D turns by t · base^(-2i/D) at position t. Holds tables, no parameters.

    Source: Su et al. 2021, arXiv 2104.09864, eq. 15 and 34.
    """

    def __init__(self, head_width: int, max_len: int, base: float = 10000.0) -> None:
        if head_width % 2:
            raise ValueError(
                f"Rotary: expected an even head width, got {head_width}; "
                "choose d_model / n_heads even"
            )
        frequencies = base ** (-np.arange(0, head_width, 2) / head_width)
        angles = np.arange(max_len)[:, None] * frequencies
        self.cos, self.sin = np.cos(angles), np.sin(angles)  # float64, cast at use

    def __call__(self, x: Tensor, start: int = 0) -> Tensor:
        """x (B, H, T, D), whose first position is `start`, turned.

        Raises: ValueError — a position beyond max_len.
        """
        stop = start + x.shape[2]
        if stop > len(self.cos):
            raise ValueError(
                f"Rotary: expected at most max_len = {len(self.cos)} positions, got {stop}; "
                "make it with a larger max_len"
            )
        cos, sin = (table[start:stop].astype(x.dtype) for table in (self.cos, self.sin))
        return F.rotary(x, cos, sin)
