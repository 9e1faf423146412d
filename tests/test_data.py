"""Laws of reading text and of token files."""

import builtins
import contextlib
import inspect
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minilm import data
from minilm.data import (
    TokenFileError,
    by_length,
    embedded_corpus,
    open_tokens,
    read_texts,
    split,
    write_tokens,
)
from minilm.tokenizers import BPETokenizer, CharTokenizer
from minilm.tokenizers.pretokenize import Splitter

TEXTS = st.text(st.characters(codec="utf-8")).filter(lambda text: text and text[0] != "\ufeff")
PROSE = st.text("ab'sé1. \n\r\t\u3000").filter(bool)
SAMPLE = "The cat sat on the mat;\r\n the cat's hat, that's that.\n\n\tEin Öl für 12 Männer.\n" * 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("texts")


def write(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


# Reading


@given(TEXTS, st.integers(1, 12))
def test_chunks_joined_are_the_text(folder, text, chunk_chars):
    file = write(folder / "any.txt", text)
    assert "".join(read_texts(file, chunk_chars)) == text


@given(PROSE, st.integers(1, 12))
def test_a_chunk_is_not_too_long_and_never_ends_inside_a_line_end(folder, text, chunk_chars):
    parts = list(read_texts(write(folder / "prose.txt", text), chunk_chars))
    assert all(0 < len(part) <= max(2, chunk_chars) for part in parts)
    for left, right in pairwise(parts):
        assert not (left.endswith("\r") and right.startswith("\n"))


@given(st.lists(st.text("ab'sé1.", min_size=1, max_size=4)), st.data(), st.integers(8, 20))
def test_byte_pair_tokens_do_not_depend_on_chunk_borders(folder, words, data, chunk_chars):
    """Words and spaces are short, so there is a place to cut in every chunk."""
    space = st.text(" \n\t\u3000", min_size=1, max_size=3)
    text = "x" + "".join(word + data.draw(space) for word in words)
    splitter = Splitter("gpt2")
    parts = read_texts(write(folder / "words.txt", text), chunk_chars)
    assert [c for part in parts for c in splitter.split(part)] == splitter.split(text)


def test_a_stretch_without_whitespace_is_cut_where_the_chunk_ends(tmp_path):
    file = write(tmp_path / "a.txt", "abcdefgh ij")
    assert list(read_texts(file, 3)) == ["abc", "def", "gh", " ij"]
    file = write(tmp_path / "b.txt", "ab\r\ncd\r\n\r\n")
    assert list(read_texts(file, 3)) == ["ab", "\r\nc", "d\r\n", "\r\n"]
    assert list(read_texts(file, 1)) == ["a", "b", "\r\n", "c", "d", "\r\n", "\r\n"]


def test_line_ends_are_kept_as_they_are(tmp_path):
    file = write(tmp_path / "a.txt", "a\r\nb\rc\n")
    assert "".join(read_texts([file])) == "a\r\nb\rc\n"


@pytest.mark.parametrize("chunk_chars", [1, 2, 3, 100])
def test_a_byte_order_mark_is_dropped_at_the_beginning_only(tmp_path, chunk_chars):
    file = write(tmp_path / "a.txt", "\ufeffone\ufefftwo")
    assert "".join(read_texts(file, chunk_chars)) == "one\ufefftwo"


def test_a_directory_is_read_recursively_sorted_and_without_hidden_files(tmp_path):
    for name in ("b/z.txt", "b/a.md", "a.TXT", "c.py", ".git/x.txt", ".y.txt", "b/d.bin", "e"):
        write(tmp_path / "corpus" / name, f"{name}\n")
    (tmp_path / "corpus" / "folder.txt").mkdir()
    names = ["a.TXT\n", "b/a.md\n", "b/z.txt\n", "c.py\n"]
    assert list(read_texts(tmp_path / "corpus")) == names
    other = write(tmp_path / "data.bin", "named itself")
    assert list(read_texts([str(other), tmp_path / "corpus"])) == ["named itself", *names]


def test_no_chunk_goes_on_into_the_next_file(tmp_path):
    files = [write(tmp_path / name, text) for name, text in [("b", "one"), ("a", ""), ("c", "two")]]
    assert list(read_texts(files)) == ["one", "two"]


@given(
    TEXTS, st.sampled_from([b"\xff", b"\xe9\n", b"\xe2\x82", b"\xed\xa0\x80"]), st.integers(1, 9)
)
def test_undecodable_bytes_are_named_with_file_and_offset(folder, text, bad, chunk_chars):
    file = write(folder / "latin.txt", text.encode() + bad)
    offset = len(text.encode())
    with pytest.raises(
        ValueError, match=rf"latin\.txt: expected UTF-8.* at byte {offset}; .*iconv"
    ):
        list(read_texts(file, chunk_chars))


def test_paths_that_give_no_text_are_errors(tmp_path):
    with pytest.raises(ValueError, match="nowhere.txt: expected a text file.*got no such path"):
        read_texts(tmp_path / "nowhere.txt")
    write(tmp_path / "images" / "cat.png", b"\x89PNG")
    with pytest.raises(ValueError, match="images: expected .*got a directory without any"):
        read_texts(tmp_path / "images")
    with pytest.raises(ValueError, match="expected text, got 1 empty files .*empty.txt"):
        list(read_texts(write(tmp_path / "empty.txt", "")))
    with pytest.raises(ValueError, match="expected text, got 0 empty files"):
        list(read_texts([]))
    with pytest.raises(ValueError, match="expected chunk_chars >= 1, got 0"):
        read_texts(tmp_path, chunk_chars=0)


# Token files


@given(st.lists(PROSE, min_size=1), st.booleans())
def test_a_token_file_holds_the_tokens_of_each_text_in_turn(folder, texts, byte_pairs):
    tokenizer = BPETokenizer.train(SAMPLE, 300) if byte_pairs else CharTokenizer.train(texts)
    tokens = write_tokens(iter(texts), tokenizer, folder / "tokens.npy")
    assert tokens.tolist() == [i for text in texts for i in tokenizer.encode(text)]
    assert isinstance(tokens, np.memmap) and not tokens.flags.writeable
    assert tokens.dtype == tokenizer.dtype
    assert np.load(folder / "tokens.npy").tolist() == open_tokens(folder / "tokens.npy").tolist()


def test_a_large_vocabulary_is_written_as_uint32(tmp_path):
    text = "".join(map(chr, [*range(0xD800), *range(0xE000, 0x12000)]))
    tokens = write_tokens(text, CharTokenizer.train(text), tmp_path / "tokens.npy")
    assert tokens.dtype == np.uint32
    assert np.array_equal(tokens, np.arange(len(text)))


def test_text_without_tokens_is_an_error_and_leaves_no_file(tmp_path):
    for texts in ("", [], ["", ""]):
        with pytest.raises(ValueError, match="expected text to encode, got none"):
            write_tokens(texts, CharTokenizer.train("a"), tmp_path / "tokens.npy")
    assert list(tmp_path.iterdir()) == []


def test_a_failing_write_leaves_the_old_file(tmp_path):
    tokenizer = CharTokenizer.train("ab")
    write_tokens("abab", tokenizer, tmp_path / "tokens.npy")
    with pytest.raises(ValueError, match="got 'X'"):
        write_tokens(["a" * 10_000, "X"], tokenizer, tmp_path / "tokens.npy")
    assert [path.name for path in tmp_path.iterdir()] == ["tokens.npy"]
    assert open_tokens(tmp_path / "tokens.npy").tolist() == [0, 1, 0, 1]


def test_a_token_file_cut_anywhere_or_grown_is_an_error(tmp_path):
    path = tmp_path / "tokens.npy"
    write_tokens("ab" * 40, CharTokenizer.train("ab"), path)
    whole = path.read_bytes()
    for damaged in [*(whole[:length] for length in range(len(whole))), whole + b"\0"]:
        path.write_bytes(damaged)
        with pytest.raises(TokenFileError, match="expected .*, got .*; write it anew"):
            open_tokens(path)


@given(st.integers(0, 127), st.integers(0, 255))
def test_a_changed_byte_in_the_header_changes_nothing_or_is_the_named_error(folder, place, byte):
    path = folder / "flipped.npy"
    write_tokens("ab" * 40, CharTokenizer.train("ab"), path)
    content = bytearray(path.read_bytes())
    content[place] = byte
    path.write_bytes(content)
    with contextlib.suppress(TokenFileError):
        assert open_tokens(path).tolist() == [0, 1] * 40


@pytest.mark.parametrize(
    "array", [np.zeros((2, 2), np.uint16), np.zeros(4), np.zeros(4, np.int64), np.array(3)]
)
def test_another_array_is_not_a_token_file(tmp_path, array):
    np.save(tmp_path / "array.npy", array)
    with pytest.raises(TokenFileError, match="expected one row of uint16 or uint32"):
        open_tokens(tmp_path / "array.npy")


def test_a_missing_file_or_a_pickle_is_the_named_error(tmp_path):
    with pytest.raises(TokenFileError, match="No such file"):
        open_tokens(tmp_path / "nowhere.npy")
    np.save(tmp_path / "objects.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(TokenFileError, match="expected a token file"):
        open_tokens(tmp_path / "objects.npy")


# Splitting, the embedded corpus


@given(st.integers(2, 1000), st.floats(0.01, 0.99))
def test_a_split_gives_two_views_that_make_up_the_stream(n, fraction):
    tokens = np.arange(n)
    if int(n * fraction) == 0:
        with pytest.raises(ValueError, match="leaves tokens on both sides"):
            split(tokens, fraction)
        return
    train, validation = split(tokens, fraction)
    assert np.array_equal(np.concatenate([train, validation]), tokens)
    assert len(train) == int(n * fraction)
    assert np.shares_memory(train, tokens) and np.shares_memory(validation, tokens)


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.5, 1.5])
def test_a_split_without_two_parts_is_an_error(fraction):
    with pytest.raises(ValueError, match=f"got {fraction} of 10 tokens"):
        split(np.arange(10), fraction)


def test_the_embedded_corpus_is_the_language_reference():
    text = embedded_corpus()
    assert len(text) > 300_000
    assert text.startswith('The "assert" statement')
    assert "\n\n" in text and text == embedded_corpus()


def test_an_install_without_the_corpus_is_told_about_data(monkeypatch):
    real_import = builtins.__import__

    def without_topics(name, *args, **kwargs):
        if name.startswith("pydoc_data"):
            raise ImportError(name)
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_topics)
    with pytest.raises(ValueError, match="--data FILE"):
        embedded_corpus()


@given(st.lists(st.integers(0, 50)), st.integers(1, 6))
def test_batches_by_length_have_every_text_once_from_the_shortest_to_the_longest(lengths, size):
    batches = by_length(lengths, size)
    order = [i for batch in batches for i in batch.tolist()]
    assert sorted(order) == list(range(len(lengths)))
    assert [lengths[i] for i in order] == sorted(lengths)
    assert all(len(batch) == size for batch in batches[:-1])


def test_a_batch_by_length_has_at_least_one_text():
    with pytest.raises(ValueError, match="expected batch_size >= 1, got 0"):
        by_length([1, 2], 0)


def test_the_librarys_docstrings_are_those_that_its_modules_have():
    import textwrap

    found: dict[str, list[str]] = {}
    for module, docstring in data.library_docstrings():
        found.setdefault(module, []).append(docstring)
    assert inspect.getdoc(textwrap) in found["textwrap"]
    assert inspect.getdoc(textwrap.dedent) in found["textwrap"]
    assert inspect.getdoc(textwrap.TextWrapper.wrap) in found["textwrap"]
    assert list(found) == sorted(found, key=lambda name: name.split(".")[0])
    assert not any({"test", "tests", "idlelib"} & set(name.split(".")) for name in found)


def test_a_python_without_its_library_is_told_so(tmp_path, monkeypatch):
    monkeypatch.setattr(data.sysconfig, "get_path", lambda name: str(tmp_path))
    with pytest.raises(ValueError, match="expected the standard library's source"):
        list(data.library_docstrings())
