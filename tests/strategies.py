"""Inputs drawn from a `Shapes:` line: every letter gets a size of its own.

`(B, T, V), (B, T)i -> ()` reads: a tensor, then integer ids below V, give a scalar. The mark after
a bracket says what is in the array: nothing — numbers that get a gradient; `i` — ids; `b` —
booleans; `c` — numbers without a gradient. An axis may be a letter, a number, or both (`2D`).
Sizes differ from letter to letter, so an op that confuses two axes cannot pass.
"""

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st

Sizes = Mapping[str, int]
Domain = Callable[[np.random.Generator, tuple[int, ...], Sizes], np.ndarray]


class Term(NamedTuple):
    """One array of a `Shapes:` line."""

    axes: tuple[tuple[int, str], ...]  # (factor, letter): 2D is (2, "D"), a plain 2 is (2, "")
    mark: str

    def shape(self, sizes: Sizes) -> tuple[int, ...]:
        return tuple(factor * (sizes[letter] if letter else 1) for factor, letter in self.axes)


class Shapes(NamedTuple):
    """What goes in and what comes out."""

    inputs: tuple[Term, ...]
    output: Term

    @property
    def letters(self) -> str:
        axes = [axis for term in (*self.inputs, self.output) for axis in term.axes]
        return "".join(sorted({letter for _, letter in axes} - {""}))

    def are_distinct(self, sizes: Sizes) -> bool:
        """Whether different axes have different sizes (all 1s are the same axis)."""
        axes = {axis for term in (*self.inputs, self.output) for axis in term.axes}
        return len({Term((axis,), "").shape(sizes) for axis in axes}) == len(axes)


def parse(line: str) -> Shapes:
    """A `Shapes:` line, read.

    >>> parse("(B, 2D), (B)i -> ()").inputs[0].axes
    ((1, 'B'), (2, 'D'))
    """
    terms = []
    for axes, mark in re.findall(r"\(([^()]*)\)([ibc]?)", line):
        pairs = [re.fullmatch(r"(\d*)([A-Z]?)", axis.strip()) for axis in axes.split(",") if axis]
        assert all(pairs), f"cannot read {line!r}"
        terms.append(Term(tuple((int(p[1] or 1), p[2]) for p in pairs if p), mark))
    inputs, _, output = line.partition("->")
    assert output.count("(") == 1 and len(terms) == inputs.count("(") + 1, f"cannot read {line!r}"
    return Shapes(tuple(terms[:-1]), terms[-1])


def shapes_line(function: Callable[..., object]) -> str:
    """What follows `Shapes:` in a docstring."""
    found = re.search(r"Shapes: (.*)", function.__doc__ or "")
    assert found, f"{function.__name__} has no Shapes: line"
    return found[1]


def sizes(shapes: Shapes) -> st.SearchStrategy[dict[str, int]]:
    """A size from 2 to 7 for every letter, no two axes alike."""
    letters = shapes.letters
    drawn = st.permutations(range(2, 8)).map(lambda order: dict(zip(letters, order, strict=False)))
    return drawn.filter(shapes.are_distinct)


seeds = st.integers(0, 2**32 - 1)


# --- Domains: values away from an op's kinks and poles -----------------------------------------


def normal(rng: np.random.Generator, shape: tuple[int, ...], sizes: Sizes) -> np.ndarray:
    """Anything."""
    return rng.normal(size=shape)


def positive(rng: np.random.Generator, shape: tuple[int, ...], sizes: Sizes) -> np.ndarray:
    """From 0.5 to 2."""
    return rng.uniform(0.5, 2, shape)


def nonzero(rng: np.random.Generator, shape: tuple[int, ...], sizes: Sizes) -> np.ndarray:
    """From 0.5 to 2, and the same below zero."""
    return rng.uniform(0.5, 2, shape) * rng.choice([-1, 1], shape)


def apart(rng: np.random.Generator, shape: tuple[int, ...], sizes: Sizes) -> np.ndarray:
    """No two alike: at least 0.1 between any two."""
    size = int(np.prod(shape))
    return 0.1 * (rng.permutation(size) - size // 2).reshape(shape).astype(np.float64)


def halfway(rng: np.random.Generator, shape: tuple[int, ...], sizes: Sizes) -> np.ndarray:
    """No value of `apart`, and at least 0.05 from each of them."""
    return apart(rng, shape, sizes) + 0.05


def ids(rng: np.random.Generator, shape: tuple[int, ...], sizes: Sizes) -> np.ndarray:
    """Integers from 0 to V - 1."""
    return rng.integers(0, sizes["V"], shape)


def some_ignored(rng: np.random.Generator, shape: tuple[int, ...], sizes: Sizes) -> np.ndarray:
    """Integers from 0 to V - 1, about a third of them -100 instead."""
    return np.where(rng.random(shape) < 0.3, -100, ids(rng, shape, sizes))


def booleans(rng: np.random.Generator, shape: tuple[int, ...], sizes: Sizes) -> np.ndarray:
    """Heads or tails."""
    return rng.random(shape) < 0.5


BY_MARK: dict[str, Domain] = {"": normal, "c": normal, "i": ids, "b": booleans}
