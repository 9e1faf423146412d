"""Laws of BERT and its heads."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nn.gradients import check_gradients

from minilm import functional as F
from minilm.models import bert_heads
from minilm.models.bert import Bert, BertConfig, distilbert_config, roberta_config
from minilm.models.bert_heads import (
    BertForMaskedLM,
    BertForMultipleChoice,
    BertForNextSentencePrediction,
    BertForPreTraining,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
)
from minilm.objectives.masked import masked_loss
from minilm.optim import SGD
from minilm.tensor import Tensor, no_grad
from minilm.training import accumulate_gradients, evaluate, train_step

CONFIG = BertConfig(
    vocab_size=23, max_len=10, d_model=8, n_heads=2, n_layers=2, d_ff=12, init_std=0.5, n_labels=3
)
HEADS = [
    BertForPreTraining,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertForQuestionAnswering,
]


def build(model_class, config=CONFIG, seed=0):
    return model_class(config, np.random.default_rng(seed)).astype(np.float64).eval()


def make_batch(head, rows=5, length=7, seed=0):
    rng = np.random.default_rng(seed)
    shape = (rows, length)
    labels = np.where(rng.random(shape) < 0.4, rng.integers(0, 3, shape), -100)
    labels[0, 0] = 1
    return {
        "input_ids": rng.integers(0, 23, shape),
        "token_type_ids": rng.integers(0, 2, shape),
        "attention_mask": (np.arange(length) < rng.integers(2, length + 1, (rows, 1))).astype(int),
        **{
            BertForPreTraining: {
                "labels": labels,
                "next_sentence_label": rng.integers(0, 2, rows),
            },
            BertForMaskedLM: {"labels": labels},
            BertForSequenceClassification: {"labels": rng.integers(0, 3, rows)},
            BertForTokenClassification: {"labels": labels},
            BertForQuestionAnswering: {
                "start_positions": rng.integers(0, length, rows),
                "end_positions": rng.integers(0, length, rows),
            },
        }[head],
    }


@pytest.mark.parametrize("head", HEADS)
@given(extra=st.integers(1, 3), seed=st.integers(0, 5))
def test_appending_padding_changes_nothing_at_real_positions(head, extra, seed):
    model, batch = build(head), make_batch(head, seed=seed)
    pads = {"labels": -100, "attention_mask": 0}
    longer = {
        name: np.pad(array, ((0, 0), (0, extra)), constant_values=pads.get(name, 0))
        if array.ndim == 2
        else array
        for name, array in batch.items()
    }
    longer["input_ids"][:, 7:] = np.random.default_rng(seed).integers(0, 23, (5, extra))
    short, long = (
        model(**x, output_hidden_states=True, output_attentions=True) for x in (batch, longer)
    )
    if head is not BertForQuestionAnswering:  # its softmax is over positions, padding too
        np.testing.assert_allclose(short.loss.data, long.loss.data, rtol=1e-12)
    real = batch["attention_mask"].astype(bool)
    if head is BertForQuestionAnswering:
        for name in ("start_logits", "end_logits"):
            a, b = getattr(short, name).data[real], getattr(long, name).data[:, :7][real]
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)
    for a, b in zip(short.hidden_states, long.hidden_states, strict=True):
        np.testing.assert_allclose(a.data[real], b.data[:, :7][real], rtol=1e-9, atol=1e-12)
    for weights in long.attentions:
        assert (weights[:, :, :, 7:] == 0).all()
        np.testing.assert_allclose(weights.sum(-1), 1)


@pytest.mark.parametrize("head", HEADS)
def test_any_number_of_workers_gives_one_loss_and_one_gradient(head):
    model, batch = build(head), make_batch(head)
    optimizer = SGD(model.parameters(), lr=0.1)
    expected = None
    for workers in (1, 2, 3, 5):
        optimizer.zero_grad()
        with no_grad():
            direct = model(**batch).loss.item()
        loss = accumulate_gradients(model, optimizer, [batch], workers)
        np.testing.assert_allclose(loss, direct, rtol=1e-10)
        assert evaluate(model, [batch], workers) == pytest.approx(direct, rel=1e-10)
        gradient = optimizer.gradient.copy()
        expected = gradient if expected is None else expected
        np.testing.assert_allclose(gradient, expected, rtol=1e-9, atol=1e-12)
        optimizer.gradient[...] = 0


def test_only_labelled_positions_are_projected(monkeypatch):
    rows = []
    forward = bert_heads.MaskedHead.forward

    def watched(self, x, embedding):
        rows.append(x.shape)
        return forward(self, x, embedding)

    monkeypatch.setattr(bert_heads.MaskedHead, "forward", watched)
    for head, logits in ((BertForPreTraining, "prediction_logits"), (BertForMaskedLM, "logits")):
        model, batch = build(head), make_batch(head)
        count = int((batch["labels"] != -100).sum())
        assert getattr(model(**batch), logits).shape == (count, 23)
        del batch["labels"]
        batch.pop("next_sentence_label", None)
        assert getattr(model(**batch), logits).shape == (5, 7, 23)
        assert rows[-2:] == [(count, 8), (5, 7, 8)]


def test_the_masked_loss_is_the_mean_of_minus_log_p_at_the_masked_positions():
    model, batch = build(BertForMaskedLM), make_batch(BertForMaskedLM)
    labels = batch.pop("labels")
    logits = model(**batch).logits.data
    terms = []
    for i, t in zip(*np.nonzero(labels != -100), strict=True):
        p = np.exp(logits[i, t]) / np.exp(logits[i, t]).sum()
        terms.append(-np.log(p[labels[i, t]]))
    loss = model(**batch, labels=labels).loss.item()
    assert loss == pytest.approx(np.mean(terms), rel=1e-12)
    assert loss == pytest.approx(masked_loss(Tensor(logits), labels).item(), rel=1e-12)


def test_the_next_sentence_loss_is_the_mean_of_minus_log_p_of_the_label():
    model, batch = build(BertForNextSentencePrediction), make_batch(BertForPreTraining)
    del batch["labels"], batch["next_sentence_label"]
    labels, logits = np.array([0, 1, 1, 0, 1]), model(**batch).logits.data
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    terms = [-np.log(row[label]) for row, label in zip(p, labels, strict=True)]
    assert model(**batch, labels=labels).loss.item() == pytest.approx(np.mean(terms), rel=1e-12)


def test_the_pre_training_loss_is_the_sum_of_its_two_terms():
    model, batch = build(BertForPreTraining), make_batch(BertForPreTraining)
    both = model(**batch)
    masked_labels, next_label = batch.pop("labels"), batch.pop("next_sentence_label")
    alone = [
        model(**batch, labels=masked_labels).loss.item(),
        model(**batch, next_sentence_label=next_label).loss.item(),
    ]
    assert [term.item() for term in both.losses] == pytest.approx(alone, rel=1e-12)
    assert both.loss.item() == pytest.approx(sum(alone), rel=1e-12)
    assert model(**batch).loss is None


def test_a_batch_without_a_masked_position_has_a_masked_loss_of_zero():
    model, batch = build(BertForMaskedLM), make_batch(BertForMaskedLM)
    batch["labels"][...] = -100
    output = model(**batch)
    assert output.loss.item() == 0 and output.logits.shape == (0, 23)


def test_a_regression_has_the_mean_squared_error():
    config = BertConfig(**{**vars(CONFIG), "n_labels": 1})
    model, batch = build(BertForSequenceClassification, config), make_batch(BertForMaskedLM)
    del batch["labels"]
    scores = model(**batch).logits.data[:, 0]
    labels = np.linspace(-1, 1, 5)
    loss = model(**batch, labels=labels).loss.item()
    assert loss == pytest.approx(np.mean((scores - labels) ** 2), rel=1e-12)
    assert model.count_targets({"labels": np.array([-100.0, 1.0])}) == 2


def gradients(model):
    """Those that there are: a classifier of tokens has a pooler that it does not ask."""
    return {n: p.grad.copy() for n, p in model.named_parameters() if p.grad is not None}


WEIGHTS = np.array([0.02, 0.3, 0.07])  # so small that a batch of few weighs less than one target
CLASSIFIERS = [BertForSequenceClassification, BertForTokenClassification]
each_classifier = pytest.mark.parametrize("head", CLASSIFIERS)


@each_classifier
def test_the_weighted_loss_is_the_weighted_mean_of_minus_log_p(head):
    model, batch = build(head), make_batch(head)
    model.class_weights = WEIGHTS
    output = model(**batch)
    total = weight = 0.0
    for row, label in zip(output.logits.data.reshape(-1, 3), batch["labels"].ravel(), strict=True):
        if label != -100:
            total -= WEIGHTS[label] * np.log(np.exp(row[label]) / np.exp(row).sum())
            weight += WEIGHTS[label]
    assert output.loss.item() == pytest.approx(total / weight, rel=1e-12)
    assert model.count_targets(batch) == pytest.approx(weight, rel=1e-14)


@each_classifier
def test_the_gradient_of_the_weighted_loss_is_right(head):
    model, batch = build(head), make_batch(head)
    model.class_weights = WEIGHTS
    logits = model(**batch).logits.data
    check_gradients(lambda x: model.classification_loss(x, batch["labels"]), [logits])
    check_gradients(lambda: model(**batch).loss, module=model)


@each_classifier
def test_weights_that_are_whole_numbers_are_repeated_examples(head):
    weights, batch = np.array([2, 0, 3]), make_batch(head)
    if head is BertForTokenClassification:  # one label a row, so that rows can be repeated
        batch["labels"][:, 1:] = -100
        batch["labels"][:, 0] = [0, 1, 2, 0, 2]
    labels = batch["labels"].reshape(5, -1)[:, 0]
    repeated = {name: np.repeat(array, weights[labels], axis=0) for name, array in batch.items()}
    model, plain = build(head), build(head)
    model.class_weights = weights
    losses = [model(**batch).loss, plain(**repeated).loss]
    assert losses[0].item() == pytest.approx(losses[1].item(), rel=1e-12)
    assert model.count_targets(batch) == plain.count_targets(repeated)
    for loss in losses:
        loss.backward()
    expected = gradients(plain)
    for name, gradient in gradients(model).items():
        np.testing.assert_allclose(gradient, expected.pop(name), rtol=1e-9, atol=1e-12)
    assert not expected


@each_classifier
@pytest.mark.parametrize("scale", [1.0, 1e-6, 50.0])
def test_weighted_shards_add_up_to_the_loss_and_gradient_of_the_whole_batch(head, scale):
    model, batch = build(head), make_batch(head)
    batch["labels"][1] = -100  # a shard of its own among five, and it has no target
    model.class_weights = WEIGHTS * scale
    whole = model(**batch).loss
    whole.backward()
    expected = gradients(model)
    optimizer = SGD(model.parameters(), lr=0.1)
    halves = [{name: array[part] for name, array in batch.items()} for part in
              (slice(0, 2), slice(2, 5))]  # fmt: skip
    for batches in ([batch], halves):
        for workers in (1, 2, 3, 5):
            optimizer.zero_grad()
            loss = accumulate_gradients(model, optimizer, batches, workers)
            assert loss == pytest.approx(whole.item(), rel=1e-12)
            assert evaluate(model, batches, workers) == pytest.approx(whole.item(), rel=1e-12)
            found = gradients(model)
            assert found.keys() == expected.keys()
            for name, gradient in found.items():
                np.testing.assert_allclose(gradient, expected[name], rtol=1e-9, atol=1e-12)


@each_classifier
def test_equal_weights_weigh_nothing_and_none_is_the_plain_loss_to_the_last_bit(head):
    model, batch = build(head), make_batch(head)
    plain = model(**batch)
    assert plain.loss.item() == F.cross_entropy(plain.logits, batch["labels"]).item()
    model.class_weights = np.full(3, 0.25)
    assert model(**batch).loss.item() == pytest.approx(plain.loss.item(), rel=1e-13)


@each_classifier
def test_targets_that_weigh_nothing_have_a_loss_of_zero_and_no_gradient(head):
    model, batch = build(head), make_batch(head)
    model.class_weights = np.array([0.0, 0.0, 1.0])
    batch["labels"][batch["labels"] == 2] = 1
    loss = model(**batch).loss
    loss.backward()
    assert loss.item() == 0 and model.count_targets(batch) == 0
    assert not model.classifier.weight.grad.any()


@each_classifier
def test_weights_keep_the_dtype_and_are_no_part_of_the_state(head):
    model, batch = build(head).astype(np.float32), make_batch(head)
    names = list(model.state_dict())
    model.class_weights = WEIGHTS
    loss = model(**batch).loss
    loss.backward()
    assert loss.dtype == np.float32 and model.classifier.weight.grad.dtype == np.float32
    assert list(model.state_dict()) == names


@pytest.mark.parametrize("weights", [np.ones(2), np.ones((3, 1)), [1, -1, 1], [1, 1, np.nan],
                                     [1, np.inf, 1]])  # fmt: skip
@each_classifier
def test_weights_that_are_not_one_for_each_class_are_an_error(head, weights):
    model, batch = build(head), make_batch(head)
    model.class_weights = weights
    for call in (lambda: model(**batch), lambda: model.count_targets(batch)):
        with pytest.raises(ValueError, match="number >= 0 for each of n_labels = 3 classes.*got"):
            call()


def test_a_regression_has_no_class_weights():
    config = BertConfig(**{**vars(CONFIG), "n_labels": 1})
    model, batch = build(BertForSequenceClassification, config), make_batch(BertForMaskedLM)
    model.class_weights = np.ones(1)
    with pytest.raises(ValueError, match="n_labels = 1 classes, two or more, got"):
        model(batch["input_ids"], labels=np.linspace(-1, 1, 5))


@each_classifier
def test_a_label_that_is_no_class_is_named_with_weights_too(head):
    model, batch = build(head), make_batch(head)
    model.class_weights = WEIGHTS
    for label in (3, -1):
        batch["labels"][0] = label
        with pytest.raises(IndexError, match="expected labels in 0..2"):
            train_step(model, SGD(model.parameters(), lr=0.1), batch)


def test_choices_are_scored_one_by_one():
    config = BertConfig(**{**vars(CONFIG), "dropout": 0.0})
    model = build(BertForMultipleChoice, config)
    rng = np.random.default_rng(0)
    ids, mask = rng.integers(0, 23, (2, 3, 6)), np.ones((2, 3, 6), int)
    logits = model(ids, attention_mask=mask, labels=np.array([0, 2])).logits.data
    for i in range(2):
        for j in range(3):
            alone = model(ids[i : i + 1, j : j + 1]).logits.item()
            assert logits[i, j] == pytest.approx(alone, rel=1e-10)


def test_both_sides_are_seen():
    model = build(Bert)
    ids = np.arange(6)[None]
    changed = ids.copy()
    changed[0, 5] = 9
    a, b = (model(x).last_hidden_state.data for x in (ids, changed))
    assert (np.abs(a - b).max(-1) > 1e-6).all()


def test_the_pooler_reads_the_first_position():
    model, ids = build(Bert), np.arange(6)[None]
    output = model(ids)
    pooled = output.last_hidden_state.data[:, 0] @ model.pooler.weight.data.T
    np.testing.assert_allclose(
        output.pooler_output.data, np.tanh(pooled + model.pooler.bias.data), rtol=1e-12
    )


def test_hidden_states_are_those_of_every_block_and_the_embeddings():
    model, ids = build(Bert), np.arange(6)[None]
    output = model(ids, output_hidden_states=True, output_attentions=True)
    assert len(output.hidden_states) == 3 and len(output.attentions) == 2
    assert output.hidden_states[-1] is output.last_hidden_state
    assert output.attentions[0].shape == (1, 2, 6, 6)
    assert model(ids).hidden_states is None and model(ids).attentions is None


def test_roberta_begins_its_positions_at_two_and_has_one_token_type():
    config = roberta_config(
        vocab_size=23, max_len=10, d_model=8, n_heads=2, n_layers=1, d_ff=12, init_std=0.5
    )
    model = build(Bert, config)
    assert model.position_embedding.weight.shape == (12, 8)
    before = model(np.arange(5)[None]).last_hidden_state.data
    model.position_embedding.weight[:2] = 7.0
    assert (model(np.arange(5)[None]).last_hidden_state.data == before).all()
    model.position_embedding.weight[2] = 7.0
    assert (model(np.arange(5)[None]).last_hidden_state.data != before).any()


def test_distilbert_has_no_token_types_and_relu_in_its_pooler():
    config = distilbert_config(
        vocab_size=23, max_len=10, d_model=8, n_heads=2, n_layers=1, d_ff=12, init_std=0.5
    )
    model, ids = build(Bert, config), np.arange(5)[None]
    assert not [name for name in model.state_dict() if "type" in name]
    output = model(ids)
    pooled = output.last_hidden_state.data[:, 0] @ model.pooler.weight.data.T
    pooled = np.maximum(pooled + model.pooler.bias.data, 0)
    np.testing.assert_allclose(output.pooler_output.data, pooled, rtol=1e-12)
    with pytest.raises(IndexError, match=r"n_token_types = 0.*leave them out"):
        model(ids, token_type_ids=np.zeros_like(ids))


def test_without_a_pooler_there_is_no_pooled_output_and_no_head_that_reads_it():
    config = replace(CONFIG, pooler=None)
    assert build(Bert, config)(np.arange(5)[None]).pooler_output is None
    with_one = build(BertForTokenClassification).state_dict()
    without = build(BertForTokenClassification, config).state_dict()
    assert with_one.keys() - without.keys() == {"bert.pooler.weight", "bert.pooler.bias"}
    for head in (BertForSequenceClassification, BertForPreTraining, BertForMultipleChoice,
                 BertForNextSentencePrediction):  # fmt: skip
        with pytest.raises(ValueError, match="expected a configuration with a pooler"):
            head(config, np.random.default_rng(0))


def test_an_untied_masked_head_has_a_matrix_of_its_own():
    model = build(BertForMaskedLM, replace(CONFIG, tie_embeddings=False))
    ids, zero = np.arange(5)[None], model.masked.decoder.weight.data * 0
    before = model(ids).logits.data
    model.masked.decoder.weight[...] = zero
    assert (model(ids).logits.data == model.masked.bias.data).all() and before.any()


def test_the_head_has_a_share_of_dropout_of_its_own():
    model = build(BertForSequenceClassification, replace(CONFIG, dropout=0.0, head_dropout=0.5))
    ids, rng = np.arange(5)[None], np.random.default_rng(0)
    first, second = (model.train()(ids, rng=rng).logits.data for _ in range(2))
    assert (first != second).any()
    assert build(BertForSequenceClassification).dropout.p == CONFIG.dropout


def test_the_next_sentence_alone_is_what_pre_training_says_of_it():
    both = build(BertForPreTraining)
    alone = build(BertForNextSentencePrediction)
    alone.load_state_dict(both.state_dict(), strict=False)
    batch = make_batch(BertForPreTraining)
    labels = batch.pop("next_sentence_label")
    del batch["labels"]
    expected, output = both(**batch, next_sentence_label=labels), alone(**batch, labels=labels)
    np.testing.assert_allclose(output.logits.data, expected.seq_relationship_logits.data, 1e-12)
    np.testing.assert_allclose(output.loss.item(), expected.loss.item(), 1e-12)


def gradients_of(model, function):
    model.zero_grad()
    function().backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@given(seed=st.integers(0, 2**32 - 1), wanted=st.integers(1, 9), watched=st.booleans())
def test_wanted_positions_are_as_in_the_whole_and_so_are_gradients(seed, wanted, watched):
    model, rng = build(Bert), np.random.default_rng(seed)
    inputs = make_batch(BertForTokenClassification, seed=seed)
    del inputs["labels"]
    positions = rng.integers(0, 7, (5, wanted))  # some twice, in any order
    taken = np.arange(5)[:, None], positions
    pull = Tensor(rng.standard_normal((5, wanted, CONFIG.d_model)))

    def part():
        output = model(**inputs, wanted=positions, output_attentions=watched)
        assert watched == (output.attentions is not None)
        return (output.last_hidden_state * pull).sum()

    def whole():
        return (model(**inputs).last_hidden_state[taken] * pull).sum()

    np.testing.assert_allclose(part().item(), whole().item(), 1e-9)
    expected, found = gradients_of(model, whole), gradients_of(model, part)
    assert found.keys() == expected.keys()
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], 1e-9, 1e-10, err_msg=name)


@pytest.mark.parametrize("head", [BertForPreTraining, BertForMaskedLM])
def test_with_labels_the_logits_are_those_of_the_labelled_positions(head):
    model, batch = build(head), make_batch(head)
    labels = batch.pop("labels")
    output, whole = model(**batch, labels=labels), model(**batch)
    name = "logits" if head is BertForMaskedLM else "prediction_logits"
    expected = getattr(whole, name).data[labels != -100]
    np.testing.assert_allclose(getattr(output, name).data, expected, 1e-9, 1e-12)


@pytest.mark.parametrize(
    ("head", "rows"),
    [
        (BertForSequenceClassification, 5),  # the first position of each
        (BertForMaskedLM, 15),  # [CLS] and, in the row that has most of them, two labels
    ],
)
def test_the_last_block_works_where_the_head_reads(monkeypatch, head, rows):
    worked = []
    model, batch = build(head), make_batch(head)
    if head is BertForMaskedLM:
        batch["labels"] = np.full((5, 7), -100)
        batch["labels"][0, 2:4] = batch["labels"][3, 5] = 1
    for block in model.bert.blocks:
        forward = block.feed_forward.forward

        def counted(x, forward=forward):
            worked.append(x.size // CONFIG.d_model)
            return forward(x)

        monkeypatch.setattr(block.feed_forward, "forward", counted)
    model(**batch)
    assert worked == [35, rows]


def test_dropout_is_drawn_from_the_rng_of_the_call():
    model, batch = build(BertForSequenceClassification), make_batch(BertForSequenceClassification)
    model.train()
    draws = [model(**batch, rng=np.random.default_rng(seed)).loss.item() for seed in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]


@pytest.mark.parametrize(
    ("inputs", "error", "message"),
    [
        ({"input_ids": np.zeros((1, 11), int)}, ValueError, r"1 to max_len = 10 positions, got"),
        ({"input_ids": np.zeros(4, int)}, ValueError, r"expected input_ids \(B, T\)"),
        ({"input_ids": np.zeros((1, 0), int)}, ValueError, "1 to max_len = 10 positions"),
        ({"input_ids": np.array([[23]])}, IndexError, r"expected ids in 0..22, got 23..23"),
        (
            {"input_ids": np.array([[1]]), "token_type_ids": np.array([[2]])},
            IndexError,
            r"expected token_type_ids in 0..1 \(n_token_types = 2\), got 2..2",
        ),
        (
            {"input_ids": np.array([[1, 2]]), "attention_mask": np.array([[1]])},
            ValueError,
            r"expected attention_mask of input_ids' shape \(1, 2\), got \(1, 1\)",
        ),
    ],
)
def test_what_does_not_fit_is_named_with_its_limit(inputs, error, message):
    with pytest.raises(error, match=message):
        build(Bert)(**inputs)


@pytest.mark.parametrize(
    ("head", "wrong", "message"),
    [
        (
            BertForSequenceClassification,
            {"labels": np.zeros((5, 1))},
            r"shape \(5,\) .*got \(5, 1\)",
        ),
        (BertForSequenceClassification, {"labels": np.zeros(1)}, r"shape \(5,\) .*got \(1,\)"),
        (BertForSequenceClassification, {"labels": 1.0}, r"shape \(5,\) .*got \(\)"),
        (BertForMaskedLM, {"labels": np.zeros((5, 8), int)}, r"shape \(5, 7\) .*got \(5, 8\)"),
        (BertForPreTraining, {"labels": np.zeros(5, int)}, r"shape \(5, 7\) .*got \(5,\)"),
        (BertForQuestionAnswering, {"start_positions": None}, "got one of them; give both"),
        (BertForQuestionAnswering, {"end_positions": None}, "got one of them; give both"),
        (BertForMultipleChoice, {}, r"input_ids \(B, n, T\).*got shape \(5, 7\); put"),
    ],
)
def test_targets_that_do_not_belong_to_the_input_are_named(head, wrong, message):
    config = BertConfig(**{**vars(CONFIG), "n_labels": 1})
    batch = make_batch(head) if head in HEADS else {"input_ids": np.zeros((5, 7), int)}
    with pytest.raises(ValueError, match=message):
        build(head, config)(**{**batch, **wrong})


def test_a_configuration_that_cannot_be_is_an_error():
    with pytest.raises(
        ValueError, match="layer_norm_eps to be a finite number >= 0, got -1.0; its"
    ):
        BertConfig(layer_norm_eps=-1.0)
    with pytest.raises(
        ValueError, match="init_std to be a finite number >= 0, got nan; its default"
    ):
        BertConfig(init_std=float("nan"))
    with pytest.raises(ValueError, match="expected first_position to be a whole number >= 0"):
        BertConfig(first_position=-1)
    with pytest.raises(
        ValueError, match="expected n_token_types to be a whole number >= 0, got -1"
    ):
        BertConfig(n_token_types=-1)
    with pytest.raises(ValueError, match=r"pooler to be one of \['relu', 'tanh'\] or None, got"):
        BertConfig(pooler="gelu")
