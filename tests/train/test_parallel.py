"""One run in several processes: the same batches and, but for the last bits, the same numbers as in one."""

import math
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from repetita.corpus.sequences import Corpus
from repetita.journal import folder
from repetita.journal.folder import read_journal
from repetita.journal.records import Reading
from repetita.model import checkpoint
from repetita.subject import Subject
from repetita.train.loop import Due, Options, train
from repetita.train.ranks import Team
from tests.train.conftest import MODEL, Make, journal, same, weights
from tests.train.processes import together

UNEVEN = {"batch_size": 5, "model": MODEL.edit(n_layer=2)}
CI = [pytest.mark.slow, pytest.mark.ci]
MASKED = {"batch_size": 5, "model": MODEL.edit(objective="masked", position="rotary", output="untied")}


@pytest.fixture
def scored(corpus: Corpus) -> Callable[..., Due]:
    """Loss on so many test sequences that several processes score some."""

    def measure(subject: Subject) -> Iterator[Reading]:
        test = corpus.sets["test"]
        loss = subject.score(test.rows(np.arange(300) % len(test))).loss
        yield Reading("loss", "test", float(loss.sum()), loss.size, None, {"sums": loss.sum(axis=1)})

    return lambda *steps: Due("5" * 12, "loss", frozenset(steps), measure)


def close(one: Path, other: Path, *, to: float = 1e-6) -> None:
    """Two runs have the same journals but for rounding, and their folders the same name."""
    assert one.name == other.name
    for mine, theirs in zip(journal(one)[0], journal(other)[0], strict=True):
        assert {**mine, "sets": 0, "gradient_norm": 0, "check": 0, "corruption": 0} == {
            **theirs, "sets": 0, "gradient_norm": 0, "check": 0, "corruption": 0
        }  # fmt: skip
        assert math.isclose(mine["gradient_norm"], theirs["gradient_norm"], rel_tol=10 * to)
        for name in ("sets", "corruption"):
            sums, others = mine.get(name, {}), theirs.get(name, {})
            assert sums.keys() == others.keys()
            for lane, (loss, _, n) in sums.items():
                assert n == others[lane][2] and math.isclose(loss, others[lane][0], rel_tol=to)
    measured = [list(read_journal(path, journal="measurements")) for path in (one, other)]
    for mine, theirs in zip(*measured, strict=True):
        assert math.isclose(mine.pop("value"), theirs.pop("value"), rel_tol=to)
        assert {**mine, "check": 0} == {**theirs, "check": 0}


@pytest.mark.parametrize(
    ("world", "kind", "micro_batch", "what"),
    [
        (2, "ddp", None, UNEVEN),
        (2, "fsdp2", 2, UNEVEN),
        pytest.param(4, "ddp", 1, UNEVEN, marks=pytest.mark.slow),
        pytest.param(4, "fsdp2", None, UNEVEN, marks=pytest.mark.slow),
        pytest.param(3, "ddp", 1, MASKED, marks=pytest.mark.slow),
        pytest.param(2, "fsdp2", None, MASKED, marks=pytest.mark.slow),
    ],
)
def test_any_world_and_micro_batch_read_the_same_batches(
    tmp_path: Path,
    spec: Make,
    corpus: Corpus,
    scored: Callable[..., Due],
    world: int,
    kind: str,
    micro_batch: int | None,
    what: dict[str, Any],
) -> None:
    given: dict[str, Any] = {"corpus": corpus, "probes": [scored(0, 6, 12)]}
    alone = train(spec(**what), root=tmp_path / "alone", **given).path
    options = Options(micro_batch=micro_batch)
    paths = []
    for name in ("one", "again"):
        ended = together(spec(**what), world, kind, root=tmp_path / name, options=options, **given)
        assert (ended.error, ended.codes) == ("", [0] * world) and ended.path is not None
        paths.append(ended.path)
    close(alone, paths[0])
    assert same(paths[0], paths[1], step=12)
    place = folder.read_header(paths[0])["device"]
    assert (place["world"], place["backend"], place["parallel"]) == (world, "gloo", kind)
    assert "world" not in folder.read_header(alone)["device"]


def killing(*, whom: int, at: int, pids: Path, signals: int = signal.SIGKILL) -> Due:
    """A probe that ends a process, by its rank, or all of them (-1)."""

    def measure(subject: Subject) -> Iterator[Reading]:
        there = {int(file.name): int(file.read_text()) for file in pids.iterdir()}
        for rank in sorted(there, reverse=True):
            if whom in (rank, -1):
                os.kill(there[rank], signals)
        return iter([Reading("killed", "test", 1.0, 1)])

    return Due("6" * 12, "killing", frozenset({at}), measure)


def known(pids: Path) -> Callable[[Team], None]:
    pids.mkdir()
    return lambda team: (pids / str(team.rank)).write_text(str(os.getpid())) and None  # type: ignore[func-returns-value]


@pytest.mark.parametrize(
    "lives",
    [
        [(2, "ddp", 1), (1, None, None)],
        pytest.param([(2, "fsdp2", 0), (4, "ddp", -1), (3, "fsdp2", None)], marks=CI),
        pytest.param([(1, None, 0), (4, "fsdp2", 2), (2, "ddp", None)], marks=pytest.mark.slow),
    ],
)  # fmt: skip
def test_killed_and_resumed_on_another_world(
    tmp_path: Path,
    spec: Make,
    corpus: Corpus,
    scored: Callable[..., Due],
    lives: list[tuple[int, str | None, int | None]],
) -> None:
    """Rank or ranks are killed at step 4, 8, ...; the last life ends the run."""
    given: dict[str, Any] = {"corpus": corpus, "probes": [scored(0, 6, 12)]}
    whole = train(spec(**UNEVEN), root=tmp_path / "whole", **given).path
    options = Options(resume_every_seconds=-1.0)
    for life, (world, kind, whom) in enumerate(lives):
        pids = tmp_path / f"{life}.pids"
        at_start = known(pids)
        probes = list(given["probes"])
        if whom is not None:
            probes.append(killing(whom=whom, at=4 * (life + 1), pids=pids))
        how = {"corpus": corpus, "root": tmp_path / "pieces", "options": options, "probes": probes}
        ended = together(spec(**UNEVEN), world, kind or "auto", at_start=at_start, **how)
        assert None not in ended.codes
        assert (ended.codes == [0] * world) == (whom is None), ended
        if whom not in (None, 0, -1):
            assert ended.error.startswith("EngineError") and "is gone" in ended.error, ended.error
    assert ended.path is not None
    mine = [line for line in read_journal(ended.path, journal="events") if line["kind"] == "resumed"]
    assert [line["step"] for line in mine] == [4 * (life + 1) - 1 for life in range(len(lives) - 1)]
    close(whole, ended.path)
    for name, value in checkpoint.load(checkpoint.checkpoint_path(ended.path, step=12)).model.items():
        expected = checkpoint.load(checkpoint.checkpoint_path(whole, step=12)).model[name]
        assert np.allclose(value, expected, atol=1e-5), name


def test_a_stop_signal_to_one_of_them_stops_all(
    tmp_path: Path, spec: Make, corpus: Corpus, probe: Callable[..., Due]
) -> None:
    pids = tmp_path / "pids"
    due = killing(whom=1, at=4, pids=pids, signals=signal.SIGTERM)
    given: dict[str, Any] = {"corpus": corpus, "root": tmp_path / "out"}
    ended = together(spec(), 2, "ddp", at_start=known(pids), probes=[due], **given)
    assert ended.error == "RunStopped: stopped by SIGTERM at step 5 of 12; run it again to continue"
    assert ended.codes == [143, 143]
    path = together(spec(), 2, "ddp", probes=[probe(12)], **given).path
    assert path is not None and folder.status(path) == "done"
    straight = together(spec(), 2, "ddp", corpus=corpus, root=tmp_path / "straight", probes=[probe(12)]).path
    assert straight is not None and weights(straight, 12) == weights(path, 12)
