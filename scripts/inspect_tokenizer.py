"""Show how a tokenizer cuts a text: in colour in the terminal, or as a page.

    python scripts/inspect_tokenizer.py runs/tokenizer --text "Lower, lowest; it's 2024."
    python scripts/inspect_tokenizer.py runs/tokenizer --file book.txt --html tokens.html

On the page, hold the mouse over a token to see how its word was cut: the merges of BPE, the
longest matches of WordPiece, the five best segmentations of Unigram.
"""

import argparse
import sys
from pathlib import Path

from token_page import page, summary

from minilm.tokenizers import load_tokenizer

ANSI = (44, 43, 42, 45, 46)  # background colours


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("directory", help="what Tokenizer.save wrote to")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--text", default="Lower, lowest; it's 2024. Größe, 中文 😀")
    source.add_argument("--file", type=Path, help="a UTF-8 text file")
    parser.add_argument("--html", type=Path, help="write a page instead")
    args = parser.parse_args()
    tokenizer = load_tokenizer(args.directory)
    text = args.file.read_text(encoding="utf-8") if args.file else args.text
    if args.html:
        args.html.write_text(page(tokenizer, text, str(args.directory)), encoding="utf-8")
        print(args.html)
        return
    ids = tokenizer.encode(text, disallowed_special=())
    tokens = [tokenizer.tokens[i] for i in ids]
    print("".join(f"\033[30;{ANSI[k % 5]}m{token}\033[0m" for k, token in enumerate(tokens)))
    print(*ids)
    print(summary(text, len(ids)))


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
