"""Draw what the heads of a trained model look at: a picture for each kind of attention.

    python scripts/plot_attention.py runs/seq2seq --text "date: the third of November 2024"
    python scripts/plot_attention.py runs/seq2seq --text "date: 3 Nov 2024" --target 2024-11-03
    python scripts/plot_attention.py runs/mlm --text "A list is mutable." --target "So is a set."
    python scripts/plot_attention.py runs/causal --text "The statement" --layer 0

What it teaches: how a decoder finds its way through a source, and what other heads are busy with.
A row is where a token looks from, a column what it looks at; rows sum to 1. A row of
cross-attention is named by the token that is written there, so that what belongs together stands
side by side. Without --target an encoder-decoder writes its own.
"""

import argparse
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from attention_maps import Picture, look
from glyphs import fonts, names

from minilm import checkpoint
from minilm.tokenizers import Tokenizer, load_tokenizer


def draw(picture: Picture, tokenizer: Tokenizer, path: Path, only: argparse.Namespace) -> None:
    """A panel for each head: layers from top to bottom, heads from left to right.

    Raises: ValueError — a layer or a head that there is not.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    layers, rows, columns = picture
    chosen = []
    for name, number, count in (
        ("--layer", only.layer, len(layers)),
        ("--head", only.head, layers[0].shape[1]),
    ):
        if number is not None and not 0 <= number < count:
            raise ValueError(
                f"{name}: expected 0 to {count - 1}, got {number}; leave it out to draw all"
            )
        chosen.append(range(count) if number is None else [number])
    down, across = names(tokenizer, rows), names(tokenizer, columns)
    ticks: Any = {"fontsize": 7, "parse_math": False}
    size = [max(2.4, 0.19 * len(ids) + 0.7) for ids in (columns, rows)]
    with rc_context({"font.family": fonts()[0]}):
        figure = Figure((size[0] * len(chosen[1]), size[1] * len(chosen[0])), layout="constrained")
        panels = figure.subplots(len(chosen[0]), len(chosen[1]), squeeze=False)
        for i, layer in enumerate(chosen[0]):
            for j, head in enumerate(chosen[1]):
                axes = panels[i, j]
                axes.imshow(layers[layer][0, head], cmap="Blues", vmin=0, vmax=1, aspect="auto")
                axes.set_title(f"layer {layer}, head {head}", fontsize=8)
                axes.set_xticks(range(len(columns)), across, rotation=90, **ticks)
                axes.set_yticks(range(len(rows)), down, **ticks)
        figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="directory that a training script left behind")
    parser.add_argument("--text", required=True, help="what is read")
    parser.add_argument("--target", help="what a decoder writes; of BERT, the second text")
    parser.add_argument("--layer", type=int, help="this one alone, from 0 on")
    parser.add_argument("--head", type=int, help="this one alone, from 0 on")
    parser.add_argument("--out", type=Path, help="directory of the pictures; default: the run's")
    args = parser.parse_args()
    model, tokenizer = checkpoint.load_model(args.run), load_tokenizer(args.run)
    directory = args.out or args.run
    directory.mkdir(parents=True, exist_ok=True)
    for kind, picture in look(model, tokenizer, args.text, args.target).items():
        path = directory / f"attention-{kind}.png"
        draw(picture, tokenizer, path, args)
        print(path)


if __name__ == "__main__":
    if find_spec("matplotlib") is None:
        sys.exit("error: the scripts need tqdm and matplotlib: pip install -e '.[scripts]'")
    try:
        main()
    except (ValueError, IndexError, OSError) as error:
        sys.exit(f"error: {error}")
