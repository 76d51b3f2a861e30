"""What a user gets wrong who measures models on texts: one sentence with the fix, exit code 2."""

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.bad_input.worlds import Say, World, flip, refused
from tests.model.strangers import stranger
from tests.model.test_hub_snapshot import Planted
from tests.model.test_hub_snapshot import hub as hub  # noqa: PLC0414
from tests.model.test_pretrained_tokenizing import byte_level, causal, masked, saved

SIZES: dict[str, Any] = {"vocab_size": 258, "max_position_embeddings": 64}
LONG = "Geese fly south for the winter. " * 9


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    stranger("gpt2", **SIZES).save_pretrained(str(folder / "geese"))
    causal(folder / "geese")
    stranger("gpt2", **SIZES).save_pretrained(str(folder / "unbegun"))
    saved(folder / "unbegun", byte_level())
    headless: Any = stranger("gpt2", **SIZES).transformer
    headless.save_pretrained(str(folder / "headless"))
    causal(folder / "headless")
    stranger("bert").save_pretrained(str(folder / "bert"))
    masked(folder / "bert")
    (folder / "text.txt").write_text(LONG)
    (folder / "empty.txt").write_text(" \n")
    (folder / "rows.jsonl").write_text('{"text": "a"}\n{"body": "b"}\n')
    (folder / "broken.csv").write_text('text\n"a\n')
    return folder


class Evil:
    """What runs code when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return (Path.touch, (self.file,))


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (("geese", "--text", "empty.txt"), ["empty.txt", "is empty", "give"]),
        (("geese", "--text", "txt.txt"), ["txt.txt", "did you mean"]),
        (("geese", "--text", "rows.jsonl"), ["line 2", "it has body", "text_field"]),
        (("geese", "--text", "broken.csv"), ["broken.csv is not a sound CSV file"]),
        (("geese", "--text", "text.txt", "--text", "text.txt"), ["given twice"]),
        (
            ("geese", "--text", "text.txt", "--stride", "refuse"),
            ["'text.txt' has 288 tokens", "refuses more than 64"],
        ),
        (
            ("unbegun", "--text", "text.txt", "--bos", "always"),
            ["has no start token", "set bos to 'eos' or 'never'"],
        ),
        (("geese", "--text", "text.txt", "--bos", "alway"), ["'bos'", "did you mean 'always'?"]),
        (("geese", "--text", "text.txt", "--window", "65"), ["more than the 64 tokens", "lower it to 64"]),
        (("geese", "--text", "text.txt", "--prompt", "50", "--suffix", "50"), ["exceed the 64", "shorten"]),
        (("geese", "--text", "text.txt", "--prompt", "x"), ["--prompt x: not whole numbers"]),
        (("geese", "--text", "text.txt", "--probe", "scor"), ["did you mean 'score'"]),
        (("geese", "--text", "text.txt", "--top-k", "5"), ["top_k has no effect", "probabilistic"]),
        (("geese", "--text", "text.txt", "--on", "test"), ["--on has no effect", "leave it out"]),
        (("geese", "--text", "text.txt", "--step", "5"), ["--step has no effect", "leave it out"]),
        (("geese", "--text", "text.txt", "--probe", "canaries"), ["needs the key", "--canaries"]),
        (("geese", "--text", "text.txt", "--dtype", "float31"), ["'dtype'", "did you mean 'float32'?"]),
        (("geese", "geese", "--text", "text.txt"), ["names 'geese' twice"]),
        (("geese",), ["'geese' is measured on texts", "--text FILE"]),
        (("hf:owner/geese",), ["is measured on texts", "--text FILE"]),
        (("goose", "--text", "text.txt"), ["there is no model or run 'goose'", "did you mean 'geese'?"]),
        (("headless", "--text", "text.txt"), ["headless holds a GPT2Model", "no head that predicts tokens"]),
        (("text.txt", "--text", "text.txt"), ["text.txt is no model", "give its folder"]),
        (("run:nothing", "--text", "text.txt"), ["nothing is no run"]),
        (("bert", "--text", "text.txt", "--first-token", "skipped"), ["has no effect on a masked model"]),
    ],
)
def test_an_audit_that_cannot_be(
    say: Say, models: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, arguments: Any, parts: list[str]
) -> None:
    monkeypatch.chdir(models)
    refused(say("measure", *arguments, "--root", tmp_path), *parts)
    assert not list(tmp_path.rglob("*.parquet"))


def test_an_unknown_revision_names_the_nearest(say: Say, hub: Planted, models: Path, tmp_path: Path) -> None:
    del hub
    text = models / "text.txt"
    said = say("measure", "hf:owner/geese@step1001", "--text", text, "--root", tmp_path)
    refused(said, "no revision 'step1001'", "did you mean 'step1000'?")


@pytest.mark.parametrize("allowed", [False, True])
def test_a_malicious_pickle_runs_nothing(say: Say, models: Path, tmp_path: Path, allowed: bool) -> None:
    folder, trace = tmp_path / "trap", tmp_path / "trace"
    folder.mkdir()
    (folder / "config.json").write_bytes((models / "geese" / "config.json").read_bytes())
    causal(folder)
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Evil(trace)))
    options = ("--allow-pickle",) if allowed else ()
    said = say("measure", folder, "--text", models / "text.txt", "--root", tmp_path / "out", *options)
    refused(said, "cannot be read" if allowed else "--allow-pickle")
    assert not trace.exists()


def test_a_pickle_that_is_allowed_is_recorded(say: Say, models: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pickled"
    folder.mkdir()
    (folder / "config.json").write_bytes((models / "geese" / "config.json").read_bytes())
    causal(folder)
    torch.save(stranger("gpt2", **SIZES).state_dict(), folder / "pytorch_model.bin")
    options = ("--allow-pickle", "--probe", "score", "--root", tmp_path / "out", "--json")
    said = say("measure", folder, "--text", models / "text.txt", *options)
    assert said.code == 0, said
    assert json.loads(said.stdout)["subjects"][0]["record"]["format"] == "pickle"


def test_a_long_text_is_read_in_windows_and_the_rule_is_said(say: Say, models: Path, tmp_path: Path) -> None:
    said = say("measure", models / "geese", "--text", models / "text.txt", "--root", tmp_path)
    assert said.code == 0, said
    assert "windows of 64 tokens, 64 new tokens each" in said.stdout
    assert "behind the start token 0, first token scored" in said.stdout
    assert "cpu, float32" in said.stdout
    assert "288 tokens" in said.stdout


def test_a_run_is_measured_on_a_text_beside_a_stranger(
    say: Say, done: World, models: Path, tmp_path: Path
) -> None:
    name, out = done.run.name, tmp_path / "rows.parquet"
    arguments = (f"run:{name}", models / "geese", "--text", models / "text.txt", "--root", done.root)
    said = say("measure", *arguments, "--probe", "score", "--json", "--out", out)
    assert said.code == 0, said
    found = json.loads(said.stdout)
    assert [one["label"] for one in found["subjects"]] == [f"run:{name}@12", "geese"]
    assert {row["metric"] for row in found["by_group"]} == {"loss", "bits_per_byte", "memorized"}
    assert out.exists()
    half = say("measure", name, "--text", models / "text.txt", "--root", done.root, "--dtype", "bfloat16")
    refused(half, "no effect", "leave it out")
    flip(done.run / "checkpoints" / "00000012" / "model.safetensors")
    refused(say("measure", name, "--text", models / "text.txt", "--root", done.root), "model.safetensors")
