"""A study of ten thousand runs: its plan, and the table of the 120 measurements of each, in time and memory.

    python -m benchmarks.ten_thousand_runs [--runs 10000] [--rounds 3]

Nothing is trained: folders are written as finished runs leave them, with numbers that are made up. Each
part runs in a process of its own, timed behind its imports; memory is that of the whole process. Beside it
the same lines are read one by one, as JSON, on a tenth of the runs.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import redirect_stdout, suppress
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any
from unittest.mock import patch

from benchmarks import rounds
from benchmarks.rounds import say
from repetita import (
    Analysis,
    At,
    CorpusSpec,
    PlannedRun,
    Recipe,
    RepeatedSubset,
    RunSpec,
    ScoreProbe,
    Splits,
    Stream,
    Study,
    TokenizerSpec,
    ladder,
)
from repetita.cli import main as command_line
from repetita.journal import table
from repetita.journal.folder import RunFolder, read_journal
from repetita.journal.records import Reading
from repetita.spec import plain
from repetita.study.collect import Collected, collect
from repetita.study.expected import plan_corpora
from repetita.study.manifest import write_manifests
from repetita.study.prepare import portion, prepare

CORPUS = CorpusSpec(
    source="python-stdlib",
    limit_documents=200,
    tokenizer=TokenizerSpec(kind="bytes"),
    length=64,
    splits=Splits(test="0.1"),
)
STEPS, MEASURED, METRICS = 600, 30, ("loss", "bits_per_byte")
"""30 steps at which 2 metrics are measured on 2 sets: 120 measurements."""


def planned(n_runs: int) -> Sequence[PlannedRun]:
    """Two arms, as many seeds as it takes."""
    arms = {"control": Stream(), "repeated": RepeatedSubset(fraction="1/2", n_sequences=100)}
    model = ladder("laptop", vocab_size=CORPUS.tokenizer.vocab_size, context=CORPUS.length)["25k"]
    probe = ScoreProbe(on=("test", "train"), cadence=At(at=tuple(range(0, STEPS, STEPS // MEASURED))))
    return [
        PlannedRun(
            spec=RunSpec(
                corpus=CORPUS,
                model=model,
                treatment=treatment,
                recipe=Recipe(learning_rate=0.01),
                steps=STEPS,
                batch_size=8,
                seed=seed,
            ),
            labels={"arm": arm},
            probes=(probe,),
        )
        for seed in range(n_runs // 2)
        for arm, treatment in arms.items()
    ]


def analyse(_: Collected) -> Analysis:
    """Nothing: the question is how long the table takes."""
    return Analysis()


STUDY = Study(
    name="ten_thousand_runs",
    title="Ten thousand runs",
    question="How long do plan and table take?",
    prediction="Seconds",
    source="DESIGN.md",
    scales={str(10**k): partial(planned, 10**k) for k in (2, 3, 4)},
    analyse=analyse,
)


def write(root: Path, *, scale: str) -> None:
    """The folders of all runs as `done`; nothing is synced to the disk, which would take minutes."""
    part = portion(__file__, scale=scale)
    prepared = prepare([part], root=root, corpora=plan_corpora([part], root=root))
    write_manifests(prepared, root=root)
    for number, job in enumerate(prepared.jobs.values()):
        header = {"fingerprint": job.fingerprint, "slug": job.slug, "spec": plain(job.spec)}
        with RunFolder.open(job.path, header=header) as run:
            run.truncate(None)
            for due in job.probes:
                for step in sorted(due.steps)[:MEASURED]:
                    values = [(metric, on) for metric in METRICS for on in due.probe.on]
                    readings = [
                        Reading(metric, on, 3 + (number % 97) / 7 + step / 11, 4096, {"sequences": 64})
                        for metric, on in values
                    ]
                    run.write_measurements(readings, step=step, tokens=step * 512, probe=due.key)
            run.finish("done")


def part_of(name: str, *, root: Path, scale: str) -> int:
    """One part of the benchmark; how many rows or runs it came to."""
    paths = sorted((root / "runs").iterdir())
    if name == "plan":
        sys.argv = ["repetita", "study", "plan", __file__, "--scale", scale, "--root", str(root), "--json"]
        with redirect_stdout(StringIO()), suppress(SystemExit):
            command_line()
        return len(paths)
    if name == "table":
        return len(table.measurements(paths))
    if name == "study":
        return len(collect(portion(__file__, scale=scale), root=root).measurements)
    return sum(1 for path in paths[: len(paths) // 10] for _ in read_journal(path, journal="measurements"))


def measured(name: str, *, root: Path, scale: str) -> dict[str, Any]:
    """The part in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.ten_thousand_runs", "--part", name, "--root", str(root)]
    done = subprocess.run([*command, "--runs", scale], check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Writes the folders once, then takes turns."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", default="10000", choices=sorted(STUDY.scales))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--part")
    parser.add_argument("--root", type=Path)
    asked = parser.parse_args()
    if asked.part:
        began, worked = time.monotonic(), time.process_time()
        n = part_of(asked.part, root=asked.root, scale=asked.runs)
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        took = {"seconds": time.monotonic() - began, "processor": time.process_time() - worked}
        say(json.dumps(took | {"bytes": most, "n": n}))
        return
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        with patch("os.fsync"):
            write(root, scale=asked.runs)
        found: dict[str, list[dict[str, Any]]] = {}
        for _ in range(asked.rounds):
            for name in ("plan", "table", "study", "lines"):
                found.setdefault(name, []).append(measured(name, root=root, scale=asked.runs))
                say(f"{name}: {found[name][-1]}")
    result: dict[str, Any] = {"machine": rounds.machine("polars"), "runs": int(asked.runs), "parts": {}}
    for name, listed in found.items():
        best = min(listed, key=lambda one: one["seconds"])
        result["parts"][name] = {
            key: float(f"{best[key]:.3g}") for key in ("seconds", "processor", "bytes")
        } | {"rows": best["n"]}
    values = {
        name: [one["processor"] / one["n"] for one in listed]
        for name, listed in found.items()
        if name in ("table", "lines")
    }
    ratio = rounds.Compared(values).ratio("lines", to="table")
    result["times as fast as line by line, processor"] = rounds.estimate(ratio)
    rounds.save("ten_thousand_runs", result)
    say(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
