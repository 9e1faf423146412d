"""Laws of beam search."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from runs import tiny_model

from minilm import beam, generation
from minilm.generation import generate
from minilm.logits import GenerationConfig
from minilm.nn import KeyValueCache
from minilm.tensor import no_grad

STOP, PAD, STOPS = 1, 0, [2, 6]  # the last two all four models write
FAMILIES = ["gpt", "llama", "t5", "transformer"]


def make(family, **fields):
    """A model in float64 whose next tokens are far from equally probable."""
    model = tiny_model(family, 3, **{"vocab_size": 11, "max_len": 16, **fields}).astype(np.float64)
    rng = np.random.default_rng(5)
    for p in model.parameters():
        p[...] = p.data + 0.4 * rng.normal(size=p.shape)
    return model.eval()


@pytest.fixture(params=FAMILIES)
def model(request):
    return make(request.param)


def prompts(count=3, length=4, vocabulary=11, seed=0):
    return np.random.default_rng(seed).integers(2, vocabulary, (count, length))


def is_causal(model):
    return not hasattr(model, "encoder")


def start(model, ids):
    """What the sequences begin with."""
    first = getattr(model.config, "decoder_start_token_id", None)
    return ids if is_causal(model) else np.full((len(ids), 1), first)


def logits_of(model, ids, sequences):
    """Of every position, all of a text through the model at once."""
    with no_grad():
        if is_causal(model):
            return model(sequences).logits.data
        return model(input_ids=ids, decoder_input_ids=sequences).logits.data


def log_probs_after(model, ids, text):
    return beam.log_softmax(logits_of(model, ids, np.array([text]))[:, -1])[0]


# --- What it finds ----------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["gpt", "t5"])
@pytest.mark.parametrize("length_penalty", [0.0, 1.0, -0.5])
@pytest.mark.parametrize("early_stopping", [False, "never"])
def test_with_enough_beams_it_is_exhaustive_enumeration(family, length_penalty, early_stopping):
    """Three tokens, four steps: 1 + 2 + 4 + 24 sequences that stop or are full."""
    model, ids = make(family, vocab_size=3), prompts(1, 3, 3)
    begin = start(model, ids)[0].tolist()
    scored = []
    for length in range(1, 5):
        for new in product(range(3), repeat=length):
            if STOP not in new[:-1] and (length == 4 or new[-1] == STOP):
                text = np.array([[*begin, *new]])
                log_probs = beam.log_softmax(logits_of(model, ids, text)[0])[-length - 1 : -1]
                total = sum(row[token] for row, token in zip(log_probs, new, strict=True))
                scored.append((total / length**length_penalty, [*begin, *new]))
    scored.sort(reverse=True)
    assert len(scored) == 31
    found = generate(
        *(model, ids, 4),
        num_beams=31,
        num_return_sequences=31,
        length_penalty=length_penalty,
        early_stopping=early_stopping,
        eos_token_id=STOP,
        pad_token_id=PAD,
        return_dict=True,
    )
    np.testing.assert_allclose(found.sequences_scores, [score for score, _ in scored], rtol=1e-9)
    for row, (_, text) in zip(found.sequences.tolist(), scored, strict=True):
        assert row == text + [PAD] * (len(begin) + 4 - len(text))


def test_one_beam_is_greedy_search(model):
    config = GenerationConfig(9, eos_token_id=STOP, pad_token_id=PAD)
    how = {"eos_token_id": STOP, "pad_token_id": PAD}
    run = generation._begin(model, prompts(), 9, None, None, True, how)
    found = beam.beam_search(run.context, run.tokens, run.process, config)
    expected = generate(model, prompts(), 9, return_dict=True, **how)
    np.testing.assert_array_equal(found.sequences, expected.sequences)
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-12)


def test_scores_are_the_log_probabilities_of_the_tokens_in_one_pass_over_the_sequence(model):
    how = {"num_beams": 4, "num_return_sequences": 3, "length_penalty": 0.7, "eos_token_id": STOP}
    ids = prompts()
    found = generate(model, ids, 9, **how, return_dict=True)
    begin = start(model, ids).shape[1]
    log_probs = beam.log_softmax(logits_of(model, np.repeat(ids, 3, axis=0), found.sequences))
    new = found.sequences[:, begin:]
    each = np.take_along_axis(log_probs[:, begin - 1 : -1], new[:, :, None], 2)[:, :, 0]
    real = found.beam_indices >= 0
    np.testing.assert_allclose(found.scores, np.where(real, each, 0), atol=1e-9)
    np.testing.assert_allclose(
        found.sequences_scores, found.scores.sum(1) / real.sum(1) ** 0.7, atol=1e-12
    )


@pytest.mark.parametrize("do_sample", [False, True])
def test_scores_of_greedy_search_and_sampling_are_log_probabilities_too(model, do_sample):
    ids, rng = prompts(), np.random.default_rng(0)
    found = generate(model, ids, 9, do_sample=do_sample, rng=rng, eos_token_id=3, return_dict=True)
    begin = start(model, ids).shape[1]
    log_probs = beam.log_softmax(logits_of(model, ids, found.sequences))[:, begin - 1 : -1]
    new = found.sequences[:, begin:]
    each = np.take_along_axis(log_probs, new[:, :, None], 2)[:, :, 0]
    behind = (new == 3).cumsum(1) - (new == 3) > 0
    np.testing.assert_allclose(found.scores, np.where(behind, 0, each), atol=1e-9)
    np.testing.assert_allclose(found.sequences_scores, found.scores.sum(1))


def test_beam_indices_lead_back_through_the_beams(model):
    """Of one prompt's sequences, those that were one beam up to some token are equal up to it."""
    found = generate(model, prompts(1), 8, num_beams=5, num_return_sequences=5, return_dict=True)
    begin = found.sequences.shape[1] - 8
    for a, b in product(range(5), repeat=2):
        for step in range(1, 8):
            if found.beam_indices[a, step] == found.beam_indices[b, step] >= 0:
                same = slice(0, begin + step)
                assert (found.sequences[a, same] == found.sequences[b, same]).all()


def test_more_beams_never_end_before_the_best_is_found_so_never_scores_at_least_as_well(model):
    calls = {}
    scores = {}
    how = {"num_beams": 3, "eos_token_id": STOPS, "length_penalty": 1.5, "return_dict": True}
    for stopping in (True, False, "never"):
        run = generation._begin(model, prompts(1), 12, None, None, True, {
            **{key: value for key, value in how.items() if key != "return_dict"},
            "early_stopping": stopping,
        })  # fmt: skip
        count = 0
        original = run.context.next_logits

        def counted(tokens, original=original):
            nonlocal count
            count += 1
            return original(tokens)

        run.context.next_logits = counted
        found = beam.beam_search(run.context, run.tokens, run.process, run.config)
        calls[stopping], scores[stopping] = count, found.sequences_scores[0]
    assert calls[True] <= calls[False] <= calls["never"]
    assert scores[True] <= scores[False] <= scores["never"]


def test_every_prompt_is_searched_as_if_alone(model):
    ids = prompts(4)
    how = {"num_beams": 3, "num_return_sequences": 2, "eos_token_id": STOPS, "pad_token_id": PAD}
    together = generate(model, ids, 9, **how)
    for i, row in enumerate(ids):
        alone = generate(model, row[None], 9, **how)
        width = alone.shape[1]
        np.testing.assert_array_equal(together[2 * i : 2 * i + 2, :width], alone)
        assert (together[2 * i : 2 * i + 2, width:] == PAD).all()


def test_a_prompts_sequences_are_different_and_sorted_by_score(model):
    found = generate(model, prompts(), 6, num_beams=5, num_return_sequences=5, return_dict=True)
    for rows, scores in zip(
        found.sequences.reshape(3, 5, -1), found.sequences_scores.reshape(3, 5), strict=True
    ):
        assert len({tuple(row) for row in rows.tolist()}) == 5
        assert (np.diff(scores) <= 0).all()


def test_behind_a_stop_token_stands_padding_and_nothing_before_it(model):
    found = generate(
        *(model, prompts(8), 9),
        num_beams=4,
        num_return_sequences=4,
        eos_token_id=STOPS,
        pad_token_id=7,
        length_penalty=0.0,
        return_dict=True,
    )
    begin = start(model, prompts()).shape[1]
    lengths = (found.beam_indices >= 0).sum(1)
    assert len(set(lengths.tolist())) > 1
    for row, length in zip(found.sequences[:, begin:].tolist(), lengths, strict=True):
        assert not set(STOPS) & set(row[: length - 1])
        assert length == 9 or row[length - 1] in STOPS
        assert set(row[length:]) <= {7}


def test_where_fewer_sequences_exist_the_rest_have_score_minus_infinity():
    model, ids = make("gpt", vocab_size=3), prompts(1, 3, 3)
    found = generate(model, ids, 1, num_beams=5, num_return_sequences=5, return_dict=True)
    assert sorted(found.sequences[:3, -1].tolist()) == [0, 1, 2]
    assert np.isfinite(found.sequences_scores).tolist() == [True] * 3 + [False] * 2


# --- Rules ------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_beams", [1, 4])
def test_rules_hold_in_whatever_is_generated(model, num_beams):
    found = generate(
        *(model, prompts(), 10),
        num_beams=num_beams,
        no_repeat_ngram_size=2,
        bad_words_ids=[[4], [5, 6], [7, 8, 9]],
        eos_token_id=STOP,
        min_new_tokens=6,
        forced_bos_token_id=3,
        forced_eos_token_id=STOP,
    )
    begin = start(model, prompts()).shape[1]
    for row in found.tolist():
        row, new = row[: begin + (row[begin:].index(STOP)) + 1], row[begin:]
        bigrams = list(zip(row, row[1:], strict=False))
        later = bigrams[begin:-1]  # the first and the last new token are forced
        assert not any(pair in bigrams[: begin + i] for i, pair in enumerate(later))
        assert new[0] == 3 and 4 not in new[1:] and (5, 6) not in later
        assert new.index(STOP) >= 6


def test_a_large_repetition_penalty_prevents_repetition(model):
    how = {"num_beams": 3, "repetition_penalty": 1e9, "eos_token_id": None}
    found = generate(model, prompts(), 5, **how)
    for row, ids in zip(found.tolist(), start(model, prompts()).tolist(), strict=True):
        assert len(set(row)) == len(set(ids)) + 5


# --- Caches -----------------------------------------------------------------------------------


HOW = [
    {},
    {"num_beams": 4, "num_return_sequences": 2},
    {"num_beams": 4, "eos_token_id": STOPS, "early_stopping": True, "repetition_penalty": 1.3},
    {"num_beams": 4, "do_sample": True, "temperature": 2.0},
    {"do_sample": True, "num_return_sequences": 3},
    {"num_beams": 6, "num_beam_groups": 3, "diversity_penalty": 1.0, "num_return_sequences": 6},
]


@pytest.mark.parametrize("how", HOW)
def test_cached_search_equals_uncached(model, how):
    def run(use_cache):
        rng = np.random.default_rng(1)
        found = generate(
            *(model, prompts(), 10), rng=rng, use_cache=use_cache, return_dict=True, **how
        )
        return found.sequences.tolist(), found.scores

    (cached, a), (uncached, b) = run(True), run(False)
    assert cached == uncached
    np.testing.assert_allclose(a, b, atol=1e-9)


@pytest.mark.parametrize("family", ["gpt", "llama"])
def test_cached_search_equals_uncached_beyond_the_context_window(family):
    """The window holds 6 tokens; 25 more make it slide many times."""
    model = make(family, max_len=6)
    found = [generate(model, prompts(), 25, num_beams=4, use_cache=cache) for cache in (0, 1)]
    np.testing.assert_array_equal(*found)


@pytest.mark.parametrize("family", ["t5", "transformer"])
@pytest.mark.parametrize("how", HOW[:3])
@pytest.mark.parametrize("use_cache", [True, False])
def test_padding_in_the_source_changes_nothing(family, how, use_cache):
    model, ids = make(family), prompts(2, 6)
    mask = np.array([[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0]])
    both = generate(model, ids, 8, attention_mask=mask, use_cache=use_cache, **how)
    alone = generate(model, ids[1:, :3], 8, use_cache=use_cache, **how)
    rows = both[len(both) // 2 :, : alone.shape[1]]
    np.testing.assert_array_equal(rows, alone)


@pytest.mark.parametrize("how", [HOW[1], HOW[4]])
def test_the_source_is_read_once_and_its_keys_are_kept_once_a_prompt(how, monkeypatch):
    model, calls = make("t5"), []
    encode = model.encode
    monkeypatch.setattr(model, "encode", lambda *given: calls.append(given) or encode(*given))
    made = []
    new_caches = model.new_caches
    monkeypatch.setattr(
        model, "new_caches", lambda *given: made.append(new_caches(*given)) or made[-1]
    )
    generate(model, prompts(), 6, rng=np.random.default_rng(0), **how)
    assert len(calls) == len(made) == 1
    assert {len(source.keys) for source in made[0].sources} == {3}
    assert {len(layer.keys) for layer in made[0].layers} == {3 * how.get("num_beams", 3)}


@given(st.lists(st.integers(0, 4), min_size=1, max_size=8), st.integers(0, 3))
def test_reordering_a_cache_takes_each_row_from_where_it_was(rows, begin):
    cache = KeyValueCache(5, 2, 6, 3)
    data = np.random.default_rng(0).normal(size=(2, 5, 2, 4, 3)).astype(np.float32)
    data[:, :, :, :begin] = data[:, :1, :, :begin]  # what is said to be equal
    cache.append(*data)
    cache.reorder(np.array(rows), begin)
    new = np.ones((2, len(rows), 2, 1, 3), np.float32)
    keys, values = cache.append(*new)
    np.testing.assert_array_equal(keys[:, :, :4], data[0][rows])
    np.testing.assert_array_equal(values[:, :, :4], data[1][rows])
    assert keys.shape == (len(rows), 2, 5, 3)


def test_reordering_copies_nothing_that_did_not_move_or_stands_before_the_difference():
    cache = KeyValueCache(3, 1, 4, 1)
    cache.append(*np.arange(24.0, dtype=np.float32).reshape(2, 3, 1, 4, 1))
    before = cache.keys.copy()
    keys = cache.keys
    cache.reorder(np.array([0, 0, 2]), 2)
    assert cache.keys is keys
    np.testing.assert_array_equal(cache.keys[[0, 2]], before[[0, 2]])
    np.testing.assert_array_equal(cache.keys[1, 0, :, 0], [4, 5, 2, 3])


TEXTS = np.array([[[1, 2, 3, 4], [1, 2, 5, 6]], [[1, 7, 3, 4], [1, 7, 3, 9]]])  # (S, n, T)


@pytest.mark.parametrize(
    ("tokens", "beams", "heard"),
    [
        (TEXTS, [[0, 1], [0, 1]], []),
        (TEXTS, [[0, 0], [0, 1]], [([0, 0, 2, 3], 2)]),
        (TEXTS, [[0, 1], [1, 0]], [([0, 1, 3, 2], 3)]),
        (TEXTS, [[1, 0], [1, 1]], [([1, 0, 3, 3], 2)]),
        (TEXTS[:, [0, 0]], [[1, 0], [1, 1]], []),
        (TEXTS[:, :1], [[0, 0], [0, 0]], [([0, 0, 1, 1], 0)]),
    ],
)
def test_the_context_hears_which_texts_moved_and_how_far_they_agree_and_nothing_if_none(
    tokens, beams, heard
):
    class Listener:
        def reorder(self, rows, same):
            calls.append((rows.tolist(), same))

    calls = []
    beam._reorder(Listener(), tokens, np.array(beams))
    assert calls == heard


# --- Drawn beams ------------------------------------------------------------------------------


def test_the_same_seed_draws_the_same_beams_and_another_seed_others(model):
    def run(seed):
        rng = np.random.default_rng(seed)
        how = {"num_beams": 4, "num_return_sequences": 4, "do_sample": True, "temperature": 2.0}
        return generate(model, prompts(), 8, rng=rng, **how).tolist()

    assert run(1) == run(1) != run(2)


def test_candidates_are_drawn_without_replacement_with_their_probabilities():
    """Pairs of four; chi-squared with 5 degrees of freedom, 0.999 quantile."""
    p = np.array([0.4, 0.3, 0.2, 0.1])
    many = np.broadcast_to(np.log(p), (20_000, 1, 4))
    found = beam._best(np.zeros((20_000, 1)), many, 2, np.random.default_rng(0))
    low, high = np.sort(found.token, 1).T
    statistic = 0.0
    for a in range(4):
        for b in range(a + 1, 4):
            expected = 20_000 * p[a] * p[b] * (1 / (1 - p[a]) + 1 / (1 - p[b]))
            statistic += (((low == a) & (high == b)).sum() - expected) ** 2 / expected
    assert statistic < 20.5
    assert (np.diff(found.total) <= 0).all()


def test_drawing_at_low_temperature_is_plain_beam_search(model):
    """Divided by a temperature of 1e-3, differences of log-probabilities outweigh all noise."""
    plain = generate(model, prompts(), 6, num_beams=3)
    rng = np.random.default_rng(0)
    drawn = generate(model, prompts(), 6, num_beams=3, do_sample=True, temperature=1e-3, rng=rng)
    np.testing.assert_array_equal(drawn, plain)


# --- Groups -----------------------------------------------------------------------------------


def diverse_search(model, ids, steps, groups, width, penalty):
    """Vijayakumar et al. 2016, algorithm 1, loop by loop; no length normalisation."""
    begin = start(model, ids)[0].tolist()
    running = [[(0.0, begin)] for _ in range(groups)]
    finished = [[] for _ in range(groups)]
    ended = [False] * groups
    for step in range(1, steps + 1):
        taken = dict.fromkeys(range(model.config.vocab_size), 0)
        for group in range(groups):
            if ended[group]:
                continue
            candidates = []
            for total, text in running[group]:
                log_probs = log_probs_after(model, ids, text)
                for token, count in taken.items():
                    candidates.append((total + log_probs[token] - penalty * count, [*text, token]))
            candidates.sort(reverse=True, key=lambda pair: pair[0])
            for score, text in candidates[:width]:
                if text[-1] == STOP or step == steps:
                    finished[group].append((score, text))
            finished[group] = sorted(finished[group], reverse=True)[:width]
            running[group] = [c for c in candidates if c[1][-1] != STOP][:width]
            for _, text in running[group]:
                taken[text[-1]] += 1
            full = len(finished[group]) == width
            ended[group] = full and running[group][0][0] <= finished[group][-1][0]
    return [(score, text) for group in finished for score, text in group]


@pytest.mark.parametrize("family", ["gpt", "t5"])
@pytest.mark.parametrize(("groups", "width"), [(2, 1), (2, 2), (3, 2)])
@pytest.mark.parametrize("penalty", [0.3, 2.0])
def test_diverse_search_equals_the_papers_algorithm_written_as_loops(
    family, groups, width, penalty
):
    model, ids = make(family, vocab_size=7), prompts(2, 3, 7)
    beams = groups * width
    how = {"eos_token_id": STOP, "pad_token_id": PAD, "length_penalty": 0.0}
    found = generate(
        *(model, ids, 5),
        num_beams=beams,
        num_return_sequences=beams,
        num_beam_groups=groups,
        diversity_penalty=penalty,
        return_dict=True,
        **how,
    )
    for i in range(2):
        expected = diverse_search(model, ids[i : i + 1], 5, groups, width, penalty)
        rows = slice(i * beams, (i + 1) * beams)
        scores, texts = found.sequences_scores[rows], found.sequences[rows]
        padded = [text + [PAD] * (texts.shape[1] - len(text)) for _, text in expected]
        assert sorted(map(tuple, padded)) == sorted(map(tuple, texts.tolist()))
        np.testing.assert_allclose(scores, sorted((s for s, _ in expected), reverse=True))


def test_groups_without_a_penalty_are_equal_searches(model):
    how = {"eos_token_id": STOPS, "pad_token_id": PAD}
    one = generate(model, prompts(), 8, num_beams=2, num_return_sequences=2, **how)
    three = generate(
        model, prompts(), 8, num_beams=6, num_return_sequences=6, num_beam_groups=3, **how
    )
    np.testing.assert_array_equal(three, np.repeat(one, 3, axis=0))


def test_a_large_penalty_makes_groups_of_one_beam_differ_at_every_step(model):
    found = generate(
        *(model, prompts(), 8),
        num_beams=3,
        num_return_sequences=3,
        num_beam_groups=3,
        diversity_penalty=1e3,
        eos_token_id=None,
    )
    for rows in found.reshape(3, 3, -1)[:, :, -8:]:
        assert all(len(set(column)) == 3 for column in rows.T.tolist())


# --- Calls ------------------------------------------------------------------------------------


def test_an_encoder_decoder_gives_what_its_decoder_writes_after_the_start_token(model):
    if is_causal(model):
        model = make("t5", decoder_start_token_id=6)
    ids = prompts()
    found = generate(model, ids, 9)
    first, stop, pad = (
        getattr(model.config, f"{name}_token_id") for name in ("decoder_start", "eos", "pad")
    )
    assert (found[:, 0] == first).all()
    for row, source in zip(found.tolist(), ids, strict=True):
        text = [first]
        while len(text) < len(row):
            token = int(log_probs_after(model, source[None], text).argmax())
            text.append(pad if stop in text[1:] else token)
        assert row == text


def test_an_encoder_decoder_streams_what_it_generates():
    model = make("transformer")
    steps = generation.stream(model, prompts(), 7, eos_token_id=None)
    np.testing.assert_array_equal(
        generate(model, prompts(), 7, eos_token_id=None)[:, 1:], np.stack(list(steps), 1)
    )


def test_no_new_tokens_gives_the_prompt(model):
    for beams in (1, 3):
        found = generate(model, prompts(), 0, num_beams=beams)
        np.testing.assert_array_equal(found, start(model, prompts()))


def test_dropout_is_off_and_the_mode_is_as_it_was():
    model = make("t5", dropout=0.5).train()
    model.decoder.eval()
    with_dropout = generate(model, prompts(), 7, num_beams=3)
    assert model.training and model.encoder.training and not model.decoder.training
    np.testing.assert_array_equal(with_dropout, generate(make("t5"), prompts(), 7, num_beams=3))


@pytest.mark.parametrize(
    ("family", "arguments", "message"),
    [
        ("gpt", {"attention_mask": np.zeros((3, 4))}, "an attention_mask of ones for a causal mod"),
        ("t5", {"attention_mask": np.ones((3, 5))}, "expected attention_mask of shape"),
        ("t5", {"max_new_tokens": 17}, "expected max_new_tokens <= the model's max_len = 16"),
        ("gpt", {"num_beams": 2, "do_sample": True}, "expected an rng to sample"),
        ("t5", {"num_return_sequences": 5}, "do_sample=True for num_return_sequences=5, got do"),
        ("t5", {"forced_bos_token_id": 11}, "forced_bos_token_id below vocab_size = 11, got 11"),
    ],
)
def test_wrong_arguments_are_named(family, arguments, message):
    with pytest.raises(ValueError, match=message):
        generate(make(family), **{"input_ids": prompts(), "max_new_tokens": 3, **arguments})


def test_a_beam_search_cannot_be_streamed():
    with pytest.raises(ValueError, match="expected num_beams=1 to stream, got 2"):
        generation.stream(make("gpt"), prompts(), 3, num_beams=2)


@settings(max_examples=10)
@given(st.integers(0, 2**32), st.integers(2, 5), st.integers(1, 8))
def test_cached_search_equals_uncached_for_any_prompt(seed, beams, new):
    model, ids = make("t5"), prompts(2, 5, seed=seed)
    found = [generate(model, ids, new, num_beams=beams, use_cache=cache) for cache in (0, 1)]
    np.testing.assert_array_equal(*found)


@pytest.mark.parametrize("vocabulary", [3, 47, 48, 300, 512, 1000])
@pytest.mark.parametrize("kind", ["normal", "ties", "mostly banned"])
def test_the_largest_of_a_row_are_found_in_groups(vocabulary, kind):
    rng = np.random.default_rng(0)
    for k in (1, 2, 3):
        x = rng.normal(size=(5, vocabulary))
        if kind == "ties":
            x = rng.integers(0, 4, x.shape).astype(float)
        elif kind == "mostly banned":
            x[rng.random(x.shape) < 0.95] = -np.inf
        found = beam._largest(x, k)
        assert found.shape == (5, k) and all(len({*row}) == k for row in found.tolist())
        values = np.sort(np.take_along_axis(x, found, 1), axis=1)
        np.testing.assert_array_equal(values, np.sort(x, axis=1)[:, -k:])
