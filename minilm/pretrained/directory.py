"""From a directory to a model, and back."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np

from minilm.models.base import Model
from minilm.models.bert import Bert
from minilm.models.bert_heads import BertHead
from minilm.models.gpt import GPT
from minilm.models.llama import Llama
from minilm.models.t5 import T5
from minilm.pretrained import bert, gpt2, llama, t5
from minilm.pretrained.architecture import (
    Architecture,
    LaterDraws,
    check_sizes,
    fill,
    find_places,
)
from minilm.pretrained.files import (
    Fields,
    PretrainedError,
    read_object,
    require,
    write_json,
)
from minilm.pretrained.weights import SINGLE, Stored, Weights, write

CONFIG, GENERATION = "config.json", "generation_config.json"
MOST_LABELS = 100_000
DROPPED = (  # what config.json said of the head and the file, and is said anew
    *("architectures", "model_type", "dtype", "torch_dtype", "transformers_version"),
    *("_name_or_path", "id2label", "label2id", "num_labels", "problem_type"),
)
LABELLED = ("sequence_classification", "token_classification")

LAYOUTS: dict[str, Architecture] = {
    layout.model_type: layout
    for layout in (
        *(gpt2.GPT2_LAYOUT, llama.LLAMA_LAYOUT, llama.QWEN3_LAYOUT, t5.T5_LAYOUT),
        *bert.ARCHITECTURES.values(),
    )
}


def read_model(
    directory: Path,
    head: str | None,
    num_labels: int | None = None,
    id2label: Mapping[int, str] | None = None,
    rng: np.random.Generator | None = None,
    max_len: int | None = None,
) -> Any:
    """The model of a directory; see `from_pretrained`."""
    where = directory / CONFIG
    fields = Fields(read_object(where), where)
    layout = find_layout(fields)
    head = head or find_head(fields, layout)
    known = ", ".join(layout.heads)
    require(head in layout.heads, where, f"a head of {known}", head, "ask for one of these")
    has_window = layout.model_type in ("llama", "qwen3", "t5")
    fix = "leave max_len out: the model has a vector for each of its positions"
    require(max_len is None or has_window, where, "no max_len", max_len, fix)
    labels = read_labels(fields, head, num_labels, id2label)
    weights = Weights(directory, layout.prefix)
    draws = LaterDraws()
    try:
        asked = {"max_len": max_len, "n_labels": len(labels)}
        config = layout.read_config(fields, weights, head, asked)
        check_sizes(config, weights, layout, head)
        model = layout.heads[head].model(config, cast(Any, draws))
    except PretrainedError:
        raise
    except ValueError as error:
        raise PretrainedError(f"{where}: {error}") from error
    own_labels = num_labels is not None or id2label is not None
    fill(model, weights, layout, head, draws, rng, ("classifier",) if own_labels else ())
    for _, module in model.named_modules():
        if hasattr(module, "rng"):
            module.rng = rng
    model.id2label, model.hf_config = labels, fields.values
    if (directory / GENERATION).exists():
        model.generation_config = read_object(directory / GENERATION)
    model.eval()
    return model


def find_layout(fields: Fields) -> Architecture:
    """What is known of the `model_type`, and that nothing else stands in the way."""
    run = "model_config" in fields.values
    fix = "open a run of a training script by minilm.load_model" if run else "choose another model"
    kind = fields.text("model_type") or ("a run's configuration" if run else "none")
    known = f"model_type to be one of {', '.join(LAYOUTS)}"
    require(kind in LAYOUTS, fields.where, known, kind, fix)
    quantised = "quantised weights are not read here: take the ones they were made from"
    got = fields.get("quantization_config")
    require(got is None, fields.where, "no quantization_config", got, quantised)
    return LAYOUTS[kind]


def find_head(fields: Fields, layout: Architecture) -> str:
    """The head that `architectures` names."""
    classes = {name: head for head, known in layout.heads.items() for name in known.architectures}
    said = fields.texts("architectures")
    found = [classes[name] for name in said if name in classes]
    known = f"architectures to name one of {', '.join(classes)}"
    fix = f"ask for a head yourself, head= one of {', '.join(layout.heads)}"
    require(bool(found), fields.where, known, said, fix)
    return found[0]


def read_labels(
    fields: Fields, head: str, num_labels: int | None, id2label: Mapping[int, str] | None
) -> dict[int, str]:
    """The name of each class: as asked for, else as config.json says, else LABEL_0, LABEL_1 ...

    Raises: PretrainedError — names that are not numbered 0, 1 ..., or for a head without classes.
    """
    if head not in LABELLED:
        none, fix = num_labels is None and id2label is None, f"ask for {' or '.join(LABELLED)}"
        require(none, "from_pretrained", f"no labels for {head}", "some", fix)
        return {}
    if num_labels is None and id2label is None:
        said = fields.inner("id2label").values
        count = fields.whole("num_labels", len(said) or 2, most=MOST_LABELS)
        if head == "sequence_classification":
            kinds = ("regression",) if count == 1 else ("single_label_classification",)
            fields.only("problem_type", *kinds)
        numbers = [key for key in said if key.isdecimal() and len(key) < 9]
        labels = {int(key): said[key] for key in numbers}
        where, given = fields.where, bool(said)
    else:
        labels = dict(id2label or {})
        count = len(labels) if num_labels is None else num_labels
        where, given = "from_pretrained", id2label is not None
    numbered = sorted(labels) == list(range(count)) or not given
    ok = numbered and all(isinstance(name, str) for name in labels.values())
    fix = "number the labels from 0 on, as many as num_labels says"
    expected = f"a name for each of {count} labels"
    require(ok and 0 < count <= MOST_LABELS, where, expected, labels, fix)
    return {i: labels.get(i, f"LABEL_{i}") for i in range(count)}


def write_model(model: Model, directory: Path) -> None:
    """Write config.json, model.safetensors and, if it has one, generation_config.json."""
    kind = _model_type(model)
    layout = LAYOUTS.get(kind)
    heads = {} if layout is None else {h.model: name for name, h in layout.heads.items()}
    known = sorted({h.model.__name__ for layout in LAYOUTS.values() for h in layout.heads.values()})
    fix = "transformers has no such model: keep the directory of the run"
    got = f"{type(model).__name__} ({kind})" if kind else type(model).__name__
    require(type(model) in heads, "save_pretrained", f"one of {', '.join(known)}", got, fix)
    assert layout is not None
    head = heads[type(model)]
    where = directory / CONFIG
    if where.exists():
        fix = "its config.json would be lost: give another directory"
        run = "model_config" in read_object(where)
        require(not run, where, "a directory of its own", "that of a run", fix)
    config = _config(model, layout, head)
    places = find_places(model, layout, head)
    prefix = layout.prefix if head == "base" else ""
    tensors = {
        place.stored.split("|")[0].removeprefix(prefix): Stored(
            [tensor.data for tensor in place.tensors], place.transposed
        )
        for place in places
    }
    write(directory / SINGLE, tensors)
    write_json(where, config)
    if model.generation_config:
        write_json(directory / GENERATION, dict(model.generation_config))


def _model_type(model: Model) -> str:
    if isinstance(model, GPT):
        return "gpt2"
    if isinstance(model, Llama):
        return "qwen3" if model.config.qk_norm else "llama"
    if isinstance(model, T5):
        return "t5"
    return bert.kind_of(model.config) if isinstance(model, (Bert, BertHead)) else ""


def _config(model: Model, layout: Architecture, head: str) -> dict[str, Any]:
    """What config.json says: the model's configuration, among what was said when it was read."""
    config = dict(model.hf_config)
    if config.get("model_type") != layout.model_type:
        config = {}
    for name in DROPPED:
        config.pop(name, None)
    config |= layout.write_config(model.config, head)
    if head in LABELLED:
        count = model.config.n_labels
        names = {i: model.id2label.get(i, f"LABEL_{i}") for i in range(count)}
        config["id2label"] = {str(i): name for i, name in names.items()}
        config["label2id"] = {name: i for i, name in names.items()}
    dtype = str(model.parameters()[0].dtype)
    architecture = layout.heads[head].architectures[0]
    begin = {"architectures": [architecture], "model_type": layout.model_type, "dtype": dtype}
    return begin | config
