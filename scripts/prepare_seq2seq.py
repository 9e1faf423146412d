"""From pairs and flags to the tokenizer, the model and the recipe of a run."""

import argparse
from itertools import chain
from typing import Any

import numpy as np
from common import pick
from pairs import Parts
from tasks_seq2seq import END, PAD, train_tokenizer

from minilm import checkpoint, kernels, training
from minilm.models import MODELS, build_model
from minilm.tokenizers import Tokenizer, load_tokenizer

FAMILIES = ("transformer", "t5")
TOKEN_IDS = ("pad_token_id", "eos_token_id", "decoder_start_token_id")
DEFAULTS: dict[str, Any] = dict(
    vocab_size=4096, max_len=96, d_model=128, n_heads=4, n_layers=2, d_ff=512, dropout=0.0,
    label_smoothing=0.0, batch_size=128, max_steps=1800, optimizer="muon", learning_rate=2e-3,
    muon_learning_rate=0.02, beta2=0.99, weight_decay=0.05, schedule="linear", hold=0.4,
    warmup_steps=100, eval_interval=450, save_interval=450,
)  # fmt: skip
OWN = {"t5": dict(learning_rate=3e-2)}  # its embeddings begin with deviation 1: larger steps


def build(
    args: argparse.Namespace, parts: dict[str, Parts]
) -> tuple[Tokenizer, Any, training.TrainingConfig]:
    """The tokenizer, model and recipe of a run; the first two those of an earlier one, if named.

    Raises: ValueError — a run of another kind, flags that the model has no use for.
    """
    given = {name: value for name, value in vars(args).items() if value is not None}
    earlier = args.resume or args.pretrained
    config = checkpoint.read_config(earlier) if earlier else {}
    family = config.get("model") or args.model or FAMILIES[0]
    if family not in FAMILIES:
        raise ValueError(
            f"{earlier}: expected a run of {' or '.join(FAMILIES)}, got one of {family}; give one "
            "that train_seq2seq.py left behind"
        )
    values = {**DEFAULTS, **OWN.get(family, {}), **given}
    values["workers"] = values.get("workers") or kernels.cores()
    settings = training.TrainingConfig(**pick(training.TrainingConfig, values))
    if earlier:
        tokenizer, free = load_tokenizer(earlier), ["dropout", "label_smoothing"]
        if args.resume:
            settings = training.TrainingConfig(**config["training"])
        values = {**config["model_config"], **{n: given[n] for n in free if n in given}}
    else:
        free = [*_fields(family), "tokenizer"]
        tokenizer = train_tokenizer(args, parts, values["vocab_size"])
        end, pad = (tokenizer.special_tokens[name] for name in (END, PAD))
        values |= {"vocab_size": tokenizer.vocab_size, "eos_token_id": end}
        values |= {"pad_token_id": pad, "decoder_start_token_id": pad}
    unused = {"tokenizer", *chain(*map(_fields, FAMILIES))} & set(given) - set(free)
    if unused and not args.resume:
        flags = ", ".join("--" + name.replace("_", "-") for name in sorted(unused))
        raise ValueError(
            f"--{'pretrained' if earlier else f'model {family}'}: expected no flags that it has no "
            f"use for, got {flags}; leave them out"
        )
    rng = np.random.default_rng(settings.seed)
    model = build_model(family, pick(MODELS[family][0], values), rng)
    if args.pretrained and not (args.out / checkpoint.CHECKPOINT).exists():
        model.load_state_dict(checkpoint.load_model(args.pretrained).state_dict())
    return tokenizer, model, settings


def _fields(family: str) -> set[str]:
    """The flags of a family's shape; the ids of its tokens are the tokenizer's."""
    return set(MODELS[family][0].__dataclass_fields__) - set(TOKEN_IDS)
