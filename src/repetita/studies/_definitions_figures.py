"""Definitions of memorization side by side: figures and tables."""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np

from repetita.fit.counterfactual import influence, largest_by_chance, squared_error_bound
from repetita.fit.estimate import Estimate, t_interval
from repetita.report.figure import Axis, Figure, Layer, Panels, Row, Rule, Series
from repetita.report.figure import Cell as Value
from repetita.report.page import Table
from repetita.studies._definitions import LATE, MID, SCORES, Cell, Floats, State

LINE, POINT = Layer(kind="line"), Layer(kind="point")
BAND = Layer(kind="band", low="low", high="high")
INTERVAL = Layer(kind="interval", low="low", high="high")
SHOWN_INFLUENCES = 5
PAIRS = ("counterfactual", "head", "unseen")
ITSELF = "M(f) of other models"


def figures(cells: Sequence[Cell]) -> Iterator[Figure]:
    """Shares and agreement over training, then sequence by sequence."""
    yield shares(cells)
    agreed = agreements(cells)
    if agreed is not None:
        yield agreed
    yield scatter(cells)
    yield spread(cells)


def tables(cells: Sequence[Cell]) -> Iterator[Table]:
    """The matrix of agreements, k-eidetic counts and the most influenced held-out sequences."""
    yield matrix(cells)
    if any(cell.counts for cell in cells):
        yield eidetic(cells)
    yield influences(cells)


def shares(cells: Sequence[Cell]) -> Figure:
    """How much is memorized under each definition, over training."""
    rows: list[Row] = []
    for cell in cells:
        for state in cell.states:
            for what, values in _shares(cell, state):
                known = values[np.isfinite(values)]
                if len(known) > 1:
                    spread = _bounds(t_interval(known, contains="models"))
                    rows.append({"panel": cell.name, "passes": state.passes, "what": what, **spread})
    return Figure(
        name="definitions-shares",
        title="How much is memorized depends on who asks",
        caption="M(f) counts tokens; all else counts strings of "
        f"{cells[0].suffix} tokens that come out whole. Memorized token by token: every token right with all "
        "of the sequence before it. From the head: greedy decoding continues the first k tokens of a "
        "training sequence exactly. From inside: it is given k tokens out of the middle and nothing before "
        "them. Unseen: the half of the common set that a model was not trained on. Band: 95% t interval over "
        "models.",
        n=_n(cells),
        rows=tuple(rows),
        x=Axis(column="passes", title="passes over the training half"),
        y=Axis(column="value", title="share", domain=(0.0, 1.0)),
        series=Series(
            column="what", title="", order=tuple(what for what, _ in _shares(cells[0], cells[0].states[0])),
            muted=("M(f), unseen",),
        ),
        panels=_panels(cells),
        layers=(BAND, LINE, POINT),
    )  # fmt: skip


def _shares(cell: Cell, state: State) -> Iterator[tuple[str, Floats]]:
    yield "M(f)", state.own(state.memorized)
    yield "M(f), unseen", state.unseen(state.memorized)
    yield "memorized token by token", state.own(_exact(state.context, cell))
    for k in cell.prompts:
        yield f"from the head, k = {k}", state.own(_exact(state.head[k], cell))
    for k in cell.prompts:
        yield f"from inside, k = {k}", state.own(_exact(state.inside[k], cell))


def agreements(cells: Sequence[Cell]) -> Figure | None:
    """Rank agreement with M(f) over training; None while no two definitions have an interval."""
    rows: list[Row] = []
    for cell in cells:
        for state in cell.states:
            for other, title in {"memorized": ITSELF, **{name: SCORES[name] for name in PAIRS}}.items():
                found = state.interval("memorized", other, corrected=False)
                # Where a definition does not tell sequences apart there is nothing to draw.
                if found.low is not None:
                    rows.append(
                        {"panel": cell.name, "passes": state.passes, "level": state.level, "other": title,
                         **_bounds(found)}
                    )  # fmt: skip
    if not rows:
        return None
    return Figure(
        name="definitions-agreement",
        title="Who ranks sequences as M(f) does",
        caption="Spearman's rank correlation over the sequences of the common set between M(f), a mean over "
        "one half of the models that were trained on a sequence, and another definition from the other half "
        "of the models, so that no noise is shared. M(f) of other models is what noise leaves of a perfect "
        "agreement. Intervals: bootstrap over sequences and jackknife over models.",
        n=_n(cells),
        rows=tuple(rows),
        x=Axis(column="passes", title="passes over the training half"),
        y=Axis(column="value", title="rank correlation with M(f)"),
        series=Series(
            column="other", title="", order=(ITSELF, *(SCORES[name] for name in PAIRS)),
            muted=(ITSELF,),
        ),
        panels=_panels(cells),
        layers=(INTERVAL, LINE, POINT),
        rules=(Rule(axis="y", at=0.0, label="unrelated"),),
        tooltip=("level",),
    )  # fmt: skip


def scatter(cells: Sequence[Cell]) -> Figure:
    """Each sequence under two definitions."""
    rows: list[Row] = []
    for cell in cells:
        state = cell.nearest(MID)
        everyone = list(range(cell.models))
        memorized, unseen = (state.score(name, everyone) for name in ("memorized", "unseen"))
        third = np.nanquantile(unseen, [1 / 3, 2 / 3])
        for i, (x, y, guess) in enumerate(zip(memorized, state.counterfactual().value, unseen, strict=True)):
            if np.isfinite([x, y, guess]).all():
                group = ("hard", "middling", "easy")[int(np.searchsorted(third, guess))]
                rows.append(
                    {"panel": cell.name, "sequence": int(cell.sequence[i]), "memorized": float(x),
                     "counterfactual": float(y), "unseen": float(guess), "group": group}
                )  # fmt: skip
    return Figure(
        name="definitions-scatter",
        title="Each sequence under two definitions",
        caption="One point a sequence of the common set, at the state where M(f) is nearest to "
        f"{MID:g}. Across: M(f), mean over the models trained on it. Up: counterfactual memorization, the "
        "same less the mean over the models that were not. Colour: how well those predict it, in thirds. All "
        "models enter both, so that noise of M(f) alone makes the cloud rise.",
        n=_n(cells),
        rows=tuple(rows),
        x=Axis(column="memorized", title="M(f), models with the sequence"),
        y=Axis(column="counterfactual", title="counterfactual memorization"),
        series=Series(
            column="group", title="for models without it", kind="sequence", order=("hard", "middling", "easy")
        ),
        panels=_panels(cells),
        layers=(POINT,),
        tooltip=("sequence", "unseen"),
    )


def spread(cells: Sequence[Cell]) -> Figure:
    """The distribution of counterfactual memorization at three states."""
    rows: list[Row] = []
    for cell in cells:
        chosen = {state.passes: state for state in (cell.states[0], cell.nearest(MID), cell.nearest(LATE))}
        for state in chosen.values():
            values = state.counterfactual().value
            values = np.sort(values[np.isfinite(values)])
            for i, value in enumerate(values):
                rows.append(
                    {"panel": cell.name, "share": (i + 0.5) / len(values), "value": float(value),
                     "passes": f"{state.passes:g} passes"}
                )  # fmt: skip
    return Figure(
        name="definitions-counterfactual",
        title="Counterfactual memorization, sequence by sequence",
        caption="Sequences in order of their counterfactual memorization: M(f) of models trained on a "
        "sequence minus that of models which were not. Noise of the means over models widens the spread.",
        n=_n(cells),
        rows=tuple(rows),
        x=Axis(column="share", title="share of the sequences below"),
        y=Axis(column="value", title="counterfactual memorization"),
        series=Series(column="passes", title="", kind="sequence"),
        panels=_panels(cells),
        layers=(LINE,),
        rules=(Rule(axis="y", at=0.0, label="no difference"),),
    )


def matrix(cells: Sequence[Cell]) -> Table:
    """Agreement of every two definitions where M(f) is nearest to MID."""
    rows: list[list[Value]] = []
    for cell in cells:
        state = cell.nearest(MID)
        for one in SCORES:
            row: list[Value] = [cell.name, SCORES[one]]
            for other in SCORES:
                found = state.agreement(one, other)
                raw = "none" if found.raw is None else f"{found.raw:.2f}"
                corrected = "" if found.corrected is None or one == other else f" ({found.corrected:.2f})"
                row.append(raw + corrected)
            rows.append(row)
    return Table(
        "definitions-matrix",
        "Rank agreement of the definitions",
        "Spearman's rank correlation over sequences between definitions from disjoint halves of the models; "
        "in brackets corrected for the noise of both, which the diagonal shows: a definition against itself. "
        f"State where M(f) is nearest to {MID:g}. None: a definition that does not tell sequences apart.",
        _n(cells),
        ("N", "", *(SCORES[name] for name in SCORES)),
        rows,
    )


def eidetic(cells: Sequence[Cell]) -> Table:
    """Extracted strings by the number of training sequences that hold them."""
    rows: list[list[Value]] = []
    for cell in cells:
        state, k = cell.nearest(LATE), cell.prompts[-1]
        for n, places in cell.counts.items():
            heads = [(places[p], state.head[p]) for p in cell.prompts if p in places]
            inside = [
                (places[start], state.inside[k][:, :, w])
                for w, start in enumerate(cell.starts)
                if start in places
            ]
            for low, high in pairwise((1, 2, 3, np.inf)):
                picked = [_counted(group, state, n=n, low=low, high=high) for group in (heads, inside)]
                if sum(total for total, _ in picked):
                    named = f"{low:g}" if high == low + 1 else f"{low:g} or more"
                    shown = [
                        None if not total else f"{got / total:.3f} of {total:,}" for total, got in picked
                    ]
                    rows.append([cell.name, n, named, *shown])
    return Table(
        "definitions-eidetic",
        "k-eidetic: what is extracted, by how many training sequences hold it",
        "Strings at the start of the suffixes asked for that are in a model's training half, by their length "
        "in tokens and by the number of its training sequences that hold them; the share that is extracted "
        f"from the head (any k) and from inside (k = {cells[0].prompts[-1]}). State where M(f) is nearest to "
        f"{LATE:g}. k-eidetic memorization is extraction of strings that at most k examples hold.",
        _n(cells),
        ("N", "string, tokens", "sequences with it", "extracted from the head", "extracted from inside"),
        rows,
    )


def _counted(
    group: Sequence[tuple[Floats, Floats]], state: State, *, n: int, low: float, high: float
) -> tuple[int, int]:
    total = got = 0
    for counts, prefix in group:
        chosen = state.member & (counts >= low) & (counts < high) & np.isfinite(prefix)
        total += int(chosen.sum())
        got += int((prefix[chosen] >= n).sum())
    return total, got


def influences(cells: Sequence[Cell]) -> Table:
    """The largest influences of a training sequence on a held-out one, and the largest by chance."""
    rows: list[list[Value]] = []
    for cell in cells:
        state = cell.nearest(MID)
        found = influence(state.test, membership=state.member)
        value = np.where(np.isfinite(found.error), found.value, -np.inf)
        if not np.isfinite(value).any():
            continue
        chance = float(np.quantile(largest_by_chance(state.test, membership=state.member, draws=100), 0.95))
        for flat in np.argsort(value, axis=None)[::-1][:SHOWN_INFLUENCES].tolist():
            x, y = divmod(flat, value.shape[1])
            rows.append(
                [cell.name, int(cell.sequence[x]), int(cell.test_sequence[y]), f"{value[x, y]:.3f}",
                 f"{found.error[x, y]:.3f}", f"{chance:.3f}", "yes" if value[x, y] > chance else "no"]
            )  # fmt: skip
    bounds = {cell.name: squared_error_bound(models=cell.models, share=0.5) ** 0.5 for cell in cells}
    bound = ", ".join(
        f"{value:.2f} with {cell.models} models" for cell, value in zip(cells, bounds.values(), strict=True)
    )
    return Table(
        "definitions-influence",
        "The largest counterfactual influences on held-out text",
        "M(f) on a test sequence in models trained on a sequence minus that in models which were not, where "
        f"M(f) is nearest to {MID:g}. By chance: what the largest of all pairs stays below in 95 of 100 "
        "shuffles of the models. Feldman and Zhang's bound on the error of one pair says nothing here: "
        f"{bound}.",
        _n(cells),
        (
            "N",
            "training sequence",
            "test sequence",
            "influence",
            "standard error",
            "largest by chance",
            "beyond it",
        ),
        rows,
    )


def _exact(prefix: Floats, cell: Cell) -> Floats:
    return np.where(np.isfinite(prefix), prefix == cell.suffix, np.nan)


def _bounds(found: Estimate) -> Row:
    return {"value": found.value, "low": found.low, "high": found.high}


def _panels(cells: Sequence[Cell]) -> Panels | None:
    return (
        Panels(column="panel", title="", order=tuple(cell.name for cell in cells)) if len(cells) > 1 else None
    )


def _n(cells: Sequence[Cell]) -> str:
    models = ", ".join(f"{cell.models} models of {cell.name}" for cell in cells)
    return f"{models}, each on a random half of {len(cells[0].sequence):,} sequences"
