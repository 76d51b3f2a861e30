"""What repeated data costs by model size and by share, and what the lost size was spent on, drawn."""

from collections.abc import Iterator, Sequence

import numpy as np

from repetita.fit.effective_size import ControlScan, effective_size, profitable_multiplier, stored_bits
from repetita.fit.estimate import Estimate, t_interval
from repetita.report.figure import Axis, Figure, Layer, Panels, Row, Rule, Series
from repetita.studies._damage import Damage
from repetita.studies._damage_figures import (
    INTERVAL,
    INTERVALS,
    LINE,
    POINT,
    count_text,
    drawn,
    sized,
    spread,
)
from repetita.studies._grid import Grid, Line, Losses, mean, minus

N_AXIS = Axis(column="n_params", title="non-embedding parameters N (log scale)", scale="log")
SIZE_TITLE = "effective size / size (log scale)"
LEAST_PROFITABLE = 1e-3
"""The line of profit is not drawn under this effective size / size."""
PAYS = "memorizing pays above"


def figures(
    grid: Grid, *, found: Sequence[Damage], scan: ControlScan | None, main: Sequence[Line]
) -> Iterator[Figure]:
    """The figures that the measurements allow, in the order of the page."""
    several = [share for share in _shares(grid) if len(_sizes(grid, share)) > 1]
    if main and main[0][1] in several:
        yield loss_by_size(grid, share=main[0][1], scan=scan)
    if several:
        yield from excess_by_size(grid, shares=several)
        if scan is not None:
            yield from size_by_size(grid, shares=several, scan=scan)
    if len({damage.line[1] for damage in found if damage.excess}) > 1:
        yield excess_by_share(grid, found=found)
        if scan is not None:
            yield size_by_share(grid, found=found, scan=scan)
    if scan is not None:
        yield from capacity(grid, scan=scan)


def loss_by_size(grid: Grid, *, share: float, scan: ControlScan | None) -> Figure:
    """Fig. 2 right: control, repeated run and repeated subset over sizes, a panel for each number of
    passes."""
    shown = _common(grid, share)
    rows: list[Row] = []
    for passes in shown:
        cell: Row = {"passes": f"{passes:g} passes"}
        for size, losses in grid.control.items():
            law = None if scan is None else float(scan.law.predict(grid.n_params[size]))
            rows.append({**cell, "on": "control, test set", **_at(grid, size), **spread(losses), "law": law})
        for size in _sizes(grid, share):
            for name, by_line in (("test set", grid.repeated), ("repeated subset", grid.subset)):
                measured = by_line.get((size, share), {}).get(passes)
                if measured:
                    rows.append({**cell, "on": name, **_at(grid, size), **spread(measured)})
    return Figure(
        name="loss-by-size",
        title="Loss over model size at fixed passes",
        caption=f"f = {share:g}. Runs on unique data with their power law (dashed), repeated runs on the "
        "test set, and on the subset that they repeat. In the paper the test loss leaves the control's line "
        f"at the size at which the subset's loss falls towards zero. {INTERVALS}",
        n=count_text(grid),
        rows=tuple(rows),
        x=N_AXIS,
        # On a log scale the subset's fall to hundredths of a nat would leave no room for the damage.
        y=Axis(column="loss", title="loss, nats a token", start="zero"),
        series=Series(
            column="on", title="measured on", order=("control, test set", "test set", "repeated subset"),
            muted=("control, test set",),
        ),
        panels=_panels("passes", [f"{passes:g} passes" for passes in shown]),
        layers=(INTERVAL, POINT, *((Layer(kind="line", y="law", dash="dashed"),) if scan else ())),
        tooltip=("size", "seeds"),
    )  # fmt: skip


def excess_by_size(grid: Grid, *, shares: Sequence[float]) -> Iterator[Figure]:
    """Fig. 4 left in nats, which are always defined."""
    rows: list[Row] = []
    for share, passes, size, losses in _cells(grid, shares):
        excess = minus(losses, grid.control.get(size, {}))
        if excess:
            cell = {"share": f"f = {share:g}", "passes": passes, **_at(grid, size), **_about(passes)}
            rows.append({**cell, **drawn(t_interval(list(excess.values())), value="excess")})
    if not rows:
        return
    yield Figure(
        name="excess-by-size",
        title="Damage over model size at fixed passes",
        caption="Final test loss minus that of the control of the same size, paired by seed, at the passes "
        f"that several sizes have. {INTERVALS}",
        n=count_text(grid),
        rows=tuple(rows),
        x=N_AXIS,
        y=Axis(column="excess", title="excess test loss, nats a token"),
        series=_passes_series(rows),
        panels=_panels("share", [f"f = {share:g}" for share in shares]),
        layers=(INTERVAL, LINE, POINT),
        rules=(Rule(axis="y", at=0.0, label="control"),),
        tooltip=("size", "passes", "seeds"),
    )


def size_by_size(grid: Grid, *, shares: Sequence[float], scan: ControlScan) -> Iterator[Figure]:
    """Fig. 4 left: effective size over size, where the ladder of controls reaches it."""
    rows: list[Row] = []
    for share, passes, size, losses in _cells(grid, shares):
        ratio = _multiplier(grid, scan, size, losses)
        if (told := sized(ratio)) is not None:
            cell = {"share": f"f = {share:g}", "passes": passes, **_at(grid, size), **_about(passes)}
            rows.append({**cell, **told})
    if rows:
        yield Figure(
            name="multiplier-by-size",
            title="Effective size over model size at fixed passes",
            caption="Size of the control with the same test loss, read between neighbouring controls, over "
            "the size of the model. A cell worse than every control is a bound, an interval open below.",
            n=count_text(grid),
            rows=tuple(rows),
            x=N_AXIS,
            y=Axis(column="multiplier", title=SIZE_TITLE, scale="log"),
            series=_passes_series(rows),
            panels=_panels("share", [f"f = {share:g}" for share in shares]),
            layers=(INTERVAL, POINT),
            rules=(Rule(axis="y", at=1.0, label="no damage"),),
            tooltip=("size", "passes", "seeds"),
        )


def excess_by_share(grid: Grid, *, found: Sequence[Damage]) -> Figure:
    """The worst damage of each line in nats."""
    rows: list[Row] = [
        {
            **_at(grid, one.line[0]), "fraction": one.line[1], "passes": f"{one.hump.peak:g}",
            **drawn(t_interval(list(one.excess.values())), value="excess"),
        }
        for one in found if one.excess
    ]  # fmt: skip
    return Figure(
        name="worst-excess-by-share",
        title="The worst damage, by share of repeated data",
        caption="Excess test loss at the passes with the highest loss, which each seed takes from the others "
        "where there are several; with one seed the highest of a few noisy cells flatters the damage. "
        f"{INTERVALS}",
        n=count_text(grid),
        rows=tuple(rows),
        x=Axis(column="fraction", title="share f of the tokens (log scale)", scale="log"),
        y=Axis(column="excess", title="excess test loss, nats a token (log scale)", scale="log"),
        series=_size_series(grid, rows),
        layers=(INTERVAL, LINE, POINT),
        tooltip=("passes", "seeds"),
    )


def size_by_share(grid: Grid, *, found: Sequence[Damage], scan: ControlScan) -> Figure:
    """Figs. 5 and 15 at the worst passes, with the line above which memorizing the subset would pay."""
    rows: list[Row] = []
    for one in found:
        losses = {seed: grid.repeated[one.line][passes][seed] for seed, passes in one.peaks.items()}
        ratio = _multiplier(grid, scan, one.line[0], losses)
        if (told := sized(ratio)) is not None:
            cell: Row = {**_at(grid, one.line[0]), "fraction": one.line[1], "passes": f"{one.hump.peak:g}"}
            rows.append({**cell, **told, "pays": None})
    lowest = min(damage.line[1] for damage in found)
    for share in np.geomspace(lowest, max(damage.line[1] for damage in found), 40).tolist():
        least = profitable_multiplier(fraction=share, exponent=max(scan.law.exponent, 1e-6))
        if least >= LEAST_PROFITABLE:
            rows.append({"size": PAYS, "fraction": share, "pays": least})
    return Figure(
        name="worst-multiplier-by-share",
        title="The worst effective size, by share of repeated data",
        caption="Effective size / size at the passes with the highest loss; open intervals: worse than "
        "every control; a loss above ln V has no effective size and is left out. Dashed: (1 - f)^(1/alpha), "
        "alpha of the controls' law. A model that memorizes the subset and becomes no smaller than that has "
        "the lower training loss, so memorizing pays above the line (the paper, section 5.1); the line "
        f"falls below {LEAST_PROFITABLE:g} at large shares, where it is not drawn.",
        n=count_text(grid),
        rows=tuple(rows),
        x=Axis(column="fraction", title="share f of the tokens (log scale)", scale="log"),
        y=Axis(column="multiplier", title=SIZE_TITLE, scale="log"),
        series=_size_series(grid, rows),
        layers=(INTERVAL, POINT, Layer(kind="line", y="pays", dash="dashed")),
        rules=(Rule(axis="y", at=1.0, label="no damage"),),
        tooltip=("passes", "seeds"),
    )


def capacity(grid: Grid, *, scan: ControlScan) -> Iterator[Figure]:
    """Bits stored about the subset, per parameter, against the share of the parameters lost (rule 27)."""
    rows: list[Row] = []
    for line in grid.lines():
        for passes, losses in grid.repeated[line].items():
            ratio, bits = _multiplier(grid, scan, line[0], losses), stored(grid, line, passes)
            if ratio.value is not None and bits is not None:
                cell: Row = {**_at(grid, line[0]), "share": f"f = {line[1]:g}", "passes": f"{passes:g}"}
                rows.append({**cell, "bits": bits, "lost": 1 - ratio.value})
    if rows:
        yield Figure(
            name="capacity",
            title="What the lost parameters hold",
            caption="Bits stored about the repeated subset (control's test loss minus the run's loss on the "
            "subset, over all its tokens) per parameter of the model, against the share of its parameters "
            "that repetition cost (1 - effective size / size). If the lost parameters held the subset, the "
            "points of a size would rise along a line. Cells without an effective size are left out.",
            n=count_text(grid),
            rows=tuple(rows),
            x=Axis(column="bits", title="stored bits a parameter"),
            y=Axis(column="lost", title="share of parameters lost"),
            series=Series(
                column="share", title="share", kind="sequence",
                order=tuple(f"f = {share:g}" for share in _shares(grid)),
            ),
            panels=_panels("size", _ordered(grid, {str(row["size"]) for row in rows})),
            layers=(POINT,),
            tooltip=("passes",),
        )  # fmt: skip


def stored(grid: Grid, line: Line, passes: float, /) -> float | None:
    """Bits stored about the subset per parameter, by the seeds that have control and subset; None without."""
    control, subset = grid.control.get(line[0], {}), grid.subset.get(line, {}).get(passes, {})
    seeds = sorted(set(control) & set(subset), key=str)
    if not seeds:
        return None
    n_tokens = line[1] * grid.tokens / passes
    _, each = stored_bits(
        control_loss_sum=mean([control[seed] for seed in seeds]) * n_tokens,
        repeated_loss_sum=mean([subset[seed] for seed in seeds]) * n_tokens,
        n_params=grid.n_params[line[0]],
    )
    return each


def _multiplier(grid: Grid, scan: ControlScan, size: str, losses: Losses) -> Estimate:
    found = effective_size(scan, n_params=grid.n_params[size], losses=losses, method="interpolation")
    return found.multiplier


def _shares(grid: Grid) -> list[float]:
    return sorted({line[1] for line in grid.lines()})


def _sizes(grid: Grid, share: float) -> list[str]:
    return [line[0] for line in grid.lines() if line[1] == share]


def _common(grid: Grid, share: float) -> list[float]:
    """Passes that two sizes or more have at a share."""
    every = [passes for size in _sizes(grid, share) for passes in grid.repeated[size, share]]
    return sorted({passes for passes in every if every.count(passes) > 1})


def _cells(grid: Grid, shares: Sequence[float]) -> Iterator[tuple[float, float, str, Losses]]:
    """Share, passes, size and losses of every cell whose passes two sizes have."""
    for share in shares:
        for passes in _common(grid, share):
            for size in _sizes(grid, share):
                if passes in grid.repeated[size, share]:
                    yield share, passes, size, grid.repeated[size, share][passes]


def _at(grid: Grid, size: str) -> Row:
    return {"size": size, "n_params": grid.n_params[size]}


def _ordered(grid: Grid, sizes: set[str]) -> list[str]:
    return sorted(sizes, key=lambda size: grid.n_params[size])


def _panels(column: str, values: Sequence[str]) -> Panels | None:
    return Panels(column=column, title="", order=tuple(values), share="both") if len(values) > 1 else None


def _about(passes: float) -> Row:
    """The half-decade that passes are nearest to: shares have other passes, half a decade apart."""
    nearest = 10 ** (round(2 * np.log10(passes)) / 2)
    return {"about": f"{float(f'{nearest:.1g}'):.0f}"}


def _passes_series(rows: Sequence[Row]) -> Series:
    order = tuple(sorted({str(row["about"]) for row in rows}, key=float))
    return Series(column="about", title="about so many passes", kind="sequence", order=order)


def _size_series(grid: Grid, rows: Sequence[Row]) -> Series:
    order = _ordered(grid, {str(row["size"]) for row in rows} - {PAYS})
    return Series(
        column="size", title="non-embedding parameters", kind="sequence", order=(*order, PAYS), muted=(PAYS,)
    )
