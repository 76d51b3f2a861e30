"""Every fault that a series of checkpoints can have is planted here, and named at its checkpoint alone."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
import torch
from huggingface_hub import errors
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from repetita.cli.app import app
from repetita.errors import UserError
from repetita.study.doctor import Diagnosis, diagnose, jumps, missing_steps
from tests.study.places import Place

STEPS = (0, 1000, 2000, 3000, 4000, 5000, 6000, 7000)


@pytest.fixture
def series(tmp_path: Path) -> Path:
    """Eight checkpoints whose weights drift a little, in transformers' layout."""
    generator = torch.Generator().manual_seed(0)
    start = {"embed.weight": torch.randn(30, 8, generator=generator), "mlp.weight": torch.randn(8, 8)}
    for i, step in enumerate(STEPS):
        folder = tmp_path / "geese" / f"step{step}"
        folder.mkdir(parents=True)
        grown = {name: tensor * (1 + 0.01 * i) for name, tensor in start.items()}
        save_file({**grown, "mask": torch.ones(4, dtype=torch.bool)}, folder / "model.safetensors")
        config = {"model_type": "gpt2", "n_layer": 1, "transformers_version": f"4.{i}"}
        (folder / "config.json").write_text(json.dumps(config))
        (folder / "tokenizer.json").write_text(
            json.dumps({"model": {"vocab": {"a": 0}}, "padding": i or None})
        )
    return tmp_path / "geese"


def troubles(found: Diagnosis) -> dict[str, tuple[str, ...]]:
    return {one.name: one.trouble for one in found.checked if one.trouble}


def changed(folder: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    save_file(change(load_file(folder / "model.safetensors")), folder / "model.safetensors")


def test_a_sound_series_has_no_trouble(series: Path) -> None:
    found = diagnose([series])
    assert found.healthy and not found.notes
    assert [one.step for one in found.checked] == list(STEPS)
    assert {one.n_params for one in found.checked} == {30 * 8 + 8 * 8}
    tensors = load_file(series / "step1000/model.safetensors")
    norm = sum(float((tensors[name].double() ** 2).sum()) for name in ("embed.weight", "mlp.weight")) ** 0.5
    assert found.checked[1].norm == pytest.approx(norm, rel=1e-9)
    assert found.checked[1].change == pytest.approx(0.01, rel=1e-4)
    assert (found.checked[0].change, found.checked[0].unchanged) == (None, None)


def test_identical_neighbours_are_found_whatever_file_holds_them(series: Path) -> None:
    tensors = load_file(series / "step2000/model.safetensors")
    save_file(tensors, series / "step3000/model.safetensors", metadata={"format": "pt"})
    assert troubles(diagnose([series])) == {"step3000": ("has the weights of step2000",)}


def test_a_part_that_stood_still_is_found(series: Path) -> None:
    stale = load_file(series / "step2000/model.safetensors")["mlp.weight"]
    changed(series / "step3000", lambda now: {**now, "mlp.weight": stale})
    assert troubles(diagnose([series])) == {"step3000": ("21% of its weights are those of step2000",)}


def test_a_frozen_part_is_no_trouble(series: Path) -> None:
    frozen = load_file(series / "step0/model.safetensors")["mlp.weight"]
    for step in STEPS:
        changed(series / f"step{step}", lambda now: {**now, "mlp.weight": frozen})
    found = diagnose([series])
    assert found.healthy and found.checked[-1].unchanged == pytest.approx(64 / 304)


def test_a_jump_of_the_norm_is_found_and_weights_that_are_not_finite(series: Path) -> None:
    changed(
        series / "step4000",
        lambda now: {name: 1.5 * of if of.is_floating_point() else of for name, of in now.items()},
    )
    changed(series / "step7000", lambda now: {**now, "mlp.weight": now["mlp.weight"] / 0})
    found = troubles(diagnose([series]))
    assert found == {
        "step4000": ("the norm of its weights jumps",),
        "step5000": ("the norm of its weights jumps",),
        "step7000": ("has weights that are not finite",),
    }


def test_another_config_tokenizer_or_tensor_is_found(series: Path) -> None:
    (series / "step1000/config.json").write_text('{"model_type": "gpt2", "n_layer": 1, "n_head": 2}')
    (series / "step3000/tokenizer.json").write_text('{"model": {"vocab": {"b": 0}}}')
    (series / "step5000/tokenizer.json").unlink()
    changed(series / "step7000", lambda now: {**now, "new.weight": torch.ones(2)})
    found = troubles(diagnose([series]))
    assert found["step1000"] == found["step2000"] == ("its config differs in n_head",)
    assert found["step3000"] == ("has another tokenizer than the one before",)
    assert found["step5000"] == ("has no tokenizer, unlike the one before",)
    assert found["step7000"] == ("its tensors differ in name or size: new.weight",)


def test_what_is_missing_or_torn_is_a_row(series: Path) -> None:
    shutil.rmtree(series / "step4000")
    (series / "step6000/config.json").unlink()
    content = (series / "step2000/model.safetensors").read_bytes()
    (series / "step2000/model.safetensors").write_bytes(content[:-9])
    found = troubles(diagnose([series]))
    assert found["4000"] == ("lacks from an even sequence",)
    assert found["step6000"] == ("has no config.json",)
    assert found["step2000"][0].startswith("model.safetensors cannot be read")
    assert set(found) == {"4000", "step6000", "step2000"}, "neighbours of a torn one are compared past it"


def test_a_malicious_pickle_is_refused_and_not_run(series: Path, tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "ran",)

    (series / "step0/model.safetensors").unlink()
    torch.save({"a": Evil()}, series / "step0/pytorch_model.bin")
    assert "--allow-pickle" in troubles(diagnose([series]))["step0"][0]
    found = troubles(diagnose([series], allow_pickle=True))["step0"][0]
    assert "holds more than weights" in found and not (tmp_path / "ran").exists()
    torch.save({"embed.weight": torch.ones(3)}, series / "step0/pytorch_model.bin")
    assert diagnose([series], allow_pickle=True).checked[0].n_params == 3


def test_revisions_of_the_hub_are_looked_through(series: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def info(_: Any, name: str, *, revision: str, timeout: float) -> Any:
        del name, timeout
        if not (series / revision).exists():
            # Its answer is an object of whichever HTTP library the hub's client is built on.
            answer: Any = SimpleNamespace(headers={}, request=None, status_code=404)
            raise errors.RevisionNotFoundError("no", response=answer)
        return SimpleNamespace(sha=revision, siblings=[SimpleNamespace(rfilename="model.safetensors")])

    names = [SimpleNamespace(name=one.name) for one in series.iterdir()]
    refs = SimpleNamespace(branches=[SimpleNamespace(name="main"), *names], tags=[])
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", info)
    monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_refs", lambda *_: refs)
    monkeypatch.setattr(
        huggingface_hub, "snapshot_download", lambda _, revision, **__: str(series / revision)
    )
    found = diagnose(["hf:owner/geese@all"])
    assert found.healthy and len(found.checked) == len(STEPS)
    assert found.notes == ("hf:owner/geese: left out are main, named otherwise than the rest.",)
    few = diagnose(["hf:owner/geese@step0,step990,step2000"])
    (trouble,) = troubles(few)["step990"]
    assert "has no revision 'step990'; did you mean 'step1000'?" in trouble


def test_checkpoints_of_a_run_are_looked_through(done: Place) -> None:
    run = next(path for path in sorted((done.root / "runs").iterdir()) if (path / "done").exists())
    found = diagnose([f"run:{run.name}@all"], root=done.root)
    assert found.healthy and found.checked[-1].norm
    with pytest.raises(UserError):
        diagnose([f"run:{run.name}x@all"], root=done.root)


def test_the_command_exits_with_1_on_trouble(series: Path) -> None:
    sound = CliRunner().invoke(app, ["doctor", str(series)])
    assert sound.exit_code == 0 and "step7000" in sound.stdout
    shutil.copy(series / "step0/model.safetensors", series / "step1000/model.safetensors")
    ill = CliRunner().invoke(app, ["--quiet", "doctor", str(series), "--json"])
    assert ill.exit_code == 1 and not ill.stderr
    said = json.loads(ill.stdout)
    assert not said["healthy"] and said["checkpoints"][1]["trouble"] == ["has the weights of step0"]


def test_steps_that_an_even_sequence_lacks() -> None:
    assert missing_steps([0, 1, 2, 4, 8, 16, 1000, 2000, 3000, 4000]) == []
    assert missing_steps([0, 10, 20, 50, 60]) == [30, 40]
    assert missing_steps([0, 10, 20, 30, 100, 200, 300]) == [], "a series may become sparser"
    assert missing_steps([99, 100, 101, 199, 200, 201]) == [], "steps around injections, chosen so"


def test_only_what_is_out_of_line_jumps() -> None:
    assert jumps([10 * 1.3**i for i in range(9)]) == [], "even growth"
    assert jumps([10, 10.1, 30, 10.2, 10.3, 10.4]) == [2, 3], "a spike"
    assert jumps([10, 10.001, 10.002, 10.1, 10.101, 10.102]) == [], "small, if unusual"
    assert jumps([10, 20, 5]) == [], "too few to compare"
