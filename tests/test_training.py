"""Laws of the training loop."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from runs import MODEL, TEXT, outcome, tiny_model, tiny_trainer

from minilm import checkpoint, training
from minilm.nn import Linear
from minilm.nn.module import layer_groups
from minilm.objectives.causal import evaluation_windows, sample_windows
from minilm.optim import SGD, AdamW, Muon, Optimizers, decay_groups
from minilm.training import (
    TrainingConfig,
    accumulate_gradients,
    build_optimizer,
    evaluate,
    train_step,
)

CHILD = """
import sys
from pathlib import Path
from runs import tiny_trainer
print("ready", flush=True)
trainer = tiny_trainer(Path(sys.argv[1]))
trainer.resume()
trainer.run()
"""


def batch_of(rows, seed=0):
    return sample_windows(TEXT, rows, 8, np.random.default_rng(seed))


def gradients(model, batches, workers):
    optimizer = SGD(model.parameters(), lr=0.1)
    loss = accumulate_gradients(model, optimizer, batches, workers)
    return loss, [p.grad.copy() for p in model.parameters()]


@pytest.mark.parametrize("family", ["gpt", "llama"])
def test_four_batches_of_three_equal_one_of_twelve(family):
    model = tiny_model(family).astype(np.float64)
    whole = batch_of(12)
    parts = [{k: v[i : i + 3] for k, v in whole.items()} for i in range(0, 12, 3)]
    loss, expected = gradients(model, [whole], 1)
    parts_loss, found = gradients(model, parts, 1)
    assert parts_loss == pytest.approx(loss, rel=1e-14)
    for a, b in zip(expected, found, strict=True):
        np.testing.assert_allclose(b, a, rtol=0, atol=1e-15)


def test_accumulation_weighs_batches_by_their_targets_not_by_their_number():
    model = tiny_model().astype(np.float64)
    whole = batch_of(6)
    whole["labels"][:2, 3:] = -100  # the first rows have few targets
    parts = [{k: v[i : i + 2] for k, v in whole.items()} for i in range(0, 6, 2)]
    loss, expected = gradients(model, [whole], 1)
    parts_loss, found = gradients(model, parts, 1)
    assert parts_loss == pytest.approx(loss, rel=1e-14)
    for a, b in zip(expected, found, strict=True):
        np.testing.assert_allclose(b, a, rtol=0, atol=1e-15)


@pytest.mark.parametrize("workers", [2, 3, 5])
def test_several_workers_give_the_gradient_of_one(workers):
    model = tiny_model().astype(np.float64)
    loss, expected = gradients(model, [batch_of(7)], 1)
    shared_loss, found = gradients(model, [batch_of(7)], workers)
    assert shared_loss == pytest.approx(loss, rel=1e-14)
    for a, b in zip(expected, found, strict=True):
        np.testing.assert_allclose(b, a, rtol=0, atol=1e-15)


def test_more_workers_than_rows_and_batches_of_different_size_work():
    model = tiny_model().astype(np.float64)
    loss, expected = gradients(model, [batch_of(1), batch_of(3, seed=1)], 1)
    shared_loss, found = gradients(model, [batch_of(1), batch_of(3, seed=1)], 4)
    assert shared_loss == pytest.approx(loss, rel=1e-14)
    for a, b in zip(expected, found, strict=True):
        np.testing.assert_allclose(b, a, rtol=0, atol=1e-15)


def test_a_step_is_zero_forward_backward_clip_update():
    model, twin = tiny_model(), tiny_model()
    batch = batch_of(4)
    loss = train_step(model, SGD(model.parameters(), lr=0.5), batch, max_grad_norm=0.1, workers=1)
    expected = twin(**batch).loss
    expected.backward()
    norm = np.sqrt(sum(float((p.grad.astype(np.float64) ** 2).sum()) for p in twin.parameters()))
    assert norm > 0.1
    assert loss == pytest.approx(expected.item(), rel=1e-6)
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        np.testing.assert_allclose(p.data, q.data - 0.5 * q.grad * 0.1 / norm, atol=1e-6)


def test_equal_workers_give_equal_bits_with_dropout():
    def train():
        model = tiny_model(dropout=0.3)
        optimizer = AdamW(model.parameters())
        losses = [train_step(model, optimizer, batch_of(5, s), 1.0, workers=2) for s in range(5)]
        return losses, [p.data.tobytes() for p in model.parameters()]

    assert train() == train()


def test_training_stays_in_float32():
    model = tiny_model(dropout=0.2)
    optimizer = AdamW(model.parameters())
    train_step(model, optimizer, batch_of(4), 1.0)
    assert {p.data.dtype for p in model.parameters()} == {np.dtype(np.float32)}
    assert {p.grad.dtype for p in model.parameters()} == {np.dtype(np.float32)}


def test_rows_that_do_not_match_are_an_error():
    model = tiny_model()
    batch = batch_of(4)
    batch["labels"] = batch["labels"][:3]
    with pytest.raises(ValueError, match="arrays with equally many rows, got .*first axis"):
        train_step(model, SGD(model.parameters(), lr=0.1), batch)


def test_evaluation_is_the_mean_over_all_targets_and_leaves_the_model_as_it_was():
    model = tiny_model(dropout=0.5)
    before = model.state_dict()["blocks.0.attention.q.weight"].copy()
    model.blocks[0].eval()
    whole = evaluate(model, evaluation_windows(TEXT, 1000, 8))
    pieces = evaluate(model, evaluation_windows(TEXT, 7, 8), workers=2)
    assert whole == pytest.approx(pieces, rel=1e-5)
    assert model.training and not model.blocks[0].training
    np.testing.assert_array_equal(model.state_dict()["blocks.0.attention.q.weight"], before)
    with pytest.raises(ValueError, match="at least one target"):
        evaluate(model, [])


def test_the_loss_falls_and_the_records_say_so(tmp_path):
    trainer = tiny_trainer(tmp_path, max_steps=60)
    seen = []
    trainer.callbacks = [seen.append]
    records = trainer.run()
    assert records == seen == training.read_records(tmp_path)
    assert [r["step"] for r in records if "val_loss" in r] == [10, 20, 30, 40, 50, 60]
    assert records[-1]["step"] == 60 and records[-1]["val_loss"] < records[0]["train_loss"] - 0.5
    assert all(r["tokens_per_second"] > 0 and r["learning_rate"] >= 0 for r in records)


def test_the_best_model_is_kept(tmp_path):
    trainer = tiny_trainer(tmp_path)
    records = trainer.run()
    best = min(r["val_loss"] for r in records if "val_loss" in r)
    weights, _ = checkpoint.load(tmp_path / checkpoint.BEST)
    model = tiny_model()
    model.load_state_dict(weights)
    assert evaluate(model, trainer.validation(), 2) == pytest.approx(best, rel=1e-6)


def test_restoring_the_best_model_gives_the_lowest_validation_loss_and_leaves_the_rest(tmp_path):
    def spoil(step):
        for p in trainer.model.parameters() if step == 39 else ():
            p[...] = p.data * 10

    trainer = tiny_trainer(tmp_path)
    trainer.before_step = [spoil]
    records = trainer.run()
    losses = [r["val_loss"] for r in records if "val_loss" in r]
    assert min(losses) < losses[-1]
    arrays = [p.data for p in trainer.model.parameters()]
    moments = [array.copy() for array in trainer.optimizer.state_dict().values()
               if isinstance(array, np.ndarray)]  # fmt: skip
    trainer.restore_best()
    assert evaluate(trainer.model, trainer.validation(), trainer.workers) == min(losses)
    assert all(p.data is a for p, a in zip(trainer.model.parameters(), arrays, strict=True))
    after = [a for a in trainer.optimizer.state_dict().values() if isinstance(a, np.ndarray)]
    assert all((a == b).all() for a, b in zip(moments, after, strict=True))
    assert trainer.progress.step == 40


def test_a_best_model_that_there_is_not_is_an_error_that_changes_nothing(tmp_path):
    trainer = tiny_trainer(tmp_path)
    before = outcome(trainer)[0]
    with pytest.raises(checkpoint.CheckpointError, match=r"evaluated at least once.*call run\(\)"):
        trainer.restore_best()
    for other in (tiny_model(d_model=16), tiny_model(n_layers=2)):
        checkpoint.save(tmp_path / checkpoint.BEST, other.state_dict(), {"step": 1})
        with pytest.raises(checkpoint.CheckpointError, match="weights of this model, got another"):
            trainer.restore_best()
    (tmp_path / checkpoint.BEST).write_bytes(b"PK")
    with pytest.raises(checkpoint.CheckpointError, match="damaged"):
        trainer.restore_best()
    assert outcome(trainer)[0] == before


def test_what_comes_before_a_step_is_called_with_the_steps_done_before_the_batch_is_drawn(tmp_path):
    trainer = tiny_trainer(tmp_path, max_steps=3, accumulation_steps=1)
    seen, sample = [], trainer.sample
    trainer.sample = lambda *arguments: (seen.append("batch"), sample(*arguments))[1]
    trainer.before_step = [seen.append, lambda step: seen.append(-step)]
    trainer.run()
    assert seen == [0, 0, "batch", 1, -1, "batch", 2, -2, "batch"]
    resumed = tiny_trainer(tmp_path, max_steps=5)
    resumed.before_step = [seen.append]
    resumed.resume()
    resumed.run()
    assert seen[9:] == [3, 4]


def test_training_stops_early_after_patience_evaluations_without_a_new_best(tmp_path, monkeypatch):
    trainer = tiny_trainer(tmp_path, max_steps=1000, patience=3, learning_rate=1e-12,
                           muon_learning_rate=0.0, eval_interval=2)  # fmt: skip
    losses = iter([3.0, 2.0, 2.5, 2.0, 2.1, 1.0])
    monkeypatch.setattr(training, "evaluate", lambda *args: next(losses))
    records = trainer.run()
    assert [r["val_loss"] for r in records if "val_loss" in r] == [3.0, 2.0, 2.5, 2.0, 2.1]
    assert trainer.progress.step == 10 and trainer.progress.stopped
    resumed = tiny_trainer(tmp_path, max_steps=1000, patience=3, eval_interval=2)
    resumed.resume()
    assert len(resumed.run()) == len(records)  # it stays stopped


def test_a_loss_that_is_not_finite_stops_the_run_with_advice(tmp_path):
    trainer = tiny_trainer(tmp_path)
    trainer.model.token_embedding.weight[...] = np.nan
    before = {name: array.copy() for name, array in trainer.model.state_dict().items()}
    with pytest.raises(FloatingPointError, match="expected a finite loss .*got loss nan.*; lower"):
        trainer.run()
    for name, array in trainer.model.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


def test_a_run_stopped_at_a_checkpoint_and_resumed_has_the_same_bits(tmp_path):
    whole = tiny_trainer(tmp_path / "whole")
    whole.run()
    first = tiny_trainer(tmp_path / "parts")
    first.config = replace(first.config, max_steps=17)
    first.run()
    second = tiny_trainer(tmp_path / "parts")
    second.resume()
    assert second.progress.step == 17
    second.run()
    weights, records = outcome(second)
    expected_weights, expected_records = outcome(whole)
    assert weights == expected_weights
    # the first part had a last record and evaluation of its own at step 17
    assert records[-1]["val_loss"] == expected_records[-1]["val_loss"]


def test_a_run_is_resumed_with_the_same_bits_under_what_comes_before_a_step(tmp_path):
    def make(part):
        trainer = tiny_trainer(tmp_path / part, max_steps=12)
        named = dict(trainer.model.named_parameters())
        weights = [p for name, p in named.items() if name.endswith("weight")]

        def every_fifth_step_weights_are_frozen(step):
            for p in weights:
                p.requires_grad = step % 5 != 0

        trainer.before_step = [every_fifth_step_weights_are_frozen]
        return trainer

    whole, first, second = make("whole"), make("parts"), make("parts")
    whole.run()
    first.config = replace(first.config, max_steps=7)
    first.run()
    second.resume()
    assert second.progress.step == 7
    second.run()
    assert outcome(second)[0] == outcome(whole)[0]


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("decay", [0.8, 1.0])
def test_each_group_learns_at_the_rate_that_decays_from_the_top(optimizer, decay):
    model = tiny_model("llama", n_layers=3)
    model.freeze("blocks.1.norm1", "final_norm")
    config = TrainingConfig(optimizer=optimizer, learning_rate=0.3, layer_decay=decay,
                            muon_learning_rate=0.07, weight_decay=0.1)  # fmt: skip
    built = build_optimizer(model, config)
    distance = {id(p): d for d, g in enumerate(reversed(layer_groups(model))) for p in g}
    assert sorted(set(distance.values())) == [0, 1, 2, 3, 4]
    parts = built.optimizers if optimizer == "muon" else [built]
    seen = []
    for part, rate in zip(parts, (0.3, 0.07), strict=False):
        for group in part.groups:
            for p in group["params"]:
                assert group["lr"] == rate * decay ** distance[id(p)]  # to the last bit
                assert group["weight_decay"] == (0.1 if p.ndim == 2 else 0.0)
                seen.append(id(p))
    assert sorted(seen) == sorted(id(p) for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_without_layer_decay_the_optimizer_has_the_groups_and_the_bits_of_two_plain_ones(optimizer):
    def plain(model, config):
        named = dict(model.named_parameters())
        hidden = [p for n, p in named.items() if p.ndim == 2 and "blocks" in n]
        hidden = hidden if optimizer == "muon" else []
        rest = [p for p in named.values() if all(p is not other for other in hidden)]
        betas = (config.beta1, config.beta2)
        adamw = AdamW(decay_groups(rest, 0.1), lr=config.learning_rate, betas=betas)
        return Optimizers(adamw, Muon(hidden, weight_decay=0.1)) if hidden else adamw

    config = TrainingConfig(optimizer=optimizer, weight_decay=0.1)
    models = [tiny_model(n_layers=2), tiny_model(n_layers=2)]
    built = [f(m, config) for f, m in zip((build_optimizer, plain), models, strict=True)]
    for ours, theirs in zip(built[0].groups, built[1].groups, strict=True):
        assert {**ours, "params": 0} == {**theirs, "params": 0}
        assert [p.shape for p in ours["params"]] == [p.shape for p in theirs["params"]]
    for step in range(4):
        for model, part in zip(models, built, strict=True):
            train_step(model, part, batch_of(5, step), 1.0, workers=2)
    bits = [[p.data.tobytes() for p in model.parameters()] for model in models]
    assert bits[0] == bits[1]


def test_layer_decay_changes_neither_the_order_of_a_saved_state_nor_the_rate_on_record(tmp_path):
    def learned(trainer):
        return [id(p) for p in trainer.optimizer.parameters]

    plain, decayed = (
        tiny_trainer(tmp_path, max_steps=1, layer_decay=d, muon_learning_rate=1.0)
        for d in (1.0, 0.5)
    )
    names = [{id(p): n for n, p in t.model.named_parameters()} for t in (plain, decayed)]
    orders = [[n[i] for i in learned(t)] for n, t in zip(names, (plain, decayed), strict=True)]
    assert orders[0] == orders[1]
    (record,) = decayed.run()
    assert record["learning_rate"] == 1e-2 * decayed.schedule(0)  # the top's


def test_layer_decay_slows_the_lower_layers_by_its_factor():
    config = TrainingConfig(layer_decay=0.5, learning_rate=1e-3)
    moves = []
    for settings in (config, replace(config, layer_decay=1.0)):
        model = tiny_model(n_layers=2).astype(np.float64)
        before = [[p.data.copy() for p in group] for group in layer_groups(model)]
        train_step(model, build_optimizer(model, settings), batch_of(4), workers=1)
        moves.append([[p.data - old for p, old in zip(*pair, strict=True)] for pair in
                      zip(layer_groups(model), before, strict=True)])  # fmt: skip
    for distance, (slow, full) in enumerate(zip(*map(reversed, moves), strict=True)):
        for a, b in zip(slow, full, strict=True):
            np.testing.assert_allclose(a, b * 0.5**distance, rtol=1e-8, atol=1e-15)


def test_layer_decay_needs_blocks_and_no_decay_does_not():
    model = Linear(2, 3, rng=np.random.default_rng(0))
    assert len(build_optimizer(model, TrainingConfig()).parameters) == 2
    with pytest.raises(ValueError, match="expected a model with `blocks`"):
        build_optimizer(model, TrainingConfig(layer_decay=0.9))


def test_resuming_without_a_checkpoint_begins_at_the_beginning(tmp_path):
    trainer = tiny_trainer(tmp_path)
    trainer.resume()
    assert trainer.progress.step == 0


def test_a_run_keeps_its_number_of_workers(tmp_path):
    tiny_trainer(tmp_path, max_steps=4, workers=2).run()
    resumed = tiny_trainer(tmp_path, max_steps=4, workers=1)
    resumed.resume()
    assert resumed.workers == 2


@pytest.mark.parametrize("other", [{"optimizer": "adamw"}, {"dropout": 0.1, "family": "wide"}])
def test_a_checkpoint_of_another_configuration_is_refused_and_changes_nothing(tmp_path, other):
    tiny_trainer(tmp_path, max_steps=4).run()
    trainer = tiny_trainer(tmp_path, max_steps=4)
    if other.pop("family", None):
        trainer.model = tiny_model(d_model=16)
        trainer.optimizer = training.build_optimizer(trainer.model, trainer.config)
    else:
        trainer.optimizer = training.build_optimizer(
            trainer.model, replace(trainer.config, **other)
        )
    before = outcome(trainer)[0]
    rng = trainer.rng.bit_generator.state
    with pytest.raises(checkpoint.CheckpointError, match="resume with the configuration"):
        trainer.resume()
    assert outcome(trainer)[0] == before
    assert trainer.progress.step == 0 and trainer.rng.bit_generator.state == rng


@pytest.mark.parametrize("part", ["data", "model"])
@pytest.mark.parametrize("state", [None, {}, {"bit_generator": "PCG64"}, "missing", 2**200])
def test_a_damaged_rng_state_is_refused_and_changes_nothing(tmp_path, part, state):
    tiny_trainer(tmp_path, max_steps=4).run()
    path = tmp_path / checkpoint.CHECKPOINT
    arrays, meta = checkpoint.load(path)
    meta["rngs"][part] = state
    if state == "missing":
        del meta["rngs"][part]
    checkpoint.save(path, arrays, meta)
    trainer = tiny_trainer(tmp_path, max_steps=4)
    before, rng = outcome(trainer)[0], trainer.rng.bit_generator.state
    with pytest.raises(checkpoint.CheckpointError):
        trainer.resume()
    assert outcome(trainer)[0] == before and trainer.rng.bit_generator.state == rng
    assert not trainer.optimizer.optimizers[0].steps.any()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_steps", 0),
        ("batch_size", -1),
        ("patience", -1),
        ("max_grad_norm", 0.0),
        ("optimizer", "adamm"),
        ("schedule", "step"),
        ("learning_rate", 0.0),
        ("warmup_steps", -1),
        ("beta2", 1.0),
        ("hold", 1.5),
        ("weight_decay", -0.1),
        ("layer_decay", 0.0),
        ("layer_decay", 1.01),
    ],
)
def test_a_wrong_field_is_named(field, value):
    with pytest.raises(ValueError, match=f"expected .*{field}.*got"):
        TrainingConfig(**{field: value})


def run_child(directory, kill_after=None):
    """Train in a process of its own; SIGKILL it `kill_after` seconds after it begins."""
    path = os.pathsep.join(
        [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    )
    process = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(directory)],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    start = time.perf_counter()
    if kill_after is not None:
        time.sleep(kill_after)
        process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    return process.returncode, time.perf_counter() - start


def check_kills(tmp_path, kills):
    """Kill a run again and again at random moments until it has been killed `kills` times."""
    seed = int.from_bytes(os.urandom(4), "big")
    print(f"seed {seed}")  # pytest shows it when the test fails
    rng = np.random.default_rng(seed)
    whole = tiny_trainer(tmp_path / "whole")
    whole.run()
    code, seconds = run_child(tmp_path / "timed")
    assert code == 0
    done = runs = 0
    while done < kills:
        directory = tmp_path / f"killed{runs}"
        runs += 1
        assert runs < 10 * kills
        while True:
            code, _ = run_child(directory, kill_after=rng.uniform(0, seconds))
            if code == 0:
                break
            assert code == -signal.SIGKILL
            done += 1
        resumed = tiny_trainer(directory)
        resumed.resume()
        resumed.run()
        assert outcome(resumed) == outcome(whole)
        best = [checkpoint.load(run / checkpoint.BEST)[0] for run in (directory, whole.directory)]
        assert {n: a.tobytes() for n, a in best[0].items()} == {
            n: a.tobytes() for n, a in best[1].items()
        }
        assert not list(directory.glob(".*"))  # nothing half-written is left


def test_a_run_killed_at_any_moment_and_resumed_ends_with_the_same_bits(tmp_path):
    check_kills(tmp_path, 20)


@pytest.mark.slow
def test_two_hundred_killed_runs_end_with_the_same_bits(tmp_path):
    check_kills(tmp_path, 200)


def test_a_half_written_record_is_dropped(tmp_path):
    trainer = tiny_trainer(tmp_path, max_steps=8)
    records = trainer.run()
    path = tmp_path / training.METRICS
    path.write_bytes(path.read_bytes() + b'{"step": 9, "train_l')
    assert training.read_records(tmp_path) == records
    resumed = tiny_trainer(tmp_path, max_steps=8)
    resumed.resume()
    resumed.run()
    assert [json.loads(line) for line in path.read_text().splitlines()] == records


def test_a_training_loop_without_the_collector_does_not_grow():
    import gc

    model = tiny_model()
    optimizer = AdamW(model.parameters())
    train_step(model, optimizer, batch_of(4), 1.0, workers=1)
    gc.collect()
    gc.disable()
    try:
        before = len(gc.get_objects())
        for step in range(20):
            train_step(model, optimizer, batch_of(4, step), 1.0, workers=1)
        assert len(gc.get_objects()) - before < 20
        assert gc.collect() == 0
    finally:
        gc.enable()


def test_configuration_covers_the_model():
    assert set(MODEL) <= set(tiny_model().config.__dataclass_fields__)
