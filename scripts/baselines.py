"""How well BERT finds hidden tokens, and what it has to beat: guesses from counts."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from minilm.functional import IGNORE_INDEX
from minilm.nn import evaluation_mode
from minilm.objectives.masked import Masking
from minilm.tensor import no_grad

Array = np.ndarray[Any, np.dtype[Any]]
WEIGHTS = (0.1, 0.2, 0.3, 0.4, 0.45, 0.49)


@no_grad()
def masked_accuracy(model: Any, batches: Iterable[dict[str, Array]]) -> tuple[float, float]:
    """Of hidden tokens: nats, and the share that the model would guess right."""
    losses, right, count = 0.0, 0, 0
    with evaluation_mode(model):
        for batch in batches:
            output = model(**batch)
            labels = batch["labels"][batch["labels"] != IGNORE_INDEX]
            losses += output.losses[0].item() * len(labels)
            right += int((output.prediction_logits.data.argmax(-1) == labels).sum())
            count += len(labels)
    return losses / count, right / count


def originals(batch: dict[str, Array]) -> Array:
    """The rows as they were before masking."""
    labels = batch["labels"]
    return np.where(labels == IGNORE_INDEX, batch["input_ids"], labels)


class NeighbourGuess:
    """P(w | l, r) = a P(w | left = l) + a P(w | right = r) + (1 - 2a) P(w), by counting.

    It sees the neighbours as they are, even where BERT's are hidden too. What `masking` puts around
    the texts is never hidden: it is a neighbour, but no guess.
    """

    def __init__(
        self, batches: Iterable[dict[str, Array]], vocab_size: int, masking: Masking
    ) -> None:
        never = [masking.cls_id, masking.sep_id, masking.pad_id, masking.mask_id]
        counts = np.ones(vocab_size)  # one more than seen, so that nothing is impossible
        pairs = []
        for batch in batches:
            real = batch["attention_mask"].astype(bool)
            rows = originals(batch)
            counts += np.bincount(rows[real], minlength=vocab_size)
            both = real[:, 1:] & real[:, :-1]
            pairs.append(np.stack([rows[:, :-1][both], rows[:, 1:][both]]))
        counts[never] = 0
        self.unigram = counts / counts.sum()
        left, right = np.concatenate(pairs, axis=1)
        self.after, self.before = _table(left, right, never), _table(right, left, never)

    def evaluate(self, batches: Iterable[dict[str, Array]]) -> dict[str, tuple[float, float]]:
        """(nats per token, accuracy) of the unigram and of the best mixture with the bigrams."""
        nothing = (np.zeros(0, int), np.zeros(0))
        losses: dict[float, list[float]] = {a: [] for a in (0.0, *WEIGHTS)}
        right: dict[float, list[bool]] = {a: [] for a in losses}
        for batch in batches:
            rows = originals(batch)
            for i, t in zip(*np.nonzero(batch["labels"] != IGNORE_INDEX), strict=True):
                l_ids, l_p = self.after.get(rows[i, t - 1], nothing)
                r_ids, r_p = self.before.get(rows[i, t + 1], nothing)
                for a in losses:
                    p = (1 - 2 * a) * self.unigram
                    p[l_ids] += a * l_p
                    p[r_ids] += a * r_p
                    losses[a].append(-np.log(p[rows[i, t]]))
                    right[a].append(p.argmax() == rows[i, t])
        best = min(WEIGHTS, key=lambda a: np.mean(losses[a]))
        return {
            name: (float(np.mean(losses[a])), float(np.mean(right[a])))
            for name, a in (("unigram", 0.0), ("bigrams", best))
        }


def _table(given: Array, found: Array, never: list[int]) -> dict[int, tuple[Array, Array]]:
    """given -> (what was found with it, its share), without what is never hidden."""
    hidden = ~np.isin(found, never)
    given, found = given[hidden], found[hidden]
    order = np.argsort(given, kind="stable")
    given, found = given[order], found[order]
    values, starts = np.unique(given, return_index=True)
    parts = np.split(found, starts[1:])
    counted = (np.unique(part, return_counts=True) for part in parts)
    return {
        int(value): (ids, counts / counts.sum())
        for value, (ids, counts) in zip(values, counted, strict=True)
    }
