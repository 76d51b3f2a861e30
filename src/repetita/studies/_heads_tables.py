"""What repetition does to induction heads, in numbers: every cell, effective sizes, the control ladder."""

from collections.abc import Iterator

from repetita.fit.effective_size import effective_size
from repetita.fit.estimate import Estimate, t_interval
from repetita.fit.score_size import score_size
from repetita.report.figure import Cell as Shown
from repetita.report.page import Table
from repetita.studies._grid import Losses
from repetita.studies._heads import SCORE, Cell, Heads, control, disproportion, loss_scan, onsets, scan_of

SCORES = {
    "loss": "test loss", "prefix_query_mean": "prefix a query, mean", "prefix_query_top": "top 3",
    "prefix_query_max": "best", "prefix_entry_mean": "prefix an entry, mean",
    "prefix_entry_max": "best (entry)", "in_context": "in-context score",
}  # fmt: skip
CIRCUITS = {
    "prefix_query_max": "prefix a query, best", "previous_token_max": "previous token, best",
    "ov_eigen_max": "OV copying, best", "ov_activation_max": "by activations, best",
    "induction_ov": "OV copying of the best prefix head", "k_composition_max": "K-composition, best",
}  # fmt: skip


def tables(heads: Heads) -> Iterator[Table]:
    """Scores and circuits of all cells; sizes where something is treated."""
    if heads.final:
        yield scores(heads)
        yield circuits(heads)
    if heads.lines():
        yield sizes(heads)


def scores(heads: Heads) -> Table:
    """Prefix matching and losses of every cell, controls first."""
    rows: list[list[Shown]] = [
        [
            *_named(cell), *(_text(heads.of(metric, cell)) for metric in SCORES), _formed(heads, cell),
            len(heads.of("loss", cell)),
        ]
        for cell in _cells(heads)
    ]  # fmt: skip
    return Table(
        "induction-scores", "Every cell",
        "Means over seeds with 95% t intervals, at the end of training. Prefix matching a query: attention "
        "to all earlier followers of the same token (a perfect head has 1); an entry: mean attention to one "
        "of them (0.5 with four copies). In-context score: test loss late in a sequence minus early, nats. "
        "Formed: step from which the best head stays at 0.5 or above.",
        f"{len(rows)} cells", ("N", "f", "passes E", *SCORES.values(), "formed at step", "seeds"), rows,
    )  # fmt: skip


def circuits(heads: Heads) -> Table:
    """What else makes an induction head, by cell."""
    rows: list[list[Shown]] = [
        [*_named(cell), *(_text(heads.of(metric, cell)) for metric in CIRCUITS), len(heads.of("loss", cell))]
        for cell in _cells(heads)
    ]
    return Table(
        "induction-circuits", "What heads look at and what they write",
        "Highest of all heads, mean over seeds with 95% t intervals, at the end of training. Previous token: "
        "mean attention to the token before, on the test set. OV copying: from the weights, sum of the "
        "eigenvalues of a head's OV circuit over the sum of their moduli; by activations: share of what it "
        "raises that it attends to, both from -1 to 1. K-composition: trace of a head's QK circuit with keys "
        "written by earlier heads, weighted by their previous-token scores, in units of attention scores.",
        f"{len(rows)} cells", ("N", "f", "passes E", *CIRCUITS.values(), "seeds"), rows,
    )  # fmt: skip


def sizes(heads: Heads) -> Table:
    """Size multipliers of every treated cell, and how disproportionate they are."""
    scan, by_loss = scan_of(heads), loss_scan(heads)
    rows: list[list[Shown]] = []
    for line in heads.lines():
        at = disproportion(heads, line)
        ratio = _ratio(at.on_score, at.on_loss)
        for cell in heads.cells(line):
            n_params, own = heads.n_params[cell[0]], heads.of(SCORE, control(cell[0]))
            score, losses = heads.of(SCORE, cell), heads.of("loss", cell)
            row: list[Shown] = [cell[0], f"{line[1]:g}", f"{cell[2]:g}"]
            if scan is not None and set(score) & set(own):
                found = score_size(scan, n_params=n_params, scores=score, control=own)
                read = "not read" if scan.refused else _noted(found.multiplier, found.note)
                row += [_shown(found.drop), read, _number(found.extrapolated)]
            else:
                row += [None, None, None]
            if by_loss is not None and losses:
                size = effective_size(by_loss, n_params=n_params, losses=losses)
                paper = None if size.extrapolated is None else size.extrapolated / n_params
                row += [_shown(size.excess), _noted(size.multiplier, size.note), _number(paper)]
            else:
                row += [None, None, None]
            rows.append([*row, ratio, len(losses)])
    return Table(
        "induction-sizes", "Effective sizes",
        "Drop of the prefix-matching score (mean over heads) and excess of the test loss against the "
        "control, paired by seed; effective size / size by each, and the paper's way: the fit inverted "
        "wherever it leads. Disproportion: ln of the size lost by prefix matching over that by test loss, "
        "at the worst passes of the line, where both are lost. Not read: the controls refuse it, as the page "
        "says under 'Read with care'.",
        f"{len(rows)} treated cells",
        ("N", "f", "passes E", "score lost", "effective size / size by score", "paper's way",
         "excess loss, nats", "effective size / size by loss", "the paper's way", "disproportion", "seeds"),
        rows,
    )  # fmt: skip


def _cells(heads: Heads) -> list[Cell]:
    """Controls by size, then treated cells."""
    treated = [cell for line in heads.lines() for cell in heads.cells(line)]
    return [*(control(size) for size in heads.sizes()), *treated]


def _named(cell: Cell) -> list[Shown]:
    return [cell[0], *(None if part is None else f"{part:g}" for part in cell[1:])]


def _ratio(on_score: Losses, on_loss: Losses) -> str | None:
    """Mean over mean: a ratio by seed has no mean where the smaller damage is near 0."""
    if not on_score:
        return None
    score, loss = (sum(values.values()) / len(values) for values in (on_score, on_loss))
    return f"{score / loss:.2g}" if score > 0 and loss > 0 else "not both are lost"


def _formed(heads: Heads, cell: Cell) -> str | None:
    found = onsets(heads, cell)
    if not found:
        return None
    steps = [one.x for one in found.values() if one.x is not None]
    missing = len(found) - len(steps)
    if not steps:
        return f"not by step {heads.steps}"
    shown = _text(dict(enumerate(steps)))
    return f"{shown}; not in {missing} of {len(found)} seeds" if missing else shown


def _noted(found: Estimate, note: str) -> str:
    return found.text(digits=2) + (f" ({note})" if note else "")


def _number(value: float | None) -> str | None:
    return None if value is None else f"{value:.2g}"


def _shown(found: Estimate) -> str:
    return found.text(digits=2) if found.n > 1 else f"{found.value:.3g}"


def _text(values: Losses) -> str | None:
    if not values:
        return None
    found = t_interval(list(values.values()))
    return found.text() if found.n > 1 else f"{found.value:.3g}"
