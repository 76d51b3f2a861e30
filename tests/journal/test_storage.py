"""A storage: objects that are there whole or not, and one sentence for whatever a store does not do."""

import hashlib
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from repetita.errors import DamagedError, StorageError, UserError
from repetita.journal import storage
from repetita.journal.shelf import Shelf
from repetita.journal.storage import Storage
from repetita.journal.stored_journal import add, chain, parts


@pytest.fixture(autouse=True)
def _no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "WAITS", (0.0, 0.0))


@pytest.fixture(params=["memory", "file"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"memory://{uuid.uuid4().hex}/in" if request.param == "memory" else f"file://{tmp_path}/kept"


def test_what_is_put_is_read_listed_and_removed(url: str, tmp_path: Path) -> None:
    at = Storage.open(url)
    assert at.put("a/b/c", b"one") and at.put("a/b/c", b"three")
    assert at.put("a/d", b"new", new=True) and not at.put("a/d", b"other", new=True)
    (tmp_path / "file").write_bytes(b"x" * (3 << 20))
    at.upload(tmp_path / "file", name="a/large")
    assert at.names("a") == {"b/c": 5, "d": 3, "large": 3 << 20}
    assert at.names("nothing") == {}
    again = Storage.open(url, new=False)
    assert again.get("a/b/c") == b"three" and again.get("a/d") == b"new"
    again.remove(["a/b/c", "a/never"])
    assert set(again.names("a")) == {"d", "large"}
    with pytest.raises(FileNotFoundError):
        again.get("a/b/c")


def test_what_is_downloaded_is_verified(url: str, tmp_path: Path) -> None:
    at = Storage.open(url)
    at.put("a", b"right")
    with pytest.raises(DamagedError, match="does not match its recorded hash"):
        at.download("a", to=tmp_path / "into" / "a", sha256="0" * 64)
    assert not list((tmp_path / "into").iterdir())


def test_a_store_that_does_not_answer_is_asked_three_times(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    at = Storage.open(url)
    asked: list[object] = []

    def silent(*given: object, **_: object) -> dict[str, Any]:
        asked.append(given)
        if len(asked) < fails + 1:
            raise ConnectionResetError("the line is dead")
        return {}

    monkeypatch.setattr(at._files, "find", silent)
    fails = 2
    assert at.names("a") == {} and len(asked) == 3
    asked.clear()
    fails = 9
    with pytest.raises(
        StorageError, match=r"no answer in 3 tries \(ConnectionResetError: the line is dead\)"
    ):
        at.names("a")
    assert len(asked) == 3


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ("bucket/folder", "is no URL; write one such as s3://"),
        ("s4://bucket/folder", "no protocol is named 's4'; did you mean 's3'"),
        ("s3://key:secret@bucket/folder", "leave credentials and options out of the URL"),
        ("simplecache::s3://bucket", "is no URL"),
        ("simplecache::s3://key:secret@bucket", "leave credentials and options out of the URL"),
        ("key:secret@bucket/folder", "leave credentials and options out of the URL"),
        ("key:secret@s3://bucket/folder", "leave credentials and options out of the URL"),
        ("file://relative/folder", "each process would look below its own folder; write file:///FOLDER"),
        ("file:///", "is no URL"),
        ("C:\\\\folder", "is no URL"),
        ("s3:///bucket/folder", "names no bucket; write s3://BUCKET/FOLDER"),
        ("file:///proc/nowhere", "cannot use file:///proc/nowhere: .*give another folder"),
    ],
)
def test_what_is_no_storage_is_said_in_a_sentence(wrong: str, says: str) -> None:
    with pytest.raises(UserError, match=says) as caught:
        Storage.open(wrong)
    assert "secret" not in str(caught.value) and "\n" not in str(caught.value)


def test_slashes_too_many_lead_to_the_same_place(tmp_path: Path) -> None:
    Storage.open(f"file://{tmp_path}//kept/").put("a/b", b"one")
    assert Storage.open(f"file://{tmp_path}/kept", new=False).names("a") == {"b": 3}
    assert Storage.open(f"memory://{tmp_path.name}//x")._base == f"/{tmp_path.name}/x"


def test_a_store_that_is_long_in_not_answering_is_asked_once(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = Storage.open(url)
    monkeypatch.setattr(storage, "PATIENCE", -1.0)

    def silent(*_: object, **__: object) -> None:
        raise TimeoutError("no word")

    monkeypatch.setattr(at._files, "find", silent)
    with pytest.raises(StorageError, match="no answer in 1 tries"):
        at.names("a")


def test_what_cannot_be_listed_is_not_taken_for_empty(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    at = Storage.open(url)

    def gone(*_: object, **__: object) -> None:
        raise FileNotFoundError("The specified bucket does not exist")

    with monkeypatch.context() as patch:
        patch.setattr(at._files, "find", gone)
        with pytest.raises(StorageError, match=r"there is no such bucket or folder .*; make it"):
            at.names("a")
    if at._is_folder:

        def forbidden(*_: object, **__: object) -> None:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(at._files, "ls", forbidden)
        with pytest.raises(StorageError, match="access is not permitted"):
            at.names("a")


def test_a_store_with_its_own_words_for_what_is_there_creates_exclusively(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = Storage.open(url)
    pipe_file = at._files.pipe_file

    def odd(path: str, value: bytes, mode: str = "overwrite") -> None:
        if mode == "create":
            raise OSError(22, "At least one of the pre-conditions you specified did not hold")
        pipe_file(path, value)

    monkeypatch.setattr(at._files, "pipe_file", odd)
    assert at.put("a", b"one", new=True) and not at.put("a", b"two", new=True)
    assert at.get("a") == b"one"


def test_a_disk_that_refuses_a_download_is_said(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = Storage.open(url)
    at.put("a", b"right")
    (tmp_path / "into" / "a").mkdir(parents=True)
    with pytest.raises(StorageError, match="cannot write"):
        at.download("a", to=tmp_path / "into" / "a", sha256=hashlib.sha256(b"right").hexdigest())
    assert [path.name for path in (tmp_path / "into").iterdir()] == ["a"]


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import fsspec

    def without(protocol: str) -> Callable[..., Any]:
        def url_to_fs(*_: object, **__: object) -> None:
            raise ImportError(f"Install {protocol}")

        return url_to_fs

    monkeypatch.setattr(fsspec, "url_to_fs", without("s3fs"))
    with pytest.raises(StorageError, match=r"pip install 'repetita\[storage\]'"):
        Storage.open("s3://bucket/folder")
    with pytest.raises(StorageError, match="pip install gcsfs"):
        Storage.open("gs://bucket/folder")


def test_what_the_store_forbids_is_said_with_the_fix(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    at = Storage.open(url)

    class NoCredentialsError(Exception):
        pass

    for error, says in (
        (PermissionError("Access Denied"), "access is not permitted"),
        (NoCredentialsError(), "no credentials were found"),
        (OSError(28, "No space left on device"), "free space there"),
    ):

        def refuse(*_: object, error: Exception = error, **__: object) -> None:
            raise error

        monkeypatch.setattr(at._files, "find", refuse)
        with pytest.raises(StorageError, match=f"cannot use {url}: .*{says}"):
            at.names("a")


def test_a_folder_that_nobody_pushed_to_is_not_read_from(url: str) -> None:
    with pytest.raises(StorageError, match="nothing was kept at"):
        Storage.open(url, new=False)


@pytest.mark.parametrize("new", [True, False])
def test_what_a_newer_version_keeps_is_left_to_it(url: str, new: bool) -> None:
    newer = b'{"schema": 2}'
    Storage.open(url).put(storage.MARKER, newer)
    with pytest.raises(StorageError, match="has schema 2, this version reads 1; update repetita"):
        Storage.open(url, new=new)
    assert url.startswith("memory") or (Path(url[7:]) / storage.MARKER).read_bytes() == newer


def test_what_else_lies_among_attempts_is_none(url: str) -> None:
    at = Storage.open(url)
    at.put("runs/r/attempts/.0001.json.77.tmp", b"")
    at.put("runs/r/attempts/0007.json", b"")
    Shelf(at, name="runs/r").take()
    assert "0008.json" in at.names("runs/r/attempts")


def test_journals_of_two_attempts_lie_beside_each_other(url: str) -> None:
    """Both begin alike; each is read as its own writer wrote it, and what they share was written once."""
    at = Storage.open(url)
    one, other = Shelf(at, name="runs/r"), Shelf(at, name="runs/r")
    texts = [b"a\n", b"a\nb\n", b"a\nb\nc\n"], [b"a\nx\n", b"a\nx\nyy\n"]
    for text in texts[0]:
        add(one, text, journal="events.jsonl")
    for text in texts[1]:
        add(other, text, journal="events.jsonl")
    reader = Shelf(at, name="runs/r")
    for text in (*texts[0], *texts[1]):
        found = chain(reader, journal="events.jsonl", end=_end(text))
        assert found is not None and b"".join(reader.get(name) for name in found) == text
    assert len(parts(reader, journal="events.jsonl")) == 5
    assert sum(reader.there[name] for name in reader.below("events.jsonl")) == 6 + 5
    assert chain(reader, journal="events.jsonl", end=_end(b"a\nb\nx\n")) is None
    odd = _end(b"odd")
    reader.put(f"events.jsonl/3-{odd[1][:16]}.3-{odd[1][:16]}", b"")
    assert chain(reader, journal="events.jsonl", end=odd) is None
    add(one, texts[0][-1], journal="events.jsonl", as_one=True)
    found = chain(one, journal="events.jsonl", end=_end(texts[0][-1]))
    assert found is not None and len(found) == 1


def _end(text: bytes) -> tuple[int, str]:
    return len(text), hashlib.sha256(text).hexdigest()
