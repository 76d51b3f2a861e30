"""Corpora from a seed: Zipf text of known entropy, bursts of copying, facts, canaries."""

import math
from collections.abc import Iterator
from typing import Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveInt, model_validator

from repetita import seeds
from repetita.errors import SpecError
from repetita.spec import Spec, introduced

Ints = NDArray[np.int64]

SYLLABLES = tuple(consonant + vowel for consonant in "bdfgklmnprstvz" for vowel in "aeiou")
SENTENCES_PER_PARAGRAPH = 5
WORDS_AT_ONCE = 1 << 18
"""Words of the documents that are drawn together: a step of the bursts costs as much for many as for one."""


class SyntheticSpec(Spec):
    """What a synthetic corpus is made of; the same value gives the same text everywhere.

    `zipf`: words drawn independently with P(rank r) proportional to r ** -exponent. Bursts (experiment
    design, rule 22): where none is under way, one begins before a word with probability `burst_rate`,
    and the next `burst_length` words copy those `lag` words earlier. With `lag_max` each burst draws its own
    lag, evenly from `lag` to `lag_max`: a place cannot tell then what is copied, only the words can, and no
    burst begins before word `lag_max` of a document. With `echo` that share of the words that are not copied
    is decided by the word two before (by a fixed permutation of the vocabulary), so that a model gains by
    looking one token back before there is anything to match. Sentences of `sentence_words` words (0: no
    punctuation) are laid over the words and carry no information. `facts` and `canaries`: one to a document,
    see `Fact` and `Canary`.
    """

    kind: Literal["zipf", "facts", "canaries"] = "zipf"
    n_documents: PositiveInt = 200
    n_words: PositiveInt = 1000
    vocabulary: int = Field(default=500, ge=2, le=len(SYLLABLES) ** 2)
    exponent: float = Field(default=1.0, ge=0, le=8)
    burst_rate: float = Field(default=0.0, ge=0, lt=1)
    burst_length: PositiveInt = 16
    lag: PositiveInt = 32
    lag_max: PositiveInt | None = introduced(None)
    echo: float = introduced(0.0, ge=0, lt=1)
    sentence_words: int = Field(default=12, ge=0)
    seed: int = 0

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.burst_rate and self.burst_length > self.lag:
            raise SpecError(
                f"SyntheticSpec: burst_length = {self.burst_length} is longer than lag = {self.lag}, so a "
                f"burst would copy itself; raise the lag"
            )
        if self.lag_max is not None and self.lag_max < self.lag:
            raise SpecError(
                f"SyntheticSpec: lag_max = {self.lag_max} is below lag = {self.lag}; raise it or leave it out"
            )
        if self.burst_rate and self.lags[-1] >= self.n_words:
            raise SpecError(
                f"SyntheticSpec: a lag of {self.lags[-1]} is not inside a document of {self.n_words} words; "
                f"lower it"
            )
        return self

    @property
    def lags(self) -> range:
        """The lags that a burst can have, each as likely as any other."""
        return range(self.lag, (self.lag if self.lag_max is None else self.lag_max) + 1)


class SourceEntropy(NamedTuple):
    """Entropy of words drawn by their frequency; without bursts and echo no model's loss is below it."""

    nats_per_word: float
    bytes_per_word: float
    """Expected bytes of a word with the space and punctuation that belong to it."""
    bits_per_byte: float


class BayesLoss(NamedTuple):
    """Mean loss in nats per word, on the text itself, of two readers who know the source exactly."""

    with_copying: float
    """Of one who also knows that bursts occur, how often, how long and at which lag."""
    without_copying: float
    """Of one who knows the word frequencies and the echo only."""
    n_words: int


class Fact(NamedTuple):
    """A sentence about a made-up name, to be asked back: `text` is `prompt` followed by `answer`."""

    text: str
    prompt: str
    answer: str


class Canary(NamedTuple):
    """A secret in a fixed frame (Carlini et al. 2019, section 4): one of 10 ** n_digits equally likely."""

    text: str
    prefix: str
    secret: str


def synthetic_documents(spec: SyntheticSpec) -> Iterator[tuple[str, str]]:
    """Name and text of each document of the corpus."""
    if spec.kind == "facts":
        yield from (
            (f"fact-{i}", item.text) for i, item in enumerate(facts(spec.n_documents, seed=spec.seed))
        )
    elif spec.kind == "canaries":
        drawn = canaries(spec.n_documents, seed=spec.seed)
        yield from ((f"canary-{i}", item.text) for i, item in enumerate(drawn))
    else:
        vocabulary = np.array(lexicon(spec.vocabulary, seed=spec.seed))
        at_once = max(1, WORDS_AT_ONCE // spec.n_words)
        for first in range(0, spec.n_documents, at_once):
            documents = np.arange(first, min(first + at_once, spec.n_documents))
            for document, ranks in zip(documents.tolist(), _ranks(spec, documents), strict=True):
                yield f"zipf-{document}", _text(vocabulary[ranks].tolist(), spec.sentence_words)


def unseen_text(spec: SyntheticSpec, *, n_words: int, document: int = 0) -> str:
    """The first words of a document behind the last one: of the same source, without bursts, and nowhere in
    the corpus.

    Raises SpecError for more words than a document has.
    """
    if n_words > spec.n_words:
        raise SpecError(f"unseen_text: {n_words} words, and a document has {spec.n_words}; ask for fewer")
    ranks = _ranks(spec.edit(burst_rate=0.0), np.array([spec.n_documents + document]))[0, :n_words]
    vocabulary = np.array(lexicon(spec.vocabulary, seed=spec.seed))
    return _text(vocabulary[ranks].tolist(), spec.sentence_words)


def lexicon(n: int, *, seed: int = 0) -> list[str]:
    """n distinct two-syllable words, most frequent first."""
    pairs = seeds.Permutation(len(SYLLABLES) ** 2, seeds.key(seed, "lexicon"))(np.arange(n))
    return [SYLLABLES[pair // len(SYLLABLES)] + SYLLABLES[pair % len(SYLLABLES)] for pair in pairs.tolist()]


def word_probabilities(spec: SyntheticSpec) -> NDArray[np.float64]:
    """P of each rank, shape (vocabulary,)."""
    weights = np.arange(1, spec.vocabulary + 1, dtype=np.float64) ** -spec.exponent
    return np.asarray(weights / weights.sum())


def source_entropy(spec: SyntheticSpec) -> SourceEntropy:
    """Entropy of the Zipf source; with bursts the text has less, see `bayes_loss`."""
    p = word_probabilities(spec)
    nats = float(-(p * np.log(p)).sum())
    # A word has four letters and a space or newline; a sentence adds its full stop, a paragraph a newline.
    bytes_per_word = 5.0
    if spec.sentence_words:
        bytes_per_word += 1 / spec.sentence_words + 1 / (spec.sentence_words * SENTENCES_PER_PARAGRAPH)
    return SourceEntropy(nats, bytes_per_word, nats / math.log(2) / bytes_per_word)


def bayes_loss(spec: SyntheticSpec, *, n_documents: int | None = None) -> BayesLoss:
    """Exact Bayes loss of the first `n_documents` documents with and without knowledge of the copying.

    The reader filters over the lag of the burst under way and the words it has still to copy; this is the
    forward algorithm, exact up to rounding. Cost: words x lags x burst_length.
    """
    chosen = np.arange(spec.n_documents if n_documents is None else min(n_documents, spec.n_documents))
    ranks, p = _ranks(spec, chosen), word_probabilities(spec)
    lags, after = np.array(spec.lags), _echoes(spec)
    plain = p[ranks]
    if spec.echo:
        plain[:, 2:] = (1 - spec.echo) * plain[:, 2:] + spec.echo * (ranks[:, 2:] == after[ranks[:, :-2]])
    idle = np.ones(len(chosen))
    left = np.zeros((len(chosen), len(lags), spec.burst_length))
    """Mass of each lag and of 1 .. burst_length words still to be copied."""
    total = 0.0
    for t in range(spec.n_words):
        if t >= lags[-1]:
            # A burst that begins here has all of its words to copy, this one too.
            starting = idle * spec.burst_rate
            left[:, :, -1] += starting[:, None] / len(lags)
            idle = (idle - starting) * plain[:, t]
            left *= (ranks[:, t, None] == ranks[:, t - lags])[:, :, None]
            idle += left[:, :, 0].sum(axis=1)
            left[:, :, :-1] = left[:, :, 1:]
            left[:, :, -1] = 0.0
        else:
            idle = idle * plain[:, t]
        predictive = idle + left.sum(axis=(1, 2))
        total -= float(np.log(predictive).sum())
        idle, left = idle / predictive, left / predictive[:, None, None]
    n = ranks.size
    return BayesLoss(total / n, float(-np.log(plain).mean()), n)


def facts(n: int, *, seed: int = 0) -> list[Fact]:
    """n facts about distinct made-up people, places and trades, answers drawn evenly."""
    key = seeds.key(seed, "facts")
    people = seeds.Permutation(len(SYLLABLES) ** 3, key)(np.arange(n)).tolist()
    towns = [town.capitalize() for town in lexicon(64, seed=seed)]
    made = []
    for person, draw in zip(
        people, seeds.words(np.arange(n, dtype=np.uint64), key=key).tolist(), strict=True
    ):
        first, rest = divmod(person, len(SYLLABLES) ** 2)
        second, third = divmod(rest, len(SYLLABLES))
        name = (SYLLABLES[first] + SYLLABLES[second] + SYLLABLES[third]).capitalize()
        prompt, answer = f"{name} was born in", f" {towns[draw % len(towns)]}."
        made.append(Fact(prompt + answer, prompt, answer))
    return made


def canaries(
    n: int, *, seed: int = 0, n_digits: int = 9, prefix: str = "The random number is", first: int = 0
) -> list[Canary]:
    """n canaries with distinct random secrets of `n_digits` digits, the digits set apart by spaces.

    They are those from place `first` on of one order of all 10 ** n_digits. Spaced digits are never merged
    with one another by a byte-level BPE, so that no secret of the space is shorter because its digits happen
    to be frequent neighbours.
    """
    numbers = seeds.Permutation(10**n_digits, seeds.key(seed, "canaries"))(np.arange(first, first + n))
    made = []
    for number in numbers.tolist():
        secret = "".join(f" {digit}" for digit in f"{number:0{n_digits}d}")
        made.append(Canary(prefix + secret, prefix, secret))
    return made


def _ranks(spec: SyntheticSpec, documents: Ints) -> Ints:
    """Word ranks of the given documents, shape (documents, n_words): draws first, then the bursts.

    A draw depends on the number of its document and word alone, not on what is drawn with it.
    """
    shape = (len(documents), spec.n_words)
    counters = (documents[:, None] * spec.n_words + np.arange(spec.n_words)).astype(np.uint64)
    drawn = seeds.words(counters.ravel(), key=seeds.key(spec.seed, "words")).reshape(shape)
    edges = np.cumsum(word_probabilities(spec))[:-1]
    ranks = np.searchsorted(edges, _unit_interval(drawn), side="right").astype(np.int64)
    if not spec.burst_rate and not spec.echo:
        return ranks

    def draws(name: str) -> NDArray[np.float64]:
        return _unit_interval(seeds.words(counters.ravel(), key=seeds.key(spec.seed, name))).reshape(shape)

    begins, echoed, after = draws("bursts") < spec.burst_rate, draws("echo") < spec.echo, _echoes(spec)
    lags = spec.lag + np.floor(draws("lags") * len(spec.lags)).astype(np.int64)
    # From here on one row a word, so that a step reads and writes neighbours.
    ranks, lags = np.ascontiguousarray(ranks.T), np.ascontiguousarray(lags.T)
    echoed, begins = np.ascontiguousarray(echoed.T), np.ascontiguousarray(begins.T)
    left, lag = np.zeros(len(documents), dtype=np.int64), lags[0]
    of = np.arange(len(documents))
    for t in range(min(2, spec.lags[-1]), spec.n_words):
        if t >= 2:
            ranks[t] = np.where(echoed[t], after[ranks[t - 2]], ranks[t])
        if t >= spec.lags[-1]:
            fresh = (left == 0) & begins[t]
            left, lag = np.where(fresh, spec.burst_length, left), np.where(fresh, lags[t], lag)
            ranks[t] = np.where(left > 0, ranks[t - lag, of], ranks[t])
            left = np.maximum(left - 1, 0)
    return np.ascontiguousarray(ranks.T)


def _echoes(spec: SyntheticSpec) -> Ints:
    """The rank that each rank is echoed by, two words later, shape (vocabulary,)."""
    order = seeds.Permutation(spec.vocabulary, seeds.key(spec.seed, "echoes"))
    return np.asarray(order(np.arange(spec.vocabulary, dtype=np.int64)))


def _unit_interval(words: NDArray[np.uint64]) -> NDArray[np.float64]:
    """The top 53 bits of each word as a number in [0, 1)."""
    return (words >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _text(words: list[str], sentence_words: int) -> str:
    if not sentence_words:
        return " ".join(words)
    sentences = [words[i : i + sentence_words] for i in range(0, len(words), sentence_words)]
    lines = [" ".join([sentence[0].capitalize(), *sentence[1:]]) + "." for sentence in sentences]
    n = SENTENCES_PER_PARAGRAPH
    return "\n\n".join(" ".join(lines[i : i + n]) for i in range(0, len(lines), n))
