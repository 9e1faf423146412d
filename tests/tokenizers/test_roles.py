"""Roles: found by name, set by hand, saved."""

import json

import pytest

from minilm.tokenizers import BPETokenizer, CharTokenizer, UnigramTokenizer, WordPieceTokenizer

TEXT = "the cat sat on the mat"


def test_roles_are_those_of_the_special_tokens_that_are_named_for_them():
    bert = WordPieceTokenizer.train(TEXT, 60)
    assert (bert.cls_token, bert.cls_token_id) == ("[CLS]", 2)
    assert (bert.mask_token, bert.mask_token_id) == ("[MASK]", 4)
    assert (bert.bos_token, bert.bos_token_id) == (None, None)
    t5 = UnigramTokenizer.train(TEXT, 40)
    assert t5.roles == {"eos": "</s>", "unk": "<unk>", "pad": "<pad>"}
    assert (t5.pad_token_id, t5.eos_token_id, t5.unk_token_id) == (0, 1, 2)
    both = CharTokenizer.train(TEXT, ["<|pad|>", "<pad>"])
    assert both.pad_token == "<pad>"


def test_an_ordinary_token_has_no_role():
    assert BPETokenizer.train(TEXT, 260).roles == {}
    assert "bos" not in CharTokenizer.train("<s>").roles


def test_the_unknown_token_of_wordpiece_has_its_role_under_any_name():
    tokenizer = WordPieceTokenizer(["unk", "a"], [], unk_token="unk")
    assert (tokenizer.unk_token, tokenizer.unk_token_id) == ("unk", 0)


def test_the_end_of_a_text_pads_where_nothing_else_does():
    gpt2 = BPETokenizer.train(TEXT, 260, special_tokens=["<|endoftext|>"])
    assert (gpt2.pad_token, gpt2.pad_token_id) == ("<|endoftext|>", gpt2.eos_token_id)
    assert "pad" not in gpt2.roles


def test_a_role_may_be_given_to_another_token():
    tokenizer = CharTokenizer.train(TEXT, ["<pad>", "<end>"])
    tokenizer.roles["eos"] = "<end>"
    assert tokenizer.eos_token_id == tokenizer.special_tokens["<end>"]
    with pytest.raises(AttributeError):
        tokenizer.eos_token = "<pad>"


def test_only_special_tokens_have_roles_in_the_file(tmp_path):
    WordPieceTokenizer(["unk", "a", "[PAD]"], ["[PAD]"], unk_token="unk").save_pretrained(tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert {name for name in config if name.endswith("_token")} == {"pad_token"}
