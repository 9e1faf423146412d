"""Chapter 10's table leads from the paper to lines of code that are there, and to their tests."""

import ast
import re

import pytest
from test_docs import LINK, ROOT, rows, section

PAGE = ROOT / "docs" / "10-encoder-decoder.md"
TABLE = rows(section(PAGE, "The paper, line by line"))
PAPER = ("eq. 1", "eq. 2", "eq. 3", "figure 1, left", "figure 1, right", "figure 2, left",
         "figure 2, right", "3.1", "3.2.1", "3.2.2", "3.2.3", "3.3", "3.4", "3.5, no number", "5.1",
         "5.3", "5.4")  # fmt: skip


def source(name: str, text: str) -> str:
    """The source of the function, class or method of this name, on one line."""
    node: ast.AST = ast.parse(text)
    for part in name.split("."):
        (node,) = (n for n in ast.iter_child_nodes(node) if getattr(n, "name", None) == part)
    return " ".join((ast.get_source_segment(text, node) or "").split())


@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"{row[0]}: {row[1]}")
def test_the_line_stands_in_the_function_and_the_test_is_there(row):
    _, _, line, function, test = (cell.strip() for cell in row)
    ((name, path),) = LINK.findall(function)
    text = (PAGE.parent / path).read_text(encoding="utf-8")
    assert line.strip("`") in source(name.strip("`"), text)
    ((name, path),) = LINK.findall(test)
    assert "/tests/" in path
    assert source(name.strip("`"), (PAGE.parent / path).read_text(encoding="utf-8"))


def test_every_equation_figure_and_section_has_a_row():
    named = {part.strip() for row in TABLE for part in row[0].split(";")}
    named |= {f"{number}" for part in named for number in re.findall(r"\b\d\.\d(?:\.\d)?\b", part)}
    assert not {*PAPER} - named
