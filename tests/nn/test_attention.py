"""Multi-head attention is the paper's formula; decoding with a cache changes nothing."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nn.gradients import check_gradients

from minilm import functional as F
from minilm.attention import attention_weights
from minilm.nn import KeyValueCache, KeyValues, MultiHeadAttention, Rotary, attention
from minilm.tensor import Tensor, join_heads, no_grad, split_heads

B, T, S, C, H = 2, 5, 7, 12, 6
D = C // H

VARIANTS = {
    "plain": {},
    "causal": {"causal": True},
    "without biases": {"bias": False},
    "groups of two": {"n_kv_heads": 3, "causal": True},
    "one key head": {"n_kv_heads": 1},
    "rotary": {"rotary": Rotary(D, 30), "causal": True},
    "normalised": {"qk_norm": True},
    "all at once": {
        "n_kv_heads": 2,
        "causal": True,
        "rotary": Rotary(D, 30, base=50.0),
        "qk_norm": True,
        "bias": False,
    },
}
every_variant = pytest.mark.parametrize("settings", VARIANTS.values(), ids=VARIANTS)


def random(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def make(dtype=np.float64, **settings):
    """A layer whose biases and gains are random too."""
    generator = np.random.default_rng(0)
    layer = MultiHeadAttention(C, H, rng=generator, **settings).astype(dtype)
    for p in layer.parameters():
        p[...] = p.data + 0.3 * generator.normal(size=p.shape)
    return layer


def attention_by_loop(layer, x, context=None, mask=None, bias=None):
    """Section 3.2 of the paper for one sequence; mask (T, S), bias (H, T, S)."""
    context = x if context is None else context
    group = layer.n_heads // layer.n_kv_heads

    def project(linear, row, head):
        rows = slice(head * D, (head + 1) * D)
        shift = 0 if linear.bias is None else linear.bias.data[rows]
        return linear.weight.data[rows] @ row + shift

    def place(vector, norm, t):
        if norm is not None:
            size = math.sqrt(sum(a * a for a in vector) / D + norm.eps)
            vector = vector / size * norm.weight.data
        if layer.rotary is not None:
            turns = layer.rotary.cos[t] + 1j * layer.rotary.sin[t]
            pairs = (vector[: D // 2] + 1j * vector[D // 2 :]) * turns
            vector = np.concatenate([pairs.real, pairs.imag])
        return vector

    joined = np.zeros((len(x), C))
    for head in range(layer.n_heads):
        shared = head // group
        for t in range(len(x)):
            q = place(project(layer.q, x[t], head), layer.q_norm, t)
            weights, values = [], []
            for s in range(len(context)):
                if (layer.causal and s > t) or (mask is not None and not mask[t, s]):
                    continue
                k = place(project(layer.k, context[s], shared), layer.k_norm, s)
                score = sum(q[i] * k[i] for i in range(D)) / math.sqrt(D)
                weights.append(math.exp(score + (0 if bias is None else bias[head, t, s])))
                values.append(project(layer.v, context[s], shared))
            for weight, value in zip(weights, values, strict=True):
                joined[t, head * D : (head + 1) * D] += weight / sum(weights) * value
    shift = 0 if layer.out.bias is None else layer.out.bias.data
    return joined @ layer.out.weight.data.T + shift


def assert_close(left, right):
    np.testing.assert_allclose(left, right, rtol=0, atol=1e-13)


@every_variant
def test_multi_head_attention_equals_the_papers_formula_written_as_loops(settings):
    layer, x = make(**settings), random(B, T, C)
    assert_close(layer(Tensor(x)).data, [attention_by_loop(layer, row) for row in x])


@pytest.mark.parametrize("n_kv_heads", [6, 2])
def test_attention_to_a_context_with_mask_and_bias_equals_the_loops(n_kv_heads):
    layer, x, context = make(n_kv_heads=n_kv_heads), random(B, T, C), random(B, S, C, seed=1)
    bias, mask = random(B, H, T, S, seed=2), random(B, T, S, seed=3) > -0.3
    got = layer(Tensor(x), Tensor(context), mask[:, None], Tensor(bias)).data
    rows = zip(x, context, mask, bias, strict=True)
    assert_close(got, [attention_by_loop(layer, *row) for row in rows])


@every_variant
def test_gradients_of_the_input_and_all_parameters_agree_with_differences(settings):
    layer = make(**settings)
    check_gradients(layer, [random(B, T, C)], layer)


def test_gradients_of_context_and_bias_agree_with_differences_under_a_mask():
    layer, mask = make(n_kv_heads=2), random(B, 1, T, S, seed=3) > -0.3
    inputs = [random(B, T, C), random(B, S, C), random(B, H, T, S)]
    check_gradients(lambda x, context, bias: layer(x, context, mask, bias), inputs, layer)


def test_the_gradient_with_dropout_agrees_with_differences():
    layer = make(dropout=0.4, n_kv_heads=3, causal=True)
    check_gradients(lambda x: layer(x, rng=np.random.default_rng(5)), [random(B, T, C)], layer)


# --- Laws of attention ------------------------------------------------------------------------


def test_shared_key_heads_equal_full_heads_with_repeated_weights():
    shared, full, x = make(n_kv_heads=2), make(), Tensor(random(B, T, C))
    state = shared.state_dict()
    for name in ("k.weight", "k.bias", "v.weight", "v.bias"):
        heads = state[name].reshape(2, D, *state[name].shape[1:])
        state[name] = np.repeat(heads, 3, axis=0).reshape(C, *state[name].shape[1:])
    full.load_state_dict(state)
    assert_close(shared(x).data, full(x).data)


def test_shared_key_heads_need_fewer_parameters():
    def count(n_kv_heads):
        return make(n_kv_heads=n_kv_heads).count_parameters()

    assert count(None) == count(6) == 4 * (C * C + C)
    assert count(2) == 2 * (C * C + C) + 2 * (C * 2 * D + 2 * D)


def test_without_positions_permuting_the_tokens_permutes_the_outputs():
    layer, x, order = make(n_kv_heads=3), random(B, T, C), [3, 0, 4, 1, 2]
    assert_close(layer(Tensor(x[:, order])).data, layer(Tensor(x)).data[:, order])


@pytest.mark.parametrize("settings", [v for v in VARIANTS.values() if v.get("causal")])
def test_changing_a_future_token_leaves_earlier_outputs_unchanged_bit_for_bit(settings):
    layer, x = make(**settings), random(B, T, C)
    y = layer(Tensor(x)).data
    for t in range(1, T):
        changed = x.copy()
        changed[:, t] = random(B, C, seed=t)
        got = layer(Tensor(changed)).data
        assert np.array_equal(got[:, :t], y[:, :t]) and not np.array_equal(got[:, t], y[:, t])


def test_rows_of_a_batch_do_not_see_each_other():
    layer, x = make(), random(B, T, C)
    changed = x.copy()
    changed[1] += 1
    assert np.array_equal(layer(Tensor(changed)).data[0], layer(Tensor(x)).data[0])


def test_what_is_masked_out_has_no_influence_and_gets_no_gradient():
    layer, x, mask = make(), random(B, T, C), np.ones((B, 1, 1, S), bool)
    mask[0, ..., 3] = False
    context = Tensor(random(B, S, C), requires_grad=True)
    before = layer(Tensor(x), context, mask)
    before.backward(random(B, T, C, seed=1))
    assert not context.grad[0, 3].any() and context.grad[1, 3].all()
    context[0, 3] = 1.0
    assert np.array_equal(layer(Tensor(x), context, mask).data, before.data)
    context[0, 3] = 1e6  # scores this large are shifted before exp, which may round otherwise
    assert_close(layer(Tensor(x), context, mask).data, before.data)


def test_a_query_that_may_attend_to_nothing_gives_the_output_bias_alone():
    layer, mask = make(), np.ones((B, 1, T, T), bool)
    mask[:, :, 2] = False
    y = layer(Tensor(random(B, T, C)), mask=mask).data
    assert np.array_equal(y[:, 2], np.broadcast_to(layer.out.bias.data, (B, C)))


def test_normalised_queries_and_keys_do_not_feel_the_size_of_their_weights():
    layer, x = make(qk_norm=True, bias=False), Tensor(random(B, T, C))
    layer.q_norm.eps = layer.k_norm.eps = 0.0
    before = layer(x).data
    for linear, factor in ((layer.q, 100.0), (layer.k, 0.01)):
        linear.weight[...] = linear.weight.data * factor
    assert_close(layer(x).data, before)


def test_float32_in_is_float32_out_and_in_every_gradient():
    layer = make(np.float32, **VARIANTS["all at once"])
    x = Tensor(random(B, T, C).astype(np.float32), requires_grad=True)
    y = layer(x)
    y.sum().backward()
    assert {p.grad.dtype for p in [x, *layer.parameters()]} == {y.dtype} == {np.dtype(np.float32)}


@pytest.mark.parametrize("shape", [(B, 1, C), (1, T, C), (0, T, C), (B, 0, C)])
def test_sizes_one_and_zero_are_sizes_like_others(shape):
    for settings in VARIANTS.values():
        assert make(**settings)(Tensor(random(*shape))).shape == shape


@pytest.mark.parametrize(
    ("d_model", "n_heads", "n_kv_heads"), [(12, 5, None), (12, 6, 4), (4, 8, 1)]
)
def test_heads_that_do_not_divide_are_an_error_that_names_all_three(d_model, n_heads, n_kv_heads):
    with pytest.raises(ValueError, match=f"d_model {d_model}, n_heads {n_heads}, n_kv_heads"):
        MultiHeadAttention(d_model, n_heads, n_kv_heads, rng=np.random.default_rng(0))


@pytest.mark.parametrize(("name", "settings"), [("q", {"std": 0.5}), ("out", {"out_std": 0.5})])
def test_the_deviations_asked_for_are_those_of_the_weights(name, settings):
    layer = MultiHeadAttention(200, 2, rng=np.random.default_rng(0), **settings)
    inner = [layer.q, layer.k, layer.v]
    for linear in inner if name == "q" else [layer.out]:
        assert linear.weight.data.std() == pytest.approx(0.5, rel=0.02)
    for linear in [layer.out] if name == "q" else inner:  # uniform within 1/√200
        assert linear.weight.data.std() == pytest.approx(1 / math.sqrt(600), rel=0.02)


# --- Dropout ----------------------------------------------------------------------------------


def test_dropout_in_training_needs_an_rng_and_in_evaluation_none():
    layer, x = make(dropout=0.5), Tensor(random(B, T, C))
    with pytest.raises(ValueError, match="expected an rng in training mode"):
        layer(x)
    assert np.array_equal(layer.eval()(x).data, make()(x).data)


def test_dropout_draws_anew_each_time_and_the_same_from_the_same_seed():
    layer, x, rng = make(dropout=0.5), Tensor(random(B, T, C)), np.random.default_rng(0)
    first, second = layer(x, rng=rng).data, layer(x, rng=rng).data
    assert not np.array_equal(first, second)
    assert np.array_equal(layer(x, rng=np.random.default_rng(0)).data, first)
    assert not np.array_equal(first, make()(x).data)


def test_dropout_keeps_the_mean_of_what_is_attended_to():
    layer, x = make(dropout=0.3), random(1, T, C)
    many = Tensor(np.repeat(x, 4000, axis=0))
    mean = layer(many, rng=np.random.default_rng(0)).data.mean(0)
    # Outputs deviate by about 1 with dropout, their mean over 4000 by about 0.016.
    np.testing.assert_allclose(mean, layer.eval()(Tensor(x)).data[0], rtol=0, atol=0.1)


# --- Width, scale, and keys worked out before ---------------------------------------------------


@pytest.mark.parametrize("scale", [None, 1.0, 0.3])
def test_heads_may_have_any_width_and_scores_any_scale(scale):
    wide = make(head_width=5, scale=scale)
    assert wide.q.weight.shape == (H * 5, C) and wide.out.weight.shape == (C, H * 5)
    x = random(B, T, C)
    q, k, v = (split_heads(linear(Tensor(x)), H).data for linear in (wide.q, wide.k, wide.v))
    scores = np.exp(q @ k.swapaxes(-1, -2) * (1 / math.sqrt(5) if scale is None else scale))
    weights = scores / scores.sum(-1, keepdims=True)
    assert_close(wide.weights(Tensor(x)), weights)
    assert_close(wide(Tensor(x)).data, wide.out(join_heads(Tensor(weights @ v))).data)


def test_a_head_width_needs_no_d_model_that_the_heads_divide():
    layer = MultiHeadAttention(10, 4, head_width=3, rng=np.random.default_rng(0))
    assert layer(Tensor(random(B, T, 10))).shape == (B, T, 10)


@every_variant
def test_the_keys_and_values_of_a_context_stand_for_it(settings):
    layer, x, context = make(**settings), Tensor(random(B, T, C)), Tensor(random(B, S, C, seed=1))
    known = layer.keys_values(context)
    assert isinstance(known, KeyValues)
    mask = random(B, 1, T, S, seed=2) > -1
    assert np.array_equal(layer(x, known, mask).data, layer(x, context, mask).data)
    assert np.array_equal(layer.weights(x, known, mask), layer.weights(x, context, mask))


@pytest.mark.parametrize("length", [1, T])
def test_rows_that_follow_one_another_may_share_a_context(length):
    layer, x, context = make(), Tensor(random(3 * B, length, C)), random(B, S, C, seed=1)
    mask = random(B, 1, 1, S, seed=2) > -1
    each = layer(x, Tensor(np.repeat(context, 3, axis=0)), np.repeat(mask, 3, axis=0))
    assert_close(layer(x, layer.keys_values(Tensor(context)), mask).data, each.data)


@pytest.mark.parametrize("settings", [{"causal": True}, {"rotary": Rotary(D, 30)}])
def test_rows_whose_queries_have_an_order_may_not_share_a_context(settings):
    layer, x = make(**settings), Tensor(random(2 * B, T, C))
    with pytest.raises(ValueError, match=r"attention: expected q \(B, H, T, D\) and k, v"):
        layer(x, layer.keys_values(Tensor(random(B, S, C))))


# --- The cache --------------------------------------------------------------------------------


def new_cache(layer, max_len, batch=B, dtype=np.float64):
    return KeyValueCache(batch, layer.n_kv_heads, max_len, layer.head_width, dtype)


@no_grad()
def decode(layer, x, chunks, joined=False):
    """The outputs for x (B, T, C), taken in chunks of these lengths through one cache."""
    cache, outputs, start = new_cache(layer, x.shape[1], len(x), x.dtype), [], 0
    if joined:
        cache = layer.new_cache(len(x), x.shape[1])
        assert cache.joined is not None
    for length in chunks:
        outputs.append(layer(Tensor(x[:, start : start + length]), cache=cache).data)
        start += length
        assert cache.length == start
    return np.concatenate(outputs, axis=1)


CACHED = {name: s for name, s in VARIANTS.items() if s.get("causal")}


@pytest.mark.parametrize("settings", CACHED.values(), ids=CACHED)
@pytest.mark.parametrize("chunks", [[9], [5, 1, 1, 1, 1], [1] * 9, [4, 3, 2], [1, 8]])
@pytest.mark.parametrize("joined", [False, True])
def test_cached_decoding_equals_full_attention(settings, chunks, joined):
    layer, x = make(**settings), random(B, 9, C)
    assert_close(decode(layer, x, chunks, joined), layer(Tensor(x)).data)


@given(st.lists(st.integers(1, 6), min_size=1, max_size=5))
def test_cached_decoding_equals_full_attention_however_the_sequence_is_cut(chunks):
    layer, x = make(**VARIANTS["all at once"]), random(B, sum(chunks), C)
    assert_close(decode(layer, x, chunks), layer(Tensor(x)).data)


def test_cached_decoding_in_float32_stays_float32():
    layer, x = make(np.float32, **VARIANTS["all at once"]), random(B, 9, C).astype(np.float32)
    for joined in (False, True):
        y = decode(layer, x, [4, 1, 4], joined)
        assert y.dtype == np.float32
        np.testing.assert_allclose(y, layer(Tensor(x)).data, rtol=0, atol=1e-5)


@pytest.mark.parametrize("bias", [False, True])
def test_a_cache_joins_the_weights_of_a_small_layer_only(bias, monkeypatch):
    layer = make(bias=bias, n_kv_heads=3)
    parts = (layer.q, layer.k, layer.v)
    size = sum(part.weight.size for part in parts)
    monkeypatch.setattr(attention, "JOINED", size)
    cache = layer.new_cache(3, 7)
    assert cache.keys.shape == cache.values.shape == (3, 3, 7, D) and cache.length == 0
    weight, shift = cache.joined
    np.testing.assert_array_equal(weight.data, np.concatenate([p.weight.data for p in parts]))
    if bias:
        np.testing.assert_array_equal(shift.data, np.concatenate([p.bias.data for p in parts]))
    else:
        assert shift is None
    monkeypatch.setattr(attention, "JOINED", size - 1)
    assert layer.new_cache(3, 7).joined is None


def test_with_joined_weights_a_token_takes_two_products(monkeypatch):
    layer, shapes, linear = make(causal=True), [], F.linear
    monkeypatch.setattr(F, "linear", lambda x, w, b=None: shapes.append(w.shape) or linear(x, w, b))
    decode(layer, random(B, 1, C), [1], joined=True)
    assert shapes == [(3 * C, C), (C, C)]


def test_the_cache_gives_back_all_that_was_put_in_without_a_copy():
    cache, parts = KeyValueCache(B, 3, 10, D, np.float64), []
    for length in (4, 1, 5):
        parts.append((random(B, 3, length, D, seed=length), random(B, 3, length, D, seed=9)))
        keys, values = cache.append(*parts[-1])
        assert np.array_equal(keys, np.concatenate([k for k, _ in parts], axis=2))
        assert np.array_equal(values, np.concatenate([v for _, v in parts], axis=2))
        assert np.shares_memory(keys, cache.keys) and np.shares_memory(values, cache.values)


def test_more_positions_than_the_cache_holds_are_an_error_that_changes_nothing():
    layer, x = make(causal=True), Tensor(random(B, 3, C))
    cache = new_cache(layer, max_len=5)
    with no_grad():
        layer(x, cache=cache)
        before = cache.keys[:, :, :3].copy()
        with pytest.raises(ValueError, match="expected at most 5 positions, got 6"):
            layer(x, cache=cache)
        assert cache.length == 3 and np.array_equal(cache.keys[:, :, :3], before)
        layer(Tensor(random(B, 2, C)), cache=cache)
    assert cache.length == 5


def test_a_cache_is_refused_while_gradients_are_recorded():
    layer, x = make(causal=True), Tensor(random(B, T, C))
    cache = new_cache(layer, T)
    with pytest.raises(ValueError, match="decode inside `with no_grad"):
        layer(x, cache=cache)
    assert cache.length == 0
    layer.requires_grad_(False)
    layer(x, cache=cache)
    assert cache.length == T


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_attention_weights_times_the_values_are_attention(causal, kv_heads):
    rng = np.random.default_rng(0)
    q, k, v = (Tensor(rng.normal(size=(2, heads, 5, 3))) for heads in (4, kv_heads, kv_heads))
    mask = rng.random((2, 1, 5, 5)) < 0.7
    mask[0, 0, 3] = False  # this query may attend to nothing
    bias = Tensor(rng.normal(size=(1, 4, 5, 5)))
    weights = attention_weights(q, k, mask, bias, causal)
    expected = F.attention(q, k, v, mask, bias, causal).data
    values = np.repeat(v.data, 4 // kv_heads, axis=1)
    np.testing.assert_allclose(weights @ values, expected, rtol=1e-12, atol=1e-14)
    assert (weights[0, :, 3] == 0).all()


@every_variant
def test_the_weights_of_a_layer_are_those_it_adds_its_values_up_with(settings):
    layer, x = make(**settings), Tensor(random(B, T, C))
    v = split_heads(layer.v(x), layer.n_kv_heads).data
    v = np.repeat(v, layer.n_heads // layer.n_kv_heads, axis=1)
    y = layer.out(join_heads(Tensor(layer.weights(x) @ v)))
    assert_close(y.data, layer(x).data)


@pytest.mark.parametrize("learns", ["q.weight", "k.weight", "v.weight", "k.bias"])
def test_joined_weights_hide_no_gradient_that_a_cache_may_not_have(learns):
    layer = make(causal=True)
    for name, parameter in layer.named_parameters():
        parameter.requires_grad = name == learns
    x, cache = Tensor(random(B, 1, C)), layer.new_cache(B, 4)
    if learns == "q.weight":  # keys and values have none
        assert layer(x, cache=cache).requires_grad
    else:
        with pytest.raises(ValueError, match="expected no gradients with a cache"):
            layer(x, cache=cache)


@no_grad()
def test_the_last_of_one_position_is_that_position():
    layer, x = make(causal=True), Tensor(random(B, 1, C))
    shapes = []
    with pytest.MonkeyPatch.context() as patch:
        linear = F.linear
        patch.setattr(F, "linear", lambda x, w, b=None: shapes.append(w.shape) or linear(x, w, b))
        y = layer(x, cache=layer.new_cache(B, 4), keep=1)
    assert shapes == [(3 * C, C), (C, C)]
    assert_close(y.data, layer(x).data)
