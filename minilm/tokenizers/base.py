"""What every tokenizer shares: its calls, its file, its error."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self

import numpy as np

from minilm.files import replacing

Texts = str | Iterable[str]
FILE_NAME = "tokenizer.json"


class TokenizerError(ValueError):
    """A tokenizer file that is missing, damaged, foreign, or contradicts itself."""


class Tokenizer:
    """Base of the tokenizers: a list of tokens, each a string of bytes; its index is its id.

    A subclass gives `encode`, `to_json` and `from_json`; its `train` makes one from texts.
    """

    model_type: str  # of "model" in the file

    def __init__(self, token_bytes: list[bytes]) -> None:
        self.token_bytes = token_bytes

    @property
    def vocab_size(self) -> int:
        """V, the number of tokens."""
        return len(self.token_bytes)

    @property
    def dtype(self) -> np.dtype:
        """The smallest of uint16 and uint32 that holds every id."""
        return np.dtype(np.uint16 if self.vocab_size <= 2**16 else np.uint32)

    def encode(self, text: str) -> list[int]:
        """The token ids of a text."""
        raise NotImplementedError(f"{type(self).__name__} needs an encode method")

    def encode_array(self, text: str) -> np.ndarray:
        """The token ids of a text as an array of `dtype`."""
        return np.array(self.encode(text), self.dtype)

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The UTF-8 bytes of the tokens, which may begin or end inside a character.

        Raises: IndexError — an id outside the vocabulary.
        """
        ids = list(ids)
        if ids and not 0 <= min(ids) <= max(ids) < self.vocab_size:
            raise IndexError(
                f"decode: expected ids from 0 to {self.vocab_size - 1}, got ids from {min(ids)} "
                f"to {max(ids)}; decode with the tokenizer that encoded the text"
            )
        return b"".join([self.token_bytes[i] for i in ids])

    def decode(self, ids: Iterable[int]) -> str:
        """The text of the tokens; bytes that are no UTF-8 become U+FFFD."""
        return self.decode_bytes(ids).decode("utf-8", errors="replace")

    def to_json(self) -> dict[str, Any]:
        """What `tokenizer.json` holds."""
        raise NotImplementedError(f"{type(self).__name__} needs a to_json method")

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Self:
        """The tokenizer that `to_json` describes."""
        raise NotImplementedError(f"{cls.__name__} needs a from_json method")

    def save(self, directory: str | Path) -> None:
        """Write `tokenizer.json` into `directory`: the whole file or, if interrupted, none."""
        text = json.dumps(self.to_json(), ensure_ascii=False, indent=2)
        with replacing(Path(directory) / FILE_NAME) as file:
            file.write(text.encode())

    @classmethod
    def load(cls, directory: str | Path) -> Self:
        """The tokenizer saved in `directory`: it encodes every text as the saved one does.

        Raises: TokenizerError — no file, a damaged or foreign one, or one of another kind.
        """
        content = read_tokenizer_file(directory)
        model_type = content["model"].get("type")
        check(model_type == cls.model_type, f"a model of type {cls.model_type}", model_type)
        return cls.from_json(content)


def hf_layout(**parts: Any) -> dict[str, Any]:
    """A tokenizer file as Hugging Face `tokenizers` reads it: the named parts, no others."""
    empty = ("truncation", "padding", "normalizer", "pre_tokenizer", "post_processor", "decoder")
    return {"version": "1.0", "added_tokens": [], **dict.fromkeys(empty), **parts}


def read_tokenizer_file(directory: str | Path) -> dict[str, Any]:
    """The JSON object in the directory's tokenizer file, which has a "model"."""
    path = Path(directory) / FILE_NAME
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise TokenizerError(
            f"{path}: expected a tokenizer file, got {error.strerror}; give the directory that "
            "Tokenizer.save wrote to"
        ) from error
    except (ValueError, RecursionError) as error:
        raise TokenizerError(
            f"{path}: expected JSON, got {error}; the file is damaged, save or copy it anew"
        ) from error
    check(isinstance(content, dict), "a JSON object", content)
    check(isinstance(content.get("model"), dict), 'an object "model"', content.get("model"))
    return content


def check(ok: bool, expected: str, got: object) -> None:
    """Raises: TokenizerError — unless `ok`: the tokenizer file is not what was expected."""
    if not ok:
        raise TokenizerError(
            f"{FILE_NAME}: expected {expected}, got {got!r:.80}; "
            "the file is damaged or made by another program, train and save the tokenizer anew"
        )


def check_vocabulary(vocab: object) -> list[str]:
    """The tokens of a file's "vocab", in the order of their ids, which must be 0, 1, 2 ..."""
    check(isinstance(vocab, dict) and len(vocab) > 0, 'an object "vocab" of tokens', vocab)
    assert isinstance(vocab, dict)
    ids = list(vocab.values())
    check(all(type(i) is int for i in ids), "whole numbers as ids", ids)
    check(sorted(ids) == list(range(len(ids))), f"ids 0 to {len(ids) - 1}, each once", sorted(ids))
    return sorted(vocab, key=vocab.__getitem__)


def as_texts(texts: Texts) -> Iterable[str]:
    """A single string is a stream of one text."""
    return [texts] if isinstance(texts, str) else texts


def check_unicode(text: str) -> None:
    """Raises: ValueError — at the first lone surrogate, half of a character, which has no UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"expected Unicode text, got the lone surrogate {text[error.start]!r} at position "
            f"{error.start}; read files as UTF-8, or remove it: text.encode('utf-8', 'ignore')"
        ) from None
