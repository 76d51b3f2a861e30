"""How much is memorized before a model overfits? M(f) at the onset, by size (memorization paper, Fig. 4)."""

from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, NamedTuple

from repetita.cadence import AtPasses, LogSpaced
from repetita.measure.memorization import MemorizationProbe, ScoreProbe
from repetita.measure.probe import Probe
from repetita.report.page import Deviation
from repetita.studies import memorization_speed
from repetita.studies._paper_scale import EXPECTED
from repetita.study.expand import labels_of
from repetita.study.plan import Analysis, PlannedRun, Study

if TYPE_CHECKING:
    from repetita.study.collect import Collected


class Window(NamedTuple):
    """How long a run of the speed study is followed, and how closely it is looked at."""

    passes: int
    """Its first passes: beyond the onset in a pilot with another seed, as far as it can be paid for."""
    seeds: int | None = None
    """The first seeds only; None takes all."""


class Design(NamedTuple):
    """What a scale follows of the speed study's runs at that scale."""

    windows: Mapping[str, Mapping[str, Window]]
    """By objective and size; other sizes are left out."""
    test_sequences: int = 64
    masked_test_sequences: int = 32
    """Masked models are asked seven times for a set."""
    per_pass: Mapping[str, int] = {"causal": 4, "masked": 2}
    """Looks at the validation text in a pass, from `dense_from` on; once a pass before."""
    dense_from: float = 0.4
    """Share of the window."""
    per_decade: int = 16
    """Full passes over the training set for M(f), a decade of passes."""


def planned(design: Design, *, scale: str) -> Iterator[PlannedRun]:
    """The beginnings of the speed study's standard runs: the same updates, bit for bit, and then no more."""
    for run in memorization_speed.SCALES[scale]():
        labels, spec = run.labels, run.spec
        window = design.windows.get(str(labels["objective"]), {}).get(str(labels["size"]))
        if window is None or labels["arm"] != "standard" or labels["n_sequences"] != main_set(scale):
            continue
        if window.seeds is not None and spec.seed >= window.seeds:
            continue
        steps = round(Fraction(window.passes * int(labels["n_sequences"] or 0), spec.batch_size))
        yield PlannedRun(
            spec=spec.edit(steps=min(steps, spec.steps)),
            labels=labels,
            probes=tuple(probes(design, window, objective=str(labels["objective"]))),
        )


def main_set(scale: str, /) -> int:
    """Sequences of the training set of most of the speed study's runs at a scale."""
    sets = [int(run.labels["n_sequences"] or 0) for run in memorization_speed.SCALES[scale]()]
    return max(sets, key=sets.count)


def probes(design: Design, window: Window, *, objective: str) -> Iterator[Probe]:
    """Loss on validation text several times a pass where the onset is expected; M(f) at log-spaced passes."""
    often, dense = design.per_pass[objective], round(design.dense_from * window.passes)
    whole = [Fraction(n) for n in range(1, window.passes + 1)]
    between = [Fraction(n, often) for n in range(often * dense, often * window.passes + 1)]
    rows = design.test_sequences if objective == "causal" else design.masked_test_sequences
    yield ScoreProbe(
        name="validation",
        on=("test",),
        max_sequences=rows,
        cadence=AtPasses(passes=tuple(sorted({*whole, *between}))),
    )
    per_decade = design.per_decade if objective == "causal" else design.per_decade // 2
    yield MemorizationProbe(
        name="train", on=("train",), cadence=LogSpaced(per_decade=per_decade, unit="passes")
    )


def tiny() -> Sequence[PlannedRun]:
    """Seconds of work on synthetic bytes, for tests: both objectives, no science."""
    sizes = {"0.6k": Window(12), "3.8k": Window(12)}
    return tuple(planned(Design({"causal": sizes, "masked": sizes}, test_sequences=16), scale="tiny"))


def laptop() -> Sequence[PlannedRun]:
    """Four causal sizes in three seeds, three masked ones in one."""
    return tuple(planned(Design({"causal": LAPTOP, "masked": LAPTOP_MASKED}), scale="laptop"))


def overnight() -> Sequence[PlannedRun]:
    """Six causal and five masked sizes in five seeds, more validation text, twice as long."""
    windows = {"causal": OVERNIGHT, "masked": OVERNIGHT_MASKED}
    design = Design(windows, test_sequences=256, masked_test_sequences=64, per_decade=24)
    return tuple(planned(design, scale="overnight"))


def gpu() -> Sequence[PlannedRun]:
    """The sizes of the speed study at that scale, followed for a few dozen passes."""
    causal = {size: Window(24) for size in ("3.1M", "11M", "25M", "85M")}
    masked = {size: Window(48) for size in ("3.1M", "11M", "25M")}
    design = Design({"causal": causal, "masked": masked}, test_sequences=128, masked_test_sequences=64)
    return tuple(planned(design, scale="gpu"))


def paper() -> Sequence[PlannedRun]:
    """The six sizes of Table 1 on WikiText-103, with the whole validation set eight times a pass."""
    windows = {
        objective: dict.fromkeys(("125M", "355M", "1.3B", "2.7B", "6.7B", "13B"), Window(passes))
        for objective, passes in (("causal", 40), ("masked", 100))
    }
    design = Design(windows, 506, 506, per_pass={"causal": 8, "masked": 4}, dense_from=0.05, per_decade=24)
    return tuple(planned(design, scale="paper"))


LAPTOP = {"25k": Window(36), "100k": Window(32), "220k": Window(36), "890k": Window(18)}
LAPTOP_MASKED = {size: Window(32, seeds=1) for size in ("25k", "100k", "220k")}
OVERNIGHT = {
    "25k": Window(64), "57k": Window(64), "100k": Window(48), "220k": Window(48), "400k": Window(32),
    "890k": Window(32),
}  # fmt: skip
OVERNIGHT_MASKED = {size: Window(64) for size in ("25k", "57k", "100k", "220k", "400k")}

UNDECIDABLE: Mapping[str, Mapping[str, str]] = {
    "laptop": dict.fromkeys(
        ("onset-masked-rises", "onset-masked-memory"),
        "not decidable at this scale: one seed, and in pilots masked models overfit while they guess by "
        "frequency",
    )
}


def analyse(collected: "Collected") -> Analysis:
    """Claims on M(f) at the onset of overfitting, figures and tables."""
    from repetita.fit.claim import settle
    from repetita.studies import _onset, _onset_claims, _onset_figures
    from repetita.studies._grid import planned_labels

    if collected.measurements.is_empty():
        return Analysis(warnings=("no run is finished yet",))
    labels = planned_labels(collected)
    found = _onset.runs(collected.measurements)
    judged = _onset_claims.claims(found, planned=labels)
    return Analysis(
        claims=settle(list(judged)),
        figures=tuple(_onset_figures.figures(found)),
        tables=tuple(_onset_figures.tables(found)),
        warnings=tuple(_onset_claims.warnings(found)),
    )


def detectable(scale: str) -> Mapping[str, str]:
    """For each primary claim of a scale the smallest effect that its seeds can show, in words."""
    from repetita.studies._onset_claims import detectable as smallest

    found = smallest([labels_of(run) for run in SCALES[scale]()])
    return {**found, **{name: why for name, why in UNDECIDABLE.get(scale, {}).items() if name in found}}


def deviations(scale: str) -> Sequence[Deviation]:
    """The paper's value and ours, parameter by parameter."""
    from repetita.studies._onset import SUSTAINED_PASSES
    from repetita.studies._speed_deviations import of_runs

    runs = SCALES[scale]()
    probe = next(probe for probe in runs[0].probes if isinstance(probe, ScoreProbe))
    tokens = (probe.max_sequences or 0) * runs[0].spec.corpus.length
    longest = max(run.spec.steps * run.spec.batch_size / int(run.labels["n_sequences"] or 1) for run in runs)
    return (
        Deviation(
            "onset of overfitting", "first epoch at which validation perplexity increases",
            f"the same beside the first rise that lasts {SUSTAINED_PASSES:g} passes", "rule 16",
        ),
        Deviation("validation perplexity", "each epoch", "several times a pass around the onset", "rule 16"),
        Deviation("validation set", "217,646 tokens", f"{tokens:,} tokens, masked models fewer", "time"),
        Deviation(
            "M(f) before overfitting", "at or before that epoch, which is not said",
            "of the pass before and of that pass; between passes interpolated", "both are shown",
        ),
        Deviation("followed for", "not stated", f"at most {longest:g} passes", "else censored"),
        *of_runs(runs),
    )  # fmt: skip


SCALES = {"tiny": tiny, "laptop": laptop, "overnight": overnight, "gpu": gpu, "paper": paper}

STUDY = Study(
    name="overfitting_onset",
    title="Memorization before overfitting",
    question="A small training set is read again and again until the loss on other text begins to rise. How "
    "much of the set is memorized by then, and is it more for larger models?",
    prediction="M(f) just before validation perplexity first rises grows with size: about 0.43 at 10^8 "
    "parameters, 0.49 at 10^9 and 0.57 at 10^10 in causal models, 0.65, 0.70 and 0.80 in masked ones.",
    source="Tirumala et al. 2022, Memorization Without Overfitting, Fig. 4",
    scales=SCALES,
    analyse=analyse,
    deviations=deviations,
    detectable=detectable,
    expected=EXPECTED,
)
