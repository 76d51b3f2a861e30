"""Runs that others start from are trained before these, once, and no further than needed."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from repetita.cadence import At
from repetita.corpus.sequences import CorpusSpec
from repetita.corpus.tokenizer import TokenizerSpec
from repetita.corpus.treatment import RepeatedSubset, Stream
from repetita.errors import SpecError
from repetita.journal.folder import read_journal
from repetita.measure.loss import LossProbe
from repetita.measure.memorization import ScoreProbe
from repetita.model import checkpoint
from repetita.study.corpora import Corpora
from repetita.study.expand import Job, expand, measurement_key
from repetita.study.plan import PlannedRun
from repetita.study.prepare import needed
from repetita.study.price import job_state
from repetita.study.single import train_run
from repetita.study.text import Text, with_text
from repetita.study.work import bring_to_end
from repetita.train.recipe import RunSpec, Start, ancestry
from tests.study.places import Place
from tests.study.tiny_study import CORPUS, run

SUBSET = RepeatedSubset(fraction="0.5", n_sequences=4)
LEFT = ScoreProbe(name="left", on=("parent/repeated", "test"), max_sequences=3, cadence=At(at=(2,)))
OWN = LEFT.edit(on=("repeated",))


def before(place: Place, *, steps: int = 12, **changes: Any) -> RunSpec:
    """A run on the text of `place`."""
    source = str(place.study.parent / "corpus")
    return run(SUBSET, steps=steps).edit(**({"corpus": CORPUS.edit(source=source)} | changes))


def after(parent: RunSpec, *, step: int | None = None, optimizer: str = "fresh", **changes: Any) -> RunSpec:
    """A run of four steps on other data of that text, from a parent."""
    start = Start(run=parent, step=step, optimizer=optimizer)
    own = {"corpus": parent.corpus, "model": parent.model, "steps": 4, "seed": 5, "start": start}
    return run(Stream()).edit(**(own | changes))


class Bench:
    """Runs that are planned and done in this process."""

    def __init__(self, root: Path, *planned: PlannedRun) -> None:
        self.root, self.corpora = root, Corpora(root)
        jobs = expand(planned, root=root, corpora=self.corpora.fingerprint)
        self.jobs = {job.fingerprint: job for job in jobs}

    def needed(self) -> tuple[Job, ...]:
        return needed(self.jobs, states={name: job_state(job) for name, job in self.jobs.items()})

    def do(self) -> int:
        """Steps that were trained."""
        return sum(
            bring_to_end(job, jobs=self.jobs, corpora=self.corpora, root=self.root).trained_steps
            for job in self.needed()
        )

    def of(self, spec: RunSpec) -> Job:
        return next(job for job in self.jobs.values() if job.spec == spec)


def values(job: Job, *, step: int, on: str) -> list[tuple[str, float]]:
    lines = read_journal(job.path, journal="measurements")
    return [(line["metric"], line["value"]) for line in lines if line["step"] == step and line["on"] == on]


def test_a_planned_parent_is_shared_and_done_first(place: Place) -> None:
    parent = before(place)
    child = PlannedRun(spec=after(parent), labels={"arm": "tuned"}, probes=(LEFT,))
    base = PlannedRun(spec=parent, labels={"arm": "base"}, probes=(OWN, LEFT.edit(on=("test",))))
    bench = Bench(place.root, child, base)
    first, second = bench.jobs.values()
    assert (first.spec, second.spec) == (parent, child.spec)
    assert (second.parent, second.before, first.role) == (first.fingerprint, first.fingerprint, "planned")
    assert bench.do() == 12 + 4
    for on, theirs in (("parent/repeated", "repeated"), ("test", "test")):
        assert values(second, step=0, on=on) == values(first, step=12, on=theirs) != []
    assert values(second, step=4, on="parent/repeated") != values(second, step=0, on="parent/repeated")
    assert str(place.root.parent) not in (second.path / "run.json").read_text()
    assert bench.needed() == ()


def test_a_parent_is_trained_only_as_far_as_it_is_needed(place: Place) -> None:
    parent = before(place)
    child = PlannedRun(spec=after(parent, step=5), labels={})
    bench = Bench(place.root, child)
    first, second = bench.jobs.values()
    assert (first.role, first.spec.steps, first.arms) == ("parent", 5, ())
    assert bench.do() == 5 + 4
    shutil.rmtree(first.path)
    assert bench.needed() == (), "a parent is of no use when its children are done"
    shutil.rmtree(second.path)
    assert bench.needed() == (first, second)


def test_the_parent_is_the_trunk_of_a_longer_run_with_its_beginning(place: Place) -> None:
    parent = before(place)
    whole = PlannedRun(spec=parent, labels={"arm": "base"}, probes=(OWN.edit(cadence=At(at=(3, 12))),))
    children = [PlannedRun(spec=after(parent, step=step), labels={"arm": step}) for step in (3, 8, None)]
    bench = Bench(place.root, whole, *children)
    early, late = (bench.of(parent.until(step)) for step in (3, 8))
    assert (bench.of(parent).trunk, late.trunk, early.trunk) == (late.fingerprint, early.fingerprint, None)
    assert bench.do() == 12 + 3 * 4
    straight = Bench(place.root / "straight", whole)
    straight.do()
    ends = [
        checkpoint.load(checkpoint.checkpoint_path(one.of(parent).path, step=12)).model
        for one in (bench, straight)
    ]
    assert all(tensor.equal(ends[1][name]) for name, tensor in ends[0].items())
    assert values(bench.of(parent), step=3, on="repeated") == values(
        straight.of(parent), step=3, on="repeated"
    )


def test_an_optimizer_that_is_carried_on_is_kept_or_had_again(place: Place) -> None:
    parent = before(place)
    base = PlannedRun(spec=parent, labels={"arm": "base"})
    Bench(place.root, base).do()
    bench = Bench(place.root, base, PlannedRun(spec=after(parent, optimizer="carried"), labels={"arm": "on"}))
    first, second = bench.jobs.values()
    assert first.carried
    assert job_state(first).lacks_optimizer
    assert bench.needed() == (first, second)
    assert bench.do() == 4
    assert not job_state(first).lacks_optimizer
    assert bench.needed() == ()


def test_a_chain_of_parents_is_done_in_its_order(place: Place) -> None:
    first = before(place)
    second = after(first)
    third = after(second, seed=6, steps=3)
    bench = Bench(place.root, PlannedRun(spec=third, labels={}, probes=(LEFT.edit(on=("test",)),)))
    assert [job.spec for job in bench.jobs.values()] == [first, second, third]
    assert [job.role for job in bench.jobs.values()] == ["parent", "parent", "planned"]
    assert bench.do() == 12 + 4 + 3
    deep = LEFT.edit(on=("parent/parent/repeated",))
    more = Bench(place.root, PlannedRun(spec=third, labels={}, probes=(deep,)))
    shutil.rmtree(bench.of(second).path)
    # Step 2 has no checkpoint: the run is trained again from its parent, and this one from its own.
    assert [job.spec for job in more.needed()] == [second, third]
    more.do()
    assert values(more.of(third), step=2, on="parent/parent/repeated")


def test_a_run_from_python_trains_its_parents_first(place: Place) -> None:
    parent = before(place)
    spec = after(after(parent), steps=2)
    probe = LossProbe(on=("test", "parent/test"))
    trained = train_run(spec, root=place.root, probes=(probe,))
    assert trained.trained_steps == 2
    loss = {row["on"]: row["value"] for row in trained.last if row["metric"] == "loss"}
    assert loss["test"] == loss["parent/test"]
    folders = sorted(path.name.rpartition("-")[0] for path in (place.root / "runs").iterdir())
    assert folders == [f"888-{name}" for name in (
        "repeated_subset-s0", "repeated_subset-then-stream-s5", "repeated_subset-then-stream-then-stream-s5"
    )]  # fmt: skip
    shutil.rmtree(next((place.root / "runs").glob("888-repeated_subset-s0-*")))
    assert train_run(spec, root=place.root, probes=(probe,)).trained_steps == 0


def test_what_a_set_of_the_parent_is_depends_on_the_parent(place: Place) -> None:
    one, other = before(place), before(place, treatment=Stream())
    probe = LEFT.edit(on=("parent/train",))
    assert len({measurement_key(probe, spec=after(parent)) for parent in (one, other)}) == 2
    assert measurement_key(probe, spec=after(one)) == measurement_key(probe, spec=after(one, steps=3))
    bench = Bench(place.root, PlannedRun(spec=after(other), labels={}, probes=(LEFT,)))
    with pytest.raises(SpecError, match="reads the set 'parent/repeated', which this run lacks"):
        bench.do()


def test_a_child_s_ids_mean_what_they_meant_to_the_parent(place: Place) -> None:
    words = TokenizerSpec(vocab_size=300)
    model = before(place).model.edit(vocab_size=300)
    parent = before(place, model=model, corpus=before(place).corpus.edit(tokenizer=words))
    text = CorpusSpec(source="synthetic", length=16, splits=parent.corpus.splits, tokenizer=words)
    alien = PlannedRun(spec=after(parent, corpus=text), labels={})
    bench = Bench(place.root, alien)
    with pytest.raises(SpecError, match="corpus synthetic has another tokenizer than corpus"):
        bench.do()
    known = alien._replace(spec=alien.spec.edit(corpus=text.with_ids_of(parent.corpus)))
    assert Bench(place.root, known).do() == 4


def test_another_text_is_that_of_the_parents_too(place: Place) -> None:
    parent = before(place)
    child = PlannedRun(spec=after(parent), labels={})
    (moved,) = with_text([child], Text(source="python-stdlib"))
    assert [spec.corpus.source for spec in ancestry(moved.spec)] == ["python-stdlib"] * 2
