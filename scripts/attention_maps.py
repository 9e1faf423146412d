"""What the heads of a model look at, for each of the three families."""

from typing import Any

import numpy as np

from minilm.generation import generate
from minilm.models.causal import CausalLM
from minilm.models.seq2seq import Seq2SeqLM, shift_right
from minilm.nn import Module, MultiHeadAttention
from minilm.tensor import Array, no_grad
from minilm.tokenizers import Tokenizer

Picture = tuple[tuple[Array, ...], list[int], list[int]]  # (H, T, S) of each layer; rows, columns


class Watched(Module):
    """An attention layer that notes its weights on the way."""

    def __init__(self, layer: MultiHeadAttention, seen: list[Array]) -> None:
        self.layer, self.seen = layer, seen

    def forward(self, x: Any, mask: Array | None = None, **rest: Any) -> Any:
        self.seen.append(self.layer.weights(x, mask=mask))
        return self.layer(x, mask=mask, **rest)


@no_grad()
def look(model: Any, tokenizer: Tokenizer, text: str, target: str | None) -> dict[str, Picture]:
    """The attention of each kind that the model has, for one text, or for a text and another.

    Raises: ValueError — a target for a model that reads one text, a text without tokens where
        nothing else is read, a model without attention.
    """
    ids = tokenizer.encode(text, disallowed_special=())
    if isinstance(model, Seq2SeqLM):
        c, source = model.config, [*ids, model.config.eos_token_id]
        if target is None:
            written = generate(model, np.array([source]), c.max_len)[0, 1:].tolist()
        else:
            written = [*tokenizer.encode(target, disallowed_special=()), c.eos_token_id]
        labels = np.array([written])
        output = model(np.array([source]), labels=labels, output_attentions=True)
        read = shift_right(labels, c.decoder_start_token_id, c.pad_token_id)[0].tolist()
        return {
            "encoder": (output.encoder_attentions, source, source),
            "decoder": (output.decoder_attentions, read, read),
            "cross": (output.cross_attentions, written, source),
        }
    if not isinstance(model, CausalLM):  # BERT, under one of its heads
        batch = tokenizer([text], None if target is None else [target])
        output = model.bert(**batch, output_attentions=True)
        ids = batch["input_ids"][0].tolist()
        return {"self": (output.attentions, ids, ids)}
    if target is not None:
        raise ValueError(
            "--target: expected none for a model that reads one text, got one; append it to --text"
        )
    if not hasattr(model, "blocks"):
        raise ValueError(
            f"expected a model with attention, got {type(model).__name__}; give another run"
        )
    if not ids:
        raise ValueError("--text: expected a token or more, got none; give a text that has some")
    seen: list[Array] = []
    for block in model.blocks:
        block.attention = Watched(block.attention, seen)
    model(np.array([ids]))
    for block in model.blocks:
        block.attention = block.attention.layer
    return {"self": (tuple(seen), ids, ids)}
