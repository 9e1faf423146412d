"""Which class each token belongs to, and the names that tokens make together."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np

from minilm.models.bert_heads import BertForTokenClassification
from minilm.pipelines.base import Pipeline
from minilm.pipelines.windows import Windows, new_cutter, softmax
from minilm.tasks.features import Cutter, Tokens
from minilm.tasks.predictions import predict
from minilm.tensor import Array
from minilm.tokenizers import WordPieceTokenizer
from minilm.tokenizers.wordpiece import TOKEN_CLEANUP

STRATEGIES = ("none", "simple", "first", "average", "max")


class Piece(NamedTuple):
    """A token, where it stands, and how probable each class is for it."""

    place: int  # in the row, special tokens counted
    id: int
    start: int  # in the text
    end: int
    scores: Array  # (K,)


class Word(NamedTuple):
    """Tokens that are classified together."""

    pieces: list[Piece]
    label: str
    score: float


class TokenClassification(Pipeline):
    """token-classification: the tokens whose class is none of `ignore_labels`.

    aggregation_strategy "none": {"entity", "score", "index", "word", "start", "end"} for each
    token. Else {"entity_group", "score", "word", "start", "end"} for each run of tokens of one
    class, B- and I- before its name left out; a B- begins a run. "simple" classifies tokens; the
    others words, a word by its "first" token, by the "average" of its tokens' probabilities or by
    the token with the "max"imum. text[start:end] is what "word" spells.

    Every token of a long text is classified in the window that shows most of what is around it;
    windows share `stride` tokens, a quarter of the model's max_len unless given. An empty text has
    no tokens. With `is_split_into_words` an input is a list of words, encoded one by one, as models
    are trained to tag words; start and end are those in the words joined by `delimiter`.

    Differs: transformers cuts long texts or, given a stride, joins the names that windows found;
    it decodes the bytes of a word twice, which spoils what is not ASCII.
    """

    head = "token_classification"
    kinds = (BertForTokenClassification,)

    def __call__(self, inputs: Any, *, batch_size: int | None = None, **arguments: Any) -> Any:
        split = self.override(self.defaults, arguments).get("is_split_into_words", False)
        if split and isinstance(inputs, list) and all(isinstance(word, str) for word in inputs):
            inputs = [inputs]
        return super().__call__(inputs, batch_size=batch_size, **arguments)

    def answers(
        self,
        inputs: list[Any],
        batch_size: int,
        *,
        aggregation_strategy: str = "none",
        ignore_labels: Sequence[str] = ("O",),
        stride: int | None = None,
        is_split_into_words: bool = False,
        delimiter: str = " ",
    ) -> list[Any]:
        if aggregation_strategy not in STRATEGIES:
            raise ValueError(
                f"{self.task}: expected aggregation_strategy of {', '.join(STRATEGIES)}, got "
                f"{aggregation_strategy!r}; 'simple' joins what has one label"
            )
        cutter = new_cutter(self.model, self.tokenizer)
        if is_split_into_words:
            tokens = [
                _read_words(cutter, self.check_texts(list(words)), delimiter) for words in inputs
            ]
            texts = [delimiter.join(words) for words in inputs]
        else:
            texts = self.check_texts(inputs)
            tokens = [cutter.read(text) for text in texts]
        windows = Windows(cutter, tokens, stride)
        logits = windows.join(predict(self.model, windows.features, batch_size))
        answers = []
        for text, ids, places, own in zip(
            texts, windows.input_ids, windows.places, logits, strict=True
        ):
            pieces = [
                Piece(i, int(ids[i]), int(places[i, 0]), int(places[i, 1]), scores)
                for i, scores in enumerate(softmax(own))
                if places[i, 0] >= 0
            ]
            found = self._entities(text, pieces, aggregation_strategy)
            names = ("entity", "entity_group")
            answers.append([e for e in found if not any(e.get(n) in ignore_labels for n in names)])
        return answers

    def _entities(self, text: str, pieces: list[Piece], strategy: str) -> Iterator[dict[str, Any]]:
        by_word = strategy not in ("none", "simple")
        words = [self._classify(group, strategy) for group in self._group(text, pieces, by_word)]
        if strategy == "none":
            for (piece,), label, score in words:
                word = text[piece.start : piece.end]
                if piece.id != self.tokenizer.unk_token_id:
                    word = self.tokenizer.tokens[piece.id]
                place = {"word": word, "start": piece.start, "end": piece.end}
                yield {"entity": label, "score": score, "index": piece.place, **place}
            return
        for run in _runs(words):
            own = [piece for word in run for piece in word.pieces]
            yield {
                "entity_group": run[0].label.split("-", 1)[-1],
                "score": float(np.mean([word.score for word in run])),
                "word": self._spell(text, own),
                "start": own[0].start,
                "end": own[-1].end,
            }

    def _classify(self, pieces: list[Piece], strategy: str) -> Word:
        scores = pieces[0].scores
        if strategy == "average":
            scores = np.mean([piece.scores for piece in pieces], 0)
        elif strategy == "max":
            scores = max((piece.scores for piece in pieces), key=np.max)
        best = int(scores.argmax())
        return Word(pieces, self.model.id2label.get(best, f"LABEL_{best}"), float(scores[best]))

    def _group(self, text: str, pieces: list[Piece], by_word: bool) -> list[list[Piece]]:
        """The tokens of each word together, or each alone."""
        groups: list[list[Piece]] = []
        for piece in pieces:
            if groups and by_word and self._continues(text, piece):
                groups[-1].append(piece)
            else:
                groups.append([piece])
        return groups

    def _continues(self, text: str, piece: Piece) -> bool:
        """Whether a token is a later one of a word, as transformers tells.

        WordPiece marks such tokens: they are longer than what they stand for. Of others it is told
        by the space that is not there.
        """
        if piece.id == self.tokenizer.unk_token_id:
            return False
        if isinstance(self.tokenizer, WordPieceTokenizer):
            return len(self.tokenizer.tokens[piece.id]) != piece.end - piece.start
        return piece.start > 0 and " " not in text[piece.start - 1 : piece.start + 1]

    def _spell(self, text: str, pieces: list[Piece]) -> str:
        """What the tokens decode to, unknown ones as they stand in the text."""
        unknown = self.tokenizer.unk_token_id
        spelt = ""
        for id_, run in groupby(pieces, lambda piece: piece.id if piece.id == unknown else None):
            if id_ is None:
                before = [unknown] if spelt and unknown is not None else []
                ids = [*before, *(piece.id for piece in run)]
                spelt += self.tokenizer.decode(ids)[len(self.tokenizer.decode(before)) :]
                continue
            for piece in run:
                word = text[piece.start : piece.end]
                spelt += self._spaced(word) if spelt else word
        return spelt

    def _spaced(self, word: str) -> str:
        """An unknown word behind others, as WordPiece decodes words."""
        if not isinstance(self.tokenizer, WordPieceTokenizer):
            return word
        word = f" {word}"
        for spaced, written in TOKEN_CLEANUP.items() if self.tokenizer.cleanup else ():
            word = word.replace(spaced, written)
        return word


def _read_words(cutter: Cutter, words: list[str], delimiter: str) -> Tokens:
    """The tokens of words that are encoded one by one, and their places in the joined words."""
    ids: list[int] = []
    places: list[tuple[int, int]] = []
    start = 0
    for word in words:
        own, spans = cutter.read(word)
        ids += own
        places += [(start + a, start + b) for a, b in spans]
        start += len(word) + len(delimiter)
    return ids, places


def _runs(words: list[Word]) -> Iterator[list[Word]]:
    """Neighbours of one class; a B- begins anew."""
    run: list[Word] = []
    for word in words:
        if run and (word.label.startswith("B-") or _tag(word.label) != _tag(run[-1].label)):
            yield run
            run = []
        run.append(word)
    if run:
        yield run


def _tag(label: str) -> str:
    return label[2:] if label.startswith(("B-", "I-")) else label
