"""A series is found by one name, in order of its steps, and says what it left out."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest

from repetita.errors import RunFolderError, SpecError
from repetita.study.series import find_all_series, find_series, kind_of, run_of, step_of
from tests.study.places import Place


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Revisions of the one model of a hub."""
    known = ["main", "step0", "step1000", "step64", "step143000", "old-step5"]

    def refs(_: Any, name: str) -> Any:
        if name != "owner/geese":
            raise ConnectionError("no such model")
        named = [SimpleNamespace(name=one) for one in known]
        return SimpleNamespace(branches=named[:3], tags=named[3:])

    monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_refs", refs)
    return known


def folder_of(place: Path, *names: str) -> Path:
    for name in names:
        (place / name).mkdir(parents=True)
        (place / name / "config.json").write_text("{}")
    return place


@pytest.mark.parametrize(
    ("name", "step", "kind"),
    [
        ("step1000", 1000, "step#"),
        ("stage1-step500-tokens3B", 500, "stage1-step#-tokens#"),
        ("step-50K-105b", 50_000, "step-#-#"),
        ("checkpoint-500", 500, "checkpoint-#"),
        ("global_step8", 8, "global_step#"),
        ("ckpt_007", 7, "ckpt_#"),
        ("00000012", 12, "#"),
        ("main", None, "main"),
        ("v1.0", None, "v1.0"),
        ("footstep", None, "footstep"),
    ],
)
def test_steps_are_read_off_names(name: str, step: int | None, kind: str) -> None:
    assert (step_of(name), kind_of(name)) == (step, kind)


def test_revisions_are_ordered_by_step() -> None:
    series = find_series("hf:owner/geese@step1000, step64,main")
    assert series.name == "hf:owner/geese"
    assert [member.step for member in series.members] == [64, 1000, None]
    assert series.members[0].source == "hf:owner/geese@step64"
    assert find_series("hf:geese@v2").members == (("hf:geese@v2", None, "v2"),)
    assert find_series("hf:geese").members == (("hf:geese", None, "main"),)


def test_all_revisions_are_those_of_one_kind(hub: list[str]) -> None:
    series = find_series("hf:owner/geese@all")
    assert [member.name for member in series.members] == ["step0", "step64", "step1000", "step143000"]
    assert [one.name for one in series.left_out] == ["main", "old-step5"]
    few = find_series("hf:owner/geese@step1*,old-*")
    assert [member.step for member in few.members] == [5, 1000, 143000]


def test_revisions_that_cannot_be_told_apart_are_refused(hub: list[str]) -> None:
    hub.append("old-step64")
    with pytest.raises(SpecError, match=r"'old-step64' and 'step64' both are of step 64; .* such as step\*"):
        find_series("hf:owner/geese@*step*")
    with pytest.raises(SpecError, match="'step0' is named twice"):
        find_series("hf:owner/geese@step0,step0")
    with pytest.raises(SpecError, match=r"has no checkpoint 'stop\*'; did you mean 'step0'"):
        find_series("hf:owner/geese@stop*")
    with pytest.raises(SpecError, match="revisions cannot be listed"):
        find_series("hf:owner/swans@all")


def test_a_folder_of_checkpoint_folders_is_a_series(tmp_path: Path) -> None:
    place = folder_of(tmp_path / "run@home", "checkpoint-20", "checkpoint-3", "best")
    (place / "checkpoint-30").mkdir()
    (place / "logs").mkdir()
    series = find_series(place)
    assert (series.name, [member.step for member in series.members]) == ("run@home", [3, 20])
    assert series.members[0].source == str(place / "checkpoint-3")
    assert [tuple(one) for one in series.left_out] == [
        ("best", "is not named checkpoint-#"),
        ("checkpoint-30", "has no config.json"),
    ]
    assert [member.step for member in find_series(f"{place}@checkpoint-20").members] == [20]
    with pytest.raises(SpecError, match="no checkpoint 'checkpoint-21'; did you mean 'checkpoint-20'"):
        find_series(f"{place}@checkpoint-21")
    with pytest.raises(SpecError, match="names nothing behind its @"):
        find_series(f"{place}@")


def test_a_model_that_holds_checkpoints_is_one_model_unless_all_are_asked_for(tmp_path: Path) -> None:
    folder_of(tmp_path, "checkpoint-1", "checkpoint-2")
    (tmp_path / "config.json").write_text("{}")
    assert [member.source for member in find_series(tmp_path).members] == [str(tmp_path)]
    assert [member.step for member in find_series(f"{tmp_path}@all").members] == [1, 2]


def test_series_that_end_alike_are_told_apart(tmp_path: Path, hub: list[str]) -> None:
    one, other = (folder_of(tmp_path / name / "ck", "checkpoint-1", "checkpoint-2") for name in ("a", "b"))
    assert [series.name for series in find_all_series([one, other])] == ["a/ck", "b/ck"]
    halves = [f"{one}@checkpoint-1", f"{one}@checkpoint-2", str(other)]
    assert [series.name for series in find_all_series(halves)] == [
        "a/ck@checkpoint-1",
        "a/ck@checkpoint-2",
        "b/ck",
    ]
    names = ["hf:owner/geese@step0,step64", "hf:owner/geese@old-step5,old-step6"]
    assert [series.name for series in find_all_series(names)] == names
    with pytest.raises(SpecError, match="the series 'ck' is named twice"):
        find_all_series([one, other, one])
    with_main = find_series("hf:owner/geese@all,main")
    assert [left.name for left in with_main.left_out] == ["old-step5"], "what is taken is not left out"


def test_checkpoints_of_a_run_are_a_series(done: Place) -> None:
    run = next(path for path in (done.root / "runs").iterdir() if (path / "done").exists())
    series = find_series(f"run:{run.name}@all", root=done.root)
    assert find_series(f"{run.name}@all", root=done.root) == series, "a run is known by its folder"
    assert run_of(series) == run
    steps = [member.step for member in series.members]
    assert steps and steps == sorted(int(path.name) for path in (run / "checkpoints").iterdir())
    assert find_series(f"run:{run}").members == (series.members[-1],)
    with pytest.raises(RunFolderError, match="no checkpoint of step 7 "):
        find_series(f"run:{run}@7")
    with pytest.raises(RunFolderError, match=f"is no run; did you mean '{run.name}'"):
        find_series(f"run:{run}x")
