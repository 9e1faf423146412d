"""GPT: GPT-2's formula, sizes and beginning."""

import math

import numpy as np
import pytest

from minilm.models.gpt import GPT, GPTConfig

SMALL = {"vocab_size": 13, "max_len": 10, "d_model": 12, "n_heads": 3, "n_layers": 2}
IDS = np.random.default_rng(0).integers(0, 13, (2, 8))


def make(**changes):
    return GPT(GPTConfig(**{**SMALL, **changes}), np.random.default_rng(0))


def gpt_by_formula(state, ids, n_heads, n_layers, eps=1e-5):
    """GPT-2 for one sequence in plain NumPy, from the paper and its figure of a block."""

    def layer(x, name):
        return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    def norm(x, name):
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + eps)
        return x * state[f"{name}.weight"] + state[f"{name}.bias"]

    def attention(x, name):
        q, k, v = (np.split(layer(x, f"{name}.{part}"), n_heads, axis=-1) for part in "qkv")
        heads = []
        for head in range(n_heads):
            scores = q[head] @ k[head].T / math.sqrt(q[head].shape[-1])
            weights = np.tril(np.exp(scores))
            heads.append(weights / weights.sum(-1, keepdims=True) @ v[head])
        return layer(np.concatenate(heads, axis=-1), f"{name}.out")

    def feed_forward(x, name):
        h = layer(x, f"{name}.up")
        h = 0.5 * h * (1 + np.tanh(math.sqrt(2 / math.pi) * (h + 0.044715 * h**3)))
        return layer(h, f"{name}.down")

    tokens = state["token_embedding.weight"]
    x = tokens[ids] + state["position_embedding.weight"][: len(ids)]
    for i in range(n_layers):
        x = x + attention(norm(x, f"blocks.{i}.norm1"), f"blocks.{i}.attention")
        x = x + feed_forward(norm(x, f"blocks.{i}.norm2"), f"blocks.{i}.feed_forward")
    return norm(x, "final_norm") @ state.get("head.weight", tokens).T


@pytest.mark.parametrize(
    "changes", [{}, {"n_heads": 1, "d_ff": 5, "layer_norm_eps": 0.1}, {"tie_embeddings": False}]
)
def test_logits_equal_the_formula_written_in_plain_numpy(changes):
    model, generator = make(**changes).astype(np.float64), np.random.default_rng(1)
    for p in model.parameters():
        p[...] = p.data + 0.3 * generator.normal(size=p.shape)
    c, state = model.config, model.state_dict()
    expected = [gpt_by_formula(state, i, c.n_heads, c.n_layers, c.layer_norm_eps) for i in IDS]
    np.testing.assert_allclose(model(IDS).logits.data, expected, rtol=0, atol=1e-12)


def count_by_formula(config):
    width, hidden = config.d_model, config.d_ff or 4 * config.d_model
    attention = 4 * (width * width + width)
    feed_forward = 2 * width * hidden + hidden + width
    block = attention + feed_forward + 2 * 2 * width  # two norms of gain and shift each
    embeddings = (config.vocab_size + config.max_len) * width
    return embeddings + config.n_layers * block + 2 * width


@pytest.mark.parametrize("changes", [{}, {"n_layers": 5, "max_len": 3}, {"d_ff": 7, "d_model": 6}])
def test_the_number_of_parameters_follows_from_the_configuration(changes):
    model = make(**changes)
    assert model.count_parameters() == count_by_formula(model.config)


def test_the_default_configuration_is_gpt2_with_124_439_808_parameters():
    assert count_by_formula(GPTConfig()) == 124_439_808


def test_the_output_embedding_is_the_input_embedding_one_parameter():
    model = make()
    names = [name for name, p in model.named_parameters() if p.shape == (13, 12)]
    assert names == ["token_embedding.weight"]
    model.token_embedding.weight[7] = 0.0
    assert not model(IDS).logits.data[..., 7].any()


def test_the_tied_embedding_gets_the_gradients_of_reading_and_of_writing():
    model, ids = make().astype(np.float64), np.array([[1, 2, 3]])
    model(ids, labels=ids).loss.backward()
    gradient = model.token_embedding.weight.grad
    assert gradient.any(axis=1).all()  # writing: every token's logit is part of the loss
    model.zero_grad()
    model(ids).logits[..., 5].sum().backward()
    rows = np.flatnonzero(gradient.any(axis=1) & model.token_embedding.weight.grad.any(axis=1))
    assert rows.tolist() == [1, 2, 3, 5]  # the three read, the one written


def test_matrices_begin_normal_and_those_that_write_to_the_residual_stream_smaller():
    model = make(d_model=96, n_layers=8, vocab_size=500, max_len=200)
    for name, p in model.named_parameters():
        if name.endswith(("attention.out.weight", "feed_forward.down.weight")):
            assert p.data.std() == pytest.approx(0.02 / math.sqrt(2 * 8), rel=0.04)
        elif p.ndim == 2:
            assert p.data.std() == pytest.approx(0.02, rel=0.04)
        elif "norm" in name and name.endswith("weight"):
            assert (p.data == 1).all()
        else:
            assert name.endswith("bias") and not p.data.any()


def test_the_residual_stream_of_a_new_model_does_not_grow_with_depth():
    spreads = []
    for n_layers in (1, 4, 16):
        model = make(n_layers=n_layers, d_model=48, init_std=0.1)
        x = model.token_embedding(IDS) + model.position_embedding(np.arange(8))
        for block in model.blocks:
            x = block(x, None, None, None)
        spreads.append(x.data.std())
    assert max(spreads) < 1.5 * min(spreads)


def test_what_stands_where_matters():
    model = make()
    same = model(np.full((1, 8), 3)).logits.data[0]
    assert all(not np.allclose(same[0], later, atol=1e-6) for later in same[1:])


def test_the_caches_hold_every_head():
    cache = make().new_caches(5)[0]
    assert cache.keys.shape == cache.values.shape == (5, 3, 10, 4) and cache.length == 0
