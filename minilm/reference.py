"""The formulas of a language model, composed from primitives as the papers print them.

This is the textbook: a few lines each, and the tape finds every gradient. `functional.py` has the
same names and signatures, fused, with gradients derived by hand, and the errors for bad input,
which is taken to be good here. The tests hold the two together, values and gradients.
"""

import math

import numpy as np

from minilm.kernels import random_mask
from minilm.tensor import Array, Tensor, concatenate, erf, exp, log, tanh, where

IGNORE_INDEX = -100  # a label that counts for nothing


def softmax(x: Tensor, axis: int = -1) -> Tensor:
    """yᵢ = exp(xᵢ) / Σⱼ exp(xⱼ) along `axis`."""
    e = exp(_below_zero(x, axis))
    return e / e.sum(axis, keepdims=True)


def log_softmax(x: Tensor, axis: int = -1) -> Tensor:
    """yᵢ = xᵢ - ln Σⱼ exp(xⱼ) along `axis`."""
    x = _below_zero(x, axis)
    return x - log(exp(x).sum(axis, keepdims=True))


def _below_zero(x: Tensor, axis: int) -> Tensor:
    """x minus its maximum: a constant that cancels in every softmax, and keeps exp finite."""
    return x - x.detach().max(axis, keepdims=True)


def cross_entropy(
    logits: Tensor,
    labels: Array,
    ignore_index: int = IGNORE_INDEX,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
) -> Tensor:
    """L = -Σᵥ qᵥ ln pᵥ,  p = softmax(logits),  q = (1-ε) onehot(label) + ε/V.

    Source: label smoothing from Szegedy et al. 2015, arXiv 1512.00567, section 7.
    """
    labels, vocab_size, epsilon = np.asarray(labels), logits.shape[-1], label_smoothing
    kept = labels != ignore_index
    one_hot = np.eye(vocab_size)[np.where(kept, labels, 0)]
    q = ((1 - epsilon) * one_hot + epsilon / vocab_size) * kept[..., None]
    losses = -(log_softmax(logits) * q.astype(logits.dtype)).sum(-1)
    if reduction == "none":
        return losses
    return losses.sum() / (max(1, np.count_nonzero(kept)) if reduction == "mean" else 1)


def relu(x: Tensor) -> Tensor:
    """y = max(x, 0)."""
    return where(x.data > 0, x, 0.0)  # `maximum` would give half a gradient at 0


def _sigmoid(x: Tensor) -> Tensor:
    """σ(x) = 1 / (1 + exp(-x)) = (1 + tanh(x/2)) / 2, which cannot overflow."""
    return (tanh(x / 2) + 1) / 2


def silu(x: Tensor) -> Tensor:
    """y = x σ(x).

    Source: Elfwing et al. 2017, arXiv 1702.03118.
    """
    return x * _sigmoid(x)


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """y = silu(gate) up.

    Source: Shazeer 2020, arXiv 2002.05202, eq. 6.
    """
    return silu(gate) * up


def gelu(x: Tensor, approximate: str = "none") -> Tensor:
    """y = x Φ(x),  Φ(x) = (1 + erf(x/√2)) / 2, or ≈ (1 + tanh(√(2/π) (x + 0.044715 x³))) / 2.

    Source: Hendrycks & Gimpel 2016, arXiv 1606.08415, section 2.
    """
    if approximate == "tanh":
        return x * (tanh((x + x**3 * 0.044715) * math.sqrt(2 / math.pi)) + 1) / 2
    return x * (erf(x / math.sqrt(2)) + 1) / 2


def layer_norm(x: Tensor, gamma: Tensor, beta: Tensor, eps: float = 1e-5) -> Tensor:
    """y = γ (x - mean) / √(variance + ε) + β over the last axis.

    Source: Ba et al. 2016, arXiv 1607.06450, eq. 4.
    """
    centred = x - x.mean(-1, keepdims=True)
    variance = (centred**2).mean(-1, keepdims=True)
    return gamma * (centred / (variance + eps) ** 0.5) + beta


def rms_norm(x: Tensor, gamma: Tensor, eps: float = 1e-6) -> Tensor:
    """y = γ x / √(mean(x²) + ε) over the last axis.

    Source: Zhang & Sennrich 2019, arXiv 1910.07467, eq. 4.
    """
    return gamma * (x / ((x**2).mean(-1, keepdims=True) + eps) ** 0.5)


def dropout(x: Tensor, p: float, rng: np.random.Generator) -> Tensor:
    """y = x m / (1-p), each m being 0 with probability p, else 1; p = 0 draws nothing.

    Source: Srivastava et al. 2014, JMLR 15.
    """
    if p == 0:
        return x
    m = random_mask(x.shape, p, rng)
    return x * m / (1 - p)


_dropout = dropout  # `attention` has an argument of that name


def embedding(ids: Array, weight: Tensor) -> Tensor:
    """y = weight[ids]: one row a token."""
    return weight[np.asarray(ids)]


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """y = x Wᵀ + b."""
    y = x @ weight.T
    return y if bias is None else y + bias


def rotary(x: Tensor, cos: Array, sin: Array) -> Tensor:
    """Turn each pair (xᵢ, xᵢ₊D/2) by the angle of its position.

    Source: Su et al. 2021, arXiv 2104.09864, eq. 34, with the pairs laid out as two halves.
    """
    half = x.shape[-1] // 2
    first, second = x[..., :half], x[..., half:]
    return concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Array | None = None,
    bias: Tensor | None = None,
    causal: bool = False,
    scale: float | None = None,
    dropout: float = 0.0,
    rng: np.random.Generator | None = None,
) -> Tensor:
    """y = P v,  P = softmax(scale q kᵀ + bias) over the keys that may be attended to.

    subtle: dropout draws one number a weight, in the order of P. `functional.attention` draws
    them block by block, so the two drop the same weights where it needs one block only: at most
    64 queries, or causal=False.

    Source: Vaswani et al. 2017, arXiv 1706.03762, eq. 1; shared key heads from Ainslie et al.
        2023, arXiv 2305.13245.
    """
    heads, length, width = q.shape[1:]
    kv_heads, key_length = k.shape[1:3]
    head_of = np.arange(heads) * kv_heads // max(1, heads)  # the key head that serves each head
    k, v = k[:, head_of], v[:, head_of]

    allowed = np.ones((length, key_length), bool) if mask is None else mask
    if causal:  # the last query stands beside the last key
        query_position = np.arange(key_length - length, key_length)
        allowed = allowed & (np.arange(key_length) <= query_position[:, None])

    scores = q @ k.transpose(0, 1, 3, 2) * (1 / math.sqrt(width) if scale is None else scale)
    if bias is not None:
        scores = scores + bias
    weights = _masked_softmax(scores, allowed)
    if dropout and rng is not None:
        weights = _dropout(weights, dropout, rng)
    return weights @ v


def _masked_softmax(scores: Tensor, allowed: Array) -> Tensor:
    """softmax over the last axis where allowed, zero elsewhere; a row of zeros where nothing is."""
    scores = where(allowed, scores, -np.inf)
    lowest = np.finfo(scores.dtype).min  # stands in for the maximum of a row of -inf
    e = exp(scores - scores.data.max(-1, keepdims=True, initial=lowest))
    total = e.sum(-1, keepdims=True)
    return e / where(total.data > 0, total, 1.0)


def lstm(
    x: Tensor, h0: Tensor, c0: Tensor, weight_ih: Tensor, weight_hh: Tensor, bias: Tensor
) -> Tensor:
    """y = [h, c] of all steps: c[t] = f c[t-1] + i g,  h[t] = o tanh(c[t]).

    Source: Hochreiter & Schmidhuber 1997, Neural Computation 9(8); Gers et al. 2000, Neural
        Computation 12(10).
    """
    batch, width = h0.shape
    hidden, cells = [h0], [c0]
    for t in range(x.shape[1]):
        a = linear(x[:, t], weight_ih, bias) + linear(hidden[-1], weight_hh)
        i, f, g, o = (a[:, k * width : (k + 1) * width] for k in range(4))
        cells.append(_sigmoid(f) * cells[-1] + _sigmoid(i) * tanh(g))
        hidden.append(_sigmoid(o) * tanh(cells[-1]))
    one_step = (1, batch, 1, width)
    hidden, cells = ([s.reshape(one_step) for s in states] for states in (hidden, cells))
    return concatenate([concatenate(hidden, axis=2), concatenate(cells, axis=2)])[:, :, 1:]
