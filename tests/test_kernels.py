"""Laws of worker threads, BLAS threads, row blocks and erf."""

import math
import os
import signal
import threading
import time
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from minilm import kernels


def test_results_come_in_the_order_of_the_functions():
    def late(value, seconds):
        time.sleep(seconds)
        return value

    functions = [lambda i=i: late(i, 0.02 * (3 - i)) for i in range(4)]
    assert kernels.run_parallel(functions) == [0, 1, 2, 3]
    assert kernels.run_parallel(functions[:1]) == [0]


def test_every_function_runs_at_the_same_time_the_first_in_the_callers_thread():
    meeting = threading.Barrier(3, timeout=10)  # passed only by three at once

    def meet():
        meeting.wait()
        return threading.current_thread()

    threads = kernels.run_parallel([meet] * 3)
    assert threads[0] is threading.current_thread()
    assert len(set(threads)) == 3


@pytest.mark.parametrize("failing", [0, 1, 2])
def test_an_exception_is_raised_after_all_have_stopped(failing):
    stopped = []

    def work(i):
        if i == failing:
            raise KeyError(f"worker {i}")
        time.sleep(0.05)
        stopped.append(i)

    with pytest.raises(KeyError, match=f"worker {failing}"):
        kernels.run_parallel([lambda i=i: work(i) for i in range(3)])
    assert sorted(stopped) == sorted({0, 1, 2} - {failing})
    assert kernels.run_parallel([lambda: 1, lambda: 2]) == [1, 2]  # the pool still works


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_threads_work_again_after_a_fork():
    functions = [lambda: 1, lambda: 2]
    kernels.run_parallel(functions)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # forking with threads is the point
        child = os.fork()
    if child == 0:
        os._exit(0 if kernels.run_parallel(functions) == [1, 2] else 1)
    for _ in range(1000):
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            break
        time.sleep(0.01)
    else:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        pytest.fail("the child waits for threads that did not survive the fork")
    assert os.waitstatus_to_exitcode(status) == 0


def test_blas_threads_are_set_inside_the_block_and_restored_even_on_an_error():
    before = kernels.get_blas_threads()
    with pytest.raises(KeyError), kernels.blas_threads(1):
        assert kernels.get_blas_threads() in (1, None)
        with kernels.blas_threads(2):
            assert kernels.get_blas_threads() in (2, None)
        assert kernels.get_blas_threads() in (1, None)
        raise KeyError
    assert kernels.get_blas_threads() == before


def test_blocks_of_blas_threads_that_overlap_in_two_threads_leave_the_count_as_it_was():
    """One begins first and ends first, so that the other ends with what it found."""
    before = kernels.get_blas_threads()
    first, second = kernels.blas_threads(1), kernels.blas_threads(1)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert kernels.get_blas_threads() in (1, None)
    second.__exit__(None, None, None)
    assert kernels.get_blas_threads() == before
    with kernels.blas_threads(2):
        assert kernels.get_blas_threads() in (2, None)
    assert kernels.get_blas_threads() == before


def test_a_foreign_blas_changes_nothing(monkeypatch):
    monkeypatch.setattr(kernels, "_openblas", lambda: None)
    with kernels.blas_threads(1):
        assert kernels.get_blas_threads() is None


def test_keeping_memory_pages_is_optional(monkeypatch):
    def refuse(name):
        raise OSError

    monkeypatch.setattr(kernels.ctypes, "CDLL", refuse)
    assert kernels.keep_memory_pages() is False


def test_there_is_at_least_one_core():
    assert kernels.cores() >= 1


@given(hnp.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=50), st.integers(1, 3000))
def test_row_blocks_cover_every_row_once_and_stay_small(shape, block_bytes):
    array = np.zeros(shape)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "BLOCK_BYTES", block_bytes)
        blocks = list(kernels.row_blocks(array))
    for block in blocks:
        array[block] += 1
        assert len(array[block]) > 0
        assert array[block].nbytes <= block_bytes or len(array[block]) == 1
    assert (array == 1).all()


@given(hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=9), st.integers(0, 100))
def test_a_random_mask_has_the_shape_and_is_the_same_for_the_same_seed(shape, seed):
    one, other = (kernels.random_mask(shape, 0.5, np.random.default_rng(seed)) for _ in range(2))
    assert one.shape == shape and one.dtype == bool
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 0.9, 0.9999999])
def test_a_random_mask_is_false_with_probability_p(p):
    n = 400_000
    mask = kernels.random_mask((n,), p, np.random.default_rng(0))
    deviation = math.sqrt(p * (1 - p) / n)
    assert abs((~mask).mean() - p) <= 4 * deviation + 2**-16
    # neighbours, which come out of one 64-bit number, are independent
    both = (~mask[0::2] & ~mask[1::2]).mean()
    assert abs(both - p * p) <= 4 * math.sqrt(2) * deviation + 2**-15


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("rows", [0, 1, 2, 3, 4, kernels.FEW_ROWS, kernels.FEW_ROWS + 1])
@pytest.mark.parametrize(("outputs", "width"), [(7, 5), (1000, 300), (2049, 3), (0, 4), (4, 0)])
def test_times_transposed_is_the_product_whatever_the_number_of_rows(rows, outputs, width, dtype):
    rng = np.random.default_rng(0)
    x, w = (rng.normal(size=(n, width)).astype(dtype) for n in (rows, outputs))
    y = kernels.times_transposed(x, w)
    assert y.dtype == dtype and y.flags.c_contiguous
    tolerance = {np.float32: 1e-5, np.float64: 1e-13}[dtype] * max(1, np.sqrt(width))
    np.testing.assert_allclose(y, x @ w.T, rtol=0, atol=tolerance)


# What the docstring states, over small, middling and large numbers of both signs.
POINTS = np.concatenate([np.linspace(-8, 8, 20_001), np.logspace(-30, 5, 1000), [-1e30, 0, 1e30]])


@pytest.mark.parametrize(("dtype", "error"), [(np.float32, 2e-7), (np.float64, 1e-15)])
def test_erf_is_as_precise_as_it_says(dtype, error):
    x = POINTS.astype(dtype)
    y = kernels.erf(x)
    exact = np.array([math.erf(float(value)) for value in x])
    assert y.dtype == dtype
    assert np.abs(y - exact).max() < error
    np.testing.assert_array_equal(kernels.erf(-x), -y)


def test_erf_keeps_the_shape_and_its_input():
    x = np.linspace(-9, 9, 24).reshape(2, 3, 4)
    x.flags.writeable = False
    assert kernels.erf(x).shape == (2, 3, 4)
    assert kernels.erf(np.zeros((0, 3), np.float32)).shape == (0, 3)


def test_run_parallel_inside_run_parallel_ends():
    def inner(name):
        return lambda: kernels.run_parallel([lambda i=i: (name, i) for i in range(3)])

    found = kernels.run_parallel([inner("a"), inner("b"), inner("c")])
    assert found == [[(name, i) for i in range(3)] for name in "abc"]
    assert kernels.run_parallel([]) == []


def test_erf_is_exactly_one_far_out():
    for dtype in (np.float32, np.float64):
        x = np.array([-1e4, -7, 7, 1e4, np.inf], dtype)
        np.testing.assert_array_equal(kernels.erf(x), [-1, -1, 1, 1, 1])
