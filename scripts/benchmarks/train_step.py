"""Training-step speed and peak memory of minilm against its peers, side by side.

    python scripts/benchmarks/train_step.py                    # minilm / torch, three sizes
    python scripts/benchmarks/train_step.py --first gradients --peer autograd --sizes 0
    python scripts/benchmarks/train_step.py --first torch      # torch / torch: must give 1.00

Peers are installed by hand: `pip install torch autograd mygrad`. A step is forward, backward,
clipping and AdamW; for autograd and MyGrad, which bring no such optimizer, forward and backward
of the formulas as they are usually written, `np.sqrt` and `x**3` included, which under NumPy 2
carry float32 to float64. `gradients` is minilm's forward and backward alone, to go beside those.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
from alternate import Contestant, compare, serve
from peers import STEPS, Size, minilm_model

SIZES = [
    Size(vocab_size=65, batch=12, length=64, n_layers=4, n_heads=4, d_model=128),
    Size(vocab_size=8192, batch=8, length=128, n_layers=4, n_heads=4, d_model=256),
    Size(vocab_size=65, batch=8, length=256, n_layers=6, n_heads=6, d_model=384),
]


def measure(first: str, peer: str, row: int, seconds: float) -> None:
    """Time one size and print its three lines."""
    size = SIZES[row]
    with tempfile.TemporaryDirectory() as directory:
        weights = str(Path(directory) / "weights.npz")
        np.savez(weights, **minilm_model(size).state_dict())
        a, b = (
            Contestant(name + " " * i, [__file__, "--child", name, weights, str(row)])
            for i, name in enumerate((first, peer))
        )
        result = compare(a, b, seconds)
        facts = {contestant.name: contestant.close() for contestant in (a, b)}
    for name, fact in facts.items():
        milliseconds = result["medians"][name] * 1e3
        mebibytes = fact["peak_bytes"] / 2**20
        print(
            f"{str(tuple(size)):>26} {name:>12} {milliseconds:9.2f} {mebibytes:7.0f} "
            f"{fact['first_loss']:10.5f}"
        )
    low, high = result["quartiles"]
    print(
        f"{'ratio ' + first + '/' + peer:>39} {result['ratio']:9.3f}   "
        f"quartiles {low:.3f} .. {high:.3f} over {result['pairs']} pairs\n",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--first", choices=STEPS, default="minilm")
    parser.add_argument("--peer", choices=STEPS, default="torch")
    parser.add_argument("--sizes", type=int, nargs="+", default=[0, 1, 2], help="rows of SIZES")
    parser.add_argument("--seconds", type=float, default=60, help="time per size")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        name, weights, row = args.child
        step = STEPS[name](SIZES[int(row)], dict(np.load(weights)))
        return serve(step, first_loss=step())
    print(f"{'size':>26} {'contestant':>12} {'ms':>9} {'MiB':>7} {'first loss':>10}")
    for row in args.sizes:
        measure(args.first, args.peer, row, args.seconds)


if __name__ == "__main__":
    main()
