"""Sentence encoders give the vectors of sentence-transformers, both ways."""

import numpy as np
import pytest

from minilm.models.bert import Bert, BertConfig
from minilm.pretrained import SentenceEncoder, from_pretrained
from minilm.tokenizers import WordPieceTokenizer

pytest.importorskip("torch", reason="needs the extra: pip install minilm[parity]")
theirs = pytest.importorskip(
    "sentence_transformers", reason="needs pip install sentence-transformers"
)

TEXTS = ["the cat sat", "mats on the Mat, the cats", "", "the mats " * 9]
TOKENIZER = WordPieceTokenizer.train("the cat sat on the mat; the cats sat on the mats\n" * 4, 60)


@pytest.mark.filterwarnings("ignore")  # what others warn of
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("pooling", ["mean", "max", "cls"])
def test_vectors_are_those_of_sentence_transformers(tmp_path, pooling, normalize):
    config = BertConfig(vocab_size=TOKENIZER.vocab_size, max_len=12, d_model=12, n_heads=3,
                        n_layers=2, d_ff=10, init_std=0.5)  # fmt: skip
    model = Bert(config, np.random.default_rng(0)).eval()
    ours = SentenceEncoder(model, TOKENIZER, pooling, normalize)
    ours.save_pretrained(tmp_path / "ours")
    there = theirs.SentenceTransformer(str(tmp_path / "ours"), device="cpu")
    expected = there.encode(TEXTS)
    np.testing.assert_allclose(ours.encode(TEXTS), expected, atol=1e-5)
    there.save(str(tmp_path / "theirs"))
    again = from_pretrained(tmp_path / "theirs").encode(TEXTS)
    np.testing.assert_allclose(again, expected, atol=1e-5)
