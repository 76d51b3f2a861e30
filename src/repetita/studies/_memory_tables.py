"""What is kept of one exposure, in numbers: tables of the forgetting study."""

from collections.abc import Hashable, Iterator, Mapping, Sequence

import numpy as np

from repetita.fit.estimate import t_interval
from repetita.report.figure import Cell
from repetita.report.page import Table
from repetita.studies._memory import Kept
from repetita.studies._memory_figures import after_text, count_text


def tables(cells: Sequence[Kept]) -> Iterator[Table]:
    """Floors by cell and what the controls leave of them, then the fitted forms of decay."""
    n = count_text(cells)
    yield Table(
        "forgetting-ends", "What is kept",
        "M(f); means over seeds with 95% t intervals where there are several. Lowest: the paper's forgetting "
        "baseline, biased downwards. Minus placebo and minus twin (difference in differences): at the end.",
        n,
        ("N", "exposures", "afterwards", "before", "right after", "lowest (paper)", "at the end",
         "minus placebo", "minus twin"),
        [_kept(cell) for cell in cells],
    )  # fmt: skip
    yield Table(
        "forgetting-decays", "Forms of decay",
        "Fitted from one pass after the exposure on, as the paper measures. Floor of each fitted form; AICc "
        "takes residuals for independent, so read the error on a seed left out of the fit beside it. A floor "
        "is open where the horizon is too short to separate the forms.",
        n,
        ("N", "exposures", "afterwards", "curve", "form", "floor", "AICc", "left-out error"),
        [row for cell in cells for row in _forms(cell)],
    )  # fmt: skip


def _head(cell: Kept) -> list[Cell]:
    return [cell.arm.size, cell.arm.times, after_text(cell)]


def _kept(cell: Kept) -> list[Cell]:
    raw = cell.summary("raw")
    return [
        *_head(cell),
        f"{np.mean(list(cell.before.values())):.4f}",
        f"{np.mean([curve[0] for curve in cell.special.values()]):.4f}",
        raw.baseline.text(),
        raw.last.text(),
        _text(cell.last("minus_placebo")),
        _text(cell.last("minus_twin")),
    ]


def _forms(cell: Kept) -> Iterator[list[Cell]]:
    for how in ("raw", "minus_placebo"):
        for decay in cell.decays(how).decays:
            floor = "none" if decay.floor is None else decay.floor.text()
            if how == "raw" and decay.floor is not None and not 0 <= decay.constant <= 1:
                floor += ", no share: the form does not fit"
            left_out = None if decay.left_out is None else f"{decay.left_out:.4f}"
            yield [*_head(cell), how.replace("_", " "), decay.form, floor, f"{decay.aicc:.1f}", left_out]


def _text(by_seed: Mapping[Hashable, float]) -> str:
    found = t_interval(list(by_seed.values()))
    return found.text() if found.n > 1 else f"{found.value:.4f}"
