"""The runs of the forgetting study: trunks, forks at the exposure, and runs that are never disturbed."""

import math
from collections.abc import Callable, Iterable, Iterator
from itertools import product
from typing import Literal, NamedTuple

from repetita.cadence import At, AtPasses, LogSpaced, Several
from repetita.corpus.sequences import CorpusSpec
from repetita.corpus.treatment import Passes, SpecialBatch
from repetita.measure.memorization import ScoreProbe
from repetita.measure.probe import Probe
from repetita.measure.retained import RetainedProbe, TaggedRetainedProbe
from repetita.measure.token_hits import TokenHitsProbe
from repetita.model.config import ModelConfig, count
from repetita.study.plan import Label, PlannedRun
from repetita.train.recipe import Recipe, RunSpec

Trained = Literal["special", "twin"]
After = Literal["same", "novel"]

DENSE = 8
"""States up to this many updates after each special batch are measured closely, then five a decade."""
PAIRS = (1, 2, 4, 6, 8, 11, 16, 23, 32, 45, 64, 90, 128, 180)
"""Passes after which, and one pass later, the hit of every token is kept: about sqrt(2) apart."""
TRIPLES = (4, 8, 16, 32, 64, 128)
"""Of these also two passes later: what was lost may have come back."""


class Cell(NamedTuple):
    """Forks of one trunk a seed: the special batches, or placebo text in their place, then more training."""

    size: str
    times: int = 1
    """Updates on each special batch, in a row. The paper's forgetting curves have one."""
    after: tuple[After, ...] = ("same",)
    seeds: tuple[int, ...] = (0,)
    plain: bool = False
    """Whether a run that goes on without any exposure is followed token by token."""


class Sized(NamedTuple):
    """What depends on the size of a model."""

    model: ModelConfig
    recipe: Recipe
    batch_size: int


class Design(NamedTuple):
    """What a scale runs."""

    cells: tuple[Cell, ...]
    corpus: CorpusSpec
    sized: Callable[[str], Sized]
    n_sequences: int
    """Sequences of the training set, read pass after pass."""
    before: int
    """Passes before the first special batch."""
    later: int
    """Passes after the last special batch."""
    n_batches: int = 4
    special_size: int | None = None
    """Sequences of a special batch; None: a batch of the training set."""
    followed: int = 128
    """Sequences of the training set that are followed token by token."""
    held_out: int = 64
    """The same of the test set."""
    tagged: bool = True
    """Whether parts of speech are told apart among the tokens that are retained."""

    def updates(self, passes: int, /, *, batch_size: int) -> int:
        """Updates in this many passes."""
        return round(passes * self.n_sequences / batch_size)


def planned(design: Design) -> Iterator[PlannedRun]:
    """A run for each cell, arm, continuation and seed; the arms of a seed share their trunk."""
    for cell in design.cells:
        for seed, after in product(cell.seeds, cell.after):
            # Roles are crossed over seeds: odd seeds train on the twin and never see the special set.
            trained: Trained = "special" if seed % 2 == 0 else "twin"
            for arm in (trained, "placebo"):
                yield _fork(design, cell, arm=arm, trained=trained, after=after, seed=seed)
        if cell.plain:
            yield from (_plain(design, cell, seed=seed) for seed in cell.seeds)


def _fork(
    design: Design,
    cell: Cell,
    *,
    arm: Literal["special", "twin", "placebo"],
    trained: Trained,
    after: After,
    seed: int,
) -> PlannedRun:
    model, recipe, batch_size = design.sized(cell.size)
    at, later = (design.updates(n, batch_size=batch_size) for n in (design.before, design.later))
    last = at + design.n_batches * cell.times
    spec = RunSpec(
        corpus=design.corpus,
        model=model,
        treatment=SpecialBatch(
            base=Passes(n_sequences=design.n_sequences),
            size=design.special_size or batch_size,
            at=at,
            n_batches=design.n_batches,
            times=cell.times,
            arm=arm,
            after=after,
        ),
        recipe=recipe,
        steps=last + later,
        batch_size=batch_size,
        seed=seed,
    )
    exposed = arm != "placebo"
    probes = list(curves(at=at, n_batches=design.n_batches, times=cell.times))
    if cell.times == 1 and after == "same":
        ends = At(at=(at, last + later))
        probes.append((TaggedRetainedProbe if design.tagged else RetainedProbe)(on=(trained,), cadence=ends))
        if exposed:
            probes.append(_training(at=last, followed=design.followed))
    return PlannedRun(
        spec=spec,
        labels=_labels(
            design, cell, model, at=at, arm="special" if exposed else "placebo", trained=trained, after=after
        ),
        probes=tuple(probes),
        fork_at=at,
    )


def _plain(design: Design, cell: Cell, *, seed: int) -> PlannedRun:
    """The trunk of this size and seed, going on as if nothing had been planned."""
    model, recipe, batch_size = design.sized(cell.size)
    at = design.updates(design.before, batch_size=batch_size)
    passes = design.before + design.later
    spec = RunSpec(
        corpus=design.corpus,
        model=model,
        treatment=Passes(n_sequences=design.n_sequences),
        recipe=recipe,
        steps=design.updates(passes, batch_size=batch_size),
        batch_size=batch_size,
        seed=seed,
    )
    cadence = AtPasses(passes=tuple(followed_passes(passes)))
    probes = (
        TokenHitsProbe(name="churn", on=("train",), max_sequences=design.followed, cadence=cadence),
        TokenHitsProbe(name="churn_test", on=("test",), max_sequences=design.held_out, cadence=cadence),
    )
    labels = _labels(design, cell._replace(times=0), model, at=at, arm="plain", trained="none", after="same")
    return PlannedRun(spec=spec, labels=labels, probes=probes, fork_at=at)


def _labels(
    design: Design, cell: Cell, model: ModelConfig, *, at: int, arm: str, trained: str, after: str
) -> dict[str, Label]:
    return {
        "arm": arm,
        "trained": trained,
        "after": after,
        "times": cell.times,
        "size": cell.size,
        "non_embedding": count(model).non_embedding,
        "at": at,
        "n_batches": design.n_batches,
        "n_sequences": design.n_sequences,
    }


def curves(*, at: int, n_batches: int, times: int) -> Iterator[Probe]:
    """Each special batch and its twin at every state around the injections, then log-spaced."""
    last = at + n_batches * times
    ends = [at + batch * times for batch in range(1, n_batches + 1)]
    near = (at, *(end + later for end in ends for later in (0, 1, 2, 3, 5, DENSE)))
    after = LogSpaced(per_decade=5, origin=last)
    pairs = tuple(f"{name}/{batch}" for name in ("special", "twin") for batch in range(n_batches))
    yield ScoreProbe(name="special", on=pairs, cadence=Several(of=(At(at=near), after)))


def _training(*, at: int, followed: int) -> Probe:
    """Meanwhile: the training set and the test set."""
    cadence = Several(of=(LogSpaced(per_decade=3), LogSpaced(per_decade=3, origin=at)))
    return ScoreProbe(name="train", on=("train", "test"), max_sequences=followed, cadence=cadence)


def followed_passes(last: int, /) -> list[int]:
    """Passes up to `last` whose states are compared with those one (or also two) passes later."""
    due = {
        *(first + more for first in (*PAIRS, last - 1) for more in (0, 1)),
        *(first + 2 for first in TRIPLES),
    }
    return sorted(n for n in due if 0 < n <= last)


def seeds(n: int, /) -> tuple[int, ...]:
    """The first n seeds."""
    return tuple(range(n))


def passes_text(values: Iterable[float], /) -> str:
    """The smallest and the largest, or the only one."""
    found = [math.floor(value * 10 + 0.5) / 10 for value in values]
    return " to ".join(dict.fromkeys(f"{value:g}" for value in (min(found), max(found))))
