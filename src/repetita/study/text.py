"""Another text in place of a study's own: the same questions asked of it."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from repetita.corpus.documents import is_named, public_source
from repetita.corpus.sequences import CorpusSpec
from repetita.corpus.source import slug
from repetita.corpus.training_text import TrainingText
from repetita.errors import SpecError
from repetita.measure.copying import CopyingProbe
from repetita.measure.names import NamesProbe
from repetita.measure.passages import Passage, read_passage
from repetita.measure.probe import PassProbe, Probe
from repetita.spec import Spec
from repetita.study.expand import other_corpus
from repetita.study.plan import PlannedRun
from repetita.train.recipe import RunSpec

SHOWING = (CopyingProbe, NamesProbe)
"""Probes that show a model passages."""

SUFFIXES = (".gz", ".zst", ".jsonl", ".json", ".parquet", ".txt", ".md")
"""Ends of file names that say nothing of the text."""


class Text(Spec):
    """A source as `CorpusSpec` takes it, and a passage that models are shown beside the study's own.

    A path is absolute, so that any process finds it; the passage is its text, whatever becomes of the file.
    Without a source the study keeps its own.
    """

    source: str | None = None
    text_field: str = "text"
    subset: str | None = None
    passage: Passage | None = None

    @property
    def name(self) -> str:
        """What others may read of the source: a name, or the last part of a path; "" without one."""
        return "" if self.source is None else public_source(self.source)

    @property
    def options(self) -> str:
        """What a command line says for it, a space before each option."""
        given = {"--corpus": self.name, "--text": self.passage.name if self.passage else ""}
        return "".join(f" {option} {name}" for option, name in given.items() if name)

    @property
    def slug(self) -> str:
        """The text's name as a part of a folder's name."""
        named = [self.source_slug] if self.source else []
        return slug("-".join((*named, *(["text", self.passage.name] if self.passage else []))))

    @property
    def source_slug(self) -> str:
        """The part of `slug` that is of the source."""
        name = self.name
        while (
            shorter := next((name.removesuffix(end) for end in SUFFIXES if name.endswith(end)), name)
        ) != name:
            name = shorter
        return slug("-".join((name.removeprefix("hf:"), *([self.subset] if self.subset else []))))

    def instead(self, corpus: CorpusSpec) -> CorpusSpec:
        """The corpus with this text: tokenizer of the same kind and size, same length, breaks and splits."""
        if self.source is None:
            return corpus
        return corpus.edit(
            source=self.source,
            text_field=self.text_field,
            subset=self.subset,
            split=None,
            synthetic=None,
            limit_documents=None,
        )


def text_of(
    source: str | Path | None,
    *,
    text_field: str = "text",
    subset: str | None = None,
    passage: str | Path | None = None,
) -> Text | None:
    """The text that a user names, None for none; `passage` is a file, which is read.

    SpecError for a part that has no effect, and for a passage that cannot be read.
    """
    shown = None if passage is None else read_passage(passage)
    if source is None:
        for name, value in (("text_field", text_field != "text"), ("subset", subset)):
            if value:
                raise SpecError(f"{name} has no effect without a corpus; name one, or leave it out")
        return None if shown is None else Text(passage=shown)
    named = str(source)
    place = named if is_named(named) or not named.strip() else str(Path(named).expanduser().absolute())
    return Text(source=place, text_field=text_field, subset=subset, passage=shown)


def with_text(planned: Sequence[PlannedRun], text: Text | None) -> tuple[PlannedRun, ...]:
    """The runs with `text` wherever they read the study's own text, which is that of the first run.

    Runs on another source (a synthetic corpus beside the real one, for example) stay as they are. So do the
    corpora that probes read beside the run's, but for their ids where these are those of the study's own
    text. A probe that would then read the run's own text as if it were another is left out. Where models are
    shown passages, they are shown the text's as well, by probes of its own: the others stay as they were.
    """
    if text is None or not planned:
        return tuple(planned)
    if text.passage is not None:
        planned = tuple(_shown(run, text.passage) for run in planned)
    if text.source is None:
        return tuple(planned)
    own = planned[0].spec.corpus.source
    changed: dict[CorpusSpec, CorpusSpec] = {}

    def other(corpus: CorpusSpec) -> CorpusSpec:
        if corpus not in changed:
            changed[corpus] = _with_text(corpus, text, own)
        return changed[corpus]

    return tuple(
        run._replace(
            spec=_reading(run.spec, other),
            labels={name: text.name if value == own else value for name, value in run.labels.items()},
            probes=tuple(_probes(run, other)),
        )
        for run in planned
    )


def _reading(spec: RunSpec, other: Callable[[CorpusSpec], CorpusSpec]) -> RunSpec:
    """A run on another corpus, and so the runs before it."""
    changes: dict[str, object] = {"corpus": other(spec.corpus)}
    if spec.start is not None:
        changes["start"] = spec.start.edit(run=_reading(spec.start.run, other))
    return spec.edit(**changes)


def _with_text(corpus: CorpusSpec, text: Text, own: str) -> CorpusSpec:
    """A corpus with `text` in place of the source `own`, as the text itself and as that of its ids."""
    if corpus.source == own:
        return text.instead(corpus)
    trained_on = corpus.tokenizer.trained_on
    if trained_on is None or trained_on.source != own:
        return corpus
    # That corpus itself: with_ids_of knows where both texts are now one.
    alike = CorpusSpec(source=own, tokenizer=corpus.tokenizer.edit(trained_on=None))
    return corpus.with_ids_of(text.instead(alike))


def _probes(run: PlannedRun, other: Callable[[CorpusSpec], CorpusSpec]) -> Iterator[Probe]:
    for probe in run.probes:
        corpus = other_corpus(probe)
        if corpus is None or not isinstance(probe, PassProbe):
            yield probe
        elif _whole(corpus) == _whole(run.spec.corpus) or _whole(other(corpus)) != _whole(
            other(run.spec.corpus)
        ):
            yield probe.edit(corpus=other(corpus))


def _whole(corpus: CorpusSpec) -> TrainingText:
    """Which text it is, however much of it is taken."""
    return corpus.text.edit(limit_documents=None)


def shows_passages(planned: Sequence[PlannedRun]) -> bool:
    """Whether models are shown passages in any of the runs."""
    return any(isinstance(probe, SHOWING) for run in planned for probe in run.probes)


def _shown(run: PlannedRun, passage: Passage) -> PlannedRun:
    """The run with one more probe for each kind of probe that shows passages, which shows this one."""
    more: dict[type, Probe] = {}
    for probe in run.probes:
        if isinstance(probe, SHOWING) and type(probe) not in more:
            taken = {shown.name for shown in probe.passages}
            name = passage.name if passage.name not in taken else f"your {passage.name}"
            more[type(probe)] = probe.edit(passages=(passage.edit(name=name),))
    return run._replace(probes=(*run.probes, *more.values()))
