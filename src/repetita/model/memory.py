"""Rows by the batch, as many as there is memory for: a batch that does not fit is halved and written down."""

import gc
from collections.abc import Callable

import torch

from repetita.errors import SpecError

BATCH_TOKENS = 2048
"""Tokens read at once on a CPU: the states of a small model then stay in the caches."""

_SIGNS = ("out of memory", "can't allocate memory", "failed to allocate", "not enough memory")
"""How torch says it where it has no exception of its own for it: on a CPU and on Apple's GPUs."""


def out_of_memory(error: BaseException, /) -> bool:
    """Whether this is what torch raises when a device has no more memory."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    said = str(error).lower()
    return isinstance(error, RuntimeError) and any(sign in said for sign in _SIGNS)


def free_bytes(device: torch.device, /) -> int:
    """Memory that is free on a device."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    import psutil

    return int(psutil.virtual_memory().available)


def give_back(device: torch.device, /) -> None:
    """Returns what is no longer needed to the device."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


class Batches:
    """How many rows are read at once: `rows`, or as many as make `tokens` tokens.

    The same rows are always read in the same batches, so that equal weights give equal bits, until one does
    not fit into memory: it and all that follow are halved, and `halvings` says so.
    """

    def __init__(
        self, device: torch.device, /, *, rows: int | None = None, tokens: int = BATCH_TOKENS
    ) -> None:
        for name, given in (("batch_rows", rows), ("batch_tokens", tokens)):
            if given is not None and given < 1:
                raise SpecError(f"{name} = {given} scores nothing; give 1 or more")
        self.device, self.rows, self.tokens = device, rows, tokens
        self.halvings: list[str] = []
        """One sentence for each batch that did not fit."""

    def size(self, length: int, /) -> int:
        """Rows of `length` tokens that are read at once."""
        return self.rows or max(1, self.tokens // max(1, length))

    def each(self, n: int, /, *, length: int, work: Callable[[slice], None]) -> None:
        """Calls `work` on n rows of `length` tokens, a batch at a time; one that does not fit comes again.

        `work` must bear to be called twice on the same rows. Raises SpecError where one row does not fit.
        """
        start = 0
        while start < n:
            part = slice(start, min(start + self.size(length), n))
            if self._fits(part, work, length=length):
                start = part.stop

    def _fits(self, part: slice, work: Callable[[slice], None], *, length: int) -> bool:
        """Whether there was memory for a batch; where there was not, the next one is half as large."""
        n_rows = part.stop - part.start
        try:
            work(part)
            return True
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            if n_rows == 1:
                raise SpecError(
                    f"one row of {length} tokens does not fit into the memory of {self.device}; give shorter "
                    f"windows, a smaller dtype or another device"
                ) from error
        # Behind the handler, so that no traceback holds the batch that failed.
        give_back(self.device)
        half = n_rows // 2
        self.tokens, self.rows = half * length, None if self.rows is None else half
        self.halvings.append(
            f"a batch of {n_rows} rows of {length} tokens did not fit into the memory of {self.device}: "
            f"{half} rows from then on"
        )
        return False
