"""Texts in no set are shown as the rule of a set says, and probes that show them work on read texts."""

from collections.abc import Sequence

import numpy as np
import pytest

from repetita.corpus.reading_rule import OfCorpus, ReadingRule
from repetita.corpus.source import Document
from repetita.corpus.tokenizer import ByteTokenizer, Encoded
from repetita.corpus.windows import Windows
from repetita.errors import SpecError
from repetita.journal.records import Reading
from repetita.measure.attribution import AttributionProbe
from repetita.measure.copying import CopyingProbe
from repetita.measure.induction import InductionProbe
from repetita.measure.names import NamesProbe
from repetita.measure.passages import Passage, RandomTokens
from repetita.measure.planted import BigramSubject, PlantedSet
from repetita.measure.planted_heads import HeadsSubject
from repetita.measure.probe import EvalSet, PassProbe
from repetita.measure.shown import alone, read_text, room, start_of, start_token
from repetita.subject import Rows, Scores, Subject

TEXT = "Nine quick foxes jump; very lazy dogs, by the way, walk. " * 2


class Shifted(OfCorpus):
    """Ids are letters from a on, so that id 0 is one of the text, and a start token above them."""

    bos_id = eos_id = pad_id = 256

    def __init__(self) -> None:
        super().__init__(ByteTokenizer())
        self.token_bytes = np.r_[np.ones(256, np.int64), 0]

    def encode_all(self, texts: Sequence[str], /) -> list[Encoded]:
        return [one._replace(ids=(one.ids - 1 - ord("a")) % 256) for one in super().encode_all(texts)]


def read(*texts: str, window: int, bos: str = "auto", tokenizing: OfCorpus | None = None) -> Windows:
    documents = [Document(text, f"text{i}", "", None) for i, text in enumerate(texts)]
    rule = ReadingRule(window=window, bos=bos)
    return Windows(documents, tokenizing=tokenizing or Shifted(), rule=rule)


class Recording(BigramSubject):
    """Remembers what it was shown."""

    def __init__(self) -> None:
        super().__init__(np.full((257, 257), 1 / 257))
        self.seen: list[Rows] = []

    def score(self, rows: Rows, /) -> Scores:
        self.seen.append(rows)
        return super().score(rows)


def measured(probe: PassProbe, subject: Subject, windows: Windows) -> dict[str, Reading]:
    sets = {"texts": EvalSet.whole("texts", sequences=windows)}
    return {reading.metric: reading for reading in probe.measure(subject, sets)}


def test_texts_stand_behind_the_start_token_of_the_rule() -> None:
    ids = np.array([[0, 5, 0]])
    theirs = alone(read("a", window=8), ids)
    assert theirs.tokens.tolist() == [[256, 0, 5]] and theirs.scored.all()
    ours = alone(PlantedSet([[1, 2]]), ids)
    assert ours.tokens.tolist() == [[0, 0, 5]] and ours.scored.tolist() == [[False, True, False]]
    # A short text does not limit what else is shown.
    assert room(read("a", window=8)) == 8 and room(PlantedSet([[1, 2]])) == 2
    bare = read("ab", window=8, bos="never")
    assert (start_of(bare), room(bare)) == (None, 9)
    assert (start_of(read("ab", window=8)), start_of(PlantedSet([[1, 2]]))) == (256, 0)
    with pytest.raises(SpecError, match="set bos to 'eos'"):
        start_token(bare)


@pytest.mark.parametrize("stride", ["disjoint", 2])
def test_queries_are_the_text_that_is_read(stride: int | str) -> None:
    documents = [Document(text, "", "", None) for text in ("abcdefgh", "xya")]
    rule = ReadingRule(window=5, stride=stride)
    windows = Windows(documents, tokenizing=Shifted(), rule=rule)
    rows = windows.rows(np.arange(len(windows)))
    lengths = [5] * (len(windows) - 1) + [3]
    query = read_text(windows, rows)
    assert query.sum(1).tolist() == [n - 1 for n in lengths]
    assert all(row[: n - 1].all() for row, n in zip(query, lengths, strict=True))


def test_copies_and_names_are_shown_by_the_rule() -> None:
    subject = Recording()
    windows = read(TEXT, window=64)
    passage = Passage(name="short", text="Anna and Anna", names=("Anna",))
    shown = CopyingProbe(on=("texts",), passages=(passage, RandomTokens(n_tokens=5, n_samples=2)), n_copies=3)
    found = measured(shown, subject, windows)
    assert found["copying_loss"].value == pytest.approx(np.log(257))
    assert all((rows.tokens[:, 0] == 256).all() for rows in subject.seen)
    # Id 0 is a token of the text here: it is scored.
    assert subject.seen[0].scored.sum() == 3 * len(passage.text)
    found = measured(NamesProbe(on=("texts",), passages=(passage,)), subject, windows)
    assert found["passage_loss"].n == len(passage.text)
    with pytest.raises(SpecError, match="set bos to 'eos'"):
        measured(shown, subject, read(TEXT, window=64, bos="never"))


def test_heads_are_found_on_read_texts() -> None:
    """Behind another start token, with padding that is a token of the text, the scores stay exact."""
    windows = read(TEXT, "abcab", window=60)
    subject = HeadsSubject([["previous", "uniform"], ["induction", "start"]], vocab_size=257)
    probe = InductionProbe(on=("texts",), n_tokens=10, n_samples=3, max_sequences=None)
    found = measured(probe, subject, windows)
    assert found["prefix_query_max"].value == pytest.approx(1)
    assert found["prefix_query_max"].detail == {"layer": 1, "head": 0}
    assert found["previous_token_max"].value == pytest.approx(1)
    items = found["prefix_query_max"].items
    assert items is not None and items["tokens"].max() < 256
    written = AttributionProbe(on=("texts",), texts=("abc", "da"), n_copies=2)
    seen = measured(written, subject, windows)["attribution_max"].items
    assert seen is not None and seen["scored"].sum(1).tolist() == [6, 4]
