"""Tensor, the tape, backward, and the primitives: each forward beside its gradient.

An op is one plain function. It computes its result with NumPy and defines, right below it,
`vjp(dy)` — the vector-Jacobian product — which takes dL/dy and *returns* dL/d(parent), one array
(or None) per parent. It never changes `dy`, which other ops may hold too. Everything else —
undoing broadcasting, adding up, freeing — is done once, in `walk`.
"""

import builtins
import itertools
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import ContextDecorator
from heapq import heappop, heappush
from typing import Any, NamedTuple

import numpy as np

from minilm.kernels import erf as erf_array

Array = np.ndarray[Any, np.dtype[Any]]
Vjp = Callable[[Array], Sequence[Array | None]]
FLOATS = (np.dtype(np.float32), np.dtype(np.float64))

_serials = itertools.count()  # next() on it is atomic, so threads may share it
_mode = threading.local()


class no_grad(ContextDecorator):
    """Inside `with no_grad():` (or a function it decorates) results are not recorded."""

    def __enter__(self) -> None:
        _mode.depth = getattr(_mode, "depth", 0) + 1

    def __exit__(self, *exception: object) -> None:
        _mode.depth -= 1


def grad_enabled() -> bool:
    """Whether results are recorded in this thread."""
    return getattr(_mode, "depth", 0) == 0


def _as_floats(data: Any) -> Array:
    """An array of float32 or float64."""
    if isinstance(data, Tensor):
        raise TypeError("expected an array, got a Tensor; pass tensor.data, or use it as it is")
    array = np.asarray(data)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"expected numbers, got dtype {array.dtype}; convert to float first")
    if isinstance(data, (np.ndarray, np.generic)) and array.dtype in FLOATS:
        return array
    return array.astype(np.float32)


class Parent(NamedTuple):
    """What a node remembers of an operand: where its gradient goes, if anywhere, and how it was."""

    source: "Tensor | Node | None"
    changes: list[int]
    used_at: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]


class Tensor:
    """An array that remembers how it was made.

    `data` is a float32 or float64 array (anything else becomes float32), used as it is, not
    copied. `grad` is an array like it, filled by `backward` on leaves: tensors made by hand with
    `requires_grad=True`.

    >>> x = Tensor([1.0, 2.0, 3.0], requires_grad=True)
    >>> (x * x).sum().backward()
    >>> x.grad
    array([2., 4., 6.], dtype=float32)
    """

    __slots__ = ("_data", "grad", "requires_grad", "node", "changes")
    __array_priority__ = 1000  # array * Tensor asks Tensor.__rmul__

    def __init__(self, data: Any, requires_grad: bool = False) -> None:
        is_ready = type(data) is np.ndarray and data.dtype in FLOATS
        self._data: Array = data if is_ready else _as_floats(data)
        self.grad: Array | None = None
        self.requires_grad = requires_grad
        self.node: Node | None = None  # how it was made; a leaf has none
        self.changes = [0]  # how often the data was changed in place; views share the count

    @property
    def data(self) -> Array:
        return self._data

    @data.setter
    def data(self, value: Array) -> None:
        self._data = value
        self.changes[0] += 1  # `t.data += 1` comes here too; `t.data[0] = 1` cannot be seen

    def __setitem__(self, index: Any, value: Any) -> None:
        """`t[index] = value`: change the data in place, outside any gradient."""
        self._data[index] = value.data if isinstance(value, Tensor) else value
        self.changes[0] += 1

    def __getitem__(self, index: Any) -> "Tensor":
        return getitem(self, index)

    @property
    def shape(self) -> tuple[int, ...]:
        return self._data.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self._data.dtype

    @property
    def ndim(self) -> int:
        return self._data.ndim

    @property
    def size(self) -> int:
        return self._data.size

    @property
    def is_leaf(self) -> bool:
        return self.node is None

    def __len__(self) -> int:
        return len(self._data)

    def __repr__(self) -> str:
        suffix = ", requires_grad=True" if self.requires_grad else ""
        return f"Tensor({np.array2string(self._data, prefix='Tensor(')}{suffix})"

    def item(self) -> float:
        """The only element, as a Python number."""
        return self._data.item()

    def detach(self) -> "Tensor":
        """The same data, cut off from the graph."""
        detached = Tensor(self._data)
        detached.changes = self.changes
        return detached

    def backward(self, gradient: Any = None, retain_graph: bool = False) -> None:
        """Add dL/dleaf to `.grad` of every leaf below; `gradient` is dL/dself, 1 for a scalar.

        Raises: ValueError — self is no scalar and no gradient is given; the gradient's shape is
        another one; nothing below requires a gradient; the graph was freed by an earlier backward
        (keep it with `retain_graph=True`); data was changed in place since it was used.
        """
        if gradient is None:
            if self.size != 1:
                raise ValueError(
                    f"backward: expected a scalar, got shape {self.shape}; "
                    "call .sum() or .mean() first, or pass gradient=dL/dself"
                )
            gradient = np.ones(self.shape)
        dy = np.asarray(gradient.data if isinstance(gradient, Tensor) else gradient, self.dtype)
        if dy.shape != self.shape:
            raise ValueError(
                f"backward: expected a gradient of shape {self.shape}, got {dy.shape}; "
                "pass dL/dself, one number per element"
            )
        walk(self, dy, _add_to_grad, retain_graph)

    # The methods below are the functions below, spelt as methods.
    def sum(self, axis: Any = None, keepdims: bool = False) -> "Tensor":
        return sum(self, axis, keepdims)

    def mean(self, axis: Any = None, keepdims: bool = False) -> "Tensor":
        return mean(self, axis, keepdims)

    def max(self, axis: Any = None, keepdims: bool = False) -> "Tensor":
        return max(self, axis, keepdims)

    def reshape(self, *shape: Any) -> "Tensor":
        return reshape(self, shape[0] if len(shape) == 1 and np.iterable(shape[0]) else shape)

    def transpose(self, *axes: int) -> "Tensor":
        return transpose(self, axes or tuple(reversed(range(self.ndim))))

    @property
    def T(self) -> "Tensor":
        return self.transpose()

    def __add__(self, other: Any) -> "Tensor":
        return add(self, other)

    def __sub__(self, other: Any) -> "Tensor":
        return sub(self, other)

    def __mul__(self, other: Any) -> "Tensor":
        return mul(self, other)

    def __truediv__(self, other: Any) -> "Tensor":
        return div(self, other)

    def __matmul__(self, other: Any) -> "Tensor":
        return matmul(self, other)

    def __radd__(self, other: Any) -> "Tensor":
        return add(other, self)

    def __rsub__(self, other: Any) -> "Tensor":
        return sub(other, self)

    def __rmul__(self, other: Any) -> "Tensor":
        return mul(other, self)

    def __rtruediv__(self, other: Any) -> "Tensor":
        return div(other, self)

    def __rmatmul__(self, other: Any) -> "Tensor":
        return matmul(other, self)

    def __neg__(self) -> "Tensor":
        return neg(self)

    def __pow__(self, exponent: float) -> "Tensor":
        return power(self, exponent)


# --- The tape -------------------------------------------------------------------------------


class Node:
    """How one result was made: its parents, its vjp, and the state of the data at that time.

    A node holds no data of its own, so an intermediate result is freed as soon as nobody needs
    it: the vjp that does has captured the array.
    """

    __slots__ = ("serial", "parents", "vjp", "changes", "made_at")

    def __init__(self, result: Tensor, parents: "Sequence[Tensor]", vjp: Vjp) -> None:
        self.serial = next(_serials)
        self.vjp = vjp
        self.changes, self.made_at = result.changes, result.changes[0]
        self.parents: tuple[Parent, ...] = tuple(
            Parent(
                (p.node or p) if p.requires_grad else None,
                p.changes,
                p.changes[0],
                p.shape,
                p.dtype,
            )
            for p in parents
        )


def from_op(data: Array, parents: Sequence[Tensor], vjp: Vjp) -> Tensor:
    """The result of an op; recorded with its parents and `vjp` where one requires a gradient."""
    result, base = Tensor(data), data.base
    if base is not None:  # perhaps a view of an operand: a change of one changes both
        for parent in parents:
            if base is parent._data or base is parent._data.base:
                result.changes = parent.changes
    if needs_grad(*parents):
        result.requires_grad = True
        result.node = Node(result, parents, vjp)
    return result


def needs_grad(*tensors: Tensor | None) -> bool:
    """Whether a result of these will be recorded: ops ask before they save anything."""
    if grad_enabled():
        for tensor in tensors:
            if tensor is not None and tensor.requires_grad:
                return True
    return False


def walk(
    root: Tensor,
    dy: Array,
    accumulate: Callable[[Tensor, Array], None],
    retain_graph: bool = False,
) -> None:
    """Walk the graph from `root` down and hand every leaf its gradient, piece by piece.

    A result is always made after its parents, so taking nodes in descending order of their serial
    number is reverse topological order: when a node's turn comes, all that depends on it has been
    walked and its gradient is complete. A node is freed as soon as it has been walked.
    """
    if not root.requires_grad:
        raise ValueError(
            "backward: expected a result that depends on a tensor with requires_grad=True, "
            "got one that does not; set requires_grad=True, or leave the no_grad block"
        )
    if root.node is None:
        return accumulate(root, dy)
    gradients = {root.node: dy}
    summed: set[Node] = set()  # their gradients were added up here: ours to change in place
    heap = [(-root.node.serial, root.node)]
    while heap:
        _, node = heappop(heap)
        dy = gradients.pop(node)
        if node.changes[0] != node.made_at:  # its vjp may have captured the result itself
            raise _changed_in_place(dy.shape)
        for parent in node.parents:
            if parent.changes[0] != parent.used_at:
                raise _changed_in_place(parent.shape)
        parts = node.vjp(dy)
        for parent, part in zip(node.parents, parts, strict=True):
            source, _, _, shape, dtype = parent
            if source is None or part is None:
                continue
            if part.shape != shape or part.dtype != dtype:
                part = unbroadcast(part, shape).astype(dtype, copy=False)
            if isinstance(source, Tensor):
                accumulate(source, part)
            elif source not in gradients:
                gradients[source] = part
                heappush(heap, (-source.serial, source))
            elif source in summed:
                gradients[source] += part
            else:
                gradients[source] = gradients[source] + part
                summed.add(source)
        if not retain_graph:
            node.vjp, node.parents = _freed, ()


def _freed(dy: Array) -> Sequence[Array | None]:
    raise ValueError(
        "backward: expected a live graph, got one that an earlier backward freed; "
        "call that one with retain_graph=True, or run the forward pass again"
    )


def _changed_in_place(shape: tuple[int, ...]) -> ValueError:
    return ValueError(
        "backward: expected data as it was in the forward pass, got a tensor of shape "
        f"{shape} that was changed in place since; "
        "call backward before changing it, or change a copy"
    )


def _add_to_grad(leaf: Tensor, gradient: Array) -> None:
    if leaf.grad is None:
        leaf.grad = np.array(gradient, order="C")  # a copy: another leaf may share `gradient`
    else:
        leaf.grad += gradient


def unbroadcast(dy: Array, shape: tuple[int, ...]) -> Array:
    """Sum `dy` over the axes that broadcasting added or stretched, back to `shape`.

    Broadcasting copies an element to many places; its gradient is the sum over those places.
    """
    if dy.shape == shape:
        return dy
    dy = dy.sum(axis=tuple(range(dy.ndim - len(shape))))
    stretched = tuple(i for i, size in enumerate(shape) if size == 1 and dy.shape[i] != 1)
    return dy.sum(axis=stretched, keepdims=True) if stretched else dy


def as_tensor(value: Any, like: Any = None) -> Tensor:
    """`value` itself if it is a Tensor; a bare number takes the dtype of the operand `like`."""
    if isinstance(value, Tensor):
        return value
    if isinstance(value, (int, float, np.number)) and isinstance(like, Tensor):
        return Tensor(np.asarray(value, like.dtype))
    return Tensor(value)


# --- Primitives -----------------------------------------------------------------------------


def _binary(function: Callable[..., Array], a: Any, b: Any) -> tuple[Tensor, Tensor, Array]:
    if type(a) is not Tensor or type(b) is not Tensor:
        a, b = as_tensor(a, b), as_tensor(b, a)
    try:
        return a, b, function(a.data, b.data)
    except ValueError as error:
        raise ValueError(
            f"{function.__name__}: expected shapes that fit, got {a.shape} and {b.shape}; "
            "reshape or transpose one of them"
        ) from error


def add(a: Any, b: Any) -> Tensor:
    """y = a + b"""
    a, b, y = _binary(np.add, a, b)
    return from_op(y, (a, b), lambda dy: (dy, dy))


def sub(a: Any, b: Any) -> Tensor:
    """y = a - b"""
    a, b, y = _binary(np.subtract, a, b)
    return from_op(y, (a, b), lambda dy: (dy, -dy))


def mul(a: Any, b: Any) -> Tensor:
    """y = a b"""
    a, b, y = _binary(np.multiply, a, b)
    return from_op(y, (a, b), lambda dy: (dy * b.data, dy * a.data))


def div(a: Any, b: Any) -> Tensor:
    """y = a / b"""
    a, b, y = _binary(np.divide, a, b)
    return from_op(y, (a, b), lambda dy: (dy / b.data, -dy * y / b.data))


def neg(x: Tensor) -> Tensor:
    """y = -x"""
    return from_op(-x.data, (x,), lambda dy: (-dy,))


def power(x: Tensor, exponent: float) -> Tensor:
    """y = xᵖ for a number p;  dx = p xᵖ⁻¹ dy"""
    x, exponent = as_tensor(x), float(exponent)  # a np.float64 would promote float32
    y = x.data**exponent
    return from_op(y, (x,), lambda dy: (dy * exponent * x.data ** (exponent - 1),))


def exp(x: Tensor) -> Tensor:
    """y = eˣ;  dx = y dy"""
    y = np.exp(x.data)
    return from_op(y, (x,), lambda dy: (dy * y,))


def log(x: Tensor) -> Tensor:
    """y = ln x;  dx = dy / x"""
    return from_op(np.log(x.data), (x,), lambda dy: (dy / x.data,))


def tanh(x: Tensor) -> Tensor:
    """y = tanh x;  dx = (1 - y²) dy"""
    y = np.tanh(x.data)
    return from_op(y, (x,), lambda dy: (dy * (1 - y * y),))


def erf(x: Tensor) -> Tensor:
    """y = 2/√π ∫₀ˣ exp(-t²) dt;  dx = 2/√π exp(-x²) dy"""
    slope = 2 / np.sqrt(np.pi)
    return from_op(
        erf_array(x.data), (x,), lambda dy: (dy * float(slope) * np.exp(-x.data * x.data),)
    )


def maximum(a: Any, b: Any) -> Tensor:
    """y = max(a, b); the larger one gets dy, equal ones half each."""
    a, b, y = _binary(np.maximum, a, b)

    def vjp(dy: Array) -> Sequence[Array]:
        share = np.where(a.data == b.data, 0.5, a.data > b.data).astype(dy.dtype)
        return dy * share, dy * (1 - share)

    return from_op(y, (a, b), vjp)


def where(condition: Array, a: Any, b: Any) -> Tensor:
    """y = a where the boolean array `condition` holds, else b."""
    a, b = as_tensor(a, b), as_tensor(b, a)
    y = np.where(condition, a.data, b.data)
    return from_op(y, (a, b), lambda dy: (np.where(condition, dy, 0), np.where(condition, 0, dy)))


def matmul(a: Any, b: Any) -> Tensor:
    """y = a b, matrix product over the last two axes;  da = dy bᵀ,  db = aᵀ dy

    Shapes: (..., M, K), (..., K, N) -> (..., M, N); a vector counts as one row or one column.
    """
    a, b = as_tensor(a), as_tensor(b)
    if b.ndim == 1:
        product = matmul(a, reshape(b, (-1, 1)))
        return reshape(product, product.shape[:-1])
    if a.ndim == 1:
        product = matmul(reshape(a, (1, -1)), b)
        return reshape(product, product.shape[:-2] + product.shape[-1:])
    a, b, y = _binary(np.matmul, a, b)

    def vjp(dy: Array) -> Sequence[Array]:
        return dy @ b.data.swapaxes(-1, -2), a.data.swapaxes(-1, -2) @ dy

    return from_op(y, (a, b), vjp)


def _kept(array: Array, ndim: int, axis: Any) -> Array:
    """A reduced array with the reduced axes put back as size 1."""
    if axis is None:
        return array.reshape((1,) * ndim)
    return np.expand_dims(array, tuple(np.atleast_1d(axis) % ndim))


def sum(x: Tensor, axis: Any = None, keepdims: bool = False) -> Tensor:
    """y = Σ x over `axis`;  dx = dy, spread over the axis."""
    x = as_tensor(x)
    shape = x.shape

    def vjp(dy: Array) -> Sequence[Array]:
        return (np.broadcast_to(dy if keepdims else _kept(dy, len(shape), axis), shape),)

    y = np.sum(x.data, axis, keepdims=keepdims)

    return from_op(y, (x,), vjp)


def mean(x: Tensor, axis: Any = None, keepdims: bool = False) -> Tensor:
    """y = Σ x / n over `axis`"""
    y = sum(x, axis, keepdims)
    return y * (y.size / builtins.max(1, x.size))


def max(x: Tensor, axis: Any = None, keepdims: bool = False) -> Tensor:
    """y = the largest x over `axis`, which gets dy; equal ones share it."""
    y = np.max(x.data, axis, keepdims=True)

    def vjp(dy: Array) -> Sequence[Array]:
        largest = x.data == y
        share = largest / largest.sum(axis, keepdims=True, dtype=dy.dtype)
        return (share * (dy if keepdims else _kept(dy, x.ndim, axis)),)

    return from_op(y if keepdims else np.max(x.data, axis), (x,), vjp)


def reshape(x: Tensor, shape: Iterable[int]) -> Tensor:
    """The same numbers in another shape; the gradient goes back into the old one."""
    y = x.data.reshape(tuple(shape))
    before = x.shape
    return from_op(y, (x,), lambda dy: (dy.reshape(before),))


def transpose(x: Tensor, axes: Sequence[int]) -> Tensor:
    """Axes in another order, without a copy; the gradient takes them back."""
    ndim = x.ndim

    def vjp(dy: Array) -> Sequence[Array]:
        return (dy.transpose(np.argsort([axis % ndim for axis in axes])),)

    return from_op(x.data.transpose(axes), (x,), vjp)


def split_heads(x: Tensor, heads: int, batch: int | None = None) -> Tensor:
    """(B, T, H D) -> (B, H, T, D): a view, as reshape and transpose in one step.

    With `batch`, as many rows of x as there are for each of so many stand in one, one behind the
    other: (B, T, H D) -> (batch, H, T B / batch, D).
    """
    shape = rows, length, width = x.shape
    batch, length = (rows, length) if batch is None else (batch, rows * length // batch)
    y = x.data.reshape(batch, length, heads, width // heads).transpose(0, 2, 1, 3)
    return from_op(y, (x,), lambda dy: (dy.transpose(0, 2, 1, 3).reshape(shape),))


def join_heads(x: Tensor, batch: int | None = None) -> Tensor:
    """(B, H, T, D) -> (B, T, H D), or (batch, T B / batch, H D): the inverse of split_heads."""
    rows, heads, length, width = x.shape
    split = (rows, length, heads, width)
    batch, length = (rows, length) if batch is None else (batch, rows * length // batch)
    y = x.data.transpose(0, 2, 1, 3).reshape(batch, length, heads * width)
    return from_op(y, (x,), lambda dy: (dy.reshape(split).transpose(0, 2, 1, 3),))


def getitem(x: Tensor, index: Any) -> Tensor:
    """y = x[index]; an element that was taken n times gets the sum of n gradients."""
    y, shape = x.data[index], x.shape
    pieces = index if isinstance(index, tuple) else (index,)
    basic = (int, np.integer, slice, type(None), type(...))
    fancy = not all(isinstance(piece, basic) for piece in pieces)  # may take an element twice

    def vjp(dy: Array) -> Sequence[Array]:
        dx = np.zeros(shape, dy.dtype)
        if fancy:
            np.add.at(dx, index, dy)
        else:
            dx[index] = dy
        return (dx,)

    return from_op(np.asarray(y), (x,), vjp)


def concatenate(tensors: Sequence[Tensor], axis: int = 0) -> Tensor:
    """Tensors joined along `axis`; the gradient is cut at the seams."""
    tensors = [as_tensor(tensor) for tensor in tensors]
    seams = list(itertools.accumulate(tensor.shape[axis] for tensor in tensors))[:-1]
    y = np.concatenate([tensor.data for tensor in tensors], axis)
    return from_op(y, tensors, lambda dy: np.split(dy, seams, axis))
