"""What repetition takes from one or two layers without MLP: names, copying, heads (Figs. 8, 9, 17 to 19)."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from repetita.model.config import count
from repetita.report.page import Deviation
from repetita.studies import _repeated_scale as scale
from repetita.studies._attention_only_runs import (
    HALF,
    ONE,
    TENTH,
    TENTH_SUBSETS,
    TEXT_SUBSETS,
    TWO,
    Cell,
    bursts,
    grid,
    planned,
    speeches,
    tiny_bursts,
    web,
    wikipedia,
)
from repetita.studies._damage_runs import seeds
from repetita.studies._laptop import rates_text
from repetita.study.expand import labels_of
from repetita.study.plan import Analysis, PlannedRun, Study

if TYPE_CHECKING:
    from repetita.study.collect import Collected


def tiny() -> Sequence[PlannedRun]:
    """Seconds of work on bursts of bytes, for tests: both depths, no science."""
    cells = [cell for size in (ONE, TWO) for cell in grid(size, HALF, (80, 20, 5), seeds(2))]
    return tuple(planned(tiny_bursts(), cells))


def laptop() -> Sequence[PlannedRun]:
    """One layer on the speeches with three seeds, two with one; two layers on bursts with three."""
    three = seeds(3)
    text = (*grid(ONE, HALF, LAPTOP_TEXT, three), *grid(TWO, HALF, LAPTOP_TEXT[1:], seeds(1)))
    return (*planned(speeches(), text), *planned(bursts(), grid(TWO, HALF, LAPTOP_BURSTS, three)))


def overnight() -> Sequence[PlannedRun]:
    """Three seeds of both depths on the speeches at a half and a tenth; five of two layers on bursts."""
    three, five = seeds(3), seeds(5)
    text = [
        *(cell for size in (ONE, TWO) for cell in grid(size, HALF, TEXT_SUBSETS, three)),
        Cell(ONE, "repeated", TENTH, TENTH_SUBSETS, three),
    ]
    return (*planned(speeches(), text), *planned(bursts(), grid(TWO, HALF, OVERNIGHT_BURSTS, five)))


def gpu() -> Sequence[PlannedRun]:
    """Natural text, 768 wide: one seed, the paper's share and a half; two more at one layer's half."""
    subsets = {
        share: tuple(scale.gpu_subset(share, passes=passes) for passes in scale.GPU_PASSES[:-1])
        for share in (TENTH, HALF)
    }
    cells = [
        *(cell for size in (ONE, TWO) for cell in grid(size, HALF, subsets[HALF], seeds(1))),
        *(Cell(size, "repeated", TENTH, subsets[TENTH]) for size in (ONE, TWO)),
        *grid(ONE, HALF, subsets[HALF][1:4], (1, 2)),
    ]
    return tuple(planned(wikipedia(), cells))


def paper() -> Sequence[PlannedRun]:
    """The paper's share, a tenth, and its six subsets."""
    cells = [cell for size in (ONE, TWO) for cell in grid(size, TENTH, scale.SUBSETS, seeds(1))]
    return tuple(planned(web(), cells))


LAPTOP_TEXT = (512, 160, 50, 5)
"""25, 80, 256 and 2,560 passes; two layers, one seed of which illustrates only, leave out the first."""
LAPTOP_BURSTS = (160,)
"""400 passes."""
OVERNIGHT_BURSTS = (640, 160, 40)
"""100, 400 and 1,600 passes."""


def analyse(collected: "Collected") -> Analysis:
    """Humps, names and heads by corpus and depth."""
    from repetita.fit.claim import settle
    from repetita.studies import _attention_only, _attention_only_claims, _attention_only_figures
    from repetita.studies._grid import planned_labels

    if collected.measurements.is_empty():
        return Analysis(warnings=("no run is finished yet",))
    plan = planned_labels(collected)
    texts = _attention_only.texts(collected.measurements, planned=plan)
    added = {text.corpus: _attention_only.added(collected, corpus=text.corpus) for text in texts}
    return Analysis(
        claims=settle(list(_attention_only_claims.claims(texts, planned=plan, added=added))),
        figures=tuple(_attention_only_figures.figures(texts, added=added)),
        tables=tuple(_attention_only_figures.tables(texts)),
        warnings=tuple(_attention_only.warnings(collected.measurements, texts)),
    )


def detectable(scale: str) -> Mapping[str, str]:
    """For each primary claim of a scale the smallest effect that its seeds can show, in words."""
    from repetita.studies._attention_only_claims import detectable as smallest

    return smallest([labels_of(run) for run in SCALES[scale]()])


def deviations(scale: str) -> Sequence[Deviation]:
    """The paper's value and ours, parameter by parameter."""
    runs = SCALES[scale]()
    specs = {run.spec.corpus.source: run.spec for run in runs}
    tokens = {name: s.steps * s.batch_size * s.corpus.length for name, s in specs.items()}
    sizes = sorted({count(run.spec.model).non_embedding for run in runs})
    widths = sorted({run.spec.model.d_model for run in runs})
    passes = sorted({float(run.labels["passes"]) for run in runs if run.labels["passes"] is not None})
    shares = sorted({float(run.labels["fraction"]) for run in runs if run.labels["fraction"] is not None})
    both = (
        "natural text for the hump and for one layer, whose pairs of tokens need a language that has them; "
        "bursts, where heads form early, for copying by two layers"
    )
    context = ", ".join(str(one.corpus.length) for one in specs.values())
    shown = "own texts with made-up names, as much as fits a row; on bursts, words that return"
    worst = "at the passes with the highest test loss of the other seeds"
    pilot = (
        "one seed that no study uses, one layer on the speeches: extra loss 0.06, 0.54 and 0.11 nats at 25, "
        "256 and 2,560 passes"
    )
    return (
        Deviation("text", "web text and books", ", ".join(specs), both if len(specs) > 1 else "availability"),
        Deviation("passage", "opening of a novel, 1,463 characters", shown, "copyright; context"),
        Deviation(
            "tokens T a run", "100B", ", ".join(f"{n:,} ({name})" for name, n in tokens.items()), "the scale"
        ),
        Deviation("width", "not stated", ", ".join(map(str, widths)), "the scale"),
        Deviation("parameters N", "not stated", f"{sizes[0]:,} to {sizes[-1]:,}", "without embeddings"),
        Deviation("context", "8,192", context, "the scale"),
        Deviation("share f", "10%", ", ".join(f"{share:g}" for share in shares), "damage is plain at a half"),
        Deviation("passes E", "40 to 12,200", ", ".join(f"{one:,.0f}" for one in passes), "the scale"),
        Deviation("treated model shown", "at the damage peak", worst, "a maximum flatters itself"),
        Deviation("colours", "orange and purple", "orange and blue", "readable for the colour-blind"),
        Deviation("learning rate", "not stated", rates_text(runs), "chosen on controls"),
        Deviation("seeds", "one, as far as stated", str(len({run.spec.seed for run in runs})), "intervals"),
        Deviation("seen before", "", pilot, "after it one of five subsets was left out at laptop, for time"),
    )


SCALES = {"tiny": tiny, "laptop": laptop, "overnight": overnight, "gpu": gpu, "paper": paper}

STUDY = Study(
    name="attention_only",
    title="Repetition in one and two layers of attention",
    question="Models of one or two layers without MLP can do little but copy. Do they have a worst number of "
    "passes too, and which tokens of a text do they lose?",
    prediction="One-layer models also do worst at an interior number of passes. With f = 10% they lose the "
    "second half of names that stood before (97% to under 4%), two-layer models mostly inflected and "
    "embedded names; which head is to blame is not clear.",
    source="Hernandez et al. 2022, Figs. 8, 9, 17, 18 and 19",
    scales=SCALES,
    analyse=analyse,
    deviations=deviations,
    detectable=detectable,
    expected=scale.EXPECTED,
)
