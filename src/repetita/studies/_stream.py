"""A stream read once, run by run: M_update, accuracy on fresh text, batches before and after their update."""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from repetita.fit.curves import crossing
from repetita.fit.estimate import Crossing
from repetita.studies import _speed
from repetita.studies._speed import ALL_TARGETS, CAUSAL, MASKED, Online, Points, Run
from repetita.study.plan import Label

if TYPE_CHECKING:
    import polars as pl

    from repetita.study.collect import Collected

STREAM, PASSES = "stream", "passes"
TAUS: Mapping[str, tuple[float, ...]] = {
    CAUSAL: (0.1, 0.15, 0.2, 0.25, 0.35, 0.4, 0.42),
    MASKED: (0.05, 0.1, 0.3, 0.5, 0.6),
}
"""The paper's thresholds (Fig. 3: 0.25 to 0.42, masked 0.1 to 0.6), and lower ones for small models."""
SHOWN: Mapping[str, str] = {CAUSAL: ALL_TARGETS, MASKED: "mask"}
"""Of which targets M_update is: in masked models of those shown as the mask, as full passes do (rule 15)."""
WINDOW_UPDATES = 5
"""The paper's rolling window, in updates of the smallest batch of a scale; the same tokens for every size."""
HOLD_UPDATES = 16
"""For the tokens of so many of these updates M_update has to stay at tau or above (rule 14)."""
FRESH_SHARE = 1 / 8
"""Share of a run over which M_update is summed to be compared with accuracy on fresh text."""
LATE = 0.5
"""They are compared from this share of a run on, where neither moves much."""


class Exposure(NamedTuple):
    """One batch and some fresh text of a run, by state: before the batch's update, after it, at the ends."""

    update: int
    batch: Mapping[int, float]
    fresh: Mapping[int, float]

    @property
    def gain(self) -> float:
        """Memory from one exposure: after minus before, less the same of the fresh text (rule 13)."""
        return self._change(self.update + 1)

    @property
    def left(self) -> float | None:
        """The same from before the update to the end of the run; None where its update was the last.

        Not of that one update alone: the batch's documents are read elsewhere in the stream as well, those of
        the fresh text are not.
        """
        return self._change(max(self.batch)) if max(self.batch) > self.update + 1 else None

    def _change(self, to: int) -> float:
        ours, twins = (on[to] - on[self.update] for on in (self.batch, self.fresh))
        return ours - twins


class Streamed(NamedTuple):
    """One run over a stream."""

    objective: str
    size: str
    seed: Hashable
    n_params: int
    """Non-embedding parameters."""
    steps: int
    tokens: int
    """Tokens read in an update."""
    online: Mapping[str, Points]
    """M_update over the rolling window, by what was shown; by the number of the update, from 1."""
    fresh: Points
    """Accuracy on text that is never read, by state."""
    gaps: Points
    """M_update around a state minus accuracy on fresh text there, late in the run."""
    exposures: tuple[Exposure, ...]
    """Shares of right predictions."""
    nats: tuple[Exposure, ...]
    """The same batches in nats a token."""

    def time(self, tau: float, /, *, hold: float) -> Crossing:
        """T_update(N, tau): where M_update crosses tau and stays there for `hold` tokens."""
        points = self.online[SHOWN[self.objective]]
        return crossing(
            points.updates, y=points.value, threshold=tau, window=hold / self.tokens, unit="update"
        )

    @property
    def mean_gain(self) -> float:
        """Memory from one exposure, the mean over the batches looked at."""
        return float(np.mean([one.gain for one in self.exposures]))

    @property
    def mean_nats(self) -> float:
        """The same in nats a token, by which the loss falls."""
        return -float(np.mean([one.gain for one in self.nats]))

    @property
    def mean_left(self) -> float | None:
        """What is left of it at the end, the mean over the batches looked at before the last."""
        left = [one.left for one in self.exposures if one.left is not None]
        return float(np.mean(left)) if left else None


class Found(NamedTuple):
    """What there is of a study of streams."""

    scale: str
    streams: dict[tuple[str, str], dict[Hashable, Streamed]]
    """By objective and size, causal first and then by parameters; then by seed."""
    proxies: list[tuple[Run, Online]]
    """Runs that read a fixed set again and again, with their M_update."""
    window: int
    """Tokens of the rolling window."""
    hold: int
    """Tokens for which tau has to be held."""

    def of(self, objective: str, /) -> dict[str, dict[Hashable, Streamed]]:
        """Runs of an objective by size, smallest first, then seed."""
        return {size: runs for (kind, size), runs in self.streams.items() if kind == objective}


def streams(collected: "Collected", *, planned: Iterable[Mapping[str, Label]]) -> Found:
    """Everything the figures and claims are made of; runs without any measurement are left out."""
    import polars as pl

    given = [labels for labels in planned if labels["regime"] == STREAM]
    batch = min(int(labels["batch_size"] or 0) * int(labels["length"] or 0) for labels in given)
    read = min(int(labels["n_sequences"] or 0) * int(labels["length"] or 0) for labels in given)
    window, hold, wide = batch * WINDOW_UPDATES, batch * HOLD_UPDATES, round(read * FRESH_SHARE)
    narrow = _speed.online(collected, window=window)
    late = {
        (one.key, one.seed): one
        for one in _speed.online(collected, window=wide)
        if one.kind == SHOWN[one.key.objective]
    }
    table = collected.measurements
    runs: list[Streamed] = []
    for _, part in table.filter(pl.col("regime") == STREAM).group_by("folder", maintain_order=True):
        labels = part.row(0, named=True)
        key = _speed.Key(labels["objective"], labels["size"], labels["n_sequences"], labels["arm"])
        own = {one.kind: one.points for one in narrow if (one.key, one.seed) == (key, labels["seed"])}
        if SHOWN[key.objective] in own and (key, labels["seed"]) in late:
            runs.append(_streamed(part, own, late[key, labels["seed"]].points, wide=wide))
    order = sorted(runs, key=lambda run: (run.objective != CAUSAL, run.n_params, str(run.seed)))
    found: dict[tuple[str, str], dict[Hashable, Streamed]] = {}
    for run in order:
        found.setdefault((run.objective, run.size), {})[run.seed] = run
    return Found(collected.scale, found, _proxies(table, narrow), window, hold)


def _streamed(part: "pl.DataFrame", online: Mapping[str, Points], late: Points, *, wide: int) -> Streamed:
    import polars as pl

    labels = part.row(0, named=True)
    steps, tokens = int(labels["steps"]), int(labels["batch_size"] * labels["length"])
    rows = part.filter((pl.col("probe") == "fresh") & (pl.col("metric") == "memorized")).sort("step")
    known = rows.filter(pl.col("value").is_not_null())
    fresh = Points(known["step"].to_numpy().astype(np.float64), known["value"].to_numpy())
    half = max(1, round(wide / tokens)) / 2
    states = fresh.updates[(fresh.updates >= LATE * steps) & (fresh.updates + half <= steps)]
    around = np.interp(states + half, late.updates, late.value)
    return Streamed(
        objective=labels["objective"],
        size=labels["size"],
        seed=labels["seed"],
        n_params=labels["non_embedding"],
        steps=steps,
        tokens=tokens,
        online=online,
        fresh=fresh,
        gaps=Points(
            states, around - np.interp(states, fresh.updates, fresh.value) if len(states) else states
        ),
        exposures=_exposures(part, metric="memorized"),
        nats=_exposures(part, metric="loss"),
    )


def _exposures(part: "pl.DataFrame", *, metric: str) -> tuple[Exposure, ...]:
    """The batches of a run that were measured before and after their update."""
    import polars as pl

    rows = part.filter((pl.col("metric") == metric) & pl.col("value").is_not_null())
    looked = sorted(int(update) for update in rows.filter(pl.col("set") == "batch")["batch"].unique())
    found: list[Exposure] = []
    for update in looked:
        batch = rows.filter(pl.col("on") == f"batch/{update}")
        # The fresh text that the same probe read, at the same states.
        fresh = rows.filter(pl.col("key").is_in(batch["key"].unique().to_list()) & (pl.col("set") == "test"))
        ours, twins = (dict(zip(of["step"], of["value"], strict=True)) for of in (batch, fresh))
        if {update, update + 1} <= set(ours) & set(twins) and max(ours) in twins:
            found.append(Exposure(update, ours, twins))
    return tuple(found)


def _proxies(table: "pl.DataFrame", online: Sequence[Online]) -> list[tuple[Run, Online]]:
    import polars as pl

    there = _speed.cells(table.filter(pl.col("regime") == PASSES))
    return [
        (there[one.key][one.seed], one)
        for one in online
        if one.kind == ALL_TARGETS and one.seed in there.get(one.key, {})
    ]


def proxy_gap(run: Run, online: Online, /) -> Points:
    """M_update minus M(f) at the states where M(f) was measured, from the first full window on."""
    at = run.progress.updates[run.progress.updates >= online.points.updates[0]]
    batch = np.interp(at, online.points.updates, online.points.value)
    return Points(at, batch - np.interp(at, run.progress.updates, run.progress.memorized))


def common_seeds(runs: Iterable[Mapping[Hashable, Any]], /) -> list[Hashable]:
    """The seeds that every size has."""
    sets = [set(of) for of in runs]
    return sorted(set.intersection(*sets), key=str) if sets else []


def planned_sizes(planned: Iterable[Mapping[str, Label]], *, objective: str) -> dict[str, set[Label]]:
    """Seeds planned by size of an objective, smallest size first, of a study of streams those of streams."""
    found: dict[str, tuple[int, set[Label]]] = {}
    for labels in planned:
        if (labels.get("regime", STREAM), labels["objective"]) == (STREAM, objective):
            n_params = int(labels["non_embedding"] or 0)
            found.setdefault(str(labels["size"]), (n_params, set()))[1].add(labels["seed"])
    return {size: seeds for size, (_, seeds) in sorted(found.items(), key=lambda item: item[1][0])}
