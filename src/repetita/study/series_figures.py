"""A series of checkpoints drawn: loss, shares, heads by step, and memory by how often a text was read."""

from collections.abc import Iterator, Sequence

import numpy as np

from repetita.fit.course import ONSET
from repetita.fit.estimate import t_interval
from repetita.report.figure import MAX_SERIES, Axis, Figure, Layer, Panels, Row, Rule, Series, Style
from repetita.study.series_findings import PREFIX
from repetita.study.series_rows import SHARES, GroupCurve, TextCurves

BAND, LINE, POINT = Layer(kind="band", low="low", high="high"), Layer(kind="line"), Layer(kind="point")
MOST_PANELS = 6
CHECKPOINTS_SHOWN = 6
"""States along a series at which memory is drawn against times seen."""
WIDE = 30
"""From the first step above 0 to the last: less than so many times is drawn on a linear axis."""
MOST_SHOWN = 200
"""Points of a curve that are drawn; of more every so many-th."""


def figures(
    curves: Sequence[GroupCurve], texts: Sequence[TextCurves], *, unseen: str | None = None
) -> Iterator[Figure]:
    """Those that the measurements allow; the texts of group `unseen` are drawn muted."""
    losses = [one for one in curves if one.metric == "loss"]
    if losses:
        yield _by_step(
            losses, unseen=unseen, name="series-loss", title="Loss along the series",
            y=Axis(column="value", title="loss (nats a token)"),
            caption="Mean over all scored tokens of a group of texts, read by the rule below.",
        )  # fmt: skip
    shares = [one for one in curves if one.metric.startswith(SHARES)]
    metrics = list(dict.fromkeys(one.metric for one in shares))[:MOST_PANELS]
    shares = [one for one in shares if one.metric in metrics]
    if shares:
        yield _by_step(
            shares, unseen=unseen, name="series-shares", title="Memory along the series",
            y=Axis(column="value", title="share", start="zero"),
            panels=Panels(column="metric", title="", order=tuple(metrics), share="x"),
            caption="memorized: M(f), share of tokens whose argmax is right, teacher-forced. "
            "extractable_k_s: share of suffixes of s tokens that greedy decoding returns exactly behind k "
            "tokens of prompt. "
            "memorization_score_k_s: mean share of the s tokens in their place.",
        )  # fmt: skip
    heads = [one for one in curves if one.metric == PREFIX]
    if heads:
        yield _by_step(
            heads, unseen=None, name="series-heads", title="Induction along the series",
            y=Axis(column="value", title="prefix matching of the best head", start="zero"),
            rules=(Rule(axis="y", at=ONSET, label="an induction head"),),
            caption="Attention from a token to what followed it before, on repeated random tokens without "
            "special ones; a query, of the head that has most.",
        )  # fmt: skip
    read = [one for one in texts if one.times_seen is not None and one.metric == "memorized"]
    rows = [row for one in read if one.read.any() for row in _by_times(one)]
    if rows:
        yield Figure(
            name="series-times-seen",
            title="Memory by how often a text was read",
            caption="M(f) of single texts, by how often training had read them by a checkpoint, by the known "
            "order; mean over texts that were read equally often. Band: 95% t interval over texts, where "
            "there are several. Texts read often can differ from others in more than that.",
            n=f"{max(len(one.texts) for one in read)} texts",
            rows=tuple(rows),
            x=Axis(column="times", title="times read", scale="symlog"),
            y=Axis(column="value", title="M(f)", start="zero"),
            series=Series(column="step", title="step", kind="sequence"),
            panels=_panels(read),
            layers=(BAND, LINE, POINT),
            tooltip=("texts",),
        )


def _by_step(
    curves: Sequence[GroupCurve], *, unseen: str | None, name: str, title: str, caption: str, y: Axis,
    panels: Panels | None = None, rules: tuple[Rule, ...] = (),
) -> Figure:  # fmt: skip
    several = len({one.series for one in curves}) > 1
    groups = list(dict.fromkeys(one.group for one in curves))
    left = len(groups) - MAX_SERIES
    kept = [one for one in curves if one.group in groups[:MAX_SERIES]]
    rows = [row for one in kept for row in _rows(one)]
    more = f" Of {len(groups)} groups the first {MAX_SERIES} are drawn." if left > 0 else ""
    return Figure(
        name=name,
        title=title,
        caption=f"{caption} Band: 95% interval over texts; none where there is one text.{more}",
        n=f"{len({int(step) for one in kept for step in one.steps})} checkpoints, "
        f"texts a group: at most {max(one.texts for one in kept) or 1}",
        rows=tuple(rows),
        x=_step_axis(kept),
        y=y,
        series=Series(column="group", title="texts", muted=(unseen,) if unseen in groups else ()),
        style=Style(column="series", title="series") if several else None,
        panels=panels,
        layers=(BAND, LINE, POINT) if any(row["low"] is not None for row in rows) else (LINE, POINT),
        rules=rules,
        tooltip=("texts",),
    )


def _step_axis(curves: Sequence[GroupCurve]) -> Axis:
    """Logarithmic where steps differ by much: else the first of even steps would take most of it."""
    steps = np.unique(np.concatenate([one.steps for one in curves]))
    positive = steps[steps > 0]
    if positive[-1] < WIDE * positive[0]:
        return Axis(column="step", title="step")
    return Axis(column="step", title="step", scale="log" if steps[0] > 0 else "symlog")


def _rows(one: GroupCurve) -> Iterator[Row]:
    places = np.unique(np.linspace(0, len(one.steps) - 1, MOST_SHOWN).round().astype(int))
    for i in places:
        low, high = one.low[i], one.high[i]
        whole = low is not None and high is not None
        yield {
            "series": one.series, "group": one.group, "metric": one.metric, "step": int(one.steps[i]),
            "value": float(one.value[i]), "low": low if whole else None, "high": high if whole else None,
            "texts": one.texts,
        }  # fmt: skip


def _by_times(one: TextCurves) -> Iterator[Row]:
    assert one.times_seen is not None
    last = len(one.steps) - 1
    for i in np.unique(np.linspace(0, last, CHECKPOINTS_SHOWN).round().astype(int)):
        for times in np.unique(one.times_seen[:, i]):
            found = t_interval(one.values[one.times_seen[:, i] == times, i], contains="texts")
            yield {
                "series": one.series, "step": int(one.steps[i]), "times": int(times), "texts": found.n,
                "value": found.value,
                # A share: a t interval of a few texts would pass its bounds.
                "low": None if found.low is None else max(found.low, 0.0),
                "high": None if found.high is None else min(found.high, 1.0),
            }  # fmt: skip


def _panels(texts: Sequence[TextCurves]) -> Panels | None:
    return Panels(column="series", title="") if len({one.series for one in texts}) > 1 else None
