"""What byte-level tokenizers do before their algorithm: cut text into chunks, show bytes."""

from collections.abc import Iterator

import regex

# A contraction, or letters, digits or other signs with the space before them, or whitespace. Of a
# run of whitespace the last character is left over, so that a space goes to the word behind it.
# Source: Radford et al. 2019, the encoder released with GPT-2.
GPT2_PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


def compile_pattern(pattern: str) -> regex.Pattern[str]:
    """The compiled split pattern.

    Raises: ValueError — not a regular expression.
    """
    try:
        return regex.compile(pattern)
    except regex.error as error:
        raise ValueError(
            f"pattern: expected a regular expression, got {pattern!r}: {error}; "
            "the default is pretokenize.GPT2_PATTERN"
        ) from error


def chunks(text: str, pattern: regex.Pattern[str]) -> Iterator[str]:
    """The matches of the pattern and the pieces between them: joined, they are the text.

    >>> list(chunks("It's 2  o'clock", compile_pattern(GPT2_PATTERN)))
    ['It', "'s", ' 2', ' ', ' o', "'", 'clock']
    >>> list(chunks("one, two", compile_pattern("[a-z]+")))
    ['one', ', ', 'two']
    """
    done = 0
    for match in pattern.finditer(text):
        start, end = match.span()
        if done < start:
            yield text[done:start]
        if start < end:
            yield text[start:end]
        done = end
    if done < len(text):
        yield text[done:]


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
