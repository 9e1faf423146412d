"""What every encoder-decoder shares: its calls, the shift of its labels, its loss, its caches."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from minilm import functional as F
from minilm.models.base import Model, key_mask
from minilm.nn import KeyValueCache, KeyValues, MultiHeadAttention
from minilm.tensor import Array, Tensor, no_grad

Rng = np.random.Generator | None
States = tuple[Tensor, ...] | None  # the embeddings, then the output of each layer
Weights = tuple[Array, ...] | None  # of each layer (B, H, T, S), without dropout


@dataclass
class Seq2SeqOutput:
    """What an encoder-decoder gives; the last five only where they were asked for.

    `loss` is in nats per target token. The encoder's part is None where caches stood for it.
    """

    logits: Tensor  # (B, T, V)
    loss: Tensor | None = None
    past_key_values: "DecoderCaches | None" = None
    encoder_last_hidden_state: Tensor | None = None  # (B, S, C)
    encoder_hidden_states: States = None
    encoder_attentions: Weights = None
    decoder_hidden_states: States = None
    decoder_attentions: Weights = None
    cross_attentions: Weights = None


@dataclass
class EncodedSource:
    """What the encoder gives, and which of its positions are tokens (None: all)."""

    last_hidden_state: Tensor  # (B, S, C)
    attention_mask: Array | None = None  # (B, S)
    hidden_states: States = None
    attentions: Weights = None


@dataclass
class DecoderCaches:
    """What decoding keeps from token to token, from `Seq2SeqLM.new_caches`; a list item a layer.

    `layers` grow by each new position. `sources` never change: the source's keys and values for
    cross-attention. They may have fewer rows than the layers: then each serves as many rows, one
    after the other, as beams of one source stand.
    """

    layers: list[KeyValueCache]
    sources: list[KeyValues]
    source_mask: Array | None  # (B, 1, 1, S), True = may attend; None: to all
    bias: Tensor | None = None  # (H, 1, max_len), of the last query of the longest text: T5's

    @property
    def length(self) -> int:
        """How many positions of the target are kept."""
        return self.layers[0].length


class Record:
    """What a stack of layers was asked to show: a list to fill, or None where it was not."""

    def __init__(self, hidden_states: bool, attentions: bool) -> None:
        self.hidden_states: list[Tensor] | None = [] if hidden_states else None
        self.attentions: list[Array] | None = [] if attentions else None
        self.cross_attentions: list[Array] | None = [] if attentions else None

    def state(self, x: Tensor) -> None:
        """Note the embeddings, or a layer's output."""
        if self.hidden_states is not None:
            self.hidden_states.append(x)

    def attention(self, layer: MultiHeadAttention, *inputs: Any) -> None:
        """Note with which weights a layer attends to its own stack's positions."""
        if self.attentions is not None:
            self.attentions.append(layer.weights(*inputs))

    def cross_attention(self, layer: MultiHeadAttention, *inputs: Any) -> None:
        """Note with which weights a decoder's layer attends to the source."""
        if self.cross_attentions is not None:
            self.cross_attentions.append(layer.weights(*inputs))

    def noted(self, name: str) -> Any:
        """What was noted under an attribute's name, as a tuple; None if it was not asked for."""
        items = getattr(self, name)
        return None if items is None else tuple(items)


class Seq2SeqLM(Model):
    """P(y | x) = Πₜ P(yₜ | y₁ … yₜ₋₁, x): base of the models that read a text and write another.

    A subclass has `config` (with max_len, label_smoothing, decoder_start_token_id, pad_token_id);
    `encoder` and `decoder`, stacks whose layers are called `blocks`, a decoder's with `attention`
    and `cross_attention`; `embed` and `project`. This class turns them into logits, loss and
    cached decoding. `rng` is where dropout draws from unless a call brings its own.
    """

    config: Any
    rng: Rng
    encoder: Any  # (x (B, S, C), mask, rng, record) -> (B, S, C)
    decoder: Any  # (x (B, T, C), sources, mask, source_mask, caches, rng, record) -> (B, T, C)

    def embed(self, ids: Array, start: int, rng: Rng) -> Tensor:
        """What a stack reads for tokens (B, T) whose first position is `start`: (B, T, C)."""
        raise NotImplementedError(f"{type(self).__name__} needs an embed method")

    def project(self, hidden: Tensor) -> Tensor:
        """(B, T, C) -> logits (B, T, V)."""
        raise NotImplementedError(f"{type(self).__name__} needs a project method")

    def encode(
        self,
        input_ids: Array,
        attention_mask: Array | None = None,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
        rng: Rng = None,
    ) -> EncodedSource:
        """Read the source once. `attention_mask` (B, S): 1 = a token, 0 = padding.

        Raises: ValueError — input_ids is not (B, S) or longer than max_len, a mask of another
            shape.
        """
        ids = self._ids("input_ids", input_ids, 0)
        mask = self._mask("attention_mask", attention_mask, ids.shape)
        rng = self.rng if rng is None else rng
        record = Record(output_hidden_states, output_attentions)
        x = self.encoder(self.embed(ids, 0, rng), mask, rng, record)
        shown = record.noted("hidden_states"), record.noted("attentions")
        return EncodedSource(x, attention_mask, *shown)

    @no_grad()
    def new_caches(
        self, batch: int, encoder_outputs: EncodedSource, max_len: int | None = None
    ) -> DecoderCaches:
        """Empty caches for `batch` targets of up to max_len tokens (None: the configuration's).

        The keys and values of the source are worked out here, once. `batch` may be a multiple of
        the sources' number: rows i n, i n + 1 ... (i+1) n - 1 are then n targets of source i.

        Raises: ValueError — `batch` is no multiple.
        """
        hidden = encoder_outputs.last_hidden_state
        rows, length = hidden.shape[:2]
        if not rows or batch % rows:
            raise ValueError(
                f"new_caches: expected batch to be a multiple of the {rows} sources, got {batch}; "
                "every source needs as many targets as the others"
            )
        mask = self._mask("attention_mask", encoder_outputs.attention_mask, (rows, length))
        max_len = self.config.max_len if max_len is None else max_len
        layers, sources = [], []
        for block in self.decoder.blocks:
            layers.append(block.attention.new_cache(batch, max_len))
            read_often = map(_in_order, block.cross_attention.keys_values(hidden))
            sources.append(KeyValues(*read_often))
        return DecoderCaches(layers, sources, mask)

    def forward(
        self,
        input_ids: Array | None = None,
        attention_mask: Array | None = None,
        decoder_input_ids: Array | None = None,
        decoder_attention_mask: Array | None = None,
        labels: Array | None = None,
        encoder_outputs: EncodedSource | None = None,
        caches: DecoderCaches | None = None,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
        logits_to_keep: int | None = None,
        rng: Rng = None,
    ) -> Seq2SeqOutput:
        """Logits for every position of the target and, with labels, the mean loss.

        The source comes as `input_ids` (B, S) and `attention_mask` (B, S), or, read before, as
        `encoder_outputs` (from `encode`), or as `caches` (from `new_caches`), which also hold the
        target before decoder_input_ids. The target comes as `decoder_input_ids` (B, T), the start
        token first, or as `labels` (B, T), from which `shift_right` makes them.
        `decoder_attention_mask` (B, past + T): 1 = a token; padding at a target's end needs none.
        `logits_to_keep` projects only that many last positions (None: all).

        In training the loss is smoothed by config.label_smoothing; in evaluation, as without
        dropout, it is the plain one.

        Shapes: (B, S), (B, T) -> logits (B, T, V)
        Raises: ValueError — no source or several, no target, arrays whose shapes do not belong
            together, more than max_len positions, attentions asked for with caches.
        """
        rng = self.rng if rng is None else rng
        self._one_source(input_ids, attention_mask, encoder_outputs, caches, output_attentions)
        if input_ids is not None:
            encoder_outputs = self.encode(
                input_ids, attention_mask, output_hidden_states, output_attentions, rng
            )
        if decoder_input_ids is None:
            if labels is None:
                raise ValueError(
                    f"{type(self).__name__}: expected decoder_input_ids or labels, got neither; "
                    "the start token alone asks for the first token of the target"
                )
            c = self.config
            decoder_input_ids = shift_right(labels, c.decoder_start_token_id, c.pad_token_id)
        past = 0 if caches is None else caches.length
        ids = self._ids("decoder_input_ids", decoder_input_ids, past)
        shape = (len(ids), past + ids.shape[1])
        mask = self._mask("decoder_attention_mask", decoder_attention_mask, shape)
        sources, source_mask = self._sources(encoder_outputs, caches, len(ids))
        record = Record(output_hidden_states, output_attentions)
        x = self.embed(ids, past, rng)
        hidden = self.decoder(x, sources, mask, source_mask, caches, rng, record)
        if logits_to_keep is not None and logits_to_keep < hidden.shape[1]:
            hidden = hidden[:, -logits_to_keep:]
        logits = self.project(hidden)
        output = Seq2SeqOutput(logits, self._loss(logits, labels), caches)
        for name in ("hidden_states", "attentions"):
            setattr(output, f"decoder_{name}", record.noted(name))
            setattr(output, f"encoder_{name}", getattr(encoder_outputs, name, None))
        output.cross_attentions = record.noted("cross_attentions")
        output.encoder_last_hidden_state = getattr(encoder_outputs, "last_hidden_state", None)
        return output

    def count_targets(self, batch: dict[str, Array]) -> int:
        """Over how many targets the loss of this batch is a mean."""
        return int(np.count_nonzero(np.asarray(batch["labels"]) != F.IGNORE_INDEX))

    def _loss(self, logits: Tensor, labels: Array | None) -> Tensor | None:
        if labels is None:
            return None
        smoothing = self.config.label_smoothing if self.training else 0.0
        return F.cross_entropy(logits, labels, label_smoothing=smoothing)

    def _sources(
        self, encoded: EncodedSource | None, caches: DecoderCaches | None, rows: int
    ) -> tuple[Any, Array | None]:
        """What each layer of the decoder attends to of the source, and the mask over it."""
        sources: list[Any]
        if caches is not None:
            expected, sources = len(caches.layers[0].keys), caches.sources
            source_mask = caches.source_mask
        else:
            assert encoded is not None
            hidden = encoded.last_hidden_state
            expected, sources = len(hidden), [hidden] * len(self.decoder.blocks)
            source_mask = self._mask("attention_mask", encoded.attention_mask, hidden.shape[:2])
        if rows != expected:
            raise ValueError(
                f"{type(self).__name__}: expected a target for each of {expected} rows of the "
                f"source, got {rows}; give source and target the same first axis"
            )
        return sources, source_mask

    def _one_source(
        self,
        input_ids: Array | None,
        attention_mask: Array | None,
        encoded: EncodedSource | None,
        caches: DecoderCaches | None,
        output_attentions: bool,
    ) -> None:
        name = type(self).__name__
        sources = {"input_ids": input_ids, "encoder_outputs": encoded, "caches": caches}
        given = [key for key, value in sources.items() if value is not None]
        if len(given) != 1 or (attention_mask is not None and given != ["input_ids"]):
            mask = " and attention_mask" if attention_mask is not None else ""
            raise ValueError(
                f"{name}: expected one of input_ids (with attention_mask), encoder_outputs and "
                f"caches, got {', '.join(given) or 'none'}{mask}; what the encoder gave and the "
                "caches know their source's mask"
            )
        if caches is not None and output_attentions:
            raise ValueError(
                f"{name}: expected output_attentions=False with caches, got True; give the whole "
                "target in one call to look at its attention"
            )

    def _ids(self, name: str, ids: Array, past: int) -> Array:
        ids, limit = np.asarray(ids), self.config.max_len
        if ids.ndim != 2 or not 0 < ids.shape[1] <= limit - past:
            raise ValueError(
                f"{type(self).__name__}: expected {name} (B, T) with 1 to max_len = {limit} "
                f"positions, got shape {ids.shape} after {past} cached ones; cut the text, or "
                "build the model with a larger max_len"
            )
        return ids

    def _mask(self, name: str, mask: Array | None, shape: tuple[int, ...]) -> Array | None:
        """`key_mask` of a mask that has this shape."""
        if mask is not None and np.shape(mask) != shape:
            raise ValueError(
                f"{type(self).__name__}: expected {name} of shape {shape}, one entry for each "
                f"position, got {np.shape(mask)}; take it from the tokenizer call that gave the ids"
            )
        return key_mask(mask)


def _in_order(x: Tensor) -> Tensor:
    """The same numbers, one after the other in memory."""
    return Tensor(np.ascontiguousarray(x.data))


def shift_right(labels: Array, decoder_start_token_id: int, pad_token_id: int) -> Array:
    """What the decoder reads, done here and nowhere else: at position t it is to predict labels[t].

    So it reads the start token, then all labels but the last; padding where a label is -100.

    Shapes: (B, T) -> (B, T)
    Raises: ValueError — labels of another shape, or not integers.

    >>> shift_right(np.array([[5, 6, 1, -100, -100]]), 2, 0)
    array([[2, 5, 6, 1, 0]])
    """
    labels = np.asarray(labels)
    if labels.ndim != 2 or labels.dtype.kind not in "iu":
        raise ValueError(
            f"labels: expected shape (B, T) of integers, got {labels.shape} of {labels.dtype}; "
            "give the target's tokens, padded with -100"
        )
    read = np.full(labels.shape, decoder_start_token_id, np.int64)
    read[:, 1:] = np.where(labels == F.IGNORE_INDEX, pad_token_id, labels)[:, :-1]
    return read
