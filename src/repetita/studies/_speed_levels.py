"""The same runs read level by level: the slope of T against N at each tau, run lengths at equal M(f)."""

from collections.abc import Iterator, Mapping, Sequence

from repetita.fit.estimate import t_interval
from repetita.fit.times_to_memorize import Bound, Slope, bound_of
from repetita.report.figure import Axis, Figure, Layer, Row, Rule, Series, Style
from repetita.studies._speed import CAUSAL, MASKED, TAUS, Cells, common_seeds
from repetita.studies._speed_figures import BAND, INTERVAL, LENGTH_NAMES, LINE, POINT, SIZE, count_text
from repetita.studies._speed_ladder import Ladder

KNOWN: Mapping[Bound, str] = {
    "exact": "every size reaches tau",
    "at_most": "small sizes do not reach tau: an upper bound",
    "at_least": "large sizes do not reach tau: a lower bound",
}
MEASURED, SHUFFLED = "unit_length", "unit_length_shuffled"


def figures(found: Cells, *, window: int) -> Iterator[Figure]:
    """Slopes by tau where two sizes of an objective share a seed; lengths where any were measured."""
    slopes = list(_slope_rows(found, window=window))
    if slopes:
        yield slope_by_tau(slopes, found)
    lengths = list(_length_rows(found))
    if lengths:
        yield lengths_at_equal_m(lengths, found)


def slope_by_tau(rows: Sequence[Row], found: Cells) -> Figure:
    """At which share memorized size begins to matter: causal and masked models side by side."""
    bounds = [text for text in KNOWN.values() if any(row["known"] == text for row in rows)]
    return Figure(
        name="speed-slope-by-tau",
        title="How much size matters, by the share memorized",
        caption="Slope of ln T(N, tau) on ln N: below 0 larger models need fewer passes, above 0 more. The "
        "paper finds about 0 for causal models at low tau and a steep fall at high tau, and for masked "
        "models a rise at low tau that turns into a fall between tau = 0.6 and 0.7. Where runs ended before "
        "tau the slope is a bound. Intervals: 95% t over seeds, where there are several.",
        n=count_text(found),
        rows=tuple(rows),
        x=Axis(column="tau", title="tau, share of the training set memorized", domain=(0.0, 1.0)),
        y=Axis(column="value", title="slope of ln T on ln N"),
        series=Series(column="objective", title="models", order=(CAUSAL, MASKED)),
        style=Style(column="known", title="known", order=tuple(bounds)) if len(bounds) > 1 else None,
        layers=(INTERVAL, Layer(kind="line", y="line"), POINT),
        rules=(Rule(axis="y", at=0.0, label="size does not matter"),),
        tooltip=("seeds",),
    )


def lengths_at_equal_m(rows: Sequence[Row], found: Cells) -> Figure:
    """Run lengths of the smallest and the largest causal size against M(f) instead of passes."""
    sizes = tuple(dict.fromkeys(str(row["size"]) for row in rows))
    whats = (LENGTH_NAMES[MEASURED], LENGTH_NAMES[SHUFFLED])
    return Figure(
        name="speed-length-at-m",
        title="Memory unit length at equal M(f), smallest and largest causal model",
        caption="Mean length of the runs of memorized tokens against the share memorized, for two sizes as "
        "in the paper's Fig. 16, which shows both over passes: a larger model's runs are longer there since "
        "it has memorized more. Against M(f) what is left of the difference is seen. Dashed: the same hits "
        "shuffled in their sequences.",
        n=count_text({key: runs for key, runs in found.items() if key.size in sizes}),
        rows=tuple(rows),
        x=Axis(column="memorized", title="M(f)", domain=(0.0, 1.0)),
        y=Axis(column="value", title="mean run length, tokens (log scale)", scale="log"),
        series=Series(column="size", title=SIZE, kind="sequence", order=sizes),
        style=Style(column="what", title="hits", order=whats),
        layers=(BAND, LINE),
        tooltip=("seeds", "passes"),
    )


def _slope_rows(found: Cells, *, window: int) -> Iterator[Row]:
    for objective in (CAUSAL, MASKED):
        keys = [key for key in found if key.objective == objective]
        seeds = common_seeds(found, keys)
        if len(keys) < 2 or not seeds:
            continue
        there = Ladder(tuple(found[key] for key in keys), tuple(seeds), window)
        for tau in TAUS[objective]:
            row = slope_row(list(there.slopes(tau).values()))
            if row is not None:
                yield {"objective": objective, "tau": tau, **row}


def slope_row(slopes: Sequence[Slope], /) -> Row | None:
    """The mean over seeds and its interval, open on the side of a bound; None where nothing is known."""
    bound = bound_of(slopes)
    if bound == "unknown":
        return None
    spread = t_interval([slope.value for slope in slopes])
    low, high = (spread.value, spread.value) if spread.n < 2 else (spread.low, spread.high)
    return {
        "value": spread.value,
        "low": None if bound == "at_most" else low,
        "high": None if bound == "at_least" else high,
        "line": spread.value if bound == "exact" else None,
        "known": KNOWN[bound],
        "seeds": spread.n,
    }


def _length_rows(found: Cells) -> Iterator[Row]:
    keys = [key for key in found if key.objective == CAUSAL]
    for key in dict.fromkeys([*keys[:1], *keys[-1:]]):
        for metric in (MEASURED, SHUFFLED):
            runs = [run for run in found[key].values() if metric in run.lengths]
            # Where everything is memorized 1 / (1 - M) is not known, and every run is a whole sequence.
            states = [
                set(run.lengths[metric].updates) & set(run.lengths["independent"].updates) for run in runs
            ]
            for updates in sorted(set.intersection(*states) - {0.0}) if states else ():
                odds = [float(run.lengths["independent"].at(updates)) for run in runs]
                spread = t_interval([float(run.lengths[metric].at(updates)) for run in runs], scale="log")
                alone = spread.n < 2
                yield {
                    "size": key.size,
                    "what": LENGTH_NAMES[metric],
                    "memorized": sum(1 - 1 / odd for odd in odds) / len(odds),
                    "passes": runs[0].progress.at(updates).passes,
                    "value": spread.value,
                    "low": spread.value if alone else spread.low,
                    "high": spread.value if alone else spread.high,
                    "seeds": spread.n,
                }
