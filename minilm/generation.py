"""The decoding strategies, over any model that gives next-token logits.

Context. A model sees at most max_len tokens. When the text outgrows that, the window's beginning
moves on in jumps of half a window: cached decoding then reads half a window anew once in max_len/2
tokens, rather than a whole one at every token. With or without the cache the model sees the same
context at every step, so both give the same text.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from minilm.nn import evaluation_mode
from minilm.tensor import Array, no_grad


def generate(
    model: Any,
    input_ids: Array,
    max_new_tokens: int = 50,
    *,
    num_return_sequences: int = 1,
    eos_token_id: int | Sequence[int] | None = None,
    **how: Any,
) -> Array:
    """The prompts and what the model adds: (B · num_return_sequences, T + new) token ids.

    Each prompt's sequences stand together. After a stop token (`eos_token_id`, one or several) a
    sequence is filled up with the first stop token; when all have stopped, generation ends. `how`
    is as in `stream`.

    Shapes: (B, T)i -> (B, T)i
    Raises: ValueError — as in `stream`, or several sequences of greedy search, all equal.
    """
    if num_return_sequences > 1 and not how.get("do_sample"):
        raise ValueError(
            f"generate: expected do_sample=True for num_return_sequences={num_return_sequences}, "
            "got do_sample=False; greedy search would give the same sequence each time"
        )
    prompts = np.repeat(np.atleast_2d(np.asarray(input_ids)), num_return_sequences, axis=0)
    steps = stream(model, prompts, max_new_tokens, eos_token_id=eos_token_id, **how)
    return np.concatenate([prompts, *(tokens[:, None] for tokens in steps)], axis=1)


def stream(
    model: Any,
    input_ids: Array,
    max_new_tokens: int = 50,
    *,
    do_sample: bool = False,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    repetition_penalty: float = 1.0,
    eos_token_id: int | Sequence[int] | None = None,
    rng: np.random.Generator | None = None,
    use_cache: bool = True,
) -> Iterator[Array]:
    """Yield the next token of every row, (B), step by step.

    The logits go through `repetition_penalty`; then the largest is taken, or, with `do_sample`,
    they go through `temperature`, `top_k` and `top_p`, in this order, and `rng` draws a token.

    Raises: ValueError — an empty prompt, an argument out of its range, sampling without an rng.
    """
    tokens = np.atleast_2d(np.asarray(input_ids)).astype(np.int64)
    _check(tokens, max_new_tokens, do_sample, temperature, top_k, top_p, repetition_penalty, rng)
    stops = np.atleast_1d([] if eos_token_id is None else eos_token_id).astype(np.int64)
    return _steps(
        *(model, tokens, max_new_tokens, stops, use_cache),
        lambda logits, seen: next_token(
            logits, seen, do_sample, temperature, top_k, top_p, repetition_penalty, rng
        ),
    )


def _steps(
    model: Any, tokens: Array, max_new_tokens: int, stops: Array, use_cache: bool, choose: Any
) -> Iterator[Array]:
    finished = np.zeros(len(tokens), bool)
    context = _Context(model, use_cache)
    for _ in range(max_new_tokens):
        chosen = choose(context.next_logits(tokens), tokens)
        if stops.size:
            chosen = np.where(finished, stops[0], chosen)
            finished |= np.isin(chosen, stops)
        tokens = np.concatenate([tokens, chosen[:, None]], axis=1)
        yield chosen
        if finished.all():
            return


class _Context:
    """Next-token logits for a growing text, from a cache as far as it reaches."""

    def __init__(self, model: Any, use_cache: bool) -> None:
        self.model, self.use_cache = model, use_cache
        self.caches: Any = None
        self.start = self.stop = 0  # the caches hold tokens[start:stop]

    def next_logits(self, tokens: Array) -> Array:
        start = context_start(tokens.shape[1], self.model.config.max_len)
        with evaluation_mode(self.model), no_grad():
            if not self.use_cache:
                return self._last(tokens[:, start:], None)
            if self.caches is None or start != self.start:
                self.caches = self.model.new_caches(len(tokens))
                self.start = self.stop = start
            new, self.stop = tokens[:, self.stop :], tokens.shape[1]
            return self._last(new, self.caches)

    def _last(self, input_ids: Array, caches: Any) -> Array:
        return self.model(input_ids, caches=caches, logits_to_keep=1).logits.data[:, -1]


def context_start(length: int, max_len: int) -> int:
    """Where the window begins that a text of `length` tokens is seen through.

    >>> [context_start(n, 4) for n in range(1, 10)]
    [0, 0, 0, 0, 2, 2, 4, 4, 6]
    """
    jump = max(1, max_len // 2)
    return 0 if length <= max_len else -(-(length - max_len) // jump) * jump


def next_token(
    logits: Array,
    seen: Array,
    do_sample: bool = False,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    repetition_penalty: float = 1.0,
    rng: np.random.Generator | None = None,
) -> Array:
    """Choose one token a row: the most probable one, or one drawn from what the filters leave.

    Shapes: (B, V), (B, T)i -> (B)i
    """
    if repetition_penalty != 1:
        logits = penalize_repetition(logits, seen, repetition_penalty)
    if not do_sample:
        return logits.argmax(-1)
    assert rng is not None
    logits = logits.astype(np.float64) / temperature
    if top_k is not None:
        logits = keep_top_k(logits, top_k)
    if top_p is not None:
        logits = keep_top_p(logits, top_p)
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    cumulative = weights.cumsum(-1)  # draw by inverting the distribution function
    total = cumulative[:, -1:]
    drawn = np.minimum(rng.random((len(logits), 1)) * total, np.nextafter(total, 0))
    return (cumulative <= drawn).sum(-1)


def penalize_repetition(logits: Array, seen: Array, penalty: float) -> Array:
    """Logits of tokens that stand in `seen`: divided by the penalty if positive, else multiplied.

    Shapes: (B, V), (B, T)i -> (B, V)
    Source: Keskar et al. 2019, arXiv 1909.05858, section 4.1. Differs: the paper divides negative
        logits too, which would reward repetition; multiplying is what `transformers` does.

    >>> penalize_repetition(np.array([[2.0, -2.0, 1.0]]), np.array([[0, 1]]), 2.0)
    array([[ 1., -4.,  1.]])
    """
    logits = logits.copy()
    old = np.take_along_axis(logits, seen, 1)
    new = np.where(old > 0, old / penalty, old * penalty)
    np.put_along_axis(logits, seen, new.astype(logits.dtype), 1)
    return logits


def keep_top_k(logits: Array, k: int) -> Array:
    """-inf for all but each row's k largest (and what equals the last of them).

    Shapes: (B, V) -> (B, V)
    Source: Fan et al. 2018, arXiv 1805.04833.

    >>> keep_top_k(np.array([[1.0, 3.0, 2.0]]), 2)
    array([[-inf,   3.,   2.]])
    """
    k = min(k, logits.shape[-1])
    least = np.partition(logits, -k, -1)[:, -k, None]
    return np.where(logits < least, -np.inf, logits)


def keep_top_p(logits: Array, p: float) -> Array:
    """-inf for all but the smallest set of most probable tokens whose probability reaches p.

    Shapes: (B, V) -> (B, V)
    Source: Holtzman et al. 2019, arXiv 1904.09751, section 3.1.

    >>> keep_top_p(np.log(np.array([[0.5, 0.3, 0.2]])), 0.6).round(2)
    array([[-0.69, -1.2 ,  -inf]])
    """
    order = np.argsort(-logits, -1, kind="stable")
    ranked = np.take_along_axis(logits, order, -1)
    weights = np.exp(ranked - ranked[:, :1])
    before = weights.cumsum(-1) - weights  # probability of all that rank higher
    ranked[before >= p * weights.sum(-1, keepdims=True)] = -np.inf
    ranked[:, 0] = np.take_along_axis(logits, order[:, :1], -1)[:, 0]  # always one
    kept = np.empty_like(logits)
    np.put_along_axis(kept, order, ranked, -1)
    return kept


def _check(
    tokens: Array,
    max_new_tokens: int,
    do_sample: bool,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    repetition_penalty: float,
    rng: np.random.Generator | None,
) -> None:
    demands = [
        (tokens.ndim == 2 and tokens.shape[1] > 0, "input_ids (B, T) with T >= 1", tokens.shape),
        (max_new_tokens >= 0, "max_new_tokens >= 0", max_new_tokens),
        (temperature > 0, "temperature > 0 (do_sample=False is the limit 0)", temperature),
        (top_k is None or top_k >= 1, "top_k >= 1, or None to keep all", top_k),
        (top_p is None or 0 < top_p <= 1, "0 < top_p <= 1, or None to keep all", top_p),
        (repetition_penalty > 0, "repetition_penalty > 0 (1 changes nothing)", repetition_penalty),
        (not do_sample or rng is not None, "rng=np.random.default_rng(seed) to sample", rng),
    ]
    for holds, expected, got in demands:
        if not holds:
            raise ValueError(f"generate: expected {expected}, got {got}")
