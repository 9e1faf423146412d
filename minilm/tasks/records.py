"""Task files to rows: values by their names, and where in the file they stand."""

import csv
import io
import json
import re
import reprlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from minilm.tasks.table import Task

NOT_TEXT = re.compile("[\ud800-\udfff]")  # what decoding makes of bytes that are not UTF-8
BIO = re.compile("O|[BI]-.+", re.DOTALL)
SHORT = reprlib.Repr()  # safe for values of any depth and length
SHORT.maxstring = 60


class BadRow(Exception):
    """What was expected in a row, what came, and the fix."""

    def __init__(self, expected: str, got: object, fix: str = "correct it") -> None:
        super().__init__(f"expected {expected}, got {SHORT.repr(got)}; {fix}")


Records = Iterator[tuple[str, dict[str, Any] | BadRow]]


def read_records(task: Task, file: Path) -> Records:
    """The rows of a file, each with its place: a line, or the path inside of a JSON document."""
    text = file.read_bytes().decode("utf-8", "surrogateescape").removeprefix("\ufeff")
    is_lines = task.format == "race" and file.suffix.lower() == ".jsonl"
    return RECORDS["race lines" if is_lines else task.format](task, text)


def _lines(text: str) -> Iterator[tuple[str, str]]:
    """Lines end in LF or CR LF alone: U+2028 and the like may stand in a text."""
    for number, line in enumerate(text.split("\n"), start=1):
        if line not in ("", "\r"):
            yield f"line {number}", line.removesuffix("\r")


def _tsv(task: Task, text: str) -> Records:
    return _table(task, [(place, line.split("\t")) for place, line in _lines(text)])


def _csv(task: Task, text: str) -> Records:
    rows: list[tuple[str, list[str] | BadRow]] = []
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    while True:
        place = f"line {reader.line_num + 1}"
        try:
            cells = next(reader)
        except StopIteration:
            return _table(task, rows)
        except csv.Error as error:
            rows.append((place, BadRow("a row of CSV", str(error), "check its quotes")))
        else:
            rows += [(place, cells)] if cells else []


def _table(task: Task, rows: Sequence[tuple[str, list[str] | BadRow]]) -> Records:
    """Cells by their columns' names: those of the header, or of the layout of that many columns."""
    place, first = rows[0] if rows else ("", [])
    names: tuple[str, ...] = ()
    if isinstance(first, list) and _is_header(task, first):
        names, rows = tuple(first), rows[1:]
    elif task.layouts:
        sizes = (len(cells) for _, cells in rows if isinstance(cells, list))
        fitting = (layout for size in sizes for layout in task.layouts if len(layout) == size)
        names = next(fitting, task.layouts[0])
    fields = [name for name in (task.text, task.text_pair, task.label) if name]
    if not names or any(names.count(name) > 1 for name in fields):
        rows = [(place, BadRow(f"a header with {', '.join(fields)}, each once", first))]
    for place, cells in rows:
        if isinstance(cells, BadRow):
            yield place, cells
        elif len(cells) != len(names):
            yield place, BadRow(f"{len(names)} columns {SHORT.repr(names)}", cells)
        else:
            yield place, dict(zip(names, cells, strict=True))


def _is_header(task: Task, cells: Sequence[str]) -> bool:
    if not task.layouts:
        return {task.text, task.text_pair or task.text} <= set(cells)
    fields = {task.text, task.text_pair, task.label, "index"}
    return task.text in cells and (task.label in cells or fields.issuperset(cells))


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:  # ValueError also for a number of 5,000 digits
        return BadRow(f"JSON ({error})", text)


def _jsonl(task: Task, text: str) -> Records:
    for place, line in _lines(text):
        yield from _leaves(_json(line), (), place, {})


def _squad(task: Task, text: str) -> Records:
    return _leaves(_json(text), ("data", "paragraphs", "qas"), "document", {})


def _leaves(node: Any, keys: Sequence[str], place: str, outer: dict[str, Any]) -> Records:
    """The objects that lists under these keys lead to, each with what stands around it."""
    if isinstance(node, BadRow):
        yield place, node
    elif not isinstance(node, dict):
        yield place, BadRow("a JSON object", node)
    elif not keys:
        yield place, {**outer, **node}
    elif not isinstance(node.get(keys[0]), list):
        yield place, BadRow(f"a list under {keys[0]!r}", node)
    else:
        for i, child in enumerate(node[keys[0]]):
            inner = f"{place}.{keys[0]}[{i}]".removeprefix("document.")
            yield from _leaves(child, keys[1:], inner, {**outer, **node})


def _race(task: Task, text: str) -> Records:
    content = _json(text)
    if not isinstance(content, list):
        yield from _questions(content, "document")
    else:
        for i, article in enumerate(content):
            yield from _questions(article, f"document[{i}]")


def _race_lines(task: Task, text: str) -> Records:
    for place, line in _lines(text):
        yield from _questions(_json(line), place)


def _questions(article: Any, place: str) -> Records:
    """One row for each question of an article."""
    ((_, record),) = _leaves(article, (), place, {})
    if isinstance(record, BadRow):
        yield place, record
        return
    names = ["questions", "options", "answers"]
    if record.get("answers") is None:
        names.pop()
    lists = [record.get(name) for name in names]
    sizes = {len(values) if isinstance(values, list) else None for values in lists}
    if len(sizes) > 1 or None in sizes:
        yield place, BadRow(f"lists {', '.join(names)} of one length", record)
        return
    for i, values in enumerate(zip(*lists, strict=True)):
        yield f"{place}.questions[{i}]", {**record, **dict(zip(names, values, strict=True))}


def _conll(task: Task, text: str) -> Records:
    """One row for each sentence. A tab parts the columns of a line that has one, else spaces do."""
    lines = [line.rstrip(" \t\r") for line in text.split("\n")]
    words = [
        (number, re.split("\t" if "\t" in line else " +", line))
        for number, line in enumerate(lines, start=1)
        if line and not line.startswith("-DOCSTART-")
    ]
    columns = Counter(len(cells) for _, cells in words).most_common(1)
    # Inside of a sentence the lines' numbers grow as the words' do: their difference stays.
    for _, sentence in groupby(enumerate(words), key=lambda entry: entry[1][0] - entry[0]):
        yield _sentence([word for _, word in sentence], columns[0][0])


def _sentence(
    words: list[tuple[int, list[str]]], columns: int
) -> tuple[str, dict[str, Any] | BadRow]:
    for number, cells in words:
        place = f"line {number}"
        if len(cells) != columns:
            return place, BadRow(f"{columns} columns as in most lines", cells)
        if not cells[0].strip() or NOT_TEXT.search("".join(cells)):
            return place, BadRow("a word, and all in UTF-8", cells)
        if columns > 1 and not BIO.fullmatch(cells[-1]):
            fix = "rewrite other schemes as BIO"
            return place, BadRow("the tag O, B-type or I-type last", cells, fix)
    tags = [cells[-1] for _, cells in words] if columns > 1 else None
    return f"line {words[0][0]}", {"words": [cells[0] for _, cells in words], "tags": tags}


RECORDS: dict[str, Callable[[Task, str], Records]] = {
    "tsv": _tsv,
    "csv": _csv,
    "jsonl": _jsonl,
    "squad": _squad,
    "race": _race,
    "race lines": _race_lines,
    "conll": _conll,
}
