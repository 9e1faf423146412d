"""Beam search: of all sequences that the model may write, several are followed at a time.

A prompt's beams share its prompt. Where they part and one gives way to two of another, the caches
follow by `reorder`, which copies only the positions in which the two differ.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from minilm.logits import GenerationConfig, all_banned
from minilm.tensor import Array

GROUP = 16  # so many numbers stand for one when the largest are sought
Process = Callable[[Array, Array], Array]  # log-probabilities (N, V), tokens (N, T) -> (N, V)


class Context(Protocol):
    """Whoever gives next-token logits for growing texts."""

    def next_logits(self, tokens: Array) -> Array:
        """(N, T) -> (N, V). The tokens are those of the last call, reordered, and new ones."""

    def reorder(self, rows: Array, same: int) -> None:
        """Text i is now what text rows[i] was; their first `same` tokens are equal anyway."""


@dataclass
class GenerationOutput:
    """Sequences, the best of a prompt first, and how probable the model found them.

    `scores` are the log-probabilities of the new tokens, as they were when all penalties, rules
    and filters had been applied; 0 behind a sequence's end. `sequences_scores` are their sums, in
    beam search divided by length^length_penalty. `beam_indices` say which beam, of all prompts',
    each token was added to; -1 behind the end.
    """

    sequences: Array  # (N, T + new)
    scores: Array  # (N, new)
    sequences_scores: Array  # (N,)
    beam_indices: Array | None = None  # (N, new), of beam search


class _Beams(NamedTuple):
    """The n sequences that each of S searches holds, best first; t tokens were added to each."""

    tokens: Array  # (S, n, T + t)
    scores: Array  # (S, n, t)
    parents: Array  # (S, n, t)
    total: Array  # (S, n) what they compare by; -inf: there is no such sequence

    def take(self, index: Array) -> "_Beams":
        """Those with these numbers, (S, m)."""
        searches = np.arange(len(index))[:, None]
        return _Beams(*(field[searches, index] for field in self))


class _Candidates(NamedTuple):
    """Tokens that beams may grow by: (S, m) each, best first."""

    beam: Array
    token: Array
    score: Array  # the token's own
    total: Array  # the sequence's with it

    def take(self, index: Array) -> "_Candidates":
        """Those with these numbers, (S, k)."""
        searches = np.arange(len(index))[:, None]
        return _Candidates(*(field[searches, index] for field in self))


def beam_search(
    context: Context,
    prompts: Array,
    process: Process,
    config: GenerationConfig,
    rng: np.random.Generator | None = None,
) -> GenerationOutput:
    """Each step keeps the num_beams likeliest continuations of all beams, by Σ log p.

    A sequence that ends among them leaves the search with the score Σ log p / length^α, where α is
    `length_penalty`, and another takes its place. The num_beams best of those that left are kept.
    Once there are as many, the search ends at once (early_stopping=True), or when the best running
    beam could not reach the worst of them if it ended at its present length (False), or, with
    "never", if it ended at the best length there is, which for α > 0 is taken to be the largest.

    With `do_sample` the continuations are drawn without replacement, each in proportion to its
    sequence's probability. With `num_beam_groups` the beams are searches of their own, and a
    group's step takes diversity_penalty off a token for each time that an earlier group's took it.

    `process` changes log-probabilities as rules and filters demand.

    Shapes: prompts (B, T)i -> sequences (B · num_return_sequences, T + new)
    Source: Graves 2012, arXiv 1211.3711, section 2.5; Wu et al. 2016, arXiv 1609.08144, section 7
        (length); Kool et al. 2019, arXiv 1903.06059 (drawing); Vijayakumar et al. 2016,
        arXiv 1610.02424, algorithm 1 with Hamming diversity (groups). Differs: Wu et al. divide by
        ((5 + length) / 6)^α; Kool et al. draw a sequence's noise once, not at each step.
    """
    c, groups = config, config.num_beam_groups
    width = c.num_beams // groups
    stops, last = c.stops, c.max_new_tokens
    running = _begin(np.repeat(prompts, groups, axis=0))
    finished = _empty(running.tokens, width, c)
    done = np.zeros(len(finished.total), bool)
    for length in range(1, last + 1):
        found = _candidates(context, running, process, done, c, rng if c.do_sample else None)
        stop = _is_one_of(found.token, stops)
        ends = (stop | (length == last))[:, :width] & ~done[:, None]
        if ends.any():
            best = _grow(running, _Candidates(*(field[:, :width] for field in found)), width)
            best = best._replace(
                total=np.where(ends, best.total / length**c.length_penalty, -np.inf)
            )
            finished = _merge(finished, best, c)
        following = _continuing(found, stop, width)
        done |= _is_done(finished.total, following.total[:, 0], length, c)
        if length == last or done.all():
            break
        _reorder(context, running.tokens, following.beam)
        running = _grow(running, following, width)
    return _result(finished, len(prompts), c)


def _begin(prompts: Array) -> _Beams:
    """One beam for each search, of nothing but the prompt."""
    nothing = np.zeros((len(prompts), 1, 0))
    return _Beams(prompts[:, None], nothing, nothing.astype(int), np.zeros((len(prompts), 1)))


def _empty(prompts: Array, width: int, config: GenerationConfig) -> _Beams:
    """Room for the sequences (S, width, T + max_new_tokens) that will have ended."""
    shape = (len(prompts), width, config.max_new_tokens)
    tokens = np.full(shape, config.fill)
    tokens = np.concatenate([np.repeat(prompts, width, axis=1), tokens], axis=2)
    return _Beams(tokens, np.zeros(shape), np.full(shape, -1), np.full(shape[:2], -np.inf))


def _candidates(
    context: Context,
    running: _Beams,
    process: Process,
    done: Array,
    config: GenerationConfig,
    rng: np.random.Generator | None,
) -> _Candidates:
    """The best continuations, enough of them for `width` that do not stop."""
    tokens, groups = running.tokens, config.num_beam_groups
    texts = tokens.reshape(-1, tokens.shape[2])
    log_probs = process(log_softmax(context.next_logits(texts)), texts)
    log_probs = log_probs.reshape(*tokens.shape[:2], -1)  # (S, n, V)
    width = config.num_beams // groups
    count = max(2, 1 + config.stops.size) * width
    if groups == 1:
        return _best(running.total, log_probs, count, rng)
    parts, taken = [], np.zeros((len(log_probs) // groups, log_probs.shape[2]))
    for group in range(groups):
        own = slice(group, None, groups)
        penalty = config.diversity_penalty * taken[:, None]
        part = _best(running.total[own], log_probs[own] - penalty, count, rng)
        chosen = _continuing(part, _is_one_of(part.token, config.stops), width)
        alive = np.isfinite(chosen.total) & ~done[own, None]
        np.add.at(taken, (np.arange(len(taken))[:, None], chosen.token), alive)
        parts.append(part)
    shape = (len(log_probs), -1)
    return _Candidates(*(np.stack(field, 1).reshape(shape) for field in zip(*parts, strict=True)))


def _best(
    total: Array, log_probs: Array, count: int, rng: np.random.Generator | None
) -> _Candidates:
    """The `count` best of all (S, n, V) continuations; with rng, as many drawn ones.

    They are among the best of each beam, where the total so far is one for all.
    """
    # The largest after adding Gumbel noise are a draw without replacement.
    keys = log_probs if rng is None else log_probs + rng.gumbel(size=log_probs.shape)
    searches, beams, vocabulary = log_probs.shape
    each = min(count, vocabulary)
    tokens = _largest(keys.reshape(-1, vocabulary), each).reshape(searches, beams, each)
    rows = np.arange(searches)[:, None]
    places = rows[:, :, None], np.arange(beams)[:, None], tokens
    scores = log_probs[places]
    totals = total[:, :, None] + scores
    keys = totals if rng is None else total[:, :, None] + keys[places]

    def descending(x: Array) -> Array:
        return np.argsort(-x, axis=1, kind="stable")

    chosen = descending(keys.reshape(searches, -1))[:, :count]
    tokens, scores, totals = (
        x.reshape(searches, -1)[rows, chosen] for x in (tokens, scores, totals)
    )
    best = _Candidates(chosen // each, tokens, scores, totals)
    return best if rng is None else best.take(descending(totals))


def _largest(x: Array, k: int) -> Array:
    """Where the k largest of each row stand, in any order.

    Of V/16 groups take the largest number each. The k groups in which these are largest, and the
    few columns left over, hold all that is sought: two small selections instead of one among V.

    Shapes: (N, V) -> (N, k)i
    """
    rows, (n, vocabulary) = np.arange(len(x))[:, None], x.shape
    groups = vocabulary // GROUP
    if groups < 2 * k:
        return np.argpartition(x, -k, axis=1)[:, -k:]
    whole = groups * GROUP  # group g: columns g, g + groups, g + 2 groups ... below this one
    tops = x[:, :whole].reshape(n, GROUP, groups).max(1)
    chosen = np.argpartition(tops, -k, axis=1)[:, -k:]
    members = (chosen[:, :, None] + np.arange(0, whole, groups)).reshape(n, -1)
    if whole < vocabulary:
        rest = np.broadcast_to(np.arange(whole, vocabulary), (n, vocabulary - whole))
        members = np.concatenate([members, rest], axis=1)
    return members[rows, np.argpartition(x[rows, members], -k, axis=1)[:, -k:]]


def _is_one_of(tokens: Array, stops: Array) -> Array:
    """As np.isin, which takes longer for so few."""
    return (tokens[..., None] == stops).any(-1)


def _continuing(found: _Candidates, stop: Array, width: int) -> _Candidates:
    """The best `width` that do not stop; of total -inf where there are no more such."""
    if not stop.any():
        return _Candidates(*(field[:, :width] for field in found))
    found = found._replace(total=np.where(stop, -np.inf, found.total))
    return found.take(np.argsort(stop, axis=1, kind="stable")[:, :width])


def _grow(running: _Beams, found: _Candidates, width: int) -> _Beams:
    """The sequences that the candidates make."""
    beams = running.take(found.beam)
    parents = np.arange(len(found.beam))[:, None] * width + found.beam
    return _Beams(
        np.concatenate([beams.tokens, found.token[:, :, None]], axis=2),
        np.concatenate([beams.scores, found.score[:, :, None]], axis=2),
        np.concatenate([beams.parents, parents[:, :, None]], axis=2),
        found.total,
    )


def _merge(finished: _Beams, ended: _Beams, config: GenerationConfig) -> _Beams:
    """The best of both."""
    width, missing = finished.total.shape[1], finished.scores.shape[2] - ended.scores.shape[2]

    def joined(old: Array, new: Array, fill: int) -> Array:
        padded = np.pad(new, ((0, 0), (0, 0), (0, missing)), constant_values=fill)
        return np.concatenate([old, padded], axis=1)

    both = _Beams(
        joined(finished.tokens, ended.tokens, config.fill),
        joined(finished.scores, ended.scores, 0),
        joined(finished.parents, ended.parents, -1),
        np.concatenate([finished.total, ended.total], axis=1),
    )
    return both.take(np.argsort(-both.total, axis=1, kind="stable")[:, :width])


def _is_done(finished: Array, running: Array, length: int, config: GenerationConfig) -> Array:
    """Which searches have ended: finished (S, width), running (S) the best that goes on."""
    power = config.length_penalty
    reached = config.max_new_tokens if config.early_stopping == "never" and power > 0 else length
    worst = finished.min(1)
    improvable = running / reached**power > worst
    full = worst > -np.inf
    return (full & (~improvable | (config.early_stopping is True))) | (running == -np.inf)


def _reorder(context: Context, tokens: Array, beam: Array) -> None:
    """Let the context follow: (S, n, T) become (S, m, T) by the beams' numbers (S, m)."""
    old = tokens.reshape(-1, tokens.shape[2])
    rows = (np.arange(len(beam))[:, None] * tokens.shape[1] + beam).ravel()
    same = 0
    if len(rows) == len(old):
        moved = np.flatnonzero(rows != np.arange(len(rows)))
        differs = (old[moved] != old[rows[moved]]).any(0)
        if not differs.any():
            return
        same = int(differs.argmax())
    context.reorder(rows, same)


def _result(finished: _Beams, prompts: int, config: GenerationConfig) -> GenerationOutput:
    """The best of each prompt, of all its groups together."""
    together = (field.reshape(prompts, config.num_beams, *field.shape[2:]) for field in finished)
    beams = _Beams(*together)
    if config.max_new_tokens and (beams.total == -np.inf).all(1).any():
        raise all_banned()
    order = np.argsort(-beams.total, axis=1, kind="stable")[:, : config.num_return_sequences]
    tokens, scores, parents, total = map(np.concatenate, beams.take(order))
    new = int((parents >= 0).sum(1).max(initial=0))
    length = tokens.shape[1] - config.max_new_tokens + new
    return GenerationOutput(tokens[:, :length], scores[:, :new], total, parents[:, :new])


def log_softmax(logits: Array) -> Array:
    """log p of arrays: x - ln Σ exp(x) over the last axis.

    Shapes: (B, V) -> (B, V)
    """
    shifted = logits - logits.max(-1, keepdims=True)
    shifted -= np.log(np.exp(shifted).sum(-1, keepdims=True))
    return shifted
