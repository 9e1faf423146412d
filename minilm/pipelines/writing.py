"""Text that goes on from a prompt, or is written in answer to a source."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import fields
from itertools import groupby
from typing import Any

import numpy as np

from minilm.data import by_length
from minilm.generation import generate
from minilm.logits import GenerationConfig
from minilm.models.causal import CausalLM
from minilm.models.seq2seq import Seq2SeqLM
from minilm.pipelines.base import Pipeline
from minilm.tasks.features import Features, Row
from minilm.tensor import Array
from minilm.tokenizers import Tokenizer

logger = logging.getLogger("minilm.pipelines")

How = dict[str, Any]
LENGTHS = {"max_length": "max_new_tokens", "min_length": "min_new_tokens"}  # all, or what is new
OTHER = LENGTHS | {new: whole for whole, new in LENGTHS.items()}
FIELDS = {*(field.name for field in fields(GenerationConfig)), *LENGTHS}
SAMPLING: tuple[str, ...] = ("temperature", "top_k", "top_p")
UNKNOWN = (  # fields of generation_config.json that would change what is written
    *("typical_p", "min_p", "epsilon_cutoff", "eta_cutoff", "top_h", "stop_strings"),
    *("suppress_tokens", "begin_suppress_tokens", "sequence_bias", "guidance_scale"),
    *("exponential_decay_length_penalty", "encoder_repetition_penalty", "penalty_alpha"),
    "encoder_no_repeat_ngram_size",
)
BEAMS = ("length_penalty", "early_stopping", "num_beam_groups", "diversity_penalty")


class Writing(Pipeline):
    """Base of the pipelines that write.

    How to decode is said by the call, else at the pipeline's making, else by the directory
    (generation_config.json, and in config.json task_specific_params), else by the pipeline. The
    names are those of `GenerationConfig`; max_length and min_length count the prompt, or the
    decoder's start token, too. Where both are said at one place, the number of new tokens counts.
    What a directory says of drawing, or of beams, is left out where there is none.

    With `seed` or `rng` tokens are drawn, unless do_sample=False; a seed begins anew in each call.
    Draws depend on which inputs share a batch.

    Raises: ValueError — sampling without a seed or rng, or with both.
    """

    def __init__(
        self, task: str, model: Any, tokenizer: Tokenizer, batch_size: int = 1, **defaults: Any
    ) -> None:
        super().__init__(task, model, tokenizer, batch_size, **defaults)
        files, own = self.model.generation_config, self.model.hf_config.get("task_specific_params")
        self.own = dict((own or {}).get(task) or {})  # of this task
        said = self.override(self.usual(), {n: v for n, v in files.items() if v is not None})
        said = self.override(said, self.own)
        self.said = {name: value for name, value in said.items() if name in FIELDS}
        missed = ", ".join(name for name in UNKNOWN if files.get(name))
        if missed:
            logger.warning("%s: minilm decodes without %s of generation_config.json", task, missed)

    def usual(self) -> How:
        """How to decode where nobody says anything."""
        return {"max_new_tokens": 256}

    def argument_names(self) -> set[str]:
        return super().argument_names() | FIELDS | {"seed"}

    def override(self, below: Mapping[str, Any], above: Mapping[str, Any]) -> How:
        """A length said in one way replaces one that was said in the other."""
        above = {n: v for n, v in above.items() if v is not None or n not in OTHER}
        replaced = {OTHER.get(name) for name in above} - above.keys()
        return {**{n: v for n, v in below.items() if n not in replaced}, **above}

    def prepare(self, arguments: How) -> How:
        """Everything that `generate` is to be told, but for lengths that the prompt belongs to."""
        seed, rng = arguments.pop("seed", None), arguments.pop("rng", None)
        if seed is not None and rng is not None:
            raise ValueError(
                f"{self.task}: expected seed or rng, got both; the seed is for a new generator"
            )
        rng = rng if seed is None else np.random.default_rng(seed)
        if rng is not None:
            arguments = {"do_sample": True, **arguments}
        both = {**self.said, **arguments}
        idle = () if both.get("do_sample") else SAMPLING
        idle += BEAMS if both.get("num_beams", 1) == 1 else ()
        said = {name: value for name, value in self.said.items() if name not in idle}
        how = self.override(said, arguments)
        if how.get("do_sample") and rng is None:
            raise ValueError(
                f"{self.task}: expected seed= or rng= to draw tokens, got neither; seed=0, say, or "
                "do_sample=False for the most probable ones"
            )
        return {**how, "rng": rng}

    def run(self, input_ids: Array, before: int, how: How, **inputs: Any) -> list[list[list[int]]]:
        """The new tokens of each row's sequences; `before`: how many its sequences begin with."""
        how = dict(how)
        for whole, new in LENGTHS.items():
            if (length := how.pop(whole, None)) is not None and new not in how:
                how[new] = max(0, length - before)
                if whole == "max_length" and length <= before:
                    raise ValueError(
                        f"{self.task}: expected max_length > {before}, the length that the text "
                        f"has already, got {length}; say max_new_tokens instead"
                    )
        sequences = generate(self.model, input_ids, **how, **inputs)[:, before:]
        rows = [_until_stop(row, how.get("eos_token_id")) for row in sequences.tolist()]
        copies = len(rows) // len(input_ids)
        return [rows[i : i + copies] for i in range(0, len(rows), copies)]

    def record(self, name: str, text: str, tokens: list[int], return_tensors: bool) -> How:
        """One sequence, as text or as tokens."""
        return {f"{name}_token_ids": tokens} if return_tensors else {f"{name}_text": text}


def _until_stop(tokens: list[int], stop: int | Sequence[int] | None) -> list[int]:
    """Without the padding behind the end."""
    stops = np.atleast_1d([] if stop is None else stop)
    ends = np.flatnonzero(np.isin(tokens, stops))
    return tokens[: ends[0] + 1] if ends.size else tokens


class TextGeneration(Writing):
    """text-generation: a list of {"generated_text"}, as many as num_return_sequences.

    The text is the prompt (after `prefix`) and what the model adds, up to 256 tokens unless told
    otherwise; with return_full_text=False the latter alone; with `return_tensors`
    {"generated_token_ids"}, all tokens. A model whose files name no stop token stops at the
    tokenizer's eos_token. Prompts of one length are decoded together.

    Of a prompt longer than the model's window the last tokens are read, and a warning is logged:
    what comes next hangs on the end. An empty prompt is the token that texts begin with.

    Differs: transformers draws tokens unless told otherwise, and, of tokenizers that mark spaces
    by ▁, loses the space before the first new word.
    Raises: ValueError — an empty prompt and no bos_token.
    """

    head = "causal_lm"
    kinds = (CausalLM,)

    def answers(
        self,
        inputs: list[Any],
        batch_size: int,
        *,
        prefix: str = "",
        add_special_tokens: bool = True,
        return_full_text: bool = True,
        return_tensors: bool = False,
        rng: np.random.Generator | None = None,
        **how: Any,
    ) -> list[Any]:
        how = {"eos_token_id": self._special("eos"), "rng": rng, **how}
        texts = self.check_texts(inputs)
        prompts = [self._prompt(prefix + text, add_special_tokens) for text in texts]
        answers: list[Any] = [None] * len(texts)
        lengths = [len(prompt) for prompt in prompts]
        for batch in by_length(lengths, batch_size):
            for length, same in groupby(batch.tolist(), lengths.__getitem__):
                rows = list(same)
                found = self.run(np.array([prompts[i] for i in rows]), length, how)
                for i, sequences in zip(rows, found, strict=True):
                    answers[i] = [
                        self.record(
                            "generated",
                            (texts[i] if return_full_text else "") + self._added(prompts[i], new),
                            [*prompts[i], *new],
                            return_tensors,
                        )
                        for new in sequences
                    ]
        return answers

    def _special(self, role: str) -> int | None:
        """The id of the bos or eos token: as the model's files say, else the tokenizer's."""
        files = (self.model.generation_config, self.model.hf_config)
        said = [file[f"{role}_token_id"] for file in files if f"{role}_token_id" in file]
        return said[0] if said else getattr(self.tokenizer, f"{role}_token_id")

    def _prompt(self, text: str, add_special_tokens: bool) -> list[int]:
        encoding = self.tokenizer(
            text, add_special_tokens=add_special_tokens, allowed_special="all"
        )
        ids, window = encoding.input_ids[0].tolist(), self.model.window
        if not ids:
            first = self._special("bos")
            if first is None:
                raise ValueError(
                    f"{self.task}: expected a prompt, got an empty one and a model without "
                    "bos_token to begin with; give it a word, or a line break"
                )
            return [first]
        if len(ids) > window:
            logger.warning(
                "%s: the prompt has %d tokens; of these the model reads the last %d, its max_len",
                *(self.task, len(ids), window),
            )
        return ids[-window:]

    def _added(self, prompt: list[int], new: list[int]) -> str:
        """The text of the new tokens; as decoders strip what begins a text, behind the prompt."""
        before = self.tokenizer.decode(prompt, skip_special_tokens=True)
        return self.tokenizer.decode([*prompt, *new], skip_special_tokens=True)[len(before) :]


class TextToText(Writing):
    """text2text-generation: a list of {"generated_text"}, as many as num_return_sequences.

    summarization and translation are the same under the names "summary_text" and
    "translation_text", with the settings that config.json has for them; its `prefix` is put before
    each text. A beam search with 4 beams writes up to 256 tokens, unless told otherwise. With
    `return_tensors` tokens are the answer, the start token among them. Of a list of texts the
    answers are one list, if each is one sequence, as in transformers 4.

    An empty text is a source that ends where it begins.

    Raises: ValueError — a source longer than the model's max_len, unless `truncation` cuts its end.
    """

    head = "seq2seq_lm"
    kinds = (Seq2SeqLM,)

    def __init__(
        self, task: str, model: Any, tokenizer: Tokenizer, batch_size: int = 1, **defaults: Any
    ) -> None:
        super().__init__(task, model, tokenizer, batch_size, **defaults)
        self.prefix = self.own.get("prefix") or self.model.hf_config.get("prefix") or ""
        self.name = {"summarization": "summary", "text2text-generation": "generated"}.get(
            task, "translation"
        )

    def usual(self) -> How:
        return {"max_new_tokens": min(256, self.model.config.max_len), "num_beams": 4}

    def __call__(self, inputs: Any, *, batch_size: int | None = None, **arguments: Any) -> Any:
        answers = super().__call__(inputs, batch_size=batch_size, **arguments)
        if isinstance(inputs, list | tuple) and all(len(answer) == 1 for answer in answers):
            return [answer[0] for answer in answers]
        return answers

    def answers(
        self,
        inputs: list[Any],
        batch_size: int,
        *,
        truncation: bool = False,
        return_tensors: bool = False,
        rng: np.random.Generator | None = None,
        **how: Any,
    ) -> list[Any]:
        c = self.model.config
        how = {"eos_token_id": c.eos_token_id, "rng": rng, **how}
        sources = [np.array(self._source(text, truncation)) for text in self.check_texts(inputs)]
        rows = [
            Row(i, {"input_ids": ids, "attention_mask": np.ones_like(ids)}, {})
            for i, ids in enumerate(sources)
        ]
        features = Features((), rows, (), c.pad_token_id)
        answers: list[Any] = [None] * len(rows)
        for batch in features.by_length(batch_size):
            found = self.run(before=1, how=how, **features.batch(batch, targets=False))
            for i, sequences in zip(batch, found, strict=True):
                answers[i] = [
                    self.record(
                        self.name,
                        self.tokenizer.decode(new, skip_special_tokens=True),
                        [c.decoder_start_token_id, *new],
                        return_tensors,
                    )
                    for new in sequences
                ]
        return answers

    def _source(self, text: str, truncation: bool) -> list[int]:
        """The tokens of a source, at whose end the model's eos token stands."""
        end, longest = self.model.config.eos_token_id, self.model.config.max_len
        ids = self.tokenizer(self.prefix + text, allowed_special="all").input_ids[0].tolist()
        if ids[-1:] == [end]:
            ids.pop()
        if len(ids) >= longest and not truncation:
            raise ValueError(
                f"{self.task}: expected a text of fewer than max_len = {longest} tokens, got "
                f"{len(ids)}; truncation=True leaves its end out, and a T5 reads longer ones if it "
                "is opened by from_pretrained(directory, max_len=...)"
            )
        return [*ids[: longest - 1], end]
