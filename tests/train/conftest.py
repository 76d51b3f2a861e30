"""The smallest runs that still train: one layer of width 8 over bytes of a synthetic text."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from repetita.corpus.sequences import Corpus, CorpusSpec, open_corpus
from repetita.corpus.splits import Splits
from repetita.corpus.synthetic import SyntheticSpec
from repetita.corpus.tokenizer import TokenizerSpec
from repetita.corpus.treatment import RepeatedSubset
from repetita.journal.folder import read_journal
from repetita.journal.records import Reading
from repetita.model import checkpoint
from repetita.model.config import ModelConfig
from repetita.subject import Subject
from repetita.train.loop import Due
from repetita.train.recipe import Recipe, RunSpec

CORPUS = CorpusSpec(
    source="synthetic",
    synthetic=SyntheticSpec(n_documents=40, n_words=60),
    tokenizer=TokenizerSpec(kind="bytes"),
    length=16,
    splits=Splits(test="1/10", special="1/10", placebo="1/10"),
)
MODEL = ModelConfig(n_layer=1, d_model=8, n_head=1, vocab_size=257, context=16)

Make = Callable[..., RunSpec]


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return open_corpus(CORPUS, cache=tmp_path_factory.mktemp("corpora"))


@pytest.fixture(autouse=True)
def _no_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kill, unlike a power cut, loses nothing that was written; syncing it is what takes the time."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture
def spec() -> Make:
    def make(*, recipe: dict[str, Any] | None = None, **changes: Any) -> RunSpec:
        values: dict[str, Any] = {
            "corpus": CORPUS,
            "model": MODEL,
            "treatment": RepeatedSubset(fraction="1/2", passes=2),
            "steps": 12,
            "batch_size": 4,
        }
        recipe = {"learning_rate": 1e-2, "warmup_steps": 3} | (recipe or {})
        return RunSpec(**(values | {"recipe": Recipe(**recipe)} | changes))

    return make


@pytest.fixture
def probe(corpus: Corpus) -> Callable[..., Due]:
    """Loss on eight test sequences; `fingerprint` and steps as asked."""

    def measure(subject: Subject) -> Iterator[Reading]:
        rows = corpus.sets["test"].rows(np.arange(8))
        loss = subject.score(rows).loss
        yield Reading(
            "loss", "test", float(loss.sum()), int(rows.scored.sum()), None, {"sums": loss.sum(axis=1)}
        )

    def make(*steps: int, fingerprint: str = "0123456789ab") -> Due:
        return Due(fingerprint, "loss", frozenset(steps), measure)

    return make


def weights(path: Path, step: int) -> dict[str, bytes]:
    """The weights of a checkpoint as bytes."""
    model = checkpoint.load(checkpoint.checkpoint_path(path, step=step)).model
    return {name: tensor.numpy().tobytes() for name, tensor in model.items()}


def journal(path: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """What must be equal between equal runs: all steps but their seconds, and all measurements."""
    steps = [{**line, "seconds": 0} for line in read_journal(path, journal="steps")]
    return steps, sorted(map(str, read_journal(path, journal="measurements")))


def same(one: Path, other: Path, *, step: int) -> bool:
    """Whether two runs are equal bit for bit at `step`, weights and journals and items."""
    items = [{file.name: file.read_bytes() for file in (path / "items").glob("*")} for path in (one, other)]
    return (
        weights(one, step) == weights(other, step) and journal(one) == journal(other) and items[0] == items[1]
    )
