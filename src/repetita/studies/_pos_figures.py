"""Parts of speech, drawn and in numbers: figures and tables of the study."""

import math
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from repetita.corpus.parts_of_speech import CLASSES, PAPER_CLASSES
from repetita.corpus.taggers import GOLD_AGREEMENT
from repetita.fit.times_to_memorize import over_seeds
from repetita.report.figure import Axis, Cell, Figure, Layer, Panels, Row, Series
from repetita.report.page import Table
from repetita.studies._pos import TEST, TRAIN, Control, Floats, Rate, Run, of_size
from repetita.studies._speed_figures import spread_row

BAND, LINE, POINT = Layer(kind="band", low="low", high="high"), Layer(kind="line"), Layer(kind="point")
INTERVAL = Layer(kind="interval", low="low", high="high")
PASSES = "passes over the training set (log scale)"
PANELS = ("training set", "test set, never seen", "excess: training set less test set")
CLASS = Series(column="class", title="part of speech", order=PAPER_CLASSES)
WHICH = (
    "Only positions count where the true and the predicted token are one whole word each; a prediction that "
    "is another word is put into the true sentence and tagged there. "
)
SHADE = "Band: 95% t interval over seeds, where there are several; of shares cut at 0 and 1."


def figures(found: Sequence[Run], *, main: str) -> Iterator[Figure]:
    """R_mem and R over passes, precision, half-times by size, the same with frequency controlled."""
    runs = of_size(found, main)
    if runs:
        yield _curves(
            runs, "memorized", name="pos-memorized", title="Words known by heart, by part of speech"
        )
        yield _curves(runs, "recall", name="pos-recall", title="Part of speech predicted right")
        yield _precision(runs)
    rows = [*_half_rows(found, "none"), *_half_rows(found, "frequency")]
    if rows:
        yield _half_times(rows, found)


def _curves(runs: Sequence[Run], of: Rate, *, name: str, title: str) -> Figure:
    rows: list[Row] = []
    for part in PAPER_CLASSES:
        readings: tuple[tuple[str, list[Floats]], ...] = (
            (PANELS[0], [run.rate(part, of, on=TRAIN) for run in runs]),
            (PANELS[1], [run.rate(part, of, on=TEST) for run in runs]),
            (PANELS[2], [run.excess(part, of) for run in runs]),
        )
        for panel, curves in readings:
            rows += _over_passes(runs, curves, {"class": part, "panel": panel})
    symbol = "R_mem(p)" if of == "memorized" else "R(p)"
    what = (
        f"{symbol}, the share of words of a class whose argmax is the word itself, teacher-forced. "
        if of == "memorized"
        else f"{symbol}, the share of words of a class whose argmax is a word of that class, right or not. "
    )
    return Figure(
        name=name,
        title=title,
        caption=f"{what}{WHICH}Only the excess over text never trained on speaks of memory. N = "
        f"{runs[0].size}. {SHADE}",
        n=count_text(runs),
        rows=rows,
        x=Axis(column="passes", title=PASSES, scale="log"),
        y=Axis(column="value", title=symbol),
        series=CLASS,
        panels=Panels(column="panel", title="", order=PANELS),
        layers=(BAND, LINE, POINT),
    )


def _precision(runs: Sequence[Run]) -> Figure:
    rows: list[Row] = []
    for part in PAPER_CLASSES:
        for on, panel in ((TRAIN, PANELS[0]), (TEST, PANELS[1])):
            curves = [run.precision(part, on=on) for run in runs]
            rows += _over_passes(runs, curves, {"class": part, "panel": panel})
    return Figure(
        name="pos-precision",
        title="How often a class is right when it is predicted",
        caption="Precision: of all predicted words of a class, the share that stands where a word of that "
        "class does, with all classes as frequent as they are in the set. A model that always says a noun "
        f"has R(noun) = 1 and a precision of the nouns' share. N = {runs[0].size}. {SHADE}",
        n=count_text(runs),
        rows=rows,
        x=Axis(column="passes", title=PASSES, scale="log"),
        y=Axis(column="value", title="precision"),
        series=CLASS,
        panels=Panels(column="panel", title="", order=PANELS[:2]),
        layers=(BAND, LINE, POINT),
    )


RATES: tuple[Rate, ...] = ("memorized", "recall")
CONTROLS: dict[Control, str] = {"none": "as they are", "frequency": "equally frequent words compared"}


def _half_rows(found: Sequence[Run], control: Control) -> Iterator[Row]:
    for size in dict.fromkeys(run.size for run in found):
        for part in PAPER_CLASSES:
            crossed = [run.half_time(part, control=control) for run in of_size(found, size)]
            at = [one.x for one in crossed if one is not None and one.x is not None]
            if at and len(at) == len(crossed):
                spread = spread_row(at, "log")
                yield {
                    "class": part, "size": f"N = {size}", "control": CONTROLS[control],
                    "passes": spread["value"], "low": spread["low"], "high": spread["high"],
                }  # fmt: skip


def _half_times(rows: list[Row], found: Sequence[Run]) -> Figure:
    return Figure(
        name="pos-half-times",
        title="Passes until half is memorized, by part of speech",
        caption="Passes until the excess of R_mem over the never-seen test set is half of what it is at the "
        "end of the run, and stays so. Right: rates standardised over strata of how often a token occurs in "
        "the training set. Bars: 95% t intervals over seeds, on the logarithm. A class that never gets there "
        "in some seed is left out, and is in the table.",
        n=count_text(found),
        rows=rows,
        x=Axis(column="passes", title=PASSES, scale="log"),
        y=Axis(column="class", title="part of speech", scale="category", order=PAPER_CLASSES),
        series=Series(column="size", title="non-embedding parameters", kind="category"),
        panels=Panels(column="control", title="", order=tuple(CONTROLS.values())),
        layers=(INTERVAL, POINT),
    )


def _over_passes(runs: Sequence[Run], curves: Sequence[Floats], named: Row) -> Iterator[Row]:
    """Mean and interval over seeds at each state behind the start."""
    n = min(len(curve) for curve in curves)
    for i in range(n):
        values = [float(curve[i]) for curve in curves]
        if runs[0].passes[i] > 0 and all(map(math.isfinite, values)):
            scale = "linear" if named["panel"] == PANELS[2] else "share"
            yield {**named, "passes": float(runs[0].passes[i]), **spread_row(values, scale)}


def tables(found: Sequence[Run], *, main: str) -> Iterator[Table]:
    """Speed and end by class and size; the classes, their tagger, and how far it can be trusted."""
    yield _speed(found)
    runs = of_size(found, main) or list(found)
    yield _classes(runs)


def _speed(found: Sequence[Run]) -> Table:
    rows: list[list[Cell]] = []
    for size in dict.fromkeys(run.size for run in found):
        runs = of_size(found, size)
        for part in PAPER_CLASSES:
            half = [_half_text(runs, part, control) for control in CONTROLS]
            rates = [
                _mean([run.rate(part, of, on=on) for run in runs]) for of in RATES for on in (TRAIN, TEST)
            ]
            precisions = [_mean([run.precision(part, on=on) for run in runs]) for on in (TRAIN, TEST)]
            rows.append([size, part, *half, *rates, *precisions])
    return Table(
        "pos-speed", "Speed and end, by part of speech",
        "Passes until the excess of R_mem over the never-seen test set is half of what it is at the end "
        "(geometric mean over seeds, 95% t interval), as the words are and with equally frequent ones "
        "compared; then the last state: R_mem, R and precision on both sets, means over seeds.",
        count_text(found),
        (
            "N", "class", "passes to half", "the same, frequency controlled", "R_mem", "R_mem, test", "R",
            "R, test", "precision", "precision, test",
        ),
        rows,
    )  # fmt: skip


def _half_text(runs: Sequence[Run], part: str, control: Control) -> str:
    crossed = {run.seed: run.half_time(part, control=control) for run in runs}
    known = {seed: one for seed, one in crossed.items() if one is not None}
    if len(known) < len(crossed):
        return "no excess at the end" if control == "none" else "too few words, or no excess"
    return over_seeds(known).text()


def _mean(curves: Sequence[Floats]) -> float | None:
    """Of the last values, over seeds."""
    ends = [float(curve[-1]) for curve in curves]
    return float(f"{np.mean(ends):.3g}") if np.isfinite(ends).all() else None


def _classes(runs: Sequence[Run]) -> Table:
    """What was tagged how, and the tagger's agreement with another one on this text."""
    run = runs[0]
    by_class = (run.agreement or {}).get("by_class", {})
    rows: list[list[Cell]] = []
    for number, name in enumerate(CLASSES):
        if number and (run.total[TRAIN][number] or run.total[TEST][number]):
            agreed = by_class.get(name)
            rows.append(
                [
                    name, *(int(run.total[on][number]) for on in (TRAIN, TEST)),
                    *(int(run.confusion[on][0, number].sum()) for on in (TRAIN, TEST)),
                    None if agreed is None else float(f"{agreed:.3g}"),
                ]
            )  # fmt: skip
    return Table(
        "pos-classes", "The classes and their tagger",
        f"Tagged by {run.tagger}. {agreement_text(run)} Words: positions of one run whose target is one "
        "whole word; looked at: those of the fixed sample. Modal verbs and all forms of be, have and do are "
        "auxiliary; determiners are pronouns.",
        f"one run of N = {run.size}, seed {run.seed}",
        ("class", "words, training set", "words, test set", "looked at, training set", "looked at, test set",
         "agreement of taggers"),
        rows,
    )  # fmt: skip


def agreement_text(run: Run) -> str:
    """How far the tagger agrees with gold tags and, on a sample of this corpus, with another tagger."""
    gold = GOLD_AGREEMENT.get(run.tagger.partition(" ")[0])
    known = "" if gold is None else f"It gives {gold:.1%} of the words of the Brown corpus their gold class. "
    if run.agreement is None:
        return f"{known}No second tagger was installed to compare it with on this text."
    told = run.agreement
    return (
        f"{known}On {told['words']:,} words of this corpus, {told['with']} cuts {told['same_words']:.1%} of "
        f"the words alike and gives {told['same_class']:.1%} of these the same class."
    )


def count_text(runs: Iterable[Run]) -> str:
    """Runs and seeds behind a figure."""
    listed = list(runs)
    seeds = len({run.seed for run in listed})
    return f"{len(listed)} runs, {seeds} seed{'s' if seeds > 1 else ''}; counts in the measurements' detail"
