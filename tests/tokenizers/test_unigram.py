"""Laws of the unigram model."""

import base64
import json
import math
import os
import re
import subprocess
import sys
import time
import unicodedata
from collections import Counter
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minilm.tokenizers.added import AddedToken
from minilm.tokenizers.files import TokenizerError
from minilm.tokenizers.sentencepiece import Charsmap, Normalizer, WordSplitter
from minilm.tokenizers.unigram import BYTE_PIECES, NFKC, WORDS, UnigramTokenizer
from minilm.tokenizers.unigram_lattice import (
    Lattices,
    best,
    best_paths,
    draw,
    expected_counts,
    match_table,
    n_best,
    naive_best,
    naive_segmentations,
)
from minilm.tokenizers.unigram_training import (
    LONGEST_WORD,
    count_words,
    learn_pieces,
    naive_expected_counts,
    naive_learn_pieces,
    naive_seeds,
)

SAMPLE = (
    "The cat sat on the mat; the cat's hat, that's that.\n\n  Ein Öl für 1234 Männer, né?\n"
    "They that have the hat hate that the mat is flat <0x41>.\n" * 3
)
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="▁"))
FEW_LETTERS = st.text("abc", max_size=9)
# Scores of one digit, so that there are ties.
SCORES = st.dictionaries(
    st.text("abc", min_size=1, max_size=4), st.integers(-9, 0).map(lambda n: n / 10), min_size=1
)
UNKNOWN = -11.0
TRAINED = UnigramTokenizer.train(SAMPLE, 90)
BYTES = UnigramTokenizer.train(SAMPLE, 340, byte_fallback=True)
METASPACE = {"type": "Metaspace", "replacement": "▁"}


def shown(tokenizer, text, **special):
    return [tokenizer.tokens[i] for i in tokenizer.encode(text, **special)]


def charsmap(replacements):
    """A precompiled table of replacements: each node of its trie has 256 places of its own."""
    units, texts, bases = {0: 0}, b"", {b"": 256}
    units[0] = 1 << 10 | 0x200  # the root's offset, in its long form
    for key, new in replacements.items():
        data = key.encode()
        for end in range(1, len(data) + 1):
            prefix = data[:end]
            if prefix not in bases:
                bases[prefix] = 256 * (len(bases) + 1)
                here = bases[prefix[:-1]] ^ prefix[-1]
                units[here] = (here ^ bases[prefix]) << 10 | prefix[-1]
        units[bases[data[:-1]] ^ data[-1]] |= 0x100
        units[bases[data]] = 1 << 31 | len(texts)
        texts += new.encode() + b"\0"
    size = 256 * (len(bases) + 1)
    trie = b"".join(units.get(i, 0).to_bytes(4, "little") for i in range(size))
    return len(trie).to_bytes(4, "little") + trie + texts


REPLACEMENTS = {"ﬁ": "fi", "\n": " ", "\r": " ", "é": "e", "e\u0301": "é", "\x07": "", "가": "ga"}
PRECOMPILED = {
    "type": "Precompiled",
    "precompiled_charsmap": base64.b64encode(charsmap(REPLACEMENTS)).decode(),
}
NORMALIZERS = [
    None,
    NFKC,
    {"type": "NFD"},
    {"type": "Lowercase"},
    {"type": "StripAccents"},
    {"type": "Nmt"},
    PRECOMPILED,
    {"type": "Strip", "strip_left": True, "strip_right": True},
    {"type": "Strip", "strip_left": False, "strip_right": True},
    {"type": "Prepend", "prepend": "▁"},
    {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
    {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": r"\0"},
    {
        "type": "Sequence",
        "normalizers": [
            PRECOMPILED,
            {"type": "NFKD"},
            {"type": "StripAccents"},
            {"type": "Prepend", "prepend": "▁"},
        ],
    },
]
PRE_TOKENIZERS = [
    None,
    METASPACE,
    {**METASPACE, "add_prefix_space": False},
    {**METASPACE, "prepend_scheme": "first"},
    {**METASPACE, "prepend_scheme": "never", "split": False},
    WORDS,
    {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, METASPACE]},
    {
        "type": "Sequence",
        "pretokenizers": [{"type": "WhitespaceSplit"}, {**METASPACE, "prepend_scheme": "first"}],
    },
]
MIXED = st.text(
    "aZ \n\r\té\u0301\u0302ﬁ①가\u1100\u1161\u11a8ㄱㅏ▁🇩🇪\u200dΣİ\x07\x1c\u2028", max_size=12
)


# The best segmentation


@given(FEW_LETTERS, SCORES)
def test_the_fast_search_finds_what_the_naive_one_does_ties_included(word, scores):
    expected = naive_best(word, scores, UNKNOWN)[1]
    assert best(word, match_table(scores, UNKNOWN), UNKNOWN) == expected


@given(FEW_LETTERS, SCORES)
def test_no_segmentation_is_better_than_the_best(word, scores):
    total, pieces = naive_best(word, scores, UNKNOWN)
    assert "".join(pieces) == word
    paths = [score for score, _ in naive_segmentations(word, scores, UNKNOWN)]
    assert total == pytest.approx(max(paths), abs=1e-12)  # sums in another order


def test_of_equally_good_segmentations_the_one_with_the_longest_last_piece_is_found():
    scores = {"a": -1.0, "b": -1.0, "c": -1.0, "ab": -2.0, "bc": -2.0}
    assert best("abc", match_table(scores, UNKNOWN), UNKNOWN) == ["a", "bc"]


@given(st.lists(st.text("thecasm.ж", min_size=1, max_size=7)))
def test_encoding_is_the_naive_best_segmentation_of_each_word(words):
    scores = {
        piece: score for piece, score in TRAINED.pieces if piece not in TRAINED.special_tokens
    }
    unknown = min(scores.values()) - 10
    expected = []
    for word in words:
        pieces = naive_best("▁" + word, scores, unknown)[1]
        ids = [TRAINED.ids.get(piece, 2) for piece in pieces]
        expected += [i for k, i in enumerate(ids) if i != 2 or ids[k - 1] != 2]  # ▁ is known
    assert TRAINED.encode(" ".join(words)) == expected


@pytest.mark.parametrize("word", ["a" * 200_000, "ab" * 100_000, "ж" * 200_000])
def test_a_very_long_word_takes_time_proportional_to_its_length(word):
    start = time.perf_counter()
    ids = TRAINED.encode(word)
    assert time.perf_counter() - start < 5
    assert len(ids) == 2 if word[0] == "ж" else len(ids) > 10_000


def test_the_cache_is_bounded_and_holds_no_long_words():
    tokenizer = UnigramTokenizer(TRAINED.pieces, 2)
    tokenizer.encode("the the " + "the" * 30)
    assert list(tokenizer._cache) == ["▁the"]


# Unknown characters, bytes and special tokens


def test_neighbouring_unknown_characters_are_one_token_and_ten_below_the_rarest_piece():
    tokenizer = UnigramTokenizer([("<unk>", 0.0), ("a", -1.0), ("▁", -3.0)], 0)
    assert shown(tokenizer, "axyza z") == ["▁", "a", "<unk>", "a", "▁", "<unk>"]
    assert tokenizer.n_best("x", 3) == [([2, 0], -3.0 + -13.0)]


def test_a_piece_is_found_though_its_first_character_is_unknown():
    tokenizer = UnigramTokenizer([("<unk>", 0.0), ("xy", -1.0), ("▁", -1.0)], 0)
    assert shown(tokenizer, "xyx") == ["▁", "xy", "<unk>"]


def test_without_an_unknown_token_unknown_characters_are_an_error():
    tokenizer = UnigramTokenizer([("a", -1.0), ("▁", -1.0)], None)
    assert tokenizer.encode("a") == [1, 0]
    with pytest.raises(ValueError, match="expected the characters of the vocabulary, got 'xy'"):
        tokenizer.encode("axy")


@given(TEXTS)
def test_with_bytes_decode_of_encode_is_the_normalised_text(text):
    normal = unicodedata.normalize("NFKC", text)
    words = [word for word in re.split("[^\\S\x1c-\x1f]+", normal) if word]
    if not any(word.startswith("▁") for word in words):
        ids = BYTES.encode(text, disallowed_special=())
        assert BYTES.decode(ids) == " ".join(words).replace("▁", " ")


def test_unknown_characters_become_bytes_only_if_all_of_them_are_pieces():
    pieces = [("<unk>", 0.0), ("▁", -1.0), ("<0xC3>", 0.0), ("<0xA9>", 0.0)]
    tokenizer = UnigramTokenizer(pieces, 0, byte_fallback=True)
    assert tokenizer.encode("é") == [1, 2, 3]
    assert tokenizer.encode("éx") == [1, 0]
    assert UnigramTokenizer(pieces, 0).encode("é") == [1, 0]


def test_text_that_looks_like_a_byte_is_text_in_a_trained_vocabulary():
    assert BYTES.decode(BYTES.encode("a <0x41> <0x00>")) == "a <0x41> <0x00>"


def test_bytes_that_are_no_character_become_the_replacement_character():
    ids = [BYTES.ids[f"<0x{byte:02X}>"] for byte in "né".encode()]
    assert BYTES.decode(ids) == "né"
    assert BYTES.decode(ids[:-1]) == "\ufffd" * 2  # one for each byte of the run, as in tokenizers


SPECIAL = ["a b*", AddedToken("(.+)", lstrip=True), AddedToken("hat", special=False)]


def test_special_tokens_never_come_from_plain_text():
    tokenizer = UnigramTokenizer.train(SAMPLE + "<pad> <unk> a b* (.+) hat" * 9, 120, SPECIAL)
    special = set(tokenizer.special_tokens.values())
    assert len(special) == 5
    for text in ("<pad> <unk> x a b* (.+)", "</s>", "＜pad＞", "a▁b*", "a b*"):
        assert not special & set(tokenizer.encode(text, disallowed_special=())) - {2}
    assert shown(tokenizer, "hat a b*", allowed_special="all") == ["hat", "a b*"]
    with pytest.raises(ValueError, match=r"the special token '\(\.\+\)' at position 1"):
        tokenizer.encode(" (.+)")


def test_a_piece_that_is_the_unknown_token_is_not_spelt_by_text_either():
    assert shown(TRAINED, "<unk>", disallowed_special=())[0] == "▁"
    assert "<unk>" not in shown(BYTES, "<unk>", disallowed_special=())


def test_texts_have_t5s_end_token():
    single = TRAINED(["the cat", "mat"], padding=True)
    assert single.input_ids[0].tolist() == [*TRAINED.encode("the cat"), 1]
    assert single.input_ids[1, -1] == 0
    pair = TRAINED("the", "cat")
    assert pair.input_ids[0].tolist() == [*TRAINED.encode("the"), 1, *TRAINED.encode("cat"), 1]
    assert not pair.token_type_ids.any()


# Other segmentations


@given(st.text("abc", max_size=7), SCORES, st.integers(1, 6))
def test_the_n_best_are_the_n_best_of_all(word, scores, n):
    found = n_best(word, n, match_table(scores, UNKNOWN), UNKNOWN)
    paths = sorted(naive_segmentations(word, scores, UNKNOWN), key=lambda path: -path[0])
    totals = [score for score, _ in paths]
    np.testing.assert_allclose([score for score, _ in found], totals[:n], atol=1e-12)
    known = {tuple(pieces): score for score, pieces in paths}
    assert len({tuple(pieces) for _, pieces in found}) == len(found)
    for score, pieces in found:
        assert known[tuple(pieces)] == pytest.approx(score, abs=1e-12)
    assert found[0][1] == best(word, match_table(scores, UNKNOWN), UNKNOWN)


def test_the_n_best_of_a_text_are_those_of_its_words_together():
    tokenizer = UnigramTokenizer(TRAINED.pieces, 2, added=SPECIAL)
    text = "the mat a b*that"
    found = tokenizer.n_best(text, 40, allowed_special="all")
    words = [tokenizer.n_best(word, 10**6) for word in ("the", "mat", "that")]
    totals = [sum(score for _, score in choice) for choice in product(*words)]
    best_totals = sorted(totals, reverse=True)[:40]
    np.testing.assert_allclose([total for _, total in found], best_totals, atol=1e-9)
    assert found[0][0] == tokenizer.encode(text, allowed_special="all")
    assert TRAINED.n_best("", 3) == [([], 0.0)]


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0, 3.0])
def test_segmentations_are_drawn_as_often_as_they_are_probable(alpha):
    scores = {"a": -1.0, "b": -1.5, "ab": -2.0, "ba": -1.2, "aba": -3.0}
    paths = list(naive_segmentations("ababax", scores, -2.5))
    weights = np.array([math.exp(alpha * score) for score, _ in paths])
    table, rng, n = match_table(scores, -2.5), np.random.default_rng(0), 20_000
    drawn = Counter(tuple(draw("ababax", rng, alpha, table, -2.5)) for _ in range(n))
    expected = n * weights / weights.sum()
    found = np.array([drawn[tuple(pieces)] for _, pieces in paths])
    assert found.sum() == n
    # Pearson's statistic has the mean k and the variance 2k; five deviations are never seen.
    statistic, k = ((found - expected) ** 2 / expected).sum(), len(paths) - 1
    assert k >= 10 and statistic < k + 5 * math.sqrt(2 * k)


def test_a_sample_is_a_segmentation_of_the_text_and_depends_on_the_generator_only():
    text = "the cat that sat"
    samples = [TRAINED.sample(text, np.random.default_rng(seed), 0.3) for seed in range(20)]
    assert len(set(map(tuple, samples))) > 5
    assert {TRAINED.decode(ids) for ids in samples} == {text}
    assert TRAINED.sample(text, np.random.default_rng(3), 0.3) == samples[3]
    assert TRAINED.sample(text, np.random.default_rng(0), 1e4) == TRAINED.encode(text)
    with pytest.raises(ValueError, match="the special token '</s>' at position 0"):
        TRAINED.sample("</s>", np.random.default_rng(0))


@pytest.mark.parametrize("alpha", [-1, math.nan, math.inf])
def test_an_alpha_that_is_no_exponent_is_an_error(alpha):
    with pytest.raises(ValueError, match="expected a finite alpha >= 0, got"):
        TRAINED.sample("the", np.random.default_rng(0), alpha)
    with pytest.raises(ValueError, match="expected n >= 1, got 0"):
        TRAINED.n_best("the", 0)


# Training

COUNTS = st.dictionaries(st.text("abc", min_size=1, max_size=7), st.integers(1, 60), min_size=1)


@given(COUNTS, st.integers(3, 14))
def test_training_equals_its_specification(counts, n):
    n = max(n, len(set().union(*counts)))
    expected, found = naive_learn_pieces(counts, n), dict(learn_pieces(counts, n))
    assert found.keys() == expected.keys()
    for piece, score in found.items():
        assert score == pytest.approx(expected[piece], abs=1e-9)  # sums in another order


def all_edges(words, pieces):
    """(word, start, length, piece) wherever a piece stands."""
    found = [
        (i, start, len(piece), k)
        for i, word in enumerate(words)
        for start in range(len(word))
        for k, piece in enumerate(pieces)
        if word.startswith(piece, start)
    ]
    return np.array(found).T


@given(COUNTS, SCORES)
def test_expected_counts_are_those_over_all_segmentations(counts, scores):
    scores = {"a": -2.0, "b": -3.0, "c": -4.0} | scores
    lengths = np.array([len(word) for word in counts])
    lattices = Lattices(lengths, *all_edges(list(counts), list(scores)))
    weights = np.array(list(counts.values()), float)
    found = expected_counts(lattices, np.array(list(scores.values())), weights)
    expected = naive_expected_counts(counts, scores)
    np.testing.assert_allclose(found, list(expected.values()), rtol=1e-11, atol=1e-12)


@given(COUNTS, SCORES)
def test_the_best_paths_of_many_words_are_each_words_best_ties_included(counts, scores):
    scores = {"a": -2.0, "b": -3.0, "c": -4.0} | scores
    words, pieces = list(counts), list(scores)
    lattices = Lattices(np.array([len(word) for word in words]), *all_edges(words, pieces))
    path = best_paths(lattices, np.array(list(scores.values())))
    found = sorted((int(lattices.word[i]), pieces[lattices.piece[i]]) for i in path)
    expected = [(i, x) for i, word in enumerate(words) for x in naive_best(word, scores, 0.0)[1]]
    assert found == sorted(expected)


def test_expected_counts_of_a_word_worked_out_by_hand():
    """ab is either one piece, with 1/2, or two, with 1/4 · 1/4: odds of 8 to 1."""
    scores = {"a": math.log(1 / 4), "b": math.log(1 / 4), "ab": math.log(1 / 2)}
    expected = naive_expected_counts({"ab": 9}, scores)
    assert expected == pytest.approx({"a": 1.0, "b": 1.0, "ab": 8.0})


def test_long_words_do_not_underflow():
    counts = {"ab" * 500: 1, "ba" * 400: 2}
    learned = dict(learn_pieces(counts, 10))
    assert len(learned) == 10
    assert sum(math.exp(score) for score in learned.values()) == pytest.approx(1)


def test_a_seed_that_is_always_followed_by_one_character_gives_way_to_the_longer_one():
    assert naive_seeds({"abc": 2, "abd": 1}) == {
        **{"a": 3, "b": 3, "c": 2, "d": 1},
        **{"ab": 6, "bc": 4, "abc": 6},
    }


def test_pieces_come_from_the_most_to_the_least_probable_after_the_special_tokens():
    assert TRAINED.tokens[:3] == ["<pad>", "</s>", "<unk>"]
    assert (TRAINED.vocab_size, TRAINED.unk_id, TRAINED.pad_token) == (90, 2, "<pad>")
    scores = [score for _, score in TRAINED.pieces[3:]]
    assert all(b <= a + 1e-8 for a, b in zip(scores, scores[1:], strict=False))
    assert {*SAMPLE} - {" ", "\n"} <= set(TRAINED.tokens)
    assert sum(map(math.exp, scores)) == pytest.approx(1)
    tokenizer = UnigramTokenizer.train(SAMPLE, 100, SPECIAL)
    assert tokenizer.vocab_size == 100
    assert tokenizer.tokens[-3:] == ["a b*", "(.+)", "hat"]
    assert BYTES.tokens[3:259] == list(BYTE_PIECES) and BYTES.vocab_size == 340


def test_frequent_words_become_pieces():
    assert shown(TRAINED, "that the cat") == ["▁that", "▁the", "▁cat"]


def test_training_on_a_stream_equals_training_on_the_list_of_its_texts():
    lines = SAMPLE.splitlines()
    assert UnigramTokenizer.train(iter(lines), 90).pieces == TRAINED.pieces
    assert UnigramTokenizer.train([SAMPLE], 90).pieces == TRAINED.pieces


def test_training_does_not_depend_on_the_hash_seed():
    code = (
        "import sys; from minilm.tokenizers.unigram import UnigramTokenizer;"
        "print(ascii(UnigramTokenizer.train(sys.argv[1], 90).pieces))"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code, SAMPLE],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("0", "1")
    }
    assert outputs == {f"{ascii(TRAINED.pieces)}\n"}


@pytest.mark.parametrize("texts", ["", [], ["", " \n"]])
def test_training_on_nothing_leaves_the_special_tokens(texts):
    tokenizer = UnigramTokenizer.train(texts, 10)
    assert tokenizer.tokens == ["<pad>", "</s>", "<unk>"]
    assert tokenizer.encode("né") == [2]
    assert tokenizer.encode("") == []


def test_training_gives_all_there_is_where_the_texts_have_less():
    tokenizer = UnigramTokenizer.train("abc abc", 10_000)
    assert sorted(tokenizer.tokens[3:]) == ["a", "abc", "b", "bc", "c", "▁", "▁abc"]


@pytest.mark.parametrize("vocab_size", [7, 0, -1])
def test_a_vocabulary_without_room_for_the_characters_is_an_error(vocab_size):
    with pytest.raises(ValueError, match="expected room for the 5 different characters"):
        UnigramTokenizer.train("abcd", vocab_size)
    assert UnigramTokenizer.train("abcd", 8).vocab_size == 8


def test_words_that_are_too_many_still_give_their_characters(monkeypatch):
    monkeypatch.setattr("minilm.tokenizers.unigram_training.MOST_CHARACTERS", 10)
    learned = [piece for piece, _ in learn_pieces({"abab": 5, "abba": 4, "xyz": 1}, 8)]
    assert len(learned) == 8 and {*"abxyz"} <= {*learned}


def test_reserved_strings_are_no_pieces():
    counts = {"abab": 5, "abba": 4, "ba": 3}
    assert "ba" in dict(learn_pieces(counts, 5))
    learned = dict(learn_pieces(counts, 5, {"ba", "b"}))
    assert not {"ba", "b"} & learned.keys() and len(learned) == 5 and "a" in learned


@pytest.mark.parametrize("word", ["a" * 100_000, "ab" * 50_000])
def test_training_on_a_very_long_word_takes_its_stretches(word):
    assert sum(len(part) * n for part, n in count_words([word]).items()) == 100_000
    assert max(map(len, count_words([word]))) == LONGEST_WORD
    tokenizer = UnigramTokenizer.train(word, 30)
    assert "".join(shown(tokenizer, word)) == "▁" + word
    assert len(tokenizer.encode(word)) < 10_000


def test_progress_is_reported_after_each_round():
    calls = []
    UnigramTokenizer.train(SAMPLE, 60, progress=lambda left, wanted: calls.append((left, wanted)))
    left = [pieces for pieces, _ in calls]
    assert left == sorted(left, reverse=True) and left[-1] == 57 and len(left) > 2
    assert {wanted for _, wanted in calls} == {57}


def test_a_lone_surrogate_is_an_error_that_names_its_position():
    for call in (TRAINED.encode, lambda text: UnigramTokenizer.train(text, 300)):
        with pytest.raises(ValueError, match=r"lone surrogate '\\ud800' at position 4; read"):
            call("the \ud800 mat")


# Normalisation and words


@given(MIXED, st.sampled_from(NORMALIZERS))
def test_the_aligned_normal_form_is_the_normal_form_with_rising_places(text, spec):
    normalizer = Normalizer(spec)
    normal, places = normalizer.aligned(text)
    assert normal == normalizer(text)
    assert len(places) == len(normal)
    assert all(0 <= start <= end <= len(text) for start, end in places)
    assert places == sorted(places)


def test_characters_that_are_normalised_together_have_one_place():
    normal = Normalizer(NFKC).aligned("ﬁ ㄱㅏ x")
    assert normal == ("fi 가 x", [(0, 1), (0, 1), (1, 2), (2, 4), (4, 5), (5, 6)])


@given(MIXED)
def test_each_character_has_the_place_of_what_it_came_from(text):
    normal, places = Normalizer({"type": "Lowercase"}).aligned(text)
    for character, (start, end) in zip(normal, places, strict=True):
        assert end == start + 1 and character in text[start].lower()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ﬁn\x07e", "fine"),
        ("e\u0301", "é"),  # the whole grapheme
        ("e\u0301\u0302", "é"),  # 5 bytes: found by its beginning, the rest is lost
        ("e\u0301\u0302\u0303", "e\u0301\u0302\u0303"),  # 7 bytes: character by character
        ("é\u0302\u0303", "e\u0302\u0303"),  # 6 bytes
        ("\r\n\r\n", "  "),  # a line end is one grapheme
        ("\n\r", "  "),
        ("가", "ga"),
    ],
)
def test_a_precompiled_table_replaces_graphemes_and_then_characters(text, expected):
    assert Normalizer(PRECOMPILED)(text) == expected
    assert Normalizer(PRECOMPILED).aligned(text)[0] == expected


@given(st.text("aé\u0301\u0302ﬁ\r\n가\u1100\u11a8🇩🇪\u200d\x00" + "".join(REPLACEMENTS)))
def test_a_table_is_read_the_same_way_grapheme_by_grapheme(text):
    table = Charsmap(charsmap(REPLACEMENTS))
    pieces, done = [], 0
    for start, end, new in table.edits(text):
        pieces += [text[done:start], new]
        done = end
    assert table.whole(text) == "".join([*pieces, text[done:]])


@pytest.mark.parametrize("cut", [0, 3, 4, 100, 5])
def test_a_table_that_is_cut_off_is_an_error(cut):
    with pytest.raises(TokenizerError, match="precompiled_charsmap"):
        Charsmap(charsmap(REPLACEMENTS)[:cut])


def test_a_hole_in_a_table_is_found_when_a_character_leads_there():
    blob = charsmap({"é": "e"})
    table = Charsmap(blob[:-2])  # without its replacement
    assert table.whole("abc") == "abc"
    with pytest.raises(TokenizerError, match="without holes, got \"'é'"):
        table.whole("né")


@given(MIXED, st.sampled_from(PRE_TOKENIZERS), st.booleans())
def test_words_are_the_placed_words(text, spec, first):
    splitter = WordSplitter(spec)
    placed = list(splitter.placed(text, first))
    assert splitter.words(text, first) == [word for word, _, _ in placed]
    for word, offset, low in placed:
        for i, character in enumerate(word):
            if offset + i >= low:
                assert character in (text[offset + i], "▁")
            else:
                assert (i, character, offset) == (0, "▁", low - 1)


@pytest.mark.parametrize(
    ("settings", "first", "expected"),
    [
        ({}, True, ["▁a", "▁", "▁b", "▁c"]),
        ({"prepend_scheme": "never"}, True, ["a", "▁", "▁b", "▁c"]),
        ({"prepend_scheme": "first"}, True, ["▁a", "▁", "▁b", "▁c"]),
        ({"prepend_scheme": "first"}, False, ["a", "▁", "▁b", "▁c"]),
        ({"split": False}, True, ["▁a▁▁b▁c"]),
    ],
)
def test_metaspace_marks_and_cuts(settings, first, expected):
    assert WordSplitter({**METASPACE, **settings}).words("a  b▁c", first) == expected


def test_the_first_word_is_one_where_the_text_begins():
    first = WordSplitter(PRE_TOKENIZERS[-1])
    assert first.words("a b", True) == ["▁a", "b"]
    assert first.words("a b", False) == first.words(" a b", True) == ["a", "b"]


def test_a_marked_text_gets_no_second_mark():
    assert WordSplitter(METASPACE).words(" a", True) == ["▁a"]
    assert WordSplitter(WORDS).words(" a ▁b\x1cc\u3000d ", True) == ["▁a", "▁b\x1cc", "▁d"]


@pytest.mark.parametrize("text", ["the cat  that", " a mat,\nsat", "caﬁﬁ a①x", "the_cat"])
def test_offsets_cut_the_text_that_a_token_was_read_from(text):
    ids, spans = TRAINED.encode_with_offsets(text)
    assert ids == TRAINED.encode(text)
    assert spans == sorted(spans)
    for i, (start, end) in zip(ids, spans, strict=True):
        if i != 2 and TRAINED.tokens[i] != "▁" and text.isascii():
            assert text[start:end] == TRAINED.tokens[i].removeprefix("▁")


def test_a_character_that_becomes_two_has_one_place():
    tokenizer = UnigramTokenizer([("<unk>", 0.0), ("▁", -1.0), ("f", -1.0), ("i", -1.0)], 0)
    assert tokenizer.encode_with_offsets("f ﬁ") == (
        [1, 2, 1, 2, 3],
        [(0, 1), (0, 1), (2, 3), (2, 3), (2, 3)],
    )


# Decoding and the file


def test_decoding_drops_the_first_space_only():
    ids = TRAINED.encode("the cat")
    assert TRAINED.decode(ids) == "the cat"
    assert TRAINED.decode([*ids, 1]) == "the cat</s>"
    assert TRAINED.decode([0, *ids, 1]) == "<pad> the cat</s>"
    assert TRAINED.decode([0, *ids, 1], skip_special_tokens=True) == "the cat"
    never = UnigramTokenizer(
        TRAINED.pieces, 2, pre_tokenizer={**METASPACE, "prepend_scheme": "never"}
    )
    assert never.decode(never.encode(" the cat")) == " the cat"
    assert TRAINED.decode([]) == ""
    added = UnigramTokenizer(TRAINED.pieces, 2, added=[" x"])
    assert added.decode(added.encode(" x", allowed_special="all")) == " x"


def test_decoding_an_id_outside_the_vocabulary_is_an_error():
    for ids in ([TRAINED.vocab_size], [-1], [0, 10**9]):
        with pytest.raises(IndexError, match="expected ids from 0 to"):
            TRAINED.decode(ids)


@pytest.mark.parametrize("pre_tokenizer", PRE_TOKENIZERS)
@pytest.mark.parametrize("normalizer", NORMALIZERS)
def test_a_loaded_tokenizer_encodes_as_the_saved_one(tmp_path, normalizer, pre_tokenizer):
    added = [*SPECIAL, AddedToken("ﬁ x", special=False, normalized=True, rstrip=True)]
    tokenizer = UnigramTokenizer(
        BYTES.pieces, 2, True, normalizer, pre_tokenizer, [*added, "</s>"], TRAINED.template
    )
    tokenizer.save(tmp_path)
    loaded = UnigramTokenizer.load(tmp_path)
    assert (loaded.pieces, loaded.tokens) == (tokenizer.pieces, tokenizer.tokens)
    for text in (SAMPLE, "", "that  a b* (.+)\r\n\t\x00é😀ﬁ x  hat a b*", " a▁b"):
        ids = tokenizer.encode(text, allowed_special="all")
        assert loaded.encode(text, allowed_special="all") == ids
        assert loaded.decode(ids) == tokenizer.decode(ids)
        spans = tokenizer.encode_with_offsets(text, allowed_special="all")
        assert loaded.encode_with_offsets(text, allowed_special="all") == spans
        assert spans[0] == ids
    assert loaded.to_json() == tokenizer.to_json()


@pytest.fixture
def saved(tmp_path):
    TRAINED.save(tmp_path)
    return tmp_path / "tokenizer.json"


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def test_the_file_has_the_layout_of_hugging_face_tokenizers(saved):
    content = read(saved)
    assert content["model"]["type"] == "Unigram"
    assert content["model"]["unk_id"] == 2
    assert content["model"]["vocab"][:2] == [["<pad>", 0.0], ["</s>", 0.0]]
    assert content["model"]["vocab"][3] == list(TRAINED.pieces[3])
    assert content["normalizer"] == {"type": "NFKC"}
    assert content["pre_tokenizer"] == WORDS
    assert [token["content"] for token in content["added_tokens"]] == TRAINED.tokens[:3]


DECODER = {"type": "Sequence", "decoders": [{"type": "Fuse"}, METASPACE]}


@pytest.mark.parametrize("decoder", [None, METASPACE, DECODER])
def test_the_decoders_of_such_files_are_read(saved, decoder):
    saved.write_text(json.dumps({**read(saved), "decoder": decoder}), encoding="utf-8")
    loaded = UnigramTokenizer.load(saved.parent)
    assert loaded.decode(loaded.encode("the cat")) == "the cat"


MODEL = TRAINED.to_json()["model"]


@pytest.mark.parametrize(
    "parts",
    [
        {"model": {**MODEL, "type": "BPE"}},
        {"model": {**MODEL, "vocab": None}},
        {"model": {**MODEL, "vocab": {"a": 0}}},
        {"model": {**MODEL, "vocab": [*MODEL["vocab"], ["▁the", -1.0]]}},
        {"model": {**MODEL, "vocab": [*MODEL["vocab"], ["zz"]]}},
        {"model": {**MODEL, "vocab": [*MODEL["vocab"], ["zz", None]]}},
        {"model": {**MODEL, "vocab": [*MODEL["vocab"], ["zz", True]]}},
        {"model": {**MODEL, "vocab": [*MODEL["vocab"], ["zz", math.nan]]}},
        {"model": {**MODEL, "vocab": [*MODEL["vocab"], ["zz", 10**400]]}},
        {"model": {**MODEL, "vocab": [*MODEL["vocab"], ["\ud800", -1.0]]}},
        {"model": {**MODEL, "unk_id": 90}},
        {"model": {**MODEL, "unk_id": True}},
        {"model": {**MODEL, "byte_fallback": 1}},
        {"added_tokens": [{"id": 91, "content": "x x"}]},
        {"decoder": {"type": "ByteLevel"}},
        {"decoder": {"type": "Sequence", "decoders": [{"type": "CTC"}]}},
        {"normalizer": {"type": "BertNormalizer"}},
        {"normalizer": {"type": "Replace", "pattern": {"Regex": "("}, "content": ""}},
        {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "?"}},
        {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"}},
        {"pre_tokenizer": {"type": "ByteLevel"}},
        {"pre_tokenizer": {**METASPACE, "replacement": "__"}},
        {"pre_tokenizer": {**METASPACE, "prepend_scheme": "last"}},
        {"pre_tokenizer": {**METASPACE, "split": 1}},
        {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}]}},
    ],
)
def test_a_file_that_contradicts_itself_or_would_encode_differently_is_an_error(saved, parts):
    saved.write_text(json.dumps({**read(saved), **parts}), encoding="utf-8")
    with pytest.raises(TokenizerError, match="(?s)expected .*, got .*; .*train and save"):
        UnigramTokenizer.load(saved.parent)


@pytest.mark.parametrize(
    ("pieces", "unk_id"),
    [([("a", -1.0)], 1), ([("a", math.nan)], 0), ([("a", -math.inf)], 0), ([("a", 0.0)] * 2, 0)],
)
def test_pieces_that_do_not_make_a_vocabulary_are_an_error(pieces, unk_id):
    with pytest.raises(ValueError, match="UnigramTokenizer: expected"):
        UnigramTokenizer(pieces, unk_id)
