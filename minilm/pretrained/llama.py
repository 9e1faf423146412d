"""Llama's directories, and Qwen3's: the same, with queries and keys normalised head by head."""

from collections.abc import Mapping
from typing import Any

from minilm.models.llama import Llama, LlamaConfig
from minilm.pretrained.architecture import Architecture, Head, Names
from minilm.pretrained.files import Fields
from minilm.pretrained.weights import Weights

NAMES: Names = {
    "token_embedding": "model.embed_tokens",
    "blocks.#.norm1": "model.layers.#.input_layernorm",
    "blocks.#.attention.q": "model.layers.#.self_attn.q_proj",
    "blocks.#.attention.k": "model.layers.#.self_attn.k_proj",
    "blocks.#.attention.v": "model.layers.#.self_attn.v_proj",
    "blocks.#.attention.out": "model.layers.#.self_attn.o_proj",
    "blocks.#.attention.q_norm": "model.layers.#.self_attn.q_norm",
    "blocks.#.attention.k_norm": "model.layers.#.self_attn.k_norm",
    "blocks.#.norm2": "model.layers.#.post_attention_layernorm",
    "blocks.#.feed_forward.gate": "model.layers.#.mlp.gate_proj",
    "blocks.#.feed_forward.up": "model.layers.#.mlp.up_proj",
    "blocks.#.feed_forward.down": "model.layers.#.mlp.down_proj",
    "final_norm": "model.norm",
    "head": "lm_head",
}


def names(config: LlamaConfig, head: str) -> Names:
    """Tied, one matrix stands for both, whichever of the two is stored."""
    if not config.tie_embeddings:
        return NAMES
    return {**NAMES, "token_embedding": "model.embed_tokens|lm_head"}


def read_rope(fields: Fields) -> float:
    """The base of the rotary positions, by either of the names it has had."""
    name = "rope_scaling" if fields.get("rope_scaling") else "rope_parameters"
    rope = fields.inner(name)
    rope.only("rope_type" if rope.get("rope_type") else "type", "default")
    rope.only("partial_rotary_factor", 1.0, 1)
    fields.only("partial_rotary_factor", 1.0, 1)
    base = rope if rope.get("rope_theta") is not None else fields
    return base.number("rope_theta", 10000.0, least=1e-6)


def read_config(
    fields: Fields, weights: Weights, head: str, asked: Mapping[str, Any]
) -> LlamaConfig:
    """LlamaConfig of a config.json; `asked` may have another max_len."""
    qwen = fields.text("model_type") == "qwen3"
    fields.only("hidden_act", "silu")
    fields.only("attention_bias", False)
    fields.only("mlp_bias", False)
    fields.only("use_sliding_window", False)
    for kind in fields.texts("layer_types"):
        Fields({"layer_types": kind}, fields.where).only("layer_types", "full_attention")
    d_model = fields.whole("hidden_size", 4096)
    n_heads = fields.whole("num_attention_heads", 32)
    kv_heads = fields.whole("num_key_value_heads", 32 if qwen else n_heads)
    width = fields.whole("head_dim", 128 if qwen else max(1, d_model // n_heads))
    tied = fields.flag("tie_word_embeddings", False)
    dropout = fields.dropout("dropout" if "dropout" in fields.values else "attention_dropout", 0.0)
    return LlamaConfig(
        vocab_size=fields.whole("vocab_size", 151936 if qwen else 32000),
        max_len=asked["max_len"]
        or fields.whole("max_position_embeddings", 32768 if qwen else 2048),
        d_model=d_model,
        n_heads=n_heads,
        n_layers=fields.whole("num_hidden_layers", 32),
        n_kv_heads=None if kv_heads == n_heads else kv_heads,
        d_kv=None if width * n_heads == d_model else width,
        d_ff=fields.whole("intermediate_size", 22016 if qwen else 11008),
        dropout=dropout,
        norm_eps=fields.number("rms_norm_eps", 1e-6),
        rope_theta=read_rope(fields),
        tie_embeddings=tied and weights.tied("model.embed_tokens.weight", "lm_head.weight"),
        qk_norm=qwen,
        zero_init=fields.flag("zero_init", False),
        init_std=fields.number("initializer_range", 0.02),
    )


def write_config(config: LlamaConfig, head: str) -> dict[str, Any]:
    """What config.json says of a Llama; `dropout` and `zero_init` are read here alone."""
    return {
        "vocab_size": config.vocab_size,
        "max_position_embeddings": config.max_len,
        "hidden_size": config.d_model,
        "intermediate_size": config.hidden_width,
        "num_attention_heads": config.n_heads,
        "num_key_value_heads": config.n_kv_heads or config.n_heads,
        "head_dim": config.d_kv or config.d_model // config.n_heads,
        "num_hidden_layers": config.n_layers,
        "hidden_act": "silu",
        "rms_norm_eps": config.norm_eps,
        "rope_theta": config.rope_theta,  # by the name it had in earlier versions, and
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_theta},
        "rope_scaling": None,
        "attention_bias": False,
        "attention_dropout": config.dropout,
        "dropout": config.dropout,
        "zero_init": config.zero_init,
        "initializer_range": config.init_std,
        "tie_word_embeddings": config.tie_embeddings,
    }


def _architecture(model_type: str, classes: tuple[str, ...]) -> Architecture:
    return Architecture(
        model_type=model_type,
        prefix="model.",
        heads={"causal_lm": Head(Llama, classes, ("head",))},
        read_config=read_config,
        write_config=write_config,
        names=names,
        ignored=(r"\.rotary_emb\.inv_freq$",),
    )


LLAMA_LAYOUT = _architecture("llama", ("LlamaForCausalLM", "LlamaModel"))
QWEN3_LAYOUT = _architecture("qwen3", ("Qwen3ForCausalLM", "Qwen3Model"))
