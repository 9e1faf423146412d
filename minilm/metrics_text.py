"""Figures for text: entities found in tagged sentences, answers found to questions."""

import re
import string
from collections import Counter
from collections.abc import Sequence
from difflib import SequenceMatcher
from typing import NamedTuple

import numpy as np
import regex

from minilm.metrics import PrecisionRecallF1


def entities(tags: Sequence[str]) -> list[tuple[str, int, int]]:
    """The (type, start, end) of each entity in BIO tags: tags[start:end] are its own.

    B-X begins an entity of type X, and I-X continues one. An I-X that has none of type X before it
    (after O, after another type, at the start) begins one, as conlleval has it; so tags where B-
    only parts neighbours of one type (IOB1) are read rightly too.

    Raises: ValueError — one string, tags that are none, a tag that is not O, B-type or I-type.
    Source: Tjong Kim Sang & De Meulder 2003, arXiv cs/0306050, and their script conlleval.
    Differs: seqeval's `end` is the last position, not the one behind it.

    >>> entities(["B-PER", "I-PER", "O", "I-LOC", "B-LOC"])
    [('PER', 0, 2), ('LOC', 3, 4), ('LOC', 4, 5)]
    """
    found, begun, start = [], "", 0
    for position, tag in enumerate([*_list_of_str(tags, "tags"), "O"]):
        prefix, _, kind = tag.partition("-")
        if tag != "O" and not (prefix in ("B", "I") and kind):
            raise ValueError(
                f"expected tags O, B-type or I-type, got {tag!r} at position {position}; "
                "rewrite other schemes as BIO"
            )
        if begun and not (prefix == "I" and kind == begun):
            found.append((begun, start, position))
            begun = ""
        if kind and not begun:
            begun, start = kind, position
    return found


class EntityScores(NamedTuple):
    """The figures over all entities, and those of each type."""

    micro: PrecisionRecallF1
    by_type: dict[str, PrecisionRecallF1]


def entity_f1(
    gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]], zero_division: float = 0.0
) -> EntityScores:
    """Precision, recall and F1 of entities: right are those with the gold type, start and end.

    `gold` and `predicted` are the BIO tags of each sentence, at the positions that count. The types
    are those that occur in either; `support` counts the gold entities.

    Raises: ValueError — numbers or lengths of sentences that differ, tags that are not BIO.
    Source: Tjong Kim Sang & De Meulder 2003, arXiv cs/0306050.

    >>> scores = entity_f1([["B-PER", "I-PER", "O", "B-LOC"]], [["B-PER", "O", "O", "B-LOC"]])
    >>> scores.micro
    PrecisionRecallF1(precision=0.5, recall=0.5, f1=0.5, support=2)
    >>> scores.by_type["LOC"].f1
    1.0
    """
    lengths = [len(tags) for tags in gold], [len(tags) for tags in predicted]
    if lengths[0] != lengths[1]:
        shown = [(a, b) for a, b in zip(*lengths, strict=False) if a != b][:1]
        raise ValueError(
            f"expected a predicted tag for each gold tag, got {len(gold)} and {len(predicted)} "
            f"sentences, first lengths that differ {shown}; drop the same positions from both"
        )
    want, have = (
        {(i, *entity) for i, tags in enumerate(sentences) for entity in entities(tags)}
        for sentences in (gold, predicted)
    )
    kinds = [Counter(kind for _, kind, _, _ in found) for found in (want & have, have, want)]
    types = sorted(kinds[1] | kinds[2])
    counts = np.array([[count[name] for name in types] for count in kinds], np.int64)  # (3, types)
    micro, *each = (
        PrecisionRecallF1.from_counts(*column, zero_division=zero_division)
        for column in (counts.sum(1), *counts.T)
    )
    return EntityScores(micro, dict(zip(types, each, strict=True)))


# The signs that CMRC 2018's script drops. "." and "," are not among them: 1.5 is not 15.
CHINESE_SIGNS = "-:_*^/\\~`+=，。：？！“”；’《》·、「」（）－～『』"
DROPPED = {
    "en": str.maketrans("", "", string.punctuation),
    "zh": str.maketrans("", "", CHINESE_SIGNS),
}
ARTICLE = re.compile(r"\b(a|an|the)\b")
# A word or number of another script, or one character: a Chinese one, or a sign that is left.
CHINESE_TOKEN = regex.compile(r"[\w--\p{Han}]+(?:(?:\.|,(?=\d))[\w--\p{Han}]+)*|\S", regex.V1)


def normalize_answer(text: str, language: str = "en") -> str:
    """An answer without what does not count: lower case, no punctuation, single spaces.

    English ("en") loses ASCII punctuation, then the articles a, an, the. Chinese ("zh") loses the
    signs that CMRC 2018 drops.

    Raises: ValueError — a language other than "en" and "zh".
    Source: Rajpurkar et al. 2016, arXiv 1606.05250, section 6.1 (SQuAD 1.1's script); Cui et al.
        2019, arXiv 1810.07366 (CMRC 2018's script).

    >>> normalize_answer("The  Quick, brown fox!"), normalize_answer("《红楼梦》。", "zh")
    ('quick brown fox', '红楼梦')
    """
    if language not in DROPPED:
        raise ValueError(
            f"expected language 'en' or 'zh', got {language!r}; take 'en' where spaces part words"
        )
    text = text.lower().translate(DROPPED[language])
    return " ".join((ARTICLE.sub(" ", text) if language == "en" else text).split())


def squad_exact_match(prediction: str, answers: Sequence[str], language: str = "en") -> float:
    """1 if the prediction, normalised, is one of the answers, else 0.

    A question without answers, or with none but empty ones, wants the empty prediction.

    Raises: ValueError — answers that are one string, not a list; an unknown language.
    Source: as `normalize_answer`; without answers Rajpurkar et al. 2018, arXiv 1806.03822.

    >>> squad_exact_match("The cat.", ["a dog", "cat"])
    1.0
    """
    return float(normalize_answer(prediction, language) in _references(answers, language))


def squad_f1(prediction: str, answers: Sequence[str], language: str = "en") -> float:
    """2 s / (p + a): s tokens shared by the prediction of p and the answer of a, the best of all.

    English tokens are words, shared in any order, as often as both have them. Chinese tokens are
    characters, and words of other scripts; shared is the longest run that stands in both.
    Where either is empty: 1 if both are, else 0.

    Raises: ValueError — answers that are one string, not a list; an unknown language.
    Source: as `squad_exact_match`.
    Differs: CMRC 2018's script cuts words of other scripts by NLTK's rules, and minds how many
        spaces stand between them.

    >>> squad_f1("a black cat", ["the dog", "the cat"])
    0.6666666666666666
    >>> squad_f1("在1998年北京", ["北京大学", "1998年"], "zh")
    0.5714285714285714
    """
    text = normalize_answer(prediction, language)
    return max(_overlap(text, answer, language) for answer in _references(answers, language))


def _overlap(prediction: str, answer: str, language: str) -> float:
    """F1 of two normalised answers."""
    if not (prediction and answer):
        return float(prediction == answer)
    if language == "en":
        one, other = prediction.split(), answer.split()
        shared = (Counter(one) & Counter(other)).total()
    else:
        one, other = CHINESE_TOKEN.findall(prediction), CHINESE_TOKEN.findall(answer)
        shared = SequenceMatcher(None, one, other, autojunk=False).find_longest_match().size
    return 2 * shared / (len(one) + len(other))


def _references(answers: Sequence[str], language: str) -> list[str]:
    """The answers, normalised, that are not empty; the empty one where there are none."""
    normal = [normalize_answer(answer, language) for answer in _list_of_str(answers, "answers")]
    return [answer for answer in normal if answer] or [""]


def _list_of_str(strings: Sequence[str], name: str) -> Sequence[str]:
    if isinstance(strings, str) or not all(isinstance(string, str) for string in strings):
        fix = f"write [{strings!r}]" if isinstance(strings, str) else "give names, not numbers"
        raise ValueError(f"expected {name} as a list of str, got {strings!r:.80}; {fix}")
    return strings
