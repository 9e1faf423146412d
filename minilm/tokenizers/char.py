"""The simplest tokenizer: a token is a character."""

from typing import Any, Self

import numpy as np

from minilm.tokenizers.base import (
    Texts,
    Tokenizer,
    as_texts,
    check,
    check_unicode,
    check_vocabulary,
    hf_layout,
)

# Hugging Face's spelling of "every character by itself"
EVERY_CHARACTER = {
    "type": "Split",
    "pattern": {"Regex": r"[\s\S]"},
    "behavior": "Isolated",
    "invert": False,
}


class CharTokenizer(Tokenizer):
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

    def __init__(self, characters: str) -> None:
        check_unicode(characters)
        if not characters or len(set(characters)) != len(characters):
            raise ValueError(
                f"CharTokenizer: expected one or more different characters, got {characters!r:.80}"
                "; use CharTokenizer.train(text) with a text that is not empty"
            )
        super().__init__([character.encode() for character in characters])
        self.characters = characters
        codes = _code_points(characters)
        # The last entry stands for all code points beyond the vocabulary's largest.
        self._ids = np.full(int(codes.max()) + 2, -1, np.int32)
        self._ids[codes] = np.arange(len(codes))

    @classmethod
    def train(cls, texts: Texts) -> Self:
        """The tokenizer of all characters in the texts.

        Raises: ValueError — texts without a character, or with a lone surrogate.
        """
        characters: set[str] = set()
        for text in as_texts(texts):
            check_unicode(text)
            characters.update(text)
        return cls("".join(sorted(characters)))

    def encode(self, text: str) -> list[int]:
        """The id of each character.

        Raises: ValueError — a character that is not in the vocabulary.
        """
        return self.encode_array(text).tolist()

    def encode_array(self, text: str) -> np.ndarray:
        """The id of each character, by one table look-up for the whole text.

        Raises: ValueError — a character that is not in the vocabulary.
        """
        ids = self._ids[np.minimum(_code_points(text), len(self._ids) - 1)]
        if ids.size and ids.min() < 0:
            position = int(ids.argmin())
            raise ValueError(
                f"encode: expected the {self.vocab_size} characters of the vocabulary, got "
                f"{text[position]!r} (U+{ord(text[position]):04X}) at position {position}; "
                "remove it, or train the tokenizer on text that has it"
            )
        return ids.astype(self.dtype)

    def to_json(self) -> dict[str, Any]:
        """A word-level model whose words are characters."""
        vocab = {character: i for i, character in enumerate(self.characters)}
        return hf_layout(
            pre_tokenizer=EVERY_CHARACTER,
            decoder={"type": "Fuse"},
            model={"type": self.model_type, "vocab": vocab, "unk_token": "<unk>"},
        )

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Self:
        """Raises: TokenizerError — a word-level model that is not one of characters."""
        tokens = check_vocabulary(content["model"].get("vocab"))
        single = all(len(token) == 1 and not "\ud800" <= token <= "\udfff" for token in tokens)
        check(single, "single characters as tokens", tokens)
        for part in ("pre_tokenizer", "normalizer", "added_tokens"):
            expected = EVERY_CHARACTER if part == "pre_tokenizer" else None
            got = content.get(part) or None
            check(got == expected, f"{part} {expected}", got)
        return cls("".join(tokens))


def _code_points(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
