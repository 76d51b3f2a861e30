"""Canaries are in a text as often as was asked for, and the rest of it is as it was."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from repetita.corpus.canaries import CanarySpec, insert_canaries, make_canaries, read_canaries
from repetita.corpus.documents import read_documents
from repetita.corpus.source import Document
from repetita.corpus.synthetic import canaries
from repetita.errors import CorpusError, DamagedError, SpecError

SPEC = CanarySpec(counts=(0, 1, 3, 20), each=3, n_digits=5)


def documents(texts: list[str]) -> Any:
    return lambda: iter([Document(text, f"d{i}", "s", None) for i, text in enumerate(texts)])


@settings(max_examples=20)
@given(st.lists(st.text("ab\n\r .", max_size=30), min_size=1, max_size=6), st.integers(0, 5))
def test_as_often_as_was_asked_for_and_nothing_else(texts: list[str], seed: int) -> None:
    spec = SPEC.edit(seed=seed)
    own = spec.canaries()
    known = {canary.text: number for number, canary in enumerate(own)}
    found: Counter[int] = Counter()
    written = list(insert_canaries(spec, documents=documents(texts)))
    assert len(written) == len(texts)
    for text, one in zip(texts, written, strict=True):
        lines = one.document.text.split("\n")
        found.update(known[line] for line in lines if line in known)
        assert "\n".join(line for line in lines if line not in known) == text
        assert len(one.places) == sum(line in known for line in lines)
        for place in one.places:
            assert place.document == one.document.name
            there = one.document.text[place.offset :]
            assert there.startswith(own[place.canary].text + "\n")
            assert place.offset == 0 or one.document.text[place.offset - 1] == "\n"
    assert [found[number] for number in range(spec.n)] == spec.count_of.tolist()


def test_places_are_spread_evenly() -> None:
    """Sixty insertions into sixty lines take each line once, and another seed takes others."""
    texts = ["x\n" * 19 for _ in range(6)]
    spec = CanarySpec(counts=(1, 9), each=6, n_digits=6)

    def lines(spec: CanarySpec) -> list[Any]:
        written = list(insert_canaries(spec, documents=documents(texts)))
        return [[one.places, one.document.text.count("random")] for one in written]

    half = lines(spec)
    assert all(3 <= n <= 17 for _, n in half)
    assert lines(spec) == half != lines(spec.edit(seed=1))
    full = CanarySpec(counts=(1, 19), each=6, n_digits=6)
    for one in insert_canaries(full, documents=documents(texts)):
        assert one.document.text.count("x\nx") == 0


def test_candidates_are_all_the_others() -> None:
    """Canaries and candidates share no secret, and together they are all that there are."""
    spec = CanarySpec(counts=(0, 2), each=7, n_digits=2)
    own, others = spec.canaries(), spec.candidates(1000)
    assert len(own) + len(others) == 100 == len({canary.secret for canary in [*own, *others]})
    assert spec.candidates(10) == others[:10]
    assert own == canaries(14, n_digits=2)


def test_a_key_leads_back_to_its_canaries(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("One line.\nAnother «line».\n" * 50)
    made = make_canaries(SPEC, source=str(tmp_path / "text.txt"), folder=tmp_path / "out")
    assert made == {"documents": 1, "canaries": 12, "insertions": 72}
    assert read_canaries(tmp_path / "out") == SPEC == read_canaries(tmp_path / "out" / "canaries.json")
    (document,) = read_documents(str(tmp_path / "out" / "documents.jsonl"))
    key = json.loads((tmp_path / "out" / "canaries.json").read_text())
    for canary in key["canaries"]:
        assert document.text.count(canary["text"] + "\n") == canary["count"] == len(canary["places"])
    assert str(tmp_path) not in json.dumps(key)
    with pytest.raises(SpecError, match="there already"):
        make_canaries(SPEC, source=str(tmp_path / "text.txt"), folder=tmp_path / "out")
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["canaries.json", "documents.jsonl"]


def test_no_text_is_overwritten(tmp_path: Path) -> None:
    """Not the source itself either, where it has the name that the text with canaries would have."""
    own = tmp_path / "documents.jsonl"
    own.write_text('{"text": "A line.\\n"}\n')
    with pytest.raises(SpecError, match=r"documents\.jsonl is there already; choose another folder"):
        make_canaries(SPEC, source=str(own), folder=tmp_path)
    assert own.read_text() == '{"text": "A line.\\n"}\n'
    assert [file.name for file in tmp_path.iterdir()] == ["documents.jsonl"]


def test_text_that_is_not_unicode_is_refused(tmp_path: Path) -> None:
    (tmp_path / "half.jsonl").write_text('{"text": "half a pair: \\ud83d"}\n')
    with pytest.raises(CorpusError, match=r"half\.jsonl"):
        make_canaries(SPEC, source=str(tmp_path / "half.jsonl"), folder=tmp_path / "out")


def test_a_key_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("One line.\n" * 50)
    make_canaries(SPEC, source=str(tmp_path / "text.txt"), folder=tmp_path)
    file = tmp_path / "canaries.json"
    key = json.loads(file.read_text())
    for change in ({"spec": None}, {"canaries": None}, {"canaries": key["canaries"][1:]}):
        file.write_text(json.dumps(key | change))
        with pytest.raises(DamagedError, match="make it again"):
            read_canaries(file)
    file.write_text(json.dumps(key | {"schema": 2}))
    with pytest.raises(DamagedError, match="has schema 2, this version of repetita reads 1"):
        read_canaries(file)
    file.write_text("{")
    with pytest.raises(DamagedError, match="not JSON"):
        read_canaries(file)
    with pytest.raises(CorpusError, match="canaries make"):
        read_canaries(tmp_path / "nowhere")


def test_text_that_changes_meanwhile_leaves_nothing(tmp_path: Path) -> None:
    turns = iter([["a\nb", "c"], ["a\nb"]])

    def changing() -> Iterator[Document]:
        return documents(next(turns))()  # type: ignore[no-any-return]

    with pytest.raises(CorpusError, match="changed while"):
        list(insert_canaries(SPEC, documents=changing))
    with pytest.raises(CorpusError, match="no text"):
        list(insert_canaries(SPEC, documents=documents([])))
    (tmp_path / "damaged.jsonl").write_text('{"text": "fine"}\n{"text": 3}\n')
    with pytest.raises(CorpusError, match="no text in the field"):
        make_canaries(SPEC, source=str(tmp_path / "damaged.jsonl"), folder=tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"counts": (1, 1)}, "name each once"),
        ({"counts": (-1,)}, "0 or more"),
        ({"counts": (0, 1), "each": 30, "n_digits": 2}, "raise n_digits"),
        ({"prefix": "two\nlines"}, "no line of text"),
        ({"prefix": ""}, "no line of text"),
        ({"n_digits": 19}, "n_digits"),
    ],
)
def test_canaries_that_cannot_be_are_refused(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(SpecError, match=sentence):
        CanarySpec(**values)
