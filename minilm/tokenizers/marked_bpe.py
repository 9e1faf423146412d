"""Byte-pair encoding over characters, with ▁ for spaces: the tokenizer of Llama.

Llama's vocabulary was learned by SentencePiece's BPE. It begins with characters where GPT-2's
begins with bytes (see `bpe`), and spells those it has no token for in bytes. Merges are applied in
the same way. This tokenizer reads such vocabularies; for one of your own, `BPETokenizer` learns
merges over bytes.

Source: Kudo, Richardson 2018, arXiv 1808.06226; Touvron et al. 2023, arXiv 2302.13971, section 2.1.
The file is the `tokenizer.json` of Hugging Face `tokenizers`.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Self

from minilm.tokenizers.added import AddedToken
from minilm.tokenizers.base import read_common
from minilm.tokenizers.bpe import merge_pairs, rank_merges
from minilm.tokenizers.bpe_file import read_merges
from minilm.tokenizers.bpe_training import Pair
from minilm.tokenizers.files import TokenizerError, check, check_vocabulary
from minilm.tokenizers.marked import MarkedTokenizer
from minilm.tokenizers.sentencepiece import MARK, Spec, WordSplitter
from minilm.tokenizers.template import PLAIN, Template

WHOLE: Spec = {  # the whole text is one word
    "type": "Metaspace",
    "replacement": MARK,
    "prepend_scheme": "first",
    "split": False,
}
FLAGS = ("fuse_unk", "byte_fallback", "ignore_merges")
Symbol = tuple[int, int, int]  # a token's id, and where in the word it starts and ends


class MarkedBPETokenizer(MarkedTokenizer):
    """BPE over characters: `merges` are pairs of ids, the first learned first.

    A character without a token is spelt in bytes if there is `byte_fallback` and they are tokens.
    Otherwise it becomes the token `unk_id`, neighbouring ones together if `fuse_unk`; without an
    unk_id it is left out. With `ignore_merges` a word that is a token stays one.

    Raises: ValueError — an unk_id outside, a merge of or to the unknown token or a byte.

    >>> tokens = ["<unk>", "▁", "a", "b", "▁a", "<0xC3>", "<0xA9>"]
    >>> tokenizer = MarkedBPETokenizer(tokens, merges=[(1, 2)])
    >>> [tokenizer.tokens[i] for i in tokenizer.encode("ab é")]
    ['▁a', 'b', '▁', '<0xC3>', '<0xA9>']
    >>> tokenizer.decode(tokenizer.encode("ab é"))
    'ab é'
    """

    model_type = "BPE"

    def __init__(
        self,
        tokens: list[str],
        merges: list[Pair],
        unk_id: int | None = None,
        fuse_unk: bool = True,
        byte_fallback: bool = True,
        ignore_merges: bool = False,
        normalizer: Spec | None = None,
        pre_tokenizer: Spec | None = WHOLE,
        added: Sequence[str | AddedToken] = (),
        template: Template = PLAIN,
    ) -> None:
        super().__init__(tokens, byte_fallback, normalizer, pre_tokenizer, added, template)
        self.merges, self.unk_id, self.fuse_unk = merges, unk_id, fuse_unk
        self.ignore_merges = ignore_merges
        self._own_ids = {token: i for i, token in enumerate(tokens)}
        self._ranks = rank_merges(merges, tokens)
        merged = {i for (a, b), (_, joined) in self._ranks.items() for i in (a, b, joined)}
        known = unk_id is None or 0 <= unk_id < len(tokens)
        if not known or merged & (self._bytes | {unk_id}):
            raise ValueError(
                f"MarkedBPETokenizer: expected unk_id below {len(tokens)}, and merges of characters"
                f" only, got {unk_id} and merges of {merged & (self._bytes | {unk_id})}; leave out"
                " those of bytes and of the unknown token"
            )
        whole = self._bytes | {unk_id}  # a symbol each; the others have one per character
        self._n_symbols = [1 if i in whole else len(token) for i, token in enumerate(tokens)]

    def _symbols(self, word: str) -> list[Symbol]:
        """The word's characters: each its token, its bytes, or unknown."""
        found: list[Symbol] = []
        unknown: Symbol | None = None  # a run of them that is not yet in `found`
        for i, character in enumerate(word):
            own = self._own_ids.get(character)
            if own is None and (in_bytes := self._spell_in_bytes(character)):
                # subtle: where not all bytes are tokens, they come before a run that is open
                found += [(byte, i, i + 1) for byte in in_bytes]
                continue
            if own is None and self.unk_id is None:
                continue
            if unknown is not None and not (own is None and self.fuse_unk):
                found.append(unknown)
                unknown = None
            if own is not None:
                found.append((own, i, i + 1))
            elif self.unk_id is not None:
                unknown = (self.unk_id, i if unknown is None else unknown[1], i + 1)
        return found if unknown is None else [*found, unknown]

    def _cut_word(self, word: str) -> Iterator[Symbol]:
        if self.ignore_merges and word in self._own_ids:
            yield self._own_ids[word], 0, len(word)
            return
        symbols, at = self._symbols(word), 0
        for i in merge_pairs([i for i, _, _ in symbols], self._ranks):
            stop = at + self._n_symbols[i]
            yield i, symbols[at][1], symbols[stop - 1][2]
            at = stop

    def to_json(self) -> dict[str, Any]:
        """The layout of Hugging Face `tokenizers`."""
        return self._layout(
            normalizer=self.normalizer,
            pre_tokenizer=self.pre_tokenizer,
            decoder=self._decoder(),
            model={
                "type": self.model_type,
                "unk_token": None if self.unk_id is None else self.tokens[self.unk_id],
                "fuse_unk": self.fuse_unk,
                "byte_fallback": self.byte_fallback,
                "ignore_merges": self.ignore_merges,
                "vocab": {token: i for i, token in enumerate(self.tokens[: self.model_size])},
                "merges": [[self.tokens[left], self.tokens[right]] for left, right in self.merges],
            },
        )

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Self:
        """Raises: TokenizerError — a model that contradicts itself, or parts that are not known."""
        model, decoder = content["model"], content.get("decoder")
        for part in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
            check(not model.get(part), f"no {part} in the model", model.get(part))
        flags: dict[str, Any] = {x: model.get(x, False) for x in FLAGS}
        check(all(type(x) is bool for x in flags.values()), "flags true or false", flags)
        tokens = check_vocabulary(model.get("vocab"))
        ids = {token: i for i, token in enumerate(tokens)}
        unk = model.get("unk_token")
        check(unk is None or unk in tokens, "an unk_token of the vocabulary", unk)
        merges = list(read_merges(model.get("merges"), ids))
        added, template = read_common(content, tokens)
        parts: dict[str, Any] = {x: content.get(x) for x in ("normalizer", "pre_tokenizer")}
        unk_id = None if unk is None else ids[unk]
        try:
            tokenizer = cls(
                tokens, merges, unk_id, **flags, **parts, added=added, template=template
            )
        except TokenizerError:
            raise
        except ValueError as error:
            check(False, "tokens and merges that fit together", str(error))
            raise
        known = tokenizer._decodes_as(decoder)
        check(known, f"the decoder {tokenizer._decoder()}", decoder)
        return tokenizer

    def _decodes_as(self, decoder: Any) -> bool:
        """Whether it gives the texts that `_decode` does."""
        if isinstance(decoder, dict) and decoder.get("type") == "Metaspace":
            other = WordSplitter(decoder)
            same = other.mark == self._mark and (other.prepend != "never") == bool(self._prefix)
            return same and self._splitter.split and not self._bytes
        parts = self._decoder()["decoders"]
        forms = [[p for p in parts if p["type"] != left_out] for left_out in ("", "ByteFallback")]
        if not self._prefix:
            forms += [form[:-1] for form in forms]
        if self._bytes:
            forms = [form for form in forms if parts[1] in form]
        return decoder in [{"type": "Sequence", "decoders": form} for form in forms]
