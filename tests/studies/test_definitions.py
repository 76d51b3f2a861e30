"""Planted definitions come back: alike, unlike, at their floor; and every scale can be analysed in part."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

from repetita.corpus.treatment import Passes
from repetita.fit.claim import MAX_PRIMARY, Claim
from repetita.spec import canonical_json
from repetita.studies._definitions import SCORES, cells
from repetita.studies.definitions import SCALES, STUDY
from repetita.study.collect import Collected
from repetita.study.plan import Analysis
from tests.studies.planted import charts, effect, planted, said
from tests.studies.trained import trained

TOKENS, SUFFIX, PROMPTS = 128, 16, (8, 16, 32)
STARTS = (40, 64, 88, 112)
Items = dict[str, NDArray[np.generic]]
Labels = Mapping[str, Any]


class World(NamedTuple):
    """What models are like; scores of a sequence are keyed by it, the noise by model and state."""

    guess: float = 0.05
    """Spread over sequences of what models without a sequence guess of it (mean 0.2)."""
    memory: float = 0.1
    """Spread over sequences of what training adds to it (mean 0.4 half way)."""
    noise: float = 0.05
    inside: bool = False
    """Whether prompts from inside a sequence extract what is memorized."""
    held: int = 1
    """Training sequences that hold the shortest strings."""
    influence: float = 0.0
    level: float = 1.0


@dataclass(frozen=True)
class Planted(Collected):
    """A study that never ran, with the items of its readings."""

    world: World

    def items(self, folder: str, *, key: str, step: int) -> Items:
        return items(self.world, self.by_folder[folder], key, step)

    @cached_property
    def by_folder(self) -> dict[str, Labels]:
        return {row["folder"]: row for row in self.runs.iter_rows(named=True)}


USUAL = World()


def halves(labels: Labels) -> tuple[Any, Any]:
    n = labels["out_of"]
    sequence = np.random.default_rng(1).permutation(9 * n)[:n]
    return sequence, np.random.default_rng([2, labels["seed"]]).permutation(n) < n // 2


def items(world: World, labels: Labels, key: str, step: int) -> Items:
    sequence, member = halves(labels)
    n, drawn = len(sequence), np.random.default_rng([3, labels["seed"], step])
    truth = np.random.default_rng(4)
    guess, memory = truth.normal(0.2, world.guess, n), truth.normal(0.4, world.memory, n)
    share = step / labels["steps"]
    if key == "half":
        return {"train/sequence": sequence[member], "train/hits": np.ones(n // 2)}
    if key.startswith("occurrences"):
        shortest = key.endswith(("-4", "-2"))
        counts = np.where(member[:, None], world.held if shortest else 1, 0)
        return {"common/in_sequences": np.repeat(counts, len({*PROMPTS, *STARTS}), axis=1)}
    if key == "held-out":
        hits = drawn.normal(0.2, 0.01, 128) + world.influence * member[5] * (np.arange(128) == 7)
        return {
            "test/sequence": np.arange(128),
            "test/hits": hits * TOKENS,
            "test/n_scored": np.full(128, TOKENS),
        }
    grown = world.level * np.minimum(share / 0.5, 1.6)
    memorized = guess + member * memory * grown + drawn.normal(0, world.noise, n)
    hits = np.clip(np.round(memorized * TOKENS), 0, TOKENS).astype(np.int64)
    whole = np.where(member & (share > 0.8), SUFFIX, np.round(4 * memorized)).astype(np.int64)
    found: Items = {
        "common/sequence": sequence,
        "common/hits": hits,
        "common/n_scored": np.full(n, TOKENS),
        "common/context": np.repeat(whole[:, None], len(STARTS), axis=1),
    }
    for k in PROMPTS:
        found[f"common/head_{k}"] = whole
        inside = whole if world.inside else np.zeros_like(whole)
        found[f"common/inside_{k}"] = np.repeat(inside[:, None], len(STARTS), axis=1)
    return found


def made(
    world: World = USUAL, *, scale: str = "laptop", there: Callable[[Labels], bool] = lambda _: True,
    lost: tuple[str, int] | None = None,
) -> Planted:  # fmt: skip
    def value(labels, probe, on, step):
        return None if (probe, labels["seed"]) == lost and step == labels["steps"] else 0.5

    given = planted(STUDY, scale=scale, metric="any", value=value, there=there)
    table = given.measurements
    if not table.is_empty():
        strings = json.dumps({"suffix": SUFFIX, "starts": STARTS})
        counted = [json.dumps({"suffix": n, "starts": sorted({*PROMPTS, *STARTS})}) for n in (4, 8, 16)]
        detail: Any = pl.when(pl.col("probe") == "extraction").then(pl.lit(strings))
        for n, text in zip((4, 8, 16), counted, strict=True):
            detail = detail.when(pl.col("probe") == f"occurrences-{n}").then(pl.lit(text))
        table = table.with_columns(detail=detail.otherwise(None))
    return Planted(
        given.study, given.scale, given.labels, given.runs, table, given.absent, given.manifest, world
    )


def named(found: Analysis) -> dict[str, Claim]:
    return {claim.name: claim for claim in found.claims}


@pytest.fixture(scope="module")
def laptop() -> Analysis:
    return STUDY.analyse(made())


def test_planted_memory_decides_the_rank(laptop: Analysis) -> None:
    """What training adds varies twice as much as what is guessed: the truth is 0.1 / (0.1^2 + 0.05^2)^0.5."""
    there = named(laptop)
    assert next(iter(there)) == "ranks-alike"
    assert there["ranks-alike"].verdict == "supported"
    assert effect(there["ranks-alike"]) == pytest.approx(0.87, abs=0.12)
    assert there["ranks-alike"].n == 48
    assert there["memory-share"].verdict == "supported"
    assert effect(there["memory-share"]) == pytest.approx(2 / 3, abs=0.03)


def test_what_is_easy_to_guess_is_not_what_is_memorized() -> None:
    there = named(STUDY.analyse(made(World(guess=0.1, memory=0.01))))
    assert there["ranks-alike"].verdict != "supported"
    assert there["predictable-first"].verdict == "supported"
    assert effect(there["predictable-first"]) == pytest.approx(1, abs=0.1)


def test_noise_that_the_two_share_is_no_agreement() -> None:
    """Every sequence is like every other; only the noise of models tells them apart."""
    table = made(World(guess=0.0, memory=0.0, noise=0.1))
    state = cells(table)[0].nearest(0.6)
    raw = state.agreement("memorized", "counterfactual").raw
    assert raw is not None
    assert abs(raw) < 0.2
    everyone = list(range(48))
    naive = [state.score(name, everyone) for name in ("memorized", "counterfactual")]
    assert np.asarray(np.corrcoef(np.stack(naive)))[0, 1] > 0.5
    assert named(STUDY.analyse(table))["ranks-alike"].verdict == "inconclusive"


@pytest.mark.parametrize(("inside", "verdict"), [(True, "supported"), (False, "contradicted")])
def test_whether_memorized_strings_are_extracted_from_inside(inside: bool, verdict: str) -> None:
    found = STUDY.analyse(made(World(inside=inside)))
    claim = named(found)["memorized-is-extractable"]
    assert claim.verdict == verdict
    assert effect(claim) == float(inside)
    assert claim.estimate is not None
    assert claim.estimate.half_width
    assert any("extracted by a prompt from inside" in warning for warning in found.warnings) is not inside
    assert named(found)["unseen-not-extracted"].verdict == "supported"


def test_counts_that_are_all_one_are_said_to_say_nothing(laptop: Analysis) -> None:
    assert any("k-eidetic memorization is k-extractability here" in warning for warning in laptop.warnings)
    found = STUDY.analyse(made(World(held=3)))
    assert not any("k-eidetic" in warning for warning in found.warnings)
    (table,) = (table for table in found.tables if table.name == "definitions-eidetic")
    assert {(row[1], row[2]) for row in table.rows} == {(4, "3 or more"), (8, "1"), (16, "1")}
    assert all(str(row[3]).startswith("1.000 of") for row in table.rows)


def test_a_planted_influence_leads_the_table(laptop: Analysis) -> None:
    def led(found: Analysis) -> tuple[Any, ...]:
        (table,) = (table for table in found.tables if table.name == "definitions-influence")
        return tuple(table.rows[0])

    sequence, _ = halves({"out_of": 128, "seed": 0})
    row = led(STUDY.analyse(made(World(influence=0.1))))
    assert row[1:3] == (int(sequence[5]), 7)
    assert row[-1] == "yes"
    assert float(row[3]) == pytest.approx(0.1, abs=0.02)
    assert led(laptop)[-1] == "no"


def test_states_far_from_half_way_decide_nothing() -> None:
    there = named(STUDY.analyse(made(World(level=0.1))))
    for name in ("ranks-alike", "extraction-ranks-alike", "memory-share"):
        assert there[name].verdict == "inconclusive"
        assert "the nearest state has M(f) = 0.2" in there[name].note


PARTIAL: dict[str, Callable[[Labels], bool]] = {
    "nothing": lambda labels: False,
    "one model": lambda labels: labels["seed"] == 0,
    "two models": lambda labels: labels["seed"] < 2,
    "three models": lambda labels: labels["seed"] < 3,
    "every sixteenth": lambda labels: labels["seed"] % 16 == 0,
    "other cells only": lambda labels: labels["size"] == "400k" and labels["seed"] < 6,
}


@pytest.mark.parametrize("name", PARTIAL)
def test_a_partial_study_is_analysed(name: str) -> None:
    found = STUDY.analyse(made(scale="overnight", there=PARTIAL[name]))
    assert bool(found.claims) is (name not in ("nothing", "one model", "other cells only"))
    assert bool(found.figures) is (name not in ("nothing", "one model"))
    if not found.figures:
        assert found.warnings
    assert not any(claim.verdict == "illustrated" for claim in found.claims)


@pytest.mark.parametrize("probe", ["extraction", "held-out", "half"])
def test_a_model_without_a_reading_is_left_out(probe: str) -> None:
    there = named(STUDY.analyse(made(lost=(probe, 3))))
    assert {claim.n for claim in there.values()} == {47}


def test_everything_planned_is_there(laptop: Analysis) -> None:
    """At most eight primary claims, each with what it can detect; figures that can be drawn and read."""
    primary = {claim.name for claim in laptop.claims if claim.primary}
    assert len(primary) <= MAX_PRIMARY
    for scale in SCALES:
        assert set(STUDY.detectable(scale)) == primary
        assert STUDY.deviations(scale)
    drawn(laptop)
    matrix = laptop.tables[0].rows
    assert len(matrix) == len(SCORES)
    assert matrix[0][2] != "none"


def drawn(found: Analysis) -> None:
    assert [figure.name for figure in found.figures] == [
        "definitions-shares", "definitions-agreement", "definitions-scatter", "definitions-counterfactual",
    ]  # fmt: skip
    assert [table.name for table in found.tables] == [
        "definitions-matrix", "definitions-eidetic", "definitions-influence",
    ]  # fmt: skip
    assert all(len(figure.series_values()) <= 12 for figure in charts(found))


@pytest.mark.slow
def test_all_cells_are_drawn() -> None:
    drawn(STUDY.analyse(made(scale="overnight")))


@pytest.mark.parametrize("scale", SCALES)
def test_plan(scale: str) -> None:
    """Distinct runs, halves of one common set, windows that fit into a sequence."""
    runs = STUDY.runs(scale)
    assert len({canonical_json(run.spec) for run in runs}) == len(runs)
    assert {canonical_json(run.spec.corpus) for run in runs} == {canonical_json(runs[0].spec.corpus)}
    for run in runs:
        treatment = run.spec.treatment
        assert isinstance(treatment, Passes)
        assert treatment.out_of == 2 * treatment.n_sequences
        assert treatment.common_seed == 0
        assert said(run)["non_embedding"] > 0
    for probe in runs[0].probes:
        starts, suffix = getattr(probe, "starts", (0,)), getattr(probe, "suffix", 0)
        assert starts[-1] + suffix <= runs[0].spec.corpus.length
    by_cell = {(said(run)["size"], said(run)["position"]): 0 for run in runs}
    for run in runs:
        by_cell[said(run)["size"], said(run)["position"]] += 1
    assert scale == "tiny" or min(by_cell.values()) >= 16


@pytest.mark.slow
def test_tiny_runs_from_end_to_end(tmp_path: Path) -> None:
    there, report, prepared = trained("definitions", root=tmp_path)
    assert len(report.figures) == 4
    assert len(report.tables) == 3
    assert len(report.findings) == 7
    (cell,) = cells(there)
    assert cell.models == 6
    for seed, member in enumerate(cell.states[-1].member):
        spec = next(job.spec for job in prepared.jobs.values() if job.spec.seed == seed)
        sets = prepared.corpora.sets(spec)
        assert set(cell.sequence[member].tolist()) == set(sets["train"].indices.tolist())
        assert cell.sequence.tolist() == sets["common"].indices.tolist()
    last = cell.states[-1]
    assert last.own(last.memorized).mean() > last.unseen(last.memorized).mean()
    counts = cell.counts[4][8]
    assert (counts[last.member & np.isfinite(counts)] >= 1).all()
