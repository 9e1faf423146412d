"""Task files to examples: every row is read exactly, or is an error that says where and why."""

import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from minilm.tasks.examples import (
    ChoiceExample,
    Example,
    SpanExample,
    TaggedExample,
    TextExample,
)
from minilm.tasks.records import NOT_TEXT, BadRow, read_records
from minilm.tasks.table import CHOICE, CLASSES, NUMBER, SPAN, TAGS, TASKS, Task

RACE_SUFFIXES = (".txt", ".json", ".jsonl")


class TaskFileError(ValueError):
    """A task file that is missing, empty, or has a row that is not what the task expects."""


class Reading(NamedTuple):
    """The examples in the order of the files, and the errors of the rows left out."""

    examples: list[Example]
    skipped: list[TaskFileError]


def read_task(
    task: Task | str, paths: str | Path | Iterable[str | Path], skip_bad_rows: bool = False
) -> Reading:
    """The examples of a task's files, as they are distributed.

    Files are UTF-8, with or without a byte order mark, with lines that end in LF or CR LF; empty
    lines are passed over. A row without a label is read as unlabelled if no row of its file has
    one, as in test files. A directory (of RACE) stands for its files `RACE_SUFFIXES`, in all its
    sub-directories, sorted by path; names that begin with a dot are passed over.

    With skip_bad_rows malformed rows (of CoNLL: sentences) are left out, and their errors returned.

    Raises: ValueError — a task that is not in `TASKS`. TaskFileError — no such file, a malformed
    row, or a path without a single example.
    """
    if isinstance(task, str) and task not in TASKS:
        raise ValueError(f"expected a task of {', '.join(TASKS)}, got {task!r}; or give a Task")
    task = TASKS[task] if isinstance(task, str) else task
    paths = [paths] if isinstance(paths, str | Path) else list(paths)
    if not paths:
        raise TaskFileError(f"expected files of the task {task.name}, got none; check the path")
    reading = Reading([], [])
    for path in paths:
        before = [len(part) for part in reading]
        for file in _files(task, Path(path)):
            _read_file(task, file, skip_bad_rows, reading)
        if len(reading.examples) == before[0]:
            errors = reading.skipped[before[1] :]
            first = f" (the first: {errors[0]})" if errors else ""
            raise TaskFileError(
                f"{path}: expected examples of the task {task.name}, got none, and {len(errors)} "
                f"malformed rows{first}; check the path and the task"
            )
    return reading


def collect_labels(examples: Iterable[Example]) -> tuple[str, ...]:
    """The classes of texts, or the tags of words with "O" first: those that occur, sorted.

    Raises: ValueError — no example with a class or tags.

    >>> collect_labels([TaggedExample(("in", "Rome"), ("O", "B-LOC"))])
    ('O', 'B-LOC')
    """
    found: set[str] = set()
    for example in examples:
        if isinstance(example, TaggedExample):
            found.update(example.tags or ())
        elif isinstance(example, TextExample) and isinstance(example.label, str):
            found.add(example.label)
    if not found:
        raise ValueError("expected examples with classes or tags, got none; give the training file")
    return tuple(sorted(found, key=lambda label: (label != "O", label)))


def _files(task: Task, path: Path) -> list[Path]:
    files = [path] if path.is_file() else []
    if path.is_dir() and task.format == "race":
        files = sorted(
            file
            for file in path.rglob("*")
            if file.suffix.lower() in RACE_SUFFIXES
            and file.is_file()
            and not any(part.startswith(".") for part in file.relative_to(path).parts)
        )
    if not files:
        kind = "a directory" if path.is_dir() else "no such file"
        wanted = f"a file of the task {task.name}"
        if task.format == "race":
            wanted += f", or a directory with files {' '.join(RACE_SUFFIXES)}"
        raise TaskFileError(f"{path}: expected {wanted}, got {kind}; check the path")
    return files


def _read_file(task: Task, file: Path, skip_bad_rows: bool, reading: Reading) -> None:
    records = list(read_records(task, file))
    labelled = any(isinstance(r, dict) and r.get(task.label) is not None for _, r in records)
    for place, record in records:
        try:
            reading.examples.append(_example(task, record, labelled))
        except BadRow as bad:
            message = f"{file}, {place}: {bad}"
            if not skip_bad_rows:
                hint = ", or leave such rows out: skip_bad_rows=True, in scripts --skip-bad-rows"
                raise TaskFileError(message + hint) from None
            reading.skipped.append(TaskFileError(message))


# --- Rows to examples -------------------------------------------------------------------------


def _require(ok: object, expected: str, got: object, fix: str = "correct it") -> None:
    if not ok:
        raise BadRow(expected, got, fix)


def _text(value: Any, name: str) -> str:
    """The value if it is text that is not empty."""
    _require(isinstance(value, str) and value.strip(), f"text as {name!r}", value)
    bad = NOT_TEXT.search(value)
    fix = "convert the file, for example: iconv -f latin1 -t utf-8"
    _require(not bad, f"UTF-8 in {name!r}", value[bad.start() :] if bad else "", fix)
    return value


def _field(record: dict[str, Any], key: str) -> str:
    _require(key in record, f"{key!r} among the names", list(record))
    return _text(record[key], key)


def _text_example(task: Task, record: dict[str, Any], label: Any) -> Example:
    text = _field(record, task.text)
    if task.word:
        text = f"{_field(record, task.word)}: {text}"
    pair = None
    if task.text_pair and not (task.pair_optional and record.get(task.text_pair) is None):
        pair = _field(record, task.text_pair)
    if label is not None:
        label = _number(task, label) if task.head == NUMBER else _class(task, label)
    return TextExample(text, pair, label)


def _number(task: Task, label: Any) -> float:
    try:
        number = math.nan if isinstance(label, bool) else float(label)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    _require(math.isfinite(number), f"a finite number as {task.label!r}", label)
    return number


def _class(task: Task, label: Any) -> str:
    if isinstance(label, int):  # JSON's true is the class "true"
        label = str(label).lower()
    label = _text(label, task.label)
    if task.labels is not None:
        _require(label in task.labels, f"{task.label!r} of {', '.join(task.labels)}", label)
    return label


def _choice_example(task: Task, record: dict[str, Any], label: Any) -> Example:
    choices = tuple(_field(record, key) for key in task.choices)
    question, questions = "", dict(task.questions)
    if questions:
        question = _field(record, "question")
        _require(question in questions, f"'question' of {', '.join(questions)}", question)
        question = questions[question]
    right = type(label) is int and label in range(len(choices))
    _require(label is None or right, f"{task.label!r} from 0 to {len(choices) - 1}", label)
    return ChoiceExample(_field(record, task.text), choices, label, question)


def _race_example(task: Task, record: dict[str, Any], label: Any) -> Example:
    options = record["options"]
    _require(isinstance(options, list) and len(options) > 1, "a list of options", options)
    choices = tuple(_text(option, "options") for option in options)
    letters = [chr(ord("A") + i) for i in range(len(choices))]
    _require(label is None or label in letters, f"an answer of {', '.join(letters)}", label)
    article, question = _field(record, task.text), _text(record["questions"], "questions")
    return ChoiceExample(article, choices, letters.index(label) if label else None, question)


def _span_example(task: Task, record: dict[str, Any], answers: Any) -> Example:
    question, context, id = (_field(record, key) for key in ("question", "context", "id"))
    if answers is None:
        return SpanExample(id, question, context)
    _require(isinstance(answers, list), "a list 'answers'", answers)
    impossible = record.get("is_impossible", not answers)
    _require(impossible is (not answers), "answers unless 'is_impossible'", record)
    _require(answers or task.unanswerable, "an answer", answers, "read it as 'squad2'")
    spans = []
    for answer in answers:
        _require(isinstance(answer, dict), "a JSON object in 'answers'", answer)
        text, start = _field(answer, "text"), answer.get("answer_start")
        _require(type(start) is int and start >= 0, "'answer_start' of 0 or more", answer)
        found = context[start : start + len(text)]
        _require(found == text, f"the answer {text:.40} from character {start}", found)
        spans.append((start, text))
    return SpanExample(id, question, context, tuple(spans))


def _tagged_example(task: Task, record: dict[str, Any], tags: Any) -> Example:
    known = tags is None or task.labels is None or set(tags) <= set(task.labels)
    _require(known, f"tags of {', '.join(task.labels or ())}", tags)
    return TaggedExample(tuple(record["words"]), None if tags is None else tuple(tags))


def _example(task: Task, record: dict[str, Any] | BadRow, labelled: bool) -> Example:
    if isinstance(record, BadRow):
        raise record
    label = record.get(task.label)
    _require(label is not None or not labelled, f"{task.label!r} as other rows have it", record)
    make = _race_example if task.format == "race" else EXAMPLES[task.head]
    return make(task, record, label)


EXAMPLES: dict[str, Callable[[Task, dict[str, Any], Any], Example]] = {
    CLASSES: _text_example,
    NUMBER: _text_example,
    CHOICE: _choice_example,
    SPAN: _span_example,
    TAGS: _tagged_example,
}
