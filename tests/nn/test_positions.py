"""Positions: sinusoids have the paper's values, rotations see only distances."""

import math

import numpy as np
import pytest
from nn.gradients import check_gradients

from minilm.nn import (
    RelativePositionBias,
    Rotary,
    relative_position_bucket,
    sinusoidal_positions,
)
from minilm.nn.positions import POSITIONS
from minilm.tensor import Tensor

B, H, T, D = 2, 3, 6, 8


def random(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


@pytest.mark.parametrize(("max_len", "d_model"), [(50, 6), (1, 2), (7, 32)])
def test_sinusoids_have_the_papers_values(max_len, d_model):
    table = sinusoidal_positions(max_len, d_model)
    assert table.shape == (max_len, d_model) and table.dtype == np.float32
    for t in range(max_len):
        for i in range(d_model // 2):
            angle = t / 10000 ** (2 * i / d_model)
            # Half a unit in the last place of a float32 below 1 is 2⁻²⁵ = 3e-8.
            assert table[t, 2 * i] == pytest.approx(math.sin(angle), abs=3e-8)
            assert table[t, 2 * i + 1] == pytest.approx(math.cos(angle), abs=3e-8)


def test_the_similarity_of_two_sinusoidal_positions_depends_only_on_their_distance():
    table = sinusoidal_positions(40, 16)
    similarity = table @ table.T
    for distance in range(40):
        diagonal = similarity.diagonal(distance)
        np.testing.assert_allclose(diagonal, diagonal[0], rtol=0, atol=1e-5)


def test_a_sinusoidal_position_is_a_fixed_linear_map_of_any_other_at_that_distance():
    table, distance = sinusoidal_positions(100, 8).astype(np.float64), 7
    angles = distance / 10000 ** (np.arange(0, 8, 2) / 8)
    sin, cos = table[:-distance, 0::2], table[:-distance, 1::2]
    moved = sin * np.cos(angles) + cos * np.sin(angles)
    np.testing.assert_allclose(table[distance:, 0::2], moved, rtol=0, atol=2e-7)


def test_widths_that_cannot_be_paired_are_errors():
    with pytest.raises(ValueError, match="expected an even d_model, got 5"):
        sinusoidal_positions(3, 5)
    with pytest.raises(ValueError, match="expected an even head width, got 3"):
        Rotary(3, 10)


@pytest.mark.parametrize("base", [10000.0, 100.0])
def test_rotary_turns_each_pair_of_halves_by_its_frequency_times_the_position(base):
    x = random(B, H, T, D)
    y = Rotary(D, T, base)(Tensor(x)).data
    half = D // 2
    for b, h, t, i in np.ndindex(B, H, T, half):
        angle = t * base ** (-2 * i / D)
        turned = complex(x[b, h, t, i], x[b, h, t, i + half]) * complex(
            math.cos(angle), math.sin(angle)
        )
        assert y[b, h, t, i] == pytest.approx(turned.real, abs=1e-14)
        assert y[b, h, t, i + half] == pytest.approx(turned.imag, abs=1e-14)


def test_rotary_at_position_zero_is_the_identity():
    x = random(B, H, T, D)
    assert np.array_equal(Rotary(D, T)(Tensor(x)).data[:, :, 0], x[:, :, 0])


def test_rotary_keeps_the_length_of_every_vector():
    x = random(B, H, T, D)
    y = Rotary(D, T)(Tensor(x)).data
    np.testing.assert_allclose(np.linalg.norm(y, axis=-1), np.linalg.norm(x, axis=-1), rtol=1e-14)


def test_the_product_of_turned_query_and_key_depends_only_on_their_distance():
    rotary, (q, k) = Rotary(D, 50), random(2, D)
    everywhere = [np.broadcast_to(x, (1, 1, 50, D)).copy() for x in (q, k)]
    queries, keys = (rotary(Tensor(x)).data[0, 0] for x in everywhere)
    products = queries @ keys.T
    for distance in range(-49, 50):
        diagonal = products.diagonal(distance)
        np.testing.assert_allclose(diagonal, diagonal[0], rtol=0, atol=1e-12)
    assert np.ptp(products[:, 0]) > 0.1  # and it does depend on that


@pytest.mark.parametrize("start", [0, 1, 5])
def test_rotary_from_a_start_goes_on_as_if_the_earlier_positions_were_there(start):
    rotary, x = Rotary(D, T + 5), random(B, H, T + 5, D)
    whole = rotary(Tensor(x)).data
    part = rotary(Tensor(x[:, :, start : start + T]), start).data
    assert np.array_equal(part, whole[:, :, start : start + T])


def test_the_table_grows_when_positions_come_and_keeps_what_it_said():
    rotary, x = Rotary(D, 10**9), random(B, H, 3, D)
    first = rotary(Tensor(x)).data
    assert len(rotary.cos) == len(rotary.sin) == POSITIONS
    late = rotary(Tensor(x), POSITIONS - 1).data
    assert len(rotary.cos) == 2 * (POSITIONS + 2)
    exact = Rotary(D, POSITIONS + 2)
    assert np.array_equal(exact(Tensor(x), POSITIONS - 1).data, late)
    assert np.array_equal(rotary(Tensor(x)).data, first)


@pytest.mark.parametrize(("length", "start"), [(9, 0), (3, 7), (1, 8), (2, 100)])
def test_positions_beyond_the_table_are_an_error_that_names_max_len(length, start):
    with pytest.raises(ValueError, match=rf"max_len = 8 positions, got {start + length}"):
        Rotary(D, 8)(Tensor(random(1, 1, length, D)), start)


@pytest.mark.parametrize("start", [0, 3])
def test_the_gradient_of_rotary_agrees_with_differences(start):
    check_gradients(lambda x: Rotary(D, T + 3)(x, start), [random(B, H, T, D)])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rotary_keeps_the_dtype(dtype):
    assert Rotary(D, T)(Tensor(random(B, H, T, D).astype(dtype))).dtype == dtype


# --- Relative positions -----------------------------------------------------------------------

# At which distance each of T5's buckets begins (32 buckets, distances up to 128).
ONE_SIDE = [*range(16), 16, 19, 21, 24, 27, 31, 35, 40, 46, 52, 59, 67, 77, 87, 99, 113]
BOTH_SIDES = [*range(8), 8, 12, 16, 23, 32, 46, 64, 91]


@pytest.mark.parametrize(
    ("bidirectional", "starts"), [(False, ONE_SIDE), (True, BOTH_SIDES)], ids=["one", "both"]
)
def test_the_buckets_are_those_of_the_published_table(bidirectional, starts):
    for distance in range(400):
        expected = max(i for i, start in enumerate(starts) if start <= distance)
        before, after = relative_position_bucket(np.array([-distance, distance]), bidirectional)
        assert before == expected
        assert after == (0 if not bidirectional else expected + 16 * (distance > 0))


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize(("n_buckets", "max_distance"), [(4, 3), (8, 20), (32, 128)])
def test_buckets_grow_with_the_distance_and_end_with_max_distance(
    bidirectional, n_buckets, max_distance
):
    places = -np.arange(3 * max_distance)
    buckets = relative_position_bucket(places, bidirectional, n_buckets, max_distance)
    last = n_buckets // 2 - 1 if bidirectional else n_buckets - 1
    assert set(np.diff(buckets)) <= {0, 1}
    assert buckets[0] == 0 and (buckets[max_distance:] == last).all()
    everywhere = np.concatenate([places, -places])
    found = relative_position_bucket(everywhere, bidirectional, n_buckets, max_distance)
    assert set(found) <= set(range(n_buckets))


@pytest.mark.parametrize(
    ("bidirectional", "n_buckets", "max_distance"), [(True, 3, 9), (False, 1, 9), (False, 32, 16)]
)
def test_buckets_that_cannot_be_are_an_error(bidirectional, n_buckets, max_distance):
    with pytest.raises(ValueError, match=f"got n_buckets {n_buckets}, max_distance {max_distance}"):
        relative_position_bucket(np.arange(3), bidirectional, n_buckets, max_distance)


def relative_bias(bidirectional=True):
    rng = np.random.default_rng(0)
    return RelativePositionBias(H, 8, 5, rng=rng, bidirectional=bidirectional).astype(np.float64)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize(("length", "key_length"), [(9, 9), (1, 1), (1, 30), (3, 8)])
def test_the_bias_of_a_pair_is_the_weight_of_its_bucket(bidirectional, length, key_length):
    layer = relative_bias(bidirectional)
    bias = layer(length, key_length).data
    assert bias.shape == (H, length, key_length)
    for h, t, s in np.ndindex(bias.shape):
        distance = np.array(s - (key_length - length + t))
        bucket = relative_position_bucket(distance, bidirectional, 8, 5)
        assert bias[h, t, s] == layer.weight.data[bucket, h]


def test_the_bias_of_the_last_queries_is_the_last_rows_of_the_whole():
    layer = relative_bias(False)
    for length in range(1, 10):
        assert np.array_equal(layer(length, 12).data, layer(12, 12).data[:, -length:])


@pytest.mark.parametrize("bidirectional", [False, True])
def test_the_gradient_of_the_relative_bias_agrees_with_differences(bidirectional):
    layer = relative_bias(bidirectional)
    check_gradients(lambda: layer(4, 9), module=layer)


def test_the_relative_bias_begins_with_the_deviation_asked_for():
    layer = RelativePositionBias(50, 64, 128, rng=np.random.default_rng(0), std=0.3)
    assert layer.weight.shape == (64, 50) and layer.weight.dtype == np.float32
    assert layer.weight.data.std() == pytest.approx(0.3, rel=0.05)
