"""Multi-head attention, and the cache that makes decoding one token cost one token."""

from typing import Any, NamedTuple

import numpy as np

from minilm import functional as F
from minilm.attention import attention_weights
from minilm.nn.layers import Linear, RMSNorm, require_rng
from minilm.nn.module import Module
from minilm.nn.positions import Rotary
from minilm.tensor import (
    Array,
    Tensor,
    grad_enabled,
    join_heads,
    needs_grad,
    no_grad,
    split_heads,
)

JOINED = 2**20  # weights of q, k and v together; of more, no copy is made


class KeyValueCache:
    """The keys and values of all earlier positions of one layer, in arrays made once.

    `joined` may hold weight and bias of one layer that gives queries, keys and values together.

    Shapes: keys, values (B, H, max_len, D), of which the first `length` positions are filled;
        joined (F, C) and (F), where F are the features of queries, keys and values, in this order.
    """

    joined: tuple[Tensor, Tensor | None] | None = None

    def __init__(
        self, batch: int, n_heads: int, max_len: int, head_width: int, dtype: Any = np.float32
    ) -> None:
        self.keys = np.empty((batch, n_heads, max_len, head_width), dtype)
        self.values = np.empty_like(self.keys)
        self.length = 0

    def append(self, keys: Array, values: Array) -> tuple[Array, Array]:
        """Add (B, H, T, D) of new positions; all positions so far, as views.

        Raises: ValueError — the cache is full.
        """
        stop, max_len = self.length + keys.shape[2], self.keys.shape[2]
        if stop > max_len:
            raise ValueError(
                f"KeyValueCache: expected at most {max_len} positions, got {stop}; "
                "make the cache larger, or begin a new one with the latest tokens"
            )
        self.keys[:, :, self.length : stop] = keys
        self.values[:, :, self.length : stop] = values
        self.length = stop
        return self.keys[:, :, :stop], self.values[:, :, :stop]

    def reorder(self, rows: Array, start: int = 0) -> None:
        """Row i becomes what row rows[i] was; there may be more rows, or fewer, than before.

        Where the number stays, only what moves is copied, and of that the positions from `start`
        on: those before are said to be equal.
        """
        old, moved = (self.keys, self.values), np.arange(len(rows))
        if len(rows) == len(self.keys):
            moved = np.flatnonzero(rows != moved)
        else:
            start = 0
            self.keys = np.empty((len(rows), *self.keys.shape[1:]), self.keys.dtype)
            self.values = np.empty_like(self.keys)
        kept = slice(start, self.length)
        for array, source in zip((self.keys, self.values), old, strict=True):
            array[moved, :, kept] = source[rows[moved], :, kept]


class KeyValues(NamedTuple):
    """A context's keys and values (B, H, S, D), worked out once for all who will attend to it."""

    keys: Tensor
    values: Tensor


class MultiHeadAttention(Module):
    """MultiHead(x) = Concat(head₁ … head_H) W_out,  headᵢ = attention(x W_q, x W_k, x W_v)ᵢ.

    With `n_kv_heads` < n_heads, groups of query heads share a key and value head. `rotary` turns
    queries and keys by position; `qk_norm` brings each to unit root mean square first, with
    `norm_eps` under the root. A head is d_model / n_heads wide unless `head_width` is given;
    `scale` is that of `functional.attention`.

    Shapes: (B, T, d_model) -> (B, T, d_model)
    Source: Vaswani et al. 2017, section 3.2.2; Ainslie et al. 2023, arXiv 2305.13245 (groups);
        Henry et al. 2020, arXiv 2010.04245 (normalised queries and keys).
    """

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        n_kv_heads: int | None = None,
        *,
        rng: np.random.Generator,
        bias: bool = True,
        causal: bool = False,
        dropout: float = 0.0,
        rotary: Rotary | None = None,
        qk_norm: bool = False,
        norm_eps: float = 1e-6,
        head_width: int | None = None,
        scale: float | None = None,
        std: float | None = None,
        out_std: float | None = None,
    ) -> None:
        kv_heads = n_heads if n_kv_heads is None else n_kv_heads
        if (head_width is None and d_model % n_heads) or n_heads % kv_heads:
            raise ValueError(
                f"MultiHeadAttention: expected n_heads to divide d_model and n_kv_heads to divide "
                f"n_heads, got d_model {d_model}, n_heads {n_heads}, n_kv_heads {kv_heads}; choose "
                "each as a multiple of the next"
            )
        self.n_heads, self.n_kv_heads = n_heads, kv_heads
        self.head_width = d_model // n_heads if head_width is None else head_width
        self.causal, self.dropout, self.rotary, self.scale = causal, dropout, rotary, scale
        width, kv_width = n_heads * self.head_width, kv_heads * self.head_width
        self.q = Linear(d_model, width, bias, rng=rng, std=std)
        self.k = Linear(d_model, kv_width, bias, rng=rng, std=std)
        self.v = Linear(d_model, kv_width, bias, rng=rng, std=std)
        self.out = Linear(width, d_model, bias, rng=rng, std=out_std)
        self.q_norm = RMSNorm(self.head_width, norm_eps) if qk_norm else None
        self.k_norm = RMSNorm(self.head_width, norm_eps) if qk_norm else None

    def forward(
        self,
        x: Tensor,
        context: Tensor | KeyValues | None = None,
        mask: Array | None = None,
        bias: Tensor | None = None,
        cache: KeyValueCache | None = None,
        rng: np.random.Generator | None = None,
        keep: int | None = None,
    ) -> Tensor:
        """Attend from x to `context` (x itself if None); with `cache`, to all that it holds too.

        With `keep` only the last so many positions of x attend, and only theirs is the result.

        `keys_values` of a context may stand for it. They may have fewer rows than x: then as many
        rows of x as there are for each, one after the other, share a context and its row of mask
        (if neither `causal` nor `rotary` gives the queries an order).
        """
        keep = keep if keep and keep < x.shape[1] else None
        joined = None if cache is None or context is not None or keep else cache.joined
        rows = None  # of queries: as many as x has
        if isinstance(context, KeyValues) and len(context.keys) != len(x):
            # Without an order they know nothing of each other: those of several rows stand in one.
            rows = None if self.causal or self.rotary else len(context.keys)
        start = 0 if cache is None else cache.length
        if joined is not None and not grad_enabled():
            q, k, v = self._all_three(x, joined, start)
        else:
            k, v = self._keys_values(x, context, start)
            if keep:
                start, x = start + x.shape[1] - keep, x[:, -keep:]
            q = self._queries(x, start, rows)
        if cache is not None:
            if needs_grad(k, v):
                raise ValueError(
                    "MultiHeadAttention: expected no gradients with a cache, got some recorded; "
                    "decode inside `with no_grad():`"
                )
            k, v = map(Tensor, cache.append(k.data, v.data))
        dropout = self.dropout if self.training else 0.0
        rng = require_rng(rng) if dropout else None
        causal = self.causal and x.shape[1] > 1  # a single query is the last: it sees every key
        y = F.attention(q, k, v, mask, bias, causal, self.scale, dropout, rng)
        return self.out(join_heads(y, len(x) if rows else None))

    def keys_values(self, context: Tensor, start: int = 0) -> KeyValues:
        """The keys and values of a context whose first position is `start`.

        Shapes: (B, S, C) -> (B, H, S, D), (B, H, S, D)
        """
        k = self._placed(split_heads(self.k(context), self.n_kv_heads), self.k_norm, start)
        return KeyValues(k, split_heads(self.v(context), self.n_kv_heads))

    def new_cache(self, batch: int, max_len: int) -> KeyValueCache:
        """An empty cache for `batch` texts of up to max_len tokens.

        It holds a copy of the weights of q, k and v in one matrix where they are small: the product
        of one token by each of three such is over in no time, and the calls are what costs. So a
        cache belongs to the weights that it was made with, as the keys in it do.
        """
        dtype = self.q.weight.dtype
        cache = KeyValueCache(batch, self.n_kv_heads, max_len, self.head_width, dtype)
        parts = (self.q, self.k, self.v)
        if sum(part.weight.size for part in parts) <= JOINED:
            weight = Tensor(np.concatenate([part.weight.data for part in parts]))
            biases = [part.bias.data for part in parts if part.bias is not None]
            cache.joined = weight, Tensor(np.concatenate(biases)) if biases else None
        return cache

    def _keys_values(self, x: Tensor, context: Tensor | KeyValues | None, start: int) -> KeyValues:
        if isinstance(context, KeyValues):
            return context
        return self.keys_values(x if context is None else context, start)

    def _queries(self, x: Tensor, start: int, rows: int | None = None) -> Tensor:
        """Shapes: (B, T, C) -> (rows, H, T B / rows, D)"""
        return self._placed(split_heads(self.q(x), self.n_heads, rows), self.q_norm, start)

    def _all_three(
        self, x: Tensor, joined: tuple[Tensor, Tensor | None], start: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of x by one product, without gradients."""
        first_k, first_v = self.n_heads, self.n_heads + self.n_kv_heads
        heads = split_heads(F.linear(x, *joined), first_v + self.n_kv_heads).data
        q = self._placed(Tensor(heads[:, :first_k]), self.q_norm, start)
        k = self._placed(Tensor(heads[:, first_k:first_v]), self.k_norm, start)
        return q, k, Tensor(heads[:, first_v:])

    def _placed(self, heads: Tensor, norm: RMSNorm | None, start: int) -> Tensor:
        """Queries or keys (B, H, T, D), normalised, and turned by their positions."""
        heads = heads if norm is None else norm(heads)
        return heads if self.rotary is None else self.rotary(heads, start)

    @no_grad()
    def weights(
        self,
        x: Tensor,
        context: Tensor | KeyValues | None = None,
        mask: Array | None = None,
        bias: Tensor | None = None,
    ) -> Array:
        """With which weights `forward` adds the values up, before dropout: to look at.

        Shapes: (B, T, C), (B, S, C) -> (B, H, T, S)
        """
        q, k = self._queries(x, 0), self._keys_values(x, context, 0).keys
        return attention_weights(q, k, mask, bias, self.causal, self.scale)
