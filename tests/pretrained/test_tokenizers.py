"""A tokenizer comes out of every layout of a directory, and goes into one, as it is."""

import json
import random

import pytest
from damage import loads_and_works, mutate_bytes, mutate_value, places
from pretrained.test_spiece import spiece

import minilm
from minilm.pretrained.tokenizers import save_tokenizer, tokenizer_from_pretrained
from minilm.tokenizers import (
    AddedToken,
    BPETokenizer,
    CharTokenizer,
    MarkedBPETokenizer,
    Template,
    TokenizerError,
    UnigramTokenizer,
    WordPieceTokenizer,
)
from minilm.tokenizers.numbers import read_number

TEXT = "The cat sat on the mat; the cat's hat, that's that. Über 1234 中文 déjà\n" * 3
TEXTS = ["", " ", "The cat", "  the  hat\n", "Über 中 déjà 😀", "<s>cat</s> [MASK] <|endoftext|>x"]
BERT = WordPieceTokenizer.train(TEXT, 90)
BPE = BPETokenizer.train(TEXT, 300)
T5 = UnigramTokenizer.train(TEXT, 90)
CHARACTERS = ["▁", "t", "h", "e", "c", "a", "th", "▁th", "▁the"]
LLAMA = MarkedBPETokenizer(
    ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *CHARACTERS],
    [(260, 261), (259, 265), (266, 262)],
    added=["<unk>", "<s>", "</s>"],
    template=Template((("<s>", 0), ("$A", 0)), (("<s>", 0), ("$A", 0), ("<s>", 1), ("$B", 1))),
)
N = BPE.vocab_size
SPECIAL = ["<pad>", "</s>", "<unk>"]
MUTANTS = 200  # of each layout


def write(directory, **files):
    """Files by their names, in which _ stands for the dot: objects as JSON, texts, bytes."""
    directory.mkdir(exist_ok=True)
    for name, content in files.items():
        if isinstance(content, list):
            content = "".join(f"{line}\n" for line in content)
        if not isinstance(content, bytes | str):
            content = json.dumps(content)
        data = content if isinstance(content, bytes) else content.encode()
        (directory / ".".join(name.rsplit("_", 1))).write_bytes(data)
    return directory


def vocab_files(extra=()):
    """GPT-2's, with tokens at the end that no merge makes."""
    ids = {token: i for i, token in enumerate([*BPE.tokens, *extra])}
    merges = [f"{BPE.tokens[left]} {BPE.tokens[right]}" for left, right in BPE.merges]
    return {"vocab_json": ids, "merges_txt": ["#version: 0.2", *merges]}


def row(tokenizer, *texts):
    return tokenizer(*texts, allowed_special="all").input_ids[0].tolist()


def same(one, other):
    """The same in everything but what their files spell in several ways."""
    assert one.tokens == other.tokens and one.added == other.added
    for name in ("roles", "model_max_length", "padding_side", "input_names", "template"):
        assert getattr(one, name) == getattr(other, name), name
    for text in TEXTS:
        ids = row(other, text)
        assert row(one, text) == ids
        assert row(one, text, "the cat") == row(other, text, "the cat")
        for skip in (False, True):
            assert one.decode(ids, skip) == other.decode(ids, skip)


# --- What is saved comes back ---------------------------------------------------------------------


OURS = {
    "bert": BERT,
    "cased": WordPieceTokenizer.train(
        TEXT, 90, lower=False, special_tokens=["<unk>", "<x>"], unk_token="<unk>"
    ),  # fmt: skip
    "bpe": BPETokenizer.train(TEXT, 290, "cl100k", special_tokens=["<|endoftext|>", "<x>"]),
    "roberta": BPETokenizer(
        BPE.token_bytes,
        BPE.merges,
        added=["<s>", AddedToken("x", False)],
        add_prefix_space=True,
        trim_offsets=True,
    ),  # fmt: skip
    "unigram": T5,
    "bytes": UnigramTokenizer.train(TEXT, 330, byte_fallback=True, special_tokens=["<s>"]),
    "llama": LLAMA,
}


@pytest.mark.parametrize("name", OURS)
def test_a_saved_tokenizer_comes_back_as_it_was(name, tmp_path):
    tokenizer = OURS[name]
    save_tokenizer(tokenizer, tmp_path / "one")
    loaded = tokenizer_from_pretrained(tmp_path / "one")
    same(loaded, tokenizer)
    assert loaded.to_json() == tokenizer.to_json()
    loaded.save_pretrained(tmp_path / "two")
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


def test_what_is_set_is_saved_too(tmp_path):
    tokenizer = minilm.CharTokenizer.train("abc", ["<pad>", "<end>"])
    tokenizer.roles["eos"] = "<end>"
    tokenizer.model_max_length, tokenizer.padding_side = 7, "left"
    tokenizer.input_names = ("input_ids",)
    tokenizer.clean_up_tokenization_spaces = True
    tokenizer.save_pretrained(tmp_path)
    loaded = minilm.tokenizer_from_pretrained(str(tmp_path))
    assert loaded.roles == {"pad": "<pad>", "eos": "<end>"}
    assert (loaded.model_max_length, loaded.padding_side) == (7, "left")
    assert loaded.input_names == ("input_ids",)
    assert loaded.clean_up_tokenization_spaces


def test_a_tokenizer_of_characters_is_saved_as_words_of_one_character(tmp_path):
    tokenizer = CharTokenizer.train(TEXT, ["<pad>"])
    tokenizer.save_pretrained(tmp_path)
    content = json.loads((tmp_path / "tokenizer.json").read_text())
    assert content["model"]["type"] == "WordLevel"
    loaded = tokenizer_from_pretrained(tmp_path)
    assert loaded.encode(TEXT) == tokenizer.encode(TEXT)
    assert loaded.decode(loaded.encode(TEXT)) == TEXT
    with pytest.raises(ValueError, match="expected the .* characters of the vocabulary"):
        loaded.encode("z")


def test_a_bare_file_is_taken_as_it_is(tmp_path):
    for name, tokenizer in OURS.items():
        tokenizer.save(tmp_path / name)
        same(tokenizer_from_pretrained(tmp_path / name), tokenizer)


# --- The layouts of others ------------------------------------------------------------------------


@pytest.mark.parametrize("extra", [(), ["<|endoftext|>"]])
def test_gpt2s_two_files_are_read_and_have_the_end_of_a_text(extra, tmp_path):
    loaded = tokenizer_from_pretrained(write(tmp_path, **vocab_files(extra)))
    end = len(BPE.tokens)
    assert loaded.roles == dict.fromkeys(("bos", "eos", "unk"), "<|endoftext|>")
    assert loaded.special_tokens == {"<|endoftext|>": end}
    assert row(loaded, "the cat<|endoftext|>") == [*BPE.encode("the cat"), end]
    assert loaded.input_names == ("input_ids", "attention_mask")


def test_gpt2s_files_may_be_asked_for_tokens_around_a_text(tmp_path):
    config = {"add_bos_token": True, "add_eos_token": True, "eos_token": "<end>"}
    files = vocab_files(["<|endoftext|>", "<end>"])
    loaded = tokenizer_from_pretrained(write(tmp_path, **files, tokenizer_config_json=config))
    bos, eos, a, b = *loaded.special_tokens.values(), BPE.encode("a"), BPE.encode("b")
    assert row(loaded, "a") == [bos, *a, eos]
    pair = loaded("a", "b")
    assert pair.input_ids[0].tolist() == [bos, *a, eos, bos, *b, eos]
    assert pair.token_type_ids[0].tolist() == [0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize("prefix", [False, True])
def test_robertas_files_have_its_template_and_trim_places(prefix, tmp_path):
    files = vocab_files(["<s>", "<pad>", "</s>", "<unk>", "<mask>", "madeupword0000"])
    config = {"tokenizer_class": "RobertaTokenizer", "add_prefix_space": prefix}
    loaded = tokenizer_from_pretrained(write(tmp_path, **files, tokenizer_config_json=config))
    bos, eos = loaded.ids["<s>"], loaded.ids["</s>"]
    a, b = BPE.encode(" cat" if prefix else "cat"), BPE.encode(" hat" if prefix else "hat")
    assert row(loaded, "cat", "hat") == [bos, *a, eos, eos, *b, eos]
    assert "madeupword0000" not in loaded.special_tokens
    assert (loaded.mask_token, loaded.sep_token, loaded.cls_token) == ("<mask>", "</s>", "<s>")
    assert loaded("a cat").offset_mapping[0, -2].tolist() == [2, 5]


SETTINGS = [
    ({}, {}),
    ({"do_lower_case": False}, {"lower": False}),
    ({"do_lower_case": False, "strip_accents": True}, {"lower": False, "strip_accents": True}),
    ({"tokenize_chinese_chars": False}, {"chinese_spaces": False}),
]


@pytest.mark.parametrize(("config", "settings"), SETTINGS)
@pytest.mark.parametrize("model_type", ["bert", "distilbert", None])
def test_berts_vocabulary_is_read_with_the_settings_beside_it(
    config, settings, model_type, tmp_path
):
    files = {"config_json": {"model_type": model_type}} if model_type else {}
    write(tmp_path, vocab_txt=BERT.tokens, tokenizer_config_json=config, **files)
    loaded = tokenizer_from_pretrained(tmp_path)
    expected = WordPieceTokenizer(BERT.tokens, **settings)
    if model_type == "distilbert":
        expected.input_names = ("input_ids", "attention_mask")
    same(loaded, expected)


def test_a_class_builds_all_but_the_vocabulary_and_no_class_nothing(tmp_path):
    cased = WordPieceTokenizer(BERT.tokens, lower=False, max_word=3).to_json()
    write(tmp_path, tokenizer_json=cased)
    assert not tokenizer_from_pretrained(tmp_path).lower
    for config in ({"tokenizer_class": "BertTokenizerFast"}, {"tokenizer_class": "BertTokenizer"}):
        loaded = tokenizer_from_pretrained(write(tmp_path, tokenizer_config_json=config))
        assert loaded.lower and loaded.max_word == 100
    config = {"tokenizer_class": "PreTrainedTokenizerFast"}
    write(tmp_path, config_json={"model_type": "bert"}, tokenizer_config_json=config)
    assert not tokenizer_from_pretrained(tmp_path).lower


def test_t5s_model_has_its_sentinels_behind_the_pieces_the_first_one_last(tmp_path):
    write(tmp_path, spiece_model=spiece(), config_json={"model_type": "t5"})
    loaded = tokenizer_from_pretrained(tmp_path)
    assert loaded.vocab_size == 7 + 100
    assert (loaded.ids["<extra_id_99>"], loaded.ids["<extra_id_0>"]) == (7, 106)
    assert len(loaded.special_tokens) == 3 + 100 and "<sep>" not in loaded.special_tokens
    assert row(loaded, "the é<extra_id_0>the") == [4, 3, 5, 106, 4, 1]
    assert row(loaded, "the", "<sep> x") == [4, 1, 6, 3, 2, 1]
    assert loaded.roles == {"eos": "</s>", "unk": "<unk>", "pad": "<pad>"}
    write(tmp_path, tokenizer_config_json={"extra_ids": 2})
    few = tokenizer_from_pretrained(tmp_path)
    assert few.tokens[7:] == ["<extra_id_1>", "<extra_id_0>"]


def test_scores_are_what_the_class_reads_or_else_what_tokenizers_reads(tmp_path):
    score = -2.0122928619384766
    content = UnigramTokenizer([*T5.pieces, ("zz", score)], T5.unk_id, added=[*SPECIAL]).to_json()
    write(
        tmp_path, tokenizer_json=content, tokenizer_config_json={"tokenizer_class": "T5Tokenizer"}
    )
    assert tokenizer_from_pretrained(tmp_path).pieces[-1] == ("zz", score)
    write(tmp_path, tokenizer_config_json={})
    assert tokenizer_from_pretrained(tmp_path).pieces[-1] == ("zz", read_number(str(score)))
    assert read_number(str(score)) != score


def llama_files(**config):
    config = {"tokenizer_class": "LlamaTokenizer", **config}
    return {"tokenizer_json": LLAMA.to_json(), "tokenizer_config_json": config}


def test_llamas_text_begins_with_a_space_and_its_template(tmp_path):
    loaded = tokenizer_from_pretrained(write(tmp_path, **llama_files()))
    assert [loaded.tokens[i] for i in row(loaded, "the<s>the é")] == [
        *("<s>", "▁the", "<s>", "th", "e", "▁", "<0xC3>", "<0xA9>"),
    ]
    assert loaded.padding_side == "left"
    assert loaded.decode(row(loaded, "the é"), skip_special_tokens=True) == "the é"
    legacy = tokenizer_from_pretrained(write(tmp_path, **llama_files(legacy=True)))
    assert [legacy.tokens[i] for i in row(legacy, "the<s>the")] == ["<s>", "▁the", "<s>", "▁the"]
    never = tokenizer_from_pretrained(write(tmp_path, **llama_files(add_prefix_space=False)))
    assert [never.tokens[i] for i in row(never, "the")] == ["<s>", "th", "e"]
    assert never.decode(never.encode(" the")) == " the"


def test_llama_3_whose_file_has_bytes_is_taken_as_it_is(tmp_path):
    bpe = BPETokenizer(BPE.token_bytes, BPE.merges, "cl100k", ["<s>"], ignore_merges=True)
    write(tmp_path, **{**llama_files(), "tokenizer_json": bpe.to_json()})
    loaded = tokenizer_from_pretrained(tmp_path)
    assert isinstance(loaded, BPETokenizer) and loaded.to_json() == bpe.to_json()


# --- Tokens, roles, limits ------------------------------------------------------------------------


def loaded_with(directory, **files):
    """GPT-2's vocabulary, with other files beside it."""
    return tokenizer_from_pretrained(write(directory, **vocab_files(), **files))


def test_tokens_with_a_name_become_special_and_new_ones_get_the_next_ids(tmp_path):
    config = {
        **{"pad_token": "<pad>", "mask_token": {"content": "<m>", "lstrip": True}, "sep_token": ""},
        **{"image_token": "<i>", "eos_token": "<pad>", "unk_token": None},
        "extra_special_tokens": ["<x>", {"content": "<y>", "special": False}, "th"],
    }
    loaded = loaded_with(tmp_path, tokenizer_config_json=config)
    assert loaded.tokens[N:] == ["<|endoftext|>", "<pad>", "<m>", "<i>", "<x>", "<y>"]
    assert loaded.roles == {"bos": "<|endoftext|>", "eos": "<pad>", "pad": "<pad>", "mask": "<m>"}
    assert loaded.added[N + 2] == AddedToken("<m>", lstrip=True, normalized=True)
    assert loaded.added[N + 5] == AddedToken("<y>", special=False, normalized=True)
    assert loaded.added[BPE.ids["th"]] == AddedToken("th")


def test_older_files_say_the_same(tmp_path):
    special = {"pad_token": "<pad>", "mask_token": {"content": "<m>", "lstrip": True}}
    special["additional_special_tokens"] = ["<x>"]
    added = {"<new>": N + 1, "<pad>": N}
    files = {"special_tokens_map_json": special, "added_tokens_json": added}
    config = {"pad_token": "<other>"}
    loaded = loaded_with(tmp_path, **files, tokenizer_config_json=config)
    assert loaded.tokens[N:] == ["<pad>", "<new>", "<|endoftext|>", "<m>", "<x>"]
    assert loaded.pad_token == "<pad>"
    assert loaded.added[N + 1] == AddedToken("<new>", special=False, normalized=True)
    assert loaded.added[N + 3] == AddedToken("<m>", lstrip=True, normalized=True)
    config["added_tokens_decoder"] = {str(N): {"content": "<a>", "special": True, "rstrip": True}}
    newer = loaded_with(tmp_path, tokenizer_config_json=config)
    assert newer.tokens[N:] == ["<a>", "<|endoftext|>", "<other>"]
    assert newer.added[N] == AddedToken("<a>", rstrip=True)


def test_flags_of_the_settings_count_before_those_of_the_file(tmp_path):
    file = BPETokenizer(BPE.token_bytes, BPE.merges, added=[AddedToken("<a>", special=False)])
    decoder = {str(N): {"content": "<a>", "lstrip": True, "special": False, "normalized": False}}
    config = {"added_tokens_decoder": decoder, "pad_token": "<a>"}
    write(tmp_path, tokenizer_json=file.to_json(), tokenizer_config_json=config)
    assert tokenizer_from_pretrained(tmp_path).added == {N: AddedToken("<a>", lstrip=True)}


@pytest.mark.parametrize(
    ("config", "name", "expected"),
    [
        ({"mask_token": None}, "mask_token", None),
        ({}, "mask_token", "[MASK]"),
        ({"model_max_length": 512}, "model_max_length", 512),
        ({"model_max_length": 512.0}, "model_max_length", 512),
        ({"model_max_length": 10**30}, "model_max_length", None),
        ({"model_max_length": 1e30}, "model_max_length", None),
        ({"max_len": 512}, "model_max_length", 512),
        ({"padding_side": "left"}, "padding_side", "left"),
        ({"clean_up_tokenization_spaces": True}, "clean_up_tokenization_spaces", True),
        ({"model_input_names": ["input_ids"]}, "input_names", ("input_ids",)),
        ({"tokenizer_class": "DistilBertTokenizer"}, "input_names", BPE.input_names),
        ({}, "input_names", BERT.input_names),
    ],
)
def test_settings_that_no_other_file_has(config, name, expected, tmp_path):
    write(tmp_path, tokenizer_json=BERT.to_json(), tokenizer_config_json=config)
    assert getattr(tokenizer_from_pretrained(tmp_path), name) == expected


# --- What is refused ------------------------------------------------------------------------------


def test_a_directory_without_a_tokenizer_is_an_error_that_names_the_files(tmp_path):
    write(tmp_path, tokenizer_config_json={}, tokenizer_model=b"")
    for directory in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(TokenizerError, match="expected a directory with one of tokenizer.json"):
            tokenizer_from_pretrained(directory)
    write(tmp_path, vocab_json={"a": 0})
    with pytest.raises(TokenizerError, match=r"merges.txt: expected a tokenizer file"):
        tokenizer_from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("[]", "a JSON object"),
        ({"tokenizer_class": 3}, "tokenizer_class to be str"),
        ({"tokenizer_class": "T5Tokenizer"}, "Unigram for T5Tokenizer"),
        ({"do_lower_case": 1, "tokenizer_class": "BertTokenizer"}, "do_lower_case to be bool"),
        ({"sep_token": None, "tokenizer_class": "BertTokenizer"}, "a sep_token"),
        ({"pad_token": 3}, "an added token's content"),
        ({"pad_token": {"content": "a", "lstrip": 3}}, "flags true or false"),
        ({"pad_token": "\ud800"}, "an added token's content"),
        ({"extra_special_tokens": "a"}, "extra_special_tokens to be list or dict"),
        ({"extra_special_tokens": [[]]}, "an added token's content"),
        ({"added_tokens_decoder": {"a": "b"}}, "ids in added_tokens_decoder"),
        ({"added_tokens_decoder": {"9" * 5000: "b"}}, "ids in added_tokens_decoder"),
        ({"model_max_length": "a"}, "model_max_length to be int or float"),
        ({"model_max_length": 0}, "a whole number >= 1 as model_max_length"),
        ({"model_max_length": -(10**30)}, "a whole number >= 1 as model_max_length"),
        ({"padding_side": "top"}, "padding_side to be left or right"),
        ({"truncation_side": "left"}, "truncation_side to be right"),
        ({"split_special_tokens": True}, "split_special_tokens to be false"),
        ({"model_input_names": ["pixels"]}, "model_input_names of"),
        ({"model_input_names": [[]]}, "model_input_names of"),
    ],
)
def test_settings_that_are_wrong_or_have_no_counterpart_are_an_error(config, message, tmp_path):
    write(tmp_path, tokenizer_json=BERT.to_json(), tokenizer_config_json=config)
    with pytest.raises(TokenizerError, match=f"expected {message}.*got .*; "):
        tokenizer_from_pretrained(tmp_path)


@pytest.mark.parametrize("extra_ids", [-1, 10**9, "a", True])
def test_sentinels_that_nobody_has_are_an_error(extra_ids, tmp_path):
    config = {"extra_ids": extra_ids}
    write(tmp_path, spiece_model=spiece(), tokenizer_config_json=config)
    with pytest.raises(TokenizerError, match="expected extra_ids .*got .*; "):
        tokenizer_from_pretrained(tmp_path)


@pytest.mark.parametrize("tokenizer", [BERT, BPE, T5, LLAMA], ids=lambda x: type(x).__name__)
@pytest.mark.parametrize("part", ["normalizer", "pre_tokenizer", "post_processor", "decoder"])
def test_a_part_that_is_not_known_is_named(tokenizer, part, tmp_path):
    content = {**tokenizer.to_json(), part: {"type": "Sideways"}}
    write(tmp_path, tokenizer_json=content)
    with pytest.raises(TokenizerError, match=r"tokenizer.json: expected .*Sideways"):
        tokenizer_from_pretrained(tmp_path)


LAYOUTS = {
    "tokenizer.json": {"tokenizer_json": {}, "config_json": {"model_type": "bert"}},
    "gpt2": {**vocab_files(["<|endoftext|>"]), "special_tokens_map_json": {"pad_token": "<x>"}},
    "bert": {"vocab_txt": BERT.tokens, "config_json": {"model_type": "bert"}},
    "t5": {"spiece_model": spiece(), "added_tokens_json": {"<x>": 107}},
    "llama": llama_files(pad_token={"content": "<x>", "lstrip": True}),
}
CONFIG = {
    **{"model_max_length": 9, "padding_side": "left", "model_input_names": ["input_ids"]},
    **{"added_tokens_decoder": {"3": {"content": "hat", "special": False}}, "pad_token": "[PAD]"},
    **{"extra_special_tokens": ["<x>"], "clean_up_tokenization_spaces": True, "extra_ids": 3},
    **{"do_lower_case": True, "add_prefix_space": False, "mask_token": {"content": "<m>"}},
}
LAYOUTS["tokenizer.json"]["tokenizer_json"] = BERT.to_json()
LAYOUTS["bert"]["tokenizer_config_json"] = CONFIG
LAYOUTS["t5"]["tokenizer_config_json"] = {**CONFIG, "tokenizer_class": "T5Tokenizer"}


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_damaged_directory_is_refused_or_works(name, tmp_path):
    rng = random.Random(0)
    files, loaded = LAYOUTS[name], 0
    write(tmp_path, **files)
    assert loads_and_works(tokenizer_from_pretrained, tmp_path)
    for _ in range(MUTANTS):
        file = rng.choice(list(files))
        path = tmp_path / ".".join(file.rsplit("_", 1))
        whole = path.read_bytes()
        if isinstance(files[file], dict) and rng.random() < 0.6:
            content = json.loads(whole)
            mutant = json.dumps(mutate_value(content, list(places(content)), rng)).encode()
        else:
            mutant = mutate_bytes(whole, rng)
        path.write_bytes(mutant)
        loaded += loads_and_works(tokenizer_from_pretrained, tmp_path)
        path.write_bytes(whole)
    assert 0.02 * MUTANTS < loaded < 0.9 * MUTANTS, loaded
