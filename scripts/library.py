"""The task that needs no download: which family of modules does a docstring's first sentence
come from?

    python scripts/library.py        # counts, and a few sentences of each family

The docstrings are read from the source of the running interpreter's standard library. A sentence
belongs to training, validation or test by a checksum of itself, so that the split never changes,
and `pretraining_text` leaves out every docstring whose sentence is to be predicted.
"""

import re
import zlib
from collections import Counter
from functools import cache

from minilm.data import library_docstrings
from minilm.tasks import TextExample

FAMILIES = {
    "windows": ("tkinter", "turtle"),
    "concurrency": (
        *("asyncio", "concurrent", "contextvars", "multiprocessing", "queue", "sched"),
        *("selectors", "subprocess", "threading"),
    ),
    "mail": ("email", "imaplib", "mailbox", "nntplib", "poplib", "quopri", "smtplib"),
    "web": (
        *("cgi", "ftplib", "html", "http", "ipaddress", "socket", "socketserver", "ssl"),
        *("telnetlib", "urllib", "webbrowser", "wsgiref", "xmlrpc"),
    ),
    "numbers": (
        *("_pydecimal", "_strptime", "calendar", "colorsys", "datetime", "fractions", "numbers"),
        *("random", "statistics", "zoneinfo"),
    ),
    "files": (
        *("_compression", "_pyio", "bz2", "fileinput", "filecmp", "genericpath", "glob", "gzip"),
        *("lzma", "ntpath", "os", "pathlib", "posixpath", "shutil", "tarfile", "tempfile"),
        *("zipfile",),
    ),
    "source": (
        *("ast", "codeop", "compileall", "dis", "importlib", "inspect", "modulefinder", "pkgutil"),
        *("pyclbr", "pydoc", "symtable", "tokenize", "zipimport"),
    ),
    "testing": (
        *("bdb", "cProfile", "doctest", "logging", "pdb", "profile", "pstats", "timeit", "trace"),
        *("traceback", "tracemalloc", "unittest", "warnings"),
    ),
}
FAMILY = {module: family for family, modules in FAMILIES.items() for module in modules}
SHORTEST = 3  # words; shorter sentences say too little


@cache
def docstrings() -> list[tuple[str, str]]:
    """Those of the whole library, with their modules: reading it takes seconds."""
    return list(library_docstrings())


def first_sentence(docstring: str) -> str:
    """What stands before the first full stop or empty line, on one line."""
    return " ".join(re.split(r"(?<=[.!?])\s|\n\s*\n", docstring.strip())[0].split())


def part(sentence: str) -> str:
    """Half of all sentences are for training, a tenth for validation, the others for the test."""
    share = zlib.crc32(sentence.lower().encode()) % 10
    return "train" if share < 5 else "validation" if share < 6 else "test"


@cache
def examples() -> dict[str, list[TextExample]]:
    """The sentences of each part with their families; one that two families have is in none."""
    families: dict[str, set[str]] = {}
    spelt: dict[str, str] = {}
    for module, docstring in docstrings():
        sentence = first_sentence(docstring)
        if module.split(".")[0] in FAMILY and len(sentence.split()) >= SHORTEST:
            key = sentence.lower()
            spelt.setdefault(key, sentence)
            families.setdefault(key, set()).add(FAMILY[module.split(".")[0]])
    parts: dict[str, list[TextExample]] = {"train": [], "validation": [], "test": []}
    for key in sorted(families):
        if len(families[key]) == 1:
            parts[part(key)].append(TextExample(spelt[key], None, *families[key]))
    return parts


def pretraining_text() -> str:
    """The docstrings without those whose first sentence is held back, an empty line between two."""
    held_back = {row.text for name in ("validation", "test") for row in examples()[name]}
    return "\n\n".join(
        docstring for _, docstring in docstrings() if first_sentence(docstring) not in held_back
    )


if __name__ == "__main__":
    for name, rows in examples().items():
        print(f"{name}: {len(rows)}", dict(Counter(str(row.label) for row in rows).most_common()))
    for family in FAMILIES:
        print(f"\n{family}")
        chosen = [row.text for row in examples()["train"] if row.label == family]
        print("\n".join(f"  {text}" for text in chosen[:: max(1, len(chosen) // 4)]))
