"""Claims on which parts of speech are memorized first: four primary ones, of the main size."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from repetita.corpus.parts_of_speech import PAPER_CLASSES
from repetita.fit.claim import Claim, by_seed, directional, undecided
from repetita.fit.estimate import t_interval
from repetita.studies._pos import Control, Rate, Run, gap, main_size, of_size
from repetita.studies._power import smallest_effect

PAPER = "Tirumala et al. 2022, Fig. 7"
HEADLINE = "names-first"
LOG_UNIT = "(ln of passes, verb and adjective less noun, proper noun and numeral)"

SEED_SD = {HEADLINE: 0.1, "names-first-raw": 0.01, "names-first-frequency": 0.15, "class-before-word": 0.1}
"""Assumed standard deviations over seeds of the effects, for planning only: a guess. No verdict uses them."""
PREDICTED = {HEADLINE: 0.4, "names-first-raw": 0.1, "names-first-frequency": 0.4, "class-before-word": 0.1}
"""What the paper leads one to expect: R_mem at pass 10 is 0.7, 0.6 and 0.5 for noun, numeral and proper noun,
0.5 and 0.4 for adjective and verb (read off its chart), on curves that rise by about 0.25 a factor e."""


def claims(found: Sequence[Run], *, main: str) -> Iterator[Claim]:
    """The headline first; the same at the other sizes is descriptive."""
    of_main = of_size(found, main)
    yield _order(of_main, name=HEADLINE)
    yield _raw(of_main)
    yield _order(of_main, name="names-first-frequency", control="frequency")
    yield _class_first(of_main)
    for size in dict.fromkeys(run.size for run in found):
        if size != main:
            yield _order(
                of_size(found, size), name=f"{HEADLINE}-{size.replace('.', '-').lower()}", primary=False
            )


def half_times(run: Run, /, *, of: Rate = "memorized", control: Control = "none") -> dict[str, float] | None:
    """Passes to half of the final excess by class of the paper; None where a class has none."""
    found = {}
    for name in PAPER_CLASSES:
        crossed = run.half_time(name, of, control=control)
        if crossed is None or crossed.x is None:
            return None
        found[name] = crossed.x
    return found


def _order(found: Sequence[Run], *, name: str, control: Control = "none", primary: bool = True) -> Claim:
    controlled = ", words equally frequent in the training set compared" if control == "frequency" else ""
    size = f" (N = {found[0].size})" if found and not primary else ""
    statement = (
        "nouns, proper nouns and numerals are memorized before verbs and adjectives: the excess of R_mem "
        f"over the never-seen twin is at half of its final value after fewer passes{controlled}{size}"
    )
    effects, why = {}, []
    for run in found:
        times = half_times(run, control=control)
        if times is None:
            why.append(_missing(run, control))
        else:
            effects[run.seed] = gap({name: math.log(x) for name, x in times.items()})
    return _judged(
        effects, n_planned=len(found), why=why, name=name, statement=statement, source=PAPER, primary=primary,
        unit=LOG_UNIT, note=_coverage(found) if control == "frequency" else _of_all(found),
    )  # fmt: skip


ALL = "over all positions, predictions that are no word as misses"


def _of_all(found: Sequence[Run]) -> str:
    """The same gap with the paper's denominator: a rate over words alone rises where a model says none."""
    times = [half_times(run, control="positions") for run in found]
    known = [gap({name: math.log(x) for name, x in one.items()}) for one in times if one is not None]
    return f"{ALL}: {t_interval(known).text()}" if known and len(known) == len(times) else ""


def _missing(run: Run, control: Control) -> str:
    if control == "frequency" and run.weights() is None:
        return f"seed {run.seed}: no stratum of frequency has enough words of every class"
    return (
        f"seed {run.seed}: some class never gets, and stays, half as far as it ends, or ends without excess"
    )


def _coverage(found: Sequence[Run]) -> str:
    shares = [run.covered() for run in found]
    return f"over strata that hold {min(shares):.0%} of the positions or more" if shares else ""


def _raw(found: Sequence[Run]) -> Claim:
    """The paper's own way: heights of the curves on the training set alone."""
    effects = {}
    paper = [-gap({name: run.height(name, control="positions") for name in PAPER_CLASSES}) for run in found]
    for run in found:
        heights = {name: run.height(name) for name in PAPER_CLASSES}
        if all(map(math.isfinite, heights.values())):
            effects[run.seed] = -gap(heights)
    return _judged(
        effects, n_planned=len(found), why=["a class has no position in some seed"], name="names-first-raw",
        statement="as the paper reads its figure: on the training set alone the curves of R_mem of nouns, "
        "proper nouns and numerals lie above those of verbs and adjectives (mean over passes, on their "
        "logarithm)", source=PAPER, primary=True,
        unit="(R_mem of noun, proper noun and numeral less that of verb and adjective)",
        note=f"{ALL}: {t_interval(paper).text()}" if paper and np.isfinite(paper).all() else "",
    )  # fmt: skip


def _class_first(found: Sequence[Run]) -> Claim:
    effects, why = {}, []
    for run in found:
        classes, words = half_times(run, of="recall"), half_times(run, of="memorized")
        if classes is None or words is None:
            why.append(_missing(run, "none"))
        else:
            logs = [math.log(words[name] / classes[name]) for name in PAPER_CLASSES]
            effects[run.seed] = sum(logs) / len(logs)
    return _judged(
        effects, n_planned=len(found), why=why, name="class-before-word",
        statement="the part of speech is learned before the word: the excess of R over the twin is at half "
        "of its final value after fewer passes than that of R_mem, mean over classes", source=PAPER,
        primary=True, unit="(ln of passes, R_mem less R)",
    )  # fmt: skip


def _judged(
    effects: Mapping[Any, float],
    *,
    n_planned: int,
    why: Sequence[str],
    name: str,
    statement: str,
    source: str,
    primary: bool,
    unit: str,
    note: str = "",
) -> Claim:
    """A t test over seeds; undecided where a run has no effect to give, since dropping it would choose."""
    if not effects or len(effects) < n_planned:
        reason = "; ".join(why) if n_planned else "no run of this size is finished"
        return undecided(
            name=name, statement=statement, source=source, primary=primary, n=len(effects),
            rule=f"supported if above 0 {unit} at the 95% level (t test over seeds)", note=reason,
        )  # fmt: skip
    return directional(
        by_seed(effects), name=name, statement=statement, source=source, primary=primary, unit=unit, note=note
    )


def detectable(planned: Sequence[Mapping[str, Any]], /) -> Mapping[str, str]:
    """For each primary claim the smallest effect that the seeds of the main size can show, in words."""
    main = main_size(planned)
    n = len({labels["seed"] for labels in planned if labels["size"] == main})
    return {
        name: smallest_effect(
            n=n, sd=sd, unit="of R_mem" if name.endswith("raw") else "of ln passes",
            predicted=PREDICTED[name], primary=len(SEED_SD),
        )
        for name, sd in SEED_SD.items()
    }  # fmt: skip


def warnings(found: Sequence[Run], *, main: str) -> Iterator[str]:
    """More than one tagger; classes with few words; runs that end before they know the text."""
    taggers = sorted({run.tagger for run in found})
    if len(taggers) > 1:
        yield (
            f"The runs were tagged by different taggers ({', '.join(taggers)}): their classes do not "
            f"compare. Set REPETITA_TAGGER to one of them and run in a new folder."
        )
    for run in of_size(found, main):
        few = [
            f"{name} ({run.total['train'][_index(name)]:.0f})"
            for name in PAPER_CLASSES
            if run.total["train"][_index(name)] < FEW
        ]
        if few:
            yield (
                f"Seed {run.seed} of N = {run.size} has under {FEW} words in its training set of "
                f"{', '.join(few)}: their curves are coarse."
            )
        ends = {name: float(run.rate(name, "memorized", on="train")[-1]) for name in PAPER_CLASSES}
        short = [f"{name} ({value:.2f})" for name, value in ends.items() if value < KNOWN]
        if short:
            yield (
                f"Seed {run.seed} of N = {run.size} ends before R_mem is {KNOWN:g} on its training set for "
                f"{', '.join(short)}: half of an excess that still grows comes too early for them."
            )


FEW = 100
KNOWN = 0.9
"""R_mem on the training set from which on the end of a run counts as the end of what it memorizes."""


def _index(name: str) -> int:
    from repetita.corpus.parts_of_speech import CLASSES

    return CLASSES.index(name)
