"""What does the size of the training set change? Nested sets at equal passes and updates, by model size."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from repetita.report.page import Deviation
from repetita.studies._gpu_scale import SPEECHES_512
from repetita.studies._laptop import SYNTHETIC
from repetita.studies._paper_scale import EXPECTED, SEQUENCES, SIZES, WIKITEXT
from repetita.studies._speed_runs import Cell, Design, planned
from repetita.studies.memorization_speed import (
    GPU_PASSES,
    LAPTOP_PASSES,
    LARGE_SET_PASSES,
    OVERNIGHT_PASSES,
    PAPER_PASSES,
)
from repetita.study.expand import labels_of
from repetita.study.plan import Analysis, PlannedRun, Study

if TYPE_CHECKING:
    from repetita.study.collect import Collected

Passes = Mapping[int, Mapping[str, int]]
"""Passes by sequences of the set, then size."""

LAPTOP: Passes = {
    32: {"25k": 300, "100k": 200},
    128: LAPTOP_PASSES["causal"],
    512: {"25k": 48, "100k": 52},
}
"""128: the runs of `memorization_speed`. 512: beyond M(f) = 0.5 at 100k in one pilot (0.44 after 32 passes,
0.52 after 42); 25k is not expected to get there."""
OVERNIGHT: Passes = {
    32: {"25k": 800, "100k": 300, "220k": 300, "890k": 160},
    128: {size: OVERNIGHT_PASSES["causal"][size] for size in ("25k", "100k", "220k", "890k")},
    512: {"25k": 240, **LARGE_SET_PASSES},
}
GPU: Passes = {
    64: {"3.1M": 240, "11M": 160, "25M": 120, "85M": 100},
    256: {"3.1M": 160, "11M": 120, "25M": 80, "85M": 60},
    1024: GPU_PASSES["causal"],
}
PAPER: Passes = {
    SEQUENCES // 16: {size: 4 * PAPER_PASSES["causal"][size] for size in SIZES},
    SEQUENCES // 4: {size: 2 * PAPER_PASSES["causal"][size] for size in SIZES},
    SEQUENCES: PAPER_PASSES["causal"],
}


def _cells(passes: Passes, *, seeds: int) -> Iterator[Cell]:
    for n_sequences, by_size in passes.items():
        for size, n in by_size.items():
            yield Cell("causal", size, n, seeds=seeds, n_sequences=n_sequences)


def tiny() -> Sequence[PlannedRun]:
    """Seconds of work on synthetic bytes, for tests: two sizes, three sets, two seeds, no science."""
    passes = {8: {"0.6k": 16, "3.8k": 16}, 16: {"0.6k": 12, "3.8k": 12}, 32: {"0.6k": 8, "3.8k": 8}}
    cells = tuple(_cells(passes, seeds=2))
    return tuple(planned(Design(cells, 8, warmup_steps=4, per_decade=8, lengths=(), corpus=SYNTHETIC)))


def laptop() -> Sequence[PlannedRun]:
    """Three seeds: two sizes on 4, 16 and 65 thousand tokens; two more where the speed study has them."""
    return tuple(planned(Design(tuple(_cells(LAPTOP, seeds=3)), lengths=())))


def overnight() -> Sequence[PlannedRun]:
    """Three seeds, four sizes, three sets."""
    return tuple(planned(Design(tuple(_cells(OVERNIGHT, seeds=3)), lengths=())))


def gpu() -> Sequence[PlannedRun]:
    """Four sizes on 33 to 524 thousand tokens, three seeds."""
    cells = tuple(_cells(GPU, seeds=3))
    design = Design(cells, warmup_steps=64, per_decade_else=4, lengths=(), corpus=SPEECHES_512, family="gpu")
    return tuple(planned(design))


def paper() -> Sequence[PlannedRun]:
    """The six sizes of Table 1 on WikiText-103, a quarter and a sixteenth of it."""
    cells = tuple(_cells(PAPER, seeds=1))
    return tuple(planned(Design(cells, test_sequences=506, lengths=(), corpus=WIKITEXT, family="paper")))


def analyse(collected: "Collected") -> Analysis:
    """Claims on T(N, 0.5) and M(f) on the common sequences by size of the set; figures and tables."""
    from repetita.fit.claim import settle
    from repetita.studies import _set_figures, _set_sizes, _speed
    from repetita.studies._grid import planned_labels

    if collected.measurements.is_empty():
        return Analysis(warnings=("no run is finished yet",))
    found = _speed.cells(collected.measurements)
    if not found:
        return Analysis(warnings=("no run has M(f) on both the training set and the test set",))
    labels = planned_labels(collected)
    window, at = _speed.window_tokens(labels), _set_sizes.horizon(labels)
    there = _set_sizes.set_grid(found, planned=labels, window=window)
    known = _set_sizes.shared(collected, found)
    return Analysis(
        claims=settle(list(_set_sizes.claims(there, known=known, at=at))),
        figures=tuple(_set_figures.figures(found, there=there, known=known, window=window)),
        tables=tuple(_set_figures.tables(found, known=known, at=at, window=window)),
        warnings=tuple(_set_sizes.warnings(found, window=window)),
    )


def detectable(scale: str) -> Mapping[str, str]:
    """For each primary claim of a scale the smallest effect that its seeds can show, in words."""
    from repetita.studies._set_sizes import detectable as smallest

    return smallest([labels_of(run) for run in SCALES[scale]()])


def deviations(scale: str) -> Sequence[Deviation]:
    """The paper's value and ours, parameter by parameter."""
    from repetita.studies._speed_deviations import of_runs

    runs = SCALES[scale]()
    sets = sorted({int(run.labels["n_sequences"] or 0) for run in runs})
    return (
        *of_runs(runs),
        Deviation(
            "sizes of the training set", "WikiText-103 (103M tokens) and RoBERTa's corpus (39B)",
            f"{', '.join(f'{n:,}' for n in sets)} sequences of one corpus, nested within a seed",
            "two corpora differ in more than size",
        ),
        Deviation(
            "sets compared at", "not compared at equal passes and updates",
            "equal passes, equal updates; M(f) of all on the sequences of the smallest", "rule 4",
        ),
    )  # fmt: skip


SCALES = {"tiny": tiny, "laptop": laptop, "overnight": overnight, "gpu": gpu, "paper": paper}

STUDY = Study(
    name="dataset_size",
    title="What the size of the training set changes",
    question="Models of several sizes read small and large training sets, of which the small ones are part "
    "of the large ones. Is a small set memorized in fewer passes, or only in fewer updates, and do larger "
    "models memorize faster on each?",
    prediction="Larger models need fewer passes on every set. The paper names the size of the data set among "
    "what it studies and gives no direction for it.",
    source="Tirumala et al. 2022, Memorization Without Overfitting, abstract and section 4",
    scales=SCALES,
    analyse=analyse,
    deviations=deviations,
    detectable=detectable,
    expected=EXPECTED,
)
