"""A model of the hub comes as a folder at one commit, and every reason why it does not is one sentence."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import constants, errors

from repetita.errors import SpecError
from repetita.model.hub_snapshot import nearest_revision, parsed, revisions, snapshot
from repetita.model.pretrained_files import find_pretrained

COMMIT = "c" * 40


class Planted:
    """A hub that knows one model with some revisions, and what it was asked."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.trouble = folder, None
        self.files = ["config.json", "model.safetensors", "pytorch_model.bin", "own.py"]
        self.known = ["main", "step0", "step1000", "step143000"]
        self.fetched: list[dict[str, Any]] = []

    def model_info(self, _: Any, name: str, *, revision: str, timeout: float) -> Any:
        del timeout
        if self.trouble is not None:
            raise self.trouble
        if name != "owner/geese":
            raise refused(errors.RepositoryNotFoundError)
        if revision not in self.known:
            raise refused(errors.RevisionNotFoundError)
        return SimpleNamespace(sha=COMMIT, siblings=[SimpleNamespace(rfilename=file) for file in self.files])

    def list_repo_refs(self, *_: Any) -> Any:
        if self.trouble is not None:
            raise self.trouble
        named = [SimpleNamespace(name=one) for one in self.known]
        return SimpleNamespace(branches=named[:2], tags=named[2:])

    def snapshot_download(self, name: str, **options: Any) -> str:
        self.fetched.append({"name": name, **options})
        return str(self.folder)


def refused(kind: type[errors.HfHubHTTPError]) -> Exception:
    answer: Any = SimpleNamespace(headers={}, request=None, status_code=404)
    return kind("no", response=answer)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Planted:
    planted = Planted(tmp_path)
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda *a, **o: planted.model_info(*a, **o))
    monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_refs", lambda *a, **o: planted.list_repo_refs(*a))
    return planted


@pytest.fixture
def fetching(hub: Planted, monkeypatch: pytest.MonkeyPatch) -> Planted:
    monkeypatch.setattr(huggingface_hub, "snapshot_download", hub.snapshot_download)
    return hub


def test_a_revision_is_fetched_at_its_commit(fetching: Planted, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"")
    found = find_pretrained("hf:owner/geese@step1000")
    assert (found.name, found.commit, found.format) == ("hf:owner/geese", COMMIT, "safetensors")
    (asked,) = fetching.fetched
    assert (asked["name"], asked["revision"]) == ("owner/geese", COMMIT)
    assert "model.safetensors" in asked["allow_patterns"]
    assert not any(name.endswith((".py", ".bin")) for name in asked["allow_patterns"]), "no code, no pickle"


def test_a_pickle_is_fetched_where_it_is_allowed_and_there_is_nothing_else(fetching: Planted) -> None:
    snapshot("hf:owner/geese", allow_pickle=True)
    fetching.files.remove("model.safetensors")
    snapshot("hf:owner/geese")
    snapshot("hf:owner/geese", allow_pickle=True)
    assert ["pytorch_model.bin" in one["allow_patterns"] for one in fetching.fetched] == [False, False, True]


@pytest.mark.parametrize(
    ("given", "hint"),
    [("step1001", "step1000"), ("step100000000", "step143000"), ("mian", "main"), ("step1", "step0")],
)
def test_an_unknown_revision_is_told_the_nearest(hub: Planted, given: str, hint: str) -> None:
    with pytest.raises(SpecError, match=f"no revision '{given}'; did you mean '{hint}'"):
        snapshot(f"hf:owner/geese@{given}")


def test_an_unknown_or_gated_model_is_one_sentence(hub: Planted) -> None:
    with pytest.raises(SpecError, match="the hub has no model 'owner/goose'"):
        snapshot("hf:owner/goose")
    hub.trouble = refused(errors.GatedRepoError)  # type: ignore[assignment]
    with pytest.raises(SpecError, match="'hf:owner/geese' is gated"):
        snapshot("hf:owner/geese")


def test_without_a_network_the_cache_answers(
    hub: Planted, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hub.trouble = ConnectionError("no route\nto it")  # type: ignore[assignment]
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub._snapshot_download.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(SpecError, match=r"not on this machine .* \(ConnectionError: no route\); go online"):
        snapshot("hf:owner/geese")
    kept = tmp_path / "models--owner--geese"
    (kept / "snapshots" / COMMIT).mkdir(parents=True)
    (kept / "snapshots" / COMMIT / "config.json").write_text("{}")
    (kept / "refs").mkdir()
    (kept / "refs" / "step1000").write_text(COMMIT)
    assert snapshot("hf:owner/geese@step1000") == (kept / "snapshots" / COMMIT, COMMIT)
    assert revisions("owner/geese") == ["step1000"]
    with pytest.raises(SpecError, match=r"no revision 'step900' on this machine.*did you mean 'step1000'"):
        snapshot("hf:owner/geese@step900")


def test_revisions_are_branches_and_tags(hub: Planted) -> None:
    assert revisions("owner/geese") == sorted(hub.known)


def test_names_are_parsed() -> None:
    assert parsed("hf:geese") == ("geese", "main")
    assert parsed("hf:owner/geese@v1.0") == ("owner/geese", "v1.0")
    for wrong in ("hf:", "hf:a/b/c", "hf:geese@", "hf:../geese", "geese"):
        with pytest.raises(SpecError, match="names no model of the hub"):
            parsed(wrong)


def test_the_nearest_counted_revision_has_the_closest_number() -> None:
    known = ["main", "step0", "step512", "step1000", "stage2-step5"]
    assert nearest_revision("step700", known) == "did you mean 'step512'?"
    assert nearest_revision("stage2-step9", known) == "did you mean 'stage2-step5'?"
    assert nearest_revision("mein", known) == "did you mean 'main'?"
