"""Fine-tune BERT on a task, and see what its pre-training was worth.

    python scripts/finetune.py                      # docstrings: from which family of modules?
    python scripts/finetune.py --pretrained runs/library --examples-per-class 50
    python scripts/finetune.py --task tsv --data reviews.tsv --pretrained runs/library --freeze 1
    python scripts/finetune.py --task conll --data train.conll --validation dev.conll
    python scripts/finetune.py --resume runs/finetune    # go on after an interruption

What it teaches: how little of a model a task changes, how many labels pre-training is worth, and
that a bag of words is hard to beat. `--task` takes the names of `minilm.tasks.TASKS`; without
`--validation` and `--test`, a tenth of the data is held back for each by a checksum of its text.
"""

import argparse
import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

import common
import library
import numpy as np
from common import add_fields
from prepare_head import LABELLED, build, freeze, refuse_flags
from report import report
from run_dir import begin, new_or_resumed, parse_flags
from splits import augmented, per_class, read_parts

from minilm import checkpoint, finetuning, tasks, training
from minilm.files import replacing
from minilm.models.bert import BertConfig
from minilm.tasks import Task, collect_labels
from minilm.tasks.table import CLASSES

DOCSTRINGS = Task("docstrings", "tsv", CLASSES, ("accuracy", "macro_f1"), "text", None,
                  "label", tuple(library.FAMILIES))  # fmt: skip
TASKS = {"docstrings": DOCSTRINGS, **tasks.TASKS}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--task", default="docstrings", choices=list(TASKS))
    for name in ("--data", "--validation", "--test"):
        add(name, action="append", default=[], help="a file of the task; repeatable")
    add("--skip-bad-rows", action="store_true", help="leave malformed rows out, and count them")
    add("--examples-per-class", type=int, help="train on that many of each class")
    add("--pretrained", type=Path, metavar="RUN_DIR", help="what train_mlm.py left behind")
    add("--scratch", action="store_true", help="its tokenizer and shape, but new weights")
    add("--freeze", action="append", default=[], help="so many layers, or a name; repeatable")
    add("--unfreeze-interval", type=int, help="steps until the next layer from the top joins")
    add("--class-weights", action="store_true", help="rare classes weigh more")
    add("--augment", type=int, default=0, metavar="N", help="changed copies of each text")
    add("--stride", type=int, help="tokens that the windows of a long text share")
    add("--language", choices=["en", "zh"], help="of the answers, to compare them; default: en")
    add("--out", type=Path, default=Path("runs/finetune"))
    add("--resume", type=Path, metavar="RUN_DIR")
    add_fields(parser, BertConfig, training.TrainingConfig, without=["n_labels"])
    return parse_flags(parser)


def fine_tune(args: argparse.Namespace, parts: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Train, choose by the validation loss, report on the test; the scores of each model."""
    task, rng = TASKS[args.task], np.random.default_rng(args.seed or 0)
    refuse_flags(args, task.head, parts["train"])
    every = [example for part in parts.values() for example in part]
    labels = () if task.head not in LABELLED else task.labels or collect_labels(every)
    if args.resume:  # its own, even if the files have changed
        labels = checkpoint.read_config(args.resume)["labels"]
    train = parts["train"]
    if args.examples_per_class is not None:
        train = per_class(train, args.examples_per_class, rng)
    if args.augment:
        train = augmented(train, args.augment, rng)
    tokenizer, model, settings = build(args, task.head, labels, train)
    head = tasks.HEADS[task.head]
    length, stride = model.config.max_len, args.stride
    rows = {
        name: head.features(examples, tokenizer, length, labels=labels, stride=stride)
        for name, examples in {**parts, "train": train}.items()
    }
    if args.class_weights:
        targets = [row.targets["labels"].ravel() for row in rows["train"].rows]
        model.class_weights = finetuning.class_weights(np.concatenate(targets), len(labels))
    before_step = freeze(model, args)
    print(f"{args.task}: {', '.join(f'{len(part.examples):,} {n}' for n, part in rows.items())}; "
          f"{model.count_parameters():,} parameters")  # fmt: skip
    records = common.train(
        model, rows["train"].sample, lambda: rows["validation"].evaluation(64), settings,
        args.out, before_step, partial(begin, args, tokenizer, model, settings, labels=labels),
    )  # fmt: skip
    common.plot_losses(records, args.out / "loss.png", {}, "loss")
    model.load_state_dict(checkpoint.load(args.out / checkpoint.BEST)[0])
    may_be_none = {"null_threshold": 0.0} if task.unanswerable else {}
    predicted = head.predict(model, rows["test"], **may_be_none)
    return report(task.metrics, labels, train, rows["test"], predicted, args.out,
                  args.language or "en")  # fmt: skip


def main(args: argparse.Namespace) -> None:
    args = new_or_resumed(args, "data", "validation", "test", "pretrained")
    scores = fine_tune(args, read_parts(args))
    with replacing(args.out / "scores.json") as file:
        file.write(json.dumps(scores, indent=2).encode())
    print(f"\n{args.out}: the run, with loss.png and scores.json")


if __name__ == "__main__":
    try:
        main(parse())
    except (ValueError, TypeError, IndexError, OSError, FloatingPointError) as error:
        sys.exit(f"error: {error}")
