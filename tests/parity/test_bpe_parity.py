"""Byte-level BPE against `tokenizers`, `tiktoken` and `transformers`."""

import pytest

pytest.importorskip("tokenizers.models", reason="needs the extra: pip install minilm[parity]")
pytest.importorskip("tiktoken", reason="needs the extra: pip install minilm[parity]")
pytest.importorskip("transformers", reason="needs the extra: pip install minilm[parity]")

import tiktoken
import tokenizers
from parity.texts import CHINESE, ENGLISH, corpus, generated
from tokenizers import decoders, models, pre_tokenizers, trainers

from minilm.tokenizers import AddedToken, BPETokenizer
from minilm.tokenizers.pretokenize import CL100K_PATTERN, GPT2_PATTERN

TEXTS = generated(100_000)
SPECIAL = ["<|endoftext|>", "<| odd [x]+ token |>"]
CORPORA = {
    "english": corpus(ENGLISH, 3000),
    "chinese": corpus(CHINESE, 3000),
    "generated": "\n".join(TEXTS[:20_000]),
}
# cl100k_base as tiktoken 0.14 spells it: ours is the same in fewer features.
TIKTOKEN_CL100K = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+"
    r"|\s++$|\s*[\r\n]|\s+(?!\S)|\s"
)


@pytest.fixture(scope="module", params=["gpt2", "cl100k"])
def ours(request):
    text = "".join(CORPORA.values())
    return BPETokenizer.train(text, 3000, request.param, special_tokens=SPECIAL)


@pytest.fixture(scope="module")
def theirs(ours, tmp_path_factory):
    directory = tmp_path_factory.mktemp("bpe")
    ours.save(directory)
    return tokenizers.Tokenizer.from_file(str(directory / "tokenizer.json"))


@pytest.mark.parametrize("language", CORPORA)
@pytest.mark.parametrize("vocab_size", [512, 4096, 16384])
def test_merges_are_those_of_the_trainer_of_tokenizers(language, vocab_size, tmp_path):
    text = CORPORA[language]
    theirs = tokenizers.Tokenizer(models.BPE())
    theirs.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    theirs.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    theirs.train_from_iterator([text], trainer)
    theirs.save(str(tmp_path / "tokenizer.json"))
    loaded = BPETokenizer.load(tmp_path)
    ours = BPETokenizer.train(text, vocab_size)
    assert ours.merges == loaded.merges
    assert ours.tokens == loaded.tokens


def test_ids_and_offsets_are_those_of_tokenizers(ours, theirs):
    encodings = theirs.encode_batch(TEXTS, add_special_tokens=False)
    for text, encoding in zip(TEXTS, encodings, strict=True):
        assert ours.encode_with_offsets(text) == (encoding.ids, encoding.offsets)
        assert ours.encode(text) == encoding.ids


def test_special_tokens_are_found_where_tokenizers_finds_them(ours, theirs):
    texts = [f"{a}{SPECIAL[len(b) % 2]}{b}" for a, b in zip(TEXTS, TEXTS[1:2000], strict=False)]
    for text, encoding in zip(texts, theirs.encode_batch(texts), strict=True):
        assert ours.encode(text, allowed_special="all") == encoding.ids
        skipped = ours.decode(encoding.ids, skip_special_tokens=True)
        assert skipped == theirs.decode(encoding.ids, skip_special_tokens=True)


def test_ids_are_those_of_tiktoken(ours):
    pattern = GPT2_PATTERN if ours.pattern == GPT2_PATTERN else TIKTOKEN_CL100K
    assert ours.pattern in (GPT2_PATTERN, CL100K_PATTERN)
    # In the order of tiktoken's ranks: the bytes first, then the merges as they were learned.
    theirs = tiktoken.Encoding(
        "ours",
        pat_str=pattern,
        mergeable_ranks={token: i for i, token in enumerate(ours.token_bytes[: ours.model_size])},
        special_tokens=ours.special_tokens,
    )
    for text in TEXTS:
        assert ours.encode(text) == theirs.encode(text)
    text = f"one{SPECIAL[0]}two{SPECIAL[1]}"
    for options in (
        {"allowed_special": "all"},
        {"allowed_special": {SPECIAL[0]}, "disallowed_special": ()},
        {"disallowed_special": ()},
    ):
        assert ours.encode(text, **options) == theirs.encode(text, **options)
    for options in ({}, {"allowed_special": {SPECIAL[0]}}, {"disallowed_special": {SPECIAL[1]}}):
        for tokenizer in (ours, theirs):
            with pytest.raises(ValueError, match="special token"):
                tokenizer.encode(text, **options)


ADDED = [
    AddedToken("<left>", lstrip=True),
    AddedToken("<right>", rstrip=True),
    AddedToken("<both>", special=False, lstrip=True, rstrip=True),
    AddedToken("word", special=False, single_word=True),
    AddedToken("wo", special=False, normalized=True),
    AddedToken("<both>2", special=False),
    AddedToken("[a-z]+", special=False),
]


def test_added_tokens_are_found_where_tokenizers_finds_them(tmp_path):
    ours = BPETokenizer.train(ENGLISH, 400, special_tokens=ADDED)
    ours.save(tmp_path)
    theirs = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    contents = [token.content for token in ADDED]
    between = ["", " ", "  \n", "s", "_", "é", " a ", "中", "wor", "2"]
    for i in range(3000):
        parts = [(contents, between)[j % 2][(i * (j + 3) + i // 7 + j) % 7] for j in range(5)]
        text = between[i % 10] + "".join(parts)
        encoding = theirs.encode(text)
        assert ours.encode(text, allowed_special="all") == encoding.ids, text
        spans = ours.encode_with_offsets(text, allowed_special="all")[1]
        assert spans == encoding.offsets, text
        assert BPETokenizer.load(tmp_path).encode(text, allowed_special="all") == encoding.ids
