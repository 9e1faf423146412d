"""The LSTM language model keeps the promises of a causal model, without a window."""

import math
from dataclasses import FrozenInstanceError

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nn.gradients import check_gradients

from minilm import checkpoint, generation, kernels, metrics, training
from minilm.generation import generate
from minilm.models import CAUSAL, build_model
from minilm.models.lstm import LSTMConfig, LSTMLanguageModel
from minilm.objectives.causal import evaluation_windows, sample_windows
from minilm.optim import AdamW
from minilm.tensor import Tensor, no_grad

B, T, V, P, E, C = 2, 7, 13, 12, 6, 8  # P is max_len, E the width of the embedding
SIZES = {"vocab_size": V, "max_len": P, "d_embedding": E, "d_model": C, "n_layers": 2}


def new(seed=0, **changes):
    return LSTMLanguageModel(LSTMConfig(**{**SIZES, **changes}), np.random.default_rng(seed))


def make(dtype=np.float64, **changes):
    """A model with every parameter moved well away from where it starts."""
    model, generator = new(**changes).astype(dtype), np.random.default_rng(1)
    for p in model.parameters():
        p[...] = p.data + 0.5 * generator.normal(size=p.shape)
    return model


def tokens(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, V, shape)


IDS = tokens(B, T)


def assert_close(left, right, atol=1e-12):
    np.testing.assert_allclose(left, right, rtol=0, atol=atol)


# --- The formula ------------------------------------------------------------------------------


def test_logits_equal_embedding_lstm_and_projection_written_in_plain_numpy():
    model = make()
    weights, logits = model.state_dict(), np.zeros((B, T, V))
    for row, ids in enumerate(IDS):
        h, c = np.zeros((2, 2, C))
        for t, token in enumerate(ids):
            x = weights["token_embedding.weight"][token]
            for k in range(2):
                a = weights[f"lstm.weight_ih_l{k}"] @ x + weights[f"lstm.weight_hh_l{k}"] @ h[k]
                a += weights[f"lstm.bias_ih_l{k}"] + weights[f"lstm.bias_hh_l{k}"]
                g = np.tanh(a[2 * C : 3 * C])
                i, f, _, o = np.split(1 / (1 + np.exp(-a)), 4)
                c[k] = f * c[k] + i * g
                h[k] = x = o * np.tanh(c[k])
            logits[row, t] = weights["head.weight"] @ x + weights["head.bias"]
    assert_close(model(IDS).logits.data, logits)


@pytest.mark.parametrize("changes", [{}, {"d_embedding": None}, {"n_layers": 4, "d_model": 5}])
def test_the_number_of_parameters_follows_from_the_configuration(changes):
    model = new(**changes)
    c, width, count = model.config, model.config.d_embedding or model.config.d_model, 0
    for layer in range(c.n_layers):
        count += 4 * c.d_model * ((c.d_model if layer else width) + c.d_model + 2)
    assert model.count_parameters() == count + V * width + V * c.d_model + V


# --- Causality and padding --------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_changing_a_future_token_leaves_earlier_logits_unchanged_bit_for_bit(dtype):
    model = make(dtype)
    before = model(IDS).logits.data
    for t in range(1, T):
        changed = IDS.copy()
        changed[:, t:] = (IDS[:, t:] + 1 + tokens(B, T - t, seed=t) % (V - 1)) % V
        after = model(changed).logits.data
        assert after[:, :t].tobytes() == before[:, :t].tobytes()
        assert not np.array_equal(after[:, t], before[:, t])


def test_the_gradient_of_a_position_by_all_future_embeddings_is_exactly_zero():
    model = make()
    vectors = model.token_embedding.weight.data[IDS]
    for t in range(T):
        embedded = Tensor(vectors, requires_grad=True)
        model.token_embedding.forward = lambda ids, embedded=embedded: embedded
        model(IDS).logits[:, t].sum().backward()
        assert not embedded.grad[:, t + 1 :].any() and embedded.grad[:, : t + 1].all()


def test_rows_of_a_batch_do_not_see_each_other():
    model, changed = make(), IDS.copy()
    changed[1] = tokens(T, seed=1)
    assert np.array_equal(model(changed).logits.data[0], model(IDS).logits.data[0])
    assert_close(model(IDS[:1]).logits.data[0], model(IDS).logits.data[0])


@pytest.mark.parametrize("extra", [1, 20])
def test_appending_padding_changes_nothing_at_real_positions(extra):
    model = make()
    plain = model(IDS, labels=IDS)
    mask = np.pad(np.ones((B, T), int), ((0, 0), (0, extra)))
    ids = np.pad(IDS, ((0, 0), (0, extra)), constant_values=5)
    labels = np.pad(IDS, ((0, 0), (0, extra)), constant_values=-100)
    padded = model(ids, labels=labels, attention_mask=mask)
    assert_close(padded.logits.data[:, :T], plain.logits.data)
    assert padded.loss.item() == pytest.approx(plain.loss.item(), abs=1e-12)


def test_padding_before_a_token_is_refused_as_the_state_would_have_read_it():
    model, mask = make(), np.ones((B, T))
    mask[0, :2] = 0
    message = "expected an attention_mask with padding behind the tokens only"
    with pytest.raises(ValueError, match=message):
        model(IDS, attention_mask=mask)
    with no_grad():  # a prompt that ended in padding
        caches, mask = model.new_caches(B), np.ones((B, T))
        mask[1, 3] = 0
        model(IDS[:, :4], attention_mask=mask[:, :4], caches=caches)
        with pytest.raises(ValueError, match=message):
            model(IDS[:, 4:5], attention_mask=mask[:, :5], caches=caches)
        assert caches[0].length == 4


# --- The state --------------------------------------------------------------------------------


@no_grad()
def decode(model, ids, chunks):
    """Logits of all positions, `chunks` tokens at a time."""
    caches, logits, start = model.new_caches(len(ids)), [], 0
    for length in chunks:
        logits.append(model(ids[:, start : start + length], caches=caches).logits.data)
        start += length
    return np.concatenate(logits, axis=1)


@settings(max_examples=20)
@given(chunks=st.lists(st.integers(1, 20), min_size=1, max_size=4))
def test_decoding_from_a_state_equals_full_decoding_however_long_the_text(chunks):
    model, ids = make(), tokens(B, sum(chunks))
    assert_close(decode(model, ids, chunks), model(ids).logits.data)


def test_the_state_has_the_models_dtype():
    for dtype in (np.float32, np.float64):
        assert make(dtype).new_caches(3)[0].cell.dtype == dtype
        assert decode(make(dtype), IDS, [3, 4]).dtype == dtype


def test_a_text_longer_than_max_len_is_read_to_its_end():
    model, ids = make(), tokens(B, 5 * P)
    output = model(ids, labels=ids)
    assert output.logits.shape == (B, 5 * P, V) and math.isfinite(output.loss.item())
    first = ids.copy()
    first[:, 0] = (first[:, 0] + 1) % V
    assert not np.array_equal(model(first).logits.data[:, P + 2], output.logits.data[:, P + 2])


def test_a_state_is_refused_while_gradients_are_recorded():
    model = make()
    with pytest.raises(ValueError, match="decode inside `with no_grad"):
        model(IDS, caches=model.new_caches(B))


def greedy_loop(model, row, count):
    """Greedy search written out: the whole text through the model at every step."""
    row = list(row)
    for _ in range(count):
        row.append(int(model(np.array([row])).logits.data[0, -1].argmax()))
    return row


def test_greedy_search_sees_the_whole_text_far_beyond_max_len():
    model = make().eval()
    assert generate(model, IDS[:1], 5 * P)[0].tolist() == greedy_loop(model, IDS[0], 5 * P)


@pytest.mark.parametrize(
    "how",
    [{}, {"do_sample": True, "top_k": 9}, {"num_beams": 3}, {"num_beams": 4, "eos_token_id": 3}],
)
def test_generation_with_the_state_equals_generation_without(how):
    model = make().eval()

    def run(use_cache):
        rng = np.random.default_rng(2)
        return generate(model, IDS, 3 * P, use_cache=use_cache, rng=rng, **how).tolist()

    assert run(True) == run(False)


def test_generating_a_token_reads_one_token_and_keeps_no_more_than_before(monkeypatch):
    lengths, sizes, model = [], [], make().eval()
    forward = model.lstm.forward

    def listen(x, state=None, rng=None):
        lengths.append(x.shape[1])
        sizes.append(sum(part.data.nbytes for part in state))
        return forward(x, state, rng)

    monkeypatch.setattr(model.lstm, "forward", listen)
    generate(model, IDS, 2 * P)
    assert lengths == [T] + [1] * (2 * P - 1) and len(set(sizes)) == 1


def test_the_window_of_other_models_stays_as_it_was():
    sizes = {"vocab_size": V, "max_len": P, "d_model": C, "n_heads": 2, "n_layers": 1}
    for family in ("gpt", "llama"):
        model = build_model(family, sizes, np.random.default_rng(0)).eval()
        expected = list(IDS[0])
        for _ in range(2 * P):
            start = generation.context_start(len(expected), P)
            expected.append(int(model(np.array([expected[start:]])).logits.data[0, -1].argmax()))
        assert generate(model, IDS[:1], 2 * P)[0].tolist() == expected


# --- How it begins, learns and is kept --------------------------------------------------------


def test_a_new_model_knows_nothing_its_loss_is_near_ln_v():
    for seed in range(3):
        model = new(seed, d_model=64)
        loss = model(tokens(8, P, seed=seed), labels=tokens(8, P, seed=seed)).loss.item()
        assert loss == pytest.approx(math.log(V), abs=0.02)


def test_it_learns_a_text_by_heart():
    model = new(d_model=16)
    optimizer = AdamW(model.parameters(), lr=0.03)
    for _ in range(80):
        optimizer.zero_grad()
        loss = model(IDS[:1], labels=IDS[:1]).loss
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1


def test_the_same_seed_gives_the_same_bits_through_training_with_dropout():
    def train(seed):
        model = new(seed, dropout=0.2)
        optimizer = AdamW(model.parameters(), lr=0.01)
        for step in range(3):
            ids = tokens(B, T, seed=step)
            training.train_step(model, optimizer, {"input_ids": ids, "labels": ids}, 1.0, workers=2)
        return optimizer.data.tobytes()

    assert train(0) == train(0) != train(1)


STREAM = np.frombuffer(b"abcabdabcabe" * 60, np.uint8) - ord("a")


def trainer(directory, steps):
    settings = training.TrainingConfig(
        max_steps=steps, batch_size=4, learning_rate=2e-2, eval_interval=20, save_interval=10
    )
    model = build_model("lstm", SIZES, np.random.default_rng(0))
    return training.Trainer(
        model,
        training.build_optimizer(model, settings),
        lambda rng, count: sample_windows(STREAM[:-100], count, P, rng),
        lambda: evaluation_windows(STREAM[-100:], 8, P, P // 2),
        training.build_schedule(settings),
        settings,
        directory,
    )


def test_a_run_is_trained_resumed_loaded_measured_and_asked(tmp_path):
    run = trainer(tmp_path, 60)
    losses = [record["val_loss"] for record in run.run() if "val_loss" in record]
    assert losses[-1] < losses[0] < math.log(V)
    checkpoint.write_config(tmp_path, {"model": "lstm", "model_config": SIZES})
    model = checkpoint.load_model(tmp_path)
    assert isinstance(model, LSTMLanguageModel) and not model.training
    loss = training.evaluate(model, evaluation_windows(STREAM[-100:], 8, P, P // 2))
    assert loss == pytest.approx(min(losses), abs=1e-6)
    assert 1 < metrics.perplexity(loss) < V
    assert set(generate(model, STREAM[None, :6], 40)[0].tolist()) <= set(range(5))
    other = trainer(tmp_path, 60)
    other.resume()
    assert other.progress.step == 60
    for left, right in zip(run.model.parameters(), other.model.parameters(), strict=True):
        assert left.data.tobytes() == right.data.tobytes()


def test_it_is_known_by_its_name_among_the_causal_models():
    assert CAUSAL["lstm"] == (LSTMConfig, LSTMLanguageModel)
    assert isinstance(build_model("lstm", SIZES, np.random.default_rng(0)), LSTMLanguageModel)


# --- Gradients, dtypes, dropout ---------------------------------------------------------------


def test_gradients_of_all_parameters_agree_with_differences():
    model = make()
    check_gradients(lambda: model(IDS, labels=IDS).loss, module=model)


def test_gradients_under_dropout_agree_with_differences():
    model = make(dropout=0.3)
    check_gradients(lambda: model(IDS, rng=np.random.default_rng(3)).logits, module=model)


def test_every_parameter_gets_a_gradient():
    model = make()
    ids = np.arange(V)[None]
    model(ids, labels=ids).loss.backward()
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())


def test_float32_stays_float32_in_logits_loss_and_every_gradient():
    model = make(np.float32, dropout=0.1)
    output = model(IDS, labels=IDS, attention_mask=np.ones((B, T)))
    output.loss.backward()
    dtypes = {output.logits.dtype, output.loss.dtype, *(p.grad.dtype for p in model.parameters())}
    assert dtypes == {np.dtype(np.float32)}


def test_dropout_falls_on_the_embedding_between_the_layers_and_on_the_output(monkeypatch):
    def listen(shape, p, rng):
        shapes.append(shape)
        return draw(shape, p, rng)

    shapes, draw = [], kernels.random_mask
    monkeypatch.setattr(kernels, "random_mask", listen)
    model = make(dropout=0.3)
    first = model(IDS).logits.data
    assert shapes == [(B, T, E), (B, T, C), (B, T, C)]
    assert not np.array_equal(model(IDS).logits.data, first)
    assert np.array_equal(model.eval()(IDS).logits.data, make()(IDS).logits.data)
    assert len(shapes) == 6


# --- What cannot be ---------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 1), (B, 1), (1, P), (0, T), (B, 0)])
def test_sizes_one_and_zero_are_sizes_like_others(shape):
    model, ids = make(), np.zeros(shape, np.uint16)
    assert model(ids).logits.shape == (*shape, V)
    loss = model(ids, labels=ids).loss
    loss.backward()
    assert math.isfinite(loss.item())


def test_ids_outside_the_vocabulary_or_of_another_shape_are_errors():
    with pytest.raises(IndexError, match=f"expected ids in 0..{V - 1}"):
        make()(np.array([[0, V]]))
    with pytest.raises(ValueError, match=r"expected input_ids \(B, T\)"):
        make()(IDS[0])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        *(({name: 0}, f"{name} to be a whole number >= 1, got 0") for name in SIZES),
        ({"d_model": 2.5}, "d_model to be a whole number >= 1, got 2.5"),
        ({"dropout": 1.0}, "expected 0 <= dropout < 1, got 1.0"),
    ],
)
def test_a_configuration_that_cannot_be_is_an_error_that_names_the_field(changes, message):
    with pytest.raises(ValueError, match=f"LSTMConfig: .*{message}|LSTMConfig: {message}"):
        LSTMConfig(**{**SIZES, **changes})
    with pytest.raises(FrozenInstanceError):
        LSTMConfig().d_model = 3
