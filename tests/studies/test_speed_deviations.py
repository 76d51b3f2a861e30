"""What a scale does otherwise is said of all its runs; of the paper's own, what the paper leaves open."""

import pytest

from repetita.studies.memorization_speed import SCALES, STUDY


def of(scale: str) -> dict[str, str]:
    return {one.parameter: one.ours for one in STUDY.deviations(scale)}


def test_deviations_are_those_of_every_run() -> None:
    found = of("overnight")
    assert found["updates a pass"] == "4 to 32"
    assert found["learning rate"] == "8 to 16 updates (0.5 to 4 passes), then constant"
    assert found["depth"] == "2 layers"
    assert found["gradient norm clipped at"] == "1"
    assert "best test loss of a single-pass control" in found["peak rate by size"]


def test_one_gpu_has_sizes_and_rates_of_its_own() -> None:
    found = of("gpu")
    assert found["depth"] == "4 to 12 layers"
    assert found["updates a pass"] == "32 to 128"
    assert "not tuned" in found["peak rate by size"]


def test_the_papers_own_configuration_deviates_in_what_is_not_stated_only() -> None:
    found = {one.parameter: one.paper for one in STUDY.deviations("paper")}
    assert "training set" not in found
    assert "peak rate by size" not in found
    assert found["tokenizer"] == "not stated"


@pytest.mark.parametrize("scale", SCALES)
def test_a_parameter_is_named_once(scale: str) -> None:
    rows = STUDY.deviations(scale)
    assert len({one.parameter for one in rows}) == len(rows)
