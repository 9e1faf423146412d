"""Train a tokenizer on your text, and see how well the three algorithms compress it.

    python scripts/train_tokenizer.py                          # BPE, on the Python reference
    python scripts/train_tokenizer.py --data book.txt --algorithm unigram --out tok
    python scripts/inspect_tokenizer.py tok --text "How is this cut?"

The directory holds a `tokenizer.json` that Hugging Face `tokenizers` reads, and the algorithm's
older files (`vocab.json` and `merges.txt`, or `vocab.txt`). The table gives the bytes of text per
token, on the text the tokenizers were trained on: the more, the shorter the sequences. Only BPE
keeps every byte: the other two forget how wide a space was, and WordPiece capitals too.
"""

import argparse
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from minilm import data
from minilm.tokenizers import BPETokenizer, UnigramTokenizer, WordPieceTokenizer

try:
    from tqdm import tqdm
except ImportError:
    sys.exit("error: the scripts need tqdm: pip install -e '.[scripts]'")

ALGORITHMS: dict[str, Any] = {
    "bpe": BPETokenizer,
    "wordpiece": WordPieceTokenizer,
    "unigram": UnigramTokenizer,
}


def train(algorithm: str, texts: Iterable[str], vocab_size: int, options: dict[str, Any]) -> Any:
    """The tokenizer, trained under a progress bar."""
    with tqdm(desc=algorithm, unit="step", dynamic_ncols=True) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = max(done, total)  # Unigram begins with more than it keeps
            bar.update(done - bar.n)

        return ALGORITHMS[algorithm].train(texts, vocab_size, progress=progress, **options)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", action="append", help="a text file or directory; repeatable")
    parser.add_argument("--algorithm", choices=ALGORITHMS, default="bpe")
    parser.add_argument("--vocab-size", type=int, default=4096)
    parser.add_argument("--out", type=Path, default=Path("runs/tokenizer"), help="directory")
    parser.add_argument("--pattern", help="bpe: gpt2, cl100k, or a regular expression")
    parser.add_argument("--special-token", action="append", help="beside the usual; repeatable")
    parser.add_argument("--workers", type=int, default=1, help="bpe: processes that count")
    parser.add_argument(
        "--alone", action="store_true", help="do not train the other two to compare"
    )
    args = parser.parse_args()

    def texts() -> Iterable[str]:
        return data.read_texts(args.data) if args.data else [data.embedded_corpus()]

    options: dict[str, Any] = {}
    if args.special_token:
        options["special_tokens"] = args.special_token
    if args.algorithm == "bpe":
        options |= {"workers": args.workers}
        options |= {"pattern": args.pattern} if args.pattern else {}
    elif args.pattern or args.workers != 1:
        parser.error("--pattern and --workers: expected --algorithm bpe with them")
    n_bytes = sum(len(text.encode()) for text in texts())
    print(f"{n_bytes:,} bytes of text; vocabulary {args.vocab_size:,}")
    rows = []
    for algorithm in dict.fromkeys([args.algorithm, *([] if args.alone else ALGORITHMS)]):
        start = time.perf_counter()
        tokenizer = train(
            algorithm, texts(), args.vocab_size, options if algorithm == args.algorithm else {}
        )
        trained = time.perf_counter()
        n_tokens = sum(len(tokenizer.encode(text, disallowed_special=())) for text in texts())
        seconds = trained - start, time.perf_counter() - trained
        rows.append((algorithm, tokenizer.vocab_size, n_bytes / max(1, n_tokens), *seconds))
        if algorithm == args.algorithm:
            args.out.mkdir(parents=True, exist_ok=True)
            tokenizer.save(args.out)
    print(f"{'algorithm':>10} {'vocabulary':>10} {'bytes/token':>11} {'train':>8} {'encode':>8}")
    for algorithm, vocab_size, compression, trained, encoded in rows:
        line = f"{algorithm:>10} {vocab_size:>10,} {compression:>11.3f} {trained:>6.1f} s"
        print(f"{line} {encoded:>6.2f} s{'   saved' if algorithm == args.algorithm else ''}")
    print(f"\n{args.out}: python scripts/inspect_tokenizer.py {args.out}")


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
