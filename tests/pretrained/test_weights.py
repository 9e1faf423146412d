"""safetensors files: what is read is what stands in them, and what is damaged has a name."""

import json
import os
import tracemalloc

import numpy as np
import pytest
from pretrained.layout import read_file, write_file, write_raw

from minilm.pretrained import PretrainedError
from minilm.pretrained.weights import BLOCK, INDEX, SINGLE, Stored, Weights, write

NUMBERS = np.array([[0.0, -1.5, 3.25], [2.0**-10, -65504.0, 1e30]])
ONE = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


def write_single(directory, **tensors):
    write_file(directory / SINGLE, tensors)


@pytest.mark.parametrize(
    ("name", "dtype"), [("F32", "<f4"), ("F64", "<f8"), ("F16", "<f2")], ids=lambda x: x
)
def test_numbers_come_back_as_float32(tmp_path, name, dtype):
    with np.errstate(over="ignore"):
        stored = NUMBERS.astype(dtype)
    write_single(tmp_path, x=(name, (2, 3), stored.tobytes()))
    array = Weights(tmp_path).read("x")
    assert array.dtype == np.float32 and np.array_equal(array, stored.astype(np.float32))


def test_every_bfloat16_is_the_upper_half_of_its_float32(tmp_path):
    halves = np.arange(2**16, dtype="<u2")
    write_single(tmp_path, x=("BF16", (2**16,), halves.tobytes()))
    array = Weights(tmp_path).read("x")
    assert np.array_equal(array.view(np.uint32), halves.astype(np.uint32) << 16)
    assert array[0x3F80] == 1 and array[0xC040] == -3


def test_a_number_too_large_for_float32_is_infinite_and_no_warning(tmp_path):
    write_single(tmp_path, x=("F64", (2,), np.array([1e300, -1e300]).tobytes()))
    assert Weights(tmp_path).read("x").tolist() == [np.inf, -np.inf]


def test_tensors_longer_than_a_block_are_converted_whole(tmp_path):
    stored = np.random.default_rng(0).normal(size=2 * BLOCK + 3).astype("<f2")
    write_single(tmp_path, x=("F16", stored.shape, stored.tobytes()))
    assert np.array_equal(Weights(tmp_path).read("x"), stored.astype(np.float32))


@pytest.mark.parametrize("shape", [(), (0,), (2, 0, 3), (1,)])
def test_tensors_without_axes_or_numbers_have_their_shape(tmp_path, shape):
    raw = np.ones(shape, "<f4").tobytes()
    write_single(tmp_path, x=("F32", shape, raw), y=("F16", shape, raw[::2]))
    weights = Weights(tmp_path)
    assert weights.read("x").shape == weights.read("y").shape == shape


def test_float32_is_a_view_of_the_file_and_writing_to_it_leaves_the_file_alone(tmp_path):
    write_single(tmp_path, x=("F32", (4,), np.ones(4, "<f4").tobytes()))
    before = (tmp_path / SINGLE).read_bytes()
    weights = Weights(tmp_path)
    x = weights.read("x")
    x[0] = 7
    assert weights.read("x")[0] == 7
    assert (tmp_path / SINGLE).read_bytes() == before
    assert Weights(tmp_path).read("x")[0] == 1


@pytest.mark.parametrize("shift", [1, 2, 3])
def test_float32_that_does_not_lie_at_a_multiple_of_four_bytes_is_copied_into_place(
    tmp_path, shift
):
    values = np.arange(5, dtype="<f4")
    header = json.dumps({"x": {"dtype": "F32", "shape": [5], "data_offsets": [0, 20]}}).encode()
    header += b" " * ((shift - len(header)) % 4)
    write_raw(tmp_path / SINGLE, header, values.tobytes())
    array = Weights(tmp_path).read("x")
    assert array.flags.aligned and np.array_equal(array, values)


@pytest.mark.parametrize("dtype", ["F16", "BF16"])
def test_converting_takes_little_more_memory_than_the_float32_numbers(tmp_path, dtype):
    count = 24 * BLOCK
    with (tmp_path / SINGLE).open("wb") as file:
        header = {"x": {"dtype": dtype, "shape": [count], "data_offsets": [0, 2 * count]}}
        text = json.dumps(header).encode()
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + 2 * count)
    tracemalloc.start()
    array = Weights(tmp_path).read("x")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert array.nbytes == 4 * count and peak < 1.3 * array.nbytes


def test_mapping_takes_no_memory(tmp_path):
    write_single(tmp_path, x=("F32", (2**20,), bytes(4 * 2**20)))
    tracemalloc.start()
    Weights(tmp_path).read("x")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**18


# --- Damage -----------------------------------------------------------------------------------

BIG = 2**62
WRONG_HEADERS = {
    "no object": ([], "an object as header"),
    "no json": (b"{", "a header in JSON"),
    "not utf-8": (b'{"\xff": 1}', "a header in JSON"),
    "deep": (b"[" * 100_000, "a header in JSON"),
    "a name twice": (b'{"x": {}, "x": {}}', "a name that stands there twice"),
    "an entry that is none": ({"x": 3}, "expected dtype, shape and data_offsets, got 3"),
    "no dtype": ({"x": {**ONE, "dtype": None}}, "a dtype of F64"),
    "an unknown dtype": ({"x": {**ONE, "dtype": "F31"}}, "a dtype of F64.*got F31"),
    "a dtype that is a list": ({"x": {**ONE, "dtype": ["F32"]}}, "a dtype of F64"),
    "no shape": ({"x": {**ONE, "shape": None}}, "a shape of up to 8 sizes, got None"),
    "a negative size": ({"x": {**ONE, "shape": [-2]}}, "a shape of up to 8 sizes"),
    "a size that is true": ({"x": {**ONE, "shape": [True, 2]}}, "a shape of up to 8 sizes"),
    "a fraction as size": ({"x": {**ONE, "shape": [2.0]}}, "a shape of up to 8 sizes"),
    "too many axes": ({"x": {**ONE, "shape": [1] * 9}}, "a shape of up to 8 sizes"),
    "a size beyond 64 bits": ({"x": {**ONE, "shape": [2**64]}}, "a shape of up to 8 sizes"),
    "a product beyond them": ({"x": {**ONE, "shape": [BIG] * 4}}, "bytes for F32 of shape"),
    "one offset": ({"x": {**ONE, "data_offsets": [8]}}, "data_offsets of two whole numbers"),
    "no offsets": ({"x": {**ONE, "data_offsets": {}}}, "data_offsets of two whole numbers"),
    "offsets the wrong way round": ({"x": {**ONE, "data_offsets": [8, 0]}}, "8 bytes for F32"),
    "too few bytes": ({"x": {**ONE, "data_offsets": [0, 4]}}, "expected 8 bytes.*got 4"),
    "a gap": ({"x": {**ONE, "data_offsets": [4, 12]}}, "where the tensor before it ends, got"),
    "two that overlap": (
        {"x": ONE, "y": {**ONE, "data_offsets": [4, 12]}},
        "where the tensor before it ends",
    ),
    "one upon the other": ({"x": ONE, "y": ONE}, "where the tensor before it ends"),
    "bytes that belong to none": ({}, "bytes, as its header says"),
    "an end outside": ({"x": ONE, "y": {**ONE, "data_offsets": [8, 16]}}, "bytes, as its header"),
}


@pytest.mark.parametrize(("header", "message"), WRONG_HEADERS.values(), ids=WRONG_HEADERS)
def test_a_header_that_contradicts_itself_or_the_file_is_named(tmp_path, header, message):
    write_raw(tmp_path / SINGLE, header, bytes(8))
    with pytest.raises(PretrainedError, match=message) as caught:
        Weights(tmp_path)
    assert str(tmp_path / SINGLE) in str(caught.value)


@pytest.mark.parametrize("length", [0, 2**20 + 1, 2**40, 2**63, 2**64 - 1])
def test_a_header_of_no_possible_length_is_named_before_it_is_read(tmp_path, length):
    (tmp_path / SINGLE).write_bytes(length.to_bytes(8, "little") + bytes(100))
    with pytest.raises(PretrainedError, match=f"a header of 1 to 100 bytes, got {length};"):
        Weights(tmp_path)


@pytest.mark.parametrize("kept", [0, 3, 8, 40, -1])
def test_a_file_that_ends_too_early_is_named(tmp_path, kept):
    write_single(tmp_path, x=("F32", (2,), bytes(8)))
    whole = (tmp_path / SINGLE).read_bytes()
    (tmp_path / SINGLE).write_bytes(whole[:kept])
    with pytest.raises(PretrainedError, match="expected .*got .*copy it anew"):
        Weights(tmp_path)


def test_numbers_that_are_no_parameters_are_refused_when_they_are_asked_for(tmp_path):
    write_single(tmp_path, x=("I64", (1,), bytes(8)), y=("F8_E4M3", (2,), bytes(2)))
    weights = Weights(tmp_path)
    for name in "xy":
        with pytest.raises(PretrainedError, match="a dtype of F64, F32, F16, BF16, got"):
            weights.read(name)


# --- Directories ------------------------------------------------------------------------------


def write_shards(directory, **changes):
    """Two shards and their index."""
    raw = np.arange(2, dtype="<f4").tobytes()
    write_file(directory / "a.safetensors", {"x": ("F32", (2,), raw)})
    write_file(directory / "b.safetensors", {"y": ("F32", (2,), raw[::-1])})
    mapped = {"x": "a.safetensors", "y": "b.safetensors", **changes}
    (directory / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": mapped}))


def test_shards_are_read_as_one_directory(tmp_path):
    write_shards(tmp_path)
    weights = Weights(tmp_path)
    assert set(weights.entries) == {"x", "y"}
    assert weights.read("x").tolist() == [0, 1] and weights.read("y").shape == (2,)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x": "../a.safetensors"}, r"the plain names of files, got \.\./a\.safetensors"),
        ({"x": "/etc/passwd"}, "the plain names of files, got /etc/passwd"),
        ({"x": ".."}, r"the plain names of files, got \.\."),
        ({"x": "..\\a.safetensors"}, "the plain names of files"),
        ({"x": "c:a.safetensors"}, "the plain names of files"),
        ({"x": "a\0"}, "the plain names of files"),
        ({"x": "\ud800"}, "expected"),
        ({"x": ""}, "expected weights, got Is a directory"),
        ({"x": "c.safetensors"}, "expected weights, got No such file"),
        ({"x": 3}, "expected weights, got No such file"),
        ({"x": ["a.safetensors"]}, "expected weights, got No such file"),
        ({"x": "b.safetensors"}, "each tensor in its shard, got missing 'x'"),
        ({"z": "b.safetensors"}, "each tensor in its shard, got missing 'z'"),
    ],
)
def test_an_index_that_contradicts_its_files_or_climbs_out_is_named(tmp_path, changes, message):
    write_shards(tmp_path, **changes)
    with pytest.raises(PretrainedError, match=message):
        Weights(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "expected a JSON object"),
        ("{", "expected JSON"),
        ("{}", "each tensor in its shard"),
        ('{"weight_map": []}', "weight_map to be an object"),
        ('{"weight_map": {}}', "each tensor in its shard"),
    ],
)
def test_an_index_of_another_form_is_named(tmp_path, text, message):
    (tmp_path / INDEX).write_text(text)
    with pytest.raises(PretrainedError, match=message):
        Weights(tmp_path)


def test_a_link_to_a_file_elsewhere_is_followed(tmp_path):
    (tmp_path / "blobs").mkdir()
    write_single(tmp_path / "blobs", x=("F32", (2,), bytes(8)))
    (tmp_path / "snapshot").mkdir()
    os.symlink(tmp_path / "blobs" / SINGLE, tmp_path / "snapshot" / SINGLE)
    assert Weights(tmp_path / "snapshot").read("x").shape == (2,)


def test_a_pickle_is_not_opened_and_the_way_out_is_told(tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x02.")
    with pytest.raises(PretrainedError, match=r"the pickle pytorch_model\.bin; a pickle can run"):
        Weights(tmp_path)


def test_a_directory_without_weights_is_named(tmp_path):
    with pytest.raises(PretrainedError, match=f"expected {SINGLE} or {INDEX}, got neither"):
        Weights(tmp_path)


def test_names_are_found_with_or_without_the_prefix_and_by_their_alternatives(tmp_path):
    write_single(tmp_path, **{"h.0.x": ("F32", (2,), bytes(8)), "head": ("F32", (1,), bytes(4))})
    weights = Weights(tmp_path, "model.")
    assert weights.find("model.h.0.x") == ["h.0.x"]
    assert weights.find("model.y|head|h.0.x") == ["head", "h.0.x"]
    assert weights.shape("model.y|head") == (1,) and weights.shape("model.y") is None
    assert weights.layers("model.h.#.x") == 1 and weights.layers("model.h.#.y") == 0
    write_single(tmp_path, **{"model.x": ("F32", (2,), bytes(8)), "y": ("F32", (1,), bytes(4))})
    weights = Weights(tmp_path, "model.")
    assert weights.find("model.x") == ["model.x"] and weights.find("model.y") == []


def test_the_first_berts_names_of_the_norms_are_understood(tmp_path):
    write_single(tmp_path, **{"LayerNorm.gamma": ("F32", (2,), bytes(8))})
    assert Weights(tmp_path).find("LayerNorm.weight") == ["LayerNorm.weight"]


# --- Writing ----------------------------------------------------------------------------------


def test_what_is_written_lies_as_the_format_says(tmp_path):
    a = np.arange(6, dtype=np.float32).reshape(2, 3)
    b = np.arange(3, dtype=np.float32)[None] + 10
    c = np.array([1.5])
    write(tmp_path / SINGLE, {"x": Stored([a, b]), "y": Stored([a, b], True), "z": Stored([c])})
    header, data = read_file(tmp_path / SINGLE)
    assert header.pop("__metadata__") == {"format": "pt"}
    assert header == {
        "x": {"dtype": "F32", "shape": [3, 3], "data_offsets": [0, 36]},
        "y": {"dtype": "F32", "shape": [3, 3], "data_offsets": [36, 72]},
        "z": {"dtype": "F64", "shape": [1], "data_offsets": [72, 80]},
    }
    joined = np.concatenate([a, b])
    assert data == joined.tobytes() + joined.T.tobytes() + c.tobytes()
    assert ((tmp_path / SINGLE).stat().st_size - len(data)) % 64 == 0


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    x = np.ones(3, np.float32)
    write(tmp_path / SINGLE, {"x": Stored([x])})
    before = (tmp_path / SINGLE).read_bytes()
    with pytest.raises(ValueError, match="same number of dimensions"):
        write(tmp_path / SINGLE, {"x": Stored([2 * x, np.ones((1, 2), np.float32)])})
    assert (tmp_path / SINGLE).read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == [SINGLE]
