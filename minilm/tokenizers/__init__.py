"""Text to token ids and back: one file per algorithm, one for shared pre-tokenization."""

from pathlib import Path

from minilm.tokenizers.added import AddedToken
from minilm.tokenizers.base import Tokenizer
from minilm.tokenizers.bpe import BPETokenizer
from minilm.tokenizers.char import CharTokenizer
from minilm.tokenizers.encoding import Encoding
from minilm.tokenizers.files import FILE_NAME, TokenizerError, check, read_tokenizer_file
from minilm.tokenizers.template import Template
from minilm.tokenizers.unigram import UnigramTokenizer
from minilm.tokenizers.wordpiece import WordPieceTokenizer

__all__ = [
    "AddedToken",
    "BPETokenizer",
    "CharTokenizer",
    "Encoding",
    "Template",
    "Tokenizer",
    "TokenizerError",
    "UnigramTokenizer",
    "WordPieceTokenizer",
    "load_tokenizer",
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
    content = read_tokenizer_file(directory)
    kinds = {kind.model_type: kind for kind in KINDS}
    model_type = content["model"].get("type")
    check(model_type in list(kinds), f"a model of type {' or '.join(kinds)}", model_type)
    return kinds[model_type].from_json(content)


KINDS: tuple[type[Tokenizer], ...] = (
    BPETokenizer,
    CharTokenizer,
    UnigramTokenizer,
    WordPieceTokenizer,
)
