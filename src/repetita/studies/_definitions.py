"""Per-sequence scores of every definition of memorization, of models on random halves of one set.

T models, S sequences of the common set, W suffixes inside a sequence, Y test sequences.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from repetita import seeds
from repetita.fit.agreement import Agreement, Halves, agreement, agreement_interval
from repetita.fit.counterfactual import Counterfactual, memorization
from repetita.fit.estimate import Estimate
from repetita.study.plan import Label

if TYPE_CHECKING:
    from repetita.study.collect import Collected

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

SPLITS = 4
"""Ways in which models are split in two for an agreement; their mean is taken."""
MID, LATE = 0.6, 0.95
"""M(f) of a model's own half: definitions are compared where it is nearest to the first, what is memorized is
asked for where it is nearest to the second. At the first no definition is at its floor or ceiling."""
NEAR = 0.2
"""How near a state must be to MID for a verdict."""

SCORES = {
    "memorized": "M(f)",
    "counterfactual": "counterfactual memorization",
    "head": "continuation from the head",
    "inside": "continuation from inside",
    "unseen": "M(f) of models without it",
}
"""What ranks the sequences. Continuations are exact prefixes of the suffix in tokens, mean over prompts."""


@dataclass(frozen=True, kw_only=True)
class State:
    """All models of a cell after as many passes."""

    passes: float
    member: Bools
    """Whether each model was trained on each sequence, shape (T, S)."""
    memorized: Floats
    """M(f) of each sequence, shape (T, S)."""
    head: Mapping[int, Floats]
    """Exact prefix of the continuation of the first k tokens by k, shape (T, S); nan where not asked."""
    inside: Mapping[int, Floats]
    """The same from inside, shape (T, S, W)."""
    context: Floats
    """The same suffixes in their whole context, shape (T, S, W)."""
    test: Floats
    """M(f) of each test sequence, shape (T, Y)."""

    @property
    def level(self) -> float:
        """Mean M(f) of the models on their own halves."""
        return float(self.memorized[self.member].mean())

    def own(self, values: Floats, /) -> Floats:
        """Mean of (T, S) or (T, S, W) values over each model's own half, shape (T,)."""
        return _mean_by_model(values, self.member)

    def unseen(self, values: Floats, /) -> Floats:
        """The same over the other half."""
        return _mean_by_model(values, ~self.member)

    def counterfactual(self) -> Counterfactual:
        """Counterfactual memorization of each sequence, from all models."""
        return memorization(self.memorized, membership=self.member)

    def score(self, name: str, models: Sequence[int]) -> Floats:
        """How each sequence scores under a definition, from these models alone, shape (S,)."""
        chosen = list(models)
        member, memorized = self.member[chosen], self.memorized[chosen]
        if name == "unseen":
            return _mean_by_sequence(memorized, ~member)
        if name == "counterfactual":
            return memorization(memorized, membership=member).value
        if name == "memorized":
            return _mean_by_sequence(memorized, member)
        continued, asked = self._continued[name]
        return _mean_by_sequence(continued[chosen], member & asked[chosen])

    @cached_property
    def _continued(self) -> Mapping[str, tuple[Floats, Bools]]:
        """Mean exact prefix over all that a model is asked of a sequence; whether it is asked anything."""
        found = {}
        for name, by_prompt in (("head", self.head), ("inside", self.inside)):
            values = np.concatenate(
                [prefix.reshape(*self.member.shape, -1) for prefix in by_prompt.values()], -1
            )
            n = np.isfinite(values).sum(-1)
            found[name] = (np.nansum(values, axis=-1) / np.maximum(n, 1), n > 0)
        return found

    def agreement(self, one: str, other: str) -> Agreement:
        """Rank agreement of two definitions between disjoint models."""
        both = self._halves(one, other, list(range(len(self.member))))
        return agreement(*both)

    def interval(self, one: str, other: str, *, corrected: bool = True) -> Estimate:
        """The same with its interval."""
        return agreement_interval(
            lambda models: self._halves(one, other, models),
            models=len(self.member),
            corrected=corrected,
            draws=200,
        )

    def _halves(self, one: str, other: str, models: list[int]) -> tuple[Halves, Halves]:
        sides = _sides(len(self.member))
        parts = [([m for m in models if m in side], [m for m in models if m not in side]) for side in sides]
        return tuple([(self.score(name, a), self.score(name, b)) for a, b in parts] for name in (one, other))  # type: ignore[return-value]


class Cell(NamedTuple):
    """Models that differ in their seed, and what was measured of them."""

    name: str
    """Size, and position embedding where it is another."""
    n_params: int
    suffix: int
    prompts: tuple[int, ...]
    sequence: NDArray[np.int64]
    """Indices of the common set, shape (S,)."""
    test_sequence: NDArray[np.int64]
    starts: tuple[int, ...]
    states: tuple[State, ...]
    """By passes."""
    counts: Mapping[int, Mapping[int, Floats]]
    """Training sequences of a model that hold the string of n tokens at a place, by n and place, shape
    (T, S); nan where there is no such string."""

    @property
    def models(self) -> int:
        """Number of models T."""
        return len(self.states[0].member)

    def nearest(self, level: float) -> State:
        """The state whose mean M(f) is nearest to a level."""
        return min(self.states, key=lambda state: abs(state.level - level))


def cells(collected: "Collected") -> list[Cell]:
    """Every cell with at least two finished models, in the order of the study."""
    import polars as pl

    table = collected.measurements
    names = table.select("size", "position").unique(maintain_order=True).rows()
    found = [
        _cell(
            collected,
            table.filter((pl.col("size") == size) & (pl.col("position") == position)).rows(named=True),
        )
        for size, position in names
    ]
    return [cell for cell in found if cell is not None]


def main_cell(found: Sequence[Cell], *, planned: Sequence[Mapping[str, Label]]) -> Cell | None:
    """The cell that the claims are about; None where it is not there yet."""
    name = main_name(planned)
    return next((cell for cell in found if cell.name == name), None)


def main_name(planned: Sequence[Mapping[str, Label]]) -> str:
    """The cell of which most models are planned."""
    counts = Counter(cell_name(labels) for labels in planned)
    return max(counts, key=lambda name: (counts[name], name))


def cell_name(labels: Mapping[str, Any]) -> str:
    """The cell that a planned run belongs to."""
    position = "" if labels["position"] == "learned" else f", {labels['position']} positions"
    return f"{labels['size']}{position}"


def _cell(collected: "Collected", rows: Sequence[Mapping[str, Any]]) -> Cell | None:
    runs: dict[str, dict[tuple[str, int], Mapping[str, Any]]] = {}
    for row in rows:
        runs.setdefault(row["folder"], {}).setdefault((row["probe"], row["step"]), row)
    last = max(row["steps"] for row in rows)
    steps = sorted({row["step"] for row in rows if row["probe"] == "extraction" and row["step"] > 0})
    needed = [("half", last), *((probe, step) for probe in ("extraction", "held-out") for step in steps)]
    there = [name for name, kept in runs.items() if all(key in kept and kept[key]["n"] for key in needed)]
    if len(there) < 2 or not steps:
        return None

    def items(probe: str, step: int) -> list[dict[str, NDArray[np.generic]]]:
        asked = [runs[name][probe, step] for name in there]
        return [collected.items(row["folder"], key=row["key"], step=step) for row in asked]

    first = runs[there[0]]["extraction", last]
    facts = json.loads(first["detail"])
    of_last = items("extraction", last)
    sequence = np.asarray(of_last[0]["common/sequence"], dtype=np.int64)
    member = np.stack([np.isin(sequence, kept["train/sequence"]) for kept in items("half", last)])
    prompts = tuple(sorted(int(n.rpartition("_")[2]) for n in of_last[0] if n.startswith("common/head_")))
    a_pass = first["n_sequences"] / first["batch_size"]
    states = tuple(
        _state(items("extraction", step), items("held-out", step), member, prompts, passes=step / a_pass)
        for step in steps
    )
    probes = {probe for probe, _ in runs[there[0]] if probe.startswith("occurrences-")}
    complete = [probe for probe in sorted(probes) if all((probe, last) in runs[name] for name in there)]
    counts: dict[int, dict[int, Floats]] = {}
    for probe in complete:
        detail = json.loads(runs[there[0]][probe, last]["detail"])
        stacked = _numbers([kept["common/in_sequences"] for kept in items(probe, last)])
        counts[detail["suffix"]] = {place: stacked[:, :, w] for w, place in enumerate(detail["starts"])}
    return Cell(
        name=cell_name(first),
        n_params=first["non_embedding"],
        suffix=facts["suffix"],
        prompts=prompts,
        sequence=sequence,
        test_sequence=np.asarray(items("held-out", last)[0]["test/sequence"], dtype=np.int64),
        starts=tuple(facts["starts"]),
        states=states,
        counts=dict(sorted(counts.items())),
    )


def _state(
    extraction: Sequence[Mapping[str, NDArray[np.generic]]],
    held_out: Sequence[Mapping[str, NDArray[np.generic]]],
    member: Bools,
    prompts: Sequence[int],
    *,
    passes: float,
) -> State:
    def stacked(name: str) -> Floats:
        return _numbers([kept[f"common/{name}"] for kept in extraction])

    return State(
        passes=passes,
        member=member,
        memorized=stacked("hits") / stacked("n_scored"),
        head={k: stacked(f"head_{k}") for k in prompts},
        inside={k: stacked(f"inside_{k}") for k in prompts},
        context=stacked("context"),
        test=np.stack([kept["test/hits"] / kept["test/n_scored"] for kept in held_out]),  # type: ignore[operator]
    )


def _numbers(arrays: Sequence[NDArray[np.generic]]) -> Floats:
    """Arrays of all models as floats, nan for what was not asked."""
    whole = np.stack(arrays).astype(np.float64)
    return np.where(whole < 0, np.nan, whole)


@cache
def _sides(models: int) -> tuple[frozenset[int], ...]:
    """One side of each split of the models."""
    drawn = seeds.generator(0, "bootstrap")
    return tuple(frozenset(drawn.permutation(models)[: models // 2].tolist()) for _ in range(SPLITS))


def _mean_by_model(values: Floats, chosen: Bools) -> Floats:
    flat = values.reshape(*chosen.shape, -1)
    there = chosen[..., None] & np.isfinite(flat)
    n = there.sum(axis=(1, 2))
    return np.where(n > 0, np.where(there, flat, 0).sum(axis=(1, 2)) / np.maximum(n, 1), np.nan)


def _mean_by_sequence(values: Floats, chosen: Bools) -> Floats:
    n = chosen.sum(0)
    return np.where(n > 0, np.where(chosen, values, 0).sum(0) / np.maximum(n, 1), np.nan)
