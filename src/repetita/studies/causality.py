"""Does repetition prevent induction heads, destroy or mask them, and do they return? (RQ5)."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from repetita.measure.ablation import AblationProbe
from repetita.model.config import count
from repetita.report.page import Deviation
from repetita.studies import _repeated_scale as scale
from repetita.studies._causality_runs import AFTER, BEFORE, SCALES, WITHDRAWN
from repetita.studies._laptop import rates_text
from repetita.study.expand import labels_of
from repetita.study.plan import Analysis, Study

if TYPE_CHECKING:
    from repetita.study.collect import Collected


def analyse(collected: "Collected") -> Analysis:
    """Claims on the windows, what heads carry, and what became of each run's."""
    from repetita.fit.claim import settle
    from repetita.studies import _causality, _causality_claims, _causality_figures
    from repetita.studies._grid import planned_labels

    if collected.measurements.is_empty():
        return Analysis(warnings=("no run is finished yet",))
    plan = planned_labels(collected)
    found, lines = _causality.read(collected.measurements), _causality.lines(plan)
    return Analysis(
        claims=settle(list(_causality_claims.claims(found, planned=plan))),
        figures=tuple(_causality_figures.figures(found, lines=lines)),
        tables=tuple(_causality_figures.tables(found, lines=lines)),
        warnings=tuple(_causality_claims.warnings(found, planned=plan)),
    )


def detectable(scale: str) -> Mapping[str, str]:
    """For each primary claim of a scale the smallest effect that its seeds can show, in words."""
    from repetita.studies._causality_claims import detectable as smallest

    return smallest([labels_of(run) for run in SCALES[scale]()])


def deviations(scale: str) -> Sequence[Deviation]:
    """The paper's value and ours, parameter by parameter."""
    runs = SCALES[scale]()
    spec = runs[0].spec
    steps = {run.labels["arm"]: (run.labels["start"], run.labels["stop"]) for run in reversed(runs)}
    places = "; ".join(f"{arm} {steps[arm][0]} to {steps[arm][1]}" for arm in (BEFORE, AFTER, WITHDRAWN))
    tokens = spec.steps * spec.batch_size * spec.corpus.length
    sizes = sorted({count(run.spec.model).non_embedding for run in runs})
    passes = sorted({float(run.labels["passes"]) for run in runs if run.labels["passes"] is not None})
    probe = next(probe for probe in runs[0].probes if isinstance(probe, AblationProbe))
    text = "bursts of copying teach heads early" if spec.corpus.source == "synthetic" else "availability"
    return (
        Deviation("when is repeated", "from the start to the end", f"also in steps {places} of {spec.steps}",
                  "by when heads form in controls (own pilots; Olsson et al. 2022), before any treated run"),
        Deviation("between windows", "", "equal share and equal passes inside; the subset is as large as the "
                  "window is long", "the early and the late one have equal subsets and equal training"),
        Deviation("ablation", "none", f"the {probe.n_heads} highest of all heads by prefix matching, "
                  "patterns kept; others beside them", "Olsson et al. 2022"),
        Deviation("other heads", "", "of the same layers; of all layers where a layer has one head",
                  "with one head a layer nothing else is left to compare with"),
        Deviation("prevented, destroyed, masked", "asked, not told apart", "by rules on the best head's "
                  "score (0.5) and the in-context gain (half of the control's)", "fixed before any run"),
        Deviation("text", "web text and books", spec.corpus.source, text),
        Deviation("models", "1 and 2 layers of unknown width; up to 800M", f"{sizes[0]:,} to {sizes[-1]:,} "
                  "parameters without embeddings, attention only", "two layers are the fewest that can match "
                  "prefixes"),
        Deviation("tokens T a run", "100B", f"{tokens:,}", "the scale"),
        Deviation("context", "8,192", str(spec.corpus.length), "the scale"),
        Deviation("share f", "1 to 90%", "50% inside the windows", "where copying broke down (Fig. 7)"),
        Deviation("passes E", "40 to 12,200", ", ".join(f"{one:,.0f}" for one in passes),
                  "near the worst of double_descent by parameters a repeated token"),
        Deviation("learning rate", "not stated", rates_text(runs), "constant: a window late in a cosine is "
                  "weaker"),
        Deviation("seeds", "one, as far as stated", str(len({run.spec.seed for run in runs})), "intervals"),
    )  # fmt: skip


STUDY = Study(
    name="causality",
    title="Does repetition prevent, destroy or mask induction heads?",
    question="How much of copying, of names and of the test loss do the highest-scoring heads carry, without "
    "repetition and with? And if text is repeated only before heads form, only afterwards, or until "
    "half-way: are they prevented, destroyed or masked, and do they return?",
    prediction="The paper offers damage to induction heads as what damages copying, and leaves the mechanism "
    "open. So in models trained on repeated text the highest-scoring heads should carry less of the copying "
    "than in the control (headline).",
    source="Hernandez et al. 2022, Learning from Repeated Data, abstract and discussion (section 5)",
    scales=SCALES,
    analyse=analyse,
    deviations=deviations,
    detectable=detectable,
    expected=scale.EXPECTED,
)
