"""Planted heads score their closed forms, and a model's scores equal literal sums over its own patterns."""

from fractions import Fraction

import numpy as np
import pytest

from repetita.errors import SpecError
from repetita.journal.records import Reading
from repetita.measure import induction
from repetita.measure.induction import (
    InContextProbe,
    InductionProbe,
    prefix_matching,
    previous_token,
    random_tokens,
)
from repetita.measure.planted import PlantedSet, UniformSubject
from repetita.measure.planted_heads import CurveSubject, HeadsSubject, Kind
from repetita.measure.probe import EvalSet
from repetita.model.config import ModelConfig
from repetita.model.live import LiveSubject
from repetita.model.transformer import Transformer
from repetita.subject import Ablating, Attending, Attributing, Circuits, Rows, Subject

V, L = 120, 128
KINDS: tuple[tuple[Kind, ...], ...] = (("previous", "uniform"), ("induction", "start"))
PROBE = InductionProbe()


def text(seed: int = 0, *, length: int = L) -> dict[str, EvalSet]:
    """Rows in which every id but 0 occurs, low ids most often."""
    drawn = np.random.default_rng(seed).geometric(0.05, (60, length))
    every = np.resize(np.arange(1, V), (3, length))
    targets = np.concatenate([np.minimum(drawn, V - 1), every])
    return {"test": EvalSet.whole("test", sequences=PlantedSet(targets))}


def measured(subject: Subject, probe: InductionProbe = PROBE) -> dict[str, Reading]:
    return {reading.metric: reading for reading in probe.measure(subject, text())}


def planted() -> HeadsSubject:
    return HeadsSubject(KINDS, vocab_size=V, copying={(0, 1): -1.0})


def test_planted_heads_are_subjects_of_every_kind() -> None:
    for capability in (Subject, Attending, Attributing, Circuits, Ablating):
        assert isinstance(planted(), capability)


def test_a_perfect_induction_head_scores_one_a_query_and_half_an_entry() -> None:
    found = measured(planted())
    assert found["prefix_query_max"].value == pytest.approx(1.0, abs=1e-6)
    assert found["prefix_entry_max"].value == pytest.approx(0.5, abs=1e-6)
    assert found["prefix_query_max"].detail == {"layer": 1, "head": 0}
    two = measured(planted(), InductionProbe(n_copies=2))
    assert two["prefix_entry_max"].value == two["prefix_query_max"].value == pytest.approx(1.0, abs=1e-6)


def test_uniform_attention_gives_its_closed_form() -> None:
    items = measured(planted())["prefix_query_max"].items
    assert items is not None
    # Query p reads p + 1 tokens alike, of which (p - 1) // 25 are targets.
    shares = [((p - 1) // 25) / (p + 1) for p in range(26, 101)]
    assert items["prefix_query"][0, 1] == pytest.approx(np.mean(shares), rel=1e-5)
    assert items["prefix_entry"][0, 1] == pytest.approx(np.sum(shares) / 150, rel=1e-5)
    # On rows of 128 random tokens: the token before is one of i + 1.
    before = np.mean([1 / (i + 1) for i in range(1, L)])
    assert items["previous_token"][0, 1] == pytest.approx(before, rel=1e-5)


def test_a_previous_token_head_scores_one() -> None:
    found = measured(planted())
    assert found["previous_token_max"].value == pytest.approx(1.0)
    assert found["previous_token_max"].detail == {"layer": 0, "head": 0}


def test_separators_are_no_queries() -> None:
    targets = np.resize(np.arange(1, V), (4, L))
    targets[:, 5] = 0  # The separator is read at index 6; it attends elsewhere.
    sets = {"test": EvalSet.whole("test", sequences=PlantedSet(targets))}
    subject = HeadsSubject((("previous",),), vocab_size=V)
    readings = {r.metric: r for r in InductionProbe(max_sequences=None).measure(subject, sets)}
    assert readings["previous_token_max"].value == pytest.approx(1.0)


def test_rows_asked_in_parts_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    config = ModelConfig(n_layer=2, n_head=2, d_model=16, vocab_size=V, context=L)
    subject, over = LiveSubject(Transformer(config, seed=0)), text()["test"]
    whole = previous_token(subject, over=over)
    monkeypatch.setattr(induction, "PATTERN_ENTRIES", 5 * L * L)
    np.testing.assert_allclose(previous_token(subject, over=over), whole, rtol=1e-6)


def test_copying_scores_of_planted_heads() -> None:
    items = measured(planted())["prefix_query_max"].items
    assert items is not None
    # One token attended to, and only it is raised: the ratio is 1/2, its highest.
    assert items["ov_activation"][0, 0] == pytest.approx(1.0, abs=1e-6)
    assert items["ov_activation"][0, 1] < -0.9  # Lowers what it attends to: nothing of it is raised.
    assert items["ov_eigen"].tolist() == [[1, -1], [1, 1]]
    # The induction head reads its keys from both heads of layer 0, by their previous-token scores.
    before = items["previous_token"]
    assert items["k_composition"][1, 0] == pytest.approx(before[0, 0] + before[0, 1])
    assert measured(planted())["induction_ov"].value == 1.0


def test_aggregates_over_heads() -> None:
    found = measured(planted(), InductionProbe(top_k=2))
    items = found["prefix_query_max"].items
    assert items is not None
    for name in ("prefix_query", "previous_token", "ov_eigen"):
        scores = np.sort(items[name].ravel())
        assert found[f"{name}_mean"].value == pytest.approx(scores.mean())
        assert found[f"{name}_top"].value == pytest.approx(scores[-2:].mean())
        assert found[f"{name}_mean"].n == 4


def test_scores_of_a_model_are_literal_sums_over_its_patterns() -> None:
    config = ModelConfig(n_layer=2, n_head=2, d_model=16, vocab_size=V, context=L)
    subject = LiveSubject(Transformer(config, seed=0))
    items = measured(subject)["prefix_query_max"].items
    assert items is not None
    drawn = items["tokens"]
    rows = np.concatenate([np.zeros((10, 1), dtype=np.int64), *[drawn] * 4], axis=1)
    patterns = list(subject.attend(rows))
    for layer in range(2):
        for head in range(2):
            entries, queries = [], []
            for sample in range(10):
                for p in range(26, 101):
                    own = [
                        float(patterns[layer][sample, head, p, t + 1])
                        for t in range(1, p)
                        if rows[sample, t] == rows[sample, p]
                    ]
                    entries += own
                    queries.append(sum(own))
            assert len(entries) == 10 * 150 and len(queries) == 10 * 75
            assert items["prefix_entry"][layer, head] == pytest.approx(np.mean(entries), rel=1e-5)
            assert items["prefix_query"][layer, head] == pytest.approx(np.mean(queries), rel=1e-5)


def test_tokens_drawn_are_distinct_and_neither_common_nor_rare() -> None:
    over = text()["test"]
    counts = over.sequences.token_counts()
    drawn = random_tokens(over, n_tokens=25, n_samples=10, excluded=0.1)
    assert drawn.shape == (10, 25) and all(len(set(row)) == 25 for row in drawn.tolist())
    occurring = np.sort(counts[1:][counts[1:] > 0])
    out = int(len(occurring) * 0.1)
    assert counts[drawn].min() >= occurring[out] and counts[drawn].max() <= occurring[-out - 1]
    assert len({tuple(row) for row in drawn.tolist()}) == 10
    again = random_tokens(over, n_tokens=25, n_samples=3, excluded=0.1)
    assert np.array_equal(again, drawn[:3])


def test_too_few_tokens_or_too_short_rows_are_refused() -> None:
    with pytest.raises(SpecError, match="lower n_tokens or excluded"):
        random_tokens(text()["test"], n_tokens=119, n_samples=1, excluded=0.04)
    sets = text(length=60)
    with pytest.raises(SpecError, match=r"are 101, and a sequence has 60"):
        list(PROBE.measure(planted(), sets))
    with pytest.raises(SpecError, match="stay under 1/2"):
        InductionProbe(excluded=Fraction(1, 2))


def test_a_subject_without_attention_is_not_applicable() -> None:
    (reading,) = PROBE.measure(UniformSubject(vocab_size=V), text())
    assert reading.metric == "prefix_query_max" and reading.value is None
    assert reading.detail is not None and reading.detail["why"].startswith("not applicable")


def test_a_subject_with_patterns_alone_gives_those_scores() -> None:
    class Shows(UniformSubject):
        def attend(self, tokens: np.ndarray, /):  # type: ignore[no-untyped-def]
            return planted().attend(tokens)

    found = measured(Shows(vocab_size=V))
    assert found["prefix_query_max"].value == pytest.approx(1.0, abs=1e-6)
    for metric in ("ov_activation_max", "ov_eigen_max", "k_composition_max"):
        detail = found[metric].detail
        assert found[metric].value is None and detail is not None and "not applicable" in detail["why"]


def test_a_masked_model_is_not_applicable() -> None:
    config = ModelConfig(
        n_layer=1, n_head=1, d_model=4, vocab_size=V, context=L, objective="masked"
    )  # fmt: skip
    (reading,) = PROBE.measure(LiveSubject(Transformer(config, seed=0)), text())
    assert reading.value is None and reading.detail is not None and "masked" in reading.detail["why"]


def test_without_its_head_the_score_of_what_is_left() -> None:
    subject = HeadsSubject(KINDS, vocab_size=V, worth={(1, 0): 0.7, (0, 0): 0.2})
    rows = Rows(*(np.ones((1, 3), dtype=np.int64),) * 2, np.ones((1, 3), dtype=bool))
    less = subject.without([(1, 0)])
    assert less.score(rows).loss[0, 0] - subject.score(rows).loss[0, 0] == pytest.approx(0.7, rel=1e-5)
    assert not less.copying[1, 0] and prefix_matching(less, np.arange(1, 26)[None], n_copies=4)


def test_in_context_score_of_a_planted_curve() -> None:
    curve = 5 - 0.5 * np.log(np.arange(L) + 1)
    found = {}
    for width in (1, 10):
        probe = InContextProbe(early=10, late=110, width=width)
        (found[width],) = probe.measure(CurveSubject(curve), text())
    assert found[1].value == pytest.approx(curve[110] - curve[10], abs=1e-5)
    assert found[10].value == pytest.approx(curve[110:120].mean() - curve[10:20].mean(), abs=1e-5)
    assert found[1].items is not None
    np.testing.assert_allclose(found[1].items["loss"], curve, atol=1e-5)
    assert found[1].n == 2 * 63


def test_an_index_beyond_the_sequence_is_refused() -> None:
    with pytest.raises(SpecError, match="beyond a sequence of 128"):
        list(InContextProbe().measure(CurveSubject(np.ones(L)), text()))
    with pytest.raises(SpecError, match="reaches late"):
        InContextProbe(early=50, late=55, width=10)


def test_the_cost_counts_the_samples() -> None:
    sets = text()
    assert PROBE.cost_tokens(sets) == 16 * L + 10 * (1 + 25 * 5)


def test_ids_that_hardly_occur_are_never_drawn() -> None:
    common, rare = np.arange(1, 41), np.arange(41, 121)
    rows = np.concatenate([np.tile(common, (400, 1)).ravel(), rare])
    over = EvalSet.whole("test", sequences=PlantedSet(rows[: len(rows) // 40 * 40].reshape(-1, 40)))
    drawn = random_tokens(over, n_tokens=30, n_samples=8, excluded=0.04)
    assert drawn.max() <= 40
