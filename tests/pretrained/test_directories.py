"""A model comes back from its directory as it was; what does not fit is named, or new."""

import dataclasses
import json
import logging
import re
import tracemalloc

import numpy as np
import pytest
from pretrained.layout import (
    MODELS,
    SIZES,
    V,
    array,
    build,
    edit_json,
    halves,
    outputs,
    read_tensors,
    same_outputs,
    write_file,
)

import minilm
from minilm import checkpoint
from minilm.models.bert import Bert, BertConfig
from minilm.models.bert_heads import BertForMaskedLM, BertForSequenceClassification
from minilm.models.gpt import GPT, GPTConfig
from minilm.models.llama import Llama
from minilm.models.ngram import NGram
from minilm.models.t5 import T5, T5Config
from minilm.models.transformer import Transformer, TransformerConfig
from minilm.optim import AdamW
from minilm.pretrained import PretrainedError, from_pretrained, save_pretrained, weights
from minilm.pretrained.architecture import LaterDraws
from minilm.training import train_step

each_model = pytest.mark.parametrize("name", MODELS)
SINGLE, CONFIG = "model.safetensors", "config.json"


def saved(directory, name, seed=0):
    model = build(name, seed)
    model.save_pretrained(directory)
    return model


def change_tensors(directory, change):
    """Rewrite the weights: `change` gets name -> (dtype, shape, bytes) and may alter it."""
    tensors = read_tensors(directory / SINGLE)
    change(tensors)
    write_file(directory / SINGLE, tensors)


# --- Round trips ------------------------------------------------------------------------------


@each_model
def test_a_model_comes_back_to_the_last_bit(tmp_path, caplog, name):
    model = saved(tmp_path, name)
    again = from_pretrained(tmp_path)
    assert type(again) is type(model) and not again.training
    assert again.rng is None or again.rng is getattr(again, "bert", again).rng
    left, right = model.state_dict(), again.state_dict()
    assert list(left) == list(right)
    assert all(np.array_equal(left[key], right[key]) for key in left)
    assert same_outputs(model, again)
    meant = model.config
    if isinstance(model, Llama):
        meant = dataclasses.replace(meant, d_ff=meant.hidden_width)
    assert again.config == meant
    assert not caplog.records


@each_model
def test_a_second_round_writes_the_same_bytes(tmp_path, name):
    saved(tmp_path / "one", name)
    from_pretrained(tmp_path / "one").save_pretrained(tmp_path / "two")
    for file in (SINGLE, CONFIG):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


@each_model
def test_every_number_of_the_file_is_a_parameter_and_every_parameter_is_in_it(tmp_path, name):
    model = saved(tmp_path, name)
    stored = [array(*entry).size for entry in read_tensors(tmp_path / SINGLE).values()]
    assert sum(stored) == model.count_parameters()


def test_a_model_can_be_written_over_the_directory_it_was_read_from(tmp_path):
    saved(tmp_path, "gpt")
    model = from_pretrained(tmp_path)
    before = outputs(model)["logits"]
    model.final_norm.bias[...] = 1.0
    changed = outputs(model)["logits"]
    model.save_pretrained(tmp_path)
    assert np.array_equal(outputs(model)["logits"], changed)
    assert np.array_equal(outputs(from_pretrained(tmp_path))["logits"], changed)
    assert not np.array_equal(before, changed)


def test_a_model_that_was_read_can_be_trained_and_its_file_stays_as_it_is(tmp_path):
    saved(tmp_path, "gpt")
    before = (tmp_path / SINGLE).read_bytes()
    model = from_pretrained(tmp_path, rng=np.random.default_rng(0)).train()
    ids = np.random.default_rng(1).integers(0, V, (4, 8))
    optimizer = AdamW(model.parameters(), lr=0.01)
    losses = [train_step(model, optimizer, {"input_ids": ids, "labels": ids}) for _ in range(8)]
    assert losses[-1] < losses[0]
    assert (tmp_path / SINGLE).read_bytes() == before


@pytest.mark.parametrize("name", ["gpt", "bert, classes", "t5"])
def test_dropout_draws_from_the_rng_that_was_given_or_asks_for_one(tmp_path, name):
    saved(tmp_path, name)
    rng = np.random.default_rng(0)
    given = from_pretrained(tmp_path, rng=rng)
    assert all(module.rng is rng for _, module in given.named_modules() if hasattr(module, "rng"))
    outputs(given.train())
    with pytest.raises(ValueError, match="expected an rng in training mode"):
        outputs(from_pretrained(tmp_path).train())


@pytest.mark.parametrize("family", ["gpt", "llama", "bert_masked", "bert_sequences", "t5"])
def test_what_a_training_script_left_behind_can_be_saved(tmp_path, family):
    model_class, config_class = {
        "gpt": (GPT, GPTConfig),
        "llama": (Llama, minilm.LlamaConfig),
        "bert_masked": (BertForMaskedLM, BertConfig),
        "bert_sequences": (BertForSequenceClassification, BertConfig),
        "t5": (T5, T5Config),
    }[family]
    model = model_class(config_class(**SIZES), np.random.default_rng(0))
    run, directory = tmp_path / "run", tmp_path / "saved"
    config = {"model": family, "model_config": dataclasses.asdict(model.config)}
    if family == "bert_sequences":
        config["labels"] = ["no", "yes"]
    checkpoint.write_config(run, config)
    checkpoint.save(run / checkpoint.BEST, model.state_dict(), {})
    checkpoint.load_model(run).save_pretrained(directory)
    again = from_pretrained(directory)
    assert same_outputs(model.eval(), again)
    assert list(again.id2label.values()) == config.get("labels", [])
    with pytest.raises(PretrainedError, match=r"got a run's configuration; .*minilm\.load_model"):
        from_pretrained(run)
    with pytest.raises(PretrainedError, match="a directory of its own, got that of a run"):
        model.save_pretrained(run)
    assert checkpoint.load_model(run)


def test_gpt2s_matrices_are_stored_transposed_and_those_of_attention_as_one(tmp_path):
    model = saved(tmp_path, "gpt")
    tensors = {key: array(*entry) for key, entry in read_tensors(tmp_path / SINGLE).items()}
    attention = model.blocks[1].attention
    joined = [getattr(attention, part).weight.data.T for part in "qkv"]
    assert np.array_equal(tensors["transformer.h.1.attn.c_attn.weight"], np.hstack(joined))
    joined = [getattr(attention, part).bias.data for part in "qkv"]
    assert np.array_equal(tensors["transformer.h.1.attn.c_attn.bias"], np.hstack(joined))
    up = model.blocks[0].feed_forward.up.weight.data
    assert np.array_equal(tensors["transformer.h.0.mlp.c_fc.weight"], up.T)


def test_what_stands_beside_the_weights_is_kept(tmp_path):
    model = build("bert, tokens")
    model.id2label = {i: f"B-{i}" for i in range(5)}
    model.generation_config = {"max_length": 20}
    model.save_pretrained(tmp_path / "one")
    edit_json(tmp_path / "one" / CONFIG, task="ner", transformers_version="5.0.0")
    again = from_pretrained(tmp_path / "one")
    assert again.id2label == model.id2label and again.hf_config["task"] == "ner"
    assert again.generation_config == {"max_length": 20}
    again.save_pretrained(tmp_path / "two")
    config = json.loads((tmp_path / "two" / CONFIG).read_text())
    assert config["task"] == "ner" and "transformers_version" not in config
    assert config["label2id"] == {f"B-{i}": i for i in range(5)}
    assert config["architectures"] == ["BertForTokenClassification"]
    assert from_pretrained(tmp_path / "two").generation_config == {"max_length": 20}


def test_models_without_a_counterpart_are_named(tmp_path):
    rng = np.random.default_rng(0)
    small = {"vocab_size": V, "max_len": 8, "d_model": 8, "n_heads": 2, "n_layers": 1}
    roberta = BertConfig(**SIZES, first_position=2)
    for model, message in (
        (Transformer(TransformerConfig(**small), rng), "got Transformer"),
        (minilm.models.MODELS["bert"][1](roberta, rng), r"got BertForPreTraining \(roberta\)"),
        (Bert(BertConfig(**SIZES, n_token_types=0), rng), "expected BERT .* or DistilBERT"),
        (Bert(BertConfig(**SIZES, pooler="relu"), rng), "expected BERT .* or DistilBERT"),
        (NGram.train(np.arange(V), 2, V), "got NGram"),
    ):
        with pytest.raises(PretrainedError, match=message):
            save_pretrained(model, tmp_path)
    assert not list(tmp_path.iterdir())


# --- Without drawing --------------------------------------------------------------------------


def test_a_model_to_be_filled_takes_no_memory_for_what_would_be_drawn():
    config = GPTConfig(vocab_size=10**7, d_model=1024, n_heads=16, n_layers=2)
    model = GPT(config, LaterDraws())
    big = [tensor.data for tensor in model.parameters() if tensor.ndim == 2]
    assert len(big) == 14 and all(data.strides == (0, 0) for data in big)
    assert not any(data.flags.writeable for data in big)


@each_model
def test_no_parameter_is_left_as_it_was_before_it_was_filled(tmp_path, name):
    saved(tmp_path, name)
    for key, tensor in from_pretrained(tmp_path).named_parameters():
        assert tensor.data.flags.writeable and 0 not in tensor.data.strides, key


@pytest.mark.parametrize(("stored", "limit"), [("F32", 0.2), ("F16", 1.3), ("BF16", 1.3)])
def test_opening_takes_little_more_memory_than_the_parameters(tmp_path, monkeypatch, stored, limit):
    monkeypatch.setattr(weights, "BLOCK", 2**14)
    config = GPTConfig(vocab_size=4000, max_len=64, d_model=128, n_heads=4, n_layers=4)
    GPT(config, np.random.default_rng(0)).save_pretrained(tmp_path)
    if stored != "F32":
        halves(tmp_path, stored)
    from_pretrained(tmp_path)  # whatever is imported on the way is not counted
    tracemalloc.start()
    model = from_pretrained(tmp_path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < limit * 4 * model.count_parameters()


# --- Heads ------------------------------------------------------------------------------------


def warned(caplog):
    return [record.getMessage().split(": ", 1)[1] for record in caplog.records]


@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert"])
def test_a_new_head_is_drawn_from_the_rng_and_named(tmp_path, caplog, kind):
    base = saved(tmp_path, f"{kind}, no pooler")
    with pytest.raises(PretrainedError, match=r"none for .*'classifier.weight'.*pass rng="):
        from_pretrained(tmp_path, head="sequence_classification", num_labels=3)
    models = [
        from_pretrained(
            tmp_path, head="sequence_classification", num_labels=3, rng=np.random.default_rng(seed)
        )
        for seed in (0, 0, 1)
    ]
    assert type(models[0]) is BertForSequenceClassification
    names = ["bert.pooler.weight", "bert.pooler.bias", "classifier.weight", "classifier.bias"]
    assert warned(caplog) == [f"new, to be trained: {', '.join(names)}"] * 3
    states = [model.state_dict() for model in models]
    assert all(np.array_equal(states[0][key], states[1][key]) for key in states[0])
    for key, value in base.state_dict().items():
        assert np.array_equal(states[0][f"bert.{key}"], value)
    assert not np.array_equal(states[0][names[0]], states[2][names[0]])
    assert 0.01 < states[0][names[0]].std() < 0.03 and not states[0][names[1]].any()
    assert outputs(models[0])["logits"].shape == (2, 3)


def test_a_head_that_nobody_asked_for_is_left_out_and_named(tmp_path, caplog):
    model = saved(tmp_path, "bert, pre-training")
    encoder = from_pretrained(tmp_path, head="base")
    assert type(encoder) is Bert
    ids = np.arange(6)[None]
    assert np.array_equal(
        encoder(ids).last_hidden_state.data, model.bert(ids).last_hidden_state.data
    )
    (message,) = warned(caplog)
    assert message.startswith("not used: 'cls.predictions.bias'") and "seq_relationship" in message


def test_a_classifier_of_another_size_is_a_new_one(tmp_path, caplog):
    saved(tmp_path, "bert, classes")
    names = {0: "no", 1: "yes"}
    with pytest.raises(PretrainedError, match="pass rng="):
        from_pretrained(tmp_path, id2label=names)
    model = from_pretrained(tmp_path, id2label=names, rng=np.random.default_rng(0))
    assert model.config.n_labels == 2 and model.id2label == names
    assert warned(caplog)[0] == "new, to be trained: classifier.weight, classifier.bias"
    assert warned(caplog)[1] == "not used: 'classifier.bias', 'classifier.weight'"


def test_labels_of_the_same_number_are_other_names_for_the_same_classifier(tmp_path, caplog):
    model = saved(tmp_path, "bert, classes")
    assert from_pretrained(tmp_path).id2label == {i: f"LABEL_{i}" for i in range(4)}
    again = from_pretrained(tmp_path, id2label={i: "abcd"[i] for i in range(4)})
    assert again.id2label[3] == "d" and same_outputs(model, again) and not caplog.records


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"head": "causal_lm"}, "a head of base, masked_lm.*got causal_lm"),
        ({"num_labels": 0}, "a name for each of 0 labels"),
        ({"num_labels": 2, "id2label": {0: "a"}}, "a name for each of 2 labels"),
        ({"id2label": {1: "a", 2: "b"}}, "a name for each of 2 labels"),
        ({"id2label": {0: "a", 1: 3}}, "a name for each of 2 labels"),
        ({"head": "masked_lm", "num_labels": 2}, "no labels for masked_lm"),
        ({"max_len": 5}, "no max_len, got 5"),
    ],
)
def test_what_cannot_be_asked_for_is_named(tmp_path, asked, message):
    saved(tmp_path, "bert, classes")
    with pytest.raises(PretrainedError, match=message):
        from_pretrained(tmp_path, rng=np.random.default_rng(0), **asked)


@pytest.mark.parametrize("name", ["llama", "t5"])
def test_a_model_without_a_vector_for_each_position_may_have_another_window(tmp_path, name):
    model = saved(tmp_path, name)
    longer = from_pretrained(tmp_path, max_len=40)
    assert longer.config.max_len == 40 and same_outputs(model, longer)
    assert outputs(longer, 30)["logits"].shape[1] == 30
    with pytest.raises(ValueError, match="max_len = 5"):
        outputs(from_pretrained(tmp_path, max_len=5), 6)


# --- Tied and untied --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "embedding", "output"),
    [
        ("gpt", "transformer.wte.weight", "lm_head.weight"),
        ("llama, tied", "model.embed_tokens.weight", "lm_head.weight"),
        ("t5", "shared.weight", "lm_head.weight"),
        ("t5", "shared.weight", "encoder.embed_tokens.weight"),
        ("bert, masked", "bert.embeddings.word_embeddings.weight",
         "cls.predictions.decoder.weight"),
        ("distilbert, masked", "distilbert.embeddings.word_embeddings.weight",
         "vocab_projector.weight"),
    ],
)  # fmt: skip
def test_a_tied_matrix_may_be_stored_under_either_name_or_both(
    tmp_path, caplog, name, embedding, output
):
    model = saved(tmp_path, name)
    change_tensors(tmp_path, lambda tensors: tensors.update({output: tensors[embedding]}))
    both = from_pretrained(tmp_path)
    change_tensors(tmp_path, lambda tensors: tensors.pop(embedding))
    other = from_pretrained(tmp_path)
    assert same_outputs(model, both) and same_outputs(model, other) and not caplog.records
    assert both.config == other.config == model.config or name == "llama, tied"


@pytest.mark.parametrize("name", ["gpt", "llama, tied", "t5"])
def test_what_is_called_tied_but_differs_is_two_and_that_is_said(tmp_path, caplog, name):
    model = saved(tmp_path, name)
    embedding = {"gpt": "transformer.wte.weight", "t5": "shared.weight"}
    embedding = embedding.get(name, "model.embed_tokens.weight")

    def add(tensors):
        dtype, shape, raw = tensors[embedding]
        tensors["lm_head.weight"] = dtype, shape, (2 * np.frombuffer(raw, "<f4")).tobytes()

    change_tensors(tmp_path, add)
    two = from_pretrained(tmp_path)
    assert not two.config.tie_embeddings
    assert np.allclose(outputs(two)["logits"], 2 * outputs(model)["logits"], atol=1e-5)
    assert "said to be tied, but different" in warned(caplog)[0]
    two.save_pretrained(tmp_path)
    assert same_outputs(two, from_pretrained(tmp_path))


def test_what_earlier_versions_stored_beside_the_weights_is_passed_over(tmp_path, caplog):
    model = saved(tmp_path, "gpt")
    mask = ("BOOL", (1, 1, 2, 2), bytes(4))
    change_tensors(tmp_path, lambda tensors: tensors.update({"transformer.h.0.attn.bias": mask}))
    assert same_outputs(model, from_pretrained(tmp_path)) and not caplog.records


@pytest.mark.parametrize("name", ["gpt", "llama, tied", "bert, base", "roberta, base"])
def test_a_body_is_read_with_or_without_its_prefix(tmp_path, caplog, name):
    model = saved(tmp_path, name)
    prefix = {"gpt": "transformer.", "llama, tied": "model."}.get(name, f"{name.split(',')[0]}.")

    def turn(tensors):
        for key in list(tensors):
            if key.startswith(prefix):
                tensors[key.removeprefix(prefix)] = tensors.pop(key)
            else:
                tensors[prefix + key] = tensors.pop(key)

    change_tensors(tmp_path, turn)
    assert same_outputs(model, from_pretrained(tmp_path)) and not caplog.records


# --- What does not fit ------------------------------------------------------------------------

UNSUPPORTED = [
    ("gpt", {"activation_function": "relu"}, "activation_function to be"),
    ("gpt", {"scale_attn_weights": False}, "scale_attn_weights to be true"),
    ("gpt", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx to be"),
    ("gpt", {"add_cross_attention": True}, "add_cross_attention to be false"),
    ("gpt", {"quantization_config": {"bits": 4}}, "no quantization_config"),
    ("llama", {"hidden_act": "gelu"}, 'hidden_act to be "silu", got gelu'),
    ("llama", {"attention_bias": True}, "attention_bias to be false"),
    ("llama", {"mlp_bias": True}, "mlp_bias to be false"),
    ("llama", {"rope_scaling": {"type": "linear", "factor": 2.0}}, 'rope_scaling: .*type to be "d'),
    (
        "llama",
        {"rope_parameters": {"rope_type": "llama3", "rope_theta": 1.0}},
        'rope_parameters: expected rope_type to be "default", got llama3',
    ),
    (
        "llama",
        {"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}},
        "partial_rotary_factor to be",
    ),
    ("llama", {"partial_rotary_factor": 0.5}, "partial_rotary_factor to be"),
    ("llama, as it trains fastest", {"use_sliding_window": True}, "use_sliding_window to be false"),
    (
        "llama, as it trains fastest",
        {"layer_types": ["full_attention", "sliding_attention"]},
        'layer_types to be "full_attention", got sliding_attention',
    ),
    ("t5", {"feed_forward_proj": "gated-silu"}, "feed_forward_proj to be"),
    ("t5", {"is_encoder_decoder": False}, "is_encoder_decoder to be true"),
    ("t5", {"tie_encoder_decoder": True}, "tie_encoder_decoder to be false"),
    ("bert, base", {"hidden_act": "relu"}, 'hidden_act to be "gelu"'),
    ("bert, base", {"position_embedding_type": "relative_key"}, "position_embedding_type to be"),
    ("bert, base", {"is_decoder": True}, "is_decoder to be false"),
    ("bert, base", {"add_cross_attention": True}, "add_cross_attention to be false"),
    ("bert, base", {"pruned_heads": {"0": [1]}}, "pruned_heads to be {}"),
    ("bert, classes", {"problem_type": "multi_label_classification"}, "problem_type to be"),
    ("bert, classes", {"problem_type": "regression"}, "problem_type to be"),
    ("roberta, base", {"hidden_act": "gelu_new"}, 'hidden_act to be "gelu"'),
    ("distilbert, base", {"activation": "relu"}, 'activation to be "gelu"'),
]


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    UNSUPPORTED,
    ids=[f"{n} {list(c)[0]}" for n, c, _ in UNSUPPORTED],
)
def test_a_field_that_changes_the_mathematics_is_named(tmp_path, name, changes, message):
    saved(tmp_path, name)
    edit_json(tmp_path / CONFIG, **changes)
    with pytest.raises(PretrainedError, match=message) as caught:
        from_pretrained(tmp_path)
    assert CONFIG in str(caught.value)


WRONG = [
    ("gpt", {"model_type": "mamba"}, "model_type to be one of gpt2, llama.*got mamba"),
    ("gpt", {"model_type": ...}, "model_type to be one of gpt2, llama.*got none"),
    ("gpt", {"model_type": 3}, "model_type to be a string, got 3"),
    ("gpt", {"architectures": ["GPT2ForSequenceClassification"]}, "architectures to name one of"),
    ("gpt", {"architectures": ...}, "architectures to name one of .*head="),
    ("gpt", {"architectures": "GPT2LMHeadModel"}, "architectures to be a list of strings"),
    ("gpt", {"n_head": 5}, "expected n_heads to divide d_model, got d_model 12 and n_heads 5"),
    ("gpt", {"n_embd": 15}, r"transformer.wte.*of shape \(23, 15\), got shape \(23, 12\)"),
    ("gpt", {"vocab_size": 24}, r"of shape \(24, 12\), got shape \(23, 12\)"),
    ("gpt", {"vocab_size": 10**9}, r"of shape \(1000000000, 12\)"),
    (
        "gpt",
        {"n_positions": 13},
        r"'transformer.wpe.weight|wpe.weight of shape \(12, 12\) for \(13",
    ),
    ("gpt", {"n_inner": 47}, r"c_fc.weight of shape \(12, 47\), got shape \(12, 48\)"),
    ("gpt", {"n_layer": 3}, "for each of 3 layers, got 2 of them"),
    ("gpt", {"n_layer": 10**9}, "for each of 1000000000 layers, got 2 of them"),
    ("gpt", {"n_layer": 2.0}, "n_layer to be a whole number"),
    ("gpt", {"n_layer": True}, "n_layer to be a whole number"),
    ("gpt", {"n_layer": -1}, "n_layer to be a whole number"),
    ("gpt", {"n_layer": 2**40}, "n_layer to be a whole number"),
    ("gpt", {"resid_pdrop": 1.5}, "expected 0 <= dropout < 1, got 1.5"),
    ("gpt", {"resid_pdrop": "0.1"}, "resid_pdrop to be a number >= 0"),
    ("gpt", {"layer_norm_epsilon": float("nan")}, "layer_norm_epsilon to be a number"),
    ("gpt", {"layer_norm_epsilon": float("inf")}, "layer_norm_epsilon to be a number"),
    ("gpt", {"layer_norm_epsilon": -1}, "layer_norm_epsilon to be a number"),
    ("gpt", {"layer_norm_epsilon": 10**400}, "layer_norm_epsilon to be a number"),
    ("gpt", {"tie_word_embeddings": 1}, "tie_word_embeddings to be true or false"),
    ("llama", {"num_attention_heads": 5, "head_dim": None}, r"q_proj.weight of shape \(10, 12\)"),
    ("llama", {"num_key_value_heads": 4}, "n_kv_heads to divide n_heads"),
    ("llama", {"num_key_value_heads": 3}, "the shapes of config.json, got .*k_proj.weight"),
    ("llama", {"head_dim": 3}, r"q_proj.weight of shape \(18, 12\), got shape \(12, 12\)"),
    ("llama, tied", {"num_attention_heads": 6, "head_dim": 3}, "expected an even head width"),
    ("llama", {"rope_theta": 0, "rope_parameters": None}, "rope_theta to be a number"),
    ("llama", {"rope_parameters": [1]}, "rope_parameters to be an object"),
    ("t5", {"d_kv": 5}, r"SelfAttention.q.weight of shape \(15, 12\)"),
    ("t5", {"num_decoder_layers": 2}, "decoder.block.*for each of 2 layers, got 1 of them"),
    ("t5", {"relative_attention_num_buckets": 33}, "the shapes of config.json"),
    ("t5", {"relative_attention_max_distance": 10**9}, "relative_attention_max_distance to be"),
    ("t5", {"relative_attention_max_distance": 3}, "max_distance above the"),
    ("t5", {"eos_token_id": 23}, "expected eos_token_id below vocab_size"),
    ("bert, base", {"num_attention_heads": 5}, "expected n_heads to divide d_model"),
    ("bert, base", {"type_vocab_size": 3}, "the shapes of config.json"),
    ("bert, base", {"intermediate_size": 10**9}, r"of shape \(1000000000, 12\)"),
    ("bert, base", {"max_position_embeddings": 13}, "the shapes of config.json"),
    ("bert, classes", {"id2label": {"0": "a"}}, "the shapes of config.json, got classifier.weight"),
    ("bert, classes", {"id2label": {"0": "a", "2": "b"}}, "a name for each of 2 labels"),
    ("bert, classes", {"id2label": {"9" * 5000: "a"}}, "a name for each of 1 labels"),
    ("bert, classes", {"id2label": ["a"]}, "id2label to be an object"),
    ("bert, classes", {"id2label": ..., "num_labels": 10**9}, "num_labels to be a whole number"),
    ("roberta, base", {"pad_token_id": 40}, "max_position_embeddings to be a whole number from 42"),
]


@pytest.mark.parametrize(
    ("name", "changes", "message"), WRONG, ids=[f"{n} {c}"[:60] for n, c, _ in WRONG]
)
def test_a_configuration_that_cannot_be_or_is_not_the_weights_own_is_named(
    tmp_path, name, changes, message
):
    saved(tmp_path, name)
    edit_json(tmp_path / CONFIG, **changes)
    with pytest.raises(PretrainedError, match=message):
        from_pretrained(tmp_path)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "3", "[" * 10**5, '{"a": ' + "9" * 5000 + "}"]
)
def test_a_configuration_that_is_no_object_is_named(tmp_path, text):
    saved(tmp_path, "gpt")
    (tmp_path / CONFIG).write_text(text)
    with pytest.raises(PretrainedError, match="expected"):
        from_pretrained(tmp_path)


def test_missing_files_are_named(tmp_path):
    with pytest.raises(PretrainedError, match=r"config\.json: expected .*got No such file"):
        from_pretrained(tmp_path / "nowhere")
    saved(tmp_path, "gpt")
    (tmp_path / SINGLE).unlink()
    with pytest.raises(PretrainedError, match="expected model.safetensors or .*got neither"):
        from_pretrained(tmp_path)


@pytest.mark.parametrize("name", ["gpt", "llama", "t5", "bert, classes", "distilbert, masked"])
def test_each_missing_tensor_of_the_body_is_named(tmp_path, name):
    saved(tmp_path, name)
    whole = read_tensors(tmp_path / SINGLE)
    heads = ("lm_head", "classifier", "vocab_", "pre_classifier", "bert.pooler", "cls.")
    for missing in whole:
        write_file(tmp_path / SINGLE, {key: whole[key] for key in whole if key != missing})
        with pytest.raises(PretrainedError, match="expected .*got") as caught:
            from_pretrained(tmp_path)
        told = str(caught.value)
        known = missing in told or re.search(r"layers, got \d of them", told)
        assert known or missing.startswith(heads), (missing, told)


@pytest.mark.parametrize("name", ["gpt", "llama", "t5", "bert, classes"])
def test_each_tensor_of_another_shape_is_named(tmp_path, name):
    saved(tmp_path, name)
    whole = read_tensors(tmp_path / SINGLE)
    for wrong, (dtype, shape, _) in whole.items():
        longer = [*shape[:-1], shape[-1] + 1]
        other = (dtype, longer, bytes(4 * int(np.prod(longer))))
        write_file(tmp_path / SINGLE, {**whole, wrong: other})
        with pytest.raises(PretrainedError, match="expected .*got") as caught:
            from_pretrained(tmp_path)
        assert wrong in str(caught.value) and str(longer[-1]) in str(caught.value)


def test_more_layers_than_the_configuration_has_are_left_out_and_named(tmp_path, caplog):
    saved(tmp_path, "gpt")
    edit_json(tmp_path / CONFIG, n_layer=1)
    assert len(from_pretrained(tmp_path).blocks) == 1
    assert "not used: 'transformer.h.1.attn.c_attn.bias'" in warned(caplog)[0]


def test_shares_of_dropout_that_differ_are_said(tmp_path, caplog):
    saved(tmp_path, "gpt")
    edit_json(tmp_path / CONFIG, attn_pdrop=0.5)
    assert from_pretrained(tmp_path).config.dropout == 0.2
    assert "attn_pdrop is 0.5: in training minilm drops resid_pdrop = 0.2" in warned(caplog)[0]


def test_warnings_are_logged_under_the_rooms_name(tmp_path, caplog):
    saved(tmp_path, "bert, masked")
    with caplog.at_level(logging.WARNING):
        from_pretrained(tmp_path, head="base")
    assert {record.name for record in caplog.records} == {"minilm.pretrained"}
