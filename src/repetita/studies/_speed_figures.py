"""How fast a training set is memorized, drawn: figures of the speed study."""

from collections.abc import Hashable, Iterator, Mapping, Sequence

import numpy as np

from repetita.corpus.masking import KINDS
from repetita.fit.estimate import Crossing, t_interval
from repetita.fit.times_to_memorize import UNITS, Unit, over_seeds
from repetita.report.figure import Axis, Figure, Layer, Panels, Row, Rule, Series, Style
from repetita.studies._speed import (
    ALL_TARGETS,
    CAUSAL,
    MASKED,
    TAUS,
    Cells,
    Key,
    Online,
    Run,
)

BAND, LINE, POINT = Layer(kind="band", low="low", high="high"), Layer(kind="line"), Layer(kind="point")
INTERVAL = Layer(kind="interval", low="low", high="high")
REACHED_LINE = Layer(kind="line", y="line")
"""Lower bounds are no line: nothing lies between them."""
SIZE, N_TITLE = "non-embedding parameters", "non-embedding parameters N (log scale)"
PASSES = "passes over the training set (log scale)"
ON = ("training set", "test set")
REACHED, OPEN = "reached in every seed", "not reached in some seed: a lower bound"
LENGTH_NAMES = {
    "unit_length": "measured",
    "unit_length_shuffled": "same hits, shuffled in their sequences",
    "independent": "1 / (1 - M)",
}
EQUAL = "equal"
THINNED = 48
"""Points of a curve of M_update: log-spaced in updates."""


def figures(found: Cells, *, online: Sequence[Online], window: int) -> Iterator[Figure]:
    """The figures that the measurements allow, in the order of the page; `found` are the standard cells."""
    yield memorized(found)
    yield times(found, window=window)
    in_units = list(_unit_rows(found, window=window))
    if {row["objective"] for row in in_units} == {CAUSAL, MASKED}:
        yield times_in_units(in_units, found)
    for objective in (CAUSAL, MASKED):
        rows = list(_length_rows(found, objective))
        if rows:
            yield unit_lengths(rows, found, objective)
    rows = list(_update_rows(found, online))
    if rows:
        yield updates_against_passes(rows, found)


def memorized(found: Cells) -> Figure:
    """M(f) over passes by size, and what the test set, never trained on, has of it."""
    rows: list[Row] = []
    for key, runs in found.items():
        some = next(iter(runs.values()))
        for on, values in (
            (ON[0], {seed: run.progress.memorized for seed, run in runs.items()}),
            (ON[1], {seed: run.test.at(run.progress.updates) for seed, run in runs.items()}),
        ):
            length = min(len(curve) for curve in values.values())
            for i in range(length):
                if some.progress.passes[i] > 0:
                    spread = spread_row([float(curve[i]) for curve in values.values()], "share")
                    passes = float(some.progress.passes[i])
                    rows.append({**_named(key), "on": on, "passes": passes, **spread})
    return Figure(
        name="speed-memorized",
        title="Memorized share of the training set, by model size",
        caption="M(f), the share of tokens of the whole training set whose argmax is right, "
        "teacher-forced, after so many passes over it; masked models are asked for every token once, each "
        "time shown the mask. Dashed: the same on the test set, which is what is predictable without "
        "having been seen: M(f) speaks of memory only where it is above. The first token of a sequence is "
        "predicted from nothing, so a causal M(f) ends a little below 1. Band: 95% t interval over seeds, "
        "where there are several, cut at 0 and 1.",
        n=count_text(found),
        rows=tuple(rows),
        x=Axis(column="passes", title=PASSES, scale="log"),
        y=Axis(column="value", title="memorized share M(f)", domain=(0.0, 1.0)),
        series=sizes_series(found),
        style=Style(column="on", title="measured on", order=ON),
        panels=_objectives(found),
        layers=(BAND, LINE),
        tooltip=("seeds",),
    )


def times(found: Cells, *, window: int) -> Figure:
    """T(N, tau) against N, log-log, a line for each tau."""
    rows: list[Row] = []
    for key, runs in found.items():
        for tau in TAUS[key.objective]:
            crossings = {seed: run.times(tau, window=window)["passes"] for seed, run in runs.items()}
            rows.append({**_named(key), "n_params": _n(runs), "tau": tau, **time_row(crossings)})
    return Figure(
        name="speed-time",
        title="Passes to memorize a share tau, by model size",
        caption=f"T(N, tau): passes over the training set until M(f) reaches tau and stays there for "
        f"{window:,} tokens. Where runs ended before that, the point is the end of the runs and what is "
        "shown is a lower bound, open upwards. Intervals: 95% t on the log scale over seeds, where there "
        "are several.",
        n=count_text(found),
        rows=tuple(rows),
        x=Axis(column="n_params", title=N_TITLE, scale="log"),
        y=Axis(column="value", title="passes T(N, tau) (log scale)", scale="log"),
        series=Series(column="tau", title="tau", kind="sequence"),
        style=reached_style(rows),
        panels=_objectives(found),
        layers=(INTERVAL, REACHED_LINE, POINT),
        tooltip=("size", "seeds", "seeds_reached"),
    )


def times_in_units(rows: Sequence[Row], found: Cells) -> Figure:
    """Causal and masked models on one axis: by passes, and by how often a token was a target."""
    tau = rows[0]["tau"]
    titles = tuple(dict.fromkeys(str(row["unit"]) for row in rows))
    return Figure(
        name="speed-time-in-units",
        title="The same time in passes and in target exposures",
        caption=f"Passes until M(f) reaches {tau:g} are not comparable between objectives: a masked model "
        "is asked for 15% of the tokens in each pass. A target exposure is one time that a position was a "
        "scored target, so that a pass is one exposure for a causal model and 0.15 for a masked one.",
        n=count_text(found),
        rows=tuple(rows),
        x=Axis(column="n_params", title=N_TITLE, scale="log"),
        y=Axis(column="value", title=f"T(N, {tau:g}) (log scale)", scale="log"),
        series=Series(column="objective", title="models", order=(CAUSAL, MASKED)),
        style=reached_style(rows),
        panels=Panels(column="unit", title="", order=titles, share="both"),
        layers=(INTERVAL, REACHED_LINE, POINT),
        tooltip=("size", "seeds", "seeds_reached"),
    )


def unit_lengths(rows: Sequence[Row], found: Cells, objective: str) -> Figure:
    """Mean length of runs of memorized tokens beside two null models."""
    keys = [key for key in found if key.objective == objective]
    length = max(
        run.progress.tokens[-1] / run.progress.passes[-1] for key in keys for run in found[key].values()
    )
    sequence = float(length / keys[0].n_sequences)
    return Figure(
        name="speed-unit-length" if objective == CAUSAL else f"speed-unit-length-{objective}",
        title=f"Memory unit length, {objective} models",
        caption="Mean length of the runs of consecutive memorized tokens, over all runs in the training "
        "set (runs end with their sequence). Beside it what the same number of hits in each sequence gives "
        "when they fall anywhere in it, and 1 / (1 - M), which knows neither sequences nor their ends."
        + (" Neighbours are asked under different masks." if objective == MASKED else ""),
        n=count_text({key: found[key] for key in keys}),
        rows=tuple(rows),
        x=Axis(column="passes", title=PASSES, scale="log"),
        y=Axis(column="value", title="mean run length, tokens (log scale)", scale="log"),
        series=Series(
            column="what", title="hits", order=tuple(LENGTH_NAMES.values()),
            muted=(LENGTH_NAMES["independent"],),
        ),
        panels=Panels(column="panel", title="", share="both") if len(keys) > 1 else None,
        layers=(BAND, LINE),
        rules=(Rule(axis="y", at=sequence, label="sequence"),),
        tooltip=("seeds",),
        height=220,
    )  # fmt: skip


def updates_against_passes(rows: Sequence[Row], found: Cells) -> Figure:
    """M_update against M(f) at the same number of updates."""
    panels = tuple(dict.fromkeys(str(row["panel"]) for row in rows))
    sizes = tuple(dict.fromkeys(key.size for key in found))
    return Figure(
        name="speed-m-update",
        title="Hits in training batches are not M(f)",
        caption="M_update, the share of hits in training batches before their update, summed over the last "
        "pass's worth of tokens, against M(f) from a full pass at the same number of updates. A batch was "
        "last trained on a pass before, so while M(f) rises M_update lags behind. For masked models it "
        "depends on what was shown in place of a target: the mask, a random token, or the token itself. "
        "Mean over seeds.",
        n=count_text(found),
        rows=tuple(rows),
        x=Axis(column="memorized", title="M(f), full passes", domain=(0.0, 1.0)),
        y=Axis(column="value", title="M_update, training batches", domain=(0.0, 1.0)),
        series=Series(column="size", title=SIZE, kind="sequence", order=(*sizes, EQUAL), muted=(EQUAL,)),
        panels=Panels(column="panel", title="", order=panels, share="both") if len(panels) > 1 else None,
        layers=(LINE,),
        tooltip=("seeds",),
    )


def _unit_rows(found: Cells, *, window: int) -> Iterator[Row]:
    """T at the highest tau of both grids that some masked run reaches, by unit."""
    common = sorted(set(TAUS[CAUSAL]) & set(TAUS[MASKED]), reverse=True)
    masked = [run for key, runs in found.items() if key.objective == MASKED for run in runs.values()]
    tau = next(
        (tau for tau in common if any(run.times(tau, window=window)["passes"].reached for run in masked)),
        common[-1],
    )
    titles: Mapping[Unit, str] = {"passes": "in passes", "exposures": "in target exposures"}
    for unit in UNITS:
        for key, runs in found.items() if unit in titles else ():
            crossings = {seed: run.times(tau, window=window)[unit] for seed, run in runs.items()}
            time = time_row(crossings)
            yield {**_named(key), "n_params": _n(runs), "tau": tau, "unit": titles[unit], **time}


def _length_rows(found: Cells, objective: str) -> Iterator[Row]:
    for key, runs in found.items():
        if key.objective != objective:
            continue
        for metric, what in LENGTH_NAMES.items():
            curves = [(run, run.lengths[metric]) for run in runs.values() if metric in run.lengths]
            shared = set.intersection(*(set(points.updates) for _, points in curves)) if curves else set()
            for updates in sorted(shared - {0.0}):
                spread = spread_row([float(points.at(updates)) for _, points in curves], scale="log")
                passes = _passes(curves[0][0], updates)
                yield {**_named(key), "panel": f"N = {key.size}", "what": what, "passes": passes, **spread}


def _update_rows(found: Cells, online: Sequence[Online]) -> Iterator[Row]:
    by_curve: dict[tuple[str, Key], dict[Hashable, Online]] = {}
    for one in online:
        if one.seed in found.get(one.key, {}):
            panel = (
                one.key.objective if one.kind == ALL_TARGETS else f"{one.key.objective}, shown: {one.kind}"
            )
            by_curve.setdefault((panel, one.key), {})[one.seed] = one
    order = [CAUSAL, MASKED, *(f"{MASKED}, shown: {kind}" for kind in KINDS)]
    panels = sorted({panel for panel, _ in by_curve}, key=order.index)
    split = any("shown" in panel for panel in panels)
    for panel in panels:
        if split and panel == MASKED:
            continue  # Drawn by kind of corruption, as their mixture says little.
        for (where, key), seeds in by_curve.items():
            if where == panel:
                yield from _against(panel, key, found[key], seeds)
        for end in (0.0, 1.0):
            yield {"panel": panel, "size": EQUAL, "seeds": 0, "memorized": end, "value": end}


def _against(
    panel: str, key: Key, runs: Mapping[Hashable, Run], online: Mapping[Hashable, Online]
) -> Iterator[Row]:
    ends = [one.points.updates for one in online.values()]
    at = np.geomspace(max(end[0] for end in ends), min(end[-1] for end in ends), THINNED)
    full = [np.interp(at, runs[s].progress.updates, runs[s].progress.memorized) for s in online]
    batch = [np.interp(at, one.points.updates, one.points.value) for one in online.values()]
    for x, y in zip(np.mean(full, axis=0), np.mean(batch, axis=0), strict=True):
        yield {
            "panel": panel,
            "size": key.size,
            "seeds": len(online),
            "memorized": float(x),
            "value": float(y),
        }


def time_row(crossings: Mapping[Hashable, Crossing]) -> Row:
    """T over seeds; for a bound the end of the runs as the point, from its lower end upwards."""
    found = over_seeds(crossings)
    ends = [one.last if one.x is None else one.x for one in crossings.values()]
    value = float(np.exp(np.mean(np.log(ends))))
    exact = found.value is not None
    alone = len(ends) < 2
    return {
        "value": value,
        "low": value if alone else found.low,
        "high": value if exact and alone else found.high,
        "seeds": found.n,
        "seeds_reached": sum(one.reached for one in crossings.values()),
        "line": value if exact else None,
        "reached": REACHED if exact else OPEN,
    }


def spread_row(values: Sequence[float], scale: str = "linear") -> Row:
    """Mean over seeds and its interval; one seed is a point without width.

    On the scale `share` the interval is cut at 0 and 1, beyond which no share can be.
    """
    found = t_interval(values, scale="log" if scale == "log" else "linear")
    low, high = (found.value, found.value) if found.n < 2 else (found.low, found.high)
    if scale == "share" and low is not None and high is not None:
        low, high = max(low, 0.0), min(high, 1.0)
    return {"value": found.value, "low": low, "high": high, "seeds": found.n}


def _passes(run: Run, updates: float) -> float:
    return float(np.interp(updates, run.progress.updates, run.progress.passes))


def _n(runs: Mapping[Hashable, Run]) -> int:
    return next(iter(runs.values())).n_params


def _named(key: Key) -> Row:
    return {"objective": key.objective, "size": key.size}


def sizes_series(found: Cells) -> Series:
    """Sizes as series, by parameters."""
    order = dict.fromkeys(key.size for key in sorted(found, key=lambda key: _n(found[key])))
    return Series(column="size", title=SIZE, kind="sequence", order=tuple(order))


def _objectives(found: Cells) -> Panels | None:
    order = tuple(dict.fromkeys(key.objective for key in found))
    return Panels(column="objective", title="", order=order, share="y") if len(order) > 1 else None


def reached_style(rows: Sequence[Row]) -> Style | None:
    """Tells bounds from times, where there are any."""
    if all(row["reached"] == REACHED for row in rows):
        return None
    return Style(column="reached", title="tau was", order=(REACHED, OPEN))


def count_text(found: Cells, /) -> str:
    """How many seeds and tokens stand behind a figure or table."""
    counts = sorted({len(runs) for runs in found.values()})
    seeds = (
        "1 seed"
        if counts == [1]
        else f"{' to '.join(str(n) for n in dict.fromkeys((counts[0], counts[-1])))} seeds"
    )
    tokens = sorted({run.n_scored for runs in found.values() for run in runs.values()})
    return f"{seeds} a size, {tokens[0]:,} scored tokens in the training set" + (
        "" if len(tokens) == 1 else f" to {tokens[-1]:,}"
    )
