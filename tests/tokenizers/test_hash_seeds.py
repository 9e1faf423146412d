"""The same texts give the same files, whatever order Python's sets and dicts have."""

import hashlib
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

TEXT = "The cat sat on the mat; the cat's hat, that's that.\n\n  Ein Öl für 1234 Männer, né?\n" * 3
CODE = """
import sys
from minilm.tokenizers import *
text, out = sys.argv[1:]
BPETokenizer.train(text, 300, special_tokens=["<a>", "<b>"]).save(out + "/bpe")
WordPieceTokenizer.train(text, 90).save(out + "/wordpiece")
UnigramTokenizer.train(text, 90).save(out + "/unigram")
CharTokenizer.train(text, ["<a>", "<b>"]).save(out + "/char")
"""


def test_twenty_hash_seeds_give_the_same_files(tmp_path):
    def files(seed: int) -> dict[str, str]:
        out = tmp_path / str(seed)
        for name in ("bpe", "wordpiece", "unigram", "char"):
            (out / name).mkdir(parents=True)
        subprocess.run(
            [sys.executable, "-c", CODE, TEXT, str(out)],
            env={**os.environ, "PYTHONHASHSEED": str(seed)},
            check=True,
        )
        return {
            str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in Path(out).rglob("*.*")
        }

    with ThreadPoolExecutor(2) as pool:
        first, *others = pool.map(files, range(20))
    assert len(first) == 7  # four tokenizer.json, GPT-2's two files, BERT's one
    assert all(other == first for other in others)
