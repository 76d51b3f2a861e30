"""Prefixes change no text, an ID belongs to its sequence, and later steps change no earlier one."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from repetita.corpus.document_ids import FORMS, UNKNOWN, DocumentIds, RunIds, WithIds, split_form
from repetita.corpus.schedule import EMPTY, SETS, Schedule
from repetita.corpus.sequences import Corpus, CorpusSpec, compose, open_corpus
from repetita.corpus.splits import Splits
from repetita.corpus.synthetic import SyntheticSpec
from repetita.corpus.tokenizer import TokenizerSpec
from repetita.corpus.treatment import Passes
from repetita.errors import SpecError, UserError
from tests.corpus.plans import TREATMENTS, schedule

WORDS = np.array([7, 8])
FIRST, ROOM = 257, 5000
KINDS = [DocumentIds(kind=kind) for kind in ("prepended", "redrawn", "constant", "words")]
SPEC = CorpusSpec(
    source="synthetic",
    synthetic=SyntheticSpec(n_documents=60, n_words=100),
    tokenizer=TokenizerSpec(kind="bytes"),
    length=16,
    splits=Splits(test=0.1, special=0.1, twin=0.1, placebo=0.1, novel=0.1, units=0.2),
    units="sentence",
)


class Numbered:
    """A set of which document d has the sequences 3 d, 3 d + 1, 3 d + 2."""

    def document(self, indices: Any) -> Any:
        return np.asarray(indices) // 3


SETS_OF_NUMBERED = dict.fromkeys(SETS, Numbered())


def ids(spec: DocumentIds, plan: Schedule, *, words: Sequence[int] = (7, 8), room: int = ROOM) -> RunIds:
    return RunIds(
        spec, schedule=plan, sets=SETS_OF_NUMBERED, words=np.array(words, np.int64), first=FIRST, room=room
    )


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return open_corpus(SPEC, cache=tmp_path_factory.mktemp("corpora"))


@settings(max_examples=60, deadline=None)
@given(TREATMENTS, st.sampled_from(KINDS))
def test_each_read_sequence_has_one_id_and_each_id_one_sequence(treatment: Any, spec: DocumentIds) -> None:
    plan = schedule(treatment)
    of = ids(spec, plan)
    owners: dict[int, set[tuple[int, int]]] = {}
    for batch in plan.batches():
        numbers = of.of_batch(batch)
        for slot, number in enumerate(numbers.tolist()):
            host, code, index = int(batch.host[slot]), int(batch.set[slot]), int(batch.index[slot])
            if code == EMPTY and host < 0:
                assert number == UNKNOWN
                continue
            assert 0 <= number < max(1, of.needed if spec.kind != "redrawn" else ROOM)
            owner = (SETS.index("train"), host) if host >= 0 else (code, index)
            owners.setdefault(number, set()).add(owner)
            if spec.kind == "prepended":
                assert of.trained(SETS[owner[0]], np.array([owner[1]]))[0] == number
    if spec.kind == "prepended":
        assert all(len(own) == 1 for own in owners.values())
        # No ID is left over, but for a fixed set of which the run ends before it was read once.
        assert set(owners) == set(range(len(owners)))
        assert isinstance(plan.treatment, Passes) or of.needed == len(owners)


@settings(max_examples=40, deadline=None)
@given(TREATMENTS, st.integers(1, 39), st.sampled_from(KINDS))
def test_what_comes_later_changes_no_earlier_prefix(treatment: Any, step: int, spec: DocumentIds) -> None:
    whole = schedule(treatment)
    try:
        start = schedule(whole.treatment.until(step), steps=step)
    except SpecError:
        return
    one, other = ids(spec, whole), ids(spec, start)
    for batch in start.batches():
        np.testing.assert_array_equal(one.of_batch(batch), other.of_batch(batch))


def test_ids_of_documents_are_shared_by_their_sequences() -> None:
    plan = schedule(Passes(n_sequences=60))
    of = ids(DocumentIds(per="document"), plan)
    read = np.sort(plan.members("train"))
    numbers = of.trained("train", read)
    by_document = {d: set(numbers[read // 3 == d].tolist()) for d in np.unique(read // 3).tolist()}
    assert all(len(own) == 1 for own in by_document.values())
    assert len(set(numbers.tolist())) == len(by_document) == of.needed < 60
    first = [int(of.of_batch(plan.batch(0))[slot]) for slot in range(8)]
    assert first[0] == 0
    assert set(first) == set(range(max(first) + 1))


def test_redrawn_ids_differ_between_visits_and_are_reproducible() -> None:
    plan = schedule(Passes(n_sequences=8), steps=60)
    of, again = (ids(DocumentIds(kind="redrawn"), plan, room=100) for _ in range(2))
    drawn = np.array([of.of_batch(batch) for batch in plan.batches()])
    np.testing.assert_array_equal(drawn, [again.of_batch(batch) for batch in plan.batches()])
    other = ids(DocumentIds(kind="redrawn"), schedule(Passes(n_sequences=8), steps=60, seed=1), room=100)
    assert (drawn != [other.of_batch(batch) for batch in plan.batches()]).mean() > 0.9
    # 480 draws out of 100: nearly all occur, and hardly any twice in a row before one sequence.
    assert len(np.unique(drawn)) > 95
    order = np.array([np.argsort(batch.index) for batch in plan.batches()])
    by_sequence = np.take_along_axis(drawn, order, axis=1)
    assert (by_sequence[1:] == by_sequence[:-1]).mean() < 0.05
    measured = of.trained("train", plan.members("train"))
    np.testing.assert_array_equal(measured, again.trained("train", plan.members("train")))
    assert len(set(measured.tolist())) > 1


def test_the_drawn_id_is_that_of_another_sequence() -> None:
    plan = schedule(Passes(n_sequences=60))
    of = ids(DocumentIds(), plan)
    read = plan.members("train")
    drawn = of.drawn("train", read)
    assert (drawn != of.trained("train", read)).all()
    assert set(drawn.tolist()) <= set(range(60))
    test = of.drawn("test", np.arange(20))
    assert len(set(test.tolist())) > 5
    assert test.max() < 60
    np.testing.assert_array_equal(of.trained("test", np.arange(20)), UNKNOWN)


@settings(max_examples=25, deadline=None)
@given(TREATMENTS, st.sampled_from(KINDS), st.integers(0, 39))
def test_the_text_of_a_step_is_that_without_ids(
    corpus: Corpus, treatment: Any, spec: DocumentIds, step: int
) -> None:
    pools = corpus.pools()
    lengths = {name: corpus.sets[name].lengths() for name in ("units", "special")}
    documents = corpus.sets["units"].document()
    try:
        plan = schedule(treatment, pools=pools, lengths=lengths, documents=documents, batch_size=4)
    except UserError:  # A text as small as this has too few sequences for some treatments.
        assume(False)
    of = RunIds(spec, schedule=plan, sets=corpus.sets, words=WORDS, first=FIRST, room=ROOM)
    batch = plan.batch(step)
    body, rows = compose(batch, corpus.sets), compose(batch, corpus.sets, ids=of)
    n = of.length
    assert n == 2 + (spec.kind != "words")
    np.testing.assert_array_equal(rows.targets[:, n:], body.targets)
    np.testing.assert_array_equal(rows.scored[:, n:], body.scored)
    assert not rows.scored[:, :n].any()
    np.testing.assert_array_equal(rows.tokens[:, 1:], rows.targets[:, :-1])
    assert not rows.tokens[:, 0].any()
    np.testing.assert_array_equal(rows.targets[:, :2], np.broadcast_to(WORDS, (4, 2)))
    if spec.kind != "words":
        numbers = of.of_batch(batch)
        np.testing.assert_array_equal(rows.targets[:, 2], np.where(numbers == UNKNOWN, 0, FIRST + numbers))


def test_a_probe_reads_text_and_bytes_as_without_the_prefix(corpus: Corpus) -> None:
    plan = schedule(Passes(n_sequences=11), pools=corpus.pools(), lengths={}, documents=None, batch_size=4)
    of = RunIds(DocumentIds(), schedule=plan, sets=corpus.sets, words=WORDS, first=FIRST, room=ROOM)
    train, indices = corpus.sets["train"], plan.members("train")
    behind = WithIds(train, ids=of, number=lambda at: of.trained("train", at))
    assert (len(behind), behind.length) == (len(train), 19)
    rows, body = behind.rows(indices), train.rows(indices)
    np.testing.assert_array_equal(rows.targets[:, 3:], body.targets)
    np.testing.assert_array_equal(behind.scored_bytes(rows), train.scored_bytes(body))
    np.testing.assert_array_equal(behind.encode("one text"), train.encode("one text"))
    np.testing.assert_array_equal(behind.token_counts(), train.token_counts())
    assert rows.targets[:, 2].tolist() == [FIRST + number for number in of.trained("train", indices)]


def test_a_prefix_has_no_part_of_speech(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = schedule(Passes(n_sequences=11), pools=corpus.pools(), lengths={}, documents=None, batch_size=4)
    of = RunIds(DocumentIds(), schedule=plan, sets=corpus.sets, words=WORDS, first=FIRST, room=ROOM)
    train, indices = corpus.sets["train"], plan.members("train")
    classes = (train.rows(indices).targets % 5).astype(np.int8)
    monkeypatch.setattr(train, "tags", lambda _: classes)
    behind = WithIds(train, ids=of, number=lambda at: of.trained("train", at)).tags(indices)
    assert behind.dtype == np.int8 and not behind[:, :3].any()
    np.testing.assert_array_equal(behind[:, 3:], classes)


def test_names_of_forms() -> None:
    assert split_form("train") == ("train", "")
    assert split_form("special/0/plain") == ("special/0", "plain")
    assert split_form("special/0") == ("special/0", "")
    assert [split_form(f"test/{form}") for form in FORMS] == [("test", form) for form in FORMS]


def test_fields_without_effect_are_refused() -> None:
    with pytest.raises(SpecError, match="per = 'document' has no effect on kind 'constant'"):
        DocumentIds(kind="constant", per="document")
    with pytest.raises(SpecError, match="empty text puts nothing"):
        DocumentIds(kind="words", text="")
    assert DocumentIds().longest() == 13
    assert DocumentIds(kind="words").longest() == 12
