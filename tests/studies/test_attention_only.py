"""Planted humps and token losses of attention-only models come back as claims, coloured text and tables."""

import json
import math
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from repetita.corpus.synthetic import SyntheticSpec
from repetita.fit.claim import MAX_PRIMARY, Claim
from repetita.measure.names import OTHER
from repetita.measure.passages import KINDS
from repetita.report.coloured import ColouredText
from repetita.report.page import Report
from repetita.spec import canonical_json
from repetita.studies import _bursts
from repetita.studies._attention_only_runs import in_bursts
from repetita.studies.attention_only import SCALES, STUDY
from repetita.study.collect import Collected
from repetita.study.plan import Analysis
from tests.studies.planted import both, effect, noise, planted, said
from tests.studies.trained import trained

Labels = Mapping[str, Any]
TOKENS = (
    " Old",
    " Mr",
    ".",
    " T",
    "olli",
    "grew",
    " met",
    " Mrs",
    ".",
    " T",
    "olli",
    "grew",
    ",",
    " un",
    "T",
    "olli",
)
TOLD = (OTHER, OTHER, OTHER, OTHER, 0, 0, OTHER, OTHER, OTHER, OTHER, 1, 1, OTHER, OTHER, OTHER, 3)
PEAK, HEIGHT, PLAIN, NAMES, FUZZY = 256.0, 0.4, 0.2, 2.0, 0.8


def losses(labels: Labels, probe: str, on: str, step: int) -> float | None:
    level = 4.0 + noise("seed", labels["seed"], labels["corpus"], sd=0.02)
    if labels["arm"] == "repeated":
        if probe == "subset":
            return 0.1
        level += HEIGHT * math.exp(-((math.log(labels["passes"] / PEAK) / 1.2) ** 2))
    return level + noise(sorted(map(str, labels.items())), sd=0.003)


def read(labels: Labels, *, names: float = NAMES, plain: float = PLAIN, later: float = 0.5) -> dict[str, Any]:
    """The detail of a passage: names lose `names` nats (embedded ones FUZZY), all else `plain`.

    The control loses `later` on names that stood before, 3 nats on all else.
    """
    found = []
    for at, kind in enumerate(TOLD):
        loss = later if kind > 0 else 3.0
        if labels["arm"] == "repeated":
            loss += {OTHER: plain, 0: plain, 1: names, 3: FUZZY}[kind]
        found.append(round(loss + noise(at, sorted(map(str, labels.items())), sd=0.05), 5))
    return {"tokens": list(TOKENS), "losses": found, "kinds": list(TOLD), "shown": len(TOLD), "of": len(TOLD)}


def table(
    scale: str, *, there: Callable[[Labels], bool] = lambda _: True, value: Any = losses, **given: float
) -> Collected:
    measured = planted(STUDY, scale=scale, value=value, there=there, probes=("test", "subset"))
    shown = planted(
        STUDY, scale=scale, metric="passage_loss", there=there, probes=("names",),
        value=lambda labels, *_: 2.0,
    )  # fmt: skip
    if shown.measurements.is_empty():
        return measured
    details = [json.dumps(read(row, **given)) for row in shown.measurements.iter_rows(named=True)]
    named = shown.measurements.with_columns(pl.lit("long").alias("on"), pl.Series("detail", details))
    joined = both(measured, shown)
    rows = pl.concat([measured.measurements, named], how="vertical_relaxed")
    return Collected(joined.study, scale, joined.labels, joined.runs, rows, joined.absent, joined.manifest)


def named(found: Analysis) -> dict[str, Claim]:
    return {claim.name: claim for claim in found.claims}


@pytest.fixture(scope="module")
def overnight() -> Analysis:
    return STUDY.analyse(table("overnight"))


def test_the_headline_is_the_hump_of_one_layer(overnight: Analysis) -> None:
    first = overnight.claims[0]
    assert first.name == "hump-1-layer"
    assert first.verdict == "supported"
    assert first.source.endswith("Fig. 19")
    assert 0.2 < effect(first) < HEIGHT
    assert named(overnight)["hump-2-layers"].verdict == "supported"
    assert len([claim for claim in overnight.claims if claim.primary]) <= MAX_PRIMARY


def test_names_lose_what_was_planted_and_more_than_the_rest(overnight: Analysis) -> None:
    claims = named(overnight)
    # Two exact tokens and an embedded one.
    expected = (2 * NAMES + FUZZY) / 3
    assert claims["names-1-layer"].verdict == "supported"
    assert effect(claims["names-1-layer"]) == pytest.approx(expected, abs=0.08)
    assert effect(claims["names-beyond-2-layers"]) == pytest.approx(expected - PLAIN, abs=0.05)
    assert effect(claims["fuzzy-2-layers-synthetic"]) == pytest.approx(FUZZY, abs=0.08)
    assert "3 of 16 tokens" in claims["names-1-layer"].note
    assert {"names-2-layers-sotu", "hump-2-layers-synthetic"} <= set(claims)


def test_names_hit_no_harder_are_not_called_so() -> None:
    claims = named(STUDY.analyse(table("overnight", names=PLAIN)))
    assert (
        claims["names-beyond-1-layer"].verdict != "supported" or effect(claims["names-beyond-1-layer"]) < 0.3
    )
    better = named(STUDY.analyse(table("overnight", names=-0.3, plain=0.4)))
    assert better["names-beyond-1-layer"].verdict == "contradicted"


def test_a_control_that_remembers_no_name_has_none_to_lose() -> None:
    found = named(STUDY.analyse(table("overnight", later=3.3)))
    for name in ("names-1-layer", "names-beyond-2-layers", "fuzzy-1-layer-sotu"):
        assert found[name].verdict == "inconclusive" and found[name].p is None
        assert "no easier for the control in seed 0" in found[name].note
    assert found["hump-1-layer"].verdict == "supported"


def test_a_note_says_at_which_passes_and_how_they_were_chosen(overnight: Analysis) -> None:
    note = named(overnight)["names-1-layer"].note
    assert note.endswith("at 256 passes (each seed's worst by the test loss of the others)")
    one = named(STUDY.analyse(table("laptop")))["names-2-layers"].note
    assert one.endswith("at 400 passes (the only ones that were run)")


def test_the_coloured_text_holds_the_differences(overnight: Analysis) -> None:
    texts = {one.name: one for one in overnight.figures if isinstance(one, ColouredText)}
    shown = texts["attention-only-tokens-sotu-long"]
    first = shown.excerpts[0]
    assert first.heading.startswith("1 layer, f = 0.1")
    assert first.tokens == TOKENS
    assert first.marks == (10, 11, 15)
    assert first.values[10] == pytest.approx(NAMES, abs=0.2)
    assert first.values[0] == pytest.approx(PLAIN, abs=0.2)


def test_tables_say_how_sure_models_are(overnight: Analysis) -> None:
    kinds, tokens = overnight.tables
    row = next(
        list(row) for row in kinds.rows if row[3] == "exact" and str(row[2]).startswith("1 layer, f = 0.5")
    )
    control, treated, odds = (float(value) for value in row[6:9] if not isinstance(value, str | None))
    assert control == pytest.approx(math.exp(-0.5), abs=0.03)
    assert treated == pytest.approx(math.exp(-0.5 - NAMES), abs=0.02)
    p, q = math.exp(-0.5), math.exp(-0.5 - NAMES)
    assert odds == pytest.approx(q / (1 - q) / (p / (1 - p)), rel=0.15)
    assert {row[3] for row in kinds.rows} <= set(KINDS)
    assert any("[olli]" in str(row[2]) for row in tokens.rows)
    assert all(len(row) == len(one.columns) for one in (kinds, tokens) for row in one.rows)


def test_a_peak_at_the_edge_decides_nothing() -> None:
    def climbing(labels: Labels, probe: str, on: str, step: int) -> float:
        return 4.0 + (math.log(labels["passes"]) * 0.05 if labels["arm"] == "repeated" else 0.0)

    claims = named(STUDY.analyse(table("laptop", value=climbing)))
    assert claims["hump-1-layer"].verdict == "inconclusive"
    assert claims["hump-1-layer"].primary


PARTIAL = {
    "nothing": lambda labels: False,
    "one seed": lambda labels: labels["seed"] == 0,
    "controls only": lambda labels: labels["arm"] == "control",
    "no control": lambda labels: labels["arm"] != "control",
    "one text": lambda labels: labels["corpus"] == "sotu",
    "the other text": lambda labels: labels["corpus"] == "synthetic",
    "one depth": lambda labels: labels["size"] == "2 layers",
    "every third": lambda labels: int(noise(sorted(map(str, labels.items())), sd=1e6)) % 3 == 0,
}


@pytest.mark.parametrize("scale", ["laptop", "overnight"])
@pytest.mark.parametrize("name", PARTIAL)
def test_a_partial_study_is_analysed(name: str, scale: str) -> None:
    found = STUDY.analyse(table(scale, there=PARTIAL[name]))
    if name == "nothing":
        assert found.warnings == ("no run is finished yet",)
        return
    primary = [claim.name for claim in found.claims if claim.primary]
    assert primary[0] == "hump-1-layer"
    assert set(primary) == set(STUDY.detectable(scale))


@pytest.mark.parametrize("scale", SCALES)
def test_every_scale_is_what_it_says(scale: str) -> None:
    runs = STUDY.runs(scale)
    assert len({(canonical_json(run.spec), *sorted(map(str, said(run).items()))) for run in runs}) == len(
        runs
    )
    assert all(run.spec.model.d_mlp == 0 for run in runs)
    assert {run.spec.model.n_layer for run in runs} == {1, 2}
    primary = STUDY.detectable(scale)
    assert next(iter(primary)) == "hump-1-layer"
    assert len(primary) <= MAX_PRIMARY
    assert all(line.parameter for line in STUDY.deviations(scale))


def test_stretches_of_a_burst_text_return_at_lags_of_the_corpus() -> None:
    spec = _bursts.BURSTS.synthetic
    assert isinstance(spec, SyntheticSpec)
    shown = in_bursts(spec, n_words=_bursts.BURSTS.length)
    words = shown.text.split()
    assert len(words) <= _bursts.BURSTS.length
    for name in shown.names or ():
        assert len(name.split()) == 4
        places = [i for i in range(len(words)) if " ".join(words[i : i + 4]) == name]
        assert len(places) == 3
        assert {b - a for a, b in pairwise(places)} <= set(spec.lags)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    root: Path = tmp_path_factory.mktemp("attention-only")
    return trained("attention_only", root=root, report_after=5).report


@pytest.mark.slow
def test_tiny_really_runs(report: Report) -> None:
    names = [figure.name for figure in report.figures]
    assert names == [
        "attention-only-loss-synthetic",
        "attention-only-tokens-synthetic-stretches",
        "attention-only-heads-synthetic",
        "attention-only-head-tokens-synthetic",
    ]
    assert {claim.name for claim in report.findings if claim.primary} == set(STUDY.detectable("tiny"))
    assert {"highest-head-1-layer-synthetic", "highest-head-2-layers-synthetic"} <= {
        claim.name for claim in report.findings
    }
    assert [table.name for table in report.tables] == ["attention-only-names", "attention-only-name-tokens"]
    text = next(one for one in report.figures if one.name == "attention-only-head-tokens-synthetic")
    assert isinstance(text, ColouredText)
    assert len(text.excerpts) == 4
