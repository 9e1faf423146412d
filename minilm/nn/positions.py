"""How a model learns where a token stands: sinusoids, rotations, or a bias for each distance.

Or simply by an Embedding.
"""

import math

import numpy as np

from minilm import functional as F
from minilm.nn.module import Module, parameter
from minilm.tensor import Array, Tensor

POSITIONS = 4096  # for at most so many a rotary table is made at once, for more when they come


def sinusoidal_positions(max_len: int, d_model: int) -> Array:
    """PE(t, 2i) = sin(t / 10000^(2i/C)),  PE(t, 2i+1) = cos(t / 10000^(2i/C)).

    Shapes: -> (max_len, d_model)
    Source: Vaswani et al. 2017, arXiv 1706.03762, section 3.5.

    >>> sinusoidal_positions(2, 4).round(3)
    array([[0.   , 1.   , 0.   , 1.   ],
           [0.841, 0.54 , 0.01 , 1.   ]], dtype=float32)
    """
    if d_model % 2:
        raise ValueError(
            f"sinusoidal_positions: expected an even d_model, got {d_model}; each angle has a sine "
            "and a cosine"
        )
    angles = np.arange(max_len)[:, None] / 10000 ** (np.arange(0, d_model, 2) / d_model)
    table = np.empty((max_len, d_model), np.float32)
    table[:, 0::2], table[:, 1::2] = np.sin(angles), np.cos(angles)
    return table


class Rotary:
    """Turns queries and keys by angles that grow with the position: q·k sees only distances.

    Pair i of head width D turns by t · base^(-2i/D) at position t. Holds no parameters, but tables
    for the positions it was asked for.

    Source: Su et al. 2021, arXiv 2104.09864, eq. 15 and 34.
    """

    def __init__(self, head_width: int, max_len: int, base: float = 10000.0) -> None:
        if head_width % 2:
            raise ValueError(
                f"Rotary: expected an even head width, got {head_width}; "
                "choose d_model / n_heads even"
            )
        self.max_len = max_len
        self.frequencies = base ** (-np.arange(0, head_width, 2) / head_width)
        self._fill(min(max_len, POSITIONS))

    def __call__(self, x: Tensor, start: int = 0) -> Tensor:
        """x (B, H, T, D), whose first position is `start`, turned.

        Raises: ValueError — a position beyond max_len.
        """
        stop = start + x.shape[2]
        if stop > self.max_len:
            raise ValueError(
                f"Rotary: expected at most max_len = {self.max_len} positions, got {stop}; "
                "make it with a larger max_len"
            )
        if stop > len(self.cos):
            self._fill(min(self.max_len, 2 * stop))
        cos, sin = (table[start:stop].astype(x.dtype) for table in (self.cos, self.sin))
        return F.rotary(x, cos, sin)

    def _fill(self, length: int) -> None:
        """Tables for so many positions. subtle: `cos` last, by whose length threads go."""
        angles = np.arange(length)[:, None] * self.frequencies
        self.sin = np.sin(angles)
        self.cos = np.cos(angles)  # float64, cast at use


def relative_position_bucket(
    relative: Array, bidirectional: bool = True, n_buckets: int = 32, max_distance: int = 128
) -> Array:
    """The bucket of a key that stands `relative` places after its query, 0..n_buckets-1.

    One half of the buckets takes one distance each, n = 0, 1 ... E-1; in the other half they widen
    with the distance, E + ⌊(N-E) ln(n/E) / ln(max_distance/E)⌋, and the last takes all that is
    further. If bidirectional, keys after the query have N = n_buckets/2 buckets of their own;
    else N = n_buckets and they count as distance 0.

    Raises: ValueError — too few buckets, or a max_distance that the exact half already covers.
    Source: Raffel et al. 2020, arXiv 1910.10683, section 2.1, and its released code.

    >>> relative_position_bucket(np.array([0, -1, -7, -8, -12, -128, 1, 128]))
    array([ 0,  1,  7,  8,  9, 15, 17, 31])
    >>> relative_position_bucket(np.array([5, 0, -15, -16, -19, -200]), bidirectional=False)
    array([ 0,  0, 15, 16, 17, 31])
    """
    relative = np.asarray(relative)
    count = n_buckets // 2 if bidirectional else n_buckets
    exact = count // 2
    if not 0 < exact < max_distance:
        raise ValueError(
            f"relative_position_bucket: expected n_buckets >= {4 if bidirectional else 2} and "
            f"max_distance above the {exact} distances with a bucket each, got n_buckets "
            f"{n_buckets}, max_distance {max_distance}; T5 has 32 and 128"
        )
    distance = np.abs(relative) if bidirectional else np.maximum(-relative, 0)
    # subtle: in float32, as the weights that others trained were
    octaves = np.log(np.maximum(distance, exact).astype(np.float32) / np.float32(exact))
    octaves = octaves / np.float32(math.log(max_distance / exact)) * np.float32(count - exact)
    wide = np.minimum(exact + octaves.astype(np.int64), count - 1)
    after = (relative > 0) * count if bidirectional else 0
    return np.where(distance < exact, distance, wide) + after


class RelativePositionBias(Module):
    """bias[h, t, s] = weight[bucket(s - t), h], to be added to the scores of attention head h.

    Keys further away than max_distance share a bucket, so that it serves sequences of any length.

    Source: Raffel et al. 2020, arXiv 1910.10683, section 2.1; the idea from Shaw et al. 2018,
        arXiv 1803.02155.
    """

    def __init__(
        self,
        n_heads: int,
        n_buckets: int = 32,
        max_distance: int = 128,
        *,
        rng: np.random.Generator,
        bidirectional: bool = True,
        std: float = 1.0,
    ) -> None:
        weight = rng.normal(0, std, (n_buckets, n_heads))
        self.weight = parameter(weight.astype(np.float32, copy=False))
        self.max_distance = max_distance
        places = np.arange(-max_distance, max_distance + 1)
        self.buckets = relative_position_bucket(places, bidirectional, n_buckets, max_distance)

    def forward(self, length: int, key_length: int) -> Tensor:
        """The last of the `length` queries stands beside the last key.

        Shapes: -> (H, T, S)
        """
        queries = np.arange(key_length - length, key_length)
        places = np.arange(self.max_distance, self.max_distance + key_length) - queries[:, None]
        buckets = self.buckets.take(places, mode="clip")
        return F.embedding(buckets, self.weight).transpose(2, 0, 1)
