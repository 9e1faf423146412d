"""Tokenizers that see a space as ▁, as SentencePiece does: what unigram and one kind of BPE share.

Source: Kudo, Richardson 2018, arXiv 1808.06226. How a text is prepared stands in `sentencepiece`.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import chain, groupby
from typing import Any

from minilm.tokenizers.added import AddedToken
from minilm.tokenizers.base import ByteTokenizer, Span, as_special
from minilm.tokenizers.cache import Cache
from minilm.tokenizers.sentencepiece import MARK, Normalizer, Spec, WordSplitter
from minilm.tokenizers.template import Template

BYTE_PIECES = {f"<0x{byte:02X}>": byte for byte in range(256)}


class MarkedTokenizer(ByteTokenizer):
    """Base: a text is normalised, cut into words, and each word into tokens.

    `normalizer` and `pre_tokenizer` are parts of the file: see `sentencepiece`. With
    `byte_fallback` tokens such as <0xE4> are bytes, which spell the characters without a token.

    Words that were seen before are remembered, see `Cache`.

    A subclass gives `_cut_word`, and what `Tokenizer` asks for beside that.
    """

    def __init__(
        self,
        tokens: list[str],
        byte_fallback: bool,
        normalizer: Spec | None,
        pre_tokenizer: Spec | None,
        added: Sequence[str | AddedToken],
        template: Template,
    ) -> None:
        self.byte_fallback = byte_fallback
        self.normalizer, self.pre_tokenizer = normalizer, pre_tokenizer
        self._normalizer, self._splitter = Normalizer(normalizer), WordSplitter(pre_tokenizer)
        self._mark = self._splitter.mark or MARK
        listed = as_special(added)
        contents = {token.content for token in listed}
        super().__init__([self._spell(t, contents) for t in tokens], tokens, listed, template)
        adds_prefix = self._splitter.prepend != "never" or self._normalize("x").startswith(MARK)
        self._prefix = " " if adds_prefix else ""
        ids = {token: i for i, token in enumerate(tokens)}
        self._byte_ids = [ids.get(piece) if byte_fallback else None for piece in BYTE_PIECES]
        self._bytes = set(self._byte_ids) - {None}
        self._cache = Cache(self._encode_word)
        self._word_ids: Callable[[str], Sequence[int]] = self._cache.__getitem__

    def _spell(self, token: str, added: set[str]) -> bytes:
        """What a token stands for in a text."""
        if self.byte_fallback and token in BYTE_PIECES:
            return bytes([BYTE_PIECES[token]])
        return (token if token in added else token.replace(self._mark, " ")).encode()

    def _cut_word(self, word: str) -> Iterator[tuple[int, int, int]]:
        """(id, start, end) of the tokens of a word."""
        raise NotImplementedError(f"{type(self).__name__} needs a _cut_word method")

    def _normalize(self, text: str) -> str:
        return self._normalizer(text)

    def _normalize_aligned(self, text: str) -> tuple[str, Sequence[Span] | None]:
        return self._normalizer.aligned(text) if self._normalizer.steps else (text, None)

    def _encode(self, text: str, first: bool) -> list[int]:
        return list(chain.from_iterable(map(self._word_ids, self._splitter.words(text, first))))

    def _encode_word(self, word: str) -> list[int]:
        return [i for i, _, _ in self._cut_word(word)]

    def _encode_spans(self, text: str, first: bool) -> tuple[list[int], list[Span]]:
        ids, spans = [], []
        for word, offset, low in self._splitter.placed(text, first):
            for i, start, end in self._cut_word(word):
                ids.append(i)
                spans.append((max(offset + start, low), max(offset + end, low + 1)))
        return ids, spans

    def _spell_in_bytes(self, text: str) -> list[int]:
        """The ids of the text's bytes, or none if one of them has no token."""
        found = [i for byte in text.encode() if (i := self._byte_ids[byte]) is not None]
        return found if len(found) == len(text.encode()) else []

    def _decode(self, ids: list[int]) -> str:
        """The text of the tokens, without the space that encoding put before it.

        Neighbouring bytes that are no UTF-8 become U+FFFD each.
        """
        text = ""
        for are_bytes, run in groupby(ids, self._bytes.__contains__):
            data = self.decode_bytes(run)
            try:
                text += data.decode()
            except UnicodeDecodeError:
                assert are_bytes
                text += "\ufffd" * len(data)
        has_own = ids and self.tokens[ids[0]].startswith(" ")  # an added token's space is no prefix
        return text if has_own else text.removeprefix(self._prefix)

    def _decoder(self) -> Spec:
        """What `_decode` does, as a "decoder" of the file."""
        parts: list[dict[str, Any]] = [
            {"type": "Replace", "pattern": {"String": self._mark}, "content": " "},
            {"type": "ByteFallback"},
            {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": len(self._prefix), "stop": 0},
        ]
        return {"type": "Sequence", "decoders": parts}
