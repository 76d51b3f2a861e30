"""Claims on what repetition does to copying, and what they can detect."""

import math
from collections.abc import Hashable, Iterator, Mapping, Sequence

from repetita.fit.claim import Claim, by_seed, directional, undecided
from repetita.fit.estimate import t_interval
from repetita.studies._copying import (
    TEST,
    Tables,
    disproportion,
    excess,
    left,
    main_curve,
    method_of,
    multipliers,
    passes_text,
    scan,
    treated_lines,
    worst,
)
from repetita.studies._grid import Labels, Line, Losses, line_text, main_corpus, main_lines
from repetita.studies._heads import headline_line
from repetita.studies._power import smallest_effect

PAPER = "Hernandez et al. 2022"

HEADLINE_SHARE, HEADLINE_WITHIN = 0.03, 2.0
"""The paper's headline is at 3% of the tokens; it is judged at a planned share within this factor of it."""
FLAT = 0.1
"""A loss counts as flat in the number of copies where less than this share of the control's gain is left."""

NOTHING_TO_LOSE = "no seed has both runs, or a control has no gain that repetition could take"

NAMES = (
    "copying-disproportion", "copying-damage", "copying-control", "copying-flat", "copying-flat-short",
    "copying-in-context", "copying-peak-moves",
)  # fmt: skip
"""The primary claims, headline first."""

SEED_SD = {
    "copying-disproportion": 0.3, "copying-damage": 0.05, "copying-control": 0.1, "copying-flat": 0.05,
    "copying-flat-short": 0.05, "copying-in-context": 0.1, "copying-peak-moves": 0.3,
}  # fmt: skip
"""Assumed standard deviations over seeds, for planning only: round numbers set before any run of this study.
No verdict uses them."""
PREDICTED = {
    "copying-disproportion": math.log(3 / 1.15), "copying-damage": 0.1, "copying-control": 0.5,
    "copying-flat": FLAT, "copying-flat-short": FLAT, "copying-in-context": 0.3, "copying-peak-moves": 0.7,
}  # fmt: skip
"""What the paper leads one to expect (Fig. 5 at 3%: 3 and 1.15), and round guesses where it has no number."""
UNITS = {
    "copying-disproportion": "in ln of the ratio", "copying-damage": "nats", "copying-control": "nats",
    "copying-flat": "of the control's gain below the threshold",
    "copying-flat-short": "of the control's gain below the threshold",
    "copying-in-context": "of the control's gain", "copying-peak-moves": "in ln of the ratio of worst passes",
}  # fmt: skip


def claims(found: Tables, *, planned: Sequence[Labels]) -> Iterator[Claim]:
    """The paper's statements, headline first; then other shares and other passages, which are descriptive."""
    main, short = main_passages(found)
    line = headline_line(planned)
    lines = main_lines(planned, curve=main_curve(planned, corpus=main_corpus(planned)))
    if main is None or line is None:
        yield _no_passage()
        return
    yield _disproportion(found, line, passage=main, name=NAMES[0])
    yield _damage(found, line, passage=main)
    yield _control(found, line, passage=main, name=NAMES[2])
    if lines:
        yield _flat(found, lines[0], passage=main, name=NAMES[3], source=f"{PAPER}, Fig. 7 left")
        if short is not None:
            yield _flat(found, lines[0], passage=short, name=NAMES[4], source=f"{PAPER}, Fig. 22")
        yield _context(found, lines[0], passage=main)
    if len(lines) > 1:
        yield _moves(found, lines[0], lines[1], passage=main)
    for other in treated_lines(found.loss[main]):
        if other != line:
            name = f"{NAMES[0]}-{_slug(other)}"
            yield _disproportion(found, other, passage=main, name=name)._replace(primary=False)
    for passage in found.passages:
        if passage != main:
            slug = _word(passage)
            name = f"{NAMES[0]}-on-{slug}"
            yield _disproportion(found, line, passage=passage, name=name)._replace(primary=False)
            yield _control(found, line, passage=passage, name=f"{NAMES[2]}-on-{slug}")._replace(primary=False)


def natural(found: Tables, *, corpus: str) -> Iterator[Claim]:
    """Whether the control copies natural text at all, by the passage of most copies; descriptive."""
    for passage in found.passages:
        gain = found.gain[passage]
        if gain.control:
            largest = max(gain.control, key=lambda size: gain.n_params[size])
            claim = _control(found, (largest, 0.0), passage=passage, name=f"copying-natural-{_word(passage)}")
            yield claim._replace(statement=f"{corpus}: {claim.statement}", primary=False)


def detectable(planned: Sequence[Labels], *, short: bool) -> Mapping[str, str]:
    """For each primary claim of the plan the smallest effect that its seeds can show, in words."""
    corpus = main_corpus(planned)
    line, lines = headline_line(planned), main_lines(planned, curve=main_curve(planned, corpus=corpus))

    def seeds(of: Line | None) -> int:
        if of is None:
            return 0
        own = [one for one in planned if (one["corpus"], one["size"]) == (corpus, of[0])]
        treated = {one["seed"] for one in own if (one["arm"], one["fraction"]) == ("repeated", of[1])}
        return len(treated & {one["seed"] for one in own if one["arm"] == "control"})

    of_line = dict.fromkeys(NAMES[:3], line) | dict.fromkeys(NAMES[3:], lines[0] if lines else None)
    dropped = set() if short else {NAMES[4]}
    if len(lines) < 2:
        dropped.add(NAMES[6])
    names = [name for name in NAMES if name not in dropped]
    return {
        name: smallest_effect(
            n=seeds(of_line[name]), sd=SEED_SD[name], unit=UNITS[name], predicted=PREDICTED[name],
            primary=len(names),
        )
        for name in names
    }  # fmt: skip


def main_passages(found: Tables, /) -> tuple[str | None, str | None]:
    """The passage that primary claims are on, long or else the first one that fitted, and the short one."""
    there = [name for name in found.passages if name != "random"]
    main = "long" if "long" in there else next(iter(there), None)
    return main, "short" if "short" in there and main != "short" else None


def _no_passage() -> Claim:
    return undecided(
        name=NAMES[0], statement=_statement("the headline's cell"), source=f"{PAPER}, Fig. 5", rule="needs a "
        "passage of which two copies fit, and treated runs", note="none is there yet", primary=True,
    )  # fmt: skip


def _statement(where: str) -> str:
    return f"{where}, worst passes: the model is smaller by its copying than by its test loss"


def _disproportion(found: Tables, line: Line, *, passage: str, name: str) -> Claim:
    """Both sizes at the passes with the highest test loss, which the test loss chose: it is not flattered."""
    statement = f"{_statement(line_text(line))} ({passage} passage)"
    source = f"{PAPER}, Fig. 5: at 3%, up to 3 times smaller on copying, at most 1.15 times on test loss"
    passes = worst(found.test, line) if line in found.test.repeated else {}
    sizes, shown = {}, []
    for what, grid in (("copying", found.loss[passage]), (TEST, found.test)):
        over = scan(grid)
        if over is not None:
            sizes[what] = multipliers(grid, line, passes, over=over, method=method_of(what))
            shown.append(f"{what} leaves {_sizes([one.value for one in sizes[what].values()])}")
    ratio = disproportion(sizes.get(TEST, {}), sizes.get("copying", {}))
    note = "; ".join(part for part in (_at(passes), *shown, ratio.text) if part)
    why = ""
    if name == NAMES[0] and not 1 / HEADLINE_WITHIN <= line[1] / HEADLINE_SHARE <= HEADLINE_WITHIN:
        why = f"no planned share is near {HEADLINE_SHARE:g}"
    elif not ratio.ratios or ratio.lost:
        why = "not every seed has both sizes"
    elif any(gain <= 0 for gain in found.gain[passage].control.get(line[0], {}).values()):
        why = "the control loses no less on later copies, so that its loss says nothing of copying"
    if why:
        return undecided(
            name=name, statement=statement, source=source, primary=True, n=len(ratio.ratios),
            rule="ratio of the two sizes above 1 (t test over seeds on the log scale), at a share within "
            f"{HEADLINE_WITHIN:g} times of {HEADLINE_SHARE:g} and where every control copies and every seed "
            "lies within the ladder of controls, or below it by its copying alone",
            note="; ".join((why, note)),
            estimate=t_interval(by_seed(ratio.ratios), scale="log") if ratio.ratios else None,
        )  # fmt: skip
    claim = directional(
        by_seed(ratio.ratios), name=name, statement=statement, source=source, threshold=1.0, scale="log",
        unit="(size left by test loss / size left by copying)", note=note,
    )  # fmt: skip
    if (ratio.bounded or ratio.above) and claim.leaning == "contradicted":
        # A least value under 1 contradicts nothing.
        return claim._replace(verdict="inconclusive", leaning=None, p=None)
    return claim


def _damage(found: Tables, line: Line, *, passage: str) -> Claim:
    grid = found.loss[passage]
    passes = worst(found.test, line) if line in found.test.repeated else {}
    return _judged(
        excess(grid, line, passes), name=NAMES[1], unit="nats a token over the control",
        statement=f"{line_text(line)}, worst passes: repetition raises the loss on the copied {passage} "
        "passage", source=f"{PAPER}, Figs. 5 and 20", note=_at(passes),
    )  # fmt: skip


def _control(found: Tables, line: Line, *, passage: str, name: str) -> Claim:
    gains = found.gain[passage].control.get(line[0], {})
    return _judged(
        gains, name=name, unit="nats a token, loss of the first copy minus that of later ones",
        statement=f"N = {line[0]}: the control copies: it loses less on the later copies of the {passage} "
        "passage than on the first", source=f"{PAPER}, Fig. 7 left",
    )  # fmt: skip


def _flat(found: Tables, line: Line, *, passage: str, name: str, source: str) -> Claim:
    """By the copy gain, which every copy goes into, instead of by the last copies alone."""
    passes = worst(found.test, line) if line in found.test.repeated else {}
    return _judged(
        left(found.gain[passage], line, passes), name=name, threshold=FLAT, direction="below",
        unit="of the control's copy gain", source=source, note=_at(passes), lacking=NOTHING_TO_LOSE,
        statement=f"{line_text(line)}: at the worst passes the loss on the {passage} passage is flat in the "
        f"number of copies: less than {FLAT:.0%} of the control's copy gain is left",
    )  # fmt: skip


def _context(found: Tables, line: Line, *, passage: str) -> Claim:
    passes = worst(found.test, line) if line in found.test.repeated else {}
    copying, context = left(found.gain[passage], line, passes), left(found.context, line, passes)
    both = {seed: context[seed] - copying[seed] for seed in copying if seed in context}
    parts = {"copy gain": copying, "gain from context": context}
    shown = [f"{name} left: {t_interval(by_seed(one)).text(digits=2)}" for name, one in parts.items() if one]
    return _judged(
        both, name=NAMES[5], source=f"{PAPER}, Fig. 7 right", unit="of the control's gains, context minus "
        "copying", statement=f"{line_text(line)}: at the worst passes more of the gain from context on the "
        f"test set is left than of the copy gain ({passage} passage)",
        note="; ".join(part for part in (_at(passes), *shown) if part),
        lacking=NOTHING_TO_LOSE,
    )  # fmt: skip


def _moves(found: Tables, small: Line, large: Line, *, passage: str) -> Claim:
    """Peaks of the copying loss itself, each seed's own passes; an edge decides nothing."""
    grid = found.loss[passage]
    statement = (
        f"the passes with the highest loss on the {passage} passage are fewer at N = {large[0]} than at "
        f"N = {small[0]} (f = {large[1]:g})"
    )
    source, edges, ratios = f"{PAPER}, Fig. 20", 0, dict[Hashable, float]()
    lines = [grid.by_seed(line) for line in (small, large)]
    for seed in sorted(set(lines[0]) & set(lines[1]), key=str):
        shared = sorted(set(lines[0][seed]) & set(lines[1][seed]))
        if len(shared) < 3:
            continue
        peaks = [max(shared, key=lambda passes, of=of: of[seed][passes]) for of in lines]  # type: ignore[misc]
        edges += any(peak in (shared[0], shared[-1]) for peak in peaks)
        ratios[seed] = peaks[1] / peaks[0]
    if edges or not ratios:
        return undecided(
            name=NAMES[6], statement=statement, source=source, primary=True, n=len(ratios),
            rule="ratio of the worst passes below 1 (t test over seeds on the log scale), where both lie "
            "inside the passes of every seed", note=f"a maximum at the edge of the passes in {edges} of "
            f"{len(ratios)} seeds" if ratios else "no seed has both sizes at three numbers of passes",
        )  # fmt: skip
    return directional(
        by_seed(ratios), name=NAMES[6], statement=statement, source=source, threshold=1.0, direction="below",
        scale="log", unit="(ratio of the worst passes)",
    )  # fmt: skip


def _judged(
    values: Losses,
    *,
    name: str,
    statement: str,
    source: str,
    unit: str,
    threshold: float = 0.0,
    direction: str = "above",
    note: str = "",
    lacking: str = "no seed has both a treated run and its control",
) -> Claim:
    """`directional`, or undecided where no seed has what it takes."""
    if not values:
        return undecided(
            name=name, statement=statement, source=source, primary=True, note=lacking,
            rule=f"{direction} {threshold:g} {unit} (t test over seeds)",
        )  # fmt: skip
    return directional(
        by_seed(values), name=name, statement=statement, source=source, threshold=threshold,
        direction="below" if direction == "below" else "above", unit=unit, note=note,
    )  # fmt: skip


def _at(passes: Mapping[Hashable, float]) -> str:
    chosen = " and ".join(passes_text(one) for one in sorted(set(passes.values())))
    how = "each seed's worst by the test loss of the others" if len(passes) > 1 else "worst of the same run"
    return f"at {chosen} passes ({how})" if passes else ""


def _sizes(values: Sequence[float | None]) -> str:
    there = [one for one in values if one is not None]
    if not there:
        return "a size outside the ladder of controls"
    return f"{t_interval(there, scale='log').text(digits=2)} of the size"


def _slug(line: Line) -> str:
    return f"{line[0]}-f{line[1]:g}"


def _word(name: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in name.lower()).strip("-") or "text"
