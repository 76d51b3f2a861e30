"""A run's identity holds what changes its result, and nothing else."""

from pathlib import Path

import pytest

from repetita.corpus.treatment import Passes, SpecialBatch, Stream
from repetita.errors import SpecError
from repetita.train.recipe import Recipe, run_fingerprint, run_path, run_slug, same_start
from tests.train.conftest import CORPUS, MODEL, Make


def test_the_first_update_has_a_rate_above_zero_and_warm_up_is_linear() -> None:
    recipe = Recipe(learning_rate=1.0, warmup_steps=4)
    assert [recipe.lr(step) for step in range(6)] == [0.25, 0.5, 0.75, 1, 1, 1]


@pytest.mark.parametrize("curve", ["cosine", "linear"])
def test_decay_ends_at_its_share_of_the_peak(curve: str, spec: Make) -> None:
    recipe = spec(recipe={"curve": curve, "warmup_steps": 0, "final_share": 0.1}, steps=100).recipe
    assert recipe.lr(0) == pytest.approx(1e-2)
    assert recipe.lr(100) == pytest.approx(1e-3)
    assert all(recipe.lr(step) > recipe.lr(step + 1) for step in range(100))


def test_a_decay_that_ends_in_the_warm_up_is_refused(spec: Make) -> None:
    with pytest.raises(SpecError, match="warmup_steps = 20"):
        spec(recipe={"curve": "cosine", "warmup_steps": 20})


def test_identity_changes_with_the_corpus_but_not_with_its_place(spec: Make) -> None:
    moved = CORPUS.edit(source="/elsewhere", synthetic=None)
    one, other = spec(corpus=CORPUS.edit(synthetic=None, source="/here")), spec(corpus=moved)
    assert run_fingerprint(one, corpus_fingerprint="a") == run_fingerprint(other, corpus_fingerprint="a")
    assert run_fingerprint(one, corpus_fingerprint="a") != run_fingerprint(one, corpus_fingerprint="b")
    assert run_fingerprint(one, corpus_fingerprint="a") != run_fingerprint(
        one.edit(seed=1), corpus_fingerprint="a"
    )


def test_a_folder_is_named_by_size_treatment_seed_and_fingerprint(spec: Make) -> None:
    path = run_path(Path("out"), spec=spec(seed=3), corpus_fingerprint="a")
    assert path.parent == Path("out/runs")
    assert path.name.startswith("888-repeated_subset-s3-")
    wide = MODEL.edit(d_model=32, d_mlp=128, n_layer=2)
    assert run_slug(spec(model=wide)).startswith("25.5k-")


def test_runs_that_differ_after_a_step_have_the_same_start(spec: Make) -> None:
    base = Passes(n_sequences=16)
    control = spec(treatment=base, steps=12)
    special = spec(treatment=SpecialBatch(base=base, size=4, at=6), steps=12)
    placebo = spec(treatment=SpecialBatch(base=base, size=4, at=6, arm="placebo"), steps=12)
    assert same_start(special, other=placebo, step=6)
    assert same_start(special, other=control, step=6)
    assert same_start(special, other=control.until(6), step=6)
    assert not same_start(special, other=placebo, step=7)
    assert not same_start(special, other=control.until(6), step=8)
    assert not same_start(control, other=control.edit(seed=1), step=6)
    assert not same_start(control, other=spec(treatment=Stream()), step=6)
