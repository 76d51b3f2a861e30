"""One run in several processes: the same batches and, but for the last bits, the same numbers as in one."""

import errno
import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from safetensors.torch import load, save

from repetita.corpus.sequences import Corpus
from repetita.errors import StorageError
from repetita.journal import folder
from repetita.journal.folder import read_journal
from repetita.journal.records import Reading
from repetita.model import checkpoint, tensor_file
from repetita.model.config import count
from repetita.spec import canonical_json
from repetita.subject import Subject
from repetita.train import parallel
from repetita.train.loop import Due, Options, train
from repetita.train.ranks import Place, Team
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
    measured = [
        [line for line in read_journal(path, journal="measurements") if line["metric"] != "killed"]
        for path in (one, other)
    ]
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
    given: dict[str, Any] = {"corpus": corpus, "probes": [scored(0, 6, 12)], "keep": frozenset({0})}
    alone = train(spec(**what), root=tmp_path / "alone", **given).path
    options = Options(micro_batch=micro_batch)
    paths = []
    for name in ("one", "again"):
        ended = together(spec(**what), world, kind, root=tmp_path / name, options=options, **given)
        assert (ended.error, ended.codes) == ("", [0] * world) and ended.path is not None
        paths.append(ended.path)
    close(alone, paths[0])
    # The weights that a run begins with, as the same file, and any later file as one process writes it.
    first, last = (checkpoint.checkpoint_path(paths[0], step=step) / checkpoint.MODEL for step in (0, 12))
    assert first.read_bytes() == (alone / first.relative_to(paths[0])).read_bytes()
    assert last.read_bytes() == save(load(last.read_bytes()))
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
    """Has each process say which it is."""
    pids.mkdir()

    def at_start(team: Team) -> None:
        (pids / str(team.rank)).write_text(str(os.getpid()))

    return at_start


@pytest.mark.parametrize(
    "lives",
    [
        [(2, "ddp", 1), (1, None, None)],
        pytest.param([(2, "fsdp2", 0), (4, "ddp", -1), (3, "fsdp2", None)], marks=CI),
        pytest.param([(1, None, 0), (4, "fsdp2", 2), (2, "ddp", None)], marks=pytest.mark.slow),
        pytest.param([(3, "fsdp2", 1), (2, "fsdp2", None)], marks=pytest.mark.slow),
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
        how: dict[str, Any] = {"corpus": corpus, "root": tmp_path / "pieces", "options": options}
        kind = kind or "auto"
        ended = together(spec(**UNEVEN), world, kind, at_start=at_start, probes=probes, **how)
        assert None not in ended.codes
        assert (ended.codes == [0] * world) == (whom is None), ended
        if whom not in (None, 0, -1):
            assert ended.error.startswith("EngineError") and "is gone" in ended.error, ended.error
    assert ended.path is not None
    mine = [line for line in read_journal(ended.path, journal="events") if line["kind"] == "resumed"]
    # Under DDP rank 0 needs nobody to write a checkpoint, so that the last one is of the step of the kill.
    late = [kind == "ddp" and whom not in (0, -1) for _, kind, whom in lives[:-1]]
    assert [line["step"] for line in mine] == [4 * n + 3 + more for n, more in enumerate(late)]
    moves = [
        line["message"] for line in read_journal(ended.path, journal="events") if line["kind"] == "moved"
    ]
    assert len(moves) == len(lives) - 1 and f"world {lives[0][0]} -> " in moves[0]
    close(whole, ended.path)
    for name, value in checkpoint.load(checkpoint.checkpoint_path(ended.path, step=12)).model.items():
        expected = checkpoint.load(checkpoint.checkpoint_path(whole, step=12)).model[name]
        assert np.allclose(value, expected, atol=1e-5), name


def test_a_disk_that_is_full_in_the_middle_of_a_checkpoint(
    tmp_path: Path, spec: Make, corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others have given their parts of two tensors then, and end with rank 0's sentence."""
    real, asked = tensor_file._bytes_of, list[torch.Size]()

    def full(tensor: torch.Tensor) -> memoryview:
        asked.append(tensor.shape)
        if len(asked) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(tensor)

    monkeypatch.setattr(tensor_file, "_bytes_of", full)
    ended = together(spec(steps=1), 2, "fsdp2", corpus=corpus, root=tmp_path / "out")
    assert ended.error.startswith("StorageError") and "the disk is full" in ended.error
    assert ended.codes == [StorageError.exit_code] * 2
    assert not [*tmp_path.rglob("*.safetensors")]


@pytest.mark.parametrize("kind", ["ddp", pytest.param("fsdp2", marks=pytest.mark.slow)])
def test_a_stop_signal_to_one_of_them_stops_all(
    tmp_path: Path, spec: Make, corpus: Corpus, probe: Callable[..., Due], kind: str
) -> None:
    """And the run goes on to the bits of one that never stopped: three could add up in several orders."""
    pids = tmp_path / "pids"
    due = killing(whom=1, at=4, pids=pids, signals=signal.SIGTERM)
    given: dict[str, Any] = {"corpus": corpus, "root": tmp_path / "out"}
    ended = together(spec(), 3, kind, at_start=known(pids), probes=[due], **given)
    assert ended.error == "RunStopped: stopped by SIGTERM at step 5 of 12; run it again to continue"
    assert ended.codes == [143] * 3
    path = together(spec(), 3, kind, probes=[probe(12)], **given).path
    assert path is not None and folder.status(path) == "done"
    straight = together(spec(), 3, kind, corpus=corpus, root=tmp_path / "straight", probes=[probe(12)]).path
    assert straight is not None and weights(straight, 12) == weights(path, 12)


def test_the_kind_is_chosen_by_memory(spec: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    team = TeamOnPaper(Place(0, 2, 0, 2), "auto", "cpu")
    large = spec(model=MODEL.edit(n_layer=8, d_model=256, n_head=4))
    options = Options(team=team)  # type: ignore[arg-type]
    bytes_of = parallel.ddp_bytes(large, rows=2, options=options)
    assert bytes_of > 20 * count(large.model).total
    for less in ({"dtype": "bfloat16"}, {"recompute": True}):
        assert parallel.ddp_bytes(large, rows=512, options=options._replace(**less)) < parallel.ddp_bytes(
            large, rows=512, options=options
        )
    monkeypatch.setattr(parallel, "_memory", lambda team: bytes_of / 0.9 + 1)
    assert parallel.choose(large, options=options) == "ddp"
    monkeypatch.setattr(parallel, "_memory", lambda team: bytes_of / 0.9 - 1)
    assert parallel.choose(large, options=options) == "fsdp2"
    assert parallel.choose(large, options=options._replace(team=None)) is None
    monkeypatch.undo()
    assert parallel.choose(large, options=options) == "ddp"
    dropped = large.edit(recipe=large.recipe.edit(dropout=0.1))
    one = Options(team=TeamOnPaper(Place(0, 1, 0, 1), "auto", "cpu"))  # type: ignore[arg-type]
    assert parallel.choose(dropped, options=one) == "ddp"  # One process draws all masks.


class TeamOnPaper(NamedTuple):
    """As much of a team as a choice needs."""

    place: Place
    parallel: str
    device: str

    @property
    def world(self) -> int:
        world: int = self.place.world
        return world


@pytest.mark.parametrize("kind", ["gpt2", pytest.param("bert", marks=pytest.mark.slow)])
def test_somebody_elses_model(tmp_path: Path, kind: str) -> None:
    """GPT-2 has a plain output matrix; BERT a head whose gradients come early."""
    pytest.importorskip("transformers")
    from tests.train.pretrained import corpus_of, save_model, spec_of

    model = save_model(tmp_path / "model", kind)
    few = spec_of(model, steps=4, batch_size=5)
    corpus = corpus_of(few, tmp_path)
    alone = train(few, corpus=corpus, root=tmp_path / "alone").path
    ended = together(few, 2, "ddp", corpus=corpus, root=tmp_path / "two", options=Options(micro_batch=1))
    assert (ended.error, ended.codes) == ("", [0, 0]) and ended.path is not None
    close(alone, ended.path, to=1e-5)
    refused = together(few, 2, "fsdp2", corpus=corpus, root=tmp_path / "three")
    assert "shared by --parallel ddp only" in refused.error and refused.codes == [2, 2]


@pytest.mark.slow
@pytest.mark.ci
@pytest.mark.parametrize("kind", ["ddp", "fsdp2"])
def test_bfloat16_and_activations_computed_again(
    tmp_path: Path, spec: Make, corpus: Corpus, kind: str
) -> None:
    options = Options(dtype="bfloat16", recompute=True)
    given: dict[str, Any] = {"corpus": corpus, "options": options}
    alone = train(spec(**UNEVEN), root=tmp_path / "alone", **given).path
    ended = together(spec(**UNEVEN), 2, kind, root=tmp_path / "two", **given)
    assert (ended.error, ended.codes) == ("", [0, 0]) and ended.path is not None
    close(alone, ended.path, to=5e-3)
    place = folder.read_header(ended.path)["device"]
    assert (place["dtype"], place["recompute"], place["parallel"]) == ("bfloat16", True, kind)
    stored = checkpoint.load(checkpoint.checkpoint_path(ended.path, step=12)).model
    assert all(value.dtype == torch.float32 for value in stored.values())


@pytest.mark.slow
@pytest.mark.ci
def test_torchrun_from_the_command_line(tmp_path: Path, spec: Make) -> None:
    file = tmp_path / "spec.json"
    file.write_text(canonical_json(spec(**UNEVEN)))

    def run(*options: object) -> subprocess.CompletedProcess[str]:
        start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        command = [
            *start,
            "-m",
            "repetita",
            "train",
            str(file),
            "--root",
            str(tmp_path / "out"),
            *map(str, options),
        ]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)

    done = run("--parallel", "fsdp2", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)  # Rank 0 alone prints, or this would be no JSON.
    assert told["trained_steps"] == 12
    assert folder.read_header(Path(told["path"]))["device"]["parallel"] == "fsdp2"
    refused = run("--parallel", "fsdp")
    assert refused.returncode and refused.stderr.count("repetita: ") == 1
    assert "no way to share a run is named 'fsdp'; did you mean 'fsdp2'?" in refused.stderr
