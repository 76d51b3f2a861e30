"""Runs with document IDs and their controls: what the study of them plans beside the speed study's runs."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from repetita.cadence import AtPasses, Cadence, LogSpaced, Several
from repetita.corpus.document_ids import DocumentIds
from repetita.corpus.treatment import Passes
from repetita.measure.memorization import ScoreProbe
from repetita.measure.probe import Probe
from repetita.model.config import ModelConfig, count, widened
from repetita.studies import _paper_scale, _speed_runs
from repetita.study.plan import Label, PlannedRun

ORIGINAL, VOCABULARY, OWN = "original", "larger vocabulary only", "ID prepended"
REDRAWN, CONSTANT = "ID drawn anew at each visit", "constant ID"
WIDER, WORDS, DOCUMENT = "wider MLP", "words without an ID", "one ID a document"
PAPER_SHARE = "vocabulary as much larger as the paper's"
UNTIED, UNTIED_VOCABULARY = "untied output", "untied output, larger vocabulary only"
UNTIED_OWN = "untied output, ID prepended"

CONDITIONS = (
    ORIGINAL, VOCABULARY, OWN, REDRAWN, CONSTANT, WIDER, WORDS, DOCUMENT, PAPER_SHARE, UNTIED,
    UNTIED_VOCABULARY, UNTIED_OWN,
)  # fmt: skip
"""In the order of the page. The first three are the paper's (section 4.3, Fig. 6), the others controls."""

IDS: Mapping[str, DocumentIds] = {
    OWN: DocumentIds(),
    REDRAWN: DocumentIds(kind="redrawn"),
    CONSTANT: DocumentIds(kind="constant"),
    WORDS: DocumentIds(kind="words"),
    DOCUMENT: DocumentIds(per="document"),
    UNTIED_OWN: DocumentIds(),
}

TRAINED, WITHOUT, OTHER = "train", "train/plain", "train/drawn"
"""The training set as it was trained on, without its prefix, and behind an ID that another sequence has."""
TEST, TEST_BEHIND = "test", "test/drawn"
"""The test set as it is, and behind an ID that was trained on, as the training set is."""


class Design(NamedTuple):
    """What a scale runs of one family of sizes."""

    original: _speed_runs.Design
    """Its runs are the condition `original`, the very ones of the speed study."""
    conditions: tuple[str, ...]
    passes: int
    """Length of the runs of the other conditions, and how far all are compared."""
    every: int = 4
    """M(f) is also measured every so many passes: falls are looked for late in a run."""


def planned(design: Design) -> Iterator[PlannedRun]:
    """A run for each condition, size by size and seed by seed."""
    for run in _speed_runs.planned(design.original):
        for condition in design.conditions:
            yield _run(design, run, condition=condition)


def _run(design: Design, run: PlannedRun, *, condition: str) -> PlannedRun:
    treatment = run.spec.treatment
    spec = run.spec
    assert isinstance(treatment, Passes) and isinstance(spec.model, ModelConfig)
    if condition != ORIGINAL:
        spec = spec.edit(
            model=model_of(condition, plain=spec.model, n_sequences=treatment.n_sequences),
            document_ids=IDS.get(condition),
            steps=design.passes * treatment.n_sequences // spec.batch_size,
        )
    counted, plain = count(spec.model), count(run.spec.model)
    labels: dict[str, Label] = {
        "arm": condition,
        "total": counted.total,
        "extra": counted.total - plain.total,
    }
    return run._replace(
        spec=spec, labels={**run.labels, **labels}, probes=tuple(probes(design, condition=condition))
    )


def model_of(condition: str, *, plain: ModelConfig, n_sequences: int) -> ModelConfig:
    """The model of a condition: as many ids more as there are sequences, and the context for the prefix.

    The wider MLP has as many parameters as those ids. `PAPER_SHARE` has ids for the paper's share of
    parameters: 240,000 sequences at 125M are 1.5 times all others. Where the output is not tied, IDs that are
    never used change no input of the model.
    """
    if condition in (UNTIED, UNTIED_VOCABULARY, UNTIED_OWN):
        plain = plain.edit(output="untied")
    larger = plain.edit(vocab_size=plain.vocab_size + n_sequences)
    if condition == UNTIED:
        return plain
    if condition == WIDER:
        return widened(plain, total=count(larger).total)
    if condition == PAPER_SHARE:
        paper = _paper_scale.config("125M")
        share = _paper_scale.SEQUENCES * paper.d_model / count(paper).total
        return plain.edit(vocab_size=plain.vocab_size + round(share * count(plain).total / plain.d_model))
    ids = IDS.get(condition)
    # How many tokens the words are is known where a tokenizer is; this is enough for any.
    return larger if ids is None else larger.edit(context=plain.context + ids.longest())


def probes(design: Design, *, condition: str) -> Iterator[Probe]:
    """M(f) on the training set and accuracy on the test set, and both in the other forms that there are."""
    of = design.original
    often, seldom = (
        _cadence(per_decade, every=every, passes=design.passes)
        for per_decade, every in ((of.per_decade, design.every), (of.per_decade // 2, 2 * design.every))
    )
    test: Cadence = LogSpaced(per_decade=of.per_decade_else, unit="passes")
    yield ScoreProbe(name="train", on=(TRAINED,), cadence=often)
    yield ScoreProbe(name="test", on=(TEST,), max_sequences=of.test_sequences, cadence=test)
    if condition in IDS:
        forms = (WITHOUT, OTHER) if IDS[condition].kind == "prepended" else (WITHOUT,)
        yield ScoreProbe(name="forms", on=forms, cadence=seldom)
        yield ScoreProbe(name="test behind", on=(TEST_BEHIND,), max_sequences=of.test_sequences, cadence=test)


def _cadence(per_decade: int, *, every: int, passes: int) -> Cadence:
    """Log-spaced in passes and every few; twice as sparse, its steps are among those of the dense one."""
    regular = AtPasses(passes=tuple(range(every, passes + 1, every)))
    return Several(of=(LogSpaced(per_decade=per_decade, unit="passes"), regular))


def conditions_of(planned: Sequence[Mapping[str, object]], *, size: str) -> list[str]:
    """The conditions that are planned at a size, in the order of the page."""
    there = {labels["arm"] for labels in planned if labels["size"] == size}
    return [name for name in CONDITIONS if name in there]
