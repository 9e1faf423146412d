"""Where in a text the answer to a question stands."""

import re
from typing import Any

import numpy as np

from minilm.beam import log_softmax
from minilm.models.bert_heads import BertForQuestionAnswering
from minilm.pipelines.base import Pipeline
from minilm.pipelines.windows import by_text, cut_rows, new_cutter
from minilm.tasks.features import OUTSIDE, Cutter, Features, Row
from minilm.tasks.predictions import best_spans, predict
from minilm.tensor import Array
from minilm.tokenizers import BPETokenizer, Tokenizer, WordPieceTokenizer

Answer = dict[str, Any]
NO_ANSWER: Answer = {"score": 0.0, "start": 0, "end": 0, "answer": ""}


class QuestionAnswering(Pipeline):
    """question-answering: {"score", "start", "end", "answer"}; context[start:end] is the answer.

    An input is {"question", "context"}; or call with question= and context=, each a text or a list.
    A span's score is P(start) P(end), of spans up to `max_answer_len` tokens; `align_to_words`
    makes whole words of them, and of spans that spell the same one answer, whose probability is
    their sum. With `top_k` > 1 the answer is a list, the best first. With
    `handle_impossible_answer` "" is one of them: [CLS] as start and end, the least of all windows.

    A row has up to `max_seq_len` tokens (384, or what the model can read), of the question up to
    `max_question_len`. A long context becomes windows that share `doc_stride` tokens (half a row,
    at most 128), and an answer has the best of its windows' scores. An empty context is answered
    by "", with score 0, or 1 if it may be.

    Differs: transformers 4, the last to have this pipeline, adds the scores of windows that share
    an answer, which may exceed 1; it refuses empty texts, and answers a list of one by no list.
    """

    head = "question_answering"
    kinds = (BertForQuestionAnswering,)

    def __call__(
        self,
        inputs: Any = None,
        *,
        batch_size: int | None = None,
        question: Any = None,
        context: Any = None,
        **arguments: Any,
    ) -> Any:
        if inputs is None:
            inputs = self._pairs(question, context)
        return super().__call__(inputs, batch_size=batch_size, **arguments)

    def _pairs(self, question: Any, context: Any) -> Any:
        if isinstance(question, str) and isinstance(context, str):
            return {"question": question, "context": context}
        if isinstance(question, list) and isinstance(context, str):
            context = [context] * len(question)
        if not isinstance(question, list) or not isinstance(context, list):
            raise TypeError(
                f"{self.task}: expected question and context as texts or lists, got "
                f"{type(question).__name__} and {type(context).__name__}; give both"
            )
        if len(question) != len(context):
            raise ValueError(
                f"{self.task}: expected a context for each question, got {len(question)} and "
                f"{len(context)}; one text is a context for all"
            )
        return [{"question": q, "context": c} for q, c in zip(question, context, strict=True)]

    def answers(
        self,
        inputs: list[Any],
        batch_size: int,
        *,
        top_k: int = 1,
        doc_stride: int | None = None,
        max_answer_len: int = 15,
        max_seq_len: int | None = None,
        max_question_len: int = 64,
        handle_impossible_answer: bool = False,
        align_to_words: bool = True,
    ) -> list[Any]:
        if min(top_k, max_answer_len, max_question_len) < 1:
            raise ValueError(
                f"{self.task}: expected top_k, max_answer_len and max_question_len >= 1, got "
                f"{top_k}, {max_answer_len} and {max_question_len}; leave them out"
            )
        cutter = new_cutter(self.model, self.tokenizer, max_seq_len or 384)
        pairs = [self._texts(given) for given in inputs]
        features = _features(pairs, cutter, doc_stride, max_question_len)
        scored = list(zip(features.rows, predict(self.model, features, batch_size), strict=True))
        answers = []
        for (_, context), windows in zip(pairs, by_text(features, scored), strict=True):
            found = [
                self._window(row, scores, context, top_k, max_answer_len, align_to_words)
                for row, scores in windows
            ]
            answers.append(_best(found, top_k, handle_impossible_answer))
        return answers

    def _window(
        self, row: Row, scores: Array, context: str, top_k: int, longest: int, align: bool
    ) -> tuple[float, dict[str, Answer]]:
        """P(no answer), and the answers by what they spell, in any case."""
        ids = row.inputs["input_ids"]
        tokens = np.flatnonzero(row.places[:, 0] >= 0)  # of the context
        null = [0] if ids[0] == self.tokenizer.cls_token_id else []
        kept = np.array([*null, *tokens], int)
        logs = log_softmax(scores[kept].T.astype(np.float64))  # (2, 1 + tokens)
        p_null = float(np.exp(logs[:, 0].sum())) if null else 0.0
        start, end = logs[:, len(null) :]
        places = row.places[tokens]
        words = _word_numbers(self.tokenizer, context, ids[tokens], places)
        found: dict[str, Answer] = {}
        # Words are made of several spans: some more are looked at than are asked for.
        count = 2 * top_k + 10 if align else top_k
        for i, j, log_score in best_spans(start, end, longest, count) if tokens.size else ():
            if align:
                i = int(np.searchsorted(words, words[i]))
                j = int(np.searchsorted(words, words[j], "right")) - 1
            a, b = int(places[i, 0]), int(places[j, 1])
            answer: Answer = {"score": 0.0, "start": a, "end": b, "answer": context[a:b]}
            answer = found.setdefault(context[a:b].lower(), answer)
            answer["score"] += float(np.exp(log_score))
        return p_null, found

    def _texts(self, given: Any) -> list[str]:
        if not isinstance(given, dict) or set(given) != {"question", "context"}:
            raise TypeError(
                f"{self.task}: expected {{'question': ..., 'context': ...}}, got {given!r:.60}; "
                "or call it with question= and context="
            )
        return self.check_texts([given["question"], given["context"]])


def _features(
    pairs: list[list[str]], cutter: Cutter, doc_stride: int | None, max_question_len: int
) -> Features:
    """For each question and context its windows."""
    rows = []
    special = len(cutter.template.pair) - 2
    for i, (question, context) in enumerate(pairs):
        asked = cutter.read(question)[0][:max_question_len]
        stride = doc_stride
        if stride is None:
            room = cutter.max_len - special - len(asked)
            stride = max(0, min(cutter.max_len // 2, 128, room - 1))
        first = asked, [OUTSIDE] * len(asked)
        second = cutter.read(context)
        rows += cut_rows(cutter, i, first, second, truncation="only_second", stride=stride)
    return Features((), rows, (), cutter.pad_id)


def _best(
    windows: list[tuple[float, dict[str, Answer]]], top_k: int, may_be_none: bool
) -> Answer | list[Answer]:
    """The best answers of all windows, each with the best of its scores; one of them alone."""
    found: dict[str, Answer] = {}
    for _, own in windows:
        for key, answer in own.items():
            if key not in found or answer["score"] > found[key]["score"]:
                found[key] = answer
    ranked = [*found.values()]
    if may_be_none:
        ranked.append({**NO_ANSWER, "score": min(null for null, _ in windows)})
    ranked = sorted(ranked, key=lambda answer: -answer["score"])[:top_k] or [dict(NO_ANSWER)]
    return ranked[0] if len(ranked) == 1 else ranked


def _word_numbers(tokenizer: Tokenizer, text: str, ids: Array, places: Array) -> Array:
    """The number of the word that each token is part of: words as the tokenizer cuts a text.

    Shapes: (), (), (T)i, (T, 2)i -> (T)i
    """
    if isinstance(tokenizer, WordPieceTokenizer):
        begins = [not tokenizer.tokens[i].startswith(tokenizer.prefix) for i in ids]
        return np.cumsum(begins)
    if isinstance(tokenizer, BPETokenizer) and tokenizer.normalizer is None:
        chunks = tokenizer.chunks(text)
        starts = np.cumsum([0, *map(len, chunks)])
    else:
        starts = np.array([match.start() for match in re.finditer(r"\S+", text)], int)
    return np.searchsorted(starts, places[:, 1] - 1, "right")
