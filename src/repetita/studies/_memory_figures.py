"""What is kept of one exposure, drawn: figures of the forgetting study."""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from repetita.fit.estimate import t_interval
from repetita.fit.forgetting import FORMS
from repetita.report.figure import Axis, Cell, Figure, Layer, Panels, Row, Rule, Series, Style
from repetita.studies._memory import PER_DECADE, Floats, Kept

if TYPE_CHECKING:
    import polars as pl

SINCE = "updates since exposure (log)"
MEMORIZED = "memorized fraction M(f)"
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
    plain = [cell for cell in once if cell.arm.after == "same"]
    in_nats = [cell for cell in nats if cell.arm.times == 1 and cell.arm.after == "same"]
    if plain and in_nats:
        yield perplexities(plain, nats=in_nats)
    if any(cell.pass_updates for cell in plain):
        yield rates([cell for cell in plain if cell.pass_updates])
    if plain:
        yield forms(plain[-1])
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
    rules = tuple(
        Rule(
            axis="y", at=float(np.mean(list(c.before.values()))), label="before the exposure", panel=_title(c)
        )
        for c in cells
    )
    return Figure(
        name="forgetting-curve",
        title="What one exposure leaves behind",
        caption="M(f), the share of tokens whose argmax is right, on text that was trained on in exactly "
        "one update, against the updates made since (1: right after it). "
        "Training goes on with the same training set. The placebo run is the same run forked at the "
        "exposure, with other text in that update: the gap between the two is memory, the rest "
        "is what a model of this training set guesses without it. Band: 95% t interval over seeds, where "
        "there are several.",
        n=count_text(cells),
        rows=tuple(rows),
        x=Axis(column="x", title=SINCE, scale="log"),
        y=Axis(column="value", title=MEMORIZED),
        series=Series(
            column="on", title="measured on",
            order=("special batch", "same text, placebo run", "never-seen twin"),
            muted=("never-seen twin",),
        ),
        panels=_panels(cells),
        layers=(BAND, LINE),
        rules=rules if len(cells) > 1 else tuple(rule.edit(panel=None) for rule in rules),
        tooltip=("seeds",),
    )  # fmt: skip


def memory_kept(cells: Sequence[Kept]) -> Figure:
    """Memory, a paired difference, by size; going on with the same or with novel data."""
    rows = [row for cell in cells for row in _rows(cell, cell.kept("minus_placebo"), after=after_text(cell))]
    after = tuple(dict.fromkeys(str(row["after"]) for row in rows))
    return Figure(
        name="forgetting-kept",
        title="Memory of one exposure, by model size",
        caption="The difference between the two curves above: M(f) on the special batches minus M(f) on "
        "the same tokens in the run that saw placebo text instead. Where novel data follows, "
        "every later batch is text that is read once.",
        n=count_text(cells),
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
        name="forgetting-dose",
        title="One exposure against several in a row",
        caption="The same paired difference after one exposure and after several in a row, at equal distance "
        "from the last of them.",
        n=count_text(chosen),
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
                    **spread(list(by_seed.values())),
                }
            )
    return Figure(
        name="forgetting-floor",
        title="The forgetting baseline and its controls",
        caption="The paper's baseline is the lowest M(f) on the special batch after the exposure. The "
        "placebo run, which never saw the batch, has one too. What is memory is the difference at "
        "the end of the horizon. Intervals: 95% t over seeds, where there are several.",
        n=count_text(cells),
        rows=tuple(rows),
        x=Axis(column="n_params", title="non-embedding parameters N (log scale)", scale="log"),
        y=Axis(column="value", title="M(f)"),
        series=Series(column="what", title="", order=tuple(dict.fromkeys(str(row["what"]) for row in rows))),
        layers=(INTERVAL, LINE, POINT),
        tooltip=("size", "seeds"),
    )


def perplexities(memorized: Sequence[Kept], *, nats: Sequence[Kept]) -> Figure:
    """M(f) and perplexity of the special batches side by side, each with its placebo (Fig. 14)."""
    what = (MEMORIZED, "perplexity")
    shown = ("special batch", "same text, placebo run")
    rows: list[Row] = []
    for title, cells in zip(what, (memorized, nats), strict=True):
        for cell in cells:
            for on, curves in zip(shown, (cell.special, cell.placebo), strict=True):
                if title == MEMORIZED:
                    rows += _rows(cell, curves, on=on, what=title)
                else:
                    perplexity = {seed: np.exp(values) for seed, values in curves.items()}
                    rows += _rows(cell, perplexity, on=on, what=title)
    return Figure(
        name="forgetting-perplexity",
        title="Memorized fraction and perplexity after the exposure",
        caption="On the special batches after their exposure, and on the same text in the placebo run. In "
        "the paper M(f) flattens while perplexity keeps rising: such a model becomes surer of wrong tokens. "
        "Perplexity is e to the mean loss in nats. Band: 95% t interval over seeds, where there are several.",
        n=count_text(memorized),
        rows=tuple(rows),
        x=Axis(column="x", title="updates since exposure", start="zero"),
        y=Axis(column="value", title="M(f), or perplexity", start="zero"),
        series=Series(
            column="size", title="non-embedding parameters", kind="sequence", order=tuple(_sizes(memorized))
        ),
        style=Style(column="on", title="measured on", order=shown),
        panels=Panels(column="what", title="", order=what, share="x"),
        layers=(LINE, POINT),
        tooltip=("seeds",),
    )


def rates(cells: Sequence[Kept]) -> Figure:
    """Change of M(f) a pass, of the special batches and in the placebo run (Fig. 15)."""
    shown = ("special batch", "same text, placebo run")
    rows: list[Row] = []
    for cell in cells:
        assert cell.pass_updates is not None
        # The end of the horizon can lie next to a point of the grid: their difference would be all noise.
        apart = np.append(cell.x[1:] / cell.x[:-1] > 10 ** (0.5 / PER_DECADE), True)
        passes = (cell.x[apart] - 1) / cell.pass_updates
        for on, curves in zip(shown, (cell.special, cell.placebo), strict=True):
            change = {seed: np.diff(values[apart]) / np.diff(passes) for seed, values in curves.items()}
            for i, middle in enumerate((passes[1:] + passes[:-1]) / 2):
                over_seeds = spread([float(values[i]) for values in change.values()])
                rows.append(
                    {"panel": _title(cell), "size": cell.arm.size, "on": on, "passes": middle, **over_seeds}
                )
    return Figure(
        name="forgetting-rate",
        title="How fast M(f) on the special batches changes",
        caption="Change of M(f) a pass over the training set, between neighbouring states, at the middle of "
        "the two. The paper's diff(T), M(f) after a pass minus M(f) after the one before, starts at about "
        "-0.1 and goes to 0. The placebo run, which never saw the text, changes as well. Band: 95% t "
        "interval over seeds, where there are several.",
        n=count_text(cells),
        rows=tuple(rows),
        x=Axis(column="passes", title="passes since exposure (log)", scale="log"),
        y=Axis(column="value", title="change of M(f) a pass"),
        series=Series(column="on", title="measured on", order=shown),
        panels=_panels(cells),
        layers=(BAND, LINE, POINT),
        rules=(Rule(axis="y", at=0.0, label="no change"),),
        tooltip=("seeds",),
    )


def forms(cell: Kept) -> Figure:
    """The measured curve of one size and the four forms of decay fitted to it."""
    what = {"raw": "special batch", "minus_placebo": "special minus placebo"}
    rows: list[Row] = []
    for how, title in what.items():
        for row in _rows(cell, cell.kept(how)):
            rows.append({**row, "what": title, "form": "measured", "fitted": None})
        for decay in cell.decays(how).decays:
            later = cell.x[cell.x - 1 >= (cell.pass_updates or 0)]
            for x, y in zip(later, decay.predict(later), strict=True):
                rows.append({"what": title, "form": decay.form, "x": float(x), "fitted": float(y)})
    return Figure(
        name="forgetting-forms",
        title="Forms of decay",
        caption=f"N = {cell.arm.size}: the measured curve, mean over seeds, and what is fitted to it: an "
        "exponential and a power law with a floor, a power law to zero, and a straight line in the "
        "logarithm. Fitted from one pass after the exposure on, the first state that the paper looks at. How "
        "well each predicts a seed left out of the fit is in the table.",
        n=count_text([cell]),
        rows=tuple(rows),
        x=Axis(column="x", title=SINCE, scale="log"),
        y=Axis(column="value", title="M(f)"),
        series=Series(column="form", title="", order=("measured", *FORMS)),
        panels=Panels(column="what", title="", order=tuple(what.values()), share="x"),
        layers=(Layer(kind="line", y="fitted"), POINT),
        tooltip=("seeds",),
    )


def memorized_training_set(rows: Sequence[Row]) -> Figure:
    """M on the training set and on the test set over training, in the runs that saw the special batches."""
    return Figure(
        name="forgetting-training-set",
        title="Meanwhile: the training set",
        caption="M(f) on the training set and on the test set in the runs with the special batches, mean "
        "over seeds.",
        n=f"{max(int(row['seeds'] or 0) for row in rows)} seeds a size",
        rows=tuple(rows),
        x=Axis(column="tokens", title="training tokens (log scale)", scale="log"),
        y=Axis(column="value", title=MEMORIZED),
        series=Series(
            column="size", title="non-embedding parameters", kind="sequence",
            order=tuple(dict.fromkeys(row["size"] for row in rows)),
        ),
        panels=Panels(column="on", title="", share="both"),
        layers=(LINE, POINT),
    )  # fmt: skip


def _training(table: "pl.DataFrame") -> Iterator[Row]:
    import polars as pl

    chosen = table.filter(
        (pl.col("probe") == "train") & (pl.col("metric") == "memorized") & (pl.col("arm") == "special")
        & (pl.col("after") == "same") & (pl.col("times") == 1) & (pl.col("step") > 0)
        & pl.col("value").is_not_null()
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


def _rows(cell: Kept, curves: Mapping[Hashable, Floats], **more: Cell) -> list[Row]:
    """Mean and interval over seeds at every x."""
    found: list[Row] = []
    for i, x in enumerate(cell.x):
        over_seeds = spread([float(values[i]) for values in curves.values()])
        found.append({"panel": _title(cell), "size": cell.arm.size, "x": float(x), **more, **over_seeds})
    return found


def spread(values: Sequence[float], /) -> Row:
    """Mean and t interval over seeds as columns; one seed has no interval but its own value."""
    found = t_interval(values)
    low, high = (found.value, found.value) if found.n < 2 else (found.low, found.high)
    return {"value": found.value, "low": low, "high": high, "seeds": found.n}


def _panels(cells: Sequence[Kept]) -> Panels | None:
    order = tuple(_title(cell) for cell in cells)
    return Panels(column="panel", title="", order=order, share="both") if len(cells) > 1 else None


def _title(cell: Kept) -> str:
    return f"N = {cell.arm.size}"


def after_text(cell: Kept, /) -> str:
    """What the training goes on with."""
    return "then the same data again" if cell.arm.after == "same" else "then novel data only"


def _sizes(cells: Sequence[Kept]) -> list[str]:
    return list(dict.fromkeys(cell.arm.size for cell in sorted(cells, key=lambda cell: cell.n_params)))


def count_text(cells: Sequence[Kept], /) -> str:
    """How many seeds and tokens stand behind a figure or table."""
    counts = sorted({len(cell.special) for cell in cells})
    seeds = (
        "1 seed" if counts == [1] else f"{' to '.join(str(n) for n in {counts[0]: 0, counts[-1]: 0})} seeds"
    )
    batches, tokens = cells[0].n_batches, cells[0].n_tokens // cells[0].n_batches
    return f"{seeds}, {batches} special batches of {tokens:,} scored tokens each"
