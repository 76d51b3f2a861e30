"""What probes find, text by text: sums and what they are divided by, so that texts add up to their group."""

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from repetita.corpus.windows import Windows
from repetita.errors import SpecError
from repetita.journal.records import Reading
from repetita.measure.continuation import ContinuationProbe
from repetita.measure.extraction import NOT_ASKED
from repetita.measure.induction import InContextProbe
from repetita.measure.membership import PROXY, MembershipProbe
from repetita.measure.memorization import ScoreProbe
from repetita.measure.probabilistic import ProbabilisticProbe, chance_within
from repetita.measure.probe import EvalSet, PassProbe
from repetita.measure.unit_length import UnitLengthProbe
from repetita.study.audit_eidetic import NONE, EideticProbe
from repetita.subject import Subject

SEMANTICS = 1
"""Raised when what is kept of an unchanged probe moves."""
TEXTS = "texts"
"""The one set that the probes of an audit read."""
NO_BYTES = "nothing is scored in this text, or the tokenizer does not give it back"
OVERFLOWN = "the numbers of the model overflow on this text; read it in float32"
OVER_SHUFFLED = "unit_length_over_shuffled"
"""How many times as long the runs of memorized tokens are as if each row's hits fell anywhere in it."""


class Sums(NamedTuple):
    """One metric of X texts: each value is total / n, and so is that of all texts, over the sums of both."""

    metric: str
    total: NDArray[np.float64]
    """Shape (X,)."""
    n: NDArray[np.int64]
    """What `total` is divided by, 0 where the metric is not defined, shape (X,)."""
    unit: str
    """What n counts."""
    note: str = ""
    missing: str = "nothing to measure in this text"
    """Why a text has none of it, unless `note` says so."""


class TextRow(NamedTuple):
    """One metric of one text, or of a whole group."""

    text: int
    """Place of the text among those that were measured."""
    metric: str
    on: str
    value: float | None
    n: int
    total: float | None
    unit: str
    note: str


def text_rows(subject: Subject, probe: PassProbe, /, *, windows: Windows) -> Iterator[TextRow]:
    """The probe's metrics of each text, in one measurement of all of them.

    Every text has a row of every metric: one without a value where it is not defined, with a note.
    Raises SpecError for a probe that does not tell texts apart.
    """
    sets = {TEXTS: EvalSet.whole(TEXTS, sequences=windows)}
    by_text = _BY_TEXT.get(type(probe))
    if by_text is None:
        raise SpecError(f"probe '{probe.name}' does not tell texts apart; measure it on a whole group")
    readings = list(probe.measure(subject, sets=sets))
    for sums in by_text(probe, readings, windows):
        for text, (total, n) in enumerate(zip(sums.total.tolist(), sums.n.tolist(), strict=True)):
            if n and not math.isfinite(total):
                yield TextRow(text, sums.metric, "", None, 0, None, sums.unit, OVERFLOWN)
                continue
            value, note = (total / n, sums.note) if n else (None, sums.note or sums.missing)
            yield TextRow(text, sums.metric, "", value, n, total if n else None, sums.unit, note)


def _missing(metric: str, readings: list[Reading], windows: Windows) -> Sums:
    """A metric that no text has, with the reason that the probe gave."""
    given = next((one.detail["why"] for one in readings if one.detail and "why" in one.detail), "")
    none = np.zeros(len(windows.texts))
    return Sums(metric, none, none.astype(np.int64), "", str(given))


def _items(readings: list[Reading]) -> dict[str, NDArray[Any]]:
    found: dict[str, NDArray[Any]] = {}
    for one in readings:
        found |= one.items or {}
    return found


def _sum(text: ArrayLike, values: ArrayLike, windows: Windows) -> NDArray[np.float64]:
    summed = np.bincount(
        np.asarray(text, dtype=np.int64),
        weights=np.asarray(values, dtype=np.float64),
        minlength=len(windows.texts),
    )
    return summed.astype(np.float64)


def _count(text: ArrayLike, windows: Windows) -> NDArray[np.int64]:
    return np.bincount(np.asarray(text, dtype=np.int64), minlength=len(windows.texts))


def _score(probe: PassProbe, readings: list[Reading], windows: Windows) -> Iterator[Sums]:
    del probe
    items = _items(readings)
    if "loss_sum" not in items:
        yield from (_missing(name, readings, windows) for name in ("loss", "bits_per_byte", "memorized"))
        return
    rows = items["sequence"]
    text = windows.document(rows)
    nats, scored = (
        _sum(text, items["loss_sum"], windows),
        _sum(text, items["n_scored"], windows).astype(np.int64),
    )
    n_bytes = _sum(text, windows.n_bytes(rows), windows).astype(np.int64)
    yield Sums("loss", nats, scored, "tokens")
    yield Sums("bits_per_byte", nats / math.log(2), n_bytes, "bytes", missing=NO_BYTES)
    yield Sums("memorized", _sum(text, items["hits"], windows), scored, "tokens")


def _unit_length(probe: PassProbe, readings: list[Reading], windows: Windows) -> Iterator[Sums]:
    del probe
    items = _items(readings)
    if "runs" not in items:
        yield from (_missing(name, readings, windows) for name in ("unit_length", OVER_SHUFFLED))
        return
    rows = items["sequence"]
    text = windows.document(rows)
    runs = _sum(text, items["runs"], windows).astype(np.int64)
    yield Sums("unit_length", _sum(text, items["hits"], windows), runs, "runs")
    expected = shuffled_runs(items["hits"], scored=windows.rows(rows).scored)
    yield Sums(OVER_SHUFFLED, _sum(text, expected, windows), runs, "runs")


def shuffled_runs(hits_S: ArrayLike, /, *, scored: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Runs that are expected of the hits of each row, placed anywhere on its scored (S, L), shape (S,).

    Every hit begins a run but those behind another one: of each two scored neighbours both are hits with
    probability h (h - 1) / (n (n - 1)). As `measure.unit_length.Shuffled`, row by row.
    """
    h_S, n_S = np.asarray(hits_S, dtype=np.float64), scored.sum(1).astype(np.float64)
    pairs = h_S * (h_S - 1) * (scored[:, 1:] & scored[:, :-1]).sum(1)
    return np.asarray(h_S - np.divide(pairs, n_S * (n_S - 1), out=np.zeros_like(h_S), where=n_S > 1))


def _in_context(probe: PassProbe, readings: list[Reading], windows: Windows) -> Iterator[Sums]:
    assert isinstance(probe, InContextProbe)
    items = _items(readings)
    both = np.isfinite(items["gain"])
    text = windows.document(items["sequence"][both])
    why = f"no row has a scored token at index {probe.early} and at {probe.late}"
    gain = _sum(text, items["gain"][both], windows)
    yield Sums("in_context", gain, _count(text, windows), "rows", missing=why)


def _eidetic(probe: PassProbe, readings: list[Reading], windows: Windows) -> Iterator[Sums]:
    assert isinstance(probe, EideticProbe)
    items = _items(readings)
    whole, one = items["documents"], np.ones(len(windows.texts), np.int64)
    yield Sums("eidetic_text", _sum(items["text"], whole, windows), one, "texts")
    for length in probe.lengths:
        if f"documents_{length}" not in items:
            yield from (_missing(name, readings, windows) for name in probe.of_suffix(length))
            continue
        text, found = items[f"sequence_{length}"], items[f"documents_{length}"]
        n = _count(text, windows)
        for name, values in zip(probe.of_suffix(length), (found, found <= 1), strict=True):
            yield Sums(name, _sum(text, values, windows), n, "extracted", missing=NONE)


def _continuation(probe: PassProbe, readings: list[Reading], windows: Windows) -> Iterator[Sums]:
    assert isinstance(probe, ContinuationProbe)
    items = _items(readings)
    if "sequence" not in items:
        metrics = [reading.metric for reading in readings]
        yield from (_missing(name, readings, windows) for name in metrics)
        return
    text, n = items["sequence"], _count(items["sequence"], windows)
    for k in probe.prompts:
        exact = items[f"exact_{k}"]
        for s in probe.suffixes:
            yield Sums(f"extractable_{k}_{s}", _sum(text, exact >= s, windows), n, "suffixes")
            if f"matched_{k}_{s}" in items:
                share = items[f"matched_{k}_{s}"] / s
                yield Sums(f"memorization_score_{k}_{s}", _sum(text, share, windows), n, "suffixes")
        yield Sums(f"verbatim_length_{k}", _sum(text, exact, windows), n, "suffixes")
    asked = items["shortest_prompt"] != NOT_ASKED
    strength = 1 - items["shortest_prompt"][asked] / items["tokens"][asked]
    whole = items["text"][asked]
    yield Sums("extraction_strength", _sum(whole, strength, windows), _count(whole, windows), "texts")


def _probabilistic(probe: PassProbe, readings: list[Reading], windows: Windows) -> Iterator[Sums]:
    assert isinstance(probe, ProbabilisticProbe)
    items = _items(readings)
    if "sequence" not in items:
        yield from (_missing(reading.metric, readings, windows) for reading in readings)
        return
    text, n = items["sequence"], _count(items["sequence"], windows)
    for length in probe.lengths:
        log_p = items[f"log_p_{length}"]
        yield Sums(f"p_z_{length}", _sum(text, np.exp(log_p), windows), n, "suffixes")
        for queries in probe.queries:
            within = chance_within(log_p, queries=queries)
            for chance in probe.chances:
                name = f"discoverable_{length}_{queries}_{chance}"
                yield Sums(name, _sum(text, within >= chance, windows), n, "suffixes")


def _membership(probe: PassProbe, readings: list[Reading], windows: Windows) -> Iterator[Sums]:
    del probe
    items = _items(readings)
    for reading in readings:
        name = f"membership_{reading.metric}"
        if reading.metric not in items:
            yield _missing(name, [reading], windows)._replace(unit="texts")
            continue
        scores = items[reading.metric]
        known = np.isfinite(scores)
        yield Sums(name, np.where(known, scores, 0.0), known.astype(np.int64), "texts", PROXY)


_BY_TEXT: dict[type[PassProbe], Callable[[PassProbe, list[Reading], Windows], Iterator[Sums]]] = {
    ScoreProbe: _score,
    UnitLengthProbe: _unit_length,
    ContinuationProbe: _continuation,
    ProbabilisticProbe: _probabilistic,
    MembershipProbe: _membership,
    InContextProbe: _in_context,
    EideticProbe: _eidetic,
}


def tells_texts_apart(probe: PassProbe, /) -> bool:
    """Whether a probe has rows by text; the others are measured on a whole group."""
    return type(probe) in _BY_TEXT
