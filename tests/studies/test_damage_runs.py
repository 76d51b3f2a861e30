"""Runs of double descent: distinct, exact in shares and passes, each with its controls; tiny is trained."""

from fractions import Fraction
from pathlib import Path

import pytest

from repetita.corpus.treatment import RepeatedSubset
from repetita.errors import UserError
from repetita.spec import canonical_json
from repetita.studies._damage_runs import SCALES
from repetita.studies._repeated_scale import GPU_TEXT, TEXT
from repetita.studies.double_descent import STUDY
from repetita.study.collect import collect
from repetita.study.corpora import Corpora
from repetita.study.manifest import write_manifests
from repetita.study.prepare import portion, prepare
from repetita.study.publish import report_of
from tests.studies.planted import said

SOTU_SCALES = ("demo", "laptop", "overnight")


@pytest.mark.parametrize("scale", SCALES)
def test_plan(scale: str) -> None:
    """Distinct runs, E S = f T exactly, and a control and a starved run for every treated one of its seed."""
    planned = STUDY.runs(scale)
    assert len({canonical_json(run.spec) for run in planned}) == len(planned)
    arms: dict[str, set[tuple[object, ...]]] = {"control": set(), "repeated": set(), "starved": set()}
    lines: set[tuple[object, ...]] = set()
    recipes: dict[tuple[object, ...], set[str]] = {}
    for run in planned:
        labels, spec = said(run), run.spec
        key = tuple(labels[name] for name in ("corpus", "size", "curve", "rate_scale", "seed"))
        arms[labels["arm"]].add((*key, labels["fraction"]) if labels["arm"] == "starved" else key)
        if labels["arm"] == "repeated":
            lines.add((*key, labels["fraction"]))
        recipes.setdefault(key, set()).add(
            canonical_json([spec.recipe, spec.steps, spec.batch_size, spec.model])
        )
        if labels["arm"] == "repeated":
            assert isinstance(spec.treatment, RepeatedSubset)
            assert spec.treatment.fraction is not None
            assert spec.treatment.n_sequences is not None
            lane = Fraction(spec.treatment.fraction) * spec.steps * spec.batch_size
            passes = lane / spec.treatment.n_sequences
            assert lane.denominator == 1
            assert labels["passes"] == float(passes)
            assert passes >= 20 or passes.denominator == 1
            if labels["curve"] == "cosine" and (labels["corpus"], labels["rate_scale"]) in (
                ("sotu", 1.0), ("synthetic", 1.0), (GPU_TEXT.source, 1.0),
            ):  # fmt: skip
                arms["repeated"].add((*key, labels["fraction"]))
    assert {key for key in arms["repeated"] if len(key) == 5} <= arms["control"]
    if scale == "paper":  # The paper has none, and each costs what a treated run costs.
        assert {key[:2] for key in arms["starved"]} == {(TEXT.source, "42M"), (TEXT.source, "805M")}
    else:
        assert {key for key in arms["repeated"] if len(key) == 6} <= arms["starved"] <= lines
    assert all(len(found) == 1 for found in recipes.values())


@pytest.mark.parametrize("scale", [*SOTU_SCALES, "gpu", "paper"])
def test_control_ladder_reaches_far_below_the_smallest_treated_size(scale: str) -> None:
    labels = [said(run) for run in STUDY.runs(scale)]
    treated = min(one["non_embedding"] for one in labels if one["arm"] == "repeated")
    smallest = min(one["non_embedding"] for one in labels if one["arm"] == "control")
    assert treated / smallest > (6 if scale == "demo" else 30)


@pytest.mark.slow
def test_tiny_runs_from_end_to_end(tmp_path: Path) -> None:
    from repetita.study.work import bring_to_end

    part = portion("double_descent", scale="tiny")
    with pytest.raises(UserError, match="run it first"):
        collect(part, root=tmp_path)
    prepared = prepare([part], root=tmp_path, corpora=Corpora(tmp_path))
    write_manifests(prepared, root=tmp_path)
    for place, job in enumerate(prepared.needed()):
        if place == 5:
            report_of(part, collected=collect(part, root=tmp_path))
        bring_to_end(job, jobs=prepared.jobs, corpora=prepared.corpora, root=tmp_path)
    there = collect(part, root=tmp_path)
    assert not there.absent
    report = report_of(part, collected=there)
    assert {figure.name for figure in report.figures} >= {"loss-by-passes", "damage-split", "control-law"}
    assert report.findings
