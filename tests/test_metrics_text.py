"""Laws of the figures for text."""

import string

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minilm.metrics_text import (
    entities,
    entity_f1,
    normalize_answer,
    squad_exact_match,
    squad_f1,
)

TAGS = st.sampled_from(["O", "B-PER", "I-PER", "B-LOC", "I-LOC", "B-work-of-art", "I-work-of-art"])
SENTENCES = st.lists(st.lists(st.tuples(TAGS, TAGS), max_size=8), max_size=4)


def begins(before, tag):
    """Whether an entity begins at a tag, given the tag before it: conlleval's question."""
    return tag[0] == "B" or (tag[0] == "I" and (before == "O" or before[2:] != tag[2:]))


def ends(tag, after):
    """Whether an entity ends with a tag, given the tag after it."""
    return tag != "O" and (after[0] in "BO" or after[2:] != tag[2:])


def entities_by_their_ends(tags):
    """conlleval's way: every beginning is paired with the first end that is not before it."""
    padded = ["O", *tags, "O"]
    starts = [i for i, tag in enumerate(tags) if begins(padded[i], tag)]
    stops = [i for i, tag in enumerate(tags) if ends(tag, padded[i + 2])]
    return [(tags[start][2:], start, stop + 1) for start, stop in zip(starts, stops, strict=True)]


def gold_and_predicted(sentences):
    gold = [[tag for tag, _ in sentence] for sentence in sentences]
    return gold, [[tag for _, tag in sentence] for sentence in sentences]


@given(st.lists(TAGS, max_size=12))
def test_entities_stand_between_the_beginnings_and_the_ends(tags):
    assert entities(tags) == entities_by_their_ends(tags)


@given(st.lists(TAGS, max_size=12))
def test_entities_cover_the_tags_that_are_not_o_once_each(tags):
    covered = [i for _, start, end in entities(tags) for i in range(start, end)]
    assert covered == [i for i, tag in enumerate(tags) if tag != "O"]


@given(st.lists(st.tuples(st.sampled_from(["", "PER", "LOC"]), st.integers(1, 3)), max_size=6))
def test_entities_written_as_bio_tags_are_read_back(pieces):
    tags, written = [], []
    for kind, length in pieces:
        if kind:
            written.append((kind, len(tags), len(tags) + length))
        tags += [f"B-{kind}", *[f"I-{kind}"] * (length - 1)] if kind else ["O"] * length
    assert entities(tags) == written


@pytest.mark.parametrize(
    ("tags", "found"),
    [
        ("O I-PER I-PER", [("PER", 1, 3)]),
        ("I-PER I-PER", [("PER", 0, 2)]),
        ("B-PER I-LOC", [("PER", 0, 1), ("LOC", 1, 2)]),
        ("I-PER B-PER I-PER", [("PER", 0, 1), ("PER", 1, 3)]),
        ("B-PER O I-PER", [("PER", 0, 1), ("PER", 2, 3)]),
        ("B-work-of-art I-work-of-art", [("work-of-art", 0, 2)]),
        ("", []),
    ],
)
def test_a_continuation_of_nothing_begins_an_entity(tags, found):
    assert entities(tags.split()) == found


@pytest.mark.parametrize(
    "tag", ["B", "I-", "E-PER", "S-PER", "PER", "", "o", "O-PER", "BI-PER", "-PER"]
)
def test_tags_that_are_not_bio_are_errors(tag):
    with pytest.raises(ValueError, match=f"got {tag!r} at position 1; rewrite"):
        entities(["O", tag])


def entity_figures(gold, predicted, kind=None, zero_division=0.0):
    """Precision, recall, F1 and support, an entity at a time; of one type, or of all."""
    right = n_gold = n_predicted = 0
    for tags, guesses in zip(gold, predicted, strict=True):
        want = [e for e in entities_by_their_ends(tags) if kind in (None, e[0])]
        have = [e for e in entities_by_their_ends(guesses) if kind in (None, e[0])]
        right += sum(e in want for e in have)
        n_gold, n_predicted = n_gold + len(want), n_predicted + len(have)
    of = [(right, n_predicted), (right, n_gold), (2 * right, n_predicted + n_gold)]
    return *(part / whole if whole else zero_division for part, whole in of), n_gold


@given(SENTENCES, st.sampled_from([0.0, 1.0]))
def test_entity_f1_counts_entities_with_the_gold_type_and_borders(sentences, zero_division):
    gold, predicted = gold_and_predicted(sentences)
    scores = entity_f1(gold, predicted, zero_division)
    kinds = {e[0] for tags in gold + predicted for e in entities_by_their_ends(tags)}
    assert list(scores.by_type) == sorted(kinds)
    figures = {None: scores.micro, **scores.by_type}
    for kind, got in figures.items():
        assert got == entity_figures(gold, predicted, kind, zero_division)
        assert [type(figure) for figure in got] == [float, float, float, int]


@given(SENTENCES)
def test_gold_and_predicted_changing_places_precision_and_recall_do_too(sentences):
    gold, predicted = gold_and_predicted(sentences)
    got, swapped = entity_f1(gold, predicted).micro, entity_f1(predicted, gold).micro
    assert swapped[:3] == (got.recall, got.precision, got.f1)


@given(SENTENCES)
def test_entities_do_not_reach_over_the_ends_of_sentences(sentences):
    gold, predicted = gold_and_predicted(sentences)
    assert entity_f1(gold[::-1], predicted[::-1]) == entity_f1(gold, predicted)
    joined = [[tag for tags in side for tag in [*tags, "O"]] for side in (gold, predicted)]
    assert entity_f1(joined[:1], joined[1:]) == entity_f1(gold, predicted)


def test_an_entity_in_another_sentence_at_another_border_or_of_another_type_is_wrong():
    gold = [["B-PER", "I-PER"], ["O", "O"]]
    for predicted in (
        [["O", "O"], ["B-PER", "I-PER"]],
        [["B-PER", "O"], ["O", "O"]],
        [["B-LOC", "I-LOC"], ["O", "O"]],
        [["B-PER", "B-PER"], ["O", "O"]],
    ):
        assert entity_f1(gold, predicted).micro.f1 == 0
    assert entity_f1(gold, gold).micro == (1, 1, 1, 1)
    assert entity_f1(np.array(gold), np.array(gold)).micro == (1, 1, 1, 1)


def test_no_entities_at_all_are_zero_division():
    assert entity_f1([], []) == ((0.0, 0.0, 0.0, 0), {})
    assert entity_f1([["O"]], [["O"]], zero_division=1.0).micro == (1.0, 1.0, 1.0, 0)


def test_sentences_that_do_not_belong_together_are_errors():
    with pytest.raises(ValueError, match="got 1 and 2 sentences"):
        entity_f1([["O"]], [["O"], ["O"]])
    with pytest.raises(ValueError, match=r"2 and 2 sentences, first lengths that differ \[\(2, 1"):
        entity_f1([["O"], ["O", "O"]], [["O"], ["O"]])
    with pytest.raises(ValueError, match=r"expected tags as a list of str, got 'O'; write \['O'\]"):
        entity_f1(["O", "O"], ["O", "O"])  # the tags of one sentence, without its brackets
    with pytest.raises(ValueError, match=r"expected tags as a list of str, got \[0\]; give names"):
        entities([0])


WORDS = [
    "a",
    "an",
    "the",
    "The",
    "cat",
    "Cat",
    "theatre",
    "dog",
    ",",
    "!",
    "don't",
    "b-c",
    "é",
    "猫",
]
ENGLISH = st.lists(st.sampled_from(WORDS), max_size=6).map(" ".join)
CHINESE = st.lists(st.sampled_from([*"北京大学，。《》、 ", " 1.5 ", " kK "]), max_size=10).map(
    "".join
)
TEXTS = {"en": ENGLISH, "zh": CHINESE}


def english_words(text):
    """Small letters without punctuation, cut at spaces, without the words that are articles."""
    kept = "".join(c for c in text.lower() if c not in string.punctuation)
    return [word for word in kept.split() if word not in ("a", "an", "the")]


def chinese_tokens(text):
    """Characters that are Chinese, and what stands between them, cut at spaces."""
    tokens, word = [], ""
    for c in [*text.lower().strip(), " "]:
        if c in "，。《》、":
            continue
        if c == " " or c in "北京大学":
            tokens += [word] * bool(word) + [c] * (c != " ")
            word = ""
        else:
            word += c
    return tokens


def longest_common_run(one, other):
    runs = {tuple(one[i:j]) for i in range(len(one)) for j in range(i + 1, len(one) + 1)}
    others = {tuple(other[i:j]) for i in range(len(other)) for j in range(i + 1, len(other) + 1)}
    return max(map(len, runs & others), default=0)


def shared_words(one, other):
    left = list(other)
    return sum(word in left and not left.remove(word) for word in one)


def f1_of_tokens(one, other, shared):
    if not one or not other:
        return float(one == other)
    if not shared:
        return 0.0
    precision, recall = shared / len(one), shared / len(other)
    return 2 * precision * recall / (precision + recall)


@given(ENGLISH, st.lists(ENGLISH, max_size=3))
def test_english_answers_are_compared_as_bags_of_words(prediction, answers):
    words = english_words(prediction)
    wanted = [w for w in map(english_words, answers) if w] or [[]]
    best = max(f1_of_tokens(words, other, shared_words(words, other)) for other in wanted)
    assert squad_f1(prediction, answers) == pytest.approx(best, rel=1e-14)
    assert squad_exact_match(prediction, answers) == float(words in wanted)


@given(CHINESE, st.lists(CHINESE, max_size=3))
def test_chinese_answers_are_compared_by_their_longest_common_run(prediction, answers):
    tokens = chinese_tokens(prediction)
    wanted = [w for w in map(chinese_tokens, answers) if w] or [[]]
    best = max(f1_of_tokens(tokens, w, longest_common_run(tokens, w)) for w in wanted)
    assert squad_f1(prediction, answers, "zh") == pytest.approx(best, rel=1e-14)


@pytest.mark.parametrize(
    ("text", "language", "normal"),
    [
        ("  The   Cat's\tpajamas!\n", "en", "cats pajamas"),
        ("An apple, a day", "en", "apple day"),
        ("theatre Anna", "en", "theatre anna"),
        ("a.b", "en", "ab"),
        ("the", "en", ""),
        ("“Über”", "en", "“über”"),  # only ASCII's punctuation is dropped
        ("《红楼梦》，清代。", "zh", "红楼梦清代"),
        (" 1.5 米 ", "zh", "1.5 米"),
        ("2018-01-02", "zh", "20180102"),
        ("The NBA", "zh", "the nba"),
        ("。", "zh", ""),
    ],
)
def test_known_normal_forms(text, language, normal):
    assert normalize_answer(text, language) == normal


def test_chinese_answers_lose_the_signs_that_cmrc_2018_drops_and_keep_the_others():
    dropped = "- : _ * ^ / \\ ~ ` + = ， 。 ： ？ ！ “ ” ； ’ 《 》 · 、 「 」 （ ） － ～ 『 』"
    kept = "‘ … . , ! ? ( ) % ' ; 【 】 —"
    for sign in dropped.split():
        assert normalize_answer(f"北{sign}京", "zh") == "北京"
    for sign in kept.split():
        assert normalize_answer(f"北{sign}京", "zh") == f"北{sign}京"


@pytest.mark.parametrize(
    ("prediction", "answers", "language", "exact", "f1"),
    [
        ("Denver Broncos", ["The Denver Broncos!", "Broncos"], "en", 1, 1),
        ("the broncos of Denver", ["Denver Broncos"], "en", 0, 4 / 5),
        ("cat cat cat", ["cat cat dog"], "en", 0, 2 / 3),
        ("dog", ["cat"], "en", 0, 0),
        ("", [], "en", 1, 1),
        ("the", [""], "en", 1, 1),
        ("cat", [], "en", 0, 0),
        ("", ["cat"], "en", 0, 0),
        ("", ["", "cat"], "en", 0, 0),  # an answer that is not empty has been given
        ("清华大学。", ["清华大学", "北京大学"], "zh", 1, 1),
        ("位于北京的大学", ["北京大学"], "zh", 0, 4 / 11),  # 北京 or 大学, not both
        ("1998年", ["在1998年"], "zh", 0, 4 / 5),
        ("1.5米", ["15米"], "zh", 0, 1 / 2),
        ("NBA球员", ["nba 球员"], "zh", 0, 1),
        ("1,000元", ["1,000元!"], "zh", 0, 4 / 5),
        ("1,000k元", ["1,000k"], "zh", 0, 2 / 3),
        ("k-5", ["k5"], "zh", 1, 1),
        ("a.b,c", ["a.b, c"], "zh", 0, 1),
        ("。", [], "zh", 1, 1),
    ],
)
def test_known_scores(prediction, answers, language, exact, f1):
    assert squad_exact_match(prediction, answers, language) == exact
    assert squad_f1(prediction, answers, language) == pytest.approx(f1, rel=1e-14)


both_languages = pytest.mark.parametrize("language", TEXTS)


@both_languages
@given(st.data())
def test_an_exact_match_has_an_f1_of_one_and_f1_is_between_zero_and_one(language, data):
    prediction, answer = data.draw(TEXTS[language]), data.draw(TEXTS[language])
    f1 = squad_f1(prediction, [answer], language)
    assert squad_exact_match(prediction, [answer], language) <= f1 <= 1
    assert squad_f1(answer, [prediction], language) == f1
    assert squad_exact_match(prediction, [prediction], language) == 1


@both_languages
@given(st.data())
def test_one_more_answer_never_lowers_the_score_of_a_prediction_that_is_not_empty(language, data):
    prediction = data.draw(TEXTS[language])
    answers = data.draw(st.lists(TEXTS[language], min_size=1, max_size=4))
    for figure in (squad_exact_match, squad_f1):
        if normalize_answer(prediction, language):
            assert figure(prediction, answers, language) == max(
                figure(prediction, [answer], language) for answer in answers
            )


@both_languages
@given(st.data())
def test_normal_forms_are_their_own_and_score_alike(language, data):
    prediction, answer = data.draw(TEXTS[language]), data.draw(TEXTS[language])
    normal = [normalize_answer(text, language) for text in (prediction, answer)]
    assert [normalize_answer(text, language) for text in normal] == normal
    for figure in (squad_exact_match, squad_f1):
        assert figure(normal[0], [normal[1]], language) == figure(prediction, [answer], language)


@pytest.mark.parametrize("figure", [squad_exact_match, squad_f1])
def test_answers_that_are_no_list_and_unknown_languages_are_errors(figure):
    with pytest.raises(ValueError, match=r"answers as a list of str, got 'cat'; write \['cat'\]"):
        figure("cat", "cat")
    with pytest.raises(ValueError, match="expected language 'en' or 'zh', got 'de'"):
        figure("Katze", ["Katze"], "de")
