"""Exported models: the logits, ids and texts of ours from another library alone."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from repetita.corpus.tokenizer import (
    END_OF_TEXT,
    BPETokenizer,
    ByteTokenizer,
    PretrainedTokenizer,
    Tokenizer,
    TokenizerSpec,
    train_tokenizer,
)
from repetita.errors import SpecError, StorageError
from repetita.model.config import ModelConfig
from repetita.model.export import Exported, architecture, export
from repetita.model.exported_tokenizer import ABSENT, exchange
from repetita.model.transformer import Transformer
from tests.model.test_transformer import lively

TEXT = f"The  cat sat,\n\n\tdéjà vu 東京 🙂 of [MASK] and <mask> <pad> {END_OF_TEXT} ends"
PLAIN = "The  cat sat,\n\n\tdéjà vu 東京 🙂 of it"


def bpe() -> Tokenizer:
    return train_tokenizer(TokenizerSpec(vocab_size=280), texts=[PLAIN * 9, "the cat and the hat " * 9])


def hf(*specials: str) -> PretrainedTokenizer:
    """A library's tokenizer with its special tokens first, as BERT's and RoBERTa's have them."""
    from tokenizers import Tokenizer as Library
    from tokenizers import models, pre_tokenizers

    known = [*specials, "[UNK]", "The", "cat", "sat", "of", "it", END_OF_TEXT]
    library = Library(models.WordLevel({word: i for i, word in enumerate(known)}, unk_token="[UNK]"))
    library.pre_tokenizer = pre_tokenizers.Whitespace()
    library.add_special_tokens([*specials, "[UNK]", END_OF_TEXT])
    content = json.loads(library.to_str())
    return PretrainedTokenizer(json.dumps({"repetita": "hf", "tokenizer": content}), lossless=False)


def made(tokenizer: Tokenizer, **changes: Any) -> Transformer:
    shape: dict[str, Any] = {"n_layer": 2, "d_model": 16, "n_head": 2, "context": 40}
    shape |= {"vocab_size": tokenizer.vocab_size} | changes
    return lively(Transformer(ModelConfig(**shape), seed=0))


CAUSAL = [
    {"position": position, "output": output, "d_mlp": d_mlp}
    for position in ("learned", "rotary")
    for output in ("tied", "untied")
    for d_mlp in (None, 0)
]
MASKED = [
    {"objective": "masked", "output": "tied", "d_mlp": None},
    {"objective": "masked", "output": "untied", "d_mlp": 0},
]


@torch.no_grad()
def logits(model: Transformer, tokens: Tensor) -> Tensor:
    return model.hidden(tokens) @ model.output_weight.T


@pytest.mark.parametrize("shape", [*CAUSAL, *MASKED])
def test_logits_are_equal(tmp_path: Path, shape: dict[str, Any]) -> None:
    from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

    tokenizer = ByteTokenizer()
    model = made(tokenizer, **shape)
    state = torch.get_rng_state()
    done = export(model, tokenizer=tokenizer, to=tmp_path / "out")
    assert torch.equal(state, torch.get_rng_state()), "the global generator is left alone"
    assert done.path == tmp_path / "out" and done.difference < 1e-5
    auto: Any = AutoModelForMaskedLM if model.mask_id else AutoModelForCausalLM
    theirs = auto.from_pretrained(done.path)
    assert type(theirs).__name__ == done.architecture == architecture(model.config)
    ids = exchange(tokenizer, config=model.config).ids
    place = {int(own): at for at, own in enumerate(ids)}
    rows = np.random.default_rng(0).integers(1, model.config.n_ids, (3, 40))
    rows[:, 11], rows[:, 12] = 0, 0  # Separators inside a row are read as any token.
    given = torch.tensor([[place[int(own)] for own in row] for row in rows])
    with torch.no_grad():
        found = theirs(given).logits
    known = torch.from_numpy(ids != ABSENT)
    expected = logits(model, torch.from_numpy(rows))
    torch.testing.assert_close(found[..., known], expected[..., ids[ids != ABSENT]], rtol=0, atol=1e-5)
    # Nothing is left for tokens that are not ours.
    ours = expected.log_softmax(-1)[..., ids[ids != ABSENT]]
    torch.testing.assert_close(found.log_softmax(-1)[..., known], ours, rtol=0, atol=1e-5)


@pytest.mark.parametrize("objective", ["causal", "masked"])
def test_padding_changes_nothing(tmp_path: Path, objective: str) -> None:
    from transformers import AutoModel, AutoTokenizer

    model = made(bpe(), objective=objective)
    path = export(model, tokenizer=bpe(), to=tmp_path / "out").path
    core, tokenizer = AutoModel.from_pretrained(path), AutoTokenizer.from_pretrained(path)
    both = tokenizer(["of it", PLAIN], padding=True, return_tensors="pt")
    alone = tokenizer(["of it"], return_tensors="pt")
    n = alone["input_ids"].shape[1]
    assert both["input_ids"].shape[1] > n
    with torch.no_grad():
        padded = core(**{name: both[name] for name in ("input_ids", "attention_mask")}).last_hidden_state
        short = core(input_ids=alone["input_ids"]).last_hidden_state
    torch.testing.assert_close(padded[0, :n], short[0])


@pytest.mark.parametrize("kind", ["bytes", "bpe", "hf", "hf-bare"])
@pytest.mark.parametrize("objective", ["causal", "masked"])
def test_text_has_our_ids(tmp_path: Path, kind: str, objective: str) -> None:
    from transformers import AutoTokenizer

    own: Tokenizer = ByteTokenizer() if kind == "bytes" else bpe()
    if kind.startswith("hf"):
        own = hf(*(() if kind == "hf-bare" else ("[CLS]", "[PAD]", "[MASK]")))
    model = made(own, objective=objective, vocab_size=own.vocab_size + 3)
    done = export(model, tokenizer=own, to=tmp_path / "out")
    theirs, exchanged = AutoTokenizer.from_pretrained(done.path), exchange(own, config=model.config)
    shift = int(kind.startswith("hf"))
    text = TEXT if objective == "causal" else PLAIN
    bare = theirs(text, add_special_tokens=False)["input_ids"]
    assert bare == (own.encode(text) - shift).tolist()
    assert exchanged.ids[bare].tolist() == own.encode(text).tolist()
    whole = theirs(text)["input_ids"]
    if objective == "causal":
        assert whole == [exchanged.start, *bare], "rows begin with the start token"
        assert theirs.bos_token_id == theirs.eos_token_id == theirs.pad_token_id == exchanged.start
        assert theirs.bos_token_id not in bare
    else:
        assert whole == bare
        assert theirs(f"cat{theirs.mask_token}", add_special_tokens=False)["input_ids"][-1] == exchanged.mask
        assert exchanged.ids[exchanged.mask] == model.mask_id
        assert exchanged.pad not in bare and exchanged.pad != exchanged.start
        assert exchanged.pad == {"hf-bare": 6}.get(kind, 0), "the lowest id that no text has"
    assert exchanged.ids[exchanged.start] == 0
    if isinstance(own, ByteTokenizer | BPETokenizer):
        assert theirs.decode(bare) == text
    # Ids of the model beyond the tokenizer (those of documents) stand last, in their order.
    assert exchanged.ids[-3:].tolist() == [own.vocab_size + i for i in range(3)]


def test_positions_up_to_the_context(tmp_path: Path) -> None:
    """Rotary frequencies are rounded otherwise in transformers, which is felt far from the start."""
    model = made(ByteTokenizer(), position="rotary", context=512)
    assert export(model, tokenizer=ByteTokenizer(), to=tmp_path / "out").difference < 1e-4


@pytest.mark.slow
@pytest.mark.ci
def test_it_opens_without_this_package(tmp_path: Path) -> None:
    path = export(made(bpe()), tokenizer=bpe(), to=tmp_path / "out", card="# A model\n").path
    script = f"""
import sys
sys.modules["repetita"] = None
from transformers import AutoModelForCausalLM, AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained({str(path)!r})
model = AutoModelForCausalLM.from_pretrained({str(path)!r})
said = model.generate(**tokenizer("The cat", return_tensors="pt"), max_new_tokens=5, do_sample=False)
print(len(tokenizer.decode(said[0], skip_special_tokens=True)) > 6)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path, check=True
    )
    assert done.stdout.strip() == "True"


def test_what_no_class_holds_is_refused_in_one_sentence(tmp_path: Path) -> None:
    model = made(ByteTokenizer(), objective="masked", position="rotary")
    with pytest.raises(SpecError, match="masked model with rotary positions cannot be exported"):
        export(model, tokenizer=ByteTokenizer(), to=tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_nothing_is_overwritten_or_left_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = made(ByteTokenizer())
    (tmp_path / "out").mkdir()
    with pytest.raises(SpecError, match="is there already"):
        export(model, tokenizer=ByteTokenizer(), to=tmp_path / "out")
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="a part of the path is a file"):
        export(model, tokenizer=ByteTokenizer(), to=tmp_path / "file" / "out")

    def fail(*_: object) -> float:
        raise KeyboardInterrupt

    monkeypatch.setattr("repetita.model.export._difference", fail)
    with pytest.raises(KeyboardInterrupt):
        export(model, tokenizer=ByteTokenizer(), to=tmp_path / "other")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["file", "out"]


def test_what_is_written_is_told(tmp_path: Path) -> None:
    done = export(made(ByteTokenizer()), tokenizer=ByteTokenizer(), to=tmp_path / "a" / "out", card="# Hi\n")
    assert isinstance(done, Exported)
    names = {file.name for file in done.path.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "README.md"} <= names
    assert (done.path / "README.md").read_text() == "# Hi\n"
    config = json.loads((done.path / "config.json").read_text())
    assert config["architectures"] == ["GPT2LMHeadModel"] and str(tmp_path) not in json.dumps(config)
