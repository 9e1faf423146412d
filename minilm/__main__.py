"""A pipeline from the shell: python -m minilm TASK DIRECTORY [TEXT ...]

    python -m minilm text-generation runs/causal "Once upon a time" --max-new-tokens 40 --seed 0
    python -m minilm question-answering DIRECTORY --question "Who wrote it?" < text.txt
    python -m minilm sentence-similarity DIRECTORY "a cat" --sentences "a kitten" "a car"

Without a TEXT every line of the standard input is one, answered as it comes.
"""

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from minilm.pipelines import ALIASES, TASKS, pipeline

# fmt: off
FLAGS: dict[str, dict[str, Any]] = {  # the arguments of the pipelines that can be given, by name
    "max_new_tokens": {"type": int, "help": "how many tokens to write"},
    "max_length": {"type": int, "help": "the same, the prompt counted too"},
    "min_new_tokens": {"type": int},
    "num_return_sequences": {"type": int},
    "num_beams": {"type": int},
    "length_penalty": {"type": float},
    "no_repeat_ngram_size": {"type": int},
    "repetition_penalty": {"type": float},
    "do_sample": {"action": argparse.BooleanOptionalAction, "help": "draw tokens; needs --seed"},
    "seed": {"type": int, "help": "draw tokens, beginning from this seed"},
    "temperature": {"type": float},
    "top_k": {"type": int, "help": "draw from so many tokens; elsewhere, how many answers to give"},
    "top_p": {"type": float},
    "return_full_text": {"action": argparse.BooleanOptionalAction, "help": "the prompt too"},
    "truncation": {"action": "store_true", "help": "leave out the end of a source too long"},
    "aggregation_strategy": {"help": "of token-classification: none, simple, first, average, max"},
    "stride": {"type": int, "help": "tokens that the windows of a long text share"},
    "sentences": {"nargs": "+", "metavar": "TEXT", "help": "for sentence-similarity"},
    "targets": {"nargs": "+", "metavar": "WORD", "help": "what fill-mask chooses from"},
    "doc_stride": {"type": int},
    "max_answer_len": {"type": int},
    "handle_impossible_answer": {"action": "store_true", "help": "there may be no answer"},
}
# fmt: on


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line; of FLAGS, what was not given is missing."""
    parser = argparse.ArgumentParser(
        prog="python -m minilm",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
    )
    parser.add_argument("task", help=", ".join([*TASKS, *ALIASES]))
    parser.add_argument("directory", help="with a model and its tokenizer, or a run")
    parser.add_argument(
        "text", nargs="*", default=[], help="the inputs; of question-answering, contexts"
    )
    parser.add_argument("--question", default=None, help="of question-answering")
    parser.add_argument("--json", action="store_true", default=False, help="a line for each answer")
    for name, options in FLAGS.items():
        parser.add_argument("--" + name.replace("_", "-"), **options)
    return parser.parse_intermixed_args(arguments)


def show(answer: Any) -> str:
    """An answer for people: a line for each part, its values side by side."""
    if isinstance(answer, dict):
        return "\t".join(show(value) for value in answer.values())
    if isinstance(answer, list):
        return "\n".join(show(part) for part in answer)
    return f"{answer:.4f}" if isinstance(answer, float) else str(answer)


def main(arguments: Sequence[str] | None = None) -> None:
    """Answer what the command line, or the standard input, asks."""
    args = vars(parse(arguments))
    pipe = pipeline(args["task"], args["directory"])
    texts: Iterable[Any] = args["text"] or (line.removesuffix("\n") for line in sys.stdin)
    if args["question"] is not None:
        texts = ({"question": args["question"], "context": text} for text in texts)
    how = {name: args[name] for name in FLAGS if name in args}
    for answer in pipe(iter(texts), **how):
        text = json.dumps(answer, ensure_ascii=False) if args["json"] else show(answer)
        sys.stdout.write(text + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    try:
        main()
    except (ValueError, TypeError, IndexError, OSError) as error:
        sys.exit("error: " + " ".join(str(error).split()))
