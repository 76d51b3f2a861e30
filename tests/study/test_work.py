"""A worker is told by strings what to do, and says in a file what became of it."""

import sys
from pathlib import Path

import pytest

from repetita.errors import SpecError
from repetita.journal.folder import RunFolder
from repetita.journal.storage import Storage
from repetita.study.engines import Errand
from repetita.study.progress import ProgressFile, Sight, read_sight
from repetita.study.work import Bench, do_order, work
from tests.study.places import Place


def errand(place: Place) -> Errand:
    return Errand.of([place.portion()], root=place.root)


def control(place: Place) -> str:
    return next(job.fingerprint for job in place.prepared().jobs.values() if job.arms)


def test_orders_are_done_and_said(place: Place) -> None:
    said = place.study.parent / "said.json"
    work(errand(place), orders=[f"7 {control(place)}\n", "\n"], progress=said)
    sight = read_sight(said)
    assert sight is not None
    assert sight._replace(seconds=0.0) == Sight(order=7, state="done")
    assert sight.seconds > 0
    assert place.prepared().states[control(place)].complete


def test_an_order_that_is_in_no_plan(place: Place) -> None:
    said = place.study.parent / "said.json"
    work(errand(place), orders=["1 abcdef"], progress=said)
    sight = read_sight(said)
    assert sight is not None
    assert (sight.state, sight.ended) == ("failed", True)
    assert "no run abcdef" in sight.message


def test_a_study_that_was_changed_is_not_worked_at(place: Place) -> None:
    told = errand(place)
    with pytest.raises(SpecError, match="was changed"):
        work(told._replace(given=(told.given[0]._replace(sha256="0" * 64),)), orders=[])


def test_a_probe_that_fails_is_said_and_the_run_goes_on(place: Place) -> None:
    place.edit(
        "TEST = ScoreProbe(",
        "class Broken(ScoreProbe):\n    def readings(self, taken):\n        1 / 0\n\n\nTEST = Broken(",
    )
    said = place.study.parent / "said.json"
    work(errand(place), orders=[f"1 {control(place)}"], progress=said)
    sight = read_sight(said)
    assert sight is not None
    assert sight.state == "done"
    assert sight.message.startswith("probe test failed at step 0")
    assert not place.prepared().states[control(place)].complete


def test_a_run_that_another_process_writes_is_busy(done: Place) -> None:
    job = next(job for job in done.prepared().jobs.values() if job.arms)
    (job.path / "done").unlink()
    said = done.study.parent / "said.json"
    with RunFolder.open(job.path, header={"fingerprint": job.fingerprint}):
        work(errand(done), orders=[f"1 {job.fingerprint}"], progress=said)
    sight = read_sight(said)
    assert sight is not None
    assert sight.state == "busy"


def test_a_run_whose_writer_ends_at_that_moment_is_busy(done: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    job = next(job for job in done.prepared().jobs.values() if job.arms)
    (job.path / "done").unlink()
    bench = Bench(done.prepared().jobs, done.prepared().corpora, done.root, errand(done))
    monkeypatch.setattr("repetita.study.work._is_locked", lambda _: False)
    with RunFolder.open(job.path, header={"fingerprint": job.fingerprint}):
        sight = do_order(job.fingerprint, number=1, bench=bench, file=ProgressFile(None))
    assert sight.state == "busy"


def test_a_run_that_is_written_here_is_not_taken_from_its_writer_in_the_storage(done: Place) -> None:
    storage = Storage.open(f"memory://{done.root.parent.name}-busy")
    job = next(job for job in done.prepared().jobs.values() if job.arms)
    (job.path / "done").unlink()
    storage.put(f"runs/{job.path.name}/run.json", (job.path / "run.json").read_bytes())
    before = storage.names("runs")
    bench = Bench(done.prepared().jobs, done.prepared().corpora, done.root, errand(done), storage)
    with RunFolder.open(job.path, header={"fingerprint": job.fingerprint}):
        sight = do_order(job.fingerprint, number=1, bench=bench, file=ProgressFile(None))
    assert sight.state == "busy"
    assert storage.names("runs") == before, "no attempt was taken"


def test_progress_is_said_now_and_then_and_ends_at_once(tmp_path: Path) -> None:
    file = ProgressFile(tmp_path / "said.json")
    for step in range(5):
        file.show(Sight(order=1, state="running", step=step))
    first = read_sight(tmp_path / "said.json")
    assert first is not None
    assert first.step == 0
    file.show(Sight(order=1, state="done"))
    last = read_sight(tmp_path / "said.json")
    assert last is not None and last._replace(seconds=0.0) == Sight(order=1, state="done")
    assert read_sight(tmp_path / "nothing.json") is None
    ProgressFile(None).show(Sight())


def test_a_worker_loads_no_tables_and_no_drawing(place: Place) -> None:
    import subprocess

    code = (
        "import sys\n"
        "from repetita.study.engines import Errand\n"
        "from repetita.study.work import work\n"
        f"work(Errand.from_json({errand(place).as_json()!r}), orders=['1 {control(place)}'])\n"
        "assert not {'polars', 'scipy', 'altair', 'vl_convert', 'jinja2'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
