"""The damaging band: between which passes repetition costs at least half of its worst, by size and share."""

from collections.abc import Callable, Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np

from repetita.errors import SpecError
from repetita.fit.claim import Claim, from_estimate, undecided
from repetita.fit.effective_size import ControlScan, HalfDamage, effective_size, half_damage
from repetita.fit.estimate import Crossing
from repetita.fit.laws import PowerTrend, fit_power_trend
from repetita.report.figure import Axis, Cell, Figure, Layer, Panels, Row, Series
from repetita.report.page import Table
from repetita.studies._grid import Grid, Labels, Line, mean, standard

Side = Literal["left", "right"]
SIDES: tuple[Side, ...] = ("left", "right")

LEAST_FRACTION = 0.03
"""Smaller shares are shown and enter no fit: the paper leaves out its 1%, too noisy (its appendix A)."""
NOISE = 3.0
"""A band needs a worst damage of this many standard deviations between seeds of the controls."""
APART = 1.04
"""Factor in size between the shares that a figure draws side by side."""
PUBLISHED = {"left": (4.2e6, -0.56), "right": (5.1e7, -0.50)}
"""The paper's edges E = k N^alpha, at T = 100B tokens."""


class Band(NamedTuple):
    """Half of the worst damage at one size and share."""

    line: Line
    half: HalfDamage
    measure: Literal["ln size", "nats"]
    """What is halved: the log of the effective size (the paper), or excess nats where one of the line's
    effective sizes lies outside the ladder (rule 24)."""
    seeds: int
    """Fewest seeds behind a point of the line."""

    def edge(self, side: Side) -> Crossing | None:
        """Passes at one edge; None where the peak is at the end of the grid."""
        return self.half.left if side == "left" else self.half.right


class Edge(NamedTuple):
    """One edge over sizes, E = k N^alpha."""

    side: Side
    trend: PowerTrend | None
    """Each share with a level of its own, edges outside the grid as censored; None where too few are in."""
    averaged: tuple[float, float] | None
    """k and alpha the paper's way: the geometric mean over shares at each size, a straight line through the
    sizes; None under two sizes."""
    seeds: int
    """Fewest seeds behind an edge that tells of the slope."""
    why: str
    """Why there is no trend."""


def bands(grid: Grid, scan: ControlScan | None) -> list[Band]:
    """A band for every line whose worst damage stands out of the noise between seeds."""
    found = (_band(grid, line, scan) for line in grid.lines() if line[0] in grid.control)
    return [band for band in found if band is not None]


def _band(grid: Grid, line: Line, scan: ControlScan | None) -> Band | None:
    cells = {passes: losses for passes, losses in grid.repeated[line].items() if grid.excess(line, passes)}
    nats = {passes: mean(grid.excess(line, passes)) for passes in cells}
    noise = scan.seed_sd if scan is not None and scan.seed_sd else 0.0
    if len(nats) < 3 or max(nats.values()) <= NOISE * noise:
        return None
    effect, measure = nats, "nats"
    if scan is not None:
        sizes = {
            passes: effective_size(
                scan, n_params=grid.n_params[line[0]], losses=losses, method="interpolation"
            ).multiplier.value
            for passes, losses in cells.items()
        }
        known = {passes: -float(np.log(value)) for passes, value in sizes.items() if value is not None}
        if len(known) == len(cells):
            effect, measure = known, "ln size"
    try:
        half = half_damage(list(effect), effect=list(effect.values()))
    except SpecError:
        return None
    seeds = min(len(losses) for losses in cells.values())
    return Band(line, half, "nats" if measure == "nats" else "ln size", seeds)


def edges(found: Sequence[Band], *, grid: Grid) -> dict[Side, Edge]:
    """Both edges over sizes, from the bands of shares of at least `LEAST_FRACTION`."""
    return {side: _edge(side, found, grid) for side in SIDES}


def _edge(side: Side, found: Sequence[Band], grid: Grid) -> Edge:
    given = [
        (band, crossing)
        for band in found
        if band.line[1] >= LEAST_FRACTION and (crossing := band.edge(side)) is not None
    ]
    sizes = [float(grid.n_params[band.line[0]]) for band, _ in given]
    shares = [band.line[1] for band, _ in given]
    several = {
        share for share in shares if len({n for n, f in zip(sizes, shares, strict=True) if f == share}) > 1
    }
    seeds = min((band.seeds for band, _ in given if band.line[1] in several), default=0)
    try:
        trend = fit_power_trend(sizes, crossings=[crossing for _, crossing in given], groups=shares)
    except SpecError:
        seen = sum(crossing.x is not None for _, crossing in given)
        why = f"{seen} edges inside the passes that were run, of {len(found)} lines, are too few for a slope"
        return Edge(side, None, _averaged(given, grid), seeds, why)
    return Edge(side, trend, _averaged(given, grid), seeds, "")


def _averaged(given: Sequence[tuple[Band, Crossing]], grid: Grid) -> tuple[float, float] | None:
    by_size: dict[float, list[float]] = {}
    for band, crossing in given:
        if crossing.x is not None:
            by_size.setdefault(float(grid.n_params[band.line[0]]), []).append(float(np.log(crossing.x)))
    if len(by_size) < 2:
        return None
    slope, level = np.polyfit(np.log(list(by_size)), [mean(logs) for logs in by_size.values()], 1)
    return float(np.exp(level)), float(slope)


def planned_seeds(planned: Sequence[Labels]) -> int | None:
    """Fewest seeds behind a point of the lines that tell how the band moves with size; None where no share is
    planned at two sizes."""
    cells: dict[tuple[object, ...], set[object]] = {}
    sizes: dict[float, set[object]] = {}
    for labels in standard(planned):
        share = float(labels["fraction"] or 0)
        if labels["arm"] == "repeated" and share >= LEAST_FRACTION:
            cells.setdefault((share, labels["size"], labels["passes"]), set()).add(labels["seed"])
            sizes.setdefault(share, set()).add(labels["size"])
    counts = [len(seeds) for (share, *_), seeds in cells.items() if len(sizes[float(str(share))]) > 1]
    return min(counts) if counts else None


def claim(found: dict[Side, Edge], *, primary: bool = True) -> Claim:
    """Both edges fall with size: decided by the edge that falls less."""
    name, source = (
        "band-falls",
        "Hernandez et al. 2022, Fig. 4 right: E about N^-0.56 (left) and N^-0.50 (right)",
    )
    statement = "both edges of the damaging band lie at fewer passes the larger the model"
    shown = "; ".join(edge_text(edge) for edge in found.values())
    trends = {side: edge.trend for side, edge in found.items() if edge.trend is not None}
    if len(trends) < len(SIDES):
        rule = "the larger exponent of the two edges below 0, where both edges have a trend over sizes"
        return undecided(
            name=name, statement=statement, source=source, rule=rule, note=shown, primary=primary
        )
    least: Callable[[Side], float] = lambda side: (  # noqa: E731
        np.inf if (high := trends[side].exponent.high) is None else high
    )
    side = max(trends, key=least)
    if trends[side].exponent.holds(0.0):
        shown = f"the interval holds 0, so that these runs show no direction; {shown}"
    return from_estimate(
        trends[side].exponent, name=name, statement=statement, source=source, direction="below",
        n=min(edge.seeds for edge in found.values()), note=shown, primary=primary,
        unit=f"(exponent of the {side} edge, which falls less surely)",
    )  # fmt: skip


def edge_text(edge: Edge, /) -> str:
    """The edge's exponent and coefficient both ways."""
    paper = PUBLISHED[edge.side]
    if edge.trend is None:
        own = edge.why
    else:
        own = f"exponent {edge.trend.exponent.text(digits=2)}, k = {edge.trend.coefficient:.2g}, "
        own += f"from {edge.trend.n} edges"
        own += f", {edge.trend.n_censored} of them censored" if edge.trend.n_censored else ""
    averaged = ""
    if edge.averaged is not None:
        averaged = "; averaged over shares {1:.2g}, k = {0:.2g}".format(*edge.averaged)
    return f"{edge.side} edge: {own}{averaged} (the paper: {paper[1]:g}, k = {paper[0]:.2g})"


def figures(found: Sequence[Band], *, fitted: dict[Side, Edge], grid: Grid) -> Iterator[Figure]:
    """The band over sizes, and over shares."""
    if len(found) > 1:
        yield over_sizes(found, fitted=fitted, grid=grid)
    if len({band.line[1] for band in found}) > 1:
        yield over_shares(found, grid=grid)


def over_sizes(found: Sequence[Band], *, fitted: dict[Side, Edge], grid: Grid) -> Figure:
    """Fig. 4 right."""
    rows: list[Row] = []
    shares = sorted({band.line[1] for band in found})
    for band in found:
        n_params = beside(grid.n_params[band.line[0]], place=shares.index(band.line[1]), n=len(shares))
        cell: Row = {"share": _share(band), "n_params": n_params, "size": band.line[0]}
        rows.append(cell | {"passes": band.half.peak, **_ends(band)})
    sizes = sorted({grid.n_params[band.line[0]] for band in found})
    drawn = [(side, edge.trend) for side, edge in fitted.items() if edge.trend is not None]
    for side, trend in drawn:
        for n_params in sizes:
            rows.append(
                {"share": f"{side} edge", "n_params": n_params, "edge": float(trend.predict(n_params))}
            )
    return Figure(
        name="damaging-band",
        title="The damaging band",
        caption="Passes with the worst loss (points) and those between which the damage is at least half of "
        "the worst (intervals; open where the runs do not reach below half), shares of one size side by "
        "side. Dashed: E = k N^alpha, its "
        f"level averaged over shares of {LEAST_FRACTION:g} and more. {_laws(fitted)}. "
        "The paper's band is for T = 100B tokens a run, where it lies at far more passes.",
        n=f"{len(found)} lines of a size and a share",
        rows=tuple(rows),
        x=Axis(column="n_params", title="non-embedding parameters N (log scale)", scale="log"),
        y=Axis(column="passes", title="passes E over the subset (log)", scale="log"),
        series=Series(
            column="share", title="share", kind="sequence",
            order=(*(f"f = {share:g}" for share in shares), *(f"{side} edge" for side, _ in drawn)),
            muted=tuple(f"{side} edge" for side, _ in drawn),
        ),
        layers=(
            Layer(kind="interval", low="low", high="high"), Layer(kind="point"),
            *((Layer(kind="line", y="edge", dash="dashed"),) if drawn else ()),
        ),
        tooltip=("size",),
    )  # fmt: skip


def beside(x: float, /, *, place: int, n: int) -> float:
    """x moved along a log axis, so that n intervals at one x do not cover each other."""
    return float(x * APART ** (place - (n - 1) / 2))


def over_shares(found: Sequence[Band], *, grid: Grid) -> Figure:
    """Fig. 14."""
    rows: list[Row] = []
    for band in found:
        cell: Row = {"size": band.line[0], "fraction": band.line[1]}
        sides = {side: crossing and crossing.x for side in SIDES for crossing in (band.edge(side),)}
        rows += [
            {**cell, "at": name, "passes": passes}
            for name, passes in (
                ("half damage, left", sides["left"]), ("worst", band.half.peak),
                ("half damage, right", sides["right"]),
            )
            if passes is not None
        ]  # fmt: skip
    sizes = tuple(sorted({str(row["size"]) for row in rows}, key=lambda size: grid.n_params[size]))
    return Figure(
        name="half-damage-by-share",
        title="Half of the damage, by share",
        caption="Passes at which the damage is worst and half of its worst, by the share of the tokens that "
        "repeats. Edges that lie outside the passes that were run are left out (see the table).",
        n=f"{len(found)} lines of a size and a share",
        rows=tuple(rows),
        x=Axis(column="fraction", title="share f of the tokens (log scale)", scale="log"),
        y=Axis(column="passes", title="passes E over the subset (log)", scale="log"),
        series=Series(
            column="at", title="passes at", order=("half damage, left", "worst", "half damage, right")
        ),
        panels=Panels(column="size", title="N", order=sizes, share="both") if len(sizes) > 1 else None,
        layers=(Layer(kind="line"), Layer(kind="point")),
    )


def table(found: Sequence[Band], *, fitted: dict[Side, Edge], grid: Grid) -> Table:
    """Edges of every line, and the fitted laws in the caption."""
    rows: list[list[Cell]] = []
    for band in sorted(found, key=lambda one: (grid.n_params[one.line[0]], one.line[1])):
        shown = [None if (at := band.edge(side)) is None else _passes(at) for side in SIDES]
        rows.append([
            band.line[0], f"{band.line[1]:g}", band.measure, f"{band.half.peak:g}", *shown,
            "no" if band.line[1] < LEAST_FRACTION else "yes", band.seeds,
        ])  # fmt: skip
    return Table(
        "band", "The damaging band",
        "Passes at which the damage is half of its worst on either side. Halved is the log of the effective "
        "size, or excess nats where one of the line's effective sizes lies outside the ladder of controls. "
        f"{_laws(fitted)}.",
        f"{len(found)} lines",
        ("N", "f", "halved", "worst E", "from", "to", "in the fit", "fewest seeds"), rows,
    )  # fmt: skip


def _passes(crossing: Crossing, /) -> str:
    """An edge in words, censored on either side."""
    if crossing.x is not None:
        return f"{crossing.x:.3g}"
    return f"under {crossing.high:g}" if crossing.high is not None else f"above {crossing.last:g}"


def _laws(fitted: dict[Side, Edge]) -> str:
    return "; ".join(edge_text(edge) for edge in fitted.values())


def _share(band: Band) -> str:
    return f"f = {band.line[1]:g}"


def _ends(band: Band) -> Row:
    left, right = band.half.left, band.half.right
    return {"low": left and left.x, "high": right and right.x}
