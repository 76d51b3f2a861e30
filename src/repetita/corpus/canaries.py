"""Canaries: random secrets written into texts a known number of times, and the key to them."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveInt, model_validator

from repetita import seeds
from repetita.corpus.documents import find_source, public_source
from repetita.corpus.source import Document
from repetita.corpus.synthetic import Canary, canaries
from repetita.errors import CorpusError, DamagedError, SpecError
from repetita.journal.disk import atomic_file, write_atomic
from repetita.spec import Spec, plain

Ints = NDArray[np.int64]
SCHEMA = 1
KEY, TEXTS = "canaries.json", "documents.jsonl"


class CanarySpec(Spec):
    """Which canaries there are: `each` of them written as often as each of `counts` says.

    A canary is `prefix` and a secret of `n_digits` digits, one of 10 ** n_digits (Carlini et al. 2019, "The
    Secret Sharer", section 4; see `synthetic.canaries`). Those of count 0 are written nowhere: what a model
    makes of a canary that it never saw. The same value gives the same secrets everywhere.

    >>> from repetita.corpus.canaries import CanarySpec
    >>> spec = CanarySpec(counts=(0, 1, 10), each=2, n_digits=4)
    >>> spec.n, spec.space, spec.count_of.tolist()
    (6, 10000, [0, 0, 1, 1, 10, 10])
    """

    counts: tuple[int, ...] = Field(default=(0, 1, 4, 16, 64), min_length=1)
    each: PositiveInt = 8
    n_digits: int = Field(default=9, ge=1, le=18)
    prefix: str = "The random number is"
    seed: int = 0

    @model_validator(mode="after")
    def _check(self) -> Self:
        if any(count < 0 for count in self.counts) or len(set(self.counts)) != len(self.counts):
            raise SpecError(f"CanarySpec: counts = {self.counts}; name each once, 0 or more")
        if 2 * self.n > self.space:
            raise SpecError(
                f"CanarySpec: {self.n} canaries are more than half of the {self.space} secrets of "
                f"{self.n_digits} digits, so that too few are left to compare with; raise n_digits"
            )
        if self.prefix != self.prefix.strip() or not self.prefix.isprintable() or not self.prefix:
            raise SpecError(
                f"CanarySpec: prefix = {self.prefix!r} is no line of text; write some words without a break"
            )
        return self

    @property
    def n(self) -> int:
        """Canaries in all."""
        return len(self.counts) * self.each

    @property
    def space(self) -> int:
        """Secrets that a canary could have had."""
        return int(10**self.n_digits)

    @property
    def count_of(self) -> Ints:
        """How often each canary is written, shape (n,)."""
        return np.repeat(np.array(self.counts, dtype=np.int64), self.each)

    def canaries(self) -> list[Canary]:
        """All canaries, those of the first count first."""
        return self._drawn(self.n, first=0)

    def candidates(self, n: int, /) -> list[Canary]:
        """The first n, or all there are, of what the canaries could have been and none of them is."""
        return self._drawn(min(n, self.space - self.n), first=self.n)

    def _drawn(self, n: int, *, first: int) -> list[Canary]:
        return canaries(n, seed=self.seed, n_digits=self.n_digits, prefix=self.prefix, first=first)


class Place(NamedTuple):
    """Where a canary was written."""

    canary: int
    document: str
    offset: int
    """Characters of the document, as written, before it."""


class Written(NamedTuple):
    """A document with its canaries."""

    document: Document
    places: list[Place]


def insert_canaries(spec: CanarySpec, *, documents: Callable[[], Iterator[Document]]) -> Iterator[Written]:
    """The documents in their order, each canary in them as often as its count says, on lines of its own.

    Where is drawn evenly from all beginnings of lines of all documents, none of them twice before all were
    taken. Without these lines the text is what it was. Reads `documents` twice: to count the lines, then to
    write them. Raises CorpusError where there is no text, or the two differ.
    """
    gaps = np.array([1 + document.text.count("\n") for document in documents()], dtype=np.int64)
    if not len(gaps):
        raise CorpusError("there is no text to write canaries into; give one")
    ends = np.cumsum(gaps)
    which = np.repeat(np.arange(spec.n), spec.count_of)
    turn, number = np.divmod(np.arange(len(which)), int(ends[-1]))
    at = seeds.Permutation(int(ends[-1]), seeds.key(spec.seed, "canary-places"))(number, turn=turn)
    order = np.argsort(at, kind="stable")
    at, which = at[order], which[order]
    texts, n_read = [one.text for one in spec.canaries()], 0
    for document, n_gaps, end in zip(documents(), gaps.tolist(), ends.tolist(), strict=False):
        if 1 + document.text.count("\n") != n_gaps:
            break
        n_read += 1
        low, high = np.searchsorted(at, [end - n_gaps, end])
        lines = zip((at[low:high] - (end - n_gaps)).tolist(), which[low:high].tolist(), strict=True)
        yield _written(document, lines=list(lines), texts=texts)
    if n_read != len(gaps):
        raise CorpusError("the text changed while canaries were written into it; run the command again")


def _written(document: Document, *, lines: list[tuple[int, int]], texts: list[str]) -> Written:
    """`lines`: before which line of the document which canary is written, in this order."""
    parts, places, offset, next_line = [], [], 0, 0
    own = _lines(document.text)
    for line, canary in lines:
        before = own[next_line:line]
        offset += sum(map(len, before))
        places.append(Place(canary, document.name, offset))
        parts += [*before, texts[canary] + "\n"]
        offset, next_line = offset + len(parts[-1]), line
    return Written(document._replace(text="".join([*parts, *own[next_line:]])), places)


def _lines(text: str) -> list[str]:
    """The lines with their line feeds, which alone end one here; the last may be empty."""
    *lines, last = text.split("\n")
    return [*(line + "\n" for line in lines), last]


def make_canaries(spec: CanarySpec, *, source: str, folder: Path, text_field: str = "text") -> dict[str, int]:
    """Writes `documents.jsonl`, a text with canaries in it, and `canaries.json`, the key, into a folder.

    `source` is anything that `find_source` finds. The documents keep name, source and date. The key holds the
    spec, from which all else follows, and for people every canary with its count and places; it is written
    last. Returns how many documents, canaries and insertions there are. Raises CorpusError, SpecError where
    the folder has either file already, and StorageError.
    """
    there = next((folder / name for name in (KEY, TEXTS) if (folder / name).exists()), None)
    if there is not None:
        raise SpecError(f"{there} is there already; choose another folder, or remove it first")
    found = find_source(source, text_field=text_field)
    places: list[list[Place]] = [[] for _ in range(spec.n)]
    n_documents = 0
    with atomic_file(folder / TEXTS) as file:
        for written in insert_canaries(spec, documents=found.documents):
            n_documents += 1
            for place in written.places:
                places[place.canary].append(place)
            row = {name: value for name, value in written.document._asdict().items() if value is not None}
            file.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
    listed = [
        {
            "text": canary.text,
            "secret": canary.secret.strip(),
            "count": count,
            "places": [{"document": one.document, "offset": one.offset} for one in where],
        }
        for canary, count, where in zip(spec.canaries(), spec.count_of.tolist(), places, strict=True)
    ]
    key = {"schema": SCHEMA, "source": public_source(source), "spec": plain(spec), "canaries": listed}
    write_atomic(folder / KEY, json.dumps(key, indent=1, ensure_ascii=False).encode() + b"\n")
    return {"documents": n_documents, "canaries": spec.n, "insertions": int(spec.count_of.sum())}


def read_canaries(path: Path, /) -> CanarySpec:
    """The spec of a key that `make_canaries` wrote (the file, or its folder).

    Raises CorpusError where there is none and DamagedError where its canaries are not those of its spec.
    """
    file = path / KEY if path.is_dir() else path
    try:
        key = json.loads(file.read_bytes())
    except OSError as error:
        raise CorpusError(
            f"no key at {file} ({error.strerror}); `repetita canaries make` writes one"
        ) from None
    except ValueError as error:
        raise DamagedError(f"{file} is no key: not JSON ({error}); make it again") from None
    if not isinstance(key, dict) or not isinstance(key.get("spec"), dict) or "canaries" not in key:
        raise DamagedError(f"{file} is no key: it lacks spec and canaries; make it again")
    if key.get("schema") != SCHEMA:
        raise DamagedError(
            f"{file} has schema {key.get('schema')}, this version of repetita reads {SCHEMA}; update repetita"
        )
    spec = CanarySpec(**key["spec"])
    made = [
        (canary.text, count) for canary, count in zip(spec.canaries(), spec.count_of.tolist(), strict=True)
    ]
    listed = key["canaries"] if isinstance(key["canaries"], list) else []
    if [(one.get("text"), one.get("count")) for one in listed if isinstance(one, dict)] != made:
        raise DamagedError(f"{file}: the canaries are not those of its spec; make it again")
    return spec
