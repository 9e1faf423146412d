"""Laws of the functions beyond the table: extremes, masks, causality, and every error text."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minilm import attention, kernels
from minilm import functional as F
from minilm import reference as R
from minilm.tensor import Tensor, no_grad

BOTH = pytest.mark.parametrize("room", [F, R], ids=["functional", "reference"])


def leaf(*shape, seed=0, dtype=np.float64, scale=1.0):
    x = scale * np.random.default_rng(seed).normal(size=shape)
    return Tensor(x.astype(dtype), requires_grad=True)


def heads(B=2, H=3, T=5, S=5, D=4, kv_heads=None, dtype=np.float64, scale=1.0):
    """q, k, v of an attention."""
    shapes = (B, H, T, D), *[(B, kv_heads or H, S, D)] * 2
    return [leaf(*shape, seed=i, dtype=dtype, scale=scale) for i, shape in enumerate(shapes)]


def value_and_grads(function, *leaves):
    """The value, and the gradients of its sum with random weights."""
    for x in leaves:
        x.grad = None
    y = function(*leaves)
    y.backward(np.random.default_rng(99).normal(size=y.shape).astype(y.dtype))
    return [y.data, *(x.grad for x in leaves)]


def assert_close(actual, expected, tolerance=1e-12):
    for a, b in zip(actual, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


# --- Softmax and cross-entropy ----------------------------------------------------------------


@BOTH
@given(st.floats(-1e4, 1e4), st.integers(0, 100))
def test_softmax_does_not_change_when_all_logits_shift(room, shift, seed):
    x = leaf(3, 5, seed=seed)
    # x + shift loses digits of x: up to 1e4 · 1e-16
    assert_close([room.softmax(x + shift).data], [room.softmax(x).data], 1e-11)
    assert_close([room.log_softmax(x + shift).data], [room.log_softmax(x).data], 1e-11)


@BOTH
def test_softmax_is_positive_and_sums_to_one(room):
    y = room.softmax(leaf(4, 7, scale=10)).data
    assert (y > 0).all()
    np.testing.assert_allclose(y.sum(-1), 1, rtol=1e-15)
    np.testing.assert_allclose(
        np.exp(room.log_softmax(leaf(4, 7, scale=10)).data), y, rtol=1e-13, atol=1e-300
    )


EXTREMES = [[1e4, -1e4, 0.0], [-1e4, -1e4, -1e4], [1e4, 1e4, 1e4], [-1e4, 1e4, 1e4 - 1]]


@BOTH
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_logits_of_1e4_stay_finite_in_value_and_gradient(room, dtype):
    x = Tensor(np.array(EXTREMES, dtype), requires_grad=True)
    labels = np.array([1, 0, 2, 0])
    gate = leaf(4, 3, seed=1, dtype=dtype)
    q = Tensor(x.data.reshape(1, 1, 4, 3), requires_grad=True)
    results = [
        value_and_grads(room.softmax, x),
        value_and_grads(room.log_softmax, x),
        value_and_grads(lambda x: room.cross_entropy(x, labels), x),
        value_and_grads(lambda x: room.cross_entropy(x, labels, label_smoothing=0.1), x),
        value_and_grads(room.relu, x),
        value_and_grads(room.silu, x),
        value_and_grads(room.swiglu, x, gate),
        value_and_grads(room.gelu, x),
        value_and_grads(lambda x: room.gelu(x, approximate="tanh"), x),
        value_and_grads(lambda q: room.attention(q, q, q, causal=True), q),  # scores of ±1e8
        value_and_grads(lambda q: room.attention(q, q, q, bias=q @ q.transpose(0, 1, 3, 2)), q),
    ]
    for arrays in results:
        assert all(np.isfinite(array).all() for array in arrays)
    loss = room.cross_entropy(x, labels, reduction="none").data
    assert_close([loss], [[2e4, math.log(3), math.log(3), 2e4 + math.log1p(math.exp(-1))]], 1e-6)


@BOTH
@given(st.floats(0, 1), st.integers(0, 100))
def test_label_smoothing_mixes_the_labels_loss_with_that_of_all(room, epsilon, seed):
    x, labels = leaf(6, 4, seed=seed), np.random.default_rng(seed).integers(0, 4, 6)
    log_p = room.log_softmax(x).data
    expected = (1 - epsilon) * room.cross_entropy(x, labels).item() - epsilon * log_p.mean()
    assert_close([room.cross_entropy(x, labels, label_smoothing=epsilon).item()], [expected])


@BOTH
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("epsilon", [0.0, 0.1])
def test_with_every_label_ignored_loss_and_gradient_are_zero(room, reduction, epsilon):
    x, labels = leaf(2, 3, 4), np.full((2, 3), -100)
    value, grad = value_and_grads(
        lambda x: room.cross_entropy(x, labels, label_smoothing=epsilon, reduction=reduction), x
    )
    assert not value.any() and not grad.any()


@BOTH
def test_ignored_positions_count_for_nothing(room):
    x, labels = leaf(5, 4), np.array([1, -100, 3, -100, 0])
    kept = labels != -100
    loss, grad = value_and_grads(lambda x: room.cross_entropy(x, labels), x)
    assert_close([loss], [room.cross_entropy(Tensor(x.data[kept]), labels[kept]).data])
    assert not grad[~kept].any() and grad[kept].all()
    x.data[~kept] = 1e4  # whatever stands there
    assert_close([room.cross_entropy(x, labels).data], [loss])


def test_an_impossible_logit_at_an_ignored_position_counts_for_nothing():
    x = Tensor(np.array([[-np.inf, 1.0], [2.0, 2.0]]), requires_grad=True)
    loss, grad = value_and_grads(lambda x: F.cross_entropy(x, np.array([-100, 0])), x)
    assert_close([loss], [math.log(2)])
    assert np.isfinite(grad).all() and not grad[0].any()


@BOTH
def test_the_reductions_of_cross_entropy_agree(room):
    x, labels = leaf(2, 5, 4), np.random.default_rng(0).integers(0, 4, (2, 5))
    labels[0, 3] = -100
    each, total, mean = (
        room.cross_entropy(x, labels, reduction=r).data for r in ("none", "sum", "mean")
    )
    assert each.shape == (2, 5)
    assert_close([each.sum(), total / 9], [total, mean])


def test_uniform_logits_cost_the_logarithm_of_their_number():
    assert_close([F.cross_entropy(Tensor(np.zeros((3, 7))), np.arange(3)).item()], [math.log(7)])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.int64])
def test_labels_and_ids_may_be_of_any_integer_dtype(dtype):
    x, ids = leaf(3, 7), np.array([0, 6, 3], dtype)
    assert F.cross_entropy(x, ids).item() == F.cross_entropy(x, ids.astype(np.int64)).item()
    np.testing.assert_array_equal(F.embedding(ids, x.T).data, x.data.T[[0, 6, 3]])


@pytest.mark.parametrize("number", [np.float64(0.25), np.float32(0.25)], ids=repr)
def test_numpy_scalars_as_options_do_not_promote_float32(number):
    x, q = leaf(3, 4, dtype=np.float32), leaf(1, 2, 3, 4, dtype=np.float32)
    gamma = leaf(4, dtype=np.float32)
    for y in (
        F.cross_entropy(x, np.array([0, 1, 2]), label_smoothing=number),
        F.layer_norm(x, gamma, gamma, number),
        F.rms_norm(x, gamma, number),
        F.dropout(x, number, np.random.default_rng(0)),
        F.attention(q, q, q, scale=number, dropout=number, rng=np.random.default_rng(0)),
    ):
        assert y.dtype == np.float32
        parts = y.node.vjp(np.ones(y.shape, np.float32))
        assert {part.dtype for part in parts} == {np.dtype(np.float32)}


# --- Activations, norms, dropout, embedding, linear, rotary -----------------------------------


@BOTH
def test_activations_have_the_values_at_zero_that_everybody_uses(room):
    for function, slope in ((room.relu, 0), (room.silu, 0.5), (room.gelu, 0.5)):
        x = Tensor(np.zeros(1), requires_grad=True)
        y = function(x)
        y.backward()
        assert y.item() == 0 and x.grad == slope


@pytest.mark.parametrize("function", [F.relu, F.silu, F.gelu])
def test_activations_take_scalars(function):
    x = Tensor(np.array(0.5), requires_grad=True)
    y = function(x)
    y.backward()
    assert y.shape == x.grad.shape == ()


@BOTH
def test_gelu_is_symmetric_up_to_x(room):
    x = leaf(100, scale=3)  # Φ(x) + Φ(-x) = 1, so x Φ(x) - (-x) Φ(-x) = x
    for approximate in ("none", "tanh"):
        left, right = room.gelu(x, approximate).data, room.gelu(-x, approximate).data
        assert_close([left - right], [x.data])


def test_what_is_done_block_by_block_equals_what_is_done_at_once():
    rows = 2 * kernels.BLOCK_BYTES // (8 * 8) + 5  # two full blocks and a bit
    x, up, gamma, beta = leaf(rows, 8), leaf(rows, 8, seed=1), leaf(8, seed=2), leaf(8, seed=3)
    assert len(list(kernels.row_blocks(x.data))) == 3
    for name, inputs in (
        ("gelu", [x]),
        ("swiglu", [x, up]),
        ("layer_norm", [x, gamma, beta]),
        ("rms_norm", [x, gamma]),
    ):
        fused = value_and_grads(getattr(F, name), *inputs)
        assert_close(fused, value_and_grads(getattr(R, name), *inputs), 1e-10)


@BOTH
def test_normed_rows_have_mean_zero_and_length_one(room):
    x, one, zero = leaf(5, 64), Tensor(np.ones(64)), Tensor(np.zeros(64))
    y = room.layer_norm(x, one, zero, eps=0.0).data
    assert_close([y.mean(-1), (y**2).mean(-1)], [np.zeros(5), np.ones(5)])
    assert_close([(room.rms_norm(x, one, eps=0.0).data ** 2).mean(-1)], [np.ones(5)])


@BOTH
def test_layer_norm_ignores_shift_and_scale_of_its_input(room):
    x, gamma, beta = leaf(5, 6), leaf(6, seed=1), leaf(6, seed=2)
    y = room.layer_norm(x, gamma, beta, eps=0.0).data
    assert_close([room.layer_norm(x * 7 + 100, gamma, beta, eps=0.0).data], [y], 1e-11)
    z = room.rms_norm(x, gamma, eps=0.0).data
    assert_close([room.rms_norm(x * 7, gamma, eps=0.0).data], [z])


@BOTH
def test_a_row_of_equal_numbers_is_normed_to_beta(room):
    x, gamma, beta = Tensor(np.full((2, 4), 3.0), requires_grad=True), leaf(4), leaf(4, seed=1)
    value, *gradients = value_and_grads(room.layer_norm, x, gamma, beta)
    assert_close(value, [beta.data] * 2)
    assert all(np.isfinite(g).all() for g in gradients)


@BOTH
def test_dropout_keeps_the_mean_and_drops_its_share(room):
    x = Tensor(np.ones(100_000, np.float32))
    y = room.dropout(x, 0.3, np.random.default_rng(0)).data
    dropped = (y == 0).mean()
    assert abs(dropped - 0.3) < 0.006  # four standard deviations of a share of 100,000
    np.testing.assert_allclose(y[y != 0], 1 / 0.7, rtol=1e-6)
    assert abs(y.mean() - 1) < 0.009


@BOTH
def test_dropout_of_nothing_is_the_identity_and_draws_nothing(room):
    x, rng = leaf(3), np.random.default_rng(0)
    before = rng.bit_generator.state
    assert room.dropout(x, 0.0, rng) is x
    q, k, v = heads()
    room.attention(q, k, v, dropout=0.0, rng=rng)
    assert rng.bit_generator.state == before


@BOTH
def test_dropout_gives_gradients_where_it_gave_values(room):
    x = leaf(50)
    y = room.dropout(x, 0.5, np.random.default_rng(1))
    y.backward(np.ones(50))
    np.testing.assert_array_equal(x.grad, np.where(y.data == 0, 0, 2))


@BOTH
@pytest.mark.parametrize("shape", [(), (0,), (7,), (2, 9), (2, 3, 4)])
def test_an_id_that_occurs_n_times_gets_n_gradients(room, shape):
    weight = leaf(5, 3)
    ids = np.random.default_rng(0).integers(0, 4, shape)  # 4 does not occur
    y = room.embedding(ids, weight)
    assert y.shape == (*shape, 3)
    dy = np.random.default_rng(1).normal(size=y.shape)
    y.backward(dy)
    expected = np.zeros((5, 3))
    for i in np.ndindex(shape):
        expected[ids[i]] += dy[i]
    assert_close([weight.grad], [expected])
    assert not weight.grad[4].any()


@BOTH
def test_linear_takes_any_number_of_leading_axes(room):
    weight, bias = leaf(4, 3), leaf(4, seed=1)
    x = leaf(2, 5, 3, seed=2)
    y = room.linear(x, weight, bias).data
    assert_close([room.linear(x[1, 2], weight, bias).data], [y[1, 2]])
    assert_close([room.linear(x.reshape(1, 2, 5, 3), weight, bias).data], [y[None]])


@BOTH
def test_rotations_keep_lengths_and_turn_back(room):
    x, angle = leaf(2, 3, 5, 8), np.random.default_rng(1).uniform(0, 7, (5, 4))
    cos, sin = np.cos(angle), np.sin(angle)
    y = room.rotary(x, cos, sin)
    assert_close([(y.data**2).sum(-1)], [(x.data**2).sum(-1)])
    assert_close([room.rotary(y, cos, -sin).data], [x.data])


# --- Attention --------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("T", [6, 100])  # one block of queries, and two
def test_causal_attention_gives_exactly_no_gradient_to_the_future(room, T):
    for t in (0, 2, T - 2):
        q, k, v = heads(T=T, S=T)
        y = room.attention(q, k, v, causal=True)
        y[:, :, t].sum().backward()
        assert not k.grad[:, :, t + 1 :].any() and not v.grad[:, :, t + 1 :].any()
        assert not np.delete(q.grad, t, axis=2).any()
        assert v.grad[:, :, : t + 1].all()


@BOTH
@pytest.mark.parametrize("T", [6, 100])
def test_changing_the_future_changes_no_bit_of_the_past(room, T):
    q, k, v = heads(T=T, S=T, dtype=np.float32)
    y = room.attention(q, k, v, causal=True).data
    for x in (k, v):
        x[:, :, T // 2 :] = 7.0
    after = room.attention(q, k, v, causal=True).data
    np.testing.assert_array_equal(after[:, :, : T // 2], y[:, :, : T // 2])
    assert (after[:, :, T // 2 :] != y[:, :, T // 2 :]).any()


@BOTH
@pytest.mark.parametrize("scale", [1.0, 30.0])  # scores that need no shift, and that do
@pytest.mark.parametrize("causal", [False, True])
def test_a_row_whose_mask_forbids_everything_gives_zeros_and_zero_gradients(room, scale, causal):
    q, k, v = heads(scale=scale)
    mask = np.random.default_rng(0).random((2, 1, 5, 5)) < 0.7
    mask[0, :, 2] = mask[1, :, 4] = mask[:, :, :, 3] = False
    bias = leaf(2, 3, 5, 5, seed=5)
    y, dq, _, _, dbias = value_and_grads(
        lambda *inputs: room.attention(*inputs[:3], mask, inputs[3], causal), q, k, v, bias
    )
    for array in (y, dq, dbias):
        assert not array[0, :, 2].any() and not array[1, :, 4].any()
    assert not k.grad[:, :, 3].any() and not v.grad[:, :, 3].any()
    nothing = np.zeros((5, 5), bool)
    for array in value_and_grads(lambda *qkv: room.attention(*qkv, nothing), q, k, v):
        assert not array.any()


@BOTH
def test_queries_before_all_keys_give_zeros(room):
    q, k, v = heads(T=5, S=3)
    y, dq, *_ = value_and_grads(lambda *qkv: room.attention(*qkv, causal=True), q, k, v)
    assert not y[:, :, :2].any() and not dq[:, :, :2].any()
    assert y[:, :, 2:].all()


@BOTH
@settings(max_examples=20)
@given(st.lists(st.booleans(), min_size=5, max_size=5).filter(any), st.sampled_from([1.0, 20.0]))
def test_to_forbid_keys_is_to_delete_them(room, allowed, scale):
    q, k, v = heads(scale=scale)
    kept = np.array(allowed)
    masked = value_and_grads(lambda *qkv: room.attention(*qkv, mask=kept), q, k, v)
    deleted = value_and_grads(
        lambda q, k, v: room.attention(q, k[:, :, kept], v[:, :, kept]), q, k, v
    )
    assert_close(masked, deleted, 1e-10)


@BOTH
@given(st.permutations(range(5)))
@settings(max_examples=20)
def test_the_order_of_keys_does_not_matter(room, order):
    q, k, v = heads()
    order = list(order)
    mask, bias = np.random.default_rng(3).random((2, 3, 5, 5)) < 0.7, leaf(2, 3, 5, 5, seed=4)
    one = value_and_grads(lambda *i: room.attention(*i[:3], mask, i[3]), q, k, v, bias)

    def permuted(q, k, v, bias):
        k, v, bias = k[:, :, order], v[:, :, order], bias[..., order]
        return room.attention(q, k, v, mask[..., order], bias)

    assert_close(value_and_grads(permuted, q, k, v, bias), one)


@BOTH
def test_a_bias_of_minus_infinity_is_a_mask(room):
    q, k, v = heads()
    mask = np.random.default_rng(0).random((2, 3, 5, 5)) < 0.6
    mask[0, 0, 0] = False
    bias = Tensor(np.where(mask, 0, -np.inf), requires_grad=True)
    masked = value_and_grads(lambda *qkv: room.attention(*qkv, mask=mask), q, k, v)
    biased = value_and_grads(lambda *i: room.attention(*i[:3], bias=i[3]), q, k, v, bias)
    assert_close(biased[:4], masked)
    assert np.isfinite(bias.grad).all() and not bias.grad[~mask].any()


@pytest.mark.parametrize(
    ("T", "S"), [(150, 150), (64, 64), (65, 65), (130, 70), (70, 200), (140, 520)]
)
@pytest.mark.parametrize("extras", [False, True])
def test_blocks_of_queries_give_what_one_block_gives(monkeypatch, T, S, extras):
    q, k, v = heads(B=1, H=2, T=T, S=S, kv_heads=1)
    mask = np.random.default_rng(0).random((T, S)) < 0.7 if extras else None
    bias = leaf(2, T, S, seed=3) if extras else None

    def attend(q, k, v, *bias):
        return F.attention(q, k, v, mask, *bias, causal=True)

    inputs = [q, k, v] + ([bias] if extras else [])
    blocks = value_and_grads(attend, *inputs)
    monkeypatch.setattr(attention, "QUERY_BLOCK", 1000)
    assert_close(blocks, value_and_grads(attend, *inputs))


@pytest.mark.parametrize("causal", [False, True])
def test_small_scores_without_a_shift_give_what_the_shift_gives(monkeypatch, causal):
    q, k, v = heads()
    mask = np.random.default_rng(0).random((5, 5)) < 0.6
    mask[3] = False

    def attend(q, k, v):
        return F.attention(q, k, v, mask, causal=causal)

    quick = value_and_grads(attend, q, k, v)
    monkeypatch.setattr(attention, "SAFE_SCORE", 0.0)
    assert_close(quick, value_and_grads(attend, q, k, v))


@pytest.mark.parametrize("shift", [-1e3, -41.0, -27.0, 27.0, 41.0, 1e3])  # SAFE_SCORE is 40 log 2
def test_a_bias_that_is_the_same_for_all_keys_changes_nothing(shift):
    q, k, v = heads()
    plain = value_and_grads(F.attention, q, k, v)
    bias = Tensor(np.full((1, 1, 5, 1), shift))
    assert_close(value_and_grads(lambda *i: F.attention(*i, bias=bias), q, k, v), plain, 1e-11)


def test_scores_at_the_edge_of_the_quick_path_stay_exact_in_float32():
    q = Tensor(np.full((1, 1, 2, 1), 1.0, np.float32))
    k = Tensor(
        np.array([39.9, -39.9, 39.9, 0.0], np.float32).reshape(1, 1, 4, 1) / attention.LOG2_E
    )
    v = Tensor(np.array([1.0, 2.0, 3.0, 4.0], np.float32).reshape(1, 1, 4, 1))
    y = F.attention(q, k, v, scale=1.0).data
    np.testing.assert_allclose(y, 2.0, rtol=1e-6)
    low = F.attention(q, Tensor(np.full_like(k.data, -27.6)), v, scale=1.0).data
    np.testing.assert_allclose(low, 2.5, rtol=1e-6)


@BOTH
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("size", [20, 60, 90, 130, 1000])  # float32's 2^x ends at x = 128
def test_large_scores_are_as_exact_in_float32_as_in_float64(room, size, sign):
    results = []
    for dtype in (np.float32, np.float64):
        q, k, v = heads(dtype=dtype)
        # whole numbers, so that float32 scores are exact; all of them near `size`
        offsets = np.random.default_rng(5).integers(-3, 4, (2, 3, 5, 5)).astype(dtype)
        bias = Tensor((sign * size + offsets).astype(dtype), requires_grad=True)
        q.data[...] = 0
        results.append(value_and_grads(lambda *i: room.attention(*i[:3], bias=i[3]), q, k, v, bias))
    assert_close(*results, 2e-5 if size < 1000 else 2e-4)  # scores near 1000 are scaled by log2 e


@BOTH
@pytest.mark.parametrize("kv_heads", [1, 2, 3, 6])
def test_shared_key_heads_equal_repeated_ones(room, kv_heads):
    q, k, v = heads(H=6, kv_heads=kv_heads)
    each = np.repeat(np.arange(kv_heads), 6 // kv_heads)
    shared = value_and_grads(lambda *i: room.attention(*i, causal=True), q, k, v)
    repeated = value_and_grads(
        lambda q, k, v: room.attention(q, k[:, each], v[:, each], causal=True), q, k, v
    )
    assert_close(shared, repeated)


@BOTH
@pytest.mark.parametrize(("start", "stop"), [(0, 1), (6, 7), (3, 7), (90, 100), (20, 90)])
def test_queries_beside_the_last_keys_see_what_they_see_in_the_whole(room, start, stop):
    q, k, v = heads(T=100, S=100)
    with no_grad():
        whole = room.attention(q, k, v, causal=True).data
        chunk = room.attention(
            q[:, :, start:stop], k[:, :, :stop], v[:, :, :stop], causal=True
        ).data
    assert_close([chunk], [whole[:, :, start:stop]])


@BOTH
def test_one_query_sees_every_key_causal_or_not(room):
    q, k, v = heads(T=1, S=9)
    one, other = (room.attention(q, k, v, causal=causal).data for causal in (True, False))
    assert_close([one], [other])


@BOTH
def test_equal_keys_give_the_mean_of_the_values(room):
    q, k, v = heads()
    k.data[...] = 1.0
    y = room.attention(q, k, v).data
    assert_close([y], [np.broadcast_to(v.data.mean(2, keepdims=True), y.shape)])


@BOTH
def test_a_scale_of_zero_forgets_the_keys(room):
    q, k, v = heads()
    y, dq, dk, _ = value_and_grads(lambda *i: room.attention(*i, scale=0.0), q, k, v)
    assert_close([y], [np.broadcast_to(v.data.mean(2, keepdims=True), y.shape)])
    assert not dq.any() and not dk.any()


@BOTH
@pytest.mark.parametrize("shape", [(4,), (3, 1), (1, 3, 4), (2, 1, 1, 4), (2, 3, 3, 1), ()])
def test_masks_and_biases_broadcast(room, shape):
    q, k, v = heads(T=3, S=4)
    rng, full = np.random.default_rng(0), (2, 3, 3, 4)
    mask, bias = rng.random(shape) < 0.7, Tensor(rng.normal(size=shape), requires_grad=True)
    mask = np.asarray(mask)
    narrow = value_and_grads(lambda *i: room.attention(*i[:3], mask, i[3]), q, k, v, bias)
    assert bias.grad.shape == shape
    wide_bias = Tensor(np.broadcast_to(bias.data, full))
    wide = value_and_grads(
        lambda *i: room.attention(*i, np.broadcast_to(mask, full), wide_bias), q, k, v
    )
    assert_close(narrow[:4], wide)


def test_attention_dropout_drops_weights_not_queries():
    q, k, v = heads(B=1, H=1, T=2000, S=3)
    v.data[...] = 1.0
    y = F.attention(q, k, v, dropout=0.5, rng=np.random.default_rng(0)).data
    assert 0.1 < (y == 0).mean() < 0.15  # all three weights dropped: 1/8
    # of ones, each query's output has mean 1; its deviation is below 1
    assert abs(y.mean() - 1) < 4 / math.sqrt(2000)


@pytest.mark.parametrize("seed", [0, 1])
def test_twins_drop_the_same_weights_in_one_block(seed):
    for T, causal in ((64, True), (100, False)):
        q, k, v = heads(T=T, S=T)
        results = [
            value_and_grads(
                lambda *i, room=room, causal=causal: room.attention(
                    *i, causal=causal, dropout=0.4, rng=np.random.default_rng(seed)
                ),
                *(q, k, v),
            )
            for room in (F, R)
        ]
        assert_close(*results)


# --- Errors: what was expected, what came, what to do -----------------------------------------


def attend(**changes):
    q, k, v = heads()
    return F.attention(**({"q": q, "k": k, "v": v} | changes))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: F.cross_entropy(leaf(2, 3), np.zeros(3, int)),
            ValueError,
            r"cross_entropy: expected integer labels of shape \(2,\) for logits of shape \(2, 3\), "
            r"got int64 of shape \(3,\); give one class index per position",
        ),
        (
            lambda: F.cross_entropy(leaf(2, 3), np.zeros(2)),
            ValueError,
            r"expected integer labels of shape \(2,\).*got float64 of shape \(2,\)",
        ),
        (
            lambda: F.cross_entropy(leaf(2, 3), np.array([0, 3])),
            IndexError,
            r"cross_entropy: expected labels in 0\.\.2 or -100, got 0\.\.3; "
            "check the vocabulary size and the padding label",
        ),
        (
            lambda: F.cross_entropy(leaf(2, 3), np.array([-1, 1]), ignore_index=7),
            IndexError,
            r"expected labels in 0\.\.2 or 7, got -1\.\.1",
        ),
        (
            lambda: F.cross_entropy(leaf(2, 3), np.zeros(2, int), reduction="average"),
            ValueError,
            "cross_entropy: expected reduction 'mean', 'sum' or 'none', got 'average'",
        ),
        (
            lambda: F.swiglu(leaf(2, 3), leaf(3)),
            ValueError,
            r"swiglu: expected gate and up of one shape, got \(2, 3\) and \(3,\); "
            "give both projections the same width",
        ),
        (
            lambda: F.gelu(leaf(2), "fast"),
            ValueError,
            "gelu: expected approximate 'none' or 'tanh', got 'fast'",
        ),
        (
            lambda: F.dropout(leaf(2), 1.0, np.random.default_rng(0)),
            ValueError,
            r"dropout: expected 0 <= p < 1, got 1\.0; p is the share that is dropped",
        ),
        (
            lambda: F.dropout(leaf(2), -0.1, np.random.default_rng(0)),
            ValueError,
            r"expected 0 <= p < 1, got -0\.1",
        ),
        (
            lambda: F.embedding(np.array([0, 5]), leaf(5, 2)),
            IndexError,
            r"embedding: expected ids in 0\.\.4, got 0\.\.5; "
            "tokenizer and model must agree on the vocabulary size",
        ),
        (
            lambda: F.embedding(np.array([-1]), leaf(5, 2)),
            IndexError,
            r"expected ids in 0\.\.4, got -1\.\.-1",
        ),
        (
            lambda: F.embedding(np.array([0.0]), leaf(5, 2)),
            TypeError,
            "embedding: expected integer ids, got float64; tokenize the text",
        ),
        (
            lambda: F.linear(leaf(2, 3), leaf(4, 5)),
            ValueError,
            r"linear: expected x \(\.\.\., 5\) for a weight of shape \(4, 5\), got \(2, 3\); "
            "the layer's in_features must equal x's last axis",
        ),
        (
            lambda: attend(k=leaf(2, 3, 6, 4)),
            ValueError,
            r"attention: expected q \(B, H, T, D\) and k, v \(B, H or a divisor of H, S, D\), got "
            r"\(2, 3, 5, 4\), \(2, 3, 6, 4\), \(2, 3, 5, 4\); "
            "split the heads before the sequence axis",
        ),
        (
            lambda: attend(k=leaf(2, 2, 5, 4), v=leaf(2, 2, 5, 4)),
            ValueError,
            r"expected q .* got \(2, 3, 5, 4\), \(2, 2, 5, 4\)",
        ),
        (lambda: attend(q=leaf(2, 5, 4)), ValueError, r"expected q .* got \(2, 5, 4\)"),
        (
            lambda: attend(mask=np.zeros((5, 5))),
            ValueError,
            "attention: expected a boolean mask, True = may attend, got float64; "
            "write mask != 0, or pass additive scores as bias",
        ),
        (
            lambda: attend(mask=np.ones((5, 6), bool)),
            ValueError,
            r"attention: expected a mask that broadcasts to \(B, H, T, S\) = \(2, 3, 5, 5\), got "
            r"\(5, 6\); put size 1 where it is the same for all",
        ),
        (
            lambda: attend(bias=leaf(2, 5, 5)),
            ValueError,
            r"expected a bias that broadcasts to \(B, H, T, S\) = \(2, 3, 5, 5\), got \(2, 5, 5\)",
        ),
        (lambda: attend(bias=leaf(1, 2, 3, 5, 5)), ValueError, "expected a bias that broadcasts"),
        (
            lambda: attend(dropout=0.5),
            ValueError,
            "attention: expected an rng with dropout > 0, got None; pass a Generator",
        ),
    ],
)
def test_errors_say_what_was_expected_what_came_and_what_to_do(call, error, message):
    with pytest.raises(error, match=message):
        call()
