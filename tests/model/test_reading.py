"""Texts read for tiny models of transformers give what transformers itself gives, text by text."""

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tokenizers
import torch
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors
from torch.nn.functional import log_softmax

from repetita.corpus.masking import measuring_masks
from repetita.corpus.reading_rule import ReadingRule
from repetita.corpus.source import Document
from repetita.corpus.windows import Windows
from repetita.measure.membership import MembershipProbe
from repetita.measure.memorization import ScoreProbe
from repetita.measure.probe import EvalSet
from repetita.model.answering import Answering
from repetita.model.foreign import Foreign
from repetita.model.memory import Batches
from repetita.model.pretrained_tokenizing import HfTokenizing
from tests.model.strangers import stranger

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TEXTS = ("Ähm, a band aid, a bad cab.  Bad!", "ad", "a cab bad a cab", " b")
CPU = torch.device("cpu")


def tokenizing(kind: str) -> HfTokenizing:
    """Real tokenizers of three kinds: bytes as GPT-2 has them, SentencePiece as Llama, WordPiece as BERT."""
    from transformers import PreTrainedTokenizerFast

    specials = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
    if kind == "wordpiece":
        pieces = [
            "<pad>",
            "[CLS]",
            "[SEP]",
            "[MASK]",
            "[UNK]",
            "a",
            "b",
            "c",
            "##b",
            "##a",
            "##d",
            "bad",
            ".",
            ",",
        ]
        library = tokenizers.Tokenizer(
            models.WordPiece({p: i for i, p in enumerate(pieces)}, unk_token="[UNK]")
        )
        library.normalizer = normalizers.BertNormalizer(lowercase=True)
        library.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        library.decoder = decoders.WordPiece()
        library.post_processor = processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
        specials = {"mask_token": "[MASK]", "unk_token": "[UNK]", "pad_token": "<pad>"}
    else:
        heads = ["<pad>", "<s>", "</s>"]
        if kind == "bytes":
            alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
            vocabulary = [*heads, *alphabet, "ba", "ad", "bad"]
            library = tokenizers.Tokenizer(
                models.BPE(_ids(vocabulary), [("b", "a"), ("a", "d"), ("b", "ad")])
            )
            library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
            library.decoder = decoders.ByteLevel()
        else:
            letters = sorted(set("".join(TEXTS) + "".join(TEXTS).lower()) - {" "})
            falling = [f"<0x{byte:02X}>" for byte in range(256)]
            vocabulary = [*heads, *falling, "\u2581", *letters, "\u2581a", "ba"]
            merges = [("\u2581", "a"), ("b", "a")]
            library = tokenizers.Tokenizer(models.BPE(_ids(vocabulary), merges, byte_fallback=True))
            library.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
            library.decoder = decoders.Metaspace(prepend_scheme="first")
    kinds: Any = PreTrainedTokenizerFast
    fast = kinds(tokenizer_object=library, **specials)
    return HfTokenizing(fast, masked=kind == "wordpiece", name=kind)


def _ids(vocabulary: list[str]) -> dict[str, int]:
    return {piece: i for i, piece in enumerate(vocabulary)}


def subject(model: "PreTrainedModel", of: HfTokenizing) -> Answering:
    readout = Foreign(model, device=CPU, mask_id=of.mask_id, pad_id=None if of.mask_id is None else of.pad_id)
    return Answering(readout, batches=Batches(CPU, tokens=64))


def read(of: HfTokenizing, **rule: Any) -> EvalSet:
    documents = [Document(text, f"text{i}", "", None) for i, text in enumerate(TEXTS)]
    return EvalSet.whole("texts", sequences=Windows(documents, tokenizing=of, rule=ReadingRule(**rule)))


def by_text(model: "PreTrainedModel", ids: list[int], *, start: int, window: int) -> torch.Tensor:
    """Log probabilities (n V) at each token of a text: transformers on one unpadded window at a time, as
    lm-evaluation-harness rolls them."""
    found, done, stream = [], 0, [start, *ids]
    while done < len(ids):
        end = min(done + window, len(ids))
        logits = model(input_ids=torch.tensor([stream[max(end - window, 0) : end]])).logits[0]
        found.append(log_softmax(logits[-(end - done) :], dim=-1))
        done = end
    return torch.cat(found)


@torch.no_grad()
@pytest.mark.parametrize(("kind", "architecture"), [("bytes", "gpt2"), ("metaspace", "llama")])
def test_losses_are_those_of_transformers_window_by_window(kind: str, architecture: str) -> None:
    of = tokenizing(kind)
    model, over = stranger(architecture, vocab_size=of.vocab_size), read(of, window=7)
    windows = over.sequences
    assert isinstance(windows, Windows)
    assert any(windows.n_tokens % 7) and windows.n_tokens.max() > 14
    probe, asked = MembershipProbe(on=("texts",)), subject(model, of)
    found = {reading.metric: reading for reading in probe.measure(asked, {"texts": over})}
    items = found["loss"].items
    assert items is not None
    for i, text in enumerate(TEXTS):
        ids = of.encode_all([text])[0].ids.tolist()
        assert of.decode(ids).lstrip() == text.lstrip()
        log_p = by_text(model, ids, start=1, window=7)
        own = log_p.gather(1, torch.tensor(ids)[:, None])[:, 0]
        # Zhang et al. 2024, as its authors compute it.
        mu = (log_p.exp() * log_p).sum(-1)
        sigma = (log_p.exp() * log_p.square()).sum(-1) - mu.square()
        z = ((own - mu) / sigma.sqrt()).sort().values
        n = max(1, len(ids) // 5)
        assert items["nats"][i] == pytest.approx(-float(own.sum()), rel=1e-4)
        assert items["min_k_20"][i] == pytest.approx(float(own.sort().values[:n].mean()), rel=1e-4)
        assert items["min_k_plus_20"][i] == pytest.approx(float(z[:n].mean()), rel=1e-3)
    scores = {r.metric: r for r in ScoreProbe(on=("texts",)).measure(asked, {"texts": over})}
    n_bytes = sum(len(text.encode()) for text in TEXTS)
    assert scores["bits_per_byte"].value == pytest.approx(
        items["nats"].sum() / math.log(2) / n_bytes, rel=1e-5
    )
    assert scores["bits_per_byte"].detail == {"bytes": n_bytes}


@torch.no_grad()
def test_a_masked_model_reads_no_padding() -> None:
    """Short and long texts in one batch: each position is scored as if its text were alone."""
    of = tokenizing("wordpiece")
    model, over = stranger("bert", vocab_size=of.vocab_size), read(of, window=9)
    assert (of.before, of.behind, of.mask_id) == ((1,), (2,), 3)
    rows = over.sequences.rows(over.indices)
    asked, total, n = subject(model, of), 0.0, 0
    for question in measuring_masks(rows, mask_id=3, name="texts", indices=over.indices):
        for tokens, targets, scored in zip(*question, strict=True):
            read_here = tokens[: int(np.flatnonzero(targets == 2)[-1]) + 1]
            log_p = log_softmax(model(input_ids=torch.tensor(read_here[None])).logits[0], dim=-1)
            at = np.flatnonzero(scored)
            total, n = total - float(log_p[at, targets[at]].sum()), n + len(at)
    found = {r.metric: r for r in ScoreProbe(on=("texts",)).measure(asked, {"texts": over})}
    assert n == sum(len(of.encode_all([text])[0].ids) for text in TEXTS)
    assert found["loss"].n == n and found["loss"].value == pytest.approx(total / n, rel=1e-4)
    # What a tokenizer lost has no bytes.
    assert found["bits_per_byte"].value is None
