"""Sentence encoders: the vectors are the pooled hidden states, and padding is none of them."""

import json

import numpy as np
import pytest
from pretrained.layout import edit_json

from minilm.models.bert import Bert, BertConfig, roberta_config
from minilm.pretrained import PretrainedError, SentenceEncoder, from_pretrained
from minilm.tokenizers import WordPieceTokenizer

TEXTS = ["the cat sat", "on the mat", "", "The mats, the CATS and the hats sat on the mat", "cat"]
TOKENIZER = WordPieceTokenizer.train("the cat sat on the mat; the cats sat on the mats\n" * 4, 60)


def encoder(seed=0, **how):
    rng = np.random.default_rng(seed)
    config = BertConfig(vocab_size=TOKENIZER.vocab_size, max_len=10, d_model=12, n_heads=3,
                        n_layers=2, d_ff=10, init_std=0.5)  # fmt: skip
    return SentenceEncoder(Bert(config, rng).eval(), TOKENIZER, **how)


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("pooling", ["mean", "max", "cls"])
def test_vectors_are_the_pooled_hidden_states_of_each_text_alone(pooling, normalize):
    encode = encoder(pooling=pooling, normalize=normalize)
    vectors = encode.encode(TEXTS, batch_size=2)
    assert vectors.dtype == np.float32 and vectors.shape == (len(TEXTS), 12)
    for text, vector in zip(TEXTS, vectors, strict=True):
        ids = TOKENIZER([text], truncation=True, max_length=10).input_ids
        hidden = encode.model(ids).last_hidden_state.data[0].astype(np.float64)
        expected = {"mean": hidden.sum(0) / len(hidden), "max": hidden.max(0), "cls": hidden[0]}
        expected = expected[pooling]
        if normalize:
            expected = expected / np.sqrt((expected**2).sum())
        np.testing.assert_allclose(vector, expected, atol=1e-5)


def test_the_order_and_the_size_of_batches_change_nothing():
    encode = encoder()
    vectors = encode.encode(TEXTS)
    np.testing.assert_allclose(encode.encode(TEXTS[::-1], 1)[::-1], vectors, atol=1e-6)
    np.testing.assert_allclose(encode.encode(TEXTS[1]), vectors[1], atol=1e-6)
    assert encode.encode([]).shape == (0, 12)


def test_texts_are_cut_at_max_length():
    short = encoder(max_length=4)
    assert np.array_equal(short.encode("the cat sat on"), short.encode("the cat mat"))
    assert encoder(max_length=99).max_length == 10


@pytest.mark.parametrize("how", [{}, {"pooling": "cls", "normalize": False, "max_length": 6},
                                 {"pooling": "max", "lower_case": True}])  # fmt: skip
def test_an_encoder_comes_back_from_its_directory(tmp_path, how):
    encode = encoder(**how)
    encode.save_pretrained(tmp_path)
    again = from_pretrained(tmp_path)
    for name in ("pooling", "normalize", "max_length", "lower_case"):
        assert getattr(again, name) == getattr(encode, name)
    np.testing.assert_allclose(again.encode(TEXTS), encode.encode(TEXTS), atol=1e-6)
    assert type(from_pretrained(tmp_path, head="base")) is Bert


def test_an_encoder_in_a_folder_with_the_newer_names_is_read(tmp_path):
    encode = encoder(pooling="max", normalize=False)
    encode.save_pretrained(tmp_path / "0_Transformer")
    (tmp_path / "0_Transformer" / "1_Pooling").rename(tmp_path / "1_Pooling")
    modules = [
        {"path": "0_Transformer", "type": "sentence_transformers.base.modules.Transformer"},
        {"path": "1_Pooling", "type": "sentence_transformers.sentence_transformer.modules.Pooling"},
    ]
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    pooling = {"embedding_dimension": 12, "pooling_mode": "max", "include_prompt": True}
    (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    again = from_pretrained(tmp_path)
    np.testing.assert_allclose(again.encode(TEXTS), encode.encode(TEXTS), atol=1e-6)


POOLING, MODULES = "1_Pooling/config.json", "modules.json"


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        (MODULES, {}, "a list of modules"),
        (MODULES, [3], "a list of modules"),
        (MODULES, [{"type": "a.Transformer"}], "Transformer, Pooling and perhaps Normalize"),
        (
            MODULES,
            [{"type": f"a.{kind}"} for kind in ("Transformer", "Pooling", "Dense")],
            "got Transformer, Pooling, Dense",
        ),
        (
            MODULES,
            [{"type": "a.Transformer", "path": "../x"}, {"type": "a.Pooling"}],
            r"the names of folders as paths, got \.\./x",
        ),
        (MODULES, [{"type": "Transformer", "path": "x"}, {"type": "Pooling"}], "No such file"),
        (POOLING, {"pooling_mode": "lasttoken"}, "pooling_mode to be"),
        (POOLING, {"pooling_mode": ["mean"]}, "pooling_mode to be"),
        (POOLING, {"pooling_mode_lasttoken": True}, "pooling_mode_lasttoken to be false"),
        (
            POOLING,
            {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True},
            "one way of pooling, got cls, mean",
        ),
        ("sentence_bert_config.json", {"max_seq_length": "9"}, "max_seq_length to be"),
        (
            "config_sentence_transformers.json",
            {"default_prompt_name": "query"},
            "default_prompt_name to be null",
        ),
        ("tokenizer.json", {"model": 3}, "expected"),
    ],
)
def test_what_an_encoder_cannot_do_or_be_is_named(tmp_path, file, content, message):
    encoder().save_pretrained(tmp_path)
    (tmp_path / file).write_text(json.dumps(content))
    with pytest.raises(PretrainedError, match=message):
        from_pretrained(tmp_path)


def test_the_mean_is_what_a_pooling_without_a_mode_means(tmp_path):
    encoder(pooling="max").save_pretrained(tmp_path)
    edit_json(tmp_path / POOLING, pooling_mode_max_tokens=False)
    assert from_pretrained(tmp_path).pooling == "mean"


def test_an_unknown_pooling_is_an_error():
    with pytest.raises(ValueError, match="expected pooling cls, max, mean, got 'first'"):
        encoder(pooling="first")


def test_a_roberta_can_be_the_encoder(tmp_path):
    config = roberta_config(vocab_size=TOKENIZER.vocab_size, max_len=10, d_model=12, n_heads=3,
                            n_layers=1, d_ff=10, pooler=None)  # fmt: skip
    encode = SentenceEncoder(Bert(config, np.random.default_rng(0)).eval(), TOKENIZER)
    encode.save_pretrained(tmp_path)
    np.testing.assert_allclose(
        from_pretrained(tmp_path).encode(TEXTS), encode.encode(TEXTS), atol=1e-6
    )
