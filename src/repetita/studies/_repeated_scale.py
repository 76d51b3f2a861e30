"""The repeated-data paper's own configuration, and one for a single GPU: text, models, batches and recipe."""

import math
from fractions import Fraction
from typing import Literal

from repetita.corpus.sequences import CorpusSpec
from repetita.corpus.splits import Splits
from repetita.corpus.tokenizer import TokenizerSpec
from repetita.model.config import ModelConfig, count, ladder
from repetita.study.plan import Expected
from repetita.train.recipe import Recipe

Kind = Literal["mlp", "attention_only"]

GPT2 = TokenizerSpec(kind="hf", source="hf:openai-community/gpt2", vocab_size=50_258)
"""GPT-2's encoding (section 2.1), whose ids are moved up by one here."""
VOCAB_SIZE = 50_304
"""Rows of the paper's embedding: GPT-2's vocabulary, rounded up."""
CONTEXT = 8192

TEXT = CorpusSpec(
    source="hf:HuggingFaceFW/fineweb",
    subset="sample-350BT",
    tokenizer=GPT2,
    length=CONTEXT,
    splits=Splits(test="0.0005"),
)
"""The paper's text (400B tokens, 55% of them filtered Common Crawl, 32% books) was never released. This one
is filtered Common Crawl, 350B tokens in the same encoding, of which 100B are read once."""
CODE = CorpusSpec(
    source="hf:codeparrot/codeparrot-clean",
    text_field="content",
    tokenizer=GPT2,
    length=CONTEXT,
    splits=Splits(test="0.01"),
)
"""Python files, 50 GB: 18B tokens at an assumed 2.8 bytes a token. The paper has 45B, read 2.2 times."""

POOLS = {"train": 42_720_000, "test": 21_000}
"""Sequences of each set of `TEXT`, from 350B tokens: what planning takes where the text is not there."""
CODE_POOLS = {"train": 2_170_000, "test": 22_000}

SIZES = ("1.57M", "5.3M", "13M", "42M", "101M", "200M", "340M", "805M")
"""Non-embedding parameters, 12 L (128 L)^2, smallest first (section 2.4). All eight are the family's; which
of the middle ones the paper ran is not in its text."""

BELOW = {"25k": (2, 32, 1), "104k": (2, 64, 1), "0.40M": (2, 128, 2)}
"""(layers, width, heads) of controls under the family: the law must reach 30 times below the smallest treated
size (experiment design, rule 23), where the paper extrapolates."""

BATCH_SIZE = 128
"""Sequences of 8,192 tokens: 2^20 tokens a step, that of the same code base (Olsson et al. 2022)."""
STEPS = 93_750
"""12,000,000 sequences, 98.3B tokens: the nearest to 100B at which every S below is read a whole number of
times where that is under 20. Passes are 1.7% below the paper's 122, 1,220 and 12,200."""
CODE_STEPS = 15_625
"""2,000,000 sequences, 16.4B tokens: one reading of `CODE`."""
WARMUP_STEPS = 1431
"""1.5B tokens (Olsson et al. 2022, the small models)."""

FRACTIONS = tuple(Fraction(hundredths, 100) for hundredths in (1, 3, 10, 20, 50, 90))
SUBSETS = (30_000, 10_000, 3_000, 1_000, 300, 100)
"""Sequences of the repeated subset: six half-decade points, inferred from the passes that the paper names."""
TEST_SEQUENCES = 1_200
"""Sequences of the final test loss, 9.8M tokens: the paper does not state its own."""


def config(size: str, *, kind: Kind = "mlp") -> ModelConfig:
    """The model of a size name: d = 128 L, heads of 64, full attention (the paper's are partly banded)."""
    if size in BELOW:
        n_layer, d_model, n_head = BELOW[size]
        model = ModelConfig(
            n_layer=n_layer, d_model=d_model, n_head=n_head, vocab_size=VOCAB_SIZE, context=CONTEXT
        )
    else:
        model = ladder("hernandez", vocab_size=VOCAB_SIZE, context=CONTEXT)[size]
    return model if kind == "mlp" else model.edit(d_mlp=0)


def attention_only(n_layer: int, *, vocab_size: int = VOCAB_SIZE, context: int = CONTEXT) -> ModelConfig:
    """One or two layers without MLP, as wide as those of Olsson et al. 2022; the paper does not state its
    width."""
    return ModelConfig(
        n_layer=n_layer, d_model=768, n_head=12, d_mlp=0, vocab_size=vocab_size, context=context
    )


def rate(model: ModelConfig) -> float:
    """Peak learning rate: 0.003239 - 0.0001395 ln N (Kaplan et al. 2020, appendix D.6).

    The paper states none; this one was fitted to models of this range of sizes.
    """
    return round(0.003239 - 0.0001395 * math.log(count(model).formula_12ld2), 6)


def recipe(model: ModelConfig, *, steps: int = STEPS) -> Recipe:
    """Adam with warm-up and a cosine to a tenth at the end of the run: the paper states none."""
    return Recipe(
        learning_rate=rate(model), warmup_steps=min(WARMUP_STEPS, steps // 5), curve="cosine", beta2=0.95
    )


GPU_TEXT = CorpusSpec(
    source="hf:Salesforce/wikitext",
    subset="wikitext-103-raw-v1",
    tokenizer=TokenizerSpec(kind="bpe", vocab_size=8192),
    length=512,
    splits=Splits(test="0.02"),
)
"""WikiText-103: the texts that come with the package are too short for models of millions of parameters that
read everything once."""
GPU_POOLS = {"train": 240_000, "test": 4_900}
"""Sequences of each set: 540 MB at an assumed 4.3 bytes a token."""

EXPECTED = (Expected(TEXT, POOLS), Expected(CODE, CODE_POOLS), Expected(GPU_TEXT, GPU_POOLS))
"""What a study with runs of these configurations states of its texts."""

GPU_SHAPES = {
    "28k": (2, 32, 1), "104k": (2, 64, 1), "0.40M": (2, 128, 2), "1.6M": (2, 256, 4), "5.3M": (3, 384, 6),
    "13M": (4, 512, 8), "43M": (6, 768, 12),
}  # fmt: skip
"""(layers, width, heads): the paper's family up to 43M, and below it controls for the worst losses."""
GPU_TREATED = ("1.6M", "5.3M", "13M")
GPU_BATCH_SIZE = 64
GPU_STEPS = 3_000
"""192,000 sequences, 98.3M tokens, read once; 8 to 62 tokens a parameter at the treated sizes."""
GPU_WARMUP_STEPS = 200
GPU_PASSES = (10, 32, 100, 320, 1000, 3200)


def gpu_config(size: str, *, kind: Kind = "mlp", corpus: CorpusSpec = GPU_TEXT) -> ModelConfig:
    """The model of a size name of `GPU_SHAPES`: tied output, learned positions."""
    n_layer, d_model, n_head = GPU_SHAPES[size]
    return ModelConfig(
        n_layer=n_layer,
        d_model=d_model,
        n_head=n_head,
        d_mlp=None if kind == "mlp" else 0,
        vocab_size=corpus.tokenizer.vocab_size,
        context=corpus.length,
    )


def gpu_recipe(model: ModelConfig, *, steps: int = GPU_STEPS) -> Recipe:
    """Cosine from a peak that falls as 1 / width, 0.0012 at 256, at most 0.004. A free choice, not tuned."""
    peak = round(min(0.004, 1.2e-3 * 256 / model.d_model), 6)
    return Recipe(learning_rate=peak, warmup_steps=min(GPU_WARMUP_STEPS, steps // 5), curve="cosine")


def gpu_subset(fraction: Fraction, *, passes: int) -> int:
    """Sequences that a share of a run of `GPU_STEPS` reads about so often, exactly so under 20 passes."""
    return round(fraction * GPU_STEPS * GPU_BATCH_SIZE / passes)
