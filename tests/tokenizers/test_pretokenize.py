"""Laws of cutting text into chunks and showing bytes."""

import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st

from minilm.tokenizers import pretokenize
from minilm.tokenizers.bpe_training import BYTE_IDS
from minilm.tokenizers.pretokenize import (
    CL100K_PATTERN,
    GPT2_PATTERN,
    Splitter,
    parse_bytes,
    show_bytes,
)

TEXTS = st.text(st.characters(codec="utf-8"))
# What the two patterns treat in different ways, and where Unicode and ASCII differ.
TRICKY = st.text(
    "ab'sStTlLdDmMrReEvVſK \n\r\t\x0b\x1c\x85\xa0\u2028\u3000\ufeff09٣½é\u0301中😀🅰𝔸.!_-"
)
PATTERNS = [
    GPT2_PATTERN,
    CL100K_PATTERN,
    r"\p{L}+",
    r"[a-m]+|[n-z](x)?",
    r"(?s:.+)",
    "",
    r"\s*",
    r"\P{L}",
    r"[^\s]",
    r"\S+|\s",
    r"[\]\-a]+",
    r"\p{Lu}?\p{Ll}+",
    r"a|^b$",
    r"[.(^]",
]


@given(TEXTS, st.sampled_from(PATTERNS))
def test_chunks_joined_are_the_text_under_any_pattern(text, pattern):
    pieces = Splitter(pattern).split(text)
    assert "".join(pieces) == text
    assert all(pieces)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello world", ["Hello", " world"]),
        ("we'll you've it's", ["we", "'ll", " you", "'ve", " it", "'s"]),
        ("a  b\n\nc", ["a", " ", " b", "\n", "\n", "c"]),
        ("x=12 ", ["x", "=", "12", " "]),
        ("IT'S", ["IT", "'", "S"]),
    ],
)
def test_gpt2_pattern_cuts_words_numbers_signs_and_contractions(text, expected):
    assert Splitter("gpt2").split(text) == expected


@given(st.binary())
def test_shown_bytes_are_printable_and_read_back(data):
    assert show_bytes(data).isprintable() and " " not in show_bytes(data)
    assert parse_bytes(show_bytes(data)) == data


def test_known_values_of_the_byte_table():
    assert show_bytes(b"\x00 \n\x7f\xa0\xad\xff~") == "ĀĠĊġłŃÿ~"
    assert [BYTE_IDS[byte] for byte in (0x21, 0x7E, 0xA1, 0xFF, 0x00)] == [0, 93, 94, 187, 188]


@given(TRICKY, st.sampled_from(PATTERNS))
def test_the_quick_way_cuts_as_the_pattern_says(text, pattern):
    expected, done = [], 0
    for match in regex.finditer(pattern, text):
        expected += [text[done : match.start()], match.group()]
        done = match.end()
    expected = [piece for piece in [*expected, text[done:]] if piece]
    assert Splitter(pattern).split(text) == expected
    assert Splitter(pattern).split(text.encode("ascii", "ignore").decode()) is not None


@pytest.mark.parametrize("pattern", [GPT2_PATTERN, CL100K_PATTERN])
@pytest.mark.parametrize("limit", [pretokenize.ASCII, pretokenize.BMP])
def test_the_named_patterns_have_a_quick_way(pattern, limit):
    assert pretokenize._for_re(pattern, limit) is not None


@pytest.mark.parametrize("pattern", [GPT2_PATTERN, CL100K_PATTERN])
@pytest.mark.parametrize("limit", [pretokenize.ASCII, pretokenize.BMP])
def test_the_quick_way_is_right_beside_every_character(pattern, limit):
    characters = [chr(c) for c in range(limit + 1) if not 0xD800 <= c < 0xE000]
    quick, slow = pretokenize._for_re(pattern, limit), regex.compile(pattern)
    for beside in ("x{}x", " {} ", "'{}", "1{}1"):
        text = "\n\n".join(beside.format(character) for character in characters)
        assert quick.findall(text) == slow.findall(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("we'll IT'S", ["we", "'ll", " IT", "'S"]),
        ("x=12345 \n\n y", ["x", "=", "123", "45", " \n\n", " y"]),
        ("(a) ...\n", ["(a", ")", " ...\n"]),
    ],
)
def test_cl100k_pattern_keeps_digits_short_and_line_ends_apart(text, expected):
    assert Splitter("cl100k").split(text) == expected
