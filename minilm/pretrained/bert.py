"""The directories of BERT, RoBERTa and DistilBERT: one model here, three sets of names there."""

from collections.abc import Mapping
from typing import Any

from minilm.models.base import Model
from minilm.models.bert import Bert, BertConfig
from minilm.models.bert_heads import (
    BertForMaskedLM,
    BertForMultipleChoice,
    BertForNextSentencePrediction,
    BertForPreTraining,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
)
from minilm.pretrained.architecture import Architecture, Head, Names
from minilm.pretrained.files import Fields, require
from minilm.pretrained.weights import Weights

EMBEDDINGS: Names = {
    "token_embedding": "embeddings.word_embeddings",
    "position_embedding": "embeddings.position_embeddings",
    "norm": "embeddings.LayerNorm",
}
BERT_BODY: Names = {
    **EMBEDDINGS,
    "type_embedding": "embeddings.token_type_embeddings",
    "blocks.#.attention.q": "encoder.layer.#.attention.self.query",
    "blocks.#.attention.k": "encoder.layer.#.attention.self.key",
    "blocks.#.attention.v": "encoder.layer.#.attention.self.value",
    "blocks.#.attention.out": "encoder.layer.#.attention.output.dense",
    "blocks.#.norm1": "encoder.layer.#.attention.output.LayerNorm",
    "blocks.#.feed_forward.up": "encoder.layer.#.intermediate.dense",
    "blocks.#.feed_forward.down": "encoder.layer.#.output.dense",
    "blocks.#.norm2": "encoder.layer.#.output.LayerNorm",
}
BERT_HEADS: Names = {
    "masked.dense": "cls.predictions.transform.dense",
    "masked.norm": "cls.predictions.transform.LayerNorm",
    "masked.bias": "cls.predictions.bias|cls.predictions.decoder.bias",
    "masked.decoder": "cls.predictions.decoder",
    "next_sentence": "cls.seq_relationship",
    "classifier": "classifier",
}
ROBERTA_HEADS: Names = {
    "masked.dense": "lm_head.dense",
    "masked.norm": "lm_head.layer_norm",
    "masked.bias": "lm_head.bias|lm_head.decoder.bias",
    "masked.decoder": "lm_head.decoder",
    "classifier": "classifier",
}
DISTILBERT_BODY: Names = {
    **EMBEDDINGS,
    "blocks.#.attention.q": "transformer.layer.#.attention.q_lin",
    "blocks.#.attention.k": "transformer.layer.#.attention.k_lin",
    "blocks.#.attention.v": "transformer.layer.#.attention.v_lin",
    "blocks.#.attention.out": "transformer.layer.#.attention.out_lin",
    "blocks.#.norm1": "transformer.layer.#.sa_layer_norm",
    "blocks.#.feed_forward.up": "transformer.layer.#.ffn.lin1",
    "blocks.#.feed_forward.down": "transformer.layer.#.ffn.lin2",
    "blocks.#.norm2": "transformer.layer.#.output_layer_norm",
}
DISTILBERT_HEADS: Names = {
    "masked.dense": "vocab_transform",
    "masked.norm": "vocab_layer_norm",
    "masked.bias": "vocab_projector.bias",
    "masked.decoder": "vocab_projector",
    "classifier": "classifier",
}
BODIES = {"bert": BERT_BODY, "roberta": BERT_BODY, "distilbert": DISTILBERT_BODY}
HEADS = {"bert": BERT_HEADS, "roberta": ROBERTA_HEADS, "distilbert": DISTILBERT_HEADS}
POOLERS = {"bert": "tanh", "roberta": "tanh", "distilbert": "relu"}


def kind_of(config: BertConfig) -> str:
    """Which of the three a configuration is."""
    if config.first_position:
        return "roberta"
    return "bert" if config.n_token_types else "distilbert"


def pooler_name(kind: str, head: str) -> str:
    """What is the pooler here is a part of the head in some of theirs."""
    if kind == "roberta" and head == "sequence_classification":
        return "classifier.dense"
    return "pre_classifier" if kind == "distilbert" else f"{kind}.pooler.dense"


def names(config: BertConfig, head: str) -> Names:
    """The names of a body with a head."""
    kind = kind_of(config)
    body = {ours: f"{kind}.{theirs}" for ours, theirs in BODIES[kind].items()}
    body["pooler"] = pooler_name(kind, head)
    if head == "base":
        return body
    table = {f"bert.{ours}": theirs for ours, theirs in body.items()} | HEADS[kind]
    if head == "question_answering":
        table["classifier"] = "qa_outputs"
    if kind == "roberta" and head == "sequence_classification":
        table["classifier"] = "classifier.out_proj"
    if config.tie_embeddings:
        table["bert.token_embedding"] += f"|{table['masked.decoder']}"
    elif kind != "distilbert":  # untied, it is the bias of their decoder that is added
        bias, decoders = table["masked.bias"].split("|")
        table["masked.bias"] = f"{decoders}|{bias}"
    return table


def read_config(
    fields: Fields, weights: Weights, head: str, asked: Mapping[str, Any]
) -> BertConfig:
    """BertConfig of a config.json, for as many labels as are asked for."""
    kind = fields.text("model_type")
    fields.only("pruned_heads", {})
    sizes = _distilbert_sizes(fields) if kind == "distilbert" else _bert_sizes(fields)
    first = fields.whole("pad_token_id", 1, least=0) + 1 if kind == "roberta" else 0
    rows = fields.whole("max_position_embeddings", 512, least=first + 1)
    embedding = f"{kind}.embeddings.word_embeddings.weight"
    output = f"{HEADS[kind]['masked.decoder']}.weight"
    masked = head in ("masked_lm", "pre_training")  # for the others there is nothing to be tied
    tied = fields.flag("tie_word_embeddings", True) or not masked
    pooled = "bert.pooler" in ARCHITECTURES[kind].heads[head].parts
    pooled = pooled or bool(weights.find(f"{pooler_name(kind, head)}.weight"))
    return BertConfig(
        **sizes,
        vocab_size=fields.whole("vocab_size", 50265 if kind == "roberta" else 30522),
        max_len=rows - first,
        first_position=first,
        pooler=POOLERS[kind] if pooled else None,
        tie_embeddings=tied and (not masked or weights.tied(embedding, output)),
        init_std=fields.number("initializer_range", 0.02),
        n_labels=asked["n_labels"] or 2,
    )


def _bert_sizes(fields: Fields) -> dict[str, Any]:
    fields.only("hidden_act", "gelu")
    fields.only("position_embedding_type", "absolute")
    fields.only("is_decoder", False)
    fields.only("add_cross_attention", False)
    dropout = fields.dropout("hidden_dropout_prob", 0.1, "attention_probs_dropout_prob")
    head_dropout = fields.number("classifier_dropout", dropout)
    return {
        "d_model": fields.whole("hidden_size", 768),
        "n_heads": fields.whole("num_attention_heads", 12),
        "n_layers": fields.whole("num_hidden_layers", 12),
        "d_ff": fields.whole("intermediate_size", 3072),
        "dropout": dropout,
        "head_dropout": None if head_dropout == dropout else head_dropout,
        "n_token_types": fields.whole("type_vocab_size", 2),
        "layer_norm_eps": fields.number("layer_norm_eps", 1e-12),
    }


def _distilbert_sizes(fields: Fields) -> dict[str, Any]:
    fields.only("activation", "gelu")
    dropout = fields.dropout("dropout", 0.1, "attention_dropout")
    head_dropout = fields.number("seq_classif_dropout", 0.2)
    return {
        "d_model": fields.whole("dim", 768),
        "n_heads": fields.whole("n_heads", 12),
        "n_layers": fields.whole("n_layers", 6),
        "d_ff": fields.whole("hidden_dim", 3072),
        "dropout": dropout,
        "head_dropout": None if head_dropout == dropout else head_dropout,
        "n_token_types": 0,
    }


def write_config(config: BertConfig, head: str) -> dict[str, Any]:
    """What config.json says of a BERT.

    Raises: PretrainedError — a configuration that none of the three can be.
    """
    kind, c = kind_of(config), config
    possible = c.pooler in (None, POOLERS[kind]) and bool(c.n_token_types) == (kind != "distilbert")
    possible = possible and (kind != "distilbert" or c.layer_norm_eps == 1e-12)
    what = (
        'BERT (first_position 0, n_token_types > 0, pooler "tanh"), RoBERTa (first_position > 0, '
        'n_token_types > 0, pooler "tanh") or DistilBERT (0, 0, "relu", layer_norm_eps 1e-12)'
    )
    require(possible, "save_pretrained", what, str(c), "train a model with one of these")
    head_dropout = c.dropout if c.head_dropout is None else c.head_dropout
    shared = {
        "vocab_size": c.vocab_size,
        "max_position_embeddings": c.max_len + c.first_position,
        "initializer_range": c.init_std,
        "tie_word_embeddings": c.tie_embeddings,
    }
    if kind == "distilbert":
        return shared | {
            "dim": c.d_model,
            "n_heads": c.n_heads,
            "n_layers": c.n_layers,
            "hidden_dim": c.d_ff,
            "activation": "gelu",
            "dropout": c.dropout,
            "attention_dropout": c.dropout,
            "seq_classif_dropout": head_dropout,
        }
    return shared | {
        "hidden_size": c.d_model,
        "num_attention_heads": c.n_heads,
        "num_hidden_layers": c.n_layers,
        "intermediate_size": c.d_ff,
        "hidden_act": "gelu",
        "hidden_dropout_prob": c.dropout,
        "attention_probs_dropout_prob": c.dropout,
        "classifier_dropout": c.head_dropout,
        "type_vocab_size": c.n_token_types,
        "layer_norm_eps": c.layer_norm_eps,
        **({"pad_token_id": c.first_position - 1} if kind == "roberta" else {}),
    }


def _architecture(kind: str, name: str) -> Architecture:
    def head(model: type[Model], *parts: str) -> Head:
        end = "Model" if model is Bert else model.__name__.removeprefix("Bert")
        return Head(model, (f"{name}{end}",), parts)

    heads = {
        "base": head(Bert),
        "masked_lm": head(BertForMaskedLM, "masked"),
        "sequence_classification": head(BertForSequenceClassification, "classifier", "bert.pooler"),
        "token_classification": head(BertForTokenClassification, "classifier"),
        "question_answering": head(BertForQuestionAnswering, "classifier"),
        "multiple_choice": head(BertForMultipleChoice, "classifier", "bert.pooler"),
    }
    if kind == "bert":
        pooled = ("next_sentence", "bert.pooler")
        heads["pre_training"] = head(BertForPreTraining, "masked", *pooled)
        heads["next_sentence"] = head(BertForNextSentencePrediction, *pooled)
    return Architecture(
        model_type=kind,
        prefix=f"{kind}.",
        heads=heads,
        read_config=read_config,
        write_config=write_config,
        names=names,
        ignored=(r"^((distil|ro)?bert\.)?embeddings\.(position|token_type)_ids$",),
    )


ARCHITECTURES = {
    kind: _architecture(kind, name)
    for kind, name in {"bert": "Bert", "roberta": "Roberta", "distilbert": "DistilBert"}.items()
}
