"""Scripts, run as a user would run them, and what they leave behind."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
needs_extra = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("tqdm", "matplotlib")),
    reason="needs the extra: pip install -e '.[scripts]'",
)


def run(script: str, *arguments: Any, check: bool = True) -> Any:
    """The script's result, run as a user would run it."""
    result = subprocess.run(
        [sys.executable, "-W", "error", str(ROOT / "scripts" / script), *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "MPLCONFIGDIR": os.environ.get("MPLCONFIGDIR", "/tmp")},
    )
    if check:
        assert result.returncode == 0, result.stderr
    return result


def losses(directory: Path) -> list[float]:
    """The validation losses of a run."""
    lines = (directory / "metrics.jsonl").read_text().splitlines()
    return [record["val_loss"] for record in map(json.loads, lines) if "val_loss" in record]


def scores(directory: Path) -> dict[str, dict[str, float]]:
    """What a run was found to be worth."""
    return json.loads((directory / "scores.json").read_text())
