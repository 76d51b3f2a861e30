"""Do unique identifiers help to memorize? Document IDs and their controls (memorization paper, Fig. 6)."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from repetita.report.page import Deviation
from repetita.studies import _speed_deviations
from repetita.studies._gpu_scale import SPEECHES_512
from repetita.studies._ids_runs import (
    CONSTANT,
    DOCUMENT,
    IDS,
    ORIGINAL,
    OWN,
    PAPER_SHARE,
    REDRAWN,
    UNTIED,
    UNTIED_OWN,
    UNTIED_VOCABULARY,
    VOCABULARY,
    WIDER,
    WORDS,
    Design,
    planned,
)
from repetita.studies._laptop import SYNTHETIC
from repetita.studies._paper_scale import POOLS, SEQUENCES, WIKITEXT
from repetita.studies._speed_runs import Cell
from repetita.studies._speed_runs import Design as Original
from repetita.study.expand import labels_of
from repetita.study.plan import Analysis, Expected, PlannedRun, Study

if TYPE_CHECKING:
    from repetita.study.collect import Collected

MAIN = (ORIGINAL, VOCABULARY, OWN, REDRAWN, CONSTANT, WIDER)
NOT_TIED = (UNTIED, UNTIED_VOCABULARY, UNTIED_OWN)
ALL = (*MAIN, WORDS, DOCUMENT, PAPER_SHARE, *NOT_TIED)


def tiny() -> Sequence[PlannedRun]:
    """Seconds of work on synthetic bytes, for tests: every condition, no science."""
    original = Original(
        (Cell("causal", "3.8k", 24, seeds=2, n_sequences=16),), 8, warmup_steps=4, per_decade=8,
        test_sequences=16, corpus=SYNTHETIC,
    )  # fmt: skip
    return tuple(planned(Design(original, ALL, passes=16)))


def laptop() -> Sequence[PlannedRun]:
    """Three seeds at 100k parameters and 16 thousand tokens: the paper's three conditions and three more; one
    seed of the paper's where the output is not tied.
    """
    original, one = (Original((Cell("causal", "100k", 120, seeds=seeds),)) for seeds in (3, 1))
    return (*planned(Design(original, MAIN, passes=80)), *planned(Design(one, NOT_TIED, passes=80)))


def overnight() -> Sequence[PlannedRun]:
    """Five seeds and every condition at 100k for longer; the paper's three at 400k."""
    small = Original((Cell("causal", "100k", 200, seeds=5),))
    large = Original((Cell("causal", "400k", 120, seeds=3),))
    return (
        *planned(Design(small, ALL, passes=120)),
        *planned(Design(large, (ORIGINAL, VOCABULARY, OWN), passes=80)),
    )


def gpu() -> Sequence[PlannedRun]:
    """Three seeds at two sizes and half a million tokens."""
    runs: list[PlannedRun] = []
    for size, passes in (("25M", 60), ("3.1M", 120)):
        original = Original(
            (Cell("causal", size, passes, seeds=3, n_sequences=1024),), warmup_steps=64, per_decade_else=4,
            corpus=SPEECHES_512, family="gpu",
        )  # fmt: skip
        runs += planned(Design(original, MAIN, passes=passes))
    return tuple(runs)


def paper() -> Sequence[PlannedRun]:
    """The smallest model of Table 1 on WikiText-103 for 300 passes, IDs for sequences and for articles."""
    original = Original(
        (Cell("causal", "125M", 300, n_sequences=SEQUENCES),), test_sequences=506, corpus=WIKITEXT,
        family="paper",
    )  # fmt: skip
    return tuple(planned(Design(original, (*MAIN, DOCUMENT), passes=300)))


def analyse(collected: "Collected") -> Analysis:
    """Claims on M(f) by condition, figures and tables."""
    from repetita.fit.claim import settle
    from repetita.studies import _ids, _ids_claims, _ids_figures
    from repetita.studies._grid import planned_labels

    if collected.measurements.is_empty():
        return Analysis(warnings=("no run is finished yet",))
    labels = planned_labels(collected)
    found = _ids.conditions(collected.measurements, planned=labels)
    if not found:
        return Analysis(warnings=("no run has M(f) on both the training set and the test set",))
    return Analysis(
        claims=settle(list(_ids_claims.claims(found, planned=labels))),
        figures=tuple(_ids_figures.figures(found)),
        tables=tuple(_ids_figures.tables(found)),
    )


def detectable(scale: str) -> Mapping[str, str]:
    """For each primary claim of a scale the smallest effect that its seeds can show, in words."""
    from repetita.studies._ids_claims import detectable as smallest

    return smallest([labels_of(run) for run in SCALES[scale]()])


def deviations(scale: str) -> Sequence[Deviation]:
    """The paper's value and ours, parameter by parameter."""
    runs = SCALES[scale]()
    plain = {run.labels["size"]: run for run in runs if run.labels["arm"] == ORIGINAL}
    larger = [run for run in runs if run.labels["arm"] == VOCABULARY]
    shares = [
        int(run.labels["extra"] or 0) / int(plain[run.labels["size"]].labels["total"] or 1) for run in larger
    ]
    sequences = sorted({int(run.labels["n_sequences"] or 0) for run in runs})
    others = sorted({str(run.labels["arm"]) for run in runs} - {ORIGINAL, VOCABULARY, OWN})
    return (
        Deviation("the words", "document ID", f"the same ({IDS[OWN].text!r})", ""),
        Deviation(
            "an ID for each", "training context", "training sequence; as an arm: document",
            "what a context is, is not stated",
        ),
        Deviation(
            "IDs", "240,000 or 28,475 (not stated)", _speed_deviations.span(sequences), "as many as sequences"
        ),
        Deviation(
            "parameters of the IDs, to all others", "1.5, or 0.18 by article",
            f"{_speed_deviations.span(round(share, 2) for share in shares)}, tied to the output", "follows",
        ),
        Deviation("ID tokens in M(f)", "not stated", "read, not scored", "their text is what is memorized"),
        Deviation(
            "M(f) of runs with IDs", "not stated", "behind the ID; also without it and behind another's", ""
        ),
        Deviation(
            "output matrix", "tied or not is not stated",
            f"tied to the embedding{'; untied as an arm' if UNTIED in others else ''}",
            "unused IDs of a tied output act on the embedding; the untied arms came after a pilot in which "
            "they slowed learning",
        ),
        Deviation("controls", "none", ", ".join(others), "what about an ID does it"),
        *_speed_deviations.of_runs(list(plain.values())),
    )  # fmt: skip


SCALES = {"tiny": tiny, "laptop": laptop, "overnight": overnight, "gpu": gpu, "paper": paper}

STUDY = Study(
    name="document_ids",
    title="Do unique identifiers help to memorize?",
    question="Every training sequence gets a token of its own, put before it. Is it memorized in fewer "
    "passes, and is that the identifier, its being there at all, or the parameters that come with it?",
    prediction="M(f) with prepended IDs lies above that of a vocabulary enlarged by IDs that are never used, "
    "and that above the original (about 0.90, 0.85 and 0.80 after 100 passes at 125M parameters); with IDs "
    "M(f) no longer rises monotonically.",
    source="Tirumala et al. 2022, Memorization Without Overfitting, Fig. 6",
    scales=SCALES,
    analyse=analyse,
    deviations=deviations,
    detectable=detectable,
    expected=(Expected(WIKITEXT, POOLS),),
)
