"""Where watched runs can be copied to: TensorBoard's files, without torch, and Weights & Biases."""

import importlib.util
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

from repetita.errors import SpecError
from repetita.journal.disk import storage_errors

TrackerName = Literal["tensorboard", "wandb"]
TRACKERS: tuple[TrackerName, ...] = ("tensorboard", "wandb")

EXTRAS = {"tensorboard": "tracking", "wandb": "wandb"}


class Point(NamedTuple):
    """All that is new about one step of a run."""

    step: int
    seconds: float
    """When: seconds since 1970, by the run's start and the training time that it wrote down."""
    scalars: Mapping[str, float]
    texts: Mapping[str, str]


class Card(NamedTuple):
    """What a tracker is told of a run once."""

    name: str
    """Name of its folder."""
    study: str
    """The study that it was watched as a part of, "" where there is none."""
    facts: Mapping[str, Any]
    """Its spec and its labels, JSON types."""


class Tracker(Protocol):
    """One run as a tracker keeps it."""

    def takes(self, points: Sequence[Point]) -> bool:
        """Whether the points can be added; where not, the run must be written anew from its beginning."""
        ...

    def write(self, points: Sequence[Point]) -> None:
        """Adds points, in the order of their steps."""
        ...

    def commit(self) -> dict[str, Any]:
        """Hands over what was added; JSON types that the next process needs to go on."""
        ...

    def close(self, *, failed: bool) -> None:
        """Nothing more comes from this process; `failed` says whether the run ended so."""
        ...


def check_tracker(to: str) -> TrackerName:
    """The tracker's name; SpecError where there is no such tracker or its library is not installed."""
    for name in TRACKERS:
        if name == to:
            found = importlib.util.find_spec(name)
            if found is None or found.origin is None:  # A mere folder of that name is a namespace.
                raise SpecError(
                    f"{name} is not installed; install it with: pip install 'repetita[{EXTRAS[name]}]'"
                )
            return name
    raise SpecError(f"there is no tracker '{to}'; valid: {', '.join(TRACKERS)}")


def open_tracker(to: TrackerName, *, folder: Path, card: Card, state: Mapping[str, Any]) -> Tracker:
    """The tracker of one run, which keeps its files in `folder` and goes on where `state` was taken."""
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    if to == "tensorboard":
        return TensorBoardRun(folder, card=card, state=state)
    return WandbRun(folder, card=card)


class TensorBoardRun:
    """One event file, written by the `tensorboard` package alone: its own writer in torch would import torch.

    What stands after `length`, written by a process that was killed before it could say so, is cut off.
    """

    def __init__(self, folder: Path, *, card: Card, state: Mapping[str, Any]) -> None:
        self._file = folder / "events.out.tfevents.0.repetita"
        self._length = int(state.get("length", 0)) if self._file.exists() else 0
        self._newest: dict[str, int] = dict(state.get("newest", {})) if self._length else {}
        with storage_errors(self._file):
            self._file.touch()
            os.truncate(self._file, self._length)
        if self._length == 0:
            self._append([self._version(), _tensorboard_text(0, {"run": _card_text(card)})])

    def takes(self, points: Sequence[Point]) -> bool:
        """See `Tracker.takes`; TensorBoard drops what a tag has of later steps when an earlier one comes."""
        return all(point.step > self._newest.get(tag, -1) for point in points for tag in point.scalars)

    def write(self, points: Sequence[Point]) -> None:
        """See `Tracker.write`."""
        events = []
        for point in points:
            if point.scalars:
                events.append(_tensorboard_scalars(point))
                self._newest |= dict.fromkeys(point.scalars, point.step)
            if point.texts:
                events.append(_tensorboard_text(point.step, point.texts, seconds=point.seconds))
        self._append(events)

    def commit(self) -> dict[str, Any]:
        """See `Tracker.commit`."""
        return {"length": self._length, "newest": self._newest}

    def close(self, *, failed: bool) -> None:
        """Nothing is left open."""

    def _append(self, events: Sequence[bytes]) -> None:
        from tensorboard.summary.writer.record_writer import RecordWriter

        with storage_errors(self._file), self._file.open("ab") as file:
            writer = RecordWriter(file)
            for event in events:
                writer.write(event)
            self._length = file.tell()

    @staticmethod
    def _version() -> bytes:
        from tensorboard.compat.proto.event_pb2 import Event

        return bytes(Event(wall_time=0.0, file_version="brain.Event:2").SerializeToString())


def _tensorboard_scalars(point: Point) -> bytes:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary

    values = [Summary.Value(tag=tag, simple_value=value) for tag, value in point.scalars.items()]
    event = Event(wall_time=point.seconds, step=point.step, summary=Summary(value=values))
    return bytes(event.SerializeToString())


def _tensorboard_text(step: int, texts: Mapping[str, str], *, seconds: float = 0.0) -> bytes:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
    from tensorboard.compat.proto.tensor_pb2 import TensorProto
    from tensorboard.compat.proto.types_pb2 import DT_STRING

    about = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="text"))
    values = [
        Summary.Value(
            tag=tag, metadata=about, tensor=TensorProto(dtype=DT_STRING, string_val=[text.encode()])
        )
        for tag, text in texts.items()
    ]
    return bytes(Event(wall_time=seconds, step=step, summary=Summary(value=values)).SerializeToString())


def _card_text(card: Card) -> str:
    """What the run is, as an indented block of Markdown."""
    text = json.dumps(card.facts, indent=2, ensure_ascii=False)
    return "\n".join(f"    {line}" for line in text.splitlines())


class WandbRun:
    """A run of Weights & Biases with the fingerprint as its id, so that watching again goes on with it.

    Nothing is sent unless WANDB_MODE says so (`online`): without it the files stay in the folder, for `wandb
    sync`. Neither the console, the code, the machine nor its host is recorded.
    """

    def __init__(self, folder: Path, *, card: Card) -> None:
        import wandb

        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "repetita"),
            id=card.name.rpartition("-")[2],
            name=card.name,
            group=card.study or None,
            config=dict(card.facts),
            dir=str(folder),
            mode=os.environ.get("WANDB_MODE", "offline"),
            resume="allow",
            reinit="create_new",
            settings={
                "console": "off",
                "silent": True,
                "disable_git": True,
                "disable_code": True,
                "x_disable_meta": True,
                "x_disable_stats": True,
            },
        )
        # Measurements can be added to earlier steps, and wandb's own step can only grow.
        self._run.define_metric("*", step_metric="step")

    def takes(self, points: Sequence[Point]) -> bool:  # noqa: ARG002
        """See `Tracker.takes`."""
        return True

    def write(self, points: Sequence[Point]) -> None:
        """See `Tracker.write`."""
        for point in points:
            self._run.log({"step": point.step, **point.scalars, **point.texts})

    def commit(self) -> dict[str, Any]:
        """See `Tracker.commit`."""
        return {}

    def close(self, *, failed: bool) -> None:
        """Finishes the run there; one that is watched again is opened again."""
        self._run.finish(exit_code=1 if failed else 0)


def forget(folder: Path) -> None:
    """Removes what a tracker keeps of one run, to be written anew."""
    with storage_errors(folder):
        shutil.rmtree(folder, ignore_errors=True)
