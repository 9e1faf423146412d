"""The LSTM over all time steps, fused: `functional.lstm` is this function.

The formula stands in `reference.lstm`. Three things make this one quick: what the input asks of
the gates is one product for all steps; σ(a) = (1 + tanh(a/2)) / 2, so that all four gates are one
tanh; and the slopes that the way back needs are worked out for many steps at a time, so that the
loop through time is left with what each step owes to the one after it.
"""

from collections.abc import Sequence

import numpy as np

from minilm import kernels
from minilm.tensor import Array, Tensor, from_op

HALF = np.array([0.5, 0.5, 1, 0.5])[:, None, None]  # a gate is half tanh(half a) + 1 - half


def lstm(
    x: Tensor, h0: Tensor, c0: Tensor, weight_ih: Tensor, weight_hh: Tensor, bias: Tensor
) -> Tensor:
    """y = [h, c]: the hidden states h[1 ... T] and the cells c[1 ... T] of an LSTM.

    i, f, g, o = σ(aᵢ), σ(a_f), tanh(a_g), σ(a_o),  a = x[t] W_ihᵀ + h[t-1] W_hhᵀ + b
    c[t] = f c[t-1] + i g,  h[t] = o tanh(c[t])

    Shapes: (B, T, C), (B, H), (B, H), (4H, C), (4H, H), (4H) -> (2, B, T, H)
    Gradient: for t = T ... 1, where dh, dc hold dy and what the steps after t ask of h[t], c[t]:
        dc += dh o (1 - tanh² c[t]);  da = (dc g i (1-i), dc c[t-1] f (1-f), dc i (1-g²),
        dh tanh(c[t]) o (1-o));  dc[t-1] = dc f,  dh[t-1] = da W_hh.  Then dx = da W_ih,
        dW_ih = Σ daᵀ x[t],  dW_hh = Σ daᵀ h[t-1],  db = Σ da; derived in docs/14-recurrent.md.
    Raises: ValueError — shapes that do not belong together.
    Source: Hochreiter & Schmidhuber 1997, Neural Computation 9(8); the forget gate from Gers et
        al. 2000, Neural Computation 12(10). The gates stand in torch's order.
    """
    _check(x, h0, c0, weight_ih, weight_hh, bias)
    (batch, steps, in_width), width = x.shape, h0.shape[1]
    rows = steps * batch
    # In memory gates come first, then time, then rows: what is worked on at once lies together.
    inputs = np.ascontiguousarray(x.data.swapaxes(0, 1)).reshape(rows, in_width)
    w_ih = weight_ih.data.reshape(4, width, in_width)
    w_hh = weight_hh.data.reshape(4, width, width)
    gates = inputs @ w_ih.swapaxes(1, 2)
    gates += bias.data.reshape(4, 1, width)
    gates = gates.reshape(4, steps, batch, width)
    recurrent = w_hh.swapaxes(1, 2)
    if steps > 1:  # read again and again: worth a copy in the order of reading
        recurrent = np.ascontiguousarray(recurrent)
    states = np.empty((2, steps + 1, batch, width), x.dtype)
    tanh_c = np.empty((steps, batch, width), x.dtype)
    (h, c), (i, f, g, o) = states, gates
    h[0], c[0] = h0.data, c0.data
    half = np.broadcast_to(HALF, (4, batch, width)).astype(x.dtype, order="C")
    rest = 1 - half
    a, written = np.empty_like(half), np.empty_like(h[0])
    for t in range(steps):
        np.matmul(h[t], recurrent, out=a)
        a += gates[:, t]
        a *= half
        np.tanh(a, out=a)
        a *= half
        np.add(a, rest, out=gates[:, t])
        np.multiply(f[t], c[t], out=c[t + 1])
        c[t + 1] += np.multiply(i[t], g[t], out=written)
        np.tanh(c[t + 1], out=tanh_c[t])
        np.multiply(o[t], tanh_c[t], out=h[t + 1])

    def vjp(dy: Array) -> Sequence[Array]:
        da, slope = _slopes(gates, c[:-1], tanh_c)
        dh, dc = np.zeros((2, batch, width), dy.dtype)
        asked, parts = np.empty_like(dc), np.empty((4, batch, width), dy.dtype)
        of_cells = dy[1].any()  # who uses the output alone asks nothing of the cells
        for t in reversed(range(steps)):
            dh += dy[0, :, t]
            if of_cells:
                dc += dy[1, :, t]
            dc += np.multiply(dh, slope[t], out=asked)
            da[:3, t] *= dc
            da[3, t] *= dh
            dc *= f[t]
            np.add.reduce(np.matmul(da[:, t], w_hh, out=parts), axis=0, out=dh)
        flat = da.reshape(4, rows, width)
        dx = (flat @ w_ih).sum(0).reshape(steps, batch, in_width).swapaxes(0, 1)
        over_time = flat.swapaxes(1, 2)
        dw_ih = (over_time @ inputs).reshape(4 * width, in_width)
        dw_hh = (over_time @ h[:-1].reshape(rows, width)).reshape(4 * width, width)
        db = (kernels.filled(rows, 1.0, flat.dtype) @ flat).reshape(4 * width)
        return dx, dh, dc, dw_ih, dw_hh, db

    y = states[:, 1:].swapaxes(1, 2)
    return from_op(y, (x, h0, c0, weight_ih, weight_hh, bias), vjp)


def _slopes(gates: Array, c: Array, tanh_c: Array) -> tuple[Array, Array]:
    """dc/da of i, f, g and dh/da of o, (4, T, B, H); and dh/dc. `c` are the cells before."""
    slopes, slope_c = np.empty_like(gates), np.empty_like(c)
    for t in kernels.row_blocks(gates.swapaxes(0, 1)):
        i, _, g, o = gates[:, t]
        np.subtract(1, gates[:, t], out=slopes[:, t])
        slopes[:, t] *= gates[:, t]  # σ' = σ (1 - σ)
        slopes[0, t] *= g
        slopes[1, t] *= c[t]
        np.multiply(1 - g * g, i, out=slopes[2, t])
        slopes[3, t] *= tanh_c[t]
        np.multiply(1 - tanh_c[t] * tanh_c[t], o, out=slope_c[t])
    return slopes, slope_c


def _check(x: Tensor, h0: Tensor, c0: Tensor, *weights: Tensor) -> None:
    if x.ndim == 3 and h0.ndim == 2:
        state, wide = (x.shape[0], h0.shape[1]), 4 * h0.shape[1]
        expected = [state, state, (wide, x.shape[2]), (wide, state[1]), (wide,)]
        if [tensor.shape for tensor in (h0, c0, *weights)] == expected:
            return
    shapes = ", ".join(str(tensor.shape) for tensor in (x, h0, c0, *weights))
    raise ValueError(
        "lstm: expected x (B, T, C), h0 and c0 (B, H), weight_ih (4H, C), weight_hh (4H, H) and "
        f"bias (4H), got {shapes}; put the batch first, and give each of its rows one of the state"
    )
