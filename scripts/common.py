"""What the training scripts share: flags from dataclasses, the progress bar, the loss curve."""

import argparse
import sys
import types
from collections.abc import Callable, Sequence
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_args, get_type_hints

if find_spec("tqdm") is None or find_spec("matplotlib") is None:
    sys.exit("error: the scripts need tqdm and matplotlib: pip install -e '.[scripts]'")

from tqdm import tqdm

from minilm import checkpoint, training


def add_fields(
    parser: argparse.ArgumentParser, *configs: type, without: Sequence[str] = ()
) -> None:
    """A flag for each field of the dataclasses but some: max_steps becomes --max-steps."""
    flags: dict[str, Any] = {}
    for config in configs:
        hints = get_type_hints(config)
        for field in fields(config):
            kind = hints[field.name]
            if isinstance(kind, types.UnionType):  # int | None
                kind = next(part for part in get_args(kind) if part is not type(None))
            if field.name not in without:
                flags.setdefault(field.name, kind)
    for name, kind in flags.items():
        flag = "--" + name.replace("_", "-")
        if kind is bool:
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, default=None)
        else:
            parser.add_argument(flag, type=kind, default=None, metavar=kind.__name__.upper())


def pick(config: type, values: dict[str, Any]) -> dict[str, Any]:
    """The entries of `values` that are fields of the dataclass."""
    return {f.name: values[f.name] for f in fields(config) if f.name in values}


class Bar:
    """A progress bar fed by a trainer's records."""

    def __init__(self, total: int, done: int = 0) -> None:
        self.bar = tqdm(total=total, initial=done, unit="step", dynamic_ncols=True)
        self.shown: dict[str, str] = {}

    def __call__(self, record: dict[str, Any]) -> None:
        self.shown |= {
            "loss": f"{record['train_loss']:.3f}",
            "lr": f"{record['learning_rate']:.1e}",
            "tok/s": f"{record['tokens_per_second']:,.0f}",
        }
        if "val_loss" in record:
            self.shown["val"] = f"{record['val_loss']:.3f}"
        self.bar.set_postfix(self.shown, refresh=False)
        self.bar.update(record["step"] - self.bar.n)

    def close(self) -> None:
        self.bar.close()


def train(
    model: Any,
    sample: Callable[..., Any],
    validation: Callable[[], Any],
    settings: training.TrainingConfig,
    directory: Path,
    before_step: Sequence[Callable[[int], None]] = (),
    begin: Callable[[], None] | None = None,
    resume: Path | None = None,
) -> list[dict[str, Any]]:
    """Begin the run, or go on with it, under a progress bar; its records.

    `begin` makes a run of a directory that is none, when nothing is left that could be refused.
    `resume` is what --resume takes to go on with it, the directory unless given.
    """
    optimizer = training.build_optimizer(model, settings)
    schedule = training.build_schedule(settings)
    trainer = training.Trainer(
        model, optimizer, sample, validation, schedule, settings, directory, before_step=before_step
    )
    if begin and not (directory / checkpoint.CONFIG).exists():
        begin()
    trainer.resume()
    bar = Bar(settings.max_steps, trainer.progress.step)
    trainer.callbacks = [bar]
    try:
        return trainer.run()
    except KeyboardInterrupt:
        sys.exit(f"stopped; go on with --resume {resume or directory}")
    finally:
        bar.close()


def plot_losses(
    records: list[dict[str, Any]],
    path: Path,
    lines: dict[str, float],
    ylabel: str = "loss (nats per token)",
) -> None:
    """Training and validation loss over the steps, baselines as dotted lines."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    for key, label, marker in (("train_loss", "training", ""), ("val_loss", "validation", "o")):
        points = [(record["step"], record[key]) for record in records if key in record]
        axes.plot(*zip(*points, strict=True), marker=marker, label=label)
    for i, (label, value) in enumerate(lines.items()):
        axes.axhline(value, linestyle=":", color=f"C{i + 2}", label=f"{label}: {value:.3f}")
    axes.set(xlabel="step", ylabel=ylabel)
    axes.legend()
    figure.savefig(path, dpi=120)
