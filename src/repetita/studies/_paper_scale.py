"""The memorization paper's own configuration: corpus, models, batches and recipe of its Table 1."""

from typing import Literal

from repetita.corpus.sequences import CorpusSpec
from repetita.corpus.splits import Splits
from repetita.corpus.tokenizer import TokenizerSpec
from repetita.model.config import ModelConfig, Objective, ladder
from repetita.study.plan import Expected
from repetita.train.recipe import Recipe

Size = Literal["125M", "355M", "1.3B", "2.7B", "6.7B", "13B"]

SIZES: tuple[Size, ...] = ("125M", "355M", "1.3B", "2.7B", "6.7B", "13B")
"""Names as the paper prints them, embeddings included, smallest first."""

WIKITEXT = CorpusSpec(
    source="hf:Salesforce/wikitext",
    subset="wikitext-103-raw-v1",
    tokenizer=TokenizerSpec(kind="bpe", vocab_size=50_257),
    length=512,
    breaks="sentence",
    splits=Splits(test="0.002", special="0.002", twin="0.002", placebo="0.002", novel="0.1"),
)
"""WikiText-103 in sequences of at most 512 tokens broken at sentences (section 3.3). The paper does not name
its tokenizer; one of GPT-2's size is trained on the text."""

SEQUENCES = 240_000
"""Sequences of a pass: 103.2M tokens at 430.12 a sequence (appendix A.3)."""

VALIDATION_SEQUENCES = 506
"""The validation set, 217,646 tokens: the paper's special batch."""

POOLS = {"train": 240_000, "test": 506, "special": 506, "twin": 506, "placebo": 506, "novel": 26_600}
"""Sequences of each set, worked out from the shares: what planning takes where the text is not there."""

EXPECTED = (Expected(WIKITEXT, POOLS),)
"""What a study with runs of this configuration states of its text."""

RATES: dict[Size, float] = {
    "125M": 6.0e-4, "355M": 3.0e-4, "1.3B": 2.0e-4, "2.7B": 1.6e-4, "6.7B": 1.2e-4, "13B": 1.0e-4,
}  # fmt: skip
"""Peak learning rate by size (Table 1)."""

BATCH_SIZES: dict[Size, int] = {
    "125M": 1024, "355M": 1024, "1.3B": 2048, "2.7B": 2048, "6.7B": 4096, "13B": 4096,
}  # fmt: skip
"""Sequences of 512 tokens a batch: 0.5M, 1M and 2M tokens (Table 1)."""

WARMUP_TOKENS = 375_000_000
CAUSAL_TOKENS = 100_000_000_000
"""Tokens at which the learning rate reaches zero, causal models on WikiText-103 (section 3.2)."""
MASKED_TOKENS = 300_000_000_000
"""The same for masked models and for the larger corpus."""


def config(size: Size, *, objective: Objective = "causal", corpus: CorpusSpec = WIKITEXT) -> ModelConfig:
    """The model of Table 1 by its name."""
    sizes = ladder(
        "tirumala", vocab_size=corpus.tokenizer.vocab_size, context=corpus.length, objective=objective
    )
    return sizes[size]


def recipe(size: Size, *, tokens: int = CAUSAL_TOKENS, rate: float | None = None) -> Recipe:
    """Adam 0.9/0.98 without decay or dropout: warm-up over 375M tokens, then linear to zero at `tokens`.

    `rate` replaces the peak rate of Table 1.
    """
    per_step = BATCH_SIZES[size] * WIKITEXT.length
    return Recipe(
        learning_rate=RATES[size] if rate is None else rate,
        warmup_steps=round(WARMUP_TOKENS / per_step),
        curve="linear",
        horizon=round(tokens / per_step),
        final_share=0.0,
    )


def steps(passes: float, *, size: Size, n_sequences: int = SEQUENCES) -> int:
    """Updates in this many passes over a set."""
    return max(1, round(passes * n_sequences / BATCH_SIZES[size]))
