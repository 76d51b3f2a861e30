"""Claims on definitions of memorization: which rank sequences alike, and what M(f) alone does not tell."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from repetita.fit.claim import Claim, directional, from_estimate, undecided
from repetita.fit.estimate import proportion
from repetita.studies._definitions import LATE, MID, NEAR, Cell, Floats, State, cell_name, main_name
from repetita.studies._power import smallest_effect

PAPER = "Tirumala et al. 2022"
ALIKE = 0.5
"""Rank correlation above which two definitions are said to rank alike: a convention for a large one."""
UNIT = "of Spearman's rho, corrected for noise"
MODELS = "the interval holds models, each with its half, not the choice of the sequences, which they share"

MODEL_SD = {
    "ranks-alike": 0.7, "memorized-is-extractable": 0.1, "extraction-ranks-alike": 0.7, "memory-share": 0.05,
}  # fmt: skip
"""Assumed standard deviations for planning only: over models, or, for agreements, the standard error times
the root of the number of models (0.12 with 32 of them). Guesses from a pilot of four models."""
PREDICTED = {
    "ranks-alike": 0.25, "extraction-ranks-alike": 0.25, "memorized-is-extractable": 0.4, "memory-share": 0.3,
}  # fmt: skip
"""Distances from the thresholds that would matter: ours, the paper gives no number."""
UNITS = {"ranks-alike": "of rho", "extraction-ranks-alike": "of rho"}


def claims(cell: Cell) -> Iterator[Claim]:
    """Claims on one cell, the headline first; four are primary."""
    middle, late = cell.nearest(MID), cell.nearest(LATE)
    yield _alike(
        middle, "counterfactual", name="ranks-alike",
        statement="sequences rank alike under M(f) and under counterfactual memorization",
        source=f"{PAPER}, section 2: counterfactual memorization is the difference that training on a text "
        "makes in M(f)",
    )  # fmt: skip
    yield _extractable(cell, late)
    yield _alike(
        middle, "head", name="extraction-ranks-alike",
        statement="sequences rank alike under M(f) and by how far greedy decoding continues their first "
        "tokens exactly",
        source=f"{PAPER}, section 2: exact memorization beside what k tokens extract",
    )  # fmt: skip
    yield _memory_share(middle)
    yield _alike(
        middle, "unseen", name="predictable-first", primary=False,
        statement="sequences rank alike under M(f) in models that were trained on them and in models that "
        "were not",
        source="the control that M(f) lacks (Zhang et al. 2021)",
    )  # fmt: skip
    yield _as_seen(middle)
    yield _unseen(cell, late)


def warnings(cell: Cell) -> Iterator[str]:
    """Where a definition has nothing to tell sequences apart by."""
    counts = [by_place for by_n in cell.counts.values() for by_place in by_n.values()]
    if counts and max(float(np.nanmax(count)) for count in counts) <= 1:
        yield (
            f"No string of {min(cell.counts)} to {max(cell.counts)} tokens that was asked for is in two "
            "training sequences of a model: k-eidetic memorization is k-extractability here, whatever k, "
            "which says nothing about the two definitions."
        )
    late = cell.nearest(LATE)
    if all(np.nanmax(prefix) < cell.suffix for prefix in late.inside.values()):
        yield (
            f"No suffix was extracted by a prompt from inside a sequence at M(f) = {late.level:.2f}: by this "
            "definition nothing is memorized."
        )


def detectable(planned: Sequence[Mapping[str, Any]]) -> Mapping[str, str]:
    """For each primary claim the smallest effect that the planned models can show, in words."""
    main = main_name(planned)
    same = [labels for labels in planned if cell_name(labels) == main]
    return {
        name: smallest_effect(
            n=len({labels["seed"] for labels in same}), sd=sd, unit=UNITS.get(name, "(a share)"),
            predicted=PREDICTED[name], primary=len(MODEL_SD),
        )
        for name, sd in MODEL_SD.items()
    }  # fmt: skip


def _where(state: State) -> str:
    return f"after {state.passes:g} passes, where M(f) on the models' own halves is {state.level:.2f}"


def _far(state: State) -> bool:
    return abs(state.level - MID) > NEAR


def _too_far(state: State, name: str, statement: str, source: str, *, primary: bool) -> Claim:
    return undecided(
        name=name, statement=statement, source=source, primary=primary,
        rule=f"judged where M(f) is nearest to {MID:g}, if within {NEAR:g}",
        note=f"the nearest state has M(f) = {state.level:.2f}",
    )  # fmt: skip


def _alike(
    state: State, other: str, *, name: str, statement: str, source: str, primary: bool = True
) -> Claim:
    if _far(state):
        return _too_far(state, name, statement, source, primary=primary)
    found = state.agreement("memorized", other)
    own, others = ("none" if one is None else f"{one:.2f}" for one in found.reliability)
    raw = "none" if found.raw is None else f"{found.raw:.2f}"
    return from_estimate(
        state.interval("memorized", other),
        name=name, statement=statement, source=source, threshold=ALIKE, primary=primary,
        n=len(state.member), unit=UNIT,
        note=f"{_where(state)}; before the correction {raw}, M(f) with itself {own}, the other with itself "
        f"{others}, each from half of the models; n counts models, which share their sequences",
    )  # fmt: skip


def _as_seen(state: State) -> Claim:
    name = "ranks-alike-as-seen"
    statement = (
        "half of these models give M(f) and the other half counterfactual memorization: noise included, "
        "they rank sequences alike"
    )
    source = f"{PAPER}, section 2, as anyone with so few models would see it"
    if _far(state):
        return _too_far(state, name, statement, source, primary=False)
    return from_estimate(
        state.interval("memorized", "counterfactual", corrected=False),
        name=name, statement=statement, source=source, threshold=ALIKE, primary=False,
        n=len(state.member), unit="of Spearman's rho", note=_where(state),
    )  # fmt: skip


def _extractable(cell: Cell, state: State) -> Claim:
    k = cell.prompts[-1]
    name = "memorized-is-extractable"
    statement = (
        f"more than half of the strings of {cell.suffix} tokens that a model has memorized token by token "
        f"are what it writes when it is given the {k} tokens before them and no more"
    )
    source = f"{PAPER}, section 2: an exactly memorized example is extractable"
    memorized = (state.context == cell.suffix) & state.member[:, :, None]
    both = memorized & (state.inside[k] == cell.suffix)
    n = memorized.sum(axis=(1, 2))
    if (n == 0).any():
        return undecided(
            name=name, statement=statement, source=source, primary=True,
            rule="share above 0.5 (t test over models)",
            note=f"{int((n == 0).sum())} of {len(n)} models have memorized no such string",
        )  # fmt: skip
    return _share(
        both.sum(axis=(1, 2)) / n, sequences=int(memorized.any(axis=(0, 2)).sum()),
        name=name, statement=statement, source=source, threshold=0.5, unit="(a share)",
        note=f"{_where(state)}; given the sequence from its start, which is the whole context, it writes all "
        "of them: there the two are one definition; this claim was written after a pilot of four of these "
        "models in which the share was 0",
    )  # fmt: skip


def _memory_share(state: State) -> Claim:
    name = "memory-share"
    statement = (
        "more than half of M(f) on a model's training set is counterfactual: models trained on other text do "
        "not have it"
    )
    source = "Zhang et al. 2021; open in the paper, whose Definition 1 has no control"
    if _far(state):
        return _too_far(state, name, statement, source, primary=True)
    own, unseen = state.own(state.memorized), state.unseen(state.memorized)
    return directional(
        (own - unseen) / own,
        name=name, statement=statement, source=source, threshold=0.5, unit="of M(f)",
        note=f"{_where(state)}; on the half not trained on: {unseen.mean():.3f}; {MODELS}",
    )  # fmt: skip


def _unseen(cell: Cell, state: State) -> Claim:
    exact = np.stack(
        [np.where(np.isfinite(prefix), prefix == cell.suffix, np.nan) for prefix in state.head.values()],
        axis=-1,
    )
    return _share(
        state.unseen(exact), sequences=len(cell.sequence),
        name="unseen-not-extracted",
        statement="text that a model was not trained on is not extractable: of its suffixes of "
        f"{cell.suffix} tokens under one in twenty is written from the head of its sequence",
        source="Carlini et al. 2022: the control of extraction",
        threshold=0.05, direction="below", unit="(a share)", note=_where(state), primary=False,
    )  # fmt: skip


def _share(values: Floats, *, sequences: int, **of: Any) -> Claim:
    """A claim on shares by model; where every model has none or all, on an exact interval over sequences."""
    if values.min() == values.max() and values[0] in (0, 1):
        exact = proportion(int(values[0]) * sequences, n=sequences)
        method = f"{exact.method} over sequences, as every model has the same share"
        return from_estimate(exact._replace(method=method, contains="sequences"), n=len(values), **of)
    return directional(values, **of)
