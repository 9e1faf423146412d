"""The Transformer is the paper's formulas; what it shares with T5 stands in test_seq2seq."""

import math

import numpy as np
import pytest

from minilm.models.transformer import Transformer, TransformerConfig
from minilm.nn import Dropout

C, H, V = 8, 2, 13
SIZE = {"vocab_size": V, "max_len": 9, "d_model": C, "n_heads": H, "n_layers": 2, "d_ff": 12}
SOURCE, TARGET = np.array([3, 4, 5, 6, 1]), np.array([0, 7, 8, 9])


def make(**changes):
    model = Transformer(TransformerConfig(**{**SIZE, **changes}), np.random.default_rng(0))
    rng = np.random.default_rng(1)
    for p in model.astype(np.float64).parameters():
        p[...] = p.data + 0.3 * rng.normal(size=p.shape)
    return model.eval()


def transformer_by_formula(state, source, target, config):
    """Section 3 of the paper for one pair of texts, in plain NumPy."""

    def linear(x, name):
        return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    def norm(x, name):
        centred = x - x.mean(-1, keepdims=True)
        x_hat = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + config.layer_norm_eps)
        return x_hat * state[f"{name}.weight"] + state[f"{name}.bias"]

    def attention(x, context, name, causal=False):  # eq. 1 for each head
        q, k, v = linear(x, f"{name}.q"), linear(context, f"{name}.k"), linear(context, f"{name}.v")
        heads, width = [], C // H
        for i in range(H):
            part = slice(i * width, (i + 1) * width)
            weights = np.exp(q[:, part] @ k[:, part].T / math.sqrt(width))
            weights = np.tril(weights) if causal else weights
            heads.append(weights / weights.sum(-1, keepdims=True) @ v[:, part])
        return linear(np.concatenate(heads, axis=-1), f"{name}.out")

    def feed_forward(x, name):  # eq. 2
        return linear(np.maximum(0, linear(x, f"{name}.up")), f"{name}.down")

    def embed(ids):  # sections 3.4 and 3.5
        x = state["token_embedding.weight"][ids] * math.sqrt(C)
        for t in range(len(ids)):
            for i in range(C // 2):
                angle = t / 10000 ** (2 * i / C)
                x[t, 2 * i] += math.sin(angle)
                x[t, 2 * i + 1] += math.cos(angle)
        return x

    x = embed(source)
    for i in range(config.n_layers):
        name = f"encoder.blocks.{i}"
        x = norm(x + attention(x, x, f"{name}.attention"), f"{name}.norm1")
        x = norm(x + feed_forward(x, f"{name}.feed_forward"), f"{name}.norm2")
    y = embed(target)
    for i in range(config.n_decoder_layers or config.n_layers):
        name = f"decoder.blocks.{i}"
        y = norm(y + attention(y, y, f"{name}.attention", causal=True), f"{name}.norm1")
        y = norm(y + attention(y, x, f"{name}.cross_attention"), f"{name}.norm2")
        y = norm(y + feed_forward(y, f"{name}.feed_forward"), f"{name}.norm3")
    return y @ state["token_embedding.weight"].T


@pytest.mark.parametrize("changes", [{}, {"n_decoder_layers": 3, "layer_norm_eps": 0.1}])
def test_logits_equal_the_papers_formulas_written_in_plain_numpy(changes):
    model = make(**changes)
    expected = transformer_by_formula(model.state_dict(), SOURCE, TARGET, model.config)
    logits = model(SOURCE[None], decoder_input_ids=TARGET[None]).logits.data[0]
    # Positions are a table of float32, each entry rounded by up to 3e-8.
    np.testing.assert_allclose(logits, expected, rtol=0, atol=2e-6)


def test_source_target_and_output_share_one_embedding():
    model = make()
    matrices = [name for name, p in model.named_parameters() if V in p.shape]
    assert matrices == ["token_embedding.weight"]
    source, target = np.array([[3, 4]]), np.array([[0, 7]])
    before = model(source, decoder_input_ids=target).logits.data

    def after_changing(token):
        changed = make()
        changed.token_embedding.weight[token] += 1.0
        return changed(source, decoder_input_ids=target).logits.data

    assert (after_changing(3) != before).all()  # read in the source
    assert (after_changing(7)[:, 1] != before[:, 1]).all()  # read in the target
    only_written = after_changing(12) != before
    assert only_written[..., 12].all() and not np.delete(only_written, 12, axis=-1).any()


def test_embeddings_times_root_d_model_and_sinusoids_are_what_the_stacks_read():
    model = make()
    x = model.embed(np.array([[5, 5]]), 3, None).data[0]
    for t, row in zip((3, 4), x, strict=True):
        sines = [f(t / 10000 ** (2 * i / C)) for i in range(C // 2) for f in (math.sin, math.cos)]
        expected = model.token_embedding.weight.data[5] * math.sqrt(C) + sines
        np.testing.assert_allclose(row, expected, rtol=0, atol=1e-7)


def test_what_a_stack_gives_is_normalised_since_the_norm_comes_after_the_sum():
    model = Transformer(TransformerConfig(**SIZE), np.random.default_rng(0)).eval()
    output = model(SOURCE[None], labels=TARGET[None], output_hidden_states=True)
    for x in (*output.encoder_hidden_states[1:], *output.decoder_hidden_states[1:]):
        np.testing.assert_allclose(x.data.mean(-1), 0, atol=1e-6)
        np.testing.assert_allclose(x.data.var(-1), 1, rtol=1e-3)


def test_dropout_falls_on_the_embeddings_and_on_every_sub_layer_and_nowhere_else():
    model = make(dropout=0.4).train()
    places = [module for _, module in model.named_modules() if hasattr(module, "p")]
    assert len(places) == 1 + 2 + 2  # the embeddings', one a layer for its sub-layers' outputs
    for module in places:
        module.p = 0.0

    def loss(seed):
        rng = np.random.default_rng(seed)
        return model(SOURCE[None], labels=TARGET[None], rng=rng).loss.item()

    assert loss(1) == loss(2)
    for module in places:
        module.p = 0.4
        assert loss(1) != loss(2)
        module.p = 0.0


def test_a_share_of_every_sub_layers_output_is_dropped(monkeypatch):
    shapes = []
    model = make(dropout=0.4).train()
    forward = Dropout.forward
    monkeypatch.setattr(
        Dropout, "forward", lambda self, x, rng: shapes.append(x.shape) or forward(self, x, rng)
    )
    model(SOURCE[None], labels=TARGET[None])
    assert shapes == [(1, 5, C)] * (1 + 2 * 2) + [(1, 4, C)] * (1 + 2 * 3)


def test_the_default_is_the_papers_base_model_of_65_million_parameters():
    c = TransformerConfig()
    assert (c.n_layers, c.d_model, c.d_ff, c.n_heads) == (6, 512, 2048, 8)
    assert (c.dropout, c.label_smoothing) == (0.1, 0.1)
    attention = 4 * (512 * 512 + 512)
    feed_forward = 2 * 512 * 2048 + 2048 + 512
    encoder, decoder = attention + feed_forward, 2 * attention + feed_forward
    norms = 2 * 512
    total = c.vocab_size * 512 + 6 * (encoder + 2 * norms) + 6 * (decoder + 3 * norms)
    assert round(total / 1e6) in (63, 65)
    small = make()
    own = 4 * (C * C + C), 2 * C * 12 + 12 + C
    assert small.count_parameters() == V * C + 2 * (own[0] + own[1] + 4 * C) + 2 * (
        2 * own[0] + own[1] + 6 * C
    )


def test_new_weights_have_the_variance_two_over_in_plus_out():
    config = TransformerConfig(vocab_size=50, d_model=200, n_heads=2, n_layers=1, d_ff=300)
    model = Transformer(config, np.random.default_rng(0))
    for name, p in model.named_parameters():
        if p.ndim == 2 and "embedding" not in name:
            assert p.data.std() == pytest.approx(math.sqrt(2 / sum(p.shape)), rel=0.02), name
    assert model.token_embedding.weight.data.std() == pytest.approx(200**-0.5, rel=0.03)
