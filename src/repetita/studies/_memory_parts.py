"""What the floor consists of: the tokens of the special batches that are right at the end of the horizon."""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from repetita.corpus.taggers import CLASSES
from repetita.fit.claim import Claim, by_seed, directional
from repetita.fit.estimate import Estimate, t_interval
from repetita.measure.retained import KINDS, LONGEST, Anatomy, anatomy
from repetita.report.figure import Axis, Cell, Figure, Layer, Panels, Row, Series
from repetita.report.page import Table
from repetita.studies._memory_claims import PAPER
from repetita.studies._memory_figures import spread

if TYPE_CHECKING:
    from repetita.study.collect import Collected

Bools = NDArray[np.bool_]
Codes = NDArray[np.int8]

OPEN = f"open question of {PAPER}: what the forgetting baseline consists of"
TAGS = ("noun", "proper noun", "verb", "numeral", "adjective", "adverb", "pronoun", "adposition", "auxiliary")
"""Parts of speech shown, of the first tokens of words; the rest is in `other words`."""
NGRAMS = ((0, 1), (2, 2), (3, 3), (4, 4), (5, LONGEST))
"""Classes of the longest known n-gram, first and last length."""
RIGHT = ("before the exposure", "at the end, placebo run", "at the end, special batch")

OVERLAPS = ("retained, wrong in the placebo run", "retained", "not retained", "all")
"""Groups of tokens whose known n-grams are compared."""


class Part(NamedTuple):
    """The scored tokens of the special batches of one size and seed; arrays of shape (tokens,)."""

    size: str
    n_params: int
    seed: Hashable
    special: Bools
    """Right at the end of the horizon in the run that was trained on them: retained."""
    placebo: Bools
    """Right then in the run that was trained on other text instead."""
    before: Bools
    """Right just before the exposure."""
    tag: Codes
    kind: Codes
    known: Codes

    @property
    def tagged(self) -> bool:
        """Whether parts of speech are known."""
        return bool(self.tag.any())

    def classes(self) -> dict[str, Bools]:
        """The classes of tokens that are told apart; those of a kind or of n-grams are disjoint."""
        found = {"all": np.ones(len(self.kind), dtype=bool)}
        start, inside, digit, mark = (self.kind == KINDS.index(kind) for kind in KINDS[1:])
        if self.tagged:
            of = {name: start & (self.tag == CLASSES.index(name)) for name in TAGS}
            found |= {f"{name}, first": mask for name, mask in of.items()}
            found["other words, first"] = start & ~np.logical_or.reduce(list(of.values()))
            name = self.tag == CLASSES.index("proper noun")
            found |= {"inside a proper noun": inside & name, "inside another word": inside & ~name}
        else:
            found |= {"first token of a word": start, "inside a word": inside}
        found |= {"digits": digit, "punctuation and space": mark}
        for low, high in NGRAMS:
            length = "at most 1" if low == 0 else f"{low}" if low == high else f"{low} or more"
            found[f"n-gram of {length}"] = (self.known >= low) & (self.known <= high)
        return {label: mask for label, mask in found.items() if mask.any()}

    def retained_share(self, mask: Bools, /) -> float:
        """Share of the retained tokens that are of a class."""
        return _share(mask[self.special])

    def also_predicted(self, mask: Bools, /) -> float | None:
        """Share of a class's retained tokens that the placebo run gets right as well."""
        chosen = self.special & mask
        return _share(self.placebo[chosen]) if chosen.any() else None

    def net(self, mask: Bools, /) -> float:
        """M(f) of a class at the end, special minus placebo."""
        return _share(self.special[mask]) - _share(self.placebo[mask])

    def overlap(self) -> float | None:
        """Mean longest known n-gram of the retained tokens minus that of the others."""
        if self.special.all() or not self.special.any():
            return None
        return float(self.known[self.special].mean() - self.known[~self.special].mean())


def _share(mask: Bools) -> float:
    return float(mask.mean()) if len(mask) else 0.0


def parts(collected: "Collected") -> list[Part]:
    """Every size and seed whose run with the special batches and whose placebo run are both there."""
    import polars as pl

    rows = collected.measurements.filter(
        (pl.col("probe") == "retained")
        & (pl.col("metric") == "memorized_by_token")
        & ((pl.col("step") == pl.col("at")) | (pl.col("step") == pl.col("steps")))
    )
    groups: dict[tuple[str, Hashable], list[dict[str, Any]]] = {}
    for row in rows.iter_rows(named=True):
        groups.setdefault((row["size"], row["seed"]), []).append(row)
    found = [part for group in groups.values() if (part := _part(collected, group)) is not None]
    return sorted(found, key=lambda part: (part.n_params, str(part.seed)))


def _part(collected: "Collected", rows: Sequence[Mapping[str, Any]]) -> Part | None:
    """One size and seed; None where a state is missing or the runs were asked about different text."""
    read: dict[tuple[str, bool], list[Anatomy]] = {}
    for arm, end in (("special", True), ("placebo", True), ("special", False)):
        chosen = [row for row in rows if row["arm"] == arm and row["step"] == row["steps" if end else "at"]]
        found = []
        for row in sorted(chosen, key=lambda row: row["on"]):
            items = collected.items(row["folder"], key=row["key"], step=row["step"])
            one = anatomy(items, on=row["on"])
            if one is not None:
                found.append(one)
        if not found or len(found) < chosen[0]["n_batches"]:
            return None
        read[arm, end] = found
    special, placebo, before = read.values()
    pairs = [(one, other) for others in (placebo, before) for one, other in zip(special, others, strict=True)]
    if any(not np.array_equal(one.hits.sequence, other.hits.sequence) for one, other in pairs):
        return None
    scored = np.concatenate([one.hits.scored.ravel() for one in special])

    def flat(of: list[Anatomy], what: str) -> Any:
        arrays = [one.hits.hit if what == "hit" else getattr(one, what) for one in of]
        return np.concatenate([array.ravel() for array in arrays])[scored]

    return Part(
        rows[0]["size"], rows[0]["non_embedding"], rows[0]["seed"],
        *(flat(of, "hit") for of in (special, placebo, before)),
        *(flat(special, what) for what in ("tag", "kind", "known")),
    )  # fmt: skip


def _by_size(found: Sequence[Part]) -> dict[str, list[Part]]:
    sizes: dict[str, list[Part]] = {}
    for part in found:
        sizes.setdefault(part.size, []).append(part)
    return sizes


def claims(found: Sequence[Part]) -> Iterator[Claim]:
    """Descriptive, of the largest size: what the control predicts too, known n-grams, names and digits."""
    if not found:
        return
    size, runs = list(_by_size(found).items())[-1]
    everything = {part.seed: part.also_predicted(part.classes()["all"]) for part in runs}
    if all(value is not None for value in everything.values()):
        yield directional(
            by_seed({seed: float(value or 0) for seed, value in everything.items()}),
            name=f"retained-is-predicted-{size}", threshold=0.5, primary=False, source=OPEN,
            statement=f"N = {size}: more than half of the tokens that are right at the end of the horizon "
            "are predicted by the placebo run as well, token by token",
            unit="(share of the retained tokens)", note=_turned_round(runs),
        )  # fmt: skip
    overlaps = {part.seed: part.overlap() for part in runs}
    if all(value is not None for value in overlaps.values()):
        yield directional(
            by_seed({seed: float(value or 0) for seed, value in overlaps.items()}),
            name=f"retained-is-known-text-{size}", primary=False, source=OPEN,
            statement=f"N = {size}: retained tokens end longer n-grams of the training set than tokens that "
            "are not retained",
            unit="tokens of the longest known n-gram, retained minus not retained",
        )  # fmt: skip
    named = {part.seed: _names_and_digits(part) for part in runs}
    which = "proper nouns, numerals and digits" if runs[0].tagged else "digits"
    if all(mask.any() and not mask.all() for part in runs for mask in [named[part.seed]]):
        yield directional(
            by_seed({part.seed: part.net(named[part.seed]) - part.net(~named[part.seed]) for part in runs}),
            name=f"names-and-digits-kept-{size}", primary=False,
            source=f"{PAPER}, section 4: nouns, proper nouns and numerals as unique identifiers",
            statement=f"N = {size}: more is kept beyond the control of {which} than of other tokens",
            unit="of M(f), special minus placebo, minus the same of other tokens",
        )  # fmt: skip


def _turned_round(runs: Sequence[Part]) -> str:
    """What two runs that differ in one batch agree on says how much of the rest is no memory either."""
    shares = [_share(part.special[part.placebo]) for part in runs if part.placebo.any()]
    if not shares:
        return ""
    return f"turned round, of what the placebo run gets right the other run has {_text(shares)} as well"


def _names_and_digits(part: Part) -> Bools:
    names = [CLASSES.index(name) for name in ("proper noun", "numeral")]
    return np.asarray((part.kind == KINDS.index("digit")) | np.isin(part.tag, names))


def figures(found: Sequence[Part]) -> Iterator[Figure]:
    """M(f) by class of token before and at the end, with its control; known n-grams of retained tokens."""
    sizes = _by_size(found)
    if not sizes:
        return
    size, runs = list(sizes.items())[-1]
    note = "" if runs[0].tagged else " Parts of speech are not known here."
    yield Figure(
        name="forgetting-floor-parts",
        title="What is right at the end, by kind of token",
        caption=f"N = {size}: M(f) on the special batches by class of token, before the exposure, at the end "
        "of the horizon, and then in the run that saw placebo text instead. The gap between the last two is "
        "memory. First: words by their part of speech, at their first token; n-gram: the longest "
        "stretch ending at the token that occurs in the training set. Intervals: 95% t over seeds, "
        f"where there are several.{note}",
        n=_count_text(runs),
        rows=tuple(_class_rows(runs)),
        x=Axis(column="value", title="memorized fraction M(f)"),
        y=Axis(column="class", title="", scale="category", order=tuple(_labels(runs))),
        series=Series(column="when", title="right", order=RIGHT, muted=RIGHT[:1]),
        layers=(Layer(kind="interval", low="low", high="high"), Layer(kind="point")),
        tooltip=("share", "seeds"),
        height=min(900, 80 + 28 * len(_labels(runs))),
    )
    titles = tuple(f"N = {name}" for name in sizes)
    yield Figure(
        name="forgetting-floor-overlap",
        title="Are retained tokens those of known phrases?",
        caption=f"How long the longest n-gram is that ends at a token and occurs in the training set (up to "
        f"{LONGEST} tokens, the token included): of the tokens that are right at the end of the horizon (and "
        "of those among them that the placebo run gets wrong), of those that are not, and of all scored "
        "tokens. Mean over seeds.",
        n=_count_text(found),
        rows=tuple(row for name, of in sizes.items() for row in _overlap_rows(name, of)),
        x=Axis(column="n", title="tokens of the longest known n-gram", domain=(0, LONGEST)),
        y=Axis(column="share", title="share of the tokens", start="zero"),
        series=Series(column="tokens", title="tokens", order=OVERLAPS, muted=OVERLAPS[-1:]),
        panels=Panels(column="panel", title="", order=titles, share="both") if len(titles) > 1 else None,
        tooltip=("seeds",),
    )


def _labels(runs: Sequence[Part]) -> list[str]:
    """Classes that every run has."""
    there = [part.classes() for part in runs]
    return [label for label in there[0] if all(label in classes for classes in there)]


def _class_rows(runs: Sequence[Part]) -> Iterator[Row]:
    for label in _labels(runs):
        masks = [part.classes()[label] for part in runs]
        share = float(np.mean([_share(mask) for mask in masks]))
        for when, right in zip(RIGHT, ("before", "placebo", "special"), strict=True):
            values = [_share(getattr(part, right)[mask]) for part, mask in zip(runs, masks, strict=True)]
            yield {"class": label, "when": when, "share": share, **spread(values)}


def _overlap_rows(size: str, runs: Sequence[Part]) -> Iterator[Row]:
    for tokens in OVERLAPS:
        for n in range(LONGEST + 1):
            shares = []
            for part in runs:
                chosen = {
                    OVERLAPS[0]: part.special & ~part.placebo,
                    OVERLAPS[1]: part.special,
                    OVERLAPS[2]: ~part.special,
                }.get(tokens)
                known = part.known if chosen is None else part.known[chosen]
                shares.append(_share(known == n))
            yield {
                "panel": f"N = {size}", "tokens": tokens, "n": n, "share": float(np.mean(shares)),
                "seeds": len(shares),
            }  # fmt: skip


def tables(found: Sequence[Part]) -> Iterator[Table]:
    """The floor by class of token: how much of it, how much of that is memory."""
    if not found:
        return
    tagged = all(part.tagged for part in found)
    speech = (
        "Words by part of speech, at their first token."
        if tagged
        else "Parts of speech: none, the corpus was not tagged."
    )
    yield Table(
        "forgetting-floor-classes", "What the floor consists of",
        "Scored tokens of the special batches by class; retained: right at the end of the horizon in the run "
        "that was trained on them. Also predicted: share of the retained tokens of a class that the placebo "
        f"run gets right as well. Kept: M(f), special minus placebo, with 95% t intervals. {speech} "
        "Known n-grams: occurring in the training set.",
        _count_text(found),
        ("N", "tokens", "of all scored", "of all retained", "M(f) before", "M(f) at the end",
         "also predicted", "kept"),
        [_row(size, label, runs) for size, runs in _by_size(found).items() for label in _labels(runs)],
    )  # fmt: skip


def _row(size: str, label: str, runs: Sequence[Part]) -> list[Cell]:
    masks = [part.classes()[label] for part in runs]
    both = list(zip(runs, masks, strict=True))
    predicted = [value for part, mask in both if (value := part.also_predicted(mask)) is not None]
    return [
        size,
        label,
        f"{np.mean([_share(mask) for mask in masks]):.3f}",
        f"{np.mean([part.retained_share(mask) for part, mask in both]):.3f}",
        f"{np.mean([_share(part.before[mask]) for part, mask in both]):.3f}",
        f"{np.mean([_share(part.special[mask]) for part, mask in both]):.3f}",
        _text(predicted),
        _text([part.net(mask) for part, mask in both]),
    ]


def _text(values: Sequence[float]) -> str | None:
    if not values:
        return None
    found: Estimate = t_interval(values)
    return found.text() if found.n > 1 else f"{found.value:.3g}"


def _count_text(runs: Sequence[Part]) -> str:
    n = len({part.seed for part in runs})
    return f"{n} seed{'s' if n > 1 else ''} a size, {len(runs[0].kind):,} scored tokens each"
