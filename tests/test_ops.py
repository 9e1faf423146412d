"""Five laws of every public op, from the rows of ops_table.py; and some that come for free."""

import gc
import inspect

import numpy as np
import pytest
from gradcheck import gradcheck
from hypothesis import given, settings
from hypothesis import strategies as st
from ops_table import CASES, FUNCTIONAL, TENSOR, Case, Example

from minilm import functional, reference, tensor
from minilm.tensor import no_grad

# What tensor.py has beside its primitives.
ENGINE = {"as_tensor", "from_op", "grad_enabled", "needs_grad", "unbroadcast", "walk"}

every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
twins = {name: case for name, case in CASES.items() if name.startswith("functional")}
few = settings(max_examples=6)


def public_functions(module):
    functions = inspect.getmembers(module, inspect.isfunction)
    own = {module.__name__, "minilm.attention", "minilm.recurrent"}  # files of functional's own
    return {n for n, f in functions if f.__module__ in own and n[0] != "_"}


def one_of(case: Case) -> Example:
    """An example that is always the same."""
    return case.example({"B": 2, "T": 4, "S": 3, "C": 5, "D": 6, "F": 7, "H": 5, "V": 8}, seed=0)


def close(actual, expected, tolerance=1e-12):
    """Equal but for rounding: a few hundred float64 roundings of numbers around 1."""
    np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance)


def test_every_public_op_has_a_row():
    assert public_functions(functional) == set(FUNCTIONAL)
    assert public_functions(tensor) - ENGINE == set(TENSOR)


def test_functional_and_reference_have_the_same_names_and_signatures():
    assert public_functions(reference) == public_functions(functional)
    for name in public_functions(reference):
        signatures = {inspect.signature(getattr(m, name)) for m in (reference, functional)}
        assert len(signatures) == 1, name
    assert reference.IGNORE_INDEX == functional.IGNORE_INDEX


@every_case
@few
@given(st.data())
def test_shapes_are_those_of_the_shapes_line(case, data):
    example = data.draw(case.examples())
    check_shapes(example)


def check_shapes(example: Example) -> None:
    tensors = example.tensors()
    y = example.call(tensors)
    assert y.shape == example.case.parsed.output.shape(example.sizes)
    y.backward(np.ones(y.shape))
    for leaf in tensors.values():
        assert leaf.grad.shape == leaf.shape


@every_case
@few
@given(st.data())
def test_the_value_is_that_of_the_formula(case, data):
    example = data.draw(case.examples())
    close(example.call(example.tensors()).data, example.specified())


@every_case
@few
@given(st.data())
def test_gradients_equal_differences(case, data):
    check_gradients(data.draw(case.examples()))


def check_gradients(example: Example) -> None:
    names = example.case.differentiable

    def op(*tensors):
        return example.call(dict(zip(names, tensors, strict=True)))

    inputs = [example.inputs[name] for name in names]
    gradcheck(op, inputs, np.random.default_rng(example.seed))


@pytest.mark.parametrize("case", twins.values(), ids=twins.keys())
@few
@given(st.data())
def test_functional_equals_reference(case, data):
    example = data.draw(case.examples())
    results = []
    for room in (functional, reference):
        tensors = example.tensors()
        y = example.call(tensors, getattr(room, case.op.__name__))
        y.backward(np.random.default_rng(example.seed).normal(size=y.shape))
        results.append((y.data, *(leaf.grad for leaf in tensors.values())))
    for fused, composed in zip(*results, strict=True):
        close(fused, composed)


@every_case
@few
@given(st.data())
def test_float32_stays_float32(case, data):
    example = data.draw(case.examples())
    tensors = example.tensors(np.float32)
    y = example.call(tensors)
    assert y.dtype == np.float32
    # float32 carries 7 digits, and results are sums of some dozens of numbers up to 10
    close(y.data, example.call(example.tensors()).data, 3e-5)
    dy = np.ones(y.shape, np.float32)
    dy.flags.writeable = False  # a vjp must not change what other ops may hold too
    parts = y.node.vjp(dy)  # before the engine converts what it gets
    assert {part.dtype for part in parts if part is not None} == {np.dtype(np.float32)}
    y.backward(dy)
    assert {leaf.grad.dtype for leaf in tensors.values()} == {np.dtype(np.float32)}


# --- Beyond the five --------------------------------------------------------------------------


@every_case
def test_an_axis_of_size_1_changes_nothing_about_an_op(case):
    example = one_of(case)
    for letter in case.parsed.letters:
        small = case.example({**example.sizes, letter: 1}, seed=1)
        if "index" in small.options and letter in "BC":
            continue  # its index asks for more
        check_shapes(small)
        close(small.call(small.tensors()).data, small.specified())
        check_gradients(small)


@every_case
def test_an_axis_of_size_0_gives_empty_or_neutral_results(case):
    example = one_of(case)
    for letter in set(case.parsed.letters) & set(case.empty):
        empty = case.example({**example.sizes, letter: 0}, seed=2)
        check_shapes(empty)
        close(empty.call(empty.tensors()).data, empty.specified())


@every_case
def test_a_frozen_input_gets_no_gradient_and_the_others_theirs(case):
    example = one_of(case)
    expected = example.tensors()
    example.call(expected).backward(np.ones(case.parsed.output.shape(example.sizes)))
    for frozen in case.differentiable:
        tensors = example.tensors(frozen=frozen)
        y = example.call(tensors)
        assert y.requires_grad == (len(tensors) > 1)
        if y.requires_grad:
            y.backward(np.ones(y.shape))
        assert tensors[frozen].grad is None
        for name in set(tensors) - {frozen}:
            np.testing.assert_array_equal(tensors[name].grad, expected[name].grad)


@every_case
def test_a_retained_graph_gives_the_same_gradients_again(case):
    example = one_of(case)
    tensors = example.tensors()
    y = example.call(tensors)
    dy = np.random.default_rng(0).normal(size=y.shape)
    y.backward(dy, retain_graph=True)
    once = {name: leaf.grad.copy() for name, leaf in tensors.items()}
    y.backward(dy)
    for name, leaf in tensors.items():
        np.testing.assert_array_equal(leaf.grad, 2 * once[name])


@every_case
def test_nothing_is_recorded_without_gradients_and_the_value_is_the_same(case):
    example = one_of(case)
    with no_grad():
        y = example.call(example.tensors())
    assert y.node is None and not y.requires_grad
    np.testing.assert_array_equal(y.data, example.call(example.tensors()).data)


@every_case
def test_no_op_makes_a_reference_cycle(case):
    example = one_of(case)
    gc.disable()
    gc.freeze()  # look at new objects only
    try:
        y = example.call(example.tensors())
        y.backward(np.ones(y.shape))
        y = example.call(example.tensors())  # and a graph that is never walked
        del y
        assert gc.collect() == 0
    finally:
        gc.unfreeze()
        gc.enable()
