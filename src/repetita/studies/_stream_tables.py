"""A stream read once, in numbers: tables of the stream study."""

from collections.abc import Iterator

from repetita.fit.curves import crossing
from repetita.fit.estimate import Crossing, t_interval
from repetita.fit.times_to_memorize import over_seeds
from repetita.report.figure import Cell
from repetita.report.page import Table
from repetita.studies._speed import ALL_TARGETS
from repetita.studies._stream import SHOWN, TAUS, Found, Streamed
from repetita.studies._stream_figures import count_text


def tables(found: Found) -> Iterator[Table]:
    """T_update by size and tau, held and at first touch; fresh text and memory from one exposure by size."""
    if found.streams:
        yield _times(found)
        yield _sizes(found)


def _times(found: Found) -> Table:
    rows: list[list[Cell]] = []
    for (objective, size), runs in found.streams.items():
        for tau in TAUS[objective]:
            held = {seed: run.time(tau, hold=found.hold) for seed, run in runs.items()}
            literal = {seed: _touch(run, tau) for seed, run in runs.items()}
            reached = sum(one.reached for one in held.values())
            rows.append([
                objective, size, tau, over_seeds(held).text(), over_seeds(literal).text(),
                f"{reached} of {len(runs)}",
            ])  # fmt: skip
    return Table(
        "stream-times", "T_update(N, tau) on a stream",
        f"Updates until M_update over {found.window:,} tokens reaches tau and stays there for {found.hold:,} "
        "tokens, in masked models of targets shown as the mask; beside it the paper's way, the first touch, "
        "of all targets. Geometric means over seeds with 95% t intervals; `above`: some seed ended before.",
        count_text(found),
        ("models", "N", "tau", "updates, held", "first touch, all targets", "seeds that hold it"),
        rows,
    )  # fmt: skip


def _touch(run: Streamed, tau: float) -> Crossing:
    points = run.online[ALL_TARGETS]
    return crossing(points.updates, y=points.value, threshold=tau, unit="update")


def _sizes(found: Found) -> Table:
    rows: list[list[Cell]] = []
    for (objective, size), runs in found.streams.items():
        end = [float(run.online[SHOWN[objective]].value[-1]) for run in runs.values()]
        fresh = [float(run.fresh.value[-1]) for run in runs.values() if len(run.fresh.value)]
        gaps = [float(run.gaps.value.mean()) for run in runs.values() if len(run.gaps.value)]
        looked = [run for run in runs.values() if run.exposures]
        gains = [run.mean_gain for run in looked]
        left = [run.mean_left for run in looked if run.mean_left is not None]
        nats = [run.mean_nats for run in looked if run.nats]
        rows.append([objective, size, *map(_text, (end, fresh, gaps, gains, left, nats)), len(runs)])
    return Table(
        "stream-sizes", "Fresh text, and memory from one exposure",
        "M_update and accuracy on text never read, at the end of the stream; their difference late in it; "
        "M on a batch after minus before its update, less the change of fresh text, mean over the updates "
        "looked at; the same from before the update to the end of the stream, in which the batch's documents "
        "are read elsewhere, too; the first of these in nats a token. Means over seeds with 95% t intervals, "
        "where there are several.",
        count_text(found),
        ("models", "N", "M_update, end", "fresh text, end", "M_update minus fresh", "one exposure",
         "left at the end", "one exposure, nats", "seeds"),
        rows,
    )  # fmt: skip


def _text(values: list[float]) -> str | None:
    if not values:
        return None
    found = t_interval(values)
    return found.text() if found.n > 1 else f"{found.value:.3g}"
