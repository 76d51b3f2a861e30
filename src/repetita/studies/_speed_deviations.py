"""The memorization paper's value and ours, parameter by parameter, for runs over a fixed training set."""

from collections.abc import Iterable, Iterator, Sequence

from repetita.corpus.masking import MASK_SHARE
from repetita.model.config import count
from repetita.report.page import Deviation
from repetita.studies._paper_scale import WIKITEXT
from repetita.study.plan import PlannedRun


def of_runs(runs: Sequence[PlannedRun], /) -> Iterator[Deviation]:
    """Rows of the deviation table of a scale; of its own configuration only what the paper leaves open."""
    own = runs[0].spec.corpus == WIKITEXT
    yield from _left_open(runs) if own else _of_data(runs)
    yield from () if own else _of_training(runs)
    yield from _of_measuring(runs)


def _left_open(runs: Sequence[PlannedRun]) -> Iterator[Deviation]:
    vocab = runs[0].spec.corpus.tokenizer
    yield Deviation(
        "tokenizer", "not stated", f"{vocab.vocab_size:,} ids, {vocab.kind} trained on the text",
        "of GPT-2's size",
    )  # fmt: skip
    yield Deviation("decay to zero", "polynomial, power not stated", "linear", "fairseq's default")
    yield Deviation(
        "test set", "WikiText-103's own", "a split of as many tokens, matched in source and length", "rule 1"
    )
    yield from _clip_and_mask(runs)


def _of_data(runs: Sequence[PlannedRun]) -> Iterator[Deviation]:
    corpus = runs[0].spec.corpus
    tokens = [n * corpus.length for n in sorted({int(run.labels["n_sequences"] or 0) for run in runs})]
    sizes = sorted({count(run.spec.model).non_embedding for run in runs})
    ratio = f"{sizes[0] / tokens[-1]:.2g} to {sizes[-1] / tokens[0]:.2g}"
    ours = f"{corpus.source}, {' and '.join(f'{n:,}' for n in tokens)} tokens"
    vocab = f"{corpus.tokenizer.vocab_size:,} ({corpus.tokenizer.kind})"
    yield Deviation("training set", "WikiText-103, 103M tokens", ours, "what can be paid for")
    yield Deviation("parameters per training token", "1 to 110", ratio, "rule 12 of the design")
    yield Deviation(
        "model sizes", "125M to 13B", f"{sizes[0]:,} to {sizes[-1]:,} non-embedding", "what can be paid for"
    )
    layers = span([run.spec.model.n_layer for run in runs])
    yield Deviation("depth", "12 to 40 layers", f"{layers} layers", "small sizes differ in width first")
    yield Deviation(
        "sequence", "512 tokens, broken at sentences", f"{corpus.length} tokens, {corpus.breaks}", "speed"
    )
    yield Deviation("vocabulary", "about 50k", vocab, "else mostly embeddings")


def _of_training(runs: Sequence[PlannedRun]) -> Iterator[Deviation]:
    length = runs[0].spec.corpus.length
    batches = sorted({run.spec.batch_size * length for run in runs})
    updates = [int(run.labels["n_sequences"] or 0) // run.spec.batch_size for run in runs]
    steps = [run.spec.recipe.warmup_steps for run in runs]
    passes = [n / one for n, one in zip(steps, updates, strict=True)]
    warmup = f"{span(steps)} updates ({span(passes)} passes), then constant"
    own = any(run.labels["arm"] == "own batch" for run in runs)
    yield Deviation(
        "batch", "0.5M to 2M tokens, larger for larger models", f"{span(batches)} tokens",
        "equal over sizes (rule 11); " + ("the paper's way is an arm" if own else "not varied here"),
    )  # fmt: skip
    yield Deviation("updates a pass", "206 (125M) to 52 (13B)", span(updates), "small training set")
    yield Deviation(
        "learning rate", "375M tokens (3.6 passes) warm-up, then nearly constant", warmup, "rule 11"
    )
    yield Deviation("peak rate by size", "6e-4 down to 1e-4", _rates(runs), "frozen before these runs")
    yield Deviation("Adam", "beta2 0.98, weight decay 0, dropout 0", "the same", "")
    yield from _clip_and_mask(runs)


def _rates(runs: Sequence[PlannedRun]) -> str:
    if all(str(run.labels["arm"]).startswith("rate ") for run in runs):
        found = sorted({run.spec.recipe.learning_rate for run in runs})
        return f"{', '.join(f'{rate:g}' for rate in found)} at every size"
    if any("M" in str(run.labels["size"]) for run in runs):
        return "1.2e-3 down to 4e-4 as 1 / width, not tuned"
    masked = "; masked: largest M(f) in a short pilot" if _masked(runs) else ""
    return f"causal: best test loss of a single-pass control{masked}; one seed each"


def _masked(runs: Sequence[PlannedRun]) -> bool:
    return any(run.spec.model.objective == "masked" for run in runs)


def _clip_and_mask(runs: Sequence[PlannedRun]) -> Iterator[Deviation]:
    clips = sorted({"off" if run.spec.recipe.clip is None else f"{run.spec.recipe.clip:g}" for run in runs})
    yield Deviation("gradient norm clipped at", "not stated", " or ".join(clips), "some value is needed")
    if _masked(runs):
        split = f"{float(MASK_SHARE):g}; of these 80% mask, 10% random, 10% kept"
        yield Deviation("masked share", "0.15", split, "the split is not stated there")


def _of_measuring(runs: Sequence[PlannedRun]) -> Iterator[Deviation]:
    if _masked(runs):
        yield Deviation(
            "M(f) of masked models", "not stated", "every token once, always shown as the mask", "rule 15"
        )
    yield Deviation(
        "tau reached", "first pass at or above tau", "sustained over a window of tokens; else censored",
        "rule 14",
    )  # fmt: skip
    yield Deviation(
        "held-out accuracy", "not reported", "beside every M(f)", "M(f) counts what is predictable"
    )
    yield Deviation("seeds", "not stated", str(len({run.spec.seed for run in runs})), "intervals")


def span(values: Iterable[float], /) -> str:
    """The smallest and the largest, or the only one."""
    found = list(values)
    return " to ".join(dict.fromkeys(f"{value:,g}" for value in (min(found), max(found))))
