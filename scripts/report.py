"""How good a fine-tuned model is, and what it has to beat."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from bag_of_words import BagOfWords, majority

from minilm import metrics, metrics_text, tasks


def show_scores(rows: dict[str, dict[str, float]]) -> None:
    """A line for each model, a column for each metric."""
    names = list(next(iter(rows.values())))
    print(f"\n{'test':>14}" + "".join(f"{name:>13}" for name in names))
    for model, scores in rows.items():
        print(f"{model:>14}" + "".join(f"{scores[name]:13.4f}" for name in names))


def show_classes(rows: dict[str, metrics.PrecisionRecallF1]) -> None:
    """Precision, recall and F1 of each class."""
    width = max(14, *map(len, rows))
    print(f"\n{'class':>{width}} {'precision':>10} {'recall':>10} {'f1':>10} {'examples':>9}")
    for name, row in rows.items():
        print(f"{name:>{width}} {row.precision:10.3f} {row.recall:10.3f} {row.f1:10.3f} "
              f"{row.support:9}")  # fmt: skip


def by_class(labels: Sequence[str], gold: Any, predicted: Any) -> dict[str, Any]:
    """The figures of each class, by its name."""
    if isinstance(gold[0], list):
        return metrics_text.entity_f1(gold, predicted).by_type
    each = metrics.precision_recall_f1(gold, predicted, None, n_classes=len(labels))
    rows = zip(each.precision, each.recall, each.f1, each.support, strict=True)
    return {name: metrics.PrecisionRecallF1(*row) for name, row in zip(labels, rows, strict=True)}


def baselines(
    train: Sequence[Any], test: Sequence[Any], labels: Sequence[str]
) -> dict[str, np.ndarray[Any, Any]]:
    """Predictions of the most frequent class, and of a logistic regression on words."""
    index = {name: i for i, name in enumerate(labels)}
    targets = [index[example.label] for example in train]
    texts, unseen = (
        [f"{e.text} {e.text_pair or ''}" for e in examples] for examples in (train, test)
    )
    return {
        "majority": majority(targets, len(test)),
        "bag of words": BagOfWords(texts, targets).predict(unseen),
    }


def plot_confusion(labels: Sequence[str], gold: Any, predicted: Any, path: Path) -> None:
    """What the classes were taken for: a row for each class, a column for each prediction."""
    from matplotlib.figure import Figure

    counts = metrics.confusion_matrix(gold, predicted, len(labels))
    size = 3 + 0.6 * len(labels)
    figure = Figure(figsize=(size, size), layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(counts / np.maximum(1, counts.sum(1, keepdims=True)), cmap="Blues", vmin=0, vmax=1)
    for (i, j), count in np.ndenumerate(counts):
        axes.text(j, i, str(count), ha="center", va="center", fontsize=8)
    axes.set_xticks(range(len(labels)), labels, rotation=45, ha="right")
    axes.set_yticks(range(len(labels)), labels)
    axes.set(xlabel="predicted", ylabel="class")
    figure.savefig(path, dpi=120)


def report(
    metric_names: Sequence[str],
    labels: Sequence[str],
    train: Sequence[Any],
    test: tasks.Features,
    predicted: Any,
    directory: Path,
    language: str,
) -> dict[str, dict[str, float]]:
    """Print the scores of the model and its baselines, and what there is on each class."""
    gold = tasks.gold(test)
    found = {"bert": predicted}
    if isinstance(train[0], tasks.TextExample) and labels:
        found = {**baselines(train, test.examples, labels), **found}
    rows = {
        model: tasks.score(metric_names, gold, predictions, language)
        for model, predictions in found.items()
    }
    show_scores(rows)
    if labels:
        show_classes(by_class(labels, gold, predicted))
    if labels and not isinstance(gold[0], list):
        plot_confusion(labels, gold, predicted, directory / "confusion.png")
    return rows
