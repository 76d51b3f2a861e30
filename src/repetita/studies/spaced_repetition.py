"""Does spacing matter? The same number of exposures, massed or spaced (Fig. 10 right)."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from repetita.report.page import Deviation
from repetita.studies import _exposure
from repetita.studies._exposure import PAPER_PASS, PASSES, SCALES, Design, Exposure
from repetita.studies._paper_scale import EXPECTED
from repetita.study.plan import Analysis, PlannedRun, Study

if TYPE_CHECKING:
    from repetita.fit.claim import Claim
    from repetita.studies._exposure_curves import Level
    from repetita.study.collect import Collected

MARGIN = 0.005
"""Of M(f): experiment design, rule 29."""
PAPER = "Tirumala et al. 2022, Fig. 10 right"
PAPER_END = 175
"""Passes at which its curves end."""


def _levels(at: int, *, every: Sequence[int], times: int) -> tuple[Exposure, ...]:
    """The same number of exposures, every so many updates; 1 is massed, and again at the end of the longest.

    Training goes on between spaced exposures, so the last of them finds another model than massed ones at
    `at` do; those at the end do not.
    """
    late = Exposure(at + (times - 1) * max(every), times=times)
    return (*(Exposure(at, times=times, every=spacing) for spacing in every), late)


def _unequal(scale: str) -> Design:
    if scale == "tiny":
        return _exposure.tiny(_levels(12, every=(1, 2, 6), times=3), horizon=16)
    if scale == "laptop":
        return _exposure.laptop(_levels(160, every=(1, 8, 32), times=4), horizon=128)
    if scale == "overnight":
        levels = _levels(160, every=(1, 8, 32, 128), times=8)
        return _exposure.laptop(levels, horizon=1024, seeds=8).edit(n_batches=8)
    if scale == "gpu":
        return _exposure.gpu(_levels(1280, every=(1, 16, 64, 256), times=8), horizon=1024)
    at, one_pass = round(PASSES[0] * PAPER_PASS), round(PAPER_PASS)
    levels = _levels(at, every=(1, one_pass, 4 * one_pass), times=10)
    return _exposure.paper(levels, horizon=round(PAPER_END * PAPER_PASS) - at - 36 * one_pass)


def design(scale: str) -> Design:
    """What a scale runs; all levels end together, to be compared from the first exposure too."""
    return _unequal(scale).edit(ends="together")


def analyse(collected: "Collected") -> Analysis:
    """Claims on what is kept by spacing, figures and tables."""
    from repetita.studies._exposure_figures import View
    from repetita.studies._exposure_page import analysis

    view = View(word="spacing", varied="updates between exposures", name=level_name)
    return analysis(collected, view=view, claims=_claims)


def level_name(level: "Level") -> str:
    """The level in words."""
    return _name(level.exposure, late=not level.first)


def _spaced(level: "Level") -> str:
    return f"every {level_name(level)} updates" if level.exposure.every > 1 else level_name(level)


def _name(exposure: Exposure, *, late: bool = False) -> str:
    if exposure.every > 1:
        return f"{exposure.every:,}"
    return "massed, late" if late else "massed"


def _claims(levels: "Sequence[Level]", planned: Sequence[Exposure]) -> "Iterator[Claim]":
    from repetita.studies import _exposure_claims as claims

    first = min((one.at for one in planned), default=0)
    names = {one: _name(one) for one in planned if one.at == first}
    there = {level.exposure: level for level in levels}
    longest, massed = (there.get(pick(names, key=lambda one: one.every)) for pick in (max, min))
    late = next((level for level in levels if level.exposure.at > first), None)
    unit = "of M(f), each minus its placebo"
    yield claims.alike(
        levels, by=lambda level: level.kept(), names=names, margin=MARGIN, name="spacing-alike",
        statement="what is kept, at equal distance from the last exposure, does not depend on the spacing of "
        "the same number of exposures", source=f"{PAPER}: effects of order 0.001", unit=unit,
    )  # fmt: skip
    yield claims.more(
        longest, massed, by=lambda level: level.kept(), name="spacing-longest-over-massed",
        statement="the longest spacing keeps more than massed exposures, at equal distance from the last",
        source="the spacing effect of human memory; in the paper of order 0.001 in either direction",
        unit=unit,
    )  # fmt: skip
    yield claims.more(
        longest, late, by=lambda level: level.kept(), name="spacing-longest-over-massed-late",
        statement="the longest spacing keeps more than exposures massed where its last ones are: the gain is "
        "not that of a later exposure", source="a control that the paper lacks", unit=unit,
        note="added after a pilot with one seed, in which the longest spacing kept twice as much as massed "
        "exposures at the first one's place",
    )  # fmt: skip
    yield claims.alike(
        levels, by=lambda level: level.first, names=names, margin=MARGIN,
        name="spacing-alike-from-first",
        statement="what is kept, at equal distance from the first exposure, does not depend on the spacing",
        source=f"{PAPER}; rule 30 of the design", unit=unit,
    )  # fmt: skip
    yield claims.alike(
        levels, by=lambda level: level.lowest(), names=names, margin=MARGIN,
        name="spacing-alike-raw",
        statement="the paper's forgetting baseline (lowest M after the last exposure, no control) does not "
        "depend on the spacing", source=PAPER, unit="of M(f)", primary=False,
    )  # fmt: skip
    for level in levels:
        yield claims.remains(
            level, name=f"spacing-remains-{level_name(level).replace(', ', '-')}",
            what=f"{level.exposure.times} exposures, {_spaced(level)}",
        )  # fmt: skip


def detectable(scale: str) -> Mapping[str, str]:
    """For each primary claim of a scale the smallest effect that its seeds can show, in words."""
    from repetita.studies._exposure_claims import KEPT_SD, smallest_margin
    from repetita.studies._power import smallest_effect

    n = design(scale).seeds
    equal = smallest_margin(n=n, sd=KEPT_SD, margin=MARGIN)
    more = smallest_effect(n=n, sd=KEPT_SD, unit="of M(f)", predicted=0.001, primary=4)
    return {
        "spacing-alike": equal,
        "spacing-longest-over-massed": more,
        "spacing-longest-over-massed-late": more,
        "spacing-alike-from-first": equal,
    }


def deviations(scale: str) -> Sequence[Deviation]:
    """The paper's value and ours, parameter by parameter."""
    chosen = design(scale)
    per_pass = chosen.n_sequences / chosen.batch_size
    level = chosen.levels[0]
    spacings = ", ".join(f"{one.every:,}" for one in chosen.levels if one.at == level.at)
    turns = "in turn, each spaced like one alone; massed: one after another"
    return _exposure.deviations(
        chosen,
        varied=(
            Deviation("updates between exposures", "unknown", f"{spacings} ({per_pass:.4g} a pass)",
                      "free choice"),
            Deviation("exposures", "not stated", str(level.times), "free choice, equal in all levels"),
            Deviation("first exposure after passes", "not stated", f"{level.at / per_pass:.3g}", "as above"),
            Deviation("special batches injected", "one", turns if chosen.n_batches > 1 else "one",
                      "after its last exposure a massed batch still meets the others, a spaced one few"),
            Deviation("model at the last exposure", "later the longer the spacing", "also massed exposures "
                      "as late as the last spaced ones",
                      "else spacing cannot be told from time; added after a pilot with one seed"),
            Deviation("also compared", "-", "at equal distance from the first exposure", "rule 30"),
            Deviation("equality", "by eye", f"within {MARGIN:g} of M(f), minus placebo", "rule 29"),
        ),
    )  # fmt: skip


def _scale(name: str) -> Sequence[PlannedRun]:
    return tuple(_exposure.planned(design(name)))


STUDY = Study(
    name="spaced_repetition",
    title="Massed or spaced",
    question="Do the same exposures leave more behind when training on other data lies between them?",
    prediction="The spacing between exposures moves the forgetting baseline by the order of 0.001 of M(f), "
    "whatever its length (125M).",
    source=PAPER,
    scales={name: partial(_scale, name) for name in SCALES},
    analyse=analyse,
    deviations=deviations,
    detectable=detectable,
    expected=EXPECTED,
)
