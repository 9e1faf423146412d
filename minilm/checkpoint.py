"""One file that holds everything a run needs to go on: written whole or not at all, and checked.

The file is NumPy's `.npz` (a zip of arrays, each with a checksum) without pickle. One entry is
JSON: the numbers and strings beside the arrays.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from minilm.files import replacing
from minilm.models import build_model
from minilm.tensor import Array

FORMAT = "minilm checkpoint 1"
META = "meta.json"
CHECKPOINT, BEST, CONFIG = "checkpoint.npz", "best.npz", "config.json"


class CheckpointError(ValueError):
    """A checkpoint that is missing, cut short, damaged, or something else."""


def save(path: str | Path, arrays: Mapping[str, Array], meta: Mapping[str, Any]) -> None:
    """Write arrays and JSON-able `meta`; a crash at any moment leaves the old file or the new."""
    text = json.dumps({"format": FORMAT, "arrays": sorted(arrays), **meta}).encode()
    with replacing(Path(path)) as file:
        np.savez(file, **{META: np.frombuffer(text, np.uint8)}, **arrays)  # type: ignore[arg-type]


def load(path: str | Path) -> tuple[dict[str, Array], dict[str, Any]]:
    """The arrays and the meta that `save` was given, read in full before anything is returned.

    Raises: CheckpointError — no such file, a truncated, damaged or foreign one.
    """
    path = Path(path)
    try:
        with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        meta = json.loads(arrays.pop(META).tobytes())
        if meta["format"] != FORMAT:
            raise ValueError(f"format {meta['format']!r}")
        if meta.pop("arrays") != sorted(arrays):  # a zip's table of contents has no checksum
            raise ValueError(f"only the arrays {sorted(arrays)}")
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{path}: expected a checkpoint, got no such file; give the directory of a run"
        ) from error
    except Exception as error:  # damaged bytes can make zip and array readers raise anything
        raise CheckpointError(
            f"{path}: expected a file in the format {FORMAT!r}, got a damaged or foreign one "
            f"({error}); use an older checkpoint or start the run anew"
        ) from error
    return arrays, meta


def write_config(directory: str | Path, config: Mapping[str, Any]) -> None:
    """Write a run's `config.json`, atomically."""
    with replacing(Path(directory) / CONFIG) as file:
        file.write(json.dumps(config, indent=2).encode())


def read_config(directory: str | Path) -> dict[str, Any]:
    """A run's `config.json`.

    Raises: CheckpointError — no such file, or not a run's.
    """
    path = Path(directory) / CONFIG
    try:
        config = json.loads(path.read_bytes())
        if not isinstance(config["model"], str) or not isinstance(config["model_config"], dict):
            raise ValueError("no model in it")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(
            f"{path}: expected the configuration of a run, got {error!r}; give a directory that a "
            "training script left behind"
        ) from error
    return config


def load_model(directory: str | Path) -> Any:
    """The model of a run with its best weights, in evaluation mode.

    Raises: CheckpointError — no such run, or damaged files; ValueError — weights that are not
        the configuration's.
    """
    config = read_config(directory)
    model = build_model(config["model"], config["model_config"], np.random.default_rng(0))
    if not (Path(directory) / BEST).exists():
        raise CheckpointError(
            f"{directory}: expected a run that was evaluated at least once, got one without "
            f"{BEST}; go on with --resume"
        )
    weights, _ = load(Path(directory) / BEST)
    model.load_state_dict(weights)
    model.id2label = {i: str(label) for i, label in enumerate(config.get("labels") or ())}
    model.eval()
    return model


def pack(parts: Mapping[str, Mapping[str, Any]]) -> tuple[dict[str, Array], dict[str, Any]]:
    """Nested state -> (arrays named part/entry, everything else as meta[part][entry])."""
    arrays = {
        f"{part}/{name}": value
        for part, state in parts.items()
        for name, value in state.items()
        if isinstance(value, np.ndarray)
    }
    meta = {
        part: {name: value for name, value in state.items() if not isinstance(value, np.ndarray)}
        for part, state in parts.items()
    }
    return arrays, meta


def unpack(arrays: Mapping[str, Array], meta: Mapping[str, Any], part: str) -> dict[str, Any]:
    """One part of what `pack` made."""
    prefix = f"{part}/"
    own = {n.removeprefix(prefix): a for n, a in arrays.items() if n.startswith(prefix)}
    return {**own, **meta.get(part, {})}
