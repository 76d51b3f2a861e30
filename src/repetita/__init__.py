"""repetita: what language models memorize, how fast, what they forget, what repeated data costs."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from repetita.cadence import At as At
    from repetita.cadence import AtPasses as AtPasses
    from repetita.cadence import Every as Every
    from repetita.cadence import LogSpaced as LogSpaced
    from repetita.cadence import Several as Several
    from repetita.corpus.bases import Passes as Passes
    from repetita.corpus.bases import RepeatedSubset as RepeatedSubset
    from repetita.corpus.bases import Stream as Stream
    from repetita.corpus.document_ids import DocumentIds as DocumentIds
    from repetita.corpus.pretrained_tokenizer import hf_tokenizer_spec as hf_tokenizer_spec
    from repetita.corpus.reading_rule import ReadingRule as ReadingRule
    from repetita.corpus.sequences import CorpusSpec as CorpusSpec
    from repetita.corpus.splits import Splits as Splits
    from repetita.corpus.synthetic import SyntheticSpec as SyntheticSpec
    from repetita.corpus.tokenizer import TokenizerSpec as TokenizerSpec
    from repetita.corpus.treatment import Insertion as Insertion
    from repetita.corpus.treatment import Insertions as Insertions
    from repetita.corpus.treatment import SpecialBatch as SpecialBatch
    from repetita.errors import RepetitaError as RepetitaError
    from repetita.errors import UserError as UserError
    from repetita.fit.by_name import fit_law as fit_law
    from repetita.fit.claim import Claim as Claim
    from repetita.fit.claim import directional as directional
    from repetita.fit.claim import equivalent as equivalent
    from repetita.fit.claim import from_estimate as from_estimate
    from repetita.fit.claim import undecided as undecided
    from repetita.fit.estimate import Estimate as Estimate
    from repetita.fit.estimate import paired as paired
    from repetita.measure.memorization import ScoreProbe as ScoreProbe
    from repetita.model.adopted import pretrained_model as pretrained_model
    from repetita.model.config import ModelConfig as ModelConfig
    from repetita.model.config import ladder as ladder
    from repetita.report.figure import Axis as Axis
    from repetita.report.figure import Figure as Figure
    from repetita.report.figure import Layer as Layer
    from repetita.report.figure import Panels as Panels
    from repetita.report.figure import Rule as Rule
    from repetita.report.figure import Series as Series
    from repetita.study.ahead import build_corpus as build_corpus
    from repetita.study.ahead import plan_study as plan_study
    from repetita.study.audit import Audit as Audit
    from repetita.study.audit import run_audit as run_audit
    from repetita.study.doctor import diagnose as diagnose
    from repetita.study.elsewhere import open_elsewhere as open_elsewhere
    from repetita.study.execute import run_study as run_study
    from repetita.study.export import export_run as export_run
    from repetita.study.known_order import FromTable as FromTable
    from repetita.study.new import new_study as new_study
    from repetita.study.plan import Analysis as Analysis
    from repetita.study.plan import PlannedRun as PlannedRun
    from repetita.study.plan import Study as Study
    from repetita.study.publish import table as table
    from repetita.study.series_study import measure_series as measure_series
    from repetita.study.series_study import series_audit as series_audit
    from repetita.study.single import measure_run as measure_run
    from repetita.study.single import train_run as train_run
    from repetita.study.trainer_journal import journalled as journalled
    from repetita.study.walkthrough import report_study as report_study
    from repetita.study.watch import watch_runs as watch_runs
    from repetita.train.dataset import StepBatches as StepBatches
    from repetita.train.recipe import Recipe as Recipe
    from repetita.train.recipe import RunSpec as RunSpec

_HOMES = {
    name: f"repetita.{home}"
    for home, names in {
        "cadence": "At AtPasses Every LogSpaced Several",
        "corpus.bases": "Passes RepeatedSubset Stream",
        "corpus.document_ids": "DocumentIds",
        "corpus.pretrained_tokenizer": "hf_tokenizer_spec",
        "corpus.reading_rule": "ReadingRule",
        "corpus.sequences": "CorpusSpec",
        "corpus.splits": "Splits",
        "corpus.synthetic": "SyntheticSpec",
        "corpus.tokenizer": "TokenizerSpec",
        "corpus.treatment": "Insertion Insertions SpecialBatch",
        "errors": "RepetitaError UserError",
        "fit.by_name": "fit_law",
        "fit.claim": "Claim directional equivalent from_estimate undecided",
        "fit.estimate": "Estimate paired",
        "measure.memorization": "ScoreProbe",
        "model.adopted": "pretrained_model",
        "model.config": "ModelConfig ladder",
        "report.figure": "Axis Figure Layer Panels Rule Series",
        "study.ahead": "build_corpus plan_study",
        "study.audit": "Audit run_audit",
        "study.doctor": "diagnose",
        "study.elsewhere": "open_elsewhere",
        "study.execute": "run_study",
        "study.export": "export_run",
        "study.known_order": "FromTable",
        "study.new": "new_study",
        "study.plan": "Analysis PlannedRun Study",
        "study.publish": "table",
        "study.series_study": "measure_series series_audit",
        "study.single": "measure_run train_run",
        "study.trainer_journal": "journalled",
        "study.walkthrough": "report_study",
        "study.watch": "watch_runs",
        "train.dataset": "StepBatches",
        "train.recipe": "Recipe RunSpec",
    }.items()
    for name in names.split()
}
"""The public names and where they live: fetched when asked for, so that the import costs nothing."""

__all__ = [
    "Analysis",
    "At",
    "AtPasses",
    "Audit",
    "Axis",
    "Claim",
    "CorpusSpec",
    "DocumentIds",
    "Estimate",
    "Every",
    "Figure",
    "FromTable",
    "Insertion",
    "Insertions",
    "Layer",
    "LogSpaced",
    "ModelConfig",
    "Panels",
    "Passes",
    "PlannedRun",
    "ReadingRule",
    "Recipe",
    "RepeatedSubset",
    "RepetitaError",
    "Rule",
    "RunSpec",
    "ScoreProbe",
    "Series",
    "Several",
    "SpecialBatch",
    "Splits",
    "StepBatches",
    "Stream",
    "Study",
    "SyntheticSpec",
    "TokenizerSpec",
    "UserError",
    "build_corpus",
    "diagnose",
    "directional",
    "equivalent",
    "export_run",
    "fit_law",
    "from_estimate",
    "hf_tokenizer_spec",
    "journalled",
    "ladder",
    "measure_run",
    "measure_series",
    "new_study",
    "open_elsewhere",
    "paired",
    "plan_study",
    "pretrained_model",
    "report_study",
    "run_audit",
    "run_study",
    "series_audit",
    "table",
    "train_run",
    "undecided",
    "watch_runs",
]


if not TYPE_CHECKING:  # A checker would take any name for one that could be fetched.

    def __getattr__(name: str) -> Any:
        if name not in _HOMES:
            raise AttributeError(f"module 'repetita' has no attribute '{name}'")
        from importlib import import_module

        return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
