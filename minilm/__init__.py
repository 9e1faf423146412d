"""Language models in pure NumPy: autograd, tokenizers, Transformers, training, decoding.

The names below are all of the public surface; a name's room is read when it is first asked for,
so that `import minilm` costs next to nothing.
"""

from importlib import import_module
from typing import Any

PUBLIC = {
    "tensor": ("Tensor", "no_grad"),
    "models": ("GPT", "GPTConfig", "Llama", "LlamaConfig"),
    "models.ngram": ("NGram",),
    "models.lstm": ("LSTMConfig", "LSTMLanguageModel"),
    "models.bert": ("Bert", "BertConfig", "distilbert_config", "roberta_config"),
    "models.bert_heads": (
        *("BertForMaskedLM", "BertForMultipleChoice", "BertForNextSentencePrediction"),
        *("BertForPreTraining", "BertForQuestionAnswering", "BertForSequenceClassification"),
        "BertForTokenClassification",
    ),
    "models.transformer": ("Transformer", "TransformerConfig"),
    "models.t5": ("T5", "T5Config", "t5_v1_1_config"),
    "tokenizers": (
        *("BPETokenizer", "CharTokenizer", "MarkedBPETokenizer", "UnigramTokenizer"),
        *("WordPieceTokenizer", "load_tokenizer"),
    ),
    "optim": ("SGD", "Adam", "AdamW", "Muon", "Optimizers", "clip_grad_norm"),
    "data": ("embedded_corpus", "open_tokens", "read_texts", "split", "write_tokens"),
    "tasks": ("read_task",),
    "checkpoint": ("load_model",),
    "training": ("Trainer", "TrainingConfig", "evaluate", "train_step"),
    "generation": ("generate", "stream"),
    "pretrained": ("from_pretrained",),
    "pretrained.tokenizers": ("save_tokenizer", "tokenizer_from_pretrained"),
    "pipelines": ("pipeline",),
}
ROOMS = (
    *("kernels", "tensor", "reference", "functional", "nn", "models", "tokenizers", "objectives"),
    *("optim", "data", "metrics", "metrics_text", "metrics_generation", "tasks", "checkpoint"),
    *("training", "finetuning", "logits", "beam", "generation", "pretrained", "pipelines"),
)

__all__ = [*ROOMS, *(name for names in PUBLIC.values() for name in names)]


def __getattr__(name: str) -> Any:
    if name in ROOMS:
        return import_module(f"minilm.{name}")
    for room, names in PUBLIC.items():
        if name in names:
            return getattr(import_module(f"minilm.{room}"), name)
    raise AttributeError(f"module 'minilm' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
