"""BERT is pre-trained and fine-tuned by its scripts for a few steps, and its loss falls."""

import importlib
import json
import random
import shutil
from pathlib import Path

import pytest
from scripts_tools import ROOT, call, history, losses, needs_extra, refusal, run, scores, stop

from minilm.checkpoint import load_model
from minilm.models.bert_heads import BertForSequenceClassification

pytestmark = needs_extra
SENTENCES = [f"The {a} sat {b} the {c}." for a in ("cat", "dog", "cow") for b in ("on", "by")
             for c in ("mat", "log", "hay", "pot")]  # fmt: skip
SHAPE = ("--d-model", 16, "--n-heads", 2, "--n-layers", 2, "--d-ff", 32, "--max-len", 24,
         "--vocab-size", 80, "--dropout", 0)  # fmt: skip
RECIPE = ("--batch-size", 8, "--eval-interval", 20, "--save-interval", 20, "--warmup-steps", 5,
          "--learning-rate", 5e-3)  # fmt: skip
SMALL = (*SHAPE, *RECIPE)


def reviews(path: Path) -> Path:
    """Sentences whose animal is their label."""
    rows = [f"{sentence}\t{sentence.split()[1]}" for sentence in SENTENCES]
    path.write_text("\n".join(rows), encoding="utf-8")
    return path


def questions(path: Path) -> Path:
    """Which animal each sentence is about."""
    paragraphs = [
        {"context": s, "qas": [{"id": str(i), "question": "Which animal sat there?",
         "answers": [{"text": s.split()[1], "answer_start": 4}]}]}
        for i, s in enumerate(SENTENCES)
    ]  # fmt: skip
    path.write_text(json.dumps({"data": [{"title": "animals", "paragraphs": paragraphs}]}))
    return path


def table(stdout: str) -> dict[str, list[str]]:
    """The lines of a report by their first word."""
    return {line.split()[0]: line.split() for line in stdout.splitlines() if line.split()}


@pytest.fixture(scope="module")
def pretraining(tmp_path_factory):
    """Flags to pre-train with."""
    rng = random.Random(0)
    path = tmp_path_factory.mktemp("text") / "text.txt"
    paragraphs = [" ".join(rng.choices(SENTENCES, k=21)) for _ in range(20)]
    path.write_text("\n\n".join(paragraphs), encoding="utf-8")
    return ["--data", path, "--max-steps", 60, *SMALL]


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory, pretraining):
    out = tmp_path_factory.mktemp("runs") / "run"
    return out, run("train_mlm.py", "--out", out, *pretraining)


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    directory = tmp_path_factory.mktemp("runs")
    path, out = reviews(directory / "reviews.tsv"), directory / "run"
    arguments = ["--task", "tsv", "--data", path, "--test", path, "--max-steps", 120, *SMALL,
                 "--class-weights", "--augment", 1, "--layer-decay", 0.9,
                 "--unfreeze-interval", 10]  # fmt: skip
    return out, run("finetune.py", "--out", out, *arguments)


def test_a_small_bert_is_trained_and_stands_beside_what_counting_gives(pretrained):
    out, result = pretrained
    assert losses(out)[-1] < losses(out)[0]
    rows = table(result.stdout)
    assert float(rows["bigrams"][1]) < float(rows["unigram"][1])
    assert 0 <= float(rows["bert"][3]) <= 1 and (out / "loss.png").stat().st_size > 1000


def test_a_classifier_is_fine_tuned_from_a_table(tuned):
    out, result = tuned
    names = {path.name for path in out.iterdir()}
    assert {"best.npz", "config.json", "confusion.png", "loss.png", "scores.json"} <= names
    assert losses(out)[-1] < losses(out)[0] - 0.3
    assert set(scores(out)) == {"majority", "bag of words", "bert"}
    accuracy = scores(out)["bert"]["accuracy"]
    assert accuracy > 0.8 and scores(out)["bag of words"]["accuracy"] == 1
    assert scores(out)["majority"]["accuracy"] == 1 / 3
    rows = table(result.stdout)
    assert rows["cat"][4] == "8" and rows["bert"][1] == f"{accuracy:.4f}"
    assert isinstance(load_model(out), BertForSequenceClassification)


def test_a_finished_run_resumed_says_the_same_and_its_picture_what_the_loss_is(
    pretrained, tuned, monkeypatch
):
    seen: list[str] = []
    monkeypatch.setattr(
        "matplotlib.figure.Figure.savefig",
        lambda figure, *_, **options: seen.append(figure.axes[0].get_ylabel()),
    )
    for script, (out, result) in (("train_mlm.py", pretrained), ("finetune.py", tuned)):
        before = history(out)
        assert call(script, "--resume", out).stdout == result.stdout
        assert history(out) == before
    assert seen == ["loss (nats per hidden token + nats per pair)", "loss", "class"]


def test_a_run_is_not_overwritten_nor_gone_on_with_by_another_script(pretrained, tuned):
    for script, (own, _), (other, _) in (
        ("train_mlm.py", pretrained, tuned),
        ("finetune.py", tuned, pretrained),
        ("train_seq2seq.py", pretrained, tuned),
    ):
        assert "expected no run there" in refusal(script, "--out", own)
        assert "expected a run of this script" in refusal(script, "--resume", other)


def test_a_pretraining_that_was_stopped_ends_as_if_it_had_not_been(
    pretrained, pretraining, tmp_path
):
    whole, result = pretrained
    stop("train_mlm.py", *pretraining, out=tmp_path / "run", step=30)
    assert history(tmp_path / "run") == history(whole)[:3]
    again = call("train_mlm.py", "--resume", tmp_path / "run")
    assert history(tmp_path / "run") == history(whole)
    assert again.stdout.split(str(tmp_path))[0] == result.stdout.split(str(whole.parent))[0]


def test_a_fine_tuning_that_was_stopped_ends_as_if_it_had_not_been(
    pretrained, tmp_path, monkeypatch
):
    shutil.copytree(pretrained[0], tmp_path / "mlm")
    reviews(tmp_path / "reviews.tsv")
    monkeypatch.chdir(tmp_path)
    arguments = ["--task", "tsv", "--data", "reviews.tsv", "--pretrained", "mlm", "--max-steps", 40]
    whole = tmp_path / "whole"
    call("finetune.py", *arguments, *RECIPE, "--out", whole)
    for step in (10, 30):  # before and behind the first checkpoint
        stop("finetune.py", *arguments, *RECIPE, out=tmp_path / str(step), step=step)
    monkeypatch.chdir(pretrained[0])
    for step in (10, 30):
        call("finetune.py", "--resume", tmp_path / str(step))
        assert history(tmp_path / str(step)) == history(whole)
        assert scores(tmp_path / str(step)) == scores(whole)
        shutil.rmtree(tmp_path / "mlm", ignore_errors=True)  # its weights are in the checkpoint


def test_a_file_that_has_changed_spoils_no_run(tmp_path):
    path, out = reviews(tmp_path / "reviews.tsv"), tmp_path / "run"
    stop(
        "finetune.py", "--task", "tsv", "--data", path, "--max-steps", 40, *SMALL, out=out, step=25
    )
    before = {file.name: file.read_bytes() for file in out.iterdir()}
    path.write_text(path.read_text(encoding="utf-8").replace("cow", "emu"), encoding="utf-8")
    refused = refusal("finetune.py", "--resume", out)
    assert "expected labels cat, cow, dog, got 'emu'" in refused
    assert {file.name: file.read_bytes() for file in out.iterdir()} == before
    path.write_text(reviews(path).read_text(encoding="utf-8") + "\nA new word.\tcat")
    call("finetune.py", "--resume", out)
    assert (out / "tokenizer.json").read_bytes() == before["tokenizer.json"]
    assert (out / "config.json").read_bytes() == before["config.json"]
    load_model(out)


def test_what_was_pretrained_goes_on_from_there_and_what_is_frozen_stays(pretrained, tmp_path):
    arguments = ["--task", "tsv", "--data", reviews(tmp_path / "reviews.tsv"), "--max-steps", 20]
    arguments += ["--eval-interval", 10, "--batch-size", 8, "--pretrained", pretrained[0]]
    before = load_model(pretrained[0]).bert.state_dict()
    for name, flags in (("frozen", ["--freeze", 1]), ("scratch", ["--scratch"])):
        out = tmp_path / name
        call("finetune.py", *arguments, "--out", out, *flags)
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
    refused = refusal("finetune.py", *arguments)
    assert refused.startswith(f"error: {path}") and "X-ANIMAL" in refused and not out.exists()
    result = call("finetune.py", *arguments, "--skip-bad-rows")
    assert "1 malformed rows left out" in result.stderr
    assert scores(out)["bert"]["entity_f1"] > 0.9 and "ANIMAL" in result.stdout


def test_questions_are_answered_from_their_contexts(tmp_path):
    path, out = questions(tmp_path / "squad.json"), tmp_path / "run"
    arguments = ["--task", "squad", "--data", path, "--out", out, "--max-steps", 80, *SMALL]
    call("finetune.py", *arguments)
    assert scores(out)["bert"]["exact_match"] > 0.9


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--data", "short.txt"], "expected two documents or more"),
        (["--max-len", 4], "expected max_tokens >= 2, got 1"),
        (["--n-token-types", 1], "token_type_ids"),
    ],
)
def test_what_cannot_be_pretrained_is_one_clear_line_and_leaves_no_run(
    pretraining, tmp_path, monkeypatch, flags, message
):
    (tmp_path / "short.txt").write_text("One sentence. Another one.", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    first = pretraining if "--data" not in flags else pretraining[2:]
    assert message in refusal("train_mlm.py", *first, *flags, "--out", "run")
    assert not Path("run/config.json").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--task tsv", "expected --data FILE"),
        ("--task tsv --data none.tsv", "none.tsv"),
        ("--data reviews.tsv", "name the files' task with --task"),
        ("--skip-bad-rows", "name the files' task with --task"),
        ("--task tsv --data reviews.tsv --test bare.tsv", "expected examples with labels"),
        ("--task tsv --data reviews.tsv --validation bare.tsv", "expected examples with labels"),
        ("--task squad --data bare.json", "expected examples with labels"),
        ("--task tsv --data reviews.tsv --freeze 9", "freeze_layers: expected"),
        ("--task tsv --data reviews.tsv --freeze bert --freeze classifier", "expected"),
        ("--task tsv --data reviews.tsv --unfreeze-interval 0", "expected interval >= 1"),
        ("--task tsv --data reviews.tsv --examples-per-class -3", "1 or more, got -3"),
        ("--task tsv --data reviews.tsv --examples-per-class 0", "1 or more, got 0"),
        ("--task squad --data squad.json --examples-per-class 3", "--examples-per-class"),
        ("--task squad --data squad.json --class-weights", "--class-weights"),
        ("--task copa --data copa.jsonl --class-weights --stride 4", "--class-weights, --stride"),
        ("--task stsb --data stsb.tsv --class-weights", "--class-weights"),
        ("--task stsb --data stsb.tsv --stride 4", "--stride"),
        ("--task tsv --data reviews.tsv --language zh", "--language"),
        ("--task tsv --data reviews.tsv --scratch", "--scratch"),
        ("--task tsv --data reviews.tsv --pretrained mlm --d-model 16", "--d-model"),
        ("--task tsv --data reviews.tsv --pretrained mlm --vocab-size 80", "--vocab-size"),
    ],
)
def test_a_flag_that_is_wrong_or_of_no_use_is_one_clear_line_and_leaves_no_run(
    tmp_path, monkeypatch, flags, message
):
    monkeypatch.chdir(tmp_path)
    reviews(Path("reviews.tsv"))
    squad = json.loads(questions(Path("squad.json")).read_text())
    for paragraph in squad["data"][0]["paragraphs"]:
        del paragraph["qas"][0]["answers"]
    Path("bare.json").write_text(json.dumps(squad))
    Path("bare.tsv").write_text("\n".join(["text", *SENTENCES]))
    choice = {"choice1": "It slept.", "choice2": "It ran.", "question": "cause", "label": 0}
    Path("copa.jsonl").write_text(
        "\n".join(json.dumps({"premise": s, **choice}) for s in SENTENCES)
    )
    rows = [f"{s}\t{s}\t5" for s in SENTENCES]
    Path("stsb.tsv").write_text("\n".join(["sentence1\tsentence2\tscore", *rows]))
    assert message in refusal("finetune.py", *flags.split(), "--out", "run")
    assert not Path("run/config.json").exists()


def test_the_number_of_classes_is_the_files_and_no_flag(tmp_path):
    for script in ("finetune.py", "train_mlm.py"):
        assert call(script, "--n-labels", 3, check=False).returncode == 2


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


def test_what_is_to_be_predicted_is_left_out_of_the_text_to_pretrain_on(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "scripts")
    library = importlib.import_module("library")
    corpus = " ".join(library.pretraining_text().lower().split())
    parts = library.examples()
    assert max((row.text.lower() for row in parts["train"]), key=len) in corpus
    for name in ("validation", "test"):  # a few, most of them short, stand in other docstrings
        assert sum(row.text.lower() in corpus for row in parts[name]) < 0.02 * len(parts[name])
