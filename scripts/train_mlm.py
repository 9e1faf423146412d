"""Pre-train a small BERT: hidden tokens, and whether one text follows another.

    python scripts/train_mlm.py                              # the Python language reference
    python scripts/train_mlm.py --docstrings --max-steps 14000 --out runs/library
    python scripts/train_mlm.py --data my_notes/ --vocab-size 8000 --out runs/notes
    python scripts/train_mlm.py --resume runs/mlm            # go on after an interruption

What it teaches: masking, sentence pairs, and how much of a hidden token one sees from how often it
occurs (unigram), from its two neighbours (bigrams), and from the whole row (BERT).
The default takes under three minutes on two cores and ends near 3.63 nats per hidden token, where
the unigram guess has 5.70 and the bigrams, which see both neighbours unhidden, 4.20.
"""

import argparse
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import common
import library
import numpy as np
from baselines import NeighbourGuess, masked_accuracy
from common import add_fields, pick, plot_losses

from minilm import checkpoint, data, kernels, metrics, training
from minilm.models import build_model
from minilm.models.bert import BertConfig
from minilm.objectives.masked import Masking
from minilm.objectives.next_sentence import Documents, PretrainingBatches, split_documents
from minilm.tokenizers import WordPieceTokenizer, load_tokenizer

DOCUMENT = 20  # sentences at least: short paragraphs are joined to those behind them
DEFAULTS: dict[str, Any] = dict(
    vocab_size=2048, max_len=64, d_model=128, n_heads=4, n_layers=3, d_ff=512, dropout=0.0,
    init_std=0.05, batch_size=32, max_steps=2000, optimizer="muon", learning_rate=4e-3,
    muon_learning_rate=0.02, beta2=0.99, weight_decay=0.05, schedule="linear", hold=0.4,
    warmup_steps=50,
)  # fmt: skip


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
    add_fields(parser, BertConfig, training.TrainingConfig)
    return parser.parse_args()


def read(paths: list[str], docstrings: bool) -> tuple[str, list[list[str]]]:
    """The text, and its documents as sentences."""
    text = "".join(data.read_texts(paths)) if paths else data.embedded_corpus()
    if docstrings:
        text += "\n\n" + library.pretraining_text()
    documents: list[list[str]] = [[]]
    for paragraph in split_documents(text):
        if len(documents[-1]) >= DOCUMENT:
            documents.append([])
        documents[-1] += paragraph
    return text, documents


def prepare(args: argparse.Namespace) -> tuple[Path, dict[str, Any]]:
    """The directory and configuration of a run; a new run's tokenizer is trained here."""
    if args.resume:
        return args.resume, checkpoint.read_config(args.resume)
    if (args.out / checkpoint.CONFIG).exists():
        raise ValueError(
            f"{args.out}: expected no run there, got one; go on with --resume {args.out}, or "
            "choose another --out"
        )
    given = {name: value for name, value in vars(args).items() if value is not None}
    values = {**DEFAULTS, **given}
    values["workers"] = values.get("workers") or kernels.cores()
    settings = training.TrainingConfig(**pick(training.TrainingConfig, values))
    tokenizer = WordPieceTokenizer.train(read(args.data, args.docstrings)[0], values["vocab_size"])
    values["vocab_size"] = tokenizer.vocab_size
    model_config = pick(BertConfig, values)
    build_model("bert", model_config, np.random.default_rng(0))  # what is refused, is refused now
    args.out.mkdir(parents=True, exist_ok=True)
    tokenizer.save(args.out)
    paths = [str(Path(path).resolve()) for path in args.data]
    config = {"model": "bert", "model_config": model_config, "training": asdict(settings)}
    config |= {"data": paths, "docstrings": args.docstrings}
    checkpoint.write_config(args.out, config)
    return args.out, config


def run(args: argparse.Namespace) -> None:
    directory, config = prepare(args)
    tokenizer = load_tokenizer(directory)
    settings = training.TrainingConfig(**config["training"])
    model = build_model("bert", config["model_config"], np.random.default_rng(settings.seed))
    documents = [
        [tokenizer.encode(sentence, disallowed_special=()) for sentence in document]
        for document in read(config["data"], config["docstrings"])[1]
    ]
    held_back = documents[9::10]
    documents = [document for i, document in enumerate(documents) if i % 10 != 9]
    masking, length = Masking.of(tokenizer), model.config.max_len
    train, validation = (
        PretrainingBatches(Documents(part), masking, length) for part in (documents, held_back)
    )
    print(f"{len(train.documents.tokens):,} training and {len(validation.documents.tokens):,} "
          f"validation tokens, vocabulary {tokenizer.vocab_size:,}; bert with "
          f"{model.count_parameters():,} parameters")  # fmt: skip
    guesses = NeighbourGuess(train.evaluation(64), tokenizer.vocab_size, masking)
    rows = guesses.evaluate(validation.evaluation(64))
    records = common.train(
        model, train.sample, lambda: validation.evaluation(64), settings, directory
    )
    lines = {f"{name} (hidden tokens alone)": loss for name, (loss, _) in rows.items()}
    plot_losses(records, directory / "loss.png", lines)
    rows["bert"] = masked_accuracy(model, validation.evaluation(64))
    print(f"{'hidden tokens':>14} {'nats':>8} {'perplexity':>10} {'accuracy':>9}")
    for name, (loss, accuracy) in rows.items():
        print(f"{name:>14} {loss:8.4f} {metrics.perplexity(loss):10.2f} {accuracy:9.3f}")
    print(f"\n{directory}: the run, with loss.png")


if __name__ == "__main__":
    try:
        run(parse())
    except (ValueError, IndexError, OSError, FloatingPointError) as error:
        sys.exit(f"error: {error}")
