"""What a study adds to others is what the others did not pay: the sum over studies is the plan."""

import json
from pathlib import Path

import pytest

from repetita.model.config import flops_per_token
from repetita.study.accelerators import gpu_seconds
from repetita.study.expand import Job
from repetita.study.expected import plan_corpora
from repetita.study.ledger import (
    Ledger,
    Session,
    add_session,
    ledger,
    ledger_table,
    read_ledger,
    read_sessions,
    write_ledger,
)
from repetita.study.prepare import Prepared, portion, prepare
from repetita.study.price import Cost
from repetita.study.summary import summarise
from tests.study.places import Place, repetita
from tests.study.two import PAPER, write_two


@pytest.fixture
def two(place: Place) -> tuple[Place, Prepared]:
    """The tiny study, and another with one of its runs, one of its forks, and a run of its own."""
    other = write_two(place)
    parts = [portion(place.study, scale="tiny"), portion(other, scale="tiny")]
    return place, prepare(parts, root=place.root, corpora=plan_corpora(parts, root=place.root))


def test_added_sums_to_the_plan_and_alone_is_each_plan(two: tuple[Place, Prepared]) -> None:
    place, prepared = two
    kept = ledger(prepared, root=place.root, processes=2)
    whole = summarise(prepared, processes=2)
    for field, total in (
        ("n_runs", whole.n_runs),
        ("training_tokens", whole.training_tokens),
        ("measuring_tokens", whole.measuring_tokens),
        ("seconds", sum(group.seconds for group in whole.groups)),
    ):
        assert sum(getattr(line.added, field) for line in kept.lines) == pytest.approx(total)
        assert getattr(kept.total, field) == pytest.approx(total)
    for line, part in zip(kept.lines, prepared.portions, strict=True):
        own = prepare([part], root=place.root, corpora=plan_corpora([part], root=place.root))
        alone = summarise(own, processes=1)
        assert line.alone.n_runs == alone.n_runs
        assert line.alone.training_tokens == alone.training_tokens
        assert line.alone.measuring_tokens == alone.measuring_tokens


def test_what_is_shared_is_paid_by_the_first(two: tuple[Place, Prepared]) -> None:
    first, second = ledger(two[1], root=two[0].root, processes=1).lines
    assert first.added[:3] == first.alone[:3]
    assert first.added.seconds == pytest.approx(first.alone.seconds)
    assert second.added.training_tokens < second.alone.training_tokens
    assert (second.alone.n_runs, second.added.n_runs) == (3, 1)


def test_it_does_not_depend_on_what_is_done(done: Place) -> None:
    part = done.portion()
    prepared = done.prepared()
    kept = ledger(prepared, root=done.root, processes=1)
    assert summarise(prepared, processes=1).training_tokens == 0
    assert kept.total.training_tokens == 2688
    assert kept.lines[0].study == part.found.study.name


def test_on_gpus_it_is_operations_over_rate(two: tuple[Place, Prepared]) -> None:
    def on_gpus(job: Job, cost: Cost) -> float:
        return gpu_seconds(job, cost, device="a100", utilisation=0.5)

    kept = ledger(two[1], root=two[0].root, processes=1, on_gpus=on_gpus)
    (flops,) = {flops_per_token(job.spec.model).matmul for job in two[1].jobs.values()}
    expected = (kept.total.training_tokens + kept.total.measuring_tokens / 3) * flops / (312e12 * 0.5)
    assert kept.total.seconds == pytest.approx(expected)
    assert sum(line.added.seconds for line in kept.lines) == pytest.approx(expected)
    assert ledger_table(kept).columns[4] == "GPU-hours, alone"


def test_it_is_kept_with_its_sessions(two: tuple[Place, Prepared], tmp_path: Path) -> None:
    kept = ledger(two[1], root=two[0].root, processes=2)
    assert read_ledger(tmp_path, folder="p-tiny") is None
    assert read_sessions(tmp_path, folder="p-tiny") == ()
    write_ledger(kept, root=tmp_path, folder="p-tiny")
    add_session(Session(90.0, 2), root=tmp_path, folder="p-tiny")
    write_ledger(kept, root=tmp_path, folder="p-tiny")
    add_session(Session(30.0, 1), root=tmp_path, folder="p-tiny")
    assert read_ledger(tmp_path, folder="p-tiny") == kept
    sessions = read_sessions(tmp_path, folder="p-tiny")
    assert sessions == (Session(90.0, 2), Session(30.0, 1))
    assert (
        "They ran for 2 minutes on 1 or 2 processes (sessions: 2)."
        in ledger_table(kept, sessions=sessions).caption
    )


@pytest.mark.slow
@pytest.mark.ci
def test_plan_and_page_show_the_same_table(place: Place) -> None:
    write_two(place)
    folder = place.study.parent
    options = (PAPER, "--scale", "tiny", "--root", place.root, "-p", 1)
    planned = json.loads(repetita("study", "plan", *options, "--json", cwd=folder).stdout)["studies"]
    assert repetita("study", "run", *options, cwd=folder).returncode == 0
    again = json.loads(repetita("study", "plan", *options, "--json", cwd=folder).stdout)["studies"]
    kept = read_ledger(place.root, folder="two_paper-tiny")
    assert isinstance(kept, Ledger)
    exact = ("n_runs", "training_tokens", "measuring_tokens")
    for told in (planned, again):
        for line, said in zip(kept.lines, told["lines"], strict=True):
            for kind in ("alone", "added"):
                for field in exact:
                    assert getattr(getattr(line, kind), field) == said[kind][field]
    page = (place.root / "studies" / "two_paper-tiny" / "page.html").read_text()
    assert 'id="table-cost"' in page
    assert str(kept.total.n_runs) in page
