"""How a model and a directory belong together: classes, names of parameters, how they are laid."""

import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from minilm.models.base import Model
from minilm.pretrained.files import SHOWN, Fields, listed, require
from minilm.pretrained.weights import Weights
from minilm.tensor import Array, Tensor

logger = logging.getLogger("minilm.pretrained")

Names = dict[str, str]  # a module or parameter here -> there; # is the number of a layer


@dataclass(frozen=True)
class Head:
    """A model class here, and by which `architectures` of transformers it is meant; first is ours.

    `parts` are the beginnings of the names of parameters that may be new, since a directory of
    another head does not have them.
    """

    model: type[Any]
    architectures: tuple[str, ...]
    parts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Architecture:
    """One value of `model_type`, and all that is special about it."""

    model_type: str
    prefix: str  # of the body's names in a directory of a model with a head
    heads: Mapping[str, Head]
    read_config: Callable[[Fields, Weights, str, Mapping[str, Any]], Any]
    write_config: Callable[[Any, str], dict[str, Any]]
    names: Callable[[Any, str], Names]
    transposed: tuple[str, ...] = ()  # weights here that are stored as (in, out)
    ignored: tuple[str, ...] = ()  # what old versions stored and nobody reads


class Place(NamedTuple):
    """One tensor of a directory and the parameters it holds, one behind the other."""

    stored: str  # or several names "a|b": a, or where it is absent b
    names: list[str]
    tensors: list[Tensor]
    transposed: bool

    @property
    def shape(self) -> tuple[int, ...]:
        rows = sum(tensor.shape[0] for tensor in self.tensors), *self.tensors[0].shape[1:]
        return rows[::-1] if self.transposed else rows


def find_places(model: Model, architecture: Architecture, head: str) -> list[Place]:
    """Where each parameter of a model stands in a directory."""
    table = architecture.names(model.config, head)
    places: dict[str, Place] = {}
    for name, tensor in model.named_parameters():
        number = re.search(r"\.(\d+)\.", name)
        pattern = re.sub(r"\.\d+\.", ".#.", name, count=1)
        module, _, kind = pattern.rpartition(".")
        if pattern in table:
            stored = table[pattern]
        else:
            stored = "|".join(f"{other}.{kind}" for other in table[module].split("|"))
        if number:
            stored = stored.replace("#", number[1])
        transposed = pattern in architecture.transposed
        place = places.setdefault(stored, Place(stored, [], [], transposed))
        place.names.append(name)
        place.tensors.append(tensor)
    return list(places.values())


def check_sizes(config: Any, weights: Weights, architecture: Architecture, head: str) -> None:
    """Hold a configuration to the weights before anything of its sizes is made.

    Raises: PretrainedError — more layers, or other sizes, than are stored.
    """
    width = getattr(config, "d_kv", None) or config.d_model // config.n_heads
    hidden = getattr(config, "hidden_width", None) or config.d_ff or 4 * config.d_model
    decoders = getattr(config, "n_decoder_layers", None) or config.n_layers
    rows = {"token_embedding": config.vocab_size, "feed_forward.up": hidden}
    if architecture.model_type != "gpt2":  # whose queries, keys and values are one matrix
        rows["attention.q"] = config.n_heads * width
    fix = "config.json and the weights do not belong together: copy both anew"
    for ours, theirs in architecture.names(config, head).items():
        module = ours.removeprefix("bert.")
        layers = decoders if module.startswith("decoder.") else config.n_layers
        if ours.endswith("norm1"):
            found = weights.layers(f"{theirs}.weight")
            expected = f"{theirs} for each of {layers} layers"
            require(found >= layers, weights.directory, expected, f"{found} of them", fix)
        size = rows.get(module if "#" not in module else module.split("#.")[1])
        if size is not None:
            sizes = (size, config.d_model)
            if f"{module}.weight" in architecture.transposed:
                sizes = sizes[::-1]
            stored = "|".join(f"{name}.weight" for name in theirs.split("|")).replace("#", "0")
            shape = weights.shape(stored)
            got = "none" if shape is None else f"shape {shape}"
            require(shape == sizes, weights.directory, f"{stored} of shape {sizes}", got, fix)


class LaterDraws:
    """Stands in for a Generator while a model is built whose weights will be read.

    It notes what was to be drawn, and hands out one zero, seen as an array of the right shape: that
    takes neither time nor memory. `draw` makes up for it where a parameter stays without a weight.
    """

    def __init__(self) -> None:
        self.noted: dict[int, tuple[Array, str, tuple[Any, ...]]] = {}

    def normal(self, *arguments: Any) -> Array:
        return self._note("normal", arguments)

    def uniform(self, *arguments: Any) -> Array:
        return self._note("uniform", arguments)

    def _note(self, method: str, arguments: tuple[Any, ...]) -> Array:
        array = np.broadcast_to(np.float32(0), arguments[-1])
        self.noted[id(array)] = (array, method, arguments)
        return array

    def draw(self, tensor: Tensor, rng: np.random.Generator) -> None:
        """Give a parameter the values that a new model begins with."""
        if id(tensor.data) in self.noted:
            _, method, arguments = self.noted[id(tensor.data)]
            tensor.data = getattr(rng, method)(*arguments).astype(np.float32)


def fill(
    model: Model,
    weights: Weights,
    architecture: Architecture,
    head: str,
    draws: LaterDraws,
    rng: np.random.Generator | None,
    renewed: tuple[str, ...] = (),
) -> None:
    """Give every parameter its weights; what the head lacks is drawn from `rng`.

    `renewed` are the beginnings of the names of parameters to be drawn although they are stored.

    Raises: PretrainedError — missing weights, wrong shapes; the model is of no use then.
    """
    stored: list[Place] = []
    new: list[Place] = []
    for place in find_places(model, architecture, head):
        found = weights.find(place.stored)
        other = place.names[0].startswith(renewed) and weights.shape(place.stored) != place.shape
        (new if not found or other else stored).append(place)
    _check(weights, stored, new, architecture.heads[head].parts, rng)
    used: set[str] = set()
    for tensor in (tensor for place in new for tensor in place.tensors):
        assert rng is not None
        draws.draw(tensor, rng)
    for place in stored:
        first, *others = weights.find(place.stored)
        used |= {first, *(name for name in others if weights.same(name, first))}
        array = weights.read(first)
        array = array.T if place.transposed else array
        start = 0
        for tensor in place.tensors:
            tensor.data = array[start : start + tensor.shape[0]]
            start += tensor.shape[0]
    _report(weights, architecture, new, used)


def _check(
    weights: Weights,
    stored: list[Place],
    new: list[Place],
    parts: tuple[str, ...],
    rng: np.random.Generator | None,
) -> None:
    """Raises: PretrainedError — unless every weight is there that must be, in its shape."""
    where = weights.directory
    missing = [p.stored.split("|")[0] for p in new if not p.names[0].startswith(parts)]
    fix = "the directory is of another model than its config.json says, or incomplete"
    require(not missing, where, "the weights of every layer", f"none for {listed(missing)}", fix)
    wrong = [
        f"{name} of shape {weights.shape(name)} for {place.shape}"
        for place in stored
        if weights.shape(name := weights.find(place.stored)[0]) != place.shape
    ]
    fix = "config.json and the weights do not belong together: copy both anew"
    require(not wrong, where, "the shapes of config.json", "; ".join(wrong[:SHOWN]), fix)
    heads = [name for place in new for name in place.names]
    got = f"none for {listed(heads)}"
    fix = "pass rng=np.random.default_rng(seed) to begin a new head, or ask for one that is there"
    require(rng is not None or not new, where, "the head's weights", got, fix)


def _report(weights: Weights, architecture: Architecture, new: list[Place], used: set[str]) -> None:
    """Log which weights were made up and which were left out, as transformers does."""
    if new:
        names = [name for place in new for name in place.names]
        logger.warning("%s: new, to be trained: %s", weights.directory, ", ".join(names))
    unused = [
        name
        for name in sorted(set(weights.entries) - used)
        if not any(re.search(pattern, name) for pattern in architecture.ignored)
    ]
    if unused:
        logger.warning("%s: not used: %s", weights.directory, listed(unused))
