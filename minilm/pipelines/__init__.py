"""Text in, answer out: a model, its tokenizer and what lies between, by the name of a task.

One file for each kind: `classification`, `tokens`, `questions`, `masks`, `writing`, `vectors`.
"""

import re
from pathlib import Path
from typing import Any

from minilm.checkpoint import CheckpointError, load_model, read_config
from minilm.models.bert import Bert
from minilm.models.bert_heads import BertHead
from minilm.pipelines.base import Pipeline
from minilm.pipelines.classification import TextClassification
from minilm.pipelines.masks import FillMask
from minilm.pipelines.questions import QuestionAnswering
from minilm.pipelines.tokens import TokenClassification
from minilm.pipelines.vectors import FeatureExtraction, SentenceSimilarity
from minilm.pipelines.writing import TextGeneration, TextToText
from minilm.pretrained import PretrainedError, SentenceEncoder, from_pretrained
from minilm.pretrained.tokenizers import tokenizer_from_pretrained
from minilm.tokenizers import Tokenizer, load_tokenizer

TASKS: dict[str, type[Pipeline]] = {
    "text-generation": TextGeneration,
    "text2text-generation": TextToText,
    "summarization": TextToText,
    "translation": TextToText,
    "fill-mask": FillMask,
    "text-classification": TextClassification,
    "token-classification": TokenClassification,
    "question-answering": QuestionAnswering,
    "feature-extraction": FeatureExtraction,
    "sentence-similarity": SentenceSimilarity,
}
ALIASES = {"sentiment-analysis": "text-classification", "ner": "token-classification"}
TRANSLATION = re.compile(r"translation_\w+_to_\w+")  # whose settings a T5 has under that name


def pipeline(
    task: str,
    model: Any,
    tokenizer: Tokenizer | str | Path | None = None,
    *,
    batch_size: int = 1,
    **defaults: Any,
) -> Pipeline:
    """A function of a text, or of many, that does the task: see the class that `TASKS` names.

    `model` is a directory (of transformers, of sentence-transformers, or the run of a training
    script) or a model, which then needs a tokenizer, or a directory with one. `defaults` are
    arguments for every call that does not say otherwise.

    Raises: ValueError — an unknown task, a model that is of no use for it; TypeError — a model
        without a tokenizer, an argument that the task does not have; PretrainedError,
        CheckpointError, TokenizerError — what is wrong with a directory.
    """
    kind = TASKS.get(ALIASES.get(task, task))
    if kind is None and TRANSLATION.fullmatch(task):
        kind = TextToText
    if kind is None:
        known = ", ".join([*TASKS, *ALIASES])
        raise ValueError(
            f"pipeline: expected a task of {known}, got {task!r}; translation_en_to_de, say, takes "
            "the settings that a T5 has for these languages"
        )
    if isinstance(model, str | Path):
        model, found = _open(Path(model), task, kind)
        tokenizer = found if tokenizer is None else tokenizer
    if isinstance(model, SentenceEncoder) and tokenizer is None:
        tokenizer = model.tokenizer
    if isinstance(tokenizer, str | Path):
        tokenizer = tokenizer_from_pretrained(tokenizer)
    if tokenizer is None:
        raise TypeError(
            "pipeline: expected a tokenizer for the model, got none; pass tokenizer=, or the "
            "directory that both are in as model"
        )
    return kind(task, _fitting(model, tokenizer, kind), tokenizer, batch_size, **defaults)


def _open(directory: Path, task: str, kind: type[Pipeline]) -> tuple[Any, Tokenizer]:
    """What a directory holds, of whichever kind it is."""
    if _is_run(directory):
        return load_model(directory), load_tokenizer(directory)
    try:
        model = from_pretrained(directory, head=kind.head)
    except PretrainedError as error:
        raise PretrainedError(f"{task} needs {kind.head or 'an encoder'}: {error}") from error
    if isinstance(model, SentenceEncoder):
        return model, model.tokenizer
    return model, tokenizer_from_pretrained(directory)


def _is_run(directory: Path) -> bool:
    try:
        read_config(directory)
    except CheckpointError:
        return False
    return True


def _fitting(model: Any, tokenizer: Tokenizer, kind: type[Pipeline]) -> Any:
    """The model, or what of it the task is done with."""
    if kind is not SentenceSimilarity:
        return model.model if isinstance(model, SentenceEncoder) else model
    if isinstance(model, Bert | BertHead):
        body = model.bert if isinstance(model, BertHead) else model
        return SentenceEncoder(body, tokenizer)
    return model
