"""Every function against its twin in torch: values and gradients."""

import math
from dataclasses import replace

import numpy as np
import pytest
from ops_table import CASES, FUNCTIONAL, Example

from minilm.kernels import random_mask

torch = pytest.importorskip("torch", reason="the oracle torch is not installed: extra `parity`")
nn = torch.nn.functional


def dropped(x, p, rng):
    """torch draws other numbers, so it is handed ours."""
    kept = torch.from_numpy(random_mask(tuple(x.shape), p, rng))
    return x * kept / (1 - p)


def cross_entropy(logits, labels, **options):
    by_class = logits.movedim(-1, 1) if logits.ndim > 1 else logits
    return nn.cross_entropy(by_class, labels, **options)


def rotary(x, cos, sin):
    """As a product of complex numbers."""
    half = x.shape[-1] // 2
    pairs = torch.complex(x[..., :half].contiguous(), x[..., half:].contiguous())
    turned = pairs * torch.complex(cos, sin)
    return torch.cat([turned.real, turned.imag], -1)


def attention(q, k, v, mask=None, bias=None, causal=False, scale=None, dropout=0.0, rng=None):
    """torch's own where it can do the case; with dropout, or rows without a key, its parts."""
    full = (*q.shape[:3], k.shape[2])
    allowed = torch.ones(full, dtype=torch.bool) if mask is None else mask.expand(full)
    if causal:
        allowed = allowed.tril(full[3] - full[2])
    if dropout == 0 and allowed.any(-1).all():
        extra = allowed if bias is None else bias.expand(full).masked_fill(~allowed, -math.inf)
        return nn.scaled_dot_product_attention(q, k, v, extra, scale=scale, enable_gqa=True)
    repeats = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(repeats, 1), v.repeat_interleave(repeats, 1)
    scores = q @ k.mT * (q.shape[-1] ** -0.5 if scale is None else scale)
    scores = scores if bias is None else scores + bias
    weights = nn.softmax(scores.masked_fill(~allowed, -math.inf), -1)
    weights = weights.where(allowed, torch.zeros((), dtype=q.dtype))  # torch gives nan, not zeros
    return (dropped(weights, dropout, rng) if dropout else weights) @ v


def lstm(x, h0, c0, weight_ih, weight_hh, bias):
    """torch's layer gives the last cell only: it is asked for one step at a time."""
    hidden, cells, zero = [h0], [c0], torch.zeros_like(bias)
    for step in x.unbind(1):
        state = hidden[-1][None], cells[-1][None]
        weights = [weight_ih, weight_hh, bias, zero]
        _, h, c = torch.lstm(step[:, None], state, weights, True, 1, 0.0, True, False, True)
        hidden.append(h[0])
        cells.append(c[0])
    return torch.stack([torch.stack(states[1:], 1) for states in (hidden, cells)])


TWINS = {
    "softmax": lambda x, axis=-1: nn.softmax(x, axis),
    "log_softmax": lambda x, axis=-1: nn.log_softmax(x, axis),
    "cross_entropy": cross_entropy,
    "relu": lambda x: nn.relu(x),
    "silu": lambda x: nn.silu(x),
    "swiglu": lambda gate, up: nn.silu(gate) * up,
    "gelu": lambda x, approximate="none": nn.gelu(x, approximate=approximate),
    "layer_norm": lambda x, gamma, beta, eps=1e-5: nn.layer_norm(x, gamma.shape, gamma, beta, eps),
    "rms_norm": lambda x, gamma, eps=1e-6: nn.rms_norm(x, gamma.shape, gamma, eps),
    "dropout": dropped,
    "embedding": lambda ids, weight: nn.embedding(ids, weight),
    "linear": lambda x, weight, bias=None: nn.linear(x, weight, bias),
    "rotary": rotary,
    "attention": attention,
    "lstm": lstm,
}
cases = {name: case for name, case in CASES.items() if name.startswith("functional")}
SIZES = {"B": 3, "T": 6, "S": 8, "C": 32, "D": 16, "F": 24, "H": 4, "V": 50}


def test_every_public_function_has_a_twin():
    assert set(TWINS) == set(FUNCTIONAL)


def ours(example: Example, dtype: type, dy: np.ndarray) -> list[np.ndarray]:
    tensors = example.tensors(dtype)
    y = example.call(tensors)
    y.backward(dy.astype(dtype))
    return [y.data, *(leaf.grad for leaf in tensors.values())]


def theirs(example: Example, dtype: type, dy: np.ndarray) -> list[np.ndarray]:
    inputs = {}
    for name, array in example.inputs.items():
        array = np.asarray(array.astype(dtype) if array.dtype.kind == "f" else array)
        inputs[name] = torch.from_numpy(array.copy())
    leaves = [inputs[name].requires_grad_() for name in example.case.differentiable]
    y = TWINS[example.case.op.__name__](**inputs, **example.options)
    y.backward(torch.from_numpy(dy.astype(dtype)))
    return [y.detach().numpy(), *(leaf.grad.numpy() for leaf in leaves)]


@pytest.mark.parametrize(
    ("dtype", "relative", "absolute"), [(np.float64, 1e-10, 1e-10), (np.float32, 1e-4, 1e-5)]
)
@pytest.mark.parametrize("sizes", [SIZES, SIZES | {"T": 9, "B": 1}], ids=["T < S", "T > S"])
@pytest.mark.parametrize("case", cases.values(), ids=cases.keys())
def test_values_and_gradients_equal_those_of_torch(case, sizes, dtype, relative, absolute):
    example = case.example(sizes, seed=0)
    dy = np.random.default_rng(1).normal(size=case.parsed.output.shape(sizes))
    results = (run(example, dtype, dy) for run in (ours, theirs))
    for own, other in zip(*results, strict=True):
        assert own.dtype == other.dtype == dtype
        np.testing.assert_allclose(own, other, rtol=relative, atol=absolute)


@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_gelu_equals_that_of_torch_far_out_too(approximate):
    x = np.linspace(-50, 50, 10_001)
    case = replace(cases["functional.gelu()"], options={"approximate": approximate})
    example = Example(case, sizes={}, inputs={"x": x}, seed=0)
    results = (run(example, np.float64, np.ones_like(x)) for run in (ours, theirs))
    for own, other in zip(*results, strict=True):
        np.testing.assert_allclose(own, other, rtol=1e-10, atol=1e-10)
