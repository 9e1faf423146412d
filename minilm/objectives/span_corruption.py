"""Predict the spans that were cut out of a text, or its end from its beginning.

Span corruption: a sentinel stands in the input for each span of noise, and the target tells, behind
the same sentinel, what stood there. Prefix language modelling: a text is cut in two at any place;
a model that sees all of the first part at once is to write the second.

Source: Raffel et al. 2020, arXiv 1910.10683, sections 3.1.4, 3.2.1, 3.3.1 and 3.3.4,
and its code.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from minilm.functional import IGNORE_INDEX
from minilm.objectives.causal import Batch, check_stream
from minilm.objectives.text_to_text import Example, pad_examples
from minilm.tensor import Array

# --- Where the noise is -----------------------------------------------------------------------


def noise_counts(length: int, noise_density: float, mean_span_length: float) -> tuple[int, int]:
    """The number m of noise tokens and n of spans in `length` tokens.

    m = round(density · length), at least one and at most length - 1; n = round(m / mean length),
    at least one, and no more than there are tokens of either kind. Halves go to the even number.

    Raises: ValueError — length below 2, density not in (0, 1), a mean span length below 1.
    Source: Raffel et al. 2020, the code.

    >>> noise_counts(512, 0.15, 3)
    (77, 26)
    """
    if length < 2 or not 0 < noise_density < 1 or not mean_span_length >= 1:
        raise ValueError(
            "noise_spans: expected length >= 2, 0 < noise_density < 1 and mean_span_length >= 1, "
            f"got {length}, {noise_density} and {mean_span_length}; T5 has 0.15 and 3"
        )
    tokens = min(max(round(length * noise_density), 1), length - 1)
    spans = max(round(tokens / mean_span_length), 1)
    return tokens, min(spans, tokens, length - tokens)


def noise_spans(
    length: int, noise_density: float, mean_span_length: float, rng: np.random.Generator
) -> Array:
    """Which tokens are noise: m of them in n spans, see `noise_counts`, True = noise.

    Noise and text are each split into n parts, all C(m-1, n-1) and C(length-m-1, n-1) ways equally
    likely. The parts are laid in turn on a ring of `length` places, which is turned by chance. Each
    mask with m noise tokens in n spans on the ring is made in n ways, one for each span that may
    have been laid last. So all these masks are equally likely, each place is noise with probability
    m / length, and any pattern of neighbours is as likely at one place as at another.

    The row is the ring cut open. With probability (m - n) / length that cuts a span: the row then
    has n + 1, two of them at its ends. No law has equal places and always n spans: of two noise
    tokens in three that are one span, one is always in the middle.

    Shapes: -> (length)
    Raises: ValueError — as `noise_counts`.
    Source: Raffel et al. 2020, arXiv 1910.10683, sections 3.1.4 and 3.3.4, and the code.
    Differs: unless asked to, the code does not turn the ring: the first token is never noise and
        the last one always is.

    >>> noise_spans(20, 0.25, 2, np.random.default_rng(0)).astype(int)
    array([0, 0, 1, 1, 1, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
    """
    noise, spans = noise_counts(length, noise_density, mean_span_length)
    parts = np.stack([_parts(length - noise, spans, rng), _parts(noise, spans, rng)], 1)  # (n, 2)
    ring = np.repeat(np.arange(2 * spans) % 2 == 1, parts.ravel())
    return np.roll(ring, rng.integers(length))


def _parts(total: int, count: int, rng: np.random.Generator) -> Array:
    """`count` positive numbers whose sum is `total`, all such lists equally likely."""
    cuts = 1 + np.sort(rng.choice(total - 1, count - 1, replace=False))
    return np.diff(cuts, prepend=0, append=total)


def corrupted_lengths(
    inputs_length: int, noise_density: float = 0.15, mean_span_length: float = 3.0
) -> tuple[int, int]:
    """The number of tokens whose inputs fill inputs_length, and the length of their targets.

    Inputs of L tokens have L - m + n + 1 of them, targets m + n + 1, eos included, and both one
    more where `noise_spans` cut a span in two. The answer is the greatest L whose inputs fit even
    then, and the length of their targets then. A row that could be cut, but is not, is one shorter.

    Raises: ValueError — inputs_length below 3; as `noise_counts`.

    >>> corrupted_lengths(512)
    (567, 115)
    """

    def lengths(tokens: int) -> tuple[int, int]:
        noise, spans = noise_counts(tokens, noise_density, mean_span_length)
        most = spans + (noise > spans)  # single tokens cannot be cut
        return tokens - noise + most + 1, noise + most + 1

    if inputs_length < 3:
        raise ValueError(
            f"corrupted_lengths: expected inputs_length >= 3, for a token, a sentinel and eos, got "
            f"{inputs_length}; give the model's max_len"
        )
    tokens = inputs_length - 1
    while lengths(tokens + 1)[0] <= inputs_length:
        tokens += 1
    return tokens, lengths(tokens)[1]


# --- What becomes of it -----------------------------------------------------------------------


def corrupt(
    tokens: Array, mask: Array, sentinel_ids: Sequence[int] | Array, eos_id: int
) -> tuple[Array, Array]:
    """Inputs: a sentinel for each span of noise. Targets: each sentinel, then its span.

    The first span has sentinel_ids[0], the next one sentinel_ids[1] ...; both rows end with eos.

    Shapes: (N), (N), (K) -> (N'), (M')
    Raises: ValueError — fewer sentinels than spans, a sentinel in the text, a mask of another
        shape.
    Source: Raffel et al. 2020, arXiv 1910.10683, section 3.1.4, and the code.
    Differs: figure 2 ends the targets with one more sentinel; like the code, we do not. The code
        puts sentinels into the targets in the place of text: off by one if noise comes first.

    >>> corrupt(np.arange(10, 17), np.array([0, 1, 1, 0, 0, 1, 0]), [99, 98, 97], eos_id=1)
    (array([10, 99, 13, 14, 98, 16,  1]), array([99, 11, 12, 98, 15,  1]))
    """
    tokens, mask = np.asarray(tokens, np.int64), np.asarray(mask, bool)
    if tokens.ndim != 1 or mask.shape != tokens.shape:
        raise ValueError(
            f"corrupt: expected tokens (N) and a mask of their shape, got {tokens.shape} and "
            f"{mask.shape}; corrupt one row at a time"
        )
    if found := sorted({*tokens[np.isin(tokens, sentinel_ids)].tolist()}):
        raise ValueError(
            f"corrupt: expected a text without sentinels, got {found} in it; encode text with "
            "disallowed_special=(), or take other sentinels"
        )
    first = mask & ~np.append(False, mask[:-1])  # of its span
    spans = int(first.sum())
    sentinels = _enough(sentinel_ids, spans)[:spans]
    inputs = tokens.copy()
    inputs[first] = sentinels
    targets = np.insert(tokens[mask], np.flatnonzero(first[mask]), sentinels)
    return np.append(inputs[~mask | first], eos_id), np.append(targets, eos_id)


def _enough(sentinel_ids: Sequence[int] | Array, spans: int) -> Array:
    if len(sentinel_ids) < spans:
        raise ValueError(
            f"expected a sentinel for each of {spans} spans, got {len(sentinel_ids)}; add special "
            "tokens <extra_id_0>, <extra_id_1> ..., shorten the text, or lengthen the spans"
        )
    return np.asarray(sentinel_ids, np.int64)


def restore(inputs: Array, targets: Array, sentinel_ids: Sequence[int] | Array) -> Array:
    """The tokens that `corrupt` was given: each sentinel's span back in its place.

    Shapes: (N'), (M'), (K) -> (N)
    Raises: ValueError — inputs and targets whose sentinels are not the same, in the same order;
        targets that do not begin with one.

    >>> restore(np.array([10, 99, 13, 1]), np.array([99, 11, 12, 1]), [99, 98])
    array([10, 11, 12, 13])
    """
    inputs, targets = np.asarray(inputs)[:-1], np.asarray(targets)[:-1]  # without eos
    holes, marks = (np.flatnonzero(np.isin(row, sentinel_ids)) for row in (inputs, targets))
    if not np.array_equal(inputs[holes], targets[marks]) or (len(targets) and 0 not in marks[:1]):
        raise ValueError(
            f"restore: expected targets with the inputs' sentinels {inputs[holes].tolist()}, the "
            f"first at their beginning, got {targets[marks].tolist()} and beginning "
            f"{targets[:1].tolist()}; give both as corrupt made them"
        )
    lengths = np.diff(marks, append=len(targets)) - 1
    places = np.repeat(holes - np.arange(len(holes)), lengths)  # in the text without sentinels
    return np.insert(np.delete(inputs, holes), places, np.delete(targets, marks))


# --- Prefix language modelling ----------------------------------------------------------------


def prefix_mask(prefix_lengths: Array, length: int) -> Array:
    """Which positions of a prefix language model may see which: True where j ≤ i or j < prefix.

    The prefix is seen whole from everywhere, what follows it only from behind. The mask is for
    `functional.attention` without `causal`. GPT and Llama cannot take it: their blocks are causal,
    and their attention_mask only hides more. An encoder-decoder does the same with the prefix in
    its encoder: see `PrefixBatches`.

    Shapes: (B) -> (B, 1, T, T)
    Source: Raffel et al. 2020, arXiv 1910.10683, section 3.2.1 and figure 3; Liu et al. 2018,
        arXiv 1801.10198.

    >>> prefix_mask(np.array([2]), 4).astype(int)[0, 0]
    array([[1, 1, 0, 0],
           [1, 1, 0, 0],
           [1, 1, 1, 0],
           [1, 1, 1, 1]])
    """
    causal = np.tri(length, dtype=bool)  # (T, T)
    in_prefix = np.arange(length) < np.asarray(prefix_lengths)[:, None]  # (B, T)
    return causal | in_prefix[:, None, None, :]


def prefix_labels(labels: Array, prefix_lengths: Array) -> Array:
    """Labels of a decoder-only model, as `causal.windows` gives them, without those of the prefix.

    The first label left is that of the first token behind the prefix.

    Shapes: (B, T), (B) -> (B, T)

    >>> prefix_labels(np.array([[5, 6, 7, 8]]), np.array([2]))
    array([[-100, -100,    7,    8]])
    """
    labels = np.asarray(labels)
    in_prefix = np.arange(labels.shape[1]) < np.asarray(prefix_lengths)[:, None]
    return np.where(in_prefix, IGNORE_INDEX, labels)


# --- Batches ----------------------------------------------------------------------------------


class _StreamBatches:
    """Batches of examples made of windows of a stream. A subclass makes them: `_examples`."""

    def __init__(self, tokens: Array, length: int, pad_id: int) -> None:
        self.tokens, self.length, self.pad_id = tokens, length, pad_id
        self.shape: tuple[int | None, int | None] = (None, None)  # of a batch; None: the longest
        check_stream(tokens, length)

    def draw(self, rng: np.random.Generator, count: int) -> list[Example]:
        """Examples of windows from anywhere, not padded: what `MixedTasks` asks for."""
        starts = rng.integers(0, len(self.tokens) - self.length + 1, count)
        return self._examples(self._windows(starts), rng)

    def sample(self, rng: np.random.Generator, batch_size: int) -> Batch:
        """Windows from anywhere: input_ids and attention_mask (B, S), labels (B, T)."""
        return pad_examples(self.draw(rng, batch_size), self.pad_id, *self.shape)

    def evaluation(self, batch_size: int, seed: int = 0) -> Iterator[Batch]:
        """Windows side by side, the last moved back; the same examples for any batch_size."""
        rng = np.random.default_rng(seed)
        last = len(self.tokens) - self.length
        starts = np.append(np.arange(0, last, self.length), last)
        for i in range(0, len(starts), batch_size):
            examples = self._examples(self._windows(starts[i : i + batch_size]), rng)
            yield pad_examples(examples, self.pad_id, *self.shape)

    def _windows(self, starts: Array) -> Array:
        return self.tokens[starts[:, None] + np.arange(self.length)].astype(np.int64)

    def _examples(self, windows: Array, rng: np.random.Generator) -> list[Example]:
        raise NotImplementedError(f"{type(self).__name__} needs an _examples method")


class SpanCorruptionBatches(_StreamBatches):
    """Batches of span corruption: windows of the `tokens` (N) of all documents, corrupted anew.

    Windows are as long as `corrupted_lengths` says, so that every batch has input_ids of shape
    (B, max_len) with at most one token of padding in a row.

    Raises: ValueError — fewer sentinels than spans, max_len below 3, a stream that is not longer
        than a window; on drawing, a sentinel in the stream.
    """

    def __init__(
        self,
        tokens: Array,
        sentinel_ids: Sequence[int] | Array,
        max_len: int,
        *,
        pad_id: int,
        eos_id: int,
        noise_density: float = 0.15,
        mean_span_length: float = 3.0,
    ) -> None:
        length, targets_length = corrupted_lengths(max_len, noise_density, mean_span_length)
        super().__init__(tokens, length, pad_id)
        self.noise = noise_density, mean_span_length
        noise, _ = noise_counts(length, *self.noise)
        self.sentinel_ids = _enough(sentinel_ids, targets_length - noise - 1)
        self.eos_id, self.shape = eos_id, (max_len, targets_length)

    def _examples(self, windows: Array, rng: np.random.Generator) -> list[Example]:
        masks = [noise_spans(self.length, *self.noise, rng) for _ in windows]
        pairs = zip(windows, masks, strict=True)
        return [Example(*corrupt(*pair, self.sentinel_ids, self.eos_id)) for pair in pairs]


class PrefixBatches(_StreamBatches):
    """Batches of prefix language modelling for an encoder-decoder, windows cut in two anew.

    Of a window of max_len tokens the inputs are the first p, p from 1 to max_len - 1 equally
    likely, and the labels the rest, both with eos. Batches are as long as their longest rows.

    Raises: ValueError — max_len below 2, a stream that is not longer than a window.
    Source: Raffel et al. 2020, arXiv 1910.10683, section 3.3.1, and the code.
    """

    def __init__(self, tokens: Array, max_len: int, *, pad_id: int, eos_id: int) -> None:
        super().__init__(tokens, max_len, pad_id)
        if max_len < 2:
            raise ValueError(
                f"PrefixBatches: expected max_len >= 2, a token for each part, got {max_len}; give "
                "the model's max_len"
            )
        self.eos_id = eos_id

    def _examples(self, windows: Array, rng: np.random.Generator) -> list[Example]:
        splits = rng.integers(1, self.length, len(windows))
        return [
            Example(np.append(row[:split], self.eos_id), np.append(row[split:], self.eos_id))
            for row, split in zip(windows, splits, strict=True)
        ]
