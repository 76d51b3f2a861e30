"""What attention-only models make of a text, as numbers: losses by token, names, and what heads add."""

import json
import re
from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from repetita.measure.names import OTHER
from repetita.measure.passages import KINDS, LATER, Kind
from repetita.studies._copying import main_curve, worst
from repetita.studies._grid import Grid, Labels, Line, Losses, grid

if TYPE_CHECKING:
    import polars as pl

    from repetita.study.collect import Collected

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Cell = tuple[str, float | None, float | None]
"""Size, fraction and passes; the last two None: a control."""

FUZZY: tuple[Kind, ...] = ("inflected", "embedded")


def slug(name: str, /) -> str:
    """`1-layer`, `hf-someone-text`: lower-case words joined by hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


class Read(NamedTuple):
    """A passage as one run reads it."""

    tokens: tuple[str, ...]
    losses: Floats
    """Nats of each token."""
    kinds: Ints
    """OTHER, or which of KINDS the token goes on with."""

    def mean(self, kinds: Sequence[Kind], /) -> float | None:
        """Mean loss of the tokens that go on with these occurrences; None where there are none."""
        there = self.of(kinds)
        return float(self.losses[there].mean()) if there.any() else None

    def of(self, kinds: Sequence[Kind], /) -> NDArray[np.bool_]:
        """Which tokens these are."""
        return np.isin(self.kinds, [KINDS.index(kind) for kind in kinds])

    def plain(self) -> float | None:
        """Mean loss of the tokens that go on with no name."""
        there = self.kinds == OTHER
        return float(self.losses[there].mean()) if there.any() else None


class Text(NamedTuple):
    """All that was measured on one corpus."""

    corpus: str
    test: Grid
    passages: Mapping[str, Mapping[Cell, Mapping[Hashable, Read]]]
    """By passage, cell and seed, at the end of the runs."""

    def lines(self) -> list[Line]:
        """Treated sizes and fractions, fewest layers first."""
        return sorted(self.test.repeated, key=lambda line: (line[1], line[0]))

    def at_worst(self, passage: str, line: Line, /) -> dict[Hashable, tuple[Read, Read]]:
        """Control and treated by seed, the latter at the worst passes by the other seeds' test loss."""
        found = self.passages.get(passage, {})
        control = found.get((line[0], None, None), {})
        both = {}
        for seed, passes in worst(self.test, line).items():
            treated = found.get((*line, passes), {})
            if seed in control and seed in treated and control[seed].tokens == treated[seed].tokens:
                both[seed] = control[seed], treated[seed]
        return both

    def named(self) -> list[str]:
        """Passages in which a name stands a second time, those with most such tokens first."""
        counts = {}
        for name, cells in self.passages.items():
            reads = [read for by_seed in cells.values() for read in by_seed.values()]
            if reads and (n := int(reads[0].of(LATER).sum())):
                counts[name] = n
        return sorted(counts, key=lambda name: -counts[name])


def texts(table: "pl.DataFrame", *, planned: Sequence[Labels]) -> list[Text]:
    """What there is of each planned corpus, at the end of the runs and at its own learning-rate curve."""
    return [
        Text(
            corpus,
            grid(table, corpus=corpus, curve=main_curve(planned, corpus=corpus)),
            _passages(table, corpus),
        )
        for corpus in dict.fromkeys(str(labels["corpus"]) for labels in planned)
    ]


def _passages(table: "pl.DataFrame", corpus: str) -> dict[str, dict[Cell, dict[Hashable, Read]]]:
    import polars as pl

    rows = table.filter(
        (pl.col("corpus") == corpus)
        & (pl.col("metric") == "passage_loss")
        & (pl.col("step") == pl.col("steps"))
        & pl.col("value").is_not_null()
    )
    found: dict[str, dict[Cell, dict[Hashable, Read]]] = {}
    for row in rows.iter_rows(named=True):
        detail: dict[str, Any] = json.loads(row["detail"] or "{}")
        if detail.get("tokens"):
            read = Read(tuple(detail["tokens"]), np.array(detail["losses"]), np.array(detail["kinds"]))
            cell: Cell = (row["size"], row["fraction"], row["passes"])
            found.setdefault(row["on"], {}).setdefault(cell, {})[row["seed"]] = read
    return found


def extra(text: Text, passage: str, line: Line, /, *, kinds: Sequence[Kind] = LATER) -> Losses:
    """Loss on tokens that go on with names, treated at the worst passes minus control, by seed, in nats."""
    found: Losses = {}
    for seed, (control, treated) in text.at_worst(passage, line).items():
        before, after = control.mean(kinds), treated.mean(kinds)
        if before is not None and after is not None:
            found[seed] = after - before
    return found


def beyond(text: Text, passage: str, line: Line, /) -> Losses:
    """The same minus what the passage's other tokens lose: above zero where names are hit harder."""
    found: Losses = {}
    for seed, more in extra(text, passage, line).items():
        control, treated = text.at_worst(passage, line)[seed]
        before, after = control.plain(), treated.plain()
        if before is not None and after is not None:
            found[seed] = more - (after - before)
    return found


def known(text: Text, passage: str, line: Line, /) -> Losses:
    """How much less a control loses on names that stood before than on their first occurrence, by seed."""
    found: Losses = {}
    for seed, (control, _) in text.at_worst(passage, line).items():
        first, later = control.mean(("first",)), control.mean(LATER)
        if first is not None and later is not None:
            found[seed] = first - later
    return found


def difference(text: Text, passage: str, line: Line, /) -> tuple[Read, int] | None:
    """The passage with treated minus control in the place of the losses, mean over seeds, and how many."""
    both = text.at_worst(passage, line)
    if not both:
        return None
    first = next(iter(both.values()))[0]
    same = [pair for pair in both.values() if pair[0].tokens == first.tokens]
    return first._replace(losses=np.mean([b.losses - a.losses for a, b in same], axis=0)), len(same)


class Added(NamedTuple):
    """What the heads of one run add to the logits of a text written twice."""

    cell: Cell
    seed: Hashable
    second: NDArray[np.float64]
    """On the tokens of the second copy, shape (n_layer, H, T), in logits."""

    def by_head(self) -> Floats:
        """Mean over the copy's tokens, highest first, shape (n_layer * H,)."""
        return np.sort(self.second.mean(2).ravel())[::-1]

    def highest(self) -> tuple[int, int]:
        """Layer and head with the highest mean."""
        at = np.unravel_index(int(self.second.mean(2).argmax()), self.second.shape[:2])
        return int(at[0]), int(at[1])


def added(collected: "Collected", *, corpus: str) -> list[Added]:
    """Every run of a corpus at its end; the first token of a copy follows its end and is left out."""
    import polars as pl

    rows = collected.measurements.filter(
        (pl.col("corpus") == corpus)
        & (pl.col("metric") == "attribution_max")
        & (pl.col("step") == pl.col("steps"))
        & pl.col("value").is_not_null()
    )
    found = []
    for row in rows.iter_rows(named=True):
        items = collected.items(row["folder"], key=row["key"], step=row["step"])
        given = items.get(f"{row['on']}/attribution")
        if given is None:
            continue
        half = given.shape[-1] // 2
        second = np.asarray(given, dtype=np.float64)[:, :, 0, half + 1 :]
        found.append(Added((row["size"], row["fraction"], row["passes"]), row["seed"], second))
    return found


def added_at_worst(found: Sequence[Added], text: Text, line: Line, /) -> dict[Hashable, tuple[Added, Added]]:
    """Control and treated at the worst passes, by seed."""
    by = {(one.cell, one.seed): one for one in found}
    pairs = {
        seed: (by.get(((line[0], None, None), seed)), by.get(((*line, passes), seed)))
        for seed, passes in worst(text.test, line).items()
    }
    return {seed: (a, b) for seed, (a, b) in pairs.items() if a is not None and b is not None}


HEAD = 0.5
"""Score from which an induction head is there (experiment design, rule 22)."""


def warnings(table: "pl.DataFrame", found: Sequence[Text], /) -> list[str]:
    """Controls of two layers on bursts without an induction head, and passages that do not fit a row."""
    import polars as pl

    scores = table.filter(
        (pl.col("arm") == "control")
        & (pl.col("corpus") == "synthetic")
        & (pl.col("layers") > 1)
        & (pl.col("metric") == "prefix_query_max")
        & (pl.col("step") == pl.col("steps"))
    )
    said = []
    low = scores.filter(pl.col("value") < HEAD)
    if len(low):
        said.append(
            f"In {len(low)} of {len(scores)} controls of two layers on bursts no head scores {HEAD:g} for "
            "prefix matching: what they copy is not copied by induction heads."
        )
    lost = [name for text in found for name in text.passages if name not in text.named()]
    lost = [name for name in dict.fromkeys(lost) if name != "once"]
    if lost:
        said.append(f"No name returns in what fits a row of: {', '.join(lost)}.")
    return said
