"""Only what was committed is there after a kill, and what is damaged is not gone on with."""

import hashlib
from pathlib import Path

import pytest

from repetita.corpus.growing import Committed, GrowingFile


def test_a_file_grows_from_what_was_committed(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    file = GrowingFile(path)
    file.write(b"first ")
    committed = file.commit()
    assert committed == (6, hashlib.sha256(b"first ").hexdigest())
    file.write(b"lost in the kill")
    file.close()
    again = GrowingFile.reopen(path, committed=committed)
    assert again is not None
    again.write(b"second")
    assert again.commit() == (12, hashlib.sha256(b"first second").hexdigest())
    again.close()
    assert path.read_bytes() == b"first second"


@pytest.mark.parametrize("content", [b"", b"firs", b"FIRST and more"])
def test_another_beginning_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.bin").write_bytes(content)
    committed = Committed(5, hashlib.sha256(b"first").hexdigest())
    assert GrowingFile.reopen(tmp_path / "a.bin", committed=committed) is None
