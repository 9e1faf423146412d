"""Added tokens: strings found in a text before the algorithm sees it, special ones among them."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import regex

from minilm.tokenizers.files import check, is_text

Names = Collection[str]  # some strings, or the one string "all"
# Unicode's, which `regex` calls \\s; Python's str.rstrip takes U+001C to U+001F for it as well.
WHITESPACE = "\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(
    map(chr, range(0x2000, 0x200B))
)
FLAGS = ("special", "lstrip", "rstrip", "single_word", "normalized")


@dataclass(frozen=True)
class AddedToken:
    """A token that is cut out of a text as a whole.

    A `special` one steers the model ([MASK], <|endoftext|>): in a text it counts only where the
    caller allows it. `lstrip` and `rstrip` swallow the whitespace beside it; `single_word` wants
    no letter, digit or underscore beside it; `normalized` looks for it in the normalised text.
    """

    content: str
    special: bool = True
    lstrip: bool = False
    rstrip: bool = False
    single_word: bool = False
    normalized: bool = False


def cut(text: str, tokens: Sequence[AddedToken]) -> Iterator[tuple[int, int, AddedToken | None]]:
    """(start, end, token) of the pieces of a text: added tokens, and None for what is between.

    Of two tokens that begin at one place the longer is found.

    >>> mask = AddedToken("<mask>", lstrip=True)
    >>> list(cut("a <mask>b", [mask])) == [(0, 1, None), (1, 8, mask), (8, 9, None)]
    True
    """
    present = tuple(token for token in tokens if token.content in text)
    done = 0
    for match in _matcher(present).finditer(text) if present else ():
        assert match.lastgroup is not None
        token = present[int(match.lastgroup[1:])]
        start, end = match.span()
        if token.lstrip:
            start = done + len(text[done:start].rstrip(WHITESPACE))
        if done < start:
            yield done, start, None
        yield start, end, token
        done = end
    if done < len(text):
        yield done, len(text), None


@lru_cache(64)
def _matcher(tokens: tuple[AddedToken, ...]) -> regex.Pattern[str]:
    """Finds any of the tokens; the named group that matched is t and its index."""
    alternatives = []
    for i in sorted(range(len(tokens)), key=lambda i: -len(tokens[i].content)):
        token = tokens[i]
        found = f"(?P<t{i}>{regex.escape(token.content)})"
        if token.single_word:
            found = rf"(?<!\w){found}(?!\w)"
        alternatives.append(rf"{found}\s*" if token.rstrip else found)
    return regex.compile("|".join(alternatives))


def wanted_tokens(
    text: str, tokens: Iterable[AddedToken], allowed: Names, disallowed: Names
) -> list[AddedToken]:
    """The added tokens to look for in the text: all but the special ones that are not allowed.

    Raises: ValueError — the text has a disallowed special token, or a name is not one of them.
    """
    listed = list(tokens)
    special = {token.content for token in listed if token.special}
    may = special if allowed == "all" else _names(allowed, special, "allowed_special")
    never = special if disallowed == "all" else _names(disallowed, special, "disallowed_special")
    for content in sorted(never - may):
        if content in text:
            raise ValueError(
                f"encode: expected plain text, got the special token {content!r} at position "
                f"{text.index(content)}; pass allowed_special={{{content!r}}} to encode it as that "
                "token, or disallowed_special=() to encode it as ordinary text"
            )
    return [token for token in listed if not token.special or token.content in may]


def _names(names: Names, special: set[str], argument: str) -> set[str]:
    if isinstance(names, str) or not special.issuperset(names):
        raise ValueError(
            f"encode: expected {argument} to be 'all' or a set of special tokens "
            f"({', '.join(map(repr, sorted(special))) or 'there are none'}), got {names!r:.80}; "
            "put one token into { }"
        )
    return set(names)


def read_added(listed: Any) -> list[tuple[int | None, AddedToken]]:
    """The "added_tokens" of a tokenizer file, with their ids, or None for the next one.

    Raises: TokenizerError — not as Hugging Face `tokenizers` writes them.
    """
    check(listed is None or isinstance(listed, list), 'a list "added_tokens"', listed)
    tokens = []
    for entry in listed or ():
        check(isinstance(entry, dict), "added tokens as objects", entry)
        content, i = entry.get("content"), entry.get("id")
        check(is_text(content) and content != "", "an added token's content", entry)
        check(i is None or type(i) is int, "a whole number as an added token's id", entry)
        flags = {name: entry.get(name, False) for name in FLAGS}
        check(all(type(flag) is bool for flag in flags.values()), "flags true or false", entry)
        tokens.append((i, AddedToken(content, **flags)))
    return tokens


def write_added(tokens: Mapping[int, AddedToken]) -> list[dict[str, Any]]:
    """What `read_added` reads."""
    return [{"id": i, **asdict(token)} for i, token in sorted(tokens.items())]
