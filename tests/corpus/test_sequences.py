"""Sequences are what the model reads: right targets, right flags, disjoint sets, one fingerprint."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from repetita.corpus.schedule import EMPTY, SETS, Batch
from repetita.corpus.sequences import Corpus, CorpusSpec, SequenceSet, compose, open_corpus
from repetita.corpus.splits import Splits
from repetita.corpus.synthetic import SyntheticSpec
from repetita.corpus.tokenizer import TokenizerSpec
from repetita.errors import CorpusError, SpecError

SPEC = CorpusSpec(
    source="synthetic",
    synthetic=SyntheticSpec(n_documents=60, n_words=100),
    tokenizer=TokenizerSpec(vocab_size=300),
    length=32,
    splits=Splits(test=0.1, special=0.1, twin=0.1, units=0.2),
)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("corpora")


@pytest.fixture(scope="module")
def corpus(cache: Path) -> Corpus:
    return open_corpus(SPEC, cache=cache)


def everything(of: SequenceSet) -> np.ndarray:
    return np.arange(len(of), dtype=np.int64)


def batch(sets: list[str | None], index: list[int], host: list[int] | None = None) -> Batch:
    n = len(sets)
    return Batch(
        set=np.array([EMPTY if name is None else SETS.index(name) for name in sets], dtype=np.int8),
        index=np.array(index, dtype=np.int64),
        pass_=np.zeros(n, dtype=np.int64),
        host=np.array(host or [-1] * n, dtype=np.int64),
        lane=np.zeros(n, dtype=np.int8),
        step=0,
    )


@pytest.mark.parametrize("kind", ["packed", "document", "sentence"])
def test_rows_are_shifted_and_separators_and_padding_unscored(cache: Path, kind: str) -> None:
    for of in open_corpus(SPEC.edit(breaks=kind), cache=cache).sets.values():
        rows = of.rows(everything(of))
        assert rows.tokens.shape == rows.targets.shape == rows.scored.shape == (len(of), 32)
        assert (rows.tokens[:, 0] == 0).all()
        np.testing.assert_array_equal(rows.tokens[:, 1:], rows.targets[:, :-1])
        np.testing.assert_array_equal(rows.scored, rows.targets != 0)
        padded = np.arange(32) >= of.lengths(everything(of))[:, None]
        assert not rows.scored[padded].any()
        assert of.n_scored == rows.scored.sum()
        assert (of.lengths() == 32).all() == (kind == "packed")


def test_packed_rows_are_the_documents_of_the_set_in_order(corpus: Corpus) -> None:
    of = corpus.sets["test"]
    documents = sorted(set(of.document().tolist()))
    texts = [
        corpus.tokenizer.decode(np.array(corpus._shards.tokens[a : a + n]))
        for a, n in stretches(corpus, documents)
    ]
    text = corpus.tokenizer.decode(of.rows(everything(of)).targets.ravel())
    assert "".join(texts).startswith(text)
    assert len("".join(texts)) - len(text) < 200


def stretches(corpus: Corpus, documents: list[int]) -> list[tuple[int, int]]:
    shards = corpus._shards
    return [(int(shards.offsets[d]), int(shards.n_tokens[d])) for d in documents]


def test_sets_are_disjoint_by_document_and_text(corpus: Corpus) -> None:
    documents = {name: set(of._text.documents.tolist()) for name, of in corpus.sets.items()}
    assert set(documents) == {"train", "test", "special", "twin", "units"}
    assert sum(map(len, documents.values())) == 60 == len(set.union(*documents.values()))
    rows = {
        name: {row.tobytes() for row in of.rows(everything(of)).targets} for name, of in corpus.sets.items()
    }
    assert sum(map(len, rows.values())) == len(set.union(*rows.values()))
    for name, of in corpus.sets.items():
        assert set(of.document().tolist()) <= documents[name]


def test_sequences_know_their_document_and_offset(cache: Path, corpus: Corpus) -> None:
    shards = corpus._shards
    for kind in ("packed", "document", "sentence"):
        of = open_corpus(SPEC.edit(breaks=kind), cache=cache).sets["train"]
        rows = of.rows(everything(of))
        first = rows.targets[np.arange(len(of)), rows.scored.argmax(axis=1)]
        np.testing.assert_array_equal(first, shards.tokens[shards.offsets[of.document()] + of.offset()])
    assert corpus.document_name(int(of.document(np.array([0]))[0])).startswith("zipf-")


def test_scored_bytes_are_those_of_the_text(corpus: Corpus) -> None:
    of = corpus.sets["train"]
    rows = of.rows(np.array([3, 0]))
    expected = [len(corpus.tokenizer.decode(row).encode()) for row in rows.targets]
    assert of.scored_bytes(rows).tolist() == expected


def test_a_set_encodes_as_its_corpus_does_and_counts_what_it_scores(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("repetita.corpus.tokenized.COUNTED_ROWS", 7)
    of = corpus.sets["train"]
    assert of.encode("one and two").tolist() == corpus.tokenizer.encode("one and two").tolist()
    assert corpus.tokenizer.decode(of.encode("one and two")) == "one and two"
    counts = of.token_counts()
    rows = of.rows(everything(of))
    assert counts.shape == (corpus.tokenizer.vocab_size,)
    assert (counts.sum(), counts[0]) == (of.n_scored, 0)
    assert all(counts[id_] == (rows.targets == id_).sum() for id_ in (1, 33, 98, 102))
    counts[:] = 0
    assert of.token_counts().sum() == of.n_scored


@pytest.mark.parametrize("unit", ["sentence", "paragraph", "document"])
def test_units_are_rows_of_their_own(cache: Path, unit: str) -> None:
    corpus = open_corpus(SPEC.edit(units=unit, length=512), cache=cache)
    of = corpus.sets["units"]
    rows = of.rows(everything(of))
    ends = {"sentence": ".", "paragraph": ".", "document": "."}[unit]
    for row in rows.targets:
        text = corpus.tokenizer.decode(row).rstrip()
        assert text.endswith(ends)
        assert text.count(".") == {"sentence": 1, "paragraph": min(5, text.count(".")), "document": 9}[unit]
    assert (corpus.sets["train"].lengths() == 512).all()
    if unit == "document":
        assert len(of) == of.n_documents == 12
        assert (np.diff(of.document()) > 0).all()


def test_a_bad_index_is_an_error(corpus: Corpus) -> None:
    of = corpus.sets["test"]
    for index in (-1, len(of)):
        with pytest.raises(IndexError, match="of the set test"):
            of.rows(np.array([index]))


def test_compose_takes_each_slot_from_its_set(corpus: Corpus) -> None:
    rows = compose(batch(["train", None, "special", "train"], [5, -1, 2, 0]), corpus.sets)
    for slot, (name, index) in {0: ("train", 5), 2: ("special", 2), 3: ("train", 0)}.items():
        alone = corpus.sets[name].rows(np.array([index]))
        for mine, theirs in zip(rows, alone, strict=True):
            np.testing.assert_array_equal(mine[slot], theirs[0])
    assert not rows.scored[1].any()
    assert not rows.tokens[1].any()
    same = compose(batch(["train", "train"], [5, 0]), corpus.sets)
    np.testing.assert_array_equal(same.targets, rows.targets[[0, 3]])


@pytest.mark.parametrize("kind", ["packed", "document"])
def test_items_are_written_into_their_hosts(cache: Path, kind: str) -> None:
    sets = open_corpus(SPEC.edit(units="sentence", breaks=kind, length=128), cache=cache).sets
    n = 20
    index, host = everything(sets["units"])[:n], everything(sets["train"])[-n:]
    with_items = compose(batch(["units"] * n, index.tolist(), host.tolist()), sets)
    without = compose(batch([None] * n, index.tolist(), host.tolist()), sets)
    hosts, items, lengths = sets["train"].rows(host), sets["units"].rows(index), sets["units"].lengths(index)
    offsets = set()
    for slot in range(n):
        item = items.targets[slot, : lengths[slot]]
        row = with_items.targets[slot]
        found = [o for o in range(129 - len(item)) if (row[o : o + len(item)] == item).all()]
        assert found
        start = next(o for o in found if not without.scored[slot, o : o + len(item)].any())
        offsets.add(start)
        assert with_items.scored[slot, start : start + len(item)].all()
        changed = np.zeros(128, dtype=bool)
        changed[max(0, start - 1) : start + len(item) + 1] = True
        np.testing.assert_array_equal(row[~changed], hosts.targets[slot][~changed])
        np.testing.assert_array_equal(without.targets[slot][~changed], hosts.targets[slot][~changed])
        assert not without.targets[slot][changed].any()
        assert [row[p] for p in (start - 1, start + len(item)) if 0 <= p < 128 and changed[p]].count(0) >= 1
    assert len(offsets) > 5
    again = compose(batch(["units"] * n, index.tolist(), host.tolist()), sets)
    np.testing.assert_array_equal(again.targets, with_items.targets)


def test_equal_text_elsewhere_has_the_same_fingerprint(tmp_path: Path) -> None:
    lines = "".join(json.dumps({"text": f"Sentence {i} of this text. " * 5}) + "\n" for i in range(20))
    prints = []
    for folder in ("here", "there"):
        (tmp_path / folder).mkdir()
        file = tmp_path / folder / f"{folder}.jsonl"
        file.write_text(lines if folder == "here" else lines + "\n")
        spec = CorpusSpec(source=str(file), tokenizer=TokenizerSpec(kind="bytes"), length=16)
        prints.append(open_corpus(spec, cache=tmp_path / "cache"))
    assert prints[0].fingerprint == prints[1].fingerprint
    assert prints[0].path != prints[1].path
    assert str(tmp_path) not in json.dumps(prints[0].card)
    file.write_text(lines.replace("Sentence 7", "Sentence 8"))
    assert open_corpus(spec, cache=tmp_path / "cache").fingerprint != prints[0].fingerprint


def test_what_changes_sequences_changes_the_fingerprint_and_shares_the_tokens(
    cache: Path, corpus: Corpus
) -> None:
    others = [SPEC.edit(length=16), SPEC.edit(breaks="sentence"), SPEC.edit(splits=Splits(seed=1))]
    opened = [open_corpus(spec, cache=cache) for spec in others]
    assert len({c.fingerprint for c in opened} | {corpus.fingerprint}) == 4
    assert {c.path for c in opened} == {corpus.path}


def test_the_card_is_json_and_counts(corpus: Corpus) -> None:
    card = json.loads(json.dumps(corpus.card))
    assert card["n_documents"] == 60
    assert card["sets"]["train"]["sequences"] == len(corpus.sets["train"]) == corpus.pools()["train"]
    assert card["licence"] == "CC0-1.0"


def test_verify_names_damage(tmp_path: Path, corpus: Corpus) -> None:
    corpus.verify()
    copy = tmp_path / corpus.path.name
    shutil.copytree(corpus.path, copy)
    opened = open_corpus(SPEC, cache=tmp_path)
    (copy / "tokens.bin").write_bytes(bytes((copy / "tokens.bin").stat().st_size))
    with pytest.raises(Exception, match=r"tokens\.bin does not match"):
        opened.verify()


def test_a_set_without_one_sequence_is_an_error(cache: Path) -> None:
    with pytest.raises(CorpusError, match="too few for one sequence of length 9000; raise its share"):
        open_corpus(SPEC.edit(length=9000), cache=cache)


def test_options_without_effect_are_errors() -> None:
    with pytest.raises(SpecError, match=r"splits\.units is 0"):
        CorpusSpec(units="sentence")
    with pytest.raises(SpecError, match="set source to 'synthetic'"):
        CorpusSpec(synthetic=SyntheticSpec())


def test_an_absent_synthetic_spec_is_not_in_the_fingerprint() -> None:
    assert "synthetic" not in json.loads(CorpusSpec().model_dump_json(exclude_none=True))
    assert CorpusSpec.from_json(CorpusSpec().model_dump_json()) == CorpusSpec()
