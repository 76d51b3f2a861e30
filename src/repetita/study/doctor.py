"""Preflight of checkpoint series: what is missing, the same twice, out of line, or read by other rules."""

import hashlib
import itertools
import json
import math
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from repetita.errors import UserError, first_line
from repetita.study.series import RUN, LeftOut, Member, Series, find_all_series, step_of

if TYPE_CHECKING:
    from repetita.model.weights import Tensors

LEAST_JUMP = 0.05
"""Changes of the norm below this share are none."""
JUMP = 8.0
"""A norm jumps where it changes so many times as much as it does in the steps around it."""
LEAST_CHANGES = 4
"""Changes of the norm that a series needs before they can be compared; with fewer none is a jump."""
UNUSUAL = 0.01
"""A share of weights that is left as it was is unusual where it is so much above that of most checkpoints."""

ALLOWED = ("_name_or_path", "transformers_version", "torch_dtype", "dtype", "use_cache", "architectures")
"""Of a config what may differ: where it came from, how it is stored and asked."""
_TOKENIZER = (
    "tokenizer.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "*.model",
    "*.tiktoken",
    "tekken.json",
)


class Checked(NamedTuple):
    """One checkpoint of a series, and what is wrong with it; None is not known."""

    series: str
    name: str
    step: int | None
    n_params: int | None
    """Values stored; tied weights count as often as they are stored."""
    norm: float | None
    change: float | None
    """Of the norm, as a share of that of the checkpoint before."""
    unchanged: float | None
    """Share of the weights in tensors that are bit for bit those of the checkpoint before."""
    weights: str | None
    """12 hex digits of the hash of its tensors."""
    config: str | None
    tokenizer: str | None
    trouble: tuple[str, ...]
    """Each a clause; () where nothing is wrong."""


class Diagnosis(NamedTuple):
    """What a preflight found."""

    checked: tuple[Checked, ...]
    notes: tuple[str, ...]
    """What is no trouble and worth knowing, a sentence each."""

    @property
    def healthy(self) -> bool:
        """Whether nothing is wrong with any checkpoint."""
        return not any(one.trouble for one in self.checked)


class _Read(NamedTuple):
    """What lies on disk of a member."""

    tensors: "Tensors | None" = None
    whole: str | None = None
    """Hash of weights whose tensors are not read (GGUF)."""
    config: Mapping[str, Any] | None = None
    tokenizer: str | None = None
    trouble: str = ""

    @property
    def weights(self) -> str | None:
        return self.whole if self.tensors is None else self.tensors.sha256


def diagnose(
    references: Sequence[str | Path],
    /,
    *,
    root: str | Path = "repetita-out",
    allow_pickle: bool = False,
    watch: Callable[[str, float], None] | None = None,
) -> Diagnosis:
    """Reads every checkpoint of some series once and compares neighbours.

    `watch` hears of each before it is read, and of the share that is done.

    Trouble: a checkpoint that is missing, cannot be opened or lacks from an even sequence of steps; weights
    that are those of the checkpoint before, wholly or by an unusual part; a norm that is not finite or jumps;
    other tensors, another config or another tokenizer than the checkpoint before. Raises what
    `find_all_series` raises.

    >>> from pathlib import Path
    >>> from repetita import diagnose
    >>> run = next(Path("repetita-out/runs").glob("*-repeated_subset-s0-*"))
    >>> diagnose([f"run:{run}@all"]).healthy
    True
    """
    found = find_all_series(references, root=root)
    n_members, number = sum(len(series.members) for series in found), 0
    checked: list[Checked] = []
    notes: list[str] = []
    for series in found:
        read: list[_Read] = []
        alone = len(series.members) == 1
        for member in series.members:
            if watch is not None:
                watch(series.name if alone else f"{series.name}@{member.name}", number / n_members)
            read.append(_read(member, allow_pickle=allow_pickle))
            number += 1
        checked += _compared(series, read)
        if others := [one.name for one in series.left_out if one not in _torn(series.left_out)]:
            notes.append(f"{series.name}: left out are {_listed(others)}, named otherwise than the rest.")
        if series.members and all(one.tokenizer is None and not one.trouble for one in read):
            notes.append(f"{series.name}: no checkpoint has a tokenizer beside it; texts cannot be read.")
    return Diagnosis(tuple(checked), tuple(notes))


def missing_steps(steps: Sequence[int], /) -> list[int]:
    """Steps that an even sequence lacks: a gap of several usual ones with the usual one on both sides.

    It lacks no more of them than there are usual ones around the gap; a wider gap was left on purpose.

    >>> from repetita.study.doctor import missing_steps
    >>> missing_steps([0, 1, 2, 4, 8, 1000, 2000, 3000, 5000, 6000])
    [4000]
    """
    gaps = [b - a for a, b in itertools.pairwise(steps)]
    found: list[int] = []
    for i in range(1, len(gaps) - 1):
        usual = gaps[i - 1]
        if usual == gaps[i + 1] and gaps[i] > usual and gaps[i] % usual == 0:
            lacking = range(steps[i] + usual, steps[i + 1], usual)
            around = (gaps[i - 1 :: -1], gaps[i + 1 :])
            if len(lacking) <= sum(len(list(takewhile(usual.__eq__, side))) for side in around):
                found += lacking
    return found


def jumps(norms: Sequence[float], /) -> list[int]:
    """Places whose norm changed from the one before by far more than is usual around there.

    That is by LEAST_JUMP and by JUMP times the median of the up to four changes around it, two on either
    side (on the log scale, so that a norm that grows evenly never jumps).

    >>> from repetita.study.doctor import jumps
    >>> jumps([100, 101, 102, 130, 131, 132, 133])
    [3]
    """
    logs = [math.log(max(norm, sys.float_info.min)) for norm in norms]
    changes = [abs(b - a) for a, b in itertools.pairwise(logs)]
    if len(changes) < LEAST_CHANGES:
        return []
    found = []
    for i, change in enumerate(changes):
        around = [*changes[max(0, i - 2) : i], *changes[i + 1 : i + 3]]
        if change > math.log1p(LEAST_JUMP) and change > JUMP * statistics.median(around):
            found.append(i + 1)
    return found


def _read(member: Member, *, allow_pickle: bool) -> _Read:
    try:
        if member.source.startswith(RUN):
            return _read_run(member)
        return _read_pretrained(member, allow_pickle=allow_pickle)
    except UserError as error:
        return _Read(trouble=str(error))
    except OSError as error:
        return _Read(trouble=f"cannot be read ({first_line(error)})")


def _read_run(member: Member) -> _Read:
    from repetita.journal.folder import read_header
    from repetita.model.checkpoint import MODEL, checkpoint_path, load
    from repetita.model.weights import read_tensors
    from repetita.spec import plain

    run, _, step = member.source.removeprefix(RUN).rpartition("@")
    folder = checkpoint_path(Path(run), step=int(step))
    config = plain(load(folder, whole=False).config)  # Every byte is compared with its recorded hash.
    return _Read(read_tensors([folder / MODEL]), None, config, str(read_header(Path(run))["corpus"])[:12])


def _read_pretrained(member: Member, *, allow_pickle: bool) -> _Read:
    from repetita.model.pretrained_files import CONFIG, find_pretrained
    from repetita.model.weights import read_tensors

    files = find_pretrained(member.source, allow_pickle=allow_pickle)
    if files.format == "gguf":
        return _Read(whole=files.sha256())
    try:
        config = json.loads((files.folder / CONFIG).read_bytes())
    except ValueError:
        return _Read(trouble=f"its {CONFIG} is no JSON")
    tensors = read_tensors(files.weights, pickled=files.format == "pickle")
    return _Read(tensors, None, config, _tokenizer(files.folder))


def _tokenizer(folder: Path) -> str | None:
    """12 hex digits of what the tokenizer of a folder does; None where there is none."""
    digest, found = hashlib.sha256(), False
    for pattern in _TOKENIZER:
        for file in sorted(folder.glob(pattern)):
            content = file.read_bytes()
            if file.name == "tokenizer.json":
                try:
                    whole = json.loads(content)
                    content = json.dumps(
                        whole | {"truncation": None, "padding": None}, sort_keys=True
                    ).encode()
                except (ValueError, TypeError):
                    pass  # As it is: another content then is another tokenizer.
            digest.update(file.name.encode() + b"\0" + hashlib.sha256(content).digest())
            found = True
        if found and pattern == "tokenizer.json":
            break  # What a fast tokenizer reads; the other files are for other libraries.
    return digest.hexdigest()[:12] if found else None


def _compared(series: Series, read: Sequence[_Read]) -> list[Checked]:
    """The members of a series, each beside the nearest before it that could be read."""
    there = [i for i, one in enumerate(read) if not one.trouble]
    norms = {i: one.tensors.norm for i, one in enumerate(read) if one.tensors is not None}
    finite = [i for i in there if math.isfinite(norms.get(i, math.nan))]
    jumped = {finite[place] for place in jumps([norms[i] for i in finite])}
    before = dict(zip(there[1:], there, strict=False))
    shares = {i: _share(read[i], read[j]) for i, j in before.items()}
    known = [share for share in shares.values() if share is not None]
    usual = statistics.median(known) if known else 0.0
    steps = [member.step for member in series.members] + [step_of(one.name) for one in _torn(series.left_out)]
    lacking = missing_steps(sorted({step for step in steps if step is not None}))
    rows = []
    for i, (member, one) in enumerate(zip(series.members, read, strict=True)):
        trouble = [one.trouble] if one.trouble else []
        if i in norms and not math.isfinite(norms[i]):
            trouble.append("has weights that are not finite")
        if i in jumped:
            trouble.append("the norm of its weights jumps")
        if i in before:
            last = series.members[before[i]].name
            share = shares[i]
            trouble += _differences(read[before[i]], one)
            if one.weights == read[before[i]].weights:
                trouble.append(f"has the weights of {last}")
            elif share is not None and share > usual + UNUSUAL:
                trouble.append(f"{share:.0%} of its weights are those of {last}")
        rows.append(_row(series, member, one, read[before[i]] if i in before else None, trouble))
    rows += [_absent(series, one.name, one.why, step=step_of(one.name)) for one in _torn(series.left_out)]
    rows += [_absent(series, str(step), "lacks from an even sequence", step=step) for step in lacking]
    return sorted(rows, key=lambda row: math.inf if row.step is None else row.step)


def _row(series: Series, member: Member, one: _Read, last: _Read | None, trouble: Sequence[str]) -> Checked:
    norm = None if one.tensors is None else one.tensors.norm
    before = None if last is None or last.tensors is None else last.tensors.norm
    finite = norm is not None and before is not None and math.isfinite(norm) and 0 < before < math.inf
    config = None if one.config is None else _digest(one.config)
    return Checked(
        series.name, member.name, member.step,
        None if one.tensors is None else one.tensors.n_values,
        norm if norm is not None and math.isfinite(norm) else None,
        norm / before - 1 if finite and norm is not None and before is not None else None,
        None if last is None else _share(one, last),
        None if one.weights is None else one.weights[:12], config, one.tokenizer, tuple(trouble),
    )  # fmt: skip


def _absent(series: Series, name: str, why: str, *, step: int | None) -> Checked:
    return Checked(series.name, name, step, None, None, None, None, None, None, None, (why,))


def _differences(last: _Read, one: _Read) -> list[str]:
    return [*_other_config(last, one), *_other_tokenizer(last, one), *_other_tensors(last, one)]


def _other_config(last: _Read, one: _Read) -> list[str]:
    if last.config is None or one.config is None:
        return []
    keys = [key for key in sorted({*last.config, *one.config}) if key not in ALLOWED]
    changed = [key for key in keys if last.config.get(key) != one.config.get(key)]
    return [f"its config differs in {_listed(changed)}"] if changed else []


def _other_tokenizer(last: _Read, one: _Read) -> list[str]:
    if last.tokenizer == one.tokenizer:
        return []
    if one.tokenizer is None or last.tokenizer is None:
        return [f"has {'no' if one.tokenizer is None else 'a'} tokenizer, unlike the one before"]
    return ["has another tokenizer than the one before"]


def _other_tensors(last: _Read, one: _Read) -> list[str]:
    if last.tensors is None or one.tensors is None or last.tensors.sizes == one.tensors.sizes:
        return []
    before, now = last.tensors.sizes, one.tensors.sizes
    named = [name for name in sorted({*before, *now}) if before.get(name) != now.get(name)]
    return [f"its tensors differ in name or size: {_listed(named)}"]


def _share(one: _Read, last: _Read) -> float | None:
    if one.tensors is None or last.tensors is None:
        return None
    return one.tensors.share_as_in(last.tensors)


def _torn(left_out: Sequence[LeftOut]) -> list[LeftOut]:
    """Folders that are named like checkpoints and hold none."""
    return [one for one in left_out if one.why.startswith("has no")]


def _digest(config: Mapping[str, Any]) -> str:
    kept = {key: value for key, value in config.items() if key not in ALLOWED}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:12]


def _listed(names: Sequence[str], most: int = 4) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
