"""Another text in place of a study's own: the same questions asked of it."""

from collections.abc import Sequence
from pathlib import Path

from repetita.corpus.documents import is_named, public_source
from repetita.corpus.sequences import CorpusSpec
from repetita.corpus.source import slug
from repetita.errors import SpecError
from repetita.spec import Spec
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

    Runs on another source (a synthetic corpus beside the real one, for example) stay as they are.
    """
    if text is None or not planned:
        return tuple(planned)
    own = planned[0].spec.corpus.source
    changed: dict[CorpusSpec, CorpusSpec] = {}

    def other(run: PlannedRun) -> PlannedRun:
        corpus = run.spec.corpus
        if corpus.source != own:
            return run
        return run._replace(spec=run.spec.edit(corpus=changed.setdefault(corpus, text.instead(corpus))))

    return tuple(map(other, planned))
