"""What repeated data costs, drawn: figures of the double-descent study."""

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from repetita.fit.effective_size import ControlScan, damage, effective_size
from repetita.fit.estimate import Estimate, t_interval
from repetita.report.figure import Axis, Figure, Layer, Panels, Row, Rule, Series
from repetita.studies._damage import Damage, Within
from repetita.studies._grid import Curve, Grid, Line, Losses, line_text, mean

PASSES = "passes E over the subset (log)"
LOSS = "test loss, nats a token"
INTERVAL = Layer(kind="interval", low="low", high="high")
LINE, POINT = Layer(kind="line"), Layer(kind="point")
INTERVALS = "Intervals: 95% t over seeds, where there are several."


def figures(
    grid: Grid,
    *,
    found: Sequence[Damage],
    curves: Sequence[Curve],
    within: Sequence[Within],
    scan: ControlScan | None,
    horizons: Mapping[str, Grid],
    arms: Mapping[str, Grid],
) -> Iterator[Figure]:
    """The figures that the measurements allow, in the order of the page."""
    if grid.repeated:
        yield loss_by_passes(grid)
    yield from learning_curves(curves, within=within)
    if grid.subset and grid.repeated:
        yield memorized_subset(grid)
    if any(grid.excess(line, passes) for line in grid.lines() for passes in grid.repeated[line]):
        yield damage_split(grid)
    if len(grid.control) > 1:
        yield control_law(grid, found=found, scan=scan)
    if scan is not None and grid.repeated:
        yield from multipliers(grid, scan=scan)
    drawn = {name: at for name, at in horizons.items() if at.repeated}
    if drawn:
        yield by_horizon(drawn)
    compared = {name: at for name, at in arms.items() if at.repeated}
    if len(compared) > 1:
        yield by_arm(compared)


def loss_by_passes(grid: Grid) -> Figure:
    """Final loss against passes, the control's loss as a line of its own."""
    rows = _cells(grid)
    shares = sorted({line[1] for line in grid.lines()})
    rules: list[Rule] = []
    guess = math.log(grid.vocab_size)
    for share in shares:
        own = _controls(grid, {line[0] for line in grid.lines() if line[1] == share})
        if max(float(row["high"] or 0) for row in rows if row["fraction"] == share) > guess:
            own.append(Rule(axis="y", at=guess, label="ln V: a uniform guess"))
        rules += [rule.edit(panel=f"f = {share:g}") if len(shares) > 1 else rule for rule in own]
    return Figure(
        name="loss-by-passes",
        title="Final test loss over passes",
        caption="Final test loss when a fraction f of the training slots re-reads a subset, against the "
        "number of passes over it. The tokens are the same everywhere: more passes mean a smaller subset. "
        "One pass would be the control (horizontal line of the same colour). Every panel has a loss axis of "
        f"its own: humps differ a hundredfold in height, so mind the numbers. {INTERVALS}",
        n=count_text(grid),
        rows=tuple(rows),
        x=Axis(column="passes", title=PASSES, scale="log"),
        y=Axis(column="loss", title=LOSS),
        series=_size_series(grid),
        panels=Panels(column="share", title="", share="x") if len(shares) > 1 else None,
        layers=(INTERVAL, LINE, POINT),
        rules=tuple(rules),
        tooltip=("seeds",),
    )


def learning_curves(curves: Sequence[Curve], *, within: Sequence[Within]) -> Iterator[Figure]:
    """Test loss over training, a figure for each fraction, of the size that was judged or most run."""
    repeated = [one for one in curves if one.arm == "repeated" and one.seed == 0]
    if not repeated:
        return
    judged = [one.curve.size for one in within] or [one.size for one in repeated]
    size = max(sorted(set(judged)), key=judged.count)
    for fraction in sorted({one.fraction or 0.0 for one in repeated if one.size == size}):
        treated = [one for one in repeated if one.size == size and one.fraction == fraction]
        schedules = {one.schedule for one in treated}
        control = [
            one
            for one in curves
            if (one.arm, one.size, one.seed) == ("control", size, 0) and one.schedule in schedules
        ]
        rows = [
            {"rate": f"{one.schedule} rate", "arm": _arm(one), "tokens": tokens, "loss": loss}
            for one in [*control, *treated]
            for tokens, loss in zip(one.tokens, one.loss, strict=True)
        ]
        order = tuple(f"{passes:.4g} passes" for passes in sorted({one.passes or 0.0 for one in treated}))
        yield Figure(
            name=f"learning-curves-f{100 * fraction:.0f}",
            title=f"Test loss over training, f = {fraction:g}",
            caption=f"N = {size}, seed 0. The paper sees the loss of some runs fall, rise while the subset "
            "is memorized, and fall again. At a cosine rate the last fall may be the schedule's.",
            n=f"{len(treated)} treated runs and {len(control)} control runs, one seed",
            rows=tuple(rows),
            x=Axis(column="tokens", title="training tokens (log scale)", scale="log"),
            y=Axis(column="loss", title=LOSS),
            series=Series(
                column="arm", title="passes", kind="sequence", order=("control", *order), muted=("control",)
            ),
            panels=Panels(column="rate", title="", share="both") if len(schedules) > 1 else None,
            layers=(LINE,),
        )


def _arm(curve: Curve) -> str:
    return "control" if curve.passes is None else f"{curve.passes:.4g} passes"


def memorized_subset(grid: Grid) -> Figure:
    """Loss on the repeated subset beside the test loss: the marker."""
    rows: list[Row] = []
    for line in grid.lines():
        sets = (("test set", grid.repeated[line]), ("repeated subset", grid.subset.get(line, {})))
        for name, table in sets:
            for passes, losses in table.items():
                rows.append({"line": line_text(line), "on": name, "passes": passes, **spread(losses)})
    return Figure(
        name="subset-memorized",
        title="Loss on the repeated subset beside the test loss",
        caption="Both at the end of training. The paper offers the subset's loss approaching zero as the "
        f"sign that one is in the damaging range. {INTERVALS}",
        n=count_text(grid),
        rows=tuple(rows),
        x=Axis(column="passes", title=PASSES, scale="log"),
        y=Axis(column="loss", title="loss, nats a token", start="zero"),
        series=Series(column="on", title="measured on", order=("repeated subset", "test set")),
        panels=_line_panels(grid),
        layers=(INTERVAL, LINE, POINT),
        tooltip=("seeds",),
    )


def damage_split(grid: Grid) -> Figure:
    """Excess loss, and the part that the displaced unique data explains."""
    rows: list[Row] = []
    for line in grid.lines():
        control, starved = grid.control.get(line[0], {}), grid.starved.get(line, {})
        for passes, losses in grid.repeated[line].items():
            parts: dict[str, Estimate] = {}
            if set(losses) & set(control) & set(starved):
                found = damage(repeated=losses, starved=starved, control=control)
                parts = {
                    "total damage": found.total,
                    "interference": found.interference,
                    "starvation": found.starvation,
                }
            elif grid.excess(line, passes):
                parts = {"total damage": t_interval(list(grid.excess(line, passes).values()))}
            cell: Row = {"line": line_text(line), "passes": passes}
            rows += [{**cell, "part": name, **drawn(part)} for name, part in parts.items()]
    return Figure(
        name="damage-split",
        title="Damage = starvation + interference",
        caption="Excess over the control, in nats, paired by seed. Starvation: a run with the same steps "
        "whose repeated slots are empty, so that it lacks the unique data only. Interference: what "
        f"re-reading costs on top; below zero, re-reading helps. {INTERVALS}",
        n=count_text(grid),
        rows=tuple(rows),
        x=Axis(column="passes", title=PASSES, scale="log"),
        y=Axis(column="loss", title="excess test loss, nats a token"),
        series=Series(column="part", title="part", order=("total damage", "interference", "starvation")),
        panels=_line_panels(grid),
        layers=(INTERVAL, LINE, POINT),
        rules=(Rule(axis="y", at=0.0, label="control"),),
        tooltip=("seeds",),
    )


def control_law(grid: Grid, *, found: Sequence[Damage], scan: ControlScan | None) -> Figure:
    """Control loss against size with its law, and the treated runs at their peaks."""
    rows: list[Row] = []
    for size in sorted(grid.control, key=lambda size: grid.n_params[size]):
        n_params = grid.n_params[size]
        law = None if scan is None else float(scan.law.predict(n_params))
        cell: Row = {"kind": "control", "size": size, "n_params": n_params, "law": law}
        rows.append({**cell, **spread(grid.control[size])})
    for one in found:
        cell = {"kind": f"f = {one.line[1]:g}, worst passes", "size": one.line[0], "law": None}
        at_peak = grid.repeated[one.line][one.hump.peak]
        rows.append({**cell, "n_params": grid.n_params[one.line[0]], **spread(at_peak)})
    kinds = tuple(dict.fromkeys(row["kind"] for row in rows))
    missed = ""
    if scan is not None:
        worst = float(np.max(np.abs(scan.law.predict(scan.sizes) - scan.means)))
        missed = f" The law misses the mean of a control size by {worst:.3f} nats at most."
    return Figure(
        name="control-law",
        title="The control ladder, and where the worst runs fall",
        caption="Test loss of runs on unique data only, by size, with the fitted power law (dashed); "
        "coloured: treated runs at the passes with the highest loss over seeds. Read across to the law for "
        f"their effective size.{missed} {INTERVALS}",
        n=f"{sum(len(v) for v in grid.control.values())} control runs of {len(grid.control)} sizes",
        rows=tuple(rows),
        x=Axis(column="n_params", title="non-embedding parameters N (log scale)", scale="log"),
        y=Axis(column="loss", title=f"{LOSS} (log scale)", scale="log"),
        series=Series(column="kind", title="runs", order=kinds),
        layers=(
            INTERVAL,
            POINT,
            *((Layer(kind="line", y="law", dash="dashed"),) if scan is not None else ()),
        ),
        tooltip=("size", "seeds"),
    )


def multipliers(grid: Grid, *, scan: ControlScan) -> Iterator[Figure]:
    """Effective size over size, where the ladder reaches it."""
    rows: list[Row] = []
    for line in grid.lines():
        for passes, losses in grid.repeated[line].items():
            ratio = _size(scan, grid, line, losses)
            if (told := sized(ratio)) is not None:
                rows.append({**_named(line), "passes": passes, **told})
    if not rows:
        return
    fractions = {row["fraction"] for row in rows}
    yield Figure(
        name="size-multiplier",
        title="Effective size",
        caption="Size of the control model with the same test loss, divided by the size of the model itself. "
        "A run worse than every control is a bound without a point, an interval open below; a loss above "
        "ln V has no effective size and is left out (see the table). Read between neighbouring controls, not "
        "from their law, so that a run as good as its control has 1. Intervals join the seeds' with the "
        "controls' own; one that leaves the ladder is open and runs to the edge.",
        n=count_text(grid),
        rows=tuple(rows),
        x=Axis(column="passes", title=PASSES, scale="log"),
        y=Axis(column="multiplier", title="effective size / size (log scale)", scale="log"),
        series=_size_series(grid),
        panels=Panels(column="share", title="", share="both") if len(fractions) > 1 else None,
        layers=(INTERVAL, POINT),  # A line would run straight through what is left out, the worst.
        rules=(Rule(axis="y", at=1.0, label="no damage"),),
        tooltip=("seeds",),
    )


def _size(scan: ControlScan, grid: Grid, line: Line, losses: Losses) -> Estimate:
    found = effective_size(scan, n_params=grid.n_params[line[0]], losses=losses, method="interpolation")
    return found.multiplier


def by_horizon(horizons: Mapping[str, Grid]) -> Figure:
    """The hump at a quarter, half and all of a constant-rate run (experiment design, rule 25)."""
    rows: list[Row] = []
    for name, grid in horizons.items():
        for row in _cells(grid):
            line = line_text((str(row["size"]), float(row["fraction"] or 0)))
            rows.append({"horizon": name, "line": line, **row})
    last = list(horizons.values())[-1]
    several = len({row["line"] for row in rows}) > 1
    return Figure(
        name="peak-by-horizon",
        title="Is the peak a snapshot in mid-climb?",
        caption="The same runs at a constant learning rate, read at a quarter, a half and all of their "
        "tokens. E counts the passes of the whole run, so equal E means the same subset. A peak that moves "
        f"to larger subsets with time is a front of memorization passing through the grid. {INTERVALS}",
        n=f"constant-rate arm, {count_text(last)}",
        rows=tuple(rows),
        x=Axis(column="passes", title="passes E of the whole run (log scale)", scale="log"),
        y=Axis(column="loss", title=LOSS),
        series=Series(column="horizon", title="read at", kind="sequence", order=tuple(horizons)),
        panels=Panels(column="line", title="", share="both") if several else None,
        layers=(INTERVAL, LINE, POINT),
        tooltip=("seeds",),
    )  # fmt: skip


def by_arm(arms: Mapping[str, Grid]) -> Figure:
    """The main fraction under other learning rates and on another corpus, a panel each."""
    rows: list[Row] = [{"arm": name, **row} for name, grid in arms.items() for row in _cells(grid)]
    sizes = {name: {line[0] for line in grid.lines()} for name, grid in arms.items()}
    rules = [rule.edit(panel=name) for name, grid in arms.items() for rule in _controls(grid, sizes[name])]
    n_params = {size: n for grid in arms.values() for size, n in grid.n_params.items()}
    order = tuple(sorted(set().union(*sizes.values()), key=lambda size: n_params[size]))
    shares = sorted({line[1] for grid in arms.values() for line in grid.lines()})
    return Figure(
        name="loss-by-arm",
        title="The same at other learning rates and on another corpus",
        caption=f"Final test loss over passes, f = {', '.join(f'{share:g}' for share in shares)}; horizontal "
        f"lines are the controls of the same arm. {INTERVALS}",
        n="; ".join(f"{name}: {count_text(grid)}" for name, grid in arms.items()),
        rows=tuple(rows),
        x=Axis(column="passes", title=PASSES, scale="log"),
        y=Axis(column="loss", title=LOSS),
        series=Series(column="size", title="non-embedding parameters", kind="sequence", order=order),
        panels=Panels(column="arm", title="", order=tuple(arms), share="x"),
        layers=(INTERVAL, LINE, POINT),
        rules=tuple(rules),
        tooltip=("seeds",),
    )


def count_text(grid: Grid, /) -> str:
    """How many runs stand behind a figure or table."""
    cells = sum(len(by_passes) for by_passes in grid.repeated.values())
    runs = sum(len(losses) for by_passes in grid.repeated.values() for losses in by_passes.values())
    controls = sum(len(losses) for losses in grid.control.values())
    starved = sum(len(losses) for losses in grid.starved.values())
    return f"{runs} treated runs in {cells} cells, {controls} control runs, {starved} starved runs"


def spread(losses: Losses, /) -> Row:
    """Mean and interval over seeds; one seed has an interval of no length."""
    return drawn(t_interval(list(losses.values())))


def drawn(found: Estimate, /, *, value: str = "loss") -> Row:
    """Columns of an estimate: the value, its interval, its seeds."""
    low, high = (found.value, found.value) if found.n < 2 else (found.low, found.high)
    return {value: found.value, "low": low, "high": high, "seeds": found.n}


def sized(found: Estimate, /) -> Row | None:
    """Columns of an effective size over size; an upper bound alone is an open interval without a point.

    None where nothing is known, or no more than a bound that does not exclude a size as good as new.
    """
    if found.value is not None:
        return drawn(found, value="multiplier")
    if found.high is None or found.high >= 1:
        return None
    return {"multiplier": None, "low": found.low, "high": found.high, "seeds": found.n}


def _cells(grid: Grid) -> list[Row]:
    return [
        {**_named(line), "passes": passes, **spread(losses)}
        for line in grid.lines()
        for passes, losses in grid.repeated[line].items()
    ]


def _controls(grid: Grid, sizes: set[str]) -> list[Rule]:
    """The control's mean loss of each size, as a line of the size's colour."""
    there = sorted(sizes & set(grid.control), key=lambda size: grid.n_params[size])
    return [
        Rule(axis="y", at=mean(grid.control[size]), label=f"control {size}", series=size) for size in there
    ]


def _line_panels(grid: Grid) -> Panels | None:
    lines = tuple(line_text(line) for line in grid.lines())
    return Panels(column="line", title="", order=lines, share="both") if len(lines) > 1 else None


def _named(line: Line) -> Row:
    return {"size": line[0], "fraction": line[1], "share": f"f = {line[1]:g}"}


def _size_series(grid: Grid) -> Series:
    order = tuple(
        dict.fromkeys(line[0] for line in sorted(grid.lines(), key=lambda at: grid.n_params[at[0]]))
    )
    return Series(column="size", title="non-embedding parameters", kind="sequence", order=order)
