"""What retained tokens are: by token the hit, the part of speech, the kind and the longest known n-gram.

Shapes: S sequences of a set, L tokens of a sequence, T distinct tokens, Q n-grams asked about.
"""

from collections.abc import Iterator, Mapping
from typing import ClassVar, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from repetita.errors import SpecError, nearest
from repetita.journal.records import Reading
from repetita.measure.probe import EvalSet, PassProbe
from repetita.measure.token_hits import Bools, Items, TokenHits, token_hits, token_hits_reading, unpacked
from repetita.subject import Subject

Bytes = NDArray[np.int8]
Words = NDArray[np.uint64]

Kind = Literal["none", "word start", "continuation", "digit", "punctuation"]
KINDS: tuple[Kind, ...] = ("none", "word start", "continuation", "digit", "punctuation")
"""What a token is, by code. A vocabulary of a thousand splits most words, and what follows the first piece of
a word is another thing to predict than the piece itself."""

LONGEST = 8
"""Tokens of the longest n-gram that is looked for."""

BROKEN = "\ufffd"
"""What decoding gives for part of a character: of an accented letter, mostly."""

_ROWS = 4096
"""Sequences of the training text that are indexed at once."""
_FACTOR = np.uint64(0x9E3779B97F4A7C15)
"""An odd number of 64 bits: n-grams are compared as polynomials in it, modulo 2^64."""


class Anatomy(NamedTuple):
    """Tokens of a set: what a subject made of them, and what they are."""

    hits: TokenHits
    tag: Bytes
    """Part of speech of the word that a token is in, place in `taggers.CLASSES`, 0: none, (S, L)."""
    kind: Bytes
    """Place in KINDS, (S, L)."""
    known: Bytes
    """Tokens of the longest n-gram that ends at a token (context and target, up to LONGEST) and occurs in the
    run's training text; 0 where not even the token does, (S, L)."""


class RetainedProbe(PassProbe):
    """M(f) of each set of `on`, with what each token is: those that stay known, and those that do not.

    Classes and n-grams do not depend on the subject, but on the run's training text, so they are written
    down beside the hits. Meant for a few states: before an exposure and at the end of the horizon. Parts of
    speech are left out; see `TaggedRetainedProbe`.
    """

    name: str = "retained"
    within: str = "train"
    """The set whose n-grams count as known: what the run trains on."""
    longest: int = Field(default=LONGEST, ge=1, le=100)

    @property
    def besides(self) -> tuple[str, ...]:
        """See `PassProbe.besides`."""
        return (self.within,)

    def measure(self, subject: Subject, /, sets: Mapping[str, EvalSet]) -> Iterator[Reading]:
        """`memorized_by_token` with the items of `TokenHits`, and `tag`, `kind` and `known`, each (S, L)."""
        if self.within not in sets:
            raise SpecError(
                f"probe '{self.name}' looks for n-grams in the set '{self.within}', which this run lacks; "
                f"{nearest(self.within, sets)}"
            )
        for over in self.chosen(sets):
            hits = token_hits(subject, over=over)
            reading = token_hits_reading(hits, on=over.name)
            known = longest_known(over, within=sets[self.within], longest=self.longest)
            more = {"tag": self.tags(over), "kind": kinds(over), "known": known}
            yield reading._replace(items={**(reading.items or {}), **more})

    def tags(self, over: EvalSet, /) -> Bytes:
        """Parts of speech of the targets, (S, L): 0, none."""
        return np.zeros((len(over.indices), over.sequences.length), dtype=np.int8)


class TaggedRetainedProbe(RetainedProbe):
    """The same with parts of speech: the corpus is tagged before the runs."""

    needs_tags: ClassVar[bool] = True

    def tags(self, over: EvalSet, /) -> Bytes:
        """Parts of speech of the targets, (S, L)."""
        return over.sequences.tags(over.indices)


def anatomy(items: Items, *, on: str) -> Anatomy | None:
    """What `RetainedProbe` kept of the set `on`; None where it was not read."""
    hits = unpacked(items, on=on)
    found = [items.get(f"{on}/{name}") for name in ("tag", "kind", "known")]
    if hits is None or any(array is None for array in found):
        return None
    return Anatomy(hits, *(np.asarray(array).astype(np.int8) for array in found))


def kinds(over: EvalSet, /) -> Bytes:
    """What each target is, as a place in KINDS, (S, L); `none` where it is not scored.

    A token with a digit is a digit; one without a letter is punctuation (or space); any other begins a word
    if it begins with a space, or if what is before it ends with none of the word's characters, and else goes
    on with one. None of it is known of sequences that do not know their text.
    """
    rows = over.sequences.rows(over.indices)
    text_of = getattr(over.sequences, "text_of", None)
    if text_of is None or not rows.targets.size:
        return np.zeros(rows.targets.shape, dtype=np.int8)
    ids, place = np.unique(np.stack([rows.targets, rows.tokens]), return_inverse=True)
    texts = [text_of(int(token)) for token in ids]
    target_SL, before_SL = place.reshape(2, *rows.targets.shape)

    def where(true_T: list[bool], at_SL: NDArray[np.int64]) -> Bools:
        return np.array(true_T, dtype=bool)[at_SL]

    digit = where([any(letter.isdigit() for letter in text) for text in texts], target_SL)
    letters = where(
        [any(letter.isalnum() or letter == BROKEN for letter in text) for text in texts], target_SL
    )
    begins = where([not text or not _inside(text[0]) for text in texts], target_SL)
    open_end = where([bool(text) and _inside(text[-1]) for text in texts], before_SL)
    kind = np.where(begins | ~open_end, KINDS.index("word start"), KINDS.index("continuation"))
    kind = np.where(letters, kind, KINDS.index("punctuation"))
    kind = np.where(digit, KINDS.index("digit"), kind)
    return np.where(rows.scored, kind, 0).astype(np.int8)


def _inside(letter: str) -> bool:
    """Whether a character can be inside a word."""
    return letter.isalnum() or letter in f"'\u2019{BROKEN}"


def longest_known(over: EvalSet, *, within: EvalSet, longest: int = LONGEST) -> Bytes:
    """Tokens of the longest n-gram ending at each target that occurs within a sequence of `within`, (S, L).

    An n-gram is the target and the n - 1 tokens before it in its sequence; none goes across a separator.
    Where an n-gram occurs, so do those that it ends with, so the longest is counted up from one token.
    """
    targets_SL = over.sequences.rows(over.indices).targets
    known_SL = np.zeros(targets_SL.shape, dtype=np.int8)
    asked = [
        (np.unique(hash_SL[valid_SL]), hash_SL, valid_SL)
        for hash_SL, valid_SL in _ngrams(targets_SL, longest)
    ]
    found = [np.zeros(len(queries), dtype=bool) for queries, _, _ in asked]
    for start in range(0, len(within.indices), _ROWS):
        text_SL = within.sequences.rows(within.indices[start : start + _ROWS]).targets
        for (queries, _, _), there, (hash_SL, valid_SL) in zip(
            asked, found, _ngrams(text_SL, longest), strict=True
        ):
            there |= np.isin(queries, hash_SL[valid_SL])
    for (queries, hash_SL, valid_SL), there in zip(asked, found, strict=True):
        known_SL[valid_SL] += there[np.searchsorted(queries, hash_SL[valid_SL])]
    return known_SL


def _ngrams(targets_SL: NDArray[np.int64], longest: int) -> Iterator[tuple[Words, Bools]]:
    """For n = 1 to `longest`: the number of the n-gram ending at each place, and whether there is one."""
    ids_SL, real_SL = targets_SL.astype(np.uint64), targets_SL != 0
    hash_SL, valid_SL = ids_SL, real_SL
    for _ in range(longest):
        yield hash_SL, valid_SL
        before_SL, whole_SL = np.zeros_like(hash_SL), np.zeros_like(valid_SL)
        before_SL[:, 1:], whole_SL[:, 1:] = hash_SL[:, :-1], valid_SL[:, :-1]
        hash_SL, valid_SL = before_SL * _FACTOR + ids_SL, whole_SL & real_SL
