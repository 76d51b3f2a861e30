"""The runs of the study of copying at every scale, and what each is shown."""

from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction

from repetita.cadence import At
from repetita.measure.copying import CopyingProbe
from repetita.measure.induction import InContextProbe
from repetita.measure.memorization import ScoreProbe
from repetita.measure.passages import LONG, RANDOM, SHORT, Passage, RandomTokens
from repetita.studies import _bursts_runs as bursts
from repetita.studies import _repeated_scale as scale
from repetita.studies._bursts import BURSTS, BURSTS_TINY
from repetita.studies._damage_runs import (
    CURVE_BUDGET,
    HALF,
    TENTH,
    TEST_SEQUENCES,
    THREE_HUNDREDTHS,
    Cell,
    Design,
    laptop_design,
    paper_controls,
    paper_design,
    planned,
    seeds,
)
from repetita.study.plan import Expected, PlannedRun

AT_THE_END = At(at=())

GPU_TEXT = scale.GPU_TEXT.edit(length=2048)
"""The text of the GPU scale in sequences that hold several copies of 1,463 characters."""
GPU_BATCH_SIZE = scale.GPU_BATCH_SIZE // 4
"""As many tokens a step as in sequences of 512."""
GPU_SIZES = ("1.6M", "5.3M")

NATURAL_SIZES = ("25k", "100k", "220k")

EXPECTED = (*scale.EXPECTED, Expected(GPU_TEXT, {name: n // 4 for name, n in scale.GPU_POOLS.items()}))


def shown(runs: Iterable[PlannedRun], *, passages: Sequence[Passage | RandomTokens]) -> Iterator[PlannedRun]:
    """The runs with what this study measures at their end."""
    for run in runs:
        length = run.spec.corpus.length
        width = max(1, length // 16)
        context = InContextProbe(
            early=length // 10, late=length - width, width=width, max_sequences=TEST_SEQUENCES,
            cadence=AT_THE_END,
        )  # fmt: skip
        test = ScoreProbe(name="test", on=("test",), max_sequences=TEST_SEQUENCES, cadence=AT_THE_END)
        copying = CopyingProbe(passages=tuple(passages), cadence=AT_THE_END)
        yield run._replace(probes=(test, copying, context))


def reach(runs: Sequence[PlannedRun]) -> float:
    """How many times smaller than the smallest treated size the ladder of its controls goes down to."""
    treated = [run for run in runs if run.labels["arm"] == "repeated"]
    corpora = {run.spec.corpus for run in treated}
    controls = [run for run in runs if run.labels["arm"] == "control" and run.spec.corpus in corpora]
    smallest, least = (
        min(int(run.labels["non_embedding"] or 0) for run in some) for some in (treated, controls)
    )
    return smallest / least


def tiny() -> Sequence[PlannedRun]:
    """Seconds of work on bursts of bytes, for tests: every arm, no science."""
    return tuple(shown(bursts.tiny(), passages=bursts.passages(BURSTS_TINY)))


def laptop() -> Sequence[PlannedRun]:
    """Bursts, on which small models copy; beside them controls on natural text, which may not."""
    own = shown(bursts.laptop(), passages=bursts.passages(BURSTS))
    return (*own, *shown(natural(), passages=(SHORT, RANDOM)))


def overnight() -> Sequence[PlannedRun]:
    """As `laptop`, with three shares, two sizes and three seeds."""
    own = shown(bursts.overnight(), passages=bursts.passages(BURSTS))
    return (*own, *shown(natural(), passages=(SHORT, RANDOM)))


def natural() -> Iterator[PlannedRun]:
    """Controls on the speeches, which the study of double descent runs as well."""
    return planned(laptop_design(tuple(Cell("control", size, seeds=seeds(3)) for size in NATURAL_SIZES)))


def gpu() -> Sequence[PlannedRun]:
    """Natural text and the passages themselves; three seeds at the headline's share and size."""
    total, text, three = scale.GPU_STEPS * GPU_BATCH_SIZE, GPU_TEXT, seeds(3)

    def treated(size: str, fraction: Fraction, *passes: int, n_seeds: int = 1) -> Cell:
        subsets = tuple(round(fraction * total / one) for one in passes)
        return Cell("repeated", size, fraction, subsets, seeds(n_seeds), corpus=text)

    small, large = GPU_SIZES
    cells = (
        *(
            Cell("control", size, seeds=three if size == large else seeds(1), corpus=text)
            for size in scale.GPU_SHAPES
        ),
        treated(large, THREE_HUNDREDTHS, 32, 100, 320, 1000, n_seeds=3),
        treated(small, THREE_HUNDREDTHS, 32, 100, 320, 1000),
        *(treated(size, TENTH, 32, 100, 320, 1000) for size in GPU_SIZES),
        *(treated(size, HALF, 10, 32, 100, 320, 1000) for size in GPU_SIZES),
    )
    design = Design(
        cells, scale.GPU_STEPS, GPU_BATCH_SIZE, TEST_SEQUENCES, curve_budget=CURVE_BUDGET, curve_points=16,
        family="gpu",
    )  # fmt: skip
    return tuple(shown(planned(design), passages=(LONG, SHORT, RANDOM)))


def paper() -> Sequence[PlannedRun]:
    """The paper's grid, one seed, which the study of double descent runs as well: all sizes and shares."""
    text = scale.TEXT
    cells = (
        *paper_controls(),
        *(
            Cell("repeated", size, f, scale.SUBSETS, corpus=text)
            for size in scale.SIZES
            for f in scale.FRACTIONS
        ),
    )
    return tuple(shown(planned(paper_design(cells)), passages=(LONG, SHORT, RANDOM)))


SCALES = {"tiny": tiny, "laptop": laptop, "overnight": overnight, "gpu": gpu, "paper": paper}
