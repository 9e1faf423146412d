"""What BERT does to a text before WordPiece: a normal form, cut into words and signs.

Source: Devlin et al. 2018, arXiv 1810.04805, and its code, as `transformers` has it.
"""

import unicodedata
from collections.abc import Callable

import regex

# `transformers` goes by Unicode 8: the signs, marks and format characters that are such only since
# later versions. A run takes in what is none of the three.
NEWER = (
    "5C8-5C9 61D 7FD 890-8E2 9FD-9FE A76 AFA-AFF B53-B55 C04-C3C C77 C84 D00 D3B-D3C D81 EBA ECE "
    "180F-1886 1ABF-1AF0 1B4E-1B4F 1B7D-1B7F 1DF6-1DFB 2E43-2E63 A82C A8C5 A8FF A9BD 10D24-10F89 "
    "11070-11074 110C2-110CD 111C9 111CF 1123E-11241 1133B 113BB-1145E 11660-1166C 116B9 "
    "1182F-11FFF 12FF1-1612F 16D6D-16F4F 16FE2-16FE4 1CF00-1D128 1D25B-1D25C 1E000-1E6F5 "
    "1E944-1E95F"
)


def _unicode_8(category: str, former: str = "") -> str:
    """A category without its newer characters, and with those that have since gone elsewhere."""
    newer = regex.sub("[0-9A-F]+", lambda match: f"\\U{int(match[0], 16):08X}", NEWER)
    return f"[[{category}--[{newer.replace(' ', '')}]]{former}]"


ACCENT = regex.compile(_unicode_8(r"\p{Mn}", r"\u1734\U0001171E"), regex.V1)
CONTROL = regex.compile(_unicode_8(r"[[\p{Cc}\p{Cf}\p{Co}\uFFFD]--[\t\n\r]]"), regex.V1)
CHINESE = regex.compile(  # without U+2B820 to U+2B91F: so `transformers` has it
    r"[\u3400-\u4DBF\u4E00-\u9FFF\uF900-\uFAFF\U00020000-\U0002A6DF\U0002A700-\U0002B81F"
    r"\U0002B920-\U0002CEAF\U0002F800-\U0002FA1F]"
)
SIGN = _unicode_8(r"[\p{P}$+<=>\^`|~]", r"\u166D\U000111C9")
WORD = regex.compile(rf"{SIGN}|[^\s{SIGN}]+", regex.V1)


def normal_form(
    character: str,
    lower: bool = True,
    strip_accents: bool | None = None,
    chinese_spaces: bool = True,
    clean: bool = True,
) -> str:
    """What BERT makes of a character; a normalised text is that of its characters, joined.

    clean: control, format and private characters vanish, whitespace becomes a space.
    chinese_spaces: spaces around a Chinese character, so that it is a word. strip_accents (None: as
    `lower`): é becomes e; the canonical decomposition, without non-spacing marks. lower: small
    letters.

    Differs: of several marks that stay on a letter, `transformers` restores the canonical order.

    >>> [normal_form(character) for character in ("É", "中", "\\t", "\\0")]
    ['e', ' 中 ', ' ', '']
    """
    form = character
    if clean:
        form = "" if CONTROL.match(form) else " " if form.isspace() else form
    if chinese_spaces and CHINESE.match(form):
        form = f" {form} "
    if lower if strip_accents is None else strip_accents:
        form = ACCENT.sub("", unicodedata.normalize("NFD", form))
    return form.lower() if lower else form


class Forms(dict[int, str]):
    """A table for `str.translate`: code point -> normal form, worked out when it is asked for."""

    def __init__(self, form: Callable[[str], str]) -> None:
        self.form = form

    def __missing__(self, code: int) -> str:
        self[code] = form = self.form(chr(code))
        return form
