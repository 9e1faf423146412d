"""Models of different families with equally many parameters."""

from bisect import bisect
from typing import Any

import numpy as np

from minilm.models import build_model

FAMILIES: dict[str, dict[str, Any]] = {
    "lstm": dict(n_layers=1, init_std=0.02),
    "llama": dict(n_layers=4, n_heads=4, qk_norm=True, zero_init=True, init_std=0.02),
}
# What is fitted, in steps of what: the first field carries the others with it.
SIZES = {"lstm": (("d_model", 1), ("d_embedding", 1)), "llama": (("d_model", 8), ("d_ff", 1))}
LARGEST, TOLERANCE = 1024, 0.02


def fitted(family: str, target: int, vocab_size: int) -> dict[str, Any]:
    """The family's fields, with sizes that give it about as many parameters as `target`."""

    def count(fields: dict[str, Any]) -> int:
        config = {"vocab_size": vocab_size, **fields}
        return build_model(family, config, np.random.default_rng(0)).count_parameters()

    fields = FAMILIES[family]
    for name, step in SIZES[family]:
        choices = [{**fields, name: size} for size in range(step, LARGEST + 1, step)]
        i = bisect(choices, target, key=count)  # the first that is too large
        fields = min(choices[max(0, i - 1) : i + 1], key=lambda c: abs(count(c) - target))
    if abs(count(fields) - target) > TOLERANCE * target:
        raise ValueError(
            f"{family}: expected sizes that give {target:,} parameters, as many as the n-gram has "
            f"counts, got {count(fields):,} at the nearest; choose another --order"
        )
    return fields
