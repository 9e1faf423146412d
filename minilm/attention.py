"""Attention, fused: `functional.attention` is this function.

The formula stands in `reference.attention`. Three things make this one quick: it never divides
the (T, S) weights by their sums but the (T, D) result; causal attention goes through the queries
in blocks and leaves out the keys that none of a block may see; and e^x is worked out as 2^x.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from minilm import kernels
from minilm.tensor import Array, Tensor, from_op, needs_grad

LOG2_E = math.log2(math.e)
QUERY_BLOCK = 64  # causal attention takes this many queries at a time and skips the keys after them
MANY_KEYS = 512  # from here on twice as many: larger products are worth skipping fewer keys
SAFE_SCORE = 40.0  # 2^±40 times any sum of them is far from float32's limits


class _Block(NamedTuple):
    """What the gradient needs of one block of queries."""

    queries: slice
    keys: slice
    weights: Array  # (B, H/G, G, queries, keys) unnormalised attention weights, after dropout
    plain: Array  # the same before dropout
    inverse: Array  # (B, H/G, G, queries, 1) one over their sums


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

    `mask` is boolean, True = may attend, broadcastable to (B, H, T, S). With `causal`, query i
    also sees only the keys up to i + S - T: the last query stands beside the last key. `scale` is
    1/√D unless given. k and v may have fewer heads, each serving H / (their number) heads of q. A
    query that may attend to nothing gives zeros.

    Shapes: (B, H, T, D), (B, H, S, D), (B, H, S, D) -> (B, H, T, D)
    Gradient: dv = Pᵀ dy;  dP = dy vᵀ;  dscores = P (dP - Σ P dP), where Σ P dP = Σ dy y;
        dq = scale dscores k;  dk = scale dscoresᵀ q; derived in docs/03-attention.md.
    Raises: ValueError — shapes that do not belong together, a mask that is not boolean, dropout
        without an rng.
    Source: Vaswani et al. 2017, arXiv 1706.03762, eq. 1; shared key heads from Ainslie et al.
        2023, arXiv 2305.13245.
    """
    _check_attention(q, k, v, mask, bias, dropout, rng)
    batch, heads, length, width = q.shape
    kv_heads, key_length = k.shape[1:3]
    scale = 1 / math.sqrt(width) if scale is None else float(scale)
    in_order = causal and length > 1  # a single query is the last: it sees every key
    one_each = length == 1 or kv_heads == heads
    recorded = needs_grad(q, k, v, bias)
    if one_each and not in_order and not dropout and not recorded:
        return _unrecorded(q, k, v, mask, bias, scale)
    grouped = (batch, kv_heads, heads // max(1, kv_heads), length, width)
    # Scores are kept in units of log 2, since 2^x is quicker than e^x: the factor goes into q.
    q5 = (q.data * (scale * LOG2_E)).reshape(grouped)
    k5, v5 = k.data[:, :, None], v.data[:, :, None]  # one key head meets its group by broadcasting

    allowed = None if mask is None else _in_groups(mask, grouped)
    added = None if bias is None else _in_groups(bias.data * LOG2_E, grouped)
    y = _heads_last(grouped, q.dtype)
    blocks = []
    for queries, keys in _query_blocks(length, key_length, causal):
        block = _attend(y, q5, k5, v5, queries, keys, allowed, added, causal, dropout, rng)
        if recorded:
            blocks.append(block)
        del block  # its weights' place is the next one's
    shape, has_bias = q.shape, bias is not None

    def vjp(dy: Array) -> Sequence[Array | None]:
        dq, dk, dv, dscores = _gradients(dy.reshape(grouped), y, q5, k5, v5, blocks, has_bias)
        dq *= scale
        dk *= 1 / LOG2_E  # q5 carries scale * log2(e)
        gradients = (dq.reshape(shape), dk[:, :, 0], dv[:, :, 0])
        if not has_bias:
            return gradients
        return (*gradients, dscores.reshape(batch, heads, length, key_length))

    parents = (q, k, v) if bias is None else (q, k, v, bias)
    return from_op(y.reshape(shape), parents, vjp)


def _unrecorded(
    q: Tensor, k: Tensor, v: Tensor, mask: Array | None, bias: Tensor | None, scale: float
) -> Tensor:
    """The same with nothing kept for a gradient, every query seeing every key: as in decoding.

    Where heads share keys, each has one query, and a group's stand together: (B, H/G, G, D).
    """
    batch, kv_heads, _, width = k.shape
    group = q.shape[1] // max(1, kv_heads)

    def together(array: Array) -> Array:
        if group == 1:
            return array
        return _in_groups(array, (batch, kv_heads, group))[..., 0, :]

    scaled = q.data * (scale * LOG2_E)
    if group > 1:
        scaled = scaled.reshape(batch, kv_heads, group, width)
    scores = scaled @ k.data.swapaxes(-1, -2)
    if bias is not None:
        scores += together(bias.data * LOG2_E)
    weights, total = _exp2_rows(scores, None if mask is None else together(mask))
    y = weights @ v.data
    y *= 1 / total
    return Tensor(y.reshape(q.shape))


def _in_groups(array: Array, grouped: tuple[int, ...]) -> Array:
    """What broadcasts to (B, H, T, S), as something that broadcasts to (B, H/G, G, T, S)."""
    shape = (1,) * (4 - array.ndim) + array.shape
    heads = (1, 1) if shape[1] == 1 else grouped[1:3]
    return array.reshape(shape[0], *heads, *shape[2:])


def _block_of(array: Array, queries: slice, keys: slice) -> Array:
    """array[..., queries, keys], where an axis of size 1 stands for all."""
    everything = slice(None)
    rows, columns = array.shape[-2:]
    return array[..., everything if rows == 1 else queries, everything if columns == 1 else keys]


def attention_weights(
    q: Tensor,
    k: Tensor,
    mask: Array | None = None,
    bias: Tensor | None = None,
    causal: bool = False,
    scale: float | None = None,
) -> Array:
    """P of `attention`, as an array without a gradient, to look at.

    Shapes: (B, H, T, D), (B, H, S, D) -> (B, H, T, S)
    """
    _check_attention(q, k, k, mask, bias, 0.0, None)
    (heads, length, width), key_length = q.shape[1:], k.shape[2]
    scale = 1 / math.sqrt(width) if scale is None else float(scale)
    keys = np.repeat(k.data, heads // max(1, k.shape[1]), axis=1)
    scores = (q.data * (scale * LOG2_E)) @ keys.swapaxes(-1, -2)
    if bias is not None:
        scores += bias.data * LOG2_E
    allowed = np.broadcast_to(True if mask is None else mask, scores.shape)
    if causal:
        allowed = allowed & _causal_mask(length, key_length)
    weights, total = _exp2_rows(scores, allowed)
    return weights / total


def _query_blocks(length: int, key_length: int, causal: bool) -> Iterator[tuple[slice, slice]]:
    """Which queries are worked on together, and the keys that the last of them sees."""
    step = QUERY_BLOCK * (2 if key_length >= MANY_KEYS else 1) if causal else max(1, length)
    for start in range(0, length, step):
        stop = min(start + step, length)
        seen = max(0, key_length - length + stop) if causal else key_length
        yield slice(start, stop), slice(0, seen)


def _attend(
    y: Array,
    q5: Array,
    k5: Array,
    v5: Array,
    queries: slice,
    keys: slice,
    allowed: Array | None,
    added: Array | None,
    causal: bool,
    dropout: float,
    rng: np.random.Generator | None,
) -> _Block:
    """Work out y of one block of queries, in place; what its gradient will need."""
    if allowed is not None:
        allowed = _block_of(allowed, queries, keys)
    first = 0
    if causal and allowed is None:  # all see the keys before their block
        first = max(0, keys.stop - (queries.stop - queries.start))
        allowed = _causal_mask(queries.stop - queries.start, keys.stop - first)
    elif causal:
        allowed = allowed & _causal_mask(queries.stop - queries.start, keys.stop)
    scores = q5[..., queries, :] @ k5[..., keys, :].swapaxes(-1, -2)
    if added is not None:
        scores += _block_of(added, queries, keys)
    plain, total = _exp2_rows(scores, allowed, first)
    inverse = 1 / total
    weights = plain
    if dropout and rng is not None:
        kept = kernels.random_mask(plain.shape, dropout, rng)
        weights = plain * (kept * plain.dtype.type(1 / (1 - dropout)))
    out = np.matmul(weights, v5[..., keys, :], out=y[..., queries, :])
    out *= inverse
    return _Block(queries, keys, weights, plain, inverse)


def _gradients(
    dy: Array, y: Array, q5: Array, k5: Array, v5: Array, blocks: list[_Block], want_scores: bool
) -> tuple[Array, Array, Array, Any]:
    """dscores k, dscoresᵀ q5, dv, and dscores itself where a bias wants it."""
    dq = _heads_last(q5.shape, q5.dtype)
    dk, dv = (_heads_last(k5.shape, q5.dtype) for _ in range(2))
    if not blocks:
        dk[...], dv[...] = 0, 0
    everything = np.zeros((*q5.shape[:4], k5.shape[3]), q5.dtype) if want_scores else None
    for queries, keys, weights, plain, inverse in reversed(blocks):
        last = queries.stop == q5.shape[3]  # comes first, and sees every key
        dy_scaled = dy[..., queries, :] * inverse  # since P = weights inverse
        inner = np.vecdot(dy_scaled, y[..., queries, :])[..., None]  # Σ P dP inverse
        _put(dv[..., keys, :], _sum_group(weights.swapaxes(-1, -2) @ dy_scaled), add=not last)
        dscores = dy_scaled @ v5[..., keys, :].swapaxes(-1, -2)
        if weights is plain:
            dscores -= inner
            dscores *= plain
        else:  # dP passes only where dropout kept the weight
            dscores *= weights
            dscores -= plain * inner
        np.matmul(dscores, k5[..., keys, :], out=dq[..., queries, :])
        dk_part = _sum_group(dscores.swapaxes(-1, -2) @ q5[..., queries, :])
        _put(dk[..., keys, :], dk_part, add=not last)
        if everything is not None:
            everything[..., queries, keys] = dscores
    return dq, dk, dv, everything


def _heads_last(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """An empty (B, H/G, G, T, D) that lies in memory as (B, T, H, D): joining heads is free."""
    batch, kv_heads, group, length, width = shape
    return np.empty((batch, length, kv_heads, group, width), dtype).transpose(0, 2, 3, 1, 4)


def _put(target: Array, part: Array, add: bool) -> None:
    """target = part, or target += part."""
    if add:
        target += part
    else:
        target[...] = part


def _sum_group(x: Array) -> Array:
    """Add up what the heads that share one key head ask of it."""
    return x if x.shape[2] == 1 else x.sum(2, keepdims=True)


def _causal_mask(queries: int, keys: int) -> Array:
    """(queries, keys) boolean: the last query sees every key, each one before it one key less."""
    return np.arange(keys) <= np.arange(keys - queries, keys)[:, None]


def _exp2_rows(scores: Array, allowed: Array | None, first: int = 0) -> tuple[Array, Array]:
    """2^(score - shift) where allowed, else 0, in place, and the sum of each row.

    `allowed` tells of the keys from `first` on; all may attend to those before. Softmax does not
    change with the shift. Rows in which nothing is allowed have the sum 1, so that they give
    zeros, not 0/0.

    subtle: only large scores need a shift, and whether there are any costs far less to ask than
    each row's maximum costs to find.
    """
    small = scores.size == 0 or (-SAFE_SCORE < scores.min() and scores.max() < SAFE_SCORE)
    if not small:
        if allowed is not None:
            np.copyto(scores[..., first:], -np.inf, where=~allowed)
        shift = scores.max(-1, keepdims=True)
        shift[shift == -np.inf] = 0  # nothing allowed in this row: exp2(-inf) is the 0 we want
        scores -= shift
    weights = np.exp2(scores, out=scores)
    if small and allowed is not None:
        weights[..., first:] *= allowed
    total = (weights @ kernels.filled(weights.shape[-1], 1.0, weights.dtype))[..., None]
    if allowed is not None or not small or not scores.size:
        total[total == 0] = 1
    return weights, total


def _check_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Array | None,
    bias: Tensor | None,
    dropout: float,
    rng: Any,
) -> None:
    q_shape, k_shape = q.shape, k.shape
    if not (
        len(q_shape) == len(k_shape) == 4
        and k_shape == v.shape
        and q_shape[0] == k_shape[0]
        and q_shape[3] == k_shape[3]
        and q_shape[1] % max(1, k_shape[1]) == 0
    ):
        raise ValueError(
            "attention: expected q (B, H, T, D) and k, v (B, H or a divisor of H, S, D), got "
            f"{q_shape}, {k_shape}, {v.shape}; split the heads before the sequence axis"
        )
    if mask is not None and mask.dtype != bool:
        raise ValueError(
            f"attention: expected a boolean mask, True = may attend, got {mask.dtype}; "
            "write mask != 0, or pass additive scores as bias"
        )
    full = (*q_shape[:3], k_shape[2])
    for name, extra in (("mask", mask), ("bias", bias)):
        if extra is not None and not _broadcasts(extra.shape, full):
            raise ValueError(
                f"attention: expected a {name} that broadcasts to (B, H, T, S) = {full}, got "
                f"{extra.shape}; put size 1 where it is the same for all"
            )
    if dropout and rng is None:
        raise ValueError("attention: expected an rng with dropout > 0, got None; pass a Generator")


def _broadcasts(shape: tuple[int, ...], full: tuple[int, ...]) -> bool:
    """Whether an array of `shape` can be stretched to `full`."""
    if len(shape) > len(full):
        return False
    return all(size in (1, whole) for size, whole in zip(shape[::-1], full[::-1], strict=False))
