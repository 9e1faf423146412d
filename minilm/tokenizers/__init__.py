"""Text to token ids and back: one file per algorithm, one for shared pre-tokenization."""

from pathlib import Path
from typing import Any

from minilm.tokenizers.added import AddedToken
from minilm.tokenizers.base import Tokenizer
from minilm.tokenizers.bpe import BPETokenizer
from minilm.tokenizers.char import CharTokenizer
from minilm.tokenizers.encoding import Encoding
from minilm.tokenizers.files import FILE_NAME, TokenizerError, check, read_tokenizer_file
from minilm.tokenizers.marked_bpe import MarkedBPETokenizer
from minilm.tokenizers.template import Template
from minilm.tokenizers.unigram import UnigramTokenizer
from minilm.tokenizers.wordpiece import WordPieceTokenizer

__all__ = [
    "AddedToken",
    "BPETokenizer",
    "CharTokenizer",
    "Encoding",
    "MarkedBPETokenizer",
    "Template",
    "Tokenizer",
    "TokenizerError",
    "UnigramTokenizer",
    "WordPieceTokenizer",
    "has_bytes",
    "load_tokenizer",
    "tokenizer_from_json",
]


def load_tokenizer(directory: str | Path) -> Tokenizer:
    """The tokenizer saved in `directory`, of whichever kind its files are.

    Without a `tokenizer.json`: GPT-2's `vocab.json` and `merges.txt`, or BERT's `vocab.txt`.

    Raises: TokenizerError — no file, a damaged or foreign one, or one that contradicts itself.
    """
    directory = Path(directory)
    if not (directory / FILE_NAME).exists():
        for kind in (BPETokenizer, WordPieceTokenizer):
            if (directory / kind.vocab_file).exists():
                return kind.load(directory)
    return tokenizer_from_json(read_tokenizer_file(directory))


def tokenizer_from_json(content: dict[str, Any]) -> Tokenizer:
    """The tokenizer that a file describes: what `to_json` gave.

    Raises: TokenizerError — a damaged file, a foreign one, or one that contradicts itself.
    """
    model_type = content["model"].get("type")
    check(model_type in list(KINDS), f"a model of type {' or '.join(KINDS)}", model_type)
    kind = KINDS[model_type]
    if kind is BPETokenizer and not has_bytes(content.get("pre_tokenizer")):
        kind = MarkedBPETokenizer
    return kind.from_json(content)


def has_bytes(pre_tokenizer: Any) -> bool:
    """Whether a "pre_tokenizer" turns text into bytes."""
    match pre_tokenizer:
        case {"type": "Sequence", "pretokenizers": list(parts)}:
            return any(map(has_bytes, parts))
        case {"type": "ByteLevel"}:
            return True
    return False


KINDS: dict[str, type[Tokenizer]] = {
    kind.model_type: kind
    for kind in (BPETokenizer, CharTokenizer, UnigramTokenizer, WordPieceTokenizer)
}
