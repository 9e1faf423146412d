"""The unigram language model: of all ways to cut a word into pieces, take the most probable.

Each piece x of the vocabulary has a probability p(x). A segmentation of a word into the pieces
x₁ … xₘ has the probability p(x₁) · … · p(xₘ); encoding finds the best one, and a model in training
can be shown others, each as often as it is probable (subword regularisation). `unigram_lattice`
finds segmentations of a word, `unigram_training` pieces and their probabilities.

Source: Kudo 2018, arXiv 1804.10959, section 3. The file is the `tokenizer.json` of Hugging Face
`tokenizers`, which gives the same ids; text is prepared as in SentencePiece (see `sentencepiece`).
"""

import math
from collections.abc import Iterator, Sequence
from copy import copy
from heapq import nlargest
from itertools import chain, groupby
from typing import Any, Self

import numpy as np

from minilm.tokenizers.added import AddedToken, Names
from minilm.tokenizers.base import (
    Texts,
    as_special,
    as_texts,
    check_unicode,
    read_common,
)
from minilm.tokenizers.files import TokenizerError, check, is_text
from minilm.tokenizers.marked import BYTE_PIECES, MarkedTokenizer
from minilm.tokenizers.numbers import rewrite_scores
from minilm.tokenizers.sentencepiece import MARK, Normalizer, Spec, WordSplitter
from minilm.tokenizers.template import PLAIN, Template
from minilm.tokenizers.unigram_lattice import best, draw, match_table, n_best
from minilm.tokenizers.unigram_training import Progress, count_words, learn_pieces

Piece = tuple[str, float]  # and its log probability
UNKNOWN_PENALTY = 10.0  # how much less probable than the rarest piece an unknown character is
# What T5 puts first and around a text.
SPECIAL = ("<pad>", "</s>", "<unk>")
T5 = Template((("$A", 0), ("</s>", 0)), (("$A", 0), ("</s>", 0), ("$B", 0), ("</s>", 0)))
NFKC: Spec = {"type": "NFKC"}
METASPACE: Spec = {
    "type": "Metaspace",
    "replacement": MARK,
    "prepend_scheme": "always",
    "split": True,
}
WORDS: Spec = {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, METASPACE]}


class UnigramTokenizer(MarkedTokenizer):
    """The unigram model: `pieces` with their log probabilities, of which `unk_id` is the unknown.

    A character without a piece is 10 less probable than the rarest piece. Neighbouring ones are
    one unknown token, or, with `byte_fallback`, their UTF-8 bytes, each a piece such as <0xE4>.

    A special token never comes from plain text, be it a piece. A byte's piece may, as it does in
    `tokenizers`, where it is the most probable way to spell a text such as "<0x41>".

    Raises: ValueError — a piece given twice, no finite log probability, an unk_id outside.

    >>> pieces = [("<unk>", 0.0), ("▁", -2.0), ("c", -4.0), ("at", -3.0), ("▁ca", -6.0)]
    >>> pieces.append(("t", -4.0))
    >>> tokenizer = UnigramTokenizer(pieces, unk_id=0)
    >>> [tokenizer.tokens[i] for i in tokenizer.encode("cat c")]
    ['▁', 'c', 'at', '▁', 'c']
    >>> tokenizer.n_best("cat", 2)
    [([1, 2, 3], -9.0), ([4, 5], -10.0)]
    """

    model_type = "Unigram"

    def __init__(
        self,
        pieces: list[Piece],
        unk_id: int | None,
        byte_fallback: bool = False,
        normalizer: Spec | None = NFKC,
        pre_tokenizer: Spec | None = WORDS,
        added: Sequence[str | AddedToken] = (),
        template: Template = PLAIN,
    ) -> None:
        known = unk_id is None or 0 <= unk_id < len(pieces)
        if not known or not all(math.isfinite(score) for _, score in pieces):
            raise ValueError(
                f"UnigramTokenizer: expected finite log probabilities and unk_id below "
                f"{len(pieces)}, got {unk_id} and {pieces!r:.80}; None if there is no unknown piece"
            )
        tokens = [piece for piece, _ in pieces]
        super().__init__(tokens, byte_fallback, normalizer, pre_tokenizer, added, template)
        self.pieces, self.unk_id = pieces, unk_id
        lowest = min((score for _, score in pieces), default=0.0)
        self._unknown = lowest - UNKNOWN_PENALTY
        ids = {piece: i for i, piece in enumerate(tokens)}
        self._piece_ids = {x: i for x, i in ids.items() if x not in self.special_tokens}
        self._matches = match_table(
            {x: pieces[i][1] for x, i in self._piece_ids.items()}, self._unknown
        )

    @classmethod
    def train(
        cls,
        texts: Texts,
        vocab_size: int,
        special_tokens: Sequence[str | AddedToken] = (),
        byte_fallback: bool = False,
        normalizer: Spec | None = NFKC,
        pre_tokenizer: Spec | None = WORDS,
        progress: Progress | None = None,
    ) -> Self:
        """Learn pieces until there are vocab_size tokens, special tokens included.

        The first ids are <pad>, </s> and <unk>, then come the 256 bytes if there is
        `byte_fallback`, the pieces from the most to the least probable, and the `special_tokens`.
        There are fewer where the texts have fewer substrings that occur twice; all characters are
        pieces. The same texts always give the same tokenizer. Texts are read one by one; what is
        kept is each different word, once: see `unigram_training.learn_pieces` for the bounds.
        `progress` is called with (pieces left, pieces wanted) after each round.

        SentencePiece's default normalisation, nmt_nfkc, is NFKC as well, but also drops control
        characters and zero-width spaces and spares some full-width signs. As there, whitespace of
        any kind and length becomes one space, and none is kept at the ends.

        Raises: ValueError — a vocab_size without room for the characters and special tokens, a
            lone surrogate in a text.
        """
        listed = as_special(special_tokens)
        first = [*SPECIAL, *(BYTE_PIECES if byte_fallback else ())]
        own = {token.content for token in listed}
        more = own - set(first)
        prepared, splitter = Normalizer(normalizer), WordSplitter(pre_tokenizer)
        counts = count_words(
            word for text in as_texts(texts) for word in _words_of(text, prepared, splitter)
        )
        room = vocab_size - len(first) - len(more)
        # Some readers of JSON are wrong in the last bit of a float of 17 digits, and a word such as
        # "aaa" is cut by it; numbers of few digits all read alike.
        learned = [
            (piece, round(score, 9))
            for piece, score in learn_pieces(counts, room, {*first, *more}, progress)
        ]
        # subtle: the text "<0x41>" is not to be read as a byte, so its piece is less probable than
        # its six characters are together
        byte_score = 7 * min((score for _, score in learned), default=0.0)
        scored = [(piece, byte_score if piece in BYTE_PIECES else 0.0) for piece in first]
        return cls(
            [*scored, *learned],
            SPECIAL.index("<unk>"),
            byte_fallback,
            normalizer,
            pre_tokenizer,
            [*(AddedToken(x) for x in SPECIAL if x not in own), *listed],
            T5,
        )

    # --- Encoding ---------------------------------------------------------------------------------

    def _cut_word(self, word: str) -> Iterator[tuple[int, int, int]]:
        """The most probable segmentation."""
        return self._tokens(best(word, self._matches, self._unknown))

    def _tokens(self, pieces: Sequence[str]) -> Iterator[tuple[int, int, int]]:
        """(id, start, end) of the tokens of a word, given its pieces."""
        done = 0
        for known, group in groupby(pieces, self._is_known):
            for piece in group if known else ["".join(group)]:
                end = done + len(piece)
                for i in [self._piece_ids[piece]] if known else self._unknown_ids(piece):
                    yield i, done, end
                done = end

    def _is_known(self, piece: str) -> bool:
        return self._piece_ids.get(piece, self.unk_id) != self.unk_id

    def _unknown_ids(self, text: str) -> list[int]:
        """The ids of characters without a piece: bytes, or the unknown token."""
        if text in self._piece_ids:  # the unknown token's own name
            return [self._piece_ids[text]]
        if in_bytes := self._spell_in_bytes(text):
            return in_bytes
        if self.unk_id is None:
            raise ValueError(
                f"encode: expected the characters of the vocabulary, got {text!r:.80}; "
                "remove them, or make the tokenizer with an unk_id"
            )
        return [self.unk_id]

    # --- Other segmentations ----------------------------------------------------------------------

    def n_best(self, text: str, n: int, **special: Names) -> list[tuple[list[int], float]]:
        """The n most probable segmentations, best first: ids and log probability.

        Fewer if there are not as many. The first is what `encode` gives, to which `special` is
        passed on.

        Raises: ValueError — n below 1, what `encode` raises.
        """
        if n < 1:
            raise ValueError(f"n_best: expected n >= 1, got {n}; 1 gives what encode does")
        Chain = tuple[Any, list[int]] | None  # what comes before, and a word's ids
        found: list[tuple[float, Chain]] = [(0.0, None)]
        for part in self._parts(text, **special):
            options = [(0.0, [part])] if isinstance(part, int) else self._n_best_of_word(part, n)
            longer = ((a + b, (before, ids)) for a, before in found for b, ids in options)
            found = nlargest(n, longer, key=lambda option: option[0])
        return [(_flatten(links), score) for score, links in found]

    def _n_best_of_word(self, word: str, n: int) -> list[tuple[float, list[int]]]:
        found = n_best(word, n, self._matches, self._unknown)
        return [(score, [i for i, _, _ in self._tokens(pieces)]) for score, pieces in found]

    def sample(
        self, text: str, rng: np.random.Generator, alpha: float = 1.0, **special: Names
    ) -> list[int]:
        """Ids of a segmentation drawn with a probability proportional to P(segmentation)^alpha.

        alpha = 0 draws all alike; the larger it is, the more often it is the best one. `special`
        is passed on to `encode`.

        Raises: ValueError — alpha negative or not finite, what `encode` raises.
        Source: Kudo 2018, arXiv 1804.10959, section 3.3, over all segmentations.
        """
        if not 0 <= alpha < math.inf:
            raise ValueError(
                f"sample: expected a finite alpha >= 0, got {alpha}; 1 changes no probability"
            )
        ids: list[int] = []
        for part in self._parts(text, **special):
            if isinstance(part, int):
                ids.append(part)
            else:
                pieces = draw(part, rng, alpha, self._matches, self._unknown)
                ids += [i for i, _, _ in self._tokens(pieces)]
        return ids

    def _parts(self, text: str, **special: Names) -> list[str | int]:
        """A text's words, and between them the ids of its added tokens."""
        words: list[str] = []

        def note(word: str) -> list[int]:
            words.append(word)
            return [-len(words)]  # no token's id: the word's place, counted from 1

        noting = copy(self)
        noting._word_ids = note
        return [i if i >= 0 else words[-i - 1] for i in noting.encode(text, **special)]

    # --- Files ------------------------------------------------------------------------------------

    def to_json(self) -> dict[str, Any]:
        """The layout of Hugging Face `tokenizers`."""
        return self._layout(
            normalizer=self.normalizer,
            pre_tokenizer=self.pre_tokenizer,
            decoder=self._decoder(),
            model={
                "type": self.model_type,
                "unk_id": self.unk_id,
                "vocab": [[piece, score] for piece, score in self.pieces],
                "byte_fallback": self.byte_fallback,
            },
        )

    def _text(self) -> str:
        return rewrite_scores(super()._text())

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Self:
        """Reads files such as T5's, whichever of DECODERS they name: each turns ▁ into spaces.

        Raises: TokenizerError — a model that contradicts itself, or parts that are not known.
        """
        model, decoder = content["model"], content.get("decoder")
        vocab, unk_id = model.get("vocab"), model.get("unk_id")
        fallback = model.get("byte_fallback", False)
        check(isinstance(vocab, list), "a list of pieces and scores", vocab)
        pieces = [_read_piece(entry) for entry in vocab]
        tokens = [piece for piece, _ in pieces]
        check(len(set(tokens)) == len(tokens), "each piece once", tokens)
        is_id = type(unk_id) is int and 0 <= unk_id < len(pieces)
        check(unk_id is None or is_id, f"an unk_id below {len(pieces)}", unk_id)
        check(type(fallback) is bool, "byte_fallback true or false", fallback)
        check(_is_known_decoder(decoder), f"a decoder of {', '.join(DECODERS)}", decoder)
        added, template = read_common(content, tokens)
        settings = content.get("normalizer"), content.get("pre_tokenizer")
        try:
            return cls(pieces, unk_id, fallback, *settings, added, template)
        except TokenizerError:
            raise
        except ValueError as error:
            check(False, "pieces and added tokens that fit together", str(error))
            raise


HUGE = 1e100  # sums of log probabilities stay finite
DECODERS = ("Metaspace", "Replace", "ByteFallback", "Fuse", "Strip")


def _is_known_decoder(decoder: Any) -> bool:
    match decoder:
        case {"type": "Sequence", "decoders": list(parts)}:
            return all(map(_is_known_decoder, parts))
        case {"type": str(kind)}:
            return kind in DECODERS
    return decoder is None


def _read_piece(entry: Any) -> Piece:
    match entry:
        case [str(piece), int() | float() as score] if is_text(piece) and type(score) is not bool:
            check(-HUGE < score < HUGE, "finite scores", entry)
            return piece, float(score)
    check(False, "pieces with their scores", entry)
    raise AssertionError


def _words_of(text: str, normalizer: Normalizer, splitter: WordSplitter) -> list[str]:
    check_unicode(text)
    return splitter.words(normalizer(text), True)


def _flatten(links: Any) -> list[int]:
    """The ids in a chain of (chain before, ids)."""
    lists = []
    while links is not None:
        links, ids = links
        lists.append(ids)
    return list(chain.from_iterable(reversed(lists)))
