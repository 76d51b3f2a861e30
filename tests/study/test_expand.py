"""Equal runs are one job, forks share their trunk, and a measurement's key says what its sets are."""

from pathlib import Path

import pytest

from repetita.cadence import At, AtPasses, Every
from repetita.corpus.document_ids import DocumentIds
from repetita.corpus.sequences import CorpusSpec
from repetita.corpus.splits import Splits
from repetita.corpus.tokenizer import TokenizerSpec
from repetita.corpus.treatment import Passes, RepeatedSubset, SpecialBatch, Stream, Treatment
from repetita.errors import SpecError
from repetita.measure.memorization import ScoreProbe
from repetita.measure.parts_of_speech import PartsOfSpeechProbe
from repetita.measure.retained import RetainedProbe
from repetita.model.config import ModelConfig
from repetita.spec import fingerprint
from repetita.study.expand import Job, expand, in_run, measurement_key
from repetita.study.plan import PlannedRun
from repetita.train.recipe import Recipe, RunSpec, same_start

CORPUS = CorpusSpec(
    source="x", tokenizer=TokenizerSpec(kind="bytes"), length=16, splits=Splits(special="0.1")
)
MODEL = ModelConfig(n_layer=1, d_model=8, n_head=1, vocab_size=257, context=16)
TEST = ScoreProbe(name="test", on=("test",), cadence=Every(n=5))
PAIRS = ScoreProbe(name="pairs", on=("special", "twin"), cadence=At(at=(8, 12)))


def spec(treatment: Treatment, *, steps: int = 20, seed: int = 0) -> RunSpec:
    recipe = Recipe(learning_rate=0.01, warmup_steps=2)
    return RunSpec(
        corpus=CORPUS, model=MODEL, treatment=treatment, recipe=recipe, steps=steps, batch_size=4, seed=seed
    )


def special(*, at: int = 10, arm: str = "special", size: int = 4, n_batches: int = 1) -> SpecialBatch:
    return SpecialBatch(base=Passes(n_sequences=8), size=size, at=at, arm=arm, n_batches=n_batches)


def jobs_of(*planned: PlannedRun) -> tuple[Job, ...]:
    return expand(planned, root=Path("root"), corpora=lambda corpus: f"corpus {corpus.source}")


def test_equal_runs_are_one_job_with_the_probes_of_both() -> None:
    one = PlannedRun(spec=spec(Stream()), labels={"arm": "a"}, probes=(TEST,))
    other = PlannedRun(
        spec=spec(Stream()), labels={"arm": "b"}, probes=(TEST.edit(cadence=At(at=(3,))), PAIRS)
    )
    (job,) = jobs_of(one, other)
    assert [arm["arm"] for arm in job.arms] == ["a", "b"]
    due = {due.probe.name: due.steps for due in job.probes}
    assert due == {"test": {0, 3, 5, 10, 15, 20}, "pairs": {0, 8, 12, 20}}


def test_labels_are_completed_and_columns_of_the_table_refused() -> None:
    (job,) = jobs_of(PlannedRun(spec=spec(Stream(), seed=3), labels={"steps": "many"}))
    assert job.arms[0] == {"seed": 3, "n_params": 888, "steps": "many", "batch_size": 4}
    with pytest.raises(SpecError, match="'value'"):
        jobs_of(PlannedRun(spec=spec(Stream()), labels={"value": 1}))


def test_forks_share_a_trunk_that_is_measured_for_all_of_them() -> None:
    arms = [
        PlannedRun(spec=spec(special(arm=arm)), labels={"arm": arm}, probes=(TEST, PAIRS), fork_at=10)
        for arm in ("special", "placebo")
    ]
    jobs = jobs_of(*arms)
    trunk = jobs[0]
    assert not trunk.arms
    assert trunk.spec == arms[0].spec.until(10)
    assert [job.trunk for job in jobs] == [None, trunk.fingerprint, trunk.fingerprint]
    assert [job.trunk_steps for job in jobs] == [0, 10, 10]
    due = {due.probe.name: due for due in trunk.probes}
    assert due["test"].steps == {0, 5, 10}
    assert due["pairs"].steps == {0, 8}
    assert due["pairs"].probe.on == ("special/0", "twin/0")
    assert due["pairs"].sets_of == arms[0].spec


def test_a_late_window_forks_from_the_control_and_each_window_is_measured_on_its_own_subset() -> None:
    subset = ScoreProbe(name="subset", on=("repeated",), cadence=Every(n=5))
    windows = [RepeatedSubset(fraction="1/2", n_sequences=n, start=10) for n in (4, 2)]
    arms = [PlannedRun(spec=spec(Stream()), labels={"arm": "control"}, probes=(TEST,), fork_at=10)]
    arms += [
        PlannedRun(spec=spec(w), labels={"arm": "late"}, probes=(TEST, subset), fork_at=10) for w in windows
    ]
    jobs = jobs_of(*arms)
    assert jobs[0].spec == spec(Stream()).until(10)
    assert {job.trunk for job in jobs[1:]} == {jobs[0].fingerprint}
    assert sorted(due.probe.name for due in jobs[0].probes) == ["subset", "subset", "test"]
    assert same_start(arms[0].spec, other=arms[1].spec, step=10)
    assert not same_start(arms[0].spec, other=arms[1].spec, step=11)


def test_passes_that_begin_late_cannot_be_counted_from_the_start() -> None:
    late = spec(RepeatedSubset(fraction="1/2", n_sequences=4, start=10))
    probe = TEST.edit(cadence=AtPasses(passes=(1,)))
    with pytest.raises(SpecError, match="starts later"):
        jobs_of(PlannedRun(spec=late, labels={}, probes=(probe,)))


def test_a_trunk_for_one_run_is_not_worth_it() -> None:
    (job,) = jobs_of(PlannedRun(spec=spec(special()), labels={}, fork_at=10))
    assert job.trunk is None


def test_a_planned_run_can_be_the_trunk() -> None:
    trunk = PlannedRun(spec=spec(special()).until(10), labels={"arm": "before"})
    fork = PlannedRun(spec=spec(special()), labels={"arm": "after"}, fork_at=10)
    jobs = jobs_of(fork, trunk)
    assert [job.arms[0]["arm"] for job in jobs] == ["before", "after"]
    assert jobs[1].trunk == jobs[0].fingerprint


def test_a_long_trunk_starts_from_a_short_one() -> None:
    planned = [
        PlannedRun(spec=spec(special(at=at, arm=arm)), labels={}, probes=(TEST,), fork_at=at)
        for at in (15, 6)
        for arm in ("special", "placebo")
    ]
    jobs = {job.fingerprint: job for job in jobs_of(*planned)}
    short, long = sorted((job for job in jobs.values() if not job.arms), key=lambda job: job.spec.steps)
    assert (short.spec.steps, long.spec.steps) == (6, 15)
    assert long.trunk == short.fingerprint
    assert short.probes[0].steps == {0, 5}
    order = list(jobs)
    assert all(order.index(job.trunk) < order.index(name) for name, job in jobs.items() if job.trunk)


def test_forks_that_cannot_be_cut_run_straight() -> None:
    outside = PlannedRun(spec=spec(Stream()), labels={}, fork_at=20)
    again = PlannedRun(spec=spec(Stream(), seed=1), labels={}, fork_at=25)
    assert [job.trunk for job in jobs_of(outside, again)] == [None, None]


def test_special_sets_become_one_a_batch() -> None:
    assert in_run(PAIRS, spec=spec(special(n_batches=2))).on == (
        "special/0",
        "special/1",
        "twin/0",
        "twin/1",
    )
    assert in_run(PAIRS, spec=spec(Stream())) == PAIRS


def test_a_key_says_what_its_sets_are_and_nothing_more() -> None:
    def key(probe: ScoreProbe, run: RunSpec) -> str:
        return measurement_key(in_run(probe, spec=run), spec=run)

    assert key(TEST, spec(special())) == key(TEST, spec(special(at=3)))
    assert key(PAIRS, spec(special())) == key(PAIRS, spec(special(arm="placebo", at=12)))
    assert key(PAIRS, spec(special())) != key(PAIRS, spec(special(size=2)))
    train = ScoreProbe(on=("train",))
    assert key(train, spec(special())) == key(train, spec(special(at=3)))
    assert key(train, spec(Stream())) != key(train, spec(Stream(), steps=12))
    half = RepeatedSubset(fraction="0.5", n_sequences=4)
    repeated = ScoreProbe(on=("repeated",))
    assert key(repeated, spec(half)) == key(repeated, spec(half, steps=12))


def test_a_key_says_what_is_read_beside_the_sets_of_a_probe() -> None:
    for probe in (RetainedProbe(on=("test",)), PartsOfSpeechProbe(on=("test",))):
        short, long = spec(Stream()), spec(Stream(), steps=40)
        assert measurement_key(probe, spec=short) != measurement_key(probe, spec=long)
        # What passes over a set read is what their trunk reads: keys are those of the measured sets alone.
        assert measurement_key(probe, spec=spec(special())) == measurement_key(
            probe, spec=spec(special(at=3))
        )
        assert measurement_key(probe, spec=spec(special())) == fingerprint([probe.fingerprint, [None]])[:12]


def test_runs_with_one_start_agree_about_the_batch_of_an_early_update() -> None:
    def keyed(treatment: Treatment, *, steps: int = 20, on: str = "batch/7") -> str:
        return measurement_key(TEST.edit(on=(on,)), spec=spec(treatment, steps=steps))

    assert keyed(special()) == keyed(special(size=8)) == keyed(Passes(n_sequences=8))
    assert keyed(special()) != keyed(special(at=5))
    assert keyed(special(), on="batch/10") != keyed(special(size=8), on="batch/10")
    assert keyed(Stream()) == keyed(Stream(), steps=30) != keyed(Passes(n_sequences=8))
    assert keyed(Stream()) != keyed(Stream(), on="batch/8")
    larger = spec(Stream()).edit(batch_size=8)
    assert measurement_key(TEST.edit(on=("batch/7",)), spec=larger) != keyed(Stream())
    half = RepeatedSubset(fraction="0.5", n_sequences=4)
    assert keyed(half) == keyed(half, steps=40)


def test_forms_of_special_sets_are_one_a_batch_too() -> None:
    forms = ScoreProbe(on=("special/plain", "twin", "train/drawn"))
    assert in_run(forms, spec=spec(special(n_batches=2))).on == (
        "special/0/plain",
        "special/1/plain",
        "twin/0",
        "twin/1",
        "train/drawn",
    )


def test_a_key_says_which_ids_its_sets_have() -> None:
    def key(on: str, run: RunSpec) -> str:
        return measurement_key(in_run(ScoreProbe(on=(on,)), spec=run), spec=run)

    early, late = (spec(special(at=at)).edit(document_ids=DocumentIds()) for at in (3, 10))
    # The special batch is numbered after what was read before it, and by its text alone not at all.
    assert key("special", early) != key("special", late)
    assert key("special/plain", early) == key("special/plain", late)
    assert key("train", early) != key("train/plain", early) != key("train/drawn", early)
    # IDs are drawn of all that the run has, also before a set that no longer run reads otherwise.
    short, long = (spec(Stream(), steps=steps).edit(document_ids=DocumentIds()) for steps in (20, 40))
    assert key("test/drawn", short) != key("test/drawn", long)
    assert key("batch/7/drawn", short) != key("batch/7/drawn", long)
    assert key("batch/7", short) == key("batch/7", long)
