"""`repetita corpus` builds, shows, verifies and counts."""

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import datasets
import pytest
import tokenizers
from typer.testing import CliRunner, Result

from repetita.cli.app import app
from repetita.errors import CorpusError, DamagedError, SpecError


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


def test_strings_are_counted_in_documents(folder: Path) -> None:
    wanted = folder / "wanted.jsonl"
    wanted.write_text("".join(json.dumps({"text": text}) + "\n" for text in ("says\na", "a little. Doc")))
    asked = ("--string", "Document 1 ", "--strings", wanted)
    rows = json.loads(run("corpus", "count", folder / "texts", *asked, "--json").stdout)
    assert [(row["string"], row["documents"], row["of"], row["occurrences"]) for row in rows] == [
        ("Document 1 ", 1, 20, 8),
        ("says\na", 0, 20, 0),
        ("a little. Doc", 20, 20, 140),
    ]
    assert "140" in run("corpus", "count", folder / "texts", *asked).stdout
    said = run("corpus", "count", folder / "texts")
    assert isinstance(said.exception, CorpusError)


def test_a_split_of_parquet_cut_at_its_documents(tmp_path: Path) -> None:
    rows = {"body": [f"Document {number} says a little. " * 8 for number in range(30)]}
    splits = {"train": datasets.Dataset.from_dict(rows), "test": datasets.Dataset.from_dict({"body": ["x"]})}
    datasets.DatasetDict(splits).save_to_disk(tmp_path / "saved")
    cuts = ("--tokenizer", "bytes", "--length", 32, "--breaks", "document", "--text-field", "body")
    options = (tmp_path / "saved", *cuts, "--root", tmp_path / "out")
    card = json.loads(run("corpus", "build", *options, "--split", "train", "--json").stdout)
    assert (card["split"], card["n_documents"]) == ("train", 30)
    assert card["tokenizer"] == {"kind": "bytes", "vocab_size": 257}
    said = run("corpus", "show", *options)
    assert "tokenizer: kind bytes, vocab_size 257" in said.stdout
    assert "source: saved" in said.stdout
    assert not said.stderr, "it is there already"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--tokenizer", "byte"), "no tokenizer 'byte': it is neither hf:NAME nor a path"),
        (("--tokenizer", "hf:gpt2", "--vocab-size", 300), "--vocab-size has no effect"),
        (("--subset", "en"), "subset = 'en' has no effect"),
        (("--split", "test"), "which has no splits"),
    ],
)
def test_an_option_without_effect(folder: Path, options: tuple[object, ...], said: str) -> None:
    refused = run("corpus", "build", folder / "texts", *options, "--root", folder / "out")
    assert isinstance(refused.exception, SpecError)
    assert said in str(refused.exception)
    assert not (folder / "out").exists()


@pytest.mark.parametrize(
    ("source", "options", "said"),
    [
        ("texts", ("--engine", "rey"), "no engine is named 'rey'"),
        ("texts", ("--engine", "slurm"), "--engine slurm builds no corpora; say --engine ray or local"),
        ("texts", ("--address", "h:1"), "--address has no effect with --engine local"),
        ("texts", ("--processes", 0), "processes = 0 is no number of processes"),
        ("sotu", ("--engine", "ray"), "--engine ray has no effect on 'sotu', which is not made of files"),
    ],
)
def test_who_builds_is_checked(
    folder: Path, monkeypatch: pytest.MonkeyPatch, source: str, options: tuple[object, ...], said: str
) -> None:
    monkeypatch.chdir(folder)
    refused = run("corpus", "build", source, *options, "--root", folder / "out")
    assert isinstance(refused.exception, SpecError)
    assert said in str(refused.exception)
    assert not (folder / "out").exists()


def test_processes_change_nothing(folder: Path) -> None:
    options = ("--tokenizer", "bytes", "--length", 32, "--json")
    cards = [
        run("corpus", "build", folder / "texts", *options, *more, "--root", folder / str(n)).stdout
        for n, more in enumerate([(), ("--processes", 1), ("--processes", 3)])
    ]
    assert len({json.loads(card)["fingerprint"] for card in cards}) == 1


def test_a_tokenizer_by_its_path(folder: Path) -> None:
    library = tokenizers.Tokenizer(tokenizers.models.WordLevel({"[UNK]": 0, "says": 1}, unk_token="[UNK]"))
    library.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    library.save(str(folder / "tokenizer.json"))
    options = (folder / "texts", "--tokenizer", folder / "tokenizer.json", "--length", 8)
    card = json.loads(run("corpus", "build", *options, "--root", folder / "out", "--json").stdout)
    assert card["tokenizer"]["kind"] == "hf"
    assert card["tokenizer"]["vocab_size"] == 3


def on_terminal(*arguments: object, **settings: str) -> str:
    """What the command writes to a terminal on stderr."""
    ours, theirs = pty.openpty()
    environment = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "TERM")}
    done = subprocess.run(
        [sys.executable, "-m", "repetita", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=theirs,
        env=environment | {"TERM": "xterm", **settings},
        check=True,
    )
    assert b"scored_tokens" in done.stdout
    os.write(theirs, b"\0")
    written = b""
    while not written.endswith(b"\0"):
        written += os.read(ours, 1 << 16)
    os.close(ours)
    os.close(theirs)
    return written.decode()


def test_a_terminal_is_shown_a_bar(folder: Path) -> None:
    build = ("corpus", "build", folder / "texts", "--tokenizer", "bytes", "--length", 32, "--root")
    drawn = on_terminal(*build, folder / "1")
    assert "tokenizing" in drawn
    assert "━" in drawn
    assert "\x1b[3" in drawn, "in colour"
    assert not re.search(r"\x1b\[(3|4|9)\d", on_terminal(*build, folder / "2", NO_COLOR="1"))
    assert on_terminal("-q", *build, folder / "3") == "\0"


def test_a_set_that_is_not_there(folder: Path) -> None:
    said = run(
        "corpus", "show", folder / "texts", "--tokenizer", "bytes", "--set", "tst", "--root", folder / "out"
    )
    assert isinstance(said.exception, SpecError)
    assert "did you mean 'test'" in str(said.exception)
