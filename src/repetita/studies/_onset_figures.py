"""What is memorized before a model overfits: figures and tables."""

import math
from collections.abc import Hashable, Iterator, Mapping

import numpy as np

from repetita.fit.estimate import t_interval
from repetita.fit.times_to_memorize import over_seeds
from repetita.report.figure import Axis, Cell, Figure, Panels, Row, Series, Style
from repetita.report.page import Table
from repetita.studies._onset import BEFORE, HOWS, SUSTAINED, SUSTAINED_PASSES, THAT, How, Run, Runs
from repetita.studies._speed_figures import (
    BAND,
    INTERVAL,
    LINE,
    N_TITLE,
    OPEN,
    PASSES,
    POINT,
    REACHED,
    REACHED_LINE,
    SIZE,
    spread_row,
    time_row,
)

SHOWN: Mapping[How, str] = {
    SUSTAINED: "before the rise that lasts",
    BEFORE: "pass before the first rise",
    THAT: "pass of the first rise",
}
THINNED = 60


def figures(found: Runs) -> Iterator[Figure]:
    """M(f) before overfitting by size (Fig. 4), and validation perplexity along the passes."""
    if found:
        yield before(found)
        yield validation(found)


def before(found: Runs) -> Figure:
    """M(f) just before overfitting against N, by three readings of `just before`."""
    rows: list[Row] = []
    for (objective, size), of in found.items():
        named: Row = {"objective": objective, "size": size, "n_params": _n(of)}
        for how in HOWS:
            share = {seed: run.before(how) for seed, run in of.items()}
            rows.append({**named, "how": SHOWN[how], **time_row(share)})
    reached = all(row["reached"] == REACHED for row in rows)
    return Figure(
        name="onset-memorized",
        title="Memorized share of the training set before overfitting",
        caption="M(f) on the training set where the model begins to overfit. The paper takes the first pass "
        "at whose end validation perplexity is higher than a pass before and does not say whether M(f) is "
        "that of this pass or of the one before. Beside it M(f) at the first look that all looks of the next "
        f"{SUSTAINED_PASSES:g} passes exceed, with several looks a pass. Where runs ended before "
        "that, the point is M(f) at their end and what is shown is a lower bound. Geometric mean over seeds; "
        "intervals: 95% t on the log scale, where there are several.",
        n=count_text(found),
        rows=tuple(rows),
        x=Axis(column="n_params", title=N_TITLE, scale="log"),
        y=Axis(column="value", title="M(f) before overfitting", start="zero"),
        series=Series(column="how", title="overfitting", order=tuple(SHOWN.values())),
        style=None if reached else Style(column="reached", title="overfitting was", order=(REACHED, OPEN)),
        panels=_objectives(found),
        layers=(INTERVAL, REACHED_LINE, POINT),
        tooltip=("size", "seeds", "seeds_reached"),
    )


def validation(found: Runs) -> Figure:
    """Validation perplexity by pass and size."""
    rows: list[Row] = []
    for (objective, size), of in found.items():
        states = sorted(set.intersection(*(set(run.loss.updates) for run in of.values())) - {0.0})
        for i in np.unique(np.linspace(0, len(states) - 1, THINNED).round().astype(int)) if states else ():
            values = [math.exp(np.interp(states[i], *run.loss)) for run in of.values()]
            named: Row = {"objective": objective, "size": size, "passes": float(states[i])}
            rows.append({**named, **spread_row(values, scale="log")})
    return Figure(
        name="onset-validation",
        title="Validation perplexity along the passes",
        caption="Perplexity a token on text that is never trained on, the same text at every look. It falls "
        "while the model learns from the small training set and rises when it overfits. Geometric mean over "
        "seeds; band: 95% t interval on the log scale, where there are several.",
        n=count_text(found),
        rows=tuple(rows),
        x=Axis(column="passes", title=PASSES, scale="log"),
        y=Axis(column="value", title="validation perplexity (log scale)", scale="log"),
        series=_sizes(found),
        panels=_objectives(found),
        layers=(BAND, LINE),
        tooltip=("seeds",),
    )


def tables(found: Runs) -> Iterator[Table]:
    """Onsets, what is memorized there, and what validation text has of it, by size."""
    if not found:
        return
    rows: list[list[Cell]] = []
    for (objective, size), of in found.items():
        for how in HOWS:
            onset = {seed: run.onset(how) for seed, run in of.items()}
            share = {seed: run.before(how) for seed, run in of.items()}
            excess = [value for run in of.values() if (value := run.excess(how)) is not None]
            rows.append([
                objective, size, SHOWN[how], over_seeds(onset).text(), over_seeds(share).text(),
                t_interval(excess).text() if excess else None,
                f"{sum(one.reached for one in onset.values())} of {len(of)}",
            ])  # fmt: skip
    yield Table(
        "onset-times", "Onset of overfitting, and M(f) there",
        "Passes over the training set until overfitting begins, by the paper's definition (the pass before "
        f"and that pass) and by the first look that all looks of the next {SUSTAINED_PASSES:g} passes "
        "exceed; M(f) there, and by how much it is above accuracy on validation text. Geometric means over "
        "seeds (means for the last) with 95% t intervals; `above`: some seed ended before.",
        count_text(found),
        ("models", "N", "read at", "passes", "M(f)", "M(f) minus validation accuracy", "seeds that overfit"),
        rows,
    )  # fmt: skip


def _n(of: Mapping[Hashable, Run]) -> int:
    return next(iter(of.values())).n_params


def _sizes(found: Runs) -> Series:
    n_params = {size: _n(of) for (_, size), of in found.items()}
    order = sorted(n_params, key=lambda size: n_params[size])
    return Series(column="size", title=SIZE, kind="sequence", order=tuple(order))


def _objectives(found: Runs) -> Panels | None:
    order = tuple(dict.fromkeys(objective for objective, _ in found))
    return Panels(column="objective", title="", order=order, share="x") if len(order) > 1 else None


def count_text(found: Runs, /) -> str:
    """How many seeds stand behind a figure or table."""
    counts = sorted({len(of) for of in found.values()})
    seeds = f"{counts[0]} to {counts[-1]}" if counts[0] < counts[-1] else str(counts[0])
    return f"{seeds} seed{'s' if counts[-1] > 1 else ''} a size"
