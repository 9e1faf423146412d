"""Pipelines answer as those of transformers do, out of directories that transformers wrote.

Its version 5 has neither question-answering nor the text-to-text pipelines: these are compared with
what its models and tokenizers give, put together by loops as its version 4 did.
"""

import json
import warnings

import numpy as np
import pytest

from minilm.pipelines import pipeline

torch = pytest.importorskip("torch", reason="needs the extra: pip install minilm[parity]")
transformers = pytest.importorskip(
    "transformers", reason="needs the extra: pip install minilm[parity]"
)
from tokenizers import (  # noqa: E402
    ByteLevelBPETokenizer,
    Tokenizer,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)

TOLERANCE = 1e-4  # of probabilities from float32 logits; other numbers relative to the largest
MAX_LEN = 40
CORPUS = [
    "Once upon a time there was a small model in Berlin.",
    "John Smith lives in New York, and works for Acme Corp!",
    "The café in Zürich isn't open; 東京 is far. Привет мир!",
    "naïve questions don't need an answer, do they?",
] * 3
TEXTS = [
    *("Once upon a time there was John Smith.", "He lives in New York, and in Zürich!", ""),
    *(
        "naïve café 東京 ☃ don't",
        "Привет мир?",
        "한국어 e\u0301 ﬁ",
        "a\tb\n c  d",
        "!?.,;",
        "🙂🏽 x",
    ),
    "[SEP] odd </s> words",
]
LABELS = dict(enumerate(["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]))
BERT = {"hidden_size": 24, "num_attention_heads": 3, "num_hidden_layers": 2,
        "intermediate_size": 32, "max_position_embeddings": MAX_LEN}  # fmt: skip
DISTIL = {"dim": 24, "n_heads": 3, "n_layers": 2, "hidden_dim": 32,
          "max_position_embeddings": MAX_LEN}  # fmt: skip
ROBERTA = {**BERT, "max_position_embeddings": MAX_LEN + 2, "type_vocab_size": 1,
           "bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2}  # fmt: skip
GPT2 = {"n_embd": 24, "n_head": 3, "n_layer": 2, "n_positions": 64, "bos_token_id": 0,
        "eos_token_id": 0}  # fmt: skip
LLAMA = {"hidden_size": 24, "num_attention_heads": 3, "num_hidden_layers": 2,
         "intermediate_size": 32, "max_position_embeddings": 64}  # fmt: skip
SUMMARY = {"prefix": "summarize: ", "num_beams": 3, "length_penalty": 2.0, "max_length": 12,
           "min_length": 4, "no_repeat_ngram_size": 3, "early_stopping": True}  # fmt: skip
GERMAN = {"prefix": "translate English to German: ", "num_beams": 2, "max_length": 9}
T5 = {"d_model": 24, "num_heads": 3, "num_layers": 2, "d_kv": 8, "d_ff": 32,
      "decoder_start_token_id": 0, "task_specific_params": {"summarization": SUMMARY,
      "translation_en_to_de": GERMAN}}  # fmt: skip
FAMILIES = {"Bert": BERT, "DistilBert": DISTIL, "Roberta": ROBERTA}
every_family = pytest.mark.parametrize("family", FAMILIES)


pytestmark = pytest.mark.usefixtures("quietly")


# --- Directories ----------------------------------------------------------------------------------


def word_pieces(name):
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    how = dict(vocab_size=150, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainers.WordPieceTrainer(**how))
    kind = getattr(transformers, f"{name}TokenizerFast")
    return kind(vocab=tokenizer.get_vocab(), model_max_length=MAX_LEN)


def byte_pairs(name, directory, special):
    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(CORPUS, 340, special_tokens=special, show_progress=False)
    tokenizer.save_model(str(directory))
    files = {"vocab": str(directory / "vocab.json"), "merges": str(directory / "merges.txt")}
    limit = {"model_max_length": MAX_LEN} if name == "Roberta" else {}
    return getattr(transformers, f"{name}TokenizerFast")(**files, **limit)


def marked_pairs():
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256))]
    how = dict(vocab_size=420, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainers.BpeTrainer(**how))
    model = json.loads(tokenizer.to_str())["model"]
    merges = [tuple(pair) for pair in model["merges"]]
    return transformers.LlamaTokenizerFast(vocab=model["vocab"], merges=merges)


def unigrams():
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<pad>", "</s>", "<unk>"]
    how = dict(vocab_size=140, special_tokens=special, unk_token="<unk>", show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainers.UnigramTrainer(**how))
    vocab = json.loads(tokenizer.to_str())["model"]["vocab"]
    return transformers.T5TokenizerFast(vocab=[tuple(entry) for entry in vocab], extra_ids=4)


def save(directory, model_name, tokenizer, noise, **sizes):
    """Their model, every parameter away from where it begins, and its tokenizer."""
    kind = getattr(transformers, model_name)
    torch.manual_seed(0)
    model = kind(kind.config_class(vocab_size=len(tokenizer), **sizes)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += noise * torch.randn_like(parameter)
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)


@pytest.fixture(scope="module")
def directory_of(tmp_path_factory):
    """The name of a model class -> its directory, made once."""
    made = {}

    def make(name):
        if name in made:
            return made[name]
        directory = made[name] = tmp_path_factory.mktemp(name)
        if name == "GPT2LMHeadModel":
            tokenizer = byte_pairs("GPT2", directory, ["<|endoftext|>"])
            save(directory, name, tokenizer, 0.1, **GPT2)
        elif name == "LlamaForCausalLM":
            save(directory, name, marked_pairs(), 0.1, **LLAMA)
        elif name == "T5ForConditionalGeneration":
            save(directory, name, unigrams(), 0.3, **T5)
        else:
            family = name.split("For")[0]
            if family == "Roberta":
                special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
                tokenizer = byte_pairs(family, directory, special)
            else:
                tokenizer = word_pieces(family)
            labelled = {"id2label": LABELS, "label2id": {v: k for k, v in LABELS.items()}}
            labels = labelled if "Classification" in name else {}
            save(directory, name, tokenizer, 0.3, **FAMILIES[family], **labels)
        return directory

    return make


# --- Comparison -----------------------------------------------------------------------------------


def assert_same(ours, theirs, limit=TOLERANCE):
    """The same words, places and texts, and numbers up to the tolerance."""
    assert isinstance(ours, (list, dict)) == isinstance(theirs, (list, dict))
    if isinstance(theirs, dict):
        assert ours.keys() == theirs.keys()
        for key in theirs:
            # Theirs decodes a word's bytes twice, where there is a word to put together.
            if key != "word" or "\ufffd" not in theirs[key]:
                assert_same(ours[key], theirs[key], limit)
    elif isinstance(theirs, list):
        assert len(ours) == len(theirs)
        for left, right in zip(ours, theirs, strict=True):
            assert_same(left, right, limit)
    elif isinstance(theirs, str | int):
        assert ours == theirs
    else:
        assert abs(float(ours) - float(theirs)) < limit


def both(task, directory, inputs, made=None, **arguments):
    """The answers to each input of our pipeline and theirs."""
    ours = pipeline(task, directory, **(made or {}))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = transformers.pipeline(task, model=str(directory), **(made or {}))
        right = [theirs(given, **arguments) for given in inputs]
    return [ours(given, **arguments) for given in inputs], right


@every_family
@pytest.mark.parametrize(
    "arguments",
    [{}, {"top_k": None}, {"top_k": 2}, {"top_k": 3, "function_to_apply": "sigmoid"},
     {"top_k": None, "function_to_apply": "none"}],
)  # fmt: skip
def test_texts_have_the_same_classes(directory_of, family, arguments):
    pair = {"text": "a café", "text_pair": "New York"}
    inputs = [*TEXTS, TEXTS, pair, [pair, pair]]
    directory = directory_of(f"{family}ForSequenceClassification")
    assert_same(*both("sentiment-analysis", directory, inputs, **arguments))
    assert_same(*both("text-classification", directory, inputs[:2], arguments))


@every_family
@pytest.mark.parametrize("strategy", ["none", "simple", "first", "average", "max"])
def test_tokens_have_the_same_classes_and_make_the_same_names(directory_of, family, strategy):
    directory = directory_of(f"{family}ForTokenClassification")
    how = {"aggregation_strategy": strategy}
    assert_same(*both("ner", directory, [*TEXTS, TEXTS], **how))
    assert_same(*both("ner", directory, TEXTS, how, ignore_labels=["PER", "I-PER"]))


@pytest.mark.parametrize("strategy", ["none", "simple", "first"])
def test_words_that_are_given_apart_have_the_same_classes(directory_of, strategy):
    words = ["John", "lives", "in New", "", "Zürich", "東京!"]
    how = {"aggregation_strategy": strategy, "is_split_into_words": True}
    directory = directory_of("BertForTokenClassification")
    assert_same(*both("ner", directory, [words, [words, words[:2]]], **how))


@every_family
@pytest.mark.parametrize("arguments", [{}, {"top_k": 3}, {"top_k": 2, "targets": ["on", "is"]}])
def test_masks_are_filled_alike(directory_of, family, arguments):
    mask = "<mask>" if family == "Roberta" else "[MASK]"
    texts = [f"{text} {mask}" for text in TEXTS] + [mask + text for text in TEXTS]
    several = [f"a {mask} b {mask}, {mask}"]
    directory = directory_of(f"{family}ForMaskedLM")
    assert_same(*both("fill-mask", directory, [*texts, *several, texts], **arguments))


@pytest.mark.parametrize(
    "name",
    ["BertForMaskedLM", "DistilBertForMaskedLM", "RobertaForMaskedLM", "GPT2LMHeadModel",
     "LlamaForCausalLM"],
)  # fmt: skip
def test_features_are_the_same(directory_of, name):
    texts = [text for text in TEXTS if text or name.endswith("MaskedLM")]
    ours, theirs = both("feature-extraction", directory_of(name), [*texts, texts])
    largest = max(np.abs(np.array(states)).max() for states in theirs[:-1])
    assert_same(ours, theirs, TOLERANCE * max(1, largest))


# --- What is written ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        {"max_new_tokens": 12},
        {"max_length": 40},
        {"max_new_tokens": 9, "return_full_text": False},
        {"max_new_tokens": 8, "num_beams": 3},
        {"max_length": 36, "num_beams": 4, "num_return_sequences": 3, "early_stopping": True},
        {"max_new_tokens": 9, "no_repeat_ngram_size": 2, "repetition_penalty": 1.3},
        {"max_new_tokens": 6, "min_new_tokens": 4, "num_beams": 2, "length_penalty": 0.5},
    ],
    ids=str,
)
@pytest.mark.parametrize("name", ["GPT2LMHeadModel", "LlamaForCausalLM"])
def test_prompts_go_on_alike(directory_of, name, arguments):
    how = {"do_sample": False, **arguments}
    ours, theirs = both("text-generation", directory_of(name), [*TEXTS, TEXTS], **how)
    if name == "LlamaForCausalLM":  # theirs loses the space before the first new word
        ours, theirs = (json.loads(json.dumps(x, ensure_ascii=False)) for x in (ours, theirs))
        ours, theirs = (_without_spaces(x) for x in (ours, theirs))
    assert_same(ours, theirs)
    assert len({str(answer) for answer in ours}) > len(TEXTS) // 2


def _without_spaces(answer):
    if isinstance(answer, dict):
        return {key: text.replace(" ", "") for key, text in answer.items()}
    return [_without_spaces(part) for part in answer]


def test_tokens_are_the_same_with_their_special_ones(directory_of):
    how = {"do_sample": False, "max_new_tokens": 7, "return_tensors": True}
    directory = directory_of("LlamaForCausalLM")
    ours, theirs = both("text-generation", directory, [t for t in TEXTS if t], **how)
    assert_same(ours, theirs)


@pytest.mark.parametrize(
    ("task", "name", "prefix", "own"),
    [
        ("text2text-generation", "generated_text", "", {"num_beams": 4, "max_new_tokens": 256}),
        ("summarization", "summary_text", SUMMARY["prefix"], SUMMARY),
        ("translation_en_to_de", "translation_text", GERMAN["prefix"], GERMAN),
    ],
)
@pytest.mark.parametrize(
    "arguments",
    [{}, {"num_beams": 1, "max_new_tokens": 9}, {"num_return_sequences": 2, "max_new_tokens": 8}],
    ids=str,
)
def test_sources_are_answered_as_their_model_and_tokenizer_answer(
    directory_of, task, name, prefix, own, arguments
):
    directory = directory_of("T5ForConditionalGeneration")
    if not arguments and task == "text2text-generation":
        arguments = {"max_new_tokens": 20}
    model = transformers.T5ForConditionalGeneration.from_pretrained(directory).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    how = {key: value for key, value in own.items() if key != "prefix"} | arguments
    if "max_new_tokens" in arguments:
        how.pop("max_length", None)
    if how["num_beams"] == 1:
        how = {k: v for k, v in how.items() if k not in ("length_penalty", "early_stopping")}
    expected = []
    for text in TEXTS:
        ids = model.generate(**tokenizer(prefix + text, return_tensors="pt"), **how)
        expected.append([{name: tokenizer.decode(row, skip_special_tokens=True)} for row in ids])
    pipe = pipeline(task, directory)
    assert [pipe(text, **arguments) for text in TEXTS] == expected
    flat = "num_return_sequences" not in arguments
    listed = [answer[0] for answer in expected] if flat else expected
    assert pipe(TEXTS, batch_size=3, **arguments) == listed
    assert len({str(answer) for answer in expected}) > len(TEXTS) // 2


# --- Questions ------------------------------------------------------------------------------------


def softmax(x):
    weights = np.exp(x - x.max())
    return weights / weights.sum()


def answer_by_loops(model, tokenizer, question, context, top_k, longest, stride, align):
    """As transformers 4 answered: the spans of a window that are the same words are added up."""
    encoding = tokenizer(
        question, context, truncation="only_second", max_length=MAX_LEN, stride=stride,
        return_overflowing_tokens=True, return_offsets_mapping=True, padding=True,
    )  # fmt: skip
    names = [name for name in tokenizer.model_input_names if name in encoding]
    found, null = {}, 1.0
    for window in range(len(encoding["input_ids"])):
        row = {n: torch.tensor([encoding[n][window]]) for n in names}
        with torch.no_grad():
            output = model(**row)
        tokens = [i for i, n in enumerate(encoding.sequence_ids(window)) if n == 1]
        kept = [0, *tokens]  # [CLS] too
        start, end = (
            dict(zip(kept, softmax(scores[0].double().numpy()[kept]), strict=True))
            for scores in (output.start_logits, output.end_logits)
        )
        null = min(null, start[0] * end[0])
        spans = [(start[i] * end[j], i, j) for i in tokens for j in tokens if i <= j < i + longest]
        own = {}
        for score, i, j in sorted(spans, reverse=True)[: 2 * top_k + 10 if align else top_k]:
            places = encoding.encodings[window].offsets
            a, b = places[i][0], places[j][1]
            if align:
                words = encoding.word_ids(window)
                same = [[k for k in tokens if words[k] == words[n]] for n in (i, j)]
                a, b = places[same[0][0]][0], places[same[1][-1]][1]
            key = context[a:b].lower()
            answer = own.setdefault(
                key, {"score": 0.0, "start": a, "end": b, "answer": context[a:b]}
            )
            answer["score"] += score
        for key, answer in own.items():
            if key not in found or answer["score"] > found[key]["score"]:
                found[key] = answer
    ranked = [*found.values(), {"score": null, "start": 0, "end": 0, "answer": ""}]
    return sorted(ranked, key=lambda answer: -answer["score"])[:top_k]


@every_family
@pytest.mark.parametrize("align", [True, False])
def test_questions_have_the_answers_that_loops_find(directory_of, family, align):
    directory = directory_of(f"{family}ForQuestionAnswering")
    kind = getattr(transformers, f"{family}ForQuestionAnswering")
    model = kind.from_pretrained(directory).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    pipe = pipeline("question-answering", directory, align_to_words=align)
    contexts = [*filter(None, TEXTS), " ".join(TEXTS), " ".join(CORPUS)]
    how = {"top_k": 4, "longest": 6, "stride": 8, "align": align}
    for question in ("Where does he live?", "wer?", ""):
        asked = [{"question": question, "context": context} for context in contexts]
        left = pipe(
            asked, top_k=4, max_answer_len=6, doc_stride=8, handle_impossible_answer=True,
            batch_size=4,
        )  # fmt: skip
        for context, answers in zip(contexts, left, strict=True):
            assert_same(answers, answer_by_loops(model, tokenizer, question, context, **how))


# --- Sentences ------------------------------------------------------------------------------------


def test_sentences_are_as_alike_as_the_means_of_their_hidden_states(directory_of):
    directory = directory_of("BertForMaskedLM")
    model = transformers.BertModel.from_pretrained(directory, add_pooling_layer=False).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    vectors = []
    for text in TEXTS:
        with torch.no_grad():
            states = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
        vectors.append(torch.nn.functional.normalize(states.mean(0), dim=0))
    expected = [float(vectors[0] @ vector) for vector in vectors[1:]]
    found = pipeline("sentence-similarity", directory)(TEXTS[0], sentences=TEXTS[1:])
    assert_same(found, expected)
