"""From pairs, raw text and flags to the tokenizer, the model, the recipe and the tasks of a run."""

import argparse
from collections.abc import Iterable
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from common import pick
from pairs import Parts

from minilm import checkpoint, data, kernels, training
from minilm.models import MODELS, build_model
from minilm.objectives.span_corruption import SpanCorruptionBatches
from minilm.objectives.text_to_text import MixedTasks, TextToText, mixing_rates
from minilm.tokenizers import (
    BPETokenizer,
    CharTokenizer,
    Tokenizer,
    UnigramTokenizer,
    load_tokenizer,
)

FAMILIES = ("transformer", "t5")
PAD, END = "<pad>", "</s>"
SENTINELS = [f"<extra_id_{i}>" for i in range(100)]  # as many as T5 has
# Words, but each digit and each Chinese character alone: what is copied is copied one by one.
PATTERN = r"[\p{Han}\p{N}]| ?(?:(?!\p{Han})\p{L})+| ?[^\s\p{L}\p{N}]+|\s+"
POOL = 8  # so many batches are drawn at once, to be cut by length
DEFAULTS: dict[str, Any] = dict(
    vocab_size=4096, max_len=96, d_model=128, n_heads=4, n_layers=2, d_ff=512, dropout=0.0,
    label_smoothing=0.0, batch_size=128, max_steps=1800, optimizer="muon", learning_rate=2e-3,
    muon_learning_rate=0.02, beta2=0.99, weight_decay=0.05, schedule="linear", hold=0.4,
    warmup_steps=100, eval_interval=450, save_interval=450,
)  # fmt: skip


def build(
    args: argparse.Namespace, parts: dict[str, Parts]
) -> tuple[Tokenizer, Any, training.TrainingConfig]:
    """The tokenizer, model and recipe of a run; the first two those of an earlier one, if named."""
    given = {name: value for name, value in vars(args).items() if value is not None}
    values = {**DEFAULTS, **given}
    values["workers"] = values.get("workers") or kernels.cores()
    settings = training.TrainingConfig(**pick(training.TrainingConfig, values))
    earlier = args.resume or args.pretrained
    if earlier:
        tokenizer, config = load_tokenizer(earlier), checkpoint.read_config(earlier)
        family, free = config["model"], ("dropout", "label_smoothing")
        if family not in FAMILIES:
            raise ValueError(
                f"{earlier}: expected a run of {' or '.join(FAMILIES)}, got one of {family}; give "
                "one that train_seq2seq.py left behind"
            )
        values = {**config["model_config"], **{n: given[n] for n in free if n in given}}
    else:
        family, free = args.model or FAMILIES[0], (*_fields(args.model or FAMILIES[0]), "tokenizer")
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
    if args.pretrained and not args.resume:
        model.load_state_dict(checkpoint.load_model(args.pretrained).state_dict())
    return tokenizer, model, settings


def _fields(family: str) -> set[str]:
    """The flags of a family's shape; the ids of its tokens are the tokenizer's."""
    return {name for name in MODELS[family][0].__dataclass_fields__ if "_token_id" not in name}


def train_tokenizer(
    args: argparse.Namespace, parts: dict[str, Parts], vocab_size: int
) -> Tokenizer:
    """Byte pairs, unless another kind is asked for.

    Pieces are learned from what is for training; a character must be there for all of the texts.
    """
    kind = args.tokenizer or "bpe"
    names = ("train", "validation", "test") if kind == "char" else ("train",)
    pairs = [pair for task in parts.values() for name in names for pair in task[name]]
    raw: Iterable[str] = data.read_texts(args.pretrain) if args.pretrain else ()
    texts, special = chain(*pairs, raw), [PAD, END, *(SENTINELS if args.pretrain else ())]
    if kind == "char":
        return CharTokenizer.train(texts, special)
    if kind == "bpe":
        return BPETokenizer.train(texts, vocab_size, PATTERN, special_tokens=special)
    return UnigramTokenizer.train(texts, vocab_size, special, byte_fallback=True, normalizer=None)


def make_tasks(
    args: argparse.Namespace, parts: dict[str, Parts], tokenizer: Tokenizer, config: Any
) -> dict[str, MixedTasks]:
    """What is drawn from in training, and what the validation loss is of."""
    pad_id, eos_id, length = config.pad_token_id, config.eos_token_id, config.max_len
    raw = "".join(data.read_texts(args.pretrain)) if args.pretrain else ""
    streams = data.split(tokenizer.encode_array(raw)) if raw else ()
    sentinels = [tokenizer.special_tokens[name] for name in SENTINELS if raw]
    mixed: dict[str, MixedTasks] = {}
    for i, name in enumerate(("train", "validation")):
        tasks: list[Any] = [
            TextToText.of(task, own[name], tokenizer, pad_id=pad_id, eos_id=eos_id,
                          max_source=length, max_target=length)
            for task, own in parts.items()
        ]  # fmt: skip
        sizes: list[float] = [len(task) for task in tasks]
        if raw:
            spans = SpanCorruptionBatches(
                streams[i], sentinels, length, pad_id=pad_id, eos_id=eos_id
            )
            tasks, sizes = [*tasks, spans], [*sizes, len(streams[i]) / spans.length]
        mixed[name] = MixedTasks(tasks, mixing_rates(sizes, args.cap, args.temperature), POOL)
    return mixed


def begin(
    args: argparse.Namespace, tokenizer: Tokenizer, model: Any, settings: training.TrainingConfig
) -> None:
    """Write down what the run is, so that it can be resumed and its model loaded."""
    args.out.mkdir(parents=True, exist_ok=True)
    tokenizer.save(args.out)
    flags = {n: str(value) if isinstance(value, Path) else value for n, value in vars(args).items()}
    family = next(name for name in FAMILIES if MODELS[name][1] is type(model))
    config = {"model": family, "model_config": asdict(model.config), "training": asdict(settings)}
    checkpoint.write_config(args.out, {**config, "flags": flags})
