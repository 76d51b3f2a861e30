"""Prices are arithmetic: tokens exact, makespans those of list scheduling, rates from what ran here."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from repetita.corpus.masking import DRAWS
from repetita.model.config import flops_per_token, ladder
from repetita.model.live import LiveSubject
from repetita.study.price import Rates, chains, count_text, job_state, makespan, size_text, time_text
from repetita.study.summary import summarise
from repetita.subject import Rows, Scores
from tests.study.places import Place, do

SIZES = ladder("laptop", vocab_size=1024, context=128)


def test_tokens_of_a_plan(place: Place) -> None:
    prepared = place.prepared()
    by_arm = {
        str(job.arms[0]["arm"]) if job.arms else "trunk": prepared.costs[name]
        for name, job in prepared.jobs.items()
    }
    straight, step = 12 * 4 * 16, 8 * 16
    assert by_arm["control"].training_tokens == straight
    assert by_arm["control"].measuring.tokens == 3 * step
    assert by_arm["trunk"].training_tokens + by_arm["special"].training_tokens == straight
    # Two special batches and two twins of four sequences, and eight training sequences.
    pairs = (4 * 4 + 8) * 16
    assert by_arm["trunk"].measuring.tokens == 2 * step + 3 * pairs
    assert by_arm["special"].measuring.tokens == step + pairs, "the trunk measures where it ends"


@pytest.mark.parametrize("objective", ["causal", "masked"])
def test_what_is_planned_to_be_scored_is_scored(
    place: Place, objective: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.edit("context=16)", f"context=16, objective={objective!r})")
    place.edit("max_sequences=8, cadence=Every(n=6)", "budget='0.5', cadence=Every(n=6)")
    scored = 0
    score = LiveSubject.score

    def count(subject: LiveSubject, rows: Rows) -> Scores:
        nonlocal scored
        scored += rows.tokens.size
        return score(subject, rows)

    monkeypatch.setattr(LiveSubject, "score", count)
    prepared = do(place)
    planned = summarise(prepared, processes=1)
    assert scored == planned.measuring_tokens > 0
    assert planned.measuring_tokens == sum(probe.tokens for probe in planned.probes)
    assert planned.measuring_tokens == sum(group.measuring_tokens for group in planned.groups)
    assert planned.measuring_share == pytest.approx(sum(probe.share for probe in planned.probes))
    # Half of the compute for `test`: 12 steps of 4 sequences are 72 forward passes over one, 24 a state.
    (test,) = (probe for probe in planned.probes if probe.name == "test")
    rows = 24 if objective == "causal" else 24 // DRAWS * DRAWS
    assert (test.times, test.tokens) == (3 + 3 + 2 + 1 + 1, 10 * rows * 16)


def rate(rates: Rates, size: str, *, tokens: int = 2048) -> float:
    return rates.tokens_per_second(SIZES[size], tokens_per_step=tokens)


def test_a_table_gives_the_rates_until_something_ran(place: Place) -> None:
    rates = Rates.of(place.root)
    assert rate(rates, "25k") == pytest.approx(95_000)
    assert rate(rates, "890k") == pytest.approx(11_000)
    assert 49_000 < rate(rates, "57k") < 95_000


def test_rates_of_similar_runs_correct_the_table() -> None:
    rates = Rates({(flops_per_token(SIZES["25k"]).matmul, 2048): 190_000.0})
    assert rate(rates, "25k") == pytest.approx(190_000)
    assert rate(rates, "57k") == pytest.approx(2 * rate(Rates(), "57k"))
    assert rate(rates, "890k") == pytest.approx(11_000), "too different a size"
    assert rate(rates, "25k", tokens=128) == pytest.approx(95_000), "too different a batch"


def test_rates_are_read_from_finished_runs(done: Place) -> None:
    job = next(iter(done.prepared().jobs.values()))
    assert Rates.of(done.root).like(job.spec.model, tokens_per_step=64) is not None
    assert Rates.of(done.root).like(SIZES["890k"], tokens_per_step=64) is None


@pytest.mark.parametrize("place", [{"device": "cuda"}, {"threads": 2}, {"world": 2}])
def test_rates_of_other_devices_are_not_those_of_a_worker(done: Place, place: dict[str, object]) -> None:
    for file in done.root.glob("runs/*/run.json"):
        header = json.loads(file.read_bytes())
        del header["sha256"]
        header["device"] |= place
        file.write_text(json.dumps(header))
    job = next(iter(done.prepared().jobs.values()))
    assert Rates.of(done.root).like(job.spec.model, tokens_per_step=64) is None


def test_makespan_by_hand() -> None:
    seconds = {"a": 3.0, "b": 2.0, "c": 2.0, "trunk": 1.0, "fork": 4.0}
    after = {"fork": "trunk"}
    assert makespan(seconds, after=after, processes=1) == 12
    assert chains(seconds, after=after)["trunk"] == 5
    assert makespan(seconds, after=after, processes=2) == 7
    assert makespan(seconds, after=after, processes=9) == 5
    assert makespan({}, after={}, processes=2) == 0


@given(st.lists(st.floats(0.1, 100), max_size=12), st.integers(1, 5), st.data())
def test_makespan_lies_between_its_bounds(lengths: list[float], processes: int, data: st.DataObject) -> None:
    seconds = {str(place): length for place, length in enumerate(lengths)}
    after = {
        str(place): str(data.draw(st.integers(0, place - 1)))
        for place in range(1, len(lengths))
        if data.draw(st.booleans())
    }
    took = makespan(seconds, after=after, processes=processes)
    longest = max(chains(seconds, after=after).values(), default=0.0)
    assert took >= max(longest, sum(lengths) / processes) - 1e-6
    assert took <= sum(lengths) + 1e-6


def test_state_of_jobs(done: Place) -> None:
    done.edit("cadence=Every(n=6)", "cadence=Every(n=3)")
    prepared = done.prepared()
    control = next(job for job in prepared.jobs.values() if job.arms and job.arms[0]["arm"] == "control")
    state = prepared.states[control.fingerprint]
    assert state.status == "done"
    assert not state.complete
    assert state.missing == {control.probes[0].key: {3, 9}}
    # Only the last step was kept, so that the run is made again up to step 9.
    assert state.replayed == 9
    assert prepared.costs[control.fingerprint].training_tokens == 9 * 4 * 16
    assert prepared.costs[control.fingerprint].measuring.tokens == 2 * 8 * 16


def test_a_folder_that_is_not_there(place: Place) -> None:
    job = next(iter(place.prepared().jobs.values()))
    assert job_state(job).status == "missing"
    assert job_state(job._replace(path=Path("nowhere"))).steps_done == 0


def test_texts_for_people() -> None:
    assert [time_text(s) for s in (0.2, 80, 600, 9000)] == ["1 s", "80 s", "10 min", "2.5 h"]
    assert [count_text(n) for n in (12, 45_000, 3.3e6)] == ["12", "45k", "3.3M"]
    assert [size_text(n) for n in (12, 45_000, 3.3e9, 999.9e9)] == ["12 B", "45 kB", "3.3 GB", "1 TB"]
