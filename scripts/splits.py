"""What the fine-tuning script trains on, chooses by, and is judged by."""

import argparse
import sys
import zlib
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import library
import numpy as np

from minilm import finetuning
from minilm.tasks import Example, TextExample, read_task

PARTS = ("train", "validation", "test")


def share(text: str) -> str:
    """Eight tenths of all texts are for training: by checksum, so that a text stays where it is."""
    tenth = zlib.crc32(text.encode()) % 10
    return PARTS[max(0, tenth - 7)]


def key(example: Any) -> str:
    """What must not be in two parts: the text, or what several questions are asked about."""
    return getattr(example, "text", None) or getattr(example, "context", None) or str(example.words)


def text_of(example: Any) -> str:
    """All the words of an example, to learn a vocabulary from."""
    found = vars(example).values()
    return "\n".join(
        part if isinstance(part, str) else " ".join(map(str, part))
        for part in found
        if isinstance(part, str | tuple)
    )


def is_labelled(example: Any) -> bool:
    """Whether it says what should be predicted; a question without an answer does not."""
    names = ("label", "tags", "answers")
    return any(getattr(example, name, None) not in (None, ()) for name in names)


def read_parts(args: argparse.Namespace) -> dict[str, list[Example]]:
    """The task's examples; those parts that no file was given for are taken from the training's.

    Raises: ValueError — a part without examples or without labels, no file for a task that needs
        one, a file for the task that needs none.
    """
    if args.task == "docstrings":
        if args.data or args.validation or args.test or args.skip_bad_rows:
            raise ValueError(
                "--task docstrings: expected no files, got --data, --validation, --test or "
                "--skip-bad-rows; name the files' task with --task"
            )
        return {name: list(rows) for name, rows in library.examples().items()}
    if not args.data:
        raise ValueError(f"--task {args.task}: expected --data FILE, got none")
    parts: dict[str, list[Example]] = {name: [] for name in PARTS}
    for name, flag in zip(PARTS, ("data", "validation", "test"), strict=True):
        files = getattr(args, flag)
        if files:
            reading = read_task(args.task, files, args.skip_bad_rows)
            parts[name] = reading.examples
            if not any(map(is_labelled, reading.examples)):
                raise ValueError(
                    f"--{flag} {' '.join(files)}: expected examples with labels, got none; to "
                    "learn from or to be judged by they need them"
                )
            for error in reading.skipped[:5]:
                print(f"left out: {error}", file=sys.stderr)
            if reading.skipped:
                print(f"{name}: {len(reading.skipped)} malformed rows left out", file=sys.stderr)
    missing = [name for name in PARTS if not parts[name]]
    whole, parts["train"] = parts["train"], []
    for example in whole:
        name = share(key(example))
        parts[name if name in missing else "train"].append(example)
    empty = [name for name in PARTS if not parts[name]]
    if empty:
        raise ValueError(
            f"expected examples for training, validation and test, got none for {empty} of "
            f"{len(whole)}; give more data, or --validation and --test"
        )
    return parts


def per_class(examples: Sequence[Example], count: int, rng: np.random.Generator) -> list[Example]:
    """So many examples of each class, or all of a class that has fewer, in their order."""
    if count < 1:
        raise ValueError(f"--examples-per-class: expected 1 or more, got {count}; 10, say")
    places: dict[Any, list[int]] = defaultdict(list)
    for i, example in enumerate(examples):
        places[getattr(example, "label", None)].append(i)
    chosen = [i for own in places.values() for i in rng.permutation(own)[:count]]
    return [examples[i] for i in sorted(chosen)]


def augmented(
    examples: Sequence[TextExample], copies: int, rng: np.random.Generator
) -> list[Example]:
    """Each single text, and `copies` of it with words left out, swapped or masked."""
    if any(not isinstance(example, TextExample) or example.text_pair for example in examples):
        raise ValueError("--augment: expected a task of single texts, got another one")
    texts = [example.text for example in examples]
    changed = finetuning.augment_texts(texts, [e.label for e in examples], copies, rng, mask="_")
    return [TextExample(text, None, label) for text, label in zip(*changed, strict=True)]
