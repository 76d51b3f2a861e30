"""Forgetting inside training: what is memorized at one pass and no longer at the next, token by token."""

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from repetita.fit.claim import Claim, by_seed, directional, undecided
from repetita.fit.estimate import t_interval
from repetita.measure.token_hits import TokenHits, unpacked
from repetita.report.figure import Axis, Cell, Figure, Layer, Panels, Row, Series, Style
from repetita.report.page import Table
from repetita.studies._memory import Floats
from repetita.studies._memory_claims import PAPER
from repetita.studies._memory_figures import spread

if TYPE_CHECKING:
    from repetita.study.collect import Collected

LEVELS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""M(f) at which sizes are compared, each where every size reaches it."""
FIRST_PASS = 4
"""Pass from which sizes are compared at equal pass: until then the learning rate warms up."""
SHARES = (1.0, 0.9)
"""M(f) of a sequence from which on it counts as memorized."""
SETS = {"train": "training set", "test": "test set (never trained on)"}
PROBES = ("churn", "churn_test")
CHANCE = "if the next pass's hits fell anywhere"


class Sequences(NamedTuple):
    """Sequences that count as memorized, at a pass and at the next."""

    memorized: int
    lost: int
    expected: float
    """Lost ones if each of their memorized tokens were lost on its own, at the rate of all tokens. A sequence
    that counts at M = 1 is lost with any token; for a lower share see `_kept_share`."""


class Turn(NamedTuple):
    """What became of one set from one pass to the next, in one run."""

    size: str
    n_params: int
    seed: Hashable
    on: str
    """train or test."""
    passes: float
    """Passes made before."""
    n: int
    """Scored tokens."""
    memorized: float
    """M(f) before."""
    later: float
    """M(f) one pass later."""
    lost: float | None
    """Share of the memorized tokens that are not memorized one pass later; None where none was memorized."""
    regained: float | None
    """Share of those lost that are memorized another pass later; None where that was not measured."""
    sequences: Mapping[float, Sequences]
    """By the share of a sequence's tokens from which it counts as memorized."""

    @property
    def by_chance(self) -> float:
        """Share lost if one pass later M(f) were the same and the hits fell on any tokens."""
        return 1 - self.later


Turns = list[Turn]
Measure = Callable[[Turn], float | None]


def churn(collected: "Collected") -> Turns:
    """Every pair of states one pass apart in the runs that are followed token by token."""
    import polars as pl

    rows = collected.measurements.filter(
        pl.col("probe").is_in(PROBES) & (pl.col("metric") == "memorized_by_token") & (pl.col("n") > 0)
    )
    found: Turns = []
    for (folder, key), part in rows.group_by("folder", "key", maintain_order=True):
        first = part.row(0, named=True)
        hits: dict[int, TokenHits] = {}
        for step in sorted(part["step"].to_list()):
            one = unpacked(collected.items(str(folder), key=str(key), step=step), on=first["on"])
            if one is not None:
                hits[step] = one
        found += _turns(first, hits)
    return sorted(found, key=lambda turn: (turn.on != "train", turn.n_params, str(turn.seed), turn.passes))


def _turns(run: Mapping[str, Any], hits: Mapping[int, TokenHits]) -> Iterator[Turn]:
    length = run["n_sequences"] / run["batch_size"]
    for step, one in hits.items():
        after, beyond = hits.get(round(step + length)), hits.get(round(step + 2 * length))
        if step == 0 or after is None:
            continue
        yield turn(one, after, beyond)._replace(
            size=run["size"],
            n_params=run["non_embedding"],
            seed=run["seed"],
            on=run["on"],
            passes=step / length,
        )


def turn(one: TokenHits, after: TokenHits, beyond: TokenHits | None) -> Turn:
    """Two states one pass apart compared by token, and a third for what comes back."""
    n, lost = int(one.scored.sum()), one.hit & ~after.hit
    memorized, n_lost = int(one.hit.sum()), int(lost.sum())
    regained = None if beyond is None or not n_lost else int((lost & beyond.hit).sum()) / n_lost
    rate = n_lost / memorized if memorized else None
    return Turn(
        size="", n_params=0, seed=0, on="", passes=0.0, n=n,
        memorized=memorized / n, later=int(after.hit.sum()) / n, lost=rate, regained=regained,
        sequences={share: _sequences(one, after, share, rate or 0.0) for share in SHARES},
    )  # fmt: skip


def _sequences(one: TokenHits, after: TokenHits, share: float, rate: float) -> Sequences:
    n_S, hits_S, later_S = one.scored.sum(1), one.hit.sum(1), after.hit.sum(1)
    need_S = np.ceil(share * n_S - 1e-9)
    there_S = (n_S > 0) & (hits_S >= need_S)
    gained = int((after.hit & ~one.hit).sum()) / max(1, int((one.scored & ~one.hit).sum()))
    alike, counts = np.unique(np.stack([hits_S, n_S, need_S])[:, there_S], axis=1, return_counts=True)
    expected = sum(
        count * (1 - _kept_share(int(hits), int(n - hits), int(need), lost=rate, gained=gained))
        for (hits, n, need), count in zip(alike.T, counts, strict=True)
    )
    return Sequences(int(there_S.sum()), int((there_S & (later_S < need_S)).sum()), float(expected))


def _kept_share(hits: int, misses: int, need: int, *, lost: float, gained: float) -> float:
    """Chance of at least `need` hits one pass later if tokens are lost and gained independently."""
    return float(np.convolve(_binomial(hits, 1 - lost), _binomial(misses, gained))[need:].sum())


def _binomial(n: int, p: float) -> Floats:
    """Chances of 0 to n successes."""
    chances = np.ones(1)
    for _ in range(n):
        chances = np.convolve(chances, [1 - p, p])
    return chances


def planned_sizes(planned: Sequence[Mapping[str, Any]]) -> list[str]:
    """Sizes of the runs that are followed token by token, by parameters."""
    n_params = {
        str(labels["size"]): int(labels["non_embedding"]) for labels in planned if labels["arm"] == "plain"
    }
    return sorted(n_params, key=lambda size: n_params[size])


def claims(found: Sequence[Turn], *, sizes: Sequence[str]) -> Iterator[Claim]:
    """Whether larger models lose less from one pass to the next: at equal M(f) (primary), at equal pass."""
    if len(sizes) < 2:
        return
    train = [one for one in found if one.on == "train" and one.lost is not None]
    at_level = {seed: _at_levels(runs) for seed, runs in _complete(train, sizes).items()}
    yield _less(
        {seed: slope for seed, (slope, _) in at_level.items() if slope is not None},
        name="loses-less",
        at=f"at equal M(f), mean over those of {LEVELS[0]:g}, {LEVELS[1]:g} ... {LEVELS[-1]:g} that all "
        "sizes reach",
        note="; ".join(
            [f"seed {seed}: M(f) = {_levels_text(levels)}" for seed, (_, levels) in at_level.items()]
            + ["a size that learns faster gains more in the same pass, which this does not take out"]
        ),
        primary=True,
    )
    yield _less(
        {seed: _at_passes(runs) for seed, runs in _complete(train, sizes).items()},
        name="loses-less-by-pass",
        at=f"at equal pass, mean over the passes from {FIRST_PASS} on",
        primary=False,
    )


def _less(slopes: Mapping[Hashable, float], *, name: str, at: str, primary: bool, note: str = "") -> Claim:
    statement = (
        "inside training, larger models lose a smaller share of their memorized tokens from one pass to the "
        f"next, {at}"
    )
    source = f"{PAPER}: larger models forget less (abstract); later work disagrees (arXiv 2506.12321)"
    if not slopes:
        return undecided(
            name=name, statement=statement, source=source, primary=primary,
            rule="slope of the share lost on log10 N below 0 (t test over seeds)",
            note="no seed has every size, or the sizes have no level in common",
        )  # fmt: skip
    return directional(
        by_seed(slopes), name=name, statement=statement, source=source, direction="below", primary=primary,
        unit="of the share lost per decade of N", note=note,
    )  # fmt: skip


def _complete(train: Sequence[Turn], sizes: Sequence[str]) -> dict[Hashable, list[Turns]]:
    """By seed the turns of each size, of the seeds that have every planned size."""
    found: dict[Hashable, list[Turns]] = {}
    for seed in dict.fromkeys(one.seed for one in train):
        runs = [[one for one in train if (one.seed, one.size) == (seed, size)] for size in sizes]
        if all(runs):
            found[seed] = runs
    return found


def _at_levels(runs: Sequence[Turns]) -> tuple[float | None, list[float]]:
    """Mean slope of the share lost on log10 N over the levels of M(f) that all runs have; these levels."""
    levels = [
        level
        for level in LEVELS
        if all(min(t.memorized for t in run) <= level <= max(t.memorized for t in run) for run in runs)
    ]
    logs = np.log10([run[0].n_params for run in runs])
    slopes = [np.polyfit(logs, [lost_at(run, level) for run in runs], 1)[0] for level in levels]
    return (float(np.mean(slopes)) if slopes else None), levels


def lost_at(run: Sequence[Turn], level: float, /) -> float:
    """The share lost where M(f) is `level`, read linearly between the states around it."""
    turns = sorted((one for one in run if one.lost is not None), key=lambda one: one.memorized)
    return float(np.interp(level, [one.memorized for one in turns], [float(one.lost or 0) for one in turns]))


def _at_passes(runs: Sequence[Turns]) -> float:
    by_pass = [{one.passes: float(one.lost or 0) for one in run if one.passes >= FIRST_PASS} for run in runs]
    common = sorted(set.intersection(*(set(lost) for lost in by_pass)))
    logs = np.log10([run[0].n_params for run in runs])
    return float(np.mean([np.polyfit(logs, [lost[at] for lost in by_pass], 1)[0] for at in common]))


def _levels_text(levels: Sequence[float]) -> str:
    return ", ".join(f"{level:g}" for level in levels) or "none in common"


def figures(found: Sequence[Turn]) -> Iterator[Figure]:
    """The share lost against passes, and against M(f) beside what chance would lose."""
    turns = [one for one in found if one.lost is not None]
    if not turns:
        return
    order = tuple(dict.fromkeys(one.size for one in sorted(turns, key=lambda one: one.n_params)))
    n = f"{_seeds_text(turns)}, {turns[0].n:,} tokens of the training set followed"
    series = Series(column="size", title="non-embedding parameters", kind="sequence", order=order)
    panels = Panels(column="on", title="", order=tuple(SETS.values()), share="both")
    yield Figure(
        name="forgetting-churn",
        title="Forgotten from one pass to the next",
        caption="Of the tokens that are memorized after a pass, the share that no longer is one pass later, "
        "in runs without any special batch. Right: the same on text that is never trained on, where "
        "nothing can be remembered. Band: 95% t interval over seeds, where there are several.",
        n=n,
        rows=tuple(_rows(turns, lambda one: one.lost)),
        x=Axis(column="passes", title="passes over the training set (log)", scale="log"),
        y=Axis(column="value", title="share of memorized tokens lost by the next pass", start="zero"),
        series=series,
        panels=panels,
        layers=(Layer(kind="band", low="low", high="high"), Layer(kind="line"), Layer(kind="point")),
        tooltip=("memorized", "seeds"),
    )
    styles = ("measured", CHANCE)
    rows = [
        *_rows(turns, lambda one: one.lost, beside={"what": styles[0]}),
        *_rows(turns, lambda one: one.by_chance, beside={"what": styles[1]}),
    ]
    yield Figure(
        name="forgetting-churn-at-equal-memory",
        title="The same at equal M(f)",
        caption="The share lost by the next pass against M(f) before, mean over seeds, one point a pass. "
        "Dashed: what would be lost if the next pass had as many hits as it has, but on any tokens "
        "(1 - M(f) one pass later).",
        n=n,
        rows=tuple(sorted(rows, key=lambda row: float(row["memorized"] or 0))),
        x=Axis(column="memorized", title="memorized fraction M(f) before"),
        y=Axis(column="value", title="share of memorized tokens lost by the next pass", start="zero"),
        series=series,
        style=Style(column="what", title="", order=styles),
        panels=panels,
        layers=(Layer(kind="line"), Layer(kind="point")),
        tooltip=("passes", "seeds"),
    )


def _rows(
    turns: Sequence[Turn], measure: Measure, *, beside: Mapping[str, Cell] | None = None
) -> Iterator[Row]:
    """Mean and interval over seeds by size, set and pass."""
    groups: dict[tuple[str, str, float], Turns] = {}
    for one in turns:
        groups.setdefault((one.on, one.size, one.passes), []).append(one)
    for (on, size, passes), group in groups.items():
        values = [value for one in group if (value := measure(one)) is not None]
        if not values:
            continue
        yield {
            "on": SETS.get(on, on),
            "size": size,
            "passes": passes,
            "memorized": float(np.mean([one.memorized for one in group])),
            **spread(values),
            **(beside or {}),
        }


def tables(found: Sequence[Turn]) -> Iterator[Table]:
    """Tokens and sequences lost from pass to pass, beside what chance would lose, by size."""
    turns = [one for one in found if one.lost is not None]
    if not turns:
        return
    groups: dict[tuple[str, str, float], Turns] = {}
    for one in turns:
        if one.regained is not None or one.on == "train":
            groups.setdefault((one.on, one.size, one.passes), []).append(one)
    yield Table(
        "forgetting-churn-by-pass", "Lost from one pass to the next",
        "Tokens: share of the memorized ones that are not memorized one pass later; the same if the next "
        "pass's hits fell on any tokens; share of those lost that are back another pass later. Sequences: "
        "how many have M(f) = 1 (or at least 0.9) before, the share of them that has not one pass later, and "
        "that share if each token were lost and gained on its own. Means over seeds, intervals: 95% t.",
        _seeds_text(turns),
        ("set", "N", "passes", "M(f)", "tokens lost", "by chance", "regained", "sequences at 1", "lost",
         "expected", "sequences at 0.9", "lost at 0.9", "expected at 0.9"),
        [_row(group) for group in groups.values()],
    )  # fmt: skip


def _row(group: Sequence[Turn]) -> list[Cell]:
    one = group[0]
    cells: list[Cell] = [SETS.get(one.on, one.on), one.size, one.passes]
    cells += [f"{np.mean([t.memorized for t in group]):.3f}", _text([t.lost for t in group])]
    cells += [f"{np.mean([t.by_chance for t in group]):.3f}", _text([t.regained for t in group])]
    for share in SHARES:
        counted = [t.sequences[share] for t in group]
        n = sum(c.memorized for c in counted)
        cells.append(f"{n / len(group):.1f}")
        cells += [
            f"{sum(part) / n:.2f}" if n else None
            for part in zip(*((c.lost, c.expected) for c in counted), strict=True)
        ]
    return cells


def _text(values: Sequence[float | None]) -> str | None:
    there = [value for value in values if value is not None]
    if not there:
        return None
    found = t_interval(there)
    return found.text() if found.n > 1 else f"{found.value:.3g}"


def _seeds_text(turns: Sequence[Turn]) -> str:
    n = len({one.seed for one in turns})
    return f"{n} seed{'s' if n > 1 else ''} a size"
