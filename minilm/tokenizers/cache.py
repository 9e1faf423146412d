"""The memory of tokenizers: most pieces of a text have been seen before."""

from collections.abc import Callable

ENTRIES = 2**16
LONGEST = 64  # characters: long pieces seldom come again


class Cache(dict[str, list[int]]):
    """piece of text -> its token ids, worked out by `encode` when they are first asked for.

    It holds at most 65,536 pieces of at most 64 characters, some 20 MB; when it is full, all are
    forgotten, and it begins anew.
    """

    def __init__(self, encode: Callable[[str], list[int]]) -> None:
        self.encode = encode

    def __missing__(self, piece: str) -> list[int]:
        ids = self.encode(piece)
        if len(piece) <= LONGEST:
            if len(self) >= ENTRIES:
                self.clear()
            self[piece] = ids
        return ids
