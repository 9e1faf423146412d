"""The simplest tokenizer: a token is a character."""

from collections.abc import Sequence
from typing import Any, Self

import numpy as np

from minilm.tokenizers.added import AddedToken
from minilm.tokenizers.base import (
    ByteTokenizer,
    Span,
    Texts,
    as_special,
    as_texts,
    check_unicode,
    read_common,
)
from minilm.tokenizers.files import check, check_vocabulary
from minilm.tokenizers.template import PLAIN, Template

# Hugging Face's spelling of "every character by itself"
EVERY_CHARACTER = {
    "type": "Split",
    "pattern": {"Regex": r"[\s\S]"},
    "behavior": "Isolated",
    "invert": False,
}


class CharTokenizer(ByteTokenizer):
    """A token per character; ids in code-point order.

    Raises: ValueError — no characters, one twice, or one that is not a single character.

    >>> tokenizer = CharTokenizer.train("hello")
    >>> tokenizer.characters
    'ehlo'
    >>> tokenizer.encode("hole")
    [1, 3, 2, 0]
    >>> tokenizer.decode([1, 3, 2, 0])
    'hole'
    """

    model_type = "WordLevel"

    def __init__(
        self,
        characters: str,
        added: Sequence[str | AddedToken] = (),
        template: Template = PLAIN,
    ) -> None:
        check_unicode(characters)
        if not characters or len(set(characters)) != len(characters):
            raise ValueError(
                f"CharTokenizer: expected one or more different characters, got {characters!r:.80}"
                "; use CharTokenizer.train(text) with a text that is not empty"
            )
        token_bytes = [character.encode() for character in characters]
        super().__init__(token_bytes, list(characters), as_special(added), template)
        self.characters = characters
        codes = _code_points(characters)
        # The last entry stands for all code points beyond the vocabulary's largest.
        self._ids = np.full(int(codes.max()) + 2, -1, np.int32)
        self._ids[codes] = np.arange(len(codes))

    @classmethod
    def train(cls, texts: Texts, special_tokens: Sequence[str | AddedToken] = ()) -> Self:
        """The tokenizer of all characters in the texts; the special tokens come after them.

        Raises: ValueError — texts without a character, or with a lone surrogate.
        """
        characters: set[str] = set()
        for text in as_texts(texts):
            check_unicode(text)
            characters.update(text)
        return cls("".join(sorted(characters)), special_tokens)

    def encode_array(self, text: str) -> np.ndarray:
        """The token ids of a text as an array of `dtype`.

        Raises: ValueError — a character that is not in the vocabulary.
        """
        return np.array(self.encode(text), self.dtype) if self.added else self._look_up(text)

    def _encode(self, text: str, first: bool) -> list[int]:
        return self._look_up(text).tolist()

    def _encode_spans(self, text: str, first: bool) -> tuple[list[int], list[Span]]:
        return self._encode(text, first), [(i, i + 1) for i in range(len(text))]

    def _look_up(self, text: str) -> np.ndarray:
        """The id of each character, by one look-up for the whole text."""
        ids = self._ids[np.minimum(_code_points(text), len(self._ids) - 1)]
        if ids.size and ids.min() < 0:
            position = int(ids.argmin())
            raise ValueError(
                f"encode: expected the {self.model_size} characters of the vocabulary, got "
                f"{text[position]!r} (U+{ord(text[position]):04X}) at position {position}; "
                "remove it, or train the tokenizer on text that has it"
            )
        return ids.astype(self.dtype)

    def to_json(self) -> dict[str, Any]:
        """A word-level model whose words are characters."""
        vocab = {character: i for i, character in enumerate(self.characters)}
        return self._layout(
            pre_tokenizer=EVERY_CHARACTER,
            decoder={"type": "Fuse"},
            model={"type": self.model_type, "vocab": vocab, "unk_token": "<unk>"},
        )

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Self:
        """Raises: TokenizerError — a word-level model that is not one of characters."""
        tokens = check_vocabulary(content["model"].get("vocab"))
        check(all(len(token) == 1 for token in tokens), "single characters as tokens", tokens)
        for part, expected in (("pre_tokenizer", EVERY_CHARACTER), ("normalizer", None)):
            check(content.get(part) == expected, f"{part} {expected}", content.get(part))
        return cls("".join(tokens), *read_common(content, tokens))


def _code_points(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
