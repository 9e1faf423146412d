"""The exercises of the chapters: a checker, a solution, and answers that must not pass.

    python tests/docs/test_exercises.py my_answers.py

judges the functions and classes in your file that bear an exercise's name, and says of each what
is wrong with it, or that it is right. Solutions are further down.
"""

import ast
import inspect
import itertools
import json
import math
import re
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from minilm import GPT, GPTConfig
from minilm import functional as F
from minilm.metrics import precision_recall_f1
from minilm.optim import Optimizer
from minilm.tensor import Tensor, from_op, tanh
from minilm.tokenizers.bpe import naive_encode_chunk

TESTS = Path(__file__).resolve().parents[1]
CHAPTERS = TESTS.parent / "docs"

# --- Checkers: an AssertionError says what is wrong -------------------------------------------


def check_cumulative_sum(cumulative_sum: Any) -> None:
    x = np.random.default_rng(0).normal(size=(2, 3, 5))
    y = cumulative_sum(Tensor(x)).data
    for i in range(5):
        expected = x[..., : i + 1].sum(-1)
        assert y.shape == x.shape and np.allclose(y[..., i], expected), f"value: y[..., {i}]"
    check_gradient(cumulative_sum, x)


def check_z_loss(z_loss: Any) -> None:
    x = np.random.default_rng(0).normal(size=(2, 3, 5))
    leaf = Tensor(x, requires_grad=True)
    loss = z_loss(leaf)
    expected = (np.log(np.exp(x).sum(-1)) ** 2).mean()
    assert loss.shape == () and np.isclose(loss.item(), expected), "value: mean (ln Z)²"
    fused = loss.node is not None and [p and p.source for p in loss.node.parents] == [leaf]
    assert fused, "expected one node whose only parent is the logits"
    far = Tensor(np.array([[1e4, -1e4], [-1e4, -1e4]]), requires_grad=True)
    loss = z_loss(far)
    loss.backward()
    assert np.isclose(loss.item(), (1e8 + (np.log(2) - 1e4) ** 2) / 2), "value: large logits"
    assert far.grad is not None and np.isfinite(far.grad).all(), "gradient: large logits"
    check_gradient(z_loss, x)


def check_encode_with_dropout(encode_with_dropout: Any) -> None:
    byte_ids = list(range(256))
    a, b, c = (byte_ids[ord(letter)] for letter in "abc")
    ranks = {(a, b): (0, 300), (b, c): (1, 301), (300, c): (2, 302)}
    rng = np.random.default_rng(0)

    def shares(chunk: str, p: float) -> dict[tuple[int, ...], float]:
        draws = [tuple(encode_with_dropout(chunk, byte_ids, ranks, p, rng)) for _ in range(4000)]
        return {word: draws.count(word) / len(draws) for word in set(draws)}

    for chunk in ("", "a", "abc", "abcabxbc", "cbabab"):
        word = tuple(naive_encode_chunk(chunk, byte_ids, ranks))
        assert shares(chunk, 0.0) == {word: 1}, f"p = 0: expected {word} for {chunk!r}"
        assert shares(chunk, 1.0) == {tuple(chunk.encode()): 1}, f"p = 1: bytes for {chunk!r}"
    # By hand, p = 1/4: which pair is left out is drawn anew for every step and every place.
    expected = {
        "abc": {(302,): 0.75**2, (300, c): 0.75 * 0.25, (a, 301): 0.25 * 0.75, (a, b, c): 0.25**2},
        "abab": {
            (300, 300): (1 - 0.25**2) * 0.75,
            (300, a, b): 0.75 * 0.25,
            (a, b, 300): 0.25 * 0.75 * 0.25,
            (a, b, a, b): 0.25**2,
        },
    }
    for chunk, wanted in expected.items():
        found = shares(chunk, 0.25)
        for word in {*wanted, *found}:
            error = abs(found.get(word, 0) - wanted.get(word, 0))
            assert error < 0.03, f"{chunk!r}, p = 1/4: {word} {found.get(word, 0):.3f} of the time"


def check_gradient(op: Callable[[Tensor], Tensor], x: np.ndarray) -> None:
    from gradcheck import gradcheck

    gradcheck(op, [x], np.random.default_rng(1))


def check_window_mask(window_mask: Any) -> None:
    length = 7
    rng = np.random.default_rng(0)
    q, k, v = (rng.normal(size=(1, 1, length, 4)) for _ in "qkv")
    for window in (1, 3, 7, 100):
        mask = np.asarray(window_mask(length, window))
        assert mask.shape == (length, length) and mask.dtype == bool, "expected a boolean square"
        before = F.attention(Tensor(q), Tensor(k), Tensor(v), mask).data
        for j in range(length):
            other = v.copy()
            other[..., j, :] += 1
            after = F.attention(Tensor(q), Tensor(k), Tensor(other), mask).data
            changed = (before != after).any(-1)[0, 0]
            for i in range(length):
                sees = i - window < j <= i
                assert changed[i] == sees, f"window {window}: does query {i} see key {j}? {sees}"


def check_keep_min_p(keep_min_p: Any) -> None:
    p = np.array([[0.5, 0.3, 0.15, 0.05], [0.05, 0.05, 0.1, 0.8]])
    logits = np.log(p) + [[3.0], [-2.0]]  # a shift of the logits changes no probability
    before = logits.copy()
    for min_p, kept in ((0.25, p >= [[0.125], [0.2]]), (0.05, p >= [[0.025], [0.04]])):
        filtered = keep_min_p(logits, min_p)
        assert np.array_equal(logits, before), "expected the given logits to be left alone"
        assert np.array_equal(filtered > -np.inf, kept), f"min_p {min_p}: kept {filtered > -np.inf}"
        assert np.array_equal(filtered[kept], logits[kept]), "expected the others unchanged"
    far = keep_min_p(np.array([[1e4, 1e4 - 1, -1e4]]), 0.1)
    assert np.array_equal(far, [[1e4, 1e4 - 1, -np.inf]]), "large logits"


def check_lion(lion: Any) -> None:
    rng = np.random.default_rng(0)
    shapes, betas, decay = ((3, 4), (5,)), (0.8, 0.95), 0.1
    parameters = [Tensor(rng.normal(size=shape), requires_grad=True) for shape in shapes]
    expected = [parameter.data.copy() for parameter in parameters]
    moments = [np.zeros(shape) for shape in shapes]
    optimizer = lion(parameters, lr=0.01, betas=betas, weight_decay=decay)
    for step in range(1, 6):
        factor = 1 / step  # as a schedule would set it
        optimizer.set_lr_factor(factor)
        for i, parameter in enumerate(parameters):
            g = rng.normal(size=parameter.shape)
            c = betas[0] * moments[i] + (1 - betas[0]) * g
            expected[i] = expected[i] - 0.01 * factor * (np.sign(c) + decay * expected[i])
            moments[i] = betas[1] * moments[i] + (1 - betas[1]) * g
            parameter.grad = g
        optimizer.step()
        for parameter, theta in zip(parameters, expected, strict=True):
            close = np.allclose(parameter.data, theta, rtol=1e-12, atol=1e-12)
            assert close, f"step {step}: θ is off by up to {np.abs(parameter.data - theta).max()}"


def check_joint_loss(joint_loss: Any) -> None:
    rng = np.random.default_rng(0)
    config = GPTConfig(vocab_size=11, max_len=8, d_model=8, n_heads=2, n_layers=1, init_std=1.0)
    model = GPT(config, rng).astype(np.float64)
    labels = rng.integers(0, 11, (6, 9))
    labels[0, 2:] = labels[1, 5:] = labels[4:, 1:] = -100
    ids = np.maximum(labels[:, :-1], 0)
    expected = model(ids, labels=labels).loss.item()
    cuts = [slice(0, 1), slice(1, 4), slice(4, 6)]  # 1, 20 and 0 targets
    batches = [{"input_ids": ids[rows], "labels": labels[rows]} for rows in cuts]
    got = joint_loss(model, batches)
    assert isinstance(got, float) and np.isclose(got, expected), f"expected {expected}, got {got}"


def check_partition(partition: Any) -> None:
    middles = (np.arange(1000) + 0.5) / 1000  # exact for all borders of three digits
    for u in (middles, middles[::-1].reshape(20, 50)):
        fate = np.asarray(partition(u.copy()))
        assert fate.shape == u.shape, f"expected a fate for each u, {u.shape}, got {fate.shape}"
        counts = {name: int((fate == i).sum()) for i, name in enumerate(("MASK", "RANDOM", "KEEP"))}
        expected = {"MASK": 800, "RANDOM": 100, "KEEP": 100}
        assert counts == expected, f"of 1,000 equally spaced u expected {expected}, got {counts}"
    ends = np.array([0.0, 0.8, 0.9, 1 - 2**-53])
    assert np.isin(partition(ends), (0, 1, 2)).all(), f"expected a fate for each of {ends}"


def check_masked_loss_by_hand(masked_loss_by_hand: Any) -> None:
    rng = np.random.default_rng(0)
    labels = np.array([[-100, 4, -100, 0], [-100, -100, 2, -100]])  # -100 could be an index, too
    for logits in (rng.normal(size=(2, 4, 101)), 1e4 * rng.normal(size=(2, 4, 101))):
        leaf = Tensor(logits.copy(), requires_grad=True)
        expected = F.cross_entropy(leaf, labels)
        expected.backward()
        given = logits.copy()
        loss, dlogits = masked_loss_by_hand(given, labels)
        assert np.array_equal(given, logits), "expected the logits to be left as they were"
        assert np.isclose(loss, expected.item(), rtol=1e-12), (
            f"value: {expected.item()}, got {loss}"
        )
        assert dlogits.shape == logits.shape, f"dlogits: expected {logits.shape}"
        silent = labels == -100
        assert not dlogits[silent].any(), "dlogits: expected 0 where there is no label"
        assert np.allclose(dlogits, leaf.grad, rtol=1e-9, atol=1e-15), "dlogits: (p - one-hot) / N"
    loss, dlogits = masked_loss_by_hand(logits, np.full((2, 4), -100))
    assert loss == 0 and dlogits.shape == logits.shape and not dlogits.any(), "no label at all"


def check_spread_labels(spread_labels: Any) -> None:
    cases = [  # (labels, pieces of each word, what they become)
        ([3, 0, 7], [1, 1, 1], [3, 0, 7]),
        ([3, 0, 7], [2, 1, 3], [3, -100, 0, 7, -100, -100]),
        ([3, 0, -100, 7], [2, 2, 2, 1], [3, -100, 0, -100, -100, -100, 7]),
        ([3, 5, 7], [2, 0, 1], [3, -100, 7]),
        ([5, 7, 4], [0, 2, 0], [7, -100]),
        ([5], [0], []),
    ]
    for labels, n_pieces, expected in cases:
        given = np.array(labels), np.array(n_pieces)
        spread = np.asarray(spread_labels(*given))
        right = spread.tolist() == expected
        assert right, f"{labels} on {n_pieces} pieces: expected {expected}, got {spread.tolist()}"
        kept = given[0].tolist() == labels and given[1].tolist() == n_pieces
        assert kept, "expected the arguments to be left as they were"
        assert spread.dtype.kind == "i", f"expected whole numbers, got {spread.dtype}"


def check_macro_f1(macro_f1: Any) -> None:
    rng = np.random.default_rng(0)
    draws = rng.integers(0, 3, 60), rng.choice(4, 60, p=[0.7, 0.1, 0.1, 0.1])
    cases = [  # (labels, predictions, number of classes, macro F1 by hand where it is short)
        (np.array([0, 1, 1, 1]), np.array([0, 1, 1, 0]), 2, (2 / 3 + 4 / 5) / 2),
        (np.array([0, 1, 1, 1]), np.array([0, 1, 1, 0]), 4, (2 / 3 + 4 / 5) / 4),
        (np.array([0, 0, -100, 2]), np.array([0, 1, 0, 2]), 3, (2 / 3 + 0 + 1) / 3),
        (np.array([2, 2]), np.array([0, 0]), 3, 0.0),
        (*draws, 4, precision_recall_f1(*draws, n_classes=4).f1),
    ]
    for labels, predictions, n_classes, expected in cases:
        found = macro_f1(labels.copy(), predictions.copy(), n_classes)
        shown = f"{labels.tolist()} predicted as {predictions.tolist()}, {n_classes} classes"
        assert np.ndim(found) == 0, f"expected a number, got {found!r}"
        assert np.isclose(found, expected, rtol=1e-12), f"{shown}: {expected:.4f}, got {found:.4f}"


def check_scheduled_inputs(scheduled_inputs: Any) -> None:
    rng = np.random.default_rng(0)
    start, pad = 8, 9
    labels, guesses = rng.integers(0, 4, (6, 7)), rng.integers(4, 8, (6, 7))
    labels[np.arange(7) >= [[7], [7], [5], [4], [1], [0]]] = -100
    for chance in (0.0, 0.5, 1.0):
        use_guess = rng.random(labels.shape) < chance
        given = labels.copy(), guesses.copy(), use_guess.copy()
        read = np.asarray(scheduled_inputs(*given, start, pad))
        kept = map(np.array_equal, given, (labels, guesses, use_guess))
        assert all(kept), "expected the arguments to be left as they were"
        assert read.shape == labels.shape, f"expected shape {labels.shape}, got {read.shape}"
        for i, t in np.ndindex(labels.shape):
            last = labels[i, t - 1]
            guessed, place = use_guess[i, t - 1], f"position {t}"
            wanted = pad if last == -100 else guesses[i, t - 1] if guessed else last
            wanted = wanted if t else start
            if t:
                place += f", behind label {last} and " + ("its guess" if guessed else "no guess")
            assert read[i, t] == wanted, f"{place}: expected {wanted}, got {read[i, t]}"


def source_gradient_by_engine(
    h: np.ndarray,
    seen: np.ndarray,
    layers: list[tuple[np.ndarray, ...]],
    through_keys: bool = True,
    through_values: bool = True,
    scale: float | None = None,
) -> np.ndarray | None:
    leaf, constant = Tensor(h, requires_grad=True), Tensor(h)
    for q, w_k, w_v, dy in layers:
        k = (leaf if through_keys else constant) @ Tensor(w_k.T)
        v = (leaf if through_values else constant) @ Tensor(w_v.T)
        q4, k4, v4 = (x.reshape(1, 1, *x.shape) for x in (Tensor(q), k, v))
        y = F.attention(q4, k4, v4, seen[None, None, None], scale=scale)
        y.backward(dy[None, None])  # the layers' parts add up in the leaf
    return leaf.grad


def check_source_gradient(source_gradient: Any) -> None:
    rng = np.random.default_rng(0)
    length, C, D = 6, 5, 3
    h, seen = rng.normal(size=(length, C)), np.array([1, 1, 0, 1, 1, 0], bool)
    shapes = ((1, D), (4, D), (2, D))  # queries of three layers
    every = [
        (*(rng.normal(size=size) for size in (shape, (D, C), (D, C), shape)),) for shape in shapes
    ]
    for n_layers in (1, 2, 3):
        layers = every[:n_layers]
        expected = source_gradient_by_engine(h, seen, layers)
        copies = h.copy(), seen.copy(), [tuple(array.copy() for array in own) for own in layers]
        dh = np.asarray(source_gradient(*copies))
        assert dh.shape == h.shape, f"expected dh of shape {h.shape}, got {dh.shape}"
        what = f"{n_layers} layers" if n_layers > 1 else "one layer"
        assert not dh[~seen].any(), f"{what}: expected 0 at positions that are not seen"
        close = np.allclose(dh, expected, rtol=1e-9, atol=1e-12)
        assert close, f"{what}: dh is off by up to {np.abs(dh - expected).max():.3g}"


def check_bias_table_gradient(bias_table_gradient: Any) -> None:
    rng = np.random.default_rng(0)
    by_hand = np.array([[[[-1, 1], [-0.75, 0.75]]]]), np.array([[0, 3], [1, 0]])  # the chapter's
    cases = [
        (*by_hand, 4),
        (rng.normal(size=(3, 2, 5, 5)), rng.integers(0, 6, (5, 5)), 6),
        (rng.normal(size=(1, 3, 2, 7)), 2 * rng.integers(0, 4, (2, 7)), 9),  # five without a pair
    ]
    for dscores, buckets, n_buckets in cases:
        shape = n_buckets, dscores.shape[1]
        table = Tensor(rng.normal(size=shape), requires_grad=True)
        (F.embedding(buckets, table).transpose(2, 0, 1) * dscores).sum().backward()
        given = dscores.copy(), buckets.copy()
        found = np.asarray(bias_table_gradient(*given, n_buckets))
        assert found.shape == shape, f"expected a gradient for each bucket and head, {shape}"
        right = np.allclose(found, table.grad, rtol=1e-12, atol=1e-12)
        assert right, f"{n_buckets} buckets: expected\n{table.grad}\ngot\n{found}"
        kept = np.array_equal(given[0], dscores) and np.array_equal(given[1], buckets)
        assert kept, "expected the arguments to be left as they were"


def check_unimax(unimax: Any) -> None:
    rng = np.random.default_rng(0)
    cases = [  # (sizes, budget, repeats, draws of each task)
        ([1, 4, 81], 86, 4, [4, 16, 66]),
        ([81, 1, 4], 86, 4, [66, 4, 16]),
        ([9, 1, 1, 9], 12, 2, [4, 2, 2, 4]),
        ([5, 7, 9], 3, 1, [1, 1, 1]),
        ([1, 3], 100, 2, [2, 6]),
        ([6], 4, 0.5, [3]),
    ]
    for _ in range(20):  # a level that all tasks are filled up to is found by halving
        sizes, level = rng.integers(1, 1000, 8), rng.uniform(0, 2000)
        draws = np.minimum(level, 1.5 * sizes)
        cases.append((sizes, draws.sum(), 1.5, draws))
    for sizes, budget, repeats, draws in cases:
        given, expected = np.array(sizes), np.array(draws) / np.sum(draws)
        shares = np.asarray(unimax(given, budget, repeats))
        shown = f"tasks of {np.array(sizes)}, {budget:g} draws, at most {repeats} readings"
        assert shares.shape == expected.shape, f"{shown}: expected a share for each task"
        right = np.allclose(shares, expected, rtol=1e-9)
        assert right, f"{shown}: expected {expected.round(4)}, got {shares.round(4)}"
        assert np.array_equal(given, sizes), "expected the sizes to be left as they were"


def check_most_probable(most_probable: Any) -> None:
    rng = np.random.default_rng(0)
    cases = [(int(size), int(length)) for size, length in rng.integers((1, 1), (6, 7), (30, 2))]
    for size, length in (*cases, (9, 2000)):
        log_p = np.log(rng.dirichlet(np.ones(size), size))
        log_p[0, 1:2] = -np.inf
        best = log_p[size - 1]
        for _ in range(length - 1):
            best = (best[:, None] + log_p).max(0)
        given = log_p.copy()
        text = most_probable(given, size - 1, length)
        assert np.array_equal(given, log_p), "expected log_p to be left as it was"
        assert len(text) == length, f"expected {length} tokens behind the first, got {len(text)}"
        found = sum(log_p[pair] for pair in itertools.pairwise([size - 1, *text]))
        shown = f"{size} tokens, {length} of them behind {size - 1}"
        assert np.isclose(found, best.max()), f"{shown}: expected ln P {best.max()}, got {found}"


def check_keep_typical(keep_typical: Any) -> None:
    p = np.array([[0.5, 0.3, 0.15, 0.05], [0.1, 0.06, 0.04, 0.8], [0.6, 0.4, 0, 0]])
    with np.errstate(divide="ignore"):
        logits = np.log(p) + [[3.0], [-2.0], [0.0]]  # a shift of the logits changes no probability
    # H = 1.142, 0.706 and 0.673; of the first row 0.3 is the nearest to e^-H, then 0.5, 0.15, 0.05
    cases = {
        0.25: ([1], [3], [0]),
        0.5: ([0, 1], [3], [0]),
        0.85: ([0, 1, 2], [0, 3], [0, 1]),
        1.0: ([0, 1, 2, 3], [0, 1, 2, 3], [0, 1]),
    }
    for mass, expected in cases.items():
        given = logits.copy()
        filtered = keep_typical(given, mass)
        assert np.array_equal(given, logits), "expected the given logits to be left alone"
        for row, kept, p_row in zip(filtered, expected, p, strict=True):
            found = np.flatnonzero(row > -np.inf).tolist()
            assert found == kept, f"p {p_row}, mass {mass}: expected {kept} to stay, got {found}"
        stays = filtered > -np.inf
        assert np.array_equal(filtered[stays], logits[stays]), "expected the others unchanged"
    far = keep_typical(np.array([[1e4, 1e4 - 1, -1e4]]), 0.9)
    assert np.array_equal(far, [[1e4, 1e4 - 1, -np.inf]]), "large logits"


def safetensors_bytes(entries: dict[str, Any], data: bytes, excess: int = 0) -> bytes:
    """A file with this header; `excess` is added to the length that it says it has."""
    text = json.dumps(entries).encode() + b"  "
    return (len(text) + excess).to_bytes(8, "little") + text + data


def check_read_safetensors(read_safetensors: Any) -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 3)).astype("<f4"), np.array(-1.5, "<f4")
    halves = np.array([0x3F81, 0xC040, 0x0001, 0x7F80], "<u2")
    data = b.tobytes() + a.tobytes() + halves.tobytes()
    entries: dict[str, Any] = {
        "__metadata__": {"format": "pt"},
        "halves": {"dtype": "BF16", "shape": [2, 2], "data_offsets": [28, 36]},
        "a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [4, 28]},
        "empty": {"dtype": "F32", "shape": [0, 7], "data_offsets": [4, 4]},
        "b": {"dtype": "F32", "shape": [], "data_offsets": [0, 4]},
    }
    upper = np.array([[1 + 2**-7, -3], [2**-133, np.inf]])
    expected = {"a": a, "b": b, "halves": upper, "empty": np.zeros((0, 7))}
    found = read_safetensors(safetensors_bytes(entries, data))
    assert set(found) == set(expected), f"expected {sorted(expected)}, got {sorted(found)}"
    for name, array in expected.items():
        assert found[name].dtype == np.float32, f"{name}: expected float32, got {found[name].dtype}"
        right = np.array_equal(found[name], array)
        assert right, f"{name}: expected {array}, got {found[name]}"

    def changed(name: str, **changes: Any) -> dict[str, Any]:
        return {**entries, name: {**entries[name], **changes}}

    wrong = {
        "bytes that belong to no array": (entries, data + bytes(4), 0),
        "the last array cut short": (entries, data[:-1], 0),
        "two arrays that share bytes": (changed("b", data_offsets=[4, 8]), data, 0),
        "an array beyond the end": (changed("halves", data_offsets=[40, 48]), data, 0),
        "an array that ends before it begins": (changed("a", data_offsets=[28, 4]), data, 0),
        "a shape of other bytes": (changed("a", shape=[2, 4]), data, 0),
        "a header longer than the file": (entries, data, 10**6),
        "a header that ends too early": (entries, data, -10),
        "a dtype that is not known": (changed("a", dtype="F31"), data, 0),
    }
    for what, (header, raw, excess) in wrong.items():
        try:
            read_safetensors(safetensors_bytes(header, raw, excess))
        except ValueError:
            continue
        raise AssertionError(f"{what}: expected a ValueError, got none")


def check_to_bfloat16(to_bfloat16: Any) -> None:
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 0x7F80_0000, 400).astype(np.uint32)
    middles = (rng.integers(0, 0x7F7F, 100).astype(np.uint32) << 16) | 0x8000
    bits = np.concatenate([bits, middles, middles - 1, middles + 1, [0, 1, 0x7F7F_FFFF]])
    bits = np.concatenate([bits, bits | 0x8000_0000]).astype(np.uint32).reshape(2, -1)
    x = bits.view(np.float32)
    given = x.copy()
    halves = np.asarray(to_bfloat16(given))
    assert np.array_equal(given.view(np.uint32), bits), "expected the argument to be left alone"
    assert halves.dtype == np.uint16 and halves.shape == x.shape, "expected uint16, the same shape"
    for i in np.ndindex(x.shape):
        sign, low = int(halves[i]) >> 15, int(bits[i] & 0x7FFF_FFFF) >> 16
        near = [np.uint32((low + k) << 16).view(np.float32).astype(float) for k in (0, 1)]
        near = [2.0**128 if np.isinf(value) else value for value in near]
        below, above = abs(float(x[i])) - near[0], near[1] - abs(float(x[i]))
        wanted = low + (above < below or (above == below and low % 2 == 1))
        got = int(halves[i]) & 0x7FFF
        assert got == wanted, f"{x[i]!r}: expected {wanted:#06x} behind the sign, got {got:#06x}"
        assert sign == bits[i] >> 31, f"{x[i]!r}: expected its sign"
    infinite = np.asarray(to_bfloat16(np.array([np.inf, -np.inf], np.float32)))
    assert infinite.tolist() == [0x7F80, 0xFF80], f"infinity: got {infinite}"
    nans = np.array([0x7FC0_0000, 0x7F80_0001, 0xFFFF_FFFF], np.uint32).view(np.float32)
    kept = np.asarray(to_bfloat16(nans)) & 0x7FFF
    assert (kept > 0x7F80).all(), f"NaN: expected NaN, got {kept}"


def check_rnn_gradient(rnn_gradient: Any) -> None:
    names = ("dx", "dh0", "dw_ih", "dw_hh")
    for B, T, C, H in ((2, 5, 3, 4), (1, 1, 4, 2), (3, 0, 2, 2)):
        rng = np.random.default_rng(T)
        shapes = ((B, T, C), (B, H), (H, C), (H, H))
        leaves = [Tensor(rng.normal(size=shape), requires_grad=True) for shape in shapes]
        dy = rng.normal(size=(B, T, H))
        x, h, w_ih, w_hh = leaves
        for t in range(T):
            h = tanh(x[:, t] @ w_ih.T + h @ w_hh.T)
            h.backward(dy[:, t], retain_graph=True)
        given = [leaf.data.copy() for leaf in leaves] + [dy.copy()]
        found = rnn_gradient(*given)
        for name, leaf, gradient in zip(names, leaves, found, strict=True):
            expected = np.zeros(leaf.shape) if leaf.grad is None else leaf.grad
            assert np.shape(gradient) == leaf.shape, f"{name}: the shape, for T = {T}"
            assert np.allclose(gradient, expected), f"{name}: the value, for T = {T}"
        for before, after in zip((*leaves, Tensor(dy)), given, strict=True):
            assert np.array_equal(before.data, after), "an array that was given has changed"


# --- Solutions --------------------------------------------------------------------------------


def cumulative_sum(x: Tensor) -> Tensor:
    """x[j] is in every y[i] with i >= j, so dx[j] = Σ_{i >= j} dy[i]: summed from the other end."""
    y = x.data.cumsum(-1)
    return from_op(y, (x,), lambda dy: (dy[..., ::-1].cumsum(-1)[..., ::-1],))


def z_loss(logits: Tensor) -> Tensor:
    """d ln Z = Σ p dlogits with p = softmax(logits), so dlogits = 2 ln Z p dL / N."""
    shift = logits.data.max(-1, keepdims=True)
    p = np.exp(logits.data - shift)
    total = p.sum(-1, keepdims=True)
    p /= total
    log_z = np.log(total) + shift  # (..., 1)
    return from_op((log_z**2).mean(), (logits,), lambda dy: (2 * dy / log_z.size * log_z * p,))


def window_mask(length: int, window: int) -> np.ndarray:
    """With distance = i - j: not in the future (>= 0), not too long ago (< window)."""
    distance = np.arange(length)[:, None] - np.arange(length)
    return (distance >= 0) & (distance < window)


def keep_min_p(logits: np.ndarray, min_p: float) -> np.ndarray:
    """p / p_max = exp(logit - largest logit): the denominator cancels."""
    least = logits.max(-1, keepdims=True) + np.log(min_p)
    return np.where(logits < least, -np.inf, logits)


class Lion(Optimizer):
    """The sign first, with the old moment; the moment after it, in place."""

    moments = ("m",)

    def __init__(self, parameters, lr=1e-4, betas=(0.9, 0.99), weight_decay=0.0):
        super().__init__(parameters, lr=lr, betas=betas, weight_decay=weight_decay)

    def _update(self, group, block):
        theta, g, m = self.data[block], self.gradient[block], self.state["m"][block]
        beta1, beta2 = group["betas"]
        step = np.sign(beta1 * m + (1 - beta1) * g) + group["weight_decay"] * theta
        theta -= group["lr"] * self.lr_factor * step
        m *= beta2
        m += (1 - beta2) * g


def joint_loss(model, batches) -> float:
    """Σ n_b L_b / Σ n_b."""
    counts = [model.count_targets(batch) for batch in batches]
    losses = [model(**batch).loss.item() for batch in batches]
    return sum(n * loss for n, loss in zip(counts, losses, strict=True)) / max(1, sum(counts))


def encode_with_dropout(
    chunk: str,
    byte_ids: list[int],
    ranks: dict[tuple[int, int], tuple[int, int]],
    p: float,
    rng: np.random.Generator,
) -> list[int]:
    """At each step, of the places that are not left out, the earliest rule; of equals the first."""
    word = [byte_ids[byte] for byte in chunk.encode()]
    while True:
        places = [
            (ranks[pair], i)
            for i, pair in enumerate(itertools.pairwise(word))
            if pair in ranks and rng.random() >= p
        ]
        if not places:
            return word
        (_, joined), i = min(places)
        word[i : i + 2] = [joined]


def partition(u: np.ndarray) -> np.ndarray:
    """u has passed none, one or both of the borders 0.8 and 0.9."""
    return (u >= 0.8).astype(int) + (u >= 0.9)


def masked_loss_by_hand(logits: np.ndarray, labels: np.ndarray) -> tuple[float, np.ndarray]:
    """On the N labelled rows: ln Σ exp(z) - z[label], and (p - one-hot) / N, put back."""
    kept = labels != -100
    z, index = logits[kept], labels[kept][:, None]  # (N, V), (N, 1)
    z = z - z.max(-1, keepdims=True)
    log_p = z - np.log(np.exp(z).sum(-1, keepdims=True))
    n = max(1, len(z))
    rows = np.exp(log_p)
    np.put_along_axis(rows, index, np.take_along_axis(rows, index, -1) - 1, -1)
    dlogits = np.zeros_like(logits)
    dlogits[kept] = rows / n
    return -float(np.take_along_axis(log_p, index, -1).sum()) / n, dlogits


def spread_labels(labels: np.ndarray, n_pieces: np.ndarray) -> np.ndarray:
    """A word begins where the pieces of those before it end; one without pieces begins nowhere."""
    spread = np.full(n_pieces.sum(), -100)
    begins = np.cumsum(n_pieces) - n_pieces
    spread[begins[n_pieces > 0]] = labels[n_pieces > 0]
    return spread


def macro_f1(labels: np.ndarray, predictions: np.ndarray, n_classes: int) -> float:
    """2 TP / (labels + predictions) of each class; where the divisor is 0, so is TP."""
    counted = labels != -100
    labels, predictions = labels[counted], predictions[counted]
    right, predicted, labelled = (
        np.bincount(classes, minlength=n_classes)
        for classes in (labels[labels == predictions], predictions, labels)
    )
    return float(np.mean(2 * right / np.maximum(1, predicted + labelled)))


def scheduled_inputs(
    labels: np.ndarray,
    guesses: np.ndarray,
    use_guess: np.ndarray,
    decoder_start_token_id: int,
    pad_token_id: int,
) -> np.ndarray:
    """Choose where the tokens are predicted, then shift what was chosen."""
    chosen = np.where(use_guess, guesses, labels)
    chosen = np.where(labels == -100, pad_token_id, chosen)
    start = np.full((len(labels), 1), decoder_start_token_id)
    return np.hstack([start, chosen[:, :-1]])


def source_gradient(
    h: np.ndarray, seen: np.ndarray, layers: list[tuple[np.ndarray, ...]]
) -> np.ndarray:
    """dk W_k + dv W_v of each layer, added up; what is not seen has weight 0 and so no part."""
    dh = np.zeros_like(h)
    for q, w_k, w_v, dy in layers:
        k, v, scale = h @ w_k.T, h @ w_v.T, q.shape[1] ** -0.5
        scores = np.where(seen, q @ k.T * scale, -np.inf)  # (T, S)
        p = np.exp(scores - scores.max(-1, keepdims=True))
        p /= p.sum(-1, keepdims=True)
        dp = dy @ v.T
        dscores = p * (dp - (p * dp).sum(-1, keepdims=True))
        dh += scale * dscores.T @ q @ w_k + p.T @ dy @ w_v
    return dh


def bias_table_gradient(dscores: np.ndarray, buckets: np.ndarray, n_buckets: int) -> np.ndarray:
    """Sum over the rows, then over the pairs of each bucket: a product with its one-hot rows."""
    dbias = dscores.sum(0).reshape(dscores.shape[1], -1)  # (H, T S)
    belongs = buckets.ravel() == np.arange(n_buckets)[:, None]  # (n_buckets, T S)
    return belongs @ dbias.T


def unimax(sizes: np.ndarray, budget: float, repeats: float) -> np.ndarray:
    """The smallest first: what it cannot use is left for the others, who can use no less."""
    draws, left = np.zeros(len(sizes)), budget
    for served, m in enumerate(np.argsort(sizes)):
        draws[m] = min(left / (len(sizes) - served), repeats * sizes[m])
        left -= draws[m]
    return draws / draws.sum()


def most_probable(log_p: np.ndarray, first: int, length: int) -> list[int]:
    """best[w] = maxᵥ best[v] + ln P(w | v), and v is noted; then back from the best end."""
    best, came_from = log_p[first], []
    for _ in range(length - 1):
        totals = best[:, None] + log_p  # (V, V): from, to
        came_from.append(totals.argmax(0))
        best = totals.max(0)
    text = [int(best.argmax())]
    for back in reversed(came_from):
        text.append(int(back[text[-1]]))
    return text[::-1]


def keep_typical(logits: np.ndarray, mass: float) -> np.ndarray:
    """As top-p, in another order; a token of probability 0 adds nothing to H, and is the last."""
    z = logits - logits.max(-1, keepdims=True)
    p = np.exp(z) / np.exp(z).sum(-1, keepdims=True)
    surprise = np.log(np.exp(z).sum(-1, keepdims=True)) - z
    entropy = (p * np.where(p > 0, surprise, 0)).sum(-1, keepdims=True)
    order = np.argsort(np.abs(surprise - entropy), -1, kind="stable")
    ranked = np.take_along_axis(p, order, -1)
    stays = np.empty(logits.shape, bool)
    np.put_along_axis(stays, order, ranked.cumsum(-1) - ranked < mass, -1)
    return np.where(stays, logits, -np.inf)


def read_safetensors(raw: bytes) -> dict[str, np.ndarray]:
    """Where one array ends the next begins, and the last ends with the file: none can overlap."""
    n = int.from_bytes(raw[:8], "little")
    if n > len(raw) - 8:
        raise ValueError(f"expected a header within {len(raw)} bytes, got {n} bytes of it")
    header = json.loads(raw[8 : 8 + n])
    header.pop("__metadata__", None)
    arrays, end, data = {}, 0, raw[8 + n :]
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        (start, stop), width = entry["data_offsets"], {"F32": 4, "BF16": 2}.get(entry["dtype"])
        if width is None or start != end or stop - start != width * math.prod(entry["shape"]):
            raise ValueError(f"{name}: expected its bytes from {end} on, got {entry}")
        numbers = np.frombuffer(data[start:stop], f"<u{width}").astype(np.uint32)
        numbers = (numbers << (16 if width == 2 else 0)).view(np.float32)
        arrays[name], end = numbers.reshape(entry["shape"]), stop
    if end != len(data):
        raise ValueError(f"expected {end} bytes behind the header, got {len(data)}")
    return arrays


def to_bfloat16(x: np.ndarray) -> np.ndarray:
    """Half of the last place less one is added, and one more where the place is odd; then cut."""
    bits = x.view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return np.where(np.isnan(x), (bits >> 16) | 0x40, rounded).astype(np.uint16)


def rnn_gradient(
    x: np.ndarray, h0: np.ndarray, w_ih: np.ndarray, w_hh: np.ndarray, dy: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Keep every h; on the way back every da, so that the sums are one product each."""
    h = [h0]
    for t in range(x.shape[1]):
        h.append(np.tanh(x[:, t] @ w_ih.T + h[-1] @ w_hh.T))
    da, dh = np.zeros(dy.shape), np.zeros(h0.shape)
    for t in reversed(range(x.shape[1])):
        da[:, t] = (dh + dy[:, t]) * (1 - h[t + 1] ** 2)
        dh = da[:, t] @ w_hh
    before = np.stack([h0, *h[1:-1]], axis=1)[:, : x.shape[1]]  # h[t-1] beside da[t]
    return da @ w_ih, dh, np.einsum("bth,btc->hc", da, x), np.einsum("bth,btk->hk", da, before)


# --- Answers that must not pass ---------------------------------------------------------------


def sums_the_same_way_back(x):
    return from_op(x.data.cumsum(-1), (x,), lambda dy: (dy.cumsum(-1),))


def sums_along_the_first_axis(x):
    back = slice(None, None, -1)
    return from_op(x.data.cumsum(0), (x,), lambda dy: (dy[back].cumsum(0)[back],))


def forgets_the_factor_two(logits):
    right = z_loss(logits)
    return from_op(right.data, (logits,), lambda dy: (right.node.vjp(dy)[0] / 2,))


def forgets_the_mean(logits):
    right, n = z_loss(logits), logits.size // logits.shape[-1]
    return from_op(right.data, (logits,), lambda dy: (right.node.vjp(dy)[0] * n,))


def overflows(logits):
    e = np.exp(logits.data)
    log_z = np.log(e.sum(-1, keepdims=True))
    p = e / e.sum(-1, keepdims=True)
    return from_op((log_z**2).mean(), (logits,), lambda dy: (2 * dy / log_z.size * log_z * p,))


def is_composed(logits):
    return ((F.log_softmax(logits) - logits)[..., 0] ** 2).mean()


def sees_one_too_many(length, window):
    return window_mask(length, window + 1)


def sees_the_future(length, window):
    return np.abs(np.arange(length)[:, None] - np.arange(length)) < window


def takes_min_p_for_a_probability(logits, min_p):
    p = np.exp(logits - logits.max(-1, keepdims=True))
    return np.where(p / p.sum(-1, keepdims=True) < min_p, -np.inf, logits)


def compares_logits_by_their_ratio(logits, min_p):
    return np.where(logits < min_p * logits.max(-1, keepdims=True), -np.inf, logits)


def changes_what_it_was_given(logits, min_p):
    logits[logits < logits.max(-1, keepdims=True) + np.log(min_p)] = -np.inf
    return logits


class MomentFirst(Lion):
    def _update(self, group, block):
        m, g, beta2 = self.state["m"][block], self.gradient[block], group["betas"][1]
        m *= beta2
        m += (1 - beta2) * g
        self.data[block] -= group["lr"] * self.lr_factor * np.sign(m)


class DecayInTheSign(Lion):
    def _update(self, group, block):
        self.gradient[block] += group["weight_decay"] * self.data[block]
        super()._update({**group, "weight_decay": 0}, block)


class NoSchedule(Lion):
    def _update(self, group, block):
        super()._update({**group, "lr": group["lr"] / self.lr_factor}, block)


def leaves_rules_out_for_the_whole_chunk(chunk, byte_ids, ranks, p, rng):
    kept = {pair: rank for pair, rank in ranks.items() if rng.random() >= p}
    return naive_encode_chunk(chunk, byte_ids, kept)


def takes_p_for_what_is_kept(chunk, byte_ids, ranks, p, rng):
    return encode_with_dropout(chunk, byte_ids, ranks, 1 - p, rng)


def turns_the_order_of_the_rules_round(chunk, byte_ids, ranks, p, rng):
    backwards = {pair: (-rank, joined) for pair, (rank, joined) in ranks.items()}
    return encode_with_dropout(chunk, byte_ids, backwards, p, rng)


def takes_the_mean_of_means(model, batches):
    return float(np.mean([model(**batch).loss.item() for batch in batches]))


def weighs_by_rows(model, batches):
    rows = [len(batch["labels"]) for batch in batches]
    return float(np.average([model(**batch).loss.item() for batch in batches], weights=rows))


def draws_twice(u):
    second = u * 10 % 1  # u's later digits: as good as another draw
    return np.where(u < 0.1, 1, np.where(second < 0.1, 2, 0))


def takes_a_tenth_of_the_fifth(u):
    second = u * 10 % 1
    return np.where(u < 0.8, 0, np.where(second < 0.1, 1, 2))


def ignores_u(u):
    return np.random.default_rng(0).choice(3, u.shape, p=(0.8, 0.1, 0.1))


def leaves_the_border_without_a_fate(u):
    return np.select([u < 0.8, (u > 0.8) & (u < 0.9), u > 0.9], [0, 1, 2], -1)


def flattens_its_input(u):
    return partition(u.ravel())


def divides_by_all_positions(logits, labels):
    loss, dlogits = masked_loss_by_hand(logits, labels)
    share = (labels != -100).mean()
    return loss * share, dlogits * share


def takes_minus_100_for_an_index(logits, labels):
    return masked_loss_by_hand(logits, np.where(labels == -100, labels + logits.shape[-1], labels))


def sums_its_gradient(logits, labels):
    loss, dlogits = masked_loss_by_hand(logits, labels)
    return loss, dlogits * max(1, (labels != -100).sum())


def forgets_the_one_hot(logits, labels):
    p = np.exp(logits - logits.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    kept = (labels != -100)[..., None]
    return masked_loss_by_hand(logits, labels)[0], np.where(kept, p / max(1, kept.sum()), 0)


def shifts_as_in_gpt(logits, labels):
    loss, dlogits = masked_loss_by_hand(logits[:, :-1], labels[:, 1:])
    return loss, np.pad(dlogits, ((0, 0), (0, 1), (0, 0)))


def exponentiates_large_logits(logits, labels):
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    kept = labels != -100
    loss = -np.log(p[kept, labels[kept]]).sum() / max(1, kept.sum())
    return float(loss), masked_loss_by_hand(logits, labels)[1]


def divides_by_no_label(logits, labels):
    loss, dlogits = masked_loss_by_hand(logits, labels)
    return loss / np.any(labels != -100), dlogits


def labels_every_piece(labels, n_pieces):
    return np.repeat(labels, n_pieces)


def labels_the_last_piece(labels, n_pieces):
    return spread_labels(labels[::-1], n_pieces[::-1])[::-1]


def labels_the_piece_behind_the_word(labels, n_pieces):
    spread, ends = np.full(n_pieces.sum() + 1, -100), np.cumsum(n_pieces)
    spread[ends[n_pieces > 0]] = labels[n_pieces > 0]
    return spread[:-1]


def forgets_words_without_pieces(labels, n_pieces):
    spread = np.full(n_pieces.sum(), -100)
    spread[np.cumsum(n_pieces) - n_pieces] = labels
    return spread


def gives_a_piece_to_words_without(labels, n_pieces):
    return spread_labels(labels, np.maximum(1, n_pieces))


def class_zero_is_no_label(labels, n_pieces):
    return spread_labels(np.where(labels == 0, -100, labels), n_pieces)


def f1_of_the_means(labels, predictions, n_classes):
    precision, recall, *_ = precision_recall_f1(labels, predictions, n_classes=n_classes)
    return 2 * precision * recall / max(1e-9, precision + recall)


def takes_micro_for_macro(labels, predictions, n_classes):
    return precision_recall_f1(labels, predictions, "micro").f1


def weighs_classes_by_their_labels(labels, predictions, n_classes):
    return precision_recall_f1(labels, predictions, "weighted").f1


def leaves_absent_classes_out(labels, predictions, n_classes):
    return precision_recall_f1(labels, predictions).f1


def calls_nothing_over_nothing_right(labels, predictions, n_classes):
    return precision_recall_f1(labels, predictions, "macro", n_classes, zero_division=1.0).f1


def counts_ignored_labels_as_mistakes(labels, predictions, n_classes):
    labels = np.where(labels == -100, (predictions + 1) % n_classes, labels)
    return macro_f1(labels, predictions, n_classes)


def divides_nothing_by_nothing(labels, predictions, n_classes):
    right, predicted, labelled = (
        np.bincount(classes[classes >= 0], minlength=n_classes)
        for classes in (labels[labels == predictions], predictions[labels >= 0], labels)
    )
    return float(np.mean(2 * right / (predicted + labelled)))


def reads_the_guess_of_its_own_token(labels, guesses, use_guess, start, pad):
    read = scheduled_inputs(labels, guesses, use_guess & False, start, pad)
    return np.where(use_guess & (labels != -100), guesses, read)


def chooses_where_it_is_read(labels, guesses, use_guess, start, pad):
    return scheduled_inputs(labels, guesses, np.roll(use_guess, -1, axis=1), start, pad)


def guesses_the_start(labels, guesses, use_guess, start, pad):
    read = scheduled_inputs(labels, guesses, use_guess, start, pad)
    read[:, 0] = np.where(use_guess[:, 0], guesses[:, 0], start)
    return read


def reads_minus_100(labels, guesses, use_guess, start, pad):
    return scheduled_inputs(labels, guesses, use_guess & (labels != -100), start, -100)


def guesses_behind_the_end(labels, guesses, use_guess, start, pad):
    return scheduled_inputs(np.where(labels == -100, pad, labels), guesses, use_guess, start, pad)


def shifts_twice(labels, guesses, use_guess, start, pad):
    read = scheduled_inputs(labels, guesses, use_guess, start, pad)
    return scheduled_inputs(read, guesses, use_guess & False, start, pad)


def shifts_to_the_left(labels, guesses, use_guess, start, pad):
    chosen = np.where(labels == -100, pad, np.where(use_guess, guesses, labels))
    return np.hstack([chosen[:, 1:], np.full((len(labels), 1), pad)])


def writes_into_the_labels(labels, guesses, use_guess, start, pad):
    labels[use_guess & (labels != -100)] = guesses[use_guess & (labels != -100)]
    return scheduled_inputs(labels, labels, use_guess, start, pad)


def hears_only_the_last_layer(h, seen, layers):
    return source_gradient(h, seen, layers[-1:])


def takes_the_mean_over_layers(h, seen, layers):
    return source_gradient(h, seen, layers) / len(layers)


def hears_only_the_values(h, seen, layers):
    return source_gradient_by_engine(h, seen, layers, through_keys=False)


def hears_only_the_keys(h, seen, layers):
    return source_gradient_by_engine(h, seen, layers, through_values=False)


def forgets_the_scale(h, seen, layers):
    return source_gradient_by_engine(h, seen, layers, scale=1.0)


def lets_padding_be_seen(h, seen, layers):
    return source_gradient(h, np.ones_like(seen), layers)


def forgets_that_what_is_not_seen_takes_no_weight(h, seen, layers):
    return source_gradient(h, np.ones_like(seen), layers) * seen[:, None]


def counts_a_bucket_once(dscores, buckets, n_buckets):
    dweight = np.zeros((n_buckets, dscores.shape[1]))
    dweight[buckets] += dscores.sum(0).transpose(1, 2, 0)  # of equal indices the last one wins
    return dweight


def takes_the_mean_of_the_pairs(dscores, buckets, n_buckets):
    pairs = np.bincount(buckets.ravel(), minlength=n_buckets)
    return bias_table_gradient(dscores, buckets, n_buckets) / np.maximum(1, pairs)[:, None]


def takes_the_mean_of_the_rows(dscores, buckets, n_buckets):
    return bias_table_gradient(dscores, buckets, n_buckets) / len(dscores)


def gives_all_heads_one_gradient(dscores, buckets, n_buckets):
    together = np.broadcast_to(dscores.sum(1, keepdims=True), dscores.shape)
    return bias_table_gradient(together, buckets, n_buckets)


def takes_queries_for_keys(dscores, buckets, n_buckets):
    return bias_table_gradient(dscores, buckets.T.reshape(buckets.shape), n_buckets)


def leaves_empty_buckets_out(dscores, buckets, n_buckets):
    return bias_table_gradient(dscores, buckets, n_buckets)[np.unique(buckets)]


def puts_heads_first(dscores, buckets, n_buckets):
    return bias_table_gradient(dscores, buckets, n_buckets).T


def gives_to_all_alike(sizes, budget, repeats):
    return np.full(len(sizes), 1 / len(sizes))


def gives_in_proportion(sizes, budget, repeats):
    return sizes / sizes.sum()


def cuts_once_and_scales_up(sizes, budget, repeats):
    draws = np.minimum(budget / len(sizes), repeats * sizes)
    return draws / draws.sum()


def serves_in_the_given_order(sizes, budget, repeats):
    draws, left = np.zeros(len(sizes)), budget
    for m in range(len(sizes)):
        draws[m] = min(left / (len(sizes) - m), repeats * sizes[m])
        left -= draws[m]
    return draws / draws.sum()


def serves_the_greatest_first(sizes, budget, repeats):
    return serves_in_the_given_order(np.sort(sizes)[::-1], budget, repeats)[
        np.argsort(np.argsort(-sizes))
    ]


def forgets_to_put_them_back_in_order(sizes, budget, repeats):
    return np.sort(unimax(sizes, budget, repeats))


def leaves_the_rest_to_the_greatest(sizes, budget, repeats):
    draws = np.minimum(budget / len(sizes), repeats * sizes)
    draws[np.argmax(sizes)] += budget - draws.sum()
    return draws / draws.sum()


def reads_each_example_once(sizes, budget, repeats):
    return unimax(sizes, budget, 1)


def divides_by_the_budget(sizes, budget, repeats):
    limits = (repeats * sizes).sum()
    return unimax(sizes, budget, repeats) * min(1, limits / budget)


def goes_on_greedily(log_p, first, length):
    text = [first]
    for _ in range(length):
        text.append(int(log_p[text[-1]].argmax()))
    return text[1:]


def follows_two_beams(log_p, first, length):
    beams = [(0.0, [first])]
    for _ in range(length):
        grown = [
            (total + float(log_p[text[-1], token]), [*text, token])
            for total, text in beams
            for token in range(len(log_p))
        ]
        beams = sorted(grown, reverse=True)[:2]
    return beams[0][1][1:]


def takes_the_best_end_of_each_length(log_p, first, length):
    best, text = log_p[first], []
    for _ in range(length):
        text.append(int(best.argmax()))
        best = (best[:, None] + log_p).max(0)
    return text


def reads_rows_as_columns(log_p, first, length):
    return most_probable(log_p.T, first, length)


def begins_behind_the_surest_token(log_p, first, length):
    return most_probable(log_p, int(log_p.max(1).argmax()), length)


def adds_probabilities(log_p, first, length):
    return most_probable(np.exp(log_p), first, length)


def gives_the_first_token_too(log_p, first, length):
    return [first, *most_probable(log_p, first, length)]


def multiplies_probabilities(log_p, first, length):
    p = np.exp(log_p)
    best, came_from = p[first], []
    for _ in range(length - 1):
        totals = best[:, None] * p
        came_from.append(totals.argmax(0))
        best = totals.max(0)
    text = [int(best.argmax())]
    for back in reversed(came_from):
        text.append(int(back[text[-1]]))
    return text[::-1]


def ranked_by(distance):
    """An answer that ranks by a distance of p and surprise (B, V) from H (B, 1)."""

    def answer(logits, mass):
        p = np.exp(logits - logits.max(-1, keepdims=True))
        p /= p.sum(-1, keepdims=True)
        surprise = -np.log(np.maximum(p, 1e-300))
        far = distance(p, surprise, (p * surprise).sum(-1, keepdims=True))
        order = np.argsort(np.where(p > 0, far, np.inf), -1, kind="stable")
        ranked = np.take_along_axis(p, order, -1)
        stays = np.empty(logits.shape, bool)
        np.put_along_axis(stays, order, ranked.cumsum(-1) - ranked < mass, -1)
        return np.where(stays, logits, -np.inf)

    return answer


def keeps_the_likeliest(logits, mass):
    return ranked_by(lambda p, surprise, h: surprise)(logits, mass)


def starts_with_the_least_typical(logits, mass):
    return ranked_by(lambda p, surprise, h: -np.abs(surprise - h))(logits, mass)


def takes_surprise_in_bits(logits, mass):
    return ranked_by(lambda p, surprise, h: np.abs(surprise / np.log(2) - h))(logits, mass)


def compares_probabilities_with_e_to_the_minus_h(logits, mass):
    return ranked_by(lambda p, surprise, h: np.abs(p - np.exp(-h)))(logits, mass)


def takes_the_mean_surprise_for_the_entropy(logits, mass):
    return ranked_by(lambda p, surprise, h: np.abs(surprise - surprise.mean(-1, keepdims=True)))(
        logits, mass
    )


def takes_one_entropy_for_all_rows(logits, mass):
    return ranked_by(lambda p, surprise, h: np.abs(surprise - h.mean()))(logits, mass)


def stops_before_the_mass_is_reached(logits, mass):
    kept = keep_typical(logits, mass)
    p = np.exp(logits - logits.max(-1, keepdims=True))
    p = np.where(kept > -np.inf, p / p.sum(-1, keepdims=True), 0)
    return np.where(p.sum(-1, keepdims=True) <= mass, kept, -np.inf)


def takes_zero_times_infinity(logits, mass):
    z = logits - logits.max(-1, keepdims=True)
    p = np.exp(z) / np.exp(z).sum(-1, keepdims=True)
    return keep_typical(logits, mass) + 0 * (p * z).sum(-1, keepdims=True)


def bans_in_place(logits, mass):
    logits[:] = keep_typical(logits, mass)
    return logits


def replaced(name: str, old: str, new: str) -> Callable[[bytes], Any]:
    """read_safetensors with one piece of it written otherwise."""
    source = inspect.getsource(read_safetensors)
    assert source.count(old) == 1, old
    names = dict(globals())
    exec(source.replace(old, new).replace("read_safetensors", name), names)
    return names[name]


reads_the_length_backwards = replaced("reads_the_length_backwards", '"little"', '"big"')
counts_offsets_from_the_first_byte = replaced(
    "counts_offsets_from_the_first_byte", "raw[8 + n :]", "raw"
)
takes_metadata_for_an_array = replaced(
    "takes_metadata_for_an_array", 'header.pop("__metadata__", None)', "pass"
)
shifts_out_of_sixteen_bits = replaced("shifts_out_of_sixteen_bits", ".astype(np.uint32)", "")
takes_bfloat16_for_the_lower_half = replaced(
    "takes_bfloat16_for_the_lower_half", "(16 if width == 2 else 0)", "0"
)
lets_arrays_share_bytes = replaced("lets_arrays_share_bytes", " or start != end", "")
reads_in_the_order_of_the_header = replaced(
    "reads_in_the_order_of_the_header",
    'sorted(header.items(), key=lambda item: item[1]["data_offsets"])',
    "header.items()",
)
lets_bytes_be_left_over = replaced("lets_bytes_be_left_over", "end != len(data)", "False")
reads_columns_first = replaced(
    "reads_columns_first", 'reshape(entry["shape"])', 'reshape(entry["shape"], order="F")'
)


def cuts_the_lower_half_off(x):
    return (x.view(np.uint32) >> 16).astype(np.uint16)


def rounds_halves_up(x):
    rounded = ((x.view(np.uint32).astype(np.uint64) + 0x8000) >> 16).astype(np.uint16)
    return np.where(np.isnan(x), 0x7FC0, rounded).astype(np.uint16)


def rounds_halves_to_the_odd(x):
    bits = x.view(np.uint32)
    rounded = (bits + 0x8000 - ((bits >> 16) & 1)) >> 16
    return np.where(np.isnan(x), (bits >> 16) | 0x40, rounded).astype(np.uint16)


def adds_to_nan_as_well(x):
    bits = x.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def stops_at_the_largest(x):
    halves = to_bfloat16(x)
    return np.where(np.isfinite(x) & (halves & 0x7FFF == 0x7F80), halves - 1, halves)


def forgets_the_sign(x):
    return to_bfloat16(np.abs(x))


def goes_by_way_of_float16(x):
    with np.errstate(over="ignore", invalid="ignore"):
        return to_bfloat16(x.astype(np.float16).astype(np.float32))


def keeps_32_bits(x):
    return to_bfloat16(x).astype(np.uint32)


def rnn_gradient_with(slope=True, carry=True, turned=False, shown=0, from_end=True):
    """The solution with one thing in it changed."""

    def answer(x, h0, w_ih, w_hh, dy):
        h = [h0]
        for t in range(x.shape[1]):
            h.append(np.tanh(x[:, t] @ w_ih.T + h[-1] @ w_hh.T))
        dh, dx = np.zeros(h0.shape), np.zeros(x.shape)
        dw_ih, dw_hh = np.zeros(w_ih.shape), np.zeros(w_hh.shape)
        for t in reversed(range(x.shape[1])) if from_end else range(x.shape[1]):
            da = dh * carry + dy[:, t]
            da = da * (1 - h[t + 1] ** 2) if slope else da
            dx[:, t], dw_ih, dw_hh = da @ w_ih, dw_ih + da.T @ x[:, t], dw_hh + da.T @ h[t + shown]
            dh = da @ (w_hh.T if turned else w_hh)
        return dx, dh, dw_ih, dw_hh

    return answer


def forgets_the_slope_of_tanh(x, h0, w_ih, w_hh, dy):
    return rnn_gradient_with(slope=False)(x, h0, w_ih, w_hh, dy)


def forgets_what_later_steps_ask(x, h0, w_ih, w_hh, dy):
    return rnn_gradient_with(carry=False)(x, h0, w_ih, w_hh, dy)


def multiplies_with_the_matrix_turned_over(x, h0, w_ih, w_hh, dy):
    return rnn_gradient_with(turned=True)(x, h0, w_ih, w_hh, dy)


def pairs_each_step_with_its_own_state(x, h0, w_ih, w_hh, dy):
    return rnn_gradient_with(shown=1)(x, h0, w_ih, w_hh, dy)


def walks_from_the_first_step(x, h0, w_ih, w_hh, dy):
    return rnn_gradient_with(from_end=False)(x, h0, w_ih, w_hh, dy)


def hears_only_the_last_step(x, h0, w_ih, w_hh, dy):
    last = np.zeros(dy.shape)
    last[:, -1:] = dy[:, -1:]
    return rnn_gradient(x, h0, w_ih, w_hh, last)


def takes_the_mean_over_the_steps(x, h0, w_ih, w_hh, dy):
    dx, dh0, dw_ih, dw_hh = rnn_gradient(x, h0, w_ih, w_hh, dy)
    steps = max(1, x.shape[1])
    return dx, dh0, dw_ih / steps, dw_hh / steps


def adds_up_in_what_was_given(x, h0, w_ih, w_hh, dy):
    found = rnn_gradient(x, h0, w_ih, w_hh, dy)
    dy += 1
    return found


# --- The exercises ----------------------------------------------------------------------------


class Exercise(NamedTuple):
    chapter: str
    check: Callable[[Any], None]
    solution: Any
    wrong: tuple[Any, ...]


EXERCISES = {
    "cumulative_sum": Exercise(
        "01-autograd.md",
        check_cumulative_sum,
        cumulative_sum,
        (sums_the_same_way_back, sums_along_the_first_axis),
    ),
    "z_loss": Exercise(
        "02-layers.md",
        check_z_loss,
        z_loss,
        (forgets_the_factor_two, forgets_the_mean, overflows, is_composed),
    ),
    "window_mask": Exercise(
        "03-attention.md", check_window_mask, window_mask, (sees_one_too_many, sees_the_future)
    ),
    "keep_min_p": Exercise(
        "04-gpt.md",
        check_keep_min_p,
        keep_min_p,
        (takes_min_p_for_a_probability, compares_logits_by_their_ratio, changes_what_it_was_given),
    ),
    "Lion": Exercise(
        "05-optimizers.md", check_lion, Lion, (MomentFirst, DecayInTheSign, NoSchedule)
    ),
    "joint_loss": Exercise(
        "06-training.md", check_joint_loss, joint_loss, (takes_the_mean_of_means, weighs_by_rows)
    ),
    "encode_with_dropout": Exercise(
        "07-tokenizers.md",
        check_encode_with_dropout,
        encode_with_dropout,
        (
            leaves_rules_out_for_the_whole_chunk,
            takes_p_for_what_is_kept,
            turns_the_order_of_the_rules_round,
        ),
    ),
    "partition": Exercise(
        "08-bert.md",
        check_partition,
        partition,
        (
            draws_twice,
            takes_a_tenth_of_the_fifth,
            ignores_u,
            leaves_the_border_without_a_fate,
            flattens_its_input,
        ),
    ),
    "masked_loss_by_hand": Exercise(
        "08-bert.md",
        check_masked_loss_by_hand,
        masked_loss_by_hand,
        (
            divides_by_all_positions,
            takes_minus_100_for_an_index,
            sums_its_gradient,
            forgets_the_one_hot,
            shifts_as_in_gpt,
            exponentiates_large_logits,
            divides_by_no_label,
        ),
    ),
    "spread_labels": Exercise(
        "09-finetuning.md",
        check_spread_labels,
        spread_labels,
        (
            labels_every_piece,
            labels_the_last_piece,
            labels_the_piece_behind_the_word,
            forgets_words_without_pieces,
            gives_a_piece_to_words_without,
            class_zero_is_no_label,
        ),
    ),
    "macro_f1": Exercise(
        "09-finetuning.md",
        check_macro_f1,
        macro_f1,
        (
            f1_of_the_means,
            takes_micro_for_macro,
            weighs_classes_by_their_labels,
            leaves_absent_classes_out,
            calls_nothing_over_nothing_right,
            counts_ignored_labels_as_mistakes,
            divides_nothing_by_nothing,
        ),
    ),
    "scheduled_inputs": Exercise(
        "10-encoder-decoder.md",
        check_scheduled_inputs,
        scheduled_inputs,
        (
            reads_the_guess_of_its_own_token,
            chooses_where_it_is_read,
            guesses_the_start,
            reads_minus_100,
            guesses_behind_the_end,
            shifts_twice,
            shifts_to_the_left,
            writes_into_the_labels,
        ),
    ),
    "source_gradient": Exercise(
        "10-encoder-decoder.md",
        check_source_gradient,
        source_gradient,
        (
            hears_only_the_last_layer,
            takes_the_mean_over_layers,
            hears_only_the_values,
            hears_only_the_keys,
            forgets_the_scale,
            lets_padding_be_seen,
            forgets_that_what_is_not_seen_takes_no_weight,
        ),
    ),
    "bias_table_gradient": Exercise(
        "11-t5.md",
        check_bias_table_gradient,
        bias_table_gradient,
        (
            counts_a_bucket_once,
            takes_the_mean_of_the_pairs,
            takes_the_mean_of_the_rows,
            gives_all_heads_one_gradient,
            takes_queries_for_keys,
            leaves_empty_buckets_out,
            puts_heads_first,
        ),
    ),
    "unimax": Exercise(
        "11-t5.md",
        check_unimax,
        unimax,
        (
            gives_to_all_alike,
            gives_in_proportion,
            cuts_once_and_scales_up,
            serves_in_the_given_order,
            serves_the_greatest_first,
            forgets_to_put_them_back_in_order,
            leaves_the_rest_to_the_greatest,
            reads_each_example_once,
            divides_by_the_budget,
        ),
    ),
    "most_probable": Exercise(
        "12-decoding.md",
        check_most_probable,
        most_probable,
        (
            goes_on_greedily,
            follows_two_beams,
            takes_the_best_end_of_each_length,
            reads_rows_as_columns,
            begins_behind_the_surest_token,
            adds_probabilities,
            gives_the_first_token_too,
            multiplies_probabilities,
        ),
    ),
    "keep_typical": Exercise(
        "12-decoding.md",
        check_keep_typical,
        keep_typical,
        (
            keeps_the_likeliest,
            starts_with_the_least_typical,
            takes_surprise_in_bits,
            compares_probabilities_with_e_to_the_minus_h,
            takes_the_mean_surprise_for_the_entropy,
            takes_one_entropy_for_all_rows,
            stops_before_the_mass_is_reached,
            takes_zero_times_infinity,
            bans_in_place,
        ),
    ),
    "read_safetensors": Exercise(
        "13-pretrained.md",
        check_read_safetensors,
        read_safetensors,
        (
            reads_the_length_backwards,
            counts_offsets_from_the_first_byte,
            takes_metadata_for_an_array,
            shifts_out_of_sixteen_bits,
            takes_bfloat16_for_the_lower_half,
            lets_arrays_share_bytes,
            reads_in_the_order_of_the_header,
            lets_bytes_be_left_over,
            reads_columns_first,
        ),
    ),
    "to_bfloat16": Exercise(
        "13-pretrained.md",
        check_to_bfloat16,
        to_bfloat16,
        (
            cuts_the_lower_half_off,
            rounds_halves_up,
            rounds_halves_to_the_odd,
            adds_to_nan_as_well,
            stops_at_the_largest,
            forgets_the_sign,
            goes_by_way_of_float16,
            keeps_32_bits,
        ),
    ),
    "rnn_gradient": Exercise(
        "14-recurrent.md",
        check_rnn_gradient,
        rnn_gradient,
        (
            forgets_the_slope_of_tanh,
            forgets_what_later_steps_ask,
            multiplies_with_the_matrix_turned_over,
            pairs_each_step_with_its_own_state,
            walks_from_the_first_step,
            hears_only_the_last_step,
            takes_the_mean_over_the_steps,
            adds_up_in_what_was_given,
        ),
    ),
}


def verdict(name: str, answer: Any) -> str:
    """What is wrong with an answer; "" if it is right."""
    try:
        with np.errstate(over="raise", invalid="raise"):
            EXERCISES[name].check(answer)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def judge(path: str | Path) -> dict[str, str]:
    """The verdict on each answer in the file."""
    answers = runpy.run_path(str(path))
    return {name: verdict(name, answers[name]) for name in EXERCISES if name in answers}


# --- Tests ------------------------------------------------------------------------------------

ANSWERS = [(name, wrong) for name, exercise in EXERCISES.items() for wrong in exercise.wrong]


@pytest.mark.parametrize("name", EXERCISES)
def test_the_solution_is_right(name):
    assert verdict(name, EXERCISES[name].solution) == ""


@pytest.mark.parametrize(
    ("name", "answer"), ANSWERS, ids=[answer.__name__ for _, answer in ANSWERS]
)
def test_a_wrong_answer_is_told_what_is_wrong(name, answer):
    assert verdict(name, answer) != ""


@pytest.mark.parametrize("name", EXERCISES)
def test_the_chapters_stub_has_the_signature_of_the_solution(name):
    exercise = EXERCISES[name]
    text = (CHAPTERS / exercise.chapter).read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    definitions = [node for block in blocks for node in ast.parse(block).body]
    (stub,) = [node for node in definitions if getattr(node, "name", None) == name]
    assert arguments(stub) == arguments(ast.parse(inspect.getsource(exercise.solution)).body[0])
    assert "NotImplementedError" in ast.unparse(stub)


def arguments(node: ast.AST) -> dict[str, str]:
    """The arguments of every function in a definition."""
    functions = [part for part in ast.walk(node) if isinstance(part, ast.FunctionDef)]
    return {function.name: ast.unparse(function.args) for function in functions}


def test_a_file_of_answers_is_judged_by_the_names_in_it(tmp_path):
    file = tmp_path / "my_answers.py"
    right = inspect.getsource(window_mask)
    stub = "def joint_loss(model, batches):\n    raise NotImplementedError"
    file.write_text(f"import numpy as np\n{right}\n{stub}", encoding="utf-8")
    verdicts = judge(file)
    assert verdicts["window_mask"] == ""
    assert verdicts["joint_loss"].startswith("NotImplementedError")
    assert set(verdicts) == {"window_mask", "joint_loss"}


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.path.insert(0, str(TESTS))
    verdicts = judge(sys.argv[1])
    for name, wrong in verdicts.items():
        print(f"{name:>15}  {wrong or 'right'}")
    if not verdicts:
        sys.exit(f"error: expected one of {', '.join(EXERCISES)} in the file, got none of them")
    sys.exit(any(verdicts.values()))
