"""Runs that read a fixed training set again and again: what the studies of T(N, tau) plan, at every scale."""

from collections.abc import Iterator, Mapping
from typing import Literal, NamedTuple

from repetita.cadence import LogSpaced
from repetita.corpus.sequences import CorpusSpec
from repetita.corpus.treatment import Passes
from repetita.measure.memorization import ScoreProbe
from repetita.measure.probe import Probe
from repetita.measure.unit_length import UnitLengthProbe
from repetita.model.config import ModelConfig, count
from repetita.studies import _gpu_scale, _paper_scale
from repetita.studies._laptop import MASKED_RATES, RATES, SOTU
from repetita.studies._laptop import config as laptop_config
from repetita.study.plan import PlannedRun
from repetita.train.recipe import Recipe, RunSpec

Objective = Literal["causal", "masked"]
ArmName = Literal["standard", "half warm-up", "own batch", "half rate", "double rate", "given rate"]
Family = Literal["laptop", "gpu", "paper"]
"""Whose sizes, rates and recipe: two CPU cores', one GPU's, or the paper's own (its Table 1)."""

OWN_BATCH: Mapping[str, int] = {
    "25k": 8, "57k": 8, "100k": 16, "220k": 16, "400k": 32, "890k": 32,
    "3.1M": 8, "11M": 16, "25M": 16, "85M": 32,
}  # fmt: skip
"""Sequences a batch in the arm with a batch for each size: as in the paper's Table 1, where the batch doubles
twice from the smallest to the largest of six sizes while the peak rate falls."""


class Cell(NamedTuple):
    """Runs that differ in their seed only."""

    objective: Objective
    size: str
    passes: int
    """Length of the run: beyond a sustained M(f) of 0.95 in pilots, or what can be paid for."""
    seeds: int = 1
    arm: ArmName = "standard"
    n_sequences: int = 128
    """Sequences of the training set."""
    rate: float | None = None
    """Peak learning rate of the arm `given rate`; the other arms take their size's."""

    @property
    def arm_label(self) -> str:
        """The arm as the table has it: with the rate where that is what differs."""
        return self.arm if self.rate is None else rate_arm(self.rate)


def rate_arm(rate: float, /) -> str:
    """The label of the runs at a given rate."""
    return f"rate {rate:g}"


class Design(NamedTuple):
    """What a scale runs, and how closely it looks."""

    cells: tuple[Cell, ...]
    batch_size: int = 16
    """Sequences; the family `paper` has its own for each size."""
    warmup_steps: int = 16
    """At most a fifth of the smallest T reported."""
    per_decade: int = 16
    """Full passes over the training set for M(f), a decade of passes."""
    per_decade_else: int = 6
    """The same for the test set and for run lengths."""
    test_sequences: int = 128
    lengths: tuple[Objective, ...] = ("causal", "masked")
    """Objectives whose run lengths are measured: masked models are asked seven times for a set."""
    corpus: CorpusSpec = SOTU
    family: Family = "laptop"


def planned(design: Design) -> Iterator[PlannedRun]:
    """A run for each cell and seed."""
    for cell in design.cells:
        for seed in range(cell.seeds):
            yield _run(design, cell, seed=seed)


def _run(design: Design, cell: Cell, *, seed: int) -> PlannedRun:
    model, batch_size, recipe = _recipe(design, cell)
    spec = RunSpec(
        corpus=design.corpus,
        model=model,
        treatment=Passes(n_sequences=cell.n_sequences),
        recipe=recipe,
        steps=cell.passes * cell.n_sequences // batch_size,
        batch_size=batch_size,
        seed=seed,
    )
    return PlannedRun(
        spec=spec,
        labels={
            "objective": cell.objective,
            "size": cell.size,
            "non_embedding": count(model).non_embedding,
            "n_sequences": cell.n_sequences,
            "length": design.corpus.length,
            "arm": cell.arm_label,
            "rate": recipe.learning_rate,
        },
        probes=tuple(probes(design, objective=cell.objective)),
    )


def _recipe(design: Design, cell: Cell) -> tuple[ModelConfig, int, Recipe]:
    """Model, sequences a batch and optimizer of a cell."""
    if design.family == "paper":
        size = next(name for name in _paper_scale.SIZES if name == cell.size)
        causal = cell.objective == "causal"
        tokens = _paper_scale.CAUSAL_TOKENS if causal else _paper_scale.MASKED_TOKENS
        recipe = _paper_scale.recipe(size, tokens=tokens, rate=cell.rate)
        model = _paper_scale.config(size, objective=cell.objective, corpus=design.corpus)
        return model, _paper_scale.BATCH_SIZES[size], recipe
    if design.family == "gpu":
        model = _gpu_scale.config(cell.size, objective=cell.objective, corpus=design.corpus)
        own = _gpu_scale.RATES[cell.size]
    else:
        model = laptop_config(cell.size, corpus=design.corpus).edit(objective=cell.objective)
        own = (RATES if cell.objective == "causal" else MASKED_RATES)[cell.size]
    factor = {"half rate": 0.5, "double rate": 2.0}.get(cell.arm, 1.0)
    recipe = Recipe(
        learning_rate=own * factor if cell.rate is None else cell.rate,
        warmup_steps=design.warmup_steps // (2 if cell.arm == "half warm-up" else 1),
    )
    return model, OWN_BATCH[cell.size] if cell.arm == "own batch" else design.batch_size, recipe


def probes(design: Design, *, objective: Objective) -> Iterator[Probe]:
    """M(f) on the whole training set, densely; accuracy on the test set and run lengths, less so."""
    often = LogSpaced(per_decade=design.per_decade, unit="passes")
    seldom = LogSpaced(per_decade=design.per_decade_else, unit="passes")
    yield ScoreProbe(name="train", on=("train",), cadence=often)
    yield ScoreProbe(name="test", on=("test",), max_sequences=design.test_sequences, cadence=seldom)
    if objective in design.lengths:
        yield UnitLengthProbe(on=("train",), cadence=seldom)
