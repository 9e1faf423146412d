"""What a classifier has to beat: the most frequent class, and a logistic regression on words."""

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from minilm import functional as F
from minilm.optim import Adam
from minilm.tensor import Tensor

Array = np.ndarray[Any, np.dtype[Any]]
STEPS, LEARNING_RATE = 200, 0.05


def majority(labels: Sequence[int] | Array, count: int) -> Array:
    """The most frequent of the labels, `count` times."""
    return np.full(count, np.bincount(labels).argmax())


class BagOfWords:
    """P(class | text) = softmax(W x + b), where x has a 1 for each word that the text contains.

    x is divided by its length, and L = -ln P(label) + decay ‖W‖² is minimised by Adam on all texts
    at once. Words are runs of letters, digits and _; only those of the training texts count.
    """

    def __init__(self, texts: Sequence[str], labels: Sequence[int], decay: float = 1e-5) -> None:
        words = Counter(word for text in texts for word in self._words(text))
        self.columns = {word: i for i, word in enumerate(sorted(words))}
        n_classes = int(np.max(labels)) + 1
        self.weight = Tensor(np.zeros((n_classes, len(words)), np.float32), requires_grad=True)
        self.bias = Tensor(np.zeros(n_classes, np.float32), requires_grad=True)
        x, targets = Tensor(self._rows(texts)), np.asarray(labels)
        optimizer = Adam([self.weight, self.bias], lr=LEARNING_RATE)
        for _ in range(STEPS):
            optimizer.zero_grad()
            loss = F.cross_entropy(F.linear(x, self.weight, self.bias), targets)
            (loss + (self.weight * self.weight).sum() * decay).backward()
            optimizer.step()

    def predict(self, texts: Sequence[str]) -> Array:
        """The most probable class of each text."""
        return (self._rows(texts) @ self.weight.data.T + self.bias.data).argmax(-1)

    @staticmethod
    def _words(text: str) -> set[str]:
        words = re.findall(r"\w+", text.lower())
        return set(words)

    def _rows(self, texts: Sequence[str]) -> Array:
        rows = np.zeros((len(texts), len(self.columns)), np.float32)
        for row, text in zip(rows, texts, strict=True):
            row[[self.columns[word] for word in self._words(text) if word in self.columns]] = 1
        return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1)
