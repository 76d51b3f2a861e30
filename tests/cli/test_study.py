"""The verbs of a study from the outside: what they print, their exit codes, what they do not import."""

import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner, Result

from repetita.cli.app import app
from tests.study.places import Place, repetita
from tests.test_layers import BLOCKED, command


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_list_names_every_study() -> None:
    listed = json.loads(run("study", "list", "--json").stdout)
    assert {"double_descent", "forgetting"} <= {one["name"] for one in listed}
    assert all(one["question"] and one["source"] and one["scales"] for one in listed)
    papers = {one["name"]: one for one in listed if "studies" in one}
    assert papers.keys() == {"memorization_paper", "repetition_paper"}
    assert all({"tiny", "laptop", "paper"} <= set(one["scales"]) for one in papers.values())
    shown = run("study", "list").stdout
    assert "double_descent" in shown
    assert "memorization_paper" in shown


def test_plan_in_words_and_as_json(place: Place) -> None:
    said = run("study", "plan", place.study, "--root", place.root, "-p", 2)
    assert said.exit_code == 0
    for part in (
        "Does it run?",
        "shared trunks",
        "5 runs (1 only as shared trunks), 0 complete",
        "0.1 nats with one",
        "Measuring, by probe",
    ):
        assert part in said.stdout
    assert "corpus" in said.stderr, "building a corpus is said"
    plan = json.loads(run("study", "plan", place.study, "--root", place.root, "--json").stdout)
    assert (plan["n_runs"], plan["n_present"], plan["training_tokens"]) == (5, 0, 2688)
    assert plan["measuring_tokens"] == sum(probe["tokens"] for probe in plan["probes"])
    assert {probe["name"] for probe in plan["probes"]} == {"test", "pairs"}
    assert not (place.root / "runs").exists()


def test_plan_says_what_would_be_replayed(done: Place) -> None:
    assert "nothing to do" in run("study", "plan", done.study, "--root", done.root).stdout
    done.edit("cadence=Every(n=6)", "cadence=Every(n=3)")
    said = run("study", "plan", done.study, "--root", done.root).stdout
    assert "steps of finished runs are trained again" in said


def test_running_a_study_that_is_done(done: Place) -> None:
    said = run("-q", "study", "run", done.study, "--root", done.root)
    assert said.exit_code == 0
    assert "0 runs done" in said.stdout
    assert "5 were there" in said.stdout
    outcome = json.loads(run("study", "run", done.study, "--root", done.root, "--json").stdout)
    assert (outcome["n_runs"], outcome["n_done"], outcome["failed"]) == (5, 0, [])


def test_report_prints_findings_and_where_the_page_is(done: Place) -> None:
    said = run("study", "report", done.study, "--root", done.root)
    assert "illustrated: The loss is above zero" in said.stdout
    assert said.stdout.splitlines()[-1].endswith("page.html")
    found = json.loads(run("study", "report", done.study, "--root", done.root, "--json").stdout)
    assert found["studies"][0]["findings"][0]["verdict"] == "illustrated"


@pytest.mark.parametrize("verb", ["plan", "run", "report"])
def test_mistakes_are_one_sentence_and_exit_code_2(verb: str, place: Place) -> None:
    for arguments, hint in (
        (("double_decent",), "did you mean 'double_descent'?"),
        ((place.study, "--scale", "tinny"), "did you mean 'tiny'?"),
    ):
        said = repetita("study", verb, *arguments, "--root", place.root, cwd=place.study.parent)
        assert said.returncode == 2
        assert not said.stdout
        assert hint in said.stderr
        assert len(said.stderr.splitlines()) == 1


def test_a_failed_run_is_exit_code_1(place: Place) -> None:
    said = repetita("study", "run", place.study, "--scale", "broken", "-p", 1, cwd=place.study.parent)
    assert said.returncode == 1
    (line,) = [line for line in said.stderr.splitlines() if line.startswith("failed: ")]
    assert "is nan at learning rate" in line
    assert "events.jsonl" in line
    assert "\x1b" not in said.stdout + said.stderr


@pytest.mark.slow
@pytest.mark.ci
def test_plan_and_report_never_reach_torch(done: Place) -> None:
    for verb in ("plan", "run", "report"):
        code = command(f"study {verb} {done.study} --root {done.root}")
        code = f"BLOCKED = ('torch', 'transformers')\n{BLOCKED}\n{code}"
        subprocess.run([sys.executable, "-c", code], check=True, timeout=60, capture_output=True)
