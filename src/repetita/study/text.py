"""Another text in place of a study's own: the same questions asked of it."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from repetita.corpus.documents import is_named, public_source
from repetita.corpus.sequences import CorpusSpec
from repetita.corpus.source import slug
from repetita.errors import SpecError
from repetita.measure.probe import PassProbe, Probe
from repetita.spec import Spec
from repetita.study.expand import other_corpus
from repetita.study.plan import PlannedRun

SUFFIXES = (".gz", ".zst", ".jsonl", ".json", ".parquet", ".txt", ".md")
"""Ends of file names that say nothing of the text."""


class Text(Spec):
    """A source as `CorpusSpec` takes it; a path is absolute, so that any process finds it."""

    source: str
    text_field: str = "text"
    subset: str | None = None

    @property
    def name(self) -> str:
        """What others may read: a name, or the last part of a path."""
        return public_source(self.source)

    @property
    def slug(self) -> str:
        """The text's name as a part of a folder's name."""
        name = self.name
        while (
            shorter := next((name.removesuffix(end) for end in SUFFIXES if name.endswith(end)), name)
        ) != name:
            name = shorter
        return slug("-".join((name.removeprefix("hf:"), *([self.subset] if self.subset else []))))

    def instead(self, corpus: CorpusSpec) -> CorpusSpec:
        """The corpus with this text: tokenizer of the same kind and size, same length, breaks and splits."""
        return corpus.edit(
            source=self.source,
            text_field=self.text_field,
            subset=self.subset,
            split=None,
            synthetic=None,
            limit_documents=None,
        )


def text_of(source: str | Path | None, *, text_field: str = "text", subset: str | None = None) -> Text | None:
    """The text that a user names, None for none; SpecError for a part that then has no effect."""
    if source is None:
        for name, value in (("text_field", text_field != "text"), ("subset", subset)):
            if value:
                raise SpecError(f"{name} has no effect without a corpus; name one, or leave it out")
        return None
    named = str(source)
    place = named if is_named(named) or not named.strip() else str(Path(named).expanduser().absolute())
    return Text(source=place, text_field=text_field, subset=subset)


def with_text(planned: Sequence[PlannedRun], text: Text | None) -> tuple[PlannedRun, ...]:
    """The runs with `text` wherever they read the study's own text, which is that of the first run.

    Runs on another source (a synthetic corpus beside the real one, for example) stay as they are. So do the
    corpora that probes read beside the run's, but for their ids where these are those of the study's own
    text. A probe that would then read the run's own text as if it were another is left out.
    """
    if text is None or not planned:
        return tuple(planned)
    own = planned[0].spec.corpus.source
    changed: dict[CorpusSpec, CorpusSpec] = {}

    def other(corpus: CorpusSpec) -> CorpusSpec:
        if corpus not in changed:
            changed[corpus] = _with_text(corpus, text, own)
        return changed[corpus]

    return tuple(
        run._replace(
            spec=run.spec.edit(corpus=other(run.spec.corpus)),
            probes=tuple(_probes(run, other)),
        )
        for run in planned
    )


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
        elif corpus.text == run.spec.corpus.text or other(corpus).text != other(run.spec.corpus).text:
            yield probe.edit(corpus=other(corpus))
