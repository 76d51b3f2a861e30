"""What is kept of one exposure, drawn: figures and tables of the forgetting study."""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from repetita.fit.estimate import t_interval
from repetita.report.figure import Axis, Cell, Figure, Layer, Panels, Row, Rule, Series
from repetita.report.page import Table
from repetita.studies._memory import Floats, Kept

if TYPE_CHECKING:
    import polars as pl

SINCE = "updates since the last exposure, 1 = right after it (log scale)"
MEMORIZED = "memorized M(f): share of tokens whose argmax is right"
KEPT = "M(f), special minus placebo"
BAND, LINE, POINT = Layer(kind="band", low="low", high="high"), Layer(kind="line"), Layer(kind="point")
INTERVAL = Layer(kind="interval", low="low", high="high")


def figures(memorized: Sequence[Kept], *, nats: Sequence[Kept], table: "pl.DataFrame") -> Iterator[Figure]:
    """The figures that the measurements allow, in the order of the page."""
    once = [cell for cell in memorized if cell.arm.times == 1]
    if any(cell.arm.after == "same" for cell in once):
        yield forgetting_curves([cell for cell in once if cell.arm.after == "same"])
    if once:
        yield memory_kept(once)
    doses = [cell for cell in memorized if cell.arm.after == "same"]
    if len({cell.arm.times for cell in doses}) > 1:
        yield dose(doses)
    if len({cell.arm.size for cell in once if cell.arm.after == "same"}) > 1:
        yield floors([cell for cell in once if cell.arm.after == "same"])
    in_nats = [cell for cell in nats if cell.arm.times == 1 and cell.arm.after == "same"]
    if in_nats:
        yield losses(in_nats)
    training = list(_training(table))
    if training:
        yield memorized_training_set(training)


def forgetting_curves(cells: Sequence[Kept]) -> Figure:
    """The forgetting curve beside its placebo and its never-seen twin."""
    rows: list[Row] = []
    for cell in cells:
        for name, curves in (
            ("special batch", cell.special),
            ("same text, placebo run", cell.placebo),
            ("never-seen twin", cell.twin),
        ):
            rows += _rows(cell, curves, on=name)
    sizes = _sizes(cells)
    rules = tuple(
        Rule(
            axis="y", at=float(np.mean(list(c.before.values()))), label="before the exposure", panel=_title(c)
        )
        for c in cells
    )
    return Figure(
        name="forgetting-curve",
        title="What one exposure leaves behind",
        caption="M(f) on text that was trained on in exactly one update, against the updates made since. Training goes on with "
        "the same training set. The placebo run is the same run forked at the exposure, with other text in that update: the gap "
        "between the two is memory, the rest is what any model of this training set would guess. All three fall as the model "
        "overfits its training set. Band: 95% t interval over seeds.",
        n=_n(cells),
        rows=tuple(rows),
        x=Axis(column="x", title=SINCE, scale="log"),
        y=Axis(column="value", title=MEMORIZED),
        series=Series(
            column="on", title="measured on", order=("special batch", "same text, placebo run", "never-seen twin"),
            muted=("never-seen twin",),
        ),
        panels=Panels(column="panel", title="", order=tuple(_title(c) for c in cells), share="both") if len(sizes) > 1 else None,
        layers=(BAND, LINE),
        rules=rules if len(sizes) > 1 else tuple(rule.edit(panel=None) for rule in rules),
        tooltip=("seeds",),
    )  # fmt: skip


def memory_kept(cells: Sequence[Kept]) -> Figure:
    """Memory, a paired difference, by size; going on with the same or with novel data."""
    rows = [row for cell in cells for row in _rows(cell, cell.kept("minus_placebo"), after=_after(cell))]
    after = tuple(dict.fromkeys(str(row["after"]) for row in rows))
    return Figure(
        name="memory-kept",
        title="Memory of one exposure, by model size",
        caption="The difference between the two curves above: M(f) on the special batches minus M(f) on the same tokens in the "
        "run that saw placebo text instead. Where novel data follows, every later batch is text that is read once.",
        n=_n(cells),
        rows=tuple(rows),
        x=Axis(column="x", title=SINCE, scale="log"),
        y=Axis(column="value", title=KEPT),
        series=Series(
            column="size", title="non-embedding parameters", kind="sequence", order=tuple(_sizes(cells))
        ),
        panels=Panels(column="after", title="", order=after, share="both") if len(after) > 1 else None,
        layers=(BAND, LINE, POINT),
        rules=(Rule(axis="y", at=0.0, label="nothing kept"),),
        tooltip=("seeds",),
    )


def dose(cells: Sequence[Kept]) -> Figure:
    """One exposure against several in a row, at the sizes that have both."""
    sizes = {cell.arm.size for cell in cells if cell.arm.times > 1}
    chosen = [cell for cell in cells if cell.arm.size in sizes]
    rows = [
        row for cell in chosen for row in _rows(cell, cell.kept("minus_placebo"), exposures=cell.arm.times)
    ]
    return Figure(
        name="dose",
        title="More exposures in a row leave more behind",
        caption="The same paired difference after one exposure and after several in a row.",
        n=_n(chosen),
        rows=tuple(rows),
        x=Axis(column="x", title=SINCE, scale="log"),
        y=Axis(column="value", title=KEPT),
        series=Series(column="exposures", title="exposures in a row", kind="sequence"),
        panels=Panels(column="panel", title="", share="both") if len(sizes) > 1 else None,
        layers=(BAND, LINE, POINT),
        rules=(Rule(axis="y", at=0.0, label="nothing kept"),),
        tooltip=("seeds",),
    )


def floors(cells: Sequence[Kept]) -> Figure:
    """The paper's forgetting baseline against size, and what remains of it after the controls."""
    rows: list[Row] = []
    for cell in cells:
        baseline = {seed: float(values.min()) for seed, values in cell.kept("raw").items()}
        placebo = {seed: float(values.min()) for seed, values in cell.placebo.items()}
        for what, by_seed in (
            ("lowest M on the special batch (the paper's baseline)", baseline),
            ("lowest M in the placebo run", placebo),
            ("kept at the end, special minus placebo", cell.last("minus_placebo")),
            ("kept at the end, against the twin", cell.last("minus_twin")),
        ):
            rows.append(
                {
                    "what": what,
                    "size": cell.arm.size,
                    "n_params": cell.n_params,
                    **_spread(list(by_seed.values())),
                }
            )
    return Figure(
        name="floor-by-size",
        title="The forgetting baseline and its controls",
        caption="The paper's baseline is the lowest M(f) on the special batch after the exposure. The placebo run, which never saw "
        "the batch, has one too. What is memory is the difference at the end of the horizon.",
        n=_n(cells),
        rows=tuple(rows),
        x=Axis(column="n_params", title="non-embedding parameters N (log scale)", scale="log"),
        y=Axis(column="value", title="M(f)"),
        series=Series(column="what", title="", order=tuple(dict.fromkeys(str(row["what"]) for row in rows))),
        layers=(INTERVAL, LINE, POINT),
        tooltip=("size", "seeds"),
    )


def losses(cells: Sequence[Kept]) -> Figure:
    """Loss on the special batches: it keeps rising while M flattens."""
    rows = [
        row
        for cell in cells
        for name, curves in (("special batch", cell.special), ("same text, placebo run", cell.placebo))
        for row in _rows(cell, curves, on=name)
    ]
    return Figure(
        name="loss-after-exposure",
        title="The same in nats",
        caption="Loss on the special batches and on the same text in the placebo run. M(f) flattens while the loss keeps rising, "
        "as the paper shows for perplexity: the model becomes sure of wrong tokens.",
        n=_n(cells),
        rows=tuple(rows),
        x=Axis(column="x", title=SINCE, scale="log"),
        y=Axis(column="value", title="loss, nats a token"),
        series=Series(column="on", title="measured on", order=("special batch", "same text, placebo run")),
        panels=Panels(column="panel", title="", order=tuple(_title(c) for c in cells), share="both")
        if len(cells) > 1
        else None,
        layers=(BAND, LINE),
        tooltip=("seeds",),
    )


def memorized_training_set(rows: Sequence[Row]) -> Figure:
    """M on the training set and on the test set over training, in the runs that saw the special batches."""
    return Figure(
        name="training-set",
        title="Meanwhile, the training set is memorized",
        caption="M(f) on the training set and on the test set in the runs with the special batches, mean over seeds.",
        n=f"{max(int(row['seeds'] or 0) for row in rows)} seeds a size",
        rows=tuple(rows),
        x=Axis(column="tokens", title="training tokens (log scale)", scale="log"),
        y=Axis(column="value", title=MEMORIZED),
        series=Series(column="size", title="non-embedding parameters", kind="sequence", order=tuple(dict.fromkeys(str(r["size"]) for r in rows))),
        panels=Panels(column="on", title="", share="both"),
        layers=(LINE, POINT),
    )  # fmt: skip


def _training(table: "pl.DataFrame") -> Iterator[Row]:
    import polars as pl

    chosen = table.filter(
        (pl.col("probe") == "train") & (pl.col("metric") == "memorized") & (pl.col("arm") == "special")
        & (pl.col("after") == "same") & (pl.col("times") == 1) & (pl.col("step") > 0) & pl.col("value").is_not_null()
    )  # fmt: skip
    means = chosen.group_by("size", "non_embedding", "on", "step").agg(
        pl.col("value").mean(), pl.col("tokens").mean(), pl.col("seed").n_unique().alias("seeds")
    )
    for row in means.sort("non_embedding", "on", "step").iter_rows(named=True):
        on = "training set" if row["on"] == "train" else "test set"
        yield {
            "size": row["size"],
            "on": on,
            "tokens": row["tokens"],
            "value": row["value"],
            "seeds": row["seeds"],
        }


def tables(cells: Sequence[Kept]) -> Iterator[Table]:
    """Floors by cell, fitted forms, and what the controls leave."""
    rows: list[list[Cell]] = []
    forms: list[list[Cell]] = []
    for cell in cells:
        head: list[Cell] = [cell.arm.size, cell.arm.times, _after(cell)]
        raw = cell.summary("raw")
        rows.append([
            *head, f"{np.mean(list(cell.before.values())):.4f}", f"{np.mean([c[0] for c in cell.special.values()]):.4f}",
            raw.baseline.text(), raw.last.text(), _text(cell.last("minus_placebo")), _text(cell.last("minus_twin")),
        ])  # fmt: skip
        for how in ("raw", "minus_placebo"):
            for decay in cell.summary(how).decays:
                floor = "none" if decay.floor is None else decay.floor.text()
                left_out = None if decay.left_out is None else f"{decay.left_out:.4f}"
                forms.append([*head, how.replace("_", " "), decay.form, floor, f"{decay.aicc:.1f}", left_out])
    n = _n(cells)
    yield Table(
        "kept", "What is kept", "M(f); means over seeds with 95% t intervals where there are several.", n,
        ("N", "exposures", "afterwards", "before", "right after", "lowest (paper)", "at the end", "minus placebo", "minus twin"),
        rows,
    )  # fmt: skip
    yield Table(
        "forms", "Forms of decay", "Floor of each fitted form; AICc takes residuals for independent, so read the error on a seed "
        "left out of the fit beside it.", n, ("N", "exposures", "afterwards", "curve", "form", "floor", "AICc", "left-out error"),
        forms,
    )  # fmt: skip


def _rows(cell: Kept, curves: Mapping[Hashable, Floats], **more: Cell) -> list[Row]:
    """Mean and interval over seeds at every x."""
    found: list[Row] = []
    for i, x in enumerate(cell.x):
        spread = _spread([float(values[i]) for values in curves.values()])
        found.append({"panel": _title(cell), "size": cell.arm.size, "x": float(x), **more, **spread})
    return found


def _spread(values: Sequence[float]) -> Row:
    found = t_interval(values)
    low, high = (found.value, found.value) if found.n < 2 else (found.low, found.high)
    return {"value": found.value, "low": low, "high": high, "seeds": found.n}


def _text(by_seed: Mapping[Hashable, float]) -> str:
    found = t_interval(list(by_seed.values()))
    return found.text() if found.n > 1 else f"{found.value:.4f}"


def _title(cell: Kept) -> str:
    return f"N = {cell.arm.size}"


def _after(cell: Kept) -> str:
    return "then the same data again" if cell.arm.after == "same" else "then novel data only"


def _sizes(cells: Sequence[Kept]) -> list[str]:
    return list(dict.fromkeys(cell.arm.size for cell in sorted(cells, key=lambda cell: cell.n_params)))


def _n(cells: Sequence[Kept]) -> str:
    seeds = max(len(cell.special) for cell in cells)
    batches, tokens = cells[0].n_batches, cells[0].n_tokens
    return f"{seeds} seed{'s' if seeds > 1 else ''}, {batches} special batches of {tokens // batches:,} scored tokens each"
