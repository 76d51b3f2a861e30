"""Induction heads: prefix matching, previous token, copying, composition; the in-context score.

Shapes: A samples, B rows, L tokens of a row, Y layers, H heads.
"""

from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveInt, model_validator

from repetita import seeds
from repetita.errors import NotApplicable, SpecError
from repetita.journal.records import Reading
from repetita.measure.probe import SAMPLE_SEED, EvalSet, PassProbe, scored_batches
from repetita.measure.shown import START, read_text, room, start_token
from repetita.spec import ExactFraction
from repetita.subject import Attending, Attributing, Circuits, Subject

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

PATTERN_ENTRIES = 1 << 22
"""Entries of a head's patterns that are asked for at once: 16 MiB a head."""

MOST_READ = 1024
"""Tokens of a row whose patterns are looked at: those of 8192 tokens take 256 MiB a head."""

RARE = 0.01
"""An id that occurs less often than this share of the mean is one that models have hardly read: in a text of
64 words half of the ids are words without the space before them, each of which begins a document now and
then."""

NO_PATTERNS = "not applicable: this subject does not show what its tokens attend to"
NO_LOGITS = "not applicable: this subject does not say what its heads add to logits"
NO_WEIGHTS = "not applicable: the circuits of this subject's heads are not known"
BOTH_WAYS = "not applicable: a masked model reads what follows as well"


class PrefixMatch(NamedTuple):
    """Prefix matching in both normalisations, one value a head."""

    entry_YH: Floats
    """Mean attention a target: all targets of all queries count alike (Olsson et al. 2022, literally). A
    perfect head reaches queries / targets, which is 0.5 with four copies."""
    query_YH: Floats
    """Mean attention a query to all of its targets together; a perfect head reaches 1."""


class InductionProbe(PassProbe):
    """Scores of every attention head, and their mean, maximum and mean of the `top_k` highest over heads.

    Prefix matching (Olsson et al. 2022; repetition notes 8.1): `n_tokens` distinct tokens drawn at random,
    `n_copies` times behind the start token, `n_samples` samples; the same ones in every run on this text. Of
    the ids that occur in the set the share `excluded` is left out at either end, most and least common (their
    cut-offs are not given; 4% as in a later reproduction). Previous-token score (8.3): mean attention to
    the token before, on rows of the set. Copying (8.2): on the same random tokens once and without a start
    token, what the head raises; and from the weights, by eigenvalues. K-composition (8.4): trace of the QK
    circuit with keys that earlier heads wrote, weighted by their previous-token scores.
    """

    name: str = "induction"
    on: tuple[str, ...] = Field(default=("test",), min_length=1)
    max_sequences: PositiveInt | None = 16
    n_tokens: int = Field(default=25, ge=2)
    n_copies: int = Field(default=4, ge=2)
    n_samples: PositiveInt = 10
    excluded: ExactFraction = Fraction(1, 25)
    top_k: PositiveInt = 3

    @model_validator(mode="after")
    def _check_excluded(self) -> Self:
        if not 0 <= self.excluded * 2 < 1:
            raise SpecError(
                f"InductionProbe: excluded = {self.excluded} at either end leaves no token; stay under 1/2"
            )
        return self

    def cost_tokens(self, sets: Mapping[str, EvalSet], /) -> int:
        """See `Probe.cost_tokens`: the rows of the sets, and the samples of each."""
        drawn = self.n_samples * (1 + self.n_tokens * (self.n_copies + 1))
        return super().cost_tokens(sets) + drawn * len(self.on)

    def measure(self, subject: Subject, /, sets: Mapping[str, EvalSet]) -> Iterator[Reading]:
        """For each set, each score with `_mean`, `_max` and `_top` over heads; n counts heads.

        `prefix_query`, `prefix_entry`, `previous_token`, `ov_activation`, `ov_eigen`, `k_composition`.
        `induction_ov` is the eigenvalue copying of the head with the highest prefix score: an induction head
        in the strict sense matches and copies. A score that the subject cannot give is one reading without a
        value, `<score>_max`. Items of `prefix_query_max` are all scores by head (Y, H) and `tokens`, the
        samples (A, n_tokens).
        """
        for over in self.chosen(sets):
            if subject.mask_id is not None or not isinstance(subject, Attending):
                why = NO_PATTERNS if subject.mask_id is None else BOTH_WAYS
                yield Reading("prefix_query_max", over.name, None, 0, {"why": why})
                continue
            drawn_AL = random_tokens(
                over, n_tokens=self.n_tokens, n_samples=self.n_samples, excluded=float(self.excluded)
            )
            found, lacking = self._scores(subject, over, drawn_AL)
            yield from self._readings(over.name, found, drawn_AL)
            for name, why in lacking.items():
                yield Reading(f"{name}_max", over.name, None, 0, {"why": why})

    def _scores(
        self, subject: Attending, over: EvalSet, drawn_AL: Ints
    ) -> tuple[dict[str, Floats], dict[str, str]]:
        """Each score by head, and why the others are not there."""
        length = 1 + self.n_tokens * self.n_copies
        if length > room(over.sequences):
            raise SpecError(
                f"probe '{self.name}': {self.n_copies} copies of {self.n_tokens} tokens behind a start token "
                f"are {length}, and a sequence has {room(over.sequences)}; lower n_copies or n_tokens"
            )
        start = start_token(over.sequences)
        match = prefix_matching(subject, drawn_AL, n_copies=self.n_copies, start=start)
        previous_YH = previous_token(subject, over=over)
        found = {
            "prefix_query": match.query_YH,
            "prefix_entry": match.entry_YH,
            "previous_token": previous_YH,
        }
        lacking = {}
        try:
            found["ov_activation"] = ov_by_activation(subject, drawn_AL)
        except NotApplicable as error:
            lacking["ov_activation"] = str(error)
        try:
            if not isinstance(subject, Circuits):
                raise NotApplicable(NO_WEIGHTS)
            found["ov_eigen"] = subject.ov_copying().astype(np.float64)
            traces_YHYH = subject.k_composition().astype(np.float64)
            found["k_composition"] = np.einsum("lhmg,mg->lh", traces_YHYH, previous_YH)
        except NotApplicable as error:
            lacking["ov_eigen"] = lacking["k_composition"] = str(error)
        return found, lacking

    def _readings(self, on: str, found: Mapping[str, Floats], drawn_AL: Ints) -> Iterator[Reading]:
        best = np.unravel_index(int(found["prefix_query"].argmax()), found["prefix_query"].shape)
        items = {**found, "tokens": drawn_AL}
        for name, score_YH in found.items():
            known = np.sort(score_YH[np.isfinite(score_YH)])[::-1]
            if not len(known):
                yield Reading(f"{name}_max", on, None, 0, {"why": "no head has this score"})
                continue
            at = np.unravel_index(int(np.nanargmax(score_YH)), score_YH.shape)
            kept = items if name == "prefix_query" else None
            where = {"layer": int(at[0]), "head": int(at[1])}
            yield Reading(f"{name}_max", on, float(known[0]), len(known), where, kept)
            yield Reading(f"{name}_mean", on, float(known.mean()), len(known))
            yield Reading(f"{name}_top", on, float(known[: self.top_k].mean()), len(known[: self.top_k]))
        if "ov_eigen" in found and np.isfinite(found["ov_eigen"][best]):
            where = {"layer": int(best[0]), "head": int(best[1])}
            yield Reading("induction_ov", on, float(found["ov_eigen"][best]), 1, where)


def random_tokens(over: EvalSet, *, n_tokens: int, n_samples: int, excluded: float) -> Ints:
    """Distinct ids a sample, shape (A, n_tokens), of those that occur in the set but for the extremes.

    Left out are ids under RARE of the mean count and, of the others, the share `excluded`, rounded down, at
    either end of the order by count (ties by id). Raises SpecError where fewer than `n_tokens` are left.
    """
    counts = over.sequences.token_counts()
    ids = np.flatnonzero(counts)
    ids = ids[np.argsort(counts[ids], kind="stable")]
    ids = ids[counts[ids] >= RARE * counts[ids].mean()] if len(ids) else ids
    out = int(len(ids) * excluded)
    ids = np.sort(ids[out : len(ids) - out])
    if len(ids) < n_tokens:
        raise SpecError(
            f"the set {over.name} has {len(ids)} tokens that are neither too common nor too rare, and "
            f"{n_tokens} distinct ones are to be drawn; lower n_tokens or excluded"
        )
    key = seeds.key(SAMPLE_SEED, "induction")
    order = seeds.Permutation(len(ids), key)
    places = np.arange(n_tokens, dtype=np.int64)
    return np.stack([ids[order(places, turn=sample)] for sample in range(n_samples)])


def prefix_matching(
    subject: Attending, tokens_AL: Ints, /, *, n_copies: int, start: int = START
) -> PrefixMatch:
    """Attention from each token to those that followed it in the copies before (repetition notes, 8.1).

    With n distinct tokens at positions 1 .. n * n_copies behind the start token, query p of copy m
    (counted from 0) has the targets p - k n + 1 for k = 1 .. m.
    """
    n_tokens = tokens_AL.shape[1]
    start_A1 = np.full((len(tokens_AL), 1), start, dtype=np.int64)
    rows_AL = np.concatenate([start_A1, np.tile(tokens_AL, (1, n_copies))], axis=1)
    target_LL = prefix_targets(n_tokens, n_copies=n_copies)
    n_entries, n_queries = int(target_LL.sum()), int(target_LL.any(1).sum())
    mass_YH = np.stack(
        [
            np.where(target_LL, pattern_AHLL, 0).sum((0, 2, 3), dtype=np.float64) / len(tokens_AL)
            for pattern_AHLL in subject.attend(rows_AL)
        ]
    )
    return PrefixMatch(mass_YH / n_entries, mass_YH / n_queries)


def prefix_targets(n_tokens: int, *, n_copies: int) -> NDArray[np.bool_]:
    """[p, t]: whether t is a target of query p, shape (L, L) with L = 1 + n_tokens * n_copies."""
    length = 1 + n_tokens * n_copies
    target_LL = np.zeros((length, length), dtype=bool)
    for p in range(1, length):
        for k in range(1, (p - 1) // n_tokens + 1):
            target_LL[p, p - k * n_tokens + 1] = True
    return target_LL


def previous_token(subject: Attending, /, *, over: EvalSet) -> Floats:
    """Mean attention of a token to the one before it, on the first MOST_READ of each row of a set, (Y, H).

    Separators and padding are no queries. Raises SpecError where a set has no text.
    """
    rows = over.sequences.rows(over.indices)
    tokens_BL = rows.tokens[:, :MOST_READ]
    query_BL = read_text(over.sequences, rows)[:, : MOST_READ - 1]
    size, total = max(1, PATTERN_ENTRIES // tokens_BL.shape[1] ** 2), None
    for start in range(0, len(tokens_BL), size):
        part, found = slice(start, start + size), []
        for pattern_BHLL in subject.attend(tokens_BL[part]):
            before_BHL = np.diagonal(pattern_BHLL, offset=-1, axis1=2, axis2=3)
            found.append(np.where(query_BL[part, None], before_BHL, 0).sum((0, 2), dtype=np.float64))
        total = np.stack(found) if total is None else total + np.stack(found)
    if total is None or not query_BL.any():
        raise SpecError(f"the set {over.name} has no text in the rows that are read; give it more sequences")
    return np.asarray(total / query_BL.sum())


def ov_by_activation(subject: Attending, tokens_AL: Ints, /) -> Floats:
    """Whether a head raises what it attends to, by head (Y, H), within [-1, 1] (repetition notes, 8.2).

    At each token a head changes the logits by the direct path; raises over the vocabulary's mean count, those
    of the tokens of the sample. r = raises of the token attended to / (these and the raises of all tokens,
    itself included), summed over a sample; the score is 4 r - 1, mean over samples. A head that attends to
    several tokens counts for each by its attention. NaN for a head that raises nothing. Raises NotApplicable
    where the subject has no direct path.
    """
    if not isinstance(subject, Attributing):
        raise NotApplicable(NO_LOGITS)
    found = []
    for pattern_AHLL, added_AHLL in zip(subject.attend(tokens_AL), subject.raises(tokens_AL), strict=True):
        raise_AHLL = np.maximum(added_AHLL, 0).astype(np.float64)
        own_AH, all_AH = (pattern_AHLL * raise_AHLL).sum((2, 3)), raise_AHLL.sum((2, 3))
        ratio_AH = np.full(all_AH.shape, np.nan)
        np.divide(own_AH, own_AH + all_AH, out=ratio_AH, where=all_AH > 0)
        found.append(4 * ratio_AH.mean(0) - 1)
    return np.stack(found)


class InContextProbe(PassProbe):
    """How much further into a sequence tokens are easier: loss at index `late` minus loss at index `early`.

    Olsson et al. 2022 take tokens 500 and 50 of 512 (negative: context helps) and call the choice arbitrary;
    indices count from 0, so that index i has i tokens and the start token before it. `width` indices from
    either on are averaged, since one index of a small set is noisy.
    """

    name: str = "in_context"
    on: tuple[str, ...] = Field(default=("test",), min_length=1)
    early: int = Field(default=50, ge=0)
    late: PositiveInt = 500
    width: PositiveInt = 1

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        if self.early + self.width > self.late:
            raise SpecError(
                f"InContextProbe: early = {self.early} with width = {self.width} reaches late = {self.late}; "
                f"give a later index or a smaller width"
            )
        return self

    def measure(self, subject: Subject, /, sets: Mapping[str, EvalSet]) -> Iterator[Reading]:
        """`in_context` of each set, in nats; n counts the scored tokens of both windows.

        `detail` holds `loss_early` and `loss_late`. Items: the curve `loss` and `n` (L,), `loss` NaN where
        nothing is scored; by sequence `sequence` and `gain`, late minus early, NaN where either window has no
        scored token. Raises SpecError where a sequence, or what is read of a text at once, ends before
        `late` + `width`.
        """
        windows = [slice(start, start + self.width) for start in (self.early, self.late)]
        for over in self.chosen(sets):
            if windows[1].stop > room(over.sequences):
                raise SpecError(
                    f"probe '{self.name}': late = {self.late} with width = {self.width} is beyond a sequence "
                    f"of {room(over.sequences)} tokens; give an earlier index"
                )
            length, n_rows = max(over.sequences.length, windows[1].stop), len(over.indices)
            loss_L, n_L = np.zeros(length), np.zeros(length, np.int64)
            means_B2 = np.full((n_rows, 2), np.nan)
            for part, rows, loss_BL, *_ in scored_batches(subject, over=over):
                loss_L[: loss_BL.shape[1]] += loss_BL.sum(0)
                n_L[: loss_BL.shape[1]] += rows.scored.sum(0)
                for which, at in enumerate(windows):
                    n_B = rows.scored[:, at].sum(1)
                    np.divide(loss_BL[:, at].sum(1), n_B, out=means_B2[part, which], where=n_B > 0)
            curve = np.full(length, np.nan)
            np.divide(loss_L, n_L, out=curve, where=n_L > 0)
            gain = means_B2[:, 1] - means_B2[:, 0]
            items = {"loss": curve, "n": n_L, "sequence": over.indices, "gain": gain}
            counts = [int(n_L[at].sum()) for at in windows]
            if not all(counts):
                why = {"why": f"no scored token at index {self.early} or {self.late}"}
                yield Reading("in_context", over.name, None, 0, why, items)
                continue
            losses = [float(loss_L[at].sum()) / n for at, n in zip(windows, counts, strict=True)]
            detail = {"loss_early": losses[0], "loss_late": losses[1]}
            yield Reading("in_context", over.name, losses[1] - losses[0], sum(counts), detail, items)
