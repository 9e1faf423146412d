"""The training loop, once."""

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import numpy as np

from minilm import kernels
from minilm.nn import Module
from minilm.optim import Optimizer, Optimizers, clip_grad_norm
from minilm.tensor import Array, Tensor, walk

Batch = dict[str, Array]


def train_step(
    model: Any,
    optimizer: Optimizer | Optimizers,
    batch: Batch,
    max_grad_norm: float | None = None,
    workers: int | None = None,
) -> float:
    """One whole step: zero, forward, backward, clip, update; the loss before the update."""
    workers = kernels.cores() if workers is None else workers
    with kernels.blas_threads(1):
        optimizer.zero_grad()
        loss = accumulate_gradients(model, optimizer, [batch], workers)
        if max_grad_norm is not None:
            clip_grad_norm(optimizer.parameters, max_grad_norm)
        optimizer.step(workers)
    return loss


def accumulate_gradients(model, optimizer, batches, workers):
    shards = [shard for batch in batches for shard in split_batch(batch, workers)]
    counts = [model.count_targets(shard) for shard in shards]
    total = max(1, sum(counts))
    results = kernels.run_parallel([partial(_shard_gradients, model, shard, count/total, None) for shard, count in zip(shards, counts)])
    for p, buffer in optimizer.gradient_buffers():
        parts = [g[id(p)] for _, g in results if id(p) in g]
        if not parts: continue
        if len(parts) > 1:
            np.add(parts[0], parts[1], out=buffer)
            for part in parts[2:]: buffer += part
        else:
            buffer[...] = parts[0]
        p.grad = buffer
    return sum(loss for loss, _ in results)


def split_batch(batch, workers):
    rows = len(next(iter(batch.values())))
    edges = np.linspace(0, rows, min(workers, rows) + 1).astype(int)
    return [{k: v[a:b] for k, v in batch.items()} for a, b in zip(edges, edges[1:])]


def _shard_gradients(model, shard, weight, rng):
    gradients = {}
    def accumulate(leaf, g):
        key = id(leaf)
        if key in gradients:
            gradients[key] = gradients[key] + g
        else:
            gradients[key] = g
    loss = model(**shard, rng=rng).loss
    walk(loss, np.full(loss.shape, weight, loss.dtype), accumulate)
    return loss.item() * weight, gradients
