"""The check that every model's configuration goes through."""

from dataclasses import fields
from typing import Any


def check_config(config: Any) -> None:
    """Raises: ValueError — naming the field of a model configuration that cannot be right."""
    name = type(config).__name__
    for field in fields(config):
        value = getattr(config, field.name)
        whole = field.type is int or (field.type == int | None and value is not None)
        token = field.name.endswith("_token_id")
        least = 0 if field.default == 0 or token else 1
        if whole and (not isinstance(value, int) or isinstance(value, bool) or value < least):
            raise ValueError(
                f"{name}: expected {field.name} to be a whole number >= {least}, got {value!r}"
            )
        if token and value >= config.vocab_size:
            raise ValueError(
                f"{name}: expected {field.name} below vocab_size = {config.vocab_size}, got "
                f"{value}; take both from the tokenizer"
            )
    if getattr(config, "d_kv", None) is None and config.d_model % config.n_heads:
        raise ValueError(
            f"{name}: expected n_heads to divide d_model, got d_model {config.d_model} and n_heads "
            f"{config.n_heads}; choose d_model as a multiple of n_heads"
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
