"""One self-explaining file per model, and the names that configurations know them by."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from minilm.models.bert import BertConfig
from minilm.models.bert_heads import (
    BertForMaskedLM,
    BertForMultipleChoice,
    BertForNextSentencePrediction,
    BertForPreTraining,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
)
from minilm.models.gpt import GPT, GPTConfig
from minilm.models.llama import Llama, LlamaConfig
from minilm.models.lstm import LSTMConfig, LSTMLanguageModel
from minilm.models.t5 import T5, T5Config
from minilm.models.transformer import Transformer, TransformerConfig

CAUSAL: dict[str, tuple[type[Any], type[Any]]] = {
    "gpt": (GPTConfig, GPT),
    "llama": (LlamaConfig, Llama),
    "lstm": (LSTMConfig, LSTMLanguageModel),
}
MODELS: dict[str, tuple[type[Any], type[Any]]] = {
    **CAUSAL,
    "bert": (BertConfig, BertForPreTraining),
    "bert_masked": (BertConfig, BertForMaskedLM),
    "bert_next_sentence": (BertConfig, BertForNextSentencePrediction),
    "bert_sequences": (BertConfig, BertForSequenceClassification),
    "bert_tokens": (BertConfig, BertForTokenClassification),
    "bert_questions": (BertConfig, BertForQuestionAnswering),
    "bert_choices": (BertConfig, BertForMultipleChoice),
    "transformer": (TransformerConfig, Transformer),
    "t5": (T5Config, T5),
}


def build_model(name: str, config: Mapping[str, Any], rng: np.random.Generator) -> Any:
    """A new model by the name of its family and the fields of its configuration.

    Raises: ValueError — an unknown family, or a field that its configuration does not have.
    """
    if name not in MODELS:
        raise ValueError(
            f"model: expected one of {', '.join(MODELS)}, got {name!r}; correct the name in the "
            "configuration"
        )
    config_class, model_class = MODELS[name]
    unknown = set(config) - set(config_class.__dataclass_fields__)
    if unknown:
        raise ValueError(
            f"{config_class.__name__}: expected fields of "
            f"{sorted(config_class.__dataclass_fields__)}, got {sorted(unknown)}; leave these out"
        )
    return model_class(config_class(**config), rng)
