"""Every script runs for a few steps, and its loss falls."""

import importlib.util
import json
import os
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest

from minilm.tokenizers import load_tokenizer

ROOT = Path(__file__).parent.parent
TINY = [
    "--d-model",
    "16",
    "--n-heads",
    "2",
    "--n-layers",
    "1",
    "--max-len",
    "16",
    "--batch-size",
    "8",
    "--eval-interval",
    "10",
]
TEXT = "The cat sat on the mat.\nThe dog sat on the log.\n" * 60
needs_extra = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("tqdm", "matplotlib")),
    reason="needs the extra: pip install -e '.[scripts]'",
)
pytestmark = needs_extra


def run(script, *arguments, check=True):
    """The script's result, run as a user would run it."""
    result = subprocess.run(
        [sys.executable, "-W", "error", str(ROOT / "scripts" / script), *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "MPLCONFIGDIR": os.environ.get("MPLCONFIGDIR", "/tmp")},
    )
    if check:
        assert result.returncode == 0, result.stderr
    return result


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory, text):
    directory = tmp_path_factory.mktemp("runs") / "run"
    result = run("train_causal.py", "--data", text, "--out", directory, "--max-steps", 30, *TINY)
    return directory, result


def losses(directory):
    lines = (directory / "metrics.jsonl").read_text().splitlines()
    return [record["val_loss"] for record in map(json.loads, lines) if "val_loss" in record]


def test_training_leaves_a_run_behind_and_its_loss_falls(trained):
    directory, result = trained
    names = {path.name for path in directory.iterdir()}
    assert names == {
        "best.npz", "checkpoint.npz", "config.json", "loss.png", "metrics.jsonl",
        "tokenizer.json", "tokens.npy",
    }  # fmt: skip
    found = losses(directory)
    assert len(found) == 3 and found[-1] < found[0] - 0.3
    records = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    assert set(records[-1]) == {
        "step", "train_loss", "val_loss", "learning_rate", "tokens_per_second",
    }  # fmt: skip
    assert (directory / "loss.png").read_bytes().startswith(b"\x89PNG")
    for shown in ("3-gram", "6-gram", "perplexity", "nats/char", "python scripts/generate.py"):
        assert shown in result.stdout


def test_the_progress_bar_shows_loss_rate_speed_and_time_left(trained):
    _, result = trained
    for shown in ("loss=", "lr=", "tok/s=", "val=", "30/30"):
        assert shown in result.stderr


def test_a_trained_run_generates_text(trained):
    directory, _ = trained
    arguments = (directory, "--prompt", "The cat", "--max-new-tokens", 20)
    first = run("generate.py", *arguments).stdout
    assert first.startswith("The cat") and len(first) == len("The cat") + 20 + 1
    assert first == run("generate.py", *arguments).stdout
    assert first != run("generate.py", *arguments, "--seed", 1, "--temperature", 2).stdout


def test_a_finished_run_resumed_changes_nothing(trained):
    directory, _ = trained
    before = (directory / "metrics.jsonl").read_bytes()
    run("train_causal.py", "--resume", directory)
    assert (directory / "metrics.jsonl").read_bytes() == before


def test_a_run_is_not_overwritten_unless_asked_to(trained, text):
    directory, _ = trained
    result = run("train_causal.py", "--data", text, "--out", directory, check=False)
    assert result.returncode == 1
    assert result.stderr.startswith("error: ") and "--resume" in result.stderr


def test_a_directory_of_texts_trains_with_byte_pairs_and_gpt(tmp_path, text):
    directory = tmp_path / "run"
    run("train_causal.py", "--data", text.parent, "--out", directory, "--tokenizer", "bpe",
        "--vocab-size", 280, "--preset", "nanogpt-cpu", "--max-steps", 20, *TINY)  # fmt: skip
    assert losses(directory)[-1] < losses(directory)[0]
    assert run("generate.py", directory, "--prompt", "The é", "--max-new-tokens", 5).stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--data", "no/such/file"), "no/such/file"),
        (("--max-steps", 0), "expected max_steps >= 1"),
        (("--n-heads", 3), "expected n_heads to divide d_model"),
        (("--model", "gpt", "--qk-norm"), "expected flags of this model, got --qk-norm"),
    ],
)
def test_a_wrong_flag_is_one_clear_line_and_leaves_no_run_behind(tmp_path, arguments, message):
    result = run("train_causal.py", "--out", tmp_path / "run", *arguments, check=False)
    assert result.returncode == 1
    assert result.stderr.startswith("error: ") and message in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "run" / "config.json").exists()


def test_too_short_a_text_leaves_the_old_run_alone(tmp_path, trained):
    directory, _ = trained
    before = {path.name: path.read_bytes() for path in directory.iterdir()}
    short = tmp_path / "short.txt"
    short.write_text("too short")
    result = run(
        "train_causal.py", "--data", short, "--out", directory, "--overwrite", *TINY, check=False
    )
    assert result.returncode == 1 and "use more text" in result.stderr
    assert {path.name: path.read_bytes() for path in directory.iterdir()} == before


def test_resuming_takes_no_other_flag_and_needs_a_run(tmp_path):
    result = run("train_causal.py", "--resume", tmp_path, check=False)
    assert result.returncode == 1 and "expected the configuration of a run" in result.stderr
    result = run("train_causal.py", "--resume", tmp_path, "--max-steps", 5, check=False)
    assert result.returncode == 2 and "give no other flag" in result.stderr


def test_generating_without_a_run_is_one_clear_line(tmp_path):
    result = run("generate.py", tmp_path, check=False)
    assert result.returncode == 1 and result.stderr.startswith("error: ")


def test_a_benchmark_pairs_two_contestants_and_prints_their_ratio():
    result = run("benchmarks/train_step.py", "--peer", "minilm", "--sizes", 0, "--seconds", 1)
    ratio = float(result.stdout.split("ratio minilm/minilm")[1].split()[0])
    assert 0.2 < ratio < 5


def test_runs_are_compared_in_one_picture(trained, tmp_path):
    directory, _ = trained
    picture = tmp_path / "curves.png"
    result = run("compare_runs.py", directory, directory, "--labels", "a", "b", "--out", picture)
    assert result.stdout.count("30 steps") == 2
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert run("compare_runs.py", tmp_path, check=False).returncode == 1


@pytest.mark.parametrize("algorithm", ["bpe", "wordpiece", "unigram"])
def test_a_tokenizer_is_trained_compared_and_inspected(text, tmp_path, algorithm):
    out = tmp_path / "tokenizer"
    arguments = ["--algorithm", algorithm, "--vocab-size", 290, "--out", out]
    result = run("train_tokenizer.py", "--data", text, *arguments)
    rows = [line.split() for line in result.stdout.splitlines() if line.endswith(("s", "saved"))]
    assert {row[0] for row in rows} == {"bpe", "wordpiece", "unigram"}
    assert [row[0] for row in rows if row[-1] == "saved"] == [algorithm]
    assert all(float(row[2]) > 1 for row in rows)
    words = "The cat sat on the mat."
    result = run("inspect_tokenizer.py", out, "--text", words)
    tokenizer = load_tokenizer(out)
    ids = tokenizer.encode(words)
    assert " ".join(map(str, ids)) in result.stdout and "\033[30;44m" in result.stdout
    page = tmp_path / "page.html"
    run("inspect_tokenizer.py", out, "--file", text, "--html", page)
    html = page.read_text(encoding="utf-8")
    assert html.count("<span") == len(tokenizer.encode(TEXT))
    shown = re.sub("<[^>]*>", "", html.split("<p>")[-1]).replace("↵", "")
    assert " ".join(shown.split()) == " ".join(TEXT.split())


def test_a_tokenizer_without_room_is_an_error_in_one_line(text, tmp_path):
    arguments = ["--vocab-size", 10, "--out", tmp_path / "t"]
    result = run("train_tokenizer.py", "--data", text, *arguments, check=False)
    assert result.returncode == 1
    assert "error: BPETokenizer.train: expected vocab_size >= 256, got 10" in result.stderr
    assert "Traceback" not in result.stderr and not (tmp_path / "t").exists()


SENTENCES = [f"The {a} sat {b} the {c}." for a in ("cat", "dog", "cow") for b in ("on", "by")
             for c in ("mat", "log", "hay", "pot")]  # fmt: skip


def test_a_small_bert_is_trained_and_resumed(tmp_path):
    rng = random.Random(0)
    paragraphs = [" ".join(rng.choices(SENTENCES, k=21)) for _ in range(20)]
    path, out = tmp_path / "text.txt", tmp_path / "run"
    path.write_text("\n\n".join(paragraphs), encoding="utf-8")
    size = ["--d-model", 16, "--n-heads", 2, "--n-layers", 1, "--d-ff", 32, "--max-len", 24]
    size += ["--vocab-size", 80, "--batch-size", 8, "--eval-interval", 20, "--save-interval", 20]
    result = run("train_mlm.py", "--data", path, "--out", out, "--max-steps", 60, *size)
    records = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    losses = [record["val_loss"] for record in records if "val_loss" in record]
    assert losses[-1] < losses[0]
    rows = {line.split()[0]: line.split() for line in result.stdout.splitlines() if line.split()}
    assert {"unigram", "bigrams", "bert"} <= set(rows)
    assert float(rows["bigrams"][1]) < float(rows["unigram"][1])
    assert 0 <= float(rows["bert"][3]) <= 1 and (out / "loss.png").stat().st_size > 1000
    again = run("train_mlm.py", "--resume", out)
    bert = [line for line in again.stdout.splitlines() if line.split()[:1] == ["bert"]]
    assert bert == [line for line in result.stdout.splitlines() if line.split()[:1] == ["bert"]]
    refused = run("train_mlm.py", "--data", path, "--out", out, check=False)
    assert refused.returncode == 1 and "expected no run there" in refused.stderr
