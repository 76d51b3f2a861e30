"""In how many documents of a corpus are an audit's texts, and what a model writes of them word for word?"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from repetita.corpus.documents import find_source
from repetita.corpus.shards import open_shards
from repetita.corpus.source import Document
from repetita.corpus.windows import Windows
from repetita.errors import SpecError
from repetita.journal.records import Reading
from repetita.measure.extraction import MASKED, continued
from repetita.measure.probe import EvalSet
from repetita.measure.shown import start_of
from repetita.measure.suffixes import SuffixProbe, numbers_of
from repetita.spec import fingerprint
from repetita.study.eidetic import count_strings, shard_documents
from repetita.subject import Subject

Ints = NDArray[np.int64]

NONE = "no suffix is extracted"
LOSSY = {"why": "not applicable: the tokenizer does not give back these texts, so that a suffix has no text"}


class EideticProbe(SuffixProbe):
    """Documents of the corpus `within` that contain each text, and each suffix that greedy decoding returns.

    A string is k-eidetic memorized if the model writes it and at most k documents of its training data
    contain it (Carlini et al. 2021, definition 2). Suffixes are those of `ContinuationProbe`. The corpus is
    read once, however many texts there are: `within` is anything that `corpus.documents` reads, or the folder
    of a built corpus. `signature`: of its content, see `corpus.source.Source`; it is what the fingerprint
    holds of the corpus.
    """

    name: str = "eidetic"
    within: str
    text_field: str = "text"
    signature: str

    @classmethod
    def of(cls, within: str, /, *, text_field: str = "text", **values: Any) -> "EideticProbe":
        """The probe of a corpus as it is now. Raises CorpusError where there is none."""
        folder = _built(within)
        if folder is not None:
            return cls(within=within, signature=fingerprint(open_shards(folder).manifest), **values)
        signature = find_source(within, text_field=text_field).signature
        return cls(within=within, text_field=text_field, signature=signature, **values)

    @property
    def fingerprint(self) -> str:
        """As of any probe; where the corpus lies is left out."""
        return self.edit(within="").fingerprint if self.within else super().fingerprint

    def of_suffix(self, length: str, /) -> tuple[str, str]:
        """The metrics of the suffixes of one of `lengths`."""
        return f"eidetic_suffix_{length}", f"eidetic_unique_{length}"

    def measure(self, subject: Subject, /, sets: Mapping[str, EvalSet]) -> Iterator[Reading]:
        """For each set of texts, by prompt k and length of the suffix s.

        `eidetic_text`: mean number of documents that contain a text, white space around it left out; n counts
        texts. `eidetic_suffix_k_s`: the same of the suffixes that are extracted; `eidetic_unique_k_s`: share
        of these that at most one document contains; n counts extracted suffixes. Of a suffix that begins or
        ends within a character only whole characters are looked for.
        Items: `text` and its `documents`, (S,); by extracted suffix `sequence_k_s` (its text) and
        `documents_k_s`. Raises SpecError for a set without texts, CorpusError for a corpus that is not there.
        """
        for over in self._named(sets) if subject.mask_id is not None else self.chosen(sets):
            windows = over.sequences
            if not isinstance(windows, Windows):
                raise SpecError(f"probe '{self.name}': the set '{over.name}' has sequences and no texts")
            texts = numbers_of(over)
            whole = [windows.texts[text].text.strip() for text in texts.tolist()]
            why = MASKED if subject.mask_id is not None else None if windows.lossless else LOSSY
            found = {} if why else self._extracted(subject, over)
            strings = [*whole, *(string for _, some in found.values() for string in some)]
            counts = count_strings(strings, within=self._documents())
            detail = {"searched": counts.searched}
            own = counts.documents[: len(whole)]
            items = {"text": texts, "documents": own}
            yield Reading("eidetic_text", over.name, float(own.mean()), len(own), dict(detail), items)
            first = len(whole)
            for length in self.lengths:
                suffix, unique = self.of_suffix(length)
                if length not in found or not found[length][1]:
                    none = why or {"why": NONE}
                    items = {} if why else {f"{name}_{length}": texts[:0] for name in _BY_SUFFIX}
                    yield Reading(suffix, over.name, None, 0, dict(none), items)
                    yield Reading(unique, over.name, None, 0, dict(none))
                    continue
                of, some = found[length]
                documents = counts.documents[first : first + len(some)]
                first += len(some)
                items = dict(zip((f"{name}_{length}" for name in _BY_SUFFIX), (of, documents), strict=True))
                yield Reading(suffix, over.name, float(documents.mean()), len(some), dict(detail), items)
                yield Reading(unique, over.name, float((documents <= 1).mean()), len(some), dict(detail))

    def _extracted(self, subject: Subject, over: EvalSet) -> dict[str, tuple[Ints, list[str]]]:
        """The text of each suffix that is extracted, and the suffix itself, by length."""
        windows, start = over.sequences, start_of(over.sequences)
        assert isinstance(windows, Windows)
        found: dict[str, tuple[list[int], list[str]]] = {length: ([], []) for length in self.lengths}
        for asked in self.asked(over):
            for k in self.prompts:
                text = asked.text[:, self.prompts[-1] - k :]
                exact = continued(subject, text, prompt=k, start=start)
                for s in self.suffixes:
                    of, strings = found[f"{k}_{s}"]
                    for at in np.flatnonzero(exact >= s).tolist():
                        string = _string(windows, int(asked.number[at]), start=int(asked.start[at]), n=s)
                        if string:
                            of.append(int(asked.number[at]))
                            strings.append(string)
        return {length: (np.array(of, dtype=np.int64), some) for length, (of, some) in found.items()}

    def _documents(self) -> Iterator[Document]:
        folder = _built(self.within)
        if folder is not None:
            return shard_documents(open_shards(folder))
        return find_source(self.within, text_field=self.text_field).documents()


_BY_SUFFIX = ("sequence", "documents")


def _string(windows: Windows, text: int, /, *, start: int, n: int) -> str:
    """What n tokens of a text stand for, whole characters only."""
    begins, ends = windows.token_spans(text)
    data = windows.texts[text].text.encode()
    return data[begins[start] : ends[start + n - 1]].decode(errors="ignore")


def _built(source: str) -> Path | None:
    """The folder of a built corpus; None for what is text yet."""
    path = Path(source).expanduser()
    return path if (path / "manifest.json").is_file() and (path / "tokens.bin").is_file() else None
