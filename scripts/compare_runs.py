"""Draw the losses of several runs in one picture.

    python scripts/compare_runs.py runs/a runs/b --labels "GPT, AdamW" "GPT, Muon" --out curves.png

What it teaches: a change is worth what it changes at equal steps, equal data and equal size.
"""

import argparse
import sys
from pathlib import Path

from minilm.training import read_records


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
    try:
        from matplotlib.figure import Figure
    except ImportError:
        sys.exit("error: this script needs matplotlib: pip install -e '.[scripts]'")
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    for i, (run, label) in enumerate(zip(args.runs, labels, strict=True)):
        records = read_records(run)
        if not records:
            sys.exit(f"error: {run}: expected a run with a metrics.jsonl, got none")
        evaluated = [record for record in records if "val_loss" in record]
        steps, losses = [r["step"] for r in records], [r["train_loss"] for r in records]
        axes.plot(steps, losses, color=f"C{i}", alpha=0.4)
        axes.plot(
            [record["step"] for record in evaluated],
            [record["val_loss"] for record in evaluated],
            marker="o",
            color=f"C{i}",
            label=f"{label}: {evaluated[-1]['val_loss']:.3f}" if evaluated else label,
        )
        last = evaluated[-1]["val_loss"] if evaluated else float("nan")
        print(f"{label:>30} {steps[-1]:6} steps {last:8.4f} nats per token")
    top = max(record["val_loss"] for run in args.runs for record in read_records(run)[-1:])
    axes.set(
        xlabel="step",
        ylabel="loss, nats per token (faint: training; dots: validation)",
        ylim=(None, top + 1),
    )
    axes.legend()
    figure.savefig(args.out, dpi=100)


if __name__ == "__main__":
    main()
