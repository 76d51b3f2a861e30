"""The command line in this process, and finished and broken runs to try it on."""

import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from repetita.cli import main
from repetita.corpus.sequences import compose
from repetita.study.single import train_run
from repetita.train import loop
from repetita.train.recipe import RunSpec
from tests.bad_input.worlds import BROKEN_AT, Said, Say, World, new_world


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Say:
    """The command line in this process, progress left out."""

    def say(*arguments: object) -> Said:
        monkeypatch.setattr(sys, "argv", ["repetita", "-q", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as exit_:
            code = int(exit_.code or 0)
        return Said(code, *capsys.readouterr())

    return say


@pytest.fixture(scope="session")
def done_once(tmp_path_factory: pytest.TempPathFactory) -> World:
    world = new_world(tmp_path_factory.mktemp("done"))
    train_run(RunSpec(**world.spec), root=world.root)
    return world


@pytest.fixture(scope="session")
def stopped_once(tmp_path_factory: pytest.TempPathFactory, done_once: World) -> World:
    folder = tmp_path_factory.mktemp("stopped")
    world = World(done_once.text, folder / "out", done_once.spec)

    def dying(batch: Any, sets: Any, **more: Any) -> Any:
        if batch.step == BROKEN_AT:
            raise KeyboardInterrupt
        return compose(batch, sets, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "compose", dying)
        with pytest.raises(KeyboardInterrupt):
            train_run(RunSpec(**world.spec), root=world.root, options=loop.Options(resume_every_seconds=0))
    return world


def _copy(world: World, folder: Path) -> World:
    shutil.copytree(world.root, folder / "out", copy_function=shutil.copy2)
    return world._replace(root=folder / "out")


@pytest.fixture
def done(done_once: World, tmp_path: Path) -> World:
    """A finished run, to be spoilt at will."""
    return _copy(done_once, tmp_path)


@pytest.fixture
def built(done: World) -> World:
    """A corpus and no run."""
    shutil.rmtree(done.root / "runs")
    return done


@pytest.fixture
def stopped(stopped_once: World, tmp_path: Path) -> World:
    """A run whose process died, to be spoilt at will."""
    return _copy(stopped_once, tmp_path)
