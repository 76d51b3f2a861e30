"""The sets of a run are what its schedule reads, and never-seen sets stay apart from them."""

import numpy as np
import pytest

from repetita.corpus.schedule import SETS
from repetita.corpus.treatment import SpecialBatch
from repetita.errors import CorpusError
from repetita.study.prepare import Prepared
from repetita.study.sets import RunSets
from tests.study.places import Place


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
