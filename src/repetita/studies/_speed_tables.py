"""How fast a training set is memorized, in numbers: tables of the speed study."""

from collections.abc import Hashable, Iterator, Mapping, Sequence

import numpy as np

from repetita.fit.estimate import t_interval
from repetita.fit.times_to_memorize import UNITS, Unit, over_seeds, time_to
from repetita.report.figure import Cell
from repetita.report.page import Table
from repetita.studies._speed import (
    ALL_TARGETS,
    CAUSAL,
    MASKED,
    STANDARD,
    TAUS,
    Cells,
    Online,
    as_progress,
    common_seeds,
)
from repetita.studies._speed_claims import EXCESS, HIGH
from repetita.studies._speed_figures import count_text
from repetita.studies._speed_ladder import Ladder, length_ratio, trends


def tables(found: Cells, *, main: Cells, online: Sequence[Online], window: int) -> Iterator[Table]:
    """T by size, tau and unit; its power law by tau; run lengths; M_update; the other arms and sets."""
    if main:
        n = count_text(main)
        yield _times(main, n, window)
        yield _trends(main, n, window)
        yield _lengths(main, n, window)
        yield _updates(main, online, n, window)
    others = {key: runs for key, runs in found.items() if key not in main}
    if others:
        yield _arms(others, main, window)


def _times(main: Cells, n: str, window: int) -> Table:
    rows: list[list[Cell]] = []
    for key, runs in main.items():
        for tau in TAUS[key.objective]:
            by_unit = {
                unit: {seed: run.times(tau, window=window)[unit] for seed, run in runs.items()}
                for unit in UNITS
            }
            shown = [over_seeds(by_unit[unit]).text() for unit in UNITS]
            reached = sum(one.reached for one in by_unit["passes"].values())
            rows.append([key.objective, key.size, tau, *shown, f"{reached} of {len(runs)}"])
    return Table(
        "speed-times", "T(N, tau)",
        "Until M(f), from full passes, reaches tau and stays there. Geometric means over seeds with 95% t "
        "intervals; `above`: some seed ended before. Exposures: how often a position was a scored target.",
        n,
        ("models", "N", "tau", "passes", "updates", "target exposures", "tokens read", "seeds that reach it"),
        rows,
    )  # fmt: skip


def _trends(main: Cells, n: str, window: int) -> Table:
    rows: list[list[Cell]] = []
    for objective in (CAUSAL, MASKED):
        keys = [key for key in main if key.objective == objective]
        seeds = common_seeds(main, keys)
        if len(keys) < 2 or not seeds:
            continue
        there = Ladder(tuple(main[key] for key in keys), tuple(seeds), window)
        for tau, fitted in trends(there, taus=TAUS[objective]):
            if fitted is None:
                rows.append([objective, tau, "too few sizes reach it", None, None])
            else:
                rows.append([objective, tau, fitted.exponent.text(), fitted.n, fitted.n_censored])
    return Table(
        "speed-trends", "T(N, tau) as a power of N",
        "Exponent b of T ~ N^b by maximum likelihood of a log-normal scatter, with one T a size, the "
        "geometric mean over seeds; a size of which some seed did not reach tau counts as beyond that mean "
        "with the end of such runs. Negative: larger models need fewer passes. A power law is a summary "
        "here: the interval holds the scatter of sizes about it, with two degrees of freedom fewer than "
        "sizes that reach tau.",
        n,
        ("models", "tau", "b", "sizes", "censored"),
        rows,
    )  # fmt: skip


def _lengths(main: Cells, n: str, window: int) -> Table:
    rows: list[list[Cell]] = []
    for key, runs in main.items():
        measured, weighted = (
            {seed: run.length_at(metric, tau=HIGH, window=window) for seed, run in runs.items()}
            for metric in ("unit_length", "unit_length_token_weighted")
        )
        ratio = {seed: length_ratio(run, tau=HIGH, window=window) for seed, run in runs.items()}
        last = [float(run.progress.memorized[-1]) for run in runs.values()]
        test = [float(run.test.value[-1]) for run in runs.values()]
        excess = {
            seed: time_to(run.excess(), tau=EXCESS, window=window)["passes"] for seed, run in runs.items()
        }
        rows.append([
            key.objective, key.size, _text(measured), _text(ratio), _text(weighted), f"{np.mean(last):.4f}",
            f"{np.mean(test):.4f}", over_seeds(excess).text(),
        ])  # fmt: skip
    return Table(
        "speed-lengths", "Run lengths, and memory in excess of prediction",
        f"Mean length of runs of memorized tokens where M(f) is {HIGH:g}, in tokens; its ratio to the same "
        "hits shuffled in their sequences; mean length of the run that a memorized token is in. Then M(f) "
        f"at the end, the test set's, and the passes until the first is {EXCESS:g} above the second.",
        n,
        ("models", "N", "run length", "to shuffled", "token-weighted", "M(f), end", "test set, end",
         f"passes to excess {EXCESS:g}"),
        rows,
    )  # fmt: skip


def _updates(main: Cells, online: Sequence[Online], n: str, window: int) -> Table:
    rows: list[list[Cell]] = []
    for key, runs in main.items():
        kinds = dict.fromkeys(one.kind for one in online if one.key == key)
        full = over_seeds(
            {seed: run.times(HIGH, window=window)["updates"] for seed, run in runs.items()}
        ).text()
        for kind in kinds:
            chosen = {
                one.seed: one for one in online if one.key == key and one.kind == kind and one.seed in runs
            }
            if not chosen:
                continue
            times = {
                seed: time_to(as_progress(one, run=runs[seed]), tau=HIGH, window=window)["updates"]
                for seed, one in chosen.items()
            }
            end = [float(one.points.value[-1]) for one in chosen.values()]
            shown = "all" if kind == ALL_TARGETS else kind
            rows.append(
                [key.objective, key.size, shown, full, over_seeds(times).text(), f"{np.mean(end):.4f}"]
            )
    return Table(
        "speed-updates", "T from full passes and T_update from training batches",
        f"Updates until M(f) is {HIGH:g}, and until M_update is, the share of hits in training batches "
        "before their update; for masked models also by what was shown in place of the target.",
        n,
        ("models", "N", "targets", f"T(N, {HIGH:g})", f"T_update(N, {HIGH:g})", "M_update, end"),
        rows,
    )  # fmt: skip


def _arms(others: Cells, main: Cells, window: int) -> Table:
    rows: list[list[Cell]] = []
    units: tuple[Unit, ...] = ("passes", "updates", "tokens")
    for key, runs in others.items():
        standard = main.get(key._replace(arm=STANDARD))
        for tau in TAUS[key.objective]:
            shown = [
                over_seeds({seed: run.times(tau, window=window)[unit] for seed, run in runs.items()}).text()
                for unit in units
            ]
            beside = None
            if standard is not None:
                times = {seed: run.times(tau, window=window)["passes"] for seed, run in standard.items()}
                beside = over_seeds(times).text()
            named: list[Cell] = [key.objective, key.size, key.n_sequences, key.arm, tau]
            rows.append([*named, *shown, beside, len(runs)])
    return Table(
        "speed-arms", "Other recipes and training sets",
        "T(N, tau) where the recipe or the training set is another, beside the standard recipe's. Own batch: "
        "larger models read larger batches at lower rates, as in the paper.",
        count_text(others),
        ("models", "N", "sequences", "recipe", "tau", "passes", "updates", "tokens read",
         "standard, passes", "seeds"),
        rows,
    )  # fmt: skip


def _text(by_seed: Mapping[Hashable, float | None]) -> str | None:
    values = [value for value in by_seed.values() if value is not None]
    if not values:
        return None
    found = t_interval(values, scale="log")
    return found.text() if found.n > 1 else f"{found.value:.3g}"
