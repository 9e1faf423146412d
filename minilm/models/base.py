"""What every model is beside a module: something that a directory can hold, and be made from."""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Any

from minilm.nn import Module

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
