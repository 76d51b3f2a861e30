"""Published laws of repetition beside what was measured: data-constrained, peak passes, the toy's hump."""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from repetita.errors import SpecError
from repetita.fit.effective_size import ControlScan, effective_size
from repetita.fit.estimate import t_interval
from repetita.fit.laws import fit_power_law
from repetita.fit.repetition_laws import compute_equivalent_gain, effective_data, peak_passes, toy_hump
from repetita.report.figure import Axis, Cell, Figure, Layer, Panels, Row, Rule, Series
from repetita.report.page import Table
from repetita.studies._band import beside
from repetita.studies._damage import Damage
from repetita.studies._damage_figures import INTERVAL, INTERVALS, LINE, PASSES, POINT, count_text, drawn
from repetita.studies._grid import Grid, Line, line_text, mean

MEASURED, DATA_LAW = "measured", "data-constrained law"
TOY, PEAK_LAW = "toy regression", "law of Chudnovsky et al."
TOY_REPEATS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 300)
TOY_DRAWS = 20
THEIR_SHARE = 0.1
THEIR_WORST = {"34M, worst": 0.19, "344M, worst": 0.33}
"""Compute-equivalent loss at the worst passes of the smallest and largest of Chudnovsky et al. 2026."""


class Floor(NamedTuple):
    """The controls' law with an offset, L = offset + K N^-exponent, as the others' currency needs it."""

    offset: float
    exponent: float | None
    """None where no such law could be fitted, or where loss does not fall with size."""
    told: str
    """Both in words, with their intervals."""


def floor_of(grid: Grid) -> Floor:
    """The controls' law with an offset."""
    points = [(grid.n_params[size], loss) for size, own in grid.control.items() for loss in own.values()]
    try:
        law = fit_power_law([n for n, _ in points], y=[loss for _, loss in points], offset="fitted")
    except SpecError:
        return Floor(0.0, None, "no law with an offset could be fitted")
    given = law.estimates()
    told = f"offset {given['offset'].text(digits=2)}, exponent {given['exponent'].text(digits=2)}"
    return Floor(law.offset, law.exponent if law.exponent > 0 else None, told)


def figures(grid: Grid, *, found: Sequence[Damage], main: Sequence[Line], floor: Floor) -> Iterator[Figure]:
    """The figures that the measurements allow."""
    lines = [line for line in grid.lines() if law_excess(grid, line, 2.0) is not None]
    if lines:
        yield data_constrained(grid, lines=lines)
    yield from compute_equivalent(grid, floor=floor)
    inside = [one for one in found if one.hump.kind != "edge"]
    if inside:
        yield peaks(grid, found=inside)
    humps = [one for one in inside if one.line in main]
    if humps:
        yield toy(grid, found=humps)


def law_excess(grid: Grid, line: Line, passes: float, /) -> float | None:
    """Excess nats that the data-constrained law gives a cell; None without a starved run of the line.

    The law (Muennighoff et al. 2023) is of whole corpora: of T tokens U = (1 - f) T + S are distinct, and it
    makes of them D' tokens that are read once. Its own constants are of another text and tokenizer, so that
    nats come from this study: what D' costs is read off the starved run, which trained on (1 - f) T tokens
    read once, on the log of the tokens.
    """
    share, starved, control = line[1], grid.starved.get(line, {}), grid.control.get(line[0], {})
    seeds = set(starved) & set(control)
    if not seeds or share >= 1:
        return None
    slope = mean([starved[seed] - control[seed] for seed in seeds]) / -math.log(1 - share)
    unique = (1 - share) * grid.tokens + share * grid.tokens / passes
    worth = float(effective_data(grid.tokens, unique_tokens=min(unique, grid.tokens)))
    return slope * math.log(grid.tokens / worth)


def data_constrained(grid: Grid, *, lines: Sequence[Line]) -> Figure:
    """Excess over the control beside the law's, which cannot show a hump."""
    rows: list[Row] = []
    for line in lines:
        for passes in grid.repeated[line]:
            cell: Row = {"line": line_text(line), "passes": passes}
            excess = grid.excess(line, passes)
            if excess:
                rows.append({**cell, "of": MEASURED, **drawn(t_interval(list(excess.values())))})
            rows.append({**cell, "of": DATA_LAW, "loss": law_excess(grid, line, passes)})
    return Figure(
        name="law-data-constrained",
        title="What a law of repeated corpora would expect",
        caption="Excess test loss, and what the data-constrained law (Muennighoff et al. 2023: up to four "
        "passes nearly free, then worth less and less) expects of as many distinct tokens, with its "
        "published 15.4 repeats. The law's nats are this study's: from what a lack of unique tokens costs "
        "in the starved runs. It is about whole corpora, knows no difference between a part read often and "
        f"all of it read twice, and only rises with passes. {INTERVALS}",
        n=count_text(grid),
        rows=tuple(rows),
        x=Axis(column="passes", title=PASSES, scale="log"),
        y=Axis(column="loss", title="excess test loss, nats a token"),
        series=Series(column="of", title="", order=(MEASURED, DATA_LAW), muted=(DATA_LAW,)),
        panels=Panels(column="line", title="", order=tuple(map(line_text, lines)), share="x")
        if len(lines) > 1
        else None,
        layers=(INTERVAL, LINE, POINT),
        rules=(Rule(axis="y", at=0.0, label="control"),),
        tooltip=("seeds",),
    )


def compute_equivalent(grid: Grid, *, floor: Floor) -> Iterator[Figure]:
    """Damage in the currency of Chudnovsky et al. 2026, beside what they found at their worst passes."""
    rows: list[Row] = []
    for line in grid.lines():
        control = grid.control.get(line[0], {})
        for passes, losses in grid.repeated[line].items():
            shared = set(losses) & set(control)
            lost = [_equivalent_loss(losses[seed], control[seed], floor) for seed in sorted(shared, key=str)]
            values = [value for value in lost if value is not None]
            if values and len(values) == len(lost):
                cell: Row = {"size": line[0], "share": f"f = {line[1]:g}", "passes": passes}
                rows.append({**cell, **drawn(t_interval(values), value="lost")})
    if not rows:
        return
    shares = [f"f = {share:g}" for share in sorted({line[1] for line in grid.lines()})]
    panels = Panels(column="share", title="", order=tuple(shares), share="both") if len(shares) > 1 else None
    theirs = f"f = {THEIR_SHARE:g}"
    sizes = sorted({str(row["size"]) for row in rows}, key=lambda size: grid.n_params[size])
    yield Figure(
        name="law-compute-equivalent",
        title="Damage as compute lost",
        caption="1 minus the compute with which a control would be as good, over the compute spent (the "
        "compute-equivalent loss of Chudnovsky et al. 2026): 0 is no damage, below 0 the run is better than "
        "its control. Tokens are the same everywhere here, so that compute grows with N alone, and the law "
        f"of the controls has an offset ({floor.told}), on which these values hang. Lines at f = 0.1: their "
        f"worst passes, for models of 34M and of 344M parameters. {INTERVALS}",
        n=count_text(grid),
        rows=tuple(rows),
        x=Axis(column="passes", title=PASSES, scale="log"),
        y=Axis(column="lost", title="share of the compute lost"),
        series=Series(column="size", title="non-embedding parameters", kind="sequence", order=tuple(sizes)),
        panels=panels,
        layers=(INTERVAL, LINE, POINT),
        rules=(
            Rule(axis="y", at=0.0, label="no damage"),
            *(
                Rule(axis="y", at=at, label=label, panel=theirs if panels else None)
                for label, at in THEIR_WORST.items() if theirs in shares
            ),
        ),
        tooltip=("seeds",),
    )  # fmt: skip


def peaks(grid: Grid, *, found: Sequence[Damage]) -> Figure:
    """The worst passes over all parameters, beside the published law."""
    rows: list[Row] = []
    for one in found:
        low, high = one.hump.peak_between
        place = sorted({other.line[1] for other in found}).index(one.line[1])
        total = beside(
            grid.n_total.get(one.line[0], grid.n_params[one.line[0]]),
            place=place,
            n=len({other.line[1] for other in found}),
        )
        rows.append({
            "share": f"f = {one.line[1]:g}", "size": one.line[0], "total": total,
            "passes": one.hump.peak_interpolated, "low": low, "high": high,
        })  # fmt: skip
    totals = [float(row["total"] or 0) for row in rows]
    for total in np.geomspace(min(totals) / 1.5, max(totals) * 1.5, 20).tolist():
        rows.append({"share": PEAK_LAW, "total": total, "law": float(peak_passes(total))})
    shares = tuple(f"f = {share:g}" for share in sorted({one.line[1] for one in found}))
    return Figure(
        name="law-peak-passes",
        title="The worst number of passes beside a published law",
        caption="Worst passes of each line, interpolated, between their neighbours in the grid (intervals; "
        "shares of one size side by side). "
        "Dashed: 2.31e10 N^-0.96 (Chudnovsky et al. 2026), N with embeddings, fitted at f = 0.1 to models "
        "of 34M "
        "to 344M whose tokens grow with their size, and here extrapolated far below them. Runs here have the "
        "same tokens at every size.",
        n=f"{len(found)} lines of a size and a share",
        rows=tuple(rows),
        x=Axis(column="total", title="all parameters, embeddings included (log scale)", scale="log"),
        y=Axis(column="passes", title=PASSES, scale="log"),
        series=Series(
            column="share", title="share", kind="sequence", order=(*shares, PEAK_LAW), muted=(PEAK_LAW,)
        ),
        layers=(INTERVAL, POINT, Layer(kind="line", y="law", dash="dashed")),
        tooltip=("size",),
    )


def toy(grid: Grid, *, found: Sequence[Damage]) -> Figure:
    """Humps as shares of their height over passes as multiples of their peak, beside the toy regression's."""
    rows: list[Row] = []
    for one in found:
        excess = {passes: grid.excess(one.line, passes) for passes in grid.repeated[one.line]}
        means = {passes: mean(values) for passes, values in excess.items() if values}
        if means and max(means.values()) > 0:
            rows += _scaled(line_text(one.line), means)
    hump = toy_hump(TOY_REPEATS, fraction=min(found[0].line[1], 0.8), n_draws=TOY_DRAWS)
    own = dict(zip(hump.repeats.tolist(), (hump.error - hump.error[0]).tolist(), strict=True))
    rows += _scaled(TOY, own)
    return Figure(
        name="law-toy-hump",
        title="The hump beside that of a toy regression",
        caption="Damage as a share of the worst, over passes as a multiple of the worst. Grey: least "
        "squares on 100 features and 600 rows of which a part is fewer rows repeated more often, in closed "
        "form (Chudnovsky et al. 2026): copies enter the fit as often as they are there and its error as "
        "the square of that, so that damage peaks in between. It has no training time; its repeats are not "
        "passes.",
        n=f"{count_text(grid)}; toy: {TOY_DRAWS} draws",
        rows=tuple(rows),
        x=Axis(column="relative", title="passes over worst passes (log)", scale="log"),
        y=Axis(column="damage", title="damage over worst damage"),
        series=Series(
            column="of", title="", order=(*(line_text(one.line) for one in found), TOY), muted=(TOY,)
        ),
        layers=(LINE, POINT),
        tooltip=("passes",),
    )


def _scaled(name: str, damage: dict[float, float]) -> list[Row]:
    worst = max(damage, key=lambda passes: damage[passes])
    return [
        {"of": name, "passes": passes, "relative": passes / worst, "damage": value / damage[worst]}
        for passes, value in damage.items()
    ]


def table(grid: Grid, *, found: Sequence[Damage], scan: ControlScan | None, floor: Floor) -> Table:
    """The worst cell of each line in every currency, and where the published law expects it."""
    rows: list[list[Cell]] = []
    for one in found:
        size = one.line[0]
        losses = {seed: grid.repeated[one.line][passes][seed] for seed, passes in one.peaks.items()}
        between = by_law = None
        if scan is not None:
            sized = effective_size(scan, n_params=grid.n_params[size], losses=losses, method="interpolation")
            between = sized.multiplier.text(digits=2)
            by_law = None if sized.extrapolated is None else f"{sized.extrapolated / grid.n_params[size]:.2g}"
        lost = _equivalent_loss(mean(losses), mean(grid.control[size]), floor)
        total = grid.n_total.get(size, grid.n_params[size])
        rows.append([
            size, f"{one.line[1]:g}", f"{one.hump.peak_interpolated:.3g}", between, by_law,
            None if lost is None else f"{lost:.2g}",
            f"{float(peak_passes(total)):.3g}",
        ])  # fmt: skip
    return Table(
        "laws", "The worst cells in the currencies of other papers",
        "Effective size / size: read between neighbouring controls, and by the paper's power law without "
        "offset wherever it leads. Compute-equivalent loss (Chudnovsky et al. 2026): 1 minus the compute "
        "with which a control would be as good, over the compute spent; compute grows with N here, since "
        f"tokens are the same ({floor.told}); they find 0.19 to 0.33 at f = 0.1. Peak by their law: an "
        "extrapolation far below its range.",
        count_text(grid),
        ("N", "f", "worst E", "effective size / size", "by the law", "compute-equivalent loss",
         "worst E by their law"),
        rows,
    )  # fmt: skip


def _equivalent_loss(loss: float, control: float, floor: Floor) -> float | None:
    """1 minus the compute-equivalent gain; None without a law or at a loss under its offset."""
    if floor.exponent is None:
        return None
    try:
        gain = compute_equivalent_gain(
            loss, control_loss=control, floor=floor.offset, exponent=floor.exponent
        )
    except SpecError:
        return None
    return 1 - float(gain)
