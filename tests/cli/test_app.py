"""The command line as a whole: version, unknown verbs, control characters in a message."""

from importlib.metadata import version
from pathlib import Path

from repetita.cli.options import inert
from tests.study.places import repetita


def test_version_and_help(tmp_path: Path) -> None:
    assert repetita("--version", cwd=tmp_path).stdout == f"repetita {version('repetita')}\n"
    said = repetita("--help", cwd=tmp_path).stdout
    assert all(verb in said for verb in ("demo", "corpus", "train", "measure", "study"))
    assert "work" not in said.split()


def test_a_verb_with_a_typo(tmp_path: Path) -> None:
    said = repetita("sudy", cwd=tmp_path)
    assert said.returncode == 2
    assert "study" in said.stderr


def test_what_a_terminal_would_act_on_is_written_out(tmp_path: Path) -> None:
    assert inert("plain ü") == "plain ü"
    assert "\x1b" not in inert("\x1b[31mred")
    said = repetita("study", "plan", "\x1b[31mred", cwd=tmp_path)
    assert said.returncode == 2
    assert "\x1b" not in said.stderr


def test_the_root_comes_from_the_environment(tmp_path: Path, monkeypatch: object) -> None:
    import os
    import subprocess
    import sys

    said = subprocess.run(
        [sys.executable, "-m", "repetita", "corpus", "verify"],
        env=os.environ | {"REPETITA_ROOT": str(tmp_path / "elsewhere")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.returncode == 2
    assert "elsewhere" in said.stderr
