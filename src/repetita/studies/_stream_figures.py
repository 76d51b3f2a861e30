"""A stream read once, drawn: M_update and accuracy on fresh text, T_update, memory from one exposure."""

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence

import numpy as np

from repetita.corpus.masking import KINDS
from repetita.report.figure import Axis, Figure, Panels, Row, Series, Style
from repetita.studies._speed import ALL_TARGETS, CAUSAL, MASKED, Online, Run
from repetita.studies._speed_figures import (
    BAND,
    INTERVAL,
    LINE,
    N_TITLE,
    POINT,
    REACHED_LINE,
    SIZE,
    reached_style,
    spread_row,
    time_row,
)
from repetita.studies._stream import SHOWN, TAUS, Found, Streamed

THINNED = 48
"""Points of a curve: log-spaced in updates."""
BEFORE, FRESH = "training batches, before their update", "text that is never read"
UPDATES = "updates (log scale)"
FULL, ONLINE = "M(f), full passes", "M_update, training batches"


def figures(found: Found) -> Iterator[Figure]:
    """The figures that the measurements allow, in the order of the page."""
    if found.streams:
        yield times(found)
        yield curves(found)
    rows = list(_exposure_rows(found))
    if rows:
        yield exposures(rows, found)
    if found.of(MASKED):
        yield by_corruption(found)
    if found.proxies:
        yield proxies(found.proxies, window=found.window)


def times(found: Found) -> Figure:
    """T_update(N, tau) against N, log-log, a line for each tau that some run reaches."""
    rows: list[Row] = []
    for objective in (CAUSAL, MASKED):
        for place, tau in enumerate(TAUS[objective]):
            crossings = {
                size: {seed: run.time(tau, hold=found.hold) for seed, run in runs.items()}
                for size, runs in found.of(objective).items()
            }
            if place and not any(one.reached for by_seed in crossings.values() for one in by_seed.values()):
                continue
            for size, by_seed in crossings.items():
                n_params = _n(found.of(objective)[size])
                named: Row = {"objective": objective, "size": size, "n_params": n_params, "tau": tau}
                rows.append({**named, **time_row(by_seed)})
    return Figure(
        name="stream-time",
        title="Updates until a given share of the next batch is predicted",
        caption="T_update(N, tau): updates on text that is read once until M_update, the share of right "
        f"predictions in training batches before their update over {found.window:,} tokens, reaches tau and "
        f"stays there for {found.hold:,} tokens. In masked models of the targets shown as the mask. Where "
        "runs ended before that, the point is their end and what is shown is a lower bound, open upwards; "
        "levels that no run reaches are left out, but for the lowest. Intervals: 95% t on the log scale "
        "over seeds, where there are several.",
        n=count_text(found),
        rows=tuple(rows),
        x=Axis(column="n_params", title=N_TITLE, scale="log"),
        y=Axis(column="value", title="updates T_update(N, tau) (log scale)", scale="log"),
        series=Series(column="tau", title="tau", kind="sequence"),
        style=reached_style(rows),
        panels=_objectives(found),
        layers=(INTERVAL, REACHED_LINE, POINT),
        tooltip=("size", "seeds", "seeds_reached"),
    )


def curves(found: Found) -> Figure:
    """M_update along the stream by size, and beside it accuracy on text that is never read."""
    rows: list[Row] = []
    for (objective, size), runs in found.streams.items():
        named: Row = {"objective": objective, "size": size}
        batches = [run.online[SHOWN[objective]] for run in runs.values()]
        for at, values in _thinned((one.updates, one.value) for one in batches):
            rows.append({**named, "what": BEFORE, "updates": at, **spread_row(values, "share")})
        states = sorted(set.intersection(*(set(run.fresh.updates) for run in runs.values())))
        for state in states:
            if state > 0:
                values = [float(run.fresh.at(state)) for run in runs.values()]
                rows.append({**named, "what": FRESH, "updates": float(state), **spread_row(values, "share")})
    return Figure(
        name="stream-curves",
        title="On a stream, M_update is accuracy on fresh text",
        caption="Share of right predictions along a stream in which nothing is read twice: in training "
        f"batches before their update, over {found.window:,} tokens (the paper's M_update), and on text that "
        "no run ever trains on. In masked models of targets shown as the mask. The two are nearly the same "
        "thing, since a batch was not seen before its update either. Mean over seeds; band: 95% t interval, "
        "where there are several, cut at 0 and 1.",
        n=count_text(found),
        rows=tuple(rows),
        x=Axis(column="updates", title=UPDATES, scale="log"),
        y=Axis(column="value", title="share predicted", start="zero"),
        series=_sizes(found),
        style=Style(column="what", title="measured on", order=(BEFORE, FRESH)),
        panels=_objectives(found),
        layers=(BAND, LINE),
        tooltip=("seeds",),
    )


def exposures(rows: Sequence[Row], found: Found) -> Figure:
    """Memory from one exposure at updates along the stream."""
    panels = tuple(dict.fromkeys(str(row["panel"]) for row in rows))
    return Figure(
        name="stream-exposure",
        title="What one update leaves of its batch",
        caption="M on a batch after its one update minus before it, less the same change on fresh text: "
        "memory from one exposure. The same from before the update to the end of the stream is what is left; "
        "not of this update alone, since the batch's documents are read elsewhere in the stream and those of "
        "the fresh text are not. A point is one batch a seed; mean over seeds with 95% t intervals, where "
        "there are several.",
        n=count_text(found),
        rows=tuple(rows),
        x=Axis(column="update", title=UPDATES, scale="log"),
        y=Axis(column="value", title="change of M, batch minus fresh text"),
        series=_sizes(found),
        panels=Panels(column="panel", title="", order=panels, share="x"),
        layers=(INTERVAL, LINE, POINT),
        tooltip=("seeds",),
    )


def by_corruption(found: Found) -> Figure:
    """M_update of masked models by what the model was shown in place of the target."""
    rows: list[Row] = []
    for size, runs in found.of(MASKED).items():
        for kind in (ALL_TARGETS, *KINDS):
            given = [run.online[kind] for run in runs.values() if kind in run.online]
            for at, values in _thinned((one.updates, one.value) for one in given):
                rows.append({"size": size, "shown": kind, "updates": at, **spread_row(values)})
    order = tuple(dict.fromkeys(str(row["shown"]) for row in rows))
    return Figure(
        name="stream-corruption",
        title="M_update of masked models, by what was shown in place of the target",
        caption="The paper's M_update counts all targets of a training batch. A tenth of them is shown as "
        "it is, which a model learns to copy, and a tenth as a random token; only those shown as the mask "
        f"ask what the others do in full passes. Over {found.window:,} tokens read; mean over seeds, band: "
        "95% t interval, where there are several.",
        n=count_text(found),
        rows=tuple(rows),
        x=Axis(column="updates", title=UPDATES, scale="log"),
        y=Axis(column="value", title="M_update", start="zero"),
        series=Series(column="shown", title="targets", order=order, muted=(ALL_TARGETS,)),
        panels=Panels(column="size", title=SIZE, order=tuple(found.of(MASKED))),
        layers=(BAND, LINE),
        tooltip=("seeds",),
    )


def proxies(given: Sequence[tuple[Run, Online]], *, window: int) -> Figure:
    """M_update and M(f) against updates where a fixed set is read again and again (the paper's Fig. 13)."""
    by_size: dict[str, list[tuple[Run, Online]]] = {}
    for run, online in sorted(given, key=lambda one: one[0].n_params):
        by_size.setdefault(run.key.size, []).append((run, online))
    rows: list[Row] = []
    for size, runs in by_size.items():
        full = ((run.progress.updates, run.progress.memorized) for run, _ in runs)
        batch = ((one.points.updates, one.points.value) for _, one in runs)
        for what, pairs in ((FULL, full), (ONLINE, batch)):
            for at, values in _thinned(pairs):
                rows.append(
                    {"panel": f"N = {size}", "what": what, "updates": at, **spread_row(values, "share")}
                )
    seeds = max(len(runs) for runs in by_size.values())
    return Figure(
        name="stream-proxy",
        title="Is M_update a proxy for M(f)? A fixed set, read again and again",
        caption="The share of right predictions in the training batches of the last "
        f"{window:,} tokens, each before its update, and M(f) from full passes over the set. A batch was "
        "last trained on about a pass before, so M_update lags behind while M(f) rises. These are runs "
        "of the study of memorization speed. Mean over seeds; band: 95% t interval, cut at 0 and 1.",
        n=f"{seeds} seed{'s' if seeds > 1 else ''} a size",
        rows=tuple(rows),
        x=Axis(column="updates", title=UPDATES, scale="log"),
        y=Axis(column="value", title="share predicted", domain=(0.0, 1.0)),
        series=Series(column="what", title="measured", order=(FULL, ONLINE)),
        panels=Panels(column="panel", title="", order=tuple(f"N = {size}" for size in by_size), share="y"),
        layers=(BAND, LINE),
        tooltip=("seeds",),
    )


def _exposure_rows(found: Found) -> Iterator[Row]:
    for (objective, size), runs in found.streams.items():
        by_panel: dict[tuple[str, int], list[float]] = {}
        for run in runs.values():
            for one in run.exposures:
                by_panel.setdefault(("after the update", one.update), []).append(one.gain)
                if one.left is not None:
                    by_panel.setdefault(("left at the end", one.update), []).append(one.left)
        for (what, update), values in sorted(by_panel.items()):
            named: Row = {"panel": f"{objective}, {what}", "size": size, "update": update}
            yield {**named, **spread_row(values)}


def _thinned(curves: Iterable[tuple[np.ndarray, np.ndarray]]) -> Iterator[tuple[float, list[float]]]:
    """Log-spaced updates that all curves have, and the value of each curve there."""
    given = list(curves)
    if not given:
        return
    first, last = max(x[x > 0][0] for x, _ in given), min(x[-1] for x, _ in given)
    for at in np.unique(np.geomspace(first, last, THINNED)):
        yield float(at), [float(np.interp(at, x, y)) for x, y in given]


def _sizes(found: Found) -> Series:
    n_params = {size: _n(runs) for (_, size), runs in found.streams.items()}
    order = sorted(n_params, key=lambda size: n_params[size])
    return Series(column="size", title=SIZE, kind="sequence", order=tuple(order))


def _objectives(found: Found) -> Panels | None:
    order = tuple(dict.fromkeys(objective for objective, _ in found.streams))
    return Panels(column="objective", title="", order=order, share="y") if len(order) > 1 else None


def _n(runs: Mapping[Hashable, Streamed]) -> int:
    return next(iter(runs.values())).n_params


def count_text(found: Found, /) -> str:
    """How many seeds and tokens stand behind a figure or table of streams."""
    counts = sorted({len(runs) for runs in found.streams.values()})
    tokens = max(run.steps * run.tokens for runs in found.streams.values() for run in runs.values())
    seeds = f"{counts[0]} to {counts[-1]}" if counts[0] < counts[-1] else str(counts[0])
    return f"{seeds} seed{'s' if counts[-1] > 1 else ''} a size, {tokens:,} tokens read once"
