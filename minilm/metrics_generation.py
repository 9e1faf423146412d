"""Figures for written text: BLEU and chrF of translations, ROUGE of summaries.

All of them take the text as it is shown to a reader, and cut it into tokens themselves: figures of
texts that were cut in different ways cannot be compared (Post 2018, arXiv 1804.08771).

`references` stand beside their predictions: references[i] is the reference of predictions[i], or
the list of all it has. sacrebleu wants them the other way round, as the lists of all first, all
second, ... references: `list(zip(*references))`.
"""

import math
import re
import string
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial, reduce
from operator import or_
from reprlib import repr as short
from typing import Any, NamedTuple

import regex

from minilm.metrics import PrecisionRecallF1

References = Sequence[str] | Sequence[Sequence[str]]
ENTITIES = {"&quot;": '"', "&amp;": "&", "&lt;": "<", "&gt;": ">"}
# Signs of ASCII stand alone. Full stops and commas do unless digits are on both sides, as in
# 1,000.5, and a hyphen does behind a digit; an apostrophe never does.
# subtle: a match uses up its two characters, so that of "x.,5" the full stop alone is cut off.
WESTERN = [
    (re.compile(r"(?!['.,-])[!-/:-@\[-`{-~]"), r" \g<0> "),
    (re.compile(r"(\D)([.,])", re.ASCII), r"\1 \2 "),
    (re.compile(r"([.,])(\D)", re.ASCII), r" \1 \2"),
    (re.compile(r"(\d)-", re.ASCII), r"\1 - "),
]
# The same with Unicode's punctuation and numbers, and its symbols always alone.
INTERNATIONAL = [
    (regex.compile(r"(\P{N})(\p{P})"), r"\1 \2 "),
    (regex.compile(r"(\p{P})(\P{N})"), r" \1 \2"),
    (regex.compile(r"\p{S}"), r" \g<0> "),
]
# Ideographs, their parts, signs and wide forms; kana are not among them. The first range is what
# sacrebleu makes of ideographs 20000-2A6D6: it holds quotation marks and dashes, and other scripts.
CHINESE = re.compile(
    "[\u2001-\u2a6d\u2e80-\u2fdf\u2ff0-\u303f\u3100-\u312f\u31a0-\u31ef\u3200-\u4db5\u4e00-\u9fbb"
    "\uf900-\ufa2d\ufa30-\ufa6a\ufa70-\ufad9\ufe10-\ufe1f\ufe30-\ufe4f\uff00-\uffef]"
)


def _spaced(rules: list[tuple[Any, str]], text: str) -> list[str]:
    for pattern, parted in rules:
        text = pattern.sub(parted, text)
    return text.split()


def _13a(text: str) -> list[str]:
    text = text.replace("<skipped>", "").replace("-\n", "").replace("\n", " ")
    for entity, sign in ENTITIES.items():
        text = text.replace(entity, sign)
    return _spaced(WESTERN, f" {text} ")


def _zh(text: str) -> list[str]:
    return _spaced(WESTERN, CHINESE.sub(r" \g<0> ", text.strip()))


def _char(text: str) -> list[str]:
    return list("".join(text.split()))


TOKENIZERS: dict[str, Callable[[str], list[str]]] = {
    "13a": _13a,
    "intl": partial(_spaced, INTERNATIONAL),
    "zh": _zh,
    "char": _char,
    "none": str.split,
}
SMOOTHING = {"exp": 0.0, "floor": 0.1, "add-k": 1.0, "none": 0.0}  # default of smooth_value


class Bleu(NamedTuple):
    """BLEU and what it is made of; score and precisions (of 1-grams, 2-grams, ...) in percent."""

    score: float
    precisions: tuple[float, ...]
    brevity_penalty: float
    length: int
    reference_length: int


def bleu(
    predictions: Sequence[str],
    references: References,
    *,
    tokenize: str = "13a",
    smooth: str = "exp",
    smooth_value: float | None = None,
    max_order: int = 4,
    effective_order: bool = False,
    lowercase: bool = False,
) -> Bleu:
    """100 · min(1, exp(1 - r / c)) · (p₁ ··· p_N)^(1/N), over the whole corpus.

    pₙ = right n-grams / predicted n-grams; one is right as often as the reference that has it most
    often does. c is the length of the predictions, r that of the references: of several the one
    nearest in length, the shorter of two. N is `max_order`; with `effective_order` the highest
    order of which there are n-grams.

    tokenize: "13a" parts words from signs, for Western languages; "intl" knows the signs of all
    scripts; "zh" parts Chinese characters too; "char" takes all characters but spaces; "none"
    splits at spaces. smooth, where no n-gram is right: "exp" counts 1/2, 1/4, ... right ones in one
    order after another; "floor" counts `smooth_value` (0.1) of them; "add-k" adds `smooth_value`
    (1) to right and predicted of all orders above 1; with "none" the score is 0. It is 0 with all
    of them where not even a token is right; then the precisions are too.

    Raises: ValueError — a string in place of a list, numbers of texts that differ, a prediction
        without a reference, unknown options.
    Source: Papineni et al. 2002, Bleu; Post 2018, arXiv 1804.08771 (sacrebleu: the same figures);
        smoothing: Chen & Cherry 2014, methods 1-3.

    >>> figures = bleu(["the the the the"], ["the cat is on the mat"], max_order=1)
    >>> figures.precisions, figures.length, figures.reference_length
    ((50.0,), 4, 6)
    """
    cut = _option("tokenize", tokenize, TOKENIZERS)
    default = _option("smooth", smooth, SMOOTHING)
    value = default if smooth_value is None else smooth_value
    if max_order < 1 or value < 0:
        raise ValueError(
            f"expected max_order >= 1 and smooth_value >= 0, got {max_order} and {value}; BLEU "
            "takes orders up to 4"
        )
    right, found = [0.0] * max_order, [0.0] * max_order
    length = reference_length = 0
    for prediction, texts in _paired(predictions, references):
        tokens, *others = (
            cut((text.lower() if lowercase else text).rstrip()) for text in (prediction, *texts)
        )
        n_tokens = len(tokens)
        length += n_tokens
        reference_length += min(map(len, others), key=lambda n: (abs(n - n_tokens), n))
        for i in range(max_order):
            ngrams = _ngrams(tokens, i + 1)
            allowed = reduce(or_, (_ngrams(other, i + 1) for other in others))
            right[i] += (ngrams & allowed).total()
            found[i] += ngrams.total()
    penalty = 1.0
    if length < reference_length:
        penalty = math.exp(1 - reference_length / length) if length else 0.0
    score, shares = 0.0, [0.0] * max_order
    if any(right):
        _smooth(right, found, smooth, value)
        shares = [r / n if n else 0.0 for r, n in zip(right, found, strict=True)]
        order = sum(n > 0 for n in found) if effective_order else max_order
        if all(shares[:order]):
            score = 100 * penalty * math.exp(sum(map(math.log, shares[:order])) / order)
    return Bleu(score, tuple(100 * p for p in shares), penalty, length, reference_length)


def _smooth(right: list[float], found: list[float], method: str, value: float) -> None:
    """Change the counts, so that fewer orders have nothing right."""
    halved = 1.0
    for i in range(len(right)):
        if method == "add-k" and i > 0:
            right[i] += value
            found[i] += value
        elif method == "exp" and found[i] and not right[i]:
            halved /= 2
            right[i] = halved
        elif method == "floor" and found[i] and not right[i]:
            right[i] = value


def sentence_bleu(
    prediction: str, references: Sequence[str], *, effective_order: bool = True, **options: Any
) -> Bleu:
    """`bleu` of one text and its references, as far as it has n-grams; `options` are those of bleu.

    BLEU is made for corpora: of single sentences most of the figure is smoothing, and their mean is
    not the BLEU of the corpus.

    Raises: ValueError — references that are one string, not a list, or none; unknown options.
    Source: as `bleu`.

    >>> sentence_bleu("a b", ["a b"]).score, bleu(["a b"], ["a b"]).score
    (100.0, 0.0)
    """
    if isinstance(references, str):
        raise _no_list("references", references)
    return bleu([prediction], [references], effective_order=effective_order, **options)


def chrf(
    predictions: Sequence[str],
    references: References,
    *,
    char_order: int = 6,
    word_order: int = 0,
    beta: float = 2,
    lowercase: bool = False,
) -> float:
    """100 · (1 + β²) P R / (β² P + R), with P and R the means over the orders of n-grams.

    The n-grams are those of characters, spaces left out, and of up to `word_order` words, which
    lose one sign of ASCII at their end, or else at their beginning: 2 is chrF++. Precision and
    recall of an order are over the whole corpus; orders without n-grams in the predictions or the
    references are left out, and so are a prediction's n-grams of an order that its own reference
    has none of. Of several references counts the one whose own chrF is highest, the first of
    equals. β is how much more recall matters than precision.

    Raises: ValueError — a string in place of a list, numbers of texts that differ, a prediction
        without a reference, orders below 0 or none above, beta <= 0.
    Source: Popović 2015, chrF; Popović 2017, chrF++; Post 2018, arXiv 1804.08771 (sacrebleu: the
        same figures).

    >>> round(chrf(["abc"], ["abd"], char_order=2), 9)  # (2/3 + 1/2) / 2
    58.333333333
    """
    if min(char_order, word_order) < 0 or not char_order + word_order or beta <= 0:
        raise ValueError(
            f"expected char_order and word_order >= 0, one of them > 0, and beta > 0, got "
            f"{char_order}, {word_order} and {beta}; chrF takes 6, 0 and 2, chrF++ 6, 2 and 2"
        )

    def ngrams(text: str) -> list[Counter]:
        text = text.lower() if lowercase else text
        units = [(_char(text), n + 1) for n in range(char_order)]
        units += [(_chrf_words(text), n + 1) for n in range(word_order)]
        return [_ngrams(tokens, n) for tokens, n in units]

    total = [[0, 0, 0] for _ in range(char_order + word_order)]
    for prediction, texts in _paired(predictions, references):
        found = ngrams(prediction)
        best = max((_matches(found, ngrams(text)) for text in texts), key=partial(_f, beta=beta))
        total = [
            [a + b for a, b in zip(*rows, strict=True)] for rows in zip(total, best, strict=True)
        ]
    return 100 * _f(total, beta)


def _chrf_words(text: str) -> list[str]:
    words = []
    for word in text.split():
        if len(word) > 1 and word[-1] in string.punctuation:
            words += [word[:-1], word[-1]]
        elif len(word) > 1 and word[0] in string.punctuation:
            words += [word[0], word[1:]]
        else:
            words.append(word)
    return words


def _matches(found: list[Counter], wanted: list[Counter]) -> list[list[int]]:
    """Right, found and wanted n-grams of each order; none are found where none are wanted."""
    return [
        [(a & b).total(), a.total() if b else 0, b.total()]
        for a, b in zip(found, wanted, strict=True)
    ]


def _f(counts: list[list[int]], beta: float) -> float:
    """F of the mean precision and the mean recall over the orders that both sides have."""
    precision = recall = 0.0
    orders = 0
    for right, found, wanted in counts:
        if found and wanted:
            precision += right / found
            recall += right / wanted
            orders += 1
    if not precision:
        return 0.0
    precision, recall = precision / orders, recall / orders
    return (1 + beta**2) * precision * recall / (beta**2 * precision + recall)


ASCII_WORD = re.compile(r"[a-z0-9]+")
LETTER = regex.compile(r"[\p{L}\p{N}]\p{M}*")
ROUGE_TOKENIZERS: dict[str, Callable[[str], list[str]]] = {
    "words": lambda text: ASCII_WORD.findall(text.lower()),
    "char": lambda text: LETTER.findall(text.lower()),
}


def rouge(prediction: str, reference: str, tokenize: str = "words") -> dict[str, PrecisionRecallF1]:
    """Precision, recall, F1 of what text and reference share: s / p,  s / r,  2 s / (p + r).

    rouge1, rouge2: shared tokens and pairs of neighbours, each as often as both texts have it.
    rougeL: the longest sequence of tokens that stands in both in the same order, gaps allowed.
    rougeLsum: as rougeL, line by line. A token of a reference's line is shared if it is in the
    longest sequence common with any of the prediction's lines, and no token more often than the
    prediction has it. A text that is one line has the same rougeL and rougeLsum.
    `support` is r. All figures are 0 where p or r is.

    tokenize: "words" are small letters a-z and digits, as in all published figures; other letters
    are lost, so that two Chinese texts have nothing to share. "char" takes every letter and digit
    of any script alone, with its accents.

    Raises: ValueError — texts that are no strings, an unknown tokenize.
    Source: Lin 2004, ROUGE, sections 2 and 3; the package rouge-score, without its stemmer.

    >>> scores = rouge("the gunman killed police", "police killed the gunman")
    >>> [round(figures.f1, 3) for figures in scores.values()]
    [1.0, 0.333, 0.5, 0.5]
    >>> rouge("今天下雨。", "今天不下雨！", tokenize="char")["rougeL"].recall
    0.8
    """
    cut = _option("tokenize", tokenize, ROUGE_TOKENIZERS)
    for name, text in (("prediction", prediction), ("reference", reference)):
        if not isinstance(text, str):
            raise ValueError(
                f"expected {name} as one str, got {short(text)}; rouge_corpus takes lists"
            )
    lines = [[cut(line) for line in text.split("\n")] for text in (prediction, reference)]
    said, wanted = ([token for line in side for token in line] for side in lines)
    pairs = [(_ngrams(said, n), _ngrams(wanted, n)) for n in (1, 2)]
    counts = {
        **{
            f"rouge{n}": ((a & b).total(), a.total(), b.total())
            for n, (a, b) in enumerate(pairs, 1)
        },
        "rougeL": (_common_length(said, wanted), len(said), len(wanted)),
        "rougeLsum": (_common_by_line(*lines), len(said), len(wanted)),
    }
    return {name: PrecisionRecallF1.from_counts(*row) for name, row in counts.items()}


def rouge_corpus(
    predictions: Sequence[str], references: References, tokenize: str = "words"
) -> dict[str, float]:
    """The mean F1s of `rouge`, 0..1; of several references, for each of the four, the best F1.

    Raises: ValueError — a string in place of a list, numbers of texts that differ, a prediction
        without a reference, an unknown tokenize.
    Source: as `rouge`.

    >>> rouge_corpus(["a cat", "a dog"], ["a cat", ["the cow", "the dog"]])["rouge1"]
    0.75
    """
    best = []
    for prediction, texts in _paired(predictions, references):
        scores = [rouge(prediction, text, tokenize) for text in texts]
        best.append({name: max(score[name].f1 for score in scores) for name in scores[0]})
    return {name: sum(f1[name] for f1 in best) / len(best) for name in best[0]}


def _common_length(one: Sequence[str], other: Sequence[str]) -> int:
    """How many tokens the longest common subsequence has."""
    row = 0
    for row in _common_rows(one, other):  # noqa: B007
        pass
    return row.bit_count()


def _common_rows(one: Sequence[str], other: Sequence[str]) -> Iterator[int]:
    """The table of longest common subsequences, a row of bits for each token of `one`.

    Lᵢⱼ, the longest that the first i tokens of one and the first j of other have in common, grows
    by 0 or 1 from one j to the next: row i is the number whose bit j is set where Lᵢ,ⱼ₊₁ = Lᵢⱼ + 1,
    so that Lᵢⱼ is the count of its j lowest bits. The next row follows from a few operations on
    whole numbers, 64 places at a time, in place of a loop over j.

    Row i falls into blocks: places that do not grow (set in `flat`), and above them one that does.
    In the next row a block grows at its lowest match instead, if it has any. `new` being the
    matches in flat, flat - new keeps all other places; in flat + new the lowest match carries up to
    the block's end, which is set by that, and the higher matches stay: it alone is in neither.

    Source: Hyyrö 2004, Bit-parallel LCS-length computation revisited.
    """
    places: dict[str, int] = {}
    for j, token in enumerate(other):
        places[token] = places.get(token, 0) | 1 << j
    every = flat = (1 << len(other)) - 1
    for token in one:
        new = flat & places.get(token, 0)
        flat = (flat + new | flat - new) & every
        yield every ^ flat


def _common_by_line(predicted: list[list[str]], wanted: list[list[str]]) -> int:
    """The shared tokens of rougeLsum."""
    shared: Counter[str] = Counter()
    for line in wanted:
        found = {i for other in predicted for i in _common_positions(line, other)}
        shared.update(line[i] for i in found)
    return (shared & Counter(token for line in predicted for token in line)).total()


def _common_positions(one: Sequence[str], other: Sequence[str]) -> Iterator[int]:
    """Where in `one` the tokens of a longest common subsequence stand, from the last to the first.

    Of several, the one that rouge-score takes: from the table's end back, over a match at once,
    else to the row above if its L is the same.
    """
    rows = [0, *_common_rows(one, other)]
    i, j, length = len(one), len(other), rows[-1].bit_count()
    while length:
        if one[i - 1] == other[j - 1]:
            i, j, length = i - 1, j - 1, length - 1
            yield i
        elif (rows[i - 1] & (1 << j) - 1).bit_count() == length:
            i -= 1
        else:
            j -= 1


def exact_match(predictions: Sequence[str], references: References) -> float:
    """The share of predictions that equal their reference, or one of them, spaces around stripped.

    Raises: ValueError — a string in place of a list, numbers of texts that differ, a prediction
        without a reference.

    >>> exact_match(["42\\n", "x = 1"], ["42", ["x=1", "1"]])
    0.5
    """
    pairs = _paired(predictions, references)
    return sum(
        prediction.strip() in [text.strip() for text in texts] for prediction, texts in pairs
    ) / len(pairs)


def _ngrams(tokens: Sequence[str], n: int) -> Counter:
    return Counter(zip(*(tokens[i:] for i in range(n)), strict=False))


def _paired(predictions: Sequence[str], references: References) -> list[tuple[str, list[str]]]:
    """Each prediction and the list of its references."""
    for name, texts in (("predictions", predictions), ("references", references)):
        if isinstance(texts, str):
            raise _no_list(name, texts)
    if len(predictions) != len(references) or not len(predictions):
        raise ValueError(
            f"expected predictions, and for each its reference or a list of them, got "
            f"{len(predictions)} and {len(references)}; lists of all first, all second, ... "
            "references are turned by list(zip(*references))"
        )
    pairs = [
        (prediction, [texts] if isinstance(texts, str) else list(texts))
        for prediction, texts in zip(predictions, references, strict=True)
    ]
    for i, (prediction, texts) in enumerate(pairs):
        if not texts or not all(isinstance(text, str) for text in (prediction, *texts)):
            raise ValueError(
                f"expected a str and at least one reference as str, got {short(prediction)} and "
                f"{short(texts)} at position {i}; join tokens with spaces, and leave out texts "
                "without a reference"
            )
    return pairs


def _no_list(name: str, text: str) -> ValueError:
    return ValueError(f"expected {name} as a list of str, got {short(text)}; put it into [ ]")


def _option(name: str, value: str, known: dict[str, Any]) -> Any:
    if value not in known:
        raise ValueError(
            f"expected {name} as one of {', '.join(known)}, got {value!r}; the first is usual"
        )
    return known[value]
