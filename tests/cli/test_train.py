"""`repetita train` and `repetita measure`: one run, and one checkpoint of it."""

import json

from typer.testing import CliRunner, Result

from repetita.cli.app import app
from repetita.corpus.document_ids import DocumentIds
from repetita.corpus.treatment import Passes
from repetita.errors import RunFolderError, SpecError
from repetita.spec import canonical_json
from tests.study.places import Place


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_train_then_measure(place: Place) -> None:
    spec = place.portion().planned[2].spec
    file = place.study.parent / "spec.json"
    file.write_text(canonical_json(spec))
    trained = json.loads(run("train", file, "--root", place.root, "--json").stdout)
    assert trained["trained_steps"] == 12
    assert {row["on"] for row in trained["last"]} == {"test", "repeated"}
    again = run("train", file, "--root", place.root)
    assert "0 of 12 steps trained now" in again.stdout

    name = trained["path"].rpartition("/")[2]
    moved = ("--source", spec.corpus.source)
    rows = json.loads(run("measure", name, "--on", "repeated", *moved, "--root", place.root, "--json").stdout)
    expected = {row["metric"]: row["value"] for row in trained["last"] if row["on"] == "repeated"}
    assert {row["metric"]: row["value"] for row in rows} == {
        row["metric"]: expected[row["metric"]] for row in rows
    }
    wrong = run("measure", name, "--step", 5, *moved, "--root", place.root)
    assert isinstance(wrong.exception, RunFolderError)
    assert "kept: 12" in str(wrong.exception)
    missing = run("measure", name[:-1], "--root", place.root)
    assert isinstance(missing.exception, RunFolderError)
    assert f"did you mean '{name}'" in str(missing.exception)


def test_document_ids(place: Place) -> None:
    plain = place.portion().planned[0].spec.edit(treatment=Passes(n_sequences=8))
    spec = plain.edit(model=plain.model.edit(vocab_size=257 + 8, context=16 + 13), document_ids=DocumentIds())
    file = place.study.parent / "spec.json"
    file.write_text(canonical_json(spec))
    trained = json.loads(run("train", file, "--root", place.root, "--json").stdout)
    name, moved = trained["path"].rpartition("/")[2], ("--source", spec.corpus.source)
    assert "passes-prepended" in name
    sets = ("--on", "train", "--on", "train/plain", "--on", "train/drawn")
    rows = json.loads(run("measure", name, *sets, *moved, "--root", place.root, "--json").stdout)
    losses = {row["on"]: row["value"] for row in rows if row["metric"] == "loss"}
    assert len(set(losses.values())) == 3

    file.write_text(canonical_json(spec.edit(model=spec.model.edit(vocab_size=257))))
    said = run("train", file, "--root", place.root)
    assert isinstance(said.exception, SpecError)
    assert "has room for 0 document IDs" in str(said.exception)
    file.write_text(canonical_json(spec).replace("prepended", "prepend"))
    said = run("train", file, "--root", place.root)
    assert isinstance(said.exception, SpecError)
    assert "did you mean 'prepended'" in str(said.exception)


def test_a_spec_with_a_mistake(place: Place) -> None:
    file = place.study.parent / "spec.json"
    assert isinstance(run("train", file).exception, SpecError)
    file.write_text('{"corpu": {}}')
    said = run("train", file)
    assert isinstance(said.exception, SpecError)
