"""Text of drawn words and bursts of copying, on which small models grow induction heads, and those models."""

from typing import Literal

from repetita.corpus.sequences import CorpusSpec
from repetita.corpus.synthetic import SyntheticSpec
from repetita.corpus.tokenizer import TokenizerSpec
from repetita.model.config import ModelConfig

Kind = Literal["mlp", "attention_only"]

BURSTS = CorpusSpec(
    source="synthetic",
    synthetic=SyntheticSpec(
        n_documents=13_000,
        n_words=1000,
        vocabulary=64,
        exponent=0.0,
        burst_rate=0.3,
        burst_length=8,
        lag=8,
        lag_max=48,
        echo=0.3,
        sentence_words=0,
    ),
    tokenizer=TokenizerSpec(kind="bpe", vocab_size=480),
    length=64,
)
"""64 words, each one token and equally frequent. Chosen on controls alone, by pilots of one or two seeds: at
one fixed lag, or with lags that end below the distance of the score's copies, heads find what is copied by
its place; without the echo, which pays for looking one token back, they match at other offsets, and what is
read is then not what follows; with rows of 128 tokens nothing formed in 3.3M tokens (docs/log.md)."""

BURSTS_TINY = CorpusSpec(
    source="synthetic",
    synthetic=SyntheticSpec(
        n_documents=150,
        n_words=200,
        vocabulary=32,
        exponent=0.0,
        burst_rate=0.3,
        burst_length=4,
        lag=4,
        lag_max=16,
        echo=0.3,
        sentence_words=0,
    ),
    tokenizer=TokenizerSpec(kind="bytes", vocab_size=257),
    length=128,
)
"""The same for tests, in bytes: no head forms in the steps of a test."""

STEPS = 4000
BATCH = 32
"""4,000 updates of 32 x 64 tokens: 8.2M."""

WIDTHS = {"0.6k": 8, "2.2k": 16, "8.6k": 32, "19k": 48, "34k": 64}
SIZES = tuple(WIDTHS)
"""Models are named by their parameters without embeddings."""

RATES = {"0.6k": 0.008, "2.2k": 0.008, "8.6k": 0.0007, "19k": 0.001, "34k": 0.0015}
"""Peak learning rate by width, chosen on controls by when a head reaches 0.5: at width 64 after about 3,500
steps at 0.004, 2,000 and later at 0.002, 1,300 to 1,500 at 0.0015, and at 0.0007 either after 1,100 or never;
at 48 never within 2,400 at 0.002 and after 1,900 to 2,300 at 0.001; at 32 never within 4,800 at 0.0007. At 8
and 16 the best of three by loss. Wider models (80, 96) read all words near by and form none within 2,400
steps (docs/log.md)."""


def config(
    size: str, *, kind: Kind = "mlp", n_layer: int = 2, corpus: CorpusSpec = BURSTS, n_head: int = 1
) -> ModelConfig:
    """The model of a width: rotary positions and an output matrix of its own, without which nothing formed.

    One head a layer by default: with two the first layer looks back by two different offsets, and the second
    may match one token off, so that no head attends to what follows.
    """
    return ModelConfig(
        n_layer=n_layer,
        d_model=WIDTHS[size],
        n_head=n_head,
        d_mlp=0 if kind == "attention_only" else None,
        vocab_size=corpus.tokenizer.vocab_size,
        context=corpus.length,
        position="rotary",
        output="untied",
    )
