"""Which words are memorized first? R(p) and R_mem(p) by part of speech (memorization paper, Fig. 7)."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from repetita.cadence import AtPasses, Cadence, LogSpaced, Several
from repetita.corpus.sequences import CorpusSpec
from repetita.corpus.tokenizer import TokenizerSpec
from repetita.corpus.treatment import Passes
from repetita.measure.parts_of_speech import PartsOfSpeechProbe
from repetita.measure.probe import Probe
from repetita.model.config import ModelConfig, count
from repetita.report.page import Deviation
from repetita.studies import _gpu_scale, _laptop, _paper_scale
from repetita.study.expand import labels_of
from repetita.study.plan import Analysis, PlannedRun, Study
from repetita.train.recipe import Recipe, RunSpec

if TYPE_CHECKING:
    from repetita.study.collect import Collected

WORDS = _laptop.SOTU.edit(tokenizer=TokenizerSpec(kind="bpe", vocab_size=8192))
"""A vocabulary of 8,192, in which most words are one token (experiment design, rule 18)."""
FEW = _laptop.SOTU.edit(tokenizer=TokenizerSpec(kind="bpe", vocab_size=1024), length=32, limit_documents=12)
"""Real words for tests: those of synthetic text are of no class."""


class Cell(NamedTuple):
    """Runs that differ in their seed only."""

    size: str
    passes: int
    seeds: int = 1


class Design(NamedTuple):
    """What a scale runs, and how closely it looks; the main size is the one with the most seeds."""

    cells: tuple[Cell, ...]
    n_sequences: int
    """Sequences of the training set; at most as many of the test set are read."""
    max_positions: int = 2000
    per_decade: int = 3
    """States a decade of passes, on the logarithm."""
    evenly: int = 12
    """States evenly over the passes besides: memorization, once it comes, comes within a factor of two."""
    batch_size: int = 8
    """Half of the other studies': with 8,192 outputs a pass costs four times as much, and with twice the
    updates half the passes do."""
    warmup_steps: int = 32
    corpus: CorpusSpec = WORDS
    gpu: bool = False
    """Whether the sizes are those of the scale gpu."""


def planned(design: Design) -> Iterator[PlannedRun]:
    """A run for each cell and seed."""
    for cell in design.cells:
        for seed in range(cell.seeds):
            model, rate = _model(design, cell.size)
            spec = RunSpec(
                corpus=design.corpus,
                model=model,
                treatment=Passes(n_sequences=design.n_sequences),
                recipe=Recipe(learning_rate=rate, warmup_steps=design.warmup_steps),
                steps=cell.passes * design.n_sequences // design.batch_size,
                batch_size=design.batch_size,
                seed=seed,
            )
            evenly = range(0, cell.passes + 1, max(1, cell.passes // design.evenly))
            states = LogSpaced(per_decade=design.per_decade, unit="passes"), AtPasses(passes=tuple(evenly))
            often = Several(of=states)
            yield PlannedRun(
                spec=spec,
                labels=_labels(spec, size=cell.size),
                probes=tuple(probes(often, max_positions=design.max_positions, rows=design.n_sequences)),
            )


def _model(design: Design, size: str) -> tuple[ModelConfig, float]:
    if design.gpu:
        return _gpu_scale.config(size, corpus=design.corpus), _gpu_scale.RATES[size]
    return _laptop.config(size, corpus=design.corpus), _laptop.RATES[size]


def _labels(spec: RunSpec, *, size: str) -> dict[str, str | int]:
    assert isinstance(spec.treatment, Passes)
    return {
        "size": size,
        "non_embedding": count(spec.model).non_embedding,
        "n_sequences": spec.treatment.n_sequences,
    }


def probes(cadence: Cadence, *, max_positions: int, rows: int) -> Iterator[Probe]:
    """Classes and M(f) on the training set and on the test set, its never-seen twin."""
    yield PartsOfSpeechProbe(
        on=("train", "test"), max_positions=max_positions, max_sequences=rows, cadence=cadence
    )


def tiny() -> Sequence[PlannedRun]:
    """Seconds of work on a few speeches, for tests: two sizes, no science."""
    cells = (Cell("3.8k", 12, seeds=2), Cell("0.6k", 12))
    return tuple(planned(Design(cells, 32, 60, evenly=3, warmup_steps=4, corpus=FEW)))


def laptop() -> Sequence[PlannedRun]:
    """16 thousand tokens: three seeds at 220k, one at 100k."""
    cells = (Cell("220k", 44, seeds=3), Cell("100k", 56))
    return tuple(planned(Design(cells, 128, 300)))


def overnight() -> Sequence[PlannedRun]:
    """64 thousand tokens, all positions that the rule allows: five seeds at 220k, three at 100k and 400k."""
    cells = (Cell("220k", 48, seeds=5), Cell("100k", 64, seeds=3), Cell("400k", 32, seeds=3))
    return tuple(planned(Design(cells, 512, per_decade=6)))


def gpu() -> Sequence[PlannedRun]:
    """A million tokens in sequences of 512: five seeds at 25M, three at 3.1M and 85M."""
    cells = (Cell("25M", 40, seeds=5), Cell("3.1M", 60, seeds=3), Cell("85M", 30, seeds=3))
    return tuple(
        planned(
            Design(
                cells,
                2048,
                per_decade=6,
                batch_size=16,
                warmup_steps=128,
                corpus=_gpu_scale.SPEECHES_512,
                gpu=True,
            )
        )
    )


def paper() -> Sequence[PlannedRun]:
    """The paper's own run: 355M on WikiText-103, 80 passes, its recipe; the test set beside it."""
    size: _paper_scale.Size = "355M"
    spec = RunSpec(
        corpus=_paper_scale.WIKITEXT,
        model=_paper_scale.config(size),
        treatment=Passes(n_sequences=_paper_scale.SEQUENCES),
        recipe=_paper_scale.recipe(size),
        steps=_paper_scale.steps(80, size=size),
        batch_size=_paper_scale.BATCH_SIZES[size],
        seed=0,
    )
    often = LogSpaced(per_decade=12, unit="passes")
    return (
        PlannedRun(
            spec=spec,
            labels=_labels(spec, size=size),
            probes=tuple(probes(often, max_positions=2000, rows=2048)),
        ),
    )


def analyse(collected: "Collected") -> Analysis:
    """Claims on order and speed of the classes, figures and tables."""
    from repetita.fit.claim import settle
    from repetita.studies import _pos, _pos_claims, _pos_figures
    from repetita.studies._grid import planned_labels

    if collected.measurements.is_empty():
        return Analysis(warnings=("no run is finished yet",))
    found = _pos.runs(collected.measurements)
    if not found:
        return Analysis(warnings=("no run has parts of speech on both the training set and the test set",))
    main = _pos.main_size(planned_labels(collected))
    return Analysis(
        claims=settle(list(_pos_claims.claims(found, main=main))),
        figures=tuple(_pos_figures.figures(found, main=main)),
        tables=tuple(_pos_figures.tables(found, main=main)),
        warnings=tuple(_pos_claims.warnings(found, main=main)),
    )


def detectable(scale: str) -> Mapping[str, str]:
    """For each primary claim of a scale the smallest effect that its seeds can show, in words."""
    from repetita.studies._pos_claims import detectable as smallest

    return smallest([labels_of(run) for run in SCALES[scale]()])


def deviations(scale: str) -> Sequence[Deviation]:
    """The paper's value and ours, parameter by parameter."""
    runs = SCALES[scale]()
    spec, probe = runs[0].spec, runs[0].probes[0]
    assert isinstance(spec.treatment, Passes)
    assert isinstance(probe, PartsOfSpeechProbe)
    tokens = spec.treatment.n_sequences * spec.corpus.length
    sizes = sorted({count(run.spec.model).non_embedding for run in runs})
    vocab, passes = spec.corpus.tokenizer, spec.steps * spec.batch_size / spec.treatment.n_sequences
    ratio = f"{sizes[0] / tokens:.2g} to {sizes[-1] / tokens:.2g}"
    return (
        Deviation(
            "training set", "WikiText-103, 103M tokens", f"{spec.corpus.source}, {tokens:,} tokens",
            "compute" if scale != "paper" else "",
        ),
        Deviation("model size", "355M", f"{sizes[0]:,} to {sizes[-1]:,} non-embedding", "compute"),
        Deviation("parameters per training token", "3.4", ratio, "rule 12 of the design"),
        Deviation("passes", "80", f"{passes:g}", "free choice"),
        Deviation(
            "tagger", "not stated (spaCy 3 is cited)",
            "the one in the table of classes, with its agreement measured on this text", "rule 18",
        ),
        Deviation(
            "tag of a prediction", "not stated", "the word is put into the true sentence and tagged there",
            "rule 18",
        ),
        Deviation(
            "words of several tokens", "not stated",
            "left out, as predictions that are no whole word are; as misses in the notes of the claims",
            "a part of a word has no part of speech",
        ),
        Deviation(
            "auxiliary verbs", "not stated", "no verbs: modals and be, have, do are a class of their own",
            "as spaCy tags them",
        ),
        Deviation(
            "positions", "all", f"at most {probe.max_positions:,} a class and set, always the same ones",
            "tagging takes time",
        ),
        Deviation("held-out text", "not reported", "every R(p) and R_mem(p) beside it", "rule 18"),
        Deviation("frequency of a token", "not controlled", "rates standardised over its bins", "rule 18"),
        Deviation("vocabulary", "about 50k", f"{vocab.vocab_size:,} ({vocab.kind})", "rule 18: 8k at least"),
        Deviation("seeds", "not stated", str(len({run.spec.seed for run in runs})), "intervals"),
    )  # fmt: skip


SCALES = {"tiny": tiny, "laptop": laptop, "overnight": overnight, "gpu": gpu, "paper": paper}

STUDY = Study(
    name="parts_of_speech",
    title="Which words are memorized first?",
    question="While a model reads the same text again and again, which parts of speech does it come to "
    "predict right, and which words to know by heart: names, nouns and numerals before verbs and "
    "adjectives? And is that memory, or are some classes easier to predict on any text?",
    prediction="Nouns, proper nouns and numerals are memorized clearly faster than verbs and adjectives, by "
    "R(p) and by R_mem(p); the part of speech is learned before the exact token.",
    source="Tirumala et al. 2022, Memorization Without Overfitting, Fig. 7",
    scales=SCALES,
    analyse=analyse,
    deviations=deviations,
    detectable=detectable,
    expected=_paper_scale.EXPECTED,
)
