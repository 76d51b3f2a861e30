"""A text that is only expected is planned with by its size, never fetched, and never trained on."""

import json
import socket
from typing import Any, NoReturn

import pytest

from repetita.corpus.sequences import CorpusSpec
from repetita.corpus.tokenizer import TokenizerSpec
from repetita.corpus.treatment import Passes, SpecialBatch, Stream
from repetita.errors import CorpusError
from repetita.spec import fingerprint
from repetita.study.corpora import Corpora
from repetita.study.execute import execute
from repetita.study.expected import PlanCorpora, plan_corpora
from repetita.study.find import built_in, find_study
from repetita.study.plan import Expected
from repetita.study.prepare import portion, prepare
from repetita.study.summary import summarise
from tests.study.places import Place, repetita
from tests.study.tiny_study import CORPUS, run

HUB = CORPUS.edit(source="hf:owner/name")
POOLS = {"train": 300, "test": 30, "special": 40, "twin": 40, "placebo": 40}
PAPER_SCALES = [name for name in built_in() if "paper" in find_study(name).study.scales]


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if there were no network, and an error for whoever looks for it."""

    def refuse(*_: Any, **__: Any) -> NoReturn:
        raise AssertionError("a plan asks nothing of the network")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def plan(place: Place) -> PlanCorpora:
    return PlanCorpora(place.root, expected=(Expected(HUB, POOLS),))


@pytest.mark.parametrize(
    "treatment",
    [
        Stream(),
        Passes(n_sequences=8),
        Passes(n_sequences=4, out_of=8),
        SpecialBatch(base=Passes(n_sequences=8), size=4, at=6, n_batches=2),
        SpecialBatch(base=Stream(), size=4, at=6),
    ],
    ids=lambda treatment: treatment.kind,
)
def test_sets_have_the_sizes_that_they_would_have(place: Place, treatment: Any, offline: None) -> None:
    """The same plan twice: on a real text, and on one that is said to be as large."""
    real = Corpora(place.root)
    spec = run(treatment)
    own = spec.edit(corpus=spec.corpus.edit(source=str(place.study.parent / "corpus")))
    pools = real.open(own.corpus).pools()
    told = PlanCorpora(place.root, expected=(Expected(HUB, pools),))
    known, expected = real.sets(own), told.sets(own.edit(corpus=HUB))
    assert list(known) == list(expected)
    for name in (*known, "batch/3"):
        assert len(known[name].indices) == len(expected[name].indices), name
        assert known[name].sequences.length == expected[name].sequences.length


def test_other_splits_get_their_share(place: Place) -> None:
    other = HUB.edit(splits=HUB.splits.edit(test="0.2"))
    pools = plan(place).sets(run(Passes(n_sequences=8)).edit(corpus=other))
    assert len(pools["test"].indices) == int(0.2 * sum(POOLS.values()))


def test_it_is_never_opened(place: Place, offline: None) -> None:
    corpora = plan(place)
    assert not corpora.is_here(HUB)
    assert (
        corpora.fingerprint(HUB) != corpora.fingerprint(HUB.edit(length=32)) if corpora.is_here(HUB) else True
    )
    with pytest.raises(
        CorpusError, match=r"repetita corpus build hf:owner/name --vocab-size 257, or name a text"
    ):
        corpora.open(HUB)


def test_where_it_was_built_it_is_real(place: Place, offline: None) -> None:
    """A built corpus is known by its card, so that no one has to ask the hub for its commit."""
    built = Corpora(place.root).open(CORPUS.edit(source=str(place.study.parent / "corpus")))
    file = built.path / "manifest.json"
    values = json.loads(file.read_text())
    values["card"]["source"] = "hf:owner/name"
    del values["sha256"]
    file.write_text(json.dumps(values | {"sha256": fingerprint(values)}))
    corpora = plan(place)
    assert corpora.is_here(HUB)
    assert corpora.open(HUB).pools() == built.pools()


def test_a_text_with_the_ids_of_one_that_is_not_here_is_expected_too(place: Place, offline: None) -> None:
    hub = HUB.edit(tokenizer=TokenizerSpec(vocab_size=280))
    code = CorpusSpec(source="python-stdlib", limit_documents=9, length=16).with_ids_of(hub)
    told = (Expected(hub, POOLS), Expected(code, {"train": 90, "test": 7}))
    corpora = PlanCorpora(place.root, expected=told)
    spec = run(Stream()).edit(corpus=hub)
    assert len(corpora.other_sets(code, read_by=spec)["test"].indices) == 7
    with pytest.raises(CorpusError, match="fetch it by repetita corpus build hf:owner/name --vocab-size 280"):
        corpora.open(code)
    # Once that one is here, all that it takes is here.
    built = Corpora(place.root).open(
        hub.edit(source=str(place.study.parent / "corpus"), tokenizer=hub.tokenizer)
    )
    file = built.path / "manifest.json"
    values = json.loads(file.read_text())
    values["card"]["source"] = "hf:owner/name"
    del values["sha256"]
    file.write_text(json.dumps(values | {"sha256": fingerprint(values)}))
    assert PlanCorpora(place.root, expected=told).is_here(code)


@pytest.mark.parametrize("name", PAPER_SCALES)
def test_paper_scales_are_planned_offline(name: str, place: Place, offline: None) -> None:
    part = portion(name, scale="paper")
    prepared = prepare([part], root=place.root, corpora=plan_corpora([part], root=place.root))
    assert summarise(prepared, processes=1).training_tokens > 10**9
    assert not place.root.exists()


def test_a_plan_that_cannot_be_run_says_what_is_needed(place: Place, offline: None) -> None:
    with pytest.raises(
        CorpusError, match="can only be planned with; fetch it by repetita corpus build hf:Salesforce"
    ):
        execute([portion("forgetting", scale="paper")], root=place.root)
    assert not (place.root / "studies").exists()


def test_from_the_command_line(place: Place) -> None:
    said = repetita(
        "study", "run", "forgetting", "--scale", "paper", "--root", place.root, cwd=place.study.parent
    )
    assert said.returncode == 2
    assert len(said.stderr.splitlines()) == 1
