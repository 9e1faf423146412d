"""A text as a page, on which each token is coloured and tells how it came to be."""

import html
from typing import Any

import regex

from minilm.tokenizers import BPETokenizer, Tokenizer, UnigramTokenizer, WordPieceTokenizer

COLOURS = ("#cfe8ff", "#ffe1c4", "#d5f2d0", "#f6d2ea", "#fff3b0")
PAGE = """<!doctype html>
<meta charset="utf-8">
<title>{title}</title>
<style>
  body {{ font: 16px/1.8 ui-monospace, monospace; max-width: 60em; margin: 2em auto; }}
  p {{ white-space: pre-wrap; overflow-wrap: anywhere; }}
  span {{ border-radius: 3px; cursor: help; }}
  {colours}
</style>
<h1>{title}</h1>
<p>{summary}</p>
<p>{tokens}</p>
"""


def words(tokenizer: Any, text: str) -> list[tuple[int, str]]:
    """(end, word) of the pieces that the tokenizer cuts one by one."""
    if isinstance(tokenizer, BPETokenizer):
        pieces = tokenizer.chunks(text)
    else:
        word = r"\S+" if isinstance(tokenizer, UnigramTokenizer) else r"\w+|[^\w\s]"
        pieces = regex.findall(rf"{word}|\s+", text)
    ends, end = [], 0
    for piece in pieces:
        end += len(piece)
        ends.append((end, piece))
    return ends


def steps(tokenizer: Tokenizer, word: str) -> str:
    """How the word came to be cut as it is, a line for each step."""
    match tokenizer:
        case BPETokenizer():
            lines = [" ".join(tokens) for tokens in tokenizer.merge_steps(word)]
        case UnigramTokenizer():
            lines = [
                f"{score:9.3f}  {' '.join(tokenizer.tokens[i] for i in ids)}"
                for ids, score in tokenizer.n_best(word, 5)
            ]
        case WordPieceTokenizer():
            ids = tokenizer.encode(word, disallowed_special=())
            lines = [" ".join(tokenizer.tokens[i] for i in ids[:n]) for n in range(1, len(ids) + 1)]
        case _:
            lines = [word]
    return "\n".join(lines)


def page(tokenizer: Tokenizer, text: str, title: str) -> str:
    """The text as HTML: a token is a span, its word's steps show on hover."""
    ids, spans = tokenizer.encode_with_offsets(text, disallowed_special=())
    pieces, done = [], 0
    ends = iter(words(tokenizer, text))
    word_end, title_of = 0, ""
    for k, (i, (start, end)) in enumerate(zip(ids, spans, strict=True)):
        while start >= word_end:
            word_end, word = next(ends, (len(text) + 1, ""))
            title_of = steps(tokenizer, word) if start < word_end and word.strip() else ""
        pieces.append(html.escape(text[done:start]))
        note = html.escape(f"{tokenizer.tokens[i]}  (id {i})\n\n{title_of}").replace("\n", "&#10;")
        visible = html.escape(text[max(done, start) : end]).replace("\n", "↵\n") or "·"
        pieces.append(f'<span class="c{k % len(COLOURS)}" title="{note}">{visible}</span>')
        done = max(done, end)
    pieces.append(html.escape(text[done:]))
    colours = "\n  ".join(f".c{k} {{ background: {c}; }}" for k, c in enumerate(COLOURS))
    return PAGE.format(
        title=html.escape(title),
        colours=colours,
        summary=summary(text, len(ids)),
        tokens="".join(pieces),
    )


def summary(text: str, n_tokens: int) -> str:
    n_bytes = len(text.encode())
    return (
        f"{n_bytes:,} bytes, {n_tokens:,} tokens, {n_bytes / max(1, n_tokens):.2f} bytes per token"
    )
