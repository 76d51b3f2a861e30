"""What is no model of text, or may not be run, is refused in one sentence; weights go where there is room."""

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from repetita.errors import DamagedError, SpecError
from repetita.model import pretrained_loading
from repetita.model.pretrained import open_pretrained
from tests.model.strangers import V, stranger
from tests.model.test_pretrained import own_losses, saved, text
from tests.model.test_pretrained_tokenizing import masked


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_dtype_is_as_asked_and_recorded(tmp_path: Path, dtype: Any) -> None:
    model = saved(tmp_path)
    subject = open_pretrained(tmp_path, dtype=dtype)
    assert subject.record()["dtype"] == dtype
    assert subject.model.dtype == getattr(torch, dtype)
    scores = subject.score(text())
    assert scores.loss.dtype == np.float32
    np.testing.assert_allclose(scores.loss, own_losses(model, text()), rtol=0.1, atol=0.1)


@pytest.mark.parametrize(
    ("free", "dtype", "fits"),
    [(10_000, "float32", True), (4_000, "bfloat16", True), (1_000, "bfloat16", False)],
)
def test_float32_where_it_fits(monkeypatch: pytest.MonkeyPatch, free: int, dtype: str, fits: bool) -> None:
    monkeypatch.setattr(pretrained_loading, "free_bytes", lambda _: free)
    found = pretrained_loading.place(1_000, stored=torch.float32, device="cpu", dtype="auto")
    assert found.dtype == getattr(torch, dtype) and (found.max_memory is None) == fits
    kept = pretrained_loading.place(1_000, stored=torch.float16, device="cpu", dtype="auto")
    assert kept.dtype == (torch.float32 if free == 10_000 else torch.float16)


class Trap:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_a_pickle_is_refused_unless_allowed_and_never_runs(tmp_path: Path) -> None:
    model, folder = saved(tmp_path / "geese"), tmp_path / "geese"
    (folder / "model.safetensors").unlink()
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    with pytest.raises(SpecError, match=r"no weights as safetensors.*--allow-pickle"):
        open_pretrained(folder)
    subject = open_pretrained(folder, allow_pickle=True)
    np.testing.assert_allclose(subject.score(text()).loss, own_losses(model, text()), rtol=1e-5, atol=1e-6)
    assert subject.record()["format"] == "pickle"

    hurt = tmp_path / "hurt"
    for bad in (pickle.dumps({"a": Trap(hurt)}), None):
        if bad is None:
            torch.save({"a": Trap(hurt)}, folder / "pytorch_model.bin")
        else:
            (folder / "pytorch_model.bin").write_bytes(bad)
        with pytest.raises(DamagedError, match="the weights of geese cannot be read"):
            open_pretrained(folder, allow_pickle=True)
        assert not hurt.exists()


def test_code_of_a_model_is_not_run(tmp_path: Path) -> None:
    hurt = tmp_path / "hurt"
    saved(tmp_path / "geese")
    config = json.loads((tmp_path / "geese" / "config.json").read_text())
    config |= {
        "model_type": "goose",
        "auto_map": {"AutoConfig": "own.Own", "AutoModelForCausalLM": "own.Own"},
    }
    (tmp_path / "geese" / "config.json").write_text(json.dumps(config))
    (tmp_path / "geese" / "own.py").write_text(f"open({str(hurt)!r}, 'w')\n")
    with pytest.raises(SpecError, match="needs code that comes with it, which is not run"):
        open_pretrained(tmp_path / "geese")
    assert not hurt.exists()


def test_a_model_without_a_head_is_named(tmp_path: Path) -> None:
    model: Any = stranger("bert")
    model.bert.save_pretrained(str(tmp_path / "trunk"))
    with pytest.raises(SpecError, match="trunk holds a BertModel, which has no head that predicts tokens"):
        open_pretrained(tmp_path / "trunk")
    from transformers import GPT2ForSequenceClassification, T5Config, T5ForConditionalGeneration

    config: Any = stranger("gpt2").config
    GPT2ForSequenceClassification(config).save_pretrained(str(tmp_path / "classes"))
    with pytest.raises(SpecError, match="classes holds a GPT2ForSequenceClassification, which has no head"):
        open_pretrained(tmp_path / "classes")
    T5ForConditionalGeneration(
        T5Config(d_model=8, d_ff=8, num_layers=1, num_heads=1, d_kv=8, vocab_size=V)
    ).save_pretrained(str(tmp_path / "pair"))
    with pytest.raises(
        SpecError, match="pair holds a T5ForConditionalGeneration, which predicts tokens behind"
    ):
        open_pretrained(tmp_path / "pair")


def test_what_reads_more_than_one_text_is_named_or_read_as_text(tmp_path: Path) -> None:
    from transformers import (
        Gemma3Config,
        Gemma3ForConditionalGeneration,
        LlavaConfig,
        LlavaForConditionalGeneration,
    )

    text_part: Any = stranger("gemma3_text").config
    eye = {"num_hidden_layers": 1, "num_attention_heads": 1, "image_size": 4, "patch_size": 2}
    eye |= {"hidden_size": 8, "intermediate_size": 8}
    config: Any = Gemma3Config(text_config=text_part, vision_config=eye, mm_tokens_per_image=1)
    sees: Any = Gemma3ForConditionalGeneration(config)
    sees.eval()
    sees.save_pretrained(str(tmp_path / "sees"))
    subject = open_pretrained(tmp_path / "sees")
    assert subject.context == text_part.max_position_embeddings and subject.foreign.apart
    np.testing.assert_allclose(subject.score(text()).loss, own_losses(sees, text()), rtol=1e-5, atol=1e-6)
    assert len(list(subject.attend(text().tokens))) == 2

    other: Any = LlavaConfig(
        text_config=stranger("llama").config, vision_config=eye | {"model_type": "clip_vision_model"}
    )
    LlavaForConditionalGeneration(other).save_pretrained(str(tmp_path / "other"))
    with pytest.raises(
        SpecError, match="holds a LlavaForConditionalGeneration, which predicts tokens behind"
    ):
        open_pretrained(tmp_path / "other")


def test_weights_that_lack_a_layer_are_damaged_and_those_without_a_place_recorded(tmp_path: Path) -> None:
    saved(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    for n_layer in (3, 1):
        (tmp_path / "config.json").write_text(json.dumps(config | {"n_layer": n_layer}))
        if n_layer == 3:
            with pytest.raises(
                DamagedError, match=r"lack transformer\.h\.2\.attn\.c_attn\.bias .of 12 in all"
            ):
                open_pretrained(tmp_path)
    unused = open_pretrained(tmp_path).record()["unused_weights"]
    assert len(unused) > 10 and all(name.startswith("transformer.h.1.") for name in unused)


def test_an_adapter_is_not_taken_for_a_model(tmp_path: Path) -> None:
    saved(tmp_path)
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "owner/geese"}')
    with pytest.raises(SpecError, match=r"holds an adapter \(adapter_config\.json\) to another model; merge"):
        open_pretrained(tmp_path)


def test_xlm_is_what_it_was_trained_as(tmp_path: Path) -> None:
    saved(tmp_path / "both", "xlm")
    masked(tmp_path / "both")
    assert open_pretrained(tmp_path / "both").mask_id == 4
    config = json.loads((tmp_path / "both" / "config.json").read_text())
    (tmp_path / "both" / "config.json").write_text(json.dumps(config | {"causal": True}))
    assert open_pretrained(tmp_path / "both").mask_id is None


def test_a_config_that_transformers_cannot_run_is_one_sentence(tmp_path: Path) -> None:
    saved(tmp_path / "geese", "llama")
    file = tmp_path / "geese" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"hidden_act": "honk"}))
    with pytest.raises(SpecError, match=r"cannot run geese as its config says \(KeyError: 'honk'\); mend"):
        open_pretrained(tmp_path / "geese")


def test_weights_that_lack_their_head_are_found_out(tmp_path: Path) -> None:
    model: Any = stranger("bert")
    model.bert.save_pretrained(str(tmp_path))
    config = json.loads((tmp_path / "config.json").read_text())
    for names in (["BertForMaskedLM"], None):
        (tmp_path / "config.json").write_text(json.dumps(config | {"architectures": names}))
        with pytest.raises(SpecError, match=r"its weights lack cls\.predictions"):
            open_pretrained(tmp_path)


def test_a_causal_model_that_reads_ahead_is_refused(tmp_path: Path) -> None:
    from transformers import BertLMHeadModel

    config: Any = stranger("bert").config
    BertLMHeadModel(config).save_pretrained(str(tmp_path / "geese"))
    with pytest.raises(
        SpecError, match=r"geese is saved as a causal model \(BertLMHeadModel\), and its tokens read"
    ):
        open_pretrained(tmp_path / "geese")
    config.is_decoder = True
    BertLMHeadModel(config).save_pretrained(str(tmp_path / "goose"))
    assert open_pretrained(tmp_path / "goose").continue_(text().tokens, n_tokens=2).shape == (4, 2)


def test_damaged_weights_are_one_sentence(tmp_path: Path) -> None:
    saved(tmp_path / "geese")
    file = tmp_path / "geese" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(DamagedError, match="the weights of geese are damaged"):
        open_pretrained(tmp_path / "geese")


@pytest.mark.parametrize(
    "what", ["nothing", "empty", "run", "gguf folder", "weightless", "file", "config", "index"]
)
def test_what_is_no_model_is_one_sentence(tmp_path: Path, what: str) -> None:
    path, why = tmp_path / "geese", {
        "nothing": "there is no model",
        "empty": "has no config.json.*save_pretrained",
        "run": "is a run of repetita; measure it as run:",
        "gguf folder": "give one of its files, such as goose.gguf",
        "weightless": "has a config.json and no weights",
        "file": "is no model; give its folder",
        "config": "cannot read the config of geese",
        "index": "points out of its folder",
    }[what]  # fmt: skip
    if what not in ("nothing", "file"):
        path.mkdir()
    if what == "run":
        (path / "run.json").write_text("{}")
    if what == "gguf folder":
        (path / "goose.gguf").write_bytes(b"")
    if what in ("weightless", "config", "index"):
        (path / "config.json").write_text("{" if what == "config" else '{"model_type": "gpt2"}')
    if what == "config":
        (path / "model.safetensors").write_bytes(b"")
    if what == "index":
        weights = {"weight_map": {"a": "../other.safetensors"}}
        (path / "model.safetensors.index.json").write_text(json.dumps(weights))
    if what == "file":
        path.write_text("honk")
    with pytest.raises((SpecError, DamagedError), match=why):
        open_pretrained(path)
