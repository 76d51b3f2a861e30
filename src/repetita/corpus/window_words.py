"""The words behind the tokens of texts that are read by a rule: parts of speech without a corpus on disk.

Shapes: B rows of a batch, L tokens of a row, N positions, V ids.
"""

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from repetita.corpus.parts_of_speech import CLASS, INITIAL, WHOLE, WHOLE_SHARE, TokenWords, near, word_of
from repetita.corpus.taggers import Sentence, Tagger, TaggerName, find_tagger, open_tagger
from repetita.corpus.tagging import DocumentWords, tag_text

if TYPE_CHECKING:
    from repetita.corpus.windows import Windows

Ints = NDArray[np.int64]


class ReadTags(NamedTuple):
    """Which tagger has made the tags; no second one was asked."""

    tagger: TaggerName
    manifest: Mapping[str, Any]


class WindowWords:
    """See `measure.parts_of_speech.WordsOf`. Raises CorpusError where no tagger is installed, and where the
    tokenizer does not give back a text."""

    def __init__(self, windows: "Windows", /) -> None:
        self._windows = windows
        self._words: dict[int, DocumentWords] = {}
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
            found[here] = self._bytes(number)[place[here]]
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
                sentence, at = self._sentence(number, token)
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
            np.add.at(counts[0], ids, 1)
            np.add.at(counts[1], ids[(self._bytes(number) & WHOLE) > 0], 1)
        return np.asarray((counts[1] > 0) & (counts[1] >= WHOLE_SHARE * counts[0]))

    def _words_of(self, number: int) -> DocumentWords:
        if number not in self._words:
            self._words[number] = tag_text(self._windows.texts[number].text, tagger=self.tagger)
        return self._words[number]

    def _bytes(self, number: int) -> NDArray[np.uint8]:
        """A byte a token of a text, as `Words` keeps them."""
        words = self._words_of(number)
        starts, stops = self._windows.token_spans(number)
        word = word_of(words, starts, stops)
        there, which = word >= 0, np.maximum(word, 0)
        if not len(words.starts):
            return np.zeros(len(starts), dtype=np.uint8)
        initial = there & (words.starts[which] >= starts)
        whole = initial & (words.stops[which] == stops)
        found = np.where(there, words.classes[which], 0) + INITIAL * initial + WHOLE * whole
        return np.asarray(found, dtype=np.uint8)

    def _sentence(self, number: int, token: int) -> tuple[Sentence, int]:
        """The sentence that a token's word is in, and which of its words that is."""
        words = self._words_of(number)
        starts, stops = self._windows.token_spans(number)
        word = int(word_of(words, starts[token : token + 1], stops[token : token + 1])[0])
        opening = np.append(np.flatnonzero(words.opens), len(words.opens))
        sentence = int(np.searchsorted(opening, word, side="right"))
        first, last = opening[sentence - 1 : sentence + 1].tolist()
        low, high = int(words.starts[first]), int(words.stops[last - 1])
        data = self._windows.texts[number].text.encode()[low:high]
        bounds = [
            (len(data[: start - low].decode()), len(data[: stop - low].decode()))
            for start, stop in zip(
                words.starts[first:last].tolist(), words.stops[first:last].tolist(), strict=True
            )
        ]
        return Sentence(data.decode(), tuple(bounds)), word - first
