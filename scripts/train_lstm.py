"""Train an LSTM beside a Transformer and an n-gram of as many parameters; draw the three curves.

    python scripts/train_lstm.py                             # the Python language reference
    python scripts/train_lstm.py --data my_notes/ --order 5 --out runs/notes
    python scripts/train_lstm.py --resume runs/lstm          # go on after an interruption

What it teaches: what a state can hold, and what looking back is worth. The Transformer is Llama's
block, of those with attention the one that learns fastest here. Both are fitted to the n-gram's
number of counts, within 2 %: first their width, then the embedding or the hidden layer. They are
trained alike but for the learning rate, on the same windows; the n-gram counts what they have
read, once.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

from causal_run import NGRAM_TOKENS, Trained, show_losses, train
from common import add_fields
from compare_runs import draw
from prepare import prepare, texts
from run_dir import parse_flags
from sizes import FAMILIES, fitted

from minilm import checkpoint, data, training
from minilm.models.ngram import NGram
from minilm.tokenizers import CharTokenizer

RECIPE: dict[str, Any] = dict(
    tokenizer="char", preset=None, order=6, max_len=128, batch_size=16, max_steps=3000,
    optimizer="adamw", warmup_steps=100, weight_decay=0.05,
)  # fmt: skip
RATES = {"lstm": 1e-2, "llama": 5e-3}  # of a few, what had learned most after 250 steps


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", action="append", help="a text file or directory; repeatable")
    parser.add_argument("--out", type=Path, help="default: runs/lstm")
    parser.add_argument("--overwrite", action="store_true", default=None, help="replace that run")
    parser.add_argument("--resume", type=Path, metavar="RUN_DIR")
    parser.add_argument("--order", type=int, help="of the n-gram; default: 6")
    parser.add_argument("--max-len", type=int, help="the length of a window; default: 128")
    parser.add_argument("--eval-stride", type=int, help="default: half a window")
    add_fields(parser, training.TrainingConfig)
    return parse_flags(parser)


def begin(args: argparse.Namespace, directory: Path) -> None:
    """Prepare a run for each family: one text, one recipe."""
    given = {name: value for name, value in vars(args).items() if value is not None}
    flags = {**RECIPE, "data": None, "overwrite": None, **given}
    tokenizer = CharTokenizer.train(texts(args))
    tokens = tokenizer.encode_array("".join(texts(args)))
    train_tokens = data.split(tokens)[0][:NGRAM_TOKENS]
    ngram = NGram.train(train_tokens, flags["order"], tokenizer.vocab_size)
    fields = {name: fitted(name, ngram.parameters, tokenizer.vocab_size) for name in FAMILIES}
    for family, sizes in fields.items():
        own = {"model": family, "learning_rate": flags.get("learning_rate", RATES[family])}
        config = prepare(argparse.Namespace(**{**flags, **sizes, **own}), directory / family)
        checkpoint.write_config(directory / family, {**config, "order": flags["order"]})


def count_grams(run: Trained, order: int, per_step: int) -> tuple[int, list[dict[str, Any]]]:
    """How many counts the n-gram keeps, and its loss after as many tokens as the others read."""
    tokens, validation = run.train[:NGRAM_TOKENS], run.validation[:NGRAM_TOKENS]
    last, whole = run.records[-1]["step"], -(-len(tokens) // per_step)  # once through the text
    steps = {record["step"] for record in run.records if "val_loss" in record}
    steps |= {whole >> k for k in range(7)}  # where it learns
    models: dict[int, NGram] = {}
    records = []
    for step in sorted(step for step in steps if 0 < step <= last):
        seen = min(step, whole)
        if seen not in models:
            models[seen] = NGram.train(tokens[: seen * per_step], order, run.tokenizer.vocab_size)
        records.append({"step": step, "val_loss": models[seen].evaluate(validation)})
    return models[seen].parameters, records


def run(args: argparse.Namespace) -> None:
    directory = args.resume or args.out or Path("runs/lstm")
    if not args.resume:
        begin(args, directory)
    runs = {family: train(directory / family, directory) for family in FAMILIES}
    config, one = checkpoint.read_config(directory / "lstm"), runs["lstm"]
    settings = training.TrainingConfig(**config["training"])
    per_step = settings.batch_size * settings.accumulation_steps * one.model.config.max_len
    counts, records = count_grams(one, config["order"], per_step)
    ngram = f"{config['order']}-gram"
    print(f"{ngram} with {counts:,} counts")
    curves = {**{name: run.records for name, run in runs.items()}, ngram: records}
    draw(curves, directory / "curves.png")
    losses = {name: curve[-1]["val_loss"] for name, curve in curves.items()}
    show_losses(losses, one.tokenizer, one.validation)
    print(f"\n{directory}: the runs, with curves.png")


if __name__ == "__main__":
    try:
        run(parse())
    except (ValueError, IndexError, OSError, FloatingPointError) as error:
        sys.exit(f"error: {error}")
