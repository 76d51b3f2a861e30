"""The study of `study_speed`: twenty-four short runs, two sizes, with and without repetition, six seeds."""

from collections.abc import Sequence
from fractions import Fraction
from functools import partial
from itertools import product
from typing import TYPE_CHECKING

from repetita.cadence import At
from repetita.corpus.treatment import RepeatedSubset, Stream, Treatment
from repetita.measure.memorization import ScoreProbe
from repetita.studies._laptop import RATES, SOTU, config
from repetita.study.plan import Analysis, PlannedRun, Study
from repetita.train.recipe import Recipe, RunSpec

if TYPE_CHECKING:
    from repetita.study.collect import Collected

SIZES, SEEDS, BATCH_SIZE = ("25k", "100k"), range(6), 16
STEPS = {"try": 20, "short": 160, "long": 400}
"""By scale."""


def planned(steps: int) -> Sequence[PlannedRun]:
    """Two sizes, one pass or sixteen over a subset in half of the slots, six seeds."""
    probe = ScoreProbe(on=("test",), budget="0.02", cadence=At(at=(steps // 2,)))
    arms: dict[str, Treatment] = {
        "control": Stream(),
        "repeated": RepeatedSubset(fraction=Fraction(1, 2), n_sequences=steps // 2),
    }
    runs = []
    for size, (arm, treatment), seed in product(SIZES, arms.items(), SEEDS):
        spec = RunSpec(
            corpus=SOTU,
            model=config(size, corpus=SOTU),
            treatment=treatment,
            recipe=Recipe(learning_rate=RATES[size], warmup_steps=steps // 10),
            steps=steps,
            batch_size=BATCH_SIZE,
            seed=seed,
        )
        runs.append(PlannedRun(spec=spec, labels={"arm": arm, "size": size}, probes=(probe,)))
    return runs


def analyse(_: "Collected") -> Analysis:
    """Nothing: the question is how long the runs take."""
    return Analysis()


STUDY = Study(
    name="twenty_four_runs",
    title="Twenty-four runs",
    question="How long do they take?",
    prediction="Half as long on two cores as on one",
    source="the README",
    scales={name: partial(planned, steps) for name, steps in STEPS.items()},
    analyse=analyse,
)
