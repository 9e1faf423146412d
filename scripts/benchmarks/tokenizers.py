"""Tokenizers beside their peers: training and encoding, in turns.

    python scripts/benchmarks/tokenizers.py --data shakespeare.txt
    python scripts/benchmarks/tokenizers.py --data shakespeare.txt novel.txt --megabytes 10
    python scripts/benchmarks/tokenizers.py --words            # one word of up to a million letters

With --megabytes the text is that much of the files' lines, shuffled and repeated. Peers are
installed by hand: `pip install tokenizers tiktoken`. "Cold" forgets remembered chunks before each
repetition, on both sides; "warm" does not. All use the tokenizer that minilm trained.
"""

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

from alternate import Contestant, compare, serve

from minilm import data
from minilm.tokenizers import BPETokenizer, UnigramTokenizer, WordPieceTokenizer, load_tokenizer
from minilm.tokenizers.pretokenize import Splitter

VOCAB_SIZE = 4096
LARGE = 16_384  # for the two whose vocabularies must have every character of the text
KINDS = {"bpe": BPETokenizer, "wordpiece": WordPieceTokenizer, "unigram": UnigramTokenizer}
ROWS = {  # name: minilm's contestant, the peer's, what is compared
    "train": ("minilm-train", "hf-train", "BPE training, vocabulary 4,096"),
    "train-512": ("minilm-train-512", "recount", "BPE training, vocabulary 512"),
    "bpe-cold": ("minilm-bpe-cold", "hf-bpe-cold", "BPE encode, cold"),
    "bpe-warm": ("minilm-bpe-warm", "tiktoken", "BPE encode, warm"),
    "wordpiece-cold": ("minilm-wordpiece-cold", "hf-wordpiece-cold", "WordPiece encode, cold"),
    "wordpiece-warm": ("minilm-wordpiece-warm", "hf-wordpiece-warm", "WordPiece encode, warm"),
    "unigram-cold": ("minilm-unigram-cold", "hf-unigram-cold", "Unigram encode, cold"),
    "unigram-warm": ("minilm-unigram-warm", "hf-unigram-warm", "Unigram encode, warm"),
}


def make_text(paths: list[str] | None, megabytes: float) -> str:
    """The files' text, or that much of their lines in random order, again and again."""
    text = "".join(data.read_texts(paths)) if paths else data.embedded_corpus()
    if not megabytes:
        return text
    lines, rng, size, made = text.splitlines(keepends=True), random.Random(0), 0, []
    while size < megabytes * 1e6:
        rng.shuffle(lines)
        made += lines
        size += len(text.encode())
    return "".join(made).encode()[: int(megabytes * 1e6)].decode(errors="ignore")


def recount(text: str, vocab_size: int) -> list[tuple[int, int]]:
    """BPE training as it is usually explained: every chunk of the text counted for every merge."""
    chunks = [list(chunk.encode()) for chunk in Splitter("gpt2").split(text)]
    merges = []
    for new in range(256, vocab_size):
        counts = Counter(pair for chunk in chunks for pair in pairwise(chunk))
        best = max(counts, key=lambda pair: counts[pair])
        for k, chunk in enumerate(chunks):
            joined, i = [], 0
            while i < len(chunk):
                if i + 1 < len(chunk) and (chunk[i], chunk[i + 1]) == best:
                    joined.append(new)
                    i += 2
                else:
                    joined.append(chunk[i])
                    i += 1
            chunks[k] = joined
        merges.append(best)
    return merges


def hf_train(text: str) -> object:
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        min_frequency=2,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([text], trainer)
    return tokenizer


def contestant(name: str, text: str, directory: Path) -> Callable[[], object]:
    """What one side repeats."""
    match name.split("-"):
        case ["minilm", "train", *size]:
            vocab_size = int(size[0]) if size else VOCAB_SIZE
            return lambda: BPETokenizer.train(text, vocab_size)
        case ["hf", "train"]:
            return lambda: hf_train(text)
        case ["recount"]:
            return lambda: recount(text, 512)
        case ["tiktoken"]:
            import tiktoken

            ours: Any = BPETokenizer.load(directory / "bpe")
            ranks = {token: i for i, token in enumerate(ours.token_bytes)}
            theirs = tiktoken.Encoding(
                "ours", pat_str=ours.pattern, mergeable_ranks=ranks, special_tokens={}
            )
            return lambda: theirs.encode(text)
        case ["minilm", kind, heat]:
            tokenizer: Any = load_tokenizer(directory / kind)
            return lambda: (heat == "cold" and tokenizer._cache.clear(), tokenizer.encode(text))
        case ["hf", kind, heat]:
            from tokenizers import Tokenizer

            peer = Tokenizer.from_file(str(directory / kind / "tokenizer.json"))
            forget = getattr(peer.model, "_clear_cache", lambda: None)
            cold = heat == "cold"
            return lambda: (cold and forget(), peer.encode(text, add_special_tokens=False))
    raise ValueError(name)


def one_word() -> None:
    """Seconds to encode one word of equal, and of random letters."""
    text = data.embedded_corpus()
    tokenizers = {name: kind.train(text, VOCAB_SIZE) for name, kind in KINDS.items()}
    print(
        f"{'letters':>9} "
        + " ".join(f"{n + ' ' + w:>16}" for n in KINDS for w in ("equal", "random"))
    )
    for length in (1_000, 10_000, 100_000, 1_000_000):
        words = (
            "e" * length,
            "".join(random.Random(0).choices("abcdefghijklmnopqrstuvwxyz", k=length)),
        )
        times = []
        for tokenizer in tokenizers.values():
            for word in words:
                start = time.perf_counter()
                tokenizer.encode(word)
                times.append(time.perf_counter() - start)
        print(f"{length:9,} " + " ".join(f"{seconds:16.4f}" for seconds in times), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="+", help="text files; the embedded corpus without")
    parser.add_argument("--megabytes", type=float, default=0, help="of shuffled lines")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--seconds", type=float, default=20, help="time per row")
    parser.add_argument("--words", action="store_true", help="one word of many letters instead")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.words:
        return one_word()
    if args.child:
        name, text, directory = args.child
        run = contestant(name, Path(text).read_bytes().decode(), Path(directory))
        return serve(run, warmup=0 if name == "recount" else 1)
    with tempfile.TemporaryDirectory() as directory:
        text = make_text(args.data, args.megabytes)
        path = Path(directory, "text.txt")
        path.write_bytes(text.encode())
        size = len(text.encode()) / 1e6
        print(f"{size:.2f} MB of text; training the tokenizers", file=sys.stderr)
        for name, kind in KINDS.items():
            if any(name in row for row in args.rows):
                size_wanted = VOCAB_SIZE if name == "bpe" else LARGE
                kind.train(text, size_wanted).save(Path(directory, name))
        print(f"{'':34} {'minilm':>12} {'peer':>12} {'minilm/peer time (quartiles)':>30}")
        for row in args.rows:
            ours, theirs, title = ROWS[row]
            a, b = (
                Contestant(name, [__file__, "--child", name, str(path), directory])
                for name in (ours, theirs)
            )
            block = 0 if "train" in row else 0.3
            result = compare(a, b, args.seconds, block, least=2 if theirs == "recount" else 5)
            a.close(), b.close()
            low, high = result["quartiles"]
            shown = [
                f"{seconds:.2f} s" if "train" in row else f"{size / seconds:.1f} MB/s"
                for seconds in result["medians"].values()
            ]
            ratio = f"{result['ratio']:.3f} ({low:.3f} .. {high:.3f})"
            print(f"{title:34} {shown[0]:>12} {shown[1]:>12} {ratio:>30}", flush=True)


if __name__ == "__main__":
    main()
