"""A model that somebody else trained as what a run begins with, as a value (torch-free)."""

from typing import Any, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from repetita.corpus.pretrained_tokenizer import public_tokenizer
from repetita.errors import SpecError
from repetita.spec import Spec, introduced


class PretrainedModel(Spec):
    """What a run begins with: a causal or masked language model of transformers and all of its weights.

    `pretrained_model(SOURCE)` fills everything in. `sha256` is the content of its config and weights, and
    with it part of the identity of every run; where they lie is not. Ids are those of a corpus that was
    built with the model's own tokenizer (the library's + 1): 0 is the library's id `start` (in a masked
    model, at the end of a row, `pad`), and in a masked model `vocab_size` is its mask.
    """

    source: str | None = introduced(None)
    """hf:NAME@REVISION, or a folder in transformers' layout."""
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    tokenizer: str = Field(pattern="^[0-9a-f]{64}$")
    """Hash of the content of its tokenizer.json."""
    architecture: str
    """Class of transformers."""
    objective: Literal["causal", "masked"]
    n_layer: PositiveInt
    d_model: PositiveInt
    n_head: PositiveInt
    d_mlp: int = Field(ge=0)
    vocab_size: int = Field(ge=2)
    """Ids of its tokenizer, and id 0."""
    context: PositiveInt
    """The most tokens that a row may hold."""
    start: int = Field(ge=0)
    pad: int = Field(ge=0)
    mask: int | None = Field(ge=0)
    embedding: int = Field(ge=0)
    position: int = Field(ge=0)
    output: int = Field(ge=0)
    body: int = Field(ge=0)
    matrices: int = Field(ge=0)
    """Parameters as in `ParamCount`; `matrices` are those of `body` that are no vectors."""

    @model_validator(mode="before")
    @classmethod
    def _filled_in(cls, values: Any) -> Any:
        if isinstance(values, dict) and set(values) == {"source"}:
            raise SpecError(
                f"PretrainedModel: a source alone does not say which weights are there; write "
                f"pretrained_model('{values['source']}'), which reads the rest"
            )
        return values

    @property
    def n_ids(self) -> int:
        """Ids that are read: those of the corpus, and in a masked model the mask."""
        return self.vocab_size + (self.objective == "masked")

    @property
    def mlp_width(self) -> int:
        """Width of the MLP's hidden layer."""
        return self.d_mlp

    @property
    def name(self) -> str:
        """As others may read it."""
        return "the model" if self.source is None else public_tokenizer(self.source)

    @property
    def public(self) -> Self:
        """The same without the place where it lies: a name on the hub, or of a path its last part."""
        return self if self.source is None else self.edit(source=self.name)
