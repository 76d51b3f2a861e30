"""Models of others are opened from what lies on disk, safely, and say what was opened."""

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from repetita.errors import DamagedError, NotApplicable, SpecError
from repetita.model import pretrained_loading
from repetita.model.pretrained import PretrainedSubject, open_pretrained
from repetita.subject import Ablating, Attending, Attributing, Circuits, Continuing, Rows, Weighing
from tests.model.strangers import V, stranger
from tests.model.test_pretrained_tokenizing import causal, masked


def text(n_rows: int = 4, length: int = 12) -> Rows:
    ids = np.random.default_rng(0).integers(4, V, (n_rows, length + 1))
    return Rows(ids[:, :-1], ids[:, 1:], np.ones((n_rows, length), dtype=bool))


def saved(folder: Path, kind: str = "gpt2") -> Any:
    model = stranger(kind)
    model.save_pretrained(str(folder))
    return model


def own_losses(model: Any, rows: Rows) -> Any:
    with torch.no_grad():
        log_p = model(input_ids=torch.from_numpy(rows.tokens)).logits.log_softmax(-1).numpy()
    return -np.take_along_axis(log_p, rows.targets[..., None], axis=-1)[..., 0]


def test_a_folder_answers_as_what_was_saved(tmp_path: Path) -> None:
    model = saved(tmp_path / "geese")
    subject = open_pretrained(tmp_path / "geese")
    np.testing.assert_allclose(subject.score(text()).loss, own_losses(model, text()), rtol=1e-5, atol=1e-6)
    record = subject.record()
    assert json.loads(json.dumps(record)) == record, "plain JSON"
    assert str(tmp_path) not in json.dumps(record), "no paths"
    assert record["name"] == "geese" and record["class"] == "GPT2LMHeadModel"
    assert (
        record["objective"] == "causal" and record["dtype"] == "float32" and record["format"] == "safetensors"
    )
    assert record["n_params"] == sum(parameter.numel() for parameter in model.parameters())
    assert not any(parameter.requires_grad for parameter in subject.model.parameters())
    assert not subject.model.training


def test_shards_are_one_model(tmp_path: Path) -> None:
    model = stranger("llama")
    model.save_pretrained(str(tmp_path), max_shard_size="10KB")
    assert not (tmp_path / "model.safetensors").exists()
    subject = open_pretrained(tmp_path)
    np.testing.assert_allclose(subject.score(text()).loss, own_losses(model, text()), rtol=1e-5, atol=1e-6)
    one = next(tmp_path.glob("model-*.safetensors"))
    one.unlink()
    with pytest.raises(DamagedError, match=f"{one.name} is missing"):
        open_pretrained(tmp_path)


def test_a_masked_model_takes_its_mask_from_its_tokenizer(tmp_path: Path) -> None:
    saved(tmp_path, "bert")
    masked(tmp_path)
    subject = open_pretrained(tmp_path)
    assert subject.mask_id == 4 and subject.context == 26
    assert subject.record()["objective"] == "masked"
    with pytest.raises(NotApplicable):
        subject.continue_(text().tokens, n_tokens=1)


def test_the_same_weights_have_the_same_hash_wherever_they_lie(tmp_path: Path) -> None:
    saved(tmp_path / "a")
    saved(tmp_path / "b")
    stranger("gpt2", n_inner=40).save_pretrained(str(tmp_path / "c"))
    one, same, other = (open_pretrained(tmp_path / name).sha256 for name in "abc")
    assert one == same != other


def test_has_every_capability(tmp_path: Path) -> None:
    saved(tmp_path)
    subject = open_pretrained(tmp_path)
    for capability in (Attending, Attributing, Circuits, Ablating, Continuing, Weighing):
        assert isinstance(subject, capability)
    rows = text()
    assert len(list(subject.attend(rows.tokens))) == 2
    assert subject.attribute(rows.tokens, rows.targets).shape == (2, 4, 4, 12)
    assert subject.ov_copying().shape == (2, 4)
    less = subject.without([(0, 1)])
    assert isinstance(less, PretrainedSubject)
    assert not np.allclose(less.score(rows).loss, subject.score(rows).loss)
    assert all(pattern.shape == (4, 4, 12, 12) for pattern in less.attend(rows.tokens))
    with pytest.raises(NotApplicable, match="whole model"):
        less.ov_copying()
    np.testing.assert_allclose(
        subject.without([], patterns="recomputed").score(rows).loss, subject.score(rows).loss, rtol=1e-4
    )


def test_the_tokenizer_is_there_where_it_is_asked_for(tmp_path: Path) -> None:
    saved(tmp_path)
    subject = open_pretrained(tmp_path)
    with pytest.raises(SpecError, match="has no tokenizer; put"):
        _ = subject.tokenizing
    causal(tmp_path)
    assert open_pretrained(tmp_path).tokenizing.bos_id == 0


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


def test_a_model_larger_than_memory_answers_from_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = saved(tmp_path, "llama")
    monkeypatch.setattr(pretrained_loading, "free_bytes", lambda _: 60_000)
    subject = open_pretrained(tmp_path, dtype="float32")
    assert "disk" in subject.record()["places"]
    np.testing.assert_allclose(subject.score(text()).loss, own_losses(model, text()), rtol=1e-5, atol=1e-6)
    prompts = text().tokens[:, :4]
    theirs = model.generate(
        torch.from_numpy(prompts),
        attention_mask=torch.ones(4, 4),
        do_sample=False,
        max_new_tokens=4,
        eos_token_id=None,
    )
    assert np.array_equal(subject.continue_(prompts, n_tokens=4), theirs[:, 4:].numpy())


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
    with pytest.raises(SpecError, match="pair holds a T5ForConditionalGeneration"):
        open_pretrained(tmp_path / "pair")


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


def test_options_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    saved(tmp_path)
    with pytest.raises(SpecError, match="batch_tokens = 0"):
        open_pretrained(tmp_path, batch_tokens=0)
    with pytest.raises(SpecError, match="no device is named 'gpu'"):
        open_pretrained(tmp_path, device="gpu")
