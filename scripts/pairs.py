"""Pairs of texts to learn from: the embedded tasks, and files of a user's own."""

import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import written
from splits import PARTS

from minilm import data

Pair = tuple[str, str]
Parts = dict[str, list[Pair]]  # of training, validation and test
TRAIN = {"date": 35_000, "number": 30_000, "english": 20_000, "chinese": 10_000}  # harder: more
VALIDATION, TEST = 100, 500  # of each embedded task
HELD = 1000  # so many sources of a file, at most, are for validation, and as many for the test


def read_parts(tasks: Sequence[str], paths: Sequence[str]) -> dict[str, Parts]:
    """The parts of embedded tasks and of files, a task's name before each source.

    Raises: ValueError — as `read_pairs`, two tasks of one name.
    """
    parts = {
        task: {
            name: written.pairs(np.random.default_rng(0), count, name, [task])
            for name, count in zip(PARTS, (TRAIN[task], VALIDATION, TEST), strict=True)
        }
        for task in dict.fromkeys(tasks)
    }
    for path in map(Path, paths):
        if path.stem in parts:
            raise ValueError(
                f"{path}: expected a name that no other task has, got {path.stem!r} again; rename "
                "the file: what stands before its dot is the task's prefix"
            )
        parts[path.stem] = {
            name: [(f"{path.stem}: {source}", target) for source, target in pairs]
            for name, pairs in split(read_pairs(path)).items()
        }
    return parts


def read_pairs(path: Path) -> list[Pair]:
    """The lines of a file: a source, a tab, a target.

    Raises: ValueError — a line that is no pair, fewer than ten different sources.
    """
    pairs: list[Pair] = []
    for i, line in enumerate("".join(data.read_texts(path)).split("\n"), 1):
        columns = [column.strip() for column in line.split("\t")]
        if columns == [""]:
            continue
        if len(columns) != 2 or not all(columns):
            raise ValueError(
                f"{path}, line {i}: expected a source, a tab and a target, got {line!r:.60}; "
                "leave other columns and empty texts out"
            )
        pairs.append((columns[0], columns[1]))
    different = len({source for source, _ in pairs})
    if different < 10:
        raise ValueError(
            f"{path}: expected at least 10 different sources, got {different}; a tenth is for "
            "validation and a tenth for the test"
        )
    return pairs


def split(pairs: Sequence[Pair]) -> Parts:
    """The last tenth of the sources, HELD at most, for the test, as many before for validation.

    They are ordered by their checksums, so that a source is in one part, with all its targets.
    """
    sources = sorted({source for source, _ in pairs}, key=lambda s: (zlib.crc32(s.encode()), s))
    held = min(HELD, len(sources) // 10)
    place = dict.fromkeys(sources, "train")
    place |= dict.fromkeys(sources[-2 * held :], "validation")
    place |= dict.fromkeys(sources[-held:], "test")
    parts: Parts = {name: [] for name in PARTS}
    for pair in pairs:
        parts[place[pair[0]]].append(pair)
    return parts
