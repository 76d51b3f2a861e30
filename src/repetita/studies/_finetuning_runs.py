"""The runs of the fine-tuning study: pre-training, what follows it on another text, and that text alone."""

from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Literal, NamedTuple

from repetita.cadence import LogSpaced
from repetita.corpus.sequences import CorpusSpec
from repetita.corpus.splits import Splits
from repetita.measure.memorization import ScoreProbe
from repetita.studies import _damage_runs as runs
from repetita.studies import _repeated_scale as scale
from repetita.studies._damage_runs import HALF, NINE_TENTHS, TENTH, Cell, Design, seeds
from repetita.studies._laptop import SOTU, SYNTHETIC
from repetita.study.plan import Expected, Label, PlannedRun
from repetita.train.recipe import Recipe, Start

Variant = Literal["main", "own rate", "optimizer carried on"]

RATE_SHARE = 0.5
"""The paper fine-tunes at half the learning rate (section 5.4)."""
WARMUP_SHARE = 0.25
"""Its warm-up is shortened; by how much it does not say."""
LEFT_SEQUENCES = 64

CODE = CorpusSpec(source="python-stdlib", length=SOTU.length).with_ids_of(SOTU)
GPU_CODE = CorpusSpec(
    source="hf:codeparrot/codeparrot-clean",
    text_field="content",
    limit_documents=40_000,
    length=scale.GPU_TEXT.length,
    splits=Splits(test="0.02"),
).with_ids_of(scale.GPU_TEXT)
GPU_CODE_POOLS = {"train": 285_000, "test": 5_800}
"""40,000 files, 373 MB, at an assumed 2.5 bytes a token of WikiText's vocabulary."""
TINY_CODE = SYNTHETIC.edit(source="python-stdlib", limit_documents=40)

EXPECTED = (*scale.EXPECTED, Expected(GPU_CODE, GPU_CODE_POOLS))

WORST: Mapping[tuple[str, Fraction], int] = {
    ("25k", TENTH): 10, ("25k", HALF): 50, ("25k", NINE_TENTHS): 192,
    ("100k", HALF): 160, ("100k", NINE_TENTHS): 640,
}  # fmt: skip
"""Sequences of the subset with the highest loss on unseen text in `double_descent` at laptop scale: 256, 256
and 120 passes at 25k, 80 at 100k. At 100k and f = 0.9, which was not run, a quarter of the passes of 25k, as
the peak moves at f = 0.5. Nothing after fine-tuning was looked at."""


class Plan(NamedTuple):
    """What a scale runs."""

    before: Design
    """Pre-training: the runs that are fine-tuned, and controls below them for their size before."""
    after: Design
    """Training on the target: the ladder from scratch."""
    tuned: Mapping[str, tuple[Variant, ...]]
    """Sizes that are fine-tuned, each with what is varied."""


def planned(plan: Plan) -> Iterator[PlannedRun]:
    """Pre-training, the ladder on the target, that at the recipe of fine-tuning, and fine-tuning."""
    before = list(runs.planned(plan.before))
    scratch = {(run.labels["size"], run.spec.seed): run for run in runs.planned(plan.after)}
    for run in before:
        yield run._replace(labels={**run.labels, "stage": "pre-training", "variant": None})
    for run in scratch.values():
        yield _on_target(run, arm="scratch", variant="main")
    for (size, _), run in scratch.items():
        if size in plan.tuned:
            spec = run.spec.edit(recipe=tuned_recipe(run.spec.recipe))
            yield _on_target(run._replace(spec=spec), arm="scratch at the same recipe", variant="main")
    for run in before:
        for variant in plan.tuned.get(str(run.labels["size"]), ()):
            yield _tuned(run, scratch[run.labels["size"], run.spec.seed], variant, plan.after)


def tuned_recipe(own: Recipe, *, rate_share: float = RATE_SHARE) -> Recipe:
    """The recipe of fine-tuning: at a share of the rate, with a shorter warm-up."""
    return own.edit(
        learning_rate=own.learning_rate * rate_share,
        warmup_steps=max(1, round(own.warmup_steps * WARMUP_SHARE)),
    )


def _tuned(parent: PlannedRun, scratch: PlannedRun, variant: Variant, design: Design) -> PlannedRun:
    """A run on the target like that from scratch, but for its recipe and the weights that it begins with."""
    rate = 1.0 if variant == "own rate" else RATE_SHARE
    start = Start(run=parent.spec, optimizer="carried" if variant == "optimizer carried on" else "fresh")
    recipe = tuned_recipe(scratch.spec.recipe, rate_share=rate)
    repeated = parent.labels["arm"] == "repeated"
    left = ScoreProbe(
        name="left",
        on=("parent/repeated", "parent/test") if repeated else ("parent/test",),
        max_sequences=LEFT_SEQUENCES,
        cadence=LogSpaced(k=design.curve_points, first=Fraction(max(1, design.steps // 80))),
    )
    told = {name: parent.labels[name] for name in ("fraction", "subset", "passes")}
    return _on_target(
        scratch._replace(
            spec=scratch.spec.edit(recipe=recipe, start=start),
            labels={**scratch.labels, **told},
            probes=(*scratch.probes, left),
        ),
        arm="repeated" if repeated else "unique",
        variant=variant,
        rate_scale=rate,
    )


def _on_target(run: PlannedRun, *, arm: str, variant: Variant, rate_scale: float = 1.0) -> PlannedRun:
    if arm == "scratch at the same recipe":
        rate_scale = RATE_SHARE
    more: dict[str, Label] = {
        "stage": "target", "arm": arm, "variant": variant, "rate_scale": rate_scale
    }  # fmt: skip
    return run._replace(labels={**run.labels, **more})


def tiny() -> Sequence[PlannedRun]:
    """Seconds of work on bytes, for tests: every arm and variant, no science."""
    two = seeds(2)
    before = runs.tiny_design(
        (
            *(Cell("control", size, corpus=SYNTHETIC) for size in ("0.6k", "1.9k")),
            Cell("control", "3.8k", seeds=two, corpus=SYNTHETIC),
            Cell("repeated", "3.8k", HALF, (20,), corpus=SYNTHETIC),
            Cell("repeated", "3.8k", NINE_TENTHS, (12,), two, corpus=SYNTHETIC),
        )
    )
    after = runs.tiny_design(
        (
            *(Cell("control", size, corpus=TINY_CODE) for size in ("0.6k", "1.9k", "6.6k")),
            Cell("control", "3.8k", seeds=two, corpus=TINY_CODE),
        )
    )
    return tuple(planned(Plan(before, after, {"3.8k": ("main", "own rate", "optimizer carried on")})))


SMALL = ("0.6k", "1.9k", "3.8k", "6.6k", "14k")
"""Below what is fine-tuned."""


def laptop() -> Sequence[PlannedRun]:
    """One size: f = 1/2 with three seeds, 9/10 with one; all of pre-training is that of `double_descent`."""
    three = seeds(3)
    before = runs.laptop_design(
        (
            *(Cell("control", size) for size in SMALL),
            Cell("control", "25k", seeds=three),
            Cell("repeated", "25k", HALF, (WORST["25k", HALF],), three),
            Cell("repeated", "25k", NINE_TENTHS, (WORST["25k", NINE_TENTHS],)),
        )
    )
    after = runs.laptop_design(
        (
            *(Cell("control", size, corpus=CODE) for size in ("3.8k", "6.6k", "14k", "57k", "100k")),
            Cell("control", "25k", seeds=three, corpus=CODE),
        )
    )
    return tuple(planned(Plan(before, after, {"25k": ("main",)})))


def overnight() -> Sequence[PlannedRun]:
    """Two sizes, three shares at the smaller; there also the full rate and the optimizer carried on."""
    three = seeds(3)
    before = runs.laptop_design(
        (
            *(Cell("control", size, seeds=three) for size in (*SMALL, "25k", "57k", "100k")),
            *(Cell("repeated", size, f, (subset,), three) for (size, f), subset in WORST.items()),
        )
    )
    ladder = (*SMALL, "25k", "57k", "100k", "220k")
    after = runs.laptop_design(tuple(Cell("control", size, seeds=three, corpus=CODE) for size in ladder))
    tuned: dict[str, tuple[Variant, ...]] = {
        "25k": ("main", "own rate", "optimizer carried on"),
        "100k": ("main",),
    }
    return tuple(planned(Plan(before, after, tuned)))


def gpu() -> Sequence[PlannedRun]:
    """One seed at 5.3M, pre-trained on an encyclopedia, fine-tuned on Python files."""
    size, text = scale.GPU_TREATED[1], scale.GPU_TEXT
    sizes = [name for name in scale.GPU_SHAPES if name != "43M"]
    subsets = {HALF: 320, NINE_TENTHS: 100}
    before = runs.gpu_design(
        (
            *(Cell("control", name, corpus=text) for name in sizes[: sizes.index(size) + 1]),
            *(
                Cell("repeated", size, f, (scale.gpu_subset(f, passes=passes),), corpus=text)
                for f, passes in subsets.items()
            ),
        )
    )
    after = runs.gpu_design(tuple(Cell("control", name, corpus=GPU_CODE) for name in sizes))
    return tuple(planned(Plan(before, after, {size: ("main", "own rate", "optimizer carried on")})))


def paper() -> Sequence[PlannedRun]:
    """The paper's 805M and 101M, at the subset nearest to the middle of its band, on 16B tokens of Python."""
    subsets = {"805M": 30_000, "101M": 10_000}
    sizes = (*scale.BELOW, *scale.SIZES)
    before = runs.paper_design(
        (
            *(Cell("control", size, corpus=scale.TEXT) for size in sizes),
            *(
                Cell("repeated", size, f, (subset,), corpus=scale.TEXT)
                for f in (HALF, NINE_TENTHS)
                for size, subset in subsets.items()
            ),
        )
    )
    cells = tuple(Cell("control", size, corpus=scale.CODE) for size in sizes)
    after = runs.paper_design(cells, steps=scale.CODE_STEPS)
    return tuple(planned(Plan(before, after, dict.fromkeys(subsets, ("main",)))))


SCALES = {"tiny": tiny, "laptop": laptop, "overnight": overnight, "gpu": gpu, "paper": paper}
