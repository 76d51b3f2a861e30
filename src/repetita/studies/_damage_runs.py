"""The runs of the double-descent study at every scale, and those of the control ladder among them."""

from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import product
from typing import Literal, NamedTuple

from repetita.cadence import At, LogSpaced
from repetita.corpus.sequences import CorpusSpec
from repetita.corpus.treatment import RepeatedSubset, Stream
from repetita.measure.memorization import ScoreProbe
from repetita.measure.probe import Probe
from repetita.model.config import ModelConfig, count
from repetita.studies import _bursts
from repetita.studies import _repeated_scale as scale
from repetita.studies._laptop import RATES, SOTU, SYNTHETIC, config
from repetita.study.plan import PlannedRun
from repetita.train.recipe import Recipe, RunSpec

STDLIB = SOTU.edit(source="python-stdlib")

LADDER = tuple(RATES)
TEST_SEQUENCES = 800
"""Just above the 100,000 tokens that rule 1 of the experiment design asks for."""
CURVE_BUDGET = Fraction(1, 100)
"""45 sequences at each of 17 states of 1,600 steps. All measuring of a run stays under 5% of its time."""

HUNDREDTH, THREE_HUNDREDTHS, TENTH, FIFTH, HALF, NINE_TENTHS = scale.FRACTIONS


class Cell(NamedTuple):
    """Runs that differ in the size of the repeated subset and in the seed only."""

    arm: Literal["control", "repeated", "starved"]
    size: str
    fraction: Fraction | None = None
    subsets: tuple[int, ...] = (0,)
    """Sequences S of the repeated subset; passes are E = f T / S."""
    seeds: tuple[int, ...] = (0,)
    curve: Literal["cosine", "constant"] = "cosine"
    rate_scale: float = 1.0
    corpus: CorpusSpec = SOTU


class Design(NamedTuple):
    """What a scale runs."""

    cells: tuple[Cell, ...]
    steps: int
    batch_size: int
    test_sequences: int
    """Sequences of the final test loss."""
    curve_budget: Fraction
    """Share of a run's compute for the learning curve, which reads fewer sequences and is less exact; that
    of the repeated subset has two fifths of it."""
    curve_points: int
    warmup_steps: int = 100
    family: Literal["laptop", "bursts", "gpu", "paper"] = "laptop"


def planned(design: Design) -> Iterator[PlannedRun]:
    """One planned run for each subset and seed of each cell."""
    total = design.steps * design.batch_size
    for cell in design.cells:
        model, recipe = _recipe(design, cell)
        lane = 0 if cell.fraction is None else int(cell.fraction * total)
        for subset, seed in product(cell.subsets, cell.seeds):
            treatment: Stream | RepeatedSubset = Stream()
            if cell.fraction is not None:
                slots: Literal["repeated", "empty"] = "empty" if cell.arm == "starved" else "repeated"
                treatment = RepeatedSubset(fraction=cell.fraction, n_sequences=subset, slots=slots)
            spec = RunSpec(
                corpus=cell.corpus,
                model=model,
                treatment=treatment,
                recipe=recipe,
                steps=design.steps,
                batch_size=design.batch_size,
                seed=seed,
            )
            yield PlannedRun(
                spec=spec,
                labels={
                    "arm": cell.arm,
                    "corpus": cell.corpus.source,
                    "size": cell.size,
                    "non_embedding": count(model).non_embedding,
                    "total_params": count(model).total,
                    "fraction": None if cell.fraction is None else float(cell.fraction),
                    "subset": subset if cell.arm == "repeated" else None,
                    "passes": lane / subset if cell.arm == "repeated" else None,
                    "curve": cell.curve,
                    "vocab_size": model.vocab_size,
                    "rate_scale": cell.rate_scale,
                },
                probes=tuple(probes(design, cell)),
            )


def _recipe(design: Design, cell: Cell) -> tuple[ModelConfig, Recipe]:
    """Model and optimizer of a cell."""
    if design.family == "laptop":
        model = config(cell.size, corpus=cell.corpus)
        recipe = Recipe(learning_rate=RATES[cell.size], warmup_steps=design.warmup_steps)
    elif design.family == "bursts":
        model = _bursts.config(cell.size, kind="attention_only", corpus=cell.corpus)
        recipe = Recipe(learning_rate=_bursts.RATES[cell.size], warmup_steps=design.warmup_steps)
    elif design.family == "gpu":
        model = scale.gpu_config(cell.size, corpus=cell.corpus)
        recipe = scale.gpu_recipe(model, steps=design.steps)
    else:
        model = scale.config(cell.size)
        recipe = scale.recipe(model, steps=design.steps)
    return model, recipe.edit(learning_rate=recipe.learning_rate * cell.rate_scale, curve=cell.curve)


def probes(design: Design, cell: Cell) -> Iterator[Probe]:
    """Test loss often on few sequences and seldom on many; the repeated subset as often as the curve.

    A peak read before the end means something under a constant rate alone (experiment design, rule 25).
    """
    often = LogSpaced(k=design.curve_points, first=Fraction(max(1, design.steps // 80)))
    seldom = At(at=(design.steps // 4, design.steps // 2) if cell.curve == "constant" else ())
    yield ScoreProbe(name="curve", on=("test",), budget=design.curve_budget, cadence=often)
    yield ScoreProbe(name="test", on=("test",), max_sequences=design.test_sequences, cadence=seldom)
    if cell.arm == "repeated":
        yield ScoreProbe(name="subset", on=("repeated",), budget=design.curve_budget * 2 / 5, cadence=often)


def seeds(n: int) -> tuple[int, ...]:
    """The first n seeds."""
    return tuple(range(n))


def grid(
    sizes: Sequence[str],
    fraction: Fraction,
    subsets: tuple[int, ...],
    *,
    n_seeds: int = 1,
    corpus: CorpusSpec = SOTU,
) -> Iterator[Cell]:
    """Sizes at one share over all subsets, and the starvation control of each."""
    for size in sizes:
        yield Cell("repeated", size, fraction, subsets, seeds(n_seeds), corpus=corpus)
        yield Cell("starved", size, fraction, (1,), seeds(n_seeds), corpus=corpus)


# 25,600 slots: half of them hold every subset here a whole number of times (8, 25, 80, 256, 800, 2560).
HALF_SUBSETS = (1600, 512, 160, 50, 16, 5)
AROUND_PEAK = {"25k": (160, 50, 16), "100k": (512, 160, 50, 16)}
"""Where seeds 1 and 2 run as well. At 100k the subsets first chosen, 160, 50 and 16, ended at what turned out
to be the peak (80 passes), which decides nothing; 512 was added so that it is bracketed."""
TENTH_SUBSETS = (320, 80, 32, 10, 4, 1)
NINE_SUBSETS = (1920, 640, 192, 64, 20, 6)
FIFTH_SUBSETS = (640, 160, 64, 20, 8, 2)
"""The passes of a tenth: 8, 32, 80, 256, 640, 2560."""
THREE_SUBSETS = (96, 24, 8, 3, 1)
"""768 slots: 8, 32, 96, 256 and 768 passes; one sequence is the smallest subset there is."""
ONE_SUBSETS = (32, 8, 3, 1)
"""256 slots: 8, 32, 85 and 256 passes, which does not reach beyond the peaks of the larger shares."""
HEADLINE_SUBSETS = (80, 32, 10, 4)
"""A tenth at 100k: 32, 80, 256 and 640 passes; three seeds at 80."""
SUBSETS = {
    HUNDREDTH: ONE_SUBSETS, THREE_HUNDREDTHS: THREE_SUBSETS, TENTH: TENTH_SUBSETS, FIFTH: FIFTH_SUBSETS,
    HALF: HALF_SUBSETS, NINE_TENTHS: NINE_SUBSETS,
}  # fmt: skip


def demo() -> Sequence[PlannedRun]:
    """Eleven short runs of one seed: f = 9/10, where the paper sees double descent at its plainest."""
    cells = (
        *(Cell("control", size) for size in ("3.8k", "6.6k", "14k", "25k")),
        Cell("repeated", "25k", NINE_TENTHS, subsets=(600, 180, 60, 18, 5, 2)),
        Cell("starved", "25k", NINE_TENTHS, subsets=(1,)),
    )
    design = Design(
        cells, 500, 16, TEST_SEQUENCES, curve_budget=Fraction(1, 40), curve_points=16, warmup_steps=50
    )
    return tuple(planned(design))


def tiny_design(cells: Sequence[Cell]) -> Design:
    """Seconds of work."""
    return Design(tuple(cells), 40, 8, 32, curve_budget=Fraction(1, 8), curve_points=6, warmup_steps=8)


def tiny_controls() -> Iterator[Cell]:
    """Four sizes on synthetic bytes, two seeds."""
    for size in ("0.6k", "1.9k", "3.8k", "6.6k"):
        yield Cell("control", size, seeds=seeds(2), corpus=SYNTHETIC)


def tiny() -> Sequence[PlannedRun]:
    """Seconds of work on synthetic bytes, for tests: every arm, no science."""
    cells = (
        *tiny_controls(),
        *grid(("1.9k", "3.8k"), HALF, (80, 20, 5), n_seeds=2, corpus=SYNTHETIC),
        *grid(("3.8k",), TENTH, (8, 2, 1), n_seeds=2, corpus=SYNTHETIC),
        Cell("repeated", "3.8k", HALF, subsets=(20,), curve="constant", corpus=SYNTHETIC),
        Cell("control", "3.8k", curve="constant", corpus=SYNTHETIC),
    )
    return tuple(planned(tiny_design(cells)))


def laptop_design(cells: Sequence[Cell]) -> Design:
    """3.3M tokens a run: all that two CPU cores and one reading of the speeches allow."""
    return Design(tuple(cells), 1600, 16, TEST_SEQUENCES, curve_budget=CURVE_BUDGET, curve_points=16)


def laptop_controls(*, corpus: CorpusSpec = SOTU, n_seeds: int = 3) -> Iterator[Cell]:
    """Nine sizes, 0.6k to 220k: twice as far as any treated size, which is as far as a size is read off."""
    for size in LADDER[: LADDER.index("220k") + 1]:
        yield Cell("control", size, seeds=seeds(n_seeds), corpus=corpus)


def laptop() -> Sequence[PlannedRun]:
    """All six shares at 25k with one seed; at f = 1/2 two sizes with three around the peak, and a line on
    code; at f = 1/10 the headline's cell with three."""
    three = seeds(3)
    cells = (
        *laptop_controls(),
        *(Cell("repeated", size, HALF, subsets=HALF_SUBSETS) for size in ("25k", "100k")),
        *(Cell("repeated", size, HALF, subsets=around, seeds=(1, 2)) for size, around in AROUND_PEAK.items()),
        *(Cell("starved", size, HALF, subsets=(1,), seeds=three) for size in ("25k", "100k")),
        *grid(("57k",), HALF, HALF_SUBSETS[1:]),
        *(cell for share in SUBSETS if share != HALF for cell in grid(("25k",), share, SUBSETS[share])),
        Cell("repeated", "100k", TENTH, HEADLINE_SUBSETS),
        Cell("repeated", "100k", TENTH, HEADLINE_SUBSETS[1:2], seeds=(1, 2)),
        Cell("starved", "100k", TENTH, (1,), three),
        Cell("control", "25k", curve="constant"),
        Cell("repeated", "25k", NINE_TENTHS, subsets=NINE_SUBSETS, curve="constant"),
        Cell("control", "25k", corpus=STDLIB),
        *grid(("25k",), HALF, HALF_SUBSETS, corpus=STDLIB),
    )
    return tuple(planned(laptop_design(cells)))


def overnight() -> Sequence[PlannedRun]:
    """Three seeds everywhere, all shares, a second corpus, half and double the learning rate."""
    three = seeds(3)
    sizes, shares = ("25k", "57k", "100k"), (TENTH, HALF, NINE_TENTHS)
    cells = (
        *(Cell("control", size, seeds=three, corpus=corpus) for corpus in (SOTU, STDLIB) for size in LADDER),
        *(cell for share in shares for cell in grid(sizes, share, SUBSETS[share], n_seeds=3)),
        *(
            cell
            for share in (THREE_HUNDREDTHS, FIFTH)
            for cell in grid(("25k", "100k"), share, SUBSETS[share], n_seeds=3)
        ),
        *grid(("25k",), HUNDREDTH, ONE_SUBSETS, n_seeds=3),
        Cell("control", "25k", seeds=three, curve="constant"),
        *(Cell("repeated", "25k", f, SUBSETS[f], three, curve="constant") for f in (HALF, NINE_TENTHS)),
        *(Cell("control", "25k", seeds=three, rate_scale=scale) for scale in (0.5, 2.0)),
        *(Cell("repeated", "25k", HALF, HALF_SUBSETS, three, rate_scale=scale) for scale in (0.5, 2.0)),
        *(Cell("repeated", size, HALF, HALF_SUBSETS, three, corpus=STDLIB) for size in ("25k", "100k")),
        Cell("repeated", "25k", TENTH, TENTH_SUBSETS, three, corpus=STDLIB),
    )
    return tuple(planned(laptop_design(cells)))


def gpu_design(cells: Sequence[Cell]) -> Design:
    """98M tokens a run of natural text."""
    return Design(
        tuple(cells),
        scale.GPU_STEPS,
        scale.GPU_BATCH_SIZE,
        800,
        curve_budget=CURVE_BUDGET,
        curve_points=16,
        family="gpu",
    )


def gpu_controls() -> Iterator[Cell]:
    """Seven sizes, 28k to 43M."""
    for size in scale.GPU_SHAPES:
        yield Cell("control", size, corpus=scale.GPU_TEXT)


def gpu() -> Sequence[PlannedRun]:
    """One seed: three sizes at f = 1/2, the middle one at 1/10 and 9/10, a constant rate at 9/10."""

    def subsets(fraction: Fraction, *, passes: tuple[int, ...] = scale.GPU_PASSES) -> tuple[int, ...]:
        return tuple(scale.gpu_subset(fraction, passes=one) for one in passes)

    middle, text = scale.GPU_TREATED[1], scale.GPU_TEXT
    cells = (
        *gpu_controls(),
        *grid(scale.GPU_TREATED, HALF, subsets(HALF), corpus=text),
        *grid((middle,), TENTH, subsets(TENTH), corpus=text),
        *grid((middle,), NINE_TENTHS, subsets(NINE_TENTHS, passes=(10, 32, 100, 320, 1000)), corpus=text),
        Cell("control", middle, curve="constant", corpus=text),
        Cell(
            "repeated",
            middle,
            NINE_TENTHS,
            subsets(NINE_TENTHS, passes=(320,)),
            curve="constant",
            corpus=text,
        ),
    )
    return tuple(planned(gpu_design(cells)))


def paper_design(cells: Sequence[Cell], *, steps: int = scale.STEPS) -> Design:
    """98B tokens a run of text, 16B of code."""
    return Design(
        tuple(cells),
        steps,
        scale.BATCH_SIZE,
        scale.TEST_SEQUENCES,
        curve_budget=Fraction(1, 400),
        curve_points=40,
        family="paper",
    )


def paper_controls(*, corpus: CorpusSpec = scale.TEXT) -> Iterator[Cell]:
    """The paper's eight sizes, and three below them that its extrapolations lack."""
    for size in (*scale.BELOW, *scale.SIZES):
        yield Cell("control", size, corpus=corpus)


def paper() -> Sequence[PlannedRun]:
    """The paper's grid, one seed: eight sizes, six shares, six subsets; two shares on code; the largest at a
    constant rate where Fig. 3 looks; starvation controls, which the paper lacks, at two sizes."""
    sizes, subsets = scale.SIZES, scale.SUBSETS
    two = (sizes[3], sizes[-1])
    cells = (
        *paper_controls(),
        *(Cell("repeated", size, f, subsets, corpus=scale.TEXT) for size in sizes for f in scale.FRACTIONS),
        *(Cell("starved", size, f, (1,), corpus=scale.TEXT) for size in two for f in scale.FRACTIONS),
        Cell("control", sizes[-1], curve="constant", corpus=scale.TEXT),
        *(
            Cell("repeated", sizes[-1], f, subsets, curve="constant", corpus=scale.TEXT)
            for f in (HALF, NINE_TENTHS)
        ),
    )
    code = (
        *paper_controls(corpus=scale.CODE),
        *(
            Cell("repeated", size, f, subsets, corpus=scale.CODE)
            for size in sizes
            for f in (HALF, NINE_TENTHS)
        ),
    )
    return (*planned(paper_design(cells)), *planned(paper_design(code, steps=scale.CODE_STEPS)))


SCALES = {
    "demo": demo, "tiny": tiny, "laptop": laptop, "overnight": overnight, "gpu": gpu, "paper": paper,
}  # fmt: skip
