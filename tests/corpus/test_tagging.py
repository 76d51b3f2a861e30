"""Tags are made once a text and tagger, by any number of workers, and are checked when they are read."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from repetita.corpus import taggers, tagging
from repetita.corpus.building import build_shards
from repetita.corpus.shards import Shards
from repetita.corpus.source import Document, Source
from repetita.corpus.tagging import (
    DocumentWords,
    agreement,
    open_tags,
    sentences_of,
    tag_shards,
    tag_text,
    tags_path,
    text_of,
)
from repetita.corpus.tokenizer import TokenizerSpec
from repetita.errors import CorpusError, DamagedError

TEXTS = (
    "The naïve ministers of Perú paid 1,000 dollars.  They were not pleased!\n\nAn “old” law — 20 words.",
    "Congress met.",
    "   \n\n Peace and war, war and peace…   ",
    "漢字 and 😀 stand here. Señor Núñez's ships don't sail.",
)


@pytest.fixture(autouse=True)
def lexicon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(taggers.CHOICE, taggers.LEXICON)
    monkeypatch.setattr(tagging, "installed", lambda: [taggers.find_tagger(taggers.LEXICON)])


def source() -> Source:
    def documents() -> Iterator[Document]:
        for number, text in enumerate(TEXTS * 3):
            yield Document(text + f" No. {number}", f"d{number}", "", None)

    return Source("small", "1", {"source": "small"}, documents)


def built(folder: Path, kind: str = "bytes") -> Shards:
    spec = TokenizerSpec(kind="bytes") if kind == "bytes" else TokenizerSpec(vocab_size=300)
    return build_shards(folder / kind, source=source(), tokenizer=spec)


def test_places_are_those_of_the_words(tmp_path: Path) -> None:
    shards = built(tmp_path)
    tags = tag_shards(shards)
    for document, text in enumerate(TEXTS):
        whole = f"{text} No. {document}"
        assert text_of(shards, document) == whole
        words = tags.words(document)
        data = whole.encode()
        found = [data[start:stop].decode() for start, stop in zip(words.starts, words.stops, strict=True)]
        assert "".join(found) == "".join(whole.split())
        assert words.opens.sum() == sum(bool(sentence.strip()) for sentence in sentences_of(whole)[0])
    first = tags.words(0)
    assert [taggers.CLASSES[kind] for kind in first.classes[2:8]] == [
        "noun", "adposition", "proper noun", "verb", "numeral", "noun",
    ]  # fmt: skip


def test_all_tokenizers_of_a_text_share_its_tags(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = tag_shards(built(tmp_path))
    monkeypatch.setattr(tagging, "tag_text", None)
    assert tag_shards(built(tmp_path, "bpe")).path == one.path


def test_workers_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tagging, "TASK_BYTES", 200)
    alone = tag_shards(built(tmp_path / "a"), workers=1)
    monkeypatch.setattr(tagging, "IN_PROCESS_BYTES", 100)
    shared = tag_shards(built(tmp_path / "b"), workers=2)
    assert alone.manifest == shared.manifest


def test_a_corpus_without_tags_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"no parts of speech by textblob .*; tag it first with Corpus.tag"):
        open_tags(built(tmp_path))


@pytest.mark.parametrize("name", [tagging.SPANS, tagging.PLACES, tagging.MANIFEST])
def test_a_damaged_file_is_named(tmp_path: Path, name: str) -> None:
    shards = built(tmp_path)
    path = tag_shards(shards).path
    data = bytearray((path / name).read_bytes())
    data[len(data) // 2] ^= 1
    (path / name).write_bytes(bytes(data))
    with pytest.raises(DamagedError, match=rf"{name} .*recorded hash; delete the folder"):
        open_tags(shards)


def test_tokens_that_lose_the_text_have_no_tags(tmp_path: Path) -> None:
    shards = built(tmp_path)
    shards.manifest["lossless"] = False
    with pytest.raises(CorpusError, match="does not keep the text to the byte"):
        tag_shards(shards)


def test_a_stopped_attempt_leaves_nothing_that_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = built(tmp_path)

    def broken(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(tagging, "agreement", broken)
        with pytest.raises(KeyboardInterrupt):
            tag_shards(shards)
    assert not tags_path(shards, tagger=taggers.find_tagger()).exists()
    assert tag_shards(shards).manifest["words"]["noun"] > 0


def test_what_is_kept_comes_back() -> None:
    starts, stops = np.array([3, 70_000, 70_005]), np.array([9, 70_005, 500_000])
    words = DocumentWords(starts, stops, np.array([1, 13, 5], np.int8), np.array([True, False, True]))
    for before, after in zip(words, DocumentWords.unpacked(words.packed()), strict=True):
        np.testing.assert_array_equal(before, after)
    empty = tag_text("", tagger=taggers.open_tagger(taggers.find_tagger()))
    assert [len(values) for values in DocumentWords.unpacked(empty.packed())] == [0, 0, 0, 0]


def test_agreement_counts_words_that_are_cut_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second tagger that calls every word a noun agrees on the nouns alone."""
    shards, first = built(tmp_path), taggers.find_tagger()
    assert agreement(shards, tagger=first) is None

    class Nouns:
        identity = taggers.TaggerName("nouns", "1")
        split = staticmethod(taggers.open_tagger(first).split)

        def classes(self, sentences: list[taggers.Sentence]) -> list[list[int]]:
            return [[1] * len(sentence.spans) for sentence in sentences]

    opened = taggers.open_tagger
    monkeypatch.setattr(tagging, "installed", lambda: [first, Nouns.identity])
    monkeypatch.setattr(
        tagging, "open_tagger", lambda name: Nouns() if name.name == "nouns" else opened(name)
    )
    found = agreement(shards, tagger=first)
    assert found is not None
    words = tag_shards(shards).manifest["words"]
    assert found["with"] == "nouns 1" and found["same_words"] == 1.0
    assert found["words"] == sum(words.values())
    assert found["same_class"] == pytest.approx(words["noun"] / sum(words.values()))
    assert found["by_class"]["noun"] == 1.0 and found["by_class"]["verb"] == 0.0
