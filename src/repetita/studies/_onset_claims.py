"""Claims on what is memorized before a model overfits, and what they can detect: six primary ones."""

import math
from collections.abc import Hashable, Iterator, Mapping, Sequence

import numpy as np

from repetita.fit.claim import Claim, by_seed, directional, undecided
from repetita.fit.estimate import Crossing
from repetita.fit.times_to_memorize import Slope, log_slope
from repetita.studies._onset import (
    BEFORE,
    HOWS,
    SUSTAINED,
    SUSTAINED_PASSES,
    THAT,
    How,
    Run,
    Runs,
    by_size,
)
from repetita.studies._power import smallest_effect
from repetita.studies._speed import CAUSAL, MASKED
from repetita.studies._speed_verdicts import slope_claim
from repetita.studies._stream import common_seeds, planned_sizes
from repetita.studies._stream_claims import ROUNDING
from repetita.study.plan import Label

PAPER = "Tirumala et al. 2022"
SOURCES: Mapping[str, str] = {
    CAUSAL: f"{PAPER}, Fig. 4 left: 0.43 at 10^8 parameters, 0.57 at 10^10",
    MASKED: f"{PAPER}, Fig. 4 right: 0.65 at 10^8 parameters, 0.80 at 10^10",
}
M_UNIT, T_UNIT = "(slope of ln M(f) on ln N)", "(slope of ln passes on ln N)"
WORDS: Mapping[How, str] = {
    SUSTAINED: f"just before validation perplexity first stays higher for {SUSTAINED_PASSES:g} passes",
    BEFORE: "in the pass before validation perplexity first rises",
    THAT: "in the pass in which validation perplexity first rises",
}

SEED_SD = {
    "onset-causal-rises": 0.15,
    "onset-causal-rises-literal": 0.3,
    "onset-causal-earlier": 0.1,
    "onset-causal-memory": 0.04,
    "onset-masked-rises": 0.15,
    "onset-masked-memory": 0.04,
}
"""Assumed standard deviations over seeds of the effects that the claims test (slopes; M), for planning only:
a guess, not fitted to runs. No verdict uses them."""
PREDICTED = {
    "onset-causal-rises": 0.06,
    "onset-causal-rises-literal": 0.06,
    "onset-causal-earlier": 0.3,
    "onset-causal-memory": 0.1,
    "onset-masked-rises": 0.05,
    "onset-masked-memory": 0.1,
}
"""What the paper leads one to expect: ln(0.57 / 0.43) and ln(0.80 / 0.65) over two decades of size. The onset
itself and what is known beyond the validation text are ours."""


def primary(planned: Sequence[Mapping[str, Label]], /) -> dict[str, int]:
    """The primary claims that a plan allows, in their order, with the seeds that each rests on."""
    found: dict[str, int] = {}
    for objective in (CAUSAL, MASKED):
        sizes = planned_sizes(planned, objective=objective)
        n = len(set.intersection(*sizes.values())) if sizes else 0
        slopes = ("rises", "rises-literal", "earlier") if objective == CAUSAL else ("rises",)
        if len(sizes) > 1:
            found |= {f"onset-{objective}-{name}": n for name in slopes}
        if sizes:
            found[f"onset-{objective}-memory"] = n
    return found


def claims(found: Runs, *, planned: Sequence[Mapping[str, Label]]) -> Iterator[Claim]:
    """The primary claims that were planned, whatever is finished, then descriptive ones."""
    asked = primary(planned)
    for name in asked:
        objective = MASKED if "masked" in name else CAUSAL
        runs = _planned(found, planned, objective)
        if name.endswith("earlier"):
            yield _earlier(runs, name)
        elif name.endswith("memory"):
            yield _memory(runs, name, objective)
        else:
            yield _rises(runs, name, objective, how=BEFORE if name.endswith("literal") else SUSTAINED)
    for objective in (CAUSAL, MASKED):
        runs = _planned(found, planned, objective)
        for how in HOWS if len(runs) > 1 else ():
            name = f"onset-{objective}-rises-{how.replace(' ', '-')}"
            if how == SUSTAINED or (objective, how) == (CAUSAL, BEFORE):
                continue  # Among the primary ones.
            yield _rises(runs, name, objective, how=how)._replace(primary=False)
        yield from _literal_is_early(runs, objective)


def _planned(
    found: Runs, planned: Sequence[Mapping[str, Label]], objective: str
) -> dict[str, dict[Hashable, Run]]:
    there = by_size(found, objective=objective)
    return {size: there.get(size, {}) for size in planned_sizes(planned, objective=objective)}


def _slopes(
    runs: Mapping[str, Mapping[Hashable, Run]], what: "Mapping[Hashable, list[Crossing]]"
) -> dict[Hashable, Slope] | None:
    n_params = {seed: [of[seed].n_params for of in runs.values()] for seed in what}
    slopes = {seed: log_slope(n_params[seed], crossings=found) for seed, found in what.items()}
    # Where all sizes have the same value, rounding would be all that the slope shows, alike in every seed.
    exact = {
        seed: one._replace(value=0.0) if abs(one.value) < ROUNDING else one for seed, one in slopes.items()
    }
    return exact or None


def _rises(runs: Mapping[str, Mapping[Hashable, Run]], name: str, objective: str, *, how: How) -> Claim:
    """Slope of ln M(f) at the onset; a run that ended before it has at least its last M(f)."""
    seeds = common_seeds(runs.values())
    found = {seed: [of[seed].before(how) for of in runs.values()] for seed in seeds}
    return slope_claim(
        _slopes(runs, found),
        name=name,
        statement=f"{objective} models: M(f) {WORDS[how]} rises with size",
        source=SOURCES[objective],
        direction="above",
        unit=M_UNIT,
    )


def _earlier(runs: Mapping[str, Mapping[Hashable, Run]], name: str) -> Claim:
    seeds = common_seeds(runs.values())
    found = {seed: [of[seed].onset(SUSTAINED) for of in runs.values()] for seed in seeds}
    return slope_claim(
        _slopes(runs, found),
        name=name,
        statement="causal models: the larger the model, the fewer passes until validation perplexity first "
        f"stays higher for {SUSTAINED_PASSES:g} passes",
        source=f"not in {PAPER}, whose Fig. 4 gives M(f) alone",
        unit=T_UNIT,
    )


def _memory(runs: Mapping[str, Mapping[Hashable, Run]], name: str, objective: str) -> Claim:
    """M(f) minus accuracy on validation text at the lasting onset: the mean over sizes that all have one."""
    unit = "(M(f) minus accuracy on validation text)"
    statement = (
        f"{objective} models: {WORDS[SUSTAINED]}, more of the training set is predicted than of validation "
        "text: something is memorized before a model overfits"
    )
    source = f"{PAPER}, section 4 and title, less what is predictable unseen"
    seeds = common_seeds(runs.values())
    excess = {size: [of[seed].excess(SUSTAINED) for seed in seeds] for size, of in runs.items()}
    sizes = [size for size, values in excess.items() if values and all(one is not None for one in values)]
    if not sizes:
        return undecided(
            name=name, statement=statement, source=source, rule=f"above 0 {unit}, t test over seeds",
            note="no seed has every planned size" if not seeds else "no size overfits in every seed",
            primary=True,
        )  # fmt: skip
    left_out = [size for size in runs if size not in sizes]
    means = np.mean([[one for one in excess[size] if one is not None] for size in sizes], axis=0)
    return directional(
        by_seed(dict(zip(seeds, means.tolist(), strict=True))), name=name, statement=statement,
        source=source, unit=unit, note=_averaged(sizes, left_out=left_out),
    )  # fmt: skip


def _averaged(sizes: Sequence[str], *, left_out: Sequence[str]) -> str:
    """Which sizes a mean is over; a run that ended before it overfits has no value to average."""
    said = f"mean over N = {', '.join(sizes)}; the validation text is the same in every run"
    return said + (f"; left out, since some seed ended before: {', '.join(left_out)}" if left_out else "")


def _literal_is_early(runs: Mapping[str, Mapping[Hashable, Run]], objective: str) -> Iterator[Claim]:
    """The pass before the paper's first rise over the lasting onset, where a size has both in all seeds."""
    logs: list[list[float]] = []
    sizes: list[str] = []
    seeds = common_seeds(runs.values())
    for size, of in runs.items():
        pairs = [(of[seed].onset(BEFORE).x, of[seed].onset(SUSTAINED).x) for seed in seeds]
        known = [math.log(literal / lasting) for literal, lasting in pairs if literal and lasting]
        if seeds and len(known) == len(seeds):
            logs.append(known)
            sizes.append(size)
    if logs:
        yield directional(
            by_seed(dict(zip(seeds, np.exp(np.mean(logs, axis=0)).tolist(), strict=True))),
            name=f"onset-{objective}-literal-early", threshold=1.0, scale="log", direction="below",
            statement=f"{objective} models: the first pass in which validation perplexity rises comes before "
            "the rise that lasts",
            source=f"{PAPER}, definition of overfitting", primary=False,
            unit="(passes before the first rise / before the lasting one, geometric mean over sizes)",
            note=f"over N = {', '.join(sizes)}",
        )  # fmt: skip


def detectable(planned: Sequence[Mapping[str, Label]], /) -> Mapping[str, str]:
    """For each primary claim the smallest effect that its planned seeds can show, in words."""
    there = primary(planned)
    return {
        name: smallest_effect(
            n=n,
            sd=SEED_SD[name],
            unit="of M" if name.endswith("memory") else "of slope",
            predicted=PREDICTED[name],
            primary=len(there),
        )
        for name, n in there.items()
    }


def warnings(found: Runs, /) -> Iterator[str]:
    """Where runs ended before they overfitted for good."""
    short = [
        f"{objective} N = {size}"
        for (objective, size), of in found.items()
        if not all(run.onset(SUSTAINED).reached for run in of.values())
    ]
    if short:
        yield (
            f"Validation perplexity did not rise lastingly within some or all runs of {', '.join(short)}: "
            "what is memorized before they overfit is more than shown."
        )
