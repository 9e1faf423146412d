"""A model's tokenizer, out of its directory and into one.

Every layout becomes the content of a `tokenizer.json`: read from that file, or put together from
`vocab.json` and `merges.txt`, `vocab.txt`, or `spiece.model`. `tokenizer_config.json`, and in older
directories `special_tokens_map.json` and `added_tokens.json`, say which tokens are special and what
for, and name the class that builds the rest: see `tokenizer_families`.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from minilm.pretrained.spiece import SPIECE_FILE, read_spiece
from minilm.pretrained.tokenizer_families import CLASSES, FAMILIES, Config, Content, Family
from minilm.tokenizers import AddedToken, Tokenizer, TokenizerError, has_bytes, tokenizer_from_json
from minilm.tokenizers.added import FLAGS, read_added
from minilm.tokenizers.base import CONFIG_FILE
from minilm.tokenizers.bpe_file import VOCAB_FILE as BPE_FILE
from minilm.tokenizers.bpe_file import read_vocab_files
from minilm.tokenizers.files import FILE_NAME, check, read_json, read_tokenizer_file
from minilm.tokenizers.roles import ROLES
from minilm.tokenizers.wordpiece import VOCAB_FILE as WORDPIECE_FILE
from minilm.tokenizers.wordpiece import read_vocab_file

SPECIAL_FILE, ADDED_FILE = "special_tokens_map.json", "added_tokens.json"
NO_LIMIT = 10**12  # larger ones stand for a model_max_length that is not known
INPUT_NAMES = ["input_ids", "attention_mask", "token_type_ids"]
MOST_SENTINELS = 10_000
Token = tuple[int | None, AddedToken]  # None: the next id


def tokenizer_from_pretrained(directory: str | Path) -> Tokenizer:
    """The tokenizer of a model's directory, with the ids that transformers' AutoTokenizer gives.

    AutoTokenizer takes special tokens in a text for what they are: so does this one's `encode` with
    `allowed_special="all"`. Without the name of a class, or with one that is not in FAMILIES, a
    `tokenizer.json` is taken as it is.

    Raises: TokenizerError — no file, a damaged one, files that contradict each other, or a part
        that is not known, which is named.
    """
    directory = Path(directory)
    settings = _read_settings(directory)
    config = Config(settings)
    class_name = _read_class(directory, config)
    content, default = _read_content(directory, config, class_name)
    family = _family(class_name, content, default)
    named = _named_tokens(settings, family)
    roles = {role: named[f"{role}_token"].content for role in ROLES if f"{role}_token" in named}
    content = family.build(content, config, roles)
    tokens = _added_tokens(directory, content, config, family, named)
    content["added_tokens"] = [{"id": i, **asdict(token)} for i, token in tokens.values()]
    tokenizer = tokenizer_from_json(content)
    tokenizer.roles |= roles
    for role in ROLES:  # what is null is not to be guessed
        if f"{role}_token" in settings and role not in roles:
            tokenizer.roles.pop(role, None)
    input_names = family.input_names if class_name else tokenizer.input_names
    _set_attributes(tokenizer, config, family, input_names)
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, directory: str | Path) -> None:
    """Write a directory that `tokenizer_from_pretrained`, transformers and tokenizers read.

    It is `tokenizer.json`, `tokenizer_config.json`, and the `vocab` files that WordPiece and
    byte-level BPE have. A tokenizer of characters becomes a model of words that are one character
    each: where one is not in the vocabulary, it is an error there as it is here.
    """
    tokenizer.save_pretrained(directory)


def _read_settings(directory: Path) -> dict[str, Any]:
    """`tokenizer_config.json`, with `special_tokens_map.json` if it does not list added tokens."""
    settings: dict[str, Any] = {}
    for name in (CONFIG_FILE, SPECIAL_FILE):
        if (directory / name).exists() and settings.get("added_tokens_decoder") is None:
            settings |= read_json(directory / name)
    return settings


def _read_class(directory: Path, config: Config) -> str | None:
    """The name of the tokenizer's class, or else what the model's `config.json` suggests."""
    name = config.get("tokenizer_class", str)
    if name is None and (path := directory / "config.json").exists():
        model = Config(read_json(path), path.name)
        by_model = CLASSES.get(model.get("model_type", str, default=""))
        name = model.get("tokenizer_class", str, default=by_model)
    return None if name is None else name.removesuffix("Fast")


def _family(class_name: str | None, content: Content, default: str) -> Family:
    """The family of a class, or, if it is not one of FAMILIES, the one that the files suggest."""
    if class_name == "LlamaTokenizer" and has_bytes(content.get("pre_tokenizer")):
        return Family()  # Llama 3, whose tokenizer.json says all
    family = FAMILIES.get(class_name or "", FAMILIES.get(default, Family()))
    found = content["model"].get("type")
    check(family.model_type in ("", found), f"{family.model_type} for {class_name}", found)
    return family


def _read_content(directory: Path, config: Config, class_name: str | None) -> tuple[Content, str]:
    """The content of `tokenizer.json`, or the part of it that vocabularies are; and whose they are.

    Raises: TokenizerError — none of the files that can be read.
    """
    if (directory / FILE_NAME).exists():
        return read_tokenizer_file(directory, exact=class_name == "T5Tokenizer"), ""
    if (directory / SPIECE_FILE).exists():
        content = read_spiece(directory / SPIECE_FILE)
        content["model"]["vocab"] += [[token, 0.0] for token in _sentinels(config)[::-1]]
        return content, "T5Tokenizer"
    if (directory / BPE_FILE).exists():
        vocab, merges = read_vocab_files(directory)
        return {"model": {"type": "BPE", "vocab": vocab, "merges": merges}}, "GPT2Tokenizer"
    if (directory / WORDPIECE_FILE).exists():
        ids = {token: i for i, token in enumerate(read_vocab_file(directory))}
        return {"model": {"type": "WordPiece", "vocab": ids}}, "BertTokenizer"
    names = ", ".join((FILE_NAME, BPE_FILE, WORDPIECE_FILE, SPIECE_FILE))
    raise TokenizerError(
        f"{directory}: expected a directory with one of {names}, got none of them; let "
        "transformers open and save what it has beside them, such as tokenizer.model"
    )


def _sentinels(config: Config) -> list[str]:
    """T5's <extra_id_0> and so on; the first has the last id."""
    number = config.get("extra_ids", int, default=100)
    known = 0 <= number <= MOST_SENTINELS
    check(known, f"extra_ids from 0 to {MOST_SENTINELS}", number, CONFIG_FILE)
    return [f"<extra_id_{i}>" for i in range(number)]


# --- Special and other added tokens -------------------------------------------------------------


def _read_token(value: Any) -> AddedToken:
    """A token as the settings spell it: its content, or an object that has flags too."""
    if not isinstance(value, dict):
        value = {"content": value, "special": True}
    special = value.get("special", False)
    entry = {"normalized": not special, **value, "id": None}
    ((_, token),) = read_added([{name: entry.get(name, False) for name in ("content", *FLAGS)}])
    return token


def _named_tokens(settings: Mapping[str, Any], family: Family) -> dict[str, AddedToken]:
    """The tokens that have a name such as mask_token, those with a role first."""
    roles = {f"{role}_token": family.roles.get(role) for role in ROLES}
    others = {
        name: value
        for name, value in settings.items()
        if name.endswith("_token") and isinstance(value, str | dict)
    }
    found = {**roles, **others, **{name: settings[name] for name in roles if name in settings}}
    return {name: _read_token(value) for name, value in found.items() if value not in (None, "")}


def _added_tokens(
    directory: Path,
    content: Content,
    config: Config,
    family: Family,
    named: Mapping[str, AddedToken],
) -> dict[str, Token]:
    """All added tokens by their content, in the order in which new ids are given."""
    listed = read_added(content.get("added_tokens"))
    listed.sort(key=lambda pair: math.inf if pair[0] is None else pair[0])
    tokens: dict[str, Token] = {token.content: (i, token) for i, token in listed}
    check(len(tokens) == len(listed), "each added token once", [token for _, token in listed])
    extra = _extra_tokens(config, family)
    special = {token.content for token in [*named.values(), *extra]}
    for token in _listed_elsewhere(directory, config, tokens, special):
        i, _ = tokens.get(token.content, (None, token))
        tokens[token.content] = i, token
    listed_before = set(tokens)
    for token in [*named.values(), *extra]:  # of new ones, the last one's flags count
        if token.content not in listed_before:
            tokens[token.content] = None, token
    for token in named.values():
        i, known = tokens[token.content]
        tokens[token.content] = i, replace(known, special=True)
    return tokens


def _extra_tokens(config: Config, family: Family) -> list[AddedToken]:
    """Special tokens without a role: T5 has its sentinels."""
    for name in ("extra_special_tokens", "additional_special_tokens"):
        if found := config.get(name, list, dict):
            return [_read_token(x) for x in (found.values() if type(found) is dict else found)]
    return [AddedToken(x) for x in _sentinels(config)] if family.has_sentinels else []


def _listed_elsewhere(
    directory: Path, config: Config, known: Mapping[str, Token], special: set[str]
) -> list[AddedToken]:
    """The tokens of `added_tokens_decoder`, or of `added_tokens.json` if they are new, by id."""
    decoder = config.get("added_tokens_decoder", dict)
    if decoder is not None:
        numbers = [key.isdecimal() and len(key) < 10 for key in decoder]
        check(all(numbers), "ids in added_tokens_decoder", list(decoder), CONFIG_FILE)
        return [_read_token(decoder[key]) for key in sorted(decoder, key=int)]
    path = directory / ADDED_FILE
    ids = read_json(path) if path.exists() else {}
    check(all(type(i) is int for i in ids.values()), "whole numbers as ids", ids, ADDED_FILE)
    return [
        _read_token({"content": token, "special": token in special})
        for token in sorted(ids, key=ids.__getitem__)
        if token not in known
    ]


def _set_attributes(
    tokenizer: Tokenizer, config: Config, family: Family, input_names: tuple[str, ...]
) -> None:
    """What the settings say beside the tokens.

    Raises: TokenizerError — settings that are of another type, or have no counterpart here.
    """
    limit = config.get("model_max_length", int, float, default=config.get("max_len", int, float))
    if limit is not None and limit < NO_LIMIT:
        whole = limit >= 1 and int(limit) == limit
        check(whole, "a whole number >= 1 as model_max_length", limit, CONFIG_FILE)
        tokenizer.model_max_length = int(limit)
    side = config.get("padding_side", str, default=family.padding_side)
    check(side in ("left", "right"), "padding_side to be left or right", side, CONFIG_FILE)
    tokenizer.padding_side = side
    cut = config.get("truncation_side", str, default="right")
    check(cut == "right", "truncation_side to be right", cut, CONFIG_FILE)
    split = config.flag("split_special_tokens")
    check(not split, "split_special_tokens to be false", split, CONFIG_FILE)
    names = config.get("model_input_names", list, default=list(input_names))
    known = "input_ids" in names and all(name in INPUT_NAMES for name in names)
    check(known, f"model_input_names of {INPUT_NAMES}", names, CONFIG_FILE)
    tokenizer.input_names = tuple(names)
    clean = config.flag("clean_up_tokenization_spaces")
    tokenizer.clean_up_tokenization_spaces = clean and tokenizer.model_type != "BPE"
