"""The runs of attention-only models, one and two layers deep, on natural text and on bursts of copying."""

from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from itertools import product
from typing import Literal, NamedTuple

from repetita.cadence import At
from repetita.corpus.sequences import CorpusSpec
from repetita.corpus.synthetic import SyntheticSpec, unseen_text
from repetita.corpus.treatment import RepeatedSubset, Stream
from repetita.measure.attribution import AttributionProbe
from repetita.measure.induction import InductionProbe
from repetita.measure.memorization import ScoreProbe
from repetita.measure.names import NamesProbe
from repetita.measure.passages import LONG, SHORT, Passage, in_words_of
from repetita.measure.probe import Probe
from repetita.model.config import ModelConfig, count
from repetita.studies import _bursts
from repetita.studies import _repeated_scale as scale
from repetita.studies._laptop import SOTU
from repetita.study.plan import PlannedRun
from repetita.train.recipe import Recipe, RunSpec

ONE, TWO = "1 layer", "2 layers"
LAYERS = {ONE: 1, TWO: 2}

HALF, TENTH = Fraction(1, 2), Fraction(1, 10)
WIDTH, HEADS = 64, 4
"""Of the models of the speeches: 17 and 34 thousand parameters without embeddings."""
TEXT_RATES = {ONE: 0.016, TWO: 0.008}
"""Peak learning rate on the speeches: of 0.008, 0.016 and 0.032 (two layers: of the first two) the best on
the control's test loss after 0.8M tokens, one seed that no study uses, before any treated run."""
TEXT_SUBSETS = (512, 160, 50, 16, 5)
"""25, 80, 256, 800 and 2,560 passes at f = 1/2: those of `double_descent` without its largest subset."""
TENTH_SUBSETS = (320, 80, 32, 10, 4, 1)

BURSTS_HEADS, BURSTS_RATE = 2, 0.001
"""Heads a layer, and the peak learning rate of models of bursts with so many: of 0.0007, 0.001 and 0.0014 the
one at which one head of the control reached 0.5 within 1,600 steps in both of two seeds (the others: one of
two)."""
BURSTS_TOKENS = 15
"""Distinct random tokens of which four copies fit a row of 64."""
NAME_WORDS = 4
"""Words of what stands for a name in a text of bursts: a stretch that is read again."""


class Family(NamedTuple):
    """What the runs on one text share."""

    corpus: CorpusSpec
    models: Mapping[str, ModelConfig]
    recipes: Mapping[str, Recipe]
    steps: int
    batch_size: int
    passages: tuple[Passage, ...]
    """Read once, token by token; the last of them written twice, for what heads add to logits."""
    test_sequences: int = 800
    subset_sequences: int = 200
    n_tokens: int = 25
    """Random tokens of the prefix-matching score."""


class Cell(NamedTuple):
    """Runs of one size that differ in the repeated subset and in the seed only."""

    size: str
    arm: Literal["control", "repeated"] = "control"
    fraction: Fraction | None = None
    subsets: tuple[int, ...] = (0,)
    seeds: tuple[int, ...] = (0,)


def planned(family: Family, cells: Sequence[Cell]) -> Iterator[PlannedRun]:
    """One planned run for each subset and seed of each cell."""
    for cell in cells:
        model = family.models[cell.size]
        slots = 0 if cell.fraction is None else int(cell.fraction * family.steps * family.batch_size)
        for subset, seed in product(cell.subsets, cell.seeds):
            treatment: Stream | RepeatedSubset = Stream()
            if cell.fraction is not None:
                treatment = RepeatedSubset(fraction=cell.fraction, n_sequences=subset)
            spec = RunSpec(
                corpus=family.corpus,
                model=model,
                treatment=treatment,
                recipe=family.recipes[cell.size],
                steps=family.steps,
                batch_size=family.batch_size,
                seed=seed,
            )
            repeated = cell.arm == "repeated"
            yield PlannedRun(
                spec=spec,
                labels={
                    "arm": cell.arm,
                    "corpus": family.corpus.source,
                    "size": cell.size,
                    "layers": model.n_layer,
                    "non_embedding": count(model).non_embedding,
                    "total_params": count(model).total,
                    "fraction": None if cell.fraction is None else float(cell.fraction),
                    "subset": subset if repeated else None,
                    "passes": slots / subset if repeated else None,
                    "curve": spec.recipe.curve,
                    "vocab_size": model.vocab_size,
                    "rate_scale": 1.0,
                },
                probes=tuple(probes(family, repeated=repeated)),
            )


def probes(family: Family, *, repeated: bool) -> Iterator[Probe]:
    """All at the beginning and at the end: losses, tokens of the passages, and the heads."""
    last = At(at=())
    yield ScoreProbe(name="test", on=("test",), max_sequences=family.test_sequences, cadence=last)
    if repeated:
        yield ScoreProbe(name="subset", on=("repeated",), max_sequences=family.subset_sequences, cadence=last)
    yield NamesProbe(passages=family.passages, cadence=last)
    twice = family.passages[-1].text
    yield AttributionProbe(on=("test",), texts=(twice,), n_copies=2, cadence=last)
    yield InductionProbe(name="heads", on=("test",), n_tokens=family.n_tokens, cadence=last)


def grid(
    size: str, fraction: Fraction, subsets: tuple[int, ...], seeds: tuple[int, ...]
) -> tuple[Cell, Cell]:
    """The control of a size and its treated runs."""
    return Cell(size, seeds=seeds), Cell(size, "repeated", fraction, subsets, seeds)


def in_bursts(spec: SyntheticSpec, *, n_words: int) -> Passage:
    """At most so many words of the source, two stretches of which are read three times, as bursts copy them.

    The stretches stand for the names of natural text: [a][b] ... [a] -> [b] is all that tells how they go on.
    """
    lag = min(n_words // 3, spec.lags[-1])
    words = unseen_text(spec, n_words=3 * lag).split()
    half, n = lag // 2, min(NAME_WORDS, spec.burst_length, lag // 2)
    names = words[:n], words[half : half + n]
    for place in (lag, 2 * lag):
        words[place : place + n], words[place + half : place + half + n] = names
    return Passage(
        name="stretches", text=" " + " ".join(words), separator="", names=tuple(map(" ".join, names))
    )


def twice_in_bursts(spec: SyntheticSpec, *, n_words: int) -> Passage:
    """Words of the source that are written twice, so many in all: what a burst does at this lag."""
    return in_words_of(spec, name="once", n_words=min(n_words // 2, spec.lags[-1]), document=1)


def speeches() -> Family:
    """Natural text at laptop scale: 3.3M tokens a run."""
    models = {
        size: ModelConfig(
            n_layer=n_layer,
            d_model=WIDTH,
            n_head=HEADS,
            d_mlp=0,
            vocab_size=SOTU.tokenizer.vocab_size,
            context=SOTU.length,
        )
        for size, n_layer in LAYERS.items()
    }
    recipes = {size: Recipe(learning_rate=rate, warmup_steps=100) for size, rate in TEXT_RATES.items()}
    return Family(SOTU, models, recipes, 1600, 16, (LONG, SHORT))


def wikipedia() -> Family:
    """Natural text on a GPU: 98M tokens a run, models as wide as those of Olsson et al. 2022."""
    text = scale.GPU_TEXT
    models = {
        size: scale.attention_only(n_layer, vocab_size=text.tokenizer.vocab_size, context=text.length)
        for size, n_layer in LAYERS.items()
    }
    recipes = {size: scale.gpu_recipe(model) for size, model in models.items()}
    steps, batch_size = scale.GPU_STEPS, scale.GPU_BATCH_SIZE
    return Family(text, models, recipes, steps, batch_size, (LONG, SHORT))


def web() -> Family:
    """The paper's configuration, as far as it is known."""
    models = {size: scale.attention_only(n_layer) for size, n_layer in LAYERS.items()}
    recipes = {size: scale.recipe(model) for size, model in models.items()}
    tests = scale.TEST_SEQUENCES
    return Family(scale.TEXT, models, recipes, scale.STEPS, scale.BATCH_SIZE, (SHORT, LONG), tests)


def bursts(size: str = _bursts.SIZES[-1]) -> Family:
    """Bursts of copying, on which heads form; at a constant rate, as in the study of causality."""
    return _of_bursts(
        _bursts.BURSTS,
        {name: bursts_model(size, n_layer=n_layer) for name, n_layer in LAYERS.items()},
        Recipe(learning_rate=BURSTS_RATE, warmup_steps=100, curve="constant"),
        steps=_bursts.STEPS,
        batch_size=_bursts.BATCH,
    )


def bursts_model(size: str, *, n_layer: int) -> ModelConfig:
    """Without MLP, and with several heads a layer, so that one can be missed and others are left."""
    return _bursts.config(size, kind="attention_only", n_layer=n_layer, n_head=BURSTS_HEADS)


def tiny_bursts() -> Family:
    """Bursts of bytes, for tests."""
    corpus = _bursts.BURSTS_TINY
    models = {
        name: ModelConfig(
            n_layer=n_layer,
            d_model=8,
            n_head=2,
            d_mlp=0,
            vocab_size=corpus.tokenizer.vocab_size,
            context=corpus.length,
        )
        for name, n_layer in LAYERS.items()
    }
    recipe = Recipe(learning_rate=0.02, warmup_steps=8, curve="constant")
    family = _of_bursts(corpus, models, recipe, steps=40, batch_size=8)
    return family._replace(test_sequences=32, subset_sequences=16, n_tokens=12)


def _of_bursts(
    corpus: CorpusSpec, models: Mapping[str, ModelConfig], recipe: Recipe, *, steps: int, batch_size: int
) -> Family:
    spec = corpus.synthetic
    assert spec is not None
    # A word is a token of its own, or five bytes with the space before it.
    n_words = corpus.length // (5 if corpus.tokenizer.kind == "bytes" else 1)
    shown = (in_bursts(spec, n_words=n_words), twice_in_bursts(spec, n_words=n_words))
    recipes = dict.fromkeys(models, recipe)
    return Family(corpus, models, recipes, steps, batch_size, shown, n_tokens=BURSTS_TOKENS)
