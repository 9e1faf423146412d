"""Put a pre-trained model to a new use: which layers learn and when, rare classes, more texts.

Layers are those of `layer_groups`: the embeddings, each block, and what stands on the blocks. That
lower ones learn more slowly is `TrainingConfig.layer_decay`; to keep the best of the models that a
run passes through is `Trainer.restore_best`.
"""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from minilm.functional import IGNORE_INDEX
from minilm.nn.module import Module, layer_groups
from minilm.tensor import Array

Label = TypeVar("Label")


# --- Which layers learn -----------------------------------------------------------------------


def freeze_layers(model: Module, n_layers: int) -> None:
    """Freeze the embeddings and the n_layers bottom blocks; 0 freezes the embeddings alone.

    The backward pass ends where the frozen layers begin. An output matrix that is the embedding's
    is frozen with it. Call it before `build_optimizer`, which then keeps no moments for them.

    Raises: ValueError — more blocks than there are, or fewer than 0; a model without blocks.
    Source: Lee, Tang & Lin 2019, arXiv 1911.03090.
    """
    groups = layer_groups(model)
    if not 0 <= n_layers <= len(groups) - 2:
        raise ValueError(
            f"freeze_layers: expected 0 <= n_layers <= {len(groups) - 2}, the blocks of "
            f"{type(model).__name__}, got {n_layers}; all of them leave the head to learn"
        )
    for group in groups[: n_layers + 1]:
        for parameter in group:
            parameter.requires_grad = False


class GradualUnfreezing:
    """At step t the last 1 + ⌊t / interval⌋ groups learn, the others are frozen.

    So the head learns alone at first, and every `interval` steps (the paper takes an epoch's) the
    next lower group joins, until all do. Give it to a `Trainer` as one of `before_step`: it
    depends on the step alone, and a resumed run is exact.

    Make it, and the optimizer, before the first step, while all that shall ever learn is unfrozen:
    what is frozen by then stays frozen, and groups in which nothing else is left are no stage of
    their own. `model.requires_grad_()` unfreezes a model that a run has left half-way.

    Raises: ValueError — interval < 1, a model without blocks, or one that is frozen all over.
    Source: Howard & Ruder 2018, arXiv 1801.06146, section 3.3.
    """

    def __init__(self, model: Module, interval: int) -> None:
        groups = [[p for p in group if p.requires_grad] for group in layer_groups(model)]
        self.groups, self.interval = [group for group in groups if group], interval
        if interval < 1:
            raise ValueError(
                f"GradualUnfreezing: expected interval >= 1, got {interval}; an epoch's steps, say"
            )
        if not self.groups:
            raise ValueError(
                "GradualUnfreezing: expected a parameter that may learn, got a model that is "
                "frozen all over; call model.requires_grad_() first"
            )

    def __call__(self, step: int) -> None:
        """Freeze and unfreeze for the step that comes after `step` steps."""
        learning = 1 + step // self.interval
        for distance, group in enumerate(reversed(self.groups)):
            for parameter in group:
                parameter.requires_grad = distance < learning


# --- Rare classes -----------------------------------------------------------------------------


def class_weights(labels: Array | Sequence[int], n_classes: int) -> Array:
    """w_c = n / (n_classes · n_c): all classes weigh alike, and an example 1 on average.

    n_c of the n labels are c; -100 is no label. A class without examples has no such weight, and
    is an error rather than a 0, which would hide its mistakes from every evaluation.

    Shapes: (N)i -> (n_classes)
    Raises: TypeError — labels that are no whole numbers; IndexError — one outside 0..n_classes-1;
        ValueError — a class without examples.
    Source: King & Zeng 2001, Political Analysis 9(2); as "balanced" in scikit-learn.

    >>> class_weights([0, 0, 0, 1], 2)
    array([0.66666667, 2.        ])
    """
    found = np.asarray(labels).reshape(-1)
    found = found[found != IGNORE_INDEX]
    if found.size and found.dtype.kind not in "iu":
        raise TypeError(
            f"class_weights: expected labels as whole numbers, got {found.dtype}; a regression has "
            "no classes, and names of classes must be numbered first"
        )
    if found.size and not (0 <= found.min() and found.max() < n_classes):
        raise IndexError(
            f"class_weights: expected labels in 0..{n_classes - 1}, got "
            f"{found.min()}..{found.max()}; n_classes must be the number of all classes"
        )
    counts = np.bincount(found.astype(np.int64), minlength=n_classes)
    if not counts.all():
        raise ValueError(
            f"class_weights: expected examples of all {n_classes} classes, got none of "
            f"{np.flatnonzero(counts == 0).tolist()}; leave those classes out, or write the "
            "weights by hand"
        )
    return found.size / (n_classes * counts)


# --- More texts -------------------------------------------------------------------------------


def random_deletion(words: Sequence[str], p: float, rng: np.random.Generator) -> list[str]:
    """Without each word with probability p; were none left, one of them, drawn at random, stays.

    Raises: ValueError — p outside 0..1.
    Source: Wei & Zou 2019, arXiv 1901.11196, section 2.

    >>> random_deletion("the cat sat on the mat".split(), 0.2, np.random.default_rng(0))
    ['the', 'cat', 'the', 'mat']
    """
    kept = ~_drawn(words, p, rng)
    if len(words) and not kept.any():
        kept[rng.integers(len(words))] = True
    return [word for word, stays in zip(words, kept, strict=True) if stays]


def random_swap(words: Sequence[str], n: int, rng: np.random.Generator) -> list[str]:
    """Two words at different places, drawn at random, change places; n times.

    Raises: ValueError — n < 0.
    Source: Wei & Zou 2019, arXiv 1901.11196, section 2.

    >>> random_swap("the cat sat on the mat".split(), 1, np.random.default_rng(0))
    ['the', 'cat', 'sat', 'the', 'on', 'mat']
    """
    if n < 0:
        raise ValueError(f"random_swap: expected n >= 0 swaps, got {n}; 0 leaves the words alone")
    swapped = list(words)
    for _ in range(n if len(swapped) > 1 else 0):
        i, j = rng.choice(len(swapped), 2, replace=False)
        swapped[i], swapped[j] = swapped[j], swapped[i]
    return swapped


def random_masking(
    words: Sequence[str], p: float, mask: str, rng: np.random.Generator
) -> list[str]:
    """With `mask` in the place of each word with probability p.

    Raises: ValueError — p outside 0..1.
    Source: "blank noising" in Xie et al. 2017, arXiv 1703.02573.

    >>> random_masking("the cat sat on the mat".split(), 0.2, "_", np.random.default_rng(0))
    ['the', 'cat', '_', '_', 'the', 'mat']
    """
    masked = _drawn(words, p, rng)
    return [mask if hidden else word for word, hidden in zip(words, masked, strict=True)]


def _drawn(words: Sequence[str], p: float, rng: np.random.Generator) -> Array:
    """Which words are chosen, each with probability p."""
    if not 0 <= p <= 1:
        raise ValueError(f"expected a probability 0 <= p <= 1, got {p}; the paper takes 0.05..0.1")
    return rng.random(len(words)) < p


def augment(
    text: str, rng: np.random.Generator, *, alpha: float = 0.1, mask: str | None = None
) -> str:
    """The text after one operation, drawn at random: deletion, swap or, with a `mask`, masking.

    About the share α of its words is touched: p = α, and max(1, ⌊α · words⌋) swaps. Words are what
    white space parts, so a script without spaces is one word and stays as it is. The result is
    never empty. The mask is read as the text is: take a word that the tokenizer knows, as "_".
    "[MASK]" would be cut into its signs, since special tokens in a text are ordinary text.

    Raises: ValueError — α not in (0, 1], a text without words.
    Source: Wei & Zou 2019, arXiv 1901.11196, section 2.
    Differs: synonyms, replaced and inserted in the paper, need a thesaurus; masking is in their
        place.

    >>> augment("the cat sat on the mat", np.random.default_rng(1), alpha=0.2)
    'the sat on the mat'
    """
    words = text.split()
    if not 0 < alpha <= 1:
        raise ValueError(f"augment: expected 0 < alpha <= 1, got {alpha}; the paper takes 0.1")
    if not words:
        raise ValueError(f"augment: expected a text with words, got {text!r}; leave it out")
    match int(rng.integers(2 if mask is None else 3)):
        case 0:
            words = random_deletion(words, alpha, rng)
        case 1:
            words = random_swap(words, max(1, int(alpha * len(words))), rng)
        case _:
            words = random_masking(words, alpha, mask or "", rng)
    return " ".join(words)


def augment_texts(
    texts: Sequence[str],
    labels: Sequence[Label],
    n_augmented: int,
    rng: np.random.Generator,
    *,
    alpha: float = 0.1,
    mask: str | None = None,
) -> tuple[list[str], list[Label]]:
    """Each text, n_augmented copies of it changed by `augment` right behind, and all their labels.

    For training texts, before they are tokenized, with a label each. Augment after the split: a
    copy of a validation text among the training texts would tell the answer.

    Raises: ValueError — not as many labels as texts, n_augmented < 0, or what `augment` refuses.
    Source: Wei & Zou 2019, arXiv 1901.11196, table 3: 16 copies of 500 texts, 4 of 5,000.

    >>> augment_texts(["a b c", "d e"], [1, 0], 1, np.random.default_rng(0))
    (['a b c', 'a c b', 'd e', 'e'], [1, 1, 0, 0])
    """
    if len(texts) != len(labels) or n_augmented < 0:
        raise ValueError(
            "augment_texts: expected a label for each text and n_augmented >= 0, got "
            f"{len(texts)} texts, {len(labels)} labels and n_augmented = {n_augmented}; for texts "
            "without labels give a list of None"
        )
    more: list[str] = []
    for text in texts:
        more.append(text)
        more += [augment(text, rng, alpha=alpha, mask=mask) for _ in range(n_augmented)]
    return more, [label for label in labels for _ in range(1 + n_augmented)]
