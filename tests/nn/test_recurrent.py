"""The LSTM: its formula, its gradients through time, and the state that stands for the past."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nn.gradients import check_gradients

from minilm import functional as F
from minilm import kernels
from minilm.nn import LSTM, RecurrentState
from minilm.tensor import Tensor, no_grad

B, T, C, H = 2, 6, 3, 4


def rng(seed=0):
    return np.random.default_rng(seed)


def make(layers=1, dtype=np.float64, **options):
    """A layer whose every parameter is well away from where it starts."""
    layer, generator = LSTM(C, H, layers, rng=rng(), **options).astype(dtype), rng(1)
    for p in layer.parameters():
        p[...] = p.data + 0.5 * generator.normal(size=p.shape)
    return layer


def tensor(*shape, seed=0, dtype=np.float64, **options):
    return Tensor(rng(seed).normal(size=shape).astype(dtype), **options)


def state(layers=1, batch=B, dtype=np.float64):
    return tuple(tensor(layers, batch, H, seed=s, dtype=dtype, requires_grad=True) for s in (7, 8))


def assert_close(left, right, atol=1e-14):
    np.testing.assert_allclose(left, right, rtol=0, atol=atol)


every_depth = pytest.mark.parametrize("layers", [1, 3])


# --- The formula ------------------------------------------------------------------------------


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def lstm_by_formula(layer, x, h, c):
    """One row, step by step and layer by layer, in plain NumPy."""
    weights, h, c, written = layer.state_dict(), h.copy(), c.copy(), []
    for below in x:
        for k in range(len(h)):
            a = weights[f"weight_ih_l{k}"] @ below + weights[f"weight_hh_l{k}"] @ h[k]
            a = a + weights[f"bias_ih_l{k}"] + weights[f"bias_hh_l{k}"]
            i, f, g, o = np.split(a, 4)
            c[k] = sigmoid(f) * c[k] + sigmoid(i) * np.tanh(g)
            h[k] = below = sigmoid(o) * np.tanh(c[k])
        written.append(below)
    return np.array(written), h, c


@every_depth
def test_output_and_state_equal_the_formula_written_step_by_step(layers):
    layer, x, (h0, c0) = make(layers), tensor(B, T, C), state(layers)
    y, (h, c) = layer(x, (h0, c0))
    for row in range(B):
        before = (x.data[row], h0.data[:, row], c0.data[:, row])
        expected = lstm_by_formula(layer, *before)
        for got, wanted in zip(
            (y.data[row], h.data[:, row], c.data[:, row]), expected, strict=True
        ):
            assert_close(got, wanted)


@every_depth
def test_without_a_state_it_begins_with_zeros_and_ends_with_its_last_outputs(layers):
    layer, x = make(layers), tensor(B, T, C)
    y, (h, c) = layer(x)
    zeros = Tensor(np.zeros((layers, B, H)))
    assert np.array_equal(layer(x, (zeros, zeros))[0].data, y.data)
    assert h.shape == c.shape == (layers, B, H)
    assert np.array_equal(h.data[-1], y.data[:, -1])


def test_parameters_have_torchs_names_and_shapes():
    shapes = {name: p.shape for name, p in LSTM(C, H, 2, rng=rng()).named_parameters()}
    assert shapes == {
        "weight_ih_l0": (4 * H, C), "weight_hh_l0": (4 * H, H), "bias_ih_l0": (4 * H,),
        "bias_hh_l0": (4 * H,), "weight_ih_l1": (4 * H, H), "weight_hh_l1": (4 * H, H),
        "bias_ih_l1": (4 * H,), "bias_hh_l1": (4 * H,),
    }  # fmt: skip


@pytest.mark.parametrize("options", [{}, {"forget_bias": 2.5}])
def test_weights_begin_uniform_biases_zero_and_the_forget_gates_at_its_own(options):
    layer = LSTM(50, 64, 2, rng=rng(), **options)
    for name, p in layer.named_parameters():
        if name.startswith("weight"):
            assert abs(p.data).max() <= 1 / 8
            assert p.data.std() == pytest.approx(1 / 8 / math.sqrt(3), rel=0.03)
    for k in range(2):
        i, f, g, o = np.split(getattr(layer, f"bias_ih_l{k}").data, 4)
        assert not np.concatenate([i, g, o]).any() and (f == options.get("forget_bias", 1.0)).all()
        assert not getattr(layer, f"bias_hh_l{k}").data.any()


def test_an_open_forget_gate_keeps_the_cell_and_its_gradient_forever():
    layer, x, (h0, c0) = make(), tensor(B, 500, C), state()
    bias = np.zeros(4 * H)
    bias[:H], bias[H : 2 * H] = -1e4, 1e4  # nothing in, nothing lost
    layer.bias_ih_l0[...] = bias
    _, (_, c) = layer(x, (h0, c0))
    c.backward(np.ones(c.shape))
    assert np.array_equal(c.data, c0.data) and (c0.grad == 1).all()


# --- Gradients --------------------------------------------------------------------------------


@every_depth
def test_gradients_of_input_state_and_all_parameters_agree_with_differences(layers):
    layer = make(layers)
    inputs = [tensor(B, T, C).data, *(part.data for part in state(layers))]
    for chosen in range(3):  # the output, h, c
        check_gradients(
            lambda x, h, c, chosen=chosen: flat(layer(x, (h, c)))[chosen], inputs, layer
        )


def flat(result):
    y, (h, c) = result
    return y, h, c


def test_gradients_under_dropout_agree_with_differences():
    layer = make(3, dropout=0.4)
    check_gradients(lambda x: layer(x, rng=rng(3))[0], [tensor(B, T, C).data], layer)


def test_both_biases_get_the_gradient_of_their_sum():
    layer = make()
    layer(tensor(B, T, C))[0].sum().backward()
    assert layer.bias_ih_l0.grad.any()
    assert np.array_equal(layer.bias_ih_l0.grad, layer.bias_hh_l0.grad)


def test_the_gradient_of_a_step_by_what_comes_later_is_exactly_zero():
    layer = make(2)
    for t in range(T):
        x = tensor(B, T, C, requires_grad=True)
        layer(x)[0][:, t].sum().backward()
        assert not x.grad[:, t + 1 :].any() and x.grad[:, : t + 1].all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_inputs_of_1e4_stay_finite_in_value_and_gradient(dtype):
    layer = make(2, dtype)
    x = Tensor(1e4 * rng().normal(size=(B, 50, C)).astype(dtype), requires_grad=True)
    y, _ = layer(x)
    y.sum().backward()
    assert np.isfinite(y.data).all() and (abs(y.data) <= 1).all()
    assert all(np.isfinite(p.grad).all() for p in (x, *layer.parameters()))


# --- Time -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_changing_the_future_leaves_the_past_unchanged_bit_for_bit(dtype):
    layer, x = make(2, dtype), tensor(B, T, C, dtype=dtype)
    before = layer(x)[0].data
    for t in range(1, T):
        changed = x.data.copy()
        changed[:, t:] += 1
        after = layer(Tensor(changed))[0].data
        assert after[:, :t].tobytes() == before[:, :t].tobytes()
        assert not np.array_equal(after[:, t], before[:, t])


@every_depth
@settings(max_examples=20)
@given(chunks=st.lists(st.integers(0, 4), max_size=4))
def test_the_state_carried_on_equals_one_long_text_however_it_is_cut(layers, chunks):
    layer, start = make(layers), state(layers)
    x = tensor(B, sum(chunks), C)
    parts, carried, begin = [], start, 0
    for length in chunks:
        y, carried = layer(x[:, begin : begin + length], carried)
        parts.append(y.data)
        begin += length
    whole, last = layer(x, start)
    assert_close(np.concatenate([np.zeros((B, 0, H)), *parts], axis=1), whole.data)
    for part, of_all in zip(carried, last, strict=True):
        assert_close(part.data, of_all.data)


@every_depth
def test_gradients_flow_through_the_state_as_through_one_long_text(layers):
    gradients = []
    for cuts in ([0, T], [0, 1, 4, T]):
        layer, x, carried = make(layers), tensor(B, T, C, requires_grad=True), None
        for start, stop in zip(cuts, cuts[1:], strict=False):
            y, carried = layer(x[:, start:stop], carried)
        (y[:, -1] * tensor(B, H, seed=5)).sum().backward()  # of the last step alone
        gradients.append([p.grad for p in (x, *layer.parameters())])
    for whole, in_parts in zip(*gradients, strict=True):
        assert whole.any()
        assert_close(in_parts, whole, 1e-13)


def test_rows_do_not_see_each_other():
    layer, x, (h, c) = make(2), tensor(3, T, C), state(2, 3)
    y, ends = layer(x, (h, c))
    for row in range(3):
        rows = slice(row, row + 1)
        alone, end = layer(x[rows], (h[:, rows], c[:, rows]))
        assert_close(alone.data, y.data[rows])
        for part, of_all in zip(end, ends, strict=True):
            assert_close(part.data, of_all.data[:, rows])


# --- Sizes, dtypes, dropout -------------------------------------------------------------------


@every_depth
@pytest.mark.parametrize("shape", [(1, 1), (B, 1), (1, T), (0, T), (B, 0), (0, 0)])
def test_sizes_one_and_zero_are_sizes_like_others(layers, shape):
    layer, start = make(layers), state(layers, shape[0])
    y, (h, c) = layer(tensor(*shape, C), start)
    assert y.shape == (*shape, H) and h.shape == c.shape == (layers, shape[0], H)
    if not shape[1]:  # nothing read
        assert np.array_equal(h.data, start[0].data) and np.array_equal(c.data, start[1].data)
    (y.sum() + h.sum() + c.sum()).backward()
    assert all(part.grad.shape == part.shape for part in start)
    assert all(p.grad is None or np.isfinite(p.grad).all() for p in layer.parameters())


def test_one_feature_in_and_one_out_is_an_lstm_like_others():
    layer = LSTM(1, 1, 2, rng=rng()).astype(np.float64)
    check_gradients(lambda x: layer(x)[0], [rng().normal(size=(1, 3, 1))], layer)


def test_float32_stays_float32_in_output_state_and_every_gradient():
    layer, x = make(2, np.float32, dropout=0.1), tensor(B, T, C, dtype=np.float32)
    x.requires_grad = True
    y, (h, c) = layer(x, rng=rng())
    (y.sum() + c.sum()).backward()
    dtypes = {y.dtype, h.dtype, c.dtype, *(p.grad.dtype for p in (x, *layer.parameters()))}
    assert dtypes == {np.dtype(np.float32)}


def test_dropout_falls_between_the_layers_in_training_alone(monkeypatch):
    def listen(shape, p, generator):
        shapes.append(shape)
        return draw(shape, p, generator)

    shapes, draw, x = [], kernels.random_mask, tensor(B, T, C)
    monkeypatch.setattr(kernels, "random_mask", listen)
    layer = make(3, dropout=0.5)
    dropped = layer(x, rng=rng())[0].data
    assert shapes == [(B, T, H)] * 2
    assert not np.array_equal(layer(x, rng=rng(1))[0].data, dropped)
    assert np.array_equal(layer.eval()(x)[0].data, make(3)(x)[0].data)
    make(1, dropout=0.5)(x)  # a single layer has no place for it
    assert len(shapes) == 4


# --- The state in the place of a cache --------------------------------------------------------


def new_state(layer, batch=B):
    return RecurrentState(layer.num_layers, batch, H, np.float64)


@every_depth
@settings(max_examples=20)
@given(chunks=st.lists(st.integers(1, 4), min_size=1, max_size=5))
def test_reading_on_from_a_state_equals_reading_all_at_once(layers, chunks):
    layer, x = make(layers), tensor(B, sum(chunks), C)
    memory, parts, begin = new_state(layer), [], 0
    with no_grad():
        for length in chunks:
            parts.append(memory.read(layer, x[:, begin : begin + length]).data)
            begin += length
        assert_close(np.concatenate(parts, axis=1), layer(x)[0].data)
    assert memory.length == sum(chunks)


def test_a_state_takes_the_same_memory_however_much_was_read():
    layer, memory = make(2), new_state(make(2))
    with no_grad():
        for _ in range(3):
            memory.read(layer, tensor(B, 100, C))
    assert memory.length == 300
    for kept in (memory.hidden, memory.cell):
        assert kept.shape == (2, B, H)
        assert kept.base is None or kept.base.size == 2 * kept.size  # not all that was worked out


@pytest.mark.parametrize("rows", [[2, 0, 0], [1, 1], [0, 1, 2, 2, 1]])
def test_reordered_rows_read_on_as_what_they_were(rows):
    layer, x, rows = make(2), tensor(3, T, C), np.array(rows)
    memory = new_state(layer, 3)
    with no_grad():
        memory.read(layer, x[:, :4])
        memory.reorder(rows, start=2)
        rest = memory.read(layer, Tensor(x.data[rows, 4:]))
        assert_close(rest.data, layer(x)[0].data[rows, 4:])


def test_a_state_is_refused_while_gradients_are_recorded_and_stays_as_it_was():
    layer = make()
    memory = new_state(layer)
    with pytest.raises(ValueError, match="expected no gradients, got some recorded; decode inside"):
        memory.read(layer, tensor(B, T, C))
    assert memory.length == 0 and not memory.hidden.any()


# --- What cannot be ---------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [(0, H, 1), (C, 0, 1), (C, H, 0)])
def test_a_layer_without_size_is_an_error(sizes):
    with pytest.raises(ValueError, match="expected input_size, hidden_size and num_layers >= 1"):
        LSTM(*sizes, rng=rng())


@pytest.mark.parametrize("shape", [(B, T, C + 1), (T, C), (B, T, C, 1)])
def test_an_input_of_another_shape_is_an_error_that_shows_all_shapes(shape):
    with pytest.raises(
        ValueError, match=r"lstm: expected x \(B, T, C\), .*, got \(.*put the batch"
    ):
        make()(tensor(*shape))


@pytest.mark.parametrize("shape", [(1, B, H), (2, B, H + 1), (2, 1, H), (B, H)])
@pytest.mark.parametrize("wrong", [0, 1])
def test_a_state_of_another_shape_is_an_error_that_says_which_it_should_be(shape, wrong):
    given = list(state(2))
    given[wrong] = tensor(*shape)
    with pytest.raises(ValueError, match=r"expected a state \(h, c\) of shape \(2, 2, 4\) each"):
        make(2)(tensor(B, T, C), tuple(given))


@pytest.mark.parametrize("wrong", range(1, 6))
def test_the_op_refuses_every_operand_of_another_shape(wrong):
    shapes = [(B, T, C), (B, H), (B, H), (4 * H, C), (4 * H, H), (4 * H,)]
    shapes[wrong] = (*shapes[wrong][:-1], shapes[wrong][-1] + 1)
    with pytest.raises(ValueError, match=r"bias \(4H\), got \(2, 6, 3\), "):
        F.lstm(*(tensor(*shape) for shape in shapes))


def test_dropout_without_an_rng_is_an_error():
    with pytest.raises(ValueError, match="expected an rng in training mode"):
        make(2, dropout=0.5)(tensor(B, T, C))
