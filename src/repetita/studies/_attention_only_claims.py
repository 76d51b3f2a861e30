"""Claims on attention-only models under repetition, and what they can detect."""

from collections.abc import Iterator, Mapping, Sequence

from repetita.fit.claim import Claim, by_seed, directional, undecided
from repetita.fit.estimate import t_interval
from repetita.measure.passages import LATER
from repetita.studies._attention_only import (
    FUZZY,
    Added,
    Text,
    added_at_worst,
    beyond,
    extra,
    known,
    slug,
)
from repetita.studies._copying import worst
from repetita.studies._damage import damages
from repetita.studies._damage_claims import robustness
from repetita.studies._grid import MAIN_FRACTION, Labels, Line, Losses
from repetita.studies._power import smallest_effect

PAPER = "Hernandez et al. 2022"
SEED_SD = {"hump": 0.03, "names": 0.3, "names-beyond": 0.3}
"""Assumed standard deviations over seeds, in nats, for planning only: that of the hump as in
`double_descent`, round numbers for few tokens of one passage. No verdict uses them."""
PREDICTED = {"hump": 0.1, "names": 3.0, "names-beyond": 1.0}
"""What the paper leads one to expect: the hump of `double_descent`; names that fall from 97% to under 4% lose
3.2 nats (Fig. 8)."""
KINDS = tuple(SEED_SD)
EDGE = "a maximum at the edge of the passes that were run decides nothing"


def claims(
    texts: Sequence[Text], *, planned: Sequence[Labels], added: Mapping[str, Sequence[Added]]
) -> Iterator[Claim]:
    """Humps by number of layers on the text where they are planned, then names on the text that is copied;
    the same on the other text, fuzzy occurrences and heads are descriptive."""
    by_name = {text.corpus: text for text in texts}
    main = hump_corpus(planned)
    for size, line in lines(planned, corpus=main).items():
        yield _hump(by_name.get(main), line, size=size, primary=True)
    copied = names_corpora(planned)
    for make in (_names, _beyond):
        for size, corpus in copied.items():
            line = lines(planned, corpus=corpus)[size]
            yield make(by_name.get(corpus), line, size=size, primary=True)
    for corpus in dict.fromkeys(str(labels["corpus"]) for labels in planned):
        text = by_name.get(corpus)
        for size, line in lines(planned, corpus=corpus).items():
            if corpus != main:
                yield _descriptive(_hump(text, line, size=size, primary=False), corpus)
            if corpus != copied[size]:
                yield _descriptive(_names(text, line, size=size, primary=False), corpus)
                yield _descriptive(_beyond(text, line, size=size, primary=False), corpus)
            yield from _fuzzy(text, line, size=size)
            yield from _heads(text, line, size=size, added=added.get(corpus, ()))


def hump_corpus(planned: Sequence[Labels]) -> str:
    """The corpus with most subsets of one size: there the worst number of passes can be interior."""
    passes: dict[str, set[object]] = {}
    for labels in planned:
        if labels["passes"] is not None:
            passes.setdefault(str(labels["corpus"]), set()).add((labels["size"], labels["passes"]))
    return max(passes, key=lambda corpus: len(passes[corpus]), default="")


def names_corpora(planned: Sequence[Labels]) -> dict[str, str]:
    """By size the corpus on which names are looked at, fewest layers first.

    Two layers and more: the synthetic corpus, where it is planned, since models of this size copy there. One
    layer: the corpus of the hump. It can learn pairs of tokens only, and in bursts no pair comes back more
    often than another.
    """
    main = hump_corpus(planned)
    there: dict[str, list[str]] = {}
    for labels in sorted(planned, key=lambda labels: int(labels["layers"] or 0)):
        if labels["fraction"] is not None:
            there.setdefault(str(labels["size"]), []).append(str(labels["corpus"]))
    deep = {str(labels["size"]) for labels in planned if int(labels["layers"] or 0) > 1}
    found = {}
    for size, corpora in there.items():
        wanted = ("synthetic", main) if size in deep else (main,)
        found[size] = next((corpus for corpus in wanted if corpus in corpora), corpora[0])
    return found


def lines(planned: Sequence[Labels], *, corpus: str) -> dict[str, Line]:
    """By size the planned share nearest to a half on a corpus, fewest layers first."""
    found: dict[str, Line] = {}
    for labels in sorted(planned, key=lambda labels: int(labels["layers"] or 0)):
        if labels["corpus"] != corpus or labels["fraction"] is None:
            continue
        size, share = str(labels["size"]), float(labels["fraction"])
        known = found.get(size)
        if known is None or abs(share - MAIN_FRACTION) < abs(known[1] - MAIN_FRACTION):
            found[size] = size, share
    return found


def detectable(planned: Sequence[Labels]) -> Mapping[str, str]:
    """For each primary claim the smallest effect that its planned seeds can show, in words."""
    seeds: dict[str, int] = {}
    copied = names_corpora(planned)
    humps = dict.fromkeys(lines(planned, corpus=hump_corpus(planned)), hump_corpus(planned))
    for kind, corpora in (("hump", humps), ("names", copied), ("names-beyond", copied)):
        for size, corpus in corpora.items():
            line = lines(planned, corpus=corpus)[size]
            there = [labels for labels in planned if labels["corpus"] == corpus and labels["size"] == size]
            treated = [labels["seed"] for labels in there if labels["fraction"] == line[1]]
            control = {labels["seed"] for labels in there if labels["fraction"] is None}
            wanted = 3 if kind == "hump" else 1
            seeds[f"{kind}-{slug(size)}"] = len({s for s in treated if treated.count(s) >= wanted} & control)
    return {
        name: smallest_effect(
            n=n, sd=SEED_SD[_kind(name)], unit="nats", predicted=PREDICTED[_kind(name)], primary=len(seeds)
        )
        for name, n in seeds.items()
    }


def _kind(name: str) -> str:
    return next(kind for kind in reversed(KINDS) if name.startswith(kind))


def _descriptive(claim: Claim, corpus: str) -> Claim:
    statement = f"{corpus}: {claim.statement}"
    return claim._replace(name=f"{claim.name}-{slug(corpus)}", statement=statement, primary=False)


def _hump(text: Text | None, line: Line, *, size: str, primary: bool) -> Claim:
    name, source = f"hump-{slug(size)}", f"{PAPER}, Fig. 19"
    statement = (
        f"models of {size} without MLP do worst on unseen text at an interior number of passes "
        f"(f = {line[1]:g})"
    )
    found = damages(text.test.only([line])) if text is not None else []
    if not found or text is None:
        note = "the control, or runs at three numbers of passes, are not there"
        return undecided(name=name, statement=statement, source=source, rule=EDGE, note=note, primary=primary)
    (claim,) = robustness("", found, grid=text.test)
    return claim._replace(name=name, statement=statement, source=source, primary=primary)


def _names(text: Text | None, line: Line, *, size: str, primary: bool) -> Claim:
    passage = _passage(text, line)
    losses = {} if text is None or passage is None else extra(text, passage, line)
    return _judged(
        losses,
        unknown=_unknown(text, passage, line),
        name=f"names-{slug(size)}",
        statement=f"models of {size} trained on repeated data are less sure how a name goes on that stood in "
        "front of them",
        source=f"{PAPER}, Figs. 8 and 9",
        unit="nats a token, treated at the worst passes minus control",
        note=_what(text, passage, line),
        primary=primary,
    )


def _beyond(text: Text | None, line: Line, *, size: str, primary: bool) -> Claim:
    passage = _passage(text, line)
    losses = {} if text is None or passage is None else beyond(text, passage, line)
    return _judged(
        losses,
        unknown=_unknown(text, passage, line),
        name=f"names-beyond-{slug(size)}",
        statement=f"models of {size} lose more on names that stood before than on other tokens",
        source=f"{PAPER}, Figs. 8 and 9",
        unit="nats a token, extra loss on names minus extra loss on other tokens",
        note=_what(text, passage, line),
        primary=primary,
    )


def _fuzzy(text: Text | None, line: Line, *, size: str) -> Iterator[Claim]:
    """Inflected and embedded names, where the passage has them."""
    passage = _passage(text, line)
    if text is None or passage is None or not (losses := extra(text, passage, line, kinds=FUZZY)):
        return
    yield _judged(
        losses,
        unknown=_unknown(text, passage, line),
        name=f"fuzzy-{slug(size)}-{slug(text.corpus)}",
        statement=f"{text.corpus}, {size}: names that stood before in another form are hit as well (fuzzy "
        "copying)",
        source=f"{PAPER}, Figs. 8 and 9",
        unit="nats a token, treated at the worst passes minus control",
        note=_what(text, passage, line),
        primary=False,
    )


def _heads(text: Text | None, line: Line, *, size: str, added: Sequence[Added]) -> Iterator[Claim]:
    """Whether the highest head adds less; the paper comes to no clear verdict."""
    both = {} if text is None else added_at_worst(added, text, line)
    if text is None or not both:
        return
    yield directional(
        by_seed({seed: float(b.by_head()[0] - a.by_head()[0]) for seed, (a, b) in both.items()}),
        name=f"highest-head-{slug(size)}-{slug(text.corpus)}",
        statement=f"{text.corpus}, {size}: on a text read for the second time the highest head adds less to "
        "the logit of the token that follows",
        source=f"{PAPER}, Figs. 17 and 18 (where it sees no clear verdict)",
        direction="below",
        unit="logits, mean over tokens, treated at the worst passes minus control",
        primary=False,
    )


def _judged(
    losses: Losses,
    *,
    unknown: str,
    name: str,
    statement: str,
    source: str,
    unit: str,
    note: str,
    primary: bool,
) -> Claim:
    """Above zero over seeds, or undecided where nothing was read or the control has nothing to lose."""
    if not losses or unknown:
        rule = (
            "above 0 nats (t test over seeds), where control and treated runs have read the passage and "
            "every control is surer of names that stood before than of their first occurrence"
        )
        return undecided(
            name=name, statement=statement, source=source, rule=rule, primary=primary, n=len(losses),
            note="; ".join(part for part in (unknown, note) if part),
            estimate=t_interval(by_seed(losses)) if losses else None,
        )  # fmt: skip
    return directional(
        by_seed(losses), name=name, statement=statement, source=source, unit=unit, note=note, primary=primary
    )


def _unknown(text: Text | None, passage: str | None, line: Line) -> str:
    """Why there is no copying that repetition could take; "" where there is."""
    if text is None or passage is None:
        return ""
    none = [str(seed) for seed, less in known(text, passage, line).items() if less <= 0]
    return f"names that stood before are no easier for the control in seed {', '.join(none)}" if none else ""


def _passage(text: Text | None, line: Line) -> str | None:
    """The passage with most tokens that go on with names, among those that both arms have read."""
    if text is None:
        return None
    return next((name for name in text.named() if text.at_worst(name, line)), None)


def _what(text: Text | None, passage: str | None, line: Line) -> str:
    if text is None or passage is None:
        return "no seed has read a passage in both arms"
    control, _ = next(iter(text.at_worst(passage, line).values()))
    n = int(control.of(LATER).sum())
    passes = sorted(set(worst(text.test, line).values()))
    at = " and ".join(f"{one:,.0f}" for one in passes)
    if len(text.test.repeated[line]) == 1:
        how = "the only ones that were run"
    elif len(text.at_worst(passage, line)) == 1:
        how = "the worst of the same run"
    else:
        how = "each seed's worst by the test loss of the others"
    return f"{n} of {len(control.tokens)} tokens of the passage {passage}; at {at} passes ({how})"
