"""Texts to arrays: templates, truncation, windows and padding around what `encode` gives."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from minilm.tokenizers.template import Piece, Template

Array = np.ndarray[Any, np.dtype[Any]]
PADDING = (True, False, "longest", "max_length")
TRUNCATION = (True, False, "longest_first", "only_first", "only_second")


@dataclass
class Encoding:
    """Rows of tokens, and what stands where.

    `model(**encoding)` passes what the tokenizer's models take (`names`); encoding["input_ids"]
    is encoding.input_ids.
    """

    input_ids: Array  # (B, T)
    attention_mask: Array  # (B, T), 1 for a token, 0 for padding
    token_type_ids: Array  # (B, T), which of two texts a token belongs to
    special_tokens_mask: Array  # (B, T), 1 for what template and padding put there
    offset_mapping: Array  # (B, T, 2), a token's start and end in its text; 0, 0 in the template
    overflow_to_sample_mapping: Array  # (B,), which text a row was cut from
    names: tuple[str, ...]

    def keys(self) -> tuple[str, ...]:
        """The names of what a model takes."""
        return self.names

    def __getitem__(self, name: str) -> Array:
        return getattr(self, name)


class _Tokens(NamedTuple):
    """The tokens of one text, or a window of them."""

    ids: list[int]
    spans: list[tuple[int, int]]

    def window(self, start: int, stop: int) -> "_Tokens":
        return _Tokens(self.ids[start:stop], self.spans[start:stop])


class _Row(NamedTuple):
    """One row, not yet padded; each list has an entry per token."""

    ids: list[int]
    types: list[int]
    special: list[int]
    spans: list[tuple[int, int]]


def encode_texts(
    tokenizer: Any,
    template: Template,
    texts: str | Sequence[str],
    text_pair: str | Sequence[str] | None = None,
    padding: bool | str = False,
    truncation: bool | str = False,
    max_length: int | None = None,
    stride: int | None = None,
    **special: Any,
) -> Encoding:
    """Encode texts, each with its partner from `text_pair`, into arrays of equally long rows.

    padding: "longest" (or True) fills rows up to the longest, "max_length" to max_length.
    truncation: "longest_first" (or True) cuts a pair's longer text first, "only_first" and
    "only_second" that one of the two; what is left is max_length tokens, template included.
    stride: instead of being cut, a long text becomes several rows whose windows share `stride`
    tokens; `overflow_to_sample_mapping` says whose.

    Raises: ValueError — arguments that contradict each other, rows of different lengths without
        padding, a text that cannot be cut to max_length.
    """
    first = [texts] if isinstance(texts, str) else list(texts)
    second = [text_pair] if isinstance(text_pair, str) else text_pair
    if second is not None and len(second) != len(first):
        raise ValueError(
            f"tokenizer: expected a second text for each first, got {len(first)} and "
            f"{len(second)}; encode single texts in a call of their own"
        )
    _check_options(padding, truncation, max_length, stride, second is not None)
    rows: list[_Row] = []
    samples: list[int] = []
    for i, text in enumerate(first):
        a = _Tokens(*tokenizer.encode_with_offsets(text, **special))
        b = (
            None
            if second is None
            else _Tokens(*tokenizer.encode_with_offsets(second[i], **special))
        )
        form = template.single if b is None else template.pair
        for part_a, part_b in _fit(a, b, len(form), truncation, max_length, stride):
            rows.append(_assemble(form, part_a, part_b, tokenizer.special_tokens))
            samples.append(i)
    length = max((len(row.ids) for row in rows), default=0)
    if padding == "max_length" and max_length is not None:
        length = max(length, max_length)
    return _stack(rows, samples, length, bool(padding), tokenizer)


def _check_options(
    padding: bool | str,
    truncation: bool | str,
    max_length: int | None,
    stride: int | None,
    pairs: bool,
) -> None:
    for name, value, choices in (
        ("padding", padding, PADDING),
        ("truncation", truncation, TRUNCATION),
    ):
        if value not in choices:
            raise ValueError(
                f"tokenizer: expected {name} to be one of {choices}, got {value!r}; True is the "
                "usual one"
            )
    if max_length is None and (truncation or padding == "max_length"):
        raise ValueError(
            "tokenizer: expected max_length with truncation or padding='max_length', got None; "
            "give the model's max_len"
        )
    if stride is not None and not truncation:
        raise ValueError("tokenizer: expected truncation with stride, got none; pass it too")
    if truncation == "only_second" and not pairs:
        raise ValueError(
            "tokenizer: expected pairs with 'only_second', got single texts; give truncation=True"
        )
    if stride is not None and pairs and truncation in (True, "longest_first"):
        raise ValueError(
            "tokenizer: expected truncation 'only_first' or 'only_second' for windows of pairs, "
            f"got {truncation!r}; say which of the two is cut into windows"
        )


def _fit(
    a: _Tokens,
    b: _Tokens | None,
    pieces: int,
    truncation: bool | str,
    max_length: int | None,
    stride: int | None,
) -> Iterator[tuple[_Tokens, _Tokens | None]]:
    """The text, or pair, cut to what max_length leaves beside the template: one row or several."""
    size_a, size_b = len(a.ids), 0 if b is None else len(b.ids)
    if not truncation or max_length is None:
        yield a, b
        return
    room = max_length - (pieces - (1 if b is None else 2))
    if b is not None and truncation in (True, "longest_first"):
        keep_a, keep_b = _longest_first(size_a, size_b, max(0, room))
        if room < 0:
            raise _no_room(max_length, room)
        yield a.window(0, keep_a), b.window(0, keep_b)
        return
    cut_second = truncation == "only_second"
    long, other = (b, size_a) if cut_second and b is not None else (a, size_b)
    room -= other
    if room < (0 if stride is None else stride + 1) and len(long.ids) > room:
        raise _no_room(max_length, room)
    for start, stop in _windows(len(long.ids), room, stride):
        part = long.window(start, stop)
        yield (a, part) if cut_second else (part, b)


def _windows(size: int, room: int, stride: int | None) -> Iterator[tuple[int, int]]:
    """(start, stop) of the windows: the first alone, or, with a stride, as many as it takes."""
    start = 0
    while stride is not None and start + room < size:
        yield start, start + room
        start += room - stride
    yield start, min(size, start + room)


def _longest_first(size_a: int, size_b: int, room: int) -> tuple[int, int]:
    """How much is left of two texts: the shorter one whole, if it takes no more than half."""
    if size_a + size_b <= room:
        return size_a, size_b
    half = room // 2
    if size_a > size_b:
        keep_b = min(size_b, half)
        return room - keep_b, keep_b
    keep_a = min(size_a, half)
    return keep_a, room - keep_a


def _no_room(max_length: int, room: int) -> ValueError:
    return ValueError(
        f"tokenizer: expected room for a text, and for more than stride, got {room} of max_length "
        f"{max_length} beside the template and the other text; raise max_length"
    )


def _assemble(
    form: Sequence[Piece], a: _Tokens, b: _Tokens | None, special_ids: dict[str, int]
) -> _Row:
    """The template with the texts in their places."""
    row = _Row([], [], [], [])
    for name, type_id in form:
        text = {"$A": a, "$B": b}.get(name)
        ids, spans = ([special_ids[name]], [(0, 0)]) if text is None else text
        row.ids.extend(ids)
        row.types.extend([type_id] * len(ids))
        row.special.extend([int(text is None)] * len(ids))
        row.spans.extend(spans)
    return row


def _stack(
    rows: Sequence[_Row], samples: list[int], length: int, padding: bool, tokenizer: Any
) -> Encoding:
    lengths = [len(row.ids) for row in rows]
    short = min(lengths, default=length) < length
    if short and not padding:
        raise ValueError(
            f"tokenizer: expected rows of one length, got {min(lengths)} to {length} tokens; "
            "pass padding=True, or one text at a time"
        )
    if short and tokenizer.pad_token is None:
        raise ValueError(
            "tokenizer: expected a special token to pad with, got none; "
            "make the tokenizer with special_tokens=['<pad>']"
        )
    shape = (len(rows), length)
    pad_id = tokenizer.pad_token_id if short else 0
    input_ids = np.full(shape, pad_id, np.int64)
    mask, types = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    special = np.ones(shape, np.int64)
    spans = np.zeros((*shape, 2), np.int64)
    for i, row in enumerate(rows):
        start = length - lengths[i] if tokenizer.padding_side == "left" else 0
        at = i, slice(start, start + lengths[i])
        input_ids[at], types[at], special[at], mask[at] = row.ids, row.types, row.special, 1
        spans[at] = np.reshape(row.spans, (-1, 2))
    sample = np.array(samples, np.int64)
    return Encoding(input_ids, mask, types, special, spans, sample, tokenizer.input_names)
