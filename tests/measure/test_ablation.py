"""Ablation returns what planted heads are worth, of the right heads, and of others in the same layers."""

import math

import numpy as np
import pytest

from repetita.errors import SpecError
from repetita.journal.records import Reading
from repetita.measure.ablation import ARMS, METRICS, NAMES, AblationProbe, highest, others
from repetita.measure.passages import Passage
from repetita.measure.planted import PlantedSet, UniformSubject
from repetita.measure.planted_heads import HeadsSubject
from repetita.measure.probe import EvalSet
from repetita.model.config import ModelConfig
from repetita.model.live import LiveSubject
from repetita.model.transformer import Transformer
from repetita.subject import Head, Subject

V = 64
PROBE = AblationProbe(n_tokens=10, n_copies=3, n_samples=2, early=2, late=20, width=4)


def sets(length: int = 48) -> dict[str, EvalSet]:
    targets = np.random.default_rng(0).integers(1, V, (20, length))
    return {"test": EvalSet.whole("test", sequences=PlantedSet(targets))}


def readings(probe: AblationProbe, subject: Subject, *, length: int = 48) -> dict[str, Reading]:
    return {one.metric: one for one in probe.measure(subject, sets(length))}


def planted() -> HeadsSubject:
    kinds = [["uniform", "previous", "start"], ["uniform", "induction", "start"]]
    worth = {(1, 1): 0.7, (1, 0): 0.1, (1, 2): 0.3, (0, 0): 9.0}
    return HeadsSubject(kinds, vocab_size=V, worth=worth)  # type: ignore[arg-type]


def test_the_highest_head_is_missed_by_its_worth_and_others_by_theirs() -> None:
    found = readings(PROBE, planted())
    assert set(found) == {f"{metric}_{arm}" for metric in METRICS for arm in ARMS}
    whole = math.log(V) - 0.7 - 0.1 - 0.3 - 9.0
    for metric in ("test_loss", "copying_loss"):
        assert found[f"{metric}_none"].value == pytest.approx(whole, rel=1e-5)
        assert found[f"{metric}_top"].value == pytest.approx(whole + 0.7, rel=1e-5)
        assert found[f"{metric}_random"].value == pytest.approx(whole + 0.2, rel=1e-5)
    top, random = found["test_loss_top"].detail, found["test_loss_random"].detail
    assert top == {"heads": [[1, 1]]}
    assert random is not None
    # Layer 1 has two other heads, so there are two draws and no more.
    assert sorted(random["heads"]) == [[[1, 0]], [[1, 2]]]
    assert sorted(random["by_draw"]) == pytest.approx([whole + 0.1, whole + 0.3], rel=1e-5)
    items = found["test_loss_none"].items
    assert items is not None
    assert items["prefix_query"].argmax() == 4
    assert items["prefix_query"][1, 1] == pytest.approx(1)


def test_of_a_transformer_only_what_is_left_out_changes() -> None:
    config = ModelConfig(n_layer=2, d_model=16, n_head=4, d_mlp=0, vocab_size=V, context=48)
    subject = LiveSubject(Transformer(config, seed=0))
    found = readings(PROBE, subject)
    assert all(one.value is not None for one in found.values())
    assert found["test_loss_none"].value != found["test_loss_top"].value
    again = readings(PROBE, subject)
    assert {name: one.value for name, one in again.items()} == {
        name: one.value for name, one in found.items()
    }


def test_several_heads_and_layers_with_too_few_others() -> None:
    both = readings(PROBE.edit(n_heads=2), planted())
    # The best two stand in different layers; the others of each draw do so, too.
    assert both["copying_loss_top"].detail is not None
    layers = sorted(layer for layer, _ in both["copying_loss_top"].detail["heads"])
    assert both["copying_loss_random"].detail is not None
    for draw in both["copying_loss_random"].detail["heads"]:
        assert sorted(layer for layer, _ in draw) == layers
        assert not {tuple(head) for head in draw} & {
            tuple(head) for head in both["copying_loss_top"].detail["heads"]
        }
    many = readings(PROBE.edit(n_heads=4), planted())
    assert many["copying_loss_random"].value is None
    assert "too few" in str(many["copying_loss_random"].detail) or "fewer" in str(
        many["copying_loss_random"].detail
    )
    assert many["copying_loss_top"].value is not None


def test_a_layer_without_others_is_compared_with_heads_anywhere() -> None:
    alone = HeadsSubject([["previous"], ["induction"]], vocab_size=V, worth={(1, 0): 0.7, (0, 0): 0.2})
    assert readings(PROBE, alone)["test_loss_random"].value is None
    found = readings(PROBE.edit(drawn_from="anywhere"), alone)
    whole = math.log(V) - 0.9
    assert found["copying_loss_top"].value == pytest.approx(whole + 0.7, rel=1e-5)
    assert found["copying_loss_random"].value == pytest.approx(whole + 0.2, rel=1e-5)
    assert found["copying_loss_random"].detail == {
        "heads": [[[0, 0]]],
        "by_draw": [pytest.approx(whole + 0.2, rel=1e-5)],
    }
    draws = others((2, 3), top=[Head(1, 1)], n_draws=9, anywhere=True)
    assert len(draws) == 5 and [Head(1, 1)] not in draws
    assert others((1, 2), top=[Head(0, 0), Head(0, 1)], n_draws=3, anywhere=True) == []


def test_names_are_what_goes_on_with_one_that_stood_before() -> None:
    named = Passage(name="n", text="Tom saw Tom", names=("Tom",))
    found = readings(PROBE.edit(passages=(named,)), planted())
    assert set(found) == {f"{metric}_{arm}" for metric in (*METRICS, NAMES) for arm in ARMS}
    # Two bytes go on with the second Tom.
    assert {found[f"{NAMES}_{arm}"].n for arm in ARMS} == {2}
    gap = (found[f"{NAMES}_top"].value or 0) - (found[f"{NAMES}_none"].value or 0)
    assert gap == pytest.approx(0.7, rel=1e-5)
    none = readings(PROBE.edit(passages=(named.edit(names=()),)), planted())
    assert {none[f"{NAMES}_{arm}"].value for arm in ARMS} == {None}
    assert "no token" in str(none[f"{NAMES}_top"].detail)


def test_draws_are_keyed_distinct_and_outside_the_top() -> None:
    top = [Head(1, 0), Head(1, 3)]
    draws = others((2, 8), top=top, n_draws=6)
    assert draws == others((2, 8), top=top, n_draws=6)
    assert len({tuple(draw) for draw in draws}) == 6
    assert all(head.layer == 1 and head not in top for draw in draws for head in draw)


def test_the_highest_are_ordered_and_ties_go_to_the_first() -> None:
    score = np.array([[0.1, 0.5], [0.5, 0.9]])
    assert highest(score, n=3) == [Head(1, 1), Head(0, 1), Head(1, 0)]


def test_a_short_sequence_has_no_in_context_score() -> None:
    found = readings(PROBE.edit(late=100), planted())
    assert found["in_context_top"].value is None
    assert found["test_loss_top"].value is not None


def test_what_cannot_be_asked_says_so() -> None:
    found = readings(PROBE, UniformSubject(vocab_size=V))
    assert {one.value for one in found.values()} == {None}
    assert all("not applicable" in str(one.detail) for one in found.values())
    with pytest.raises(SpecError, match="give a later index"):
        AblationProbe(early=90, late=100)


def test_the_cost_counts_every_pass() -> None:
    n_rows, copied = 20 * 48, 2 * 31
    assert PROBE.edit(n_draws=3).cost_tokens(sets()) == 5 * (n_rows + copied) + copied
    named = PROBE.edit(n_draws=3, passages=(Passage(name="n", text="Tom saw Tom"),))
    assert named.cost_tokens(sets()) == 5 * (n_rows + copied + 48) + copied
