"""A GGUF file is read as the model that it holds, tokenizer included, where its library is there."""

import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from repetita.errors import DamagedError, SpecError
from repetita.model.pretrained import open_pretrained
from repetita.subject import Rows
from tests.model.packed import SYMBOLS, write_packed


def test_without_its_library_a_gguf_file_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transformers.modeling_gguf_pytorch_utils.is_gguf_available", lambda *_: False)
    # Of version 3, without tensors, with one field: text (8), which names the architecture.
    key, value = b"general.architecture", b"llama"
    field = struct.pack("<Q", len(key)) + key + struct.pack("<IQ", 8, len(value)) + value
    (tmp_path / "geese.gguf").write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + field)
    with pytest.raises(SpecError, match=r"geese\.gguf needs a package .*pip install 'repetita\[hf\]'"):
        open_pretrained(tmp_path / "geese.gguf")


def test_a_file_that_is_no_gguf_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "geese.gguf").write_bytes(b"honk")
    with pytest.raises(SpecError, match=r"(geese\.gguf)"):
        open_pretrained(tmp_path / "geese.gguf")


def test_a_gguf_file_answers_as_the_model_in_it(tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    model = write_packed(tmp_path / "geese.gguf")
    subject = open_pretrained(tmp_path / "geese.gguf")
    record = subject.record()
    assert (record["name"], record["format"], record["class"]) == ("geese.gguf", "gguf", "LlamaForCausalLM")
    assert record["n_params"] == sum(parameter.numel() for parameter in model.parameters())
    assert record["dtype"] == "float32" and record["context"] == 24

    ids = subject.tokenizing.encode_all(["the naïve geese!"])[0].ids.astype(np.int64)
    assert ids[0] == SYMBOLS.index("th") and subject.tokenizing.decode(ids.tolist()) == "the naïve geese!"
    assert (subject.tokenizing.bos_id, subject.tokenizing.eos_id) == (0, 1)
    rows = Rows(ids[None, :-1], ids[None, 1:], np.ones((1, len(ids) - 1), dtype=bool))
    with torch.no_grad():
        log_p = model(torch.from_numpy(rows.tokens)).logits.log_softmax(-1).numpy()
    own = -np.take_along_axis(log_p, rows.targets[..., None], axis=-1)[..., 0]
    np.testing.assert_allclose(subject.score(rows).loss, own, rtol=1e-5, atol=1e-6)

    other = tmp_path / "half.gguf"
    other.write_bytes((tmp_path / "geese.gguf").read_bytes()[:-200])
    with pytest.raises((SpecError, DamagedError), match=r"half\.gguf"):
        open_pretrained(other)
