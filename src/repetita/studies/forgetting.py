"""What is forgotten, and is there a floor? One exposure, placebo and twin (memorization paper, Fig. 8)."""

from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from itertools import product
from typing import TYPE_CHECKING, Literal, NamedTuple

from repetita.cadence import At, LogSpaced, Several
from repetita.corpus.sequences import CorpusSpec
from repetita.corpus.splits import Splits
from repetita.corpus.treatment import Passes, SpecialBatch
from repetita.measure.memorization import ScoreProbe
from repetita.measure.probe import Probe
from repetita.model.config import count
from repetita.report.page import Deviation
from repetita.studies._laptop import RATES, SOTU, SYNTHETIC, config
from repetita.study.expand import labels_of
from repetita.study.plan import Analysis, PlannedRun, Study
from repetita.train.recipe import Recipe, RunSpec

if TYPE_CHECKING:
    from repetita.study.collect import Collected

_SHARES = Splits(test="0.08", special="0.06", twin="0.06", placebo="0.06", novel="0.6")
SPEECHES = SOTU.edit(splits=_SHARES)
BYTES = SYNTHETIC.edit(splits=Splits(test="0.1", special="0.1", twin="0.1", placebo="0.1", novel="0.3"))

Trained = Literal["special", "twin"]
After = Literal["same", "novel"]


class Cell(NamedTuple):
    """Forks of one trunk a seed: the special batches, or placebo text in their place, then more training."""

    size: str
    times: int = 1
    """Updates on each special batch, in a row. The paper's forgetting curves have one."""
    after: tuple[After, ...] = ("same",)
    seeds: tuple[int, ...] = (0,)


class Design(NamedTuple):
    """What a scale runs."""

    cells: tuple[Cell, ...]
    n_sequences: int
    """Sequences of the training set, read pass after pass."""
    batch_size: int
    at: int
    """Updates before the first special batch."""
    horizon: int
    """Updates after the last special batch."""
    n_batches: int = 4
    warmup_steps: int = 32
    corpus: CorpusSpec = SPEECHES


DENSE = 8
"""States up to this many updates after each special batch are measured closely, then five a decade."""


def planned(design: Design) -> Iterator[PlannedRun]:
    """A run for each cell, arm, continuation and seed; the arms of a seed share their trunk."""
    for cell in design.cells:
        for seed, after in product(cell.seeds, cell.after):
            # Roles are crossed over seeds: odd seeds train on the twin and never see the special set.
            trained: Trained = "special" if seed % 2 == 0 else "twin"
            for arm in (trained, "placebo"):
                yield _fork(design, cell, arm=arm, trained=trained, after=after, seed=seed)


def _fork(
    design: Design,
    cell: Cell,
    *,
    arm: Literal["special", "twin", "placebo"],
    trained: Trained,
    after: After,
    seed: int,
) -> PlannedRun:
    model = config(cell.size, corpus=design.corpus)
    injected = design.n_batches * cell.times
    treatment = SpecialBatch(
        base=Passes(n_sequences=design.n_sequences),
        size=design.batch_size,
        at=design.at,
        n_batches=design.n_batches,
        times=cell.times,
        arm=arm,
        after=after,
    )
    spec = RunSpec(
        corpus=design.corpus,
        model=model,
        treatment=treatment,
        recipe=Recipe(learning_rate=RATES[cell.size], warmup_steps=design.warmup_steps),
        steps=design.at + injected + design.horizon,
        batch_size=design.batch_size,
        seed=seed,
    )
    return PlannedRun(
        spec=spec,
        labels={
            "arm": "placebo" if arm == "placebo" else "special",
            "trained": trained,
            "after": after,
            "times": cell.times,
            "size": cell.size,
            "non_embedding": count(model).non_embedding,
            "at": design.at,
            "n_batches": design.n_batches,
        },
        probes=tuple(probes(design, times=cell.times)),
        fork_at=design.at,
    )


def probes(design: Design, *, times: int) -> Iterator[Probe]:
    """Each special batch and its twin at every state around the injections, then log-spaced."""
    last = design.at + design.n_batches * times
    ends = [design.at + batch * times for batch in range(1, design.n_batches + 1)]
    near = (design.at, *(end + later for end in ends for later in (0, 1, 2, 3, 5, DENSE)))
    after = LogSpaced(per_decade=5, origin=last)
    pairs = tuple(f"{name}/{batch}" for name in ("special", "twin") for batch in range(design.n_batches))
    yield ScoreProbe(name="special", on=pairs, cadence=Several(of=(At(at=near), after)))
    before = LogSpaced(per_decade=4)
    yield ScoreProbe(
        name="train", on=("train", "test"), max_sequences=128, cadence=Several(of=(before, after))
    )


def seeds(n: int) -> tuple[int, ...]:
    """The first n seeds."""
    return tuple(range(n))


def demo() -> Sequence[PlannedRun]:
    """One seed: two sizes that see each special batch once, the larger also ten times in a row."""
    cells = (Cell("25k"), Cell("100k"), Cell("100k", times=10))
    return tuple(planned(Design(cells, n_sequences=128, batch_size=16, at=160, horizon=256)))


def tiny() -> Sequence[PlannedRun]:
    """Seconds of work on synthetic bytes, for tests: every arm, no science."""
    both: tuple[After, ...] = ("same", "novel")
    cells = (Cell("0.6k", after=both, seeds=seeds(2)), Cell("3.8k", after=both, seeds=seeds(2)))
    design = Design(cells, 32, 8, at=12, horizon=24, n_batches=2, warmup_steps=4, corpus=BYTES)
    return tuple(planned(design))


def laptop() -> Sequence[PlannedRun]:
    """Three seeds and three sizes; novel data afterwards and ten exposures in a row where they are cheap."""
    both: tuple[After, ...] = ("same", "novel")
    cells = (
        Cell("25k", after=both, seeds=seeds(3)),
        Cell("100k", after=both, seeds=seeds(3)),
        Cell("220k", seeds=seeds(3)),
        Cell("100k", times=10, seeds=seeds(3)),
    )
    return tuple(planned(Design(cells, n_sequences=128, batch_size=16, at=160, horizon=512)))


def overnight() -> Sequence[PlannedRun]:
    """Five seeds, four sizes, both continuations, three doses."""
    both: tuple[After, ...] = ("same", "novel")
    cells = (
        *(Cell(size, after=both, seeds=seeds(5)) for size in ("25k", "57k", "100k", "400k")),
        *(Cell("100k", times=times, after=both, seeds=seeds(5)) for times in (3, 10)),
    )
    return tuple(planned(Design(cells, n_sequences=128, batch_size=16, at=160, horizon=1024, n_batches=8)))


def analyse(collected: "Collected") -> Analysis:
    """Claims on M(f), figures and tables; the same in nats beside them."""
    from repetita.fit.claim import settle
    from repetita.studies import _memory, _memory_claims, _memory_figures, _memory_tables
    from repetita.studies._grid import planned_labels

    table = collected.measurements
    if table.is_empty():
        return Analysis(warnings=("no run is finished yet",))
    memorized, nats = (_memory.kept(table, metric=metric) for metric in ("memorized", "loss"))
    if not memorized:
        return Analysis(warnings=("no seed has both its arms finished yet",))
    sizes = _memory_claims.planned_sizes(planned_labels(collected))
    return Analysis(
        claims=settle(list(_memory_claims.claims(memorized, nats=nats, sizes=sizes))),
        figures=tuple(_memory_figures.figures(memorized, nats=nats, table=table)),
        tables=tuple(_memory_tables.tables(memorized)),
        warnings=tuple(_memory_claims.warnings(memorized)),
    )


def detectable(scale: str) -> Mapping[str, str]:
    """For each primary claim of a scale the smallest effect that its seeds can show, in words."""
    from repetita.studies._memory_claims import detectable as smallest

    return smallest([labels_of(run) for run in SCALES[scale]()])


def deviations(scale: str) -> Sequence[Deviation]:
    """The paper's value and ours, parameter by parameter."""
    runs = SCALES[scale]()
    spec, treatment = runs[0].spec, runs[0].spec.treatment
    assert isinstance(treatment, SpecialBatch)
    assert isinstance(treatment.base, Passes)
    tokens = treatment.base.n_sequences * spec.corpus.length
    sizes = sorted({count(run.spec.model).non_embedding for run in runs})
    passes = Fraction((treatment.at or 0) * spec.batch_size, treatment.base.n_sequences)
    vocab, n_seeds = spec.corpus.tokenizer, len({run.spec.seed for run in runs})
    corpus, special = (
        f"{spec.corpus.source}, {tokens:,} tokens",
        f"{treatment.n_batches} batches of {treatment.size} sequences, one update each",
    )
    ratio, shown = f"{sizes[0] / tokens:.2g} to {sizes[-1] / tokens:.2g}", f"{sizes[0]:,} to {sizes[-1]:,}"
    control, kept = "placebo fork, never-seen twin, roles crossed", "the same, fitted floors, minus controls"
    warmup, length = f"{spec.recipe.warmup_steps} steps, constant", f"{spec.corpus.length} tokens"
    return (
        Deviation("training set", "WikiText-103, 103M tokens", corpus, "parameters per token as there"),
        Deviation("parameters per training token", "1 to 110", ratio, "rule 12 of the design"),
        Deviation("model sizes", "125M to 13B", f"{shown} non-embedding", "two CPU cores"),
        Deviation("special batch", "the whole validation set, once", special, "rules 7 and 9"),
        Deviation("exposure at", "not stated", f"pass {float(passes):g}", "free choice"),
        Deviation("control", "none", control, "rule 7"),
        Deviation("afterwards", "the same data", "the same data, or novel data only", "Bordt et al. 2024"),
        Deviation("baseline", "minimum after the exposure", kept, "a minimum is biased"),
        Deviation("learning rate", "375M tokens warm-up, then nearly constant", warmup, "rule 11"),
        Deviation("Adam", "beta2 0.98, weight decay 0, dropout 0", "the same", ""),
        Deviation("sequence", "512 tokens, broken at sentences", f"{length}, {spec.corpus.breaks}", "speed"),
        Deviation(
            "vocabulary", "about 50k", f"{vocab.vocab_size:,} ({vocab.kind})", "else mostly embeddings"
        ),
        Deviation("seeds", "not stated", str(n_seeds), "intervals"),
    )


SCALES = {"demo": demo, "tiny": tiny, "laptop": laptop, "overnight": overnight}

STUDY = Study(
    name="forgetting",
    title="What one exposure leaves behind",
    question="A model in the middle of training sees a batch of new text in a single update and goes on "
    "with its usual data. How fast is that text forgotten, and does anything stay?",
    prediction="M(f) on the special batch falls quickly, then ever more slowly towards a floor, the "
    "forgetting baseline, which rises with model size (0.30 at 125M to 0.43 at 13B).",
    source="Tirumala et al. 2022, Memorization Without Overfitting, Figs. 8, 14 and 15",
    scales=SCALES,
    analyse=analyse,
    deviations=deviations,
    detectable=detectable,
)
