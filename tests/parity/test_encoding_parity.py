"""Templates, truncation, windows and padding against `tokenizers`."""

import itertools

import pytest

pytest.importorskip("tokenizers.models", reason="needs the extra: pip install minilm[parity]")

import tokenizers
from parity.texts import ENGLISH

from minilm.tokenizers import BPETokenizer
from minilm.tokenizers.template import bert_template

TEXTS = [ENGLISH[:n] for n in (0, 1, 7, 20, 45, 90, 200)]
STRATEGIES = ["longest_first", "only_first", "only_second"]


@pytest.fixture(scope="module")
def ours():
    trained = BPETokenizer.train(ENGLISH, 300)
    special = ["[PAD]", "[CLS]", "[SEP]"]
    template = bert_template("[CLS]", "[SEP]")
    return BPETokenizer(trained.token_bytes, trained.merges, trained.pattern, special, template)


@pytest.fixture
def theirs(ours, tmp_path):
    ours.save(tmp_path)
    return tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))


def assert_equal(encoding, expected):
    assert encoding.input_ids.tolist() == [one.ids for one in expected]
    assert encoding.attention_mask.tolist() == [one.attention_mask for one in expected]
    assert encoding.token_type_ids.tolist() == [one.type_ids for one in expected]
    assert encoding.special_tokens_mask.tolist() == [one.special_tokens_mask for one in expected]
    spans = [list(map(list, one.offsets)) for one in expected]
    assert encoding.offset_mapping.tolist() == spans


@pytest.mark.parametrize("max_length", [7, 9, 16, 60])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_pairs_are_cut_and_padded_as_tokenizers_does(ours, theirs, max_length, strategy):
    theirs.enable_truncation(max_length, strategy=strategy)
    theirs.enable_padding(pad_token="[PAD]", pad_id=ours.special_tokens["[PAD]"])
    for a, b in itertools.product(TEXTS, TEXTS):
        whole = {"longest_first": 0, "only_first": len(ours.encode(b))}.get(
            strategy, len(ours.encode(a))
        )
        if whole > max_length - 4:
            continue  # nothing would be left of the other, which tokenizers refuses
        expected = theirs.encode_batch([(a, b), ("x", "y z")])
        arguments = {"padding": True, "truncation": strategy, "max_length": max_length}
        assert_equal(ours([a, "x"], [b, "y z"], **arguments), expected)


@pytest.mark.parametrize(("max_length", "stride"), [(3, 0), (8, 0), (8, 3), (20, 17), (300, 10)])
def test_windows_are_those_of_tokenizers(ours, theirs, max_length, stride):
    theirs.enable_truncation(max_length, stride=stride)
    theirs.enable_padding(length=max_length, pad_token="[PAD]", pad_id=ours.special_tokens["[PAD]"])
    for text in TEXTS:
        first = theirs.encode(text)
        encoding = ours(
            text, padding="max_length", truncation=True, max_length=max_length, stride=stride
        )
        assert_equal(encoding, [first, *first.overflowing])


def test_windows_of_the_second_text_are_those_of_tokenizers(ours, theirs):
    theirs.enable_truncation(40, stride=5, strategy="only_second")
    theirs.enable_padding(pad_token="[PAD]", pad_id=ours.special_tokens["[PAD]"])
    for text in TEXTS:
        (first,) = theirs.encode_batch([("what was it?", text)])
        encoding = ours(
            "what was it?", text, padding=True, truncation="only_second", max_length=40, stride=5
        )
        rows = [first, *first.overflowing]
        assert encoding.input_ids[:, :10].tolist() == [one.ids[:10] for one in rows]
        unpadded = [mask.sum() for mask in encoding.attention_mask]
        assert unpadded == [sum(one.attention_mask) for one in rows]
