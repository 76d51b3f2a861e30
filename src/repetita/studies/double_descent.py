"""What does repeated data cost? Double descent over passes, sizes and time (repeated-data paper, Figs. 1-4)."""

from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import product
from typing import TYPE_CHECKING, Literal, NamedTuple

from repetita.cadence import At, LogSpaced
from repetita.corpus.sequences import CorpusSpec
from repetita.corpus.treatment import RepeatedSubset, Stream
from repetita.measure.memorization import ScoreProbe
from repetita.measure.probe import Probe
from repetita.model.config import count
from repetita.report.page import Deviation
from repetita.studies._laptop import RATES, SOTU, SYNTHETIC, config
from repetita.study.plan import Analysis, PlannedRun, Study
from repetita.train.recipe import Recipe, RunSpec

if TYPE_CHECKING:
    from repetita.study.collect import Collected

STDLIB = SOTU.edit(source="python-stdlib")

LADDER = tuple(RATES)
HALF, TENTH, NINE_TENTHS = Fraction(1, 2), Fraction(1, 10), Fraction(9, 10)


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
    """Sequences of the final test loss; the learning curve reads `curve_sequences`, and is less exact."""
    curve_sequences: int
    curve_points: int
    warmup_steps: int = 100


def planned(design: Design) -> Iterator[PlannedRun]:
    """One planned run for each subset and seed of each cell."""
    total = design.steps * design.batch_size
    for cell in design.cells:
        for subset, seed in product(cell.subsets, cell.seeds):
            recipe = Recipe(
                learning_rate=RATES[cell.size] * cell.rate_scale,
                warmup_steps=design.warmup_steps,
                curve=cell.curve,
            )
            treatment: Stream | RepeatedSubset = Stream()
            if cell.fraction is not None:
                slots: Literal["repeated", "empty"] = "empty" if cell.arm == "starved" else "repeated"
                treatment = RepeatedSubset(fraction=cell.fraction, n_sequences=subset, slots=slots)
            model = config(cell.size, corpus=cell.corpus)
            spec = RunSpec(
                corpus=cell.corpus,
                model=model,
                treatment=treatment,
                recipe=recipe,
                steps=design.steps,
                batch_size=design.batch_size,
                seed=seed,
            )
            lane = 0 if cell.fraction is None else int(cell.fraction * total)
            yield PlannedRun(
                spec=spec,
                labels={
                    "arm": cell.arm,
                    "corpus": cell.corpus.source,
                    "size": cell.size,
                    "non_embedding": count(model).non_embedding,
                    "fraction": None if cell.fraction is None else float(cell.fraction),
                    "subset": subset if cell.arm == "repeated" else None,
                    "passes": lane / subset if cell.arm == "repeated" else None,
                    "curve": cell.curve,
                    "vocab_size": model.vocab_size,
                    "rate_scale": cell.rate_scale,
                },
                probes=tuple(probes(design, cell)),
            )


def probes(design: Design, cell: Cell) -> Iterator[Probe]:
    """Test loss often on few sequences and seldom on many; the repeated subset as often as the curve."""
    often = LogSpaced(k=design.curve_points, first=Fraction(max(1, design.steps // 80)))
    quarters = At(at=(design.steps // 4, design.steps // 2))
    yield ScoreProbe(name="curve", on=("test",), max_sequences=design.curve_sequences, cadence=often)
    yield ScoreProbe(name="test", on=("test",), max_sequences=design.test_sequences, cadence=quarters)
    if cell.arm == "repeated":
        yield ScoreProbe(name="subset", on=("repeated",), max_sequences=64, cadence=often)


def seeds(n: int) -> tuple[int, ...]:
    """The first n seeds."""
    return tuple(range(n))


# 25,600 slots: half of them hold every subset here a whole number of times (8, 25, 80, 256, 800, 2560).
HALF_SUBSETS = (1600, 512, 160, 50, 16, 5)
AROUND_PEAK = (160, 50, 16)
TENTH_SUBSETS = (320, 80, 32, 10, 4, 1)
NINE_SUBSETS = (1920, 640, 192, 64, 20, 6)


def demo() -> Sequence[PlannedRun]:
    """Eleven short runs of one seed: f = 9/10, where the paper sees double descent at its plainest."""
    cells = (
        *(Cell("control", size) for size in ("3.8k", "6.6k", "14k", "25k")),
        Cell("repeated", "25k", NINE_TENTHS, subsets=(600, 180, 60, 18, 5, 2)),
        Cell("starved", "25k", NINE_TENTHS, subsets=(1,)),
    )
    design = Design(
        cells, 500, 16, test_sequences=1024, curve_sequences=128, curve_points=16, warmup_steps=50
    )
    return tuple(planned(design))


def tiny() -> Sequence[PlannedRun]:
    """Seconds of work on synthetic bytes, for tests: every arm, no science."""
    cells = (
        *(Cell("control", size, seeds=seeds(2), corpus=SYNTHETIC) for size in ("0.6k", "1.9k", "3.8k")),
        Cell("repeated", "3.8k", HALF, subsets=(80, 20, 5), seeds=seeds(2), corpus=SYNTHETIC),
        Cell("repeated", "3.8k", HALF, subsets=(20,), curve="constant", corpus=SYNTHETIC),
        Cell("control", "3.8k", curve="constant", corpus=SYNTHETIC),
        Cell("starved", "3.8k", HALF, subsets=(1,), seeds=seeds(2), corpus=SYNTHETIC),
    )
    design = Design(cells, 40, 8, test_sequences=32, curve_sequences=16, curve_points=6, warmup_steps=8)
    return tuple(planned(design))


def laptop() -> Sequence[PlannedRun]:
    """One seed over the grid, three at the three subsets around the expected peak; controls of nine sizes."""
    three = seeds(3)
    cells = (
        *(Cell("control", size, seeds=three) for size in LADDER if size != "400k"),
        *(Cell("repeated", size, HALF, subsets=HALF_SUBSETS) for size in ("25k", "100k")),
        *(Cell("repeated", size, HALF, subsets=AROUND_PEAK, seeds=(1, 2)) for size in ("25k", "100k")),
        *(Cell("starved", size, HALF, subsets=(1,), seeds=three) for size in ("25k", "100k")),
        Cell("repeated", "25k", TENTH, subsets=TENTH_SUBSETS),
        Cell("starved", "25k", TENTH, subsets=(1,)),
        Cell("repeated", "25k", NINE_TENTHS, subsets=NINE_SUBSETS),
        Cell("starved", "25k", NINE_TENTHS, subsets=(1,)),
        Cell("control", "25k", curve="constant"),
        Cell("repeated", "25k", NINE_TENTHS, subsets=NINE_SUBSETS, curve="constant"),
    )
    return tuple(planned(Design(cells, 1600, 16, 1024, curve_sequences=192, curve_points=16)))


def overnight() -> Sequence[PlannedRun]:
    """Three seeds everywhere, three sizes and shares, a second corpus, half and double the learning rate."""
    three = seeds(3)
    sizes, shares = ("25k", "57k", "100k"), (TENTH, HALF, NINE_TENTHS)
    grids = {TENTH: TENTH_SUBSETS, HALF: HALF_SUBSETS, NINE_TENTHS: NINE_SUBSETS}
    cells = (
        *(Cell("control", size, seeds=three, corpus=corpus) for corpus in (SOTU, STDLIB) for size in LADDER),
        *(Cell("repeated", size, f, subsets=grids[f], seeds=three) for size in sizes for f in shares),
        *(Cell("starved", size, f, subsets=(1,), seeds=three) for size in sizes for f in shares),
        Cell("control", "25k", seeds=three, curve="constant"),
        *(Cell("repeated", "25k", f, grids[f], three, curve="constant") for f in (HALF, NINE_TENTHS)),
        *(Cell("control", "25k", seeds=three, rate_scale=scale) for scale in (0.5, 2.0)),
        *(Cell("repeated", "25k", HALF, HALF_SUBSETS, three, rate_scale=scale) for scale in (0.5, 2.0)),
        *(Cell("repeated", size, HALF, HALF_SUBSETS, three, corpus=STDLIB) for size in ("25k", "100k")),
    )
    return tuple(planned(Design(cells, 1600, 16, 1024, curve_sequences=192, curve_points=20)))


def analyse(collected: "Collected") -> Analysis:
    """Claims, figures and tables of the corpus that most runs are of; others are shown beside it."""
    from repetita.errors import SpecError
    from repetita.fit.claim import settle
    from repetita.fit.effective_size import control_scan
    from repetita.studies import _damage, _damage_figures
    from repetita.studies._grid import curves, grid

    table = collected.measurements
    if not len(table):
        return Analysis(warnings=("no run is finished yet",))
    corpora = table.group_by("corpus").len().sort("len", descending=True)["corpus"].to_list()
    warnings: list[str] = []
    main = grid(table, corpus=corpora[0])
    learning = curves(table, corpus=corpora[0])
    constant = _damage.within_runs(learning, schedule="constant")
    within = constant or _damage.within_runs(learning, schedule="cosine")
    by_size = {float(main.n_params[size]): losses for size, losses in main.control.items()}
    scan = None
    try:
        scan = control_scan(by_size, vocab_size=main.vocab_size)
    except SpecError as error:
        warnings.append(f"no law of the controls: {error}")
    found = _damage.damages(main)
    shares = (("a quarter", 0.25), ("half", 0.5), ("all", 1.0))
    horizons = [(name, grid(table, corpus=corpora[0], curve="constant", at=at)) for name, at in shares]
    drawn = _damage_figures.figures(
        main, found=found, within=within, curves=learning, scan=scan, horizons=horizons
    )
    return Analysis(
        claims=settle(list(_damage.claims(main, found, within))),
        figures=tuple(drawn),
        tables=tuple(_damage_figures.tables(main, scan=scan)),
        warnings=tuple(warnings),
    )


def deviations(scale: str) -> Sequence[Deviation]:
    """The paper's value and ours, parameter by parameter."""
    runs = SCALES[scale]()
    spec = runs[0].spec
    tokens = spec.steps * spec.batch_size * spec.corpus.length
    sizes = sorted({count(run.spec.model).non_embedding for run in runs})
    vocab = spec.corpus.tokenizer
    return tuple(
        Deviation(what, paper, here, why)
        for what, paper, here, why in (
            (
                "corpus",
                "400B tokens of web text and books",
                f"{spec.corpus.source}, one pass",
                "what a laptop reads",
            ),
            ("tokens T a run", "100B", f"{tokens:,}", "two CPU cores"),
            (
                "model sizes N",
                "1.5M to 800M",
                f"{sizes[0]:,} to {sizes[-1]:,}",
                "tokens per parameter as in the paper",
            ),
            (
                "tokens per parameter",
                "125 and more",
                f"{tokens / sizes[-1]:.0f} and more",
                "smallest at the largest control",
            ),
            (
                "shape",
                "d = 128 L, GPT-2 style, some banded heads",
                "2 layers, width varies, full attention",
                "tiny models",
            ),
            (
                "vocabulary",
                "50,304 (GPT-2)",
                f"{vocab.vocab_size:,} ({vocab.kind})",
                "embeddings would dwarf the model",
            ),
            ("context", "8,192", str(spec.corpus.length), "speed"),
            ("mixing", "not stated", "every batch, exact by error diffusion", "share exact at every step"),
            ("order in the subset", "not stated", "drawn anew each pass", "no fixed neighbours"),
            ("seeds", "one, as far as stated", str(len({run.spec.seed for run in runs})), "intervals"),
            ("control", "unique data", "unique data, and empty repeated slots", "splits the damage"),
            (
                "learning rate",
                "not stated",
                "best on the control by size, frozen",
                "experiment design, rule 11",
            ),
        )
    )


SCALES = {"demo": demo, "tiny": tiny, "laptop": laptop, "overnight": overnight}

STUDY = Study(
    name="double_descent",
    title="What repeated data costs",
    question="A share f of the training data is a small subset read E times. How much worse does the model get at "
    "text that it has never seen, and when is it worst?",
    prediction="Damage is small for few and for very many passes and large in between; the worst number of passes falls "
    "with model size, about as N^-0.5, and lies where the loss on the repeated subset approaches zero. With f = 0.9 "
    "the test loss of one run falls, rises and falls again.",
    source="Hernandez et al. 2022, Learning from Repeated Data, Figs. 1-4, 14 and 15",
    scales=SCALES,
    analyse=analyse,
    deviations=deviations,
)
