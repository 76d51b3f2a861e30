"""Parts of speech over a run: rates by class on training and test set, their excess, and half-times."""

import json
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from repetita.corpus.parts_of_speech import CLASSES, PAPER_CLASSES
from repetita.fit.curves import crossing
from repetita.fit.estimate import Crossing
from repetita.measure.parts_of_speech import COUNTED, EDGES
from repetita.study.plan import Label

if TYPE_CHECKING:
    import polars as pl

Floats = NDArray[np.float64]

FIRST = ("noun", "proper noun", "numeral")
"""The classes that the paper finds memorized first."""
LATER = ("verb", "adjective")
TRAIN, TEST = "train", "test"

Rate = Literal["recall", "memorized"]
Control = Literal["none", "frequency", "positions"]
"""`positions`: all positions of a class, as in the paper, those whose prediction is no word as misses."""

STRATA = ((1, 1), (2, 3), (4, 7), (8, 31), (32, None))
"""Occurrences in the training set that a stratum holds, both ends included. Words of the test set that the
training set lacks are in none."""
LEAST = 5
"""Positions of each class, in each set, that a stratum must have to count."""
HALF = 0.5
"""The share of the excess at the end whose first sustained crossing is the half-time."""

_RIGHT: Mapping[Rate, int] = {"recall": COUNTED.index("right"), "memorized": COUNTED.index("exact")}


class Run(NamedTuple):
    """One run: counts over its measured states, from step 0 on."""

    size: str
    n_params: int
    seed: Hashable
    passes: Floats
    """Times the training set was read, shape (X,)."""
    counts: Mapping[str, Floats]
    """By set: states x classes x bins of frequency x COUNTED."""
    confusion: Mapping[str, Floats]
    """By set: states x class of the truth x class of the prediction (0: no whole word)."""
    total: Mapping[str, Floats]
    """By set: positions of each class that qualify."""
    tagger: str
    agreement: Mapping[str, Any] | None

    def rate(self, name: str, of: Rate, /, *, on: str, control: Control = "none") -> Floats:
        """R(p) or R_mem(p) of a class over the states; standardised over the strata where controlled.

        Positions count where truth and prediction are one whole word each (rule 18), unless the control is
        `positions`.
        """
        counts = self.counts[on][:, CLASSES.index(name)]
        if control != "frequency":
            return _share(counts.sum(1), of, among="positions" if control == "positions" else "words")
        weights = self.weights()
        if weights is None:
            return np.full(len(self.passes), np.nan)
        by_stratum = np.stack([_share(part, of) for part in _strata(counts)], axis=1)
        return np.asarray(np.nan_to_num(by_stratum) @ weights)

    def excess(self, name: str, of: Rate, /, *, control: Control = "none") -> Floats:
        """The rate on the training set less that on the test set, which was never trained on."""
        train, test = (self.rate(name, of, on=on, control=control) for on in (TRAIN, TEST))
        return np.asarray(train - test)

    def weights(self) -> Floats | None:
        """The share of each stratum among the paper's classes, 0 where one has too few positions.

        None where no stratum has enough of every class.
        """
        enough = np.ones(len(STRATA), dtype=bool)
        pooled = np.zeros(len(STRATA))
        for name in PAPER_CLASSES:
            for on in (TRAIN, TEST):
                there = np.array([part[0, 0] for part in _strata(self.counts[on][:1, CLASSES.index(name)])])
                enough &= there >= LEAST
                pooled += there if on == TRAIN else 0
        kept = np.where(enough, pooled, 0.0)
        return kept / kept.sum() if kept.sum() else None

    def covered(self) -> float:
        """The share of the training set's positions that the strata with enough of every class hold."""
        weights = self.weights()
        if weights is None:
            return 0.0
        five = [CLASSES.index(name) for name in PAPER_CLASSES]
        parts = np.array([part[0, 0] for part in _strata(self.counts[TRAIN][:1, five].sum(1))])
        return float(parts[weights > 0].sum() / self.counts[TRAIN][0, five, :, 0].sum())

    def precision(self, name: str, /, *, on: str) -> Floats:
        """Of all that is predicted to be of a class, the share that is, classes as frequent as in the set."""
        confusion, number = self.confusion[on], CLASSES.index(name)
        seen = confusion.sum(2)
        weight = np.divide(self.total[on], seen, out=np.zeros_like(seen), where=seen > 0)
        said = weight * confusion[:, :, number]
        known = np.full(len(said), np.nan)
        return np.asarray(np.divide(said[:, number], said.sum(1), out=known, where=said.sum(1) > 0))

    def half_time(
        self, name: str, of: Rate = "memorized", /, *, control: Control = "none"
    ) -> Crossing | None:
        """Passes until the excess is half of what it is at the end, and stays so for two states.

        None where the excess at the end is not above zero, or is not known.
        """
        after = self.passes > 0
        curve = self.excess(name, of, control=control)[after]
        if not np.isfinite(curve).all() or len(curve) < 2 or curve[-1] <= 0:
            return None
        return crossing(
            self.passes[after], y=curve, threshold=HALF * float(curve[-1]), evaluations=2, unit="pass"
        )

    def height(
        self, name: str, of: Rate = "memorized", /, *, on: str = TRAIN, control: Control = "none"
    ) -> float:
        """The mean of the rate over ln passes, from pass 1 on: the paper's curve as a number."""
        after = self.passes >= 1
        x, y = np.log(self.passes[after]), self.rate(name, of, on=on, control=control)[after]
        if len(x) < 2:
            return float(y.mean()) if len(y) else float("nan")
        return float(np.trapezoid(y, x) / (x[-1] - x[0]))


def _share(counts: Floats, of: Rate, *, among: Literal["words", "positions"] = "words") -> Floats:
    words, right = counts[:, COUNTED.index(among)], counts[:, _RIGHT[of]]
    return np.asarray(np.divide(right, words, out=np.full(len(words), np.nan), where=words > 0))


def _strata(counts: Floats) -> Iterator[Floats]:
    """The counts of each stratum, from those by bin: states x bins x COUNTED."""
    for low, high in STRATA:
        inside = [low <= edge and (high is None or edge <= high) for edge in EDGES]
        yield counts[:, inside].sum(1)


def gap(values: Mapping[str, float], /) -> float:
    """Mean over verb and adjective less the mean over noun, proper noun and numeral."""
    later, first = ([values[name] for name in names] for names in (LATER, FIRST))
    return sum(later) / len(later) - sum(first) / len(first)


def runs(table: "pl.DataFrame") -> list[Run]:
    """Every run with both sets measured at the same states, by size, then seed."""
    import polars as pl

    rows = table.filter(pl.col("metric") == "parts_of_speech").sort("step")
    found: dict[tuple[int, str, Hashable], dict[str, dict[int, Any]]] = {}
    facts: dict[tuple[int, str, Hashable], dict[str, Any]] = {}
    for row in rows.iter_rows(named=True):
        key = (row["non_embedding"], row["size"], row["seed"])
        detail = row["detail"] if isinstance(row["detail"], dict) else json.loads(row["detail"])
        found.setdefault(key, {}).setdefault(row["on"], {})[row["step"]] = detail
        facts[key] = row
    made = []
    for (n_params, size, seed), sets in sorted(found.items(), key=str):
        if TRAIN not in sets or TEST not in sets:
            continue
        row = facts[n_params, size, seed]
        steps = sorted(set(sets[TRAIN]) & set(sets[TEST]))
        if len(steps) < 2 or steps[-1] != row["steps"]:
            continue
        last = sets[TRAIN][steps[-1]]

        counts, confusion, totals = (
            {on: np.array([sets[on][step][name] for step in steps], dtype=np.float64) for on in (TRAIN, TEST)}
            for name in ("counts", "confusion", "total")
        )
        passes = np.array(steps, dtype=np.float64) * row["batch_size"] / row["n_sequences"]
        total = {on: values[-1] for on, values in totals.items()}
        tagged = last["tagger"], last["agreement"]
        made.append(Run(size, n_params, seed, passes, counts, confusion, total, *tagged))
    return sorted(made, key=lambda run: (run.n_params, str(run.seed)))


def main_size(planned: Sequence[Mapping[str, Label]], /) -> str:
    """The size with the most planned seeds, the larger among equals: what the primary claims are about."""
    seeds: dict[tuple[int, str], set[Label]] = {}
    for labels in planned:
        seeds.setdefault((int(labels["non_embedding"] or 0), str(labels["size"])), set()).add(labels["seed"])
    return max(seeds, key=lambda key: (len(seeds[key]), key[0]))[1]


def of_size(found: Sequence[Run], size: str, /) -> list[Run]:
    """The runs of one size, a seed each."""
    return [run for run in found if run.size == size]
