"""Every script runs for a few steps, and its loss falls."""

import json
import random
import re

import pytest
from scripts_tools import call, history, losses, needs_extra, refusal, run, stop

from minilm.checkpoint import load_model
from minilm.models import CAUSAL
from minilm.tokenizers import load_tokenizer

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
    "--save-interval",
    "10",
]
TEXT = "The cat sat on the mat.\nThe dog sat on the log.\n" * 60
pytestmark = needs_extra


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
    assert first == call("generate.py", *arguments).stdout
    assert first != call("generate.py", *arguments, "--seed", 1, "--temperature", 2).stdout


def test_a_finished_run_resumed_changes_nothing(trained):
    directory, _ = trained
    before = (directory / "metrics.jsonl").read_bytes()
    call("train_causal.py", "--resume", directory)
    assert (directory / "metrics.jsonl").read_bytes() == before


def test_a_run_that_was_stopped_goes_on_and_ends_as_if_it_had_not_been(trained, text, tmp_path):
    directory, result = trained
    out = tmp_path / "run"
    stop("train_causal.py", "--data", text, "--max-steps", 30, *TINY, out=out, step=15)
    assert len(history(out)) == 1 and (out / "checkpoint.npz").exists()
    again = call("train_causal.py", "--resume", out)
    assert history(out) == history(directory)
    assert again.stdout.split(str(out))[0] == result.stdout.split(str(directory))[0]


@pytest.mark.parametrize(
    "script",
    ["train_causal.py", "train_lstm.py", "train_mlm.py", "train_seq2seq.py", "finetune.py"],
)
def test_resuming_takes_no_other_flag_and_needs_a_run(tmp_path, script):
    assert "expected the configuration of a run" in refusal(script, "--resume", tmp_path)
    refused = call(script, "--resume", tmp_path, "--seed", 0, check=False)
    assert refused.returncode == 2 and "give no other flag" in refused.stderr


def test_a_run_is_not_overwritten_unless_asked_to(trained, text):
    directory, _ = trained
    assert "--overwrite" in refusal("train_causal.py", "--data", text, "--out", directory)


def test_a_directory_of_texts_trains_with_byte_pairs_and_gpt(tmp_path, text):
    directory = tmp_path / "run"
    call("train_causal.py", "--data", text.parent, "--out", directory, "--tokenizer", "bpe",
        "--vocab-size", 280, "--preset", "nanogpt-cpu", "--max-steps", 20, *TINY)  # fmt: skip
    assert losses(directory)[-1] < losses(directory)[0]
    assert call("generate.py", directory, "--prompt", "The é", "--max-new-tokens", 5).stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--data", "no/such/file"), "no/such/file"),
        (("--max-steps", 0), "expected max_steps >= 1"),
        (("--n-heads", 3), "expected n_heads to divide d_model"),
        (("--model", "gpt", "--qk-norm"), "expected flags of this model, got --qk-norm"),
        (("--model", "lstm", "--layer-decay", 0.5), "layer_groups: expected"),
    ],
)
def test_a_wrong_flag_is_one_clear_line_and_leaves_no_run_behind(tmp_path, arguments, message):
    out = tmp_path / "run"
    assert message in refusal("train_causal.py", "--out", out, *arguments)
    assert not (out / "config.json").exists()


def test_too_short_a_text_leaves_the_old_run_alone(tmp_path, trained):
    directory, _ = trained
    before = {path.name: path.read_bytes() for path in directory.iterdir()}
    short = tmp_path / "short.txt"
    short.write_text("too short")
    arguments = ("--data", short, "--out", directory, "--overwrite", *TINY)
    assert "use more text" in refusal("train_causal.py", *arguments)
    assert {path.name: path.read_bytes() for path in directory.iterdir()} == before


def test_generating_without_a_run_is_one_clear_line(tmp_path):
    assert "expected the configuration of a run" in refusal("generate.py", tmp_path)


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
    assert call("compare_runs.py", tmp_path, check=False).returncode == 1


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
    result = call("inspect_tokenizer.py", out, "--text", words)
    tokenizer = load_tokenizer(out)
    ids = tokenizer.encode(words)
    assert " ".join(map(str, ids)) in result.stdout and "\033[30;44m" in result.stdout
    page = tmp_path / "page.html"
    call("inspect_tokenizer.py", out, "--file", text, "--html", page)
    html = page.read_text(encoding="utf-8")
    assert html.count("<span") == len(tokenizer.encode(TEXT))
    shown = re.sub("<[^>]*>", "", html.split("<p>")[-1]).replace("↵", "")
    assert " ".join(shown.split()) == " ".join(TEXT.split())


def test_a_tokenizer_without_room_is_an_error_in_one_line(text, tmp_path):
    arguments = ["--vocab-size", 10, "--out", tmp_path / "t"]
    refused = refusal("train_tokenizer.py", "--data", text, *arguments)
    assert "error: BPETokenizer.train: expected vocab_size >= 256, got 10" in refused
    assert not (tmp_path / "t").exists()


def test_an_lstm_is_trained_beside_a_transformer_and_an_n_gram_of_its_size(tmp_path):
    rng = random.Random(0)
    words = ["".join(rng.choices("abcdefgh", k=rng.randint(2, 6))) for _ in range(80)]
    path, out = tmp_path / "text.txt", tmp_path / "run"
    path.write_text(" ".join(rng.choices(words, k=3000)), encoding="utf-8")
    arguments = ["--data", path, "--order", 5, "--max-len", 32, "--max-steps", 40]
    arguments += ["--eval-interval", 20, "--warmup-steps", 5, "--learning-rate", 1e-2]
    result = run("train_lstm.py", *arguments, "--out", out)
    shown = result.stdout.replace(",", "")
    sizes = [int(n) for n in re.findall(r"with (\d+) (?:parameters|counts)", shown)]
    assert len(sizes) == 3 and max(sizes) - min(sizes) < 0.04 * sizes[2]  # each within 2 %
    for family in ("lstm", "llama"):
        assert losses(out / family)[-1] < losses(out / family)[0]
        assert isinstance(load_model(out / family), CAUSAL[family][1])
    rows = {line.split()[0]: line.split() for line in shown.splitlines() if line.split()}
    assert {"lstm", "llama", "5-gram"} <= set(rows) and float(rows["5-gram"][2]) < 8
    assert (out / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert call("generate.py", out / "lstm", "--prompt", "ab", "--max-new-tokens", 9).stdout
    before = (out / "lstm" / "metrics.jsonl").read_bytes()
    assert call("train_lstm.py", "--resume", out).stdout == result.stdout
    assert (out / "lstm" / "metrics.jsonl").read_bytes() == before
    assert "expected no run there" in refusal("train_lstm.py", *arguments, "--out", out)
    stop("train_lstm.py", *arguments, out=tmp_path / "stopped", step=50)
    call("train_lstm.py", "--resume", tmp_path / "stopped")
    for family in ("lstm", "llama"):
        assert history(tmp_path / "stopped" / family) == history(out / family)
    path.write_text("ab" * 60)  # four counts: no model is as small
    refused = refusal("train_lstm.py", "--data", path, "--out", tmp_path / "small")
    assert refused.startswith("error: lstm: expected sizes that give")
    assert not (tmp_path / "small").exists()
