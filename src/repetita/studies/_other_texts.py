"""Final losses of the double-descent runs on texts of other kinds, and effective sizes on each of them."""

import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from repetita.errors import SpecError
from repetita.fit.effective_size import ControlScan, control_scan, effective_size, harmonic_mean
from repetita.fit.estimate import Estimate, t_interval
from repetita.studies._grid import Grid, Labels, Line, Losses, grid, main_corpus, mean

if TYPE_CHECKING:
    import polars as pl

OWN = "test"
"""The probe of the study's own test text; every other text is a probe of its own name."""

TITLES = {
    OWN: "own test text",
    "encyclopedia": "English of an encyclopedia",
    "speeches": "English of speeches",
    "code": "Python code",
    "french": "French",
    "words": "other synthetic words",
}

HIGH, LOW = 0.5, 0.1
"""The headline compares the planned shares nearest to these. At 9/10 the worst runs are worse than a uniform
guess on their own test text, so that they have no effective size on any."""

Ratios = dict[Hashable, float | None]
"""By seed; None where one of the two sizes is an open bound."""


class Reading(NamedTuple):
    """One text: what all runs make of it."""

    name: str
    grid: Grid
    scan: ControlScan | None
    unfit: str
    """Why no effective size can be read on it, "" where one can."""

    @property
    def title(self) -> str:
        """The text in words."""
        return TITLES.get(self.name, self.name)


class Texts(NamedTuple):
    """The study's own test text, and the others in the order of their claims."""

    own: Reading
    others: tuple[Reading, ...]
    lines: Mapping[Line, int]
    """What was planned, by fraction and then size, and the most seeds that any of its cells was given."""

    def at(self, line: Line, /) -> float | None:
        """The passes at which a line is read: the worst on the own test text, of those that most seeds have.

        None while none of its runs is there.
        """
        cells = self.own.grid.repeated.get(line, {})
        most = max(map(len, cells.values()), default=0)
        worst = {passes: mean(losses) for passes, losses in cells.items() if len(losses) == most}
        return max(worst, key=lambda passes: worst[passes]) if worst else None


def texts(table: "pl.DataFrame", *, planned: Sequence[Labels]) -> Texts | None:
    """What the runs of the main corpus make of each text; None while no control and treated run is there."""
    corpus = main_corpus(planned)
    there = set(table["probe"].unique().to_list())
    named = next((str(labels["texts"]) for labels in planned if labels["corpus"] == corpus), "")
    own = reading(table, OWN, corpus=corpus)
    if own.scan is None or not own.grid.repeated:
        return None
    others = [reading(table, name, corpus=corpus) for name in named.split(", ") if name in there]
    return Texts(own, tuple(others), planned_seeds(planned, arm="repeated"))


def planned_seeds(planned: Sequence[Labels], *, arm: str) -> dict[Line, int]:
    """The planned lines of an arm, by fraction and then size, and the most seeds that a cell of each has."""
    n_params = {str(labels["size"]): int(labels["non_embedding"] or 0) for labels in planned}
    cells: dict[Line, dict[object, set[object]]] = {}
    for labels in planned:
        if labels["arm"] == arm:
            line = str(labels["size"]), float(labels["fraction"] or 0)
            cells.setdefault(line, {}).setdefault(labels["passes"], set()).add(labels["seed"])
    ordered = sorted(cells, key=lambda line: (line[1], n_params[line[0]]))
    return {line: max(map(len, cells[line].values())) for line in ordered}


def reading(table: "pl.DataFrame", name: str, *, corpus: str) -> Reading:
    """What the runs of one corpus make of the text that the probe `name` reads, at the end of training."""
    import polars as pl

    of = table.filter(pl.col("probe") == name).with_columns(probe=pl.lit(OWN))
    found = grid(of, corpus=corpus)
    by_size = {float(found.n_params[size]): losses for size, losses in found.control.items()}
    try:
        scan = control_scan(by_size, vocab_size=found.vocab_size)
    except SpecError as error:
        return Reading(name, found, None, f"too few controls: {error}")
    return Reading(name, found, scan, _unfit(found, scan))


def _unfit(found: Grid, scan: ControlScan) -> str:
    """Judged on controls alone, before any treated run is looked at."""
    treated = {line[0] for line in (*found.repeated, *found.starved)} & set(found.control)
    worst = max((mean(found.control[size]) for size in treated), default=0.0)
    if worst > scan.ceiling:
        return (
            f"a control of a treated size has {worst:.2f} nats on it, more than a uniform guess "
            f"(ln V = {scan.ceiling:.2f})"
        )
    exponent = scan.law.estimates()["exponent"]
    if exponent.low is None or exponent.low <= 0:
        return "the loss of the controls on it does not clearly fall with size"
    return ""


def sizes(reading: Reading, *, size: str, losses: Losses) -> Ratios:
    """Effective size over that of the control of the same size and seed, read between the controls.

    The control of a seed that is good at a text by chance takes that chance along; by definition it has 1.
    """
    control = reading.grid.control.get(size, {})
    return {
        seed: _ratio(_size(reading, size, loss), _size(reading, size, control[seed]))
        for seed, loss in losses.items()
        if seed in control
    }


def extra(
    there: Texts, reading: Reading, *, line: Line, passes: float | None = None, starved: bool = False
) -> Ratios:
    """Multiplier on another text over that on the own one, by seed: below 1 is extra damage there.

    Of the repeated runs with these passes (None: where the line is read), or of the starved ones.
    """
    found: list[Ratios] = []
    for one in (reading, there.own):
        losses = one.grid.starved.get(line, {})
        if not starved:
            losses = one.grid.repeated.get(line, {}).get(passes or there.at(line) or 0.0, {})
        found.append(sizes(one, size=line[0], losses=losses))
    other, own = found
    return {seed: _ratio(ratio, own[seed]) for seed, ratio in other.items() if seed in own}


def closed(ratios: Ratios) -> dict[Hashable, float]:
    """Those that are no open bounds."""
    return {seed: ratio for seed, ratio in ratios.items() if ratio is not None}


def at_high(lines: Mapping[Line, int], /) -> list[Line]:
    """The planned lines at the high share, those with the most seeds."""
    high = _nearest(lines, HIGH)
    most = max(lines[line] for line in high)
    return [line for line in high if lines[line] == most]


def compared(lines: Mapping[Line, int], /) -> tuple[list[Line], list[Line]]:
    """The planned lines at the high and the low share of the headline, of the sizes with the most seeds."""
    high, low = ({line[0]: line for line in _nearest(lines, share)} for share in (HIGH, LOW))
    both = {size: min(lines[high[size]], lines[low[size]]) for size in high if size in low}
    sizes_of = [size for size, n in both.items() if n == max(both.values())]
    if not sizes_of or high[sizes_of[0]][1] <= low[sizes_of[0]][1]:
        return [], []
    return [high[size] for size in sizes_of], [low[size] for size in sizes_of]


def _nearest(lines: Mapping[Line, int], share: float) -> list[Line]:
    """The lines at the share nearest to this one on the log scale."""
    at = min({line[1] for line in lines}, key=lambda one: (abs(math.log(one / share)), one))
    return [line for line in lines if line[1] == at]


def over_sizes(parts: Sequence[Mapping[Hashable, float]]) -> dict[Hashable, float]:
    """The paper's mean over sizes, the harmonic one, for each seed that has all of them."""
    shared = set.intersection(*map(set, parts)) if parts else set()
    return {seed: harmonic_mean([part[seed] for part in parts]) for seed in sorted(shared, key=str)}


def means(there: Texts) -> Iterator[tuple[Reading, float, list[str], Estimate | None, int]]:
    """For each other text and share: sizes, harmonic mean over them of the extra, lines that are open."""
    for reading in there.others:
        for share in dict.fromkeys(line[1] for line in there.lines):
            lines = [line for line in there.lines if line[1] == share]
            found = {line: extra(there, reading, line=line) for line in lines}
            whole = {line: closed(got) for line, got in found.items() if got and None not in got.values()}
            mean_over = over_sizes(list(whole.values()))
            estimate = t_interval(list(mean_over.values()), scale="log") if mean_over else None
            yield reading, share, [line[0] for line in whole], estimate, len(lines) - len(whole)


def _size(reading: Reading, size: str, loss: float) -> float | None:
    if reading.scan is None or reading.unfit:
        return None
    n_params = float(reading.grid.n_params[size])
    found = effective_size(reading.scan, n_params=n_params, losses={0: loss}, method="interpolation")
    return found.n_eff.value


def _ratio(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one / other
