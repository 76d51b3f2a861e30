"""The queue of a Slurm cluster: scripts and arrays by submitit, states and signals by Slurm's commands."""

import io
import logging
import os
import subprocess
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import TYPE_CHECKING, Any

from repetita.errors import EngineError
from repetita.study.engines import Needs
from repetita.study.slurm_options import ARRAY, FOLDER, Asked, jobs, options, parameters, uses_cuda
from repetita.study.slurm_task import Batch

if TYPE_CHECKING:
    from repetita.study.where import Where

COMMAND_SECONDS = 120.0
OVERRIDING = tuple(
    f"SBATCH_{name}"
    for name in "ARRAY_INX CLUSTERS ERROR NO_REQUEUE OUTPUT SIGNAL TIMELIMIT WAIT WAIT_ALL_NODES".split()
)
"""Settings of a user that sbatch obeys before a script, and that would undo what jobs rely on."""
WAITING = ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "SPECIAL_EXIT")


class Queue:
    """What is asked of the cluster; `folder` holds submitit's scripts, pickles and logs."""

    def __init__(self, folder: Path, *, given: Mapping[str, Any], cuda: bool) -> None:
        self.folder = folder
        self._given, self._cuda = options(given), cuda
        # It would say on the terminal that sacct is not there; that is dealt with here.
        logging.getLogger("submitit").setLevel(logging.CRITICAL)

    def script(self, one: Asked, *, n_jobs: int) -> str:
        """The text that sbatch is given for so many jobs; also on a machine without Slurm."""
        import submitit

        class Writer(submitit.SlurmExecutor):
            """An executor that is asked for its text alone, so that no srun need be there."""

            @classmethod
            def affinity(cls) -> int:
                return 1

        executor = self._told(Writer(self.folder), one)
        if n_jobs > 1:
            executor.parameters["map_count"] = n_jobs
        return str(executor._make_submission_file_text(executor._submitit_command_str, "dry-run"))

    def check(self, one: Asked) -> None:
        """Raises EngineError, with what sbatch says, where no job that asks this could ever begin."""
        file = self.folder / f"check-{one.minutes}-{one.mebibytes}-{one.cpus}.sh"
        file.write_text(self.script(one, n_jobs=1))
        said = _run("sbatch", "--test-only", str(file))
        file.unlink(missing_ok=True)
        if said.returncode:
            raise _refused(self._parameters(one), said.stderr)

    def submit(self, one: Asked, *, tasks: Sequence[Batch], timeouts: int) -> list[str]:
        """Submits jobs that ask the same, several as an array; their ids. Raises EngineError."""
        import submitit

        executor = self._told(submitit.SlurmExecutor(self.folder, max_num_timeout=timeouts), one)
        try:
            # submitit prints what its error says, too.
            with redirect_stderr(io.StringIO()), _without(OVERRIDING):
                jobs = executor.submit_array(tasks)
        except submitit.core.utils.FailedJobError as error:
            raise _refused(self._parameters(one), str(error)) from None
        return [str(job.job_id) for job in jobs]

    def present(self) -> dict[str, str] | None:
        """State by id of all jobs that wait or run; None where the cluster does not answer now."""
        said = _run(
            "squeue", "--all", "--noheader", "--array", "--user", str(os.getuid()), "--format", "%i %T"
        )
        if said.returncode:
            return None
        return {job: state for job, _, state in (line.partition(" ") for line in said.stdout.splitlines())}

    def fates(self, jobs: Sequence[str]) -> dict[str, tuple[str, str]]:
        """By id the state in which a job ended, and its node; ("UNKNOWN", "") without accounting."""
        import submitit

        asked: list[Any] = [
            submitit.SlurmJob(self.folder, job) for job in jobs
        ]  # sacct is asked once, for all of them
        said = [job.get_info(mode="cache" if at else "force") for at, job in enumerate(asked)]
        pairs = ((info.get("State", "UNKNOWN"), info.get("NodeList", "")) for info in said)
        return dict(zip(jobs, pairs, strict=True))

    def stop(self, jobs: Collection[str]) -> None:
        """Takes jobs that wait out of the queue, and has those that run write their checkpoints."""
        if jobs:
            _run("scancel", "--state=PENDING", *jobs)
            _run("scancel", "--signal=TERM", *jobs)

    def cancel(self, jobs: Collection[str]) -> None:
        """Ends jobs; Slurm kills what is left of them after a while."""
        if jobs:
            _run("scancel", *jobs)

    def minutes(self, one: Asked) -> int:
        """The time limit of a job."""
        return int(self._parameters(one)["time"])

    def log(self, job: str) -> Path:
        """Where a job wrote what it had to say."""
        errors = self.folder / f"{job}_0_log.err"
        return errors if errors.exists() else self.folder / f"{job}_0_log.out"

    def _told(self, executor: Any, one: Asked) -> Any:
        executor.update_parameters(**self._parameters(one))
        return executor

    def _parameters(self, one: Asked) -> dict[str, Any]:
        return parameters(one, given=self._given, cuda=self._cuda, folder=self.folder)


def scripts(where: "Where", *, folder: Path, needs: Mapping[str, Needs]) -> list[str]:
    """What would be submitted for runs with these needs, one text for each kind of job; nothing is.

    `folder` is the study's. Raises SpecError and EngineError for what cannot be told without a cluster.
    """
    given = options(where.slurm)
    cuda = uses_cuda(where.device, given=given)
    queue = Queue(folder.resolve() / FOLDER, given=where.slurm, cuda=cuda)
    kinds: dict[Asked, list[list[str]]] = {}
    for ask, share in jobs(needs, cuda=cuda):
        kinds.setdefault(ask, []).append(share)
    said = []
    for ask, listed in kinds.items():
        n_runs, n_jobs = sum(map(len, listed)), len(listed)
        text = queue.script(ask, n_jobs=min(n_jobs, ARRAY))
        head = (
            f"# {n_runs} run{'s' if n_runs > 1 else ''} in {n_jobs} job{'s' if n_jobs > 1 else ''}, at most"
        )
        said.append(f"{head} {max(map(len, listed))} in one; forks follow when their trunks are done\n{text}")
    return said


@contextmanager
def _without(names: Sequence[str]) -> Iterator[None]:
    """While entered, none of these environment variables is there."""
    kept = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ |= kept


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    # A job that a user's SQUEUE_STATES or SQUEUE_PARTITION hides would be taken for one that is over.
    hidden = {key for key in os.environ if key.startswith("SQUEUE_")} | set(OVERRIDING)
    environment = {key: value for key, value in os.environ.items() if key not in hidden}
    try:
        return subprocess.run(
            command, capture_output=True, text=True, timeout=COMMAND_SECONDS, check=False, env=environment
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return subprocess.CompletedProcess(command, 1, "", f"{type(error).__name__}: {error}")


def _refused(told: Mapping[str, Any], said: str) -> EngineError:
    lines = [line for line in said.splitlines() if line.strip()] or ["it does not say why"]
    # Its last word is the reason; lines before it are hints.
    reason = lines[-1].removeprefix("sbatch: error: ").removeprefix("allocation failure: ")
    reason = reason.removeprefix("Batch job submission failed: ").rstrip(". ")
    keys = ("partition", "time", "mem", "cpus_per_task", "gpus_per_node", "gres")
    asked = ", ".join(f"{key}={told[key]}" for key in keys if key in told)
    return EngineError(
        f"sbatch refuses a job with {asked}: {reason}; change it by --slurm KEY=VALUE, or have fewer jobs in "
        f"the queue by --processes"
    )
