"""The error of this room, and JSON read with mistrust: a field is checked where it is asked for."""

import json
import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from minilm.files import replacing

logger = logging.getLogger("minilm.pretrained")

LARGEST = 2**31 - 1  # of a whole number: products of two sizes still fit into 64 bits
LONGEST_JSON = 2**22  # bytes: a configuration has some thousand
SHOWN = 8  # names in a message, of a list that may have thousands


class PretrainedError(ValueError):
    """A directory that is incomplete, damaged, foreign, or holds what minilm has no model for."""


def require(ok: bool, where: object, expected: str, got: object, fix: str) -> None:
    """Raises: PretrainedError — unless `ok`."""
    if not ok:
        shown = got if isinstance(got, str) else f"{got!r:.100}"
        raise PretrainedError(f"{where}: expected {expected}, got {shown}; {fix}")


def listed(names: list[str]) -> str:
    """The first few names, and how many more there are."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(f"{name!r:.100}" for name in names[:SHOWN]) + more


def read_json(path: Path) -> Any:
    """What stands in a JSON file.

    Raises: PretrainedError — no such file, or not JSON.
    """
    try:
        size = path.stat().st_size
        require(size <= LONGEST_JSON, path, f"at most {LONGEST_JSON} bytes", size, "copy it anew")
        return json.loads(path.read_bytes())
    except OSError as error:
        raise PretrainedError(
            f"{path}: expected a file of a model's directory, got {error.strerror}; give the "
            "directory that save_pretrained wrote, here or in transformers"
        ) from error
    except PretrainedError:
        raise
    except (ValueError, RecursionError) as error:
        raise PretrainedError(
            f"{path}: expected JSON, got {error}; the file is damaged, copy it anew"
        ) from error


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises: PretrainedError — as `read_json`, or another kind of value.
    """
    content = read_json(path)
    damaged = "the file is damaged or of another kind, copy it anew"
    require(isinstance(content, dict), path, "a JSON object", content, damaged)
    return content


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file, whole or not at all."""
    with replacing(path) as file:
        file.write((json.dumps(content, indent=2) + "\n").encode())


class Fields:
    """The entries of a JSON object, each with the value that it has where it is absent or null.

    Raises: PretrainedError — an entry of another type or out of its range, naming it.
    """

    def __init__(self, values: Mapping[str, Any], where: object) -> None:
        self.values, self.where = values, where

    def get(self, name: str, default: Any = None) -> Any:
        value = self.values.get(name)
        return default if value is None else value

    def _check(self, ok: bool, name: str, expected: str) -> Any:
        value = self.values.get(name)
        require(ok, self.where, f"{name} to be {expected}", value, "correct the file, or copy it")
        return value

    def whole(self, name: str, default: int, least: int = 1, most: int = LARGEST) -> int:
        value = self.get(name, default)
        ok = type(value) is int and least <= value <= most
        self._check(ok, name, f"a whole number from {least} to {most}")
        return value

    def number(self, name: str, default: float, least: float = 0.0) -> float:
        value = self.get(name, default)
        ok = type(value) in (int, float) and abs(value) < 1e300 and value >= least
        self._check(ok and math.isfinite(value), name, f"a number >= {least}")
        return float(value)

    def dropout(self, name: str, default: float, *others: str) -> float:
        """The share that is dropped in training; of others that should be as large, a warning."""
        share = self.number(name, default)
        different = [other for other in others if self.number(other, default) != share]
        if different:
            logger.warning(
                "%s: %s is %s: in training minilm drops %s = %s there as well",
                *(self.where, " and ".join(different), self.number(different[0], default)),
                *(name, share),
            )
        return share

    def flag(self, name: str, default: bool) -> bool:
        value = self.get(name, default)
        self._check(type(value) is bool, name, "true or false")
        return value

    def text(self, name: str, default: str = "") -> str:
        value = self.get(name, default)
        self._check(isinstance(value, str), name, "a string")
        return value

    def texts(self, name: str) -> list[str]:
        value = self.get(name, [])
        ok = isinstance(value, list) and all(isinstance(item, str) for item in value)
        self._check(ok, name, "a list of strings")
        return value

    def inner(self, name: str) -> "Fields":
        value = self.get(name, {})
        self._check(isinstance(value, dict), name, "an object")
        return Fields(value, f"{self.where}: {name}")

    def only(self, name: str, *allowed: Any) -> None:
        """An entry that changes the mathematics, and of which only these values are known here.

        It may be absent where the first of them is what is meant then.
        """
        value = self.get(name, allowed[0])
        ok = any(type(value) is type(item) and value == item for item in allowed)
        known = " or ".join(map(json.dumps, allowed))
        fix = f"minilm computes with no other {name}: choose another model, or transformers"
        require(ok, self.where, f"{name} to be {known}", value, fix)
