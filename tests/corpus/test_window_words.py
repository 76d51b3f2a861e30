"""Words behind the tokens of texts that were only read are those of the same text in a corpus."""

import numpy as np
import pytest

from repetita.corpus.reading_rule import ReadingRule
from repetita.corpus.taggers import CLASSES, find_tagger, open_tagger
from repetita.corpus.windows import Windows
from repetita.errors import CorpusError
from tests.corpus.test_windows import Bytes, Words, documents

TEXT = "Old geese fly. Nobody saw Paris in 1990, said Mary."


def test_each_token_has_the_class_of_its_word() -> None:
    tagger = open_tagger(find_tagger())
    for rule in (ReadingRule(window=7), ReadingRule(window=9, bos="never", stride=4)):
        windows = Windows(documents(TEXT, "Two geese."), tokenizing=Bytes(), rule=rule)
        rows = np.arange(len(windows))
        found, read = windows.words.of(rows), windows.rows(rows)
        sentence = tagger.split("Old geese fly.")
        (classes,) = tagger.classes([sentence])
        for (start, stop), expected in zip(sentence.spans, classes, strict=True):
            there = (windows.document()[:, None] == 0) & read.scored
            place = windows.places(rows)
            for token in range(start, stop):
                here = there & (place == token)
                if here.any():
                    assert set(found.tag[here]) == {expected}
                    assert set(found.initial[here]) == {token == start}
                    assert set(found.whole[here]) == {stop - start == 1}
        assert not found.tag[place == 3].any(), "white space is in no word"


def test_places_are_those_of_the_targets() -> None:
    for tokenizing in (Bytes(), Bytes(bos=None), Bytes(mask=302)):
        windows = Windows(documents(TEXT, "Two geese."), tokenizing=tokenizing, rule=ReadingRule(window=8))
        rows = np.arange(len(windows))
        place, read, text = windows.places(rows), windows.rows(rows), windows.document()
        assert (place[read.scored] >= 0).all()
        for row, column in zip(*np.nonzero(place >= 0), strict=True):
            assert windows.ids(int(text[row]))[place[row, column]] == read.targets[row, column]


def test_another_word_is_tagged_in_the_sentence() -> None:
    windows = Windows(documents("I saw a b ."), tokenizing=Bytes(), rule=ReadingRule(window=32))
    assert windows.words.whole_ids[ord("a")]
    place = int(np.flatnonzero(windows.places(np.array([0]))[0] == 8)[0])
    (number,) = windows.words.instead(np.array([0]), places=np.array([place]), ids=np.array([ord("7")]))
    assert CLASSES[number] == "numeral"


def test_a_tokenizer_that_loses_text_is_told_of() -> None:
    class Lossy(Words):
        def decode(self, ids: object, /) -> str:
            return "something else"

    windows = Windows(documents("two geese fly"), tokenizing=Lossy(), rule=ReadingRule(window=8))
    with pytest.raises(CorpusError, match="does not give back the text 'text0'"):
        windows.words.of(np.arange(1))
