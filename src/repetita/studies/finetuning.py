"""Does the damage outlive fine-tuning on another text? Against unique text and scratch (Fig. 12)."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from repetita.report.page import Deviation
from repetita.studies._finetuning_runs import EXPECTED, RATE_SHARE, SCALES, WARMUP_SHARE
from repetita.studies.double_descent import setting
from repetita.study.expand import labels_of
from repetita.study.plan import Analysis, Study

if TYPE_CHECKING:
    from repetita.study.collect import Collected


def analyse(collected: "Collected") -> Analysis:
    """Claims, figures and tables of all arms on the target."""
    from repetita.fit.claim import settle
    from repetita.studies import _finetuning, _finetuning_claims, _finetuning_figures
    from repetita.studies._grid import planned_labels

    if collected.measurements.is_empty():
        return Analysis(warnings=("no run is finished yet",))
    there = _finetuning.read(collected.measurements, planned=planned_labels(collected))
    if there is None:
        return Analysis(warnings=("nothing is fine-tuned at this scale",))
    unfit = [
        f"No effective sizes {when} fine-tuning: {reading.unfit}."
        for when, reading in (("before", there.before), ("after", there.after))
        if reading.unfit
    ]
    return Analysis(
        claims=settle(list(_finetuning_claims.claims(there))),
        figures=tuple(_finetuning_figures.figures(there)),
        tables=tuple(_finetuning_figures.tables(there)),
        warnings=tuple(unfit),
    )


def detectable(scale: str) -> Mapping[str, str]:
    """For each primary claim of a scale the smallest effect that its seeds can show, in words."""
    from repetita.studies._finetuning_claims import detectable as smallest

    return smallest([labels_of(run) for run in SCALES[scale]()])


def deviations(scale: str) -> Sequence[Deviation]:
    """The paper's value and ours, parameter by parameter."""
    runs = SCALES[scale]()
    before = [run for run in runs if run.labels["stage"] == "pre-training"]
    target = next(run.spec for run in runs if run.labels["stage"] == "target")
    tuned = [run for run in runs if run.spec.start is not None]
    tokens = target.steps * target.batch_size * target.corpus.length
    treated = {
        f"{run.labels['size']}, f = {run.labels['fraction']:g}: {run.labels['passes']:g}"
        for run in tuned
        if run.labels["passes"] is not None
    }
    chosen = {
        "laptop": "the worst of a finished double_descent",
        "overnight": "the worst of a finished double_descent at laptop scale; at 100k and 0.9 inferred",
        "paper": "the subset nearest to the middle of the paper's band",
    }.get(scale, "chosen before any run, not known to be the worst")
    rates = sorted({run.spec.recipe.learning_rate for run in tuned if run.labels["variant"] == "main"})
    carried = any(run.spec.start is not None and run.spec.start.optimizer == "carried" for run in runs)
    return (
        *setting(before),
        Deviation("target", "Python, 45B tokens read 2.2 times",
                  f"{target.corpus.source}, {tokens:,} tokens, each once", "no text read twice"),
        Deviation("tokenizer of the target", "that of the models, GPT-2's", "that of the models", "the same"),
        Deviation("passes E of pre-training", "the worst", "; ".join(sorted(treated)), chosen),
        Deviation("rate of fine-tuning", "half",
                  f"{RATE_SHARE:g} x, {', '.join(f'{rate:g}' for rate in rates)}", "the same"),
        Deviation("warm-up of fine-tuning", "shortened, by how much is not stated",
                  f"{WARMUP_SHARE:g} of that of pre-training", "a free choice"),
        Deviation("optimizer", "not stated", "moments begin at zero"
                  + (", and carried on beside it" if carried else ""), "stated"),
        Deviation("scratch", "one, its recipe not stated",
                  "at its own rate, and at the recipe of fine-tuning", "rate and past told apart; the own "
                  "rate was chosen on the text of pre-training"),
        Deviation("effective size", "law of a ladder inverted",
                  "read between neighbours of a ladder from scratch on the target, by seed",
                  "laws miss small ladders"),
        Deviation("catching up", "read from the curves", "gap at the end under half of that at a tenth",
                  "a number decides"),
        Deviation("what is left of the repeated text", "its loss rises soon",
                  "M(f) beyond that on unseen text of the same corpus, half of it gone after a tenth",
                  "unseen text stands for the same text in a model that never repeated it"),
        Deviation("seeds", "one, as far as stated", str(len({run.spec.seed for run in tuned})), "intervals"),
    )  # fmt: skip


STUDY = Study(
    name="finetuning",
    title="Fine-tuning after repeated data",
    question="Models are pre-trained on data of which a share is repeated the worst number of times, or on "
    "unique text, and then fine-tuned on another text. Is the damage still there, and would it have been "
    "better to begin anew?",
    prediction="After fine-tuning, a model pre-trained with f = 0.9 is worse than one pre-trained on unique "
    "text and worse than one trained on the target alone: 1.6 times smaller in effect, though pre-training "
    "had cost 73 times (10 times at f = 0.5). It forgets the repeated text soon and comes near the other on "
    "the way.",
    source="Hernandez et al. 2022, Learning from Repeated Data, Fig. 12 and section 5.4",
    scales=SCALES,
    analyse=analyse,
    deviations=deviations,
    detectable=detectable,
    expected=EXPECTED,
)
