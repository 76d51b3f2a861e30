"""Claims on whether repetition prevents, destroys or masks induction heads, and what they can detect."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from repetita.fit.claim import Claim, Verdict, by_seed, directional, undecided
from repetita.fit.estimate import Estimate, t_interval
from repetita.studies._causality import (
    METRICS,
    Causality,
    Cell,
    closed,
    compared,
    control,
    held,
    late,
    lines,
    onsets,
    too_early,
    worst_step,
)
from repetita.studies._causality_runs import AFTER, BEFORE, CONTROL, THROUGHOUT, WITHDRAWN
from repetita.studies._grid import Labels, Losses, mean, minus
from repetita.studies._heads import EVALUATIONS, FORMED
from repetita.studies._power import smallest_effect

PAPER = "Hernandez et al. 2022"
QUESTION = f"question of this study; {PAPER} look at the end of training, with repetition throughout"
WORD = "causality"
SEED_SD = {
    "carries-less": 0.3, "carries": 0.3, "prevents": 0.1, "delays": 0.3, "destroys": 0.1, "masks": 0.03,
    "returns": 0.1,
}  # fmt: skip
"""Assumed standard deviations over seeds, for planning only: round numbers set before any run of this study.
No verdict uses them."""
PREDICTED = {
    "carries-less": 1.0, "carries": 2.0, "prevents": 0.4, "delays": 0.5, "destroys": 0.3, "masks": 0.1,
    "returns": 0.3,
}  # fmt: skip
"""Round guesses: the paper has no number for any of these. Without its head a model that copies guesses among
64 words, which costs some nats."""
UNITS = {
    "carries-less": "nats a copied token", "carries": "nats a copied token", "prevents": "of the score",
    "delays": "in ln of the step", "destroys": "of the score", "masks": "nats", "returns": "of the score",
}  # fmt: skip
NAMES = tuple(f"{WORD}-{name}" for name in SEED_SD)
"""The primary claims, headline first."""
NOT_YET = "no seed has all of the runs that this needs"


class _About(NamedTuple):
    """One size and one number of passes, and how its claims are named and judged."""

    found: Causality
    size: str
    passes: float
    primary: bool
    shut: str
    """Why nothing is concluded about heads."""

    def cell(self, arm: str) -> Cell:
        """The cell of an arm."""
        return self.size, arm, None if arm == CONTROL else self.passes

    def end(self, arm: str) -> int:
        """The last step of an arm's runs; 0 where none is there."""
        return self.found.end(self.cell(arm)) if self.cell(arm) in self.found.windows else 0

    def claim(
        self,
        values: Losses,
        *,
        name: str,
        statement: str,
        rule: str,
        unit: str,
        note: str = "",
        source: str = QUESTION,
        shut: str | None = None,
        primary: bool = True,
    ) -> Claim:
        """A directional claim above zero, where the gate is open and there is something to test."""
        slug = (
            "" if self.primary else "-" + re.sub(r"[^a-z0-9]+", "-", f"{self.size}-{self.passes:g}".lower())
        )
        name, statement = f"{WORD}-{name}{slug}", f"N = {self.size}, {self.passes:g} passes: {statement}"
        why, primary = self.shut if shut is None else shut, self.primary and primary
        if why or not values:
            return undecided(
                name=name, statement=statement, source=source, rule=rule, primary=primary, n=len(values),
                note=why or note or NOT_YET, estimate=t_interval(by_seed(values)) if values else None,
            )  # fmt: skip
        return directional(
            by_seed(values), name=name, statement=statement, source=source, unit=unit, note=note,
            primary=primary,
        )._replace(rule=f"{rule} (t test over seeds; Holm within the primary claims)")  # fmt: skip


def claims(found: Causality, *, planned: Sequence[Labels]) -> Iterator[Claim]:
    """Primary claims on the first line; then its other measures, the other lines, and the gates."""
    abouts = [
        _About(found, size, passes, place == 0, closed(found, size))
        for place, (size, passes) in enumerate(lines(planned))
    ]
    for one in abouts:
        yield _carries_less(one, "copying_loss")
        yield _carries(one, "copying_loss")
        yield _prevents(one)
        if any(labels["arm"] == AFTER and labels["size"] == one.size for labels in planned):
            yield from (_delays(one), _destroys(one), _masks(one), _returns(one))
            yield from _timing(one)
    for one in abouts[:1]:
        for metric in list(METRICS)[1:]:
            yield _carries(one, metric)
            yield _carries_less(one, metric)
    for size in dict.fromkeys(one.size for one in abouts):
        yield _gate(found, size)


def detectable(planned: Sequence[Labels]) -> Mapping[str, str]:
    """For each primary claim the smallest effect that its planned seeds can show, in words."""
    size, passes = lines(planned)[0]
    arm_of = {"delays": BEFORE, "destroys": AFTER, "masks": AFTER, "returns": WITHDRAWN}
    seeds = {
        arm: {
            one["seed"]
            for one in planned
            if (one["size"], one["arm"]) == (size, arm) and one["passes"] in (None, passes)
        }
        for arm in (CONTROL, THROUGHOUT, BEFORE, AFTER, WITHDRAWN)
    }
    return {
        f"{WORD}-{name}": smallest_effect(
            n=len(seeds[CONTROL] & seeds[arm_of.get(name, THROUGHOUT)]), sd=SEED_SD[name], unit=UNITS[name],
            predicted=PREDICTED[name], primary=len(NAMES),
        )
        for name in SEED_SD
    }  # fmt: skip


def warnings(found: Causality, *, planned: Sequence[Labels]) -> Iterator[str]:
    """What a reader must know before the claims: gates that are shut, windows that are misplaced."""
    for place, (size, passes) in enumerate(lines(planned)):
        if shut := closed(found, size):
            yield f"N = {size}, {passes:g} passes: {shut}, so that nothing is concluded about its heads."
        elif place == 0 and (inside := too_early(found, (size, BEFORE, passes))):
            yield f"N = {size}: {inside}."


def _carries_less(one: _About, metric: str) -> Claim:
    """Whether repetition takes from the best heads what they carry in the control."""
    found, treated, end = one.found, one.cell(THROUGHOUT), one.end(THROUGHOUT)
    own, theirs = (found.carried(metric, cell, step=end) for cell in (one.cell(CONTROL), treated))
    note = ""
    if own and theirs:
        note = f"control {_mean(own)}, treated {_mean(theirs)}"
        damage = minus(
            found.value(f"{metric}_none", treated, step=end),
            found.value(f"{metric}_none", one.cell(CONTROL), step=end),
        )
        if damage:
            note += f"; with all heads at work the treated models lose {_mean(damage)}"
    return one.claim(
        minus(own, theirs),
        name=f"carries-less{_of(metric)}",
        statement=f"with repetition from the start to the end the highest-scoring heads carry less of the "
        f"{METRICS[metric]} than in the control",
        source=f"{PAPER}, abstract and discussion: damage to heads is offered as what damages copying",
        rule="what is lost without the highest heads, beyond what is lost without others, attention patterns "
        "as they are with all: control minus treated above 0 at the end of the run",
        unit="nats a token, control minus treated",
        note=note,
        primary=metric == "copying_loss",
    )


def _carries(one: _About, metric: str) -> Claim:
    """Whether the control's best heads carry anything that others do not."""
    end = one.found.end(control(one.size)) if control(one.size) in one.found.windows else 0
    return one.claim(
        one.found.carried(metric, one.cell(CONTROL), step=end),
        name=f"carries{_of(metric)}",
        statement=f"in the control the highest-scoring heads carry more of the {METRICS[metric]} than others",
        source="Olsson et al. 2022, pattern-preserving ablation",
        rule="what is lost without the highest heads minus what is lost without as many others, attention "
        "patterns as they are with all, above 0 at the end of the run",
        unit="nats a token",
        primary=metric == "copying_loss",
    )


def _prevents(one: _About) -> Claim:
    values = {}
    for seed, course in one.found.best.get(one.cell(THROUGHOUT), {}).items():
        highest = held(course)
        if highest is not None:
            values[seed] = FORMED - highest
    note = f"control: {_onsets(one)}" if values else ""
    return one.claim(
        values,
        name="prevents",
        statement="with repetition from the start to the end induction heads never form, while the "
        "control's do",
        rule=f"{FORMED:g} minus the highest score that the best head holds over {EVALUATIONS} states, above "
        "0: it stays below what counts as formed; contradicted if it gets there",
        unit=f"of the score, {FORMED:g} minus the highest",
        note=note,
    )


def _delays(one: _About) -> Claim:
    own, values, never = onsets(one.found, one.cell(CONTROL)), {}, 0
    end = one.end(BEFORE)
    for seed, formed in onsets(one.found, one.cell(BEFORE)).items():
        first = own.get(seed)
        if first is not None and first.x is not None:
            never += formed.x is None
            values[seed] = math.log((formed.last if formed.x is None else formed.x) / first.x)
    note = f"control: {_onsets(one)}" if values else ""
    if never:
        note += (
            f"; in {never} of {len(values)} treated seeds they do not form by step {end}, which counts as "
            "that step and understates"
        )
    return one.claim(
        values,
        name="delays",
        statement="repetition that ends before heads form in the control makes them form later",
        rule=f"ln of the step from which the best head stays at {FORMED:g} or above for {EVALUATIONS} "
        "states, treated minus control, above 0, where in every seed the control's form after the window",
        unit="in ln of the step, treated minus control",
        note=note,
        shut=one.shut or too_early(one.found, one.cell(BEFORE)),
    )


def _destroys(one: _About) -> Claim:
    found, cell, end = one.found, one.cell(AFTER), one.end(AFTER)
    scores, own = found.score(cell, step=end), found.score(one.cell(CONTROL), step=end)
    note = f"treated {_mean(scores)}, control {_mean(own)}" if scores and own else ""
    return one.claim(
        {seed: FORMED - score for seed, score in scores.items()},
        name="destroys",
        statement="repetition that begins when heads have formed takes them away",
        rule=f"{FORMED:g} minus the best head's score when the late window ends, above 0: what was formed "
        "when it began no longer is; contradicted if it still is",
        unit=f"of the score, {FORMED:g} minus the score",
        note=note,
    )


def _masks(one: _About) -> Claim:
    found, cell, end = one.found, one.cell(AFTER), one.end(AFTER)
    intact = {seed for seed, score in found.score(cell, step=end).items() if score >= FORMED}
    own = found.value("in_context_none", one.cell(CONTROL), step=end)
    lost = minus(found.value("in_context_none", cell, step=end), own)
    values = {seed: value for seed, value in lost.items() if seed in intact}
    note = ""
    if lost and not values:
        note = "no seed has a head that still matches prefixes when the late window ends: nothing is masked"
    elif values:
        note = f"control {_mean(own)} nats; {len(values)} of {len(lost)} seeds have a head that still matches"
    return one.claim(
        values,
        name="masks",
        statement="repetition that begins when heads have formed leaves them matching prefixes, and takes "
        "away what context gains on unseen text",
        rule=f"in-context score (late minus early index) when the late window ends, treated minus control, "
        f"above 0, in the seeds whose best head still scores {FORMED:g} or more on random tokens",
        unit="nats, in-context score treated minus control",
        note=note,
    )


def _returns(one: _About) -> Claim:
    found, cell = one.found, one.cell(WITHDRAWN)
    stop = found.windows[cell].stop if cell in found.windows else 0
    at_stop, at_end = found.score(cell, step=stop), found.score(cell, step=one.end(WITHDRAWN))
    gone = {seed for seed, score in at_stop.items() if score < FORMED}
    values = {seed: score - FORMED for seed, score in at_end.items() if seed in gone}
    note = ""
    if at_stop and not gone:
        note = f"in no seed are the heads missing when repetition ends (score {_mean(at_stop)})"
    elif values:
        note = f"missing at step {stop} in {len(values)} of {len(at_end)} seeds; at the end {_mean(at_end)}"
    worst = worst_step(found, cell) if cell in found.windows else None
    if values and worst is not None:
        note += f"; until step {stop} the extra test loss was largest at step {worst}"
        note += ", so that it was withdrawn no later than its peak" if worst >= stop else ""
    return one.claim(
        values,
        name="returns",
        statement="heads that are missing when repetition is withdrawn half-way are there at the end",
        rule=f"best head's score at the end minus {FORMED:g}, above 0, in the seeds in which it is below "
        f"{FORMED:g} when the repetition ends, while the control's is there",
        unit=f"of the score, score minus {FORMED:g}",
        note=note,
    )


def _timing(one: _About) -> Iterator[Claim]:
    """The early against the late window, which are equal in all else, and what is left long afterwards."""
    at = compared(one.found, one.size, one.passes)
    if at is not None:
        late_, early = (
            one.found.value("copying_loss_none", one.cell(arm), step=at) for arm in (AFTER, BEFORE)
        )
        if values := minus(late_, early):
            yield one.claim(
                values,
                name="later-costs-more",
                statement="the same repetition costs more copying after heads have formed than before, at "
                "equal training",
                rule=f"loss on copies of random tokens at step {at}, late window minus early window, above 0",
                unit="nats a copied token",
                note="the late window has just ended there, the early one long before",
                shut="",
                primary=False,
            )
    end = one.end(WITHDRAWN)
    left = minus(
        one.found.value("copying_loss_none", one.cell(WITHDRAWN), step=end),
        one.found.value("copying_loss_none", one.cell(CONTROL), step=end),
    )
    if left:
        yield one.claim(
            left,
            name="damage-stays",
            statement="after repetition was withdrawn half-way copying is still worse at the end",
            rule="loss on copies of random tokens at the end, treated minus control, above 0",
            unit="nats a copied token",
            shut="",
            primary=False,
        )


def _gate(found: Causality, size: str) -> Claim:
    """The precondition of every claim on heads (experiment design, rule 22)."""
    seeds, own = late(found, size), onsets(found, control(size))
    n, early = len(seeds), sum(not is_late for is_late in seeds.values())
    verdict: Verdict = "inconclusive"
    if n:
        verdict = "illustrated" if n < 2 else "supported" if early == n else "contradicted"
    return Claim(
        name=f"{WORD}-gate-" + re.sub(r"[^a-z0-9]+", "-", size.lower()),
        statement=f"N = {size}: the control has induction heads (best head at {FORMED:g} or above) before "
        "half of the run",
        source="precondition, experiment design, rule 22",
        rule="supported if so in every seed, contradicted if in one not; a precondition and no test",
        verdict=verdict,
        estimate=Estimate(early / n, None, None, n, "share of seeds") if n else None,
        n=n,
        note="; ".join(f"seed {seed}: {one.text()}" for seed, one in own.items()) or NOT_YET,
        primary=False,
        unit="of the seeds",
    )


def _of(metric: str) -> str:
    """What a claim on another metric than the first is called after."""
    return "" if metric == "copying_loss" else f"-{metric.replace('_', '-')}"


def _mean(values: Losses) -> str:
    return f"{mean(values):.2f}"


def _onsets(one: _About) -> str:
    return ", ".join(found.text() for found in onsets(one.found, one.cell(CONTROL)).values())
