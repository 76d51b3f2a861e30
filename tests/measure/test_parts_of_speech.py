"""Planted words and a planted subject have R(p), R_mem(p) and precision that are known beforehand."""

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray

from repetita.corpus.parts_of_speech import CLASSES, PAPER_CLASSES, TokenWords
from repetita.corpus.taggers import TaggerName
from repetita.errors import SpecError
from repetita.journal.records import Reading
from repetita.measure.parts_of_speech import COUNTED, EDGES, PartsOfSpeechProbe, occurrences_in, sampled
from repetita.measure.planted import PlantedSet, UniformSubject
from repetita.measure.probe import EvalSet
from repetita.subject import Rows, Scores

Ints = NDArray[np.int64]
NOUN, VERB, NUMERAL = (CLASSES.index(name) for name in ("noun", "verb", "numeral"))
CLASS_OF = np.array([0, NOUN, NOUN, VERB, VERB, NUMERAL, NOUN, 0, NOUN])
"""By id; 6 is never a whole word, 7 is in none."""
WHOLE = np.array([0, 1, 1, 1, 1, 1, 0, 0, 1], dtype=bool)


class PlantedTags:
    tagger = TaggerName("planted", "1")
    manifest: ClassVar[dict[str, Any]] = {"agreement": {"with": "nobody"}}


class PlantedWords:
    """Every id has one class wherever it stands."""

    tags: Any = PlantedTags()
    whole_ids = WHOLE

    def __init__(self, targets: Ints) -> None:
        self.targets = targets
        self.asked: list[int] = []

    def of(self, indices: Ints, /) -> TokenWords:
        ids = self.targets[indices]
        return TokenWords(CLASS_OF[ids].astype(np.int8), CLASS_OF[ids] > 0, WHOLE[ids])

    def instead(self, indices: Ints, /, *, places: Ints, ids: Ints) -> NDArray[np.int8]:
        assert self.of(indices).whole[np.arange(len(ids)), places].all()
        self.asked += ids.tolist()
        return CLASS_OF[ids].astype(np.int8)


class WordSet(PlantedSet):
    def __init__(self, targets: Any) -> None:
        super().__init__(targets)
        self.words = PlantedWords(self.targets)


class Says:
    """Predicts by a rule on the targets."""

    mask_id: ClassVar[int | None] = None

    def __init__(self, rule: Callable[[Ints], Ints]) -> None:
        self.rule = rule

    def score(self, rows: Rows, /) -> Scores:
        hit = (self.rule(rows.targets) == rows.targets) & rows.scored
        return Scores(rows.scored.astype(np.float32), hit)

    def predict(self, rows: Rows, /) -> Scores:
        return self.score(rows)._replace(predicted=self.rule(rows.targets))


def readings(targets: Any, rule: Callable[[Ints], Ints], **changes: Any) -> dict[str, Reading]:
    sets = {"train": EvalSet.whole("train", sequences=WordSet(targets))}
    probe = PartsOfSpeechProbe(on=("train",), **changes)
    return {reading.metric: reading for reading in probe.measure(Says(rule), sets)}


TEXT = [[1, 2, 3, 4, 5, 0], [1, 1, 3, 7, 6, 8]]


def test_a_known_rule_has_its_rates() -> None:
    """1 stays; 2 becomes 1, a noun as well; 3 becomes 1; 4 becomes part of a word; 5 stays; 8 becomes 3."""
    turned = np.array([0, 1, 1, 1, 6, 5, 6, 7, 3])
    found = readings(TEXT, lambda targets: turned[targets])
    nouns, right, exact = 5, 4, 3
    assert found["recall_noun"].value == pytest.approx(right / nouns)
    assert found["memorized_noun"].value == pytest.approx(exact / nouns)
    assert found["recall_noun"].n == nouns
    assert found["recall_verb"].value == 0 and found["recall_verb"].n == 2  # 4 is said to be part of a word
    assert found["recall_numeral"].value == found["memorized_numeral"].value == 1
    assert found["precision_noun"].value == pytest.approx(4 / 6)  # 1 1 1 1 for nouns, 1 1 for verbs
    assert found["precision_verb"].value == 0
    assert found["recall_adjective"].value is None and "precision_adjective" not in found
    assert found["memorized"].value == pytest.approx(6 / 11)


def test_a_model_that_always_says_a_noun_has_recall_one_and_the_nouns_share_as_precision() -> None:
    found = readings(TEXT, np.ones_like)
    assert found["recall_noun"].value == 1 and found["recall_verb"].value == 0
    assert found["precision_noun"].value == pytest.approx(5 / 9)


def test_counts_are_kept_by_frequency() -> None:
    found = readings(TEXT, np.ones_like)["parts_of_speech"].detail
    assert found is not None
    counts, once, twice = np.array(found["counts"]), EDGES.index(1), EDGES.index(2)
    assert counts.shape == (len(CLASSES), len(EDGES), len(COUNTED))
    assert counts[NOUN, once].tolist() == [2, 2, 2, 0]  # 2 and 8
    assert counts[NOUN, twice].tolist() == [3, 3, 3, 3]  # 1 three times
    assert counts[VERB, twice].tolist() == [2, 2, 0, 0] and counts[VERB, once].tolist() == [1, 1, 0, 0]
    confusion = np.array(found["confusion"])
    assert confusion[VERB, NOUN] == 3 and confusion.sum() == counts[:, :, 0].sum() == 9
    assert found["total"][NOUN] == 5
    assert found["tagger"] == "planted 1" and found["agreement"] == {"with": "nobody"}


def test_words_that_the_training_set_lacks_are_in_the_first_bin() -> None:
    sets = {
        "train": EvalSet.whole("train", sequences=WordSet([[1, 1, 3]])),
        "test": EvalSet.whole("test", sequences=WordSet([[8, 1, 3]])),
    }
    probe = PartsOfSpeechProbe(on=("test",))
    found = {reading.metric: reading for reading in probe.measure(Says(np.ones_like), sets)}
    detail = found["parts_of_speech"].detail
    assert detail is not None
    assert np.array(detail["counts"])[NOUN, :, 0].tolist()[:3] == [1, 0, 1]


def test_the_sample_is_capped_by_class_and_always_the_same() -> None:
    generator = np.random.default_rng(0)
    over = EvalSet.whole("train", sequences=WordSet(generator.integers(1, 9, (150, 20))))
    words: Any = over.sequences
    sample = sampled(over, words=words.words, max_positions=40)
    again = sampled(over, words=words.words, max_positions=40)
    for one, other in zip(sample, again, strict=True):
        np.testing.assert_array_equal(one, other)
    assert [int((sample.tag == kind).sum()) for kind in (NOUN, VERB, NUMERAL)] == [40, 40, 40]
    assert sample.total[NOUN] == np.isin(words.targets, [1, 2, 8]).sum()
    assert (np.diff(sample.row) >= 0).all()
    larger = sampled(over, words=words.words, max_positions=80)
    places = [set(zip(one.row.tolist(), one.place.tolist(), strict=True)) for one in (sample, larger)]
    assert places[0] < places[1]


def test_precision_weighs_classes_as_they_are_in_the_set() -> None:
    """90 verbs and 10 nouns, 10 of each looked at, all said to be nouns: a tenth of that is right."""
    targets = np.array([1] * 10 + [3] * 90).reshape(10, 10)
    found = readings(targets, np.ones_like, max_positions=10)
    assert found["recall_verb"].n == found["recall_noun"].n == 10
    assert found["precision_noun"].value == pytest.approx(0.1)


def test_only_what_is_not_the_truth_is_tagged_again() -> None:
    over = EvalSet.whole("train", sequences=WordSet(TEXT))
    sequences: Any = over.sequences
    list(PartsOfSpeechProbe(on=("train",)).measure(Says(lambda targets: targets), {"train": over}))
    assert sequences.words.asked == []


def test_occurrences_count_scored_targets() -> None:
    assert occurrences_in(EvalSet.whole("x", sequences=PlantedSet(TEXT))).tolist() == [
        0,
        3,
        1,
        2,
        1,
        1,
        1,
        1,
        1,
    ]


def test_it_asks_for_tags() -> None:
    assert PartsOfSpeechProbe.needs_tags
    assert set(PAPER_CLASSES) < set(CLASSES)


def test_what_cannot_be_measured_is_said() -> None:
    plain = {"train": EvalSet.whole("train", sequences=PlantedSet(TEXT))}
    with pytest.raises(SpecError, match="does not know the words"):
        list(PartsOfSpeechProbe(on=("train",)).measure(UniformSubject(vocab_size=9), plain))
    with pytest.raises(SpecError, match="counts tokens in the set 'trian'"):
        list(
            PartsOfSpeechProbe(on=("train",), frequencies="trian").measure(
                UniformSubject(vocab_size=9), plain
            )
        )

    class Mute:
        mask_id: ClassVar[int | None] = None

        def score(self, rows: Rows, /) -> Scores:
            return Scores(rows.scored.astype(np.float32), rows.scored)

    sets = {"train": EvalSet.whole("train", sequences=WordSet(TEXT))}
    with pytest.raises(SpecError, match="does not say which token"):
        list(PartsOfSpeechProbe(on=("train",)).measure(Mute(), sets))
