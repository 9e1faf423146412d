"""Dates in many ways: English, Chinese, and figures that leave no doubt. See scripts/written.py.

Where the order of day and month could be mistaken (3/11/2024), there is no such form; with full
stops (3.11.2024) the day is always first. Years have four digits or are spoken.
"""

import calendar
from datetime import date

import numpy as np
from written_numbers import DIGITS, chinese, english, pick

MONTHS, SHORT_MONTHS = [*calendar.month_name], [*calendar.month_abbr]  # 1 is January
WEEKDAYS, SHORT_WEEKDAYS = [*calendar.day_name], [*calendar.day_abbr]  # 0 is Monday
ORDINALS = {
    "one": "first", "two": "second", "three": "third", "five": "fifth", "eight": "eighth",
    "nine": "ninth", "twelve": "twelfth", "twenty": "twentieth", "thirty": "thirtieth",
}  # fmt: skip

BEFORE = ("", "", "", "{weekday}, ", "{weekday} ", "{wd}, ")
ENGLISH = (
    "{d} {month} {year}", "{th} {month} {year}", "{th} of {month} {year}", "{d}-{short}-{year}",
    "the {th} of {name} {year}", "the {third} of {name} {year}", "the {third} of {name}, {year}",
    "the {third} of {name} {spoken}", "{month} {d}, {year}", "{month} {d} {year}",
    "{month} {th}, {year}", "{month} {th} {year}", "{name} {third}, {year}",
    "{name} the {third}, {year}", "{name} the {third}, {spoken}",
)  # fmt: skip
FIGURES = (
    "{year}-{mm}-{dd}", "{year}/{m}/{d}", "{year}/{mm}/{dd}", "{year}.{mm}.{dd}",
    "{d}.{m}.{year}", "{dd}.{mm}.{year}",
)  # fmt: skip
SLASHES = ("{d}/{m}/{year}", "{dd}/{mm}/{year}", "{m}/{d}/{year}", "{mm}/{dd}/{year}")
CHINESE = (
    "{year}年{m}月{d}{day}", "{year}年{mm}月{dd}{day}", "{year} 年 {m} 月 {d} {day}",
    "{cyear}年{cm}月{cd}{day}", "{cyear}年{cm}月{cd}{day}",
)  # fmt: skip
BEHIND = ("", "", "", "星期{cweekday}", "，星期{cweekday}", " 周{cweekday}")


def ordinal(n: int) -> str:
    """first, second, ... twenty-first, ..."""
    *tens, last = english(n).split("-")
    return "-".join([*tens, ORDINALS.get(last, last + "th")])


def spoken_year(year: int) -> str:
    """nineteen hundred, nineteen oh five, two thousand and five, twenty twenty-four."""
    century, rest = divmod(year, 100)
    if rest == 0 or (rest < 10 and century % 10 == 0):
        return english(year, hundreds=True)
    return f"{english(century)} {'oh ' if rest < 10 else ''}{english(rest)}"


def written_date(day: date, rng: np.random.Generator) -> str:
    """The date in one of many ways."""
    d, m, weekday = day.day, day.month, day.weekday()
    name, short = MONTHS[m], SHORT_MONTHS[m]
    dotted = short if short == name else f"{short}."
    ending = "th" if d in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(d % 10, "th")
    kind = rng.random()
    if kind < 0.5:
        form = pick(BEFORE, rng) + pick(ENGLISH, rng)
    elif kind < 0.9:
        form = pick(CHINESE, rng) + pick(BEHIND, rng)
    else:
        form = pick(FIGURES + SLASHES if d > 12 or d == m else FIGURES, rng)
    text = form.format(
        year=day.year, m=m, d=d, mm=f"{m:02}", dd=f"{d:02}", th=f"{d}{ending}", third=ordinal(d),
        name=name, short=short, month=pick((name, short, dotted), rng),
        spoken=spoken_year(day.year), weekday=WEEKDAYS[weekday], wd=SHORT_WEEKDAYS[weekday],
        cyear=str(day.year).translate(str.maketrans("0123456789", pick("〇零", rng) + DIGITS[1:])),
        cm=chinese(m), cd=chinese(d), day=pick("日号", rng),
        cweekday=pick("日天", rng) if weekday == 6 else DIGITS[weekday + 1],
    )  # fmt: skip
    return text.lower() if rng.random() < 0.2 else text
