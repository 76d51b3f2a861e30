"""A series of checkpoints by one name: revisions of the hub, checkpoint folders, steps of a run; by step."""

import re
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

from repetita.errors import RunFolderError, SpecError, nearest

HUB, RUN = "hf:", "run:"
ALL = "all"
"""Behind the @ of a subject: all that there are of it."""

MOST_PARTS = 8
"""Of a path, in the names of series that end alike."""

_COUNTED = re.compile(
    r"(?:step|checkpoint|ckpt|iter|update)s?[-_=]?(\d+)([kKmM](?![a-zA-Z]))?|^(\d+)$", re.IGNORECASE
)
_TOKENS = re.compile(r"(?<=tokens)[\d.]+[a-zA-Z]*|(?<=-)[\d.]+[bt]\b", re.IGNORECASE)
_TIMES = {"": 1, "k": 1_000, "m": 1_000_000}


class Member(NamedTuple):
    """One checkpoint of a series."""

    source: str
    """What opens it: hf:NAME@REVISION, the path of a folder or GGUF file, run:PATH@STEP."""
    step: int | None
    """Its number, by its name; None where that counts nothing (`main`)."""
    name: str
    """What it is called within its series: a revision, a folder's name, a step."""


class LeftOut(NamedTuple):
    """What lies beside the members of a series and is none."""

    name: str
    why: str


class Series(NamedTuple):
    """Checkpoints of one training, the lowest step first, those without a number last."""

    name: str
    """As others may read it: hf:NAME, run:NAME, or of a path its last part."""
    members: tuple[Member, ...]
    left_out: tuple[LeftOut, ...] = ()


def find_series(reference: str | Path, /, *, root: str | Path = "repetita-out") -> Series:
    """The checkpoints that a subject names; a series of one where it names a single model.

    `hf:NAME@step0,step1000`, `hf:NAME@all` (branches and tags), `FOLDER` or `FOLDER@all` (a folder of
    checkpoint folders), `run:RUN@all`, `run:RUN@0,100` (a run may be named without `run:`). Patterns choose
    among many: `hf:NAME@stage1-*`. `all` takes the kind of name that most have (`step#`), and says what it
    left out. That revisions given by their names exist is not looked up here. Raises SpecError where nothing
    fits (with the nearest), for a checkpoint named twice, and where two have one step.

    >>> from repetita.study.series import find_series
    >>> series = find_series("hf:owner/geese@step1000,step0")
    >>> [(member.step, member.source) for member in series.members]
    [(0, 'hf:owner/geese@step0'), (1000, 'hf:owner/geese@step1000')]
    """
    text = str(reference)
    if text.startswith(HUB):
        return _of_hub(text)
    place, _ = _parted(text.removeprefix(RUN))
    if text.startswith(RUN) or (_run_at(place, Path(root)) / "run.json").is_file():
        return _of_run(text.removeprefix(RUN), root=Path(root))
    return _of_folder(text)


def find_all_series(
    references: Sequence[str | Path], /, *, root: str | Path = "repetita-out"
) -> list[Series]:
    """The series that some subjects name, no two of one name: those that share one keep more of what was
    given. Raises what `find_series` raises, and SpecError for a series that is named twice.
    """
    found = [find_series(reference, root=root) for reference in references]
    members = [series.members for series in found]
    for series in found:
        if members.count(series.members) > 1:
            raise SpecError(f"the series '{series.name}' is named twice; name it once")
    for depth in range(2, MOST_PARTS):
        names = [series.name for series in found]
        found = [
            series._replace(name=_longer(str(reference), series, depth=depth))
            if names.count(series.name) > 1
            else series
            for reference, series in zip(references, found, strict=True)
        ]
    return found


def _longer(reference: str, series: Series, *, depth: int) -> str:
    """A name that tells a series from others: what was asked for of it, and more of a folder's path."""
    if series.name.startswith(HUB):
        return reference
    place, wanted = _parted(reference.removeprefix(RUN))
    behind = "" if wanted is None else f"@{wanted}"
    if series.name.startswith(RUN):
        return f"{series.name.partition('@')[0]}{behind}"
    return "/".join(Path(place).expanduser().resolve().parts[-depth:]) + behind


def run_of(series: Series, /) -> Path | None:
    """The folder of the run of ours whose checkpoints these are; None for any others."""
    source = series.members[0].source
    return Path(source.removeprefix(RUN).rpartition("@")[0]) if source.startswith(RUN) else None


def step_of(name: str, /) -> int | None:
    """The number of updates that a checkpoint's name tells: step1000, stage1-step50-tokens3B, step-50K-105b,
    checkpoint-500, global_step8, or a bare number; None for any other name.

    >>> from repetita.study.series import step_of
    >>> [step_of(name) for name in ("step1000", "step-50K-105b", "main", "v1.0")]
    [1000, 50000, None, None]
    """
    found = _COUNTED.search(name)
    if not found:
        return None
    return int(found[1] or found[3]) * _TIMES[(found[2] or "").lower()]


def kind_of(name: str, /) -> str:
    """A checkpoint's name with what counts in it as `#`: names of one series have one kind."""
    found = _COUNTED.search(name)
    if not found:
        return name
    first = found.start(1) if found[1] else 0
    last = found.end(2) if found[2] else found.end()
    return f"{_TOKENS.sub('#', name[:first])}#{_TOKENS.sub('#', name[last:])}"


def _of_hub(text: str) -> Series:
    from repetita.model.hub_snapshot import parsed, revisions

    name, revision = parsed(text)
    shown = f"{HUB}{name}"
    if not _several(revision):
        return Series(shown, (Member(text, step_of(revision), revision),))
    known = revisions(name) if _searches(revision) else []
    if _searches(revision) and not known:
        raise SpecError(
            f"{shown}: its revisions cannot be listed, since the hub has no such model or is not reached and "
            f"nothing of it is here; go online, or name them: {shown}@step0,step1000"
        )
    taken, left = _chosen(revision, known=known, of=shown)
    return _ordered(shown, [Member(f"{shown}@{one}", step_of(one), one) for one in taken], left)


def _of_run(text: str, *, root: Path) -> Series:
    from repetita.model.checkpoint import steps_on_disk

    place, wanted = _parted(text)
    run = _run_at(place, root)
    if not (run / "run.json").is_file():
        names = [file.parent.name for file in run.parent.glob("*/run.json")]
        raise RunFolderError(f"{run} is no run; {nearest(run.name, names)}")
    kept = [str(step) for step in steps_on_disk(run)]
    if not kept:
        raise RunFolderError(
            f"{run} has no checkpoint; train it to its end, or delete the folder and train it again"
        )
    taken, left = _chosen(wanted or kept[-1], known=kept, of=f"{RUN}{place}")
    for one in taken:
        if one not in kept:
            raise RunFolderError(
                f"{run}: no checkpoint of step {one} (kept: {', '.join(kept)}); ask for one of those steps"
            )
    return _ordered(
        f"{RUN}{run.name}", [Member(f"{RUN}{run}@{step}", int(step), step) for step in taken], left
    )


def _run_at(place: str, root: Path) -> Path:
    """The folder of a run: a path, or a name below `root`."""
    path = Path(place).expanduser()
    return path if path.is_dir() else root / "runs" / place


def _of_folder(text: str) -> Series:
    place, wanted = _parted(text)
    folder = Path(place).expanduser()
    if not folder.is_dir():  # A GGUF file, or a name whose trouble whoever opens it tells.
        return Series(folder.name, (Member(text, step_of(folder.stem), folder.name),))
    known = [one.name for one in folder.iterdir() if one.is_dir() and (one / "config.json").is_file()]
    alone = any((folder / file).is_file() for file in ("config.json", "run.json"))
    if wanted is None and (alone or not known):
        return Series(
            folder.resolve().name, (Member(str(folder), step_of(folder.resolve().name), folder.name),)
        )
    empty = [
        LeftOut(one.name, "has no config.json")
        for one in sorted(folder.iterdir())
        if one.is_dir() and one.name not in known and step_of(one.name) is not None
    ]
    taken, left = _chosen(wanted or ALL, known=known, of=place)
    for one in taken:
        if one not in known:
            raise SpecError(f"{place} has no checkpoint '{one}'; {nearest(one, known)}")
    members = [Member(str(folder / one), step_of(one), one) for one in taken]
    return _ordered(folder.resolve().name, members, [*left, *empty] if _searches(wanted or ALL) else [])


def _parted(text: str) -> tuple[str, str | None]:
    """A path and what stands behind its last @; a path that has one in its name is taken whole."""
    place, at, wanted = text.rpartition("@")
    if not at or Path(text).exists():
        return text, None
    if not wanted.strip(" ,"):
        raise SpecError(f"'{text}' names nothing behind its @; write {place}@all, or leave the @ out")
    return place, wanted


def _several(wanted: str) -> bool:
    return "," in wanted or _searches(wanted)


def _searches(wanted: str) -> bool:
    """Whether one has to know what there is."""
    return any(one.strip() == ALL or set(one) & set("*?[") for one in wanted.split(","))


def _chosen(wanted: str, *, known: Iterable[str], of: str) -> tuple[list[str], list[LeftOut]]:
    """The names that are asked for, and those that `all` leaves out."""
    there, taken, left = sorted(known), list[str](), list[LeftOut]()
    for one in (part.strip() for part in wanted.split(",")):
        if one == ALL:
            found, left = _of_one_kind(there)
        elif set(one) & set("*?["):
            found = [name for name in there if fnmatchcase(name, one)]
        else:
            found = [one] if one else []
        if not found:
            raise SpecError(f"{of} has no checkpoint '{one}'; {nearest(one, there)}")
        for name in found:
            if name in taken:
                raise SpecError(f"{of}: '{name}' is named twice; name it once")
            taken.append(name)
    return taken, [one for one in left if one.name not in taken]


def _of_one_kind(there: Sequence[str]) -> tuple[list[str], list[LeftOut]]:
    """The names of the kind that most have; all of them where none of them counts."""
    kinds: dict[str, list[str]] = {}
    for name in there:
        if step_of(name) is not None:
            kinds.setdefault(kind_of(name), []).append(name)
    if not kinds:
        return list(there), []
    most = max(sorted(kinds), key=lambda kind: len(kinds[kind]))
    taken = kinds[most]
    left = [LeftOut(name, f"is not named {most}") for name in there if name not in taken]
    return taken, left


def _ordered(name: str, members: Sequence[Member], left: Sequence[LeftOut]) -> Series:
    by_step: dict[int, Member] = {}
    for member in members:
        if member.step is None:
            continue
        other = by_step.setdefault(member.step, member)
        if other is not member:
            raise SpecError(
                f"{name}: '{other.name}' and '{member.name}' both are of step {member.step}; name the ones "
                f"that you mean, or a pattern such as {kind_of(member.name).replace('#', '*')}"
            )
    counted = [by_step[step] for step in sorted(by_step)]
    return Series(name, (*counted, *(one for one in members if one.step is None)), tuple(left))
