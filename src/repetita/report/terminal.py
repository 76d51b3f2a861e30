"""Findings as a table for the terminal; names that carry control characters or markup stay inert."""

import unicodedata
from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from repetita.fit.claim import Claim

STYLES = {"supported": "green", "contradicted": "red", "inconclusive": "yellow", "illustrated": "cyan"}

_UNSEEN = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
"""Unicode categories that move the cursor, reorder or hide text: controls, formats, line separators."""


def findings_table(claims: Sequence[Claim], *, title: str = "") -> Table:
    """A rich table of verdict, statement, estimate with interval, and n, in the order given."""
    table = Table(title=Text(printable(title)) if title else None, title_justify="left", pad_edge=False)
    table.add_column("verdict", no_wrap=True)
    table.add_column("finding", ratio=1)
    table.add_column("estimate [interval]")
    table.add_column("n", justify="right", no_wrap=True)
    for claim in claims:
        table.add_row(
            Text(claim.verdict, style=STYLES[claim.verdict]),
            Text(printable(claim.statement))
            + Text(f"\n{printable(claim.note)}" if claim.note else "", "dim"),
            Text(printable(claim.measured)),
            Text(str(claim.n)),
        )
    return table


def findings_lines(claims: Sequence[Claim]) -> list[str]:
    """The same as plain lines, for a pipe or a log."""
    lines = []
    for claim in claims:
        estimate = f": {claim.measured}" if claim.measured else ""
        note = f"; {claim.note}" if claim.note else ""
        lines.append(printable(f"{claim.verdict}: {claim.statement}{estimate} (n = {claim.n}{note})"))
    return lines


def printable(text: str) -> str:
    r"""The text with every character that a terminal would act on written out, as in `\x1b`."""
    return "".join(
        char.encode("unicode_escape", "backslashreplace").decode()
        if unicodedata.category(char) in _UNSEEN
        else char
        for char in text
    )
