"""Laws of the figures."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minilm.metrics import bits_per_byte, nats_per_character, perplexity

LOSSES = st.floats(0, 50)
COUNTS = st.integers(1, 10**9)


@given(st.integers(1, 10**6))
def test_perplexity_of_the_uniform_distribution_is_the_vocabulary_size(vocab_size):
    assert perplexity(math.log(vocab_size)) == pytest.approx(vocab_size, rel=1e-13)


def test_perplexity_too_large_for_a_float_is_infinite():
    assert perplexity(1e4) == math.inf
    assert perplexity(math.inf) == math.inf
    assert perplexity(0.0) == 1.0


@given(LOSSES, COUNTS, COUNTS)
def test_bits_per_byte_is_the_loss_of_the_whole_text_spread_over_its_bytes(loss, tokens, n_bytes):
    bits = bits_per_byte(loss, tokens, n_bytes)
    assert bits * n_bytes * math.log(2) == pytest.approx(loss * tokens, rel=1e-13)


@given(LOSSES, COUNTS, COUNTS)
def test_nats_per_character_does_not_depend_on_how_text_is_cut_into_tokens(
    loss, tokens, characters
):
    nats = nats_per_character(loss, tokens, characters)
    assert nats * characters == pytest.approx(loss * tokens, rel=1e-13)
    assert nats_per_character(loss / 2, 2 * tokens, characters) == pytest.approx(nats, rel=1e-13)


def test_known_values():
    assert bits_per_byte(8 * math.log(2), tokens=1, n_bytes=1) == 8.0
    assert nats_per_character(4.5, tokens=100, characters=300) == 1.5


@pytest.mark.parametrize(("tokens", "units"), [(1, 0), (1, -1), (-1, 1)])
def test_counts_that_cannot_be_are_errors(tokens, units):
    with pytest.raises(ValueError, match=f"n_bytes >= 1, got {tokens} and {units}"):
        bits_per_byte(1.0, tokens, units)
    with pytest.raises(ValueError, match=f"characters >= 1, got {tokens} and {units}"):
        nats_per_character(1.0, tokens, units)
