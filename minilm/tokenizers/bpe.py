"""Byte-pair encoding over bytes: begin with bytes, keep joining the most frequent pair.

Text is first cut into chunks by a pattern (see `pretokenize`); no token crosses a chunk. Any text
can be encoded, for the 256 bytes are tokens.

Source: Sennrich, Haddow, Birch 2016, arXiv 1508.07909, algorithm 1; over bytes as in Radford et
al. 2019 (GPT-2). The file is the `tokenizer.json` of Hugging Face `tokenizers`.
"""

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from functools import lru_cache, partial
from itertools import pairwise
from typing import Any, Self

from minilm.tokenizers.base import (
    Texts,
    Tokenizer,
    as_texts,
    check,
    check_unicode,
    check_vocabulary,
    hf_layout,
)
from minilm.tokenizers.pretokenize import (
    BYTE_CHARACTERS,
    GPT2_PATTERN,
    chunks,
    compile_pattern,
    parse_bytes,
    show_bytes,
)

Pair = tuple[int, int]
Word = list[int]
CACHED_CHUNKS = 2**16
LONGEST_CACHED = 256  # characters: a cache of long chunks would be large and seldom hit
# The ids of the 256 bytes, in GPT-2's order: printable ones first.
BYTE_TOKENS = [bytes([byte]) for byte in sorted(range(256), key=BYTE_CHARACTERS.__getitem__)]
BYTE_IDS = {token: i for i, token in enumerate(BYTE_TOKENS)}


class BPETokenizer(Tokenizer):
    """Byte-level BPE: `merges` are pairs of ids, the first learned first.

    >>> tokenizer = BPETokenizer.train("low lower lowest", vocab_size=260)
    >>> tokenizer.token_bytes[256:]
    [b'lo', b'low', b' low', b' lowe']
    >>> [tokenizer.token_bytes[i] for i in tokenizer.encode("lower slow")]
    [b'low', b'e', b'r', b' ', b's', b'low']
    """

    model_type = "BPE"

    def __init__(
        self, token_bytes: list[bytes], merges: list[Pair], pattern: str = GPT2_PATTERN
    ) -> None:
        super().__init__(token_bytes)
        self.merges = merges
        self.pattern = pattern
        self._split = compile_pattern(pattern)
        ids = {token: i for i, token in enumerate(token_bytes)}
        ranks: dict[Pair, tuple[int, int]] = {}
        for rank, (left, right) in enumerate(merges):
            ranks.setdefault((left, right), (rank, ids[token_bytes[left] + token_bytes[right]]))
        byte_ids = [ids[bytes([byte])] for byte in range(256)]
        self._encode_chunk = partial(encode_chunk, byte_ids=byte_ids, ranks=ranks)
        self._encode_cached = lru_cache(CACHED_CHUNKS)(self._encode_chunk)

    @classmethod
    def train(
        cls,
        texts: Texts,
        vocab_size: int,
        pattern: str = GPT2_PATTERN,
        min_frequency: int = 2,
    ) -> Self:
        """Learn vocab_size - 256 merges, of pairs that occur at least min_frequency times.

        Fewer where the texts run out of such pairs; none from an empty text. Of equally frequent
        pairs the one with the smallest ids is joined first, so that the same texts always give
        the same tokenizer. Texts are read one by one; what is kept is each different chunk, once.

        Raises: ValueError — vocab_size < 256, not a pattern, a lone surrogate in a text.
        """
        if vocab_size < 256:
            raise ValueError(
                f"BPETokenizer.train: expected vocab_size >= 256, got {vocab_size}; the 256 bytes "
                "are tokens, so that any text can be encoded"
            )
        split = compile_pattern(pattern)
        counts: Counter[str] = Counter()
        for text in as_texts(texts):
            check_unicode(text)
            counts.update(chunks(text, split))
        merges = learn_merges(counts, vocab_size - 256, min_frequency)
        tokens = list(BYTE_TOKENS)
        for left, right in merges:
            tokens.append(tokens[left] + tokens[right])
        return cls(tokens, merges, pattern)

    def encode(self, text: str) -> list[int]:
        """In each chunk, join the pair that was learned first, until none is left.

        Raises: ValueError — a lone surrogate.
        """
        check_unicode(text)
        ids: list[int] = []
        for chunk in chunks(text, self._split):
            short = len(chunk) <= LONGEST_CACHED
            ids.extend(self._encode_cached(chunk) if short else self._encode_chunk(chunk))
        return ids

    def to_json(self) -> dict[str, Any]:
        """The layout of Hugging Face `tokenizers`."""
        shown = [show_bytes(token) for token in self.token_bytes]
        own_pattern = self.pattern != GPT2_PATTERN
        byte_level = {
            "type": "ByteLevel",
            "add_prefix_space": False,
            "trim_offsets": True,
            "use_regex": not own_pattern,
        }
        split = {
            "type": "Split",
            "pattern": {"Regex": self.pattern},
            "behavior": "Isolated",
            "invert": False,
        }
        sequence = {"type": "Sequence", "pretokenizers": [split, byte_level]}
        return hf_layout(
            pre_tokenizer=sequence if own_pattern else byte_level,
            decoder={**byte_level, "use_regex": True},
            model={
                "type": self.model_type,
                "vocab": {token: i for i, token in enumerate(shown)},
                "merges": [[shown[left], shown[right]] for left, right in self.merges],
            },
        )

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Self:
        """Raises: TokenizerError — a BPE that is not byte-level, has parts that this one lacks, or
        whose merges and vocabulary do not belong together.
        """
        model = content["model"]
        for part in ("normalizer", "added_tokens"):
            check(not content.get(part), f"no {part}", content.get(part))
        for part in UNUSED_MODEL_PARTS:
            check(not model.get(part), f"no {part} in the model", model.get(part))
        decoder = content.get("decoder")
        check(
            isinstance(decoder, dict) and decoder.get("type") == "ByteLevel",
            "a ByteLevel decoder",
            decoder,
        )
        pattern = _read_pattern(content.get("pre_tokenizer"))
        shown = check_vocabulary(model.get("vocab"))
        ids = {token: i for i, token in enumerate(shown)}
        visible = all(set(token) <= set(BYTE_CHARACTERS) for token in shown)
        check(visible, "tokens in GPT-2's byte characters", shown)
        check(set(BYTE_CHARACTERS) <= set(ids), "a token for each of the 256 bytes", shown)
        merges = list(_read_merges(model.get("merges"), ids))
        try:
            return cls([parse_bytes(token) for token in shown], merges, pattern)
        except ValueError as error:
            check(False, "a split pattern", str(error))
            raise


UNUSED_MODEL_PARTS = (
    "dropout",
    "unk_token",
    "continuing_subword_prefix",
    "end_of_word_suffix",
    "byte_fallback",
    "ignore_merges",
)


def _read_pattern(pre_tokenizer: Any) -> str:
    """The split pattern of a byte-level "pre_tokenizer"."""
    match pre_tokenizer:
        case {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}:
            return GPT2_PATTERN
        case {
            "type": "Sequence",
            "pretokenizers": [
                {
                    "type": "Split",
                    "pattern": {"Regex": str(pattern)},
                    "behavior": "Isolated",
                    "invert": False,
                },
                {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False},
            ],
        }:
            return pattern
    check(False, "a ByteLevel pre_tokenizer, or Split and ByteLevel", pre_tokenizer)
    raise AssertionError


def _read_merges(merges: Any, ids: Mapping[str, int]) -> Iterator[Pair]:
    """The merges of a file, pairs of tokens or both in one string, as pairs of ids."""
    check(isinstance(merges, list), 'a list "merges"', merges)
    for merge in merges:
        pair = merge.split(" ") if isinstance(merge, str) else merge
        is_pair = isinstance(pair, list) and len(pair) == 2
        check(is_pair and all(isinstance(part, str) for part in pair), "pairs of tokens", merge)
        left, right = pair
        known = left in ids and right in ids and left + right in ids
        check(known, "merges whose parts and result are in the vocabulary", merge)
        yield ids[left], ids[right]


def encode_chunk(chunk: str, byte_ids: list[int], ranks: Mapping[Pair, tuple[int, int]]) -> Word:
    """The token ids of one chunk; `ranks` gives of each merge its rank and its result's id."""
    word = [byte_ids[byte] for byte in chunk.encode()]
    never = (len(ranks), 0)
    while len(word) > 1:
        pair = min(pairwise(word), key=lambda pair: ranks.get(pair, never))
        if pair not in ranks:
            break
        word = join_pair(word, pair, ranks[pair][1])
    return word


def join_pair(word: Word, pair: Pair, joined: int) -> Word:
    """The word with the pair, wherever it occurs, replaced by one id, from left to right.

    >>> join_pair([1, 1, 1, 2], (1, 1), 9)
    [9, 1, 2]
    """
    result = []
    i = 0
    while i < len(word):
        if word[i] == pair[0] and i + 1 < len(word) and word[i + 1] == pair[1]:
            result.append(joined)
            i += 2
        else:
            result.append(word[i])
            i += 1
    return result


def specification(chunk_counts: Mapping[str, int], n: int, min_frequency: int = 2) -> list[Pair]:
    """What byte-pair encoding means: `learn_merges` in ten lines that count all pairs each time."""
    words = [[BYTE_IDS[bytes([b])] for b in chunk.encode()] for chunk in chunk_counts]
    merges: list[Pair] = []
    while len(merges) < n:
        counts: Counter[Pair] = Counter()
        for word, count in zip(words, chunk_counts.values(), strict=True):
            for pair in pairwise(word):
                counts[pair] += count
        best = min(counts, key=lambda pair: (-counts[pair], pair), default=None)
        if best is None or counts[best] < min_frequency:
            break
        words = [join_pair(word, best, 256 + len(merges)) for word in words]
        merges.append(best)
    return merges


def learn_merges(chunk_counts: Mapping[str, int], n: int, min_frequency: int = 2) -> list[Pair]:
    """At most n merges: each of the most frequent pair, of equals the one with the smallest ids.

    Pair counts are kept from merge to merge: only words with the joined pair are counted again.
    (No two merges spell the same bytes: a token's bytes, wherever they stand between two borders
    of tokens, are cut as they would be alone.)
    """
    words = [[BYTE_IDS[bytes([b])] for b in chunk.encode()] for chunk in chunk_counts]
    word_counts = list(chunk_counts.values())
    counts: Counter[Pair] = Counter()
    where: defaultdict[Pair, set[int]] = defaultdict(set)  # words that have, or had, the pair
    for w, word in enumerate(words):
        for pair in pairwise(word):
            counts[pair] += word_counts[w]
            where[pair].add(w)
    heap = [(-count, pair) for pair, count in counts.items()]
    heapq.heapify(heap)
    merges: list[Pair] = []
    while heap and len(merges) < n:
        negative_count, best = heapq.heappop(heap)
        if -negative_count != counts[best]:
            continue  # an outdated entry; the pair's present count has one of its own
        if counts[best] < max(1, min_frequency):
            break
        change: Counter[Pair] = Counter()
        for w in where.pop(best):
            for pair in pairwise(words[w]):
                change[pair] -= word_counts[w]
            words[w] = join_pair(words[w], best, 256 + len(merges))
            for pair in pairwise(words[w]):
                change[pair] += word_counts[w]
                where[pair].add(w)
        for pair, difference in change.items():
            if difference:
                counts[pair] += difference
                heapq.heappush(heap, (-counts[pair], pair))
        merges.append(best)
    return merges
