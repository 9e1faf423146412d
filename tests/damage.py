"""Files damaged in many ways: JSON whose parts are moved, replaced and removed, and bytes."""

import copy

from minilm.tokenizers import CharTokenizer, TokenizerError

JUNK = [
    None,
    True,
    -1,
    0,
    1,
    3,
    10**9,
    1.5,
    float("nan"),
    "",
    "a",
    "\ud800",
    "##",
    "▁",
    [],
    {},
    [[]],
]


def places(content, path=()):
    """Every path into nested lists and dicts."""
    yield path
    if isinstance(content, dict):
        for key in content:
            yield from places(content[key], (*path, key))
    elif isinstance(content, list):
        for i in range(len(content)):
            yield from places(content[i], (*path, i))


def mutate_value(content, paths, rng):
    """Replace, remove, or double one part, or exchange it for another one."""
    content = copy.deepcopy(content)
    # Half of the time not inside the long lists.
    path = rng.choice(paths if rng.random() < 0.5 else [p for p in paths if len(p) < 3])
    if not path:
        return rng.choice(JUNK)
    parent = content
    for key in path[:-1]:
        parent = parent[key]
    key = path[-1]
    match rng.randrange(4):
        case 0:
            parent[key] = rng.choice(JUNK)
        case 1:
            del parent[key]
        case 2 if isinstance(parent, dict):
            parent[str(key) + rng.choice(["", "x", "\ud800", " "])] = parent.pop(key)
        case 2:
            parent.insert(rng.randrange(len(parent) + 1), parent[key])
        case _:
            other = content
            for step in rng.choice(paths):
                if not isinstance(other, (dict, list)) or (
                    step not in other if isinstance(other, dict) else step >= len(other)
                ):
                    break
                other = other[step]
            parent[key] = copy.deepcopy(other)
    return content


def mutate_bytes(data, rng):
    """Overwrite, cut out, double or cut off some bytes."""
    start = rng.randrange(len(data))
    stop = min(len(data), start + rng.choice([1, 1, 2, 10, 100]))
    match rng.randrange(4):
        case 0:
            return (
                data[:start] + bytes(rng.randrange(256) for _ in range(stop - start)) + data[stop:]
            )
        case 1:
            return data[:start] + data[stop:]
        case 2:
            return data[:stop] + data[start:]
        case _:
            return data[:start]


def loads_and_works(load, directory):
    """Whether the directory's tokenizer loads; if so, it must work."""
    try:
        tokenizer = load(directory)
    except TokenizerError as error:
        assert "expected" in str(error) and "got" in str(error)
        return False
    for text in ("", "The hat", "  the cat hat <x> 中 é😀\n"):
        try:
            ids = tokenizer.encode(text, allowed_special="all")
        except ValueError as error:  # some tokenizers lack characters, and an unknown token
            assert isinstance(tokenizer, CharTokenizer) or tokenizer.unk_id is None
            assert "expected" in str(error) and "got" in str(error)
            continue
        assert all(0 <= i < tokenizer.vocab_size for i in ids)
        assert isinstance(tokenizer.decode(ids), str)
        assert tokenizer.encode_with_offsets(text, allowed_special="all")[0] == ids
        tokenizer.to_json()
    return True
