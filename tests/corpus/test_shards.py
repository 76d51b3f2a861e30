"""A built corpus is whole or not there, and damage is found and named."""

import json
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from repetita.corpus import shards as module
from repetita.corpus.documents import find_source
from repetita.corpus.shards import Shards, build_shards, open_shards
from repetita.corpus.tokenizer import ByteTokenizer, Tokenizer, TokenizerSpec, train_tokenizer
from repetita.errors import CorpusError, DamagedError, StorageError
from repetita.spec import fingerprint

TEXTS = ["Eins. Zwei.\n\nDrei.", "Gänse schnattern. Laut!", "Ende"]
BYTES = TokenizerSpec(kind="bytes")


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "c.jsonl"
    path.write_text("".join(json.dumps({"text": text, "date": i}) + "\n" for i, text in enumerate(TEXTS)))
    return path


def built(corpus: Path, name: str = "built", limit_documents: int | None = None) -> Shards:
    return build_shards(
        corpus.parent / "cache" / name,
        source=find_source(str(corpus)),
        tokenizer=BYTES,
        limit_documents=limit_documents,
    )


def test_tokens_are_the_documents_with_separators(corpus: Path) -> None:
    shards = built(corpus)
    for text, start, n in zip(TEXTS, shards.offsets, shards.n_tokens, strict=True):
        assert shards.tokenizer.decode(shards.tokens[start : start + n]) == text
        assert shards.tokens[start + n] == 0
    assert len(shards.tokens) == shards.n_tokens.sum() + 3
    assert shards.n_bytes.tolist() == [len(text.encode()) for text in TEXTS]
    assert (shards.names, shards.dates) == (["1", "2", "3"], ["0", "1", "2"])


def test_ends_are_token_positions(corpus: Path) -> None:
    shards = built(corpus)
    starts = [0, *shards.sentence_ends[:-1]]
    pieces = [
        shards.tokenizer.decode(shards.tokens[a:b]) for a, b in zip(starts, shards.sentence_ends, strict=True)
    ]
    assert pieces == ["Eins.", " Zwei.\n\n", "Drei.", "Gänse schnattern.", " Laut!", "Ende"]
    assert set(shards.paragraph_ends) <= set(shards.sentence_ends)
    assert len(shards.paragraph_ends) == 4


def test_limit_and_training_sample(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert built(corpus, limit_documents=2).names == ["1", "2"]
    seen: list[str] = []

    def spy(spec: TokenizerSpec, *, texts: list[str]) -> Tokenizer:
        seen.extend(texts)
        return train_tokenizer(spec, texts=[])

    monkeypatch.setattr(module, "train_tokenizer", spy)
    built(corpus, name="all")
    assert seen == TEXTS
    seen.clear()
    monkeypatch.setattr(module, "TRAINING_BYTES", 25)
    built(corpus, name="sample")
    assert sum(len(text.encode()) for text in seen) in (24, 25)


@pytest.mark.parametrize(
    "name", ["tokens.bin", "sentences.bin", "paragraphs.bin", "documents.json", "tokenizer.json"]
)
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


def test_a_failed_build_leaves_nothing_that_counts(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_write_tokens", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        built(corpus)
    monkeypatch.undo()
    cache = corpus.parent / "cache"
    assert [path.name for path in cache.iterdir()] == [".built.lock"]
    (cache / ".built.building").mkdir()
    (cache / ".built.building" / "tokens.bin").write_bytes(b"left by a killed build")
    built(corpus).verify()
    assert sorted(path.name for path in cache.iterdir()) == [".built.lock", "built"]


def test_builders_at_once_build_once(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    builds: list[Path] = []
    original = module._build

    def counted(folder: Path, *rest: object) -> None:
        builds.append(folder)
        original(folder, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "_build", counted)
    opened: list[Shards] = []
    threads = [threading.Thread(target=lambda: opened.append(built(corpus))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(builds) == 1
    assert len(opened) == 4


def test_processes_at_once_agree(corpus: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from repetita.corpus.documents import find_source\n"
        "from repetita.corpus.shards import build_shards\n"
        "from repetita.corpus.tokenizer import TokenizerSpec\n"
        "source, spec = find_source(sys.argv[1]), TokenizerSpec(kind='bytes')\n"
        "s = build_shards(Path(sys.argv[2]), source=source, tokenizer=spec)\n"
        "s.verify(); print(s.manifest['text_sha256'])"
    )
    command = [sys.executable, "-c", code, str(corpus), str(corpus.parent / "cache" / "built")]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    answers = {process.communicate()[0] for process in started}
    assert [process.returncode for process in started] == [0, 0]
    assert len(answers) == 1


def test_a_folder_in_the_way_is_a_storage_error(corpus: Path) -> None:
    (corpus.parent / "cache").write_text("a file")
    with pytest.raises(StorageError, match="cannot write"):
        built(corpus)


def test_an_empty_corpus_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "c.jsonl").write_text("\n")
    with pytest.raises(CorpusError, match=r"'c\.jsonl' is empty"):
        built(tmp_path / "c.jsonl")


def test_large_vocabularies_take_four_bytes(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "load_tokenizer", lambda _: ByteTokenizer())

    class Wide:
        vocab_size = 70_000
        token_bytes = np.ones(70_000, dtype=np.int64)

        def encode_all(self, texts: list[str]) -> list[np.ndarray]:
            return [np.full(len(text.encode()), 69_999, dtype=np.int32) for text in texts]

        def to_json(self) -> str:
            return "{}"

    monkeypatch.setattr(module, "train_tokenizer", lambda *_, **__: Wide())
    assert built(corpus).tokens.max() == 69_999
