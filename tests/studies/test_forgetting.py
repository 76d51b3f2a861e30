"""Planted memories come back; every scale pairs its arms, crosses its roles and can be analysed in part."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from repetita.corpus.treatment import SpecialBatch
from repetita.fit.claim import MAX_PRIMARY, Claim, settle
from repetita.spec import canonical_json
from repetita.studies._memory import kept
from repetita.studies._memory_churn import churn
from repetita.studies._memory_claims import claims
from repetita.studies._memory_parts import parts
from repetita.studies._memory_runs import followed_passes
from repetita.studies.forgetting import SCALES, STUDY
from repetita.study.collect import Collected
from repetita.study.plan import Analysis
from tests.studies.planted import Value, both, charts, effect, noise, planted, said
from tests.studies.trained import trained

Labels = Mapping[str, Any]
DIFFICULTY = {"special": 0.03, "twin": -0.02}
"""The twin is easier by more than the effects sought."""


def guess(labels: Labels, on: str, step: int) -> float:
    """M of a model that never saw the text: by text and size, falling as it overfits, noisy by seed."""
    name, _, batch = on.partition("/")
    level = 0.2 + DIFFICULTY.get(name, 0.0) + 0.01 * math.log10(labels["non_embedding"])
    return float(level) - 0.01 * math.log(step + 1) + noise(labels["seed"], name, batch, sd=0.01)


def memory(labels: Labels, on: str, step: int) -> float:
    """What an exposure adds: it decays to a floor that rises with size and halves with novel data."""
    name, _, batch = on.partition("/")
    if labels["arm"] != "special" or name != labels["trained"]:
        return 0.0
    since = step - labels["at"] - (int(batch) + 1) * labels["times"]
    if since < 0:
        return 0.0
    sequel = 1.0 if labels["after"] == "same" else 0.5
    floor: float = floor_of(labels["non_embedding"]) * labels["times"] * sequel
    return floor + 0.1 * math.pow(since + 1, -0.7)


def floor_of(n_params: int) -> float:
    return 0.01 * math.log10(n_params) - 0.03


def kept_by(scale: float = 1.0, *, sd: float = 0.0005, salt: int = 0) -> Value:
    def value(labels, probe, on, step):
        if probe != "special":
            return 0.3
        own = noise(salt, labels["seed"], labels["arm"], labels["after"], on, labels["size"], sd=sd)
        return guess(labels, on, step) + scale * memory(labels, on, step) + own

    return value


def in_nats(labels, probe, on, step):
    own = noise("nats", labels["seed"], labels["arm"], on, sd=0.0005)
    return 3.0 - memory(labels, on, step) + own


def made(scale: str, value: Value, **more: Any) -> Collected:
    return both(
        planted(STUDY, scale=scale, metric="memorized", value=value, **more),
        planted(STUDY, scale=scale, metric="loss", value=in_nats, **more),
    )


def named(found: Analysis) -> dict[str, Claim]:
    return {claim.name: claim for claim in found.claims}


@pytest.fixture(scope="module")
def laptop() -> Collected:
    return made("laptop", kept_by())


def test_planted_memory_is_recovered_whatever_the_difficulty(laptop: Collected) -> None:
    for cell in kept(laptop.measurements, metric="memorized"):
        floor = floor_of(cell.n_params) * cell.arm.times * (1.0 if cell.arm.after == "same" else 0.5)
        expected = floor + 0.1 * cell.x**-0.7
        for how in ("minus_placebo", "minus_twin"):
            curve = np.mean(list(cell.kept(how).values()), axis=0)
            # Between measured states the curve is read linearly in ln x.
            np.testing.assert_allclose(curve, expected, atol=0.004)
            assert curve[0] == pytest.approx(expected[0], abs=0.001)
            assert curve[-1] == pytest.approx(floor + 0.1 * cell.x[-1] ** -0.7, abs=0.002)


def test_roles_are_crossed_over_seeds(laptop: Collected) -> None:
    """The trained text is the special set for even seeds, the twin for odd ones: raw levels show which."""
    cell = kept(laptop.measurements, metric="memorized")[0]
    assert set(cell.special) == {0, 1, 2}
    gaps = [cell.placebo[seed][0] - cell.twin_placebo[seed][0] for seed in range(3)]
    assert gaps[1] < 0 < min(gaps[0], gaps[2])
    assert all(cell.special[seed][0] > cell.placebo[seed][0] for seed in range(3))
    for seed, name in enumerate(("special", "twin", "special")):
        labels = {"seed": seed, "non_embedding": cell.n_params}
        expected = np.mean([guess(labels, f"{name}/{batch}", 160) for batch in range(4)])
        assert cell.before[seed] == pytest.approx(expected, abs=0.002)


def test_claims_follow_the_planted_memory(laptop: Collected) -> None:
    there = named(STUDY.analyse(laptop))
    for name in ("remains-25k", "remains-100k", "kept-rises", "novel-100k", "dose-100k-10-same"):
        assert there[name].verdict == "supported", name
    assert effect(there["kept-rises"]) == pytest.approx(0.01, abs=0.002)
    assert effect(there["dose-100k-10-same"]) == pytest.approx(9 * floor_of(100_096), abs=0.003)
    assert there["baseline-is-generalisation"].leaning == "supported"
    assert there["remains-nats-25k"].verdict == "supported"


def test_without_memory_nothing_remains() -> None:
    """Of 30 studies without any memory a few find one, as the error rate of 5% allows."""
    wrong, shares = 0, []
    for salt in range(30):
        value = kept_by(0.0, sd=0.002, salt=salt)
        table = planted(STUDY, scale="tiny", metric="memorized", value=value, probes=("special",))
        cells = kept(table.measurements, metric="memorized")
        found = {one.name: one for one in settle(list(claims(cells, nats=(), sizes=("0.6k", "3.8k"))))}
        remains = [claim for name, claim in found.items() if name in ("remains-0.6k", "remains-3.8k")]
        wrong += any(claim.verdict == "supported" for claim in remains)
        shares.append(effect(found["baseline-is-generalisation"]))
    assert wrong <= 3
    assert np.mean(shares) == pytest.approx(1, abs=0.01)


def test_nothing_guessed_at_all_is_no_share() -> None:
    def nothing(labels, probe, on, step):
        return 0.0

    assert (
        named(STUDY.analyse(made("laptop", nothing)))["baseline-is-generalisation"].verdict == "inconclusive"
    )


PARTIAL = {
    "nothing": lambda labels: False,
    "one seed": lambda labels: labels["seed"] == 0,
    "no placebo": lambda labels: labels["arm"] == "special",
    "placebo only": lambda labels: labels["arm"] == "placebo",
    "novel only": lambda labels: labels["after"] == "novel",
    "novel of another seed": lambda labels: (labels["after"] == "novel") == (labels["seed"] == 0),
    "one size": lambda labels: labels["size"] == "100k",
    "sizes of different seeds": lambda labels: (labels["size"] == "25k") == (labels["seed"] == 0),
    "many exposures only": lambda labels: labels["times"] > 1,
    "every third": lambda labels: int(noise(sorted(map(str, labels.items())), sd=1e6)) % 3 == 0,
}


@pytest.mark.parametrize("scale", ["demo", "laptop"])
@pytest.mark.parametrize("name", PARTIAL)
def test_a_partial_study_is_analysed(name: str, scale: str) -> None:
    found = STUDY.analyse(made(scale, kept_by(), there=PARTIAL[name]))
    assert sum(claim.primary for claim in found.claims) <= MAX_PRIMARY
    if name in ("nothing", "no placebo", "placebo only"):
        assert found.warnings
        assert not found.claims


@pytest.mark.parametrize("missing", ["start", "end", "exposure", "batch", "train"])
def test_a_state_that_is_missing_leaves_its_seed_out(missing: str) -> None:
    def value(labels, probe, on, step):
        lost = labels["seed"] == 0 and labels["size"] == "25k" and probe == "special"
        if missing == "train" and probe == "train":
            return None
        if lost and (
            (missing == "start" and step == labels["at"])
            or (missing == "end" and step == labels["steps"])
            or (missing == "exposure" and step == labels["at"] + labels["times"])
            or (missing == "batch" and on == "special/1")
        ):
            return None
        return kept_by()(labels, probe, on, step)

    found = named(STUDY.analyse(made("laptop", value)))
    assert found["remains-25k"].n == (3 if missing == "train" else 2)
    assert found["remains-100k"].n == 3


@pytest.mark.parametrize("scale", SCALES)
def test_scale(scale: str) -> None:
    """At most eight primary claims, each with what it can detect; figures that can be drawn and read."""
    found = STUDY.analyse(made(scale, kept_by(), probes=("special",)))
    primary = {claim.name for claim in found.claims if claim.primary}
    assert 0 < len(primary) <= MAX_PRIMARY
    assert primary == set(STUDY.detectable(scale))
    for figure in charts(found):
        assert len(figure.rows) < 5000
        assert len(figure.series_values()) <= 12
    assert STUDY.deviations(scale)


@pytest.mark.parametrize("scale", SCALES)
def test_plan(scale: str) -> None:
    """Distinct runs; every exposure has its placebo: same trunk, same updates, same states of its batches."""
    planned = STUDY.runs(scale)
    assert len({canonical_json(run.spec) for run in planned}) == len(planned)
    arms: dict[tuple[object, ...], dict[str, Any]] = {}
    plain: dict[tuple[object, ...], Any] = {}
    for run in planned:
        labels, treatment = said(run), run.spec.treatment
        assert scale == "paper" or run.spec.recipe.curve == "constant"
        if labels["arm"] == "plain":
            plain[labels["size"], labels["seed"]] = run
            continue
        assert isinstance(treatment, SpecialBatch)
        key = tuple(labels[name] for name in ("size", "times", "after", "seed"))
        arms.setdefault(key, {})[labels["arm"]] = run
        assert labels["trained"] == ("special" if labels["seed"] % 2 == 0 else "twin")
        assert treatment.arm == (labels["trained"] if labels["arm"] == "special" else "placebo")
    for key, pair in arms.items():
        special, placebo = pair["special"], pair["placebo"]
        assert special.spec.edit(treatment=placebo.spec.treatment) == placebo.spec
        trunk = placebo.spec.until(placebo.fork_at)
        assert special.spec.until(special.fork_at) == trunk
        assert tuple(probe for probe in special.probes if probe.name != "train") == placebo.probes
        undisturbed = plain.get((key[0], key[-1]))
        assert undisturbed is None or undisturbed.spec.until(undisturbed.fork_at) == trunk
    cells = {key[:3] for key in arms}
    assert len({frozenset(key[3] for key in arms if key[:3] == cell) for cell in cells}) == 1
    assert bool(plain) == (scale != "demo")


@pytest.mark.parametrize("last", [1, 2, 9, 84, 164])
def test_followed_passes_pair_up(last: int) -> None:
    found = followed_passes(last)
    assert found == sorted(set(found))
    assert found[0] >= 1
    assert found[-1] == last
    if last > 1:
        assert {last - 1, last} <= set(found)
        assert all(n - 1 in found or n + 1 in found for n in found)


def test_the_headline_comes_first(laptop: Collected) -> None:
    """The paper's own statement, whose estimate the planted floor and guesses give."""
    first = STUDY.analyse(laptop).claims[0]
    assert (first.name, first.primary) == ("baseline-rises", True)


def test_a_size_that_is_missing_leaves_its_claims_open() -> None:
    """The headline stays first and is no slope over the other sizes; Holm's family stays what was planned."""
    two = made("laptop", kept_by(), there=lambda labels: labels["size"] != "220k")
    found = [claim for claim in STUDY.analyse(two).claims if claim.primary]
    assert found[0].name == "baseline-rises"
    open_ones = ("baseline-rises", "kept-rises", "baseline-is-generalisation", "remains-220k")
    for claim in found:
        assert (claim.verdict, claim.n) == ("inconclusive", 0) or claim.name not in open_ones
    assert {claim.name for claim in found} == set(STUDY.detectable("laptop"))


def test_a_curve_that_levels_off_is_told_from_perplexity_that_rises() -> None:
    """M moves by less than the margin a pass; the loss rises by 0.002 for each update made."""

    def rising(labels, probe, on, step):
        own = noise("nats", labels["seed"], sd=0.00001)
        return 3.0 + (0.002 + own) * step - memory(labels, on, step)

    def flat(labels, probe, on, step):
        since = step - labels["at"]
        own = noise(labels["seed"], labels["arm"], on, sd=0.0005)
        own += noise(labels["seed"], labels["arm"], on, step, sd=0.00001)
        return 0.2 + own + (0.2 * math.exp(-since / 40) if since > 0 else 0.0)

    found = named(
        STUDY.analyse(
            both(
                planted(STUDY, scale="overnight", metric="memorized", value=flat, probes=("special",)),
                planted(STUDY, scale="overnight", metric="loss", value=rising, probes=("special",)),
            )
        )
    )
    assert found["memorized-flattens-400k"].verdict == "supported"
    assert abs(effect(found["memorized-flattens-400k"])) < 1e-4
    assert found["perplexity-rises-400k"].verdict == "supported"
    assert effect(found["perplexity-rises-400k"]) == pytest.approx(0.002 * 512, rel=0.05)
    assert found["decay-is-exponential-400k"].verdict == "supported"


@pytest.mark.parametrize("scale", ["laptop", "overnight"])
def test_horizon_can_separate_the_forms(scale: str) -> None:
    for run in STUDY.runs(scale):
        labels = said(run)
        after = labels["steps"] - labels["at"] - labels["n_batches"] * labels["times"]
        assert math.log10(after) > 1.5


@pytest.mark.slow
@pytest.mark.ci
def test_tiny_runs_from_end_to_end(tmp_path: Path) -> None:
    there, report, _ = trained("forgetting", root=tmp_path, report_after=6)
    assert {figure.name for figure in report.figures} >= {
        "forgetting-curve", "forgetting-kept", "forgetting-floor", "forgetting-perplexity", "forgetting-rate",
        "forgetting-forms", "forgetting-training-set", "forgetting-churn", "forgetting-churn-at-equal-memory",
        "forgetting-floor-parts", "forgetting-floor-overlap",
    }  # fmt: skip
    assert {table.name for table in report.tables} == {
        "forgetting-ends", "forgetting-decays", "forgetting-churn-by-pass", "forgetting-floor-classes",
    }  # fmt: skip
    assert {"loses-less", "loses-less-by-pass"} <= {claim.name for claim in report.findings}
    turns = churn(there)
    assert {turn.passes for turn in turns if turn.on == "train"} == {1, 2, 3, 4, 5, 6, 7, 8}
    by_token = there.where(probe="churn", metric="memorized_by_token", step=36, size="3.8k", seed=0)
    assert [
        turn.later
        for turn in turns
        if (turn.on, turn.size, turn.seed, turn.passes) == ("train", "3.8k", 0, 8)
    ] == [by_token["value"].item()]
    whole = parts(there)
    assert {(one.size, one.seed) for one in whole} == {
        (size, seed) for size in ("0.6k", "3.8k") for seed in (0, 1)
    }
    for one in whole:
        of: dict[str, Any] = {"size": one.size, "seed": int(str(one.seed)), "arm": "special", "after": "same"}
        curves = there.where(probe="special", metric="memorized", **of)
        ends = curves.filter((curves["step"] == curves["steps"]) & (curves["set"] == curves["trained"]))
        assert one.special.mean() == pytest.approx(np.average(ends["value"], weights=ends["n"]))
    cells = kept(there.measurements, metric="loss")
    assert {tuple(cell.arm) for cell in cells} == {
        (size, 1, after) for size in ("0.6k", "3.8k") for after in ("same", "novel")
    }
    for cell in cells:  # Right after its exposure a text is known better than without it.
        assert np.mean([curve[0] for curve in cell.kept("minus_placebo").values()]) < 0
