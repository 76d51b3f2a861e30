"""Where sentences and paragraphs end in a text, as byte offsets."""

import re
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Offsets = NDArray[np.int64]

_STOP = re.compile("[.!?\u2026]+[\"'\u201d\u2019)\\]\u00bb]*(?=\\s+(\\S))")
_BLANK_LINE = re.compile(r"\r?\n[ \t\r]*\n\s*")
_LINE = re.compile(r"\n\s*")
_LAST_WORD = re.compile(r"[\w.]+$")

ABBREVIATIONS = frozenset(
    "art capt cf co col dr e.g eq etc fig figs gen gov hon i.e inc jr lieut lt maj messrs mr mrs ms no nos p "
    "pp prof rep rev sec secs sen sr st vol viz vs".split()
)
"""Words whose full stop does not end a sentence, in lower case; single letters do not either (initials)."""


def paragraph_ends(text: str) -> Offsets:
    """Character offsets at which paragraphs end, the end of the text included, shape (n,), rising.

    Paragraphs are separated by blank lines, which belong to the one before. A text without a blank line has
    a paragraph a line.
    """
    ends = [match.end() for match in _BLANK_LINE.finditer(text)]
    if not ends:
        ends = [match.end() for match in _LINE.finditer(text)]
    inside = {end for end in ends if end < len(text) and not text[:end].isspace()}
    return np.array(sorted(inside | {len(text)}), dtype=np.int64)


def sentence_ends(text: str) -> Offsets:
    """Character offsets at which sentences end, every end of a paragraph included, shape (n,), rising.

    A sentence ends after a full stop, question mark, exclamation mark or ellipsis (and closing quotes or
    brackets) before white space and anything but a lower-case letter, unless the full stop belongs to an
    abbreviation or an initial. White space belongs to the sentence that follows, as a byte-level BPE has it,
    but at the end of a paragraph.
    """
    ends = set(paragraph_ends(text).tolist())
    for match in _STOP.finditer(text):
        if match[1].islower():
            continue
        if text[match.start()] == "." and match.end() == match.start() + 1:
            word = _LAST_WORD.search(text, max(0, match.start() - 16), match.start())
            last = word[0].lower() if word else ""
            if last in ABBREVIATIONS or re.fullmatch(r"(\w\.)*[^\W\d]", last):
                continue
        ends.add(match.end())
    return _without_gaps(text, ends)


def _without_gaps(text: str, ends: set[int]) -> Offsets:
    """The ends but for those that only white space separates from the next (a paragraph's end follows)."""
    ordered = sorted(ends)
    kept = [end for end, after in pairwise(ordered) if not text[end:after].isspace()]
    return np.array([*kept, ordered[-1]], dtype=np.int64)


def byte_offsets(text: str, *, offsets: Offsets) -> Offsets:
    """The same places counted in bytes of UTF-8."""
    if text.isascii():
        return offsets
    data = np.frombuffer(text.encode(), dtype=np.uint8)
    starts = np.append(np.flatnonzero((data & 0xC0) != 0x80), data.size)
    return starts[offsets].astype(np.int64)
