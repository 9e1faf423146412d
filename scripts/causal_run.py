"""A causal run from its directory to its losses: what the scripts that train such models share."""

import codecs
from pathlib import Path
from typing import Any, NamedTuple

import common
import numpy as np

from minilm import checkpoint, data, metrics, training
from minilm.models import build_model
from minilm.objectives.causal import evaluation_windows, sample_windows
from minilm.tokenizers import load_tokenizer

NGRAM_TOKENS = 5_000_000  # the baseline counts in memory; it sees at most so many tokens


def count_characters(tokenizer: Any, tokens: np.ndarray) -> int:
    """How many characters the tokens stand for, a piece at a time."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    pieces = (tokens[i : i + 2**20].tolist() for i in range(0, len(tokens), 2**20))
    return sum(len(decoder.decode(tokenizer.decode_bytes(piece))) for piece in pieces)


class Trained(NamedTuple):
    """A run that has come to its end."""

    model: Any
    tokenizer: Any
    train: np.ndarray
    validation: np.ndarray
    records: list[dict[str, Any]]


def train(directory: Path, resume: Path | None = None) -> Trained:
    """Begin the run that was prepared there, or go on with it; `resume` as for `common.train`."""
    config = checkpoint.read_config(directory)
    tokenizer = load_tokenizer(directory)
    tokens, validation = data.split(data.open_tokens(directory / "tokens.npy"))
    settings = training.TrainingConfig(**config["training"])
    rng = np.random.default_rng(settings.seed)
    model = build_model(config["model"], config["model_config"], rng)
    length = model.config.max_len
    stride = min(config["eval_stride"] or max(1, length // 2), length)
    print(f"{len(tokens):,} training and {len(validation):,} validation tokens, "
          f"vocabulary {tokenizer.vocab_size:,}; {config['model']} with "
          f"{model.count_parameters():,} parameters")  # fmt: skip
    records = common.train(
        model,
        lambda rng, count: sample_windows(tokens, count, length, rng),
        lambda: evaluation_windows(validation, max(1, 4096 // length), length, stride),
        settings,
        directory,
        resume=resume,
    )
    return Trained(model, tokenizer, tokens, validation, records)


def show_losses(losses: dict[str, float], tokenizer: Any, validation: np.ndarray) -> None:
    """A line for each model."""
    characters = count_characters(tokenizer, validation)
    print(f"{'validation':>12} {'nats/token':>10} {'perplexity':>10} {'nats/char':>10}")
    for name, loss in losses.items():
        per_character = metrics.nats_per_character(loss, len(validation), characters)
        print(f"{name:>12} {loss:10.4f} {metrics.perplexity(loss):10.3f} {per_character:10.4f}")
