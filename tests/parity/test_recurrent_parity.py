"""LSTM agrees with torch.nn.LSTM of the same weights: outputs, states, every gradient."""

import numpy as np
import pytest

from minilm.models.lstm import LSTMConfig, LSTMLanguageModel
from minilm.nn import LSTM
from minilm.tensor import Tensor, no_grad

torch = pytest.importorskip("torch", reason="the oracle torch is not installed: extra `parity`")

B, T, C, H, V = 3, 11, 7, 10, 19
TOLERANCE = {np.float64: 1e-9, np.float32: 1e-4}
both_dtypes = pytest.mark.parametrize("dtype", [np.float64, np.float32])


def spread(module, dtype):
    """Our module in this dtype, every parameter away from where it starts."""
    generator = np.random.default_rng(1)
    for p in module.astype(dtype).parameters():
        p[...] = p.data + 0.3 * generator.normal(size=p.shape)
    return module


def load(theirs, ours):
    """Their module with our weights, by the same names."""
    theirs.load_state_dict({name: torch.tensor(w) for name, w in ours.state_dict().items()})
    return theirs


def layers(dtype, depth):
    ours = spread(LSTM(C, H, depth, rng=np.random.default_rng(0)), dtype)
    kind = torch.float64 if dtype == np.float64 else torch.float32
    return ours, load(torch.nn.LSTM(C, H, depth, batch_first=True, dtype=kind), ours)


def assert_close(left, right, dtype):
    tolerance = TOLERANCE[dtype]
    np.testing.assert_allclose(left, right, rtol=tolerance, atol=tolerance)


@both_dtypes
@pytest.mark.parametrize("depth", [1, 2, 4])
@pytest.mark.parametrize(("batch", "length"), [(B, T), (1, T), (B, 1), (2, 70)])
def test_outputs_states_and_all_gradients_equal_torchs(depth, batch, length, dtype):
    ours, theirs = layers(dtype, depth)
    rng = np.random.default_rng(2)
    shapes = [(batch, length, C), (depth, batch, H), (depth, batch, H)]
    arrays = [rng.normal(size=shape).astype(dtype) for shape in shapes]
    x, h0, c0 = (Tensor(array, requires_grad=True) for array in arrays)
    their_x, their_h0, their_c0 = (torch.tensor(a, requires_grad=True) for a in arrays)
    y, (h, c) = ours(x, (h0, c0))
    their_y, (their_h, their_c) = theirs(their_x, (their_h0, their_c0))
    results = ((y, their_y), (h, their_h), (c, their_c))
    weights = [rng.normal(size=mine.shape).astype(dtype) for mine, _ in results]
    for mine, other in results:
        assert_close(mine.data, other.detach().numpy(), dtype)
    loss = sum((mine * w).sum() for (mine, _), w in zip(results, weights, strict=True))
    their_loss = sum(
        (other * torch.tensor(w)).sum() for (_, other), w in zip(results, weights, strict=True)
    )
    loss.backward()
    their_loss.backward()
    inputs = ((x, their_x), (h0, their_h0), (c0, their_c0))
    named = dict(theirs.named_parameters())
    for mine, other in (*inputs, *((p, named[n]) for n, p in ours.named_parameters())):
        scale = max(1.0, float(abs(other.grad).max()))
        assert_close(mine.grad / scale, other.grad.numpy() / scale, dtype)


@both_dtypes
def test_without_a_state_both_begin_with_zeros(dtype):
    ours, theirs = layers(dtype, 2)
    x = np.random.default_rng(3).normal(size=(B, T, C)).astype(dtype)
    assert_close(ours(Tensor(x))[0].data, theirs(torch.tensor(x))[0].detach().numpy(), dtype)


@both_dtypes
def test_the_language_model_equals_embedding_lstm_and_linear_of_torch(dtype):
    config = LSTMConfig(V, T, C, H, 2)
    ours = spread(LSTMLanguageModel(config, np.random.default_rng(0)), dtype)
    kind = torch.float64 if dtype == np.float64 else torch.float32
    embedding = torch.nn.Embedding(V, C, dtype=kind)
    lstm = torch.nn.LSTM(C, H, 2, batch_first=True, dtype=kind)
    head = torch.nn.Linear(H, V, dtype=kind)
    parts = {"token_embedding": embedding, "lstm": lstm, "head": head}
    theirs = load(torch.nn.ModuleDict(parts), ours)
    labels = np.random.default_rng(4).integers(0, V, (B, T + 1))
    output = ours(labels[:, :-1], labels=labels)
    tokens = torch.tensor(labels)
    logits = head(lstm(embedding(tokens[:, :-1]))[0])
    loss = torch.nn.functional.cross_entropy(logits.reshape(-1, V), tokens[:, 1:].reshape(-1))
    output.loss.backward()
    loss.backward()
    assert_close(output.logits.data, logits.detach().numpy(), dtype)
    assert_close(output.loss.data, loss.detach().numpy(), dtype)
    named = dict(theirs.named_parameters())
    for name, p in ours.named_parameters():
        assert_close(p.grad, named[name].grad.numpy(), dtype)
    with no_grad():
        caches = ours.new_caches(B)
        steps = [ours(labels[:, t : t + 1], caches=caches).logits.data for t in range(T)]
    assert_close(np.concatenate(steps, axis=1), logits.detach().numpy(), dtype)
