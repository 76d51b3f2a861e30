"""GPU-hours are operations over rate, whatever else is printed, and schedules keep their bounds."""

import json

import pytest

from repetita.errors import SpecError
from repetita.model.config import count, flops_per_token
from repetita.model.peaks import DEVICES
from repetita.study.accelerators import by_size, memory_per_gpu, price_on_gpus
from repetita.study.expected import plan_corpora
from repetita.study.prepare import Prepared, portion, prepare
from tests.study.places import Place, repetita


@pytest.fixture(scope="module")
def paper(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """The forgetting study at the paper's own scale, its text nowhere."""
    root = tmp_path_factory.mktemp("paper")
    part = portion("forgetting", scale="paper")
    return prepare([part], root=root, corpora=plan_corpora([part], root=root))


def by_hand(prepared: Prepared, *, peak: float, utilisation: float) -> float:
    """GPU-hours from the plan's runs: steps, batches, probes, and the products of the model."""
    total = 0.0
    for job in prepared.jobs.values():
        flops = flops_per_token(job.spec.model).matmul
        trained = (job.spec.steps - job.trunk_steps) * job.spec.batch_size * job.spec.corpus.length
        scored = 0
        for due in job.probes:
            sets = prepared.corpora.sets(due.sets_of)
            times = sum(step > job.trunk_steps or not job.trunk_steps for step in due.steps)
            scored += times * due.probe.cost_tokens(sets)
        total += flops * trained / (peak * utilisation) + flops / 3 * scored / (peak * utilisation)
    return total / 3600


@pytest.mark.parametrize(("device", "utilisation"), [("h100", 0.4), ("v100", 0.25)])
def test_gpu_hours_by_hand(paper: Prepared, device: str, utilisation: float) -> None:
    price = price_on_gpus(paper, device=device, utilisation=utilisation, n_gpus=64)
    expected = by_hand(paper, peak=DEVICES[device].flops_per_second, utilisation=utilisation)
    assert price.gpu_hours == pytest.approx(expected, rel=1e-9)
    assert sum(group.gpu_hours for group in price.groups) == pytest.approx(expected, rel=1e-9)


def test_what_is_printed_is_what_was_priced(paper: Prepared, place: Place) -> None:
    options = (
        "--scale",
        "paper",
        "--device",
        "a100",
        "--utilisation",
        "0.5",
        "--gpus",
        "128",
        "--root",
        place.root,
    )
    said = repetita("study", "plan", "forgetting", *options, "--json", cwd=place.study.parent)
    found = json.loads(said.stdout)["gpu"]
    assert found["gpu_hours"] == pytest.approx(by_hand(paper, peak=312e12, utilisation=0.5), rel=1e-9)
    shown = repetita("study", "plan", "forgetting", *options, cwd=place.study.parent).stdout
    assert f"{found['gpu_hours'] / 1000:.3g}k GPU-hours on a100 at 50% of its 312TFLOP/s" in shown
    assert "with 128 GPUs" in shown
    assert "  repetita study run forgetting --scale paper --engine ray" in shown


@pytest.mark.parametrize("n_gpus", [8, 20, 64, 512])
def test_no_schedule_beats_its_bound_and_more_gpus_take_no_longer(paper: Prepared, n_gpus: int) -> None:
    price = price_on_gpus(paper, n_gpus=n_gpus)
    assert price.hours >= price.least_hours * (1 - 1e-9)
    assert price.least_hours >= price.gpu_hours / n_gpus * (1 - 1e-9)
    assert price.hours <= price_on_gpus(paper, n_gpus=8).hours * (1 + 1e-9)


def test_one_gpu_does_one_run_after_the_other(done: Place, place: Place) -> None:
    prepared = place.prepared()
    price = price_on_gpus(prepared, n_gpus=1)
    assert price.hours == pytest.approx(price.gpu_hours)
    assert price.hours == pytest.approx(price.least_hours)
    assert price_on_gpus(done.prepared(), n_gpus=1).gpu_hours == 0


def test_memory_is_sixteen_bytes_a_parameter_and_more(paper: Prepared) -> None:
    for job in paper.jobs.values():
        state = 16 * count(job.spec.model).total
        assert state < memory_per_gpu(job, n_gpus=1) < 2 * state
        assert memory_per_gpu(job, n_gpus=8) < memory_per_gpu(job, n_gpus=1)


def test_the_largest_run_needs_several_gpus(paper: Prepared) -> None:
    groups = {group.name: group for group in price_on_gpus(paper, by=by_size(paper)).groups}
    assert groups["causal 125M"].fewest_gpus == 1
    assert groups["causal 13B"].fewest_gpus == 4  # 12.8G parameters x 16 bytes on devices of 80 GB
    assert set(groups) == {f"causal {size}" for size in ("125M", "355M", "1.3B", "2.7B", "6.7B", "13B")}
    with pytest.raises(SpecError, match=r"2 GPUs .* give at least the 4"):
        price_on_gpus(paper, n_gpus=2)


def test_mistakes(paper: Prepared) -> None:
    with pytest.raises(SpecError, match="did you mean 'h100'"):
        price_on_gpus(paper, device="h10")
    for utilisation in (0.0, 1.5, -1.0):
        with pytest.raises(SpecError, match="outside"):
            price_on_gpus(paper, utilisation=utilisation)


@pytest.mark.parametrize("option", [("--utilisation", "0.3"), ("--gpus", "4")])
def test_an_option_without_a_device_has_no_effect(option: tuple[str, str], place: Place) -> None:
    said = repetita("study", "plan", place.study, *option, "--root", place.root, cwd=place.study.parent)
    assert said.returncode == 2
    assert "no effect without --device" in said.stderr
