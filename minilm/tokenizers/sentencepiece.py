"""What SentencePiece does before its algorithm: one spelling for a text, and ▁ for spaces.

A space becomes the visible ▁, and one is put before the text, so that a word is spelt alike
wherever it stands and the spaces of a decoded text are known. The settings are the "normalizer"
and "pre_tokenizer" of a `tokenizer.json`.

Source: Kudo, Richardson 2018, arXiv 1808.06226, sections 3.1 and 3.2.
"""

import base64
import binascii
import sys
import unicodedata
from array import array
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, NamedTuple

import regex

from minilm.tokenizers.files import check, is_text

Spec = dict[str, Any]  # a part of a tokenizer file
Span = tuple[int, int]
Edit = tuple[int, int, str]  # a stretch of a text, start and end, and what replaces it
MARK = "▁"
# Unicode's White_Space; Python holds the separators U+001C to U+001F to be whitespace too.
SEPARATORS = "\x1c\x1d\x1e\x1f"
WHITESPACE = "".join(c for c in map(chr, range(0x3001)) if c.isspace() and c not in SEPARATORS)


# --- Normalisation ------------------------------------------------------------------------------


class Step(NamedTuple):
    """One change of a text: as a whole, and as edits from left to right, which give the same."""

    whole: Callable[[str], str]
    edits: Callable[[str], Iterable[Edit]]


class Normalizer:
    """The steps that a file's "normalizer" names, one after the other.

    Raises: TokenizerError — a kind of step that is not known, or a damaged one.

    >>> parts = [{"type": "NFKC"}, {"type": "Strip", "strip_left": True, "strip_right": True}]
    >>> Normalizer({"type": "Sequence", "normalizers": parts})(" x² ")
    'x2'
    """

    def __init__(self, spec: Spec | None) -> None:
        self.steps = list(_read_steps(spec))

    def __call__(self, text: str) -> str:
        for step in self.steps:
            text = step.whole(text)
        return text

    def aligned(self, text: str) -> tuple[str, list[Span]]:
        """The normalised text, and of each of its characters the place in `text`."""
        places = [(i, i + 1) for i in range(len(text))]
        for step in self.steps:
            done, pieces, new = 0, [], []
            for start, end, replacement in step.edits(text):
                pieces += [text[done:start], replacement]
                new += places[done:start]
                # what is put before a character has its place
                replaced = places[start : max(end, start + 1)]
                new += [(replaced[0][0], replaced[-1][1])] * len(replacement) if replaced else []
                done = end
            text, places = "".join([*pieces, text[done:]]), new + places[done:]
        return text, places


def _read_steps(spec: Any) -> Iterator[Step]:
    match spec:
        case None:
            pass
        case {"type": "Sequence", "normalizers": list(parts)}:
            for part in parts:
                yield from _read_steps(part)
        case {"type": "NFC" | "NFD" | "NFKC" | "NFKD" as form}:
            yield Step(partial(unicodedata.normalize, form), partial(_form_edits, form))
        case {"type": "Lowercase"}:
            yield CharacterTable(str.lower).step()
        case {"type": "StripAccents"}:
            yield CharacterTable(_without_accent).step()
        case {"type": "Nmt"}:
            yield CharacterTable(lambda character: NMT.get(character, character)).step()
        case {"type": "Strip", "strip_left": bool(left), "strip_right": bool(right)}:
            edits = partial(_strip_edits, left=left, right=right)
            yield Step(partial(_apply, edits), edits)
        case {"type": "Prepend", "prepend": str(prefix)}:
            yield Step(
                lambda text: prefix + text if text else text,
                lambda text: [(0, 0, prefix)] if text else [],
            )
        case {"type": "Replace", "pattern": {"String": str(old)}, "content": str(new)}:
            yield _replace(regex.escape(old), new)
        case {"type": "Replace", "pattern": {"Regex": str(pattern)}, "content": str(new)}:
            yield _replace(pattern, new)
        case {"type": "Precompiled", "precompiled_charsmap": str(encoded)}:
            try:
                blob = base64.b64decode(encoded, validate=True)
            except (binascii.Error, ValueError) as error:
                check(False, "a precompiled_charsmap in base64", str(error))
                raise
            yield Charsmap(blob).step()
        case _:
            check(False, "a normalizer of known steps", spec)


def _apply(edits: Callable[[str], Iterable[Edit]], text: str) -> str:
    """The edited text."""
    pieces, done = [], 0
    for start, end, replacement in edits(text):
        pieces += [text[done:start], replacement]
        done = end
    return "".join([*pieces, text[done:]])


class CharacterTable(dict[int, str]):
    """What each character becomes, worked out when it first comes, as `str.translate` reads it."""

    def __init__(self, change: Callable[[str], str]) -> None:
        super().__init__()
        self.change = change

    def __missing__(self, code: int) -> str:
        self[code] = new = self.change(chr(code))
        return new

    def whole(self, text: str) -> str:
        """The text with each character replaced."""
        return text.translate(self)

    def edits(self, text: str) -> Iterator[Edit]:
        """The same as edits."""
        for i, character in enumerate(text):
            if (new := self[ord(character)]) != character:
                yield i, i + 1, new

    def step(self) -> Step:
        """This table as a step."""
        return Step(self.whole, self.edits)


# What the machine translation system whose name nmt is drops, and what it takes for spaces.
NMT = dict.fromkeys(map(chr, [*range(1, 9), 0xB, *range(0xE, 0x20), 0x7F, 0x8F, 0x9F]), "")
NMT |= dict.fromkeys("\t\n\f\r\u1680\u200b\u200c\u200d\u200e\u200f\u2028\u2029▁\ufeff\ufffd", " ")


def _without_accent(character: str) -> str:
    return "" if unicodedata.category(character)[0] == "M" else character


def _strip_edits(text: str, left: bool, right: bool) -> list[Edit]:
    start = len(text) - len(text.lstrip(WHITESPACE)) if left else 0
    end = len(text.rstrip(WHITESPACE)) if right else len(text)
    return [(0, start, ""), (end, len(text), "")] if start < end else [(0, len(text), "")]


def _replace(pattern: str, new: str) -> Step:
    try:
        compiled = regex.compile(pattern)
    except regex.error as error:
        check(False, "a regular expression to replace", f"{pattern!r}: {error}")
        raise
    return Step(
        lambda text: compiled.sub(lambda _: new, text),
        lambda text: [(*match.span(), new) for match in compiled.finditer(text)],
    )


def _form_edits(form: Any, text: str) -> list[Edit]:
    """What a normal form changes, in stretches as short as can be: those that do not interact."""
    if unicodedata.is_normalized(form, text):
        return []
    normal = partial(unicodedata.normalize, form)
    edits: list[Edit] = []
    for match in GRAPHEME.finditer(text):
        start, end = match.span()
        new = normal(text[start:end])
        if edits:
            before, _, old = edits[-1]
            joined = normal(text[before:end])
            if joined != old + new:
                edits[-1] = (before, end, joined)
                continue
        edits.append((start, end, new))
    whole = normal(text)
    if "".join(new for _, _, new in edits) != whole:  # subtle: three that interact, no two do
        return [(0, len(text), whole)]
    return [edit for edit in edits if text[edit[0] : edit[1]] != edit[2]]


# --- SentencePiece's own table of characters ----------------------------------------------------

GRAPHEME = regex.compile(r"\X")
# Characters that can share a grapheme with a neighbour; runs of them and of neighbours between.
_SINGLE = r"[\p{GCB=Other}\p{GCB=Control}\p{GCB=LF}\p{GCB=LV}\p{GCB=LVT}]"
_JOINER = f"[^{_SINGLE[1:]}"
JOINED = regex.compile(f"{_SINGLE}?+{_JOINER}(?:{_SINGLE}?+{_JOINER})*+{_SINGLE}?+")


class Charsmap(CharacterTable):
    """SentencePiece's "precompiled_charsmap".

    A grapheme, what a reader takes for one character, of fewer than 6 bytes is looked up as a
    whole; otherwise, and if it is not found, character by character. subtle: what is found is the
    shortest entry that the grapheme begins with, in place of the *whole* grapheme, so that an
    accent behind it is lost. It is what Hugging Face `tokenizers` does, so models expect it.

    The table is the size of a trie, the trie, and replacements that end in a zero byte. The trie
    is an array of 32-bit units. From a node with base b the byte c leads to the unit at b xor c, if
    that has the label c; its own base is b xor c xor its offset. If it is a leaf, the unit at its
    base says where its replacement begins.

    Raises: TokenizerError — a table that does not hold its trie, or not in UTF-8; damage inside
        the trie is found when a character leads there.
    Source: Aoe 1989; the layout is that of Darts-clone, which SentencePiece uses.
    """

    def __init__(self, blob: bytes) -> None:
        super().__init__(lambda c: c if (new := self.find(c)) is None else new)
        size = int.from_bytes(blob[:4], "little")
        ok = 0 < size <= len(blob) - 4 and size % 4 == 0
        check(ok, "a precompiled_charsmap that holds its trie", len(blob))
        self._units = array("I")
        self._units.frombytes(blob[4 : 4 + size])
        if sys.byteorder == "big":
            self._units.byteswap()
        self._texts = blob[4 + size :]

    def find(self, text: str) -> str | None:
        """The replacement of the table's shortest entry that the text begins with."""
        units = self._units
        try:
            base = _offset(units[0])
            for byte in text.encode():
                unit = units[base ^ byte]
                if byte == 0 or unit & 0x800000FF != byte:
                    return None
                base ^= byte ^ _offset(unit)
                if unit & 0x100:
                    start = units[base] & 0x7FFFFFFF
                    return self._texts[start : self._texts.index(0, start)].decode()
        except (IndexError, ValueError) as error:
            check(False, "a precompiled_charsmap without holes", f"{text!r}: {error}")
        return None

    def edits(self, text: str) -> Iterator[Edit]:
        """The definition: grapheme by grapheme."""
        for match in GRAPHEME.finditer(text):
            grapheme, start = match[0], match.start()
            if len(grapheme.encode()) < 6 and (new := self.find(grapheme)) is not None:
                yield start, match.end(), new
                continue
            yield from ((start + i, start + j, new) for i, j, new in super().edits(grapheme))

    def whole(self, text: str) -> str:
        """The same, faster: of most texts each character is a grapheme, which `translate` knows."""
        if text.isascii() and "\r" not in text:
            return text.translate(self)
        pieces, done = [], 0
        for match in JOINED.finditer(text):
            pieces += [text[done : match.start()].translate(self), _apply(self.edits, match[0])]
            done = match.end()
        return "".join([*pieces, text[done:].translate(self)])


def _offset(unit: int) -> int:
    return unit >> 10 << (8 if unit & 0x200 else 0)


# --- Words --------------------------------------------------------------------------------------


class WordSplitter:
    """Spaces to ▁, and words that begin with it, as a file's "pre_tokenizer" says.

    Metaspace turns spaces into ▁; puts one before a text that does not begin with it: `always`,
    only where it is the `first`, or `never`; and cuts before each ▁ (`split`). WhitespaceSplit
    cuts at whitespace before that and leaves it out. None leaves a text as it is.

    Raises: TokenizerError — a pre_tokenizer of another kind.

    >>> WordSplitter({"type": "Metaspace", "replacement": "▁"}).words("a  cat", True)
    ['▁a', '▁', '▁cat']
    """

    def __init__(self, spec: Spec | None) -> None:
        self.by_whitespace, self.mark, self.prepend, self.split = False, "", "never", False
        metaspace: Any = spec
        match spec:
            case {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, last]}:
                metaspace, self.by_whitespace = last, True
            case {"type": "Sequence", "pretokenizers": [only]}:
                metaspace = only
        match metaspace:
            case None if spec is None:
                return
            case {"type": "Metaspace", "replacement": str(mark)}:
                self.mark = mark if is_text(mark) and len(mark) == 1 else ""
                self.split = metaspace.get("split", True)
                older = "always" if metaspace.get("add_prefix_space", True) else "never"
                self.prepend = metaspace.get("prepend_scheme", older)
        known = self.mark and self.prepend in ("always", "first", "never")
        check(bool(known) and type(self.split) is bool, "a Metaspace pre_tokenizer", spec)

    def words(self, text: str, first: bool) -> list[str]:
        """The words of a text; `first`: the whole text begins with it."""
        if self.by_whitespace and self.prepend == "always" and self.mark not in text:
            return [self.mark + part for part in _split_at_whitespace(text)]
        if self.by_whitespace or not self.split or not text:
            return [word for word, _, _ in self.placed(text, first)]
        head, *rest = text.replace(" ", self.mark).split(self.mark)
        wanted = self.prepend == "always" or (self.prepend == "first" and first)
        words = [self.mark + word for word in rest]
        return [self.mark * wanted + head, *words] if head else words

    def placed(self, text: str, first: bool) -> Iterator[tuple[str, int, int]]:
        """(word, offset, low) of each word: its character i is that at offset + i of the text,
        except for a ▁ put before it, which has the place of the one at `low`, the next.
        """
        pattern = _NO_WHITESPACE if self.by_whitespace else _ANYTHING
        for match in pattern.finditer(text):
            low = match.start()
            marked = match[0].replace(" ", self.mark) if self.mark else match[0]
            wanted = self.prepend == "always" or (self.prepend == "first" and first and low == 0)
            offset = low
            if wanted and marked[0] != self.mark:
                marked, offset = self.mark + marked, low - 1
            for start, end in self._cuts(marked):
                yield marked[start:end], offset + start, low

    def _cuts(self, marked: str) -> Iterator[Span]:
        start = 0
        while self.split and (end := marked.find(self.mark, start + 1)) >= 0:
            yield start, end
            start = end
        yield start, len(marked)


_NO_WHITESPACE, _ANYTHING = regex.compile(r"\S+"), regex.compile(r"(?s).+")


def _split_at_whitespace(text: str) -> list[str]:
    if any(separator in text for separator in SEPARATORS):
        return _NO_WHITESPACE.findall(text)
    return text.split()
