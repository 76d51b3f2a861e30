"""A cluster of one machine that answers to Slurm's commands, as far as they are used here.

A file of this name under each command's name lies on PATH; what the cluster knows lies beside it: a file for
each job with its state, the process of its step, and what was asked of sbatch. With a file `hold` jobs wait,
and with a file `refuse` sbatch says what is in it.
"""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(sys.argv[0]).resolve().parent
NAMES = ("sbatch", "srun", "squeue", "sacct", "scancel", "scontrol")


def install(folder: Path) -> Path:
    """Puts the commands into a folder, and returns it."""
    folder.mkdir()
    for name in NAMES:
        file = folder / name
        file.write_text(f"#!{sys.executable} -S\n" + Path(__file__).read_text())
        file.chmod(0o755)
    # submitit remembers the fate of a job by its number, so that no two clusters share one.
    (folder / "next").write_text(str(time.time_ns() // 1_000_000))
    return folder


def tell(job: str, state: str) -> None:
    temporary = HERE / f".{job}.{os.getpid()}"
    temporary.write_text(state)
    temporary.replace(HERE / f"{job}.state")


def states() -> dict[str, str]:
    return {file.stem: file.read_text() for file in sorted(HERE.glob("*.state"))}


def sbatch(*arguments: str) -> int:
    text = Path(arguments[-1]).read_text()
    if (HERE / "refuse").exists():
        sys.stderr.write((HERE / "refuse").read_text())
        return 1
    if "--test-only" in arguments:
        return 0
    number = int((HERE / "next").read_text()) + 1
    (HERE / "next").write_text(str(number))
    (HERE / f"{number}.script").write_text(text)
    array = re.search(r"--array=0-(\d+)", text)
    tasks = [f"{number}_{at}" for at in range(int(array[1]) + 1)] if array else [str(number)]
    for job in tasks:
        tell(job, "PENDING")
        command = [sys.executable, str(HERE / "sbatch"), "--supervise", job]
        subprocess.Popen(
            command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
    print(f"Submitted batch job {number}")
    return 0


def supervise(job: str) -> int:
    """What slurmctld does for a job: it waits, runs, is requeued, ends."""
    number, _, task = job.partition("_")
    environment = os.environ | {"SLURM_JOB_ID": str(int(number) + int(task or 0)), "SLURM_JOB_NUM_NODES": "1"}
    if task:
        environment |= {"SLURM_ARRAY_JOB_ID": number, "SLURM_ARRAY_TASK_ID": task}
    while True:
        while (HERE / "hold").exists() and states()[job] == "PENDING":
            time.sleep(0.05)
        if states()[job] != "PENDING":
            return 0
        tell(job, "RUNNING")
        script = HERE / f"{number}.script"
        error = re.search(r"--error=(\S+)", script.read_text())
        assert error
        with Path(error[1].replace("%A_%a", job).replace("%j", job)).open("a") as errors:
            code = subprocess.run(["bash", script], env=environment, stderr=errors, check=False).returncode
        if states()[job] == "RUNNING":
            tell(job, "FAILED" if code else "COMPLETED")
        elif states()[job] == "REQUEUED":
            tell(job, "PENDING")


def srun(*arguments: str) -> int:
    task = os.environ.get("SLURM_ARRAY_TASK_ID", "")
    job = f"{os.environ['SLURM_ARRAY_JOB_ID']}_{task}" if task else os.environ["SLURM_JOB_ID"]
    told = dict(zip(arguments[1:5:2], arguments[2:6:2], strict=True))
    for number, name in ((1, "--output"), (2, "--error")):
        path = told[name].replace("%A_%a", job).replace("%j", job).replace("%t", "0")
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644), number)
    (HERE / f"{job}.pid").write_text(str(os.getpid()))
    os.execvp(arguments[5], arguments[5:])


def squeue(*_: str) -> int:
    if (HERE / "mute").exists():
        return 1
    for job, state in states().items():
        if state in ("PENDING", "RUNNING", "REQUEUED"):
            print(job, state)
    return 0


def sacct(*_: str) -> int:
    print("JobID|State|NodeList")
    for job, state in states().items():
        print(f"{job}|{state}|node7")
    return 0


def scancel(*arguments: str) -> int:
    options = dict(one.lstrip("-").split("=") for one in arguments if one.startswith("-"))
    for job in (one for one in arguments if not one.startswith("-")):
        state = states().get(job)
        if state == "PENDING" and options.get("signal") is None:
            tell(job, f"CANCELLED by {os.getuid()}")
        if state == "RUNNING" and options.get("state") is None:
            if "signal" not in options:
                tell(job, f"CANCELLED by {os.getuid()}")
            send(job, signal.SIGTERM)
    return 0


def scontrol(what: str, job: str) -> int:
    assert what == "requeue"
    tell(job, "REQUEUED")
    return 0


def send(job: str, number: int) -> None:
    file = HERE / f"{job}.pid"
    if file.exists():
        os.kill(int(file.read_text()), number)


if __name__ == "__main__":
    name, given = Path(sys.argv[0]).name, sys.argv[1:]
    with (HERE / "calls.jsonl").open("a") as calls:
        calls.write(json.dumps(shlex.join([name, *given])) + "\n")
    if given[:1] == ["--supervise"]:
        sys.exit(supervise(given[1]))
    sys.exit(globals()[name](*given))
