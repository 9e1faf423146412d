"""Llama: the decoder as it is built today, formula, sizes and beginning."""

import math

import numpy as np
import pytest

from minilm.models.llama import Llama, LlamaConfig
from minilm.tensor import Tensor, no_grad

SMALL = {"vocab_size": 13, "max_len": 10, "d_model": 24, "n_heads": 6, "n_layers": 2}
IDS = np.random.default_rng(0).integers(0, 13, (2, 8))


def make(**changes):
    return Llama(LlamaConfig(**{**SMALL, **changes}), np.random.default_rng(0))


def randomized(**changes):
    model, generator = make(**changes).astype(np.float64), np.random.default_rng(1)
    for p in model.parameters():
        p[...] = p.data + 0.3 * generator.normal(size=p.shape)
    return model


def llama_by_formula(state, ids, config):
    """Llama for one sequence in plain NumPy, rotations as complex numbers."""
    heads, width = config.n_heads, config.d_kv or config.d_model // config.n_heads
    group = heads // (config.n_kv_heads or heads)
    positions, half = np.arange(len(ids))[:, None], width // 2
    turns = np.exp(1j * positions * config.rope_theta ** (-2 * np.arange(half) / width))

    def norm(x, name):
        return state[name] * x / np.sqrt((x * x).mean(-1, keepdims=True) + config.norm_eps)

    def turn(x):
        pairs = (x[:, :half] + 1j * x[:, half:]) * turns
        return np.concatenate([pairs.real, pairs.imag], axis=-1)

    def attention(x, name):
        def head(part, i):
            return x @ state[f"{name}.{part}.weight"][i * width : (i + 1) * width].T

        outputs = []
        for i in range(heads):
            q, k, v = head("q", i), head("k", i // group), head("v", i // group)
            if config.qk_norm:
                q, k = norm(q, f"{name}.q_norm.weight"), norm(k, f"{name}.k_norm.weight")
            weights = np.tril(np.exp(turn(q) @ turn(k).T / math.sqrt(width)))
            outputs.append(weights / weights.sum(-1, keepdims=True) @ v)
        return np.concatenate(outputs, axis=-1) @ state[f"{name}.out.weight"].T

    def feed_forward(x, name):
        gate, up = (x @ state[f"{name}.{part}.weight"].T for part in ("gate", "up"))
        return gate / (1 + np.exp(-gate)) * up @ state[f"{name}.down.weight"].T

    x = state["token_embedding.weight"][ids]
    for i in range(config.n_layers):
        x = x + attention(norm(x, f"blocks.{i}.norm1.weight"), f"blocks.{i}.attention")
        x = x + feed_forward(norm(x, f"blocks.{i}.norm2.weight"), f"blocks.{i}.feed_forward")
    head = "token_embedding.weight" if config.tie_embeddings else "head.weight"
    return norm(x, "final_norm.weight") @ state[head].T


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"n_kv_heads": 2, "tie_embeddings": True},
        {"n_kv_heads": 1, "d_ff": 5, "norm_eps": 0.1, "rope_theta": 100.0},
        {"qk_norm": True, "n_kv_heads": 3, "norm_eps": 0.1},
        {"d_kv": 6, "n_kv_heads": 3, "n_heads": 9},
    ],
)
def test_logits_equal_the_formula_written_in_plain_numpy(changes):
    model = randomized(**changes)
    expected = [llama_by_formula(model.state_dict(), row, model.config) for row in IDS]
    np.testing.assert_allclose(model(IDS).logits.data, expected, rtol=0, atol=1e-12)


def test_caches_are_as_wide_as_the_heads():
    model = randomized(d_kv=6, n_kv_heads=2)
    caches = model.new_caches(2)
    assert caches[0].keys.shape == (2, 2, 10, 6)
    with no_grad():
        parts = [model(IDS[:, at : at + 2], caches=caches).logits.data for at in range(0, 8, 2)]
    np.testing.assert_allclose(np.concatenate(parts, 1), model(IDS).logits.data, atol=1e-12)


@pytest.mark.parametrize(
    "changes",
    [{}, {"n_kv_heads": 2}, {"tie_embeddings": True}, {"qk_norm": True, "d_ff": 7, "n_layers": 3}],
)
def test_the_number_of_parameters_follows_from_the_configuration(changes):
    model = make(**changes)
    c, head_width = model.config, 4
    kv_width = (c.n_kv_heads or c.n_heads) * head_width
    attention = 2 * 24 * 24 + 2 * 24 * kv_width + 2 * head_width * c.qk_norm
    block = attention + 3 * 24 * c.hidden_width + 2 * 24
    embeddings = 13 * 24 * (1 if c.tie_embeddings else 2)
    assert model.count_parameters() == embeddings + c.n_layers * block + 24


@pytest.mark.parametrize(
    ("d_model", "expected"), [(128, 352), (96, 256), (4096, 10944), (12, 32), (97, 288)]
)
def test_the_hidden_width_is_eight_thirds_rounded_up_to_a_multiple_of_32(d_model, expected):
    config = LlamaConfig(d_model=d_model, n_heads=1)
    assert config.hidden_width == expected == math.ceil(8 * d_model / 3 / 32) * 32
    assert LlamaConfig(d_model=d_model, n_heads=1, d_ff=5).hidden_width == 5


def test_tied_embeddings_are_one_parameter_and_untied_ones_two():
    tied, untied = make(tie_embeddings=True), make()
    assert "head.weight" not in tied.state_dict() and "head.weight" in untied.state_dict()
    for model, zero in ((tied, True), (untied, False)):
        model.token_embedding.weight[7] = 0.0
        assert bool(model(IDS).logits.data[..., 7].any()) is not zero


def test_there_are_no_biases():
    assert not [name for name in make(qk_norm=True).state_dict() if "bias" in name]


def test_with_zero_init_every_block_is_the_identity():
    model = make(zero_init=True)
    x = Tensor(np.random.default_rng(0).normal(size=(2, 8, 24)).astype(np.float32))
    for block in model.blocks:
        assert np.array_equal(block(x, None, None, None).data, x.data)
    expected = model.project(model.final_norm(model.token_embedding(IDS)))
    assert np.array_equal(model(IDS).logits.data, expected.data)


def test_with_zero_init_the_zeros_learn_in_the_first_step_and_the_rest_after_it():
    model = make(zero_init=True)
    model(IDS, labels=IDS).loss.backward()
    moving = {name for name, p in model.named_parameters() if p.grad.any()}
    written = {
        f"blocks.{i}.{name}" for i in range(2) for name in ("attention.out", "feed_forward.down")
    }
    assert moving == {
        *("token_embedding.weight", "final_norm.weight", "head.weight"),
        *(f"{name}.weight" for name in written),
    }


def test_without_zero_init_matrices_begin_normal_with_one_deviation_and_gains_at_one():
    model = make(d_model=96, vocab_size=500, init_std=0.05, qk_norm=True)
    for p in model.parameters():
        if p.ndim == 2:
            assert p.data.std() == pytest.approx(0.05, rel=0.04)
        else:
            assert (p.data == 1).all()


def test_prepending_padding_changes_nothing_since_only_distances_are_seen():
    model = randomized(n_kv_heads=2)
    plain = model(IDS).logits.data
    for extra in (1, 2):
        ids = np.pad(IDS, ((0, 0), (extra, 0)), constant_values=5)
        mask = np.pad(np.ones(IDS.shape, bool), ((0, 0), (extra, 0)))
        moved = model(ids, attention_mask=mask).logits.data[:, extra:]
        np.testing.assert_allclose(moved, plain, rtol=0, atol=1e-12)


def test_the_caches_hold_only_the_shared_key_heads():
    cache = make(n_kv_heads=2).new_caches(5)[0]
    assert cache.keys.shape == cache.values.shape == (5, 2, 10, 4) and cache.length == 0
    assert make().new_caches(5)[0].keys.shape == (5, 6, 10, 4)


def test_all_blocks_share_one_table_of_rotations():
    first, second = make().blocks
    assert first.attention.rotary is second.attention.rotary


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_kv_heads": 4}, "n_kv_heads to divide n_heads, got .* n_heads 6, n_kv_heads 4"),
        ({"n_kv_heads": 0}, "n_kv_heads to be a whole number >= 1, got 0"),
        ({"n_heads": 8}, "expected an even head width, got 3"),
    ],
)
def test_heads_that_cannot_be_are_an_error(changes, message):
    with pytest.raises(ValueError, match=message):
        make(**changes)
