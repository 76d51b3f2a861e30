"""Does repetition in a row keep more? 1, 10, 100, 1000 exposures to one batch (Fig. 10 left)."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

from repetita.report.page import Deviation
from repetita.studies import _exposure
from repetita.studies._exposure import PAPER_LAST_PASS, PAPER_PASS, PASSES, SCALES, Design, Exposure
from repetita.studies._paper_scale import EXPECTED
from repetita.study.plan import Analysis, PlannedRun, Study

if TYPE_CHECKING:
    from repetita.fit.claim import Claim
    from repetita.studies._exposure_curves import Level
    from repetita.study.collect import Collected

TIMES = (1, 10, 100, 1000)
"""Exposures in a row in Fig. 10 left."""
PAPER = "Tirumala et al. 2022, Fig. 10 left"


def _levels(at: int, *, times: Sequence[int] = TIMES) -> tuple[Exposure, ...]:
    return tuple(Exposure(at, times=count) for count in times)


def design(scale: str) -> Design:
    """What a scale runs. One batch a run: of four in a row, 1,000 times each, the first would be long ago."""
    if scale == "tiny":
        return _exposure.tiny(_levels(12, times=(1, 3, 9)), horizon=20).edit(n_batches=1)
    if scale == "laptop":
        return _exposure.laptop(_levels(160), horizon=128, seeds=3).edit(n_batches=1)
    if scale == "overnight":
        return _exposure.laptop(_levels(160), horizon=1024, size="400k").edit(n_batches=1)
    if scale == "gpu":
        return _exposure.gpu(_levels(1280), horizon=1024).edit(n_batches=1)
    at = round(PASSES[0] * PAPER_PASS)
    return _exposure.paper(_levels(at), horizon=round(PAPER_LAST_PASS * PAPER_PASS) - at, seeds=3)


def analyse(collected: "Collected") -> Analysis:
    """Claims on what is kept by number of exposures, figures and tables."""
    from repetita.studies._exposure_figures import View
    from repetita.studies._exposure_page import analysis

    view = View(word="repetition", varied="exposures in a row", name=level_name)
    return analysis(collected, view=view, claims=_claims)


def level_name(level: "Level") -> str:
    """The level in words."""
    return f"{level.exposure.times:,}"


def _claims(levels: "Sequence[Level]", planned: Sequence[Exposure]) -> "Iterator[Claim]":
    from repetita.studies import _exposure_claims as claims

    unit = "of M(f), each minus its placebo"
    counts = sorted(one.times for one in planned)
    there = {level.exposure.times: level for level in levels}
    yield claims.rises(
        levels, by=lambda level: level.kept(), n_planned=len(planned), name="repetition-rises",
        statement="the more often the special batch is seen in a row, the more of it is kept, at equal "
        "distance from the last exposure and each minus a placebo seen as often", source=PAPER,
        note=f"kept: {claims.means({level_name(level): level.kept() for level in levels})}",
    )  # fmt: skip
    yield claims.rises(
        levels, by=lambda level: level.lowest(), n_planned=len(planned), name="repetition-rises-raw",
        statement="the paper's forgetting baseline (lowest M after the last exposure, no control) rises with "
        "the number of exposures", source=PAPER,
        note="in the placebo runs, which never saw the text: "
        f"{claims.means({level_name(level): level.unseen() for level in levels})}",
    )  # fmt: skip
    for few, many in pairwise(counts):
        yield claims.more(
            there.get(many), there.get(few), by=lambda level: level.kept(),
            name=f"repetition-{many}-over-{few}",
            statement=f"more is kept after {many:,} exposures in a row than after {few:,}",
            source=f"{PAPER}: the baseline rises monotonically with the count", unit=unit,
        )  # fmt: skip
    if len(counts) > 1:
        yield claims.more(
            there.get(counts[-1]), there.get(counts[0]), by=lambda level: level.lowest(),
            name="repetition-order-of-size",
            statement="the paper's baseline differs between the most and the fewest exposures; the paper's "
            "differences are of order 0.01",
            source=PAPER, unit="of M(f), no control", primary=False,
        )  # fmt: skip
    for level in levels:
        yield claims.remains(
            level, name=f"repetition-remains-{level.exposure.times}", what=f"{level_name(level)} in a row"
        )


def detectable(scale: str) -> Mapping[str, str]:
    """For each primary claim of a scale the smallest effect that its seeds can show, in words."""
    from repetita.studies._exposure_claims import KEPT_SD, smallest_slope
    from repetita.studies._power import smallest_effect

    chosen = design(scale)
    counts = sorted(level.times for level in chosen.levels)
    n, primary = chosen.seeds, len(counts) + 1
    slope = smallest_slope(n=n, counts=counts, predicted=0.01, primary=primary)
    step = smallest_effect(n=n, sd=KEPT_SD, unit="of M(f)", predicted=0.01, primary=primary)
    steps = {f"repetition-{many}-over-{few}": step for few, many in pairwise(counts)}
    return {"repetition-rises": slope, "repetition-rises-raw": slope, **steps}


def deviations(scale: str) -> Sequence[Deviation]:
    """The paper's value and ours, parameter by parameter."""
    chosen = design(scale)
    passes = chosen.levels[0].at * chosen.batch_size / chosen.n_sequences
    counts = " / ".join(f"{level.times:,}" for level in chosen.levels)
    return _exposure.deviations(
        chosen,
        varied=(
            Deviation("exposures in a row", "1 / 10 / 100 / 1,000", counts, "the scale's compute"),
            Deviation("first exposure after passes", "not stated", f"{passes:.3g}", "free choice"),
            Deviation("placebo", "none", "as many updates on other text",
                      "rule 7: 1,000 updates on one batch change the model, whatever the text"),
        ),
    )  # fmt: skip


def _scale(name: str) -> Sequence[PlannedRun]:
    return tuple(_exposure.planned(design(name)))


STUDY = Study(
    name="repetition",
    title="Once, ten times, a thousand times in a row",
    question="Does a text that is seen many times in a row leave more behind than one that is seen once?",
    prediction="The forgetting baseline rises monotonically with 1, 10, 100 and 1,000 exposures in a row, by "
    "differences of order 0.01 of M(f) (125M).",
    source=PAPER,
    scales={name: partial(_scale, name) for name in SCALES},
    analyse=analyse,
    deviations=deviations,
    detectable=detectable,
    expected=EXPECTED,
)
