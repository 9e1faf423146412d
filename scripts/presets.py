"""The recipes that `train_causal.py --preset` knows; any flag changes a value of them."""

from typing import Any

# What learns fastest here: the Llama block with normalised queries and keys, and Muon.
FAST = dict(
    model="llama", tokenizer="char", d_model=128, n_heads=4, qk_norm=True, zero_init=True,
    optimizer="muon", learning_rate=4e-3, muon_learning_rate=0.02, beta2=0.99,
    weight_decay=0.05, schedule="linear", hold=0.4, warmup_steps=50, max_len=256, batch_size=8,
)  # fmt: skip

PRESETS: dict[str, dict[str, Any]] = {
    "default": dict(FAST, n_layers=4, max_steps=1000),
    # The configuration that nanoGPT's README gives for a CPU, but for the deviation of new
    # weights: GPT-2's 0.02 is meant for widths of 768 and more.
    "nanogpt-cpu": dict(
        model="gpt", tokenizer="char", max_len=64, d_model=128, n_heads=4, n_layers=4, dropout=0.0,
        optimizer="adamw", learning_rate=1e-3, min_learning_rate=1e-4, beta2=0.99,
        weight_decay=0.1, schedule="cosine", warmup_steps=100, batch_size=12, max_steps=2000,
        max_grad_norm=1.0, init_std=0.05,
    ),
    # For a million characters, within ten minutes on two cores.
    "small-data": dict(FAST, n_layers=5, max_steps=2600),
}  # fmt: skip
