"""Claims on what is kept of one exposure, and what they can detect: eight primary ones at most."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from repetita.fit.claim import Claim, by_seed, directional, equivalent, undecided
from repetita.fit.estimate import t_interval
from repetita.fit.forgetting import FLOORED
from repetita.studies._memory import Kept, gaps
from repetita.studies._power import smallest_effect

PAPER = "Tirumala et al. 2022"
MOST_SIZES = 3
"""Sizes with a primary claim of their own: with slopes, generalisation, sequel and what is lost inside
training these are eight claims. Of more, the smallest, the middle and the largest."""
STEADY = 0.001
"""Change of M(f) a pass within which a forgetting curve counts as flat: a hundredth of the paper's first
value (Fig. 15, about -0.1)."""

SEED_SD = {
    "remains": 0.003,
    "baseline-rises": 0.005,
    "kept-rises": 0.005,
    "baseline-is-generalisation": 0.03,
    "novel": 0.004,
    "loses-less": 0.01,
}
"""Assumed standard deviations over seeds of the effects that the claims test, in M(f) (a share for
generalisation), for planning only: a guess, not fitted to runs. No verdict uses them."""
PREDICTED = {
    "remains": 0.01,
    "baseline-rises": 0.06,
    "kept-rises": 0.01,
    "baseline-is-generalisation": 0.2,
    "novel": 0.01,
    "loses-less": 0.02,
}
"""What the paper leads one to expect: +0.06 of M a decade of size for the baseline; differences in what is
kept of the order of 0.01, as between its orders of exposure. The share of generalisation is ours, and so is
that of tokens lost from one pass to the next."""
KEPT, UNFINISHED = "of M(f), special minus placebo", "no seed of this size has both its arms finished yet"
UNITS = {
    "baseline-rises": "of M(f) per decade of N",
    "kept-rises": "of M(f) per decade of N",
    "baseline-is-generalisation": "from a half",
    "loses-less": "of the share lost per decade of N",
}


def claims(cells: Sequence[Kept], *, nats: Sequence[Kept], sizes: Sequence[str]) -> Iterator[Claim]:
    """Claims on M(f) at the end of the horizon; the same in nats, doses and forms are descriptive.

    The first is the paper's own, of its Fig. 8. `sizes` are those planned with one exposure and the same data
    afterwards, by parameters: they say which claims are primary, whatever is finished.
    """
    once = [cell for cell in cells if cell.arm.times == 1 and cell.arm.after == "same"]
    by_size = {cell.arm.size: cell for cell in once}
    if len(sizes) > 1:
        yield from (
            _rises([by_size.get(size) for size in sizes], how=how) for how in ("raw", "minus_placebo")
        )
    if sizes:
        yield _generalisation(by_size.get(sizes[-1]), size=sizes[-1])
    for size in sizes:
        if size in by_size or size in primary_sizes(sizes):
            yield _remains(by_size.get(size), size=size, primary=size in primary_sizes(sizes))
    pairs = [
        (cell, other) for cell in once for other in cells if other.arm == cell.arm._replace(after="novel")
    ]
    for cell, other in pairs:
        yield _novel(cell, other, primary=cell is pairs[-1][0])
    for cell in cells:
        single = next((one for one in once if one.arm == cell.arm._replace(times=1)), None)
        if cell.arm.times > 1 and single is not None and gaps(cell, single):
            yield _dose(cell, single)
    for cell in nats:
        if cell.arm.times == 1 and cell.arm.after == "same":
            yield _remains_in_nats(cell)
    if once:
        yield from _levels_off(once[-1], next((cell for cell in nats if cell.arm == once[-1].arm), None))
        yield from _form(once[-1])


def primary_sizes(sizes: Sequence[str], /) -> list[str]:
    """Which sizes have a primary claim of their own: all, or three of more."""
    return list(sizes) if len(sizes) <= MOST_SIZES else [sizes[0], sizes[len(sizes) // 2], sizes[-1]]


def warnings(cells: Sequence[Kept]) -> Iterator[str]:
    """Where the paper's baseline is no floor: the lowest M is the last one that was measured."""
    curves = [curve for cell in cells if cell.arm.after == "same" for curve in cell.special.values()]
    falling = sum(int(np.argmin(curve)) == len(curve) - 1 for curve in curves)
    if falling:
        yield (
            f"In {falling} of {len(curves)} runs that go on with the same data, M(f) on the special batches "
            "is lowest at the end of the horizon: it still falls there, and the paper's baseline with it."
        )


def detectable(planned: Sequence[Mapping[str, Any]]) -> Mapping[str, str]:
    """For each primary claim the smallest effect that its planned seeds can show, in words."""
    sizes = planned_sizes(planned)
    seeds = {
        (labels["size"], after): len({other["seed"] for other in planned if _alike(other, labels, after)})
        for labels in planned
        for after in ("same", "novel")
    }
    found: dict[str, int] = {}
    if len(sizes) > 1:
        fewest = min(seeds[size, "same"] for size in sizes)
        found |= {"baseline-rises": fewest, "kept-rises": fewest}
    if sizes:
        found["baseline-is-generalisation"] = seeds[sizes[-1], "same"]
    found |= {f"remains-{size}": seeds[size, "same"] for size in primary_sizes(sizes)}
    both = [size for size in sizes if seeds[size, "novel"]]
    if both:
        found[f"novel-{both[-1]}"] = min(seeds[both[-1], after] for after in ("same", "novel"))
    followed: dict[str, set[object]] = {}
    for labels in planned:
        if labels["arm"] == "plain":
            followed.setdefault(str(labels["size"]), set()).add(labels["seed"])
    if len(followed) > 1:
        found["loses-less"] = min(len(plain) for plain in followed.values())
    words = {}
    for name, n in found.items():
        kind = next(kind for kind in SEED_SD if name.startswith(kind))
        unit = UNITS.get(kind, "of M(f)")
        words[name] = smallest_effect(
            n=n, sd=SEED_SD[kind], unit=unit, predicted=PREDICTED[kind], primary=len(found)
        )
    return words


def planned_sizes(planned: Sequence[Mapping[str, Any]]) -> list[str]:
    """Sizes planned with one exposure and the same data afterwards, by parameters."""
    n_params = {
        str(labels["size"]): int(labels["non_embedding"])
        for labels in planned
        if labels["times"] == 1 and labels["after"] == "same"
    }
    return sorted(n_params, key=lambda size: n_params[size])


def _alike(one: Mapping[str, Any], other: Mapping[str, Any], after: str) -> bool:
    return (one["size"], one["times"], one["after"]) == (other["size"], 1, after)


def _remains(cell: Kept | None, *, size: str, primary: bool) -> Claim:
    name, source = f"remains-{size}", f"{PAPER}, Fig. 8 left, with the placebo fork that the paper lacks"
    if cell is None:
        return undecided(
            name=name, source=source, primary=primary, note=UNFINISHED,
            rule=f"above 0 {KEPT}, t test over seeds",
            statement=f"N = {size}: after one exposure the special batches are still known better than "
            "without it",
        )  # fmt: skip
    twins = t_interval(by_seed(cell.last("minus_twin"))).text()
    return directional(
        by_seed(cell.last("minus_placebo")),
        name=name,
        statement=f"N = {size}: {cell.x[-1] - 1:.0f} updates after one exposure the special batches "
        "are still known better than without it",
        source=source,
        unit=KEPT,
        note=f"against the never-seen twin (difference in differences): {twins}",
        primary=primary,
    )


def _remains_in_nats(cell: Kept) -> Claim:
    end = {seed: -value for seed, value in cell.last("minus_placebo").items()}
    twins = t_interval([-value for value in cell.last("minus_twin").values()]).text()
    return directional(
        by_seed(end),
        name=f"remains-nats-{cell.arm.size}",
        statement=f"N = {cell.arm.size}: {cell.x[-1] - 1:.0f} updates after one exposure the loss on the "
        "special batches is lower than without it",
        source=f"{PAPER}, Fig. 14 (perplexity and M side by side)",
        unit="nats a token, placebo minus special",
        note=f"against the never-seen twin (difference in differences): {twins}",
        primary=False,
    )


def _rises(planned: Sequence[Kept | None], *, how: str) -> Claim:
    """Slope against log10 N by seed: of the minimum (the paper's baseline), or of what is kept at the end.

    Over all planned sizes, None where one has no finished seed: a slope over others is another number.
    """
    cells = [cell for cell in planned if cell is not None]
    whole = len(cells) == len(planned)
    seeds = sorted(set.intersection(*(set(cell.special) for cell in cells)), key=str) if whole else []
    raw = how == "raw"
    name = "baseline-rises" if raw else "kept-rises"
    statement = (
        "the paper's forgetting baseline (lowest M after the exposure) rises with model size"
        if raw
        else "the memory kept at the end of the horizon (special minus placebo) rises with model size"
    )
    source = f"{PAPER}, Fig. 8 right: about +0.06 of M per decade of N"
    if not seeds:
        return undecided(
            name=name, statement=statement, source=source, primary=True,
            rule="slope above 0 (t test over seeds)", note="no seed has every size",
        )  # fmt: skip
    logs = np.log10([cell.n_params for cell in cells])

    def slope(ends: Sequence[float]) -> float:
        return float(np.polyfit(logs, ends, 1)[0])

    if not raw:
        slopes, note = [slope([cell.last(how)[seed] for cell in cells]) for seed in seeds], ""
    else:
        slopes = [slope([float(cell.special[seed].min()) for cell in cells]) for seed in seeds]
        unseen = [slope([float(cell.placebo[seed].min()) for cell in cells]) for seed in seeds]
        note = f"the same slope in the placebo runs, which never saw the text: {t_interval(unseen).text()}"
    return directional(
        slopes, name=name, statement=statement, source=source, unit="of M(f) per decade of N", note=note
    )


def _generalisation(cell: Kept | None, *, size: str) -> Claim:
    """Share of M at the end that the run without the exposure has as well."""
    ends = {seed: (cell.placebo[seed][-1], cell.special[seed][-1]) for seed in cell.special} if cell else {}
    shares = {seed: float(placebo / special) for seed, (placebo, special) in ends.items() if special > 0}
    name = "baseline-is-generalisation"
    statement = (
        f"N = {size}: more than half of M(f) on the special batches at the end of the horizon is "
        "what the model guesses without having seen them"
    )
    source = f"open in {PAPER}, which has no never-seen control"
    if cell is None or len(shares) < len(ends):
        return undecided(
            name=name, statement=statement, source=source, primary=True, rule="share above 0.5",
            note="a seed gets no token of the special batches right at the end" if cell else UNFINISHED,
        )  # fmt: skip
    return directional(
        by_seed(shares), name=name, statement=statement, source=source, threshold=0.5,
        unit="(M of the placebo run / M of the injected run, at the end)",
    )  # fmt: skip


def _novel(same: Kept, novel: Kept, *, primary: bool) -> Claim:
    name = f"novel-{same.arm.size}"
    statement = (
        f"N = {same.arm.size}: going on with the same data keeps more of the special batches than going on "
        "with novel data"
    )
    source = "Bordt et al. 2024: forgetting needs novel data"
    found = gaps(same, novel)
    if not found:
        return undecided(
            name=name, statement=statement, source=source, primary=primary,
            rule="difference above 0 (t test over seeds)", note="no seed has both",
        )  # fmt: skip
    kept = t_interval(by_seed(novel.last("minus_placebo"))).text()
    return directional(
        by_seed(found), name=name, statement=statement, source=source, primary=primary,
        unit="of M(f), each minus its placebo", note=f"kept at the end with novel data: {kept} of M(f)",
    )  # fmt: skip


def _dose(many: Kept, single: Kept) -> Claim:
    sequel = "the same" if many.arm.after == "same" else "novel"
    return directional(
        by_seed(gaps(many, single)),
        name=f"dose-{many.arm.size}-{many.arm.times}-{many.arm.after}",
        statement=f"N = {many.arm.size}: {many.arm.times} exposures in a row leave more behind than one, at "
        f"equal distance from the last ({sequel} data after them)",
        source=f"{PAPER}, Fig. 10 left: differences of order 0.01 of M",
        unit="of M(f), each minus its placebo",
        primary=False,
    )


def _levels_off(cell: Kept, nats: Kept | None) -> Iterator[Claim]:
    """Over the second half of the horizon: M(f) is flat, and perplexity goes on rising."""
    source = f"{PAPER}, Figs. 14 and 15: M(f) flattens while perplexity keeps rising; diff(T) goes to 0"
    if cell.pass_updates:
        passes = (cell.x[-1] - 1) / 2 / cell.pass_updates
        change = {seed: value / passes for seed, value in cell.in_second_half("raw").items()}
        control = [
            float(curve[-1] - np.interp(np.log((cell.x[-1] + 1) / 2), np.log(cell.x), curve)) / passes
            for curve in cell.placebo.values()
        ]
        yield equivalent(
            by_seed(change), name=f"memorized-flattens-{cell.arm.size}", source=source, margin=STEADY,
            statement=f"N = {cell.arm.size}: over the second half of the horizon M(f) on the special batches "
            "no longer changes",
            unit="of M(f) a pass", primary=False, note=f"placebo run: {t_interval(control).text()}",
        )  # fmt: skip
    if nats is not None:
        yield directional(
            by_seed(nats.in_second_half("raw")),
            name=f"perplexity-rises-{cell.arm.size}", source=source, primary=False,
            statement=f"N = {cell.arm.size}: over the second half of the horizon perplexity on the special "
            "batches still rises",
            unit="of ln perplexity (nats a token)",
        )  # fmt: skip


def _form(cell: Kept) -> Iterator[Claim]:
    """Whether the paper's exponential predicts a seed left out of the fit better than a power law does."""
    found = {decay.form: decay for decay in cell.decays("raw").decays}
    seeds = list(cell.special)
    errors = {form: dict(zip(seeds, found[form].errors, strict=False)) for form in FLOORED}
    power, exponential = errors["power"], errors["exponential"]
    if not power or min((*power.values(), *exponential.values())) <= 0:
        return
    best = min(found.values(), key=lambda decay: decay.left_out or 0.0)
    yield directional(
        by_seed({seed: power[seed] / exponential[seed] for seed in power}),
        name=f"decay-is-exponential-{cell.arm.size}", threshold=1.0, scale="log", primary=False,
        statement=f"N = {cell.arm.size}: the forgetting curve of a seed left out of the fit is predicted "
        "better by an exponential with a floor than by a power law with a floor",
        source=f"{PAPER}, section 5: exponential; a power law in Chang et al. 2024",
        unit="(error of the power law / error of the exponential)",
        note=f"the smallest error of the four forms is that of the form {best.form}; errors share data",
    )  # fmt: skip
