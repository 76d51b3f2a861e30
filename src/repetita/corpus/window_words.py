"""The words behind the tokens of texts that are read by a rule: parts of speech without a corpus on disk.

Shapes: B rows of a batch, L tokens of a row, N positions, V ids.
"""

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from repetita.corpus.parts_of_speech import (
    CLASS,
    INITIAL,
    WHOLE,
    WHOLE_SHARE,
    TokenWords,
    WordPlace,
    coded,
    in_sentence,
    near,
    openings,
    word_of,
)
from repetita.corpus.taggers import Tagger, TaggerName, find_tagger, open_tagger
from repetita.corpus.tagging import DocumentWords, tag_text

if TYPE_CHECKING:
    from repetita.corpus.windows import Windows

Ints = NDArray[np.int64]


class ReadTags(NamedTuple):
    """Which tagger has made the tags; no second one was asked."""

    tagger: TaggerName
    manifest: Mapping[str, Any]


class _Tagged(NamedTuple):
    """A text and its words; see `openings` and `coded`."""

    words: DocumentWords
    starts: Ints
    """Where each token begins in the text's UTF-8."""
    stops: Ints
    opening: Ints
    coded: NDArray[np.uint8]
    data: bytes


class WindowWords:
    """See `measure.parts_of_speech.WordsOf`. Raises CorpusError where no tagger is installed, and where the
    tokenizer does not give back a text."""

    def __init__(self, windows: "Windows", /) -> None:
        self._windows = windows
        self._texts: dict[int, _Tagged] = {}
        self._known: dict[tuple[int, int, int], int] = {}

    @cached_property
    def tags(self) -> ReadTags:
        """Which tagger they are of."""
        return ReadTags(find_tagger(), {"agreement": None})

    @property
    def tagger(self) -> Tagger:
        """The tagger; its library is imported now."""
        return open_tagger(self.tags.tagger)

    def of(self, indices: Ints, /) -> TokenWords:
        """Of the targets of these rows, arrays of shape (B, L)."""
        place, text = self._windows.places(indices), self._windows.document(indices)
        found = np.zeros(place.shape, dtype=np.uint8)
        for number in np.unique(text).tolist():
            here = (text == number)[:, None] & (place >= 0)
            found[here] = self._tagged(number).coded[place[here]]
        return TokenWords((found & CLASS).astype(np.int8), (found & INITIAL) > 0, (found & WHOLE) > 0)

    def instead(self, indices: Ints, /, *, places: Ints, ids: Ints) -> NDArray[np.int8]:
        """The class of each id as a word in place of a target; see `corpus.parts_of_speech.Words.instead`."""
        tokens = self._windows.places(indices)[np.arange(len(indices)), places]
        text = self._windows.document(indices)
        asked = list(zip(text.tolist(), tokens.tolist(), ids.tolist(), strict=True))
        new = [one for one in dict.fromkeys(asked) if one not in self._known]
        if new:
            told = []
            for number, token, id_ in new:
                sentence, at = self._place(number, token)
                word = self._windows.tokenizing.decode([id_]).strip()
                told.append(near(sentence.instead(word, at=at), at=at))
            classes = self.tagger.classes([one for one, _ in told])
            for one, of_words, (_, at) in zip(new, classes, told, strict=True):
                self._known[one] = of_words[at]
        return np.array([self._known[one] for one in asked], dtype=np.int8)

    @cached_property
    def whole_ids(self) -> NDArray[np.bool_]:
        """Of each id, whether most of its tokens in these texts are a whole word, shape (V,)."""
        counts = np.zeros((2, self._windows.tokenizing.vocab_size), dtype=np.int64)
        for number in range(len(self._windows.texts)):
            ids = self._windows.ids(number)
            whole = (self._tagged(number).coded & WHOLE) > 0
            counts += [np.bincount(some, minlength=counts.shape[1]) for some in (ids, ids[whole])]
        return np.asarray((counts[1] > 0) & (counts[1] >= WHOLE_SHARE * counts[0]))

    def _tagged(self, number: int) -> _Tagged:
        if number not in self._texts:
            starts, stops = self._windows.token_spans(number)
            text = self._windows.texts[number].text
            words = tag_text(text, tagger=self.tagger)
            of_tokens = coded(words, starts, stops)
            self._texts[number] = _Tagged(words, starts, stops, openings(words), of_tokens, text.encode())
        return self._texts[number]

    def _place(self, number: int, token: int) -> WordPlace:
        """The word that a token of a text is in, in its sentence."""
        of = self._tagged(number)
        word = int(word_of(of.words, of.starts[token : token + 1], of.stops[token : token + 1])[0])
        return in_sentence(of.words, word, opening=of.opening, data=of.data)
