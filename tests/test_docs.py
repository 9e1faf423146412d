"""README and chapters say what is so: their code runs, their links and names lead somewhere."""

import ast
import re
import warnings
from dataclasses import fields
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minilm import GPTConfig, LlamaConfig, TrainingConfig
from minilm.models.bert import BertConfig
from minilm.models.t5 import T5Config
from minilm.models.transformer import TransformerConfig

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
CHAPTERS = sorted((ROOT / "docs").glob("[0-9]*.md"))
ARTICLES = ROOT / "docs" / "articles.md"
PAGES = [README, ROOT / "docs" / "README.md", *CHAPTERS, ARTICLES]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[([^\]]*)\]\(([^)\s]+)\)")
NAME = re.compile(r"`([A-Za-z_][\w.]*)`")  # of a function, class or constant, as a link's label

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def read(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def prose(page: Path) -> str:
    """The page without its blocks."""
    return BLOCK.sub("", read(page))


def section(page: Path, heading: str) -> str:
    """What stands below a heading, up to the next one."""
    return re.split(r"^#+ ", read(page).split(f"## {heading}\n")[1], flags=re.MULTILINE)[0]


def rows(text: str) -> list[list[str]]:
    """The cells of each row of a table, the header left out."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [re.split(r"(?<!\\)\|", line)[1:-1] for line in lines[2:]]


# --- Code -------------------------------------------------------------------------------------


def run(page: Path) -> dict[str, Any]:
    """Execute the Python blocks from top to bottom; the names they leave behind."""
    text, names = read(page), {"__name__": page.stem}
    for match in BLOCK.finditer(text):
        if match[1] == "python":
            above = "\n" * text.count(
                "\n", 0, match.start(2)
            )  # so that errors name the page's line
            exec(compile(above + match[2], str(page), "exec"), names)
    return names


@each_page
def test_the_python_of_a_page_runs_from_top_to_bottom_without_a_warning(
    page, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        names = run(page)
    if page == README:  # its example learns
        assert names["loss"] < np.log(names["tokenizer"].vocab_size) - 1


def test_every_chapter_has_code_that_runs_and_an_exercise():
    for page in CHAPTERS:
        assert [match for match in BLOCK.finditer(read(page)) if match[1] == "python"]
        assert "python tests/docs/test_exercises.py" in section(page, "Exercise")


def test_each_example_of_the_articles_has_a_section_whose_code_asserts():
    found = re.findall(r"^## (\w)\. .*?\n(.*?)(?=^## )", read(ARTICLES), re.MULTILINE | re.DOTALL)
    assert "".join(letter for letter, _ in found) == "abcdefghij"
    for letter, text in found:
        blocks = [match[2] for match in BLOCK.finditer(text) if match[1] == "python"]
        assert any("assert " in block for block in blocks), letter


def test_the_two_commands_stand_on_lines_of_their_own():
    shell = [line for match in BLOCK.finditer(read(README)) if match[1] == "sh" for line in
             match[2].splitlines()]  # fmt: skip
    assert "pip install -e '.[scripts]' && python scripts/train_causal.py" in shell
    assert next(line for line in shell if "pytest" in line) == "pip install -e '.[test]' && pytest"


# --- Links and names --------------------------------------------------------------------------


@cache
def definitions(path: Path) -> set[str]:
    """The names a Python file defines: functions, classes, methods, constants."""
    names: set[str] = set()
    for node in ast.parse(read(path)).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            functions = [part for part in node.body if isinstance(part, ast.FunctionDef)]
            names |= {f"{node.name}.{function.name}" for function in functions}
        if isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            parts = [part for target in targets for part in ast.walk(target)]
            names |= {part.id for part in parts if isinstance(part, ast.Name)}
    return names


def is_defined(name: str, path: Path) -> bool:
    """Whether `path` defines the name, which may begin with the module's."""
    return bool({name, name.removeprefix(f"{path.stem}.")} & definitions(path))


@cache
def anchors(page: Path) -> set[str]:
    """The fragments under which GitHub shows a page's headings."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in headings}


@each_page
def test_links_lead_to_files_headings_and_names_that_exist(page):
    for label, target in LINK.findall(prose(page)):
        if "://" in target:
            continue
        path, _, fragment = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{target}: no such file"
        assert ROOT in file.parents, f"{target}: outside of the repository"
        name = NAME.fullmatch(label)
        if file.suffix == ".py" and name:
            assert is_defined(name[1], file), f"{label}: not in {path}"
        if fragment:
            found = (
                is_defined(fragment, file) if file.suffix == ".py" else fragment in anchors(file)
            )
            assert found, f"{target}: no such heading or name"


@each_page
def test_every_dotted_name_resolves(page):
    for name in re.findall(r"`(minilm(?:\.\w+)+)(?:\(.*?\))?`", prose(page)):
        resolve(name)


def resolve(name: str) -> Any:
    """The module, class or function of a dotted name; raises where there is none."""
    found: Any = import_module("minilm")
    parts = name.split(".")
    for i, part in enumerate(parts[1:], start=2):
        try:
            found = getattr(found, part)
        except AttributeError:
            found = import_module(".".join(parts[:i]))
    return found


def test_names_that_do_not_exist_are_noticed():
    with pytest.raises(ImportError):
        resolve("minilm.functional.softmin")
    assert is_defined("functional.softmax", ROOT / "minilm/functional.py")
    assert is_defined("Tensor.backward", ROOT / "minilm/tensor.py")
    assert not is_defined("functional.softmin", ROOT / "minilm/functional.py")
    assert "exercise" in anchors(CHAPTERS[0]) and "exercises" not in anchors(CHAPTERS[0])


def test_every_flag_exists():
    scripts = [read(path) for path in (ROOT / "scripts").rglob("*.py")]
    known = {flag for text in scripts for flag in re.findall(r'"(--[\w-]+)"', text)}
    configs = (GPTConfig, LlamaConfig, BertConfig, TransformerConfig, T5Config, TrainingConfig)
    every = [field for config in configs for field in fields(config)]
    known |= {"--" + field.name.replace("_", "-") for field in every}
    known |= {"--no-" + f.name.replace("_", "-") for f in every if f.type in (bool, "bool")}
    used = {flag for page in PAGES for flag in re.findall(r"(?<![\w-])--[a-z][\w-]+", read(page))}
    assert used <= known | {"--help"}


def test_every_preset_is_described():
    assignments = [
        node.value
        for path in (ROOT / "scripts").glob("*.py")
        for node in ast.parse(read(path)).body
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "PRESETS"
    ]
    (presets,) = assignments
    assert isinstance(presets, ast.Dict)
    described = {row[0].strip(" `") for row in rows(section(CHAPTERS[5], "In one command"))}
    assert {ast.literal_eval(key) for key in presets.keys if key is not None} == described


def test_the_index_lists_every_chapter_and_each_leads_to_the_next():
    index = read(ROOT / "docs" / "README.md")
    for page in CHAPTERS:
        assert f"({page.name})" in index
    for page, following in zip(CHAPTERS, CHAPTERS[1:], strict=False):
        assert f"({following.name})" in section(page, "Exercise")


# --- README's tables --------------------------------------------------------------------------


def counted_table() -> tuple[str, list[str]]:
    """README's reading order with the counts of today, and the files that are off by over 10 %."""
    lines, wrong = [], []
    for line in section(README, "Reading order").splitlines():
        match = re.match(r"(\| \[`(.*?)`\].*? \| )(\d+)( \|.*)", line)
        if match:
            start, path, stated, end = match.groups()
            actual = len(read(ROOT / path).splitlines())
            if abs(int(stated) - actual) > actual / 10:
                wrong.append(path)
            line = f"{start}{actual}{end}"
        lines.append(line)
    return "\n".join(lines), wrong


def test_line_counts_are_right_within_a_tenth():
    table, wrong = counted_table()
    assert not wrong, f"{', '.join(wrong)}: the table should read\n{table}"
    assert len(rows(table)) > 10


def test_a_file_of_the_reading_order_imports_only_from_those_above_it():
    paths = [LINK.findall(row[0])[0][1] for row in rows(section(README, "Reading order"))]
    for i, path in enumerate(paths):
        for imported in imports(ROOT / path):
            assert imported not in paths[i:], f"{path} imports {imported}, which stands below it"


def imports(path: Path) -> set[str]:
    """The files of minilm whose names a file imports at its top level."""
    found: set[str] = set()
    for node in ast.parse(read(path)).body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("minilm"):
            module = (node.module or "").replace(".", "/")
            found |= {f"{module}.py"} | {f"{module}/{alias.name}.py" for alias in node.names}
    return found


@pytest.mark.parametrize(
    ("page", "heading", "least"),
    [(README, "From equation to function to test", 21), (ARTICLES, "The formulas", 10)],
)
def test_every_equation_names_a_function_and_a_test(page, heading, least):
    table = rows(section(page, heading))
    assert len(table) >= least
    for row in table:
        assert len(row) == 4, row
        for cell, folder in ((row[2], "minilm/"), (row[3], "tests/")):
            ((label, target),) = LINK.findall(cell)  # that it exists is tested above
            assert NAME.fullmatch(label) and target.removeprefix("../").startswith(folder), cell


def test_every_difference_in_a_docstring_stands_in_the_table():
    listed = {
        LINK.findall(row[0])[0][0].strip("`")
        for row in rows(section(README, "Differs from the paper"))
    }
    for path in (ROOT / "minilm").rglob("*.py"):
        for node in ast.walk(ast.parse(read(path))):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                differs = "Differs:" in (ast.get_docstring(node) or "")
                assert not differs or node.name in listed, f"{path}: {node.name}"
