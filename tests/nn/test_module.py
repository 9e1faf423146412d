"""Module: parameters found by name, saved, loaded, frozen, converted."""

import numpy as np
import pytest

from minilm.nn import Linear, Module, parameter
from minilm.tensor import Tensor


class Pair(Module):
    """A module whose parameters are its own."""

    def __init__(self, rng):
        self.gain = parameter(rng.normal(size=(2, 3)).astype(np.float32))
        self.shift = parameter(rng.normal(size=3).astype(np.float32))

    def forward(self, x):
        return (x @ self.gain) + self.shift


class Tree(Module):
    """Everything that a module may hold: parameters, modules, lists and tuples of both, others."""

    def __init__(self, rng):
        self.scale = parameter(np.ones((), np.float32))
        self.root = Pair(rng)
        self.leaves = [Pair(rng) for _ in range(11)]
        self.frame = (Pair(rng), Pair(rng))
        self.twin = Pair(rng)
        self.twin.gain = self.root.gain
        self.again = self.root
        self.name, self.rng, self.nothing = "tree", rng, None

    def forward(self, x):
        return self.root(x) * self.scale


@pytest.fixture
def tree():
    return Tree(np.random.default_rng(0))


def copied(module):
    return {name: array.copy() for name, array in module.state_dict().items()}


def unchanged(module, before):
    state = module.state_dict()
    return all(np.array_equal(state[name], array) for name, array in before.items())


def test_every_parameter_is_named_once_by_its_path_in_the_order_made(tree):
    pairs = ["root", *(f"leaves.{i}" for i in range(11)), "frame.0", "frame.1"]
    paths = [f"{pair}.{name}" for pair in pairs for name in ("gain", "shift")]
    assert [name for name, _ in tree.named_parameters()] == ["scale", *paths, "twin.shift"]


def test_a_name_leads_to_the_tensor_itself(tree):
    named = dict(tree.named_parameters())
    assert named["leaves.10.shift"] is tree.leaves[10].shift
    assert named["frame.1.gain"] is tree.frame[1].gain


def test_a_tied_parameter_has_its_first_name_only_and_is_counted_once():
    class Tied(Module):
        def __init__(self):
            rng = np.random.default_rng(0)
            self.embedding = Linear(4, 5, bias=False, rng=rng)
            self.head = Linear(4, 5, rng=rng)
            self.head.weight = self.embedding.weight

    assert [name for name, _ in Tied().named_parameters()] == ["embedding.weight", "head.bias"]
    assert len(Tied().parameters()) == len(Tied().state_dict()) == 2
    assert Tied().count_parameters() == 4 * 5 + 5


def test_two_tensors_of_equal_values_are_two_parameters():
    class Equal(Module):
        def __init__(self):
            self.a, self.b = (parameter(np.ones(3, np.float32)) for _ in range(2))

    assert [name for name, _ in Equal().named_parameters()] == ["a", "b"]


def test_modules_are_named_from_the_outside_in(tree):
    names = [name for name, _ in tree.named_modules()]
    assert names[:3] == ["", "root", "leaves.0"]
    assert names[-4:] == ["frame.0", "frame.1", "twin", "again"]
    assert dict(tree.named_modules())["leaves.3"] is tree.leaves[3]


def test_the_number_of_parameters_is_the_sum_of_their_sizes(tree):
    assert tree.count_parameters() == 1 + 14 * (2 * 3 + 3) + 3


def test_the_state_holds_the_parameters_own_arrays(tree):
    state = tree.state_dict()
    assert all(state[name] is tensor.data for name, tensor in tree.named_parameters())


def test_loading_the_state_of_another_module_makes_the_two_equal(tree):
    other = Tree(np.random.default_rng(1))
    arrays = tree.state_dict()
    tree.load_state_dict(other.state_dict())
    assert unchanged(tree, other.state_dict())
    assert all(tree.state_dict()[name] is array for name, array in arrays.items())  # in place
    x = Tensor(np.ones((4, 2), np.float32))
    assert np.array_equal(tree(x).data, other(x).data)


def test_what_was_loaded_is_a_copy(tree):
    state = copied(tree)
    tree.load_state_dict(state)
    state["scale"][...] = 7
    assert tree.scale.item() == 1


def test_loading_keeps_the_parameters_dtype(tree):
    tree.load_state_dict({name: array.astype(np.float64) for name, array in copied(tree).items()})
    assert {array.dtype for array in tree.state_dict().values()} == {np.dtype(np.float32)}


def test_loading_names_every_missing_unexpected_and_mis_shaped_entry_and_changes_nothing(tree):
    before = copied(tree)
    state = {name: array + 1 for name, array in before.items()}
    del state["scale"], state["leaves.4.gain"]
    state["ghost"] = state["leaves.11.gain"] = np.zeros(1)
    state["root.gain"] = state["root.gain"].T
    state["frame.0.shift"] = np.zeros((1, 3))  # broadcasts, and still is another shape
    with pytest.raises(ValueError, match="expected the entries of Tree") as error:
        tree.load_state_dict(state)
    message = str(error.value)
    for part in (
        "scale: missing",
        "leaves.4.gain: missing",
        "ghost: unexpected",
        "leaves.11.gain: unexpected",
        "root.gain: expected shape (2, 3), got (3, 2)",
        "frame.0.shift: expected shape (3,), got (1, 3)",
    ):
        assert part in message
    assert message.count("missing") == 2 and message.count("unexpected") == 2
    assert unchanged(tree, before)


def test_loading_without_strict_passes_over_what_is_missing_or_unexpected(tree):
    before = copied(tree)
    tree.load_state_dict({"root.shift": np.full(3, 5.0), "ghost": np.zeros(1)}, strict=False)
    assert np.array_equal(tree.root.shift.data, [5, 5, 5])
    del before["root.shift"]
    assert unchanged(tree, before)


def test_loading_without_strict_still_refuses_a_wrong_shape_and_changes_nothing(tree):
    before = copied(tree)
    with pytest.raises(ValueError, match=r"root\.gain: expected shape \(2, 3\), got \(\)"):
        tree.load_state_dict({"root.shift": np.zeros(3), "root.gain": np.float32(1)}, strict=False)
    assert unchanged(tree, before)


def test_loading_what_are_no_numbers_changes_nothing(tree):
    before = copied(tree)
    state = {name: array + 1 for name, array in before.items()}
    state["frame.1.shift"] = np.array(["a", "b", "c"])
    with pytest.raises(ValueError, match=r"frame\.1\.shift: expected numbers, got dtype <U1"):
        tree.load_state_dict(state)
    assert unchanged(tree, before)


def test_a_graph_from_before_loading_cannot_run_backward(tree):
    loss = tree(Tensor(np.ones((4, 2), np.float32))).sum()
    tree.load_state_dict(copied(tree))
    with pytest.raises(ValueError, match="changed in place"):
        loss.backward()


def test_train_and_eval_reach_every_module_and_return_the_module(tree):
    modules = [module for _, module in tree.named_modules()]
    assert all(module.training for module in modules)
    assert tree.eval() is tree
    assert not any(module.training for module in modules)
    assert tree.train() is tree
    assert all(module.training for module in modules)
    tree.leaves[2].eval()
    assert [module.training for module in tree.leaves].count(False) == 1 and tree.training


def test_freezing_a_prefix_freezes_exactly_the_parameters_below_it(tree):
    assert tree.freeze("leaves.1", "frame.", "root.gain") is tree  # leaves.10 is not below leaves.1
    frozen = {name for name, tensor in tree.named_parameters() if not tensor.requires_grad}
    assert frozen == {
        *("leaves.1.gain", "leaves.1.shift", "root.gain"),
        *(f"frame.{i}.{name}" for i in range(2) for name in ("gain", "shift")),
    }


@pytest.mark.parametrize("prefix", ["rood", "leaves.11", "leaves.1.ga", "", "gain"])
def test_freezing_a_prefix_that_names_nothing_is_an_error_that_tells_the_names(tree, prefix):
    with pytest.raises(ValueError, match="expected the beginning of a parameter's name") as error:
        tree.freeze(prefix)
    assert repr(prefix) in str(error.value)
    assert "['frame', 'leaves', 'root', 'scale', 'twin']" in str(error.value)


def test_a_frozen_parameter_gets_no_gradient_and_the_others_do(tree):
    tree.freeze("root.gain")
    tree(Tensor(np.ones((4, 2), np.float32))).sum().backward()
    assert tree.root.gain.grad is None
    assert np.array_equal(tree.root.shift.grad, [4, 4, 4])


def test_requires_grad_freezes_and_unfreezes_everything(tree):
    x = Tensor(np.ones((4, 2), np.float32))
    assert tree.requires_grad_(False) is tree
    assert not any(tensor.requires_grad for tensor in tree.parameters())
    assert not tree(x).requires_grad
    tree.requires_grad_()
    assert all(tensor.requires_grad for tensor in tree.parameters())
    assert tree(x).requires_grad


def test_zero_grad_forgets_every_gradient(tree):
    for tensor in tree.parameters():
        tensor.grad = np.ones_like(tensor.data)
    tree.zero_grad()
    assert all(tensor.grad is None for tensor in tree.parameters())


def test_astype_converts_every_parameter_keeps_ties_and_forgets_gradients(tree):
    x = np.ones((4, 2))
    tree(Tensor(x.astype(np.float32))).sum().backward()
    assert tree.astype(np.float64) is tree
    assert {tensor.dtype for tensor in tree.parameters()} == {np.dtype(np.float64)}
    assert all(tensor.grad is None for tensor in tree.parameters())
    assert tree.twin.gain is tree.root.gain
    assert tree(Tensor(x)).dtype == np.float64
    tree.astype(np.float32)
    assert tree(Tensor(x.astype(np.float32))).dtype == np.float32


def test_float32_weights_survive_the_way_to_float64_and_back(tree):
    before = copied(tree)
    tree.astype(np.float64).astype(np.float32)
    assert unchanged(tree, before)


def test_a_module_without_forward_says_whose_is_missing():
    class Silent(Module):
        pass

    with pytest.raises(NotImplementedError, match="Silent needs a forward method"):
        Silent()()


def test_a_module_without_parameters_has_an_empty_state():
    empty = Module()
    assert empty.parameters() == [] and empty.state_dict() == {} and empty.count_parameters() == 0
    empty.load_state_dict({})
