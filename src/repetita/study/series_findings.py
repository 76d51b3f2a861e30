"""What a series of checkpoints says: rises, losses, onsets and effects of reading, as claims and tables."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from repetita.fit.claim import Claim, from_estimate, undecided
from repetita.fit.course import RISES, difference_in_differences, lost, onset, rises
from repetita.fit.estimate import Crossing, Estimate
from repetita.fit.forgetting import FLOORED
from repetita.report.figure import Cell
from repetita.report.page import Table
from repetita.study.series_rows import SHARES, GroupCurve, TextCurves

EFFECTS = ("memorized", "extractable_", "memorization_score_", "loss", "bits_per_byte")
"""How the metrics begin whose change by reading is estimated."""
PREFIX = "prefix_query_max"
"""The prefix-matching score of the best head, a query."""

RULE = "95% interval over texts apart from 0; one training illustrates and never supports"
SOURCE = "not in a paper: difference in differences over texts"


class Effect(NamedTuple):
    """What reading texts changed in one metric of one series."""

    series: str
    metric: str
    when: str
    """`learned`: to the first checkpoint behind a text's first reading; `kept`: to the last checkpoint."""
    estimate: Estimate
    read: int
    """Texts."""
    unread: int
    left_out: int
    """Texts that were read before the first checkpoint: nothing is known of them unread."""


def effects(curves: Sequence[TextCurves], /) -> Iterator[Effect]:
    """Differences in differences, where there are texts that were read and others that were not.

    With a known order each text counts from the last checkpoint before its first reading; without one from
    the first checkpoint, to the last.
    """
    for one in curves:
        if not one.metric.startswith(EFFECTS) or not one.read.any() or not one.unread.any():
            continue
        values, last = one.values[one.read], len(one.steps) - 1
        if one.times_seen is None:
            first = np.zeros(len(values), np.int64)
            ends = {"kept": np.full(len(values), last)}
            known = np.ones(len(values), np.bool_)
        else:
            unread_until = (one.times_seen[one.read] == 0).sum(axis=1)
            known = unread_until > 0
            first = unread_until - 1
            ends = {"learned": unread_until, "kept": np.full(len(values), last)}
        for when, after in ends.items():
            if known.any():
                found = difference_in_differences(
                    values[known], unseen=one.values[one.unread], before=first[known], after=after[known]
                )
                counts = int(known.sum()), int(one.unread.sum()), int((~known).sum())
                yield Effect(one.series, one.metric, when, found, *counts)


def claims(found: Sequence[Effect], curves: Sequence[GroupCurve]) -> Iterator[Claim]:
    """Whether texts that were read are predicted better for it, and whether induction heads form."""
    for one in found:
        if one.metric == "memorized":
            yield from_estimate(
                one.estimate, name=f"{one.series}-{one.when}", n=1, unit="of M(f)", source=SOURCE,
                primary=False,
                statement=f"{one.series}: texts that were read are predicted better for it "
                + ("at once" if one.when == "learned" else "at the last checkpoint"),
                note=f"texts that were read: {one.read}, that were not: {one.unread}",
            )  # fmt: skip
    for curve in _first_groups(curves):
        at = onset(curve.steps, score=curve.value)
        yield undecided(
            name=f"{curve.series}-induction", n=1,
            statement=f"{curve.series}: {'an' if at.reached else 'no'} induction head forms",
            source="Olsson et al. 2022, In-context Learning and Induction Heads",
            rule="best head's prefix matching stays at 0.5 or above for two checkpoints",
            note=f"{_when(at)}{_between(at)}; one training illustrates",
        )._replace(verdict="illustrated")  # fmt: skip


def tables(
    curves: Sequence[GroupCurve], texts: Sequence[TextCurves], found: Sequence[Effect]
) -> Iterator[Table]:
    """Rises, losses, onsets of induction and effects, each where there is something to show."""
    shares = [one for one in curves if one.metric.startswith(SHARES)]
    rows = [list(_rise_cells(one)) for one in shares]
    n = f"texts a group: at most {max((one.texts for one in shares), default=0)}"
    if rows:
        yield Table(
            "series-rises", "When shares are reached",
            "The step from which a share stays at or above a level for two checkpoints, interpolated between "
            "them; the share at the first and at the last checkpoint.",
            n, ("series", "texts", "metric", "first", "last", *(f"{at:.0%}" for at in RISES)), rows,
        )  # fmt: skip
    behind = list(_losses(shares, texts))
    if behind:
        yield Table(
            "series-losses", "What is forgotten",
            "Behind the last reading of any of the texts, where the order is known; else behind the highest "
            "checkpoint, which noise raises, so that some loss follows by itself. Half: steps behind it "
            "until what is above texts never read (or zero) stays below half. Floor: asymptote of the form "
            "with "
            "the lower AICc among those that have one, with a profile interval from the scatter in the "
            "series. "
            "Lowest: the smallest value behind it, biased downwards by noise.",
            n, ("series", "texts", "metric", "since step", "there", "half lost", "floor", "lowest", "note"),
            behind,
        )  # fmt: skip
    onsets: list[list[Cell]] = [
        [one.series, _when(at), _between(at).removeprefix(", between "), float(one.value.max())]
        for one in _first_groups(curves)
        for at in (onset(one.steps, score=one.value),)
    ]
    if onsets:
        yield Table(
            "series-induction", "Onset of induction",
            "The step from which prefix matching of the best head stays at 0.5 or above for two checkpoints, "
            "interpolated. Nothing is known of it but that it lies between the two checkpoints beside it; "
            "other trainings would have it elsewhere.",
            "one training a series", ("series", "onset", "between", "highest score"), onsets,
        )  # fmt: skip
    if found:
        yield Table(
            "series-effects", "What reading texts changed",
            "Difference in differences: the change of texts that were read less that of texts that were not, "
            "between the same checkpoints. Learned: from the last checkpoint before a text's first reading "
            "to "
            "the next; kept: from there (without an order: from the first checkpoint) to the last. Interval: "
            "95%, Welch's t over texts; it says nothing of other trainings.",
            f"texts that were read: {found[0].read}, that were not: {found[0].unread}",
            ("series", "metric", "when", "effect", "texts read", "not read", "left out"),
            [[one.series, one.metric, one.when, one.estimate.text(), one.read, one.unread, one.left_out]
             for one in found],
        )  # fmt: skip


def _when(found: Crossing) -> str:
    """A crossing in words; where the first checkpoint is beyond it already, that it may have been before."""
    return f"at or before {found.text()}" if found.reached and found.low is None else found.text()


def _between(found: Crossing) -> str:
    """The checkpoints around a crossing: all that is known of it; nothing where there are not two."""
    if not found.reached or found.low is None or found.high is None or found.x == found.high:
        return ""
    return f", between {found.low:g} and {found.high:g}"


def _rise_cells(one: GroupCurve) -> Iterator[Cell]:
    yield from (one.series, one.group, one.metric, float(one.value[0]), float(one.value[-1]))
    yield from (_when(found) for found in rises(one.steps, y=one.value).values())


def _losses(shares: Sequence[GroupCurve], texts: Sequence[TextCurves]) -> Iterator[list[Cell]]:
    """Of the texts that were read, where that is known; else of every group."""
    ordered = [one for one in texts if one.times_seen is not None and one.metric.startswith(SHARES)]
    for one in ordered:
        assert one.times_seen is not None
        if one.read.any():
            since = _last_reading(one)
            unseen = one.values[one.unread].mean(axis=0) if one.unread.any() else None
            y = one.values[one.read].mean(axis=0)
            yield from _loss_row(one.series, "read", one.metric, one.steps, y, since, unseen)
    if not ordered:
        for curve in shares:
            yield from _loss_row(
                curve.series, curve.group, curve.metric, curve.steps, curve.value, None, None
            )


def _last_reading(one: TextCurves) -> float:
    """The first checkpoint that has seen all that the last one has."""
    assert one.times_seen is not None
    same = (one.times_seen == one.times_seen[:, -1:]).all(axis=0)
    return float(one.steps[int(np.argmax(same))])


def _loss_row(
    series: str, texts: str, metric: str, steps: np.ndarray[tuple[int, ...], np.dtype[np.int64]],
    y: np.ndarray[tuple[int, ...], np.dtype[np.float64]], since: float | None,
    unseen: np.ndarray[tuple[int, ...], np.dtype[np.float64]] | None,
) -> Iterator[list[Cell]]:  # fmt: skip
    found = lost(steps, y=y, since=since, unseen=unseen)
    if found is None or found.at == 0:
        return
    floor = lowest = None
    if found.forgetting is not None:
        best = next(decay for decay in found.forgetting.decays if decay.form in FLOORED)
        floor = None if best.floor is None else f"{best.floor.text()} ({best.form})"
        lowest = found.forgetting.baseline.value
    half = None if found.half is None else f"not within {found.half.last:g} steps"
    if found.half is not None and found.half.x is not None:
        half = f"{'within ' if found.half.low is None else ''}{found.half.x:.3g} steps"
    yield [series, texts, metric, found.since, found.at, half, floor, lowest, found.note]


def _first_groups(curves: Sequence[GroupCurve]) -> list[GroupCurve]:
    """Prefix matching of each series; which texts lent it their tokenizer hardly matters."""
    found: dict[str, GroupCurve] = {}
    for one in curves:
        if one.metric == PREFIX:
            found.setdefault(one.series, one)
    return list(found.values())
