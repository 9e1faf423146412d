"""Layers: each is its formula, with gradients for its input and every parameter."""

import math

import numpy as np
import pytest
from nn.gradients import check_gradients

from minilm import functional
from minilm.nn import (
    Dropout,
    Embedding,
    FeedForward,
    LayerNorm,
    Linear,
    RMSNorm,
    SwiGLU,
)
from minilm.tensor import Tensor

B, T, C, F, V = 2, 3, 5, 7, 11


def rng():
    return np.random.default_rng(0)


# name -> (make the layer from a generator, shape of its input)
LAYERS = {
    "linear": (lambda rng: Linear(C, F, rng=rng), (B, T, C)),
    "linear without bias": (lambda rng: Linear(C, F, bias=False, rng=rng), (B, T, C)),
    "layer norm": (lambda rng: LayerNorm(C), (B, T, C)),
    "rms norm": (lambda rng: RMSNorm(C), (B, T, C)),
    "feed-forward": (lambda rng: FeedForward(C, F, rng=rng), (B, T, C)),
    "swiglu": (lambda rng: SwiGLU(C, F, rng=rng), (B, T, C)),
}
every_layer = pytest.mark.parametrize(("make", "shape"), LAYERS.values(), ids=LAYERS)


def randomized(layer):
    """The layer in float64, no parameter of which is left at zeros or ones."""
    layer.astype(np.float64)
    generator = np.random.default_rng(1)
    for p in layer.parameters():
        p[...] = p.data + generator.normal(size=p.shape) * 0.5
    return layer


@every_layer
def test_gradients_of_the_input_and_all_parameters_agree_with_differences(make, shape):
    layer = randomized(make(rng()))
    check_gradients(layer, [rng().normal(size=shape)], layer)


def test_the_gradient_of_an_embedding_adds_up_over_equal_ids():
    layer, ids = randomized(Embedding(V, C, rng=rng())), np.array([[1, 4, 4], [10, 4, 0]])
    check_gradients(lambda: layer(ids), module=layer)
    layer(ids).sum().backward()
    assert layer.weight.grad[:, 0].tolist() == [1, 1, 0, 0, 3, 0, 0, 0, 0, 0, 1]


def test_the_gradient_of_dropout_passes_where_the_number_was_kept():
    check_gradients(lambda x: Dropout(0.4)(x, rng()), [rng().normal(size=(B, T, C))])


@every_layer
def test_float32_in_is_float32_out_and_in_every_gradient(make, shape):
    layer = make(rng())
    x = Tensor(rng().normal(size=shape).astype(np.float32), requires_grad=True)
    y = layer(x)
    y.sum().backward()
    assert {p.grad.dtype for p in [x, *layer.parameters()]} == {y.dtype} == {np.dtype(np.float32)}


@every_layer
def test_a_layer_treats_every_row_alike_whatever_the_leading_axes(make, shape):
    layer, x = randomized(make(rng())), rng().normal(size=(2, 3, 2, C))
    whole = layer(Tensor(x)).data
    rows = [layer(Tensor(row[None])).data[0] for row in x.reshape(-1, C)]
    np.testing.assert_allclose(whole.reshape(len(rows), -1), rows, rtol=0, atol=1e-14)
    assert layer(Tensor(x[:0])).shape == (0, *whole.shape[1:])


@pytest.mark.parametrize("make", [make for make, _ in LAYERS.values()], ids=LAYERS)
def test_the_same_seed_gives_the_same_bits(make):
    left, right = make(rng()), make(rng())
    for a, b in zip(left.parameters(), right.parameters(), strict=True):
        assert a.data.tobytes() == b.data.tobytes()


def test_linear_is_the_sum_of_its_products():
    layer, x = randomized(Linear(C, F, rng=rng())), rng().normal(size=(T, C))
    w, b = layer.weight.data, layer.bias.data
    expected = [
        [sum(x[t, i] * w[o, i] for i in range(C)) + b[o] for o in range(F)] for t in range(T)
    ]
    np.testing.assert_allclose(layer(Tensor(x)).data, expected, rtol=0, atol=1e-14)


def test_embedding_gives_each_id_its_row():
    layer = Embedding(V, C, rng=rng())
    ids = np.array([[3, 0], [10, 3]], np.uint16)
    assert np.array_equal(layer(ids).data[1, 0], layer.weight.data[10])
    assert np.array_equal(layer(ids).data[0, 0], layer(ids).data[1, 1])
    assert layer(ids).shape == (2, 2, C)


def test_layer_norm_brings_rows_to_mean_zero_and_variance_one_then_scales_and_shifts():
    layer, x = LayerNorm(C, eps=0.0).astype(np.float64), rng().normal(3, 10, (B, T, C))
    y = layer(Tensor(x)).data
    np.testing.assert_allclose(y.mean(-1), 0, atol=1e-14)
    np.testing.assert_allclose(y.var(-1), 1, rtol=1e-13)
    layer.weight[...], layer.bias[...] = np.arange(C), 7.0
    np.testing.assert_allclose(layer(Tensor(x)).data, y * np.arange(C) + 7, rtol=1e-13)


def test_rms_norm_brings_rows_to_mean_square_one_then_scales():
    layer, x = RMSNorm(C, eps=0.0).astype(np.float64), rng().normal(3, 10, (B, T, C))
    y = layer(Tensor(x)).data
    np.testing.assert_allclose((y * y).mean(-1), 1, rtol=1e-13)
    np.testing.assert_allclose(y / y[..., :1], x / x[..., :1], rtol=1e-13)
    layer.weight[...] = np.arange(C)
    np.testing.assert_allclose(layer(Tensor(x)).data, y * np.arange(C), rtol=1e-13)


def test_a_norms_eps_is_added_under_the_root():
    x = np.array([[3.0, -3.0]])  # mean 0, variance and mean square 9
    for layer in (LayerNorm(2, eps=7.0), RMSNorm(2, eps=7.0)):
        np.testing.assert_allclose(layer.astype(np.float64)(Tensor(x)).data, x / 4, rtol=1e-15)


def test_feed_forward_is_two_linear_maps_around_gpt2s_gelu():
    layer, x = randomized(FeedForward(C, F, rng=rng())), rng().normal(size=C)
    up, down = layer.up, layer.down
    hidden = up.weight.data @ x + up.bias.data
    root = math.sqrt(2 / math.pi)
    gelu = [0.5 * z * (1 + math.tanh(root * (z + 0.044715 * z**3))) for z in hidden]
    expected = down.weight.data @ gelu + down.bias.data
    np.testing.assert_allclose(layer(Tensor(x[None])).data[0], expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("activation", [functional.relu, functional.gelu])
def test_the_feed_forward_is_around_the_activation_asked_for(activation):
    layer = randomized(FeedForward(C, F, rng=rng(), activation=activation))
    x = Tensor(rng().normal(size=(2, C)))
    expected = layer.down(activation(layer.up(x))).data
    assert np.array_equal(layer(x).data, expected)
    default = FeedForward(C, F, rng=rng()).astype(np.float64)
    default.load_state_dict(layer.state_dict())
    assert not np.array_equal(default(x).data, expected)


def test_swiglu_is_a_feed_forward_whose_hidden_units_are_gated_by_silu():
    layer, x = randomized(SwiGLU(C, F, rng=rng())), rng().normal(size=C)
    gate, up = layer.gate.weight.data @ x, layer.up.weight.data @ x
    hidden = [g / (1 + math.exp(-g)) * u for g, u in zip(gate, up, strict=True)]
    expected = layer.down.weight.data @ hidden
    np.testing.assert_allclose(layer(Tensor(x[None])).data[0], expected, rtol=0, atol=1e-14)
    assert not any(name.endswith("bias") for name in layer.state_dict())


# --- Initialisation ---------------------------------------------------------------------------


def test_linear_weights_are_uniform_within_one_over_root_in_features_and_biases_zero():
    layer = Linear(400, 300, rng=rng())
    weight = layer.weight.data
    assert weight.shape == (300, 400) and weight.dtype == np.float32
    assert 0.0499 < weight.max() <= 0.05 and -0.05 <= weight.min() < -0.0499
    # The deviation of 120,000 uniform numbers differs from 0.05/√3 by about 0.15 %.
    assert weight.std() == pytest.approx(0.05 / math.sqrt(3), rel=0.01)
    assert not layer.bias.data.any()


@pytest.mark.parametrize("std", [0.02, 1.5])
def test_weights_are_normal_with_the_deviation_asked_for(std):
    for weight in (
        Linear(400, 300, rng=rng(), std=std).weight.data,
        Embedding(400, 300, rng=rng(), std=std).weight.data,
        FeedForward(100, 1200, rng=rng(), std=std).up.weight.data,
        FeedForward(100, 1200, rng=rng(), std=9.0, out_std=std).down.weight.data,
        SwiGLU(100, 1200, rng=rng(), std=std).gate.weight.data,
        SwiGLU(100, 1200, rng=rng(), std=std).up.weight.data,
        SwiGLU(100, 1200, rng=rng(), std=9.0, out_std=std).down.weight.data,
    ):
        assert weight.dtype == np.float32
        assert weight.mean() == pytest.approx(0, abs=0.02 * std)
        assert weight.std() == pytest.approx(std, rel=0.01)
        assert np.mean(np.abs(weight) < std) == pytest.approx(0.6827, abs=0.01)  # of a normal


def test_a_deviation_of_zero_gives_zeros_and_no_bias_means_none():
    layer = Linear(C, F, bias=False, rng=rng(), std=0.0)
    assert not layer.weight.data.any()
    assert layer.bias is None and list(layer.state_dict()) == ["weight"]


def test_the_sizes_of_the_layers_parameters():
    counts = {name: make(rng()).count_parameters() for name, (make, _) in LAYERS.items()}
    assert counts == {
        "linear": C * F + F,
        "linear without bias": C * F,
        "layer norm": 2 * C,
        "rms norm": C,
        "feed-forward": 2 * C * F + F + C,
        "swiglu": 3 * C * F,
    }


def test_an_input_of_the_wrong_width_is_an_error():
    with pytest.raises(ValueError, match=r"expected x \(\.\.\., 5\).*got \(2, 4\)"):
        Linear(C, F, rng=rng())(Tensor(np.zeros((2, 4))))


# --- Dropout ----------------------------------------------------------------------------------


def test_dropout_in_training_zeroes_the_share_p_and_scales_the_rest():
    x = np.full((200, 500), 3.0)
    y = Dropout(0.2)(Tensor(x), rng()).data
    assert set(np.unique(y)) == {0.0, 3.0 * (1 / 0.8)}
    # The share among 100,000 has a deviation of √(0.2 · 0.8 / 100,000) = 0.0013.
    assert np.mean(y == 0) == pytest.approx(0.2, abs=0.007)
    assert y.mean() == pytest.approx(3.0, abs=0.03)


def test_dropout_is_the_identity_in_evaluation_and_for_p_zero():
    x = Tensor(np.ones((4, 4)))
    assert Dropout(0.5).eval()(x, None) is x
    assert Dropout(0.0)(x, None) is x


def test_dropout_draws_anew_each_time_and_the_same_from_the_same_seed():
    layer, x, generator = Dropout(0.5), Tensor(np.ones((8, 8))), rng()
    first, second = layer(x, generator).data, layer(x, generator).data
    assert not np.array_equal(first, second)
    assert np.array_equal(layer(x, rng()).data, first)


def test_dropout_in_training_without_an_rng_is_an_error_that_names_the_two_ways_out():
    with pytest.raises(
        ValueError, match=r"rng=np\.random\.default_rng\(seed\), or call model\.eval"
    ):
        Dropout(0.5)(Tensor(np.ones(3)), None)


@pytest.mark.parametrize("p", [-0.1, 1.0, 1.5, math.nan])
def test_a_share_that_cannot_be_dropped_is_an_error(p):
    with pytest.raises(ValueError, match=f"expected 0 <= p < 1, got {p}"):
        Dropout(p)
