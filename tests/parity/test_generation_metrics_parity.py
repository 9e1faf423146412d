"""BLEU and chrF agree with sacrebleu's, ROUGE with rouge-score's."""

from functools import cache

import numpy as np
import pytest
from parity.texts import CHINESE, ENGLISH, corpus, generated

from minilm.metrics_generation import TOKENIZERS, bleu, chrf, rouge, rouge_corpus, sentence_bleu

CASES = range(150)
EXACT = 1e-9
SIGNS = [
    *(",", ".", "..", ".,", ",5", "5.", "1,000.5", "5-", "-5", "--", "'s", "&amp;lt;", "&quot;"),
    *(
        "<skipped>",
        "-\n",
        "\n",
        "&",
        "_",
        "“",
        "”",
        "—",
        "。",
        "，",
        "１",
        "㎏",
        "𠀀",
        "ア",
        "\u2028",
    ),
    *("٣", "٣.", "½", "€", "½,", "\u3000", "(a)", "(a", "a)", "!!", "...", "", "İ", "Σ", "ſ"),
]


@cache
def pool():
    """Texts in mixed scripts, in English and Chinese, with signs between, and empty ones."""
    rng = np.random.default_rng(0)
    lines = [*corpus(ENGLISH, 60).split("\n"), *corpus(CHINESE, 60).split("\n"), "", " ", "。", "."]
    for _ in range(100):
        count = rng.integers(1, 12)
        spaces = rng.choice(["", " "], count)
        pieces = rng.choice([*SIGNS, "a", "the", "cat", "中", "文"], count)
        lines.append("".join(a + b for a, b in zip(pieces, spaces, strict=True)))
    return [*lines, *generated(100)]


def changed(text, rng):
    """The text with a few pieces left out, doubled, put elsewhere; or the text."""
    space = " " if " " in text else ""
    words = text.split(" ") if space else list(text)
    for _ in range(rng.integers(0, 4)):
        i, j = rng.integers(0, len(words) + 1, 2)
        words = [words[:i] + words[i + 1 :], words[:i] + words[j:], words[j:] + words[:j]][i % 3]
    return space.join(words)


def corpora(seed):
    """Predictions, and one to three references for each, most of them like it."""
    rng = np.random.default_rng(seed)
    size = rng.integers(1, 6)
    references = [list(rng.choice(pool(), rng.integers(1, 4))) for _ in range(size)]
    predictions = [
        changed(str(texts[rng.integers(len(texts))]), rng)
        if rng.random() < 0.9
        else str(rng.choice(pool()))
        for texts in references
    ]
    return predictions, [[str(text) for text in texts] for texts in references]


def streams(references):
    """sacrebleu's order: lists of all first, second, third references, None where there is none."""
    longest = max(map(len, references))
    return [[texts[k] if k < len(texts) else None for texts in references] for k in range(longest)]


def assert_bleu(got, want):
    np.testing.assert_allclose(got.score, want.score, rtol=EXACT, atol=EXACT)
    np.testing.assert_allclose(got.precisions, want.precisions, rtol=EXACT)
    np.testing.assert_allclose(got.brevity_penalty, want.bp, rtol=EXACT)
    assert (got.length, got.reference_length) == (want.sys_len, want.ref_len)


@pytest.fixture
def sacrebleu():
    return pytest.importorskip("sacrebleu", "2", reason="compares with sacrebleu's BLEU and chrF")


def test_the_cases_have_scores_of_every_kind():
    scores = [bleu(*corpora(seed)).score for seed in CASES]
    assert min(scores) == 0 and max(scores) > 90
    assert len({round(score) for score in scores}) > 30
    assert any(len(texts) == 3 for seed in CASES for texts in corpora(seed)[1])


@pytest.mark.parametrize("tokenize", TOKENIZERS)
def test_texts_are_cut_into_sacrebleus_tokens(tokenize, sacrebleu):
    cut = sacrebleu.BLEU(tokenize=tokenize)._preprocess_segment
    rng = np.random.default_rng(1)
    joined = ["".join(rng.choice([*SIGNS, "a", "7", " "], 8)) for _ in range(2000)]
    codes = [code for code in (*range(0x10000), 0x20000, 0x2F800) if not 0xD800 <= code < 0xE000]
    between = [f"a{chr(code)}b" for code in codes]
    rows = [" ".join(between[i : i + 64]) for i in range(0, len(between), 64)]
    for text in [*pool(), *joined, *rows]:
        assert TOKENIZERS[tokenize](text.rstrip()) == cut(text).split(), repr(text)


@pytest.mark.parametrize("tokenize", TOKENIZERS)
@pytest.mark.parametrize("lowercase", [False, True])
def test_bleu_equals_sacrebleus_for_every_tokenizer(tokenize, lowercase, sacrebleu):
    oracle = sacrebleu.BLEU(tokenize=tokenize, lowercase=lowercase)
    for seed in CASES:
        predictions, references = corpora(seed)
        got = bleu(predictions, references, tokenize=tokenize, lowercase=lowercase)
        assert_bleu(got, oracle.corpus_score(predictions, streams(references)))


@pytest.mark.parametrize(
    ("smooth", "smooth_value"),
    [("exp", None), ("none", None), *((s, v) for s in ("floor", "add-k") for v in (None, 0, 0.3))],
)
@pytest.mark.parametrize("effective_order", [False, True])
def test_bleu_equals_sacrebleus_for_every_smoothing(
    smooth, smooth_value, effective_order, sacrebleu
):
    for seed in CASES:
        max_order = 1 + seed % 6
        oracle = sacrebleu.BLEU(
            tokenize="zh",
            smooth_method=smooth,
            smooth_value=smooth_value,
            max_ngram_order=max_order,
            effective_order=effective_order,
        )
        options = dict(
            tokenize="zh",
            smooth=smooth,
            smooth_value=smooth_value,
            max_order=max_order,
            effective_order=effective_order,
        )
        predictions, references = corpora(seed)
        got = bleu(predictions, references, **options)
        assert_bleu(got, oracle.corpus_score(predictions, streams(references)))


def test_the_bleu_of_a_sentence_equals_sacrebleus(sacrebleu):
    for seed in CASES:
        for prediction, texts in zip(*corpora(seed), strict=True):
            assert_bleu(
                sentence_bleu(prediction, texts), sacrebleu.sentence_bleu(prediction, texts)
            )


@pytest.mark.parametrize("char_order", [1, 6])
@pytest.mark.parametrize("word_order", [0, 2])
@pytest.mark.parametrize("beta", [1, 2, 3])
def test_chrf_equals_sacrebleus(char_order, word_order, beta, sacrebleu):
    for seed in CASES:
        lowercase = bool(seed % 2)
        oracle = sacrebleu.CHRF(char_order, word_order, beta, lowercase)
        predictions, references = corpora(seed)
        want = oracle.corpus_score(predictions, streams(references)).score
        got = chrf(
            predictions,
            references,
            char_order=char_order,
            word_order=word_order,
            beta=beta,
            lowercase=lowercase,
        )
        assert got == pytest.approx(want, rel=EXACT, abs=EXACT)


def test_rouge_equals_rouge_scores():
    oracle = pytest.importorskip("rouge_score.rouge_scorer", reason="compares with rouge-score's")
    scorer = oracle.RougeScorer(["rouge1", "rouge2", "rougeL", "rougeLsum"])
    rng = np.random.default_rng(0)
    for _ in range(300):  # lines of few words: many longest sequences to choose from
        words = rng.choice(["a", "b", "c", "D", "e1", "\n", ".", "é"], (2, rng.integers(1, 30)))
        assert_rouge(scorer, *map(" ".join, words.tolist()))
    for seed in CASES:
        predictions, references = corpora(seed)
        best = []
        for prediction, texts in zip(predictions, references, strict=True):
            assert_rouge(scorer, prediction, texts[0])
            best.append(scorer.score_multi(texts, prediction))
        for name, f1 in rouge_corpus(predictions, references).items():
            want = np.mean([scores[name].fmeasure for scores in best])
            assert f1 == pytest.approx(want, rel=EXACT, abs=EXACT)


def assert_rouge(scorer, prediction, reference):
    want = scorer.score(reference, prediction)
    got = rouge(prediction, reference)
    assert set(got) == set(want)
    for name, figures in got.items():
        np.testing.assert_allclose(figures[:3], want[name], rtol=EXACT, atol=EXACT)
