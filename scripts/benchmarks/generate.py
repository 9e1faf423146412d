"""Tokens per second of greedy decoding, GPT-2 124M shape, random weights, batch 1, float32.

    python scripts/benchmarks/generate.py                    # minilm / transformers, both cached
    python scripts/benchmarks/generate.py --peer uncached    # against decoding without a cache
    python scripts/benchmarks/generate.py --peer floor       # against bare matrix-vector products

Peers are installed by hand: `pip install torch transformers`. "uncached" runs the whole text
through the model for each new token, as picoGPT does. "floor" multiplies a vector with every weight
matrix once a token: what memory bandwidth allows.
"""

import argparse
from collections.abc import Callable
from functools import partial

import numpy as np
from alternate import Contestant, compare, serve

PROMPT, NEW = 32, 64
SHAPES = [(768, 768)] * 4 + [(3072, 768), (768, 3072)]  # a block's matrices
VOCAB, LAYERS = 50257, 12


def prompt() -> np.ndarray:
    return np.random.default_rng(1).integers(0, VOCAB, (1, PROMPT))


def minilm_generate(use_cache: bool, new: int) -> Callable[[], object]:
    from minilm import GPT, GPTConfig, generate

    model = GPT(GPTConfig(), np.random.default_rng(0)).eval()
    return lambda: generate(model, prompt(), new, use_cache=use_cache)


def transformers_generate(new: int) -> Callable[[], object]:
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(GPT2Config()).eval()
    ids = torch.from_numpy(prompt())
    options = {"max_new_tokens": new, "min_new_tokens": new, "do_sample": False, "pad_token_id": 0}
    return lambda: model.generate(ids, attention_mask=torch.ones_like(ids), **options)


def floor(new: int) -> Callable[[], object]:
    rng = np.random.default_rng(0)
    shapes = SHAPES * LAYERS + [(VOCAB, 768)]
    weights = [rng.standard_normal(shape, dtype=np.float32) for shape in shapes]
    vectors = {width: rng.standard_normal(width, dtype=np.float32) for width in (768, 3072)}

    def run() -> None:
        for _ in range(new):
            for weight in weights:
                weight @ vectors[weight.shape[1]]

    return run


CONTESTANTS: dict[str, Callable[[], Callable[[], object]]] = {
    "minilm": partial(minilm_generate, True, NEW),
    "transformers": partial(transformers_generate, NEW),
    "uncached": partial(minilm_generate, False, 8),
    "floor": partial(floor, NEW),
}
TOKENS = {"uncached": 8}  # without a cache a turn of 64 tokens would take too long


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer", choices=CONTESTANTS, default="transformers")
    parser.add_argument("--seconds", type=float, default=90)
    parser.add_argument("--child", choices=CONTESTANTS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        return serve(CONTESTANTS[args.child](), warmup=1)
    pair = [Contestant(name, [__file__, "--child", name]) for name in ("minilm", args.peer)]
    result = compare(*pair, seconds=args.seconds, block=0)
    rates = {c.name: TOKENS.get(c.name, NEW) / result["medians"][c.name] for c in pair}
    for contestant in pair:
        peak = contestant.close()["peak_bytes"] / 2**20
        print(f"{contestant.name:>14} {rates[contestant.name]:8.2f} tokens/s {peak:8.0f} MiB")
    scale = TOKENS.get(args.peer, NEW) / NEW
    low, middle, high = (
        1 / (x * scale) for x in (result["quartiles"][1], result["ratio"], result["quartiles"][0])
    )
    print(
        f"{'speed-up':>14} {middle:8.2f} x        quartiles {low:.2f} .. {high:.2f} "
        f"over {result['pairs']} pairs"
    )


if __name__ == "__main__":
    main()
