"""BERT in minilm beside transformers and PyTorch: pre-training, fine-tuning, inference.

    python scripts/benchmarks/encoder.py                    # all three, minilm / transformers
    python scripts/benchmarks/encoder.py --rows inference --seconds 30

Peers are installed by hand: `pip install torch transformers`. Vocabulary 8,192, 4 layers, 4 heads,
width 256, float32; rows of 128 tokens, 16 of them in a step. A step is forward, backward, clipping
and AdamW (fused in torch), with the same weights, tokens and labels, 15 % of the positions masked.
Inference classifies 32 texts of 8 to 128 tokens: transformers pads them to the longest, minilm
sorts them by length and pads within small batches.
"""

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np
from alternate import HEADING, Contestant, serve, time_row

VOCAB_SIZE, ROWS_IN_BATCH, LENGTH, MASKED = 8192, 16, 128, 0.15
ROWS = {
    "pre-training": "MLM + NSP pre-training step",
    "classification": "sequence-classification step",
    "inference": "classification of 32 texts",
}


def tokens(row: str) -> dict[str, Any]:
    """The batch of a row."""
    rng = np.random.default_rng(0)
    n = 32 if row == "inference" else ROWS_IN_BATCH
    shape = (n, LENGTH)
    ids = rng.integers(0, VOCAB_SIZE, shape)
    lengths = rng.integers(8, LENGTH + 1, (n, 1)) if row == "inference" else np.full((n, 1), LENGTH)
    mask = (np.arange(LENGTH) < lengths).astype(np.int64)
    batch = {"input_ids": ids, "attention_mask": mask}
    batch["token_type_ids"] = (np.arange(LENGTH) > LENGTH // 2).astype(np.int64) * mask
    if row == "pre-training":
        masked = rng.random(shape) < MASKED
        batch["labels"] = np.where(masked, rng.integers(0, VOCAB_SIZE, shape), -100)
        batch["next_sentence_label"] = rng.integers(0, 2, n)
    if row == "classification":
        batch["labels"] = rng.integers(0, 2, n)
    return batch


def minilm(row: str) -> Callable[[], object]:
    from minilm import kernels
    from minilm.data import by_length
    from minilm.models.bert import BertConfig
    from minilm.models.bert_heads import BertForPreTraining, BertForSequenceClassification
    from minilm.optim import AdamW, decay_groups
    from minilm.tensor import no_grad
    from minilm.training import train_step

    config = BertConfig(VOCAB_SIZE, LENGTH, 256, 4, 4, 1024)
    head = BertForPreTraining if row == "pre-training" else BertForSequenceClassification
    model: Any = head(config, np.random.default_rng(0))
    batch = tokens(row)
    if row != "inference":
        optimizer = AdamW(decay_groups(model.parameters(), 0.01), lr=1e-4)
        return lambda: train_step(model, optimizer, batch, max_grad_norm=1.0)
    model.eval()

    @no_grad()
    def classify(rows: Any) -> Any:
        longest = int(batch["attention_mask"][rows].sum(1).max())
        return model(**{name: array[rows, :longest] for name, array in batch.items()}).logits.data

    def run() -> object:
        groups = by_length(batch["attention_mask"].sum(1), 4)
        with kernels.blas_threads(1):
            lanes = [groups[0::2], groups[1::2]]
            jobs = [lambda lane=lane: [classify(rows) for rows in lane] for lane in lanes]
            return kernels.run_parallel(jobs)

    return run


def peer(row: str) -> Callable[[], object]:
    import torch
    import transformers

    config = transformers.BertConfig(
        vocab_size=VOCAB_SIZE,
        hidden_size=256,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=1024,
        max_position_embeddings=LENGTH,
    )
    pre_training = row == "pre-training"
    name = "BertForPreTraining" if pre_training else "BertForSequenceClassification"
    model = getattr(transformers, name)(config)
    batch = {name: torch.from_numpy(array) for name, array in tokens(row).items()}
    if row == "inference":
        model.eval()

        def classify() -> object:
            with torch.no_grad():
                return model(**batch).logits

        return classify
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--seconds", type=float, default=60, help="time per row")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        side, row = args.child
        return serve({"minilm": minilm, "transformers": peer}[side](row))
    print(HEADING)
    for row in args.rows:
        pair = (Contestant(s, [__file__, "--child", s, row]) for s in ("minilm", "transformers"))
        print(time_row(ROWS[row], *pair, args.seconds), flush=True)


if __name__ == "__main__":
    main()
