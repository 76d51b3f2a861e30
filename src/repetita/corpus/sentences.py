"""Where sentences and paragraphs end in a text, as byte offsets."""

import re
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Offsets = NDArray[np.int64]

_STOP = re.compile("[.!?\u2026]+[\"'\u201d\u2019)\\]\u00bb]*(?=\\s+(\\S))")
_BLANK_LINE = re.compile(r"\n[ \t\r]*\n\s*")
_LINE = re.compile(r"\n\s*")
_LAST_WORD = re.compile(r"[\w.]+$")
_INITIALS = re.compile(r"(\w\.)*[^\W\d]")

WORD = 16
"""Characters before a full stop that decide whether it ends a sentence."""

ABBREVIATIONS = frozenset(
    "art capt cf co col dr e.g eq etc fig figs gen gov hon i.e inc jr lieut lt maj messrs mr mrs ms no nos p "
    "pp prof rep rev sec secs sen sr st vol viz vs".split()
)
"""Words whose full stop does not end a sentence, in lower case; single letters do not either (initials)."""


class Ends(NamedTuple):
    """Character offsets in a text, rising, shape (n,) each; the end of the text is the last of both."""

    sentences: Offsets
    paragraphs: Offsets


def text_ends(text: str, /, *, lines: bool | None = None) -> Ends:
    """Where the sentences and paragraphs of a text end; every end of a paragraph is one of a sentence.

    Paragraphs are separated by blank lines, which belong to the one before. A text without a blank line has
    a paragraph a line; `lines` says so of a text of which only a part is given.

    A sentence ends after a full stop, question mark, exclamation mark or ellipsis (and closing quotes or
    brackets) before white space and anything but a lower-case letter, unless the full stop belongs to an
    abbreviation or an initial. White space belongs to the sentence that follows, as a byte-level BPE has it,
    but at the end of a paragraph.
    """
    paragraphs = _paragraph_ends(text, lines)
    closed = set(paragraphs)
    ends = sorted(closed.union(_stops(text)))
    # Only the end of a paragraph can have nothing but white space between itself and the end before it.
    sentences = [end for end, after in pairwise(ends) if after not in closed or not text[end:after].isspace()]
    return Ends(np.array([*sentences, ends[-1]], dtype=np.int64), np.array(paragraphs, dtype=np.int64))


def _paragraph_ends(text: str, lines: bool | None) -> list[int]:
    ends = [] if lines else [match.end() for match in _BLANK_LINE.finditer(text)]
    if lines or (lines is None and not ends):
        ends = [match.end() for match in _LINE.finditer(text)]
    first = len(text) - len(text.lstrip())
    return [*(end for end in ends if first < end < len(text)), len(text)]


def _stops(text: str) -> Iterator[int]:
    for match in _STOP.finditer(text):
        start, end = match.span()
        if match[1].islower():
            continue
        if end == start + 1 and text[start] == ".":
            word = _LAST_WORD.search(text, max(0, start - WORD), start)
            last = word[0].lower() if word else ""
            if last in ABBREVIATIONS or _INITIALS.fullmatch(last):
                continue
        yield end


def byte_offsets(text: str, *, offsets: Offsets) -> Offsets:
    """The same places counted in bytes of UTF-8."""
    if text.isascii():
        return offsets
    data = np.frombuffer(text.encode(), dtype=np.uint8)
    starts = np.append(np.flatnonzero((data & 0xC0) != 0x80), data.size)
    return starts[offsets].astype(np.int64)
