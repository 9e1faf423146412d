"""The same ids as `tokenizers` and `transformers` on 100,000 texts of mixed scripts."""

import pytest

pytest.importorskip("tokenizers.models", reason="needs the extra: pip install minilm[parity]")
pytest.importorskip("transformers", reason="needs the extra: pip install minilm[parity]")

import tokenizers
import transformers
from parity.texts import CHINESE, ENGLISH, corpus, generated

from minilm.tokenizers import UnigramTokenizer, WordPieceTokenizer

TEXTS = generated(100_000)
CORPUS = corpus(ENGLISH, 1000) + corpus(CHINESE, 1000) + "\n".join(TEXTS[:20_000])


@pytest.mark.parametrize("lower", [True, False])
def test_wordpiece_gives_the_ids_of_bert_tokenizer(lower, tmp_path):
    ours = WordPieceTokenizer.train(CORPUS, 3000, lower=lower)
    ours.save(tmp_path)
    theirs = transformers.BertTokenizer(str(tmp_path / "vocab.txt"), do_lower_case=lower)
    expected = theirs(TEXTS)["input_ids"]
    for text, ids in zip(TEXTS, expected, strict=True):
        assert ours.encode(text) == ids[1:-1], text
    pair, expected = ours(ENGLISH, CHINESE), theirs(ENGLISH, CHINESE)
    assert pair.input_ids.tolist() == [expected["input_ids"]]
    assert pair.token_type_ids.tolist() == [expected["token_type_ids"]]


@pytest.mark.parametrize("byte_fallback", [True, False])
def test_unigram_gives_the_ids_of_tokenizers(byte_fallback, tmp_path):
    ours = UnigramTokenizer.train(CORPUS, 3000, byte_fallback=byte_fallback)
    ours.save(tmp_path)
    theirs = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    for text, encoding in zip(TEXTS, theirs.encode_batch(TEXTS), strict=True):
        assert [*ours.encode(text), ours.special_tokens["</s>"]] == encoding.ids, text
