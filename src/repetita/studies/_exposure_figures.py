"""What exposures of several kinds leave behind, drawn: the paper's curves, and the same minus placebo."""

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from repetita.fit.estimate import t_interval
from repetita.report.figure import Axis, Figure, Panels, Row, Rule, Series, Style
from repetita.studies._exposure_curves import Level, through_training
from repetita.studies._memory_figures import (
    BAND,
    INTERVAL,
    KEPT,
    LINE,
    MEMORIZED,
    POINT,
    SINCE,
    count_text,
)

if TYPE_CHECKING:
    import polars as pl

SPECIAL, UNSEEN, TRAINING = "special batch", "same text, placebo run", "training set"
RAW, DIFFERENCE = "M(f), no control", "special minus placebo"


class View(NamedTuple):
    """What a study calls what it varies."""

    word: str
    """First word of the names of its figures and tables."""
    varied: str
    """Title of a legend or column: what the levels are."""
    name: Callable[[Level], str]
    """A level in words."""


def figures(levels: Sequence[Level], *, table: "pl.DataFrame", view: View) -> Iterator[Figure]:
    """The paper's curves, what is kept, and both at the end, by level."""
    yield curves(levels, table=table, view=view)
    yield kept(levels, view=view)
    yield ends(levels, view=view)


def curves(levels: Sequence[Level], *, table: "pl.DataFrame", view: View) -> Figure:
    """M over training, as the paper draws it, with the placebo run that it lacks."""
    names = {level.exposure: view.name(level) for level in levels}
    rows: list[Row] = []
    for row in through_training(table):
        exposure = row.pop("exposure")
        if exposure not in names:
            continue
        trained = SPECIAL if row["arm"] == "special" else UNSEEN
        on = TRAINING if row["probe"] == "train" else trained
        rows.append(
            {"level": names[exposure], "on": on, **{key: row[key] for key in ("passes", "value", "seeds")}}
        )
    return Figure(
        name=f"{view.word}-curves",
        title="Memorization over training, as the paper draws it",
        caption="M(f), the share of tokens whose argmax is right, against passes over the training set (the "
        "updates made, over the updates in a pass). Solid: on the special batches in the run that trains on "
        "them. Dashed: on the same text in the run that trains on placebo text instead: what a model of "
        "this training set guesses. Dotted: on a sample of the training set. Means over seeds.",
        n=count_text([level.curves for level in levels]),
        rows=tuple(rows),
        x=Axis(
            column="passes", title="passes over the training set",
            domain=(0.0, max(float(str(row["passes"])) for row in rows)),
        ),
        y=Axis(column="value", title=MEMORIZED, domain=(0.0, 1.0)),
        series=Series(column="level", title=view.varied, kind="sequence", order=tuple(names.values())),
        style=Style(column="on", title="measured on", order=(SPECIAL, UNSEEN, TRAINING)),
        layers=(LINE,),
        tooltip=("seeds",),
    )  # fmt: skip


def kept(levels: Sequence[Level], *, view: View) -> Figure:
    """What is kept, each level minus its own placebo, against the updates since the last exposure."""
    rows = [
        {"level": view.name(level), "x": float(x), **_spread([curve[i] for curve in by_seed.values()])}
        for level in levels
        for by_seed in (level.curves.kept("minus_placebo"),)
        for i, x in enumerate(level.curves.x)
    ]
    return Figure(
        name=f"{view.word}-kept",
        title="What is kept, each minus its own placebo",
        caption="M(f) on the special batches minus M(f) on the same tokens in the run that trained on "
        "placebo text at the same updates, against the updates since the last exposure to each batch (1: "
        "right after it). Band: 95% t interval over seeds, where there are several.",
        n=count_text([level.curves for level in levels]),
        rows=tuple(rows),
        x=Axis(column="x", title=SINCE, scale="log"),
        y=Axis(column="value", title=KEPT),
        series=Series(
            column="level", title=view.varied, kind="sequence", order=tuple(map(view.name, levels))
        ),
        layers=(BAND, LINE, POINT),
        rules=(Rule(axis="y", at=0.0, label="nothing kept"),),
        tooltip=("seeds",),
    )


def ends(levels: Sequence[Level], *, view: View) -> Figure:
    """The paper's baseline, the same without the exposure, and the difference, by level."""
    rows: list[Row] = []
    for level in levels:
        measured: list[tuple[str, str, Mapping[Hashable, float]]] = [
            (RAW, "lowest M (paper's baseline)", level.lowest()),
            (RAW, "lowest M, placebo run", level.unseen()),
            (DIFFERENCE, "kept, from the last exposure", level.kept()),
        ]
        if level.first:
            measured.append((DIFFERENCE, "kept, from the first exposure", level.first))
        for panel, what, by_seed in measured:
            rows.append(
                {"panel": panel, "what": what, "level": view.name(level), **_spread(list(by_seed.values()))}
            )
    return Figure(
        name=f"{view.word}-baseline",
        title="The forgetting baseline, and what of it is memory",
        caption="Left: the lowest M(f) on the special batches up to the horizon, the paper's baseline, and "
        "the same in the placebo run, which never saw them. Right: the difference of the two runs, equally "
        "long after the exposure. Intervals: 95% t over seeds, where there are several.",
        n=count_text([level.curves for level in levels]),
        rows=tuple(rows),
        x=Axis(column="level", title=view.varied, scale="category", order=tuple(map(view.name, levels))),
        y=Axis(column="value", title="M(f), or a difference of M(f)"),
        series=Series(column="what", title="", order=tuple(dict.fromkeys(str(row["what"]) for row in rows))),
        panels=Panels(column="panel", title="", order=(RAW, DIFFERENCE), share="x"),
        layers=(INTERVAL, POINT),
        tooltip=("seeds",),
    )


def _spread(values: Sequence[float]) -> Row:
    found = t_interval(np.asarray(values))
    low, high = (found.value, found.value) if found.n < 2 else (found.low, found.high)
    return {"value": found.value, "low": low, "high": high, "seeds": found.n}
