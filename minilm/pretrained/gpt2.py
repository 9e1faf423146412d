"""GPT-2's directories.

Their layers keep the transpose of a Linear's matrix, (in, out), and the matrices of queries, keys
and values as one: (C, 3C).
"""

from collections.abc import Mapping
from typing import Any

from minilm.models.gpt import GPT, GPTConfig
from minilm.pretrained.architecture import Architecture, Head, Names
from minilm.pretrained.files import Fields
from minilm.pretrained.weights import Weights

NAMES: Names = {
    "token_embedding": "transformer.wte",
    "position_embedding": "transformer.wpe",
    "blocks.#.norm1": "transformer.h.#.ln_1",
    "blocks.#.attention.q": "transformer.h.#.attn.c_attn",
    "blocks.#.attention.k": "transformer.h.#.attn.c_attn",
    "blocks.#.attention.v": "transformer.h.#.attn.c_attn",
    "blocks.#.attention.out": "transformer.h.#.attn.c_proj",
    "blocks.#.norm2": "transformer.h.#.ln_2",
    "blocks.#.feed_forward.up": "transformer.h.#.mlp.c_fc",
    "blocks.#.feed_forward.down": "transformer.h.#.mlp.c_proj",
    "final_norm": "transformer.ln_f",
    "head": "lm_head",
}
TRANSPOSED = tuple(
    f"blocks.#.{layer}.weight"
    for layer in (
        *("attention.q", "attention.k", "attention.v", "attention.out"),
        *("feed_forward.up", "feed_forward.down"),
    )
)


def names(config: GPTConfig, head: str) -> Names:
    """Tied, one matrix stands for both, whichever of the two is stored."""
    if not config.tie_embeddings:
        return NAMES
    return {**NAMES, "token_embedding": "transformer.wte|lm_head"}


def read_config(fields: Fields, weights: Weights, head: str, asked: Mapping[str, Any]) -> GPTConfig:
    """GPTConfig of a config.json."""
    fields.only("activation_function", "gelu_new", "gelu_pytorch_tanh")
    fields.only("scale_attn_weights", True)
    fields.only("scale_attn_by_inverse_layer_idx", False)
    fields.only("add_cross_attention", False)
    tied = fields.flag("tie_word_embeddings", True)
    return GPTConfig(
        vocab_size=fields.whole("vocab_size", 50257),
        max_len=fields.whole("n_positions", 1024),
        d_model=fields.whole("n_embd", 768),
        n_heads=fields.whole("n_head", 12),
        n_layers=fields.whole("n_layer", 12),
        d_ff=None if fields.get("n_inner") is None else fields.whole("n_inner", 1),
        dropout=fields.dropout("resid_pdrop", 0.1, "embd_pdrop", "attn_pdrop"),
        layer_norm_eps=fields.number("layer_norm_epsilon", 1e-5),
        tie_embeddings=tied and weights.tied("transformer.wte.weight", "lm_head.weight"),
        init_std=fields.number("initializer_range", 0.02),
    )


def write_config(config: GPTConfig, head: str) -> dict[str, Any]:
    """What config.json says of a GPT."""
    return {
        "vocab_size": config.vocab_size,
        "n_positions": config.max_len,
        "n_embd": config.d_model,
        "n_head": config.n_heads,
        "n_layer": config.n_layers,
        "n_inner": config.d_ff,
        "activation_function": "gelu_new",
        **dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), config.dropout),
        "layer_norm_epsilon": config.layer_norm_eps,
        "initializer_range": config.init_std,
        "tie_word_embeddings": config.tie_embeddings,
    }


GPT2_LAYOUT = Architecture(
    model_type="gpt2",
    prefix="transformer.",
    heads={"causal_lm": Head(GPT, ("GPT2LMHeadModel", "GPT2Model"), ("head",))},
    read_config=read_config,
    write_config=write_config,
    names=names,
    transposed=TRANSPOSED,
    ignored=(r"\.attn\.(masked_)?bias$",),
)
