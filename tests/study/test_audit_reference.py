"""The reference ratio is what two models need for the same text, one over the other."""

import math
from pathlib import Path

import polars as pl
import pytest

from repetita.corpus.windows import ReadingRule, Windows
from repetita.errors import SpecError
from repetita.measure.membership import MembershipProbe, reference_readings
from repetita.measure.probe import EvalSet
from repetita.model.pretrained import open_pretrained
from repetita.study.audit import Audit, run_audit
from repetita.study.audit_rows import TEXTS
from repetita.study.audit_texts import distinct, read_texts
from tests.model.strangers import stranger
from tests.model.test_pretrained_tokenizing import masked
from tests.study.audited import GEESE, lines, model_at


def test_ratios_are_those_of_the_membership_probe(tmp_path: Path) -> None:
    models = [model_at(tmp_path / "a"), model_at(tmp_path / "b", "gpt2")]
    file = lines(tmp_path / "geese.jsonl", GEESE)
    texts = distinct(read_texts((str(file),)))
    items = []
    for model in models:
        subject = open_pretrained(model)
        windows = Windows(
            [one.document for one in texts], tokenizing=subject.tokenizing, context=subject.context
        )
        first, *_ = MembershipProbe(on=(TEXTS,)).measure(
            subject, {TEXTS: EvalSet.whole(TEXTS, sequences=windows)}
        )
        items.append(first.items or {})
    (expected,) = reference_readings(items[0], reference=items[1], on="b")
    audit = Audit(
        subjects=(str(models[0]),), texts=(str(file),), probes=("membership",), reference=str(models[1])
    )
    audited = run_audit(audit, root=tmp_path / "out")
    row = audited.by_group.filter(pl.col("metric") == "membership_reference").row(0, named=True)
    assert row["value"] == pytest.approx(expected.value, rel=1e-5)
    assert (row["on"], row["n"], row["unit"], row["instrument"]) == ("b", 6, "texts", "membership")
    assert row["low"] < row["value"] < row["high"]
    by_text = audited.by_text.filter(pl.col("metric") == "membership_reference")
    ratios = {
        one.sha256: ratio for one, ratio in zip(texts, (expected.items or {})["reference"], strict=True)
    }
    assert dict(by_text.select("text", "value").iter_rows()) == pytest.approx(ratios, rel=1e-5)
    # Losses were measured for it, and are not shown where nobody asked for them.
    assert "loss" not in set(audited.by_group["metric"])
    assert audited.reference is not None
    assert audited.reference.measured == 6
    again = run_audit(audit, root=tmp_path / "out")
    assert again.by_group.equals(audited.by_group)
    assert [one.measured for one in (*again.subjects, again.reference) if one is not None] == [0, 0]


def test_a_model_beside_itself_has_the_ratio_1_and_the_rule_is_said(tmp_path: Path) -> None:
    model, file = model_at(tmp_path / "a"), lines(tmp_path / "geese.jsonl", ["g", "Geese fly"])
    audit = Audit(
        subjects=(str(model),), texts=(str(file),), reference=str(model), rule=ReadingRule(bos="never")
    )
    found = run_audit(audit, root=tmp_path).by_text.filter(pl.col("metric") == "membership_reference")
    values = dict(found.select("text_name", "value").iter_rows())
    assert values["g0"] is None, "nothing of one token is scored"
    assert math.isclose(values["g1"], 1.0)
    assert any("the first token of a text is not in it" in one for one in found["note"])


def test_what_does_not_compare_is_refused(tmp_path: Path) -> None:
    model, file = model_at(tmp_path / "a"), lines(tmp_path / "geese.jsonl", ["two geese"])
    folder = tmp_path / "bert"
    stranger("bert").save_pretrained(str(folder))
    masked(folder)
    audit = Audit(subjects=(str(model),), texts=(str(file),), probes=("score",), reference=str(folder))
    with pytest.raises(SpecError, match="reference bert is masked and a subject is causal"):
        run_audit(audit, root=tmp_path / "out")
    for step in (0, 1):
        model_at(tmp_path / "series" / f"checkpoint-{step}")
    with pytest.raises(SpecError, match="reference names 2 models"):
        run_audit(audit.edit(reference=str(tmp_path / "series")), root=tmp_path / "out")
