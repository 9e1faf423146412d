"""Optimizers, clipping, schedules: each equals the formula of its paper."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minilm import optim
from minilm.nn import Linear, Module
from minilm.optim import (
    SGD,
    Adam,
    AdamW,
    Muon,
    Optimizers,
    clip_grad_norm,
    constant_schedule,
    cosine_schedule,
    decay_groups,
    inverse_sqrt_schedule,
    linear_schedule,
    orthogonalize,
)
from minilm.tensor import Tensor

SHAPES = [(3, 4), (5,), (), (2, 1, 3), (4, 3)]
MATRICES = [(3, 5), (5, 3), (4, 4), (1, 6)]
STEPS = 20


def make_parameters(shapes=SHAPES, dtype=np.float64):
    rng = np.random.default_rng(0)
    return [Tensor(rng.normal(size=shape).astype(dtype), requires_grad=True) for shape in shapes]


def set_gradients(parameters, step):
    rng = np.random.default_rng(1000 + step)
    for p in parameters:
        p.grad = rng.normal(size=p.shape).astype(p.dtype)


def train(optimizer, steps=range(STEPS), workers=1):
    """Take the steps; the parameters afterwards."""
    for step in steps:
        set_gradients(optimizer.parameters, step)
        optimizer.step(workers)
    return [p.data.copy() for p in optimizer.parameters]


def equal_bits(left, right):
    return all(a.tobytes() == b.tobytes() for a, b in zip(left, right, strict=True))


# --- The papers' formulas, a number at a time -------------------------------------------------


def sgd_rule(lr, momentum=0.0, nesterov=False, weight_decay=0.0):
    def rule(theta, g, memory, t):
        g = g + weight_decay * theta
        u = momentum * memory["u"] + g if "u" in memory else g  # the first u is g
        memory["u"] = u
        return theta - lr * (g + momentum * u if nesterov else u)

    return rule


def adam_rule(lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, decoupled=False):
    beta1, beta2 = betas

    def rule(theta, g, memory, t):
        if not decoupled:
            g = g + weight_decay * theta
        m = memory["m"] = beta1 * memory.get("m", 0.0) + (1 - beta1) * g
        v = memory["v"] = beta2 * memory.get("v", 0.0) + (1 - beta2) * (g * g)
        m_hat, v_hat = m / (1 - beta1**t), v / (1 - beta2**t)
        update = m_hat / (math.sqrt(v_hat) + eps)
        if decoupled:
            update = update + weight_decay * theta
        return theta - lr * update

    return rule


def adamw_rule(**settings):
    return adam_rule(**settings, decoupled=True)


ELEMENTWISE = [
    (SGD, sgd_rule, {"lr": 0.1}),
    (SGD, sgd_rule, {"lr": 0.1, "weight_decay": 0.3}),
    (SGD, sgd_rule, {"lr": 0.1, "momentum": 0.9}),
    (SGD, sgd_rule, {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.3}),
    (SGD, sgd_rule, {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.3}),
    (Adam, adam_rule, {}),
    (Adam, adam_rule, {"lr": 0.1, "betas": (0.8, 0.95), "eps": 1e-3, "weight_decay": 0.3}),
    (AdamW, adamw_rule, {}),
    (AdamW, adamw_rule, {"lr": 0.1, "betas": (0.8, 0.95), "eps": 1e-3, "weight_decay": 0.3}),
]


@pytest.mark.parametrize(("optimizer", "rule", "settings"), ELEMENTWISE)
def test_every_step_equals_the_papers_formula_to_the_last_bit(optimizer, rule, settings):
    parameters = make_parameters()
    expected = [p.data.copy() for p in parameters]
    numbers = [(array, index) for array in expected for index in np.ndindex(array.shape)]
    memories = [{} for _ in numbers]
    update, under_test = rule(**settings), optimizer(parameters, **settings)
    for step in range(STEPS):
        set_gradients(parameters, step)
        gradients = [float(p.grad[i]) for p in parameters for i in np.ndindex(p.shape)]
        for (array, i), g, memory in zip(numbers, gradients, memories, strict=True):
            array[i] = update(float(array[i]), g, memory, step + 1)
        under_test.step()
        assert equal_bits([p.data for p in parameters], expected)


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
def test_every_step_of_muon_equals_its_formula_to_the_last_bit(nesterov, weight_decay):
    parameters, lr, momentum = make_parameters(MATRICES), 0.02, 0.95
    expected = [p.data.copy() for p in parameters]
    momenta = [np.zeros_like(theta) for theta in expected]
    optimizer = Muon(parameters, lr, momentum, nesterov, weight_decay)
    for step in range(STEPS):
        set_gradients(parameters, step)
        for theta, u, p in zip(expected, momenta, parameters, strict=True):
            rows, columns = theta.shape
            direction = np.empty_like(theta)
            for i in np.ndindex(theta.shape):
                u[i] = momentum * u[i] + p.grad[i]
                direction[i] = p.grad[i] + momentum * u[i] if nesterov else u[i]
            direction = orthogonalize(direction)
            for i in np.ndindex(theta.shape):
                kept = theta[i] * (1 - lr * weight_decay)
                theta[i] = kept - lr * math.sqrt(max(1, rows / columns)) * direction[i]
        optimizer.step()
        assert equal_bits([p.data for p in parameters], expected)


def test_sgd_with_momentum_begins_with_the_plain_gradient():
    parameters = make_parameters()
    before = [p.data.copy() for p in parameters]
    set_gradients(parameters, 0)
    gradients = [p.grad.copy() for p in parameters]
    SGD(parameters, lr=0.5, momentum=0.9).step()
    for p, theta, g in zip(parameters, before, gradients, strict=True):
        assert np.array_equal(p.data, theta - 0.5 * g)


def test_the_first_step_of_adam_is_the_learning_rate_in_every_direction():
    parameters = make_parameters()
    before = [p.data.copy() for p in parameters]
    set_gradients(parameters, 0)
    signs = [np.sign(p.grad) for p in parameters]
    Adam(parameters, lr=0.25, eps=0.0).step()
    for p, theta, sign in zip(parameters, before, signs, strict=True):
        np.testing.assert_allclose(p.data, theta - 0.25 * sign, rtol=0, atol=1e-15)


def test_adams_steps_do_not_depend_on_the_size_of_the_gradients():
    runs = []
    for scale in (1.0, 2.0**40):  # a power of two changes no bit but the exponent
        parameters = make_parameters()
        optimizer = Adam(parameters, eps=0.0)
        for step in range(STEPS):
            set_gradients(parameters, step)
            for p in parameters:
                p.grad = np.asarray(p.grad * scale)
            optimizer.step()
        runs.append([p.data for p in parameters])
    assert equal_bits(*runs)


def test_where_gradients_are_zero_adamw_shrinks_weights_by_its_decay():
    parameters = make_parameters()
    before = [p.data.copy() for p in parameters]
    for p in parameters:
        p.grad = np.zeros_like(p.data)
    AdamW(parameters, lr=0.1, weight_decay=0.5).step()
    for p, theta in zip(parameters, before, strict=True):
        np.testing.assert_allclose(p.data, theta * (1 - 0.1 * 0.5), rtol=1e-15)


# --- Groups, absent gradients -----------------------------------------------------------------

MAKERS = {
    "sgd": lambda ps: SGD(ps, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.1),
    "adam": lambda ps: Adam(ps, lr=0.1, weight_decay=0.1),
    "adamw": lambda ps: AdamW(ps, lr=0.1, weight_decay=0.1),
    "muon": lambda ps: Muon(ps, lr=0.1, weight_decay=0.1),
}
every_optimizer = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)


def test_a_group_is_an_optimizer_with_hyper_parameters_of_its_own():
    alone = make_parameters()
    first = train_with_gradients_of(alone, AdamW(alone[:2], lr=0.1, weight_decay=0.5, eps=1e-6))
    second = train_with_gradients_of(alone, AdamW(alone[2:], lr=0.01, betas=(0.5, 0.6)))
    together = make_parameters()
    groups = [
        {"params": together[:2], "weight_decay": 0.5, "eps": 1e-6},
        {"params": together[2:], "lr": 0.01, "betas": (0.5, 0.6)},
    ]
    both = train_with_gradients_of(together, AdamW(groups, lr=0.1))
    assert equal_bits(both, first + second)


def train_with_gradients_of(parameters, optimizer):
    """Gradients drawn for all parameters, steps taken by an optimizer that holds some of them."""
    for step in range(STEPS):
        set_gradients(parameters, step)
        optimizer.step()
    return [p.data.copy() for p in optimizer.parameters]


def test_a_group_may_be_given_as_an_iterator():
    runs = []
    for wrap in (list, iter):
        parameters = make_parameters()
        runs.append(train(AdamW([{"params": wrap(parameters), "lr": 0.1}])))
    assert equal_bits(*runs) and equal_bits(runs[0], train(AdamW(iter(make_parameters()), lr=0.1)))


@every_optimizer
@pytest.mark.parametrize("absent", ["frozen", "without a gradient"])
@pytest.mark.parametrize("chosen", [(0,), (1, 2), (3,), (0, 1, 2, 3)])
def test_a_parameter_frozen_or_without_gradient_stays_and_the_others_step_as_ever(
    make, absent, chosen
):
    full, partial = make_parameters(MATRICES), make_parameters(MATRICES)
    before = [p.data.copy() for p in partial]
    optimizers = make(full), make(partial)
    for step in range(3):
        for parameters, optimizer in zip((full, partial), optimizers, strict=True):
            set_gradients(parameters, step)
            for i in chosen if parameters is partial else ():
                if absent == "frozen":
                    parameters[i].requires_grad = False
                else:
                    parameters[i].grad = None
            optimizer.step()
    for i, (p, theta) in enumerate(zip(partial, before, strict=True)):
        assert np.array_equal(p.data, theta if i in chosen else full[i].data)


@every_optimizer
def test_the_moments_of_an_absent_parameter_stay_too(make):
    parameters = make_parameters(MATRICES)
    optimizer = make(parameters)
    train(optimizer, range(2))
    before = {name: array[:15].copy() for name, array in optimizer.state.items()}
    optimizer.zero_grad()
    for p in parameters[1:]:
        p.grad = np.ones_like(p.data)
    optimizer.step()
    assert all(np.array_equal(optimizer.state[name][:15], array) for name, array in before.items())


def test_decay_groups_decay_matrices_and_spare_gains_and_biases():
    parameters = make_parameters()
    matrices, rest = decay_groups(parameters, 0.1)
    assert [p.ndim for p in matrices["params"]] == [2, 3, 2] and matrices["weight_decay"] == 0.1
    assert [p.ndim for p in rest["params"]] == [1, 0] and rest["weight_decay"] == 0.0
    assert [group["weight_decay"] for group in decay_groups(parameters[:1], 0.1)] == [0.1]
    assert [group["weight_decay"] for group in decay_groups(parameters[1:3], 0.1)] == [0.0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (lambda a, b: [], "got 0 of"),
        (lambda a, b: [a, b, a], "expected different parameters"),
        (lambda a, b: [{"params": [a]}, {"params": [b, a]}], "expected different parameters"),
        (lambda a, b: [a, Tensor(np.ones(2, np.float32))], r"got 2 of \['float32', 'float64'\]"),
        (lambda a, b: [{"params": [a], "learning_rate": 1}], r"got \['learning_rate'\]"),
        (
            lambda a, b: [{"params": [a]}, {"params": [b], "beta": 1}],
            r"'eps', 'lr'.*got \['beta'\]",
        ),
    ],
)
def test_parameters_that_cannot_be_are_errors(arguments, message):
    with pytest.raises(ValueError, match=f"AdamW: .*{message}"):
        AdamW(arguments(*make_parameters()[:2]))


def test_muon_refuses_what_is_no_matrix():
    with pytest.raises(
        ValueError, match=r"expected matrices, got shapes \[\(\), \(2, 1, 3\), \(5,\)"
    ):
        Muon(make_parameters())


# --- The flat buffer --------------------------------------------------------------------------


class Net(Module):
    def __init__(self, dtype=np.float64):
        rng = np.random.default_rng(0)
        self.layers = [Linear(4, 6, rng=rng), Linear(6, 4, rng=rng)]
        self.astype(dtype)

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


def loss_of(net):
    x = Tensor(np.random.default_rng(1).normal(size=(5, 4)).astype(net.parameters()[0].dtype))
    y = net(x)
    return (y * y).sum()


def test_the_parameters_become_views_of_one_buffer_with_the_values_they_had():
    net = Net()
    before, loss = [p.data.copy() for p in net.parameters()], loss_of(net).item()
    optimizer = AdamW(net.parameters())
    assert all(p.data.base is optimizer.data for p in net.parameters())
    assert optimizer.data.size == net.count_parameters()
    assert equal_bits([p.data for p in net.parameters()], before)
    assert loss_of(net).item() == loss


def test_the_model_sees_every_step_and_its_loss_falls():
    net = Net()
    optimizer = SGD(net.parameters(), lr=1e-3)
    losses = []
    for _ in range(5):
        optimizer.zero_grad()
        loss = loss_of(net)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses == sorted(losses, reverse=True) and losses[-1] < 0.99 * losses[0]


def test_loading_weights_into_the_model_is_seen_by_the_optimizer():
    net, other = Net(), Net()
    optimizer, twin = AdamW(net.parameters()), AdamW(other.parameters())
    train(twin)
    net.load_state_dict(other.state_dict())
    assert np.array_equal(optimizer.data, twin.data)


@every_optimizer
def test_a_replaced_parameter_array_is_an_error_and_nothing_is_changed(make):
    parameters = make_parameters(MATRICES)
    optimizer = make(parameters)
    train(optimizer, range(3))
    set_gradients(parameters, 3)
    parameters[2].data = parameters[2].data.copy()
    before = [p.data.copy() for p in parameters]
    moments = {name: array.copy() for name, array in optimizer.state.items()}
    with pytest.raises(ValueError, match=r"another of shape \(4, 4\); make"):
        optimizer.step()
    assert equal_bits([p.data for p in parameters], before) and (optimizer.steps == 3).all()
    assert all(np.array_equal(optimizer.state[name], array) for name, array in moments.items())


def test_a_change_of_dtype_after_the_optimizer_was_made_is_an_error():
    net = Net()
    optimizer = AdamW(net.parameters())
    net.astype(np.float32)
    set_gradients(net.parameters(), 0)
    with pytest.raises(ValueError, match="after the last change of dtype"):
        optimizer.step()


def test_a_graph_from_before_a_step_cannot_run_backward_after_it():
    net = Net()
    optimizer = AdamW(net.parameters())
    loss = loss_of(net)
    set_gradients(net.parameters(), 0)
    optimizer.step()
    with pytest.raises(ValueError, match="changed in place"):
        loss.backward()


def test_gradients_written_into_the_buffers_need_no_copy_and_give_the_same_step():
    copied, written = Net(), Net()
    optimizers = [AdamW(net.parameters(), lr=0.1) for net in (copied, written)]
    for step in range(3):
        set_gradients(copied.parameters(), step)
        pairs = optimizers[1].gradient_buffers()
        for p, (own, buffer) in zip(copied.parameters(), pairs, strict=True):
            assert np.shares_memory(buffer, optimizers[1].gradient)
            buffer[...] = p.grad
            own.grad = buffer
        for optimizer in optimizers:
            optimizer.step()
    assert np.array_equal(optimizers[0].data, optimizers[1].data)


def test_zero_grad_forgets_the_gradients_of_all_groups():
    parameters = make_parameters()
    optimizer = AdamW([{"params": parameters[:2]}, {"params": parameters[2:]}])
    set_gradients(parameters, 0)
    optimizer.zero_grad()
    assert all(p.grad is None for p in parameters)


def test_gradients_after_zero_grad_do_not_add_to_those_before():
    net = Net()
    optimizer = SGD(net.parameters(), lr=0.0)
    for _ in range(2):
        optimizer.zero_grad()
        loss_of(net).backward()
        optimizer.step()
    twin = Net()
    loss_of(twin).backward()
    assert equal_bits([p.grad for p in net.parameters()], [p.grad for p in twin.parameters()])


@every_optimizer
def test_float32_stays_float32(make):
    optimizer = make(make_parameters(MATRICES, np.float32))
    arrays = [*train(optimizer), optimizer.data, optimizer.gradient, *optimizer.state.values()]
    assert {array.dtype for array in arrays} == {np.dtype(np.float32)}


@every_optimizer
@pytest.mark.parametrize(("workers", "block"), [(2, 7), (3, 51), (100, 1)])
def test_equal_bits_whatever_the_number_of_workers_and_blocks(make, workers, block, monkeypatch):
    alone = train(make(make_parameters(MATRICES)))
    monkeypatch.setattr(optim, "BLOCK", block)  # numbers at a time, of 52
    assert equal_bits(train(make(make_parameters(MATRICES)), workers=workers), alone)


def test_two_workers_give_equal_bits_on_an_array_of_several_blocks():
    runs = [train(AdamW(make_parameters([(300, 1000), (7,)])), range(2), w) for w in (1, 2)]
    assert equal_bits(*runs)


# --- State ------------------------------------------------------------------------------------


def copied(state):
    return {n: v.copy() if isinstance(v, np.ndarray) else v for n, v in state.items()}


def make_composite(parameters):
    return Optimizers(Muon(parameters[:2], lr=0.1), AdamW(parameters[2:], lr=0.1))


stateful = pytest.mark.parametrize(
    "make", [*MAKERS.values(), make_composite], ids=[*MAKERS, "optimizers"]
)


@stateful
def test_a_run_that_is_saved_and_loaded_continues_bit_for_bit(make):
    whole = make(make_parameters(MATRICES))
    whole.set_lr_factor(0.5)
    expected = train(whole, range(10))

    first = make(make_parameters(MATRICES))
    first.set_lr_factor(0.5)
    weights, state = train(first, range(5)), copied(first.state_dict())
    resumed = [Tensor(array, requires_grad=True) for array in weights]
    second = make(resumed)
    second.load_state_dict(state)
    assert second.lr_factor == 0.5
    assert equal_bits(train(second, range(5, 10)), expected)


@stateful
def test_a_loaded_state_is_a_copy(make):
    optimizer = make(make_parameters(MATRICES))
    train(optimizer, range(2))
    state = copied(optimizer.state_dict())
    optimizer.load_state_dict(state)
    for value in state.values():
        if isinstance(value, np.ndarray):
            value[...] = 1e9
    assert all(np.all(a < 1e9) for a in optimizer.state_dict().values() if np.ndim(a))


@stateful
@pytest.mark.parametrize("fault", ["last shape", "first shape", "missing", "unexpected", "steps"])
def test_a_state_that_does_not_fit_is_an_error_that_changes_nothing(make, fault):
    optimizer = make(make_parameters(MATRICES))
    train(optimizer, range(3))
    before = copied(optimizer.state_dict())
    state = {name: value + 1 for name, value in copied(before).items()}
    moments = [name for name, value in state.items() if isinstance(value, np.ndarray)]
    match fault:
        case "last shape":
            state[moments[-1]] = np.ones(3)
        case "first shape":
            state[moments[0]] = np.ones((2, 2))
        case "missing":
            del state[moments[-1]]
        case "unexpected":
            state["2.ghost"] = 1
        case "steps":
            del state[next(name for name in state if name.endswith("steps"))]
    with pytest.raises(ValueError, match="resume with the configuration it was saved with"):
        optimizer.load_state_dict(state)
    after = optimizer.state_dict()
    assert after.keys() == before.keys()
    assert all(np.array_equal(after[name], before[name]) for name in before)


def test_several_optimizers_as_one_take_the_steps_of_each():
    alone = make_parameters(MATRICES)
    muon, adamw = Muon(alone[:2], lr=0.1), AdamW(alone[2:], lr=0.1)
    parameters = make_parameters(MATRICES)
    together = make_composite(parameters)
    for step in range(5):
        for optimizer in (muon, adamw, together):
            optimizer.set_lr_factor(1 / (step + 1))
        set_gradients(alone, step)
        set_gradients(parameters, step)
        for optimizer in (muon, adamw, together):
            optimizer.step()
    assert equal_bits([p.data for p in alone], [p.data for p in parameters])
    assert together.lr_factor == 0.2


def test_several_optimizers_as_one_show_the_parameters_groups_and_buffers_of_each():
    parameters = make_parameters(MATRICES)
    together = make_composite(parameters)
    assert all(a is b for a, b in zip(together.parameters, parameters, strict=True))
    assert [len(group["params"]) for group in together.groups] == [2, 2]
    assert [p for p, _ in together.gradient_buffers()] == parameters
    set_gradients(parameters, 0)
    together.zero_grad()
    assert all(p.grad is None for p in parameters)


# --- Orthogonalize ----------------------------------------------------------------------------

WIDE_AND_TALL = [(8, 20), (20, 8), (1, 7), (7, 1), (30, 12), (5, 60)]


@pytest.mark.parametrize("shape", WIDE_AND_TALL)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_orthogonalizing_a_random_matrix_moves_all_singular_values_near_one(shape, dtype):
    for seed in range(5):
        x = (np.random.default_rng(seed).normal(size=shape) * 10.0**seed).astype(dtype)
        y = orthogonalize(x)
        values = np.linalg.svd(y, compute_uv=False)
        assert y.shape == shape and y.dtype == dtype
        assert values.min() > 0.6 and values.max() < 1.3


@pytest.mark.parametrize("shape", [*WIDE_AND_TALL, (9, 9)])
def test_orthogonalizing_keeps_the_singular_vectors_and_maps_values_by_the_quintic(shape):
    x = np.random.default_rng(0).normal(size=shape)
    u, values, vt = np.linalg.svd(x, full_matrices=False)
    mapped = values / (np.sqrt((values**2).sum()) + 1e-7)
    for _ in range(5):
        mapped = 3.4445 * mapped - 4.7750 * mapped**3 + 2.0315 * mapped**5
    # Five steps multiply an error of one rounding by up to 3.4445⁵ = 485.
    np.testing.assert_allclose(orthogonalize(x), (u * mapped) @ vt, rtol=0, atol=1e-12)


def test_orthogonalizing_leaves_its_argument_alone_and_zeros_zero():
    x = np.random.default_rng(0).normal(size=(4, 6))
    before = x.copy()
    orthogonalize(x)
    assert np.array_equal(x, before)
    assert np.array_equal(orthogonalize(np.zeros((3, 4))), np.zeros((3, 4)))


# --- Clipping ---------------------------------------------------------------------------------


def test_clipping_scales_all_gradients_together_to_the_norm_and_returns_the_old_one():
    parameters = make_parameters()
    set_gradients(parameters, 0)
    before = [p.grad.copy() for p in parameters]
    norm = math.sqrt(sum(float(x) ** 2 for g in before for x in g.reshape(-1)))
    assert clip_grad_norm(parameters, 0.5) == pytest.approx(norm, rel=1e-14)
    for p, g in zip(parameters, before, strict=True):
        np.testing.assert_allclose(p.grad, g * (0.5 / norm), rtol=1e-14)
    assert clip_grad_norm(parameters, math.inf) == pytest.approx(0.5, rel=1e-14)


def test_clipping_changes_no_bit_of_gradients_within_the_norm():
    parameters = make_parameters([(2,), ()])
    parameters[0].grad, parameters[1].grad = np.array([3.0, 0.0]), np.array(4.0)
    before = [p.grad for p in parameters]
    for max_norm in (5.0, 6.0, math.inf):  # the norm is 5 exactly
        assert clip_grad_norm(parameters, max_norm) == 5.0
    assert all(p.grad is g for p, g in zip(parameters, before, strict=True))
    assert [p.grad.tolist() for p in parameters] == [[3.0, 0.0], 4.0]


def test_clipping_passes_over_absent_gradients_and_keeps_zeros_zero():
    parameters = make_parameters()
    assert clip_grad_norm(parameters, 1.0) == 0.0
    parameters[0].grad = np.zeros((3, 4))
    assert clip_grad_norm(iter(parameters), 1.0) == 0.0
    assert np.array_equal(parameters[0].grad, np.zeros((3, 4))) and parameters[1].grad is None


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=8), st.floats(1e-3, 1e3))
def test_after_clipping_the_norm_is_the_smaller_of_the_two(numbers, max_norm):
    p = make_parameters([(len(numbers),)])[0]
    p.grad = np.array(numbers)
    norm = clip_grad_norm([p], max_norm)
    assert np.linalg.norm(p.grad) == pytest.approx(min(norm, max_norm), rel=1e-12)


# --- Schedules --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schedule", "points"),
    [
        (constant_schedule(), {0: 1, 1: 1, 10**6: 1}),
        (constant_schedule(4), {0: 0.2, 1: 0.4, 3: 0.8, 4: 1, 5: 1, 10**6: 1}),
        (linear_schedule(10), {0: 1, 1: 0.9, 5: 0.5, 9: 0.1, 10: 0, 11: 0}),
        (linear_schedule(10, 2, 0.1), {0: 1 / 3, 1: 2 / 3, 2: 1, 6: 0.55, 10: 0.1, 99: 0.1}),
        (linear_schedule(10, hold=0.4), {0: 1, 4: 1, 5: 5 / 6, 7: 0.5, 10: 0}),
        (linear_schedule(10, 4, 0.5, hold=0.2), {0: 0.2, 2: 0.6, 4: 1, 7: 0.75, 10: 0.5}),
        (cosine_schedule(12), {0: 1, 4: 0.75, 6: 0.5, 8: 0.25, 12: 0, 13: 0}),
        (
            cosine_schedule(14, 2, 0.1),
            {0: 1 / 3, 1: 2 / 3, 2: 1, 6: 0.775, 8: 0.55, 10: 0.325, 14: 0.1, 99: 0.1},
        ),
        (cosine_schedule(5, 5), {0: 1 / 6, 4: 5 / 6, 5: 1, 6: 0}),
        (inverse_sqrt_schedule(4), {0: 0.25, 1: 0.5, 3: 1, 15: 0.5, 63: 0.25}),
        (inverse_sqrt_schedule(1), {0: 1, 3: 0.5}),
        (inverse_sqrt_schedule(4, d_model=16), {0: 1 / 32, 3: 1 / 8, 15: 1 / 16}),
    ],
)
def test_the_schedule_has_the_values_computed_by_hand(schedule, points):
    for step, factor in points.items():
        assert schedule(step) == pytest.approx(factor, rel=1e-14, abs=1e-15)


@given(st.integers(10, 10_000), st.integers(2, 100), st.data())
def test_a_linear_schedule_falls_as_the_slanted_triangle_of_howard_and_ruder(total, ratio, data):
    cut = total // 10
    t = data.draw(st.integers(cut, total))
    p = 1 - (t - cut) / (cut * (total / cut - 1))
    expected = (1 + p * (ratio - 1)) / ratio
    assert linear_schedule(total, cut, 1 / ratio)(t) == pytest.approx(expected, rel=1e-9)


@given(st.integers(0, 20_000), st.sampled_from([64, 512, 1024]), st.integers(1, 8000))
def test_the_inverse_square_root_schedule_equals_vaswanis_formula(step, d_model, warmup):
    step_num = step + 1
    expected = d_model**-0.5 * min(step_num**-0.5, step_num * warmup**-1.5)
    assert inverse_sqrt_schedule(warmup, d_model)(step) == expected
    scaled = inverse_sqrt_schedule(warmup)(step) / inverse_sqrt_schedule(warmup)(warmup - 1)
    assert scaled == pytest.approx(expected / inverse_sqrt_schedule(warmup, d_model)(warmup - 1))


@given(st.integers(1, 300), st.integers(0, 300), st.floats(0, 1), st.floats(0, 1))
def test_a_schedule_rises_to_one_then_never_rises_again_nor_leaves_its_range(
    total, warmup, final, hold
):
    for schedule in (
        linear_schedule(total, warmup, final, hold),
        cosine_schedule(total, warmup, final),
    ):
        factors = [schedule(step) for step in range(total + 1)]
        rising, falling = factors[: warmup + 1], factors[warmup:]
        assert rising == sorted(rising) and falling == sorted(falling, reverse=True)
        assert min(factors) >= 0 and max(factors) <= 1
        if warmup:
            assert 0 < factors[0] < 1


def test_the_inverse_square_root_needs_a_warm_up():
    with pytest.raises(ValueError, match="expected warmup_steps >= 1, got 0"):
        inverse_sqrt_schedule(0)


@stateful
def test_the_factor_scales_the_learning_rate_of_every_group(make):
    halved = make(make_parameters(MATRICES))
    halved.set_lr_factor(0.5)
    smaller = make(make_parameters(MATRICES))
    for group in smaller.groups:
        group["lr"] *= 0.5
    assert equal_bits(train(halved), train(smaller))


def test_a_parameter_unfrozen_later_counts_its_own_steps():
    """Adam's bias correction is each parameter's own, as if an optimizer of its own had begun."""
    late, early, twin = (Tensor(np.ones(3), requires_grad=True) for _ in range(3))
    optimizer = Adam([early, late], lr=0.1)
    for step in range(5):
        early.grad, late.grad = np.full(3, 0.5), (np.full(3, 2.0) if step >= 3 else None)
        optimizer.step()
    alone = Adam([twin], lr=0.1)
    for _ in range(2):
        twin.grad = np.full(3, 2.0)
        alone.step()
    np.testing.assert_array_equal(late.data, twin.data)
    assert optimizer.steps.tolist() == [5, 2]
