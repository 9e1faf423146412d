"""Damaged tokenizer files give TokenizerError or a tokenizer that works; nothing else."""

import json
import random

import pytest
from damage import loads_and_works, mutate_bytes, mutate_value, places

from minilm.tokenizers import (
    AddedToken,
    BPETokenizer,
    CharTokenizer,
    MarkedBPETokenizer,
    UnigramTokenizer,
    WordPieceTokenizer,
    load_tokenizer,
)

TEXT = "The cat sat on the mat; the cat's hat, that's that. Über 1234 中文 déjà\n" * 3
MUTANTS = 2_500  # of each kind
SPECIAL = [AddedToken("<x>"), AddedToken("cat hat", special=False, lstrip=True, normalized=True)]
TOKENIZERS = {
    "bpe": BPETokenizer.train(TEXT, 280, pattern="cl100k", special_tokens=SPECIAL),
    "char": CharTokenizer.train(TEXT, SPECIAL),
    "wordpiece": WordPieceTokenizer.train(TEXT, 80),
    "unigram": UnigramTokenizer.train(TEXT, 80),
    "marked": MarkedBPETokenizer(
        ["<unk>", "<0xC3>", "<0x89>", "▁", "a", "t", "h", "at", "▁at"],
        [(4, 5), (3, 7)],
        unk_id=0,
        normalizer={"type": "NFC"},
        added=SPECIAL,
    ),
}


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_mutated_file_is_refused_or_works(name, tmp_path):
    rng = random.Random(0)
    content = TOKENIZERS[name].to_json()
    content = json.loads(json.dumps(content))
    data = json.dumps(content, ensure_ascii=False).encode()
    paths = list(places(content))
    loaded = 0
    for i in range(MUTANTS):
        if i % 2:
            mutant = mutate_bytes(data, rng)
        else:
            mutant = json.dumps(mutate_value(content, paths, rng)).encode()
        (tmp_path / "tokenizer.json").write_bytes(mutant)
        loaded += loads_and_works(load_tokenizer, tmp_path)
    assert 0.02 * MUTANTS < loaded < 0.8 * MUTANTS, loaded
