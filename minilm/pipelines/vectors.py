"""Vectors of tokens and of texts, and how alike texts are."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from minilm.models.bert import Bert, EncoderOutput
from minilm.models.bert_heads import BertHead
from minilm.models.causal import CausalLM
from minilm.models.seq2seq import Seq2SeqLM
from minilm.nn import Module
from minilm.pipelines.base import Pipeline
from minilm.pipelines.windows import Windows, by_text, last_hidden, new_cutter
from minilm.pretrained.sentences import SentenceEncoder, pool
from minilm.tasks.predictions import predict
from minilm.tensor import Array


class _Body(Module):
    """A model's last hidden states, of whatever family it is."""

    def __init__(self, model: Any) -> None:
        self.model = model.bert if isinstance(model, BertHead) else model

    def forward(self, input_ids: Array, attention_mask: Array, **types: Array) -> Any:
        if isinstance(self.model, CausalLM):
            # Padding stands behind the tokens, which do not see it.
            return EncoderOutput(self.model.hidden(input_ids, None, None, None), None)
        if isinstance(self.model, Seq2SeqLM):
            return self.model.encode(input_ids, attention_mask)
        return self.model(input_ids, attention_mask=attention_mask, **types)


class FeatureExtraction(Pipeline):
    """feature-extraction: the last hidden states as nested lists (1, T, C), T the text's tokens.

    With `return_tensors` they are an array. The tokens are those of tokenizer(text), special ones
    included, of which an empty text has no others. In a long text each token's vector is from the
    window that shows most of what is around it; windows share `stride` tokens, a quarter of the
    model's max_len unless given. Of an encoder-decoder it is the encoder that reads.

    Raises: ValueError — a text without tokens, where the tokenizer adds none.
    """

    kinds = (Bert, BertHead, CausalLM, Seq2SeqLM)

    def answers(
        self,
        inputs: list[Any],
        batch_size: int,
        *,
        return_tensors: bool = False,
        stride: int | None = None,
    ) -> list[Any]:
        cutter = new_cutter(self.model, self.tokenizer)
        windows = Windows(cutter, [cutter.read(text) for text in self.check_texts(inputs)], stride)
        hidden = predict(_Body(self.model), windows.features, batch_size, read=last_hidden)
        arrays = [states[None] for states in windows.join(hidden)]
        return arrays if return_tensors else [array.tolist() for array in arrays]


class SentenceSimilarity(Pipeline):
    """sentence-similarity: the cosine of a text's vector and that of each of `sentences`.

    An input is the text, or {"source_sentence", "sentences"}. Vectors are those of a directory of
    sentence-transformers, or the mean of another encoder's last hidden states. Of a text longer
    than the encoder's max_length the vector is the mean of its windows', weighted by their lengths.
    """

    kinds = (SentenceEncoder,)

    def answers(
        self, inputs: list[Any], batch_size: int, *, sentences: Sequence[str] | None = None
    ) -> list[Any]:
        pairs = [self._texts(given, sentences) for given in inputs]
        texts = list(dict.fromkeys(text for source, others in pairs for text in [source, *others]))
        vectors = dict(zip(texts, self._vectors(self.check_texts(texts), batch_size), strict=True))
        return [
            [float(vectors[source] @ vectors[other]) for other in others]
            for source, others in pairs
        ]

    def _texts(self, given: Any, sentences: Sequence[str] | None) -> tuple[str, list[str]]:
        if isinstance(given, dict) and set(given) == {"source_sentence", "sentences"}:
            given, sentences = given["source_sentence"], given["sentences"]
        if not isinstance(given, str) or sentences is None or isinstance(sentences, str):
            raise TypeError(
                f"{self.task}: expected a text and a list sentences=[...], got {given!r:.60} and "
                f"{sentences!r:.60}; or give {{'source_sentence': ..., 'sentences': [...]}}"
            )
        return given, list(sentences)

    def _vectors(self, texts: list[str], batch_size: int) -> list[Array]:
        """Of length 1."""
        encoder = self.model
        cutter = new_cutter(encoder.model, encoder.tokenizer, encoder.max_length)
        tokens = [cutter.read(text.lower() if encoder.lower_case else text) for text in texts]
        features = Windows(cutter, tokens, stride=0).features
        hidden = predict(_Body(encoder.model), features, batch_size, read=last_hidden)
        vectors = []
        for parts in by_text(features, hidden):
            every = [
                pool(part[None], np.ones((1, len(part))), encoder.pooling)[0] for part in parts
            ]
            vector = np.average(every, 0, [len(part) for part in parts])
            vectors.append(vector / max(np.linalg.norm(vector), 1e-12))
        return vectors
