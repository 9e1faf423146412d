"""WordPiece: a word is the longest token that it begins with, then the longest of what is left.

BERT first normalises a text and cuts it into words and signs, see `bert`. A token inside a word is
spelt with "##" before it, so that decoding knows what to join. The idea is `naive_encode_word`; the
tokenizer gives the same, faster. How tokens are learned stands in `wordpiece_training`.

Source: Schuster, Nakajima 2012, Japanese and Korean voice search; Devlin et al. 2018, arXiv
1810.04805, and its code. The files are `tokenizer.json` of Hugging Face `tokenizers` and BERT's
`vocab.txt`, a token on each line.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Self

from minilm.files import replacing
from minilm.tokenizers.added import AddedToken
from minilm.tokenizers.base import (
    CLEANUP,
    CONFIG_FILE,
    Span,
    Texts,
    Tokenizer,
    as_special,
    as_texts,
    check_unicode,
    read_common,
)
from minilm.tokenizers.bert import WORD, Forms, normal_form
from minilm.tokenizers.bpe_training import Progress
from minilm.tokenizers.cache import Cache
from minilm.tokenizers.files import (
    FILE_NAME,
    check,
    check_vocabulary,
    is_text,
    read_json,
    read_text,
)
from minilm.tokenizers.template import PLAIN, Template, bert_template
from minilm.tokenizers.wordpiece_training import learn_tokens

VOCAB_FILE = "vocab.txt"
SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
TOKEN_CLEANUP = CLEANUP | {" do not": " don't"}  # replaced in a token with a space before it
NORMALIZER = {  # our names of the settings, and those of the two files
    "lower": "lowercase",
    "strip_accents": "strip_accents",
    "chinese_spaces": "handle_chinese_chars",
    "clean": "clean_text",
}
CONFIG = {
    "lower": "do_lower_case",
    "strip_accents": "strip_accents",
    "chinese_spaces": "tokenize_chinese_chars",
}


class WordPieceTokenizer(Tokenizer):
    """BERT's tokenizer.

    `lower`, `strip_accents` (None: as `lower`), `chinese_spaces` and `clean` are `normal_form`'s. A
    word that tokens cannot spell, or of more than max_word characters, becomes unk_token. Without
    `added`, unk_token and those of SPECIAL_TOKENS that are tokens are special; without `template`,
    [CLS] and [SEP] stand around a text if they are. No word gives a special token but unk_token.

    Words that were seen before are remembered, see `Cache`.

    Raises: ValueError — an unk_token that is no token, a max_word below 1; see also `Tokenizer`.

    >>> tokenizer = WordPieceTokenizer.train("Low, lower, lowest!", vocab_size=26)
    >>> [tokenizer.tokens[i] for i in tokenizer.encode("Slow: lowest")]
    ['s', '##l', '##o', '##w', '[UNK]', 'lowe', '##s', '##t']
    >>> tokenizer.decode(tokenizer.encode("LOWER, lower"))
    'lower, lower'
    """

    model_type = "WordPiece"
    vocab_file = VOCAB_FILE
    input_names = ("input_ids", "attention_mask", "token_type_ids")

    def __init__(
        self,
        tokens: list[str],
        added: Sequence[str | AddedToken] | None = None,
        template: Template | None = None,
        *,
        lower: bool = True,
        strip_accents: bool | None = None,
        chinese_spaces: bool = True,
        clean: bool = True,
        unk_token: str = "[UNK]",
        prefix: str = "##",
        max_word: int = 100,
        cleanup: bool = True,
    ) -> None:
        if unk_token not in tokens or max_word < 1:
            raise ValueError(
                f"WordPieceTokenizer: expected unk_token among the tokens and max_word >= 1, got "
                f"{unk_token!r} and {max_word}; add the token, or name the one that there is"
            )
        if added is None:
            added = [t for t in dict.fromkeys((*SPECIAL_TOKENS, unk_token)) if t in tokens]
        listed = as_special(added)
        if template is None:
            contents = {token.content for token in listed}
            template = bert_template("[CLS]", "[SEP]") if contents >= {"[CLS]", "[SEP]"} else PLAIN
        super().__init__(tokens, listed, template)
        self.lower, self.strip_accents = lower, strip_accents
        self.chinese_spaces, self.clean = chinese_spaces, clean
        self.roles["unk"] = unk_token
        self._unk_id, self.prefix = self.ids[unk_token], prefix
        self.max_word, self.cleanup = max_word, cleanup
        self._forms = Forms(partial(normal_form, **self._settings()))
        hidden = set(self.special_tokens) - {unk_token}
        self._first = {token: i for i, token in enumerate(tokens) if token not in hidden}
        inner = [token for token in self._first if token.startswith(prefix)]
        self._inner = {token[len(prefix) :]: self._first[token] for token in inner}
        self._longest = max(map(len, self._first))
        self._cache = Cache(self._encode_chunk)

    @classmethod
    def train(
        cls,
        texts: Texts,
        vocab_size: int,
        *,
        special_tokens: Sequence[str | AddedToken] = SPECIAL_TOKENS,
        limit_alphabet: int | None = None,
        min_frequency: int = 2,
        progress: Progress | None = None,
        **settings: Any,
    ) -> Self:
        """Learn tokens until there are vocab_size, the special tokens and characters included.

        The characters are those of the texts, or the `limit_alphabet` most frequent, each also with
        "##" if it can stand inside a word: only words with other characters, or too long ones, are
        unknown. Then `learn_tokens` joins pairs that occur min_frequency times, while there are
        any. `settings` are the class's. Texts are read one by one. `progress` is called with
        (tokens learned, tokens wanted) after each.

        Raises: ValueError — a vocab_size without room for special tokens and characters, a lone
            surrogate in a text.
        """
        special = as_special(special_tokens)
        contents = [token.content for token in special]
        empty = cls(contents, special, **settings)
        words: Counter[str] = Counter()
        for text in as_texts(texts):
            check_unicode(text)
            words.update(empty._words(text))
        counts: Counter[str] = Counter()
        for word, count in words.items():
            for character in word:
                counts[character] += count
        alphabet = sorted(sorted(counts, key=lambda c: (-counts[c], c))[:limit_alphabet])
        inner = [empty.prefix + c for c in alphabet if len(empty._words(c + c)) == 1]
        tokens = list(dict.fromkeys([*contents, *alphabet, *inner]))
        if vocab_size < len(tokens):
            raise ValueError(
                f"WordPieceTokenizer.train: expected vocab_size >= {len(tokens)}, got {vocab_size};"
                f" {len(special)} special tokens and {len(alphabet)} characters, with and without "
                f"{empty.prefix!r}, are tokens; limit_alphabet keeps the most frequent characters"
            )
        known = set(alphabet)
        spelt = {w: n for w, n in words.items() if known.issuperset(w) and len(w) <= empty.max_word}
        tokens = learn_tokens(spelt, tokens, vocab_size, empty.prefix, min_frequency, progress)
        return cls(tokens, special, **settings)

    def _settings(self) -> dict[str, Any]:
        """Those of `normal_form`."""
        return {name: getattr(self, name) for name in NORMALIZER}

    def _normalize(self, text: str) -> str:
        return text.translate(self._forms)

    def _normalize_aligned(self, text: str) -> tuple[str, Sequence[Span]]:
        lengths = {character: len(self._normalize(character)) for character in set(text)}
        places = [(i, i + 1) for i, character in enumerate(text) for _ in range(lengths[character])]
        return self._normalize(text), places

    def _words(self, text: str) -> list[str]:
        return WORD.findall(self._normalize(text))

    def _encode(self, text: str, first: bool) -> list[int]:
        return list(chain.from_iterable(map(self._cache.__getitem__, text.split(" "))))

    def _encode_chunk(self, chunk: str) -> list[int]:
        return list(chain.from_iterable(map(self._encode_word, WORD.findall(chunk))))

    def _encode_word(self, word: str) -> list[int]:
        """`naive_encode_word`, which tries no piece longer than the longest token."""
        n, unknown = len(word), [self._unk_id]
        if n > self.max_word:
            return unknown
        found, start, tokens = [], 0, self._first
        while start < n:
            for end in range(min(n, start + self._longest), start, -1):
                if (i := tokens.get(word[start:end])) is not None:
                    break
            else:
                return unknown
            found.append(i)
            start, tokens = end, self._inner
        return found

    def _encode_spans(self, text: str, first: bool) -> tuple[list[int], list[Span]]:
        ids: list[int] = []
        spans: list[Span] = []
        for match in WORD.finditer(text):
            start, end = match.span()
            word = self._cache[match.group()]
            ids += word
            inside = 0
            for i in word:
                is_whole = word == (self._unk_id,)
                stop = end if is_whole else start + len(self.tokens[i]) - inside
                spans.append((start, stop))
                start, inside = stop, len(self.prefix)
        return ids, spans

    def _decode(self, ids: list[int]) -> str:
        """The tokens with spaces between words, but none before the signs that end a phrase.

        What normalisation changed does not come back, nor whether the text had a space.
        """
        shown = {i: self._show(self.tokens[i], " ") for i in set(ids[1:])}
        first = [self._show(self.tokens[i], "") for i in ids[:1]]
        return "".join([*first, *map(shown.__getitem__, ids[1:])])

    def _show(self, token: str, space: str) -> str:
        """A token as it stands behind another (`space`), or first of all."""
        if space and token.startswith(self.prefix):
            token = token.removeprefix(self.prefix)
        else:
            token = space + token
        for spaced, written in TOKEN_CLEANUP.items() if self.cleanup else ():
            token = token.replace(spaced, written)
        return token

    def to_json(self) -> dict[str, Any]:
        """The layout of Hugging Face `tokenizers`."""
        settings = {NORMALIZER[name]: value for name, value in self._settings().items()}
        return self._layout(
            normalizer={"type": "BertNormalizer", **settings},
            pre_tokenizer={"type": "BertPreTokenizer"},
            decoder={"type": "WordPiece", "prefix": self.prefix, "cleanup": self.cleanup},
            model={
                "type": self.model_type,
                "unk_token": self.tokens[self._unk_id],
                "continuing_subword_prefix": self.prefix,
                "max_input_chars_per_word": self.max_word,
                "vocab": {token: i for i, token in enumerate(self.tokens[: self.model_size])},
            },
        )

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Self:
        """Raises: TokenizerError — a WordPiece model with other parts around it than BERT's, or one
        that contradicts itself.
        """
        model, decoder = content["model"], content.get("decoder")
        tokens = check_vocabulary(model.get("vocab"))
        unk, prefix = model.get("unk_token"), model.get("continuing_subword_prefix")
        max_word = model.get("max_input_chars_per_word")
        check(unk in tokens, "an unk_token of the vocabulary", unk)
        check(is_text(prefix), "a continuing_subword_prefix", prefix)
        check(type(max_word) is int and max_word > 0, "max_input_chars_per_word > 0", max_word)
        pre_tokenizer = content.get("pre_tokenizer")
        check(pre_tokenizer == {"type": "BertPreTokenizer"}, "a BertPreTokenizer", pre_tokenizer)
        cleanup = decoder.get("cleanup") if isinstance(decoder, dict) else None
        expected = {"type": "WordPiece", "prefix": prefix, "cleanup": bool(cleanup)}
        check(decoder == expected, f"the decoder {expected}", decoder)
        normalizer: Any = content.get("normalizer")
        settings = _read_settings(normalizer, NORMALIZER, FILE_NAME)
        check(normalizer.get("type") == "BertNormalizer", "a BertNormalizer", normalizer)
        settings.update(unk_token=unk, prefix=prefix, max_word=max_word, cleanup=bool(cleanup))
        return cls(tokens, *read_common(content, tokens), **settings)

    def save(self, directory: str | Path) -> None:
        """Write `tokenizer.json`, and BERT's `vocab.txt`, each whole or not at all.

        `load` reads the first, which alone knows the settings and all that is said of added tokens.

        Raises: ValueError — a token with a line break, for which `vocab.txt` has no spelling.
        """
        broken = [token for token in self.tokens if "\n" in token or "\r" in token]
        if broken:
            raise ValueError(
                f"WordPieceTokenizer.save: expected tokens without line breaks, got {broken[0]!r}; "
                f"{self.vocab_file} has a token on each line, choose another one"
            )
        with replacing(Path(directory) / self.vocab_file) as file:
            file.write("".join([f"{token}\n" for token in self.tokens]).encode())
        super().save(directory)

    @classmethod
    def load(cls, directory: str | Path) -> Self:
        """The tokenizer saved in `directory`, or, without `tokenizer.json`, that of `vocab.txt`.

        The latter is for lower case, unless a `tokenizer_config.json` beside it says otherwise.

        Raises: TokenizerError — no file, a damaged or foreign one, or one of another kind.
        """
        directory = Path(directory)
        if (directory / FILE_NAME).exists() or not (directory / cls.vocab_file).exists():
            return super().load(directory)
        tokens = read_vocab_file(directory)
        whole = "a different token on each line, [UNK] too"
        check("[UNK]" in tokens, whole, tokens, cls.vocab_file)
        config = read_json(path) if (path := directory / CONFIG_FILE).exists() else {}
        return cls(tokens, **_read_settings(config, CONFIG, CONFIG_FILE))


def read_vocab_file(directory: Path) -> list[str]:
    """The tokens of BERT's `vocab.txt`, in the order of their ids.

    Raises: TokenizerError — no file, a damaged one, or one with a token twice.
    """
    text = read_text(directory / VOCAB_FILE).replace("\r\n", "\n")
    tokens = text.removesuffix("\n").split("\n")
    check(len(set(tokens)) == len(tokens), "a different token on each line", text, VOCAB_FILE)
    return tokens


def _read_settings(found: Any, names: dict[str, str], file: str) -> dict[str, Any]:
    """Those of our settings that a file has under its own names."""
    check(isinstance(found, dict), "an object with settings", found, file)
    for theirs in names.values():
        value = found.get(theirs, True)
        is_flag = type(value) is bool or (value is None and theirs == "strip_accents")
        check(is_flag, f"{theirs} true or false", value, file)
    return {ours: found[theirs] for ours, theirs in names.items() if theirs in found}


def naive_encode_word(
    word: str, ids: Mapping[str, int], unknown: int, prefix: str = "##", max_word: int = 100
) -> list[int]:
    """What encoding a word means: the longest token that fits, and again from where it ends."""
    found: list[int] = []
    start, mark = 0, ""
    while start < len(word) <= max_word:
        pieces = {end: mark + word[start:end] for end in range(start + 1, len(word) + 1)}
        fitting = [end for end, piece in pieces.items() if piece in ids]
        if not fitting:
            return [unknown]
        start, mark = fitting[-1], prefix
        found.append(ids[pieces[start]])
    return found or [unknown]
