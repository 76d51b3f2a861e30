"""What repeated data costs, drawn: figures and tables of the double-descent study."""

import math
from collections.abc import Iterator, Sequence

from repetita.fit.effective_size import ControlScan, effective_size
from repetita.fit.estimate import Estimate, t_interval
from repetita.report.figure import Axis, Cell, Figure, Layer, Panels, Row, Rule, Series
from repetita.report.page import Table
from repetita.studies._damage import Damage, Within
from repetita.studies._grid import Curve, Grid, Losses, mean, minus

PASSES = "passes E over the repeated subset (log scale)"
LOSS = "test loss, nats a token"
BAND = Layer(kind="band", low="low", high="high")
INTERVAL = Layer(kind="interval", low="low", high="high")
LINE, POINT = Layer(kind="line"), Layer(kind="point")


def figures(
    grid: Grid, *, found: Sequence[Damage], within: Sequence[Within], curves: Sequence[Curve], scan: ControlScan | None,
    horizons: Sequence[tuple[str, Grid]],
) -> Iterator[Figure]:  # fmt: skip
    """The figures that the measurements allow, in the order of the page."""
    if grid.repeated:
        yield loss_by_passes(grid)
    yield from learning_curves(curves, within)
    if grid.subset:
        yield memorized_subset(grid)
    if found:
        yield split(grid, found)
    if len(grid.control) > 1:
        yield control_law(grid, found, scan)
    if scan is not None and grid.repeated:
        yield from multipliers(grid, scan)
    drawn = [(name, at) for name, at in horizons if at.repeated]
    if drawn:
        yield by_horizon(drawn)


def loss_by_passes(grid: Grid) -> Figure:
    """Final loss against passes, the control's loss as a line of its own."""
    rows: list[Row] = []
    for line in grid.lines():
        for passes, losses in grid.repeated[line].items():
            rows.append({**_cell(line), "passes": passes, **_spread(losses)})
    sizes = _sizes(grid, {line[0] for line in grid.lines()})
    fractions = sorted({line[1] for line in grid.lines()})
    rules = [
        Rule(axis="y", at=mean(grid.control[s]), label=f"control {s}", series=s)
        for s in sizes
        if s in grid.control
    ]
    highest = max(float(row["loss"] or 0) for row in rows)
    if highest > math.log(grid.vocab_size):
        rules.append(Rule(axis="y", at=math.log(grid.vocab_size), label="ln V: a uniform guess"))
    return Figure(
        name="loss-by-passes",
        title="Repeated data hurts most in the middle",
        caption="Final test loss when a fraction f of the training slots re-reads a subset, against the number of "
        "passes over it. The tokens are the same everywhere: more passes mean a smaller subset. One pass would be "
        "the control (horizontal line of the same colour). Intervals: 95% t over seeds where there are several.",
        n=_n(grid),
        rows=tuple(rows),
        x=Axis(column="passes", title=PASSES, scale="log"),
        y=Axis(column="loss", title=LOSS),
        series=_size_series(grid),
        panels=Panels(column="fraction", title="f =", share="both") if len(fractions) > 1 else None,
        layers=(INTERVAL, LINE, POINT),
        rules=tuple(rules),
        tooltip=("seeds",),
    )


def learning_curves(curves: Sequence[Curve], within: Sequence[Within]) -> Iterator[Figure]:
    """Test loss over training for the lines of one size: a panel for each fraction and rate curve."""
    treated = [one.curve for one in within]
    if not treated:
        return
    size = min({c.size for c in treated}, key=lambda s: (-sum(c.size == s for c in treated), s))
    for schedule, words in (("constant", "constant learning rate"), ("cosine", "cosine learning rate")):
        chosen = [c for c in curves if c.schedule == schedule and c.size == size and c.seed == 0]
        repeated = [c for c in chosen if c.arm == "repeated"]
        control = [c for c in chosen if c.arm == "control"]
        rows: list[Row] = []
        for fraction in sorted({c.fraction or 0.0 for c in repeated}):
            line = [c for c in repeated if c.fraction == fraction]
            for curve in [*control, *sorted(line, key=lambda c: c.passes or 0)]:
                name = "control" if curve.passes is None else f"{curve.passes:g} passes"
                rows += [
                    {"fraction": fraction, "arm": name, "tokens": tokens, "loss": loss}
                    for tokens, loss in zip(curve.tokens, curve.loss, strict=True)
                ]
        if not repeated:
            continue
        order = ("control", *(f"{e:g} passes" for e in sorted({c.passes or 0.0 for c in repeated})))
        fractions = {row["fraction"] for row in rows}
        n_series = len(order)
        if n_series > 12:
            order = order[:12]
            rows = [row for row in rows if row["arm"] in order]
        yield Figure(
            name=f"learning-curves-{schedule}",
            title="Double descent within a run" if schedule == "constant" else "Learning curves of the same runs as above",
            caption=f"Test loss over training, N = {size}, {words}, seed 0. With many passes the loss falls while the "
            "model generalises, rises while it memorizes the subset, and falls again once the subset is memorized.",
            n=f"{len(repeated)} treated runs and their control, one seed",
            rows=tuple(rows),
            x=Axis(column="tokens", title="training tokens (log scale)", scale="log"),
            y=Axis(column="loss", title=LOSS),
            series=Series(column="arm", title="passes", kind="sequence", order=order, muted=("control",)),
            panels=Panels(column="fraction", title="f =", share="both") if len(fractions) > 1 else None,
            layers=(LINE,),
        )  # fmt: skip


def memorized_subset(grid: Grid) -> Figure:
    """Loss on the repeated subset beside the test loss: the marker."""
    rows: list[Row] = []
    for line in grid.lines():
        for name, table in (
            ("test set", grid.repeated[line]),
            ("repeated subset", grid.subset.get(line, {})),
        ):
            for passes, losses in table.items():
                rows.append(
                    {
                        "line": f"N = {line[0]}, f = {line[1]:g}",
                        "on": name,
                        "passes": passes,
                        **_spread(losses),
                    }
                )
    lines = tuple(f"N = {line[0]}, f = {line[1]:g}" for line in grid.lines())
    return Figure(
        name="subset-memorized",
        title="The damage peaks where the subset becomes memorized",
        caption="Loss at the end of training on the repeated subset and on the test set. The paper offers the subset's "
        "loss approaching zero as the sign that one is in the damaging range.",
        n=_n(grid),
        rows=tuple(rows),
        x=Axis(column="passes", title=PASSES, scale="log"),
        y=Axis(column="loss", title="loss, nats a token", start="zero"),
        series=Series(column="on", title="measured on", order=("repeated subset", "test set")),
        panels=Panels(column="line", title="", order=lines, share="both") if len(lines) > 1 else None,
        layers=(INTERVAL, LINE, POINT),
        tooltip=("seeds",),
    )


def split(grid: Grid, found: Sequence[Damage]) -> Figure:
    """Excess loss, and the part that the displaced unique data explains."""
    rows: list[Row] = []
    for damage in found:
        name = f"N = {damage.line[0]}, f = {damage.line[1]:g}"
        starved = grid.starved.get(damage.line, {})
        for passes, losses in grid.repeated[damage.line].items():
            total = grid.excess(damage.line, passes)
            if total:
                rows.append({"line": name, "part": "total damage", "passes": passes, **_spread(total)})
            if damage.starvation:
                rows.append(
                    {"line": name, "part": "starvation", "passes": passes, **_spread(damage.starvation)}
                )
            rest = minus(losses, starved)
            if rest:
                rows.append({"line": name, "part": "interference", "passes": passes, **_spread(rest)})
    lines = tuple(f"N = {d.line[0]}, f = {d.line[1]:g}" for d in found)
    return Figure(
        name="damage-split",
        title="Damage = starvation + interference",
        caption="Excess over the control, in nats. Starvation: a run with the same steps whose repeated slots are empty, "
        "so that it lacks the unique data only. Interference: what re-reading costs on top; below zero, re-reading helps.",
        n=_n(grid),
        rows=tuple(rows),
        x=Axis(column="passes", title=PASSES, scale="log"),
        y=Axis(column="loss", title="excess test loss, nats a token"),
        series=Series(column="part", title="part", order=("total damage", "interference", "starvation")),
        panels=Panels(column="line", title="", order=lines, share="x") if len(lines) > 1 else None,
        layers=(BAND, LINE, POINT),
        rules=(Rule(axis="y", at=0.0, label="control"),),
        tooltip=("seeds",),
    )


def control_law(grid: Grid, found: Sequence[Damage], scan: ControlScan | None) -> Figure:
    """Control loss against size with its law, and the treated runs at their peaks."""
    rows: list[Row] = []
    for size in _sizes(grid, set(grid.control)):
        n_params = grid.n_params[size]
        fitted = None if scan is None else float(scan.law.predict(n_params))
        rows.append(
            {
                "kind": "control",
                "size": size,
                "n_params": n_params,
                "law": fitted,
                **_spread(grid.control[size]),
            }
        )
    for damage in found:
        spread = _spread(grid.repeated[damage.line][damage.peak])
        name = f"f = {damage.line[1]:g}, at the peak"
        rows.append(
            {
                "kind": name,
                "size": damage.line[0],
                "n_params": grid.n_params[damage.line[0]],
                "law": None,
                **spread,
            }
        )
    kinds = tuple(dict.fromkeys(str(row["kind"]) for row in rows))
    return Figure(
        name="control-law",
        title="The control ladder, and where the worst runs fall",
        caption="Test loss of runs on unique data only, by size, with the fitted law (dashed); coloured: the treated runs "
        "at their worst number of passes. Read across to the law for their effective size.",
        n=f"{sum(len(v) for v in grid.control.values())} control runs of {len(grid.control)} sizes",
        rows=tuple(rows),
        x=Axis(column="n_params", title="non-embedding parameters N (log scale)", scale="log"),
        y=Axis(column="loss", title=f"{LOSS} (log scale)", scale="log"),
        series=Series(column="kind", title="runs", order=kinds, muted=()),
        layers=(INTERVAL, POINT, *((Layer(kind="line", y="law", dash="dashed"),) if scan is not None else ())),
        tooltip=("size", "seeds"),
    )  # fmt: skip


def multipliers(grid: Grid, scan: ControlScan) -> Iterator[Figure]:
    """Effective size over size, where the ladder reaches it."""
    rows: list[Row] = []
    for line in grid.lines():
        n_params = grid.n_params[line[0]]
        for passes, losses in grid.repeated[line].items():
            found = effective_size(scan, n_params=n_params, losses=losses).multiplier
            if found.value is not None:
                low, high = (found.value, found.value) if found.n < 2 else (found.low, found.high)
                rows.append(
                    {**_cell(line), "passes": passes, "multiplier": found.value, "low": low, "high": high}
                )
    if not rows:
        return
    fractions = {row["fraction"] for row in rows}
    yield Figure(
        name="size-multiplier",
        title="Effective size",
        caption="Size of the control model with the same test loss, divided by the size of the model itself. Points whose loss "
        "lies above every control, or above ln V, have no effective size and are left out (see the table).",
        n=_n(grid),
        rows=tuple(rows),
        x=Axis(column="passes", title=PASSES, scale="log"),
        y=Axis(column="multiplier", title="effective size / size (log scale)", scale="log"),
        series=_size_series(grid),
        panels=Panels(column="fraction", title="f =", share="both") if len(fractions) > 1 else None,
        layers=(INTERVAL, LINE, POINT),
        rules=(Rule(axis="y", at=1.0, label="no damage"),),
    )


def by_horizon(horizons: Sequence[tuple[str, Grid]]) -> Figure:
    """The hump at a quarter, half and all of a constant-rate run (experiment design, rule 25)."""
    rows: list[Row] = []
    for name, grid in horizons:
        for line in grid.lines():
            for passes, losses in grid.repeated[line].items():
                rows.append(
                    {
                        "horizon": name,
                        "line": f"N = {line[0]}, f = {line[1]:g}",
                        "passes": passes,
                        **_spread(losses),
                    }
                )
    lines = {row["line"] for row in rows}
    return Figure(
        name="peak-by-horizon",
        title="Is the peak a snapshot in mid-climb?",
        caption="The same runs at a constant learning rate, read at a quarter, a half and all of their tokens. E counts "
        "the passes of the whole run, so equal E means the same subset. A peak that moves to larger subsets with time is "
        "a front of memorization passing through the grid.",
        n="constant-rate arm, " + _n(horizons[-1][1]),
        rows=tuple(rows),
        x=Axis(column="passes", title="passes E of the whole run (log scale)", scale="log"),
        y=Axis(column="loss", title=LOSS),
        series=Series(column="horizon", title="read at", kind="sequence", order=tuple(name for name, _ in horizons)),
        panels=Panels(column="line", title="", share="both") if len(lines) > 1 else None,
        layers=(INTERVAL, LINE, POINT),
    )  # fmt: skip


def tables(grid: Grid, *, scan: ControlScan | None) -> Iterator[Table]:
    """Every cell of the grid, and the control ladder."""
    if grid.repeated:
        columns = (
            "N",
            "f",
            "passes E",
            "test loss",
            "subset loss",
            "excess, nats",
            "effective size / size",
            "seeds",
        )
        rows: list[list[Cell]] = []
        for line in grid.lines():
            for passes, losses in grid.repeated[line].items():
                subset = grid.subset.get(line, {}).get(passes, {})
                rows.append([
                    line[0], f"{line[1]:g}", f"{passes:g}", _text(losses), _text(subset), _text(grid.excess(line, passes)),
                    _multiplier(scan, losses, grid.n_params[line[0]]), len(losses),
                ])  # fmt: skip
        yield Table(
            "cells", "Every cell", "Means over seeds with 95% t intervals; losses in nats a token.", _n(grid), columns, rows
        )  # fmt: skip
    if grid.control:
        rows = [
            [size, grid.n_params[size], _text(grid.control[size]), len(grid.control[size])]
            for size in _sizes(grid, set(grid.control))
        ]
        n = f"{sum(len(v) for v in grid.control.values())} runs"
        yield Table(
            "controls", "The control ladder", "Unique data only.", n, ("N", "non-embedding", "test loss", "seeds"), rows
        )  # fmt: skip


def _multiplier(scan: ControlScan | None, losses: Losses, n_params: int) -> str:
    if scan is None:
        return "no control law"
    found = effective_size(scan, n_params=n_params, losses=losses)
    return found.multiplier.text(digits=2) + (f" ({found.note})" if found.note else "")


def _cell(line: tuple[str, float]) -> Row:
    return {"size": line[0], "fraction": line[1]}


def _spread(losses: Losses) -> Row:
    """Mean and interval over seeds; with one seed no interval."""
    found: Estimate = t_interval(list(losses.values()))
    return {"loss": found.value, "low": found.low, "high": found.high, "seeds": len(losses)} if found.n > 1 else {
        "loss": found.value, "low": found.value, "high": found.value, "seeds": 1,
    }  # fmt: skip


def _text(losses: Losses) -> str | None:
    if not losses:
        return None
    found = t_interval(list(losses.values()))
    return found.text() if found.n > 1 else f"{found.value:.3f}"


def _sizes(grid: Grid, among: set[str]) -> list[str]:
    return sorted(among, key=lambda size: grid.n_params[size])


def _size_series(grid: Grid) -> Series:
    order = tuple(_sizes(grid, {line[0] for line in grid.lines()}))
    return Series(column="size", title="non-embedding parameters", kind="sequence", order=order)


def _n(grid: Grid) -> str:
    cells = sum(len(by_passes) for by_passes in grid.repeated.values())
    runs = sum(len(losses) for by_passes in grid.repeated.values() for losses in by_passes.values())
    return f"{runs} treated runs in {cells} cells, {sum(len(v) for v in grid.control.values())} control runs"
