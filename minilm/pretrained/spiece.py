"""`spiece.model`: what SentencePiece trained, read without its library.

The file is a protocol buffer: fields one behind the other, each a key (its number, and how its
value is laid out) and a value. A piece has its text, its score and its kind; of the settings only
the table that normalises characters is wanted.

Source: sentencepiece_model.proto of SentencePiece; the encoding is that of Protocol Buffers.
"""

import base64
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from minilm.tokenizers.files import TokenizerError, check

SPIECE_FILE = "spiece.model"
PIECES, NORMALIZER = 1, 3  # fields of the whole
TEXT, SCORE, KIND = 1, 2, 3  # of a piece
CHARSMAP = 2  # of the normalizer
UNKNOWN, CONTROL, USER_DEFINED = 2, 3, 4  # kinds; a normal one is 1


def read_spiece(path: Path) -> dict[str, Any]:
    """The content of a `tokenizer.json` with its pieces, added tokens and table of characters.

    Raises: TokenizerError — no file, or a damaged one.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise TokenizerError(
            f"{path}: expected a SentencePiece model, got {error.strerror}; give the directory "
            "that has it"
        ) from error
    vocab: list[list[Any]] = []
    added, unk_id, charsmap = [], None, b""
    for field, value in _fields(data):
        if field == PIECES:
            text, score, kind = _read_piece(_inner(value))
            if kind == UNKNOWN:
                unk_id = len(vocab)
            elif kind in (CONTROL, USER_DEFINED):
                added.append({"content": text, "special": kind == CONTROL})
            vocab.append([text, score])
        elif field == NORMALIZER:
            settings = dict(_fields(_inner(value)))
            charsmap = _inner(settings.get(CHARSMAP, charsmap))
    check(unk_id is not None, "a piece for what is unknown", len(vocab), SPIECE_FILE)
    table = base64.b64encode(charsmap).decode()
    return {
        "added_tokens": added,
        "normalizer": {"type": "Precompiled", "precompiled_charsmap": table} if table else None,
        "model": {"type": "Unigram", "unk_id": unk_id, "vocab": vocab},
    }


def _read_piece(data: bytes) -> tuple[str, float, int]:
    fields = {KIND: 1, SCORE: b"\0\0\0\0", **dict(_fields(data))}
    text, score, kind = (fields.get(field) for field in (TEXT, SCORE, KIND))
    ok = isinstance(text, bytes) and isinstance(score, bytes) and len(score) == 4
    check(ok and isinstance(kind, int), "pieces with a text, a score and a kind", data, SPIECE_FILE)
    assert isinstance(text, bytes) and isinstance(score, bytes) and isinstance(kind, int)
    try:
        return text.decode(), struct.unpack("<f", score)[0], kind
    except UnicodeDecodeError as error:
        check(False, "pieces in UTF-8", str(error), SPIECE_FILE)
        raise


def _inner(value: int | bytes) -> bytes:
    check(isinstance(value, bytes), "a field with fields in it", value, SPIECE_FILE)
    assert isinstance(value, bytes)
    return value


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """(number, value) of each field: a whole number, or the bytes of anything else."""
    at = 0
    while at < len(data):
        key, at = _whole(data, at)
        layout, size = key & 7, 0
        if layout == 0:
            value, at = _whole(data, at)
            yield key >> 3, value
            continue
        if layout == 2:
            size, at = _whole(data, at)
        known = {1: 8, 2: size, 5: 4}.get(layout, len(data))
        check(at + known <= len(data), "fields that fit the file", f"byte {at}", SPIECE_FILE)
        yield key >> 3, data[at : at + known]
        at += known


def _whole(data: bytes, at: int) -> tuple[int, int]:
    """A whole number of seven bits a byte, the lowest first, and where it ends."""
    value = 0
    for shift in range(0, 64, 7):
        check(at < len(data), "a whole number", "the end of the file", SPIECE_FILE)
        value |= (data[at] & 0x7F) << shift
        at += 1
        if data[at - 1] < 0x80:
            return value, at
    check(False, "a whole number", "more than ten bytes", SPIECE_FILE)
    raise AssertionError
