"""Counterfactual memorization in an audit: texts that some of its subjects were trained with, others not."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from repetita.errors import CorpusError, SpecError, nearest
from repetita.fit.counterfactual import memorization
from repetita.fit.estimate import LEVEL, t_quantile
from repetita.study.audit_subjects import Named
from repetita.study.audit_texts import Text, distinct
from repetita.study.known_order import read_table

if TYPE_CHECKING:
    import polars as pl

METRIC = "memorized"
"""What is compared, M(f) of a text: the performance of Zhang et al. 2021."""
COLUMNS = ("subject", "text")

COUNTERFACTUAL: dict[str, Any] = {
    **dict.fromkeys(("group", "text_name", "text"), str),
    **dict.fromkeys(("value", "low", "high"), float),
    **dict.fromkeys(("n_in", "n_out"), int),
    "note": str,
}
"""A row a text of a group. `value`: mean M(f) of the `n_in` subjects that were trained with it less that of
the `n_out` others; `low` and `high`: 95% interval over subjects, null with fewer than two on a side."""


def read_trained(path: str, /, *, named: Sequence[Named], texts: Sequence[Text]) -> NDArray[np.bool_]:
    """Which subject was trained with which of the distinct texts, shape (T, X), from a table.

    A row of the table (.csv, .jsonl, .parquet; columns `subject` and `text`) says that a subject was trained
    with a text; what no row says was not. A subject is named as in the audit, or by its label; a text by its
    name, its SHA-256, or the group that it was given in, which means all of these. Raises CorpusError for a
    table without these columns, SpecError for a name that is none, or that is two texts or subjects.
    """
    table = read_table(path, names=COLUMNS)
    for column in COLUMNS:
        if column not in table.columns:
            raise CorpusError(f"{path} has no column '{column}'; {nearest(column, table.columns)}")
    place = {one.sha256: i for i, one in enumerate(distinct(list(texts)))}
    member = np.zeros((len(named), len(place)), dtype=bool)
    subjects: dict[str, set[int]] = {}
    for i, one in enumerate(named):
        for name in {one.source, one.label}:
            subjects.setdefault(name, set()).add(i)
    groups: dict[str, set[int]] = {}
    names: dict[str, set[int]] = {}
    for text in texts:
        groups.setdefault(text.group, set()).add(place[text.sha256])
        names.setdefault(text.name, set()).add(place[text.sha256])
    for subject, name in table.select(COLUMNS).unique(maintain_order=True).iter_rows():
        number = _one(str(subject), subjects, what="subject", path=path, fix="name it by its path")
        if str(name) in groups:
            member[number, list(groups[str(name)])] = True
        elif str(name) in place:
            member[number, place[str(name)]] = True
        else:
            known = names | {one: set[int]() for one in groups if one not in names}
            member[number, _one(str(name), known, what="text", path=path, fix="name it by its SHA-256")] = (
                True
            )
    return member


def counterfactual(
    by_text: "pl.DataFrame", /, *, subjects: Sequence[tuple[str, Named]], member: NDArray[np.bool_],
    texts: Sequence[Text],
) -> "pl.DataFrame":  # fmt: skip
    """Counterfactual memorization of each text (Zhang et al. 2021, definition 2.1), columns COUNTERFACTUAL.

    `by_text`: the rows of an audit; `subjects`: id and name of each of its T, `member` (T, X) over the
    distinct texts. Intervals: t with as many degrees of freedom as the smaller side has subjects less one,
    which Welch's are never below. A text that all or none were trained with has no value, and a note.
    """
    import polars as pl

    each = distinct(list(texts))
    place = {one.sha256: i for i, one in enumerate(each)}
    performance = np.full(member.shape, np.nan)
    rows = by_text.filter(pl.col("metric") == METRIC, pl.col("instrument") == "score")
    for number, (id_, name) in enumerate(subjects):
        own = rows.filter(
            pl.col("subject") == id_,
            pl.col("name") == name.name,
            pl.col("revision").eq_missing(pl.lit(name.revision, dtype=pl.String)),
        )
        for text, value in own.select("text", "value").iter_rows():
            performance[number, place[text]] = np.nan if value is None else value
    found = memorization(performance, membership=member)
    less = np.minimum(found.n_in, found.n_out)
    by_content = {
        one.sha256: _row(
            found.value[i], found.error[i], int(found.n_in[i]), int(found.n_out[i]), int(less[i])
        )
        for i, one in enumerate(each)
    }
    return pl.DataFrame(
        [
            {"group": one.group, "text_name": one.name, "text": one.sha256, **by_content[one.sha256]}
            for one in texts
        ],
        schema=COUNTERFACTUAL,
    )


def _row(value: float, error: float, n_in: int, n_out: int, less: int) -> dict[str, Any]:
    row: dict[str, Any] = {"value": None, "low": None, "high": None, "n_in": n_in, "n_out": n_out, "note": ""}
    if less == 0:
        side = "no subject was trained with it" if n_in == 0 else "every subject was trained with it"
        return row | {"note": f"{side}: nothing to compare"}
    if not np.isfinite(value):
        return row | {"note": "a subject has no M(f) of this text"}
    row["value"] = float(value)
    if less == 1:
        return row | {"note": "one subject on a side: no interval"}
    half = t_quantile(LEVEL, less - 1) * float(error)
    return row | {"low": max(-1.0, float(value) - half), "high": min(1.0, float(value) + half)}


def _one(name: str, known: dict[str, set[int]], *, what: str, path: str, fix: str) -> int:
    found = known.get(name, set())
    if not found:
        raise SpecError(
            f"{path} names the {what} '{name}', which this audit does not have; {nearest(name, known)}"
        )
    if len(found) > 1:
        raise SpecError(f"{path} names the {what} '{name}', which {len(found)} are called; {fix}")
    return next(iter(found))
