"""What only BPE has in its files: chunks, places, merges, and GPT-2's two files of its own."""

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from minilm.tokenizers.bpe_training import Pair
from minilm.tokenizers.files import check, read_json, read_text
from minilm.tokenizers.pretokenize import GPT2_PATTERN

VOCAB_FILE, MERGES_FILE = "vocab.json", "merges.txt"


def read_vocab_files(directory: Path) -> tuple[dict[str, Any], list[str]]:
    """The vocabulary and the merges, as they are spelt there.

    Raises: TokenizerError — a file that is missing or damaged.
    """
    vocab = read_json(directory / VOCAB_FILE)
    lines = read_text(directory / MERGES_FILE).replace("\r\n", "\n").split("\n")
    return vocab, [line for line in lines if line and not line.startswith("#version")]


def read_pattern(pre_tokenizer: Any) -> tuple[str, bool]:
    """The split pattern of a byte-level "pre_tokenizer", and whether it adds a space."""
    match pre_tokenizer:
        case {"type": "ByteLevel", "add_prefix_space": bool(prefix), **others}:
            if others.get("use_regex", True) is True:
                return GPT2_PATTERN, prefix
        case {
            "type": "Sequence",
            "pretokenizers": [
                {
                    "type": "Split",
                    "pattern": {"Regex": str(pattern)},
                    "behavior": "Isolated",
                    "invert": False,
                },
                {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False},
            ],
        }:
            return pattern, False
    check(False, "a ByteLevel pre_tokenizer, or Split and ByteLevel", pre_tokenizer)
    raise AssertionError


def read_trim(processor: Any, prefix: bool) -> bool:
    """Whether a "post_processor" trims the places of tokens."""
    match processor:
        case {"type": "Sequence", "processors": list(parts)}:
            return any(map(partial(read_trim, prefix=prefix), parts))
        case {"type": "ByteLevel" | "RobertaProcessing", **others}:
            trim, added = others.get("trim_offsets", True), others.get("add_prefix_space", True)
            known = trim is False or (trim is True and added is prefix)
            check(known, f"trim_offsets with add_prefix_space {prefix}", processor)
            return trim is True
    return False


def read_merges(merges: Any, ids: Mapping[str, int]) -> Iterator[Pair]:
    """The merges of a file, pairs of tokens or both in one string, as pairs of ids."""
    check(isinstance(merges, list), 'a list "merges"', merges)
    for merge in merges:
        pair = merge.split(" ") if isinstance(merge, str) else merge
        is_pair = isinstance(pair, list) and len(pair) == 2
        check(is_pair and all(isinstance(part, str) for part in pair), "pairs of tokens", merge)
        left, right = pair
        known = left in ids and right in ids and left + right in ids
        check(known, "merges whose parts and result are in the vocabulary", merge)
        yield ids[left], ids[right]
