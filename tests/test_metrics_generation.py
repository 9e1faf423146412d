"""Laws of the figures for written text."""

import math
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from minilm.metrics_generation import (
    TOKENIZERS,
    bleu,
    chrf,
    exact_match,
    rouge,
    rouge_corpus,
    sentence_bleu,
)

WORDS = st.lists(st.sampled_from(["a", "b", "c", "(d", "ee"]), max_size=9).map(" ".join)
CORPUS = st.lists(st.tuples(WORDS, st.lists(WORDS, min_size=1, max_size=3)), min_size=1, max_size=4)
LINES = st.lists(st.sampled_from(["a", "b", "c", "\n"]), max_size=14).map(" ".join)
TEXTS = st.text(st.sampled_from("abAB1 .,-\n中文。é"), max_size=12)
FIGURES = {
    "bleu": lambda *texts: bleu(*texts, tokenize="none").score,
    "chrf": chrf,
    "chrf++": lambda *texts: chrf(*texts, word_order=2),
    "rouge": lambda *texts: rouge_corpus(*texts)["rouge2"],
    "exact_match": exact_match,
}
every_figure = pytest.mark.parametrize("figure", FIGURES.values(), ids=FIGURES)


def split(corpus):
    return [prediction for prediction, _ in corpus], [texts for _, texts in corpus]


def runs(tokens, n):
    """All n neighbours, from left to right."""
    return [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]


# --- All of them ------------------------------------------------------------------------------


@every_figure
@settings(max_examples=25)
@given(corpus=CORPUS)
def test_the_order_of_the_corpus_and_of_equal_references_changes_nothing(figure, corpus):
    value = figure(*split(corpus))
    assert figure(*split(corpus[::-1])) == pytest.approx(value, rel=1e-12)
    doubled = [(prediction, texts + texts) for prediction, texts in corpus]
    assert figure(*split(doubled)) == value


@every_figure
@settings(max_examples=25)
@given(corpus=CORPUS)
def test_figures_lie_between_nothing_and_everything(figure, corpus):
    everything = 100 if figure in (FIGURES["bleu"], chrf, FIGURES["chrf++"]) else 1
    assert 0 <= figure(*split(corpus)) <= everything * (1 + 1e-12)


@every_figure
@settings(max_examples=25)
@given(texts=st.lists(WORDS.map("a b c d ".__add__), min_size=1, max_size=4))
def test_identical_texts_have_everything_and_texts_without_overlap_nothing(figure, texts):
    everything = 100 if figure in (FIGURES["bleu"], chrf, FIGURES["chrf++"]) else 1
    assert figure(texts, texts) == pytest.approx(everything, rel=1e-12)
    assert figure(texts, ["x y z"] * len(texts)) == 0


@every_figure
@settings(max_examples=25)
@given(texts=st.lists(WORDS, min_size=1, max_size=4))
def test_one_reference_need_not_stand_in_a_list(figure, texts):
    assert figure(texts[::-1], texts) == figure(texts[::-1], [[text] for text in texts])


@every_figure
def test_empty_texts_have_nothing_but_the_exact_match(figure):
    for prediction, reference in (("", "a b"), ("a b", ""), ("", ""), (" ", "\n")):
        is_match = figure is exact_match and not (prediction + reference).strip()
        assert figure([prediction], [reference]) == float(is_match)


@every_figure
@pytest.mark.parametrize(
    ("predictions", "references", "message"),
    [
        ("a", ["a"], r"expected predictions as a list of str, got 'a'; put it into \[ \]"),
        (["a"], "a", r"expected references as a list of str, got 'a'; put it into \[ \]"),
        (["a", "b"], [["a", "b"]], r"got 2 and 1; lists of all first, .* list\(zip\(\*references"),
        ([], [], "got 0 and 0"),
        (["a", "b"], ["a", []], r"at least one reference as str, got 'b' and \[\] at position 1"),
        ([["a"]], ["a"], r"got \['a'\] and \['a'\] at position 0; join tokens with spaces"),
        (["a"], [[["a"]]], r"got 'a' and \[\['a'\]\] at position 0"),
    ],
)
def test_texts_that_do_not_belong_together_are_errors(figure, predictions, references, message):
    with pytest.raises(ValueError, match=message):
        figure(predictions, references)


def test_unknown_options_and_impossible_numbers_are_errors():
    with pytest.raises(ValueError, match="tokenize as one of 13a, intl, zh, char, none, got 'ja'"):
        bleu(["a"], ["a"], tokenize="ja")
    with pytest.raises(ValueError, match="smooth as one of exp, floor, add-k, none, got 'k'"):
        bleu(["a"], ["a"], smooth="k", smooth_value=1)
    with pytest.raises(ValueError, match="max_order >= 1 and smooth_value >= 0, got 0 and 0.0; "):
        bleu(["a"], ["a"], max_order=0)
    with pytest.raises(ValueError, match="got 4 and -1; BLEU takes"):
        bleu(["a"], ["a"], smooth="floor", smooth_value=-1)
    for orders in ((-1, 2, 2), (0, 0, 2), (6, -1, 2), (6, 0, 0)):
        with pytest.raises(ValueError, match="got {}, {} and {}; chrF takes 6".format(*orders)):
            chrf(["a"], ["a"], char_order=orders[0], word_order=orders[1], beta=orders[2])
    with pytest.raises(ValueError, match="tokenize as one of words, char, got 'zh'"):
        rouge("a", "a", "zh")
    with pytest.raises(ValueError, match=r"reference as one str, got \['a'\]; rouge_corpus takes"):
        rouge("a", ["a"])
    with pytest.raises(ValueError, match="references as a list of str, got 'a'"):
        sentence_bleu("a", "a")


# --- BLEU -------------------------------------------------------------------------------------


def bleu_in_loops(corpus, smooth, value, max_order, effective_order):
    """Score, percentages, penalty and lengths, an n-gram at a time."""
    right, found, c, r = [0] * max_order, [0] * max_order, 0, 0
    for prediction, references in corpus:
        words, texts = prediction.split(), [text.split() for text in references]
        c += len(words)
        r += sorted((abs(len(text) - len(words)), len(text)) for text in texts)[0][1]
        for n in range(1, max_order + 1):
            for ngram in set(runs(words, n)):
                there = runs(words, n).count(ngram)
                found[n - 1] += there
                right[n - 1] += min(there, max(runs(text, n).count(ngram) for text in texts))
    penalty = 1 if c >= r else math.exp(1 - r / c) if c else 0
    if not sum(right):
        return 0, (0,) * max_order, penalty, c, r
    precisions, power = [], 0
    for n in range(max_order):
        if smooth == "add-k" and n:
            right[n], found[n] = right[n] + value, found[n] + value
        if found[n] and not right[n] and smooth == "exp":
            power += 1
            right[n] = 1 / 2**power
        if found[n] and not right[n] and smooth == "floor":
            right[n] = value
        precisions.append(100 * right[n] / found[n] if found[n] else 0)
    orders = [p for p, n in zip(precisions, found, strict=True) if n or not effective_order]
    return penalty * math.prod(orders) ** (1 / len(orders)), precisions, penalty, c, r


@given(
    CORPUS,
    st.sampled_from([("exp", None), ("none", None), ("floor", 0.1), ("add-k", 1), ("add-k", 0.5)]),
    st.integers(1, 5),
    st.booleans(),
)
def test_bleu_is_what_counting_in_loops_gives(corpus, smoothing, max_order, effective_order):
    want = bleu_in_loops(corpus, *smoothing, max_order, effective_order)
    got = bleu(
        *split(corpus),
        tokenize="none",
        smooth=smoothing[0],
        smooth_value=smoothing[1],
        max_order=max_order,
        effective_order=effective_order,
    )
    for figure, expected in zip(got, want, strict=True):
        assert figure == pytest.approx(expected, rel=1e-12)


PARTY = [
    "It is a guide to action that ensures that the military will forever heed Party commands.",
    "It is the guiding principle which guarantees the military forces always being under the "
    "command of the Party.",
    "It is the practical guide for the army always to heed the directions of the party.",
]


@pytest.mark.parametrize(
    ("prediction", "unigrams", "bigrams"),
    [  # as the paper counts them, in section 2.1
        (
            "It is a guide to action which ensures that the military always obeys the commands of "
            "the party.",
            17 / 18,
            10 / 17,
        ),
        (
            "It is to insure the troops forever hearing the activity guidebook that party direct.",
            8 / 14,
            1 / 13,
        ),
    ],
)
def test_the_papers_examples(prediction, unigrams, bigrams):
    # Without their full stops: the paper does not count them.
    texts = [text.rstrip(".") for text in PARTY]
    got = bleu([prediction.rstrip(".")], [texts], max_order=2, lowercase=True)
    assert got.precisions == pytest.approx((100 * unigrams, 100 * bigrams))


def test_a_word_is_right_as_often_as_the_reference_that_has_it_most_often_does():
    texts = ["The cat is on the mat.", "There is a cat on the mat."]
    got = bleu(
        ["the the the the the the the."], [texts], max_order=2, lowercase=True, smooth="none"
    )
    assert got.precisions == pytest.approx((100 * 3 / 8, 0))  # two words, and the full stop
    assert got.score == 0


@pytest.mark.parametrize(
    ("smooth", "value", "fourth", "fifth"),
    [
        ("exp", None, 1 / 2 / 3, 1 / 4 / 2),
        ("floor", None, 0.1 / 3, 0.1 / 2),
        ("floor", 0.5, 0.5 / 3, 0.5 / 2),
        ("add-k", None, 1 / 4, 1 / 3),
        ("add-k", 0.5, 0.5 / 3.5, 0.5 / 2.5),
        ("none", None, 0, 0),
    ],
)
def test_smoothing_helps_orders_with_nothing_right(smooth, value, fourth, fifth):
    got = bleu(["a b c x y z"], ["a b c d e f"], smooth=smooth, smooth_value=value, max_order=5)
    assert got.precisions[3:] == pytest.approx((100 * fourth, 100 * fifth))
    assert (got.score > 0) == (smooth != "none")


def test_short_predictions_pay_for_it_and_long_ones_do_not():
    whole = "a b c d e f g h"
    for n in range(4, 9):
        got = bleu([whole[: 2 * n - 1]], [whole])
        assert got.score == pytest.approx(100 * math.exp(1 - 8 / n))
        assert got.precisions == (100, 100, 100, 100)
    assert bleu([whole + " i"], [whole]).brevity_penalty == 1
    assert bleu([whole, "a b c d"], ["a b c d", whole]).brevity_penalty == 1  # of all, not of each


@pytest.mark.parametrize(
    ("lengths", "chosen"), [((3, 5), 3), ((5, 3), 3), ((1, 5, 9), 5), ((4, 3), 4)]
)
def test_the_reference_length_is_the_nearest_and_of_two_the_shorter(lengths, chosen):
    texts = [" ".join("abcdefghi"[:n]) for n in lengths]
    assert bleu(["w x y z"], [texts]).reference_length == chosen


def test_effective_order_leaves_out_orders_that_the_predictions_are_too_short_for():
    assert bleu(["a b"], ["a b"]).score == 0
    assert bleu(["a b"], ["a b"], effective_order=True).score == 100
    assert bleu(["a b", "a b c d"], ["a b", "a b c d"]).score == 100


@given(WORDS, st.lists(WORDS, min_size=1, max_size=3), st.sampled_from(["exp", "floor"]))
def test_the_bleu_of_a_sentence_is_that_of_a_corpus_of_one(prediction, texts, smooth):
    got = sentence_bleu(prediction, texts, smooth=smooth)
    assert got == bleu([prediction], [texts], smooth=smooth, effective_order=True)
    got = sentence_bleu(prediction, texts, effective_order=False)
    assert got == bleu([prediction], [texts])


def test_small_letters_count_as_large_ones_if_asked():
    assert bleu(["A Big Red Cat"], ["a big red cat"]).score == 0
    assert bleu(["A Big Red Cat"], ["a big red cat"], lowercase=True).score == 100
    assert chrf(["ÀB"], ["àb"]) == 0
    assert chrf(["ÀB"], ["àb"], lowercase=True) == 100


@pytest.mark.parametrize(
    ("text", "tokenize", "tokens"),
    [
        ("Hello, world!", "13a", "Hello , world !"),
        ("It costs $1,000.50 (net).", "13a", "It costs $ 1,000.50 ( net ) ."),
        ("in 1999.", "13a", "in 1999 ."),
        (".5 and 5.x", "13a", ". 5 and 5 . x"),
        ("don't well-known 5-year a_b", "13a", "don't well-known 5 - year a _ b"),
        ("x.,5", "13a", "x . ,5"),
        ("a &lt;b&gt; &quot;c&quot; &amp;lt;", "13a", 'a < b > " c " <'),
        ("<skipped>one two-\nfold\nthree", "13a", "one twofold three"),
        ("“quoted” — 中文。", "13a", "“quoted” — 中文。"),
        ("“quoted” — it's 中文。", "intl", "“ quoted ” — it ' s 中文 。"),
        ("a+b=c€5", "intl", "a + b = c € 5"),
        ("1,000.5 € in 1999.", "intl", "1,000.5 € in 1999."),  # of mteval-v14 so, at the end
        ("我有2.5个，ok?", "zh", "我 有 2.5 个 ， ok ?"),
        ("“北京”—ひと", "zh", "“ 北 京 ” — ひと"),
        ("a-5.", "zh", "a-5."),
        ("x &amp; y", "zh", "x & amp ; y"),
        ("北京 ok.", "char", "北 京 o k ."),
        ("a  b,c\td.", "none", "a b,c d."),
    ],
)
def test_known_tokens(text, tokenize, tokens):
    assert TOKENIZERS[tokenize](text) == tokens.split()


@pytest.mark.parametrize("tokenize", TOKENIZERS)
@settings(max_examples=40)
@given(text=TEXTS)
def test_tokens_hold_all_of_a_text_but_its_spaces_and_hyphens_at_line_ends(tokenize, text):
    kept = text.replace("-\n", "") if tokenize == "13a" else text
    assert "".join(TOKENIZERS[tokenize](text)) == "".join(kept.split())


@given(TEXTS, TEXTS)
def test_spaces_at_the_end_change_no_figure(prediction, reference):
    for tokenize in TOKENIZERS:
        got = sentence_bleu(prediction + " \n", [reference], tokenize=tokenize)
        assert got == sentence_bleu(prediction, [reference + "  "], tokenize=tokenize)


# --- chrF -------------------------------------------------------------------------------------


def chrf_words(text):
    words = []
    for word in text.split():
        signs = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"
        if len(word) == 1 or (word[0] not in signs and word[-1] not in signs):
            words.append(word)
        elif word[-1] in signs:
            words.extend([word[:-1], word[-1]])
        else:
            words.extend([word[0], word[1:]])
    return words


def chrf_counts(prediction, reference, char_order, word_order):
    """Right, found and wanted n-grams of each order."""
    counts = []
    for cut, order in ((lambda text: text.replace(" ", ""), char_order), (chrf_words, word_order)):
        for n in range(1, order + 1):
            found, wanted = runs(cut(prediction), n), runs(cut(reference), n)
            right = sum(min(found.count(g), wanted.count(g)) for g in set(found))
            counts.append((right, len(found) if wanted else 0, len(wanted)))
    return counts


def f_of_means(counts, beta):
    """As a fraction, so that equal references are equal."""
    counts = [(Fraction(right), found, wanted) for right, found, wanted in counts]
    known = [(right / found, right / wanted) for right, found, wanted in counts if found and wanted]
    if not any(right for right, _ in known):
        return 0
    precision, recall = (sum(column) / len(known) for column in zip(*known, strict=True))
    square = Fraction(beta) ** 2
    return (1 + square) * precision * recall / (square * precision + recall)


@given(CORPUS, st.integers(0, 4), st.integers(0, 2), st.sampled_from([0.5, 1, 2]))
def test_chrf_is_what_counting_in_loops_gives(corpus, char_order, word_order, beta):
    char_order += not char_order + word_order
    chosen = []
    for prediction, texts in corpus:
        each = [chrf_counts(prediction, text, char_order, word_order) for text in texts]
        scores = [f_of_means(counts, beta) for counts in each]
        best = [n for n, score in zip(each, scores, strict=True) if score == max(scores)]
        assume(not max(scores) or all(n == best[0] for n in best))  # floats part equals at random
        chosen.append(best[0])
    total = [tuple(map(sum, zip(*rows, strict=True))) for rows in zip(*chosen, strict=True)]
    got = chrf(*split(corpus), char_order=char_order, word_order=word_order, beta=beta)
    assert got == pytest.approx(float(100 * f_of_means(total, beta)), rel=1e-12)


@pytest.mark.parametrize(
    ("prediction", "reference", "options", "score"),
    [
        ("abcd", "abce", {}, 100 * (3 / 4 + 2 / 3 + 1 / 2 + 0) / 4),
        ("ab", "abcd", {"char_order": 1}, 100 * 5 * 0.5 / (4 * 1 + 0.5)),
        ("ab", "abcd", {"char_order": 1, "beta": 1}, 100 * 2 * 0.5 / 1.5),
        ("a b", "ab", {}, 100),
        ("a b", "ab", {"char_order": 1, "word_order": 1}, 50),
        ("a (b", "a b", {"char_order": 0, "word_order": 1}, 100 * 5 * 2 / 3 / (4 * 2 / 3 + 1)),
        ("a b)", "a (b)", {"char_order": 0, "word_order": 1}, 100 * 2 / 3),  # b ) and (b )
        ("a -", "a b", {"char_order": 0, "word_order": 1}, 50),  # a sign alone is one word
        ("ab", "", {}, 0),
    ],
)
def test_known_chrf(prediction, reference, options, score):
    assert chrf([prediction], [reference], **options) == pytest.approx(score)


@given(WORDS, WORDS)
def test_a_beta_of_one_is_blind_to_the_direction_and_a_larger_one_leans_to_recall(one, other):
    one, other = "abcdef" + one, "abcdef" + other  # n-grams of all orders on both sides
    there, back = chrf([one], [other], beta=1), chrf([other], [one], beta=1)
    assert there == pytest.approx(back, rel=1e-12)
    assert chrf([one + "zz"], [one]) > chrf([one], [one + "zz"])


def test_a_prediction_counts_only_for_orders_of_which_its_reference_has_n_grams():
    assert chrf(["ab", "cd"], ["", "cd"]) == 100
    assert chrf(["", "cd"], ["ab", "cd"]) < 100


# --- ROUGE ------------------------------------------------------------------------------------


def common_table(one, other):
    """The textbook's table, cell by cell."""
    table = [[0] * (len(other) + 1) for _ in range(len(one) + 1)]
    for i, token in enumerate(one, 1):
        for j, match in enumerate(other, 1):
            table[i][j] = (
                table[i - 1][j - 1] + 1 if token == match else max(table[i - 1][j], table[i][j - 1])
            )
    return table


def common_positions(one, other):
    """Back through the table: a match at once, else up unless left is more."""
    table, i, j, positions = common_table(one, other), len(one), len(other), set()
    while i and j:
        if one[i - 1] == other[j - 1]:
            positions.add(i - 1)
            i, j = i - 1, j - 1
        elif table[i][j - 1] > table[i - 1][j]:
            j -= 1
        else:
            i -= 1
    return positions


def shared_by_line(prediction, reference):
    predicted = [line.split() for line in prediction.split("\n")]
    shared = Counter()
    for line in (line.split() for line in reference.split("\n")):
        found = set().union(*(common_positions(line, other) for other in predicted))
        shared += Counter(line[i] for i in found)
    return sum(min(n, prediction.split().count(token)) for token, n in shared.items())


@given(LINES, LINES)
def test_rouge_counts_shared_tokens_pairs_and_longest_common_sequences(prediction, reference):
    said, wanted = prediction.split(), reference.split()
    shared = {
        f"rouge{n}": sum((Counter(runs(said, n)) & Counter(runs(wanted, n))).values())
        for n in (1, 2)
    }
    shared["rougeL"] = common_table(said, wanted)[-1][-1]
    shared["rougeLsum"] = shared_by_line(prediction, reference)
    scores = rouge(prediction, reference)
    assert list(scores) == list(shared)
    for name, got in scores.items():
        less = name == "rouge2"
        p, r = max(len(said) - less, 0), max(len(wanted) - less, 0)
        s = shared[name]
        assert got.precision == pytest.approx(s / p if p else 0, rel=1e-14)
        assert got.recall == pytest.approx(s / r if r else 0, rel=1e-14)
        assert got.f1 == pytest.approx(2 * s / (p + r) if p + r else 0, rel=1e-14)
        assert got.support == r


@given(LINES, LINES)
def test_prediction_and_reference_changing_places_precision_and_recall_do_too(one, other):
    for name in ("rouge1", "rouge2", "rougeL"):
        figures, swapped = rouge(one, other)[name], rouge(other, one)[name]
        assert (figures.precision, figures.f1) == (swapped.recall, swapped.f1)


@given(WORDS, WORDS)
def test_a_text_of_one_line_has_one_longest_common_sequence(one, other):
    scores = rouge(one, other)
    assert scores["rougeL"] == scores["rougeLsum"]
    assert scores["rougeL"].f1 <= scores["rouge1"].f1


@pytest.mark.parametrize(
    ("prediction", "f1"),
    [("police kill the gunman", 0.75), ("the gunman kill police", 0.5)],
)
def test_lins_example_of_word_order(prediction, f1):
    scores = rouge(prediction, "police killed the gunman")
    assert scores["rougeL"].f1 == f1
    assert scores["rouge1"].f1 == 0.75


def test_lins_example_of_the_union_over_sentences():
    # w1 w2 from the first line, w1 w3 w5 from the second: four of five are shared.
    got = rouge("w1 w2 w6 w7 w8\nw1 w3 w8 w9 w5", "w1 w2 w3 w4 w5")["rougeLsum"]
    assert (got.recall, got.precision) == (4 / 5, 4 / 10)


def test_texts_of_many_thousand_tokens_are_compared_at_once():
    rng = np.random.default_rng(0)
    whole = rng.integers(0, 50, 20_000).astype(str)
    part = " ".join(whole[rng.random(len(whole)) < 0.5])
    figures = rouge(part, " ".join(whole))
    assert figures["rougeL"].precision == figures["rougeLsum"].precision == 1


@pytest.mark.parametrize(
    ("text", "tokenize", "tokens"),
    [
        ("Don't pay $1,000-2!", "words", ["don", "t", "pay", "1", "000", "2"]),
        ("Café 北京 a_b", "words", ["caf", "a", "b"]),
        ("《北京》2a，Ok", "char", ["北", "京", "2", "a", "o", "k"]),
        ("e\u0301 हि_", "char", ["e\u0301", "हि"]),
    ],
)
def test_rouge_compares_small_letters_and_digits(text, tokenize, tokens):
    space = " " if tokenize == "words" else ""
    figures = rouge(space.join(tokens), text, tokenize)
    assert figures["rougeL"] == (1, 1, 1, len(tokens))


def test_letters_with_other_accents_are_other_letters():
    assert rouge("e\u0301", "e", "char")["rouge1"].f1 == 0


def test_of_several_references_the_best_counts_for_each_figure():
    references = ["a b x y", "b a x y"]
    got = rouge_corpus(["a b y x", "c"], [references, ["d"]])
    each = [rouge("a b y x", text) for text in references]
    for name, value in got.items():
        assert value == max(scores[name].f1 for scores in each) / 2
    assert got["rouge2"] == each[0]["rouge2"].f1 / 2 > each[1]["rouge2"].f1 / 2


# --- Exact match ------------------------------------------------------------------------------


@given(CORPUS)
def test_exact_match_is_the_share_of_predictions_that_are_a_reference(corpus):
    right = [any(p.strip() == text.strip() for text in texts) for p, texts in corpus]
    assert exact_match(*split(corpus)) == sum(right) / len(right)
    padded = [(f" {p}\n", [text + "\t" for text in texts]) for p, texts in corpus]
    assert exact_match(*split(padded)) == exact_match(*split(corpus))


def test_letters_signs_and_inner_spaces_count_in_an_exact_match():
    assert exact_match(["A", "a.", "a  b", "a"], ["a", "a", "a b", "a"]) == 1 / 4
