"""A second model beside the subjects of an audit: what a text costs it over what it costs each of them."""

from typing import TYPE_CHECKING

from repetita.corpus.reading_rule import ResolvedRule
from repetita.errors import SpecError
from repetita.measure.membership import PROXY

if TYPE_CHECKING:
    import polars as pl

METRIC = "membership_reference"
RATIO = "reference"
"""Stands for the probe in its rows, which are not kept: they follow from those of both models."""


def reference_rows(
    own: "pl.DataFrame", /, *, reference: "pl.DataFrame", score: str, label: str, note: str = PROXY
) -> "pl.DataFrame":
    """The reference ratio of each text: nats that the reference needs for it over those of the subject.

    Above 1 where the subject finds a text easier; a membership score (Carlini et al. 2021, section 5.2, with
    a smaller model as the reference). Nats of the whole text, since each model reads it in its own tokens.
    `own` and `reference`: rows of two stores (`audit_table.COLUMNS`); `score`: the key of the probe whose
    losses are compared; `label`: what the reference is called, as `on`. A text of which either has no loss,
    or the subject one of 0, has no value.
    """
    import polars as pl

    def losses(rows: pl.DataFrame) -> pl.DataFrame:
        return rows.filter(pl.col("probe") == score, pl.col("metric") == "loss")

    other = losses(reference).select("text", pl.col("total").alias("nats"))
    ratio = pl.when(pl.col("total") > 0).then(pl.col("nats") / pl.col("total"))
    known = pl.col("value").is_not_null()
    return (
        losses(own)
        .join(other, on="text", how="left", maintain_order="left")
        .with_columns(
            pl.lit(METRIC).alias("metric"),
            pl.lit(label).alias("on"),
            pl.lit(RATIO).alias("probe"),
            pl.lit("membership").alias("instrument"),
            pl.lit("texts").alias("unit"),
            ratio.alias("value"),
        )
        .with_columns(
            known.cast(pl.Int64).alias("n"),
            pl.col("value").alias("total"),
            pl.when(known).then(pl.lit(note)).otherwise(pl.lit("no loss of this text in both models"))
            .alias("note"),
        )
        .select(own.columns)
    )  # fmt: skip


def compared(own: ResolvedRule, /, *, reference: ResolvedRule, label: str) -> str:
    """What is to be said of the ratios of two models that read by these rules.

    Raises SpecError where one of them is masked and the other is not: their losses are of different things.
    """
    if own.masked != reference.masked:
        kinds = ("masked", "causal") if reference.masked else ("causal", "masked")
        raise SpecError(
            f"the reference {label} is {kinds[0]} and a subject is {kinds[1]}, so that their losses do not "
            f"compare; give a {kinds[1]} model as reference"
        )
    if own.first_scored and reference.first_scored:
        return PROXY
    return f"{PROXY}; the first token of a text is not in it (no start token)"
