"""Planted tokens: what is lost inside training, and what the floor consists of, come out as put in."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from repetita.corpus.taggers import CLASSES
from repetita.fit.claim import Claim
from repetita.measure.retained import KINDS
from repetita.measure.token_hits import TokenHits
from repetita.studies import _memory_churn, _memory_parts
from repetita.studies._memory_churn import Turn, churn, lost_at, turn
from repetita.studies._memory_parts import Part, parts
from repetita.studies.forgetting import STUDY
from repetita.study.collect import Collected
from tests.studies.planted import effect, planted

Arrays = Mapping[str, NDArray[Any]]
Answer = Callable[[Mapping[str, Any], str, int], Arrays | None]
N, L = 24, 40
UPDATES = 8
"""Updates of a pass at laptop scale."""


class Answered(Collected):
    """A planted study whose measurements kept arrays."""

    answer: Answer

    def items(self, folder: str, *, key: str, step: int) -> dict[str, NDArray[np.generic]]:
        labels = next(row for row in self.runs.iter_rows(named=True) if row["folder"] == folder)
        found: dict[str, NDArray[np.generic]] = {}
        sets = {"churn": ("train",), "churn_test": ("test",)}.get(
            key, tuple(f"{labels['trained']}/{b}" for b in range(labels["n_batches"]))
        )
        for on in sets:
            arrays = self.answer(labels, on, step)
            found |= {f"{on}/{name}": array for name, array in (arrays or {}).items()}
        return found


def answered(
    answer: Answer, *, probes: tuple[str, ...], there: Callable[..., bool] = lambda labels: True
) -> Answered:
    table = planted(
        STUDY, scale="laptop", metric="memorized_by_token", value=lambda *_: 0.5, probes=probes, there=there
    )
    made = Answered(
        table.study, table.scale, table.labels, table.runs, table.measurements, table.absent, table.manifest
    )
    object.__setattr__(made, "answer", answer)
    return made


def whole(hit: NDArray[np.bool_]) -> TokenHits:
    return TokenHits(np.arange(len(hit)), hit, np.ones_like(hit))


def losing(share: Callable[[int], float], *, gain: float = 0.03) -> Answer:
    """Runs that lose memorized tokens at a rate by size; on text never trained on, hits fall anywhere."""
    known: dict[tuple[Any, ...], NDArray[np.bool_]] = {}

    def state(labels: Mapping[str, Any], on: str, n: int) -> NDArray[np.bool_]:
        key = (labels["size"], labels["seed"], on, n)
        rng = np.random.default_rng([labels["non_embedding"], labels["seed"], n, on == "test"])
        if key not in known and (on == "test" or n == 0):
            known[key] = rng.random((200, L)) < 0.15
        elif key not in known:
            last = state(labels, on, n - 1)
            kept = last & (rng.random(last.shape) >= share(labels["non_embedding"]))
            known[key] = kept | (~last & (rng.random(last.shape) < gain))
        return known[key]

    def answer(labels: Mapping[str, Any], on: str, step: int) -> Arrays:
        return whole(state(labels, on, step // UPDATES)).items()

    return answer


def named(claims: list[Claim]) -> dict[str, Claim]:
    return {claim.name: claim for claim in claims}


SIZES = ("25k", "100k", "220k")


def test_tokens_lost_are_counted_by_hand() -> None:
    hit = np.zeros((2, 10), dtype=bool)
    hit[0], hit[1, :5] = True, True
    after, beyond = hit.copy(), hit.copy()
    after[0, 0], after[1, :2], after[1, 9] = False, False, True
    beyond[1, 0] = False
    found = turn(whole(hit), whole(after), whole(beyond))
    assert (found.memorized, found.later, found.lost) == (0.75, 0.65, 3 / 15)
    assert found.regained == pytest.approx(2 / 3)
    assert found.by_chance == pytest.approx(0.35)
    assert found.sequences[1.0][:2] == (1, 1)
    assert found.sequences[0.9][:2] == (1, 0)
    assert found.sequences[1.0].expected == pytest.approx(1 - 0.8**10)


def test_sequences_are_expected_to_be_lost_as_independent_tokens_are() -> None:
    """Tokens flip on their own in the plant: what is expected of sequences is what happens."""
    rng = np.random.default_rng(0)
    hit = rng.random((4000, L)) < 0.97
    after = np.where(hit, rng.random(hit.shape) >= 0.02, rng.random(hit.shape) < 0.3)
    found = turn(whole(hit), whole(after), None)
    assert found.regained is None
    for counted in found.sequences.values():
        assert counted.memorized > 100
        assert counted.lost == pytest.approx(counted.expected, rel=0.15, abs=4)


def test_what_larger_models_lose_less_is_found() -> None:
    rates = {25_000: 0.3, 100_000: 0.2, 220_000: 0.12}

    def rate(n_params: int) -> float:
        return rates[min(rates, key=lambda n: abs(np.log(n / n_params)))]

    turns = churn(answered(losing(rate, gain=0.2), probes=_memory_churn.PROBES))
    train = [one for one in turns if one.on == "train"]
    assert {one.size for one in train} == set(SIZES)
    for one in train:
        assert one.lost == pytest.approx(rate(one.n_params), abs=0.04)
        assert one.regained is None or one.regained == pytest.approx(0.2, abs=0.1)
    for one in turns:
        if one.on == "test":  # Nothing is remembered: what chance would lose is lost.
            assert one.lost == pytest.approx(one.by_chance, abs=0.05)
    found = named(list(_memory_churn.claims(turns, sizes=SIZES)))
    for name in ("loses-less", "loses-less-by-pass"):
        assert found[name].leaning == "supported", name
    slope = np.polyfit(np.log10([24_992, 100_096, 223_296]), [0.3, 0.2, 0.12], 1)[0]
    assert effect(found["loses-less-by-pass"]) == pytest.approx(slope, abs=0.02)
    assert found["loses-less"].primary
    figures = list(_memory_churn.figures(turns))
    assert [figure.name for figure in figures] == ["forgetting-churn", "forgetting-churn-at-equal-memory"]
    (table,) = _memory_churn.tables(turns)
    assert len({row[1] for row in table.rows}) == len(SIZES)


@pytest.mark.parametrize(
    "there",
    [
        lambda labels: labels["size"] != "25k",
        lambda labels: labels["size"] == "25k" or labels["seed"] > 5,
        lambda labels: False,
    ],
)
def test_a_size_that_is_missing_leaves_the_claim_open(there: Callable[..., bool]) -> None:
    table = answered(
        losing(lambda n: 0.2),
        probes=_memory_churn.PROBES,
        there=lambda labels: labels["arm"] == "plain" and there(labels),
    )
    turns = churn(table) if table.measurements.width else []
    found = named(list(_memory_churn.claims(turns, sizes=SIZES)))
    assert {claim.verdict for claim in found.values()} == {"inconclusive"}
    assert found["loses-less"].primary


def test_the_share_lost_is_read_between_states() -> None:
    def at(memorized: float, lost: float) -> Turn:
        return Turn("25k", 1, 0, "train", 1.0, 10, memorized, memorized, lost, None, {})

    assert lost_at([at(0.5, 0.2), at(0.1, 0.6), at(0.3, 0.4)], 0.4) == pytest.approx(0.3)


KEPT_FROM = 4
"""In the plant the exposure leaves the tokens that end known n-grams of at least so many tokens."""


def anatomies(*, tagged: bool = True, other_rows: bool = False) -> Answer:
    """Placebo runs get 30% right; the exposed ones these, and all that end long known n-grams."""

    def answer(labels: Mapping[str, Any], on: str, step: int) -> Arrays:
        rng = np.random.default_rng([labels["seed"], int(on[-1])])
        guessed = rng.random((N, L)) < 0.3
        known = rng.integers(0, 9, (N, L)).astype(np.int8)
        kind = rng.integers(1, len(KINDS), (N, L)).astype(np.int8)
        tag = (rng.integers(1, len(CLASSES), (N, L)) * tagged).astype(np.int8)
        exposed = labels["arm"] == "special"
        hit = guessed | (known >= KEPT_FROM) if exposed and step == labels["steps"] else guessed
        shift = N if other_rows and not exposed else 0
        hits = TokenHits(np.arange(N) + shift, hit, np.ones_like(hit))
        return {**hits.items(), "tag": tag, "kind": kind, "known": known}

    return answer


@pytest.fixture(scope="module")
def taken_apart() -> list[Part]:
    return parts(answered(anatomies(), probes=("retained",)))


def test_the_floor_is_taken_apart(taken_apart: list[Part]) -> None:
    assert {(part.size, part.seed) for part in taken_apart} == {(s, seed) for s in SIZES for seed in range(3)}
    for part in taken_apart:
        assert len(part.kind) == 4 * N * L
        np.testing.assert_array_equal(part.before, part.placebo)
        np.testing.assert_array_equal(part.special, part.placebo | (part.known >= KEPT_FROM))
        masks = part.classes()
        ngrams = [mask for label, mask in masks.items() if "n-gram" in label]
        assert (np.sum(ngrams, axis=0) == 1).all()
        others = [mask for label, mask in masks.items() if "n-gram" not in label and label != "all"]
        assert (np.sum(others, axis=0) == 1).all()
        assert part.net(masks["n-gram of 3"]) == 0
        assert part.net(masks["n-gram of 4"]) == pytest.approx(0.7, abs=0.08)
        assert part.also_predicted(masks["n-gram of 3"]) == 1
        right = 0.3 + 0.7 * 5 / 9
        assert part.also_predicted(masks["all"]) == pytest.approx(0.3 / right, abs=0.03)


def test_claims_on_the_floor(taken_apart: list[Part]) -> None:
    found = named(list(_memory_parts.claims(taken_apart)))
    assert found["retained-is-predicted-220k"].verdict == "contradicted"
    assert found["retained-is-known-text-220k"].verdict == "supported"
    assert effect(found["names-and-digits-kept-220k"]) == pytest.approx(0, abs=0.05)
    assert not any(claim.primary for claim in found.values())
    (table,) = _memory_parts.tables(taken_apart)
    assert "none, the corpus" not in table.caption
    assert {row[0] for row in table.rows} == set(SIZES)
    assert "noun, first" in {row[1] for row in table.rows}
    names = [figure.name for figure in _memory_parts.figures(taken_apart)]
    assert names == ["forgetting-floor-parts", "forgetting-floor-overlap"]


def test_without_tags_the_table_says_so() -> None:
    found = parts(answered(anatomies(tagged=False), probes=("retained",)))
    (table,) = _memory_parts.tables(found)
    assert "Parts of speech: none" in table.caption
    assert {"first token of a word", "inside a word"} <= {row[1] for row in table.rows}
    assert (
        "beyond the control of digits"
        in named(list(_memory_parts.claims(found)))["names-and-digits-kept-220k"].statement
    )


def test_runs_that_cannot_be_paired_are_left_out() -> None:
    assert parts(answered(anatomies(other_rows=True), probes=("retained",))) == []
    alone = answered(anatomies(), probes=("retained",), there=lambda labels: labels["arm"] != "placebo")
    assert parts(alone) == []
    assert not list(_memory_parts.claims([]))
    assert not list(_memory_parts.figures([]))
    assert not list(_memory_parts.tables([]))
