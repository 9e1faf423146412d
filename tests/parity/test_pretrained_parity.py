"""Directories that transformers wrote are opened here with the same outputs, and ours there."""

import json
from dataclasses import asdict

import numpy as np
import pytest

from minilm import checkpoint
from minilm.models.llama import Llama, LlamaConfig
from minilm.optim import AdamW
from minilm.pretrained import PretrainedError, from_pretrained
from minilm.pretrained.directory import LAYOUTS
from minilm.pretrained.files import Fields
from minilm.pretrained.weights import SINGLE, Stored, Weights, write
from minilm.tensor import Tensor, no_grad
from minilm.training import train_step

torch = pytest.importorskip("torch", reason="needs the extra: pip install minilm[parity]")
transformers = pytest.importorskip(
    "transformers", reason="needs the extra: pip install minilm[parity]"
)

V, B, T, SOURCE = 37, 3, 9, 7
TOLERANCE = 1e-4  # as the issue of logits in float32, relative to the largest of them
BERT = {"vocab_size": V, "hidden_size": 15, "num_attention_heads": 3, "num_hidden_layers": 2,
        "intermediate_size": 11, "max_position_embeddings": 13}  # fmt: skip
ROBERTA = {**BERT, "max_position_embeddings": 15, "type_vocab_size": 1, "layer_norm_eps": 1e-5}
DISTIL = {"vocab_size": V, "dim": 15, "n_heads": 3, "n_layers": 2, "hidden_dim": 11,
          "max_position_embeddings": 13}  # fmt: skip
GPT2 = {"vocab_size": V, "n_embd": 15, "n_head": 3, "n_layer": 2, "n_positions": 13,
        "bos_token_id": 0, "eos_token_id": 0}  # fmt: skip
LLAMA = {"vocab_size": V, "hidden_size": 24, "num_attention_heads": 6, "num_hidden_layers": 2,
         "intermediate_size": 11, "max_position_embeddings": 13, "rms_norm_eps": 1e-3}  # fmt: skip
T5 = {"vocab_size": V, "d_model": 15, "num_heads": 3, "num_layers": 2, "d_kv": 5, "d_ff": 11,
      "relative_attention_num_buckets": 8, "relative_attention_max_distance": 6,
      "decoder_start_token_id": 0}  # fmt: skip
GATED = {**T5, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
THETA = {"rope_type": "default", "rope_theta": 77.0}

CASES = {
    "gpt2": ("GPT2LMHeadModel", GPT2),
    "gpt2, own sizes": ("GPT2LMHeadModel", {**GPT2, "n_inner": 7, "layer_norm_epsilon": 0.01}),
    "gpt2, untied": ("GPT2LMHeadModel", {**GPT2, "tie_word_embeddings": False}),
    "llama": ("LlamaForCausalLM", LLAMA),
    "llama, grouped": ("LlamaForCausalLM", {**LLAMA, "num_key_value_heads": 2}),
    "llama, tied": ("LlamaForCausalLM", {**LLAMA, "tie_word_embeddings": True}),
    "llama, own base": ("LlamaForCausalLM", {**LLAMA, "rope_parameters": THETA}),
    "llama, wide heads": ("LlamaForCausalLM", {**LLAMA, "head_dim": 6, "num_key_value_heads": 3}),
    "qwen3": ("Qwen3ForCausalLM", {**LLAMA, "head_dim": 10, "num_key_value_heads": 2}),
    "t5": ("T5ForConditionalGeneration", T5),
    "t5, fewer decoder layers": ("T5ForConditionalGeneration", {**T5, "num_decoder_layers": 1}),
    "t5 1.1": ("T5ForConditionalGeneration", {**GATED, "d_kv": 7}),
    **{
        f"bert, {head}": (f"Bert{head}", {**BERT, "num_labels": 4})
        for head in (
            *("Model", "ForMaskedLM", "ForPreTraining", "ForNextSentencePrediction"),
            *("ForSequenceClassification", "ForTokenClassification", "ForMultipleChoice"),
        )
    },
    "bert, ForQuestionAnswering": ("BertForQuestionAnswering", BERT),
    "bert, regression": ("BertForSequenceClassification", {**BERT, "num_labels": 1}),
    "bert, untied": ("BertForMaskedLM", {**BERT, "tie_word_embeddings": False}),
    "roberta, untied": ("RobertaForMaskedLM", {**ROBERTA, "tie_word_embeddings": False}),
    "roberta, another padding": ("RobertaForMaskedLM", {**ROBERTA, "pad_token_id": 3}),
    "roberta, ForQuestionAnswering": ("RobertaForQuestionAnswering", ROBERTA),
    **{
        f"roberta, {head}": (f"Roberta{head}", {**ROBERTA, "num_labels": 4})
        for head in (
            *("Model", "ForMaskedLM", "ForSequenceClassification", "ForTokenClassification"),
            "ForMultipleChoice",
        )
    },
    "distilbert, ForQuestionAnswering": ("DistilBertForQuestionAnswering", DISTIL),
    "distilbert, untied": ("DistilBertForMaskedLM", {**DISTIL, "tie_word_embeddings": False}),
    "distilbert, sinusoids": ("DistilBertModel", {**DISTIL, "dim": 12, "n_heads": 2,
                                                  "sinusoidal_pos_embds": True}),  # fmt: skip
    **{
        f"distilbert, {head}": (f"DistilBert{head}", {**DISTIL, "num_labels": 4})
        for head in (
            *("Model", "ForMaskedLM", "ForSequenceClassification", "ForTokenClassification"),
            "ForMultipleChoice",
        )
    },
}  # fmt: skip
every_case = pytest.mark.parametrize(("name", "sizes"), CASES.values(), ids=CASES)
HEADS = {
    "base": "Model",
    "sequence_classification": "ForSequenceClassification",
    "token_classification": "ForTokenClassification",
    "question_answering": "ForQuestionAnswering",
    "multiple_choice": "ForMultipleChoice",
}
UNTIED_BIASES = {"cls.predictions.bias", "lm_head.bias"}
OUTPUTS = ("logits", "prediction_logits", "seq_relationship_logits", "start_logits", "end_logits",
           "last_hidden_state", "pooler_output")  # fmt: skip


pytestmark = pytest.mark.usefixtures("quietly")


def make(name, sizes, seed=0):
    """Their model, every parameter away from where it begins."""
    model_class = getattr(transformers, name)
    torch.manual_seed(seed)
    model = model_class(model_class.config_class(**sizes)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    return model


def inputs(name, seed=0):
    """Rows of different lengths, of both token types where there are two."""
    rng = np.random.default_rng(seed)
    shape = (B, 2, T) if "Multiple" in name else (B, T)
    lengths = rng.integers(3, T + 1, (*shape[:-1], 1))
    given = {
        "input_ids": rng.integers(4, V, shape),
        "attention_mask": (np.arange(T) < lengths).astype(np.int64),
    }
    if name.startswith("Bert"):
        given["token_type_ids"] = rng.integers(0, 2, shape)
    if name.startswith("T5"):
        given["decoder_input_ids"] = rng.integers(0, V, (B, SOURCE))
    if name.startswith("Roberta"):  # positions are counted from what is not padding
        padding = 1
        given["input_ids"][given["attention_mask"] == 0] = padding
    return given


def outputs(model, given):
    """The arrays that a model gives, by name; of padding nothing."""
    if isinstance(model, torch.nn.Module):
        with torch.no_grad():
            result = model(**{key: torch.from_numpy(value) for key, value in given.items()})
    else:
        with no_grad():
            result = model(**given)
    found = {}
    for name in OUTPUTS:
        value = getattr(result, name, None)
        if value is None:
            continue
        value = value.data if isinstance(value, Tensor) else value.numpy()
        if value.shape[:2] == given["attention_mask"].shape and "decoder_input_ids" not in given:
            value = value[given["attention_mask"] == 1]
        found[name] = value
    return found


def assert_same(ours, theirs, tolerance=TOLERANCE):
    assert set(ours) == set(theirs) and ours
    for name, value in theirs.items():
        limit = tolerance * max(1.0, float(np.abs(value).max()))
        assert ours[name].dtype == np.float32
        np.testing.assert_allclose(ours[name], value, rtol=0, atol=limit, err_msg=name)


@every_case
def test_a_directory_of_transformers_gives_the_same_outputs_here(tmp_path, caplog, name, sizes):
    theirs = make(name, sizes)
    theirs.save_pretrained(tmp_path)
    given = inputs(name)
    ours = from_pretrained(tmp_path)
    assert_same(outputs(ours, given), outputs(theirs, given))
    # Nothing is missing or left over, but for the bias that an untied head adds to nothing.
    untied = sizes.get("tie_word_embeddings") is False
    idle = UNTIED_BIASES & dict(theirs.named_parameters()).keys() if untied else set()
    assert all(record.args[1].strip("'") in idle for record in caplog.records)
    assert len(caplog.records) == len(idle)
    assert ours.count_parameters() == theirs.num_parameters() - V * len(idle)


@every_case
def test_a_directory_of_ours_gives_the_same_outputs_in_transformers(tmp_path, name, sizes):
    make(name, sizes).save_pretrained(tmp_path / "theirs")
    ours = from_pretrained(tmp_path / "theirs")
    rng = np.random.default_rng(1)
    for parameter in ours.parameters():
        parameter[...] = parameter.data + 0.2 * rng.normal(size=parameter.shape)
    ours.save_pretrained(tmp_path / "ours")
    model_class = getattr(transformers, name)
    theirs, report = model_class.from_pretrained(tmp_path / "ours", output_loading_info=True)
    missing = set(report["missing_keys"]) - UNTIED_BIASES
    assert not missing and not report["unexpected_keys"]
    given = inputs(name)
    assert_same(outputs(ours, given), outputs(theirs.eval(), given))


# --- How weights are stored -------------------------------------------------------------------

SOME = ["gpt2", "llama, grouped", "bert, ForSequenceClassification", "distilbert, ForMaskedLM",
        "roberta, ForTokenClassification", "t5", "t5 1.1"]  # fmt: skip
some_cases = pytest.mark.parametrize(("name", "sizes"), [CASES[key] for key in SOME], ids=SOME)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
@some_cases
def test_other_dtypes_become_float32_as_torch_makes_them(tmp_path, name, sizes, dtype):
    theirs = make(name, sizes).to(dtype)
    theirs.save_pretrained(tmp_path)
    given = inputs(name)
    ours = from_pretrained(tmp_path)
    assert all(parameter.dtype == np.float32 for parameter in ours.parameters())
    assert_same(outputs(ours, given), outputs(theirs.float(), given))


@some_cases
def test_shards_give_what_one_file_gives(tmp_path, name, sizes):
    theirs = make(name, sizes)
    theirs.save_pretrained(tmp_path, max_shard_size="3KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 2
    given = inputs(name)
    assert_same(outputs(from_pretrained(tmp_path), given), outputs(theirs, given))


def test_a_t5_that_is_untied_is_two_matrices_on_both_sides(tmp_path):
    theirs = make("T5ForConditionalGeneration", GATED)
    theirs.lm_head.weight = torch.nn.Parameter(torch.randn(V, 15))
    theirs.save_pretrained(tmp_path / "theirs")
    given = inputs("T5")
    ours = from_pretrained(tmp_path / "theirs")
    assert not ours.config.tie_embeddings and ours.config.scale_logits is None
    assert_same(outputs(ours, given), outputs(theirs, given))
    ours.save_pretrained(tmp_path / "ours")
    again = transformers.T5ForConditionalGeneration.from_pretrained(tmp_path / "ours").eval()
    assert_same(outputs(ours, given), outputs(again, given))


@pytest.mark.parametrize("key", ["gpt2", "llama, tied", "bert, ForMaskedLM"])
def test_two_matrices_that_should_be_one_stay_two_on_both_sides(tmp_path, key):
    name, sizes = CASES[key]
    theirs = make(name, sizes)
    output = theirs.get_output_embeddings()
    output.weight = torch.nn.Parameter(torch.randn_like(output.weight))
    theirs.save_pretrained(tmp_path)
    again = getattr(transformers, name).from_pretrained(tmp_path).eval()
    given = inputs(name)
    ours = from_pretrained(tmp_path)
    assert not ours.config.tie_embeddings
    assert_same(outputs(ours, given), outputs(again, given))


def test_the_package_safetensors_reads_what_is_written_here_and_the_other_way_round(tmp_path):
    numpy_files = pytest.importorskip(
        "safetensors.numpy", reason="needs the extra: pip install minilm[hf]"
    )
    rng = np.random.default_rng(0)
    arrays = {name: rng.normal(size=(3, 5)).astype(np.float32) for name in "abc"}
    write(tmp_path / SINGLE, {name: Stored([array]) for name, array in arrays.items()})
    found = numpy_files.load_file(tmp_path / SINGLE)
    assert all(np.array_equal(found[name], arrays[name]) for name in "abc")
    numpy_files.save_file(arrays, tmp_path / SINGLE, metadata={"a": "b"})
    weights = Weights(tmp_path)
    assert all(np.array_equal(weights.read(name), arrays[name]) for name in "abc")


# --- Heads ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["Bert", "Roberta", "DistilBert"])
def test_a_new_head_lacks_and_leaves_what_it_does_in_transformers(tmp_path, caplog, kind):
    sizes = {"Bert": BERT, "Roberta": ROBERTA, "DistilBert": DISTIL}[kind]
    make(f"{kind}ForMaskedLM", sizes).save_pretrained(tmp_path)
    for head, end in HEADS.items():
        model_class = getattr(transformers, f"{kind}{end}")
        theirs, report = model_class.from_pretrained(tmp_path, output_loading_info=True)
        caplog.clear()
        ours = from_pretrained(tmp_path, head=head, rng=np.random.default_rng(0))
        messages = [record.getMessage() for record in caplog.records]
        new = [
            message.split("new, to be trained: ")[1] for message in messages if "new," in message
        ]
        # A body alone goes without a pooler here where there is none, and draws one there.
        made_up = [name for name in report["missing_keys"] if head != "base"]
        missing = sum(theirs.state_dict()[name].numel() for name in made_up)
        drawn = new[0].split(", ") if new else []
        assert sum(dict(ours.named_parameters())[name].size for name in drawn) == missing
        unused = [message.split("not used: ")[1] for message in messages if "not used" in message]
        left = set(unused[0].replace("'", "").split(", ")) if unused else set()
        assert left == set(report["unexpected_keys"])


@pytest.mark.parametrize(
    ("name", "sizes", "message"),
    [
        ("GPT2ForSequenceClassification", {**GPT2, "pad_token_id": 0}, "architectures to name one"),
        ("GPT2DoubleHeadsModel", GPT2, "architectures to name one"),
        ("LlamaForSequenceClassification", LLAMA, "architectures to name one"),
        ("T5EncoderModel", T5, "architectures to name one"),
        ("BertLMHeadModel", {**BERT, "is_decoder": True}, "architectures to name one"),
        ("RobertaForCausalLM", {**ROBERTA, "is_decoder": True}, "architectures to name one"),
        ("MistralForCausalLM", {**LLAMA, "head_dim": 4}, "model_type to be one of"),
        ("ElectraModel", {**BERT, "embedding_size": 15}, "model_type to be one of"),
        ("GPT2LMHeadModel", {**GPT2, "scale_attn_weights": False}, "scale_attn_weights"),
        ("LlamaForCausalLM", {**LLAMA, "attention_bias": True}, "attention_bias"),
        (
            "LlamaForCausalLM",
            {**LLAMA, "rope_parameters": {"rope_type": "linear", "factor": 2.0}},
            'rope_type to be "default", got linear',
        ),
        ("BertModel", {**BERT, "hidden_act": "relu"}, "hidden_act"),
        ("T5ForConditionalGeneration", {**T5, "feed_forward_proj": "gated-silu"}, "feed_forward"),
    ],
)
def test_what_minilm_has_no_model_for_is_named(tmp_path, name, sizes, message):
    make(name, sizes).save_pretrained(tmp_path)
    with pytest.raises(PretrainedError, match=message):
        from_pretrained(tmp_path)


TIED = {**LLAMA, "tie_word_embeddings": True, "num_key_value_heads": 3}
BODIES = [("GPT2Model", GPT2), ("T5Model", T5), ("LlamaModel", TIED),
          ("Qwen3Model", {**TIED, "head_dim": 10})]  # fmt: skip


@pytest.mark.parametrize(("name", "sizes"), BODIES)
def test_a_body_whose_head_is_tied_is_whole(tmp_path, name, sizes):
    body = make(name, sizes)
    body.save_pretrained(tmp_path)
    ours = from_pretrained(tmp_path)
    assert ours.count_parameters() == body.num_parameters()
    full = {"GPT2Model": "GPT2LMHeadModel", "T5Model": "T5ForConditionalGeneration"}.get(
        name, name.replace("Model", "ForCausalLM")
    )
    theirs = getattr(transformers, full).from_pretrained(tmp_path).eval()
    given = inputs(name)
    assert_same(outputs(ours, given), outputs(theirs, given))


@pytest.mark.parametrize(
    ("key", "field", "message"),
    [
        ("gpt2", "n_head", "n_heads to divide d_model"),
        ("bert, Model", "num_attention_heads", "n_heads to divide d_model"),
        ("roberta, Model", "num_attention_heads", "n_heads to divide d_model"),
        ("distilbert, Model", "n_heads", "n_heads to divide d_model"),
        ("llama, grouped", "num_key_value_heads", "n_kv_heads to divide"),
        ("llama", "num_attention_heads", "q_proj.weight of shape"),
        ("t5", "num_heads", "SelfAttention.q.weight of shape"),
    ],
)
def test_heads_that_do_not_divide_evenly_are_named(tmp_path, key, field, message):
    name, sizes = CASES[key]
    make(name, sizes).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, field: 4}))
    with pytest.raises(PretrainedError, match=message):
        from_pretrained(tmp_path)


def test_generation_settings_and_labels_are_kept(tmp_path):
    theirs = make("GPT2LMHeadModel", GPT2)
    theirs.generation_config.max_new_tokens = 7
    theirs.save_pretrained(tmp_path / "gpt2")
    ours = from_pretrained(tmp_path / "gpt2")
    assert ours.generation_config["max_new_tokens"] == 7
    ours.save_pretrained(tmp_path / "again")
    again = transformers.GPT2LMHeadModel.from_pretrained(tmp_path / "again")
    assert again.generation_config.max_new_tokens == 7
    names = {0: "good", 1: "bad", 2: "neither"}
    config = transformers.BertConfig(
        **BERT, id2label=names, label2id={v: k for k, v in names.items()}
    )
    transformers.BertForSequenceClassification(config).save_pretrained(tmp_path / "bert")
    ours = from_pretrained(tmp_path / "bert")
    assert ours.id2label == names
    ours.save_pretrained(tmp_path / "labels")
    again = transformers.AutoConfig.from_pretrained(tmp_path / "labels")
    assert again.id2label == names and again.label2id["bad"] == 1 and again.num_labels == 3


def test_sizes_that_a_configuration_leaves_out_are_those_of_transformers():
    """Every default that is read here is theirs, as they would fill an empty config.json."""
    for kind, layout in LAYOUTS.items():
        theirs = transformers.AutoConfig.for_model(kind)
        head = next(iter(layout.heads))
        asked = {"max_len": None, "n_labels": 0}
        stated = json.loads(json.dumps(theirs.to_dict()))
        empty, full = (
            layout.read_config(Fields(values, kind), NoWeights(), head, asked)
            for values in ({"model_type": kind}, stated)
        )
        assert empty == full, kind


class NoWeights:
    """A directory that has no tensor at all."""

    def find(self, names):
        return []

    def tied(self, one, other):
        return True


def test_a_model_trained_here_is_the_same_there(tmp_path):
    """From a run's directory, through ours, into theirs."""
    config = LlamaConfig(vocab_size=V, max_len=16, d_model=24, n_heads=3, n_layers=2, qk_norm=True,
                         zero_init=True, norm_eps=1e-2)  # fmt: skip
    model = Llama(config, np.random.default_rng(0))
    ids = np.random.default_rng(1).integers(0, V, (4, 9))
    optimizer = AdamW(model.parameters(), lr=0.02)
    for _ in range(5):
        train_step(model, optimizer, {"input_ids": ids, "labels": ids})
    checkpoint.write_config(tmp_path, {"model": "llama", "model_config": asdict(config)})
    checkpoint.save(tmp_path / checkpoint.BEST, model.state_dict(), {})
    ours = checkpoint.load_model(tmp_path)
    ours.save_pretrained(tmp_path / "saved")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "saved").eval()
    given = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    assert_same(outputs(ours, given), outputs(theirs, given))
