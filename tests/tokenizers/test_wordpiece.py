"""Laws of WordPiece, and of what BERT does to a text before it."""

import json
import time
from collections import Counter
from itertools import pairwise, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minilm.tokenizers import AddedToken, TokenizerError
from minilm.tokenizers.bert import WORD, normal_form
from minilm.tokenizers.cache import ENTRIES
from minilm.tokenizers.template import PLAIN, Template
from minilm.tokenizers.wordpiece import SPECIAL_TOKENS, WordPieceTokenizer, naive_encode_word
from minilm.tokenizers.wordpiece_training import learn_tokens, naive_learn_tokens

SAMPLE = "The cat sat on the mat; the cat's hat, that's that.\n\n  Ein Öl für 1234 Männer, né?\n"
MIXED = st.text(st.characters(codec="utf-8") | st.sampled_from("aAtTheé ,.中 \t\u0301\u200b\x1cΣ"))
TRAINED = WordPieceTokenizer.train(SAMPLE * 3, vocab_size=90)
SPECIALS = list(SPECIAL_TOKENS)
NON_DEFAULT = [
    {},
    {"lower": False},
    {"lower": False, "strip_accents": True},
    {"strip_accents": False, "chinese_spaces": False},
    {"clean": False},
    {"max_word": 3},
    {"prefix": "@@", "cleanup": False},
    {"prefix": ""},
]
settings_of = pytest.mark.parametrize("settings", NON_DEFAULT, ids=str)


def tokens_of(tokenizer, text):
    return [tokenizer.tokens[i] for i in tokenizer.encode(text, disallowed_special=())]


def naive_encode(tokenizer, text, **settings):
    """The text's ids, from the specifications alone."""
    options = {k: v for k, v in settings.items() if k in ("prefix", "max_word")}
    forms = {k: v for k, v in settings.items() if k not in (*options, "cleanup")}
    ids = {t: i for t, i in tokenizer.ids.items() if t not in tokenizer.special_tokens}
    words = WORD.findall("".join([normal_form(c, **forms) for c in text]))
    return [i for w in words for i in naive_encode_word(w, ids, tokenizer.ids["[UNK]"], **options)]


# Normal forms and words


@pytest.mark.parametrize(
    ("settings", "text", "expected"),
    [
        ({}, "ÉCOLE Ünï ÅÇ", "ecole uni ac"),
        ({"lower": False}, "École", "École"),
        ({"strip_accents": False}, "École", "école"),
        ({"lower": False, "strip_accents": True}, "École e\u0301", "Ecole e"),
        ({}, "ΟΔΟΣ", "οδοσ"),  # the sigma at a word's end as any other: characters, not words
        ({"strip_accents": False}, "İ", "i\u0307"),
        ({}, "한", "\u1112\u1161\u11ab"),
        ({}, "中文 a", " 中  文  a"),
        ({"chinese_spaces": False}, "中文", "中文"),
        ({}, "ひらカタ", "ひらカタ"),
        ({}, "a\0b\x07c\x7fd\x85e\u200bf\u200dg\ufeffh\ufffdi\ue000j\x0bk\x1cl", "abcdefghijkl"),
        ({}, "a\tb\nc\rd\xa0e\u2028f\u3000g", "a b c d e f g"),
        ({"clean": False}, "a\0b\tc\u200b\x1c", "a\0b\tc\u200b\x1c"),
        ({}, "😀👩\u200d👩🏽🇩🇪\ufe0f", "😀👩👩🏽🇩🇪"),
    ],
)
def test_the_normal_form_of_a_text_is_that_of_its_characters(settings, text, expected):
    assert "".join([normal_form(c, **settings) for c in text]) == expected
    tokenizer = WordPieceTokenizer(SPECIALS, **settings)
    assert tokenizer._normalize(text) == expected
    assert tokenizer._normalize_aligned(text)[0] == expected


@pytest.mark.parametrize(
    "edge", [0x3400, 0x4DBF, 0x4E00, 0x9FFF, 0x20000, 0x2A6DF, 0x2B81F, 0x2CEAF]
)
def test_chinese_characters_stand_alone_up_to_the_edges_of_their_blocks(edge):
    assert normal_form(chr(edge)) == f" {chr(edge)} "


@pytest.mark.parametrize(
    "character", ["\u33ff", "\u4dc0", "\ua000", "\U0002a6e0", "\U0002b820", "ひ"]
)
def test_characters_beyond_the_edges_do_not(character):
    assert " " not in normal_form(character)


def test_marks_signs_and_controls_are_those_of_unicode_8():
    assert normal_form("\u0301") == normal_form("\u1734") == normal_form("\u2066") == ""
    assert [normal_form(c) for c in ("\u0afa", "\U0001e944", "\u08e2")] == [
        *("\u0afa", "\U0001e944", "\u08e2")
    ]
    assert WORD.findall("a\u2e42b\u2e43c\u166dd") == ["a", "\u2e42", "b\u2e43c", "\u166d", "d"]


def test_words_are_cut_at_whitespace_and_at_every_sign():
    text = "it's $5+x,\u3000(ok)…“no”¿\x0b\x85\x1cb"
    expected = ["it", "'", "s", "$", "5", "+", "x", ",", "(", "ok", ")", "…", "“", "no", "”", "¿"]
    assert WORD.findall(text) == [*expected, "\x1cb"]
    signs = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"
    assert WORD.findall("a".join(signs)) == list("a".join(signs))
    assert WORD.findall("§©€±") == ["§", "©€±"]


# Encoding


@given(MIXED, st.sampled_from(NON_DEFAULT))
def test_encoding_equals_its_specification_on_any_text(text, settings):
    letters = sorted({f for c in text[::2] + "ath" for f in normal_form(c, **{})} - {" "})
    inner = [settings.get("prefix", "##") + piece for piece in (*letters, "at", "the")]
    tokens = list(dict.fromkeys([*SPECIALS, *letters, "the", "tha", *inner]))
    tokenizer = WordPieceTokenizer(tokens, **settings)
    ids = tokenizer.encode(text, disallowed_special=())
    assert ids == naive_encode(tokenizer, text, **settings)


@settings_of
def test_encoding_equals_its_specification_on_prose(settings):
    tokenizer = WordPieceTokenizer.train(SAMPLE * 3, 110, **settings)
    text = SAMPLE + "Catamaran mathematics 中文 thé\u0301 zzz"
    expected = naive_encode(tokenizer, text, **settings)
    assert tokenizer.encode(text) == tokenizer.encode(text) == expected
    assert tokenizer.encode_with_offsets(text)[0] == expected


def test_a_word_is_the_longest_token_it_begins_with_then_the_longest_of_the_rest():
    tokens = [*SPECIALS, "un", "una", "unaffable", "##aff", "##able", "##a", "aff", "##f"]
    tokenizer = WordPieceTokenizer(tokens)
    assert tokens_of(tokenizer, "Unaffable unaff") == ["unaffable", "una", "##f", "##f"]
    assert tokens_of(tokenizer, "unaffx aff") == ["[UNK]", "aff"]
    assert tokens_of(tokenizer, "able") == ["[UNK]"]


def test_a_word_of_more_than_max_word_characters_is_unknown():
    for max_word in (1, 5, 100):
        tokenizer = WordPieceTokenizer([*SPECIALS, "a", "##a"], max_word=max_word)
        assert tokens_of(tokenizer, "a" * max_word) == ["a"] + ["##a"] * (max_word - 1)
        assert tokens_of(tokenizer, "a" * (max_word + 1)) == ["[UNK]"]


def test_special_tokens_come_from_no_word():
    special = [*SPECIALS, "mask", "##sk"]
    tokenizer = WordPieceTokenizer([*special, "m", "##a", "##s", "##k", "[", "]"], special)
    assert tokens_of(tokenizer, "mask") == ["m", "##a", "##s", "##k"]
    assert tokens_of(tokenizer, "[CLS] [Mas]") == ["[", "[UNK]", "]", "[", "m", "##a", "##s", "]"]
    assert tokenizer.encode("mask [CLS]", allowed_special={"mask", "[CLS]"}) == [5, 2]
    with pytest.raises(ValueError, match="expected plain text, got the special token 'mask'"):
        tokenizer.encode("unmasked")


def test_a_plain_unknown_token_is_an_ordinary_word_too():
    tokenizer = WordPieceTokenizer(["unk", "a"], [], unk_token="unk")
    assert tokenizer.encode_with_offsets("UNK a b") == ([0, 1, 0], [(0, 3), (4, 5), (6, 7)])


@given(MIXED)
def test_offsets_lead_to_the_characters_of_the_token(text):
    ids, spans = TRAINED.encode_with_offsets(text, disallowed_special=())
    assert ids == TRAINED.encode(text, disallowed_special=())
    for i, (start, end) in zip(ids, spans, strict=True):
        form = "".join([normal_form(c) for c in text[start:end]]).strip()
        assert TRAINED.tokens[i] in ("[UNK]", form, f"##{form}")
        assert start < end
    assert all(b[0] >= a[1] or a == b or "[UNK]" for a, b in pairwise(spans))


def test_offsets_count_in_the_original_text():
    tokenizer = WordPieceTokenizer([*SPECIALS, "a", "##b", "中", "e", "##e", "\u1112", "##\u1161"])
    cases = {
        "  A\0\0b": [(2, 3), (5, 6)],
        "中中": [(0, 1), (1, 2)],
        "e\u0301\u0301é": [(0, 1), (3, 4)],
        "x\u200by a": [(0, 3), (4, 5)],
        "하": [(0, 1), (0, 1)],
    }
    for text, spans in cases.items():
        assert tokenizer.encode_with_offsets(text)[1] == spans


def test_a_call_puts_cls_and_sep_around_texts_and_tells_them_apart():
    encoding = TRAINED("the cat", "the hat")
    the, cat, hat = (TRAINED.encode(word) for word in ("the", "cat", "hat"))
    row = [2, *the, *cat, 3, *the, *hat, 3]
    assert encoding["input_ids"].tolist() == [row]
    second = len(the) + len(hat) + 1
    assert encoding["token_type_ids"].tolist() == [[0] * (len(row) - second) + [1] * second]
    assert set(encoding.keys()) == {"input_ids", "attention_mask", "token_type_ids"}
    assert TRAINED(["a", "the cat sat"], padding=True)["input_ids"][0, -1] == TRAINED.ids["[PAD]"]


def test_forgetting_words_changes_nothing():
    tokenizer = WordPieceTokenizer([*SPECIALS, *"0123456789", *(f"##{d}" for d in range(10))])
    text = " ".join(map(str, range(ENTRIES + 10)))
    assert tokenizer.encode(text) == tokenizer.encode(text)
    assert len(tokenizer._cache) <= ENTRIES
    tokenizer.encode("1" * 99)
    assert "1" * 99 not in tokenizer._cache


@pytest.mark.parametrize("word", ["a" * 2**20, "abcdefghijklmnop" * 2**16])
def test_time_grows_with_the_length_of_a_word_not_with_its_square(word):
    letters = "abcdefghijklmnop"
    tokens = [*SPECIALS, *letters, *(f"##{c}" for c in letters), "##aaaaaaaa", "##fgh"]
    for max_word in (100, 2**20):
        tokenizer = WordPieceTokenizer(tokens, max_word=max_word)
        times = []
        for n in (2**17, 2**20):
            start = time.perf_counter()
            ids = tokenizer.encode(word[:n])
            times.append(time.perf_counter() - start)
            assert (ids == [1]) == (max_word < n)
        assert times[1] < 10
        assert times[1] < 40 * times[0] + 0.1  # 8 times the letters


# Training


@given(
    st.lists(st.tuples(st.text("abAc'", min_size=1), st.integers(1, 4))),
    st.integers(0, 30),
    st.integers(0, 3),
    st.sampled_from(["##", "", "b"]),
)
def test_training_equals_its_specification(pieces, n, min_frequency, prefix):
    counts = Counter()
    for piece, count in pieces:
        counts[piece] += count
    letters = "abAc'"
    tokens = list(dict.fromkeys(["aba", *letters, *(prefix + c for c in letters)]))
    arguments = counts, tokens, len(tokens) + n, prefix, min_frequency
    assert learn_tokens(*arguments) == naive_learn_tokens(*arguments)


def test_training_equals_its_specification_on_prose():
    counts = Counter(WORD.findall(SAMPLE.lower()))
    letters = sorted(set(SAMPLE.lower()))
    tokens = [*letters, *(f"##{c}" for c in letters)]
    learned = learn_tokens(counts, tokens, 150, min_frequency=1)
    assert learned == naive_learn_tokens(counts, tokens, 150, min_frequency=1)
    assert len(learned) > len(tokens) + 20


def test_the_example_that_one_can_check_by_hand():
    """hug 10, pug 5, pun 12, bun 4, hugs 5: ##u ##g 20, then ##u ##n 16, h ##ug 15, p ##un 12."""
    text = " ".join(["hug"] * 10 + ["pug"] * 5 + ["pun"] * 12 + ["bun"] * 4 + ["hugs"] * 5)
    tokenizer = WordPieceTokenizer.train(text, vocab_size=5 + 14 + 4)
    letters = list("bghnpsu")
    assert tokenizer.tokens[:19] == [*SPECIALS, *letters, *(f"##{c}" for c in letters)]
    assert tokenizer.tokens[19:] == ["##ug", "##un", "hug", "pun"]
    assert tokens_of(tokenizer, "hugs bug pun") == ["hug", "##s", "b", "##ug", "pun"]


def test_of_equally_frequent_pairs_the_smallest_ids_are_joined_first():
    assert WordPieceTokenizer.train("dc ba dc ba", 15).tokens[13:] == ["ba", "dc"]


@given(st.lists(MIXED), MIXED, st.sampled_from(NON_DEFAULT))
def test_only_unseen_characters_and_too_long_words_are_unknown(texts, text, settings):
    tokenizer = WordPieceTokenizer.train(texts, 10**6, **settings)
    seen = set("".join(["".join(tokenizer._words(t)) for t in texts]))
    forms = {k: v for k, v in settings.items() if k not in ("prefix", "max_word", "cleanup")}
    known = "".join([c for c in text if seen.issuperset(normal_form(c, **forms).strip(" "))])
    words = tokenizer._words(known)
    unknown = [word for word in words if len(word) > tokenizer.max_word]
    assert tokenizer.encode(known, disallowed_special=()).count(1) == len(unknown)


def test_training_on_a_stream_equals_training_on_the_text():
    lines = SAMPLE.splitlines()
    streamed = WordPieceTokenizer.train((line for line in lines), 60, min_frequency=1)
    assert streamed.tokens == WordPieceTokenizer.train(SAMPLE, 60, min_frequency=1).tokens


@pytest.mark.parametrize("texts", ["", [], ["", " \n"]])
def test_training_on_nothing_gives_the_special_tokens(texts):
    tokenizer = WordPieceTokenizer.train(texts, 100)
    assert tokenizer.tokens == SPECIALS
    assert tokenizer.encode("a b") == [1, 1]
    assert tokenizer.encode("") == []


def test_training_on_one_repeated_character():
    assert WordPieceTokenizer.train("a" * 10**6, 100).tokens == [*SPECIALS, "a", "##a"]
    tokenizer = WordPieceTokenizer.train("a" * 64, 100, min_frequency=1)
    assert tokenizer.tokens[7:9] == ["##aa", "##aaaa"]
    assert tokens_of(tokenizer, "a" * 64) == ["a" * 64]


def test_training_stops_where_no_pair_is_frequent_enough():
    assert WordPieceTokenizer.train("ab ab cd", 100).tokens[13:] == ["ab"]
    tokens = WordPieceTokenizer.train("ab ab cd", 100, min_frequency=1).tokens
    assert tokens[13:] == ["ab", "cd"]
    assert WordPieceTokenizer.train("ab ab cd", 100, min_frequency=0).tokens == tokens


def test_a_vocabulary_too_small_for_the_characters_is_an_error():
    for size in (-1, 0, 9):
        with pytest.raises(ValueError, match=r"expected vocab_size >= 10, got .*limit_alphabet"):
            WordPieceTokenizer.train("中ab", size)
    assert WordPieceTokenizer.train("中ab", 10).vocab_size == 10


def test_signs_and_chinese_characters_need_no_inner_form():
    tokens = WordPieceTokenizer.train("a, 中", 100).tokens
    assert tokens[5:] == [",", "a", "中", "##a"]
    assert "##中" in WordPieceTokenizer.train("a, 中", 100, chinese_spaces=False).tokens


def test_a_limited_alphabet_keeps_the_most_frequent_characters():
    tokenizer = WordPieceTokenizer.train("aaa bbb ab c dd ab", 100, limit_alphabet=2)
    assert tokenizer.tokens[5:9] == ["a", "b", "##a", "##b"]
    assert tokens_of(tokenizer, "abc d") == ["[UNK]", "[UNK]"]
    assert "c" not in "".join(tokenizer.tokens[5:])


def test_a_pair_that_spells_a_special_token_is_not_joined():
    tokenizer = WordPieceTokenizer.train("ab ab abc", 100, special_tokens=["[UNK]", "ab"])
    assert tokenizer.tokens.count("ab") == 1
    assert tokens_of(tokenizer, "ab") == ["a", "##b"]


def test_progress_is_told_after_each_token():
    told = []
    WordPieceTokenizer.train("ab ab cd cd", 15, progress=lambda *done: told.append(done))
    assert told == [(1, 2), (2, 2)]


def test_a_lone_surrogate_is_no_text():
    for use in (TRAINED.encode, lambda text: WordPieceTokenizer.train(text, 100)):
        with pytest.raises(ValueError, match="got the lone surrogate .* at position 2;"):
            use("ab\ud800")


# Decoding


def test_decoding_joins_inner_tokens_and_draws_signs_to_words():
    words = ["it", "'", "s", "n", "##o", ".", "!", "?", ",", "(", "'s", "##'s"]
    tokenizer = WordPieceTokenizer([*SPECIALS, *words])

    def decoded(*tokens, **options):
        return tokenizer.decode([tokenizer.ids[token] for token in tokens], **options)

    assert decoded("it", "'", "s", "n", "##o", ".") == "it ' s no."
    assert decoded("n", ",", "!", "?", "(", "it") == "n,!? ( it"
    assert decoded("it", "'s", "it", "##'s") == "it's it's"
    assert decoded("##o", "##o") == "##oo"
    assert decoded() == ""
    assert decoded("[CLS]", "it", "[SEP]") == "[CLS] it [SEP]"
    assert decoded("[CLS]", "it", "[SEP]", skip_special_tokens=True) == "it"
    for token in ("'m", "n't", "'ve", "'re"):
        assert WordPieceTokenizer([*SPECIALS, "a", token]).decode([5, 6]) == f"a{token}"
    spaced = WordPieceTokenizer([*SPECIALS, "a", "b ' c do not ."])
    assert spaced.decode([5, 6]) == "a b'c don't."
    plain = WordPieceTokenizer([*SPECIALS, *words], cleanup=False)
    assert plain.decode([5, 10, 11]) == "it . !"


def test_spaces_before_signs_are_mended_once_more_where_a_model_wants_it():
    tokenizer = WordPieceTokenizer([*SPECIALS, "it", "'", "s", "don", "t"])
    ids = [tokenizer.ids[token] for token in ("it", "'", "s", "don", "'", "t")]
    assert tokenizer.decode(ids) == "it ' s don ' t"
    tokenizer.clean_up_tokenization_spaces = True
    assert tokenizer.decode(ids) == "it's don't"


@given(MIXED)
def test_decoding_and_encoding_again_gives_the_same_ids(text):
    ids = [i for i in TRAINED.encode(text, disallowed_special=()) if i != 1]
    assert TRAINED.encode(TRAINED.decode(ids)) == ids


def test_an_id_outside_the_vocabulary_is_an_error():
    for i in (-1, TRAINED.vocab_size):
        with pytest.raises(IndexError, match="expected ids from 0 to"):
            TRAINED.decode([i])


# Files


def same(a, b, text):
    assert a.tokens == b.tokens
    assert (a.added, a.template, a.to_json()) == (b.added, b.template, b.to_json())
    assert a.encode(text, allowed_special="all") == b.encode(text, allowed_special="all")
    assert a.decode(range(a.vocab_size)) == b.decode(range(b.vocab_size))


ADDED = [
    *SPECIALS,
    "<a b>",
    "(.*)|\\w+",
    AddedToken("New York", special=False, normalized=True),
    AddedToken("cat", special=False, single_word=True),
    AddedToken("<m>", lstrip=True, rstrip=True),
]


@settings_of
def test_a_loaded_tokenizer_encodes_as_the_saved_one(tmp_path, settings):
    tokenizer = WordPieceTokenizer.train(SAMPLE * 3, 110, special_tokens=ADDED, **settings)
    tokenizer.save(tmp_path)
    text = SAMPLE + "<a b>(.*)|\\w+ new YORK cat cats x <m> y [MASK] 中é\0z \tMÄNNER"
    same(WordPieceTokenizer.load(tmp_path), tokenizer, text)


def test_added_tokens_that_follow_the_vocabulary_and_a_template_of_ones_own_are_kept(tmp_path):
    start = AddedToken("<s>")
    template = Template((("<s>", 0), ("$A", 0)), (("$A", 0), ("<s>", 1), ("$B", 1)))
    whole = AddedToken("ab", special=False, single_word=True)
    tokens = ["<unk>", "a", "##a", "##b"]
    tokenizer = WordPieceTokenizer(tokens, [start, whole, "<unk>"], template, unk_token="<unk>")
    assert tokenizer.tokens == [*tokens, "<s>", "ab"]
    tokenizer.save(tmp_path)
    loaded = WordPieceTokenizer.load(tmp_path)
    same(loaded, tokenizer, "a<s>ab abb")
    assert tokens_of(loaded, "ab abb") == ["ab", "a", "##b", "##b"]
    assert loaded("aa", "a")["input_ids"].tolist() == [[1, 2, 4, 1]]


def test_vocab_txt_has_a_token_on_each_line(tmp_path):
    TRAINED.save(tmp_path)
    lines = (tmp_path / "vocab.txt").read_bytes().decode().split("\n")
    assert lines == [*TRAINED.tokens, ""]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tokenizer.json", "vocab.txt"]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_vocab_txt_alone_gives_berts_settings(tmp_path, end):
    lines = [*SPECIALS, "a", "##a", "\u2028", "a\x85"]
    for text in (end.join(lines), end.join([*lines, ""])):
        (tmp_path / "vocab.txt").write_bytes(text.encode())
        tokenizer = WordPieceTokenizer.load(tmp_path)
        same(tokenizer, WordPieceTokenizer(lines), "Á[SEP]aa")
        assert list(tokenizer.special_tokens) == SPECIALS
    (tmp_path / "vocab.txt").write_text("a\n[UNK]\n[SEP]")
    tokenizer = WordPieceTokenizer.load(tmp_path)
    assert tokenizer.special_tokens == {"[UNK]": 1, "[SEP]": 2}
    assert tokenizer.template == PLAIN


@pytest.mark.parametrize(
    ("config", "settings"),
    [
        ({"do_lower_case": False}, {"lower": False}),
        ({"do_lower_case": True, "strip_accents": False}, {"strip_accents": False}),
        ({"tokenize_chinese_chars": False, "model_max_length": 512}, {"chinese_spaces": False}),
        ({"strip_accents": None}, {}),
    ],
)
def test_a_config_beside_vocab_txt_says_how_text_is_normalised(tmp_path, config, settings):
    (tmp_path / "vocab.txt").write_text("\n".join(TRAINED.tokens), encoding="utf-8")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    same(WordPieceTokenizer.load(tmp_path), WordPieceTokenizer(TRAINED.tokens, **settings), SAMPLE)


@pytest.mark.parametrize("text", ["", "a\n[UNK]\na", "a\nb", "\n\n"])
def test_a_vocab_txt_of_no_use_is_an_error(tmp_path, text):
    (tmp_path / "vocab.txt").write_text(text)
    with pytest.raises(TokenizerError, match=r"vocab.txt: expected a different token on each line"):
        WordPieceTokenizer.load(tmp_path)


@pytest.mark.parametrize("config", ['{"do_lower_case": 1}', "[]", "{", '{"strip_accents": "no"}'])
def test_a_damaged_config_is_an_error(tmp_path, config):
    (tmp_path / "vocab.txt").write_text("[UNK]")
    (tmp_path / "tokenizer_config.json").write_text(config)
    with pytest.raises(TokenizerError, match=r"tokenizer_config.json: expected"):
        WordPieceTokenizer.load(tmp_path)


def test_a_token_with_a_line_break_cannot_be_saved_and_nothing_is_written(tmp_path):
    for token in ("a\nb", "a\rb"):
        tokenizer = WordPieceTokenizer([*SPECIALS, token])
        with pytest.raises(ValueError, match="expected tokens without line breaks, got 'a"):
            tokenizer.save(tmp_path)
        assert not list(tmp_path.iterdir())


BERT = TRAINED.to_json()


@pytest.mark.parametrize(
    "parts",
    [
        {"normalizer": None},
        {"normalizer": {"type": "Lowercase"}},
        {"normalizer": {**BERT["normalizer"], "lowercase": 1}},
        {"normalizer": {**BERT["normalizer"], "lowercase": None}},
        {"normalizer": {**BERT["normalizer"], "strip_accents": "yes"}},
        {"normalizer": {"type": "Sequence", "normalizers": [BERT["normalizer"]]}},
        {"pre_tokenizer": None},
        {"pre_tokenizer": {"type": "Whitespace"}},
        {"decoder": None},
        {"decoder": {"type": "WordPiece", "prefix": "@@", "cleanup": True}},
        {"decoder": {"type": "WordPiece", "prefix": "##"}},
        {"decoder": {"type": "Fuse"}},
        {"model": {**BERT["model"], "unk_token": "<unk>"}},
        {"model": {**BERT["model"], "unk_token": None}},
        {"model": {**BERT["model"], "continuing_subword_prefix": None}},
        {"model": {**BERT["model"], "max_input_chars_per_word": 0}},
        {"model": {**BERT["model"], "max_input_chars_per_word": True}},
        {"model": {**BERT["model"], "vocab": {"[UNK]": 1}}},
        {"model": {**BERT["model"], "type": "BPE"}},
        {"post_processor": {"type": "BertProcessing", "sep": ["<s>", 1], "cls": ["<c>", 2]}},
    ],
)
def test_a_foreign_or_inconsistent_file_is_an_error(tmp_path, parts):
    (tmp_path / "tokenizer.json").write_text(json.dumps({**BERT, **parts}))
    with pytest.raises(TokenizerError, match="expected .*, got .*; .*train and save"):
        WordPieceTokenizer.load(tmp_path)


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(TokenizerError, match=r"tokenizer.json: expected a tokenizer file"):
        WordPieceTokenizer.load(tmp_path)


@pytest.mark.parametrize("arguments", [{"unk_token": "<unk>"}, {"max_word": 0}])
def test_a_tokenizer_without_an_unknown_token_or_words_is_an_error(arguments):
    with pytest.raises(ValueError, match="expected unk_token among the tokens and max_word >= 1"):
        WordPieceTokenizer(SPECIALS, **arguments)


def test_every_combination_of_settings_gives_words_that_training_can_spell():
    """No normal form becomes another one when it is normalised again, so none is left unspelt."""
    text = "".join(map(chr, [*range(0x3000), *range(0xA640, 0xAC10), *range(0xF900, 0x11200)]))
    for values in product([True, False], repeat=3):
        settings = dict(zip(("lower", "strip_accents", "clean"), values, strict=True))
        tokenizer = WordPieceTokenizer.train(text, 10**5, max_word=10**6, **settings)
        assert tokenizer.encode(text).count(tokenizer.ids["[UNK]"]) == 0
