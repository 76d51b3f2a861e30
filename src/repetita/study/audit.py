"""An audit: models that nobody here trained, or runs of ours, measured on any texts, each text once."""

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from pydantic import Field, PositiveInt, model_validator

from repetita.corpus.reading_rule import ReadingRule
from repetita.corpus.windows import Windows
from repetita.errors import CorpusError, SpecError
from repetita.journal.records import Reading
from repetita.measure.probe import EvalSet, PassProbe
from repetita.spec import Spec, fingerprint
from repetita.study import audit_table
from repetita.study.audit_probes import DEFAULT, ProbeName, key_of, probes_of
from repetita.study.audit_rows import TEXTS, tells_texts_apart, text_rows
from repetita.study.audit_subjects import Named, Opened, Opening, find_subjects, open_subject
from repetita.study.audit_table import Store, group_key
from repetita.study.audit_texts import Text, blocks, distinct, read_texts
from repetita.study.numerics import Guard, guard, sample
from repetita.subject import Deciding

if TYPE_CHECKING:
    import polars as pl

BLOCK_TEXTS, BLOCK_CHARACTERS = 64, 1 << 17
"""Texts that are measured before anything is written: what a kill costs at most, or one longer text."""


class Audit(Spec):
    """What is measured of which subjects on which texts.

    `subjects`: `hf:NAME@REVISION`, a folder in transformers' layout, a GGUF file, `run:FOLDER@STEP` or the
    folder of a run, or a series of these (see `study.series`). `texts`: files and folders, see
    `study.audit_texts.read_texts`; each is a group of its own, and of each the first `limit` texts are read,
    by `rule`. `probes`: see `study.audit_probes`.
    `device`, `dtype` and `batch_tokens` (tokens read at once) are chosen by what memory holds.
    `guard_rows`: rows that are measured again in float32 at batch 1.

    >>> from repetita import Audit
    >>> Audit(subjects=("hf:gpt2",), texts=("letters.jsonl",)).probes
    ('score', 'unit_length', 'extraction', 'membership')
    """

    subjects: tuple[str, ...] = Field(min_length=1)
    texts: tuple[str, ...] = Field(min_length=1)
    text_field: str = "text"
    limit: PositiveInt | None = None
    rule: ReadingRule = ReadingRule()
    probes: tuple[ProbeName, ...] = Field(default=DEFAULT, min_length=1)
    prompts: tuple[PositiveInt, ...] = (32,)
    suffixes: tuple[PositiveInt, ...] = (32,)
    temperature: float = Field(default=1.0, gt=0)
    top_k: PositiveInt | None = None
    top_p: float | None = Field(default=None, gt=0, le=1)
    canaries: str | None = None
    device: str = "auto"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    batch_tokens: PositiveInt | None = None
    allow_pickle: bool = False
    guard_rows: PositiveInt = 8

    @model_validator(mode="after")
    def _check_names(self) -> "Audit":
        for field in ("subjects", "probes"):
            names = getattr(self, field)
            twice = [name for name in names if names.count(name) > 1]
            if twice:
                raise SpecError(f"Audit: {field} names '{twice[0]}' twice; name it once")
        probes_of(self)
        return self


class Standing(NamedTuple):
    """How far an audit is."""

    subject: str
    done: int
    """Texts of this subject that are measured, and how many there are."""
    texts: int
    share: float
    """Of the whole audit, by characters."""
    seconds_left: float | None
    """None before anything was measured."""


class AuditedSubject(NamedTuple):
    """What an audit says about one subject besides its numbers."""

    id: str
    label: str
    rule: str
    """The rule of reading as it came to be, in a sentence."""
    guard: Guard
    record: dict[str, Any]
    measured: int
    """Texts that this audit measured; the others were known."""
    folder: Path


class Audited(NamedTuple):
    """What an audit found; columns of both tables: see `study.audit_table`."""

    subjects: tuple[AuditedSubject, ...]
    by_text: "pl.DataFrame"
    by_group: "pl.DataFrame"


Watch = Callable[[Standing], None]


def run_audit(audit: Audit, /, *, root: str | Path = "repetita-out", watch: Watch | None = None) -> Audited:
    """Measures what is not yet known, keeps it below `root`/audits, and gives back all that was asked for.

    Texts are measured in blocks, each written when it is done: a kill costs a block at most, and no text is
    measured twice by the same probe under the same rule. Raises UserError for what cannot be opened or read.

    >>> from pathlib import Path
    >>> from repetita import Audit, run_audit
    >>> run = next(Path("repetita-out/runs").glob("*-repeated_subset-s0-*"))
    >>> _ = Path("geese.txt").write_text("Geese fly south. " * 9)
    >>> audited = run_audit(Audit(subjects=(str(run),), texts=("geese.txt",), probes=("score",)))
    >>> sorted(audited.by_text["metric"])
    ['bits_per_byte', 'loss', 'memorized']
    """
    texts = read_texts(audit.texts, text_field=audit.text_field, limit=audit.limit)
    probes = probes_of(audit)
    named = _named(audit, root=Path(root))
    clock = _Clock(len(named), distinct(texts), watch)
    opening = Opening(Path(root), audit.device, audit.dtype, audit.batch_tokens, audit.allow_pickle)
    found, tables = [], []
    for number, name in enumerate(named):
        one = _Subject(audit, name, open_subject(name.source, opening=opening), texts, root=Path(root))
        clock.begin(number, name.label)
        measured = one.measure(probes, clock)
        found.append(one.said(measured))
        tables.append(audit_table.renamed(one.store.kept(), name=name))
    kept = audit_table.of_probes(tables, probes=[key_of(probe) for probe in probes])
    return Audited(
        tuple(found), audit_table.by_text(kept, texts=texts), audit_table.by_group(kept, texts=texts)
    )


def _named(audit: Audit, *, root: Path) -> list[Named]:
    """All subjects, series taken apart. Raises SpecError for one that is named twice."""
    named = [one for source in audit.subjects for one in find_subjects(source, root=root)]
    sources = [one.source for one in named]
    twice = next((one.label for one in named if sources.count(one.source) > 1), None)
    if twice is not None:
        raise SpecError(f"Audit: subjects name '{twice}' twice; name it once")
    return named


class _Subject:
    """One subject of an audit, and where its rows are kept."""

    def __init__(self, audit: Audit, named: Named, opened: Opened, texts: list[Text], *, root: Path) -> None:
        self._audit, self._named, self._opened, self._texts = audit, named, opened, texts
        self.reading = audit.rule.resolve(opened.tokenizing, context=opened.context)
        self.rule = fingerprint([self.reading._asdict(), opened.tokenizing.identity])[:12]
        slug = re.sub(r"[^a-z0-9]+", "-", opened.name.lower()).strip("-")[:40]
        self.store = Store(root, subject=opened.id, slug=slug, rule=self.rule)

    def measure(self, probes: list[PassProbe], clock: "_Clock") -> int:
        """Measures what is missing; how many texts that were."""
        done = self.store.done()
        single = [probe for probe in probes if tells_texts_apart(probe)]
        whole = [probe for probe in probes if not tells_texts_apart(probe)]
        measured = 0
        for block in blocks(distinct(self._texts), most_texts=BLOCK_TEXTS, most_characters=BLOCK_CHARACTERS):
            rows = list(self._rows(block, single, done))
            if rows:
                self.store.add(rows)
            fresh = {row["text"] for row in rows}
            measured += len(fresh)
            clock.add(block, fresh)
        for group in dict.fromkeys(one.group for one in self._texts):
            of_group = [one for one in self._texts if one.group == group]
            key = group_key(of_group)
            due = [probe for probe in whole if (key_of(probe), key) not in done]
            if due:
                self.store.add(list(self._group_rows(of_group, due, key=key)))
        return measured

    def said(self, measured: int) -> AuditedSubject:
        """What is to be said of it, the guard among it; its record is kept beside the rows."""
        checked = self._guard()
        record = self._opened.record()
        self.store.note(
            "subject",
            {
                "identity": self._opened.identity,
                "record": record,
                "rules": {self.rule: self.reading._asdict()},
            },
        )
        folder = self.store.folder
        return AuditedSubject(
            self._opened.id, self._named.label, self.reading.text, checked, record, measured, folder
        )

    def _windows(self, texts: list[Text]) -> Windows:
        return Windows(
            [one.document for one in texts],
            tokenizing=self._opened.tokenizing,
            rule=self._audit.rule,
            context=self._opened.context,
        )

    def _rows(
        self, block: list[Text], probes: list[PassProbe], done: set[tuple[str, str]]
    ) -> Iterator[dict[str, Any]]:
        """Rows of the texts of a block that a probe has not measured.

        The masks of a masked model follow from the place of a row among those that are measured together: its
        texts are measured one by one, so that they do not depend on which others were there.
        """
        for probe in probes:
            missing = [one for one in block if (key_of(probe), one.sha256) not in done]
            parts = [[one] for one in missing] if self._opened.subject.mask_id is not None else [missing]
            for texts in (part for part in parts if part):
                found = list(text_rows(self._opened.subject, probe, windows=self._windows(texts)))
                common = self._common(probe)
                for row in found:
                    yield common | row._asdict() | {"text": texts[row.text].sha256}

    def _group_rows(
        self, texts: list[Text], probes: list[PassProbe], *, key: str
    ) -> Iterator[dict[str, Any]]:
        sets = {TEXTS: EvalSet.whole(TEXTS, sequences=self._windows(distinct(texts)))}
        for probe in probes:
            try:
                readings = list(probe.measure(self._opened.subject, sets=sets))
            except (
                SpecError,
                CorpusError,
            ) as error:  # These texts or this rule do not hold what the probe shows.
                readings = [Reading(probe.name, TEXTS, None, 0, {"why": str(error)})]
            common = self._common(probe)
            for reading in readings:
                why = (reading.detail or {}).get("why", "")
                yield common | {
                    "text": key,
                    "metric": reading.metric,
                    "on": "" if reading.on == TEXTS else reading.on,
                    "value": reading.value,
                    "n": reading.n,
                    "total": None,
                    "unit": "",
                    "note": str(why),
                }

    def _common(self, probe: PassProbe) -> dict[str, Any]:
        opened, record = self._opened, self._opened.record()
        return {
            "subject": opened.id,
            "name": self._named.name,
            "revision": self._named.revision,
            "step": self._named.step,
            "dtype": record["dtype"],
            "device": record["device"],
            "halvings": len(record["halvings"]),
            "rule": self.rule,
            "rule_text": self.reading.text,
            "probe": key_of(probe),
            "instrument": probe.name,
        }

    def _guard(self) -> Guard:
        """Of rows of these texts; known from before where the same were looked at."""
        some = sorted(distinct(self._texts), key=lambda one: one.sha256)[: self._audit.guard_rows]
        windows = self._windows(some)
        over = sample(windows, most=self._audit.guard_rows)
        name = f"guard-{self.rule}-{fingerprint([windows.fingerprint, self._audit.guard_rows])[:16]}"
        known = self.store.noted(name)
        if known is not None and set(known) == set(Guard._fields):
            return Guard(**known)
        subject, exact = self._opened.subject, self._opened.exact()
        assert isinstance(subject, Deciding)
        assert isinstance(exact, Deciding)
        found = guard(subject, exact=exact, over=over)
        self.store.note(name, found._asdict())
        return found


class _Clock:
    """How much is done and how long the rest takes, by characters that had to be measured."""

    def __init__(self, subjects: int, texts: list[Text], watch: Watch | None) -> None:
        self._subjects, self._texts, self._watch = subjects, texts, watch
        self._size = sum(len(one.text) for one in texts)
        self._spent, self._measured = 0.0, 0

    def begin(self, number: int, label: str) -> None:
        """A subject is opened."""
        self._number, self._label, self._done, self._passed = number, label, 0, 0
        self._last = time.monotonic()

    def add(self, block: list[Text], fresh: set[str]) -> None:
        """A block is written; of its texts these had to be measured."""
        now = time.monotonic()
        self._spent, self._last = self._spent + now - self._last, now
        self._done += len(block)
        self._passed += sum(len(one.text) for one in block)
        self._measured += sum(len(one.text) for one in block if one.sha256 in fresh)
        if self._watch is not None:
            through = self._number * self._size + self._passed
            left = self._subjects * self._size - through
            seconds = self._spent / self._measured * left if self._measured else None
            share = through / (self._subjects * self._size)
            self._watch(Standing(self._label, self._done, len(self._texts), share, seconds))
