"""Studies in a storage: another machine goes on with them, and has their page, from what was pushed."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from repetita.errors import DamagedError, SpecError, StorageError, TrainingDiverged
from repetita.journal.folder import failure, status
from repetita.journal.storage import Storage
from repetita.journal.stored_run import StoredRun
from repetita.study import stored_progress
from repetita.study.corpora import Corpora
from repetita.study.engines import Errand
from repetita.study.execute import run_study
from repetita.study.expand import corpora_of
from repetita.study.manifest import write_manifests
from repetita.study.prepare import prepare
from repetita.study.progress import ProgressFile, Sight, read_sight
from repetita.study.ray_task import do, look
from repetita.study.single import train_run
from repetita.study.stored import Kept, pull_corpora, pull_reported, pull_runs, push_corpora
from repetita.study.stored_progress import StoredProgress, StoredSights
from repetita.study.where import Where
from tests.study.places import Place, write_study


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of a bucket on a server of this machine."""
    server = pytest.importorskip("moto.server").ThreadedMotoServer(port=0, verbose=False)
    boto3 = pytest.importorskip("boto3")
    pytest.importorskip("s3fs")
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    boto3.client("s3").create_bucket(Bucket="bucket")
    yield "s3://bucket/here"
    server.stop()


@pytest.mark.slow
@pytest.mark.ci
def test_a_study_on_s3_is_gone_on_with_and_reported_elsewhere(tmp_path: Path, s3: str) -> None:
    place = write_study(tmp_path)
    outcome = run_study(place.study, scale="tiny", root=tmp_path / "a", processes=1, storage=s3)
    assert not outcome.failed
    (tmp_path / "corpus").rename(tmp_path / "gone")
    again = run_study(place.study, scale="tiny", root=tmp_path / "b", processes=1, storage=s3)
    assert again.n_present == again.n_runs and not again.n_done
    command = [sys.executable, "-m", "repetita", "study", "report", str(place.study), "--storage", s3]
    done = subprocess.run(
        [*command, "--root", str(tmp_path / "c")], capture_output=True, text=True, env=os.environ
    )
    assert done.returncode == 0, done.stderr
    runs = list((tmp_path / "c" / "runs").iterdir())
    assert len(runs) == outcome.n_runs and {status(run) for run in runs} == {"done"}
    assert not list((tmp_path / "c").rglob("checkpoints"))


def kept(place: Place, url: str) -> Errand:
    """What a driver leaves in a storage for workers elsewhere, and what it tells them."""
    part = place.portion()
    driver, corpora, specs = (
        Kept(Storage.open(url), root=place.root),
        Corpora(place.root),
        corpora_of(part.planned),
    )
    driver.bring(specs, corpora=corpora)
    prepare([part], root=place.root, corpora=corpora, fetch=driver.fetch)
    driver.keep(specs, corpora=corpora, folders=[part.folder])
    return Errand.of([part], root=place.root.parent / "elsewhere", storage=url)


def test_a_node_that_sees_no_folder_of_its_driver_works_by_the_storage(tmp_path: Path) -> None:
    place, url = write_study(tmp_path), f"file://{tmp_path}/kept"
    errand = kept(place, url)
    (tmp_path / "corpus").rename(tmp_path / "gone")
    work = tmp_path / "elsewhere" / "work-1"
    assert json.loads(look(errand.as_json(), str(work)))[0] == ""
    job = next(job for job in place_jobs(place, url) if job.arms[0]["arm"] == "control")
    answer = json.loads(do(errand.as_json(), job.fingerprint, 1, str(work)))
    assert (answer["state"], answer["message"]) == ("done", "")
    assert status(job.path) == "missing"
    Kept(Storage.open(url), root=place.root).fetch([job.path])
    assert status(job.path) == "done" and not (job.path / "checkpoints").exists()


def place_jobs(place: Place, url: str) -> list[Any]:
    """The jobs of a study whose text is only in the storage."""
    part, corpora = place.portion(), Corpora(place.root)
    Kept(Storage.open(url), root=place.root).bring(corpora_of(part.planned), corpora=corpora)
    return list(prepare([part], root=place.root, corpora=corpora).jobs.values())


def test_a_corpus_is_written_once_by_its_hashes_and_read_without_its_text(tmp_path: Path) -> None:
    place, at = write_study(tmp_path), Storage.open(f"file://{tmp_path}/kept")
    (spec,) = corpora_of(place.portion().planned)
    here = Corpora(place.root)
    push_corpora(at, [spec], corpora=here)
    files = sorted((tmp_path / "kept" / "shards").iterdir())
    times = [file.stat().st_mtime_ns for file in files]
    push_corpora(at, [spec], corpora=Corpora(place.root))
    assert [file.stat().st_mtime_ns for file in files] == times and len(files) >= 5
    assert all(hashlib.sha256(file.read_bytes()).hexdigest() == file.name for file in files)
    for decided in (False, True):  # A text that lies here comes first, unless it is decided.
        there = tmp_path / f"there-{decided}"
        pull_corpora(at, [spec], corpora=Corpora(there), root=there, decided=decided)
        assert (there / "corpora").exists() == decided
    (tmp_path / "corpus").rename(tmp_path / "gone")
    corpora = Corpora(there)
    pull_corpora(at, [spec], corpora=corpora, root=there, decided=False)
    assert corpora.fingerprint(spec) == here.fingerprint(spec)
    corpora.verify()
    # What was changed there is not taken.
    files[0].write_bytes(b"\0" * files[0].stat().st_size)
    with pytest.raises(DamagedError, match="does not match its recorded hash"):
        pull_corpora(at, [spec], corpora=Corpora(tmp_path), root=tmp_path / "third", decided=True)
    name = next((tmp_path / "kept" / "corpora").iterdir())
    name.write_text(name.read_text().replace('"tokens.bin"', '"../../tokens.bin"'))
    with pytest.raises(DamagedError, match="outside a corpus"):
        pull_corpora(at, [spec], corpora=Corpora(tmp_path), root=tmp_path / "third", decided=True)


def test_a_file_of_a_corpus_that_was_deleted_is_said_and_written_again(tmp_path: Path) -> None:
    place, at = write_study(tmp_path), Storage.open(f"file://{tmp_path}/kept")
    (spec,) = corpora_of(place.portion().planned)
    push_corpora(at, [spec], corpora=Corpora(place.root))
    shards = tmp_path / "kept" / "shards"
    max(shards.iterdir(), key=lambda file: file.stat().st_size).unlink()
    there = tmp_path / "there"
    name = next(path.name for path in (place.root / "corpora").iterdir() if path.is_dir())
    (there / "corpora" / f".{name}.77.tmp").mkdir(parents=True)  # A process was killed at this.
    with pytest.raises(
        StorageError, match=r"lacks a file of the corpus .* run the study again where its text"
    ):
        pull_corpora(at, [spec], corpora=Corpora(there), root=there, decided=True)
    assert not [path for path in (there / "corpora").iterdir() if path.is_dir()]
    push_corpora(at, [spec], corpora=Corpora(place.root))
    corpora = Corpora(there)
    pull_corpora(at, [spec], corpora=corpora, root=there, decided=True)
    assert corpora.fingerprint(spec) == Corpora(place.root).fingerprint(spec)


@pytest.mark.parametrize("name", ["../../other", "..", ""])
def test_a_manifest_from_afar_names_no_folder_elsewhere(tmp_path: Path, name: str) -> None:
    place, url = write_study(tmp_path), f"file://{tmp_path}/kept"
    Storage.open(url)
    part = place.portion()
    write_manifests(prepare([part], root=place.root, corpora=Corpora(place.root)), root=place.root)
    file = place.root / "studies" / part.folder / "manifest.json"
    values = json.loads(file.read_bytes())
    values["runs"][0]["folder"] = name
    file.write_text(json.dumps(values))
    with pytest.raises(DamagedError, match="names the folder"):
        pull_reported(url, root=place.root, folders=[part.folder])


def test_a_driver_hears_through_the_storage_how_far_runs_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored_progress, "TOLD_SECONDS", 0.0)
    monkeypatch.setattr("repetita.study.stored_progress.PAUSES", 0.0)
    at, work = Storage.open(f"memory://{tmp_path.name}-progress"), tmp_path / "driver" / "work-7"
    work.mkdir(parents=True)
    told = StoredProgress(tmp_path / "node" / "work-7" / "abc.json", storage=at)
    (tmp_path / "node" / "work-7").mkdir(parents=True)
    told.show(Sight(order=3, state="running", step=5, steps=9))
    driver = StoredSights(at, work=work)
    driver.refresh()
    seen = read_sight(work / "abc.json")
    assert seen is not None and (seen.order, seen.step, seen.steps) == (3, 5, 9)
    for other in (b"[]", b'{"unheard_of": 1}', b"{"):
        at.put("progress/work-7/other.json", other)
        driver.refresh()
        assert (work / "other.json").read_bytes() == other and read_sight(work / "other.json") is None
    driver.forget()
    assert not at.names("progress")
    assert isinstance(told, ProgressFile)


def test_a_run_whose_end_cannot_be_pushed_is_whole_here_and_pushed_by_the_next_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    place, url = write_study(tmp_path), f"memory://{tmp_path.name}-end"
    spec = place.portion().planned[0].spec
    with monkeypatch.context() as patch:
        patch.setattr(StoredRun, "push", no_network)
        with pytest.raises(StorageError, match="is done here, but could not be pushed: no network"):
            train_run(spec, root=place.root, storage=url)
    (path,) = (place.root / "runs").iterdir()
    assert status(path) == "done"
    Kept(Storage.open(url), root=place.root).fetch([path])  # As the driver of a study does at first.
    done = train_run(spec, root=tmp_path / "b", storage=url)
    assert done.trained_steps == 0 and (done.path / "done").read_bytes() == (path / "done").read_bytes()
    assert train_run(spec, root=place.root, storage=url).trained_steps == 0
    at = Storage.open(url)
    assert len(at.names(f"runs/{path.name}/attempts")) == 1  # Who changes nothing takes nothing.
    at.put("runs/bad-0/run.json", b"{")
    runs = tmp_path / "c" / "runs"
    pull_runs(at, [runs / "bad-0", runs / path.name])
    assert "bad-0 is left out: " in caplog.text and status(runs / path.name) == "done"


def no_network(_: StoredRun) -> None:
    raise StorageError("no network")


def test_a_run_that_diverged_says_so_in_the_storage(tmp_path: Path) -> None:
    place, url = write_study(tmp_path), f"memory://{tmp_path.name}-diverged"
    spec = place.portion().planned[0].spec
    wild = spec.edit(recipe=spec.recipe.edit(learning_rate=1e38))
    with pytest.raises(TrainingDiverged):
        train_run(wild, root=place.root, storage=url)
    (path,) = (place.root / "runs").iterdir()
    there = tmp_path / "b" / "runs" / path.name
    StoredRun(Storage.open(url), path=there).pull(checkpoints=False)
    assert status(there) == "failed" and failure(there) == failure(path)


def test_a_storage_that_other_processes_cannot_see_is_refused(tmp_path: Path) -> None:
    place = write_study(tmp_path)
    with pytest.raises(SpecError, match="lies in the memory of one process"):
        run_study(place.study, scale="tiny", root=place.root, storage="memory://x")
    assert Where(storage="s3://b/x").storage == "s3://b/x"
