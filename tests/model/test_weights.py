"""Weights are read tensor by tensor from any file that torch writes; one of something else is named."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from repetita.errors import DamagedError
from repetita.model.weights import read_tensors

WEIGHTS = {"a": torch.tensor([3.0, 0.0]), "b": torch.tensor([[4.0]]), "mask": torch.tensor([True])}


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_holds_what_the_same_safetensors_hold(tmp_path: Path, zipped: bool) -> None:
    save_file(WEIGHTS, tmp_path / "model.safetensors")
    torch.save(WEIGHTS, tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)
    found = read_tensors([tmp_path / "pytorch_model.bin"], pickled=True)
    assert found == read_tensors([tmp_path / "model.safetensors"])
    assert found.norm == 5.0 and found.n_values == 3


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.bfloat16, torch.float16, torch.float64])
def test_the_norm_is_that_of_any_kind_of_number(tmp_path: Path, dtype: torch.dtype) -> None:
    save_file({name: value.to(dtype) for name, value in WEIGHTS.items() if name != "mask"}, tmp_path / "a")
    assert read_tensors([tmp_path / "a"]).norm == 5.0


@pytest.mark.parametrize("content", [[WEIGHTS], {"epoch": 3, **WEIGHTS}, {"model": WEIGHTS}])
def test_a_pickle_of_something_else_is_named(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "pytorch_model.bin")
    with pytest.raises(DamagedError, match=r"pytorch_model\.bin"):
        read_tensors([tmp_path / "pytorch_model.bin"], pickled=True)
