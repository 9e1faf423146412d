"""What a text-to-text model writes, how good it is, and how good a mere memory would be."""

import argparse
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from pairs import Pair, Parts

from minilm.data import by_length
from minilm.generation import generate
from minilm.metrics_generation import bleu, chrf, exact_match
from minilm.tokenizers import Tokenizer

SAMPLES = 3  # of each task
CUT = {"en": "13a", "zh": "zh"}  # how BLEU tells the words of a language apart


def write(
    model: Any, tokenizer: Tokenizer, sources: Sequence[str], num_beams: int = 1
) -> list[str]:
    """The target that the model gives each source, in batches of sources of similar length."""
    c = model.config
    rows = [
        [*tokenizer.encode(source, disallowed_special=())[: c.max_len - 1], c.eos_token_id]
        for source in sources
    ]
    targets = [""] * len(rows)
    for chosen in by_length([len(row) for row in rows], 64):
        mask = np.arange(max(len(rows[i]) for i in chosen)) < [[len(rows[i])] for i in chosen]
        input_ids = np.full(mask.shape, c.pad_token_id)
        input_ids[mask] = np.concatenate([rows[i] for i in chosen])
        ids = generate(model, input_ids, c.max_len, attention_mask=mask, num_beams=num_beams)
        for i, row in zip(chosen, ids, strict=True):
            targets[i] = tokenizer.decode(row, skip_special_tokens=True)
    return targets


def nearest(train: Sequence[Pair], sources: Sequence[str]) -> list[str]:
    """For each source the target of the training source that it shares most trigrams with.

    Cosine of the sets of their trigrams, each weighed by log(N / n) where n of N sources have it.
    """
    places: dict[str, list[int]] = defaultdict(list)
    for i, (source, _) in enumerate(train):
        for trigram in _trigrams(source):
            places[trigram].append(i)
    squares = {trigram: np.log(len(train) / len(own)) ** 2 for trigram, own in places.items()}
    lengths = np.zeros(len(train))
    for trigram, own in places.items():
        lengths[own] += squares[trigram]
    targets = []
    for source in sources:
        shared = np.zeros(len(train))
        for trigram in _trigrams(source) & places.keys():
            shared[places[trigram]] += squares[trigram]
        targets.append(train[int((shared / np.sqrt(lengths + 1e-9)).argmax())][1])
    return targets


def _trigrams(text: str) -> set[str]:
    text = f"  {text.lower()}  "
    return {text[i : i + 3] for i in range(len(text) - 2)}


def score(
    predictions: Sequence[str], references: Sequence[Sequence[str]], metric: str, language: str
) -> dict[str, float]:
    """The share that is exactly right and, if the metric is bleu, BLEU and chrF."""
    figures = {"exact": exact_match(predictions, references)}
    if metric == "bleu":
        figures["BLEU"] = bleu(predictions, references, tokenize=CUT[language]).score
        figures["chrF"] = chrf(predictions, references)
    return figures


def shown(pairs: list[Pair], targets: list[str]) -> str:
    """What was written for some sources, a line each, with what it should be where it is not."""
    return "\n".join(
        f"  {source}  ->  {target}" + ("" if target == right else f"  ({right})")
        for (source, right), target in zip(pairs, targets, strict=True)
    )


def report(
    args: argparse.Namespace, model: Any, tokenizer: Tokenizer, parts: dict[str, Parts]
) -> dict[str, dict[str, float]]:
    """Samples of each task's test, then a line of figures for it, and for memory beside BLEU."""
    scores = {}
    for task, own in parts.items():
        references = defaultdict(list)
        for source, target in own["test"]:
            references[source].append(target)
        sources, right = list(references), list(references.values())
        targets = write(model, tokenizer, sources, args.num_beams)
        print(shown([(s, r[0]) for s, r in zip(sources, right, strict=True)][:SAMPLES],
                    targets[:SAMPLES]))  # fmt: skip
        scores[task] = score(targets, right, args.metric, args.language)
        if args.metric == "bleu":
            memory = nearest(own["train"], sources)
            scores[f"{task}, nearest"] = score(memory, right, args.metric, args.language)
    print(f"{'unseen':>20}" + "".join(f"{name:>8}" for name in next(iter(scores.values()))))
    for task, figures in scores.items():
        print(f"{task:>20}" + "".join(f"{figure:8.3f}" for figure in figures.values()))
    return scores
