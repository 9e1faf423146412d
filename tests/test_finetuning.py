"""Laws of fine-tuning: what is frozen stays, layers join in order, rare classes weigh more."""

import importlib
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from runs import outcome, tiny_model, tiny_trainer

from minilm.finetuning import (
    GradualUnfreezing,
    augment,
    augment_texts,
    class_weights,
    freeze_layers,
    random_deletion,
    random_masking,
    random_swap,
)
from minilm.models import bert_heads
from minilm.models.bert import Bert, BertConfig
from minilm.nn import Linear
from minilm.nn.module import layer_groups
from minilm.objectives.causal import sample_windows
from minilm.optim import AdamW
from minilm.tasks import TextExample
from minilm.tokenizers import WordPieceTokenizer
from minilm.training import train_step

BERT = BertConfig(vocab_size=23, max_len=10, d_model=8, n_heads=2, n_layers=3, d_ff=12, n_labels=3)
HEADS = [
    Bert,
    *(bert_heads.BertForPreTraining, bert_heads.BertForMaskedLM),
    *(bert_heads.BertForSequenceClassification, bert_heads.BertForTokenClassification),
    *(bert_heads.BertForQuestionAnswering, bert_heads.BertForMultipleChoice),
]
MODELS = {
    **{head.__name__: (lambda head=head: head(BERT, np.random.default_rng(0))) for head in HEADS},
    "GPT": lambda: tiny_model("gpt", n_layers=3),
    "Llama": lambda: tiny_model("llama", n_layers=3),
    "Llama, tied": lambda: tiny_model("llama", n_layers=3, tie_embeddings=True),
}
each_model = pytest.mark.parametrize("model", [make() for make in MODELS.values()], ids=MODELS)
each_family = pytest.mark.parametrize("family", ["gpt", "llama"])


def names_of(model, tensors):
    names = {id(tensor): name for name, tensor in model.named_parameters()}
    return [names[id(tensor)] for tensor in tensors]


def learning(model):
    return {name for name, p in model.named_parameters() if p.requires_grad}


def batch_of(seed):
    text = np.random.default_rng(9).integers(0, 32, 200)
    return sample_windows(text, 4, 8, np.random.default_rng(seed))


# --- Layers -----------------------------------------------------------------------------------


@each_model
def test_every_parameter_is_in_exactly_one_group_and_tied_ones_once(model):
    grouped = [id(p) for group in layer_groups(model) for p in group]
    assert sorted(grouped) == sorted(map(id, model.parameters()))
    assert len(set(grouped)) == len(grouped)


@each_model
def test_the_groups_are_embeddings_then_each_block_then_what_stands_on_them(model):
    before, *blocks, after = (names_of(model, group) for group in layer_groups(model))
    assert len(blocks) == 3 and before and after
    for i, block in enumerate(blocks):
        assert block and all(f"blocks.{i}." in name for name in block)
    assert not any("blocks" in name for name in before + after)
    embeddings = [name for name in learning(model) if "embedding" in name]
    assert set(embeddings) <= set(before)
    assert set(before) - set(embeddings) <= {f"{p}norm.{x}" for p in ("", "bert.") for x in
                                             ("weight", "bias")}  # fmt: skip
    heads = ("pooler", "classifier", "masked", "next_sentence", "final_norm", "head")
    assert all(name.removeprefix("bert.").split(".")[0] in heads for name in after)


def test_a_model_without_blocks_has_no_layers():
    with pytest.raises(ValueError, match="expected a model with `blocks`, got Linear without; pa"):
        layer_groups(Linear(2, 3, rng=np.random.default_rng(0)))


# --- Freezing ---------------------------------------------------------------------------------


@each_family
@pytest.mark.parametrize("n_layers", [0, 1, 3])
def test_frozen_layers_keep_their_bits_in_training_while_every_other_parameter_moves(
    family, n_layers
):
    model = tiny_model(family, n_layers=3, dropout=0.1)
    frozen = [p for group in layer_groups(model)[: n_layers + 1] for p in group]
    optimizer = AdamW(model.parameters(), weight_decay=0.1)  # holds the frozen ones too
    freeze_layers(model, n_layers)
    assert learning(model) == {*names_of(model, model.parameters())} - {*names_of(model, frozen)}
    before = {name: array.tobytes() for name, array in model.state_dict().items()}
    for step in range(3):
        train_step(model, optimizer, batch_of(step), 1.0)
    changed = {n for n, array in model.state_dict().items() if array.tobytes() != before[n]}
    assert changed == learning(model)
    assert all(p.grad is None for p in frozen)


def test_the_backward_pass_ends_where_the_frozen_layers_begin():
    def nodes(model):
        """How many results the loss remembers."""
        waiting, seen = [model(**batch_of(0)).loss.node], set()
        while waiting:
            node = waiting.pop()
            seen.add(node)
            parents = (parent.source for parent in node.parents)
            waiting += [p for p in parents if hasattr(p, "parents") and p not in seen]
        return len(seen)

    model = tiny_model(n_layers=3)
    counts = [nodes(model)]
    for n_layers in range(4):
        freeze_layers(model, n_layers)
        counts.append(nodes(model))
    whole, *rest = counts
    (block,) = set(np.diff(rest[:3]))  # the last of the blocks frees the final norm's input as well
    assert whole > rest[0] and -block > 5
    assert rest[-1] == rest[0] + 3 * block


@pytest.mark.parametrize("n_layers", [-1, 4])
def test_freezing_layers_that_there_are_not_is_an_error_that_freezes_none(n_layers):
    model = tiny_model(n_layers=3)
    with pytest.raises(ValueError, match=f"0 <= n_layers <= 3, the blocks of GPT, got {n_layers};"):
        freeze_layers(model, n_layers)
    assert len(learning(model)) == len(model.parameters())


# --- Gradual unfreezing -----------------------------------------------------------------------


@each_model
def test_at_first_the_last_group_learns_and_every_interval_the_next_lower_one_joins(model):
    groups = layer_groups(model)
    unfreeze = GradualUnfreezing(model, 4)
    for step in [*range(25), 3, 17, 0, 1000]:  # the step alone decides
        unfreeze(step)
        last = min(1 + step // 4, 5)
        assert learning(model) == {n for group in groups[-last:] for n in names_of(model, group)}
    model.requires_grad_()


def test_what_was_frozen_before_stays_frozen_and_is_no_stage_of_its_own():
    model = tiny_model(n_layers=3)
    model.freeze("final_norm", "blocks.1", "blocks.2.norm1.weight")
    allowed = learning(model)
    unfreeze = GradualUnfreezing(model, 1)
    seen = []
    for step in range(4):
        unfreeze(step)
        seen.append({name.split(".attention")[0].split(".norm")[0].split(".feed")[0] for name in
                     learning(model)})  # fmt: skip
        assert learning(model) <= allowed
    embeddings = {"token_embedding.weight", "position_embedding.weight"}
    assert seen[:2] == [{"blocks.2"}, {"blocks.2", "blocks.0"}]
    assert seen[2] == seen[3] == {"blocks.2", "blocks.0"} | embeddings
    assert learning(model) == allowed


def test_an_optimizer_made_first_trains_each_group_from_the_step_on_at_which_it_joins(tmp_path):
    trainer = tiny_trainer(tmp_path, max_steps=9, optimizer="adamw", weight_decay=0.1)
    model = trainer.model
    trainer.before_step = [GradualUnfreezing(model, 3)]
    states, groups = [], layer_groups(model)
    trainer.before_step.append(
        lambda step: states.append({n: a.tobytes() for n, a in model.state_dict().items()})
    )
    trainer.run()
    states.append({n: a.tobytes() for n, a in model.state_dict().items()})
    for step, (old, new) in enumerate(zip(states, states[1:], strict=False)):
        moved = {name for name in old if old[name] != new[name]}
        expected = [n for group in groups[-(1 + step // 3) :] for n in names_of(model, group)]
        assert moved == set(expected)
    steps = dict(zip(names_of(model, trainer.optimizer.parameters), trainer.optimizer.steps,
                     strict=True))  # fmt: skip
    assert steps["final_norm.bias"] == 9 and steps["blocks.0.norm1.bias"] == 6
    assert steps["token_embedding.weight"] == 3


@pytest.mark.parametrize("stop", [7, 16])
def test_a_run_that_unfreezes_gradually_is_resumed_with_the_same_bits(tmp_path, stop):
    def make(part):
        trainer = tiny_trainer(tmp_path / part, log_interval=50, save_interval=50, max_steps=24,
                               layer_decay=0.8)  # fmt: skip
        trainer.before_step = [GradualUnfreezing(trainer.model, 8)]
        return trainer

    whole = make("whole")
    whole.run()
    first = make("parts")
    first.config = replace(first.config, max_steps=stop)
    first.run()
    second = make("parts")
    second.resume()
    assert second.progress.step == stop
    second.run()
    assert outcome(second)[0] == outcome(whole)[0]


def test_a_schedule_that_can_unfreeze_nothing_is_an_error():
    model = tiny_model()
    with pytest.raises(ValueError, match="expected interval >= 1, got 0; an epoch's steps"):
        GradualUnfreezing(model, 0)
    model.requires_grad_(False)
    with pytest.raises(ValueError, match=r"frozen all over; call model.requires_grad_\(\) first"):
        GradualUnfreezing(model, 1)


# --- Class weights ----------------------------------------------------------------------------


@given(st.lists(st.integers(0, 3), max_size=30), st.integers(0, 3))
def test_all_classes_weigh_alike_and_an_example_one_on_average(more, ignored):
    labels = np.array([0, 1, 2, 3, *more, *[-100] * ignored])
    weights = class_weights(labels, 4)
    n = 4 + len(more)
    for c in range(4):
        assert weights[c] * np.sum(labels == c) == pytest.approx(n / 4, rel=1e-15)
    assert weights[labels[labels != -100]].sum() == pytest.approx(n, rel=1e-14)
    assert (class_weights(labels.reshape(1, -1), 4) == weights).all()


def test_a_class_that_has_no_weight_is_an_error():
    for labels in ([0, 2, 2, -100], [0, 2]):
        with pytest.raises(ValueError, match=r"all 4 classes, got none of \[1, 3\]; le"):
            class_weights(labels, 4)
    with pytest.raises(ValueError, match=r"all 2 classes, got none of \[0, 1\]"):
        class_weights([], 2)
    for label in (-1, 2):
        with pytest.raises(IndexError, match=r"expected labels in 0\.\.1, got "):
            class_weights([0, 1, label], 2)
    for labels in ([0.0, 1.0], ["a", "b"]):
        with pytest.raises(TypeError, match="labels as whole numbers, got .*; a regression has no"):
            class_weights(labels, 2)


# --- Augmentation -----------------------------------------------------------------------------

words_of = st.lists(st.text("ab ", max_size=3), max_size=9)
seeds = st.integers(0, 2**32)
alphas = st.floats(1e-3, 1)


def test_each_word_is_deleted_with_probability_p_whatever_the_others_do():
    n, p, rng = 40_000, 0.3, np.random.default_rng(0)
    words = [str(i) for i in range(n)]
    kept = np.isin(np.arange(n), np.array(random_deletion(words, p, rng), int))
    spread = 5 * np.sqrt(n * p * (1 - p))  # the binomial's deviation, five times
    assert abs((~kept).sum() - n * p) < spread
    both = (~kept[1:] & ~kept[:-1]).sum()
    assert abs(both - n * p * p) < 5 * np.sqrt(n * p * p)


@given(words_of, st.floats(0, 1), seeds)
def test_deletion_keeps_words_in_order_and_one_at_least(words, p, seed):
    left = random_deletion(words, p, np.random.default_rng(seed))
    rest = iter(words)
    assert all(word in rest for word in left)  # a subsequence
    assert bool(left) == bool(words)
    assert random_deletion(words, 0, np.random.default_rng(seed)) == words
    assert len(random_deletion(words, 1, np.random.default_rng(seed))) == min(1, len(words))


def test_the_word_that_stays_may_be_any():
    rng = np.random.default_rng(0)
    left = Counter(random_deletion("abcd", 1, rng)[0] for _ in range(400))
    assert set(left) == set("abcd") and min(left.values()) > 60  # 100 expected, deviation 8.7


@given(words_of, st.integers(0, 12), seeds)
def test_swapping_keeps_the_multiset_of_words(words, n, seed):
    before = list(words)
    assert Counter(random_swap(words, n, np.random.default_rng(seed))) == Counter(words)
    assert words == before


@given(st.integers(2, 9), seeds)
def test_one_swap_moves_exactly_two_words_and_none_moves_nothing(size, seed):
    words = [str(i) for i in range(size)]
    moved = [a != b for a, b in zip(words, random_swap(words, 1, np.random.default_rng(seed)),
                                    strict=True)]  # fmt: skip
    assert sum(moved) == 2
    assert random_swap(words, 0, np.random.default_rng(seed)) == words


def test_all_pairs_are_swapped_equally_often():
    found = Counter(tuple(random_swap("abc", 1, np.random.default_rng(s))) for s in range(900))
    assert set(found) == {("b", "a", "c"), ("c", "b", "a"), ("a", "c", "b")}
    assert min(found.values()) > 230  # 300 expected, deviation 14


@given(words_of, st.floats(0, 1), seeds)
def test_masking_changes_no_word_but_into_the_mask(words, p, seed):
    masked = random_masking(words, p, "[MASK]", np.random.default_rng(seed))
    assert all(new in (old, "[MASK]") for old, new in zip(words, masked, strict=True))


def test_each_word_is_masked_with_probability_p():
    n, p = 40_000, 0.15
    masked = random_masking(["a"] * n, p, "b", np.random.default_rng(0))
    assert abs(masked.count("b") - n * p) < 5 * np.sqrt(n * p * (1 - p))
    assert random_masking(["a"] * 9, 1, "b", np.random.default_rng(0)) == ["b"] * 9
    assert random_masking(["a"] * 9, 0, "b", np.random.default_rng(0)) == ["a"] * 9


@given(st.lists(st.text("ab", min_size=1, max_size=3), min_size=1, max_size=9), alphas, seeds)
def test_an_augmented_text_is_never_empty_has_no_new_word_and_comes_from_the_seed(
    words, alpha, seed
):
    text = "  ".join(words) + "\n"
    for mask in (None, "[MASK]"):
        one, same = (
            augment(text, np.random.default_rng(seed), alpha=alpha, mask=mask) for _ in range(2)
        )
        assert one == same
        assert one.split() and one == " ".join(one.split())
        assert set(one.split()) <= {*words, *([mask] if mask else [])}


def test_each_operation_has_its_turn_and_touches_the_share_alpha_of_the_words():
    words = [str(i) for i in range(40)]
    kinds, rng = Counter(), np.random.default_rng(0)
    for _ in range(600):
        new = augment(" ".join(words), rng, alpha=0.25, mask="_").split()
        if len(new) < 40:
            kinds["deletion", 40 - len(new)] += 1
        elif "_" in new:
            kinds["masking", new.count("_")] += 1
        else:  # ten swaps, which may meet in one place
            kinds["swap", 10] += 1
            assert sorted(new, key=int) == words
            assert 5 < sum(a != b for a, b in zip(new, words, strict=True)) <= 20
    for kind in ("deletion", "masking", "swap"):
        sizes = [size for name, size in kinds.elements() if name == kind]
        assert 140 < len(sizes) < 260  # 200 expected, deviation 11.5
        assert abs(np.mean(sizes) - 10) < 1  # deviation 0.19


def test_the_scripts_mask_is_a_word_that_the_encoder_reads(monkeypatch):
    """ "[MASK]" in a text would be cut into its signs, as all special tokens in a text."""
    monkeypatch.syspath_prepend(Path(__file__).resolve().parents[1] / "scripts")
    examples, rng = [TextExample("one two three four", None, "a")], np.random.default_rng(0)
    more = importlib.import_module("splits").augmented(examples, 50, rng)
    masked = [example.text for example in more if "_" in example.text]
    assert masked and len(more) == 51
    tokenizer = WordPieceTokenizer.train(["one two three four snake_case"], 60)
    for text in masked:
        assert tokenizer.ids["[UNK]"] not in tokenizer.encode(text)


def test_a_short_text_still_has_one_swap():
    texts = {augment("a b", np.random.default_rng(seed), alpha=1e-9) for seed in range(20)}
    assert texts == {"a b", "b a"}


def test_each_text_stands_before_its_copies_and_they_have_its_label():
    texts, labels = ["a b c d", "e f g h i", "j k"], ["x", "y", None]
    rng = np.random.default_rng(0)
    more, repeated = augment_texts(texts, labels, 3, rng, alpha=0.5, mask="_")
    assert more[::4] == texts
    assert repeated == ["x"] * 4 + ["y"] * 4 + [None] * 4
    for i, copy in enumerate(more):
        assert set(copy.split()) <= {*texts[i // 4].split(), "_"}
    again = augment_texts(texts, labels, 3, np.random.default_rng(0), alpha=0.5, mask="_")
    assert again == (more, repeated)
    assert rng.random() != np.random.default_rng(0).random()  # it was used up
    assert augment_texts(texts, labels, 0, rng) == (texts, labels)
    assert augment_texts([], [], 3, rng) == ([], [])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda rng: random_deletion(["a"], 1.5, rng), "probability 0 <= p <= 1, got 1.5"),
        (lambda rng: random_masking(["a"], -0.1, "_", rng), "probability 0 <= p <= 1, got -0.1"),
        (lambda rng: random_swap(["a", "b"], -1, rng), "n >= 0 swaps, got -1; 0 leaves"),
        (lambda rng: augment("a b", rng, alpha=0.0), "0 < alpha <= 1, got 0.0; the paper"),
        (lambda rng: augment("a b", rng, alpha=1.1), "0 < alpha <= 1, got 1.1"),
        (lambda rng: augment(" \n", rng), r"a text with words, got ' \\n'; leave it out"),
        (lambda rng: augment_texts(["a"], [], 1, rng), "got 1 texts, 0 labels and n_augmented = 1"),
        (lambda rng: augment_texts(["a"], [1], -1, rng), "1 labels and n_augmented = -1; for"),
    ],
)
def test_what_cannot_be_augmented_is_an_error_that_says_why(call, message):
    with pytest.raises(ValueError, match=message):
        call(np.random.default_rng(0))
