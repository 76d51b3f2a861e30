"""What repetition does to copying, drawn and in numbers: figures and tables of the study of copying."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from repetita.fit.effective_size import ControlScan
from repetita.fit.estimate import t_interval
from repetita.report.figure import Axis, Cell, Figure, Panels, Row, Series
from repetita.report.page import Table
from repetita.studies._copying import (
    TEST,
    ByCopy,
    ByIndex,
    Multiplier,
    Tables,
    at,
    excess,
    method_of,
    multipliers,
    passes_text,
    scan,
    treated_lines,
    worst,
)
from repetita.studies._damage_figures import INTERVAL, INTERVALS, LINE, PASSES, POINT, count_text, spread
from repetita.studies._grid import Grid, Line, Losses, line_text

if TYPE_CHECKING:
    from collections.abc import Callable

COPYING_LOSS = "loss on the copied passage, nats a token"


def figures(
    found: Tables,
    *,
    copies: Mapping[str, Sequence[ByCopy]],
    flat: Line | None,
    index: Sequence[ByIndex],
    natural: Mapping[str, Sequence[ByCopy]],
) -> Iterator[Figure]:
    """The figures that the measurements allow, in the order of the page; `flat` is the line of Fig. 7."""
    if found.passages:
        yield from multiplier_by_fraction(found)
        for passage in found.passages:
            yield from loss_by_copy(copies.get(passage, ()), passage=passage, line=flat, of=found.test)
        yield from loss_by_index(index, line=flat)
        yield control_loss(found)
        yield from loss_by_passes(found)
    yield from natural_by_copy(natural)


def multiplier_by_fraction(found: Tables) -> Iterator[Figure]:
    """Fig. 5: sizes left at the worst passes, by share, on copying and on test loss."""
    rows: list[Row] = []
    for name, grid in found.by_name().items():
        over = scan(grid)
        if over is None:
            continue
        for line in treated_lines(found.test):
            sizes = multipliers(grid, line, worst(found.test, line), over=over, method=method_of(name))
            cell: Row = {"what": _what(name), "size": line[0], "share": line[1], "seeds": len(sizes)}
            if sizes:
                rows.append({**cell, **_drawn(sizes)})
    if not rows:
        return
    sizes_there = sorted({str(row["size"]) for row in rows}, key=lambda size: found.test.n_params[size])
    yield Figure(
        name="copying-multiplier-by-fraction",
        title="How much of the model is left, by copying and by test loss",
        caption="Effective size over size at the worst number of passes (by test loss, of the other seeds), "
        "against the share f of repeated tokens. Copying: the size of the control with the same loss on the "
        "copied passage, between neighbouring sizes. Test loss: by the control's power law. Both over what "
        "the same seed's control comes to. A bar that runs to the edge is a bound: worse than the smallest, "
        f"or better than the largest control. {INTERVALS}",
        n=count_text(found.test),
        rows=tuple(rows),
        x=Axis(column="share", title="share f of repeated tokens (log)", scale="log"),
        y=Axis(column="multiplier", title="effective size / size (log)", scale="log"),
        series=Series(column="size", title="N", kind="sequence", order=tuple(sizes_there)),
        panels=Panels(column="what", title="", share="both"),
        layers=(INTERVAL, LINE, POINT),
        tooltip=("seeds",),
    )


def _drawn(sizes: Mapping[object, Multiplier]) -> Row:
    """Geometric mean over seeds with its interval; a bound where a seed has no size."""
    values = [one.value for one in sizes.values() if one.value is not None]
    if len(values) == len(sizes):
        mean = t_interval(values, scale="log")
        low, high = (mean.low, mean.high) if len(values) > 1 else (mean.value, mean.value)
        return {"multiplier": mean.value, "low": low, "high": high}
    highs = [one.high if one.value is None else one.value for one in sizes.values()]
    lows = [one.low if one.value is None else one.value for one in sizes.values()]
    there = [one for one in highs if one is not None], [one for one in lows if one is not None]
    high = max(there[0]) if len(there[0]) == len(highs) else None
    low = min(there[1]) if len(there[1]) == len(lows) else None
    return {"multiplier": None, "low": low, "high": high}


def loss_by_copy(cells: Sequence[ByCopy], *, passage: str, line: Line | None, of: Grid) -> Iterator[Figure]:
    """Fig. 7 left and Fig. 22: loss of each copy, by passes."""
    if line is None:
        return
    chosen = [
        one for one in cells if one.size == line[0] and (one.arm == "control" or one.fraction == line[1])
    ]
    treated = sorted({one.passes or 0.0 for one in chosen if one.arm == "repeated"})
    if not treated:
        return
    rows = [
        {"arm": _arm(one.passes), "copy": copy, "loss": loss, "seeds": one.n_seeds}
        for one in chosen
        for copy, loss in enumerate(one.losses, start=1)
    ]
    at_worst = ", ".join(passes_text(passes) for passes in sorted(set(worst(of, line).values())))
    yield Figure(
        name=f"copying-by-copy-{_word(passage)}",
        title=f"Loss on each copy of the {passage} passage",
        caption=f"{line_text(line)}. The passage stands several times in one row; a model that copies loses "
        "less from the second copy on. In the paper the loss is flat in the number of copies at the worst "
        f"number of passes (here, by test loss: {at_worst}). Means over seeds.",
        n=count_text(of),
        rows=tuple(rows),
        x=Axis(column="copy", title="copy", start="data"),
        y=Axis(column="loss", title="loss of the copy, nats a token"),
        series=_passes_series(treated),
        layers=(LINE, POINT),
        tooltip=("seeds",),
    )


def loss_by_index(curves: Sequence[ByIndex], *, line: Line | None) -> Iterator[Figure]:
    """Fig. 7 right: test loss along the sequence."""
    treated = sorted({one.passes or 0.0 for one in curves if one.arm == "repeated"})
    if line is None or not treated:
        return
    rows = [
        {"arm": _arm(one.passes), "index": (start + stop - 1) / 2 + 1, "loss": loss}
        for one in curves
        for start, stop, loss in zip(one.edges, one.edges[1:], one.losses, strict=False)
    ]
    yield Figure(
        name="copying-by-index",
        title="Test loss along the sequence",
        caption=f"{line_text(line)}, seed 0. Mean loss on the test set by place in the sequence, in bins "
        "that double: how much the text before helps. In the paper repetition takes less of this gain than "
        "of copying.",
        n=f"{len(curves)} runs, one seed, the test set of each",
        rows=tuple(rows),
        x=Axis(column="index", title="token of the sequence, from 1 (log)", scale="log"),
        y=Axis(column="loss", title="test loss, nats a token"),
        series=_passes_series(treated),
        layers=(LINE, POINT),
    )


def control_loss(found: Tables) -> Figure:
    """Fig. 20 left: the control's copying loss over sizes, beside its test loss."""
    rows: list[Row] = []
    for name, grid in found.by_name().items():
        for size in sorted(grid.control, key=lambda size: grid.n_params[size]):
            cell: Row = {"what": _what(name), "n_params": grid.n_params[size], "size": size}
            rows.append({**cell, **spread(grid.control[size])})
    return Figure(
        name="copying-control",
        title="The control's loss on copied passages, by size",
        caption="Runs on unique data only. Sizes are read off these curves between neighbouring points, for "
        f"the paper trusts no law for copying. {INTERVALS}",
        n=count_text(found.test),
        rows=tuple(rows),
        x=Axis(column="n_params", title="parameters without embeddings (log)", scale="log"),
        y=Axis(column="loss", title="loss, nats a token"),
        series=Series(column="what", title="on", order=tuple(_what(name) for name in found.by_name())),
        layers=(INTERVAL, LINE, POINT),
        tooltip=("size", "seeds"),
    )


def loss_by_passes(found: Tables) -> Iterator[Figure]:
    """Fig. 20 right: copying loss against passes, one figure a passage."""
    for passage in found.passages:
        grid = found.loss[passage]
        rows: list[Row] = [
            {"size": line[0], "share": f"f = {line[1]:g}", "passes": passes, **spread(losses)}
            for line in grid.lines()
            for passes, losses in grid.repeated[line].items()
        ]
        if not rows:
            continue
        sizes = sorted({str(row["size"]) for row in rows}, key=lambda size: grid.n_params[size])
        shares = list(dict.fromkeys(str(row["share"]) for row in rows))
        yield Figure(
            name=f"copying-by-passes-{_word(passage)}",
            title=f"Loss on the copied {passage} passage over passes",
            caption="Mean loss of all copies, the first one too, against the passes over the repeated "
            f"subset. In the paper the worst number of passes falls with size. {INTERVALS}",
            n=count_text(grid),
            rows=tuple(rows),
            x=Axis(column="passes", title=PASSES, scale="log"),
            y=Axis(column="loss", title=COPYING_LOSS),
            series=Series(column="size", title="N", kind="sequence", order=tuple(sizes)),
            panels=Panels(column="share", title="", share="both") if len(shares) > 1 else None,
            layers=(INTERVAL, LINE, POINT),
            tooltip=("seeds",),
        )


def natural_by_copy(natural: Mapping[str, Sequence[ByCopy]]) -> Iterator[Figure]:
    """Loss of each copy of a passage of natural text, controls alone."""
    rows: list[Row] = [
        {"size": one.size, "copy": copy, "loss": loss, "passage": passage, "seeds": one.n_seeds}
        for passage, cells in natural.items()
        for one in cells
        if one.arm == "control"
        for copy, loss in enumerate(one.losses, start=1)
    ]
    if rows:
        passages = list(dict.fromkeys(row["passage"] for row in rows))
        yield Figure(
            name="copying-natural",
            title="Controls on natural text: do they copy at all?",
            caption="Loss of each copy of a passage in models trained once through natural text. Where the "
            "later copies cost as much as the first, there is no copying for repetition to harm. Means over "
            "seeds.",
            n=f"{len({row['size'] for row in rows})} sizes, {max(int(row['seeds'] or 0) for row in rows)} "
            "seeds at most",
            rows=tuple(rows),
            x=Axis(column="copy", title="copy"),
            y=Axis(column="loss", title="loss of the copy, nats a token"),
            series=Series(column="size", title="N"),
            panels=Panels(column="passage", title="") if len(passages) > 1 else None,
            layers=(LINE, POINT),
            tooltip=("seeds",),
        )


def tables(found: Tables, *, names: Mapping[tuple[str, str], Grid]) -> Iterator[Table]:
    """Every cell with both of its sizes; the losses on names where a passage has them."""
    for passage in found.passages:
        yield _cells(found, passage)
    read = {key: grid for key, grid in names.items() if grid.control}
    if read:
        yield _names(found, read)


def _cells(found: Tables, passage: str) -> Table:
    grid, gain = found.loss[passage], found.gain[passage]
    on_copying, on_test = scan(grid), scan(found.test)
    rows: list[list[Cell]] = []
    for line in treated_lines(grid):
        rows.append([line[0], f"{line[1]:g}", "control", _text(grid.control.get(line[0], {})),
                     _text(gain.control.get(line[0], {})), None, None, None, None, None])  # fmt: skip
        for passes, losses in grid.repeated[line].items():
            here = dict.fromkeys(losses, passes)
            copying, test = (
                _multipliers(of, line, here, over=over, what=what)
                for of, over, what in ((grid, on_copying, "copying"), (found.test, on_test, TEST))
            )
            rows.append([
                line[0], f"{line[1]:g}", passes_text(passes), _text(losses), _text(at(gain, line, here)),
                _text(excess(grid, line, here)), _text(excess(found.test, line, here)),
                *(_range(copying, lambda one: one.value), _range(test, lambda one: one.value)),
                f"{_range(copying, lambda one: one.paper)} / {_range(test, lambda one: one.paper)}",
            ])  # fmt: skip
    word = _word(passage)
    return Table(
        f"copying-cells-{word}", f"Every cell, {passage} passage",
        "Means over seeds with 95% t intervals, nats a token. Copying loss: mean of all copies, the first "
        "one too (the paper's). Copy gain: first copy minus the later ones. Excess is paired by seed. Sizes "
        "left: effective size over that of the same seed's control; the last column is the paper's way, over "
        "the size itself, by copying / by test loss. Outside: of the ladder of controls.",
        count_text(grid),
        ("N", "f", "passes E", "copying loss", "copy gain", "excess on copying", "excess on test loss",
         "size left by copying", "size left by test loss", "the paper's way"),
        rows,
    )  # fmt: skip


def _names(found: Tables, names: Mapping[tuple[str, str], Grid]) -> Table:
    """Names in the first copy: where they come back whole, inflected, inside other words."""
    rows: list[list[Cell]] = []
    kinds = ("first", "exact", "inflected", "embedded")
    for passage in dict.fromkeys(passage for passage, _ in names):
        grids = {kind: names[passage, kind] for kind in kinds if (passage, kind) in names}
        for size in sorted(found.test.control, key=lambda size: found.test.n_params[size]):
            own = [_text(grids[kind].control.get(size, {})) if kind in grids else None for kind in kinds]
            rows.append([passage, size, "control", None, *own])
        for line in treated_lines(found.test):
            passes = worst(found.test, line)
            there = [_text(at(grids[kind], line, passes)) if kind in grids else None for kind in kinds]
            shown = ", ".join(passes_text(one) for one in sorted(set(passes.values())))
            rows.append([passage, line[0], f"f = {line[1]:g}", shown, *there])
    return Table(
        "copying-names", "Names that come back",
        "Loss on the tokens that go on with a name which the token before has begun, in the first copy of a "
        "passage, nats a token: where the name stands for the first time, and later on its own, with a "
        "plural or possessive ending, and inside another word. Treated runs at their worst passes.",
        count_text(found.test),
        ("passage", "N", "arm", "passes E", "first", "exact", "inflected", "embedded"),
        rows,
    )  # fmt: skip


def _multipliers(
    of: Grid, line: Line, passes: Mapping[object, float], *, over: ControlScan | None, what: str
) -> list[Multiplier]:
    return (
        []
        if over is None
        else list(multipliers(of, line, passes, over=over, method=method_of(what)).values())
    )


def _range(sizes: Sequence[Multiplier], part: "Callable[[Multiplier], float | None]") -> str:
    """The geometric mean over seeds, or that a seed is outside the ladder."""
    values = [part(one) for one in sizes]
    there = [one for one in values if one is not None]
    if not values:
        return "none"
    return t_interval(there, scale="log").text(digits=2) if len(there) == len(values) else "outside"


def _passes_series(treated: Sequence[float]) -> Series:
    return Series(
        column="arm",
        title="passes",
        kind="sequence",
        order=("control", *map(_arm, treated)),
        muted=("control",),
    )


def _arm(passes: float | None) -> str:
    return "control" if passes is None else f"{passes_text(passes)} passes"


def _text(losses: Losses) -> str | None:
    return t_interval(list(losses.values())).text() if losses else None


def _what(name: str) -> str:
    return name if name == TEST else f"copying, {name} passage"


def _word(name: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in name.lower()).strip("-")
