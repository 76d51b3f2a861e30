"""The cells of a double-descent study as numbers: final losses by arm, size, fraction, passes and seed."""

import math
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from repetita.study.plan import Label

if TYPE_CHECKING:
    import polars as pl

    from repetita.study.collect import Collected

Labels = Mapping[str, Label]

Line = tuple[str, float]
"""Size and fraction: cells that differ in passes only."""
Losses = dict[Hashable, float]
"""Nats a token by seed."""


MAIN_FRACTION = 0.5
"""Primary claims are made at the planned share nearest to this one."""

HEADLINE = 0.1, 100.0
"""Share and passes of the paper's headline."""
HEADLINE_WITHIN = 2.0
"""The headline is judged at a planned share within this factor of the paper's."""


class Curve(NamedTuple):
    """One run's test loss over training."""

    arm: str
    size: str
    fraction: float | None
    passes: float | None
    seed: int
    schedule: str
    """Learning-rate curve: cosine or constant."""
    tokens: tuple[float, ...]
    loss: tuple[float, ...]


SAME_TOKENS = 0.01
"""Points of two curves are at one step if their tokens differ by less than this share: runs of equal batches
differ in scored tokens by parts in ten thousand, since their sequences are not equally full."""


def same_points(one: Curve, other: Curve, /) -> bool:
    """Whether two learning curves were read at the same steps."""
    pairs = zip(one.tokens, other.tokens, strict=False)
    return len(one.tokens) == len(other.tokens) and all(abs(a / b - 1) < SAME_TOKENS for a, b in pairs)


class Grid(NamedTuple):
    """Final losses of one corpus, one learning-rate curve and rate, by seed; None entries are left out."""

    control: dict[str, Losses]
    starved: dict[Line, Losses]
    repeated: dict[Line, dict[float, Losses]]
    """Test loss by passes, ascending."""
    subset: dict[Line, dict[float, Losses]]
    """Loss on the repeated subset itself."""
    n_params: dict[str, int]
    """Non-embedding parameters by size."""
    vocab_size: int
    tokens: float
    """Training tokens of a run up to where its loss was read."""
    n_total: Mapping[str, int] = MappingProxyType({})
    """All parameters by size, embeddings included."""

    def lines(self) -> list[Line]:
        """Lines by fraction, then size."""
        return sorted(self.repeated, key=lambda line: (line[1], self.n_params[line[0]]))

    def by_seed(self, line: Line, /) -> dict[Hashable, dict[float, float]]:
        """Test losses of a line by seed, then passes; nothing for a line of which no run is there."""
        return turned(self.repeated.get(line, {}))

    def only(self, lines: Iterable[Line], /) -> "Grid":
        """The same without the treated runs of other lines."""
        chosen = [line for line in lines if line in self.repeated]
        return self._replace(repeated={line: self.repeated[line] for line in chosen})

    def excess(self, line: Line, passes: float, /) -> Losses:
        """Treated minus control, nats, by the seeds that have both."""
        return minus(self.repeated[line][passes], self.control.get(line[0], {}))


def grid(
    table: "pl.DataFrame", *, corpus: str, curve: str = "cosine", rate_scale: float = 1.0, at: float = 1.0
) -> Grid:
    """Losses at the share `at` of each run (1: the end) of the runs of one corpus, curve and rate."""
    import polars as pl

    chosen = table.filter(
        (pl.col("corpus") == corpus)
        & (pl.col("curve") == curve)
        & (pl.col("rate_scale") == rate_scale)
        & (pl.col("metric") == "loss")
        & (pl.col("step") == (pl.col("steps") * at).cast(pl.Int64))
        & pl.col("value").is_not_null()
    )
    vocab_size = int(chosen["vocab_size"].max() or 2) if len(chosen) else 2  # type: ignore[arg-type]
    tokens = float(chosen["tokens"].max() or 0) if len(chosen) else 0.0  # type: ignore[arg-type]
    totals: dict[str, int] = {}
    found = Grid({}, {}, {}, {}, {}, vocab_size, tokens, totals)
    for row in chosen.iter_rows(named=True):
        found.n_params[row["size"]] = row["non_embedding"]
        totals[row["size"]] = row["total_params"]
        line, seed = (row["size"], row["fraction"]), row["seed"]
        if row["probe"] == "subset":
            found.subset.setdefault(line, {}).setdefault(row["passes"], {})[seed] = row["value"]
        elif row["probe"] == "test":
            place: Losses
            if row["arm"] == "repeated":
                place = found.repeated.setdefault(line, {}).setdefault(row["passes"], {})
            elif row["arm"] == "starved":
                place = found.starved.setdefault(line, {})
            else:
                place = found.control.setdefault(row["size"], {})
            place[seed] = row["value"]
    for line, by_passes in found.repeated.items():
        found.repeated[line] = dict(sorted(by_passes.items()))
    return found


def curves(table: "pl.DataFrame", *, corpus: str) -> list[Curve]:
    """Learning curves of test loss of every run of a corpus at the standard rate, step 0 left out."""
    import polars as pl

    chosen = table.filter(
        (pl.col("corpus") == corpus)
        & (pl.col("rate_scale") == 1.0)
        & (pl.col("metric") == "loss")
        & (pl.col("probe") == "curve")
        & (pl.col("step") > 0)
        & pl.col("value").is_not_null()
    ).sort("step")
    keys = ("arm", "size", "fraction", "passes", "seed", "curve")
    runs: dict[Any, dict[float, float]] = {}
    for row in chosen.iter_rows(named=True):
        # A run that is planned twice (on a corpus that another took the place of) is there twice.
        runs.setdefault(tuple(row[key] for key in keys), {})[row["tokens"]] = row["value"]
    found = [Curve._make((*key, tuple(points), tuple(points.values()))) for key, points in runs.items()]
    return sorted(found, key=lambda one: (one.size, one.fraction or 0, one.passes or 0, one.seed, one.arm))


def planned_labels(collected: "Collected") -> list[Labels]:
    """The labels of every planned run, whether it is there or not."""
    absent = [one.labels for one in collected.absent if one.state != "incomplete"]
    return [*collected.runs.select(collected.labels).iter_rows(named=True), *absent]


def main_corpus(planned: Sequence[Labels]) -> str:
    """The corpus of most planned runs, the first among equals."""
    names = [str(labels["corpus"]) for labels in planned]
    return max(names, key=names.count)


def standard(planned: Sequence[Labels], *, curve: str = "cosine") -> Iterator[Labels]:
    """The planned runs of the main corpus at the standard rate with one learning-rate curve."""
    corpus = main_corpus(planned)
    for labels in planned:
        if (labels["corpus"], labels["curve"], labels["rate_scale"]) == (corpus, curve, 1.0):
            yield labels


def main_lines(planned: Sequence[Labels], *, curve: str = "cosine") -> list[Line]:
    """What the primary claims are about: smallest and largest treated size at the share nearest to a half.

    Chosen among what is planned, so that it does not depend on which runs are finished or how they ended.
    """
    treated = [labels for labels in standard(planned, curve=curve) if labels["arm"] == "repeated"]
    if not treated:
        return []
    shares = {float(labels["fraction"] or 0) for labels in treated}
    share = min(shares, key=lambda f: (abs(f - MAIN_FRACTION), f))
    sizes = {
        int(labels["non_embedding"] or 0): str(labels["size"])
        for labels in treated
        if labels["fraction"] == share
    }
    return [(sizes[n_params], share) for n_params in dict.fromkeys((min(sizes), max(sizes)))]


def headline_cell(planned: Sequence[Labels]) -> tuple[Line, float] | None:
    """The planned cell nearest to the paper's headline: the largest size at the share nearest to a tenth, at
    the passes nearest to 100; None where no share is near.

    Chosen among what is planned, as `main_lines`.
    """
    cells = [
        (float(labels["fraction"] or 0), int(labels["non_embedding"] or 0), float(labels["passes"] or 0),
         str(labels["size"]))
        for labels in standard(planned)
        if labels["arm"] == "repeated"
    ]  # fmt: skip

    def far(value: float, wanted: float) -> float:
        return abs(math.log(value / wanted))

    near = [cell for cell in cells if far(cell[0], HEADLINE[0]) <= math.log(HEADLINE_WITHIN)]
    if not near:
        return None
    share, _, passes, size = min(
        near, key=lambda cell: (far(cell[0], HEADLINE[0]), -cell[1], far(cell[2], HEADLINE[1]))
    )
    return (size, share), passes


def line_text(line: Line, /) -> str:
    """`N = 25k, f = 0.5`."""
    return f"N = {line[0]}, f = {line[1]:g}"


def minus(treated: Losses, control: Losses, /) -> Losses:
    """Differences by seed, seeds without a partner left out."""
    return {seed: value - control[seed] for seed, value in treated.items() if seed in control}


def mean(values: Mapping[Hashable, float] | Iterable[float], /) -> float:
    """Mean of the values (of a mapping)."""
    listed: list[float] = list(values.values() if isinstance(values, Mapping) else values)
    return sum(listed) / len(listed)


def turned(by_passes: Mapping[float, Losses], /) -> dict[Hashable, dict[float, float]]:
    """{passes: {seed: x}} as {seed: {passes: x}}."""
    found: dict[Hashable, dict[float, float]] = {}
    for passes, losses in by_passes.items():
        for seed, value in losses.items():
            found.setdefault(seed, {})[passes] = value
    return found
