"""What does repetition do to induction heads? Prefix matching, copying, formation (Figs. 6, 7 and 21)."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from functools import partial
from typing import TYPE_CHECKING

from repetita.cadence import At, LogSpaced
from repetita.measure.induction import InContextProbe, InductionProbe
from repetita.measure.memorization import ScoreProbe
from repetita.model.config import count
from repetita.report.page import Deviation
from repetita.studies import _copying_runs
from repetita.studies._damage_runs import TEST_SEQUENCES
from repetita.studies._laptop import rates_text
from repetita.study.expand import labels_of
from repetita.study.plan import Analysis, PlannedRun, Study

if TYPE_CHECKING:
    from repetita.study.collect import Collected

AT_THE_END = At(at=())
POINTS = 30
"""States at which heads are looked for, even in the logarithm of the step: neighbours differ by 14%."""
TOKENS, BYTES = 25, 12
"""Distinct tokens of a sample; fewer where four copies do not fit, or where tokens are bytes, of which the
text of the tests has twenty."""


def measured(runs: Iterable[PlannedRun], /) -> Iterator[PlannedRun]:
    """The runs with what this study measures: heads during training, loss and its course at the end."""
    for run in runs:
        length, first = run.spec.corpus.length, Fraction(max(1, run.spec.steps // 80))
        width = max(1, length // 16)
        most = BYTES if run.spec.corpus.tokenizer.kind == "bytes" else TOKENS
        n_tokens = min(most, (length - 1) // 4)
        heads = InductionProbe(name="heads", n_tokens=n_tokens, cadence=LogSpaced(k=POINTS, first=first))
        context = InContextProbe(
            early=length // 10, late=length - width, width=width, max_sequences=TEST_SEQUENCES,
            cadence=AT_THE_END,
        )  # fmt: skip
        test = ScoreProbe(name="test", on=("test",), max_sequences=TEST_SEQUENCES, cadence=AT_THE_END)
        yield run._replace(probes=(test, heads, context))


def runs_of(scale: str) -> Sequence[PlannedRun]:
    """The runs of the study of copying at this scale, which are trained once for both."""
    return tuple(measured(_copying_runs.SCALES[scale]()))


def analyse(collected: "Collected") -> Analysis:
    """Claims, figures and tables on the test set of the main corpus."""
    import polars as pl

    from repetita.fit.claim import settle
    from repetita.studies import _heads, _heads_claims, _heads_figures, _heads_tables
    from repetita.studies._grid import main_corpus, planned_labels

    if collected.measurements.is_empty():
        return Analysis(warnings=("no run is finished yet",))
    planned = planned_labels(collected)
    corpus = main_corpus(planned)
    own = [labels for labels in planned if labels["corpus"] == corpus]
    heads = _heads.read(collected.measurements.filter(pl.col("corpus") == corpus))
    if not heads.final:
        return Analysis(warnings=("no run has measured its heads yet",))
    by_head, by_index = (
        _heads_figures.kept(collected, probe=probe, corpus=corpus) for probe in ("heads", "in_context")
    )
    return Analysis(
        claims=settle(list(_heads_claims.claims(heads, planned=own))),
        figures=tuple(
            _heads_figures.figures(heads, line=_heads.headline_line(own), by_head=by_head, by_index=by_index)
        ),
        tables=tuple(_heads_tables.tables(heads)),
        warnings=tuple(_heads_claims.warnings(heads, planned=own)),
    )


def detectable(scale: str) -> Mapping[str, str]:
    """For each primary claim of a scale the smallest effect that its seeds can show, in words."""
    from repetita.studies._heads_claims import detectable as smallest

    return smallest([labels_of(run) for run in SCALES[scale]()])


def deviations(scale: str) -> Sequence[Deviation]:
    """The paper's value and ours, parameter by parameter."""
    runs = SCALES[scale]()
    spec = runs[0].spec
    sizes = sorted({count(run.spec.model).non_embedding for run in runs})
    shares = sorted({float(run.labels["fraction"] or 0) for run in runs} - {0.0})
    passes = sorted({float(run.labels["passes"] or 0) for run in runs} - {0.0})
    tokens, length = spec.steps * spec.batch_size * spec.corpus.length, spec.corpus.length
    probe = next(probe for probe in runs[0].probes if isinstance(probe, InductionProbe))
    return (
        Deviation("text", "web text and books", spec.corpus.source, "bursts of copying teach heads early"),
        Deviation("tokens T a run", "100B", f"{tokens:,}", "the scale"),
        Deviation("model sizes N", "1.5M to 800M", f"{sizes[0]:,} to {sizes[-1]:,}", "the scale"),
        Deviation(
            "controls below a treated size", "up to 500 times", f"{_copying_runs.reach(runs):.3g} times",
            "sizes below the ladder are bounds; rule 23 of the design asks for 30",
        ),
        Deviation("context", "8,192", str(length), "the scale"),
        Deviation("shares f", "1 to 90%", ", ".join(f"{share:g}" for share in shares), "the scale"),
        Deviation("passes E", "40 to 12,200", f"{passes[0]:g} to {passes[-1]:g}", "the scale"),
        Deviation(
            "random tokens", "not stated; Olsson et al. 25 four times",
            f"{probe.n_tokens} distinct ones {probe.n_copies} times, {probe.n_samples} samples",
            "theirs, where the text has as many",
        ),
        Deviation("score over heads", "not stated", "mean; maximum and top 3 beside it", "a mean is graded"),
        Deviation("score a query or an entry", "not stated", "a query; an entry beside it", ""),
        Deviation(
            "common and rare tokens", "left out, how many is not stated", f"{probe.excluded} of the ids at "
            "either end",
            "a later reproduction's",
        ),
        Deviation(
            "effective size by score", "line in N or ln N, inverted", "line in ln N, paired with the own "
            "control; refused for a flat or stepping score", "rule 20 of the design",
        ),
        Deviation("worst passes", "peak of the test loss", "the same, on the other seeds", "no flattery"),
        Deviation("when heads form", "not looked at", f"best head at 0.5 or above, {POINTS} states", ""),
        Deviation("learning rate", "not stated", rates_text(runs), "chosen on controls"),
        Deviation("seeds", "one, as far as stated", str(len({run.spec.seed for run in runs})), "intervals"),
    )  # fmt: skip


SCALES: Mapping[str, Callable[[], Sequence[PlannedRun]]] = {
    scale: partial(runs_of, scale) for scale in _copying_runs.SCALES
}

STUDY = Study(
    name="induction_heads",
    title="What repetition does to induction heads",
    question="Induction heads look for what followed the same token before, and copy it. Do they form with a "
    "repeated subset in the training data, when, and do they lose more than the test loss does?",
    prediction="At f = 3% and the worst passes the prefix-matching score is that of a model 1.47 times "
    "smaller on average, while the test loss is that of one at most 1.15 times smaller; so for f = 3 to 20%.",
    source="Hernandez et al. 2022, Learning from Repeated Data, Figs. 6, 7 right and 21",
    scales=SCALES,
    analyse=analyse,
    deviations=deviations,
    detectable=detectable,
    expected=_copying_runs.EXPECTED,
)
