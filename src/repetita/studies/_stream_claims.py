"""Claims on a stream read once, and what they can detect: seven primary ones."""

import math
from collections.abc import Hashable, Iterator, Mapping, Sequence

import numpy as np

from repetita.fit.claim import Claim, by_seed, detectable_margin, directional, equivalent, undecided
from repetita.fit.estimate import t_interval
from repetita.fit.times_to_memorize import Slope, log_slope
from repetita.studies._power import smallest_effect
from repetita.studies._speed import CAUSAL, MASKED
from repetita.studies._speed_verdicts import slope_claim
from repetita.studies._stream import (
    STREAM,
    TAUS,
    Found,
    Streamed,
    common_seeds,
    planned_sizes,
    proxy_gap,
)
from repetita.study.plan import Label

PAPER = "Tirumala et al. 2022"
HEADLINE: Mapping[str, Mapping[str, float]] = {
    CAUSAL: {"tiny": 0.1, "laptop": 0.1, "overnight": 0.2, "gpu": 0.1, "paper": 0.35},
    MASKED: {"tiny": 0.1, "laptop": 0.1, "overnight": 0.1, "gpu": 0.1, "paper": 0.5},
}
"""The one tau of the headline by scale: a level that the smallest model is expected to reach."""
LOW: Mapping[str, float] = {"paper": 0.1}
"""The lowest masked tau, at which the order was turned round on WikiText-103; elsewhere `LOW_ELSE`."""
LOW_ELSE = 0.05
MARGIN = 0.01
"""M_update on a stream and accuracy on fresh text are the same to within this."""
ROUNDING = 1e-9
PROXY_MARGIN = 0.05
"""How close M_update stays to M(f) where text is read again and again, for `close` in the paper's words."""

SEED_SD = {
    "stream-faster": 0.05,
    "stream-exposure": 0.002,
    "stream-exposure-nats": 0.005,
    "stream-exposure-rises": 0.003,
    "stream-fresh": 0.003,
    "stream-masked-faster": 0.1,
    "stream-masked-order": 0.1,
}
"""Assumed standard deviations over seeds of the effects that the claims test (slopes; M), for planning only:
a guess, not fitted to runs. No verdict uses them."""
PREDICTED = {
    "stream-faster": 0.5,
    "stream-exposure": 0.005,
    "stream-exposure-nats": 0.02,
    "stream-exposure-rises": 0.005,
    "stream-masked-faster": 0.3,
    "stream-masked-order": 0.1,
}
"""What the paper leads one to expect of slopes: for tau = 0.42 from about 10^4 updates to 10^2 or 10^3 over
two decades of size. Memory from one exposure is not in it: a guess."""
UNITS = {
    "stream-exposure": "of M",
    "stream-exposure-nats": "nats a token",
    "stream-exposure-rises": "of M per decade of N",
}


def headline(objective: str, *, scale: str) -> float:
    """The tau of the claims on speed at a scale."""
    return HEADLINE[objective].get(scale, TAUS[objective][0])


def primary(planned: Sequence[Mapping[str, Label]], /) -> dict[str, int]:
    """The primary claims that a plan allows, in their order, with the seeds that each rests on."""
    causal, masked = (planned_sizes(planned, objective=objective) for objective in (CAUSAL, MASKED))
    every = {objective: _shared(sizes) for objective, sizes in ((CAUSAL, causal), (MASKED, masked))}
    found: dict[str, int] = {}
    if len(causal) > 1:
        found["stream-faster"] = every[CAUSAL]
    if causal:
        found |= dict.fromkeys(("stream-exposure", "stream-exposure-nats"), every[CAUSAL])
    if len(causal) > 1:
        found["stream-exposure-rises"] = every[CAUSAL]
    if causal:
        found["stream-fresh"] = max(len(seeds) for seeds in causal.values())
    if len(masked) > 1:
        found |= dict.fromkeys(("stream-masked-faster", "stream-masked-order"), every[MASKED])
    return found


def _shared(sizes: Mapping[str, set[Label]]) -> int:
    return len(set.intersection(*sizes.values())) if sizes else 0


def claims(found: Found, *, planned: Sequence[Mapping[str, Label]]) -> Iterator[Claim]:
    """The primary claims that were planned, whatever is finished, then descriptive ones."""
    for name in primary(planned):
        if name == "stream-fresh":
            yield _fresh(found, planned)
        elif name.startswith("stream-exposure"):
            yield _exposure(found, planned, name)
        else:
            yield _speed(found, planned, name)
    for objective in (CAUSAL, MASKED):
        sizes = list(planned_sizes(planned, objective=objective))
        said = {headline(objective, scale=found.scale)}
        said |= {LOW.get(found.scale, LOW_ELSE)} if objective == MASKED else set()
        for tau in TAUS[objective] if len(sizes) > 1 else ():
            if tau in said:
                continue
            slopes = slopes_of(found, objective=objective, sizes=sizes, tau=tau)
            if slopes is not None and any(slope.bound != "unknown" for slope in slopes.values()):
                yield slope_claim(
                    slopes,
                    name=f"stream-{objective}-faster-{tau:g}",
                    statement=f"{objective} models: the larger, the fewer updates to M_update = {tau:g}",
                    source=f"{PAPER}, Fig. 3",
                    primary=False,
                )
        for size, runs in found.of(objective).items():
            yield from _of_size(objective, size, runs)
    yield from _proxies(found)


def slopes_of(
    found: Found, *, objective: str, sizes: Sequence[str], tau: float
) -> dict[Hashable, Slope] | None:
    """Slope of ln T_update on ln N by seed over the planned sizes; None where no seed has them all."""
    runs = [found.of(objective).get(size, {}) for size in sizes]
    seeds = common_seeds(runs)
    if not seeds or len(sizes) < 2:
        return None
    slopes: dict[Hashable, Slope] = {}
    for seed in seeds:
        slope = log_slope(
            [of[seed].n_params for of in runs],
            crossings=[of[seed].time(tau, hold=found.hold) for of in runs],
        )
        # Where every size is there from the first window on, rounding would be all that the slope shows.
        slopes[seed] = slope._replace(value=0.0) if abs(slope.value) < ROUNDING else slope
    return slopes


def _speed(found: Found, planned: Sequence[Mapping[str, Label]], name: str) -> Claim:
    objective = MASKED if "masked" in name else CAUSAL
    tau = headline(objective, scale=found.scale)
    what = "the larger the model, the fewer updates to"
    source = f"{PAPER}, Fig. 3 {'left' if objective == CAUSAL else 'right'}"
    if name.endswith("order"):
        tau = LOW.get(found.scale, LOW_ELSE)
        what = "at low tau, too, larger ones are not behind: the larger, the fewer updates to"
        source += ": monotone at every tau, no transition as on WikiText-103"
    sizes = list(planned_sizes(planned, objective=objective))
    shown = "" if objective == CAUSAL else ", of targets shown as the mask,"
    return slope_claim(
        slopes_of(found, objective=objective, sizes=sizes, tau=tau),
        name=name,
        statement=f"{objective} models on text read once: {what} M_update{shown} = {tau:g}",
        source=source,
    )


EXPOSURES = {
    "stream-exposure": (
        "one update on a batch raises the share of it that is predicted by more than that of fresh text",
        "(M of a batch, after minus before its update, minus the same of fresh text)",
    ),
    "stream-exposure-nats": (
        "one update on a batch lowers the loss on it by more than on fresh text",
        "(nats a token of a batch, before minus after its update, minus the same of fresh text)",
    ),
    "stream-exposure-rises": (
        "memory of a batch from its one update rises with size, at equal numbers of updates",
        "(M per decade of N: of a batch, after minus before its update, minus the same of fresh text)",
    ),
}
"""Statement and unit of the claims on memory from one exposure."""


def _exposure(found: Found, planned: Sequence[Mapping[str, Label]], name: str) -> Claim:
    """Memory from one exposure, the mean over looks; over sizes its mean, or its slope on log10 N."""
    sizes = list(planned_sizes(planned, objective=CAUSAL))
    runs = [found.of(CAUSAL).get(size, {}) for size in sizes]
    seeds = [seed for seed in common_seeds(runs) if all(of[seed].exposures and of[seed].nats for of in runs)]
    says, unit = EXPOSURES[name]
    statement = f"causal models on text read once: {says}"
    source = f"missing in {PAPER}, Fig. 12, whose M_update may be before or after the update"
    if not seeds:
        return undecided(
            name=name, statement=statement, source=source, rule=f"above 0 {unit}, t test over seeds",
            note="no seed has every planned size", primary=True,
        )  # fmt: skip
    values: dict[Hashable, float] = {}
    for seed in seeds:
        gains = [of[seed].mean_nats if name.endswith("nats") else of[seed].mean_gain for of in runs]
        x = [math.log10(of[seed].n_params) for of in runs]
        rises = name.endswith("rises")
        values[seed] = float(np.polyfit(x, gains, 1)[0]) if rises else float(np.mean(gains))
    looked = sorted({one.update for of in runs for seed in seeds for one in of[seed].exposures})
    note = f"mean over {len(looked)} updates from {looked[0]} to {looked[-1]}, N = {', '.join(sizes)}"
    note += f"; {_rates(planned)}the fresh text is the same in every run"
    if name.endswith("nats"):
        note += "; added after a pilot in which single updates hardly moved M"
    return directional(by_seed(values), name=name, statement=statement, source=source, unit=unit, note=note)


def _rates(planned: Sequence[Mapping[str, Label]]) -> str:
    """Peak learning rates, where they differ between sizes: what an update does is larger at a larger one."""
    streams = [labels for labels in planned if labels.get("regime") == STREAM]
    rates = {
        str(labels["size"]): float(labels["rate"] or 0) for labels in streams if labels["objective"] == CAUSAL
    }
    if len(set(rates.values())) < 2:
        return ""
    shown = (f"{rates[size]:g} at {size}" for size in planned_sizes(streams, objective=CAUSAL))
    return f"learning rates differ between sizes ({', '.join(shown)}), and what an update does with them; "


def _fresh(found: Found, planned: Sequence[Mapping[str, Label]]) -> Claim:
    name = "stream-fresh"
    statement = (
        "causal models: M_update on a stream is accuracy on text never read, to within "
        f"{MARGIN:g}, late in the run"
    )
    source = f"not in {PAPER}, which calls M_update memorization (Figs. 3, 12)"
    by_size = planned_sizes(planned, objective=CAUSAL)
    most = max(len(seeds) for seeds in by_size.values())
    sizes = [size for size, seeds in by_size.items() if len(seeds) == most]
    runs = [found.of(CAUSAL).get(size, {}) for size in sizes]
    seeds = [seed for seed in common_seeds(runs) if all(len(of[seed].gaps.value) for of in runs)]
    if not seeds:
        return undecided(
            name=name, statement=statement, source=source, rule=f"within +-{MARGIN:g} by two one-sided tests",
            note="no seed has every size that this is about", primary=True,
        )  # fmt: skip
    values = {seed: float(np.mean([of[seed].gaps.value.mean() for of in runs])) for seed in seeds}
    note = (
        f"N = {', '.join(sizes)}; the interval holds seeds, not the choice of the test text, which is "
        "the same in every run; other parts of a batch's documents may have been read before it, of test "
        "text's never"
    )
    return equivalent(
        by_seed(values), name=name, statement=statement, source=source, margin=MARGIN, note=note,
        unit="(M_update minus accuracy on fresh text)",
    )  # fmt: skip


def _of_size(objective: str, size: str, runs: Mapping[Hashable, Streamed]) -> Iterator[Claim]:
    """Memory from one exposure size by size, right after it and at the end of the run; the same in nats."""
    looked = {seed: run for seed, run in runs.items() if run.exposures and run.nats}
    if not looked:
        return
    nats = t_interval([run.mean_nats for run in looked.values()])
    source = f"missing in {PAPER}, Fig. 12"
    yield directional(
        by_seed({seed: run.mean_gain for seed, run in looked.items()}),
        name=f"stream-exposure-{objective}-{size}", source=source, primary=False,
        statement=f"{objective} N = {size}: one update on a batch raises M on it by more than on fresh text",
        unit="of M, minus the change of fresh text", note=f"in nats a token: {nats.text()} lower",
    )  # fmt: skip
    left = {seed: run.mean_left for seed, run in looked.items() if run.mean_left is not None}
    if not left:
        return
    yield directional(
        by_seed(left),
        note="the batches' documents are read elsewhere in the stream as well, those of fresh text are not",
        name=f"stream-left-{objective}-{size}", source=source, primary=False,
        statement=f"{objective} N = {size}: at the end of the stream batches are still ahead of fresh text "
        "by more than before their update",
        unit="of M, minus the change of fresh text",
    )  # fmt: skip


def _proxies(found: Found) -> Iterator[Claim]:
    """How close M_update is to M(f) where a fixed set is read again and again (Fig. 13)."""
    by_size: dict[str, dict[Hashable, float]] = {}
    for run, online in sorted(found.proxies, key=lambda one: one[0].n_params):
        gap = proxy_gap(run, online)
        if len(gap.value):
            by_size.setdefault(run.key.size, {})[run.seed] = float(np.mean(gap.value))
    for size, values in by_size.items():
        yield equivalent(
            by_seed(values), name=f"stream-proxy-{size}", source=f"{PAPER}, Fig. 13", primary=False,
            margin=PROXY_MARGIN,
            statement=f"causal N = {size}, a fixed set read again and again: M_update is within "
            f"{PROXY_MARGIN:g} of M(f) on average over the measured passes (log-spaced)",
            unit="(M_update minus M(f))",
        )  # fmt: skip


def detectable(planned: Sequence[Mapping[str, Label]], /) -> Mapping[str, str]:
    """For each primary claim the smallest effect that its planned seeds can show, in words."""
    there = primary(planned)
    words: dict[str, str] = {}
    for name, n in there.items():
        sd = SEED_SD[name]
        if name == "stream-fresh":
            shown = (
                f"equality within {detectable_margin(sd=sd, n=n):.2g} of M with {n} seeds"
                if n > 1
                else "nothing: one seed illustrates only"
            )
            words[name] = f"{shown}; {MARGIN:g} is asked (assumed sd over seeds {sd:g})"
            continue
        words[name] = smallest_effect(
            n=n, sd=sd, unit=UNITS.get(name, "of slope"), predicted=PREDICTED[name], primary=len(there)
        )
    return words


def warnings(found: Found, /) -> Iterator[str]:
    """Where the level of the headline was not reached, and what M_update of a stream is."""
    short = [
        f"{objective} N = {size}"
        for (objective, size), runs in found.streams.items()
        if not all(
            run.time(headline(objective, scale=found.scale), hold=found.hold).reached for run in runs.values()
        )
    ]
    if short:
        yield (
            f"The headline's tau ({headline(CAUSAL, scale=found.scale):g}, masked "
            f"{headline(MASKED, scale=found.scale):g}) was not reached, and held, in some or all runs of "
            f"{', '.join(short)}: their T_update is a lower bound everywhere."
        )
    if found.streams:
        yield (
            "On a stream no batch was read before its update, so M_update (before it) is accuracy on fresh "
            "text and T_update a speed of learning, not of memorizing."
        )
