"""What the tokenizer classes of `transformers` take for granted, each in the layout of one file.

A `tokenizer_config.json` names a class, and a class such as BertTokenizer takes the vocabulary from
its directory and builds all else itself, by its own settings. What it builds is written here as
the content of a `tokenizer.json`.

Source: the tokenizer classes of `transformers` 5, which this agrees with.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from minilm.tokenizers.base import CONFIG_FILE
from minilm.tokenizers.files import check

Content = dict[str, Any]  # of a tokenizer.json
MARK = "▁"


class Config:
    """The settings in a file, each of the type that is asked for.

    Raises: TokenizerError — a setting of another type.
    """

    def __init__(self, values: Mapping[str, Any], file: str = CONFIG_FILE) -> None:
        self.values, self.file = values, file

    def get(self, name: str, *types: type, default: Any = None) -> Any:
        """The setting; the default where it is absent or null."""
        value = self.values.get(name)
        if value is None:
            return default
        expected = f"{name} to be {' or '.join(kind.__name__ for kind in types)}"
        check(type(value) in types, expected, value, self.file)
        return value

    def flag(self, name: str, default: bool = False) -> bool:
        """A setting that is true or false."""
        return self.get(name, bool, default=default)


Build = Callable[[Content, Config, Mapping[str, str]], Content]


@dataclass(frozen=True)
class Family:
    """A tokenizer class: its special tokens, what its models take, the content it builds."""

    model_type: str = ""
    roles: Mapping[str, str] = field(default_factory=dict)
    build: Build = lambda content, config, roles: content
    input_names: tuple[str, ...] = ("input_ids", "attention_mask")
    padding_side: str = "right"
    has_sentinels: bool = False


def _bert(content: Content, config: Config, roles: Mapping[str, str]) -> Content:
    return content | {
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": config.flag("tokenize_chinese_chars", True),
            "strip_accents": config.get("strip_accents", bool),
            "lowercase": config.flag("do_lower_case", True),
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "BertProcessing", **_around(roles)},
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {
            "type": "WordPiece",
            "unk_token": _token(roles, "unk"),
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": content["model"].get("vocab"),
        },
    }


def _gpt2(content: Content, config: Config, roles: Mapping[str, str]) -> Content:
    prefix = config.flag("add_prefix_space")
    merges = {name: content["model"].get(name) for name in ("vocab", "merges")}
    return content | {
        "normalizer": None,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": prefix, "use_regex": True},
        "post_processor": content.get("post_processor") or _bos_and_eos(config, roles),
        "decoder": {"type": "ByteLevel"},
        "model": {"type": "BPE", **merges},
    }


def _roberta(content: Content, config: Config, roles: Mapping[str, str]) -> Content:
    processor = {
        "type": "RobertaProcessing",
        **_around(roles),
        "trim_offsets": config.flag("trim_offsets", True),
        "add_prefix_space": config.flag("add_prefix_space"),
    }
    return _gpt2(content, config, roles) | {"post_processor": processor}


def _t5(content: Content, config: Config, roles: Mapping[str, str]) -> Content:
    metaspace = {"type": "Metaspace", "replacement": MARK, "prepend_scheme": "always"}
    end = {"SpecialToken": {"id": _token(roles, "eos"), "type_id": 0}}
    a, b = ({"Sequence": {"id": name, "type_id": 0}} for name in "AB")
    splits = [{"type": "WhitespaceSplit"}, metaspace]
    forms = {"single": [a, end], "pair": [a, end, b, end]}
    return content | {
        "normalizer": _charsmap(content.get("normalizer")),
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": splits},
        "post_processor": {"type": "TemplateProcessing", **forms},
        "decoder": metaspace,
        "model": {"type": "Unigram", "unk_id": 2, "vocab": content["model"].get("vocab")},
    }


def _charsmap(normalizer: Any) -> Content | None:
    """The first table of characters among the steps of a "normalizer"."""
    match normalizer:
        case {"type": "Sequence", "normalizers": list(steps)}:
            return next(filter(None, map(_charsmap, steps)), None)
        case {"type": "Precompiled"}:
            return normalizer
    return None


def _llama(content: Content, config: Config, roles: Mapping[str, str]) -> Content:
    scheme = "always" if config.flag("legacy") else "first"
    prefix = config.flag("add_prefix_space", True)
    steps: list[Content] = [
        {"type": "Replace", "pattern": {"String": MARK}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
    ]
    strip = {"type": "Strip", "content": " ", "start": 1, "stop": 0}
    merges = {name: content["model"].get(name) for name in ("vocab", "merges")}
    return content | {
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Metaspace",
            "replacement": MARK,
            "prepend_scheme": scheme if prefix else "never",
            "split": False,
        },
        "post_processor": content.get("post_processor"),
        "decoder": {"type": "Sequence", "decoders": [*steps, strip] if prefix else steps},
        "model": {"type": "BPE", "fuse_unk": True, "byte_fallback": True, **merges},
    }


def _token(roles: Mapping[str, str], role: str) -> str:
    check(role in roles, f"a {role}_token", dict(roles), CONFIG_FILE)
    return roles[role]


def _around(roles: Mapping[str, str]) -> Content:
    """The two tokens around a text; their ids are those of the vocabulary."""
    return {role: [_token(roles, role), None] for role in ("cls", "sep")}


def _bos_and_eos(config: Config, roles: Mapping[str, str]) -> Content:
    """A template with the tokens that `add_bos_token` and `add_eos_token` ask for."""

    def one(name: str, type_id: int) -> list[Content]:
        first, last = (
            [{"SpecialToken": {"id": roles[role], "type_id": type_id}}]
            if config.flag(f"add_{role}_token") and role in roles
            else []
            for role in ("bos", "eos")
        )
        return [*first, {"Sequence": {"id": name, "type_id": type_id}}, *last]

    single = one("A", 0)
    return {"type": "TemplateProcessing", "single": single, "pair": [*single, *one("B", 1)]}


BERT_ROLES = {"unk": "[UNK]", "sep": "[SEP]", "pad": "[PAD]", "cls": "[CLS]", "mask": "[MASK]"}
ROBERTA_ROLES = {
    **{"bos": "<s>", "eos": "</s>", "unk": "<unk>", "sep": "</s>", "pad": "<pad>", "cls": "<s>"},
    "mask": "<mask>",
}
GPT2_ROLES = dict.fromkeys(("bos", "eos", "unk"), "<|endoftext|>")
T5_ROLES = {"eos": "</s>", "unk": "<unk>", "pad": "<pad>"}
LLAMA_ROLES = {"bos": "<s>", "eos": "</s>", "unk": "<unk>"}
WITH_TYPES = ("input_ids", "attention_mask", "token_type_ids")
FAMILIES = {
    "BertTokenizer": Family("WordPiece", BERT_ROLES, _bert, WITH_TYPES),
    "DistilBertTokenizer": Family("WordPiece", BERT_ROLES, _bert),
    "GPT2Tokenizer": Family("BPE", GPT2_ROLES, _gpt2),
    "RobertaTokenizer": Family("BPE", ROBERTA_ROLES, _roberta),
    "T5Tokenizer": Family("Unigram", T5_ROLES, _t5, has_sentinels=True),
    "LlamaTokenizer": Family("BPE", LLAMA_ROLES, _llama, padding_side="left"),
}
CLASSES = {  # by the model_type of a config.json, where no class is named
    "bert": "BertTokenizer",
    "distilbert": "DistilBertTokenizer",
    "gpt2": "GPT2Tokenizer",
    "roberta": "RobertaTokenizer",
    "t5": "T5Tokenizer",
    "mt5": "T5Tokenizer",
}
