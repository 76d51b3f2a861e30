"""Findings of a series follow from its curves alone, with and without an order."""

from typing import Any

import numpy as np
import pytest

from repetita.fit.course import difference_in_differences
from repetita.report.page import Table
from repetita.study.series_figures import figures
from repetita.study.series_findings import PREFIX, claims, effects, tables
from repetita.study.series_rows import GroupCurve, TextCurves

STEPS = np.array([0, 1, 2, 4, 8, 16, 32, 64, 128, 256])


def group(metric: str, values: Any, *, name: str = "geese.txt", series: str = "geese") -> GroupCurve:
    y = np.asarray(values, dtype=np.float64)
    return GroupCurve(series, name, metric, STEPS, y, [None] * len(y), [None] * len(y), 1)


def rows_of(found: list[Table], name: str) -> list[dict[str, Any]]:
    return [dict(zip(one.columns, row, strict=True)) for one in found if one.name == name for row in one.rows]


def by_text(*, order: bool) -> TextCurves:
    """Two texts read from step 4 on, once from before the first checkpoint on, and two never."""
    values = np.random.default_rng(0).normal(0.1, 0.01, (5, len(STEPS)))
    values[:3, 4:] += 0.5
    values[1, 8:] -= 0.2
    times = np.zeros(values.shape, np.int64)
    times[:2, 4:], times[2] = 3, 1
    read = np.array([True, True, True, False, False])
    names = ("a", "b", "c", "u", "v")
    return TextCurves("geese", "memorized", STEPS, names, values, times if order else None, read, ~read)


def test_the_onset_of_induction_is_a_row_a_claim_and_a_line() -> None:
    curve = group(PREFIX, [0, 0, 0, 0.1, 0.2, 0.7, 0.8, 0.9, 0.9, 0.9])
    other = group(PREFIX, [0, 0, 0, 0.1, 0.1, 0.2, 0.2, 0.3, 0.2, 0.6], series="swans")
    rows = rows_of(list(tables([curve, other], [], [])), "series-induction")
    assert [row["onset"] for row in rows] == ["step 12.1", "not reached by step 256"]
    low, high = STEPS[4], STEPS[5]  # 0.2 and 0.7: interpolated in the logarithm of steps.
    assert pytest.approx(low * (high / low) ** ((0.5 - 0.2) / (0.7 - 0.2)), abs=0.05) == 12.1
    assert [row["between"] for row in rows] == ["8 and 16", ""], "the resolution of its checkpoints"
    formed = group(PREFIX, [0.8] * len(STEPS), series="ducks")
    (row,) = rows_of(list(tables([formed], [], [])), "series-induction")
    assert (row["onset"], row["between"]) == ("at or before step 0", "")
    first, second = claims([], [curve, other])
    assert first.verdict == "illustrated" and "step 12.1" in first.note
    assert "step 12.1, between 8 and 16" in first.note and first.statement.endswith("an induction head forms")
    assert "not reached by step 256" in second.note
    assert second.statement.endswith(": no induction head forms"), "what is illustrated is that none does"
    (figure,) = figures([curve, other], [])
    assert figure.name == "series-heads" and figure.rules[0].at == 0.5
    assert figure.style is not None and figure.x.scale == "symlog"


def test_effects_of_a_known_order_start_before_each_reading() -> None:
    texts = by_text(order=True)
    found = {one.when: one for one in effects([texts])}
    assert (found["kept"].read, found["kept"].unread, found["kept"].left_out) == (2, 2, 1)
    asked: dict[str, Any] = {"unseen": texts.values[3:], "before": [3, 3]}
    assert found["learned"].estimate == difference_in_differences(texts.values[:2], after=[4, 4], **asked)
    assert found["kept"].estimate == difference_in_differences(texts.values[:2], after=[9, 9], **asked)
    assert found["learned"].estimate.value == pytest.approx(0.5, abs=0.03)
    assert found["kept"].estimate.value == pytest.approx(0.4, abs=0.03)


def test_effects_are_those_of_a_literal_computation() -> None:
    """Word by word: a text's own change, less the mean change of those never read over the same steps."""
    drawn = np.random.default_rng(5)
    values, steps = drawn.normal(size=(9, len(STEPS))), len(STEPS)
    first = [2, 5, 5, 8, 0]  # The checkpoint that has read each first; 0: read before all of them.
    times = np.array([[int(at >= when) for at in range(steps)] for when in first] + [[0] * steps] * 4)
    read = times[:, -1] > 0
    texts = TextCurves("geese", "loss", STEPS, tuple("abcdeuvwx"), values, times, read, ~read)
    found = {one.when: one for one in effects([texts])}
    for when, ends in (("learned", first), ("kept", [steps - 1] * 4)):
        each = []
        for i in range(4):
            start, stop = first[i] - 1, ends[i]
            own = values[i, stop] - values[i, start]
            others = [values[j, stop] - values[j, start] for j in range(5, 9)]
            each.append(own - sum(others) / 4)
        assert found[when].estimate.value == pytest.approx(sum(each) / 4, abs=1e-12)
        assert (found[when].read, found[when].unread, found[when].left_out) == (4, 4, 1)


def test_effects_by_groups_go_from_the_first_to_the_last_checkpoint() -> None:
    (found,) = effects([by_text(order=False)])
    assert (found.when, found.read, found.left_out) == ("kept", 3, 0)
    unknown = by_text(order=False)._replace(read=np.zeros(5, np.bool_))
    assert not list(effects([unknown])), "nothing was read, nothing is said"


def test_losses_are_counted_from_the_last_reading_or_say_that_they_are_not() -> None:
    texts = by_text(order=True)
    (row,) = rows_of(list(tables([], [texts], [])), "series-losses")
    assert (row["texts"], row["since step"]) == ("read", 8)
    assert row["half lost"] == "not within 248 steps" and row["floor"]
    curve = group("memorized", [0, 0.1, 0.2, 0.6, 0.8, 0.5, 0.4, 0.3, 0.25, 0.25])
    (row,) = rows_of(list(tables([curve], [], [])), "series-losses")
    assert row["since step"] == 8 and "noise alone" in row["note"]
    assert float(row["half lost"].removesuffix(" steps")) == pytest.approx(24, rel=0.05)
    rising = group("memorized", np.linspace(0, 1, len(STEPS)))
    assert not rows_of(list(tables([rising], [], [])), "series-losses")


def test_memory_is_drawn_by_how_often_texts_were_read() -> None:
    (figure,) = figures([], [by_text(order=True)])
    assert figure.name == "series-times-seen"
    last = [row for row in figure.rows if row["step"] == 256]
    assert [(row["times"], row["texts"]) for row in last] == [(0, 2), (1, 1), (3, 2)]
    bands = [(row["low"], row["high"]) for row in figure.rows if row["low"] is not None]
    assert bands and np.all(np.diff([(0, *band, 1) for band in bands]) >= 0)
    unread = by_text(order=True)
    assert not list(figures([], [unread._replace(read=np.zeros(5, np.bool_))])), "nothing to compare with"
