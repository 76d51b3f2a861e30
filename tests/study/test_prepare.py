"""What is wrong with a plan is said before anything is trained; what is needed is what is missing."""

import shutil

import pytest

from repetita.errors import CorpusError, SpecError
from repetita.measure.memorization import ScoreProbe
from repetita.study.corpora import Corpora
from repetita.study.prepare import tag_corpora
from repetita.study.summary import summarise
from tests.study.places import Place, do


def test_a_set_that_a_run_lacks(place: Place) -> None:
    place.edit('name="test", on=("test",)', 'name="test", on=("repeatd",)')
    with pytest.raises(SpecError, match="'repeatd'"):
        place.prepared()
    assert not (place.root / "runs").exists()


def test_a_set_that_a_run_lacks_and_a_probe_reads_besides(place: Place) -> None:
    place.edit("TEST = ScoreProbe(", 'TEST = RetainedProbe(within="inserted", ')
    place.edit("import ScoreProbe", "import ScoreProbe\nfrom repetita.measure.retained import RetainedProbe")
    with pytest.raises(SpecError, match="'inserted'"):
        place.prepared()


def test_a_stream_longer_than_its_pool(place: Place) -> None:
    place.edit("steps: int = 12", "steps: int = 5000")
    with pytest.raises(CorpusError, match="sequences"):
        place.prepared()


def test_a_study_that_is_done_needs_nothing(done: Place) -> None:
    prepared = done.prepared()
    assert not prepared.needed()
    assert prepared.seconds(processes=2) == 0
    summary = summarise(prepared, processes=2)
    assert (summary.n_runs, summary.n_trunks, summary.n_present) == (5, 1, 5)
    assert summary.training_tokens == summary.measuring_tokens == 0
    assert summary.measuring_share is None
    assert not summary.probes


def test_a_trunk_is_needed_while_a_fork_starts_from_it(done: Place) -> None:
    prepared = done.prepared()
    jobs = {str(job.arms[0]["arm"]) if job.arms else "trunk": job for job in prepared.jobs.values()}
    shutil.rmtree(jobs["trunk"].path)
    assert not done.prepared().needed()
    shutil.rmtree(jobs["placebo"].path)
    assert [job.slug for job in done.prepared().needed()] == [jobs["trunk"].slug, jobs["placebo"].slug]
    again = do(done)
    assert not done.prepared().needed()
    assert again.after()[jobs["placebo"].fingerprint] == jobs["trunk"].fingerprint


def test_a_study_without_runs(place: Place) -> None:
    place.edit('"long": long', '"none": lambda: []')
    with pytest.raises(SpecError, match="plans no runs"):
        place.portion("none")


def test_summary_groups_by_arm(place: Place) -> None:
    summary = summarise(place.prepared(), processes=2)
    assert [group.name for group in summary.groups] == [
        "control",
        "repeated",
        "shared trunks",
        "special",
        "placebo",
    ]
    assert sum(group.n_runs for group in summary.groups) == summary.n_runs == 5
    assert summary.training_tokens == (12 + 12 + 6 + 6 + 6) * 4 * 16
    assert summary.rates.startswith("a table")


def test_a_corpus_is_tagged_only_where_a_probe_that_is_due_reads_its_tags(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    tagged = []
    monkeypatch.setattr(Corpora, "tag", lambda self, spec: tagged.append(spec))
    tag_corpora(place.prepared())
    assert tagged == []
    monkeypatch.setattr(ScoreProbe, "needs_tags", True)
    tag_corpora(place.prepared())
    assert len(set(tagged)) == 1


def test_a_study_that_is_done_is_not_tagged_again(done: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ScoreProbe, "needs_tags", True)
    monkeypatch.setattr(Corpora, "tag", lambda self, spec: pytest.fail("nothing is due"))
    tag_corpora(done.prepared())
