"""Optimizers, gradient clipping, learning-rate schedules.

An optimizer moves its parameters into one flat buffer (each parameter becomes a view of its
part), with flat buffers for gradients and moments beside it: a step is then a handful of
operations on whole arrays, however many parameters there are.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import groupby
from typing import Any

import numpy as np

from minilm import kernels
from minilm.tensor import Array, Tensor

Group = dict[str, Any]
Schedule = Callable[[int], float]
BLOCK = kernels.BLOCK_BYTES // 4  # numbers updated at a time: several such blocks fit in the cache


class Optimizer:
    """Base of the optimizers: parameter groups, the flat buffers, state in and out.

    `parameters` is a list of tensors, or of groups: dicts with "params" and any of the
    hyper-parameters, which otherwise are the constructor's. A parameter whose `.grad` is None, or
    which is frozen, is left as it is. `set_lr_factor` scales every group's learning rate.

    Raises: ValueError — no parameters, one given twice, mixed dtypes, an unknown name in a group.
    """

    moments: tuple[str, ...] = ()  # names of the buffers kept from step to step

    def __init__(self, parameters: Iterable[Tensor | Mapping[str, Any]], **defaults: Any) -> None:
        given = list(parameters)
        groups = given if given and isinstance(given[0], Mapping) else [{"params": given}]
        self.groups: list[Group] = []
        for group in groups:
            assert isinstance(group, Mapping)
            unknown = set(group) - {"params"} - set(defaults)
            if unknown:
                raise ValueError(
                    f"{type(self).__name__}: expected groups of params and {sorted(defaults)}, "
                    f"got {sorted(unknown)}; correct these names"
                )
            self.groups.append({**defaults, **group, "params": list(group["params"])})
        self.parameters: list[Tensor] = [p for group in self.groups for p in group["params"]]
        # How often each parameter was stepped: one that is unfrozen later begins at 0 then.
        self.steps = np.zeros(len(self.parameters), np.int64)
        self.lr_factor = 1.0
        self._flatten()

    def _flatten(self) -> None:
        dtypes = {p.dtype for p in self.parameters}
        if len(dtypes) != 1 or len({id(p) for p in self.parameters}) != len(self.parameters):
            raise ValueError(
                f"{type(self).__name__}: expected different parameters of one dtype, got "
                f"{len(self.parameters)} of {sorted(map(str, dtypes))}; pass model.parameters()"
            )
        size = sum(p.size for p in self.parameters)
        self.data = np.empty(size, dtypes.pop())
        self.gradient = np.zeros_like(self.data)
        self.state = {name: np.zeros_like(self.data) for name in self.moments}
        self._slices: list[slice] = []
        self._gradients: list[Array] = []
        offset = 0
        for p in self.parameters:
            part = slice(offset, offset + p.size)
            self.data[part] = p.data.reshape(-1)
            p.data = self.data[part].reshape(p.shape)
            self._slices.append(part)
            self._gradients.append(self.gradient[part].reshape(p.shape))
            offset = part.stop

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for p in self.parameters:
            p.grad = None

    def gradient_buffers(self) -> list[tuple[Tensor, Array]]:
        """Each parameter with its part of the flat gradient: write there to save a copy."""
        return list(zip(self.parameters, self._gradients, strict=True))

    def set_lr_factor(self, factor: float) -> None:
        """Scale every group's learning rate by `factor`, usually a schedule's value."""
        self.lr_factor = factor

    def step(self, workers: int = 1) -> None:
        """Change every parameter by the optimizer's formula, using up to `workers` threads.

        Raises: ValueError — a parameter's array was replaced since the optimizer took hold of it.
        """
        ready: list[tuple[Group, int]] = []
        jobs: list[Callable[[], None]] = []
        index = 0
        for group in self.groups:
            chosen = range(index, index + len(group["params"]))
            index = chosen.stop
            ready += [(group, i) for i in chosen if self._ready(i)]
        self.steps[[i for _, i in ready]] += 1
        for _, together in groupby(ready, key=lambda pair: (id(pair[0]), self.steps[pair[1]])):
            (group, first), *others = together
            indices = [first, *(i for _, i in others)]
            jobs += self._jobs({**group, "step": int(self.steps[first])}, indices)
        if jobs:
            lanes = [jobs[lane::workers] for lane in range(min(workers, len(jobs)))]
            kernels.run_parallel([partial(_run_all, lane) for lane in lanes])
        for p in self.parameters:
            p.changes[0] += 1  # a graph that still needs the old values must not run

    def _ready(self, i: int) -> bool:
        """Bring parameter i's gradient into the flat buffer; False where it has none."""
        p, own = self.parameters[i], self._gradients[i]
        if p.data.base is not self.data:
            raise ValueError(
                f"{type(self).__name__}: expected the parameter arrays it was made with, got "
                f"another of shape {p.shape}; make the optimizer after the last change of "
                "dtype, and write with tensor[...] = values"
            )
        if p.grad is None or not p.requires_grad:
            return False
        if p.grad is not own:
            own[...] = p.grad
            p.grad = own
        return True

    def _jobs(self, group: Group, ready: list[int]) -> list[Callable[[], None]]:
        """The group's update as independent pieces of work."""
        return [partial(self._update, group, block) for block in self._blocks(ready)]

    def _blocks(self, ready: Sequence[int]) -> Iterable[slice]:
        """The flat buffer under these parameters, in slices of at most BLOCK numbers."""
        start = stop = 0
        for part in [*(self._slices[i] for i in ready), slice(-1, -1)]:
            if part.start != stop:  # a gap: what came before is one run
                for first in range(start, stop, BLOCK):
                    yield slice(first, min(first + BLOCK, stop))
                start = part.start
            stop = part.stop

    def _update(self, group: Group, block: slice) -> None:
        raise NotImplementedError(f"{type(self).__name__} needs an _update method")

    def state_dict(self) -> dict[str, Any]:
        """Everything but the parameters: step counts, factor, moments (the arrays themselves)."""
        return {"steps": self.steps, "lr_factor": self.lr_factor, **self.state}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Raises: ValueError — entries of other names or shapes; nothing is changed then."""
        self.check_state(state)
        self.lr_factor = float(state["lr_factor"])
        self.steps[...] = state["steps"]
        for name, array in self.state.items():
            array[...] = state[name]

    def check_state(self, state: Mapping[str, Any]) -> None:
        """Raises: ValueError — what load_state_dict would not take."""
        expected = {"steps", "lr_factor", *self.state}
        shapes = {name: np.shape(state[name]) for name in sorted(state)}
        own = dict.fromkeys(self.state, self.data.shape) | {"steps": self.steps.shape}
        wrong = [name for name in own if shapes.get(name) != own[name]]
        if set(state) != expected or wrong:
            raise ValueError(
                f"{type(self).__name__}: expected state {sorted(expected)} of {self.data.size} "
                f"numbers, got shapes {shapes}; "
                "resume with the configuration it was saved with"
            )


def _run_all(jobs: Sequence[Callable[[], None]]) -> None:
    for job in jobs:
        job()


class SGD(Optimizer):
    """u = μ u + g;  θ = θ - lr u, with Nesterov θ = θ - lr (g + μ u).

    g includes weight_decay θ. The first u is g.
    Source: Sutskever et al. 2013, ICML; in the form of torch.optim.SGD.
    """

    moments = ("momentum",)

    def __init__(
        self,
        parameters: Iterable[Tensor | Mapping[str, Any]],
        lr: float,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(
            parameters, lr=lr, momentum=momentum, nesterov=nesterov, weight_decay=weight_decay
        )

    def _update(self, group: Group, block: slice) -> None:
        theta, u = self.data[block], self.state["momentum"][block]
        g = self.gradient[block] + group["weight_decay"] * theta
        u *= group["momentum"]
        u += g
        step = g + group["momentum"] * u if group["nesterov"] else u
        theta -= group["lr"] * self.lr_factor * step


class Adam(Optimizer):
    """m = β₁ m + (1-β₁) g;  v = β₂ v + (1-β₂) g²;  θ = θ - lr m̂ / (√v̂ + ε).

    m̂ = m / (1-β₁ᵗ) and v̂ = v / (1-β₂ᵗ) undo the pull of the zeros they start from; derived in
    docs/05-optimizers.md. g includes weight_decay θ.
    Source: Kingma & Ba 2014, arXiv 1412.6980, algorithm 1.
    """

    moments = ("m", "v")
    decoupled = False

    def __init__(
        self,
        parameters: Iterable[Tensor | Mapping[str, Any]],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(parameters, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)

    def _update(self, group: Group, block: slice) -> None:
        theta, g = self.data[block], self.gradient[block]
        m, v = self.state["m"][block], self.state["v"][block]
        (beta1, beta2), decay = group["betas"], group["weight_decay"]
        if decay and not self.decoupled:
            g = g + decay * theta
        m *= beta1
        m += (1 - beta1) * g
        v *= beta2
        v += (1 - beta2) * (g * g)
        denominator = v / (1 - beta2 ** group["step"])
        np.sqrt(denominator, out=denominator)
        denominator += group["eps"]
        update = m / (1 - beta1 ** group["step"])
        update /= denominator
        if decay and self.decoupled:
            update += decay * theta
        update *= group["lr"] * self.lr_factor
        theta -= update


class AdamW(Adam):
    """Adam with θ = θ - lr (m̂ / (√v̂ + ε) + weight_decay θ): the decay stays out of the moments.

    Source: Loshchilov & Hutter 2017, arXiv 1711.05101, algorithm 2. Differs: the learning rate
        scales the decay too, as in torch; the paper's scales it by the schedule alone.
    """

    decoupled = True


class Muon(Optimizer):
    """For matrices: u = μ u + g, and θ = θ - lr √max(1, rows/columns) orthogonalize(g + μ u).

    The step has all its singular values near 1: every direction is learned at one speed, where
    the raw momentum would follow its few largest. For hidden matrices; embeddings, heads, gains
    and biases want AdamW (put both in an `Optimizers`). weight_decay is decoupled.

    Raises: ValueError — a parameter that is no matrix.
    Source: Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks",
        kellerjordan.github.io/posts/muon.
    """

    moments = ("momentum",)

    def __init__(
        self,
        parameters: Iterable[Tensor | Mapping[str, Any]],
        lr: float = 0.02,
        momentum: float = 0.95,
        nesterov: bool = True,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(
            parameters, lr=lr, momentum=momentum, nesterov=nesterov, weight_decay=weight_decay
        )
        shapes = {p.shape for p in self.parameters if p.ndim != 2}
        if shapes:
            raise ValueError(
                f"Muon: expected matrices, got shapes {sorted(shapes)}; give those to AdamW"
            )

    def _jobs(self, group: Group, ready: list[int]) -> list[Callable[[], None]]:
        largest_first = sorted(ready, key=lambda i: -self.parameters[i].size)
        return [partial(self._update_matrix, group, i) for i in largest_first]

    def _update_matrix(self, group: Group, i: int) -> None:
        theta, g = self.parameters[i].data, self._gradients[i]
        u = self.state["momentum"][self._slices[i]].reshape(theta.shape)
        u *= group["momentum"]
        u += g
        step = orthogonalize(g + group["momentum"] * u if group["nesterov"] else u)
        lr = group["lr"] * self.lr_factor
        if group["weight_decay"]:
            theta *= 1 - lr * group["weight_decay"]
        theta -= (lr * math.sqrt(max(1, theta.shape[0] / theta.shape[1]))) * step


def orthogonalize(x: Array, steps: int = 5) -> Array:
    """The matrix with x's singular vectors and all singular values moved near 1.

    Newton-Schulz: X ← a X + (b A + c A²) X with A = X Xᵀ applies s ← a s + b s³ + c s⁵ to every
    singular value s. These a, b, c make small s grow fastest (a = 3.44 a step) and leave every s
    that began above 0.01 within 0.68..1.14, which serves as well as exactly 1.

    Shapes: (M, N) -> (M, N)
    Source: Jordan et al. 2024; derived in docs/05-optimizers.md.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x  # X Xᵀ is the smaller of the two products
    x = x / (np.linalg.norm(x) + 1e-7)  # largest singular value at most 1
    for _ in range(steps):
        gram = x @ x.T
        polynomial = gram @ gram
        polynomial *= c
        polynomial += b * gram
        x = a * x + polynomial @ x
    return x.T if tall else x


class Optimizers:
    """Several optimizers as one, each with its own parameters: Muon's matrices, AdamW's rest."""

    def __init__(self, *optimizers: Optimizer) -> None:
        self.optimizers = optimizers

    @property
    def groups(self) -> list[Group]:
        return [group for optimizer in self.optimizers for group in optimizer.groups]

    @property
    def parameters(self) -> list[Tensor]:
        return [p for optimizer in self.optimizers for p in optimizer.parameters]

    @property
    def lr_factor(self) -> float:
        return self.optimizers[0].lr_factor

    def zero_grad(self) -> None:
        for optimizer in self.optimizers:
            optimizer.zero_grad()

    def gradient_buffers(self) -> list[tuple[Tensor, Array]]:
        return [pair for optimizer in self.optimizers for pair in optimizer.gradient_buffers()]

    def set_lr_factor(self, factor: float) -> None:
        for optimizer in self.optimizers:
            optimizer.set_lr_factor(factor)

    def step(self, workers: int = 1) -> None:
        for optimizer in self.optimizers:
            optimizer.step(workers)

    def state_dict(self) -> dict[str, Any]:
        """The states, each entry's name behind its optimizer's number."""
        return {
            f"{i}.{name}": value
            for i, optimizer in enumerate(self.optimizers)
            for name, value in optimizer.state_dict().items()
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Raises: ValueError — entries of other names or shapes; nothing is changed then."""
        self.check_state(state)
        for optimizer, part in zip(self.optimizers, self._parts(state), strict=True):
            optimizer.load_state_dict(part)

    def check_state(self, state: Mapping[str, Any]) -> None:
        """Raises: ValueError — what load_state_dict would not take."""
        for optimizer, part in zip(self.optimizers, self._parts(state), strict=True):
            optimizer.check_state(part)

    def _parts(self, state: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Each optimizer's own entries."""
        parts: list[dict[str, Any]] = [{} for _ in self.optimizers]
        for key, value in state.items():
            number, _, name = key.partition(".")
            if number not in map(str, range(len(parts))):
                raise ValueError(
                    f"Optimizers: expected entries 0. to {len(parts) - 1}., got {key!r}; "
                    "resume with the configuration it was saved with"
                )
            parts[int(number)][name] = value
        return parts


def decay_groups(parameters: Iterable[Tensor], weight_decay: float) -> list[Group]:
    """Weight decay on matrices only: gains and biases are not pulled to zero."""
    listed = list(parameters)
    matrices = [p for p in listed if p.ndim >= 2]
    rest = [p for p in listed if p.ndim < 2]
    groups: list[Group] = [
        {"params": matrices, "weight_decay": weight_decay},
        {"params": rest, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def clip_grad_norm(parameters: Iterable[Tensor], max_norm: float) -> float:
    """Scale all gradients together so that their joint L2 norm is at most max_norm; the old norm.

    Source: Pascanu et al. 2012, arXiv 1211.5063, algorithm 1.
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    norm = math.sqrt(sum(float(np.vdot(g, g)) for g in gradients))
    if norm > max_norm:
        for gradient in gradients:
            gradient *= max_norm / norm
    return norm


# --- Schedules: step (from 0) -> factor of the learning rate ----------------------------------


def _warmup(step: int, warmup_steps: int) -> float:
    """Rises in a line to 1, reached at the end of the warm-up; never 0, or a step were wasted."""
    return min(1.0, (step + 1) / (warmup_steps + 1))


def constant_schedule(warmup_steps: int = 0) -> Schedule:
    """1, after the warm-up."""
    return lambda step: _warmup(step, warmup_steps)


def linear_schedule(
    total_steps: int, warmup_steps: int = 0, final: float = 0.0, hold: float = 0.0
) -> Schedule:
    """After the warm-up, 1 until the share `hold` of all steps, then a line down to `final`:

        1 + (final - 1) (t - b) / (T - b),  T = total_steps,  b = max(warmup_steps, hold · T)

    Source: slanted triangular rates in Howard & Ruder 2018, arXiv 1801.06146, section 3.2, eq. 3,
        where warmup_steps = T / 10 and final = 1 / 32. Differs: theirs begin at `final`.
    """

    def factor(step: int) -> float:
        begin = max(warmup_steps, hold * total_steps)
        progress = min(1.0, max(0.0, (step - begin) / max(1, total_steps - begin)))
        return _warmup(step, warmup_steps) * (1 + (final - 1) * progress)

    return factor


def cosine_schedule(total_steps: int, warmup_steps: int = 0, final: float = 0.0) -> Schedule:
    """After the warm-up, half a cosine wave from 1 down to `final`.

    Source: Loshchilov & Hutter 2016, arXiv 1608.03983, eq. 5, without restarts.
    """

    def factor(step: int) -> float:
        progress = min(1.0, max(0.0, (step - warmup_steps) / max(1, total_steps - warmup_steps)))
        wave = 0.5 * (1 + math.cos(math.pi * progress))
        return _warmup(step, warmup_steps) * (final + (1 - final) * wave)

    return factor


def inverse_sqrt_schedule(warmup_steps: int, d_model: int | None = None) -> Schedule:
    """d_model^-½ min(t^-½, t warmup^-3/2), t = step + 1; without d_model, scaled to a peak of 1.

    Source: Vaswani et al. 2017, eq. 3.
    """
    if warmup_steps < 1:
        raise ValueError(
            f"inverse_sqrt_schedule: expected warmup_steps >= 1, got {warmup_steps}; the paper "
            "takes 4000"
        )
    scale = warmup_steps**0.5 if d_model is None else d_model**-0.5
    return lambda step: scale * min((step + 1) ** -0.5, (step + 1) * warmup_steps**-1.5)
