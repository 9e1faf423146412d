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

from minilm import training


def add_fields(parser: argparse.ArgumentParser, *configs: type) -> None:
    """A flag for each field of the dataclasses: max_steps becomes --max-steps."""
    flags: dict[str, Any] = {}
    for config in configs:
        hints = get_type_hints(config)
        for field in fields(config):
            kind = hints[field.name]
            if isinstance(kind, types.UnionType):  # int | None
                kind = next(part for part in get_args(kind) if part is not type(None))
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
) -> list[dict[str, Any]]:
    """Begin the run, or go on with it, under a progress bar; its records."""
    trainer = training.Trainer(
        model,
        training.build_optimizer(model, settings),
        sample,
        validation,
        training.build_schedule(settings),
        settings,
        directory,
        before_step=before_step,
    )
    trainer.resume()
    bar = Bar(settings.max_steps, trainer.progress.step)
    trainer.callbacks = [bar]
    records = trainer.run()
    bar.close()
    return records


def plot_losses(records: list[dict[str, Any]], path: Path, lines: dict[str, float]) -> None:
    """Training and validation loss over the steps, baselines as dotted lines."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    evaluated = [r for r in records if "val_loss" in r]
    axes.plot(*zip(*((r["step"], r["train_loss"]) for r in records), strict=True), label="training")
    axes.plot(
        *zip(*((r["step"], r["val_loss"]) for r in evaluated), strict=True),
        marker="o",
        label="validation",
    )
    for i, (label, value) in enumerate(lines.items()):
        axes.axhline(value, linestyle=":", color=f"C{i + 2}", label=f"{label}: {value:.3f}")
    axes.set(xlabel="step", ylabel="loss (nats per token)")
    axes.legend()
    figure.savefig(path, dpi=120)
