"""Passages that a model is shown several times in a row: own texts with long names, anybody's text, random
tokens.

The repeated-data paper shows the opening of a copyrighted novel. The two texts here were written for this
package and are as long as the paper's; their names, made up, take several tokens and stand whole, inflected
(plural, possessive) and inside other words, as "Dursley", "Dursleys" and "unDursleyish" do there (Figs. 8 and
9).
"""

import re
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveInt, model_validator

from repetita.corpus.synthetic import SyntheticSpec, unseen_text
from repetita.errors import SpecError
from repetita.spec import ExactFraction, Spec

Ints = NDArray[np.int64]
Kind = Literal["first", "exact", "inflected", "embedded"]
KINDS: tuple[Kind, ...] = ("first", "exact", "inflected", "embedded")
LATER: tuple[Kind, ...] = ("exact", "inflected", "embedded")
"""Occurrences of a name after its first; the paper underlines these."""

SHORTEST_NAME = 4
"""Letters of a name that is found in a text without being told."""
FEWEST_CHARACTERS = 10
MOST_BYTES = 20_000
"""Of a file that is shown: two copies of more fill no sequence of the paper's 8,192 tokens, and worker
processes are told the text on their command line."""
TOO_LONG = (
    f"has more than {MOST_BYTES:,} bytes, of which no model reads two copies; give a shorter part of it"
)


class Passage(Spec):
    """A text that is written several times in a row, `separator` between the copies.

    `names` are the words whose later occurrences are looked at on their own; None finds those that are
    capitalised wherever they stand, have four letters or more and occur twice, on their own or in others.
    """

    kind: Literal["text"] = "text"
    name: str
    text: str = Field(min_length=1)
    separator: str = "\n"
    names: tuple[str, ...] | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.name or "/" in self.name:
            raise SpecError(f"Passage: '{self.name}' is no name for a passage; give one without a slash")
        for name in self.names or ():
            if name not in self.text:
                raise SpecError(
                    f"passage '{self.name}': the name '{name}' does not occur in the text; leave it out"
                )
        return self


class RandomTokens(Spec):
    """Distinct tokens drawn at random, again in each sample: no statistics of the text help with them.

    The samples are those of `measure.induction.random_tokens`, `excluded` as there.
    """

    kind: Literal["random"] = "random"
    name: str = "random"
    n_tokens: PositiveInt = 25
    n_samples: PositiveInt = 10
    excluded: ExactFraction = Fraction(1, 25)


class Occurrence(NamedTuple):
    """One place where a name stands; `start` and `stop` are characters of the text, without what is added."""

    name: str
    kind: Kind
    """The first place where it stands in any form, and later: alone, with a plural or possessive ending, or
    inside another word."""
    start: int
    stop: int


def occurrences(passage: Passage, /) -> tuple[Occurrence, ...]:
    """Every place of every name in the text, in the order of the text."""
    names = found_names(passage.text) if passage.names is None else passage.names
    return tuple(sorted((one for name in names for one in _of_name(passage.text, name)), key=lambda x: x[2:]))


def found_names(text: str, /) -> tuple[str, ...]:
    """Words that are always capitalised, have four letters or more, and occur twice, also inside others."""
    words = re.findall(r"[^\W\d_]+", text)
    lower = {word for word in words if word.islower()}
    names: list[str] = []
    for word in sorted({word for word in words if word.istitle() and len(word) >= SHORTEST_NAME}, key=len):
        stems = any(word.startswith(name) for name in names)
        if not stems and word.lower() not in lower and text.count(word) > 1:
            names.append(word)
    return tuple(sorted(names, key=text.index))


def _of_name(text: str, name: str) -> Iterator[Occurrence]:
    for place, match in enumerate(re.finditer(re.escape(name), text)):
        start, stop = match.span()
        before = text[start - 1 : start].isalpha()
        after = re.split(r"[\W\d_]", text[stop:], maxsplit=1)[0]
        possessive = re.match(r"['\u2019]s\b", text[stop + len(after) :])
        kind: Kind = "exact"
        if before or after not in ("", "s", "es"):
            kind = "embedded"
        elif after or possessive:
            kind = "inflected"
        yield Occurrence(name, "first" if place == 0 else kind, start, stop)


def continuations(passage: Passage, /, *, token_bytes: Ints) -> dict[Kind, Ints] | None:
    """Which tokens of the text go on with a name that the token before has begun, by kind of occurrence.

    These are all tokens with a character of the name but the first such: what a reader who remembers the name
    can tell. `token_bytes` (n,) are the bytes behind each token; None where they do not add up to the text
    (a tokenizer that is not lossless).
    """
    ends = np.cumsum(token_bytes)
    if not len(ends) or ends[-1] != len(passage.text.encode()):
        return None
    starts = ends - token_bytes
    found: dict[Kind, list[int]] = {kind: [] for kind in KINDS}
    for one in occurrences(passage):
        first, last = (len(passage.text[:at].encode()) for at in (one.start, one.stop))
        found[one.kind] += np.flatnonzero((starts < last) & (ends > first))[1:].tolist()
    return {kind: np.array(places, dtype=np.int64) for kind, places in found.items()}


def in_words_of(spec: SyntheticSpec, /, *, name: str, n_words: int, document: int = 0) -> Passage:
    """A passage in the words of a synthetic corpus, which stands nowhere in it.

    Each copy begins with a space, so that its first word is the token that it is inside the text.
    """
    text = unseen_text(spec, n_words=n_words, document=document)
    return Passage(name=name, text=f" {text}", separator="", names=())


def read_passage(file: str | Path, /) -> Passage:
    """The text of a file as a passage, called as the file.

    SpecError where it cannot be read, is no text, or is too short or too long to be a passage.
    """
    path = Path(file).expanduser()
    try:
        if path.stat().st_size > 2 * MOST_BYTES:
            raise SpecError(f"the passage {path} {TOO_LONG}")
        text = path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise SpecError(f"cannot read the passage {path}: {error.strerror}; give a text file") from None
    except UnicodeDecodeError:
        raise SpecError(f"the passage {path} is not UTF-8 text; convert it, or give another file") from None
    if not text:
        raise SpecError(f"the passage {path} is empty; give a file with text in it")
    if "\0" in text:
        raise SpecError(f"the passage {path} is not text (it has zero bytes); give another file")
    if len(text) < FEWEST_CHARACTERS:
        raise SpecError(
            f"the passage {path} has {len(text)} characters, too few to tell copying from luck; give at "
            f"least {FEWEST_CHARACTERS}"
        )
    if len(text.encode()) > MOST_BYTES:
        raise SpecError(f"the passage {path} {TOO_LONG}")
    return Passage(name=path.stem, text=text)


LONG = Passage(
    name="long",
    names=("Ansolvay", "Tolligrew", "Peverand"),
    text="Nobody in Ansolvay could remember a morning without the Tolligrew bakery. Old Mr. Tolligrew lit "
    "the ovens at four, Mrs. Tolligrew swept the step at five, and by six the whole of Ansolvay smelled of "
    "barley and burnt sugar. The Tolligrews had one rule, painted above the door in blue: good bread waits "
    "for no one. They had one neighbour, a quiet man called Peverand, who mended clocks in the shop across "
    "the lane and who had never once been on time. Peverand's watches were always right; Peverand himself "
    "was always late. He came for his loaf when the shelves were empty, bowed to Mrs. Tolligrew, and went "
    "home with a bag of crumbs. It seemed to the Tolligrews a rather unTolligrewish way to live, but they "
    "were fond of him, and on feast days they kept a bun behind the counter and said nothing about it. "
    "Then, one winter, the great clock of Ansolvay stopped. The ovens went cold, the ferries sailed without "
    "passengers, and half the town slept until noon. It was Peverand who climbed the tower with a lantern "
    "and one bent spoon. It was Mr. Tolligrew who held the ladder, and Tolligrew's youngest who counted "
    "aloud, all night long, so that Peverand would know how long a minute was. When the bells rang at last, "
    "the Ansolvayans threw open their windows and cheered. Peverand looked at his own watch, smiled, and "
    "crossed the lane. For the first and only time in his life he was early, which was most unPeverandlike, "
    "and the first loaf of the day, still warm, was his.",
)
"""1,463 characters, as many as the paper's passage (its appendix D). Written for this package, in the public
domain."""

SHORT = Passage(
    name="short",
    names=("Marrendale",),
    text="A Marrendale never whistles. The Marrendales hum, and old Marrendale's parrot, an unMarrendaleish "
    "bird, sings along in Dutch.",
)
"""125 characters, as many as the paper's shorter one (Fig. 22). Written for this package, in the public
domain."""

RANDOM = RandomTokens()
"""25 tokens as in Olsson et al. 2022; the loss on their copies is what copying alone can give."""
