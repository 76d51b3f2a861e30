"""An exposure in an audit has its interval, and says where it is a bound or goes beyond the sample."""

from pathlib import Path

from typer.testing import CliRunner

from repetita.cli.app import app
from repetita.corpus.canaries import CanarySpec, make_canaries
from repetita.fit.exposure import exposure_estimates
from repetita.measure.canaries import CanaryProbe
from repetita.measure.memorization import ScoreProbe
from repetita.measure.planted import PlantedSet
from repetita.measure.probe import EvalSet
from repetita.study.audit import Audit, run_audit
from repetita.study.audit_canaries import beside_exposure
from tests.measure.test_canaries import Keeping, chain
from tests.study.audited import model_at

SPEC = CanarySpec(counts=(0, 4), each=3, n_digits=4)


def test_a_bound_says_so() -> None:
    sets = {"test": EvalSet.whole("test", sequences=PlantedSet([[1] * 64]))}
    probe = CanaryProbe(canaries=SPEC, n_candidates=255)
    subject = Keeping([one.text for one in SPEC.canaries()[3:]], otherwise=chain())
    readings = list(probe.measure(subject, sets))
    items = next(one.items for one in readings if one.items is not None)
    beside = beside_exposure(probe, readings)
    assert list(beside) == ["exposure_0", "exposure_4"]
    assert beside["exposure_4"]["high"] is None
    assert beside["exposure_4"]["note"].startswith("3 of 3 rank before all candidates: at least this; by a")
    for one in exposure_estimates(items, space=SPEC.space):
        assert beside[f"exposure_{one.written}"]["low"] == one.sampled.low
    assert beside_exposure(ScoreProbe(on=("test",)), readings) == {}
    assert beside_exposure(probe, [one._replace(items=None) for one in readings]) == {}


def test_an_audit_keeps_it(tmp_path: Path) -> None:
    model, text = model_at(tmp_path / "model"), tmp_path / "text.txt"
    text.write_text("Geese fly south.\n" * 9)
    make_canaries(SPEC, source=str(text), folder=tmp_path / "made")
    audit = Audit(
        subjects=(str(model),), texts=(str(text),), probes=("canaries",), canaries=str(tmp_path / "made")
    )
    first, again = (run_audit(audit, root=tmp_path / "out").by_group for _ in range(2))
    assert first.equals(again)
    assert first["metric"].to_list() == ["exposure_0", "exposure_4"]
    for row in first.iter_rows(named=True):
        assert row["low"] < row["value"] and (row["high"] is None or row["value"] < row["high"])
        assert "by a fitted tail" in row["note"]
    options = ("--text", text, "--probe", "canaries", "--canaries", tmp_path / "made")
    said = CliRunner().invoke(
        app, [str(one) for one in ("measure", model, *options, "--root", tmp_path / "out")]
    )
    assert said.exit_code == 0, said.output
    assert "exposure_0: " in said.output and "by a fitted tail" in said.output
