"""Digits of numbers, for readers who compute and readers who know the nearest one."""

import json
import math
import struct

from hypothesis import given
from hypothesis import strategies as st

from minilm.tokenizers import UnigramTokenizer
from minilm.tokenizers.numbers import read_number, write_number

SCORES = st.floats(-1e6, 0).filter(lambda x: x == 0 or abs(x) > 1e-12)


def computed(text):
    """All digits as one number, by a power of ten."""
    mantissa, _, exponent = text.lower().partition("e")
    whole, _, fraction = mantissa.lstrip("-").partition(".")
    power = int(exponent or 0) - len(fraction)
    value = float(int(whole + fraction))
    value = value * float(f"1e{power}") if power > 0 else value / float(f"1e{-power}")
    return math.copysign(value, -1) if text.startswith("-") else value


@given(SCORES)
def test_numbers_are_read_as_they_are_computed(x):
    assert read_number(repr(x)) == computed(repr(x))
    assert math.isclose(read_number(repr(x)), x, rel_tol=2**-51)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_any_number_is_read(x):
    assert math.isclose(read_number(repr(x)), x, rel_tol=2**-50)
    assert float(write_number(x)) == x


def test_nearly_all_scores_have_digits_that_both_take_for_them():
    floats = [struct.unpack("<f", struct.pack("<f", -i / 997))[0] for i in range(1, 15_000)]
    misread = sum(read_number(repr(x)) != x for x in floats)
    lost = sum(read_number(write_number(x)) != x for x in floats)
    assert misread > 1000 and lost < 100


def test_a_saved_model_has_such_digits_and_nothing_else_changes(tmp_path):
    pieces = [("<unk>", 0.0), ("a", -2.0122928619384766), ('"\n        -1.5', -1e-07)]
    UnigramTokenizer(pieces, 0).save(tmp_path)
    text = (tmp_path / "tokenizer.json").read_text(encoding="utf-8")
    assert json.loads(text)["model"]["vocab"] == [list(piece) for piece in pieces]
    assert '"a",\n        -20122928619384764e-16\n' in text
    assert UnigramTokenizer.load(tmp_path).pieces == pieces
