"""Claims on what repeated data costs on other texts: the headline is the paper's Fig. 10."""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any

from repetita.fit.claim import Claim, by_seed, directional, undecided
from repetita.fit.estimate import t_interval
from repetita.studies._grid import Line, mean, standard
from repetita.studies._other_texts import (
    Reading,
    Texts,
    at_high,
    closed,
    compared,
    extra,
    over_sizes,
    planned_seeds,
)
from repetita.studies._power import smallest_effect

PAPER = "Hernandez et al. 2022, Fig. 10"
HEADLINE, DROP, BEYOND, COSTS = "extra-at-high-shares", "extra-drop", "extra-beyond-starvation", "costs"

SEED_SD = {HEADLINE: 0.1, DROP: 0.1, BEYOND: 0.1, COSTS: 0.05}
"""Assumed standard deviations over seeds (of the logarithm of a ratio; of a cost in nats), for planning only:
from the spread of controls on other texts. No verdict uses them."""
FAR_SD = 0.3
"""That of a cost on the texts after the first, on which controls of different seeds differ by tenths
of a nat."""
PREDICTED = {HEADLINE: 0.17, DROP: 0.17, BEYOND: 0.1, COSTS: 0.3}
"""-ln 0.84; for the comparison with missing data and the cost in nats a guess."""
UNITS = {COSTS: "nats"}


def claims(there: Texts) -> Iterator[Claim]:
    """The headline on the first of the other texts, its parts, and what repetition costs on each text."""
    first, rest = there.others[0], there.others[1:]
    yield _at_high_shares(there, first, primary=True)
    yield _drop(there, first, primary=True)
    yield _beyond_starvation(there, first)
    for reading in there.others:
        yield _costs(there, reading)
    for reading in rest:
        yield _at_high_shares(there, reading, primary=False)
        yield _drop(there, reading, primary=False)


def detectable(planned: Sequence[Mapping[str, Any]]) -> Mapping[str, str]:
    """For each primary claim the smallest effect that its planned seeds can show, in words."""
    labels = [dict(one) for one in standard(planned)]
    treated, starved = (planned_seeds(labels, arm=arm) for arm in ("repeated", "starved"))
    high, low = compared(treated)
    single = at_high(treated)
    counts = {
        HEADLINE: min((treated[line] for line in (*high, *low)), default=0),
        DROP: min(treated[line] for line in single),
        BEYOND: min((min(treated[line], starved[line]) for line in single if line in starved), default=0),
    }
    first, *rest = str(labels[0]["texts"]).split(", ")
    sds = SEED_SD | {f"{COSTS}-{name}": FAR_SD for name in rest}
    costs = [f"{COSTS}-{name}" for name in (first, *rest)]
    words: dict[str, str] = {}
    for name in (*counts, *costs):
        kind = COSTS if name in costs else name
        words[name] = smallest_effect(
            n=counts.get(name, counts[DROP]),
            sd=sds.get(name, sds[kind]),
            unit=UNITS.get(kind, "in ln of a ratio"),
            predicted=PREDICTED[kind],
            primary=len(counts) + len(costs),
        )
    return words


def _slug(name: str, reading: Reading, *, primary: bool) -> str:
    return name if primary else f"{name}-{reading.name}"


def _at_high_shares(there: Texts, reading: Reading, *, primary: bool) -> Claim:
    """The extra at the high share over that at the low one, mean over the sizes that have both."""
    high, low = compared(there.lines)
    shares = f"f = {high[0][1]:g} than at f = {low[0][1]:g}" if high else "a high share than at a low one"
    head: dict[str, Any] = {
        "name": _slug(HEADLINE, reading, primary=primary),
        "statement": f"{reading.title}: effective size falls further than on the own test text, and more so "
        f"at {shares}",
        "source": f"{PAPER}: 0.84 at f = 0.5, 0.75 at 0.9, little at 0.1 and below (Python)",
    }
    rule = "ratio of the extras below 1 (t test over seeds on the log scale), where both can be read"
    if not high:
        return undecided(**head, rule=rule, note="no size has a high and a low share", primary=primary)
    values, why = _extras(there, reading, [*high, *low])
    if why:
        return undecided(**head, rule=rule, note=why, primary=primary)
    tops = over_sizes([values[line] for line in high])
    bottoms = over_sizes([values[line] for line in low])
    ratios = {seed: top / bottoms[seed] for seed, top in tops.items() if seed in bottoms}
    if not ratios:
        return undecided(**head, rule=rule, note="no seed has all of these runs", primary=primary)
    parts = (t_interval(by_seed(one), scale="log").text(digits=2) for one in (tops, bottoms))
    note = "multiplier on it over that on the own text: {} against {}".format(*parts)
    return directional(
        by_seed(ratios), **head, threshold=1.0, direction="below", scale="log",
        unit="(ratio of the two extras)", note=f"{note}; {_places(there, [*high, *low])}", primary=primary,
    )  # fmt: skip


def _drop(there: Texts, reading: Reading, *, primary: bool) -> Claim:
    """The extra at the high share alone."""
    lines = at_high(there.lines)
    head: dict[str, Any] = {
        "name": _slug(DROP, reading, primary=primary),
        "statement": f"{reading.title}: at f = {lines[0][1]:g} effective size falls further than on the own "
        "test text",
        "source": f"{PAPER}: 0.84 times that on the test text at f = 0.5 (Python)",
    }
    rule = "ratio of the multipliers below 1 (t test over seeds on the log scale), where both can be read"
    values, why = _extras(there, reading, lines)
    over = over_sizes(list(values.values())) if not why else {}
    if not over:
        why = why or "no seed has all of these runs"
        return undecided(**head, rule=rule, note=why, primary=primary)
    return directional(
        by_seed(over), **head, threshold=1.0, direction="below", scale="log",
        unit="(multiplier on it over that on the own text, harmonic mean over sizes)",
        note=_places(there, lines), primary=primary,
    )  # fmt: skip


def _beyond_starvation(there: Texts, reading: Reading) -> Claim:
    """The extra of re-reading over that of a run which merely lacks the displaced data."""
    lines = [line for line in at_high(there.lines) if reading.grid.starved.get(line)]
    head: dict[str, Any] = {
        "name": BEYOND,
        "statement": f"{reading.title}: the extra fall is more than what the missing unique data explains",
        "source": "control that the paper lacks (same steps, repeated slots empty)",
    }
    rule = "ratio of the extras, repeated over starved, below 1 (t test over seeds on the log scale)"
    values, why = _extras(there, reading, lines)
    without: dict[Line, dict[Hashable, float]] = {
        line: closed(extra(there, reading, line=line, starved=True)) for line in lines
    }
    shared = [
        {seed: ratio / without[line][seed] for seed, ratio in values[line].items() if seed in without[line]}
        for line in values
    ]
    over = over_sizes(shared) if not why else {}
    if not over:
        why = why or "no seed has a repeated, a starved and a control run"
        return undecided(**head, rule=rule, note=why, primary=True)
    return directional(
        by_seed(over), **head, threshold=1.0, direction="below", scale="log",
        unit="(extra of repeated over extra of starved)", note=_places(there, lines),
    )  # fmt: skip


def _costs(there: Texts, reading: Reading) -> Claim:
    """Excess nats at the high share, mean over sizes: defined on any text."""
    lines = at_high(there.lines)
    head: dict[str, Any] = {
        "name": f"{COSTS}-{reading.name}",
        "statement": f"{reading.title}: at f = {lines[0][1]:g} repetition costs there as well",
        "source": f"{PAPER} (Python)",
    }
    found: dict[Line, dict[Hashable, float]] = {}
    own: list[float] = []
    for line in lines:
        passes = there.at(line)
        if passes is not None and (excess := reading.grid.excess(line, passes)):
            found[line] = dict(excess)
            own.append(mean(there.own.grid.excess(line, passes)))
    seeds = sorted(set.intersection(*map(set, found.values())), key=str) if found else []
    if len(found) < len(lines) or not seeds:
        rule = "excess over the control above 0 (t test over seeds), mean over sizes"
        return undecided(**head, rule=rule, note="not all of these runs are there", primary=True)
    values = {seed: mean([excess[seed] for excess in found.values()]) for seed in seeds}
    return directional(
        by_seed(values), **head, unit="nats over the control, mean over sizes",
        note=f"on the own test text {mean(own):.2g} nats; {_places(there, lines)}",
    )  # fmt: skip


def _extras(
    there: Texts, reading: Reading, lines: Sequence[Line]
) -> tuple[dict[Line, dict[Hashable, float]], str]:
    """The extra of each line by seed, or why it cannot be told."""
    if there.own.unfit or reading.unfit:
        return {}, there.own.unfit or reading.unfit
    found = {line: extra(there, reading, line=line) for line in lines}
    lacking = [_name(line) for line, ratios in found.items() if not ratios]
    if lacking or not lines:
        return {}, f"no runs yet of {', '.join(lacking) or 'such lines'}"
    ends = [_name(line) for line, ratios in found.items() if None in ratios.values()]
    if ends:
        return (
            {},
            f"a loss outside the ladder of controls, so that its size is an open bound: {'; '.join(ends)}",
        )
    return {line: closed(ratios) for line, ratios in found.items()}, ""


def _places(there: Texts, lines: Sequence[Line]) -> str:
    """Where the lines are read."""
    at = ", ".join(f"{_name(line)} at {there.at(line):g}" for line in lines if there.at(line) is not None)
    return f"passes: {at}"


def _name(line: Line) -> str:
    return f"N = {line[0]}, f = {line[1]:g}"
