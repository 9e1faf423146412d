"""Module: something with parameters, which may hold further modules."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from minilm.tensor import FLOATS, Array, Tensor


def parameter(data: Array) -> Tensor:
    """A tensor to be learned."""
    return Tensor(data, requires_grad=True)


class Module:
    """Base of all layers and models.

    Tensors and modules set as attributes, and lists of modules, are found by name:
    `blocks.0.attention.q.weight`. A parameter that stands in two places has the first name only.
    Write `forward`, call the module.
    """

    training = True

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} needs a forward method")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.forward(*args, **kwargs)

    def _children(self) -> Iterator[tuple[str, Any]]:
        for name, value in vars(self).items():
            if isinstance(value, (list, tuple)):
                yield from ((f"{name}.{i}", item) for i, item in enumerate(value))
            else:
                yield name, value

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, "Module"]]:
        """(name, module) of this module ("") and all below it, from the outside in."""
        yield prefix, self
        for name, child in self._children():
            if isinstance(child, Module):
                yield from child.named_modules(f"{prefix}.{name}" if prefix else name)

    def named_parameters(self) -> Iterator[tuple[str, Tensor]]:
        """(name, tensor) of every parameter, each once, in the order they were made."""
        seen: set[int] = set()
        for prefix, module in self.named_modules():
            for name, child in module._children():
                if isinstance(child, Tensor) and id(child) not in seen:
                    seen.add(id(child))
                    yield (f"{prefix}.{name}" if prefix else name), child

    def parameters(self) -> list[Tensor]:
        """Every parameter once."""
        return [tensor for _, tensor in self.named_parameters()]

    def count_parameters(self) -> int:
        """How many numbers are learned."""
        return sum(tensor.size for tensor in self.parameters())

    def state_dict(self) -> dict[str, Array]:
        """Name -> the parameter's own array (copy it to keep it)."""
        return {name: tensor.data for name, tensor in self.named_parameters()}

    def load_state_dict(self, state: Mapping[str, Array], strict: bool = True) -> None:
        """Copy arrays into the parameters of the same names; all of them, or none on an error.

        Raises: ValueError — naming every missing, unexpected and mis-shaped entry; with
            strict=False missing and unexpected ones are passed over.
        """
        own = dict(self.named_parameters())
        problems = [
            f"{name}: expected shape {own[name].shape}, got {np.shape(state[name])}"
            for name in own
            if name in state and own[name].shape != np.shape(state[name])
        ]
        problems += [
            f"{name}: expected numbers, got dtype {np.asarray(state[name]).dtype}"
            for name in own
            if name in state and np.asarray(state[name]).dtype.kind not in "fiub"
        ]
        if strict:
            problems += [f"{name}: missing" for name in own if name not in state]
            problems += [f"{name}: unexpected" for name in state if name not in own]
        if problems:
            raise ValueError(
                f"load_state_dict: expected the entries of {type(self).__name__}, got "
                + "; ".join(problems)
                + "; check that the configuration is the one the weights were saved with"
            )
        for name, tensor in own.items():
            if name in state:
                tensor[...] = state[name]

    def zero_grad(self) -> None:
        """Forget every parameter's gradient."""
        for tensor in self.parameters():
            tensor.grad = None

    def train(self, mode: bool = True) -> "Module":
        """Switch dropout on (or off) here and below."""
        for _, module in self.named_modules():
            module.training = mode
        return self

    def eval(self) -> "Module":
        """Switch dropout off here and below."""
        return self.train(False)

    def requires_grad_(self, mode: bool = True) -> "Module":
        """Freeze (False) or unfreeze every parameter here and below."""
        for tensor in self.parameters():
            tensor.requires_grad = mode
        return self

    def freeze(self, *prefixes: str) -> "Module":
        """Freeze the parameters whose name starts with one of `prefixes`.

        Raises: ValueError — a prefix that names nothing.
        """
        named = dict(self.named_parameters())
        frozen: list[str] = []
        for prefix in prefixes:
            chosen = [n for n in named if n == prefix or n.startswith(prefix.rstrip(".") + ".")]
            if not chosen:
                raise ValueError(
                    f"freeze: expected the beginning of a parameter's name, got {prefix!r}; "
                    f"names begin with {sorted({name.split('.')[0] for name in named})}"
                )
            frozen += chosen
        for name in frozen:
            named[name].requires_grad = False
        return self

    def astype(self, dtype: Any) -> "Module":
        """Convert every parameter to float32 or float64.

        Raises: ValueError — another dtype.
        """
        if np.dtype(dtype) not in FLOATS:
            raise ValueError(
                f"astype: expected float32 or float64, got {np.dtype(dtype)}; train in float32"
            )
        for tensor in self.parameters():
            tensor.data = tensor.data.astype(dtype)
            tensor.grad = None
        return self


def layer_groups(model: Module) -> list[list[Tensor]]:
    """The parameters from the bottom up: those before the blocks, of each block, after them.

    The blocks are the items of the lists called `blocks`, wherever in the model they stand. Before
    and after is the order of `named_parameters`: embeddings come first, pooler, final norm and head
    last; either may be none. A tied parameter is in the group of its first name, so
    an output matrix that is the embedding's counts as embedding.

    Raises: ValueError — a model without blocks.
    """
    before: list[Tensor] = []
    blocks: dict[tuple[str, ...], list[Tensor]] = {}
    after: list[Tensor] = []
    for name, tensor in model.named_parameters():
        parts = tuple(name.split("."))
        if "blocks" in parts:
            block = parts[: parts.index("blocks") + 2]  # ("bert", "blocks", "0")
            blocks.setdefault(block, []).append(tensor)
        else:
            (after if blocks else before).append(tensor)
    if not blocks:
        raise ValueError(
            f"layer_groups: expected a model with `blocks`, got {type(model).__name__} without; "
            "pass the model itself, or freeze its parameters by their names"
        )
    return [before, *blocks.values(), after]


@contextmanager
def evaluation_mode(module: Module) -> Iterator[None]:
    """Dropout off inside the block; afterwards every module is in the mode it was in."""
    modes = [(inner, inner.training) for _, inner in module.named_modules()]
    module.eval()
    try:
        yield
    finally:
        for inner, mode in modes:
            inner.training = mode
