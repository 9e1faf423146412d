"""Tokens as text that the fonts at hand can write."""

from functools import lru_cache

from minilm.tokenizers import Tokenizer

CHINESE = ("Noto Sans CJK SC", "Noto Sans CJK JP", "WenQuanYi Zen Hei", "WenQuanYi Micro Hei",
           "Microsoft YaHei", "SimHei", "PingFang SC", "Arial Unicode MS")  # fmt: skip
SIGNS = {" ": "␣", "\n": "⏎", "\t": "⇥"}


@lru_cache
def fonts() -> tuple[list[str], set[int]]:
    """The fonts to write tokens with, and the characters that they have."""
    from matplotlib import font_manager as manager

    installed = {font.name for font in manager.fontManager.ttflist}
    families = ["DejaVu Sans", *(name for name in CHINESE if name in installed)]
    files = [manager.findfont(name) for name in families]
    return families, {code for file in files for code in manager.get_font(file).get_charmap()}


def names(tokenizer: Tokenizer, ids: list[int]) -> list[str]:
    """The tokens as text; a character that no font has, as its number."""
    known = fonts()[1]
    return [
        "".join(
            sign if ord(sign) in known else f"U+{ord(sign):X}"
            for sign in (SIGNS.get(character, character) for character in tokenizer.decode([i]))
        )
        for i in ids
    ]
