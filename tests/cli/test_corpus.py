"""`repetita corpus` builds, shows and verifies."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from repetita.cli.app import app
from repetita.errors import DamagedError, SpecError


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "texts").mkdir()
    for number in range(20):
        (tmp_path / "texts" / f"{number}.txt").write_text(f"Document {number} says a little. " * 8)
    return tmp_path


def test_build_show_and_verify(folder: Path) -> None:
    root = ("--root", folder / "out")
    options = (folder / "texts", "--tokenizer", "bytes", "--length", 32, *root)
    said = run("corpus", "build", *options)
    assert said.exit_code == 0
    assert "tokenizing" in said.stderr
    assert "scored_tokens" in said.stdout
    card = json.loads(run("corpus", "build", *options, "--json").stdout)
    assert card["n_documents"] == 20
    shown = json.loads(run("corpus", "show", *options, "--set", "test", "-n", 2, "--json").stdout)
    assert len(shown) == 2
    assert "Document" in shown[0]["text"]
    assert "intact" in run("corpus", "verify", *root).stdout
    tokens = next((folder / "out" / "corpora").glob("*/tokens.bin"))
    data = bytearray(tokens.read_bytes())
    data[100] ^= 1
    tokens.write_bytes(data)
    said = run("corpus", "verify", *root)
    assert isinstance(said.exception, DamagedError)
    assert "tokens.bin" in said.stdout


def test_a_set_that_is_not_there(folder: Path) -> None:
    said = run(
        "corpus", "show", folder / "texts", "--tokenizer", "bytes", "--set", "tst", "--root", folder / "out"
    )
    assert isinstance(said.exception, SpecError)
    assert "did you mean 'test'" in str(said.exception)
