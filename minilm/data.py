"""Text files to token files to arrays: a corpus may be larger than memory.

A token file is NumPy's `.npy` format, one row of uint16 or uint32, opened memory-mapped: pages are
read when a window touches them.
"""

import ast
import codecs
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
import regex

from minilm.files import replacing
from minilm.tokenizers.base import Texts, Tokenizer, as_texts

TEXT_SUFFIXES = (".txt", ".md", ".rst", ".tex", ".py")
# The last place before a whitespace character that something else follows, but not inside "\r\n".
# GPT-2's pattern always ends a chunk there, so both sides are encoded as they would be together.
WORD_BORDER = regex.compile(r"(?r)(?<=[^\r])(?=\s\S)")

DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
PASSED_OVER = {"test", "tests", "idlelib", "lib2to3", "distutils", "__pycache__"}


class TokenFileError(ValueError):
    """A token file that is missing, cut short, or something else."""


def read_texts(paths: str | Path | Iterable[str | Path], chunk_chars: int = 2**20) -> Iterator[str]:
    r"""The text of UTF-8 files, in chunks of at most chunk_chars characters.

    A directory stands for its files `TEXT_SUFFIXES`, in all its sub-directories, sorted by path;
    names that begin with a dot are passed over. A file's chunks joined are its text, with newlines
    as they are (a byte order mark at its beginning is dropped), and no chunk goes on into the next
    file. A chunk ends before the last whitespace that a word follows, where GPT-2's pattern ends a
    chunk too: byte-level BPE gives the same tokens as for the whole file, and another pattern sees
    at most a border more per chunk. Only a stretch of chunk_chars characters without such a place
    is cut where it ends; "\r\n" stays whole even then.

    Raises: ValueError — a path that does not exist, a directory without text files, nothing but
    empty files, bytes that are not UTF-8.
    """
    if chunk_chars < 1:
        raise ValueError(f"read_texts: expected chunk_chars >= 1, got {chunk_chars}; try 2**20")
    given = [paths] if isinstance(paths, str | Path) else list(paths)
    files = [file for path in given for file in text_files(path)]
    return _read_files(files, chunk_chars)


def text_files(path: str | Path) -> list[Path]:
    """The file itself, or the text files of a directory as `read_texts` takes them.

    Raises: ValueError — no such path, or a directory without text files.
    """
    path = Path(path)
    if path.is_file():
        return [path]
    files = sorted(
        file
        for file in path.rglob("*")
        if file.suffix.lower() in TEXT_SUFFIXES
        and file.is_file()
        and not any(part.startswith(".") for part in file.relative_to(path).parts)
    )
    if not files:
        found = "a directory without any" if path.is_dir() else "no such path"
        raise ValueError(
            f"{path}: expected a text file or a directory with files {' '.join(TEXT_SUFFIXES)}, "
            f"got {found}; check the path, or name the file itself whatever its suffix"
        )
    return files


def _read_files(files: list[Path], chunk_chars: int) -> Iterator[str]:
    empty = True
    for file in files:
        for chunk in _cut(_decode(file, chunk_chars), chunk_chars):
            empty = False
            yield chunk
    if empty:
        raise ValueError(
            f"expected text, got {len(files)} empty files ({', '.join(map(str, files[:3]))}); "
            "check the path"
        )


def _decode(file: Path, block_bytes: int) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder("utf-8")()
    offset = 0
    with file.open("rb") as stream:
        while True:
            block = stream.read(block_bytes)
            waiting = len(decoder.getstate()[0])  # bytes of a character that the block before began
            try:
                text = decoder.decode(block, final=not block)
            except UnicodeDecodeError as error:
                raise ValueError(
                    f"{file}: expected UTF-8, got {error.reason} 0x{error.object[error.start]:02x} "
                    f"at byte {offset - waiting + error.start}; convert the file, "
                    "for example: iconv -f latin1 -t utf-8"
                ) from error
            yield text.removeprefix("\ufeff") if offset == waiting else text
            if not block:
                return
            offset += len(block)


def _cut(pieces: Iterable[str], chunk_chars: int) -> Iterator[str]:
    pending = ""
    for piece in pieces:
        pending += piece
        while len(pending) > chunk_chars:
            border = WORD_BORDER.search(pending, endpos=chunk_chars + 1)
            cut = border.start() if border else chunk_chars
            if pending[cut - 1 : cut + 1] == "\r\n":
                cut += 1 if cut == 1 else -1
            yield pending[:cut]
            pending = pending[cut:]
    if pending:
        yield pending


def write_tokens(texts: Texts, tokenizer: Tokenizer, path: str | Path) -> np.memmap:
    """Encode texts one by one into a token file, and open it.

    The tokens are those of each text, one after the other. The file appears whole or not at all.

    Raises: ValueError — texts without a token.
    """
    path = Path(path)
    count = 0
    with replacing(path) as file:
        _write_header(file, tokenizer.dtype, 0)
        for text in as_texts(texts):
            tokens = tokenizer.encode_array(text)
            file.write(tokens.tobytes())
            count += len(tokens)
        if not count:
            raise ValueError(f"{path}: expected text to encode, got none; check what was read")
        file.seek(0)
        _write_header(file, tokenizer.dtype, count)
    return open_tokens(path)


def _write_header(file: BinaryIO, dtype: np.dtype, count: int) -> None:
    """Its length does not depend on `count`: NumPy leaves room for the shape to grow."""
    header = {"descr": dtype.str, "fortran_order": False, "shape": (count,)}
    np.lib.format.write_array_header_1_0(file, header)


def open_tokens(path: str | Path) -> np.memmap:
    """A token file as a read-only array that lives on disk.

    Raises: TokenFileError — no file, one cut short, or one that `write_tokens` did not write.
    """
    try:
        tokens = np.lib.format.open_memmap(path, mode="r")
    except Exception as error:  # NumPy reads a damaged header as Python: any error may come of it
        raise TokenFileError(
            f"{path}: expected a token file, got {error}; write it anew with write_tokens"
        ) from error
    whole = tokens.offset + tokens.nbytes == Path(path).stat().st_size
    if tokens.ndim != 1 or tokens.dtype not in (np.uint16, np.uint32) or not whole:
        raise TokenFileError(
            f"{path}: expected one row of uint16 or uint32 and nothing behind it, got "
            f"{tokens.dtype} of shape {tokens.shape}; write it anew with write_tokens"
        )
    return tokens


def split(tokens: np.ndarray, fraction: float = 0.9) -> tuple[np.ndarray, np.ndarray]:
    """The first `fraction` of a stream for training, the rest for validation: views, no copies.

    Raises: ValueError — a part would be empty.

    >>> split(np.arange(10))
    (array([0, 1, 2, 3, 4, 5, 6, 7, 8]), array([9]))
    """
    cut = int(len(tokens) * fraction)
    if not 0 < cut < len(tokens):
        raise ValueError(
            f"split: expected a fraction that leaves tokens on both sides, got {fraction} of "
            f"{len(tokens)} tokens; use 0.9 and more text"
        )
    return tokens[:cut], tokens[cut:]


def embedded_corpus() -> str:
    """The Python language reference that CPython carries for its `help()`: 465,000 characters.

    Raises: ValueError — this Python was installed without it.
    """
    try:
        from pydoc_data.topics import topics
    except ImportError as error:
        raise ValueError(
            "expected the Python language reference in pydoc_data.topics, got a Python without it; "
            "train on text of your own with --data FILE"
        ) from error
    return "\n\n".join(topics[name] for name in sorted(topics))


def library_docstrings() -> Iterator[tuple[str, str]]:
    """(module, docstring) of everything documented in the standard library's Python source.

    The files are read, not imported, in the order of their names; packages of tests, the parts of
    IDLE, and what is no longer in every Python (lib2to3, distutils) are passed over.

    Raises: ValueError — this Python was installed without its source.
    """
    root = Path(sysconfig.get_path("stdlib"))
    found = False
    for path in sorted(root.rglob("*.py")):
        names = path.relative_to(root).with_suffix("").parts
        if names[0] not in sys.stdlib_module_names or PASSED_OVER & set(names):
            continue
        module = ".".join(names).removesuffix(".__init__")
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, DOCUMENTED) and (docstring := ast.get_docstring(node)):
                found = True
                yield module, docstring
    if not found:
        raise ValueError(
            f"expected the standard library's source in {root}, got none; use a Python that has "
            "it, or text of your own with --data FILE"
        )


def by_length(lengths: Sequence[int] | np.ndarray, batch_size: int) -> list[np.ndarray]:
    """The indices of texts in batches of similar length, so that little of a batch is padding.

    >>> [batch.tolist() for batch in by_length([5, 1, 9, 2], 2)]
    [[1, 3], [0, 2]]
    """
    if batch_size < 1:
        raise ValueError(f"by_length: expected batch_size >= 1, got {batch_size}; try 32")
    order = np.argsort(lengths, kind="stable")
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
