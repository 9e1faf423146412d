"""Text in, answer out: one by one or many at once, of any length, out of any kind of directory."""

import json
import logging
import subprocess
import sys
from dataclasses import asdict

import numpy as np
import pytest

from minilm import checkpoint, pipelines
from minilm.__main__ import main
from minilm.generation import generate
from minilm.models.bert import Bert, BertConfig
from minilm.models.bert_heads import (
    BertForMaskedLM,
    BertForPreTraining,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
)
from minilm.models.gpt import GPT, GPTConfig
from minilm.models.llama import Llama, LlamaConfig
from minilm.models.t5 import T5, T5Config
from minilm.pipelines import TASKS, pipeline
from minilm.pipelines import tokens as tokens_file
from minilm.pipelines.windows import Windows, new_cutter
from minilm.pretrained import PretrainedError, SentenceEncoder
from minilm.pretrained.tokenizers import save_tokenizer
from minilm.tokenizers import BPETokenizer, CharTokenizer, UnigramTokenizer, WordPieceTokenizer

TEXT = "Ann lives in Rome, and Bob in New York. The café isn't far: 東京 is. Do you know, Ann?"
LONG = " ".join([TEXT] * 3)
TEXTS = [
    "Ann lives in Rome.",
    "",
    "naïve café ☃ don't 🙂🏽",
    "Привет",
    "Bob",
    LONG,
    "new york, rome",
]
MAX_LEN, LABELS = 24, {0: "O", 1: "B-PER", 2: "I-PER", 3: "B-LOC", 4: "I-LOC"}
WORDS = WordPieceTokenizer.train([TEXT], 130)
BYTES = BPETokenizer.train([TEXT], 300, special_tokens=["<|endoftext|>"])
PADDED = BPETokenizer.train([TEXT], 300, special_tokens=["<pad>"])
PIECES = UnigramTokenizer.train([TEXT], 60, special_tokens=["<pad>", "</s>"])


def bert(kind, tokenizer=WORDS, seed=0, **fields):
    """Weights so large that tokens differ."""
    sizes = {"max_len": MAX_LEN, "d_model": 12, "n_heads": 2, "n_layers": 1, "d_ff": 16}
    fields = {"vocab_size": tokenizer.vocab_size, "init_std": 0.5, "n_labels": 5, **sizes, **fields}
    model = kind(BertConfig(**fields), np.random.default_rng(seed)).eval()
    model.id2label = LABELS if fields["n_labels"] == 5 and "Class" in kind.__name__ else {}
    return model


def gpt(tokenizer=BYTES, **fields):
    sizes = {"max_len": MAX_LEN, "d_model": 12, "n_heads": 2, "n_layers": 1, "init_std": 0.5}
    config = GPTConfig(vocab_size=tokenizer.vocab_size, **{**sizes, **fields})
    return GPT(config, np.random.default_rng(0)).eval()


def t5(**fields):
    ids = PIECES.special_tokens
    sizes = {"max_len": 200, "d_model": 12, "n_heads": 2, "n_layers": 1, "d_ff": 16}
    special = {"pad_token_id": ids["<pad>"], "decoder_start_token_id": ids["<pad>"]}
    sizes |= {"vocab_size": PIECES.vocab_size, "eos_token_id": ids["</s>"], **special}
    return T5(T5Config(**{**sizes, **fields}), np.random.default_rng(0)).eval()


CONTEXTS = [{"question": "who?", "context": text} for text in TEXTS]
MASKED = [f"{text} [MASK]" for text in TEXTS]
SHORT = ["Ann", "Bob in Rome", "café", "New York, and", "東京"]
NEW = {"max_new_tokens": 6}
# task -> a model, its tokenizer, inputs, and arguments of a call
CASES = {
    "text-generation": (gpt(), BYTES, SHORT, NEW),
    "text2text-generation": (t5(), PIECES, SHORT, NEW),
    "summarization": (t5(), PIECES, SHORT, {**NEW, "num_beams": 2}),
    "translation": (t5(), PIECES, SHORT, {**NEW, "num_beams": 1}),
    "fill-mask": (bert(BertForMaskedLM), WORDS, MASKED, {"top_k": 3}),
    "text-classification": (bert(BertForSequenceClassification), WORDS, TEXTS, {"top_k": None}),
    "token-classification": (bert(BertForTokenClassification), WORDS, TEXTS, {}),
    "question-answering": (bert(BertForQuestionAnswering), WORDS, CONTEXTS, {"top_k": 3}),
    "feature-extraction": (bert(Bert), WORDS, TEXTS, {}),
    "sentence-similarity": (bert(Bert), WORDS, TEXTS, {"sentences": ["Ann", LONG]}),
}
every_task = pytest.mark.parametrize("task", CASES)


def pipe_of(task, **defaults):
    model, tokenizer, _, arguments = CASES[task]
    return pipeline(task, model, tokenizer, **{**arguments, **defaults})


def assert_close(left, right):
    """The same words and places, and scores up to what padding changes in float32."""
    if isinstance(left, dict):
        assert left.keys() == right.keys()
        for key in left:
            assert_close(left[key], right[key])
    elif isinstance(left, list):
        assert len(left) == len(right)
        for a, b in zip(left, right, strict=True):
            assert_close(a, b)
    elif isinstance(left, float):
        assert left == pytest.approx(right, abs=2e-5)
    else:
        assert left == right


# --- Calls --------------------------------------------------------------------------------------


def test_there_is_a_case_for_every_task():
    assert set(CASES) == set(TASKS)


@every_task
def test_many_inputs_in_batches_are_answered_as_each_alone(task):
    pipe, inputs = pipe_of(task), CASES[task][2]
    alone = [answer for given in inputs for answer in pipe([given])]
    for batch_size in (2, 3, 100):
        assert_close(pipe(inputs, batch_size=batch_size), alone)
    assert pipe([]) == []


@every_task
def test_a_generator_is_read_no_further_than_its_batches_go(task):
    pipe, inputs = pipe_of(task, batch_size=2), CASES[task][2]
    read = []

    def watched():
        for given in inputs:
            read.append(given)
            yield given

    answers = pipe(watched())
    assert read == []
    first = next(answers)
    assert len(read) == 2
    listed = [pipe.answers([given], 1, **pipe.prepare(dict(pipe.defaults)))[0] for given in inputs]
    assert_close([first, *answers], listed)
    assert len(read) == len(inputs)


@every_task
def test_an_argument_of_the_pipeline_is_one_of_every_call(task):
    model, tokenizer, inputs, arguments = CASES[task]
    bare = pipeline(task, model, tokenizer)
    assert_close(pipe_of(task)(inputs[:2]), bare(inputs[:2], **arguments))


def test_an_unknown_task_is_told_the_known_ones():
    with pytest.raises(ValueError, match="got 'fill-masks'") as caught:
        pipeline("fill-masks", gpt(), BYTES)
    assert all(task in str(caught.value) for task in (*TASKS, "ner", "sentiment-analysis"))


@every_task
def test_a_model_of_another_kind_is_told_what_the_task_needs(task):
    wrong = t5() if task == "text-generation" else gpt()
    if task == "feature-extraction":
        wrong = object()
    with pytest.raises(
        ValueError, match=f"{task}: expected a model of .*, got {type(wrong).__name__}"
    ):
        pipeline(task, wrong, BYTES)


@every_task
def test_an_argument_or_an_input_that_is_not_known_is_an_error(task):
    model, tokenizer, inputs, arguments = CASES[task]
    with pytest.raises(TypeError, match=r"expected arguments among .*, got tok_p"):
        pipeline(task, model, tokenizer, tok_p=1)
    pipe = pipeline(task, model, tokenizer)
    with pytest.raises(TypeError, match=r"expected arguments among .*, got tok_p"):
        pipe(inputs[0], tok_p=1)
    with pytest.raises(TypeError, match=f"{task}: expected .*got .*5"):
        pipe([inputs[0], 5], **arguments)
    with pytest.raises(ValueError, match="batch_size >= 1, got 0"):
        pipe(inputs, batch_size=0)


def test_a_model_alone_needs_a_tokenizer_or_a_directory_with_one(tmp_path):
    model, tokenizer, inputs, arguments = CASES["text-classification"]
    with pytest.raises(TypeError, match="expected a tokenizer for the model, got none"):
        pipeline("text-classification", model)
    save_tokenizer(tokenizer, tmp_path)
    found = pipeline("text-classification", model, tmp_path, **arguments)(inputs)
    assert_close(found, pipe_of("text-classification")(inputs))


# --- Directories --------------------------------------------------------------------------------


@every_task
def test_a_directory_answers_as_the_model_that_was_saved_there(tmp_path, task):
    model, tokenizer, inputs, arguments = CASES[task]
    model.save_pretrained(tmp_path)
    save_tokenizer(tokenizer, tmp_path)
    left = pipeline(task, tmp_path, **arguments)(inputs[:3])
    assert_close(left, pipe_of(task)(inputs[:3]))


def write_run(directory, model, name, tokenizer, **more):
    """What a training script leaves behind."""
    tokenizer.save(directory)
    config = {"model": name, "model_config": asdict(model.config), **more}
    checkpoint.write_config(directory, config)
    checkpoint.save(directory / checkpoint.BEST, model.state_dict(), {})


@pytest.mark.parametrize(
    ("task", "name"),
    [
        ("text-generation", "gpt"),
        ("text-classification", "bert_sequences"),
        ("ner", "bert_tokens"),
        ("question-answering", "bert_questions"),
        ("fill-mask", "bert_masked"),
        ("text2text-generation", "t5"),
    ],
)
def test_the_run_of_a_training_script_answers_too(tmp_path, task, name):
    model, tokenizer, inputs, arguments = CASES[pipelines.ALIASES.get(task, task)]
    write_run(tmp_path, model, name, tokenizer, labels=list(LABELS.values()))
    left = pipeline(task, str(tmp_path), **arguments)(inputs[:3])
    assert_close(left, pipeline(task, model, tokenizer, **arguments)(inputs[:3]))


def test_a_directory_of_sentence_transformers_pools_as_it_says(tmp_path):
    encoder = SentenceEncoder(bert(Bert), WORDS, "max", normalize=False)
    encoder.save_pretrained(tmp_path)
    sentences = ["Bob", LONG]
    found = pipeline("sentence-similarity", tmp_path)("Ann", sentences=sentences)
    expected = pipeline("sentence-similarity", encoder)("Ann", sentences=sentences)
    assert found == pytest.approx(expected)
    assert found != pytest.approx(pipe_of("sentence-similarity")("Ann", sentences=sentences))
    assert_close(
        pipeline("feature-extraction", tmp_path)("Ann"), pipe_of("feature-extraction")("Ann")
    )


def test_a_directory_without_the_head_says_which_the_task_needs(tmp_path):
    bert(BertForMaskedLM).save_pretrained(tmp_path)
    save_tokenizer(WORDS, tmp_path)
    with pytest.raises(PretrainedError, match="text-generation needs causal_lm: .*masked_lm"):
        pipeline("text-generation", tmp_path)
    with pytest.raises(PretrainedError, match="ner needs token_classification: .*classifier"):
        pipeline("ner", tmp_path)
    with pytest.raises(PretrainedError, match="config.json"):
        pipeline("ner", tmp_path / "nowhere")


def test_a_pre_trained_bert_fills_masks_and_gives_vectors():
    model = bert(BertForPreTraining)
    masked = BertForMaskedLM(model.config, np.random.default_rng(0))
    masked.load_state_dict(model.state_dict(), strict=False)
    left = pipeline("fill-mask", model, WORDS)(MASKED)
    assert_close(left, pipeline("fill-mask", masked.eval(), WORDS)(MASKED))
    left = pipeline("feature-extraction", model, WORDS)("Ann")
    assert_close(left, pipeline("feature-extraction", model.bert, WORDS)("Ann"))


# --- Windows ------------------------------------------------------------------------------------


@pytest.mark.parametrize("stride", [0, 1, 2, 5, 8])
def test_windows_put_together_are_the_text_as_one_row(stride):
    cutter = new_cutter(bert(Bert), WORDS)
    texts = [" ".join(["ann"] * n) for n in range(60)]
    windows = Windows(cutter, [cutter.read(text) for text in texts], stride)
    for text, ids, places in zip(texts, windows.input_ids, windows.places, strict=True):
        whole = WORDS(text)
        np.testing.assert_array_equal(ids, whole.input_ids[0])
        np.testing.assert_array_equal(places[1:-1], whole.offset_mapping[0, 1:-1])
    assert max(row.inputs["input_ids"].size for row in windows.features.rows) == MAX_LEN


@pytest.mark.parametrize("stride", [0, 1, 4, 7])
def test_each_token_is_taken_from_the_window_that_sees_most_around_it(stride):
    cutter = new_cutter(bert(Bert), WORDS)
    windows = Windows(cutter, [cutter.read("ann " * 200)], stride)
    (rows,) = pipelines.windows.by_text(windows.features, windows.features.rows)
    seen = {}  # of each token, the context that each window shows of it
    contexts = []
    for row in rows:
        n = len(row.places)
        contexts.append(np.minimum(np.arange(n), np.arange(n)[::-1]))
        for place, context in zip(row.places[1:-1].tolist(), contexts[-1][1:-1], strict=True):
            seen.setdefault(tuple(place), []).append(context)
    assert len(rows) > 8 and (stride == 0) == (max(map(len, seen.values())) == 1)
    (joined,) = windows.join(contexts)
    best = [max(contexts) for contexts in seen.values()]
    whole = len(best) - 2 * MAX_LEN  # the last windows are cut off by the end of the text
    np.testing.assert_array_equal(joined[1:-1][:whole], best[:whole])


def test_special_tokens_in_a_text_count_as_such():
    cutter = new_cutter(bert(Bert), WORDS)
    assert cutter.read("ann [SEP]")[0][-1] == WORDS.sep_token_id


@pytest.mark.parametrize("n_token_types", [0, 1])
def test_a_model_without_token_types_is_given_none(n_token_types):
    model = bert(BertForSequenceClassification, n_token_types=n_token_types)
    encoding = WORDS("Ann?", "Bob.")
    expected = model(encoding.input_ids).logits.data[0]
    pipe = pipeline("text-classification", model, WORDS, top_k=None, function_to_apply="none")
    found = {c["label"]: c["score"] for c in pipe({"text": "Ann?", "text_pair": "Bob."})}
    assert list(map(found.get, LABELS.values())) == pytest.approx(list(expected), abs=1e-5)


# --- Vectors ------------------------------------------------------------------------------------


def test_features_are_the_last_hidden_states_of_all_tokens_however_long_the_text():
    model = bert(Bert)
    pipe = pipeline("feature-extraction", model, WORDS, return_tensors=True)
    encoding = WORDS("Ann lives in Rome.")
    expected = model(**encoding).last_hidden_state.data
    np.testing.assert_allclose(pipe("Ann lives in Rome."), expected, atol=1e-6)
    long = pipe(LONG)
    assert long.shape == (1, WORDS(LONG).input_ids.shape[1], 12)
    first = model(first_window(LONG)).last_hidden_state.data[0]
    np.testing.assert_allclose(long[0, :20], first[:20], atol=1e-6)


def first_window(text):
    return WORDS(text, truncation=True, max_length=MAX_LEN).input_ids


@pytest.mark.parametrize(
    ("model", "tokenizer"),
    [
        (gpt(), BYTES),
        (Llama(LlamaConfig(vocab_size=BYTES.vocab_size, max_len=MAX_LEN, d_model=12, n_heads=2,
                           n_layers=1), np.random.default_rng(0)).eval(), BYTES),
        (t5(max_len=MAX_LEN), PIECES),
    ],
    ids=["gpt", "llama", "t5"],
)  # fmt: skip
def test_models_of_every_family_give_features(model, tokenizer):
    pipe = pipeline("feature-extraction", model, tokenizer, return_tensors=True, batch_size=3)
    texts = ["Ann", "Bob lives in Rome", LONG]
    for text, states in zip(texts, pipe(texts), strict=True):
        assert states.shape == (1, tokenizer(text).input_ids.shape[1], 12)
    ids = tokenizer("Ann").input_ids
    if isinstance(model, T5):
        expected = model.encode(ids).last_hidden_state.data
    else:
        expected = model.hidden(ids, None, None, None).data
    np.testing.assert_allclose(pipe("Ann"), expected, atol=1e-6)


def test_features_of_no_tokens_are_an_error():
    with pytest.raises(ValueError, match="expected a text with tokens, got an empty one"):
        pipeline("feature-extraction", gpt(), BYTES)("")


@pytest.mark.parametrize("pooling", ["mean", "cls", "max"])
def test_similarities_are_the_cosines_of_the_encoders_vectors(pooling):
    encoder = SentenceEncoder(bert(Bert), WORDS, pooling, normalize=False)
    pipe = pipeline("sentence-similarity", encoder)
    sentences = ["Bob in Rome", "café", ""]
    a, *others = encoder.encode(["Ann", *sentences])
    expected = [float(a @ b / np.linalg.norm(a) / np.linalg.norm(b)) for b in others]
    assert pipe("Ann", sentences=sentences) == pytest.approx(expected, abs=1e-5)
    asked = {"source_sentence": "Ann", "sentences": sentences}
    assert pipe(asked) == pipe("Ann", sentences=sentences)
    assert pipe(LONG, sentences=[LONG, LONG.upper()]) == pytest.approx([1, 1])
    with pytest.raises(TypeError, match="expected a text and a list sentences"):
        pipe("Ann")


def test_a_long_text_is_the_mean_of_all_its_tokens():
    model = bert(Bert)
    rows = WORDS(LONG, truncation=True, max_length=MAX_LEN, stride=0, padding=True)
    states = model(**rows).last_hidden_state.data
    long = states[rows.attention_mask == 1].mean(0)
    short = SentenceEncoder(model, WORDS).encode("Ann")
    cosine = float(long @ short / np.linalg.norm(long))
    pipe = pipeline("sentence-similarity", model, WORDS)
    assert pipe("Ann", sentences=[LONG]) == [pytest.approx(cosine, abs=1e-5)]


def test_texts_are_compared_in_lower_case_if_the_encoder_asks_for_it():
    tokenizer = WordPieceTokenizer.train([TEXT + TEXT.upper()], 150, lower=False)
    for lower_case in (False, True):
        encoder = SentenceEncoder(bert(Bert, tokenizer), tokenizer, lower_case=lower_case)
        (found,) = pipeline("sentence-similarity", encoder)("ANN", sentences=["ann"])
        assert (found == pytest.approx(1)) == lower_case


# --- Text classification ------------------------------------------------------------------------


def logits_of(text):
    return CASES["text-classification"][0](**WORDS(text)).logits.data[0].astype(float)


def softmax(x):
    e = np.exp(x - x.max())
    return e / e.sum()


def test_classes_have_their_probabilities_the_best_first():
    pipe = pipeline("sentiment-analysis", *CASES["text-classification"][:2])
    expected = softmax(logits_of("Ann in Rome"))
    every = pipe("Ann in Rome", top_k=None)
    assert [c["score"] for c in every] == pytest.approx(sorted(expected, reverse=True), abs=1e-6)
    assert every[0]["label"] == LABELS[int(expected.argmax())]
    assert_close(pipe("Ann in Rome"), every[:1])
    assert_close(pipe(["Ann in Rome"]), every[:1])
    assert_close(pipe("Ann in Rome", top_k=2), every[:2])
    assert_close(pipeline("ner", *CASES["token-classification"][:2])([]), [])


@pytest.mark.parametrize(
    ("function", "formula"),
    [("softmax", softmax), ("sigmoid", lambda x: 1 / (1 + np.exp(-x))), ("none", lambda x: x)],
)
def test_scores_are_made_of_logits_as_asked(function, formula):
    pipe = pipe_of("text-classification", function_to_apply=function)
    scores = {c["label"]: c["score"] for c in pipe("Bob", top_k=None)}
    for label, score in zip(LABELS.values(), formula(logits_of("Bob")), strict=True):
        assert scores[label] == pytest.approx(score, abs=1e-5)
    with pytest.raises(ValueError, match="function_to_apply of softmax, sigmoid, none, got 'exp'"):
        pipe("Bob", function_to_apply="exp")


@pytest.mark.parametrize(
    ("hf_config", "function"),
    [({}, "none"), ({"problem_type": "regression"}, "none"), ({"num_labels": 1}, "sigmoid")],
)
def test_a_regression_gives_its_number(hf_config, function):
    model = bert(BertForSequenceClassification, n_labels=1)
    model.hf_config = hf_config
    pipe = pipeline("text-classification", model, WORDS)
    assert pipe("Bob") == pipe("Bob", top_k=1, function_to_apply=function)


@pytest.mark.parametrize("stride", [0, 3, None])
def test_the_logits_of_a_long_text_are_the_mean_of_its_windows(stride):
    shared = MAX_LEN // 4 if stride is None else stride
    cut = dict(truncation=True, max_length=MAX_LEN, stride=shared, padding=True)
    encoding = WORDS(LONG, **cut)
    assert len(encoding.input_ids) > 3
    expected = CASES["text-classification"][0](**encoding).logits.data.mean(0)
    (found,) = pipe_of("text-classification", stride=stride, function_to_apply="none")([LONG])
    assert {c["label"]: c["score"] for c in found} == pytest.approx(
        dict(zip(LABELS.values(), expected.tolist(), strict=True)), abs=1e-4
    )


def test_pairs_are_read_as_pairs_and_the_longer_text_is_cut():
    pipe = pipe_of("text-classification", function_to_apply="none")
    model = CASES["text-classification"][0]
    for first, second in (("Ann?", "Bob."), ("", "Bob."), ("Ann", LONG), (LONG, "Ann")):
        longer = "only_second" if len(second) > len(first) else "only_first"
        cut = dict(truncation=longer, max_length=MAX_LEN, stride=MAX_LEN // 4, padding=True)
        expected = model(**WORDS(first, second, **cut)).logits.data.mean(0)
        found = {c["label"]: c["score"] for c in pipe({"text": first, "text_pair": second})}
        assert list(map(found.get, LABELS.values())) == pytest.approx(list(expected), abs=1e-4)


# --- Token classification -----------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ["none", "simple", "first", "average", "max"])
@pytest.mark.parametrize("tokenizer", [WORDS, PADDED], ids=["wordpiece", "bpe"])
def test_start_and_end_are_where_the_word_stands_in_the_text(strategy, tokenizer):
    model = bert(BertForTokenClassification, tokenizer)
    pipe = pipeline("ner", model, tokenizer, aggregation_strategy=strategy, ignore_labels=[])
    for text in filter(None, TEXTS):
        found = pipe(text)
        assert [e["start"] for e in found] == sorted(e["start"] for e in found)
        assert found[-1]["end"] == len(text)
        if tokenizer is WORDS:
            for entity in found:
                written = text[entity["start"] : entity["end"]].lower().replace("é", "e")
                spelt = entity["word"].lower().removeprefix("##").replace(" ", "")
                assert spelt == written.replace(" ", "").replace("ï", "i")


def tagged(monkeypatch, rows):
    """The tokens ann, li, ##ves ... with these probabilities of O, PER, LOC (rows of three)."""
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "ann", "li", "##ves", "new", "york"]
    tokenizer = WordPieceTokenizer(names)
    scores = np.log(np.array([[1, 1, 1], *rows, [1, 1, 1]], float) + 1e-9)
    monkeypatch.setattr(tokens_file, "predict", lambda *_, **__: [scores])
    model = bert(BertForTokenClassification, tokenizer, n_labels=3)
    return model, tokenizer


ONE_WORD = [[1, 7, 2], [0, 2, 8], [2, 2, 6]]  # li ##ves york


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        ("simple", [("PER", "li", 0.7), ("LOC", "##ves york", 0.7)]),
        ("first", [("PER", "lives", 0.7), ("LOC", "york", 0.6)]),
        ("average", [("LOC", "lives york", 0.55)]),  # (0.2 + 0.8) / 2 and 0.6
        ("max", [("LOC", "lives york", 0.7)]),
    ],
)
def test_a_word_is_classified_by_its_strategy(monkeypatch, strategy, expected):
    model, tokenizer = tagged(monkeypatch, np.array(ONE_WORD) / 10)
    model.id2label = {0: "O", 1: "I-PER", 2: "I-LOC"}
    found = pipeline("ner", model, tokenizer, aggregation_strategy=strategy)("Lives York")
    assert [(e["entity_group"], e["word"]) for e in found] == [e[:2] for e in expected]
    assert [e["score"] for e in found] == pytest.approx([e[2] for e in expected], abs=1e-6)
    assert found[-1]["end"] == len("Lives York")


def test_a_b_begins_an_entity_and_what_is_ignored_parts_them(monkeypatch):
    rows = [[0, 1, 0], [0, 0, 1], [1, 0, 0], [0, 0, 1]]
    model, tokenizer = tagged(monkeypatch, rows)
    model.id2label = {0: "O", 1: "B-LOC", 2: "I-LOC"}
    pipe = pipeline("ner", model, tokenizer, aggregation_strategy="simple")
    found = pipe("new york ann york")
    assert [(e["word"], e["start"], e["end"]) for e in found] == [
        ("new york", 0, 8),
        ("york", 13, 17),
    ]
    model.id2label = {0: "O", 1: "B-LOC", 2: "B-LOC"}
    assert [e["word"] for e in pipe("new york ann york")] == ["new", "york", "york"]
    assert [e["entity"] for e in pipe("new york ann york", aggregation_strategy="none")] == [
        "B-LOC"
    ] * 3
    kept = pipe("new york ann york", ignore_labels=["LOC"])
    assert [e["word"] for e in kept] == ["ann"]


def test_unknown_words_are_spelt_as_in_the_text(monkeypatch):
    model, tokenizer = tagged(monkeypatch, [[0, 1, 0]] * 5)
    model.id2label = {0: "O", 1: "X", 2: "Y"}
    (found,) = pipeline("ner", model, tokenizer, aggregation_strategy="simple")("Zoë ann, 東!")
    assert found["word"] == "Zoë ann, 東!"
    assert found["score"] == pytest.approx(1)


def test_an_unknown_word_is_a_word(monkeypatch):
    model, tokenizer = tagged(monkeypatch, [[1, 8, 1], [1, 1, 8]])
    model.id2label = {0: "O", 1: "X", 2: "Y"}
    found = pipeline("ner", model, tokenizer, aggregation_strategy="first")("ann 東")
    assert [(e["entity_group"], e["word"]) for e in found] == [("X", "ann"), ("Y", "東")]


def test_every_token_of_a_long_text_is_classified_once():
    pipe = pipe_of("token-classification", ignore_labels=[])
    found = pipe(LONG)
    encoding = WORDS(LONG)
    np.testing.assert_array_equal(
        [(e["start"], e["end"]) for e in found], encoding.offset_mapping[0, 1:-1]
    )
    assert [e["index"] for e in found] == list(range(1, len(found) + 1))
    first = CASES["token-classification"][0](first_window(LONG)).logits.data[0]
    best = [LABELS[i] for i in first[1:15].argmax(1)]  # of which the first window sees most
    assert [e["entity"] for e in found[:14]] == best


def test_words_that_are_given_apart_are_encoded_one_by_one():
    pipe = pipe_of("token-classification", is_split_into_words=True, ignore_labels=[])
    words = ["Bob", "in", "New York", "", "東"]
    (found,) = pipe(words)
    text = " ".join(words)
    expected = pipe(text, is_split_into_words=False)
    assert_close(found, expected)
    assert_close(pipe([words, words]), [expected, expected])
    starts = [entity["start"] for entity in pipe([words], delimiter="--")[0]]
    assert next(start for start in starts if start >= len("Bob")) == len("Bob--")


def test_an_unknown_strategy_is_told_the_known_ones():
    with pytest.raises(ValueError, match="none, simple, first, average, max, got 'last'"):
        pipe_of("token-classification")("Ann", aggregation_strategy="last")


# --- Question answering -------------------------------------------------------------------------


def specification(question, context, longest):
    """By loops: the probability of each span of the context, and of [CLS]."""
    encoding = WORDS(question, context)
    output = CASES["question-answering"][0](**encoding)
    inside = (encoding.token_type_ids[0] == 1) & (encoding.special_tokens_mask[0] == 0)
    kept = np.flatnonzero(inside | (np.arange(len(inside)) == 0))
    start, end = (
        dict(zip(kept.tolist(), softmax(logits.data[0, kept].astype(float)), strict=True))
        for logits in (output.start_logits, output.end_logits)
    )
    spans = {
        (int(encoding.offset_mapping[0, i, 0]), int(encoding.offset_mapping[0, j, 1])):
            start[i] * end[j]
        for i in kept[1:] for j in kept[1:] if i <= j < i + longest
    }  # fmt: skip
    return spans, start[0] * end[0]


@pytest.mark.parametrize("longest", [1, 3, 15])
def test_the_answer_is_the_span_that_is_most_probable(longest):
    context = "Ann lives in Rome, café."
    spans, null = specification("who?", context, longest)
    pipe = pipe_of("question-answering", align_to_words=False, max_answer_len=longest)
    found = pipe(question="who?", context=context, top_k=3, handle_impossible_answer=True)
    expected = sorted([*spans.items(), ((0, 0), null)], key=lambda item: -item[1])[:3]
    for answer, ((start, end), score) in zip(found, expected, strict=True):
        assert (answer["start"], answer["end"]) == (start, end)
        assert answer["score"] == pytest.approx(score, abs=1e-6)
        assert answer["answer"] == context[start:end]


def test_spans_that_make_the_same_words_are_one_answer():
    spans, _ = specification("who?", "bob", 15)
    assert len(spans) > 3
    answer = pipe_of("question-answering", top_k=1)(question="who?", context="bob")
    assert answer["answer"] == "bob"
    assert answer["score"] == pytest.approx(sum(spans.values()), abs=1e-6)


@pytest.mark.parametrize(
    ("tokenizer", "words"),
    [
        (WORDS, ["Ann", "isn", "'", "t", "here", "!"]),
        (PADDED, ["Ann", "isn", "'t", "here", "!"]),
        (UnigramTokenizer.train([TEXT], 60, ["<pad>"]), ["Ann", "isn't", "here!"]),
        (CharTokenizer.train([TEXT + "!"], ["<pad>"]), ["Ann", "isn't", "here!"]),
    ],
    ids=["wordpiece", "bpe", "unigram", "char"],
)  # fmt: skip
def test_answers_are_whole_words(tokenizer, words):
    model, text = bert(BertForQuestionAnswering, tokenizer, max_len=60), "Ann isn't here!"
    pipe = pipeline("question-answering", model, tokenizer, max_answer_len=1, top_k=50)
    found = pipe(question="", context=text)
    assert {answer["answer"].strip() for answer in found} == set(words)


def test_there_is_no_answer_as_far_as_the_window_says_that_is_surest_of_one(monkeypatch):
    nulls = iter([5.0, -3.0, 2.0])

    def predicted(model, features, *_, **__):
        scores = [np.zeros((len(row.places), 2)) for row in features.rows]
        for row in scores:
            row[0] = next(nulls)
        return scores

    monkeypatch.setattr(pipelines.questions, "predict", predicted)
    pipe = pipe_of("question-answering", handle_impossible_answer=True, top_k=10**6)
    cutter = new_cutter(pipe.model, WORDS)
    n = len(cutter.read("ann " * 30)[0])
    found = pipe(question="", context="ann " * 30, doc_stride=0)
    assert n == 30  # in windows of 21 and 9
    (none,) = [answer for answer in found if answer["answer"] == ""]
    assert none["score"] == pytest.approx((np.exp(-3) / (np.exp(-3) + 9)) ** 2)


def test_an_answer_is_found_wherever_in_a_long_context_it_stands():
    pipe = pipe_of("question-answering", top_k=1)
    answer = pipe(question="who?", context=LONG)
    assert LONG[answer["start"] : answer["end"]] == answer["answer"] != ""
    assert 0 < answer["score"] <= 1


def test_windows_of_a_context_cover_it(monkeypatch):
    """A model to which one token is the start and end of everything finds it anywhere."""
    pipe = pipe_of("question-answering", top_k=1)
    target = WORDS.encode("bob")[0]

    def found(model, features, *_, **__):
        rows = [row.inputs["input_ids"] for row in features.rows]
        return [np.stack([20.0 * (ids == target)] * 2, -1) for ids in rows]

    monkeypatch.setattr(pipelines.questions, "predict", found)
    for n in range(0, 60, 7):
        context = "rome " * n + "bob" + " rome" * (60 - n)
        answer = pipe(question="who?", context=context)
        assert context[answer["start"] : answer["end"]].startswith("bob")
        assert answer["start"] == 5 * n


def test_empty_texts_have_answers_too():
    pipe = pipe_of("question-answering", top_k=1)
    nothing = {"score": 0.0, "start": 0, "end": 0, "answer": ""}
    assert pipe(question="who?", context="") == nothing
    none = pipe(question="who?", context="", handle_impossible_answer=True)
    assert none == {**nothing, "score": pytest.approx(1)}
    assert pipe(question="", context="Ann")["answer"] == "Ann"


def test_questions_and_contexts_come_in_lists_and_one_context_serves_many():
    pipe = pipe_of("question-answering")
    one, two = "Ann in Rome", "Bob in York"
    expected = [pipe(question=q, context=one) for q in ("who?", "where?")]
    assert_close(pipe(question=["who?", "where?"], context=one), expected)
    expected[1] = pipe(question="where?", context=two)
    assert_close(pipe(question=["who?", "where?"], context=[one, two]), expected)
    with pytest.raises(ValueError, match="a context for each question, got 1 and 2"):
        pipe(question=["who?"], context=[one, two])
    with pytest.raises(TypeError, match="expected question and context"):
        pipe(question="who?")
    with pytest.raises(ValueError, match="top_k, max_answer_len and max_question_len >= 1"):
        pipe(question="who?", context=one, top_k=0)


# --- Masks --------------------------------------------------------------------------------------


def test_a_masks_tokens_have_the_models_probabilities():
    model = CASES["fill-mask"][0]
    pipe = pipe_of("fill-mask", top_k=WORDS.vocab_size)
    found = pipe("Ann lives in [MASK].")
    ids = WORDS("Ann lives in [MASK].", allowed_special="all").input_ids
    (place,) = np.flatnonzero(ids[0] == WORDS.mask_token_id)
    expected = softmax(model(ids).logits.data[0, place].astype(float))
    assert sum(token["score"] for token in found) == pytest.approx(1, abs=1e-5)
    assert [token["token"] for token in found] == np.argsort(-expected).tolist()
    best = found[0]
    assert best["score"] == pytest.approx(expected.max(), abs=1e-5)
    ids[0, place] = best["token"]
    assert best["sequence"] == WORDS.decode(ids[0], skip_special_tokens=True)
    assert best["token_str"] == WORDS.decode([best["token"]])


def test_several_masks_have_a_list_each_and_stay_where_they_are():
    found = pipe_of("fill-mask")("[MASK] lives in [MASK].")
    assert len(found) == 2 and all(len(tokens) == 3 for tokens in found)
    assert found[0][0]["sequence"].count("[MASK]") == 1


def test_targets_are_chosen_from_and_what_is_no_token_is_replaced(caplog):
    pipe = pipe_of("fill-mask", targets=["rome", "york"], top_k=5)
    every = {t["token"]: t["score"] for t in pipe("[MASK]", targets=None, top_k=10**6)}
    found = pipe("[MASK]")
    names = [WORDS.ids.get("rome", WORDS.encode("rome")[0]), WORDS.encode("york")[0]]
    assert {t["token"] for t in found} == set(names)
    assert all(t["score"] == pytest.approx(every[t["token"]]) for t in found)
    caplog.clear()
    list(pipe(iter(["[MASK]"] * 3), targets="annrome"))
    (record,) = caplog.records
    assert "'annrome' is not a token" in record.getMessage()
    with pytest.raises(ValueError, match="expected targets that have tokens"):
        pipe("[MASK]", targets=[""])


def test_a_text_without_a_mask_is_an_error_and_so_is_a_tokenizer_without_one():
    for text in ("Ann lives here", ""):
        with pytest.raises(ValueError, match=r"expected \[MASK\] in the text, got '"):
            pipe_of("fill-mask")(["[MASK]", text])
    model = bert(BertForMaskedLM, BYTES)
    with pytest.raises(ValueError, match="expected a tokenizer with a mask_token"):
        pipeline("fill-mask", model, BYTES)("x")


def test_a_mask_far_into_a_text_is_filled():
    text = "ann " * 50 + "[MASK]" + " bob" * 50
    found = pipe_of("fill-mask")(text)
    assert found[0]["sequence"].startswith("ann ann") and found[0]["sequence"].endswith("bob bob")
    assert len(WORDS.encode(found[0]["sequence"])) >= 101
    near = pipe_of("fill-mask")("ann " * 20 + "[MASK]", top_k=1)
    assert near[0]["token"] in range(WORDS.vocab_size)


# --- Text generation ----------------------------------------------------------------------------


def test_the_prompt_goes_on_as_generate_goes_on():
    model, pipe = CASES["text-generation"][0], pipe_of("text-generation")
    ids = np.array([BYTES.encode("Ann lives")])
    end = BYTES.eos_token_id
    for how in ({}, {"num_beams": 3, "num_return_sequences": 2}, {"no_repeat_ngram_size": 1}):
        rows = generate(model, ids, 6, eos_token_id=end, **how)
        found = pipe("Ann lives", **how)
        texts = [BYTES.decode(row, skip_special_tokens=True) for row in rows]
        assert [answer["generated_text"] for answer in found] == texts
    (found,) = pipe("Ann lives", return_tensors=True)
    assert found == {"generated_token_ids": generate(model, ids, 6, eos_token_id=end)[0].tolist()}
    (found,) = pipe("Ann lives", return_full_text=False)
    assert "Ann lives" + found["generated_text"] == pipe("Ann lives")[0]["generated_text"]
    (prefixed,) = pipe("lives", prefix="Ann ")
    assert prefixed["generated_text"] == pipe("Ann lives")[0]["generated_text"][4:]


def test_a_length_counts_the_prompt_or_what_is_new_and_the_nearest_word_counts():
    n = len(BYTES.encode("Ann"))
    model, tokenizer = gpt(), BYTES

    def count(pipe, **how):
        (found,) = pipe("Ann", return_tensors=True, eos_token_id=None, **how)
        return len(found["generated_token_ids"]) - n

    pipe = pipeline("text-generation", model, tokenizer, max_new_tokens=5)
    assert count(pipe) == 5
    assert count(pipe, max_length=n + 2) == 2
    assert count(pipe, max_length=n + 2, max_new_tokens=3) == 3
    model.generation_config = {"max_length": n + 4}
    pipe = pipeline("text-generation", model, tokenizer)
    assert count(pipe) == 4
    assert count(pipe, max_new_tokens=7) == 7
    assert count(pipe, max_new_tokens=None) == 4
    with pytest.raises(ValueError, match="expected max_length > .*, the length that the text has"):
        pipe("Ann", max_length=n)


def test_nothing_stands_behind_the_stop_token():
    """Where prompts of one length are decoded together, some end before others."""
    model, prompts = gpt(), [[i, 40 + i] for i in range(40)]
    texts = [BYTES.decode(prompt) for prompt in prompts]
    texts = [text for text in texts if len(BYTES.encode(text)) == 2]
    first = generate(model, np.array([BYTES.encode(texts[0])]), 1)[0, -1]
    pipe = pipeline("text-generation", model, BYTES, eos_token_id=int(first), **NEW)
    together = pipe(texts, batch_size=99, return_tensors=True)
    assert together == [pipe(text, return_tensors=True) for text in texts]
    lengths = {len(answer[0]["generated_token_ids"]) for answer in together}
    assert min(lengths) == 3 and max(lengths) == 8


def test_what_the_directory_says_of_decoding_counts_unless_the_call_says_otherwise(caplog):
    model = gpt()
    best = int(model(np.array([BYTES.encode("Ann")])).logits.data[0, -1].argmax())
    model.generation_config = {
        **{"num_beams": 3, "length_penalty": 2.0, "eos_token_id": best, "max_new_tokens": 4},
        **{"transformers_version": "5", "min_p": 0.1, "top_p": None},
    }
    with caplog.at_level(logging.WARNING):
        pipe = pipeline("text-generation", model, BYTES, return_tensors=True)
    assert "minilm decodes without min_p" in caplog.text
    ids = np.array([BYTES.encode("Ann")])
    beams = generate(model, ids, 4, num_beams=3, length_penalty=2.0, eos_token_id=best)
    (found,) = pipe("Ann")
    assert found["generated_token_ids"] == list(beams[0][: len(found["generated_token_ids"])])
    (found,) = pipe("Ann", num_beams=1)  # a length_penalty is of beams alone
    assert found["generated_token_ids"] == [*ids[0].tolist(), best]
    model.generation_config = {"do_sample": True}
    pipe = pipeline("text-generation", model, BYTES, max_new_tokens=2)
    with pytest.raises(ValueError, match="expected seed= or rng= to draw tokens, got neither"):
        pipe("Ann")
    assert pipe("Ann", do_sample=False) and pipe("Ann", seed=0)


def test_the_same_seed_gives_the_same_text_and_needs_no_more_to_draw():
    pipe = pipe_of("text-generation", max_new_tokens=12)
    assert pipe("Ann", seed=1) == pipe("Ann", seed=1, do_sample=True)
    assert pipe("Ann", seed=1) == pipe("Ann", rng=np.random.default_rng(1))
    assert pipe("Ann", seed=1) != pipe("Ann", seed=2)
    assert pipe("Ann", seed=1, do_sample=False) == pipe("Ann")
    several = pipe("Ann", seed=1, num_return_sequences=4)
    assert len({answer["generated_text"] for answer in several}) > 1
    streamed = list(pipe(iter(["Ann"] * 4), seed=1))
    assert len({answer[0]["generated_text"] for answer in streamed}) > 1
    with pytest.raises(ValueError, match="expected seed or rng, got both"):
        pipe("Ann", seed=1, rng=np.random.default_rng(1))


def test_what_only_drawing_uses_is_an_error_unless_the_directory_says_it():
    pipe = pipe_of("text-generation")
    with pytest.raises(ValueError, match="do_sample=True for temperature=0.5"):
        pipe("Ann", temperature=0.5)
    assert pipe("Ann", temperature=0.5, seed=0)
    model = gpt()
    model.generation_config = {"temperature": 0.5, "top_k": 50, "early_stopping": True}
    assert pipeline("text-generation", model, BYTES, **NEW)("Ann") == pipe("Ann")


def test_of_a_prompt_too_long_its_last_tokens_are_read_and_that_is_said(caplog):
    pipe = pipe_of("text-generation", return_full_text=False)
    ids = BYTES.encode(LONG)
    (found,) = pipe(LONG)
    expected = generate(gpt(), np.array([ids[-MAX_LEN:]]), 6, eos_token_id=BYTES.eos_token_id)
    assert found["generated_text"] == BYTES.decode(expected[0, MAX_LEN:], skip_special_tokens=True)
    assert f"of these the model reads the last {MAX_LEN}" in caplog.text
    assert pipe(LONG, return_full_text=True)[0]["generated_text"].startswith(LONG)


def test_an_empty_prompt_begins_with_the_token_that_texts_begin_with():
    model, pipe = CASES["text-generation"][0], pipe_of("text-generation")
    end = BYTES.special_tokens["<|endoftext|>"]
    expected = generate(model, np.array([[end]]), 6, eos_token_id=end)[0, 1:]
    assert pipe("") == [{"generated_text": BYTES.decode(expected, skip_special_tokens=True)}]
    characters = CharTokenizer.train(TEXT)
    with pytest.raises(ValueError, match="expected a prompt, got an empty one"):
        pipeline("text-generation", gpt(characters), characters)("")


def test_the_space_before_the_first_new_word_is_kept():
    """Decoders of ▁ strip the space that begins a text."""
    tokenizer = UnigramTokenizer.train(["a b a b"], 10)
    model = gpt(tokenizer)
    space = next(i for i, token in enumerate(tokenizer.tokens) if token.startswith("▁"))
    special = tokenizer.special_tokens.values()
    banned = [[i] for i in range(tokenizer.vocab_size) if i != space and i not in special]
    (found,) = pipeline("text-generation", model, tokenizer, max_new_tokens=1)(
        "a", bad_words_ids=banned
    )
    assert found["generated_text"].startswith("a ")


# --- Text to text -------------------------------------------------------------------------------


def test_a_source_is_answered_as_generate_answers():
    model, pipe = CASES["text2text-generation"][0], pipe_of("text2text-generation", num_beams=1)
    end = model.config.eos_token_id
    rows = generate(model, np.array([[*PIECES.encode("Ann"), end]]), 6)
    (found,) = pipe("Ann")
    assert found["generated_text"] == PIECES.decode(rows[0], skip_special_tokens=True)
    (tokens,) = pipe("Ann", return_tensors=True)
    assert tokens["generated_token_ids"] == rows[0][: len(tokens["generated_token_ids"])].tolist()
    assert len(tokens["generated_token_ids"]) >= 2
    assert pipe("") == pipe([""])


def test_a_list_is_answered_by_one_list_unless_there_are_several_sequences():
    pipe = pipe_of("summarization")
    assert [set(answer) for answer in pipe(["Ann", "Bob"])] == [{"summary_text"}] * 2
    assert [len(answer) for answer in pipe(["Ann", "Bob"], num_return_sequences=2)] == [2, 2]
    assert set(pipe_of("translation")("Ann")[0]) == {"translation_text"}


def test_a_task_has_the_prefix_and_the_settings_that_the_directory_has_for_it():
    model = t5()
    model.hf_config = {
        "prefix": "Bob ",
        "task_specific_params": {
            "summarization": {"prefix": "Ann: ", "max_length": 4, "num_beams": 2},
            "translation_en_to_it": {"prefix": "Rome ", "max_length": 3, "early_stopping": True},
        },
    }
    bare = pipeline("text2text-generation", t5(), PIECES, eos_token_id=None, return_tensors=True)

    def tokens(task, text, **how):
        (answer,) = pipeline(task, model, PIECES, return_tensors=True, eos_token_id=None)(
            text, **how
        )
        return next(iter(answer.values()))

    def expected(text, **how):
        return bare(text, **how)[0]["generated_token_ids"]

    assert tokens("summarization", "x") == expected("Ann: x", max_new_tokens=3, num_beams=2)
    assert tokens("translation_en_to_it", "x") == expected("Rome x", max_length=3)
    assert tokens("translation_en_to_it", "x", num_beams=1) == expected(
        "Rome x", max_length=3, num_beams=1
    )
    assert tokens("translation", "x", max_length=3) == expected("Bob x", max_length=3)


def test_a_source_too_long_is_an_error_unless_it_may_be_cut():
    pipe = pipeline("summarization", t5(max_len=10), PIECES, max_new_tokens=3)
    with pytest.raises(ValueError, match="fewer than max_len = 10 tokens, got .*truncation=True"):
        pipe(LONG)
    short = PIECES.decode(PIECES.encode(LONG)[:9])
    assert pipe(LONG, truncation=True) == pipe(short)
    assert pipe("Ann", truncation=True) == pipe("Ann")


# --- From the shell -----------------------------------------------------------------------------


@pytest.fixture
def directory(tmp_path):
    bert(BertForTokenClassification).save_pretrained(tmp_path)
    save_tokenizer(WORDS, tmp_path)
    return tmp_path


def run(*arguments, **how):
    command = [sys.executable, "-m", "minilm", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, encoding="utf-8", **how)


def test_the_shell_prints_the_answers_to_its_arguments(directory, capsys):
    main(["ner", str(directory), "Ann in Rome", "café", "--json", "--aggregation-strategy", "max"])
    lines = capsys.readouterr().out.splitlines()
    expected = pipeline("ner", directory, aggregation_strategy="max")(["Ann in Rome", "café"])
    assert_close([json.loads(line) for line in lines], expected)
    main(["ner", str(directory), "--aggregation-strategy", "max", "Ann in Rome"])
    shown = capsys.readouterr().out
    first = expected[0][0]
    assert shown.splitlines()[0].split("\t") == [
        first["entity_group"], f"{first['score']:.4f}", first["word"],
        str(first["start"]), str(first["end"]),
    ]  # fmt: skip


def test_the_shell_reads_lines_and_tells_an_error_in_one(directory):
    found = run("ner", directory, "--json", input="Ann\n東京 é\n")
    assert found.returncode == 0 and found.stderr == ""
    expected = pipeline("ner", directory)(["Ann", "東京 é"])
    assert_close([json.loads(line) for line in found.stdout.splitlines()], expected)
    for wrong, message in (
        (("fill-mask", directory, "x"), "fill-mask needs masked_lm"),
        (("nothing", directory, "x"), "expected a task of"),
        (("ner", directory, "x", "--seed", "1"), "got seed"),
    ):
        failed = run(*wrong)
        assert failed.returncode == 1 and failed.stdout == ""
        assert failed.stderr.startswith("error: ") and failed.stderr.count("\n") == 1
        assert message in failed.stderr


def test_the_shell_asks_questions_and_compares_sentences(tmp_path, capsys):
    bert(BertForQuestionAnswering).save_pretrained(tmp_path / "questions")
    bert(Bert).save_pretrained(tmp_path / "vectors")
    for name in ("questions", "vectors"):
        save_tokenizer(WORDS, tmp_path / name)
    asked = ["question-answering", str(tmp_path / "questions"), "Ann in Rome", "--json"]
    main([*asked, "--question", "who?"])
    (line,) = capsys.readouterr().out.splitlines()
    expected = pipeline("question-answering", tmp_path / "questions")(
        question="who?", context="Ann in Rome"
    )
    assert_close(json.loads(line), expected)
    main(["sentence-similarity", str(tmp_path / "vectors"), "Ann", "--sentences", "Ann", "Bob"])
    same, other = capsys.readouterr().out.splitlines()
    assert same == "1.0000" and float(other) < 1
