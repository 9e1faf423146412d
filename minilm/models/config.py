"""The check that every model's configuration goes through."""

import math
from dataclasses import fields
from typing import Any

NOT_NEGATIVE = ("_eps", "_std", "_factor", "_theta")


def check_config(config: Any) -> None:
    """Raises: ValueError — naming the field of a model configuration that cannot be right."""
    name = type(config).__name__
    for field in fields(config):
        value = getattr(config, field.name)
        whole = field.type is int or (field.type == int | None and value is not None)
        token = field.name.endswith("_token_id")
        least = field.metadata.get("least", 0 if field.default == 0 or token else 1)
        if whole and (not isinstance(value, int) or isinstance(value, bool) or value < least):
            raise ValueError(
                f"{name}: expected {field.name} to be a whole number >= {least}, got {value!r}; "
                "correct it in the configuration"
            )
        if field.name.endswith(NOT_NEGATIVE) and not 0 <= value < math.inf:
            raise ValueError(
                f"{name}: expected {field.name} to be a finite number >= 0, got {value!r}; its "
                f"default is {field.default!r}"
            )
        if token and value >= config.vocab_size:
            raise ValueError(
                f"{name}: expected {field.name} below vocab_size = {config.vocab_size}, got "
                f"{value}; take both from the tokenizer"
            )
    heads = getattr(config, "n_heads", 1)
    if getattr(config, "d_kv", None) is None and config.d_model % heads:
        raise ValueError(
            f"{name}: expected n_heads to divide d_model, got d_model {config.d_model} and n_heads "
            f"{heads}; choose d_model as a multiple of n_heads"
        )
    if not 0 <= config.dropout < 1:
        raise ValueError(
            f"{name}: expected 0 <= dropout < 1, got {config.dropout}; it is the share dropped"
        )
    smoothing = getattr(config, "label_smoothing", 0.0)
    if not 0 <= smoothing < 1:
        raise ValueError(
            f"{name}: expected 0 <= label_smoothing < 1, got {smoothing}; it is the share of the "
            "target that is spread over the vocabulary"
        )
