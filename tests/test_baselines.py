"""What a model has to beat, on cases small enough to count by hand."""

import importlib
import math
from types import SimpleNamespace

import numpy as np
import pytest
from scripts_tools import ROOT

from minilm.nn import Module
from minilm.objectives.masked import Masking
from minilm.tensor import Tensor

CLS, SEP, PAD, MASK, A, B, C, D = range(8)
MASKING = Masking(CLS, SEP, PAD, MASK, np.arange(4, 8))
ROWS = np.array(
    [
        [CLS, A, B, C, SEP, PAD],
        [CLS, A, D, C, SEP, PAD],
        [CLS, A, D, A, SEP, PAD],
        [CLS, D, B, A, SEP, PAD],
    ]
)


def batch(*hidden):
    """The rows, of which some tokens, (row, place), are hidden."""
    ids, labels = ROWS.copy(), np.full_like(ROWS, -100)
    for place in hidden:
        labels[place], ids[place] = ids[place], MASK
    return {"input_ids": ids, "labels": labels, "attention_mask": (ROWS != PAD).astype(int)}


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "scripts")
    return importlib.import_module


@pytest.fixture
def guess(script):
    return script("baselines").NeighbourGuess([batch((0, 1)), batch()], 8, MASKING)


def test_a_token_is_guessed_by_how_often_it_occurs_unless_it_is_never_hidden(guess):
    # twice A 5, B 2, C 2 and D 3, and each once more
    assert guess.unigram.tolist() == [0, 0, 0, 0, 11 / 28, 5 / 28, 5 / 28, 7 / 28]
    found = guess.evaluate([batch((0, 1), (3, 2))])["unigram"]
    assert found == pytest.approx((-math.log(11 / 28 * 5 / 28) / 2, 0.5))  # A is the guess


def test_a_token_is_guessed_from_its_left_and_its_right_neighbour(guess):
    # B, which stands behind D as often as A and C, and before A as often as D
    p = 0.49 * 1 / 3 + 0.49 * 1 / 2 + 0.02 * 5 / 28
    assert guess.evaluate([batch((3, 2))])["bigrams"] == pytest.approx((-math.log(p), 1.0))
    # A, which begins three of four rows and alone stands before D
    p = 0.49 * 3 / 4 + 0.49 + 0.02 * 11 / 28
    assert guess.evaluate([batch((1, 1))])["bigrams"] == pytest.approx((-math.log(p), 1.0))


def test_what_is_never_hidden_is_a_neighbour_but_no_guess(guess):
    for table in (guess.after, guess.before):
        for ids, shares in table.values():
            assert ids.min() >= A and shares.sum() == pytest.approx(1)
    assert CLS in guess.after and SEP in guess.before
    # C, behind B and at the end of a row as often as A, which is more frequent
    p = 0.49 * 1 / 2 + 0.49 * 2 / 4 + 0.02 * 5 / 28
    assert guess.evaluate([batch((0, 3))])["bigrams"] == pytest.approx((-math.log(p), 0.0))


class Answers(Module):
    """Gives each batch its loss, and the same guess everywhere."""

    def __init__(self, losses):
        self.losses = iter(losses)

    def forward(self, labels, **_):
        scores = np.zeros((np.count_nonzero(labels != -100), 8))
        scores[:, A] = 1
        terms = (Tensor(np.array(next(self.losses))), Tensor(np.array(100.0)))
        return SimpleNamespace(losses=terms, prediction_logits=Tensor(scores))


def test_every_hidden_token_counts_alike_in_a_models_score(script):
    batches = [batch((0, 1), (1, 1), (2, 2)), batch((3, 3))]
    nats, accuracy = script("baselines").masked_accuracy(Answers([1.0, 5.0]), batches)
    assert (nats, accuracy) == ((3 * 1.0 + 1 * 5.0) / 4, 3 / 4)


def test_the_majority_is_what_most_labels_are(script):
    assert script("bag_of_words").majority([2, 1, 2, 0], 3).tolist() == [2, 2, 2]


def test_a_bag_of_words_goes_by_the_words_and_not_by_their_order_or_number(script):
    texts = ["a good film", "bad, a film", "good!", "bad", "a dull, dull film"]
    bag = script("bag_of_words").BagOfWords(texts, [1, 0, 1, 0, 0])
    assert bag.predict(["film a GOOD", "a film: bad"]).tolist() == [1, 0]
    twice, once = bag._rows(["dull dull good unseen", "good dull"])
    assert (twice == once).all() and np.linalg.norm(once) == pytest.approx(1)
    assert bag.predict(["unseen"]).tolist() == [0]  # the bias knows the majority


def test_the_nearest_source_is_the_one_with_the_rarest_trigrams_in_common(script):
    nearest = script("score_seq2seq").nearest
    train = [("the cat", "C"), ("the dog", "D"), ("a cow", "K"), ("the cat and the dog", "both")]
    sources = ["the dog", "the cow", "cat", "a cat and a dog"]
    assert nearest(train, sources) == ["D", "K", "C", "both"]
