"""T(N, tau) over learning rates, drawn and in numbers."""

from collections.abc import Hashable, Iterator, Mapping, Sequence

import numpy as np

from repetita.fit.estimate import t_interval
from repetita.fit.times_to_memorize import Bound, Slope, bound_of, over_seeds
from repetita.report.figure import Axis, Cell, Figure, Layer, Panels, Row, Rule, Series, Style
from repetita.report.page import Table
from repetita.studies._rates import RateGrid
from repetita.studies._speed import CAUSAL, TAUS, Cells, Key, Run
from repetita.studies._speed_claims import HIGH
from repetita.studies._speed_figures import (
    INTERVAL,
    LINE,
    N_TITLE,
    PASSES,
    POINT,
    REACHED_LINE,
    count_text,
    reached_style,
    sizes_series,
    time_row,
)
from repetita.studies._speed_levels import KNOWN, slope_row

RATE = "peak learning rate (log scale)"
BOUNDS = dict(
    zip(
        KNOWN.values(),
        ("known", "an upper bound: runs ended before tau", "a lower bound: runs ended before tau"),
        strict=True,
    )
)
"""What is said of a curvature where a slope over sizes would be said to be known, or a bound."""


def figures(
    found: Cells, *, rates: Mapping[str, float], there: RateGrid | None, window: int
) -> Iterator[Figure]:
    """T over rates with the fitted quadratics; sensitivity by size; M(f) over passes at each rate."""
    yield times(found, rates=rates, there=there, window=window)
    rows = [] if there is None else list(_sensitivity_rows(there))
    if there is not None and rows:
        yield sensitivity(rows, count_text(found), n_seeds=len(there.seeds))
    yield curves(found, rates=rates)


def times(found: Cells, *, rates: Mapping[str, float], there: RateGrid | None, window: int) -> Figure:
    """The paper's Fig. 5: T(N, 0.9) against the rate, a line for each size."""
    rows: list[Row] = []
    for key, runs in _by_rate(found, rates):
        crossings = {seed: run.times(HIGH, window=window)["passes"] for seed, run in runs.items()}
        row: Row = {"size": key.size, "rate": rates[key.arm], **time_row(crossings)}
        rows.append({**row, "fitted": _fitted(there, key.size, rates[key.arm])})
    return Figure(
        name="rate-time",
        title="Passes to memorize nine tenths, by learning rate and model size",
        caption=f"T(N, {HIGH:g}): passes over the training set until M(f) is {HIGH:g} and stays so for "
        f"{window:,} tokens. Where runs ended before that, the point is the end of the runs and what is "
        "shown is a lower bound, open upwards. Dotted: the quadratic of ln T in log2 rate, fitted to each "
        "seed that has every rate (mean over these seeds). Intervals: 95% t on the log scale over seeds, "
        "where there are several.",
        n=count_text(found),
        rows=tuple(rows),
        x=Axis(column="rate", title=RATE, scale="log"),
        y=Axis(column="value", title=f"passes T(N, {HIGH:g}) (log scale)", scale="log"),
        series=sizes_series(found),
        style=reached_style(rows),
        layers=(INTERVAL, Layer(kind="line", y="fitted", dash="dotted"), REACHED_LINE, POINT),
        tooltip=("seeds", "seeds_reached"),
    )


def sensitivity(rows: Sequence[Row], n: str, *, n_seeds: int) -> Figure:
    """Curvature of ln T in log2 rate against N."""
    known = tuple(text for text in BOUNDS.values() if any(row["known"] == text for row in rows))
    return Figure(
        name="rate-sensitivity",
        title="Sensitivity to the learning rate, by model size",
        caption="Curvature c of ln T(N, 0.9) in log2 of the rate: at half and at double the best rate T is "
        "exp(c) times as long, where the quadratic holds; 0 is no dependence. A run that ended before tau "
        f"enters as such. Over the {n_seeds} seed{'s' if n_seeds > 1 else ''} with every rate; 95% t "
        "intervals where there are several.",
        n=n,
        rows=tuple(rows),
        x=Axis(column="n_params", title=N_TITLE, scale="log"),
        y=Axis(column="value", title="curvature of ln T in log2 rate"),
        style=Style(column="known", title="curvature is", order=known) if len(known) > 1 else None,
        layers=(INTERVAL, Layer(kind="line", y="line"), POINT),
        rules=(Rule(axis="y", at=0.0, label="the rate does not matter"),),
        tooltip=("size", "seeds"),
    )


def curves(found: Cells, *, rates: Mapping[str, float]) -> Figure:
    """M(f) over passes at each rate, a panel a size."""
    rows: list[Row] = []
    for key, runs in _by_rate(found, rates):
        # Equal cadences and lengths within a cell: the states of its seeds are the same.
        some = next(iter(runs.values())).progress
        mean = np.mean([run.progress.memorized for run in runs.values()], axis=0)
        for passes, value in zip(some.passes, mean, strict=True):
            if passes > 0:
                rows.append({
                    "panel": f"N = {key.size}", "rate": f"{rates[key.arm]:g}", "passes": float(passes),
                    "value": float(value), "seeds": len(runs),
                })  # fmt: skip
    order = tuple(f"{rate:g}" for rate in dict.fromkeys(rates.values()))
    return Figure(
        name="rate-memorized",
        title="Memorized share over training, by learning rate",
        caption="M(f), the share of tokens of the whole training set whose argmax is right, teacher-forced, "
        "after so many passes. Mean over seeds. A rate that is too high leaves a model at guessing by "
        "frequency; one that is too low is late.",
        n=count_text(found),
        rows=tuple(rows),
        x=Axis(column="passes", title=PASSES, scale="log"),
        y=Axis(column="value", title="memorized share M(f)", domain=(0.0, 1.0)),
        series=Series(column="rate", title="peak rate", kind="sequence", order=order),
        panels=Panels(column="panel", title="", share="y"),
        layers=(LINE,),
        tooltip=("seeds",),
        height=220,
    )


def tables(
    found: Cells, *, rates: Mapping[str, float], there: RateGrid | None, window: int
) -> Iterator[Table]:
    """T by size, rate and tau; curvature, best rate and what its neighbours cost."""
    rows: list[list[Cell]] = []
    for key, runs in _by_rate(found, rates):
        shown = [
            over_seeds({seed: run.times(tau, window=window)["passes"] for seed, run in runs.items()}).text()
            for tau in TAUS[CAUSAL]
        ]
        end = float(np.mean([run.progress.memorized[-1] for run in runs.values()]))
        rows.append([key.size, rates[key.arm], *shown, f"{end:.3f}", len(runs)])
    yield Table(
        "rate-times", "T(N, tau) by learning rate",
        "Passes until M(f) reaches tau and stays there. Geometric means over seeds with 95% t intervals; "
        "`above`: some seed ended before.",
        count_text(found),
        ("N", "rate", *(f"tau = {tau:g}" for tau in TAUS[CAUSAL]), "M(f), end", "seeds"),
        rows,
    )  # fmt: skip
    if there is not None:
        yield _sensitivities(there, count_text(found))


def _sensitivities(there: RateGrid, n: str) -> Table:
    rows: list[list[Cell]] = []
    for size in there.sizes:
        bends = [there.bend(size, seed) for seed in there.seeds]
        fits = [one for one in bends if one is not None]
        found = [one for one in (there.detour(size, seed) for seed in there.seeds) if one is not None]
        inside = [one.best for one in fits if one.best is not None]
        rows.append([
            size,
            _text([one.curvature for one in fits], of=len(there.seeds)),
            _rate_text(inside) if len(inside) == len(there.seeds) else "outside these rates",
            _rate_text([one.best for one in found]) if found else "none reaches tau",
            _text([one.half for one in found if one.half is not None], of=len(there.seeds), ratio=True),
            _text([one.double for one in found if one.double is not None], of=len(there.seeds), ratio=True),
        ])  # fmt: skip
    return Table(
        "rate-sensitivities", "Sensitivity to the learning rate",
        f"Of T(N, {HIGH:g}) over the seeds that have every rate. Curvature of ln T in log2 rate and the rate "
        "at the bottom of that quadratic; the best of the rates that were run; T at half and at double that "
        "rate over T at it, as measured (none where that rate was not run). 95% t intervals over seeds, "
        "where there are several.",
        n,
        ("N", "curvature", "best rate, fitted", "best rate, measured", "T at half / best",
         "T at double / best"),
        rows,
    )  # fmt: skip


def _text(found: Sequence[Slope], *, of: int, ratio: bool = False) -> str | None:
    """A mean over seeds in words; None where some seed has no such number."""
    if len(found) < of:
        return None
    values = np.exp([one.value for one in found]) if ratio else [one.value for one in found]
    spread = t_interval(values, scale="log" if ratio else "linear")
    bound = bound_of(found)
    if bound != "exact":
        words: Mapping[Bound, str] = {"at_least": "at least ", "at_most": "at most "}
        return f"{words[bound]}{spread.value:.3g}" if bound in words else "undetermined"
    return spread.text() if spread.n > 1 else f"{spread.value:.3g}"


def _rate_text(rates: Sequence[float]) -> str:
    return f"{np.exp(np.mean(np.log(rates))):.2g}"


def _sensitivity_rows(there: RateGrid) -> Iterator[Row]:
    for size, n_params in zip(there.sizes, there.n_params, strict=True):
        fits = [one for one in (there.bend(size, seed) for seed in there.seeds) if one is not None]
        if len(fits) < len(there.seeds):
            continue
        row = slope_row([one.curvature for one in fits])
        if row is not None:
            yield {"size": size, "n_params": n_params, **row, "known": BOUNDS[str(row["known"])]}


def _fitted(there: RateGrid | None, size: str, rate: float) -> float | None:
    if there is None:
        return None
    fits = [one for one in (there.bend(size, seed) for seed in there.seeds) if one is not None]
    return float(np.exp(np.mean([np.log(one.time(rate)) for one in fits]))) if fits else None


def _by_rate(found: Cells, rates: Mapping[str, float]) -> list[tuple[Key, Mapping[Hashable, Run]]]:
    """The cells by size, then rate."""

    def place(key: Key) -> tuple[int, float]:
        return next(iter(found[key].values())).n_params, rates[key.arm]

    return [(key, found[key]) for key in sorted((key for key in found if key.arm in rates), key=place)]
