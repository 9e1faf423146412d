"""Laws of the numbers and dates written many ways: what is written is read back as it was meant."""

import importlib
import re
import subprocess
import sys
from datetime import date
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

SCRIPTS = Path(__file__).parent.parent / "scripts"
with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(SCRIPTS)
    written = importlib.import_module("written")
    dates = importlib.import_module("written_dates")
    numbers = importlib.import_module("written_numbers")

NUMBERS = st.integers(0, numbers.MOST)
DATES = st.dates(written.FIRST, written.LAST)
SEEDS = st.integers(0, 2**32 - 1)
PARTS = "train", "validation", "test"

ENGLISH = {
    "a": 1, "zero": 0, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7,
    "eight": 8, "nine": 9, "ten": 10, "eleven": 11, "twelve": 12, "thirteen": 13, "fourteen": 14,
    "fifteen": 15, "sixteen": 16, "seventeen": 17, "eighteen": 18, "nineteen": 19, "twenty": 20,
    "thirty": 30, "forty": 40, "fifty": 50, "sixty": 60, "seventy": 70, "eighty": 80, "ninety": 90,
}  # fmt: skip
ORDINALS = [
    "first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth",
    "eleventh", "twelfth", "thirteenth", "fourteenth", "fifteenth", "sixteenth", "seventeenth",
    "eighteenth", "nineteenth", "twentieth", "twenty-first", "twenty-second", "twenty-third",
    "twenty-fourth", "twenty-fifth", "twenty-sixth", "twenty-seventh", "twenty-eighth",
    "twenty-ninth", "thirtieth", "thirty-first",
]  # fmt: skip
ENDINGS = {1: "st", 21: "st", 31: "st", 2: "nd", 22: "nd", 3: "rd", 23: "rd"}
MONTHS = [
    "january", "february", "march", "april", "may", "june", "july", "august", "september",
    "october", "november", "december",
]  # fmt: skip
WEEKDAYS = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]


def read_english(words):
    """An English number: it grows by addition, a hundred and a thousand multiply."""
    thousands, rest = 0, 0
    for word in re.findall("[a-z]+", words.lower()):
        if word == "thousand":
            thousands, rest = rest * 1000, 0
        elif word == "hundred":
            rest *= 100
        elif word != "and":
            rest += ENGLISH[word]
    return thousands + rest


def read_chinese(text):
    """A Chinese number: digits, each with the unit behind it; 十 alone is one of them."""
    myriads, rest, digit = 0, 0, 0
    for sign in text:
        if sign == "万":
            myriads, rest, digit = (rest + digit) * 10_000, 0, 0
        elif sign in "千百十":
            rest, digit = rest + max(digit, 1) * {"千": 1000, "百": 100, "十": 10}[sign], 0
        else:
            digit = 2 if sign == "两" else "零一二三四五六七八九".index(sign)
    return myriads + rest + digit


def read_number(text):
    return read_english(text) if text.isascii() else read_chinese(text)


def write_chinese(n):
    """As schools teach it: write every digit with its unit, then take away zeros; 2 is 二."""

    def group(n):
        text = "".join(
            "零一二三四五六七八九"[int(digit)] + unit
            for digit, unit in zip(f"{n:04}", ("千", "百", "十", ""), strict=True)
        )
        return re.sub("零+", "零", re.sub("零[千百十]", "零", text)).rstrip("零")

    text = (group(n // 10_000) + "万") * (n >= 10_000) + group(n % 10_000)
    return re.sub("^一十", "十", text.lstrip("零")) or "零"


def read_chinese_date(text):
    """The date and, if one is there, the weekday, Monday 0."""
    pattern = r"(.+?)年(.+?)月(.+?)[日号](?:[， ]?(?:星期|周)([一二三四五六日天]))?"
    *figures, weekday = re.fullmatch(pattern, text.replace(" ", "")).groups()
    if not figures[0].isascii():
        year = "".join(str("零一二三四五六七八九".index(c)) for c in figures[0].replace("〇", "零"))
        figures = [year, *(read_chinese(part) for part in figures[1:])]
    return date(*map(int, figures)), weekday and min(6, "一二三四五六日天".index(weekday))


def read_year(words):
    """A year in figures or as it is spoken, by halves or as a number."""
    if words.isdigit():
        return int(words)
    first, *rest = words.replace("oh ", "").split(" ")
    if "hundred" in rest or "thousand" in rest:
        return read_english(words)
    return ENGLISH[first] * 100 + read_english(" ".join(rest))


def read_english_date(text):
    """The date and, if one is there, the weekday, Monday 0."""
    week, month = (
        "|".join(rf"{word}|{word[:3]}" for word in words) for words in (WEEKDAYS, MONTHS)
    )
    day, month = rf"(?:the )?(\d+[a-z]*|{'|'.join(ORDINALS)})", rf"({month})\.?"
    pattern = rf"(?:({week}),? )?(?:{day}(?: of)?[ -]{month}|{month} {day}),?[ -](\d+|[a-z -]+)"
    weekday, *inside, year = re.fullmatch(pattern, text.lower()).groups()
    day, month = inside[:2] if inside[0] else inside[:1:-1]
    if day in ORDINALS:
        day = ORDINALS.index(day) + 1
    elif not day.isdigit():
        day, ending = int(day[:-2]), day[-2:]
        assert ending == ENDINGS.get(day, "th")
    number = 1 + [word[:3] for word in MONTHS].index(month[:3])
    weekday = weekday and [word[:3] for word in WEEKDAYS].index(weekday[:3])
    return date(read_year(year), number, int(day)), weekday


def read_figures(text):
    """All the dates that figures can mean: with slashes day and month stand in either order."""
    first, second, third = map(int, re.split("[-/.]", text))
    if first > 31:
        return {date(first, second, third)}
    orders = [(first, second), (second, first)] if "/" in text else [(first, second)]
    return {date(third, month, day) for day, month in orders if month <= 12}


def read_date(text):
    """The date that a text can mean alone; a weekday in it must be the right one."""
    if "年" in text:
        day, weekday = read_chinese_date(text)
    elif re.search("[a-zA-Z]", text):
        day, weekday = read_english_date(text)
    else:
        (day,), weekday = read_figures(text), None
    assert weekday is None or weekday == day.weekday()
    return day


def test_every_number_below_2000_is_read_back_in_both_languages():
    for n in range(2000):
        assert read_english(numbers.english(n)) == read_english(numbers.english(n, " ")) == n
        assert read_english(numbers.english(n, hundreds=True)) == n
        assert read_chinese(numbers.chinese(n)) == n
        assert numbers.chinese(n, "") == write_chinese(n)


@given(NUMBERS)
def test_any_number_is_read_back_in_both_languages(n):
    assert read_english(numbers.english(n)) == read_chinese(numbers.chinese(n)) == n
    assert numbers.chinese(n, "") == write_chinese(n)


@given(NUMBERS, SEEDS)
def test_a_number_in_any_way_is_read_back(n, seed):
    assert read_number(numbers.written_number(n, np.random.default_rng(seed))) == n


@given(NUMBERS)
@example(222_222)
def test_a_pair_is_two_only_before_hundreds_thousands_and_a_single_myriad(n):
    plain, most = numbers.chinese(n, ""), numbers.chinese(n, "百千万")
    assert most == re.sub("(?<!十)二(?=[百千万])", "两", plain)
    assert numbers.chinese(n) == re.sub("(?<!十)二(?=[千万])", "两", plain)


@pytest.mark.parametrize(
    ("n", "words"),
    {
        0: "零", 2: "二", 10: "十", 12: "十二", 20: "二十", 100: "一百", 110: "一百一十",
        111: "一百一十一", 105: "一百零五", 200: "二百", 222: "二百二十二", 1000: "一千",
        1001: "一千零一", 1010: "一千零一十", 1100: "一千一百", 2000: "两千", 10_000: "一万",
        10_010: "一万零一十", 10_100: "一万零一百", 11_000: "一万一千", 12_000: "一万两千",
        17_006: "一万七千零六", 20_000: "两万", 22_222: "两万两千二百二十二", 100_000: "十万",
        100_001: "十万零一", 101_000: "十万一千", 110_000: "十一万", 120_000: "十二万",
        200_000: "二十万", 220_000: "二十二万", 202_020: "二十万两千零二十",
        999_999: "九十九万九千九百九十九",
    }.items(),
)  # fmt: skip
def test_chinese_numbers_are_those_that_one_would_write(n, words):
    assert numbers.chinese(n) == words


@pytest.mark.parametrize(
    ("n", "words"),
    {
        0: "zero", 13: "thirteen", 40: "forty", 99: "ninety-nine", 100: "one hundred",
        101: "one hundred and one", 1000: "one thousand", 1001: "one thousand and one",
        1100: "one thousand one hundred", 17_006: "seventeen thousand and six",
        100_000: "one hundred thousand", 342_018:
        "three hundred and forty-two thousand and eighteen", 999_999:
        "nine hundred and ninety-nine thousand nine hundred and ninety-nine",
    }.items(),
)  # fmt: skip
def test_english_numbers_are_those_that_one_would_write(n, words):
    assert numbers.english(n) == words


def test_english_numbers_have_their_other_ways():
    assert numbers.english(17_006, " ") == "seventeen thousand six"
    assert numbers.english(1234, " and ", " ", ", ") == (
        "one thousand, two hundred and thirty four"
    )
    assert numbers.english(1706, hundreds=True) == "seventeen hundred and six"
    assert numbers.english(2006, hundreds=True) == "two thousand and six"
    rng = np.random.default_rng(0)
    ways = {numbers.written_number(1106, rng) for _ in range(300)}
    assert {
        "one thousand one hundred and six", "a thousand, one hundred six", "一千一百零六",
        "eleven hundred and six", "Eleven hundred six",
    } <= ways  # fmt: skip
    assert {"两百", "二百"} <= {numbers.written_number(200, rng) for _ in range(100)}


@pytest.mark.parametrize("n", [-1, 1_000_000])
def test_a_number_without_words_is_refused(n):
    for write in (numbers.english, numbers.chinese):
        with pytest.raises(ValueError, match=f"from 0 to 999,999, got {n:,};"):
            write(n)


@given(DATES, SEEDS)
def test_a_date_in_any_way_is_read_back_and_cannot_be_mistaken(day, seed):
    assert read_date(dates.written_date(day, np.random.default_rng(seed))) == day


def test_a_date_has_the_forms_that_one_would_expect():
    rng = np.random.default_rng(0)
    ways = {dates.written_date(date(2024, 11, 3), rng) for _ in range(4000)}
    assert {
        "the third of November 2024", "3 Nov 2024", "November 3rd, 2024", "Nov. 3, 2024",
        "Sunday, 3 November 2024", "3.11.2024", "2024-11-03", "2024/11/3", "2024年11月3日",
        "二〇二四年十一月三日", "二零二四年十一月三号", "2024年11月3日星期日", "3-Nov-2024",
        "the third of November twenty twenty-four", "sunday the 3rd of november 2024",
    } <= ways  # fmt: skip
    assert not any(re.fullmatch(r"\d+/\d+/\d{4}", way) for way in ways)
    ways = {dates.written_date(date(2024, 11, 25), rng) for _ in range(1000)}
    assert {"25/11/2024", "11/25/2024", "25.11.2024", "二〇二四年十一月二十五日"} <= ways
    assert "11/11/2024" in {dates.written_date(date(2024, 11, 11), rng) for _ in range(500)}
    assert not any("May." in dates.written_date(date(2024, 5, 3), rng) for _ in range(500))


def test_days_and_years_are_spoken_as_usual():
    assert [dates.ordinal(n) for n in range(1, 32)] == ORDINALS
    assert {year: dates.spoken_year(year) for year in (1900, 1905, 1984, 2000, 2005, 2010)} == {
        1900: "nineteen hundred", 1905: "nineteen oh five", 1984: "nineteen eighty-four",
        2000: "two thousand", 2005: "two thousand and five", 2010: "twenty ten",
    }  # fmt: skip
    assert [read_year(dates.spoken_year(year)) for year in range(1900, 2100)] == [
        *range(1900, 2100)
    ]


def value_of(source, target):
    """The number or date a pair is about, read from its words alone."""
    task, _, text = source.partition(": ")
    if task == "date":
        return read_date(text)
    return read_number(text if task == "number" else target)


@pytest.fixture(scope="module")
def drawn():
    return {name: written.pairs(np.random.default_rng(0), 800, name) for name in PARTS}


@pytest.mark.parametrize("name", PARTS)
def test_every_pair_is_right_and_of_its_part(drawn, name):
    for source, target in drawn[name]:
        value, (task, _, text) = value_of(source, target), source.partition(": ")
        assert written.part(value) == name
        assert (text if task in ("english", "chinese") else target) == str(value)
        assert task != "english" or target == numbers.english(value)
        assert task != "chinese" or target == numbers.chinese(value)


def test_no_number_or_date_stands_in_two_parts_in_any_task(drawn):
    values = {name: {value_of(*pair) for pair in rows} for name, rows in drawn.items()}
    assert not values["train"] & values["validation"] and not values["train"] & values["test"]
    assert not values["validation"] & values["test"]


def test_every_sign_and_every_word_of_what_is_held_back_stands_in_training(drawn):
    def words(name):
        rows = written.pairs(np.random.default_rng(1), 3000) if name == "train" else drawn[name]
        lines = [line for source, target in rows for line in (source.lower(), target)]
        return {word for line in lines for word in re.findall(r"[a-z]+|\S", line)}

    assert words("validation") | words("test") <= words("train")


def test_eight_tenths_of_all_values_and_all_small_numbers_are_for_training():
    assert {written.part(n) for n in range(100)} == {"train"}
    days = [date.fromordinal(n) for n in range(date(1900, 1, 1).toordinal(), 767_010)]
    for values in (range(100, 40_000), days):
        shares = [written.part(value) for value in values]
        for name, wanted in zip(PARTS, (0.8, 0.1, 0.1), strict=True):
            assert shares.count(name) / len(shares) == pytest.approx(wanted, abs=0.01)


def test_dates_reach_from_the_first_to_the_last_year_and_numbers_to_all_lengths():
    rng = np.random.default_rng(0)
    years = {written.sample_value("date", rng).year for _ in range(3000)}
    assert years == {*range(1900, 2100)}
    lengths = {len(str(written.sample_value("number", rng))) for _ in range(300)}
    assert lengths == {1, 2, 3, 4, 5, 6}


@given(SEEDS)
def test_the_same_seed_gives_the_same_pairs_and_more_begin_with_them(seed):
    few, more = (written.pairs(np.random.default_rng(seed), count) for count in (5, 8))
    assert more[:5] == few


def test_tasks_are_drawn_evenly_or_only_those_asked_for(drawn):
    tasks = [source.partition(": ")[0] for source, _ in drawn["train"]]
    assert all(abs(tasks.count(task) / len(tasks) - 1 / 4) < 0.05 for task in written.TASKS)
    only = written.pairs(np.random.default_rng(0), 20, tasks=["chinese"])
    assert all(source.startswith("chinese: ") for source, _ in only)


@pytest.mark.parametrize(
    ("name", "tasks"),
    [("valid", written.TASKS), ("test", []), ("test", ["dates"]), ("test", "date")],
)
def test_an_unknown_part_or_task_is_refused(name, tasks):
    with pytest.raises(ValueError, match="expected one of the parts .* got .*; give tasks"):
        written.sample(np.random.default_rng(0), name, tasks)


def test_the_script_shows_pairs_of_each_task():
    command = [sys.executable, "-W", "error", "-X", "utf8", str(SCRIPTS / "written.py")]
    lines = subprocess.run(command, capture_output=True, check=True, encoding="utf-8").stdout
    pairs = [line.split("  ->  ") for line in lines.splitlines()]
    assert {source.partition(": ")[0] for source, _ in pairs} == {*written.TASKS}
    assert all(written.part(value_of(*pair)) == "train" for pair in pairs)
