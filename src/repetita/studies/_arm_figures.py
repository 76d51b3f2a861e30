"""What repetition costs in several arms, drawn and listed: by passes, in parts, in size, over training."""

from collections.abc import Iterator, Mapping, Sequence

from repetita.fit.effective_size import ControlScan
from repetita.fit.estimate import Estimate, t_interval
from repetita.report.figure import Axis, Cell, Figure, Layer, Row, Rule, Series
from repetita.report.page import Table
from repetita.studies._arms import Arm, over_training, size_ratio
from repetita.studies._damage_figures import INTERVAL, INTERVALS, LINE, PASSES, POINT, drawn, sized
from repetita.studies._grid import Losses

EXCESS = "excess test loss over the arm's own control, nats a token"
PARTS = ("total damage", "interference", "starvation")


def figures(
    word: str, found: Mapping[str, Arm], *, scan: ControlScan | None, title: str, what: str
) -> Iterator[Figure]:
    """The figures of the arms of one size; `word` begins their names, `title` names what differs between the
    arms, `what` says it in a sentence for the captions."""
    if not found:
        return
    yield _split(word, found, title=title, what=what)
    if any(len(arm.excess) > 1 for arm in found.values()):
        yield _by_passes(word, found, title=title, what=what)
    yield from _training(word, found, title=title, what=what)
    if scan is not None:
        yield from _sizes(word, found, scan, title=title, what=what)


def table(
    word: str,
    found: Mapping[str, Arm],
    *,
    scan: ControlScan | None,
    what: str,
    more: Sequence[Sequence[Cell]] = (),
) -> Table:
    """Every arm in numbers; `more` are further rows of the same columns."""
    rows: list[Sequence[Cell]] = []
    for arm in found.values():
        ratio = None
        if scan is not None:
            ratio = size_ratio(scan, treated=arm.treated, control=arm.control, n_params=arm.n_params)
        at = sorted(set(arm.worst.values()))
        rows.append([
            arm.name, f"{arm.line[1]:g}", " / ".join(f"{passes:.4g}" for passes in at),
            " / ".join(str(arm.subsets[passes]) for passes in at if passes in arm.subsets),
            text(arm.control), text(arm.treated), text(arm.damage), text(arm.starvation),
            text(arm.interference), text(arm.subset), None if ratio is None else ratio.text(digits=2),
            len(arm.damage),
        ])  # fmt: skip
    return Table(
        f"{word}-arms", "Every arm",
        f"{what} Losses in nats a token, means over seeds with 95% t intervals, differences paired by seed. "
        "Where an arm ran at several passes, each seed takes the worst of the other seeds. Effective size: "
        "that of the treated runs over that of the arm's own control, both read between the sizes of the "
        "control ladder.",
        count_text(found),
        ("arm", "f", "worst passes E", "S, sequences", "control", "treated", "damage", "starvation",
         "interference", "loss on the repeated text", "effective size / control's", "seeds"),
        [*rows, *more],
    )  # fmt: skip


def count_text(found: Mapping[str, Arm], /) -> str:
    """How many runs stand behind a figure."""
    runs = sum(len(losses) for arm in found.values() for losses in arm.excess.values())
    return f"{len(found)} arms, {runs} treated runs, each with the control of its arm and seed"


def text(losses: Losses, /) -> str | None:
    """Mean and interval over seeds."""
    if not losses:
        return None
    estimate = t_interval(list(losses.values()))
    return estimate.text() if estimate.n > 1 else f"{estimate.value:.3f}"


def _named(found: Mapping[str, Arm]) -> str:
    size, fraction = next(iter(found.values())).line
    return f"N = {size}, f = {fraction:g}"


def _split(word: str, found: Mapping[str, Arm], *, title: str, what: str) -> Figure:
    rows: list[Row] = []
    for arm in found.values():
        for part, losses in zip(PARTS, (arm.damage, arm.interference, arm.starvation), strict=True):
            if losses:
                rows.append({"arm": arm.name, "part": part, **drawn(t_interval(list(losses.values())))})
    return Figure(
        name=f"{word}-damage",
        title=f"What repetition costs: {title}",
        caption=f"{what} {_named(found)}. At the worst passes that were run, which each seed takes from the "
        "others. Starvation: the same steps with the repeated slots empty, minus the control; interference: "
        "what re-reading costs on top. Each part is over the seeds that have its runs, so that parts need "
        f"not add up where fewer seeds have starved ones. {INTERVALS}",
        n=count_text(found),
        rows=tuple(rows),
        x=Axis(column="loss", title=EXCESS, start="zero"),
        y=Axis(column="arm", title="", scale="category", order=tuple(found)),
        series=Series(column="part", title="part", order=PARTS),
        layers=(INTERVAL, POINT),
        rules=(Rule(axis="x", at=0.0, label="control"),),
        tooltip=("seeds",),
    )


def _by_passes(word: str, found: Mapping[str, Arm], *, title: str, what: str) -> Figure:
    rows: list[Row] = [
        {"arm": arm.name, "passes": passes, **drawn(t_interval(list(losses.values())))}
        for arm in found.values()
        for passes, losses in arm.excess.items()
    ]
    return Figure(
        name=f"{word}-by-passes",
        title=f"Damage over passes, {title}",
        caption=f"{what} {_named(found)}. The tokens are the same everywhere: more passes mean less "
        f"text that is repeated. {INTERVALS}",
        n=count_text(found),
        rows=tuple(rows),
        x=Axis(column="passes", title=PASSES, scale="log"),
        y=Axis(column="loss", title=EXCESS),
        series=Series(column="arm", title=title, order=tuple(found)),
        layers=(INTERVAL, LINE, POINT),
        rules=(Rule(axis="y", at=0.0, label="control"),),
        tooltip=("seeds",),
    )


def _training(word: str, found: Mapping[str, Arm], *, title: str, what: str) -> Iterator[Figure]:
    rows: list[Row] = []
    for arm in found.values():
        for tokens, losses in over_training(arm):
            value = t_interval(list(losses.values())).value
            rows.append({"arm": arm.name, "tokens": tokens, "loss": value, "seeds": len(losses)})
    if not rows:
        return
    yield Figure(
        name=f"{word}-over-training",
        title=f"Damage over training, {title}",
        caption=f"{what} {_named(found)}. Test loss minus that of the arm's control of the same seed at the "
        "same step, at the worst passes, mean over seeds; on the few test sequences of the learning curve.",
        n=count_text(found),
        rows=tuple(rows),
        x=Axis(column="tokens", title="training tokens (log scale)", scale="log"),
        y=Axis(column="loss", title=EXCESS),
        series=Series(column="arm", title=title, order=tuple(found)),
        layers=(Layer(kind="line"),),
        rules=(Rule(axis="y", at=0.0, label="control"),),
        tooltip=("seeds",),
    )


def _sizes(
    word: str, found: Mapping[str, Arm], scan: ControlScan, *, title: str, what: str
) -> Iterator[Figure]:
    rows: list[Row] = []
    for arm in found.values():
        ratio: Estimate = size_ratio(scan, treated=arm.treated, control=arm.control, n_params=arm.n_params)
        if (told := sized(ratio)) is not None:
            rows.append({"arm": arm.name, **told})
    if not rows:
        return
    yield Figure(
        name=f"{word}-effective-size",
        title=f"Effective size, {title}",
        caption=f"{what} {_named(found)}. Size of the unrepeated model with the same test loss, over that "
        "of the arm's own control, both read between the sizes of the control ladder, at the worst passes. "
        f"An arm worse than every control is a bound, an interval open below. {INTERVALS}",
        n=count_text(found),
        rows=tuple(rows),
        x=Axis(column="multiplier", title="effective size / that of the control (log scale)", scale="log"),
        y=Axis(column="arm", title="", scale="category", order=tuple(found)),
        layers=(INTERVAL, POINT),
        rules=(Rule(axis="x", at=1.0, label="no damage"),),
        tooltip=("seeds",),
    )
