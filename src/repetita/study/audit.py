"""An audit: models that nobody here trained, or runs of ours, measured on any texts, each text once."""

import re
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from repetita.corpus.reading_rule import ReadingRule, ResolvedRule
from repetita.corpus.windows import SEMANTICS, Windows
from repetita.errors import CorpusError, NotApplicable, SpecError
from repetita.journal.records import Reading
from repetita.measure.probe import EvalSet, PassProbe
from repetita.spec import Spec, fingerprint
from repetita.study import audit_table
from repetita.study.audit_canaries import beside_exposure
from repetita.study.audit_eidetic import EideticProbe
from repetita.study.audit_probes import DEFAULT, SCORE, ProbeName, eidetic_of, key_of, probes_of
from repetita.study.audit_reference import RATIO, compared, reference_rows
from repetita.study.audit_rows import TEXTS, tells_texts_apart, text_rows
from repetita.study.audit_subjects import Named, Opened, Opening, find_subjects, open_subject
from repetita.study.audit_table import Store, group_key
from repetita.study.audit_texts import Text, blocks, distinct, read_texts
from repetita.study.audit_trained import counterfactual, read_trained
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
    `indices`: the early token and the late one of the probe in_context. Further measures, each asked for by
    what it needs: `eidetic`, a corpus to count in (see `EideticProbe`); `reference`, a second model (see
    `audit_reference.reference_rows`); `trained_with`, a table of which subject was trained with which text,
    for counterfactual memorization (see `audit_trained.read_trained`).

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
    indices: tuple[NonNegativeInt, PositiveInt] = (50, 500)
    eidetic: str | None = None
    reference: str | None = None
    trained_with: str | None = None
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
        if self.trained_with is not None and "score" not in self.probes:
            raise SpecError(
                "Audit: trained_with compares M(f), which the probe score measures; name it, or leave "
                "trained_with out"
            )
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
    reference: AuditedSubject | None = None
    counterfactual: "pl.DataFrame | None" = None
    """By text, where `trained_with` says who was trained with what: see `study.audit_trained`."""


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
    probes = [*probes_of(audit), *eidetic_of(audit)]
    named = _named(audit, root=Path(root))
    member = None
    if audit.trained_with is not None:
        member = read_trained(audit.trained_with, named=named, texts=texts)
    second = None if audit.reference is None else _single(audit.reference, root=Path(root))
    clock = _Clock(len(named) + (second is not None), distinct(texts), watch)
    measure = partial(_measured, audit, texts=texts, root=Path(root), clock=clock)
    reference = None if second is None else measure(second, probes=[SCORE])
    asked = [*probes] if reference is None or SCORE in probes else [*probes, SCORE]
    found, tables = [], []
    for name in named:
        one = measure(name, probes=asked)
        found.append(one)
        tables.append(one.rows)
        if reference is not None:
            note = compared(one.reading, reference=reference.reading, label=reference.said.label)
            tables.append(
                reference_rows(
                    one.rows,
                    reference=reference.rows,
                    score=key_of(SCORE),
                    label=reference.said.label,
                    note=note,
                )
            )
    shown = [key_of(probe) for probe in probes] + ([] if reference is None else [RATIO])
    kept = audit_table.of_probes(tables, probes=shown)
    by_text = audit_table.by_text(kept, texts=texts)
    counterfactual_ = None
    if member is not None:
        subjects = [(one.said.id, name) for one, name in zip(found, named, strict=True)]
        counterfactual_ = counterfactual(by_text, subjects=subjects, member=member, texts=texts)
    return Audited(
        tuple(one.said for one in found),
        by_text,
        audit_table.by_group(kept, texts=texts),
        None if reference is None else reference.said,
        counterfactual_,
    )


class _Measured(NamedTuple):
    """What is left of a subject when it is let go."""

    said: AuditedSubject
    reading: ResolvedRule
    rows: "pl.DataFrame"


def _measured(
    audit: Audit, name: Named, /, *, probes: list[PassProbe], texts: list[Text], root: Path, clock: "_Clock"
) -> _Measured:
    """Opens one subject, measures it and lets it go: no two are in memory at once."""
    opening = Opening(root, audit.device, audit.dtype, audit.batch_tokens, audit.allow_pickle)
    one = _Subject(audit, name, open_subject(name.source, opening=opening), texts, root=root)
    clock.begin(name.label)
    measured = one.measure(probes, clock)
    said = one.said(measured)
    return _Measured(said, one.reading, audit_table.renamed(one.store.kept(), name=name))


def _single(source: str, *, root: Path) -> Named:
    """The reference. Raises SpecError for a series."""
    found = find_subjects(source, root=root)
    if len(found) > 1:
        raise SpecError(
            f"Audit: reference names {len(found)} models ('{found[0].label}' ...); name one of them"
        )
    return found[0]


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
        self.rule = fingerprint([SEMANTICS, self.reading._asdict(), opened.tokenizing.identity])[:12]
        slug = re.sub(r"[^a-z0-9]+", "-", opened.name.lower()).strip("-")[:40]
        self.store = Store(root, subject=opened.id, slug=slug, rule=self.rule)

    def measure(self, probes: list[PassProbe], clock: "_Clock") -> int:
        """Measures what is missing; how many texts that were."""
        done = self.store.done()
        single = [probe for probe in probes if tells_texts_apart(probe)]
        whole = [probe for probe in probes if not tells_texts_apart(probe)]
        each, measured = distinct(self._texts), set[str]()
        for block in blocks(each, most_texts=BLOCK_TEXTS, most_characters=BLOCK_CHARACTERS):
            fresh, rows = set[str](), list[dict[str, Any]]()
            for probe in single:
                if not isinstance(probe, EideticProbe):
                    rows += self._rows(block, probe, done)
                if rows and (probe is single[-1] or len(block[0].text) > BLOCK_CHARACTERS):
                    self.store.add(rows)
                    fresh, rows = fresh | {row["text"] for row in rows}, []
            measured |= fresh
            clock.add(block, fresh)
        for probe in single:
            # It reads a corpus, once for all texts.
            rows = list(self._rows(each, probe, done)) if isinstance(probe, EideticProbe) else []
            if rows:
                self.store.add(rows)
                measured |= {row["text"] for row in rows}
        for group in dict.fromkeys(one.group for one in self._texts):
            of_group = [one for one in self._texts if one.group == group]
            key = group_key(of_group)
            due = [probe for probe in whole if (key_of(probe), key) not in done]
            if due:
                self.store.add(list(self._group_rows(of_group, due, key=key)))
        return len(measured)

    def said(self, measured: int) -> AuditedSubject:
        """What is to be said of it, the guard among it; its record is kept beside the rows."""
        checked = self._guard()
        record, known = self._opened.record(), self.store.noted("subject") or {}
        rules = dict(known.get("rules", {})) | {self.rule: self.reading._asdict()}
        self.store.note("subject", {"identity": self._opened.identity, "record": record, "rules": rules})
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
        self, texts: list[Text], probe: PassProbe, done: set[tuple[str, str]]
    ) -> Iterator[dict[str, Any]]:
        """Rows of those of these texts that a probe has not measured.

        The masks of a masked model follow from the place of a row among those that are measured together: its
        texts are measured one by one, so that they do not depend on which others were there.
        """
        missing = [one for one in texts if (key_of(probe), one.sha256) not in done]
        apart = self._opened.subject.mask_id is not None and not isinstance(probe, EideticProbe)
        for part in [[one] for one in missing] if apart else [missing] * bool(missing):
            found = list(text_rows(self._opened.subject, probe, windows=self._windows(part)))
            common = self._common(probe)
            for row in found:
                yield common | row._asdict() | {"text": part[row.text].sha256}

    def _group_rows(
        self, texts: list[Text], probes: list[PassProbe], *, key: str
    ) -> Iterator[dict[str, Any]]:
        sets = {TEXTS: EvalSet.whole(TEXTS, sequences=self._windows(distinct(texts)))}
        for probe in probes:
            try:
                readings = list(probe.measure(self._opened.subject, sets=sets))
            except (SpecError, CorpusError, NotApplicable) as error:
                # These texts or this rule do not hold what the probe shows, or the model does not show it.
                readings = [Reading(probe.name, TEXTS, None, 0, {"why": str(error)})]
            common, beside = self._common(probe), beside_exposure(probe, readings)
            for reading in readings:
                why = (reading.detail or {}).get("why", "")
                row = {
                    "text": key,
                    "metric": reading.metric,
                    "on": "" if reading.on == TEXTS else reading.on,
                    "value": reading.value,
                    "n": reading.n,
                    "total": None,
                    "unit": "",
                    "note": str(why),
                }
                yield common | row | beside.get(reading.metric, {})

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
        asked = [windows.fingerprint, self._audit.guard_rows, self._opened.record()["device"]]
        name = f"guard-{self.rule}-{fingerprint(asked)[:16]}"
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
        self._number, self._spent, self._measured = -1, 0.0, 0

    def begin(self, label: str) -> None:
        """A subject is opened."""
        self._number, self._label, self._done, self._passed = self._number + 1, label, 0, 0
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
