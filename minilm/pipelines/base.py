"""What every pipeline shares: its calls, for one input, a list, or whatever comes."""

import inspect
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from minilm.tokenizers import Tokenizer


class Pipeline:
    """Text in, answer out: a model, its tokenizer, and what a call means unless it says otherwise.

    A subclass says which models it is for, and gives `answers`: to each input of a list, with the
    arguments of a call by name.

    Raises: ValueError — a batch_size below 1; TypeError — an argument that `answers` does not have.
    """

    head: str | None = None  # what `from_pretrained` is to put on the model
    kinds: tuple[type[Any], ...] = ()  # of models that will do

    def __init__(
        self, task: str, model: Any, tokenizer: Tokenizer, batch_size: int = 1, **defaults: Any
    ) -> None:
        self.task, self.model, self.tokenizer, self.batch_size = task, model, tokenizer, batch_size
        self.defaults = defaults
        if not isinstance(model, self.kinds):
            names = " or ".join(kind.__name__ for kind in self.kinds)
            raise ValueError(
                f"{task}: expected a model of {names}, got {type(model).__name__}; take a model "
                "that was trained for this task"
            )
        self._check(batch_size, defaults)

    def __call__(self, inputs: Any, *, batch_size: int | None = None, **arguments: Any) -> Any:
        """The answer to an input; a list of answers to a list; to an iterator, a generator of them.

        The generator reads `batch_size` inputs ahead, no more.
        """
        size = self.batch_size if batch_size is None else batch_size
        self._check(size, arguments)
        arguments = self.prepare(self.override(self.defaults, arguments))
        if isinstance(inputs, Iterator):
            return self._stream(inputs, size, arguments)
        if isinstance(inputs, list | tuple):
            return self.answers(list(inputs), size, **arguments)
        return self.answers([inputs], size, **arguments)[0]

    def _stream(
        self, inputs: Iterator[Any], size: int, arguments: Mapping[str, Any]
    ) -> Iterator[Any]:
        while batch := list(islice(inputs, size)):
            yield from self.answers(batch, size, **arguments)

    def answers(self, *args: Any, **kwargs: Any) -> list[Any]:
        """(inputs, batch_size, and arguments by name) -> an answer to each of the inputs."""
        raise NotImplementedError(f"{type(self).__name__} needs an answers method")

    def override(self, below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments of both, those `above` where both say something."""
        return {**below, **above}

    def prepare(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """What of the arguments need be worked out once for all inputs of a call."""
        return arguments

    def argument_names(self) -> set[str]:
        """What a call may say beside its inputs and batch_size."""
        parameters = inspect.signature(self.answers).parameters.values()
        return {p.name for p in parameters if p.kind is p.KEYWORD_ONLY}

    def _check(self, batch_size: int, arguments: Mapping[str, Any]) -> None:
        if batch_size < 1:
            raise ValueError(
                f"{self.task}: expected batch_size >= 1, got {batch_size}; 1 is enough"
            )
        known = self.argument_names()
        unknown = ", ".join(sorted(set(arguments) - known))
        if unknown:
            raise TypeError(
                f"{self.task}: expected arguments among {', '.join(sorted(known))}, got {unknown}; "
                "leave them out"
            )

    def check_texts(self, inputs: list[Any]) -> list[str]:
        """Raises: TypeError — an input that is not a text."""
        for text in inputs:
            if not isinstance(text, str):
                raise TypeError(
                    f"{self.task}: expected a text, a list of texts or an iterator of them, got "
                    f"{text!r:.60} of type {type(text).__name__}; give one input as a str"
                )
        return inputs
