"""From the table of a study of exposures to its claims, figures and tables."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from repetita.fit.claim import by_seed, settle
from repetita.fit.estimate import t_interval
from repetita.report.figure import Cell
from repetita.report.page import Table
from repetita.studies._exposure import Exposure
from repetita.studies._exposure_curves import Level, exposure_of, levels
from repetita.studies._exposure_figures import View, figures
from repetita.studies._grid import planned_labels
from repetita.studies._memory_figures import count_text
from repetita.study.plan import Analysis

if TYPE_CHECKING:
    from collections.abc import Hashable

    from repetita.fit.claim import Claim
    from repetita.study.collect import Collected

Claims = Callable[[Sequence[Level], Sequence[Exposure]], "Iterator[Claim]"]
"""A study's claims from the levels there are and those that were planned."""


def analysis(collected: "Collected", *, view: View, claims: Claims) -> Analysis:
    """What a study concludes from what is there; levels without a seed that has both arms are left out."""
    table = collected.measurements
    if table.is_empty():
        return Analysis(warnings=("no run is finished yet",))
    memorized = levels(table, metric="memorized")
    if not memorized:
        return Analysis(warnings=("no seed has both its arms finished yet",))
    planned = {exposure_of(labels) for labels in planned_labels(collected)}
    return Analysis(
        claims=settle(list(claims(memorized, sorted(planned)))),
        figures=tuple(figures(memorized, table=table, view=view)),
        tables=(kept_table(memorized, nats=levels(table, metric="loss"), view=view),),
        warnings=tuple(_warnings(memorized, view=view)),
    )


def kept_table(memorized: Sequence[Level], *, nats: Sequence[Level], view: View) -> Table:
    """By level: before, right after, the paper's baseline, what is left after the controls, in nats too."""
    loss = {level.exposure: level for level in nats}
    return Table(
        f"{view.word}-levels", "What is kept, by level",
        "M(f), means over seeds with 95% t intervals where there are several. Lowest: the paper's forgetting "
        "baseline, biased downwards. The last columns stand at equal distance from the last exposure: "
        "special minus placebo, the same against the never-seen twin (difference in differences), and in "
        "nats a token (placebo minus special, above 0 where something is kept). Kept, from the first: "
        "special minus placebo at equal distance from the first exposure.",
        count_text([level.curves for level in memorized]),
        (view.varied, "before", "right after", "lowest (paper)", "lowest in the placebo run", "kept",
         "against the twin", "kept, from the first", "kept, nats"),
        [_row(level, loss.get(level.exposure), view=view) for level in memorized],
    )  # fmt: skip


def _row(level: Level, nats: Level | None, *, view: View) -> list[Cell]:
    curves = level.curves
    return [
        view.name(level),
        f"{np.mean(list(curves.before.values())):.4f}",
        f"{np.mean([curve[0] for curve in curves.special.values()]):.4f}",
        _text(level.lowest()),
        _text(level.unseen()),
        _text(level.kept()),
        _text(curves.last("minus_twin")),
        _text(level.first) if level.first else None,
        None if nats is None else _text({seed: -value for seed, value in nats.kept().items()}),
    ]


def _warnings(found: Sequence[Level], *, view: View) -> Iterator[str]:
    """Where the paper's baseline is no floor: the lowest M is the last one that was measured."""
    falling = [
        view.name(level)
        for level in found
        if np.argmin(np.mean(list(level.curves.special.values()), axis=0)) == len(level.curves.x) - 1
    ]
    if falling:
        yield (
            f"M(f) on the special batches still falls at the end of the horizon ({', '.join(falling)}): its "
            "lowest value there, the paper's baseline, is no floor yet."
        )


def _text(values: "Mapping[Hashable, float]") -> str:
    found = t_interval(by_seed(values))
    return found.text() if found.n > 1 else f"{found.value:.4f}"
