"""Laws of sentence pairs: what follows, what does not, and how they become rows."""

import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minilm.functional import IGNORE_INDEX
from minilm.objectives import next_sentence
from minilm.objectives.masked import Masking
from minilm.objectives.next_sentence import (
    Documents,
    Pair,
    PretrainingBatches,
    assemble,
    pretraining_loss,
    sentence_pairs,
    split_documents,
    split_sentences,
    truncate_pair,
)
from minilm.tensor import Tensor
from minilm.tokenizers import WordPieceTokenizer

CLS, SEP, PAD, MASK = range(4)
MASKING = Masking(CLS, SEP, PAD, MASK, np.arange(10, 20))
TEXT = 100  # the tokens of texts begin here


def numbered(sizes):
    """Documents of sentences of these sizes, all tokens different and in order."""
    tokens = iter(range(TEXT, 10**6))
    return [[[next(tokens) for _ in range(n)] for n in document] for document in sizes]


def restored(batch):
    """The rows as they were before masking."""
    return np.where(batch["labels"] == IGNORE_INDEX, batch["input_ids"], batch["labels"])


def place(documents):
    """Of every token its document, and the tokens that begin a sentence."""
    of = {t: d for d, document in enumerate(documents) for s in document for t in s}
    return of, {sentence[0] for document in documents for sentence in document if sentence}


# Sizes of sentences, of documents among which one has two sentences.
SIZES = st.tuples(
    st.lists(st.integers(1, 9), min_size=2, max_size=8),
    st.lists(st.lists(st.integers(0, 9), max_size=8), min_size=1, max_size=4),
).map(lambda parts: [parts[0], [3], *parts[1]])
# A long corpus of sentences of one token: 20 documents of 200
LONG = Documents(numbered([[1] * 200] * 20))


# --- Pairs ------------------------------------------------------------------------------------


@given(SIZES, st.integers(2, 30), st.integers(0, 1000))
def test_a_positive_goes_on_where_its_first_text_ends_with_the_next_sentence(sizes, room, seed):
    documents = numbered(sizes)
    of, begins = place(documents)
    corpus, rng = Documents(documents), np.random.default_rng(seed)
    for start in corpus.starts:
        (first, second, label), stop = corpus.pair(start, True, room, rng)
        both = np.append(first, second)
        assert label == 0 and second[0] in begins
        assert np.array_equal(both, both[0] + np.arange(len(both)))
        assert len({of[token] for token in both}) == 1
        assert corpus.tokens[corpus.ends[stop] - 1] >= both[-1]


@given(SIZES, st.integers(2, 30), st.integers(0, 1000))
def test_a_negative_is_a_stretch_of_another_document_from_where_a_sentence_begins(
    sizes, room, seed
):
    documents = numbered(sizes)
    of, begins = place(documents)
    corpus, rng = Documents(documents), np.random.default_rng(seed)
    for start in corpus.starts:
        (first, second, label), stop = corpus.pair(start, False, room, rng)
        assert label == 1 and second[0] in begins
        for text in (first, second):
            assert np.array_equal(text, text[0] + np.arange(len(text)))
        assert len({of[token] for token in first}) == len({of[token] for token in second}) == 1
        assert of[first[0]] != of[second[0]]
        assert first[-1] + 1 == corpus.tokens[corpus.ends[stop]]  # what was not used comes next


@given(
    st.lists(
        st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=3), min_size=1, max_size=5),
        min_size=2,
        max_size=4,
    ),
    st.integers(2, 12),
    st.integers(0, 1000),
)
def test_a_negative_never_begins_as_the_true_next_sentence_even_where_texts_repeat(
    documents, room, seed
):
    if max(map(len, documents)) < 2:
        documents.append([[0], [1]])
    corpus, rng = Documents(documents), np.random.default_rng(seed)
    for start in corpus.starts:
        try:
            pair, split = corpus.pair(start, False, room, rng)
        except ValueError as error:
            assert "differs from the one that follows" in str(error)
            continue
        following = corpus.tokens[corpus.ends[split] : corpus.ends[split + 1]].tolist()
        second = pair.second.tolist()
        assert second[: len(following)] != following[: len(second)]


def test_of_two_copies_of_a_document_only_another_place_of_the_copy_is_a_negative():
    corpus, rng = Documents([[[7], [8], [9]]] * 2), np.random.default_rng(0)
    found = [corpus.pair(0, False, 2, rng) for _ in range(300)]  # A is 7 alone
    assert {(*pair.first.tolist(), *pair.second.tolist()) for pair, _ in found} == {(7, 7), (7, 9)}


def test_documents_that_are_all_alike_have_no_negative():
    corpus = Documents([[[7], [7], [7]]] * 3)
    with pytest.raises(ValueError, match="got none in 6; leave out documents that repeat"):
        corpus.pair(0, False, 8, np.random.default_rng(0))


def test_negatives_begin_at_all_sentences_of_the_other_documents_equally_often():
    corpus, rng = Documents(numbered([[1, 1], [1, 1, 1], [1]])), np.random.default_rng(0)
    for start, others in ((0, [2, 3, 4, 5]), (2, [0, 1, 5]), (3, [0, 1, 5])):
        drawn = [corpus.pair(start, False, 2, rng)[0].second[0] - TEXT for _ in range(3000)]
        sentences, counts = np.unique(drawn, return_counts=True)
        assert sentences.tolist() == others
        assert np.abs(counts - 3000 / len(others)).max() < 5 * math.sqrt(3000 / 4)


# --- How long they are ------------------------------------------------------------------------


@given(SIZES, st.integers(2, 30), st.booleans(), st.integers(0, 1000))
def test_a_pair_has_a_token_in_each_text_and_no_more_than_max_tokens(sizes, room, is_next, seed):
    corpus, rng = Documents(numbered(sizes)), np.random.default_rng(seed)
    for start in corpus.starts:
        (first, second, _), _ = corpus.pair(start, is_next, room, rng)
        assert min(len(first), len(second)) >= 1
        assert len(first) + len(second) <= room


@given(SIZES, st.integers(2, 30), st.integers(0, 1000))
def test_pairs_that_are_not_made_short_are_full_or_reach_the_end_of_the_document(sizes, room, seed):
    documents = numbered(sizes)
    corpus, rng = Documents(documents), np.random.default_rng(seed)
    last = {max(sum(document, [])) for document in documents if sum(document, [])}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(next_sentence, "SHORT", 0.0)
        for start in corpus.starts:
            for is_next in (True, False):
                (first, second, _), _ = corpus.pair(start, is_next, room, rng)
                assert len(first) + len(second) == room or int(second[-1]) in last


def test_a_tenth_of_the_pairs_are_shorter_by_chance_all_lengths_equally_often():
    rng = np.random.default_rng(0)
    pairs = [LONG.pair(int(start), True, 11, rng)[0] for start in rng.integers(0, 150, 10_000)]
    sizes = np.array([len(pair.first) + len(pair.second) for pair in pairs])
    counts = np.bincount(sizes, minlength=12)
    assert counts[:2].tolist() == [0, 0]
    assert np.abs(counts[2:11] - 100).max() < 5 * 10  # 10,000 · 1/10 · 1/10 each
    splits = np.bincount([len(pair.first) for pair in pairs])
    assert splits[0] == 0 and len(splits) == 11 and splits[1:].min() > 700  # A ends anywhere


@given(st.integers(1, 20), st.integers(1, 20), st.integers(2, 25))
def test_truncation_takes_a_token_at_a_time_from_the_longer_text(n, m, room):
    first, second = list(range(n)), list(range(100, 100 + m))
    found = truncate_pair(np.array(first), np.array(second), room)
    while len(first) + len(second) > room:
        if len(first) > len(second):
            first.pop(0)
        else:
            second.pop()
    assert [text.tolist() for text in found] == [first, second]


# --- All pairs of the documents ---------------------------------------------------------------


@given(SIZES, st.integers(2, 30), st.integers(0, 1000))
def test_a_pass_begins_each_text_where_the_pair_before_ended(sizes, room, seed):
    documents = numbered(sizes)
    corpus = Documents(documents)
    of, _ = place(documents)
    seen, before = set(), None
    for first, second, label in sentence_pairs(corpus, room, np.random.default_rng(seed)):
        used = (first, second) if label == 0 else (first,)
        tokens = {int(token) for text in used for token in text}
        assert not tokens & seen
        assert before is None or min(tokens) > before
        seen, before = seen | tokens, max(tokens)
    with_two = {d for d, document in enumerate(documents) if sum(map(bool, document)) > 1}
    assert {of[token] for token in seen} == with_two


def test_in_a_pass_nothing_is_left_out_but_what_truncation_takes():
    pairs = list(sentence_pairs(LONG, 200, np.random.default_rng(0)))
    used = [text for first, second, x in pairs for text in ((first,) if x else (first, second))]
    missing = set(LONG.tokens.tolist()) - set(np.concatenate(used).tolist())
    lasts = set(LONG.tokens[LONG.bounds[1:] - 1].tolist())
    assert missing <= lasts  # a last sentence alone has nothing that follows


def test_in_a_pass_about_half_of_the_pairs_are_the_next():
    labels = [pair.label for pair in sentence_pairs(LONG, 3, np.random.default_rng(0))]
    assert len(labels) > 1500
    assert abs(sum(labels) - len(labels) / 2) < 5 * math.sqrt(len(labels)) / 2


@pytest.mark.parametrize(
    ("documents", "got"),
    [
        ([], "0 with at most 0"),
        ([[[1], [2]]], "1 with at most 2"),
        ([[[1], [2]], [], [[]]], "1 with at most 2"),
        ([[[1]], [[2], []]], "2 with at most 1"),
    ],
)
def test_one_document_or_none_with_two_sentences_is_an_error(documents, got):
    with pytest.raises(ValueError, match=f"expected two documents or more.*got {got}; see"):
        Documents(documents)


def test_a_pair_without_room_for_two_tokens_is_an_error():
    with pytest.raises(ValueError, match="expected max_tokens >= 2, got 1; max_len >= 5"):
        LONG.pair(0, True, 1, np.random.default_rng(0))


@pytest.mark.parametrize("is_next", [True, False])
def test_a_pair_cannot_begin_with_a_documents_last_sentence(is_next):
    last = int(LONG.bounds[1]) - 1
    with pytest.raises(ValueError, match=f"another of its document follows, got {last}, its last"):
        LONG.pair(last, is_next, 8, np.random.default_rng(0))


# --- Rows -------------------------------------------------------------------------------------


def test_rows_are_those_that_the_tokenizer_makes_of_the_same_texts():
    firsts, seconds = ["low lower", "lowest", "a slow owl"], ["slow", "lower low lower", "owl"]
    tokenizer = WordPieceTokenizer.train([*firsts, *seconds], vocab_size=40)
    pairs = [
        Pair(np.array(tokenizer.encode(a)), np.array(tokenizer.encode(b)), i % 2)
        for i, (a, b) in enumerate(zip(firsts, seconds, strict=True))
    ]
    ids = [tokenizer.special_tokens[name] for name in ("[CLS]", "[SEP]", "[PAD]")]
    for max_len, options in ((None, {"padding": True}), (20, {"padding": "max_length"})):
        expected = tokenizer(firsts, seconds, max_length=max_len, **options)
        batch = assemble(pairs, *ids, max_len=max_len)
        for name in ("input_ids", "token_type_ids", "attention_mask", "special_tokens_mask"):
            assert np.array_equal(batch[name], expected[name]), name
            assert batch[name].dtype == np.int64
        assert batch["next_sentence_label"].tolist() == [0, 1, 0]


def test_a_pair_longer_than_max_len_is_an_error():
    pair = Pair(np.array([5, 6]), np.array([7]), 0)
    assert assemble([pair], CLS, SEP, PAD, 6)["input_ids"].tolist() == [[0, 5, 6, 1, 7, 1]]
    with pytest.raises(ValueError, match="at most max_len - 3 = 2 tokens, got 3"):
        assemble([pair], CLS, SEP, PAD, 5)


# --- Batches ----------------------------------------------------------------------------------

NAMES = {"input_ids", "attention_mask", "token_type_ids", "labels", "next_sentence_label"}


@pytest.mark.parametrize("batch_size", [1, 2, 7, 64])
def test_half_of_a_batch_is_the_next_and_of_an_odd_number_one_more_or_less(batch_size):
    batches, rng = PretrainingBatches(LONG, MASKING, 16), np.random.default_rng(0)
    counts = [batches.sample(rng, batch_size)["next_sentence_label"].sum() for _ in range(40)]
    assert set(counts) == {batch_size // 2, (batch_size + 1) // 2}


def test_a_label_is_0_where_the_second_text_follows_and_1_where_it_does_not():
    batch = PretrainingBatches(LONG, MASKING, 16).sample(np.random.default_rng(0), 200)
    labels = batch["next_sentence_label"]
    for row, types, label in zip(restored(batch), batch["token_type_ids"], labels, strict=True):
        texts = [row[(types == kind) & (row >= TEXT)] for kind in (0, 1)]
        assert (texts[0][-1] + 1 == texts[1][0]) == (label == 0)
    assert np.bincount(labels).tolist() == [100, 100]
    assert len(set(labels[:20].tolist())) == 2  # in random order
    assert not np.array_equal(labels[:100], labels[100:])


def test_batches_have_what_a_model_takes_and_label_no_special_token():
    batch = PretrainingBatches(LONG, MASKING, 48).sample(np.random.default_rng(0), 32)
    assert set(batch) == NAMES and {len(array) for array in batch.values()} == {32}
    assert batch["input_ids"].shape[1] == 48
    chosen = batch["labels"] != IGNORE_INDEX
    assert (batch["labels"][chosen] >= TEXT).all()
    real = batch["attention_mask"].sum(1) - 3
    assert chosen.sum(1).tolist() == [max(1, round(0.15 * n)) for n in real.tolist()]
    assert ((batch["input_ids"] == PAD) == (batch["attention_mask"] == 0)).all()
    assert not batch["token_type_ids"][batch["attention_mask"] == 0].any()


def test_the_same_seed_gives_the_same_samples_and_the_next_call_others():
    batches, rng = PretrainingBatches(LONG, MASKING, 16), np.random.default_rng(1)
    first, other = batches.sample(rng, 8), batches.sample(rng, 8)
    again = batches.sample(np.random.default_rng(1), 8)
    assert all(np.array_equal(first[name], again[name]) for name in NAMES)
    assert not np.array_equal(first["input_ids"], other["input_ids"])


def test_samples_begin_at_all_sentences_that_another_one_follows():
    corpus = Documents(numbered([[1, 1, 1], [1], [1, 1]]))
    assert corpus.starts.tolist() == [0, 1, 4]
    batch = PretrainingBatches(corpus, MASKING, 5).sample(np.random.default_rng(0), 3000)
    tokens, counts = np.unique(restored(batch)[:, 1], return_counts=True)
    assert tokens.tolist() == [TEXT, TEXT + 1, TEXT + 4]
    assert np.abs(counts - 1000).max() < 5 * 26  # √(3000 · 1/3 · 2/3)


def test_evaluation_is_the_same_each_time_with_pairs_that_no_batch_size_changes():
    batches = PretrainingBatches(LONG, MASKING, 16)
    first, again, other = (list(batches.evaluation(8, seed)) for seed in (0, 0, 1))
    for a, b in zip(first, again, strict=True):
        assert all(np.array_equal(a[name], b[name]) for name in NAMES)
    large = list(batches.evaluation(50))

    def rows(found):
        """Each row's tokens, without padding."""
        return [row[row != PAD].tolist() for batch in found for row in restored(batch)]

    assert rows(first) == rows(large) != rows(other)
    assert all(len(batch["labels"]) == 8 for batch in first[:-1]) and len(first[-1]["labels"]) <= 8


# --- The loss ---------------------------------------------------------------------------------


def test_the_joint_loss_is_the_mean_over_tokens_and_the_mean_over_pairs():
    rng = np.random.default_rng(0)
    z, next_z = rng.normal(size=(2, 5, 7)), rng.normal(size=(2, 2))
    labels = np.full((2, 5), IGNORE_INDEX)
    labels[0, 1], labels[1, 2], labels[1, 4] = 3, 0, 6
    next_labels = np.array([1, 0])

    def cost(row, label):
        return math.log(sum(math.exp(value) for value in row)) - row[label]

    tokens = cost(z[0, 1], 3) + cost(z[1, 2], 0) + cost(z[1, 4], 6)
    pairs = cost(next_z[0], 1) + cost(next_z[1], 0)
    loss = pretraining_loss(Tensor(z), labels, Tensor(next_z), next_labels)
    assert loss.item() == pytest.approx(tokens / 3 + pairs / 2, rel=1e-13)


# --- Text -------------------------------------------------------------------------------------


@given(st.text("ab .!?。！？\"'”」)\n\t3", max_size=40))
def test_sentences_lose_nothing_but_whitespace_and_are_not_split_again(text):
    found = split_sentences(text)
    assert re.sub(r"\s", "", "".join(found)) == re.sub(r"\s", "", text)
    assert all(sentence == sentence.strip() != "" for sentence in found)
    assert [split_sentences(sentence) for sentence in found] == [[s] for s in found]


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("One. Two! Three? four", ["One.", "Two!", "Three?", "four"]),
        ("Wait... what?! (Yes.) No", ["Wait...", "what?!", "(Yes.)", "No"]),
        ("a line\nand its end.\nNext", ["a line\nand its end.", "Next"]),
        ("file.txt is 3.5 kB", ["file.txt is 3.5 kB"]),
        ("他说：“好。”我走了！！真的？是", ["他说：“好。”", "我走了！！", "真的？", "是"]),
        (" \n ", []),
    ],
)
def test_sentences_end_behind_their_signs_and_closing_quotes(text, sentences):
    assert split_sentences(text) == sentences


def test_documents_stand_between_blank_lines():
    text = "\n\nOne. Two.\nThree.\n \t\n\n\nFour.\r\n\r\nFive\n"
    assert split_documents(text) == [["One.", "Two.", "Three."], ["Four."], ["Five"]]
