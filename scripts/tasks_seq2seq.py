"""What a text-to-text model reads: the tokenizer of its texts, and the tasks it is trained on."""

import argparse
from collections.abc import Iterable
from itertools import chain
from typing import Any

from pairs import Parts

from minilm import data
from minilm.objectives.span_corruption import SpanCorruptionBatches
from minilm.objectives.text_to_text import MixedTasks, TextToText, mixing_rates
from minilm.tokenizers import BPETokenizer, CharTokenizer, Tokenizer, UnigramTokenizer

PAD, END = "<pad>", "</s>"
SENTINELS = [f"<extra_id_{i}>" for i in range(100)]  # as many as T5 has
# Words, but each digit and each Chinese character alone: what is copied is copied one by one.
PATTERN = r"[\p{Han}\p{N}]| ?(?:(?!\p{Han})\p{L})+| ?[^\s\p{L}\p{N}]+|\s+"
POOL = 8  # so many batches are drawn at once, to be cut by length


def train_tokenizer(
    args: argparse.Namespace, parts: dict[str, Parts], vocab_size: int
) -> Tokenizer:
    """Byte pairs, unless another kind is asked for.

    Pieces are learned from what is for training; a character must be there for all of the texts.
    """
    kind = args.tokenizer or "bpe"
    names = ("train", "validation", "test") if kind == "char" else ("train",)
    pairs = [pair for task in parts.values() for name in names for pair in task[name]]
    raw: Iterable[str] = data.read_texts(args.pretrain) if args.pretrain else ()
    texts, special = chain(*pairs, raw), [PAD, END, *(SENTINELS if args.pretrain else ())]
    if kind == "char":
        return CharTokenizer.train(texts, special)
    if kind == "bpe":
        return BPETokenizer.train(texts, vocab_size, PATTERN, special_tokens=special)
    return UnigramTokenizer.train(texts, vocab_size, special, byte_fallback=True, normalizer=None)


def make_tasks(
    args: argparse.Namespace, parts: dict[str, Parts], tokenizer: Tokenizer, config: Any
) -> dict[str, MixedTasks]:
    """What is drawn from in training, and what the validation loss is of."""
    pad_id, eos_id, length = config.pad_token_id, config.eos_token_id, config.max_len
    raw = "".join(data.read_texts(args.pretrain)) if args.pretrain else ""
    streams = data.split(tokenizer.encode_array(raw)) if raw else ()
    sentinels = [tokenizer.special_tokens[name] for name in SENTINELS if raw]
    mixed: dict[str, MixedTasks] = {}
    for i, name in enumerate(("train", "validation")):
        tasks: list[Any] = [
            TextToText.of(task, own[name], tokenizer, pad_id=pad_id, eos_id=eos_id,
                          max_source=length, max_target=length)
            for task, own in parts.items()
        ]  # fmt: skip
        sizes: list[float] = [len(task) for task in tasks]
        if raw:
            spans = SpanCorruptionBatches(
                streams[i], sentinels, length, pad_id=pad_id, eos_id=eos_id
            )
            tasks, sizes = [*tasks, spans], [*sizes, len(streams[i]) / spans.length]
        mixed[name] = MixedTasks(tasks, mixing_rates(sizes, args.cap, args.temperature), POOL)
    return mixed
