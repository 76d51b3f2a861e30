"""Runs on the bursty corpus, which the studies of copying and of induction heads share, and its passages."""

from collections.abc import Iterator, Sequence
from fractions import Fraction

from repetita.corpus.sequences import CorpusSpec
from repetita.measure.passages import RANDOM, Passage, RandomTokens, in_words_of
from repetita.studies._bursts import BATCH, BURSTS, BURSTS_TINY, SIZES, STEPS
from repetita.studies._damage_runs import (
    CURVE_BUDGET,
    HALF,
    TENTH,
    TEST_SEQUENCES,
    THREE_HUNDREDTHS,
    Cell,
    Design,
    planned,
    seeds,
    tiny_design,
)
from repetita.study.plan import PlannedRun

TREATED = SIZES[-1]
"""The largest, so that the ladder of controls reaches far below it (experiment design, rule 23)."""


def tiny() -> Iterator[PlannedRun]:
    """Three sizes of control, two of them at two shares; two seeds."""
    two, corpus = seeds(2), BURSTS_TINY
    cells = (
        *(Cell("control", size, seeds=two, corpus=corpus) for size in ("0.6k", "1.9k", "3.8k")),
        *(Cell("repeated", size, HALF, (80, 20, 5), two, corpus=corpus) for size in ("1.9k", "3.8k")),
        *(
            Cell("repeated", size, THREE_HUNDREDTHS, (9, 3, 1), two, corpus=corpus)
            for size in ("1.9k", "3.8k")
        ),
    )
    return planned(tiny_design(cells))


def laptop() -> Iterator[PlannedRun]:
    """Controls of five sizes, the headline's share and a half of the tokens, all with three seeds."""
    cells = (
        *_controls(n_seeds=3),
        _treated(TREATED, THREE_HUNDREDTHS, 32, 128, n_seeds=3),
        _treated(TREATED, HALF, 25, 100, 400, n_seeds=3),
    )
    return planned(_design(cells))


def overnight() -> Iterator[PlannedRun]:
    """Three seeds, three shares at the largest size, half of the tokens at the next one, too."""
    cells = (
        *_controls(n_seeds=3),
        _treated(TREATED, THREE_HUNDREDTHS, 8, 32, 128, 480, n_seeds=3),
        *(_treated(size, HALF, 25, 100, 400, 1600, n_seeds=3) for size in SIZES[-2:]),
        _treated(TREATED, TENTH, 32, 128, 512, n_seeds=3),
    )
    return planned(_design(cells))


def passages(corpus: CorpusSpec) -> Sequence[Passage | RandomTokens]:
    """A long one, of which three copies fill a sequence, a short one as long as the shortest lag, and random
    tokens of which four copies fit.

    The long one is no longer than the longest lag: what the corpus never asks for is not asked for.
    """
    spec = corpus.synthetic
    assert spec is not None
    # A word of four letters and a space is five bytes, or one token of the vocabulary of words.
    words = corpus.length // (5 if corpus.tokenizer.kind == "bytes" else 1)
    long = in_words_of(spec, name="long", n_words=min(words // 3, spec.lags[-1]))
    short = in_words_of(spec, name="short", n_words=spec.lag, document=1)
    n_tokens = 12 if corpus.tokenizer.kind == "bytes" else corpus.length // 4
    return long, short, RANDOM.edit(n_tokens=min(RANDOM.n_tokens, n_tokens))


def _controls(*, n_seeds: int) -> Iterator[Cell]:
    for size in SIZES:
        yield Cell("control", size, seeds=seeds(n_seeds), curve="constant", corpus=BURSTS)


def _treated(size: str, fraction: Fraction, *passes: int, n_seeds: int = 1) -> Cell:
    subsets = tuple(round(fraction * STEPS * BATCH / one) for one in passes)
    return Cell("repeated", size, fraction, subsets, seeds(n_seeds), curve="constant", corpus=BURSTS)


def _design(cells: Sequence[Cell]) -> Design:
    """A constant rate after warm-up, as in the pilots that grew heads."""
    return Design(
        tuple(cells), STEPS, BATCH, TEST_SEQUENCES, curve_budget=CURVE_BUDGET, curve_points=16,
        family="bursts",
    )  # fmt: skip
