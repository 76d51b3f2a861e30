"""Another text in place of a study's own: the same questions, other runs, one sentence where it is unfit."""

import json
import shutil
from pathlib import Path

import pytest

from repetita.corpus.sequences import CorpusSpec
from repetita.errors import CorpusError, SpecError
from repetita.journal.folder import read_header
from repetita.measure.copying import CopyingProbe
from repetita.measure.passages import Passage
from repetita.spec import canonical_json
from repetita.study.execute import execute
from repetita.study.expected import plan_corpora
from repetita.study.manifest import sole_scale
from repetita.study.prepare import portion, prepare
from repetita.study.text import Text, text_of, with_text
from repetita.study.where import Where
from tests.study.places import Place, repetita


@pytest.fixture
def other(place: Place) -> Path:
    """Another text of the same size, as JSON lines with a field of another name."""
    file = place.study.parent / "other words.jsonl"
    documents = sorted((place.study.parent / "corpus").glob("*.txt"))
    rows = [{"body": document.read_text().upper()} for document in documents]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def test_only_the_text_changes(place: Place, other: Path) -> None:
    text = text_of(other, text_field="body")
    own, changed = place.portion(), portion(place.study, scale="tiny", text=text)
    assert changed.folder == "tiny_study-tiny-other-words"
    for before, after in zip(own.planned, changed.planned, strict=True):
        assert after.spec.corpus.source == str(other.absolute())
        back = after.spec.corpus.edit(source=before.spec.corpus.source, text_field="text")
        assert after._replace(spec=after.spec.edit(corpus=back)) == before


def test_runs_on_a_source_that_is_not_the_first_ones_stay(place: Place) -> None:
    planned = place.portion().planned
    synthetic = planned[1].spec.edit(corpus=planned[1].spec.corpus.edit(source="synthetic"))
    changed = with_text([planned[0], planned[1]._replace(spec=synthetic)], Text(source="sotu"))
    assert [run.spec.corpus.source for run in changed] == ["sotu", "synthetic"]


def test_what_a_source_cannot_have_is_left_out() -> None:
    hub = CorpusSpec(source="hf:owner/name", subset="one", split="test", limit_documents=3)
    assert Text(source="sotu").instead(hub) == CorpusSpec(source="sotu")


@pytest.mark.parametrize(
    ("source", "subset", "slug"),
    [
        ("/a/b/English Prose.jsonl.zst", None, "english-prose"),
        ("sotu", None, "sotu"),
        ("hf:Salesforce/wikitext", "wikitext-2-raw-v1", "salesforce-wikitext-wikitext-2-raw-v1"),
    ],
)
def test_slug(source: str, subset: str | None, slug: str) -> None:
    assert Text(source=source, subset=subset).slug == slug


def test_a_part_without_a_corpus_has_no_effect() -> None:
    assert text_of(None) is None
    with pytest.raises(SpecError, match="text_field has no effect without a corpus"):
        text_of(None, text_field="body")
    with pytest.raises(SpecError, match="subset has no effect without a corpus"):
        text_of(None, subset="one")


def test_a_text_that_is_too_small_is_said_before_anything_is_trained(place: Place, other: Path) -> None:
    """Every document cut to one sequence: 30 sequences, 12 steps of 4 need more."""
    rows = [json.loads(line) for line in other.read_text().splitlines()]
    small = other.with_name("small.jsonl")
    small.write_text("".join(json.dumps({"body": row["body"][:16]}) + "\n" for row in rows))
    part = portion(place.study, scale="tiny", text=text_of(small, text_field="body"))
    with pytest.raises(
        CorpusError, match=r"^the text small.jsonl does not suit this plan: .*; lower"
    ) as caught:
        prepare([part], root=place.root, corpora=plan_corpora([part], root=place.root))
    assert "\n" not in str(caught.value)
    assert not (place.root / "runs").exists()


@pytest.mark.slow
@pytest.mark.ci
def test_workers_train_on_the_other_text_and_the_page_says_so(place: Place, other: Path) -> None:
    part = portion(place.study, scale="tiny", text=text_of(other, text_field="body"))
    outcome = execute([part], root=place.root, where=Where(processes=1))
    assert (outcome.n_done, outcome.failed) == (5, ())
    assert outcome.folders == (place.root / "studies" / part.folder,)
    assert sole_scale(place.root, study=place.study, text=part.text) == "tiny"
    assert sole_scale(place.root, study=place.study) is None
    for run in (place.root / "runs").iterdir():
        assert str(other.parent) not in json.dumps(read_header(run))
    other.unlink()
    shutil.rmtree(place.root / "corpora")
    said = repetita(
        "study", "report", place.study, "--corpus", other.name, "--text-field", "body", "--root", place.root,
        cwd=other.parent,
    )  # fmt: skip
    assert said.returncode == 0, said.stderr
    assert "illustrated" in said.stdout
    page = (place.root / "studies" / part.folder / "page.html").read_text()
    assert other.name in page
    assert str(other.parent) not in page


def test_a_passage_is_shown_beside_those_of_the_study_and_is_its_content(
    place: Place, tmp_path: Path
) -> None:
    (tmp_path / "short.txt").write_text("One and two, and one and two.")
    text = text_of(None, passage=tmp_path / "short.txt")
    assert text is not None and (text.slug, text.options, text.name) == ("text-short", " --text short", "")
    own = place.portion().planned[0]
    probe = CopyingProbe(n_copies=3, on=("train",))
    with_probe = own._replace(probes=(*own.probes, probe))
    before, after = with_text([own, with_probe], text)
    assert before == own
    assert (after.spec, after.probes[:-1]) == (own.spec, with_probe.probes)
    assert after.probes[-1] == probe.edit(
        passages=(Passage(name="your short", text="One and two, and one and two."),)
    )
    (tmp_path / "short.txt").write_text("Another text.")
    changed = with_text([with_probe], text_of(None, passage=tmp_path / "short.txt"))
    assert changed[0].probes[-1].fingerprint != after.probes[-1].fingerprint
    assert Text.from_json(canonical_json(text)) == text


def test_a_passage_where_none_is_shown_is_refused(place: Place, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("One and two.")
    for verb in ("plan", "run"):
        said = repetita(
            "study", verb, place.study, "--text", tmp_path / "mine.txt", "--root", place.root, cwd=tmp_path
        )  # fmt: skip
        assert said.returncode == 2
        assert "shows models no passage" in said.stderr


@pytest.mark.parametrize("verb", ["plan", "run"])
def test_a_text_that_is_not_there(verb: str, place: Place) -> None:
    said = repetita(
        "study", verb, place.study, "--corpus", "nowhere.txt", "--root", place.root, cwd=place.root.parent
    )
    assert said.returncode == 2
    assert len(said.stderr.splitlines()) == 1
    assert "nowhere.txt" in said.stderr
    assert not (place.root / "runs").exists()


def test_a_report_of_a_text_that_was_never_run(done: Place) -> None:
    said = repetita(
        "study",
        "report",
        done.study,
        "--corpus",
        "sotu",
        "--scale",
        "tiny",
        "--root",
        done.root,
        cwd=done.root,
    )
    assert said.returncode == 2
    assert "--corpus sotu" in said.stderr
