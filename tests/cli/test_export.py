"""`repetita export`: a run as a folder of transformers, and one sentence for what cannot be."""

import json
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner, Result

from repetita.cli.app import app
from repetita.errors import RunFolderError, SpecError
from repetita.model.live import checkpoint_subject
from repetita.spec import canonical_json
from tests.study.places import Place


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def trained(place: Place) -> Any:
    spec = place.portion().planned[2].spec
    (place.study.parent / "spec.json").write_text(canonical_json(spec))
    return json.loads(run("train", place.study.parent / "spec.json", "--root", place.root, "--json").stdout)


def test_a_run_is_exported(place: Place, trained: Any) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    name, out = trained["path"].rpartition("/")[2], place.root / "exported"
    arguments = ("--source", place.root.parent / "corpus", "--root", place.root)
    said = run("export", name, "--to", "hf", out, *arguments)
    assert said.exit_code == 0, said.output
    assert f"{out}: GPT2LMHeadModel, logits equal to" in said.stdout
    text = "the and of"
    theirs, tokenizer = AutoModelForCausalLM.from_pretrained(out), AutoTokenizer.from_pretrained(out)
    given = tokenizer(text, return_tensors="pt")["input_ids"]
    assert given[0].tolist() == [0, *(byte + 1 for byte in text.encode())]
    ours: Any = checkpoint_subject(place.root / "runs" / name, step=12).model
    with torch.no_grad():
        expected = ours.hidden(given) @ ours.output_weight.T
        np.testing.assert_allclose(theirs(given).logits, expected, atol=1e-5)
    card = (out / "README.md").read_text()
    assert "after 12 of 12 steps" in card and str(place.root) not in card

    again = run("export", name, out, *arguments)
    assert isinstance(again.exception, SpecError) and "is there already" in str(again.exception)
    wrong = run("export", name, place.root / "other", "--to", "onnx", *arguments)
    assert isinstance(wrong.exception, SpecError) and "no format is named 'onnx'" in str(wrong.exception)
    wrong = run("export", name, place.root / "other", "--step", 5, *arguments)
    assert isinstance(wrong.exception, RunFolderError) and "kept: 12" in str(wrong.exception)
    wrong = run("export", name[:-1], place.root / "other", *arguments)
    assert isinstance(wrong.exception, RunFolderError) and f"did you mean '{name}'" in str(wrong.exception)
    assert not (place.root / "other").exists()
