"""A model of transformers, cut before its head, answers as transformers does, whatever its architecture."""

from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from repetita.errors import NotApplicable, SpecError
from repetita.model.answering import Answering
from repetita.model.foreign import Foreign, context_of, reads_ahead
from repetita.model.memory import Batches
from repetita.model.pretrained_attention import Without
from repetita.subject import Continuing, Describing, Predicting, Rows, Sampling, Weighing
from tests.model.strangers import CONTEXT, MASKED, V, stranger

CPU = torch.device("cpu")
PAD, MASK = 0, 3
CAUSAL = (
    *("gpt2", "gpt_neox", "llama", "opt", "mistral", "gemma2", "bloom", "mixtral"),
    *("qwen3", "gemma3_text", "phi3", "olmo2", "falcon", "mamba", "jamba"),
)


def subject(model: Any, *, rows: int | None = 3, masked: bool = False, **options: Any) -> Answering:
    ids: dict[str, Any] = {"mask_id": MASK, "pad_id": PAD} if masked else {}
    return Answering(Foreign(model, device=CPU, **ids, **options), batches=Batches(CPU, rows=rows))


def text(n_rows: int = 5, length: int = 13) -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.random.default_rng(0).integers(4, V, (n_rows, length))


def causal_rows() -> Rows:
    tokens = text()
    scored = np.random.default_rng(1).random((5, 12)) < 0.8
    return Rows(tokens[:, :-1], tokens[:, 1:], scored)


def masked_rows() -> Rows:
    targets = text()
    scored = np.random.default_rng(1).random(targets.shape) < 0.3
    return Rows(np.where(scored, MASK, targets), targets, scored)


def own_loss(model: Any, rows: Rows) -> float:
    """The mean that transformers itself reports for these labels."""
    labels = np.where(rows.scored, rows.targets, -100)
    tokens = torch.from_numpy(rows.tokens)
    with torch.no_grad():
        if model.config.model_type in MASKED:
            return float(model(input_ids=tokens, labels=torch.from_numpy(labels)).loss)
        # Its labels are the tokens themselves, which it moves by one.
        whole = np.concatenate([np.full((len(labels), 1), -100), labels], axis=1)
        read = np.concatenate([rows.tokens, rows.targets[:, -1:]], axis=1)
        return float(model(input_ids=torch.from_numpy(read), labels=torch.from_numpy(whole)).loss)


@pytest.mark.parametrize("kind", [*CAUSAL, *MASKED])
def test_loss_is_that_of_transformers(kind: str) -> None:
    model, masked = stranger(kind), kind in MASKED
    rows = masked_rows() if masked else causal_rows()
    asked = subject(model, masked=masked)
    assert isinstance(asked.readout, Foreign) and asked.readout.apart
    found = asked.predict(rows)
    assert found.predicted is not None
    assert found.loss.sum() / rows.scored.sum() == pytest.approx(own_loss(model, rows), rel=1e-5)
    with torch.no_grad():
        logits = model(input_ids=torch.from_numpy(rows.tokens)).logits.numpy()
    assert np.array_equal(found.predicted, logits.argmax(-1) * rows.scored)
    assert np.array_equal(found.hit, (logits.argmax(-1) == rows.targets) & rows.scored)
    assert not found.loss[~rows.scored].any()


@pytest.mark.parametrize("kind", CAUSAL)
def test_writes_what_generate_writes(kind: str) -> None:
    model, prompts = stranger(kind), text()[:, :6]
    found = subject(model).continue_(prompts, n_tokens=12)
    given = torch.from_numpy(prompts)
    with torch.no_grad():
        theirs = model.generate(  # type: ignore[operator]
            given,
            attention_mask=torch.ones_like(given),
            do_sample=False,
            max_new_tokens=12,
            eos_token_id=None,
        )
    assert np.array_equal(found, theirs[:, 6:].numpy())
    assert len(np.unique(found)) > 2, "a model that says one thing only would show nothing"


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(temperature=0.7),
        Sampling(top_k=5),
        Sampling(top_p=0.6),
        Sampling(temperature=1.3, top_k=9, top_p=0.8),
        Sampling(top_k=1),
    ],
)
@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_likelihoods_are_those_that_generate_draws_from(kind: str, sampling: Sampling) -> None:
    model, prompts = stranger(kind), torch.from_numpy(text()[:, :6])
    with torch.no_grad(), torch.random.fork_rng():
        drawn = model.generate(  # type: ignore[operator]
            prompts,
            attention_mask=torch.ones_like(prompts),
            do_sample=True,
            max_new_tokens=10,
            eos_token_id=None,
            temperature=sampling.temperature,
            top_k=sampling.top_k or 0,
            top_p=sampling.top_p or 1.0,
            output_scores=True,
            return_dict_in_generate=True,
        )
    tokens = drawn.sequences.numpy()
    scored = np.zeros((5, 15), dtype=bool)
    scored[:, 5:] = True
    theirs = torch.stack(drawn.scores, dim=1).log_softmax(-1).numpy()  # (5, 10, V)
    for shift in range(0, V, 4):  # What was drawn, and others, most of which are cut.
        targets = tokens[:, 1:].copy()
        targets[:, 5:] = (targets[:, 5:] + shift) % V
        found = subject(model).log_probs(Rows(tokens[:, :-1], targets, scored), sampling=sampling)
        own = np.take_along_axis(theirs, targets[:, 5:, None], axis=-1)[..., 0]
        np.testing.assert_allclose(found[:, 5:], own, rtol=1e-4, atol=1e-5)
        assert not found[:, :5].any()


@pytest.mark.parametrize("kind", ["gpt2", "opt", "bert"])
def test_moments_are_those_of_the_whole_distribution(kind: str) -> None:
    model, masked = stranger(kind), kind in MASKED
    rows = masked_rows() if masked else causal_rows()
    found = subject(model, masked=masked).moments(rows)
    with torch.no_grad():
        log_p = model(input_ids=torch.from_numpy(rows.tokens)).logits.double().log_softmax(-1).numpy()
    mean = (np.exp(log_p) * log_p).sum(-1)
    sd = np.sqrt((np.exp(log_p) * (log_p - mean[..., None]) ** 2).sum(-1))
    own = np.take_along_axis(log_p, rows.targets[..., None], axis=-1)[..., 0]
    for one, other in zip(found, (own, mean, sd), strict=True):
        np.testing.assert_allclose(one, other * rows.scored, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", MASKED)
def test_padding_behind_a_row_changes_nothing(kind: str) -> None:
    rows, asked = masked_rows(), subject(stranger(kind), masked=True)
    padded = Rows(
        *(np.pad(values, ((0, 0), (0, 4)), constant_values=0) for values in rows),  # type: ignore[arg-type]
    )
    np.testing.assert_allclose(asked.score(padded).loss[:, :13], asked.score(rows).loss, rtol=1e-4, atol=1e-5)


def test_batches_change_next_to_nothing() -> None:
    model, rows = stranger("gpt2"), causal_rows()
    whole = subject(model, rows=100).score(rows).loss
    for n in (1, 2, 4):
        np.testing.assert_allclose(subject(model, rows=n).score(rows).loss, whole, rtol=1e-4, atol=1e-5)


def test_logits_are_never_all_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("repetita.model.answering.chunk_tokens", lambda *_, **__: 7)
    model, rows, sizes = stranger("llama"), causal_rows(), []
    asked = subject(model, rows=100)
    expected = own_loss(model, rows)
    model.lm_head.register_forward_hook(lambda _, given, __: sizes.append(given[0].shape[1]))
    found = asked.score(rows)
    asked.log_probs(rows)
    asked.moments(rows)
    asked.continue_(np.tile(rows.tokens, (4, 1)), n_tokens=2)
    assert max(sizes) == 7
    assert found.loss.sum() / rows.scored.sum() == pytest.approx(expected, rel=1e-5)


def test_a_head_that_asks_for_more_than_states_is_used_whole() -> None:
    from transformers import GPT2LMHeadModel

    class Odd(GPT2LMHeadModel):  # type: ignore[no-untyped-call]
        def forward(self, input_ids: Any = None, **options: Any) -> Any:
            answer = super().forward(input_ids=input_ids, **options)
            return type(answer)(logits=answer.logits + 0.1 * input_ids[..., None] * torch.arange(V))

    base: Any = stranger("gpt2")
    model: Any = Odd(base.config)
    model.load_state_dict(base.state_dict())
    asked, rows = subject(model.eval()), causal_rows()
    assert isinstance(asked.readout, Foreign) and not asked.readout.apart
    with torch.no_grad():
        log_p = model(input_ids=torch.from_numpy(rows.tokens)).logits.log_softmax(-1).numpy()
    own = -np.take_along_axis(log_p, rows.targets[..., None], axis=-1)[..., 0]
    np.testing.assert_allclose(asked.score(rows).loss, own * rows.scored, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        next_token = model(input_ids=torch.from_numpy(rows.tokens)).logits[:, -1].argmax(-1).numpy()
    assert np.array_equal(asked.continue_(rows.tokens, n_tokens=3)[:, 0], next_token)


def test_without_heads_continues_as_it_scores() -> None:
    model = stranger("llama")
    asked = subject(model, without=Without(model, heads=[(0, 1), (1, 2)]))
    prompts = text()[:, :4]
    written = asked.continue_(prompts, n_tokens=5)
    whole = np.concatenate([prompts, written], axis=1)
    scored = np.zeros((5, 8), dtype=bool)
    scored[:, 3:] = True
    assert asked.score(Rows(whole[:, :-1], whole[:, 1:], scored)).hit[:, 3:].all()
    assert not np.array_equal(written, subject(model).continue_(prompts, n_tokens=5))


@pytest.mark.parametrize(
    ("kind", "context"),
    [("gpt2", CONTEXT + 2), ("bert", CONTEXT + 2), ("roberta", CONTEXT + 1), ("opt", CONTEXT + 2)],
)
def test_context_is_what_there_are_positions_for(kind: str, context: int) -> None:
    asked = subject(stranger(kind), masked=kind in MASKED)
    assert asked.readout.context == context
    ids = text(1, context)
    asked.score(Rows(ids, ids, np.ones_like(ids, dtype=bool)))
    longer = text(1, context + 1)
    with pytest.raises(SpecError, match=f"longer than the model's context of {context}"):
        asked.score(Rows(longer, longer, np.ones_like(longer, dtype=bool)))


def test_a_model_without_positions_has_no_limit() -> None:
    model = stranger("bloom")
    del model.config.max_position_embeddings
    asked, ids = subject(model), text(1, 3 * CONTEXT)
    assert asked.readout.context is None
    assert asked.score(Rows(ids, ids, np.ones_like(ids, dtype=bool))).loss.all()


@pytest.mark.parametrize(
    ("kind", "options", "context"),
    [
        ("mpt", {"d_model": 8, "n_heads": 2, "n_layers": 1, "max_seq_len": 7}, 7),
        # Two positions more than it counts from its second one on.
        ("yoso", {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}, 4096),
        ("mamba", {"hidden_size": 8, "num_hidden_layers": 1}, None),
    ],
)
def test_context_is_what_configs_call_it(kind: str, options: dict[str, Any], context: int | None) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM

    auto: Any = AutoModelForMaskedLM if kind == "yoso" else AutoModelForCausalLM
    with torch.device("meta"):
        model = auto.from_config(AutoConfig.for_model(kind, vocab_size=V, **options))
    assert context_of(model) == context


def test_an_id_without_a_row_or_a_logit_is_one_sentence() -> None:
    asked, rows = subject(stranger("gpt2")), causal_rows()
    outside = np.where(rows.tokens == rows.tokens.max(), V, rows.tokens)
    with pytest.raises(SpecError, match=f"token id {V} is outside the {V} that the model's embedding has"):
        asked.score(rows._replace(tokens=outside))
    with pytest.raises(SpecError, match="embedding has"):
        asked.continue_(outside[:, :3], n_tokens=1)
    targets = np.where(rows.scored, rows.targets, V)
    assert asked.score(rows._replace(targets=targets)).loss.any(), "what is not scored may be anything"
    targets[rows.scored] = V + 1
    with pytest.raises(SpecError, match=f"token id {V + 1} is outside the {V} that the model's logits have"):
        asked.moments(rows._replace(targets=targets))


def test_a_model_that_keeps_a_state_reads_each_token_once() -> None:
    model: Any = stranger("mamba")
    asked, lengths = subject(model, rows=None), list[int]()
    model.backbone.embeddings.register_forward_hook(lambda _, given, __: lengths.append(given[0].shape[1]))
    asked.continue_(text()[:, :6], n_tokens=4)
    assert lengths == [6, 1, 1, 1]


def test_a_causal_model_is_told_from_one_that_reads_ahead() -> None:
    for kind, ahead in (("llama", False), ("mamba", False), ("xlm", True), ("bert", True)):
        assert reads_ahead(Foreign(stranger(kind), device=CPU, mask_id=MASK)) == ahead


def test_a_vocabulary_is_never_multiplied_by_a_row() -> None:
    n_ids, largest = 9_000, 0
    model: Any = stranger("llama", vocab_size=n_ids, max_position_embeddings=400)
    ids = np.random.default_rng(0).integers(4, n_ids, (2, 401))
    rows = Rows(ids[:, :-1], ids[:, 1:], np.ones((2, 400), dtype=bool))

    class Largest(TorchDispatchMode):  # type: ignore[no-untyped-call]
        def __torch_dispatch__(self, function: Any, _: Any, args: Any = (), options: Any = None) -> Any:
            nonlocal largest
            answer = function(*args, **(options or {}))
            for one in answer if isinstance(answer, tuple | list) else [answer]:
                if isinstance(one, torch.Tensor) and one.shape[-1:] == (n_ids,):
                    largest = max(largest, one.numel() // n_ids)
            return answer

    asked = subject(model, rows=2)
    with Largest():  # type: ignore[no-untyped-call]
        asked.score(rows)
        asked.moments(rows)
        asked.log_probs(rows, sampling=Sampling(top_p=0.9))
    assert 0 < largest <= 256


def test_what_cannot_be_written_is_refused() -> None:
    asked = subject(stranger("gpt2"))
    assert asked.continue_(text(2, CONTEXT), n_tokens=3).shape == (2, 3), "the last token is not read"
    with pytest.raises(SpecError, match=f"4 tokens behind a prompt of {CONTEXT}"):
        asked.continue_(text(2, CONTEXT), n_tokens=4)
    with pytest.raises(SpecError, match="prompts are empty"):
        asked.continue_(text(2, 0), n_tokens=4)
    with pytest.raises(SpecError, match="n_tokens = 0"):
        asked.continue_(text(2, 3), n_tokens=0)
    assert asked.continue_(text(0, 3), n_tokens=2).shape == (0, 2)
    with pytest.raises(NotApplicable, match="masked model"):
        subject(stranger("bert"), masked=True).continue_(text(), n_tokens=1)


def test_has_the_capabilities() -> None:
    asked = subject(stranger("gpt2"))
    for capability in (Predicting, Continuing, Weighing, Describing):
        assert isinstance(asked, capability)


def test_asking_disturbs_nothing() -> None:
    model = stranger("gpt2")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.random.get_rng_state()
    asked = subject(model)
    asked.score(causal_rows())
    asked.continue_(text()[:, :4], n_tokens=3)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.random.get_rng_state(), state) and torch.is_grad_enabled()
    assert "forward" not in model.transformer.__dict__
