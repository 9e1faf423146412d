"""Does the second text follow the first? Pairs of sentences for BERT's two objectives.

A "sentence" of a pair is a stretch of several sentences of one document. For half of the pairs B
is what follows A (label 0); for the others it is a stretch of another document (label 1), and never
one that begins like the sentence that follows A, even where documents repeat each other.

Source: Devlin et al. 2018, arXiv 1810.04805, section 3.1 and appendix A.2, and its code.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import NamedTuple

import numpy as np
import regex

from minilm import functional as F
from minilm.objectives.causal import Batch
from minilm.objectives.masked import Masking, masked_loss
from minilm.tensor import Array, Tensor

SHORT = 0.1  # share of the pairs that are made shorter than there is room for
SENTENCE_END = regex.compile(r"""[.!?]["'”’)\]]*+(?=\s)|[。！？]["'”’」』）)]*+(?![。！？])""")


def split_sentences(text: str) -> list[str]:
    """The sentences of a text, without whitespace around them.

    A sentence ends behind . ! or ? where whitespace follows, and behind 。！or ？ wherever they
    stand; closing quotes and brackets still belong to it. Abbreviations end sentences too.

    >>> split_sentences('It is 3.5 km. "Really?" he asked. 是的。好！')
    ['It is 3.5 km.', '"Really?"', 'he asked.', '是的。', '好！']
    """
    ends = [0, *(match.end() for match in SENTENCE_END.finditer(text)), len(text)]
    parts = (text[a:b].strip() for a, b in zip(ends, ends[1:], strict=False))
    return [part for part in parts if part]


def split_documents(text: str) -> list[list[str]]:
    """The documents of a text, which blank lines separate, each as its sentences.

    >>> split_documents("One. Two.\\nThree.\\n\\nA new one.")
    [['One.', 'Two.', 'Three.'], ['A new one.']]
    """
    return [found for part in regex.split(r"\n\s*\n", text) if (found := split_sentences(part))]


class Pair(NamedTuple):
    """Two stretches of tokens; label 0: the second follows the first, 1: it does not."""

    first: Array
    second: Array
    label: int


def truncate_pair(first: Array, second: Array, max_tokens: int) -> tuple[Array, Array]:
    """Tokens are taken from the longer one, or else the second, until max_tokens are left.

    The first loses its beginning and the second its end, so that they still touch.

    Shapes: (N), (M) -> (N'), (M')
    Source: Devlin et al. 2018, the code.
    Differs: BERT takes each token from the beginning or the end by chance.

    >>> truncate_pair(np.arange(10), np.arange(20, 23), 7)
    (array([6, 7, 8, 9]), array([20, 21, 22]))
    """
    keep_second = min(len(second), max(max_tokens // 2, max_tokens - len(first)))
    keep_first = min(len(first), max_tokens - keep_second)
    return first[len(first) - keep_first :], second[:keep_second]


class Documents:
    """Tokenised documents, sentence by sentence, in flat arrays; empty ones are left out.

    Sentence s is tokens[ends[s] : ends[s + 1]], document d the sentences bounds[d] to (without)
    bounds[d + 1]. `starts` are the sentences that another one of the same document follows.

    Raises: ValueError — fewer than two documents, none with two sentences.
    """

    def __init__(self, documents: Iterable[Iterable[Sequence[int]]]) -> None:
        kept = [[sentence for sentence in document if len(sentence)] for document in documents]
        sizes = np.array([len(document) for document in kept if document], np.int64)
        if len(sizes) < 2 or sizes.max() < 2:
            raise ValueError(
                "Documents: expected two documents or more, one of them with two sentences, got "
                f"{len(sizes)} with at most {sizes.max(initial=0)}; see split_documents"
            )
        sentences = list(chain.from_iterable(kept))
        self.tokens = np.fromiter(chain.from_iterable(sentences), np.int32)
        self.ends = np.append(0, np.cumsum([len(sentence) for sentence in sentences]))
        self.bounds = np.append(0, np.cumsum(sizes))
        self.starts = np.setdiff1d(np.arange(self.bounds[-1]), self.bounds[1:] - 1)

    def pair(
        self, start: int, is_next: bool, max_tokens: int, rng: np.random.Generator
    ) -> tuple[Pair, int]:
        """A pair whose first text begins with sentence `start`, and the first sentence not in it.

        From there as many sentences are taken as it takes to fill max_tokens, or, for a tenth of
        the pairs, any smaller number of tokens, but at least two, and no more than the document
        has. A is the first of them, how many is left to chance; B is the rest, or else as much of
        another document, beginning at any sentence outside this one, all equally likely.

        Raises: ValueError — max_tokens below 2, a document's last sentence as `start`, no sentence
        elsewhere that is not the next.
        BERT also makes a negative of a single long sentence; it draws the other document first,
        then the sentence, and does not look whether that is what follows.
        """
        if max_tokens < 2:
            raise ValueError(
                f"Documents.pair: expected max_tokens >= 2, got {max_tokens}; max_len >= 5 has "
                "room for a pair and three special tokens"
            )
        target = max_tokens if rng.random() >= SHORT else int(rng.integers(2, max_tokens + 1))
        stop = self._stop(start, target, least=2)
        if stop - start < 2:
            raise ValueError(
                f"Documents.pair: expected a sentence that another of its document follows, got "
                f"{start}, its last; take one of `starts`"
            )
        split = int(rng.integers(start + 1, stop))
        first = self._between(start, split)
        if is_next:
            return Pair(*truncate_pair(first, self._between(split, stop), max_tokens), 0), stop
        return self._negative(first, split, target - len(first), max_tokens, rng), split

    def _negative(
        self, first: Array, split: int, target: int, max_tokens: int, rng: np.random.Generator
    ) -> Pair:
        """The first text and one of another document, not beginning like sentence `split`."""
        begin, end = self.bounds[self._document(split) :][:2]
        elsewhere = self.bounds[-1] - (end - begin)
        following = self._between(split, split + 1)
        drawn = rng.integers(elsewhere)
        for i in range(elsewhere):  # the drawn sentence, or the first one after it that will do
            s = (drawn + i) % elsewhere
            s += (end - begin) * (s >= begin)
            second = self._between(s, self._stop(s, target))
            pair = Pair(*truncate_pair(first, second, max_tokens), 1)
            n = min(len(pair.second), len(following))
            if not np.array_equal(pair.second[:n], following[:n]):
                return pair
        raise ValueError(
            "Documents: expected a sentence in another document that differs from the one that "
            f"follows, got none in {elsewhere}; leave out documents that repeat each other"
        )

    def _document(self, sentence: int) -> int:
        return int(np.searchsorted(self.bounds, sentence, "right")) - 1

    def _between(self, start: int, stop: int) -> Array:
        return self.tokens[self.ends[start] : self.ends[stop]]

    def _stop(self, start: int, target: int, least: int = 1) -> int:
        """Behind how many sentences there are `target` tokens, or the document ends."""
        full = int(np.searchsorted(self.ends, self.ends[start] + target))
        return min(max(full, start + least), int(self.bounds[self._document(start) + 1]))


def sentence_pairs(
    documents: Documents, max_tokens: int, rng: np.random.Generator
) -> Iterator[Pair]:
    """Pairs of all documents in order, each the next with probability 1/2.

    A text begins where the one before ended: behind B, or behind A if B is not what follows. A
    document's last sentence alone is not the beginning of a pair. Errors are those of a pair.
    """
    for begin, end in zip(documents.bounds, documents.bounds[1:], strict=False):
        start = int(begin)
        while start + 1 < end:
            pair, start = documents.pair(start, rng.random() < 0.5, max_tokens, rng)
            yield pair


def assemble(
    pairs: Sequence[Pair], cls_id: int, sep_id: int, pad_id: int, max_len: int | None = None
) -> Batch:
    """[CLS] first [SEP] of type 0, second [SEP] of type 1, padding up to max_len.

    Without max_len the longest pair says how long. An attention_mask of 0 is padding.

    Raises: ValueError — a pair that is longer than max_len.
    Source: Devlin et al. 2018, arXiv 1810.04805, figure 2.

    >>> batch = assemble([Pair(np.array([11, 12]), np.array([13]), 0)], 1, 2, 0, max_len=7)
    >>> batch["input_ids"], batch["token_type_ids"]
    (array([[ 1, 11, 12,  2, 13,  2,  0]]), array([[0, 0, 0, 0, 1, 1, 0]]))
    """
    longest = max((len(pair.first) + len(pair.second) + 3 for pair in pairs), default=0)
    length = longest if max_len is None else max_len
    if longest > length:
        raise ValueError(
            f"assemble: expected pairs of at most max_len - 3 = {length - 3} tokens, got "
            f"{longest - 3}; make them with max_tokens = max_len - 3"
        )
    shape = (len(pairs), length)
    input_ids, special = np.full(shape, pad_id, np.int64), np.ones(shape, np.int64)
    types, mask = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    for i, (first, second, _) in enumerate(pairs):
        middle = len(first) + 2
        end = middle + len(second) + 1
        input_ids[i, [0, middle - 1, end - 1]] = cls_id, sep_id, sep_id
        input_ids[i, 1 : middle - 1], input_ids[i, middle : end - 1] = first, second
        types[i, middle:end] = mask[i, :end] = 1
        special[i, 1 : middle - 1] = special[i, middle : end - 1] = 0
    labels = np.array([pair.label for pair in pairs], np.int64)
    batch = {"input_ids": input_ids, "token_type_ids": types, "attention_mask": mask}
    return {**batch, "special_tokens_mask": special, "next_sentence_label": labels}


def pretraining_loss(
    logits: Tensor, labels: Array, next_logits: Tensor, next_sentence_label: Array
) -> Tensor:
    """L = L_MLM + L_NSP: the mean over the selected tokens, and the mean over the pairs.

    Shapes: (B, T, V), (B, T)i, (B, 2), (B)i -> ()
    Source: Devlin et al. 2018, arXiv 1810.04805, appendix A.2.
    """
    return masked_loss(logits, labels) + F.cross_entropy(next_logits, next_sentence_label)


class PretrainingBatches:
    """Batches for BERT's pre-training: pairs of `documents`, masked, in rows of at most max_len.

    A batch has input_ids, attention_mask, token_type_ids, labels (B, T), next_sentence_label (B).
    """

    def __init__(self, documents: Documents, masking: Masking, max_len: int) -> None:
        self.documents, self.masking, self.max_tokens = documents, masking, max_len - 3

    def sample(self, rng: np.random.Generator, batch_size: int) -> Batch:
        """Pairs from anywhere, half of them the next (of an odd number: to one), masked anew."""
        starts = rng.choice(self.documents.starts, batch_size)
        are_next = rng.permutation(np.arange(batch_size) + rng.integers(2)) % 2
        draws = zip(starts.tolist(), are_next.tolist(), strict=True)
        pairs = [self.documents.pair(s, x > 0, self.max_tokens, rng)[0] for s, x in draws]
        return self._batch(pairs, rng)

    def evaluation(self, batch_size: int, seed: int = 0) -> Iterator[Batch]:
        """All `sentence_pairs`, the same each time, masked alike for the same batch_size."""
        for_pairs, for_masks = (np.random.default_rng([seed, part]) for part in range(2))
        pairs = sentence_pairs(self.documents, self.max_tokens, for_pairs)
        while rows := list(islice(pairs, batch_size)):
            yield self._batch(rows, for_masks)

    def _batch(self, pairs: Sequence[Pair], rng: np.random.Generator) -> Batch:
        masking = self.masking
        batch = assemble(pairs, masking.cls_id, masking.sep_id, masking.pad_id)
        special = batch.pop("special_tokens_mask")
        batch["input_ids"], batch["labels"] = masking(batch["input_ids"], special, rng)
        return batch
