"""Scripts, run as a user would run them, and what they leave behind."""

import importlib.util
import io
import json
import os
import runpy
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from minilm import training

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


def call(script: str, *arguments: Any, check: bool = True) -> Any:
    """As `run`, but in this process, in which most imports are done."""
    out, errors, code = io.StringIO(), io.StringIO(), 0
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(errors):
        patch.syspath_prepend(ROOT / "scripts")
        patch.setattr(sys, "argv", [script, *map(str, arguments)])
        try:
            runpy.run_path(str(ROOT / "scripts" / script), run_name="__main__")
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
            print("" if isinstance(end.code, int) else end.code, file=errors)
    if check:
        assert code == 0, errors.getvalue()
    return subprocess.CompletedProcess(arguments, code, out.getvalue(), errors.getvalue())


def stop(script: str, *arguments: Any, out: Path, step: int) -> None:
    """Begin a run, and press Ctrl-C when it has done so many steps."""
    steps, train_step = count(), training.train_step

    def interrupted(*args: Any, **options: Any) -> float:
        if next(steps) == step:
            raise KeyboardInterrupt
        return train_step(*args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "train_step", interrupted)
        result = call(script, *arguments, "--out", out, check=False)
    assert result.returncode == 1
    assert result.stderr.endswith(f"stopped; go on with --resume {out}\n")


def refusal(script: str, *arguments: Any) -> str:
    """The one line in which a script refuses its flags."""
    result = call(script, *arguments, check=False)
    assert result.returncode == 1 and "error: " in result.stderr.splitlines()[-1]
    return result.stderr


def losses(directory: Path) -> list[float]:
    """The validation losses of a run."""
    return [record["val_loss"] for record in history(directory) if "val_loss" in record]


def history(directory: Path) -> list[dict[str, float]]:
    """The records of a run, but for how fast it was."""
    records = map(json.loads, (directory / "metrics.jsonl").read_text().splitlines())
    return [{n: v for n, v in record.items() if n != "tokens_per_second"} for record in records]


def scores(directory: Path) -> dict[str, dict[str, float]]:
    """What a run was found to be worth."""
    return json.loads((directory / "scores.json").read_text())
