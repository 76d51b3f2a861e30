"""Loss over size on unique data: how straight the line is, with and without an offset, and how far it
reaches."""

import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from repetita.errors import SpecError
from repetita.fit.claim import Claim, by_seed, directional, undecided
from repetita.fit.estimate import t_interval
from repetita.fit.laws import Offset, PowerLaw, fit_power_law
from repetita.report.figure import Axis, Cell, Figure, Layer, Panels, Row, Rule, Series
from repetita.report.page import Table
from repetita.studies._grid import Labels, Losses
from repetita.studies._power import smallest_effect

Floats = NDArray[np.float64]

PAPER = "Hernandez et al. 2022, Fig. 13 and appendix A"
FORMS: Mapping[str, Offset] = {"no offset": "none", "offset": "fitted"}
STRAIGHT = 1.15
"""A line is straight enough if it gives every size of its ladder within this factor: the smallest effect on
test loss that the paper reads off its own line (1.15x at f = 3%)."""

SEED_SD = {"straight": 0.1, "offset": 0.3}
"""Assumed standard deviations over seeds, of ln size and of the ln of a ratio of errors, for planning
only."""
PREDICTED = {"straight": 0.1, "offset": 0.3}
UNITS = {"straight": "of ln size under the threshold", "offset": "of the ln of the ratio of errors"}


class Ladder(NamedTuple):
    """The controls of one corpus."""

    corpus: str
    losses: dict[str, Losses]
    """Final test loss by size and seed, smallest size first."""
    n_params: Mapping[str, int]
    laws: Mapping[str, PowerLaw]
    """By name of the form; one that could not be fitted is missing."""

    @property
    def seeds(self) -> list[Hashable]:
        """Seeds that every size of the ladder has, or else those of most sizes."""
        every = sorted({seed for own in self.losses.values() for seed in own}, key=str)
        return [seed for seed in every if all(seed in own for own in self.losses.values())]

    def of(self, seed: Hashable, /) -> tuple[list[float], list[float]]:
        """Sizes and losses of one seed."""
        there = [size for size, own in self.losses.items() if seed in own]
        return [float(self.n_params[size]) for size in there], [self.losses[size][seed] for size in there]


def ladder(corpus: str, *, losses: Mapping[str, Losses], n_params: Mapping[str, int]) -> Ladder:
    """The controls of a corpus with both laws through all their runs."""
    ordered = {size: losses[size] for size in sorted(losses, key=lambda size: n_params[size])}
    points = [(float(n_params[size]), loss) for size, own in ordered.items() for loss in own.values()]
    laws = {}
    for name, offset in FORMS.items():
        try:
            laws[name] = fit_power_law([n for n, _ in points], y=[loss for _, loss in points], offset=offset)
        except SpecError:
            continue
    return Ladder(corpus, ordered, n_params, laws)


def miss(found: Ladder, seed: Hashable, /) -> float | None:
    """Factor in size by which a straight line through one seed's ladder misses it at the worst size."""
    sizes, losses = found.of(seed)
    if len(sizes) < 3:
        return None
    logs = np.log(losses)
    slope, level = np.polyfit(np.log(sizes), logs, 1)
    if slope >= 0:
        return None
    return float(np.exp(np.abs(logs - level - slope * np.log(sizes)).max() / -slope))


def left_out(sizes: Sequence[float], *, losses: Sequence[float], offset: Offset) -> float | None:
    """Root mean square of ln (predicted / measured), each size predicted from the others; None for too few.

    Least squares of the log loss: the search of `fit_power_law` for each size left out would take minutes.
    """
    u, y = np.log(sizes), np.asarray(losses, dtype=np.float64)
    if len(y) < (4 if offset == "none" else 5):
        return None
    errors = []
    for i in range(len(y)):
        rest = np.arange(len(y)) != i
        errors.append(_predicted(u[rest], y[rest], float(u[i]), offset) - math.log(y[i]))
    return math.sqrt(sum(error**2 for error in errors) / len(errors))


def _predicted(u: Floats, y: Floats, at: float, offset: Offset) -> float:
    """ln loss at ln size `at` by the law through the points."""
    slope, level = np.polyfit(u, np.log(y), 1)
    if offset == "none":
        return float(level + slope * at)
    from scipy.optimize import least_squares

    def law(theta: Floats, where: Floats) -> Floats:
        return np.asarray(np.logaddexp(theta[0] + theta[1] * where, theta[2]))

    fits = []
    for share in (1e-2, 0.8):
        start = [*np.polyfit(u, np.log(y - share * y.min()), 1)[::-1], math.log(share * y.min())]
        fits.append(least_squares(lambda theta: law(theta, u) - np.log(y), start, x_scale=[1, 0.1, 1]))
    best = min(fits, key=lambda fit: float(fit.cost))
    return float(law(best.x, np.array(at)))


def claims(found: Sequence[Ladder]) -> Iterator[Claim]:
    """The headline first: a straight line on the main corpus; then that an offset predicts no better; then
    the same of the other corpora."""
    for place, one in enumerate(found):
        suffix = _suffix(one.corpus) if place else ""
        yield _straight(one, name=f"straight{suffix}", primary=place < 2)
        yield _offset(one, name=f"offset{suffix}", primary=place == 0)


def _straight(found: Ladder, *, name: str, primary: bool) -> Claim:
    statement = (
        f"{found.corpus}: loss over size is a straight line in log-log, which gives the size of every "
        f"control within a factor of {STRAIGHT:g}"
    )
    values = {seed: value for seed in found.seeds if (value := miss(found, seed)) is not None}
    if not values:
        return undecided(
            name=name, statement=statement, source=PAPER, primary=primary, note="fewer than 3 sizes so far",
            rule=f"the factor at the worst size below {STRAIGHT:g} (t test over seeds on the log scale)",
        )  # fmt: skip
    law = found.laws.get("no offset")
    note = _reach(found)
    note += "" if law is None else f"; exponent {law.estimates()['exponent'].text(digits=2)}"
    return directional(
        by_seed(values), name=name, statement=statement, source=PAPER, threshold=STRAIGHT, direction="below",
        scale="log", unit="x in size at the worst-fitted size", note=note, primary=primary,
    )  # fmt: skip


def _offset(found: Ladder, *, name: str, primary: bool) -> Claim:
    statement = f"{found.corpus}: an offset does not improve what a law predicts for sizes left out of it"
    ratios: dict[Hashable, float] = {}
    for seed in found.seeds:
        sizes, losses = found.of(seed)
        errors = [left_out(sizes, losses=losses, offset=offset) for offset in FORMS.values()]
        if errors[0] and errors[1]:
            ratios[seed] = errors[1] / errors[0]
    if not ratios:
        return undecided(
            name=name, statement=statement, source=PAPER, primary=primary, note="fewer than 5 sizes so far",
            rule="ratio of errors of sizes left out above 1 (t test over seeds on the log scale)",
        )  # fmt: skip
    shown = {form: law.aicc for form, law in found.laws.items()}
    return directional(
        by_seed(ratios), name=name, statement=statement, source=PAPER, threshold=1.0, scale="log",
        unit="(error with an offset / without)", primary=primary,
        note="; ".join(f"AICc with {form} {value:.1f}" for form, value in shown.items()),
    )  # fmt: skip


def detectable(planned: Sequence[Labels]) -> Mapping[str, str]:
    """For each primary claim the smallest effect that its planned seeds can show, in words."""
    seeds: dict[str, int] = {}
    for place, corpus in enumerate(corpora(planned)):
        by_size: dict[object, set[object]] = {}
        for labels in planned:
            if labels["corpus"] == corpus:
                by_size.setdefault(labels["size"], set()).add(labels["seed"])
        n = len(set.intersection(*by_size.values()))
        seeds |= {"straight": n, "offset": n} if place == 0 else {}
        seeds |= {f"straight{_suffix(corpus)}": n} if place == 1 else {}
    return {
        name: smallest_effect(
            n=n, sd=SEED_SD[kind], unit=UNITS[kind], predicted=PREDICTED[kind], primary=len(seeds)
        )
        for name, n in seeds.items()
        for kind in (name.partition("-")[0],)
    }


def corpora(planned: Sequence[Labels]) -> list[str]:
    """Corpora in the order of the plan: the first is the main one."""
    return list(dict.fromkeys(str(labels["corpus"]) for labels in planned))


def figures(found: Sequence[Ladder]) -> Iterator[Figure]:
    """The ladder with its laws, and what they miss."""
    shown = [one for one in found if len(one.losses) > 1]
    if shown:
        yield scaling(shown)
    fitted = [one for one in shown if one.laws]
    if fitted:
        yield residuals(fitted)


def scaling(found: Sequence[Ladder]) -> Figure:
    """Fig. 13."""
    rows: list[Row] = []
    for one in found:
        for size, losses in one.losses.items():
            laws = {_column(form): float(law.predict(one.n_params[size])) for form, law in one.laws.items()}
            for loss in losses.values():
                rows.append({
                    "corpus": one.corpus, "size": size, "n_params": one.n_params[size], "loss": loss, **laws,
                })  # fmt: skip
    there = {_column(form) for one in found for form in one.laws}
    dashes = {_column("no offset"): "dashed", _column("offset"): "dotted"}
    return Figure(
        name="control-scaling",
        title="Loss over size on unique data",
        caption="Every run that reads all of its tokens once, by size. Dashed: power law without offset, a "
        "straight line here and the paper's ruler for effective sizes; dotted: with an offset.",
        n=_n(found),
        rows=tuple(rows),
        x=Axis(column="n_params", title="non-embedding parameters N (log scale)", scale="log"),
        y=Axis(column="loss", title="test loss, nats a token (log scale)", scale="log"),
        panels=_panels(found, "both"),
        layers=(
            Layer(kind="point"),
            *(Layer(kind="line", y=y, dash=dash) for y, dash in dashes.items() if y in there),
        ),
        tooltip=("size",),
    )


def residuals(found: Sequence[Ladder]) -> Figure:
    """What both laws miss at each size."""
    rows: list[Row] = []
    for one in found:
        for form, law in one.laws.items():
            for size, losses in one.losses.items():
                level = float(law.predict(one.n_params[size]))
                spread = t_interval([100 * math.log(loss / level) for loss in losses.values()])
                low, high = (spread.value, spread.value) if spread.n < 2 else (spread.low, spread.high)
                rows.append({
                    "corpus": one.corpus, "law": form, "size": size, "n_params": one.n_params[size],
                    "missed": spread.value, "low": low, "high": high, "seeds": spread.n,
                })  # fmt: skip
    return Figure(
        name="control-residuals",
        title="What the laws of the controls miss",
        caption="Loss over the law's, in percent, means over seeds with 95% t intervals where there are "
        "several. A bend that all seeds share is a law of the wrong form, not noise.",
        n=_n(found),
        rows=tuple(rows),
        x=Axis(column="n_params", title="non-embedding parameters N (log scale)", scale="log"),
        y=Axis(column="missed", title="loss over the law, %"),
        series=Series(column="law", title="law", order=tuple(FORMS)),
        panels=_panels(found, "x"),
        layers=(Layer(kind="interval", low="low", high="high"), Layer(kind="line"), Layer(kind="point")),
        rules=(Rule(axis="y", at=0.0, label="on the law"),),
        tooltip=("size", "seeds"),
    )


def tables(found: Sequence[Ladder], *, treated: int | None) -> Iterator[Table]:
    """The laws of each corpus, and every size. `treated` is the smallest size that repeated-data runs
    have."""
    if any(one.laws for one in found):
        yield _laws(found, treated)
    if found:
        yield _sizes(found)


def _laws(found: Sequence[Ladder], treated: int | None) -> Table:
    rows: list[list[Cell]] = []
    for one in found:
        for form, law in one.laws.items():
            given = law.estimates()
            sizes = [float(one.n_params[size]) for size in one.losses]
            means = [float(np.mean(list(own.values()))) for own in one.losses.values()]
            error = left_out(sizes, losses=means, offset=FORMS[form])
            rows.append([
                one.corpus, form, given["exponent"].text(digits=2), f"{law.coefficient:.3g}",
                given["offset"].text(digits=2) if form == "offset" else None, f"{100 * law.residual_sd:.2g}%",
                None if error is None else f"{100 * error:.2g}%", f"{law.aicc:.1f}",
                None if treated is None else f"{treated / sizes[0]:.0f}",
            ])  # fmt: skip
    return Table(
        "control-laws", "Laws of the controls",
        "loss = offset + coefficient N^-exponent, Huber on log loss; intervals from resampled residuals, at "
        "the degrees of freedom left. Left out: root mean square error of a size's mean, predicted from the "
        "other sizes. Reach: smallest size that is trained on repeated data over the smallest control; a "
        "model that repetition has made smaller than that has no effective size.",
        _n(found),
        ("corpus", "law", "exponent", "coefficient", "offset", "scatter", "left out", "AICc", "reach"), rows,
    )  # fmt: skip


def _sizes(found: Sequence[Ladder]) -> Table:
    rows: list[list[Cell]] = []
    for one in found:
        for size, losses in one.losses.items():
            spread = t_interval(list(losses.values()))
            missed = [
                f"{100 * math.log(float(spread.value or 1) / float(law.predict(one.n_params[size]))):+.2g}%"
                if (law := one.laws.get(form)) is not None
                else None
                for form in FORMS
            ]
            shown = spread.text() if spread.n > 1 else f"{spread.value:.4f}"
            rows.append([one.corpus, size, one.n_params[size], shown, *missed, spread.n])
    return Table(
        "control-sizes", "Every control",
        "Final test loss, nats a token, and by how much the mean lies over either law.", _n(found),
        ("corpus", "N", "non-embedding", "test loss", "over the line", "over the law with offset", "seeds"),
        rows,
    )  # fmt: skip


def _suffix(corpus: str) -> str:
    return f"-{corpus.rpartition('/')[2].lower()}"


def _reach(found: Ladder) -> str:
    sizes = [found.n_params[size] for size in found.losses]
    return f"{len(sizes)} sizes from {sizes[0]:,} to {sizes[-1]:,}"


def _column(form: str) -> str:
    return form.replace(" ", "_")


def _n(found: Sequence[Ladder]) -> str:
    runs = [sum(len(own) for own in one.losses.values()) for one in found]
    return "; ".join(
        f"{one.corpus}: {n} runs of {len(one.losses)} sizes" for one, n in zip(found, runs, strict=True)
    )


def _panels(found: Sequence[Ladder], share: str) -> Panels | None:
    if len(found) < 2:
        return None
    order = tuple(one.corpus for one in found)
    return Panels(column="corpus", title="", order=order, share="both" if share == "both" else "x")
