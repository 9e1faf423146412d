"""A corpus without repeated lines.

`unique_lines` drops lines that came before, `near_unique_lines` also those that nearly did, found
by MinHash and locality-sensitive hashing.
"""

from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet
from functools import cache
from hashlib import blake2b
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from minilm.tokenizers.base import check_unicode


def unique_lines(lines: Iterable[str]) -> Iterator[str]:
    """The lines that differ from every line before, in their order.

    Remembers not lines but 16-byte BLAKE2b digests: about 100 bytes of memory for each different
    line, however long. Two of 10⁹ lines share a digest with probability 10⁹·10⁹ / 2 / 2¹²⁸ ≈ 10⁻²¹.

    Raises: TypeError — a text in place of its lines. ValueError — a lone surrogate.

    >>> list(unique_lines(["one", "two", "one"]))
    ['one', 'two']
    """
    _check_lines(lines)
    seen: set[bytes] = set()

    def is_new(line: str) -> bool:
        check_unicode(line)
        count = len(seen)
        seen.add(blake2b(line.encode(), digest_size=16).digest())
        return len(seen) > count

    return filter(is_new, lines)


def _check_lines(lines: Iterable[str]) -> None:
    if isinstance(lines, str):
        raise TypeError(f"expected lines, got the text {lines!r:.40}; use text.splitlines()")


def shingles(text: str, size: int = 5) -> set[str]:
    """All pieces of `size` characters that stand in the text; of a shorter text, itself.

    >>> sorted(shingles("banana", 3))
    ['ana', 'ban', 'nan']
    """
    return {text[i : i + size] for i in range(max(len(text) - size, 0) + 1)}


def jaccard(a: AbstractSet[str], b: AbstractSet[str]) -> float:
    """How much two sets have in common: |a ∩ b| / |a ∪ b|, and 1 of two empty ones.

    >>> jaccard({"ana", "ban", "nan"}, {"ana", "nan", "ant"})
    0.5
    """
    return len(a & b) / len(a | b) if a or b else 1.0


@cache
def _hash_functions(n_hashes: int) -> NDArray[np.uint64]:
    rng = np.random.default_rng(1997)
    return rng.integers(2**64, size=(2, n_hashes), dtype=np.uint64)


def minhash(text: str, n_hashes: int = 128, shingle: int = 5) -> NDArray[np.uint32]:
    """A short signature: two texts agree in about the share of entries that is their similarity.

    entry k = min over shingles x of h_k(x),  h(x) = ((a·x + b) mod 2⁶⁴) div 2³²
    P(two entries equal) = jaccard of the two texts' shingles

    since under a random order each shingle of the union is equally likely to be the first, and the
    entries are equal where it stands in both. The estimate's standard error is
    √(s·(1 - s) / n_hashes). x is the CRC-32 of the shingle's UTF-8; a and b are always the same, so
    signatures can be compared across runs and machines. The overflow of uint64 is the mod.

    Raises: ValueError — a lone surrogate, n_hashes or shingle below 1.
    Source: Broder 1997, On the resemblance and containment of documents; h: Dietzfelbinger 1996.
    Differs: pairwise independent functions in place of random orders, which do not fit in memory.

    >>> one, two = (minhash(text, 512) for text in ("the cat sat on the mat", "a cat sat on a mat"))
    >>> exact = jaccard(shingles("the cat sat on the mat"), shingles("a cat sat on a mat"))
    >>> exact, float((one == two).mean())
    (0.3333333333333333, 0.326171875)
    """
    if min(n_hashes, shingle) < 1:
        raise ValueError(
            f"minhash: expected n_hashes and shingle >= 1, got {n_hashes} and {shingle}; "
            "try 128 and 5"
        )
    check_unicode(text)
    pieces = shingles(text, shingle)
    codes = np.fromiter((crc32(piece.encode()) for piece in pieces), np.uint64, len(pieces))
    a, b = _hash_functions(n_hashes)
    lowest = np.full(n_hashes, 2**64 - 1, np.uint64)
    for start in range(0, len(codes), 256):  # 256 shingles by 128 hashes stay in the cache
        x = codes[start : start + 256, None]
        np.minimum(lowest, (a * x + b).min(axis=0), out=lowest)
    return (lowest >> np.uint64(32)).astype(np.uint32)


def near_unique_lines(
    lines: Iterable[str],
    threshold: float = 0.8,
    n_hashes: int = 128,
    bands: int = 16,
    shingle: int = 5,
) -> Iterator[str]:
    """The lines that nearly equal no line given before: jaccard of shingles below `threshold`.

    A signature of b·r entries is cut into b bands of r. Only lines that agree in a whole band are
    compared, by their exact similarity s, so no line is dropped without cause; but few are missed:
    P(compared) = 1 - (1 - sʳ)ᵇ, with b = 16, r = 8:  s 0.5: 0.06,  0.7: 0.61,  0.8: 0.95,  0.9: 1.
    More bands miss less and compare more. Remembers the lines given, and about 4 KB for each.

    Raises: TypeError — a text in place of its lines. ValueError — a threshold outside (0, 1], bands
    that do not divide n_hashes, n_hashes or shingle below 1, a lone surrogate.
    Source: Leskovec, Rajaraman and Ullman 2014, Mining of Massive Datasets, section 3.4.

    >>> list(near_unique_lines(["The cat sat on the mat.", "The cat sat on the mat!", "A dog"]))
    ['The cat sat on the mat.', 'A dog']
    """
    _check_lines(lines)
    if not 0 < threshold <= 1:
        raise ValueError(f"expected a threshold in (0, 1], got {threshold}; try 0.8")
    if bands < 1 or n_hashes % bands:
        raise ValueError(
            f"expected bands that divide n_hashes = {n_hashes}, got {bands}; try 16 of 128"
        )
    minhash("", n_hashes, shingle)  # raises now, not at the first line
    kept: list[str] = []
    tables: list[dict[bytes, list[int]]] = [{} for _ in range(bands)]

    def is_new(line: str) -> bool:
        signature = minhash(line, n_hashes, shingle)
        keys = [band.tobytes() for band in signature.reshape(bands, -1)]
        pieces = shingles(line, shingle)
        similar = {i for table, key in zip(tables, keys, strict=True) for i in table.get(key, ())}
        if any(jaccard(pieces, shingles(kept[i], shingle)) >= threshold for i in similar):
            return False
        for table, key in zip(tables, keys, strict=True):
            table.setdefault(key, []).append(len(kept))
        kept.append(line)
        return True

    return filter(is_new, lines)
