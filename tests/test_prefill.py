"""A prompt read in two parts at once is the prompt."""

import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from runs import tiny_model

from minilm import kernels, prefill
from minilm.generation import generate
from minilm.models.lstm import LSTMConfig, LSTMLanguageModel
from minilm.nn import KeyValueCache
from minilm.tensor import no_grad

MODELS = {
    "gpt": tiny_model("gpt", seed=1, init_std=0.5).eval(),
    "llama": tiny_model("llama", seed=1, init_std=0.5).eval(),
}


@pytest.fixture(autouse=True)
def two_parts(monkeypatch):
    """Whatever the machine and however short the prompt."""
    monkeypatch.setattr(prefill, "LONG", 2)
    monkeypatch.setattr(kernels, "cores", lambda: 2)


def read(model, ids, caches):
    with no_grad():
        return prefill.last_logits(model, ids, caches)


def whole(model, ids, caches):
    with no_grad():
        return model(ids, caches=caches).logits.data[:, -1]


@given(st.sampled_from(sorted(MODELS)), st.integers(1, 3), st.integers(0, 4), st.integers(2, 4))
def test_logits_and_caches_are_those_of_one_reading(name, rows, before, length):
    model, rng = MODELS[name], np.random.default_rng(length)
    ids = rng.integers(0, model.config.vocab_size, (rows, before + length))
    halves, alone = model.new_caches(rows), model.new_caches(rows)
    if before:
        whole(model, ids[:, :before], halves)
    found = read(model, ids[:, before:], halves)
    np.testing.assert_allclose(found, whole(model, ids, alone), rtol=1e-5, atol=1e-5)
    for cache, expected in zip(halves, alone, strict=True):
        assert cache.length == before + length
        for array, other in ((cache.keys, expected.keys), (cache.values, expected.values)):
            kept = slice(0, cache.length)
            np.testing.assert_allclose(array[:, :, kept], other[:, :, kept], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_the_text_goes_on_as_without_a_cache(name):
    prompts = np.random.default_rng(0).integers(0, 32, (2, 7))
    expected = generate(MODELS[name], prompts, 20, use_cache=False)
    assert generate(MODELS[name], prompts, 20).tolist() == expected.tolist()


def test_each_part_is_read_by_a_thread_of_its_own_with_one_thread_of_blas(monkeypatch):
    model, hidden, seen = MODELS["gpt"], MODELS["gpt"].hidden, []

    def noted(ids, *others):
        seen.append((ids.tolist(), threading.get_ident(), kernels.get_blas_threads()))
        return hidden(ids, *others)

    monkeypatch.setattr(model, "hidden", noted)
    read(model, np.array([[1, 2, 3, 4, 5]]), model.new_caches(1))
    first, second = sorted(seen)
    assert (first[0], second[0]) == ([[1, 2]], [[3, 4, 5]])
    assert first[1] == threading.get_ident() != second[1]
    assert {first[2], second[2]} <= {1, None}


@pytest.mark.parametrize("where", [0, -1])
def test_an_error_in_either_part_is_raised_and_nobody_waits_for_the_other(where):
    model, ids, raised = MODELS["gpt"], np.array([[1, 2, 3, 4, 5]]), []
    ids[0, where] = 99

    def attempt():
        try:
            read(model, ids, model.new_caches(1))
        except IndexError as error:
            raised.append(str(error))

    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(60)
    assert not thread.is_alive()
    assert len(raised) == 1 and "expected ids in 0..31, got" in raised[0]


def test_the_second_part_is_not_put_behind_a_first_that_is_not_there():
    cache = MODELS["gpt"].new_caches(1)[0]
    first = prefill._First(cache)
    second = prefill._Second(first, 3)
    first.is_there.set()
    keys = np.zeros((1, 2, 1, 4), np.float32)
    with pytest.raises(ValueError, match="expected 3 positions in the cache, got 0"):
        second.append(keys, keys)


def test_parts_that_a_single_thread_reads_come_in_order(monkeypatch):
    """As in a worker thread, which may not wait for another."""
    monkeypatch.setattr(kernels, "run_parallel", lambda jobs: [job() for job in jobs])
    model, ids = MODELS["llama"], np.array([[1, 2, 3, 4, 5]])
    found = read(model, ids, model.new_caches(1))
    np.testing.assert_allclose(found, whole(model, ids, None), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "why", ["no cache", "short", "one core", "many cores", "recurrent", "own cache"]
)
def test_otherwise_it_is_read_as_one(why, monkeypatch):
    model = MODELS["gpt"]
    if why == "recurrent":
        config = LSTMConfig(vocab_size=32, d_model=8)
        model = LSTMLanguageModel(config, np.random.default_rng(0)).eval()
    monkeypatch.setattr(prefill, "LONG", 6 if why == "short" else 2)
    monkeypatch.setattr(kernels, "cores", lambda: {"one core": 1, "many cores": 8}.get(why, 2))
    monkeypatch.setattr(prefill, "_in_two_parts", None)  # not to be called
    ids = np.array([[1, 2, 3, 4, 5]])
    caches = None if why == "no cache" else model.new_caches(1)
    if why == "own cache":
        caches[0].__class__ = type("Own", (KeyValueCache,), {})
    found = read(model, ids, caches)
    np.testing.assert_allclose(found, whole(model, ids, None), rtol=1e-5, atol=1e-5)
