"""What makes a directory a run: its tokenizer and configuration, written once, read to go on."""

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

from minilm import checkpoint, training
from minilm.models import MODELS
from minilm.tokenizers import Tokenizer


def parse_flags(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The flags; beside --resume there may be no other, as the run's own are gone on with."""
    args = parser.parse_args()
    unset = argparse.Namespace(**dict.fromkeys(vars(args)))
    flags = vars(parser.parse_args(namespace=unset))
    given = [name for name, value in flags.items() if value is not None]
    if args.resume and given != ["resume"]:
        parser.error("--resume goes on with the run's own configuration: give no other flag")
    return args


def new_or_resumed(args: argparse.Namespace, *paths: str) -> argparse.Namespace:
    """The flags that the run was begun with; of a new one its own, with absolute `paths`.

    Raises: ValueError — a new run where there is one, another script's run to go on with.
    """
    if args.resume is None:
        refuse_run(args.out)
        for name in paths:
            given = getattr(args, name)
            if isinstance(given, list):
                setattr(args, name, [str(Path(path).resolve()) for path in given])
            elif given:
                setattr(args, name, str(Path(given).resolve()))
        return args
    flags = checkpoint.read_config(args.resume).get("flags", {})
    if not set(vars(args)) <= set(flags):
        raise ValueError(
            f"{args.resume}: expected a run of this script, got another's; go on with it by the "
            "script that began it"
        )
    return argparse.Namespace(**{**flags, "out": args.resume, "resume": args.resume})


def refuse_run(directory: Path, instead: str = "or choose another --out") -> None:
    """Raises: ValueError — there is a run in the directory."""
    if (directory / checkpoint.CONFIG).exists():
        raise ValueError(
            f"{directory}: expected no run there, got one; go on with --resume {directory}, "
            f"{instead}"
        )


def begin(
    args: argparse.Namespace,
    tokenizer: Tokenizer,
    model: Any,
    settings: training.TrainingConfig,
    **more: Any,
) -> None:
    """Write down what the run is, so that it can be resumed and its model loaded."""
    args.out.mkdir(parents=True, exist_ok=True)
    tokenizer.save(args.out)
    name = next(name for name, (_, kind) in MODELS.items() if kind is type(model))
    flags = {n: str(value) if isinstance(value, Path) else value for n, value in vars(args).items()}
    config = {"model": name, "model_config": asdict(model.config), "training": asdict(settings)}
    checkpoint.write_config(args.out, {**config, **more, "flags": flags})
