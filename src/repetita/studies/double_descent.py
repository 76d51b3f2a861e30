"""What does repeated data cost? Double descent over passes and in time (repeated-data paper, Figs. 1-4)."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from repetita.model.config import count
from repetita.report.page import Deviation
from repetita.studies._damage_runs import SCALES
from repetita.studies._repeated_scale import CONTEXT, EXPECTED, VOCAB_SIZE
from repetita.study.expand import labels_of
from repetita.study.plan import Analysis, Study

if TYPE_CHECKING:
    import polars as pl

    from repetita.fit.effective_size import ControlScan
    from repetita.report.figure import Figure
    from repetita.studies._band import Band, Edge, Side
    from repetita.studies._damage import Damage, Within
    from repetita.studies._damage_laws import Floor
    from repetita.studies._grid import Curve, Grid, Labels
    from repetita.study.collect import Collected
    from repetita.study.plan import PlannedRun


def analyse(collected: "Collected") -> Analysis:
    """Claims, figures and tables of the main corpus at the standard rate; the other arms are descriptive."""
    from repetita.fit.claim import settle
    from repetita.studies import _band, _damage, _damage_claims, _damage_tables
    from repetita.studies._damage_laws import floor_of
    from repetita.studies._damage_laws import table as laws_table
    from repetita.studies._grid import curves, grid, main_corpus, planned_labels

    table = collected.measurements
    if table.is_empty():
        return Analysis(warnings=("no run is finished yet",))
    plan = planned_labels(collected)
    corpus = main_corpus(plan)
    main, learning = grid(table, corpus=corpus), curves(table, corpus=corpus)
    found = _damage.damages(main)
    in_time = any(labels["curve"] == "constant" and labels["arm"] == "repeated" for labels in plan)
    within = _damage.within_runs(learning, schedule="constant" if in_time else "cosine")
    scan, warnings = control_law(main)
    bands = _band.bands(main, scan)
    edges = _band.edges(bands, grid=main)
    beside = _beside(table, plan=plan)
    claims = [*_damage_claims.claims(main, found=found, within=within, planned=plan, scan=scan, edges=edges)]
    for name, other in beside.items():
        claims += _damage_claims.robustness(name, _damage.damages(other), grid=other)
    drawn = _Drawn(table, plan, main, tuple(found), scan, floor_of(main), beside)
    tables = [
        *_damage_tables.tables(main, found=found, scan=scan, equivalents=_damage.equivalents(learning)),
        *([_band.table(bands, fitted=edges, grid=main)] if len(bands) > 1 else []),
        *([laws_table(main, found=found, scan=scan, floor=drawn.floor)] if len(found) > 1 else []),
        *_damage_tables.within_runs(learning),
        *_damage_tables.arms(beside),
    ]
    figures = _figures(drawn, learning=learning, within=within, bands=bands, edges=edges)
    return Analysis(settle(claims), tuple(figures), tables, warnings)


class _Drawn(NamedTuple):
    """What the figures are drawn from."""

    table: "pl.DataFrame"
    plan: Sequence["Labels"]
    main: "Grid"
    found: "tuple[Damage, ...]"
    scan: "ControlScan | None"
    floor: "Floor"
    beside: Mapping[str, "Grid"]


def _figures(
    of: _Drawn,
    *,
    learning: "Sequence[Curve]",
    within: "Sequence[Within]",
    bands: "Sequence[Band]",
    edges: "dict[Side, Edge]",
) -> Iterator["Figure"]:
    """In the order of the paper, then what is ours."""
    from repetita.studies import _band, _damage_figures, _damage_laws, _damage_size
    from repetita.studies._grid import grid, main_corpus, main_lines

    corpus, primary = main_corpus(of.plan), main_lines(of.plan)
    shares = {"a quarter": 0.25, "half": 0.5, "all": 1.0}
    horizons = {name: grid(of.table, corpus=corpus, curve="constant", at=at) for name, at in shares.items()}
    arms = {f"{corpus}, standard rate": of.main.only(primary), **of.beside}
    yield from _damage_figures.figures(
        of.main, found=of.found, curves=learning, within=within, scan=of.scan, horizons=horizons, arms=arms
    )
    if len(of.main.lines()) < 2:
        return
    yield from _damage_size.figures(of.main, found=of.found, scan=of.scan, main=primary)
    yield from _band.figures(bands, fitted=edges, grid=of.main)
    yield from _damage_laws.figures(of.main, found=of.found, main=primary, floor=of.floor)


def control_law(main: "Grid") -> tuple["ControlScan | None", tuple[str, ...]]:
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
    from repetita.studies._damage_claims import HALVED

    runs = SCALES[scale]()
    treated = [run for run in runs if run.labels["arm"] == "repeated"]
    largest = max(count(run.spec.model).non_embedding for run in treated)
    tokens = runs[0].spec.steps * runs[0].spec.batch_size * runs[0].spec.corpus.length
    shares = ", ".join(f"{share:g}" for share in sorted({_number(run, "fraction") for run in treated}))
    passes = [_number(run, "passes") for run in treated]
    n_seeds = len({run.spec.seed for run in runs})
    same = "the same S" if scale == "paper" else "a run of fewer tokens"
    return (
        *setting(runs),
        Deviation("tokens per parameter", "125 and more", f"{tokens / largest:.0f} and more", "if treated"),
        Deviation("share f", "0.01, 0.03, 0.1, 0.2, 0.5, 0.9", shares, "0.01 enters no fit, as in the paper"),
        Deviation("passes E", "11 to 110,000, six a line", f"{min(passes):g} to {max(passes):g}", same),
        Deviation("mixing", "not stated", "error diffusion", "share exact at every step"),
        Deviation("order in the subset", "not stated", "drawn anew each pass", "no fixed neighbours"),
        Deviation("seeds", "one, as far as stated", str(n_seeds), "intervals"),
        Deviation("control", "unique data", "unique data, and empty repeated slots", "splits the damage"),
        Deviation("marker", "loss on it approaches zero", "under 10% of the test loss", "a number decides"),
        Deviation("half the size", "400M of 800M (340M in its text)",
                  f"effective size / size under {HALVED:.2f}", "nearer to a half than to whole"),
        Deviation("effective size", "power law of the controls inverted",
                  "read between neighbouring controls, the law beside it",
                  "the law misses controls by more than their noise"),
        Deviation("half damage", "on the log of the effective size", "that, or nats where a size is censored",
                  "a loss worse than every control has no effective size"),
        Deviation("edges of the band", "a line through averages over shares",
                  "a level for each share, censored edges kept; the paper's beside it",
                  "shares were run at different sizes"),
    )  # fmt: skip


def setting(runs: "Sequence[PlannedRun]") -> Iterator[Deviation]:
    """Rows that any study of these runs has: text, models, tokens and recipe."""
    spec = runs[0].spec
    tokens = spec.steps * spec.batch_size * spec.corpus.length
    sizes = sorted({count(run.spec.model).non_embedding for run in runs})
    vocab, per_step = spec.corpus.tokenizer, spec.batch_size * spec.corpus.length
    depths = sorted({run.spec.model.n_layer for run in runs})
    kind = "GPT-2's, its ids moved up by one" if vocab.kind == "hf" else vocab.kind
    corpora = ", ".join(dict.fromkeys(run.spec.corpus.source for run in runs))
    layers = f"{depths[0]} layers" if len(depths) == 1 else f"{depths[0]} to {depths[-1]} layers"
    theirs, same = spec.corpus.length == CONTEXT, "the paper's"
    rule = {
        1024: "peak best on the control by size, frozen (rule 11 of the design)",
        VOCAB_SIZE: "peak 0.003239 - 0.0001395 ln N (Kaplan et al. 2020)",
    }.get(spec.model.vocab_size, "peak not tuned")
    yield from (
        Deviation("corpus", "400B tokens of web text and books", f"{corpora}, one pass", "never released"),
        Deviation("tokens T a run", "100B", f"{tokens:,}", "whole passes" if theirs else "time and text"),
        Deviation("model sizes N", "1.5M to 800M", f"{sizes[0]:,} to {sizes[-1]:,}", "controls reach lower"),
        Deviation("shape", "d = 128 L, some banded heads", f"{layers}, full attention", "banding not stated"),
        Deviation("vocabulary", "50,304 (GPT-2)", f"{spec.model.vocab_size:,} ({kind})",
                  same if theirs else "embeddings would dwarf the model"),
        Deviation("context", "8,192", f"{spec.corpus.length:,}", same if theirs else "speed"),
        Deviation("tokens a step", "not stated, 1.05M in the same code", f"{per_step:,}",
                  same if theirs else "enough steps"),
        Deviation("learning rate", "not stated", f"warm-up and cosine, {rule}", "a free choice"),
    )  # fmt: skip


def _number(run: "PlannedRun", label: str) -> float:
    return float(run.labels[label] or 0)


STUDY = Study(
    name="double_descent",
    title="What repeated data costs",
    question="A share f of the training data is a small subset read E times. How much worse does the model "
    "get at text that it has never seen, and when is it worst?",
    prediction="Damage is small for few and for very many passes and large in between; the worst number "
    "of passes falls with model size, about as N^-0.5, and lies where the loss on the repeated subset "
    "approaches zero. With f = 0.1 about 100 passes make a model as good as one of half its size. With "
    "f = 0.9 the test loss of one run falls, rises and falls again.",
    source="Hernandez et al. 2022, Learning from Repeated Data, Figs. 1-4, 14 and 15",
    scales=SCALES,
    analyse=analyse,
    deviations=deviations,
    detectable=detectable,
    expected=EXPECTED,
)
