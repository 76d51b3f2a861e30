"""Extraction and p_z on models of transformers against its own `generate`, literally, token by token.

Not quick, for the library is large.
"""

from typing import Any

import numpy as np
import pytest
import torch

from repetita.measure.continuation import ContinuationProbe
from repetita.measure.planted import PlantedSet
from repetita.measure.probabilistic import ProbabilisticProbe
from repetita.measure.probe import EvalSet
from repetita.model.answering import Answering
from repetita.model.foreign import Foreign
from repetita.model.memory import Batches

pytestmark = [pytest.mark.slow, pytest.mark.ci]

V, LENGTH, K, S = 50, 24, 6, 10
STARTS = (6, 11, 14)


def gpt2() -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(GPT2Config(vocab_size=V, n_embd=32, n_layer=2, n_head=4, n_positions=64))


def llama() -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=V,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=64,
        )
    )


def generated(model: Any, prompt: Any, *, n_tokens: int, **how: Any) -> Any:
    """What `generate` writes behind one prompt and its start token, ended by no token; and its scores."""
    ids = torch.tensor([[0, *prompt]])
    made = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=n_tokens,
        eos_token_id=None,
        pad_token_id=0,
        return_dict_in_generate=True,
        output_scores=True,
        **how,
    )
    return made.sequences[0, ids.shape[1] :].numpy(), made.scores


def texts_of(model: Any) -> Any:
    """Rows that the model writes itself in part, so that suffixes are right, wrong late, or wrong at once."""
    drawn = np.random.default_rng(1).integers(1, V, (12, LENGTH))
    for row in range(9):
        written, _ = generated(model, drawn[row, :K], n_tokens=LENGTH - K, do_sample=False)
        drawn[row, K:] = np.where(written == 0, 1, written)
        if row % 3:
            place = K + 3 * row % S
            drawn[row, place] = drawn[row, place] % (V - 1) + 1
    return drawn


@pytest.fixture(scope="module", params=[gpt2, llama])
def asked(request: pytest.FixtureRequest) -> Any:
    model = request.param().eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.4 * torch.randn(parameter.shape, generator=generator))
    device = torch.device("cpu")
    subject = Answering(Foreign(model, device=device), batches=Batches(device, tokens=256))
    targets = texts_of(model)
    return model, subject, targets, {"texts": EvalSet.whole("texts", sequences=PlantedSet(targets))}


def test_what_is_written_is_what_generate_writes(asked: Any) -> None:
    model, subject, targets, sets = asked
    probe = ContinuationProbe(on=("texts",), prompts=(3, K), suffixes=(4, S), starts=STARTS)
    (items,) = [one.items for one in probe.measure(subject, sets) if one.items is not None]
    lengths = set()
    for i, (row, start) in enumerate(zip(items["sequence"], items["start"], strict=True)):
        for k in (3, K):
            written, _ = generated(model, targets[row, start - k : start], n_tokens=S, do_sample=False)
            right = written == targets[row, start : start + S]
            assert items[f"exact_{k}"][i] == np.append(right, False).argmin()
            assert items[f"matched_{k}_{S}"][i] == right.sum()
            assert items[f"matched_{k}_4"][i] == right[:4].sum()
            lengths.add(int(items[f"exact_{k}"][i]))
    assert len(lengths) > 3
    for row, shortest in zip(targets, items["shortest_prompt"].tolist(), strict=True):
        if shortest < LENGTH:
            written, _ = generated(model, row[:shortest], n_tokens=LENGTH - shortest, do_sample=False)
            assert written.tolist() == row[shortest:].tolist()
        written, _ = generated(model, row[: shortest - 1], n_tokens=LENGTH - shortest + 1, do_sample=False)
        assert written.tolist() != row[shortest - 1 :].tolist()


@pytest.mark.parametrize(
    "how",
    [
        {"temperature": 1.0},
        {"temperature": 0.7, "top_k": 12},
        {"temperature": 1.3, "top_p": 0.9},
        {"temperature": 0.6, "top_k": 20, "top_p": 0.8},
    ],
)
def test_p_z_is_what_generate_draws_with(asked: Any, how: dict[str, Any]) -> None:
    """Its processed scores at each token of the text, read behind the text before it, multiplied up."""
    model, subject, targets, sets = asked
    probe = ProbabilisticProbe(on=("texts",), prompts=(K,), suffixes=(1, 5), starts=(6, 14), **how)
    (items,) = [one.items for one in probe.measure(subject, sets) if one.items is not None]
    finite = 0
    for i, (row, start) in enumerate(zip(items["sequence"], items["start"], strict=True)):
        total = 0.0
        for place in range(start, start + 5):
            options = {"do_sample": True, "top_k": 0} | how
            _, scores = generated(model, targets[row, start - K : place], n_tokens=1, **options)
            total += float(torch.log_softmax(scores[0][0].double(), 0)[targets[row, place]])
            if place == start:
                assert items[f"log_p_{K}_1"][i] == pytest.approx(total, rel=1e-4, abs=1e-5)
        assert items[f"log_p_{K}_5"][i] == pytest.approx(total, rel=1e-4, abs=1e-5)
        finite += np.isfinite(total)
    # A cut leaves some out, never all of what the model has written itself.
    assert 0 < finite <= len(items["start"])
    assert finite == len(items["start"]) or len(how) > 1
