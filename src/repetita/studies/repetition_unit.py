"""Does it matter what is repeated? The same share as sequences, documents, paragraphs, sentences (RQ1)."""

from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, get_args

from repetita.corpus.sequences import CorpusSpec
from repetita.corpus.splits import Splits
from repetita.corpus.treatment import RepeatedSubset, Unit
from repetita.model.config import count
from repetita.report.page import Deviation
from repetita.studies import _repeated_scale as scale
from repetita.studies._damage_runs import (
    Cell,
    Design,
    gpu_design,
    laptop_design,
    paper_design,
    planned,
    seeds,
    tiny_design,
)
from repetita.studies._laptop import SOTU, SYNTHETIC, rates_text
from repetita.study.expand import labels_of
from repetita.study.plan import Analysis, Expected, PlannedRun, Study

if TYPE_CHECKING:
    from repetita.fit.claim import Claim
    from repetita.report.figure import Figure
    from repetita.report.page import Table
    from repetita.studies._arms import Arm
    from repetita.study.collect import Collected

UNITS: tuple[Unit, ...] = get_args(Unit)
REFERENCE: Unit = "sequence"
"""What the other units are compared with, and whose controls are the ladder."""
NAMES = {unit: f"{unit}s" for unit in UNITS}

LENGTH = 128
"""Tokens of a sequence at every scale: one sentence is written into one sequence, so that at 8,192 tokens it
could be a third of a percent of them and no more."""
FRACTION = Fraction(3, 10)
"""A sentence of a speech has 52 tokens on average (BPE of 1,024): one a sequence of 128, sentences can be 40%
of all tokens."""
TENTH = Fraction(1, 10)
SPEECH = 105
"""Sequences of the median speech (BPE of 1,024)."""
SHORT_SPEECH = 36
"""Nine speeches in ten have as many or more: a subset of fewer is cut out of one of them."""
SUBSETS = (72, 24, 8)
"""Sequences of text, 80, 240 and 720 passes: around the peak of `double_descent` at f = 1/10 and 1/2."""
STEPS = 1200

MARGIN = 0.05
"""Nats within which two units cost the same: a tenth of the damage at f = 1/2, half of that at f = 1/10."""
SEED_SD, COST_SD = 0.03, 0.03
"""Assumed standard deviations over seeds of a difference between units and of a damage, in nats; those that
`double_descent` plans with."""
PREDICTED_COST = 0.15
"""Between the damages of `double_descent` at f = 1/10 (0.09) and 1/2 (0.48)."""
PAPER = "Hernandez et al. 2022, abstract"
WHAT = (
    "The same share of all tokens re-reads the same amount of text, cut into sequences, whole documents, "
    "paragraphs or sentences; the last two stand inside unique text."
)

LAPTOP = SOTU.edit(splits=Splits(test="0.1", units="0.04"))
TINY = SYNTHETIC.edit(splits=Splits(test="0.1", units="0.1"))
GPU = scale.GPU_TEXT.edit(length=LENGTH, splits=Splits(test="0.02", units="0.02"))
PAPER_TEXT = scale.TEXT.edit(length=LENGTH, splits=Splits(test="0.0005", units="0.001"))


def _pools(pools: Mapping[str, int], *, length: int) -> dict[str, int]:
    """The sets of a text cut into sequences of `LENGTH` instead."""
    return {name: n * length // LENGTH for name, n in pools.items()}


EXPECTED = (
    Expected(scale.GPU_TEXT.edit(length=LENGTH), _pools(scale.GPU_POOLS, length=scale.GPU_TEXT.length)),
    Expected(scale.TEXT.edit(length=LENGTH), _pools(scale.POOLS, length=scale.CONTEXT)),
)


def arms(
    design: Design,
    *,
    corpus: CorpusSpec,
    size: str,
    fraction: Fraction,
    subsets: tuple[int, ...],
    n_seeds: int,
    starved: int,
) -> Iterator[PlannedRun]:
    """Control, treated and starved runs of each unit at one size; `starved` seeds of the last.

    The texts differ in their set `units` alone, so that one control serves all units bit for bit, and empty
    slots are the same for sequences and documents.
    """
    for unit in UNITS:
        cells = (
            Cell("control", size, seeds=seeds(n_seeds), corpus=corpus),
            Cell("repeated", size, fraction, subsets, seeds(n_seeds), corpus=corpus),
            Cell("starved", size, fraction, subsets[:1], seeds(starved), corpus=corpus),
        )
        for run in planned(design._replace(cells=cells)):
            yield _of_unit(run, unit)


def _of_unit(run: PlannedRun, unit: Unit) -> PlannedRun:
    """The run with another unit: its text, its treatment, the width of its context."""
    spec, treatment = run.spec, run.spec.treatment
    labels = {**run.labels, "variant": NAMES[unit]}
    changes: dict[str, object] = {"model": spec.model.edit(context=spec.corpus.length)}
    short = unit in ("paragraph", "sentence")
    if (
        isinstance(treatment, RepeatedSubset)
        and (treatment.slots == "repeated" or short)
        and unit != REFERENCE
    ):
        changes["treatment"] = treatment.edit(unit=unit)
        changes["corpus"] = spec.corpus.edit(units=unit)
    return run._replace(spec=spec.edit(**changes), labels=labels)


def ladder(
    design: Design, *, corpus: CorpusSpec, sizes: Sequence[str], n_seeds: int = 1
) -> Iterator[PlannedRun]:
    """Controls of further sizes, which effective sizes are read from."""
    cells = tuple(Cell("control", size, seeds=seeds(n_seeds), corpus=corpus) for size in sizes)
    for run in planned(design._replace(cells=cells)):
        yield _of_unit(run, REFERENCE)


def tiny() -> Sequence[PlannedRun]:
    """Seconds of work on synthetic bytes, for tests: every arm, no science."""
    design = tiny_design(())
    return (
        *ladder(design, corpus=TINY, sizes=("0.6k", "6.6k"), n_seeds=2),
        *arms(
            design, corpus=TINY, size="1.9k", fraction=FRACTION, subsets=(16, 4), n_seeds=2, starved=2
        ),
    )  # fmt: skip


def laptop() -> Sequence[PlannedRun]:
    """Three seeds at three numbers of passes around the expected peak, 2.5M tokens a run."""
    design = laptop_design(())._replace(steps=STEPS)
    return (
        *ladder(design, corpus=LAPTOP, sizes=("0.6k", "1.9k", "3.8k", "6.6k", "14k", "57k")),
        *arms(
            design, corpus=LAPTOP, size="25k", fraction=FRACTION, subsets=SUBSETS, n_seeds=3, starved=1
        ),
    )  # fmt: skip


def overnight() -> Sequence[PlannedRun]:
    """Five seeds, which equality needs, at 25k; three at 100k, whose peak is at fewer passes."""
    design = laptop_design(())._replace(steps=STEPS)
    sizes = ("0.6k", "1.9k", "3.8k", "6.6k", "14k", "57k", "220k")
    wide = (288, *SUBSETS)
    return (
        *ladder(design, corpus=LAPTOP, sizes=sizes, n_seeds=3),
        *arms(design, corpus=LAPTOP, size="25k", fraction=FRACTION, subsets=wide, n_seeds=5, starved=5),
        *arms(design, corpus=LAPTOP, size="100k", fraction=FRACTION, subsets=wide[:3], n_seeds=3, starved=1),
    )  # fmt: skip


def gpu() -> Sequence[PlannedRun]:
    """Natural text, f = 1/10, three seeds at three numbers of passes: 32, 100 and 320."""
    design = gpu_design(())._replace(batch_size=scale.GPU_BATCH_SIZE * scale.GPU_TEXT.length // LENGTH)
    subsets = tuple(
        scale.gpu_subset(TENTH, passes=passes) * scale.GPU_TEXT.length // LENGTH for passes in (32, 100, 320)
    )
    return (
        *ladder(design, corpus=GPU, sizes=("28k", "104k", "0.40M", "5.3M")),
        *arms(design, corpus=GPU, size="1.6M", fraction=TENTH, subsets=subsets, n_seeds=3, starved=1),
    )  # fmt: skip


def paper() -> Sequence[PlannedRun]:
    """98B tokens at two of the paper's sizes and its f = 10%, all six subsets, one seed."""
    shorter = scale.CONTEXT // LENGTH
    design = paper_design(())._replace(batch_size=scale.BATCH_SIZE * shorter)
    subsets = tuple(subset * shorter for subset in scale.SUBSETS)
    return (
        *ladder(design, corpus=PAPER_TEXT, sizes=("1.57M", "5.3M", "13M", "101M", "200M", "805M")),
        *(
            run
            for size in ("42M", "340M")
            for run in arms(
                design, corpus=PAPER_TEXT, size=size, fraction=TENTH, subsets=subsets, n_seeds=1, starved=1
            )
        ),
    )  # fmt: skip


def analyse(collected: "Collected") -> Analysis:
    """Claims on the smallest size; figures and a table of each."""
    from repetita.fit.claim import settle
    from repetita.studies import _arm_figures, _arms
    from repetita.studies._grid import planned_labels

    measured = collected.measurements
    if measured.is_empty():
        return Analysis(warnings=("no run is finished yet",))
    plan = planned_labels(collected)
    scan = _arms.scan_of(_arms.controls(measured, plan=plan, variant=NAMES[REFERENCE]))
    claims: list[Claim] = []
    figures: list[Figure] = []
    tables: list[Table] = []
    for place, size in enumerate(_arms.sizes(plan)):
        found = _arms.arms(measured, plan=plan, size=size)
        word = "unit" if place == 0 else f"unit-{size.lower().replace('.', '-')}"
        claims += _claims(word, found, size=size, primary=place == 0)
        figures += _arm_figures.figures(word, found, scan=scan, title="unit of repetition", what=WHAT)
        if found:
            tables.append(_arm_figures.table(word, found, scan=scan, what=WHAT))
    warnings = () if scan is not None else ("No effective sizes: too few sizes of controls are there.",)
    return Analysis(settle(claims), figures, tables, warnings)


def _claims(word: str, found: "Mapping[str, Arm]", *, size: str, primary: bool) -> "Iterator[Claim]":
    """Each unit against sequences, the shortest first, and that each unit costs at all."""
    from repetita.studies._arms import alike, chosen_text, costs
    from repetita.studies._grid import minus

    reference = found.get(NAMES[REFERENCE])
    for unit in reversed(UNITS[1:]):
        arm = found.get(NAMES[unit])
        both = arm is not None and reference is not None
        yield alike(
            minus(arm.damage, reference.damage) if arm is not None and reference is not None else {},
            name=f"{word}-{unit}", margin=MARGIN, primary=primary,
            statement=f"N = {size}: repeated {NAMES[unit]} cost what repeated {NAMES[REFERENCE]} cost, to "
            f"within {MARGIN:g} nats at the worst passes of each",
            source=f"{PAPER}: repetition at the sentence, paragraph or document level; the comparison, ours",
            note=f"{NAMES[unit]} {chosen_text(arm)}; {NAMES[REFERENCE]} {chosen_text(reference)}"
            if both and arm is not None and reference is not None else "",
        )  # fmt: skip
    for unit in UNITS:
        arm = found.get(NAMES[unit])
        yield costs(
            {} if arm is None else arm.damage,
            name=f"{word}-{unit}-costs", primary=primary,
            statement=f"N = {size}: repeated {NAMES[unit]} raise the test loss over the control's",
            source=f"{PAPER} and Fig. 2", note="" if arm is None else chosen_text(arm),
        )  # fmt: skip


def detectable(scale: str) -> Mapping[str, str]:
    """For each primary claim of a scale the smallest effect that its seeds can show, in words."""
    from repetita.studies._arms import sizes
    from repetita.studies._power import smallest_effects

    plan = [labels_of(run) for run in SCALES[scale]()]
    size = sizes(plan)[0]
    n = len({one["seed"] for one in plan if one["size"] == size and one["arm"] == "repeated"})
    alike = {f"unit-{unit}": SEED_SD for unit in reversed(UNITS[1:])}
    sd = alike | {f"unit-{unit}-costs": COST_SD for unit in UNITS}
    predicted = dict.fromkeys(alike, MARGIN) | {f"unit-{unit}-costs": PREDICTED_COST for unit in UNITS}
    return smallest_effects(n=n, sd=sd, unit=dict.fromkeys(sd, "nats"), predicted=predicted)


def deviations(scale: str) -> Sequence[Deviation]:
    """The paper's value and ours, parameter by parameter."""
    runs = SCALES[scale]()
    spec = runs[0].spec
    length = spec.corpus.length
    tokens = spec.steps * spec.batch_size * length
    treated = {count(run.spec.model).non_embedding for run in runs if run.labels["arm"] == "repeated"}
    sizes, shares = (sorted(treated), {run.labels["fraction"] for run in runs} - {None})
    return (
        Deviation("unit", "not stated beside the abstract", ", ".join(NAMES.values()), "the question"),
        Deviation("corpus", "400B tokens of web text and books", spec.corpus.source, "what is there"),
        Deviation("tokens T a run", "100B", f"{tokens:,}", "the scale's compute"),
        Deviation("model sizes N", "1.5M to 800M", ", ".join(f"{n:,}" for n in sizes), "the scale's compute"),
        Deviation("fraction f", "3% to 90%", ", ".join(str(f) for f in shares),
                  "sentences, one a sequence, cannot be more"),
        Deviation("context", "8,192", str(length), "the same reason"),
        Deviation("place of short units", "not stated", "drawn anew in the unique sequence of each slot",
                  "rule 5 of the design: they are met in changing company"),
        Deviation("long units", "not stated", f"documents are cut every {length} tokens and at the "
                  "end of the subset, paragraphs and sentences after as many", "sequences are as long"),
        *_documents(runs),
        Deviation("worst passes", "read off the same curve", "of the other seeds", "no flattery by noise"),
        Deviation("control", "unique data", "unique data, the same run for every unit; empty repeated slots",
                  "pairs by seed"),
        Deviation("learning rate", "not stated", rates_text(runs), "rule 11 of the design, on the control"),
    )  # fmt: skip


def _documents(runs: Sequence[PlannedRun]) -> Iterator[Deviation]:
    """What is left of a document where the subset is shorter than the speeches that it is cut from."""
    if runs[0].spec.corpus.source != SOTU.source:
        return
    subsets = sorted({int(run.labels["subset"]) for run in runs if run.labels["subset"]})
    within = " and ".join(str(subset) for subset in subsets if subset < SHORT_SPEECH)
    more = " and ".join(str(subset) for subset in subsets if subset >= SHORT_SPEECH)
    yield Deviation(
        "a document", "not stated",
        f"a stretch of one speech at S = {within}; of one or more at S = {more}",
        f"the median speech has {SPEECH} sequences and units are compared at equal amounts of text: there a "
        "document is neighbouring sequences, read in order",
    )  # fmt: skip


SCALES = {"tiny": tiny, "laptop": laptop, "overnight": overnight, "gpu": gpu, "paper": paper}

STUDY = Study(
    name="repetition_unit",
    title="What is repeated: sequences, documents, paragraphs, sentences",
    question="The same share of the training tokens re-reads the same amount of text. Does it matter whether "
    "that text comes back as whole sequences or documents, or as paragraphs or sentences inside other text?",
    prediction="None: the paper names repetition at the sentence, paragraph and document level, and repeats "
    "one unit. Fixed here before any run: units that cost the same differ by less than 0.05 nats.",
    source="Hernandez et al. 2022, Learning from Repeated Data, abstract",
    scales=SCALES,
    analyse=analyse,
    deviations=deviations,
    detectable=detectable,
    expected=EXPECTED,
)
