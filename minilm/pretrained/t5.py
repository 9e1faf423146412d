"""T5's directories, version 1.0 and 1.1."""

from collections.abc import Mapping
from typing import Any

from minilm.models.t5 import T5, T5Config
from minilm.pretrained.architecture import Architecture, Head, Names
from minilm.pretrained.files import Fields
from minilm.pretrained.weights import Weights

LARGEST_DISTANCE = 65536  # a bias is looked up in a table of so many distances, each way
EMBEDDING = "shared|encoder.embed_tokens|decoder.embed_tokens"


def _attention(ours: str, theirs: str) -> Names:
    layers = {"q": "q", "k": "k", "v": "v", "out": "o"}
    return {f"{ours}.{own}": f"{theirs}.{other}" for own, other in layers.items()}


NAMES: Names = {
    "token_embedding": EMBEDDING,
    "encoder.relative_bias": "encoder.block.0.layer.0.SelfAttention.relative_attention_bias",
    "encoder.blocks.#.norm1": "encoder.block.#.layer.0.layer_norm",
    **_attention("encoder.blocks.#.attention", "encoder.block.#.layer.0.SelfAttention"),
    "encoder.blocks.#.norm2": "encoder.block.#.layer.1.layer_norm",
    "encoder.blocks.#.feed_forward": "encoder.block.#.layer.1.DenseReluDense",
    "encoder.final_norm": "encoder.final_layer_norm",
    "decoder.relative_bias": "decoder.block.0.layer.0.SelfAttention.relative_attention_bias",
    "decoder.blocks.#.norm1": "decoder.block.#.layer.0.layer_norm",
    **_attention("decoder.blocks.#.attention", "decoder.block.#.layer.0.SelfAttention"),
    "decoder.blocks.#.norm2": "decoder.block.#.layer.1.layer_norm",
    **_attention("decoder.blocks.#.cross_attention", "decoder.block.#.layer.1.EncDecAttention"),
    "decoder.blocks.#.norm3": "decoder.block.#.layer.2.layer_norm",
    "decoder.blocks.#.feed_forward": "decoder.block.#.layer.2.DenseReluDense",
    "decoder.final_norm": "decoder.final_layer_norm",
    "head": "lm_head",
}
PLAIN = {"up": "wi", "down": "wo"}
GATED = {"gate": "wi_0", "up": "wi_1", "down": "wo"}


def names(config: T5Config, head: str) -> Names:
    """The layers of the feed-forward are called otherwise where it is gated."""
    table = dict(NAMES)
    for stack in ("encoder", "decoder"):
        ours = f"{stack}.blocks.#.feed_forward"
        theirs = table.pop(ours)
        for own, other in (GATED if config.gated else PLAIN).items():
            table[f"{ours}.{own}"] = f"{theirs}.{other}"
    if config.tie_embeddings:
        table["token_embedding"] += "|lm_head"
    return table


def read_config(fields: Fields, weights: Weights, head: str, asked: Mapping[str, Any]) -> T5Config:
    """T5Config of a config.json; `asked` may have another max_len, which no weight depends on."""
    fields.only("feed_forward_proj", "relu", "gated-gelu")
    fields.only("is_encoder_decoder", True)
    fields.only("is_decoder", False)
    fields.only("tie_encoder_decoder", False)
    d_model, n_heads = fields.whole("d_model", 512), fields.whole("num_heads", 8)
    width, n_layers = fields.whole("d_kv", 64), fields.whole("num_layers", 6)
    decoders = fields.whole("num_decoder_layers", n_layers)
    pad = fields.whole("pad_token_id", 0, least=0)
    said = fields.flag("tie_word_embeddings", True)
    embedding = "|".join(f"{name}.weight" for name in EMBEDDING.split("|"))
    tied = weights.tied(embedding, "lm_head.weight") if said else not weights.find("lm_head.weight")
    scaled = fields.flag("scale_decoder_outputs", said)
    return T5Config(
        vocab_size=fields.whole("vocab_size", 32128),
        max_len=asked["max_len"] or fields.whole("n_positions", 512),
        d_model=d_model,
        n_heads=n_heads,
        n_layers=n_layers,
        n_decoder_layers=None if decoders == n_layers else decoders,
        d_kv=None if width * n_heads == d_model else width,
        d_ff=fields.whole("d_ff", 2048),
        dropout=fields.dropout("dropout_rate", 0.1),
        label_smoothing=fields.number("label_smoothing", 0.0),
        gated=fields.text("feed_forward_proj", "relu") == "gated-gelu",
        tie_embeddings=tied,
        scale_logits=None if scaled == tied else scaled,
        n_buckets=fields.whole("relative_attention_num_buckets", 32),
        max_distance=fields.whole("relative_attention_max_distance", 128, most=LARGEST_DISTANCE),
        norm_eps=fields.number("layer_norm_epsilon", 1e-6),
        init_factor=fields.number("initializer_factor", 1.0),
        pad_token_id=pad,
        eos_token_id=fields.whole("eos_token_id", 1, least=0),
        decoder_start_token_id=fields.whole("decoder_start_token_id", pad, least=0),
    )


def write_config(config: T5Config, head: str) -> dict[str, Any]:
    """What config.json says of a T5; `label_smoothing` is read here alone."""
    tied, scaled = config.tie_embeddings, config.scale_logits
    return {
        "vocab_size": config.vocab_size,
        "n_positions": config.max_len,
        "d_model": config.d_model,
        "num_heads": config.n_heads,
        "num_layers": config.n_layers,
        "num_decoder_layers": config.n_decoder_layers or config.n_layers,
        "d_kv": config.d_kv or config.d_model // config.n_heads,
        "d_ff": config.d_ff,
        "dropout_rate": config.dropout,
        "label_smoothing": config.label_smoothing,
        "feed_forward_proj": "gated-gelu" if config.gated else "relu",
        "tie_word_embeddings": tied,
        "scale_decoder_outputs": tied if scaled is None else scaled,
        "relative_attention_num_buckets": config.n_buckets,
        "relative_attention_max_distance": config.max_distance,
        "layer_norm_epsilon": config.norm_eps,
        "initializer_factor": config.init_factor,
        "pad_token_id": config.pad_token_id,
        "eos_token_id": config.eos_token_id,
        "decoder_start_token_id": config.decoder_start_token_id,
        "is_encoder_decoder": True,
    }


T5_LAYOUT = Architecture(
    model_type="t5",
    prefix="",
    heads={"seq2seq_lm": Head(T5, ("T5ForConditionalGeneration", "T5Model"), ("head",))},
    read_config=read_config,
    write_config=write_config,
    names=names,
    ignored=(r"^decoder\.block\.0\.layer\.1\.EncDecAttention\.relative_attention_bias\.weight$",),
)
