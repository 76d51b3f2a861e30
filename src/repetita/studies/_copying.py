"""What a study of copying measured, as numbers: losses by passage, worst passes, sizes that are left."""

import json
from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from repetita.errors import SpecError
from repetita.fit.effective_size import ControlScan, Method, control_scan, effective_size
from repetita.studies._grid import Grid, Labels, Line, Losses, grid, mean, minus

if TYPE_CHECKING:
    import polars as pl

    from repetita.study.collect import Collected

PROBE, CONTEXT_PROBE = "copying", "in_context"
TEST = "test loss"
"""What stands beside the passages."""

FEWEST_SIZES = 3
"""Control sizes without which no size is read off a loss."""


class Tables(NamedTuple):
    """Grids of one corpus, all of the last step."""

    test: Grid
    """Loss on the test set."""
    loss: Mapping[str, Grid]
    """By passage, the mean loss of all of its copies."""
    gain: Mapping[str, Grid]
    """By passage, loss of the first copy minus that of the later ones."""
    context: Grid
    """On the test set, loss early in a sequence minus loss late in it: above zero where context helps."""

    @property
    def passages(self) -> tuple[str, ...]:
        """Those that fitted, in the order in which they were shown."""
        return tuple(name for name, found in self.loss.items() if found.control)

    def by_name(self) -> dict[str, Grid]:
        """Losses: each passage's, then the test set's."""
        return {**{name: self.loss[name] for name in self.passages}, TEST: self.test}


class Multiplier(NamedTuple):
    """The size that is left of a treated run, over the size that its own control comes to."""

    value: float | None
    """None where only a bound is known: the run is worse, or better, than every control."""
    low: float | None = None
    high: float | None = None
    paper: float | None = None
    """As the paper has it: over the size itself, whatever the size that its own control comes to."""


def main_curve(planned: Sequence[Labels], *, corpus: str) -> str:
    """The learning-rate curve of most planned runs on a corpus."""
    curves = [str(labels["curve"]) for labels in planned if labels["corpus"] == corpus]
    return max(curves, key=curves.count) if curves else "cosine"


def tables(measured: "pl.DataFrame", *, corpus: str, curve: str) -> Tables:
    """The grids of one corpus at one learning-rate curve, of what is there."""
    import polars as pl

    final = measured.filter(pl.col("step") == pl.col("steps"))
    shown = final.filter((pl.col("probe") == PROBE) & pl.col("value").is_not_null())
    names = shown.filter(pl.col("metric") == "copying_loss")["on"].unique(maintain_order=True).to_list()
    context = final.with_columns(value=-pl.col("value")).filter(pl.col("probe") == CONTEXT_PROBE)
    return Tables(
        grid(measured, corpus=corpus, curve=curve),
        {name: _as_grid(shown, "copying_loss", on=name, corpus=corpus, curve=curve) for name in names},
        {name: _as_grid(shown, "copy_gain", on=name, corpus=corpus, curve=curve) for name in names},
        _as_grid(context, "in_context", on="test", corpus=corpus, curve=curve),
    )


def _as_grid(measured: "pl.DataFrame", metric: str, *, on: str, corpus: str, curve: str) -> Grid:
    """A metric in the place of the test loss."""
    import polars as pl

    chosen = measured.filter((pl.col("metric") == metric) & (pl.col("on") == on))
    return grid(chosen.with_columns(metric=pl.lit("loss"), probe=pl.lit("test")), corpus=corpus, curve=curve)


def worst(of: Grid, line: Line, /) -> dict[Hashable, float]:
    """For each seed the passes with the highest loss in the other seeds, among its own (alone: in itself).

    A noisy curve read at its own maximum flatters the damage.
    """
    found: dict[Hashable, float] = {}
    by_seed = of.by_seed(line)
    for seed, own in by_seed.items():
        others = [theirs for other, theirs in by_seed.items() if other != seed]
        seen = {passes: [theirs[passes] for theirs in others if passes in theirs] for passes in own}
        if any(seen.values()):
            means = {passes: mean(losses) for passes, losses in seen.items() if losses}
        else:
            means = own
        found[seed] = max(means, key=lambda passes: (means[passes], -passes))
    return found


def at(of: Grid, line: Line, passes: Mapping[Hashable, float], /) -> Losses:
    """The values of a line at each seed's own passes, of the seeds that have them."""
    table = of.repeated.get(line, {})
    return {seed: table[chosen][seed] for seed, chosen in passes.items() if seed in table.get(chosen, {})}


def excess(of: Grid, line: Line, passes: Mapping[Hashable, float], /) -> Losses:
    """Treated minus control at each seed's passes, paired by seed."""
    return minus(at(of, line, passes), of.control.get(line[0], {}))


def left(of: Grid, line: Line, passes: Mapping[Hashable, float], /) -> Losses:
    """The share of the control's value that a treated run still has, by seed; empty where a control has none.

    Leaving out the seeds whose control has nothing to lose would choose among seeds.
    """
    control, treated = of.control.get(line[0], {}), at(of, line, passes)
    shared = [seed for seed in treated if seed in control]
    if any(control[seed] <= 0 for seed in shared):
        return {}
    return {seed: treated[seed] / control[seed] for seed in shared}


def scan(of: Grid, /) -> ControlScan | None:
    """The controls' losses over sizes; None where there are too few sizes."""
    by_size = {float(of.n_params[size]): losses for size, losses in of.control.items() if losses}
    if len(by_size) < FEWEST_SIZES:
        return None
    try:
        return control_scan(by_size, vocab_size=of.vocab_size)
    except SpecError:
        return None


def method_of(name: str, /) -> Method:
    """Test loss by the law; copying, whose curve the paper trusts no law for, between neighbouring sizes."""
    return "law" if name == TEST else "interpolation"


def multipliers(
    of: Grid, line: Line, passes: Mapping[Hashable, float], /, *, over: ControlScan, method: Method
) -> dict[Hashable, Multiplier]:
    """Size that is left at each seed's passes, by seed."""
    n_params = of.n_params[line[0]]
    control = of.control.get(line[0], {})
    found = {}
    for seed, loss in at(of, line, passes).items():
        size = effective_size(over, n_params=n_params, losses={seed: loss}, method=method).n_eff
        own: float = n_params
        if seed in control:
            of_control = effective_size(over, n_params=n_params, losses={seed: control[seed]}, method=method)
            own = of_control.n_eff.value or n_params
        if size.value is not None:
            found[seed] = Multiplier(size.value / own, paper=size.value / n_params)
        else:
            found[seed] = Multiplier(
                None,
                None if size.low is None else size.low / own,
                None if size.high is None else size.high / own,
            )
    return found


class Disproportion(NamedTuple):
    """How many times smaller a run is by its copying than by its test loss."""

    ratios: Losses
    """Size left by test loss / size left by copying, by seed: above 1 where copying lost more. Where the
    copying is worse than the smallest control's, or the test loss better than the largest's, the least that
    the ratio can be."""
    bounded: frozenset[Hashable]
    """Seeds for which it is only that, by the copying."""
    lost: tuple[Hashable, ...]
    """Seeds of which nothing can be said: test loss worse than the smallest control's, or copying better than
    the largest's."""
    above: frozenset[Hashable] = frozenset()
    """Seeds for which it is only that, by the test loss."""

    @property
    def text(self) -> str:
        """What to know of the ratios."""
        said = []
        if self.bounded:
            said.append(f"copying below the smallest control in {_seeds(self.bounded)}: bounds")
        if self.above:
            said.append(f"test loss better than the largest control's in {_seeds(self.above)}: bounds")
        if self.lost:
            said.append(f"no ratio in {_seeds(self.lost)}, outside the control ladder")
        return "; ".join(said)


def disproportion(
    by_loss: Mapping[Hashable, Multiplier], by_copying: Mapping[Hashable, Multiplier], /
) -> Disproportion:
    """The ratio of the two by seed; bounds count on the side that does not favour it."""
    ratios: Losses = {}
    bounded, above, lost = set(), set(), []
    for seed in sorted(set(by_loss) & set(by_copying), key=str):
        loss, copying = by_loss[seed].value, by_copying[seed].value
        least = by_loss[seed].low if loss is None else loss
        most = by_copying[seed].high if copying is None else copying
        if least is None or most is None:
            lost.append(seed)
            continue
        ratios[seed] = least / most
        if copying is None:
            bounded.add(seed)
        if loss is None:
            above.add(seed)
    return Disproportion(ratios, frozenset(bounded), tuple(lost), frozenset(above))


class ByCopy(NamedTuple):
    """The loss of each copy in one cell, means over seeds."""

    arm: str
    size: str
    fraction: float | None
    passes: float | None
    losses: tuple[float, ...]
    n_seeds: int


def by_copy(measured: "pl.DataFrame", *, corpus: str, passage: str) -> list[ByCopy]:
    """Loss by copy of every control and repeated cell of a corpus at the standard rate."""
    import polars as pl

    chosen = measured.filter(
        (pl.col("corpus") == corpus)
        & (pl.col("probe") == PROBE)
        & (pl.col("metric") == "copying_loss")
        & (pl.col("on") == passage)
        & (pl.col("step") == pl.col("steps"))
        & pl.col("arm").is_in(["control", "repeated"])
        & pl.col("value").is_not_null()
    )
    cells: dict[tuple[str, str, float | None, float | None], list[list[float]]] = {}
    for row in chosen.iter_rows(named=True):
        losses = json.loads(row["detail"] or "{}").get("by_copy")
        if losses:
            cell = (row["arm"], row["size"], row["fraction"], row["passes"])
            cells.setdefault(cell, []).append(losses)
    found = []
    for cell, seeds in cells.items():
        losses = tuple(mean(of_copy) for of_copy in zip(*seeds, strict=True))
        found.append(ByCopy(*cell, losses, len(seeds)))
    return sorted(found, key=lambda one: (one.arm, one.fraction or 0.0, one.passes or 0.0))


class ByIndex(NamedTuple):
    """Test loss by token index in one cell, seed 0."""

    arm: str
    size: str
    fraction: float | None
    passes: float | None
    edges: tuple[int, ...]
    """Bin i holds the tokens with edges[i] <= index < edges[i + 1]."""
    losses: tuple[float, ...]


def by_index(collected: "Collected", *, corpus: str, size: str, fraction: float) -> list[ByIndex]:
    """The curves of one size's control and of its runs at one share, in bins that double."""
    import numpy as np
    import polars as pl

    from repetita.measure.loss import index_edges

    table = collected.measurements
    chosen = table.filter(
        (pl.col("corpus") == corpus)
        & (pl.col("probe") == CONTEXT_PROBE)
        & (pl.col("size") == size)
        & (pl.col("seed") == 0)
        & (pl.col("step") == pl.col("steps"))
        & ((pl.col("arm") == "control") | ((pl.col("arm") == "repeated") & (pl.col("fraction") == fraction)))
    )
    found = []
    for row in chosen.unique("folder", maintain_order=True).iter_rows(named=True):
        items = collected.items(row["folder"], key=row["key"], step=row["step"])
        if not {"test/loss", "test/n"} <= set(items):
            continue
        loss, n = (np.asarray(items[f"test/{name}"], dtype=np.float64) for name in ("loss", "n"))
        edges = index_edges(len(loss))
        sums, counts = (np.add.reduceat(x, edges[:-1]) for x in (np.nan_to_num(loss) * n, n))
        means = tuple(float(total / count) for total, count in zip(sums, counts, strict=True) if count)
        if len(means) == len(edges) - 1:
            found.append(
                ByIndex(row["arm"], row["size"], row["fraction"], row["passes"], tuple(edges), means)
            )
    return sorted(found, key=lambda one: one.passes or 0.0)


def name_losses(measured: "pl.DataFrame", *, corpus: str, curve: str) -> dict[tuple[str, str], Grid]:
    """By passage and kind of occurrence, the loss on the tokens that go on with a name."""
    import polars as pl

    shown = measured.filter(
        (pl.col("probe") == PROBE)
        & pl.col("metric").str.starts_with("name_loss_")
        & (pl.col("step") == pl.col("steps"))
        & pl.col("value").is_not_null()
    )
    pairs = shown.select("on", "metric").unique(maintain_order=True).iter_rows()
    return {
        (on, metric.removeprefix("name_loss_")): _as_grid(shown, metric, on=on, corpus=corpus, curve=curve)
        for on, metric in pairs
    }


def _seeds(some: Collection[object]) -> str:
    return "1 seed" if len(some) == 1 else f"{len(some)} seeds"


def passes_text(passes: float, /) -> str:
    """Passes in whole numbers from ten on."""
    return f"{passes:,.0f}" if passes >= 10 else f"{passes:.3g}"


def treated_lines(of: Grid, /) -> list[Line]:
    """Lines that have a control of their size."""
    return [line for line in of.lines() if of.control.get(line[0])]


def warnings(measured: "pl.DataFrame", found: Tables, /) -> Iterator[str]:
    """What a reader has to know: passages that were not shown, and a control that does not copy."""
    import polars as pl

    refused = measured.filter(
        (pl.col("probe") == PROBE) & (pl.col("metric") == "copying_loss") & pl.col("value").is_null()
    )
    for corpus, on in refused.select("corpus", "on").unique(maintain_order=True).iter_rows():
        yield f"The {on} passage was not shown in runs on {corpus}: two copies of it do not fit a sequence."
    for passage in found.passages:
        gains = found.gain[passage].control
        best = max((mean(losses) for losses in gains.values() if losses), default=0.0)
        if gains and best <= 0:
            yield f"No control loses less on later copies of the {passage} passage: nothing copies it here."
