"""Ablation: what a model loses without the heads that match prefixes best, and without others.

Shapes: A samples, Y layers, H heads.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveInt, model_validator

from repetita import seeds
from repetita.cadence import At, Cadence
from repetita.errors import SpecError
from repetita.journal.records import Reading
from repetita.measure.induction import BOTH_WAYS, InductionProbe, prefix_matching, random_tokens
from repetita.measure.names import bytes_of
from repetita.measure.passages import LATER, Passage, continuations
from repetita.measure.probe import SAMPLE_SEED, EvalSet, PassProbe, Sequences, full_pass
from repetita.measure.shown import alone, room, start_token
from repetita.subject import Ablating, Attending, Head, Patterns, Subject

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

NO_ABLATION = "not applicable: this subject does not show its attention, or cannot do without single heads"
NOT_ENOUGH = "not applicable: there are fewer other heads than are to be left out, where they are drawn from"
WHY = {
    "in_context": "a sequence is too short for the in-context score",
    "names_loss": "not applicable: no token that is read goes on with a name that stood before",
}
METRICS = ("test_loss", "copying_loss", "in_context")
NAMES = "names_loss"
"""Measured beside METRICS where the probe has passages."""
ARMS = ("none", "top", "random")
EXCLUDED = InductionProbe().excluded


@runtime_checkable
class Asked(Attending, Ablating, Protocol):
    """A subject that shows what its tokens read and can do without some of its heads."""


class Losses(NamedTuple):
    """What a subject scores, in nats a token; None where nothing is scored."""

    test_loss: float | None
    copying_loss: float
    in_context: float | None
    names_loss: float | None
    n_test: int
    n_copying: int
    n_names: int

    def n(self, metric: str) -> int:
        """Scored tokens behind a metric."""
        return {"copying_loss": self.n_copying, NAMES: self.n_names}.get(metric, self.n_test)


class AblationProbe(PassProbe):
    """Sets the output of some heads to zero, attention patterns as they are without ablation.

    `top`: the `n_heads` heads with the highest prefix scores (mass a query, repetition notes 8.1), found in
    this model as it is now. `random`: as many others in each of the same layers, mean over `n_draws` draws
    (fewer where there are fewer sets; the same draws in every model whose highest heads are the same).
    Where a layer has no others they are drawn `anywhere` among the heads that are not of the highest.
    `none`: the model as it is. Scored are the rows of one set, and random tokens written `n_copies` times,
    of which the copies after the first count: nothing but copying helps there; and of `passages`, each read
    once, the tokens that go on with a name that stood before. Olsson et al. 2022 ablate so.
    """

    name: str = "ablation"
    on: tuple[str, ...] = Field(default=("test",), min_length=1, max_length=1)
    max_sequences: PositiveInt | None = 64
    n_heads: PositiveInt = 1
    n_draws: PositiveInt = 4
    drawn_from: Literal["same_layers", "anywhere"] = "same_layers"
    patterns: Patterns = "frozen"
    passages: tuple[Passage, ...] = ()
    n_tokens: int = Field(default=25, ge=2)
    n_copies: int = Field(default=4, ge=2)
    n_samples: PositiveInt = 10
    early: int = Field(default=10, ge=0)
    """Token index from which `width` tokens are the early ones of the in-context score."""
    late: PositiveInt = 100
    width: PositiveInt = 20
    cadence: Cadence = At(at=())

    @model_validator(mode="after")
    def _check_windows(self) -> "AblationProbe":
        if self.early + self.width > self.late:
            raise SpecError(
                f"AblationProbe: early = {self.early} with width = {self.width} reaches late = {self.late}; "
                f"give a later index or a smaller width"
            )
        return self

    def cost_tokens(self, sets: Mapping[str, EvalSet], /) -> int:
        """See `Probe.cost_tokens`: every arm reads the rows and the copies, and the scores are looked for."""
        copied = self.n_samples * (1 + self.n_tokens * self.n_copies)
        names = len(self.passages) * room(self._named(sets)[0].sequences)
        return (2 + self.n_draws) * (super().cost_tokens(sets) + copied + names) + copied

    def measure(self, subject: Subject, /, sets: Mapping[str, EvalSet]) -> Iterator[Reading]:
        """`test_loss_<arm>`, `copying_loss_<arm>` and `in_context_<arm>` for none, top and random.

        The in-context score is the loss at late indices minus that at early ones. Where there are passages
        `names_loss_<arm>` follows, the mean over those tokens of all of them. n counts scored tokens;
        `detail` says which `heads` are left out, for `random` by draw beside the values `by_draw`. Items of
        `test_loss_none` are the prefix scores of all heads, `prefix_query` (Y, H). Without a value where the
        subject cannot be asked, or where there are too few other heads to draw.
        """
        (over,) = self.chosen(sets)
        metrics = (*METRICS, NAMES) if self.passages else METRICS
        if subject.mask_id is not None or not isinstance(subject, Asked):
            why = NO_ABLATION if subject.mask_id is None else BOTH_WAYS
            for metric in metrics:
                yield from (Reading(f"{metric}_{arm}", over.name, None, 0, {"why": why}) for arm in ARMS)
            return
        drawn_AL = random_tokens(
            over, n_tokens=self.n_tokens, n_samples=self.n_samples, excluded=float(EXCLUDED)
        )
        score_YH = prefix_matching(
            subject, drawn_AL, n_copies=self.n_copies, start=start_token(over.sequences)
        ).query_YH
        top = highest(score_YH, n=self.n_heads)
        heads: dict[str, list[list[Head]]] = {
            "none": [[]],
            "top": [top],
            "random": others(
                score_YH.shape, top=top, n_draws=self.n_draws, anywhere=self.drawn_from == "anywhere"
            ),
        }
        found = {
            arm: [self._losses(self._without(subject, out), over, drawn_AL) for out in draws]
            for arm, draws in heads.items()
        }
        yield from _readings(over.name, found, heads, score_YH, metrics=metrics)

    def _without(self, subject: "Asked", heads: Sequence[Head]) -> Subject:
        return subject.without(heads, patterns=self.patterns) if heads else subject

    def _losses(self, subject: Subject, over: EvalSet, drawn_AL: Ints) -> Losses:
        """Test loss, in-context score, loss on later copies and on names."""
        taken = full_pass(subject, over=over)
        windows = [slice(at, at + self.width) for at in (self.early, self.late)]
        counts = [int(taken.index_n[window].sum()) for window in windows]
        in_context = None
        if all(counts) and self.late + self.width <= len(taken.index_n):
            early, late = (
                float(taken.index_loss[at].sum()) / n for at, n in zip(windows, counts, strict=True)
            )
            in_context = late - early
        rows = alone(over.sequences, np.tile(drawn_AL, (1, self.n_copies)))
        copied = subject.score(rows).loss[:, self.n_tokens :].astype(np.float64)
        names = [loss for one in self.passages for loss in _of_names(subject, one, over.sequences)]
        return Losses(
            taken.loss, float(copied.mean()), in_context, float(np.mean(names)) if names else None,
            taken.tokens, int(copied.size), len(names),
        )  # fmt: skip


def _of_names(subject: Subject, passage: Passage, sequences: Sequences) -> list[float]:
    """Losses of the tokens that go on with a name that stood before, of as much as fits a sequence."""
    whole = sequences.encode(passage.text)
    places = continuations(passage, token_bytes=bytes_of(whole, sequences=sequences))
    ids = whole[: room(sequences)]
    later = [] if places is None else [int(at) for kind in LATER for at in places[kind] if at < len(ids)]
    return (
        subject.score(alone(sequences, ids[None])).loss[0, later].astype(np.float64).tolist() if later else []
    )


def highest(score_YH: Floats, /, *, n: int) -> list[Head]:
    """The n heads with the highest scores, best first, ties to the first; all where there are fewer."""
    order = np.argsort(-score_YH, axis=None, kind="stable")[:n]
    return [Head(int(at) // score_YH.shape[1], int(at) % score_YH.shape[1]) for at in order]


def others(
    shape: tuple[int, ...], /, *, top: Sequence[Head], n_draws: int, anywhere: bool = False
) -> list[list[Head]]:
    """Distinct sets of heads outside `top`, each with as many in every layer as `top` has; keyed.

    `anywhere`: as many in all, whatever their layers. Empty where there are too few others.
    """
    if anywhere:
        every = [Head(layer, h) for layer in range(shape[0]) for h in range(shape[1])]
        free_of: list[tuple[str, list[Head], int]] = [
            ("anywhere", [head for head in every if head not in top], len(top))
        ]
    else:
        free_of = [
            (str(layer), [Head(layer, h) for h in range(shape[1]) if Head(layer, h) not in top], n)
            for layer, n in sorted(Counter(head.layer for head in top).items())
        ]
    if any(len(free) < n for _, free, n in free_of):
        return []
    found: dict[tuple[Head, ...], None] = {}
    for draw in range(n_draws * 8):
        chosen: list[Head] = []
        for name, free, n in free_of:
            order = seeds.Permutation(len(free), seeds.key(SAMPLE_SEED, f"ablation/{name}"))
            places = order(np.arange(n, dtype=np.int64), turn=draw)
            chosen += [free[int(place)] for place in places]
        found.setdefault(tuple(sorted(chosen)))
        if len(found) == n_draws:
            break
    return [list(heads) for heads in found]


def _readings(
    on: str,
    found: Mapping[str, Sequence[Losses]],
    heads: Mapping[str, Sequence[Sequence[Head]]],
    score_YH: Floats,
    *,
    metrics: Sequence[str],
) -> Iterator[Reading]:
    for metric in metrics:
        for arm in ARMS:
            values = [getattr(one, metric) for one in found[arm]]
            name, known = f"{metric}_{arm}", [value for value in values if value is not None]
            if not known:
                why = NOT_ENOUGH if not values else WHY[metric]
                yield Reading(name, on, None, 0, {"why": why})
                continue
            left_out = [[list(head) for head in one] for one in heads[arm]]
            detail: dict[str, Any] = {"heads": left_out if arm == "random" else left_out[0]}
            if arm == "random":
                detail["by_draw"] = known
            items = {"prefix_query": score_YH} if name == "test_loss_none" else None
            yield Reading(name, on, float(np.mean(known)), found[arm][0].n(metric), detail, items)
