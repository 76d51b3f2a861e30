"""Do the definitions of memorization agree, sequence by sequence? (memorization paper, section 2)."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from repetita.cadence import At, AtPasses
from repetita.corpus.sequences import CorpusSpec
from repetita.corpus.treatment import Passes
from repetita.measure.extraction import ExtractionProbe
from repetita.measure.memorization import MemorizationProbe
from repetita.measure.occurrences import OccurrencesProbe
from repetita.measure.probe import Probe
from repetita.model.config import ModelConfig, Position, count
from repetita.report.page import Deviation
from repetita.studies import _gpu_scale, _paper_scale
from repetita.studies._laptop import RATES, SOTU, SYNTHETIC, config
from repetita.study.expand import labels_of
from repetita.study.plan import Analysis, PlannedRun, Study
from repetita.train.recipe import Recipe, RunSpec

if TYPE_CHECKING:
    from repetita.study.collect import Collected


class Windows(NamedTuple):
    """Which strings a model is asked to write."""

    prompts: tuple[int, ...] = (8, 16, 32)
    suffix: int = 16
    starts: tuple[int, ...] = (40, 64, 88, 112)
    """Places in a sequence: all beyond the longest prompt, which would else be the whole context."""
    counted: tuple[int, ...] = (4, 8, 16)
    """Lengths of the strings that are counted in the training set: the shorter, the more often they recur."""


class Cell(NamedTuple):
    """Models that differ in their seed only, and so in the half that they are trained on."""

    size: str
    models: int
    passes: int
    position: Position = "learned"


class Design(NamedTuple):
    """What a scale runs."""

    cells: tuple[Cell, ...]
    out_of: int = 128
    """Sequences of the common set; a model is trained on half of them."""
    at: tuple[int, ...] = (16, 24, 32, 40)
    """Passes after which everything is measured, besides the end."""
    batch_size: int = 16
    warmup_steps: int = 32
    windows: Windows = Windows()
    max_sequences: int | None = None
    """Of the common set, when that is more than can be asked about."""
    test_sequences: int = 128
    corpus: CorpusSpec = SOTU


def planned(design: Design) -> Iterator[PlannedRun]:
    """A run for each cell and seed; the seed draws the half."""
    for cell in design.cells:
        model = config(cell.size, corpus=design.corpus).edit(position=cell.position)
        recipe = Recipe(learning_rate=RATES[cell.size], warmup_steps=design.warmup_steps)
        yield from halves(design, cell, model=model, recipe=recipe)


def halves(design: Design, cell: Cell, *, model: ModelConfig, recipe: Recipe) -> Iterator[PlannedRun]:
    """Models trained on random halves of the common set."""
    n = design.out_of // 2
    for seed in range(cell.models):
        spec = RunSpec(
            corpus=design.corpus,
            model=model,
            treatment=Passes(n_sequences=n, out_of=design.out_of),
            recipe=recipe,
            steps=max(1, cell.passes * n // design.batch_size),
            batch_size=design.batch_size,
            seed=seed,
        )
        yield PlannedRun(
            spec=spec,
            labels={
                "size": cell.size,
                "position": cell.position,
                "non_embedding": count(model).non_embedding,
                "n_sequences": n,
                "out_of": design.out_of,
                "length": design.corpus.length,
            },
            probes=tuple(probes(design)),
        )


def probes(design: Design) -> Iterator[Probe]:
    """Extraction and M(f) on the common set, M(f) on test text; once the half and counts of strings."""
    windows, often, once = design.windows, AtPasses(passes=design.at), At(at=())
    yield ExtractionProbe(
        on=("common",),
        max_sequences=design.max_sequences,
        prompts=windows.prompts,
        suffix=windows.suffix,
        starts=windows.starts,
        cadence=often,
    )
    yield MemorizationProbe(name="held-out", on=("test",), max_sequences=design.test_sequences, cadence=often)
    yield MemorizationProbe(name="half", on=("train",), cadence=once)
    for n in windows.counted:
        yield OccurrencesProbe(
            name=f"occurrences-{n}",
            on=("common", "train"),
            max_sequences=design.max_sequences,
            suffix=n,
            starts=tuple(sorted({*windows.prompts, *windows.starts})),
            cadence=once,
        )


def tiny() -> Sequence[PlannedRun]:
    """Seconds of work on synthetic bytes, for tests: six models, no science."""
    windows = Windows(prompts=(2, 4), suffix=4, starts=(8, 20), counted=(2, 4))
    return tuple(planned(Design(
        (Cell("3.8k", 6, 24),), out_of=32, at=(12,), batch_size=8, warmup_steps=4, windows=windows,
        test_sequences=16, corpus=SYNTHETIC,
    )))  # fmt: skip


def laptop() -> Sequence[PlannedRun]:
    """48 models of one size on halves of 16 thousand tokens, to M(f) near 0.95."""
    return tuple(planned(Design((Cell("100k", 48, 48),))))


def overnight() -> Sequence[PlannedRun]:
    """More models, a larger size, and rotary positions, which tie a text less to its place."""
    cells = (Cell("100k", 128, 48), Cell("400k", 48, 40), Cell("100k", 48, 48, position="rotary"))
    return tuple(planned(Design(cells, at=(8, 12, 16, 20, 24, 28, 32, 40))))


def gpu() -> Sequence[PlannedRun]:
    """Two sizes on sequences of 512 tokens of a vocabulary of 8k, a common set of 1,024."""
    windows = Windows(starts=(64, 192, 320, 448))
    design = Design(
        (Cell("3.1M", 32, 40), Cell("25M", 16, 24)), out_of=1024, at=(4, 8, 12, 16, 20, 24, 32),
        windows=windows, corpus=_gpu_scale.SPEECHES_512,
    )  # fmt: skip
    runs: list[PlannedRun] = []
    for cell in design.cells:
        recipe = Recipe(learning_rate=_gpu_scale.RATES[cell.size], warmup_steps=design.warmup_steps)
        runs += halves(design, cell, model=_gpu_scale.config(cell.size), recipe=recipe)
    return tuple(runs)


def paper() -> Sequence[PlannedRun]:
    """24 models at 125M on random halves of WikiText-103, 2,048 of its sequences asked about."""
    design = Design(
        (Cell("125M", 24, 40),), out_of=_paper_scale.SEQUENCES, at=(5, 10, 15, 20, 30),
        batch_size=_paper_scale.BATCH_SIZES["125M"], windows=Windows(starts=(64, 192, 320)),
        max_sequences=2048, test_sequences=_paper_scale.VALIDATION_SEQUENCES, corpus=_paper_scale.WIKITEXT,
    )  # fmt: skip
    model, recipe = _paper_scale.config("125M"), _paper_scale.recipe("125M")
    return tuple(halves(design, design.cells[0], model=model, recipe=recipe))


def analyse(collected: "Collected") -> Analysis:
    """Claims on the cell with most models, figures and tables on all."""
    from repetita.fit.claim import settle
    from repetita.studies import _definitions, _definitions_claims, _definitions_figures
    from repetita.studies._grid import planned_labels

    if collected.measurements.is_empty():
        return Analysis(warnings=("no run is finished yet",))
    found = _definitions.cells(collected)
    if not found:
        return Analysis(warnings=("no two models of one kind are finished and wholly measured yet",))
    main = _definitions.main_cell(found, planned=planned_labels(collected))
    return Analysis(
        claims=settle(list(_definitions_claims.claims(main))) if main is not None else (),
        figures=tuple(_definitions_figures.figures(found)),
        tables=tuple(_definitions_figures.tables(found)),
        warnings=tuple(warning for cell in found for warning in _definitions_claims.warnings(cell)),
    )


def detectable(scale: str) -> Mapping[str, str]:
    """For each primary claim of a scale the smallest effect that its models can show, in words."""
    from repetita.studies._definitions_claims import detectable as smallest

    return smallest([labels_of(run) for run in SCALES[scale]()])


def deviations(scale: str) -> Sequence[Deviation]:
    """The source's value and ours, parameter by parameter."""
    runs = SCALES[scale]()
    spec, treatment = runs[0].spec, runs[0].spec.treatment
    assert isinstance(treatment, Passes)
    asked = next(probe for probe in runs[0].probes if isinstance(probe, ExtractionProbe))
    models = len({run.spec.seed for run in runs})
    sizes = sorted({count(run.spec.model).non_embedding for run in runs})
    shown = " to ".join(dict.fromkeys(f"{size:,}" for size in (sizes[0], sizes[-1])))
    half = f"{treatment.n_sequences:,} of {treatment.out_of:,} sequences of {spec.corpus.length} tokens"
    strings = f"{asked.suffix} tokens after {', '.join(map(str, asked.prompts))}"
    return (
        Deviation("comparison of definitions", "in words only", "by rank, sequence by sequence", "section 2"),
        Deviation("model sizes", "125M to 13B", f"{shown} non-embedding", "many models are needed"),
        Deviation("models for counterfactuals", "400 (Zhang et al. 2021)", str(models), "compute"),
        Deviation("share of the data that each sees", "25% (Zhang et al. 2021)", half, "least error for few"),
        Deviation("what an example is", "a document (Zhang et al.)", "a sequence", "what is trained on"),
        Deviation("strings asked for", "50 tokens after 50 and more (Carlini et al. 2022)", strings,
                  "short sequences; k as the issue of this study says"),
        Deviation("prompt", "training text before the suffix", "from the head, and from inside",
                  "the two differ, see the result"),
        Deviation("k of k-eidetic", "web pages (Carlini et al. 2021)", "sequences of the model's half",
                  "what an example is here"),
        Deviation("states compared", "the end of training", "where M(f) is nearest to 0.6 and to 0.95",
                  "free choice, fixed after a pilot of four of these models"),
        Deviation("memorized strings asked for from inside", "exactly memorized is extractable",
                  "more than half of them written", "written after that pilot had shown none: no prediction"),
        Deviation("ranking alike", "no number", "Spearman's rho above 0.5, corrected for noise",
                  "free choice, fixed after a pilot of four of these models"),
    )  # fmt: skip


SCALES = {"tiny": tiny, "laptop": laptop, "overnight": overnight, "gpu": gpu, "paper": paper}

STUDY = Study(
    name="definitions",
    title="Do the definitions of memorization agree?",
    question="M(f), k-extractability, k-eidetic and counterfactual memorization are all called memorization. "
    "Measured on the same models, do they pick out the same sequences?",
    prediction="They are close relatives: an exactly memorized example is extractable, so that M(f) is a "
    "kind of lower bound, and counterfactual memorization is the part of M(f) that training on it brings.",
    source="Tirumala et al. 2022, Memorization Without Overfitting, section 2",
    scales=SCALES,
    analyse=analyse,
    deviations=deviations,
    detectable=detectable,
    expected=_paper_scale.EXPECTED,
)
