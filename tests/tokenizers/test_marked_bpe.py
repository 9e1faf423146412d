"""BPE over characters: what it does to a word, to characters without a token, and to files."""

import json
import random
from itertools import pairwise

import pytest

from minilm.tokenizers import MarkedBPETokenizer, TokenizerError, load_tokenizer
from minilm.tokenizers.bpe_training import join_pair
from minilm.tokenizers.marked import BYTE_PIECES

LETTERS = ["▁", "a", "b", "c", "d"]
MERGED = ["ab", "▁a", "▁ab", "cd", "abcd", "aa"]
TOKENS = ["<unk>", *BYTE_PIECES, *LETTERS, *MERGED]
IDS = {token: i for i, token in enumerate(TOKENS)}
PAIRS = [("a", "b"), ("▁", "a"), ("▁", "ab"), ("c", "d"), ("ab", "cd"), ("a", "a")]
MERGES = [(IDS[left], IDS[right]) for left, right in PAIRS]
WORDS = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
LEGACY = {
    "type": "Sequence",
    "normalizers": [
        {"type": "Prepend", "prepend": "▁"},
        {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
    ],
}


def make(**settings):
    return MarkedBPETokenizer(TOKENS, MERGES, **{"unk_id": 0, **settings})


def spelt(tokenizer, text, **special):
    return [tokenizer.tokens[i] for i in tokenizer.encode(text, **special)]


def naive(word):
    """Join the pair of the earliest merge wherever it stands, and again."""
    ids = [IDS[character] for character in word]
    while known := [pair for pair in pairwise(ids) if pair in MERGES]:
        best = min(known, key=MERGES.index)
        ids = join_pair(ids, best, IDS[TOKENS[best[0]] + TOKENS[best[1]]])
    return ids


def test_encoding_a_word_equals_its_specification():
    rng = random.Random(0)
    tokenizer = make(pre_tokenizer=None)
    for size in [*range(60), 150, 400]:
        word = "".join(rng.choice(LETTERS) for _ in range(size))
        assert tokenizer.encode(word) == naive(word)


def test_the_text_begins_with_a_space_that_decoding_takes_away():
    tokenizer = make()
    assert spelt(tokenizer, "ab  c") == ["▁ab", "▁", "▁", "c"]
    for text in ("", "ab", "ab  c ", "a b\n"):
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.encode(" ab") == tokenizer.encode("ab")  # its space is the one put there
    never = make(pre_tokenizer={**WORDS, "prepend_scheme": "never"})
    assert spelt(never, "ab a") == ["ab", "▁a"]
    assert never.decode(never.encode(" ab a")) == " ab a"


def test_only_the_first_piece_of_a_text_begins_with_a_space_or_every_one_does():
    for settings, expected in (
        ({}, ["▁ab", "<x>", "ab", "<x>", "▁a"]),
        ({"pre_tokenizer": WORDS}, ["▁ab", "<x>", "▁ab", "<x>", "▁a"]),
        ({"pre_tokenizer": None, "normalizer": LEGACY}, ["▁ab", "<x>", "▁ab", "<x>", "▁", "▁a"]),
    ):
        tokenizer = make(added=["<x>"], **settings)
        assert spelt(tokenizer, "ab<x>ab<x> a", allowed_special="all") == expected


def test_a_character_without_a_token_is_its_bytes_and_decodes_to_itself():
    tokenizer = make()
    assert spelt(tokenizer, "aé") == ["▁a", "<0xC3>", "<0xA9>"]
    for text in ("aé中😀", "<0x41>", "\x00"):
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_each_byte_of_an_incomplete_character_decodes_to_a_replacement_character():
    tokenizer = make()
    ids = tokenizer.encode("a😀b")
    assert tokenizer.decode([*ids[:3], *ids[5:]]) == "a\ufffd\ufffdb"
    assert tokenizer.decode(ids[:2]) == "a\ufffd"


def test_without_bytes_neighbouring_unknown_characters_are_one_token_or_one_each_or_left_out():
    tokens = [token for token in TOKENS if token not in BYTE_PIECES]
    ids = {token: i for i, token in enumerate(tokens)}
    merges = [(ids[left], ids[right]) for left, right in PAIRS]

    def encoded(**settings):
        return spelt(MarkedBPETokenizer(tokens, merges, **settings), "aéöbé")

    assert encoded(unk_id=0) == ["▁a", "<unk>", "b", "<unk>"]
    assert encoded(unk_id=0, fuse_unk=False) == ["▁a", "<unk>", "<unk>", "b", "<unk>"]
    assert encoded() == ["▁ab"]


def test_with_ignore_merges_a_word_that_is_a_token_is_one():
    tokens = [*TOKENS, "▁cab"]
    for ignore_merges, expected in ((True, ["▁cab"]), (False, ["▁", "c", "ab"])):
        tokenizer = MarkedBPETokenizer(tokens, MERGES, ignore_merges=ignore_merges)
        assert spelt(tokenizer, "cab") == expected


@pytest.mark.parametrize("settings", [{}, {"byte_fallback": False}, {"pre_tokenizer": WORDS}])
def test_a_tokens_place_is_its_text(settings):
    tokenizer = make(added=["<x>"], **settings)
    text = "ab éé<x>abcd a"
    ids, spans = tokenizer.encode_with_offsets(text, allowed_special="all")
    assert ids == tokenizer.encode(text, allowed_special="all")
    for i, (start, end) in zip(ids, spans, strict=True):
        token = tokenizer.tokens[i]
        if token in BYTE_PIECES:
            assert text[start:end] == "é"
        elif token == "<unk>":
            assert text[start:end] == "éé"
        else:
            assert text[start:end] in (token.replace("▁", " "), token.removeprefix("▁"))


VARIANTS = {
    "whole": {},
    "words": {"pre_tokenizer": WORDS, "fuse_unk": False, "unk_id": None},
    "legacy": {"pre_tokenizer": None, "normalizer": LEGACY},
    "never": {"pre_tokenizer": {**WORDS, "prepend_scheme": "never"}, "ignore_merges": True},
    "no bytes": {"byte_fallback": False, "added": ["<x>", "ab"]},
}
TEXTS = ["", "ab", " ab  cd", "é中", "a<x>b aa", "abcdabcd\n", "ab" * 100]


@pytest.mark.parametrize("name", VARIANTS)
def test_a_saved_tokenizer_comes_back_as_it_was(name, tmp_path):
    tokenizer = make(**VARIANTS[name])
    tokenizer.save(tmp_path)
    for loaded in (load_tokenizer(tmp_path), MarkedBPETokenizer.load(tmp_path)):
        assert loaded.to_json() == tokenizer.to_json()
        for text in TEXTS:
            ids = tokenizer.encode(text, allowed_special="all")
            assert loaded.encode(text, allowed_special="all") == ids
            assert loaded.decode(ids) == tokenizer.decode(ids)


def test_the_decoder_that_goes_with_words_is_read_too(tmp_path):
    tokenizer = make(pre_tokenizer=WORDS, byte_fallback=False)
    content = {**tokenizer.to_json(), "decoder": WORDS}
    (tmp_path / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    assert load_tokenizer(tmp_path).decode(tokenizer.encode("ab c")) == "ab c"


DECODERS = make().to_json()["decoder"]["decoders"]
MODEL = make().to_json()["model"]


@pytest.mark.parametrize(
    "parts",
    [
        {"normalizer": {"type": "Unknown"}},
        {"pre_tokenizer": {"type": "Whitespace"}},
        {"post_processor": {"type": "Unknown"}},
        {"decoder": None},
        {"decoder": WORDS},
        {"decoder": {"type": "Sequence", "decoders": DECODERS[:3]}},
        {"decoder": {"type": "Sequence", "decoders": [DECODERS[0], *DECODERS[2:]]}},
        {"decoder": {"type": "Sequence", "decoders": 3}},
        *(
            {"model": {**MODEL, name: value}}
            for name, value in [
                ("dropout", 0.1),
                ("continuing_subword_prefix", "##"),
                ("end_of_word_suffix", "</w>"),
                ("byte_fallback", 1),
                ("fuse_unk", None),
                ("unk_token", "<x>"),
                ("unk_token", 0),
                ("vocab", {**MODEL["vocab"], "ab": 0}),
                ("merges", [["a", "<unk>"]]),
                ("merges", [["a", "c"]]),
                ("merges", None),
            ]
        ),
    ],
)
def test_a_file_that_would_encode_differently_elsewhere_is_an_error(parts, tmp_path):
    content = {**make().to_json(), **parts}
    (tmp_path / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(TokenizerError, match="expected .*, got .*; .*train and save"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize(
    ("tokens", "merges", "unk_id"),
    [
        (["a", "<unk>", "a<unk>"], [(0, 1)], 1),
        (["<0x41>", "a", "<0x41>a"], [(0, 1)], None),
        (["a"], [], 1),
    ],
)
def test_merges_of_bytes_or_of_the_unknown_token_are_an_error(tokens, merges, unk_id):
    with pytest.raises(ValueError, match="expected unk_id below .* merges of characters"):
        MarkedBPETokenizer(tokens, merges, unk_id)
