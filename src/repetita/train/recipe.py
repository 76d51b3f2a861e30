"""A run as a value: corpus, model, treatment, optimizer recipe and seed (torch-free)."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from repetita.corpus.document_ids import SEMANTICS as IDS
from repetita.corpus.document_ids import DocumentIds, RunIds
from repetita.corpus.documents import public_source
from repetita.corpus.places import placeless
from repetita.corpus.pretrained_tokenizer import public_tokenizer
from repetita.corpus.schedule import Schedule
from repetita.corpus.sequences import Corpus, CorpusSpec
from repetita.corpus.treatment import Treatment
from repetita.errors import SpecError
from repetita.journal import folder
from repetita.model.config import AnyModel, count
from repetita.model.pretrained_spec import PretrainedModel
from repetita.spec import Spec, fingerprint, introduced, plain

SEMANTICS = {
    "seeds": 1,
    "schedule": 1,
    "sequences": 1,
    "transformer": 2,
    "loss": 2,
    "optimizer": 1,
    "loop": 1,
}
"""A number per module that is raised when its golden values move; part of every run's identity."""


MASKING = 1
"""The same for the masks of a masked model, which no causal run depends on."""

PRETRAINED = 1
"""The same for how a model that somebody else trained is taken over, instead of our own transformer."""

START = 1
"""The same for how a run takes over what another one learned."""


class Recipe(Spec):
    """AdamW and its learning-rate curve, with the memorization paper's settings as defaults.

    Linear warm-up from 0 over `warmup_steps`, then constant, or cosine or linear down to
    `final_share` of the peak at step `horizon` (default: the end of the run).
    """

    learning_rate: PositiveFloat
    warmup_steps: int = Field(default=100, ge=0)
    curve: Literal["constant", "cosine", "linear"] = "constant"
    horizon: PositiveInt | None = None
    final_share: float = Field(default=0.1, ge=0, le=1)
    beta1: float = Field(default=0.9, ge=0, lt=1)
    beta2: float = Field(default=0.98, ge=0, lt=1)
    eps: PositiveFloat = 1e-8
    weight_decay: float = Field(default=0.0, ge=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    clip: PositiveFloat | None = 1.0

    def lr(self, step: int) -> float:
        """Learning rate of update `step` (the first update is step 0 and its rate is above zero)."""
        if step < self.warmup_steps:
            return self.learning_rate * (step + 1) / self.warmup_steps
        if self.curve == "constant":
            return self.learning_rate
        assert self.horizon is not None
        span = max(1, self.horizon - self.warmup_steps)
        done = min(1.0, (step - self.warmup_steps) / span)
        shape = 0.5 * (1 + math.cos(math.pi * done)) if self.curve == "cosine" else 1 - done
        return self.learning_rate * (self.final_share + (1 - self.final_share) * shape)


class Start(Spec):
    """Another run whose weights a run begins with: those after `step` updates of it (default: its end).

    Nothing else goes over: order, treatment, learning-rate curve and seed are the run's own from its step 0
    on. With `optimizer: fresh` Adam's moments begin at zero and its count of updates at none, as in any run;
    with `carried` both go on from where the other run left them, under the new run's own rates, betas, eps,
    decay and clip.

    `run` is settled to the run of its first `step` steps, so that equal starts are equal values. Raises
    SpecError for a step after its end, and where its treatment cannot be cut at that step.
    """

    run: "RunSpec"
    step: PositiveInt | None = None
    optimizer: Literal["fresh", "carried"] = "fresh"

    @model_validator(mode="after")
    def _settle(self) -> Self:
        step = self.step or self.run.steps
        if step > self.run.steps:
            raise SpecError(
                f"Start: step = {step} is after the end of the run that is started from ({self.run.steps} "
                f"steps); give a step up to that, or leave it out for the end"
            )
        if step < self.run.steps:
            object.__setattr__(self, "run", self.run.until(step))
        object.__setattr__(self, "step", step)
        return self


class RunSpec(Spec):
    """Everything that changes the result of one run; its fingerprint names the run's folder.

    `steps` updates of `batch_size` sequences each. Probes, cadence, device, threads, micro-batch and
    engine are not here: they do not change the result.
    """

    corpus: CorpusSpec
    model: AnyModel
    treatment: Treatment
    recipe: Recipe
    steps: PositiveInt
    batch_size: PositiveInt
    seed: int = 0
    document_ids: DocumentIds | None = introduced(None)
    """What stands before every sequence that is trained on; the steps read the same text as without it."""
    start: Start | None = introduced(None)
    """The run whose weights this one begins with, of the same vocabulary and shape; None begins afresh."""
    trainer: str | None = introduced(None, min_length=1, max_length=200)
    """Who trains it where that is not this package, by name, version and whatever of its settings `recipe`
    does not say (`study.elsewhere`); `model` is then the shape that comes nearest."""

    @model_validator(mode="after")
    def _settle(self) -> Self:
        """Fill in what the run's size decides, so that runs that are equal have equal specs."""
        total = self.steps * self.batch_size
        treatment = self.treatment.settled(total=total, batch_size=self.batch_size)
        horizon = None if self.recipe.curve == "constant" else self.recipe.horizon or self.steps
        if horizon is not None and horizon < self.recipe.warmup_steps:
            raise SpecError(
                f"Recipe: warmup_steps = {self.recipe.warmup_steps} is longer than the learning-rate curve "
                f"({horizon} steps); shorten the warm-up or lengthen the run"
            )
        object.__setattr__(self, "treatment", treatment)
        object.__setattr__(self, "recipe", self.recipe.edit(horizon=horizon))
        if isinstance(self.model, PretrainedModel):
            _check_pretrained(self, self.model)
        if self.start is not None:
            _check_shape(self, self.start.run)
            if self.trainer is not None:
                raise SpecError(
                    f"RunSpec: start has no effect on a run that '{self.trainer}' trains; leave it out and "
                    f"give the trainer the weights to begin with"
                )
        return self

    def until(self, step: int) -> Self:
        """The run of the first `step` steps: the trunk that this run shares with its forks."""
        return self.edit(steps=step, treatment=self.treatment.until(step))


def ancestry(spec: RunSpec, /) -> Iterator[RunSpec]:
    """The run, the run that it starts from, the run that that one starts from, and so on."""
    yield spec
    while spec.start is not None:
        spec = spec.start.run
        yield spec


def with_corpora(spec: RunSpec, /, *, shown: Callable[[CorpusSpec], dict[str, Any]]) -> dict[str, Any]:
    """The spec as JSON types, its corpus and those of its ancestry as `shown` gives them.

    Where somebody else's model lies is left out where that of the text is.
    """
    values: dict[str, Any] = plain(spec) | {"corpus": shown(spec.corpus)}
    if isinstance(spec.model, PretrainedModel):
        values["model"] = plain(spec.model.public)
        if "source" not in values["corpus"]:
            values["model"].pop("source", None)
    if spec.start is not None:
        values["start"] |= {"run": with_corpora(spec.start.run, shown=shown)}
    return values


def run_identity(spec: RunSpec, *, corpus_fingerprint: str, parent: str | None = None) -> dict[str, Any]:
    """What the fingerprint of a run is taken of: spec, content of the corpus, semantics of the code.

    Where the text and the file of a tokenizer lie (`source` of both) is left out: their content is in
    `corpus_fingerprint`, and a corpus that was moved is the same corpus. A run that starts from another has
    the fingerprint of that one in it, `parent`, which knows of its corpus.
    """
    if (parent is None) != (spec.start is None):
        raise ValueError("a run has the fingerprint of a parent exactly if it starts from one")
    semantics = dict(SEMANTICS)
    if spec.model.objective == "masked":
        semantics["masking"] = MASKING
    if isinstance(spec.model, PretrainedModel):
        del semantics["transformer"]
        semantics["pretrained"] = PRETRAINED
    if spec.document_ids is not None:
        semantics["document_ids"] = IDS
    identity = {
        "spec": with_corpora(spec, shown=placeless),
        "corpus": corpus_fingerprint,
        "semantics": semantics,
    }
    if parent is not None:
        semantics["start"] = START
        identity["parent"] = parent
    return identity


def run_fingerprint(spec: RunSpec, *, corpus_fingerprint: str, parent: str | None = None) -> str:
    """The identity of a run: 64 hex digits."""
    return fingerprint(run_identity(spec, corpus_fingerprint=corpus_fingerprint, parent=parent))


def fingerprint_among(spec: RunSpec, *, corpora: Callable[[CorpusSpec], str]) -> str:
    """`run_fingerprint` where the fingerprint of any corpus can be asked for, those of its parents too."""
    parent = None if spec.start is None else fingerprint_among(spec.start.run, corpora=corpora)
    return run_fingerprint(spec, corpus_fingerprint=corpora(spec.corpus), parent=parent)


def run_slug(spec: RunSpec) -> str:
    """A run's name for people: non-embedding parameters, treatment and seed, as in `25k-stream-s0`.

    One that starts from another names the treatment of that one first: `25k-passes-then-stream-s0`.
    """
    n_params = count(spec.model).non_embedding
    scale, unit = (1e6, "m") if n_params >= 999_500 else (1e3, "k") if n_params >= 1000 else (1, "")
    size = f"{n_params / scale:.3g}{unit}"
    size += "-pretrained" if isinstance(spec.model, PretrainedModel) else ""
    ids = "" if spec.document_ids is None else f"-{spec.document_ids.kind}"
    ids += "" if spec.trainer is None else "-elsewhere"
    kinds = "-then-".join(reversed([run.treatment.kind for run in ancestry(spec)]))
    return f"{size}-{kinds}{ids}-s{spec.seed}"


def run_path(root: Path, *, spec: RunSpec, corpus_fingerprint: str, parent: str | None = None) -> Path:
    """The folder in which this run is, or will be."""
    name = run_fingerprint(spec, corpus_fingerprint=corpus_fingerprint, parent=parent)
    return folder.run_path(root, name, run_slug(spec))


def same_start(one: RunSpec, *, other: RunSpec, step: int) -> bool:
    """Whether two runs are sure to be equal, bit for bit, in their first `step` steps."""
    if step > min(one.steps, other.steps):
        return False

    def start(spec: RunSpec) -> dict[str, Any]:
        return with_corpora(spec, shown=placeless) | {
            "steps": step,
            "treatment": plain(spec.treatment.until(step)),
        }

    return start(one) == start(other)


def open_schedule(spec: RunSpec, *, corpus: Corpus) -> Schedule:
    """What every step of the run reads; CorpusError where the corpus is too small for it."""
    sets = corpus.sets
    return Schedule(
        treatment=spec.treatment,
        pools=corpus.pools(),
        batch_size=spec.batch_size,
        steps=spec.steps,
        seed=spec.seed,
        length=spec.corpus.length,
        lengths={name: sets[name].lengths() for name in ("units", "special") if name in sets},
        documents=sets["units"].document() if "units" in sets else None,
    )


def open_ids(spec: RunSpec, *, corpus: Corpus, schedule: Schedule) -> RunIds | None:
    """The prefixes of a run with document IDs, None for one without.

    Raises SpecError where the model has too small a vocabulary for the IDs or too short a context for the
    prefix.
    """
    if spec.document_ids is None:
        return None
    first = corpus.tokenizer.vocab_size
    room = max(0, spec.model.vocab_size - first)
    words = corpus.tokenizer.encode(spec.document_ids.text).astype(np.int64)
    ids = RunIds(spec.document_ids, schedule=schedule, sets=corpus.sets, words=words, first=first, room=room)
    if ids.needed > room:
        raise SpecError(
            f"ModelConfig: vocab_size = {spec.model.vocab_size} has room for {room} document IDs beside the "
            f"tokenizer's {first}, and this run needs {ids.needed}; set it to {first + ids.needed} or more"
        )
    if spec.corpus.length + ids.length > spec.model.context:
        raise SpecError(
            f"ModelConfig: context = {spec.model.context} does not hold sequences of {spec.corpus.length} "
            f"tokens and the {ids.length} of their document IDs; raise it to "
            f"{spec.corpus.length + ids.length}"
        )
    return ids


def other_tokenizer(spec: RunSpec) -> str:
    """That a corpus does not have the ids of somebody else's model, and what gives it them."""
    source = getattr(spec.model, "source", None) or "SOURCE"
    return (
        f"RunSpec: corpus.tokenizer is not that of the model {public_tokenizer(source)}, so that its ids "
        f"mean other text; set it to hf_tokenizer_spec('{source}'), as does: repetita corpus build "
        f"{public_source(spec.corpus.source)} --tokenizer {source} --length {spec.corpus.length}"
    )


def _check_pretrained(spec: RunSpec, model: PretrainedModel) -> None:
    """Raises SpecError where somebody else's model cannot read the corpus."""
    given = spec.corpus.tokenizer
    if given.kind != "hf" or given.vocab_size != model.vocab_size:
        raise SpecError(other_tokenizer(spec))
    if spec.corpus.length > model.context:
        raise SpecError(
            f"RunSpec: corpus.length = {spec.corpus.length} is longer than the context of the model "
            f"{model.name} ({model.context}); shorten it to that"
        )
    if spec.document_ids is not None:
        raise SpecError(
            f"RunSpec: document_ids need a model with ids for them, and {model.name} has those of its "
            f"tokenizer; leave them out"
        )


def _check_shape(spec: RunSpec, parent: RunSpec) -> None:
    """Raises SpecError where weights of `parent` are not weights of this run, or its ids mean other text."""
    kinds = type(spec.model), type(parent.model)
    if kinds[0] is not kinds[1]:
        raise SpecError(
            f"RunSpec: the run starts from a {kinds[1].__name__} and its model is a {kinds[0].__name__}; "
            f"give it the model of that run"
        )
    fields = [name for name in kinds[0].model_fields if name != "source"]
    for of, ours, theirs, names in (
        ("model", spec.model, parent.model, fields),
        ("corpus.tokenizer", spec.corpus.tokenizer, parent.corpus.tokenizer, ["kind", "vocab_size"]),
    ):
        for name in names:
            mine, given = getattr(ours, name), getattr(theirs, name)
            if mine != given:
                raise SpecError(
                    f"RunSpec: {of}.{name} = {mine} is not what the run it starts from has ({given}), and "
                    f"weights keep their vocabulary and shape; set it to {given}"
                )
