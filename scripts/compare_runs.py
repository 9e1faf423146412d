"""Draw the losses of several runs in one picture.

    python scripts/compare_runs.py runs/a runs/b --labels "GPT, AdamW" "GPT, Muon" --out curves.png

What it teaches: a change is worth what it changes at equal steps, equal data and equal size.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

from minilm.training import read_records

Records = list[dict[str, Any]]


def draw(curves: dict[str, Records], out: Path) -> None:
    """Print where each ends and draw them; records without a `train_loss` have no faint line."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        sys.exit("error: this script needs matplotlib: pip install -e '.[scripts]'")
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    ends = []
    for i, (label, records) in enumerate(curves.items()):
        trained, evaluated = (
            [(r["step"], r[name]) for r in records if name in r]
            for name in ("train_loss", "val_loss")
        )
        step, last = (evaluated or trained)[-1]
        ends.append(last)
        shown = f"{label}: {last:.3f}"
        axes.plot(*zip(*trained, strict=True), color=f"C{i}", alpha=0.4)
        axes.plot(*zip(*evaluated, strict=True), marker="o", color=f"C{i}", label=shown)
        print(f"{label:>30} {step:6} steps {last:8.4f} nats per token")
    axes.set(
        xlabel="step",
        ylabel="loss, nats per token (faint: training; dots: validation)",
        ylim=(None, max(ends) + 1),
    )
    axes.legend()
    figure.savefig(out, dpi=100)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--labels", nargs="+", help="default: the directories' names")
    parser.add_argument("--out", type=Path, default=Path("curves.png"))
    args = parser.parse_args()
    labels = args.labels or [run.name for run in args.runs]
    if len(labels) != len(args.runs):
        sys.exit(f"error: expected {len(args.runs)} labels, one a run, got {len(labels)}")
    curves = {}
    for run, label in zip(args.runs, labels, strict=True):
        curves[label] = read_records(run)
        if not curves[label]:
            sys.exit(f"error: {run}: expected a run with a metrics.jsonl, got none")
    draw(curves, args.out)


if __name__ == "__main__":
    main()
