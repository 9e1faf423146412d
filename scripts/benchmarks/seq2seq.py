"""T5 in minilm beside transformers and PyTorch: a training step, and decoding.

    python scripts/benchmarks/seq2seq.py                    # all four, minilm / transformers
    python scripts/benchmarks/seq2seq.py --rows greedy beam --seconds 30

Peers are installed by hand: `pip install torch transformers`. Vocabulary 8,192, 3 + 3 layers,
4 heads, width 256, float32, the same weights on both sides. A step is forward, backward, clipping
and AdamW (fused in torch) on 16 sources and targets of 64 tokens. Decoding reads sources of 64
tokens and writes exactly 64, no stop token among them; tokens per second are those that come out.
"""

import argparse
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from alternate import Contestant, compare, serve

VOCAB_SIZE, LENGTH, NEW, WIDTH, LAYERS, HEADS = 8192, 64, 64, 256, 3, 4
ROWS = {  # what it is called, how many sources, how many beams
    "step": ("training step", 16, 0),
    "greedy": ("greedy decoding", 1, 1),
    "beam": ("beam search, 4 beams", 1, 4),
    "batch": ("greedy decoding, batch 16", 16, 1),
}
THEIR_NAMES = [  # of the same weights, changed from the first to the last
    ("^token_embedding", "shared"),
    ("relative_bias", "block.0.layer.0.SelfAttention.relative_attention_bias"),
    ("final_norm", "final_layer_norm"),
    (r"blocks\.(\d+)", r"block.\1"),
    (r"\.norm(\d)", lambda found: f".layer.{int(found[1]) - 1}.layer_norm"),
    (r"\.attention\.", ".layer.0.SelfAttention."),
    (r"\.cross_attention\.", ".layer.1.EncDecAttention."),
    (r"^(encoder.*)\.feed_forward", r"\1.layer.1.DenseReluDense"),
    (r"^(decoder.*)\.feed_forward", r"\1.layer.2.DenseReluDense"),
    (r"Attention\.out", "Attention.o"),
    (r"Dense\.up", "Dense.wi"),
    (r"Dense\.down", "Dense.wo"),
]


def tokens(row: str) -> dict[str, np.ndarray]:
    """The batch of a row; the ids of padding and stop tokens are not in it."""
    rng, (_, batch, beams) = np.random.default_rng(0), ROWS[row]
    made = {"input_ids": rng.integers(2, VOCAB_SIZE, (batch, LENGTH))}
    made["attention_mask"] = np.ones((batch, LENGTH), np.int64)
    if not beams:
        made["labels"] = rng.integers(2, VOCAB_SIZE, (batch, LENGTH))
    return made


def minilm_model() -> Any:
    from minilm import T5, T5Config

    config = T5Config(VOCAB_SIZE, LENGTH, WIDTH, HEADS, LAYERS, d_ff=4 * WIDTH)
    return T5(config, np.random.default_rng(0))


def minilm(row: str, weights: Path) -> Callable[[], Any]:
    from minilm import generate
    from minilm.optim import AdamW, decay_groups
    from minilm.training import train_step

    model, batch, beams = minilm_model(), tokens(row), ROWS[row][2]
    model.load_state_dict(dict(np.load(weights)))
    if not beams:
        optimizer = AdamW(decay_groups(model.parameters(), 0.01), lr=1e-4)
        return lambda: train_step(model, optimizer, batch, max_grad_norm=1.0)
    model.eval()
    return lambda: generate(model, **batch, max_new_tokens=NEW, num_beams=beams, eos_token_id=None)


def transformers(row: str, weights: Path) -> Callable[[], Any]:
    import torch
    from transformers import T5Config, T5ForConditionalGeneration

    model = T5ForConditionalGeneration(
        T5Config(
            vocab_size=VOCAB_SIZE,
            d_model=WIDTH,
            d_kv=WIDTH // HEADS,
            d_ff=4 * WIDTH,
            num_layers=LAYERS,
            num_heads=HEADS,
            decoder_start_token_id=0,
        )
    )
    model.load_state_dict(their_state(model, weights))
    batch = {name: torch.from_numpy(array) for name, array in tokens(row).items()}
    beams = ROWS[row][2]
    if beams:
        model.eval()
        model.generation_config.eos_token_id = None
        how = {"max_new_tokens": NEW, "num_beams": beams, "do_sample": False}
        return lambda: model.generate(**batch, **how).numpy()
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.01, fused=True)

    def step() -> float:
        optimizer.zero_grad()
        loss = model(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss.item()

    return step


def their_state(model: Any, weights: Path) -> dict[str, Any]:
    """Our weights under the names that their model has for them."""
    import torch

    state = model.state_dict()
    with np.load(weights) as ours:
        for name in ours.files:
            own = name
            for pattern, new in THEIR_NAMES:
                own = re.sub(pattern, new, own)
            state[own].copy_(torch.from_numpy(ours[name]))
    shared = state["shared.weight"]  # the names of one matrix
    for name in ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight"):
        if name in state:
            state[name].copy_(shared)
    return state


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--seconds", type=float, default=60, help="time per row")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        side, row, weights = args.child
        run = SIDES[side](row, Path(weights))
        found = run()
        written = found.tolist() if ROWS[row][2] else round(found, 3)
        return serve(run, warmup=2, written=written)
    print(f"{'':27} {'minilm':>16} {'transformers':>16} {'ratio (quartiles)':>24}  same  MiB")
    with tempfile.TemporaryDirectory() as directory:
        weights = str(Path(directory) / "weights.npz")
        np.savez(weights, **minilm_model().state_dict())
        for row in args.rows:
            report(row, [[__file__, "--child", s, row, weights] for s in SIDES], args.seconds)


def report(row: str, commands: list[list[str]], seconds: float) -> None:
    """A line: time or speed on both sides, ours / theirs, and whether both wrote the same."""
    name, batch, beams = ROWS[row]
    pair = [Contestant(side, command) for side, command in zip(SIDES, commands, strict=True)]
    result = compare(*pair, seconds)
    facts = [contestant.close() for contestant in pair]
    low, high = result["quartiles"]
    middle, unit = result["ratio"], "ms"
    figures = [1e3 * median for median in result["medians"].values()]
    if beams:
        middle, low, high, unit = 1 / middle, 1 / high, 1 / low, "tokens/s"
        figures = [batch * NEW / median for median in result["medians"].values()]
    columns = " ".join(f"{figure:8.0f} {unit:7}" for figure in figures)
    ratio = f"{middle:.3f} ({low:.3f} .. {high:.3f})"
    same = "yes" if facts[0]["written"] == facts[1]["written"] else "no"
    memory = " | ".join(f"{fact['peak_bytes'] / 2**20:.0f}" for fact in facts)
    print(f"{name:27} {columns} {ratio:>24}  {same:>4}  {memory}", flush=True)


SIDES: dict[str, Callable[[str, Path], Callable[[], Any]]] = {
    "minilm": minilm,
    "transformers": transformers,
}

if __name__ == "__main__":
    main()
