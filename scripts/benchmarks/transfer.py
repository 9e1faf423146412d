"""What pre-training is worth: the same BERT, pre-trained and from scratch, with few labels.

    python scripts/train_mlm.py --docstrings --max-steps 8000 --out runs/library
    python scripts/benchmarks/transfer.py runs/library
    python scripts/benchmarks/transfer.py runs/library --examples 0 -- --task tsv --data reviews.tsv

Each line is the mean over the seeds and their standard deviation, of the task's first metric on the
test examples. A seed draws the labelled examples, the head, and the order of the batches, for both
models alike. What follows `--` goes to finetune.py.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

import numpy as np
from tqdm import tqdm

SCRIPT = Path(__file__).resolve().parents[1] / "finetune.py"


def scores(flags: list[str]) -> dict[str, dict[str, float]]:
    """What one run of finetune.py finds."""
    with tempfile.TemporaryDirectory() as directory:
        command = [sys.executable, str(SCRIPT), "--out", directory, *flags]
        result = subprocess.run(command, capture_output=True, text=True)
        if result.returncode:
            sys.exit(result.stderr.splitlines()[-1])
        return json.loads((Path(directory) / "scores.json").read_text())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pretrained", metavar="RUN_DIR")
    parser.add_argument("--examples", type=int, nargs="+", default=[10, 50], help="0 means all")
    parser.add_argument("--seeds", type=int, default=5)
    words = [*sys.argv[1:], "--"]
    args = parser.parse_args(words[: words.index("--")])
    passed_on = words[words.index("--") + 1 : -1]
    runs = [(n, seed) for n in args.examples for seed in range(args.seeds)]
    found: dict[tuple[str, int], list[float]] = defaultdict(list)
    for n, seed in tqdm(runs, unit="seed"):
        flags = ["--pretrained", args.pretrained, "--seed", str(seed), *passed_on]
        flags += ["--examples-per-class", str(n)] if n else []
        scratch, pretrained = scores([*flags, "--scratch"]), scores(flags)
        scratch["bert from scratch"] = scratch.pop("bert")
        for model, row in (scratch | {"bert pre-trained": pretrained["bert"]}).items():
            found[model, n].append(next(iter(row.values())))
    columns = [f"{n} a class" if n else "all" for n in args.examples]
    print(f"{'':>18}" + "".join(f"{column:>18}" for column in columns))
    for model in dict.fromkeys(model for model, _ in found):
        cells = [found[model, n] for n in args.examples]
        print(
            f"{model:>18}" + "".join(f"{np.mean(c):11.3f} ± {np.std(c, ddof=1):.3f}" for c in cells)
        )


if __name__ == "__main__":
    main()
