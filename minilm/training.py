"""The training loop, once: accumulate, clip, update, evaluate, stop early, save, resume."""

import json
import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from minilm import checkpoint, kernels
from minilm.files import replacing
from minilm.nn import Module, evaluation_mode
from minilm.nn.module import layer_groups
from minilm.objectives.causal import Batch
from minilm.optim import (
    AdamW,
    Group,
    Muon,
    Optimizer,
    Optimizers,
    Schedule,
    clip_grad_norm,
    constant_schedule,
    cosine_schedule,
    decay_groups,
    inverse_sqrt_schedule,
    linear_schedule,
)
from minilm.tensor import Array, Tensor, no_grad, walk

Record = dict[str, Any]
OPTIMIZERS = ("adamw", "muon")
SCHEDULES = ("cosine", "linear", "constant", "inverse_sqrt")
METRICS = "metrics.jsonl"


# --- One step ---------------------------------------------------------------------------------


def train_step(
    model: Any,
    optimizer: Optimizer | Optimizers,
    batch: Batch | Sequence[Batch],
    max_grad_norm: float | None = None,
    workers: int | None = None,
) -> float:
    """One whole step: zero, forward, backward, clip, update. Returns the loss before the update.

    `batch` holds the model's arguments, the first axis of each being the batch. Several batches
    are accumulated: the gradient is that of the mean over all their targets, as if they were one.
    The rows are dealt to `workers` threads (as many as there are cores, unless given), each of
    which does its whole forward and backward pass with one-thread matrix products; the sum of
    their gradients is the gradient of the whole. Equal numbers of workers give equal bits.

    Raises: FloatingPointError — the loss or the gradient's norm is not finite; the parameters are
        as before.

    `model(**batch).loss` is a mean over `model.count_targets(batch)` targets, or a weighted one,
    and then count_targets is the sum of the weights. Where the loss is a sum of means over
    different targets, the output has them as `losses`, and count_targets gives a number for each.
    `model.rng` seeds the threads' dropout.
    """
    batches = [batch] if isinstance(batch, dict) else batch
    workers = kernels.cores() if workers is None else workers
    with kernels.blas_threads(1):
        optimizer.zero_grad()
        loss = accumulate_gradients(model, optimizer, batches, workers)
        norm = 0.0
        if max_grad_norm is not None:
            norm = clip_grad_norm(optimizer.parameters, max_grad_norm)
        if not math.isfinite(loss + norm):
            raise FloatingPointError(
                f"train_step: expected a finite loss and gradient, got loss {loss}, gradient norm "
                f"{norm}, and changed nothing; lower the learning rate or lengthen the warm-up"
            )
        optimizer.step(workers)
    return loss


def accumulate_gradients(
    model: Any, optimizer: Optimizer | Optimizers, batches: Sequence[Batch], workers: int
) -> float:
    """Put the gradient of the batches' mean loss into the parameters' `.grad`; that loss."""
    lanes: list[list[Batch]] = [[] for _ in range(workers)]
    for batch in batches:
        for lane, shard in zip(lanes, split_batch(batch, workers), strict=False):
            lane.append(shard)
    counts = [[np.atleast_1d(model.count_targets(shard)) for shard in lane] for lane in lanes]
    total = sum(count for lane in counts for count in lane)
    rngs = _spawn(model.rng, len(lanes))
    jobs = [
        partial(_lane_gradients, model, lane, [n / _or_one(total) for n in shares], rng)
        for lane, shares, rng in zip(lanes, counts, rngs, strict=True)
    ]
    losses, gradients = zip(*kernels.run_parallel(jobs), strict=True)
    buffers = optimizer.gradient_buffers()
    shares = [buffers[i::workers] for i in range(workers)]
    kernels.run_parallel([partial(_add_up, share, gradients) for share in shares])
    return float(sum(losses))


def _add_up(
    buffers: Sequence[tuple[Tensor, Array]], gradients: Sequence[dict[Tensor, Array]]
) -> None:
    """Set each parameter's `.grad` to the sum of what the lanes found, in its buffer."""
    for parameter, buffer in buffers:
        parts = [lane[parameter] for lane in gradients if parameter in lane]
        if parts:
            np.add(parts[0], parts[1] if len(parts) > 1 else 0, out=buffer)
            for part in parts[2:]:
                buffer += part
            parameter.grad = buffer


def split_batch(batch: Batch, workers: int) -> list[Batch]:
    """The batch's rows in up to `workers` parts of nearly equal size."""
    rows = {name: len(array) for name, array in batch.items()}
    if len(set(rows.values())) != 1:
        raise ValueError(
            f"batch: expected arrays with equally many rows, got {rows}; the first axis of each "
            "is the batch"
        )
    count = next(iter(rows.values()))
    edges = np.linspace(0, count, max(1, min(workers, count)) + 1).astype(int)
    return [
        {name: array[start:stop] for name, array in batch.items()}
        for start, stop in zip(edges, edges[1:], strict=False)
    ]


def _spawn(rng: np.random.Generator | None, count: int) -> list[np.random.Generator | None]:
    """One generator for each lane, drawn from `rng`, so that saving rng's state saves them all."""
    if rng is None:
        return [None] * count
    return [np.random.default_rng(seed) for seed in rng.integers(0, 2**63, count)]


def _lane_gradients(
    model: Any,
    shards: Sequence[Batch],
    weights: Sequence[Array],
    rng: np.random.Generator | None,
) -> tuple[float, dict[Tensor, Array]]:
    """Σ weight · loss over shards and terms, and its gradients, beside what other threads do."""
    gradients: dict[Tensor, Array] = {}

    def accumulate(leaf: Tensor, gradient: Array) -> None:
        gradients[leaf] = gradients[leaf] + gradient if leaf in gradients else gradient

    total = 0.0
    for shard, shares in zip(shards, weights, strict=True):
        terms = _terms(model(**shard, rng=rng))
        first, *others = (term * float(share) for term, share in zip(terms, shares, strict=True))
        loss = sum(others, first)
        walk(loss, np.ones(loss.shape, loss.dtype), accumulate)
        total += sum(term.item() * share for term, share in zip(terms, shares, strict=True))
    return total, gradients


def _terms(output: Any) -> Sequence[Tensor]:
    """The means whose sum is the loss."""
    return getattr(output, "losses", ()) or (output.loss,)


@no_grad()
def _shard_loss(model: Any, shard: Batch, counts: Array) -> Array:
    """The sum over the targets, of each term."""
    if not counts.any():
        return np.zeros(len(counts))
    return np.array([term.item() for term in _terms(model(**shard))]) * counts


def evaluate(model: Module, batches: Iterable[Batch], workers: int | None = None) -> float:
    """The mean loss over all targets of all batches, without dropout; of several terms the sum.

    Raises: ValueError — there is no target.
    """
    workers = kernels.cores() if workers is None else workers
    losses, targets = np.zeros(1), np.zeros(1)
    with kernels.blas_threads(1), evaluation_mode(model):
        for batch in batches:
            shards = split_batch(batch, workers)
            counts = [np.atleast_1d(model.count_targets(s)) for s in shards]  # type: ignore[attr-defined]
            jobs = [partial(_shard_loss, model, *pair) for pair in zip(shards, counts, strict=True)]
            losses = losses + sum(kernels.run_parallel(jobs))
            targets = targets + sum(counts)
    if not targets.any():
        raise ValueError("evaluate: expected at least one target, got none; give more text")
    return float(np.sum(losses / _or_one(targets)))


def _or_one(total: Array | int) -> Array:
    """What to divide by: 1 where there is no target. Weighted targets may sum to less than 1."""
    return np.where(total > 0, total, 1)


# --- The loop ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class TrainingConfig:
    """How long, how often, with what.

    The learning rate rises for `warmup_steps`, stays for the share `hold` of the steps (linear
    schedule only), and falls to min_learning_rate by the `schedule`: cosine, linear, constant or
    inverse_sqrt. The optimizer is adamw, or muon: Muon at muon_learning_rate for the matrices of
    the blocks, AdamW for the rest. `workers` 0 means as many threads as there are cores.

    With layer_decay < 1 lower layers learn more slowly, at

        ηₗ = η · layer_decay^(groups above l)

    over `nn.module.layer_groups`: the head at η, the last block at η · layer_decay, and so on
    down to the embeddings. Source: discriminative fine-tuning in Howard & Ruder 2018, arXiv
    1801.06146, section 3.2; Clark et al. 2020, arXiv 2003.10555, appendix B.
    """

    max_steps: int = 1000
    batch_size: int = 16
    accumulation_steps: int = 1
    optimizer: str = "adamw"
    learning_rate: float = 1e-3
    min_learning_rate: float = 0.0
    muon_learning_rate: float = 0.02
    beta1: float = 0.9
    beta2: float = 0.99
    weight_decay: float = 0.0
    layer_decay: float = 1.0
    schedule: str = "cosine"
    warmup_steps: int = 0
    hold: float = 0.0
    max_grad_norm: float = 1.0
    log_interval: int = 10
    eval_interval: int = 250
    save_interval: int = 250
    patience: int = 0  # stop after so many evaluations without a new best; 0 never stops
    seed: int = 0
    workers: int = 0

    def __post_init__(self) -> None:
        for name, least in {
            **dict.fromkeys(("max_steps", "batch_size", "accumulation_steps"), 1),
            **dict.fromkeys(("log_interval", "eval_interval", "save_interval"), 1),
            **dict.fromkeys(("patience", "seed", "workers", "warmup_steps", "weight_decay"), 0),
            **dict.fromkeys(("min_learning_rate", "muon_learning_rate"), 0),
        }.items():
            if getattr(self, name) < least:
                raise self._error(name, f"{name} >= {least}")
        for name in ("beta1", "beta2", "hold"):
            if not 0 <= getattr(self, name) < 1:
                raise self._error(name, f"0 <= {name} < 1")
        for name in ("learning_rate", "max_grad_norm"):
            if not getattr(self, name) > 0:
                raise self._error(name, f"{name} > 0")
        if not 0 < self.layer_decay <= 1:
            raise ValueError(
                f"TrainingConfig: expected 0 < layer_decay <= 1, got {self.layer_decay}; 1 gives "
                "all layers one learning rate"
            )
        for name, choices in (("optimizer", OPTIMIZERS), ("schedule", SCHEDULES)):
            if getattr(self, name) not in choices:
                raise self._error(name, f"{name} to be one of {', '.join(choices)}")

    def _error(self, name: str, expected: str) -> ValueError:
        return ValueError(
            f"TrainingConfig: expected {expected}, got {getattr(self, name)!r}; its default is "
            f"{getattr(TrainingConfig, name)!r}"
        )


def build_optimizer(model: Module, config: TrainingConfig) -> Optimizer | Optimizers:
    """The configuration's optimizer, holding the model's parameters that are not frozen.

    What is frozen now is never trained by it; what is frozen later can be unfrozen again.

    Raises: ValueError — layer_decay < 1 for a model without blocks.
    """
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    hidden: list[Tensor] = []
    if config.optimizer == "muon":
        hidden = [p for name, p in named.items() if p.ndim == 2 and "blocks" in name.split(".")]
    chosen = set(map(id, hidden))
    rest = decay_groups([p for p in named.values() if id(p) not in chosen], config.weight_decay)
    factors = _layer_factors(model, config.layer_decay)
    adamw = AdamW(
        _by_layer(rest, config.learning_rate, factors),
        lr=config.learning_rate,
        betas=(config.beta1, config.beta2),
    )
    if not hidden:
        return adamw
    rate = config.muon_learning_rate
    groups = _by_layer([{"params": hidden}], rate, factors)
    return Optimizers(adamw, Muon(groups, lr=rate, weight_decay=config.weight_decay))


def _layer_factors(model: Module, decay: float) -> dict[Tensor, float]:
    """Each parameter's factor of the learning rate; none are listed where all are 1."""
    if decay == 1:
        return {}
    from_the_top = enumerate(reversed(layer_groups(model)))
    return {p: decay**distance for distance, layer in from_the_top for p in layer}


def _by_layer(
    groups: Iterable[Group], learning_rate: float, factors: dict[Tensor, float]
) -> list[Group]:
    """The groups cut where the factor changes: the order, and so a saved state's, stays."""
    return [
        {**group, "params": list(parameters), "lr": learning_rate * factor}
        for group in groups
        for factor, parameters in groupby(group["params"], lambda p: factors.get(p, 1.0))
    ]


def build_schedule(config: TrainingConfig) -> Schedule:
    """The configuration's schedule."""
    steps, warmup = config.max_steps, config.warmup_steps
    final = config.min_learning_rate / config.learning_rate
    match config.schedule:
        case "cosine":
            return cosine_schedule(steps, warmup, final)
        case "linear":
            return linear_schedule(steps, warmup, final, config.hold)
        case "inverse_sqrt":
            return inverse_sqrt_schedule(max(1, warmup))
    return constant_schedule(warmup)


@dataclass
class Progress:
    """Where a run stands; saved with it."""

    step: int = 0  # steps done
    best_loss: float = math.inf
    evaluations_since_best: int = 0
    loss_sum: float = 0.0  # of the steps since the last record
    steps_since_record: int = 0
    stopped: bool = False


@dataclass
class Trainer:
    """A run: a model, its optimizer, where batches come from, and a directory that keeps it.

    `sample(rng, batch_size)` draws a training batch, all its randomness from `rng`;
    `validation()` gives the batches of a whole evaluation. `schedule` maps a step to the factor of
    the learning rate. Each record, a dict, goes to `metrics.jsonl` and to the `callbacks`.
    `before_step` are called with the number of steps done before each step, to freeze and unfreeze
    parameters, say. A function of that number alone keeps a resumed run exact.
    """

    model: Any
    optimizer: Optimizer | Optimizers
    sample: Callable[[np.random.Generator, int], Batch]
    validation: Callable[[], Iterable[Batch]]
    schedule: Schedule
    config: TrainingConfig
    directory: Path
    callbacks: Sequence[Callable[[Record], None]] = ()
    progress: Progress = field(default_factory=Progress)
    before_step: Sequence[Callable[[int], None]] = ()

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.config.seed)
        self.workers = self.config.workers or kernels.cores()
        self.directory = Path(self.directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        for name in (checkpoint.CHECKPOINT, checkpoint.BEST, METRICS):
            for left_over in self.directory.glob(f".{name}.*.tmp"):  # of a writer that was killed
                left_over.unlink()

    def run(self) -> list[Record]:
        """Train to the end of the configuration, or until it stops early; all records so far.

        `checkpoint.npz` is the run as it stands, `best.npz` the model with the lowest validation
        loss. The last record is the final evaluation.
        """
        records = self._keep_records()
        clock = _Clock()
        while self.progress.step < self.config.max_steps and not self.progress.stopped:
            record = self._step(clock)
            if record is not None:
                records.append(record)
                with open(self.directory / METRICS, "a", encoding="utf-8") as file:
                    file.write(json.dumps(record, allow_nan=False) + "\n")
                for callback in self.callbacks:
                    callback(record)
            if self.progress.step % self.config.save_interval == 0 or self._last():
                self.save()
        return records

    def _last(self) -> bool:
        return self.progress.stopped or self.progress.step == self.config.max_steps

    def _step(self, clock: "_Clock") -> Record | None:
        """Train one step, evaluate where it is time to; a record where one is due."""
        config, progress = self.config, self.progress
        for prepare in self.before_step:
            prepare(progress.step)
        count = config.accumulation_steps
        batches = [self.sample(self.rng, config.batch_size) for _ in range(count)]
        self.optimizer.set_lr_factor(self.schedule(progress.step))
        loss = train_step(self.model, self.optimizer, batches, config.max_grad_norm, self.workers)
        clock.tokens += sum(batch["input_ids"].size for batch in batches)
        progress.step += 1
        progress.loss_sum += loss
        progress.steps_since_record += 1
        first, *_ = getattr(self.optimizer, "optimizers", (self.optimizer,))
        evaluating = progress.step % config.eval_interval == 0 or self._last()
        if not evaluating and progress.step % config.log_interval:
            return None
        record: Record = {
            "step": progress.step,
            "train_loss": progress.loss_sum / progress.steps_since_record,
            "learning_rate": max(group["lr"] for group in first.groups) * first.lr_factor,
            "tokens_per_second": clock.lap(),
        }
        progress.loss_sum, progress.steps_since_record = 0.0, 0
        if evaluating:
            record["val_loss"] = self._evaluate()
            clock.start()
        return record

    def _evaluate(self) -> float:
        """Evaluate, keep the best model, decide on stopping."""
        progress = self.progress
        loss = evaluate(self.model, self.validation(), self.workers)
        progress.evaluations_since_best += 1
        if loss < progress.best_loss:
            progress.best_loss, progress.evaluations_since_best = loss, 0
            path, weights = self.directory / checkpoint.BEST, self.model.state_dict()
            checkpoint.save(path, weights, {"step": progress.step})
        patience = self.config.patience
        progress.stopped = 0 < patience <= progress.evaluations_since_best
        return loss

    def save(self) -> None:
        """Write the run as it stands to `checkpoint.npz`, atomically."""
        rngs = {"data": self.rng.bit_generator.state}
        if self.model.rng is not None:
            rngs["model"] = self.model.rng.bit_generator.state
        parts = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "progress": asdict(self.progress),
            "rngs": rngs,
            "training": {"config": asdict(self.config), "workers": self.workers},
        }
        checkpoint.save(self.directory / checkpoint.CHECKPOINT, *checkpoint.pack(parts))

    def resume(self) -> None:
        """Go back to where `checkpoint.npz` was written; without one, to the beginning.

        A resumed run ends with the same bits as one that was never stopped, on the same number of
        worker threads, which the checkpoint keeps.
        Raises: CheckpointError — a damaged file, or one of another model or optimizer; the run is
            as before then.
        """
        path = self.directory / checkpoint.CHECKPOINT
        if not path.exists():
            return
        arrays, meta = checkpoint.load(path)
        weights = checkpoint.unpack(arrays, meta, "model")
        moments = checkpoint.unpack(arrays, meta, "optimizer")
        try:  # everything that can be refused is looked at before anything is changed
            progress, workers = Progress(**meta["progress"]), int(meta["training"]["workers"])
            rngs = [(self.rng, meta["rngs"]["data"])]
            if self.model.rng is not None:
                rngs.append((self.model.rng, meta["rngs"]["model"]))
            for rng, state in rngs:
                type(rng.bit_generator)().state = state
            self.optimizer.check_state(moments)
            self.model.load_state_dict(weights)  # all of it or none
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
            raise checkpoint.CheckpointError(
                f"{path}: expected the state of this model and optimizer, got another one "
                f"({error}); resume with the configuration that the run was started with"
            ) from error
        self.optimizer.load_state_dict(moments)
        for rng, state in rngs:
            rng.bit_generator.state = state
        self.progress, self.workers = progress, workers

    def restore_best(self) -> None:
        """Load `best.npz`, the weights with the lowest validation loss so far, into the model.

        That loss is the one of `evaluate`, class weights and all; the model that is best by
        another figure may be another. Optimizer and progress stay where they are.
        Raises: CheckpointError — no evaluation has kept a model yet, a damaged file, or one of
            another model; the weights are as before then.
        """
        path = self.directory / checkpoint.BEST
        if not path.exists():
            raise checkpoint.CheckpointError(
                f"{self.directory}: expected a run that was evaluated at least once, got one "
                f"without {checkpoint.BEST}; call run() first"
            )
        weights, _ = checkpoint.load(path)
        try:
            self.model.load_state_dict(weights)
        except ValueError as error:
            raise checkpoint.CheckpointError(
                f"{path}: expected the weights of this model, got another one's ({error}); build "
                "the model with the configuration that the run was started with"
            ) from error

    def _keep_records(self) -> list[Record]:
        """The records up to the present step; later ones, of a run that was killed, are dropped."""
        records = [r for r in read_records(self.directory) if r["step"] <= self.progress.step]
        with replacing(self.directory / METRICS) as file:
            file.write("".join(json.dumps(record) + "\n" for record in records).encode())
        return records


class _Clock:
    """Tokens per second of training, evaluations not counted."""

    def __init__(self) -> None:
        self.start()

    def start(self) -> None:
        self.begin, self.tokens = time.perf_counter(), 0

    def lap(self) -> float:
        """The rate since the last start or lap."""
        rate = self.tokens / max(1e-9, time.perf_counter() - self.begin)
        self.start()
        return round(rate, 1)


def read_records(directory: str | Path) -> list[Record]:
    """The records in a run's `metrics.jsonl`, up to a half-written line; none without the file."""
    path = Path(directory) / METRICS
    records: list[Record] = []
    if path.exists():
        for line in path.read_bytes().splitlines():
            try:
                records.append(json.loads(line))
            except ValueError:
                break  # killed while writing; what comes after the checkpoint is trained again
    return records
