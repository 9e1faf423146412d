"""What a task file holds, read: one record per question that a model is asked."""

from dataclasses import dataclass


@dataclass(frozen=True)
class TextExample:
    """A text, or a pair, and its label: a class's name, or a number for a regression."""

    text: str
    text_pair: str | None = None
    label: str | float | None = None  # None: unlabelled, to be predicted


@dataclass(frozen=True)
class ChoiceExample:
    """A context, and endings of which one is right."""

    context: str
    choices: tuple[str, ...]
    label: int | None = None  # the right one's index
    question: str = ""  # stands before each choice


@dataclass(frozen=True)
class SpanExample:
    """A question whose answer is a stretch of the context, or, without answers, none."""

    id: str
    question: str
    context: str
    answers: tuple[tuple[int, str], ...] = ()  # (where in the context it starts, its text)


@dataclass(frozen=True)
class TaggedExample:
    """Words, each with its tag."""

    words: tuple[str, ...]
    tags: tuple[str, ...] | None = None


Example = TextExample | ChoiceExample | SpanExample | TaggedExample
