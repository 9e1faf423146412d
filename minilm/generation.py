"""The decoding strategies, over any model that gives next-token logits.

Context. A model sees at most max_len tokens. When the text outgrows that, the window's beginning
moves on in jumps of half a window: cached decoding then reads half a window anew once in max_len/2
tokens, rather than a whole one at every token. With or without the cache the model sees the same
context at every step, so both give the same text. An encoder-decoder reads its source once; the
text that grows is its target.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from operator import attrgetter
from typing import Any, NamedTuple

import numpy as np

from minilm.beam import GenerationOutput, beam_search, log_softmax
from minilm.logits import GenerationConfig, Rules, all_banned
from minilm.models.seq2seq import EncodedSource, Seq2SeqLM
from minilm.nn import evaluation_mode
from minilm.prefill import last_logits
from minilm.tensor import Array, Tensor, no_grad


def generate(
    model: Any,
    input_ids: Array,
    max_new_tokens: int = 50,
    *,
    attention_mask: Array | None = None,
    rng: np.random.Generator | None = None,
    use_cache: bool = True,
    return_dict: bool = False,
    **how: Any,
) -> Any:
    """The prompts and what the model adds: (B · num_return_sequences, T + new) token ids.

    Each prompt's sequences stand together. After a stop token (`eos_token_id`, one or several) a
    sequence is filled up with `pad_token_id`, or else the first stop token; when all have stopped,
    generation ends. An encoder-decoder's sequences are what its decoder reads and writes: the
    start token, then what it adds; stop and padding tokens are those of its configuration unless
    given. `how` are fields of `GenerationConfig`; with `num_beams` > 1 it is `beam.beam_search`
    that generates. With `return_dict` the result is a `GenerationOutput`, with scores.

    Shapes: (B, T)i -> (B, T)i
    Raises: ValueError — as in `stream`.
    """
    run = _begin(model, input_ids, max_new_tokens, attention_mask, rng, use_cache, how)
    if run.config.num_beams > 1:
        output = beam_search(run.context, run.tokens, run.process, run.config, rng)
        return output if return_dict else output.sequences
    steps = list(_steps(run, return_dict))
    new = np.array([chosen for chosen, _ in steps], int).reshape(-1, len(run.tokens)).T
    sequences = np.concatenate([run.tokens, new], axis=1)
    if not return_dict:
        return sequences
    scores = np.array([score for _, score in steps]).reshape(new.T.shape).T
    return GenerationOutput(sequences, scores, scores.sum(1))


def stream(
    model: Any,
    input_ids: Array,
    max_new_tokens: int = 50,
    *,
    attention_mask: Array | None = None,
    rng: np.random.Generator | None = None,
    use_cache: bool = True,
    **how: Any,
) -> Iterator[Array]:
    """Yield the next token of every row, (B · num_return_sequences), step by step.

    The logits go through `repetition_penalty` and the rules of `logits.Rules`; then the largest is
    taken, or, with `do_sample`, they go through `temperature`, `top_k` and `top_p`, in this order,
    and `rng` draws a token. `how` are fields of `GenerationConfig`. `attention_mask` (B, S) says
    which of an encoder-decoder's source are tokens; a causal model reads prompts of one length.

    Raises: ValueError — no prompt or an empty one, an argument out of its range, two that
        contradict each other, sampling without an rng, padding in the prompts of a causal model;
        on the way, rules that leave a text no token to go on with.
    """
    run = _begin(model, input_ids, max_new_tokens, attention_mask, rng, use_cache, how)
    if run.config.num_beams > 1:
        raise ValueError(
            f"generate: expected num_beams=1 to stream, got {run.config.num_beams}; a beam search "
            "knows its first token when it ends: call generate"
        )
    return (chosen for chosen, _ in _steps(run, False))


class _Run(NamedTuple):
    """All that decoding needs, checked."""

    config: GenerationConfig
    context: "_Text | _Target"
    tokens: Array  # (N, T) what the sequences begin with
    process: Any  # logits (N, V), tokens (N, T) -> (N, V)
    rng: np.random.Generator | None


def _begin(
    model: Any,
    input_ids: Array,
    max_new_tokens: int,
    attention_mask: Array | None,
    rng: np.random.Generator | None,
    use_cache: bool,
    how: dict[str, Any],
) -> _Run:
    ids = np.atleast_2d(np.asarray(input_ids))
    if ids.ndim != 2 or not ids.size or ids.dtype.kind not in "iu":
        raise ValueError(
            f"generate: expected integer input_ids (B, T) with B, T >= 1, got shape {ids.shape} of "
            f"{ids.dtype}; give at least one token, as tokenizer.encode does"
        )
    ids = ids.astype(np.int64)
    two_texts = isinstance(model, Seq2SeqLM)
    if two_texts:
        c = model.config
        how = {"eos_token_id": c.eos_token_id, "pad_token_id": c.pad_token_id, **how}
    config = GenerationConfig(max_new_tokens, **how)
    config.check_vocabulary(model.config.vocab_size)
    if config.do_sample and rng is None:
        raise ValueError(
            "generate: expected an rng to sample, got None; pass rng=np.random.default_rng(seed)"
        )
    copies = config.num_return_sequences if config.num_beams == 1 else 1
    context: _Text | _Target
    if two_texts:
        context = _Target(model, ids, attention_mask, use_cache, max_new_tokens)
        tokens = np.full((len(ids) * copies, 1), model.config.decoder_start_token_id)
    else:
        if attention_mask is not None and not np.all(attention_mask):
            raise ValueError(
                "generate: expected an attention_mask of ones for a causal model, got padding; "
                "decode prompts of one length at a time"
            )
        context, tokens = _Text(model, use_cache), np.repeat(ids, copies, axis=0)
    rules = Rules(config, tokens.shape[1])
    filters = (config.temperature, config.top_k, config.top_p, config.repetition_penalty)

    def process(logits: Array, seen: Array) -> Array:
        return _process(rules(logits, seen), seen, config.do_sample, *filters)

    return _Run(config, context, tokens, process, rng)


def _steps(run: _Run, with_scores: bool) -> Iterator[tuple[Array, Array | None]]:
    """The next token of every row and, if asked for, its log-probability."""
    tokens, config, stops = run.tokens, run.config, run.config.stops
    rows, finished = np.arange(len(tokens)), np.zeros(len(tokens), bool)
    scores = None
    for _ in range(config.max_new_tokens):
        logits = run.process(run.context.next_logits(tokens), tokens)
        best = logits.argmax(-1)
        stuck = logits[rows, best] == -np.inf  # no token may come
        if stuck.any():
            if not finished[stuck].all():
                raise all_banned()
            logits[stuck] = 0  # what they would say is not heard
        chosen = _draw(logits, run.rng) if config.do_sample else best
        if with_scores:
            scores = np.take_along_axis(log_softmax(logits), chosen[:, None], 1)[:, 0]
            scores = np.where(finished, 0, scores)
        if stops.size:
            chosen = np.where(finished, config.fill, chosen)
            finished |= np.isin(chosen, stops)
        tokens = np.concatenate([tokens, chosen[:, None]], axis=1)
        yield chosen, scores
        if finished.all():
            return


class _Text:
    """A causal model's next-token logits for growing texts, from a cache as far as it reaches."""

    def __init__(self, model: Any, use_cache: bool) -> None:
        self.model, self.use_cache = model, use_cache
        self.evaluating = _Evaluating(model)
        self.caches: Any = None
        self.start = self.stop = 0  # the caches hold tokens[start:stop]

    def next_logits(self, tokens: Array) -> Array:
        start = context_start(tokens.shape[1], self.model.window)
        with self.evaluating(), no_grad():
            if not self.use_cache:
                return last_logits(self.model, tokens[:, start:], None)
            if self.caches is None or start != self.start:
                self.caches = self.model.new_caches(len(tokens))
                self.start = self.stop = start
            new, self.stop = tokens[:, self.stop :], tokens.shape[1]
            return last_logits(self.model, new, self.caches)

    def reorder(self, rows: Array, same: int) -> None:
        for cache in self.caches or ():
            cache.reorder(rows, max(0, same - self.start))


class _Target:
    """An encoder-decoder's next-token logits for growing targets.

    Rows i n ... (i+1) n - 1 of the targets belong to source i. The source's keys and values are
    kept once for all of them, and never move.
    """

    def __init__(
        self,
        model: Seq2SeqLM,
        input_ids: Array,
        attention_mask: Array | None,
        use_cache: bool,
        max_new_tokens: int,
    ) -> None:
        if max_new_tokens > model.config.max_len:
            raise ValueError(
                f"generate: expected max_new_tokens <= the model's max_len = "
                f"{model.config.max_len}, got {max_new_tokens}; ask for fewer"
            )
        self.model, self.use_cache, self.room = model, use_cache, max_new_tokens
        self.evaluating = _Evaluating(model)
        mask = None if attention_mask is None else np.atleast_2d(attention_mask)
        self.input = input_ids, mask
        self.source: EncodedSource | None = None
        self.caches: Any = None

    def next_logits(self, tokens: Array) -> Array:
        with self.evaluating(), no_grad():
            if self.source is None:
                self.source = self.model.encode(*self.input)
                if self.use_cache:
                    self.caches = self.model.new_caches(len(tokens), self.source, self.room)
            source = None
            if self.caches is None:
                source = _repeated(self.source, len(tokens) // len(self.input[0]))
            else:
                tokens = tokens[:, self.caches.length :]
            output = self.model(
                decoder_input_ids=tokens,
                encoder_outputs=source,
                caches=self.caches,
                logits_to_keep=1,
            )
        return output.logits.data[:, -1]

    def reorder(self, rows: Array, same: int) -> None:
        for cache in self.caches.layers if self.caches is not None else ():
            cache.reorder(rows, same)


def _repeated(source: EncodedSource, times: int) -> EncodedSource:
    """Each row as many times, one after the other."""
    hidden, mask = source.last_hidden_state.data, source.attention_mask
    rows = np.repeat(np.arange(len(hidden)), times)
    return EncodedSource(Tensor(hidden[rows]), None if mask is None else mask[rows])


class _Evaluating:
    """`evaluation_mode`, which walks the whole model, where some of it is in training."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.modules = [module for _, module in model.named_modules()]

    def __call__(self) -> AbstractContextManager[None]:
        training = True in map(attrgetter("training"), self.modules)
        return evaluation_mode(self.model) if training else nullcontext()


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
    logits = _process(logits, seen, do_sample, temperature, top_k, top_p, repetition_penalty)
    return _draw(logits, rng) if do_sample else logits.argmax(-1)


def _process(
    logits: Array,
    seen: Array,
    do_sample: bool,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    repetition_penalty: float,
) -> Array:
    if repetition_penalty != 1:
        logits = penalize_repetition(logits, seen, repetition_penalty)
    if not do_sample:
        return logits
    logits = logits.astype(np.float64) / temperature
    if top_k is not None:
        logits = keep_top_k(logits, top_k)
    if top_p is not None:
        logits = keep_top_p(logits, top_p)
    return logits


def _draw(logits: Array, rng: np.random.Generator | None) -> Array:
    assert rng is not None
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
    largest = np.maximum(ranked[:, :1], np.finfo(ranked.dtype).min)  # of a row of -inf, not -inf
    weights = np.exp(ranked - largest)
    before = weights.cumsum(-1) - weights  # probability of all that rank higher
    ranked[before >= p * weights.sum(-1, keepdims=True)] = -np.inf
    ranked[:, 0] = np.take_along_axis(logits, order[:, :1], -1)[:, 0]  # always one
    kept = np.empty_like(logits)
    np.put_along_axis(kept, order, ranked, -1)
    return kept
