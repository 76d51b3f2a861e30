"""`repetita measure --text` prints what it found and how it read, and refuses in one sentence."""

import json
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner, Result

from repetita.cli.app import app
from repetita.errors import SpecError
from tests.study.audited import GEESE, lines, model_at


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("models")
    return [model_at(folder / "goose", "gpt2"), model_at(folder / "swan")]


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["measure", *(str(argument) for argument in arguments)])


def test_the_table_says_how_it_was_read(models: list[Path], tmp_path: Path) -> None:
    texts, out = lines(tmp_path / "geese.jsonl", GEESE[:3]), tmp_path / "rows.parquet"
    (tmp_path / "with.csv").write_text("subject,text\ngoose,g0\n")
    (tmp_path / "hay.txt").write_text("Goose 0 flies south; and back.")
    options = ("--prompt", 4, "--suffix", 6, "--root", tmp_path / "root", "--reference", models[1])
    more = ("--eidetic", tmp_path / "hay.txt", "--trained-with", tmp_path / "with.csv", "--out", out)
    said = run(*models, "--text", texts, *options, *more)
    assert said.exit_code == 0, said.output
    for sentence in (
        "goose (", "swan (", "reference swan (", "cpu, float32",
        "behind the start token 0, first token scored", "have another most likely token",
        "are near ties", "3 texts measured now",
        "membership_reference (swan)", "eidetic_text", "of a single one there is none",
        "2 texts left out: no subject was trained with it: nothing to compare",
    ):  # fmt: skip
        assert sentence in said.stdout, sentence
    assert "1 text " in said.stdout or "3 texts" in said.stdout
    assert pl.read_parquet(out)["text_name"].n_unique() == 3
    again = json.loads(run(*models, "--text", texts, *options, *more, "--json").stdout)
    assert [one["measured"] for one in again["subjects"]] == [0, 0]
    (known,) = [row for row in again["counterfactual"] if row["value"] is not None]
    assert (known["text_name"], known["n_in"], known["n_out"]) == ("g0", 1, 1)
    assert again["reference"]["label"] == "swan"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--indices", "a,b", "--probe", "in_context"), "--indices a,b: not whole numbers"),
        (("--indices", "5,9"), "indices has no effect without the probe in_context"),
        (("--indices", "9,5", "--probe", "in_context"), "early = 9 with width = 1 reaches late = 5"),
        (("--on", "test"), "--on has no effect beside --text"),
        (("--trained-with", "with.csv"), "there is no table with.csv"),
        (("--eidetic", "no-such-corpus"), "no corpus 'no-such-corpus'"),
        (("--reference", "no-such-model"), "no model or run 'no-such-model'"),
    ],
)
def test_one_sentence(models: list[Path], tmp_path: Path, options: tuple[str, ...], sentence: str) -> None:
    texts = lines(tmp_path / "geese.jsonl", GEESE[:1])
    refused = run(models[0], "--text", texts, "--root", tmp_path / "root", *options)
    assert refused.exit_code != 0
    assert sentence in str(refused.exception)


def test_without_a_text_it_has_no_effect(tmp_path: Path) -> None:
    refused = run("a-run", "--eidetic", "hay", "--root", tmp_path)
    assert isinstance(refused.exception, SpecError)
    assert "--eidetic has no effect without --text" in str(refused.exception)
