"""The public names: which they are, and that every example in a docstring is true."""

import doctest
import inspect
import types
from pathlib import Path

import pytest

import repetita
from repetita.study.execute import Outcome

PINNED = """
Analysis At AtPasses Audit Axis Claim CorpusSpec DocumentIds Estimate Every Figure FromTable Insertion
Insertions Layer LogSpaced ModelConfig Panels Passes PlannedRun ReadingRule Recipe RepeatedSubset
RepetitaError Rule RunSpec ScoreProbe Series Several SpecialBatch Splits StepBatches Stream Study
SyntheticSpec TokenizerSpec UserError build_corpus diagnose directional equivalent export_run fit_law
from_estimate hf_tokenizer_spec journalled ladder measure_run measure_series new_study open_elsewhere paired
plan_study pretrained_model report_study run_audit run_study series_audit table train_run undecided watch_runs
"""
"""A name is added here on purpose, and taken away only after one minor release that warns."""

FUNCTIONS = sorted(
    name for name in repetita.__all__ if isinstance(getattr(repetita, name), types.FunctionType)
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("user")


@pytest.fixture(scope="module")
def outcome(folder: Path) -> Outcome:
    """The study that `study new` writes, run at its tiny scale."""
    with pytest.MonkeyPatch.context() as here:
        here.chdir(folder)
        return repetita.run_study(repetita.new_study("my_question"), scale="tiny", processes=2)


def test_the_public_names_are_these() -> None:
    assert repetita.__all__ == PINNED.split()
    assert set(repetita._HOMES) == set(repetita.__all__)
    assert set(dir(repetita)) >= set(repetita.__all__)
    for name in repetita.__all__:
        home = getattr(repetita, name).__module__
        assert home == repetita._HOMES[name], f"{name} lives in {home}"
    with pytest.raises(AttributeError, match="no attribute 'run_studdy'"):
        repetita.run_studdy  # type: ignore[attr-defined]  # noqa: B018


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_public_function_takes_at_most_one_positional_argument(name: str) -> None:
    parameters = inspect.signature(getattr(repetita, name)).parameters.values()
    by_name = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_KEYWORD)
    assert sum(one.kind not in by_name for one in parameters) <= 1


@pytest.mark.slow
@pytest.mark.ci
def test_a_new_study_runs_at_once_and_gives_a_page_with_verdicts(outcome: Outcome, folder: Path) -> None:
    assert (outcome.n_runs, outcome.n_done, outcome.failed) == (6, 6, ())
    with pytest.MonkeyPatch.context() as here:
        here.chdir(folder)
        published = repetita.report_study("my_question.py", scale="tiny")
    page = (folder / published.page).read_text()
    verdicts = {claim.name: claim.verdict for claim in published.reports[0].findings}
    assert verdicts["the subset is memorized"] == "supported"
    assert all(verdict in page for verdict in verdicts.values())
    assert not published.reports[0].warnings


@pytest.mark.slow
@pytest.mark.ci
@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_example_of_a_public_function_is_true(
    name: str, outcome: Outcome, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert outcome.n_done == 6, "the examples read this study"
    monkeypatch.chdir(folder)
    function = getattr(repetita, name)
    (test,) = doctest.DocTestFinder(recurse=False).find(function, name, globs={})
    assert test.examples, f"{name} has no example in its docstring"
    said = list[str]()
    result = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(test, out=said.append)
    assert result.failed == 0, "".join(said)
