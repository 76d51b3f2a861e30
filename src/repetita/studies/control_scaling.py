"""Does loss fall with size along a straight line? The ruler of effective sizes (repeated-data paper, Fig.
13)."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from repetita.corpus.tokenizer import TokenizerSpec
from repetita.report.page import Deviation
from repetita.studies import _damage_runs, _repeated_scale
from repetita.studies._damage_runs import LADDER, STDLIB, Cell, planned, seeds
from repetita.studies._laptop import SOTU
from repetita.studies.double_descent import setting
from repetita.study.expand import labels_of
from repetita.study.plan import Analysis, PlannedRun, Study

if TYPE_CHECKING:
    from repetita.study.collect import Collected

TINY_CODE = STDLIB.edit(limit_documents=20, tokenizer=TokenizerSpec(kind="bytes", vocab_size=257), length=32)
CODE_SIZES = ("0.6k", "1.9k", "3.8k", "6.6k", "14k", "25k", "57k")
"""Sizes of the code ladder at laptop scale, one seed: all that are cheap."""


def tiny() -> Sequence[PlannedRun]:
    """The controls of `double_descent` and four on a little code, for tests."""
    code = (Cell("control", size, corpus=TINY_CODE) for size in ("0.6k", "1.9k", "3.8k", "6.6k"))
    return tuple(planned(_damage_runs.tiny_design((*_damage_runs.tiny_controls(), *code))))


def laptop() -> Sequence[PlannedRun]:
    """The controls of `double_descent`, nine sizes and three seeds, and seven small ones on code."""
    code = (Cell("control", size, corpus=STDLIB) for size in CODE_SIZES)
    return tuple(planned(_damage_runs.laptop_design((*_damage_runs.laptop_controls(), *code))))


def overnight() -> Sequence[PlannedRun]:
    """Eleven sizes and three seeds on speeches and on code: the controls of `double_descent`."""
    corpora = (SOTU, STDLIB)
    cells = [Cell("control", size, seeds=seeds(3), corpus=corpus) for corpus in corpora for size in LADDER]
    return tuple(planned(_damage_runs.laptop_design(cells)))


def gpu() -> Sequence[PlannedRun]:
    """Seven sizes, 28k to 43M: the controls of `double_descent`."""
    return tuple(planned(_damage_runs.gpu_design(tuple(_damage_runs.gpu_controls()))))


def paper() -> Sequence[PlannedRun]:
    """The paper's eight sizes and three below them, on text and on code."""
    text = planned(_damage_runs.paper_design(tuple(_damage_runs.paper_controls())))
    code = _damage_runs.paper_design(
        tuple(_damage_runs.paper_controls(corpus=_repeated_scale.CODE)), steps=_repeated_scale.CODE_STEPS
    )
    return (*text, *planned(code))


def analyse(collected: "Collected") -> Analysis:
    """Whether the line is straight, corpus by corpus."""
    from repetita.fit.claim import settle
    from repetita.studies import _controls
    from repetita.studies._grid import grid, planned_labels

    table = collected.measurements
    if table.is_empty():
        return Analysis(warnings=("no run is finished yet",))
    names = _controls.corpora(planned_labels(collected))
    grids = {name: grid(table, corpus=name) for name in names}
    found = [_controls.ladder(name, losses=one.control, n_params=one.n_params) for name, one in grids.items()]
    there = [one for one in found if one.losses]
    return Analysis(
        claims=settle(list(_controls.claims(found))),
        figures=tuple(_controls.figures(there)),
        tables=tuple(_controls.tables(there, treated=_treated(collected.scale))),
    )


def _treated(scale: str) -> int | None:
    """Smallest size that `double_descent` trains on repeated data at a scale."""
    runs = _damage_runs.SCALES[scale]() if scale in _damage_runs.SCALES else ()
    sizes = [int(run.labels["non_embedding"] or 0) for run in runs if run.labels["arm"] == "repeated"]
    return min(sizes, default=None)


def detectable(scale: str) -> Mapping[str, str]:
    """For each primary claim of a scale the smallest effect that its seeds can show, in words."""
    from repetita.studies._controls import detectable as smallest

    return smallest([labels_of(run) for run in SCALES[scale]()])


def deviations(scale: str) -> Sequence[Deviation]:
    """The paper's value and ours, parameter by parameter."""
    from repetita.studies._controls import STRAIGHT

    return (
        *setting(SCALES[scale]()),
        Deviation("code", "45B tokens of Python, 2.2 passes", "one pass", "the control reads nothing twice"),
        Deviation(
            "law", "a straight line in log-log", "with and without an offset", "to see which is needed"
        ),
        Deviation(
            "straight", "by eye", f"every size within {STRAIGHT:g}x", "the smallest effect read off the line"
        ),
        Deviation("noise", "one run a size, as far as stated", "seeds, and sizes left out", "intervals"),
    )


SCALES = {"tiny": tiny, "laptop": laptop, "overnight": overnight, "gpu": gpu, "paper": paper}

STUDY = Study(
    name="control_scaling",
    title="The ruler: loss over size on unique data",
    question="Effective sizes are read off the losses of models of other sizes that read everything once. Is "
    "that ruler a straight line in log-log, or does it need an offset, and does it reach low enough?",
    prediction="Loss falls as a power of size without an offset: straight in log-log, for text and for code.",
    source="Hernandez et al. 2022, Learning from Repeated Data, Fig. 13 and appendix A",
    scales=SCALES,
    analyse=analyse,
    deviations=deviations,
    detectable=detectable,
    expected=_repeated_scale.EXPECTED,
)
