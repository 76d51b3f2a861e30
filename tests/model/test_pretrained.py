"""Models of others are opened from what lies on disk, safely, and say what was opened."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from repetita.errors import DamagedError, NotApplicable, SpecError
from repetita.model import pretrained_attention, pretrained_circuits, pretrained_loading
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


def test_how_a_model_is_meant_to_generate_changes_nothing(tmp_path: Path) -> None:
    model = saved(tmp_path)
    prompts = text().tokens[:, :5]
    plain = open_pretrained(tmp_path).continue_(prompts, n_tokens=8)
    asked: Any = model.generation_config
    asked.update(do_sample=True, temperature=3.0, repetition_penalty=9.0, no_repeat_ngram_size=1)
    asked.update(forced_bos_token_id=7, suppress_tokens=sorted(set(plain.flatten().tolist())))
    asked.update(eos_token_id=int(plain[0, 1]), max_new_tokens=2, use_cache=False)
    asked.save_pretrained(str(tmp_path))
    assert np.array_equal(open_pretrained(tmp_path).continue_(prompts, n_tokens=8), plain)


def test_heads_that_do_not_fit_into_memory_are_asked_about_in_smaller_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(tmp_path)
    rows, subject = text(), open_pretrained(tmp_path)
    patterns, added = list(subject.attend(rows.tokens)), subject.attribute(rows.tokens, rows.targets)
    forward = pretrained_attention.trunk

    def small(model: Any, tokens: Any, **options: Any) -> Any:
        if len(tokens) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(model, tokens, **options)

    monkeypatch.setattr(pretrained_attention, "trunk", small)
    monkeypatch.setattr(pretrained_circuits, "trunk", small)
    for pattern, before in zip(subject.attend(rows.tokens), patterns, strict=True):
        np.testing.assert_allclose(pattern, before, atol=1e-6)
    assert subject.record()["halvings"] == [
        "a batch of 4 rows of 12 tokens did not fit into the memory of cpu: 2 rows from then on"
    ]
    again = open_pretrained(tmp_path)
    np.testing.assert_allclose(again.attribute(rows.tokens, rows.targets), added, atol=1e-5)
    assert len(again.batches.halvings) == 1


def test_ids_beyond_the_embedding_are_refused_wherever_they_come(tmp_path: Path) -> None:
    saved(tmp_path)
    subject, rows = open_pretrained(tmp_path), text()
    tokens = np.where(np.arange(12) == 3, V, rows.tokens)
    for ask in (subject.attend, subject.raises):
        with pytest.raises(
            SpecError, match=f"token id {V} is outside the {V} that the model's embedding has"
        ):
            list(ask(tokens))
    with pytest.raises(SpecError, match="logits have"):
        subject.attribute(rows.tokens, tokens)


def test_a_vocabulary_wider_than_the_tokenizers_writes_ids_that_stand_for_nothing(tmp_path: Path) -> None:
    model = stranger("llama", vocab_size=300)
    with torch.no_grad():
        model.lm_head.weight[299] = 100 * model.model.norm.weight.new_ones(32)
        model.lm_head.weight[298] = -model.lm_head.weight[299]
    model.save_pretrained(str(tmp_path))
    causal(tmp_path)
    subject = open_pretrained(tmp_path)
    assert subject.tokenizing.vocab_size == 258
    written = subject.continue_(text().tokens[:, :4], n_tokens=3)
    assert (written[0] >= 298).all()
    assert subject.tokenizing.decode([*written[0].tolist(), 99]) == subject.tokenizing.decode([99])
    np.testing.assert_allclose(
        subject.score(text()).loss,
        own_losses(model, text()),
        rtol=1e-5,
        atol=1e-4,
        err_msg="all logits count",
    )


def test_options_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    saved(tmp_path)
    with pytest.raises(SpecError, match="batch_tokens = 0"):
        open_pretrained(tmp_path, batch_tokens=0)
    with pytest.raises(SpecError, match="no device is named 'gpu'"):
        open_pretrained(tmp_path, device="gpu")
