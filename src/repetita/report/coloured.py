"""A text whose tokens are coloured by a number each, as data: tokens, values, marks, and their colours."""

import math
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple, Self
from xml.sax.saxutils import escape

from pydantic import Field, model_validator

from repetita.errors import SpecError
from repetita.report.figure import MAX_ROWS, NAME, Cell, Figure, Row, csv_text
from repetita.report.palette import FONT, THEMES, ThemeName, diverging
from repetita.spec import Spec

STEPS = 5
"""Shades on either side of the neutral one: as many as a reader tells apart on one line."""

ENOUGH = 0.98
"""Without a `limit` this share of the tokens lies inside the scale; one outlier must not pale the others."""

NEWLINE, TAB = "\N{DOWNWARDS ARROW WITH CORNER LEFTWARDS}", "\N{RIGHTWARDS ARROW TO BAR}"

_WIDTH, _SIZE, _LINE = 720, 13.0, 24.0
_CHARACTER = 0.6 * _SIZE  # a monospaced font's advance


class Excerpt(Spec):
    """One text of a figure, token by token."""

    heading: str = ""
    tokens: tuple[str, ...] = Field(min_length=1)
    """Their text, with the spaces that belong to it."""
    values: tuple[float | None, ...]
    """One a token; None is not coloured."""
    marks: tuple[int, ...] = ()
    """Positions of the tokens that are underlined."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(self.values) != len(self.tokens):
            raise SpecError(
                f"Excerpt: {len(self.tokens)} tokens and {len(self.values)} values; give one value a token"
            )
        if any(not 0 <= at < len(self.tokens) for at in self.marks):
            raise SpecError(f"Excerpt: a mark is outside the {len(self.tokens)} tokens; count them from 0")
        return self


class Shown(NamedTuple):
    """A token as it is drawn."""

    text: str
    """No control character, nothing that turns the direction of writing."""
    value: float | None
    shade: int
    """-STEPS .. STEPS; 0 is neutral, and what has no value."""
    marked: bool
    ends_line: bool


class ColouredText(Spec):
    """Texts whose tokens are coloured on one diverging scale around zero; stands among figures.

    Raises SpecError in one sentence.
    """

    name: str
    """Lower-case words joined by hyphens, unique in a page; names the downloaded files."""
    title: str
    caption: str
    n: str = Field(min_length=1)
    excerpts: tuple[Excerpt, ...] = Field(min_length=1)
    unit: str
    """What the values count."""
    below: str
    """What a value below zero means, in a few words."""
    above: str
    limit: float | None = Field(default=None, gt=0)
    """Distance from zero of the fullest colour; None takes it from the values."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        where = f"ColouredText '{self.name}'"
        if not NAME.match(self.name):
            raise SpecError(
                f"{where}: the name must be lower-case words joined by hyphens, like 'loss-by-token'"
            )
        if sum(len(one.tokens) for one in self.excerpts) >= MAX_ROWS:
            raise SpecError(f"{where}: {MAX_ROWS} tokens or more; show a shorter text")
        return self

    @property
    def rows(self) -> tuple[Row, ...]:
        """A row a token: its text as it is shown, its value, whether it is marked."""
        return tuple(
            {
                "excerpt": one.heading,
                "position": at,
                "token": visible(token),
                "value": one.values[at],
                "marked": "yes" if at in one.marks else None,
            }
            for one in self.excerpts
            for at, token in enumerate(one.tokens)
        )

    def columns(self) -> list[str]:
        """The columns of the rows."""
        return list(self.rows[0])

    def csv(self) -> str:
        """The rows as CSV with a column `n`, safe to open in a spreadsheet."""
        columns = self.columns()
        return csv_text([*columns, "n"], ([*(row[c] for c in columns), self.n] for row in self.rows))

    def reach(self) -> float:
        """Distance from zero of the fullest colour: `limit`, or a round number that holds most tokens."""
        if self.limit is not None:
            return self.limit
        sizes = sorted(abs(v) for one in self.excerpts for v in one.values if v is not None)
        at = sizes[min(len(sizes) - 1, int(ENOUGH * len(sizes)))] if sizes else 0.0
        if at == 0:
            return 1.0
        power = 10.0 ** math.floor(math.log10(at))
        return next(float(f"{t * power:.6g}") for t in (1, 1.5, 2, 3, 5, 7, 10) if t * power >= at)

    def shown(self, excerpt: Excerpt) -> list[Shown]:
        """The tokens of a excerpt as they are drawn."""
        full, marks = self.reach(), frozenset(excerpt.marks)
        return [
            Shown(visible(token), value, _shade(value, full), at in marks, token.endswith("\n"))
            for at, (token, value) in enumerate(zip(excerpt.tokens, excerpt.values, strict=True))
        ]

    def ends(self) -> tuple[str, str]:
        """Labels of the two ends of the scale."""
        full = self.reach()
        return f"-{full:g} or less: {self.below}", f"{full:g} or more: {self.above}"


Drawing = Figure | ColouredText
"""What a study's page shows under a number of its own."""


def visible(token: str, /) -> str:
    """The text with a sign for what has no shape: line ends, tabs, control and direction characters."""
    return "".join(map(_visible, token))


def _visible(letter: str) -> str:
    if letter in "\n\t":
        return NEWLINE if letter == "\n" else TAB
    if unicodedata.category(letter) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"):
        return f"\\u{ord(letter):04x}"
    return letter


def _shade(value: float | None, full: float) -> int:
    if value is None:
        return 0
    # The neutral shade is as wide as the others.
    return max(-STEPS, min(STEPS, round(value / full * (STEPS + 0.5))))


def svg_of_text(text: ColouredText, *, theme: ThemeName = "light") -> str:
    """The texts in a monospaced font under the scale, as SVG; nothing in it is anything but text."""
    look, drawn = THEMES[theme], list[str]()
    y = _scale(text, theme, drawn)
    for excerpt in text.excerpts:
        if excerpt.heading:
            y += 10
            drawn.append(_words(excerpt.heading, 12, y + 4, look.ink, weight=600))
            y += 16
        y = _lines(text.shown(excerpt), theme, drawn, y)
    height = round(y + 12)
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" '
        f'viewBox="0 0 {_WIDTH} {height}"><rect width="{_WIDTH}" height="{height}" fill="{look.background}"/>'
    )
    return head + "".join(drawn) + "</svg>"


def _scale(text: ColouredText, theme: ThemeName, drawn: list[str]) -> float:
    """Draws title, shades and ends of the scale; returns where the text begins."""
    look, colours = THEMES[theme], diverging(2 * STEPS + 1, theme)
    low, high = text.ends()
    drawn.append(_words(text.unit, 12, 24, look.quiet))
    for i, colour in enumerate(colours):
        drawn.append(f'<rect x="{12 + 16 * i}" y="34" width="16" height="12" fill="{colour}"/>')
    drawn.append(_words(f"left: {low}", 12 + 16 * len(colours) + 12, 37, look.quiet))
    drawn.append(_words(f"right: {high}", 12 + 16 * len(colours) + 12, 52, look.quiet))
    return 72.0


def _lines(tokens: Sequence[Shown], theme: ThemeName, drawn: list[str], y: float) -> float:
    """Draws tokens line by line, a long one broken; returns the bottom."""
    look, colours = THEMES[theme], diverging(2 * STEPS + 1, theme)
    room = int((_WIDTH - 24) / _CHARACTER)
    at = 0
    for token in tokens:
        rest = token.text
        if room - at < _columns(rest) <= room:
            at, y = 0, y + _LINE
        while rest:
            part = _head(rest, room - at)
            if not part:
                at, y = 0, y + _LINE
                continue
            rest, x, wide = rest[len(part) :], 12 + at * _CHARACTER, _columns(part) * _CHARACTER
            place = f'x="{x:.1f}" y="{y - 3:.1f}" width="{wide:.1f}" height="{_LINE - 4:g}"'
            if token.shade:
                drawn.append(f'<rect {place} fill="{colours[token.shade + STEPS]}"/>')
            kept = escape(part.replace(" ", "\N{NO-BREAK SPACE}"))
            drawn.append(
                f'<text x="{x:.1f}" y="{y + 12:.1f}" textLength="{wide:.1f}" '
                f'lengthAdjust="spacingAndGlyphs" font-family="monospace" font-size="{_SIZE:g}" '
                f'fill="{look.ink}">{kept}</text>'
            )
            if token.marked:
                drawn.append(
                    f'<rect x="{x:.1f}" y="{y + 15:.1f}" width="{wide:.1f}" height="1.6" fill="{look.ink}"/>'
                )
            at += _columns(part)
        if token.ends_line:
            at, y = 0, y + _LINE
    return y + (_LINE if at else 0)


def _head(text: str, room: int) -> str:
    """The longest beginning that is at most `room` columns wide."""
    taken = 0
    for i, letter in enumerate(text):
        taken += _columns(letter)
        if taken > room:
            return text[:i]
    return text


def _columns(text: str) -> int:
    """Columns of a monospaced font: Chinese, Japanese and Korean letters take two."""
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


def _words(text: str, x: float, y: float, colour: str, *, weight: int = 400) -> str:
    shown = escape(visible(text))
    return (
        f'<text x="{x:g}" y="{y:g}" font-family="{escape(FONT, {chr(34): ""})}" font-size="12" '
        f'font-weight="{weight}" fill="{colour}">{shown}</text>'
    )


def tooltip_fields() -> list[dict[str, Cell]]:
    """What the page shows of a token that is pointed at."""
    return [{"title": name, "column": name, "low": None, "high": None} for name in ("token", "value")]
