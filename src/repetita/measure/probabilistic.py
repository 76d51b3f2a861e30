"""Probabilistic extraction: how likely a text is drawn behind its prompt, in one query and in many.

Hayes et al. 2024, "Measuring memorization in language models via probabilistic extraction".
Shapes: N suffixes asked for, T tokens of a suffix.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field, PositiveInt, model_validator

from repetita.errors import SpecError
from repetita.journal.records import Reading
from repetita.measure.extraction import MASKED
from repetita.measure.loss import NOTHING_SCORED
from repetita.measure.probe import EvalSet
from repetita.measure.shown import start_of, suffix_rows
from repetita.measure.suffixes import SuffixProbe
from repetita.subject import Sampling, Subject, Tokens, Weighing

Doubles = NDArray[np.float64]
WEIGHS_NOTHING = {"why": "not applicable: this subject does not say what its tokens are drawn from"}


def chance_within(log_p: ArrayLike, /, *, queries: ArrayLike) -> Doubles:
    """Probability that at least one of n independent queries returns what one returns with probability p_z.

    1 - (1 - p_z) ** n (Hayes et al. 2024), from log p_z, also where p_z is far below what 1 - p_z
    can tell from 1.
    """
    return np.asarray(-np.expm1(np.asarray(queries, dtype=np.float64) * _log_missed(log_p)))


def queries_needed(log_p: ArrayLike, /, *, chance: float) -> Doubles:
    """The fewest queries n that make a text (n, `chance`)-discoverable; inf for one that is never drawn.

    The least n with 1 - (1 - p_z) ** n >= `chance`: whole numbers, as floats since there is no limit to them.
    Raises SpecError for a chance that is not within (0, 1).
    """
    if not 0 < chance < 1:
        raise SpecError(f"queries_needed: a chance of {chance} is not within (0, 1); give 0.5 for example")
    log_p = np.asarray(log_p, dtype=np.float64)
    with np.errstate(divide="ignore", over="ignore"):
        n = np.ceil(np.log1p(-chance) / _log_missed(log_p))
    n = np.maximum(n, 1)
    drawn = np.exp(log_p) > 0
    # The quotient was rounded: whether the neighbour below will do, or it takes the one above, is tried.
    tried = np.where(drawn, n, 1)
    fewer = np.maximum(tried - 1, 1)
    tried = np.where(chance_within(log_p, queries=fewer) >= chance, fewer, tried)
    tried = np.where(chance_within(log_p, queries=tried) < chance, tried + 1, tried)
    return np.where(drawn, tried, np.inf)


def _log_missed(log_p: ArrayLike, /) -> Doubles:
    """log(1 - p_z), by whichever form keeps its digits."""
    log_p = np.asarray(log_p, dtype=np.float64)
    with np.errstate(divide="ignore"):
        return np.asarray(np.where(log_p < -np.log(2), np.log1p(-np.exp(log_p)), np.log(-np.expm1(log_p))))


def log_chances(
    subject: Weighing,
    text_NM: Tokens,
    /,
    *,
    prompt: int,
    start: int | None,
    sampling: Sampling,
) -> Doubles:
    """log p of the first 1 .. T tokens behind each prompt when they are drawn one by one, nats, shape (N, T).

    Each token is weighed behind the true ones before it, in one teacher-forced pass: a draw that returns the
    text has read the same. -inf from the first token on that a cut of `sampling` leaves out.
    """
    rows = suffix_rows(text_NM, prompt=prompt, start=start)
    found = subject.log_probs(rows, sampling=sampling)[:, prompt - text_NM.shape[1] :]
    return np.asarray(found.astype(np.float64).cumsum(axis=1))


class ProbabilisticProbe(SuffixProbe):
    """How likely each suffix is drawn behind its prompt; see `SuffixProbe` for what is asked.

    Tokens are drawn from the model's distribution at `temperature`, cut to the `top_k` likeliest and then to
    the mass `top_p`, in that order, as transformers' `generate` does. A suffix is (n, p)-discoverable where n
    independent queries return it at least once with probability p or more (Hayes et al. 2024).
    """

    name: str = "probabilistic"
    temperature: float = Field(default=1.0, gt=0)
    top_k: PositiveInt | None = None
    top_p: float | None = Field(default=None, gt=0, le=1)
    queries: tuple[PositiveInt, ...] = Field(default=(1, 10, 100, 1000), min_length=1)
    chances: tuple[float, ...] = Field(default=(0.1, 0.5, 0.9), min_length=1)

    @model_validator(mode="after")
    def _check_chances(self) -> Self:
        for name in ("queries", "chances"):
            values = getattr(self, name)
            if len(set(values)) != len(values):
                raise SpecError(f"ProbabilisticProbe: {name} = {values} name one twice; name each once")
        wrong = [one for one in self.chances if not 0 < one < 1]
        if wrong:
            raise SpecError(f"ProbabilisticProbe: a chance of {wrong[0]} is not within (0, 1); give 0.5")
        return self

    @property
    def sampling(self) -> Sampling:
        """What tokens are drawn from."""
        return Sampling(self.temperature, self.top_k, self.top_p)

    def measure(self, subject: Subject, /, sets: Mapping[str, EvalSet]) -> Iterator[Reading]:
        """For each set, by prompt k and length of the suffix s; n counts suffixes.

        `p_z_k_s`: mean probability that one query returns the suffix (`detail`: the largest, and how many
        are `left_out`, which no query returns). `discoverable_k_s_n_p`: share of the suffixes that are
        (n, p)-discoverable, for each of `queries` and `chances`. Value None where nothing is asked for, and
        of a subject that is masked or weighs nothing.

        Items by suffix, shape (N,): `sequence`, `start` (as of `ContinuationProbe`), `log_p_k_s` in nats.
        """
        for over in self._named(sets) if subject.mask_id is not None else self.chosen(sets):
            if subject.mask_id is not None or not isinstance(subject, Weighing):
                why = WEIGHS_NOTHING if subject.mask_id is None else MASKED
                yield from (Reading(metric, over.name, None, 0, dict(why)) for metric in self._metrics())
                continue
            items = self._items(subject, over)
            drawn = {"start_id": start_of(over.sequences), **self.sampling._asdict()}
            for metric in self._metrics():
                kept = items if metric == self._metrics()[0] else None
                if not len(items["start"]):
                    yield Reading(metric, over.name, None, 0, dict(NOTHING_SCORED), kept)
                    continue
                value, detail = self._value(metric, items)
                yield Reading(metric, over.name, value, len(items["start"]), drawn | detail, kept)

    def _metrics(self) -> list[str]:
        asked = [f"{n}_{p}" for n in self.queries for p in self.chances]
        return [
            *(f"p_z_{one}" for one in self.lengths),
            *(f"discoverable_{one}_{other}" for one in self.lengths for other in asked),
        ]

    def _items(self, subject: Weighing, over: EvalSet) -> dict[str, NDArray[Any]]:
        none = np.zeros(0, np.int64)
        parts: dict[str, list[NDArray[Any]]] = {"sequence": [none], "start": [none]}
        parts |= {f"log_p_{one}": [np.zeros(0)] for one in self.lengths}
        start = start_of(over.sequences)
        for asked in self.asked(over):
            parts["sequence"].append(asked.number)
            parts["start"].append(asked.start)
            for k in self.prompts:
                text = asked.text[:, self.prompts[-1] - k :]
                log_p = log_chances(subject, text, prompt=k, start=start, sampling=self.sampling)
                for s in self.suffixes:
                    parts[f"log_p_{k}_{s}"].append(log_p[:, s - 1])
        return {name: np.concatenate(of) for name, of in parts.items()}

    def _value(self, metric: str, items: Mapping[str, NDArray[Any]]) -> tuple[float, dict[str, Any]]:
        if metric.startswith("p_z_"):
            log_p = items["log_p_" + metric.removeprefix("p_z_")]
            p = np.exp(log_p)
            return float(p.mean()), {"largest": float(p.max()), "left_out": int(np.isneginf(log_p).sum())}
        k, s, n, chance = metric.removeprefix("discoverable_").split("_")
        within = chance_within(items[f"log_p_{k}_{s}"], queries=int(n))
        return float((within >= float(chance)).mean()), {}
