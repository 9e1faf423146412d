"""Two programs timed side by side on a noisy machine.

Each contestant runs in a process of its own and waits, idle, for its turn; the turns are short
blocks of repetitions, A B B A A B ..., so that a slow minute of the machine hits both. A block
begins with one repetition that is not counted, in which the caches fill again and the other's
threads, which may still spin, go to sleep. What counts is the ratio of each pair of neighbouring
blocks: their median, and the quartiles around it.
"""

import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# `tokenizers.py` beside this file must not hide the package of that name: this folder comes last.
HERE = str(Path(__file__).parent)
sys.path[:] = [*(path for path in sys.path if path != HERE), HERE]


class Contestant:
    """A child process that runs blocks on request; `command` must end up in `serve`."""

    def __init__(self, name: str, command: list[str]) -> None:
        self.name = name
        self.process = subprocess.Popen(
            [sys.executable, *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.facts = self._read()  # the child has warmed up

    def _read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name}: ended without an answer; see its error above")
        return json.loads(line)

    def block(self, repetitions: int, settle: int = 1) -> float:
        """Seconds per repetition, after `settle` that are not counted."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{settle} {repetitions}\n")
        self.process.stdin.flush()
        return self._read()["seconds"] / repetitions

    def close(self) -> dict[str, Any]:
        """End the child; what it said of itself at the end (peak memory)."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        last = self._read()
        self.process.wait()
        return {**self.facts, **last}


def serve(run: Callable[[], object], warmup: int = 3, **facts: Any) -> None:
    """The child's side: warm up, then time blocks of `run` as standard input asks."""
    for _ in range(warmup):
        run()
    print(json.dumps(facts), flush=True)
    for line in sys.stdin:
        settle, repetitions = map(int, line.split())
        for _ in range(settle):
            run()
        start = time.perf_counter()
        for _ in range(repetitions):
            run()
        print(json.dumps({"seconds": time.perf_counter() - start}), flush=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"peak_bytes": peak}), flush=True)


def compare(
    a: Contestant, b: Contestant, seconds: float = 60, block: float = 0.5, least: int = 5
) -> dict[str, Any]:
    """Take turns for about `seconds`; medians of both, and the quartiles of the ratio a/b.

    There are at least `least` pairs, however long they take.

    A block lasts about `block` seconds; 0 makes it a single repetition, without one to settle.
    """
    settle = 1 if block else 0
    repetitions = {c.name: max(1, round(block / c.block(1, settle))) for c in (a, b)}
    times: dict[str, list[float]] = {a.name: [], b.name: []}
    order = [a, b]
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times[a.name]) < least:
        for contestant in order:
            times[contestant.name].append(contestant.block(repetitions[contestant.name], settle))
        order.reverse()
    ratios = [x / y for x, y in zip(times[a.name], times[b.name], strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    medians = {name: statistics.median(values) for name, values in times.items()}
    return {"medians": medians, "ratio": middle, "quartiles": (low, high), "pairs": len(ratios)}


HEADING = f"{'':32} {'minilm':>10} {'peer':>10} {'ratio (quartiles)':>24}  MiB"


def time_row(what: str, a: Contestant, b: Contestant, seconds: float, block: float = 0.5) -> str:
    """A line below `HEADING`: compare the two, and end them."""
    result = compare(a, b, seconds, block)
    ours, theirs = (f"{median * 1e3:7.0f} ms" for median in result["medians"].values())
    low, high = result["quartiles"]
    ratio = f"{result['ratio']:.3f} ({low:.3f} .. {high:.3f})"
    memory = " | ".join(f"{c.close()['peak_bytes'] / 2**20:.0f}" for c in (a, b))
    return f"{what:32} {ours} {theirs} {ratio:>24}  {memory}"
