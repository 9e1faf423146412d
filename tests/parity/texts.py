"""Generated texts in mixed scripts, the same in every run.

The tests ask for `tokenizers.models`, since without the package `tokenizers` is found all the same:
it is the folder beside this one.
"""

import numpy as np

SCRIPTS = [
    "abcdefghijklmnopqrstuvwxyz",
    "ABCDEFGHIJKLMNOPQRSTUVWXYZ",
    "aeiou thn ",
    "0123456789٠١٢½²Ⅷ",
    " \t\n\r\u00a0\u2003\u3000\x0b\x0c\x85\u2028",
    ".,;:!?'\"()[]{}<>|-_+=*&^%$#@~`/\\",
    "éèêëàâçñöüßÅØæœİıſŉ",
    "e\u0301a\u0308o\u0302\u0327",
    "的一是不了人我在有他这中大来上国",
    "あいうえおアイウエオー々",
    "한국어조선말",
    "абвгдежзийклмнопΑαΒβΓγΣσς",
    "עבריתالعربيةहिन्दी",
    "😀🎉👨\u200d👩\u200d👧🇫🇷👍🏽❤️",
    "\x00\x01\x1c\x1f\x7f\xad\u200b\u200e\ufeff\ufffd\ue000",
    "‘’“”—…«»‽№℃ﬁＡ１",
]
WORDS = [
    "the",
    " The",
    "don't",
    " I'LL",
    "we've",
    "low",
    "lower",
    "2024",
    "  ",
    "\n\n",
    "中文",
    "'s",
]


def generated(count: int, seed: int = 0) -> list[str]:
    """`count` strings of up to some forty characters, each of a few scripts."""
    rng = np.random.default_rng(seed)
    texts = []
    for _ in range(count):
        pieces = []
        for _ in range(rng.integers(0, 8)):
            if rng.random() < 0.3:
                pieces.append(WORDS[rng.integers(len(WORDS))])
            else:
                script = SCRIPTS[rng.integers(len(SCRIPTS))]
                pieces += [script[i] for i in rng.integers(0, len(script), rng.integers(1, 7))]
        texts.append("".join(pieces))
    return texts


ENGLISH = (
    "It was the best of times, it was the worst of times; in short, the period was so far like "
    "the present period, that some of its noisiest authorities insisted on its being received, "
    "for good or for evil, in the superlative degree of comparison only.\n\n"
    "There were a king with a large jaw and a queen with a plain face, on the throne of England.\n"
)
CHINESE = (
    "话说天下大势，分久必合，合久必分。周末七国分争，并入于秦；及秦灭之后，楚、汉分争，又并入于汉。\n"
    "汉朝自高祖斩白蛇而起义，一统天下，后来光武中兴，传至献帝，遂分为三国。\n"
)


def corpus(text: str, sentences: int, seed: int = 0) -> str:
    """A longer text in the language of `text`: its pieces in other orders."""
    rng = np.random.default_rng(seed)
    words = text.split(" ") if " " in text else list(text)
    space = " " if " " in text else ""
    lines = [space.join(rng.choice(words, rng.integers(3, 20))) for _ in range(sentences)]
    return text + "\n".join(lines)
