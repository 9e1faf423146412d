"""The text-to-text tasks that need no download: dates and numbers written many ways.

    python scripts/written.py        # a few pairs of each task

A prefix names the task, as in T5 (Raffel et al. 2020, arXiv 1910.10683, section 2.4):

    date: the third of November 2024      ->  2024-11-03                    from English or Chinese
    number: seventeen thousand and six    ->  17006                         from English or Chinese
    english: 17006                        ->  seventeen thousand and six
    chinese: 17006                        ->  一万七千零六

A number or date belongs to training, validation or test by a checksum of itself: a model has met
one that is held back in no form, in no language and in no direction.
"""

from collections.abc import Sequence
from datetime import date

import numpy as np
from splits import PARTS, share
from written_dates import written_date
from written_numbers import MOST, chinese, english, pick, written_number

TASKS = ("date", "number", "english", "chinese")
FIRST, LAST = date(1900, 1, 1), date(2099, 12, 31)
ALWAYS = 100  # numbers below are all for training: larger ones are made of their words
ZEROS = 0.25  # digits made zero: where words are left out, or 零 is put in


def part(value: date | int) -> str:
    """Where a number or date belongs: eight tenths are for training."""
    always = not isinstance(value, date) and value < ALWAYS
    return PARTS[0] if always else share(str(value))


def sample_value(task: str, rng: np.random.Generator) -> date | int:
    """A day, each as likely; or a number of any length, often with zeros in it."""
    if task == "date":
        return date.fromordinal(int(rng.integers(FIRST.toordinal(), LAST.toordinal() + 1)))
    n = rng.integers(10 ** rng.integers(3, len(str(MOST)) + 1))
    return int("".join("0" if rng.random() < ZEROS else digit for digit in str(n)))


def sample(
    rng: np.random.Generator, name: str = PARTS[0], tasks: Sequence[str] = TASKS
) -> tuple[str, str]:
    """A source with its prefix, and its target, of one of the tasks and of the part `name`."""
    if name not in PARTS or not tasks or not {*tasks} <= {*TASKS}:
        raise ValueError(
            f"expected one of the parts {PARTS} and some of the tasks {TASKS}, got {name!r} and "
            f"{tasks!r}; give tasks as a list"
        )
    task = pick(tasks, rng)
    value = sample_value(task, rng)
    while part(value) != name:
        value = sample_value(task, rng)
    if isinstance(value, date):
        return f"date: {written_date(value, rng)}", value.isoformat()
    if task == "number":
        return f"number: {written_number(value, rng)}", str(value)
    return f"{task}: {value}", english(value) if task == "english" else chinese(value)


def pairs(
    rng: np.random.Generator, count: int, name: str = PARTS[0], tasks: Sequence[str] = TASKS
) -> list[tuple[str, str]]:
    """So many samples, one drawn after the other."""
    return [sample(rng, name, tasks) for _ in range(count)]


if __name__ == "__main__":
    for task in TASKS:
        for source, target in pairs(np.random.default_rng(0), 16 if task == "date" else 8,
                                    tasks=[task]):  # fmt: skip
            print(f"{source}  ->  {target}")
