"""Figures and tables of what repeated pre-training leaves after fine-tuning."""

from collections.abc import Iterator

from repetita.fit.estimate import Crossing, Estimate, t_interval
from repetita.report.figure import Axis, Cell, Figure, Layer, Panels, Row, Rule, Series
from repetita.report.page import Table
from repetita.studies._damage_figures import INTERVAL, INTERVALS, spread
from repetita.studies._finetuning import (
    SAME_RECIPE,
    Arm,
    Tuned,
    average,
    crossovers,
    early_and_last,
    excess_left,
    gap,
    multipliers,
    multipliers_before,
    pretrained,
)
from repetita.studies._grid import Losses, minus
from repetita.studies._other_texts import Ratios, Reading

LINE, POINT = Layer(kind="line"), Layer(kind="point")
VARIANTS = {"main": "half the rate, optimizer reset", "own rate": "the full rate, optimizer reset"}
TOKENS = "tokens of the target (log scale)"
SIZES = (
    "Sizes are read between neighbouring runs of a ladder, over that of the run of the same size and seed."
)


def figures(there: Tuned) -> Iterator[Figure]:
    """The figures that the measurements allow, in the order of the page."""
    for make in (_curves, _gaps, _ladder, _left):
        figure = make(there)
        if figure is not None:
            yield figure


def tables(there: Tuned) -> Iterator[Table]:
    """Every arm before and after, where curves cross, and what is left of the repeated text."""
    yield _arms(there)
    yield _crossovers(there)
    yield _memory(there)


def _curves(there: Tuned) -> Figure | None:
    """The paper's figure: test loss on the target over training."""
    rows: list[Row] = [
        {"arm": arm.title, "size": f"N = {arm.size}", "tokens": at, "loss": loss, "seeds": len(by_seed)}
        for arm in _drawn(there)
        for by_seed in (there.curves.get(arm, {}),)
        for at, loss in average(by_seed).items()
    ]
    if not rows:
        return None
    return Figure(
        name="finetuning-curves",
        title="Learning the target with and without a past",
        caption="Test loss on the target over training on it, mean over seeds. All arms of a seed read the "
        "same batches of the target; fine-tuning runs at half the learning rate with a short warm-up and "
        "Adam's moments reset. The paper's Fig. 12.",
        n=_count(there),
        rows=tuple(rows),
        x=Axis(column="tokens", title=TOKENS, scale="log"),
        y=Axis(column="loss", title="test loss on the target, nats a token"),
        series=_series(there, rows),
        panels=_panels(there, rows),
        layers=(LINE, POINT),
        tooltip=("seeds",),
    )


def _gaps(there: Tuned) -> Figure | None:
    """Loss minus that from scratch over training: where a past helps and where it hinders."""
    rows: list[Row] = []
    for arm in _drawn(there):
        if arm.kind != "scratch":
            by_seed = gap(there, arm, over=Arm("scratch", arm.size))
            for at in average(by_seed):
                found = {seed: points[at] for seed, points in by_seed.items()}
                rows.append({"arm": arm.title, "size": f"N = {arm.size}", "tokens": at, **spread(found)})
    if not rows:
        return None
    return Figure(
        name="finetuning-gaps",
        title="A past helps below the line and hinders above it",
        caption="Test loss on the target minus that of the model of the same size and seed from scratch at "
        f"its own recipe, at equal tokens of the target. {INTERVALS}",
        n=_count(there),
        rows=tuple(rows),
        x=Axis(column="tokens", title=TOKENS, scale="log"),
        y=Axis(column="loss", title="nats over scratch"),
        series=_series(there, rows),
        panels=_panels(there, rows),
        layers=(INTERVAL, LINE, POINT),
        rules=(Rule(axis="y", at=0.0, label="from scratch"),),
        tooltip=("seeds",),
    )


def _ladder(there: Tuned) -> Figure | None:
    """Final loss against size: the ladder from scratch, and the arms at their size."""
    n_params = there.after.grid.n_params
    rows: list[Row] = []
    variants = [arm.variant for arm in there.arms if arm.tuned and arm in there.final]
    for variant in dict.fromkeys(["main", *variants]):
        how = {"variant": VARIANTS.get(variant, variant)}
        for size, losses in there.after.grid.control.items():
            rows.append({"arm": "scratch", **how, "n_params": n_params[size], **spread(losses)})
        for arm in there.arms:
            losses = there.final.get(arm, {})
            if losses and arm.kind != "scratch" and arm.variant == variant and arm.size in n_params:
                title = arm._replace(variant="main").title
                rows.append({"arm": title, **how, "n_params": n_params[arm.size], **spread(losses)})
    if not rows:
        return None
    return Figure(
        name="finetuning-ladder",
        title="Which size from scratch does as well?",
        caption="Final test loss on the target. The line is the ladder of models from scratch at their own "
        "rates: a fine-tuned model has the effective size at which the line has its loss. The paper "
        f"finds 1.6 times smaller than scratch after f = 0.9. {INTERVALS}",
        n=_count(there),
        rows=tuple(rows),
        x=Axis(column="n_params", title="non-embedding parameters N (log scale)", scale="log"),
        y=Axis(column="loss", title="final test loss on the target, nats a token"),
        series=_series(there, rows),
        panels=Panels(column="variant", title="") if len(set(variants)) > 1 else None,
        layers=(INTERVAL, LINE, POINT),
        tooltip=("seeds",),
    )


def _left(there: Tuned) -> Figure | None:
    """M(f) on the parent's repeated and unseen text through fine-tuning."""
    rows: list[Row] = []
    for arm in _drawn(there):
        for name, text in (("repeated", "text that was repeated"), ("test", "unseen text like it")):
            points = average(there.left.get((arm, name, "memorized"), {}))
            rows += [
                {"arm": arm.title, "size": f"N = {arm.size}", "text": text, "tokens": at, "memorized": value}
                for at, value in points.items()
            ]
    if not rows:
        return None
    smallest = min(float(row["tokens"] or 0) for row in rows if row["tokens"])
    return Figure(
        name="finetuning-left",
        title="What fine-tuning leaves of the memorized text",
        caption="Share of tokens whose most likely continuation is right, on the text that pre-training "
        "repeated and on unseen text like it, while the model is trained on the target; mean over seeds. The "
        f"state before fine-tuning is drawn at {smallest / 2:,.0f} tokens.",
        n=_count(there),
        rows=tuple(row | {"tokens": row["tokens"] or smallest / 2} for row in rows),
        x=Axis(column="tokens", title=TOKENS, scale="log"),
        y=Axis(column="memorized", title="M(f), share of tokens", domain=(0.0, 1.0)),
        series=_series(there, rows),
        panels=Panels(column="text", title=""),
        layers=(LINE, POINT),
    )


def _arms(there: Tuned) -> Table:
    rows: list[list[Cell]] = []
    for arm in there.arms:
        losses = there.final.get(arm, {})
        before = pretrained(there, arm) if arm.tuned else {}
        if not losses:
            continue
        rows.append([
            arm.size, arm.title, there.passes.get((arm.size, arm.fraction or 0.0)),
            _mean(before), _ratio(there.before, multipliers_before(there, arm)) if arm.fraction else None,
            _mean(losses), _difference(there, arm, "scratch"), _difference(there, arm, SAME_RECIPE),
            _difference(there, arm, "unique"), _ratio(there.after, multipliers(there, arm)), len(losses),
        ])  # fmt: skip
    return Table(
        "finetuning-arms", "Every arm before and after",
        "Means over seeds with 95% t intervals over seeds. Before: on unseen text of pre-training, its size "
        "over that of the model of unique text. After: on unseen text of the target, differences by seed to "
        f"the other arms of the same size, and size over that from scratch. {SIZES} The paper has 1/73 "
        "before and 1/1.6 after.",
        _count(there),
        ("N", "arm", "passes E", "loss before", "size before", "loss after", "over scratch",
         "over scratch, same recipe", "over unique", "size after", "seeds"),
        rows,
    )  # fmt: skip


def _crossovers(there: Tuned) -> Table:
    rows: list[list[Cell]] = []
    for arm in there.arms:
        if not arm.tuned:
            continue
        for kind in ("scratch", SAME_RECIPE, "unique"):
            by_seed = gap(there, arm, over=_other(arm, kind))
            points = average(by_seed)
            if arm.kind == kind or len(points) < 2:
                continue
            down, up = crossovers(points)
            pairs = [pair for pair in map(early_and_last, by_seed.values()) if pair is not None]
            early, last = (_text([pair[i] for pair in pairs]) for i in (0, 1))
            rows.append(
                [arm.size, arm.title, kind, _at(there, down), _at(there, up), early, last, len(by_seed)]
            )  # fmt: skip
    return Table(
        "finetuning-crossovers", "Where one arm overtakes another",
        "Tokens (and step) of the target at which the mean curve of an arm comes down to that of another and "
        "stays for two measurements, and at which it first rises above it in the same way; a dash where it "
        "begins on that side. Gaps in nats after a tenth of the tokens and at the end, over seeds.",
        _count(there),
        ("N", "arm", "against", "level from", "behind from", "early gap", "gap at the end", "seeds"), rows,
    )  # fmt: skip


def _memory(there: Tuned) -> Table:
    rows: list[list[Cell]] = []
    for arm in there.arms:
        for name in ("repeated", "test"):
            for metric in ("memorized", "loss"):
                by_seed = there.left.get((arm, name, metric), {})
                _remember(rows, arm, f"{metric}, {name}", list(by_seed.values()))
        _remember(rows, arm, "memorized, repeated minus test", list(excess_left(there, arm).values()))
    return Table(
        "finetuning-memory", "What is left of pre-training",
        "On the text that pre-training repeated, and on unseen text like it (test): share of tokens "
        "continued rightly (memorized) and loss in nats, before fine-tuning, after a tenth of it, and at "
        "its end.",
        _count(there),
        ("N", "arm", "what", "before", "early", "at the end", "seeds"), rows,
    )  # fmt: skip


def _remember(rows: list[list[Cell]], arm: Arm, what: str, listed: list[dict[float, float]]) -> None:
    found = [(points[0.0], pair) for points in listed if 0.0 in points and (pair := early_and_last(points))]
    if found:
        first = _text([before for before, _ in found])
        early, last = (_text([pair[i] for _, pair in found]) for i in (0, 1))
        rows.append([arm.size, arm.title, what, first, early, last, len(found)])


def _difference(there: Tuned, arm: Arm, kind: str) -> str | None:
    if arm.kind == kind and arm.variant == "main":
        return None
    return _mean(minus(there.final[arm], there.final.get(_other(arm, kind), {})))


def _other(arm: Arm, kind: str) -> Arm:
    """The arm of another kind at the same size."""
    return Arm(kind, arm.size)


def _mean(losses: Losses) -> str | None:
    return _text(list(losses.values())) if losses else None


def _text(values: list[float]) -> str | None:
    return t_interval(values).text() if values else None


def _ratio(reading: Reading, ratios: Ratios) -> str | None:
    inside = [ratio for ratio in ratios.values() if ratio is not None]
    if not ratios or reading.unfit:
        return None
    if not inside:
        return "outside the ladder"
    found: Estimate = t_interval(inside, scale="log")
    lost = len(ratios) - len(inside)
    return found.text(digits=2) + (f" ({lost} seeds outside the ladder)" if lost else "")


def _at(there: Tuned, found: Crossing | None) -> str | None:
    """Tokens and step of a crossing, each to three digits."""
    if found is None:
        return None
    if found.x is None:
        return "not reached"
    return f"{found.text()} (step {found.x / there.step_tokens:.3g})"


def _drawn(there: Tuned) -> list[Arm]:
    """The arms at sizes that are fine-tuned, without variants."""
    tuned = {arm.size for arm in there.arms if arm.tuned}
    return [arm for arm in there.arms if arm.size in tuned and arm.variant == "main"]


def _series(there: Tuned, rows: list[Row]) -> Series:
    there_are = {row["arm"] for row in rows}
    order = tuple(dict.fromkeys(arm.title for arm in there.arms if arm.title in there_are))
    return Series(column="arm", title="", order=order, muted=tuple({"scratch"} & set(order)))


def _panels(there: Tuned, rows: list[Row]) -> Panels | None:
    found = {row["size"] for row in rows}
    order = tuple(dict.fromkeys(f"N = {arm.size}" for arm in there.arms if f"N = {arm.size}" in found))
    return Panels(column="size", title="", order=order, share="x") if len(order) > 1 else None


def _count(there: Tuned) -> str:
    tuned = sum(len(losses) for arm, losses in there.final.items() if arm.tuned)
    scratch = sum(len(losses) for arm, losses in there.final.items() if not arm.tuned)
    return f"{tuned} fine-tuned runs, {scratch} runs from scratch"
