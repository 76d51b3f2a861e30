"""Runs that expose a model to special batches: when, how often, how far apart, in which order of the data."""

from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any, Literal, NamedTuple

from repetita.cadence import At, LogSpaced, Several
from repetita.corpus.sequences import CorpusSpec
from repetita.corpus.treatment import Passes, SpecialBatch, Stream
from repetita.measure.memorization import ScoreProbe
from repetita.measure.probe import Probe
from repetita.model.config import ModelConfig, count
from repetita.report.page import Deviation
from repetita.studies import _gpu_scale, _laptop, _paper_scale
from repetita.studies._memory import PER_DECADE
from repetita.studies.forgetting import BYTES, LONG, SPEECHES
from repetita.study.plan import PlannedRun
from repetita.train.recipe import Recipe, RunSpec

SCALES = ("tiny", "laptop", "overnight", "gpu", "paper")

PASSES = (14, 39, 63)
"""Passes over the training set before the exposure in Fig. 9."""
PAPER_PASS = _paper_scale.SEQUENCES / _paper_scale.BATCH_SIZES["125M"]
"""Updates in a pass of the paper's 125M model over WikiText-103."""
PAPER_LAST_PASS = 200
"""Where the curves of Figs. 9 and 10 left end."""


class Exposure(NamedTuple):
    """How the special batches are injected: one level of what a study varies."""

    at: int
    """Updates before the first special batch."""
    times: int = 1
    """Updates on each special batch."""
    every: int = 1
    """Updates from one exposure of a batch to its next."""
    reordered: int = 0
    """Number of another order of the training data, over the same set and from the same initialisation."""


class Design(NamedTuple):
    """What a scale runs: every level with its placebo fork, for every seed."""

    levels: tuple[Exposure, ...]
    seeds: int
    size: str
    model: ModelConfig
    recipe: Recipe
    corpus: CorpusSpec
    n_sequences: int
    """Sequences of the training set, read pass after pass."""
    batch_size: int
    special_size: int
    """Sequences of a special batch."""
    n_batches: int
    horizon: int
    """Updates after the last exposure at which levels are compared."""
    ends: Literal["after_last", "together"] = "after_last"
    """Whether a run ends at the horizon, or with the longest of the levels that are exposed first."""

    def edit(self, **changes: Any) -> "Design":
        """A copy with some fields changed."""
        return self._replace(**changes)


def laptop(levels: Sequence[Exposure], *, horizon: int, size: str = "100k", seeds: int = 5) -> Design:
    """The training set, trunks and recipe of the forgetting study."""
    return Design(
        levels=tuple(levels),
        seeds=seeds,
        size=size,
        model=_laptop.config(size, corpus=SPEECHES),
        recipe=Recipe(learning_rate=_laptop.RATES[size], warmup_steps=32),
        corpus=SPEECHES,
        n_sequences=128,
        batch_size=16,
        special_size=16,
        n_batches=4,
        horizon=horizon,
    )


def tiny(levels: Sequence[Exposure], *, horizon: int, seeds: int = 2) -> Design:
    """Seconds of work on synthetic bytes, for tests: every arm, no science."""
    return Design(
        levels=tuple(levels),
        seeds=seeds,
        size="3.8k",
        model=_laptop.config("3.8k", corpus=BYTES),
        recipe=Recipe(learning_rate=_laptop.RATES["3.8k"], warmup_steps=4),
        corpus=BYTES,
        n_sequences=32,
        batch_size=8,
        special_size=8,
        n_batches=2,
        horizon=horizon,
    )


def gpu(levels: Sequence[Exposure], *, horizon: int, seeds: int = 5) -> Design:
    """11M parameters on half a million tokens: 21 parameters a token, in the paper's range."""
    return Design(
        levels=tuple(levels),
        seeds=seeds,
        size="11M",
        model=_gpu_scale.config("11M", corpus=LONG),
        recipe=Recipe(learning_rate=_gpu_scale.RATES["11M"], warmup_steps=128),
        corpus=LONG,
        n_sequences=1024,
        batch_size=16,
        special_size=16,
        n_batches=8,
        horizon=horizon,
    )


def paper(levels: Sequence[Exposure], *, horizon: int, seeds: int = 5) -> Design:
    """125M parameters on WikiText-103; the special batch is the whole validation set."""
    return Design(
        levels=tuple(levels),
        seeds=seeds,
        size="125M",
        model=_paper_scale.config("125M"),
        recipe=_paper_scale.recipe("125M"),
        corpus=_paper_scale.WIKITEXT,
        n_sequences=_paper_scale.SEQUENCES,
        batch_size=_paper_scale.BATCH_SIZES["125M"],
        special_size=_paper_scale.VALIDATION_SEQUENCES,
        n_batches=1,
        horizon=horizon,
    )


def planned(design: Design) -> Iterator[PlannedRun]:
    """A run for each level, arm and seed; what comes before an exposure is shared."""
    for seed in range(design.seeds):
        for level in design.levels:
            yield from _pair(design, level, seed=seed)


def _together(design: Design) -> tuple[int, int]:
    """Where the levels with the earliest exposure end, and how long that is after any of their first ones."""
    start = min(level.at for level in design.levels)
    placed = [_treatment(design, level, arm="special") for level in design.levels if level.at == start]
    end = max(last_exposures(treatment)[-1] for treatment in placed) + design.horizon
    return end, end - max(max(first_exposures(treatment)) for treatment in placed)


def _pair(design: Design, level: Exposure, *, seed: int) -> Iterator[PlannedRun]:
    """The run with the special batches and its placebo fork."""
    # Roles are crossed over seeds: odd seeds train on the twin and never see the special set.
    trained: Literal["special", "twin"] = "special" if seed % 2 == 0 else "twin"
    other = "twin" if trained == "special" else "special"
    treatments = [_treatment(design, level, arm=arm) for arm in (trained, "placebo")]
    steps = last_exposures(treatments[0])[-1] + design.horizon
    since_first = None
    if design.ends == "together":
        end, apart = _together(design)
        steps = max(steps, end)
        since_first = apart if max(first_exposures(treatments[0])) + apart <= steps else None
    shared = {
        "trained": trained,
        "size": design.size,
        "non_embedding": count(design.model).non_embedding,
        **level._asdict(),
        "passes": float(Fraction(level.at * design.batch_size, design.n_sequences)),
        "per_pass": float(Fraction(design.n_sequences, design.batch_size)),
        "n_batches": design.n_batches,
        "interleaved": int(treatments[0].batches == "interleaved"),
        "horizon": design.horizon,
        "since_first": since_first,
    }
    for treatment in treatments:
        arm = "placebo" if treatment.arm == "placebo" else "special"
        spec = RunSpec(
            corpus=design.corpus,
            model=design.model,
            treatment=treatment,
            recipe=design.recipe,
            steps=steps,
            batch_size=design.batch_size,
            seed=seed,
        )
        probes = tuple(_probes(shared, arm=arm, other=other))
        yield PlannedRun(spec=spec, labels={"arm": arm, **shared}, probes=probes, fork_at=level.at)


def _treatment(
    design: Design, level: Exposure, *, arm: Literal["special", "twin", "placebo"]
) -> SpecialBatch:
    return SpecialBatch(
        base=Passes(n_sequences=design.n_sequences, reordered=level.reordered),
        size=design.special_size,
        at=level.at,
        n_batches=design.n_batches,
        times=level.times,
        every=level.every,
        arm=arm,
        # Exposures in a row come batch by batch; with room between them the batches take turns.
        batches="interleaved" if level.every >= design.n_batches > 1 else "one_after_another",
    )


def last_exposures(treatment: SpecialBatch, /) -> list[int]:
    """The state right after the last exposure of each batch, in the order of the batches."""
    return [step + 1 for step in _steps(treatment, which=-1)]


def first_exposures(treatment: SpecialBatch, /) -> list[int]:
    """The state right after the first exposure of each batch, in the order of the batches."""
    return [step + 1 for step in _steps(treatment, which=0)]


def _steps(treatment: SpecialBatch, *, which: int) -> list[int]:
    made = treatment.injections()
    batches = range(treatment.n_batches)
    return [[step for step, batch in made if batch == number][which] for number in batches]


def states_of(labels: Mapping[str, Any], /) -> tuple[list[int], list[int]]:
    """States right after the first and the last exposure of each batch of a run with these labels."""
    treatment = SpecialBatch(
        base=Stream(),
        size=1,
        **{name: int(labels[name]) for name in ("at", "n_batches", "times", "every")},
        batches="interleaved" if labels["interleaved"] else "one_after_another",
    )
    return first_exposures(treatment), last_exposures(treatment)


def _probes(labels: Mapping[str, Any], *, arm: str, other: str) -> Iterator[Probe]:
    """M and loss on the special batches, on their never-seen twins, and on the training set."""
    first, last = states_of(labels)
    ends = [state + labels["horizon"] for state in last]
    if labels["since_first"] is not None:
        ends += [state + labels["since_first"] for state in first]
    after = LogSpaced(per_decade=PER_DECADE, origin=last[-1])
    through = Several(of=(LogSpaced(per_decade=4), LogSpaced(per_decade=3, origin=labels["at"])))
    near = At(at=tuple(sorted({labels["at"], *last, *ends})))
    yield ScoreProbe(name="special", on=(str(labels["trained"]),), cadence=Several(of=(near, after, through)))
    yield ScoreProbe(name="other", on=(other,), cadence=near)
    if arm == "special":
        slow = LogSpaced(per_decade=2, origin=last[-1])
        yield ScoreProbe(name="train", on=("train",), max_sequences=64, cadence=Several(of=(slow, through)))


def deviations(design: Design, *, varied: Sequence[Deviation]) -> tuple[Deviation, ...]:
    """The paper's value and ours; `varied` are the rows on what the study varies."""
    tokens, corpus = design.n_sequences * design.corpus.length, design.corpus
    n_params = count(design.model).non_embedding
    special = f"{design.n_batches} of {design.special_size} sequences, each alone in its updates"
    curve = "constant" if design.recipe.curve == "constant" else f"{design.recipe.curve} to zero"
    horizon = Fraction(design.horizon * design.batch_size, design.n_sequences)
    return (
        *varied,
        Deviation("training set", "WikiText-103, 103M tokens", f"{corpus.source}, {tokens:,} tokens", "size"),
        Deviation("model", "125M", f"{n_params:,} non-embedding parameters", "the scale's compute"),
        Deviation("parameters per training token", "about 1.2", f"{n_params / tokens:.2g}", "rule 12"),
        Deviation("special batches", "one, the whole validation set", special, "rules 7 and 9"),
        Deviation("control", "none", "placebo fork, never-seen twin, roles crossed over seeds", "rule 7"),
        Deviation(
            "compared", "lowest M until pass 200",
            f"at {design.horizon:,} updates ({float(horizon):.3g} passes) after the last exposure, and the "
            "lowest M until there", "rule 30",
        ),
        Deviation(
            "learning rate", "375M tokens warm-up, then nearly constant",
            f"{design.recipe.warmup_steps} updates warm-up, then {curve}", "rule 11",
        ),
        Deviation("sequence", "512 tokens, broken at sentences", f"{corpus.length} tokens, {corpus.breaks}"),
        Deviation("vocabulary", "about 50k", f"{corpus.tokenizer.vocab_size:,} ({corpus.tokenizer.kind})"),
        Deviation("seeds", "not stated", str(design.seeds), "rule 29 asks for 5 where equality is claimed"),
    )  # fmt: skip
