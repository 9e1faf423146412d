"""Train a causal language model on text, from characters to samples.

    python scripts/train_causal.py                              # the Python language reference
    python scripts/train_causal.py --data my_notes/ --tokenizer bpe --out runs/notes
    python scripts/train_causal.py --preset nanogpt-cpu --data shakespeare.txt
    python scripts/train_causal.py --resume runs/causal         # go on after an interruption

What it teaches: tokens, windows, the loss of the next token, and how hard a good n-gram is to beat.
The default takes about three minutes on two cores and ends at a validation loss near 1.11 nats
per character, below every n-gram model from order 1 to 8.
"""

import argparse
import sys
from pathlib import Path

from causal_run import NGRAM_TOKENS, show_losses, train
from common import add_fields, plot_losses
from prepare import prepare
from presets import PRESETS
from run_dir import parse_flags

from minilm import checkpoint, generation, training
from minilm.models import CAUSAL
from minilm.models.ngram import NGram


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
    return parse_flags(parser)


def run(args: argparse.Namespace) -> None:
    directory = args.resume or args.out or Path("runs/causal")
    name = (checkpoint.read_config(directory) if args.resume else prepare(args, directory))["model"]
    model, tokenizer, tokens, validation, records = train(directory)
    losses = {}
    for order in (3, 6):
        ngram = NGram.train(tokens[:NGRAM_TOKENS], order, tokenizer.vocab_size)
        losses[f"{order}-gram"] = ngram.evaluate(validation[:NGRAM_TOKENS])
    plot_losses(records, directory / "loss.png", losses)
    show_losses({**losses, name: records[-1]["val_loss"]}, tokenizer, validation)
    prompt, rng = validation[None, : min(model.config.max_len // 2, 32)], model.rng
    sample = generation.generate(model, prompt, 300, do_sample=True, temperature=0.8, rng=rng)
    print(f"\n{tokenizer.decode(sample[0])}\n\n{directory}: python scripts/generate.py {directory}")


if __name__ == "__main__":
    try:
        run(parse())
    except (ValueError, IndexError, OSError, FloatingPointError) as error:
        sys.exit(f"error: {error}")
