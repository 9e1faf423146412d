"""The layers that hold the weights of the functions in `functional.py`."""

import math
from collections.abc import Callable
from functools import partial

import numpy as np

from minilm import functional as F
from minilm.nn.module import Module, parameter
from minilm.tensor import Array, Tensor


class Linear(Module):
    """y = x Wᵀ + b.

    Weights are drawn from a normal distribution of deviation `std`, or, without one, uniformly
    from ±1/√in_features; biases start at zero.

    Shapes: (B, T, in_features) -> (B, T, out_features)
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        rng: np.random.Generator,
        std: float | None = None,
    ) -> None:
        shape, bound = (out_features, in_features), 1 / math.sqrt(max(1, in_features))
        weight = rng.uniform(-bound, bound, shape) if std is None else rng.normal(0, std, shape)
        self.weight = parameter(weight.astype(np.float32, copy=False))
        self.bias = parameter(np.zeros(out_features, np.float32)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)


class Embedding(Module):
    """y = weight[ids], weights from a normal distribution of deviation `std`.

    Shapes: (B, T)i -> (B, T, embedding_dim)
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        *,
        rng: np.random.Generator,
        std: float = 1.0,
    ) -> None:
        weight = rng.normal(0, std, (num_embeddings, embedding_dim))
        self.weight = parameter(weight.astype(np.float32, copy=False))

    def forward(self, ids: Array) -> Tensor:
        return F.embedding(ids, self.weight)


class LayerNorm(Module):
    """y = γ (x - mean) / √(variance + ε) + β over the last axis.

    Shapes: (B, T, normalized_shape) -> (B, T, normalized_shape)
    """

    def __init__(self, normalized_shape: int, eps: float = 1e-5) -> None:
        self.weight = parameter(np.ones(normalized_shape, np.float32))
        self.bias = parameter(np.zeros(normalized_shape, np.float32))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, self.weight, self.bias, self.eps)


class RMSNorm(Module):
    """y = γ x / √(mean(x²) + ε) over the last axis.

    Shapes: (B, T, normalized_shape) -> (B, T, normalized_shape)
    """

    def __init__(self, normalized_shape: int, eps: float = 1e-6) -> None:
        self.weight = parameter(np.ones(normalized_shape, np.float32))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.weight, self.eps)


class Dropout(Module):
    """In training each number is zero with probability p, the others grow by 1/(1-p)."""

    def __init__(self, p: float) -> None:
        if not 0 <= p < 1:
            raise ValueError(f"Dropout: expected 0 <= p < 1, got {p}; it is the share dropped")
        self.p = p

    def forward(self, x: Tensor, rng: np.random.Generator | None) -> Tensor:
        """Raises: ValueError — dropout is on and there is no rng to draw from."""
        if not self.training or self.p == 0:
            return x
        return F.dropout(x, self.p, require_rng(rng))


def require_rng(rng: np.random.Generator | None) -> np.random.Generator:
    """The rng, or the error that says where to get one."""
    if rng is None:
        raise ValueError(
            "dropout: expected an rng in training mode, got None; "
            "pass rng=np.random.default_rng(seed), or call model.eval()"
        )
    return rng


gelu_tanh = partial(F.gelu, approximate="tanh")


class FeedForward(Module):
    """y = f(x W₁ᵀ + b₁) W₂ᵀ + b₂.

    `activation` f is GPT-2's form of GELU unless given: F.gelu for BERT's, F.relu for the paper's.

    Shapes: (B, T, d_model) -> (B, T, d_model)
    Source: Vaswani et al. 2017, eq. 2. Differs: GELU for ReLU, as in Radford et al. 2018.
    """

    def __init__(
        self,
        d_model: int,
        d_ff: int,
        *,
        rng: np.random.Generator,
        std: float | None = None,
        out_std: float | None = None,
        activation: Callable[[Tensor], Tensor] = gelu_tanh,
    ) -> None:
        self.activation = activation
        self.up = Linear(d_model, d_ff, rng=rng, std=std)
        self.down = Linear(d_ff, d_model, rng=rng, std=out_std)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.activation(self.up(x)))


class SwiGLU(Module):
    """y = (silu(x Gᵀ) · x Uᵀ) Dᵀ: a feed-forward whose hidden units are gated, without biases.

    Shapes: (B, T, d_model) -> (B, T, d_model)
    Source: Shazeer 2020, arXiv 2002.05202, eq. 6.
    """

    def __init__(
        self,
        d_model: int,
        d_ff: int,
        *,
        rng: np.random.Generator,
        std: float | None = None,
        out_std: float | None = None,
    ) -> None:
        self.gate = Linear(d_model, d_ff, bias=False, rng=rng, std=std)
        self.up = Linear(d_model, d_ff, bias=False, rng=rng, std=std)
        self.down = Linear(d_ff, d_model, bias=False, rng=rng, std=out_std)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.swiglu(self.gate(x), self.up(x)))
