"""The formulas of a language model, fused: one pass forward, one hand-derived gradient.

Each function has a twin of the same name in `reference.py`, composed from primitives as the paper
prints it; the tests hold the two together, values and gradients. Read the twin for the formula,
this file for how it is computed quickly. What `vjp` needs is worked out in the forward pass, and
only where a gradient will be asked for.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from minilm import kernels
from minilm.attention import LOG2_E, attention
from minilm.recurrent import lstm
from minilm.tensor import Array, Tensor, from_op, needs_grad

__all__ = [
    "attention",
    "cross_entropy",
    "dropout",
    "embedding",
    "gelu",
    "layer_norm",
    "linear",
    "log_softmax",
    "lstm",
    "relu",
    "rms_norm",
    "rotary",
    "silu",
    "softmax",
    "swiglu",
]
IGNORE_INDEX = -100  # a label that counts for nothing


def softmax(x: Tensor, axis: int = -1) -> Tensor:
    """yᵢ = exp(xᵢ) / Σⱼ exp(xⱼ) along `axis`.

    Shapes: (B, V) -> (B, V)
    Gradient: dx = y (dy - Σ dy y); see docs/02-layers.md.
    """
    y = x.data - x.data.max(axis, keepdims=True)  # the shift cancels; without it exp overflows
    np.exp(y, out=y)
    y /= y.sum(axis, keepdims=True)

    def vjp(dy: Array) -> Sequence[Array]:
        dx = dy * y
        dx -= y * dx.sum(axis, keepdims=True)
        return (dx,)

    return from_op(y, (x,), vjp)


def log_softmax(x: Tensor, axis: int = -1) -> Tensor:
    """yᵢ = xᵢ - ln Σⱼ exp(xⱼ) along `axis`.

    Shapes: (B, V) -> (B, V)
    Gradient: dx = dy - exp(y) Σ dy; see docs/02-layers.md.
    """
    y = x.data - x.data.max(axis, keepdims=True)
    y -= np.log(np.exp(y).sum(axis, keepdims=True))

    def vjp(dy: Array) -> Sequence[Array]:
        return (dy - np.exp(y) * dy.sum(axis, keepdims=True),)

    return from_op(y, (x,), vjp)


def cross_entropy(
    logits: Tensor,
    labels: Array,
    ignore_index: int = IGNORE_INDEX,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
) -> Tensor:
    """L = -Σᵥ qᵥ ln pᵥ,  p = softmax(logits),  q = (1-ε) onehot(label) + ε/V.

    Over the positions whose label is not `ignore_index`: their mean (zero where there are none),
    their sum, or, with reduction "none", one number a position (zero at ignored ones).

    Shapes: (B, T, V), (B, T)i -> ()
    Gradient: dlogits = (p - q) dL; see docs/02-layers.md.
    Raises: ValueError — shapes that do not belong together, an unknown reduction;
        IndexError — a label outside 0..V-1.
    Source: label smoothing from Szegedy et al. 2015, arXiv 1512.00567, section 7.
    """
    labels, shape = np.asarray(labels), logits.shape
    z, kept = _check_labels(logits, labels, ignore_index, reduction)
    rows = np.arange(len(z))
    targets = np.where(kept, labels.reshape(-1), 0)
    epsilon, vocab_size = float(label_smoothing), z.shape[-1]

    shift = z.max(-1, initial=-np.inf) if z.size else np.zeros(len(z), z.dtype)
    p = z - shift[:, None]
    log_q = p[rows, targets]  # the target's logit, shifted
    mean_logit = p.mean(-1) if epsilon else 0.0
    p *= LOG2_E
    np.exp2(p, out=p)
    total = p @ kernels.filled(vocab_size, 1.0, p.dtype)
    losses = np.log(total) - (1 - epsilon) * log_q - epsilon * mean_logit
    losses = np.where(kept, losses, 0)
    count = max(1, int(np.count_nonzero(kept))) if reduction == "mean" else 1

    def vjp(dy: Array) -> Sequence[Array]:
        scale = (kept * (dy.reshape(-1) / count)).astype(p.dtype)
        dz = p * (scale / total)[:, None]
        dz[rows, targets] -= (1 - epsilon) * scale
        if epsilon:
            dz -= (epsilon / vocab_size) * scale[:, None]
        return (dz.reshape(shape),)

    if reduction == "none":
        return from_op(losses.reshape(labels.shape), (logits,), vjp)
    return from_op(losses.sum() / count, (logits,), vjp)


def _check_labels(
    logits: Tensor, labels: Array, ignore_index: int, reduction: str
) -> tuple[Array, Array]:
    """Logits as (N, V), and which of the N labels count."""
    if labels.dtype.kind not in "iu" or labels.shape != logits.shape[:-1]:
        raise ValueError(
            f"cross_entropy: expected integer labels of shape {logits.shape[:-1]} for logits of "
            f"shape {logits.shape}, got {labels.dtype} of shape {labels.shape}; "
            "give one class index per position"
        )
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(
            f"cross_entropy: expected reduction 'mean', 'sum' or 'none', got {reduction!r}; "
            "a model's loss is the mean"
        )
    vocab_size = logits.shape[-1]
    kept = labels.reshape(-1) != ignore_index
    used = labels.reshape(-1)[kept]
    if used.size and not (0 <= used.min() and used.max() < vocab_size):
        raise IndexError(
            f"cross_entropy: expected labels in 0..{vocab_size - 1} or {ignore_index}, got "
            f"{used.min()}..{used.max()}; check the vocabulary size and the padding label"
        )
    return logits.data.reshape(-1, vocab_size), kept


def relu(x: Tensor) -> Tensor:
    """y = max(x, 0).

    Shapes: (B, C) -> (B, C)
    Gradient: dx = dy where x > 0, else 0.
    """
    y = np.maximum(x.data, 0)
    return from_op(y, (x,), lambda dy: (dy * (y > 0),))


def _sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x)) = (1 + tanh(x/2)) / 2, which cannot overflow."""
    y = np.asarray(x * 0.5)
    np.tanh(y, out=y)
    y += 1
    y *= 0.5
    return y


def silu(x: Tensor) -> Tensor:
    """y = x σ(x),  σ(x) = 1 / (1 + exp(-x)).

    Shapes: (B, C) -> (B, C)
    Gradient: dx = (σ + y (1 - σ)) dy.
    Source: Elfwing et al. 2017, arXiv 1702.03118.
    """
    gate = _sigmoid(x.data)
    y = x.data * gate
    return from_op(y, (x,), lambda dy: (dy * (gate + y * (1 - gate)),))


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """y = silu(gate) up.

    Shapes: (B, F), (B, F) -> (B, F)
    Gradient: dup = silu(gate) dy,  dgate = silu'(gate) up dy.
    Raises: ValueError — gate and up have different shapes.
    Source: Shazeer 2020, arXiv 2002.05202, eq. 5.
    """
    if gate.shape != up.shape:
        raise ValueError(
            f"swiglu: expected gate and up of one shape, got {gate.shape} and {up.shape}; "
            "give both projections the same width"
        )
    y, opened, slope = (np.empty_like(gate.data) for _ in range(3))
    for rows in kernels.row_blocks(gate.data):
        g, u = gate.data[rows], up.data[rows]
        s = _sigmoid(g)
        np.multiply(g, s, out=opened[rows])
        np.multiply(opened[rows], u, out=y[rows])
        np.subtract(1, s, out=slope[rows])  # silu' = σ + silu (1 - σ)
        slope[rows] *= opened[rows]
        slope[rows] += s
        slope[rows] *= u
    return from_op(y, (gate, up), lambda dy: (dy * slope, dy * opened))


def gelu(x: Tensor, approximate: str = "none") -> Tensor:
    """y = x Φ(x),  Φ(x) = (1 + erf(x/√2)) / 2, the standard normal distribution function.

    With approximate="tanh" (GPT-2's): Φ(x) ≈ (1 + tanh(√(2/π) (x + 0.044715 x³))) / 2.

    Shapes: (B, C) -> (B, C)
    Gradient: dx = (Φ + x Φ') dy, and Φ + x Φ' is worked out on the way forward.
    Raises: ValueError — `approximate` is neither "none" nor "tanh".
    Source: Hendrycks & Gimpel 2016, arXiv 1606.08415, section 2.
    """
    if approximate not in ("none", "tanh"):
        raise ValueError(
            f"gelu: expected approximate 'none' or 'tanh', got {approximate!r}; BERT takes the "
            "former, GPT-2 the latter"
        )
    phi_and_slope = _phi_tanh if approximate == "tanh" else _phi_erf
    recorded = needs_grad(x)
    flat = np.ascontiguousarray(x.data).reshape(-1)
    y = np.empty_like(flat)
    derivative = np.empty_like(flat) if recorded else flat
    for block in kernels.row_blocks(flat):
        phi, slope = phi_and_slope(flat[block], recorded)
        np.multiply(flat[block], phi, out=y[block])
        if recorded:
            slope *= flat[block]
            np.add(slope, phi, out=derivative[block])
    shape = x.shape
    return from_op(y.reshape(shape), (x,), lambda dy: (dy * derivative.reshape(shape),))


def _phi_tanh(x: Array, with_slope: bool) -> tuple[Array, Any]:
    """Φ ≈ (1 + tanh u) / 2 and Φ' ≈ (1 - tanh² u) u' / 2 = 2 Φ (1 - Φ) u'."""
    c = math.sqrt(2 / math.pi)
    u = x * x
    slope = u * (2 * 3 * c * 0.044715) if with_slope else None
    u *= c * 0.044715
    u += c
    u *= x
    phi = np.tanh(u, out=u)
    phi += 1
    phi *= 0.5
    if slope is not None:
        slope += 2 * c  # 2 u'
        slope *= phi
        slope *= 1 - phi
    return phi, slope


def _phi_erf(x: Array, with_slope: bool) -> tuple[Array, Any]:
    """Φ, and Φ' = exp(-x²/2) / √(2π)."""
    phi = kernels.erf(x * math.sqrt(0.5))
    phi += 1
    phi *= 0.5
    if not with_slope:
        return phi, None
    slope = x * x
    slope *= -0.5 * LOG2_E  # 2^(x log₂ e) = eˣ, and quicker
    np.exp2(slope, out=slope)
    slope *= 1 / math.sqrt(2 * math.pi)
    return phi, slope


def layer_norm(x: Tensor, gamma: Tensor, beta: Tensor, eps: float = 1e-5) -> Tensor:
    """y = γ x̂ + β,  x̂ = (x - mean) / √(variance + ε), over the last axis.

    Shapes: (B, T, C), (C), (C) -> (B, T, C)
    Gradient: dx = (g - mean(g) - x̂ mean(g x̂)) / √(variance + ε) with g = γ dy;
        dγ = Σ dy x̂, dβ = Σ dy; derived in docs/02-layers.md.
    Source: Ba et al. 2016, arXiv 1607.06450, eq. 4.
    """
    shape, width = x.shape, x.shape[-1]
    flat = x.data.reshape(-1, width)
    mean_of = kernels.filled(width, 1 / width, flat.dtype)  # times this, a row gives its mean
    y = np.empty_like(flat)
    x_hat = np.empty_like(flat) if needs_grad(x, gamma, beta) else y
    inverse = np.empty((len(flat), 1), flat.dtype)
    for rows in kernels.row_blocks(flat):
        centred = np.subtract(flat[rows], (flat[rows] @ mean_of)[:, None], out=x_hat[rows])
        variance = np.vecdot(centred, centred) / width
        inverse[rows, 0] = 1 / np.sqrt(variance + eps)
        centred *= inverse[rows]
        np.multiply(centred, gamma.data, out=y[rows])
        y[rows] += beta.data

    def vjp(dy: Array) -> Sequence[Array]:
        dy = dy.reshape(-1, width)
        dx = np.empty_like(x_hat)
        dgamma = np.zeros_like(gamma.data)
        for rows in kernels.row_blocks(x_hat):
            g = np.multiply(dy[rows], gamma.data, out=dx[rows])
            projection = x_hat[rows] * (np.vecdot(g, x_hat[rows]) / width)[:, None]
            g -= (g @ mean_of)[:, None]
            g -= projection
            g *= inverse[rows]
            np.multiply(dy[rows], x_hat[rows], out=projection)
            dgamma += _column_sums(projection)
        return dx.reshape(shape), dgamma, _column_sums(dy)

    return from_op(y.reshape(x.shape), (x, gamma, beta), vjp)


def rms_norm(x: Tensor, gamma: Tensor, eps: float = 1e-6) -> Tensor:
    """y = γ x̂,  x̂ = x / √(mean(x²) + ε), over the last axis.

    Shapes: (B, T, C), (C) -> (B, T, C)
    Gradient: dx = (g - x̂ mean(g x̂)) / √(mean(x²) + ε) with g = γ dy;  dγ = Σ dy x̂.
    Source: Zhang & Sennrich 2019, arXiv 1910.07467, eq. 4.
    """
    data, shape, width = x.data, x.shape, x.shape[-1]
    if data.nbytes <= kernels.BLOCK_BYTES and not needs_grad(x, gamma):  # as when decoding
        return Tensor(data * _inverse_rms(data, eps)[..., None] * gamma.data)
    flat = data.reshape(-1, width)
    y = np.empty_like(flat)
    x_hat = np.empty_like(flat) if needs_grad(x, gamma) else y
    inverse = np.empty((len(flat), 1), flat.dtype)
    for rows in kernels.row_blocks(flat):
        inverse[rows, 0] = _inverse_rms(flat[rows], eps)
        np.multiply(flat[rows], inverse[rows], out=x_hat[rows])
        np.multiply(x_hat[rows], gamma.data, out=y[rows])

    def vjp(dy: Array) -> Sequence[Array]:
        dy = dy.reshape(-1, width)
        dx = np.empty_like(x_hat)
        dgamma = np.zeros_like(gamma.data)
        for rows in kernels.row_blocks(x_hat):
            g = np.multiply(dy[rows], gamma.data, out=dx[rows])
            projection = x_hat[rows] * (np.vecdot(g, x_hat[rows]) / width)[:, None]
            g -= projection
            g *= inverse[rows]
            np.multiply(dy[rows], x_hat[rows], out=projection)
            dgamma += _column_sums(projection)
        return dx.reshape(shape), dgamma

    return from_op(y.reshape(x.shape), (x, gamma), vjp)


def _inverse_rms(x: Array, eps: float) -> Array:
    """1 / √(mean(x²) + ε) over the last axis."""
    return 1 / np.sqrt(np.vecdot(x, x) / x.shape[-1] + eps)


def _column_sums(x: Array) -> Array:
    """Σ over rows, see `kernels.filled`."""
    return kernels.filled(len(x), 1.0, x.dtype) @ x


def dropout(x: Tensor, p: float, rng: np.random.Generator) -> Tensor:
    """y = x m / (1-p), each m being 0 with probability p, else 1; p = 0 gives x itself.

    The probability is p to the nearest 1/65536, see `kernels.random_mask`.

    Shapes: (B, C) -> (B, C)
    Gradient: dx = dy m / (1-p).
    Raises: ValueError — p outside [0, 1).
    Source: Srivastava et al. 2014, JMLR 15; scaled in training, not in use ("inverted").
    """
    if not 0 <= p < 1:
        raise ValueError(f"dropout: expected 0 <= p < 1, got {p}; p is the share that is dropped")
    if p == 0:
        return x
    mask = kernels.random_mask(x.shape, p, rng) * x.dtype.type(1 / (1 - p))
    return from_op(x.data * mask, (x,), lambda dy: (dy * mask,))


def embedding(ids: Array, weight: Tensor) -> Tensor:
    """y = weight[ids]: one row a token.

    Shapes: (B, T)i, (V, C) -> (B, T, C)
    Gradient: dweight[v] = Σ dy over the places where id v stands.
    Raises: IndexError — an id outside 0..V-1.
    """
    ids = np.asarray(ids)
    vocab_size, width = weight.shape
    if ids.dtype.kind not in "iu":
        raise TypeError(f"embedding: expected integer ids, got {ids.dtype}; tokenize the text")
    if ids.size and not (0 <= ids.min() and ids.max() < vocab_size):
        raise IndexError(
            f"embedding: expected ids in 0..{vocab_size - 1}, got {ids.min()}..{ids.max()}; "
            "tokenizer and model must agree on the vocabulary size"
        )

    def vjp(dy: Array) -> Sequence[Array]:
        dweight = np.zeros_like(weight.data)
        if ids.size:  # bring equal ids together, then add up each run of them
            order = np.argsort(ids, axis=None, kind="stable")
            found, starts = np.unique(ids.reshape(-1)[order], return_index=True)
            dweight[found] = np.add.reduceat(dy.reshape(-1, width)[order], starts)
        return (dweight,)

    return from_op(weight.data.take(ids, axis=0), (weight,), vjp)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """y = x Wᵀ + b.

    Shapes: (B, T, C), (F, C), (F) -> (B, T, F)
    Gradient: dx = dy W,  dW = dyᵀ x,  db = Σ dy.
    Raises: ValueError — x is not as wide as W's second axis.
    """
    out_features, in_features = weight.shape
    if x.shape[-1] != in_features:
        raise ValueError(
            f"linear: expected x (..., {in_features}) for a weight of shape {weight.shape}, "
            f"got {x.shape}; the layer's in_features must equal x's last axis"
        )
    flat = x.data.reshape(-1, in_features)
    y = kernels.times_transposed(flat, weight.data)
    if bias is not None:
        y += bias.data
    shape, needs_dx = x.shape, x.requires_grad
    y = y.reshape(*shape[:-1], out_features)
    if not needs_grad(x, weight, bias):
        return Tensor(y)

    def vjp(dy: Array) -> Sequence[Array | None]:
        dy = dy.reshape(-1, out_features)
        dx = (dy @ weight.data).reshape(shape) if needs_dx else None
        dweight = dy.T @ flat if weight.requires_grad else None
        if bias is None:
            return dx, dweight
        return dx, dweight, _column_sums(dy)

    return from_op(y, (x, weight) if bias is None else (x, weight, bias), vjp)


def rotary(x: Tensor, cos: Array, sin: Array) -> Tensor:
    """Turn each pair (xᵢ, xᵢ₊D/2) by the angle of its position: y = x R(θ).

    Shapes: (B, H, T, 2D), (T, D)c, (T, D)c -> (B, H, T, 2D)
    Gradient: dx = dy R(-θ): a rotation's inverse is its transpose.
    Source: Su et al. 2021, arXiv 2104.09864, eq. 34. Differs: pairs are the two halves, as in
        Llama, where the paper pairs neighbours; the two are one permutation of features apart.
    """
    half = x.shape[-1] // 2

    def turn(x: Array, sin: Array) -> Array:
        first, second = x[..., :half], x[..., half:]
        y = np.empty_like(x)
        np.subtract(first * cos, second * sin, out=y[..., :half])
        np.add(second * cos, first * sin, out=y[..., half:])
        return y

    return from_op(turn(x.data, sin), (x,), lambda dy: (turn(dy, -sin),))
