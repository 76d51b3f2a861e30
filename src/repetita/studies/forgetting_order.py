"""Does it matter when, and in which order of the data? Early, middle, late exposures (Fig. 9)."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
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

MARGIN = 0.02
"""Of M(f): experiment design, rule 29."""
PAPER = "Tirumala et al. 2022, Fig. 9"


def _levels(pass_: float, *, passes: Sequence[float] = PASSES, reordered: int = 1) -> tuple[Exposure, ...]:
    """Exposures after `passes` of `pass_` updates, then the earliest in other orders of the data."""
    at = [round(many * pass_) for many in passes]
    others = range(1, reordered + 1)
    return (*(Exposure(step) for step in at), *(Exposure(at[0], reordered=number) for number in others))


def design(scale: str) -> Design:
    """What a scale runs."""
    if scale == "tiny":
        return _exposure.tiny(_levels(4, passes=(2, 4, 6)), horizon=20)
    if scale == "laptop":
        return _exposure.laptop(_levels(8), horizon=128)
    if scale == "overnight":
        return _exposure.laptop(_levels(8), horizon=1096, size="400k").edit(n_batches=8)
    if scale == "gpu":
        return _exposure.gpu(_levels(64), horizon=1024)
    return _exposure.paper(_levels(PAPER_PASS), horizon=round((PAPER_LAST_PASS - PASSES[-1]) * PAPER_PASS))


def analyse(collected: "Collected") -> Analysis:
    """Claims on what is kept by time of the exposure, figures and tables."""
    from repetita.studies._exposure_figures import View
    from repetita.studies._exposure_page import analysis

    return analysis(collected, view=View(word="order", varied="exposure at", name=level_name), claims=_claims)


def level_name(level: "Level") -> str:
    """The level in words."""
    other = f", order {level.exposure.reordered + 1}" if level.exposure.reordered else ""
    return f"pass {level.passes:g}{other}"


def _claims(levels: "Sequence[Level]", planned: Sequence[Exposure]) -> "Iterator[Claim]":
    from repetita.studies import _exposure_claims as claims

    times = [level for level in levels if not level.exposure.reordered]
    names = {one: f"update {one.at}" for one in planned if not one.reordered}
    names |= {level.exposure: level_name(level) for level in times}
    unit = "of M(f), each minus its placebo"
    ends = (times[0], times[-1]) if len(times) == len(names) > 1 else (None, None)
    yield claims.alike(
        times, by=lambda level: level.kept(), names=names, margin=MARGIN, name="order-alike",
        statement="what is kept of the special batches, at equal distance from the exposure, does not depend "
        "on when in training they were seen", source=PAPER, unit=unit,
    )  # fmt: skip
    yield claims.alike(
        times, by=lambda level: level.lowest(), names=names, margin=MARGIN, name="order-alike-raw",
        statement="the paper's forgetting baseline (lowest M after the exposure, no control) does not depend "
        "on when in training the special batches were seen", source=PAPER, unit="of M(f)",
    )  # fmt: skip
    first = min((one.at for one in planned), default=0)
    orders = {one: f"order {one.reordered + 1}" for one in planned if one.at == first}
    if len(orders) > 1:
        yield claims.alike(
            levels, by=lambda level: level.kept(), names=orders, margin=MARGIN,
            name="order-shuffled", statement="what is kept does not depend on the order of the training data "
            "(same set, same initialisation, same exposure)", source=PAPER, unit=unit,
        )  # fmt: skip
    yield claims.more(
        ends[1], ends[0], by=lambda level: level.kept(), name="order-later-keeps-more",
        statement="more is kept of the latest exposure than of the earliest, at equal distance from each",
        source="Huang et al. 2024: later checkpoints memorize more", unit=unit,
    )  # fmt: skip
    yield claims.more(
        ends[0], ends[1], by=lambda level: level.unseen(), name="order-unseen-falls",
        statement="on the same text never seen (placebo runs) the lowest M is higher early than late, so "
        "that the paper's baseline moves with training whatever is remembered",
        source=f"open in {PAPER}, which has no never-seen control", unit="of M(f), earliest minus latest",
        primary=False,
    )  # fmt: skip
    for level in levels:
        yield claims.remains(
            level, name=f"order-remains-{level_name(level).replace(', ', '-').replace(' ', '-')}",
            what=f"exposed at {level_name(level)}",
        )  # fmt: skip


def detectable(scale: str) -> Mapping[str, str]:
    """For each primary claim of a scale the smallest effect that its seeds can show, in words."""
    from repetita.studies._exposure_claims import KEPT_SD, RAW_SD, smallest_margin
    from repetita.studies._power import smallest_effect

    n = design(scale).seeds
    kept = smallest_margin(n=n, sd=KEPT_SD, margin=MARGIN)
    return {
        "order-alike": kept,
        "order-alike-raw": smallest_margin(n=n, sd=RAW_SD, margin=MARGIN),
        "order-shuffled": kept,
        "order-later-keeps-more": smallest_effect(n=n, sd=KEPT_SD, unit="of M(f)", predicted=0.01, primary=4),
    }


def deviations(scale: str) -> Sequence[Deviation]:
    """The paper's value and ours, parameter by parameter."""
    chosen = design(scale)
    per_pass = chosen.n_sequences / chosen.batch_size
    at = [round(level.at / per_pass, 1) for level in chosen.levels if not level.reordered]
    shown = " / ".join(f"{passes:g}" for passes in at)
    n_orders = len({level.reordered for level in chosen.levels})
    return _exposure.deviations(
        chosen,
        varied=(
            Deviation("exposure after passes", "14 / 39 / 63", shown, f"{per_pass:g} updates a pass"),
            Deviation("order of the training data", "not varied beside the time", f"{n_orders} orders",
                      "Fig. 9 speaks of order and varies time"),
            Deviation("equality", "by eye", f"within {MARGIN:g} of M(f), minus placebo", "rule 29"),
        ),
    )  # fmt: skip


def _scale(name: str) -> Sequence[PlannedRun]:
    return tuple(_exposure.planned(design(name)))


STUDY = Study(
    name="forgetting_order",
    title="Early, middle and late",
    question="Does what stays of an exposure depend on when in training it came, or on the order of the "
    "other data?",
    prediction="The forgetting baseline is the same whether the special batch is seen after 14, 39 or 63 "
    "passes (all near 0.30 at 125M).",
    source=PAPER,
    scales={name: partial(_scale, name) for name in SCALES},
    analyse=analyse,
    deviations=deviations,
    detectable=detectable,
    expected=EXPECTED,
)
