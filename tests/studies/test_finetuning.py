"""Planted pasts come back as verdicts: what outlives fine-tuning, what is an open bound, what is missing."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from repetita.fit.claim import MAX_PRIMARY, Claim
from repetita.report.page import Report
from repetita.studies._finetuning import crossovers, early_and_last, main_line
from repetita.studies._finetuning_runs import SCALES
from repetita.studies.double_descent import STUDY as DOUBLE_DESCENT
from repetita.studies.finetuning import STUDY
from repetita.study.expected import plan_corpora
from repetita.study.plan import Analysis, PlannedRun
from repetita.study.prepare import portion, prepare
from tests.studies.planted import both, effect, noise, planted, said
from tests.studies.trained import trained

BEFORE, AFTER = (7.5, 0.06), (8.0, 0.07)
"""Coefficient and exponent of loss by size, on the text of pre-training and on the target."""
PRIMARY = (
    "worse-than-scratch", "worse-at-the-same-recipe", "worse-than-unique", "recovers", "gap-closes",
    "unique-helps", "forgets",
)  # fmt: skip


class World:
    """What was planted; sizes are effective ones over those of scratch."""

    def __init__(
        self,
        *,
        before: float = 1 / 20,
        after: float = 1 / 1.6,
        unique: float = 1.3,
        slower: float = 0.02,
        early: float = 0.5,
        kept: float = 0.1,
        memorized: float = 0.4,
        sd: float = 0.0005,
    ) -> None:
        self.sizes = {"scratch": 1.0, "scratch at the same recipe": 1.0, "unique": unique, "repeated": after}
        self.before, self.slower, self.early = before, slower, early
        self.kept, self.memorized, self.sd = kept, memorized, sd

    def loss(self, labels: Mapping[str, Any], probe: str, on: str, step: int) -> float | None:
        """Of the run, and beyond it a gap of `early` nats of repeated models that is gone at the end."""
        target = labels["stage"] == "target"
        arm = labels["arm"]
        shrunk = self.sizes[arm] if target else self.before if arm == "repeated" else 1.0
        coefficient, exponent = AFTER if target else BEFORE
        level: float = coefficient * (labels["non_embedding"] * shrunk) ** -exponent
        level += self.slower * (arm == "scratch at the same recipe")
        if probe == "curve":
            level += (1 - step / labels["steps"]) * (2.0 + self.early * (arm == "repeated"))
        by_seed = noise("seed", labels["stage"], labels["seed"], sd=0.01)
        return level + by_seed + noise(sorted(map(str, labels.items())), sd=self.sd)

    def right(self, labels: Mapping[str, Any], probe: str, on: str, step: int) -> float | None:
        """M(f): 0.2 on any text, and beyond that what of the repeated text is kept after the start."""
        if probe != "left":
            return None
        more = self.memorized * (1.0 if step == 0 else self.kept) * (on == "parent/repeated")
        return 0.2 + more + noise(sorted(map(str, labels.items())), on, step, sd=0.002)

    def analysis(self, *, scale: str = "laptop", **kept: Any) -> Analysis:
        """Of a study with these numbers."""
        losses = planted(STUDY, scale=scale, value=self.loss, **kept)
        memory = planted(STUDY, scale=scale, metric="memorized", value=self.right, **kept)
        return STUDY.analyse(both(losses, memory) if len(memory.measurements) else losses)

    def claims(self, **kept: Any) -> dict[str, Claim]:
        """By name."""
        return {claim.name: claim for claim in self.analysis(**kept).claims}


def on_target(size: float) -> float:
    """Nats that an effective size costs at 25k, over scratch."""
    n_params = next(
        run.labels["non_embedding"] for run in STUDY.runs("laptop") if run.labels["size"] == "25k"
    )
    extra: float = AFTER[0] * float(n_params or 0) ** -AFTER[1] * (size ** -AFTER[1] - 1)
    return extra


@pytest.fixture(scope="module")
def paper() -> Analysis:
    return World().analysis(scale="overnight")


def test_the_papers_pattern_is_found(paper: Analysis) -> None:
    claims = {claim.name: claim for claim in paper.claims}
    assert tuple(claims)[: len(PRIMARY)] == PRIMARY
    assert {name: claims[name].verdict for name in PRIMARY} == dict.fromkeys(PRIMARY, "supported")
    headline = claims["worse-than-scratch"]
    assert "f = 0.9" in headline.statement and headline.n == 3
    assert effect(headline) == pytest.approx(on_target(1 / 1.6), abs=0.002)
    assert "N = 25k; effective size 0.6" in headline.note
    slower = effect(headline) - effect(claims["worse-at-the-same-recipe"])
    assert slower == pytest.approx(0.02, abs=0.002)
    assert effect(claims["recovers"]) == pytest.approx(20 / 1.6, rel=0.15)
    assert effect(claims["unique-helps"]) == pytest.approx(on_target(1.3), abs=0.002)
    assert "worse-than-scratch-100k-f0.9" in claims and not claims["worse-than-scratch-100k-f0.9"].primary


def test_tables_hold_sizes_and_where_arms_cross(paper: Analysis) -> None:
    tables = {table.name: table.rows for table in paper.tables}
    arms = {(row[0], row[1]): row for row in tables["finetuning-arms"]}
    high = arms["25k", "pre-trained with f = 0.9"]
    assert str(high[4]).startswith("0.05") and str(high[9]).startswith("0.6")
    unique = arms["25k", "pre-trained on unique text"]
    assert unique[8] is None and str(unique[9]).startswith("1.3")
    crossed = {tuple(row[:3]): row for row in tables["finetuning-crossovers"]}
    row = crossed["25k", "pre-trained on unique text", "scratch"]
    assert (row[3], row[4]) == (None, "not reached")
    left = {tuple(row[:3]): row for row in tables["finetuning-memory"]}
    shown = left["25k", "pre-trained with f = 0.9", "memorized, repeated minus test"]
    assert [round(float(str(cell).split()[0]), 1) for cell in shown[3:6]] == [0.4, 0.0, 0.0]


def test_figures_show_every_arm(paper: Analysis) -> None:
    assert [figure.name for figure in paper.figures] == [
        "finetuning-curves", "finetuning-gaps", "finetuning-ladder", "finetuning-left"
    ]  # fmt: skip
    for figure in paper.figures[:2]:
        shown = {row["arm"] for row in figure.rows if row["size"] == "N = 25k"}
        assert {f"pre-trained with f = {share}" for share in (0.1, 0.5, 0.9)} <= shown
    assert not paper.warnings


def test_a_past_that_helps_contradicts_and_none_decides_nothing() -> None:
    helped = World(after=1.4, unique=0.8, slower=0.0).claims()
    for name in ("worse-than-scratch", "worse-at-the-same-recipe", "worse-than-unique", "unique-helps"):
        assert helped[name].verdict == "contradicted", name
    same = World(after=1.0, unique=1.0, slower=0.0, sd=0.01).claims()
    for name in ("worse-than-scratch", "worse-at-the-same-recipe", "worse-than-unique", "unique-helps"):
        assert same[name].verdict == "inconclusive", name


def test_damage_that_stays_is_no_recovery() -> None:
    assert World(before=1 / 2, after=1 / 4).claims()["recovers"].verdict == "contradicted"


def test_a_loss_beyond_the_controls_before_is_a_bound() -> None:
    """At most the smallest control's size is left, so that the ratio is a bound on the safe side."""
    found = World(before=1 / 200, after=1 / 1.6).claims()["recovers"]
    assert found.verdict == "supported"
    assert "at most: in 3 seeds" in found.note
    assert 1 < effect(found) < 200 / 1.6


def test_a_size_beyond_the_ladder_after_decides_no_size() -> None:
    claims = World(after=1 / 200).claims()
    assert claims["recovers"].verdict == "inconclusive"
    assert "outside the ladder" in claims["recovers"].note
    assert claims["worse-than-scratch"].verdict == "supported"
    assert "outside the ladder from scratch in 3 of 3 seeds" in claims["worse-than-scratch"].note


def test_memory_and_gaps_that_stay_or_never_were() -> None:
    kept = World(kept=0.9, early=0.0).claims()
    assert kept["forgets"].verdict == "contradicted"
    assert kept["gap-closes"].verdict == "contradicted"
    never = World(memorized=0.01, early=0.0, after=1.5, unique=1.0).claims()
    assert (never["forgets"].verdict, never["forgets"].estimate) == ("inconclusive", None)
    assert "not memorized" in never["forgets"].note
    assert "no gap early" in never["gap-closes"].note


def test_unfinished_studies_say_what_is_missing() -> None:
    nothing = World().analysis(there=lambda labels: False)
    assert nothing.warnings and not nothing.claims
    parents = World().analysis(there=lambda labels: labels["stage"] == "pre-training")
    assert {claim.verdict for claim in parents.claims} == {"inconclusive"}
    assert "no seed has both runs yet" in parents.claims[0].note
    assert any("after fine-tuning" in warning for warning in parents.warnings)
    some = World().claims(there=lambda labels: labels["arm"] != "unique")
    assert some["worse-than-scratch"].verdict == "supported"
    assert some["worse-than-unique"].verdict == some["gap-closes"].verdict == "inconclusive"


def test_what_claims_are_about_does_not_depend_on_what_is_finished() -> None:
    planned_runs = [said(run) for run in STUDY.runs("overnight")]
    assert main_line(planned_runs) == main_line(planned_runs[::-1]) == ("25k", 0.9)
    assert main_line([one for one in planned_runs if one["stage"] == "pre-training"]) is None
    late = World().claims(there=lambda labels: labels["fraction"] != 0.5)
    assert "f = 0.5" in late["worse-than-scratch"].statement
    assert late["worse-than-scratch"].verdict == "inconclusive"


def test_laptop_judges_the_share_with_seeds_and_illustrates_the_papers() -> None:
    claims = World().claims(scale="laptop")
    assert (claims["worse-than-scratch"].verdict, claims["worse-than-scratch"].n) == ("supported", 3)
    assert "f = 0.5" in claims["worse-than-scratch"].statement
    paper_share = claims["worse-than-scratch-25k-f0.9"]
    assert (paper_share.verdict, paper_share.primary) == ("illustrated", False)


def test_crossings_of_a_gap_are_steps_between_measurements() -> None:
    down, up = crossovers({100.0: 0.5, 200.0: 0.25, 400.0: -0.25, 800.0: -0.3})
    assert up is None and down is not None and down.x is not None
    assert down.x == pytest.approx(200 * math.sqrt(2))
    down, up = crossovers({100.0: -0.5, 200.0: -0.25, 400.0: 0.25, 800.0: -0.3})
    assert down is None and up is not None and not up.reached
    assert crossovers({100.0: 0.5}) == (None, None)
    assert early_and_last({0.0: 3.0, 50.0: 2.0, 100.0: 1.0, 1000.0: 0.5}) == (1.0, 0.5)
    assert early_and_last({1000.0: 0.5}) is None


@pytest.mark.parametrize("scale", ["laptop", "overnight", "gpu"])
def test_parents_are_the_runs_of_double_descent(scale: str) -> None:
    theirs = {run.spec for run in DOUBLE_DESCENT.runs(scale)}
    before = [run.spec for run in STUDY.runs(scale) if run.labels["stage"] == "pre-training"]
    assert before and set(before) <= theirs
    started = {run.spec.start.run for run in STUDY.runs(scale) if run.spec.start is not None}
    assert started <= set(before)


def test_arms_of_a_seed_differ_in_past_and_recipe_alone() -> None:
    runs: dict[tuple[Any, ...], list[PlannedRun]] = {}
    for run in STUDY.runs("overnight"):
        if run.labels["stage"] == "target":
            runs.setdefault((run.labels["size"], run.spec.seed), []).append(run)
    for arms in runs.values():
        scratch = next(run for run in arms if run.labels["arm"] == "scratch").spec
        for run in arms:
            assert run.spec.edit(start=None, recipe=scratch.recipe) == scratch
            shares = run.spec.recipe.learning_rate / scratch.recipe.learning_rate
            assert shares == (1.0 if run.labels["rate_scale"] == 1.0 else 0.5)
            carried = run.labels["variant"] == "optimizer carried on"
            start = run.spec.start
            assert start is None or start.optimizer == ("carried" if carried else "fresh")


@pytest.mark.parametrize("scale", SCALES)
def test_every_scale_tells_what_it_can_detect(scale: str) -> None:
    claims = World().analysis(scale=scale).claims
    assert {claim.name for claim in claims if claim.primary} == set(STUDY.detectable(scale)) == set(PRIMARY)
    assert len(PRIMARY) <= MAX_PRIMARY
    told = {deviation.parameter: deviation.ours for deviation in STUDY.deviations(scale)}
    assert "begin at zero" in told["optimizer"]


@pytest.mark.parametrize("scale", ["gpu", "paper"])
def test_large_scales_are_planned_without_their_text(scale: str, tmp_path: Path) -> None:
    part = portion("finetuning", scale=scale)
    prepared = prepare([part], root=tmp_path, corpora=plan_corpora([part], root=tmp_path))
    assert prepared.needed()
    assert not (tmp_path / "corpora").exists()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Report:
    return trained("finetuning", root=tmp_path_factory.mktemp("tuned")).report


@pytest.mark.slow
def test_tiny_runs_and_says_what_was_planned(made: Report) -> None:
    assert {claim.name for claim in made.findings if claim.primary} == set(PRIMARY)
    assert {figure.name for figure in made.figures} == {
        "finetuning-curves", "finetuning-gaps", "finetuning-ladder", "finetuning-left"
    }  # fmt: skip
    tables = {table.name: table.rows for table in made.tables}
    assert set(tables) == {"finetuning-arms", "finetuning-crossovers", "finetuning-memory"}
    tuned = {row[1] for row in tables["finetuning-arms"] if row[1] and "pre-trained" in str(row[1])}
    assert len(tuned) == 9
    for _, arm, what, before, _, last, _ in tables["finetuning-memory"]:
        if what == "loss, test":
            assert float(str(last).split()[0]) > float(str(before).split()[0]), arm
