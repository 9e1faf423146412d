"""What may stand where a text has its mask."""

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np

from minilm.models.bert_heads import BertForMaskedLM, BertForPreTraining
from minilm.pipelines.base import Pipeline
from minilm.pipelines.windows import Windows, last_hidden, new_cutter, softmax
from minilm.tasks.predictions import predict
from minilm.tensor import Array, Tensor, no_grad

logger = logging.getLogger("minilm.pipelines")


class FillMask(Pipeline):
    """fill-mask: {"score", "token", "token_str", "sequence"}, the most probable token first.

    The text has the tokenizer's mask_token in it, or several: then there is a list for each. The
    `top_k` best tokens are told, of all or of `targets`, words that are tokens (of one that is not,
    its first token is taken, and a warning logged). In a long text each mask is filled from the
    window that shows most of what is around it; windows share `stride` tokens.

    Differs: transformers answers a list of one text as that text alone, here it is a list of one.
    Raises: ValueError — a text without a mask, as an empty one is; a tokenizer without mask_token.
    """

    head = "masked_lm"
    kinds = (BertForMaskedLM, BertForPreTraining)

    def prepare(self, arguments: dict[str, Any]) -> dict[str, Any]:
        if self.tokenizer.mask_token_id is None:
            raise ValueError(
                f"{self.task}: expected a tokenizer with a mask_token, got one without; take the "
                "tokenizer that the model was trained with"
            )
        targets = arguments.get("targets")
        return {**arguments, "targets": None if targets is None else self._target_ids(targets)}

    def answers(
        self,
        inputs: list[Any],
        batch_size: int,
        *,
        top_k: int = 5,
        targets: Array | None = None,
        stride: int | None = None,
    ) -> list[Any]:
        cutter = new_cutter(self.model, self.tokenizer)
        texts = self.check_texts(inputs)
        windows = Windows(cutter, [cutter.read(text) for text in texts], stride)
        places = [np.flatnonzero(ids == self.tokenizer.mask_token_id) for ids in windows.input_ids]
        for text, found in zip(texts, places, strict=True):
            if not found.size:
                raise ValueError(
                    f"{self.task}: expected {self.tokenizer.mask_token} in the text, got "
                    f"{text!r:.60}; put it where a word is to be found"
                )
        hidden = predict(self.model.bert, windows.features, batch_size, read=last_hidden)
        return [
            self._answer(ids, found, states[found], top_k, targets)
            for ids, found, states in zip(
                windows.input_ids, places, windows.join(hidden), strict=True
            )
        ]

    @no_grad()
    def _answer(
        self, ids: Array, masks: Array, states: Array, top_k: int, among: Array | None
    ) -> Any:
        """For each mask, whose last hidden state is given, its tokens; of one mask they alone."""
        embedding = self.model.bert.token_embedding.weight
        scores = softmax(self.model.masked(Tensor(states), embedding).data)  # (masks, V)
        among = np.arange(scores.shape[1]) if among is None else among
        answers = []
        for mask, row in zip(masks, scores[:, among], strict=True):
            best = np.argsort(-row, kind="stable")[:top_k]
            answers.append(
                [self._token(ids, mask, int(among[i]), float(row[i]), len(masks)) for i in best]
            )
        return answers[0] if len(masks) == 1 else answers

    def _token(self, ids: Array, mask: int, token: int, score: float, masks: int) -> dict[str, Any]:
        filled = ids.copy()
        filled[mask] = token
        kept = filled[filled != self.tokenizer.pad_token_id]
        return {
            "score": score,
            "token": token,
            "token_str": self.tokenizer.decode([token]),
            # Other masks are special tokens too, and would be skipped with them.
            "sequence": self.tokenizer.decode(kept, skip_special_tokens=masks == 1),
        }

    def _target_ids(self, targets: str | Sequence[str]) -> Array:
        """Their ids, each once."""
        found = []
        for target in [targets] if isinstance(targets, str) else targets:
            if target in self.tokenizer.ids:
                found.append(self.tokenizer.ids[target])
                continue
            ids = self.tokenizer.encode(target, allowed_special="all")
            instead = repr(self.tokenizer.tokens[ids[0]]) if ids else "nothing"
            logger.warning("fill-mask: %r is not a token; %s is taken", target, instead)
            found += ids[:1]
        if not found:
            raise ValueError(
                f"{self.task}: expected targets that have tokens, got {targets!r:.60}; leave them "
                "out to choose among all tokens"
            )
        return np.array(list(dict.fromkeys(found)))
