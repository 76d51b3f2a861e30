"""What is known of text read once? T_update, and memory from one exposure (memorization paper, Fig. 3)."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from repetita.cadence import At
from repetita.corpus.masking import DRAWS, MASK_SHARE
from repetita.corpus.sequences import CorpusSpec
from repetita.corpus.treatment import Stream
from repetita.measure.memorization import ScoreProbe
from repetita.measure.probe import Probe
from repetita.model.config import ModelConfig, Objective, count
from repetita.report.page import Deviation
from repetita.studies import _gpu_scale, _paper_scale, memorization_speed
from repetita.studies._laptop import MASKED_RATES, RATES, SOTU, SYNTHETIC, config, rates_text
from repetita.studies._speed_runs import Family
from repetita.study.expand import labels_of
from repetita.study.plan import Analysis, Expected, PlannedRun, Study
from repetita.train.recipe import Recipe, RunSpec

if TYPE_CHECKING:
    from repetita.study.collect import Collected


STATES = tuple(sixteenths / 16 for sixteenths in (1, 2, 4, 8, 10, 12, 14))
"""Shares of a run at which accuracy on fresh text is measured, beside its two ends."""


class Cell(NamedTuple):
    """Streams that differ in their seed only."""

    objective: Objective
    size: str
    seeds: int = 1


class Design(NamedTuple):
    """What a scale reads once, and how closely it looks."""

    cells: tuple[Cell, ...]
    steps: int
    batch_size: int = 16
    warmup_steps: int = 16
    looks: int = 12
    """Updates whose batch is measured before and after, log-spaced over the last three quarters of the run:
    in a pilot models guess by frequency before that, and then an update moves no prediction at all."""
    masked_looks: int = 4
    """The same in masked models, which are asked seven times for a set."""
    twin_sequences: int = 32
    """Test sequences measured with each of these batches."""
    test_sequences: int = 192
    """A quarter of them in masked models."""
    corpus: CorpusSpec = SOTU
    family: Family = "laptop"


def planned(design: Design) -> Iterator[PlannedRun]:
    """A stream for each cell and seed."""
    for cell in design.cells:
        model, batch_size, recipe = _recipe(design, cell)
        own = design._replace(batch_size=batch_size, warmup_steps=recipe.warmup_steps)
        for seed in range(cell.seeds):
            spec = RunSpec(
                corpus=design.corpus,
                model=model,
                treatment=Stream(),
                recipe=recipe,
                steps=design.steps,
                batch_size=batch_size,
                seed=seed,
            )
            labels = {
                "regime": "stream",
                "objective": cell.objective,
                "size": cell.size,
                "non_embedding": count(model).non_embedding,
                "n_sequences": design.steps * batch_size,
                "length": design.corpus.length,
                "arm": "standard",
                "rate": recipe.learning_rate,
            }
            yield PlannedRun(spec=spec, labels=labels, probes=tuple(probes(own, objective=cell.objective)))


def _recipe(design: Design, cell: Cell) -> tuple[ModelConfig, int, Recipe]:
    """Model, sequences a batch and optimizer of a cell."""
    if design.family == "paper":
        size = next(name for name in _paper_scale.SIZES if name == cell.size)
        model = _paper_scale.config(size, objective=cell.objective, corpus=design.corpus)
        recipe = _paper_scale.recipe(size, tokens=_paper_scale.MASKED_TOKENS)
        return model, _paper_scale.BATCH_SIZES[size], recipe
    if design.family == "gpu":
        model = _gpu_scale.config(cell.size, objective=cell.objective, corpus=design.corpus)
        rate = _gpu_scale.RATES[cell.size]
    else:
        model = config(cell.size, corpus=design.corpus).edit(objective=cell.objective)
        rate = (RATES if cell.objective == "causal" else MASKED_RATES)[cell.size]
    return model, design.batch_size, Recipe(learning_rate=rate, warmup_steps=design.warmup_steps)


def probes(design: Design, *, objective: Objective) -> Iterator[Probe]:
    """Accuracy on fresh text, and some batches with the same fresh text before and after their update.

    Each such batch is measured at the ends of the run as well: what is left of it there is memory, too.
    """
    states = tuple(round(share * design.steps) for share in STATES)
    rows = design.test_sequences // (1 if objective == "causal" else 4)
    yield ScoreProbe(name="fresh", on=("test",), max_sequences=rows, cadence=At(at=states))
    for update in looks(design, objective=objective):
        yield ScoreProbe(
            name=f"exposure {update}",
            on=(f"batch/{update}", "test"),
            max_sequences=max(design.batch_size, design.twin_sequences),
            cadence=At(at=(update, update + 1)),
        )


def looks(design: Design, *, objective: Objective) -> tuple[int, ...]:
    """The updates whose batches are measured: equal ratios from a quarter of the run to its last."""
    n = design.looks if objective == "causal" else design.masked_looks
    first, last = max(1, design.steps // 4), design.steps - 1
    found = (round(first * (last / first) ** (place / max(1, n - 1))) for place in range(n))
    return tuple(dict.fromkeys(found))


def proxies(scale: str) -> Iterator[PlannedRun]:
    """The smallest and the largest causal model of the speed study, M(f) beside M_update (Fig. 13).

    The very runs and probes of that study: with both in one folder they are trained once.
    """
    runs = [
        run
        for run in memorization_speed.SCALES[scale]()
        if (run.labels["objective"], run.labels["arm"]) == ("causal", "standard")
    ]
    sets = [run.labels["n_sequences"] for run in runs]
    main = [run for run in runs if run.labels["n_sequences"] == max(sets, key=sets.count)]
    sizes = sorted({count(run.spec.model).non_embedding for run in main})
    for run in main:
        if count(run.spec.model).non_embedding in (sizes[0], sizes[-1]):
            yield run._replace(labels={"regime": "passes", **run.labels})


def tiny() -> Sequence[PlannedRun]:
    """Seconds of work on synthetic bytes, for tests: both objectives, no science."""
    cells = tuple(Cell(objective, size, seeds=2) for objective in OBJECTIVES for size in ("0.6k", "3.8k"))
    design = Design(cells, 32, 8, 4, looks=3, masked_looks=2, twin_sequences=8, test_sequences=8)
    return (*planned(design._replace(corpus=SYNTHETIC)), *proxies("tiny"))


def laptop() -> Sequence[PlannedRun]:
    """1 million tokens, read once: three causal sizes in three or five seeds, two masked ones in one."""
    return (*planned(Design(LAPTOP, steps=512)), *proxies("laptop"))


def overnight() -> Sequence[PlannedRun]:
    """Five seeds, 3.3 million tokens: nearly all there is of the corpus; six causal and five masked sizes."""
    cells = tuple(Cell(objective, size, seeds=5) for objective, sizes in OVERNIGHT.items() for size in sizes)
    return (*planned(Design(cells, steps=1600, looks=24, masked_looks=8)), *proxies("overnight"))


def gpu() -> Sequence[PlannedRun]:
    """Sequences of 512 tokens and a vocabulary of 8k: four causal and three masked sizes, three seeds."""
    sizes = tuple(_gpu_scale.SHAPES)
    cells = (
        *(Cell("causal", size, seeds=3) for size in sizes),
        *(Cell("masked", size, seeds=3) for size in sizes[:3]),
    )
    design = Design(cells, 400, 8, family="gpu", corpus=_gpu_scale.SPEECHES_512, test_sequences=128)
    return (*planned(design), *proxies("gpu"))


def paper() -> Sequence[PlannedRun]:
    """30,000 updates of the paper's batches at its sizes, on a public corpus in place of RoBERTa's."""
    cells = tuple(Cell(objective, size) for objective in OBJECTIVES for size in _paper_scale.SIZES)
    design = Design(
        cells, PAPER_UPDATES, family="paper", corpus=WEB, masked_looks=12, twin_sequences=1024,
        test_sequences=1024,
    )  # fmt: skip
    return (*planned(design), *proxies("paper"))


OBJECTIVES: tuple[Objective, ...] = ("causal", "masked")
LAPTOP = (
    *(Cell("causal", size, seeds=n) for size, n in {"25k": 5, "100k": 5, "890k": 3}.items()),
    *(Cell("masked", size) for size in ("25k", "100k")),
)
OVERNIGHT: Mapping[Objective, tuple[str, ...]] = {
    "causal": ("25k", "57k", "100k", "220k", "400k", "890k"),
    "masked": ("25k", "57k", "100k", "220k"),
}
PAPER_UPDATES = 30_000
"""Updates of every size on the larger corpus (Fig. 13's bound)."""
WEB = _paper_scale.WIKITEXT.edit(source="hf:HuggingFaceFW/fineweb", subset="sample-100BT")
"""What stands in for the texts of RoBERTa (39B tokens), which are not public: a sample of 100B tokens of the
web, enough for 30,000 updates of the largest batch (61B tokens) without reading anything twice."""
WEB_POOLS = {"train": 208_000_000, "test": 460_000, "special": 460_000, "twin": 460_000, "placebo": 460_000}
"""Sequences of each set of it at 430 tokens a sequence, for planning without the text."""

UNDECIDABLE: Mapping[str, Mapping[str, str]] = {
    "laptop": dict.fromkeys(
        ("stream-masked-faster", "stream-masked-order"),
        "not decidable at this scale: after 1M tokens masked models are expected to guess by frequency",
    )
}


def analyse(collected: "Collected") -> Analysis:
    """Claims on T_update and on memory from one exposure, figures and tables."""
    from repetita.fit.claim import settle
    from repetita.studies import _stream, _stream_claims, _stream_figures, _stream_tables
    from repetita.studies._grid import planned_labels

    if collected.measurements.is_empty():
        return Analysis(warnings=("no run is finished yet",))
    labels = planned_labels(collected)
    found = _stream.streams(collected, planned=labels)
    judged = _stream_claims.claims(found, planned=labels)
    return Analysis(
        claims=settle(list(judged)),
        figures=tuple(_stream_figures.figures(found)),
        tables=tuple(_stream_tables.tables(found)),
        warnings=tuple(_stream_claims.warnings(found)),
    )


def detectable(scale: str) -> Mapping[str, str]:
    """For each primary claim of a scale the smallest effect that its seeds can show, in words."""
    from repetita.studies._stream_claims import detectable as smallest

    found = smallest([labels_of(run) for run in SCALES[scale]()])
    return {**found, **{name: why for name, why in UNDECIDABLE.get(scale, {}).items() if name in found}}


def deviations(scale: str) -> Sequence[Deviation]:
    """The paper's value and ours, parameter by parameter."""
    from repetita.studies._stream import HOLD_UPDATES, WINDOW_UPDATES

    runs = [run for run in SCALES[scale]() if run.labels["regime"] == "stream"]
    spec = runs[0].spec
    sizes = sorted({count(run.spec.model).non_embedding for run in runs})
    tokens = sorted({run.spec.steps * run.spec.batch_size * run.spec.corpus.length for run in runs})
    read = " to ".join(f"{n:,}" for n in dict.fromkeys((tokens[0], tokens[-1])))
    batches = sorted({run.spec.batch_size * run.spec.corpus.length for run in runs})
    batch = " to ".join(f"{n:,}" for n in dict.fromkeys((batches[0], batches[-1])))
    vocab, recipe = spec.corpus.tokenizer, spec.recipe
    masks = f"{float(MASK_SHARE):g}; by what was shown; full passes of {DRAWS} masks for fresh text"
    return (
        Deviation("corpus", "RoBERTa's, 39B tokens", f"{spec.corpus.source}, {read} tokens", "not public"),
        Deviation("times read", "0.4 to 1.5", "once", "a stream that is read twice is another question"),
        Deviation("model sizes", "125M to 13B", f"{sizes[0]:,} to {sizes[-1]:,} non-embedding", "means"),
        Deviation("updates", "30,000 (12,000 drawn)", f"{spec.steps:,}", "means"),
        Deviation("batch", "0.5M to 2M tokens", f"{batch} tokens", "equal over sizes but at scale paper"),
        Deviation("vocabulary", "about 50k", f"{vocab.vocab_size:,} ({vocab.kind})", "small embeddings"),
        Deviation("sequence", "512 tokens", f"{spec.corpus.length} tokens, {spec.corpus.breaks}", "speed"),
        Deviation(
            "learning rate", "375M tokens warm-up, then down to 0 at 300B",
            f"{recipe.warmup_steps} updates, then {recipe.curve}", "rule 11",
        ),
        Deviation(
            "M_update", "rolling mean over 5 updates; before or after the update is not said",
            f"before the update, over the tokens of {WINDOW_UPDATES} of the smallest batches; after it, too, "
            "for some", "rule 13",
        ),
        Deviation(
            "tau reached", "first update at or above tau", f"held for the tokens of {HOLD_UPDATES} of the "
            "smallest batches; the first touch beside it", "rule 14",
        ),
        Deviation(
            "tau", "0.25, 0.35, 0.4, 0.42; masked 0.1, 0.3, 0.5, 0.6", "the same and lower ones",
            "fixed beforehand; what is not reached is censored",
        ),
        Deviation("masked share", "0.15", masks, "rule 15"),
        Deviation("fresh text", "not measured", "test text at 9 states of each run", "what M_update is here"),
        Deviation("peak learning rate", "6e-4 (125M) to 1e-4 (13B)", rates_text(runs),
                  "rule 11; what one update does grows with it"),
        Deviation("updates looked at", "-", "log-spaced, last three quarters; in M and in nats",
                  "chosen after a pilot: before that models guess by frequency, and M hardly moves"),
        Deviation("seeds", "not stated", str(len({run.spec.seed for run in runs})), "intervals"),
    )  # fmt: skip


SCALES = {"tiny": tiny, "laptop": laptop, "overnight": overnight, "gpu": gpu, "paper": paper}

STUDY = Study(
    name="memorization_stream",
    title="Text that is read once",
    question="Models of several sizes read a stream of text in which nothing comes twice. After how many "
    "updates do they predict a given share of the next batch, does that number fall with size, and how much "
    "of a batch do they remember from its one update?",
    prediction="T_update(N, tau), the updates until the share of right predictions in training batches "
    "reaches tau, falls with size in causal and masked models alike, and at every tau: on this data nothing "
    "turns round in masked models.",
    source="Tirumala et al. 2022, Memorization Without Overfitting, Figs. 3, 12 and 13",
    scales=SCALES,
    analyse=analyse,
    deviations=deviations,
    detectable=detectable,
    expected=(*_paper_scale.EXPECTED, Expected(WEB, WEB_POOLS)),
)
