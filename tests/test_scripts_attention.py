"""The attention that is drawn is the model's own, and each kind of it is under its own name."""

import argparse
import importlib

import numpy as np
import pytest
from scripts_tools import ROOT, call, needs_extra, refusal, run

from minilm import checkpoint
from minilm.models import MODELS, build_model
from minilm.models.causal import CausalLM
from minilm.tensor import no_grad
from minilm.tokenizers import CharTokenizer, WordPieceTokenizer

pytestmark = needs_extra
WORDS = "one two three four five"
SHAPE = {"d_model": 8, "n_heads": 2, "n_layers": 2, "max_len": 24}


def model_and_tokenizer(family):
    if family == "bert":
        tokenizer = WordPieceTokenizer.train([WORDS], 40)
    else:
        special = ["<pad>", "</s>"] if family == "transformer" else []
        tokenizer = CharTokenizer.train([WORDS], special)
    shape = SHAPE | {"vocab_size": tokenizer.vocab_size, "init_std": 1.0}
    if family == "transformer":
        pad, end = (tokenizer.special_tokens[name] for name in ("<pad>", "</s>"))
        shape |= {"pad_token_id": pad, "eos_token_id": end, "decoder_start_token_id": pad}
    shape = {n: v for n, v in shape.items() if n in MODELS[family][0].__dataclass_fields__}
    return build_model(family, shape, np.random.default_rng(0)).eval(), tokenizer


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "scripts")
    return importlib.import_module


@pytest.fixture
def look(script):
    return no_grad()(script("attention_maps").look)


def same(found, expected):
    return len(found) == len(expected) and all(map(np.array_equal, found, expected))


@no_grad()
def test_of_a_decoder_the_weights_are_those_of_its_blocks(look):
    model, tokenizer = model_and_tokenizer("gpt")
    ids = tokenizer.encode("one two")
    before = model(np.array([ids])).logits.data
    pictures = look(model, tokenizer, "one two", None)
    x = model.token_embedding(np.array([ids])) + model.position_embedding(np.arange(len(ids)))
    expected = []
    for block in model.blocks:
        expected.append(block.attention.weights(block.norm1(x)))
        x = block(x, None, None, None)
    assert pictures.keys() == {"self"} and same(pictures["self"][0], expected)
    assert pictures["self"][1:] == (ids, ids)
    assert (
        np.triu(pictures["self"][0][1][0, 0], 1).max() == 0 < pictures["self"][0][1].min(-1).max()
    )
    assert (model(np.array([ids])).logits.data == before).all()  # the model is as it was


@no_grad()
def test_of_bert_they_are_those_over_both_texts(look):
    model, tokenizer = model_and_tokenizer("bert")
    batch = tokenizer(["one two"], ["five"])
    expected = model.bert(**batch, output_attentions=True).attentions
    pictures = look(model, tokenizer, "one two", "five")
    assert pictures.keys() == {"self"} and same(pictures["self"][0], expected)
    assert pictures["self"][1:] == (batch["input_ids"][0].tolist(),) * 2
    alone = tokenizer(["one two"])["input_ids"][0].tolist()
    assert look(model, tokenizer, "one two", None)["self"][1] == alone


@no_grad()
def test_of_an_encoder_decoder_they_are_of_three_kinds(look):
    model, tokenizer = model_and_tokenizer("transformer")
    c = model.config
    source = [*tokenizer.encode("one two"), c.eos_token_id]
    written = [*tokenizer.encode("five"), c.eos_token_id]
    read = [c.decoder_start_token_id, *written[:-1]]
    output = model(np.array([source]), labels=np.array([written]), output_attentions=True)
    pictures = look(model, tokenizer, "one two", "five")
    for kind, weights, rows, columns in (
        ("encoder", output.encoder_attentions, source, source),
        ("decoder", output.decoder_attentions, read, read),
        ("cross", output.cross_attentions, written, source),
    ):
        assert same(pictures[kind][0], weights) and pictures[kind][1:] == (rows, columns)
        assert weights[0].shape == (1, 2, len(rows), len(columns))
    assert len(pictures) == 3
    chosen = look(model, tokenizer, "one two", None)["cross"][1]  # what the model itself writes
    assert chosen == model_writes(model, source)


def model_writes(model, source):
    written = [model.config.decoder_start_token_id]
    while len(written) <= model.config.max_len and written[-1] != model.config.eos_token_id:
        logits = model(np.array([source]), decoder_input_ids=np.array([written])).logits
        written.append(int(logits.data[0, -1].argmax()))
    return written[1:]


def test_a_panel_shows_its_head_and_its_axes_the_tokens(script, monkeypatch, tmp_path):
    panels = []
    monkeypatch.setattr(
        "matplotlib.figure.Figure.savefig", lambda figure, *_, **__: panels.extend(figure.axes)
    )
    weights = tuple(np.random.default_rng(0).random((2, 1, 3, 4, 5)))
    only = argparse.Namespace(layer=None, head=None)
    tokenizer = CharTokenizer.train(["abc d"])
    rows, columns = tokenizer.encode("abcd"), tokenizer.encode("ab cd")
    script("plot_attention").draw((weights, rows, columns), tokenizer, tmp_path / "a.png", only)
    assert len(panels) == 6
    for i, panel in enumerate(panels):
        assert (panel.images[0].get_array() == weights[i // 3][0, i % 3]).all()
        assert panel.get_title() == f"layer {i // 3}, head {i % 3}"
        assert [tick.get_text() for tick in panel.get_yticklabels()] == ["a", "b", "c", "d"]
        assert [tick.get_text() for tick in panel.get_xticklabels()] == ["a", "b", "␣", "c", "d"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run of each family, with new weights."""
    directory = tmp_path_factory.mktemp("runs")
    for family in ("gpt", "transformer"):
        model, tokenizer = model_and_tokenizer(family)
        out = directory / family
        tokenizer.save(out)
        config = {"model": family, "model_config": vars(model.config)}
        checkpoint.write_config(out, config)
        checkpoint.save(out / checkpoint.BEST, model.state_dict(), {"step": 0})
    return directory


def test_a_picture_for_each_kind_lies_beside_the_run_or_where_it_is_wanted(runs, tmp_path):
    names = [f"attention-{kind}.png" for kind in ("encoder", "decoder", "cross")]
    result = run("plot_attention.py", runs / "transformer", "--text", "one two", "--target", "two")
    assert result.stdout.split() == [str(runs / "transformer" / name) for name in names]
    arguments = (runs / "transformer", "--text", "one two", "--target", "two", "--out", tmp_path)
    call("plot_attention.py", *arguments, "--head", 1)
    for name in names:
        picture = (runs / "transformer" / name).read_bytes()
        assert picture.startswith(b"\x89PNG") and picture != (tmp_path / name).read_bytes()
    assert "--head: expected 0 to 1, got 2" in refusal("plot_attention.py", *arguments, "--head", 2)


def test_what_cannot_be_drawn_is_one_clear_line(runs):
    drawn = ("plot_attention.py", runs / "gpt", "--text")
    assert "--text: expected a token or more" in refusal(*drawn, "")
    assert "--target: expected none" in refusal(*drawn, "one", "--target", "two")


def test_a_model_without_attention_has_none_to_draw(look):
    class Recurrent(CausalLM):
        pass

    with pytest.raises(ValueError, match="expected a model with attention, got Recurrent"):
        look(Recurrent(), CharTokenizer.train([WORDS]), "one", None)
