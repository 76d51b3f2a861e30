"""What repeated data costs, in numbers: tables of the double-descent study."""

from collections.abc import Iterator, Mapping, Sequence

from repetita.fit.effective_size import ControlScan, effective_size, profitable_multiplier
from repetita.fit.estimate import Estimate, t_interval
from repetita.report.figure import Cell
from repetita.report.page import Table
from repetita.studies._damage import SHARES, Damage, damages
from repetita.studies._damage import within_runs as within
from repetita.studies._damage_claims import crossing_text
from repetita.studies._damage_figures import count_text
from repetita.studies._damage_size import stored
from repetita.studies._grid import Curve, Grid, Losses

WITHIN = {
    "literal": "falls, rises, falls",
    "rising": "falls, rises",
    "plateau": "plateau",
    "none": "no rise, no plateau",
}


def tables(
    grid: Grid,
    *,
    found: Sequence[Damage],
    scan: ControlScan | None,
    equivalents: Sequence[tuple[Curve, Estimate]],
) -> Iterator[Table]:
    """Peaks, every cell of the grid, equivalent tokens, and the control ladder."""
    if found:
        yield _lines(grid, found, scan)
    if grid.repeated:
        yield _cells(grid, scan)
    if equivalents:
        yield _equivalent_tokens(equivalents)
    if grid.control:
        yield _controls(grid, scan)


def within_runs(curves: Sequence[Curve]) -> Iterator[Table]:
    """What every run's test loss does over its training (the paper's Fig. 3)."""
    every = [one for rate in sorted({c.schedule for c in curves}) for one in within(curves, schedule=rate)]
    rows: list[list[Cell]] = [
        [
            curve.schedule, curve.size, f"{curve.fraction:g}", f"{curve.passes:.4g}", curve.seed,
            WITHIN[hump.kind], None if hump.start is None else f"{hump.start:.2g} to {hump.stop:.2g}",
            f"{hump.rise:.3f}", f"{hump.after:.3f}" if hump.kind in ("literal", "rising") else None,
            f"{hump.noise:.3f}",
        ]
        for curve, hump in every
    ]  # fmt: skip
    if rows:
        yield Table(
            "within-runs", "Test loss within each run",
            "Whether the smoothed test loss of a run falls, rises and falls again, by more than three "
            "standard deviations of the control's noise; a plateau: flat over a factor of two of tokens in "
            "which the control still falls. At a cosine rate a last fall may be the schedule's. Nats a "
            "token; tokens of the rise or of the plateau.",
            f"{len(rows)} runs",
            ("rate", "N", "f", "passes E", "seed", "test loss", "tokens", "rise", "fall after it",
             "noise, sd"),
            rows,
        )  # fmt: skip


def arms(beside: Mapping[str, Grid]) -> Iterator[Table]:
    """The lines at other learning rates and on other corpora (the paper's Figs. 11 and 16 are of code)."""
    rows: list[list[Cell]] = []
    for name, grid in beside.items():
        for one in damages(grid):
            sides = (one.band.left, one.band.right) if one.band else (None, None)
            rows.append([
                name, one.line[0], f"{one.line[1]:g}", _text(grid.control[one.line[0]]),
                f"{one.hump.peak_interpolated:.3g}", one.hump.kind, _text(one.excess),
                *(side and crossing_text(side) for side in sides), len(one.excess),
            ])  # fmt: skip
    if rows:
        yield Table(
            "arms", "Other learning rates and other corpora",
            "Losses and damage in nats a token; damage over the control of the same arm at the worst passes, "
            "which each seed takes from the others where there are several. Half damage: passes at which the "
            "mean damage is half of its maximum, in nats.",
            "; ".join(f"{name}: {count_text(grid)}" for name, grid in beside.items() if grid.repeated),
            ("arm", "N", "f", "control", "peak E", "peak is", "damage", "half damage from", "to", "seeds"),
            rows,
        )  # fmt: skip


def _lines(grid: Grid, found: Sequence[Damage], scan: ControlScan | None) -> Table:
    rows: list[list[Cell]] = []
    for damage in found:
        size, fraction = damage.line
        band = damage.band
        sides = [side and crossing_text(side) for side in (band.left, band.right)] if band else [None, None]
        pays = None
        if scan is not None and scan.law.exponent > 0:
            pays = f"{profitable_multiplier(fraction=fraction, exponent=scan.law.exponent):.2g}"
        rows.append([
            size, f"{fraction:g}", f"{damage.hump.peak_interpolated:.3g}", damage.hump.kind, *sides,
            _text(damage.excess), _text(damage.starvation), _text(damage.interference),
            *(crossing_text(damage.markers[share]) for share in SHARES), pays,
        ])  # fmt: skip
    return Table(
        "lines", "Peaks, bands and markers",
        "Peak: of the mean loss over seeds, interpolated. Half damage: passes at which the excess is half of "
        "its maximum, in nats. Damage, starvation and interference: nats at the peak, which each seed takes "
        "from the others where there are several. Subset under 5, 10 and 20% of the test loss: passes. Pays "
        "above: effective size / size above which memorizing the subset would pay, by the control's law.",
        count_text(grid),
        ("N", "f", "peak E", "peak is", "half damage from", "to", "damage", "starvation", "interference",
         *(f"subset under {share:.0%}" for share in SHARES), "pays above"),
        rows,
    )  # fmt: skip


def _cells(grid: Grid, scan: ControlScan | None) -> Table:
    rows: list[list[Cell]] = []
    for line in grid.lines():
        for passes, losses in grid.repeated[line].items():
            subset = grid.subset.get(line, {}).get(passes, {})
            rows.append([
                line[0], f"{line[1]:g}", f"{passes:.4g}", _text(losses), _text(subset),
                _text(grid.excess(line, passes)), *_multipliers(scan, losses, grid.n_params[line[0]]),
                None if (bits := stored(grid, line, passes)) is None else f"{bits:.2g}", len(losses),
            ])  # fmt: skip
    return Table(
        "cells", "Every cell",
        "Means over seeds with 95% t intervals; losses in nats a token. Excess is paired by seed. Effective "
        "size: between neighbouring controls; by the law: the fitted power law inverted, as in the paper. "
        "Stored bits: control's test loss minus the loss on the subset, over all tokens of the subset.",
        count_text(grid),
        ("N", "f", "passes E", "test loss", "subset loss", "excess, nats", "effective size / size",
         "by the law", "stored bits / parameter", "seeds"),
        rows,
    )  # fmt: skip


def _equivalent_tokens(equivalents: Sequence[tuple[Curve, Estimate]]) -> Table:
    rows: list[list[Cell]] = [
        [one.size, f"{one.fraction:g}", f"{one.passes:.4g}", f"{one.tokens[-1]:,.0f}", found.text(), found.n]
        for one, found in equivalents
    ]
    return Table(
        "equivalent-tokens", "Equivalent unique tokens",
        "Unique tokens after which the control of the same size was as good as the treated run at its end, "
        "both at a constant learning rate, on the sequences of the learning curve.",
        f"{len(rows)} cells", ("N", "f", "passes E", "tokens T", "equivalent unique tokens", "seeds"), rows,
    )  # fmt: skip


def _controls(grid: Grid, scan: ControlScan | None) -> Table:
    sizes = sorted(grid.control, key=lambda size: grid.n_params[size])
    rows: list[list[Cell]] = [
        [
            size, grid.n_params[size], _text(grid.control[size]),
            None if scan is None else f"{float(scan.law.predict(grid.n_params[size])):.4f}",
            len(grid.control[size]),
        ]
        for size in sizes
    ]  # fmt: skip
    law = ""
    if scan is not None:
        exponent = scan.law.estimates()["exponent"]
        law = f" Law: loss = {scan.law.coefficient:.3g} N^-alpha, alpha = {exponent.text(digits=2)}."
    runs = f"{sum(len(losses) for losses in grid.control.values())} runs"
    columns = ("N", "non-embedding", "test loss", "law", "seeds")
    return Table("controls", "The control ladder", f"Unique data only.{law}", runs, columns, rows)


def _multipliers(scan: ControlScan | None, losses: Losses, n_params: int) -> tuple[str | None, str | None]:
    """Read between controls, with its note, and the paper's way: the law inverted wherever it leads."""
    if scan is None:
        return None, None
    found = effective_size(scan, n_params=n_params, losses=losses, method="interpolation")
    law = None if found.extrapolated is None else f"{found.extrapolated / n_params:.2g}"
    return found.multiplier.text(digits=2) + (f" ({found.note})" if found.note else ""), law


def _text(losses: Losses) -> str | None:
    if not losses:
        return None
    found = t_interval(list(losses.values()))
    return found.text() if found.n > 1 else f"{found.value:.3f}"
