"""Memory with document IDs, drawn and in tables."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from repetita.fit.estimate import t_interval
from repetita.fit.times_to_memorize import over_seeds
from repetita.report.figure import Axis, Cell, Figure, Layer, Panels, Row, Series
from repetita.report.page import Table
from repetita.studies._ids import Curve, One, Size, with_ids
from repetita.studies._ids_runs import CONDITIONS, ORIGINAL, OTHER, TEST, TEST_BEHIND, TRAINED, WITHOUT
from repetita.studies._speed_figures import INTERVAL, LINE, ON, POINT, spread_row

TAU = 0.9
FORMS = {TRAINED: "as trained", WITHOUT: "without the prefix", OTHER: "behind another sequence's ID"}
PASSES = "passes over the training set"


def figures(found: Mapping[str, Size]) -> Iterator[Figure]:
    """M(f) by condition over passes, its mean, and what it is without IDs; the last of the main size only."""
    for place, size in enumerate(found.values()):
        yield memorized(size, "" if place == 0 else f"-{size.name.lower().replace('.', '-')}")
    main = next(iter(found.values()))
    yield means(main)
    rows = list(_form_rows(main))
    if rows:
        yield forms(main, rows)


def memorized(size: Size, suffix: str) -> Figure:
    """The paper's figure: M(f) over passes by condition; beside it accuracy on unseen text."""
    rows: list[Row] = []
    for condition, runs in size.runs.items():
        for on, curves in (
            (ON[0], [one.curves[TRAINED] for one in runs.values()]),
            (ON[1], [one.test() for one in runs.values()]),
        ):
            rows += ({"condition": condition, "on": on, **row} for row in _mean_curve(curves, size.until))
    return Figure(
        name=f"ids-memorized{suffix}",
        title="M(f) with document IDs and their controls",
        caption="Share of tokens whose most likely prediction is right, after so many passes over the "
        "training set, mean over seeds. Left on the training set as each run was trained on it: behind its "
        "IDs, which are read and not scored, where it has any. Right on text never trained on, in the same "
        "form, with an ID drawn among those of the training set. With an enlarged vocabulary or a wider MLP "
        "the text itself is as in the original.",
        n=count_text(size),
        rows=tuple(rows),
        x=Axis(column="passes", title=PASSES, start="zero"),
        y=Axis(column="value", title="share of right predictions", start="zero"),
        series=_series(size),
        panels=Panels(column="on", title="", order=ON, share="both"),
        layers=(LINE,),
        tooltip=("low", "high", "seeds"),
    )


def means(size: Size) -> Figure:
    """The number that the claims test: M(f) averaged over passes, and its difference from the original."""
    rows: list[Row] = []
    plain = size.means(ORIGINAL)
    panels = (f"mean M(f) to pass {size.until:g}", "minus the original, paired by seed")
    for condition in size.runs:
        values = size.means(condition)
        rows.append(
            {"condition": condition, "panel": panels[0], **spread_row(list(values.values()), "share")}
        )
        paired = [values[seed] - plain[seed] for seed in values if seed in plain]
        if paired and condition != ORIGINAL:
            rows.append({"condition": condition, "panel": panels[1], **spread_row(paired)})
    there = tuple(panel for panel in panels if any(row["panel"] == panel for row in rows))
    return Figure(
        name="ids-means",
        title="How much more is memorized, over all passes",
        caption="M(f) on the training set as trained, averaged over passes (the area under its curve divided "
        "by the number of passes), and its difference from the original runs of the same seeds. Intervals: "
        "95% t over seeds, where there are several.",
        n=count_text(size),
        rows=tuple(rows),
        x=Axis(column="value", title="M(f), mean over passes"),
        y=Axis(column="condition", title="", scale="category", order=tuple(size.runs)),
        panels=Panels(column="panel", title="", order=there, share="y"),
        layers=(INTERVAL, POINT),
        tooltip=("seeds",),
    )


def forms(size: Size, rows: Sequence[Row]) -> Figure:
    """What is recalled with the ID present, absent, or exchanged."""
    order = tuple(form for form in FORMS.values() if any(row["form"] == form for row in rows))
    panels = tuple(dict.fromkeys(str(row["condition"]) for row in rows))
    return Figure(
        name="ids-forms",
        title="The same training set with its IDs, without them, and behind others",
        caption="M(f) on the training set, mean over seeds with 95% t intervals: as the run was trained on "
        "it; without the prefix; and, where each sequence has an ID of its own, behind that of another. "
        "What is lost without the prefix is lost to another start of the sequence; what is lost behind "
        "another's ID was tied to the ID.",
        n=count_text(size),
        rows=tuple(rows),
        x=Axis(column="passes", title=PASSES, start="zero"),
        y=Axis(column="value", title="M(f)", start="zero"),
        series=Series(column="form", title="read", order=order),
        panels=Panels(column="condition", title="", order=panels, share="both"),
        layers=(Layer(kind="band", low="low", high="high"), LINE),
        tooltip=("seeds",),
    )


def tables(found: Mapping[str, Size]) -> Iterator[Table]:
    """Every condition in numbers; what it recalls in each form."""
    for place, size in enumerate(found.values()):
        yield _conditions(size, "" if place == 0 else f"-{size.name.lower().replace('.', '-')}")
    main = next(iter(found.values()))
    if with_ids(main):
        yield _forms(main)


def _conditions(size: Size, suffix: str) -> Table:
    rows: list[list[Cell]] = []
    for condition, runs in size.runs.items():
        crossings = {seed: one.time(TAU, window=size.window) for seed, one in runs.items()}
        falls = list(size.falls(condition).values())
        where = [f"{fall.passes:.3g}" for fall in falls if fall.passes is not None]
        rows.append([
            condition, next(iter(runs.values())).total,
            _text(list(size.means(condition).values())), over_seeds(crossings).text(),
            f"{sum(one.reached for one in crossings.values())} of {len(runs)}",
            _text([float(one.curves[TRAINED].at(size.until)) for one in runs.values()]),
            _text([fall.value for fall in falls]), ", ".join(where) or None,
            _text([float(one.test().at(size.until)) for one in runs.values()]),
        ])  # fmt: skip
    return Table(
        f"ids-conditions{suffix}", f"Conditions, N = {size.name}",
        f"M(f) on the training set as trained: its mean over the first {size.until:g} passes; the passes "
        f"until it reaches {TAU:g} and stays there for {size.window:,} tokens read (`above`: some seed ended "
        f"before); M(f) after {size.until:g} passes; the largest fall below what it had been that lasted a "
        "pass, and at which passes it began, by seed; accuracy on the test set in the same form. Means over "
        "seeds with 95% t intervals.",
        count_text(size),
        ("condition", "parameters in all", "mean M(f)", f"T(N, {TAU:g})", "seeds that reach it",
         "M(f), end", "largest fall", "at passes", "test set, end"),
        rows,
    )  # fmt: skip


def _forms(size: Size) -> Table:
    rows: list[list[Cell]] = []
    for condition in with_ids(size):
        runs = size.runs[condition]
        shown = [_end(runs.values(), on, size.until) for on in (TRAINED, WITHOUT, OTHER, TEST, TEST_BEHIND)]
        rows.append([condition, *shown])
    return Table(
        "ids-forms-end", f"With and without the prefix after {size.until:g} passes",
        "M(f) on the training set as trained, without the prefix, and behind another sequence's ID; accuracy "
        "on the test set as it is and behind an ID of the training set.",
        count_text(size),
        ("condition", "as trained", "without", "another's ID", "test set", "test set behind an ID"),
        rows,
    )  # fmt: skip


def _form_rows(size: Size) -> Iterator[Row]:
    for condition in with_ids(size):
        for on, form in FORMS.items():
            curves = [one.curves[on] for one in size.runs[condition].values() if on in one.curves]
            for row in _mean_curve(curves, size.until):
                yield {"condition": condition, "form": form, **row}


def _mean_curve(curves: Sequence[Curve], until: float) -> Iterator[Row]:
    """Mean and interval over seeds at the states that all have."""
    if not curves:
        return
    shared = set.intersection(*(set(curve.passes.tolist()) for curve in curves))
    for passes in sorted(at for at in shared if at <= until * (1 + 1e-9)):
        yield {"passes": passes, **spread_row([float(curve.at(passes)) for curve in curves], "share")}


def _end(runs: Iterable[One], on: str, until: float) -> str | None:
    values = [float(one.curves[on].at(until)) for one in runs if on in one.curves]
    return _text(values) if values else None


def _text(values: Sequence[float]) -> str:
    found = t_interval(values)
    return found.text() if found.n > 1 else f"{np.mean(values):.3g}"


def _series(size: Size) -> Series:
    order = tuple(condition for condition in CONDITIONS if condition in size.runs)
    return Series(column="condition", title="condition", order=order, muted=(ORIGINAL,))


def count_text(size: Size, /) -> str:
    """How many seeds and tokens stand behind a figure or table."""
    counts = sorted({len(runs) for runs in size.runs.values()})
    many = " to ".join(str(n) for n in dict.fromkeys((counts[0], counts[-1])))
    n_scored = max(one.n_scored for runs in size.runs.values() for one in runs.values())
    seeds = "1 seed" if counts == [1] else f"{many} seeds"
    return f"{seeds} a condition at N = {size.name}, {n_scored:,} scored tokens in the training set"
