"""Tokens per second of greedy decoding, GPT-2 124M shape, random weights, batch 1, float32.

    python scripts/benchmarks/generate.py                    # minilm / transformers, both cached
    python scripts/benchmarks/generate.py --peer plain       # against NumPy without a cache
    python scripts/benchmarks/generate.py --peer floor       # against bare matrix-vector products

Peers are installed by hand: `pip install torch transformers`. "plain" is the formula in
plain NumPy as it is usually written, picoGPT's way: all the text goes through the model, and all
logits are worked out, for each new token; and np.sqrt of a number is a float64, which under
NumPy 2 carries the arrays it meets to float64. "floor" multiplies a vector with every weight
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


def minilm_generate(new: int) -> Callable[[], object]:
    from minilm import GPT, GPTConfig, generate

    model = GPT(GPTConfig(), np.random.default_rng(0)).eval()
    return lambda: generate(model, prompt(), new)


def transformers_generate(new: int) -> Callable[[], object]:
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(GPT2Config()).eval()
    ids = torch.from_numpy(prompt())
    options = {"max_new_tokens": new, "min_new_tokens": new, "do_sample": False, "pad_token_id": 0}
    return lambda: model.generate(ids, attention_mask=torch.ones_like(ids), **options)


def plain_generate(new: int) -> Callable[[], object]:
    heads, width, rng = 12, 768, np.random.default_rng(0)
    shapes = {"qkv": (width, 3 * width), "out": (width, width)}
    shapes |= {"up": (width, 4 * width), "down": (4 * width, width)}
    blocks = [
        {name: rng.standard_normal(shape, np.float32) * 0.02 for name, shape in shapes.items()}
        for _ in range(LAYERS)
    ]
    embedding = rng.standard_normal((VOCAB, width), np.float32) * 0.02

    def norm(x: np.ndarray) -> np.ndarray:
        return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)

    def softmax(x: np.ndarray) -> np.ndarray:
        e = np.exp(x - x.max(-1, keepdims=True))
        return e / e.sum(-1, keepdims=True)

    def logits(ids: list[int]) -> np.ndarray:
        x = embedding[ids]
        hidden = (1 - np.tri(len(ids), dtype=np.float32)) * -1e10
        for block in blocks:
            q, k, v = np.split(norm(x) @ block["qkv"], 3, axis=-1)
            parts = [np.split(part, heads, axis=-1) for part in (q, k, v)]
            scale = np.sqrt(width // heads)
            y = [softmax(a @ b.T / scale + hidden) @ c for a, b, c in zip(*parts, strict=True)]
            x = x + np.hstack(y) @ block["out"]
            u = norm(x) @ block["up"]
            u = 0.5 * u * (1 + np.tanh(np.sqrt(2 / np.pi) * (u + 0.044715 * u**3)))
            x = x + u @ block["down"]
        return norm(x) @ embedding.T

    def run() -> None:
        ids = prompt()[0].tolist()
        for _ in range(new):
            ids.append(int(logits(ids)[-1].argmax()))

    return run


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
    "minilm": partial(minilm_generate, NEW),
    "transformers": partial(transformers_generate, NEW),
    "plain": partial(plain_generate, 8),
    "floor": partial(floor, NEW),
}
TOKENS = {"plain": 8}  # 64 would take it too long; later tokens are slower, so this favours it


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
    scale = TOKENS.get(args.peer, NEW) / NEW
    for contestant in pair:
        peak = contestant.close()["peak_bytes"] / 2**20
        print(f"{contestant.name:>14} {rates[contestant.name]:8.2f} tokens/s {peak:8.0f} MiB")
    low, middle, high = (
        1 / (x * scale) for x in (result["quartiles"][1], result["ratio"], result["quartiles"][0])
    )
    print(
        f"{'speed-up':>14} {middle:8.2f} x        quartiles {low:.2f} .. {high:.2f} "
        f"over {result['pairs']} pairs"
    )


if __name__ == "__main__":
    main()
