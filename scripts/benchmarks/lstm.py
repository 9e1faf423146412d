"""A training step of the LSTM language model in minilm beside PyTorch.

    python scripts/benchmarks/lstm.py
    python scripts/benchmarks/lstm.py --peer reference      # against the op composed of primitives

The peer is installed by hand: `pip install torch`. Vocabulary 1,000, embedding 64, one layer of
width 128, float32; 32 rows of 64 tokens. A step is forward, backward, clipping and Adam (fused in
torch), from the same weights and tokens.
"""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from alternate import Contestant, compare, serve

VOCAB_SIZE, ROWS, LENGTH, D_EMBEDDING, WIDTH, RATE = 1000, 32, 64, 64, 128, 1e-3


def tokens() -> np.ndarray:
    """One more than the model reads, so that each position has a target."""
    return np.random.default_rng(0).integers(0, VOCAB_SIZE, (ROWS, LENGTH + 1))


def minilm_model() -> Any:
    """The model whose weights both begin with."""
    from minilm.models.lstm import LSTMConfig, LSTMLanguageModel

    config = LSTMConfig(VOCAB_SIZE, LENGTH, D_EMBEDDING, WIDTH)
    return LSTMLanguageModel(config, np.random.default_rng(0))


def minilm_step(weights: str) -> Callable[[], float]:
    from minilm.optim import Adam
    from minilm.training import train_step

    model, labels = minilm_model(), tokens()
    model.load_state_dict(np.load(weights))
    batch = {"input_ids": labels[:, :-1], "labels": labels}
    optimizer = Adam(model.parameters(), lr=RATE)
    return lambda: train_step(model, optimizer, batch, max_grad_norm=1.0)


def reference_step(weights: str) -> Callable[[], float]:
    from minilm import functional, reference

    functional.lstm = reference.lstm
    return minilm_step(weights)


def torch_step(weights: str) -> Callable[[], float]:
    import torch

    embedding = torch.nn.Embedding(VOCAB_SIZE, D_EMBEDDING)
    lstm = torch.nn.LSTM(D_EMBEDDING, WIDTH, batch_first=True)
    head = torch.nn.Linear(WIDTH, VOCAB_SIZE)
    model = torch.nn.ModuleDict({"token_embedding": embedding, "lstm": lstm, "head": head})
    model.load_state_dict({name: torch.tensor(w) for name, w in np.load(weights).items()})
    parameters = list(model.parameters())
    optimizer = torch.optim.Adam(parameters, lr=RATE, fused=True)
    labels = torch.from_numpy(tokens())
    inputs, targets = labels[:, :-1].contiguous(), labels[:, 1:].reshape(-1)

    def step() -> float:
        optimizer.zero_grad()
        logits = head(lstm(embedding(inputs))[0])
        loss = torch.nn.functional.cross_entropy(logits.view(-1, VOCAB_SIZE), targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        return loss.item()

    return step


STEPS = {"minilm": minilm_step, "torch": torch_step, "reference": reference_step}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer", choices=STEPS, default="torch")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        name, weights = args.child
        step = STEPS[name](weights)
        return serve(step, first_loss=step())
    with tempfile.TemporaryDirectory() as directory:
        weights = str(Path(directory) / "weights.npz")
        np.savez(weights, **minilm_model().state_dict())
        a, b = (Contestant(n, [__file__, "--child", n, weights]) for n in ("minilm", args.peer))
        result = compare(a, b, args.seconds)
    print(f"{'':>10} {'ms':>8} {'MiB':>7} {'first loss':>10}")
    for contestant in (a, b):
        facts, milliseconds = contestant.close(), result["medians"][contestant.name] * 1e3
        print(f"{contestant.name:>10} {milliseconds:8.2f} {facts['peak_bytes'] / 2**20:7.0f} "
              f"{facts['first_loss']:10.5f}")  # fmt: skip
    low, high = result["quartiles"]
    print(f"{'ratio':>10} {result['ratio']:8.3f}   quartiles {low:.3f} .. {high:.3f} "
          f"over {result['pairs']} pairs")  # fmt: skip


if __name__ == "__main__":
    main()
