"""The encoder-decoder's scripts run for a few steps, and their loss falls."""

import json

import pytest
from scripts_tools import call, history, losses, needs_extra, refusal, run, scores, stop

from minilm.checkpoint import load_model
from minilm.models.t5 import T5
from minilm.models.transformer import Transformer

pytestmark = needs_extra
SMALL = ("--d-model", 16, "--n-heads", 2, "--n-layers", 1, "--d-ff", 32, "--max-len", 24,
         "--batch-size", 16, "--eval-interval", 40, "--save-interval", 40, "--warmup-steps", 5,
         "--learning-rate", 1e-2)  # fmt: skip
RECIPE = SMALL[SMALL.index("--batch-size") :]
WORDS = ("one", "two", "three", "four", "five")
PAIRS = [(f"{a} {b}", f"{b} {a}") for a in WORDS for b in WORDS]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """Two words, to be put the other way round; the first source has two targets."""
    path = tmp_path_factory.mktemp("pairs") / "swap.tsv"
    rows = [*PAIRS, (PAIRS[0][0], "one and one")]
    path.write_text("\n".join(f"{s}\t{t}" for s, t in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def arguments(pairs):
    """Flags to train with."""
    more = ("--metric", "bleu", "--tokenizer", "char", "--max-steps", 120, "--eval-interval", 10)
    return ("--data", pairs, *SMALL, *more)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, arguments):
    directory = tmp_path_factory.mktemp("runs") / "run"
    return directory, run("train_seq2seq.py", "--out", directory, *arguments)


def test_training_leaves_a_run_its_picture_and_its_scores_behind(trained):
    directory, result = trained
    found = losses(directory)
    assert found[-1] < found[0] - 0.3
    assert (directory / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert isinstance(load_model(directory), Transformer)
    assert set(scores(directory)) == {"swap", "swap, nearest"}
    assert set(scores(directory)["swap"]) == {"exact", "BLEU", "chrF"}
    samples = result.stdout.split("step 40\n")[1].split("step 50\n")[0]
    assert samples.count("swap: ") == 2 and samples.count("  ->  ") == 2  # the validation's
    for shown in ("loss=", "tok/s=", "val=", "120/120"):
        assert shown in result.stderr


def test_a_finished_run_resumed_says_the_same_and_is_not_overwritten(trained, pairs):
    directory, result = trained
    before = (directory / "metrics.jsonl").read_bytes(), (directory / "scores.json").read_bytes()
    again = call("train_seq2seq.py", "--resume", directory)
    assert again.stdout.split("validation loss")[1] == result.stdout.split("validation loss")[1]
    after = (directory / "metrics.jsonl").read_bytes(), (directory / "scores.json").read_bytes()
    assert before == after
    refused = refusal("train_seq2seq.py", "--data", pairs, "--out", directory)
    assert "expected no run there" in refused


def test_a_run_that_was_stopped_ends_as_if_it_had_not_been(trained, arguments, tmp_path):
    directory, _ = trained
    out = tmp_path / "run"
    stop("train_seq2seq.py", *arguments, out=out, step=55)
    assert history(out) == history(directory)[: len(history(out))]
    call("train_seq2seq.py", "--resume", out)
    assert history(out) == history(directory) and scores(out) == scores(directory)


@pytest.fixture(scope="module")
def spans(tmp_path_factory):
    """A T5 that has learned spans of raw text."""
    directory = tmp_path_factory.mktemp("runs")
    text, out = directory / "text.txt", directory / "run"
    text.write_text(" ".join(" ".join(pair) for pair in PAIRS * 20), encoding="utf-8")
    call("train_seq2seq.py", "--pretrain", text, "--model", "t5", "--vocab-size", 400,
         "--out", out, "--max-steps", 80, *SMALL)  # fmt: skip
    return out


def test_t5_learns_spans_first_and_then_a_file_and_an_embedded_task(tmp_path, pairs, spans):
    assert losses(spans)[-1] < losses(spans)[0] - 0.3
    out, more = tmp_path / "run", ("--pretrained", spans, "--data", pairs, *RECIPE)
    call("train_seq2seq.py", *more, "--written", "number", "--out", out, "--max-steps", 40)
    assert set(scores(out)) == {"swap", "number"}
    model = load_model(out)
    assert isinstance(model, T5) and model.config == load_model(spans).config
    assert json.loads((out / "config.json").read_text())["model"] == "t5"
    refused = refusal("train_seq2seq.py", *more, "--d-model", 32, "--out", tmp_path / "other")
    assert "--d-model" in refused


def test_a_run_stopped_before_its_first_checkpoint_begins_again_with_what_was_pretrained(
    tmp_path, pairs, spans
):
    whole, out = tmp_path / "whole", tmp_path / "run"
    arguments = ("--pretrained", spans, "--data", pairs, "--max-steps", 20, *RECIPE)
    call("train_seq2seq.py", *arguments, "--out", whole)
    stop("train_seq2seq.py", *arguments, out=out, step=5)
    call("train_seq2seq.py", "--resume", out)
    assert history(out) == history(whole)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("one\ttwo\nno tab here\n", "line 2: expected a source, a tab and a target"),
        ("one\ttwo\n\nthree\t\n", "line 3: expected a source, a tab and a target"),
        ("one\ttwo\n" * 20, "expected at least 10 different sources, got 1"),
    ],
)
def test_a_file_that_is_not_of_pairs_is_one_clear_line_and_leaves_no_run(
    tmp_path, content, message
):
    path, out = tmp_path / "pairs.tsv", tmp_path / "run"
    path.write_text(content, encoding="utf-8")
    assert message in refusal("train_seq2seq.py", "--data", path, "--out", out, *SMALL)
    assert not out.exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--num-beams", 0], "expected num_beams >= 1, got 0"),
        (["--label-smoothing", 1], "label_smoothing"),
        (["--model", "t5", "--layer-decay", 2], "expected 0 < layer_decay <= 1"),
        (["--model", "transformer", "--gated"], "--gated"),
    ],
)
def test_a_wrong_flag_is_one_clear_line_and_leaves_no_run(pairs, tmp_path, flags, message):
    out = tmp_path / "run"
    assert message in refusal("train_seq2seq.py", "--data", pairs, "--out", out, *SMALL, *flags)
    assert not (out / "config.json").exists()
