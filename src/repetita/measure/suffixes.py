"""Which suffixes of a text a model is asked for, and what it reads before them.

Shapes: B texts of a batch, S texts of a set, N suffixes asked for, M tokens of a text, T tokens of a suffix.
"""

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveInt, model_validator

from repetita.corpus.windows import Windows
from repetita.errors import SpecError
from repetita.measure.probe import ROWS_PER_BATCH, EvalSet, PassProbe
from repetita.measure.shown import room
from repetita.subject import Mask, Tokens

Ints = NDArray[np.int64]
SUFFIXES_AT_ONCE = 8 * ROWS_PER_BATCH
"""Suffixes held in memory at a time; results do not depend on it beyond rounding."""


class Texts(NamedTuple):
    """Some texts of a set, each from its first token on, the start token not among them, cut where they do
    not fit one context."""

    number: Ints
    """The text's place among those that the set was given, or its index in a corpus, shape (B,)."""
    tokens: Tokens
    """Filled up with 0 to the longest, shape (B, M)."""
    inside: Mask
    """False behind the end and on separators, shape (B, M)."""


class Asked(NamedTuple):
    """Suffixes that are asked for."""

    number: Ints
    """The text of each, as in `Texts`, shape (N,)."""
    start: Ints
    """Tokens of its text before it, shape (N,)."""
    text: Tokens
    """The longest prompt and the longest suffix, shape (N, prompts[-1] + suffixes[-1])."""


def numbers_of(over: EvalSet, /) -> Ints:
    """The texts that the rows of a set are of, shape (S,): those of `Windows`, else the rows themselves."""
    return (
        np.unique(over.sequences.document(over.indices))
        if isinstance(over.sequences, Windows)
        else over.indices
    )


def n_tokens_of(over: EvalSet, /) -> Ints:
    """Tokens of each of `numbers_of`, separators and padding of a corpus's rows among them, shape (S,)."""
    if isinstance(over.sequences, Windows):
        return over.sequences.n_tokens[numbers_of(over)]
    return np.full(len(over.indices), over.sequences.length, dtype=np.int64)


def texts_of(over: EvalSet, /) -> Iterator[Texts]:
    """Every text that rows of `over` are of, as far as it is read at once, however many rows it fills."""
    numbers, most = numbers_of(over), room(over.sequences)
    for first in range(0, len(numbers), ROWS_PER_BATCH):
        some = numbers[first : first + ROWS_PER_BATCH]
        if not isinstance(over.sequences, Windows):
            rows = over.sequences.rows(some)
            yield Texts(some, rows.targets, rows.scored)
            continue
        n_tokens = over.sequences.n_tokens[some].clip(max=most)
        inside = np.arange(n_tokens.max()) < n_tokens[:, None]
        tokens = np.zeros(inside.shape, np.int64)
        tokens[inside] = np.concatenate([over.sequences.ids(one)[:most] for one in some.tolist()])
        yield Texts(some, tokens, inside)


class SuffixProbe(PassProbe):
    """Base of the probes that show a model k tokens of a text, and nothing else, and ask for the next ones.

    A suffix begins at each of `starts` (tokens of the text before it) or, without them, behind the longest
    prompt and then every `every` tokens (default: the longest suffix, so that none overlap). It is asked for
    with the k tokens before it for each k of `prompts`, behind the start token of the set where it has one,
    in a fresh context; every k and every length of `suffixes` are asked for at the same places. Texts that
    were given to be read (`corpus.windows`) are whole texts, however many windows they fill; the texts of a
    corpus are its sequences. A suffix is not asked for where the longest prompt before it, or the longest
    suffix, is not all text.
    """

    prompts: tuple[PositiveInt, ...] = Field(default=(32,), min_length=1)
    suffixes: tuple[PositiveInt, ...] = Field(default=(32,), min_length=1)
    starts: tuple[PositiveInt, ...] | None = Field(default=None, min_length=1)
    every: PositiveInt | None = None

    @model_validator(mode="after")
    def _check_suffixes(self) -> Self:
        kind = type(self).__name__
        for name in ("prompts", "suffixes", "starts"):
            values = getattr(self, name) or ()
            if any(one >= other for one, other in pairwise(values)):
                raise SpecError(f"{kind}: {name} = {values} do not rise; name each once, smallest first")
        if self.starts is not None and self.every is not None:
            raise SpecError(
                f"{kind}: every = {self.every} has no effect beside starts; leave one of them out"
            )
        if self.starts is not None and self.starts[0] < self.prompts[-1]:
            raise SpecError(
                f"{kind}: the suffix at {self.starts[0]} has no prompt of {self.prompts[-1]} tokens before "
                f"it; start at {self.prompts[-1]} or later"
            )
        return self

    @property
    def window(self) -> int:
        """Tokens of the longest prompt with the longest suffix."""
        return self.prompts[-1] + self.suffixes[-1]

    @property
    def lengths(self) -> list[str]:
        """`k_s` of every prompt with every suffix, as metrics are named."""
        return [f"{k}_{s}" for k in self.prompts for s in self.suffixes]

    def places(self, n_tokens: int, /) -> Ints:
        """Where the suffixes of a text of so many tokens begin."""
        last = n_tokens - self.suffixes[-1]
        if self.starts is not None:
            return np.array([start for start in self.starts if start <= last], dtype=np.int64)
        return np.arange(self.prompts[-1], last + 1, self.every or self.suffixes[-1], dtype=np.int64)

    def chosen(self, sets: Mapping[str, EvalSet], /) -> list[EvalSet]:
        """See `PassProbe.chosen`; raises SpecError where prompt and suffix exceed what is read at once."""
        for over in self._named(sets):
            most = room(over.sequences)
            if self.window > most:
                raise SpecError(
                    f"probe '{self.name}': a prompt of {self.prompts[-1]} tokens and a suffix of "
                    f"{self.suffixes[-1]} exceed the {most} that are read at once; shorten one of them"
                )
        return super().chosen(sets)

    def cost_tokens(self, sets: Mapping[str, EvalSet], /) -> int:
        """See `Probe.cost_tokens`: every prompt with the longest suffix, at all places of each text."""
        read = sum(k + self.suffixes[-1] for k in self.prompts)
        sizes = [n for over in self.chosen(sets) for n in n_tokens_of(over).tolist()]
        return sum(len(self.places(n)) for n in sizes) * read

    def asked(self, over: EvalSet, /) -> Iterator[Asked]:
        """The suffixes of a set that are asked for, text by text, some at a time."""
        begin = self.prompts[-1]
        if isinstance(over.sequences, Windows):
            places = [self.places(n) for n in n_tokens_of(over).tolist()]
            number = np.repeat(numbers_of(over), [len(of) for of in places])
            start = np.concatenate([np.zeros(0, np.int64), *places])
            for first in range(0, len(number), SUFFIXES_AT_ONCE):
                at = slice(first, first + SUFFIXES_AT_ONCE)
                text = over.sequences.stretches(number[at], start=start[at] - begin, n=self.window)
                yield Asked(number[at], start[at], text)
            return
        start = self.places(over.sequences.length)
        windows = start[:, None] - begin + np.arange(self.window)
        for texts in texts_of(over):
            asked = np.argwhere(texts.inside[:, windows].all(axis=2))
            for first in range(0, len(asked), SUFFIXES_AT_ONCE):
                row, place = asked[first : first + SUFFIXES_AT_ONCE].T
                yield Asked(texts.number[row], start[place], texts.tokens[row[:, None], windows[place]])
