"""A study of seconds: two arms, a control, and two forks of one trunk, on bytes of a text beside it."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from repetita.cadence import At, Every
from repetita.corpus.sequences import CorpusSpec
from repetita.corpus.splits import Splits
from repetita.corpus.tokenizer import TokenizerSpec
from repetita.corpus.treatment import Passes, RepeatedSubset, SpecialBatch, Stream, Treatment
from repetita.measure.memorization import ScoreProbe
from repetita.model.config import ModelConfig
from repetita.study.plan import Analysis, PlannedRun, Study
from repetita.train.recipe import Recipe, RunSpec

if TYPE_CHECKING:
    from repetita.study.collect import Collected

CORPUS = CorpusSpec(
    source=str(Path(__file__).parent / "corpus"),
    tokenizer=TokenizerSpec(kind="bytes"),
    length=16,
    splits=Splits(test="0.1", special="0.1", twin="0.1", placebo="0.1"),
)
MODEL = ModelConfig(n_layer=1, d_model=8, n_head=1, vocab_size=257, context=16)


def run(treatment: Treatment, *, steps: int = 12, seed: int = 0, learning_rate: float = 0.01) -> RunSpec:
    return RunSpec(
        corpus=CORPUS,
        model=MODEL,
        treatment=treatment,
        recipe=Recipe(learning_rate=learning_rate, warmup_steps=2),
        steps=steps,
        batch_size=4,
        seed=seed,
    )


TEST = ScoreProbe(name="test", on=("test",), max_sequences=8, cadence=Every(n=6))
PAIRS = ScoreProbe(name="pairs", on=("special", "twin", "train"), max_sequences=8, cadence=At(at=(4, 6)))


def tiny() -> Sequence[PlannedRun]:
    half = RepeatedSubset(fraction="0.5", n_sequences=4)
    forks = [
        PlannedRun(
            spec=run(SpecialBatch(base=Passes(n_sequences=8), size=4, at=6, n_batches=2, arm=arm)),
            labels={"arm": arm},
            probes=(TEST, PAIRS),
            fork_at=6,
        )
        for arm in ("special", "placebo")
    ]
    return [
        PlannedRun(spec=run(Stream()), labels={"arm": "control"}, probes=(TEST,)),
        PlannedRun(spec=run(Stream()), labels={"arm": "control again", "passes": 1}, probes=(TEST,)),
        PlannedRun(spec=run(half), labels={"arm": "repeated", "passes": 6.0}, probes=(TEST,)),
        *forks,
    ]


def broken() -> Sequence[PlannedRun]:
    bad = PlannedRun(spec=run(Stream(), learning_rate=1e30), labels={"arm": "diverging"}, probes=(TEST,))
    return [bad, PlannedRun(spec=run(Stream()), labels={"arm": "control"}, probes=(TEST,))]


def long() -> Sequence[PlannedRun]:
    passes = Passes(n_sequences=8)
    return [
        PlannedRun(spec=run(passes, steps=2000, seed=seed), labels={"arm": "long"}, probes=(TEST,))
        for seed in range(2)
    ]


def analyse(collected: "Collected") -> Analysis:
    from repetita.fit.claim import directional

    final = collected.where(metric="loss", on="test", step=12, arm="control")["value"].to_list()
    claim = directional(
        final, name="above zero", statement="The loss is above zero", source="nobody", direction="above"
    )
    return Analysis(claims=[claim])


STUDY = Study(
    name="tiny_study",
    title="A tiny study",
    question="Does it run?",
    prediction="It does",
    source="no paper",
    scales={"tiny": tiny, "broken": broken, "long": long},
    analyse=analyse,
    detectable=lambda scale: {"above zero": "0.1 nats with one seed"},
)
