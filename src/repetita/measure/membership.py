"""Membership scores of texts: proxies for whether a model was trained on them, higher for likelier members.

They are proxies because texts that a model has seen also differ from others in kind, date and difficulty:
against randomly chosen texts of the same source they are near chance (Duan et al. 2024, "Do membership
inference attacks work on large language models?"), and scores that read no model at all often do better (Das
et al. 2024, "Blind baselines beat membership inference attacks"). `fit.separation` puts such scores beside.
Shapes: X texts, T scored tokens of all of them.
"""

import zlib
from collections.abc import Iterator, Mapping
from fractions import Fraction
from itertools import pairwise
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from repetita.corpus.windows import Windows
from repetita.errors import SpecError
from repetita.journal.records import Reading
from repetita.measure.loss import NOTHING_SCORED
from repetita.measure.probe import EvalSet, PassProbe, questions, scored_batches
from repetita.spec import ExactFraction
from repetita.subject import Describing, Subject

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

PROXY = (
    "a proxy: texts seen and not seen differ in kind, date and difficulty, too; compare with texts of the "
    "same source and with the blind scores"
)
NO_MOMENTS = {"why": "not applicable: this subject does not say what it expects of its own tokens"}
NO_NUMBER = {"why": "some text has no score: none of its tokens is scored, or its loss is 0"}


class TokenScores(NamedTuple):
    """What a model makes of the scored tokens of texts, those of one text next to each other."""

    text: Ints
    """Which of the X texts each token is of, rising, shape (T,)."""
    log_prob: Floats
    """Nats, shape (T,)."""
    surprise: Floats | None
    """(log p - its mean) / its standard deviation, both over the model's own next token (Zhang et al. 2024,
    equation 3); 0 where the model is sure of one token. None from a subject that does not describe."""


class MembershipProbe(PassProbe):
    """Scores each text of each set of `on`. Where one of them holds texts known not to be members,
    `fit.separation.by_score` says of the items of two sets how well each score tells them apart.

    Sets are texts that were read by a rule (`corpus.windows`); a text of several windows is scored as one.
    `loss`: mean log probability of its tokens (Yeom et al. 2018). `zlib`: bytes that zlib makes of it over
    its loss; `lowercase`: loss of the text in lower case over its loss (both Carlini et al. 2021, section
    5.2). `min_k_20`: mean log probability of its least likely 20% of tokens, one at least (Shi et al. 2024,
    equation 1), for each of `shares`; `min_k_plus_20`: the same of tokens whose log probability is
    standardised by what the model expects there (Zhang et al. 2024, equations 3 and 4). For the ratio to a
    second model see `reference_readings`.
    Of a masked model the log probability of a token is that behind a mask, over disjoint masks.
    """

    semantics: ClassVar[int] = 1

    name: str = "membership"
    shares: tuple[ExactFraction, ...] = Field(default=(Fraction(1, 5),), min_length=1)

    @model_validator(mode="after")
    def _check_fields(self) -> "MembershipProbe":
        if self.max_sequences is not None:
            raise SpecError(
                "MembershipProbe: max_sequences would cut texts apart; leave it out and give fewer texts"
            )
        if not all(0 < share <= 1 for share in self.shares):
            raise SpecError(f"MembershipProbe: shares = {_listed(self.shares)} are not all within (0, 1]")
        if any(one >= other for one, other in pairwise(self.shares)):
            raise SpecError(f"MembershipProbe: shares = {_listed(self.shares)} do not rise; name each once")
        return self

    def cost_tokens(self, sets: Mapping[str, EvalSet], /) -> int:
        """See `Probe.cost_tokens`: each text as it is and in lower case."""
        return 2 * super().cost_tokens(sets)

    def measure(self, subject: Subject, /, sets: Mapping[str, EvalSet]) -> Iterator[Reading]:
        """For each set each score's mean over texts; n counts texts.

        Items of `loss`, by text: `text` (place in `Windows.texts`), `n_scored`, `nats` (summed), `bytes` and
        `zlib_bytes` of the whole text, and each score by its name, NaN where a text has none.
        """
        for over in self._named(sets):
            items = self._items(subject, over)
            names = [name for name in self._scores() if name in items]
            for name in names:
                kept = items if name == names[0] else None
                yield _mean_reading(name, on=over.name, scores=items[name], items=kept)
            for name in self._scores():
                if name not in items:
                    yield Reading(name, over.name, None, 0, dict(NO_MOMENTS))

    def _scores(self) -> tuple[str, ...]:
        return (
            "loss",
            "zlib",
            "lowercase",
            *(f"min_k_{float(100 * share):g}" for share in self.shares),
            *(f"min_k_plus_{float(100 * share):g}" for share in self.shares),
        )

    def _items(self, subject: Subject, over: EvalSet) -> dict[str, NDArray[Any]]:
        windows = over.sequences
        if not isinstance(windows, Windows):
            raise SpecError(
                f"probe '{self.name}': the set '{over.name}' has sequences and no texts; read its texts with "
                f"corpus.windows"
            )
        texts = np.unique(windows.document(over.indices))
        tokens = token_scores(subject, over=over)
        content = [windows.texts[text].text.encode() for text in texts.tolist()]
        n_scored = np.bincount(tokens.text, minlength=len(texts))
        nats = -np.bincount(tokens.text, weights=tokens.log_prob, minlength=len(texts))
        packed = np.array([len(zlib.compress(one)) for one in content], dtype=np.int64)
        lowered = _mean_loss(subject, EvalSet.whole(over.name, sequences=windows.lowered(texts)))
        items: dict[str, NDArray[Any]] = {
            "text": texts,
            "n_scored": n_scored,
            "nats": nats,
            "bytes": np.array([len(one) for one in content], dtype=np.int64),
            "zlib_bytes": packed,
        }
        with np.errstate(divide="ignore", invalid="ignore"):
            loss = nats / n_scored
            ratios = {"zlib": packed / loss, "lowercase": lowered / loss}
        items |= {"loss": -loss} | {
            name: np.where(np.isfinite(ratio), ratio, np.nan) for name, ratio in ratios.items()
        }
        for share in self.shares:
            percent = f"{float(100 * share):g}"
            items[f"min_k_{percent}"] = lowest(
                tokens.log_prob, text=tokens.text, n_texts=len(texts), share=share
            )
            if tokens.surprise is not None:
                items[f"min_k_plus_{percent}"] = lowest(
                    tokens.surprise, text=tokens.text, n_texts=len(texts), share=share
                )
        return items


def token_scores(subject: Subject, /, *, over: EvalSet) -> TokenScores:
    """One pass over the rows of a set of texts, a masked subject behind disjoint masks."""
    windows = over.sequences
    assert isinstance(windows, Windows)
    texts, describing = np.unique(windows.document(over.indices)), isinstance(subject, Describing)
    parts: list[tuple[Ints, Floats, Floats]] = []
    for part, rows, asked in questions(subject, over=over):
        log_BL, surprise_BL = np.zeros(rows.scored.shape), np.zeros(rows.scored.shape)
        for question in asked:
            here = question.scored
            if isinstance(subject, Describing):
                found = subject.moments(question)
                log_BL[here] = found.log_prob[here]
                above = found.log_prob[here].astype(np.float64) - found.mean[here]
                sd = found.sd[here].astype(np.float64)
                surprise_BL[here] = np.divide(above, sd, out=np.zeros_like(above), where=sd > 0)
            else:
                log_BL[here] = -subject.score(question).loss[here]
        text = np.searchsorted(texts, windows.document(over.indices[part]))
        of_token = np.broadcast_to(text[:, None], rows.scored.shape)[rows.scored]
        parts.append((of_token, log_BL[rows.scored], surprise_BL[rows.scored]))
    text, log_prob, surprise = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.argsort(text, kind="stable")
    return TokenScores(text[order], log_prob[order], surprise[order] if describing else None)


def lowest(values: Floats, /, *, text: Ints, n_texts: int, share: Fraction) -> Floats:
    """Mean of the lowest `share` of the values of each text, rounded down but one at least, shape (X,).

    `values` and `text` (T,) as in `TokenScores`; NaN for a text without a value.
    """
    order = np.lexsort((values, text))
    n = np.bincount(text, minlength=n_texts)
    kept = np.maximum(n * share.numerator // share.denominator, 1)
    rank = np.arange(len(text)) - np.repeat(np.cumsum(n) - n, n)
    sums = np.bincount(
        text[order], weights=np.where(rank < np.repeat(kept, n), values[order], 0), minlength=n_texts
    )
    return np.where(n > 0, sums / kept, np.nan)


def reference_readings(
    own: Mapping[str, NDArray[Any]], /, *, reference: Mapping[str, NDArray[Any]], on: str
) -> Iterator[Reading]:
    """`reference`: nats that a second model needs for a text over those that the model needs for it.

    Both are items of `loss` on the same texts, each model having read them in its own tokens: so nats of the
    whole text are compared, not of a token (Carlini et al. 2021, section 5.2: a smaller model as the second).
    Only where both rules score the first token are these of all the text. n counts texts; item `reference`,
    by text, for `fit.separation.by_score`. Raises SpecError where the texts are not the same.
    """
    for name in ("text", "bytes", "zlib_bytes"):
        if not np.array_equal(own[name], reference[name]):
            raise SpecError(
                f"the two models read different texts as '{on}' (their {name} differ); measure both on the "
                f"same ones"
            )
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = reference["nats"] / own["nats"]
    ratio = np.where(np.isfinite(ratio), ratio, np.nan)
    yield _mean_reading("reference", on=on, scores=ratio, items={"text": own["text"], "reference": ratio})


def _mean_reading(name: str, *, on: str, scores: Floats, items: Mapping[str, NDArray[Any]] | None) -> Reading:
    if not len(scores):
        return Reading(name, on, None, 0, NOTHING_SCORED, items)
    if not np.isfinite(scores).all():
        return Reading(name, on, None, len(scores), dict(NO_NUMBER), items)
    return Reading(name, on, float(scores.mean()), len(scores), {"proxy": PROXY}, items)


def _mean_loss(subject: Subject, over: EvalSet) -> Floats:
    """Nats a scored token of each text, NaN where none is scored, shape (X,)."""
    windows = over.sequences
    assert isinstance(windows, Windows)
    sums, n = np.zeros(len(windows.texts)), np.zeros(len(windows.texts))
    for batch in scored_batches(subject, over=over):
        text = windows.document(over.indices[batch.part])
        np.add.at(sums, text, batch.loss.sum(1))
        np.add.at(n, text, batch.rows.scored.sum(1))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(sums / n)


def _listed(shares: tuple[Fraction, ...]) -> str:
    return ", ".join(str(float(share)) for share in shares)
