"""What every model is beside a module: something that a directory can hold, and be made from."""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from minilm.nn import Module
from minilm.tensor import Array

NOTHING: Mapping[Any, Any] = MappingProxyType({})


class Model(Module):
    """Base of the models. The three mappings are what a directory holds beside the weights.

    `id2label` names the classes, `generation_config` and `hf_config` are the files of these names
    as they were read. They are attributes to set, and saved with the model.
    """

    config: Any
    id2label: Mapping[int, str] = NOTHING
    generation_config: Mapping[str, Any] = NOTHING
    hf_config: Mapping[str, Any] = NOTHING

    def save_pretrained(self, directory: str | Path) -> None:
        """Write the directory that `transformers` and `minilm.from_pretrained` read.

        Raises: PretrainedError — a model that has no counterpart there.
        """
        # by its name: the room stands below this one
        import_module("minilm.pretrained").save_pretrained(self, directory)


def key_mask(attention_mask: Any) -> Array | None:
    """Which keys attention may read, True = may; None if all, as without a mask.

    Shapes: (B, S), 1 = a token, 0 = padding -> (B, 1, 1, S)

    >>> key_mask([[1, 1], [1, 0]])[:, 0, 0].tolist()
    [[True, True], [True, False]]
    >>> key_mask([[1, 1], [1, 1]]) is None
    True
    """
    mask = None if attention_mask is None else np.asarray(attention_mask).astype(bool)
    return None if mask is None or mask.all() else mask[:, None, None, :]
