"""Directories in the Hugging Face layout, in and out: `config.json` and safetensors.

One file for each architecture says how its configuration and its parameters are called there.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from minilm.models.base import Model
from minilm.pretrained.directory import read_model, write_model
from minilm.pretrained.files import PretrainedError
from minilm.pretrained.sentences import MODULES, SentenceEncoder, read_encoder

__all__ = ["PretrainedError", "SentenceEncoder", "from_pretrained", "save_pretrained"]


def from_pretrained(
    directory: str | Path,
    *,
    head: str | None = None,
    num_labels: int | None = None,
    id2label: Mapping[int, str] | None = None,
    rng: np.random.Generator | None = None,
    max_len: int | None = None,
) -> Any:
    """The model of a directory, in evaluation mode; see docs/13-pretrained.md.

    It has the head that config.json's `architectures` names, or the one that is asked for:
    "causal_lm", "seq2seq_lm", "base", "masked_lm", "pre_training", "next_sentence",
    "sequence_classification", "token_classification", "question_answering", "multiple_choice".
    What such a head lacks is drawn from `rng`, and named in a warning that is logged, as are
    weights that nobody uses. With `num_labels` or `id2label` a classifier of another size is a new
    one. `rng` is also where dropout draws from in training. `max_len` is another context window,
    for Llama and T5, whose weights do not depend on it.

    A directory with modules.json gives a `SentenceEncoder`. float32 weights are mapped, not read:
    the file must stay as it is while the model is in use, or be replaced by another.

    Raises: PretrainedError — an unknown architecture, a field that minilm does not compute with,
        weights that are missing, damaged, pickled or of other shapes, a new head without an rng.
    """
    directory = Path(directory)
    if head is None and (directory / MODULES).exists():
        return read_encoder(directory)
    return read_model(directory, head, num_labels, id2label, rng, max_len)


def save_pretrained(model: Model, directory: str | Path) -> None:
    """Write a directory that `from_pretrained` and transformers read, file by file, each whole.

    Raises: PretrainedError — a model that transformers does not have, a directory of a run.
    """
    write_model(model, Path(directory))
