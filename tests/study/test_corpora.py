"""Probes that read another corpus: planned, priced, measured in a finished run, and known by its content."""

import json
import shutil
from pathlib import Path

import pytest

from repetita.cadence import At
from repetita.corpus.sequences import CorpusSpec
from repetita.corpus.tokenizer import TokenizerSpec
from repetita.corpus.treatment import Stream
from repetita.errors import SpecError
from repetita.measure.memorization import ScoreProbe
from repetita.model.config import ModelConfig
from repetita.study.corpora import Corpora
from repetita.study.expand import corpora_of, expand, in_run, measurement_key
from repetita.study.plan import PlannedRun
from repetita.study.prepare import cost_tokens, read_by
from repetita.study.single import train_run
from repetita.study.text import Text, with_text
from repetita.train.recipe import Recipe, RunSpec
from tests.study.places import write_study

BPE = TokenizerSpec(vocab_size=280)


@pytest.fixture
def prose(tmp_path: Path) -> CorpusSpec:
    return CorpusSpec(source=str(write_study(tmp_path).study.parent / "corpus"), tokenizer=BPE, length=16)


@pytest.fixture
def code(prose: CorpusSpec) -> CorpusSpec:
    return CorpusSpec(source="python-stdlib", limit_documents=12, length=8).with_ids_of(prose)


def run_of(corpus: CorpusSpec) -> RunSpec:
    return RunSpec(
        corpus=corpus,
        model=ModelConfig(n_layer=1, d_model=8, n_head=1, vocab_size=280, context=16),
        treatment=Stream(),
        recipe=Recipe(learning_rate=0.01, warmup_steps=2),
        steps=4,
        batch_size=4,
    )


def probe(corpus: CorpusSpec | None, **fields: object) -> ScoreProbe:
    given = {"name": "code", "on": ("test",), "max_sequences": 20, "cadence": At(at=())}
    return ScoreProbe(**given | fields | ({"corpus": corpus} if corpus else {}))


def test_a_finished_run_is_measured_on_another_corpus(
    prose: CorpusSpec, code: CorpusSpec, tmp_path: Path
) -> None:
    spec, root = run_of(prose), tmp_path / "out"
    own = train_run(spec, root=root, probes=[probe(None, name="own")])
    both = train_run(spec, root=root, probes=[probe(None, name="own"), probe(code)])
    assert (both.path, own.trained_steps, both.trained_steps) == (own.path, 4, 0)
    losses = {row["probe"]: row["value"] for row in both.last if row["metric"] == "loss"}
    # A model that is hardly trained finds either text as hard as any.
    assert set(losses) == {"own", "code"}
    assert losses["own"] != losses["code"]
    assert all(abs(loss - 5.6) < 0.3 for loss in losses.values())
    counted = {row["probe"]: row["n"] for row in both.last if row["metric"] == "loss"}
    assert 20 * 7 < counted["code"] <= 20 * 8
    written = "".join(file.read_text() for file in own.path.glob("*.json*"))
    assert str(tmp_path) not in written


def test_it_is_planned_and_priced(prose: CorpusSpec, code: CorpusSpec, tmp_path: Path) -> None:
    corpora = Corpora(tmp_path / "out")
    budgeted = probe(code, max_sequences=None, budget="1/2")
    planned = PlannedRun(
        spec=run_of(prose), labels={}, probes=(probe(None, name="own"), probe(code), budgeted)
    )
    assert corpora_of([planned]) == (prose, code)
    (job,) = expand([planned], root=tmp_path, corpora=corpora.fingerprint)
    costs = cost_tokens(job, corpora=corpora, known={})
    assert [costs[due.key] for due in job.probes][:2] == [20 * 16, 20 * 8]
    # Half of 4 x 4 sequences of 16 tokens, at a third of the cost, at two states, in sequences of 8.
    assert in_run(budgeted, spec=planned.spec).max_sequences == 24  # type: ignore[attr-defined]


def test_a_key_depends_on_the_content_and_not_on_the_place(prose: CorpusSpec, tmp_path: Path) -> None:
    there = tmp_path / "there" / "corpus"
    shutil.copytree(prose.source, there)
    corpora, spec = Corpora(tmp_path / "out"), run_of(prose)

    def key(corpus: CorpusSpec | None) -> str:
        return measurement_key(probe(corpus), spec=spec, corpora=corpora.fingerprint)

    moved = prose.edit(source=str(there))
    assert probe(moved).fingerprint == probe(prose).fingerprint
    assert key(moved) == key(prose) != key(None)
    assert key(prose.edit(length=8)) != key(prose)
    (there / "00.txt").write_text("another word or two " * 9)
    fresh = Corpora(tmp_path / "again")
    assert measurement_key(probe(moved), spec=spec, corpora=fresh.fingerprint) != key(prose)
    assert probe(None).fingerprint == "5e558b9adb5d"


def test_what_cannot_be_read_is_said_before_anything_is_trained(
    prose: CorpusSpec, code: CorpusSpec, tmp_path: Path
) -> None:
    corpora = Corpora(tmp_path / "out")

    def plan(given: ScoreProbe) -> None:
        planned = PlannedRun(spec=run_of(prose), labels={}, probes=(given,))
        (job,) = expand([planned], root=tmp_path, corpora=corpora.fingerprint)
        read_by(job, corpora=corpora)

    plan(probe(code))
    with pytest.raises(SpecError, match=r"reads python-stdlib by another tokenizer .*with_ids_of"):
        plan(probe(code.edit(tokenizer=BPE)))
    with pytest.raises(SpecError, match=r"sequences of 32 tokens, and the model's context is 16"):
        plan(probe(code.edit(length=32)))
    with pytest.raises(SpecError, match=r"the set 'repeated', which the corpus that it names lacks"):
        plan(probe(code, on=("repeated",)))


def test_another_text_in_place_of_the_own_one_gives_its_ids_to_the_rest(
    prose: CorpusSpec, code: CorpusSpec
) -> None:
    own, again = probe(None, name="own"), probe(prose.edit(length=8), name="again")
    run = PlannedRun(spec=run_of(prose), labels={}, probes=(own, probe(code), again))
    ((changed),) = with_text([run], Text(source="sotu"))
    assert changed.spec.corpus.source == "sotu"
    assert changed.probes[0] == own
    read = [one.corpus for one in changed.probes[1:] if isinstance(one, ScoreProbe)]
    assert [one.source for one in read if one] == ["python-stdlib", "sotu"]
    assert read[0] is not None and read[0].tokenizer.trained_on == changed.spec.corpus.text
    assert read[1] == changed.spec.corpus.edit(length=8)
    # Code is no other text where the runs train on code.
    ((onto_code),) = with_text([run], Text(source="python-stdlib"))
    assert [one.name for one in onto_code.probes] == ["own", "again"]


def test_what_a_run_says_of_its_corpus_has_no_path(prose: CorpusSpec, tmp_path: Path) -> None:
    spec = run_of(CorpusSpec(source="python-stdlib", limit_documents=12, length=16).with_ids_of(prose))
    path = train_run(spec, root=tmp_path / "out", probes=[probe(None)]).path
    told = json.loads((path / "run.json").read_text())["spec"]["corpus"]["tokenizer"]["trained_on"]
    assert told == {"source": "corpus", "text_field": "text"}
    assert str(tmp_path) not in (path / "run.json").read_text()
