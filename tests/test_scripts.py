"""Every script runs for a few steps, and its loss falls."""

import importlib
import json
import random
import re
from pathlib import Path

import pytest
from scripts_tools import ROOT, losses, needs_extra, run, scores

from minilm.checkpoint import load_model
from minilm.models.bert_heads import BertForSequenceClassification
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


SMALL = ("--d-model", 16, "--n-heads", 2, "--n-layers", 2, "--d-ff", 32, "--max-len", 24,
         "--vocab-size", 80, "--batch-size", 8, "--eval-interval", 20, "--save-interval", 20,
         "--warmup-steps", 5, "--learning-rate", 5e-3, "--dropout", 0)  # fmt: skip


def reviews(path: Path) -> Path:
    """Sentences whose animal is their label."""
    rows = [f"{sentence}\t{sentence.split()[1]}" for sentence in SENTENCES]
    path.write_text("\n".join(rows), encoding="utf-8")
    return path


def test_a_classifier_is_fine_tuned_from_a_table_and_resumed(tmp_path):
    path, out = reviews(tmp_path / "reviews.tsv"), tmp_path / "run"
    arguments = ["--task", "tsv", "--data", path, "--out", out, "--max-steps", 120, *SMALL]
    more = ["--class-weights", "--augment", 1, "--layer-decay", 0.9, "--unfreeze-interval", 10]
    result = run("finetune.py", *arguments, *more)
    names = {path.name for path in out.iterdir()}
    assert {"best.npz", "config.json", "confusion.png", "loss.png", "scores.json"} <= names
    found = losses(out)
    assert found[-1] < found[0] - 0.3
    assert set(scores(out)) == {"majority", "bag of words", "bert"}
    assert scores(out)["bert"]["accuracy"] == scores(out)["bag of words"]["accuracy"] == 1
    assert scores(out)["majority"]["accuracy"] < 1
    lines = {line.split()[0]: line.split() for line in result.stdout.splitlines() if line.split()}
    assert lines["cat"][1:4] == ["1.000"] * 3 and lines["bert"][1] == "1.0000"
    before = (out / "scores.json").read_bytes()
    assert run("finetune.py", "--resume", out).stdout == result.stdout
    assert (out / "scores.json").read_bytes() == before
    assert isinstance(load_model(out), BertForSequenceClassification)
    refused = run("finetune.py", *arguments, check=False)
    assert refused.returncode == 1 and "expected no run there" in refused.stderr


def test_what_was_pretrained_goes_on_from_there_and_what_is_frozen_stays(tmp_path):
    text, run_dir = tmp_path / "text.txt", tmp_path / "mlm"
    text.write_text("\n\n".join(" ".join(SENTENCES[i:] + SENTENCES[:i]) for i in range(24)))
    run("train_mlm.py", "--data", text, "--out", run_dir, "--max-steps", 20, *SMALL)
    arguments = ["--task", "tsv", "--data", reviews(tmp_path / "reviews.tsv"), "--max-steps", 20]
    arguments += ["--eval-interval", 10, "--batch-size", 8, "--pretrained", run_dir]
    before = load_model(run_dir).bert.state_dict()
    for name, flags in (("frozen", ["--freeze", 1]), ("scratch", ["--scratch"])):
        out = tmp_path / name
        run("finetune.py", *arguments, "--out", out, *flags)
        after = load_model(out).bert.state_dict()
        same = {n.split(".")[0] + n.split(".")[1] for n in before if (before[n] == after[n]).all()}
        assert ("token_embeddingweight" in same) == (name == "frozen")
        assert ("blocks0" in same) == (name == "frozen") and "poolerweight" not in same


def test_tags_are_learned_from_columns_and_bad_rows_left_out_when_asked(tmp_path):
    sentences = [
        "\n".join(f"{word}\t{'B-ANIMAL' if i == 1 else 'O'}" for i, word in enumerate(s.split()))
        for s in SENTENCES
    ]
    path, out = tmp_path / "tags.conll", tmp_path / "run"
    path.write_text("\n\n".join([*sentences, "odd\tX-ANIMAL"]), encoding="utf-8")
    arguments = ["--task", "conll", "--out", out, "--max-steps", 80, *SMALL]
    arguments += [part for flag in ("--data", "--validation", "--test") for part in (flag, path)]
    refused = run("finetune.py", *arguments, check=False)
    assert refused.returncode == 1 and not out.exists()
    assert refused.stderr.startswith(f"error: {path}") and "X-ANIMAL" in refused.stderr
    result = run("finetune.py", *arguments, "--skip-bad-rows")
    assert "1 malformed rows left out" in result.stderr
    assert scores(out)["bert"]["entity_f1"] > 0.9 and "ANIMAL" in result.stdout


def test_questions_are_answered_from_their_contexts(tmp_path):
    paragraphs = [
        {"context": s, "qas": [{"id": str(i), "question": "Which animal sat there?",
         "answers": [{"text": s.split()[1], "answer_start": 4}]}]}
        for i, s in enumerate(SENTENCES)
    ]  # fmt: skip
    path, out = tmp_path / "squad.json", tmp_path / "run"
    path.write_text(json.dumps({"data": [{"title": "animals", "paragraphs": paragraphs}]}))
    arguments = ["--task", "squad", "--data", path, "--out", out, "--max-steps", 80, *SMALL]
    run("finetune.py", *arguments)
    assert scores(out)["bert"]["exact_match"] > 0.9


def test_fine_tuning_on_a_missing_file_is_one_clear_line(tmp_path):
    out = tmp_path / "run"
    for arguments in (["--task", "tsv"], ["--task", "tsv", "--data", tmp_path / "none.tsv"]):
        refused = run("finetune.py", *arguments, "--out", out, check=False)
        assert refused.returncode == 1 and refused.stderr.startswith("error: ")
        assert "Traceback" not in refused.stderr and not out.exists()


def test_the_docstrings_of_a_family_are_split_once_and_for_all(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "scripts")
    library = importlib.import_module("library")
    parts = library.examples()
    texts = {name: {row.text.lower() for row in rows} for name, rows in parts.items()}
    assert all(len(texts[name]) == len(parts[name]) > 100 for name in parts)
    assert not texts["train"] & texts["test"] and not texts["validation"] & texts["test"]
    assert not texts["train"] & texts["validation"]
    for family in library.FAMILIES:
        assert sum(row.label == family for row in parts["train"]) >= 50
    held_back = max(texts["test"], key=len)
    kept = max(texts["train"], key=len)
    corpus = " ".join(library.pretraining_text().lower().split())
    assert kept in corpus and held_back not in corpus
