"""Which class a text, or a pair of texts, belongs to."""

from typing import Any

import numpy as np

from minilm.models.bert_heads import BertForSequenceClassification
from minilm.pipelines.base import Pipeline
from minilm.pipelines.windows import by_text, cut_rows, new_cutter, softmax
from minilm.tasks.features import Features
from minilm.tasks.predictions import predict
from minilm.tensor import Array

BEST = "best"
FUNCTIONS = ("softmax", "sigmoid", "none")


class TextClassification(Pipeline):
    """text-classification: {"label", "score"}, the score a probability.

    A text, or a pair {"text", "text_pair"}. The answer is the best class; with `top_k` a list of
    that many, the best first (None: of all). A single text is answered by a list of one answer,
    unless the call says `top_k`, as in transformers. `function_to_apply` makes scores of logits:
    "softmax", "sigmoid" (unless given, of a model with one label) or "none" (of a regression).

    The logits of a long text are the mean of its windows', which share `stride` tokens, a quarter
    of the model's max_len unless given; of a pair, the longer text is cut. An empty text is one
    without tokens of its own.
    """

    head = "sequence_classification"
    kinds = (BertForSequenceClassification,)

    def __call__(self, inputs: Any, *, batch_size: int | None = None, **arguments: Any) -> Any:
        answer = super().__call__(inputs, batch_size=batch_size, **arguments)
        return [answer] if isinstance(inputs, str) and "top_k" not in arguments else answer

    def answers(
        self,
        inputs: list[Any],
        batch_size: int,
        *,
        top_k: int | str | None = BEST,
        function_to_apply: str | None = None,
        stride: int | None = None,
    ) -> list[Any]:
        apply = self._function(function_to_apply)
        features = self._read(inputs, stride)
        windows = by_text(features, predict(self.model, features, batch_size))
        return [self._answer(np.mean(parts, 0), apply, top_k) for parts in windows]

    def _read(self, inputs: list[Any], stride: int | None) -> Features:
        cutter = new_cutter(self.model, self.tokenizer)
        stride = cutter.max_len // 4 if stride is None else stride
        rows = []
        for i, given in enumerate(inputs):
            is_pair = isinstance(given, dict) and set(given) <= {"text", "text_pair"}
            texts = self.check_texts(list(given.values()) if is_pair else [given])
            first, *second = [cutter.read(text) for text in texts]
            second_is_longer = bool(second) and len(second[0][0]) >= len(first[0])
            truncation = "only_second" if second_is_longer else "only_first"
            rows += cut_rows(cutter, i, first, *second, stride=stride, truncation=truncation)
        return Features((), rows, (), cutter.pad_id)

    def _function(self, asked: str | None) -> str:
        """As asked for, or as transformers takes it to be."""
        said = self.model.hf_config.get("problem_type")
        regression = said == "regression" or not self.model.hf_config
        alone = "none" if regression else "sigmoid"
        found = asked or (alone if self.model.config.n_labels == 1 else "softmax")
        if found not in FUNCTIONS:
            raise ValueError(
                f"{self.task}: expected function_to_apply of {', '.join(FUNCTIONS)}, got "
                f"{found!r}; leave it out"
            )
        return found

    def _answer(self, logits: Array, function: str, top_k: Any) -> Any:
        scores = logits
        if function == "softmax":
            scores = softmax(logits)
        elif function == "sigmoid":
            scores = 1 / (1 + np.exp(-logits))
        order = np.argsort(-scores, kind="stable").tolist()
        names = self.model.id2label
        classes = [{"label": names.get(i, f"LABEL_{i}"), "score": float(scores[i])} for i in order]
        return classes[0] if top_k == BEST else classes[:top_k]
