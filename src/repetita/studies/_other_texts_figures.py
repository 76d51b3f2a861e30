"""Figures and tables of what repeated data costs on other texts."""

import math
from collections.abc import Iterator

from repetita.fit.effective_size import effective_size
from repetita.fit.estimate import Estimate, t_interval
from repetita.report.figure import Axis, Cell, Figure, Layer, Panels, Row, Rule, Series
from repetita.report.page import Table
from repetita.studies._damage_figures import INTERVAL, INTERVALS, PASSES, count_text, drawn, spread
from repetita.studies._grid import Line, Losses, line_text, mean
from repetita.studies._other_texts import Ratios, Reading, Texts, closed, extra, means, sizes

LINE, POINT = Layer(kind="line"), Layer(kind="point")
READ = (
    "Sizes are read between neighbouring controls on the same text, over that of the control of the same "
    "size and seed, which has 1 by definition."
)

EQUAL = "the same on both"


def figures(there: Texts) -> Iterator[Figure]:
    """The figures that the measurements allow, in the order of the page."""
    for make in (by_share, beside_own, excess, controls):
        figure = make(there)
        if figure is not None:
            yield figure


def tables(there: Texts) -> Iterator[Table]:
    """Means over sizes as in the paper's figure, every cell, and the controls on each text."""
    yield _means(there)
    yield _cells(there)
    yield _controls(there)


def by_share(there: Texts) -> Figure | None:
    """The paper's figure: the multiplier on another text over that on the own one, by share."""
    rows: list[Row] = []
    for reading in there.others:
        for line in there.lines:
            found = _closed(extra(there, reading, line=line))
            if found is not None:
                rows.append({"text": reading.title, "size": line[0], "fraction": line[1],
                             "passes": there.at(line), **drawn(found, value="extra")})  # fmt: skip
    if not rows:
        return None
    return Figure(
        name="other-text-extra",
        title="Does text of another kind lose more?",
        caption="Effective size on another text, divided by effective size on the own test text, at the "
        "passes that are worst on the latter: below 1 the other text is hit harder. The paper's Fig. 10 has "
        f"0.84 at f = 0.5 and 0.75 at f = 0.9 for Python. {READ} Cells whose loss lies outside the ladder on "
        f"either text are left out (see the table), the worst among them. {INTERVALS}",
        n=count_text(there.own.grid),
        rows=tuple(rows),
        x=Axis(column="fraction", title="share f of the data that is repeated (log scale)", scale="log"),
        y=Axis(column="extra", title="multiplier on it / on the own text (log)", scale="log"),
        series=_sizes(there),
        panels=_text_panels(there, rows),
        layers=(INTERVAL, LINE, POINT),
        rules=(Rule(axis="y", at=1.0, label="no extra damage"),),
        tooltip=("passes", "seeds"),
    )


def beside_own(there: Texts) -> Figure | None:
    """Every cell: the multiplier on another text against that on the own one."""
    rows: list[Row] = []
    for reading in there.others:
        for line, passes, losses in _all_cells(reading):
            own = there.own.grid.repeated.get(line, {}).get(passes, {})
            here = _closed(sizes(reading, size=line[0], losses=losses))
            before = _closed(sizes(there.own, size=line[0], losses=own))
            if here is not None and before is not None:
                rows.append({"text": reading.title, "share": f"f = {line[1]:g}", "size": line[0],
                             "passes": passes, "own": before.value,
                             **drawn(here, value="other")})  # fmt: skip
    if not rows:
        return None
    ends = [float(row["own"] or 1) for row in rows]
    for text in dict.fromkeys(row["text"] for row in rows):
        rows += [{"text": text, "share": EQUAL, "own": at, "equal": at} for at in (min(ends), max(ends))]
    shares = tuple(f"f = {share:g}" for share in dict.fromkeys(line[1] for line in there.lines))
    return Figure(
        name="other-text-multipliers",
        title="Effective size on another text against that on the own one",
        caption="Every cell of the grid, all passes, that the ladders of controls hold on both texts. On the "
        f"dashed line both lose the same; below it the other text loses more. {READ} {INTERVALS}",
        n=count_text(there.own.grid),
        rows=tuple(rows),
        x=Axis(column="own", title="multiplier on the own test text (log)", scale="log"),
        y=Axis(column="other", title="multiplier on the other text (log)", scale="log"),
        series=Series(column="share", title="share", kind="sequence", order=(*shares, EQUAL), muted=(EQUAL,)),
        panels=_text_panels(there, rows),
        layers=(Layer(kind="line", y="equal", dash="dashed"), INTERVAL, POINT),
        tooltip=("size", "passes", "seeds"),
    )


def excess(there: Texts) -> Figure | None:
    """Excess nats over passes on every text, also where no size can be read."""
    rows: list[Row] = []
    for reading in (there.own, *there.others):
        for line, passes, _ in _all_cells(reading):
            if found := reading.grid.excess(line, passes):
                rows.append({"text": reading.title, "line": line_text(line), "passes": passes,
                             **spread(found)})  # fmt: skip
    if not rows:
        return None
    order = tuple(line_text(line) for line in there.lines)
    return Figure(
        name="other-text-excess",
        title="What repetition costs on each text, in nats",
        caption="Final loss minus that of the control of the same size and seed. A nat on one text is not "
        "worth a nat on another: their controls gain differently from size (see the ladder), and scatter "
        f"differently between seeds: {_scatter(there)}. {INTERVALS}",
        n=count_text(there.own.grid),
        rows=tuple(rows),
        x=Axis(column="passes", title=PASSES, scale="log"),
        y=Axis(column="loss", title="excess loss, nats a token"),
        series=Series(column="text", title="text", order=_titles(there)),
        panels=Panels(column="line", title="", order=order, share="x") if len(order) > 1 else None,
        layers=(INTERVAL, LINE, POINT),
        rules=(Rule(axis="y", at=0.0, label="control"),),
        tooltip=("seeds",),
    )


def controls(there: Texts) -> Figure | None:
    """The control ladder on each text, with its law."""
    rows: list[Row] = []
    for reading in (there.own, *there.others):
        grid = reading.grid
        for size in sorted(grid.control, key=lambda one: grid.n_params[one]):
            law = None if reading.scan is None else float(reading.scan.law.predict(grid.n_params[size]))
            rows.append({"text": reading.title, "size": size, "n_params": grid.n_params[size], "law": law,
                         **spread(grid.control[size])})  # fmt: skip
    own = there.own.grid
    return Figure(
        name="other-text-controls",
        title="The ladder of controls on each text",
        caption="Runs on unique data only, by size; dashed: the fitted power law, the paper's way to sizes. "
        "Where a text's loss is above ln V, or does not clearly fall, it has no effective sizes. "
        f"{INTERVALS}",
        n=f"{sum(len(losses) for losses in own.control.values())} control runs of {len(own.control)} sizes",
        rows=tuple(rows),
        x=Axis(column="n_params", title="non-embedding parameters N (log scale)", scale="log"),
        y=Axis(column="loss", title="loss, nats a token (log scale)", scale="log"),
        series=Series(column="text", title="text", order=_titles(there)),
        layers=(INTERVAL, POINT, Layer(kind="line", y="law", dash="dashed")),
        rules=(Rule(axis="y", at=math.log(own.vocab_size), label="ln V: a uniform guess"),),
        tooltip=("size", "seeds"),
    )


def _scatter(there: Texts) -> str:
    """Standard deviation between the seeds of the controls of one size, by text."""
    known = [(one.title, one.scan.seed_sd) for one in (there.own, *there.others) if one.scan is not None]
    told = [f"{title} {sd:.2f}" for title, sd in known if sd is not None]
    return "standard deviation at one size, nats: " + ", ".join(told) if told else "one seed so far"


def _all_cells(reading: Reading) -> Iterator[tuple[Line, float, Losses]]:
    for line in reading.grid.lines():
        for passes, losses in reading.grid.repeated[line].items():
            yield line, passes, losses


def _closed(ratios: Ratios) -> Estimate | None:
    """Over all seeds, where none is an open bound."""
    if not ratios or None in ratios.values():
        return None
    return t_interval(list(closed(ratios).values()), scale="log")


def _titles(there: Texts) -> tuple[str, ...]:
    return tuple(reading.title for reading in (there.own, *there.others))


def _text_panels(there: Texts, rows: list[Row]) -> Panels | None:
    drawn_texts = {row["text"] for row in rows}
    order = tuple(title for title in _titles(there) if title in drawn_texts)
    return Panels(column="text", title="", order=order, share="both") if len(order) > 1 else None


def _sizes(there: Texts) -> Series:
    n_params = there.own.grid.n_params
    order = sorted({line[0] for line in there.lines}, key=lambda size: n_params.get(size, 0))
    return Series(column="size", title="non-embedding parameters", kind="sequence", order=tuple(order))


def _means(there: Texts) -> Table:
    rows: list[list[Cell]] = [
        [reading.title, f"{share:g}", ", ".join(of) or None, None if found is None else found.text(digits=2),
         n_open, None if found is None else found.n]
        for reading, share, of, found, n_open in means(there)
    ]  # fmt: skip
    return Table(
        "other-text-means", "Extra on other texts, mean over sizes",
        "Multiplier on the text over that on the own test text, harmonic mean over sizes (as in the paper's "
        "Fig. 10), at the worst passes on the own text, with a 95% t interval over the seeds that have all "
        "of these sizes. The paper has 0.84 at f = 0.5 and 0.75 at 0.9 for Python. Open: lines with a loss "
        "outside the ladder on either text, or with no run, which are in no mean.",
        count_text(there.own.grid), ("text", "f", "sizes", "extra", "open", "seeds"), rows,
    )  # fmt: skip


def _cells(there: Texts) -> Table:
    rows: list[list[Cell]] = []
    for reading in (there.own, *there.others):
        for line, passes, losses in _all_cells(reading):
            rows.append([
                reading.title, line[0], f"{line[1]:g}", f"{passes:g}", f"{mean(losses):.3f}",
                _nats(reading, line, passes), *_read(reading, line[0], losses), len(losses),
            ])  # fmt: skip
    return Table(
        "other-texts", "Every cell on every text",
        f"Means over seeds with 95% t intervals. {READ} By the law: the fitted law of the controls on that "
        "text inverted, over N, wherever it leads, as in the paper.",
        count_text(there.own.grid),
        ("text", "N", "f", "passes E", "loss", "excess, nats", "multiplier", "by the law", "seeds"),
        rows,
    )  # fmt: skip


def _nats(reading: Reading, line: Line, passes: float) -> str | None:
    found = reading.grid.excess(line, passes)
    return t_interval(list(found.values())).text(digits=2) if found else None


def _read(reading: Reading, size: str, losses: Losses) -> tuple[str | None, str | None]:
    """The multiplier, or which bound it is, and that of the law."""
    if reading.scan is None or reading.unfit:
        return None, None
    n_params = float(reading.grid.n_params[size])
    between = effective_size(reading.scan, n_params=n_params, losses=losses, method="interpolation")
    paired = _closed(sizes(reading, size=size, losses=losses))
    note = f" ({between.note})" if between.note else ""
    shown = (paired or between.multiplier).text(digits=2) + note
    law = between.extrapolated
    return shown, None if law is None else f"{law / n_params:.2g}"


def _controls(there: Texts) -> Table:
    rows: list[list[Cell]] = []
    for reading in (there.own, *there.others):
        grid = reading.grid
        exponent = None if reading.scan is None else reading.scan.law.estimates()["exponent"].text(digits=2)
        for size in sorted(grid.control, key=lambda one: grid.n_params[one]):
            losses = grid.control[size]
            rows.append([reading.title, size, grid.n_params[size],
                         t_interval(list(losses.values())).text(), exponent, "no" if reading.unfit else "yes",
                         len(losses)])  # fmt: skip
    return Table(
        "other-text-ladder", "The ladder of controls on each text",
        "Loss of runs on unique data only, and the exponent alpha of its law, loss = (N_c / N)^alpha. "
        "No sizes are read on a text where the page says so under 'Read with care'.",
        f"{len(rows)} cells",
        ("text", "N", "non-embedding", "loss", "alpha", "sizes are read", "seeds"), rows,
    )  # fmt: skip
