"""Laws of decoding."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from runs import tiny_model

from minilm import generation
from minilm.generation import generate, next_token, stream

PROMPT = np.array([[3, 1, 4, 1, 5]])


@pytest.fixture(params=["gpt", "llama"])
def model(request):
    return tiny_model(request.param, seed=1, init_std=0.5).eval()


def greedy_loop(model, tokens, count):
    """Greedy search written out: the whole visible text through the model at every step."""
    tokens = list(tokens)
    for _ in range(count):
        start = generation.context_start(len(tokens), model.config.max_len)
        logits = model(np.array([tokens[start:]])).logits.data[0, -1]
        tokens.append(int(logits.argmax()))
    return tokens


def test_greedy_search_takes_the_most_probable_token_each_time(model):
    expected = greedy_loop(model, PROMPT[0], 3)
    assert generate(model, PROMPT, 3)[0].tolist() == expected


@pytest.mark.parametrize("how", [{}, {"do_sample": True, "temperature": 0.7, "top_k": 9}])
def test_cached_equals_uncached_within_and_beyond_the_context_window(model, how):
    """The window holds 8 tokens; 30 more make it slide many times."""
    prompts = np.random.default_rng(0).integers(0, 32, (3, 5))

    def run(use_cache):
        rng = np.random.default_rng(2)
        return generate(model, prompts, 30, use_cache=use_cache, rng=rng, **how).tolist()

    assert run(True) == run(False)


def test_beyond_the_window_only_the_window_counts(model):
    assert generate(model, PROMPT, 30)[0].tolist() == greedy_loop(model, PROMPT[0], 30)


def test_a_prompt_longer_than_the_window_is_seen_through_it(model):
    long = np.random.default_rng(0).integers(0, 32, (1, 21))
    start = generation.context_start(21, 8)
    assert generate(model, long, 1)[0, -1] == generate(model, long[:, start:], 1)[0, -1]


@given(st.integers(1, 500), st.integers(1, 40))
def test_the_window_is_never_too_long_nor_needlessly_short(length, max_len):
    start = generation.context_start(length, max_len)
    assert 0 <= start < length
    assert length - start <= max_len
    assert length <= max_len or length - start > max_len - max(1, max_len // 2)


def test_every_row_of_a_batch_is_decoded_as_if_alone(model):
    prompts = np.random.default_rng(0).integers(0, 32, (4, 5))
    together = generate(model, prompts, 12)
    alone = [generate(model, row[None], 12)[0] for row in prompts]
    np.testing.assert_array_equal(together, alone)


def test_streaming_yields_the_tokens_that_generate_returns(model):
    steps = list(stream(model, PROMPT, 9))
    assert generate(model, PROMPT, 9)[0, 5:].tolist() == [int(step[0]) for step in steps]


def test_streaming_gives_each_token_before_the_next_is_computed(model):
    steps = stream(model, PROMPT, 10**9)
    assert next(steps).shape == (1,)


def test_a_stop_token_ends_a_row_and_fills_it_up(model):
    free = generate(model, PROMPT, 12)[0, 5:].tolist()
    stop = free[2]
    stopped = generate(model, PROMPT, 12, eos_token_id=stop)[0, 5:].tolist()
    assert stopped == free[: free.index(stop) + 1]
    prompts = np.concatenate([PROMPT, PROMPT + 7])
    both = generate(model, prompts, 12, eos_token_id=[stop, 31])
    row = both[0, 5:].tolist()
    assert set(row[row.index(stop) :]) == {stop}


def test_the_same_seed_gives_the_same_text_and_another_seed_another(model):
    def run(seed):
        rng = np.random.default_rng(seed)
        return generate(model, PROMPT, 20, do_sample=True, rng=rng).tolist()

    assert run(1) == run(1) != run(2)


def test_several_sequences_of_one_prompt_stand_together_and_differ(model):
    prompts = np.concatenate([PROMPT, PROMPT + 1])
    rng = np.random.default_rng(0)
    found = generate(model, prompts, 20, do_sample=True, num_return_sequences=3, rng=rng)
    assert found.shape == (6, 25)
    assert (found[:3, :5] == PROMPT).all() and (found[3:, :5] == PROMPT + 1).all()
    assert len({tuple(row) for row in found.tolist()}) == 6


def test_low_temperature_and_top_k_1_and_small_top_p_are_greedy(model):
    greedy = generate(model, PROMPT, 10).tolist()
    for how in ({"temperature": 1e-4}, {"top_k": 1}, {"top_p": 1e-9}):
        rng = np.random.default_rng(0)
        assert generate(model, PROMPT, 10, do_sample=True, rng=rng, **how).tolist() == greedy


def test_tokens_are_drawn_with_their_probabilities():
    """Chi-squared against softmax(logits / temperature), 31 degrees of freedom: 0.999 quantile."""
    logits = np.random.default_rng(0).normal(0, 1, 32)
    expected = np.exp(logits / 0.7) / np.exp(logits / 0.7).sum()
    many = np.broadcast_to(logits, (20_000, 32))
    drawn = next_token(many, many[:, :0], True, temperature=0.7, rng=np.random.default_rng(1))
    counts = np.bincount(drawn, minlength=32)
    assert ((counts - 20_000 * expected) ** 2 / (20_000 * expected)).sum() < 61.1


rows = st.lists(st.floats(-20, 20), min_size=1, max_size=12).map(lambda row: np.array([row]))


@given(rows, st.integers(1, 15))
def test_top_k_keeps_the_k_largest_and_their_equals(logits, k):
    kept = generation.keep_top_k(logits, k)[0]
    ranked = sorted(logits[0], reverse=True)
    least = ranked[min(k, len(ranked)) - 1]
    for value, original in zip(kept, logits[0], strict=True):
        assert value == (original if original >= least else -np.inf)


@given(rows, st.floats(0.01, 1))
def test_top_p_keeps_the_smallest_set_that_reaches_p(logits, p):
    kept = generation.keep_top_p(logits, p)[0] > -np.inf
    weights = np.exp(logits[0] - logits[0].max())
    probabilities = weights / weights.sum()
    assert probabilities[kept].sum() >= p - 1e-9
    assert kept.any()
    if kept.sum() > 1:  # without its least probable member it would not reach p
        assert probabilities[kept].sum() - probabilities[kept].min() < p + 1e-9
    assert probabilities[kept].min() >= probabilities[~kept].max(initial=0) - 1e-12


def test_repetition_penalty_lowers_what_was_said_whatever_its_sign():
    logits = np.array([[2.0, -2.0, 1.0, -1.0]])
    found = generation.penalize_repetition(logits, np.array([[0, 1, 0]]), 4.0)
    np.testing.assert_array_equal(found, [[0.5, -8.0, 1.0, -1.0]])
    np.testing.assert_array_equal(logits, [[2.0, -2.0, 1.0, -1.0]])


def test_a_large_repetition_penalty_prevents_repetition(model):
    tokens = generate(model, PROMPT, 3, repetition_penalty=1e9)[0, 5:].tolist()
    assert len({*tokens, *PROMPT[0].tolist()}) == 3 + 4


def test_no_new_tokens_gives_the_prompt(model):
    np.testing.assert_array_equal(generate(model, PROMPT, 0), PROMPT)


def test_generation_leaves_the_mode_of_the_model_as_it_was(model):
    model.train()
    generate(model, PROMPT, 2)
    assert model.training and model.blocks[0].training


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"input_ids": np.zeros((1, 0), int)}, r"integer input_ids \(B, T\) with B, T >= 1, got"),
        ({"input_ids": np.zeros((0, 5), int)}, r"B, T >= 1, got shape \(0, 5\) of int64; give at"),
        ({"input_ids": PROMPT / 2}, r"integer input_ids .*got shape \(1, 5\) of float64; give at"),
        ({"max_new_tokens": -1}, "expected max_new_tokens >= 0, got -1"),
        ({"temperature": 0.0}, "expected temperature > 0"),
        ({"top_k": 0}, "expected top_k >= 1"),
        ({"top_p": 1.5}, "expected 0 < top_p <= 1"),
        ({"repetition_penalty": 0.0}, "expected repetition_penalty > 0"),
        ({"do_sample": True}, "expected an rng to sample, got None; pass rng"),
        (
            {"num_return_sequences": 5},
            "do_sample=True for num_return_sequences=5, got do_",
        ),
    ],
)
def test_wrong_arguments_are_named_at_the_call(model, arguments, message):
    with pytest.raises(ValueError, match=message):
        generate(model, **{"input_ids": PROMPT, "max_new_tokens": 3, **arguments})


WAYS = [
    {},
    {"do_sample": True, "top_k": 9, "top_p": 0.9},
    {"num_beams": 3},
    {"num_beams": 3, "do_sample": True, "top_p": 0.9},
]


@pytest.mark.parametrize("how", WAYS)
def test_rules_that_leave_no_token_are_an_error(model, how):
    rng = np.random.default_rng(0)
    for rules in ({"bad_words_ids": [[token] for token in range(32)]}, {"no_repeat_ngram_size": 1}):
        with pytest.raises(ValueError, match="got rules that ban them all; loosen no_repeat"):
            generate(model, PROMPT, 40, rng=rng, **rules, **how)


@pytest.mark.parametrize("how", WAYS)
def test_a_text_that_has_ended_needs_no_token_that_may_come(model, how):
    other = np.full((1, 31), 5)
    once = {"no_repeat_ngram_size": 1, "return_dict": True, **how}
    free = generate(model, other, 6, rng=np.random.default_rng(0), **once)
    stop = min(set(range(32)) - set(free.sequences[0].tolist()))
    full = np.delete(np.arange(32), stop)[None]  # all but the stop token were said
    both = generate(
        *(model, np.concatenate([other, full]), 6),
        rng=np.random.default_rng(0),
        eos_token_id=stop,
        **once,
    )
    assert (both.sequences[1, 31:] == stop).all() and len(set(both.sequences[0, 31:].tolist())) > 1
    assert np.isfinite(both.sequences_scores).all() and both.scores[1].tolist()[1:] == [0] * 5


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 20), st.integers(1, 15))
def test_cached_equals_uncached_for_any_prompt(seed, length, new):
    model = tiny_model(seed=3, init_std=0.5).eval()
    prompt = np.random.default_rng(seed).integers(0, 32, (1, length))
    cached = generate(model, prompt, new, use_cache=True)
    np.testing.assert_array_equal(cached, generate(model, prompt, new, use_cache=False))
