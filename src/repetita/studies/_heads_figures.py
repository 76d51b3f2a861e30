"""What repetition does to induction heads, drawn (repeated-data paper, Figs. 6, 7 right and 21)."""

import math
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from repetita.fit.effective_size import effective_size
from repetita.fit.score_size import ScoreScan, score_size
from repetita.report.figure import Axis, Figure, Layer, Panels, Row, Rule, Series
from repetita.studies._damage_figures import INTERVAL, INTERVALS, LINE, POINT, drawn, spread
from repetita.studies._grid import Line, line_text
from repetita.studies._heads import FORMED, SCORE, Cell, Heads, control, loss_scan, scan_of, worst
from repetita.studies._speed_figures import spread_row

if TYPE_CHECKING:
    from repetita.study.collect import Collected

PREFIX = "prefix-matching score"
AGGREGATES = {
    "prefix_query_mean": "mean over heads",
    "prefix_query_top": "three highest",
    "prefix_query_max": "best head",
}
MAX_HEADS = 1500
POINTS = 48
"""Points of a curve over the token index, at the logarithm."""


class Kept(NamedTuple):
    """Arrays that one run left at its end."""

    cell: Cell
    seed: Hashable
    items: Mapping[str, NDArray[np.generic]]


def kept(collected: "Collected", *, probe: str, corpus: str) -> list[Kept]:
    """The items of a probe at the end of each control and treated run."""
    import polars as pl

    rows = collected.measurements.filter(
        (pl.col("probe") == probe)
        & (pl.col("corpus") == corpus)
        & (pl.col("step") == pl.col("steps"))
        & (pl.col("on") == "test")
    ).unique(["folder", "key", "size", "fraction", "passes", "seed"], maintain_order=True)
    found = []
    for row in rows.iter_rows(named=True):
        items = collected.items(row["folder"], key=row["key"], step=row["step"])
        if items:
            found.append(Kept((row["size"], row["fraction"], row["passes"]), row["seed"], items))
    return found


def figures(
    heads: Heads, *, line: Line | None, by_head: Sequence[Kept], by_index: Sequence[Kept]
) -> Iterator[Figure]:
    """The figures that the measurements allow, in the order of the page."""
    scan = scan_of(heads)
    if heads.lines() and scan is not None and loss_scan(heads) is not None:
        yield from damage(heads, scan)
    if len(heads.sizes()) > 1:
        yield ladder(heads, scan)
    if heads.lines():
        yield by_passes(heads)
    if heads.courses:
        yield formation(heads)
    curves = [one for one in by_index if line is None or _shown(one.cell, line)]
    if curves:
        yield in_context(curves)
    single = [one for one in by_head if line is None or _shown(one.cell, line)]
    if any("test/ov_eigen" in one.items for one in single):
        yield each_head(single)


def damage(heads: Heads, scan: ScoreScan) -> Iterator[Figure]:
    """Size multiplier by fraction at the worst passes, prefix matching beside test loss (Fig. 6)."""
    rows: list[Row] = []
    by_loss = loss_scan(heads)
    for line in heads.lines():
        for cell in _worst_cells(heads, line):
            n_params = heads.n_params[line[0]]
            named: Row = {"size": line[0], "fraction": line[1], "passes": cell[2]}
            score, own = heads.of(SCORE, cell), heads.of(SCORE, control(line[0]))
            if set(score) & set(own):
                found = score_size(scan, n_params=n_params, scores=score, control=own).multiplier
                if found.value is not None:
                    rows.append({**named, "by": "prefix matching", **drawn(found, value="multiplier")})
            losses = heads.of("loss", cell)
            if by_loss is not None and losses:
                ratio = effective_size(by_loss, n_params=n_params, losses=losses).multiplier
                if ratio.value is not None:
                    rows.append({**named, "by": "test loss", **drawn(ratio, value="multiplier")})
    if not rows:
        return
    refused = f" By prefix matching no size is read: {scan.refused}." if scan.refused else ""
    sizes = tuple(
        dict.fromkeys(line[0] for line in sorted(heads.lines(), key=lambda at: heads.n_params[at[0]]))
    )
    yield Figure(
        name="induction-size-multiplier",
        title="Effective size by prefix matching and by test loss",
        caption="Size of the control with the same score or the same test loss, over the size of the model, "
        "at the passes with the highest test loss of each share f. The paper has 1.47x less by prefix "
        "matching and at most 1.15x less by test loss at f = 0.03. Values outside the control ladder are "
        f"bounds and left out (see the table).{refused} {INTERVALS}",
        n=_count(heads),
        rows=tuple(rows),
        x=Axis(column="fraction", title="share f of repeated text (log scale)", scale="log"),
        y=Axis(column="multiplier", title="effective size / size (log scale)", scale="log"),
        series=Series(column="by", title="read by", order=("prefix matching", "test loss")),
        panels=Panels(column="size", title="N", order=sizes) if len(sizes) > 1 else None,
        layers=(INTERVAL, LINE, POINT),
        rules=(Rule(axis="y", at=1.0, label="no damage"),),
        tooltip=("passes", "seeds"),
    )


def ladder(heads: Heads, scan: ScoreScan | None) -> Figure:
    """The control's score against size with the line through its mean over heads (Fig. 21 left)."""
    rows: list[Row] = []
    for metric, name in AGGREGATES.items():
        for size in heads.sizes():
            values, n_params = heads.of(metric, control(size)), heads.n_params[size]
            if values:
                fitted = scan is not None and metric == SCORE
                line = scan.predict(n_params) if scan is not None and fitted else None
                rows.append(
                    {"over": name, "size": size, "n_params": n_params, "line": line, **spread(values)}
                )
    slope = ""
    if scan is not None:
        slope = f" Its slope is {scan.slope.text(digits=2)} a unit of ln N."
        slope += f" No size is read off it: {scan.refused}." if scan.refused else ""
    return Figure(
        name="induction-control-ladder",
        title="Prefix matching of the controls over size",
        caption="Prefix-matching score of runs on unique data only: attention to the tokens that followed "
        "earlier copies of the same token, a query, in random tokens repeated four times (1: all of it). "
        f"Dashed: least squares in ln N on the mean over heads, from which effective sizes are read.{slope} "
        f"{INTERVALS}",
        n=f"{sum(len(heads.of('loss', control(size))) for size in heads.sizes())} control runs",
        rows=tuple(rows),
        x=Axis(column="n_params", title="non-embedding parameters N (log scale)", scale="log"),
        y=Axis(column="loss", title=PREFIX, start="zero"),
        series=Series(column="over", title="", order=tuple(AGGREGATES.values())),
        layers=(INTERVAL, POINT, Layer(kind="line", y="line", dash="dashed")),
        tooltip=("size", "seeds"),
    )


def by_passes(heads: Heads) -> Figure:
    """The score over passes, beside the control's."""
    rows: list[Row] = []
    rules: list[Rule] = []
    for line in heads.lines():
        name = line_text(line)
        for metric, over in AGGREGATES.items():
            if metric == "prefix_query_top":
                continue
            for cell in heads.cells(line):
                if heads.of(metric, cell):
                    rows.append({"line": name, "over": over, "passes": cell[2],
                                 **_share(heads.of(metric, cell).values())})  # fmt: skip
            values = heads.of(metric, control(line[0]))
            if values:
                level = sum(values.values()) / len(values)
                rules.append(Rule(axis="y", at=level, label=f"control, {over}", series=over, panel=name))
    return Figure(
        name="induction-score-by-passes",
        title="Prefix matching over passes",
        caption="Attention a query at the end of training against the passes over the repeated subset; "
        f"horizontal lines: the control of the same size. {INTERVALS} They are cut at 0 and 1.",
        n=_count(heads),
        rows=tuple(rows),
        x=Axis(column="passes", title="passes E over the subset (log)", scale="log"),
        y=Axis(column="loss", title=PREFIX, start="zero"),
        series=Series(column="over", title="", order=("mean over heads", "best head")),
        panels=Panels(column="line", title="", order=tuple(line_text(line) for line in heads.lines())),
        layers=(INTERVAL, LINE, POINT),
        rules=tuple(rules),
        tooltip=("seeds",),
    )


def formation(heads: Heads) -> Figure:
    """The best head over training, by line: when induction heads form, without repetition and with."""
    rows: list[Row] = []
    passes = sorted({cell[2] for cell in heads.courses if cell[2] is not None})
    lines: tuple[Line, ...] = tuple(heads.lines())
    shown = (
        {line_text(line): (control(line[0]), *heads.cells(line)) for line in lines}
        if lines
        else {f"N = {size}": (control(size),) for size in heads.sizes()}
    )
    for panel, cells in shown.items():
        for cell in cells:
            courses = heads.courses.get(cell, {})
            common = set.intersection(*(set(steps) for steps, _ in courses.values())) if courses else set()
            for step in sorted(common):
                at = [dict(zip(*course, strict=True))[step] for course in courses.values()]
                rows.append({"line": panel, "arm": _arm(cell), "step": step, **_share(at)})
    order = ("control", *(f"{one:.4g} passes" for one in passes))
    return Figure(
        name="induction-formation",
        title="When induction heads form",
        caption="Prefix-matching score (attention a query) of the best head over training, mean over "
        f"seeds. {FORMED:g} is where heads count as formed. {INTERVALS} They are cut at 0 and 1.",
        n=f"{sum(len(heads.courses.get(cell, {})) for cells in shown.values() for cell in cells)} courses, "
        "controls in each panel of their size",
        rows=tuple(rows),
        x=Axis(column="step", title="step (log scale)", scale="log"),
        y=Axis(column="loss", title=PREFIX, start="zero"),
        series=Series(column="arm", title="", kind="sequence", order=order, muted=("control",)),
        panels=Panels(column="line", title="", order=tuple(shown)) if len(shown) > 1 else None,
        layers=(Layer(kind="band", low="low", high="high"), LINE),
        rules=(Rule(axis="y", at=FORMED, label="formed"),),
        tooltip=("seeds",),
    )


def in_context(curves: Sequence[Kept]) -> Figure:
    """Test loss against the token index (Fig. 7 right), mean over seeds."""
    cells: dict[Cell, list[NDArray[np.float64]]] = {}
    for one in curves:
        curve = np.asarray(one.items["test/loss"], dtype=np.float64)
        cells.setdefault(one.cell, []).append(curve)
    rows: list[Row] = []
    for cell, own in cells.items():
        mean, edges = np.nanmean(np.stack(own), axis=0), _edges(len(own[0]))
        for start, stop in pairwise(edges):
            value = float(np.nanmean(mean[start:stop])) if np.isfinite(mean[start:stop]).any() else None
            rows.append({"arm": _arm(cell), "index": (start + stop + 1) / 2, "loss": value})
    order = [_arm(cell) for cell in sorted(cells, key=lambda cell: cell[2] or 0)]
    return Figure(
        name="induction-loss-by-index",
        title="Test loss by token index",
        caption="Loss of the test set at each place in a sequence (first token: 1), means of neighbouring "
        "places and of seeds: how much a model gains from what it has read. The curve of the paper's Fig. "
        "7, right.",
        n=f"{sum(map(len, cells.values()))} runs of {len(cells)} cells, N = {next(iter(cells))[0]}",
        rows=tuple(rows),
        x=Axis(column="index", title="token index (log scale)", scale="log"),
        y=Axis(column="loss", title="test loss, nats a token"),
        series=Series(column="arm", title="", kind="sequence", order=tuple(order), muted=("control",)),
        layers=(LINE,),
    )


def each_head(single: Sequence[Kept]) -> Figure:
    """Every head: what it matches against what it copies."""
    rows: list[Row] = []
    for one in single:
        if "test/ov_eigen" not in one.items:
            continue
        match, copies = one.items["test/prefix_query"], one.items["test/ov_eigen"]
        for (layer, head), value in np.ndenumerate(np.asarray(match, dtype=np.float64)):
            copied = float(np.asarray(copies, dtype=np.float64)[layer, head])
            if math.isfinite(copied) and len(rows) < MAX_HEADS:
                named: Row = {"arm": _arm(one.cell), "layer": f"layer {layer}", "head": f"{layer}.{head}"}
                rows.append({**named, "match": value, "copies": copied, "seed": str(one.seed)})
    arms = tuple(dict.fromkeys(_arm(one.cell) for one in sorted(single, key=lambda one: one.cell[2] or 0)))
    return Figure(
        name="induction-each-head",
        title="Every head: prefix matching against copying",
        caption="A point a head. Copying: sum of the eigenvalues of its OV circuit over the sum of their "
        "moduli, from the weights (1: it raises whatever it attends to). An induction head in the strict "
        "sense is at the top right: it matches and copies.",
        n=f"{len(rows)} heads of {len(single)} runs, N = {single[0].cell[0]}",
        rows=tuple(rows),
        x=Axis(column="match", title=PREFIX),
        y=Axis(column="copies", title="OV copying, from -1 to 1"),
        series=Series(column="arm", title="", kind="sequence", order=arms, muted=("control",)),
        panels=Panels(column="layer", title="") if len({row["layer"] for row in rows}) in (2, 3, 4) else None,
        layers=(POINT,),
        tooltip=("head", "seed"),
    )


def _worst_cells(heads: Heads, line: Line) -> list[Cell]:
    """The cell that most seeds take as their worst."""
    at = list(worst(heads, line).values())
    return [(*line, max(sorted(set(at)), key=at.count))] if at else []


def _shown(cell: Cell, line: Line) -> bool:
    """Whether a cell is of the headline's line, or its control."""
    return cell[0] == line[0] and cell[1] in (None, line[1])


def _arm(cell: Cell) -> str:
    return "control" if cell[1] is None else f"{cell[2]:.4g} passes"


def _edges(length: int) -> list[int]:
    """Bins of the token index, even in its logarithm."""
    return sorted({int(edge) for edge in np.round(np.geomspace(1, length + 1, POINTS)) - 1})


def _count(heads: Heads) -> str:
    treated = sum(len(heads.of("loss", cell)) for line in heads.lines() for cell in heads.cells(line))
    controls = sum(len(heads.of("loss", control(size))) for size in heads.sizes())
    return f"{treated} treated runs, {controls} control runs"


def _share(values: Iterable[float]) -> Row:
    """Mean over seeds and its interval, cut at 0 and 1."""
    row = spread_row(list(values), "share")
    row["loss"] = row.pop("value")
    return row
