"""Tensors go to a file and come back one at a time, and the file is the safetensors library's own."""

import hashlib
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save
from torch import Tensor

from repetita.errors import StorageError
from repetita.model.tensor_file import KINDS, Later, stored_tensors, write_tensors

TENSORS = {
    **{f"of {dtype}": torch.arange(1, 4).to(dtype) for dtype in KINDS},
    "embedding.weight": torch.randn(5, 3, generator=torch.Generator().manual_seed(0)),
    "A": torch.tensor(float("nan")),
    "turned": torch.arange(6.0).reshape(2, 3).T,
    "a part": torch.arange(6.0)[2:4],
    "nothing": torch.empty(0, 3),
    'é"\\\x01\n': torch.tensor(7),
    "learnt": torch.nn.Parameter(torch.ones(2)),
}


@pytest.mark.parametrize("tensors", [TENSORS, {}, {"one": torch.ones(1)}], ids=["many", "none", "one"])
def test_same_bytes_as_the_library_writes(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    digest = write_tensors(tmp_path / "file", tensors)
    written = (tmp_path / "file").read_bytes()
    assert written == save({name: tensor.detach().contiguous() for name, tensor in tensors.items()})
    assert digest == hashlib.sha256(written).hexdigest()


def test_round_trip_to_the_bit(tmp_path: Path) -> None:
    write_tensors(tmp_path / "file", TENSORS)
    found = stored_tensors(tmp_path / "file")
    assert set(found) == set(TENSORS) and len(found) == len(TENSORS)
    for name, tensor in TENSORS.items():
        assert (found[name].dtype, found[name].shape) == (tensor.dtype, tensor.shape)
        assert torch.allclose(found[name], tensor, rtol=0, atol=0, equal_nan=True)
    with pytest.raises(KeyError):
        found["another"]
    write_tensors(tmp_path / "again", found)
    assert (tmp_path / "again").read_bytes() == (tmp_path / "file").read_bytes()


def test_one_tensor_is_held_at_a_time(tmp_path: Path) -> None:
    """Each is asked for once, and gone when the next one is."""
    made: list[weakref.ref[Any]] = []

    def make(name: str) -> Tensor:
        assert all(one() is None for one in made)
        memory = np.full(100, float(name), np.float32)
        made.append(weakref.ref(memory))
        return torch.from_numpy(memory)

    like = {str(n): torch.empty(100, device="meta") for n in range(4)}
    write_tensors(tmp_path / "file", Later(like, make=make))
    assert len(made) == 4
    assert stored_tensors(tmp_path / "file")["3"].tolist() == [3.0] * 100


def test_a_file_that_fails_or_shrinks(tmp_path: Path) -> None:
    def make(name: str) -> Tensor:
        raise OSError(28, "No space left on device")

    (tmp_path / "file").write_bytes(b"before")
    with pytest.raises(StorageError, match="the disk is full"):
        write_tensors(tmp_path / "file", Later({"a": torch.empty(3, device="meta")}, make=make))
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [b"before"]
    write_tensors(tmp_path / "file", {"a": torch.ones(3)})
    found = stored_tensors(tmp_path / "file")
    (tmp_path / "file").write_bytes((tmp_path / "file").read_bytes()[:-1])
    with pytest.raises(OSError, match="cut short"):
        found["a"]
