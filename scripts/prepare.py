"""From flags and text to the files that a causal run begins with."""

import argparse
import os
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from common import pick
from presets import PRESETS
from run_dir import refuse_run

from minilm import checkpoint, data, kernels, training
from minilm.models import CAUSAL, build_model
from minilm.objectives.causal import check_stream
from minilm.tokenizers import BPETokenizer, CharTokenizer


def configure(args: argparse.Namespace) -> dict[str, Any]:
    """The run's configuration: the preset's values, changed by the flags that were given."""
    given = {name: value for name, value in vars(args).items() if value is not None}
    values = {**PRESETS[args.preset or "default"], **given}
    values["workers"] = values.get("workers") or kernels.cores()  # another number, other bits
    config_class, _ = CAUSAL[values["model"]]
    unused = {n for c, _ in CAUSAL.values() for n in c.__dataclass_fields__ if n in given}
    unused -= set(config_class.__dataclass_fields__)
    if unused:
        flags = ", ".join("--" + name.replace("_", "-") for name in sorted(unused))
        raise ValueError(
            f"--model {values['model']}: expected flags of this model, got {flags}; leave them out "
            "or choose another --model"
        )
    return {
        "model": values["model"],
        "model_config": pick(config_class, values),
        "training": asdict(training.TrainingConfig(**pick(training.TrainingConfig, values))),
        "tokenizer": values["tokenizer"],
        "eval_stride": values.get("eval_stride"),
    }


def texts(args: argparse.Namespace) -> Iterable[str]:
    """The text of --data, or else the Python language reference."""
    return data.read_texts(args.data) if args.data else [data.embedded_corpus()]


def prepare(args: argparse.Namespace, directory: Path) -> dict[str, Any]:
    """Tokenizer, token file and configuration of a new run.

    What can be refused is refused before anything in the directory is replaced; the configuration,
    which makes it a run, is written last.
    """
    if not args.overwrite:
        refuse_run(directory, "choose another --out, or replace it with --overwrite")
    config = configure(args)
    tokenizer: Any
    if config["tokenizer"] == "char":
        tokenizer = CharTokenizer.train(texts(args))
    else:
        tokenizer = BPETokenizer.train(texts(args), args.vocab_size or 1024)
    config["model_config"]["vocab_size"] = tokenizer.vocab_size
    model = build_model(config["model"], config["model_config"], np.random.default_rng(0))
    training.build_optimizer(model, training.TrainingConfig(**config["training"]))
    new_tokens = directory / "tokens.new.npy"
    try:
        for part in data.split(data.write_tokens(texts(args), tokenizer, new_tokens)):
            check_stream(part, model.config.max_len)
    except ValueError:
        new_tokens.unlink(missing_ok=True)
        raise
    for name in (checkpoint.CONFIG, checkpoint.CHECKPOINT, checkpoint.BEST, training.METRICS):
        (directory / name).unlink(missing_ok=True)
    os.replace(new_tokens, directory / "tokens.npy")
    tokenizer.save(directory)
    checkpoint.write_config(directory, config)
    return config
