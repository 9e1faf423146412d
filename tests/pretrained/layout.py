"""safetensors files written and read by hand, and one small model of each kind."""

import json
from pathlib import Path

import numpy as np

from minilm.models.bert import Bert, BertConfig, distilbert_config, roberta_config
from minilm.models.bert_heads import (
    BertForMaskedLM,
    BertForMultipleChoice,
    BertForNextSentencePrediction,
    BertForPreTraining,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
)
from minilm.models.gpt import GPT, GPTConfig
from minilm.models.llama import Llama, LlamaConfig
from minilm.models.t5 import T5, T5Config, t5_v1_1_config
from minilm.pretrained.weights import INDEX, SINGLE
from minilm.tensor import no_grad

V = 23
SIZES = {"vocab_size": V, "max_len": 12, "d_model": 12, "n_heads": 3, "n_layers": 2, "d_ff": 10}
WIDE = {**SIZES, "d_ff": None, "dropout": 0.2}
MODELS = {
    "gpt": (GPT, GPTConfig(**WIDE)),
    "gpt, untied": (GPT, GPTConfig(**SIZES, tie_embeddings=False, layer_norm_eps=0.01)),
    "llama": (Llama, LlamaConfig(**{**SIZES, "n_heads": 6, "n_kv_heads": 2})),
    "llama, tied": (Llama, LlamaConfig(**SIZES, tie_embeddings=True, d_kv=6, rope_theta=50.0)),
    "llama, as it trains fastest": (Llama, LlamaConfig(**SIZES, qk_norm=True, zero_init=True)),
    "t5": (T5, T5Config(**SIZES, n_decoder_layers=1, label_smoothing=0.1)),
    "t5 1.1": (T5, t5_v1_1_config(**{**SIZES, "d_kv": 5, "n_buckets": 8, "max_distance": 9})),
    "t5, scaled otherwise": (T5, T5Config(**SIZES, scale_logits=False)),
    "bert, untied": (BertForMaskedLM, BertConfig(**SIZES, tie_embeddings=False)),
    "roberta, untied": (BertForMaskedLM, roberta_config(**SIZES, tie_embeddings=False)),
    "distilbert, untied": (BertForMaskedLM, distilbert_config(**SIZES, tie_embeddings=False)),
    "bert, next sentence": (BertForNextSentencePrediction, BertConfig(**SIZES)),
    "bert, pre-training": (BertForPreTraining, BertConfig(**SIZES)),
    **{
        f"{kind}, {name}": (model, config(**SIZES, **changes))
        for kind, config, pooler in (
            ("bert", BertConfig, "tanh"),
            ("roberta", roberta_config, "tanh"),
            ("distilbert", distilbert_config, "relu"),
        )
        for name, model, changes in (
            ("base", Bert, {"pooler": pooler}),
            ("no pooler", Bert, {"pooler": None}),
            ("masked", BertForMaskedLM, {"pooler": None}),
            ("classes", BertForSequenceClassification, {"n_labels": 4, "head_dropout": 0.3}),
            ("tokens", BertForTokenClassification, {"n_labels": 5}),
            ("answers", BertForQuestionAnswering, {}),
            ("choices", BertForMultipleChoice, {}),
        )
    },
}


def build(name, seed=0):
    """A model whose every parameter is away from where it begins."""
    model_class, config = MODELS[name]
    rng = np.random.default_rng(seed)
    model = model_class(config, rng).eval()
    for parameter in model.parameters():
        parameter[...] = parameter.data + 0.2 * rng.normal(size=parameter.shape)
    return model


def outputs(model, length=5, seed=0):
    """The arrays that a model gives for a batch of two."""
    rng = np.random.default_rng(seed)
    shape = (2, 3, length) if isinstance(model, BertForMultipleChoice) else (2, length)
    given = {"input_ids": rng.integers(0, model.config.vocab_size, shape)}
    if isinstance(model, T5):
        given["decoder_input_ids"] = rng.integers(0, model.config.vocab_size, (2, length))
    with no_grad():
        result = model(**given)
    names = ("logits", "prediction_logits", "seq_relationship_logits", "start_logits",
             "end_logits", "last_hidden_state", "pooler_output")  # fmt: skip
    found = {name: getattr(result, name, None) for name in names}
    return {name: value.data for name, value in found.items() if value is not None}


def same_outputs(one, other):
    """Whether two models give the same arrays, up to the order in which sums are rounded.

    BLAS adds in another order where a matrix lies transposed in memory.
    """
    left, right = outputs(one), outputs(other)
    assert left and set(left) == set(right)
    return all(np.allclose(left[name], right[name], rtol=1e-4, atol=1e-5) for name in left)


def write_file(path, tensors, metadata=None):
    """A safetensors file from name -> (dtype, shape, bytes), in this order."""
    header, at = {}, 0
    if metadata is not None:
        header["__metadata__"] = metadata
    for name, (dtype, shape, raw) in tensors.items():
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, at + len(raw)]}
        at += len(raw)
    write_raw(path, header, b"".join(raw for _, _, raw in tensors.values()))


def write_raw(path, header, data):
    """A file with this header, JSON or its bytes, and these bytes behind it."""
    text = header
    if not isinstance(header, bytes):
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
    path.unlink(missing_ok=True)  # an old file may be mapped: it must not change
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def read_file(path):
    """The header and the bytes behind it."""
    raw = Path(path).read_bytes()
    length = int.from_bytes(raw[:8], "little")
    return json.loads(raw[8 : 8 + length]), raw[8 + length :]


def read_tensors(path):
    """name -> (dtype, shape, bytes)."""
    header, data = read_file(path)
    header.pop("__metadata__", None)
    return {
        name: (entry["dtype"], entry["shape"], data[slice(*entry["data_offsets"])])
        for name, entry in header.items()
    }


def array(dtype, shape, raw):
    """A float32 tensor of `read_tensors` as an array."""
    assert dtype == "F32"
    return np.frombuffer(raw, "<f4").reshape(shape)


def edit_json(path, **changes):
    """Change entries of a JSON file; those that become ... are removed."""
    content = json.loads(Path(path).read_text()) | changes
    content = {name: value for name, value in content.items() if value is not ...}
    Path(path).write_text(json.dumps(content))


def halves(directory, kind):
    """Store every tensor as float16 or bfloat16."""
    header, data = read_file(directory / SINGLE)
    old, pieces, at = np.frombuffer(data, "<f4"), [], 0
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        start, stop = (offset // 4 for offset in entry["data_offsets"])
        raw = (old[start:stop].view("<u4") >> 16).astype("<u2").tobytes()
        if kind == "F16":
            raw = old[start:stop].astype("<f2").tobytes()
        header[name] = {**entry, "dtype": kind, "data_offsets": [at, at + len(raw)]}
        pieces.append(raw)
        at += len(raw)
    write_raw(directory / SINGLE, header, b"".join(pieces))


def shards(directory):
    """Spread the tensors over three files and an index."""
    header, data = read_file(directory / SINGLE)
    names = sorted(header.keys() - {"__metadata__"})
    mapped = {}
    for i in range(3):
        part, pieces, at = {}, [], 0
        for name in names[i::3]:
            raw = data[slice(*header[name]["data_offsets"])]
            part[name] = {**header[name], "data_offsets": [at, at + len(raw)]}
            mapped[name] = f"model-{i}.safetensors"
            pieces.append(raw)
            at += len(raw)
        write_raw(directory / f"model-{i}.safetensors", part, b"".join(pieces))
    (directory / SINGLE).unlink()
    (directory / INDEX).write_text(json.dumps({"metadata": {"total": 1}, "weight_map": mapped}))
