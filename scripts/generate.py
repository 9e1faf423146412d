"""Sample from a trained run, streaming as it goes.

    python scripts/generate.py runs/causal --prompt "The statement"

What it teaches: what temperature, top-k and top-p do to the same model.
"""

import argparse
import codecs
import sys

import numpy as np

from minilm import checkpoint, generation
from minilm.tokenizers import load_tokenizer


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", help="directory that a training script left behind")
    parser.add_argument("--prompt", default="\n")
    parser.add_argument("--max-new-tokens", type=int, default=300)
    parser.add_argument("--samples", type=int, default=1)
    parser.add_argument("--greedy", action="store_true", help="always the most probable token")
    parser.add_argument("--temperature", type=float, help="0.8 unless given, with --greedy none")
    parser.add_argument("--top-k", type=int)
    parser.add_argument("--top-p", type=float)
    parser.add_argument("--repetition-penalty", type=float, default=1.0)
    parser.add_argument("--stop", help="end at the first token of this text")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    if args.temperature is None:
        args.temperature = 1.0 if args.greedy else 0.8
    model, tokenizer = checkpoint.load_model(args.run), load_tokenizer(args.run)
    rng = np.random.default_rng(args.seed)
    prompt = np.array([tokenizer.encode(args.prompt)])
    for _ in range(args.samples):
        # A token may end inside a character: the decoder holds such bytes back.
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        print(args.prompt, end="", flush=True)
        for token in generation.stream(
            model,
            prompt,
            args.max_new_tokens,
            do_sample=not args.greedy,
            temperature=args.temperature,
            top_k=args.top_k,
            top_p=args.top_p,
            repetition_penalty=args.repetition_penalty,
            eos_token_id=tokenizer.encode(args.stop)[:1] if args.stop else None,
            rng=rng,
        ):
            print(decoder.decode(tokenizer.decode_bytes(token.tolist())), end="", flush=True)
        print(decoder.decode(b"", final=True))


if __name__ == "__main__":
    try:
        main()
    except (ValueError, IndexError, OSError) as error:
        sys.exit(f"error: {error}")
