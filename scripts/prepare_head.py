"""From a task's examples and flags to the model and the recipe of a run."""

import argparse
from collections.abc import Sequence
from typing import Any

import numpy as np
from common import pick
from splits import text_of

from minilm import checkpoint, finetuning, kernels, tasks, training
from minilm.models.bert import BertConfig
from minilm.tasks.table import CHOICE, CLASSES, SPAN, TAGS
from minilm.tokenizers import Tokenizer, WordPieceTokenizer, load_tokenizer

LABELLED = (CLASSES, TAGS)
DEFAULTS: dict[str, Any] = dict(
    vocab_size=2048, max_len=64, d_model=128, n_heads=4, n_layers=3, d_ff=512, dropout=0.1,
    init_std=0.05, max_steps=600, batch_size=32, learning_rate=5e-4, weight_decay=0.05,
    schedule="linear", warmup_steps=60, eval_interval=50, save_interval=100,
)  # fmt: skip


def build(
    args: argparse.Namespace, head: str, labels: Sequence[str], train: Sequence[Any]
) -> tuple[Tokenizer, Any, training.TrainingConfig]:
    """The tokenizer, the model with its head, of which pre-trained parts are loaded, the recipe.

    Tokenizer and shape are those of the run that is resumed, or of the pre-trained one.
    """
    given = {name: value for name, value in vars(args).items() if value is not None}
    values = {**DEFAULTS, **given, "n_labels": max(1, len(labels))}
    values["workers"] = values.get("workers") or kernels.cores()
    settings = training.TrainingConfig(**pick(training.TrainingConfig, values))
    earlier = args.resume or args.pretrained
    if earlier:
        tokenizer, stored = load_tokenizer(earlier), checkpoint.read_config(earlier)
        own = {"n_labels": values["n_labels"], "dropout": values["dropout"]}
        values = {**stored["model_config"], **own}
        if args.resume:
            settings = training.TrainingConfig(**stored["training"])
    else:
        tokenizer = WordPieceTokenizer.train(map(text_of, train), values["vocab_size"])
        values["vocab_size"] = tokenizer.vocab_size
    config, rng = BertConfig(**pick(BertConfig, values)), np.random.default_rng(settings.seed)
    model = tasks.HEADS[head].model(config, rng)
    begins = not (args.out / checkpoint.CHECKPOINT).exists()
    if args.pretrained and begins and not args.scratch:
        model.bert.load_state_dict(checkpoint.load_model(args.pretrained).bert.state_dict())
    return tokenizer, model, settings


def refuse_flags(args: argparse.Namespace, head: str, train: Sequence[Any]) -> None:
    """Raises: ValueError — flags that the task or the model has no use for."""
    pairs = any(getattr(example, "text_pair", None) for example in train)
    shape = [name for name in BertConfig.__dataclass_fields__ if name != "dropout"]
    useless = {
        "examples_per_class": head != CLASSES,
        "class_weights": head not in LABELLED,
        "stride": head == CHOICE or pairs,
        "language": head != SPAN,
        "scratch": not args.pretrained,
        **dict.fromkeys(shape, bool(args.pretrained)),
    }
    given = [n for n, v in vars(args).items() if not (v is None or v is False) and useless.get(n)]
    if given:
        flags = ", ".join("--" + name.replace("_", "-") for name in given)
        at = f"--task {args.task}" + (" --pretrained" if args.pretrained else "")
        raise ValueError(
            f"{at}: expected no flags that it has no use for, got {flags}; leave them out"
        )


def freeze(model: Any, args: argparse.Namespace) -> list[Any]:
    """Freeze what the flags name; what is to be called before each step."""
    for what in args.freeze:
        if what.isdigit():
            finetuning.freeze_layers(model, int(what))
        else:
            model.freeze(what)
    if args.unfreeze_interval is None:
        return []
    return [finetuning.GradualUnfreezing(model, args.unfreeze_interval)]
