"""A built corpus reads as it was written, and damage is found and named."""

import hashlib
import json
from pathlib import Path

import pytest

from repetita.corpus.building import build_shards
from repetita.corpus.documents import find_source
from repetita.corpus.shards import FILES, Shards, open_shards
from repetita.corpus.tokenizer import TokenizerSpec
from repetita.errors import CorpusError, DamagedError
from repetita.spec import fingerprint

TEXTS = ["Eins. Zwei.\n\nDrei.", "Gänse schnattern. Laut!", "Ende"]


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "c.jsonl"
    path.write_text("".join(json.dumps({"text": text, "date": i}) + "\n" for i, text in enumerate(TEXTS)))
    return path


def built(corpus: Path) -> Shards:
    return build_shards(
        corpus.parent / "cache" / "built",
        source=find_source(str(corpus)),
        tokenizer=TokenizerSpec(kind="bytes"),
    )


def test_tokens_are_the_documents_with_separators(corpus: Path) -> None:
    shards = built(corpus)
    for text, start, n in zip(TEXTS, shards.offsets, shards.n_tokens, strict=True):
        assert shards.tokenizer.decode(shards.tokens[start : start + n]) == text
        assert shards.tokens[start + n] == 0
    assert len(shards.tokens) == shards.n_tokens.sum() + 3
    assert shards.documents.n_bytes.tolist() == [len(text.encode()) for text in TEXTS]
    assert list(shards.documents.names) == ["1", "2", "3"]
    assert list(shards.documents.dates) == ["0", "1", "2"]


def test_ends_are_token_positions(corpus: Path) -> None:
    shards = built(corpus)
    starts = [0, *shards.sentence_ends[:-1]]
    pieces = [
        shards.tokenizer.decode(shards.tokens[a:b]) for a, b in zip(starts, shards.sentence_ends, strict=True)
    ]
    assert pieces == ["Eins.", " Zwei.\n\n", "Drei.", "Gänse schnattern.", " Laut!", "Ende"]
    assert set(shards.paragraph_ends) <= set(shards.sentence_ends)
    assert len(shards.paragraph_ends) == 4


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_bit_is_found_and_named(corpus: Path, name: str) -> None:
    path = built(corpus).path
    data = bytearray((path / name).read_bytes())
    data[len(data) // 2] ^= 1
    (path / name).write_bytes(data)
    with pytest.raises(
        DamagedError, match=rf"{name} does not match its recorded hash; delete the folder .*built"
    ):
        open_shards(path, verify=True)


def test_a_cut_or_missing_file_is_found_on_opening(corpus: Path) -> None:
    path = built(corpus).path
    data = (path / "tokens.bin").read_bytes()
    (path / "tokens.bin").write_bytes(data[:-1])
    with pytest.raises(DamagedError, match=rf"tokens.bin has {len(data) - 1} bytes, not {len(data)}; delete"):
        open_shards(path)
    (path / "tokens.bin").unlink()
    with pytest.raises(DamagedError, match=r"tokens\.bin is missing; delete"):
        open_shards(path)


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b'{"files": {}}', None])
def test_a_damaged_manifest_is_found_on_opening(corpus: Path, content: bytes | None) -> None:
    path = built(corpus).path
    manifest = path / "manifest.json"
    if content is None:
        manifest.unlink()
    else:
        manifest.write_bytes(content)
    with pytest.raises(DamagedError, match=r"manifest\.json"):
        open_shards(path)


def test_another_schema_is_refused(corpus: Path) -> None:
    path = built(corpus).path
    manifest = json.loads((path / "manifest.json").read_text())
    del manifest["sha256"]
    manifest["schema"] = 99
    (path / "manifest.json").write_text(json.dumps({**manifest, "sha256": fingerprint(manifest)}))
    with pytest.raises(CorpusError, match="another version"):
        open_shards(path)


def test_a_corpus_of_schema_1_is_still_read(corpus: Path) -> None:
    """It had the documents as lists in one JSON file."""
    new = built(corpus)
    manifest = json.loads((new.path / "manifest.json").read_text())
    for name in ("sha256", "lossless", "unknown_tokens"):
        del manifest[name]
    for name in ("documents.bin", "documents.txt", "lengths.bin"):
        (new.path / name).unlink()
        del manifest["files"][name]
    lists = {
        "names": ["1", "2", "3"],
        "sources": ["", "", ""],
        "dates": ["0", None, "2"],
        "bytes": [len(text.encode()) for text in TEXTS],
        "tokens": new.n_tokens.tolist(),
        "text_hashes": [hashlib.sha256(text.encode()).hexdigest() for text in TEXTS],
    }
    data = json.dumps(lists).encode()
    (new.path / "documents.json").write_bytes(data)
    manifest["files"]["documents.json"] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    manifest["schema"] = 1
    (new.path / "manifest.json").write_text(json.dumps({**manifest, "sha256": fingerprint(manifest)}))
    old = open_shards(new.path, verify=True)
    assert list(old.documents.names) == lists["names"]
    assert list(old.documents.dates) == lists["dates"]
    assert list(old.documents.hashes()) == list(new.documents.hashes())
    assert (old.offsets == new.offsets).all() and (old.n_tokens == new.n_tokens).all()
    assert old.tokenizer.decode(old.tokens[: old.n_tokens[0]]) == TEXTS[0]
