"""Laws of every encoder-decoder: what sees what, the shift, the loss, the caches."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nn.gradients import check_gradients

from minilm.models import build_model
from minilm.models.seq2seq import Seq2SeqLM, shift_right
from minilm.models.t5 import T5, T5Config
from minilm.models.transformer import Transformer, TransformerConfig
from minilm.optim import SGD
from minilm.tensor import no_grad
from minilm.training import accumulate_gradients, evaluate

V, B, S, T = 19, 3, 7, 5
SIZE = {"vocab_size": V, "max_len": 12, "d_model": 8, "n_heads": 2, "n_layers": 2, "d_ff": 12}
MODELS = {
    "transformer": (Transformer, TransformerConfig, {}),
    "transformer, one decoder layer": (Transformer, TransformerConfig, {"n_decoder_layers": 1}),
    "t5": (T5, T5Config, {"n_buckets": 8, "max_distance": 5}),
    "t5 1.1": (
        T5,
        T5Config,
        {"gated": True, "tie_embeddings": False, "d_kv": 3, "n_heads": 3, "n_decoder_layers": 3},
    ),
}
every_model = pytest.mark.parametrize("kind", MODELS)


def make(kind, dtype=np.float64, **changes):
    """A model in evaluation mode, every parameter away from where it starts."""
    model_class, config_class, own = MODELS[kind]
    model = model_class(config_class(**{**SIZE, **own, **changes}), np.random.default_rng(0))
    rng = np.random.default_rng(1)
    for p in model.astype(dtype).parameters():
        p[...] = p.data + 0.3 * rng.normal(size=p.shape)
    return model.eval()


def make_batch(seed=0, rows=B):
    rng = np.random.default_rng(seed)
    labels = rng.integers(2, V, (rows, T))
    labels[np.arange(T) >= rng.integers(1, T + 1, (rows, 1))] = -100
    return {
        "input_ids": rng.integers(2, V, (rows, S)),
        "attention_mask": (np.arange(S) < rng.integers(1, S + 1, (rows, 1))).astype(int),
        "labels": labels,
    }


def logits_of(model, source, target, **inputs):
    return model(source, decoder_input_ids=target, **inputs).logits.data


def tokens(length, seed=0, rows=B):
    return np.random.default_rng(seed).integers(2, V, (rows, length))


def assert_close(left, right):
    np.testing.assert_allclose(left, right, rtol=1e-10, atol=1e-12)


# --- Who sees whom ----------------------------------------------------------------------------


@every_model
def test_changing_a_future_token_of_the_target_leaves_earlier_logits_unchanged(kind):
    model, source, target = make(kind), tokens(S), tokens(T, 1)
    before = logits_of(model, source, target)
    for t in range(1, T):
        changed = target.copy()
        changed[:, t] = 1
        after = logits_of(model, source, changed)
        assert np.array_equal(after[:, :t], before[:, :t])
        assert (after[:, t:] != before[:, t:]).any(-1).all()


@every_model
def test_every_token_of_the_source_may_influence_every_position_of_the_target(kind):
    model, source, target = make(kind), tokens(S), tokens(T, 1)
    before = logits_of(model, source, target)
    for s in range(S):
        changed = source.copy()
        changed[:, s] = 1
        after = logits_of(model, changed, target)
        assert (np.abs(after - before).max(-1) > 1e-9).all()


@every_model
def test_the_order_of_the_source_matters(kind):
    model, source, target = make(kind), tokens(S), tokens(T, 1)
    before, after = (logits_of(model, ids, target) for ids in (source, source[:, ::-1]))
    assert (np.abs(after - before).max(-1) > 1e-9).all()


@every_model
@settings(max_examples=8)
@given(extra=st.integers(1, 4), seed=st.integers(0, 5))
def test_appending_padding_to_source_or_target_changes_nothing_at_real_positions(kind, extra, seed):
    model, batch = make(kind), make_batch(seed)
    rng, pad = np.random.default_rng(seed), ((0, 0), (0, extra))
    longer = {
        "input_ids": np.hstack([batch["input_ids"], rng.integers(0, V, (B, extra))]),
        "attention_mask": np.pad(batch["attention_mask"], pad),
        "labels": np.pad(batch["labels"], pad, constant_values=-100),
    }
    asked = {"output_hidden_states": True, "output_attentions": True}
    short, long = model(**batch, **asked), model(**longer, **asked)
    assert_close(short.loss.data, long.loss.data)
    assert_close(short.logits.data, long.logits.data[:, :T])
    real = batch["attention_mask"].astype(bool)
    for a, b in zip(short.encoder_hidden_states, long.encoder_hidden_states, strict=True):
        assert_close(a.data[real], b.data[:, :S][real])
    masked = np.pad(~real, pad, constant_values=True)
    for weights in (*long.encoder_attentions, *long.cross_attentions):
        assert not np.moveaxis(weights, -1, 1)[masked].any()
        assert_close(weights.sum(-1), 1)


@every_model
def test_masked_positions_of_the_target_influence_no_other(kind):
    model, source, target = make(kind), tokens(S), tokens(T, 1)
    mask = np.ones((B, T), int)
    mask[:, 1] = 0
    before = logits_of(model, source, target, decoder_attention_mask=mask)
    target[:, 1] = 1
    after = logits_of(model, source, target, decoder_attention_mask=mask)
    others = [0, 2, 3, 4]
    assert_close(after[:, others], before[:, others])


@every_model
def test_rows_of_a_batch_do_not_see_each_other(kind):
    model, batch = make(kind), make_batch()
    together = model(**batch).logits.data
    for i in range(B):
        alone = model(**{name: array[i : i + 1] for name, array in batch.items()}).logits.data
        assert_close(together[i], alone[0])


# --- Labels and loss --------------------------------------------------------------------------


@given(st.integers(1, 3), st.integers(1, 6), st.integers(0, 9))
def test_the_decoder_reads_the_start_token_and_then_all_labels_but_the_last(rows, length, seed):
    rng = np.random.default_rng(seed)
    labels = np.where(rng.random((rows, length)) < 0.7, rng.integers(0, 9, (rows, length)), -100)
    read = shift_right(labels, 11, 10)
    assert read.shape == labels.shape
    for i in range(rows):
        expected = [11] + [10 if label == -100 else label for label in labels[i][:-1]]
        assert read[i].tolist() == expected


@every_model
def test_labels_alone_give_the_logits_of_the_shifted_labels(kind):
    model, batch = make(kind, decoder_start_token_id=3, pad_token_id=4), make_batch()
    labels = batch.pop("labels")
    from_labels = model(**batch, labels=labels)
    read = model(**batch, decoder_input_ids=shift_right(labels, 3, 4))
    assert np.array_equal(from_labels.logits.data, read.logits.data) and read.loss is None
    both = model(**batch, labels=labels, decoder_input_ids=np.full((B, T), 5))
    assert not np.array_equal(both.logits.data, read.logits.data)


@every_model
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_loss_is_the_mean_cross_entropy_smoothed_in_training_only(kind, smoothing):
    model, batch = make(kind, label_smoothing=smoothing, dropout=0.0), make_batch()
    labels, logits = batch["labels"], model(**batch).logits.data
    plain, smoothed = [], []
    for i, t in np.argwhere(labels != -100):
        log_p = logits[i, t] - np.log(np.exp(logits[i, t]).sum())
        plain.append(-log_p[labels[i, t]])
        share = np.full(V, smoothing / V)
        share[labels[i, t]] += 1 - smoothing
        smoothed.append(-(share * log_p).sum())
    assert model(**batch).loss.item() == pytest.approx(np.mean(plain), rel=1e-12)
    assert model.train()(**batch).loss.item() == pytest.approx(np.mean(smoothed), rel=1e-12)
    assert model.count_targets(batch) == len(plain)


@every_model
def test_any_number_of_workers_gives_one_loss_and_one_gradient(kind):
    model, batch = make(kind), make_batch(rows=5)
    batch["labels"][1] = -100  # a row without a target
    optimizer = SGD(model.parameters(), lr=0.1)
    expected = None
    for workers in (1, 2, 5):
        with no_grad():
            direct = model(**batch).loss.item()
        loss = accumulate_gradients(model, optimizer, [batch], workers)
        assert loss == pytest.approx(direct, rel=1e-10)
        assert evaluate(model, [batch], workers) == pytest.approx(direct, rel=1e-10)
        gradient = optimizer.gradient.copy()
        expected = gradient if expected is None else expected
        np.testing.assert_allclose(gradient, expected, rtol=1e-9, atol=1e-12)
        optimizer.zero_grad()
        optimizer.gradient[...] = 0


@every_model
def test_gradients_of_all_parameters_agree_with_differences(kind):
    model = make(kind, n_layers=1, n_decoder_layers=1, dropout=0.0, label_smoothing=0.1).train()
    batch = make_batch(rows=2)
    check_gradients(lambda: model(**batch).loss, module=model)


@every_model
def test_dropout_is_drawn_from_the_rng_of_the_call(kind):
    model, batch = make(kind).train(), make_batch()
    draws = [model(**batch, rng=np.random.default_rng(seed)).loss.item() for seed in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]
    model.rng = None
    with pytest.raises(ValueError, match="expected an rng in training mode"):
        model(**batch)


@every_model
def test_float32_in_is_float32_out_and_in_every_gradient(kind):
    model, batch = make(kind, np.float32).train(), make_batch()
    output = model(**batch, rng=np.random.default_rng(0))
    output.loss.backward()
    arrays = [output.logits.data, output.loss.data, *(p.grad for p in model.parameters())]
    assert {array.dtype for array in arrays} == {np.dtype(np.float32)}


# --- The source read once, the caches ---------------------------------------------------------


@no_grad()
def decode(model, caches, target, chunks):
    """The logits for a target taken in chunks of these lengths through the caches."""
    parts, start = [], 0
    for length in chunks:
        piece = target[:, start : start + length]
        parts.append(model(decoder_input_ids=piece, caches=caches).logits.data)
        start += length
        assert caches.length == start
    return np.concatenate(parts, axis=1)


@every_model
@pytest.mark.parametrize("masked", [False, True])
@settings(max_examples=8)
@given(chunks=st.lists(st.integers(1, 4), min_size=1, max_size=3))
def test_cached_decoding_equals_full_decoding_however_the_target_is_cut(kind, masked, chunks):
    model, batch = make(kind), make_batch()
    source = {"input_ids": batch["input_ids"]}
    if masked:
        source["attention_mask"] = batch["attention_mask"]
    target = tokens(sum(chunks), 1)
    expected = model(**source, decoder_input_ids=target).logits.data
    caches = model.new_caches(B, model.encode(**source), sum(chunks))
    assert_close(decode(model, caches, target, chunks), expected)


@every_model
def test_a_mask_over_a_cached_target_covers_all_positions_so_far(kind):
    model, source, target = make(kind), tokens(S), tokens(T, 1)
    mask = np.ones((B, T), int)
    mask[0, :2] = 0
    expected = logits_of(model, source, target, decoder_attention_mask=mask)
    caches, parts = model.new_caches(B, model.encode(source)), []
    for t in range(T):
        with no_grad():
            output = model(
                decoder_input_ids=target[:, t : t + 1],
                decoder_attention_mask=mask[:, : t + 1],
                caches=caches,
            )
        parts.append(output.logits.data)
    assert_close(np.concatenate(parts, axis=1)[mask == 1], expected[mask == 1])


@every_model
def test_several_targets_of_one_source_decode_as_if_each_had_a_source_of_its_own(kind):
    model, batch, beams = make(kind), make_batch(), 4
    encoded = model.encode(batch["input_ids"], batch["attention_mask"])
    target = tokens(T, 1, rows=B * beams)
    expected = logits_of(
        model,
        np.repeat(batch["input_ids"], beams, axis=0),
        target,
        attention_mask=np.repeat(batch["attention_mask"], beams, axis=0),
    )
    caches = model.new_caches(B * beams, encoded)
    assert caches.sources[0].keys.shape[0] == B
    assert_close(decode(model, caches, target, [1, 3, 1]), expected)


@every_model
def test_with_caches_the_source_is_neither_read_nor_projected_again(kind, monkeypatch):
    model, source = make(kind), tokens(S)
    caches = model.new_caches(B, model.encode(source))
    before = [keys.data.copy() for keys, _ in caches.sources]
    monkeypatch.setattr(model, "encoder", None)
    for block in model.decoder.blocks:
        monkeypatch.setattr(block.cross_attention, "k", None)
        monkeypatch.setattr(block.cross_attention, "v", None)
    decode(model, caches, tokens(T, 1), [1, 1, 3])
    for (keys, _), old in zip(caches.sources, before, strict=True):
        assert np.array_equal(keys.data, old)


@every_model
def test_what_the_encoder_gave_stands_for_the_source_and_knows_its_mask(kind):
    model, batch = make(kind), make_batch()
    direct = model(**batch)
    encoded = model.encode(batch["input_ids"], batch["attention_mask"])
    assert np.array_equal(encoded.last_hidden_state.data, direct.encoder_last_hidden_state.data)
    indirect = model(encoder_outputs=encoded, labels=batch["labels"])
    assert np.array_equal(indirect.logits.data, direct.logits.data)


@every_model
def test_only_the_last_positions_asked_for_are_projected(kind):
    model, source, target = make(kind), tokens(S), tokens(T, 1)
    last = logits_of(model, source, target, logits_to_keep=2)
    assert last.shape == (B, 2, V)
    assert_close(last, logits_of(model, source, target)[:, -2:])


# --- What is shown ----------------------------------------------------------------------------


@every_model
def test_states_and_weights_are_shown_where_they_are_asked_for(kind):
    model, batch = make(kind), make_batch()
    c = model.config
    n_decoder = c.n_decoder_layers or c.n_layers
    output = model(**batch, output_hidden_states=True, output_attentions=True)
    assert len(output.encoder_hidden_states) == c.n_layers + 1
    assert len(output.decoder_hidden_states) == n_decoder + 1
    assert output.encoder_hidden_states[-1] is output.encoder_last_hidden_state
    shapes = {
        "encoder_attentions": (c.n_layers, (B, c.n_heads, S, S)),
        "decoder_attentions": (n_decoder, (B, c.n_heads, T, T)),
        "cross_attentions": (n_decoder, (B, c.n_heads, T, S)),
    }
    for name, (count, shape) in shapes.items():
        assert [weights.shape for weights in getattr(output, name)] == [shape] * count
    for weights in output.decoder_attentions:
        assert not np.triu(weights, 1).any()
    plain = model(**batch)
    assert np.array_equal(plain.logits.data, output.logits.data)
    for name in (*shapes, "encoder_hidden_states", "decoder_hidden_states"):
        assert getattr(plain, name) is None


# --- What does not fit ------------------------------------------------------------------------

ONE = np.array([[1, 2]])
MISTAKES = {
    "no source": ({"decoder_input_ids": ONE}, "expected one of input_ids .*, got none"),
    "no target": ({"input_ids": ONE}, "expected decoder_input_ids or labels, got neither"),
    "a source too long": (
        {"input_ids": np.ones((1, 13), int), "labels": ONE},
        r"expected input_ids \(B, T\) with 1 to max_len = 12 positions, got shape \(1, 13\)",
    ),
    "a target too long": (
        {"input_ids": ONE, "labels": np.ones((1, 13), int)},
        r"expected decoder_input_ids \(B, T\) with 1 to max_len = 12 positions",
    ),
    "an empty target": (
        {"input_ids": ONE, "decoder_input_ids": np.ones((1, 0), int)},
        r"positions, got shape \(1, 0\)",
    ),
    "ids that are no batch": ({"input_ids": ONE[0], "labels": ONE}, r"input_ids \(B, T\)"),
    "a mask of another shape": (
        {"input_ids": ONE, "attention_mask": np.ones((1, 3)), "labels": ONE},
        r"expected attention_mask of shape \(1, 2\), one entry for each position, got \(1, 3\)",
    ),
    "a target's mask of another shape": (
        {"input_ids": ONE, "decoder_attention_mask": np.ones((1, 3)), "labels": ONE},
        r"expected decoder_attention_mask of shape \(1, 2\)",
    ),
    "rows that do not fit": (
        {"input_ids": ONE, "labels": np.ones((2, 2), int)},
        "expected a target for each of 1 rows of the source, got 2",
    ),
    "labels that are no integers": (
        {"input_ids": ONE, "labels": ONE * 1.0},
        r"labels: expected shape \(B, T\) of integers, got \(1, 2\) of float64",
    ),
}


@pytest.mark.parametrize(("inputs", "message"), MISTAKES.values(), ids=MISTAKES)
def test_what_does_not_fit_is_named(inputs, message):
    for kind in ("transformer", "t5"):
        with pytest.raises(ValueError, match=message):
            make(kind)(**inputs)


def test_the_source_is_given_in_one_way_only():
    model = make("t5")
    encoded = model.encode(ONE)
    caches = model.new_caches(1, encoded)
    with pytest.raises(ValueError, match="got input_ids, encoder_outputs"):
        model(ONE, encoder_outputs=encoded, labels=ONE)
    with pytest.raises(ValueError, match="got encoder_outputs and attention_mask"):
        model(encoder_outputs=encoded, attention_mask=np.ones((1, 2)), labels=ONE)
    with pytest.raises(ValueError, match="expected output_attentions=False with caches"):
        model(caches=caches, decoder_input_ids=ONE, output_attentions=True)
    with pytest.raises(ValueError, match="expected batch to be a multiple of the 3 sources, got 4"):
        model.new_caches(4, model.encode(tokens(S)))


def test_caches_are_full_when_they_are_full():
    model = make("transformer")
    encoded = model.encode(tokens(S))
    with no_grad():
        caches = model.new_caches(B, encoded, 2)
        model(decoder_input_ids=tokens(2), caches=caches)
        with pytest.raises(ValueError, match="expected at most 2 positions, got 3"):
            model(decoder_input_ids=tokens(1), caches=caches)
        caches = model.new_caches(B, encoded, 20)
        model(decoder_input_ids=tokens(12), caches=caches)
        with pytest.raises(ValueError, match=r"max_len = 12 positions.* after 12 cached ones"):
            model(decoder_input_ids=tokens(1), caches=caches)


@pytest.mark.parametrize("config", [TransformerConfig, T5Config])
def test_a_configuration_that_cannot_be_is_an_error(config):
    with pytest.raises(ValueError, match="expected eos_token_id below vocab_size = 10, got 10"):
        config(vocab_size=10, eos_token_id=10)
    with pytest.raises(ValueError, match="expected pad_token_id to be a whole number >= 0, got -1"):
        config(pad_token_id=-1)
    with pytest.raises(ValueError, match="expected 0 <= label_smoothing < 1, got 1"):
        config(label_smoothing=1)
    with pytest.raises(ValueError, match="expected n_heads to divide d_model"):
        config(n_heads=7)
    assert config(eos_token_id=0).eos_token_id == 0


def test_a_subclass_without_its_methods_says_which():
    with pytest.raises(NotImplementedError, match="Seq2SeqLM needs an embed method"):
        Seq2SeqLM().embed(ONE, 0, None)
    with pytest.raises(NotImplementedError, match="Seq2SeqLM needs a project method"):
        Seq2SeqLM().project(None)


def test_both_are_built_by_their_names():
    for name, expected in (("transformer", Transformer), ("t5", T5)):
        assert type(build_model(name, SIZE, np.random.default_rng(0))) is expected
