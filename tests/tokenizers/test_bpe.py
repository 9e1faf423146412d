"""Laws of byte-pair encoding."""

import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minilm.tokenizers import (
    AddedToken,
    BPETokenizer,
    Template,
    TokenizerError,
    bpe,
    bpe_training,
    cache,
    load_tokenizer,
)
from minilm.tokenizers.bpe import encode_chunk, naive_encode_chunk
from minilm.tokenizers.bpe_training import (
    BYTE_IDS,
    count_chunks,
    learn_merges,
    naive_learn_merges,
)
from minilm.tokenizers.pretokenize import GPT2_PATTERN, show_bytes

SAMPLE = (
    "The cat sat on the mat; the cat's hat, that's that.\n\n  Ein Öl für 1234 Männer, né?\n" * 3
)
TEXTS = st.text(st.characters(codec="utf-8"))
FEW_LETTERS = st.text("aab b'\n")
TRAINED = BPETokenizer.train(SAMPLE, vocab_size=320)
PATTERNS = [GPT2_PATTERN, r"\p{L}+", r"[a-m]+|[n-z](x)?", r"(?s:.+)", "", r"\s*"]


def token_bytes(tokenizer, text):
    return [tokenizer.token_bytes[i] for i in tokenizer.encode(text)]


# Training


def test_the_example_of_the_textbook():
    """aaabdaaabac: join aa, then ab (ties: smallest ids), as one does by hand."""
    tokenizer = BPETokenizer.train("aaabdaaabac", vocab_size=259)
    assert tokenizer.token_bytes[256:] == [b"aa", b"ab", b"aaab"]
    assert token_bytes(tokenizer, "aaabdaaabac") == [b"aaab", b"d", b"aaab", b"a", b"c"]


@given(
    st.lists(st.tuples(FEW_LETTERS, st.integers(1, 4))),
    st.integers(0, 30),
    st.integers(0, 3),
    st.sampled_from([0, 2, 100]),
)
def test_training_equals_its_specification(pieces, n, min_frequency, few):
    counts = Counter()
    for piece, count in pieces:
        counts[piece] += count
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bpe_training, "FEW", few)  # above it, all places of a pair are joined at once
        merges = learn_merges(counts, n, min_frequency)
    assert merges == naive_learn_merges(counts, n, min_frequency)


def test_training_equals_its_specification_on_prose():
    counts = count_chunks([SAMPLE], GPT2_PATTERN)
    assert learn_merges(counts, 200) == naive_learn_merges(counts, 200)


def test_worker_processes_count_what_one_process_counts():
    texts = [SAMPLE[i : i + 50] for i in range(0, len(SAMPLE), 50)]
    assert count_chunks(texts, GPT2_PATTERN, workers=2) == count_chunks(texts, GPT2_PATTERN)
    with pytest.raises(ValueError, match="lone surrogate"):
        count_chunks([*texts, "\ud800"], GPT2_PATTERN, workers=2)


def test_progress_is_told_after_every_merge():
    told = []
    tokenizer = BPETokenizer.train(SAMPLE, 270, progress=lambda *numbers: told.append(numbers))
    assert told == [(i, 14) for i in range(1, 15)]
    assert tokenizer.vocab_size == 270


def test_of_equally_frequent_pairs_the_smallest_ids_are_joined_first():
    tokenizer = BPETokenizer.train("dc ba dc ba", vocab_size=260, pattern=r"\w+")
    assert tokenizer.token_bytes[256:] == [b"ba", b"dc"]


@given(FEW_LETTERS)
def test_every_token_is_new_and_what_its_merge_joins(text):
    tokenizer = BPETokenizer.train(text, vocab_size=300, min_frequency=1)
    assert len(set(tokenizer.token_bytes)) == tokenizer.vocab_size
    joined = [tokenizer.token_bytes[a] + tokenizer.token_bytes[b] for a, b in tokenizer.merges]
    assert tokenizer.token_bytes[256:] == joined


def test_training_on_a_stream_equals_training_on_the_list_of_its_texts():
    lines = SAMPLE.splitlines()
    assert BPETokenizer.train(iter(lines), 300).merges == BPETokenizer.train(lines, 300).merges
    assert BPETokenizer.train([SAMPLE], 320).merges == TRAINED.merges


@pytest.mark.parametrize("texts", ["", [], ["", ""], "a"])
def test_training_on_nothing_leaves_the_bytes(texts):
    tokenizer = BPETokenizer.train(texts, vocab_size=300)
    assert tokenizer.vocab_size == 256
    assert tokenizer.decode(tokenizer.encode("né")) == "né"


def test_training_stops_where_no_pair_is_frequent_enough():
    tokenizer = BPETokenizer.train("abc abc", vocab_size=10_000)
    assert tokenizer.token_bytes[256:] == [b"ab", b"abc"]
    tokenizer = BPETokenizer.train("abc abc", vocab_size=10_000, min_frequency=1)
    assert tokenizer.token_bytes[256:] == [b"ab", b"abc", b" abc"]


def test_one_repeated_character_doubles_its_tokens():
    tokenizer = BPETokenizer.train("a" * 64, vocab_size=1000)
    assert [len(token) for token in tokenizer.token_bytes[256:]] == [2, 4, 8, 16, 32]
    assert [len(token) for token in token_bytes(tokenizer, "a" * 77)] == [32, 32, 8, 4, 1]


@pytest.mark.parametrize("vocab_size", [255, 0, -1])
def test_a_vocabulary_below_the_256_bytes_is_an_error(vocab_size):
    with pytest.raises(ValueError, match=f"expected vocab_size >= 256, got {vocab_size}"):
        BPETokenizer.train("text", vocab_size)


def test_a_pattern_that_is_no_regular_expression_is_an_error():
    with pytest.raises(ValueError, match="expected a regular expression, or .*, got '\\('"):
        BPETokenizer.train("text", 300, pattern="(")


def test_a_lone_surrogate_is_an_error_that_names_its_position():
    for call in (TRAINED.encode, lambda text: BPETokenizer.train(text, 300)):
        with pytest.raises(ValueError, match=r"lone surrogate '\\ud800' at position 4; read"):
            call("the \ud800 mat")


# Encoding


@given(TEXTS, st.sampled_from(PATTERNS))
def test_decode_of_encode_is_the_identity_on_any_text(text, pattern):
    tokenizer = BPETokenizer(TRAINED.token_bytes, TRAINED.merges, pattern)
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert tokenizer.decode_bytes(ids) == text.encode()
    assert all(type(i) is int for i in ids)


@given(st.binary(), st.sampled_from(PATTERNS))
def test_decode_of_encode_is_the_identity_on_any_bytes(data, pattern):
    tokenizer = BPETokenizer(TRAINED.token_bytes, TRAINED.merges, pattern)
    assert tokenizer.decode_bytes(tokenizer.encode_bytes(data)) == data


@given(TEXTS)
def test_the_bytes_of_a_text_are_encoded_as_the_text_is(text):
    assert TRAINED.encode_bytes(text.encode()) == TRAINED.encode(text)
    assert TRAINED.encode_bytes(b"\xff" + text.encode())[1:] == TRAINED.encode("," + text)[1:]


def test_of_two_pairs_that_overlap_the_one_learned_first_is_joined():
    b_c, a_b = ((BYTE_IDS[ord(left)], BYTE_IDS[ord(right)]) for left, right in ("bc", "ab"))
    tokens = list(TRAINED.token_bytes[:256])
    tokenizer = BPETokenizer([*tokens, b"bc", b"ab"], [b_c, a_b])
    assert token_bytes(tokenizer, "abc") == [b"a", b"bc"]
    tokenizer = BPETokenizer([*tokens, b"bc", b"ab"], [a_b, b_c])
    assert token_bytes(tokenizer, "abc") == [b"ab", b"c"]


@given(FEW_LETTERS, FEW_LETTERS)
def test_encode_applies_the_merges_in_the_order_they_were_learned(training_text, text):
    tokenizer = BPETokenizer.train(training_text, vocab_size=280, min_frequency=1)
    expected = []
    for chunk in tokenizer.chunks(text):
        word = [BYTE_IDS[byte] for byte in chunk.encode()]
        for joined, (left, right) in enumerate(tokenizer.merges, start=256):
            i = 0
            while i < len(word) - 1:
                if word[i] == left and word[i + 1] == right:
                    word[i : i + 2] = [joined]
                i += 1
        expected += word
    assert tokenizer.encode(text) == expected


def test_encode_array_equals_encode_in_the_smallest_unsigned_type():
    assert TRAINED.encode_array(SAMPLE).dtype == np.uint16
    assert TRAINED.encode_array(SAMPLE).tolist() == TRAINED.encode(SAMPLE)
    assert TRAINED.encode_array("").dtype == np.uint16
    assert TRAINED.encode("") == []


def test_a_token_may_end_inside_a_character():
    ids = TRAINED.encode("€")
    assert b"".join(TRAINED.decode_bytes([i]) for i in ids) == "€".encode()
    assert TRAINED.decode(ids[:1]) == "\ufffd"


def test_decoding_an_id_outside_the_vocabulary_is_an_error():
    for ids in ([TRAINED.vocab_size], [-1], [0, 10**9]):
        with pytest.raises(IndexError, match="expected ids from 0 to"):
            TRAINED.decode(ids)


def test_the_cache_is_bounded_and_holds_no_long_chunks(monkeypatch):
    monkeypatch.setattr(cache, "ENTRIES", 3)
    tokenizer = BPETokenizer(TRAINED.token_bytes, TRAINED.merges)
    sizes = set()
    for text in ("the", " cat", " sat", " mat", "the", "the" * cache.LONGEST, " cat"):
        assert tokenizer.encode(text) == TRAINED.encode(text)
        sizes.add(len(tokenizer._cache))
    assert sizes == {1, 2, 3}
    assert not any(len(chunk) > cache.LONGEST for chunk in tokenizer._cache)


def test_a_chunk_that_is_remembered_gives_the_same_ids_again():
    tokenizer = BPETokenizer(TRAINED.token_bytes, TRAINED.merges)
    first = tokenizer.encode(SAMPLE)
    first[0] = -1
    assert tokenizer.encode(SAMPLE) == TRAINED.encode(SAMPLE)


@given(FEW_LETTERS, FEW_LETTERS, st.sampled_from([0, 5, 100]))
def test_encoding_a_chunk_equals_its_specification(training_text, chunk, short):
    merges = learn_merges(Counter([training_text]), 40, min_frequency=1)
    ranks = {pair: (rank, 256 + rank) for rank, pair in enumerate(merges)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bpe, "SHORT", short)  # above it, the way for long chunks
        assert encode_chunk(chunk, BYTE_IDS, ranks) == naive_encode_chunk(chunk, BYTE_IDS, ranks)


@pytest.mark.parametrize("short", [0, 1000])
def test_a_pair_that_appears_late_is_joined_late(short, monkeypatch):
    """A list of merges that no training gives: (ab, c) comes before (a, b)."""
    monkeypatch.setattr(bpe, "SHORT", short)
    a, b, c, d = (BYTE_IDS[ord(letter)] for letter in "abcd")
    ranks = {(256, c): (0, 257), (a, b): (1, 256), (c, d): (2, 258)}
    assert encode_chunk("abcd", BYTE_IDS, ranks) == [257, d]
    assert encode_chunk("ccdab", BYTE_IDS, ranks) == [c, 258, 256]


def test_a_long_chunk_takes_time_in_proportion_to_its_length():
    letters = "".join(np.random.default_rng(0).choice(list("aet "), 200_000)).replace(" ", "th")
    for text in ("a" * 200_000, letters):
        assert TRAINED.decode(TRAINED.encode(text)) == text


@given(TEXTS)
def test_offsets_cover_the_text_and_the_ids_are_those_of_encode(text):
    ids, spans = TRAINED.encode_with_offsets(text)
    assert ids == TRAINED.encode(text)
    done = 0
    for i, (start, end) in zip(ids, spans, strict=True):
        assert TRAINED.token_bytes[i] in text[start:end].encode()
        assert start in (done, done - 1) and end > start
        done = end
    assert done == len(text)


# Special and added tokens

ODD = ["<|end of text|>", "[x]+(y)*", "a.b", "\n\n", "é<>", " "]


def test_special_tokens_have_the_last_ids_and_count_towards_the_size():
    tokenizer = BPETokenizer.train(SAMPLE, 300, special_tokens=ODD)
    assert tokenizer.special_tokens == {token: 294 + i for i, token in enumerate(ODD)}
    assert tokenizer.merges == TRAINED.merges[:38]
    assert tokenizer.encode("<|end of text|>a.b", allowed_special="all") == [294, 296]
    assert tokenizer.decode([296, 294]) == "a.b<|end of text|>"
    assert tokenizer.decode([*TRAINED.encode("that"), 294], skip_special_tokens=True) == "that"


def test_there_must_be_room_for_the_special_tokens():
    with pytest.raises(ValueError, match="expected vocab_size >= 258, got 257"):
        BPETokenizer.train("text", 257, special_tokens=["<a>", "<b>"])


@given(TEXTS, st.lists(st.sampled_from(ODD)), TEXTS)
def test_special_tokens_in_a_text_are_ordinary_text_where_the_caller_says_so(a, tokens, b):
    tokenizer = BPETokenizer(TRAINED.token_bytes, TRAINED.merges, GPT2_PATTERN, ODD)
    text = a + "".join(tokens) + b
    ids = tokenizer.encode(text, disallowed_special=())
    assert ids == TRAINED.encode(text)
    assert tokenizer.decode(tokenizer.encode(text, allowed_special="all")) == text


# The file


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("min_frequency", [1, 4])
def test_a_loaded_tokenizer_encodes_as_the_saved_one(tmp_path, pattern, min_frequency):
    special = [*ODD, AddedToken(" hat", special=False), AddedToken("mat", False, rstrip=True)]
    tokenizer = BPETokenizer.train(SAMPLE, 300, pattern, min_frequency, special)
    tokenizer.save(tmp_path)
    for loaded in (BPETokenizer.load(tmp_path), load_tokenizer(tmp_path)):
        assert type(loaded) is BPETokenizer
        assert loaded.pattern == pattern
        for text in (SAMPLE, "", "that hat\r\n\t\x00é😀 'll 99", "x".join(ODD), "mat  mat"):
            for options in ({"allowed_special": "all"}, {"disallowed_special": ()}):
                assert loaded.encode(text, **options) == tokenizer.encode(text, **options)
        assert loaded.token_bytes == tokenizer.token_bytes
        assert loaded.to_json() == tokenizer.to_json()


def test_gpt2s_two_files_give_the_same_ids(tmp_path):
    tokenizer = BPETokenizer.train(SAMPLE, 300, special_tokens=["<|endoftext|>"])
    tokenizer.save(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    loaded = BPETokenizer.load(tmp_path)
    assert loaded.special_tokens == {"<|endoftext|>": 299}
    assert loaded.encode(SAMPLE) == tokenizer.encode(SAMPLE)
    assert loaded.to_json()["model"]["merges"] == tokenizer.to_json()["model"]["merges"]
    assert load_tokenizer(tmp_path).encode(SAMPLE) == tokenizer.encode(SAMPLE)


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("merges.txt", lambda text: text + "a zz\n"),
        ("merges.txt", lambda text: text + "abc\n"),
        ("vocab.json", lambda text: text[:-5]),
        ("vocab.json", lambda text: "[]"),
        ("vocab.json", lambda text: text.replace('"!": 0', '"!": 1')),
    ],
)
def test_damage_to_gpt2s_two_files_is_an_error(tmp_path, name, damage):
    TRAINED.save(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    path = tmp_path / name
    path.write_text(damage(path.read_text(encoding="utf-8")), encoding="utf-8")
    with pytest.raises(TokenizerError, match="expected"):
        BPETokenizer.load(tmp_path)
    (tmp_path / "merges.txt").unlink()
    with pytest.raises(TokenizerError, match="expected"):
        BPETokenizer.load(tmp_path)


def test_a_special_token_inside_the_files_vocabulary_keeps_its_id(saved):
    """As trainers that put special tokens first leave it."""
    content = read(saved)
    vocab = content["model"]["vocab"]
    content["model"]["vocab"] = {"<| end |>": 0, **{t: i + 1 for t, i in vocab.items()}}
    content["added_tokens"] = [{"id": 0, "content": "<| end |>", "special": True}]
    saved.write_text(json.dumps(content), encoding="utf-8")
    loaded = load_tokenizer(saved.parent)
    assert loaded.encode("<| end |>the", allowed_special="all") == [
        0,
        *(i + 1 for i in TRAINED.encode("the")),
    ]
    assert loaded.decode([0]) == "<| end |>"
    assert loaded.to_json() == BPETokenizer.from_json(loaded.to_json()).to_json()


def variant(**settings):
    return BPETokenizer(TRAINED.token_bytes, TRAINED.merges, added=["<x>"], **settings)


def test_with_add_prefix_space_a_text_is_encoded_as_behind_a_space():
    tokenizer = variant(add_prefix_space=True)
    for text in ("the cat", " the cat", "\nthe", "中"):
        prefixed = text if text.startswith(" ") else f" {text}"
        assert tokenizer.encode(text) == TRAINED.encode(prefixed)
        assert tokenizer.decode(tokenizer.encode(text)) == prefixed
    assert tokenizer.encode("") == []
    pieces = [*TRAINED.encode(" the"), tokenizer.ids["<x>"], *TRAINED.encode(" cat")]
    assert tokenizer.encode("the<x>cat", allowed_special="all") == pieces
    assert tokenizer.decode_bytes(tokenizer.encode_bytes(b"the")) == b"the"
    with pytest.raises(ValueError, match="expected GPT-2's pattern with add_prefix_space"):
        variant(add_prefix_space=True, pattern="cl100k")


@pytest.mark.parametrize("prefix", [False, True])
def test_with_trim_offsets_a_tokens_place_is_without_its_spaces(prefix):
    tokenizer = variant(trim_offsets=True, add_prefix_space=prefix)
    text = "the cat  sat <x> né"
    ids, spans = tokenizer.encode_with_offsets(text, allowed_special="all")
    assert ids == tokenizer.encode(text, allowed_special="all")
    for i, (start, end) in zip(ids, spans, strict=True):
        token = tokenizer.decode([i])
        assert text[start:end] == (token.strip(" ") if "\ufffd" not in token else "é")


def test_with_ignore_merges_a_chunk_that_is_a_token_is_one():
    tokens = [*TRAINED.token_bytes, b" mats"]
    for ignore_merges in (False, True):
        tokenizer = BPETokenizer(tokens, TRAINED.merges, ignore_merges=ignore_merges)
        assert (tokenizer.encode(" mats") == [len(tokens) - 1]) == ignore_merges
        assert tokenizer.decode(tokenizer.encode(" mats mat")) == " mats mat"


def test_a_normalizer_changes_the_text_before_it_is_cut():
    tokenizer = variant(normalizer={"type": "NFC"})
    assert tokenizer.encode("ne\u0301") == TRAINED.encode("né")
    ids, spans = tokenizer.encode_with_offsets("ne\u0301 x")
    assert len(ids) == len(spans) and spans[-1] == (4, 5)
    assert 2 not in {place for span in spans for place in span}  # between a letter and its accent


@pytest.mark.parametrize(
    "settings",
    [
        {"add_prefix_space": True},
        {"trim_offsets": True, "add_prefix_space": True},
        {"trim_offsets": True},
        {"ignore_merges": True, "pattern": "cl100k"},
        {"normalizer": {"type": "NFC"}},
        {"trim_offsets": True, "template": Template((("<x>", 0), ("$A", 0)))},
    ],
)
def test_settings_come_back_from_the_file(settings, tmp_path):
    tokenizer = variant(**settings)
    tokenizer.save(tmp_path)
    loaded = load_tokenizer(tmp_path)
    assert loaded.to_json() == tokenizer.to_json()
    for name in ("add_prefix_space", "trim_offsets", "ignore_merges", "normalizer", "template"):
        assert getattr(loaded, name) == getattr(tokenizer, name)


@pytest.mark.parametrize("processor", ["RobertaProcessing", "ByteLevel"])
def test_what_adds_the_template_says_whether_places_are_trimmed(saved, processor):
    part = {"type": processor, "trim_offsets": True, "add_prefix_space": False}
    part |= {"cls": ["<x>", TRAINED.vocab_size], "sep": ["<x>", TRAINED.vocab_size]}
    added = [{"id": TRAINED.vocab_size, "content": "<x>", "special": True}]
    content = {**read(saved), "added_tokens": added, "post_processor": part}
    saved.write_text(json.dumps(content), encoding="utf-8")
    assert load_tokenizer(saved.parent).trim_offsets
    content["post_processor"] |= {"add_prefix_space": True}
    saved.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(TokenizerError, match="expected trim_offsets with add_prefix_space False"):
        load_tokenizer(saved.parent)
    content["post_processor"] |= {"trim_offsets": False}
    saved.write_text(json.dumps(content), encoding="utf-8")
    assert not load_tokenizer(saved.parent).trim_offsets


def test_a_file_from_before_models_had_types_is_read(saved):
    content = read(saved)
    del content["model"]["type"]
    saved.write_text(json.dumps(content), encoding="utf-8")
    assert load_tokenizer(saved.parent).tokens == TRAINED.tokens


@given(TEXTS)
def test_any_text_trains_a_tokenizer_that_loads(tmp_path_factory, text):
    directory = tmp_path_factory.mktemp("bpe")
    tokenizer = BPETokenizer.train(text, 300, min_frequency=1)
    tokenizer.save(directory)
    assert load_tokenizer(directory).encode(text) == tokenizer.encode(text)


@pytest.fixture
def saved(tmp_path):
    TRAINED.save(tmp_path)
    return tmp_path / "tokenizer.json"


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def test_the_file_has_the_layout_of_hugging_face_tokenizers(saved):
    content = read(saved)
    assert content["model"]["type"] == "BPE"
    assert content["model"]["vocab"]["!"] == 0
    assert content["model"]["merges"][0] == ["a", "t"]
    assert content["model"]["vocab"]["at"] == 256
    assert content["pre_tokenizer"] == {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": True,
    }
    assert content["decoder"]["type"] == "ByteLevel"


def test_merges_written_as_one_string_are_read_too(saved):
    content = read(saved)
    content["model"]["merges"] = [" ".join(merge) for merge in content["model"]["merges"]]
    saved.write_text(json.dumps(content), encoding="utf-8")
    assert load_tokenizer(saved.parent).encode(SAMPLE) == TRAINED.encode(SAMPLE)


def test_ids_may_come_in_any_order(saved):
    content = read(saved)
    vocab = content["model"]["vocab"]
    content["model"]["vocab"] = {token: len(vocab) - 1 - i for token, i in vocab.items()}
    saved.write_text(json.dumps(content), encoding="utf-8")
    loaded = load_tokenizer(saved.parent)
    assert loaded.encode(SAMPLE) == [len(vocab) - 1 - i for i in TRAINED.encode(SAMPLE)]
    assert loaded.decode(loaded.encode(SAMPLE)) == SAMPLE


def without(mapping, key):
    """The vocabulary without one token, its ids closed up."""
    return {token: i for i, token in enumerate(token for token in mapping if token != key)}


@pytest.mark.parametrize(
    ("part", "damage"),
    [
        ("vocab", lambda vocab: without(vocab, "a")),
        ("vocab", lambda vocab: without(vocab, show_bytes(b"\xff"))),
        ("vocab", lambda vocab: without(vocab, "at")),
        ("vocab", lambda vocab: {**vocab, "的": len(vocab)}),
        ("vocab", lambda vocab: {**vocab, "!": 1}),
        ("vocab", lambda vocab: None),
        ("merges", lambda merges: [*merges, ["a", "zz"]]),
        ("merges", lambda merges: [*merges, ["z", "z"]]),
        ("merges", lambda merges: [*merges, ["a"]]),
        ("merges", lambda merges: [*merges, "a t t"]),
        ("merges", lambda merges: [*merges, [1, 2]]),
        ("merges", lambda merges: [*merges, 7]),
        ("merges", lambda merges: None),
        ("type", lambda type_: "Unigram"),
        ("type", lambda type_: None),
    ],
)
def test_a_model_that_contradicts_itself_is_an_error(saved, part, damage):
    content = read(saved)
    content["model"][part] = damage(content["model"][part])
    saved.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(TokenizerError, match="expected .*, got .*; .*train and save"):
        load_tokenizer(saved.parent)


BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
SPLIT = {"type": "Split", "pattern": {"Regex": "a"}, "behavior": "Isolated", "invert": False}


@pytest.mark.parametrize(
    "parts",
    [
        {"normalizer": {"type": "Unknown"}},
        {"added_tokens": [{"id": 321, "content": "<|endoftext|>"}]},
        {"added_tokens": [{"id": 320, "content": ""}]},
        {"added_tokens": [{"id": 320, "content": "<x>", "lstrip": 1}]},
        {"added_tokens": [{"id": 7, "content": "at"}]},
        {"added_tokens": {}},
        {"post_processor": {"type": "Unknown"}},
        {"decoder": None},
        {"decoder": {"type": "Metaspace"}},
        {"pre_tokenizer": None},
        {"pre_tokenizer": {"type": "Whitespace"}},
        {"pre_tokenizer": {**BYTE_LEVEL, "add_prefix_space": 1}},
        {"pre_tokenizer": {**BYTE_LEVEL, "use_regex": False}},
        {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [SPLIT, BYTE_LEVEL]}},
        {
            "pre_tokenizer": {
                "type": "Sequence",
                "pretokenizers": [
                    {**SPLIT, "pattern": {"Regex": "("}},
                    {**BYTE_LEVEL, "use_regex": False},
                ],
            }
        },
        *(
            {"model": {**TRAINED.to_json()["model"], name: value}}
            for name, value in [
                ("dropout", 0.1),
                ("continuing_subword_prefix", "##"),
                ("end_of_word_suffix", "</w>"),
                ("byte_fallback", True),
                ("ignore_merges", 1),
            ]
        ),
    ],
)
def test_a_file_that_would_encode_differently_elsewhere_is_an_error(saved, parts):
    saved.write_text(json.dumps({**read(saved), **parts}), encoding="utf-8")
    with pytest.raises(TokenizerError, match="expected .*, got .*; .*train and save"):
        load_tokenizer(saved.parent)
