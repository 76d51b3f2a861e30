"""Measurements that a finished run lacks: from kept checkpoints, else by training it once more."""

import shutil
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from repetita.corpus.sequences import Corpus
from repetita.errors import DamagedError, RunFolderError
from repetita.journal.disk import storage_errors
from repetita.journal.folder import Key, final_position, measured, read_journal
from repetita.journal.records import Event
from repetita.model import checkpoint
from repetita.train.options import Options
from repetita.train.recipe import RunSpec
from repetita.train.run import Due, Parent, Run

Follow = Callable[[Run, Sequence[Due], int], None]
"""Trains a run to a step, measuring what is due."""


def lacking(path: Path, *, probes: Sequence[Due], but: Collection[Key] = ()) -> list[Due]:
    """What of `probes` is neither in the journal of the run in `path` nor in `but`."""
    there = measured(path) | frozenset(but)
    rest = [
        probe._replace(
            steps=frozenset(step for step in probe.steps if (probe.fingerprint, step) not in there)
        )
        for probe in probes
    ]
    return [probe for probe in rest if probe.steps]


def measure_missing(
    path: Path,
    *,
    spec: RunSpec,
    corpus: Corpus,
    probes: Sequence[Due],
    options: Options,
    follow: Follow,
    parent: Parent | None = None,
) -> set[Key]:
    """Adds the measurements in `probes` that it lacks to the finished run in `path`.

    Steps with a checkpoint are measured there. For others the run is trained again in a folder inside
    its own, from `parent` where it starts from one, up to its first checkpoint after them, whose weights it
    must meet bit for bit (else RunFolderError). The journal grows by all or nothing: `done` is renewed last.
    Returns what failed.
    """
    run = Run.open(path, spec=spec, corpus=corpus, options=options, parent=parent)
    with run.folder:
        run.folder.truncate(final_position(path))
        probes = lacking(path, probes=probes)  # again, now that no other process can add to it
        kept = frozenset(checkpoint.steps_on_disk(path))
        damaged = set[int]()
        for step in sorted(frozenset[int]().union(*(probe.steps for probe in probes)) & kept):
            try:
                found = run.stored(path, step=step)
            except DamagedError as error:
                run.folder.write_event(Event(step, "damaged", str(error)))
                damaged.add(step)
                continue
            run.updater.load(found.model)
            run.place(found)
            for probe in probes:
                if step in probe.steps:
                    run.measure(probe)
        kept -= damaged
        rest = [probe._replace(steps=probe.steps - kept) for probe in probes if probe.steps - kept]
        if rest:
            _replay(run, rest, options=options, stops=kept, follow=follow)
        run.folder.finish("done")
    return run.failed


def regain_optimizer(
    path: Path,
    *,
    spec: RunSpec,
    corpus: Corpus,
    options: Options,
    follow: Follow,
    parent: Parent | None = None,
) -> None:
    """Trains a finished run once more to keep the optimizer that it ended with, where it was not kept.

    Raises RunFolderError where that does not give the run's last weights.
    """
    run = Run.open(path, spec=spec, corpus=corpus, options=options, parent=parent)
    with run.folder:
        run.folder.truncate(final_position(path))
        last = run.stored(path, step=spec.steps)
        if last.optimizer is None:
            with _again(run, options=options) as again:
                follow(again, (), spec.steps)
                _must_meet(again, run, step=spec.steps)
                optimizer = again.updater.optimizer_state()
                checkpoint.save(path, **last._replace(optimizer=optimizer)._asdict())


def _replay(
    run: Run, probes: Sequence[Due], *, options: Options, stops: frozenset[int], follow: Follow
) -> None:
    """Trains the run again up to a step in `stops` and adopts what was measured on the way."""
    last = max(step for probe in probes for step in probe.steps)
    stop = min((step for step in stops if step >= last), default=None)
    if stop is None:
        raise RunFolderError(
            f"{run.folder.path}: no intact checkpoint at or after step {last} to check a replay against; "
            f"delete the folder and train again"
        )
    with _again(run, options=options) as again:
        follow(again, probes, stop)
        position = again.folder.commit()
        _must_meet(again, run, step=stop)
        done: set[Key] = {(probe.fingerprint, step) for probe in probes for step in probe.steps}
        run.folder.adopt(again.folder.path, position=position, measured=done, steps=False)
        for line in read_journal(again.folder.path, journal="events"):
            if line["kind"] == "probe_failed":
                run.folder.write_event(Event(**line))


@contextmanager
def _again(run: Run, *, options: Options) -> Iterator[Run]:
    """The same run at its step 0 in a folder inside its own, which goes when all went well."""
    path = run.folder.path / ".replay"
    _remove(path)
    again = Run.open(path, spec=run.spec, corpus=run.corpus, options=options, parent=run.parent)
    with again.folder:
        again.folder.truncate(None)
        again.begin()
        yield again
    _remove(path)


def _must_meet(again: Run, run: Run, *, step: int) -> None:
    """Raises RunFolderError where a run that was trained again has other weights than it had."""
    expected = run.stored(run.folder.path, step=step).model
    state = again.updater.weights()
    if any(not torch.equal(state[name].cpu(), tensor) for name, tensor in expected.items()):
        raise RunFolderError(
            f"{run.folder.path}: training it again gave other weights at step {step}, so nothing was added; "
            f"use the machine and versions in run.json, or delete the folder and train again"
        )


def _remove(path: Path) -> None:
    if path.exists():
        with storage_errors(path):
            shutil.rmtree(path)
