"""The runs of the study of causality: repetition in windows of a run, and heads left out at its ends."""

from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from typing import Literal, NamedTuple

from repetita.cadence import At, Every, LogSpaced, Several
from repetita.corpus.sequences import CorpusSpec
from repetita.corpus.treatment import RepeatedSubset, Stream
from repetita.measure.ablation import AblationProbe
from repetita.measure.induction import InductionProbe
from repetita.measure.memorization import ScoreProbe
from repetita.measure.passages import LONG, Passage
from repetita.measure.probe import Probe
from repetita.model.config import ModelConfig, count
from repetita.studies import _attention_only_runs as attention_only
from repetita.studies import _bursts
from repetita.studies import _repeated_scale as scale
from repetita.studies._damage_runs import HALF, seeds
from repetita.study.plan import PlannedRun
from repetita.train.recipe import Recipe, RunSpec

CONTROL, THROUGHOUT, BEFORE, AFTER, WITHDRAWN = "control", "throughout", "before", "after", "withdrawn"
ARMS = (CONTROL, THROUGHOUT, BEFORE, AFTER, WITHDRAWN)


class Windows(NamedTuple):
    """When is repeated, in shares of a full run. All windows have the same share f of repeated slots and the
    same passes E inside them, so that a subset is as large as its window is long."""

    before: Fraction = Fraction(1, 5)
    """End of the early window. The late one is as long, so that it has a subset of the same size."""
    half: Fraction = Fraction(1, 2)
    """Where the late window begins and repetition from the start is withdrawn: by then the control's heads
    must be there (experiment design, rule 22)."""

    @property
    def after(self) -> Fraction:
        """End of the late window, and of the runs with the early or the late one."""
        return self.half + self.before

    def of(self, arm: str) -> tuple[Fraction, Fraction]:
        """The window of an arm."""
        return {
            THROUGHOUT: (Fraction(0), Fraction(1)),
            BEFORE: (Fraction(0), self.before),
            AFTER: (self.half, self.after),
            WITHDRAWN: (Fraction(0), self.half),
        }[arm]

    def end(self, arm: str) -> Fraction:
        """Where the run of an arm ends: shorter where nothing more is asked."""
        return self.after if arm in (BEFORE, AFTER) else Fraction(1)


class Setting(NamedTuple):
    """What the runs of one size share."""

    size: str
    corpus: CorpusSpec
    model: ModelConfig
    recipe: Recipe
    steps: int
    batch_size: int
    passages: tuple[Passage, ...]
    n_tokens: int
    """Random tokens of the prefix-matching score and of ablation."""
    n_heads: int = 1
    """Highest heads that are left out together."""
    windows: Windows = Windows()
    fraction: Fraction = HALF
    states: int = 24
    """States of a run, evenly over its steps, at which heads and the test loss are looked at; besides
    a quarter as many a decade, for runs whose heads form at their beginning."""
    curve_sequences: int = 100
    ablation_sequences: int = 400

    def step(self, share: Fraction) -> int:
        """The step at a share of a full run."""
        return round(share * self.steps)


def arms(
    setting: Setting,
    *,
    passes: Sequence[int],
    n_seeds: int,
    names: Sequence[str] = ARMS,
) -> Iterator[PlannedRun]:
    """The control of each seed once, and the other arms at each number of passes; the first one is judged."""
    for seed in seeds(n_seeds):
        yield planned(setting, CONTROL, seed=seed)
        for one in passes:
            for arm in names:
                if arm != CONTROL:
                    yield planned(setting, arm, seed=seed, passes=one)


def planned(setting: Setting, arm: str, *, seed: int, passes: int | None = None) -> PlannedRun:
    """One run; the late window's begins as its control, which is trained once for both."""
    treatment: Stream | RepeatedSubset = Stream()
    steps, start, stop, lane, subset = setting.steps, None, None, 0, None
    if passes is not None:
        steps = setting.step(setting.windows.end(arm))
        start, stop = (setting.step(share) for share in setting.windows.of(arm))
        lane = int(setting.fraction * (stop - start) * setting.batch_size)
        subset = round(lane / passes)
        treatment = RepeatedSubset(
            fraction=setting.fraction, n_sequences=subset, start=start, stop=stop if stop < steps else None
        )
    spec = RunSpec(
        corpus=setting.corpus,
        model=setting.model,
        treatment=treatment,
        recipe=setting.recipe,
        steps=steps,
        batch_size=setting.batch_size,
        seed=seed,
    )
    # Where they begin the late window they are the control, so that both start from one trunk.
    shared = setting.step(setting.windows.half) if arm in (CONTROL, AFTER) else None
    return PlannedRun(
        spec=spec,
        labels={
            "arm": arm,
            "corpus": setting.corpus.source,
            "size": setting.size,
            "layers": setting.model.n_layer,
            "heads_a_layer": setting.model.n_head,
            "non_embedding": count(setting.model).non_embedding,
            "fraction": None if passes is None else float(setting.fraction),
            "passes": None if subset is None else lane / subset,
            "subset": subset,
            "start": start,
            "stop": stop,
            "full_steps": setting.steps,
            "vocab_size": setting.model.vocab_size,
        },
        probes=tuple(probes(setting, repeated=passes is not None)),
        fork_at=shared,
    )


def probes(setting: Setting, *, repeated: bool) -> Iterator[Probe]:
    """Heads and test loss over training; at the windows' ends what heads carry, and the repeated text."""
    windows = setting.windows
    ends = At(at=tuple(setting.step(share) for share in (windows.before, windows.half, windows.after)))
    # Not so many points up to the end: runs of unequal length are looked at in the same states.
    early = LogSpaced(per_decade=max(1, setting.states // 4), first=Fraction(max(1, setting.steps // 80)))
    often = Several(of=(Every(n=max(1, setting.steps // setting.states)), early, ends))
    length = setting.corpus.length
    width = max(1, length // 16)
    yield ScoreProbe(name="curve", on=("test",), max_sequences=setting.curve_sequences, cadence=often)
    yield InductionProbe(name="heads", n_tokens=setting.n_tokens, cadence=often)
    yield AblationProbe(
        max_sequences=setting.ablation_sequences,
        n_heads=setting.n_heads,
        n_draws=min(4, setting.model.n_layer * setting.model.n_head - setting.n_heads),
        drawn_from="anywhere" if setting.model.n_head <= setting.n_heads else "same_layers",
        passages=setting.passages,
        n_tokens=setting.n_tokens,
        early=length // 10,
        late=length - width,
        width=width,
        cadence=ends,
    )
    if repeated:
        yield ScoreProbe(name="subset", on=("repeated",), max_sequences=setting.curve_sequences, cadence=ends)


def bursts(size: str = _bursts.SIZES[-1]) -> Setting:
    """One head a layer on bursts of copying, as in the studies of induction heads and of copying."""
    model = _bursts.config(size, kind="attention_only")
    recipe = Recipe(learning_rate=_bursts.RATES[size], warmup_steps=100)
    family = attention_only.bursts(size)
    return Setting(
        size, family.corpus, model, recipe, _bursts.STEPS, _bursts.BATCH, family.passages[:1], family.n_tokens
    )


def two_heads() -> Setting:
    """Two heads a layer on the same text: the models of the study of attention-only ones."""
    family, two = attention_only.bursts(), attention_only.TWO
    return Setting(
        f"{_bursts.SIZES[-1]} with two heads", family.corpus, family.models[two], family.recipes[two],
        family.steps, family.batch_size, family.passages[:1], family.n_tokens,
    )  # fmt: skip


def tiny() -> Sequence[PlannedRun]:
    """Seconds of work on bursts of bytes, for tests: every arm, two seeds, one and two heads a layer."""
    family, two = attention_only.tiny_bursts(), attention_only.TWO
    model = family.models[two]
    setting = Setting(
        "two heads", family.corpus, model, family.recipes[two], family.steps, family.batch_size,
        family.passages[:1], family.n_tokens, states=4, curve_sequences=8, ablation_sequences=8,
    )  # fmt: skip
    one = setting._replace(size="one head", model=model.edit(n_head=1))
    both = arms(setting, passes=(8,), n_seeds=2, names=(CONTROL, THROUGHOUT))
    return (*arms(one, passes=(8,), n_seeds=2), *both)


BURST_PASSES = (400, 100)
"""Passes of half of the tokens, 160 and 640 sequences a whole run, are two of those of `induction_heads`.
The first is judged, chosen before any of these runs: it has 3.3 parameters without embeddings a repeated
token, where the worst subset of `double_descent` at 25k has 3.9."""


def laptop() -> Sequence[PlannedRun]:
    """Three seeds of all arms at 400 passes; what is there anyway of two heads a layer."""
    return (*arms(bursts(), passes=BURST_PASSES[:1], n_seeds=3), *_two_heads(n_seeds=3))


def overnight() -> Sequence[PlannedRun]:
    """Five seeds, 128 passes as well."""
    return (*arms(bursts(), passes=BURST_PASSES, n_seeds=5), *_two_heads(n_seeds=5))


def _two_heads(*, n_seeds: int) -> Iterable[PlannedRun]:
    return arms(
        two_heads(), passes=BURST_PASSES[:1], n_seeds=n_seeds, names=(CONTROL, THROUGHOUT)
    )  # fmt: skip


def _natural(model: ModelConfig, *, at: Literal["gpu", "paper"]) -> Setting:
    """Two layers on natural text, at a constant rate; two of all heads are left out."""
    text = scale.GPU_TEXT if at == "gpu" else scale.TEXT
    recipe = scale.gpu_recipe(model) if at == "gpu" else scale.recipe(model)
    steps, batch = (scale.GPU_STEPS, scale.GPU_BATCH_SIZE) if at == "gpu" else (scale.STEPS, scale.BATCH_SIZE)
    windows = Windows() if at == "gpu" else Windows(before=Fraction(1, 50))
    return Setting(
        "2 layers", text, model, recipe.edit(curve="constant"), steps, batch, (LONG,), 25, n_heads=2,
        windows=windows,
    )  # fmt: skip


def gpu() -> Sequence[PlannedRun]:
    """Natural text, two layers 768 wide without MLP, three seeds at 100 passes."""
    text = scale.GPU_TEXT
    model = scale.attention_only(2, vocab_size=text.tokenizer.vocab_size, context=text.length)
    return tuple(arms(_natural(model, at="gpu"), passes=(100,), n_seeds=3))


def paper() -> Sequence[PlannedRun]:
    """The paper's tokens, one seed at 2,000 passes, where its models of two layers stop copying (Fig. 7).

    Heads form within the first twentieth of such a run (2.5 to 5B tokens, Olsson et al. 2022), so that the
    early window is its first fiftieth.
    """
    return tuple(arms(_natural(scale.attention_only(2), at="paper"), passes=(2000,), n_seeds=1))


SCALES = {"tiny": tiny, "laptop": laptop, "overnight": overnight, "gpu": gpu, "paper": paper}
