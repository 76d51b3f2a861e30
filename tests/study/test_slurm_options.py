"""What is asked of Slurm: options that submitit knows, limits that follow from the plan, scripts."""

import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from repetita.cli.app import app
from repetita.errors import EngineError, SpecError, UserError
from repetita.study import slurm_jobs
from repetita.study.engines import Errand, Needs
from repetita.study.execute import run_study
from repetita.study.progress import ProgressFile, Sight, read_sight
from repetita.study.slurm_engine import SlurmEngine
from repetita.study.slurm_jobs import Job
from repetita.study.slurm_options import (
    BATCH_SECONDS,
    CUDA_MEMORY,
    LIMITS,
    MEMORY_MARGIN,
    TIME_MARGIN,
    Asked,
    asked,
    jobs,
    options,
    parse,
    timeouts,
    uses_cuda,
)
from repetita.study.slurm_queue import Queue
from repetita.study.slurm_task import Batch, progress_path
from repetita.study.slurm_watch import Out, Watch, why
from repetita.study.where import Where
from repetita.study.work import Bench
from repetita.train.stopping import StopRequests
from tests.study.places import Place

pytest.importorskip("submitit")

MB = 1_000_000


@given(st.lists(st.tuples(st.floats(0.1, 2000.0), st.sampled_from([400 * MB, 9000 * MB])), max_size=40))
def test_short_runs_share_a_job_and_none_is_lost(runs: list[tuple[float, int]]) -> None:
    needs = {str(at): Needs(memory, seconds) for at, (seconds, memory) in enumerate(runs)}
    shares = [share for _, share in jobs(needs, cuda=False)]
    assert sorted(run for share in shares for run in share) == sorted(needs)
    unfilled = []
    for ask, share in jobs(needs, cuda=False):
        assert len({needs[run].memory for run in share}) == 1
        assert ask.mebibytes * (1 << 20) >= MEMORY_MARGIN * needs[share[0]].memory
        seconds = [needs[run].seconds for run in share]
        assert sum(seconds[:-1]) < BATCH_SECONDS, "a job is closed when it is full"
        assert ask.minutes == LIMITS[-1] or 60 * ask.minutes >= TIME_MARGIN * sum(seconds)
        unfilled += [needs[share[0]].memory] if sum(seconds) < BATCH_SECONDS else []
    assert len(unfilled) == len(set(unfilled)), "one job of a kind is left to be filled"


def test_a_run_that_takes_days_is_requeued_at_its_limit() -> None:
    days = [Needs(400 * MB, 3 * 86_400.0)]
    ask = asked(days, cuda=True)
    assert ask.minutes == LIMITS[-1]
    assert ask.mebibytes << 20 > CUDA_MEMORY
    assert timeouts(days, minutes=ask.minutes) == 3 + 9
    assert timeouts(days, minutes=60) == 3 + 216


def test_options_are_read_as_submitit_takes_them() -> None:
    told = options(
        parse(
            ["time=240", "cpus-per-task=2", "gres=gpu:1", "setup=module load a", "setup=b", "exclusive=true"]
        )
    )
    assert told == {
        "time": 240,
        "cpus_per_task": 2,
        "gres": "gpu:1",
        "setup": ["module load a", "b"],
        "exclusive": True,
    }
    more = options(parse(["additional_parameters=reservation=maintenance"]))
    assert more == {"additional_parameters": {"reservation": "maintenance"}}
    assert options({"time": 60, "additional_parameters": {"x": "y"}})["additional_parameters"] == {"x": "y"}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["partitio=gpu"], "did you mean 'partition'?"),
        (["time=4h"], "no number of minutes"),
        (["cpus_per_task=0"], "is no number"),
        (["partition"], "write KEY=VALUE"),
        (["time=1", "time=2"], "given twice"),
        (["nodes=2"], "is computed on one node"),
        (["additional_parameters=clusters=other"], "login node of that one"),
    ],
)
def test_options_that_cannot_be(given: list[str], said: str) -> None:
    with pytest.raises(SpecError) as error:
        options(parse(given))
    assert said in str(error.value)


def test_gpus_are_asked_for_and_used_together() -> None:
    assert uses_cuda("cuda", given={}) and uses_cuda("auto", given={"gres": "gpu:a100:1"})
    assert not uses_cuda("auto", given={"gres": "tmp:10G"})
    with pytest.raises(SpecError, match="say --device cuda"):
        uses_cuda("cpu", given={"gpus_per_node": 1})


def test_what_is_not_there_is_said_before_anything_is_prepared(
    place: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refused(**told: Any) -> str:
        with pytest.raises(UserError) as error:
            run_study(place.study, scale="tiny", root=place.root, **told)
        assert not place.root.exists()
        return str(error.value)

    monkeypatch.setenv("PATH", str(tmp_path))
    assert "needs Slurm's sbatch, which is not on this machine" in refused(engine="slurm")
    assert "--slurm has no effect with --engine local" in refused(slurm={"partition": "gpu"})
    assert "did you mean 'account'?" in refused(engine="slurm", slurm={"acount": "x"})
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "pip install 'repetita[slurm]'" in refused(engine="slurm")


def test_dry_run_prints_what_sbatch_would_be_given(
    place: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    def run(*given: str) -> Any:
        told = ["study", "run", str(place.study), "--scale", "tiny", "--root", str(place.root), "--dry-run"]
        return CliRunner().invoke(app, [*told, *given])

    said = run(
        "--engine", "slurm", "--device", "cuda", "--slurm", "account=x", "--slurm", "setup=module load y"
    )
    assert said.exit_code == 0, said.output
    lines = said.stdout.splitlines()
    assert lines[0].startswith("# 5 runs in 1 job,") and lines[1] == "#!/bin/bash"
    for line in ("account=x", "cpus-per-task=1", "gpus-per-node=1", "mem=5120M", "signal=USR2@90", "time=30"):
        assert f"#SBATCH --{line}" in lines
    assert lines.index("module load y") < lines.index("export OMP_NUM_THREADS=1 MKL_NUM_THREADS=1")
    assert any(line.startswith("srun ") and sys.executable in line for line in lines)
    assert not (place.root / "studies").exists() and not (place.root / "runs").exists()
    (script,) = json.loads(run("--engine", "slurm", "--json").stdout)
    assert "gpus" not in script
    refused = run()
    assert isinstance(refused.exception, SpecError)
    assert "--dry-run has no effect with --engine local" in str(refused.exception)


def test_states_of_slurm_in_words(tmp_path: Path) -> None:
    log = tmp_path / "12_3_0_log.err"
    log.write_text("Traceback\nModuleNotFoundError: No module named 'repetita'\n\n")

    def said(state: str, node: str = "n7") -> tuple[str, str]:
        return why(state, node, job="12_3", log=log)

    assert said("FAILED") == (
        "died",
        "its job 12_3 ended (FAILED) on n7: ModuleNotFoundError: No module named 'repetita'",
    )
    assert said("UNKNOWN", "")[1].startswith("its job 12_3 ended (UNKNOWN): Module")
    assert said("CANCELLED by 7", "None assigned")[0] == "failed"
    assert [said(state)[0] for state in ("OUT_OF_MEMORY", "TIMEOUT", "NODE_FAIL", "PREEMPTED")] == [
        "failed",
        "lost",
        "lost",
        "lost",
    ]


def test_jobs_are_remembered_and_those_that_are_over_forgotten(tmp_path: Path) -> None:
    ours = Job("12_0", "errand", {"a" * 64: 1, "b" * 64: 2})
    over, other = Job("9", "errand", {"c" * 64: 3}), Job("12_1", "another errand", {"d" * 64: 4})
    slurm_jobs.note(tmp_path, jobs=[over, ours])
    slurm_jobs.note(tmp_path, jobs=[other])
    with (tmp_path / slurm_jobs.FILE).open("a") as file:
        file.write('{"id": "13", "err')
    ended = {"order": 2, "state": "failed", "message": ""}
    (tmp_path / f"{'b' * 12}-2.json").write_text(json.dumps(ended))
    for name in (
        "9_0_log.err",
        "9_submitted.pkl",
        "12_0_submitted.pkl",
        "12_submission.sh",
        f"{'c' * 12}-3.json",
        f"{'b' * 12}-1.json",
    ):
        (tmp_path / name).write_text("")
    (tmp_path / ".submission_file_1.sh").symlink_to(tmp_path / "9_submission.sh")
    taken = slurm_jobs.take_up(tmp_path, present={"12_0": "", "12_1": "", "77": ""}, errand="errand")
    assert taken == {"a" * 64: (1, "12_0")}, "one had ended, and another errand's runs may be others"
    assert slurm_jobs.remembered(tmp_path) == [ours, other]
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "12_0_submitted.pkl",
        "12_submission.sh",
        f"{'b' * 12}-2.json",
        slurm_jobs.FILE,
    ]


def test_a_job_that_is_requeued_leaves_alone_what_was_sent_again(tmp_path: Path) -> None:
    run = "a" * 64
    old = progress_path(tmp_path, run=run, number=1)
    ProgressFile(old).show(Sight(order=1, state="lost"))
    again = progress_path(tmp_path, run=run, number=2)
    ProgressFile(again).show(Sight(order=2, state="running", step=5))
    Batch("no errand", orders=[(1, run)], folder=str(tmp_path))()
    assert [sight.state for sight in map(read_sight, (old, again)) if sight] == ["lost", "running"]
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize(("heard", "passed_on"), [(signal.SIGUSR2, [signal.SIGUSR2]), (signal.SIGTERM, [])])
def test_a_job_that_is_stopped_at_the_last_step_of_a_run_begins_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, heard: signal.Signals, passed_on: list[int]
) -> None:
    begun: list[str] = []
    requeued: list[int] = []

    def do(run: str, *, number: int, **_: object) -> Sight:
        begun.append(run)
        with StopRequests() as stop:
            signal.raise_signal(heard)
            assert stop.asked
        return Sight(order=number, state="done")

    monkeypatch.setattr("repetita.study.work.do_order", do)
    monkeypatch.setattr(Batch, "_bench", lambda _: Bench({}, None, tmp_path, Errand((), "")))  # type: ignore[arg-type]
    before = signal.signal(signal.SIGUSR2, lambda number, _: requeued.append(number))
    try:
        Batch("no errand", orders=[(1, "a" * 64), (2, "b" * 64)], folder=str(tmp_path))()
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert begun == ["a" * 64]
    assert requeued == passed_on


def test_a_stop_takes_back_jobs_that_were_not_asked_for_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[set[str]] = []
    engine = SlurmEngine.__new__(SlurmEngine)
    engine._taken_up = {"a" * 64: (1, "12_0")}
    engine._queue = Queue(tmp_path, given={}, cuda=False)
    engine._watch = Watch(tmp_path, queue=engine._queue)
    engine._watch.out["b" * 64] = Out.new(Needs(MB, 1.0))._replace(job="12_1")
    monkeypatch.setattr(Queue, "stop", lambda _, jobs: told.append(set(jobs)))
    monkeypatch.setattr(Queue, "present", lambda _: {})
    monkeypatch.setattr("repetita.study.slurm_engine.READ_SECONDS", 0.0)
    engine.stop()
    assert told == [{"12_0", "12_1"}]


@pytest.mark.parametrize(
    ("fate", "state", "message"),
    [
        ("CANCELLED by 1000", "failed", "its job 12_0 was cancelled by 1000; run the same command"),
        ("PREEMPTED", "lost", "its job was stopped by SIGTERM"),
        ("UNKNOWN", "lost", "its job was stopped by SIGTERM"),
    ],
)
def test_what_somebody_cancelled_is_not_sent_again(
    tmp_path: Path, fate: str, state: str, message: str
) -> None:
    class Over(Queue):
        waits: dict[str, str] = {}  # noqa: RUF012

        def present(self) -> dict[str, str]:
            return self.waits

        def fates(self, jobs: Sequence[str]) -> dict[str, tuple[str, str]]:
            return dict.fromkeys(jobs, (fate, "node7"))

    run = "a" * 64
    queue = Over(tmp_path, given={}, cuda=False)
    watch = Watch(tmp_path, queue=queue)
    out = Out.new(Needs(MB, 1.0))._replace(job="12_0")
    lost = Sight(order=out.number, state="lost", message="its job was stopped by SIGTERM")
    ProgressFile(progress_path(tmp_path, run=run, number=out.number)).show(lost)
    watch.out[run] = out
    assert watch.read() == watch.look() == [], "Slurm is asked what became of the job when it is over"
    (ended,) = watch.look()
    assert (ended.run, ended.state) == (run, state) and ended.message.startswith(message)
    watch.out[run] = out
    queue.waits = {"12_0": "PENDING"}
    (again,) = [*watch.look(), *watch.read()]
    assert again.state == "lost", "a job that was requeued has done with it"


def test_squeue_shows_all_jobs_whatever_its_user_prefers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = tmp_path / "squeue"
    command.write_text(
        '#!/bin/sh\ncase "$*" in *--all*) ;; *) exit 1;; esac\n[ "$SQUEUE_STATES" ] || echo 12_0 PENDING\n'
    )
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("SQUEUE_STATES", "RUNNING")
    assert Queue(tmp_path, given={}, cuda=False).present() == {"12_0": "PENDING"}


def test_a_users_settings_for_sbatch_undo_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for command in ("sbatch", "srun"):
        (tmp_path / command).write_text(
            '#!/bin/sh\n[ "$SBATCH_PARTITION" ] || exit 1\n[ "$SBATCH_WAIT$SBATCH_ARRAY_INX" ] && exit 1\n'
            "echo Submitted batch job 12\n"
        )
        (tmp_path / command).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    for name in ("WAIT", "ARRAY_INX", "PARTITION"):
        monkeypatch.setenv(f"SBATCH_{name}", "1")
    queue, ask = Queue(tmp_path, given={}, cuda=False), Asked(30, 1024, 1)
    queue.check(ask)
    assert queue.submit(ask, tasks=[Batch("", orders=[], folder="")], timeouts=1) == ["12"]
    assert os.environ["SBATCH_WAIT"] == "1", "what the user says otherwise stays"


def test_one_driver_submits_from_a_folder(tmp_path: Path) -> None:
    only = slurm_jobs.only_driver
    with only(tmp_path), pytest.raises(EngineError, match="another driver computes"), only(tmp_path):
        pass
    with only(tmp_path):
        pass


def test_an_engine_and_its_options() -> None:
    assert Where(engine="slurm", slurm={"time": 5}).slurm == {"time": 5}
    with pytest.raises(SpecError, match="--slurm has no effect with --engine ray"):
        Where(engine="ray", slurm={"time": 5})
