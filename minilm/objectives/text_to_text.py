"""Every task is text in, text out: a prefix names the task, and one model learns several at once.

A batch is {"input_ids": (B, S), "attention_mask": (B, S), "labels": (B, T)}: what an encoder reads,
and what a decoder should write. Padding has attention_mask 0, and labels IGNORE_INDEX.

Source: Raffel et al. 2020, arXiv 1910.10683, sections 2.4 and 3.5.2.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple, Protocol

import numpy as np

from minilm.functional import IGNORE_INDEX
from minilm.objectives.causal import Batch
from minilm.tensor import Array
from minilm.tokenizers import Tokenizer


class Example(NamedTuple):
    """Two rows of tokens: what is read, and what should be written."""

    source: Array
    target: Array


def pad_examples(
    examples: Sequence[Example],
    pad_id: int,
    source_length: int | None = None,
    target_length: int | None = None,
) -> Batch:
    """The examples as a batch, filled up to the lengths, or, without them, to the longest.

    Raises: ValueError — an example that is longer.

    >>> long, short = np.array([5, 6, 1]), np.array([7, 1])
    >>> batch = pad_examples([Example(long, short), Example(short, long)], pad_id=0)
    >>> batch["input_ids"], batch["labels"]
    (array([[5, 6, 1],
           [7, 1, 0]]), array([[   7,    1, -100],
           [   5,    6,    1]]))
    """
    input_ids, real = _stack([example.source for example in examples], pad_id, source_length)
    labels, _ = _stack([example.target for example in examples], IGNORE_INDEX, target_length)
    return {"input_ids": input_ids, "attention_mask": real.astype(np.int64), "labels": labels}


def _stack(rows: Sequence[Array], fill: int, width: int | None) -> tuple[Array, Array]:
    """The rows as one array, and which of its entries are theirs: (B, width), (B, width)."""
    lengths = np.array([len(row) for row in rows], np.int64)
    longest = lengths.max(initial=0)
    width = longest if width is None else width
    if longest > width:
        raise ValueError(
            f"pad_examples: expected rows of at most {width} tokens, got {longest}; cut them, or "
            "give a greater length"
        )
    real = np.arange(width) < lengths[:, None]
    stacked = np.full(real.shape, fill, np.int64)
    stacked[real] = np.concatenate([*rows, np.zeros(0, np.int64)])
    return stacked, real


def _similar(examples: list[Example], pool: int, rng: np.random.Generator) -> list[Example]:
    """One of `pool` parts of equal size into which the examples fall when sorted by length."""
    if pool == 1:
        return examples
    examples = sorted(examples, key=lambda example: len(example.source) + len(example.target))
    size = len(examples) // pool
    start = int(rng.integers(pool)) * size
    return examples[start : start + size]


@dataclass(frozen=True, eq=False)
class TextToText:
    """A task: its `name` and its examples, rows of tokens that end as the model should end them.

    With `pool` > 1 a batch has rows of similar length: that many batches are drawn, sorted by
    length and cut apart, and one of them is taken. Each example is still drawn equally often.

    Raises: ValueError — no examples, pool below 1.
    """

    name: str
    examples: Sequence[Example]
    pad_id: int
    pool: int = 1

    def __post_init__(self) -> None:
        if not len(self.examples) or self.pool < 1:
            raise ValueError(
                f"TextToText: expected examples and pool >= 1, got {len(self.examples)} examples "
                f"of {self.name!r} and pool {self.pool}; look at where they were read from"
            )

    @classmethod
    def of(
        cls,
        name: str,
        texts: Iterable[tuple[str, str]],
        tokenizer: Tokenizer,
        prefix: str = "",
        *,
        pad_id: int,
        eos_id: int,
        max_source: int = 512,
        max_target: int = 512,
        pool: int = 1,
    ) -> "TextToText":
        """The task prefix + source -> target of (source, target) texts.

        A source or target of more than max_source or max_target tokens, eos included, loses its
        end, but not the eos. The tokenizer's template is left out, and special tokens that stand
        in a text are ordinary text.

        Raises: ValueError — no texts, no room for a token and eos.
        Source: Raffel et al. 2020, arXiv 1910.10683, section 2.4.
        """
        if min(max_source, max_target) < 2:
            raise ValueError(
                "TextToText: expected max_source and max_target >= 2, for a token and eos, got "
                f"{max_source} and {max_target}; give the model's max_len"
            )

        def row(text: str, length: int) -> Array:
            ids = tokenizer.encode(text, disallowed_special=())
            return np.array([*ids[: length - 1], eos_id], np.int32)

        examples = [Example(row(prefix + s, max_source), row(t, max_target)) for s, t in texts]
        return cls(name, examples, pad_id, pool)

    def __len__(self) -> int:
        return len(self.examples)

    def draw(self, rng: np.random.Generator, count: int) -> list[Example]:
        """Examples drawn by chance, different ones while there are as many."""
        chosen = rng.choice(len(self), count, replace=count > len(self))
        return [self.examples[i] for i in chosen]

    def sample(self, rng: np.random.Generator, batch_size: int) -> Batch:
        """A batch of examples drawn by chance."""
        drawn = self.draw(rng, batch_size * self.pool)
        return pad_examples(_similar(drawn, self.pool, rng), self.pad_id)

    def evaluation(self, batch_size: int) -> Iterator[Batch]:
        """Every example once, in batches of similar length."""
        lengths = [len(example.source) + len(example.target) for example in self.examples]
        order = np.argsort(lengths, kind="stable")
        for i in range(0, len(order), batch_size):
            rows = [self.examples[j] for j in order[i : i + batch_size]]
            yield pad_examples(rows, self.pad_id)


def mixing_rates(
    sizes: Sequence[float] | Array, cap: float | None = None, temperature: float = 1.0
) -> Array:
    """How large a share of the examples each task has: r_m^(1/T) / Σₙ r_n^(1/T).

    r_m = min(e_m, K) / Σₙ min(e_n, K), of tasks with `sizes` e_m examples, `cap` K, None for none.
    Temperature T = 1 is examples-proportional mixing; T -> ∞ gives all tasks equal shares.

    Shapes: (N) -> (N)
    Raises: ValueError — no sizes; sizes, cap or temperature that are not positive.
    Source: Raffel et al. 2020, arXiv 1910.10683, section 3.5.2.

    >>> mixing_rates([100, 300, 600])
    array([0.1, 0.3, 0.6])
    >>> mixing_rates([100, 300, 600], cap=200)
    array([0.2, 0.4, 0.4])
    >>> mixing_rates([100, 900], temperature=2)
    array([0.25, 0.75])
    """
    counts = np.minimum(np.asarray(sizes, np.float64), np.inf if cap is None else cap)
    if not temperature > 0 or not (cap is None or cap > 0):
        raise ValueError(
            f"mixing_rates: expected temperature > 0 and cap > 0 or None, got {temperature} and "
            f"{cap}; T = 1 without a cap is proportional to the sizes"
        )
    if counts.ndim != 1 or not counts.size or not 0 < counts.min() <= counts.max() < np.inf:
        raise ValueError(
            f"mixing_rates: expected sizes > 0, finite unless there is a cap, got {sizes}; leave "
            "out tasks without examples"
        )
    # The greatest becomes 1, so that no power overflows and not all of them become 0.
    shares = (counts / counts.max()) ** (1 / temperature)
    return shares / shares.sum()


class Task(Protocol):
    """What can be mixed: `TextToText`, `SpanCorruptionBatches`, `PrefixBatches`."""

    @property
    def pad_id(self) -> int: ...

    def draw(self, rng: np.random.Generator, count: int) -> list[Example]: ...

    def evaluation(self, batch_size: int) -> Iterator[Batch]: ...


class MixedTasks:
    """Batches of several tasks: each row's task is drawn on its own, task m with chance rates[m].

    `rates`: see `mixing_rates`. `pool` as in `TextToText`; its own is what counts in a mixture.

    Raises: ValueError — another number of rates, rates that do not sum to 1, different pad_ids.
    Source: Raffel et al. 2020, arXiv 1910.10683, section 3.5.2.
    """

    def __init__(
        self, tasks: Sequence[Task], rates: Sequence[float] | Array, pool: int = 1
    ) -> None:
        self.tasks, self.rates, self.pool = tasks, np.asarray(rates, np.float64), pool
        if (
            self.rates.shape != (len(tasks),)
            or not self.rates.min(initial=0) >= 0
            or not abs(self.rates.sum() - 1) < 1e-9
        ):
            raise ValueError(
                f"MixedTasks: expected for each of {len(tasks)} tasks a rate >= 0, their sum "
                f"1, got {rates}; see mixing_rates"
            )
        pads = {task.pad_id for task in tasks}
        if len(pads) > 1 or pool < 1:
            raise ValueError(
                f"MixedTasks: expected tasks of one pad_id and pool >= 1, got {sorted(pads)} and "
                f"{pool}; make all tasks with one tokenizer"
            )
        self.pad_id = pads.pop()

    def draw(self, rng: np.random.Generator, count: int) -> list[Example]:
        """Examples of tasks drawn by rate, and within a task as it draws them."""
        chosen = rng.choice(len(self.tasks), count, p=self.rates)
        counts = np.bincount(chosen, minlength=len(self.tasks)).tolist()
        drawn = [iter(task.draw(rng, n)) for task, n in zip(self.tasks, counts, strict=True)]
        return [next(drawn[m]) for m in chosen]

    def sample(self, rng: np.random.Generator, batch_size: int) -> Batch:
        """A batch of examples, each of a task drawn by rate."""
        drawn = self.draw(rng, batch_size * self.pool)
        return pad_examples(_similar(drawn, self.pool, rng), self.pad_id)

    def evaluation(self, batch_size: int) -> Iterator[Batch]:
        """All that each task evaluates, one task after the other, whatever the rates."""
        return chain.from_iterable(task.evaluation(batch_size) for task in self.tasks)
