"""Pre-train a small BERT: hidden tokens, and whether one text follows another.

    python scripts/train_mlm.py                              # the Python language reference
    python scripts/train_mlm.py --docstrings --max-steps 14000 --out runs/library
    python scripts/train_mlm.py --data my_notes/ --vocab-size 8000 --out runs/notes
    python scripts/train_mlm.py --resume runs/mlm            # go on after an interruption

What it teaches: masking, sentence pairs, and how much of a hidden token one sees from how often it
occurs (unigram), from its two neighbours (bigrams), and from the whole row (BERT).
The default ends near 3.1 nats per hidden token, where the unigram guess has 5.72 and the bigrams,
which see both neighbours unhidden, 3.78.
"""

import argparse
import sys
from functools import partial
from pathlib import Path

import common
from baselines import NeighbourGuess, masked_accuracy
from common import add_fields, plot_losses
from prepare_mlm import build, make_batches, read
from run_dir import begin, new_or_resumed, parse_flags

from minilm import metrics, training
from minilm.models.bert import BertConfig
from minilm.objectives.masked import Masking


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", action="append", default=[], help="a text file or directory; repeatable"
    )
    parser.add_argument("--docstrings", action="store_true", help="the standard library's, too")
    parser.add_argument("--out", type=Path, default=Path("runs/mlm"))
    parser.add_argument("--resume", type=Path, metavar="RUN_DIR")
    add_fields(parser, BertConfig, training.TrainingConfig, without=["n_labels"])
    return parse_flags(parser)


def main(args: argparse.Namespace) -> None:
    args = new_or_resumed(args, "data")
    text, documents = read(args.data, args.docstrings)
    tokenizer, model, settings = build(args, text)
    masking = Masking.of(tokenizer)
    train, validation = make_batches(documents, tokenizer, masking, model)
    print(f"{len(train.documents.tokens):,} training and {len(validation.documents.tokens):,} "
          f"validation tokens, vocabulary {tokenizer.vocab_size:,}; bert with "
          f"{model.count_parameters():,} parameters")  # fmt: skip
    guesses = NeighbourGuess(train.evaluation(64), tokenizer.vocab_size, masking)
    rows = guesses.evaluate(validation.evaluation(64))
    records = common.train(
        model, train.sample, lambda: validation.evaluation(64), settings, args.out,
        begin=partial(begin, args, tokenizer, model, settings),
    )  # fmt: skip
    lines = {f"{name} (hidden tokens alone)": loss for name, (loss, _) in rows.items()}
    ylabel = "loss (nats per hidden token + nats per pair)"
    plot_losses(records, args.out / "loss.png", lines, ylabel)
    rows["bert"] = masked_accuracy(model, validation.evaluation(64))
    print(f"{'hidden tokens':>14} {'nats':>8} {'perplexity':>10} {'accuracy':>9}")
    for name, (loss, accuracy) in rows.items():
        print(f"{name:>14} {loss:8.4f} {metrics.perplexity(loss):10.2f} {accuracy:9.3f}")
    print(f"\n{args.out}: the run, with loss.png")


if __name__ == "__main__":
    try:
        main(parse())
    except (ValueError, IndexError, OSError, FloatingPointError) as error:
        sys.exit(f"error: {error}")
