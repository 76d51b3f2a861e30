"""`repetita canaries make` writes a text and its key, and says where."""

import json
from pathlib import Path

from typer.testing import CliRunner, Result

from repetita.cli.app import app
from repetita.corpus.canaries import CanarySpec, read_canaries
from repetita.errors import SpecError


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=True)


def test_make(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("A line of text.\n" * 40)
    options = (tmp_path / "text.txt", tmp_path / "out", "--counts", "0,2", "--each", 3, "--digits", 5)
    said = run("canaries", "make", *options, "--prefix", "My code is", "--json")
    assert said.exit_code == 0, said.output
    made = json.loads(said.stdout)
    assert (made["canaries"], made["insertions"], made["documents"]) == (6, 6, 1)
    assert read_canaries(Path(made["key"])) == CanarySpec(
        counts=(0, 2), each=3, n_digits=5, prefix="My code is"
    )
    assert Path(made["texts"]).read_text().count("My code is") == 6
    again = run("canaries", "make", *options)
    assert isinstance(again.exception, SpecError)
    said = run("canaries", "make", tmp_path / "text.txt", tmp_path / "more", "--counts", 1)
    assert "8 canaries, written 8 times into 1 documents" in said.stdout
    assert isinstance(run("canaries", "make", *options, "--counts", "1;2").exception, SpecError)
