"""What measuring and journaling take of a run of `double_descent` at laptop scale, at its real cadence.

`python -m benchmarks.measuring_cost` interleaves the same run with its probes and without, on one thread. The
share of the difference holds everything that measuring does to a run; the clocks inside say where it goes.
"""

import argparse
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any

from benchmarks.rounds import ROUNDS, Compared, estimate, interleaved, machine, save, say
from repetita.fit.estimate import t_interval
from repetita.journal.folder import RunFolder
from repetita.studies import double_descent
from repetita.study.corpora import Corpora
from repetita.study.expand import expand
from repetita.study.plan import PlannedRun
from repetita.study.prepare import read_by
from repetita.study.price import Rates, job_cost, job_state
from repetita.study.work import bring_to_end
from repetita.train.loop import Options
from repetita.train.run import Run

SIZES = ("25k", "100k")
PASSES = 256.0
"""The run that stands for its size: f = 1/2, a subset that is memorized on the way."""
GOALS = {"measuring": 0.05, "journal": 0.01}

JOURNAL = ("write_step", "write_measurements", "write_event", "commit")


class Clocks:
    """Seconds spent inside some methods, each without what another of them took inside it."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._open: list[float] = []

    @contextmanager
    def running(self) -> Iterator[None]:
        """Watches the probes and the journal of every run until the end of the block."""
        watched = [(Run, "measure", "measuring"), *((RunFolder, name, "journal") for name in JOURNAL)]
        before = [getattr(owner, name) for owner, name, _ in watched]
        for (owner, name, what), method in zip(watched, before, strict=True):
            setattr(owner, name, self._timed(method, what))
        try:
            yield
        finally:
            for (owner, name, _), method in zip(watched, before, strict=True):
                setattr(owner, name, method)

    def _timed(self, method: Callable[..., Any], what: str) -> Callable[..., Any]:
        @wraps(method)
        def timed(*arguments: Any, **options: Any) -> Any:
            self._open.append(0.0)
            began = time.perf_counter()
            try:
                return method(*arguments, **options)
            finally:
                took = time.perf_counter() - began
                self.seconds[what] += took - self._open.pop()
                if self._open:
                    self._open[-1] += took

        return timed


def representative(size: str, *, steps: int | None) -> PlannedRun:
    """The run of the laptop scale that stands for a size, cut or lengthened to `steps`."""
    run = next(
        run
        for run in double_descent.STUDY.runs("laptop")
        if (run.labels["size"], run.labels["passes"], run.labels["curve"]) == (size, PASSES, "cosine")
    )
    return run if steps is None else run._replace(spec=run.spec.edit(steps=steps))


def seconds_of(run: PlannedRun, *, corpora: Corpora) -> float:
    """Wall time of one run from an empty folder to `done`, on one thread."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (job,) = expand([run], root=root, corpora=corpora.fingerprint)
        began = time.perf_counter()
        bring_to_end(job, jobs={}, corpora=corpora, root=root, options=Options(threads=1))
        return time.perf_counter() - began


def predicted(run: PlannedRun, *, corpora: Corpora) -> float:
    """The share of the time that the plan gives to measuring."""
    (job,) = expand([run], root=Path("nowhere"), corpora=corpora.fingerprint)
    sets = read_by(job, corpora=corpora)
    tokens = {due.key: due.probe.cost_tokens(sets[due.key]) for due in job.probes}
    cost = job_cost(job, state=job_state(job), tokens=tokens, rates=Rates())
    return cost.measuring.seconds / cost.seconds


def compare(run: PlannedRun, *, corpora: Corpora, rounds: int) -> tuple[Compared, Mapping[str, list[float]]]:
    """Seconds with and without probes; of those with, the shares inside the probes and the journal."""
    shares: dict[str, list[float]] = {"measuring": [], "journal": []}

    def measured() -> float:
        clocks = Clocks()
        with clocks.running():
            seconds = seconds_of(run, corpora=corpora)
        for what, found in shares.items():
            found.append(clocks.seconds[what] / seconds)
        return seconds

    bare = run._replace(probes=())
    contenders = {"measured": measured, "bare": lambda: seconds_of(bare, corpora=corpora)}
    return interleaved(contenders, rounds=rounds), shares


def report(
    size: str, run: PlannedRun, *, found: Compared, shares: Mapping[str, Sequence[float]], plan: float
) -> dict[str, Any]:
    """What was found at one size, said and as JSON types."""
    ratio = found.ratio("bare", to="measured")
    inside = {what: t_interval(values, contains="rounds") for what, values in shares.items()}
    say(
        f"{size}: {found.middle('measured'):.1f} s measured, {found.middle('bare'):.1f} s bare "
        f"({run.spec.steps} steps)"
    )
    assert ratio.value is not None
    assert ratio.low is not None
    assert ratio.high is not None
    say(f"  by difference   {1 - ratio.value:7.2%}  [{1 - ratio.high:.2%}, {1 - ratio.low:.2%}]")
    for what, share in inside.items():
        say(f"  {what:15} {share.value or 0:7.2%}  [{share.low or 0:.2%}, {share.high or 0:.2%}]")
    say(f"  planned         {plan:7.2%}")
    return {
        "steps": run.spec.steps,
        "seconds": {name: round(found.middle(name), 3) for name in found.values},
        "bare_over_measured": estimate(ratio),
        "share_inside": {what: estimate(share) for what, share in inside.items()},
        "share_planned": round(plan, 4),
        "met": {what: (inside[what].high or 1.0) < goal for what, goal in GOALS.items()},
    }


def main() -> None:
    """Measures, prints, and writes `results/measuring_cost.json` where the runs had their real length."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--sizes", nargs="+", default=SIZES)
    parser.add_argument("--steps", type=int, default=None, help="shorter runs, to try the benchmark out")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        corpora = Corpora(Path(folder))
        sizes: dict[str, Any] = {}
        for size in given.sizes:
            run = representative(size, steps=given.steps)
            seconds_of(run._replace(spec=run.spec.edit(steps=160)), corpora=corpora)  # builds and warms up
            found, shares = compare(run, corpora=corpora, rounds=given.rounds)
            plan = predicted(run, corpora=corpora)
            sizes[size] = report(size, run, found=found, shares=shares, plan=plan)
    if given.steps is None:
        save("measuring_cost", {"machine": machine(), "goals": GOALS, "sizes": sizes})


if __name__ == "__main__":
    main()
