"""What windows of repetition do to induction heads, drawn and in tables."""

from collections.abc import Iterator, Sequence

from repetita.report.figure import Axis, Figure, Panels, Row, Rule, Series
from repetita.report.figure import Cell as TableCell
from repetita.report.page import Table
from repetita.studies._arm_figures import text
from repetita.studies._causality import (
    KEPT,
    METRICS,
    Causality,
    Cell,
    closed,
    control,
    excess,
    fates,
)
from repetita.studies._causality_runs import AFTER, ARMS, BEFORE, CONTROL, THROUGHOUT, WITHDRAWN
from repetita.studies._damage_figures import INTERVAL, INTERVALS, LINE, POINT, spread
from repetita.studies._grid import minus
from repetita.studies._heads import FORMED

SHOWN = {
    CONTROL: "control",
    THROUGHOUT: "from start to end",
    BEFORE: "early window",
    AFTER: "late window",
    WITHDRAWN: "withdrawn half-way",
}
BEST_HEAD, OTHERS = "highest-scoring", "others, as many"
Line = tuple[str, float]


def figures(found: Causality, *, lines: Sequence[Line]) -> Iterator[Figure]:
    """The figures that the measurements allow, of the line that is judged; what heads carry, of all."""
    if lines:
        size, passes = lines[0]
        cells = [cell for cell in found.cells(size) if cell[2] in (None, passes)]
        yield from heads(found, cells)
        yield from losses(found, cells)
        yield from copies(found, cells)
    yield from carried(found, lines)


def heads(found: Causality, cells: Sequence[Cell]) -> Iterator[Figure]:
    """The best head of each run over training, by arm: heads are there or not, and a mean is neither."""
    rows: list[Row] = [
        {"arm": SHOWN[cell[1]], "seed": str(seed), "step": step, "loss": score}
        for cell in cells
        for seed, course in found.best[cell].items()
        for step, score in zip(*course, strict=True)
    ]
    if rows:
        yield Figure(
            name="causality-heads",
            title="The best head over training, by when text is repeated",
            caption=f"Prefix-matching score of the best head, attention a query; a line a run. {FORMED:g} is "
            f"where heads count as formed. {_windows(found, cells)}",
            n=_count(found, cells),
            rows=tuple(rows),
            x=Axis(column="step", title="step", start="zero"),
            y=Axis(column="loss", title="prefix-matching score, best head", start="zero"),
            series=Series(column="seed", title="seed"),
            panels=Panels(
                column="arm", title="", order=tuple(SHOWN[cell[1]] for cell in cells), share="both"
            ),
            layers=(LINE,),
            rules=(Rule(axis="y", at=FORMED, label="formed"), *_ends(found, cells)),
        )


def losses(found: Causality, cells: Sequence[Cell]) -> Iterator[Figure]:
    """Extra test loss over training, by arm."""
    rows: list[Row] = [
        {"arm": SHOWN[cell[1]], "step": step, **spread(values)}
        for cell in cells
        if cell[1] != CONTROL
        for step, values in excess(found, cell).items()
    ]
    if rows:
        treated = [cell for cell in cells if cell[1] != CONTROL]
        yield Figure(
            name="causality-test-loss",
            title="Extra test loss over training, by when text is repeated",
            caption=f"Test loss minus that of the control of the same seed. {_windows(found, cells)} "
            f"{INTERVALS}",
            n=_count(found, treated),
            rows=tuple(rows),
            x=Axis(column="step", title="step", start="zero"),
            y=Axis(column="loss", title="extra test loss, nats a token"),
            series=_series(treated),
            layers=(INTERVAL, LINE, POINT),
            rules=(Rule(axis="y", at=0.0, label="control"), *_ends(found, cells)),
            tooltip=("seeds",),
        )


def copies(found: Causality, cells: Sequence[Cell]) -> Iterator[Figure]:
    """Loss on copies of random tokens at the ends of the windows, by arm."""
    rows: list[Row] = []
    for cell in cells:
        by_seed = found.states.get("copying_loss_none", {}).get(cell, {})
        for step in sorted({step for values in by_seed.values() for step in values}):
            values = found.value("copying_loss_none", cell, step=step)
            rows.append({"arm": SHOWN[cell[1]], "step": step, **spread(values)})
    if rows:
        yield Figure(
            name="causality-copying",
            title="Copying random tokens, by when text is repeated",
            caption="Loss on random tokens that were read before in the same sequence, where nothing but "
            f"copying helps. {_windows(found, cells)} {INTERVALS}",
            n=_count(found, cells),
            rows=tuple(rows),
            x=Axis(column="step", title="step", start="zero"),
            y=Axis(column="loss", title="loss, nats a copied token", start="zero"),
            series=_series(cells),
            layers=(INTERVAL, LINE, POINT),
            rules=tuple(_ends(found, cells)),
            tooltip=("seeds",),
        )


def carried(found: Causality, lines: Sequence[Line]) -> Iterator[Figure]:
    """What is lost without the highest heads and without others, at the ends of the runs."""
    rows: list[Row] = []
    for cell in _ended(found, lines):
        end = found.end(cell)
        for metric, name in METRICS.items():
            whole = found.value(f"{metric}_none", cell, step=end)
            for out, heads_ in (("top", BEST_HEAD), ("random", OTHERS)):
                lost = minus(found.value(f"{metric}_{out}", cell, step=end), whole)
                if lost:
                    rows.append({"arm": _arm(cell), "of": name, "heads": heads_, **spread(lost)})
    if rows:
        yield Figure(
            name="causality-carried",
            title="What heads carry at the end of training",
            caption="Loss without some heads minus loss with all, attention patterns as they are with all "
            "(pattern-preserving ablation): the heads with the highest prefix-matching score in the run "
            "itself, and as many others. The in-context score is late minus early loss, so that a gain from "
            f"context that is lost counts above zero, too. {INTERVALS}",
            n=f"{len({row['arm'] for row in rows})} arms",
            rows=tuple(rows),
            x=Axis(column="loss", title="lost without these heads, nats", start="zero"),
            y=Axis(column="arm", title="", scale="category"),
            series=Series(column="heads", title="heads left out", order=(BEST_HEAD, OTHERS)),
            panels=Panels(column="of", title="", order=tuple(METRICS.values()), share="y"),
            layers=(INTERVAL, POINT),
            rules=(Rule(axis="x", at=0.0, label="nothing"),),
            tooltip=("seeds",),
        )


def tables(found: Causality, *, lines: Sequence[Line]) -> Iterator[Table]:
    """Each run's fate, and what its heads carry."""
    rows: list[list[TableCell]] = []
    for cell in _treated(found, lines):
        shut = closed(found, cell[0])
        window = found.windows[cell]
        for one in fates(found, cell):
            rows.append([
                _arm(cell), str(one.seed), f"{window.start} to {window.stop} of {window.steps}",
                one.control.text(), one.own.text(), round(one.at_stop, 3), round(one.at_end, 3),
                None if one.kept is None else round(one.kept, 2),
                "not judged" if shut else one.words,
            ])  # fmt: skip
    if rows:
        yield Table(
            "causality-fates",
            "What became of the heads of each run",
            f"Rules fixed before any run. Formed: the best head stays at {FORMED:g} or above. When the "
            "repetition ends, a run's heads are prevented (never formed, while the control's have), "
            f"destroyed (formed once, below {FORMED:g} now), masked (at {FORMED:g} or above, but the "
            f"in-context gain is under {KEPT:g} of the control's) or intact; not due yet: the control has "
            f"none either. Returned: at {FORMED:g} or above when the run ends. Not judged: the gate is not "
            "passed, as the page says under 'Read with care'.",
            f"{len(rows)} treated runs",
            ("Arm", "Seed", "Repeated in steps", "Control's heads form", "Own heads form",
             "Score when repetition ends", "Score at the end", "In-context gain kept", "Fate"),
            rows,
        )  # fmt: skip
    parts = [list(_parts(found, cell)) for cell in _ended(found, lines)]
    if any(parts):
        yield Table(
            "causality-ablation",
            "What heads carry, in numbers",
            "Nats a token at the end of each run, means over seeds with 95% t intervals: with all heads, "
            "without the highest-scoring ones, without as many others. Carried: the second minus the third. "
            "Through heads: the part of the damage (treated minus control with all heads) that is gone when "
            "both are read without their highest heads.",
            f"{len(parts)} arms",
            ("Arm", "Measure", "All heads", "Without the highest", "Without others", "Carried", "Damage",
             "Through heads", "Seeds"),
            [row for own in parts for row in own],
        )  # fmt: skip


def _parts(found: Causality, cell: Cell) -> Iterator[list[TableCell]]:
    end, own = found.end(cell), control(cell[0])
    for metric, name in METRICS.items():
        whole, top, random = (
            found.value(f"{metric}_{out}", cell, step=end) for out in ("none", "top", "random")
        )
        if not whole:
            continue
        damage = {} if cell == own else minus(whole, found.value(f"{metric}_none", own, step=end))
        without = minus(top, found.value(f"{metric}_top", own, step=end))
        through = {seed: value - without[seed] for seed, value in damage.items() if seed in without}
        yield [
            _arm(cell), name, text(whole), text(top), text(random),
            text(found.carried(metric, cell, step=end)), text(damage), text(through), len(whole),
        ]  # fmt: skip


def _treated(found: Causality, lines: Sequence[Line]) -> list[Cell]:
    return [
        (size, arm, passes) for size, passes in lines for arm in ARMS[1:] if (size, arm, passes) in found.best
    ]


def _ended(found: Causality, lines: Sequence[Line]) -> list[Cell]:
    """Controls and treated cells in the order of the lines."""
    sizes = dict.fromkeys(size for size, _ in lines)
    own = [cell for size in sizes if (cell := control(size)) in found.windows]
    return [*own, *_treated(found, lines)]


def _arm(cell: Cell) -> str:
    """`64: late window, 512 passes`."""
    passes = "" if cell[2] is None else f", {cell[2]:g} passes"
    return f"{cell[0]}: {SHOWN[cell[1]]}{passes}"


def _series(cells: Sequence[Cell]) -> Series:
    order = tuple(SHOWN[arm] for arm in ARMS if arm in [cell[1] for cell in cells])
    return Series(column="arm", title="repeated", order=order, muted=(SHOWN[CONTROL],))


def _ends(found: Causality, cells: Sequence[Cell]) -> Iterator[Rule]:
    """Where windows begin and end inside the run."""
    inside = {step for cell in cells for step in found.windows[cell][:2]}
    last = max(found.windows[cell].steps for cell in cells)
    for step in sorted(inside - {0, last}):
        yield Rule(axis="x", at=float(step), label="")


def _windows(found: Causality, cells: Sequence[Cell]) -> str:
    told = [
        f"{SHOWN[cell[1]]}: {found.windows[cell].start} to {found.windows[cell].stop}"
        for cell in cells
        if cell[1] != CONTROL
    ]
    passes = next((f"{cell[2]:g} passes" for cell in cells if cell[2] is not None), "")
    return (
        f"Steps in which text is repeated ({passes} in each, at the same share): {'; '.join(told)}."
        if told
        else ""
    )


def _count(found: Causality, cells: Sequence[Cell]) -> str:
    runs = sum(len(found.best[cell]) for cell in cells)
    return f"{runs} runs of {len(cells)} arms, N = {cells[0][0]}"
