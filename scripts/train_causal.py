"""Train a causal language model on text, from characters to samples.

    python scripts/train_causal.py                              # the Python language reference
    python scripts/train_causal.py --data my_notes/ --tokenizer bpe --out runs/notes
    python scripts/train_causal.py --preset nanogpt-cpu --data shakespeare.txt
    python scripts/train_causal.py --resume runs/causal         # go on after an interruption

What it teaches: tokens, windows, the loss of the next token, and how hard a good n-gram is to beat.
The default takes about two minutes on two cores and ends at a validation loss near 1.12 nats per
character, below every n-gram model from order 1 to 8.
"""

import argparse
import codecs
import sys
from pathlib import Path
from typing import Any

import common
import numpy as np
from common import add_fields, plot_losses
from prepare import prepare
from presets import PRESETS

from minilm import checkpoint, data, generation, metrics, training
from minilm.models import CAUSAL, build_model
from minilm.models.ngram import NGram
from minilm.objectives.causal import evaluation_windows, sample_windows
from minilm.tokenizers import load_tokenizer

NGRAM_TOKENS = 5_000_000  # the baseline counts in memory; it sees at most so many tokens


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", action="append", help="a text file or directory; repeatable")
    parser.add_argument("--out", type=Path, help="default: runs/causal")
    parser.add_argument("--overwrite", action="store_true", default=None, help="replace that run")
    parser.add_argument("--resume", type=Path, metavar="RUN_DIR")
    parser.add_argument("--preset", choices=PRESETS, help="default: default")
    parser.add_argument("--model", choices=CAUSAL)
    parser.add_argument("--tokenizer", choices=("char", "bpe"))
    parser.add_argument("--eval-stride", type=int, help="default: half a window")
    add_fields(parser, *(config for config, _ in CAUSAL.values()), training.TrainingConfig)
    args = parser.parse_args()
    others = sorted(name for name, value in vars(args).items() if value is not None)
    if args.resume and others != ["resume"]:
        parser.error("--resume goes on with the run's own configuration: give no other flag")
    return args


def count_characters(tokenizer: Any, tokens: np.ndarray) -> int:
    """How many characters the tokens stand for, a piece at a time."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    pieces = (tokens[i : i + 2**20].tolist() for i in range(0, len(tokens), 2**20))
    return sum(len(decoder.decode(tokenizer.decode_bytes(piece))) for piece in pieces)


def run(args: argparse.Namespace) -> None:
    directory = args.resume or args.out or Path("runs/causal")
    config = checkpoint.read_config(directory) if args.resume else prepare(args, directory)
    tokenizer = load_tokenizer(directory)
    train, validation = data.split(data.open_tokens(directory / "tokens.npy"))
    settings = training.TrainingConfig(**config["training"])
    rng = np.random.default_rng(settings.seed)
    model = build_model(config["model"], config["model_config"], rng)
    length = model.config.max_len
    stride = min(config["eval_stride"] or max(1, length // 2), length)
    print(f"{len(train):,} training and {len(validation):,} validation tokens, "
          f"vocabulary {tokenizer.vocab_size:,}; {config['model']} with "
          f"{model.count_parameters():,} parameters")  # fmt: skip
    records = common.train(
        model,
        lambda rng, count: sample_windows(train, count, length, rng),
        lambda: evaluation_windows(validation, max(1, 4096 // length), length, stride),
        settings,
        directory,
    )
    losses = {}
    for order in (3, 6):
        ngram = NGram.train(train[:NGRAM_TOKENS], order, tokenizer.vocab_size)
        losses[f"{order}-gram"] = ngram.evaluate(validation[:NGRAM_TOKENS])
    plot_losses(records, directory / "loss.png", losses)
    losses[config["model"]] = records[-1]["val_loss"]
    characters = count_characters(tokenizer, validation)
    print(f"{'validation':>12} {'nats/token':>10} {'perplexity':>10} {'nats/char':>10}")
    for name, loss in losses.items():
        per_character = metrics.nats_per_character(loss, len(validation), characters)
        print(f"{name:>12} {loss:10.4f} {metrics.perplexity(loss):10.3f} {per_character:10.4f}")
    prompt = validation[None, : min(length // 2, 32)]
    sample = generation.generate(model, prompt, 300, do_sample=True, temperature=0.8, rng=rng)
    print(f"\n{tokenizer.decode(sample[0])}\n\n{directory}: python scripts/generate.py {directory}")


if __name__ == "__main__":
    try:
        run(parse())
    except (ValueError, IndexError, OSError, FloatingPointError) as error:
        sys.exit(f"error: {error}")
