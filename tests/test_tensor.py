"""Laws of the engine: the tape, backward, broadcasting, indexing, and every error it can give."""

import gc
import threading
import tracemalloc
import weakref

import numpy as np
import pytest
from gradcheck import gradcheck
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from minilm import tensor as T
from minilm.tensor import Tensor, grad_enabled, no_grad, unbroadcast, walk


def leaf(*shape, seed=0, dtype=np.float64):
    return Tensor(np.random.default_rng(seed).normal(size=shape).astype(dtype), requires_grad=True)


def grads(function, *arrays):
    """Gradients of function(*tensors).sum()."""
    leaves = [Tensor(np.asarray(a, np.float64), requires_grad=True) for a in arrays]
    function(*leaves).sum().backward()
    return [x.grad for x in leaves]


# --- Tensor -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "dtype"),
    [
        ([1.0, 2.0], np.float32),
        (3, np.float32),
        (np.arange(3), np.float32),
        (np.array([True, False]), np.float32),
        (np.ones(2, np.float16), np.float32),
        (np.ones(2, np.float32), np.float32),
        (np.ones(2), np.float64),
        (np.float64(1.5), np.float64),
    ],
)
def test_arrays_keep_their_float_dtype_and_all_else_becomes_float32(data, dtype):
    assert Tensor(data).dtype == dtype
    np.testing.assert_array_equal(Tensor(data).data, np.asarray(data))


def test_an_array_is_used_as_it_is():
    array = np.ones(3, np.float32)
    assert Tensor(array).data is array


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (["a"], r"expected numbers, got dtype <U1; convert to float first"),
        ([1j], r"expected numbers, got dtype complex128; convert to float first"),
        (Tensor(1.0), r"expected an array, got a Tensor; pass tensor\.data"),
    ],
)
def test_what_is_no_array_of_numbers_is_refused(data, message):
    with pytest.raises(TypeError, match=message):
        Tensor(data)


def test_attributes_are_those_of_the_array():
    x = leaf(2, 3)
    assert (x.shape, x.ndim, x.size, len(x), x.dtype) == ((2, 3), 2, 6, 2, np.float64)
    assert x.T.shape == (3, 2)
    assert Tensor(2.5).item() == 2.5
    assert repr(Tensor([1.0])) == "Tensor([1.])"
    assert repr(leaf(0)) == "Tensor([], requires_grad=True)"


def test_methods_and_operators_are_the_functions():
    a, b = Tensor(np.array([[1.0, -2.0], [3.0, 4.0]])), Tensor(np.array([[2.0, 1.0], [-1.0, 5.0]]))
    array, number = np.full((2, 2), 3.0), 2.0
    pairs = [
        (a + b, a.data + b.data),
        (a - b, a.data - b.data),
        (a * b, a.data * b.data),
        (a / b, a.data / b.data),
        (a @ b, a.data @ b.data),
        (-a, -a.data),
        (a**3, a.data**3),
        (a.sum(0), a.data.sum(0)),
        (a.mean(1, keepdims=True), a.data.mean(1, keepdims=True)),
        (a.max(-1), a.data.max(-1)),
        (a.reshape(4), a.data.reshape(4)),
        (a.reshape((1, -1)), a.data.reshape(1, -1)),
        (a.transpose(1, 0), a.data.T),
        (a.T, a.data.T),
        (a[1], a.data[1]),
        (a + array, a.data + 3),
        (array + a, 3 + a.data),
        (array - a, 3 - a.data),
        (array * a, 3 * a.data),
        (array / a, 3 / a.data),
        (array @ a, array @ a.data),
        (a @ array, a.data @ array),
        (number + a, 2 + a.data),
        (number - a, 2 - a.data),
        (number * a, 2 * a.data),
        (number / a, 2 / a.data),
        (a / number, a.data / 2),
    ]
    for result, expected in pairs:
        assert type(result) is Tensor
        np.testing.assert_array_equal(result.data, expected)


@pytest.mark.parametrize("number", [2, 2.0, np.float64(2), np.float32(2), np.int64(2)], ids=repr)
def test_a_bare_number_takes_the_dtype_of_the_tensor_beside_it(number):
    for dtype in (np.float32, np.float64):
        x = leaf(3, dtype=dtype)
        x.data[...] = np.abs(x.data) + 1
        for y in (
            *(x + number, x - number, x * number, x / number, x**number),
            *(number + x, number - x, number * x, number / x),
            *(T.maximum(x, number), T.maximum(number, x)),
            *(T.where(x.data > 0, x, number), T.where(x.data > 0, number, x)),
        ):
            assert y.dtype == dtype
            x.grad = None
            y.sum().backward()
            assert x.grad is None or x.grad.dtype == dtype


def test_detach_cuts_the_graph_and_shares_the_data():
    x = leaf(3)
    y = (x * 2).detach()
    assert not y.requires_grad and y.is_leaf
    (x * y).sum().backward()
    np.testing.assert_array_equal(x.grad, y.data)


# --- Backward ---------------------------------------------------------------------------------


def test_each_path_counts_once_in_the_diamond():
    a = Tensor(3.0, requires_grad=True)
    b = a + a
    c = b + b
    c.backward()
    assert a.grad == 4
    a.grad = None
    b = a * a
    c = b * b  # a⁴
    c.backward()
    assert a.grad == 4 * 3**3


def test_gradients_of_leaves_only_are_kept():
    x = leaf(3)
    y = x * 2
    z = y * y
    z.sum().backward()
    assert x.is_leaf and not y.is_leaf
    assert y.grad is None and z.grad is None and x.grad is not None


def test_gradients_accumulate_over_backward_calls():
    x, y = leaf(3), leaf(3, seed=1)
    (x * y).sum().backward()
    once = x.grad.copy()
    (x * y).sum().backward()
    np.testing.assert_array_equal(x.grad, 2 * once)


def test_a_gradient_is_an_array_of_the_leafs_own_shape_and_dtype():
    for shape in ((), (1,), (2, 3)):
        x = leaf(*shape, dtype=np.float32)
        (x * x).sum().backward()
        assert isinstance(x.grad, np.ndarray)
        assert (x.grad.shape, x.grad.dtype) == (shape, np.float32)


def test_leaves_do_not_share_one_gradient_array():
    x, y = leaf(3), leaf(3, seed=1)
    given_gradient = np.ones(3)
    (x + y).backward(given_gradient)
    x.grad += 100
    np.testing.assert_array_equal(y.grad, 1)
    np.testing.assert_array_equal(given_gradient, 1)


def test_a_given_gradient_is_dl_dself():
    x = leaf(2, 3)
    dy = np.arange(6.0).reshape(2, 3)
    (x * 2).backward(dy)
    np.testing.assert_array_equal(x.grad, 2 * dy)
    x.grad = None
    (x * 2).backward(Tensor(dy))
    np.testing.assert_array_equal(x.grad, 2 * dy)


def test_backward_on_a_leaf_gives_it_the_gradient_itself():
    x = Tensor([5.0], requires_grad=True)
    x.backward()
    np.testing.assert_array_equal(x.grad, [1])


def test_frozen_and_unrelated_tensors_get_no_gradient():
    x, frozen, unrelated = leaf(3), Tensor(np.ones(3)), leaf(3)
    (x * frozen + frozen).sum().backward()
    assert frozen.grad is None and unrelated.grad is None and x.grad is not None


def test_mixed_dtypes_give_every_leaf_a_gradient_of_its_own_dtype():
    x, y = leaf(3, dtype=np.float32), leaf(3)
    (x * y).sum().backward()
    assert (x.grad.dtype, y.grad.dtype) == (np.float32, np.float64)


def test_walk_hands_gradients_to_the_caller_and_leaves_grad_alone():
    x, y = leaf(3), leaf(3, seed=1)
    parts = []
    walk((x * y + x).sum(), np.ones(()), lambda source, part: parts.append((source, part)))
    assert x.grad is None and y.grad is None
    np.testing.assert_array_equal(sum(part for source, part in parts if source is x), y.data + 1)
    np.testing.assert_array_equal(sum(part for source, part in parts if source is y), x.data)


def test_a_chain_of_100_000_nodes_is_walked():
    x = Tensor(1.0, requires_grad=True)
    y = x
    for _ in range(100_000):
        y = y + 1.0
    y.backward()
    assert x.grad == 1


def test_a_chain_of_100_000_nodes_is_dropped_without_a_walk():
    y = x = Tensor(1.0, requires_grad=True)
    for _ in range(100_000):
        y = y * 1.0  # each vjp holds the tensor before it
    del y
    assert x.grad is None


@st.composite
def expressions(draw):
    """A random graph over three inputs, as a function; later lines may use any earlier result."""
    unary = [T.tanh, T.neg, lambda a: a * a, lambda a: T.exp(a * 0.1), lambda a: a.sum(0), T.erf]
    binary = [T.add, T.sub, T.mul, lambda a, b: a / (b * b + 1), lambda a, b: a @ (b * 0.1)]
    steps = []
    for n in range(3, 3 + draw(st.integers(1, 10))):
        i, j = draw(st.integers(0, n - 1)), draw(st.integers(0, n - 1))
        steps.append((draw(st.sampled_from(unary + binary)), i, j))

    def run(*inputs):
        results = list(inputs)
        for function, i, j in steps:
            arguments = results[i], results[j]
            y = function(arguments[0]) if function in unary else function(*arguments)
            results.append(T.tanh(y))
        total = results[-1].sum()
        for result in results:  # so that all inputs count
            total = total + (result * result).sum()
        return total

    return run


@settings(max_examples=40)
@given(expressions(), st.integers(0, 1000))
def test_random_graphs_have_the_gradients_that_differences_have(expression, seed):
    rng = np.random.default_rng(seed)
    gradcheck(expression, [rng.normal(size=(3, 3)) for _ in range(3)], rng)


# --- Freeing ----------------------------------------------------------------------------------


def test_a_second_backward_through_a_freed_graph_is_an_error():
    x = leaf(3)
    y = (x * x).sum()
    y.backward()
    message = (
        "backward: expected a live graph, got one that an earlier backward freed; "
        "call that one with retain_graph=True, or run the forward pass again"
    )
    with pytest.raises(ValueError, match=message):
        y.backward()
    shared = x * x
    shared.sum().backward()
    with pytest.raises(ValueError, match=message):  # a part of the graph is enough
        (shared * 2).sum().backward()


def test_a_retained_graph_can_be_walked_again():
    x = leaf(3)
    y = (x * x).sum()
    y.backward(retain_graph=True)
    y.backward(retain_graph=True)
    y.backward()
    np.testing.assert_allclose(x.grad, 6 * x.data, rtol=1e-15)


def test_backward_frees_what_the_graph_held():
    x = leaf(3)
    y = T.exp(x)
    held = weakref.ref(y.data)
    z = (y * y).sum()
    del y
    assert held() is not None  # the gradient needs it
    z.backward()
    assert held() is None


def test_results_that_no_gradient_needs_are_freed_at_once():
    x = leaf(3)
    y = x + 1
    held = weakref.ref(y.data)
    z = y + 1
    del y
    assert held() is None
    z.sum().backward()
    np.testing.assert_array_equal(x.grad, 1)


def training_step(x, w):
    hidden = T.tanh(x @ w)
    loss = (T.concatenate([hidden, hidden[:, ::-1]], 1) ** 2).mean()
    loss.backward()
    w.grad = None
    return weakref.ref(hidden.data)


def test_without_the_cycle_collector_nothing_stays_behind():
    x, w = Tensor(np.ones((8, 128))), leaf(128, 128)
    training_step(x, w)
    gc.collect()
    gc.disable()
    try:
        assert all(training_step(x, w)() is None for _ in range(20))
        assert gc.collect() == 0
    finally:
        gc.enable()


def test_without_the_cycle_collector_memory_does_not_grow():
    x, w = Tensor(np.ones((8, 128))), leaf(128, 128)
    gc.collect()
    gc.disable()
    tracemalloc.start()
    try:
        for _ in range(5):
            training_step(x, w)
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(50):
            training_step(x, w)
        growth = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
        gc.enable()
    assert growth < w.data.nbytes  # less than one matrix in 50 steps; Python keeps small objects


# --- no_grad ----------------------------------------------------------------------------------


def test_nothing_is_recorded_inside_no_grad():
    x = leaf(3)
    with no_grad():
        assert not grad_enabled()
        y = x * 2
    assert grad_enabled()
    assert y.is_leaf and not y.requires_grad
    assert (x * 2).requires_grad


def test_no_grad_decorates_functions_even_recursive_ones():
    x = leaf(3)

    @no_grad()
    def double(depth):
        """Docs."""
        if depth:
            double(depth - 1)
        assert not grad_enabled()
        return x * 2

    assert not double(2).requires_grad
    assert grad_enabled()
    assert double.__doc__ == "Docs."


def test_no_grad_nests_and_ends_with_an_exception():
    block = no_grad()
    with pytest.raises(KeyError), block, block:
        raise KeyError
    assert grad_enabled()
    with no_grad():
        with no_grad():
            pass
        assert not grad_enabled()


def test_no_grad_counts_for_its_own_thread_only():
    seen = []
    inside, looked = threading.Event(), threading.Event()

    @no_grad()
    def decode():
        inside.set()
        looked.wait(10)

    thread = threading.Thread(target=decode)
    thread.start()
    inside.wait(10)
    seen.append(grad_enabled())
    looked.set()
    thread.join()
    with no_grad():
        thread = threading.Thread(target=lambda: seen.append(grad_enabled()))
        thread.start()
        thread.join()
    assert seen == [True, True]


# --- Errors of backward -----------------------------------------------------------------------


def test_backward_of_many_numbers_needs_a_gradient():
    message = (
        r"backward: expected a scalar, got shape \(2, 3\); "
        r"call \.sum\(\) or \.mean\(\) first, or pass gradient=dL/dself"
    )
    with pytest.raises(ValueError, match=message):
        (leaf(2, 3) * 2).backward()


def test_a_given_gradient_must_have_the_shape_of_the_result():
    message = r"expected a gradient of shape \(2, 3\), got \(3,\); pass dL/dself"
    with pytest.raises(ValueError, match=message):
        (leaf(2, 3) * 2).backward(np.ones(3))


def test_backward_needs_something_that_requires_a_gradient():
    message = (
        "expected a result that depends on a tensor with requires_grad=True, "
        "got one that does not; set requires_grad=True, or leave the no_grad block"
    )
    with pytest.raises(ValueError, match=message):
        (Tensor(1.0) * 2).backward()


def assign_part(t):
    t[0] = 5.0


def assign_tensor(t):
    t[...] = Tensor(np.zeros(t.shape))


def add_in_place(t):
    t.data += 1.0


def replace(t):
    t.data = np.zeros(t.shape)


@pytest.mark.parametrize("change", [assign_part, assign_tensor, add_in_place, replace])
@pytest.mark.parametrize("which", ["leaf", "result", "the result that exp's gradient needs"])
def test_data_that_changed_in_place_stops_backward(change, which):
    x = leaf(2, 3)
    y = x * 3
    z = T.exp(y)
    loss = (z + y).sum()
    change({"leaf": x, "result": y}.get(which, z))
    message = (
        r"backward: expected data as it was in the forward pass, got a tensor of shape \(2, 3\) "
        "that was changed in place since; call backward before changing it, or change a copy"
    )
    with pytest.raises(ValueError, match=message):
        loss.backward()


@pytest.mark.parametrize("change", [assign_part, assign_tensor, add_in_place, replace])
def test_a_result_that_changed_before_it_was_used_stops_backward_too(change):
    y = T.exp(leaf(2, 3))  # its gradient needs y itself
    change(y)
    for root, dy in ((y.sum(), None), (y, np.ones((2, 3)))):
        with pytest.raises(ValueError, match=r"shape \(2, 3\) that was changed in place since"):
            root.backward(dy)


@pytest.mark.parametrize("change", [assign_part, assign_tensor, add_in_place, replace])
def test_data_may_change_before_it_is_used_and_after_backward(change):
    x = leaf(2, 3)
    change(x)
    loss = (x * x).sum()
    loss.backward()
    change(x)
    loss = (x * x * x).sum()
    x.grad = None
    loss.backward()
    np.testing.assert_allclose(x.grad, 3 * x.data**2, rtol=1e-15)


def test_changing_data_keeps_the_array_or_takes_the_new_one():
    x = Tensor(np.zeros(3))
    array = x.data
    x[1:] = [1, 2]
    assert x.data is array
    np.testing.assert_array_equal(array, [0, 1, 2])
    x[...] = Tensor([3.0, 4.0, 5.0])
    np.testing.assert_array_equal(array, [3, 4, 5])


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (T.add, "add"),
        (T.sub, "subtract"),
        (T.mul, "multiply"),
        (T.div, "divide"),
        (T.maximum, "maximum"),
        (T.matmul, "matmul"),
    ],
)
def test_shapes_that_do_not_fit_are_named(function, name):
    message = (
        rf"{name}: expected shapes that fit, got \(2, 3\) and \(2, 4\); "
        "reshape or transpose one of them"
    )
    with pytest.raises(ValueError, match=message):
        function(leaf(2, 3), leaf(2, 4))


# --- Broadcasting -----------------------------------------------------------------------------


@settings(max_examples=60)
@given(hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=4, max_side=4, min_side=0))
def test_broadcasting_is_undone_for_any_shapes(shapes):
    a, b = (leaf(*shape, seed=i) for i, shape in enumerate(shapes.input_shapes))
    dy = np.random.default_rng(2).normal(size=shapes.result_shape)
    (a * b).backward(dy)
    for x, other in ((a, b), (b, a)):
        expected = np.zeros(x.shape)
        wide = dy * np.broadcast_to(other.data, dy.shape)
        for i in np.ndindex(dy.shape):  # each element of x collects from wherever it was copied
            own = i[len(i) - x.ndim :]
            expected[tuple(0 if n == 1 else j for j, n in zip(own, x.shape, strict=True))] += wide[
                i
            ]
        np.testing.assert_allclose(x.grad, expected, rtol=1e-12, atol=1e-12)


@given(hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=3, max_side=4, min_side=0))
def test_unbroadcast_gives_the_shape_back_and_keeps_the_sum(shapes):
    shape = shapes.input_shapes[0]
    dy = np.ones(shapes.result_shape)
    dx = unbroadcast(dy, shape)
    assert dx.shape == shape
    assert dx.sum() == dy.sum()


@given(
    hnp.mutually_broadcastable_shapes(signature="(m,k),(k,n)->(m,n)", max_dims=2, max_side=3),
    st.integers(0, 100),
)
@settings(max_examples=30)
def test_matmul_broadcasts_over_leading_axes(shapes, seed):
    rng = np.random.default_rng(seed)
    gradcheck(T.matmul, [rng.normal(size=shape) for shape in shapes.input_shapes], rng)


# --- Ties, indexing, joining ------------------------------------------------------------------


def test_equal_values_share_the_gradient_of_a_maximum():
    a, b = grads(T.maximum, [1.0, 2.0, 5.0], [1.0, 3.0, 4.0])
    np.testing.assert_array_equal(a, [0.5, 0, 1])
    np.testing.assert_array_equal(b, [0.5, 1, 0])
    (x,) = grads(lambda x: x.max(1), [[2.0, 2.0, 1.0], [0.0, 4.0, 3.0]])
    np.testing.assert_array_equal(x, [[0.5, 0.5, 0], [0, 1, 0]])


INDICES = [
    1,
    -1,
    np.int64(2),
    slice(1, None),
    slice(None, None, -2),
    ...,
    None,
    (slice(None), -1),
    (..., 0),
    (..., None, slice(0, 2)),
    (0, None, slice(None), [1, 1]),
    [2, 0, 2, 2],
    np.array([[0, 1], [1, 0]]),
    ((0, 0, 2),),
    (range(2),),
    ([0, 1, 0], [3, 3, 3]),
    (slice(None), [0, -4, 0]),
    np.array([True, False, True]),
    np.arange(12).reshape(3, 4) % 5 == 0,
    (np.array([True, True, False]), slice(None), 1),
    (True, 0),
    np.zeros((3, 4), bool),
    slice(2, 2),
    (1, 2, 3),
]


@pytest.mark.parametrize("index", INDICES, ids=repr)
def test_every_element_gets_a_gradient_for_each_time_it_was_taken(index):
    x = leaf(3, 4, 5)
    places = np.arange(60).reshape(3, 4, 5)[index]
    y = x[index]
    np.testing.assert_array_equal(y.data, x.data[index])
    dy = np.random.default_rng(0).normal(size=y.shape)
    y.backward(dy)
    expected = np.zeros(60)
    for place, part in zip(np.ravel(places), dy.ravel(), strict=True):
        expected[place] += part
    np.testing.assert_allclose(x.grad.ravel(), expected, rtol=1e-14, atol=1e-14)


def test_an_index_out_of_range_is_an_index_error_and_ends_iteration():
    x = leaf(3, 2)
    with pytest.raises(IndexError):
        x[3]
    assert [row.shape for row in x] == [(2,)] * 3


@given(st.lists(st.integers(0, 3), min_size=1, max_size=4), st.integers(-2, 1))
def test_concatenate_cuts_the_gradient_at_the_seams(sizes, axis):
    shapes = [(2, size) if axis % 2 else (size, 2) for size in sizes]
    leaves = [leaf(*shape, seed=i) for i, shape in enumerate(shapes)]
    y = T.concatenate(leaves, axis)
    np.testing.assert_array_equal(y.data, np.concatenate([x.data for x in leaves], axis))
    dy = np.arange(float(y.size)).reshape(y.shape)
    y.backward(dy)
    joined = np.concatenate([x.grad for x in leaves], axis)
    np.testing.assert_array_equal(joined, dy)


def test_concatenating_a_tensor_with_itself_adds_both_parts():
    x = leaf(3)
    T.concatenate([x, x]).backward(np.arange(6.0))
    np.testing.assert_array_equal(x.grad, [3, 5, 7])


def test_heads_are_split_and_joined_again():
    x = leaf(2, 3, 8)
    np.testing.assert_array_equal(T.join_heads(T.split_heads(x, 4)).data, x.data)
    assert np.shares_memory(T.split_heads(x, 4).data, x.data)  # a view


def test_rows_that_stand_in_one_are_split_and_joined_as_after_a_reshape():
    x, y = leaf(6, 2, 8), leaf(6, 2, 8)
    together, alone = T.split_heads(x, 4, 3), T.split_heads(T.reshape(y, (3, 4, 8)), 4)
    assert together.shape == (3, 4, 4, 2)
    np.testing.assert_array_equal(together.data, alone.data)
    apart = T.join_heads(together * together, 6)
    np.testing.assert_array_equal(apart.data, x.data**2)
    dy = leaf(6, 2, 8, seed=1).data
    apart.backward(dy)
    T.join_heads(alone * alone).backward(dy.reshape(3, 4, 8))
    np.testing.assert_array_equal(x.grad, y.grad)


def test_vectors_multiply_as_rows_and_columns():
    a, b, m = leaf(3), leaf(3, seed=1), leaf(3, 3, seed=2)
    assert ((a @ b).shape, (a @ m).shape, (m @ b).shape) == ((), (3,), (3,))
    np.testing.assert_allclose((a @ m @ b).item(), a.data @ m.data @ b.data, rtol=1e-14)


@pytest.mark.parametrize("change", [assign_part, assign_tensor, add_in_place])
@pytest.mark.parametrize(
    "view",
    [
        lambda x: x.detach(),
        lambda x: x.reshape(3, 2),
        lambda x: x.T,
        lambda x: x[0],
        lambda x: x.detach().reshape(6)[1:],
    ],
)
def test_a_change_through_a_view_stops_backward_too(change, view):
    x = leaf(2, 3)
    loss = (x * x).sum()
    change(view(x))
    with pytest.raises(ValueError, match="was changed in place since"):
        loss.backward()


def test_an_operand_without_gradient_that_changed_in_place_stops_backward():
    x, constant = leaf(2, 3), Tensor(np.ones((2, 3)))
    loss = (x * constant).sum()
    constant[...] = 5.0
    with pytest.raises(ValueError, match="was changed in place since"):
        loss.backward()


def test_a_copy_may_change():
    x = leaf(2, 3)
    loss = (x * x).sum()
    (x * 1)[...] = 0.0
    Tensor(x.data.copy())[...] = 0.0
    loss.backward()
    np.testing.assert_array_equal(x.grad, 2 * x.data)
