"""Weights of a checkpoint, tensor by tensor, without making a model of them: hashes and norms."""

import hashlib
import math
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from repetita.errors import DamagedError, first_line


class Tensors(NamedTuple):
    """The weights of one checkpoint; what of a tensor is stored in two numbers of bits differs."""

    hashes: dict[str, str]
    """SHA-256 of each tensor: its shape, kind of number and values."""
    sizes: dict[str, int]
    """Values of each tensor of floating point; others (masks, positions) are no parameters."""
    norm: float
    """Euclidean norm over all of these; not finite where one of them is not."""

    @property
    def sha256(self) -> str:
        """Hash over all tensors, by name: what the files around them say does not count."""
        whole = "".join(f"{name}\0{self.hashes[name]}\n" for name in sorted(self.hashes))
        return hashlib.sha256(whole.encode()).hexdigest()

    @property
    def n_values(self) -> int:
        """Values of all tensors of floating point."""
        return sum(self.sizes.values())

    def share_as_in(self, other: "Tensors", /) -> float:
        """Share of these values that lie in tensors which are bit for bit those of another checkpoint."""
        same = sum(n for name, n in self.sizes.items() if other.hashes.get(name) == self.hashes[name])
        return same / self.n_values if self.n_values else float(self.hashes == other.hashes)


def read_tensors(files: Sequence[Path], /, *, pickled: bool = False) -> Tensors:
    """Reads the weights once, a tensor at a time; `pickled` ones with weights_only.

    Raises DamagedError for a file that cannot be read.
    """
    hashes: dict[str, str] = {}
    sizes: dict[str, int] = {}
    squares = 0.0
    for name, tensor in _tensors(files, pickled=pickled):
        content = tensor.detach().contiguous()
        digest = hashlib.sha256(f"{tuple(content.shape)} {content.dtype}".encode())
        if content.numel():
            digest.update(content.reshape(-1).view(torch.uint8).numpy().data)
        hashes[name] = digest.hexdigest()
        if content.is_floating_point():
            sizes[name] = content.numel()
            # Numbers of 8 bits have no norm of their own.
            flat = content.reshape(-1) if content.itemsize > 1 else content.reshape(-1).float()
            squares += float(torch.linalg.vector_norm(flat, dtype=torch.float64)) ** 2
    return Tensors(hashes, sizes, math.sqrt(squares) if math.isfinite(squares) else squares)


def _tensors(files: Sequence[Path], *, pickled: bool) -> Iterator[tuple[str, Tensor]]:
    from safetensors import SafetensorError, safe_open

    for file in files:
        try:
            with ExitStack() as opened:
                if pickled:
                    # Files of before torch 1.6 are no archives, and are read whole.
                    whole = torch.load(
                        file, weights_only=True, map_location="cpu", mmap=zipfile.is_zipfile(file)
                    )
                    if not all(isinstance(one, Tensor) for one in whole.values()):
                        raise ValueError("it holds more than tensors")
                    yield from whole.items()
                    continue
                there = opened.enter_context(safe_open(file, framework="pt"))
                for name in there.keys():  # noqa: SIM118 - not a dict
                    yield name, there.get_tensor(name)
        except (SafetensorError, OSError, RuntimeError, ValueError, AttributeError) as error:
            raise DamagedError(f"{file.name} cannot be read ({first_line(error)}); copy it again") from None
        except Exception as error:
            if type(error).__name__ != "UnpicklingError":
                raise
            raise DamagedError(
                f"{file.name} is a pickle that holds more than weights ({first_line(error)}); do not open it"
            ) from None
