"""What may come next: how decoding is asked for, and the rules that logits are put under.

A rule bans a token by setting its logit, or log-probability, to -inf.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Literal

import numpy as np

from minilm.tensor import Array


@dataclass(frozen=True)
class GenerationConfig:
    """How to decode, under the names that `transformers` gives.

    Raises: ValueError — a value out of its range, or two that contradict each other.
    """

    max_new_tokens: int = 50
    num_return_sequences: int = 1  # of each prompt
    eos_token_id: int | Sequence[int] | None = None  # the stop token, or several
    pad_token_id: int | None = None  # what follows it; the first stop token unless given

    do_sample: bool = False  # draw tokens rather than take the most probable ones
    temperature: float = 1.0  # of drawing, as are the next two
    top_k: int | None = None
    top_p: float | None = None

    num_beams: int = 1  # from 2 on: `beam.beam_search`, as are the next four
    length_penalty: float = 1.0  # sequences compare by their score / length^length_penalty
    early_stopping: bool | Literal["never"] = False  # when a prompt's search ends
    num_beam_groups: int = 1  # searches that avoid each other's tokens
    diversity_penalty: float = 0.0  # for each time that an earlier group just took a token

    repetition_penalty: float = 1.0
    no_repeat_ngram_size: int = 0  # no n-gram of this size a second time; 0: no rule
    bad_words_ids: Sequence[Sequence[int]] = ()  # token sequences that must not occur
    min_new_tokens: int = 0  # before a stop token
    forced_bos_token_id: int | None = None  # the first new token
    forced_eos_token_id: int | None = None  # the last, if max_new_tokens are reached

    @cached_property
    def stops(self) -> Array:
        """The stop tokens as an array."""
        return np.atleast_1d([] if self.eos_token_id is None else self.eos_token_id).astype(int)

    @property
    def fill(self) -> int:
        """What stands behind a sequence's end."""
        if self.pad_token_id is not None:
            return self.pad_token_id
        return int(self.stops[0]) if self.stops.size else 0

    def __post_init__(self) -> None:
        for holds, name, expected in self._ranges():
            if not holds:
                raise ValueError(
                    f"generate: expected {expected}, got {getattr(self, name)!r}; leave it out for "
                    f"{getattr(GenerationConfig, name)!r}"
                )
        for holds, expected, got, fix in self._contradictions():
            if not holds:
                raise ValueError(f"generate: expected {expected}, got {got}; {fix}")

    def _ranges(self) -> Iterator[tuple[bool, str, str]]:
        counts = ("num_return_sequences", "num_beams", "num_beam_groups")
        bounds = {"max_new_tokens": 0, "min_new_tokens": 0, "no_repeat_ngram_size": 0}
        for name, least in (bounds | dict.fromkeys(counts, 1)).items():
            yield getattr(self, name) >= least, name, f"{name} >= {least}"
        k, p, stopping = self.top_k, self.top_p, self.early_stopping
        known = stopping is True or stopping is False or stopping == "never"
        yield self.temperature > 0, "temperature", "temperature > 0 (the limit 0 is greedy search)"
        yield k is None or k >= 1, "top_k", "top_k >= 1"
        yield p is None or 0 < p <= 1, "top_p", "0 < top_p <= 1"
        yield self.repetition_penalty > 0, "repetition_penalty", "repetition_penalty > 0"
        yield self.diversity_penalty >= 0, "diversity_penalty", "diversity_penalty >= 0"
        yield math.isfinite(self.length_penalty), "length_penalty", "a finite length_penalty"
        yield known, "early_stopping", "early_stopping to be True, False or 'never'"
        for name in _TOKEN_FIELDS:
            yield self._tokens(name).min(initial=0) >= 0, name, f"{name} to be token ids >= 0"
        full = all(len(word) for word in self.bad_words_ids)
        yield full, "bad_words_ids", "bad_words_ids with at least one token each"

    def _contradictions(self) -> Sequence[tuple[bool, str, object, str]]:
        beams, wanted = self.num_beams, self.num_return_sequences
        groups, diversity = self.num_beam_groups, self.diversity_penalty
        least, most, stops = self.min_new_tokens, self.max_new_tokens, self.stops
        first, last = self.forced_bos_token_id, self.forced_eos_token_id
        banned = {word[0] for word in self.bad_words_ids if len(word) == 1}
        needed = (banned & {*stops.tolist(), first, last}) - {None}
        unused = (("temperature", 1), ("top_k", None), ("top_p", None))
        return [
            *(
                (
                    self.do_sample or getattr(self, name) == plain,
                    f"do_sample=True for {name}={getattr(self, name)}",
                    "do_sample=False",
                    f"leave {name} out, which only drawing asks for",
                )
                for name, plain in unused
            ),
            (
                wanted == 1 or beams > 1 or self.do_sample,
                f"do_sample=True for num_return_sequences={wanted}",
                "do_sample=False",
                "greedy search gives the same each time; with num_beams > 1 several differ",
            ),
            (
                beams == 1 or wanted <= beams,
                f"num_return_sequences <= num_beams = {beams}",
                wanted,
                "a search ends with as many sequences as it has beams",
            ),
            (
                beams % groups == 0,
                f"num_beam_groups to divide num_beams = {beams}",
                groups,
                "groups are of one size",
            ),
            (
                groups > 1 or diversity == 0,
                f"num_beam_groups > 1 for diversity_penalty={diversity}",
                "num_beam_groups=1",
                "a group is kept from the tokens of those before it",
            ),
            (
                groups == 1 or not self.do_sample,
                f"do_sample=False with num_beam_groups={groups}",
                "do_sample=True",
                "use one or the other for diversity",
            ),
            (
                beams > 1 or self.length_penalty == 1,
                f"num_beams > 1 for length_penalty={self.length_penalty}",
                "num_beams=1",
                "only sequences of a beam search compete",
            ),
            (
                beams > 1 or self.early_stopping is False,
                f"num_beams > 1 for early_stopping={self.early_stopping!r}",
                "num_beams=1",
                "only a beam search can stop early",
            ),
            (
                least <= most,
                f"min_new_tokens <= max_new_tokens = {most}",
                least,
                "raise the latter",
            ),
            (
                least == 0 or stops.size > 0,
                f"eos_token_id for min_new_tokens={least}",
                "eos_token_id=None",
                "without stop tokens every sequence has max_new_tokens",
            ),
            (
                last is None or least == 0 or least < most,
                f"min_new_tokens < max_new_tokens = {most} with forced_eos_token_id={last}",
                least,
                "the forced token is the last and not one of them",
            ),
            (
                last is None or not stops.size or last in stops,
                f"forced_eos_token_id among eos_token_id = {stops.tolist()}",
                last,
                "it would not count as the end",
            ),
            (
                most != 1 or None in (first, last) or first == last,
                "max_new_tokens >= 2 for forced_bos_token_id and forced_eos_token_id",
                f"1 for {first} and {last}",
                "leave one of them out",
            ),
            (
                not needed,
                "bad_words_ids without eos_token_id, forced_bos_token_id, forced_eos_token_id",
                f"{sorted(t for t in needed if t is not None)} in both",
                "leave it out of bad_words_ids",
            ),
        ]

    def _tokens(self, name: str) -> Array:
        """The token ids of a field, in one row."""
        value = getattr(self, name)
        if name == "bad_words_ids":
            value = [token for word in value for token in word]
        return np.atleast_1d([] if value is None else value).astype(int)

    def check_vocabulary(self, vocab_size: int) -> None:
        """Raises: ValueError — naming the field with a token that the model does not have."""
        for name in _TOKEN_FIELDS:
            largest = self._tokens(name).max(initial=0)
            if largest >= vocab_size:
                raise ValueError(
                    f"generate: expected {name} below vocab_size = {vocab_size}, got {largest}; "
                    "take it from the model's own tokenizer"
                )


_TOKEN_FIELDS = (
    *("eos_token_id", "pad_token_id", "bad_words_ids"),
    *("forced_bos_token_id", "forced_eos_token_id"),
)


def all_banned() -> ValueError:
    """The error where no token may come next."""
    return ValueError(
        "generate: expected a token that may come next, got rules that ban them all; loosen "
        "no_repeat_ngram_size or bad_words_ids, or lower max_new_tokens"
    )


class Rules:
    """The rules of a configuration, for texts whose prompt has `prompt_length` tokens."""

    def __init__(self, config: GenerationConfig, prompt_length: int) -> None:
        self.config, self.prompt_length = config, prompt_length
        self.stops = config.stops
        by_length = sorted({tuple(map(int, word)) for word in config.bad_words_ids}, key=len)
        self.words = [np.array(list(words)) for _, words in groupby(by_length, len)]

    def __call__(self, logits: Array, tokens: Array) -> Array:
        """The logits, changed where a rule says so; the array that came stays as it was.

        Shapes: (B, V), (B, T)i -> (B, V)
        """
        c, new = self.config, tokens.shape[1] - self.prompt_length
        if new == 0 and c.forced_bos_token_id is not None:
            return force_token(logits, c.forced_bos_token_id)
        if new == c.max_new_tokens - 1 and c.forced_eos_token_id is not None:
            return force_token(logits, c.forced_eos_token_id)
        if c.no_repeat_ngram_size:
            logits = ban_repeated_ngrams(logits, tokens, c.no_repeat_ngram_size)
        for words in self.words:
            logits = ban_words(logits, tokens, words)
        if new < c.min_new_tokens:
            logits = ban_words(logits, tokens, self.stops[:, None])
        return logits


def ban_repeated_ngrams(logits: Array, tokens: Array, n: int) -> Array:
    """-inf for each token that would complete an n-gram which stands in the row already.

    Shapes: (B, V), (B, T)i -> (B, V)
    Source: Paulus et al. 2017, arXiv 1705.04304, section 2.5, for n = 3.

    >>> ban_repeated_ngrams(np.zeros((1, 4)), np.array([[1, 3, 2, 1]]), 2)
    array([[  0.,   0.,   0., -inf]])
    """
    length = tokens.shape[1]
    if length < n:
        return logits
    ngrams = np.lib.stride_tricks.sliding_window_view(tokens, n, axis=1)  # (B, T-n+1, n)
    begun = tokens[:, None, length - n + 1 :]  # the n-1 tokens that the next one would follow
    rows, places = (ngrams[..., :-1] == begun).all(-1).nonzero()
    return _banned(logits, rows, ngrams[rows, places, -1])


def ban_words(logits: Array, tokens: Array, words: Array) -> Array:
    """-inf for each token that would complete one of the words (N, L) at the end of its row.

    Shapes: (B, V), (B, T)i, (N, L)i -> (B, V)

    >>> ban_words(np.zeros((1, 4)), np.array([[3, 1]]), np.array([[1, 2], [2, 3]]))
    array([[  0.,   0., -inf,   0.]])
    """
    before = words.shape[1] - 1
    if tokens.shape[1] < before:
        return logits
    end = tokens[:, None, tokens.shape[1] - before :]
    rows, which = (end == words[:, :-1]).all(-1).nonzero()  # (B, N)
    return _banned(logits, rows, words[which, -1])


def force_token(logits: Array, token: int) -> Array:
    """0 for the token, -inf for all others: its probability is 1.

    Shapes: (B, V) -> (B, V)

    >>> force_token(np.array([[1.0, 2.0, 3.0]]), 1)
    array([[-inf,   0., -inf]])
    """
    forced = np.full_like(logits, -np.inf)
    forced[:, token] = 0
    return forced


def _banned(logits: Array, rows: Array, tokens: Array) -> Array:
    if rows.size:
        logits = logits.copy()
        logits[rows, tokens] = -np.inf
    return logits
