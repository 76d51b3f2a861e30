"""A study as a value: question, prediction, runs with their labels and probes, and what is concluded."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from repetita.cadence import Cadence
from repetita.corpus.sequences import CorpusSpec
from repetita.errors import SpecError, nearest
from repetita.measure.probe import Probe
from repetita.train.recipe import RunSpec

if TYPE_CHECKING:  # workers read plans, and reach neither polars, scipy nor altair
    from repetita.fit.claim import Claim
    from repetita.report.coloured import Drawing
    from repetita.report.page import Deviation, Table
    from repetita.study.collect import Collected

Label = str | int | float | None
"""What a run can be labelled with; each label is a column of the study's table."""


class PlannedRun(NamedTuple):
    """One point of a study: a run, what the study calls it, and what is measured in it.

    Two planned runs with equal `spec` share one run (and its probes); each keeps its own labels, so the
    shared measurements appear once for each of them in the table.
    """

    spec: RunSpec
    labels: Mapping[str, Label]
    """Columns of the table, for example {"arm": "repeated", "size": "25k", "passes": 100}; `seed`,
    `n_params` (non-embedding), `steps` and `batch_size` are added when they are not given."""
    probes: tuple[Probe, ...] = ()
    """Each measures at the steps of its own cadence (always at step 0 and at the last step)."""
    keep: Cadence | None = None
    """Steps whose weights are kept as checkpoints; None keeps the last step only."""
    fork_at: int | None = None
    """Runs equal up to this step share that part, their trunk; None, or a run whose start cannot be cut
    there, is run straight. The result is the same bit for bit."""


class Expected(NamedTuple):
    """A text that need not be here to be planned with: how much of it each set gets."""

    corpus: CorpusSpec
    pools: Mapping[str, int]
    """Sequences of each set."""


class Analysis(NamedTuple):
    """What a study concludes from its table."""

    claims: Sequence["Claim"] = ()
    figures: Sequence["Drawing"] = ()
    tables: Sequence["Table"] = ()
    warnings: Sequence[str] = ()


def _no_deviations(scale: str) -> Sequence["Deviation"]:  # noqa: ARG001
    return ()


def _no_powers(scale: str) -> Mapping[str, str]:  # noqa: ARG001
    return {}


@dataclass(frozen=True, kw_only=True)
class Study:
    """A question that runs can answer. A study file defines one of these as `STUDY`.

    The name `STUDY` lives at the top of the file; import torch, polars, scipy and altair in the
    functions that need them, so that workers and `study plan` stay quick.
    """

    name: str
    """Lower-case words with underscores; also the folder `studies/<name>-<scale>`."""
    title: str
    question: str
    prediction: str
    """What the source predicts, in words and numbers."""
    source: str
    """Paper and figure of the prediction."""
    scales: Mapping[str, Callable[[], Sequence[PlannedRun]]]
    """The planned runs of each scale (tiny, laptop, overnight, gpu, paper), made when asked for."""
    analyse: Callable[["Collected"], Analysis]
    """Claims, figures and tables from the measurements there are; called on unfinished studies too."""
    deviations: Callable[[str], Sequence["Deviation"]] = _no_deviations
    """Rows of the deviation table of a scale: the paper's value and ours, parameter by parameter."""
    detectable: Callable[[str], Mapping[str, str]] = _no_powers
    """For a scale: claim -> the smallest effect it can detect, in words (experiment design, rule 32)."""
    expected: Sequence[Expected] = ()
    """Texts that are too large to be fetched for a plan, and what they come to."""

    def runs(self, scale: str) -> tuple[PlannedRun, ...]:
        """The planned runs of `scale`; raises SpecError for a scale that the study does not have."""
        if scale not in self.scales:
            raise SpecError(f"study {self.name} has no scale '{scale}'; {nearest(scale, self.scales)}")
        return tuple(self.scales[scale]())
