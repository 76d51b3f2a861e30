"""Which text a tokenizer was trained on, where that is another one than it encodes."""

from typing import Self

from pydantic import PositiveInt, model_validator

from repetita.corpus.documents import check_parts, public_source
from repetita.corpus.synthetic import SyntheticSpec
from repetita.errors import SpecError
from repetita.spec import Spec, introduced


class TrainingText(Spec):
    """The fields of a `CorpusSpec` that say which text it is; a tokenizer depends on no other of them."""

    source: str
    text_field: str = "text"
    subset: str | None = introduced(None)
    split: str | None = introduced(None)
    limit_documents: PositiveInt | None = introduced(None)
    synthetic: SyntheticSpec | None = introduced(None)

    @model_validator(mode="after")
    def _check(self) -> Self:
        check_parts(self.source, subset=self.subset, split=self.split)
        if self.synthetic is not None and self.source != "synthetic":
            raise SpecError(
                f"TrainingText: synthetic has no effect on source '{self.source}'; set source to 'synthetic'"
            )
        return self

    @property
    def public(self) -> Self:
        """The same as others may read it: of a path the last part only."""
        return self.edit(source=public_source(self.source))
