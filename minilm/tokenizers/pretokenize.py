"""What byte-level tokenizers do before their algorithm: cut text into chunks, show bytes."""

import re
from collections.abc import Iterator
from functools import cache

import regex

# A contraction, or letters, digits or other signs with the space before them, or whitespace. Of a
# run of whitespace the last character is left over, so that a space goes to the word behind it.
# Source: Radford et al. 2019, the encoder released with GPT-2.
GPT2_PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
# The same with at most three digits in a chunk, any one sign (not only a space) before letters,
# contractions in capitals too, line ends apart from other whitespace, and all the whitespace at the
# end of the text (which `(?!\s|\S)` is: nothing follows) in one chunk.
# Source: the encoding cl100k_base of OpenAI's tiktoken.
CL100K_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s+(?!\s|\S)|\s*[\r\n]+|\s+(?!\S)|\s+"
)
PATTERNS = {"gpt2": GPT2_PATTERN, "cl100k": CL100K_PATTERN}


class Splitter:
    """Cuts text into chunks: the matches of a pattern and the pieces between them.

    The pattern is one of the `regex` package, whose classes such as \\p{L} Python's own `re` does
    not have. `re` is two or three times as fast, though, and serves for texts whose characters are
    below a limit if the classes are written out up to there: see `_for_re`.

    Raises: ValueError — not a regular expression.
    """

    def __init__(self, pattern: str) -> None:
        self.pattern = PATTERNS.get(pattern, pattern)
        try:
            self._regex = regex.compile(self.pattern)
        except regex.error as error:
            raise ValueError(
                f"pattern: expected a regular expression, or one of {', '.join(PATTERNS)}, got "
                f"{pattern!r}: {error}; correct it, or take gpt2"
            ) from error

    def split(self, text: str) -> list[str]:
        """The chunks: joined, they are the text.

        >>> Splitter("gpt2").split("It's 2  o'clock")
        ['It', "'s", ' 2', ' ', ' o', "'", 'clock']
        >>> Splitter("[a-z]+").split("one, two")
        ['one', ', ', 'two']
        """
        limit = ASCII if text.isascii() else BMP
        fast = _for_re(self.pattern, limit)
        if fast is not None and (limit == ASCII or _in_bmp(text)):
            pieces = fast.findall(text)
        elif self._regex.groups == 0:
            pieces = self._regex.findall(text)
        else:
            return list(self._with_gaps(text))
        if self.pattern in PATTERNS.values():  # which leave nothing out
            return pieces
        complete = sum(map(len, pieces)) == len(text)
        return list(filter(None, pieces)) if complete else list(self._with_gaps(text))

    def _with_gaps(self, text: str) -> Iterator[str]:
        done = 0
        for match in self._regex.finditer(text):
            start, end = match.span()
            if done < start:
                yield text[done:start]
            if start < end:
                yield text[start:end]
            done = end
        if done < len(text):
            yield text[done:]


def _in_bmp(text: str) -> bool:
    return len(text.encode("utf-16-le", "surrogatepass")) == 2 * len(text)


ASCII, BMP = 0x7F, 0xFFFF  # characters up to U+FFFF: `re` looks larger ones up one by one


@cache
def _ranges(escape: str, limit: int) -> str:
    """The characters up to `limit` that an escape such as \\p{L} matches, as a class's inside."""
    characters = "".join(chr(c) for c in range(limit + 1) if not 0xD800 <= c < 0xE000)
    runs = regex.findall(f"{escape}+", characters)
    return "".join(f"{re.escape(run[0])}-{re.escape(run[-1])}" for run in runs)


PARTS = regex.compile(
    r"(?P<property>\\p\{\w+\}|\\s)|(?P<negated>\\P\{\w+\}|\\S)|(?P<plain>\\[rnt]|\\[^\w\s])"
    r"|(?P<group>\(\?(?:i?:|<?[!=]))|(?P<open>\[\^?)|(?P<close>\])|(?P<foreign>[\\(.^])|(?s:.)"
)


@cache
def _for_re(pattern: str, limit: int) -> "re.Pattern[str] | None":
    """The pattern for Python's `re` and texts up to `limit`; None if it has what we cannot spell.

    Nothing else may follow a backslash, nor stand in a class, than what `PARTS` names.
    """
    written, in_class = "", False
    for part in PARTS.finditer(pattern):
        kind, text = part.lastgroup, part.group()
        if kind == "property":
            text = _ranges(text, limit) if in_class else f"[{_ranges(text, limit)}]"
        elif kind == "negated" and not in_class:
            positive = text.replace("P", "p").replace("S", "s")
            text = f"[^{_ranges(positive, limit)}]"
        elif kind == "open" and not in_class:
            in_class = True
        elif kind == "close" and in_class:
            in_class = False
        elif kind in ("negated", "open", "close", "foreign") and not (in_class and text in "(.^"):
            return None
        written += text
    try:
        return re.compile(written)
    except re.error:  # such as a class without characters up to the limit
        return None


def _byte_characters() -> list[str]:
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    spare = iter(range(0x100, 0x200))
    return [chr(byte if byte in printable else next(spare)) for byte in range(256)]


BYTE_CHARACTERS = _byte_characters()
CHARACTER_BYTES = {character: byte for byte, character in enumerate(BYTE_CHARACTERS)}


def show_bytes(data: bytes) -> str:
    """Bytes as GPT-2's files write them: each byte a printable character.

    Printable bytes of Latin-1 stand for themselves; the others, in their order, for U+0100 up.

    >>> show_bytes("é one".encode())
    'Ã©Ġone'
    """
    return "".join([BYTE_CHARACTERS[byte] for byte in data])


def parse_bytes(shown: str) -> bytes:
    """The bytes that `show_bytes` wrote.

    Raises: KeyError — a character that stands for no byte.

    >>> parse_bytes("Ã©Ġone").decode()
    'é one'
    """
    return bytes([CHARACTER_BYTES[character] for character in shown])
