"""What is forgotten, and is there a floor? One exposure, placebo and twin (memorization paper, Fig. 8)."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from repetita.corpus.splits import Splits
from repetita.corpus.treatment import SpecialBatch
from repetita.model.config import count
from repetita.report.page import Deviation
from repetita.studies import _gpu_scale, _paper_scale
from repetita.studies._laptop import RATES, SOTU, SYNTHETIC, config, rates_text
from repetita.studies._memory_runs import After, Cell, Design, Sized, passes_text, planned, seeds
from repetita.study.expand import labels_of
from repetita.study.plan import Analysis, PlannedRun, Study
from repetita.train.recipe import Recipe

if TYPE_CHECKING:
    from repetita.study.collect import Collected

_SHARES = Splits(test="0.08", special="0.06", twin="0.06", placebo="0.06", novel="0.6")
SPEECHES = SOTU.edit(splits=_SHARES)
BYTES = SYNTHETIC.edit(splits=Splits(test="0.1", special="0.1", twin="0.1", placebo="0.1", novel="0.3"))
LONG = _gpu_scale.SPEECHES_512.edit(splits=_SHARES.edit(novel="0.1"))
"""Novel data cannot follow here: a pass over the training set is more text than the speeches have left."""
BOTH: tuple[After, ...] = ("same", "novel")


def _on_laptop(size: str) -> Sized:
    recipe = Recipe(learning_rate=RATES[size], warmup_steps=32)
    return Sized(config(size, corpus=SPEECHES), recipe, batch_size=16)


def _on_bytes(size: str) -> Sized:
    return Sized(config(size, corpus=BYTES), Recipe(learning_rate=RATES[size], warmup_steps=4), batch_size=8)


def _on_gpu(size: str) -> Sized:
    recipe = Recipe(learning_rate=_gpu_scale.RATES[size], warmup_steps=128)
    return Sized(_gpu_scale.config(size, corpus=LONG), recipe, batch_size=16)


def _on_paper(size: str) -> Sized:
    named = next(name for name in _paper_scale.SIZES if name == size)
    return Sized(
        _paper_scale.config(named), _paper_scale.recipe(named), batch_size=_paper_scale.BATCH_SIZES[named]
    )


def demo() -> Sequence[PlannedRun]:
    """One seed: two sizes that see each special batch once, the larger also ten times in a row."""
    cells = (Cell("25k"), Cell("100k"), Cell("100k", times=10))
    design = Design(cells, SPEECHES, _on_laptop, n_sequences=128, before=20, later=32, tagged=False)
    return tuple(planned(design))


def tiny() -> Sequence[PlannedRun]:
    """Seconds of work on synthetic bytes, for tests: every arm, no science."""
    cells = [Cell(size, after=BOTH, seeds=seeds(2), plain=True) for size in ("0.6k", "3.8k")]
    design = Design(tuple(cells), BYTES, _on_bytes, n_sequences=32, before=3, later=6, n_batches=2)
    return tuple(planned(design._replace(tagged=False)))


def laptop() -> Sequence[PlannedRun]:
    """Three seeds and three sizes; novel data afterwards and ten exposures in a row where they are cheap."""
    cells = (
        Cell("25k", seeds=seeds(3), plain=True),
        Cell("100k", after=BOTH, seeds=seeds(3), plain=True),
        Cell("220k", seeds=seeds(3), plain=True),
        Cell("100k", times=10, seeds=seeds(3)),
    )
    return tuple(planned(Design(cells, SPEECHES, _on_laptop, n_sequences=128, before=20, later=64)))


def overnight() -> Sequence[PlannedRun]:
    """Five seeds, four sizes, both continuations, three doses."""
    cells = (
        *(Cell(size, after=BOTH, seeds=seeds(5), plain=True) for size in ("25k", "57k", "100k", "400k")),
        *(Cell("100k", times=times, after=BOTH, seeds=seeds(5)) for times in (3, 10)),
    )
    design = Design(cells, SPEECHES, _on_laptop, n_sequences=128, before=20, later=128, n_batches=8)
    return tuple(planned(design))


def gpu() -> Sequence[PlannedRun]:
    """Three seeds and four sizes of 3M to 85M parameters on half a million tokens."""
    cells = tuple(Cell(size, seeds=seeds(3), plain=True) for size in _gpu_scale.SHAPES)
    design = Design(cells, LONG, _on_gpu, n_sequences=1024, before=20, later=64, n_batches=8)
    return tuple(planned(design._replace(followed=256, held_out=128)))


def paper() -> Sequence[PlannedRun]:
    """Table 1 on WikiText-103: the whole validation set in one update after 14 passes, then 150 more."""
    cells = tuple(Cell(size, plain=True) for size in _paper_scale.SIZES)
    design = Design(
        cells,
        _paper_scale.WIKITEXT,
        _on_paper,
        n_sequences=_paper_scale.SEQUENCES,
        before=14,
        later=150,
        n_batches=1,
        special_size=_paper_scale.VALIDATION_SEQUENCES,
        followed=4096,
        held_out=506,
    )
    return tuple(planned(design))


def analyse(collected: "Collected") -> Analysis:
    """Claims on M(f), figures and tables; the same in nats beside them; churn by token; what is retained."""
    from repetita.fit.claim import settle
    from repetita.studies import (
        _memory,
        _memory_churn,
        _memory_claims,
        _memory_figures,
        _memory_parts,
        _memory_tables,
    )
    from repetita.studies._grid import planned_labels

    table = collected.measurements
    if table.is_empty():
        return Analysis(warnings=("no run is finished yet",))
    memorized, nats = (_memory.kept(table, metric=metric) for metric in ("memorized", "loss"))
    if not memorized:
        return Analysis(warnings=("no seed has both its arms finished yet",))
    labels = planned_labels(collected)
    sizes = _memory_claims.planned_sizes(labels)
    churn, parts = _memory_churn.churn(collected), _memory_parts.parts(collected)
    claims = [
        *_memory_claims.claims(memorized, nats=nats, sizes=sizes),
        *_memory_churn.claims(churn, sizes=_memory_churn.planned_sizes(labels)),
        *_memory_parts.claims(parts),
    ]
    return Analysis(
        claims=settle(claims),
        figures=(
            *_memory_figures.figures(memorized, nats=nats, table=table),
            *_memory_churn.figures(churn),
            *_memory_parts.figures(parts),
        ),
        tables=(
            *_memory_tables.tables(memorized),
            *_memory_churn.tables(churn),
            *_memory_parts.tables(parts),
        ),
        warnings=tuple(_memory_claims.warnings(memorized)),
    )


def detectable(scale: str) -> Mapping[str, str]:
    """For each primary claim of a scale the smallest effect that its seeds can show, in words."""
    from repetita.studies._memory_claims import detectable as smallest

    return smallest([labels_of(run) for run in SCALES[scale]()])


def deviations(scale: str) -> Sequence[Deviation]:
    """The paper's value and ours, parameter by parameter."""
    runs = SCALES[scale]()
    return (*_of_data(runs), *_of_training(runs), *_of_measuring(runs))


def _of_data(runs: Sequence[PlannedRun]) -> Iterator[Deviation]:
    corpus = runs[0].spec.corpus
    tokens = int(runs[0].labels["n_sequences"] or 0) * corpus.length
    sizes = sorted({count(run.spec.model).non_embedding for run in runs})
    ratio = f"{sizes[0] / tokens:.2g} to {sizes[-1] / tokens:.2g}"
    vocab = f"{corpus.tokenizer.vocab_size:,} ({corpus.tokenizer.kind})"
    yield Deviation(
        "training set", "WikiText-103, 103M tokens", f"{corpus.source}, {tokens:,} tokens",
        "parameters per token as there",
    )  # fmt: skip
    yield Deviation("parameters per training token", "1 to 110", ratio, "rule 12 of the design")
    yield Deviation("model sizes", "125M to 13B", f"{sizes[0]:,} to {sizes[-1]:,} non-embedding", "scale")
    yield Deviation(
        "sequence", "512 tokens, broken at sentences", f"{corpus.length} tokens, {corpus.breaks}", "speed"
    )
    yield Deviation("vocabulary", "about 50k", vocab, "else mostly embeddings")


def _of_training(runs: Sequence[PlannedRun]) -> Iterator[Deviation]:
    recipes = {run.spec.recipe for run in runs}
    warmups = [
        run.spec.recipe.warmup_steps * run.spec.batch_size / int(run.labels["n_sequences"] or 1)
        for run in runs
    ]
    curve = " or ".join(sorted({recipe.curve for recipe in recipes}))
    yield Deviation(
        "learning rate", "375M tokens (3.6 passes) warm-up, then nearly constant",
        f"{passes_text(warmups)} passes warm-up, then {curve}", "rule 11",
    )  # fmt: skip
    yield Deviation(
        "peak learning rate", "6e-4 (125M) to 1e-4 (13B)", rates_text(runs),
        "rule 11; differences between sizes hold those between their rates",
    )  # fmt: skip
    batches = [run.spec.batch_size * run.spec.corpus.length for run in runs]
    shown = " to ".join(dict.fromkeys(f"{n:,}" for n in (min(batches), max(batches))))
    yield Deviation("batch", "0.5M to 2M tokens, larger for larger models", f"{shown} tokens", "rule 11")
    yield Deviation("Adam", "beta2 0.98, weight decay 0, dropout 0", "the same", "")
    yield Deviation("seeds", "not stated", str(len({run.spec.seed for run in runs})), "intervals")


def _of_measuring(runs: Sequence[PlannedRun]) -> Iterator[Deviation]:
    first = runs[0]
    treatment = first.spec.treatment
    assert isinstance(treatment, SpecialBatch)
    special = f"{treatment.n_batches} batches of {treatment.size} sequences, one update each"
    at = int(first.labels["at"] or 0) * first.spec.batch_size / int(first.labels["n_sequences"] or 1)
    yield Deviation("special batch", "the whole validation set, once", special, "rules 7 and 9")
    yield Deviation("exposure at", "not stated", f"pass {passes_text([at])}", "free choice")
    yield Deviation("control", "none", "placebo fork, never-seen twin, roles crossed", "rule 7")
    if any(run.labels["after"] == "novel" for run in runs):
        yield Deviation(
            "afterwards", "the same data", "the same data, or novel data only", "Bordt et al. 2024"
        )
    yield Deviation(
        "baseline", "minimum after the exposure", "the same, fitted floors, minus controls",
        "a minimum is biased",
    )  # fmt: skip
    yield Deviation(
        "rate of change", "M of one pass minus M of the last", "mean change a pass between states", "cost"
    )
    if any(run.labels["arm"] == "plain" for run in runs):
        yield Deviation(
            "forgetting inside training", "not measured", "tokens lost from a pass to the next, 26 states",
            "free choice",
        )  # fmt: skip
    yield Deviation(
        "what the floor consists of", "left open",
        "by kind of token, part of speech and longest n-gram of the training set, beside the placebo run",
        "a word is often several tokens here",
    )  # fmt: skip


SCALES = {
    "demo": demo,
    "tiny": tiny,
    "laptop": laptop,
    "overnight": overnight,
    "gpu": gpu,
    "paper": paper,
}

STUDY = Study(
    name="forgetting",
    title="What one exposure leaves behind",
    question="A model in the middle of training sees a batch of new text in a single update and goes on "
    "with its usual data. How fast is that text forgotten, does anything stay, and what is it? And how much "
    "of its training data does a model forget from one pass to the next?",
    prediction="M(f) on the special batch falls quickly, then ever more slowly towards a floor, the "
    "forgetting baseline, which rises with model size (0.30 at 125M to 0.43 at 13B).",
    source="Tirumala et al. 2022, Memorization Without Overfitting, Figs. 8, 14 and 15",
    scales=SCALES,
    analyse=analyse,
    deviations=deviations,
    detectable=detectable,
    expected=_paper_scale.EXPECTED,
)
