"""Twenty-four runs as a study on all cores, against the same runs one after the other.

`python -m benchmarks.study_speed` interleaves three ways to have them done, each from the start of its
processes to the last `done`, the corpus built beforehand: `study run`; one process with torch's default
threads through the same loop; and one process with one thread.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.rounds import Compared, estimate, interleaved, machine, save, say
from benchmarks.twenty_four_runs import STEPS, planned
from repetita.studies._laptop import SOTU
from repetita.study.corpora import Corpora

STUDY = Path(__file__).with_name("twenty_four_runs.py")
N_RUNS = 24
GOAL = 2.2
"""How many times as fast the study is to be on two cores as the same runs with default threads."""
ONE_BY_ONE = "--one-by-one"


def one_by_one(root: Path, *, scale: str, threads: int) -> None:
    """All runs in this process; 0 threads are torch's default."""
    import torch

    from repetita.study.single import train_run
    from repetita.train.loop import Options

    options = Options(threads=threads or torch.get_num_threads())
    for run in planned(STEPS[scale]):
        train_run(run.spec, root=root, probes=run.probes, options=options)


def timed(command: list[str], *, corpora: Path, threads: int) -> float:
    """Seconds that a command takes in a root folder of its own; raises CalledProcessError where it fails."""
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    if threads:
        environment |= {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(corpora, Path(folder) / "corpora")
        began = time.perf_counter()
        subprocess.run(
            [sys.executable, *command, "--root", folder],
            env=environment,
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        seconds = time.perf_counter() - began
        n_done = len(list(Path(folder).glob("runs/*/done")))
    if n_done != N_RUNS:
        raise RuntimeError(f"{n_done} runs were done by {' '.join(command)}")
    return seconds


def contenders(corpora: Path, *, scale: str, processes: int) -> dict[str, Callable[[], float]]:
    """The three ways by name."""
    study = ["-m", "repetita", "-q", "study", "run", str(STUDY), "--scale", scale, "-p", str(processes)]
    alone = ["-m", "benchmarks.study_speed", ONE_BY_ONE, "--scale", scale]
    return {
        "study": lambda: timed(study, corpora=corpora, threads=0),
        "default threads": lambda: timed([*alone, "--threads", "0"], corpora=corpora, threads=0),
        "one thread": lambda: timed([*alone, "--threads", "1"], corpora=corpora, threads=1),
    }


def report(found: Compared, *, scale: str, processes: int) -> dict[str, object]:
    """What was found, said and as JSON types."""
    for name in found.values:
        say(f"{name:16} {found.middle(name):7.1f} s")
    goal, plain = (found.ratio(name, to="study") for name in ("default threads", "one thread"))
    say(f"default threads / study  {goal.text()}  (goal {GOAL})")
    say(f"one thread / study       {plain.text()}  (ideal {processes}: as many as processes)")
    return {
        "machine": machine(),
        "runs": N_RUNS,
        "steps": STEPS[scale],
        "processes": processes,
        "seconds": {name: [round(value, 3) for value in values] for name, values in found.values.items()},
        "default_threads_over_study": estimate(goal),
        "one_thread_over_study": estimate(plain),
        "goal": GOAL,
        "met": (goal.low or 0.0) >= GOAL,
    }


def main() -> None:
    """Measures, prints, and writes `results/study_speed.json` unless it was only tried."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", choices=STEPS, default="short")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    for hidden, kind in (("--root", Path), ("--threads", int)):
        parser.add_argument(hidden, type=kind, help=argparse.SUPPRESS)
    parser.add_argument(ONE_BY_ONE, action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one_by_one:
        one_by_one(given.root, scale=given.scale, threads=given.threads)
        return
    with tempfile.TemporaryDirectory() as folder:
        corpora = Corpora(Path(folder))
        corpora.open(SOTU)
        ways = contenders(Path(folder) / "corpora", scale=given.scale, processes=given.processes)
        found = interleaved(
            ways,
            rounds=given.rounds,
            on_round=lambda number, seconds: say(
                f"round {number + 1}: "
                + ", ".join(f"{name} {value:.1f} s" for name, value in seconds.items())
            ),
        )
    result = report(found, scale=given.scale, processes=given.processes)
    if given.scale != "try":
        save("study_speed", result)


if __name__ == "__main__":
    main()
