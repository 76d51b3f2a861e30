"""Folders of tiny models of transformers with random weights and a byte-level tokenizer of their own."""

from pathlib import Path
from typing import Any

import torch

from repetita.corpus.pretrained_tokenizer import hf_tokenizer_spec
from repetita.corpus.sequences import Corpus, CorpusSpec, open_corpus
from repetita.corpus.splits import Splits
from repetita.corpus.synthetic import SyntheticSpec
from repetita.corpus.tokenizer import byte_alphabet
from repetita.corpus.treatment import RepeatedSubset
from repetita.model.adopted import pretrained_model
from repetita.train.recipe import Recipe, RunSpec
from tests.model.strangers import stranger

SPECIAL = ("<s>", "[PAD]", "[SEP]", "[MASK]")
"""Ids 256 and up; the model has rows for more ids than the tokenizer."""

START, PAD, SEPARATOR, MASK = range(256, 260)

LENGTH, CONTEXT = 16, 96


def save_tokenizer(folder: Path, *, masked: bool = False) -> None:
    """Bytes as a fast tokenizer, 256 of them and the special tokens."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    library = Tokenizer(models.BPE(dict(byte_alphabet()), []))
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    library.decoder = decoders.ByteLevel()
    library.add_special_tokens([AddedToken(name, normalized=False) for name in SPECIAL])
    names = {"pad_token": "[PAD]", "mask_token": "[MASK]"} if masked else {"bos_token": "<s>"}
    if masked:
        library.post_processor = processors.TemplateProcessing(
            single="<s> $A [SEP]", special_tokens=[("<s>", START), ("[SEP]", SEPARATOR)]
        )
    fast: Any = PreTrainedTokenizerFast
    fast(tokenizer_object=library, **names).save_pretrained(str(folder))


def save_model(folder: Path, kind: str, *, scale: float = 0.3, **other: Any) -> Path:
    """A model of this kind with its tokenizer; dropout as its config has it by default."""
    settings: dict[str, Any] = {"vocab_size": 264, "max_position_embeddings": CONTEXT}
    settings |= {"bos_token_id": START, "eos_token_id": START, "pad_token_id": PAD}
    model = stranger(kind, **settings, **other)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(scale if parameter.ndim > 1 else 1.0)
    model.save_pretrained(str(folder))
    save_tokenizer(folder, masked=kind == "bert")
    return folder


def spec_of(folder: Path, *, recipe: dict[str, Any] | None = None, **changes: Any) -> RunSpec:
    """A run of twelve steps with a repeated share, from the model in a folder."""
    corpus = CorpusSpec(
        source="synthetic",
        synthetic=SyntheticSpec(n_documents=150, n_words=4),
        tokenizer=hf_tokenizer_spec(str(folder)),
        length=LENGTH,
        splits=Splits(test="1/10"),
    )
    values: dict[str, Any] = {
        "corpus": corpus,
        "model": pretrained_model(folder),
        "treatment": RepeatedSubset(fraction="1/2", passes=2),
        "steps": 12,
        "batch_size": 4,
        "recipe": Recipe(**({"learning_rate": 1e-3, "warmup_steps": 3} | (recipe or {}))),
    }
    return RunSpec(**(values | changes))


def corpus_of(spec: RunSpec, root: Path) -> Corpus:
    """The corpus of a run, built below `root`."""
    return open_corpus(spec.corpus, cache=root / "corpora")
