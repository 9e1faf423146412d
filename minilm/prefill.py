"""A long prompt read on two cores: its two parts go through the blocks side by side.

Of an earlier position, attention in block i wants the key and value of block i, and nothing else.
So the later part of a prompt can be worked on by another thread than the earlier part, if in each
block it waits until the earlier keys and values are there. All that NumPy does on one core, be it
GELU or the softmax, is then done on two.

Source: Li et al. 2021, arXiv 2102.07988. Differs: there a block belongs to a machine and
the parts follow each other through it; here each part has a thread for all blocks.
"""

import threading
from typing import Any

from minilm import kernels
from minilm.nn import KeyValueCache
from minilm.tensor import Array, no_grad

LONG = 512  # 256 tokens are not read faster in two parts
CORES = 2  # of more than two, BLAS alone makes use in every product
FIRST_SHARE = 9 / 16  # of the positions: the later ones attend to more keys


def last_logits(model: Any, input_ids: Array, caches: list[Any] | None) -> Array:
    """What a causal model expects after the tokens, which it adds to its caches.

    Shapes: (B, T)i -> (B, V)
    """
    long = input_ids.shape[1] >= LONG and kernels.cores() == CORES
    if long and caches and all(type(cache) is KeyValueCache for cache in caches):
        return _in_two_parts(model, input_ids, caches)
    return model(input_ids, caches=caches, logits_to_keep=1).logits.data[:, -1]


def _in_two_parts(model: Any, input_ids: Array, caches: list[KeyValueCache]) -> Array:
    """Both threads of `run_parallel` are taken: `model` may not ask for them itself."""
    size = int(FIRST_SHARE * input_ids.shape[1])
    firsts = [_First(cache) for cache in caches]
    seconds = [_Second(first, size) for first in firsts]

    @no_grad()
    def read_first() -> Array:
        try:
            return model.hidden(input_ids[:, :size], None, firsts, model.rng, 1).data
        finally:
            for first in firsts:  # whatever happened, nobody waits for ever
                first.is_there.set()

    @no_grad()
    def read_second() -> Array:
        output = model(input_ids[:, size:], caches=seconds, logits_to_keep=1)
        return output.logits.data[:, -1]

    with kernels.blas_threads(1):
        return kernels.run_parallel([read_first, read_second])[1]


class _First:
    """A layer's cache as the first part fills it."""

    joined = None  # one product or three: of so many tokens it does not matter

    def __init__(self, cache: KeyValueCache) -> None:
        self.cache, self.is_there = cache, threading.Event()

    @property
    def length(self) -> int:
        return self.cache.length

    def append(self, keys: Array, values: Array) -> tuple[Array, Array]:
        found = self.cache.append(keys, values)
        self.is_there.set()
        return found


class _Second:
    """The same cache as the second part finds it, with `size` more positions before its own."""

    joined = None

    def __init__(self, first: _First, size: int) -> None:
        self.first, self.length = first, first.length + size

    def append(self, keys: Array, values: Array) -> tuple[Array, Array]:
        self.first.is_there.wait()
        if self.first.length != self.length:  # what went wrong there is what the caller will see
            raise ValueError(
                f"prefill: expected {self.length} positions in the cache, got {self.first.length}; "
                "the first part of the prompt could not be read"
            )
        return self.first.cache.append(keys, values)
