"""Errors say three things: what was expected, what came instead, and what to do."""

import ast
import re

from test_architecture import PACKAGE, calls, sources


def incomplete(text: str) -> bool:
    """Whether a call, as source text, makes an error that lacks one of the three."""
    is_error = re.match(r"\w*Error\(.*\bexpected\b", text, re.DOTALL)
    return bool(is_error) and not re.search(r"\bexpected\b.*\bgot\b.*; ", text, re.DOTALL)


def test_every_error_says_what_was_expected_what_came_and_what_to_do():
    lacking = [
        f"{name}, line {call.lineno}: {text}"
        for name, tree in sources(PACKAGE).items()
        for call in calls(tree)
        if incomplete(text := ast.unparse(call))
    ]
    assert lacking == []


def test_an_error_that_lacks_one_of_the_three_is_noticed():
    assert not incomplete("ValueError(f'x: expected 1, got {x}; take 1')")
    assert incomplete("ValueError(f'x: expected 1, got {x}')")
    assert incomplete("TypeError(f'x: expected 1, not {x}; take 1')")
