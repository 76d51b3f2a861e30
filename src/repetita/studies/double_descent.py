"""What does repeated data cost? Double descent over passes and in time (repeated-data paper, Figs. 1-4)."""

from collections.abc import Iterator, Mapping, Sequence
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
from repetita.study.expand import labels_of
from repetita.study.plan import Analysis, PlannedRun, Study
from repetita.train.recipe import Recipe, RunSpec

if TYPE_CHECKING:
    import polars as pl

    from repetita.fit.effective_size import ControlScan
    from repetita.studies._grid import Grid, Labels
    from repetita.study.collect import Collected

STDLIB = SOTU.edit(source="python-stdlib")

LADDER = tuple(RATES)
TEST_SEQUENCES = 800
"""Just above the 100,000 tokens that rule 1 of the experiment design asks for."""
CURVE_BUDGET = Fraction(1, 100)
"""45 sequences at each of 17 states of 1,600 steps. All measuring of a run stays under 5% of its time."""

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
    """Sequences of the final test loss."""
    curve_budget: Fraction
    """Share of a run's compute for the learning curve, which reads fewer sequences and is less exact; that
    of the repeated subset has two fifths of it."""
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


# 25,600 slots: half of them hold every subset here a whole number of times (8, 25, 80, 256, 800, 2560).
HALF_SUBSETS = (1600, 512, 160, 50, 16, 5)
AROUND_PEAK = {"25k": (160, 50, 16), "100k": (512, 160, 50, 16)}
"""Where seeds 1 and 2 run as well. At 100k the subsets first chosen, 160, 50 and 16, ended at what turned out
to be the peak (80 passes), which decides nothing; 512 was added so that it is bracketed."""
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
        cells, 500, 16, TEST_SEQUENCES, curve_budget=Fraction(1, 40), curve_points=16, warmup_steps=50
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
    design = Design(cells, 40, 8, 32, curve_budget=Fraction(1, 8), curve_points=6, warmup_steps=8)
    return tuple(planned(design))


def laptop() -> Sequence[PlannedRun]:
    """One seed over the grid, three at the three subsets around the expected peak; controls of nine sizes."""
    three = seeds(3)
    cells = (
        *(Cell("control", size, seeds=three) for size in LADDER if size != "400k"),
        *(Cell("repeated", size, HALF, subsets=HALF_SUBSETS) for size in ("25k", "100k")),
        *(Cell("repeated", size, HALF, subsets=around, seeds=(1, 2)) for size, around in AROUND_PEAK.items()),
        *(Cell("starved", size, HALF, subsets=(1,), seeds=three) for size in ("25k", "100k")),
        Cell("repeated", "25k", TENTH, subsets=TENTH_SUBSETS),
        Cell("starved", "25k", TENTH, subsets=(1,)),
        Cell("repeated", "25k", NINE_TENTHS, subsets=NINE_SUBSETS),
        Cell("starved", "25k", NINE_TENTHS, subsets=(1,)),
        Cell("control", "25k", curve="constant"),
        Cell("repeated", "25k", NINE_TENTHS, subsets=NINE_SUBSETS, curve="constant"),
    )
    return tuple(planned(Design(cells, 1600, 16, TEST_SEQUENCES, curve_budget=CURVE_BUDGET, curve_points=16)))


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
    return tuple(planned(Design(cells, 1600, 16, TEST_SEQUENCES, curve_budget=CURVE_BUDGET, curve_points=16)))


def analyse(collected: "Collected") -> Analysis:
    """Claims, figures and tables of the main corpus at the standard rate; the other arms are descriptive."""
    from repetita.fit.claim import settle
    from repetita.studies import _damage, _damage_claims, _damage_figures, _damage_tables
    from repetita.studies._grid import curves, grid, main_corpus, main_lines, planned_labels

    table = collected.measurements
    if table.is_empty():
        return Analysis(warnings=("no run is finished yet",))
    plan = planned_labels(collected)
    corpus, primary = main_corpus(plan), main_lines(plan)
    main, learning = grid(table, corpus=corpus), curves(table, corpus=corpus)
    found = _damage.damages(main)
    in_time = any(labels["curve"] == "constant" and labels["arm"] == "repeated" for labels in plan)
    within = _damage.within_runs(learning, schedule="constant" if in_time else "cosine")
    scan, warnings = _scan(main)
    shares = {"a quarter": 0.25, "half": 0.5, "all": 1.0}
    horizons = {name: grid(table, corpus=corpus, curve="constant", at=at) for name, at in shares.items()}
    beside = _beside(table, plan=plan)
    found_beside = {name: _damage.damages(other) for name, other in beside.items()}
    claims = [*_damage_claims.claims(main, found=found, within=within, primary=primary)]
    for name, other in beside.items():
        claims += _damage_claims.robustness(name, found_beside[name], grid=other)
    arms = {f"{corpus}, standard rate": main.only(primary), **beside}
    return Analysis(
        claims=settle(claims),
        figures=tuple(
            _damage_figures.figures(
                main, found=found, curves=learning, within=within, scan=scan, horizons=horizons, arms=arms
            )
        ),
        tables=tuple(
            _damage_tables.tables(main, found=found, scan=scan, equivalents=_damage.equivalents(learning))
        ),
        warnings=warnings,
    )


def _scan(main: "Grid") -> tuple["ControlScan | None", tuple[str, ...]]:
    """The law of the controls where there are enough of them, and what to know about it."""
    from repetita.errors import SpecError
    from repetita.fit.effective_size import RESOLVABLE, control_scan

    by_size = {float(main.n_params[size]): losses for size, losses in main.control.items()}
    try:
        scan = control_scan(by_size, vocab_size=main.vocab_size)
    except SpecError as error:
        return None, (f"No law of the controls yet, so no effective sizes: {error}.",)
    if not scan.unresolved:
        return scan, ()
    listed = ", ".join(f"{small:,.0f} and {large:,.0f}" for small, large in scan.unresolved)
    return scan, (
        f"Control sizes that differ by less than {RESOLVABLE:g} seed standard deviations, so that effective "
        f"sizes between them are not resolvable: {listed}.",
    )


def _beside(table: "pl.DataFrame", *, plan: Sequence["Labels"]) -> dict[str, "Grid"]:
    """Grids of the main corpus at other learning rates, and of other corpora."""
    from repetita.studies._grid import grid, main_corpus

    corpus = main_corpus(plan)
    rates = sorted({float(labels["rate_scale"] or 1) for labels in plan} - {1.0})
    others = sorted({str(labels["corpus"]) for labels in plan} - {corpus})
    return {
        **{f"{rate:g} x rate": grid(table, corpus=corpus, rate_scale=rate) for rate in rates},
        **{other: grid(table, corpus=other) for other in others},
    }


def detectable(scale: str) -> Mapping[str, str]:
    """For each primary claim of a scale the smallest effect that its seeds can show, in words."""
    from repetita.studies._damage_claims import detectable as smallest

    return smallest([labels_of(run) for run in SCALES[scale]()])


def deviations(scale: str) -> Sequence[Deviation]:
    """The paper's value and ours, parameter by parameter."""
    runs = SCALES[scale]()
    spec = runs[0].spec
    tokens = spec.steps * spec.batch_size * spec.corpus.length
    sizes = sorted({count(run.spec.model).non_embedding for run in runs})
    vocab, n_seeds = spec.corpus.tokenizer, len({run.spec.seed for run in runs})
    ratio, ours = f"{tokens / sizes[-1]:.0f} and more", f"{vocab.vocab_size:,} ({vocab.kind})"
    control = "unique data, and empty repeated slots"
    smallest = "smallest at the largest control"
    return (
        Deviation("corpus", "400B tokens of web text and books", f"{spec.corpus.source}, one pass", "speed"),
        Deviation("tokens T a run", "100B", f"{tokens:,}", "two CPU cores"),
        Deviation("model sizes N", "1.5M to 800M", f"{sizes[0]:,} to {sizes[-1]:,}", "two CPU cores"),
        Deviation("tokens per parameter", "125 and more", ratio, smallest),
        Deviation("shape", "d = 128 L, some banded heads", "2 layers, full attention", "tiny models"),
        Deviation("vocabulary", "50,304 (GPT-2)", ours, "embeddings would dwarf the model"),
        Deviation("context", "8,192", str(spec.corpus.length), "speed"),
        Deviation("mixing", "not stated", "error diffusion", "share exact at every step"),
        Deviation("order in the subset", "not stated", "drawn anew each pass", "no fixed neighbours"),
        Deviation("seeds", "one, as far as stated", str(n_seeds), "intervals"),
        Deviation("control", "unique data", control, "splits the damage"),
        Deviation("marker", "loss on it approaches zero", "under 10% of the test loss", "a number decides"),
        Deviation(
            "learning rate", "not stated", "best on the control by size, frozen", "rule 11 of the design"
        ),
    )


SCALES = {"demo": demo, "tiny": tiny, "laptop": laptop, "overnight": overnight}

STUDY = Study(
    name="double_descent",
    title="What repeated data costs",
    question="A share f of the training data is a small subset read E times. How much worse does the model "
    "get at text that it has never seen, and when is it worst?",
    prediction="Damage is small for few and for very many passes and large in between; the worst number "
    "of passes falls with model size, about as N^-0.5, and lies where the loss on the repeated subset "
    "approaches zero. With f = 0.9 the test loss of one run falls, rises and falls again.",
    source="Hernandez et al. 2022, Learning from Repeated Data, Figs. 1-4, 14 and 15",
    scales=SCALES,
    analyse=analyse,
    deviations=deviations,
    detectable=detectable,
)
