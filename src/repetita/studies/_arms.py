"""Arms that each have a control of their own: what repetition costs in each, and how two compare."""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from repetita.errors import SpecError
from repetita.fit.claim import Claim, by_seed, directional, equivalent, undecided
from repetita.fit.effective_size import ControlScan, control_scan, effective_size
from repetita.fit.estimate import Estimate, t_interval
from repetita.studies._grid import (
    Curve,
    Grid,
    Labels,
    Line,
    Losses,
    curves,
    grid,
    main_corpus,
    mean,
    minus,
    same_points,
)

if TYPE_CHECKING:
    import polars as pl

VARIANT = "variant"
"""Label of a planned run that names its arm; equal runs may serve several."""
NOT_YET = "no seed has all of the runs that this needs"


class Arm(NamedTuple):
    """One way of repeating, or of training while repeating: treated, starved and control runs of one size.

    Losses are nats a token by seed. Everything without passes of its own is read at the worst passes.
    """

    name: str
    line: Line
    n_params: int
    control: Losses
    excess: dict[float, Losses]
    """Treated minus the control of the same arm, by passes."""
    worst: dict[Hashable, float]
    """For each seed the worst passes of the other seeds, since a maximum chosen on one's own noise flatters
    the damage; a single seed has its own."""
    treated: Losses
    damage: Losses
    starvation: Losses
    """The same steps with empty repeated slots, minus the control."""
    interference: Losses
    """Treated minus starved."""
    subset: Losses
    """Loss on the repeated text itself."""
    subsets: dict[float, int]
    """Sequences in the repeated subset by passes."""
    curves: tuple[Curve, ...]
    """Test loss over training of all its runs of this size."""

    def at_subset(self, n_sequences: int, /) -> Losses:
        """The damage with a subset of this size."""
        at = [passes for passes, n in self.subsets.items() if n == n_sequences]
        return self.excess.get(at[0], {}) if at else {}


def arms(table: "pl.DataFrame", *, plan: Sequence[Labels], size: str) -> dict[str, Arm]:
    """The arms of one size that have treated runs with a control, in the order of the plan."""
    found: dict[str, Arm] = {}
    for name in variants(plan):
        own = rows_of(table, name)
        losses = grid(own, corpus=main_corpus(plan))
        lines = [line for line in losses.lines() if line[0] == size]
        if lines and size in losses.control:
            subsets = {
                float(labels["passes"] or 0): int(labels["subset"] or 0)
                for labels in plan
                if labels[VARIANT] == name and labels["size"] == size and labels["arm"] == "repeated"
            }
            drawn = [one for one in curves(own, corpus=main_corpus(plan)) if one.size == size]
            arm = _arm(name, losses, lines[0], subsets=subsets, drawn=drawn)
            if arm.worst:
                found[name] = arm
    return found


def controls(table: "pl.DataFrame", *, plan: Sequence[Labels], variant: str) -> Grid:
    """All sizes of one arm; its controls are the ladder that effective sizes are read from."""
    return grid(rows_of(table, variant), corpus=main_corpus(plan))


def rows_of(table: "pl.DataFrame", variant: str, /) -> "pl.DataFrame":
    """The measurements of one arm."""
    import polars as pl

    return table.filter(pl.col(VARIANT) == variant)


def variants(plan: Sequence[Labels], /) -> tuple[str, ...]:
    """The planned arms with treated runs, in the order of the plan."""
    return tuple(dict.fromkeys(str(labels[VARIANT]) for labels in plan if labels["arm"] == "repeated"))


def sizes(plan: Sequence[Labels], /) -> tuple[str, ...]:
    """The planned sizes of treated runs, smallest first: claims are primary for the first."""
    found = {str(labels["size"]): int(labels["non_embedding"] or 0) for labels in plan if labels["passes"]}
    return tuple(sorted(found, key=lambda size: found[size]))


def _arm(name: str, of: Grid, line: Line, *, subsets: dict[float, int], drawn: Sequence[Curve]) -> Arm:
    control, starved = of.control[line[0]], of.starved.get(line, {})
    excess = {passes: of.excess(line, passes) for passes in of.repeated[line]}
    excess = {passes: losses for passes, losses in excess.items() if losses}
    worst = worst_passes(excess)
    treated = {seed: of.repeated[line][passes][seed] for seed, passes in worst.items()}
    known = of.subset.get(line, {})
    subset = {seed: known[passes][seed] for seed, passes in worst.items() if seed in known.get(passes, {})}
    return Arm(
        name=name,
        line=line,
        n_params=of.n_params[line[0]],
        control=control,
        excess=excess,
        worst=worst,
        treated=treated,
        damage=minus(treated, control),
        starvation=minus(starved, control),
        interference=minus(treated, starved),
        subset=subset,
        subsets=subsets,
        curves=tuple(drawn),
    )


def worst_passes(excess: Mapping[float, Losses], /) -> dict[Hashable, float]:
    """For each seed the passes of the largest mean excess of the others, among those that it has itself."""
    found: dict[Hashable, float] = {}
    for seed in dict.fromkeys(seed for losses in excess.values() for seed in losses):
        own = {passes: losses for passes, losses in excess.items() if seed in losses}
        others = {
            passes: [value for other, value in losses.items() if other != seed]
            for passes, losses in own.items()
        }
        judged = {passes: mean(values) for passes, values in others.items() if values}
        alone = {passes: losses[seed] for passes, losses in own.items()}
        found[seed] = max(judged or alone, key=(judged or alone).__getitem__)
    return found


def chosen_text(arm: Arm, /) -> str:
    """At which passes a damage was read."""
    at = " and ".join(f"{passes:g}" for passes in sorted(set(arm.worst.values())))
    if len(arm.excess) == 1:
        return f"at {at} passes"
    how = "chosen on the other seeds" if len(arm.worst) > 1 else "chosen on the same run"
    return f"at {at} passes, the worst of {', '.join(f'{e:g}' for e in arm.excess)}, {how}"


def scan_of(of: Grid, /) -> ControlScan | None:
    """The control ladder, None where too few sizes are there."""
    by_size = {float(of.n_params[size]): losses for size, losses in of.control.items()}
    try:
        return control_scan(by_size, vocab_size=of.vocab_size)
    except SpecError:
        return None


def size_ratio(scan: ControlScan, *, treated: Losses, control: Losses, n_params: int) -> Estimate:
    """Effective size of the treated runs over that of their own control, both read between the controls.

    By seed on the log scale; where a loss leaves the ladder the ratio is an open bound. What changes the
    control as well, such as weight decay, is thereby not counted as a cost of repetition.
    """
    ratios: list[float] = []
    least: list[float] = []
    seeds = [seed for seed in treated if seed in control]
    for seed in seeds:
        one, other = (
            effective_size(scan, n_params=n_params, losses={seed: losses[seed]}, method="interpolation").n_eff
            for losses in (treated, control)
        )
        if one.value is not None and other.value is not None:
            ratios.append(one.value / other.value)
        elif one.high is not None and other.value is not None:
            least.append(one.high / other.value)
    method = "ratio of effective sizes, paired by seed"
    if not seeds or len(ratios) + len(least) < len(seeds):
        return Estimate(None, None, None, len(seeds), method)
    if least:
        return Estimate(None, None, max(ratios + least), len(seeds), f"{method}, outside the ladder")
    found = t_interval(ratios, scale="log")
    return found._replace(method=f"{method}, {found.method}")


def costs(
    effects: Losses, *, name: str, statement: str, source: str, note: str, primary: bool, unit: str = "nats"
) -> Claim:
    """A claim that a mean over seeds is above zero; undecided while no seed has its runs."""
    if not effects:
        return _open(name, statement, source, primary, "mean over seeds above 0 (t test)")
    return directional(
        by_seed(effects), name=name, statement=statement, source=source, note=note, primary=primary, unit=unit
    )


def alike(
    effects: Losses, *, name: str, statement: str, source: str, margin: float, note: str, primary: bool
) -> Claim:
    """A claim that a mean over seeds is zero within a margin; undecided while no seed has its runs."""
    if not effects:
        rule = f"mean over seeds within +-{margin:g} nats (two one-sided tests)"
        return _open(name, statement, source, primary, rule)
    return equivalent(
        by_seed(effects), name=name, statement=statement, source=source, margin=margin, note=note,
        primary=primary, unit="nats",
    )  # fmt: skip


def _open(name: str, statement: str, source: str, primary: bool, rule: str) -> Claim:
    return undecided(name=name, statement=statement, source=source, rule=rule, note=NOT_YET, primary=primary)


def over_training(arm: Arm, /) -> Iterator[tuple[float, Losses]]:
    """Tokens (mean over seeds) and excess over the arm's control by seed, at the worst passes of each."""
    control = {one.seed: one for one in arm.curves if one.arm == "control"}
    treated = [
        one for one in arm.curves
        if one.arm == "repeated" and arm.worst.get(one.seed) == one.passes and one.seed in control
    ]  # fmt: skip
    found: dict[int, tuple[list[float], Losses]] = {}
    for one in treated:
        beside = control[one.seed]
        if not same_points(one, beside):
            continue
        for place, (tokens, loss, level) in enumerate(zip(one.tokens, one.loss, beside.loss, strict=True)):
            at, losses = found.setdefault(place, ([], {}))
            at.append(tokens)
            losses[one.seed] = loss - level
    for at, losses in found.values():
        yield mean(at), losses
