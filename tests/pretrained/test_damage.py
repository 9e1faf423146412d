"""Damaged directories give PretrainedError or a model that works; nothing else, and at once."""

import copy
import json
import random
import time
import tracemalloc

import numpy as np
import pytest
from pretrained.layout import build, halves, outputs, read_file, shards, write_raw

from minilm.pretrained import PretrainedError, from_pretrained
from minilm.pretrained.weights import SINGLE

MUTANTS = 75  # of each kind
MANY = 1_250
SPARE = 2**20  # bytes that a model of no size takes, beside its weights
CONFIG = "config.json"
JUNK = [
    *(None, True, False, -1, 0, 1, 2, 3, 5, 2**31, 10**9, 2**63, 10**30, 10**400),
    *(0.5, 1e308, float("nan"), float("inf")),
    *("", "gelu", "F16", "../x", "/etc/passwd", "..", "\ud800", "x" * 300),
    *([], {}, [[]], [1, 2], {"": 0}, [2**62, 2**62], [4, 0], [-4, 4]),
]


def half_gpt(directory):
    build("gpt").save_pretrained(directory)
    halves(directory, "F16")


def half_llama(directory):
    build("llama, as it trains fastest").save_pretrained(directory)
    halves(directory, "BF16")


def sharded_bert(directory):
    build("bert, classes").save_pretrained(directory)
    shards(directory)


def whole_t5(directory):
    build("t5 1.1").save_pretrained(directory)


KINDS = {"gpt": half_gpt, "llama": half_llama, "bert": sharded_bert, "t5": whole_t5}


def places(content, path=()):
    """Every path into nested lists and dicts."""
    yield path
    pairs = content.items() if isinstance(content, dict) else enumerate(content)
    for key, value in pairs if isinstance(content, (dict, list)) else ():
        if isinstance(value, (dict, list)):
            yield from places(value, (*path, key))
        else:
            yield (*path, key)


def mutate_json(content, rng):
    """Replace, remove, rename or exchange one value."""
    content = copy.deepcopy(content)
    path = rng.choice([path for path in places(content) if path])
    parent = content
    for key in path[:-1]:
        parent = parent[key]
    key = path[-1]
    match rng.randrange(4):
        case 0 | 1:
            parent[key] = rng.choice(JUNK)
        case 2 if isinstance(parent, dict) and rng.random() < 0.5:
            parent[str(key) + rng.choice(["x", "\ud800", " "])] = parent.pop(key)
        case 2:
            del parent[key]
        case _:
            other = rng.choice([path for path in places(content) if path])
            value = content
            for step in other:
                value = value[step]
            parent[key] = copy.deepcopy(value)
    return content


def mutate_bytes(data, rng):
    """Overwrite, cut out, double or cut off some bytes, at the beginning more often."""
    start = rng.randrange(len(data) if rng.random() < 0.5 else min(len(data), 200))
    stop = min(len(data), start + rng.choice([1, 1, 2, 10, 100]))
    match rng.randrange(5):
        case 0 | 1:
            return data[:start] + rng.randbytes(stop - start) + data[stop:]
        case 2:
            return data[:start] + data[stop:]
        case 3:
            return data[:stop] + data[start:]
        case _:
            return data[:start]


def mutate_file(path, rng):
    """Damage one file in one way that suits it."""
    data = path.read_bytes()
    if rng.random() < 0.3:
        return mutate_bytes(data, rng)
    if path.suffix == ".json":
        return json.dumps(mutate_json(json.loads(data), rng)).encode()
    length = int.from_bytes(data[:8], "little")
    if rng.random() < 0.2:
        length = rng.choice(
            [0, 1, length - 1, length + 1, len(data), 2**20, 2**32, 2**63, 2**64 - 1]
        )
        return length.to_bytes(8, "little") + data[8:]
    header = json.dumps(mutate_json(json.loads(data[8 : 8 + length]), rng)).encode()
    return len(header).to_bytes(8, "little") + header + data[8 + length :]


def check(directory, limit):
    """Whether the directory's model loads; if so, it must work."""
    start = time.process_time()
    tracemalloc.start()
    try:
        model = from_pretrained(directory)
    except PretrainedError as error:
        assert "expected" in str(error) and "got" in str(error), error
        return False
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < limit, peak
        assert time.process_time() - start < 5
    c = model.config
    with np.errstate(all="ignore"):
        found = outputs(model, length=min(5, c.max_len))
    width = getattr(c, "n_labels", c.vocab_size)
    assert found["logits"].shape[-1] == width and found["logits"].dtype == np.float32
    return True


def run(kind, tmp_path, count, seed):
    """How many of so many mutants could be opened."""
    rng = random.Random(seed)
    KINDS[kind](tmp_path)
    files = sorted(tmp_path.iterdir())
    size = sum(path.stat().st_size for path in files)
    assert check(tmp_path, 2 * size + SPARE)
    opened = 0
    for _ in range(count):
        path = rng.choice(files)
        whole = path.read_bytes()
        mutant = mutate_file(path, rng)
        path.unlink()
        path.write_bytes(mutant)
        opened += check(tmp_path, 2 * size + SPARE)
        path.unlink()
        path.write_bytes(whole)
    assert check(tmp_path, 2 * size + SPARE)
    return opened


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_directory_is_refused_or_works(kind, tmp_path):
    assert 0.05 * MUTANTS < run(kind, tmp_path, MUTANTS, 0) < 0.8 * MUTANTS


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_many_damaged_directories_are_refused_or_work(kind, tmp_path):
    assert 0.05 * MANY < run(kind, tmp_path, MANY, 1) < 0.8 * MANY


def test_every_cut_of_the_weights_is_noticed(tmp_path):
    whole_t5(tmp_path)
    data = (tmp_path / SINGLE).read_bytes()
    rng = random.Random(0)
    for length in {0, 1, 7, 8, 9, len(data) - 1, *(rng.randrange(len(data)) for _ in range(20))}:
        (tmp_path / SINGLE).write_bytes(data[:length])
        with pytest.raises(PretrainedError):
            from_pretrained(tmp_path)


def test_two_tensors_that_share_bytes_are_noticed_wherever_they_lie(tmp_path):
    whole_t5(tmp_path)
    header, data = read_file(tmp_path / SINGLE)
    names = [name for name in header if name != "__metadata__"]
    rng = random.Random(0)
    for _ in range(20):
        one, other = rng.sample(names, 2)
        if header[one]["shape"] != header[other]["shape"]:
            continue
        shared = {**header, other: header[one]}
        write_raw(tmp_path / SINGLE, shared, data)
        with pytest.raises(PretrainedError, match="where the tensor before it ends"):
            from_pretrained(tmp_path)


def test_no_file_makes_the_reader_take_much_more_memory_than_it_has_bytes(tmp_path):
    """The worst that was found: headers of many small values, each an object of its own."""
    build("gpt").save_pretrained(tmp_path)
    for worst in (
        b"[" + b"[]," * 300_000 + b"[]]",
        b'{"a":' + b'{"a":[' * 400 + b"]}" * 400 + b"}",
    ):
        write_raw(tmp_path / SINGLE, worst, b"")
        tracemalloc.start()
        with pytest.raises(PretrainedError):
            from_pretrained(tmp_path)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 64 * 2**20
