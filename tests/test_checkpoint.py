"""Laws of the checkpoint file: whole or not at all, and never silently wrong."""

import io
import zipfile

import numpy as np
import pytest
from runs import MODEL, tiny_model, tiny_trainer

from minilm import checkpoint
from minilm.checkpoint import CheckpointError

ARRAYS = {"a": np.arange(60, dtype=np.float32).reshape(3, 20), "b/c": np.array([1.5, -0.0, np.inf])}
META = {"step": 3, "state": {"big": 2**100}}


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "checkpoint.npz"
    checkpoint.save(path, ARRAYS, META)
    return path


def same(arrays, meta):
    return (
        set(arrays) == set(ARRAYS)
        and all(arrays[n].tobytes() == ARRAYS[n].tobytes() for n in ARRAYS)
        and meta == {"format": checkpoint.FORMAT, **META}
    )


def test_load_gives_what_save_was_given_bit_for_bit(saved):
    assert same(*checkpoint.load(saved))


@pytest.mark.parametrize("keep", [0, 1, 100, 0.5, 0.9, -1])
def test_a_truncated_file_is_one_named_error(saved, keep):
    content = saved.read_bytes()
    size = int(len(content) * keep) if isinstance(keep, float) else keep
    saved.write_bytes(content[:size])
    with pytest.raises(CheckpointError, match="expected a file in the format .*damaged or foreign"):
        checkpoint.load(saved)


@pytest.mark.parametrize("flip", [0xFF, 8, 12, 14, 1])  # 8, 12, 14: compressed, a zip then says
def test_any_flipped_byte_is_the_named_error_or_changes_nothing(saved, flip):
    content = saved.read_bytes()
    errors = 0
    for position in range(len(content)):
        damaged = bytearray(content)
        damaged[position] ^= flip
        saved.write_bytes(damaged)
        try:
            assert same(*checkpoint.load(saved)), position
        except CheckpointError:
            errors += 1
    assert errors > len(content) / 2


@pytest.mark.parametrize(
    "content", [b"", b"not a checkpoint", b"\x80\x04N.", b"PK\x03\x04" + b"x" * 50]
)
def test_a_foreign_file_is_the_named_error(tmp_path, content):
    path = tmp_path / "checkpoint.npz"
    path.write_bytes(content)
    with pytest.raises(CheckpointError):
        checkpoint.load(path)


def test_a_pickled_array_is_refused(tmp_path):
    path = tmp_path / "checkpoint.npz"
    buffer = io.BytesIO()
    np.save(buffer, np.array([{"an": "object"}], dtype=object), allow_pickle=True)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("a.npy", buffer.getvalue())
    with pytest.raises(CheckpointError):
        checkpoint.load(path)


def test_another_npz_is_refused(tmp_path):
    np.savez(tmp_path / "checkpoint.npz", a=np.ones(3))
    with pytest.raises(CheckpointError):
        checkpoint.load(tmp_path / "checkpoint.npz")


def test_a_missing_file_is_the_named_error(tmp_path):
    with pytest.raises(CheckpointError, match="no such file; give the directory of a run"):
        checkpoint.load(tmp_path / "checkpoint.npz")


def test_a_failed_save_leaves_the_old_file(saved):
    with pytest.raises(TypeError):
        checkpoint.save(saved, ARRAYS, {"not json": object()})
    assert same(*checkpoint.load(saved))
    assert [p.name for p in saved.parent.iterdir()] == [saved.name]


def test_unpack_gives_back_what_pack_was_given():
    parts = {"model": {"w": np.ones(2)}, "optimizer": {"m": np.zeros(3), "steps": 4}, "empty": {}}
    arrays, meta = checkpoint.pack(parts)
    for part, state in parts.items():
        found = checkpoint.unpack(arrays, meta, part)
        assert found.keys() == state.keys()
        assert all(np.array_equal(found[name], state[name]) for name in state)


def test_a_damaged_checkpoint_leaves_the_run_untouched(tmp_path):
    tiny_trainer(tmp_path, max_steps=4).run()
    path = tmp_path / checkpoint.CHECKPOINT
    path.write_bytes(path.read_bytes()[:-500])
    trainer = tiny_trainer(tmp_path, max_steps=4)
    before = {name: array.copy() for name, array in trainer.model.state_dict().items()}
    with pytest.raises(CheckpointError):
        trainer.resume()
    for name, array in trainer.model.state_dict().items():
        np.testing.assert_array_equal(array, before[name])
    assert trainer.progress.step == 0


def test_a_run_is_loaded_with_its_best_weights(tmp_path):
    model = tiny_model(seed=5)
    checkpoint.write_config(tmp_path, {"model": "gpt", "model_config": MODEL})
    checkpoint.save(tmp_path / checkpoint.BEST, model.state_dict(), {})
    loaded = checkpoint.load_model(tmp_path)
    assert not loaded.training
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(loaded.state_dict()[name], array)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"model": 1, "model_config": {}}', "{" * 10_000])
def test_a_configuration_that_is_none_is_the_named_error(tmp_path, text):
    with pytest.raises(CheckpointError):
        checkpoint.read_config(tmp_path)
    (tmp_path / checkpoint.CONFIG).write_text(text)
    with pytest.raises(CheckpointError, match="expected the configuration of a run"):
        checkpoint.read_config(tmp_path)
