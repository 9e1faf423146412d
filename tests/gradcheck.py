"""Gradients against differences: u·(Jv) = v·(Jᵀu) in a random direction, for every input.

Backward gives Jᵀu; the left side is a central difference, (f(x + εv) - f(x - εv)) / 2ε, of the
scalar f(x) = u·op(x). An op that is right at the end of a graph can still be wrong inside it, so
the op is put in the middle:

    leaf ──·c──> x ──> op ──> y ──> (y + side)² ──·u──> f
                 └────── w·x² ──────────────────────────┘

Each x is the result of an op and is used twice; y + side gives y and side one and the same array
as gradient, so a vjp that changes it in place spoils the gradient of `side`, which is checked too.
"""

from collections.abc import Callable, Sequence

import numpy as np

from minilm.tensor import Tensor, no_grad, tanh

EPSILON = 1e-5  # the difference errs by about ε² = 1e-10, its rounding by 1e-16 / ε = 1e-11
TOLERANCE = 1e-7  # times the size of what is compared: room for third derivatives around 1000
SCALE = 1.25  # the constant c


def gradcheck(
    function: Callable[..., Tensor], inputs: Sequence[np.ndarray], rng: np.random.Generator
) -> None:
    """Compare d function(*inputs) with differences; raises AssertionError naming the input."""
    with no_grad():
        shape = function(*map(Tensor, inputs)).shape
    values = [np.asarray(x, np.float64) / SCALE for x in inputs] + [rng.normal(size=shape)]
    u, *weights = (rng.normal(size=s) for s in (shape, *(value.shape for value in values[:-1])))

    def f(values: Sequence[np.ndarray]) -> tuple[Tensor, list[Tensor]]:
        leaves = [Tensor(value, requires_grad=True) for value in values]
        side = tanh(leaves[-1])  # made before the op, so that backward reaches it after the op
        xs = [leaf * SCALE for leaf in leaves[:-1]]
        for x in xs:
            x.data.flags.writeable = False  # an op must not change its inputs
        z = function(*xs) + side
        total = (z * z * u).sum()
        for x, w in zip(xs, weights, strict=True):
            total = total + (x * x * w).sum()
        return total, leaves

    value, leaves = f(values)
    value.backward()
    for i, leaf in enumerate(leaves):
        name = f"input {i}" if i < len(inputs) else "the tensor beside the op"
        assert leaf.grad is not None, f"no gradient came back to {name}"
        assert leaf.grad.shape == leaf.shape and leaf.grad.dtype == np.float64
        v = rng.normal(size=leaf.shape)
        ends = [f([*values[:i], values[i] + e * v, *values[i + 1 :]])[0].item() for e in STEPS]
        numeric = (ends[0] - ends[1]) / (2 * EPSILON)
        analytic = float((v * leaf.grad).sum())
        scale = max(1.0, abs(numeric), abs(value.item()), float(np.abs(v * leaf.grad).sum()))
        assert abs(numeric - analytic) <= TOLERANCE * scale, (
            f"{name}: u·(Jv) = {numeric:.10g}, v·(Jᵀu) = {analytic:.10g}"
        )


STEPS = (EPSILON, -EPSILON)
