"""Attention-only models under repetition, drawn and in tables (repeated-data paper, Figs. 8, 9, 17-19)."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from repetita.fit.estimate import t_interval
from repetita.measure.passages import KINDS, LATER
from repetita.report.coloured import ColouredText, Drawing, Excerpt
from repetita.report.figure import Axis, Cell, Figure, Panels, Row, Series
from repetita.report.page import Table
from repetita.studies._attention_only import (
    Added,
    Floats,
    Read,
    Text,
    added_at_worst,
    difference,
    slug,
)
from repetita.studies._copying import worst
from repetita.studies._damage_figures import INTERVAL, INTERVALS, LINE, POINT, drawn, loss_by_passes
from repetita.studies._grid import Line

CONTEXT = 5
"""Tokens before a name's that the table shows with it."""
MAX_TOKENS = 60
"""Rows of the table of tokens, the largest changes first."""
HEADS = 8
"""Heads drawn, highest first."""
UNDERLINED = "Underlined: what goes on with a name that stood before."


def figures(texts: Sequence[Text], *, added: Mapping[str, Sequence[Added]]) -> Iterator[Drawing]:
    """The figures that the measurements allow, in the paper's order."""
    for text in texts:
        if text.test.repeated:
            yield loss_by_passes(text.test).edit(
                name=f"attention-only-loss-{slug(text.corpus)}",
                title=f"One and two layers without MLP: test loss over passes ({text.corpus})",
            )
    for text in texts:
        for passage in text.named():
            yield from tokens(text, passage)
    for text in texts:
        yield from heads(text, added.get(text.corpus, ()))
        yield from head_tokens(text, added.get(text.corpus, ()))


def tables(texts: Sequence[Text]) -> Iterator[Table]:
    """Names by kind of occurrence, and the tokens that change most."""
    rows = [row for text in texts for passage in text.named() for row in _by_kind(text, passage)]
    if rows:
        yield Table(
            "attention-only-names",
            "How sure models are of how a name goes on",
            "Mean probability of the tokens that go on with a name, where it stands for the first time, and "
            "later as it was, with an ending (plural, possessive) or inside another word; treated runs at "
            "their worst passes. Odds: of the geometric means, treated over control.",
            "means over seeds; n counts tokens",
            ("Text", "Passage", "Model", "Occurrence", "Tokens", "Seeds", "Control", "Treated", "Odds"),
            rows,
        )
    found = [row for text in texts for passage in text.named()[:1] for row in _by_token(text, passage)]
    if found:
        found.sort(key=lambda row: -abs(float(row[-1] or 0)))
        yield Table(
            "attention-only-name-tokens",
            "The tokens of names that change most",
            "Each token that goes on with a name after its first occurrence, in square brackets behind what "
            "stands before it. Probabilities are geometric means over seeds; nats are treated minus control.",
            f"the {min(MAX_TOKENS, len(found))} largest of {len(found)} changes",
            ("Text", "Model", "Token", "Occurrence", "Control", "Treated", "Extra nats"),
            found[:MAX_TOKENS],
        )


def tokens(text: Text, passage: str) -> Iterator[ColouredText]:
    """Figs. 8 and 9: the loss of each token, treated minus control, an excerpt for each model."""
    excerpts, n_seeds = [], 0
    for line in text.lines():
        found = difference(text, passage, line)
        if found is not None:
            read, n = found
            n_seeds = max(n_seeds, n)
            excerpts.append(_excerpt(read, heading=_heading(text, line)))
    if excerpts:
        yield ColouredText(
            name=f"attention-only-tokens-{slug(text.corpus)}-{slug(passage)}",
            title=f"Where repetition costs: the passage '{passage}' token by token ({text.corpus})",
            caption="Loss of each token in the treated model minus that in the control, mean over seeds. "
            f"{UNDERLINED} The paper sees names lose most: in the treated model of one layer the second "
            "half of a name fell from 97% to under 4%.",
            n=f"{n_seeds} seeds; {len(excerpts[0].tokens)} tokens",
            excerpts=tuple(excerpts),
            unit="extra loss, nats",
            below="treated model better",
            above="control better",
        )


def heads(text: Text, added: Sequence[Added]) -> Iterator[Figure]:
    """Figs. 17 and 18 in numbers: what the heads add, highest first."""
    rows: list[Row] = []
    for line in text.lines():
        pairs = added_at_worst(added, text, line)
        for arm, place in (("control", 0), ("treated, worst passes", 1)):
            by_seed = [pair[place].by_head() for pair in pairs.values()]
            for rank in range(min(HEADS, len(by_seed[0])) if by_seed else 0):
                cell: Row = {"model": _heading(text, line, passes=False), "arm": arm, "rank": rank + 1}
                values = t_interval([float(one[rank]) for one in by_seed])
                rows.append({**cell, **drawn(values, value="added")})
    if not rows:
        return
    yield Figure(
        name=f"attention-only-heads-{slug(text.corpus)}",
        title=f"What each head adds to the token that follows, at a second reading ({text.corpus})",
        caption="Direct logit attribution: the head's output through the final norm and the output matrix, "
        "to the logit of the token that follows minus the mean over the vocabulary; mean over the tokens of "
        "a text that stands in front of the model for the second time. Heads by rank in each run. "
        f"{INTERVALS}",
        n=f"{max(int(row['seeds'] or 0) for row in rows)} seeds an arm",
        rows=tuple(rows),
        x=Axis(column="rank", title="head, by what it adds", scale="category"),
        y=Axis(column="added", title="logits added"),
        series=Series(column="arm", title="", muted=("control",)),
        panels=Panels(column="model", title="", share="both") if len(text.lines()) > 1 else None,
        layers=(INTERVAL, LINE, POINT),
    )


def head_tokens(text: Text, added: Sequence[Added]) -> Iterator[ColouredText]:
    """Figs. 17 and 18: the highest head of each arm, token by token, on the second copy; first seed."""
    excerpts = []
    for line in text.lines():
        pairs = added_at_worst(added, text, line)
        if not pairs:
            continue
        seed = min(pairs, key=str)
        for arm, one in zip(("control", "treated"), pairs[seed], strict=True):
            layer, head = one.highest()
            values = one.second[layer, head].tolist()
            shown = _twice(text, len(values))
            if shown is not None:
                heading = f"{_heading(text, line)}: {arm}, head {head} of layer {layer + 1}"
                excerpts.append(Excerpt(heading=heading, tokens=shown, values=values))
    if excerpts:
        yield ColouredText(
            name=f"attention-only-head-tokens-{slug(text.corpus)}",
            title=f"What the highest head adds, token by token ({text.corpus})",
            caption="The second copy of a text that is written twice; the colour is what the head that adds "
            "most adds to the logit of that token. The paper could not tell a weaker induction head from "
            "other heads that interfere.",
            n="one seed",
            excerpts=tuple(excerpts),
            unit="added to the token's logit, minus the mean over the vocabulary",
            below="lowers it",
            above="raises it",
        )


def _twice(text: Text, n_tokens: int) -> tuple[str, ...] | None:
    """Tokens of the passage that was written twice, without its first: the one that is so long."""
    for cells in text.passages.values():
        for by_seed in cells.values():
            for read in by_seed.values():
                if len(read.tokens) == n_tokens + 1:
                    return read.tokens[1:]
                break
            break
    return None


def _excerpt(read: Read, *, heading: str) -> Excerpt:
    marks = tuple(np.flatnonzero(read.of(LATER)).tolist())
    values = [round(float(one), 4) for one in read.losses]
    return Excerpt(heading=heading, tokens=read.tokens, values=tuple(values), marks=marks)


def _heading(text: Text, line: Line, *, passes: bool = True) -> str:
    """`1 layer, f = 0.5, 80 passes`."""
    chosen = sorted(set(worst(text.test, line).values()))
    at = f", {' or '.join(f'{one:g}' for one in chosen)} passes" if passes and chosen else ""
    return f"{line[0]}, f = {line[1]:g}{at}"


def _by_kind(text: Text, passage: str) -> Iterator[list[Cell]]:
    for line in text.lines():
        pairs = list(text.at_worst(passage, line).values())
        for kind in KINDS if pairs else ():
            there = pairs[0][0].of([kind])
            if not there.any():
                continue
            control, treated = (np.array([pair[i].losses[there] for pair in pairs]) for i in (0, 1))
            odds = np.exp(_log_odds(treated) - _log_odds(control))
            yield [
                text.corpus, passage, _heading(text, line), kind, int(there.sum()), len(pairs),
                _share(np.exp(-control).mean()), _share(np.exp(-treated).mean()), float(f"{odds:.3g}"),
            ]  # fmt: skip


def _by_token(text: Text, passage: str) -> Iterator[list[Cell]]:
    for line in text.lines():
        pairs = list(text.at_worst(passage, line).values())
        if not pairs:
            continue
        first = pairs[0][0]
        for at in np.flatnonzero(first.of(LATER)).tolist():
            control, treated = (float(np.mean([pair[i].losses[at] for pair in pairs])) for i in (0, 1))
            before = "".join(first.tokens[max(0, at - CONTEXT) : at])
            yield [
                text.corpus, _heading(text, line), f"{before}[{first.tokens[at]}]",
                KINDS[int(first.kinds[at])], _share(np.exp(-control)), _share(np.exp(-treated)),
                round(treated - control, 3),
            ]  # fmt: skip


def _log_odds(losses: Floats) -> float:
    """Of the geometric mean probability."""
    loss = float(losses.mean())
    return -loss - float(np.log(-np.expm1(-max(loss, 1e-9))))


def _share(value: float) -> float:
    return float(f"{float(value):.3g}")
