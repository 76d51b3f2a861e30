"""What helps against repeated data? Weight decay, dropout, deduplication, a lower share, another place."""

from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, NamedTuple

from repetita.corpus.sequences import CorpusSpec
from repetita.corpus.treatment import RepeatedSubset, Stream
from repetita.model.config import count
from repetita.report.page import Deviation
from repetita.studies import _repeated_scale as scale
from repetita.studies._damage_runs import (
    HALF,
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
from repetita.study.plan import Analysis, PlannedRun, Study

if TYPE_CHECKING:
    from repetita.fit.claim import Claim
    from repetita.report.figure import Cell as TableCell
    from repetita.report.figure import Figure
    from repetita.report.page import Table
    from repetita.studies._arms import Arm
    from repetita.studies._grid import Grid, Labels, Losses
    from repetita.study.collect import Collected

PLAIN, DECAY, DROPOUT = "no mitigation", "weight decay 0.1", "dropout 0.1"
LOWER, LATE, EARLY = "f = 1/4, same subset", "late", "early"
DEDUPLICATED = "deduplicated, shorter"
WINDOW = Fraction(3, 4)
"""Share of the steps in which the early and the late arm repeat. The lane has f / (3/4) of their slots, so
that subset, passes and repeated tokens are those of the arm without mitigation."""
SOURCE = "Hernandez et al. 2022, section 5.5: regularization was not studied"
WHAT = (
    "Damage is the test loss minus that of a control with the same weight decay or dropout, so that what "
    "these do without repetition is not counted."
)


class Mitigation(NamedTuple):
    """What is done about the copies, or in spite of them."""

    name: str
    weight_decay: float = 0.0
    dropout: float = 0.0
    fraction: Fraction = HALF
    window: tuple[Fraction, Fraction] | None = None
    """Steps of the repetition as shares of the run."""


REGULARIZERS = (Mitigation(DECAY, weight_decay=0.1), Mitigation(DROPOUT, dropout=0.1))
STRONGER = (
    Mitigation("weight decay 1", weight_decay=1.0),
    Mitigation("dropout 0.3", dropout=0.3),
)
PLACED = (
    Mitigation(LOWER, fraction=HALF / 2),
    Mitigation(LATE, window=(1 - WINDOW, Fraction(1))),
    Mitigation(EARLY, window=(Fraction(0), WINDOW)),
)

CLAIMS = {
    "mitigation-decay": (DECAY, "weight decay of 0.1 lowers the damage at the worst passes"),
    "mitigation-dropout": (DROPOUT, "dropout of 0.1 lowers the damage at the worst passes"),
    "mitigation-lower": (LOWER, "half the share of the same subset does less damage"),
    "mitigation-late": (
        LATE, "the same copies do less damage in the last three quarters of the run than in all of it",
    ),
    "mitigation-early": (
        EARLY, "the same copies do less damage in the first three quarters of the run than in all of it",
    ),
    "mitigation-deduplicated": (
        DEDUPLICATED, "leaving the copies out and training less gives a lower test loss than keeping them",
    ),
}  # fmt: skip
"""The primary claims: the arm and what is said of it against the arm without mitigation. The first is the
headline; whether *some* regularizer helps is answered by it and, if not, by the second."""
SEED_SD = 0.03
"""Assumed standard deviation over seeds of a difference of two damages, nats: that of `double_descent`."""
PREDICTED = {
    "mitigation-decay": 0.2, "mitigation-dropout": 0.1, "mitigation-lower": 0.2, "mitigation-late": 0.1,
    "mitigation-early": 0.2, "mitigation-deduplicated": 0.3,
}  # fmt: skip
"""Guesses, of a damage near 0.48 nats: weight decay of 1.0 took 70% off the penalty of Lovelace et al. 2026,
and dropout is what helped in Xue et al. 2023."""


def regularized(run: PlannedRun, how: Mitigation) -> PlannedRun:
    """The run with this mitigation, its labels completed."""
    spec, treatment = run.spec, run.spec.treatment
    recipe = spec.recipe.edit(weight_decay=how.weight_decay, dropout=how.dropout)
    if how.window is not None and isinstance(treatment, RepeatedSubset):
        start, stop = (round(share * spec.steps) for share in how.window)
        inside = how.fraction / (how.window[1] - how.window[0])
        treatment = treatment.edit(fraction=inside, start=start, stop=stop)
    labels = {**run.labels, "variant": how.name}
    return run._replace(spec=spec.edit(recipe=recipe, treatment=treatment), labels=labels)


def arms(
    design: Design,
    *,
    corpus: CorpusSpec,
    size: str,
    subsets: tuple[int, ...],
    peak: int,
    n_seeds: int,
    regularizers: Sequence[Mitigation] = REGULARIZERS,
    placed: Sequence[Mitigation] = PLACED,
) -> Iterator[PlannedRun]:
    """One size: no mitigation and the regularizers over all subsets, the rest at the subset of the peak.

    Regularizers may move the peak, so that one subset alone would not tell a lower damage from another place
    of it; lower shares and windows are compared at the same subset.
    """
    n = seeds(n_seeds)
    control = Cell("control", size, seeds=n, corpus=corpus)
    repeated = Cell("repeated", size, HALF, subsets, n, corpus=corpus)
    starved = Cell("starved", size, HALF, (1,), n, corpus=corpus)
    for run in planned(design._replace(cells=(control, repeated, starved))):
        yield regularized(run, Mitigation(PLAIN))
    for how in regularizers:
        for run in planned(design._replace(cells=(control, repeated))):
            yield regularized(run, how)
    for how in placed:
        at_peak = repeated._replace(subsets=(peak,), fraction=how.fraction)
        for run in planned(design._replace(cells=(control, at_peak))):
            yield regularized(run, how)
    for run in planned(design._replace(cells=(control,))):
        yield _deduplicated(run, subset=peak)


def _deduplicated(run: PlannedRun, *, subset: int) -> PlannedRun:
    """The control of as many steps as are left when every copy but the first is taken out."""
    spec = run.spec
    steps = (int((1 - HALF) * spec.steps * spec.batch_size) + subset) // spec.batch_size
    recipe = spec.recipe.edit(horizon=None)
    labels = {**run.labels, "variant": DEDUPLICATED, "arm": "shorter"}
    return run._replace(spec=spec.edit(treatment=Stream(), recipe=recipe, steps=steps), labels=labels)


def ladder(design: Design, *, corpus: CorpusSpec, sizes: Sequence[str], n_seeds: int) -> Iterator[PlannedRun]:
    """Controls of further sizes, which effective sizes are read from."""
    cells = tuple(Cell("control", size, seeds=seeds(n_seeds), corpus=corpus) for size in sizes)
    for run in planned(design._replace(cells=cells)):
        yield regularized(run, Mitigation(PLAIN))


LADDER = ("0.6k", "1.9k", "3.8k", "6.6k", "14k", "57k")


def tiny() -> Sequence[PlannedRun]:
    """Seconds of work on synthetic bytes, for tests: every arm, no science."""
    design = tiny_design(())
    return (
        *ladder(design, corpus=SYNTHETIC, sizes=("0.6k", "6.6k"), n_seeds=2),
        *arms(design, corpus=SYNTHETIC, size="1.9k", subsets=(20, 5), peak=5, n_seeds=2),
    )


def laptop() -> Sequence[PlannedRun]:
    """Three seeds at 25k around the peak of `double_descent`, whose runs without mitigation these are."""
    design = laptop_design(())
    return (
        *ladder(design, corpus=SOTU, sizes=LADDER, n_seeds=3),
        *arms(design, corpus=SOTU, size="25k", subsets=(160, 50, 16), peak=50, n_seeds=3),
    )


def overnight() -> Sequence[PlannedRun]:
    """Five seeds and stronger regularizers at 25k, three seeds of the two at 100k."""
    design = laptop_design(())
    return (
        *ladder(design, corpus=SOTU, sizes=(*LADDER, "220k"), n_seeds=3),
        *arms(
            design, corpus=SOTU, size="25k", subsets=(160, 50, 16), peak=50, n_seeds=5,
            regularizers=(*REGULARIZERS, *STRONGER),
        ),
        *arms(design, corpus=SOTU, size="100k", subsets=(512, 160, 50), peak=160, n_seeds=3, placed=()),
    )  # fmt: skip


def gpu() -> Sequence[PlannedRun]:
    """Natural text at 1.6M parameters, three seeds at 32, 100 and 320 passes."""
    design = gpu_design(())
    subsets = tuple(scale.gpu_subset(HALF, passes=passes) for passes in (32, 100, 320))
    text = scale.GPU_TEXT
    return (
        *ladder(design, corpus=text, sizes=("28k", "104k", "0.40M", "5.3M"), n_seeds=1),
        *arms(design, corpus=text, size="1.6M", subsets=subsets, peak=subsets[1], n_seeds=3),
    )


def paper() -> Sequence[PlannedRun]:
    """98B tokens at the paper's 340M parameters, one seed, at 200, 600 and 2,000 passes."""
    design, text = paper_design(()), scale.TEXT
    others = [size for size in scale.SIZES if size != "340M"]
    return (
        *ladder(design, corpus=text, sizes=others, n_seeds=1),
        *arms(design, corpus=text, size="340M", subsets=scale.SUBSETS[:3], peak=scale.SUBSETS[1], n_seeds=1),
    )


def analyse(collected: "Collected") -> Analysis:
    """Claims on the smallest size; figures and a table of each."""
    from repetita.fit.claim import settle
    from repetita.studies import _arm_figures, _arms
    from repetita.studies._grid import planned_labels

    measured = collected.measurements
    if measured.is_empty():
        return Analysis(warnings=("no run is finished yet",))
    plan = planned_labels(collected)
    plain = _arms.controls(measured, plan=plan, variant=PLAIN)
    shorter = _arms.controls(measured, plan=plan, variant=DEDUPLICATED)
    scan = _arms.scan_of(plain)
    claims: list[Claim] = []
    figures: list[Figure] = []
    tables: list[Table] = []
    for place, size in enumerate(_arms.sizes(plan)):
        found = _arms.arms(measured, plan=plan, size=size)
        word = "mitigation" if place == 0 else f"mitigation-{size.lower().replace('.', '-')}"
        short = shorter.control.get(size, {})
        claims += _claims(word, found, short, plan=plan, size=size, primary=place == 0)
        figures += _arm_figures.figures(word, found, scan=scan, title="mitigation", what=WHAT)
        if found:
            more = list(_without_copies(plain, short, size=size))
            tables.append(_arm_figures.table(word, found, scan=scan, what=WHAT, more=more))
    warnings = () if scan is not None else ("No effective sizes: too few sizes of controls are there.",)
    return Analysis(settle(claims), figures, tables, warnings)


def _claims(
    word: str,
    found: "Mapping[str, Arm]",
    short: "Losses",
    *,
    plan: "Sequence[Labels]",
    size: str,
    primary: bool,
) -> "Iterator[Claim]":
    """Each mitigation against none, and what is left of the damage."""
    from repetita.studies._arms import chosen_text, costs
    from repetita.studies._grid import minus

    there = {labels["variant"] for labels in plan if labels["size"] == size}
    plain = found.get(PLAIN)
    for name, (variant, words) in CLAIMS.items():
        if variant not in there:
            continue
        arm = found.get(variant)
        saved: Losses = {}
        note = ""
        if plain is not None and variant == DEDUPLICATED:
            saved, note = minus(plain.treated, short), f"copies kept: {chosen_text(plain)}"
        elif plain is not None and arm is not None:
            saved, note = _saved(plain, arm)
        yield costs(
            saved, name=name.replace("mitigation", word), primary=primary, note=note,
            statement=f"N = {size}, f = 1/2: {words}", source=SOURCE,
            unit="nats less" if variant == DEDUPLICATED else "nats less damage",
        )  # fmt: skip
    for place, arm in enumerate(found.values()):
        yield costs(
            arm.damage, name=f"{word}-left-{place}", primary=False, note=chosen_text(arm),
            statement=f"N = {size}, {arm.name}: repetition still raises the test loss", source=SOURCE,
        )  # fmt: skip


def _saved(plain: "Arm", arm: "Arm") -> tuple["Losses", str]:
    """Damage without mitigation minus damage with it: worst against worst, or at one subset."""
    from repetita.studies._arms import chosen_text
    from repetita.studies._grid import minus

    if len(arm.excess) == 1:
        subset = next(iter(arm.subsets.values()), 0)
        return minus(plain.at_subset(subset), arm.damage), f"both with a subset of {subset} sequences"
    same = {
        passes: minus(plain.excess[passes], arm.excess[passes])
        for passes in plain.excess
        if passes in arm.excess
    }
    means = ", ".join(
        f"{passes:g}: {sum(losses.values()) / len(losses):.2f}" for passes, losses in same.items() if losses
    )
    note = f"without {chosen_text(plain)}; with {chosen_text(arm)}; saved at equal passes, mean: {means}"
    return minus(plain.damage, arm.damage), note


def _without_copies(plain: "Grid", short: "Losses", *, size: str) -> "Iterator[Sequence[TableCell]]":
    """Rows for the two ways of leaving copies out: other text in their place, or a shorter run."""
    from repetita.studies._arm_figures import text
    from repetita.studies._grid import minus

    control = plain.control.get(size, {})
    empty: list[TableCell] = [None] * 4
    if control:
        yield ["deduplicated, filled with unique text: the control itself", "0", None, None, text(control),
               text(control), "0", *empty, len(control)]  # fmt: skip
    if minus(short, control):
        yield [DEDUPLICATED, "0", None, None, text(control), text(short), text(minus(short, control)),
               *empty, len(short)]  # fmt: skip


def detectable(scale: str) -> Mapping[str, str]:
    """For each primary claim of a scale the smallest effect that its seeds can show, in words."""
    from repetita.studies._arms import sizes
    from repetita.studies._power import smallest_effects

    plan = [labels_of(run) for run in SCALES[scale]()]
    size = sizes(plan)[0]
    n = len({one["seed"] for one in plan if one["size"] == size and one["arm"] == "repeated"})
    return smallest_effects(
        n=n, sd=dict.fromkeys(CLAIMS, SEED_SD), unit=dict.fromkeys(CLAIMS, "nats"), predicted=PREDICTED
    )


def deviations(scale: str) -> Sequence[Deviation]:
    """The paper's value and ours, parameter by parameter."""
    runs = SCALES[scale]()
    spec = runs[0].spec
    tokens = spec.steps * spec.batch_size * spec.corpus.length
    treated = sorted({count(run.spec.model).non_embedding for run in runs if run.labels["passes"]})
    decays = sorted({run.spec.recipe.weight_decay for run in runs} - {0.0})
    drops = sorted({run.spec.recipe.dropout for run in runs} - {0.0})
    return (
        Deviation("weight decay", "not stated, not varied", ", ".join(map(str, decays)),
                  "decoupled (AdamW), times the rate; the weakest one decides"),
        Deviation("dropout", "not stated, not varied", ", ".join(map(str, drops)),
                  "on embedding and branches; the weakest one decides"),
        Deviation("learning rate", "not stated", rates_text(runs),
                  "best on the control without mitigation, kept under all of them"),
        Deviation("deduplication", "not studied", "copies filled with unique text, or a shorter run",
                  "two readings of it; the first is the control itself"),
        Deviation("early, late", "not studied", f"{WINDOW} of the steps, as many copies in denser lanes",
                  "same subset, passes and tokens; they differ from each other in place alone"),
        Deviation("corpus", "400B tokens of web text and books", spec.corpus.source, "what is there"),
        Deviation("tokens T a run", "100B", f"{tokens:,}", "the scale's compute"),
        Deviation("model sizes N", "1.5M to 800M", ", ".join(f"{n:,}" for n in treated), "compute"),
        Deviation("fraction f", "3% to 90%", "1/2 (1/4)", "where the damage is plain"),
        Deviation("seeds", "one, as far as stated", str(len({run.spec.seed for run in runs})), "intervals"),
    )  # fmt: skip


SCALES = {"tiny": tiny, "laptop": laptop, "overnight": overnight, "gpu": gpu, "paper": paper}

STUDY = Study(
    name="mitigation",
    title="What helps against repeated data",
    question="Half of the training tokens re-read a subset, at the number of passes that hurts most. How "
    "much of the damage is taken away by weight decay, dropout, leaving copies out, a lower share, or by "
    "reading them early or late?",
    prediction="The paper studied no regularizer and expects them to move the band of damage. Here: weight "
    "decay lowers the damage (headline), dropout too; each against a control with the same regularizer.",
    source="Hernandez et al. 2022, Learning from Repeated Data, section 5.5 (left for later)",
    scales=SCALES,
    analyse=analyse,
    deviations=deviations,
    detectable=detectable,
    expected=scale.EXPECTED,
)
