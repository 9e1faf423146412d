"""Texts of any length: cut into windows that a model can read, and put together again."""

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import numpy as np

from minilm.functional import softmax as softmax_of_tensor
from minilm.tasks.features import Cutter, Features, Row, Tokens
from minilm.tensor import Array, Tensor
from minilm.tokenizers import Tokenizer


def softmax(scores: Array) -> Array:
    """Probabilities, over the last axis."""
    return softmax_of_tensor(Tensor(scores)).data


def last_hidden(output: Any) -> Array:
    """What `predictions.predict` is to read of an encoder's output. Shapes: -> (B, T, C)"""
    return output.last_hidden_state.data


def new_cutter(model: Any, tokenizer: Tokenizer, max_len: int | None = None) -> Cutter:
    """Cuts texts as the model reads them: rows of at most its max_len, the tokenizer's, or this.

    Special tokens in a text count as such, as they do in transformers.
    """
    limit = getattr(model, "window", model.config.max_len)
    limits = [n for n in (limit, tokenizer.model_max_length, max_len) if n is not None]
    cutter = Cutter(tokenizer, min(limits), allowed_special="all")
    if getattr(model.config, "n_token_types", 0) < 2:
        names = cutter.input_names
        cutter.input_names = tuple(name for name in names if name != "token_type_ids")
    return cutter


def cut_rows(cutter: Cutter, i: int, *texts: Tokens, **cut: Any) -> list[Row]:
    """The rows of text i, or of a pair: see `Cutter.windows`.

    Raises: ValueError — an empty text, where the tokenizer adds no special tokens.
    """
    rows = [Row(i, inputs, {}, places) for inputs, places in cutter.windows(*texts, **cut)]
    if not len(rows[0].places):
        raise ValueError(
            "pipeline: expected a text with tokens, got an empty one, and a tokenizer that adds "
            "none; leave it out, or take a tokenizer with special tokens in its template"
        )
    return rows


class Windows:
    """Texts as rows of tokens, windows of a text sharing `stride` (a quarter of a row, if None).

    `join` makes of something for each token of each row (T, ...) something for each text's tokens.
    Of a shared stretch the first half is taken from the window before, the second from the one
    behind: each token from where it sees more on both sides. So a joined text is as one row would
    be: its tokens once, and the special tokens around them.
    """

    def __init__(self, cutter: Cutter, texts: Sequence[Tokens], stride: int | None = None) -> None:
        self.stride = cutter.max_len // 4 if stride is None else stride
        names = [name for name, _ in cutter.template.single]
        self.before = names.index("$A")
        self.behind = len(names) - 1 - self.before
        rows = [
            row
            for i, text in enumerate(texts)
            for row in cut_rows(cutter, i, text, stride=self.stride)
        ]
        self.features = Features((), rows, (), cutter.pad_id)
        self.input_ids = self.join([row.inputs["input_ids"] for row in rows])
        self.places = self.join([row.places for row in rows])

    def join(self, rows: Sequence[Array]) -> list[Array]:
        """For each row -> for each text."""
        return [self._join(parts) for parts in by_text(self.features, rows)]

    def _join(self, parts: Sequence[Array]) -> Array:
        earlier, later = -(-self.stride // 2), self.stride // 2  # how a shared stretch is dealt
        kept, last = [], len(parts) - 1
        for i, part in enumerate(parts):
            start = self.before + earlier if i else 0
            stop = len(part) - (self.behind + later if i < last else 0)
            kept.append(part[start:stop])
        return np.concatenate(kept)


def by_text(features: Features, rows: Sequence[Any]) -> list[list[Any]]:
    """What belongs to the rows, in one list for each text."""
    numbered = zip(features.rows, rows, strict=True)
    return [[item for _, item in own] for _, own in groupby(numbered, lambda pair: pair[0].example)]
