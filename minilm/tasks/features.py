"""Examples to rows of tokens: what a model with a head reads, and what it should answer.

A text too long for one row is cut, or becomes several rows, windows that share `stride` tokens.
Special tokens that stand in a text are ordinary text here.

Source: Devlin et al. 2018, arXiv 1810.04805, section 4 and its released code.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, NamedTuple

import numpy as np

from minilm.data import by_length
from minilm.functional import IGNORE_INDEX
from minilm.objectives.causal import Batch
from minilm.tasks.examples import ChoiceExample, Example, SpanExample, TaggedExample, TextExample
from minilm.tensor import Array
from minilm.tokenizers import Tokenizer
from minilm.tokenizers.encoding import Encoding, encode_texts

OUTSIDE = (-1, -1)  # the place of a token that bears no tag, or is not of the context
NOWHERE = np.zeros((0, 2), np.int32)
Tokens = tuple[list[int], list[tuple[int, int]]]  # ids, and where each of them stands


class Row(NamedTuple):
    """A row of tokens, not yet padded."""

    example: int  # which example it was cut from
    inputs: Batch  # what the encoder takes, (T), for choices (n, T)
    targets: Batch  # what the head is trained on, () or (T); none if the example has no label
    places: Array = NOWHERE  # (T, 2), start and end in the text; of tags (word, word) at the first


@dataclass(frozen=True, eq=False)
class Features:
    """The rows of all examples, in their order. A batch of them is padded to its longest row.

    Batches hold input_ids (B, T), for choices (B, n, T), and what goes with them, and the targets
    under the names of the head's arguments. `labels` are the classes' names, in index order.
    """

    examples: Sequence[Example]
    rows: Sequence[Row]
    labels: tuple[str, ...]
    pad_id: int

    def sample(self, rng: np.random.Generator, batch_size: int) -> Batch:
        """Rows drawn by chance, different ones while there are as many, with their targets."""
        return self.batch(rng.choice(len(self.rows), batch_size, batch_size > len(self.rows)))

    def evaluation(self, batch_size: int) -> Iterator[Batch]:
        """Every row once, with its targets, in batches of similar length."""
        return (self.batch(rows) for rows in self.by_length(batch_size))

    def by_length(self, batch_size: int) -> list[Array]:
        """The indices of all rows, in batches of similar length."""
        return by_length([row.inputs["input_ids"].shape[-1] for row in self.rows], batch_size)

    def batch(self, indices: Sequence[int] | Array, targets: bool = True) -> Batch:
        """The rows with these indices, with or without their targets.

        Raises: ValueError — targets of examples without labels.
        """
        rows = [self.rows[i] for i in indices]
        if targets and not rows[0].targets:
            raise ValueError(
                "Features: expected examples with labels, got none; to predict, none are needed"
            )
        fill = {"input_ids": self.pad_id, "labels": IGNORE_INDEX}
        parts = [row.inputs | row.targets if targets else row.inputs for row in rows]
        return {name: _stack([p[name] for p in parts], fill.get(name, 0)) for name in parts[0]}


def _stack(arrays: Sequence[Array], fill: int) -> Array:
    """B scalars, or B arrays (..., T), these filled up to the longest."""
    if not arrays[0].ndim:
        return np.stack(arrays)
    length = max(array.shape[-1] for array in arrays)
    stacked = np.full((len(arrays), *arrays[0].shape[:-1], length), fill, np.int64)
    for i, array in enumerate(arrays):
        stacked[i, ..., : array.shape[-1]] = array
    return stacked


# --- One builder for each kind of example -----------------------------------------------------


def text_features(
    examples: Sequence[TextExample],
    tokenizer: Tokenizer,
    max_len: int,
    labels: Sequence[str] = (),
    stride: int | None = None,
) -> Features:
    """Texts and pairs with a label each: its index in `labels`, or, without them, a number.

    What is too long is cut, of a pair the longer text first. With a stride a long single text
    becomes windows, each with the text's label; `merge_windows` makes one prediction of them.

    Raises: ValueError — a label that is not one of `labels`, or no number; examples of which some
        have no label; a max_len without room for a token of each text.
    Source: Devlin et al. 2018, section 4.1.
    """
    labelled = _labelled([example.label for example in examples])
    cutter = Cutter(tokenizer, max_len)
    index = {name: i for i, name in enumerate(labels)}
    rows = []
    for i, example in enumerate(examples):
        target = {}
        if labelled:
            number = _index(example.label, index) if labels else _number(example.label)
            target["labels"] = np.array(number, np.int64 if labels else np.float32)
        if example.text_pair is None:
            parts = cutter.windows(cutter.read(example.text), stride=stride)
        else:
            parts = cutter.windows(cutter.read(example.text), cutter.read(example.text_pair))
        rows += [Row(i, inputs, target, places) for inputs, places in parts]
    return Features(examples, rows, tuple(labels), cutter.pad_id)


def tag_features(
    examples: Sequence[TaggedExample],
    tokenizer: Tokenizer,
    max_len: int,
    labels: Sequence[str],
    stride: int | None = None,
) -> Features:
    """Words with a tag each: a word's first piece bears its tag, all other tokens have none.

    Words are encoded one by one; one that has no piece, such as a control character, becomes the
    unknown token, so that every word is tagged. Long sentences become windows that share `stride`
    tokens, a quarter of max_len unless given.

    Raises: ValueError — a tag that is not one of `labels`, a number of tags other than that of the
        words; examples of which some have no tags; a max_len without room for a token; a word
        without pieces where the tokenizer has no unknown token.
    Source: Devlin et al. 2018, section 5.3.
    """
    labelled = _labelled([example.tags for example in examples])
    stride = max_len // 4 if stride is None else stride
    cutter = Cutter(tokenizer, max_len)
    encode = lru_cache(2**14)(partial(tokenizer.encode, disallowed_special=()))
    index = {name: i for i, name in enumerate(labels)}
    rows = []
    for i, example in enumerate(examples):
        if labelled and len(example.tags or ()) != len(example.words):
            raise ValueError(
                f"tag_features: expected a tag for each word, got {len(example.words)} words and "
                f"{len(example.tags or ())} tags in example {i}; check the file it was read from"
            )
        tags = np.array([_index(tag, index) for tag in example.tags or ()], np.int64)
        ids: list[int] = []
        spans: list[tuple[int, int]] = []
        for number, word in enumerate(example.words):
            pieces = encode(word) or [_unknown(tokenizer, word)]
            ids += pieces
            spans += [(number, number), *[OUTSIDE] * (len(pieces) - 1)]
        for inputs, places in cutter.windows((ids, spans), stride=stride):
            target = np.full(len(places), IGNORE_INDEX, np.int64)
            if labelled:
                first = places[:, 0] >= 0
                target[first] = tags[places[first, 0]]
            rows.append(Row(i, inputs, {"labels": target} if labelled else {}, places))
    return Features(examples, rows, tuple(labels), cutter.pad_id)


def span_features(
    examples: Sequence[SpanExample],
    tokenizer: Tokenizer,
    max_len: int,
    stride: int | None = None,
) -> Features:
    """A question and a window of its context in each row; where the first answer starts and ends.

    Targets are the first and the last token that share a character with the answer. A window that
    does not hold them all, and one of a question without answer, has 0, 0: [CLS]. Of a question no
    more than half of max_len is kept. Windows share `stride` tokens, a quarter of max_len unless
    given.

    Raises: ValueError — an id that stands twice; a max_len without room for question and context.
    Source: Devlin et al. 2018, sections 4.2 and 4.3, and the released code.
    """
    _labelled([example.answers for example in examples])
    if len({example.id for example in examples}) < len(examples):
        raise ValueError(
            "span_features: expected a different id for each question, got one twice; answers are "
            "told apart by it"
        )
    stride = max_len // 4 if stride is None else stride
    cutter = Cutter(tokenizer, max_len)
    rows = []
    for i, example in enumerate(examples):
        context, asked = (
            cutter.read(example.context),
            cutter.read(example.question)[0][: max_len // 2],
        )
        question = asked, [OUTSIDE] * len(asked)
        start, text = example.answers[0] if example.answers else (0, "")
        end = start + len(text)
        whole = _overlap(np.reshape(context[1], (-1, 2)), start, end).sum()
        cut = dict(truncation="only_second", stride=stride)
        for inputs, places in cutter.windows(question, context, **cut):
            held = np.flatnonzero(_overlap(places, start, end))
            first, last = held[[0, -1]] if whole and len(held) == whole else (0, 0)
            targets = {"start_positions": np.array(first), "end_positions": np.array(last)}
            rows.append(Row(i, inputs, targets, places))
    return Features(examples, rows, (), cutter.pad_id)


def choice_features(
    examples: Sequence[ChoiceExample], tokenizer: Tokenizer, max_len: int
) -> Features:
    """For each example n rows: the context, paired with the question and one of n choices.

    The end of a long context is cut; of question and choice no more than half of max_len is kept.

    Raises: ValueError — examples with different numbers of choices, a label that is not the index
        of one; examples of which some have no label; a max_len without room for both texts.
    Source: Devlin et al. 2018, section 4.4.
    """
    labelled = _labelled([example.label for example in examples])
    n = len(examples[0].choices)
    cutter = Cutter(tokenizer, max_len)
    rows = []
    for i, example in enumerate(examples):
        right = example.label
        if len(example.choices) != n or not (right is None or 0 <= right < n):
            raise ValueError(
                f"choice_features: expected {n} choices as in the first example, and the index of "
                f"one as label, got {len(example.choices)} and {right} in example {i}; train on "
                "examples of one kind at a time"
            )
        texts = [cutter.read(f"{example.question} {choice}".strip()) for choice in example.choices]
        endings = [(ids[: max_len // 2], spans[: max_len // 2]) for ids, spans in texts]
        encoding = cutter([cutter.read(example.context)] * n, endings, truncation="only_first")
        inputs = {name: encoding[name].astype(np.int32) for name in encoding.names}
        targets = {"labels": np.array(right)} if labelled else {}
        rows.append(Row(i, inputs, targets))
    return Features(examples, rows, (), cutter.pad_id)


# --- What they share --------------------------------------------------------------------------


class Cutter:
    """A tokenizer's template, truncation, windows and padding for texts that are tokens already.

    `special` says, as to `encode`, what special tokens in a text are; ordinary text unless given.

    Raises: ValueError — a max_len without room for a token of each text, a negative stride.
    """

    def __init__(self, tokenizer: Tokenizer, max_len: int, **special: Any) -> None:
        self.template, self.max_len = tokenizer.template, max_len
        self.special_tokens, self.input_names = tokenizer.special_tokens, tokenizer.input_names
        self.pad_token, self.pad_token_id = tokenizer.pad_token, tokenizer.pad_token_id
        self.padding_side = "right"  # `windows` takes a row's first tokens
        self.pad_id = self.pad_token_id or 0  # masked: any will do
        # Many examples have their context in common.
        special = special or {"disallowed_special": ()}
        self.read = lru_cache(2**11)(partial(tokenizer.encode_with_offsets, **special))

    def encode_with_offsets(self, tokens: Any) -> Tokens:
        return tokens

    def __call__(self, first: Any, second: Any = None, **cut: Any) -> Encoding:
        """`encode_texts` of lists of tokens."""
        form = self.template.single if second is None else self.template.pair
        stride = cut.get("stride")
        if self.max_len < len(form) or (stride or 0) < 0:
            raise ValueError(
                f"expected max_len >= {len(form)}, for the special tokens and a token of each "
                f"text, and stride >= 0, got {self.max_len} and {stride}; give the model's max_len"
            )
        cut = dict(truncation=True, padding=True, max_length=self.max_len) | cut
        return encode_texts(self, self.template, first, second, **cut)

    def windows(
        self, first: Tokens, second: Tokens | None = None, **cut: Any
    ) -> Iterator[tuple[Batch, Array]]:
        """The rows of a text or a pair: inputs (T), and the tokens' places (T, 2)."""
        encoding = self([first], None if second is None else [second], **cut)
        is_special = encoding.special_tokens_mask[:, :, None] > 0
        places = np.where(is_special, OUTSIDE, encoding.offset_mapping)
        for i, n in enumerate(encoding.attention_mask.sum(1)):
            inputs = {name: encoding[name][i, :n].astype(np.int32) for name in encoding.names}
            yield inputs, places[i, :n].astype(np.int32)


def _overlap(places: Array, start: int, end: int) -> Array:
    """Which tokens share a character with text[start:end]. Shapes: (T, 2), (), () -> (T)"""
    return (places[:, 0] >= 0) & (places[:, 0] < end) & (places[:, 1] > start)


def _labelled(labels: Sequence[Any]) -> bool:
    """Whether all examples have a label, or none has one."""
    missing = sum(label is None for label in labels)
    if not labels or 0 < missing < len(labels):
        raise ValueError(
            f"expected examples that all have a label, or none of which has one, got {len(labels)} "
            f"examples, {missing} without; take those apart"
        )
    return not missing


def _index(label: Any, index: dict[str, int]) -> int:
    if label not in index:
        raise ValueError(
            f"expected labels {', '.join(index)}, got {label!r}; name all labels that the examples "
            "have, or read the file as another task's"
        )
    return index[label]


def _number(label: Any) -> float:
    if not isinstance(label, int | float) or not math.isfinite(label):
        raise ValueError(
            f"expected a number for each text, got {label!r}; for classes give their `labels`"
        )
    return float(label)


def _unknown(tokenizer: Any, word: str) -> int:
    unk_token = getattr(tokenizer, "unk_token", None)
    if unk_token is None:
        raise ValueError(
            f"tag_features: expected words that have tokens, got {word!r}, and a tokenizer without "
            "unk_token; drop the word and its tag"
        )
    return tokenizer.ids[unk_token]
