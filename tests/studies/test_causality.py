"""Planted fates of heads come back as verdicts and words; windows are equal in what they should be."""

import math
from collections.abc import Callable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import pytest

from repetita.corpus.treatment import RepeatedSubset, Stream
from repetita.fit.claim import MAX_PRIMARY, Claim
from repetita.report.draw import svg
from repetita.spec import canonical_json
from repetita.studies import attention_only, induction_heads
from repetita.studies._causality import METRICS, fates, held, read
from repetita.studies._causality_claims import NAMES
from repetita.studies._causality_runs import AFTER, ARMS, BEFORE, CONTROL, SCALES, THROUGHOUT, WITHDRAWN
from repetita.studies._heads import BEST
from repetita.studies.causality import STUDY
from repetita.study.collect import Collected
from repetita.study.plan import Analysis
from tests.studies.planted import charts, effect, everything, noise, planted, said
from tests.studies.trained import trained

Labels = Mapping[str, Any]
CARRIED = 2.0
"""Nats a copied token that a formed head is worth."""
KEYS = ("size", "arm", "passes", "seed")


class Plant(NamedTuple):
    """What repetition does; heads form at the share `forms` of a run without it."""

    forms: float = 0.3
    prevents: bool = True
    destroys: bool = True
    masks: bool = False
    returns: bool = True

    def formed(self, labels: Labels, step: int) -> bool:
        """Whether the best head matches prefixes after so many steps."""
        due = self.forms * labels["full_steps"]
        if labels["arm"] == CONTROL or (not self.prevents and not labels["start"]):
            return bool(step >= due)
        if labels["start"]:
            return bool(step >= due and not (self.destroys and step > labels["start"]))
        return bool(self.returns and step >= labels["stop"] + due)

    def at(self, metric: str) -> Callable[[Labels, str, str, int], float | None]:
        """The value of a metric."""

        def value(labels: Labels, probe: str, on: str, step: int) -> float | None:
            wanted = {"loss": "curve", BEST: "heads"}.get(metric, "ablation")
            if probe != wanted or on != "test":
                return None
            own = noise(metric, step, *(labels[key] for key in KEYS), sd=0.004)
            formed = self.formed(labels, step)
            if metric == BEST:
                return (0.9 if formed else 0.05) + own
            if metric == "loss":
                repeats = labels["arm"] != CONTROL and 0 < step <= labels["stop"] / 2
                return 4.0 + (0.2 if repeats else 0.0) + own
            what, _, out = metric.rpartition("_")
            masked = self.masks and labels["arm"] == AFTER and step > labels["start"]
            worth = {"copying_loss": CARRIED, "in_context": 0.0 if masked else 0.4}.get(what, 0.1)
            level = {"copying_loss": 4.0, "in_context": 0.0}.get(what, 3.0)
            lost = worth if formed else 0.0
            return level - lost + {"none": 0.0, "top": lost, "random": 0.01}[out] + own

        return value


NAMED = ("loss", BEST, *(f"{metric}_{out}" for metric in METRICS for out in ("none", "top", "random")))


def made(plant: Plant, *, scale: str = "laptop", there: Callable[[Labels], bool] = everything) -> Collected:
    tables = [planted(STUDY, scale=scale, metric=name, value=plant.at(name), there=there) for name in NAMED]
    full = [table.measurements for table in tables if len(table.measurements)]
    one = tables[0]
    joined = pl.concat(full, how="vertical_relaxed") if full else one.measurements
    return Collected(one.study, one.scale, one.labels, one.runs, joined, one.absent, one.manifest)


def named(found: Analysis) -> dict[str, Claim]:
    return {claim.name.removeprefix("causality-"): claim for claim in found.claims}


def verdicts(plant: Plant) -> dict[str, str]:
    found = named(STUDY.analyse(made(plant)))
    return {name: claim.verdict for name, claim in found.items() if claim.primary}


@pytest.fixture(scope="module")
def whole() -> Collected:
    return made(Plant())


def test_heads_that_repetition_prevents_destroys_and_gives_back(whole: Collected) -> None:
    analysis = STUDY.analyse(whole)
    found = named(analysis)
    assert tuple(claim.name for claim in analysis.claims if claim.primary) == NAMES
    assert analysis.claims[0].name == "causality-carries-less"
    for name in ("carries-less", "carries", "prevents", "delays", "destroys", "returns"):
        assert found[name].verdict == "supported", name
    assert effect(found["carries-less"]) == pytest.approx(CARRIED, abs=0.02)
    assert "treated models lose 2.0" in found["carries-less"].note
    assert effect(found["prevents"]) == pytest.approx(0.45, abs=0.02)
    assert effect(found["delays"]) == pytest.approx(math.log(0.5 / 0.3), abs=0.1)
    assert found["masks"].verdict == "inconclusive" and "nothing is masked" in found["masks"].note
    assert "no later than its peak" not in found["returns"].note
    assert effect(found["carries-less-in-context"]) == pytest.approx(0.4, abs=0.02)
    assert effect(found["later-costs-more"]) == pytest.approx(CARRIED, abs=0.02)
    assert found["gate-34k"].verdict == "supported" and not found["gate-34k"].primary


def test_each_run_has_a_fate_in_words(whole: Collected) -> None:
    table = read(whole.measurements)
    words = {
        arm: {fate.words for fate in fates(table, ("34k", arm, 400.0))}
        for arm in (THROUGHOUT, BEFORE, AFTER, WITHDRAWN)
    }
    assert words[THROUGHOUT] == {"prevented"} and words[AFTER] == {"destroyed"}
    assert words[WITHDRAWN] == {"prevented, then returned"}
    assert all(one.startswith("not due yet, formed afterwards (step 2") for one in words[BEFORE])
    masked = read(made(Plant(destroys=False, masks=True)).measurements)
    (said_,) = {fate.words for fate in fates(masked, ("34k", AFTER, 400.0))}
    assert said_ == "masked"
    harmless = read(made(Plant(prevents=False, destroys=False)).measurements)
    assert {fate.words for fate in fates(harmless, ("34k", WITHDRAWN, 400.0))} == {
        "intact, and so at the end"
    }


def test_masked_is_neither_destroyed_nor_intact() -> None:
    found = verdicts(Plant(destroys=False, masks=True))
    assert found["masks"] == "supported" and found["destroys"] == "contradicted"


def test_harmless_repetition_is_said_to_be_harmless() -> None:
    found = named(STUDY.analyse(made(Plant(prevents=False, destroys=False))))
    assert {found[name].verdict for name in ("prevents", "destroys")} == {"contradicted"}
    assert {found[name].verdict for name in ("carries-less", "delays", "masks", "returns")} == {
        "inconclusive"
    }
    assert "in no seed are the heads missing" in found["returns"].note


def test_heads_that_stay_away_do_not_return() -> None:
    found = named(STUDY.analyse(made(Plant(returns=False))))
    assert found["returns"].verdict == "contradicted"
    assert "in 3 of 3 treated seeds they do not form" in found["delays"].note
    assert "understates" in found["delays"].note


def test_a_shut_gate_leaves_everything_undecided() -> None:
    analysis = STUDY.analyse(made(Plant(forms=0.6)))
    primary = [claim for claim in analysis.claims if claim.primary]
    assert {claim.verdict for claim in primary} == {"inconclusive"}
    assert all("gate not passed" in claim.note for claim in primary)
    assert any("nothing is concluded" in warning for warning in analysis.warnings)
    table = next(table for table in analysis.tables if table.name == "causality-fates")
    assert all(str(row[-1]).startswith("not judged") for row in table.rows)


def test_a_window_that_begins_too_late_to_be_early_delays_nothing() -> None:
    found = STUDY.analyse(made(Plant(forms=0.15)))
    claim = named(found)["delays"]
    assert claim.verdict == "inconclusive" and "inside the early window" in claim.note
    assert any("inside the early window" in warning for warning in found.warnings)


PARTIAL: dict[str, Callable[[Labels], bool]] = {
    "no control": lambda labels: labels["arm"] != CONTROL,
    "controls only": lambda labels: labels["arm"] == CONTROL,
    "one seed": lambda labels: labels["seed"] == 0,
    "no windows": lambda labels: labels["arm"] in (CONTROL, THROUGHOUT),
    "other size": lambda labels: labels["size"] != "34k",
}


@pytest.mark.parametrize("name", PARTIAL)
def test_an_unfinished_study_decides_nothing_that_it_cannot(name: str) -> None:
    found = named(STUDY.analyse(made(Plant(), there=PARTIAL[name])))
    primary = {key: claim.verdict for key, claim in found.items() if claim.primary}
    assert {f"causality-{key}" for key in primary} == set(NAMES)
    if name in ("no control", "other size"):
        assert set(primary.values()) == {"inconclusive"}
    if name == "controls only":
        assert [key for key, verdict in primary.items() if verdict == "supported"] == ["carries"]
    if name == "one seed":
        assert set(primary.values()) == {"illustrated", "inconclusive"}
    if name == "no windows":
        assert primary["prevents"] == "supported" and primary["returns"] == "inconclusive"


def test_nothing_there() -> None:
    nothing = planted(STUDY, scale="laptop", value=lambda *_: None, there=lambda _: False)
    assert STUDY.analyse(nothing).warnings == ("no run is finished yet",)


def test_figures_and_tables_hold_the_plant(whole: Collected) -> None:
    found = STUDY.analyse(whole)
    figures = {figure.name: figure for figure in charts(found)}
    assert list(figures) == [f"causality-{name}" for name in ("heads", "test-loss", "copying", "carried")]
    for figure in figures.values():
        assert svg(figure).startswith("<svg")
    lost = {
        row["arm"]: float(row["loss"] or 0)
        for row in figures["causality-carried"].rows
        if row["of"] == METRICS["copying_loss"] and row["heads"] == "highest-scoring"
    }
    assert lost["34k: control"] == pytest.approx(CARRIED, abs=0.02)
    assert lost["34k: from start to end, 400 passes"] == pytest.approx(0.0, abs=0.02)
    assert all(len(row) == len(table.columns) for table in found.tables for row in table.rows)


def test_held_is_what_two_neighbours_have() -> None:
    assert held(((1, 2, 3), (0.1, 0.9, 0.6))) == 0.6
    assert held(((1,), (0.9,))) is None


@pytest.mark.parametrize("scale", SCALES)
def test_windows_are_equal_in_share_and_passes(scale: str) -> None:
    """And the late one begins as its control; claims are about a size that has all arms."""
    planned_ = STUDY.runs(scale)
    arms: dict[tuple[object, ...], set[object]] = {}
    for run in planned_:
        labels, spec, treatment = said(run), run.spec, run.spec.treatment
        if labels["arm"] == CONTROL:
            assert isinstance(treatment, Stream)
            continue
        assert isinstance(treatment, RepeatedSubset)
        assert treatment.fraction == Fraction(1, 2) and treatment.n_sequences is not None
        steps = (treatment.stop or spec.steps) - treatment.begins
        lane = treatment.fraction * steps * spec.batch_size
        assert lane / treatment.n_sequences == labels["passes"]
        assert spec.recipe.curve == "constant"
        key = (labels["size"], labels["passes"])
        arms.setdefault(key, set()).add(labels["arm"])
        if labels["arm"] == AFTER:
            own = next(
                one for one in planned_
                if one.labels["arm"] == CONTROL and one.labels["size"] == labels["size"]
                and one.spec.seed == spec.seed
            )  # fmt: skip
            assert run.fork_at == own.fork_at == treatment.begins == own.spec.steps / 2
            assert canonical_json(spec.until(treatment.begins)) == canonical_json(
                own.spec.until(treatment.begins)
            )
    assert set(ARMS[1:]) in arms.values()
    subsets = {
        (run.labels["arm"], run.labels["passes"]): (run.labels["subset"], run.spec.steps) for run in planned_
    }
    for (arm, passes), at in subsets.items():
        if arm == BEFORE:
            assert subsets[AFTER, passes] == at
    assert set(STUDY.detectable(scale)) == set(NAMES) and len(NAMES) <= MAX_PRIMARY
    assert all(row.why for row in STUDY.deviations(scale))


@pytest.mark.parametrize("scale", SCALES)
def test_arms_are_looked_at_in_the_same_states(scale: str) -> None:
    """Also runs that end earlier: onsets are read off states, and other states would move them."""
    looked: dict[object, set[int]] = {}
    for run in STUDY.runs(scale):
        heads = next(probe for probe in run.probes if probe.name == "heads")
        steps = set(heads.cadence.steps(run.spec.steps))
        most = looked.setdefault(run.labels["size"], steps)
        assert steps == {step for step in most if step <= run.spec.steps}


def test_controls_and_what_is_repeated_throughout_are_shared() -> None:
    there = {
        canonical_json(run.spec)
        for study in (induction_heads.STUDY, attention_only.STUDY)
        for run in study.runs("laptop")
    }
    own = {
        (run.labels["size"], run.labels["arm"], run.spec.seed): canonical_json(run.spec) in there
        for run in STUDY.runs("laptop")
    }
    assert all(shared for (_, arm, _), shared in own.items() if arm == CONTROL)
    assert all(shared for (size, _, _), shared in own.items() if size != "34k")
    assert own["34k", THROUGHOUT, 0]


@pytest.mark.slow
def test_it_really_runs(tmp_path: Path) -> None:
    found = trained("causality", root=tmp_path, report_after=5)
    assert {claim.name for claim in found.report.findings} >= set(NAMES)
    assert {figure.name for figure in found.report.figures} == {
        f"causality-{name}" for name in ("heads", "test-loss", "copying", "carried")
    }
    assert {table.name for table in found.report.tables} == {"causality-fates", "causality-ablation"}
    table = found.collected.measurements
    assert set(NAMED) <= set(table["metric"].unique().to_list())
    # Up to its window the late arm is its control, which was trained once for both.
    before = table.filter(
        (pl.col("metric") == BEST) & (pl.col("step") <= 20) & (pl.col("size") == "one head")
    )
    start = {
        arm: before.filter(pl.col("arm") == arm).sort("seed", "step").select("step", "value").rows()
        for arm in (CONTROL, AFTER, WITHDRAWN)
    }
    assert start[AFTER] == start[CONTROL] != start[WITHDRAWN]
