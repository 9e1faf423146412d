"""Weights in safetensors files: found, checked, and read without a second copy; and written.

    8 bytes                 n, a whole number, the least significant byte first
    n bytes of JSON         name -> {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}
    the numbers             at these offsets, one tensor behind the other

The package `safetensors` copies every array it reads into NumPy's hands, and has no bfloat16 there.
Here a float32 tensor is a view of the mapped file: nothing is read before it is used.
"""

import json
import logging
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from minilm.files import replacing
from minilm.pretrained.files import (
    Fields,
    PretrainedError,
    listed,
    read_object,
    require,
)
from minilm.tensor import Array

logger = logging.getLogger("minilm.pretrained")

SINGLE, INDEX, PICKLES = "model.safetensors", "model.safetensors.index.json", "pytorch_model*.bin"
LONGEST_HEADER = 2**20  # bytes: room for some 9,000 tensors
ALIGNED = 64  # what we write begins at a multiple of so many bytes
BLOCK = 2**20  # numbers converted at a time
COPY = "the file is damaged or was not copied to its end, copy it anew"


def _bfloat16(raw: Array) -> Array:
    """A bfloat16 is the upper half of a float32."""
    return (raw.view("<u2").astype("<u4") << 16).view("<f4")


DECODE: dict[str, Callable[[Array], Array]] = {  # what a parameter may be stored as
    "F64": lambda raw: raw.view("<f8"),
    "F32": lambda raw: raw.view("<f4"),
    "F16": lambda raw: raw.view("<f2"),
    "BF16": _bfloat16,
}
WIDTH = {
    **{"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1, "BOOL": 1},
    **{"I64": 8, "I32": 4, "I16": 2, "I8": 1, "U64": 8, "U32": 4, "U16": 2, "U8": 1},
}  # bytes a number
NAME = {np.dtype(np.float32): "F32", np.dtype(np.float64): "F64"}


class Entry(NamedTuple):
    """Where one tensor lies: bytes `start` to `stop` of a file."""

    path: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


def read_header(path: Path) -> dict[str, Entry]:
    """The tensors of one file, by name.

    Raises: PretrainedError — a file that is not whole, or whose header contradicts itself or it.
    """
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(0)
            length = int.from_bytes(file.read(8), "little")
            room = min(size - 8, LONGEST_HEADER)
            require(0 < length <= room, path, f"a header of 1 to {room} bytes", length, COPY)
            header = json.loads(file.read(length).decode(), object_pairs_hook=_unique)
    except OSError as error:
        raise PretrainedError(f"{path}: expected weights, got {error.strerror}; {COPY}") from error
    except PretrainedError:
        raise
    except (ValueError, RecursionError) as error:
        raise PretrainedError(f"{path}: expected a header in JSON, got {error}; {COPY}") from error
    require(isinstance(header, dict), path, "an object as header", header, COPY)
    header.pop("__metadata__", None)
    entries = {name: _entry(path, name, header[name], 8 + length) for name in header}
    end = 8 + length
    for name, entry in sorted(entries.items(), key=lambda item: item[1].start):
        what = f"{path}: {name!r:.100}"
        gap = f"bytes from {end} on, where the tensor before it ends"
        require(entry.start == end, what, gap, entry.start, COPY)
        end = entry.stop
    require(end == size, path, f"{end} bytes, as its header says", size, COPY)
    return entries


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name that stands there twice")
    return found


def _entry(path: Path, name: str, value: Any, data: int) -> Entry:
    where = f"{path}: {name!r:.100}"
    require(isinstance(value, dict), where, "dtype, shape and data_offsets", value, COPY)
    dtype, shape, offsets = (value.get(key) for key in ("dtype", "shape", "data_offsets"))
    known = isinstance(dtype, str) and dtype in WIDTH
    require(known, where, f"a dtype of {', '.join(WIDTH)}", dtype, COPY)
    require(_is_sizes(shape) and len(shape) <= 8, where, "a shape of up to 8 sizes", shape, COPY)
    ok = _is_sizes(offsets) and len(offsets) == 2
    require(ok, where, "data_offsets of two whole numbers", offsets, COPY)
    needed, given = math.prod(shape) * WIDTH[dtype], offsets[1] - offsets[0]
    require(needed == given, where, f"{needed} bytes for {dtype} of shape {shape}", given, COPY)
    return Entry(path, dtype, tuple(shape), data + offsets[0], data + offsets[1])


def _is_sizes(value: Any) -> bool:
    return isinstance(value, list) and all(type(n) is int and 0 <= n < 2**63 for n in value)


def find_files(directory: Path) -> dict[str, Entry]:
    """Every tensor of a directory: of its one file, or of the shards that its index names.

    Raises: PretrainedError — no weights, weights as a pickle, an index that contradicts its files
        or names a file outside of the directory.
    """
    if (directory / SINGLE).is_file():
        return read_header(directory / SINGLE)
    if not (directory / INDEX).is_file():
        pickled = sorted(path.name for path in directory.glob(PICKLES))
        convert = (
            "a pickle can run any program when it is opened: save the model with transformers "
            "as safetensors, AutoModel.from_pretrained(...).save_pretrained(...)"
        )
        got = f"the pickle {pickled[0]}" if pickled else "neither"
        fix = convert if pickled else "give a directory that holds weights, or copy them there"
        require(False, directory, f"{SINGLE} or {INDEX}", got, fix)
    path = directory / INDEX
    mapped = Fields(read_object(path), path).inner("weight_map").values
    shards = sorted(set(map(str, mapped.values())))
    for shard in shards:
        fix = "shards stand beside their index: copy the directory anew"
        require(is_plain(shard), path, "the plain names of files", shard, fix)
    found = {shard: read_header(directory / shard) for shard in shards}
    missing = [name for name, shard in mapped.items() if name not in found[str(shard)]]
    ok = bool(mapped) and not missing
    require(ok, path, "each tensor in its shard", f"missing {listed(missing)}", COPY)
    return {name: found[str(shard)][name] for name, shard in mapped.items()}


def is_plain(name: str) -> bool:
    """Whether a name stays in its directory."""
    return name != ".." and not set(name) & set("/\\:\0")


class Weights:
    """The tensors of a directory by their names, of which "a|b" means a, or where it is absent b.

    A model's body may be stored with or without `prefix`, as it was saved with or without a head.
    """

    def __init__(self, directory: Path, prefix: str = "") -> None:
        self.directory = directory
        self.entries = {
            # as the first BERTs call them
            name.replace("LayerNorm.gamma", "LayerNorm.weight").replace(
                "LayerNorm.beta", "LayerNorm.bias"
            ): entry
            for name, entry in find_files(directory).items()
        }
        self.prefix = "" if any(name.startswith(prefix) for name in self.entries) else prefix
        self._maps: dict[Path, Array] = {}

    def find(self, names: str) -> list[str]:
        """Which of the alternatives are there."""
        stored = (name.removeprefix(self.prefix) for name in names.split("|"))
        return [name for name in stored if name in self.entries]

    def shape(self, names: str) -> tuple[int, ...] | None:
        """The shape of a tensor, None where it is absent."""
        found = self.find(names)
        return self.entries[found[0]].shape if found else None

    def layers(self, name: str) -> int:
        """How many tensors have this name, where # is a number."""
        pattern = re.compile(re.escape(name.removeprefix(self.prefix)).replace(r"\#", r"\d+"))
        return sum(bool(pattern.fullmatch(stored)) for stored in self.entries)

    def tied(self, one: str, other: str) -> bool:
        """Whether a configuration that says they are one matrix may be believed.

        Where both are there and differ, they are two, as in transformers.
        """
        first, second = self.find(one), self.find(other)
        if not first or not second or self.same(first[0], second[0]):
            return True
        logger.warning("%s: said to be tied, but different: %s, %s", self.directory, one, other)
        return False

    def read(self, name: str) -> Array:
        """A tensor as float32: a view of the file where it is that, else converted by blocks.

        The view can be written to: what is written stays in memory.

        Raises: PretrainedError — numbers that no parameter can be.
        """
        entry = self.entries[name]
        where = f"{entry.path}: {name!r:.100}"
        fix = "quantised weights are not read here: take the ones they were made from"
        require(entry.dtype in DECODE, where, f"a dtype of {', '.join(DECODE)}", entry.dtype, fix)
        if entry.dtype == "F32" and entry.start % 4 == 0:
            mapped = self._mapped(entry.path)
            return mapped[entry.start : entry.stop].view("<f4").reshape(entry.shape)
        array = np.empty(math.prod(entry.shape), np.float32)
        at = 0
        with np.errstate(over="ignore", invalid="ignore"):
            for raw in self._blocks(entry):
                block = DECODE[entry.dtype](raw)
                array[at : at + len(block)] = block
                at += len(block)
        return array.reshape(entry.shape)

    def same(self, one: str, other: str) -> bool:
        """Whether two tensors are equal to the last bit, read a block at a time."""
        a, b = self.entries[one], self.entries[other]
        if (a.dtype, a.shape) != (b.dtype, b.shape):
            return False
        pairs = zip(self._blocks(a), self._blocks(b), strict=True)
        return all(np.array_equal(left, right) for left, right in pairs)

    def _mapped(self, path: Path) -> Array:
        if path not in self._maps:
            # "c": copied page by page when written to, the file stays as it is
            self._maps[path] = np.asarray(np.memmap(path, np.uint8, "c"))
        return self._maps[path]

    def _blocks(self, entry: Entry) -> Iterator[Array]:
        """The tensor's bytes, a block at a time."""
        step = BLOCK * WIDTH[entry.dtype]
        with entry.path.open("rb") as file:
            file.seek(entry.start)
            for at in range(entry.start, entry.stop, step):
                size = min(step, entry.stop - at)
                raw = np.fromfile(file, np.uint8, size)
                require(len(raw) == size, entry.path, f"{size} more bytes", len(raw), COPY)
                yield raw


class Stored(NamedTuple):
    """A tensor to be written: arrays behind one another on the first axis, transposed or not."""

    parts: Sequence[Array]
    transposed: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        rows = sum(len(part) for part in self.parts), *self.parts[0].shape[1:]
        return rows[::-1] if self.transposed else rows

    def array(self) -> Array:
        joined = self.parts[0] if len(self.parts) == 1 else np.concatenate(self.parts)
        return np.ascontiguousarray(joined.T if self.transposed else joined)


def write(path: Path, tensors: Mapping[str, Stored]) -> None:
    """Write a safetensors file, whole or not at all, one tensor in memory at a time."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, tensor in tensors.items():
        dtype = NAME[tensor.parts[0].dtype]
        stop = at + math.prod(tensor.shape) * WIDTH[dtype]
        header[name] = {"dtype": dtype, "shape": tensor.shape, "data_offsets": [at, stop]}
        at = stop
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % ALIGNED)
    with replacing(path) as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for tensor in tensors.values():
            array = tensor.array()
            array.astype(array.dtype.newbyteorder("<"), copy=False).tofile(file)
