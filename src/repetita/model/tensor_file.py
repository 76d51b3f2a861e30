"""Files of safetensors written and read one tensor at a time, so that nobody need hold all of them.

Such a file is the length of a header, the header (JSON: kind, shape and place of each tensor) and the bytes
of the tensors; all but these is known beforehand. See https://github.com/huggingface/safetensors.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from repetita.journal.disk import atomic_file

KINDS = {
    torch.int64: "I64",
    torch.float64: "F64",
    torch.float32: "F32",
    torch.int32: "I32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
"""Names of kinds of numbers, in the order in which the safetensors library puts them into a file."""

_LENGTH = 8
"""Bytes of the header's length, and what the header is padded to."""


class Later(Mapping[str, Tensor]):
    """Tensors by name, each made anew when it is asked for; `like` has their shapes and kinds of number."""

    def __init__(self, like: Mapping[str, Tensor], *, make: Callable[[str], Tensor]) -> None:
        self.like, self._make = like, make

    def __getitem__(self, name: str) -> Tensor:
        if name not in self.like:
            raise KeyError(name)
        return self._make(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.like)

    def __len__(self) -> int:
        return len(self.like)


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> str:
    """Writes a file, whole or not at all, holding one tensor at a time; its SHA-256.

    Its bytes are those that the safetensors library writes. Raises StorageError.
    """
    like = tensors.like if isinstance(tensors, Later) else tensors
    order, at = list(KINDS), 0
    names = sorted(like, key=lambda name: (order.index(like[name].dtype), name))
    header = {}
    for name in names:
        shape, end = list(like[name].shape), at + like[name].numel() * like[name].itemsize
        header[name] = {"dtype": KINDS[like[name].dtype], "shape": shape, "data_offsets": [at, end]}
        at = end
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % _LENGTH)
    digest = hashlib.sha256()
    with atomic_file(path) as file:

        def put(content: bytes | memoryview) -> None:
            file.write(content)
            digest.update(content)

        put(len(text).to_bytes(_LENGTH, "little"))
        put(text)
        for name in names:  # No name is bound to a tensor, or it would live on while the next one is made.
            put(_bytes_of(tensors[name].detach().cpu().contiguous()))
    return digest.hexdigest()


def stored_tensors(path: Path) -> Later:
    """The tensors of a file that `write_tensors` wrote, each read when it is asked for.

    Raises OSError for a file that cannot be read, then or now.
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(_LENGTH), "little")
        header = json.loads(file.read(length))
    kinds = {kind: dtype for dtype, kind in KINDS.items()}
    like = {
        name: torch.empty(of["shape"], dtype=kinds[of["dtype"]], device="meta") for name, of in header.items()
    }

    def read(name: str) -> Tensor:
        made = torch.empty_like(like[name], device="cpu")
        with path.open("rb", buffering=0) as file:
            file.seek(_LENGTH + length + header[name]["data_offsets"][0])
            rest = _bytes_of(made)
            while rest:  # The system gives 2 GiB at a time at most.
                n = file.readinto(rest)
                if not n:
                    raise OSError(f"{path} was cut short while it was read")
                rest = rest[n:]
        return made

    return Later(like, make=read)


def _bytes_of(tensor: Tensor) -> memoryview:
    """The memory of a contiguous tensor on the CPU."""
    return tensor.reshape(-1).view(torch.uint8).numpy().data
