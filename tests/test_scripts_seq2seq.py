"""The encoder-decoder's scripts run for a few steps, and their loss falls."""

import json

import pytest
from scripts_tools import losses, needs_extra, run, scores

from minilm.checkpoint import load_model
from minilm.models.t5 import T5
from minilm.models.transformer import Transformer

pytestmark = needs_extra
SMALL = ("--d-model", 16, "--n-heads", 2, "--n-layers", 1, "--d-ff", 32, "--max-len", 24,
         "--batch-size", 16, "--eval-interval", 40, "--save-interval", 40, "--warmup-steps", 5,
         "--learning-rate", 1e-2)  # fmt: skip
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
def trained(tmp_path_factory, pairs):
    directory = tmp_path_factory.mktemp("runs") / "run"
    more = ("--metric", "bleu", "--tokenizer", "char", "--max-steps", 120, "--eval-interval", 10)
    return directory, run("train_seq2seq.py", "--data", pairs, "--out", directory, *SMALL, *more)


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
    again = run("train_seq2seq.py", "--resume", directory)
    assert again.stdout.split("validation loss")[1] == result.stdout.split("validation loss")[1]
    after = (directory / "metrics.jsonl").read_bytes(), (directory / "scores.json").read_bytes()
    assert before == after
    refused = run("train_seq2seq.py", "--data", pairs, "--out", directory, check=False)
    assert refused.returncode == 1 and "expected no run there" in refused.stderr


def test_t5_learns_spans_first_and_then_a_file_and_an_embedded_task(tmp_path, pairs):
    text, first, second = tmp_path / "text.txt", tmp_path / "spans", tmp_path / "tasks"
    text.write_text(" ".join(" ".join(pair) for pair in PAIRS * 20), encoding="utf-8")
    run("train_seq2seq.py", "--pretrain", text, "--model", "t5", "--vocab-size", 400,
        "--out", first, "--max-steps", 80, *SMALL)  # fmt: skip
    assert losses(first)[-1] < losses(first)[0] - 0.3
    recipe = SMALL[SMALL.index("--batch-size") :]
    run("train_seq2seq.py", "--pretrained", first, "--data", pairs, "--written", "number",
        "--out", second, "--max-steps", 40, *recipe)  # fmt: skip
    assert set(scores(second)) == {"swap", "number"}
    model = load_model(second)
    assert isinstance(model, T5) and model.config == load_model(first).config
    config = json.loads((second / "config.json").read_text())
    refused = run("train_seq2seq.py", "--pretrained", second, "--data", pairs, "--d-model", 32,
                  "--out", tmp_path / "other", check=False)  # fmt: skip
    assert config["model"] == "t5" and refused.returncode == 1 and "--d-model" in refused.stderr


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
    refused = run("train_seq2seq.py", "--data", path, "--out", out, *SMALL, check=False)
    assert refused.returncode == 1 and refused.stderr.startswith("error: ")
    assert message in refused.stderr and not out.exists()


def test_each_kind_of_attention_is_drawn(trained, tmp_path):
    directory, _ = trained
    arguments = (directory, "--text", "swap: one two", "--out", tmp_path)
    result = run("plot_attention.py", *arguments)
    names = [f"attention-{kind}.png" for kind in ("encoder", "decoder", "cross")]
    assert [line.rsplit("/", 1)[1] for line in result.stdout.splitlines()] == names
    pictures = [(tmp_path / name).read_bytes() for name in names]
    assert all(picture.startswith(b"\x89PNG") for picture in pictures)
    run("plot_attention.py", *arguments, "--target", "two one", "--head", 1)
    assert (tmp_path / names[2]).read_bytes() != pictures[2]
    refused = run("plot_attention.py", *arguments, "--head", 2, check=False)
    assert refused.returncode == 1 and "--head: expected 0 to 1, got 2" in refused.stderr


def test_attention_is_drawn_of_a_decoder_and_of_an_encoder(tmp_path, pairs):
    size = ["--d-model", 16, "--n-heads", 2, "--n-layers", 1, "--max-len", 24, "--batch-size", 8]
    text = tmp_path / "text.txt"
    text.write_text("\n\n".join(f"{s}. {t}. {s}." for s, t in PAIRS * 8), encoding="utf-8")
    for script, name, more in (
        ("train_causal.py", "gpt", ["--model", "gpt"]),
        ("train_mlm.py", "bert", ["--d-ff", 32, "--vocab-size", 60]),
    ):
        out = tmp_path / name
        run(script, "--data", text, "--out", out, "--max-steps", 5, *size, *more)
        run("plot_attention.py", out, "--text", "one two")
        assert (out / "attention-self.png").read_bytes().startswith(b"\x89PNG")
    refused = run("plot_attention.py", tmp_path / "gpt", "--text", "one", "--target", "two",
                  check=False)  # fmt: skip
    assert refused.returncode == 1 and "--target: expected none" in refused.stderr
