"""What is kept of one exposure: forgetting curves, their controls and claims of the forgetting study."""

import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from repetita.fit.claim import Claim, directional, undecided
from repetita.fit.forgetting import Forgetting, forgetting, retained

if TYPE_CHECKING:
    import polars as pl

PAPER = "Tirumala et al. 2022"
PER_DECADE = 5
Floats = NDArray[np.float64]
Reading = tuple[str, str, str, int]
"""Arm (special, placebo), metric, set and batch as one curve is keyed."""


class Arm(NamedTuple):
    """A cell of the study: what differs between two forgetting curves but the seed."""

    size: str
    times: int
    after: str


class Kept(NamedTuple):
    """Forgetting curves of one cell and one metric by seed, all over the same x."""

    arm: Arm
    n_params: int
    """Non-embedding parameters."""
    x: Floats
    """Updates since the last exposure to the batch, 1 right after it; shape (X,)."""
    special: dict[Hashable, Floats]
    """On the special batches in the run that trained on them, mean over batches."""
    placebo: dict[Hashable, Floats]
    """On the same tokens in the run that trained on placebo text instead."""
    twin: dict[Hashable, Floats]
    """On the never-seen twins in the run that trained on the special batches."""
    twin_placebo: dict[Hashable, Floats]
    before: dict[Hashable, float]
    """On the special batches just before the injections."""
    n_batches: int
    n_tokens: int
    """Scored tokens of all special batches of one seed."""

    def kept(self, how: str = "minus_placebo", /) -> dict[Hashable, Floats]:
        """The curves `raw`, `minus_placebo` or `minus_twin` (difference in differences) by seed."""
        return {
            seed: retained(
                self.special[seed],
                placebo=self.placebo[seed],
                twin=self.twin[seed],
                twin_placebo=self.twin_placebo[seed],
            )[how]
            for seed in self.special
        }

    def summary(self, how: str, /) -> Forgetting:
        """Baseline, last value and fitted floors of the curves."""
        return forgetting(self.x, curves=self.kept(how))

    def last(self, how: str, /) -> dict[Hashable, float]:
        """The value at the end of the horizon by seed."""
        return {seed: float(values[-1]) for seed, values in self.kept(how).items()}


def kept(table: "pl.DataFrame", *, metric: str) -> list[Kept]:
    """Every cell with at least one seed that has both arms measured to the end."""
    import polars as pl

    rows = table.filter(
        (pl.col("probe") == "special") & (pl.col("metric") == metric) & pl.col("value").is_not_null()
    ).sort("step")
    cells: dict[Arm, dict[tuple[Hashable, str, str], dict[int, list[tuple[int, float]]]]] = {}
    facts: dict[Arm, dict[str, int]] = {}
    for row in rows.iter_rows(named=True):
        arm = Arm(row["size"], row["times"], row["after"])
        name, _, batch = row["on"].partition("/")
        role = "trained" if name == row["trained"] else "other"
        place = cells.setdefault(arm, {}).setdefault((row["seed"], row["arm"], role), {})
        place.setdefault(int(batch), []).append((row["step"], row["value"]))
        fact = facts.setdefault(arm, {key: row[key] for key in ("at", "n_batches", "steps", "non_embedding")})
        fact["n"] = row["n"]
    return [found for arm, series in cells.items() if (found := _cell(arm, series, facts[arm])) is not None]


def _cell(
    arm: Arm,
    series: Mapping[tuple[Hashable, str, str], Mapping[int, list[tuple[int, float]]]],
    fact: Mapping[str, int],
) -> Kept | None:
    """The curves of one cell on a common grid of updates since exposure; None where no seed is complete."""
    last = fact["at"] + fact["n_batches"] * arm.times
    horizon = fact["steps"] - last + 1
    n_points = int(PER_DECADE * math.log10(horizon)) + 1
    x = np.append(10 ** (np.arange(n_points) / PER_DECADE), float(horizon))
    x = np.unique(x.round(6))
    curves: dict[str, dict[Hashable, Floats]] = {"special": {}, "placebo": {}, "twin": {}, "twin_placebo": {}}
    names = {
        ("special", "trained"): "special", ("placebo", "trained"): "placebo",
        ("special", "other"): "twin", ("placebo", "other"): "twin_placebo",
    }  # fmt: skip
    before: dict[Hashable, float] = {}
    for (seed, injected, role), batches in series.items():
        if len(batches) < fact["n_batches"] or any(
            points[-1][0] < fact["steps"] for points in batches.values()
        ):
            continue
        values = [
            _resampled(x, points, fact["at"] + (batch + 1) * arm.times) for batch, points in batches.items()
        ]
        curves[names[injected, role]][seed] = np.mean(values, axis=0)
        if (injected, role) == ("special", "trained"):
            before[seed] = float(np.mean([dict(points)[fact["at"]] for points in batches.values()]))
    complete = set.intersection(*(set(by_seed) for by_seed in curves.values()))
    if not complete:
        return None
    chosen = {name: {s: by_seed[s] for s in sorted(complete, key=str)} for name, by_seed in curves.items()}
    return Kept(
        arm=arm,
        n_params=fact["non_embedding"],
        x=x,
        before={seed: before[seed] for seed in chosen["special"]},
        n_batches=fact["n_batches"],
        n_tokens=fact["n"] * fact["n_batches"],
        **chosen,
    )


def _resampled(x: Floats, points: Sequence[tuple[int, float]], exposed: int) -> Floats:
    """A batch's curve at x updates since the state right after its last exposure (x = 1), linear in ln x."""
    own = np.array(
        [(step - exposed + 1, value) for step, value in points if step >= exposed], dtype=np.float64
    )
    return np.asarray(np.interp(np.log(x), np.log(own[:, 0]), own[:, 1]))


def claims(cells: Sequence[Kept], nats: Sequence[Kept]) -> Iterator[Claim]:
    """At most eight primary claims, on M(f); the same in nats is descriptive."""
    once = sorted((c for c in cells if c.arm.times == 1 and c.arm.after == "same"), key=lambda c: c.n_params)
    for cell in once[:4]:
        yield _remains(cell)
    if len(once) > 1:
        yield _rises(
            once, "raw", "the paper's forgetting baseline (lowest M after the injection)", primary=True
        )
        yield _rises(
            once, "minus_placebo", "the memory kept at the end of the horizon (minus placebo)", primary=True
        )
    if once:
        yield _generalisation(once[-1])
    for cell in once:
        other = next((c for c in cells if c.arm == cell.arm._replace(after="novel")), None)
        if other is not None:
            yield _novel(cell, other, primary=cell is once[-1] or len(once) <= 2)
    for cell in cells:
        if cell.arm.times > 1 and cell.arm.after == "same":
            single = next((c for c in once if c.arm.size == cell.arm.size), None)
            if single is not None:
                yield _dose(cell, single)
    for cell in nats:
        if cell.arm.times == 1 and cell.arm.after == "same":
            yield _remains_in_nats(cell)


def _values(by_seed: Mapping[Hashable, float]) -> list[float]:
    return [by_seed[seed] for seed in sorted(by_seed, key=str)]


def _remains(cell: Kept) -> Claim:
    end = cell.last("minus_placebo")
    twins = np.mean(_values(cell.last("minus_twin")))
    return directional(
        _values(end),
        name=f"remains-{cell.arm.size}",
        statement=f"N = {cell.arm.size}: {cell.x[-1]:.0f} updates after one exposure the special batches are still known "
        "better than without it",
        source=f"{PAPER}, Fig. 8 left, with the placebo fork that the paper lacks",
        unit="of M(f), special minus placebo",
        note=f"against the never-seen twin (difference in differences): {twins:+.4f}",
    )


def _remains_in_nats(cell: Kept) -> Claim:
    end = {seed: -value for seed, value in cell.last("minus_placebo").items()}
    return directional(
        _values(end),
        name=f"remains-nats-{cell.arm.size}",
        statement=f"N = {cell.arm.size}: at the end of the horizon the loss on the special batches is lower than without them",
        source=f"{PAPER}, Fig. 14 (perplexity and M side by side)",
        unit="nats a token",
        primary=False,
    )


def _rises(cells: Sequence[Kept], how: str, what: str, *, primary: bool) -> Claim:
    """Slope against log10 N by seed; the paper's own baseline is the minimum, the kept memory is read at the end."""
    seeds = sorted(set.intersection(*(set(cell.special) for cell in cells)), key=str)
    name = "baseline-rises" if how == "raw" else "kept-rises"
    statement = f"{what} rises with model size"
    source = f"{PAPER}, Fig. 8 right: about +0.06 of M per decade of N"
    if not seeds:
        return undecided(
            name=name, statement=statement, source=source, rule="slope above 0", note="no seed has all sizes"
        )
    logs = np.log10([cell.n_params for cell in cells])
    slopes = []
    for seed in seeds:
        values = [
            float(np.min(cell.kept("raw")[seed])) if how == "raw" else cell.last("minus_placebo")[seed]
            for cell in cells
        ]
        slopes.append(float(np.polyfit(logs, values, 1)[0]))
    return directional(
        slopes, name=name, statement=statement, source=source, unit="of M(f) per decade of N", primary=primary
    )


def _generalisation(cell: Kept) -> Claim:
    """Share of M at the end that the run without the exposure has as well."""
    shares = [float(cell.placebo[s][-1] / cell.special[s][-1]) for s in sorted(cell.special, key=str)]
    return directional(
        shares,
        name="baseline-is-generalisation",
        statement=f"N = {cell.arm.size}: more than half of the forgetting baseline is what the model would guess without "
        "having seen the batch",
        source=f"open in {PAPER}, which has no never-seen control",
        threshold=0.5,
        unit="(M of the placebo fork / M of the injected run, at the end)",
    )


def _novel(same: Kept, novel: Kept, *, primary: bool) -> Claim:
    seeds = sorted(set(same.special) & set(novel.special), key=str)
    gaps = [same.last("minus_placebo")[s] - novel.last("minus_placebo")[s] for s in seeds]
    name = f"novel-{same.arm.size}"
    statement = f"N = {same.arm.size}: going on with the same data keeps more of the special batches than going on with novel data"
    source = "Bordt et al. 2024: forgetting needs novel data"
    if not gaps:
        return undecided(
            name=name, statement=statement, source=source, rule="difference above 0", note="no seed has both"
        )
    note = (
        f"novel data: {np.mean(_values(novel.last('minus_placebo'))):+.4f} of M over its placebo at the end"
    )
    return directional(
        gaps,
        name=name,
        statement=statement,
        source=source,
        unit="of M(f), each minus its placebo",
        note=note,
        primary=primary,
    )


def _dose(many: Kept, single: Kept) -> Claim:
    seeds = sorted(set(many.special) & set(single.special), key=str)
    gaps = [many.last("minus_placebo")[s] - single.last("minus_placebo")[s] for s in seeds]
    return directional(
        gaps,
        name=f"dose-{many.arm.size}-{many.arm.times}",
        statement=f"N = {many.arm.size}: {many.arm.times} exposures in a row leave more behind than one",
        source=f"{PAPER}, Fig. 10 left: differences of order 0.01 of M",
        unit="of M(f), each minus its placebo",
        primary=False,
    )
