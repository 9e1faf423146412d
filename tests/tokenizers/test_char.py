"""Laws of the character tokenizer, and of the file that every tokenizer writes."""

import json
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minilm.tokenizers import BPETokenizer, CharTokenizer, TokenizerError, load_tokenizer
from minilm.tokenizers.base import replacing

TEXTS = st.text(st.characters(codec="utf-8"))
SURROGATES = st.characters(categories=["Cs"])


@given(TEXTS.filter(bool))
def test_decode_of_encode_is_the_identity_on_any_text(text):
    tokenizer = CharTokenizer.train(text)
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert tokenizer.decode_bytes(ids) == text.encode()
    assert all(type(i) is int for i in ids)


@given(TEXTS.filter(bool), st.data())
def test_an_id_is_the_place_of_the_character_in_code_point_order(alphabet, data):
    tokenizer = CharTokenizer.train(alphabet)
    text = data.draw(st.text(sorted(set(alphabet))))
    assert tokenizer.encode(text) == [sorted(set(alphabet)).index(c) for c in text]
    assert tokenizer.vocab_size == len(set(alphabet))


@given(st.lists(TEXTS, min_size=1).filter(any))
def test_training_on_a_stream_of_texts_equals_training_on_the_texts_joined(texts):
    streamed = CharTokenizer.train(text for text in texts)
    assert streamed.characters == CharTokenizer.train("".join(texts)).characters


@given(TEXTS, TEXTS)
def test_texts_encoded_apart_give_the_same_ids_as_together(left, right):
    tokenizer = CharTokenizer.train(left + right + "x")
    assert tokenizer.encode(left) + tokenizer.encode(right) == tokenizer.encode(left + right)


@given(TEXTS.filter(bool))
def test_a_loaded_tokenizer_encodes_as_the_saved_one(tmp_path_factory, text):
    directory = tmp_path_factory.mktemp("char")
    tokenizer = CharTokenizer.train(text)
    tokenizer.save(directory)
    for loaded in (CharTokenizer.load(directory), load_tokenizer(str(directory))):
        assert type(loaded) is CharTokenizer
        assert loaded.encode(text) == tokenizer.encode(text)
        assert loaded.decode(range(loaded.vocab_size)) == tokenizer.characters


def test_encode_array_equals_encode_in_the_smallest_unsigned_type():
    tokenizer = CharTokenizer.train("hello")
    assert tokenizer.encode_array("hole").dtype == np.uint16
    assert tokenizer.encode_array("hole").tolist() == tokenizer.encode("hole") == [1, 3, 2, 0]
    everything = "".join(map(chr, [*range(0xD800), *range(0xE000, 0x12000)]))
    large = CharTokenizer.train(everything)
    assert large.vocab_size > 2**16
    assert large.encode_array(everything).dtype == np.uint32
    assert large.encode_array(everything).tolist() == list(range(large.vocab_size))
    just_fits = CharTokenizer.train(everything[: 2**16])
    assert just_fits.encode_array(everything[: 2**16]).dtype == np.uint16
    assert just_fits.decode([2**16 - 1]) == everything[2**16 - 1]


def test_an_empty_text_has_no_ids():
    tokenizer = CharTokenizer.train("a")
    assert tokenizer.encode("") == []
    assert tokenizer.encode_array("").dtype == np.uint16
    assert tokenizer.decode([]) == ""


def test_one_repeated_character_is_a_vocabulary_of_one():
    assert CharTokenizer.train("aaaa").encode("aaa") == [0, 0, 0]


@pytest.mark.parametrize("text", ["abXab", "abX", "Xab"])
@pytest.mark.parametrize("stranger", ["B", "c", "\U0001f600", "\x00"])
def test_an_unknown_character_is_named_with_its_position(text, stranger):
    text = text.replace("X", stranger)
    message = rf"U\+{ord(stranger):04X}\) at position {text.index(stranger)}; .*train"
    with pytest.raises(ValueError, match=message):
        CharTokenizer.train("ab").encode(text)


@given(TEXTS, SURROGATES, TEXTS)
def test_a_lone_surrogate_is_no_character_and_its_position_is_named(before, surrogate, after):
    for make in (CharTokenizer.train, CharTokenizer):
        with pytest.raises(
            ValueError, match=f"got the lone surrogate .* at position {len(before)};"
        ):
            make(before + surrogate + after)


def test_a_lone_surrogate_is_no_text_to_encode():
    with pytest.raises(ValueError, match="got the lone surrogate .* at position 2;"):
        CharTokenizer.train("ab").encode("ab\ud800")


@pytest.mark.parametrize("texts", ["", [], [""]])
def test_training_on_nothing_is_an_error(texts):
    with pytest.raises(ValueError, match="expected one or more different characters, got ''"):
        CharTokenizer.train(texts)


@pytest.mark.parametrize("ids", [[-1], [3], [0, 1, 2, 3], np.array([0, 7])])
def test_decoding_an_id_outside_the_vocabulary_is_an_error(ids):
    with pytest.raises(IndexError, match="expected ids from 0 to 2"):
        CharTokenizer.train("abc").decode(ids)


# The file


@pytest.fixture
def saved(tmp_path):
    CharTokenizer.train("hello").save(tmp_path)
    return tmp_path / "tokenizer.json"


def change(path, **parts):
    content = json.loads(path.read_text(encoding="utf-8"))
    for name, part in parts.items():
        if name in content["model"]:
            content["model"][name] = part
        else:
            content[name] = part
    path.write_text(json.dumps(content), encoding="utf-8")


def test_a_file_cut_anywhere_is_an_error(saved):
    whole = saved.read_bytes()
    for length in range(0, len(whole), 7):
        saved.write_bytes(whole[:length])
        with pytest.raises(TokenizerError, match=r"tokenizer\.json: expected JSON"):
            load_tokenizer(saved.parent)


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"[1]", b"{}", b'{"model": 3}', b"[" * 10**5])
def test_a_file_that_is_no_tokenizer_is_an_error(saved, content):
    saved.write_bytes(content)
    for load in (load_tokenizer, CharTokenizer.load):
        with pytest.raises(TokenizerError, match="expected"):
            load(saved.parent)


@pytest.mark.parametrize(
    "parts",
    [
        {"vocab": {}},
        {"vocab": None},
        {"vocab": ["a", "b"]},
        {"vocab": {"a": 1, "b": 2}},
        {"vocab": {"a": 0, "b": 0}},
        {"vocab": {"a": 0, "b": 1.0}},
        {"vocab": {"a": 0, "b": True}},
        {"vocab": {"a": 0, "bc": 1}},
        {"vocab": {"a": 0, "": 1}},
        {"vocab": {"a": 0, "\ud800": 1}},
        {"type": "Unigram"},
        {"type": None},
        {"type": ["WordLevel"]},
        {"pre_tokenizer": {"type": "Whitespace"}},
        {"pre_tokenizer": None},
        {"normalizer": {"type": "Lowercase"}},
        {"added_tokens": [{"id": 5, "content": "<s>"}]},
    ],
)
def test_a_foreign_or_inconsistent_file_is_an_error(saved, parts):
    change(saved, **parts)
    with pytest.raises(TokenizerError, match="expected .*, got .*; .*train and save"):
        load_tokenizer(saved.parent)


def test_a_missing_file_is_an_error(tmp_path):
    for load in (load_tokenizer, CharTokenizer.load, BPETokenizer.load):
        with pytest.raises(TokenizerError, match=r"expected a tokenizer file, got No such file"):
            load(tmp_path / "nowhere")


def test_a_file_of_another_kind_is_an_error(saved):
    with pytest.raises(TokenizerError, match="expected a model of type BPE, got 'WordLevel'"):
        BPETokenizer.load(saved.parent)


def test_saving_makes_the_directory_and_leaves_only_the_file(tmp_path):
    CharTokenizer.train("abc").save(tmp_path / "a" / "b")
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["tokenizer.json"]


def test_an_interrupted_save_leaves_the_old_file(saved):
    old = saved.read_bytes()
    with pytest.raises(KeyboardInterrupt), replacing(saved) as file:
        file.write(b"half")
        file.flush()
        assert saved.read_bytes() == old
        raise KeyboardInterrupt
    assert saved.read_bytes() == old
    assert os.listdir(saved.parent) == ["tokenizer.json"]
