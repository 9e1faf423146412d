"""A run small enough to be trained hundreds of times, for the tests of training and resuming."""

from pathlib import Path
from typing import Any

import numpy as np

from minilm import training
from minilm.models import build_model
from minilm.objectives.causal import evaluation_windows, sample_windows

TEXT = np.frombuffer(b"the cat sat on the mat; the dog sat on the log. " * 20, np.uint8) % 32
MODEL = {"vocab_size": 32, "max_len": 8, "d_model": 8, "n_heads": 2, "n_layers": 1}


def tiny_model(family: str = "gpt", seed: int = 0, **fields: Any) -> Any:
    """A model of a few hundred parameters."""
    return build_model(family, {**MODEL, **fields}, np.random.default_rng(seed))


def tiny_trainer(directory: Path, dropout: float = 0.1, **settings: Any) -> training.Trainer:
    """A trainer over TEXT; everything that draws random numbers is switched on."""
    values = dict(
        max_steps=40, batch_size=4, optimizer="muon", learning_rate=1e-2, eval_interval=10,
        save_interval=4, log_interval=3, accumulation_steps=2, workers=2,
    )  # fmt: skip
    config = training.TrainingConfig(**{**values, **settings})
    model = tiny_model(dropout=dropout)
    train, validation = TEXT[:-100], TEXT[-100:]
    return training.Trainer(
        model,
        training.build_optimizer(model, config),
        lambda rng, count: sample_windows(train, count, 8, rng),
        lambda: evaluation_windows(validation, 16, 8),
        training.build_schedule(config),
        config,
        directory,
    )


def outcome(trainer: training.Trainer) -> tuple[dict[str, bytes], list[dict[str, Any]]]:
    """Every bit of the weights, and the records but for the speed."""
    weights = {name: array.tobytes() for name, array in trainer.model.state_dict().items()}
    records = training.read_records(trainer.directory)
    return weights, [{k: v for k, v in r.items() if k != "tokens_per_second"} for r in records]
