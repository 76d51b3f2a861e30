"""Planted orders of the classes come back; frequency and predictability are told from memory."""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from repetita.corpus import taggers, tagging
from repetita.corpus.parts_of_speech import CLASSES, PAPER_CLASSES
from repetita.fit.claim import MAX_PRIMARY, Claim
from repetita.measure.parts_of_speech import COUNTED, EDGES
from repetita.studies import _pos
from repetita.studies._pos_claims import HEADLINE
from repetita.studies.parts_of_speech import SCALES, STUDY
from repetita.study.collect import Collected, collect
from repetita.study.execute import run_study
from repetita.study.plan import Analysis
from repetita.study.prepare import portion
from tests.studies.planted import effect, everything, noise, planted

PRIMARY = (HEADLINE, "names-first-raw", "names-first-frequency", "class-before-word")
N = 20_000
EVEN = (0.25, 0.25, 0.25, 0.25)
"""Shares of the words of a class that occur 1, 2, 4 and 8 times."""
BINS = tuple(EDGES.index(n) for n in (1, 2, 4, 8))

Times = Mapping[str, float]
SLOW: Times = {name: 16.0 if name in _pos.LATER else 10.0 for name in PAPER_CLASSES}
EQUAL: Times = dict.fromkeys(PAPER_CLASSES, 12.0)


def grown(passes: float, at: float) -> float:
    return 0.0 if passes == 0 else 1 / (1 + (at / passes) ** 3)


class World:
    """What is true of the classes: when each is memorized, what is predictable unseen, how frequent it is."""

    def __init__(
        self,
        times: Times,
        *,
        base: Mapping[str, float] | None = None,
        frequencies: Mapping[str, tuple[float, ...]] | None = None,
        speed_by_bin: tuple[float, ...] = (1.0, 1.0, 1.0, 1.0),
        reached: Mapping[str, float] | None = None,
        sd: float = 0.03,
        words: Mapping[str, float] | None = None,
    ) -> None:
        """`words`: of the predictions that are wrong, the share that is a whole word, by class."""
        self.words = words or {}
        self.times, self.base = times, base or dict.fromkeys(PAPER_CLASSES, 0.1)
        self.frequencies = frequencies or dict.fromkeys(PAPER_CLASSES, EVEN)
        self.speed_by_bin, self.reached, self.sd = speed_by_bin, reached or {}, sd

    def detail(self, labels: Mapping[str, Any], on: str, passes: float) -> str:
        counts = np.zeros((len(CLASSES), len(EDGES), len(COUNTED)))
        confusion = np.zeros((len(CLASSES), len(CLASSES)))
        total = np.zeros(len(CLASSES))
        for name in PAPER_CLASSES:
            number = CLASSES.index(name)
            own = math.exp(noise(labels["seed"], name, labels["size"], sd=self.sd))
            for place, share, speed in zip(BINS, self.frequencies[name], self.speed_by_bin, strict=True):
                at = self.times[name] * own / speed
                memory, class_known = grown(passes, at), grown(passes, 0.7 * at)
                if on == "test":
                    memory = class_known = 0.0
                top = self.reached.get(name, 1.0)
                n, base = N * share, self.base[name]
                exact = base + (1 - base) * memory * top
                right = exact + (1 - exact) * (0.2 + 0.7 * class_known * top)
                words = right + (1 - right) * self.words.get(name, 1.0)
                counts[number, place] = [n, n * words, n * right, n * exact]
            confusion[number, number] = counts[number, :, 2].sum()
            other = CLASSES.index("noun" if name != "noun" else "verb")
            confusion[number, other] += counts[number, :, 1].sum() - counts[number, :, 2].sum()
            total[number] = N
        return json.dumps({
            "tagger": "planted 1", "agreement": None, "counts": counts.tolist(),
            "confusion": confusion.tolist(), "total": total.tolist(),
        })  # fmt: skip


def made(
    world: World, *, scale: str = "laptop", there: Callable[[Mapping[str, Any]], bool] = everything
) -> Collected:
    given = planted(STUDY, scale=scale, metric="parts_of_speech", value=lambda *_: 0.5, there=there)
    rows = given.measurements.to_dicts()
    for row in rows:
        passes = row["step"] * row["batch_size"] / row["n_sequences"]
        row["detail"] = world.detail(row, row["on"], passes)
    return replace(given, measurements=pl.DataFrame(rows, infer_schema_length=None))


def analysed(world: World, **more: Any) -> Analysis:
    return STUDY.analyse(made(world, **more))


def by_name(analysis: Analysis) -> dict[str, Claim]:
    return {claim.name: claim for claim in analysis.claims}


def test_names_first_is_found() -> None:
    analysis = analysed(World(SLOW))
    found = by_name(analysis)
    assert [claim.name for claim in analysis.claims if claim.primary] == list(PRIMARY)
    assert next(iter(found)) == HEADLINE
    assert {found[name].verdict for name in PRIMARY} == {"supported"}
    assert effect(found[HEADLINE]) == pytest.approx(math.log(1.6), abs=0.08)
    assert effect(found["names-first-frequency"]) == pytest.approx(math.log(1.6), abs=0.08)
    assert effect(found["class-before-word"]) > 0.1
    assert sum(claim.primary for claim in analysis.claims) <= MAX_PRIMARY
    assert {claim.verdict for name, claim in found.items() if name not in PRIMARY} == {"illustrated"}
    assert [figure.name for figure in analysis.figures] == [
        "pos-memorized", "pos-recall", "pos-precision", "pos-half-times",
    ]  # fmt: skip
    assert [table.name for table in analysis.tables] == ["pos-speed", "pos-classes"]


def test_the_other_way_round_is_contradicted() -> None:
    turned = {name: 10.0 if name in _pos.LATER else 16.0 for name in PAPER_CLASSES}
    found = by_name(analysed(World(turned)))
    assert found[HEADLINE].verdict == found["names-first-raw"].verdict == "contradicted"


def test_equal_classes_are_not_ordered() -> None:
    found = by_name(analysed(World(EQUAL)))
    assert found[HEADLINE].verdict == "inconclusive"
    assert abs(effect(found[HEADLINE])) < 0.06


def test_what_is_predictable_unseen_is_not_memory() -> None:
    """Names that are easier on any text: the paper's curves lie higher, the excess is not earlier."""
    easy = {name: 0.05 if name in _pos.LATER else 0.4 for name in PAPER_CLASSES}
    found = by_name(analysed(World(EQUAL, base=easy)))
    assert found["names-first-raw"].verdict == "supported"
    assert found[HEADLINE].verdict == "inconclusive"
    assert abs(effect(found[HEADLINE])) < 0.06


def test_predictions_that_are_no_word_count_as_misses_beside() -> None:
    """Where a model that errs on names says no word at all, the rate over words alone is 1 from the start."""
    world = World(EQUAL, base=dict.fromkeys(PAPER_CLASSES, 0.0), words=dict.fromkeys(_pos.FIRST, 0.0), sd=0.0)
    runs = _pos.runs(made(world).measurements)
    for run in runs:
        plain, paper = (
            _pos.gap({name: run.height(name, control=control) for name in PAPER_CLASSES})
            for control in ("none", "positions")
        )
        assert plain < -0.03 and paper == pytest.approx(0, abs=1e-9)
    found = by_name(STUDY.analyse(made(world)))
    assert "over all positions" in found["names-first-raw"].note
    assert "over all positions" in by_name(analysed(World(SLOW)))[HEADLINE].note


def test_a_run_that_ends_too_soon_is_said() -> None:
    assert not any("still grows" in warning for warning in analysed(World(SLOW)).warnings)
    short = analysed(World(SLOW, reached={"verb": 0.7}))
    assert any("verb (0." in warning and "still grows" in warning for warning in short.warnings)


def test_frequency_is_told_from_class() -> None:
    """Frequent words are memorized early whatever their class, and names are more frequent here."""
    often, seldom = (0.1, 0.1, 0.2, 0.6), (0.6, 0.2, 0.1, 0.1)
    world = World(
        EQUAL,
        frequencies={name: seldom if name in _pos.LATER else often for name in PAPER_CLASSES},
        speed_by_bin=(0.5, 1.0, 2.0, 3.0),
    )
    found = by_name(analysed(world))
    assert found[HEADLINE].verdict == "supported" and effect(found[HEADLINE]) > 0.4
    assert abs(effect(found["names-first-frequency"])) < 0.06


def test_strata_that_a_class_lacks_do_not_count() -> None:
    rare = dict.fromkeys(PAPER_CLASSES, EVEN) | {"numeral": (0.5, 0.5, 0.0, 0.0)}
    (run, *_) = _pos.runs(made(World(SLOW, frequencies=rare)).measurements)
    weights = run.weights()
    assert weights is not None
    assert weights[:2].sum() == pytest.approx(1) and not weights[2:].any()
    assert run.covered() == pytest.approx((4 * 0.5 + 1.0) / 5)


def test_a_class_that_is_never_memorized_leaves_the_claim_open() -> None:
    found = by_name(analysed(World(SLOW, reached={"numeral": 0.0})))
    assert found[HEADLINE].verdict == "inconclusive" and found[HEADLINE].estimate is None
    assert "ends without excess" in found[HEADLINE].note
    assert found["names-first-raw"].verdict in ("supported", "contradicted", "inconclusive")


def test_runs_that_are_missing_or_few() -> None:
    one = by_name(analysed(World(SLOW), there=lambda labels: labels["seed"] == 0))
    assert {one[name].verdict for name in PRIMARY} == {"illustrated"}
    others = by_name(analysed(World(SLOW), there=lambda labels: labels["size"] != "220k"))
    assert {others[name].verdict for name in PRIMARY} == {"inconclusive"}
    assert "no run of this size is finished" in others[HEADLINE].note
    given = made(World(SLOW))
    unfinished = replace(given, measurements=given.measurements.filter(pl.col("step") < 200))
    assert STUDY.analyse(unfinished).claims == ()
    assert STUDY.analyse(replace(given, measurements=given.measurements.clear())).warnings


def test_one_seed_is_drawn_as_points_and_warned_of_when_taggers_differ() -> None:
    given = made(World(SLOW), there=lambda labels: labels["seed"] == 0)
    rows = given.measurements.to_dicts()
    for row in rows:
        if row["size"] == "100k":
            row["detail"] = row["detail"].replace("planted 1", "other 2")
    analysis = STUDY.analyse(replace(given, measurements=pl.DataFrame(rows, infer_schema_length=None)))
    assert any("different taggers (other 2, planted 1)" in warning for warning in analysis.warnings)
    memorized = analysis.figures[0]
    assert all(row["low"] == row["value"] == row["high"] for row in memorized.rows)


def test_rates_are_those_of_the_counts() -> None:
    (run, *_) = _pos.runs(made(World(EQUAL, sd=0.0)).measurements)
    assert run.passes[0] == 0
    last = float(run.passes[-1])
    expected = 0.1 + 0.9 * grown(last, 12.0)
    assert run.rate("verb", "memorized", on="train")[-1] == pytest.approx(expected)
    assert run.rate("verb", "memorized", on="train", control="frequency")[-1] == pytest.approx(expected)
    assert run.excess("verb", "memorized")[-1] == pytest.approx(0.9 * grown(last, 12.0))
    right = run.rate("noun", "recall", on="test")[-1]
    wrong = sum(
        1 - float(run.rate(name, "recall", on="test")[-1]) for name in PAPER_CLASSES if name != "noun"
    )
    assert run.precision("noun", on="test")[-1] == pytest.approx(right / (right + wrong))


@pytest.mark.parametrize("scale", SCALES)
def test_every_scale_plans_and_says_what_differs(scale: str) -> None:
    planned = STUDY.runs(scale)
    assert {"size", "non_embedding", "n_sequences"} <= set(planned[0].labels)
    assert all(run.probes[0].on == ("train", "test") for run in planned)
    assert all(run.spec.corpus.tokenizer.vocab_size >= 8192 for run in planned) or scale == "tiny"
    assert {row.parameter for row in STUDY.deviations(scale)} >= {"tagger", "positions", "held-out text"}
    assert set(STUDY.detectable(scale)) == set(PRIMARY)


@pytest.mark.slow
@pytest.mark.ci
def test_the_tiny_scale_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(taggers.CHOICE, taggers.LEXICON)
    monkeypatch.setattr(tagging, "installed", list)
    assert not run_study("parts_of_speech", scale="tiny", root=tmp_path, processes=1).failed
    collected = collect(portion("parts_of_speech", scale="tiny"), root=tmp_path)
    assert not collected.absent
    analysis = STUDY.analyse(collected)
    assert {claim.name for claim in analysis.claims} > set(PRIMARY)
    assert {figure.name for figure in analysis.figures} >= {"pos-memorized", "pos-recall", "pos-precision"}
    (classes,) = (table for table in analysis.tables if table.name == "pos-classes")
    assert "textblob" in classes.caption and {"noun", "verb"} <= {row[0] for row in classes.rows}
    assert set(collected.measurements["metric"]) >= {"memorized", "recall_noun", "parts_of_speech"}
