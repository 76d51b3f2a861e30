"""A corpus whose parts Ray makes is that of one process, and what is done is kept when something is wrong."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from repetita.corpus import input_files
from repetita.corpus.building import build_shards
from repetita.corpus.by_file import local_makers
from repetita.corpus.documents import find_source
from repetita.corpus.parts import Job, Part
from repetita.corpus.shards import Shards
from repetita.corpus.tokenizer import TokenizerSpec
from repetita.errors import CorpusError, EngineError
from repetita.study import ray_cluster
from repetita.study.ray_parts import _absolute, _made, ray_makers
from repetita.study.ray_task import make_part

BPE = TokenizerSpec(vocab_size=270)


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(input_files, "BUNDLE_BYTES", 1)
    monkeypatch.chdir(tmp_path)
    folder = Path("files")  # Named from here: tasks find it from wherever they are.
    folder.mkdir()
    for number in range(5):
        texts = [f"Document {i} of file {number}.\n\nIt says {i * number} words." for i in range(20)]
        (folder / f"{number}.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return folder


def build(files: Path, name: str, **told: object) -> Shards:
    source = find_source(str(files))
    return build_shards(Path("cache") / name, source=source, tokenizer=BPE, **told)  # type: ignore[arg-type]


@pytest.mark.slow
def test_ray_builds_what_one_process_builds(files: Path) -> None:
    ray = pytest.importorskip("ray")
    good = (files / "3.jsonl").read_text()
    (files / "3.jsonl").write_text(good + "{")
    with pytest.raises(CorpusError, match=r"3\.jsonl, line 21: not JSON"):
        build(files, "by", makers=ray_makers(processes=2))
    assert not ray.is_initialized()
    (files / "3.jsonl").write_text(good)
    told: list[str] = []
    shards = build(
        files,
        "by",
        makers=ray_makers(processes=2),
        progress=lambda stage, share: told.append(f"{stage}: {getattr(share, 'words', '')}"),
    )
    whole = build(files, "whole", workers=1)
    assert (shards.path / "manifest.json").read_bytes() == (whole.path / "manifest.json").read_bytes()
    assert any("tokenizing: 5 of 5 files" in line for line in told)
    assert not list(Path("cache").glob(".*.parts"))
    assert not ray.is_initialized()


def test_a_task_is_told_where_its_files_are(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (files.parent / "parts").mkdir()
    found = tuple(find_source(str(files)).files())
    job = Job(str(Path("parts").resolve()), found, tokenizer="")
    told = _absolute(job.as_json())
    monkeypatch.chdir("/")
    part = Part.from_json(make_part(told)).check()
    assert part.n_documents == 100
    assert Part.from_json(make_part(told)).again


def test_an_address_where_none_answers_is_named(files: Path) -> None:
    pytest.importorskip("ray")
    with pytest.raises(EngineError, match="no Ray cluster answers at"):
        build(files, "by", makers=ray_makers(address="127.0.0.1:1"))
    assert build(files, "by", makers=local_makers(1)).documents


def test_parts_that_no_node_makes_are_not_waited_for_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    class Deserted:
        def remote(self, **_: object) -> object:
            return lambda make: SimpleNamespace(remote=lambda job: job)

        def wait(self, waiting: list[object], **_: object) -> tuple[list[object], list[object]]:
            return [], waiting

    monkeypatch.setitem(sys.modules, "ray", cast(Any, Deserted()))
    monkeypatch.setattr(ray_cluster, "nodes", list)
    monkeypatch.setattr(ray_cluster, "WITHOUT_SECONDS", -1.0)
    with pytest.raises(EngineError, match="no node of the Ray cluster has had room"):
        list(_made([Job("parts", (), tokenizer="").as_json()], {}, most=None))
