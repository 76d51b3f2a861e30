"""Run folders: one writer, exact truncation, and a plain sentence for whatever the disk does."""

import errno
import multiprocessing
import os
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from repetita.errors import DamagedError, RunFolderError, StorageError
from repetita.journal import disk, folder
from repetita.journal.disk import write_atomic
from repetita.journal.folder import RunFolder
from repetita.journal.records import Event, Reading, StepRecord

HEADER = {"fingerprint": "ab" * 32, "spec": {}}
PROBE = "0123456789ab"


def step(number: int) -> StepRecord:
    return StepRecord(number, number * 10, 0.1, 1.5, {"train": [float(number), 1, 10]}, 0.01)


def opened(path: Path) -> RunFolder:
    run = RunFolder.open(path, header=HEADER)
    run.truncate(folder.final_position(path))
    return run


def fork(function: Callable[..., None], *arguments: Any) -> int:
    """Runs `function` in a forked child; its exit code."""
    child = multiprocessing.get_context("fork").Process(target=function, args=arguments)
    child.start()
    child.join(60)
    assert child.exitcode is not None
    return child.exitcode


def test_status_goes_from_missing_to_done(tmp_path: Path) -> None:
    path = tmp_path / "run"
    assert folder.status(path) == "missing"
    with opened(path) as run:
        assert folder.status(path) == "unfinished"
        run.write_step(step(0))
        run.finish("done")
    assert folder.status(path) == "done"
    assert [line["step"] for line in folder.read_journal(path, journal="steps")] == [0]
    folder.verify(path)


def test_failed_keeps_its_message(tmp_path: Path) -> None:
    with opened(tmp_path) as run:
        run.finish("failed", message="loss is nan")
    assert folder.status(tmp_path) == "failed"
    assert folder.failure(tmp_path) == "loss is nan"


def test_truncate_goes_back_to_a_commit_exactly(tmp_path: Path) -> None:
    with opened(tmp_path) as run:
        run.write_step(step(0))
        run.write_measurements(
            [Reading("m", "train", 0.5, 3, None, {"a": np.arange(3)})], step=0, tokens=0, probe=PROBE
        )
        position = run.commit()
        before = {file: (tmp_path / file).read_bytes() for file in position.files}
        run.write_step(step(1))
        run.write_measurements(
            [Reading("m", "train", 0.5, 3, None, {"a": np.arange(4)})], step=1, tokens=10, probe=PROBE
        )
        run.write_event(Event(1, "spike", "high"))
        run.commit()
    with RunFolder.open(tmp_path, header=HEADER) as run:
        run.truncate(position)
        assert run.commit() == position
    assert {file: (tmp_path / file).read_bytes() for file in position.files} == before
    assert len(list((tmp_path / "items").iterdir())) == 1


def test_truncate_refuses_a_prefix_that_changed(tmp_path: Path) -> None:
    with opened(tmp_path) as run:
        run.write_step(step(0))
        position = run.commit()
    data = bytearray((tmp_path / "steps.jsonl").read_bytes())
    data[-5] ^= 1
    (tmp_path / "steps.jsonl").write_bytes(data)
    with RunFolder.open(tmp_path, header=HEADER) as run, pytest.raises(DamagedError, match=r"steps\.jsonl"):
        run.truncate(position)
    assert (tmp_path / "steps.jsonl").read_bytes() == data


def test_another_run_is_refused(tmp_path: Path) -> None:
    opened(tmp_path).close()
    with pytest.raises(RunFolderError, match="holds run abababababab, not cdcdcdcdcdcd"):
        RunFolder.open(tmp_path, header={"fingerprint": "cd" * 32})


def test_the_header_is_an_allow_list(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="hostname"):
        RunFolder.open(tmp_path / "run", header=HEADER | {"hostname": "x"})
    assert not (tmp_path / "run").exists()


def test_a_second_process_is_refused(tmp_path: Path) -> None:
    def second() -> None:
        try:
            RunFolder.open(tmp_path, header=HEADER)
        except RunFolderError as error:
            os._exit(7 if "another process is writing" in str(error) else 1)
        os._exit(0)

    with opened(tmp_path):
        assert fork(second) == 7
    assert fork(second) == 0


def test_a_superseded_attempt_stops_at_its_next_commit(tmp_path: Path) -> None:
    with opened(tmp_path) as run:
        assert run.attempt == 1
        (tmp_path / "attempts" / "0002.json").write_text("{}")
        with pytest.raises(RunFolderError, match="attempt 2 has taken over"):
            run.commit()


def test_what_else_lies_among_attempts_is_none(tmp_path: Path) -> None:
    with opened(tmp_path) as run:
        (tmp_path / "attempts" / "0001 (copy).json").touch()
        run.commit()
    with opened(tmp_path) as run:
        assert run.attempt == 2
        for file in (tmp_path / "attempts").iterdir():
            file.unlink()
        run.commit()


def test_whoever_reads_while_measurements_are_added_reads_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measure(number: int) -> None:
        with opened(tmp_path) as run:
            readings = [Reading("m", "train", 0.5, 3, None, None)]
            run.write_measurements(readings, step=number, tokens=0, probe=PROBE)
            run.finish("done")

    measure(0)
    real = folder.final_position

    def slow(path: Path) -> Any:
        position = real(path)
        monkeypatch.setattr(folder, "final_position", real)
        measure(1)
        return position

    monkeypatch.setattr(folder, "final_position", slow)
    assert folder.measured(tmp_path) == {(PROBE, 0)}
    assert folder.measured(tmp_path) == {(PROBE, 0), (PROBE, 1)}


def test_readings_of_a_probe_are_written_all_or_none(tmp_path: Path) -> None:
    with opened(tmp_path) as run:
        good = Reading("m", "train", 0.5, 3)
        with pytest.raises(ValueError):
            run.write_measurements([good, good._replace(value=float("inf"))], step=0, tokens=0, probe=PROBE)
        twice = good._replace(items={"a": np.zeros(2)})
        with pytest.raises(ValueError, match="train/a"):
            run.write_measurements([twice, twice], step=0, tokens=0, probe=PROBE)
        half: Any = np.float32(0.5)
        three: Any = np.int64(3)
        run.write_measurements([Reading("m", "train", half, three)], step=5, tokens=0, probe=PROBE)
        run.commit()
    assert folder.measured(tmp_path) == {(PROBE, 5)}


def test_lines_after_done_do_not_count(tmp_path: Path) -> None:
    with opened(tmp_path) as run:
        run.write_step(step(0))
        run.finish("done")
        run.write_step(step(1))
        run.commit()
    assert len(list(folder.read_journal(tmp_path, journal="steps"))) == 1
    opened(tmp_path).close()
    assert (tmp_path / "steps.jsonl").read_bytes().count(b"\n") == 2


def test_verify_names_the_damaged_file(tmp_path: Path) -> None:
    with opened(tmp_path) as run:
        items = {"a": np.arange(3)}
        run.write_measurements([Reading("m", "train", 0.5, 3, None, items)], step=0, tokens=0, probe=PROBE)
        run.finish("done")
    (tmp_path / folder.items_name(PROBE, step=0)).write_bytes(b"")
    with pytest.raises(DamagedError, match=PROBE):
        folder.verify(tmp_path)
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(DamagedError, match=r"run\.json"):
        folder.verify(tmp_path)


@pytest.mark.parametrize(
    ("number", "sentence"),
    [(errno.ENOSPC, "disk is full"), (errno.EROFS, "read-only"), (errno.EACCES, "not permitted")],
)
def test_what_the_disk_refuses_is_said_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, sentence: str
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number))

    (tmp_path / "file").write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(StorageError, match=sentence):
        write_atomic(tmp_path / "file", b"new")
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [b"old"]


def test_a_folder_under_a_file_is_said_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match="--root"):
        RunFolder.open(tmp_path / "file" / "run", header=HEADER)


def test_a_full_disk_leaves_what_was_committed(tmp_path: Path) -> None:
    def fill() -> None:
        run = opened(tmp_path)
        run.write_step(step(0))
        (tmp_path / "committed").write_text(str(run.commit().files["steps.jsonl"][0]))
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        try:
            for number in range(1, 10_000):
                run.write_step(step(number))
        except StorageError as error:
            os._exit(7 if "ulimit" in str(error) else 1)
        os._exit(0)

    assert fork(fill) == 7
    assert folder.status(tmp_path) == "unfinished"
    length = int((tmp_path / "committed").read_text())
    assert Path(tmp_path / "steps.jsonl").read_bytes()[:length].count(b"\n") == 2
    assert next(line["step"] for line in folder.read_journal(tmp_path, journal="steps")) == 0


def test_items_are_synced_once_and_before_a_position_is_given_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced, calls, fsync = list[Path](), list[int](), os.fsync

    def sync_file(path: Path) -> None:
        synced.append(path)
        disk.sync_file(path)

    def count(descriptor: int) -> None:
        calls.append(descriptor)
        fsync(descriptor)

    monkeypatch.setattr(folder, "sync_file", sync_file)
    monkeypatch.setattr(os, "fsync", count)
    with opened(tmp_path) as run:
        run.commit()
        calls.clear()
        for number in range(2):
            readings = [Reading("m", "train", 0.5, 3, None, {"a": np.arange(3)})]
            run.write_measurements(readings, step=number, tokens=0, probe=PROBE)
        assert not calls, "a measurement does not wait for the disk"
        position = run.commit()
        covered = {tmp_path / name for name in position.files if name.startswith("items/")}
        assert len(covered) == 2
        assert set(synced) == covered
        run.commit()
        assert len(synced) == 2


def test_adopting_takes_the_chosen_measurements_and_all_steps(tmp_path: Path) -> None:
    with opened(tmp_path / "one") as one:
        for number in range(3):
            one.write_step(step(number))
            items = {"a": np.arange(number)}
            readings = [Reading("m", "train", 0.5, 3, None, items)]
            one.write_measurements(readings, step=number, tokens=0, probe=PROBE)
        position = one.commit()
    with opened(tmp_path / "two") as two:
        two.adopt(tmp_path / "one", position=position, measured={(PROBE, 1)}, steps=True)
        two.commit()
    assert folder.measured(tmp_path / "two") == {(PROBE, 1)}
    assert [file.name for file in (tmp_path / "two" / "items").iterdir()] == [f"{PROBE}-00000001.safetensors"]
    assert (tmp_path / "one" / "steps.jsonl").read_bytes() == (tmp_path / "two" / "steps.jsonl").read_bytes()
