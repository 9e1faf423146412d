"""Laws of the rules that logits are put under, and of what decoding may be asked for."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minilm.logits import (
    GenerationConfig,
    Rules,
    ban_repeated_ngrams,
    ban_words,
    force_token,
)

V = 5
texts = st.integers(1, 12).flatmap(
    lambda length: st.lists(
        st.lists(st.integers(0, V - 1), min_size=length, max_size=length), min_size=1, max_size=3
    )
)


def banned(logits):
    return [set(np.flatnonzero(row == -np.inf).tolist()) for row in logits]


@given(texts, st.integers(1, 4))
def test_a_token_is_banned_if_and_only_if_it_would_repeat_an_ngram(rows, n):
    expected = []
    for row in rows:
        ngrams = [row[i : i + n] for i in range(len(row) - n + 1)]
        expected.append({t for t in range(V) if [*row, t][-n:] in ngrams})
    found = ban_repeated_ngrams(np.ones((len(rows), V)), np.array(rows), n)
    assert banned(found) == expected


@given(texts, st.integers(1, 3), st.data())
def test_a_token_is_banned_if_and_only_if_it_would_complete_a_word(rows, length, data):
    word = st.lists(st.integers(0, V - 1), min_size=length, max_size=length)
    words = data.draw(st.lists(word, min_size=1, max_size=4))
    expected = [
        {w[-1] for w in words if len(row) >= length - 1 and [*row, w[-1]][-length:] == w}
        for row in rows
    ]
    found = ban_words(np.ones((len(rows), V)), np.array(rows), np.array(words))
    assert banned(found) == expected


def test_a_forced_token_has_probability_one():
    forced = force_token(np.random.default_rng(0).normal(size=(3, V)), 2)
    np.testing.assert_array_equal(np.exp(forced), np.eye(V)[[2, 2, 2]])


def test_rules_change_nothing_where_none_is_asked_for_and_never_the_array_they_get():
    logits, tokens = np.ones((1, V)), np.array([[1, 2, 1]])
    assert Rules(GenerationConfig(), 3)(logits, tokens) is logits
    config = GenerationConfig(
        9, eos_token_id=0, min_new_tokens=4, bad_words_ids=[[3], [2, 1, 4]], no_repeat_ngram_size=2
    )
    assert banned(Rules(config, 3)(logits, tokens)) == [{0, 2, 3, 4}]
    assert (logits == 1).all()


def test_rules_know_which_token_is_the_first_the_last_and_free():
    config = GenerationConfig(
        3, eos_token_id=0, min_new_tokens=1, forced_bos_token_id=4, forced_eos_token_id=0
    )
    rules, logits = Rules(config, 2), np.ones((1, V))
    found = [banned(rules(logits, np.ones((1, length), int)))[0] for length in (2, 3, 4)]
    assert found == [{0, 1, 2, 3}, set(), {1, 2, 3, 4}]


def test_a_stop_token_is_banned_before_min_new_tokens_and_not_after():
    config = GenerationConfig(9, eos_token_id=[1, 3], min_new_tokens=2)
    rules, logits = Rules(config, 4), np.ones((1, V))
    found = [banned(rules(logits, np.ones((1, length), int)))[0] for length in (4, 5, 6)]
    assert found == [{1, 3}, {1, 3}, set()]


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"num_return_sequences": 5}, "do_sample=True for num_return_sequences=5, got do_sample=F"),
        (
            {"temperature": 0.7},
            "do_sample=True for temperature=0.7, got do_sample=False; leave temp",
        ),
        ({"top_k": 9}, "do_sample=True for top_k=9, got do_sample=False; leave top_k out"),
        ({"top_p": 1.0, "num_beams": 2}, "do_sample=True for top_p=1.0, got do_sample=False"),
        ({"num_return_sequences": 5, "num_beams": 4}, "num_return_sequences <= num_beams = 4, got"),
        ({"num_beams": 4, "num_beam_groups": 3}, "num_beam_groups to divide num_beams = 4, got 3"),
        ({"num_beams": 4, "diversity_penalty": 1.0}, "num_beam_groups > 1 for diversity_penalty=1"),
        (
            {"num_beams": 4, "num_beam_groups": 2, "do_sample": True},
            "do_sample=False with num_beam_groups=2",
        ),
        ({"length_penalty": 2.0}, "num_beams > 1 for length_penalty=2.0, got num_beams=1"),
        ({"early_stopping": True}, "num_beams > 1 for early_stopping=True, got num_beams=1"),
        ({"early_stopping": "never"}, "num_beams > 1 for early_stopping='never', got"),
        ({"early_stopping": 1, "num_beams": 2}, "early_stopping to be True, False or 'never', got"),
        ({"min_new_tokens": 9, "eos_token_id": 1}, "min_new_tokens <= max_new_tokens = 5, got 9"),
        ({"min_new_tokens": 2}, "eos_token_id for min_new_tokens=2, got eos_token_id=None"),
        (
            {"min_new_tokens": 5, "eos_token_id": 1, "forced_eos_token_id": 1},
            "min_new_tokens < max_new_tokens = 5 with forced_eos_token_id=1",
        ),
        (
            {"eos_token_id": [1, 2], "forced_eos_token_id": 3},
            r"forced_eos_token_id among eos_token_id = \[1, 2\], got 3",
        ),
        (
            {"max_new_tokens": 1, "forced_bos_token_id": 4, "forced_eos_token_id": 3},
            "max_new_tokens >= 2 for forced_bos_token_id and forced_eos_token_id, got 1 for 4 and",
        ),
        ({"eos_token_id": 1, "bad_words_ids": [[1]]}, r"bad_words_ids without eos_token_id.*\[1\]"),
        ({"bad_words_ids": [[]]}, "bad_words_ids with at least one token each"),
        (
            {"bad_words_ids": [[-1]]},
            r"bad_words_ids to be token ids >= 0, got \[\[-1\]\]; leave it out",
        ),
        ({"eos_token_id": -1}, "eos_token_id to be token ids >= 0, got -1; leave it out for None"),
        (
            {"length_penalty": float("nan"), "num_beams": 2},
            "a finite length_penalty, got nan; leave",
        ),
        ({"num_beams": 0}, "num_beams >= 1, got 0; leave it out for 1"),
        ({"num_beam_groups": 0}, "num_beam_groups >= 1, got 0"),
        ({"num_return_sequences": 0}, "num_return_sequences >= 1, got 0"),
        ({"no_repeat_ngram_size": -1}, "no_repeat_ngram_size >= 0, got -1"),
        ({"num_beams": 2, "num_beam_groups": 2, "diversity_penalty": -1.0}, "diversity_penalty >="),
    ],
)
def test_values_out_of_range_and_contradictions_are_errors_that_name_the_arguments(how, message):
    with pytest.raises(ValueError, match=f"generate: expected {message}"):
        GenerationConfig(**{"max_new_tokens": 5, **how})


def test_a_token_that_the_model_does_not_have_is_named_with_its_argument():
    config = GenerationConfig(bad_words_ids=[[3, 40]])
    config.check_vocabulary(41)
    with pytest.raises(ValueError, match="expected bad_words_ids below vocab_size = 40, got 40"):
        config.check_vocabulary(40)
