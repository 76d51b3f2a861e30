"""Records give back what was written, and rank strings as Python sorts them."""

import json
from hashlib import sha256

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from repetita.corpus import catalogue as module
from repetita.corpus.catalogue import RECORD, Catalogue, Entry, catalogue_of_lists

STRINGS = st.text(st.characters(codec="utf-8"), max_size=12)


def catalogue(entries: list[Entry]) -> Catalogue:
    packed = [entry.packed() for entry in entries]
    records, strings = (b"".join(part[i] for part in packed) for i in (0, 1))
    return Catalogue(np.frombuffer(records, RECORD), np.frombuffer(strings, np.uint8))


ENTRIES = st.lists(
    st.builds(
        Entry,
        st.integers(0, 2**40),
        st.binary(min_size=32, max_size=32),
        STRINGS,
        STRINGS,
        st.none() | STRINGS,
    ),
    min_size=1,
    max_size=30,
)


@given(ENTRIES)
def test_records_give_back_what_was_written(entries: list[Entry]) -> None:
    documents = catalogue(entries)
    assert len(documents) == len(entries)
    assert documents.n_bytes.tolist() == [entry.n_bytes for entry in entries]
    for column, name in ((documents.names, "name"), (documents.sources, "source"), (documents.dates, "date")):
        expected = [getattr(entry, name) for entry in entries]
        assert list(column) == [column[i] for i in range(len(column))] == expected
    assert list(documents.hashes()) == [entry.sha256.hex() for entry in entries]
    lists = {
        "bytes": documents.n_bytes.tolist(),
        "text_hashes": list(documents.hashes()),
        "names": list(documents.names),
        "sources": list(documents.sources),
        "dates": list(documents.dates),
    }
    again = catalogue_of_lists(json.dumps(lists).encode())
    assert list(again.dates) == lists["dates"]
    assert list(again.names) == lists["names"]


@given(st.lists(st.none() | STRINGS | st.sampled_from(["", "a", "a\0", "ab", "é", "a" * 70]), min_size=1))
def test_ranks_sort_as_strings_do(values: list[str | None]) -> None:
    column = catalogue([Entry(1, bytes(32), "n", "", value) for value in values]).dates
    ranks = column.ranks()
    strings = [value or "" for value in values]
    assert sorted(strings) == [strings[i] for i in np.argsort(ranks, kind="stable")]
    assert len(set(ranks.tolist())) == len(set(strings))


def test_columns_are_read_in_stretches(monkeypatch: pytest.MonkeyPatch) -> None:
    entries = [Entry(1, bytes(32), f"name {i}", "", None if i % 3 else str(i)) for i in range(100)]
    whole = list(catalogue(entries).dates)
    monkeypatch.setattr(module, "AT_ONCE", 7)
    assert list(catalogue(entries).dates) == whole
    assert list(catalogue(entries).names) == [entry.name for entry in entries]


def test_copies_are_told_by_the_whole_hash() -> None:
    """Two that agree in the first 64 bits are not copies."""
    hashes = [sha256(str(i % 4).encode()).digest() for i in range(8)]
    assert len(set(catalogue([Entry(1, one, "", "", None) for one in hashes]).copies().tolist())) == 4
    alike = [hashes[0][:8] + bytes([i % 3]) * 24 for i in range(9)]
    copies = catalogue([Entry(1, one, "", "", None) for one in alike]).copies()
    assert [copies.tolist().index(number) for number in copies.tolist()] == [0, 1, 2] * 3
