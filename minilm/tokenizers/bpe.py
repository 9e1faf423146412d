"""Byte-pair encoding over bytes: begin with bytes, keep joining the most frequent pair.

Text is first cut into chunks by a pattern (see `pretokenize`); no token crosses a chunk. Any text
can be encoded, for the 256 bytes are tokens. How merges are learned stands in `bpe_training`; here
is how they are applied: the idea is `naive_encode_chunk`, and `encode_chunk` the same, faster.

Source: Sennrich, Haddow, Birch 2016, arXiv 1508.07909, algorithm 1; over bytes as in Radford et
al. 2019 (GPT-2). The file is the `tokenizer.json` of Hugging Face `tokenizers`.
"""

import heapq
import json
from collections.abc import Callable, Mapping, Sequence
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, Self

from minilm.files import replacing
from minilm.tokenizers.added import WHITESPACE, AddedToken, Names
from minilm.tokenizers.base import (
    ByteTokenizer,
    Span,
    Texts,
    as_special,
    as_texts,
    read_common,
)
from minilm.tokenizers.bpe_file import (
    MERGES_FILE,
    VOCAB_FILE,
    read_merges,
    read_pattern,
    read_trim,
    read_vocab_files,
)
from minilm.tokenizers.bpe_training import (
    BYTE_TOKENS,
    BYTES,
    Pair,
    Progress,
    count_chunks,
    join_pair,
    learn_merges,
)
from minilm.tokenizers.cache import Cache
from minilm.tokenizers.files import FILE_NAME, TokenizerError, check, check_vocabulary
from minilm.tokenizers.pretokenize import (
    BYTE_CHARACTERS,
    GPT2_PATTERN,
    Splitter,
    parse_bytes,
    show_bytes,
)
from minilm.tokenizers.sentencepiece import Normalizer, Spec
from minilm.tokenizers.template import PLAIN, Template

Ranks = Mapping[Pair, tuple[int, int]]  # of each merge its rank and its result's id
SPACES = WHITESPACE + show_bytes(b" ")
SHORT = 100  # bytes: up to here a list is faster than a heap


class BPETokenizer(ByteTokenizer):
    """Byte-level BPE: `merges` are pairs of ids, the first learned first.

    `normalizer` is a part of the file: see `sentencepiece`. add_prefix_space: a text that begins
    without a space gets one, as RoBERTa's may. trim_offsets: a token's place is without its spaces.
    ignore_merges: a chunk that is a token stays one, as Llama 3 has it.

    Chunks that were seen before are remembered, see `Cache`.

    >>> tokenizer = BPETokenizer.train("low lower lowest", vocab_size=260)
    >>> tokenizer.token_bytes[256:]
    [b'lo', b'low', b' low', b' lowe']
    >>> [tokenizer.token_bytes[i] for i in tokenizer.encode("lower slow")]
    [b'low', b'e', b'r', b' ', b's', b'low']
    """

    model_type = "BPE"
    vocab_file = VOCAB_FILE

    def __init__(
        self,
        token_bytes: list[bytes],
        merges: list[Pair],
        pattern: str = GPT2_PATTERN,
        added: Sequence[str | AddedToken] = (),
        template: Template = PLAIN,
        *,
        normalizer: Spec | None = None,
        add_prefix_space: bool = False,
        trim_offsets: bool = False,
        ignore_merges: bool = False,
    ) -> None:
        self.merges = merges
        self._splitter = Splitter(pattern)
        self.pattern = self._splitter.pattern
        if add_prefix_space and self.pattern != GPT2_PATTERN:
            raise ValueError(
                f"BPETokenizer: expected GPT-2's pattern with add_prefix_space, got {pattern!r}; "
                "files have no spelling for another one"
            )
        self.add_prefix_space, self.trim_offsets = add_prefix_space, trim_offsets
        self.ignore_merges = ignore_merges
        self.normalizer, self._normalizer = normalizer, Normalizer(normalizer)
        self._own_ids = ids = {token: i for i, token in enumerate(token_bytes)}
        self._byte_ids = byte_ids = [ids[bytes([byte])] for byte in range(256)]
        self._ranks = rank_merges(merges, token_bytes)
        made = {*byte_ids, *(joined for _, joined in self._ranks.values())}
        listed = as_special(added)
        contents = {token.content.encode(): token.content for token in listed}
        tokens = [
            contents[token] if i not in made and token in contents else show_bytes(token)
            for i, token in enumerate(token_bytes)
        ]
        super().__init__(token_bytes, tokens, listed, template)
        self._cache = Cache(self._encode_chunk)

    @classmethod
    def train(
        cls,
        texts: Texts,
        vocab_size: int,
        pattern: str = GPT2_PATTERN,
        min_frequency: int = 2,
        special_tokens: Sequence[str | AddedToken] = (),
        workers: int = 1,
        progress: Progress | None = None,
    ) -> Self:
        """Learn merges until there are vocab_size tokens, special tokens (the last ids) included.

        Fewer where the texts run out of pairs that occur min_frequency times; none from an empty
        text. Of equally frequent pairs the one with the smallest ids is joined first, so that the
        same texts always give the same tokenizer. Texts are read one by one; what is kept is each
        different chunk, once. With several `workers`, processes count the chunks. `progress` is
        called with (merges learned, merges wanted) after each merge.

        `pattern` is a regular expression, or the name of one: gpt2, cl100k.

        Raises: ValueError — a vocab_size without room for the bytes and the special tokens, not a
            pattern, a lone surrogate in a text.
        """
        least = 256 + len(special_tokens)
        if vocab_size < least:
            raise ValueError(
                f"BPETokenizer.train: expected vocab_size >= {least}, got {vocab_size}; the 256 "
                "bytes are tokens, so that any text can be encoded, and each special token is one"
            )
        counts = count_chunks(as_texts(texts), pattern, workers)
        merges = learn_merges(counts, vocab_size - least, min_frequency, progress)
        tokens = list(BYTE_TOKENS)
        for left, right in merges:
            tokens.append(tokens[left] + tokens[right])
        return cls(tokens, merges, pattern, special_tokens)

    def _normalize(self, text: str) -> str:
        return self._normalizer(text)

    def _normalize_aligned(self, text: str) -> tuple[str, Sequence[Span] | None]:
        return self._normalizer.aligned(text) if self._normalizer.steps else (text, None)

    def _encode(self, text: str, first: bool) -> list[int]:
        """In each chunk, join the pair that was learned first, until none is left."""
        return self._encode_chunks(self._prefix(text) + text)

    def _prefix(self, text: str) -> str:
        """The space to put before the text."""
        return " " if self.add_prefix_space and text and not text.startswith(" ") else ""

    def _encode_chunks(self, text: str) -> list[int]:
        return list(chain.from_iterable(map(self._cache.__getitem__, self.chunks(text))))

    def _encode_chunk(self, chunk: str) -> list[int]:
        if self.ignore_merges and (i := self._own_ids.get(chunk.encode(*BYTES))) is not None:
            return [i]
        return encode_chunk(chunk, self._byte_ids, self._ranks)

    def encode_bytes(self, data: bytes) -> list[int]:
        """The token ids of any bytes: `decode_bytes` gives them back.

        What is UTF-8 is encoded as text is; bytes that are not stand for a sign each.
        """
        return self._encode_chunks(data.decode(*BYTES))

    def chunks(self, text: str) -> list[str]:
        """The text, cut by the pattern."""
        return self._splitter.split(text)

    def merge_steps(self, chunk: str) -> list[list[str]]:
        """The chunk's tokens, from its bytes on, after each merge.

        >>> tokenizer = BPETokenizer.train("low lower lowest", vocab_size=260)
        >>> tokenizer.merge_steps("lower")
        [['l', 'o', 'w', 'e', 'r'], ['lo', 'w', 'e', 'r'], ['low', 'e', 'r']]
        """
        words: list[list[int]] = []
        naive_encode_chunk(chunk, self._byte_ids, self._ranks, words.append)
        return [[self.tokens[i] for i in word] for word in words]

    def _encode_spans(self, text: str, first: bool) -> tuple[list[int], list[Span]]:
        ids = self._encode(text, first)
        if text.isascii():
            characters: Sequence[int] = range(len(text))
        else:  # of each byte, the character it is part of
            characters = [i for i, character in enumerate(text) for _ in character.encode()]
        spans, start = [], -len(self._prefix(text))  # which is where the first character is
        for i in ids:
            stop = start + len(self.token_bytes[i])
            spans.append((characters[max(start, 0)], characters[max(stop - 1, 0)] + 1))
            start = stop
        return ids, spans

    def encode_with_offsets(self, text: str, **special: Names) -> tuple[list[int], list[Span]]:
        """What `encode` gives, and where in the text each token stands: text[start:end].

        A token that is part of a character has the whole character's place.
        """
        ids, spans = super().encode_with_offsets(text, **special)
        if self.trim_offsets:
            spans = [self._trim(text, i, *span) for i, span in zip(ids, spans, strict=True)]
        return ids, spans

    def _trim(self, text: str, i: int, start: int, end: int) -> Span:
        """A token's place without its spaces, but for the one that was put before the text."""
        shown = text[start:end] if i in self.added else self.tokens[i]
        before, after = (len(shown) - len(strip(SPACES)) for strip in (shown.lstrip, shown.rstrip))
        if start == 0 and before == 1 and self.add_prefix_space:
            before = 0
        start = min(start + before, end)
        return start, max(end - after, start) if end >= after else end

    def to_json(self) -> dict[str, Any]:
        """The layout of Hugging Face `tokenizers`."""
        own_pattern = self.pattern != GPT2_PATTERN
        byte_level = {
            "type": "ByteLevel",
            "add_prefix_space": self.add_prefix_space,
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
        model = {
            "type": self.model_type,
            "ignore_merges": self.ignore_merges,
            "vocab": self._vocab(),
            "merges": self._spelt_merges(),
        }
        content = self._layout(
            normalizer=self.normalizer,
            pre_tokenizer=sequence if own_pattern else byte_level,
            decoder={**byte_level, "use_regex": True},
            model=model,
        )
        if self.trim_offsets:
            parts = [byte_level, content["post_processor"]]
            content["post_processor"] = {
                "type": "Sequence",
                "processors": list(filter(None, parts)),
            }
        return content

    def _vocab(self) -> dict[str, int]:
        return {token: i for i, token in enumerate(self.tokens[: self.model_size])}

    def _spelt_merges(self) -> list[list[str]]:
        return [[self.tokens[left], self.tokens[right]] for left, right in self.merges]

    def save(self, directory: str | Path) -> None:
        """Write `tokenizer.json`, and GPT-2's two files `vocab.json` and `merges.txt`.

        Each appears whole or not at all. `load` reads the first, which alone knows the pattern
        and all that is said of added tokens.
        """
        lines = ["#version: 0.2", *(f"{left} {right}" for left, right in self._spelt_merges()), ""]
        with replacing(Path(directory) / self.vocab_file) as file:
            file.write(json.dumps(self.ids, ensure_ascii=False).encode())
        with replacing(Path(directory) / MERGES_FILE) as file:
            file.write("\n".join(lines).encode())
        super().save(directory)

    @classmethod
    def load(cls, directory: str | Path) -> Self:
        """The tokenizer saved in `directory`, or, without a `tokenizer.json`, what GPT-2's files
        `vocab.json` and `merges.txt` give: GPT-2's pattern, and every token that is neither a byte
        nor the result of a merge a special token.

        Raises: TokenizerError — no file, a damaged or foreign one, or one of another kind.
        """
        directory = Path(directory)
        if (directory / FILE_NAME).exists() or not (directory / cls.vocab_file).exists():
            return super().load(directory)
        vocab, spelt = read_vocab_files(directory)
        shown = check_vocabulary(vocab, cls.vocab_file)
        made = {line.replace(" ", "") for line in spelt} | set(BYTE_CHARACTERS)
        special = [AddedToken(token) for token in shown if token not in made]
        return cls._from_spelling(shown, spelt, special, PLAIN, pattern=GPT2_PATTERN)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Self:
        """Raises: TokenizerError — a BPE that is not byte-level, has parts that this one lacks, or
        whose merges and vocabulary do not belong together.
        """
        model = content["model"]
        for part in UNUSED_MODEL_PARTS:
            check(not model.get(part), f"no {part} in the model", model.get(part))
        decoder = content.get("decoder")
        is_byte_level = isinstance(decoder, dict) and decoder.get("type") == "ByteLevel"
        check(is_byte_level, "a ByteLevel decoder", decoder)
        ignore_merges = model.get("ignore_merges", False)
        check(type(ignore_merges) is bool, "ignore_merges true or false", ignore_merges)
        pattern, prefix = read_pattern(content.get("pre_tokenizer"))
        shown = check_vocabulary(model.get("vocab"))
        added, template = read_common(content, shown)
        settings = {
            "pattern": pattern,
            "normalizer": content.get("normalizer"),
            "add_prefix_space": prefix,
            "trim_offsets": read_trim(content.get("post_processor"), prefix),
            "ignore_merges": ignore_merges,
        }
        return cls._from_spelling(shown, model.get("merges"), added, template, **settings)

    @classmethod
    def _from_spelling(
        cls,
        shown: list[str],
        spelt_merges: Any,
        added: list[AddedToken],
        template: Template,
        **settings: Any,
    ) -> Self:
        """A tokenizer from tokens and merges as the files spell them."""
        ids = {token: i for i, token in enumerate(shown)}
        merges = list(read_merges(spelt_merges, ids))
        made = set(BYTE_CHARACTERS) | {shown[left] + shown[right] for left, right in merges}
        apart = {token.content for token in added} - made  # stand in the vocabulary as they are
        known = set(BYTE_CHARACTERS)
        visible = [known.issuperset(token) for token in shown if token not in apart]
        check(all(visible), "tokens in GPT-2's byte characters", shown)
        check(known <= set(ids), "a token for each of the 256 bytes", shown)
        token_bytes = [t.encode() if t in apart else parse_bytes(t) for t in shown]
        try:
            return cls(token_bytes, merges, added=added, template=template, **settings)
        except TokenizerError:
            raise
        except ValueError as error:
            check(False, "a split pattern and tokens that fit together", str(error))
            raise


UNUSED_MODEL_PARTS = (
    "dropout",
    "continuing_subword_prefix",
    "end_of_word_suffix",
    "byte_fallback",
)


# --- Encoding -----------------------------------------------------------------------------------


def rank_merges(merges: Sequence[Pair], tokens: Sequence[Any]) -> dict[Pair, tuple[int, int]]:
    """Of each merge its rank and its result's id, which is the parts' tokens joined."""
    ids = {token: i for i, token in enumerate(tokens)}
    ranks: dict[Pair, tuple[int, int]] = {}
    for rank, (left, right) in enumerate(merges):
        ranks.setdefault((left, right), (rank, ids[tokens[left] + tokens[right]]))
    return ranks


def naive_encode_chunk(
    chunk: str,
    byte_ids: Sequence[int],
    ranks: Ranks,
    watch: Callable[[list[int]], None] = lambda word: None,
) -> list[int]:
    """What encoding means: join the pair of the earliest merge wherever it stands, and again.

    `watch` is shown the word at the beginning and after every merge.
    """
    word = [byte_ids[byte] for byte in chunk.encode(*BYTES)]
    while True:
        watch(word)
        known = [pair for pair in pairwise(word) if pair in ranks]
        if not known:
            return word
        best = min(known, key=lambda pair: ranks[pair])
        word = join_pair(word, best, ranks[best][1])


def encode_chunk(chunk: str, byte_ids: Sequence[int], ranks: Ranks) -> list[int]:
    """`naive_encode_chunk`, keeping the rank of every pair in the word and joining one at a time.

    Differs: where a list of merges joins a token before it makes it, as no training does, the
    pair that appears late is joined late; so do `tokenizers` and `tiktoken`.
    """
    return merge_pairs([byte_ids[byte] for byte in chunk.encode(*BYTES)], ranks)


def merge_pairs(word: list[int], ranks: Ranks) -> list[int]:
    """The word, which changes, with the pair of the earliest merge joined until there is none."""
    if len(word) > SHORT:
        return _merge_long(word, ranks)
    never = (len(ranks), -1)
    found = [ranks.get(pair, never) for pair in pairwise(word)]
    while found:
        best = min(found)
        if best is never:
            break
        i = found.index(best)
        word[i : i + 2] = [best[1]]
        del found[i]
        if i < len(found):
            found[i] = ranks.get((word[i], word[i + 1]), never)
        if i:
            found[i - 1] = ranks.get((word[i - 1], word[i]), never)
    return word


def _merge_long(word: list[int], ranks: Ranks) -> list[int]:
    """The same in n log n steps: a heap of (rank, place), and links over the joined places."""
    n = len(word)
    after, before = list(range(1, n + 1)), list(range(-1, n - 1))
    heap = [(*ranks[pair], i) for i, pair in enumerate(pairwise(word)) if pair in ranks]
    heapq.heapify(heap)
    while heap:
        rank, joined, i = heapq.heappop(heap)
        j = after[i]
        if j == n or ranks.get((word[i], word[j])) != (rank, joined):
            continue  # one of the two was joined to another since
        word[i], word[j] = joined, -1
        after[i] = k = after[j]
        if k < n:
            before[k] = i
            if pair := ranks.get((joined, word[k])):
                heapq.heappush(heap, (*pair, i))
        if (h := before[i]) >= 0 and (pair := ranks.get((word[h], joined))):
            heapq.heappush(heap, (*pair, h))
    return [token for token in word if token >= 0]
