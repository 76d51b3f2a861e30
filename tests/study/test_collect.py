"""The table holds what each planned run asked for, and what is missing is named."""

import shutil
from pathlib import Path

import polars as pl
import pytest

from repetita.errors import SpecError, UserError
from repetita.journal.folder import RunFolder
from repetita.study.collect import Collected, collect
from tests.study.places import Place, do


def collected(place: Place, scale: str = "tiny") -> Collected:
    return collect(place.portion(scale), root=place.root)


def folder_of(place: Place, arm: str) -> Path:
    jobs = place.prepared().jobs.values()
    return next(job.path for job in jobs if job.arms and job.arms[0]["arm"] == arm)


def test_each_planned_run_has_what_it_asked_for(done: Place) -> None:
    there = collected(done)
    assert not there.absent
    assert there.runs["arm"].to_list() == ["control", "control again", "repeated", "special", "placebo"]
    counts = (
        there.where(metric="loss")
        .group_by("arm", "probe")
        .agg(pl.col("on").n_unique(), pl.col("step").n_unique())
    )
    found = {(row["arm"], row["probe"]): (row["on"], row["step"]) for row in counts.to_dicts()}
    tests = {(arm, "test"): (1, 3) for arm in ("control", "control again", "repeated", "special", "placebo")}
    # Four batches and the training set; steps 0, 4 and 6 were made in the trunk.
    assert found == tests | {(arm, "pairs"): (5, 4) for arm in ("special", "placebo")}


def test_labels_are_columns_of_one_type(done: Place) -> None:
    runs = collected(done).runs
    assert runs["passes"].to_list() == [None, 1.0, 6.0, None, None]
    assert runs.schema["seed"] == pl.Int64
    assert runs["n_params"].unique().to_list() == [888]


def test_arms_that_share_a_run_have_its_measurements(done: Place) -> None:
    there = collected(done)
    one, other = (
        there.where(arm=arm, metric="loss")["value"].to_list() for arm in ("control", "control again")
    )
    assert one == other
    assert there.runs["run"].n_unique() == 4


def test_batches_are_numbered(done: Place) -> None:
    special = collected(done).where(arm="special", probe="pairs", metric="loss", step=12)
    assert sorted(special.select("set", "batch").rows()) == [
        ("special", 0),
        ("special", 1),
        ("train", None),
        ("twin", 0),
        ("twin", 1),
    ]


def test_forks_and_straight_runs_measure_the_same(done: Place, tmp_path: Path) -> None:
    straight = tmp_path / "straight"
    straight.mkdir()
    shutil.copytree(done.study.parent / "corpus", straight / "corpus")
    shutil.copy(done.study, straight / "study.py")
    other = Place(straight / "study.py", straight / "out")
    other.edit("            fork_at=6,\n", "")
    do(other, but=("control", "repeated"))
    for arm in ("special", "placebo"):
        forked, direct = (
            collected(place).where(arm=arm, metric="loss").sort("probe", "on", "step")["value"].to_list()
            for place in (done, other)
        )
        assert forked == direct


def test_steps_events_items_and_header(done: Place) -> None:
    there = collected(done)
    steps = there.steps.filter(pl.col("arm") == "repeated")
    assert steps["step"].n_unique() == 12
    assert set(steps["lane"]) == {"train", "repeated"}
    assert "forked" in there.events["kind"].to_list()
    row = there.where(metric="memorized", arm="control", step=12).row(0, named=True)
    items = there.items(row["folder"], key=row["key"], step=12)
    assert items["test/hits"].sum() / items["test/n_scored"].sum() == pytest.approx(row["value"])
    assert there.header(row["folder"])["spec"]["steps"] == 12


def test_what_is_missing_is_named(done: Place) -> None:
    shutil.rmtree(folder_of(done, "repeated"))
    (folder_of(done, "special") / "done").unlink()
    there = collected(done)
    assert {(one.labels["arm"], one.state) for one in there.absent} == {
        ("repeated", "missing"),
        ("special", "unfinished"),
    }
    assert there.runs["arm"].to_list() == ["control", "control again", "placebo"]


def test_a_damaged_journal_is_left_out_and_named(done: Place) -> None:
    file = folder_of(done, "repeated") / "measurements.jsonl"
    file.write_bytes(file.read_bytes().replace(b'"loss"', b'"lass"', 1))
    (one,) = collected(done).absent
    assert one.state == "damaged"
    assert "measurements.jsonl" in one.reason


def test_a_failed_run_says_why(done: Place) -> None:
    path = folder_of(done, "repeated")
    fingerprint = collected(done).header(path.name)["fingerprint"]
    (path / "done").unlink()
    with RunFolder.open(path, header={"fingerprint": fingerprint}) as folder:
        folder.finish("failed", message="the loss of step 3 is nan")
    (one,) = collected(done).absent
    assert (one.state, one.reason) == ("failed", "the loss of step 3 is nan")


def test_probes_planned_later_are_missing_until_they_are_run(done: Place) -> None:
    before = collected(done).where(arm="control", metric="loss")
    done.edit("cadence=Every(n=6)", "cadence=Every(n=3)")
    there = collected(done)
    assert {one.state for one in there.absent} == {"incomplete"}
    assert len(there.runs) == 5
    do(done)
    there = collected(done)
    assert not there.absent
    after = there.where(arm="control", metric="loss").sort("step")
    assert after["step"].to_list() == [0, 3, 6, 9, 12]
    assert set(before["value"]) < set(after["value"])


def test_a_study_that_was_never_run(place: Place) -> None:
    with pytest.raises(UserError, match="study run"):
        collected(place)


def test_a_column_that_is_not_there(done: Place) -> None:
    with pytest.raises(SpecError, match="did you mean 'metric'"):
        collected(done).where(metrics="loss")
    with pytest.raises(SpecError, match="no run of this study"):
        collected(done).header("nowhere")
