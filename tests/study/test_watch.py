"""Watching: what is shown is what the journals say; what is copied is there once, whatever was killed."""

import json
import shutil
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from repetita.errors import DamagedError, SpecError, UserError
from repetita.journal.folder import RunFolder, read_journal
from repetita.journal.records import Event, Reading, StepRecord
from repetita.study import watch as watching
from repetita.study.watch import STATE, Seen, find_runs, tags, watch_runs
from tests.study.places import Place

HEADER: dict[str, Any] = {"fingerprint": "ab" * 32, "spec": {"steps": 8}}
KEY = "0123456789ab"

Scalars = dict[str, list[tuple[int, float]]]


class Writer:
    """A run that is written by hand, a step at a time, as the loop would write it."""

    def __init__(self, root: Path, *, name: str = "1k-stream-s0-abababababab") -> None:
        self.path = root / "runs" / name
        self.folder = RunFolder.open(self.path, header=HEADER)
        self.folder.truncate(None)

    def steps(self, start: int, stop: int, *, seconds: float = 0.5) -> None:
        for step in range(start, stop):
            lanes = {"train": [3.0 * (8 - step), 1.0, 4.0], "repeated": [4.0, 3.0, 4.0]}
            self.folder.write_step(StepRecord(step, 8 * step, 0.01, 1.5, lanes, seconds))
        self.folder.commit()

    def measure(self, step: int, *, on: str = "repeated", value: float = 0.25) -> None:
        self.folder.write_measurements(
            [Reading("memorized", on, value, 4), Reading("unit_length", on, None, 0)],
            step=step,
            tokens=0,
            probe=KEY,
        )
        self.folder.commit()


def tensorboard(folder: Path) -> Scalars:
    """What TensorBoard itself reads."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0}).Reload()
    return {
        tag: [(event.step, round(event.value, 4)) for event in read.Scalars(tag)]
        for tag in read.Tags()["scalars"]
    }


def texts(folder: Path, tag: str) -> list[str]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(str(folder), size_guidance={"tensors": 0}).Reload()
    return [event.tensor_proto.string_val[0].decode() for event in read.Tensors(tag)]


def test_what_is_shown_is_what_the_journal_says(tmp_path: Path) -> None:
    run = Writer(tmp_path)
    run.steps(0, 3)
    run.measure(2)
    run.measure(2, on="test", value=0.01)
    (seen,) = watch_runs(root=tmp_path)
    loss = (3 * 6 + 4) / 8
    assert seen == Seen(run.path.name, "running", 3, 8, loss, 16, 0.25, "repeated at 2", "", 7)


def test_a_run_that_writes_nothing_is_quiet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Writer(tmp_path).steps(0, 2)
    monkeypatch.setattr(watching, "QUIET_SECONDS", -1.0)
    assert watch_runs(root=tmp_path)[0].state == "quiet"


def test_tensorboard_reads_what_was_written(tmp_path: Path) -> None:
    run = Writer(tmp_path)
    run.steps(0, 3)
    run.measure(2)
    run.folder.write_event(Event(2, "spike", "the loss rose"))
    run.folder.commit()
    watch_runs(root=tmp_path, to="tensorboard", log_dir=tmp_path / "tb")
    folder = tmp_path / "tb" / run.path.name
    assert tensorboard(folder) == {
        "train/train/loss": [(0, 6.0), (1, 5.25), (2, 4.5)],
        "train/train/accuracy": [(0, 0.25), (1, 0.25), (2, 0.25)],
        "train/repeated/loss": [(0, 1.0), (1, 1.0), (2, 1.0)],
        "train/repeated/accuracy": [(0, 0.75), (1, 0.75), (2, 0.75)],
        "train/learning_rate": [(0, 0.01), (1, 0.01), (2, 0.01)],
        "train/gradient_norm": [(0, 1.5), (1, 1.5), (2, 1.5)],
        "train/tokens_per_second": [(0, 16.0), (1, 16.0), (2, 16.0)],
        f"probe-{KEY[:6]}/repeated/memorized": [(2, 0.25)],
    }
    assert texts(folder, "events") == ["spike: the loss rose"]
    assert '"steps": 8' in texts(folder, "run")[0]


def test_copying_goes_on_where_it_stopped_also_after_a_resume(tmp_path: Path) -> None:
    def copy() -> int:
        return watch_runs(root=tmp_path, to="tensorboard")[0].n_lines

    run = Writer(tmp_path)
    run.steps(0, 4)
    at_four = run.folder.commit()
    run.steps(4, 6)
    assert (copy(), copy()) == (6, 0)
    run.folder.truncate(at_four)  # A resume: steps 4 and 5 are trained and written a second time.
    run.folder.write_event(Event(4, "resumed", "attempt 2"))
    run.steps(4, 8, seconds=0.123456)
    run.folder.finish("done")
    assert (copy(), copy()) == (3, 0)
    folder = tmp_path / "tensorboard" / run.path.name
    assert [step for step, _ in tensorboard(folder)["train/train/loss"]] == list(range(8))
    assert watch_runs(root=tmp_path, to="tensorboard")[0].step == 8, "the state says what was seen before"


def test_a_kill_between_copy_and_state_doubles_nothing(tmp_path: Path) -> None:
    run = Writer(tmp_path)
    run.steps(0, 3)
    watch_runs(root=tmp_path, to="tensorboard")
    folder = tmp_path / "tensorboard" / run.path.name
    before = (folder / STATE).read_bytes()
    run.steps(3, 6)
    watch_runs(root=tmp_path, to="tensorboard")
    (folder / STATE).write_bytes(before)
    watch_runs(root=tmp_path, to="tensorboard")
    (file,) = folder.glob("*tfevents*")
    assert [step for step, _ in tensorboard(folder)["train/learning_rate"]] == list(range(6))
    size = file.stat().st_size
    (folder / STATE).unlink()  # Who removes the state gets all of it anew.
    watch_runs(root=tmp_path, to="tensorboard")
    assert file.stat().st_size == size


def test_measurements_of_earlier_steps_come_between_the_others(tmp_path: Path) -> None:
    run = Writer(tmp_path)
    run.measure(0)
    run.measure(8)
    watch_runs(root=tmp_path, to="tensorboard")
    run.measure(4, value=0.5)
    watch_runs(root=tmp_path, to="tensorboard")
    points = tensorboard(tmp_path / "tensorboard" / run.path.name)
    assert points[f"probe-{KEY[:6]}/repeated/memorized"] == [(0, 0.25), (4, 0.5), (8, 0.25)]


def test_following_ends_when_every_run_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "POLL_SECONDS", 0.0)
    runs = [Writer(tmp_path, name=name) for name in ("one", "two")]
    shown = list[list[tuple[str, int]]]()

    def show(seen: Any) -> None:
        shown.append([(run.state, run.step) for run in seen])
        at = len(shown)
        for run in runs[: 1 if at > 3 else 2]:
            run.steps(at - 1, at)
        if at in (3, 5):
            runs[1 if at == 3 else 0].folder.finish("done" if at == 3 else "failed", message="nan")

    seen = watch_runs(root=tmp_path, follow=True, show=show)
    assert [(run.state, run.step, run.message) for run in seen] == [("failed", 5, "nan"), ("done", 3, "")]
    assert shown[1] == [("running", 1), ("running", 1)]
    assert len(shown) == 6


def test_a_damaged_run_is_named_after_the_others_were_read(tmp_path: Path) -> None:
    good, bad = Writer(tmp_path, name="good"), Writer(tmp_path, name="bad")
    for run in (good, bad):
        run.steps(0, 2)
        run.folder.finish("done")
    file = bad.path / "steps.jsonl"
    file.write_bytes(file.read_bytes().replace(b'"step":1', b'"step":7'))
    with pytest.raises(DamagedError, match=r"bad.steps\.jsonl"):
        watch_runs(root=tmp_path, to="tensorboard")
    assert len(tensorboard(tmp_path / "tensorboard" / "good")["train/learning_rate"]) == 2


def test_a_study_is_all_of_its_runs_with_the_names_of_its_probes(done: Place) -> None:
    by_root, by_study, by_folder = (
        find_runs(given, root=done.root)
        for given in ((), ("tiny_study-tiny",), (done.root / "studies" / "tiny_study-tiny",))
    )
    assert by_root == by_study == by_folder
    assert {place.study for place in by_root} == {"tiny_study-tiny"}
    seen = watch_runs("tiny_study-tiny", root=done.root, to="tensorboard")
    assert [run.state for run in seen] == ["done"] * 5
    for place in by_root:
        copied = tensorboard(done.root / "tensorboard" / place.path.name)
        kept = {
            line["step"]: line["value"]
            for line in read_journal(place.path, journal="measurements")
            if line["metric"] == "loss" and line["on"] == "test"
        }
        assert dict(copied["test/test/loss"]) == pytest.approx(kept, abs=1e-3)
    assert any("pairs/special/0/memorized" in tensorboard(f.parent) for f in done.root.rglob("*tfevents*"))


def test_a_run_that_has_not_begun_is_waited_for(done: Place) -> None:
    for file in (done.root / "runs").glob("*-stream-*/*"):
        if file.is_file():
            file.unlink()
    assert {run.state for run in watch_runs("tiny_study-tiny", root=done.root)} == {"done", "waiting"}


def test_following_ends_where_a_trunk_failed(done: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "POLL_SECONDS", 0.0)
    forks = [place for place in find_runs((), root=done.root) if place.trunk]
    (trunk,) = {place.trunk for place in forks}
    for place in forks:
        shutil.rmtree(place.path)
    folder = done.root / "runs" / trunk
    (folder / "done").unlink()
    polls = 0

    def show(seen: Any) -> None:
        nonlocal polls
        polls += 1
        if polls == 1:
            assert "done" in {run.state for run in seen}
            (folder / "failed").write_text('{"schema": 1, "message": "nan"}')
        assert polls < 4, "it goes on"

    seen = {run.run: run for run in watch_runs("tiny_study-tiny", root=done.root, follow=True, show=show)}
    assert polls == 2
    assert (seen[trunk].state, seen[trunk].message) == ("failed", "nan")
    for place in forks:
        run = seen[place.path.name]
        assert (run.state, run.message) == ("waiting", f"its trunk {trunk} failed")


@pytest.mark.parametrize(
    "other", [{"seen": {"of_later": 1}}, {"clock": None}, {"follower": {"places": {"steps": {"line": 1}}}}]
)
def test_how_far_another_version_copied_is_forgotten(tmp_path: Path, other: dict[str, Any]) -> None:
    run = Writer(tmp_path)
    run.steps(0, 3)
    watch_runs(root=tmp_path, to="tensorboard")
    folder = tmp_path / "tensorboard" / run.path.name
    state = json.loads((folder / STATE).read_bytes())
    (folder / STATE).write_text(json.dumps(state | other))
    run.steps(3, 4)
    (seen,) = watch_runs(root=tmp_path, to="tensorboard")
    assert (seen.state, seen.step, seen.n_lines) == ("running", 4, 4)
    assert [step for step, _ in tensorboard(folder)["train/learning_rate"]] == [0, 1, 2, 3]


def test_a_place_without_runs_is_one_sentence(done: Place, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="did you mean 'tiny_study-tiny'"):
        watch_runs("tiny_study-tinny", root=done.root)
    with pytest.raises(UserError, match="holds no runs; give a root"):
        watch_runs(root=tmp_path / "nowhere")


def test_two_probes_of_one_name_keep_their_own_tags() -> None:
    assert tags({"aaaaaaaa": "test", "bbbbbbbb": "test"}) == {"aaaaaaaa": "test", "bbbbbbbb": "test-bbbbbb"}


class FakeWandb(types.ModuleType):
    """Records what a tracker asks of wandb."""

    def __init__(self) -> None:
        super().__init__("wandb")
        self.__spec__ = types.SimpleNamespace(origin="here")  # type: ignore[assignment]
        self.calls = list[tuple[str, Any]]()

    def init(self, **given: Any) -> "FakeWandb":
        self.calls.append(("init", given))
        return self

    def define_metric(self, name: str, *, step_metric: str) -> None:
        self.calls.append(("define_metric", (name, step_metric)))

    def log(self, values: dict[str, Any]) -> None:
        self.calls.append(("log", values))

    def finish(self, *, exit_code: int) -> None:
        self.calls.append(("finish", exit_code))


def test_wandb_is_given_each_point_once_and_nothing_is_sent_unasked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    run = Writer(tmp_path)
    run.measure(0)
    run.steps(0, 2)
    watch_runs(root=tmp_path, to="wandb")
    given = fake.calls[0][1]
    assert (given["mode"], given["id"], given["resume"]) == ("offline", "abababababab", "allow")
    assert given["config"] == {"labels": [], "spec": {"steps": 8}}
    assert fake.calls[1] == ("define_metric", ("*", "step"))
    logged = [values for name, values in fake.calls if name == "log"]
    assert [values["step"] for values in logged] == [0, 1]
    assert logged[0][f"probe-{KEY[:6]}/repeated/memorized"] == 0.25
    assert logged[0]["train/repeated/accuracy"] == 0.75
    assert fake.calls[-1] == ("finish", 0)
    fake.calls.clear()
    run.folder.finish("failed", message="nan")
    watch_runs(root=tmp_path, to="wandb")
    assert fake.calls == [], "nothing new: wandb is not even opened"


def test_a_tracker_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Writer(tmp_path)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(SpecError, match=r"pip install 'repetita\[wandb\]'"):
        watch_runs(root=tmp_path, to="wandb")
    with pytest.raises(SpecError, match=r"pip install 'repetita\[tracking\]'"):
        watch_runs(root=tmp_path, to="tensorboard")
    assert not (tmp_path / "wandb").exists()
