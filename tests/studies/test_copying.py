"""Copying really runs end to end, and planted losses give the verdicts that they were made for."""

import json
import math
from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from repetita.fit.claim import MAX_PRIMARY, Claim
from repetita.measure.copying import CopyingProbe
from repetita.measure.passages import Passage
from repetita.studies._copying import Multiplier, disproportion
from repetita.studies._copying_claims import NAMES
from repetita.studies._copying_runs import SCALES
from repetita.studies.copying import STUDY
from repetita.study.collect import Collected
from repetita.study.plan import Analysis
from tests.studies.planted import effect, everything, noise, planted, said
from tests.studies.trained import Trained, trained

Labels = Mapping[str, Any]
There = Callable[[Mapping[str, Any]], bool]
LOSS, COPYING = (8.0, 0.08), (6.0, 0.12)
"""Coefficient and exponent of the control's losses over size."""
COPIES = 5


def level(law: tuple[float, float], labels: Labels, *, left: float) -> float:
    """The loss of a model of which this much is left, with noise that a seed's runs share."""
    of_seed = noise("seed", labels["seed"], sd=0.002) + noise(sorted(map(str, labels.items())), sd=0.0005)
    return float(law[0] * (left * labels["non_embedding"]) ** -law[1] + of_seed)


def bump(labels: Labels) -> float:
    """1 at 100 passes, 0 for the control."""
    if labels["arm"] != "repeated":
        return 0.0
    return math.exp(-(math.log(labels["passes"] / 100) ** 2))


def plant(
    *, on_loss: float = 1.15, on_copying: float = 3.0, gain: float = 1.0, kept: float = 0.05,
    context: float = 0.6, scale: str = "gpu", there: There = everything,
) -> Collected:  # fmt: skip
    """At the worst passes models are `on_loss` and `on_copying` times smaller and keep these shares of the
    control's gains from copies and from context."""

    def test(labels: Labels, probe: str, on: str, step: int) -> float:
        if probe == "in_context":
            return -0.5 * (1 - (1 - context) * bump(labels)) + noise(
                sorted(map(str, labels.items())), sd=0.005
            )
        return level(LOSS, labels, left=on_loss ** -bump(labels))

    def copying(labels: Labels, probe: str, on: str, step: int) -> float:
        return level(COPYING, labels, left=on_copying ** -bump(labels))

    def gained(labels: Labels, probe: str, on: str, step: int) -> float:
        own = gain * (1 - (1 - kept) * bump(labels))
        return own + noise("gain", sorted(map(str, labels.items())), sd=0.005)

    parts = [
        planted(STUDY, scale=scale, value=test, there=there, probes=("test",)),
        planted(STUDY, scale=scale, value=test, there=there, probes=("in_context",), metric="in_context"),
    ]
    frames = [part.measurements for part in parts]
    for metric, value in (("copying_loss", copying), ("copy_gain", gained)):
        shown = planted(STUDY, scale=scale, value=value, there=there, probes=("copying",), metric=metric)
        detail = json.dumps({"by_copy": [3.0] + [3.0 - gain] * (COPIES - 1)})
        for passage in ("long", "short"):
            one = shown.measurements.with_columns(
                on=pl.lit(passage), set=pl.lit(passage), detail=pl.lit(detail)
            )
            frames.append(one)
    table = pl.concat(frames, how="vertical_relaxed")
    # The items of a run that never was cannot be opened.
    first = parts[0]
    return Collected(first.study, scale, first.labels, first.runs, table, first.absent, first.manifest)


@pytest.fixture(autouse=True)
def no_items(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = Collected.items

    def items(self: Collected, folder: str, *, key: str, step: int) -> dict[str, Any]:
        return {} if folder.isdecimal() else opened(self, folder, key=key, step=step)

    monkeypatch.setattr(Collected, "items", items)


def named(found: Analysis) -> dict[str, Claim]:
    return {claim.name: claim for claim in found.claims}


def test_a_planted_disproportion_is_found_and_measured() -> None:
    found = STUDY.analyse(plant())
    claims = named(found)
    assert found.claims[0].name == NAMES[0]
    assert (claims[NAMES[0]].verdict, claims[NAMES[0]].n) == ("supported", 3)
    assert effect(claims[NAMES[0]]) == pytest.approx(3 / 1.15, rel=0.1)
    assert "at 103 passes" in claims[NAMES[0]].note
    assert claims[NAMES[1]].verdict == "supported"
    size = SCALES["gpu"]()[0].labels
    assert size["arm"] == "control"
    expected = (
        COPYING[0]
        * said(next(run for run in SCALES["gpu"]() if run.labels["size"] == "5.3M"))["non_embedding"]
        ** -COPYING[1]
        * (3 ** COPYING[1] - 1)
    )
    assert effect(claims[NAMES[1]]) == pytest.approx(expected, rel=0.1)
    assert claims[NAMES[2]].verdict == "supported"
    # One seed at f = 0.5 can only illustrate.
    assert {claims[name].verdict for name in NAMES[3:6]} == {"illustrated"}
    assert effect(claims["copying-flat"]) == pytest.approx(0.05, abs=0.02)
    assert effect(claims["copying-in-context"]) == pytest.approx(0.55, abs=0.05)


def test_no_disproportion_is_not_found() -> None:
    claims = named(STUDY.analyse(plant(on_loss=1.5, on_copying=1.5)))
    assert effect(claims[NAMES[0]]) == pytest.approx(1, abs=0.08)
    assert claims[NAMES[0]].verdict in ("inconclusive", "contradicted")
    claims = named(STUDY.analyse(plant(on_loss=3.0, on_copying=1.2)))
    assert claims[NAMES[0]].verdict == "contradicted"


def test_a_control_that_does_not_copy_has_nothing_to_lose() -> None:
    found = STUDY.analyse(plant(gain=-0.1))
    claims = named(found)
    assert claims[NAMES[2]].verdict == "contradicted"
    assert claims[NAMES[0]].verdict == "inconclusive" and claims[NAMES[0]].p is None
    assert "says nothing of copying" in claims[NAMES[0]].note
    assert claims["copying-flat"].verdict == "inconclusive"
    assert "no gain that repetition could take" in claims["copying-flat"].note
    assert any("nothing copies it here" in warning for warning in found.warnings)


def test_copying_below_the_ladder_is_a_bound_and_test_loss_below_it_is_nothing() -> None:
    claims = named(STUDY.analyse(plant(on_copying=1e4)))
    claim = claims[NAMES[0]]
    assert claim.verdict == "supported"
    assert "copying below the smallest control in 3 seeds" in claim.note
    # 5.3M over 28k by the copying alone, at most.
    assert effect(claim) == pytest.approx(5.3e6 / 28e3 / 1.15, rel=0.25)
    claims = named(STUDY.analyse(plant(on_loss=1e4, on_copying=1e4)))
    assert claims[NAMES[0]].verdict == "inconclusive"
    assert "outside the control ladder" in claims[NAMES[0]].note


def test_bounds_count_on_the_side_that_does_not_favour_the_claim() -> None:
    loss: dict[Hashable, Multiplier] = {
        0: Multiplier(0.9),
        1: Multiplier(0.8),
        2: Multiplier(None, high=0.1),
        3: Multiplier(0.9),
        4: Multiplier(None, low=1.1),
    }
    copying: dict[Hashable, Multiplier] = {
        0: Multiplier(0.3), 1: Multiplier(None, high=0.2), 2: Multiplier(0.3), 3: Multiplier(None, low=2.0),
        4: Multiplier(0.5),
    }  # fmt: skip
    found = disproportion(loss, copying)
    assert found.ratios == {0: pytest.approx(3), 1: pytest.approx(4), 4: pytest.approx(2.2)}
    assert found.bounded == {1} and found.above == {4} and set(found.lost) == {2, 3}
    assert "better than the largest control's in 1 seed" in found.text


def test_an_unfinished_study_says_so_and_does_not_fail() -> None:
    empty = pl.DataFrame()
    nothing = STUDY.analyse(Collected("copying", "gpu", (), empty, empty, (), plant().manifest))
    assert nothing.warnings
    controls = STUDY.analyse(plant(there=lambda labels: labels["arm"] == "control"))
    assert named(controls)[NAMES[0]].verdict == "inconclusive"
    assert {figure.name for figure in controls.figures} == {"copying-control"}
    treated = STUDY.analyse(plant(there=lambda labels: labels["arm"] == "repeated"))
    assert named(treated)[NAMES[0]].verdict == "inconclusive"


def test_every_scale_is_what_it_says() -> None:
    for scale in SCALES:
        runs = STUDY.runs(scale)
        probe = next(one for run in runs for one in run.probes if isinstance(one, CopyingProbe))
        assert {passage.name for passage in probe.passages} == {"long", "short", "random"}
        assert set(STUDY.detectable(scale)) <= set(NAMES)
        assert 1 <= len(STUDY.detectable(scale)) <= MAX_PRIMARY
        assert STUDY.deviations(scale)
    long = next(one for one in probe.passages if one.name == "long")
    assert isinstance(long, Passage) and len(long.text) == 1463


def test_controls_on_natural_text_are_a_check_and_no_part_of_the_claims() -> None:
    found = STUDY.analyse(plant(scale="laptop", gain=0.8))
    claims = named(found)
    assert [claim for claim in claims if claims[claim].primary] == [*NAMES[:6]]
    assert claims[NAMES[0]].n == 3
    natural = [claim for name, claim in claims.items() if name.startswith("copying-natural")]
    assert {claim.n for claim in natural} == {3}
    assert all(not claim.primary and claim.statement.startswith("sotu: N = 220k") for claim in natural)
    assert "copying-natural" in {figure.name for figure in found.figures}
    sizes = {
        row["size"] for figure in found.figures if figure.name == "copying-control" for row in figure.rows
    }
    assert sizes == {"0.6k", "2.2k", "8.6k", "19k", "34k"}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return trained("copying", root=tmp_path_factory.mktemp("copying"), report_after=7)


@pytest.mark.slow
def test_tiny_runs_end_to_end(tiny: Trained) -> None:
    claims = {claim.name: claim for claim in tiny.report.findings}
    assert tuple(claims)[: len(NAMES)] == NAMES
    assert sum(claim.primary for claim in claims.values()) == len(NAMES)
    assert {figure.name for figure in tiny.report.figures} == {
        "copying-multiplier-by-fraction", "copying-by-index", "copying-control",
        *(f"copying-by-{what}-{name}" for what in ("copy", "passes") for name in ("long", "short", "random")),
    }  # fmt: skip
    assert {table.name for table in tiny.report.tables} == {
        "copying-cells-long", "copying-cells-short", "copying-cells-random",
    }  # fmt: skip
    shown = tiny.collected.where(probe="copying", metric="copying_loss")
    copies = {on: json.loads(detail)["copies"] for on, detail in shown.select("on", "detail").iter_rows()}
    assert copies["long"] >= 3 and copies["short"] > copies["long"]
    index = next(figure for figure in tiny.report.figures if figure.name == "copying-by-index")
    assert {row["arm"] for row in index.rows} == {"control", "2 passes", "8 passes", "32 passes"}


def test_the_passage_of_a_user_is_shown_beside(tmp_path: Path) -> None:
    from repetita.study.prepare import portion
    from repetita.study.text import text_of

    (tmp_path / "mine.txt").write_text("A tale of Quixotl, and Quixotl's.")
    part = portion("copying", scale="tiny", text=text_of(None, passage=tmp_path / "mine.txt"))
    own, more = (one for one in part.planned[0].probes if isinstance(one, CopyingProbe))
    assert [passage.name for passage in more.passages] == ["mine"]
    assert own == next(one for one in STUDY.runs("tiny")[0].probes if isinstance(one, CopyingProbe))
    assert part.folder == "copying-tiny-text-mine"
