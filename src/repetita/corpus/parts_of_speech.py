"""The word behind each token: its part of speech, whether the token begins it, whether it is all of it."""

from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from repetita.corpus.breaks import RowTable, Text
from repetita.corpus.taggers import CLASSES, PAPER_CLASSES, Sentence, Tagger, open_tagger
from repetita.corpus.tagging import DocumentWords, Tags, open_tags, text_of

__all__ = ["CLASSES", "PAPER_CLASSES", "TokenWords", "WordPlace", "Words"]

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

INITIAL, WHOLE, CLASS = 0x40, 0x80, 0x3F
"""Bits of a token's byte."""
WHOLE_SHARE = 0.5
"""An id counts as a word where at least this share of its tokens are a whole word each."""
REACH = 5
"""Words on either side that a tagger sees of a sentence with another word in it. The convolutions of spaCy's
small pipelines reach 4 words, the rules of the lexicon's tagger 3."""
COUNTED_TOKENS = 1 << 22
"""Tokens of a set in which this is counted."""


class TokenWords(NamedTuple):
    """What the tokens are in their text, arrays of the same shape."""

    tag: NDArray[np.int8]
    """Class of the word that holds a token's first character but white space, index into CLASSES; 0: none."""
    initial: Bools
    """Whether that character is the first of its word."""
    whole: Bools
    """Whether the token is the whole word, with or without white space before it, and no more."""


class WordPlace(NamedTuple):
    """A word in its sentence."""

    sentence: Sentence
    at: int
    """Which of the sentence's words."""


class Words:
    """The words behind the tokens of a set; a corpus without tags is a CorpusError when first asked."""

    def __init__(self, text: Text, *, table: RowTable, length: int) -> None:
        self._text, self._table, self._places = text, table, np.arange(length, dtype=np.int64)
        self._known: dict[tuple[int, int], int] = {}
        self._bytes: dict[int, NDArray[np.uint8]] = {}
        self._strings: dict[int, bytes] = {}
        self._words: dict[int, DocumentWords] = {}
        self._last: tuple[int, tuple[Ints, Ints, Ints]] | None = None

    @cached_property
    def tags(self) -> Tags:
        """What was written down about the corpus."""
        return open_tags(self._text.shards)

    @property
    def tagger(self) -> Tagger:
        """The tagger that has made the tags; its library is imported now."""
        return open_tagger(self.tags.tagger)

    def positions(self, indices: Ints, /) -> Ints:
        """Where in the set's text the targets of these sequences are, shape (B, L); -1: nowhere, padding."""
        inside = self._places < self._table.lengths[indices][:, None]
        return np.where(inside, self._table.starts[indices][:, None] + self._places, -1)

    def of(self, indices: Ints, /) -> TokenWords:
        """Of the targets of these sequences, arrays of shape (B, L)."""
        positions = self.positions(indices)
        found = np.zeros(positions.shape, dtype=np.uint8)
        document = np.where(positions < 0, -1, self._text.document_at(np.maximum(positions, 0)))
        for number in np.unique(document[document >= 0]).tolist():
            here = document == number
            found[here] = self._of_document(number)[positions[here] - self._text.starts[number]]
        return TokenWords((found & CLASS).astype(np.int8), (found & INITIAL) > 0, (found & WHOLE) > 0)

    def instead(self, indices: Ints, /, *, places: Ints, ids: Ints) -> NDArray[np.int8]:
        """The class that each id has as a word in place of a target: put into its sentence and tagged there.

        `places` says which target of the sequence, one that is a whole word; all of shape (N,). What was
        asked before is remembered. The tagger sees REACH words on either side, within the sentence.
        """
        positions = self.positions(indices)[np.arange(len(indices)), places]
        asked = list(zip(positions.tolist(), ids.tolist(), strict=True))
        new = [pair for pair in dict.fromkeys(asked) if pair not in self._known]
        if new:
            told = [_with(self.string(token), place=self.place(position)) for position, token in new]
            classes = self.tagger.classes([one for one, _ in told])
            for pair, of_words, (_, at) in zip(new, classes, told, strict=True):
                self._known[pair] = of_words[at]
        return np.array([self._known[pair] for pair in asked], dtype=np.int8)

    def place(self, position: int, /) -> WordPlace:
        """The word that a token is in, or begins, in its sentence; ValueError where it is in none."""
        number = int(self._text.document_at(np.array(position)))
        words = self._words_of(number)
        starts, stops, opening = self._laid_out(number)
        index = position - int(self._text.starts[number])
        word = int(word_of(words, starts[index : index + 1], stops[index : index + 1])[0])
        if word < 0:
            raise ValueError(f"the token at {position} is in no word")
        if number not in self._strings:
            self._strings[number] = text_of(self._text.shards, int(self._text.documents[number])).encode()
        return in_sentence(words, word, opening=opening, data=self._strings[number])

    @cached_property
    def whole_ids(self) -> Bools:
        """Of each id, whether most of its tokens in the set are a whole word, shape (V,)."""
        vocab_size = self._text.shards.tokenizer.vocab_size
        counts = np.zeros((2, vocab_size), dtype=np.int64)
        seen = 0
        for number in range(len(self._text.documents)):
            start, stop = self._text.starts[number : number + 2].tolist()
            ids = self._text.take(np.arange(start, stop))
            counts[0] += np.bincount(ids, minlength=vocab_size)
            counts[1] += np.bincount(ids[(self._of_document(number) & WHOLE) > 0], minlength=vocab_size)
            seen += stop - start
            if seen >= COUNTED_TOKENS:
                break
        return np.asarray((counts[1] > 0) & (counts[1] >= WHOLE_SHARE * counts[0]))

    def string(self, token: int, /) -> str:
        """The text of an id without white space around it."""
        return self._text.shards.tokenizer.decode([token]).strip()

    def _of_document(self, number: int) -> NDArray[np.uint8]:
        """A byte a token of a document of the set, its separator included."""
        if number not in self._bytes:
            words = self._words_of(number)
            starts, stops = _token_bytes(self._text, number=number)
            found = np.append(coded(words, starts, stops), np.uint8(0))
            self._bytes[number] = found
        return self._bytes[number]

    def _words_of(self, number: int) -> DocumentWords:
        if number not in self._words:
            self._words[number] = self.tags.words(int(self._text.documents[number]))
        return self._words[number]

    def _laid_out(self, number: int) -> tuple[Ints, Ints, Ints]:
        """Where each token of a document begins and ends; the first word of each sentence, and the end.

        Kept of the document that was asked about last: a text can be one long document, and then this takes
        as long as reading it.
        """
        if self._last is None or self._last[0] != number:
            opening = openings(self._words_of(number))
            self._last = number, (*_token_bytes(self._text, number=number), opening)
        return self._last[1]


def _token_bytes(text: Text, *, number: int) -> tuple[Ints, Ints]:
    """Where each token of a document of the set begins and ends in its text, in bytes."""
    start, stop = text.starts[number : number + 2].tolist()
    sizes = text.shards.tokenizer.token_bytes[text.take(np.arange(start, stop - 1))]
    stops = np.cumsum(sizes)
    return np.asarray(stops - sizes), np.asarray(stops)


def _with(word: str, *, place: WordPlace) -> WordPlace:
    return near(place.sentence.instead(word, at=place.at), at=place.at)


def openings(words: DocumentWords, /) -> Ints:
    """The first word of each sentence, and how many words there are."""
    return np.append(np.flatnonzero(words.opens), len(words.opens))


def in_sentence(words: DocumentWords, word: int, /, *, opening: Ints, data: bytes) -> WordPlace:
    """A word of a text, given in UTF-8, in its sentence; `opening` as of `openings`."""
    sentence = int(np.searchsorted(opening, word, side="right"))
    first, last = opening[sentence - 1 : sentence + 1].tolist()
    low, high = int(words.starts[first]), int(words.stops[last - 1])
    spans = zip(words.starts[first:last].tolist(), words.stops[first:last].tolist(), strict=True)
    bounds = [(len(data[low:start].decode()), len(data[low:stop].decode())) for start, stop in spans]
    return WordPlace(Sentence(data[low:high].decode(), tuple(bounds)), word - first)


def near(sentence: Sentence, /, *, at: int) -> WordPlace:
    """The part of a sentence within REACH words of word number `at`."""
    low, high = max(0, at - REACH), min(len(sentence.spans), at + REACH + 1)
    start, stop = sentence.spans[low][0], sentence.spans[high - 1][1]
    spans = tuple((a - start, b - start) for a, b in sentence.spans[low:high])
    return WordPlace(Sentence(sentence.text[start:stop], spans), at - low)


def coded(words: DocumentWords, starts: Ints, stops: Ints) -> NDArray[np.uint8]:
    """Class and place of the word of each stretch of bytes, 0 where it has none: CLASS, INITIAL, WHOLE."""
    found = np.zeros(len(starts), dtype=np.uint8)
    word = word_of(words, starts, stops)
    there = word >= 0
    which, start, stop = word[there], starts[there], stops[there]
    initial = words.starts[which] >= start
    whole = initial & (words.stops[which] == stop)
    found[there] = words.classes[which] + INITIAL * initial + WHOLE * whole
    return found


def word_of(words: DocumentWords, starts: Ints, stops: Ints) -> Ints:
    """The word of the first character but white space of each stretch of bytes, -1 where it has none.

    All other characters are in words, so that it is the first byte that is in one.
    """
    if not len(words.starts):
        return np.full(starts.shape, -1, dtype=np.int64)
    word = np.searchsorted(words.stops, starts, side="right")
    inside = word < len(words.starts)
    return np.where(inside & (words.starts[np.minimum(word, len(words.starts) - 1)] < stops), word, -1)
