"""Each token has the class of the word that holds its first character, whatever the tokenizer cuts."""

from pathlib import Path

import numpy as np
import pytest

from repetita.corpus import parts_of_speech, taggers, tagging
from repetita.corpus.breaks import Text
from repetita.corpus.parts_of_speech import CLASSES, Words
from repetita.corpus.sequences import Corpus, CorpusSpec, SequenceSet, open_corpus
from repetita.corpus.splits import Splits
from repetita.corpus.tagging import sentences_of
from repetita.corpus.tokenizer import TokenizerSpec
from repetita.errors import CorpusError

TEXTS = (
    "The naïve ministers of Perú paid 30 dollars.  They were not pleased!\n\nAn “old” law — 20 words.",
    "Congress met \n in the  great hall. 漢字 and 😀 stand here.",
    "Señor Núñez's ships don't sail;\tthey wait. The ministers of the law are old.",
)
TOKENIZERS = {"bytes": TokenizerSpec(kind="bytes"), "bpe": TokenizerSpec(vocab_size=290)}


@pytest.fixture(autouse=True)
def lexicon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(taggers.CHOICE, taggers.LEXICON)
    monkeypatch.setattr(tagging, "installed", list)


def corpus(folder: Path, *, tokenizer: str = "bpe", **changes: object) -> Corpus:
    (folder / "text").mkdir(parents=True, exist_ok=True)
    for number, text in enumerate(TEXTS):
        (folder / "text" / f"{number}.txt").write_bytes(text.encode())
    values = {"length": 16, "splits": Splits(test="0")} | changes
    spec = CorpusSpec(source=str(folder / "text"), tokenizer=TOKENIZERS[tokenizer], **values)
    return open_corpus(spec, cache=folder / "cache")


def whole_text(of: SequenceSet) -> list[int]:
    """The set's ids in order, separators included, as rows that are packed hold them."""
    return [int(token) for token in of.rows(np.arange(len(of))).targets.ravel()]


def expected(given: Corpus, ids: list[int], *, texts: list[str]) -> list[tuple[int, bool, bool]]:
    """Class, word-initial, whole word of each token: by walking the characters of each document."""
    one = taggers.open_tagger(taggers.find_tagger())
    found: list[tuple[int, bool, bool]] = []
    rest = iter(ids)
    for text in texts:
        word_at: dict[int, tuple[int, int, int]] = {}  # byte -> class, start, stop
        sentences, offsets = sentences_of(text)
        for sentence, offset in zip(sentences, offsets, strict=True):
            cut = one.split(sentence)
            for (start, stop), kind in zip(cut.spans, one.classes([cut])[0], strict=True):
                low, high = (len(text[: offset + place].encode()) for place in (start, stop))
                word_at |= dict.fromkeys(range(low, high), (kind, low, high))
        at, size = 0, len(text.encode())
        while at < size:
            token = next(rest, None)
            if token is None:
                return found
            after = at + int(given.token_bytes[token])
            first = next((place for place in range(at, after) if place in word_at), None)
            kind, low, high = word_at[first] if first is not None else (0, -1, -1)
            initial = first == low
            found.append((kind, initial and kind > 0, initial and kind > 0 and after == high))
            at = after
        if next(rest, None) is None:
            return found
        found.append((0, False, False))  # the separator
    return found


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
def test_tokens_have_the_class_of_their_first_character(tmp_path: Path, tokenizer: str) -> None:
    given = corpus(tmp_path, tokenizer=tokenizer)
    given.tag()
    train = given.sets["train"]
    found = train.words.of(np.arange(len(train)))
    order = [int(given.document_name(int(number))[0]) for number in dict.fromkeys(train.document().tolist())]
    texts = [TEXTS[number] for number in dict.fromkeys([*order, *range(len(TEXTS))])]
    truth = expected(given, whole_text(train), texts=texts)
    assert len(truth) == found.tag.size
    tags, initial, whole = (np.array(values) for values in zip(*truth, strict=True))
    np.testing.assert_array_equal(found.tag.ravel(), tags)
    np.testing.assert_array_equal(found.initial.ravel(), initial)
    np.testing.assert_array_equal(found.whole.ravel(), whole)
    np.testing.assert_array_equal(train.tags(np.arange(len(train))), found.tag)
    assert (found.initial | ~found.whole).all()
    assert set(np.unique(found.tag)) > {0, 1, CLASSES.index("punctuation")}


def test_padding_and_separators_are_of_no_class(tmp_path: Path) -> None:
    given = corpus(tmp_path, breaks="document")
    given.tag()
    train = given.sets["train"]
    rows, found = train.rows(np.arange(len(train))), train.words.of(np.arange(len(train)))
    assert not rows.scored.all()
    assert not found.tag[~rows.scored].any() and not found.initial[~rows.scored].any()


def test_sequences_agree_however_they_are_asked(tmp_path: Path) -> None:
    given = corpus(tmp_path)
    given.tag()
    train = given.sets["train"]
    every = train.tags(np.arange(len(train)))
    again = corpus(tmp_path).sets["train"]
    for index in (2, 0, len(train) - 1):
        np.testing.assert_array_equal(again.tags(np.array([index]))[0], every[index])
    assert every.dtype == np.int8 and again.tags(np.zeros(0, np.int64)).shape == (0, 16)
    with pytest.raises(IndexError):
        train.tags(np.array([len(train)]))


def test_without_tags_there_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="has no parts of speech"):
        corpus(tmp_path).sets["train"].tags(np.array([0]))


def placed(words: Words, of: SequenceSet) -> tuple[np.ndarray, np.ndarray]:
    rows, places = np.nonzero(words.of(np.arange(len(of))).whole)
    return rows, places


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
def test_the_true_word_in_its_place_has_its_own_class(tmp_path: Path, tokenizer: str) -> None:
    given = corpus(tmp_path, tokenizer=tokenizer)
    given.tag()
    train = given.sets["train"]
    rows, places = placed(train.words, train)
    ids = train.rows(rows).targets[np.arange(len(rows)), places]
    again = train.words.instead(rows, places=places, ids=ids)
    np.testing.assert_array_equal(again, train.tags(rows)[np.arange(len(rows)), places])
    positions = train.words.positions(rows)[np.arange(len(rows)), places]
    for position, token in zip(positions.tolist(), ids.tolist(), strict=True):
        found = train.words.place(position)
        assert found.sentence.words[found.at] == train.words.string(token)


def test_another_word_is_tagged_in_the_sentence_and_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = corpus(tmp_path)
    given.tag()
    train = given.sets["train"]
    rows, places = placed(train.words, train)
    ids = train.rows(rows).targets[np.arange(len(rows)), places]
    the = next(token for token in ids.tolist() if train.words.string(token) == "the")
    kinds = train.words.instead(rows, places=places, ids=np.full(len(rows), the))
    assert (kinds == CLASSES.index("pronoun")).mean() > 0.8
    monkeypatch.setattr(Words, "tagger", None)
    np.testing.assert_array_equal(
        train.words.instead(rows, places=places, ids=np.full(len(rows), the)), kinds
    )


def test_a_document_is_laid_out_once_for_all_of_its_places(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = corpus(tmp_path)
    given.tag()
    train = given.sets["train"]
    positions = train.words.positions(np.arange(len(train)))[train.words.of(np.arange(len(train))).whole]
    laid_out: list[int] = []
    before = parts_of_speech._token_bytes

    def token_bytes(text: Text, *, number: int) -> tuple[np.ndarray, np.ndarray]:
        laid_out.append(number)
        return before(text, number=number)

    monkeypatch.setattr(parts_of_speech, "_token_bytes", token_bytes)
    for position in np.sort(positions).tolist():
        train.words.place(position)
    assert len(positions) > len(TEXTS)
    assert laid_out == [0, 1, 2]


def test_ids_that_are_words(tmp_path: Path) -> None:
    given = corpus(tmp_path)
    given.tag()
    words = given.sets["train"].words
    strings = {words.string(token) for token in np.flatnonzero(words.whole_ids).tolist()}
    assert "the" in strings or "The" in strings
    assert words.whole_ids.shape == (given.tokenizer.vocab_size,) and not words.whole_ids[0]
    assert not strings & {"", "i", "n"}
