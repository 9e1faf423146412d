"""T5 agrees with transformers' model of the same weights, the Transformer with torch's layers."""

import math
import re
import warnings

import numpy as np
import pytest

from minilm.models.t5 import T5, T5Config
from minilm.models.transformer import Transformer, TransformerConfig
from minilm.nn import relative_position_bucket
from minilm.tensor import no_grad

torch = pytest.importorskip("torch", reason="needs the extra: pip install minilm[parity]")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what others warn of while they are imported
    transformers = pytest.importorskip(
        "transformers", reason="needs the extra: pip install minilm[parity]"
    )
    from transformers.models.t5.modeling_t5 import T5Attention

B, S, T, V, C, H = 3, 13, 9, 37, 24, 4
both_dtypes = pytest.mark.parametrize(
    ("dtype", "tolerance"), [(np.float32, 1e-4), (np.float64, 1e-9)]
)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """For sizes this small, threads cost far more than they save."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def batch():
    """Sources and targets of different lengths, as our model and as theirs take them."""
    rng = np.random.default_rng(1)
    lengths = np.array([[S], [7], [4]])
    labels = rng.integers(1, V, (B, T))
    labels[1, 6:] = labels[2, 3:] = -100
    return {
        "input_ids": rng.integers(1, V, (B, S)),
        "attention_mask": (np.arange(S) < lengths).astype(int),
        "labels": labels,
    }


def to_torch(inputs):
    return {name: torch.from_numpy(array) for name, array in inputs.items()}


def spread(model, dtype):
    """Our model in this dtype, every parameter away from where it starts."""
    rng = np.random.default_rng(2)
    for p in model.astype(dtype).parameters():
        p[...] = p.data + 0.2 * rng.normal(size=p.shape)
    return model.eval()


def copy_weights(ours, theirs, names, dtype):
    """Their model with our weights, in evaluation mode; `names` gives theirs for each of ours."""
    theirs = theirs.to(torch.float64 if dtype == np.float64 else torch.float32).eval()
    parameters, state = dict(theirs.named_parameters()), ours.state_dict()
    found = [name for named in names.values() for name in named]
    assert sorted(names) == sorted(state) and sorted(found) == sorted(parameters)
    with torch.no_grad():
        for own, named in names.items():
            parts = np.split(state[own], len(named))
            for name, part in zip(named, parts, strict=True):
                parameters[name].copy_(torch.from_numpy(part))
    return theirs


def assert_close(ours, theirs, tolerance, name=""):
    theirs = theirs.detach().numpy()
    # Relative to the largest number of the array, which decides how the sums in it round.
    limit = tolerance * max(1.0, float(np.abs(theirs).max()))
    assert ours.dtype == theirs.dtype
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=limit, err_msg=name)


# --- T5 ---------------------------------------------------------------------------------------

T5_NAMES = [
    (r"^token_embedding", "shared"),
    (r"^head", "lm_head"),
    (r"relative_bias", "block.0.layer.0.SelfAttention.relative_attention_bias"),
    (r"final_norm", "final_layer_norm"),
    (r"blocks\.(\d+)", r"block.\1"),
    (r"\.norm1", ".layer.0.layer_norm"),
    (r"(encoder.*)\.norm2", r"\1.layer.1.layer_norm"),
    (r"(decoder.*)\.norm2", r"\1.layer.1.layer_norm"),
    (r"(decoder.*)\.norm3", r"\1.layer.2.layer_norm"),
    (r"\.attention\.(out|\w)", r".layer.0.SelfAttention.\1"),
    (r"\.cross_attention\.(out|\w)", r".layer.1.EncDecAttention.\1"),
    (r"(encoder.*)\.feed_forward", r"\1.layer.1.DenseReluDense"),
    (r"(decoder.*)\.feed_forward", r"\1.layer.2.DenseReluDense"),
    (r"Attention\.out", "Attention.o"),
    (r"DenseReluDense\.down", "DenseReluDense.wo"),
    (r"DenseReluDense\.gate", "DenseReluDense.wi_0"),
]

T5_KINDS = {
    "1.0": {},
    "1.0, odd head width": {"d_kv": 5, "n_decoder_layers": 1},
    "1.1": {"gated": True, "tie_embeddings": False},
    "1.1, odd head width": {
        **{"gated": True, "tie_embeddings": False, "d_kv": 7, "n_heads": 5, "n_decoder_layers": 3},
        **{"n_buckets": 8, "max_distance": 6, "norm_eps": 0.01},
    },
}
every_t5 = pytest.mark.parametrize("changes", T5_KINDS.values(), ids=T5_KINDS)


def make_t5(dtype, **changes):
    sizes = {"vocab_size": V, "max_len": 20, "d_model": C, "n_heads": H, "n_layers": 2, "d_ff": 40}
    c = T5Config(**{**sizes, **changes})
    ours = spread(T5(c, np.random.default_rng(0)), dtype)
    config = transformers.T5Config(
        vocab_size=V,
        d_model=C,
        d_kv=c.d_kv or C // H,
        d_ff=c.d_ff,
        num_layers=c.n_layers,
        num_decoder_layers=c.n_decoder_layers or c.n_layers,
        num_heads=c.n_heads,
        relative_attention_num_buckets=c.n_buckets,
        relative_attention_max_distance=c.max_distance,
        layer_norm_epsilon=c.norm_eps,
        feed_forward_proj="gated-gelu" if c.gated else "relu",
        tie_word_embeddings=c.tie_embeddings,
        decoder_start_token_id=0,
        attn_implementation="eager",
    )
    theirs = transformers.T5ForConditionalGeneration(config)
    if not c.tie_embeddings:  # some versions tie whatever is asked for
        theirs.lm_head.weight = torch.nn.Parameter(theirs.lm_head.weight.detach().clone())
    if dtype == np.float64:  # where transformers would round to float32 inside
        for name in [name for name, _ in theirs.named_modules()]:
            if name.endswith("layer_norm"):
                owner, _, attribute = name.rpartition(".")
                exact = torch.nn.RMSNorm(C, c.norm_eps)
                setattr(theirs.get_submodule(owner), attribute, exact)
    names = {}
    for own in ours.state_dict():
        name = own
        for pattern, new in T5_NAMES:
            name = re.sub(pattern, new, name)
        up = "wi_1" if c.gated else "wi"
        names[own] = [name.replace("DenseReluDense.up", f"DenseReluDense.{up}")]
    return ours, copy_weights(ours, theirs, names, dtype), names


@both_dtypes
@every_t5
@pytest.mark.parametrize("padded", [False, True])
def test_t5s_outputs_loss_and_gradients_equal_those_of_transformers(
    changes, padded, dtype, tolerance
):
    ours, theirs, names = make_t5(dtype, **changes)
    inputs = batch()
    if not padded:
        del inputs["attention_mask"]
    asked = {"output_hidden_states": True, "output_attentions": True}
    mine, his = ours(**inputs, **asked), theirs(**to_torch(inputs), **asked)
    assert_close(mine.loss.data, his.loss, tolerance)
    assert_close(mine.logits.data, his.logits, tolerance)
    real = inputs.get("attention_mask", np.ones((B, S))).astype(bool)
    assert_close(
        mine.encoder_last_hidden_state.data[real], his.encoder_last_hidden_state[real], tolerance
    )
    for a, b in zip(mine.encoder_hidden_states, his.encoder_hidden_states, strict=True):
        assert_close(a.data[real], b[real], tolerance)
    for a, b in zip(mine.decoder_hidden_states, his.decoder_hidden_states, strict=True):
        assert_close(a.data, b, tolerance)
    for field in ("encoder_attentions", "decoder_attentions", "cross_attentions"):
        for a, b in zip(getattr(mine, field), getattr(his, field), strict=True):
            assert_close(a, b, tolerance, field)
    mine.loss.backward()
    his.loss.backward()
    parameters = dict(theirs.named_parameters())
    for own, parameter in ours.named_parameters():
        assert_close(parameter.grad, parameters[names[own][0]].grad, tolerance, own)


@both_dtypes
def test_a_mask_over_the_target_is_that_of_transformers(dtype, tolerance):
    ours, theirs, _ = make_t5(dtype)
    inputs = batch()
    inputs["decoder_input_ids"] = np.where(inputs.pop("labels") < 0, 0, 5)
    mask = np.ones((B, T), int)
    mask[0, :2] = 0  # padding on the left
    inputs["decoder_attention_mask"] = mask
    left, right = ours(**inputs).logits.data, theirs(**to_torch(inputs)).logits
    assert_close(left[mask == 1], right[torch.from_numpy(mask == 1)], tolerance)


@both_dtypes
@every_t5
def test_t5s_cached_decoding_equals_the_logits_of_transformers(changes, dtype, tolerance):
    ours, theirs, _ = make_t5(dtype, **changes)
    inputs = batch()
    labels = inputs.pop("labels")
    ids = np.where(labels < 0, 0, labels)
    with no_grad():
        caches = ours.new_caches(B, ours.encode(**inputs))
        parts = [
            ours(decoder_input_ids=ids[:, a:b], caches=caches).logits.data
            for a, b in ((0, 1), (1, 2), (2, 6), (6, 7), (7, 9))
        ]
    right = theirs(**to_torch(inputs), decoder_input_ids=torch.from_numpy(ids)).logits
    assert_close(np.concatenate(parts, axis=1), right, tolerance)


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize(("n_buckets", "max_distance"), [(32, 128), (8, 20), (16, 100), (64, 256)])
def test_buckets_are_those_of_transformers(bidirectional, n_buckets, max_distance):
    places = np.arange(-2000, 2001)
    theirs = T5Attention._relative_position_bucket(
        torch.from_numpy(places), bidirectional, n_buckets, max_distance
    )
    ours = relative_position_bucket(places, bidirectional, n_buckets, max_distance)
    assert np.array_equal(ours, theirs.numpy())


def test_t5s_weights_begin_with_the_deviations_of_transformers():
    sizes = {"vocab_size": 500, "d_model": 96, "n_heads": 3, "n_layers": 1, "d_ff": 200, "d_kv": 80}
    ours = T5(T5Config(**sizes), np.random.default_rng(0))
    names = {"n_heads": "num_heads", "n_layers": "num_layers"}
    config = {names.get(name, name): value for name, value in sizes.items()}
    torch.manual_seed(0)
    theirs = transformers.T5ForConditionalGeneration(transformers.T5Config(**config))
    parameters = dict(theirs.named_parameters())
    for own, parameter in ours.named_parameters():
        name = own
        for pattern, new in T5_NAMES:
            name = re.sub(pattern, new, name)
        name = name.replace("DenseReluDense.up", "DenseReluDense.wi")
        # 96 numbers, of the relative bias, have a deviation that errs by 1/√192 = 7 %.
        error = 0.3 if "relative" in own else 0.03
        expected = parameters[name].detach().numpy()
        assert parameter.data.std() == pytest.approx(expected.std(), rel=error), own
        assert parameter.data.mean() == pytest.approx(expected.mean(), abs=0.3), own


def test_the_default_configuration_is_that_of_transformers():
    ours, theirs = T5Config(), transformers.T5Config()
    assert (ours.vocab_size, ours.d_model, ours.d_ff) == (
        theirs.vocab_size,
        theirs.d_model,
        theirs.d_ff,
    )
    assert (ours.n_heads, ours.n_layers) == (theirs.num_heads, theirs.num_layers)
    assert ours.d_model // ours.n_heads == theirs.d_kv
    assert ours.n_buckets == theirs.relative_attention_num_buckets
    assert ours.max_distance == theirs.relative_attention_max_distance
    assert (ours.pad_token_id, ours.eos_token_id) == (theirs.pad_token_id, theirs.eos_token_id)
    assert (ours.norm_eps, ours.dropout) == (theirs.layer_norm_epsilon, theirs.dropout_rate)


# --- The Transformer --------------------------------------------------------------------------


class TorchTransformer(torch.nn.Module):
    """torch.nn.Transformer between the paper's embeddings and their transpose."""

    def __init__(self, c):
        super().__init__()
        self.embedding = torch.nn.Embedding(V, C)
        sizes = (C, c.n_heads, c.d_ff, c.dropout, "relu", c.layer_norm_eps)
        encoder = torch.nn.TransformerEncoder(
            torch.nn.TransformerEncoderLayer(*sizes, batch_first=True),
            c.n_layers,
            enable_nested_tensor=False,
        )
        decoder = torch.nn.TransformerDecoder(
            torch.nn.TransformerDecoderLayer(*sizes, batch_first=True),
            c.n_decoder_layers or c.n_layers,
        )
        self.transformer = torch.nn.Transformer(
            C, c.n_heads, custom_encoder=encoder, custom_decoder=decoder, batch_first=True
        )

    def embed(self, ids):
        angles = torch.arange(ids.shape[1], dtype=torch.float64)[:, None] / 10000 ** (
            torch.arange(0, C, 2, dtype=torch.float64) / C
        )
        # Our table is float32 whatever the model.
        table = torch.stack([angles.sin(), angles.cos()], -1).flatten(1).float()
        weight = self.embedding.weight
        return weight[ids] * math.sqrt(C) + table.to(weight.dtype)

    def forward(self, input_ids, decoder_input_ids, attention_mask=None):
        padding = None if attention_mask is None else attention_mask == 0
        length = decoder_input_ids.shape[1]
        hidden = self.transformer(
            self.embed(input_ids),
            self.embed(decoder_input_ids),
            tgt_mask=torch.ones(length, length, dtype=bool).triu(1),
            src_key_padding_mask=padding,
            memory_key_padding_mask=padding,
        )
        return hidden @ self.embedding.weight.T


TORCH_NAMES = [
    (r"^token_embedding", "embedding"),
    (r"^(\w+)\.blocks\.(\d+)", r"transformer.\1.layers.\2"),
    (r"\.attention\.out", ".self_attn.out_proj"),
    (r"\.cross_attention\.out", ".multihead_attn.out_proj"),
    (r"feed_forward\.up", "linear1"),
    (r"feed_forward\.down", "linear2"),
]


def make_transformer(dtype, **changes):
    sizes = {"vocab_size": V, "max_len": 20, "d_model": C, "n_heads": H, "n_layers": 2, "d_ff": 40}
    c = TransformerConfig(**{**sizes, **changes})
    ours = spread(Transformer(c, np.random.default_rng(0)), dtype)
    theirs = TorchTransformer(c).to(torch.float64 if dtype == np.float64 else torch.float32).eval()
    return ours, theirs


def joined(arrays):
    """Their name and array for each of ours; queries, keys and values are one array there."""
    parts = {}
    for own, array in arrays.items():
        match = re.fullmatch(r"(.*\.)(cross_)?attention\.([qkv])\.(weight|bias)", own)
        if match:
            layer = "multihead_attn" if match[2] else "self_attn"
            own = f"{match[1]}{layer}.in_proj_{match[4]}"
        for pattern, new in TORCH_NAMES:
            own = re.sub(pattern, new, own)
        parts.setdefault(own, []).append(array)
    return {key: np.concatenate(value) for key, value in parts.items()}


@both_dtypes
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("changes", [{}, {"n_decoder_layers": 3, "layer_norm_eps": 0.01}])
def test_the_transformers_logits_loss_and_gradients_equal_those_of_torch(
    changes, smoothing, padded, dtype, tolerance
):
    ours, theirs = make_transformer(dtype, **changes, dropout=0.0, label_smoothing=smoothing)
    inputs = batch()
    if not padded:
        del inputs["attention_mask"]
    state = joined(ours.state_dict())
    theirs.load_state_dict({name: torch.from_numpy(array) for name, array in state.items()})
    mine = ours.train()(**inputs)  # the loss is smoothed in training
    labels = inputs.pop("labels")
    shifted = np.concatenate([np.zeros((B, 1), int), np.maximum(labels[:, :-1], 0)], axis=1)
    logits = theirs(**to_torch(inputs), decoder_input_ids=torch.from_numpy(shifted))
    loss = torch.nn.functional.cross_entropy(
        logits.reshape(-1, V), torch.from_numpy(labels).reshape(-1), label_smoothing=smoothing
    )
    assert_close(mine.logits.data, logits, tolerance)
    assert_close(mine.loss.data, loss, tolerance)
    mine.loss.backward()
    loss.backward()
    gradients = joined({name: p.grad for name, p in ours.named_parameters()})
    for name, parameter in theirs.named_parameters():
        assert_close(gradients.pop(name), parameter.grad, tolerance, name)
    assert not gradients
