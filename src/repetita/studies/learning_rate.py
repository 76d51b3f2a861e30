"""Is it the learning rate? T(N, 0.9) over rates and sizes (memorization paper, Fig. 5)."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from repetita.report.page import Deviation
from repetita.studies._gpu_scale import SPEECHES_512
from repetita.studies._laptop import RATES, SYNTHETIC
from repetita.studies._paper_scale import EXPECTED, SEQUENCES, WIKITEXT
from repetita.studies._speed_runs import Cell, Design, planned
from repetita.studies.memorization_speed import (
    GPU_PASSES,
    HALF_RATE_PASSES,
    LAPTOP_PASSES,
    OVERNIGHT_PASSES,
    PAPER_PASSES,
)
from repetita.study.expand import labels_of
from repetita.study.plan import Analysis, PlannedRun, Study

if TYPE_CHECKING:
    from repetita.study.collect import Collected

GRID = (0.001, 0.002, 0.004, 0.008, 0.016)
"""Of the two CPU cores' scales: a factor 2 apart, around the rates that a control chose (`_laptop.RATES`)."""
GPU_GRID = (2e-4, 4e-4, 8e-4, 1.6e-3, 3.2e-3)
PAPER_GRID = (1e-4, 2e-4, 4e-4, 8e-4, 1.6e-3, 3.2e-3)
"""About what the axis of Fig. 5 shows; its grid is not stated."""
PAPER_SIZES = ("125M", "355M", "1.3B", "2.7B", "6.7B")
"""Those of the legend of Fig. 5."""

LAPTOP_GRID: Mapping[str, tuple[int, ...]] = {
    "100k": (160, 120, 120, 100, 60),
    "220k": (100, 100, 160, 80, 60),
    "890k": (40, 50, 60, 40, 30),
}
"""Passes at each rate of `GRID`. At 0.004, and at half of it, those of `memorization_speed`, whose runs these
are; else beyond T at the lowest rate in one pilot each (100k was at M(f) = 0.74 after 100 passes,
890k at 0.97 after 30) and what can be paid for at the higher ones."""
OVERNIGHT_SIZES: Mapping[str, int] = {"57k": 400, "100k": 240, "220k": 200, "400k": 120, "890k": 80}
"""Passes at the rates at which `memorization_speed` has no run."""


def tiny() -> Sequence[PlannedRun]:
    """Seconds of work on synthetic bytes, for tests: two sizes, three rates, two seeds, no science."""
    cells = (
        Cell("causal", size, 16, seeds=2, arm="given rate", n_sequences=16, rate=rate)
        for size in ("0.6k", "3.8k")
        for rate in (0.016, 0.032, 0.064)
    )
    return tuple(planned(Design(tuple(cells), 8, warmup_steps=4, per_decade=8, lengths=(), corpus=SYNTHETIC)))


def laptop() -> Sequence[PlannedRun]:
    """Three sizes at five rates; three seeds where the speed study has them, else one."""
    return tuple(planned(Design(tuple(_laptop()), lengths=())))


def _laptop() -> Iterator[Cell]:
    for size, all_passes in LAPTOP_GRID.items():
        for rate, passes in zip(GRID, all_passes, strict=True):
            shared = {
                RATES[size]: LAPTOP_PASSES["causal"].get(size),
                RATES[size] / 2: HALF_RATE_PASSES.get(size),
            }
            seeds = 3 if shared.get(rate) == passes else 1
            yield Cell("causal", size, passes, seeds=seeds, arm="given rate", rate=rate)


def overnight() -> Sequence[PlannedRun]:
    """Five sizes at five rates with three seeds; runs of the speed study where it has them."""
    cells: list[Cell] = []
    for size, passes in OVERNIGHT_SIZES.items():
        arms = LAPTOP_PASSES["causal"].get(size)
        shared = {RATES[size]: OVERNIGHT_PASSES["causal"][size]}
        if arms is not None:
            shared |= {RATES[size] / 2: arms, RATES[size] * 2: arms}
        cells += [
            Cell("causal", size, shared.get(rate, passes), seeds=3, arm="given rate", rate=rate)
            for rate in GRID
        ]
    return tuple(planned(Design(tuple(cells), lengths=())))


def gpu() -> Sequence[PlannedRun]:
    """Four sizes at five rates on half a million tokens, one seed."""
    cells = tuple(
        Cell("causal", size, passes, arm="given rate", n_sequences=1024, rate=rate)
        for size, passes in GPU_PASSES["causal"].items()
        for rate in GPU_GRID
    )
    return tuple(planned(Design(cells, warmup_steps=64, lengths=(), corpus=SPEECHES_512, family="gpu")))


def paper() -> Sequence[PlannedRun]:
    """The five sizes of Fig. 5 on WikiText-103, with the batches of Table 1."""
    cells = tuple(
        Cell("causal", size, PAPER_PASSES["causal"][size], arm="given rate", n_sequences=SEQUENCES, rate=rate)
        for size in PAPER_SIZES
        for rate in PAPER_GRID
    )
    return tuple(planned(Design(cells, lengths=(), test_sequences=506, corpus=WIKITEXT, family="paper")))


def analyse(collected: "Collected") -> Analysis:
    """Claims on how T(N, 0.9) depends on the rate, by size; figures and tables."""
    from repetita.fit.claim import settle
    from repetita.studies import _rate_figures, _rates, _speed
    from repetita.studies._grid import planned_labels

    if collected.measurements.is_empty():
        return Analysis(warnings=("no run is finished yet",))
    found = _speed.cells(collected.measurements)
    if not found:
        return Analysis(warnings=("no run has M(f) on both the training set and the test set",))
    labels = planned_labels(collected)
    window, rates = _speed.window_tokens(labels), _rates.rates_of(labels)
    there = _rates.rate_grid(found, planned=labels, window=window)
    return Analysis(
        claims=settle(list(_rates.claims(there))),
        figures=tuple(_rate_figures.figures(found, rates=rates, there=there, window=window)),
        tables=tuple(_rate_figures.tables(found, rates=rates, there=there, window=window)),
        warnings=tuple(_rates.warnings(found, window=window)),
    )


def detectable(scale: str) -> Mapping[str, str]:
    """For each primary claim of a scale the smallest effect that its seeds can show, in words."""
    from repetita.studies._rates import detectable as smallest

    return smallest([labels_of(run) for run in SCALES[scale]()])


def deviations(scale: str) -> Sequence[Deviation]:
    """The paper's value and ours, parameter by parameter."""
    from repetita.studies._speed_deviations import of_runs

    runs = SCALES[scale]()
    rates = sorted({run.spec.recipe.learning_rate for run in runs})
    return (
        *of_runs(runs),
        Deviation(
            "rates", "about 1e-4 to a few 1e-3, not listed", ", ".join(f"{rate:g}" for rate in rates),
            "equal at every size; a factor 2 apart" if scale != "tiny" else "tests",
        ),
        Deviation(
            "sensitivity", "by eye", "curvature of ln T in log2 rate, censored times as such", "a number"
        ),
    )  # fmt: skip


SCALES = {"tiny": tiny, "laptop": laptop, "overnight": overnight, "gpu": gpu, "paper": paper}

STUDY = Study(
    name="learning_rate",
    title="Is it the learning rate?",
    question="Larger models memorize faster at the rates that they are usually given. Do they at any rate, "
    "and how much does the time to memorize depend on the rate at each size?",
    prediction="T(N, 0.9) falls and rises again with the learning rate at every size; larger models need "
    "fewer passes at any fixed rate, and the larger they are the less the rate matters.",
    source="Tirumala et al. 2022, Memorization Without Overfitting, Fig. 5",
    scales=SCALES,
    analyse=analyse,
    deviations=deviations,
    detectable=detectable,
    expected=EXPECTED,
)
