"""ModelConfig, ladders of sizes, parameter and FLOP counts by named convention (torch-free)."""

from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import BeforeValidator, Field, PositiveInt, model_validator

from repetita.corpus.masking import MASK_SHARE
from repetita.errors import SpecError, nearest
from repetita.model.pretrained_spec import PretrainedModel
from repetita.spec import Spec

Position = Literal["learned", "rotary"]
Output = Literal["tied", "untied"]
Objective = Literal["causal", "masked"]
LadderName = Literal["laptop", "hernandez", "tirumala"]


class ModelConfig(Spec):
    """The shape of one transformer: pre-norm, GELU, biases as in GPT-2.

    `d_mlp` is the width of the MLP's hidden layer: None means 4 * d_model (and is settled to that
    number, so that equal models have equal specs), 0 leaves the MLP out (the repeated-data paper's
    attention-only models, its Fig. 19). `context` is the most tokens that a row may hold. `output`
    says whether the output matrix is the token embedding itself; it never has a bias.

    A `masked` model reads in both directions and has what RoBERTa's has beside a causal one: one more
    id, the mask (the last), a norm after the embedding, and a head (dense, GELU, norm) before the
    output matrix.
    """

    n_layer: PositiveInt
    d_model: PositiveInt
    n_head: PositiveInt
    d_mlp: int | None = Field(default=None, ge=0)
    vocab_size: int = Field(ge=2)
    context: PositiveInt
    position: Position = "learned"
    output: Output = "tied"
    objective: Objective = "causal"

    @model_validator(mode="after")
    def _settle(self) -> Self:
        if self.d_model % self.n_head:
            raise SpecError(
                f"ModelConfig: d_model = {self.d_model} is not a multiple of n_head = {self.n_head}; "
                f"give a number of heads that divides the width"
            )
        if self.position == "rotary" and self.d_head % 2:
            raise SpecError(
                f"ModelConfig: rotary positions turn pairs, but d_model / n_head = {self.d_head} is odd; "
                f"give an even width a head or position = 'learned'"
            )
        if self.d_mlp is None:
            object.__setattr__(self, "d_mlp", 4 * self.d_model)
        return self

    @property
    def n_ids(self) -> int:
        """Rows of the embedding: the vocabulary, and in a masked model the mask."""
        return self.vocab_size + (self.objective == "masked")

    @property
    def d_head(self) -> int:
        """Width of one head."""
        return self.d_model // self.n_head

    @property
    def mlp_width(self) -> int:
        """Width of the MLP's hidden layer, 0 where there is none."""
        return 4 * self.d_model if self.d_mlp is None else self.d_mlp


def any_model(values: Any, /) -> Any:
    """A model from JSON types: somebody else's where it has a source or a hash of weights, else ours."""
    if not isinstance(values, dict):
        return values
    return PretrainedModel(**values) if {"sha256", "source"} & set(values) else ModelConfig(**values)


AnyModel = Annotated[ModelConfig | PretrainedModel, BeforeValidator(any_model)]
"""What a run trains: a model of ours from its initial weights, or one that somebody else trained."""


class ParamCount(NamedTuple):
    """Parameters of a model, by named convention; which one is meant belongs on the axis."""

    embedding: int
    """Token embedding, V * D (a masked model: one row more)."""
    position: int
    """Learned position embedding, context * D; 0 with rotary positions."""
    body: int
    """Everything between the embeddings and the output matrix: layers and norms, biases included, and a
    masked model's head."""
    output: int
    """Output matrix, V * D; 0 where it is tied to the embedding."""
    total: int
    """All distinct parameters."""
    non_embedding: int
    """The papers' N: parameters without embeddings and output matrix (equal to `body`)."""
    formula_12ld2: int
    """12 * n_layer * d_model^2: the matrices of the layers alone, for an MLP of width 4 * d_model
    (n_layer * (4 d_model^2 + 2 d_model d_mlp) in general); the count behind "1.57M" and "805M"."""


def count(config: ModelConfig | PretrainedModel) -> ParamCount:
    """Closed-form parameter counts; a test compares them with the real module.

    Those of somebody else's model were counted when its spec was made.
    """
    if isinstance(config, PretrainedModel):
        kinds = (config.embedding, config.position, config.body, config.output)
        return ParamCount(*kinds, total=sum(kinds), non_embedding=config.body, formula_12ld2=config.matrices)
    d, m = config.d_model, config.mlp_width
    matrices = config.n_layer * (4 * d * d + 2 * d * m)
    # Biases: 3 d for q, k, v and d for the projection; a norm has a gain and a bias of d each.
    attention_vectors = 4 * d + 2 * d
    mlp_vectors = m + d + 2 * d if m else 0
    head = d * d + d + 4 * d if config.objective == "masked" else 0
    body = matrices + config.n_layer * (attention_vectors + mlp_vectors) + 2 * d + head
    embedding = config.n_ids * d
    position = config.context * d if config.position == "learned" else 0
    output = embedding if config.output == "untied" else 0
    return ParamCount(
        embedding=embedding,
        position=position,
        body=body,
        output=output,
        total=embedding + position + body + output,
        non_embedding=body,
        formula_12ld2=matrices,
    )


def widened(config: ModelConfig, *, total: int) -> ModelConfig:
    """The same shape with the MLP of the width at which all parameters come nearest to `total`.

    >>> from repetita.model.config import count, ladder, widened
    >>> plain = ladder("laptop", vocab_size=1024, context=128)["100k"]
    >>> larger = plain.edit(vocab_size=1024 + 128)
    >>> widened(plain, total=count(larger).total).d_mlp
    288

    The control of a larger vocabulary: as many parameters more, elsewhere. Raises SpecError where the model
    has no MLP or `total` is out of its reach.
    """
    a_unit = config.n_layer * (2 * config.d_model + 1)
    width = config.mlp_width + round((total - count(config).total) / a_unit)
    if not config.mlp_width or width < 1:
        raise SpecError(
            f"ModelConfig: no width of the MLP (here {config.mlp_width}) makes {total:,} parameters of "
            f"{count(config).total:,}; take a model with an MLP, or another total"
        )
    return config.edit(d_mlp=width)


class FlopCount(NamedTuple):
    """Floating-point operations to train on one token (forward and backward), by named convention."""

    six_n: int
    """6 * N with N the non-embedding parameters: the usual C = 6 N D of scaling laws."""
    kaplan: int
    """Kaplan et al. 2020, section 2.1: 3 * (2 N + 2 n_layer context d_model), N = 12 n_layer d_model^2."""
    matmul: int
    """What the matrix products of this code do in rows of `context` tokens, output matrix included,
    attention counted as if it were not causal. In a masked model all that follows the last attention is
    computed at scored positions only, and its mask is counted as MASK_SHARE of a row."""


def flops_per_token(config: ModelConfig | PretrainedModel) -> FlopCount:
    """Closed-form training FLOPs a token; `matmul` is compared with the real module by a test.

    Of somebody else's model every matrix counts, and attention does not: rows are short beside its context.
    """
    parameters = count(config)
    if isinstance(config, PretrainedModel):
        output = config.vocab_size * config.d_model
        six = 6 * parameters.body
        return FlopCount(six, six, 6 * (parameters.formula_12ld2 + output))
    d, scores = config.d_model, config.n_layer * config.context * config.d_model
    everywhere, scored = float(parameters.formula_12ld2), float(config.n_ids * d)
    if config.objective == "masked":
        last = d * d + 2 * d * config.mlp_width
        everywhere, scored = everywhere - last, MASK_SHARE * (scored + last + d * d)
    return FlopCount(
        six_n=6 * parameters.non_embedding,
        kaplan=3 * (2 * parameters.formula_12ld2 + 2 * scores),
        matmul=round(3 * (2 * everywhere + 4 * scores + 2 * scored)),
    )


# name: (n_layer, d_model, n_head)
_LADDERS: dict[LadderName, dict[str, tuple[int, int, int]]] = {
    # Named by non-embedding parameters. Two layers throughout: width is then the only thing that changes,
    # and the repeated-data paper's own smallest model is 2 x 256, so no size here is wider than that family.
    "laptop": {
        "3.8k": (2, 12, 2),
        "6.6k": (2, 16, 2),
        "14k": (2, 24, 2),
        "25k": (2, 32, 2),
        "57k": (2, 48, 2),
        "100k": (2, 64, 2),
        "220k": (2, 96, 3),
        "400k": (2, 128, 4),
        "890k": (2, 192, 6),
    },
    # Hernandez et al. 2022, section 2 with Olsson et al. 2022: d_model = 128 n_layer, heads of 64;
    # named by 12 n_layer d_model^2 as the papers print it.
    "hernandez": {
        "1.57M": (2, 256, 4),
        "5.3M": (3, 384, 6),
        "13M": (4, 512, 8),
        "42M": (6, 768, 12),
        "101M": (8, 1024, 16),
        "200M": (10, 1280, 20),
        "340M": (12, 1536, 24),
        "805M": (16, 2048, 32),
    },
    # Tirumala et al. 2022, Table 1 (appendix A.4); names as printed there, embeddings included.
    "tirumala": {
        "125M": (12, 768, 12),
        "355M": (24, 1024, 16),
        "1.3B": (24, 2048, 32),
        "2.7B": (32, 2560, 32),
        "6.7B": (32, 4096, 32),
        "13B": (40, 5120, 40),
    },
}


def ladder(
    name: str,
    *,
    vocab_size: int,
    context: int,
    position: Position = "learned",
    output: Output = "tied",
    objective: Objective = "causal",
) -> dict[str, ModelConfig]:
    """The sizes of a family, smallest first, by human name.

    >>> from repetita import ladder
    >>> ladder("laptop", vocab_size=1024, context=128)["25k"].d_model
    32

    `laptop`: 3.8k to 890k non-embedding parameters, made for two CPU cores. `hernandez`: the
    repeated-data paper's family. `tirumala`: the memorization paper's Table 1. Raises SpecError for
    another name.
    """
    for known, shapes in _LADDERS.items():
        if known == name:
            return {
                size: ModelConfig(
                    n_layer=n_layer,
                    d_model=d_model,
                    n_head=n_head,
                    vocab_size=vocab_size,
                    context=context,
                    position=position,
                    output=output,
                    objective=objective,
                )
                for size, (n_layer, d_model, n_head) in shapes.items()
            }
    raise SpecError(f"no ladder of sizes is named '{name}'; {nearest(name, _LADDERS)}")
