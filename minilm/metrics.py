"""Figures that say how good a model is, and that can be compared between models."""

import math


def perplexity(nats: float) -> float:
    """exp(nats): among how many equally likely tokens the model is as uncertain.

    `nats` is the mean loss per token; infinite where the exponential is too large for a float.

    >>> round(perplexity(math.log(65)), 9)
    65.0
    """
    try:
        return math.exp(nats)
    except OverflowError:
        return math.inf


def bits_per_byte(nats_per_token: float, tokens: int, n_bytes: int) -> float:
    """nats · tokens / (n_bytes · ln 2): the loss per byte of text, whatever the tokenizer.

    Raises: ValueError — tokens < 0 or n_bytes < 1.

    >>> bits_per_byte(math.log(2), tokens=50, n_bytes=100)
    0.5
    """
    return _per(nats_per_token, tokens, n_bytes, "n_bytes") / math.log(2)


def nats_per_character(nats_per_token: float, tokens: int, characters: int) -> float:
    """nats · tokens / characters: the loss per character of text, whatever the tokenizer.

    Raises: ValueError — tokens < 0 or characters < 1.

    >>> nats_per_character(4.5, tokens=100, characters=300)
    1.5
    """
    return _per(nats_per_token, tokens, characters, "characters")


def _per(nats_per_token: float, tokens: int, units: int, name: str) -> float:
    if tokens < 0 or units < 1:
        raise ValueError(
            f"expected tokens >= 0 and {name} >= 1, got {tokens} and {units}; count both in the "
            "text that the loss was measured on"
        )
    return nats_per_token * tokens / units
