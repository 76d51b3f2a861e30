"""T(N, tau) over training sets and M(f) on their common sequences, drawn and in numbers."""

from collections.abc import Hashable, Iterator, Mapping, Sequence

import numpy as np

from repetita.fit.estimate import t_interval
from repetita.fit.times_to_memorize import Unit, over_seeds
from repetita.report.figure import Axis, Cell, Figure, Layer, Panels, Row, Rule, Series, Style
from repetita.report.page import Table
from repetita.studies._set_sizes import TAU, Horizon, SetGrid, Shared, shared_at
from repetita.studies._speed import CAUSAL, TAUS, Cells, Key, Run
from repetita.studies._speed_figures import (
    BAND,
    INTERVAL,
    LINE,
    POINT,
    REACHED_LINE,
    count_text,
    reached_style,
    sizes_series,
    time_row,
)
from repetita.studies._speed_levels import KNOWN, slope_row

SEQUENCES = "sequences of the training set (log scale)"
UNITS: Mapping[Unit, str] = {"passes": "in passes", "updates": "in updates"}
WAYS: Mapping[Unit, str] = {"passes": "after passes", "updates": "after updates"}


def figures(found: Cells, *, there: SetGrid | None, known: Shared, window: int) -> Iterator[Figure]:
    """T over set sizes; M(f) on the common sequences; how much model size matters on each set."""
    yield times(found, window=window)
    rows = list(_shared_rows(found, known))
    if rows:
        yield common(rows, found)
    slopes = [] if there is None else list(_slope_rows(there))
    if slopes:
        yield slope_by_set(slopes, found)


def times(found: Cells, *, window: int) -> Figure:
    """T(N, 0.5) against the size of the set, by passes and by updates."""
    rows: list[Row] = []
    for unit, title in UNITS.items():
        for key, runs in found.items():
            crossings = {seed: run.times(TAU, window=window)[unit] for seed, run in runs.items()}
            rows.append({"size": key.size, "n": key.n_sequences, "unit": title, **time_row(crossings)})
    return Figure(
        name="set-time",
        title="Time to memorize half of the training set, by its size",
        caption=f"T(N, {TAU:g}): until M(f) on the whole training set reaches {TAU:g} and stays there for "
        f"{window:,} tokens, in passes over the set and in updates of one batch size. Within a seed the "
        "smaller sets are part of the larger ones. Where runs ended before that, the point is the end of "
        "the runs and what is shown is a lower bound, open upwards. Intervals: 95% t on the log scale over "
        "seeds, where there are several.",
        n=count_text(found),
        rows=tuple(rows),
        x=Axis(column="n", title=SEQUENCES, scale="log"),
        y=Axis(column="value", title=f"T(N, {TAU:g}) (log scale)", scale="log"),
        series=sizes_series(found),
        style=reached_style(rows),
        panels=Panels(column="unit", title="", order=tuple(UNITS.values()), share="x"),
        layers=(INTERVAL, REACHED_LINE, POINT),
        tooltip=("seeds", "seeds_reached"),
    )


def common(rows: Sequence[Row], found: Cells) -> Figure:
    """M(f) on the sequences of the smallest set, by the size of the set that was trained on."""
    sets = tuple(sorted({key.n_sequences for key in found}))
    panels = tuple(dict.fromkeys(str(row["panel"]) for row in rows))
    return Figure(
        name="set-common",
        title="Memory of the same sequences, in training sets of several sizes",
        caption=f"M(f) on the {sets[0]} sequences that are in every training set of a seed, after equal "
        "passes (each sequence was read equally often) and after equal updates (equal compute). Band: 95% t "
        "interval over seeds, where there are several.",
        n=count_text(found),
        rows=tuple(rows),
        x=Axis(column="at", title="passes, or updates (log scale)", scale="log"),
        y=Axis(column="value", title="M(f) on the common sequences", domain=(0.0, 1.0)),
        series=Series(column="n", title="sequences of the set", kind="sequence", order=sets),
        panels=Panels(column="panel", title="", order=panels, share="y"),
        layers=(BAND, LINE),
        tooltip=("seeds",),
        height=220,
    )


def slope_by_set(rows: Sequence[Row], found: Cells) -> Figure:
    """The interaction: slope of ln T on ln N against the size of the set."""
    bounds = tuple(text for text in KNOWN.values() if any(row["known"] == text for row in rows))
    sizes = rows[0]["sizes"]
    return Figure(
        name="set-slope",
        title="How much model size matters, by size of the training set",
        caption=f"Slope of ln T(N, {TAU:g}) on ln N over the sizes that every set has ({sizes}): below 0 "
        "larger models need fewer passes. Where runs ended before that level it is a bound. 95% t intervals "
        "over seeds, where there are several.",
        n=count_text(found),
        rows=tuple(rows),
        x=Axis(column="n", title=SEQUENCES, scale="log"),
        y=Axis(column="value", title="slope of ln T on ln N"),
        style=Style(column="known", title="known", order=bounds) if len(bounds) > 1 else None,
        layers=(INTERVAL, Layer(kind="line", y="line"), POINT),
        rules=(Rule(axis="y", at=0.0, label="size does not matter"),),
        tooltip=("seeds",),
    )


def tables(found: Cells, *, known: Shared, at: Horizon, window: int) -> Iterator[Table]:
    """T by set, size and tau; M(f) on the common sequences after equal passes and updates."""
    rows: list[list[Cell]] = []
    for key, runs in found.items():
        for tau in TAUS[CAUSAL]:
            by_unit = [
                {seed: run.times(tau, window=window)[unit] for seed, run in runs.items()} for unit in UNITS
            ]
            reached = sum(one.reached for one in by_unit[0].values())
            shown = [over_seeds(one).text() for one in by_unit]
            rows.append([key.n_sequences, key.size, tau, *shown, f"{reached} of {len(runs)}"])
    yield Table(
        "set-times", "T(N, tau) by size of the training set",
        "Until M(f) on the whole training set reaches tau and stays there. Geometric means over seeds with "
        "95% t intervals; `above`: some seed ended before.",
        count_text(found),
        ("sequences", "N", "tau", *UNITS.values(), "seeds that reach it"),
        rows,
    )  # fmt: skip
    fixed: list[list[Cell]] = []
    for key, runs in found.items():
        test = float(np.mean([run.test.value[-1] for run in runs.values()]))
        ways = [_mean_text(runs, known, at, unit) for unit in WAYS]
        fixed.append([key.n_sequences, key.size, *ways, f"{test:.3f}", len(runs)])
    yield Table(
        "set-common-sizes", "M(f) on the common sequences",
        "On the sequences that are in every training set of a seed, after equal passes and equal updates "
        "(none where runs are shorter); at the end the accuracy on the test set, never trained on. 95% t "
        "intervals over seeds.",
        count_text(found),
        ("sequences", "N", f"after {at.passes:g} passes", f"after {at.updates:,.0f} updates",
         "test set, end", "seeds"),
        fixed,
    )  # fmt: skip


def _mean_text(runs: Mapping[Hashable, Run], known: Shared, at: Horizon, unit: Unit) -> str | None:
    limit = at.passes if unit == "passes" else at.updates
    values = [
        value
        for run in runs.values()
        if run.progress.along(unit)[-1] >= limit and (value := shared_at(run, known, at, unit)) is not None
    ]
    if not values:
        return None
    return t_interval(values).text() if len(values) > 1 else f"{values[0]:.3f}"


def _shared_rows(found: Cells, known: Shared) -> Iterator[Row]:
    """Curves of the sizes that have runs on more than one set."""
    sets = {key.size: {other.n_sequences for other in found if other.size == key.size} for key in found}
    order = sorted((key for key in found if len(sets[key.size]) > 1), key=lambda key: _n_params(found, key))
    for way, title in WAYS.items():
        for key in order:
            curves = [(run, known[key, seed]) for seed, run in found[key].items() if (key, seed) in known]
            states = [set(points.updates) for _, points in curves]
            for updates in sorted(set.intersection(*states) - {0.0}) if states else ():
                spread = t_interval([float(points.at(updates)) for _, points in curves])
                alone, passes = spread.n < 2, curves[0][0].progress.at(updates).passes
                yield {
                    "panel": f"N = {key.size}, {title}",
                    "n": key.n_sequences,
                    "at": passes if way == "passes" else float(updates),
                    "value": spread.value,
                    "low": spread.value if alone else spread.low,
                    "high": spread.value if alone else spread.high,
                    "seeds": spread.n,
                }


def _slope_rows(there: SetGrid) -> Iterator[Row]:
    for n in there.sets:
        row = slope_row(list(there.on(n).slopes(TAU).values()))
        if row is not None:
            yield {"n": n, "sizes": ", ".join(there.sizes), **row}


def _n_params(found: Cells, key: Key) -> int:
    return next(iter(found[key].values())).n_params
