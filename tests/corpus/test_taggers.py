"""Taggers cut sentences without losing a character, and know the classes of plain English."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from repetita.corpus import taggers
from repetita.corpus.taggers import CLASSES, LEXICON, Sentence, Tagger, find_tagger, of_penn, open_tagger
from repetita.errors import CorpusError

NAMES = [name.name for name in taggers.installed()]

KNOWN = {
    "The old ships of Congress were destroyed on July 4.": {
        "old": "adjective", "ships": "noun", "Congress": "proper noun", "were": "auxiliary",
        "destroyed": "verb", "4": "numeral", "The": "pronoun", "of": "adposition", ".": "punctuation",
    },
    "We can not quickly find two thousand dollars, and they know it.": {
        "can": "auxiliary", "not": "particle", "quickly": "adverb", "find": "verb", "two": "numeral",
        "dollars": "noun", "and": "conjunction", "it": "pronoun", ",": "punctuation",
    },
}  # fmt: skip


def tagger(name: str = LEXICON) -> Tagger:
    return open_tagger(find_tagger(name))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("text", KNOWN)
def test_plain_english_has_its_classes(name: str, text: str) -> None:
    one = tagger(name)
    sentence = one.split(text)
    (classes,) = one.classes([sentence])
    found = {word: CLASSES[kind] for word, kind in zip(sentence.words, classes, strict=True)}
    assert {word: found[word] for word in KNOWN[text]} == KNOWN[text]


@pytest.mark.parametrize("name", NAMES)
@given(text=st.text(alphabet=st.sampled_from(list("ab Zé1,.'\u2019-\n\t€漢字😀n\u0301\u00a0")), max_size=30))
@settings(max_examples=60, deadline=None)
def test_every_character_but_white_space_is_in_one_word(name: str, text: str) -> None:
    one = tagger(name)
    sentence = one.split(text)
    (classes,) = one.classes([sentence])
    assert len(classes) == len(sentence.spans) and all(0 < kind < len(CLASSES) for kind in classes)
    covered = [place for start, stop in sentence.spans for place in range(start, stop)]
    assert covered == sorted(set(covered))
    assert all(text[place].isspace() for place in set(range(len(text))) - set(covered))


@pytest.mark.parametrize("name", NAMES)
def test_a_word_in_place_of_another_is_tagged_there(name: str) -> None:
    one = tagger(name)
    sentence = one.split("They will increase the army next year.")
    other = sentence.instead("destroy", at=2)
    assert other.text == "They will destroy the army next year."
    assert other.words == ["They", "will", "destroy", "the", "army", "next", "year", "."]
    noun = sentence.instead("ships", at=4)
    (before, after, changed) = one.classes([sentence, noun, other])
    assert CLASSES[changed[2]] == "verb" and CLASSES[after[4]] == CLASSES[before[4]] == "noun"


def test_classes_do_not_depend_on_neighbouring_sentences() -> None:
    one = tagger()
    cut = [one.split(text) for text in KNOWN]
    assert one.classes(cut) == [one.classes([sentence])[0] for sentence in cut]


@pytest.mark.parametrize(
    ("word", "tag", "following", "name"),
    [
        ("1,000", "IN", "NNS", "numeral"),
        ("is", "VBZ", "", "auxiliary"),
        ("going", "VBG", "", "verb"),
        ("to", "TO", "VB", "particle"),
        ("to", "TO", "NN", "adposition"),
        ("because", "IN", "", "conjunction"),
        ("Paris", "NNP-LOC", "", "proper noun"),
        ("n\u2019t", "RB", "", "particle"),
        ("--", "NN", "", "punctuation"),
        ("$", "$", "", "other"),
    ],
)
def test_tags_of_the_penn_treebank(word: str, tag: str, following: str, name: str) -> None:
    assert CLASSES[of_penn(word, tag=tag, following=following)] == name


def test_the_users_choice_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(taggers.CHOICE, LEXICON)
    assert find_tagger().name == LEXICON
    monkeypatch.setenv(taggers.CHOICE, "no_such_pipeline")
    with pytest.raises(CorpusError, match=r"'no_such_pipeline' is not installed; install it .* or name"):
        find_tagger()


def test_without_any_tagger_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(taggers.CHOICE, raising=False)
    monkeypatch.setattr(taggers, "PIPELINES", ("no_such_pipeline",))
    monkeypatch.setattr(taggers, "LEXICON", "no_such_lexicon")
    with pytest.raises(CorpusError, match=r"pip install 'repetita\[pos\]'"):
        find_tagger()


def test_words_of_a_sentence() -> None:
    assert Sentence("Déjà  vu", ((0, 4), (6, 8))).words == ["Déjà", "vu"]
