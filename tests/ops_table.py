"""One row per public op: its formula in plain Python loops, and inputs away from its kinks.

A row is a list of cases, each the op with some options. From every case `test_ops.py` makes five
tests. A specification takes the op's arguments by the same names, as arrays, and loops over single
elements with the `math` module: slow, and hard to get wrong.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from inspect import signature
from typing import Any

import numpy as np
from hypothesis import strategies as st
from strategies import (
    BY_MARK,
    Domain,
    Shapes,
    Sizes,
    apart,
    halfway,
    nonzero,
    parse,
    positive,
    seeds,
    shapes_line,
    sizes,
    some_ignored,
)

from minilm import functional as F
from minilm import tensor as T
from minilm.kernels import random_mask
from minilm.tensor import Tensor

Array = np.ndarray
Index = tuple[int, ...]


# --- Specifications of functional.py ----------------------------------------------------------


def indices(array: Array) -> Iterator[Index]:
    return np.ndindex(array.shape)


def lines(x: Array, axis: int) -> Iterator[list[Index]]:
    """The indices of every line that runs along `axis`."""
    axis %= x.ndim
    others = [size for i, size in enumerate(x.shape) if i != axis]
    for rest in np.ndindex(*others):
        yield [(*rest[:axis], i, *rest[axis:]) for i in range(x.shape[axis])]


def elementwise(formula: Callable[..., float]) -> Callable[..., Array]:
    """The specification of an op that treats every element (after broadcasting) alike."""

    def at(array: Array, index: Index) -> Any:
        index = index[len(index) - array.ndim :]
        return array[tuple(0 if n == 1 else i for i, n in zip(index, array.shape, strict=True))]

    def specification(*args: Array, **arrays: Array) -> Array:
        operands = (*args, *arrays.values())
        y = np.empty(np.broadcast_shapes(*(a.shape for a in operands)))
        for i in indices(y):
            y[i] = formula(*(at(a, i) for a in operands))
        return y

    return specification


def softmax(x: Array, axis: int = -1) -> Array:
    y = np.empty(x.shape)
    for line in lines(x, axis):
        total = sum(math.exp(x[i]) for i in line)
        for i in line:
            y[i] = math.exp(x[i]) / total
    return y


def log_softmax(x: Array, axis: int = -1) -> Array:
    y = np.empty(x.shape)
    for line in lines(x, axis):
        total = sum(math.exp(x[i]) for i in line)
        for i in line:
            y[i] = x[i] - math.log(total)
    return y


def cross_entropy(
    logits: Array,
    labels: Array,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
) -> Array:
    vocab_size = logits.shape[-1]
    losses, count = np.zeros(labels.shape), 0
    for i in indices(labels):
        if labels[i] == ignore_index:
            continue
        count += 1
        total = sum(math.exp(z) for z in logits[i])
        for v in range(vocab_size):
            q = label_smoothing / vocab_size + (v == labels[i]) * (1 - label_smoothing)
            losses[i] -= q * math.log(math.exp(logits[i][v]) / total)
    if reduction == "none":
        return losses
    total = sum(losses[i] for i in indices(losses))
    return np.array(total / max(1, count) if reduction == "mean" else total)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def gelu(x: Array, approximate: str = "none") -> Array:
    def one(x: float) -> float:
        if approximate == "tanh":
            return x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2
        return x * (1 + math.erf(x / math.sqrt(2))) / 2

    return elementwise(one)(x)


def layer_norm(x: Array, gamma: Array, beta: Array, eps: float = 1e-5) -> Array:
    y, width = np.empty(x.shape), x.shape[-1]
    for line in lines(x, -1):
        mean = sum(x[i] for i in line) / width
        variance = sum((x[i] - mean) ** 2 for i in line) / width
        for i in line:
            y[i] = gamma[i[-1]] * (x[i] - mean) / math.sqrt(variance + eps) + beta[i[-1]]
    return y


def rms_norm(x: Array, gamma: Array, eps: float = 1e-6) -> Array:
    y, width = np.empty(x.shape), x.shape[-1]
    for line in lines(x, -1):
        mean_square = sum(x[i] ** 2 for i in line) / width
        for i in line:
            y[i] = gamma[i[-1]] * x[i] / math.sqrt(mean_square + eps)
    return y


def dropout(x: Array, p: float, rng: np.random.Generator) -> Array:
    y, kept = np.empty(x.shape), random_mask(x.shape, p, rng)
    for i in indices(x):
        y[i] = x[i] / (1 - p) if kept[i] else 0
    return y


def embedding(ids: Array, weight: Array) -> Array:
    y = np.empty((*ids.shape, weight.shape[1]))
    for i in indices(y):
        y[i] = weight[ids[i[:-1]], i[-1]]
    return y


def linear(x: Array, weight: Array, bias: Array | None = None) -> Array:
    y = np.empty((*x.shape[:-1], len(weight)))
    for i in indices(y):
        *row, f = i
        y[i] = sum(x[(*row, c)] * weight[f, c] for c in range(x.shape[-1]))
        y[i] += 0 if bias is None else bias[f]
    return y


def rotary(x: Array, cos: Array, sin: Array) -> Array:
    y, half = np.empty(x.shape), x.shape[-1] // 2
    for b, h, t, d in np.ndindex(*x.shape[:-1], half):
        first, second = x[b, h, t, d], x[b, h, t, d + half]
        y[b, h, t, d] = first * cos[t, d] - second * sin[t, d]
        y[b, h, t, d + half] = second * cos[t, d] + first * sin[t, d]
    return y


def attention(
    q: Array,
    k: Array,
    v: Array,
    mask: Array | None = None,
    bias: Array | None = None,
    causal: bool = False,
    scale: float | None = None,
    dropout: float = 0.0,
    rng: np.random.Generator | None = None,
) -> Array:
    n_batch, n_heads, n_queries, width = q.shape
    n_keys, full = k.shape[2], (*q.shape[:3], k.shape[2])
    scale = 1 / math.sqrt(width) if scale is None else scale
    mask = np.broadcast_to(True if mask is None else mask, full)
    bias = np.broadcast_to(0.0 if bias is None else bias, full)
    kept = np.ones(full, bool) if rng is None else random_mask(full, dropout, rng)
    y = np.zeros(q.shape)
    for b, h, t in np.ndindex(n_batch, n_heads, n_queries):
        g = h // (n_heads // k.shape[1])  # the key head of query head h
        seen = [s for s in range(n_keys) if mask[b, h, t, s]]
        if causal:
            seen = [s for s in seen if s <= t + n_keys - n_queries]
        weight = {}
        for s in seen:
            score = scale * sum(q[b, h, t, d] * k[b, g, s, d] for d in range(width))
            weight[s] = math.exp(score + bias[b, h, t, s])
        total = sum(weight.values())
        for s in seen:
            if kept[b, h, t, s]:
                for d in range(width):
                    y[b, h, t, d] += weight[s] / total / (1 - dropout) * v[b, g, s, d]
    return y


def lstm(x: Array, h0: Array, c0: Array, weight_ih: Array, weight_hh: Array, bias: Array) -> Array:
    (n_batch, length, in_width), width = x.shape, h0.shape[1]
    y = np.zeros((2, n_batch, length, width))

    def total(gate: int, b: int, t: int, k: int) -> float:
        row, before = gate * width + k, y[0, b, t - 1] if t else h0[b]
        a = sum(x[b, t, n] * weight_ih[row, n] for n in range(in_width))
        a += sum(before[n] * weight_hh[row, n] for n in range(width))
        return a + bias[row]

    for t, b, k in np.ndindex(length, n_batch, width):
        i, f, g, o = (total(gate, b, t, k) for gate in range(4))
        before = y[1, b, t - 1, k] if t else c0[b, k]
        cell = sigmoid(f) * before + sigmoid(i) * math.tanh(g)
        y[0, b, t, k], y[1, b, t, k] = sigmoid(o) * math.tanh(cell), cell
    return y


# --- Specifications of tensor.py's primitives -------------------------------------------------


def matmul(a: Array, b: Array) -> Array:
    if a.ndim == 1:
        return matmul(a[None], b)[..., 0, :] if b.ndim > 1 else matmul(a[None], b)[0]
    if b.ndim == 1:
        return matmul(a, b[:, None])[..., 0]
    rest = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    a, b = np.broadcast_to(a, rest + a.shape[-2:]), np.broadcast_to(b, rest + b.shape[-2:])
    y = np.zeros((*rest, a.shape[-2], b.shape[-1]))
    for i in indices(y):
        *batch, m, n = i
        y[i] = sum(a[(*batch, m, k)] * b[(*batch, k, n)] for k in range(a.shape[-1]))
    return y


def reduction(combine: Callable[[list[float]], float]) -> Callable[..., Array]:
    """The specification of an op that makes one number of those along some axes."""

    def specification(x: Array, axis: Any = None, keepdims: bool = False) -> Array:
        axes = range(x.ndim) if axis is None else [a % x.ndim for a in np.atleast_1d(axis)]
        groups: dict[Index, list[float]] = {}
        for i in indices(x):
            groups.setdefault(tuple(0 if a in axes else n for a, n in enumerate(i)), []).append(
                x[i]
            )
        y = np.empty(tuple(1 if a in axes else n for a, n in enumerate(x.shape)))
        for i in indices(y):
            y[i] = combine(groups.get(i, []))
        return y if keepdims else y.reshape([n for a, n in enumerate(x.shape) if a not in axes])

    return specification


def reshape(x: Array, shape: Index) -> Array:
    y = np.empty(shape)
    for i, j in zip(indices(x), indices(y), strict=True):  # both count with the last axis fastest
        y[j] = x[i]
    return y


def transpose(x: Array, axes: Index) -> Array:
    y = np.empty([x.shape[a] for a in axes])
    for i in indices(x):
        y[tuple(i[a] for a in axes)] = x[i]
    return y


def split_heads(x: Array, heads: int) -> Array:
    n_batch, length, width = x.shape
    y = np.empty((n_batch, heads, length, width // heads))
    for b, h, t, d in indices(y):
        y[b, h, t, d] = x[b, t, h * (width // heads) + d]
    return y


def join_heads(x: Array) -> Array:
    n_batch, n_heads, length, width = x.shape
    y = np.empty((n_batch, length, n_heads * width))
    for b, h, t, d in indices(x):
        y[b, t, h * width + d] = x[b, h, t, d]
    return y


def getitem(x: Array, index: Any) -> Array:
    places = np.arange(x.size).reshape(x.shape)[index]  # which element goes where
    y = np.empty(places.shape)
    for i in indices(y):
        y[i] = x.reshape(-1)[places[i]]
    return y


def concatenate(a: Array, b: Array, axis: int) -> Array:
    axis %= a.ndim
    shape = list(a.shape)
    shape[axis] += b.shape[axis]
    y = np.empty(shape)
    for i in indices(y):
        n = i[axis] - a.shape[axis]
        y[i] = a[i] if n < 0 else b[(*i[:axis], n, *i[axis + 1 :])]
    return y


# --- The table --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """An op with some options, and what may be fed to it."""

    op: Callable[..., Tensor]
    specification: Callable[..., Array]
    options: Mapping[str, Any] = field(default_factory=dict)  # or a function of the sizes
    shapes: str = ""  # the docstring's line, unless given
    arguments: str = ""  # the names of the inputs, unless they are simply the first ones
    domain: Mapping[str, Domain] = field(default_factory=dict)  # by argument, where not `normal`
    random: bool = False  # draws from an rng
    empty: str = "BT"  # the letters whose size may be 0
    label: str = ""

    @property
    def parsed(self) -> Shapes:
        return parse(self.shapes or shapes_line(self.op))

    @property
    def names(self) -> list[str]:
        names = self.arguments.split() or list(signature(self.op).parameters)
        return names[: len(self.parsed.inputs)]

    @property
    def differentiable(self) -> list[str]:
        marks = (term.mark for term in self.parsed.inputs)
        return [name for name, mark in zip(self.names, marks, strict=True) if not mark]

    def example(self, sizes: Sizes, seed: int) -> "Example":
        rng = np.random.default_rng(seed)
        inputs = {}
        for name, term in zip(self.names, self.parsed.inputs, strict=True):
            domain = self.domain.get(name, BY_MARK[term.mark])
            inputs[name] = domain(rng, term.shape(sizes), sizes)
        return Example(self, sizes, inputs, seed)

    def examples(self) -> st.SearchStrategy["Example"]:
        return st.builds(self.example, sizes(self.parsed), seeds)


@dataclass(frozen=True)
class Example:
    """A case with its inputs, drawn."""

    case: Case
    sizes: Sizes
    inputs: Mapping[str, Array]
    seed: int

    @property
    def options(self) -> dict[str, Any]:
        """The keyword arguments beside the inputs: the same random numbers every time."""
        options = self.case.options
        options = dict(options(self.sizes) if callable(options) else options)
        return options | ({"rng": np.random.default_rng(self.seed)} if self.case.random else {})

    def specified(self) -> Array:
        return self.case.specification(**self.inputs, **self.options)

    def tensors(self, dtype: Any = np.float64, frozen: str = "") -> dict[str, Tensor]:
        """A leaf for every input that gets a gradient."""
        return {
            name: Tensor(self.inputs[name].astype(dtype), requires_grad=name != frozen)
            for name in self.case.differentiable
        }

    def call(
        self, tensors: Mapping[str, Tensor], op: Callable[..., Tensor] | None = None
    ) -> Tensor:
        """The op of the tensors and the other inputs, which get the tensors' dtype."""
        dtype = next(iter(tensors.values())).dtype
        others = {
            name: array.astype(dtype) if array.dtype.kind == "f" else array
            for name, array in self.inputs.items()
            if name not in tensors
        }
        return (op or self.case.op)(**tensors, **others, **self.options)


def join_two(a: Tensor, b: Tensor, axis: int) -> Tensor:
    return T.concatenate([a, b], axis)


ELEMENT = "(B, C) -> (B, C)"
STRETCHED = "(B, T, C), (T, 1) -> (B, T, C)"
NORM = {"x": apart}
HEADS = "(B, 2H, T, D), (B, H, S, D), (B, H, S, D)"  # every key head serves two heads
EVERYTHING = {"causal": True, "scale": 0.7, "dropout": 0.3}

FUNCTIONAL: dict[str, list[Case]] = {
    "softmax": [
        Case(F.softmax, softmax),
        Case(F.softmax, softmax, {"axis": 1}, "(B, V, T) -> (B, V, T)"),
    ],
    "log_softmax": [
        Case(F.log_softmax, log_softmax),
        Case(F.log_softmax, log_softmax, {"axis": -2}, "(B, V, T) -> (B, V, T)"),
    ],
    "cross_entropy": [
        Case(F.cross_entropy, cross_entropy, domain={"labels": some_ignored}),
        Case(
            F.cross_entropy,
            cross_entropy,
            {"label_smoothing": 0.1},
            domain={"labels": some_ignored},
        ),
        Case(F.cross_entropy, cross_entropy, {"reduction": "sum"}, domain={"labels": some_ignored}),
        Case(
            F.cross_entropy,
            cross_entropy,
            {"reduction": "none", "label_smoothing": 0.2, "ignore_index": 1},
            "(B, T, V), (B, T)i -> (B, T)",
        ),
        Case(F.cross_entropy, cross_entropy, shapes="(V), ()i -> ()", label="one position"),
    ],
    "relu": [Case(F.relu, elementwise(lambda x: max(x, 0)), domain={"x": nonzero})],
    "silu": [Case(F.silu, elementwise(lambda x: x * sigmoid(x)))],
    "swiglu": [Case(F.swiglu, elementwise(lambda gate, up: gate * sigmoid(gate) * up))],
    "gelu": [Case(F.gelu, gelu), Case(F.gelu, gelu, {"approximate": "tanh"})],
    "layer_norm": [
        Case(F.layer_norm, layer_norm, domain=NORM),
        Case(F.layer_norm, layer_norm, {"eps": 0.5}, "(C), (C), (C) -> (C)"),
    ],
    "rms_norm": [
        Case(F.rms_norm, rms_norm, domain={"x": nonzero}),
        Case(F.rms_norm, rms_norm, {"eps": 0.5}, "(C), (C) -> (C)"),
    ],
    "dropout": [Case(F.dropout, dropout, {"p": 0.4}, arguments="x", random=True)],
    "embedding": [
        Case(F.embedding, embedding),
        Case(F.embedding, embedding, shapes="()i, (V, C) -> (C)", label="one id"),
    ],
    "linear": [
        Case(F.linear, linear),
        Case(F.linear, linear, shapes="(C), (F, C) -> (F)", label="one row, no bias"),
    ],
    "rotary": [Case(F.rotary, rotary)],
    "attention": [
        Case(F.attention, attention, empty="BTS"),
        Case(F.attention, attention, {"causal": True}, empty="BTS"),
        Case(
            F.attention,
            attention,
            shapes="(B, H, T, D), (B, H, S, D), (B, H, S, D), (B, 1, T, S)b, (H, 1, S)"
            " -> (B, H, T, D)",
            empty="BTS",
            label="mask, bias",
        ),
        Case(
            F.attention, attention, {"scale": -0.4}, HEADS + " -> (B, 2H, T, D)", label="key heads"
        ),
        Case(F.attention, attention, {"dropout": 0.5}, random=True),
        Case(
            F.attention,
            attention,
            EVERYTHING,
            HEADS + ", (T, S)b, (B, 2H, T, S) -> (B, 2H, T, D)",
            random=True,
            label="everything at once",
        ),
    ],
    "lstm": [Case(F.lstm, lstm, empty="BTC")],
}

TENSOR: dict[str, list[Case]] = {
    "add": [Case(T.add, elementwise(lambda a, b: a + b), shapes=STRETCHED)],
    "sub": [Case(T.sub, elementwise(lambda a, b: a - b), shapes=STRETCHED)],
    "mul": [Case(T.mul, elementwise(lambda a, b: a * b), shapes=STRETCHED)],
    "div": [Case(T.div, elementwise(lambda a, b: a / b), {}, STRETCHED, domain={"b": nonzero})],
    "neg": [Case(T.neg, elementwise(lambda x: -x), shapes=ELEMENT)],
    "power": [
        Case(T.power, lambda x, exponent: elementwise(lambda x: x**exponent)(x), *rest)
        for rest in (
            [{"exponent": 3}, ELEMENT],
            [{"exponent": -0.5}, ELEMENT, "", {"x": positive}],
        )
    ],
    "exp": [Case(T.exp, elementwise(math.exp), shapes=ELEMENT)],
    "log": [Case(T.log, elementwise(math.log), shapes=ELEMENT, domain={"x": positive})],
    "tanh": [Case(T.tanh, elementwise(math.tanh), shapes=ELEMENT)],
    "erf": [Case(T.erf, elementwise(math.erf), shapes=ELEMENT)],
    "maximum": [
        Case(T.maximum, elementwise(max), {}, STRETCHED, "", {"a": apart, "b": halfway}),
    ],
    "where": [
        Case(
            T.where,
            elementwise(lambda condition, a, b: a if condition else b),
            shapes="(B, T, C)b, (B, T, C), (T, 1) -> (B, T, C)",
        )
    ],
    "matmul": [
        Case(T.matmul, matmul, shapes=shapes)
        for shapes in (
            "(B, T, C), (C, F) -> (B, T, F)",
            "(T, C), (B, C, F) -> (B, T, F)",
            "(B, T, C), (C) -> (B, T)",
            "(C), (B, C, F) -> (B, F)",
            "(C), (C) -> ()",
        )
    ],
    "sum": [
        Case(T.sum, reduction(sum), {}, "(B, T, C) -> ()"),
        Case(T.sum, reduction(sum), {"axis": 1}, "(B, T, C) -> (B, C)"),
        Case(T.sum, reduction(sum), {"axis": (0, -1), "keepdims": True}, "(B, T, C) -> (1, T, 1)"),
    ],
    "mean": [
        Case(T.mean, reduction(np.mean), options, shapes, empty="")
        for options, shapes in (
            ({}, "(B, T, C) -> ()"),
            ({"axis": -1}, "(B, T, C) -> (B, T)"),
            ({"axis": (0, 2), "keepdims": True}, "(B, T, C) -> (1, T, 1)"),
        )
    ],
    "max": [
        Case(T.max, reduction(max), options, shapes, domain={"x": apart}, empty="")
        for options, shapes in (
            ({}, "(B, T, C) -> ()"),
            ({"axis": -2}, "(B, T, C) -> (B, C)"),
            ({"axis": (0, 2), "keepdims": True}, "(B, T, C) -> (1, T, 1)"),
        )
    ],
    "reshape": [
        Case(
            T.reshape,
            reshape,
            lambda sizes: {"shape": (sizes["C"], sizes["B"], sizes["T"])},
            "(B, T, C) -> (C, B, T)",
        )
    ],
    "transpose": [
        Case(T.transpose, transpose, {"axes": (2, 0, 1)}, "(B, T, C) -> (C, B, T)"),
        Case(T.transpose, transpose, {"axes": (-2, 0, -1)}, "(B, T, C) -> (T, B, C)"),
    ],
    "split_heads": [Case(T.split_heads, split_heads, {"heads": 3}, "(B, T, 3D) -> (B, 3, T, D)")],
    "join_heads": [Case(T.join_heads, join_heads, {}, "(B, 3, T, D) -> (B, T, 3D)")],
    "getitem": [
        Case(T.getitem, getitem, {"index": index}, "(B, T, C) -> " + after, empty="T", label=label)
        for index, after, label in (
            (-1, "(T, C)", "the last"),
            ((..., None, slice(None, None, -1)), "(B, T, 1, C)", "backwards, a new axis"),
            (([1, 0, 0, 1, 0, 1, 1, 1],), "(8, T, C)", "repeated rows"),
            ((0, slice(None), [1, 1, 0]), "(3, T)", "a row and repeated columns"),
        )
    ],
    "concatenate": [
        Case(join_two, concatenate, {"axis": -1}, "(B, T, C), (B, T, 2C) -> (B, T, 3C)"),
        Case(join_two, concatenate, {"axis": 0}, "(B, T), (3B, T) -> (4B, T)"),
    ],
}


def _named(rooms: Mapping[str, Mapping[str, list[Case]]]) -> dict[str, Case]:
    """Every case under a name of its own: op, and what sets the case apart."""
    named = {}
    for room, rows in rooms.items():
        for name, cases in rows.items():
            for case in cases:
                options = {} if callable(case.options) else case.options
                details = case.label or ", ".join(f"{k}={v}" for k, v in options.items())
                key = f"{room}.{name}({details or case.shapes})"
                assert key not in named, f"two cases named {key}"
                named[key] = case
    return named


CASES = _named({"functional": FUNCTIONAL, "tensor": TENSOR})
