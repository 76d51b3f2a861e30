"""Many folders become one table; nothing damaged gets in."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from repetita.errors import DamagedError
from repetita.journal import table
from repetita.journal.folder import RunFolder
from repetita.journal.records import Event, Reading, StepRecord

PROBE = "0123456789ab"


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    for name, done in (("aa", True), ("bb", False)):
        with RunFolder.open(tmp_path / name, header={"fingerprint": name * 32}) as run:
            run.truncate(None)
            for step in range(3):
                sets = {"train": [30.5, 2, 10], "repeated": [1.5, 4, 5]} if step else {}
                run.write_step(StepRecord(step, 15 * step, 0.1, 1.0, sets, 0.5))
            readings = [
                Reading("loss", "test", 2.5, 7, {"k": [1]}, {"sums": np.arange(4.0)}),
                Reading("prefix_score", "test", None, 0, {"why": "no heads"}),
            ]
            run.write_measurements(readings, step=2, tokens=30, probe=PROBE)
            run.write_event(Event(1, "spike", "high"))
            if done:
                run.finish("done")
            else:
                run.commit()
    return [tmp_path / "aa", tmp_path / "bb"]


def test_one_row_a_measurement(runs: list[Path]) -> None:
    frame = table.measurements(runs)
    assert frame.shape == (4, 11)
    assert frame["run"].to_list() == ["aa" * 32] * 2 + ["bb" * 32] * 2
    assert frame["value"].to_list() == [2.5, None] * 2
    assert frame["detail"][0] == '{"k":[1]}'


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8) | st.sampled_from(
    ['"', "\\\\", '","detail":', ',"tokens_total":5', "\\n", "special/3", "é"]
)
READINGS = st.builds(
    Reading,
    metric=TEXTS,
    on=TEXTS,
    value=st.none() | st.floats(allow_nan=False, allow_infinity=False),
    n=st.integers(0, 1 << 40),
    detail=st.none() | st.dictionaries(TEXTS, TEXTS | st.integers() | st.none(), max_size=3),
    items=st.none(),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(readings=st.lists(READINGS, max_size=5), total=st.none() | st.integers(0, 1 << 50))
def test_rows_are_what_the_lines_say(tmp_path: Path, readings: list[Reading], total: int | None) -> None:
    shutil.rmtree(tmp_path / "aa", ignore_errors=True)
    with RunFolder.open(tmp_path / "aa", header={"fingerprint": "aa" * 32}) as run:
        run.truncate(None)
        run.write_measurements(readings, step=3, tokens=30, probe=PROBE, tokens_total=total)
        run.finish("done")
    frame = table.measurements([tmp_path / "aa"])
    tokens_total = 30 if total is None else total
    written = [(one.metric, one.on, one.value, one.n, tokens_total) for one in readings]
    assert frame.select("metric", "on", "value", "n", "tokens_total").rows() == written
    assert [json.loads(text or "null") for text in frame["detail"]] == [one.detail for one in readings]
    assert set(frame.select("run", "step", "tokens", "probe").rows()) <= {("aa" * 32, 3, 30, PROBE)}


def test_one_row_a_step_and_lane(runs: list[Path]) -> None:
    frame = table.steps(runs[:1])
    assert frame["lane"].to_list() == [None, "train", "repeated", "train", "repeated"]
    assert frame["loss_sum"].sum() == 64
    assert frame["n"].dtype.is_integer()


def test_one_row_a_step_and_kind_of_corruption(runs: list[Path], tmp_path: Path) -> None:
    shown = {"mask": [8.0, 1, 8], "random": [1.0, 0, 1], "kept": [0.5, 1, 1]}
    with RunFolder.open(tmp_path / "cc", header={"fingerprint": "cc" * 32}) as run:
        run.truncate(None)
        run.write_step(StepRecord(0, 0, 0.1, 1.0, {"train": [9.5, 2, 10]}, 0.5, shown))
        run.finish("done")
    frame = table.corruption([*runs, tmp_path / "cc"])
    assert frame.select("run", "step", "kind", "hits", "n").rows() == [
        ("cc" * 32, 0, "mask", 1, 8),
        ("cc" * 32, 0, "random", 0, 1),
        ("cc" * 32, 0, "kept", 1, 1),
    ]
    assert table.steps([tmp_path / "cc"])["hits"].sum() == frame["hits"].sum()
    assert table.corruption(runs).is_empty()


def test_events_and_items(runs: list[Path]) -> None:
    assert table.events(runs)["kind"].to_list() == ["spike", "spike"]
    assert table.items(runs[0], probe=PROBE, step=2)["test/sums"].tolist() == [0, 1, 2, 3]
    assert table.items(runs[0], probe=PROBE, step=1) == {}


def test_no_folder_gives_an_empty_table() -> None:
    assert table.measurements([]).shape == (0, 11)


@pytest.mark.parametrize("which", [0, 1])
def test_a_flipped_bit_is_named_with_its_line(runs: list[Path], which: int) -> None:
    file = runs[which] / "measurements.jsonl"
    file.write_bytes(file.read_bytes().replace(b"2.5", b"2.7"))
    with pytest.raises(DamagedError, match=r"measurements\.jsonl: line 2"):
        table.measurements(runs)


def test_lines_missing_from_a_finished_run_are_found(runs: list[Path]) -> None:
    file = runs[0] / "measurements.jsonl"
    file.write_bytes(b"".join(file.read_bytes().splitlines(keepends=True)[:-1]))
    with pytest.raises(DamagedError, match=r"measurements\.jsonl is damaged"):
        table.measurements(runs)


def test_damaged_items_are_found(runs: list[Path]) -> None:
    for run in runs:
        for file in (run / "items").iterdir():
            file.write_bytes(file.read_bytes()[:-1])
        with pytest.raises(DamagedError, match="safetensors is damaged"):
            table.items(run, probe=PROBE, step=2)
