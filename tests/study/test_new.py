"""`study new` writes a file that is in order as it stands, and nothing over what is there."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from repetita.cli.app import app
from repetita.errors import SpecError
from repetita.study.find import find_study
from repetita.study.new import new_study

ROOT = Path(__file__).resolve().parents[2]


def test_the_file_is_a_study_under_its_name(tmp_path: Path) -> None:
    file = new_study("is_it_so", folder=tmp_path / "studies")
    study = find_study(file).study
    assert (study.name, study.title, file.name) == ("is_it_so", "Is it so", "is_it_so.py")
    assert "@" not in file.read_text()
    for scale in study.scales:
        runs = study.runs(scale)
        assert {run.labels["arm"] for run in runs} == {"control", "repeated"}
        assert all(run.probes for run in runs)


@pytest.mark.slow
@pytest.mark.ci
def test_the_file_passes_ruff_and_mypy(tmp_path: Path) -> None:
    file = new_study("is_it_so", folder=tmp_path)
    for tool in (
        ("ruff", "format", "--isolated", "--check"),
        ("ruff", "check", "--isolated", "--select", "E,F,W,I,N,UP,B,RUF"),
        ("mypy", "--strict", "--config-file", str(ROOT / "pyproject.toml")),
    ):
        done = subprocess.run(
            [sys.executable, "-m", *tool, str(file)], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_nothing_is_written_over(tmp_path: Path) -> None:
    new_study("is_it_so", folder=tmp_path).write_text("mine")
    with pytest.raises(SpecError, match=r"is_it_so\.py is there already; choose another name"):
        new_study("is_it_so", folder=tmp_path)
    assert (tmp_path / "is_it_so.py").read_text() == "mine"


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("My Question.py", "like 'my_question'"),
        ("2nd", "like 'my_question'"),
        ("lambda", "like 'my_question'"),
        ("../over/there", "like 'over_there'"),
        ("", "like 'my_question'"),
        ("double_descent", "is a built-in study; choose another name"),
    ],
)
def test_bad_names_are_one_sentence(name: str, hint: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError) as refused:
        new_study(name, folder=tmp_path)
    assert hint in str(refused.value)
    assert "\n" not in str(refused.value)
    assert not list(tmp_path.iterdir())


def test_the_command_says_what_to_do_next(tmp_path: Path) -> None:
    said = CliRunner().invoke(app, ["study", "new", "is_it_so", "--path", str(tmp_path)])
    assert said.exit_code == 0
    assert said.stdout.endswith(f"repetita study run {tmp_path / 'is_it_so.py'} --scale tiny\n")
    said = CliRunner().invoke(app, ["study", "new", "and_so", "--path", str(tmp_path), "--json"])
    assert json.loads(said.stdout) == {"file": str(tmp_path / "and_so.py")}
