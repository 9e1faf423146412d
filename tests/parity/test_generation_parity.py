"""Decoding gives the tokens that transformers gives, from the same weights, whatever is asked for.

Both compute in float64, so that rounding decides between no two candidates; only inside its beam
search does transformers round log-probabilities to float32.
"""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra: pip install minilm[parity]")
pytest.importorskip("transformers", reason="needs the extra: pip install minilm[parity]")

from parity.test_models_parity import make_gpt  # noqa: E402
from parity.test_seq2seq_parity import make_t5  # noqa: E402
from transformers.generation import logits_process as warpers  # noqa: E402

from minilm import generation  # noqa: E402
from minilm.generation import generate  # noqa: E402

V, NEW, PAD, STOP = 37, 9, 2, 1
BEAMS = {"num_beams": 4}
STRATEGIES = {
    "greedy": {},
    "greedy, rules": {
        **{"repetition_penalty": 1.4, "no_repeat_ngram_size": 2, "min_new_tokens": 3},
        "bad_words_ids": [[5], [7, 8], [9, 3], [4, 4, 6]],
    },
    "greedy, several stop tokens": {"eos_token_id": [1, 9, 20]},
    "4 beams": BEAMS,
    "4 beams, early": {**BEAMS, "early_stopping": True},
    "4 beams, never early": {**BEAMS, "early_stopping": "never"},
    "all of 5 beams": {"num_beams": 5, "num_return_sequences": 5},
    "all of 5 beams, early": {"num_beams": 5, "num_return_sequences": 5, "early_stopping": True},
    "length penalty 0": {**BEAMS, "length_penalty": 0.0},
    "length penalty 2": {**BEAMS, "length_penalty": 2.0, "num_return_sequences": 2},
    "length penalty 2, never early": {**BEAMS, "length_penalty": 2.0, "early_stopping": "never"},
    "length penalty -1": {**BEAMS, "length_penalty": -1.0},
    "length penalty -1, never early": {**BEAMS, "length_penalty": -1.0, "early_stopping": "never"},
    "no repeated bigram": {**BEAMS, "no_repeat_ngram_size": 2},
    "no repeated token": {**BEAMS, "no_repeat_ngram_size": 1},
    "no repeated trigram": {"num_beams": 3, "no_repeat_ngram_size": 3},
    "repetition penalty": {**BEAMS, "repetition_penalty": 1.5},
    "repetition reward": {**BEAMS, "repetition_penalty": 0.8},
    "4 new tokens at least": {**BEAMS, "min_new_tokens": 4},
    "bad words": {**BEAMS, "bad_words_ids": [[5], [6], [7, 8], [9, 3], [4, 4, 6], [30, 31]]},
    "several stop tokens": {**BEAMS, "eos_token_id": [1, 9, 20], "num_return_sequences": 4},
    "forced end": {**BEAMS, "forced_eos_token_id": 1},
    "greedy, forced end": {"forced_eos_token_id": 1},
    "all together": {
        **{"num_beams": 4, "num_return_sequences": 3, "repetition_penalty": 1.2},
        **{"no_repeat_ngram_size": 3, "min_new_tokens": 2, "bad_words_ids": [[5], [7, 8]]},
        **{"length_penalty": 0.7, "early_stopping": True, "forced_eos_token_id": 1},
    },
}
every_strategy = pytest.mark.parametrize("how", STRATEGIES.values(), ids=STRATEGIES)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """For sizes this small, threads cost far more than they save."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def gpts():
    return make_gpt(np.float64)[:2]


@pytest.fixture(scope="module")
def t5s():
    return make_t5(np.float64)[:2]


def both(models, how, ids, mask=None):
    """What both models give: their tokens, and of a beam search the scores."""
    how = {"eos_token_id": STOP, "pad_token_id": PAD, "max_new_tokens": NEW, **how}
    ours, theirs = models
    left = generate(ours, ids, attention_mask=mask, return_dict=True, **how)
    asked = {"return_dict_in_generate": True, "output_scores": True, "do_sample": False}
    mask = np.ones_like(ids) if mask is None else mask
    right = theirs.generate(
        torch.from_numpy(ids), attention_mask=torch.from_numpy(mask), **how, **asked
    )
    return left, right


def assert_equal(models, how, ids, mask=None):
    """The same tokens and scores; the sequences, for a look at them."""
    left, right = both(models, how, ids, mask)
    np.testing.assert_array_equal(left.sequences, right.sequences.numpy())
    if "num_beams" not in how:
        return left.sequences
    # Theirs are float32, and of sums of up to 9 log-probabilities of about -3 each.
    expected = right.sequences_scores.numpy()
    np.testing.assert_allclose(left.sequences_scores, expected, rtol=1e-5, atol=1e-5)
    indices = right.beam_indices.numpy()
    np.testing.assert_array_equal(left.beam_indices, indices)
    each = models[1].compute_transition_scores(right.sequences, right.scores, right.beam_indices)
    np.testing.assert_allclose(left.scores, each.numpy(), rtol=1e-5, atol=1e-5)
    return left.sequences


def assert_ends_differ(sequences, how):
    """A test in which all sequences, or none, stop early would not see much."""
    if "forced_eos_token_id" not in how:
        ended = np.isin(sequences[:, -NEW:], how.get("eos_token_id", STOP)).any(1)
        assert 0.02 < ended.mean() < 1


@every_strategy
def test_200_prompts_are_continued_as_by_transformers_gpt_2(gpts, how):
    rng = np.random.default_rng(3)
    found = [
        assert_equal(gpts, how, rng.integers(0, V, (40, length))) for length in (1, 2, 4, 5, 8)
    ]
    assert_ends_differ(np.concatenate([s[:, -NEW:] for s in found if s.shape[1] > NEW]), how)


@every_strategy
def test_200_padded_sources_are_answered_as_by_transformers_t5(t5s, how):
    rng = np.random.default_rng(4)
    ids = rng.integers(1, V, (200, 12))
    mask = (np.arange(12) < rng.integers(1, 13, (200, 1))).astype(int)
    found = [assert_equal(t5s, how, ids[i : i + 50], mask[i : i + 50]) for i in range(0, 200, 50)]
    assert max(s.shape[1] for s in found) <= NEW + 1


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p"),
    [(0.7, None, None), (1.0, 5, None), (1.0, None, 0.6), (1.8, 12, 0.9), (0.4, 30, 0.99)],
)
def test_drawing_is_from_what_the_warpers_of_transformers_leave(temperature, top_k, top_p):
    logits = np.random.default_rng(6).normal(0, 3, (200, V))
    if top_p is None:  # of equal ones both keep all; which are within top_p is left to the sort
        logits = logits.round(1)
    theirs = warpers.TemperatureLogitsWarper(temperature)(None, torch.from_numpy(logits))
    if top_k is not None:
        theirs = warpers.TopKLogitsWarper(top_k)(None, theirs)
    if top_p is not None:
        theirs = warpers.TopPLogitsWarper(top_p)(None, theirs)
    seen = np.zeros((200, 0), int)
    ours = generation._process(logits, seen, True, temperature, top_k, top_p, 1.0)
    np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-14)


@pytest.mark.parametrize("how", [{}, BEAMS, {**BEAMS, "forced_eos_token_id": 1}])
def test_a_forced_first_token_is_that_of_transformers(gpts, t5s, how):
    """Theirs is forced where one token stands before it."""
    how = {**how, "forced_bos_token_id": 11}
    ids = np.random.default_rng(5).integers(0, V, (100, 1))
    assert (assert_equal(gpts, how, ids)[:, 1] == 11).all()
    assert (assert_equal(t5s, how, np.maximum(ids, 1))[:, 1] == 11).all()
