"""Directories of sentence-transformers: an encoder, how its vectors are pooled, and their length.

Source: Reimers & Gurevych 2019, "Sentence-BERT", arXiv 1908.10084, section 3.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from minilm.data import by_length
from minilm.models.bert import Bert
from minilm.pretrained.directory import read_model, write_model
from minilm.pretrained.files import (
    Fields,
    PretrainedError,
    read_json,
    read_object,
    require,
    write_json,
)
from minilm.pretrained.tokenizers import save_tokenizer, tokenizer_from_pretrained
from minilm.pretrained.weights import is_plain
from minilm.tensor import Array, no_grad
from minilm.tokenizers import TokenizerError

MODULES, LENGTHS, POOLING = "modules.json", "sentence_bert_config.json", "1_Pooling"
FLAGS = {  # how config.json of the pooling named its modes before it had a `pooling_mode`
    "cls": "pooling_mode_cls_token",
    "max": "pooling_mode_max_tokens",
    "mean": "pooling_mode_mean_tokens",
}
OTHER_FLAGS = (
    "pooling_mode_mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens",
    "pooling_mode_lasttoken",
)


class SentenceEncoder:
    """A vector for each text: the encoder's last hidden states, pooled over the text's tokens.

    `pooling` is "mean", "max" or "cls", the first token. With `normalize` each vector has length 1,
    so that their products are cosines.
    """

    def __init__(
        self,
        model: Bert,
        tokenizer: Any,
        pooling: str = "mean",
        normalize: bool = True,
        max_length: int | None = None,
        lower_case: bool = False,
    ) -> None:
        if pooling not in FLAGS:
            raise ValueError(
                f"SentenceEncoder: expected pooling {', '.join(FLAGS)}, got {pooling!r}; "
                "most such models take the mean"
            )
        self.model, self.tokenizer = model, tokenizer
        self.pooling, self.normalize, self.lower_case = pooling, normalize, lower_case
        self.max_length = min(max_length or model.config.max_len, model.config.max_len)

    @no_grad()
    def encode(self, texts: str | Sequence[str], batch_size: int = 32) -> Array:
        """The vectors of texts, which are cut at max_length tokens; of one text, its vector.

        Shapes: -> (N, C), of one text (C)
        """
        if isinstance(texts, str):
            return self.encode([texts])[0]
        texts = [text.lower() if self.lower_case else text for text in texts]
        vectors = np.empty((len(texts), self.model.config.d_model), np.float32)
        for rows in by_length([len(text) for text in texts], batch_size):
            batch = self.tokenizer(
                [texts[i] for i in rows],
                padding=True,
                truncation=True,
                max_length=self.max_length,
                allowed_special="all",
            )
            mask = np.asarray(batch.attention_mask)
            hidden = self.model(batch.input_ids, attention_mask=mask).last_hidden_state.data
            vectors[rows] = pool(hidden, mask, self.pooling)
        if self.normalize:
            vectors /= np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)
        return vectors

    def save_pretrained(self, directory: str | Path) -> None:
        """Write the directory that `from_pretrained` and sentence-transformers read."""
        directory = Path(directory)
        write_model(self.model, directory)
        save_tokenizer(self.tokenizer, directory)
        lengths = {"max_seq_length": self.max_length, "do_lower_case": self.lower_case}
        write_json(directory / LENGTHS, lengths)
        flags = {flag: self.pooling == mode for mode, flag in FLAGS.items()}
        width = {"word_embedding_dimension": self.model.config.d_model}
        write_json(directory / POOLING / "config.json", width | flags)
        kinds = ["Transformer", "Pooling", *(["Normalize"] if self.normalize else [])]
        paths = ["", POOLING, "2_Normalize"]
        (directory / paths[-1]).mkdir(exist_ok=True)
        modules = [
            {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
            for i, (kind, path) in enumerate(zip(kinds, paths, strict=False))
        ]
        write_json(directory / MODULES, modules)


def pool(hidden: Array, mask: Array, how: str) -> Array:
    """One vector a row, from the positions whose mask is 1.

    Shapes: (B, T, C), (B, T) -> (B, C)

    >>> x = np.array([[[1.0, 4.0], [3.0, 0.0], [9.0, 9.0]]])
    >>> [pool(x, np.array([[1, 1, 0]]), how).tolist() for how in ("mean", "max", "cls")]
    [[[2.0, 2.0]], [[3.0, 4.0]], [[1.0, 4.0]]]
    """
    if how == "cls":
        return hidden[:, 0]
    kept = mask.astype(bool)[:, :, None]
    if how == "max":
        return np.where(kept, hidden, -np.inf).max(1)
    return np.where(kept, hidden, 0).sum(1) / kept.sum(1)


def read_encoder(directory: Path) -> SentenceEncoder:
    """The encoder of a directory with modules.json; see `from_pretrained`."""
    where = directory / MODULES
    modules = read_json(where)
    known = isinstance(modules, list) and all(isinstance(module, dict) for module in modules)
    require(known, where, "a list of modules", modules, "the file is damaged, copy it anew")
    fields = [Fields(module, where) for module in modules]
    kinds = [module.text("type").split(".")[-1] for module in fields]
    known = kinds in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"])
    fix = "minilm has no other modules: choose another model"
    require(known, where, "Transformer, Pooling and perhaps Normalize", ", ".join(kinds), fix)
    paths = [module.text("path") for module in fields]
    fix = "modules stand in the directory itself: copy it anew"
    for path in paths:
        require(is_plain(path), where, "the names of folders as paths", path, fix)
    body = directory / paths[0]
    model = read_model(body, "base")
    where = body / LENGTHS
    lengths = Fields(read_object(where) if where.exists() else {}, where)
    max_length = lengths.whole("max_seq_length", model.config.max_len)
    pooling = _pooling(directory / paths[1] / "config.json")
    prompts = directory / "config_sentence_transformers.json"
    if prompts.exists():
        Fields(read_object(prompts), prompts).only("default_prompt_name", None)
    try:
        tokenizer = tokenizer_from_pretrained(body)
    except TokenizerError as error:
        raise PretrainedError(str(error)) from error
    return SentenceEncoder(
        model,
        tokenizer,
        pooling,
        "Normalize" in kinds,
        max_length,
        lengths.flag("do_lower_case", False),
    )


def _pooling(where: Path) -> str:
    """The one way of pooling that a configuration names."""
    fields = Fields(read_object(where), where)
    if fields.get("pooling_mode") is not None:
        fields.only("pooling_mode", *FLAGS)
        return fields.text("pooling_mode")
    for flag in OTHER_FLAGS:
        fields.only(flag, False)
    found = [mode for mode, flag in FLAGS.items() if fields.flag(flag, False)] or ["mean"]
    fix = "minilm does not join several: choose another model"
    require(len(found) == 1, where, "one way of pooling", ", ".join(found), fix)
    return found[0]
