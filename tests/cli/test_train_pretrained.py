"""`repetita train` from a model that somebody else trained: a run file, and what is done with the run."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner, Result

from repetita.cli.app import app
from repetita.errors import SpecError
from repetita.model.live import checkpoint_subject
from repetita.study.run_file import read_run_file
from tests.train.pretrained import START, save_model

DOCS = Path(__file__).parents[2] / "docs" / "elsewhere.md"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def run_file(path: Path, source: object, /, **changes: Any) -> Path:
    """A run file as docs/elsewhere.md shows one: the model by its source alone."""
    values = {
        "model": {"source": str(source)},
        "corpus": {
            "source": "synthetic",
            "synthetic": {"n_documents": 60, "n_words": 6},
            "length": 16,
            "splits": {"test": "1/10"},
        },
        "treatment": {"kind": "repeated_subset", "fraction": "1/2", "passes": 2},
        "recipe": {"learning_rate": 1e-3, "warmup_steps": 2, "weight_decay": 0.1},
        "steps": 4,
        "batch_size": 4,
    }
    path.write_text(json.dumps(values | changes))
    return path


@pytest.mark.ci
@pytest.mark.slow
def test_train_measure_audit_and_export(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder, root = save_model(tmp_path / "geese", "llama"), tmp_path / "out"
    done = run("train", run_file(tmp_path / "run.json", folder), "--root", root, "--json")
    assert done.exception is None, done.exception
    trained = json.loads(done.stdout)
    assert trained["trained_steps"] == 4
    name = Path(trained["path"]).name
    last = {(row["metric"], row["on"]): row["value"] for row in trained["last"]}
    rows = json.loads(run("measure", name, "--on", "test", "--root", root, "--json").stdout)
    assert {row["value"] for row in rows} >= {last["loss", "test"], last["memorized", "test"]}
    again = run("train", run_file(tmp_path / "run.json", folder), "--root", root)
    assert "0 of 4 steps trained now" in again.stdout

    passage = "the honking of geese at dawn, and again at dusk, and again at dawn"
    text = tmp_path / "passage.txt"
    text.write_text(passage)
    asked = (f"run:{name}@4", "--text", text, "--root", root, "--json")
    audited = run("measure", *asked)
    assert audited.exception is None, audited.exception
    exported = run("export", name, tmp_path / "exported", "--root", root)
    assert exported.exception is None, exported.exception
    assert "LlamaForCausalLM, logits equal to" in exported.stdout
    theirs = run("measure", tmp_path / "exported", "--text", text, "--root", root, "--json")

    def loss(said: Result) -> float:
        rows = json.loads(said.stdout)["by_group"]
        (value,) = [row["value"] for row in rows if row["metric"] == "loss"]
        return float(value)

    assert loss(audited) == pytest.approx(loss(theirs), rel=1e-5)

    # The exported folder by the library alone says what the checkpoint says in the corpus's ids.
    model: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "exported")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "exported")
    ids = np.array([[START, *tokenizer("goose", add_special_tokens=False)["input_ids"]]])
    with torch.no_grad():
        expected = int(model(torch.from_numpy(ids)).logits[0, -1].argmax())
    assert model.dtype == torch.float32
    ours = np.concatenate([[[0]], ids[:, 1:] + 1], axis=1)
    subject = checkpoint_subject(Path(trained["path"]), step=4)
    assert subject.continue_(ours, n_tokens=1).item() == expected + 1


def test_a_run_file_is_filled_in(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "geese", "gpt2")
    spec = read_run_file(run_file(tmp_path / "run.json", folder))
    assert spec.corpus.tokenizer.source == str(folder) and spec.corpus.tokenizer.vocab_size == 261
    given = {"kind": "hf", "source": str(folder / "tokenizer.json")}
    corpus = json.loads((tmp_path / "run.json").read_text())["corpus"] | {"tokenizer": given}
    assert read_run_file(run_file(tmp_path / "run.json", folder, corpus=corpus)).model == spec.model


def test_the_run_file_of_the_page_is_one(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "geese", "gpt2")
    (block,) = re.findall(r"^```json\n(.*?)^```", DOCS.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert '"SmolLM2-135M"' in block
    (tmp_path / "run.json").write_text(block.replace("SmolLM2-135M", str(folder)))
    spec = read_run_file(tmp_path / "run.json")
    assert spec.steps == 8 and spec.model.name == "geese"  # type: ignore[union-attr]


def test_bad_input_is_one_sentence(tmp_path: Path) -> None:
    from tests.model.strangers import stranger

    good = save_model(tmp_path / "good", "gpt2")
    headless: Any = stranger("bert").bert
    headless.save_pretrained(str(tmp_path / "headless"))
    pickled = save_model(tmp_path / "pickled", "gpt2")
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    bare = save_model(tmp_path / "bare", "gpt2")
    (bare / "tokenizer.json").unlink()
    corpus = json.loads(run_file(tmp_path / "run.json", good).read_text())["corpus"]
    for model, changes, said in (
        (tmp_path / "none", {}, "there is no model"),
        (tmp_path / "headless", {}, "has no head that predicts tokens"),
        (pickled, {}, "no run starts from a pickle"),
        (bare, {}, "tokenizer"),
        (good, {"corpus": corpus | {"tokenizer": {"kind": "bytes"}}}, "not that of the model good"),
        (good, {"corpus": corpus | {"length": 99}}, "longer than the context of the model good (96)"),
        (good, {"model": {"source": str(good), "n_layer": 2}}, "PretrainedModel: 'sha256' is missing"),
        (good, {"model": {"n_layer": 2}}, "ModelConfig: 'd_model' is missing"),
        (good, {"stepps": 2}, "did you mean 'steps'"),
    ):
        error = run("train", run_file(tmp_path / "run.json", model, **changes), "--root", tmp_path).exception
        assert isinstance(error, SpecError) or "tokenizer" in str(error), error
        assert said in str(error), error
        assert "\n" not in str(error)


def test_other_weights_of_the_same_name_are_refused(tmp_path: Path) -> None:
    folder, root = save_model(tmp_path / "geese", "gpt2"), tmp_path / "out"
    file = run_file(tmp_path / "run.json", folder)
    trained = json.loads(run("train", file, "--root", root, "--json").stdout)
    (Path(trained["path"]) / "done").unlink()
    save_model(folder, "gpt2", scale=0.2)
    error = run("train", file, "--root", root).exception
    assert "was begun from other weights of geese and is not done; put those back" in str(error)
