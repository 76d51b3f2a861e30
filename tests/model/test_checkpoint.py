"""Checkpoints are whole or not there, verified to the last byte, and pruned to what is needed."""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, BinaryIO

import pytest
import torch
from torch import Tensor

from repetita.errors import DamagedError, StorageError
from repetita.journal import disk
from repetita.journal.records import JournalPosition
from repetita.model import tensor_file
from repetita.model.checkpoint import checkpoint_path, load, prune, save, steps_on_disk
from repetita.model.config import ModelConfig
from repetita.model.transformer import Transformer

CONFIG = ModelConfig(n_layer=1, d_model=8, n_head=2, vocab_size=11, context=4)
JOURNAL = JournalPosition(files={"steps.jsonl": (123, "ab" * 32), "events.jsonl": (0, "cd" * 32)})
FILES = ("model.safetensors", "optimizer.safetensors", "position.json")


def weights(step: int) -> dict[str, Tensor]:
    return Transformer(CONFIG, seed=step).state_dict()


def write(run: Path, step: int, *, resume: bool = True) -> Path:
    optimizer = {
        "embedding.weight.exp_avg": torch.full((11, 8), float(step)),
        "step": torch.tensor(float(step)),
    }
    return save(
        run,
        step=step,
        tokens=100 * step,
        config=CONFIG,
        journal=JOURNAL,
        model=weights(step),
        optimizer=optimizer if resume else None,
    )


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0b100
    path.write_bytes(data)


def test_round_trip_to_the_bit(tmp_path: Path) -> None:
    folder = write(tmp_path, 7)
    assert folder == checkpoint_path(tmp_path, step=7)
    assert sorted(file.name for file in folder.iterdir()) == list(FILES)
    loaded = load(folder)
    assert (loaded.step, loaded.tokens, loaded.config, loaded.journal) == (7, 700, CONFIG, JOURNAL)
    assert loaded.model.keys() == weights(7).keys()
    assert all(torch.equal(loaded.model[name], value) for name, value in weights(7).items())
    assert loaded.optimizer is not None
    assert torch.equal(loaded.optimizer["step"], torch.tensor(7.0)) and loaded.optimizer["step"].ndim == 0


def test_science_checkpoint_is_no_place_to_continue_from(tmp_path: Path) -> None:
    write(tmp_path, 3)
    write(tmp_path, 8, resume=False)
    assert steps_on_disk(tmp_path) == (3, 8) and steps_on_disk(tmp_path, kind="resume") == (3,)
    assert load(checkpoint_path(tmp_path, step=8)).optimizer is None


def test_nothing_there(tmp_path: Path) -> None:
    assert steps_on_disk(tmp_path) == ()
    with pytest.raises(DamagedError, match=r"position\.json"):
        load(checkpoint_path(tmp_path, step=1))


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("harm", ["flip", "cut", "gone", "empty"])
def test_damage_is_found_and_the_one_before_stays(tmp_path: Path, name: str, harm: str) -> None:
    write(tmp_path, 1)
    file = write(tmp_path, 2) / name
    size = file.stat().st_size
    if harm == "flip":
        flip(file, size // 2)
    elif harm == "gone":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[: size - 1 if harm == "cut" else 0])
    with pytest.raises(DamagedError, match=name) as error:
        load(file.parent)
    assert f"delete the folder {tmp_path} and train" in str(error.value)
    assert load(checkpoint_path(tmp_path, step=1)).step == 1


def test_every_byte_of_the_position_counts(tmp_path: Path) -> None:
    file = write(tmp_path, 1) / "position.json"
    good = file.read_bytes()
    content = [at for at, byte in enumerate(good) if not chr(byte).isspace()]
    for at in content[:: max(1, len(content) // 150)]:
        flip(file, at)
        with pytest.raises(DamagedError, match=r"position\.json"):
            load(file.parent)
        file.write_bytes(good)
    assert load(file.parent).step == 1


@pytest.mark.parametrize("done", range(3))
@pytest.mark.parametrize("again", [False, True], ids=["new step", "same step"])
def test_stopped_between_files_leaves_the_old_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, done: int, again: bool
) -> None:
    """A process killed after `done` of the three files, and the next that cleans up after it."""
    write(tmp_path, 1)
    real, calls = disk.atomic_file, list[Path]()

    def killed(path: Path, **how: Any) -> AbstractContextManager[BinaryIO]:
        if len(calls) == done:
            raise KeyboardInterrupt
        calls.append(path)
        return real(path, **how)

    for module in (disk, tensor_file):
        monkeypatch.setattr(module, "atomic_file", killed)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path, 1 if again else 2)
    assert steps_on_disk(tmp_path) == (1,)
    assert load(checkpoint_path(tmp_path, step=1)).step == 1
    for module in (disk, tensor_file):
        monkeypatch.setattr(module, "atomic_file", real)
    write(tmp_path, 2)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["00000001", "00000002"]


def test_same_step_again_replaces(tmp_path: Path) -> None:
    write(tmp_path, 5, resume=False)
    write(tmp_path, 5)
    assert load(checkpoint_path(tmp_path, step=5)).optimizer is not None


def test_disk_that_refuses(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("in the way")
    with pytest.raises(StorageError, match="cannot write"):
        write(tmp_path, 1)


def test_prune_keeps_two_and_what_is_asked_for(tmp_path: Path) -> None:
    for step in range(1, 8):
        write(tmp_path, step, resume=step != 3)
    prune(tmp_path, whole={2}, weights={4, 7})
    assert steps_on_disk(tmp_path) == (2, 3, 4, 6, 7)
    assert steps_on_disk(tmp_path, kind="resume") == (2, 6, 7)
    for step in steps_on_disk(tmp_path):
        kept = load(checkpoint_path(tmp_path, step=step))
        assert (kept.optimizer is None) == (step in {3, 4})
        assert torch.equal(kept.model["embedding.weight"], weights(step)["embedding.weight"])
    prune(tmp_path, newest=0)
    assert steps_on_disk(tmp_path) == (3, 4)


def test_prune_leaves_damage_for_its_reader(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        write(tmp_path, step)
    flip(checkpoint_path(tmp_path, step=1) / "position.json", 20)
    prune(tmp_path, weights={1})
    assert 1 in steps_on_disk(tmp_path)


def test_tensors_need_not_be_contiguous(tmp_path: Path) -> None:
    turned = torch.arange(6.0).reshape(2, 3).T
    save(tmp_path, step=0, tokens=0, config=CONFIG, journal=JOURNAL, model={"a": turned}, optimizer=None)
    assert torch.equal(load(checkpoint_path(tmp_path, step=0)).model["a"], turned)
