"""How far counting gets: n-gram models of orders 1 to 8 over characters.

    python scripts/benchmarks/ngrams.py                        # the Python language reference
    python scripts/benchmarks/ngrams.py --data shakespeare.txt

Trained on the first 90 % of the text, measured on the whole rest.
"""

import argparse
import time

from minilm import data
from minilm.models.ngram import NGram
from minilm.tokenizers import CharTokenizer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", action="append", help="a text file or directory; repeatable")
    args = parser.parse_args()
    text = "".join(data.read_texts(args.data)) if args.data else data.embedded_corpus()
    tokenizer = CharTokenizer.train(text)
    train, validation = data.split(tokenizer.encode_array(text))
    print(f"{len(train):,} training and {len(validation):,} validation characters")
    print(f"{'order':>5} {'nats/char':>9} {'parameters':>10} {'seconds':>7}")
    for order in range(1, 9):
        start = time.perf_counter()
        model = NGram.train(train, order, tokenizer.vocab_size)
        seconds = time.perf_counter() - start
        loss = model.evaluate(validation)
        print(f"{order:5} {loss:9.4f} {model.parameters:10,} {seconds:7.2f}")


if __name__ == "__main__":
    main()
