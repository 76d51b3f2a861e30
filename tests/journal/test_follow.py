"""A growing journal is handed on line by line, each once, whatever is cut off or written again."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from repetita.errors import DamagedError
from repetita.journal.follow import MARK, Follower, Line, Tail
from repetita.journal.lines import encode, first_line
from repetita.journal.names import read_names, write_names


def step(number: int, *, seconds: float = 0.1) -> bytes:
    values = {"step": number, "tokens": 0, "learning_rate": 0.1, "gradient_norm": 1.0}
    return encode(values | {"sets": {"train": [2.0 + number, 1, 4]}, "seconds": seconds})


def measurement(number: int, *, probe: str = "p", on: str = "test", value: float = 1.0) -> bytes:
    values = {"step": number, "tokens": 0, "probe": probe, "metric": "loss", "on": on, "value": value}
    return encode(values | {"n": 1, "detail": None})


def event(number: int, message: str) -> bytes:
    return encode({"step": number, "kind": "resumed", "message": message})


def numbers(lines: list[Line], journal: str = "steps") -> list[int]:
    return [line.values["step"] for line in lines if line.journal == journal]


def write(path: Path, journal: str, *lines: bytes) -> None:
    (path / f"{journal}.jsonl").write_bytes(first_line(journal) + b"".join(lines))


def test_lines_come_in_the_order_of_their_steps_and_once(tmp_path: Path) -> None:
    follower = Follower(tmp_path)
    assert follower.poll() == []
    write(tmp_path, "steps", step(0), step(1))
    write(tmp_path, "measurements", measurement(0), measurement(2))
    assert [(line.journal, line.values["step"]) for line in follower.poll()] == [
        ("measurements", 0),
        ("steps", 0),
        ("steps", 1),
        ("measurements", 2),
    ]
    assert follower.poll() == []


@given(cuts=st.lists(st.integers(0, 2000), max_size=8))
def test_a_file_that_grows_by_any_pieces_gives_the_same_lines(
    cuts: list[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("run")
    whole = first_line("steps") + b"".join(step(number, seconds=number / 7) for number in range(9))
    follower, seen = Follower(folder), list[int]()
    for cut in [*sorted(cuts), len(whole)]:
        (folder / "steps.jsonl").write_bytes(whole[:cut])
        seen += numbers(follower.poll())
    assert seen == list(range(9))


def test_a_resume_that_cuts_and_writes_on_doubles_nothing(tmp_path: Path) -> None:
    follower = Follower(tmp_path)
    write(tmp_path, "steps", *(step(number) for number in range(6)))
    write(tmp_path, "events", event(3, "attempt 2"))
    assert numbers(follower.poll()) == [0, 1, 2, 3, 4, 5]
    # Cut to step 3, and on beyond what was read, with other times: lines have other lengths now.
    write(tmp_path, "steps", *(step(n, seconds=0.1 if n < 3 else 0.1234567) for n in range(8)))
    write(tmp_path, "events", event(3, "attempt 3"), event(3, "attempt 2"))
    lines = follower.poll()
    assert numbers(lines) == [6, 7]
    assert [line.values["message"] for line in lines if line.journal == "events"] == ["attempt 3"]
    write(tmp_path, "steps")
    assert follower.poll() == []
    write(tmp_path, "steps", *(step(number) for number in range(9)))
    assert numbers(follower.poll()) == [8]


def test_another_follower_goes_on_from_the_state(tmp_path: Path) -> None:
    write(tmp_path, "steps", step(0), step(1))
    write(tmp_path, "measurements", measurement(0), measurement(0, on="train"))
    first = Follower(tmp_path)
    assert len(first.poll()) == 4
    state = json.loads(json.dumps(first.state()))
    write(tmp_path, "steps", step(0), step(1, seconds=0.25), step(2))
    write(tmp_path, "measurements", *(measurement(0, on=on) for on in ("test", "train", "special")))
    lines = Follower(tmp_path, state=state).poll()
    assert numbers(lines) == [2]
    assert [line.values["on"] for line in lines if line.journal == "measurements"] == ["special"]


def test_measurements_added_to_earlier_steps_are_handed_on(tmp_path: Path) -> None:
    follower = Follower(tmp_path)
    write(tmp_path, "measurements", measurement(0), measurement(8))
    follower.poll()
    write(tmp_path, "measurements", measurement(0), measurement(8), measurement(4))
    assert numbers(follower.poll(), "measurements") == [4]


def test_a_damaged_line_is_named_and_nothing_before_it_is_lost(tmp_path: Path) -> None:
    follower = Follower(tmp_path)
    good = [step(0), step(1), step(2)]
    write(tmp_path, "steps", good[0], good[1].replace(b"0.1", b"0.2", 1), good[2])
    with pytest.raises(DamagedError, match=r"steps\.jsonl: the line at byte \d+ is damaged"):
        follower.poll()
    write(tmp_path, "steps", *good)
    assert numbers(follower.poll()) == [0, 1, 2]


def test_another_schema_is_refused(tmp_path: Path) -> None:
    (tmp_path / "steps.jsonl").write_bytes(encode({"schema": 99, "journal": "steps"}))
    with pytest.raises(DamagedError, match="schema 99"):
        Follower(tmp_path).poll()


def test_the_mark_is_the_checksum_of_a_line() -> None:
    assert step(0)[-MARK:].startswith(b',"check":"')
    assert Tail(Path("none")).offset == 0


def test_names_are_added_to_those_that_are_there(tmp_path: Path) -> None:
    assert read_names(tmp_path) == {}
    write_names(tmp_path / "run", names={"a1": "test"})
    write_names(tmp_path / "run", names={"b2": "pairs", "a1": "test"})
    assert list(read_names(tmp_path / "run").items()) == [("a1", "test"), ("b2", "pairs")]
    (tmp_path / "run" / "probes.json").write_text("[")
    assert read_names(tmp_path / "run") == {}
