"""Parts of speech: which classes are predicted right, which are memorized, and how often each is said.

Shapes: B sequences of a batch, L tokens of a sequence, C classes, F bins of frequency, N positions.
"""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import PositiveInt

from repetita import seeds
from repetita.corpus.parts_of_speech import CLASSES, PAPER_CLASSES, TokenWords
from repetita.corpus.taggers import TaggerName
from repetita.errors import SpecError, nearest
from repetita.journal.records import Reading
from repetita.measure.probe import ROWS_PER_BATCH, SAMPLE_SEED, EvalSet, PassProbe, scored_batches
from repetita.subject import Subject

Ints = NDArray[np.int64]

EDGES = (0, 1, 2, 4, 8, 16, 32, 64, 128)
"""Bin i of frequency holds tokens that occur EDGES[i] times or more, and less than EDGES[i + 1] times."""
COUNTED = ("positions", "words", "right", "exact")
"""What is counted by class and bin: sampled positions; of these, where the prediction is one whole word; of
these, where it has the class of the truth; of these, where it is the truth."""


class TagsOf(Protocol):
    """What is asked of `corpus.tagging.Tags`."""

    @property
    def tagger(self) -> TaggerName:
        """Which tagger has made them."""
        ...

    @property
    def manifest(self) -> Mapping[str, Any]:
        """`agreement`: how far a second tagger says the same; None where none was asked."""
        ...


class WordsOf(Protocol):
    """What is asked of `corpus.parts_of_speech.Words` and `corpus.window_words.WindowWords`."""

    @property
    def tags(self) -> TagsOf:
        """What was written down about the corpus."""
        ...

    @property
    def whole_ids(self) -> NDArray[np.bool_]:
        """Of each id, whether it is mostly a whole word, shape (V,)."""
        ...

    def of(self, indices: Ints, /) -> TokenWords:
        """Of the targets of these sequences, arrays of shape (B, L)."""
        ...

    def instead(self, indices: Ints, /, *, places: Ints, ids: Ints) -> NDArray[np.int8]:
        """The class that each id has in place of a target, shape (N,)."""
        ...


class Sample(NamedTuple):
    """Positions of a set that are looked at, sorted by sequence, and how many there are in all."""

    row: Ints
    """Which of the set's `indices`, shape (N,)."""
    place: Ints
    """Which target of the sequence, shape (N,)."""
    tag: NDArray[np.int8]
    """Class of the truth, shape (N,)."""
    total: Ints
    """Positions of each class that could have been drawn, shape (C,)."""


class PartsOfSpeechProbe(PassProbe):
    """R(p), R_mem(p) and precision of each class p in each set of `on` (Tirumala et al. 2022, Fig. 7).

    Looked at are positions whose target is one whole word: at most `max_positions` of each class of the paper
    and a quarter of that of each other one (these serve precision), always the same ones. A prediction that
    is another word is put into the true sentence and tagged there (experiment design, rule 18).
    """

    needs_tags: ClassVar[bool] = True

    name: str = "parts_of_speech"
    max_positions: PositiveInt = 2000
    """Largest number of positions of a class that are looked at in each set."""
    frequencies: str = "train"
    """The set in which the occurrences of a token are counted: what the run trains on."""

    @property
    def besides(self) -> tuple[str, ...]:
        """See `PassProbe.besides`."""
        return (self.frequencies,)

    def measure(self, subject: Subject, /, sets: Mapping[str, EvalSet]) -> Iterator[Reading]:
        """`memorized` (M(f), all scored tokens), then `parts_of_speech_readings`, of each set of `on`."""
        if self.frequencies not in sets:
            raise SpecError(
                f"probe '{self.name}' counts tokens in the set '{self.frequencies}', which this run lacks; "
                f"{nearest(self.frequencies, sets)}"
            )
        occurrences = occurrences_in(sets[self.frequencies])
        for over in self.chosen(sets):
            words = words_of(over)
            sample = sampled(over, words=words, max_positions=self.max_positions)
            predicted, truth, (hits, n_scored) = self._predicted(subject, over, sample)
            yield Reading("memorized", over.name, hits / n_scored if n_scored else None, n_scored)
            said = _classes(words, over, sample, predicted, truth)
            seen = np.zeros(1 + max(len(occurrences), truth.max(initial=0) + 1), dtype=np.int64)
            seen[: len(occurrences)] = occurrences
            bins = np.searchsorted(EDGES, seen[truth], side="right") - 1
            counts, confusion = counted(sample.tag, said=said, exact=predicted == truth, bins=bins)
            yield from parts_of_speech_readings(
                counts, confusion=confusion, total=sample.total, over=over, tags=words.tags
            )

    def _predicted(
        self, subject: Subject, over: EvalSet, sample: Sample
    ) -> tuple[Ints, Ints, tuple[int, int]]:
        """The most likely token and the true one at each position of the sample, shape (N,).

        Besides, hits and scored tokens of the whole set.
        """
        predicted, truth = np.zeros(len(sample.row), np.int64), np.zeros(len(sample.row), np.int64)
        hits = n_scored = 0
        for batch in scored_batches(subject, over=over, predict=True):
            here = slice(*np.searchsorted(sample.row, (batch.part.start, batch.part.stop)).tolist())
            at = sample.row[here] - batch.part.start, sample.place[here]
            assert batch.predicted is not None
            predicted[here], truth[here] = batch.predicted[at], batch.rows.targets[at]
            hits, n_scored = hits + int(batch.hit.sum()), n_scored + int(batch.rows.scored.sum())
        return predicted, truth, (hits, n_scored)


def words_of(over: EvalSet, /) -> WordsOf:
    """The words behind the tokens of a set; SpecError where it has none to tell of."""
    words: WordsOf | None = getattr(over.sequences, "words", None)
    if words is None:
        raise SpecError(
            f"the set '{over.name}' does not know the words of its tokens; measure a set of a corpus"
        )
    return words


def occurrences_in(over: EvalSet, /) -> Ints:
    """How often each id is a scored target of the set."""
    found = np.zeros(1, dtype=np.int64)
    for start in range(0, len(over.indices), ROWS_PER_BATCH):
        rows = over.sequences.rows(over.indices[start : start + ROWS_PER_BATCH])
        more = np.bincount(rows.targets[rows.scored])
        if len(more) > len(found):
            found, more = more, found
        found[: len(more)] += more
    return found


def sampled(over: EvalSet, /, *, words: WordsOf, max_positions: int) -> Sample:
    """The positions that are looked at: of each class the first of a keyed order of all that qualify."""
    row, place, tag = [], [], []
    for start in range(0, len(over.indices), ROWS_PER_BATCH):
        indices = over.indices[start : start + ROWS_PER_BATCH]
        of_rows, scored_BL = words.of(indices), over.sequences.rows(indices).scored
        b, at = np.nonzero(of_rows.initial & of_rows.whole & (of_rows.tag > 0) & scored_BL)
        row.append(b + start)
        place.append(at)
        tag.append(of_rows.tag[b, at])
    rows, places, tags = np.concatenate(row), np.concatenate(place), np.concatenate(tag)
    total = np.bincount(tags, minlength=len(CLASSES))
    chosen = []
    for number, name in enumerate(CLASSES):
        found = np.flatnonzero(tags == number)
        most = max_positions if name in PAPER_CLASSES else -(-max_positions // 4)
        if len(found) > most:
            key = seeds.key(SAMPLE_SEED, f"parts-of-speech/{over.name}/{name}")
            found = found[seeds.Permutation(len(found), key)(np.arange(most, dtype=np.int64))]
        chosen.append(found)
    order = np.sort(np.concatenate(chosen))
    return Sample(rows[order], places[order], tags[order], total)


def _classes(words: WordsOf, over: EvalSet, sample: Sample, predicted: Ints, truth: Ints) -> NDArray[np.int8]:
    """The class of each prediction, 0 where it is not one whole word, shape (N,)."""
    said = np.where(predicted == truth, sample.tag, 0).astype(np.int8)
    other = np.flatnonzero((predicted != truth) & words.whole_ids[predicted])
    if len(other):
        indices = over.indices[sample.row[other]]
        said[other] = words.instead(indices, places=sample.place[other], ids=predicted[other])
    return said


def counted(
    tag: NDArray[np.int8], *, said: NDArray[np.int8], exact: NDArray[np.bool_], bins: Ints
) -> tuple[Ints, Ints]:
    """Counts (C, F, 4) as COUNTED says, and how often class c is taken for k (C, C), 0: no whole word."""
    counts = np.zeros((len(CLASSES), len(EDGES), len(COUNTED)), dtype=np.int64)
    word, right = said > 0, (said == tag)
    for number, which in enumerate((np.ones_like(word), word, right, right & exact)):
        np.add.at(counts[:, :, number], (tag[which], bins[which]), 1)
    confusion = np.zeros((len(CLASSES), len(CLASSES)), dtype=np.int64)
    np.add.at(confusion, (tag, said), 1)
    return counts, confusion


def parts_of_speech_readings(
    counts: Ints, *, confusion: Ints, total: Ints, over: EvalSet, tags: TagsOf
) -> Iterator[Reading]:
    """For each class of the paper `recall_<class>`, `memorized_<class>` and `precision_<class>`; then all.

    Recall is R(p), memorized R_mem(p); n counts positions where truth and prediction are one whole word each.
    Precision weighs the classes as they are in the set. `parts_of_speech`, the share of the paper's
    classes' positions whose class is predicted right, has in its detail all counts: `counts` (C, F, 4) as
    COUNTED and EDGES say, `confusion` (C, C), `total` (C,), and the tagger with its measured agreement.
    """
    weight = np.divide(total, confusion.sum(1), out=np.zeros(len(total)), where=confusion.sum(1) > 0)
    said = weight[:, None] * confusion
    by_class = counts.sum(1)
    for name in PAPER_CLASSES:
        number, slug = CLASSES.index(name), name.replace(" ", "_")
        _, n, right, exact = by_class[number].tolist()
        if n == 0:
            yield Reading(f"recall_{slug}", over.name, None, 0, {"why": "no such position in this set"})
            continue
        yield Reading(f"recall_{slug}", over.name, right / n, n)
        yield Reading(f"memorized_{slug}", over.name, exact / n, n)
        all_said = float(said[:, number].sum())
        precision = float(said[number, number]) / all_said if all_said else None
        yield Reading(f"precision_{slug}", over.name, precision, int(confusion[:, number].sum()))
    five = by_class[[CLASSES.index(name) for name in PAPER_CLASSES]].sum(0)
    detail: dict[str, Any] = {
        "tagger": tags.tagger.text,
        "agreement": tags.manifest["agreement"],
        "counts": counts.tolist(),
        "confusion": confusion.tolist(),
        "total": total.tolist(),
    }
    yield Reading(
        "parts_of_speech", over.name, float(five[2] / five[1]) if five[1] else None, int(five[1]), detail
    )
