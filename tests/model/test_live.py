"""A live subject answers as the model does, disturbs nothing, and comes back from a checkpoint."""

from pathlib import Path

import numpy as np
import pytest
import torch

from repetita.errors import NotApplicable, RunFolderError, SpecError
from repetita.journal.records import JournalPosition
from repetita.model.checkpoint import save
from repetita.model.config import ModelConfig
from repetita.model.live import LiveSubject, checkpoint_subject
from repetita.model.memory import Batches
from repetita.model.transformer import Transformer
from repetita.subject import Continuing, Describing, Predicting, Rows, Sampling, Subject, Weighing

CONFIG = ModelConfig(n_layer=2, d_model=16, n_head=2, vocab_size=40, context=10)


def rows(n_rows: int = 7) -> Rows:
    generator = np.random.default_rng(0)
    targets = generator.integers(1, 40, (n_rows, 10))
    tokens = np.concatenate([np.zeros((n_rows, 1), dtype=np.int64), targets[:, :-1]], axis=1)
    return Rows(tokens=tokens, targets=targets, scored=generator.random((n_rows, 10)) < 0.8)


def test_answers_as_the_model_does() -> None:
    model, given = Transformer(CONFIG, seed=0), rows()
    scores = LiveSubject(model, batch_rows=3).score(given)
    with torch.no_grad():
        logits = (
            (model.hidden(torch.from_numpy(given.tokens)) @ model.output_weight.T).log_softmax(-1).numpy()
        )
    expected = -np.take_along_axis(logits, given.targets[..., None], axis=-1)[..., 0]
    np.testing.assert_allclose(scores.loss, expected * given.scored, rtol=1e-5, atol=1e-6)
    assert np.array_equal(scores.hit, (logits.argmax(-1) == given.targets) & given.scored)
    assert scores.loss.dtype == np.float32 and scores.hit.dtype == np.bool_


def test_says_what_it_predicts() -> None:
    model, given = Transformer(CONFIG, seed=0), rows()
    subject = LiveSubject(model, batch_rows=3)
    scored, found = subject.score(given), subject.predict(given)
    with torch.no_grad():
        logits = (model.hidden(torch.from_numpy(given.tokens)) @ model.output_weight.T).numpy()
    assert found.predicted is not None
    assert np.array_equal(found.predicted, logits.argmax(-1) * given.scored)
    assert np.array_equal(found.loss, scored.loss) and np.array_equal(found.hit, scored.hit)
    assert scored.predicted is None


def test_without_heads_it_reads_as_much_in_the_same_batches() -> None:
    subject = LiveSubject(Transformer(CONFIG, seed=0))
    subject.batches = Batches(torch.device("cpu"), tokens=30)
    less = subject.without([(0, 1)])
    assert less.readout.context == 10 and less.batches.size(10) == 3
    longer = np.ones((1, 11), dtype=np.int64)
    for ask in (subject, less):
        with pytest.raises(SpecError, match="longer than the model's context of 10"):
            ask.score(Rows(longer, longer, longer > 0))
        with pytest.raises(SpecError, match="token id 40 is outside the 40 that the model's embedding has"):
            ask.score(Rows(longer[:, :5] * 40, longer[:, :5], longer[:, :5] > 0))


def test_is_a_subject() -> None:
    assert isinstance(LiveSubject(Transformer(CONFIG, seed=0)), Subject)
    assert isinstance(LiveSubject(Transformer(CONFIG, seed=0)), Predicting)


def test_writes_on_what_it_finds_most_likely() -> None:
    model = Transformer(CONFIG, seed=0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    subject, prompts = LiveSubject(model, batch_rows=3), rows().targets[:, :4]
    written = subject.continue_(prompts, n_tokens=7)
    expected = torch.from_numpy(prompts)
    with torch.no_grad():
        for _ in range(7):
            logits = model.hidden(expected)[:, -1] @ model.output_weight.T
            expected = torch.cat([expected, logits.argmax(-1)[:, None]], dim=1)
    assert np.array_equal(written, expected[:, 4:].numpy())
    with pytest.raises(
        SpecError, match="8 tokens behind a prompt of 4 are more than the model's context of 10"
    ):
        subject.continue_(prompts, n_tokens=8)
    masked = LiveSubject(Transformer(CONFIG.edit(objective="masked"), seed=0))
    with pytest.raises(NotApplicable, match="masked"):
        masked.continue_(prompts, n_tokens=1)


def test_weighs_and_describes() -> None:
    model, given = Transformer(CONFIG, seed=0), rows()
    subject = LiveSubject(model, batch_rows=3)
    with torch.no_grad():
        logits = (model.hidden(torch.from_numpy(given.tokens)) @ model.output_weight.T).double()
    log_p = logits.log_softmax(-1).numpy()
    at = given.targets[..., None]
    own = np.take_along_axis(log_p, at, axis=-1)[..., 0] * given.scored
    np.testing.assert_allclose(subject.log_probs(given), own, rtol=1e-5, atol=1e-6)
    cooled = (logits / 0.5).numpy()
    cooled[cooled < np.sort(cooled, axis=-1)[..., -8:][..., :1]] = -np.inf
    cut = np.take_along_axis(torch.from_numpy(cooled).log_softmax(-1).numpy(), at, axis=-1)[..., 0]
    found = subject.log_probs(given, sampling=Sampling(temperature=0.5, top_k=8))
    np.testing.assert_allclose(found, np.where(given.scored, cut, 0), rtol=1e-5, atol=1e-6)
    mean = (np.exp(log_p) * log_p).sum(-1)
    sd = np.sqrt((np.exp(log_p) * (log_p - mean[..., None]) ** 2).sum(-1))
    for one, other in zip(subject.moments(given), (own, mean, sd), strict=True):
        np.testing.assert_allclose(one, other * given.scored, rtol=1e-4, atol=1e-5)
    for capability in (Continuing, Weighing, Describing):
        assert isinstance(subject, capability)


@pytest.mark.parametrize("batch_rows", [1, 2, 7, 100])
def test_batching_changes_next_to_nothing(batch_rows: int) -> None:
    model = Transformer(CONFIG, seed=0)
    one, other = LiveSubject(model).score(rows()), LiveSubject(model, batch_rows=batch_rows).score(rows())
    np.testing.assert_allclose(one.loss, other.loss, rtol=1e-5)


def test_no_rows() -> None:
    empty = Rows(*(values[:0] for values in rows()))  # type: ignore[arg-type]
    assert LiveSubject(Transformer(CONFIG, seed=0)).score(empty).loss.shape == (0, 10)


def test_read_only_and_foreign_arrays_are_read() -> None:
    """Memory-mapped sequences are read-only, and transposed or narrow ones are legal too."""
    given = rows()
    odd = Rows(np.asfortranarray(given.tokens), given.targets.astype(np.int32).astype(np.int64), given.scored)
    for values in odd:
        values.setflags(write=False)
    subject = LiveSubject(Transformer(CONFIG, seed=0))
    assert np.array_equal(subject.score(odd).loss, subject.score(given).loss)


def test_asking_disturbs_nothing() -> None:
    model = Transformer(CONFIG, seed=0)
    model.embedding.weight.grad = torch.ones_like(model.embedding.weight)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.random.get_rng_state()
    LiveSubject(model).score(rows())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(model.embedding.weight.grad, torch.ones_like(model.embedding.weight))
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert torch.equal(torch.random.get_rng_state(), state) and torch.is_grad_enabled()


def test_checkpoint_answers_as_its_model_did(tmp_path: Path) -> None:
    model = Transformer(CONFIG, seed=5)
    save(
        tmp_path,
        step=20,
        tokens=999,
        config=CONFIG,
        journal=JournalPosition(files={}),
        model=model.state_dict(),
        optimizer=None,
    )
    live, kept = LiveSubject(model).score(rows()), checkpoint_subject(tmp_path, step=20).score(rows())
    assert np.array_equal(live.loss, kept.loss) and np.array_equal(live.hit, kept.hit)
    with pytest.raises(RunFolderError, match=r"no checkpoint of step 21 \(kept: 20\)"):
        checkpoint_subject(tmp_path, step=21)


def test_batch_of_no_rows_is_refused() -> None:
    with pytest.raises(SpecError, match="batch_rows = 0"):
        LiveSubject(Transformer(CONFIG, seed=0), batch_rows=0)
