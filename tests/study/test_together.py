"""Runs that several processes compute: how many, where there is room, and torchrun as a worker starts it."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from repetita.errors import EngineError, RunStopped, SpecError
from repetita.journal.folder import read_header, read_journal, status
from repetita.study import slurm_options, together
from repetita.study.engines import Errand, Needs
from repetita.study.execute import run_study
from repetita.study.local_engine import LocalEngine
from repetita.study.progress import ProgressFile, Sight, read_sight
from repetita.study.together import check_width, gpu_memory, needs_of, settled
from tests.study.places import Place, do
from tests.study.test_ray_engine import once

GB = 1_000_000_000
BIG = Needs(100 * GB, 1.0, gpu_memory=100 * GB, gpu_whole=4 * GB, most=64)


def test_a_run_takes_as_few_gpus_as_hold_it() -> None:
    assert [gpu_memory(BIG, world=world) for world in (1, 2, 4)] == [100 * GB, 52 * GB, 28 * GB]
    assert settled(BIG, cuda=True, gpu_bytes=112 * GB).world == 1
    assert settled(BIG, cuda=True, gpu_bytes=80 * GB).world == 2
    assert settled(BIG, cuda=True, gpu_bytes=40 * GB).world == 4
    assert settled(BIG, cuda=True, gpu_bytes=1 * GB).world == 64, "no width holds it"
    assert settled(BIG._replace(most=1), cuda=True, gpu_bytes=40 * GB).world == 1
    assert settled(BIG, cuda=False).world == settled(BIG, cuda=True).world == 1
    wide = settled(BIG._replace(world=4, most=1), cuda=False)
    assert (wide.cpus, wide.memory) == (4, 400 * GB), "each process holds what one would"
    assert settled(BIG._replace(world=4, most=1), cuda=True).memory < 102 * GB


def test_what_one_machine_does_not_hold_is_refused() -> None:
    wide = settled(BIG, cuda=True, gpu_bytes=40 * GB)
    check_width("run", wide, at_most=4, gpu_bytes=40 * GB, where="this machine")
    with pytest.raises(
        EngineError, match="run takes 4 GPUs of 40 GB, and this machine has at most 2; "
    ) as told:
        check_width("run", wide, at_most=2, gpu_bytes=40 * GB, where="this machine")
    assert "torchrun --nnodes 2 --nproc-per-node 2 " in str(told.value)
    for most, why in ((1, "it cannot be shared"), (16, "no more than 16 can share it")):
        none = settled(BIG._replace(most=most), cuda=True, gpu_bytes=4 * GB)
        with pytest.raises(EngineError, match=f"and this machine has 4 GB; {why}, so choose"):
            check_width("run", none, at_most=64, gpu_bytes=4 * GB, where="this machine")


def test_what_several_processes_cannot_share_is_refused_before_anything_is_trained(place: Place) -> None:
    prepared = place.prepared()
    job = prepared.needed()[0]
    cost = prepared.costs[job.fingerprint]
    alone, pair = needs_of(job, cost=cost), needs_of(job, cost=cost, per_run=2)
    assert (alone.world, alone.most) == (1, 4) and (pair.world, pair.most) == (2, 1)
    assert needs_of(job, cost=cost, per_run=1).most == 1, "one is meant"
    assert 0 < alone.gpu_whole < alone.gpu_memory
    with pytest.raises(SpecError, match="batches of 4 sequences, and some processes would get none"):
        run_study(place.study, scale="tiny", root=place.root, per_run=8)
    with pytest.raises(SpecError, match="per_run = 0"):
        run_study(place.study, scale="tiny", root=place.root, per_run=0)
    place.edit("warmup_steps=2)", "warmup_steps=2, dropout=0.1)")
    with pytest.raises(SpecError, match=r"has dropout 0\.1, whose masks"):
        run_study(place.study, scale="tiny", root=place.root, per_run=2)
    assert not list(place.root.glob("runs/*"))


def test_a_wide_run_takes_other_workers_places_until_it_ends(tmp_path: Path) -> None:
    gpus = ("cuda:0", "cuda:1", "cuda:2")
    engine = LocalEngine(
        6, errand=Errand((), str(tmp_path)), folder=tmp_path, devices=gpus, gpu_bytes=40 * GB, at_once=3
    )
    sent: dict[str, tuple[str, ...]] = {}
    for worker in engine._workers:

        def note(run: str, *, devices: Any = (), worker: Any = worker) -> None:
            worker.run, sent[run] = run, tuple(devices) or (worker.device,)

        worker.send = note  # type: ignore[method-assign]
    small, pair = BIG._replace(gpu_memory=GB), BIG._replace(gpu_memory=60 * GB)
    engine.send("a", needs=small)
    assert not engine.takes(BIG), "four GPUs are more than there are"
    engine.send("b", needs=pair)
    assert len(set(sent["b"])) == 2
    assert sum(worker.idle for worker in engine._workers) == 3
    engine.send("c", needs=small)
    assert not engine.takes(small), "no more at once than was asked for"
    next(worker for worker in engine._workers if worker.run == "b").run = None
    assert sum(worker.idle for worker in engine._workers) == 4 and engine.takes(small)


def test_jobs_of_slurm_ask_for_as_many_cores_or_gpus() -> None:
    pytest.importorskip("submitit")
    needs = {"wide": Needs(GB, 1.0, world=4), "alone": Needs(GB, 1.0), "too": Needs(GB, 1.0, world=4)}
    listed = slurm_options.jobs(needs, cuda=False)
    assert [(ask.cpus, ask.world, share) for ask, share in listed] == [
        (4, 4, ["wide", "too"]),
        (1, 1, ["alone"]),
    ]
    ask = slurm_options.asked([needs["wide"]], cuda=True)
    told = slurm_options.parameters(ask, given={}, cuda=True, folder=Path("slurm"))
    assert (told["gpus_per_node"], told["cpus_per_task"]) == (4, 4)


SAID = 'for last; do shift; [ "$last" = --progress ] && said=$1; done; '


def launched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> tuple[Sight, list[Sight]]:
    """What becomes of a run, and all that is shown of it, with a script in the place of torchrun."""
    shown: list[Sight] = []

    class File(ProgressFile):
        def show(self, sight: Sight) -> None:
            shown.append(sight)

    monkeypatch.setattr(together, "TORCHRUN", ("/bin/sh", "-c", SAID + script, "sh"))
    monkeypatch.setattr(together, "POLL_SECONDS", 0.01)
    errand = Errand((), str(tmp_path))
    ended = together.do_together("a" * 64, number=7, errand=errand, devices=["cpu"] * 2, file=File(None))
    return ended, shown


def test_what_the_processes_say_is_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    running, done = (json.dumps(Sight(1, state, "", 5, 9)._asdict()) for state in ("running", "done"))
    script = f"echo '{running}' >$said; sleep 0.5; echo '{done}' >$said"
    ended, shown = launched(tmp_path, monkeypatch, script)
    assert (ended.order, ended.state, ended.step) == (7, "done", 5)
    assert {(sight.order, sight.state, sight.step) for sight in shown} == {(7, "running", 5)}


def test_processes_that_die_are_told_from_a_run_that_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended, _ = launched(tmp_path, monkeypatch, "echo noise; echo 'repetita: no room' >&2; exit 1")
    assert (ended.order, ended.state, ended.message, ended.ended) == (7, "died", "no room", True)
    ended, _ = launched(tmp_path, monkeypatch, "kill -9 $$")
    assert (ended.state, ended.message) == ("died", "torchrun ended with exit code -9")


def test_a_stop_ends_stdin_of_the_processes_and_waits_for_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = tmp_path / "saved"
    once((tmp_path / "began").exists, lambda: os.kill(os.getpid(), signal.SIGTERM))
    # The signal that announces a time limit reaches every process of a job.
    script = f"kill -USR2 $$; touch {tmp_path}/began; cat; sleep 0.1; touch {saved}"
    with pytest.raises(RunStopped, match="stopped by SIGTERM"):
        launched(tmp_path, monkeypatch, script)
    assert saved.exists()


@pytest.mark.slow
def test_a_run_of_two_processes_is_stopped_and_ends_in_one(place: Place) -> None:
    place.edit("for seed in range(2)", "for seed in range(1)")
    place.edit("steps=2000", "steps=800")
    here = place._replace(root=place.root.parent / "here")
    do(here, scale="long")

    def under_way() -> bool:
        seen = [read_sight(file) for file in place.root.glob("studies/*/work-*/*.json")]
        return any(one is not None and 1 < one.step < one.steps for one in seen)

    once(under_way, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(RunStopped, match="1 runs to go"):
        run_study(place.study, scale="long", root=place.root, processes=1, per_run=2)
    (run,) = (place.root / "runs").iterdir()
    assert status(run) == "unfinished" and list(run.glob("checkpoints/*/position.json"))
    assert read_header(run)["device"]["world"] == 2
    do(place, scale="long")
    assert (status(run), kinds(run).count("resumed")) == ("done", 1)
    one, two = (
        list(read_journal(root / "runs" / run.name, journal="steps")) for root in (here.root, place.root)
    )
    assert len(one) == len(two)
    for line, other in zip(
        one[:20], two[:20], strict=True
    ):  # Later on, such a learning rate makes chaos of it.
        assert line["gradient_norm"] == pytest.approx(other["gradient_norm"], rel=1e-4)


def kinds(run: Path) -> list[str]:
    return [line["kind"] for line in read_journal(run, journal="events")]
