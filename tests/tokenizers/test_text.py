"""Laws of text preparation: cleaning, stop words, repeated lines."""

import html
import os
import subprocess
import sys
import unicodedata
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minilm.tokenizers.duplicates import (
    _hash_functions,
    jaccard,
    minhash,
    near_unique_lines,
    shingles,
    unique_lines,
)
from minilm.tokenizers.text import (
    CHINESE_STOP_WORDS,
    ENGLISH_STOP_WORDS,
    FORMS,
    STOP_WORDS,
    clean,
    normalize_unicode,
    normalize_whitespace,
    remove_control,
    remove_stop_words,
    remove_stop_words_in_text,
    strip_html,
)

ANY = st.text()  # lone surrogates too


def made_of(*pieces):
    return st.lists(st.sampled_from(pieces)).map("".join)


SPACES = made_of(*"a \t\n\r\v\f\x1c\x1f\x85\xa0\u2028\u3000", "\r\n", "\n\n", "  ")
WORDS = made_of(
    *("the", "The", "a", "in", "don't", "don’t", "cat", "的", "目的", "J", "e", "x", "t"),
    *(" ", "  ", "\n", "-", "'", "’", "(", ".", "=", "\u0301", "\u030c", "\u0338", "\u200b", "¨"),
)
MARKUP = made_of(
    *(
        "<",
        "</",
        "<!",
        "<![",
        "<!--",
        "-->",
        "<?",
        ">",
        "/>",
        "<a",
        "<p>",
        "<br/>",
        "script",
        "]]>",
    ),
    *("<script>", "</script>", "<style", "&", "&#", "&#x", "&amp", ";", "9" * 5000, "0" * 5000),
    *("CDATA[", "if", "=", '"', "'", " ", "x", "\0", "\ud800"),
)


# Cleaning


@given(ANY, st.sampled_from(FORMS))
def test_a_normalized_text_is_normal(text, form):
    assert unicodedata.is_normalized(form, normalize_unicode(text, form))


def test_each_form_is_its_own():
    text = "é e\u0301 ﬁ"
    results = [normalize_unicode(text, form) for form in FORMS]
    assert results == ["é é ﬁ", "e\u0301 e\u0301 ﬁ", "é é fi", "e\u0301 e\u0301 fi"]
    assert normalize_unicode(text) == results[0]


@pytest.mark.parametrize("form", ["nfc", "", "UTF-8", None])
def test_an_unknown_form_is_an_error(form):
    with pytest.raises(ValueError, match=r"expected a form of NFC, NFD, NFKC, NFKD, got .*; NFC"):
        normalize_unicode("text", form)
    with pytest.raises(ValueError, match="expected a form"):
        clean("text", form=form)


@pytest.mark.parametrize(
    ("page", "text"),
    [
        ("<b>bo</b>ld <i class='x>y'>it</i>", "bold it"),
        ("one<br>two<br/>three", "one\ntwo\nthree"),
        ("<UL><LI>one<LI>two</UL>", "\n\none\ntwo\n"),
        ("<table><tr><td>1</td><td>2</td></tr></table>", "\n\n\n1\n\n2\n\n\n"),
        ("a<!-- <p>no</p> -->b<!DOCTYPE html>c<?php d ?>e", "abce"),
        ("a<![if !IE]>b<![CDATA[c]]>d", "abd"),
        ("a<script>if (x<y) s = '<p>';</script>b<style>p > a {}</style>c", "abc"),
        ("a<SCRIPT src='x'>no</SCRIPT >b<script src='x'/>c", "abc"),
        ("a<script>no", "a"),
        ("&lt;b&gt; &amp;amp; &eacute;&#233;&#xE9; &nosuch; &", "<b> &amp; ééé &nosuch; &"),
        (f"a&#{'9' * 5000};b&#{'0' * 5000};&#xD800;c", "a\ufffdb\ufffd\ufffdc"),
        ("1 < 2, 3 > 2, I <3 you", "1 < 2, 3 > 2, I <3 you"),
        ("", ""),
    ],
)
def test_html_becomes_its_text(page, text):
    assert strip_html(page) == text


@given(MARKUP)
def test_no_markup_is_too_malformed(page):
    assert isinstance(strip_html(page), str)
    assert isinstance(clean(page, html=True), str)


@given(ANY)
def test_escaped_text_comes_back_as_it_was(text):
    assert strip_html(html.escape(text)) == text
    assert strip_html(f"<b>{html.escape(text)}</b><!-- {html.escape(text)} -->") == text


def test_no_control_is_left_and_visible_characters_stay():
    everything = "".join(map(chr, range(0x110000)))
    left = remove_control(everything)
    assert {c for c in left if unicodedata.category(c) == "Cc"} == {"\t", "\n"}
    for c in set(everything) - set(left) - set("\r\u2028\u2029"):
        assert unicodedata.category(c) in ("Cc", "Cf")
    for c in "\xad\u200b\u200e\u202e\u2060\ufeff\ufff9\U000e0067\x00\x1b\x7f\x9f":
        assert remove_control(f"a{c}b") == "ab", hex(ord(c))


@pytest.mark.parametrize(
    "text",
    ["👩\u200d👩\u200d👧", "می\u200cخواهم", "क्\u200dष", "ᠠᠮ\u180eᠠ", "❤\ufe0f", "\u06dd", "\u0600"],
    ids=ascii,
)
def test_signs_that_carry_meaning_stay(text):
    assert remove_control(text) == text == clean(text)


@pytest.mark.parametrize("c", ["\r\n", *"\r\v\f\x1c\x1d\x1e\x1f\x85\u2028\u2029"], ids=ascii)
def test_every_sort_of_line_break_becomes_a_newline(c):
    assert remove_control(f"a{c}b") == normalize_whitespace(f"a{c}b") == "a\nb"


@given(SPACES)
def test_whitespace_equals_its_specification(text):
    lines = [" ".join(line.split()) for line in text.replace("\x1f", "\n").splitlines()]
    kept = [line for i, line in enumerate(lines) if line or (i and lines[i - 1])]
    assert normalize_whitespace(text) == "\n".join(kept).strip("\n")


@given(
    SPACES | WORDS | ANY,
    st.sampled_from(FORMS),
    st.booleans(),
    st.sampled_from([None, "en", "zh"]),
)
def test_cleaning_twice_is_cleaning_once(text, form, lower, stop_words):
    options = dict(form=form, lower=lower, stop_words=stop_words)
    once = clean(text, **options)
    assert clean(once, **options) == once


@given(SPACES | WORDS | ANY)
def test_a_cleaned_text_is_normal_and_has_no_invisible_characters_nor_wide_gaps(text):
    cleaned = clean(text)
    assert remove_control(cleaned) == normalize_unicode(cleaned) == cleaned
    assert "  " not in cleaned and "\n\n\n" not in cleaned and cleaned == cleaned.strip()
    assert clean(text, lower=True) == clean(text, lower=True).lower()


def test_clean_does_what_it_is_asked_and_no_more():
    page = "<p>The\u200b  Cafe\u0301 &amp; ﬁsh</p>"
    assert clean(page) == "<p>The Café &amp; ﬁsh</p>"
    assert clean(page, html=True) == "The Café & ﬁsh"
    assert clean(page, html=True, form="NFKD") == "The Cafe\u0301 & fish"
    assert clean(page, html=True, lower=True) == "the café & ﬁsh"
    assert clean(page, html=True, stop_words="en") == "Café & ﬁsh"
    assert clean("&amp;lt;", html=True) == "&lt;"
    assert clean("") == clean("", html=True, lower=True, stop_words="zh") == ""


def test_cleaning_steps_come_in_an_order_that_leaves_nothing_over():
    assert clean("e\u200b\u0301") == "é"  # controls before Unicode
    assert clean("J\u030c", lower=True) == "\u01f0"  # Unicode after lower case
    assert clean("x<p>&#8203;&nbsp;</p>y", html=True) == "x\n\ny"  # entities before both


# Stop words


@pytest.mark.parametrize("language", STOP_WORDS)
def test_stop_words_are_words_in_lower_case(language):
    assert len(STOP_WORDS[language]) >= 100
    for word in STOP_WORDS[language]:
        assert word == clean(word, lower=True, form="NFKC")
        assert remove_stop_words_in_text(word, language) == ""
        assert remove_stop_words([word.upper()], language) == []


def test_the_lists_hold_function_words():
    assert {"the", "of", "and", "not", "don't", "i", "it's"} < ENGLISH_STOP_WORDS
    assert set("的了和是在也") < CHINESE_STOP_WORDS


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("The cat is in the house.", "cat house."),
        ("Came in. (The cat)\nthe dog", "Came. (cat)\ndog"),
        ("DON’T, don't: state-of-the-art, no-one", ",: state-of-the-art, no-one"),
        ("other others then thence an_a a1 a\u0301", "others thence an_a a1 a\u0301"),
        ("one\nthe\ntwo", "one\n\ntwo"),
        ("one  the   two", "one   two"),
        ("so, don't\u0301 the-a\u0301", ", don't\u0301 the-a\u0301"),
        ("1=the \u0338", "1= \u0338"),
    ],
)
def test_words_go_with_a_space_and_other_signs_stay(text, left):
    assert remove_stop_words_in_text(text) == left


def test_chinese_stop_words_go_only_where_they_are_words():
    assert remove_stop_words_in_text("我 的 目的 是 学习", "zh") == "目的 学习"
    assert remove_stop_words_in_text("我的目的是学习。", "zh") == "我的目的是学习。"
    assert remove_stop_words(["我", "的", "目的", "是", "学习"], "zh") == ["目的", "学习"]


@given(WORDS)
def test_removal_leaves_no_stop_word_and_the_other_words_in_their_order(text):
    def words(text):
        return [w for w in text.split() if w.isalpha()]

    spaced = " ".join(words(text))
    left = remove_stop_words_in_text(spaced)
    assert words(left) == left.split() == remove_stop_words(words(spaced))
    assert not ENGLISH_STOP_WORDS & {word.lower() for word in words(left)}


def test_a_language_without_a_list_is_an_error():
    calls = (
        lambda: remove_stop_words(["der"], "de"),
        lambda: remove_stop_words_in_text("der", "de"),
        lambda: clean("der", stop_words="de"),
    )
    for call in calls:
        with pytest.raises(ValueError, match="expected a language of en, zh, got 'de'; filter"):
            call()


# Repeated lines


@given(st.lists(st.text("ab", max_size=2)))
def test_unique_lines_are_the_first_of_their_kind_in_order(lines):
    naive = [line for i, line in enumerate(lines) if line not in lines[:i]]
    assert list(unique_lines(iter(lines))) == naive


def test_a_stream_of_lines_is_read_no_further_than_asked():
    for function in (unique_lines, near_unique_lines):
        stream = iter(["one line", "one line", "another", "a third"])
        assert next(result := function(stream)) == "one line"
        assert next(result) == "another"
        assert list(stream) == ["a third"]


def test_no_lines_are_no_lines():
    assert list(unique_lines([])) == list(near_unique_lines([])) == []


@given(st.text(), st.integers(1, 8))
def test_shingles_are_the_substrings_of_their_size(text, size):
    naive = {text[i:j] for i, j in combinations(range(len(text) + 1), 2) if j - i == size}
    assert shingles(text, size) == (naive or {text})


@given(st.sets(st.sampled_from("abcdef")), st.sets(st.sampled_from("abcdef")))
def test_jaccard_counts_what_is_common(a, b):
    both, either = (sum(f(x in a, x in b) for x in "abcdef") for f in (min, max))
    assert jaccard(a, b) == jaccard(b, a) == (both / either if either else 1)


@given(st.text(st.characters(codec="utf-8")), st.integers(1, 9), st.integers(1, 6))
def test_minhash_equals_its_specification(text, n_hashes, shingle):
    table = [0]
    for code in range(1, 256):
        for _ in range(8):
            code = code >> 1 ^ (0xEDB88320 if code & 1 else 0)
        table.append(code)

    def crc(data):
        code = 0xFFFFFFFF
        for byte in data:
            code = table[(code ^ byte) & 255] ^ code >> 8
        return code ^ 0xFFFFFFFF

    codes = [crc(piece.encode()) for piece in shingles(text, shingle)]
    a, b = _hash_functions(n_hashes).tolist()
    expected = [
        min((ak * x + bk) % 2**64 // 2**32 for x in codes) for ak, bk in zip(a, b, strict=True)
    ]
    signature = minhash(text, n_hashes, shingle)
    assert signature.dtype == np.uint32 and signature.tolist() == expected


def test_a_long_text_has_the_lowest_hashes_of_its_parts():
    text = "".join(map(chr, np.random.default_rng(0).integers(0x4E00, 0x9F00, 2000)))
    parts = [minhash(text[i : i + 104], 4096) for i in range(0, 2000, 100)]
    assert (minhash(text, 4096) == np.min(parts, axis=0)).all()


def pair_of_lines(rng, common, each):
    """Two lines of different characters, of which `common` are in both and `each` in one."""
    codes = 0x20000 + rng.choice(40_000, common + 2 * each, replace=False)
    letters = "".join(map(chr, codes))
    both = letters[:common]
    return both + letters[common : common + each], both + letters[common + each :]


@pytest.mark.parametrize(("common", "each"), [(0, 50), (10, 45), (50, 25), (80, 10), (100, 0)])
def test_equal_entries_estimate_the_jaccard_similarity(common, each):
    rng = np.random.default_rng(common)
    s = common / (common + 2 * each)
    estimates = []
    for _ in range(20):
        one, two = pair_of_lines(rng, common, each)
        assert jaccard(shingles(one, 1), shingles(two, 1)) == s
        estimates.append((minhash(one, 1024, 1) == minhash(two, 1024, 1)).mean())
    deviation = (s * (1 - s) / 1024) ** 0.5
    assert abs(np.mean(estimates) - s) <= 4 * deviation / 20**0.5  # the mean of twenty
    assert np.std(estimates) <= 2 * deviation


@pytest.mark.parametrize("bands", [8, 16, 32])
def test_the_share_of_pairs_compared_is_that_of_the_formula(bands):
    rng = np.random.default_rng(bands)
    n, s, rows = 400, 0.7, 128 // bands
    lines = [line for _ in range(n) for line in pair_of_lines(rng, 70, 15)]
    dropped = 2 * n - sum(1 for _ in near_unique_lines(lines, s, bands=bands, shingle=1))
    p = 1 - (1 - s**rows) ** bands
    assert abs(dropped / n - p) <= 4 * (p * (1 - p) / n) ** 0.5


@given(st.lists(st.text("abc", max_size=8)), st.sampled_from([0.3, 0.5, 0.8, 1.0]))
def test_with_one_row_to_a_band_near_unique_lines_are_those_of_all_comparisons(lines, threshold):
    naive = []
    for line in lines:
        if all(jaccard(shingles(line, 2), shingles(k, 2)) < threshold for k in naive):
            naive.append(line)
    assert list(near_unique_lines(lines, threshold, bands=128, shingle=2)) == naive


def test_planted_near_duplicates_are_found_and_different_lines_kept():
    rng = np.random.default_rng(0)
    words = ["".join(rng.choice(list("aeioulmnrst"), 6)) for _ in range(500)]
    lines = [" ".join(rng.choice(words, 20)) for _ in range(100)]
    planted = [line + "!" for line in lines] + [line[:-3] for line in lines] + lines
    assert list(near_unique_lines(lines + planted)) == lines


def test_no_line_is_dropped_below_the_threshold():
    one, two = pair_of_lines(np.random.default_rng(0), 80, 10)  # s = 0.8
    for threshold, left in [(0.8, [one]), (0.81, [one, two])]:
        kept = list(near_unique_lines([one, two], threshold, bands=128, shingle=1))
        assert kept == left


def test_short_lines_are_compared_whole():
    lines = ["", "a", "ab", "a", "", "abcd", "abcde", "abcd"]
    assert list(near_unique_lines(lines)) == ["", "a", "ab", "abcd", "abcde"]


def test_neither_signatures_nor_lines_depend_on_the_hash_seed():
    code = (
        "from minilm.tokenizers.duplicates import minhash, near_unique_lines, unique_lines;"
        "lines = ['the cat sat on the mat', 'the cat sat on the mat.', 'né', 'a dog', 'né'] * 2;"
        "print(minhash(lines[0]).tolist(), list(near_unique_lines(lines)),"
        "list(unique_lines(lines)))"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONIOENCODING": "utf-8"},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("0", "1", "2")
    }
    assert len(outputs) == 1
    assert str(minhash("the cat sat on the mat").tolist()).encode() in outputs.pop()


def test_a_text_in_place_of_its_lines_or_words_is_an_error():
    for function in (unique_lines, near_unique_lines, remove_stop_words):
        with pytest.raises(TypeError, match="expected .*, got the text 'a\\\\nb'; use"):
            function("a\nb")


def test_a_lone_surrogate_is_an_error_where_bytes_are_hashed():
    calls = (
        lambda: minhash("the \ud800"),
        lambda: list(unique_lines(["the \ud800"])),
        lambda: list(near_unique_lines(["the \ud800"])),
    )
    for call in calls:
        with pytest.raises(ValueError, match=r"lone surrogate '\\ud800' at position 4; read"):
            call()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold": 0}, r"expected a threshold in \(0, 1\], got 0; try"),
        ({"threshold": 1.1}, "got 1.1"),
        ({"threshold": float("nan")}, "got nan"),
        ({"bands": 0}, "expected bands that divide n_hashes = 128, got 0; try"),
        ({"bands": 3}, "got 3"),
        ({"n_hashes": 0}, "expected n_hashes and shingle >= 1, got 0 and 5; try"),
        ({"n_hashes": -16}, "got -16 and 5"),
        ({"shingle": 0}, "got 128 and 0"),
    ],
)
def test_impossible_settings_are_an_error_before_the_first_line(options, message):
    with pytest.raises(ValueError, match=message):
        near_unique_lines([], **options)
