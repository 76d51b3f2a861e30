"""Jobs of submitit's local executor, and of a Slurm that is made up, compute what worker processes do."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from repetita.errors import EngineError, RunStopped
from repetita.journal.folder import read_journal, status
from repetita.study import execute, slurm_engine, slurm_options
from repetita.study.execute import run_study
from repetita.study.progress import read_sight
from repetita.study.slurm_options import Asked
from repetita.study.slurm_queue import Queue
from repetita.study.slurm_task import Batch
from tests.study import fake_slurm
from tests.study.places import Place, do

pytest.importorskip("submitit")

GENEROUS = 120.0


class LocalQueue(Queue):
    """Jobs by submitit's local executor."""

    jobs: dict[str, Any] = {}  # noqa: RUF012

    def check(self, one: Asked) -> None:
        pass

    def submit(self, one: Asked, *, tasks: Sequence[Batch], timeouts: int) -> list[str]:
        import submitit

        executor = submitit.LocalExecutor(self.folder, max_num_timeout=timeouts)
        executor.update_parameters(timeout_min=self.minutes(one))
        jobs = executor.submit_array(tasks)
        self.jobs.update({job.job_id: job for job in jobs})
        return [job.job_id for job in jobs]

    def present(self) -> dict[str, str]:
        return {name: "RUNNING" for name, job in self.jobs.items() if not job.done()}

    def fates(self, jobs: Sequence[str]) -> dict[str, tuple[str, str]]:
        return {job: (self.jobs[job].state, "") for job in jobs}

    def stop(self, jobs: Collection[str]) -> None:
        for job in jobs:
            self.jobs[job]._process.send_signal(signal.SIGTERM)

    def cancel(self, jobs: Collection[str]) -> None:
        for job in jobs:
            self.jobs[job].cancel()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cluster that is looked at often, and a job for each run."""
    for name, value in (("READ_SECONDS", 0.1), ("LOOK_SECONDS", 0.5), ("GATHER_SECONDS", 0.0)):
        monkeypatch.setattr(slurm_engine, name, value)
    monkeypatch.setattr(slurm_options, "BATCH_SECONDS", 0.0)


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The commands of a Slurm on PATH."""
    folder = fake_slurm.install(tmp_path / "cluster")
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    yield folder
    (folder / "hold").unlink(missing_ok=True)
    for file in folder.glob("*.state"):
        subprocess.run(["scancel", file.stem], check=True)


def journals(root: Path) -> dict[str, list[dict[str, Any]]]:
    """What the runs of a root say, but for times and events."""
    return {
        f"{run.name}/{name}": [
            {key: value for key, value in line.items() if key != "seconds"}
            for line in read_journal(run, journal=name)
        ]
        for run in sorted((root / "runs").iterdir())
        for name in ("steps", "measurements")
    }


def resumed(root: Path) -> int:
    return sum(
        [line["kind"] for line in read_journal(run, journal="events")].count("resumed")
        for run in (root / "runs").iterdir()
    )


def wait(what: Callable[[], Any]) -> Any:
    until = time.monotonic() + GENEROUS
    while not (found := what()) and time.monotonic() < until:
        time.sleep(0.02)
    assert found
    return found


def once(what: Callable[[], Any], act: Callable[[], object]) -> threading.Thread:
    """Has something done, from a thread, as soon as something is the case."""

    def watch() -> None:
        wait(what)
        act()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread


def folder_of(place: Place, scale: str = "long") -> Path:
    return place.root / "studies" / f"tiny_study-{scale}" / "slurm"


def both_under_way(place: Place, *, beyond: int) -> bool:
    sights = [read_sight(file) for file in folder_of(place).glob("*.json")]
    return len(sights) == 2 and all(one is not None and beyond < one.step < one.steps for one in sights)


def alone(place: Place, scale: str = "long") -> dict[str, list[dict[str, Any]]]:
    """The journals of one process that does it all."""
    here = place._replace(root=place.root.parent / "here")
    do(here, scale=scale)
    return journals(here.root)


def task_of(job: str) -> int:
    said = subprocess.run(["ps", "-o", "pid=", "--ppid", job], capture_output=True, text=True, check=True)
    return int(said.stdout.split()[0])


@pytest.mark.slow
def test_the_local_executor_computes_what_workers_do_whatever_is_killed(
    place: Place, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slurm_engine, "Queue", LocalQueue)
    monkeypatch.setattr(slurm_options, "check", lambda given, device, submits: None)
    monkeypatch.setattr(LocalQueue, "jobs", {})

    def disturb() -> None:
        first, second = LocalQueue.jobs
        os.kill(task_of(first), signal.SIGUSR2)  # as at the time limit: submitit begins the job again
        os.kill(task_of(second), signal.SIGKILL)  # as when memory runs out: the desk sends it again

    disturber = once(lambda: both_under_way(place, beyond=20), disturb)
    outcome = run_study(place.study, scale="long", root=place.root, engine="slurm")
    disturber.join()
    assert (outcome.n_done, outcome.failed) == (2, ())
    assert len(LocalQueue.jobs) == 3, "the one that was killed was submitted again"
    assert resumed(place.root) >= 1
    assert journals(place.root) == alone(place)


def driver(place: Place, *options: str, scale: str = "long") -> subprocess.Popen[str]:
    command = [sys.executable, "-c", DRIVER, "study", "run", str(place.study), "--scale", scale]
    command += ["--root", str(place.root), "--engine", "slurm", *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


DRIVER = """
from repetita.cli import main
from repetita.study import slurm_engine, slurm_options
slurm_engine.READ_SECONDS, slurm_engine.LOOK_SECONDS, slurm_options.BATCH_SECONDS = 0.1, 0.5, 0.0
main()
"""


def submissions(cluster: Path) -> int:
    return len(list(cluster.glob("*.script")))


def calls(cluster: Path) -> list[str]:
    return [json.loads(line) for line in (cluster / "calls.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_jobs_outlive_their_driver_and_end_with_checkpoints_when_it_is_asked_to_stop(
    place: Place, cluster: Path
) -> None:
    place.edit("steps=2000", "steps=1200")
    first = driver(place, "--slurm", "partition=cpu")
    wait(lambda: both_under_way(place, beyond=5))
    first.kill()
    first.communicate()
    second = driver(place)
    wait(lambda: both_under_way(place, beyond=60))
    third = driver(place)
    said, complained = third.communicate(timeout=GENEROUS)
    assert third.returncode == 2
    assert "another driver computes this study on Slurm" in complained
    second.send_signal(signal.SIGTERM)
    said, complained = second.communicate(timeout=GENEROUS)
    assert second.returncode == 143, complained
    assert submissions(cluster) == 1, "the second driver took up the jobs of the first"
    assert not subprocess.run(["squeue"], capture_output=True, check=True).stdout
    runs = list((place.root / "runs").iterdir())
    assert [status(path) for path in runs] == ["unfinished"] * 2
    assert all(list(path.glob("checkpoints/*/position.json")) for path in runs)

    last = driver(place)
    wait(lambda: both_under_way(place, beyond=100))
    (job, *_) = sorted(file.stem for file in cluster.glob("*.state") if file.read_text() == "RUNNING")
    os.kill(int((cluster / f"{job}.pid").read_text()), signal.SIGUSR2)
    said, complained = last.communicate(timeout=GENEROUS)
    assert (last.returncode, said.splitlines()[-1][:11]) == (0, "2 runs done"), complained
    assert submissions(cluster) == 2, "submitit requeued what came to its time limit"
    assert f"scontrol requeue {job}" in calls(cluster)
    assert resumed(place.root) >= 3
    assert journals(place.root) == alone(place)


@pytest.mark.slow
def test_short_runs_share_a_job_and_forks_follow_their_trunk(
    place: Place, cluster: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slurm_engine, "READ_SECONDS", 0.1)
    outcome = run_study(place.study, scale="tiny", root=place.root, engine="slurm", slurm={"time": 7})
    assert (outcome.n_done, outcome.failed) == (5, ())
    assert submissions(cluster) == 2
    assert all("--time=7\n" in file.read_text() for file in cluster.glob("*.script"))
    assert journals(place.root) == alone(place, "tiny")
    assert not list(place.root.glob("studies/*/work-*"))


@pytest.mark.usefixtures("quick")
def test_jobs_that_end_without_a_word(place: Place, cluster: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slurm_engine, "LOOK_SECONDS", 0.1)
    monkeypatch.setitem(execute.TRIES, "lost", 3)

    def ended(state: str) -> Mapping[str, str]:
        (cluster / "hold").touch()
        done = threading.Event()

        def end() -> None:
            while not done.wait(0.05):
                for file in cluster.glob("*.state"):
                    if file.read_text() == "PENDING":
                        file.write_text(state)

        threading.Thread(target=end, daemon=True).start()
        try:
            outcome = run_study(place.study, scale="long", root=place.root, engine="slurm")
        finally:
            done.set()
        return {failure.run: failure.reason for failure in outcome.failed}

    before = submissions(cluster)
    (first, *_) = ended("CANCELLED by 1000").values()
    assert "was cancelled by 1000; run the same command again" in first
    assert submissions(cluster) == before + 1, "what somebody cancelled is not sent again"
    (first, *_) = ended("OUT_OF_MEMORY").values()
    assert "took more memory on node7 than it asked for; ask for more by --slurm mem=" in first
    before = submissions(cluster)
    (first, *_) = ended("FAILED").values()
    assert "left no log; a node must see" in first and "--root" in first
    assert submissions(cluster) == before + 2, "it is tried once more"
    before = submissions(cluster)
    (first, *_) = ended("NODE_FAIL").values()
    assert "the node node7 of its job" in first
    assert submissions(cluster) == before + 3


@pytest.mark.usefixtures("quick")
def test_what_waits_is_taken_out_of_the_queue(place: Place, cluster: Path) -> None:
    (cluster / "hold").touch()
    once(lambda: list(cluster.glob("*.state")), lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(RunStopped, match="2 runs to go"):
        run_study(place.study, scale="long", root=place.root, engine="slurm", processes=1)
    (only,) = cluster.glob("*.state")
    assert only.read_text().startswith("CANCELLED"), "one was submitted, and taken back"
    assert any(call.startswith("scancel --state=PENDING") for call in calls(cluster))


def test_what_sbatch_refuses(place: Place, cluster: Path) -> None:
    (cluster / "refuse").write_text(
        "sbatch: error: Memory specification can not be satisfied\n"
        "sbatch: error: Batch job submission failed: Requested node configuration is not available\n"
    )
    with pytest.raises(EngineError) as error:
        run_study(place.study, scale="tiny", root=place.root, engine="slurm", slurm={"mem": "9T"})
    said = str(error.value)
    assert said.startswith(
        "sbatch refuses a job with time=30, mem=9T, cpus_per_task=1: Requested node config"
    )
    assert "--slurm KEY=VALUE" in said
    assert not list(place.root.glob("runs/*"))
    (cluster / "refuse").unlink()
    (cluster / "mute").touch()
    with pytest.raises(EngineError, match="squeue does not answer"):
        run_study(place.study, scale="tiny", root=place.root, engine="slurm")


@pytest.mark.usefixtures("quick")
def test_a_node_that_does_not_see_the_root(place: Place, cluster: Path) -> None:
    (cluster / "hold").touch()

    def hide() -> None:
        (folder_of(place) / slurm_options.TOKEN).unlink()
        (cluster / "hold").unlink()

    once(lambda: list(cluster.glob("*.state")), hide)
    outcome = run_study(place.study, scale="long", root=place.root, engine="slurm")
    for failure in outcome.failed:
        assert "does not see" in failure.reason and "--root" in failure.reason
    assert len(outcome.failed) == 2
    assert not list(place.root.glob("runs/*"))
