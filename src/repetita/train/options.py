"""How a run is computed, which is no part of what it is."""

from collections.abc import Callable
from typing import Any, NamedTuple

from repetita.model.acceleration import Dtype
from repetita.train.ranks import Team


class Options(NamedTuple):
    """How to compute a run: what does not change its result (beyond the last bits)."""

    threads: int = 1
    micro_batch: int | None = None
    """Sequences in one forward pass; None takes the whole batch, or a process's share of it, at once."""
    resume_every_seconds: float = 60.0
    device: str = "cpu"
    retry_failed: bool = False
    """Whether a run that failed before is tried again from its newest checkpoint."""
    push: Callable[[], None] | None = None
    """Takes the run's folder to where it outlives this machine; called after each resume checkpoint."""
    dtype: Dtype = "float32"
    """What training multiplies matrices in; weights, optimizer and probes are float32 always."""
    compiled: bool = False
    """Whether torch compiles the layers."""
    recompute: bool = False
    """Whether activations are computed again for the backward pass instead of kept."""
    team: Team | None = None
    """The processes that compute the run together, of which this is rank 0; see `ranks.joined`."""

    def described(self) -> dict[str, Any]:
        """What of it can change results in their last bits or more, for the header of a run."""
        found: dict[str, Any] = {} if self.dtype == "float32" else {"dtype": self.dtype}
        for name in ("compiled", "recompute"):
            if getattr(self, name):
                found[name] = True
        if self.team is not None:
            found |= {"world": self.team.world, "backend": self.team.backend}
        return found
