"""The sets of a run are what its schedule reads, and never-seen sets stay apart from them."""

import numpy as np
import polars as pl
import pytest

from repetita.corpus.schedule import SETS
from repetita.corpus.sequences import compose
from repetita.corpus.treatment import (
    Insertion,
    Insertions,
    Passes,
    RepeatedSubset,
    SpecialBatch,
    Stream,
    Treatment,
)
from repetita.errors import CorpusError, SpecError
from repetita.journal import table
from repetita.study.prepare import Prepared
from repetita.study.sets import RunSets
from tests.study.places import Place, do


def arms(prepared: Prepared) -> dict[str, RunSets]:
    return {
        str(job.arms[0]["arm"]): prepared.corpora.sets(job.spec) for job in prepared.jobs.values() if job.arms
    }


def test_names_of_each_arm(place: Place) -> None:
    of = arms(place.prepared())
    whole = {"train", "test", "special", "twin", "placebo"}
    batches = {f"{name}/{batch}" for name in ("special", "twin", "placebo") for batch in (0, 1)}
    assert set(of["control"]) == whole
    assert set(of["repeated"]) == whole | {"repeated"}
    assert set(of["special"]) == whole | batches
    assert "special/2" not in of["special"]
    with pytest.raises(KeyError):
        of["control"]["repeated"]


def test_special_batches_are_what_the_steps_read(place: Place) -> None:
    prepared = place.prepared()
    for job in prepared.jobs.values():
        if not isinstance(job.spec.treatment, SpecialBatch):
            continue
        sets, schedule = prepared.corpora.sets(job.spec), prepared.corpora.schedule(job.spec)
        for step, number in job.spec.treatment.injections():
            batch = schedule.batch(step)
            arm = job.spec.treatment.arm
            assert {SETS[code] for code in batch.set} == {arm}
            assert sorted(batch.index) == sorted(sets[f"{arm}/{number}"].indices)


def test_arms_agree_about_batches_that_they_do_not_read(place: Place) -> None:
    of = arms(place.prepared())
    for name in ("special/0", "special/1", "twin/0", "placebo/1"):
        assert np.array_equal(of["special"][name].indices, of["placebo"][name].indices)


def test_train_is_what_the_base_reads(place: Place) -> None:
    prepared = place.prepared()
    of = arms(prepared)
    assert len(of["special"]["train"].indices) == 8
    assert len(of["repeated"]["repeated"].indices) == 4
    read = set(of["control"]["train"].indices.tolist())
    assert len(read) == 12 * 4
    assert not set(of["repeated"]["train"].indices.tolist()) & set(
        of["repeated"]["repeated"].indices.tolist()
    )


def test_a_twin_too_small_for_its_batches_is_said(place: Place) -> None:
    place.edit('twin="0.1"', 'twin="0.04"')
    place.edit("size=4, at=6, n_batches=2", "size=40, at=6, n_batches=2")
    with pytest.raises(CorpusError, match=r"twin/\d: \d+ sequences are needed and the set twin has"):
        place.prepared()


def test_the_batch_of_an_update_is_what_it_reads(place: Place) -> None:
    prepared = place.prepared()
    control = next(iter(prepared.jobs.values())).spec
    others: tuple[Treatment, ...] = (
        RepeatedSubset(fraction="0.5", n_sequences=4, slots="empty"),
        Insertions(base=Stream(), items=(Insertion(index=0, count=9), Insertion(index=1, count=9))),
    )
    specs = [control.edit(treatment=treatment) for treatment in others]
    mixed = 0
    for spec in (*(job.spec for job in prepared.jobs.values()), *specs):
        sets, schedule = prepared.corpora.sets(spec), prepared.corpora.schedule(spec)
        of_set = prepared.corpora.open(spec.corpus).sets
        for step in range(spec.steps):
            over, batch = sets[f"batch/{step}"], schedule.batch(step)
            rows, expected = over.sequences.rows(over.indices), compose(batch, of_set)
            assert all(np.array_equal(ours, read) for ours, read in zip(rows, expected, strict=True))
            assert np.shape(over.sequences.scored_bytes(rows)) == batch.set.shape
            if over.sequences not in of_set.values():
                assert over.sequences.token_counts().sum() == rows.scored.sum()
                assert np.array_equal(over.sequences.encode("so it is"), of_set["train"].encode("so it is"))
            if over.sequences not in of_set.values():
                mixed += 1
                assert np.array_equal(over.sequences.rows(np.array([2])).targets, expected.targets[2:3])
                if (batch.host >= 0).any():
                    with pytest.raises(CorpusError, match=f"batch/{step} has items written into other text"):
                        over.sequences.tags(over.indices)
        assert f"batch/{spec.steps}" not in sets
        assert not any(name in sets for name in ("batch/-1", "batch/03", "batch/", "batch"))
    assert mixed > 12


def test_hits_before_an_update_are_those_of_its_record(place: Place) -> None:
    place.edit(
        "TEST = ",
        """BATCHES = tuple(
    ScoreProbe(name=f"batch {n}", on=(f"batch/{n}",), cadence=At(at=(n, n + 1))) for n in (0, 3, 6, 11)
)
TEST = """,
    )
    place.edit("probes=(TEST,)", "probes=(TEST, *BATCHES)")
    place.edit("probes=(TEST, PAIRS)", "probes=(TEST, PAIRS, *BATCHES)")
    prepared = do(place)
    checked = 0
    for job in prepared.jobs.values():
        read = table.measurements([job.path]).filter(pl.col("metric") == "memorized")
        sums = table.steps([job.path]).group_by("step").agg(pl.col("hits", "n").sum())
        for step, hits, n in sums.rows():
            before, after = (
                read.filter((pl.col("step") == at) & (pl.col("on") == f"batch/{step}"))
                for at in (step, step + 1)
            )
            if job.arms and len(before):
                assert (round(before["value"][0] * before["n"][0]), before["n"][0]) == (hits, n)
                assert len(after) == 1
                checked += 1
    assert checked >= 12


def test_a_batch_beyond_the_run_is_said(place: Place) -> None:
    place.edit('name="test", on=("test",)', 'name="test", on=("test", "batch/12")')
    with pytest.raises(SpecError, match="reads the set 'batch/12', which this run lacks"):
        place.prepared()


def test_a_run_drawn_of_a_common_set_offers_all_of_it(place: Place) -> None:
    prepared = place.prepared()
    control = next(iter(prepared.jobs.values())).spec
    assert "common" not in prepared.corpora.sets(control)
    halves = [
        prepared.corpora.sets(control.edit(treatment=Passes(n_sequences=6, out_of=12), seed=seed))
        for seed in (0, 1)
    ]
    shared = [of["common"].indices.tolist() for of in halves]
    assert shared[0] == shared[1]
    assert len(set(shared[0])) == 12
    drawn = [set(of["train"].indices.tolist()) for of in halves]
    assert all(one < set(shared[0]) and len(one) == 6 for one in drawn)
    assert drawn[0] != drawn[1]
