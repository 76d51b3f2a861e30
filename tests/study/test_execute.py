"""A study is run by workers; it survives failures, stop requests and kills, and does only what is missing."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from repetita.errors import RunStopped, SpecError
from repetita.journal.folder import status
from repetita.study.engines import Ended
from repetita.study.execute import Desk, _scratch, run_study
from repetita.study.local_engine import LocalEngine, Worker
from repetita.study.progress import Sight, read_sight
from tests.study.places import Place

GENEROUS = 300.0
SAID: Any = {"capture_output": True, "text": True, "check": True}


def wait_for(what: Callable[[], object]) -> None:
    until = time.monotonic() + GENEROUS
    while not what():
        assert time.monotonic() < until, "it did not come"
        time.sleep(0.02)


def start(place: Place, scale: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "repetita", "study", "run", str(place.study), "--scale", scale]
    return subprocess.Popen(
        [*command, "--root", str(place.root), "-p", "2"],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def under_way(place: Place, driver: int) -> bool:
    folder = place.root / "studies" / "tiny_study-long"
    sights = [read_sight(file) for file in folder.glob(f"work-{driver}-*/*.json")]
    return len(sights) == 2 and all(sight is not None and 5 < sight.step < sight.steps for sight in sights)


def children(process: int) -> list[int]:
    found = subprocess.run(["pgrep", "-P", str(process)], capture_output=True, text=True, check=False)
    return [int(line) for line in found.stdout.split()]


def gone(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    return Path(f"/proc/{process}/stat").read_text().split()[2] == "Z"


def test_failures_stop_nothing_and_what_is_done_is_not_done_again(place: Place) -> None:
    outcome = run_study(place.study, scale="broken", root=place.root, processes=2)
    (failure,) = outcome.failed
    assert outcome.n_done == 1
    assert "nan" in failure.reason
    assert failure.journal == place.root / "runs" / failure.run / "events.jsonl"
    assert "diverged" in failure.journal.read_text()
    assert list(outcome.folders[0].glob("work-*/worker-*.log"))
    before = {file: file.stat().st_mtime_ns for file in place.root.glob("runs/*/done")}
    place.edit("learning_rate=1e30", "learning_rate=0.02")
    outcome = run_study(place.study, scale="broken", root=place.root, processes=2)
    assert (outcome.n_present, outcome.n_done, outcome.failed) == (1, 1, ())
    assert all(file.stat().st_mtime_ns == then for file, then in before.items())
    again = run_study(place.study, scale="broken", root=place.root)
    assert (again.n_present, again.n_done) == (2, 0)


@pytest.mark.slow
@pytest.mark.ci
def test_a_stop_request_leaves_checkpoints_and_a_killed_worker_s_run_goes_on(place: Place) -> None:
    driver = start(place, "long")
    wait_for(lambda: under_way(place, driver.pid))
    workers = children(driver.pid)
    driver.send_signal(signal.SIGTERM)
    _, said = driver.communicate(timeout=GENEROUS)
    assert driver.returncode == RunStopped.exit_code
    assert "run the same command again" in said.splitlines()[-1]
    assert all(gone(worker) for worker in workers)
    runs = list((place.root / "runs").iterdir())
    assert [status(run) for run in runs] == ["unfinished"] * 2
    assert all(list(run.glob("checkpoints/*/position.json")) for run in runs)

    driver = start(place, "long")
    wait_for(lambda: under_way(place, driver.pid))
    os.kill(children(driver.pid)[0], signal.SIGKILL)
    _, said = driver.communicate(timeout=2 * GENEROUS)
    assert driver.returncode == 0, said
    assert "SIGKILL (out of memory?)" in said
    assert "tried once more" in said
    assert [status(run) for run in runs] == ["done"] * 2


@pytest.mark.slow
def test_a_killed_driver_leaves_no_workers(place: Place) -> None:
    driver = start(place, "long")
    wait_for(lambda: under_way(place, driver.pid))
    workers = children(driver.pid)
    assert len(workers) == 2
    driver.kill()
    driver.communicate(timeout=GENEROUS)
    wait_for(lambda: all(gone(worker) for worker in workers))


def test_a_worker_that_heard_of_a_stop_too_late_waits_for_no_more_orders(tmp_path: Path) -> None:
    code = "import signal, sys; signal.signal(15, signal.SIG_IGN); open(sys.argv[2], 'w'); sys.stdin.read()"
    worker = Worker(0, command=[sys.executable, "-c", code], folder=tmp_path)
    engine = LocalEngine.__new__(LocalEngine)
    engine._workers = [worker]
    worker.send("a" * 64)
    wait_for((tmp_path / "worker-0.json").exists)
    engine.stop()
    assert worker._process is not None and worker._process.returncode == 0, "it was not killed"


def test_processes_are_counted_from_one(place: Place) -> None:
    with pytest.raises(SpecError, match="processes = 0"):
        run_study(place.study, scale="tiny", root=place.root, processes=0)


def test_only_what_a_driver_that_is_gone_left_behind_is_removed(tmp_path: Path) -> None:
    gone_by = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], **SAID).stdout.strip()
    mine = _scratch(tmp_path)
    machine = mine.name.split("-")[2]
    dead = tmp_path / f"work-{gone_by}-{machine}-a"
    elsewhere, forgotten = (tmp_path / f"work-{gone_by}-00000000-{end}" for end in "ab")
    for folder in (dead, elsewhere, forgotten):
        folder.mkdir()
    os.utime(forgotten, (0, 0))
    another = _scratch(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {mine.name, elsewhere.name, another.name}


def take(desk: Desk) -> str | None:
    """The run that an engine with room would be given."""
    name = desk.next()
    if name is not None:
        desk.give(name)
    return name


def test_the_desk_gives_trunks_first_and_retries_a_dead_worker_once(place: Place) -> None:
    prepared = place.prepared()
    needed = prepared.needed()
    trunk = next(job.fingerprint for job in needed if not job.arms)
    forks = {job.fingerprint for job in needed if job.trunk == trunk}
    desk, log = Desk(needed, prepared=prepared), Path("log")
    died = Ended(trunk, "died", "the worker was ended by SIGKILL", log)
    given = {take(desk) for _ in range(3)}
    assert trunk in given
    assert not forks & given
    assert desk.next() is None
    assert "tried once more" in str(desk.take_back(died))
    assert take(desk) == trunk
    assert "written by another process" in str(desk.take_back(Ended(trunk, "busy", "", log)))
    assert desk.next() is None
    desk._later = [(0.0, name) for _, name in desk._later]
    assert take(desk) == trunk
    assert desk.take_back(Ended(trunk, "busy", "", log)) is None, "said once"
    for _ in range(3):  # A machine that is gone says nothing of the run.
        desk._later = [(0.0, name) for _, name in desk._later]
        assert take(desk) == trunk
        assert "tried once more" in str(desk.take_back(Ended(trunk, "lost", "the node died", log)))
    assert take(desk) == trunk
    desk.take_back(died)
    assert set(desk.failed) == {trunk, *forks}
    assert {desk.failed[fork].reason.startswith("its trunk") for fork in forks} == {True}
    assert desk.failed[trunk].journal == log
    for name in given - {trunk}:
        desk.take_back(Ended(str(name), "done", "", log))
    assert not desk.open


def test_a_fork_waits_for_its_trunk_only(place: Place) -> None:
    prepared = place.prepared()
    needed = prepared.needed()
    trunk = next(job.fingerprint for job in needed if not job.arms)
    desk = Desk(needed, prepared=prepared)
    assert take(desk) == trunk, "the longest chain comes first"
    whole = desk.left({}, processes=2)
    # Half of the trunk took a hundred times as long as was planned, and so will the rest.
    slow = Sight(order=1, state="running", step=5, steps=10, seconds=1e4)
    assert desk.left({trunk: slow}, processes=2) > 10 * whole
    desk.take_back(Ended(trunk, "done", "", Path("log"), seconds=desk.seconds[trunk]))
    assert desk.left({}, processes=2) < whole
    forks = {job.fingerprint for job in needed if job.trunk == trunk}
    given = {take(desk) for _ in range(4)}
    assert forks <= given


def test_the_desk_has_ten_thousand_runs_at_hand(place: Place) -> None:
    prepared = place.prepared()
    one = next(job for job in prepared.needed() if job.arms and job.trunk is None)
    names = [f"{at:064x}" for at in range(10_000)]
    many = prepared._replace(
        jobs={name: one._replace(fingerprint=name) for name in names},
        states=dict.fromkeys(names, prepared.states[one.fingerprint]),
        costs={
            name: prepared.costs[one.fingerprint]._replace(seconds=float(at % 100))
            for at, name in enumerate(names)
        },
    )
    desk = Desk(tuple(many.jobs.values()), prepared=many)
    given = [str(take(desk)) for _ in names]
    assert sorted(given) == names and take(desk) is None
    assert [desk.seconds[name] for name in given] == sorted(desk.seconds.values(), reverse=True)
