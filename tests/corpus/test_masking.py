"""Masks: their shares, what is shown, that they are keyed, and that measuring covers each position once."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from repetita.corpus.masking import DRAWS, KINDS, MASK_SHARE, measuring_masks, training_masks
from repetita.corpus.sequences import as_rows
from repetita.subject import Rows

V = 50


def text(n_rows: int, length: int, *, seed: int = 0, unscored: float = 0.1) -> Rows:
    generator = np.random.default_rng(seed)
    targets = generator.integers(1, V, (n_rows, length))
    targets[generator.random(targets.shape) < unscored] = 0
    return as_rows(targets)


@given(st.integers(1, 20), st.integers(1, 70), st.integers(0, 5), st.integers(0, 10**9))
def test_a_row_has_its_share_to_within_one_token(n_rows: int, length: int, seed: int, step: int) -> None:
    rows = text(n_rows, length, seed=seed)
    masked, kind = training_masks(rows, vocab_size=V, seed=seed, step=step)
    assert (np.abs(masked.scored.sum(axis=1) - MASK_SHARE * rows.scored.sum(axis=1)) < 1).all()
    assert not (masked.scored & ~rows.scored).any(), "separators and padding are never chosen"
    assert np.array_equal(masked.targets, rows.targets)
    assert np.array_equal(masked.tokens[~masked.scored], rows.targets[~masked.scored])
    assert np.array_equal(kind >= 0, masked.scored)
    assert (masked.tokens[kind == KINDS.index("mask")] == V).all()
    assert np.array_equal(masked.tokens[kind == 2], rows.targets[kind == 2])
    shown = masked.tokens[kind == KINDS.index("random")]
    assert ((shown >= 1) & (shown < V)).all()


def test_shares_are_exact_in_the_mean() -> None:
    rows, chosen, kinds, shown = text(64, 30, unscored=0.0), 0, np.zeros(3), []
    for step in range(200):
        masked, kind = training_masks(rows, vocab_size=V, seed=1, step=step)
        chosen += masked.scored.sum()
        kinds += np.bincount(kind[kind >= 0], minlength=3)
        shown.append(masked.tokens[kind == 1])
    n = 200 * 64 * 30
    assert chosen / n == pytest.approx(MASK_SHARE, abs=0.001)
    assert kinds / chosen == pytest.approx([0.8, 0.1, 0.1], abs=0.006)
    counts = np.bincount(np.concatenate(shown), minlength=V)[1:]
    assert counts.min() > 0.7 * counts.mean(), "every token is drawn alike"


def test_every_position_is_chosen_alike() -> None:
    rows = text(16, 20, unscored=0.0)
    times = sum(
        training_masks(rows, vocab_size=V, seed=0, step=s).rows.scored.astype(int) for s in range(1000)
    )
    assert np.abs(np.asarray(times) - 150).max() < 5 * np.sqrt(150)


def test_masks_are_keyed_by_seed_step_and_slot() -> None:
    rows = text(1, 200, unscored=0.0)
    twice = as_rows(np.repeat(rows.targets, 2, axis=0))
    one = training_masks(twice, vocab_size=V, seed=0, step=3)
    again = training_masks(twice, vocab_size=V, seed=0, step=3)
    assert all(np.array_equal(a, b) for a, b in zip(one.rows, again.rows, strict=True))
    assert not np.array_equal(one.rows.scored[0], one.rows.scored[1]), "slots differ"
    for seed, step in ((1, 3), (0, 4)):
        other = training_masks(twice, vocab_size=V, seed=seed, step=step)
        assert not np.array_equal(one.rows.scored, other.rows.scored)


def test_a_slot_does_not_depend_on_the_rows_beside_it() -> None:
    rows, other = text(4, 40), text(4, 40, seed=9)
    mixed = as_rows(np.concatenate([rows.targets[:2], other.targets[2:]]))
    one, two = (training_masks(r, vocab_size=V, seed=0, step=5).rows for r in (rows, mixed))
    assert np.array_equal(one.tokens[:2], two.tokens[:2]) and np.array_equal(one.scored[:2], two.scored[:2])


@given(st.integers(1, 9), st.integers(1, 70), st.integers(0, 5))
def test_the_draws_are_disjoint_and_cover_each_position_once(n_rows: int, length: int, seed: int) -> None:
    rows = text(n_rows, length, seed=seed)
    drawn = measuring_masks(rows, mask_id=V, name="test", indices=np.arange(n_rows))
    assert len(drawn) == DRAWS
    assert np.array_equal(sum(one.scored.astype(int) for one in drawn), rows.scored.astype(int))
    for one in drawn:
        assert (one.tokens[one.scored] == V).all(), "a chosen position shows the mask, never the answer"
        assert np.array_equal(one.tokens[~one.scored], rows.targets[~one.scored])
        sizes = [each.scored.sum(axis=1) for each in drawn]
        assert (np.max(sizes, axis=0) - np.min(sizes, axis=0) <= 1).all()


def test_measuring_masks_belong_to_the_sequence_whatever_is_asked_with_it() -> None:
    rows = text(6, 40)
    whole = measuring_masks(rows, mask_id=V, name="train", indices=np.array([3, 8, 1, 0, 90, 4]))
    alone = as_rows(rows.targets[4:5])
    for one, other in zip(
        whole, measuring_masks(alone, mask_id=V, name="train", indices=np.array([90])), strict=True
    ):
        assert np.array_equal(one.scored[4:5], other.scored)
    elsewhere = measuring_masks(alone, mask_id=V, name="test", indices=np.array([90]))
    assert not np.array_equal(whole[0].scored[4:5], elsewhere[0].scored)


def test_golden() -> None:
    """Masks are part of a run's identity: when these move, raise MASKING in train/recipe.py."""
    rows = as_rows(np.arange(1, 41).reshape(2, 20))
    masked, kind = training_masks(rows, vocab_size=V, seed=0, step=7)
    measured = measuring_masks(rows, mask_id=V, name="test", indices=np.array([0, 5]))
    assert np.argwhere(masked.scored).tolist() == GOLDEN["chosen"]
    assert kind[masked.scored].tolist() == GOLDEN["kind"]
    assert np.argwhere(measured[2].scored).tolist() == GOLDEN["measured"]


GOLDEN: dict[str, list[object]] = {
    "chosen": [[0, 9], [0, 12], [0, 18], [1, 14], [1, 17], [1, 19]],
    "kind": [0, 0, 1, 0, 0, 0],
    "measured": [[0, 6], [0, 7], [0, 14], [1, 3], [1, 4], [1, 7]],
}
