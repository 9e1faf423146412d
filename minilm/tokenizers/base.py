"""What every tokenizer shares: its calls, its tokens, its file."""

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np

from minilm.files import replacing
from minilm.tokenizers.added import AddedToken, Names, cut, read_added, wanted_tokens, write_added
from minilm.tokenizers.encoding import Encoding, encode_texts
from minilm.tokenizers.files import FILE_NAME, check, hf_layout, read_tokenizer_file
from minilm.tokenizers.roles import HasRoles, find_roles
from minilm.tokenizers.template import PLAIN, Template, read_template, write_template

Texts = str | Iterable[str]
Span = tuple[int, int]  # where in a text something stands: start and end, in characters
CONFIG_FILE = "tokenizer_config.json"
CLEANUP = {  # English as it is written, for words and signs that each have a space before them
    **{" .": ".", " ?": "?", " !": "!", " ,": ",", " ' ": "'", " n't": "n't", " 'm": "'m"},
    **{" 's": "'s", " 've": "'ve", " 're": "'re"},
}


class Tokenizer(HasRoles):
    """Base of the tokenizers: ordinary tokens, then added ones; a token's index is its id.

    An added token whose content is an ordinary token has that one's id, the others follow the
    ordinary ones. `template` says which special tokens a call puts around a text.

    What a model's directory says beside that are attributes to set: `roles` and their tokens;
    `model_max_length`, how many tokens a model takes; `padding_side`; `input_names`;
    `clean_up_tokenization_spaces`, whether decoding mends the spaces before the signs of CLEANUP.

    A subclass gives `train`, `_encode`, `_encode_spans`, `_decode`, `to_json` and `from_json`, and,
    if it changes a text before it cuts it, `_normalize` and `_normalize_aligned`.

    Raises: ValueError — a token given twice, a template of tokens that are not added ones.
    """

    model_type: str  # of "model" in the file
    input_names: tuple[str, ...] = ("input_ids", "attention_mask")  # what its models take

    def __init__(
        self, tokens: list[str], added: Sequence[AddedToken] = (), template: Template = PLAIN
    ) -> None:
        self.model_size = len(tokens)
        ordinary = set(tokens)
        contents = [token.content for token in added]
        self.tokens = [*tokens, *(content for content in contents if content not in ordinary)]
        self.ids = {token: i for i, token in enumerate(self.tokens)}
        unknown = sorted(template.tokens() - set(contents))
        if unknown or "" in contents or len(self.ids) < len(self.tokens):
            raise ValueError(
                f"{type(self).__name__}: expected different tokens, and a template of added ones, "
                f"got added tokens {contents!r:.200} and a template with {unknown}; add those, or "
                "drop what stands twice"
            )
        self.added = {self.ids[token.content]: token for token in added}
        self.template = template
        self.special_tokens = {t.content: i for i, t in self.added.items() if t.special}
        self.roles = find_roles(self.special_tokens)
        self.model_max_length: int | None = None
        self.padding_side = "right"
        self.clean_up_tokenization_spaces = False

    @property
    def vocab_size(self) -> int:
        """V, the number of tokens, added ones included."""
        return len(self.tokens)

    @property
    def dtype(self) -> np.dtype:
        """The smallest of uint16 and uint32 that holds every id."""
        return np.dtype(np.uint16 if self.vocab_size <= 2**16 else np.uint32)

    # --- Text to ids --------------------------------------------------------------------------

    def encode(
        self, text: str, *, allowed_special: Names = (), disallowed_special: Names = "all"
    ) -> list[int]:
        """The token ids of a text, without a template around them.

        The special tokens in `allowed_special`, a set or "all", are encoded as such where they
        stand in the text. Any other of `disallowed_special` in it is an error; the rest of them
        is ordinary text.

        Raises: ValueError — a disallowed special token, a lone surrogate.
        """
        check_unicode(text)
        wanted = wanted_tokens(text, self.added.values(), allowed_special, disallowed_special)
        if not wanted:
            return self._encode(self._normalize(text), True)
        ids: list[int] = []
        for start, end, token in cut(text, [token for token in wanted if not token.normalized]):
            if token is not None:
                ids.append(self.ids[token.content])
                continue
            piece = self._normalize(text[start:end])
            for a, b, i in self._cut_normalized(piece, wanted):
                ids += self._encode(piece[a:b], start + a == 0) if i is None else [i]
        return ids

    def encode_with_offsets(
        self, text: str, *, allowed_special: Names = (), disallowed_special: Names = "all"
    ) -> tuple[list[int], list[Span]]:
        """What `encode` gives, and where in the text each token stands: text[start:end].

        A token that is part of a character has the whole character's place.
        """
        check_unicode(text)
        wanted = wanted_tokens(text, self.added.values(), allowed_special, disallowed_special)
        ids: list[int] = []
        spans: list[Span] = []
        for start, end, token in cut(text, [token for token in wanted if not token.normalized]):
            if token is not None:
                ids.append(self.ids[token.content])
                spans.append((start, end))
                continue
            piece, places = self._normalize_aligned(text[start:end])
            for a, b, i in self._cut_normalized(piece, wanted):
                found, inner = ([i], [(0, b - a)]) if i is not None else ([], [])
                if i is None:
                    found, inner = self._encode_spans(piece[a:b], start + a == 0)
                ids += found
                spans += [_place(places, x + a, y + a, start) for x, y in inner]
        return ids, spans

    def _cut_normalized(
        self, piece: str, wanted: Sequence[AddedToken]
    ) -> Iterator[tuple[int, int, int | None]]:
        """(start, end, id) of the added tokens in a normalised piece, and of what is between."""
        normal = {
            replace(token, content=self._normalize(token.content)): self.ids[token.content]
            for token in wanted
            if token.normalized
        }
        for start, end, token in cut(piece, list(normal)):
            yield start, end, None if token is None else normal[token]

    def encode_array(self, text: str) -> np.ndarray:
        """The token ids of a text as an array of `dtype`."""
        return np.array(self.encode(text), self.dtype)

    def encode_batch(self, texts: Iterable[str], **special: Names) -> list[list[int]]:
        """`encode` of every text."""
        return [self.encode(text, **special) for text in texts]

    def __call__(
        self,
        texts: str | Sequence[str],
        text_pair: str | Sequence[str] | None = None,
        *,
        padding: bool | str = False,
        truncation: bool | str = False,
        max_length: int | None = None,
        stride: int | None = None,
        add_special_tokens: bool = True,
        **special: Names,
    ) -> Encoding:
        """Texts, or pairs of texts, as arrays for a model: see `encoding.encode_texts`.

        `max_length` is `model_max_length` where it is wanted and not given.
        """
        template = self.template if add_special_tokens else PLAIN
        if max_length is None and (truncation or padding == "max_length"):
            max_length = self.model_max_length
        return encode_texts(
            self, template, texts, text_pair, padding, truncation, max_length, stride, **special
        )

    def _normalize(self, text: str) -> str:
        """The text as the algorithm reads it."""
        return text

    def _normalize_aligned(self, text: str) -> tuple[str, Sequence[Span] | None]:
        """The normalised text, and its characters' places in `text` (None: where they are)."""
        return self._normalize(text), None

    def _encode(self, text: str, first: bool) -> list[int]:
        """Ids of a normalised text without added tokens; `first`: the whole text begins here."""
        raise NotImplementedError(f"{type(self).__name__} needs an _encode method")

    def _encode_spans(self, text: str, first: bool) -> tuple[list[int], list[Span]]:
        """What `_encode` gives, with each token's place in the normalised text."""
        raise NotImplementedError(f"{type(self).__name__} needs an _encode_spans method")

    # --- Ids to text --------------------------------------------------------------------------

    def decode(self, ids: Iterable[int], skip_special_tokens: bool = False) -> str:
        """The text of the tokens.

        Raises: IndexError — an id outside the vocabulary.
        """
        text = self._decode(self._known(ids, skip_special_tokens))
        for spaced, written in CLEANUP.items() if self.clean_up_tokenization_spaces else ():
            text = text.replace(spaced, written)
        return text

    def _decode(self, ids: list[int]) -> str:
        """The text of tokens that are in the vocabulary."""
        raise NotImplementedError(f"{type(self).__name__} needs a _decode method")

    def _known(self, ids: Iterable[int], skip_special_tokens: bool) -> list[int]:
        """The ids as a list, without special tokens if they are to be skipped."""
        listed = [int(i) for i in ids]
        if listed and not 0 <= min(listed) <= max(listed) < self.vocab_size:
            raise IndexError(
                f"decode: expected ids from 0 to {self.vocab_size - 1}, got ids from "
                f"{min(listed)} to {max(listed)}; decode with the tokenizer that encoded the text"
            )
        if not skip_special_tokens:
            return listed
        special = set(self.special_tokens.values())
        return [i for i in listed if i not in special]

    # --- Files --------------------------------------------------------------------------------

    def to_json(self) -> dict[str, Any]:
        """What `tokenizer.json` holds, in the layout of Hugging Face `tokenizers`."""
        raise NotImplementedError(f"{type(self).__name__} needs a to_json method")

    def _layout(self, **parts: Any) -> dict[str, Any]:
        """A tokenizer file with the added tokens, the template, and the named parts."""
        return hf_layout(
            added_tokens=write_added(self.added),
            post_processor=write_template(self.template, self.special_tokens),
            **parts,
        )

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Self:
        """The tokenizer that `to_json` describes.

        Raises: TokenizerError — a damaged file, a foreign one, or one that contradicts itself.
        """
        raise NotImplementedError(f"{cls.__name__} needs a from_json method")

    def save(self, directory: str | Path) -> None:
        """Write `tokenizer.json` into `directory`: the whole file or, if interrupted, none."""
        with replacing(Path(directory) / FILE_NAME) as file:
            file.write(self._text().encode())

    def _text(self) -> str:
        """What stands in `tokenizer.json`."""
        return json.dumps(self.to_json(), ensure_ascii=False, indent=2)

    def save_pretrained(self, directory: str | Path) -> None:
        """Write what `save` writes and, into `tokenizer_config.json`, the attributes to set.

        `transformers` opens the directory by its AutoTokenizer, `pretrained` by
        `tokenizer_from_pretrained`.
        """
        self.save(directory)
        special = self.special_tokens  # what has a role is one of them there
        config = {
            "tokenizer_class": "PreTrainedTokenizerFast",  # the one that takes all from the file
            **{f"{x}_token": token for x, token in self.roles.items() if token in special},
            "model_input_names": list(self.input_names),
            "padding_side": self.padding_side,
            "clean_up_tokenization_spaces": self.clean_up_tokenization_spaces,
        }
        if self.model_max_length is not None:
            config["model_max_length"] = self.model_max_length
        text = json.dumps(config, ensure_ascii=False, indent=2)
        with replacing(Path(directory) / CONFIG_FILE) as file:
            file.write(text.encode())

    @classmethod
    def load(cls, directory: str | Path) -> Self:
        """The tokenizer saved in `directory`: it encodes every text as the saved one does.

        Raises: TokenizerError — no file, a damaged or foreign one, or one of another kind.
        """
        content = read_tokenizer_file(directory)
        model_type = content["model"].get("type")
        check(model_type == cls.model_type, f"a model of type {cls.model_type}", model_type)
        return cls.from_json(content)


class ByteTokenizer(Tokenizer):
    """A tokenizer whose tokens are strings of bytes: a text's tokens, joined, are its UTF-8.

    `token_bytes` are the ordinary tokens; `tokens` spell them for the file.
    """

    def __init__(
        self,
        token_bytes: list[bytes],
        tokens: list[str],
        added: Sequence[AddedToken] = (),
        template: Template = PLAIN,
    ) -> None:
        super().__init__(tokens, added, template)
        new = self.tokens[len(tokens) :]
        self.token_bytes = [*token_bytes, *(content.encode() for content in new)]

    def decode_bytes(self, ids: Iterable[int], skip_special_tokens: bool = False) -> bytes:
        """The UTF-8 bytes of the tokens, which may begin or end inside a character.

        Raises: IndexError — an id outside the vocabulary.
        """
        return b"".join([self.token_bytes[i] for i in self._known(ids, skip_special_tokens)])

    def _decode(self, ids: list[int]) -> str:
        """The text of the tokens; bytes that are no UTF-8 become U+FFFD."""
        return self.decode_bytes(ids).decode("utf-8", errors="replace")


def read_common(
    content: dict[str, Any], tokens: Sequence[str]
) -> tuple[list[AddedToken], Template]:
    """A file's added tokens, in the order of their ids, and its template.

    Raises: TokenizerError — ids that are neither those of the ordinary `tokens` nor follow them,
        or a template of other tokens.
    """
    read = read_added(content.get("added_tokens"))
    listed = sorted(read, key=lambda pair: math.inf if pair[0] is None else pair[0])
    expected = {token: i for i, token in enumerate(tokens)}
    for i, token in listed:
        own = expected.setdefault(token.content, len(expected))
        check(i in (own, None), f"id {own} for the added token {token.content!r}", i)
    contents = [token.content for _, token in listed]
    check(len(set(contents)) == len(contents), "each added token once", contents)
    special = {token.content: expected[token.content] for _, token in listed if token.special}
    template = read_template(content.get("post_processor"), special)
    return [token for _, token in listed], template


def as_special(tokens: Sequence[str | AddedToken]) -> list[AddedToken]:
    """Strings become special tokens; what is an AddedToken stays as it is."""
    return [AddedToken(token) if isinstance(token, str) else token for token in tokens]


def _place(places: Sequence[Span] | None, start: int, end: int, shift: int) -> Span:
    """A span of the normalised text in the original one."""
    if places is None:
        return start + shift, end + shift
    if start == end:
        here = places[start][0] if start < len(places) else (places[-1][1] if places else 0)
        return here + shift, here + shift
    return places[start][0] + shift, places[end - 1][1] + shift


def as_texts(texts: Texts) -> Iterable[str]:
    """A single string is a stream of one text."""
    return [texts] if isinstance(texts, str) else texts


def check_unicode(text: str) -> None:
    """Raises: ValueError — at the first lone surrogate, half of a character, which has no UTF-8."""
    if text.isascii():
        return
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"expected Unicode text, got the lone surrogate {text[error.start]!r} at position "
            f"{error.start}; read files as UTF-8, or remove it: text.encode('utf-8', 'ignore')"
        ) from None
