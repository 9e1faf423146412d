"""The memory of tokenizers: most pieces of a text have been seen before."""

from collections.abc import Callable, Sequence

ENTRIES = 2**18
LONGEST = 64  # characters: long pieces seldom come again


class Cache(dict[str, tuple[int, ...]]):
    """piece of text -> its token ids, worked out by `encode` when they are first asked for.

    It holds at most 262,144 pieces of at most 64 characters: some 45 MB of English words, 105 MB
    of Chinese clauses. When it is full, all are forgotten, and it begins anew.
    """

    def __init__(self, encode: Callable[[str], Sequence[int]]) -> None:
        self.encode = encode

    def __missing__(self, piece: str) -> tuple[int, ...]:
        ids = tuple(self.encode(piece))
        if len(piece) <= LONGEST:
            if len(self) >= ENTRIES:
                self.clear()
            self[piece] = ids
        return ids
