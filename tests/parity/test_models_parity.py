"""GPT and Llama agree with transformers' models of the same weights."""

import inspect
import warnings

import numpy as np
import pytest

from minilm.models.gpt import GPT, GPTConfig
from minilm.models.llama import Llama, LlamaConfig
from minilm.tensor import no_grad

torch = pytest.importorskip("torch")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what others warn of while they are imported
    transformers = pytest.importorskip("transformers")

B, T, V, P, C, H, L = 2, 11, 37, 16, 24, 6, 3
IDS = np.random.default_rng(0).integers(0, V, (B, T))
TOLERANCE = {np.float64: 1e-10, np.float32: 1e-4}
both_dtypes = pytest.mark.parametrize("dtype", [np.float64, np.float32])


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """For sizes this small, threads cost far more than they save."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def spread(model, dtype):
    """Our model in this dtype, every parameter away from where it starts."""
    rng = np.random.default_rng(1)
    for p in model.astype(dtype).parameters():
        p[...] = p.data + 0.2 * rng.normal(size=p.shape)
    return model


def tensor(array):
    return torch.tensor(np.ascontiguousarray(array))


# Each function below gives (our model, theirs, pairs): `pairs` names our parameters in theirs,
# as (our names, their name, whether theirs is transposed); several of ours may be one of theirs.


def make_gpt(dtype, **changes):
    sizes = {"vocab_size": V, "max_len": P, "d_model": C, "n_heads": H, "n_layers": L, **changes}
    ours = spread(GPT(GPTConfig(**sizes), np.random.default_rng(0)), dtype)
    config = transformers.GPT2Config(
        vocab_size=V,
        n_positions=P,
        n_embd=C,
        n_head=H,
        n_layer=L,
        n_inner=ours.config.d_ff,
        layer_norm_epsilon=ours.config.layer_norm_eps,
        attn_implementation="sdpa",
        bos_token_id=None,
        eos_token_id=None,
    )
    theirs = transformers.GPT2LMHeadModel(config)
    pairs = [
        (["token_embedding.weight"], "transformer.wte.weight", False),
        (["position_embedding.weight"], "transformer.wpe.weight", False),
    ]
    parts = {  # ours -> theirs, whose Conv1D keeps (in, out)
        "norm1": "ln_1",
        "attention.out": "attn.c_proj",
        "norm2": "ln_2",
        "feed_forward.up": "mlp.c_fc",
        "feed_forward.down": "mlp.c_proj",
    }
    for kind in ("weight", "bias"):
        pairs.append(([f"final_norm.{kind}"], f"transformer.ln_f.{kind}", False))
        for i in range(L):
            block, target, turned = f"blocks.{i}", f"transformer.h.{i}", kind == "weight"
            qkv = [f"{block}.attention.{part}.{kind}" for part in "qkv"]
            pairs.append((qkv, f"{target}.attn.c_attn.{kind}", turned))
            for own, other in parts.items():
                name = f"{target}.{other}.{kind}"
                pairs.append(([f"{block}.{own}.{kind}"], name, turned and "norm" not in own))
    return ours, copy_weights(ours, theirs, pairs, dtype), pairs


class ExactRotary(torch.nn.Module):
    """transformers' rotary tables are float32 whatever the model; these are as exact as it is."""

    def __init__(self, width, base):
        super().__init__()
        self.frequencies = base ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)

    def forward(self, x, position_ids):
        angles = position_ids[..., None] * self.frequencies
        angles = torch.cat([angles, angles], dim=-1)
        return angles.cos().to(x.dtype), angles.sin().to(x.dtype)


def make_llama(dtype, **changes):
    sizes = {"vocab_size": V, "max_len": P, "d_model": C, "n_heads": H, "n_layers": L, **changes}
    ours = spread(Llama(LlamaConfig(**sizes), np.random.default_rng(0)), dtype)
    c = ours.config
    config = transformers.LlamaConfig(
        vocab_size=V,
        max_position_embeddings=P,
        hidden_size=C,
        num_attention_heads=H,
        num_key_value_heads=c.n_kv_heads or H,
        num_hidden_layers=L,
        intermediate_size=c.hidden_width,
        rms_norm_eps=c.norm_eps,
        rope_parameters={"rope_type": "default", "rope_theta": c.rope_theta},
        tie_word_embeddings=c.tie_embeddings,
        attn_implementation="sdpa",
        pad_token_id=None,
        bos_token_id=None,
        eos_token_id=None,
    )
    theirs = transformers.LlamaForCausalLM(config)
    if dtype == np.float64:  # where transformers would round to float32 inside
        theirs.model.rotary_emb = ExactRotary(C // H, c.rope_theta)
        theirs.model.norm = torch.nn.RMSNorm(C, c.norm_eps)
        for layer in theirs.model.layers:
            layer.input_layernorm = torch.nn.RMSNorm(C, c.norm_eps)
            layer.post_attention_layernorm = torch.nn.RMSNorm(C, c.norm_eps)
    names = {"token_embedding": "model.embed_tokens", "final_norm": "model.norm"}
    if not c.tie_embeddings:
        names["head"] = "lm_head"
    for i in range(L):
        own, other = f"blocks.{i}", f"model.layers.{i}"
        names |= {
            f"{own}.norm1": f"{other}.input_layernorm",
            f"{own}.norm2": f"{other}.post_attention_layernorm",
            f"{own}.attention.out": f"{other}.self_attn.o_proj",
            **{f"{own}.attention.{x}": f"{other}.self_attn.{x}_proj" for x in "qkv"},
            **{f"{own}.feed_forward.{x}": f"{other}.mlp.{x}_proj" for x in ("gate", "up", "down")},
        }
    pairs = [([f"{own}.weight"], f"{other}.weight", False) for own, other in names.items()]
    return ours, copy_weights(ours, theirs, pairs, dtype), pairs


def copy_weights(ours, theirs, pairs, dtype):
    """Their model with our weights, in evaluation mode."""
    theirs = theirs.to(torch.float64 if dtype == np.float64 else torch.float32).eval()
    state, parameters = ours.state_dict(), dict(theirs.named_parameters())
    assert sorted(name for names, _, _ in pairs for name in names) == sorted(state)
    assert sorted(name for _, name, _ in pairs) == sorted(parameters)
    with torch.no_grad():
        for names, name, transposed in pairs:
            joined = np.concatenate([state[own] for own in names])
            parameters[name].copy_(tensor(joined.T if transposed else joined))
    return theirs


MODELS = {
    "gpt": (make_gpt, {}),
    "gpt, own sizes": (make_gpt, {"d_ff": 20, "layer_norm_eps": 0.01}),
    "llama": (make_llama, {}),
    "llama, grouped": (make_llama, {"n_kv_heads": 2, "d_ff": 20, "norm_eps": 0.01}),
    "llama, one key head, tied": (make_llama, {"n_kv_heads": 1, "tie_embeddings": True}),
    "llama, tied, own base": (make_llama, {"tie_embeddings": True, "rope_theta": 100.0}),
}
every_model = pytest.mark.parametrize(("make", "changes"), MODELS.values(), ids=MODELS)


def assert_close(ours, theirs, dtype, name=""):
    theirs = theirs.detach().numpy()
    # Relative to the largest number of the array, which decides how the sums in it round.
    limit = TOLERANCE[dtype] * max(1.0, float(np.abs(theirs).max()))
    assert ours.dtype == theirs.dtype == dtype
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=limit, err_msg=name)


@both_dtypes
@every_model
def test_logits_equal_those_of_transformers(make, changes, dtype):
    ours, theirs, _ = make(dtype, **changes)
    assert_close(ours(IDS).logits.data, theirs(tensor(IDS)).logits, dtype)


@both_dtypes
@every_model
def test_gradients_of_all_parameters_equal_those_of_torch(make, changes, dtype):
    ours, theirs, pairs = make(dtype, **changes)
    ours(IDS, labels=IDS).loss.backward()
    # transformers computes its own loss in float32 whatever the model.
    logits = theirs(tensor(IDS)).logits
    torch.nn.functional.cross_entropy(
        logits[:, :-1].reshape(-1, V), tensor(IDS[:, 1:]).reshape(-1)
    ).backward()
    gradients = {name: p.grad for name, p in ours.named_parameters()}
    parameters = dict(theirs.named_parameters())
    for names, name, transposed in pairs:
        joined = np.concatenate([gradients[own] for own in names])
        assert_close(joined.T if transposed else joined, parameters[name].grad, dtype, name)


@both_dtypes
@every_model
def test_the_loss_with_labels_equal_to_the_input_is_that_of_transformers(make, changes, dtype):
    ours, theirs, _ = make(dtype, **changes)
    labels = IDS.copy()
    labels[0, 3:6] = -100
    for given in (IDS, labels):
        expected = theirs(tensor(IDS), labels=tensor(given)).loss.item()
        # Theirs is computed in float32, one rounding of which is 6e-8 of the loss.
        assert ours(IDS, labels=given).loss.item() == pytest.approx(expected, rel=2e-6)


@both_dtypes
@every_model
def test_logits_of_a_padded_batch_equal_those_of_transformers(make, changes, dtype):
    ours, theirs, _ = make(dtype, **changes)
    mask = np.ones((B, T), np.int64)
    mask[1, 7:] = 0
    left = ours(IDS, attention_mask=mask).logits.data
    right = theirs(tensor(IDS), attention_mask=tensor(mask)).logits
    for row, length in enumerate((T, 7)):
        assert_close(left[row, :length], right[row, :length], dtype)


@both_dtypes
@every_model
def test_cached_decoding_equals_that_of_transformers(make, changes, dtype):
    ours, theirs, _ = make(dtype, **changes)
    caches, cache = ours.new_caches(B), transformers.DynamicCache()
    named = "cache" in inspect.signature(theirs.forward).parameters
    keyword = "cache" if named else "past_key_values"  # as earlier versions call it
    for start, stop in ((0, 5), (5, 6), (6, 7), (7, 10), (10, 11)):
        with no_grad(), torch.no_grad():
            left = ours(IDS[:, start:stop], caches=caches).logits.data
            right = theirs(tensor(IDS[:, start:stop]), use_cache=True, **{keyword: cache})
        assert_close(left, right.logits, dtype)


@every_model
def test_both_count_the_same_number_of_parameters(make, changes):
    ours, theirs, _ = make(np.float32, **changes)
    assert ours.count_parameters() == theirs.num_parameters()


def test_gpt2s_own_sizes_are_those_of_the_default_configuration():
    ours, theirs = GPTConfig(), transformers.GPT2Config()
    assert (ours.vocab_size, ours.max_len) == (theirs.vocab_size, theirs.n_positions)
    assert (ours.d_model, ours.n_heads, ours.n_layers) == (
        theirs.n_embd,
        theirs.n_head,
        theirs.n_layer,
    )
    assert ours.layer_norm_eps == theirs.layer_norm_epsilon
    assert ours.init_std == theirs.initializer_range
