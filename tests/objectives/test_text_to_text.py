"""Laws of text-to-text tasks and of their mixtures."""

import itertools
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minilm.functional import IGNORE_INDEX
from minilm.objectives.text_to_text import (
    Example,
    MixedTasks,
    TextToText,
    mixing_rates,
    pad_examples,
)
from minilm.tokenizers import BPETokenizer, UnigramTokenizer

PAD, EOS = 0, 1
TEXTS = [(f"{n} and {n}", f"twice {n}") for n in ("one", "two", "twenty", "one hundred")]
CORPUS = " ".join(itertools.chain.from_iterable(TEXTS)) + " double: count:"
TOKENIZER = BPETokenizer.train(CORPUS, 280, special_tokens=["<pad>", "</s>"])
IDS = dict(pad_id=TOKENIZER.special_tokens["<pad>"], eos_id=TOKENIZER.special_tokens["</s>"])


def numbered(count, first=100, name="task", **options):
    """Examples of one to five tokens that tell which one they are."""
    rows = [np.full(i % 5 + 1, first + i) for i in range(count)]
    return TextToText(name, [Example(row, row[:1]) for row in rows], PAD, **options)


def which(batch):
    return batch["labels"][:, 0].tolist()


def same(a, b):
    return set(a) == set(b) and all(np.array_equal(a[name], b[name]) for name in a)


# --- Batches ----------------------------------------------------------------------------------

rows_of_tokens = st.lists(st.integers(0, 50), max_size=6).map(lambda ids: np.array(ids, np.int32))


@given(st.lists(st.builds(Example, rows_of_tokens, rows_of_tokens), max_size=5))
def test_padding_is_pad_id_without_attention_and_labels_minus_100(examples):
    batch = pad_examples(examples, PAD)
    for i, example in enumerate(examples):
        n, m = len(example.source), len(example.target)
        assert batch["input_ids"][i, :n].tolist() == example.source.tolist()
        assert batch["labels"][i, :m].tolist() == example.target.tolist()
        assert (batch["input_ids"][i, n:] == PAD).all() and (batch["labels"][i, m:] == -100).all()
        assert (batch["attention_mask"][i] == (np.arange(batch["input_ids"].shape[1]) < n)).all()
    longest = [max(map(len, side), default=0) for side in zip(*examples, strict=True)] or [0, 0]
    assert [batch[name].shape[1] for name in ("input_ids", "labels")] == longest
    assert {array.dtype for array in batch.values()} == {np.dtype(np.int64)}


def test_lengths_that_are_given_are_kept_and_longer_rows_are_an_error():
    examples = [Example(np.array([5, 6]), np.array([7]))]
    batch = pad_examples(examples, PAD, 4, 3)
    assert batch["input_ids"].tolist() == [[5, 6, 0, 0]]
    assert batch["labels"].tolist() == [[7, -100, -100]]
    with pytest.raises(ValueError, match="rows of at most 1 tokens, got 2; cut them"):
        pad_examples(examples, PAD, 1)


# --- One task ---------------------------------------------------------------------------------


def test_a_task_reads_prefix_and_source_and_writes_the_target_both_with_eos():
    task = TextToText.of("double", TEXTS, TOKENIZER, "double: ", **IDS)
    (batch,) = task.evaluation(len(TEXTS))
    found = set()
    for ids, real, labels in zip(*(batch[name] for name in batch), strict=True):
        source, target = ids[real > 0], labels[labels != IGNORE_INDEX]
        assert source[-1] == target[-1] == IDS["eos_id"]
        assert (ids[real == 0] == IDS["pad_id"]).all()
        found.add((TOKENIZER.decode(source[:-1]), TOKENIZER.decode(target[:-1])))
    assert found == {("double: " + source, target) for source, target in TEXTS}
    assert len(task) == 4 and task.name == "double"


def test_eos_stands_once_where_the_tokenizers_template_has_it_too():
    tokenizer = UnigramTokenizer.train(CORPUS, vocab_size=60)
    eos = tokenizer.special_tokens["</s>"]
    (example,) = TextToText.of("t", TEXTS[:1], tokenizer, "count: ", pad_id=0, eos_id=eos).examples
    assert example.source.tolist() == tokenizer("count: " + TEXTS[0][0]).input_ids[0].tolist()
    assert example.target.tolist() == [*tokenizer.encode(TEXTS[0][1]), eos]


@pytest.mark.parametrize("length", [2, 3, 5, 100])
def test_what_is_too_long_loses_its_end_but_not_its_eos(length):
    whole = TextToText.of("t", TEXTS, TOKENIZER, "count: ", **IDS).examples
    sides = dict(max_source=length, max_target=length + 1)
    cut = TextToText.of("t", TEXTS, TOKENIZER, "count: ", **IDS, **sides).examples
    for before, after in zip(whole, cut, strict=True):
        for row, short, room in zip(before, after, (length, length + 1), strict=True):
            assert short.tolist() == [*row[:-1][: room - 1], IDS["eos_id"]]
            assert len(short) == min(room, len(row))


def test_special_tokens_in_a_text_are_ordinary_text():
    (example,) = TextToText.of("t", [("a</s>b<pad>", "</s>")], TOKENIZER, **IDS).examples
    assert not np.isin(list(IDS.values()), example.source[:-1]).any()
    assert TOKENIZER.decode(example.target[:-1]) == "</s>"


def test_no_examples_and_no_room_are_errors():
    with pytest.raises(ValueError, match="expected examples and pool >= 1, got 0 examples of 'x'"):
        TextToText.of("x", [], TOKENIZER, **IDS)
    with pytest.raises(ValueError, match="got 2 examples of 'task' and pool 0"):
        numbered(2, pool=0)
    for sides in (dict(max_source=1), dict(max_target=1)):
        with pytest.raises(ValueError, match="max_source and max_target >= 2, for a token and eos"):
            TextToText.of("x", TEXTS, TOKENIZER, **IDS, **sides)


def test_a_sample_has_different_examples_while_there_are_as_many():
    task, rng = numbered(7), np.random.default_rng(0)
    assert sorted(which(task.sample(rng, 7))) == list(range(100, 107))
    assert len(set(which(task.sample(rng, 5)))) == 5
    assert len(which(task.sample(rng, 50))) == 50


@pytest.mark.parametrize("pool", [1, 3])
def test_examples_are_drawn_equally_often_with_a_pool_and_without(pool):
    task, rng = numbered(40, pool=pool), np.random.default_rng(0)
    counts = Counter(i for _ in range(2000) for i in which(task.sample(rng, 4)))
    assert len(counts) == 40 and counts.total() == 8000
    # A batch has an example once, with chance 4/40, or not: √(2000 · 1/10 · 9/10)
    assert max(abs(count - 200) for count in counts.values()) < 5 * 13.4


def test_with_a_pool_rows_of_a_batch_are_of_similar_length():
    def padding(pool):
        task, rng = numbered(200, pool=pool), np.random.default_rng(0)
        masks = [task.sample(rng, 8)["attention_mask"] for _ in range(50)]
        return sum((mask == 0).sum() for mask in masks) / sum(mask.size for mask in masks)

    assert padding(10) < 0.1 < 0.3 < padding(1)


@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_evaluation_has_every_example_once_in_batches_of_similar_length(batch_size):
    batches = list(numbered(23).evaluation(batch_size))
    assert sorted(i for batch in batches for i in which(batch)) == list(range(100, 123))
    lengths = [n for batch in batches for n in batch["attention_mask"].sum(1).tolist()]
    assert lengths == sorted(lengths)
    assert [len(batch["labels"]) for batch in batches[:-1]] == [batch_size] * (len(batches) - 1)


# --- Mixing rates -----------------------------------------------------------------------------


def test_rates_are_proportional_to_the_examples():
    assert mixing_rates([1, 2, 5]) == pytest.approx([0.125, 0.25, 0.625], rel=1e-15)
    assert mixing_rates([7]).tolist() == [1.0]


def test_the_cap_is_what_no_task_has_more_of():
    # min(e, 300) = 100, 300, 300: 1/7, 3/7, 3/7
    rates = mixing_rates([100, 300, 10**9], cap=300)
    assert rates == pytest.approx([1 / 7, 3 / 7, 3 / 7], rel=1e-15)
    assert mixing_rates([100, np.inf], cap=100).tolist() == [0.5, 0.5]
    assert mixing_rates([2, 3, 4], cap=4) == pytest.approx(mixing_rates([2, 3, 4]), rel=1e-15)


def test_temperature_takes_the_root_of_the_capped_rates():
    # r = 1/10, 4/10, 5/10 of min(e, 50); their cube roots, over the sum of these
    roots = [0.1 ** (1 / 3), 0.4 ** (1 / 3), 0.5 ** (1 / 3)]
    rates = mixing_rates([10, 40, 3000], cap=50, temperature=3)
    assert rates == pytest.approx([root / sum(roots) for root in roots], rel=1e-14)


def test_great_temperatures_make_all_tasks_equal_and_small_ones_leave_the_greatest():
    assert mixing_rates([1, 10, 1000], temperature=1e9) == pytest.approx([1 / 3] * 3, abs=1e-8)
    assert mixing_rates([1, 10, 1000], temperature=1e-6).tolist() == [0, 0, 1]


@given(
    st.lists(st.integers(1, 10**9), min_size=1, max_size=8),
    st.none() | st.integers(1, 10**6),
    st.floats(0.1, 100),
)
def test_rates_sum_to_one_and_a_larger_task_has_no_smaller_share(sizes, cap, temperature):
    rates = mixing_rates(sizes, cap, temperature)
    assert rates.sum() == pytest.approx(1, rel=1e-14)
    order = np.argsort(sizes, kind="stable")
    assert (np.diff(rates[order]) >= 0).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([],), "expected sizes > 0"),
        (([3, 0],), r"expected sizes > 0, .* got \[3, 0\]"),
        (([3, math.nan],), "expected sizes > 0"),
        (([3, math.inf],), "finite unless there is a cap"),
        (([3], 0), "got 1.0 and 0; T = 1"),
        (([3], None, 0), "got 0 and None; T = 1"),
    ],
)
def test_sizes_caps_and_temperatures_that_are_not_positive_are_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        mixing_rates(*arguments)


# --- Mixtures ---------------------------------------------------------------------------------

TASKS = [numbered(50, first) for first in (100, 200, 300)]


def binomial_bounds(n, p, chance=1e-9):
    """The counts below and above which a share of p of n draws has at most this chance each."""
    # log C(n, k) p^k (1-p)^(n-k), from exact integers by lgamma
    logs = [
        math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
        + k * math.log(p) + (n - k) * math.log1p(-p)
        for k in range(n + 1)
    ]  # fmt: skip
    chances = np.exp(logs)
    below, above = np.cumsum(chances), np.cumsum(chances[::-1])[::-1]
    return int(np.argmax(below > chance)), n - int(np.argmax(above[::-1] > chance))


def test_binomial_bounds_are_those_of_a_coin():
    assert binomial_bounds(10, 0.5, 0.5**10) == (1, 9)  # 0 or 10 heads have chance 1/1024 each
    assert binomial_bounds(2, 0.25, 0.06) == (0, 2)  # 9/16, 6/16, 1/16


@pytest.mark.parametrize("pool", [1, 4])
def test_each_tasks_share_of_the_rows_is_its_rate(pool):
    rates = mixing_rates([100, 300, 4000], cap=600)  # 0.1, 0.3, 0.6
    mixture, rng = MixedTasks(TASKS, rates, pool), np.random.default_rng(0)
    rows = [i for _ in range(200) for i in which(mixture.sample(rng, 20))]
    counts = Counter(i // 100 - 1 for i in rows)
    assert counts.total() == 4000
    for task, rate in enumerate(rates):
        low, high = binomial_bounds(4000, rate)
        assert low <= counts[task] <= high
        assert high - low < 400  # the bounds bind


def test_each_part_of_a_batch_has_all_tasks():
    # Threads share a batch by rows: sorted by task, each would have another task.
    rows = which(MixedTasks(TASKS, [1 / 3] * 3).sample(np.random.default_rng(0), 60))
    for part in range(0, 60, 20):
        assert {i // 100 for i in rows[part : part + 20]} == {1, 2, 3}


def test_a_rate_of_zero_leaves_a_task_out():
    rows = which(MixedTasks(TASKS, [0, 1, 0]).sample(np.random.default_rng(0), 40))
    assert {i // 100 for i in rows} == {2}


def test_mixtures_can_be_mixed():
    inner = MixedTasks(TASKS[:2], [0.5, 0.5])
    rows = which(MixedTasks([inner, TASKS[2]], [0.5, 0.5]).sample(np.random.default_rng(0), 400))
    counts = Counter(i // 100 for i in rows)
    for task, share in ((1, 0.25), (2, 0.25), (3, 0.5)):
        low, high = binomial_bounds(400, share)
        assert low <= counts[task] <= high


def test_evaluation_has_every_example_of_every_task_once():
    rows = [i for b in MixedTasks(TASKS, [0, 0.5, 0.5]).evaluation(7) for i in which(b)]
    assert sorted(rows) == [*range(100, 150), *range(200, 250), *range(300, 350)]
    assert [i // 100 for i in rows] == [1] * 50 + [2] * 50 + [3] * 50


@pytest.mark.parametrize("make", [lambda: TASKS[0], lambda: MixedTasks(TASKS, [0.2, 0.3, 0.5], 2)])
def test_a_generator_put_back_gives_the_same_samples_again(make):
    source, rng = make(), np.random.default_rng(5)
    source.sample(rng, 6)
    state = rng.bit_generator.state
    second = source.sample(rng, 6)
    assert not same(second, source.sample(rng, 6))
    resumed = np.random.default_rng()
    resumed.bit_generator.state = state
    assert same(make().sample(resumed, 6), second)


@pytest.mark.parametrize("rates", [[0.5, 0.5], [0.5, 0.6, -0.1], [0.5, 0.3, 0.1], [[1, 0, 0]]])
def test_rates_that_do_not_fit_the_tasks_are_an_error(rates):
    with pytest.raises(ValueError, match="for each of 3 tasks a rate >= 0, their sum 1, got"):
        MixedTasks(TASKS, rates)


def test_tasks_padded_differently_are_an_error():
    other = TextToText("other", TASKS[0].examples, pad_id=9)
    with pytest.raises(ValueError, match=r"one pad_id and pool >= 1, got \[0, 9\] and 1"):
        MixedTasks([TASKS[0], other], [0.5, 0.5])
    with pytest.raises(ValueError, match=r"got \[0\] and 0"):
        MixedTasks(TASKS, [1, 0, 0], pool=0)
