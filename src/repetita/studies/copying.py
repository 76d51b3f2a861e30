"""Does repetition take copying first? A passage written several times in a row (Figs. 5, 7, 20 and 22)."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from repetita.measure.copying import CopyingProbe
from repetita.model.config import count
from repetita.report.page import Deviation
from repetita.studies._copying_runs import EXPECTED, SCALES, reach
from repetita.study.expand import labels_of
from repetita.study.plan import Analysis, Study

if TYPE_CHECKING:
    from repetita.study.collect import Collected


def analyse(collected: "Collected") -> Analysis:
    """Claims on the corpus of most runs, the check on natural text beside it, figures and tables."""
    from repetita.fit.claim import settle
    from repetita.studies import _copying, _copying_claims, _copying_figures
    from repetita.studies._grid import main_corpus, main_lines, planned_labels

    table = collected.measurements
    if table.is_empty():
        return Analysis(warnings=("no run is finished yet",))
    plan = planned_labels(collected)
    corpus = main_corpus(plan)
    curve = _copying.main_curve(plan, corpus=corpus)
    lines = main_lines(plan, curve=curve)
    found = _copying.tables(table, corpus=corpus, curve=curve)
    others = [name for name in dict.fromkeys(str(labels["corpus"]) for labels in plan) if name != corpus]
    beside = {
        name: _copying.tables(table, corpus=name, curve=_copying.main_curve(plan, corpus=name))
        for name in others
    }
    claims = [*_copying_claims.claims(found, planned=plan)]
    for name, other in beside.items():
        claims += _copying_claims.natural(other, corpus=name)
    index = (
        _copying.by_index(collected, corpus=corpus, size=lines[0][0], fraction=lines[0][1]) if lines else []
    )
    copies = {name: _copying.by_copy(table, corpus=corpus, passage=name) for name in found.passages}
    natural = {
        f"{name}, {passage} passage": _copying.by_copy(table, corpus=name, passage=passage)
        for name, other in beside.items()
        for passage in other.passages
    }
    return Analysis(
        claims=settle(claims),
        figures=tuple(
            _copying_figures.figures(
                found, copies=copies, flat=lines[0] if lines else None, index=index, natural=natural
            )
        ),
        tables=tuple(
            _copying_figures.tables(found, names=_copying.name_losses(table, corpus=corpus, curve=curve))
            if found.passages
            else ()
        ),
        warnings=tuple(_copying.warnings(table, found)),
    )


def detectable(scale: str) -> Mapping[str, str]:
    """For each primary claim of a scale the smallest effect that its seeds can show, in words."""
    from repetita.studies._copying_claims import detectable as smallest

    runs = SCALES[scale]()
    shown = {passage.name for run in runs for one in run.probes if isinstance(one, CopyingProbe)
             for passage in one.passages}  # fmt: skip
    return smallest([labels_of(run) for run in runs], short="short" in shown)


def deviations(scale: str) -> Sequence[Deviation]:
    """The paper's value and ours, parameter by parameter."""
    runs = SCALES[scale]()
    spec = runs[0].spec
    tokens = spec.steps * spec.batch_size * spec.corpus.length
    sizes = sorted({count(run.spec.model).non_embedding for run in runs})
    shown = next(probe for run in runs for probe in run.probes if isinstance(probe, CopyingProbe))
    names = ", ".join(passage.name for passage in shown.passages)
    own = spec.corpus.source == "synthetic"
    by_share: dict[float, set[float]] = {}
    for run in runs:
        if run.labels["passes"] is not None:
            by_share.setdefault(float(run.labels["fraction"] or 0), set()).add(float(run.labels["passes"]))
    passes = "; ".join(
        f"{', '.join(f'{one:,.0f}' for one in sorted(there))} at f = {share:g}"
        for share, there in sorted(by_share.items())
    )
    words = "words of the synthetic corpus, 3 copies and more in its context"
    prose = "own texts of 1,463 and 125 characters, made-up names in all forms"
    return (
        Deviation("passage", "a novel's opening, 1,463 characters", words if own else prose, "copyright"),
        Deviation("others shown", "a text of 125 characters", names, "no statistics help with random tokens"),
        Deviation("copies", "11", f"as many as fit, at most {shown.n_copies}", "never a sliding window"),
        Deviation("between copies", "not stated", "nothing" if own else "a line break", "read, not scored"),
        Deviation("copying loss", "mean of the whole string", "the same; the copy gain beside it",
                  "the first copy is no copying"),
        Deviation("flat in the number of copies", "seen in a figure", "under a tenth of the control's gain",
                  "a number decides"),
        Deviation("worst passes", "of six, by test loss", "by the test loss of the other seeds",
                  "a maximum flatters itself"),
        Deviation("size by copying", "interpolated", "the same, over that of the same seed's control",
                  "a control then has 1"),
        Deviation("corpus", "400B tokens of web text and books", f"{spec.corpus.source}, one pass",
                  "tiny models do not copy natural text" if own else "the paper's was never released"),
        Deviation("tokens T a run", "100B", f"{tokens:,}", "compute"),
        Deviation("model sizes N", "1.5M to 800M", f"{sizes[0]:,} to {sizes[-1]:,}", "compute"),
        Deviation("controls below a treated size", "up to 500 times", f"{reach(runs):.3g} times",
                  "sizes below the ladder are bounds; rule 23 of the design asks for 30"),
        Deviation("passes E", "six a curve, 40 to 12,200", passes, "few: the worst can lie between them"),
        Deviation("context", "8,192", f"{spec.corpus.length:,}", "compute"),
        Deviation("seeds", "one, as far as stated", str(len({run.spec.seed for run in runs})), "intervals"),
    )  # fmt: skip


STUDY = Study(
    name="copying",
    title="Repetition and copying",
    question="A share f of the training data is a small subset read E times. Does the model lose more of its "
    "ability to copy what stands in front of it than of its test loss?",
    prediction="With f = 3% at the worst number of passes, models are up to 3 times smaller by the loss on a "
    "passage copied 11 times, and at most 1.15 times by test loss. At the worst passes of f = 50% the loss "
    "is flat in the number of copies, also of a passage of 125 characters; the gain from context on the test "
    "set suffers less. The worst passes for copying fall with model size.",
    source="Hernandez et al. 2022, Figs. 5, 7, 20 and 22",
    scales=SCALES,
    analyse=analyse,
    deviations=deviations,
    detectable=detectable,
    expected=EXPECTED,
)
