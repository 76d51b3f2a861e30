"""Known patterns of hits have known run lengths; the shuffled expectation is that of all arrangements."""

from itertools import combinations
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from repetita.journal.records import Reading
from repetita.measure.planted import LookupSubject, PlantedSet
from repetita.measure.probe import EvalSet
from repetita.measure.unit_length import Shuffled, UnitLengthProbe, doubling_edges, run_lengths
from repetita.subject import Rows, Scores, Subject


class PatternSubject:
    """Right exactly where the target is even: a set's targets write down its hits."""

    mask_id: ClassVar[int | None] = None

    def score(self, rows: Rows, /) -> Scores:
        hit = (rows.targets % 2 == 0) & rows.scored
        return Scores(np.where(rows.scored, 1.0, 0.0).astype(np.float32), hit)


def readings(pattern: list[list[int]], subject: Subject | None = None) -> dict[str, Reading]:
    """1 a hit, 0 a miss, -1 a position that is not scored (in the planted set, target 0)."""
    targets = np.array([[{1: 2, 0: 1, -1: 0}[cell] for cell in row] for row in pattern])
    sets = {"train": EvalSet.whole("train", sequences=PlantedSet(targets))}
    found = UnitLengthProbe(on=("train",)).measure(subject or PatternSubject(), sets)
    return {reading.metric: reading for reading in found}


def test_a_known_pattern_has_its_means() -> None:
    found = readings([[1, 1, 1, 0, 1, 0], [0, 1, 1, 0, 0, 0], [0, 0, 0, 0, 0, 0]])
    one = found["unit_length"]
    assert one.value == pytest.approx(6 / 3)
    assert found["unit_length_token_weighted"].value == pytest.approx((9 + 1 + 4) / 6)
    assert one.n == 18
    assert one.detail == {
        "memorized": 6 / 18, "runs": 3, "longest": 3, "independent": 18 / 12, "ceiling": 6.0,
        "edges": [1, 2, 4], "histogram": [1, 2],
    }  # fmt: skip
    assert one.items is not None
    assert one.items["runs"].tolist() == [2, 1, 0]
    assert one.items["longest"].tolist() == [3, 2, 0]


def test_runs_end_at_sequences_and_at_what_is_not_scored() -> None:
    found = readings([[1, 1, -1, 1, 1, 1], [1, 1, 1, 1, -1, -1]])
    assert found["unit_length"].value == pytest.approx(9 / 3)
    assert found["unit_length"].detail is not None
    assert found["unit_length"].detail["ceiling"] == pytest.approx(9 / 3)
    assert found["unit_length"].detail["independent"] is None
    # Nothing can be moved: every scored token is a hit.
    assert found["unit_length_shuffled"].value == pytest.approx(9 / 3)
    assert found["unit_length_token_weighted_shuffled"].value == pytest.approx((4 + 9 + 16) / 9)


def test_all_memorized_is_the_length_and_none_is_not_applicable() -> None:
    whole = PlantedSet(np.random.default_rng(0).integers(1, 64, (130, 100)))
    sets = {"train": EvalSet.whole("train", sequences=whole)}
    probe = UnitLengthProbe(on=("train",))
    every = {r.metric: r.value for r in probe.measure(LookupSubject(share=1, vocab_size=64), sets)}
    assert set(every.values()) == {100.0}
    none = list(probe.measure(LookupSubject(share=0, vocab_size=64), sets))
    assert {r.metric for r in none} == set(every)
    assert all(r.value is None and r.detail == {"why": "no token of this set is memorized"} for r in none)
    empty = readings([[-1, -1]])
    assert empty["unit_length"].value is None
    assert empty["unit_length"].n == 0


def test_every_second_token_makes_runs_of_one_shorter_than_by_chance() -> None:
    found = readings([[1, 0] * 50] * 20)
    assert found["unit_length"].value == 1.0
    # 50 hits in 100 places: 50 * 51 / 100 runs are expected.
    assert found["unit_length_shuffled"].value == pytest.approx(100 / 51)


def test_shuffling_the_hits_does_not_move_the_expectation() -> None:
    rng = np.random.default_rng(1)
    hits = (rng.random((300, 64)) < 0.8).astype(int)
    first, second = readings(hits.tolist()), readings(rng.permuted(hits, axis=1).tolist())
    for name in ("unit_length", "unit_length_token_weighted"):
        assert first[f"{name}_shuffled"].value == pytest.approx(second[f"{name}_shuffled"].value)
        # Independent hits are already shuffled.
        assert first[name].value == pytest.approx(first[f"{name}_shuffled"].value, rel=0.05)
    detail = first["unit_length_shuffled"].detail
    assert detail is not None
    seen = first["unit_length"].detail
    assert seen is not None
    assert abs(seen["runs"] - detail["runs"]) < 4 * detail["sd_runs"]


@given(st.lists(st.booleans(), min_size=1, max_size=9), st.data())
def test_the_expectation_is_the_mean_over_all_arrangements(scored: list[bool], data: st.DataObject) -> None:
    places = [i for i, one in enumerate(scored) if one]
    h = data.draw(st.integers(0, len(places)))
    runs, squares = [], []
    for chosen in combinations(places, h):
        hit = np.zeros((1, len(scored)), bool)
        hit[0, list(chosen)] = True
        lengths, _ = run_lengths(hit)
        runs.append(len(lengths))
        squares.append(int((lengths**2).sum()))
    found = Shuffled.of([scored], hits=[h])
    assert found.runs == pytest.approx(np.mean(runs))
    assert found.squares == pytest.approx(np.mean(squares))
    if all(scored):
        assert found.sd_runs == pytest.approx(np.std(runs))


@given(st.lists(st.lists(st.booleans(), min_size=7, max_size=7), min_size=1, max_size=5))
def test_runs_hold_every_hit_once(rows: list[list[bool]]) -> None:
    lengths, sequence = run_lengths(np.array(rows))
    assert np.bincount(sequence, weights=lengths, minlength=len(rows)).tolist() == [sum(row) for row in rows]
    # Between two runs of a row there is a miss.
    assert np.all(np.bincount(sequence, minlength=len(rows)) <= 4)
    edges = doubling_edges(int(lengths.max(initial=1)))
    assert edges[-2] <= lengths.max(initial=1) < edges[-1]
