"""Claims on how fast a training set is memorized, and what they can detect: six primary ones."""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from repetita.fit.claim import Claim, by_seed, directional, undecided
from repetita.fit.estimate import t_interval
from repetita.fit.times_to_memorize import combined, time_to
from repetita.studies._power import smallest_effect
from repetita.studies._speed import (
    ALL_TARGETS,
    CAUSAL,
    MASKED,
    STANDARD,
    TAUS,
    Cells,
    Online,
    as_progress,
    common_seeds,
    line,
)
from repetita.studies._speed_ladder import Ladder, ladder, length_ratios, planned_sizes, trend_text
from repetita.studies._speed_verdicts import bounded, slope_claim

PAPER = "Tirumala et al. 2022"
HIGH = 0.9
LOW: Mapping[str, float] = {objective: min(taus) for objective, taus in TAUS.items()}
FIRST = 0.1
"""What counts as the initial stage, in which the paper's smaller models are ahead: up to this M(f)."""
EARLY = (1.0, 2.0, 4.0)
"""Passes after which the paper's initial stage is looked at directly: its warm-up is 3.6 passes long."""
EXCESS = 0.5
"""M(f) above the test set's, a level that nothing but memory reaches here."""

SEED_SD = {
    "causal-faster": 0.05,
    "causal-steeper": 0.05,
    "causal-first": 0.05,
    "causal-unit-length": 0.03,
    "masked-faster": 0.1,
    "masked-exception": 0.05,
}
"""Assumed standard deviations over seeds of the effects that the claims test (slopes; ln of a ratio), for
planning only: a guess, not fitted to runs. No verdict uses them."""
PREDICTED = {
    "causal-faster": 0.68,
    "causal-steeper": 0.5,
    "causal-first": 0.05,
    "causal-unit-length": 0.1,
    "masked-faster": 0.3,
    "masked-exception": 0.05,
}
"""What the paper leads one to expect: T(N, 0.9) falls from 165 passes to 5 between 125M and 13B (slope -0.68
by least squares through its six bars) and is nearly constant at tau = 0.4; masked it falls from 250 to 70 at
0.9 and rises from 3 to 4 at 0.2. The excess of unit length over shuffled hits is ours."""


def claims(
    found: Cells,
    *,
    planned: Sequence[Mapping[str, Any]],
    n_sequences: int,
    window: int,
    online: Sequence[Online],
) -> Iterator[Claim]:
    """Primary claims on the main training set and the standard arm; what else was planned is descriptive."""
    for objective in (CAUSAL, MASKED):
        sizes = planned_sizes(planned, objective=objective, n_sequences=n_sequences)
        if len(sizes) < 2:
            continue
        there = ladder(found, objective=objective, n_sequences=n_sequences, window=window, sizes=sizes)
        yield _faster(there, objective)
        if objective == MASKED:
            yield _exception(there)
            continue
        yield _steeper(there)
        yield _first(there)
        yield _unit_length(there)
    for objective in (CAUSAL, MASKED):
        sizes = planned_sizes(planned, objective=objective, n_sequences=n_sequences)
        there = ladder(found, objective=objective, n_sequences=n_sequences, window=window, sizes=sizes)
        if there is not None:
            yield _excess(there, objective)
            yield _early(there, objective)
        yield from _lag(found, online, objective=objective, n_sequences=n_sequences, window=window)
    yield from _others(found, planned=planned, n_sequences=n_sequences, window=window)


def detectable(planned: Sequence[Mapping[str, Any]], *, n_sequences: int) -> Mapping[str, str]:
    """For each primary claim the smallest effect that its planned seeds can show, in words."""
    names: dict[str, int] = {}
    for objective in (CAUSAL, MASKED):
        sizes = planned_sizes(planned, objective=objective, n_sequences=n_sequences)
        if len(sizes) < 2:
            continue
        seeds = [
            {
                labels["seed"]
                for labels in planned
                if _is(labels, objective, n_sequences) and labels["size"] == size
            }
            for size in sizes
        ]
        n = len(set.intersection(*seeds))
        names |= {name: n for name in SEED_SD if name.startswith(objective)}
    unit = {"causal-unit-length": "of the ln of the ratio"}
    return {
        name: smallest_effect(
            n=n,
            sd=SEED_SD[name],
            unit=unit.get(name, "of slope"),
            predicted=PREDICTED[name],
            primary=len(names),
        )
        for name, n in names.items()
    }


def _is(labels: Mapping[str, Any], objective: str, n_sequences: int) -> bool:
    return (labels["objective"], labels["n_sequences"], labels["arm"]) == (objective, n_sequences, STANDARD)


def _faster(there: Ladder | None, objective: str) -> Claim:
    note = "" if there is None else trend_text(there, tau=HIGH)
    return slope_claim(
        None if there is None else there.slopes(HIGH),
        name=f"{objective}-faster",
        statement=f"{objective} models: the larger the model, the fewer passes to M(f) = {HIGH:g}",
        source=f"{PAPER}, Fig. {'1: 165 passes at 125M, 5 at 13B' if objective == CAUSAL else '2'}",
        note=note,
    )


def _steeper(there: Ladder | None) -> Claim:
    slopes = None
    if there is not None:
        high, low = there.slopes(HIGH), there.slopes(LOW[CAUSAL])
        slopes = {seed: combined([1, -1], slopes=[high[seed], low[seed]]) for seed in high}
    return slope_claim(
        slopes,
        name="causal-steeper",
        statement=f"causal models: size matters more for M(f) = {HIGH:g} than for {LOW[CAUSAL]:g}",
        source=f"{PAPER}, Fig. 1 right: from about constant in N to steeply falling as tau grows",
    )


def _first(there: Ladder | None) -> Claim:
    return slope_claim(
        None if there is None else there.slopes(FIRST),
        name="causal-first",
        statement=f"causal models: in the initial stage smaller ones are ahead (first at M(f) = {FIRST:g})",
        source=f"{PAPER}, Fig. 11: smaller models are faster at first, then overtaken",
        direction="above",
    )


def _exception(there: Ladder | None) -> Claim:
    note = ""
    if there is not None:
        high, low = there.slopes(HIGH), there.slopes(LOW[MASKED])
        falls = [high[seed].value - low[seed].value for seed in high]
        if {slope.bound for slope in (*high.values(), *low.values())} == {"exact"}:
            note = f"slope at {HIGH:g} minus slope at {LOW[MASKED]:g}: {t_interval(falls).text()}"
    return slope_claim(
        None if there is None else there.slopes(LOW[MASKED]),
        name="masked-exception",
        statement=f"masked models: at M(f) = {LOW[MASKED]:g} the order is turned round, smaller ones need "
        "fewer passes",
        source=f"{PAPER}, Fig. 2: not monotone in N for low tau; about 3 passes small, 4 large at tau = 0.2",
        direction="above",
        note=note,
    )


def _unit_length(there: Ladder | None) -> Claim:
    name = "causal-unit-length"
    statement = (
        f"causal models: at M(f) = {HIGH:g} runs of memorized tokens are longer than if the same hits fell "
        "anywhere in their sequences"
    )
    source = f"open in {PAPER}, Fig. 16, which gives lengths without a null model"
    ratios, sizes = ({}, []) if there is None else length_ratios(there, tau=HIGH)
    if not ratios:
        return undecided(
            name=name, statement=statement, source=source, primary=True, rule="ratio above 1 (log scale)",
            note=f"no size reaches {HIGH:g} in every seed" if there else "no seed has every planned size",
        )  # fmt: skip
    return directional(
        by_seed(ratios), name=name, statement=statement, source=source, threshold=1.0, scale="log",
        unit="(mean run length / shuffled, geometric mean over sizes)", note=_sizes_text(sizes),
    )  # fmt: skip


def _sizes_text(sizes: Sequence[str]) -> str:
    """Which sizes an effect is a mean of."""
    return f"over N = {', '.join(sizes)}, where every seed reaches M(f) = {HIGH:g}"


def _excess(there: Ladder, objective: str) -> Claim:
    return slope_claim(
        there.slopes(EXCESS, excess=True),
        name=f"{objective}-excess-faster",
        statement=f"{objective} models: the larger the model, the fewer passes until M(f) is {EXCESS:g} "
        "above the test set's",
        source=f"{PAPER}, Fig. {'1' if objective == CAUSAL else '2'}, less what is predictable unseen",
        primary=False,
    )


def _early(there: Ladder, objective: str) -> Claim:
    """Slope of M(f) itself against ln N, the mean over early passes: no run is too short for it."""
    u = np.log(there.n_params)
    weight = (u - u.mean()) / float(((u - u.mean()) ** 2).sum())
    slopes: dict[Hashable, float] = {}
    for seed in there.seeds:
        states = [runs[seed].progress for runs in there.runs]
        early = [np.mean([one.at(n, unit="passes").memorized for n in EARLY]) for one in states]
        slopes[seed] = float(weight @ np.array(early))
    passes = ", ".join(f"{n:g}" for n in EARLY)
    return directional(
        by_seed(slopes), name=f"{objective}-early", direction="below", primary=False,
        statement=f"{objective} models: after the first few passes smaller ones have memorized more",
        source=f"{PAPER}, Fig. 11: in the initial stage smaller models are faster, then overtaken",
        unit=f"(slope of M(f) on ln N, mean over the states after {passes} passes)",
    )  # fmt: skip


def _lag(
    found: Cells, online: Sequence[Online], *, objective: str, n_sequences: int, window: int
) -> Iterator[Claim]:
    """T_update / T at tau = 0.9: geometric mean by seed over the sizes that all seeds reach by M(f).

    In masked models of the targets shown as the mask, as those of M(f) are (rule 15). A run whose M_update
    ends below tau counts with its last update, which T_update lies above (rule 14).
    """
    kind, shown = ("mask", " shown as the mask") if objective == MASKED else (ALL_TARGETS, "")
    keys = line(found, objective=objective, n_sequences=n_sequences)
    updates = {(one.key, one.seed): one for one in online if one.kind == kind}
    seeds = [seed for seed in common_seeds(found, keys) if all((key, seed) in updates for key in keys)]
    logs: list[list[float]] = []
    sizes: list[str] = []
    missed = 0
    for key in keys:
        full = [found[key][seed].times(HIGH, window=window)["updates"].x for seed in seeds]
        known = [at for at in full if at is not None]
        if not seeds or len(known) < len(seeds):
            continue
        late = [
            time_to(as_progress(updates[key, seed], run=found[key][seed]), tau=HIGH, window=window)["updates"]
            for seed in seeds
        ]
        missed += sum(not one.reached for one in late)
        at = [one.last if one.x is None else one.x for one in late]
        logs.append(list(np.log(at) - np.log(known)))
        sizes.append(key.size)
    if not logs:
        return
    values = by_seed(dict(zip(seeds, np.exp(np.mean(logs, axis=0)).tolist(), strict=True)))
    claim = directional(
        values, name=f"{objective}-update-later", threshold=1.0, scale="log", primary=False,
        statement=f"{objective} models: hits in training batches{shown}, before their updates, reach "
        f"{HIGH:g} later than M(f) does",
        source=f"{PAPER}, Fig. 13: M_update stays close to M(f)",
        unit="(T_update / T in updates, geometric mean over sizes)", note=_sizes_text(sizes),
    )  # fmt: skip
    yield bounded(claim, "at_least", values) if missed else claim


def _others(
    found: Cells, *, planned: Sequence[Mapping[str, Any]], n_sequences: int, window: int
) -> Iterator[Claim]:
    """The first primary claim again for the other arms and training sets."""
    main = (CAUSAL, n_sequences, STANDARD), (MASKED, n_sequences, STANDARD)
    lines = {(key.objective, key.n_sequences, key.arm): key for key in found}
    for (objective, n, arm), _ in lines.items():
        if (objective, n, arm) in main:
            continue
        sizes = planned_sizes(planned, objective=objective, n_sequences=n, arm=arm)
        there = ladder(found, objective=objective, n_sequences=n, window=window, sizes=sizes, arm=arm)
        if there is not None:
            yield slope_claim(
                there.slopes(HIGH),
                name=f"{objective}-faster-{n}-{arm.replace(' ', '-')}",
                statement=f"{objective} models, {n} sequences, {arm}: the larger the model, the fewer passes "
                f"to M(f) = {HIGH:g}",
                source=f"{PAPER}, Figs. 1, 2 and 5",
                primary=False,
            )


def warnings(found: Cells, *, window: int) -> Iterator[str]:
    """Cells whose runs ended before M(f) was 0.9."""
    short = [
        f"{key.objective} N = {key.size}"
        for key, runs in found.items()
        if not all(run.times(HIGH, window=window)["passes"].reached for run in runs.values())
    ]
    if short:
        yield (
            f"M(f) = {HIGH:g} was not reached, and held, by the end of some or all runs of "
            f"{', '.join(short)}: their T is a lower bound everywhere."
        )
