"""Planted effects of when, how often and how far apart a text is seen come back with their verdicts."""

import functools
import itertools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from repetita.corpus.treatment import Passes, SpecialBatch
from repetita.fit.claim import MAX_PRIMARY, Claim
from repetita.spec import canonical_json
from repetita.studies import forgetting, forgetting_order, repetition, spaced_repetition
from repetita.studies._exposure import Exposure, states_of
from repetita.studies._exposure_curves import levels
from repetita.study.collect import Collected
from repetita.study.expand import labels_of
from repetita.study.plan import PlannedRun, Study
from tests.studies.planted import Value, both, effect, noise, said
from tests.studies.planted import planted as table_of
from tests.studies.trained import trained

Labels = Mapping[str, Any]
STUDIES = {study.name: study for study in (forgetting_order.STUDY, repetition.STUDY, spaced_repetition.STUDY)}
HEADLINE = {
    "forgetting_order": "order-alike", "repetition": "repetition-rises", "spaced_repetition": "spacing-alike",
}  # fmt: skip
PAIRED = [(name, scale) for name in STUDIES for scale in ("tiny", "laptop", "overnight", "gpu", "paper")]
Floor = Callable[[Labels], float]


def value_of(floor: Floor, *, sd: float = 0.0005, drift: float = -0.02) -> Value:
    """M by text and seed, falling over training by `drift` a factor of e, and what an exposure adds to it."""

    def value(labels: Labels, probe: str, on: str, step: int) -> float:
        name, _, batch = on.partition("/")
        easy = {"special": 0.03, "twin": -0.02}.get(name, 0.0)
        guess = 0.3 + easy + drift * float(np.log(step + 1)) + noise(labels["seed"], name, batch, sd=0.01)
        own = noise(labels["seed"], labels["arm"], on, *levels_of(labels), sd=sd)
        if labels["arm"] == "placebo" or name != labels["trained"] or not batch:
            return guess + own
        shape = {name: labels[name] for name in ("n_batches", "interleaved")}
        since = step - ends_of(*levels_of(labels), **shape)[int(batch)]
        return guess + own + (floor(labels) + 0.1 * (since + 1) ** -0.7 if since >= 0 else 0.0)

    return value


@functools.cache
def ends_of(*exposure: int, n_batches: int, interleaved: int) -> list[int]:
    labels = {**Exposure(*exposure)._asdict(), "n_batches": n_batches, "interleaved": interleaved}
    return states_of(labels)[1]


def levels_of(labels: Labels) -> list[int]:
    return [labels[name] for name in Exposure._fields]


def in_nats(labels: Labels, probe: str, on: str, step: int) -> float:
    return 3.0 - value_of(lambda _: 0.02)(labels, probe, on, step)  # type: ignore[operator]


def made(study: Study, scale: str, value: Value, **more: Any) -> Collected:
    return both(
        table_of(study, scale=scale, metric="memorized", value=value, **more),
        table_of(study, scale=scale, metric="loss", value=in_nats, **more),
    )


def found(name: str, floor: Floor, *, scale: str = "laptop", **more: Any) -> dict[str, Claim]:
    analysis = STUDIES[name].analyse(made(STUDIES[name], scale, value_of(floor, **more)))
    return {claim.name: claim for claim in analysis.claims}


@pytest.mark.parametrize(("name", "scale"), PAIRED)
def test_plan(name: str, scale: str) -> None:
    """Distinct runs; every exposure has its placebo: same start, same updates, same sets measured."""
    runs = STUDIES[name].runs(scale)
    assert len({canonical_json(run.spec) for run in runs}) == len(runs)
    arms: dict[tuple[object, ...], dict[str, PlannedRun]] = {}
    for run in runs:
        labels, treatment = said(run), run.spec.treatment
        assert isinstance(treatment, SpecialBatch)
        arms.setdefault((*levels_of(labels), labels["seed"]), {})[labels["arm"]] = run
        assert treatment.arm == (labels["trained"] if labels["arm"] == "special" else "placebo")
        assert labels["trained"] == ("special" if labels["seed"] % 2 == 0 else "twin")
        first, last = states_of(labels)
        made_ = treatment.injections()
        for batch in range(treatment.n_batches):
            steps = [step for step, which in made_ if which == batch]
            assert (first[batch], last[batch]) == (steps[0] + 1, steps[-1] + 1)
            assert len(steps) == labels["times"]
            assert {b - a for a, b in itertools.pairwise(steps)} <= {labels["every"]}
        assert last[-1] + labels["horizon"] <= run.spec.steps
        if labels["since_first"] is not None:
            assert max(first) + labels["since_first"] <= run.spec.steps
    for pair in arms.values():
        special, placebo = pair["special"], pair["placebo"]
        assert special.spec.edit(treatment=placebo.spec.treatment) == placebo.spec
        assert special.spec.until(special.fork_at or 0) == placebo.spec.until(placebo.fork_at or 0)
        assert special.probes[:2] == placebo.probes
    assert len({run.spec.seed for run in runs}) >= (2 if scale == "tiny" else 3)


@pytest.mark.parametrize("scale", ["laptop", "overnight"])
def test_trunks_are_those_of_the_forgetting_study(scale: str) -> None:
    shared = {canonical_json(run.spec.until(run.fork_at or 0)) for run in forgetting.STUDY.runs("laptop")}
    for name in ("repetition", "spaced_repetition"):
        runs = STUDIES[name].runs("laptop")
        # Forgetting has three seeds; exposures massed late go on from the same trunk.
        trunks = {canonical_json(run.spec.until(160)) for run in runs if run.spec.seed < 3}
        assert trunks <= shared
    # An early exposure's trunk is the start of a later one's.
    first = [run for run in STUDIES["forgetting_order"].runs(scale) if run.spec.seed == 0]
    by_start = {said(run)["at"]: run.spec for run in first if not said(run)["reordered"]}
    early, late = min(by_start), max(by_start)
    assert by_start[late].until(early) == by_start[early].until(early)


def test_another_order_starts_apart_over_the_same_set() -> None:
    runs = [run for run in STUDIES["forgetting_order"].runs("laptop") if run.spec.seed == 0]
    bases = {run.spec.treatment.base for run in runs if isinstance(run.spec.treatment, SpecialBatch)}
    assert bases == {Passes(n_sequences=128), Passes(n_sequences=128, reordered=1)}


@pytest.mark.parametrize(("name", "scale"), PAIRED)
def test_scale(name: str, scale: str) -> None:
    """The headline first, at most eight primary claims, each with what it can detect; figures to be drawn."""
    study = STUDIES[name]
    analysis = study.analyse(
        made(study, scale, value_of(lambda labels: 0.01), probes=("special", "other", "train"))
    )
    assert analysis.claims[0].name == HEADLINE[name]
    primary = [claim.name for claim in analysis.claims if claim.primary]
    assert len(primary) <= MAX_PRIMARY
    assert set(primary) == set(study.detectable(scale))
    word = HEADLINE[name].partition("-")[0]
    assert [figure.name for figure in analysis.figures] == [
        f"{word}-{what}" for what in ("curves", "kept", "baseline")
    ]
    assert [table.name for table in analysis.tables] == [f"{word}-levels"]
    for figure in analysis.figures:
        assert len(figure.rows) < 5000
    assert study.deviations(scale)


def test_what_is_kept_comes_back_whatever_the_text_and_the_state_of_training() -> None:
    floor = {1: 0.01, 8: 0.02, 32: 0.04}
    table = made(STUDIES["spaced_repetition"], "laptop", value_of(lambda labels: floor[labels["every"]]))
    runs = [said(run) for run in STUDIES["spaced_repetition"].runs("laptop")]
    for level in levels(table.measurements, metric="memorized"):
        expected = floor[level.exposure.every] + 0.1 * 129**-0.7
        for how in ("minus_placebo", "minus_twin"):
            assert np.mean(list(level.curves.last(how).values())) == pytest.approx(expected, abs=0.001)
        assert level.curves.x[-1] == 129
        first, last = states_of(run := next(one for one in runs if levels_of(one) == [*level.exposure]))
        if run["since_first"] is None:
            assert not level.first
            continue
        since = np.array([a + run["since_first"] - b for a, b in zip(first, last, strict=True)])
        from_first = floor[level.exposure.every] + np.mean(0.1 * (since + 1) ** -0.7)
        assert len(level.first) == 5
        assert np.mean(list(level.first.values())) == pytest.approx(from_first, abs=0.001)


def test_equal_levels_are_equal_within_the_margin_and_shifted_ones_are_not() -> None:
    alike = found("forgetting_order", lambda labels: 0.03)
    assert alike["order-alike"].verdict == "supported"
    assert alike["order-shuffled"].verdict == "supported"
    assert "smallest margin that 5 seeds could show" in alike["order-alike"].note
    late = found("forgetting_order", lambda labels: 0.06 if labels["at"] == 504 else 0.03)
    assert late["order-alike"].verdict == "contradicted"
    assert "pass 63" in late["order-alike"].note
    assert late["order-later-keeps-more"].verdict == "supported"
    assert effect(late["order-later-keeps-more"]) == pytest.approx(0.03, abs=0.002)
    middle = found("forgetting_order", lambda labels: 0.06 if labels["at"] == 312 else 0.03)
    assert middle["order-alike"].verdict == "contradicted"
    shuffled = found("forgetting_order", lambda labels: 0.03 + 0.04 * labels["reordered"])
    assert shuffled["order-alike"].verdict == "supported"
    assert shuffled["order-shuffled"].verdict == "contradicted"


def test_a_baseline_without_control_moves_with_training() -> None:
    """M on text never seen falls over training: the raw baseline differs where what is kept does not."""
    there = found("forgetting_order", lambda labels: 0.03, drift=-0.05)
    assert there["order-alike"].verdict == "supported"
    assert there["order-alike-raw"].verdict == "contradicted"
    assert there["order-unseen-falls"].verdict == "supported"


def test_equality_of_what_is_hardly_there_is_said_to_say_little() -> None:
    nothing = found("forgetting_order", lambda labels: 0.0)
    assert nothing["order-alike"].verdict == "supported"
    assert "equality says little" in nothing["order-alike"].note
    assert "equality says little" not in found("forgetting_order", lambda labels: 0.03)["order-alike"].note


def test_too_much_noise_for_the_margin_is_inconclusive() -> None:
    there = found("spaced_repetition", lambda labels: 0.02, sd=0.03)
    assert there["spacing-alike"].verdict == "inconclusive"
    assert there["spacing-longest-over-massed"].verdict == "inconclusive"


def test_spacing_that_helps_is_found() -> None:
    there = found("spaced_repetition", lambda labels: 0.02 + 0.0005 * labels["every"])
    assert there["spacing-alike"].verdict == "contradicted"
    assert there["spacing-longest-over-massed"].verdict == "supported"
    assert there["spacing-longest-over-massed-late"].verdict == "supported"
    assert there["spacing-remains-massed"].verdict == "supported"
    late = found("spaced_repetition", lambda labels: 0.05 if labels["at"] + labels["every"] > 190 else 0.02)
    assert late["spacing-longest-over-massed"].verdict == "supported"
    assert late["spacing-longest-over-massed-late"].verdict == "inconclusive"
    equal = found("spaced_repetition", lambda labels: 0.02)
    assert equal["spacing-alike"].verdict == "supported"


def test_repetition_in_a_row_rises_or_does_not() -> None:
    there = found("repetition", lambda labels: 0.01 * (1 + np.log10(labels["times"])))
    for name in ("repetition-rises", "repetition-10-over-1", "repetition-1000-over-100"):
        assert there[name].verdict == "supported", name
    assert effect(there["repetition-rises"]) == pytest.approx(0.01, abs=0.001)
    flat = STUDIES["repetition"].analyse(made(STUDIES["repetition"], "laptop", lambda *_: 0.3))
    assert not [claim.name for claim in flat.claims if claim.verdict == "supported"]
    falls = found("repetition", lambda labels: 0.05 - 0.01 * np.log10(labels["times"]))
    assert falls["repetition-rises"].verdict == "contradicted"


PARTIAL = {
    "nothing": lambda labels: False,
    "one seed": lambda labels: labels["seed"] == 0,
    "no placebo": lambda labels: labels["arm"] == "special",
    "four seeds": lambda labels: labels["seed"] < 4,
    "levels of different seeds": lambda labels: (labels["seed"] == 0) == (sum(levels_of(labels)) % 2 == 0),
    "the first level": lambda labels: levels_of(labels)[:3] in ([112, 1, 1], [160, 1, 1], [160, 4, 1]),
    "every third": lambda labels: int(noise(sorted(map(str, labels.items())), sd=1e6)) % 3 == 0,
}


@pytest.mark.parametrize("name", STUDIES)
@pytest.mark.parametrize("part", PARTIAL)
def test_a_partial_study_is_analysed(part: str, name: str) -> None:
    study = STUDIES[name]
    analysis = study.analyse(made(study, "laptop", value_of(lambda labels: 0.02), there=PARTIAL[part]))
    if part in ("nothing", "no placebo"):
        assert analysis.warnings
        assert not analysis.claims
        return
    headline = next((claim for claim in analysis.claims if claim.name == HEADLINE[name]), None)
    if part == "one seed":
        assert headline is not None
        assert headline.verdict == "illustrated"
    if part == "the first level":
        assert headline is not None
        assert headline.verdict == "inconclusive"
    if part == "four seeds" and name != "repetition":
        assert headline is not None
        assert headline.verdict == "inconclusive"
        assert "needs 5 seeds, here are 4" in headline.note


@pytest.mark.parametrize("missing", ["start", "exposure", "horizon", "batch"])
def test_a_state_that_is_missing_leaves_its_seed_out(missing: str) -> None:
    def value(labels: Labels, probe: str, on: str, step: int) -> float | None:
        _, last = states_of(labels)
        lost = labels["seed"] == 0 and labels["at"] == 112 and on.endswith("/1") and probe != "train"
        gone = {"start": labels["at"], "exposure": last[1], "horizon": last[1] + labels["horizon"]}
        if lost and (missing == "batch" or step == gone.get(missing)):
            return None
        return value_of(lambda labels: 0.02)(labels, probe, on, step)

    table = made(STUDIES["forgetting_order"], "laptop", value)
    seeds = {
        level.exposure: set(level.curves.special) for level in levels(table.measurements, metric="memorized")
    }
    assert seeds[Exposure(112)] == {1, 2, 3, 4}
    assert seeds[Exposure(504)] == {0, 1, 2, 3, 4}


@pytest.mark.slow
@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.ci] * (name == "spaced_repetition"))
                                  for name in STUDIES])  # fmt: skip
def test_tiny_runs_from_end_to_end(name: str, tmp_path: Path) -> None:
    there, report, _ = trained(name, root=tmp_path)
    assert report.findings[0].name == HEADLINE[name]
    assert len(report.figures) == 3
    found = levels(there.measurements, metric="loss")
    assert {level.exposure for level in found} == {
        Exposure(*levels_of(labels_of(run))) for run in STUDIES[name].runs("tiny")
    }
    for level in found:  # Right after its exposure a text is known better than without it.
        assert np.mean([curve[0] for curve in level.curves.kept("minus_placebo").values()]) < 0
