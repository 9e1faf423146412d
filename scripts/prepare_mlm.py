"""From text and flags to the tokenizer, the model, the recipe and the batches of a BERT run."""

import argparse
from typing import Any

import library
import numpy as np
from common import pick

from minilm import checkpoint, data, kernels, training
from minilm.models.bert import BertConfig
from minilm.models.bert_heads import BertForPreTraining
from minilm.objectives.masked import Masking
from minilm.objectives.next_sentence import Documents, PretrainingBatches, split_documents
from minilm.tokenizers import Tokenizer, WordPieceTokenizer, load_tokenizer

DOCUMENT = 20  # sentences at least: short paragraphs are joined to those behind them
DEFAULTS: dict[str, Any] = dict(
    vocab_size=2048, max_len=64, d_model=128, n_heads=4, n_layers=3, d_ff=512, dropout=0.0,
    init_std=0.05, batch_size=32, max_steps=2000, optimizer="muon", learning_rate=4e-3,
    muon_learning_rate=0.02, beta2=0.99, weight_decay=0.05, schedule="linear", hold=0.4,
    warmup_steps=50,
)  # fmt: skip


def read(paths: list[str], docstrings: bool) -> tuple[str, list[list[str]]]:
    """The text, and its documents as sentences."""
    text = "".join(data.read_texts(paths)) if paths else data.embedded_corpus()
    if docstrings:
        text += "\n\n" + library.pretraining_text()
    documents: list[list[str]] = [[]]
    for paragraph in split_documents(text):
        if len(documents[-1]) >= DOCUMENT:
            documents.append([])
        documents[-1] += paragraph
    return text, documents


def build(
    args: argparse.Namespace, text: str
) -> tuple[Tokenizer, BertForPreTraining, training.TrainingConfig]:
    """The tokenizer, learned from the text, the model and the recipe; or those of a run resumed."""
    if args.resume:
        stored, tokenizer = checkpoint.read_config(args.resume), load_tokenizer(args.resume)
        shape, settings = stored["model_config"], training.TrainingConfig(**stored["training"])
    else:
        given = {name: value for name, value in vars(args).items() if value is not None}
        values = {**DEFAULTS, **given}
        values["workers"] = values.get("workers") or kernels.cores()
        settings = training.TrainingConfig(**pick(training.TrainingConfig, values))
        tokenizer = WordPieceTokenizer.train(text, values["vocab_size"])
        shape = pick(BertConfig, values) | {"vocab_size": tokenizer.vocab_size}
    rng = np.random.default_rng(settings.seed)
    return tokenizer, BertForPreTraining(BertConfig(**shape), rng), settings


def make_batches(
    documents: list[list[str]], tokenizer: Tokenizer, masking: Masking, model: BertForPreTraining
) -> list[PretrainingBatches]:
    """Pairs to train on, and those of every tenth document to validate with.

    Raises: ValueError — too little text for either, or a model that cannot read a pair.
    """
    encoded = [
        [tokenizer.encode(sentence, disallowed_special=()) for sentence in document]
        for document in documents
    ]
    held_back = encoded[9::10]
    kept = [document for i, document in enumerate(encoded) if i % 10 != 9]
    parts = [PretrainingBatches(Documents(p), masking, model.config.max_len)
             for p in (kept, held_back)]  # fmt: skip
    training.evaluate(model, [next(parts[0].evaluation(1))], 1)  # what it refuses, it refuses now
    return parts
