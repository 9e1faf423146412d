"""Directories that transformers and tokenizers wrote, opened here, and ours opened there."""

import importlib
import json
import random
import warnings

import pytest
from parity.texts import CHINESE, ENGLISH, corpus, generated
from pretrained.test_spiece import PIECES, spiece

from minilm.pretrained.tokenizers import save_tokenizer, tokenizer_from_pretrained
from minilm.tokenizers import (
    BPETokenizer,
    CharTokenizer,
    UnigramTokenizer,
    WordPieceTokenizer,
    load_tokenizer,
)

pytest.importorskip("tokenizers.models", reason="needs the extra: pip install minilm[parity]")
hf = importlib.import_module("tokenizers")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what others warn of while they are imported
    transformers = pytest.importorskip("transformers")

FOUND = generated(2000)
CORPUS = corpus(ENGLISH, 300) + corpus(CHINESE, 300) + "\n".join(FOUND[:1500])
SPECIAL = "<s>hi</s> <mask> there [MASK] [CLS]x<pad>Hi<|endoftext|>again <extra_id_0> y<new>z <New>"
TEXTS = ["", " ", "a", "  two  spaces\n\n\ttabs ", ENGLISH, CHINESE, SPECIAL, *FOUND]
WHOLE = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]


def byte_bpe(directory, special):
    tokenizer = hf.ByteLevelBPETokenizer()
    tokenizer.train_from_iterator([CORPUS], 900, 2, False, special)
    directory.mkdir()
    tokenizer.save_model(str(directory))


def of(directory, cls, **settings):
    """A directory with a vocabulary, and a configuration that names its class."""
    config = {"tokenizer_class": cls, **settings}
    (directory / "tokenizer_config.json").write_text(json.dumps(config))
    return transformers.AutoTokenizer.from_pretrained(directory)


def gpt2(directory, **settings):
    byte_bpe(directory, ["<|endoftext|>"])
    return of(directory, "GPT2Tokenizer", **settings)


def roberta(directory, **settings):
    byte_bpe(directory, ["<s>", "<pad>", "</s>", "<unk>"])
    return of(directory, "RobertaTokenizer", **settings)


def bert(directory, cls="BertTokenizer", **settings):
    tokenizer = hf.BertWordPieceTokenizer(lowercase=settings.get("do_lower_case", True))
    tokenizer.train_from_iterator([CORPUS], 900, show_progress=False)
    directory.mkdir()
    tokenizer.save_model(str(directory))
    return of(directory, cls, **settings)


def llama(directory, **settings):
    tokenizer = hf.SentencePieceBPETokenizer()
    tokenizer.train_from_iterator([CORPUS], 1200, 2, WHOLE, show_progress=False)
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    merges = [tuple(merge) for merge in merges]
    return transformers.LlamaTokenizer(tokenizer.get_vocab(), merges, **settings)


def t5(directory, **settings):
    tokenizer = hf.SentencePieceUnigramTokenizer()
    special = ["<pad>", "</s>", "<unk>"]
    tokenizer.train_from_iterator([CORPUS], 700, False, special, unk_token="<unk>")
    pieces = json.loads(tokenizer.to_str())["model"]["vocab"]
    sentinels = [(f"<extra_id_{i}>", 0.0) for i in reversed(range(100))]
    return transformers.T5Tokenizer([*map(tuple, pieces), *sentinels], **settings)


MASK = transformers.AddedToken("<mask>", lstrip=True, special=True)
NEW = transformers.AddedToken("<New>", lstrip=True, rstrip=True)
MAKERS = {
    "gpt2": (gpt2, {}),
    "gpt2 with its ends": (gpt2, {"add_bos_token": True, "add_eos_token": True}),
    "gpt2 behind a space": (gpt2, {"add_prefix_space": True, "pad_token": "<pad>"}),
    "roberta": (roberta, {"model_max_length": 512}),
    "roberta behind a space": (roberta, {"add_prefix_space": True}),
    "roberta untrimmed": (roberta, {"trim_offsets": False, "cls_token": "<pad>"}),
    "bert": (bert, {}),
    "bert cased": (bert, {"do_lower_case": False, "clean_up_tokenization_spaces": True}),
    "bert with accents": (bert, {"strip_accents": False, "tokenize_chinese_chars": False}),
    "distilbert": (bert, {"cls": "DistilBertTokenizer"}),
    "llama": (llama, {"add_bos_token": True}),
    "llama as of old": (llama, {"legacy": True, "pad_token": "<pad>"}),
    "llama without a space": (llama, {"add_prefix_space": False}),
    "t5": (t5, {}),
}


@pytest.fixture(scope="module", params=MAKERS)
def theirs(request, tmp_path_factory):
    """A tokenizer of transformers, with tokens added, and the directory that it wrote."""
    make, settings = MAKERS[request.param]
    directory = tmp_path_factory.mktemp("theirs")
    tokenizer = make(directory / "vocabulary", **settings)
    tokenizer.add_special_tokens({"extra_special_tokens": ["<new>"]}, False)
    if request.param in ("roberta", "llama", "t5"):
        tokenizer.add_special_tokens({"mask_token": MASK})
        tokenizer.add_tokens([NEW])
    tokenizer.save_pretrained(directory / "saved")
    return transformers.AutoTokenizer.from_pretrained(directory / "saved"), directory / "saved"


def assert_same_ids(ours, theirs, texts=TEXTS):
    single = theirs(texts)["input_ids"]
    pairs = theirs(texts, texts[::-1])
    assert len(theirs) == ours.vocab_size
    for i, text in enumerate(texts):
        assert ours(text, allowed_special="all").input_ids[0].tolist() == single[i], text
        pair = ours(text, texts[-i - 1], allowed_special="all")
        assert pair.input_ids[0].tolist() == pairs["input_ids"][i], (text, texts[-i - 1])
        if "token_type_ids" in pairs:
            assert pair.token_type_ids[0].tolist() == pairs["token_type_ids"][i]


def assert_same_texts(ours, theirs, texts=TEXTS):
    rng = random.Random(0)
    rows = [*theirs(texts)["input_ids"]]
    rows += [rng.choices(range(len(theirs)), k=rng.randrange(1, 9)) for _ in texts]
    for skip in (False, True):
        expected = theirs.batch_decode(rows, skip_special_tokens=skip)
        for row, text in zip(rows, expected, strict=True):
            assert ours.decode(row, skip) == text, row


def roles_of(tokenizer):
    named = tokenizer.special_tokens_map.items()
    return {name[:-6]: str(token) for name, token in named if name.endswith("_token")}


def test_their_directory_gives_the_same_ids_texts_and_roles_here(theirs):
    theirs, directory = theirs
    ours = tokenizer_from_pretrained(directory)
    assert_same_ids(ours, theirs)
    assert_same_texts(ours, theirs)
    assert ours.roles == roles_of(theirs)
    assert set(ours.input_names) == set(theirs.model_input_names)
    assert ours.padding_side == theirs.padding_side
    limit = theirs.model_max_length
    assert ours.model_max_length == (limit if limit < 10**12 else None)


def test_what_we_save_of_it_gives_the_same_there(theirs, tmp_path):
    before, directory = theirs
    ours = tokenizer_from_pretrained(directory)
    save_tokenizer(ours, tmp_path)
    after = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert after(TEXTS)["input_ids"] == before(TEXTS)["input_ids"]
    assert_same_ids(ours, after, TEXTS[:300])
    assert_same_texts(ours, after, TEXTS[:1000])
    assert roles_of(after) == roles_of(before)
    assert set(after.model_input_names) == set(before.model_input_names)
    assert (after.padding_side, after.model_max_length) == (
        before.padding_side,
        before.model_max_length,
    )
    bare = hf.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert [one.ids for one in bare.encode_batch(TEXTS)] == before(TEXTS)["input_ids"]
    assert tokenizer_from_pretrained(tmp_path).to_json() == ours.to_json()


@pytest.mark.parametrize("name", [name for name, (make, _) in MAKERS.items() if make is not t5])
def test_places_are_the_same(name, tmp_path):
    make, settings = MAKERS[name]
    make(tmp_path / "vocabulary", **settings).save_pretrained(tmp_path / "saved")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "saved")
    ours = tokenizer_from_pretrained(tmp_path / "saved")
    expected = theirs(TEXTS, return_offsets_mapping=True)["offset_mapping"]
    for text, places in zip(TEXTS, expected, strict=True):
        found = ours(text, allowed_special="all").offset_mapping[0].tolist()
        assert found == list(map(list, places)), text


def test_padding_on_either_side_is_the_same(theirs):
    theirs, directory = theirs
    ours = tokenizer_from_pretrained(directory)
    if theirs.pad_token is None:
        theirs.pad_token = ours.pad_token or "<new>"
        ours.roles["pad"] = theirs.pad_token
    for side in ("left", "right"):
        ours.padding_side = theirs.padding_side = side
        found = ours(TEXTS[:40], padding=True, allowed_special="all")
        expected = theirs(TEXTS[:40], padding=True)
        for name in theirs.model_input_names:
            assert found[name].tolist() == expected[name]


@pytest.mark.parametrize("name", ["gpt2", "gpt2 with its ends", "roberta", "bert cased", "bert"])
def test_vocabularies_without_a_tokenizer_json_give_the_same_ids(name, tmp_path):
    make, settings = MAKERS[name]
    directory = tmp_path / "vocabulary"
    theirs = make(directory, **settings)
    assert not (directory / "tokenizer.json").exists()
    ours = tokenizer_from_pretrained(directory)
    assert_same_ids(ours, theirs)
    assert ours.roles == roles_of(theirs)


# --- Settings in all the places where they have stood ---------------------------------------------


def random_token(rng, named):
    token = {"content": rng.choice(["<new>", "<New>", "<x>", "<mask>", "<|endoftext|>", "the"])}
    flags = ("lstrip", "rstrip", "single_word", "normalized")
    token |= {flag: True for flag in flags if rng.random() < 0.4}
    return {"__type": "AddedToken", **token} if named else token


@pytest.mark.parametrize("make", [gpt2, roberta, llama], ids=lambda make: make.__name__)
def test_settings_of_any_kind_give_the_same_tokens(make, tmp_path):
    make(tmp_path / "vocabulary").save_pretrained(tmp_path / "saved")
    added = json.loads((tmp_path / "saved" / "tokenizer.json").read_text())["added_tokens"]
    named = {gpt2: "GPT2Tokenizer", roberta: "RobertaTokenizer", llama: "LlamaTokenizer"}[make]
    classes = [named, f"{named}Fast", "PreTrainedTokenizerFast", None]
    files = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
    rng = random.Random(1)
    for _ in range(25):
        name = rng.choice(classes)
        config = {"tokenizer_class": name} if name else {}
        for role in ("pad_token", "mask_token", "bos_token"):
            if rng.random() < 0.4:
                config[role] = random_token(rng, True)
                if rng.random() < 0.5:
                    config[role] = config[role]["content"]
        if rng.random() < 0.4:
            key = rng.choice(["extra_special_tokens", "additional_special_tokens"])
            config[key] = [random_token(rng, False)["content"] for _ in range(rng.randrange(3))]
        if rng.random() < 0.3:
            config["added_tokens_decoder"] = {
                str(entry["id"]): {flag: entry[flag] for flag in entry if flag != "id"}
                for entry in added
            }
        older = {"pad_token": random_token(rng, False)} if rng.random() < 0.4 else {}
        newer = {"<x>": 10**6} if rng.random() < 0.3 else {}
        for file, content in zip(files, (config, older, newer), strict=True):
            (tmp_path / "saved" / file).write_text(json.dumps(content))
        theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "saved")
        ours = tokenizer_from_pretrained(tmp_path / "saved")
        assert roles_of(theirs).items() <= ours.roles.items(), (config, older, newer)
        assert_same_ids(ours, theirs, TEXTS[:30])
        assert_same_texts(ours, theirs, TEXTS[:30])


# --- Files of tokenizers, files of ours -----------------------------------------------------------


def byte_level(pattern, **model):
    parts = hf.pre_tokenizers
    tokenizer = hf.Tokenizer(hf.models.BPE(**model))
    split = parts.Split(hf.Regex(pattern), "isolated")
    bytes_ = parts.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = parts.Sequence([split, bytes_])
    tokenizer.decoder = hf.decoders.ByteLevel()
    alphabet = parts.ByteLevel.alphabet()
    trainer = hf.trainers.BpeTrainer(
        vocab_size=800, initial_alphabet=alphabet, special_tokens=["<s>"], show_progress=False
    )
    tokenizer.train_from_iterator([CORPUS], trainer)
    return tokenizer


def llama3():
    pattern = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s+(?!\S)|\s+"
    tokenizer = byte_level(pattern, ignore_merges=True)
    template = hf.processors.TemplateProcessing("<s> $A", "<s> $A <s>:1 $B:1", [("<s>", 0)])
    first = hf.processors.ByteLevel(trim_offsets=False)
    tokenizer.post_processor = hf.processors.Sequence([first, template])
    return tokenizer


def qwen():
    tokenizer = byte_level(r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+")
    tokenizer.normalizer = hf.normalizers.NFC()
    tokenizer.post_processor = hf.processors.ByteLevel(trim_offsets=False)
    return tokenizer


def old_llama(bytes_=True, **model):
    tokenizer = hf.SentencePieceBPETokenizer()
    special = WHOLE if bytes_ else WHOLE[:3]
    tokenizer.train_from_iterator([CORPUS], 1200, 2, special, show_progress=False)
    content = json.loads(tokenizer.to_str())
    content["model"] |= {"byte_fallback": bytes_, "unk_token": "<unk>", "fuse_unk": True, **model}
    content["pre_tokenizer"] = None
    normalizers = hf.normalizers
    steps = [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    decoders = hf.decoders
    undo = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    made = hf.Tokenizer.from_str(json.dumps(content))
    made.normalizer = normalizers.Sequence(steps)
    made.decoder = decoders.Sequence([*undo, decoders.Strip(" ", 1, 0)])
    return made


def sentencepiece(kind, **settings):
    tokenizer = kind()
    tokenizer.train_from_iterator([CORPUS], 700, special_tokens=["<unk>"], **settings)
    return tokenizer


FILES = {
    "Llama 3": llama3,
    "Qwen": qwen,
    "Llama 2": old_llama,
    "Llama 2 without bytes": lambda: old_llama(False),
    "unknown ones apart": lambda: old_llama(False, fuse_unk=False),
    "words": lambda: sentencepiece(hf.SentencePieceBPETokenizer, show_progress=False),
    "unigram": lambda: sentencepiece(
        hf.SentencePieceUnigramTokenizer, unk_token="<unk>", show_progress=False
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_tokenizers_is_taken_as_it_is(name, tmp_path):
    FILES[name]().save(str(tmp_path / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    ours = tokenizer_from_pretrained(tmp_path)
    assert_same_ids(ours, theirs)
    assert_same_texts(ours, theirs)
    save_tokenizer(ours, tmp_path / "ours")
    after = transformers.AutoTokenizer.from_pretrained(tmp_path / "ours")
    assert_same_ids(ours, after, TEXTS[:500])
    assert_same_texts(ours, after, TEXTS[:500])


def test_a_file_without_the_names_of_types_is_read_as_tokenizers_reads_it(tmp_path):
    for make in (llama3, lambda: bert(tmp_path / "bert").backend_tokenizer):
        content = json.loads(make().to_str())
        del content["model"]["type"]
        path = tmp_path / "tokenizer.json"
        path.write_text(json.dumps(content))
        theirs, ours = hf.Tokenizer.from_file(str(path)), load_tokenizer(tmp_path)
        for text in TEXTS[:300]:
            expected = theirs.encode(text, add_special_tokens=False).ids
            assert ours.encode(text, allowed_special="all") == expected


OURS = {
    "char": lambda: CharTokenizer.train(CORPUS + "".join(TEXTS), ["<pad>"]),
    "bpe": lambda: BPETokenizer.train(CORPUS, 800, "cl100k", special_tokens=["<|endoftext|>"]),
    "unigram": lambda: UnigramTokenizer.train(CORPUS, 1400),
    "unigram with bytes": lambda: UnigramTokenizer.train(CORPUS, 1600, byte_fallback=True),
    "wordpiece": lambda: WordPieceTokenizer.train(CORPUS, 1500),
}


@pytest.mark.parametrize("name", OURS)
def test_a_tokenizer_that_was_trained_here_gives_the_same_ids_there(name, tmp_path):
    OURS[name]().save(tmp_path / "run")
    ours = load_tokenizer(tmp_path / "run")
    ours.save_pretrained(tmp_path / "saved")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "saved")
    assert_same_ids(ours, theirs, TEXTS[:1000])
    assert_same_texts(ours, theirs, TEXTS[:1000])
    assert roles_of(theirs) == ours.roles


def test_spiece_model_is_what_the_same_pieces_give_in_transformers(tmp_path):
    (tmp_path / "spiece.model").write_bytes(spiece())
    (tmp_path / "config.json").write_text('{"model_type": "t5"}')
    ours = tokenizer_from_pretrained(tmp_path)
    sentinels = [(f"<extra_id_{i}>", 0.0) for i in reversed(range(100))]
    pieces = [(text, score) for text, score, _ in PIECES]
    theirs = transformers.T5Tokenizer([*pieces, *sentinels])
    theirs.add_tokens(["<sep>"])
    rng = random.Random(0)
    parts = ["the", " ", "é", "<sep>", "<extra_id_7>", "</s>", "x", "  ", "\n", "the the"]
    assert_same_ids(ours, theirs, ["".join(rng.choices(parts, k=7)) for _ in range(300)])


def test_a_model_that_sentencepiece_trained_gives_the_same_ids(tmp_path):
    trainer = pytest.importorskip("sentencepiece", reason="trains the model")
    pytest.importorskip("google.protobuf", reason="transformers reads spiece.model with it")
    trainer.SentencePieceTrainer.Train(
        sentence_iterator=iter(CORPUS.split("\n")),
        model_prefix=str(tmp_path / "spiece"),
        vocab_size=600,
        character_coverage=0.98,
        **{"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1, "minloglevel": 2},
        **{"hard_vocab_limit": False, "user_defined_symbols": ["<new>"]},
    )
    (tmp_path / "config.json").write_text('{"model_type": "t5"}')
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    ours = tokenizer_from_pretrained(tmp_path)
    assert_same_ids(ours, theirs)
    assert_same_texts(ours, theirs)
