"""The same GPT training step in minilm, PyTorch, HIPS autograd and MyGrad, from equal weights.

minilm is imported only by its own contestant: importing it changes how the process's memory
allocator keeps pages, which would speed the other NumPy engines up as well.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

Step = Callable[[], float]
State = dict[str, np.ndarray[Any, Any]]


class Size(NamedTuple):
    """A GPT and its batch."""

    vocab_size: int
    batch: int
    length: int
    n_layers: int
    n_heads: int
    d_model: int


def windows(size: Size) -> np.ndarray[Any, Any]:
    """The batch that all share: one more token than the model reads, so that all are trained."""
    return np.random.default_rng(0).integers(0, size.vocab_size, (size.batch, size.length + 1))


def minilm_model(size: Size) -> Any:
    """The model whose weights all share."""
    from minilm.models.gpt import GPT, GPTConfig

    config = GPTConfig(size.vocab_size, size.length, size.d_model, size.n_heads, size.n_layers)
    return GPT(config, np.random.default_rng(0))


def minilm_step(size: Size, state: State) -> Step:
    """A whole training step."""
    from minilm.optim import AdamW, decay_groups
    from minilm.training import train_step

    model, labels = minilm_model(size), windows(size)
    model.load_state_dict(state)
    batch = {"input_ids": labels[:, :-1], "labels": labels}
    groups = decay_groups(model.parameters(), 0.1)
    optimizer = AdamW(groups, lr=1e-3, betas=(0.9, 0.99))
    return lambda: train_step(model, optimizer, batch, max_grad_norm=1.0)


def gradients_step(size: Size, state: State) -> Step:
    """minilm's forward and backward alone, for engines that bring no more."""
    from minilm import kernels
    from minilm.optim import AdamW
    from minilm.training import accumulate_gradients

    model, labels = minilm_model(size), windows(size)
    model.load_state_dict(state)
    batch = {"input_ids": labels[:, :-1], "labels": labels}
    optimizer = AdamW(model.parameters())  # only its gradient buffers are used

    def step() -> float:
        optimizer.zero_grad()
        with kernels.blas_threads(1):
            return accumulate_gradients(model, optimizer, [batch], kernels.cores())

    return step


def torch_step(size: Size, state: State) -> Step:
    """A whole training step: eager, fused AdamW, fused attention, one product for q, k and v."""
    import torch
    from torch.nn import functional as F

    weights = {name: torch.from_numpy(value) for name, value in state.items()}
    for i in range(size.n_layers):
        for kind in ("weight", "bias"):
            parts = [weights.pop(f"blocks.{i}.attention.{c}.{kind}") for c in "qkv"]
            weights[f"blocks.{i}.attention.qkv.{kind}"] = torch.cat(parts)
    parameters = {name: w.clone().requires_grad_() for name, w in weights.items()}
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for p in parameters.values() if p.ndim >= 2], "weight_decay": 0.1},
            {"params": [p for p in parameters.values() if p.ndim < 2], "weight_decay": 0.0},
        ],
        lr=1e-3,
        betas=(0.9, 0.99),
        fused=True,
    )
    tokens = torch.from_numpy(windows(size))
    inputs, targets = tokens[:, :-1], tokens[:, 1:]
    width = size.d_model

    def linear(x: Any, name: str) -> Any:
        return F.linear(x, parameters[f"{name}.weight"], parameters[f"{name}.bias"])

    def norm(x: Any, name: str) -> Any:
        return F.layer_norm(x, (width,), parameters[f"{name}.weight"], parameters[f"{name}.bias"])

    def forward() -> Any:
        x = F.embedding(inputs, parameters["token_embedding.weight"])
        x = x + parameters["position_embedding.weight"][: inputs.shape[1]]
        for i in range(size.n_layers):
            block = f"blocks.{i}"
            qkv = linear(norm(x, f"{block}.norm1"), f"{block}.attention.qkv")
            split = (*inputs.shape, size.n_heads, width // size.n_heads)
            q, k, v = (part.view(split).transpose(1, 2) for part in qkv.split(width, 2))
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + linear(y.transpose(1, 2).reshape(x.shape), f"{block}.attention.out")
            up = linear(norm(x, f"{block}.norm2"), f"{block}.feed_forward.up")
            x = x + linear(F.gelu(up, approximate="tanh"), f"{block}.feed_forward.down")
        logits = norm(x, "final_norm") @ parameters["token_embedding.weight"].T
        return F.cross_entropy(logits.view(-1, size.vocab_size), targets.reshape(-1))

    def step() -> float:
        optimizer.zero_grad()
        loss = forward()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters.values(), 1.0)
        optimizer.step()
        return loss.item()

    return step


def composed_loss(xp: Any, p: dict[str, Any], size: Size) -> Any:
    """The loss in plain array operations, for engines that follow NumPy's functions (`xp`)."""
    tokens = windows(size)
    inputs, targets = tokens[:, :-1], tokens[:, 1:]
    n_rows, length = inputs.shape
    hidden = (1 - np.tri(length, dtype=np.float32)) * -1e9
    width = size.d_model // size.n_heads

    def linear(x: Any, name: str) -> Any:
        return xp.matmul(x, p[f"{name}.weight"].T) + p[f"{name}.bias"]

    def norm(x: Any, name: str) -> Any:
        variance = xp.var(x, axis=-1, keepdims=True)
        normal = (x - xp.mean(x, axis=-1, keepdims=True)) / xp.sqrt(variance + 1e-5)
        return normal * p[f"{name}.weight"] + p[f"{name}.bias"]

    def heads(x: Any) -> Any:
        split = (n_rows, length, size.n_heads, -1)
        return xp.transpose(xp.reshape(x, split), (0, 2, 1, 3))

    x = p["token_embedding.weight"][inputs] + p["position_embedding.weight"][:length]
    for i in range(size.n_layers):
        b = f"blocks.{i}"
        h = norm(x, f"{b}.norm1")
        q, k, v = (heads(linear(h, f"{b}.attention.{c}")) for c in "qkv")
        scores = xp.matmul(q, xp.transpose(k, (0, 1, 3, 2))) / np.sqrt(width) + hidden
        e = xp.exp(scores - xp.max(scores, axis=-1, keepdims=True))
        y = xp.matmul(e / xp.sum(e, axis=-1, keepdims=True), v)
        x = x + linear(xp.reshape(xp.transpose(y, (0, 2, 1, 3)), x.shape), f"{b}.attention.out")
        u = linear(norm(x, f"{b}.norm2"), f"{b}.feed_forward.up")
        gelu = 0.5 * u * (1 + xp.tanh(np.sqrt(2 / np.pi) * (u + 0.044715 * u**3)))
        x = x + linear(gelu, f"{b}.feed_forward.down")
    logits = xp.matmul(norm(x, "final_norm"), p["token_embedding.weight"].T)
    logits = xp.reshape(logits, (n_rows * length, -1))
    z = logits - xp.max(logits, axis=-1, keepdims=True)
    chosen = z[np.arange(n_rows * length), targets.reshape(-1)]
    return xp.mean(xp.log(xp.sum(xp.exp(z), axis=-1)) - chosen)


def autograd_step(size: Size, state: State) -> Step:
    """Forward and backward alone."""
    import autograd
    import autograd.numpy as anp

    function = autograd.value_and_grad(lambda p: composed_loss(anp, p, size))
    return lambda: float(function(state)[0])


def mygrad_step(size: Size, state: State) -> Step:
    """Forward and backward alone."""
    import mygrad

    mygrad.turn_memory_guarding_off()  # its documented switch for speed
    parameters = {name: mygrad.tensor(value) for name, value in state.items()}

    def step() -> float:
        loss = composed_loss(mygrad, parameters, size)
        loss.backward()
        value = loss.item()
        for tensor in parameters.values():
            tensor.null_grad()
        return value

    return step


STEPS = {
    "minilm": minilm_step,
    "gradients": gradients_step,
    "torch": torch_step,
    "autograd": autograd_step,
    "mygrad": mygrad_step,
}
