"""`repetita fit` as a stranger meets it: any kind of table, the promised JSON, mistakes in one sentence."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from repetita.cli import main

KEYS = ["law", "objective", "r2", "n", "params", "optima", "warnings"]


def run(*arguments: str) -> int:
    """The command as the shell starts it; its exit code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["repetita", "fit", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
    return int(ended.value.code or 0)


def chinchilla(*, n: int = 30, noise: float = 0.0) -> pl.DataFrame:
    """Runs about loss = 1.8 + 480 / params^0.35 + 2100 / tokens^0.37."""
    rng = np.random.default_rng(0)
    params, tokens = 10 ** rng.uniform(7.5, 10, n), 10 ** rng.uniform(9, 11.5, n)
    loss = (1.8 + 480 / params**0.35 + 2100 / tokens**0.37) * np.exp(noise * rng.normal(0, 1, n))
    return pl.DataFrame({"params": params, "tokens": tokens, "unique_tokens": tokens, "loss": loss})


def written(table: pl.DataFrame, path: Path) -> str:
    if path.suffix == ".csv":
        table.write_csv(path)
    elif path.suffix == ".jsonl":
        table.write_ndjson(path)
    else:
        table.write_parquet(path)
    return str(path)


def fitted(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert run(*arguments, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found) == KEYS
    assert all(set(one) == {"value", "low", "high"} for one in found["params"].values())
    assert all(set(one) == {"objective", "params"} for one in found["optima"])
    assert found["optima"][0]["objective"] == found["objective"]
    assert all(list(one["params"]) == list(found["params"]) for one in found["optima"])
    return dict(found)


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_a_table_of_any_kind_and_other_names(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = chinchilla(noise=0.003).rename({"params": "Model Size", "loss": "val"})
    path = written(table, tmp_path / f"runs.{kind}")
    options = ["--params", "Model Size", "--loss", "val", "--bootstrap", "100", "--seed", "3"]
    found = fitted(capsys, "chinchilla", path, *options)
    assert (found["law"], found["n"]) == ("chinchilla", 30)
    assert list(found["params"]) == ["E", "A", "B", "alpha", "beta"]
    for one in found["params"].values():
        assert one["low"] < one["value"] < one["high"]


def test_the_seed_is_that_of_the_draws(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(chinchilla(noise=0.003), tmp_path / "runs.csv")
    first, again, other = (fitted(capsys, "power", path, "--seed", seed) for seed in "112")
    assert first == again
    assert first["params"]["alpha"]["low"] != other["params"]["alpha"]["low"]
    assert first["params"]["alpha"]["value"] == other["params"]["alpha"]["value"]


def test_runs_dropped_parameters_fixed_and_tied(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two diverged runs would move the law; without them it is the exact one."""
    table = chinchilla()
    worst = table.with_columns(loss=pl.Series([9.0, *table["loss"][1:-1], 7.0]))
    path = written(worst, tmp_path / "runs.csv")
    found = fitted(capsys, "chinchilla", path, "--drop-worst", "2", "--bootstrap", "0")
    assert found["n"] == 28
    assert found["params"]["alpha"] == {"value": pytest.approx(0.35, rel=1e-5), "low": None, "high": None}
    options = ["--drop-worst=2", "--fix=E=1.8", "--fix=A=480", "--tie=alpha=beta", "--bootstrap=0"]
    held = fitted(capsys, "chinchilla", path, *options)["params"]
    assert held["E"] == {"value": 1.8, "low": 1.8, "high": 1.8}
    assert held["A"] == {"value": 480.0, "low": 480.0, "high": 480.0}
    assert held["alpha"] == held["beta"]


def test_a_published_law_is_judged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = chinchilla(noise=0.01)
    options = [f"--fix={name}" for name in ("E=1.8", "A=480", "B=2100", "alpha=0.35", "beta=0.37")]
    found = fitted(capsys, "chinchilla", written(table, tmp_path / "runs.csv"), *options)
    size = np.abs(np.log(table["loss"]) - np.log(chinchilla()["loss"])).to_numpy()
    huber = np.where(size <= 1e-3, size**2 / 2, 1e-3 * (size - 0.5e-3))
    assert found["objective"] == pytest.approx(float(huber.sum()), rel=1e-9)


def test_a_person_reads_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(chinchilla(n=8), tmp_path / "runs.csv")
    assert run("power", path, "--fix", "E=1.8", "--bootstrap", "0") == 0
    said = capsys.readouterr()
    lines = said.out.splitlines()
    assert lines[0] == "loss = E + A / params^alpha"
    assert lines[1].split() == ["parameter", "value", "95%", "interval"]
    assert any(line.split() == ["E", "1.8", "fixed"] for line in lines)
    assert lines[-1].startswith("objective ") and lines[-1].rstrip().endswith("n = 8")


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["powr", "{ok}"], "there is no law 'powr'; did you mean 'power'?"),
        (["band", "{ok}"], "no column 'passes' (--passes names another)"),
        (["power", "{ok}", "--loss", "lost"], "no column 'lost'; did you mean 'loss'?"),
        (["power", "{ok}", "--tokens", "tokens"], "the law 'power' reads no tokens"),
        (["power", "{ok}", "--drop-worst", "30"], "cannot drop the 30 worst of 30 rows"),
        (["power", "{ok}", "--drop-worst", "28"], "2 free parameters need 3 runs, got 2; give more"),
        (["power", "{ok}", "--fix", "beta=1"], "cannot fix 'beta'"),
        (["power", "{ok}", "--fix", "alpha"], "--fix takes name=value"),
        (["power", "{ok}", "--fix", "A=1", "--fix", "A=2"], "names 'A' twice"),
        (["chinchilla", "{ok}", "--tie", "alpha=gamma"], "cannot tie 'gamma'"),
        (["chinchilla", "{ok}", "--tie", "alpha"], "as in alpha=beta; got 'alpha'"),
        (["power", "{ok}", "--bootstrap", "-1"], "give 0 or more"),
        (["power", "{nan}"], "'loss' has nan in row 1"),
        (["power", "{text}"], "no number, 'low' in row 1"),
        (["power", "{zero}"], "'loss' has 0 in row 1; the law needs values above 0"),
        (["power", "{empty}"], "is empty; give a table"),
        (["power", "{ok}.txt"], "there is no file"),
    ],
)
def test_mistakes_are_one_sentence(
    arguments: list[str], hint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = {"ok": written(chinchilla(), tmp_path / "ok.csv")}
    for name, content in {"nan": "nan", "text": "low", "zero": "0"}.items():
        paths[name] = str(tmp_path / f"{name}.csv")
        Path(paths[name]).write_text(f"params,loss\n1,{content}\n2,3\n3,3\n4,3\n")
    paths["empty"] = str(tmp_path / "empty.csv")
    Path(paths["empty"]).write_text("")
    assert run(*(one.format(**paths) for one in arguments)) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("repetita: ") and said.err.count("\n") == 1
    assert hint in said.err
