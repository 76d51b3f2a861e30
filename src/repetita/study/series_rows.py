"""Rows of an audit along their series: by step and group of texts, and by text with what was read."""

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from repetita.errors import SpecError, nearest
from repetita.study.audit import Audited
from repetita.study.audit_texts import Text
from repetita.study.known_order import Ints, KnownOrder
from repetita.study.series import Series

if TYPE_CHECKING:
    import polars as pl

Floats = NDArray[np.float64]

SHARES = ("memorized", "extractable_", "memorization_score_", "discoverable_")
"""How metrics begin that are shares of memory: higher is more."""


class Roles(NamedTuple):
    """Which texts training has read: by known orders, or by the groups that they were given in."""

    orders: Mapping[str, KnownOrder] = MappingProxyType({})
    """By the name of the series that was trained in it."""
    seen: str | None = None
    """The group of texts that were read, where no order says so."""
    unseen: str | None = None
    """The group of texts that were not."""


class GroupCurve(NamedTuple):
    """One metric of one group of texts along a series; all of length T, by step."""

    series: str
    group: str
    metric: str
    steps: Ints
    value: Floats
    low: list[float | None]
    """Of the 95% interval over texts; None where it is open."""
    high: list[float | None]
    texts: int


class TextCurves(NamedTuple):
    """One metric along a series, text by text, of texts that have it at every checkpoint."""

    series: str
    metric: str
    steps: Ints
    texts: tuple[str, ...]
    """Their names, (N,)."""
    values: Floats
    """(N, T)."""
    times_seen: Ints | None
    """Readings before each checkpoint (N, T), where the order is known."""
    read: NDArray[np.bool_]
    """Whether training had read it by the last checkpoint (N,)."""
    unread: NDArray[np.bool_]
    """Whether it never had, (N,); neither where nothing is known of a text."""


def along(audited: Audited, found: Sequence[Series], /) -> tuple["pl.DataFrame", "pl.DataFrame"]:
    """Both tables of an audit, by group and by text, with `series`, `checkpoint` and `step` by its name.

    The audit's subjects are the members of these series, one after the other. Checkpoints whose name counts
    no step are left out.
    """
    import polars as pl

    placed = [(series.name, member.name, member.step) for series in found for member in series.members]
    ids = [one.id for one in audited.subjects]
    place = pl.DataFrame(
        [(*about, id_) for about, id_ in zip(placed, ids, strict=True) if about[2] is not None],
        schema={"series": pl.String, "checkpoint": pl.String, "step": pl.Int64, "subject": pl.String},
        orient="row",
    )

    def put(table: "pl.DataFrame") -> "pl.DataFrame":
        joined = place.join(table.drop("step"), on="subject", how="inner", maintain_order="left_right")
        return joined.filter(pl.col("value").is_not_null())

    return put(audited.by_group), put(audited.by_text)


def group_curves(by_group: "pl.DataFrame", /) -> Iterator[GroupCurve]:
    """Every metric of every group of texts that has it at two checkpoints or more."""
    for (series, group, metric), part in by_group.group_by("series", "group", "metric", maintain_order=True):
        rows = part.unique("step", keep="first").sort("step")
        if len(rows) > 1:
            yield GroupCurve(
                str(series), str(group), str(metric), rows["step"].to_numpy(), rows["value"].to_numpy(),
                rows["low"].to_list(), rows["high"].to_list(), max(rows["texts"].fill_null(0).to_list()),
            )  # fmt: skip


def text_curves(by_text: "pl.DataFrame", /, *, roles: Roles) -> Iterator[TextCurves]:
    """Every metric of every series by text, each content once (where groups say what was read: a group)."""
    for (series, metric), part in by_text.group_by("series", "metric", maintain_order=True):
        steps = np.unique(part["step"].to_numpy())
        order = roles.orders.get(str(series))
        once = ["group", "text"] if order is None else ["text"]
        texts = part.select("group", "text_name", "text").unique(once, keep="first", maintain_order=True)
        wide = part.unique(["group", "text", "step"], keep="first").pivot(
            "step", index=["group", "text"], values="value", sort_columns=False
        )
        wide = texts.join(wide, on=["group", "text"], how="left", maintain_order="left")
        values = wide.select(str(step) for step in steps).to_numpy().astype(np.float64)
        whole = np.isfinite(values).all(axis=1)
        kept = wide.filter(whole)
        if len(kept) and len(steps) > 1:
            yield TextCurves(
                str(series),
                str(metric),
                steps,
                tuple(kept["text_name"]),
                values[whole],
                *_read(kept, steps, order, roles),
            )


def check_roles(
    texts: Sequence[Text], /, *, order: KnownOrder | None, seen: str | None, unseen: str | None
) -> None:
    """Raises SpecError where an order or groups do not say of these texts which of them were read."""
    if order is not None:
        if seen or unseen:
            raise SpecError("a known order says which texts were read; leave seen and unseen out")
        _check_order(texts, order)
    groups = {one.group: {other.sha256 for other in texts if other.group == one.group} for one in texts}
    for group in (seen, unseen):
        if group is not None and group not in groups:
            raise SpecError(f"no text was given in '{group}'; {nearest(group, groups)}")
    both = groups.get(seen or "", set()) & groups.get(unseen or "", set())
    if both:
        name = next(one.name for one in texts if one.sha256 in both)
        raise SpecError(f"the text '{name}' is in '{seen}' and in '{unseen}'; leave it out of one of them")


def _check_order(texts: Sequence[Text], order: KnownOrder) -> None:
    content: dict[str, str] = {}
    for one in texts:
        known = order.known(one.name, one.sha256)
        if known is not None and content.setdefault(known, one.sha256) != one.sha256:
            raise SpecError(
                f"two texts are called '{known}', which the known order names; name texts in it by SHA-256"
            )
    if not content:
        raise SpecError(
            f"the known order names none of these texts (texts: '{texts[0].name}' ..., order: "
            f"'{next(iter(order.steps), 'nothing')}' ...); name texts in it by file, row or SHA-256"
        )


def _read(
    kept: "pl.DataFrame", steps: Ints, order: KnownOrder | None, roles: Roles
) -> tuple[Ints | None, NDArray[np.bool_], NDArray[np.bool_]]:
    """Times seen, and who was read and who was not."""
    if order is None:
        groups = kept["group"].to_numpy()
        read = groups == roles.seen if roles.seen else np.zeros(len(kept), np.bool_)
        unread = groups == roles.unseen if roles.unseen else np.zeros(len(kept), np.bool_)
        return None, read, unread
    names = [order.known(*pair) or "" for pair in kept.select("text_name", "text").iter_rows()]
    times = np.array([order.times_seen(name, step=steps) for name in names], dtype=np.int64)
    clear = np.array([name not in order.unclear for name in names])
    return times, clear & (times[:, -1] > 0), clear & (times[:, -1] == 0)
