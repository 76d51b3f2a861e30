import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from repetita.cadence import At, Every
from repetita.corpus.masking import DRAWS
from repetita.errors import SpecError
from repetita.measure.loss import LossProbe
from repetita.measure.memorization import MemorizationProbe, ScoreProbe
from repetita.measure.planted import LookupSubject, PlantedSet, UniformSubject
from repetita.measure.probe import ROWS_PER_BATCH, EvalSet, Probe, full_pass, scored_batches
from repetita.subject import Rows, Scores, Subject


def planted(n: int = 100, length: int = 16) -> PlantedSet:
    return PlantedSet(np.random.default_rng(0).integers(1, 50, (n, length)))


def test_probes_satisfy_the_protocols() -> None:
    def takes(probe: Probe, subject: Subject) -> str:
        return probe.fingerprint

    assert len(takes(ScoreProbe(on=("test",)), UniformSubject(vocab_size=5))) == 12
    assert isinstance(UniformSubject(vocab_size=5), Subject)


@settings(max_examples=25, deadline=None)
@given(n=st.integers(1, 300), small=st.integers(1, 300), more=st.integers(0, 100))
def test_a_sample_is_fixed_distinct_and_nested(n: int, small: int, more: int) -> None:
    over = EvalSet.whole("test", sequences=planted(n, 2))
    few, many = over.sample(small).indices, over.sample(small + more).indices
    assert len(few) == min(n, small) == len(set(few.tolist()))
    assert set(few.tolist()) <= set(many.tolist())
    np.testing.assert_array_equal(few, over.sample(small).indices)
    assert np.all(np.diff(few) > 0)


def test_a_sample_reads_indices_of_the_set_not_positions() -> None:
    over = EvalSet("repeated", planted(50, 2), np.arange(10, 50, 2))
    assert set(over.sample(5).indices.tolist()) <= set(range(10, 50, 2))


def test_different_sets_take_different_rows() -> None:
    sets = [
        EvalSet.whole(name, sequences=planted(1000, 2)).sample(50).indices.tolist() for name in ("a", "b")
    ]
    assert sets[0] != sets[1]


def test_the_fingerprint_ignores_the_cadence_only() -> None:
    plain = ScoreProbe(on=("test",))
    assert plain.fingerprint == plain.edit(cadence=Every(n=3)).fingerprint
    others = [
        plain.edit(cadence=At(at=(1,)), on=("train",)),
        plain.edit(max_sequences=7),
        plain.edit(name="other"),
        LossProbe(on=("test",), name="score"),
        MemorizationProbe(on=("test",), name="score"),
    ]
    assert len({plain.fingerprint, *(probe.fingerprint for probe in others)}) == 6


def test_cost_counts_every_token_of_the_chosen_rows() -> None:
    sets = {
        "a": EvalSet.whole("a", sequences=planted(100, 16)),
        "b": EvalSet.whole("b", sequences=planted(5, 8)),
    }
    assert ScoreProbe(on=("a", "b")).cost_tokens(sets) == 100 * 16 + 5 * 8
    assert ScoreProbe(on=("a", "b"), max_sequences=10).cost_tokens(sets) == 10 * 16 + 5 * 8


def test_a_missing_set_is_named_with_the_nearest_one() -> None:
    probe = ScoreProbe(on=("tset",))
    with pytest.raises(SpecError, match=r"'tset'.*did you mean 'test'"):
        list(
            probe.measure(UniformSubject(vocab_size=5), {"test": EvalSet.whole("test", sequences=planted())})
        )


def test_a_set_named_twice_is_an_error() -> None:
    with pytest.raises(SpecError, match="twice"):
        ScoreProbe(on=("test", "test"))


def test_a_pass_asks_each_row_once_in_batches() -> None:
    asked = []

    class Counting(UniformSubject):
        def score(self, rows: Rows) -> Scores:
            asked.append(len(rows.tokens))
            return super().score(rows)

    over = EvalSet.whole("test", sequences=planted(150, 4))
    taken = full_pass(Counting(vocab_size=50), over=over)
    assert asked == [ROWS_PER_BATCH, ROWS_PER_BATCH, 150 - 2 * ROWS_PER_BATCH]
    assert taken.tokens == 150 * 4


def test_one_pass_serves_all_metrics() -> None:
    calls = []

    class Counting(LookupSubject):
        def score(self, rows: Rows) -> Scores:
            calls.append(1)
            return super().score(rows)

    sets = {"test": EvalSet.whole("test", sequences=planted(10, 32))}
    subject = Counting(share="0.5", vocab_size=50)
    found = {reading.metric: reading for reading in ScoreProbe(on=("test",)).measure(subject, sets)}
    assert len(calls) == 1
    assert set(found) == {"loss", "bits_per_byte", "memorized", "loss_by_index"}
    loss = next(iter(LossProbe(on=("test",)).measure(subject, sets)))
    assert loss.value == found["loss"].value


def test_what_is_not_scored_counts_nowhere() -> None:
    targets = np.random.default_rng(1).integers(1, 50, (20, 12))
    cut = targets.copy()
    cut[:, 7:] = 0  # padding

    class Loud(UniformSubject):
        """Answers outside the scored positions, which a probe must not read."""

        def score(self, rows: Rows) -> Scores:
            scores = super().score(rows)
            return scores._replace(
                loss=np.where(rows.scored, scores.loss, 99).astype(np.float32), hit=scores.hit | ~rows.scored
            )

    taken = full_pass(Loud(vocab_size=50), over=EvalSet.whole("x", sequences=PlantedSet(cut)))
    assert taken.tokens == 20 * 7
    assert taken.loss == pytest.approx(np.log(50), rel=1e-6)
    assert taken.hits.sum() == 0
    assert taken.index_n.tolist() == [20] * 7 + [0] * 5


def test_a_masked_subject_sees_each_token_hidden_once_and_never_the_answer() -> None:
    shown = []

    class Masked(LookupSubject):
        """Knows 37% of what it is asked, and is asked with the mask alone."""

        mask_id = 50

        def score(self, rows: Rows) -> Scores:
            shown.append(rows)
            return super().score(rows)

    sequences = planted(10, 100)
    taken = full_pass(Masked(share="0.37", vocab_size=50), over=EvalSet.whole("x", sequences=sequences))
    assert len(shown) == DRAWS
    assert taken.tokens == 1000 and taken.index_n.tolist() == [10] * 100
    assert all((rows.tokens[rows.scored] == 50).all() for rows in shown)
    assert np.sum([rows.scored for rows in shown], axis=0).tolist() == np.ones((10, 100)).tolist()
    assert taken.hits.sum() == sum(
        (LookupSubject(share="0.37", vocab_size=50).score(rows).hit & rows.scored).sum() for rows in shown
    )


def test_predictions_come_with_a_pass_that_asks_for_them() -> None:
    """A masked subject gives them draw by draw; one that cannot is told so before it is asked."""
    over = EvalSet.whole("x", sequences=planted(70, 40))

    class Masked(LookupSubject):
        mask_id = 50

    for subject in (LookupSubject(share="0.37", vocab_size=50), Masked(share="0.37", vocab_size=50)):
        for batch in scored_batches(subject, over=over, predict=True):
            assert batch.predicted is not None
            assert np.array_equal(batch.predicted == batch.rows.targets, batch.hit)
            assert (batch.predicted[batch.rows.scored] > 0).all()
        assert all(batch.predicted is None for batch in scored_batches(subject, over=over))

    class Mute:
        mask_id = None
        score = LookupSubject(share="0.37", vocab_size=50).score

    with pytest.raises(SpecError, match="does not say which token"):
        next(scored_batches(Mute(), over=over, predict=True))
