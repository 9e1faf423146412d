"""T5 is the paper's formulas; what it shares with the Transformer stands in test_seq2seq."""

import math

import numpy as np
import pytest

from minilm.models.t5 import T5, T5Config, t5_v1_1_config
from minilm.nn import relative_position_bucket
from minilm.tensor import no_grad

V = 13
SIZE = {"vocab_size": V, "max_len": 30, "d_model": 8, "n_heads": 2, "n_layers": 2, "d_ff": 12}
KINDS = {
    "1.0": {},
    "1.1": {"gated": True, "tie_embeddings": False},
    "heads of another width": {"d_kv": 3, "n_heads": 3, "n_decoder_layers": 1},
    "tied, but not scaled": {"scale_logits": False},
    "scaled, but not tied": {"scale_logits": True, "tie_embeddings": False},
    "few buckets": {"n_buckets": 8, "max_distance": 5, "norm_eps": 0.1},
}
SOURCE, TARGET = np.arange(11) % 9 + 2, np.array([0, 7, 8, 9, 3, 4, 4])


def make(**changes):
    model = T5(T5Config(**{**SIZE, **changes}), np.random.default_rng(0))
    rng = np.random.default_rng(1)
    for p in model.astype(np.float64).parameters():
        p[...] = p.data + 0.3 * rng.normal(size=p.shape)
    return model.eval()


def t5_by_formula(state, source, target, c):
    """T5 for one pair of texts in plain NumPy, the bias looked up pair by pair."""
    width = c.d_kv or c.d_model // c.n_heads

    def linear(x, name):
        return x @ state[f"{name}.weight"].T

    def norm(x, name):
        return state[f"{name}.weight"] * x / np.sqrt((x * x).mean(-1, keepdims=True) + c.norm_eps)

    def attention(x, context, name, stack=None):
        q, k, v = linear(x, f"{name}.q"), linear(context, f"{name}.k"), linear(context, f"{name}.v")
        joined = np.zeros_like(q)
        for head in range(c.n_heads):
            part = slice(head * width, (head + 1) * width)
            for t in range(len(x)):
                weights = np.zeros(len(context))
                for s in range(len(context)):
                    if stack == "decoder" and s > t:
                        continue
                    score = q[t, part] @ k[s, part]  # not divided by √D
                    if stack is not None:
                        both = stack == "encoder"
                        sizes = c.n_buckets, c.max_distance
                        bucket = relative_position_bucket(np.array(s - t), both, *sizes)
                        score += state[f"{stack}.relative_bias.weight"][bucket, head]
                    weights[s] = math.exp(score)
                joined[t, part] = weights / weights.sum() @ v[:, part]
        return linear(joined, f"{name}.out")

    def feed_forward(x, name):
        hidden = linear(x, f"{name}.up")
        if c.gated:
            gate = linear(x, f"{name}.gate")
            inner = math.sqrt(2 / math.pi) * (gate + 0.044715 * gate**3)
            hidden = hidden * gate * (1 + np.tanh(inner)) / 2
        else:
            hidden = np.maximum(hidden, 0)
        return linear(hidden, f"{name}.down")

    x = state["token_embedding.weight"][source]
    for i in range(c.n_layers):
        name = f"encoder.blocks.{i}"
        y = norm(x, f"{name}.norm1")
        x = x + attention(y, y, f"{name}.attention", "encoder")
        x = x + feed_forward(norm(x, f"{name}.norm2"), f"{name}.feed_forward")
    encoded = norm(x, "encoder.final_norm")
    x = state["token_embedding.weight"][target]
    for i in range(c.n_decoder_layers or c.n_layers):
        name = f"decoder.blocks.{i}"
        y = norm(x, f"{name}.norm1")
        x = x + attention(y, y, f"{name}.attention", "decoder")
        x = x + attention(norm(x, f"{name}.norm2"), encoded, f"{name}.cross_attention")
        x = x + feed_forward(norm(x, f"{name}.norm3"), f"{name}.feed_forward")
    x = norm(x, "decoder.final_norm")
    if c.tie_embeddings if c.scale_logits is None else c.scale_logits:
        x = x / math.sqrt(c.d_model)
    return x @ state["token_embedding.weight"].T if c.tie_embeddings else linear(x, "head")


@pytest.mark.parametrize("changes", KINDS.values(), ids=KINDS)
def test_logits_equal_the_formulas_written_in_plain_numpy(changes):
    model = make(**changes)
    expected = t5_by_formula(model.state_dict(), SOURCE, TARGET, model.config)
    logits = model(SOURCE[None], decoder_input_ids=TARGET[None]).logits.data[0]
    np.testing.assert_allclose(logits, expected, rtol=1e-10, atol=1e-11)


def test_there_is_no_bias_and_one_relative_bias_a_stack():
    names = list(make().state_dict())
    assert not [name for name in names if name.endswith(".bias")]
    assert [name for name in names if "relative" in name] == [
        "encoder.relative_bias.weight",
        "decoder.relative_bias.weight",
    ]


def test_while_decoding_the_bias_is_looked_up_once_and_cut_for_each_token(monkeypatch):
    model, asked = make(), []
    relative_bias = model.decoder.relative_bias
    monkeypatch.setattr(
        relative_bias, "forward", lambda *sizes: asked.append(sizes) or look_up(*sizes)
    )
    look_up = type(relative_bias).forward.__get__(relative_bias)
    with no_grad():
        caches = model.new_caches(1, model.encode(SOURCE[None]), 9)
        for length in range(1, 10):
            bias = model.decoder.bias(1, caches)
            np.testing.assert_array_equal(bias.data, look_up(1, length).data)
            model(decoder_input_ids=np.array([[3]]), caches=caches)
    assert asked == [(1, 9)]


def test_with_gradients_the_bias_of_a_cached_token_is_recorded():
    model = make()
    with no_grad():
        caches = model.new_caches(1, model.encode(SOURCE[None]), 9)
        model(decoder_input_ids=TARGET[None, :3], caches=caches)
    assert model.decoder.bias(1, caches).requires_grad and caches.bias is None


def test_the_embedding_is_one_parameter_in_1_0_and_the_head_a_second_one_in_1_1():
    def matrices(**changes):
        return [name for name, p in make(**changes).named_parameters() if V in p.shape]

    assert matrices() == ["token_embedding.weight"]
    assert matrices(tie_embeddings=False) == ["token_embedding.weight", "head.weight"]


def test_shifting_source_and_target_alike_changes_nothing_but_what_is_cut_off():
    model, length = make(), 6
    padded = np.concatenate([np.full(4, 2), SOURCE])[None]
    mask = (np.arange(padded.shape[1]) >= 4).astype(int)[None]
    target = TARGET[None, :length]
    left = model(SOURCE[None], decoder_input_ids=target).logits.data
    right = model(padded, attention_mask=mask, decoder_input_ids=target).logits.data
    np.testing.assert_allclose(left, right, rtol=1e-10)


@pytest.mark.parametrize("gated", [False, True])
def test_new_weights_have_the_published_deviations(gated):
    c = T5Config(
        **{"vocab_size": 300, "d_model": 100, "n_heads": 4, "d_kv": 60, "n_layers": 1},
        **{"d_ff": 150, "n_buckets": 200, "max_distance": 300, "gated": gated, "init_factor": 2.0},
        tie_embeddings=not gated,
    )
    model = T5(c, np.random.default_rng(0))
    expected = {
        "token_embedding": 1.0,
        "head": 100**-0.5,
        "relative_bias": 100**-0.5,
        "q": (100 * 60) ** -0.5,
        "k": 100**-0.5,
        "v": 100**-0.5,
        "out": 240**-0.5,
        "gate": 100**-0.5,
        "up": 100**-0.5,
        "down": 150**-0.5,
    }
    for name, p in model.named_parameters():
        kind = name.split(".")[-2]
        if "norm" in kind:
            assert (p.data == 1).all()
        else:
            # The fewest numbers, 800 of a relative bias, deviate by 1/√1600 = 2.5 %.
            assert p.data.std() == pytest.approx(2 * expected[kind], rel=0.08), name
            assert p.dtype == np.float32


def test_new_logits_are_of_the_size_of_one_in_both_versions():
    for make_config in (T5Config, t5_v1_1_config):
        config = make_config(vocab_size=200, d_model=64, n_heads=4, d_kv=16, n_layers=2, d_ff=128)
        model = T5(config, np.random.default_rng(0)).eval()
        logits = model(SOURCE[None], decoder_input_ids=TARGET[None]).logits.data
        assert 0.5 < logits.std() < 2


def test_dropout_falls_on_embeddings_attention_hidden_units_sub_layers_and_both_ends():
    model = make(dropout=0.4).train()
    model.dropout.p = model.encoder.dropout.p = model.decoder.dropout.p = 0.0
    places = [module for _, module in model.named_modules() if hasattr(module, "p")]
    places += [module for name, module in model.named_modules() if name.endswith("attention")]
    # Each layer: one on sub-layers, one on hidden units, one on the weights of each attention.
    assert len(places) == 3 + 2 * 3 + 2 * 4
    for module in places:
        if hasattr(module, "p"):
            module.p = 0.0
        else:
            module.dropout = 0.0

    def loss(seed):
        rng = np.random.default_rng(seed)
        return model(SOURCE[None], labels=TARGET[None], rng=rng).loss.item()

    assert loss(1) == loss(2)
    for module in places:
        name = "p" if hasattr(module, "p") else "dropout"
        setattr(module, name, 0.4)
        assert loss(1) != loss(2)
        setattr(module, name, 0.0)


def test_version_1_1_differs_by_its_gate_its_head_and_its_sizes():
    c = t5_v1_1_config(vocab_size=100)
    assert (c.gated, c.tie_embeddings, c.vocab_size) == (True, False, 100)
    assert (c.d_model, c.n_heads, c.d_kv, c.d_ff, c.n_layers) == (512, 6, 64, 1024, 8)


def test_a_head_width_may_be_any_where_d_model_is_no_multiple_of_the_heads():
    model = make(d_kv=5, n_heads=3)
    assert model.encoder.blocks[0].attention.q.weight.shape == (15, 8)
    assert model.encoder.blocks[0].attention.out.weight.shape == (8, 15)
    with pytest.raises(ValueError, match="expected n_heads to divide d_model"):
        T5Config(**{**SIZE, "n_heads": 3})
    with pytest.raises(ValueError, match="expected d_kv to be a whole number >= 1, got 0"):
        T5Config(d_kv=0)
