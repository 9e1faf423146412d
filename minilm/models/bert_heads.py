"""What BERT is trained for, and put to use for: the heads on top of the encoder.

Source: Devlin et al. 2018, arXiv 1810.04805, sections 3.1 and 4; see `bert` for the encoder.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from minilm import functional as F
from minilm.models.base import Model
from minilm.models.bert import Bert, BertConfig, EncoderOutput, Rng
from minilm.nn import Dropout, LayerNorm, Linear, Module
from minilm.nn.module import parameter
from minilm.tensor import Array, Tensor


@dataclass
class BertOutput:
    """What a model with a head gives. `losses` are the terms whose sum is the loss."""

    loss: Tensor | None = None
    logits: Tensor | None = None
    prediction_logits: Tensor | None = None
    seq_relationship_logits: Tensor | None = None
    start_logits: Tensor | None = None
    end_logits: Tensor | None = None
    losses: tuple[Tensor, ...] = field(default=(), repr=False)
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Array, ...] | None = None


class BertHead(Model):
    """Base of the models with a head: an encoder, and what a subclass puts on top.

    The subclass names its rows' labels in `label_names`; a batch without them gives no loss.

    Raises: ValueError — a head that reads the pooler's output, in a configuration without one.
    """

    label_names: tuple[str, ...] = ("labels",)
    reads_pooler = False

    def __init__(self, config: BertConfig, rng: np.random.Generator) -> None:
        if self.reads_pooler and config.pooler is None:
            raise ValueError(
                f"{type(self).__name__}: expected a configuration with a pooler, which this head "
                'reads, got pooler=None; take pooler="tanh", or a head that reads every token'
            )
        self.config, self.rng = config, rng
        self.bert = Bert(config, rng)
        head_dropout = config.dropout if config.head_dropout is None else config.head_dropout
        self.dropout = Dropout(head_dropout)

    def encode(
        self, input_ids: Array, rng: Rng, wanted: Array | None = None, **inputs: Any
    ) -> EncoderOutput:
        """The encoder's output, for tokens, mask and types as `Bert` takes them."""
        rng = self.rng if rng is None else rng
        return self.bert(input_ids, rng=rng, wanted=wanted, **inputs)

    def encode_pooled(self, input_ids: Array, rng: Rng, **inputs: Any) -> tuple[Any, Tensor]:
        """The encoder's output at the first position, and this pooled (B, C)."""
        first = np.zeros((*np.shape(input_ids)[:1], 1), np.int64)
        encoded = self.encode(input_ids, rng, first, **inputs)
        assert encoded.pooler_output is not None
        return encoded, encoded.pooler_output

    def drop(self, x: Tensor, rng: Rng) -> Tensor:
        """Dropout before a classifier."""
        return self.dropout(x, self.rng if rng is None else rng)

    def count_targets(self, batch: dict[str, Array]) -> Any:
        """Over how many targets each term of the loss is a mean."""
        counts = [
            np.count_nonzero(np.asarray(batch[name]) != F.IGNORE_INDEX) for name in self.label_names
        ]
        return counts[0] if len(counts) == 1 else counts


class BertClassifier(BertHead):
    """Base of the heads that choose one of n_labels classes for a text, or for each token.

    With `class_weights` w (n_labels) the loss is L = Σᵢ w[yᵢ] Lᵢ / Σᵢ w[yᵢ], in evaluation as
    well; see `finetuning.class_weights`. They are an attribute to set, and not saved.

    Raises: ValueError — where a loss is asked for: weights of another shape, negative, infinite,
        or for a regression.
    """

    class_weights: Array | None = None

    def __init__(self, config: BertConfig, rng: np.random.Generator) -> None:
        super().__init__(config, rng)
        self.classifier = Linear(config.d_model, config.n_labels, rng=rng, std=config.init_std)

    def classification_loss(self, logits: Tensor, labels: Array) -> Tensor:
        """The cross-entropy, as a mean over the labels that are not -100, weighted or not."""
        labels = np.asarray(labels)
        if self.class_weights is None:
            return F.cross_entropy(logits, labels)
        weights = self.target_weights(labels)
        shares = weights / (weights.sum() or 1.0)
        losses = F.cross_entropy(logits, labels, reduction="none")
        return (losses * Tensor(shares.astype(logits.dtype))).sum()

    def target_weights(self, labels: Array) -> Array:
        """w[y] of every label y, 0 where it is -100."""
        weights, n_labels = np.asarray(self.class_weights), self.config.n_labels
        fit = n_labels > 1 and weights.shape == (n_labels,)
        if not (fit and np.all((weights >= 0) & np.isfinite(weights))):
            raise ValueError(
                f"class_weights: expected a finite number >= 0 for each of n_labels = {n_labels} "
                f"classes, two or more, got {self.class_weights}; None weighs all alike"
            )
        # subtle: "clip" lets a label that is no class pass here; cross_entropy names it
        return np.take(weights, labels, mode="clip") * (np.asarray(labels) != F.IGNORE_INDEX)

    def count_targets(self, batch: dict[str, Array]) -> Any:
        """The number of labels, or the sum of their weights: by it the loss is divided."""
        if self.class_weights is None:
            return super().count_targets(batch)
        return self.target_weights(batch["labels"]).sum()


class MaskedHead(Module):
    """logits = W_e norm(GELU(W x + b)) + b_v, the embedding W_e tied to the input's, or its own.

    Shapes: (B, T, C), (V, C) -> (B, T, V)
    Source: Devlin et al. 2018, section 3.1 and the released code.
    """

    def __init__(self, config: BertConfig, rng: np.random.Generator) -> None:
        self.dense = Linear(config.d_model, config.d_model, rng=rng, std=config.init_std)
        self.norm = LayerNorm(config.d_model, config.layer_norm_eps)
        self.bias = parameter(np.zeros(config.vocab_size, np.float32))
        self.decoder = (
            None
            if config.tie_embeddings
            else Linear(config.d_model, config.vocab_size, False, rng=rng, std=config.init_std)
        )

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        weight = embedding if self.decoder is None else self.decoder.weight
        return F.linear(self.norm(F.gelu(self.dense(x))), weight, self.bias)


def labelled_positions(labels: Array, shape: tuple[int, ...]) -> tuple[Array, Array]:
    """Where a head reads that needs the labelled positions, and the first; the labels there.

    K is the largest number of them in a row: rows with fewer are filled up with others, which bear
    no label.

    Shapes: (B, T) -> (B, K), (B, K)
    Raises: ValueError — labels of another shape than `shape`, that of the tokens.
    """
    labels = _shaped(labels, shape)
    wanted = labels != F.IGNORE_INDEX
    wanted[:, 0] = True
    first_wanted = np.argsort(~wanted, axis=1, kind="stable")
    positions = first_wanted[:, : wanted.sum(1).max(initial=1)]
    return positions, np.take_along_axis(labels, positions, axis=1)


def _shaped(labels: Array, shape: tuple[int, ...]) -> Array:
    labels = np.asarray(labels)
    if labels.shape != shape:
        raise ValueError(
            f"labels: expected shape {shape} for these input_ids, got {labels.shape}; give one to "
            "each row, or, where tokens are labelled, to each token"
        )
    return labels


class MaskedPredictor(BertHead):
    """Base of the heads that tell which word was masked."""

    def __init__(self, config: BertConfig, rng: np.random.Generator) -> None:
        super().__init__(config, rng)
        self.masked = MaskedHead(config, rng)

    def predict(
        self, input_ids: Array, labels: Array | None, rng: Rng, **inputs: Any
    ) -> tuple[EncoderOutput, Tensor, Tensor | None]:
        """What was encoded, with the first position in it, the logits, and with labels the loss.

        Without labels every position is projected. With them the labelled ones alone are, and the
        last block leaves out the others too: no loss depends on those.
        """
        weight = self.bert.token_embedding.weight
        if labels is None:
            encoded = self.encode(input_ids, rng, **inputs)
            return encoded, self.masked(encoded.last_hidden_state, weight), None
        self.bert.check(np.asarray(input_ids))
        wanted, labels = labelled_positions(labels, np.shape(input_ids))
        encoded = self.encode(input_ids, rng, wanted, **inputs)
        kept = labels != F.IGNORE_INDEX
        logits = self.masked(encoded.last_hidden_state[kept], weight)
        return encoded, logits, F.cross_entropy(logits, labels[kept])


class BertForPreTraining(MaskedPredictor):
    """The masked-word and the next-sentence objective: L = L_MLM + L_NSP.

    `labels` (B, T) are -100 but at masked positions; `next_sentence_label` (B): 0 = the second
    text follows the first, 1 = it does not. With labels, only labelled positions are projected:
    `prediction_logits` is then (N, V) for the N of them, in reading order, else (B, T, V).

    Source: Devlin et al. 2018, section 3.1 and appendix A.2.
    """

    label_names = ("labels", "next_sentence_label")
    reads_pooler = True

    def __init__(self, config: BertConfig, rng: np.random.Generator) -> None:
        super().__init__(config, rng)
        self.next_sentence = Linear(config.d_model, 2, rng=rng, std=config.init_std)

    def forward(
        self,
        input_ids: Array,
        labels: Array | None = None,
        next_sentence_label: Array | None = None,
        rng: Rng = None,
        **inputs: Any,
    ) -> BertOutput:
        """Shapes: (B, T), labels (B, T), next_sentence_label (B) -> logits (N, V), (B, 2)"""
        encoded, predictions, loss = self.predict(input_ids, labels, rng, **inputs)
        assert encoded.pooler_output is not None
        relationship = self.next_sentence(encoded.pooler_output)
        losses = [] if loss is None else [loss]
        if next_sentence_label is not None:
            losses.append(F.cross_entropy(relationship, np.asarray(next_sentence_label)))
        return BertOutput(
            _total(losses),
            prediction_logits=predictions,
            seq_relationship_logits=relationship,
            losses=tuple(losses),
            **_traces(encoded),
        )


class BertForMaskedLM(MaskedPredictor):
    """L = -Σ_{i masked} ln P(wᵢ | the rest) / (their number); logits as `BertForPreTraining`'s.

    Source: Devlin et al. 2018, section 3.1, task 1.
    """

    def forward(
        self, input_ids: Array, labels: Array | None = None, rng: Rng = None, **inputs: Any
    ) -> BertOutput:
        """Shapes: (B, T), labels (B, T) -> logits (N, V), without labels (B, T, V)"""
        encoded, logits, loss = self.predict(input_ids, labels, rng, **inputs)
        return BertOutput(loss, logits, **_traces(encoded))


class BertForNextSentencePrediction(BertHead):
    """Whether the second text follows the first: 0 = it does, 1 = it does not.

    Source: Devlin et al. 2018, section 3.1, task 2.
    """

    reads_pooler = True

    def __init__(self, config: BertConfig, rng: np.random.Generator) -> None:
        super().__init__(config, rng)
        self.next_sentence = Linear(config.d_model, 2, rng=rng, std=config.init_std)

    def forward(
        self, input_ids: Array, labels: Array | None = None, rng: Rng = None, **inputs: Any
    ) -> BertOutput:
        """Shapes: (B, T), labels (B) -> logits (B, 2)"""
        encoded, pooled = self.encode_pooled(input_ids, rng, **inputs)
        logits = self.next_sentence(pooled)
        loss = None if labels is None else F.cross_entropy(logits, np.asarray(labels))
        return BertOutput(loss, logits, **_traces(encoded))


class BertForSequenceClassification(BertClassifier):
    """One label for a text or a pair: logits = W dropout(pooled) + b.

    With n_labels = 1 it is a regression: labels are numbers, the loss is the mean squared error.

    Source: Devlin et al. 2018, section 4.1.
    """

    reads_pooler = True

    def forward(
        self, input_ids: Array, labels: Array | None = None, rng: Rng = None, **inputs: Any
    ) -> BertOutput:
        """Shapes: (B, T), labels (B) -> logits (B, n_labels)"""
        encoded, pooled = self.encode_pooled(input_ids, rng, **inputs)
        logits = self.classifier(self.drop(pooled, rng))
        loss = None
        regression = self.config.n_labels == 1 and self.class_weights is None
        if labels is not None and regression:
            error = logits[:, 0] - Tensor(_shaped(labels, logits.shape[:1]).astype(logits.dtype))
            loss = (error * error).mean()
        elif labels is not None:
            loss = self.classification_loss(logits, labels)
        return BertOutput(loss, logits, **_traces(encoded))

    def count_targets(self, batch: dict[str, Array]) -> Any:
        if self.config.n_labels == 1:
            return len(batch["labels"])
        return super().count_targets(batch)


class BertForTokenClassification(BertClassifier):
    """A label for each token: logits = W dropout(x) + b, -100 where there is none.

    Source: Devlin et al. 2018, section 5.3.
    """

    def forward(
        self, input_ids: Array, labels: Array | None = None, rng: Rng = None, **inputs: Any
    ) -> BertOutput:
        """Shapes: (B, T), labels (B, T) -> logits (B, T, n_labels)"""
        encoded = self.encode(input_ids, rng, **inputs)
        logits = self.classifier(self.drop(encoded.last_hidden_state, rng))
        loss = None if labels is None else self.classification_loss(logits, labels)
        return BertOutput(loss, logits, **_traces(encoded))


class BertForQuestionAnswering(BertHead):
    """Where the answer starts and ends: a score for each, at every position.

    L = (L_start + L_end) / 2. A window without the answer has both at 0, the [CLS] token. The
    softmax is over all positions, padding too: how much there is changes the loss, but no score.

    Source: Devlin et al. 2018, section 4.2 and 4.3.
    """

    label_names = ("start_positions", "end_positions")

    def __init__(self, config: BertConfig, rng: np.random.Generator) -> None:
        super().__init__(config, rng)
        self.classifier = Linear(config.d_model, 2, rng=rng, std=config.init_std)

    def forward(
        self,
        input_ids: Array,
        start_positions: Array | None = None,
        end_positions: Array | None = None,
        rng: Rng = None,
        **inputs: Any,
    ) -> BertOutput:
        """Shapes: (B, T), positions (B), (B) -> logits (B, T), (B, T)

        Raises: ValueError — starts without ends, or ends without starts.
        """
        if (start_positions is None) != (end_positions is None):
            raise ValueError(
                "BertForQuestionAnswering: expected start_positions and end_positions, got one of "
                "them; give both to train, neither to predict"
            )
        encoded = self.encode(input_ids, rng, **inputs)
        logits = self.classifier(encoded.last_hidden_state)
        start, end = logits[:, :, 0], logits[:, :, 1]
        losses = []
        if start_positions is not None and end_positions is not None:
            losses = [
                F.cross_entropy(scores, np.asarray(positions)) * 0.5
                for scores, positions in ((start, start_positions), (end, end_positions))
            ]
        return BertOutput(
            _total(losses),
            start_logits=start,
            end_logits=end,
            losses=tuple(losses),
            **_traces(encoded),
        )


class BertForMultipleChoice(BertHead):
    """Which of n endings: each is scored by itself, and a softmax chooses among them.

    Source: Devlin et al. 2018, section 4.4.
    """

    reads_pooler = True

    def __init__(self, config: BertConfig, rng: np.random.Generator) -> None:
        super().__init__(config, rng)
        self.classifier = Linear(config.d_model, 1, rng=rng, std=config.init_std)

    def forward(
        self, input_ids: Array, labels: Array | None = None, rng: Rng = None, **inputs: Any
    ) -> BertOutput:
        """Shapes: (B, n, T), labels (B) -> logits (B, n)

        Raises: ValueError — input_ids is not (B, n, T).
        """
        if np.ndim(input_ids) != 3:
            raise ValueError(
                "BertForMultipleChoice: expected input_ids (B, n, T), a row for each of n choices, "
                f"got shape {np.shape(input_ids)}; put an example's rows into one axis"
            )
        n_rows, n_choices = np.shape(input_ids)[:2]

        def flat(array: Any) -> Any:
            is_input = isinstance(array, np.ndarray) and array.ndim == 3
            return array.reshape(-1, array.shape[-1]) if is_input else array

        inputs = {name: flat(array) for name, array in inputs.items()}
        encoded, pooled = self.encode_pooled(flat(np.asarray(input_ids)), rng, **inputs)
        logits = self.classifier(self.drop(pooled, rng))
        logits = logits.reshape(n_rows, n_choices)
        loss = None if labels is None else F.cross_entropy(logits, np.asarray(labels))
        return BertOutput(loss, logits, **_traces(encoded))


def _total(losses: list[Tensor]) -> Tensor | None:
    """The sum of the terms; None of none."""
    if not losses:
        return None
    return sum(losses[1:], losses[0])


def _traces(encoded: EncoderOutput) -> dict[str, Any]:
    return {"hidden_states": encoded.hidden_states, "attentions": encoded.attentions}
