"""WordPiece agrees with Hugging Face's tokenizers and transformers: ids, offsets, files, text."""

import importlib
import json
import random
import unicodedata
import warnings

import pytest

from minilm.tokenizers import AddedToken
from minilm.tokenizers.bert import WORD, normal_form
from minilm.tokenizers.wordpiece import SPECIAL_TOKENS, WordPieceTokenizer

pytest.importorskip("tokenizers.models", reason="compares with Hugging Face's tokenizers")
hf = importlib.import_module("tokenizers")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what others warn of while they are imported
    transformers = pytest.importorskip("transformers")

SETTINGS = [
    {},
    {"lower": False},
    {"clean": False},
    {"chinese_spaces": False},
    {"lower": False, "strip_accents": True},
    {"strip_accents": False, "max_word": 4},
]
settings_of = pytest.mark.parametrize("settings", SETTINGS, ids=str)
# Of one mind with tokenizers: what Python's own Unicode knows, and both lower-case and decompose
# alike (each goes by the Unicode of its day).
NFD, LOWER = hf.normalizers.NFD(), hf.normalizers.Lowercase()
ASSIGNED = [
    c for c in map(chr, range(0x110000)) if unicodedata.category(c) not in ("Cn", "Cs", "Co")
]
SHARED = [
    c
    for c in ASSIGNED
    if (c.isascii() or NFD.normalize_str(c) == unicodedata.normalize("NFD", c))
    and LOWER.normalize_str(c) == c.lower()
]
# Marks that stay on a letter come in canonical order there, and in the text's order here.
UNORDERED = [c for c in SHARED if not unicodedata.combining(c) or normal_form(c) == ""]
ALPHABETS = [
    "abcdeThING  ,.!'-#[]",
    "éÉüßñçÅÀİıΣσςΑЖйΩ",
    "中文字漢日本語ひカ한국어\U00020000\U0002b900\uf900",
    "\t\n\r\0\x0b\x0c\x1c\x7f\x85\xa0\xad\u200b\u200d\ufeff\u2028\u3000\ufffd\ue000\U000e0001",
    "😀👩\u200d👧🏽🇩🇪\ufe0f©™°",
    "a\u0301\u0323\u0300e\u05b0\u093f\u0e31",
    "नमस्ते สวัสดี שלום مرحبا",
    UNORDERED,
]
WORDS = [
    *("the", "The", "and", "ing", "un", "able", "Über", "café", "naïve", "中文", "日本"),
    *("don't", "it's", "3.14", "$5", "e-mail", "İstanbul", "ΟΔΟΣ"),
]


def random_texts(n, seed):
    """Texts of mixed scripts, words and signs, from one character to some hundred."""
    rng = random.Random(seed)

    def piece():
        if rng.random() < 0.2:
            return rng.choice(WORDS) + rng.choice(["", " "])
        return rng.choice(rng.choice(ALPHABETS))

    return ["".join([piece() for _ in range(rng.randrange(1, 25))]) for _ in range(n)]


def trained(**settings):
    return WordPieceTokenizer.train(random_texts(2000, 0), 4000, limit_alphabet=1000, **settings)


def theirs_of(tokenizer):
    return hf.Tokenizer.from_str(json.dumps(tokenizer.to_json()))


def bert_normalizer(lower=True, strip_accents=None, chinese_spaces=True, clean=True, **_):
    return hf.normalizers.BertNormalizer(clean, chinese_spaces, strip_accents, lower)


def test_the_characters_on_which_versions_of_unicode_differ_are_few():
    assert len(ASSIGNED) - len(SHARED) < 100
    assert len(SHARED) - len(UNORDERED) < 200


@pytest.mark.parametrize("settings", [*SETTINGS[1:5], {"clean": False, "chinese_spaces": False}])
def test_every_character_has_the_normal_form_of_bert_normalizer(settings):
    normalize = bert_normalizer(**settings).normalize_str
    wrong = [c for c in SHARED if normalize(c) != normal_form(c, **settings)]
    assert wrong == []


def test_every_character_is_a_word_or_not_as_for_bert_pre_tokenizer():
    cut = hf.pre_tokenizers.BertPreTokenizer().pre_tokenize_str
    texts = [f"a{c}b" for c in ASSIGNED]
    assert [t for t in texts if [w for w, _ in cut(t)] != WORD.findall(t)] == []


@settings_of
def test_ids_offsets_and_decoded_text_equal_those_of_tokenizers(settings):
    ours = trained(**settings)
    theirs = theirs_of(ours)
    theirs.encode_special_tokens = True  # special tokens in a text are ordinary text
    texts = random_texts(2500, 1)
    unknown = 0
    for text, encoding in zip(
        texts, theirs.encode_batch(texts, add_special_tokens=False), strict=True
    ):
        ids, spans = ours.encode_with_offsets(text, disallowed_special=())
        assert ids == encoding.ids, text
        assert spans == encoding.offsets, text
        assert ours.encode(text, disallowed_special=()) == ids
        assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=False)
        assert ours.decode(ids, True) == theirs.decode(ids)
        unknown += ids.count(1)
    assert unknown > 100


@pytest.mark.parametrize("lower", [True, False])
def test_a_vocabulary_encodes_as_in_transformers_bert_tokenizer(tmp_path, lower):
    ours = trained(lower=lower)
    ours.save(tmp_path)
    theirs = transformers.BertTokenizer(str(tmp_path / "vocab.txt"), do_lower_case=lower)
    texts = random_texts(2000, 2)
    for text, pair in zip(texts, reversed(texts), strict=True):
        row, expected = ours(text, pair, disallowed_special=()), theirs(text, pair)
        for name in ours.input_names:
            assert row[name].tolist() == [expected[name]], (text, pair)
        assert ours.decode(row["input_ids"][0]) == theirs.decode(expected["input_ids"])
    (tmp_path / "tokenizer.json").unlink()
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": lower}))
    loaded = WordPieceTokenizer.load(tmp_path)
    assert [loaded.encode(text) for text in texts] == [ours.encode(text) for text in texts]


def test_our_added_tokens_are_found_as_tokenizers_finds_them():
    special = [
        *SPECIAL_TOKENS,
        "<a b>",
        "(.*)|\\w+",
        AddedToken("New York", special=False, normalized=True),
        AddedToken("über", special=False, single_word=True),
        AddedToken("<m>", lstrip=True, rstrip=True),
    ]
    ours = WordPieceTokenizer.train(random_texts(500, 0), 3000, special_tokens=special)
    theirs = theirs_of(ours)
    rng = random.Random(3)
    marks = [getattr(token, "content", token) for token in special] + ["new  york", "NEW YÖRK"]
    for text in random_texts(1500, 3):
        pieces = [text[i : i + 5] + rng.choice([*marks, " "]) for i in range(0, len(text), 5)]
        text = rng.choice(["", " "]).join(pieces)
        ids, spans = ours.encode_with_offsets(text, allowed_special="all")
        encoding = theirs.encode(text, add_special_tokens=False)
        assert (ids, spans) == (encoding.ids, encoding.offsets), text


@settings_of
def test_their_file_is_ours(tmp_path, settings):
    ours = trained(**settings)
    vocab = {token: i for i, token in enumerate(ours.tokens)}
    max_word = settings.get("max_word", 100)
    theirs = hf.Tokenizer(
        hf.models.WordPiece(vocab, unk_token="[UNK]", max_input_chars_per_word=max_word)
    )
    theirs.normalizer = bert_normalizer(**settings)
    theirs.pre_tokenizer = hf.pre_tokenizers.BertPreTokenizer()
    theirs.decoder = hf.decoders.WordPiece(cleanup=False)
    theirs.post_processor = hf.processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    theirs.add_special_tokens(list(SPECIAL_TOKENS))
    theirs.add_tokens(["new york"])
    theirs.save(str(tmp_path / "tokenizer.json"))
    loaded = WordPieceTokenizer.load(tmp_path)
    for text in [*random_texts(300, 4), "To NEW york, new york or [MASK] don't, it is."]:
        expected = theirs.encode(text)
        assert loaded(text, allowed_special="all")["input_ids"].tolist() == [expected.ids]
        assert loaded.decode(expected.ids, True) == theirs.decode(expected.ids)


def test_training_learns_what_word_piece_trainer_learns_where_no_two_pairs_are_equally_frequent():
    text = " ".join(["hug"] * 10 + ["pug"] * 5 + ["pun"] * 12 + ["bun"] * 4 + ["hugs"] * 5)
    theirs = hf.Tokenizer(hf.models.WordPiece(unk_token="[UNK]"))
    theirs.pre_tokenizer = hf.pre_tokenizers.BertPreTokenizer()
    seen = 5 + 7 + 4  # special tokens, letters, and with "##" those that stand inside a word
    trainer = hf.trainers.WordPieceTrainer(
        vocab_size=seen + 4, special_tokens=list(SPECIAL_TOKENS), show_progress=False
    )
    theirs.train_from_iterator([text], trainer)
    inner_letters = {f"##{c}" for c in "bghnpsu"}
    ours = WordPieceTokenizer.train(text, 5 + 7 + 7 + 4).tokens
    assert set(ours) - inner_letters == set(theirs.get_vocab()) - inner_letters
