"""A GPT-2 directory of 124 million parameters, opened and run: minilm beside transformers.

    python scripts/benchmarks/pretrained.py                    # all four, minilm / transformers
    python scripts/benchmarks/pretrained.py --rows open --seconds 30

Peers are installed by hand: `pip install torch transformers safetensors`. The directory is written
by minilm with random float32 weights (500 MB, in a temporary folder), and stays in the system's
file cache. "open" makes a model out of it; "disk" does, and decodes 64 tokens after a prompt of 32;
"program" is all that from the start of Python on, imports and all, a process each time (its peak
memory is that of the process which waits for it); "prefill" reads 1,024 tokens and gives the next
one. "alone" is the time and the peak memory of a process of minilm's that does nothing else than to
open the directory, with all imports, beside the size of the weights.
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from alternate import HEADING, Contestant, serve, time_row

VOCAB, PROMPT, NEW, WHOLE = 50257, 32, 64, 1024
ROWS = {
    "open": "open",
    "disk": "open, then 64 tokens",
    "program": "start Python, open, 64 tokens",
    "prefill": "read 1,024 tokens",
}
ALONE = """
import resource, time
start = time.perf_counter()
from minilm import from_pretrained
model = from_pretrained({directory!r})
seconds = time.perf_counter() - start
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
weights = model.count_parameters() * 4 / 2**20
print(f"{{seconds:.2f}} s, {{peak:.0f}} MiB; weights {{weights:.0f}} MiB")
"""


def prompt(length: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, VOCAB, (1, length))


def minilm(row: str, directory: str) -> Callable[[], object]:
    from minilm import from_pretrained, generate

    if row == "open":
        return lambda: from_pretrained(directory)
    if row == "disk":
        return lambda: generate(from_pretrained(directory), prompt(PROMPT), NEW)
    model = from_pretrained(directory)
    return lambda: generate(model, prompt(WHOLE), 1)


def transformers(row: str, directory: str) -> Callable[[], object]:
    import torch
    from transformers import GPT2LMHeadModel, logging

    logging.disable_progress_bar()

    def generate(model: object, length: int, new: int) -> object:
        ids = torch.from_numpy(prompt(length))
        how = {"max_new_tokens": new, "min_new_tokens": new, "do_sample": False, "pad_token_id": 0}
        return model.generate(ids, attention_mask=torch.ones_like(ids), **how)  # type: ignore[attr-defined]

    def opened() -> object:
        return GPT2LMHeadModel.from_pretrained(directory, dtype=torch.float32).eval()

    if row == "open":
        return opened
    if row == "disk":
        return lambda: generate(opened(), PROMPT, NEW)
    model = opened()
    return lambda: generate(model, WHOLE, 1)


SIDES = {"minilm": minilm, "transformers": transformers}


def program(side: str, directory: str) -> Callable[[], object]:
    """One process that opens the directory, writes 64 tokens and ends."""
    command = [sys.executable, __file__, "--child", side, "once", directory]
    return lambda: subprocess.run(command, check=True)


def write(directory: Path) -> None:
    from minilm import GPT, GPTConfig

    GPT(GPTConfig(), np.random.default_rng(0)).save_pretrained(directory)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--seconds", type=float, default=90, help="time per row")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        side, row, directory = args.child
        if row == "once":
            SIDES[side]("disk", directory)()
            return
        run = program(side, directory) if row == "program" else SIDES[side](row, directory)
        return serve(run, warmup=1)
    with tempfile.TemporaryDirectory() as folder:
        directory = str(Path(folder) / "gpt2")
        write(Path(directory))
        alone = [sys.executable, "-c", ALONE.format(directory=directory)]
        print("alone:", subprocess.run(alone, check=True, capture_output=True, text=True).stdout)
        print(HEADING)
        for row in args.rows:
            pair = (Contestant(s, [__file__, "--child", s, row, directory]) for s in SIDES)
            print(time_row(ROWS[row], *pair, args.seconds, block=0), flush=True)


if __name__ == "__main__":
    main()
