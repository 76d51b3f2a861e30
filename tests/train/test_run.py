"""A killed run ends as one that never stopped; so does a fork; nothing damaged is taken up."""

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from repetita.corpus.sequences import Corpus
from repetita.corpus.treatment import Passes, SpecialBatch, Stream
from repetita.errors import RunFolderError, SpecError
from repetita.journal import folder
from repetita.journal.folder import read_journal
from repetita.model import checkpoint
from repetita.train.header import git_state, versions
from repetita.train.loop import Due, Options, train
from repetita.train.recipe import RunSpec
from tests.train.conftest import MODEL, Make, same, weights

EVERY_STEP = Options(resume_every_seconds=-1.0)
CALLS = ("write", "fsync", "replace", "rename", "unlink", "ftruncate", "mkdir", "rmdir")
"""Where the operating system is asked to change a file, and a kill can come before or after."""
KILLS = 36


def in_child(function: Callable[[], object]) -> int:
    """Runs `function` in a forked child; its exit code, 0 when it returned."""

    def work() -> None:
        function()
        os._exit(0)

    child = multiprocessing.get_context("fork").Process(target=work)
    child.start()
    child.join(120)
    assert child.exitcode is not None
    return child.exitcode


def count_down(calls: int) -> list[int]:
    """From now on, the process kills itself at the given call (0-based, two for each: before, after)."""
    seen = [0]

    def wrapped(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            seen[0] += 1
            if seen[0] - 1 == calls:
                os.kill(os.getpid(), signal.SIGKILL)
            result = original(*arguments, **options)
            seen[0] += 1
            if seen[0] - 1 == calls:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return call

    for name in CALLS:
        setattr(os, name, wrapped(getattr(os, name)))
    return seen


@pytest.fixture
def straight(tmp_path: Path, spec: Make, corpus: Corpus, probe: Callable[..., Due]) -> Path:
    """The run that never stopped."""
    return train(spec(), corpus=corpus, root=tmp_path / "straight", probes=[probe(0, 5, 12)], keep=KEEP).path


KEEP = frozenset({3, 8})


@pytest.fixture
def go(spec: Make, corpus: Corpus, probe: Callable[..., Due]) -> Callable[..., Path]:
    """Trains the same run in another root."""

    def run(root: Path, options: Options = EVERY_STEP) -> Path:
        due = [probe(0, 5, 12)]
        return train(spec(), corpus=corpus, root=root, probes=due, keep=KEEP, options=options).path

    return run


@pytest.mark.slow
@pytest.mark.ci
def test_killed_anywhere_it_ends_as_if_it_never_stopped(
    tmp_path: Path, straight: Path, go: Callable[..., Path]
) -> None:
    total = tmp_path / "total"

    def count() -> None:
        seen = count_down(-1)
        go(tmp_path / "counted")
        total.write_text(str(seen[0]))

    assert in_child(count) == 0
    points = int(total.read_text())
    assert points > 500
    draw = np.random.Generator(np.random.Philox(20))
    for attempt in range(KILLS):
        root = tmp_path / f"killed{attempt}"

        def killed(root: Path = root, at: int = int(draw.integers(points))) -> None:
            count_down(at)
            go(root)

        # Some are killed twice, the second time wherever the rest of the run has got to.
        kills = [in_child(killed) for _ in range(1 + attempt % 2)]
        assert kills[0] == -signal.SIGKILL
        path = go(root)
        assert same(straight, path, step=12), f"attempt {attempt}"
        assert all(weights(straight, step) == weights(path, step) for step in KEEP)
        assert checkpoint.steps_on_disk(path) == (3, 8, 12)
        assert checkpoint.steps_on_disk(path, kind="resume") == ()
        folder.verify(path)
        shutil.rmtree(root)


def test_killed_between_the_files_of_one_checkpoint(
    tmp_path: Path, straight: Path, go: Callable[..., Path]
) -> None:
    def killed_after(name: str, root: Path) -> Callable[[], None]:
        def work() -> None:
            original = os.replace

            def replace(source: Any, target: Any) -> None:
                original(source, target)
                parts = Path(target).parts
                if parts[-1] == name and "00000007" in parts[-2]:
                    os.kill(os.getpid(), signal.SIGKILL)

            os.replace = replace  # type: ignore[assignment]
            go(root)

        return work

    for name in ("model.safetensors", "optimizer.safetensors", "position.json"):
        root = tmp_path / name
        assert in_child(killed_after(name, root)) == -signal.SIGKILL
        path = next((root / "runs").iterdir())
        assert checkpoint.steps_on_disk(path, kind="resume")[-1] == 6
        assert go(root) == path
        assert same(straight, path, step=12)
        kinds = [line["kind"] for line in read_journal(path, journal="events")]
        assert kinds == ["resumed"]


TRAIN = """
import sys
from pathlib import Path
from repetita.corpus.sequences import open_corpus
from repetita.train.loop import Options, train
from repetita.train.recipe import RunSpec
spec = RunSpec.from_json(sys.argv[1])
corpus = open_corpus(spec.corpus, cache=Path(sys.argv[2]))
train(spec, corpus=corpus, root=Path(sys.argv[3]), options=Options(resume_every_seconds=-1.0))
"""


@pytest.mark.slow
def test_a_real_process_killed_again_and_again(tmp_path: Path, spec: Make, corpus: Corpus) -> None:
    long = spec(treatment=Stream(), steps=100)
    straight = train(long, corpus=corpus, root=tmp_path / "straight").path
    path = tmp_path / "killed" / "runs" / straight.name
    command = [
        sys.executable,
        "-c",
        TRAIN,
        long.model_dump_json(),
        str(corpus.path.parent),
        str(tmp_path / "killed"),
    ]
    for step in (7, 31, 90):
        child = subprocess.Popen(command)
        while max(checkpoint.steps_on_disk(path), default=0) < step:
            assert child.poll() is None
        child.kill()
        assert child.wait() == -signal.SIGKILL
        assert folder.status(path) == "unfinished"
    subprocess.run(command, check=True)
    assert same(straight, path, step=100)


@pytest.fixture
def stopped(tmp_path: Path, go: Callable[..., Path]) -> Path:
    """A run killed before its end, with two resume checkpoints (steps 9 and 10)."""

    def killed() -> None:
        original = os.replace

        def replace(source: Any, target: Any) -> None:
            if "00000011" in str(target):
                os.kill(os.getpid(), signal.SIGKILL)
            original(source, target)

        os.replace = replace  # type: ignore[assignment]
        go(tmp_path / "stopped")

    assert in_child(killed) == -signal.SIGKILL
    path = next((tmp_path / "stopped" / "runs").iterdir())
    assert checkpoint.steps_on_disk(path, kind="resume") == (9, 10)
    return path


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 4
    file.write_bytes(data)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-7])


@pytest.mark.parametrize("damage", [flip, cut])
@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "position.json"])
def test_a_damaged_checkpoint_is_passed_over(
    stopped: Path, straight: Path, go: Callable[..., Path], name: str, damage: Callable[[Path], None]
) -> None:
    damage(stopped / "checkpoints" / "00000010" / name)
    assert go(stopped.parents[1]) == stopped
    assert same(straight, stopped, step=12)
    events = list(read_journal(stopped, journal="events"))
    assert [(line["kind"], line["step"]) for line in events] == [("damaged", 9), ("resumed", 9)]
    assert name in events[0]["message"]


@pytest.mark.parametrize(
    "name", ["steps.jsonl", "measurements.jsonl", "items/0123456789ab-00000005.safetensors"]
)
def test_a_damaged_journal_is_not_continued(
    stopped: Path, straight: Path, go: Callable[..., Path], name: str
) -> None:
    flip(stopped / name)
    assert go(stopped.parents[1]) == stopped
    assert same(straight, stopped, step=12)
    kinds = [line["kind"] for line in read_journal(stopped, journal="events")]
    assert kinds[0] == "damaged"


def test_a_run_folder_of_another_run_is_refused(stopped: Path, go: Callable[..., Path]) -> None:
    header = json.loads((stopped / "run.json").read_text())
    del header["sha256"]
    (stopped / "run.json").write_text(json.dumps(header | {"fingerprint": "0"}))
    with pytest.raises(RunFolderError, match="holds run"):
        go(stopped.parents[1])


def test_a_second_process_is_refused(stopped: Path, go: Callable[..., Path]) -> None:
    with (
        folder.RunFolder.open(stopped, header={"fingerprint": folder.read_header(stopped)["fingerprint"]}),
        pytest.raises(RunFolderError, match="another process is writing"),
    ):
        go(stopped.parents[1])


def test_the_header_says_what_the_numbers_depend_on(straight: Path, corpus: Corpus) -> None:
    header = folder.read_header(straight)
    assert header["corpus"] == corpus.fingerprint
    assert header["versions"] == dict(versions())
    assert header["git"] == git_state()
    assert header["device"]["threads"] == 1
    seen = header["exposure"]["times_seen"]
    read = sum(int(times) * n for times, n in seen.items())
    assert read == header["exposure"]["slots"] == header["spec"]["steps"] * header["spec"]["batch_size"]
    assert str(Path.home()) not in (straight / "run.json").read_text()


SPECIAL = SpecialBatch(base=Passes(n_sequences=16), size=4, at=6)


def fork_of(spec: RunSpec, *, corpus: Corpus, root: Path, probes: list[Due], trunk: Path) -> Any:
    return train(spec, corpus=corpus, root=root, probes=probes, keep=KEEP, trunk=trunk)


@pytest.mark.parametrize("arm", ["special", "placebo"])
def test_a_fork_equals_the_straight_run(
    tmp_path: Path, spec: Make, corpus: Corpus, probe: Callable[..., Due], arm: str
) -> None:
    whole = spec(treatment=SPECIAL.edit(arm=arm))
    due = [probe(0, 5, 6, 12)]
    straight = train(whole, corpus=corpus, root=tmp_path / "straight", probes=due, keep=KEEP).path
    early = [probe(0, 2, 5, 6), probe(0, fingerprint="f" * 12)]
    trunk = train(
        whole.until(6),
        corpus=corpus,
        root=tmp_path / "forked",
        probes=early,
        keep=frozenset({3}),
        forkable=True,
    )
    forked = fork_of(whole, corpus=corpus, root=tmp_path / "forked", probes=due, trunk=trunk.path)
    assert (trunk.trained_steps, forked.trained_steps) == (6, 6)
    assert same(straight, forked.path, step=12)
    assert weights(straight, 3) == weights(forked.path, 3)
    assert [line["kind"] for line in read_journal(forked.path, journal="events")] == ["forked"]
    folder.verify(forked.path)


def test_a_fork_measures_what_its_trunk_did_not(
    tmp_path: Path, spec: Make, corpus: Corpus, probe: Callable[..., Due]
) -> None:
    whole = spec(treatment=SPECIAL)
    due = [probe(0, 5, 6, 12)]
    straight = train(whole, corpus=corpus, root=tmp_path / "straight", probes=due, keep=KEEP).path
    trunk = train(
        whole.until(6), corpus=corpus, root=tmp_path / "forked", keep=frozenset({3}), forkable=True
    ).path
    forked = fork_of(whole, corpus=corpus, root=tmp_path / "forked", probes=due, trunk=trunk).path
    assert same(straight, forked, step=12)


def test_what_is_no_trunk_of_this_run_is_not_started_from(
    tmp_path: Path, spec: Make, corpus: Corpus, probe: Callable[..., Due]
) -> None:
    whole = spec(treatment=SPECIAL)
    seed = train(whole.until(6).edit(seed=1), corpus=corpus, root=tmp_path, forkable=True).path
    plain = train(whole.until(6), corpus=corpus, root=tmp_path).path
    for number, trunk in enumerate([seed, plain, tmp_path / "nothing"]):
        root = tmp_path / str(number)
        outcome = fork_of(whole, corpus=corpus, root=root, probes=[], trunk=trunk)
        assert outcome.trained_steps == 12
        assert [line["kind"] for line in read_journal(outcome.path, journal="events")] == ["straight"]


def test_a_damaged_trunk_is_not_started_from(tmp_path: Path, spec: Make, corpus: Corpus) -> None:
    whole = spec(treatment=SPECIAL)
    trunk = train(whole.until(6), corpus=corpus, root=tmp_path, keep=frozenset({3}), forkable=True).path
    flip(trunk / "checkpoints" / "00000006" / "optimizer.safetensors")
    outcome = fork_of(whole, corpus=corpus, root=tmp_path, probes=[], trunk=trunk)
    assert outcome.trained_steps == 12
    kinds = [line["kind"] for line in read_journal(outcome.path, journal="events")]
    assert kinds == ["damaged", "straight"]


def test_a_model_that_cannot_read_the_corpus_is_refused(tmp_path: Path, spec: Make, corpus: Corpus) -> None:
    for model, what in (
        (MODEL.edit(vocab_size=100), "vocab_size = 100"),
        (MODEL.edit(context=8), "context = 8"),
    ):
        with pytest.raises(SpecError, match=what):
            train(spec(model=model, treatment=Stream()), corpus=corpus, root=tmp_path)
    assert not (tmp_path / "runs").exists()
