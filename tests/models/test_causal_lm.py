"""What every causal language model promises, whatever it is made of."""

import math
from dataclasses import FrozenInstanceError

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nn.gradients import check_gradients

from minilm import kernels
from minilm.models.causal import CausalLM, shift
from minilm.models.gpt import GPT, GPTConfig
from minilm.models.llama import Llama, LlamaConfig
from minilm.optim import AdamW
from minilm.tensor import Tensor, no_grad

B, T, V, C, P = 2, 7, 13, 16, 12  # P positions at most
SIZES = {"vocab_size": V, "max_len": P, "d_model": C, "n_heads": 4, "n_layers": 2}
MODELS = {
    "gpt": (GPT, GPTConfig, {"d_ff": 20}),
    "llama": (Llama, LlamaConfig, {}),
    "llama, grouped, tied, normalised": (
        Llama,
        LlamaConfig,
        {"n_kv_heads": 2, "tie_embeddings": True, "qk_norm": True, "d_ff": 20},
    ),
}
every_model = pytest.mark.parametrize("kind", MODELS)


def new(kind, seed=0, **changes):
    """A model as it is made."""
    model, config, own = MODELS[kind]
    return model(config(**{**SIZES, **own, **changes}), np.random.default_rng(seed))


def make(kind, dtype=np.float64, **changes):
    """A model with every parameter moved well away from where it starts."""
    model, generator = new(kind, **changes).astype(dtype), np.random.default_rng(1)
    for p in model.parameters():
        p[...] = p.data + 0.2 * generator.normal(size=p.shape)
    embedding = model.token_embedding.weight
    embedding[...] = 4 * embedding.data  # near zero a norm bends too much for differences
    return model


def tokens(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, V, shape)


IDS = tokens(B, T)


def assert_close(left, right, atol=1e-12):
    np.testing.assert_allclose(left, right, rtol=0, atol=atol)


# --- Causality --------------------------------------------------------------------------------


@every_model
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_changing_a_future_token_leaves_earlier_logits_unchanged_bit_for_bit(kind, dtype):
    model = make(kind, dtype)
    before = model(IDS).logits.data
    for t in range(1, T):
        changed = IDS.copy()
        changed[:, t:] = (IDS[:, t:] + 1 + tokens(B, T - t, seed=t) % (V - 1)) % V
        after = model(changed).logits.data
        assert after[:, :t].tobytes() == before[:, :t].tobytes()
        assert not np.array_equal(after[:, t], before[:, t])


@every_model
def test_the_gradient_of_a_position_by_all_future_embeddings_is_exactly_zero(kind):
    model = make(kind)
    vectors = model.token_embedding.weight.data[IDS]
    for t in range(T):
        embedded = Tensor(vectors, requires_grad=True)
        model.token_embedding.forward = lambda ids, embedded=embedded: embedded
        logits = model(IDS).logits[:, t]
        logits.backward(np.random.default_rng(t).normal(size=logits.shape))
        assert not embedded.grad[:, t + 1 :].any()
        assert embedded.grad[:, : t + 1].all()  # while every token up to t has its say


@every_model
def test_rows_of_a_batch_do_not_see_each_other(kind):
    model, changed = make(kind), IDS.copy()
    changed[1] = tokens(T, seed=1)
    assert np.array_equal(model(changed).logits.data[0], model(IDS).logits.data[0])
    assert_close(model(IDS[:1]).logits.data[0], model(IDS).logits.data[0])


# --- Padding ----------------------------------------------------------------------------------


@every_model
@pytest.mark.parametrize("extra", [1, P - T])
def test_appending_padding_changes_nothing_at_real_positions(kind, extra):
    model = make(kind)
    plain = model(IDS, labels=IDS)
    mask = np.pad(np.ones((B, T), int), ((0, 0), (0, extra)))
    ids = np.pad(IDS, ((0, 0), (0, extra)), constant_values=5)
    labels = np.pad(IDS, ((0, 0), (0, extra)), constant_values=-100)
    padded = model(ids, labels=labels, attention_mask=mask)
    assert_close(padded.logits.data[:, :T], plain.logits.data)
    assert padded.loss.item() == pytest.approx(plain.loss.item(), abs=1e-12)


@every_model
def test_rows_of_different_length_in_one_batch_equal_each_row_alone(kind):
    model, lengths = make(kind), [3, T]
    mask = np.arange(T) < np.array(lengths)[:, None]
    together = model(IDS, attention_mask=mask).logits.data
    for row, length in enumerate(lengths):
        alone = model(IDS[row : row + 1, :length]).logits.data[0]
        assert_close(together[row, :length], alone)


@every_model
def test_the_token_at_a_masked_position_changes_no_other_position(kind):
    model, mask, changed = make(kind), np.ones((B, T)), IDS.copy()
    mask[:, 2] = 0
    changed[:, 2] = (IDS[:, 2] + 1) % V
    before, after = (model(ids, attention_mask=mask).logits.data for ids in (IDS, changed))
    others = [0, 1, 3, 4, 5, 6]
    assert np.array_equal(after[:, others], before[:, others])
    assert not np.array_equal(model(IDS).logits.data[:, 3:], before[:, 3:])  # 2 was seen before


@every_model
def test_a_position_that_sees_only_padding_gives_finite_logits_and_gradients(kind):
    model, mask = make(kind), np.ones((B, T), bool)
    mask[:, :3] = False
    output = model(IDS, labels=IDS, attention_mask=mask)
    output.loss.backward()
    assert np.isfinite(output.logits.data).all()
    assert all(np.isfinite(p.grad).all() for p in model.parameters())


# --- The cache --------------------------------------------------------------------------------


@no_grad()
def decode(model, ids, chunks, mask=None):
    """Logits of all positions, `chunks` tokens at a time through one set of caches."""
    caches, logits, start = model.new_caches(len(ids)), [], 0
    for length in chunks:
        stop = start + length
        seen = None if mask is None else mask[:, :stop]
        logits.append(model(ids[:, start:stop], attention_mask=seen, caches=caches).logits.data)
        start = stop
    return np.concatenate(logits, axis=1)


@every_model
@pytest.mark.parametrize("chunks", [[7], [4, 1, 1, 1], [1] * 7, [2, 4, 1], [1, 6]])
def test_cached_decoding_equals_full_decoding(kind, chunks):
    model = make(kind)
    assert_close(decode(model, IDS, chunks), model(IDS).logits.data)


@every_model
@settings(max_examples=20)
@given(chunks=st.lists(st.integers(1, 5), min_size=1, max_size=4).filter(lambda c: sum(c) <= P))
def test_cached_decoding_equals_full_decoding_however_the_text_is_cut(kind, chunks):
    model, ids = make(kind), tokens(1, sum(chunks))
    assert_close(decode(model, ids, chunks), model(ids).logits.data)


@every_model
def test_cached_decoding_of_a_padded_prompt_equals_full_decoding_with_the_same_mask(kind):
    model, mask = make(kind), np.ones((B, T), bool)
    mask[0, :2] = mask[1, 3] = False
    full = model(IDS, attention_mask=mask).logits.data
    assert_close(decode(model, IDS, [4, 1, 1, 1], mask), full)


@every_model
def test_caches_have_the_models_dtype_and_room_for_the_whole_window(kind):
    for dtype in (np.float32, np.float64):
        model = make(kind, dtype)
        logits = decode(model, tokens(B, P), [1] * P)
        assert logits.dtype == dtype
        assert all(cache.keys.dtype == dtype for cache in model.new_caches(3))
        assert_close(
            logits, model(tokens(B, P)).logits.data, 1e-4 if dtype == np.float32 else 1e-12
        )


@every_model
def test_more_tokens_than_max_len_are_an_error_that_names_it_and_leaves_the_caches_alone(kind):
    model = make(kind)
    message = f"at most max_len = {P} positions, got shape"
    with pytest.raises(ValueError, match=rf"{message} \(2, 13\) after 0 cached"):
        model(tokens(B, P + 1))
    with no_grad():
        caches = model.new_caches(B)
        model(tokens(B, P - 1), caches=caches)
        with pytest.raises(ValueError, match=rf"{message} \(2, 2\) after 11 cached"):
            model(tokens(B, 2), caches=caches)
        assert [cache.length for cache in caches] == [P - 1, P - 1]


@every_model
def test_caches_are_refused_while_gradients_are_recorded(kind):
    model = make(kind)
    with pytest.raises(ValueError, match="decode inside `with no_grad"):
        model(IDS, caches=model.new_caches(B))


# --- Loss -------------------------------------------------------------------------------------


def loss_by_loop(logits, targets):
    """-mean ln softmax(logits)[target] over the positions that have a target."""
    losses = []
    for position in np.ndindex(targets.shape):
        if targets[position] != -100:
            total = sum(math.exp(z) for z in logits[position])
            losses.append(-math.log(math.exp(logits[position][targets[position]]) / total))
    return sum(losses) / len(losses)


@every_model
@pytest.mark.parametrize("columns", [T, T + 1])
def test_the_loss_is_the_mean_of_minus_log_p_of_each_next_token(kind, columns):
    model, labels = make(kind), np.concatenate([IDS, tokens(B, 1, seed=1)], axis=1)
    output = model(IDS, labels=labels[:, :columns])
    targets = labels[:, 1:columns]
    expected = loss_by_loop(output.logits.data[:, : targets.shape[1]], targets)
    assert output.loss.shape == () and output.loss.item() == pytest.approx(expected, rel=1e-13)
    assert model.count_targets({"input_ids": IDS, "labels": labels[:, :columns]}) == targets.size


@every_model
def test_ignored_labels_count_for_nothing(kind):
    model, labels = make(kind), np.concatenate([IDS, tokens(B, 1, seed=1)], axis=1)
    labels[0, :4] = labels[1, 6] = -100
    output = model(IDS, labels=labels)
    expected = loss_by_loop(output.logits.data, labels[:, 1:])
    assert output.loss.item() == pytest.approx(expected, rel=1e-13)
    # Label 0 is never a target: of the 14 targets 3 in row 0 and 1 in row 1 are ignored.
    assert model.count_targets({"input_ids": IDS, "labels": labels}) == 10


@every_model
def test_where_every_label_is_ignored_the_loss_is_zero_and_so_are_the_gradients(kind):
    model = make(kind)
    loss = model(IDS, labels=np.full_like(IDS, -100)).loss
    loss.backward()
    assert loss.item() == 0 and not any(p.grad.any() for p in model.parameters())
    assert model.count_targets({"input_ids": IDS, "labels": np.full_like(IDS, -100)}) == 0


@every_model
def test_the_mean_over_a_batch_is_the_mean_of_its_rows_weighted_by_their_targets(kind):
    model, labels = make(kind), IDS.copy()
    labels[0, :4] = -100
    counts, sums = [], []
    for row in range(B):
        batch = {"input_ids": IDS[row : row + 1], "labels": labels[row : row + 1]}
        counts.append(model.count_targets(batch))
        sums.append(model(**batch).loss.item() * counts[-1])
    whole = model(IDS, labels=labels).loss.item()
    assert counts == [3, 6] and whole == pytest.approx(sum(sums) / 9, rel=1e-14)


@given(st.integers(0, 4), st.integers(0, 9), st.booleans(), st.integers(0, 99))
def test_position_t_is_to_predict_label_t_plus_one(rows, length, one_more, seed):
    labels = tokens(rows, length + one_more, seed=seed)
    targets = shift(labels, length)
    assert targets.shape == (rows, length)
    for row, t in np.ndindex(rows, length):
        last = not one_more and t == length - 1
        assert targets[row, t] == (-100 if last else labels[row, t + 1])


def test_shifting_small_unsigned_labels_can_still_say_ignored():
    targets = shift(np.array([[5, 65535]], np.uint16), 2)
    assert targets.tolist() == [[65535, -100]]


@pytest.mark.parametrize("shape", [(2, 5), (2, 8), (6,), (2, 6, 1)])
def test_labels_of_another_shape_are_an_error_that_names_the_two_conventions(shape):
    with pytest.raises(ValueError, match=r"expected shape \(B, 6\) or \(B, 7\)"):
        shift(np.zeros(shape, int), 6)


@every_model
def test_without_labels_there_is_no_loss(kind):
    assert make(kind)(IDS).loss is None


@every_model
@pytest.mark.parametrize("keep", [1, 3, T])
def test_logits_to_keep_gives_the_last_logits_only(kind, keep):
    model = make(kind)
    kept = model(IDS, logits_to_keep=keep).logits.data
    assert kept.shape == (B, keep, V)
    assert_close(kept, model(IDS).logits.data[:, -keep:])


@every_model
@pytest.mark.parametrize("keep", [0, 1, 2, 9])
def test_logits_to_keep_counts_from_the_end_behind_a_cache_too(kind, keep):
    model, past = make(kind), 3
    with no_grad():
        whole = model(IDS).logits.data[:, past:]
        caches = model.new_caches(B)
        model(IDS[:, :past], caches=caches, logits_to_keep=1)
        kept = model(IDS[:, past:], caches=caches, logits_to_keep=keep).logits.data
    assert_close(kept, whole[:, -keep:])


# --- How a model begins and learns ------------------------------------------------------------


@every_model
def test_a_new_model_knows_nothing_its_loss_is_near_ln_v(kind):
    for seed in range(3):
        model = new(kind, seed)
        loss = model(tokens(8, P, seed=seed), labels=tokens(8, P, seed=seed)).loss.item()
        assert loss == pytest.approx(math.log(V), abs=0.06)


@every_model
def test_the_same_seed_gives_the_same_bits_through_training_with_dropout(kind):
    def train(seed):
        model = new(kind, seed, dropout=0.2)
        optimizer = AdamW(model.parameters(), lr=0.01)
        for step in range(3):
            optimizer.zero_grad()
            ids = tokens(B, T, seed=step)
            model(ids, labels=ids).loss.backward()
            optimizer.step()
        return optimizer.data.tobytes()

    assert train(0) == train(0) != train(1)


@every_model
def test_a_model_learns_a_text_by_heart(kind):
    model = new(kind)
    optimizer = AdamW(model.parameters(), lr=0.02)
    for _ in range(60):
        optimizer.zero_grad()
        loss = model(IDS[:1], labels=IDS[:1]).loss
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1


def test_a_state_saved_from_one_model_gives_another_the_same_logits():
    for kind in MODELS:
        model, other = make(kind), new(kind, seed=5).astype(np.float64)
        assert not np.array_equal(other(IDS).logits.data, model(IDS).logits.data)
        other.load_state_dict(model.state_dict())
        assert np.array_equal(other(IDS).logits.data, model(IDS).logits.data)


# --- Gradients and dtypes ---------------------------------------------------------------------


@every_model
def test_gradients_of_all_parameters_agree_with_differences(kind):
    model = make(kind)
    check_gradients(lambda: model(IDS, labels=IDS).loss, module=model)


@every_model
def test_gradients_of_the_logits_under_mask_and_dropout_agree_with_differences(kind):
    model, mask = make(kind, dropout=0.3), np.ones((B, T), bool)
    mask[0, :2] = mask[1, 4:] = False

    def logits():
        return model(IDS, attention_mask=mask, rng=np.random.default_rng(3)).logits

    check_gradients(logits, module=model)


@every_model
def test_every_parameter_gets_a_gradient(kind):
    model = make(kind)
    model(tokens(B, P), labels=tokens(B, P)).loss.backward()
    unused = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert unused == []


@every_model
def test_float32_stays_float32_in_logits_loss_and_every_gradient(kind):
    model = make(kind, np.float32, dropout=0.1)
    output = model(IDS, labels=IDS, attention_mask=np.ones((B, T)))
    output.loss.backward()
    dtypes = {output.logits.dtype, output.loss.dtype, *(p.grad.dtype for p in model.parameters())}
    assert dtypes == {np.dtype(np.float32)}


# --- Dropout ----------------------------------------------------------------------------------


@every_model
def test_dropout_differs_from_call_to_call_in_training_and_is_off_in_evaluation(kind):
    model = make(kind, dropout=0.3)
    assert not np.array_equal(model(IDS).logits.data, model(IDS).logits.data)
    model.eval()
    assert np.array_equal(model(IDS).logits.data, model(IDS).logits.data)
    assert np.array_equal(model(IDS).logits.data, make(kind).eval()(IDS).logits.data)
    model.train()
    assert not np.array_equal(model(IDS).logits.data, make(kind)(IDS).logits.data)


@every_model
def test_a_calls_own_rng_decides_its_dropout_and_the_models_is_left_alone(kind):
    model = make(kind, dropout=0.3)
    state = model.rng.bit_generator.state
    draws = [model(IDS, rng=np.random.default_rng(s)).logits.data for s in (7, 7, 8)]
    assert np.array_equal(draws[0], draws[1]) and not np.array_equal(draws[0], draws[2])
    assert model.rng.bit_generator.state == state
    model(IDS)
    assert model.rng.bit_generator.state != state


@every_model
def test_dropout_falls_on_the_attention_weights_and_on_both_branches_of_every_block(
    kind, monkeypatch
):
    def listen(shape, p, rng):
        sizes.append(math.prod(shape))
        return draw(shape, p, rng)

    sizes, draw = [], kernels.random_mask
    monkeypatch.setattr(kernels, "random_mask", listen)
    make(kind, dropout=0.3)(IDS)
    stream, weights = B * T * C, B * 4 * T * T
    embedded = [stream] if kind == "gpt" else []
    assert sizes == embedded + [weights, stream, stream] * 2


@every_model
def test_without_dropout_training_draws_nothing(kind):
    model = make(kind)
    state = model.rng.bit_generator.state
    assert np.array_equal(model(IDS).logits.data, model.eval()(IDS).logits.data)
    assert model.rng.bit_generator.state == state


# --- What cannot be ---------------------------------------------------------------------------


@every_model
@pytest.mark.parametrize("shape", [(1, 1), (B, 1), (1, P), (0, T), (B, 0)])
def test_sizes_one_and_zero_are_sizes_like_others(kind, shape):
    model, ids = make(kind), np.zeros(shape, np.uint16)
    assert model(ids).logits.shape == (*shape, V)
    loss = model(ids, labels=ids).loss
    loss.backward()
    assert math.isfinite(loss.item())


@every_model
@pytest.mark.parametrize("shape", [(T,), (B, T, 1), ()])
def test_ids_that_are_no_batch_of_sequences_are_an_error(kind, shape):
    with pytest.raises(ValueError, match=r"expected input_ids \(B, T\)"):
        make(kind)(np.zeros(shape, int))


@every_model
def test_ids_outside_the_vocabulary_are_an_error(kind):
    for wrong in (-1, V):
        with pytest.raises(IndexError, match=f"expected ids in 0..{V - 1}"):
            make(kind)(np.array([[0, wrong]]))


@every_model
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        *(({name: 0}, f"{name} to be a whole number >= 1, got 0") for name in SIZES),
        ({"d_ff": 0}, "d_ff to be a whole number >= 1, got 0"),
        ({"n_layers": -2}, "n_layers to be a whole number >= 1, got -2"),
        ({"n_layers": 1.5}, "n_layers to be a whole number >= 1, got 1.5"),
        ({"max_len": "12"}, "max_len to be a whole number >= 1, got '12'"),
        ({"n_heads": True}, "n_heads to be a whole number >= 1, got True"),
        ({"vocab_size": None}, "vocab_size to be a whole number >= 1, got None"),
        ({"n_heads": 3}, "n_heads to divide d_model, got d_model 16 and n_heads 3"),
        ({"dropout": 1.0}, "expected 0 <= dropout < 1, got 1.0"),
        ({"dropout": -0.1}, "expected 0 <= dropout < 1, got -0.1"),
        ({"dropout": math.nan}, "expected 0 <= dropout < 1, got nan"),
    ],
)
def test_a_configuration_that_cannot_be_is_an_error_that_names_the_field(kind, changes, message):
    _, config, own = MODELS[kind]
    with pytest.raises(ValueError, match=f"{config.__name__}: expected .*{message}|{message}"):
        config(**{**SIZES, **own, **changes})


@every_model
def test_a_configuration_is_frozen_and_equal_to_one_with_the_same_fields(kind):
    left, right = new(kind).config, new(kind).config
    assert left == right and left is not right
    with pytest.raises(FrozenInstanceError):
        left.d_model = 32


def test_a_subclass_that_forgot_a_method_is_told_which():
    model = CausalLM()
    for name, arguments in {"hidden": 4, "project": 1}.items():
        with pytest.raises(NotImplementedError, match=f"CausalLM needs a {name} method"):
            getattr(model, name)(*[None] * arguments)
