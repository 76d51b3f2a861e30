"""Workers change nothing but the time, and a kill at any moment costs a few seconds of work."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from repetita import seeds
from repetita.corpus import building as module
from repetita.corpus import layout, workers
from repetita.corpus.building import build_shards
from repetita.corpus.source import Document
from repetita.errors import CorpusError
from tests.corpus.built import BPE, BYTES, hashes, mixed, small

__all__ = ["small"]

PROGRAM = """
import sys
from pathlib import Path
from repetita.corpus import building, layout
from tests.corpus.built import BPE, BYTES, mixed

building.IN_PROCESS_BYTES, building.COMMIT_SECONDS = 3000, 0.0
layout.STRETCH_BYTES, layout.LONG_BYTES, layout.WINDOW_BYTES, layout.NEIGHBOURS = 700, 1500, 400, 20
spec = {"bytes": BYTES, "bpe": BPE}[sys.argv[2]]
commit = building._Build.commit

def counted(self):
    commit(self)
    print("commit", flush=True)

building._Build.commit = counted
building.build_shards(Path(sys.argv[1]), source=mixed(), tokenizer=spec, workers=2)
"""


def killed_after(path: Path, kind: str, n_commits: int, seconds: float) -> bool:
    """Starts a build and kills it so long after so many commits; whether it was killed before its end."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(path), kind],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    assert process.stdout is not None
    for _ in range(n_commits):
        process.stdout.readline()
    time.sleep(seconds)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return process.returncode == -signal.SIGKILL


def check_killed_builds(tmp_path: Path, n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """n kills, each at a moment drawn anew; what is built in the end is what an uninterrupted build makes."""
    drawn = seeds.generator(0, "kills")
    gone_on = 0
    skip = layout.Layout.skip

    def spy(self: layout.Layout, documents: Iterator[Document]) -> bool:
        nonlocal gone_on
        gone_on += self.n_documents > 0
        return skip(self, documents)

    monkeypatch.setattr(layout.Layout, "skip", spy)
    for number in range(n):
        kind = ("bytes", "bpe")[number % 2]
        spec = {"bytes": BYTES, "bpe": BPE}[kind]
        path = tmp_path / f"killed{number}"
        moment = int(drawn.integers(1, 60)), float(drawn.random() * 0.01)
        if killed_after(path, kind, *moment):
            assert not path.exists()
        state = path.parent / f".{path.name}.building" / "state.json"
        gone_on += state.exists() and json.loads(state.read_text())["laid_out"]
        shards = build_shards(path, source=mixed(), tokenizer=spec)
        whole = build_shards(tmp_path / kind, source=mixed(), tokenizer=spec)
        assert hashes(shards) == hashes(whole)
        assert shards.manifest == whole.manifest
        assert not state.parent.exists()
    assert gone_on


def test_a_killed_build_goes_on(tmp_path: Path, small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    check_killed_builds(tmp_path, 3, monkeypatch)


@pytest.mark.slow
def test_builds_killed_at_many_moments_go_on(
    tmp_path: Path, small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_killed_builds(tmp_path, 20, monkeypatch)


def test_without_workers_everything_is_encoded_here(
    tmp_path: Path, small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(module.log, "warning", lambda text, *values: said.append(text % values))
    whole = build_shards(tmp_path / "whole", source=mixed(), tokenizer=BYTES, workers=1)
    monkeypatch.setattr(workers.sys, "executable", str(tmp_path / "none"))  # type: ignore[attr-defined]
    shards = build_shards(tmp_path / "built", source=mixed(), tokenizer=BYTES, workers=2)
    assert hashes(shards) == hashes(whole)
    assert len(said) == 1 and "no worker can be started" in said[0]


def test_a_worker_that_is_killed_is_named_and_the_build_goes_on(
    tmp_path: Path, small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = (
        "from repetita.corpus import encoding\n"
        "pack, left = encoding.pack, [5]\n"
        "def ending(stretch):\n"
        "    left[0] -= 1\n"
        "    if not left[0]: raise SystemExit(3)\n"
        "    return pack(stretch)\n"
        "encoding.pack = ending\n"
        "encoding.serve()"
    )
    with monkeypatch.context() as patch:
        patch.setattr(module, "PROGRAM", program)
        patch.setattr(module, "COMMIT_SECONDS", 0.0)
        with pytest.raises(CorpusError, match=r"reads text ended with status 3 .*build again to go on"):
            build_shards(tmp_path / "built", source=mixed(), tokenizer=BYTES, workers=2)
    assert (tmp_path / ".built.building" / "state.json").exists()
    shards = build_shards(tmp_path / "built", source=mixed(), tokenizer=BYTES)
    assert hashes(shards) == hashes(build_shards(tmp_path / "whole", source=mixed(), tokenizer=BYTES))


def test_a_worker_loads_nothing_heavy() -> None:
    program = "import json, sys; import repetita.corpus.encoding; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not set(json.loads(done.stdout)) & {
        "torch",
        "transformers",
        "datasets",
        "pyarrow",
        "polars",
        "scipy",
    }
