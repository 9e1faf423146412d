"""Optimizers and clipping agree with torch's."""

import math

import numpy as np
import pytest

from minilm.optim import SGD, Adam, AdamW, clip_grad_norm
from minilm.tensor import Tensor

torch = pytest.importorskip("torch")

SHAPES = [(3, 4), (5,), (), (2, 1, 3), (4, 3)]
STEPS = 100

CASES = {
    "sgd": (SGD, "SGD", {"lr": 0.1}),
    "sgd, decay": (SGD, "SGD", {"lr": 0.1, "weight_decay": 0.1}),
    "momentum": (SGD, "SGD", {"lr": 0.01, "momentum": 0.9}),
    "momentum, decay": (SGD, "SGD", {"lr": 0.01, "momentum": 0.9, "weight_decay": 0.1}),
    "nesterov": (SGD, "SGD", {"lr": 0.01, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
    "adam": (Adam, "Adam", {}),
    "adam, decay": (Adam, "Adam", {"lr": 0.1, "betas": (0.8, 0.95), "weight_decay": 0.1}),
    "adamw": (AdamW, "AdamW", {"weight_decay": 0.0}),
    "adamw, decay": (AdamW, "AdamW", {"lr": 0.1, "betas": (0.8, 0.95), "weight_decay": 0.1}),
    "adamw, eps": (AdamW, "AdamW", {"lr": 0.01, "eps": 1e-3, "weight_decay": 0.5}),
}
every_case = pytest.mark.parametrize(("ours", "theirs", "settings"), CASES.values(), ids=CASES)


def make_parameters():
    """The same float64 values as our tensors and as torch's."""
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=shape) for shape in SHAPES]
    left = [Tensor(array, requires_grad=True) for array in arrays]
    return left, [torch.tensor(array, requires_grad=True) for array in arrays]


def set_gradients(left, right, step):
    rng = np.random.default_rng(1000 + step)
    for ours, theirs in zip(left, right, strict=True):
        # Sizes from 1e-6 to 1e3, as gradients of different layers have.
        ours.grad = rng.normal(size=ours.shape) * 10.0 ** rng.integers(-6, 4, ours.shape)
        ours.grad = np.asarray(ours.grad)
        theirs.grad = torch.tensor(ours.grad)


def assert_equal(left, right):
    for ours, theirs in zip(left, right, strict=True):
        # 100 steps, each of which rounds a few times at 1e-16 of numbers up to about 100.
        np.testing.assert_allclose(ours.data, theirs.detach().numpy(), rtol=1e-12, atol=1e-12)


@every_case
def test_a_hundred_steps_equal_torchs(ours, theirs, settings):
    left, right = make_parameters()
    optimizer, oracle = ours(left, **settings), getattr(torch.optim, theirs)(right, **settings)
    for step in range(STEPS):
        set_gradients(left, right, step)
        optimizer.step()
        oracle.step()
        assert_equal(left, right)


@every_case
def test_a_hundred_steps_of_groups_on_a_schedule_equal_torchs(ours, theirs, settings):
    left, right = make_parameters()

    def groups(parameters):
        return [
            {"params": parameters[:2], "weight_decay": 0.3},
            {"params": parameters[2:4], "lr": 0.02},
            {"params": parameters[4:]},
        ]

    optimizer = ours(groups(left), **settings)
    oracle = getattr(torch.optim, theirs)(groups(right), **settings)
    schedule = torch.optim.lr_scheduler.LambdaLR(oracle, lambda step: 1 / (1 + step))
    for step in range(STEPS):
        set_gradients(left, right, step)
        optimizer.set_lr_factor(1 / (1 + step))
        optimizer.step()
        oracle.step()
        schedule.step()
        assert_equal(left, right)


@every_case
def test_the_first_step_equals_torchs(ours, theirs, settings):
    left, right = make_parameters()
    set_gradients(left, right, 0)
    ours(left, **settings).step()
    getattr(torch.optim, theirs)(right, **settings).step()
    assert_equal(left, right)


def test_the_defaults_are_torchs_but_for_adamws_decay_which_is_asked_for():
    for ours, theirs in ((Adam, torch.optim.Adam), (AdamW, torch.optim.AdamW)):
        left, right = make_parameters()
        group, oracle = ours(left).groups[0], theirs(right).param_groups[0]
        for name in ("lr", "betas", "eps"):
            assert group[name] == oracle[name]
        assert group["weight_decay"] == 0.0


@pytest.mark.parametrize("max_norm", [1e-3, 1.0, 1e6, math.inf])
def test_clipping_equals_torchs(max_norm):
    left, right = make_parameters()
    set_gradients(left, right, 0)
    left[1].grad = right[1].grad = None
    norm = clip_grad_norm(left, max_norm)
    assert norm == pytest.approx(torch.nn.utils.clip_grad_norm_(right, max_norm).item(), rel=1e-14)
    for ours, theirs in zip(left, right, strict=True):
        if ours.grad is not None:
            # torch divides by norm + 1e-6, the paper by the norm; the norm here is above 100.
            np.testing.assert_allclose(ours.grad, theirs.grad.numpy(), rtol=1e-8)
