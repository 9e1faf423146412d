"""Numbers below a million in words: English and Chinese. See scripts/written.py."""

import re
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

Choice = TypeVar("Choice")
MOST = 999_999
SMALL = [
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
    *("eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen"),
    "nineteen",
]
TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
DIGITS = "零一二三四五六七八九"
UNITS = ((10_000, "万"), (1000, "千"), (100, "百"), (10, "十"), (1, ""))


def pick(options: Sequence[Choice], rng: np.random.Generator) -> Choice:
    """One of them, each as likely."""
    return options[int(rng.integers(len(options)))]


def english(
    n: int, joint: str = " and ", hyphen: str = "-", comma: str = " ", hundreds: bool = False
) -> str:
    """A number in English; with `hundreds`, 1706 is seventeen hundred and six."""
    require_written(n)
    style = joint, hyphen, comma
    if n < 20:
        return SMALL[n]
    if n < 100:
        return TENS[n // 10 - 2] + (hyphen + SMALL[n % 10] if n % 10 else "")
    short = n < 1000 or (hundreds and n < 10_000 and n // 100 % 10 > 0)
    high, low = divmod(n, 100 if short else 1000)
    words = english(high, *style) + (" hundred" if short else " thousand")
    return words + ((joint if low < 100 else comma) + english(low, *style) if low else "")


def chinese(n: int, liang: str = "千万") -> str:
    """A number in Chinese; a single 2 is 两, not 二, before the units that `liang` names.

    One 零 stands for zeros in a row, but for none at the end of the 万 or of the number: 100,010
    is 十万零一十, and 101,000 is 十万一千.
    """
    require_written(n)
    words, zero = "", False
    for unit, name in UNITS:
        high, n = divmod(n, unit)
        if high:
            digit = chinese(high) if high > 9 else DIGITS[high]
            words += "零" if words and zero else ""
            words += ("两" if high == 2 and name in {*liang} else digit) + name
        zero = not high
    return re.sub("^一十", "十", words) or DIGITS[0]  # 一十 is 十 where nothing stands before it


def written_number(n: int, rng: np.random.Generator) -> str:
    """The number in one of the two languages, and in one of its ways."""
    if rng.random() < 0.5:
        return chinese(n, pick(("", "千万", "百千万"), rng))
    style = pick((" and ", " "), rng), pick(("-", " "), rng), pick((" ", ", "), rng)
    words = english(n, *style, hundreds=rng.random() < 0.3)
    if rng.random() < 0.5:
        words = re.sub("^one (?=hundred|thousand)", "a ", words)
    return pick((words, words.capitalize()), rng)


def require_written(n: int) -> None:
    if not 0 <= n <= MOST:
        raise ValueError(
            f"expected a number from 0 to {MOST:,}, got {n:,}; larger ones have no words here"
        )
