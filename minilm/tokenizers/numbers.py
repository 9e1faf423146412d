"""Numbers in a `tokenizer.json`: which value the digits have depends on who reads them.

Python takes the nearest floating-point number. Hugging Face `tokenizers` computes it: all digits as
one number, divided by a power of ten, which rounds twice and of seventeen digits is often wrong in
the last bit. Two ways to cut a word such as "eeee" have the same pieces, and with them the same
score but for that bit, which then decides.
"""

import math
import re

NUMBER = re.compile(r"(-?)(\d+)(?:\.(\d+))?(?:[eE]([+-]?\d+))?")
SCORE = re.compile(r"(?m)(?<=^ {8})-?\d\S*$")  # in a file whose parts are indented by two
LARGEST = 2**64  # of whole numbers there


def read_number(text: str) -> float:
    """The number that `tokenizers` reads.

    >>> read_number("-9.1"), read_number("0.30000000000000004") == 0.30000000000000004
    (-9.1, True)
    >>> read_number("-2.0122928619384766") == -2.0122928619384766
    False
    """
    match = NUMBER.fullmatch(text)
    assert match is not None
    sign, whole, fraction, exponent = match.groups(default="")
    digits = whole + fraction
    if len(digits) > 19 or len(exponent) > 4:
        return float(text)
    power = int(exponent or 0) - len(fraction)
    if abs(power) > 300:
        return float(text)
    value = float(int(digits))
    value = value * float(f"1e{power}") if power > 0 else value / float(f"1e{-power}")
    return -value if sign else value


def write_number(value: float) -> str:
    """Digits that both ways of reading take for `value`; its shortest ones if there are none.

    >>> write_number(-9.1), write_number(-2.0122928619384766)
    ('-9.1', '-20122928619384764e-16')
    """
    shortest = repr(value)
    for power in range(24) if read_number(shortest) != value else ():
        near = abs(value) * float(f"1e{power}")
        for digits in (near, math.nextafter(near, 0), math.nextafter(near, math.inf)):
            if digits < LARGEST:
                text = f"{'-' if value < 0 else ''}{int(digits)}e-{power}"
                if read_number(text) == float(text) == value:
                    return text
    return shortest


def rewrite_scores(text: str) -> str:
    """A Unigram model's file with its scores in the digits of `write_number`."""
    return SCORE.sub(lambda match: write_number(float(match[0])), text)
