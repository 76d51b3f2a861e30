"""Runs watched from outside: what their journals say so far, shown or copied to a tracker; no run notices."""

import json
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple

from repetita.errors import DamagedError, UserError, nearest
from repetita.journal.disk import write_atomic
from repetita.journal.folder import failure, read_header, status
from repetita.journal.follow import Follower, Line
from repetita.journal.names import read_names
from repetita.study.trackers import Card, Point, Tracker, TrackerName, check_tracker, forget, open_tracker

STATE = "watched.json"
"""In a tracker's folder of one run: how far it was copied."""
POLL_SECONDS = 1.0
QUIET_SECONDS = 180.0
"""A run that writes nothing for so long is shown as `quiet`: stopped, or at a long measurement."""
RECENT = 50
"""Steps over which the speed is taken."""
TRIES = 3
"""A damaged line can be one that is just being written anew; it counts when it is there so often in a row."""

State = Literal["waiting", "running", "quiet", "done", "failed", "damaged"]


class Seen(NamedTuple):
    """What is known of one run."""

    run: str
    """Name of its folder."""
    state: State
    """`waiting`: there is no folder yet; `quiet`: unfinished, and nothing was written for three minutes."""
    step: int
    steps: int
    """The run's length; 0 while it is waiting."""
    loss: float | None
    """Mean loss of the newest batch, nats a token."""
    tokens_per_second: float | None
    """Training tokens over the newest 50 steps; without what measuring takes."""
    memorized: float | None
    """The newest M(f)."""
    memorized_on: str
    """The set that it was measured on, and the step: `special/0 at 512`."""
    message: str = ""
    """Why it failed or cannot be read; else the newest event."""
    n_lines: int = 0
    """Lines of the journal that were new in this watch."""


class Place(NamedTuple):
    """A run to be watched and the study that it was found in."""

    path: Path
    study: str = ""
    labels: tuple[Mapping[str, Any], ...] = ()
    trunk: str = ""
    """Name of the folder of the run that it waits for: its trunk, or else its parent."""

    before: str = "trunk"
    """Which of the two that is."""


def watch_runs(
    places: str | Path | Sequence[str | Path] = (),
    *,
    root: str | Path = "repetita-out",
    to: TrackerName | None = None,
    log_dir: str | Path | None = None,
    follow: bool = False,
    show: Callable[[Sequence[Seen]], None] | None = None,
) -> list[Seen]:
    """What the journals of runs say so far, copied to a tracker where `to` names one.

    A place is a run's folder or its name, a study's folder or its name in `root`, or a root; without one it
    is `root` with all its runs. `log_dir` defaults to `<root>/tensorboard` or `<root>/wandb` and also keeps
    how far each run was copied, so that the next call adds what is new and nothing twice. With `follow` the
    call returns when every run has ended, done, failed or never begun because the run that it starts from
    failed. It waits for a run that was stopped, since that can be continued, and shows it as `quiet` or
    `waiting`. `show` is given the state of all runs about once a second.

    Raises UserError where a place holds no run or the tracker is not installed, and DamagedError, after
    everything else was read, for a journal that is not as it was written.

    >>> import repetita
    >>> runs = repetita.watch_runs("my_question-tiny")
    >>> {run.state for run in runs}
    {'done'}
    >>> copied = repetita.watch_runs(to="tensorboard")
    """
    root = Path(root)
    given = [places] if isinstance(places, str | Path) else list(places)
    tracker = None if to is None else check_tracker(to)
    folder = None if tracker is None else Path(log_dir) if log_dir is not None else root / tracker
    watched: dict[Path, Watched] = {}
    try:
        while True:
            for place in find_runs(given, root=root):
                if place.path not in watched:
                    watched[place.path] = Watched(place, to=tracker, log_dir=folder)
            for one in watched.values():
                one.poll()
            _end_forks(watched)
            seen = [one.seen() for one in watched.values()]
            if show is not None:
                show(seen)
            if not follow or all(one.ended for one in watched.values()):
                break
            time.sleep(POLL_SECONDS)
    finally:
        for one in watched.values():
            one.close()
    damaged = [run.message for run in seen if run.state == "damaged"]
    if damaged:
        more = f" (and {len(damaged) - 1} more)" if len(damaged) > 1 else ""
        raise DamagedError(damaged[0] + more)
    return seen


def _end_forks(watched: Mapping[Path, "Watched"]) -> None:
    """Ends the waiting runs whose trunk or parent failed; a manifest has these before the runs."""
    for path, one in watched.items():
        trunk = watched.get(path.parent / one.place.trunk) if one.place.trunk else None
        if trunk is not None and trunk.ended and trunk.seen().state != "done":
            one.give_up(f"its {one.place.before} {one.place.trunk} failed")


def find_runs(places: Iterable[str | Path], *, root: Path) -> list[Place]:
    """The runs behind places (see `watch_runs`), those of studies also before they have begun."""
    found: dict[Path, Place] = {}
    for given in list(places) or [root]:
        options = [Path(given), root / "runs" / given, root / "studies" / given]
        for path in options:
            if (here := _runs_in(path)) is not None:
                for place in here:
                    if not found.get(place.path, Place(place.path)).study:
                        found[place.path] = place
                break
        else:
            names = [file.parent.name for file in root.glob("runs/*/run.json")]
            names += [file.parent.name for file in root.glob("studies/*/manifest.json")]
            raise UserError(
                f"{given} is no run, no study that was run and no root folder; {nearest(str(given), names)}"
                if names
                else f"{given} holds no runs; give a root with --root, a study's folder or a run's folder"
            )
    return list(found.values())


def _runs_in(path: Path) -> list[Place] | None:
    if (path / "run.json").exists():
        return [Place(path)]
    if (path / "manifest.json").exists():
        return _runs_of_study(path)
    if not any(path.glob("runs/*/run.json")) and not any(path.glob("studies/*/manifest.json")):
        return None
    of_studies = [
        place
        for manifest in sorted(path.glob("studies/*/manifest.json"))
        for place in _runs_of_study(manifest.parent)
    ]
    alone = [Place(file.parent) for file in sorted(path.glob("runs/*/run.json"))]
    known = {place.path for place in of_studies}
    return of_studies + [place for place in alone if place.path not in known]


def _runs_of_study(path: Path) -> list[Place]:
    try:
        runs = json.loads((path / "manifest.json").read_bytes())["runs"]
        return [
            Place(
                path.parents[1] / "runs" / run["folder"],
                path.name,
                tuple(run["labels"]),
                # A manifest of an older version does not say it.
                run.get("trunk") or run.get("parent") or "",
                "trunk" if run.get("trunk") else "parent",
            )
            for run in runs
        ]
    except (OSError, ValueError, KeyError, TypeError):
        raise DamagedError(
            f"{path / 'manifest.json'} is damaged; delete it and run the study again"
        ) from None


class Watched:
    """One run, from the outside."""

    def __init__(self, place: Place, *, to: TrackerName | None, log_dir: Path | None) -> None:
        self.place, self.path = place, place.path
        self.ended = False
        self._to = to
        self._folder = None if log_dir is None else log_dir / self.path.name
        self._tracker: Tracker | None = None
        self._card = Card(self.path.name, place.study, {})
        self._copied: dict[str, Any] = {}
        self._follower: Follower | None = None
        self._fingerprint = ""
        self._clock = 0.0
        self._recent: deque[tuple[int, float]] = deque(maxlen=RECENT)
        self._seen = Seen(self.path.name, "waiting", 0, 0, None, None, None, "")
        self._damage = 0

    def poll(self) -> None:
        """Reads what is new, and hands it to the tracker; does nothing once the run has ended."""
        if self.ended:
            return
        now = status(self.path)
        if now == "missing":
            return
        try:
            if self._follower is None:
                self._begin()
            assert self._follower is not None
            lines = self._follower.poll()
        except DamagedError as error:
            self._damage += 1
            if self._damage >= TRIES or now in ("done", "failed"):
                self._seen = self._seen._replace(state="damaged", message=str(error))
                self.ended = True
            return
        self._damage = 0
        self._take(lines)
        if now == "unfinished":
            quiet = time.time() - _last_sign(self.path) > QUIET_SECONDS
            self._seen = self._seen._replace(state="quiet" if quiet else "running")
        elif now == "failed":
            self._seen = self._seen._replace(state=now, message=failure(self.path))
        else:
            self._seen = self._seen._replace(state=now)
        if lines and self._folder is not None:
            self._copy(lines)
        # Status was read before the journals, so that an end that is seen has all its lines before it.
        self.ended = now in ("done", "failed")
        if self.ended:
            self.close()

    def _begin(self) -> None:
        """Reads what the run is and, where it was copied before, how far."""
        header = read_header(self.path)
        state: dict[str, Any] = {}
        if self._folder is not None:
            state = _read_state(self._folder, run=self.path, fingerprint=header["fingerprint"])
        facts = {"labels": list(self.place.labels), "spec": header["spec"]}
        self._card = Card(self.path.name, self.place.study, facts)
        self._copied = state.get("tracker", {})
        self._fingerprint = header["fingerprint"]
        self._seen = state.get("seen", self._seen)._replace(steps=int(header["spec"]["steps"]), n_lines=0)
        self._clock = state.get("clock", _started(self.path))
        self._follower = state.get("follower", Follower(self.path))

    def _copy(self, lines: Sequence[Line]) -> None:
        """Hands lines to the tracker, then writes down that it has them."""
        assert self._folder is not None
        assert self._to is not None
        assert self._follower is not None
        if self._tracker is None:
            self._tracker = open_tracker(self._to, folder=self._folder, card=self._card, state=self._copied)
        names = tags(read_names(self.path))
        points = list(points_of(lines, names=names, clock=self._clock))
        if not self._tracker.takes(points):
            self._tracker.close(failed=False)
            forget(self._folder)
            self._tracker = open_tracker(self._to, folder=self._folder, card=self._card, state={})
            self._follower = Follower(self.path)
            points = list(points_of(self._follower.poll(), names=names, clock=_started(self.path)))
        self._tracker.write(points)
        self._clock = points[-1].seconds if points else self._clock
        self._copied = self._tracker.commit()
        state = {
            "fingerprint": self._fingerprint,
            "clock": self._clock,
            "seen": self._seen._asdict(),
            "follower": self._follower.state(),
            "tracker": self._copied,
        }
        write_atomic(self._folder / STATE, json.dumps(state).encode())

    def _take(self, lines: Sequence[Line]) -> None:
        """Brings what is shown of the run up to these lines."""
        seen = self._seen._replace(n_lines=self._seen.n_lines + len(lines))
        for journal, values in lines:
            step = int(values["step"])
            if journal == "steps":
                loss, n = (sum(lane[place] for lane in values["sets"].values()) for place in (0, 2))
                self._recent.append((int(n), values["seconds"]))
                seen = seen._replace(step=step + 1, loss=loss / n if n else seen.loss)
            elif journal == "events":
                seen = seen._replace(message=f"{values['kind']}: {values['message']}")
            else:
                seen = seen._replace(step=max(step, seen.step))
        seconds = sum(took for _, took in self._recent)
        if seconds > 0:
            seen = seen._replace(tokens_per_second=sum(n for n, _ in self._recent) / seconds)
        memory = [
            (values["step"], -_rank(values["on"]), values["on"], values["value"])
            for journal, values in lines
            if journal == "measurements" and values["metric"] == "memorized" and values["value"] is not None
        ]
        if memory:
            step, _, on, value = max(memory, key=lambda one: one[:2])
            seen = seen._replace(memorized=value, memorized_on=f"{on} at {step}")
        self._seen = seen

    def give_up(self, message: str) -> None:
        """Ends a run that has not begun and will not, for this reason; does nothing to another."""
        if not self.ended and self._seen.state == "waiting":
            self._seen = self._seen._replace(message=message)
            self.ended = True

    def seen(self) -> Seen:
        """The run as it was at the last poll."""
        return self._seen

    def close(self) -> None:
        """Lets go of the tracker."""
        if self._tracker is not None:
            self._tracker.close(failed=self._seen.state == "failed")
            self._tracker = None


def tags(names: Mapping[str, str]) -> dict[str, str]:
    """What each probe is called in a tracker: its name, which the first of two with one name keeps."""
    called: dict[str, str] = {}
    for key, name in names.items():
        called[key] = f"{name}-{key[:6]}" if name in called.values() else name
    return called


def points_of(lines: Sequence[Line], *, names: Mapping[str, str], clock: float) -> Iterator[Point]:
    """Lines (in the order of their steps) as one point a step; `clock` is the time before the first."""
    scalars, texts = dict[str, float](), dict[str, str]()
    for place, (journal, values) in enumerate(lines):
        if journal == "steps":
            scalars |= dict(_of_step(values))
            clock += values["seconds"]
        elif journal == "events":
            texts["events"] = "\n\n".join([*texts.values(), f"{values['kind']}: {values['message']}"])
        elif values["value"] is not None:
            name = names.get(values["probe"], f"probe-{values['probe'][:6]}")
            scalars[f"{name}/{values['on']}/{values['metric']}"] = values["value"]
        if place + 1 == len(lines) or lines[place + 1].values["step"] != values["step"]:
            if scalars or texts:
                yield Point(values["step"], clock, scalars, texts)
            scalars, texts = {}, {}


def _of_step(values: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    lanes, shown_as = values["sets"], values.get("corruption", {})
    for name, (loss_sum, hits, n) in [*lanes.items(), *shown_as.items()]:
        if n:
            yield f"train/{name}/loss", loss_sum / n
            yield f"train/{name}/accuracy", hits / n
    yield "train/learning_rate", values["learning_rate"]
    yield "train/gradient_norm", values["gradient_norm"]
    if values["seconds"] > 0:
        yield "train/tokens_per_second", sum(n for _, _, n in lanes.values()) / values["seconds"]


def _rank(on: str) -> int:
    """Sets that are memorized come before those on which M(f) is what generalisation gives."""
    return {"repeated": 0, "special": 0, "train": 1}.get(on.partition("/")[0], 2)


def _read_state(folder: Path, *, run: Path, fingerprint: str) -> dict[str, Any]:
    """How far a run was copied; where nothing usable says so, what is there is removed and {} returned."""
    try:
        state = json.loads((folder / STATE).read_bytes())
        if state["fingerprint"] == fingerprint:
            return {
                "seen": Seen(**state["seen"]),
                "clock": float(state["clock"]),
                "follower": Follower(run, state=state["follower"]),
                "tracker": dict(state["tracker"]),
            }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass  # Damaged, or of another version.
    forget(folder)
    return {}


def _started(path: Path) -> float:
    """When the run's first attempt began, in seconds since 1970; 0 where that is not known."""
    try:
        first = min((path / "attempts").glob("*.json"))
        return datetime.fromisoformat(json.loads(first.read_bytes())["started"]).timestamp()
    except (OSError, ValueError, KeyError, TypeError):
        return 0.0


def _last_sign(path: Path) -> float:
    """When something was last written into a run's folder, in seconds since 1970."""
    files = [*path.glob("*.jsonl"), *path.glob("attempts/*.json"), path / "run.json"]
    return max(file.stat().st_mtime for file in files)
