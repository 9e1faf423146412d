"""The recipes that `train_causal.py --preset` knows; any flag changes a value of them."""

from typing import Any

# What learns fastest here: the Llama block with normalised queries and keys, and Muon.
FAST = dict(
    model="llama", tokenizer="char", d_model=128, n_heads=4, qk_norm=True, zero_init=True,
    optimizer="muon", learning_rate=4e-3, muon_learning_rate=0.02, beta2=0.99,
    schedule="linear", hold=0.4, warmup_steps=50,
)  # fmt: skip

PRESETS: dict[str, dict[str, Any]] = {
    "default": dict(FAST, max_len=128, n_layers=4, batch_size=16, max_steps=1000),
    # The configuration that nanoGPT's README gives for a CPU.
    "nanogpt-cpu": dict(
        model="gpt", tokenizer="char", max_len=64, d_model=128, n_heads=4, n_layers=4, dropout=0.0,
        optimizer="adamw", learning_rate=1e-3, min_learning_rate=1e-4, beta2=0.99,
        weight_decay=0.1, schedule="cosine", warmup_steps=100, batch_size=12, max_steps=2000,
        max_grad_norm=1.0,
    ),
    # The lowest loss that ten minutes on two cores reach on a million characters.
    "small-data": dict(
        FAST, max_len=256, n_layers=5, batch_size=8, max_steps=4000, dropout=0.15,
        weight_decay=0.05,
    ),
}  # fmt: skip
