"""Claims on what repetition does to induction heads, and what they can detect."""

import math
from collections.abc import Hashable, Iterator, Mapping, Sequence

from repetita.fit.claim import Claim, Verdict, by_seed, directional, undecided
from repetita.fit.estimate import Estimate, t_interval
from repetita.studies._grid import Labels, Line, Losses, line_text
from repetita.studies._heads import (
    EVALUATIONS,
    FORMED,
    GATE_SHARE,
    SCORE,
    Heads,
    change,
    control,
    disproportion,
    headline_line,
    onsets,
    passed,
    scan_of,
    worst,
)
from repetita.studies._power import smallest_effect

PAPER = "Hernandez et al. 2022"
NAMES = ("disproportion", "score-falls", "heads-later", "context-less", "score-rises")
"""The primary claims, headline first."""

SEED_SD = {
    "disproportion": 0.5, "score-falls": 0.03, "heads-later": 0.3, "context-less": 0.03, "score-rises": 0.02
}  # fmt: skip
"""Assumed standard deviations over seeds, for planning only: round numbers set before any run of this study.
No verdict uses them."""
PREDICTED = {
    "disproportion": math.log(1.47 / 1.15), "score-falls": 0.05, "heads-later": 0.5, "context-less": 0.05,
    "score-rises": 0.05,
}  # fmt: skip
"""What the paper leads one to expect at f = 3% (Fig. 6: 1.47 and 1.15), and round guesses where it has no
number."""
UNITS = {
    "disproportion": "in ln of the size", "score-falls": "of the mean score",
    "heads-later": "in ln of the step", "context-less": "nats", "score-rises": "a unit of ln N",
}  # fmt: skip


def claims(heads: Heads, *, planned: Sequence[Labels]) -> Iterator[Claim]:
    """The headline, its parts and the control's rise; then gates and other lines, which are descriptive."""
    line = headline_line(planned)
    if line is not None:
        closed = _closed(heads, line)
        for make in (_disproportion, _falls, _later, _context):
            yield make(heads, line, closed=closed)
    yield _rises(heads)
    for size in _gated(planned):
        yield _gate(heads, size)
    for other in heads.lines():
        if other != line:
            closed = _closed(heads, other)
            for make in (_disproportion, _falls):
                claim = make(heads, other, closed=closed)
                yield claim._replace(name=f"{claim.name}-{_slug(other)}", primary=False)
    yield from _copies(heads)


def warnings(heads: Heads, *, planned: Sequence[Labels]) -> Iterator[str]:
    """What a reader must know before the claims: gates that are shut, sizes that cannot be read."""
    for size in _gated(planned):
        closed = _closed(heads, (size, 0.0))
        if closed:
            yield f"N = {size}: {closed}, so that nothing is concluded about heads at this size."
    scan = scan_of(heads)
    if scan is not None and scan.refused:
        yield f"No effective sizes by prefix matching: {scan.refused}."


def detectable(planned: Sequence[Labels]) -> Mapping[str, str]:
    """For each primary claim the smallest effect that its planned seeds can show, in words."""
    line = headline_line(planned)
    treated = {
        labels["seed"]
        for labels in planned
        if labels["arm"] == "repeated" and (labels["size"], labels["fraction"]) == line
    }
    ladder = {labels["seed"] for labels in planned if labels["arm"] == "control"}
    return {
        name: smallest_effect(
            n=len(ladder if name == "score-rises" else treated & ladder), sd=SEED_SD[name], unit=UNITS[name],
            predicted=PREDICTED[name], primary=len(NAMES),
        )
        for name in NAMES
    }  # fmt: skip


def _slug(line: Line) -> str:
    return f"{line[0]}-f{line[1]:g}"


def _gated(planned: Sequence[Labels]) -> list[str]:
    """Sizes that are treated: their controls must have heads."""
    sizes = {
        str(labels["size"]): int(labels["non_embedding"] or 0)
        for labels in planned
        if labels["arm"] == "repeated"
    }
    return sorted(sizes, key=lambda size: sizes[size])


def _closed(heads: Heads, line: Line) -> str:
    """Why nothing is concluded at this size; "" where the gate is open."""
    found = passed(heads, line[0])
    if not found:
        return "the control's heads were not measured"
    late = [str(seed) for seed, early in found.items() if not early]
    if not late:
        return ""
    return (
        f"gate not passed: the control's best head does not reach {FORMED:g} before half of the run in seed "
        f"{', '.join(late)}"
    )


def _tested(
    values: Mapping[Hashable, float],
    *,
    closed: str,
    name: str,
    statement: str,
    source: str,
    rule: str,
    unit: str,
    note: str,
) -> Claim:
    """A directional claim above zero where the gate is open and there is something to test."""
    if closed or not values:
        return undecided(
            name=name, statement=statement, source=source, rule=rule, note=closed or note, primary=True,
            n=len(values), estimate=t_interval(by_seed(values)) if values else None,
        )  # fmt: skip
    return directional(by_seed(values), name=name, statement=statement, source=source, unit=unit, note=note)


def _passes(heads: Heads, line: Line) -> str:
    at = sorted(set(worst(heads, line).values()))
    return f"worst passes by test loss, of the other seeds: {' and '.join(f'{passes:g}' for passes in at)}"


def _disproportion(heads: Heads, line: Line, *, closed: str) -> Claim:
    found = disproportion(heads, line)
    note = found.refused
    if not note:
        pairs = (("prefix matching", found.on_score), ("test loss", found.on_loss))
        shown = ", ".join(f"{name} {_times(lost)}" for name, lost in pairs)
        note = f"size / effective size, by the ladder {found.slopes}: {shown}; {_passes(heads, line)}"
        if found.bounded:
            note += f"; beyond the ladder, and so the least that it can be, in {len(found.bounded)} seeds"
    claim = _tested(
        found.difference, closed=closed, name="disproportion",
        statement=f"{line_text(line)}: repetition costs more effective size on prefix matching than on test "
        "loss",
        source=f"{PAPER}, Fig. 6: 1.47x against at most 1.15x at f = 3%",
        rule="ln(size / effective size) by prefix matching minus the same by test loss above 0 (t test over "
        "seeds), where the control's score clearly rises with ln N and is no step, and the test loss is "
        "within the ladder of controls",
        unit="in ln of the size, prefix matching minus test loss", note=note,
    )  # fmt: skip
    if found.bounded and claim.leaning == "contradicted":
        # A least value under 0 contradicts nothing.
        return claim._replace(verdict="inconclusive", leaning=None, p=None)
    return claim


def _times(logs: Losses) -> str:
    found = t_interval([math.exp(value) for value in logs.values()], scale="log")
    return f"{found.text(digits=2)}x"


def _falls(heads: Heads, line: Line, *, closed: str) -> Claim:
    drops = {seed: -fall for seed, fall in change(heads, SCORE, line).items()}
    levels = heads.of(SCORE, control(line[0]))
    note = "no seed has a treated and a control run"
    if drops and levels:
        note = f"control {t_interval(by_seed(levels)).text(digits=2)}; {_passes(heads, line)}"
    return _tested(
        drops, closed=closed, name="score-falls",
        statement=f"{line_text(line)}: at the worst passes the prefix-matching score is below the control's",
        source=f"{PAPER}, Figs. 6 and 21",
        rule="control minus treated score, mean over heads, above 0 (t test over seeds)",
        unit="attention a query, mean over heads, control minus treated", note=note,
    )  # fmt: skip


def _later(heads: Heads, line: Line, *, closed: str) -> Claim:
    own, ratios, never = onsets(heads, control(line[0])), {}, 0
    for seed, passes in worst(heads, line).items():
        treated = onsets(heads, (*line, passes)).get(seed)
        first = own.get(seed)
        if treated is None or first is None or first.x is None:
            continue
        never += treated.x is None
        ratios[seed] = math.log((treated.last if treated.x is None else treated.x) / first.x)
    steps = [one.x for one in own.values() if one.x is not None]
    note = "no seed has a control whose heads form and a treated run"
    if ratios:
        note = f"control at step {t_interval(steps).text(digits=3)}; {_passes(heads, line)}"
    if never:
        note += (
            f"; in {never} of {len(ratios)} treated seeds they do not form, which counts as the last step "
            "and understates"
        )
    return _tested(
        ratios, closed=closed, name="heads-later",
        statement=f"{line_text(line)}: induction heads form later than in the control",
        source="question of this study; the paper looks at the end of training only",
        rule=f"ln of the step from which the best head stays at {FORMED:g} or above for {EVALUATIONS} "
        "states, treated minus control, above 0 (t test over seeds)",
        unit="in ln of the step", note=note,
    )  # fmt: skip


def _context(heads: Heads, line: Line, *, closed: str) -> Claim:
    lost = change(heads, "in_context", line)
    levels = heads.of("in_context", control(line[0]))
    note = "no seed has a treated and a control run"
    if lost and levels:
        note = f"control {t_interval(by_seed(levels)).text(digits=2)} nats; {_passes(heads, line)}"
    return _tested(
        lost, closed=closed, name="context-less",
        statement=f"{line_text(line)}: at the worst passes the test loss falls less with the token index",
        source=f"{PAPER}, Fig. 7 right",
        rule="in-context score (late minus early index), treated minus control, above 0 (t test over seeds)",
        unit="nats, in-context score treated minus control", note=note,
    )  # fmt: skip


def _rises(heads: Heads) -> Claim:
    scan = scan_of(heads)
    slopes = {} if scan is None else dict(scan.by_seed)
    note = "no seed has controls of three sizes" if not slopes else ""
    if scan is not None and slopes:
        note = (
            f"no size is read off it: {scan.refused}" if scan.refused else "graded, so sizes are read off it"
        )
    return _tested(
        slopes, closed="", name="score-rises",
        statement="the control's prefix-matching score, mean over heads, rises with size",
        source=f"{PAPER}, Fig. 21",
        rule="slope over ln N of each seed's ladder above 0 (t test over seeds)",
        unit="a unit of ln N", note=note,
    )  # fmt: skip


def _gate(heads: Heads, size: str) -> Claim:
    found, at = passed(heads, size), onsets(heads, control(size))
    n, early = len(found), sum(found.values())
    verdict: Verdict = "inconclusive"
    if n:
        verdict = "illustrated" if n < 2 else "supported" if early == n else "contradicted"
    shown = "; ".join(f"seed {seed}: {one.text()}" for seed, one in at.items())
    return Claim(
        name=f"gate-{size}",
        statement=f"N = {size}: the control has induction heads (best head at {FORMED:g} or above) before "
        "half of the run",
        source="precondition, experiment design, rule 22",
        rule=f"supported if so in every seed, contradicted if in one not; half of the run is step "
        f"{GATE_SHARE * heads.steps:g}; a precondition and no test",
        verdict=verdict,
        estimate=Estimate(early / n, None, None, n, "share of seeds") if n else None,
        n=n,
        note=shown or "the control's heads were not measured",
        primary=False,
        unit="of the seeds",
    )


def _copies(heads: Heads) -> Iterator[Claim]:
    """Whether what matches prefixes also copies: an induction head in the strict sense."""
    for size in heads.sizes()[-1:]:
        values = heads.of("induction_ov", control(size))
        if values:
            yield directional(
                by_seed(values), name=f"best-head-copies-{size}",
                statement=f"N = {size}: the control's head with the highest prefix-matching score copies",
                source="Olsson et al. 2022: an induction head matches prefixes and copies",
                unit="(sum of the OV circuit's eigenvalues over the sum of their moduli)", primary=False,
            )  # fmt: skip
