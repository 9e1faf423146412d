"""Tokenizer files: read, checked, and their error."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from minilm.tokenizers.numbers import read_number

FILE_NAME = "tokenizer.json"


class TokenizerError(ValueError):
    """A tokenizer file that is missing, damaged, foreign, or contradicts itself."""


def check(ok: bool, expected: str, got: object, file: str = FILE_NAME) -> None:
    """Raises: TokenizerError — unless `ok`: the tokenizer file is not what was expected."""
    if not ok:
        raise TokenizerError(
            f"{file}: expected {expected}, got {got!r:.80}; "
            "the file is damaged or made by another program, train and save the tokenizer anew"
        )


def read_text(path: Path) -> str:
    """The file's text.

    Raises: TokenizerError — no such file, or bytes that are not UTF-8.
    """
    try:
        return path.read_bytes().decode()
    except OSError as error:
        raise TokenizerError(
            f"{path}: expected a tokenizer file, got {error.strerror}; give the directory that "
            "Tokenizer.save wrote to"
        ) from error
    except UnicodeDecodeError as error:
        raise TokenizerError(
            f"{path}: expected UTF-8, got {error}; the file is damaged, save or copy it anew"
        ) from error


def read_json(path: Path, parse_float: Callable[[str], float] = float) -> dict[str, Any]:
    """The file's JSON object.

    Raises: TokenizerError — no such file, not JSON, not an object.
    """
    try:
        content = json.loads(read_text(path), parse_float=parse_float)
    except TokenizerError:
        raise
    except (ValueError, RecursionError) as error:
        raise TokenizerError(
            f"{path}: expected JSON, got {error}; the file is damaged, save or copy it anew"
        ) from error
    check(isinstance(content, dict), "a JSON object", content, path.name)
    return content


def read_tokenizer_file(directory: str | Path, exact: bool = False) -> dict[str, Any]:
    """The JSON object in the directory's `tokenizer.json`, which has a "model".

    Files from before 2021 do not name its type, which then is what its parts say. Numbers are those
    that `tokenizers` reads, unless they are to be `exact`: see `numbers`.
    """
    content = read_json(Path(directory) / FILE_NAME, float if exact else read_number)
    model = content.get("model")
    check(isinstance(model, dict), 'an object "model"', model)
    assert isinstance(model, dict)
    guesses = {"merges": "BPE", "max_input_chars_per_word": "WordPiece", "unk_id": "Unigram"}
    found = [model_type for part, model_type in guesses.items() if part in model]
    model.setdefault("type", next(iter(found), None))
    return content


def hf_layout(**parts: Any) -> dict[str, Any]:
    """A tokenizer file as Hugging Face `tokenizers` reads it: the named parts, no others."""
    empty = ("truncation", "padding", "normalizer", "pre_tokenizer", "post_processor", "decoder")
    return {"version": "1.0", "added_tokens": [], **dict.fromkeys(empty), **parts}


def is_text(value: object) -> bool:
    """Whether it is a string without lone surrogates, which JSON can spell and UTF-8 cannot."""
    return isinstance(value, str) and not any("\ud800" <= c <= "\udfff" for c in value)


def check_vocabulary(vocab: object, file: str = FILE_NAME) -> list[str]:
    """The tokens of a file's "vocab", in the order of their ids, which must be 0, 1, 2 ..."""
    check(isinstance(vocab, dict) and len(vocab) > 0, 'an object "vocab" of tokens', vocab, file)
    assert isinstance(vocab, dict)
    ids = list(vocab.values())
    check(all(map(is_text, vocab)), "tokens in Unicode", list(vocab), file)
    check(all(type(i) is int for i in ids), "whole numbers as ids", ids, file)
    check(
        sorted(ids) == list(range(len(ids))),
        f"ids 0 to {len(ids) - 1}, each once",
        sorted(ids),
        file,
    )
    return sorted(vocab, key=vocab.__getitem__)
