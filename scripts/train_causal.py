"""Train a causal language model on text, from characters to samples.

    python scripts/train_causal.py                              # the Python language reference
    python scripts/train_causal.py --data my_notes/ --tokenizer bpe --out runs/notes
    python scripts/train_causal.py --preset nanogpt-cpu --data shakespeare.txt
    python scripts/train_causal.py --resume runs/causal         # go on after an interruption

What it teaches: tokens, windows, the loss of the next token, and how hard a good n-gram is to beat.
The default takes about TIME on two cores and ends at a validation loss near LOSS.
"""

import argparse
import sys
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from common import Bar, add_fields, pick, plot_losses
from presets import PRESETS

from minilm import checkpoint, data, generation, metrics, training
from minilm.models import MODELS, build_model
from minilm.models.ngram import NGram
from minilm.objectives.causal import evaluation_windows, sample_windows
from minilm.tokenizers import BPETokenizer, CharTokenizer, load_tokenizer

NGRAM_TOKENS = 5_000_000  # the baseline counts in memory; it sees at most so many tokens


def configure(args: argparse.Namespace) -> dict[str, Any]:
    """The run's configuration: the preset's values, changed by the flags that were given."""
    given = {name: value for name, value in vars(args).items() if value is not None}
    values = {**PRESETS[args.preset], **given}
    config_class, _ = MODELS[values["model"]]
    unused = {n for c, _ in MODELS.values() for n in c.__dataclass_fields__ if n in given}
    unused -= set(config_class.__dataclass_fields__)
    if unused:
        raise ValueError(f"--model {values['model']}: expected its own fields, got {unused}")
    return {
        "model": values["model"],
        "model_config": pick(config_class, values),
        "training": asdict(training.TrainingConfig(**pick(training.TrainingConfig, values))),
        "tokenizer": values["tokenizer"],
        "eval_stride": values.get("eval_stride"),
    }


def prepare(args: argparse.Namespace, directory: Path) -> dict[str, Any]:
    """Tokenizer, token file and configuration of a new run; the configuration is written last."""
    if (directory / checkpoint.CONFIG).exists() and not args.overwrite:
        raise ValueError(
            f"{directory}: expected no run there, got one; go on with --resume {directory}, "
            "choose another --out, or replace it with --overwrite"
        )
    config = configure(args)

    def texts() -> Iterable[str]:
        return data.read_texts(args.data) if args.data else [data.embedded_corpus()]

    tokenizer: Any
    if config["tokenizer"] == "char":
        tokenizer = CharTokenizer.train(texts())
    else:
        tokenizer = BPETokenizer.train(texts(), args.vocab_size or 1024)
    for name in (checkpoint.CONFIG, checkpoint.CHECKPOINT, checkpoint.BEST, training.METRICS):
        (directory / name).unlink(missing_ok=True)
    tokenizer.save(directory)
    data.write_tokens(texts(), tokenizer, directory / "tokens.npy")
    config["model_config"]["vocab_size"] = tokenizer.vocab_size
    checkpoint.write_config(directory, config)
    return config


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", action="append", help="a text file or directory; repeatable")
    parser.add_argument("--out", type=Path, default=Path("runs/causal"))
    parser.add_argument("--overwrite", action="store_true", help="replace the run in --out")
    parser.add_argument("--resume", type=Path, metavar="RUN_DIR")
    parser.add_argument("--preset", choices=PRESETS, default="default")
    parser.add_argument("--model", choices=MODELS)
    parser.add_argument("--tokenizer", choices=("char", "bpe"))
    parser.add_argument("--eval-stride", type=int, help="default: half a window")
    add_fields(parser, *(config for config, _ in MODELS.values()), training.TrainingConfig)
    return parser.parse_args()


def run(args: argparse.Namespace) -> None:
    directory = args.resume or args.out
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
    trainer = training.Trainer(
        model,
        training.build_optimizer(model, settings),
        lambda rng, count: sample_windows(train, count, length, rng),
        lambda: evaluation_windows(validation, 32, length, stride),
        training.build_schedule(settings),
        settings,
        directory,
    )
    trainer.resume()
    bar = Bar(settings.max_steps, trainer.progress.step)
    trainer.callbacks = [bar]
    records = trainer.run()
    bar.close()
    losses = {}
    for order in (3, 6):
        ngram = NGram.train(train[:NGRAM_TOKENS], order, tokenizer.vocab_size)
        losses[f"{order}-gram"] = ngram.evaluate(validation)
    plot_losses(records, directory / "loss.png", losses)
    losses[config["model"]] = records[-1]["val_loss"]
    characters = len(tokenizer.decode(validation))
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
    except (ValueError, FloatingPointError) as error:
        sys.exit(f"error: {error}")
