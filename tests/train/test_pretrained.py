"""A run that begins with somebody else's model learns what a literal loop over that model learns."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from repetita.corpus.document_ids import DocumentIds
from repetita.corpus.sequences import Corpus, CorpusSpec, compose
from repetita.corpus.treatment import Stream
from repetita.errors import RunStopped, SpecError
from repetita.journal.folder import read_header, read_journal
from repetita.model.adopted import Adopted, adopt, pretrained_model
from repetita.model.config import count
from repetita.model.live import checkpoint_subject, subject_of
from repetita.model.pretrained_loading import _set_dropout
from repetita.spec import canonical_json
from repetita.study.corpora import Corpora
from repetita.study.expand import expand
from repetita.study.plan import PlannedRun
from repetita.study.price import PROCESS_BYTES, Rates, job_cost, job_state
from repetita.subject import Rows
from repetita.train import loop
from repetita.train.loop import Due, Options, train
from repetita.train.optimizer import Optimizer
from repetita.train.recipe import RunSpec, Start, open_schedule, run_fingerprint
from repetita.train.run import Run
from repetita.train.update import Updater
from tests.train.conftest import same
from tests.train.pretrained import LENGTH, MASK, PAD, SEPARATOR, START, corpus_of, save_model, spec_of

KINDS = {"gpt2": {}, "llama": {}, "tied": {"tie_word_embeddings": True}, "bert": {}}
"""GPT-2 (tied), a rotary model with its own output matrix, the same tied, and a masked one with a head."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    root, made = tmp_path_factory.mktemp("models"), dict[str, Path]()

    def folder(kind: str) -> Path:
        if kind not in made:
            made[kind] = save_model(root / kind, "llama" if kind == "tied" else kind, **KINDS[kind])
        return made[kind]

    return folder


def updater(spec: RunSpec) -> Updater:
    model = adopt(spec.model, device="cpu", dropout=spec.recipe.dropout)  # type: ignore[arg-type]
    return Updater(spec, model, Optimizer(model, recipe=spec.recipe), torch.device("cpu"), None)


def first_batch(spec: RunSpec, corpus: Corpus) -> tuple[Any, Rows]:
    batch = open_schedule(spec, corpus=corpus).batch(0)
    return batch, compose(batch, corpus.sets)


def library_model(folder: Path, kind: str) -> Any:
    from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

    auto = AutoModelForMaskedLM if kind == "bert" else AutoModelForCausalLM
    return auto.from_pretrained(folder, dtype=torch.float32).eval()


def library_loss(model: Any, rows: Rows, kind: str) -> Any:
    """The loss that transformers computes itself, of ids that are written down by hand here."""
    if kind == "bert":
        tokens = np.where(rows.tokens == 261, MASK, np.where(rows.tokens == 0, SEPARATOR, rows.tokens - 1))
        attention = np.ones_like(tokens)
        for row in range(len(tokens)):
            end = LENGTH
            while end and rows.tokens[row, end - 1] == 0:
                end -= 1
            tokens[row, end:], attention[row, end:] = PAD, 0
        labels = np.where(rows.scored, rows.targets - 1, -100)
        given = {"input_ids": tokens, "attention_mask": attention, "labels": labels}
    else:
        # The library shifts by itself: it is given the last target as well, and scores none of the first.
        tokens = np.concatenate([rows.tokens, rows.targets[:, -1:]], axis=1) - 1
        labels = np.concatenate([np.full((len(tokens), 1), -100), rows.targets - 1], axis=1)
        tokens[tokens < 0] = START
        labels[labels < 0] = -100
        given = {"input_ids": tokens, "labels": labels}
    return model(**{name: torch.from_numpy(values) for name, values in given.items()}).loss


def masked_rows(spec: RunSpec, rows: Rows) -> Rows:
    from repetita.corpus.masking import training_masks

    return training_masks(rows, vocab_size=spec.model.vocab_size, seed=spec.seed, step=0).rows


@pytest.mark.parametrize("kind", KINDS)
def test_the_first_loss_and_update_are_those_of_a_literal_loop(
    kind: str, folders: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = folders(kind)
    recipe = {"weight_decay": 0.1, "warmup_steps": 0, "clip": 0.5, "learning_rate": 0.01}
    recipe["eps"] = 1e-3  # Adam's first step would else be the sign of gradients that are rounding alone.
    spec = spec_of(folder, recipe=recipe)
    batch, rows = first_batch(spec, corpus_of(spec, tmp_path))
    assert (rows.tokens[:, 1:] == 0).any(), "a separator inside a row"
    ours = updater(spec)
    record = ours.update(rows, batch=batch, tokens=0)
    loss, hits, n = np.sum(list(record.sets.values()), axis=0)
    assert 0 <= hits < n

    model = library_model(folder, kind)
    theirs = library_loss(model, masked_rows(spec, rows) if kind == "bert" else rows, kind)
    assert loss / n == pytest.approx(float(theirs.detach()), rel=1e-5)
    assert isinstance(ours.model, Adopted)
    assert (ours.model._weight is None) == (kind == "bert")

    theirs.backward()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
    assert record.gradient_norm == pytest.approx(float(norm), rel=1e-4)
    groups = [
        {"params": [p for p in model.parameters() if (p.ndim > 1) == matrix], "weight_decay": decay}
        for matrix, decay in ((True, 0.1), (False, 0.0))
    ]
    torch.optim.AdamW(groups, lr=0.01, betas=(0.9, 0.98), eps=1e-3).step()
    for (name, mine), other in zip(ours.model.named_parameters(), model.parameters(), strict=True):
        assert torch.allclose(mine, other, rtol=1e-5, atol=2e-6), name


def test_what_a_spec_says_of_a_model(folders: Callable[[str], Path]) -> None:
    for kind in KINDS:
        spec, model = pretrained_model(folders(kind)), library_model(folders(kind), kind)
        counted = count(spec)
        assert counted.total == sum(p.numel() for p in model.parameters())
        assert counted.embedding == 264 * 32
        assert counted.output == (264 * 32 if kind == "llama" else 0)
        assert spec.vocab_size == 261 and spec.objective == ("masked" if kind == "bert" else "causal")
        assert (spec.start, spec.mask) == ((SEPARATOR, MASK) if kind == "bert" else (START, None))
    assert pretrained_model(folders("bert")).pad == PAD


def test_weights_are_identity_and_their_place_is_not(folders: Callable[[str], Path], tmp_path: Path) -> None:
    import shutil

    spec = spec_of(folders("gpt2"))
    moved = spec_of(Path(shutil.copytree(folders("gpt2"), tmp_path / "elsewhere")))
    other = spec_of(save_model(tmp_path / "gpt2", "gpt2", scale=0.2))
    names = [run_fingerprint(one, corpus_fingerprint="c") for one in (spec, moved, other)]
    assert names[0] == names[1] != names[2]
    back = RunSpec.from_json(canonical_json(spec))
    assert back == spec and back.model.name == "gpt2"  # type: ignore[union-attr]


@pytest.mark.parametrize("kind", ["gpt2", "bert"])
def test_a_stopped_run_ends_as_one_that_never_stopped(
    kind: str,
    folders: Callable[[str], Path],
    probe: Callable[..., Due],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipe = {"dropout": 0.1, "weight_decay": 0.1, "curve": "cosine"}
    spec = spec_of(folders(kind), recipe=recipe)
    corpus = corpus_of(spec, tmp_path)

    def measure(subject: Any) -> Any:
        rows = corpus.sets["test"].rows(np.arange(4))
        loss = subject.score(rows).loss
        from repetita.journal.records import Reading

        yield Reading("loss", "test", float(loss.sum()), int(rows.scored.sum()))

    due = [probe(0, 5, 12)._replace(measure=measure)]
    straight = train(spec, corpus=corpus, root=tmp_path / "a", probes=due, keep=frozenset({5}))
    assert not straight.failed
    torch.rand(3)  # Another state of the global generator.
    state, follow = torch.get_rng_state(), Run.record

    def stopping(run: Any, record: Any) -> None:
        follow(run, record)
        if run.step == 7:
            run.save(optimizer=True)
            raise RunStopped("as if killed")

    with monkeypatch.context() as patched:
        patched.setattr(Run, "record", stopping)
        with pytest.raises(RunStopped):
            train(spec, corpus=corpus, root=tmp_path / "b", probes=due, keep=frozenset({5}))
    resumed = train(spec, corpus=corpus, root=tmp_path / "b", probes=due, keep=frozenset({5}))
    assert resumed.trained_steps == 5
    assert same(straight.path, resumed.path, step=12) and same(straight.path, resumed.path, step=5)
    assert torch.equal(state, torch.get_rng_state()), "the global generator is nobody's business here"
    losses = [line["value"] for line in read_journal(straight.path, journal="measurements")]
    assert losses[-1] < losses[0]


def test_a_checkpoint_opens_where_the_start_is_gone(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "model", "llama")
    spec = spec_of(folder, treatment=Stream(), steps=3)
    corpus = corpus_of(spec, tmp_path)
    rows = corpus.sets["test"].rows(np.arange(5))
    run = train(spec, corpus=corpus, root=tmp_path / "out")
    header = read_header(run.path)
    assert "pretrained-stream-s0" in run.path.name and "transformers" in header["versions"]
    assert str(tmp_path) not in (run.path / "run.json").read_text()
    position = run.path / "checkpoints" / "00000003" / "position.json"
    assert str(tmp_path) not in position.read_text()
    for file in folder.iterdir():
        file.unlink()
    subject = checkpoint_subject(run.path, step=3)
    scores = subject.score(rows)
    assert scores.loss[rows.scored].mean() > 0
    # Every capability answers in the ids of the corpus.
    written = subject.continue_(rows.tokens[:, :4], n_tokens=3)
    for guess in (written, rows.tokens[:, 4:7]):
        assert np.array_equal(subject.continue_(rows.tokens[:, :4], n_tokens=3, guess=guess), written)
    again = Rows(
        np.concatenate([rows.tokens[:, :4], written], axis=1)[:, :-1],
        np.concatenate([rows.tokens[:, 1:4], written], axis=1),
        np.arange(6)[None].repeat(5, axis=0) >= 3,
    )
    assert subject.score(again).hit[:, 3:].all(), "what it writes is what it finds most likely"
    assert sum(pattern.shape[0] for pattern in subject.attend(rows.tokens)) == 2 * 5
    assert np.isfinite(subject.moments(rows).mean).all()
    off = subject.without([(0, 1)]).score(rows)
    assert not np.array_equal(off.loss, scores.loss)
    assert spec.model.source is not None  # type: ignore[union-attr]


def test_probes_see_the_ids_of_the_corpus(folders: Callable[[str], Path], tmp_path: Path) -> None:
    spec = spec_of(folders("bert"))
    rows = corpus_of(spec, tmp_path).sets["test"].rows(np.arange(6))
    shown = masked_rows(spec, rows)
    subject = subject_of(updater(spec).model, device=torch.device("cpu"))
    assert subject.mask_id == spec.model.vocab_size
    expected = library_loss(library_model(folders("bert"), "bert"), shown, "bert")
    own = subject.score(shown).loss[shown.scored].mean()
    assert own == pytest.approx(float(expected.detach()), rel=1e-5)


def test_a_run_starts_from_such_a_run(folders: Callable[[str], Path], tmp_path: Path) -> None:
    spec = spec_of(folders("gpt2"), steps=4)
    corpus = corpus_of(spec, tmp_path)
    first = train(spec, corpus=corpus, root=tmp_path)
    child = spec.edit(treatment=Stream(), steps=2, start=Start(run=spec))
    name = run_fingerprint(spec, corpus_fingerprint=corpus.fingerprint)
    begun = train(child, corpus=corpus, root=tmp_path, parent=loop.Parent(name, first.path))
    assert begun.trained_steps == 2
    lines = list(read_journal(begun.path, journal="steps"))
    assert lines[0]["tokens_total"] > 0


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"corpus": CorpusSpec(source="synthetic")}, "corpus.tokenizer is not that of the model gpt2"),
        ({"document_ids": DocumentIds()}, "leave them out"),
    ],
)
def test_what_does_not_fit_is_refused(
    changes: dict[str, Any], said: str, folders: Callable[[str], Path]
) -> None:
    with pytest.raises(SpecError, match=said):
        spec_of(folders("gpt2"), **changes)


def test_a_text_longer_than_the_context_is_refused(folders: Callable[[str], Path]) -> None:
    spec = spec_of(folders("gpt2"))
    with pytest.raises(SpecError, match=r"longer than the context of the model gpt2 \(96\); shorten it"):
        spec.edit(corpus=spec.corpus.edit(length=97))


def test_a_tokenizer_of_the_same_size_is_another_one(folders: Callable[[str], Path], tmp_path: Path) -> None:
    spec = spec_of(folders("gpt2"))
    other = tmp_path / "tokenizer.json"
    text = (folders("gpt2") / "tokenizer.json").read_text()
    other.write_text(text.replace('"e": 101', '"e": 102').replace('"f": 102', '"f": 101'))
    assert other.read_text() != text
    tokenizer = spec.corpus.tokenizer.edit(source=str(other))
    spec = spec.edit(corpus=spec.corpus.edit(tokenizer=tokenizer))
    with pytest.raises(SpecError, match=r"not that of the model gpt2.*--tokenizer .*gpt2 --length 16"):
        train(spec, corpus=corpus_of(spec, tmp_path), root=tmp_path)


def test_dropout_is_the_recipes(tmp_path: Path) -> None:
    from transformers import PreTrainedConfig

    folder = save_model(tmp_path / "opt", "opt", dropout=0.3, layerdrop=0.5)
    for share in (0.0, 0.2):
        config = adopt(spec_of(folder).model, device="cpu", dropout=share).module.config  # type: ignore[arg-type]
        assert (config.dropout, config.attention_dropout, config.layerdrop) == (share, share, 0.0)
    with pytest.raises(SpecError, match=r"dropout = 0\.1 has no effect on plain, which has none"):
        _set_dropout(PreTrainedConfig(), 0.1, name="plain")


def test_other_weights_are_refused(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "model", "gpt2")
    spec = spec_of(folder, steps=2)
    corpus = corpus_of(spec, tmp_path)
    save_model(folder, "gpt2", scale=0.2)
    with pytest.raises(SpecError, match="model holds other weights, or another config, than those"):
        train(spec, corpus=corpus, root=tmp_path / "out", options=Options())


def test_a_plan_prices_such_a_run(folders: Callable[[str], Path], tmp_path: Path) -> None:
    spec = spec_of(folders("llama"))
    corpora = Corpora(tmp_path)
    (job,) = expand([PlannedRun(spec=spec, labels={}, probes=())], root=tmp_path, corpora=corpora.fingerprint)
    cost = job_cost(job, state=job_state(job), tokens={}, rates=Rates())
    assert cost.training_tokens == 12 * 4 * LENGTH and cost.seconds > 0
    assert cost.memory > PROCESS_BYTES + 16 * count(spec.model).total
    train(spec, corpus=corpora.open(spec.corpus), root=tmp_path)
    assert Rates.of(tmp_path).like(spec.model, tokens_per_step=4 * LENGTH) is not None
