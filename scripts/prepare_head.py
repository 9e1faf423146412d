"""From a task's examples and flags to the model, the recipe and the files of a run."""

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from common import pick
from splits import text_of

from minilm import checkpoint, finetuning, kernels, tasks, training
from minilm.models import MODELS
from minilm.models.bert import BertConfig
from minilm.tokenizers import Tokenizer, WordPieceTokenizer, load_tokenizer

DEFAULTS: dict[str, Any] = dict(
    vocab_size=2048, max_len=64, d_model=128, n_heads=4, n_layers=3, d_ff=512, dropout=0.1,
    init_std=0.05, max_steps=600, batch_size=32, learning_rate=5e-4, weight_decay=0.05,
    schedule="linear", warmup_steps=60, eval_interval=50, save_interval=100,
)  # fmt: skip


def build(
    args: argparse.Namespace, head: str, labels: Sequence[str], train: Sequence[Any]
) -> tuple[Tokenizer, Any, training.TrainingConfig]:
    """The tokenizer, the model with its head, of which pre-trained parts are loaded, the recipe."""
    given = {name: value for name, value in vars(args).items() if value is not None}
    values = {**DEFAULTS, **given, "n_labels": max(1, len(labels))}
    values["workers"] = values.get("workers") or kernels.cores()
    settings = training.TrainingConfig(**pick(training.TrainingConfig, values))
    if args.pretrained:
        tokenizer = load_tokenizer(args.pretrained)
        shape = checkpoint.read_config(args.pretrained)["model_config"]
        values = {**shape, "n_labels": values["n_labels"], "dropout": values["dropout"]}
    else:
        tokenizer = WordPieceTokenizer.train(map(text_of, train), values["vocab_size"])
        values["vocab_size"] = tokenizer.vocab_size
    config, rng = BertConfig(**pick(BertConfig, values)), np.random.default_rng(settings.seed)
    model = tasks.HEADS[head].model(config, rng)
    if args.pretrained and not args.scratch:
        model.bert.load_state_dict(checkpoint.load_model(args.pretrained).bert.state_dict())
    return tokenizer, model, settings


def freeze(model: Any, args: argparse.Namespace) -> list[Any]:
    """Freeze what the flags name; what is to be called before each step."""
    for what in args.freeze:
        if what.isdigit():
            finetuning.freeze_layers(model, int(what))
        else:
            model.freeze(what)
    if not args.unfreeze_interval:
        return []
    return [finetuning.GradualUnfreezing(model, args.unfreeze_interval)]


def begin(
    args: argparse.Namespace,
    tokenizer: Tokenizer,
    model: Any,
    settings: training.TrainingConfig,
    labels: Sequence[str],
) -> None:
    """Write down what the run is, so that it can be resumed and its model loaded."""
    args.out.mkdir(parents=True, exist_ok=True)
    tokenizer.save(args.out)
    name = next(name for name, (_, kind) in MODELS.items() if kind is type(model))
    flags = {n: str(value) if isinstance(value, Path) else value for n, value in vars(args).items()}
    config = {"model": name, "model_config": asdict(model.config), "training": asdict(settings)}
    checkpoint.write_config(args.out, {**config, "labels": labels, "flags": flags})
