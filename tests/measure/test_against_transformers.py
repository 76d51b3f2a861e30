"""Every instrument of the repeated-data paper against plain loops over what transformers shows.

The model is in another library's code with the same weights, and each score is written out by its definition
(repetition notes, 7 to 9), one token at a time. Not quick, for the library is large.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from repetita.journal.records import Reading
from repetita.measure.attribution import AttributionProbe
from repetita.measure.copying import CopyingProbe
from repetita.measure.induction import InContextProbe, InductionProbe
from repetita.measure.names import NamesProbe
from repetita.measure.passages import Passage, RandomTokens
from repetita.measure.planted import PlantedSet
from repetita.measure.probe import EvalSet, Probe
from repetita.model.config import ModelConfig
from repetita.model.live import LiveSubject
from repetita.model.transformer import Transformer
from tests.model.gpt2 import as_gpt2

pytestmark = [pytest.mark.slow, pytest.mark.ci]

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

Y, H, D, V, L = 2, 2, 16, 260, 64
"""Layers, heads of each, width, ids (bytes and more), tokens of a row."""
TEXT = "Tom Ollery met Mrs Ollery."


def model() -> Transformer:
    """Weights large enough that heads differ and patterns are far from even."""
    made = Transformer(ModelConfig(n_layer=Y, n_head=H, d_model=D, vocab_size=V, context=L), seed=0)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return made


def text() -> dict[str, EvalSet]:
    drawn = np.random.default_rng(0).geometric(0.03, (20, L))
    drawn[3, 40:] = 0  # Padding.
    every = np.resize(np.arange(1, V), (5, L))
    return {"test": EvalSet.whole("test", sequences=PlantedSet(np.concatenate([drawn % V, every])))}


class Theirs:
    """What GPT-2 of transformers says of rows, in double precision."""

    def __init__(self, tokens: Ints) -> None:
        other = as_gpt2(model()).double()
        streams: list[torch.Tensor] = []
        other.transformer.ln_f.register_forward_pre_hook(lambda _, given: streams.append(given[0]))
        with torch.no_grad():
            answer = other(torch.from_numpy(tokens), output_attentions=True, output_hidden_states=True)
            self.log_p = answer.logits.log_softmax(-1).numpy()
            self.patterns = [pattern.numpy() for pattern in answer.attentions]
            self.added = self._added(other, answer, last=streams[0])

    def _added(self, other: Any, answer: Any, *, last: torch.Tensor) -> list[list[Floats]]:
        """[layer][head]: what a head adds to all logits (B, L, V), less their mean, the last norm held."""
        core = other.transformer
        scale = (last.var(-1, unbiased=False, keepdim=True) + core.ln_f.eps).sqrt()
        found = []
        for layer, block in enumerate(core.h):
            normed = block.ln_1(answer.hidden_states[layer])
            value = block.attn.c_attn(normed)[..., 2 * D :]
            heads = []
            for head in range(H):
                own = slice(head * D // H, (head + 1) * D // H)
                mixed = torch.from_numpy(self.patterns[layer][:, head]) @ value[..., own]
                written = mixed @ block.attn.c_proj.weight[own]
                centred = (written - written.mean(-1, keepdim=True)) / scale * core.ln_f.weight
                logits = centred @ other.lm_head.weight.T
                heads.append((logits - logits.mean(-1, keepdim=True)).numpy())
            found.append(heads)
        return found

    def loss(self, row: int, place: int, target: int) -> float:
        return -float(self.log_p[row, place, target])


def read(probe: Probe) -> dict[tuple[str, str], Reading]:
    found = probe.measure(LiveSubject(model()), text())
    return {(reading.metric, reading.on): reading for reading in found}


def items(found: dict[tuple[str, str], Reading], metric: str, on: str) -> dict[str, NDArray[np.generic]]:
    kept = found[metric, on].items
    assert kept is not None
    return dict(kept)


def behind_start(copies: Sequence[Ints]) -> Ints:
    """Rows of whole copies behind the start token."""
    return np.concatenate([np.zeros((len(copies[0]), 1), dtype=np.int64), *copies], axis=1)


def test_prefix_matching_and_previous_token() -> None:
    n, copies = 12, 4
    kept = items(read(InductionProbe(n_tokens=n, n_copies=copies)), "prefix_query_max", "test")
    rows = behind_start([np.asarray(kept["tokens"], dtype=np.int64)] * copies)
    over = text()["test"].sample(InductionProbe().max_sequences)
    theirs, own = Theirs(rows), over.sequences.rows(over.indices).tokens
    of_text = Theirs(own)
    for layer in range(Y):
        for head in range(H):
            entries, queries = [], []
            for sample, row in enumerate(rows):
                pattern = theirs.patterns[layer][sample, head]
                for p in range(1 + n, len(row)):
                    followers = [t + 1 for t in range(1, p) if row[t] == row[p]]
                    entries += [pattern[p, t] for t in followers]
                    queries.append(sum(pattern[p, t] for t in followers))
            assert float(kept["prefix_entry"][layer, head]) == pytest.approx(np.mean(entries), abs=1e-5)
            assert float(kept["prefix_query"][layer, head]) == pytest.approx(np.mean(queries), abs=1e-5)
            before = [
                of_text.patterns[layer][b, head, i, i - 1]
                for b in range(len(own))
                for i in range(1, L)
                if own[b, i]
            ]
            assert float(kept["previous_token"][layer, head]) == pytest.approx(np.mean(before), abs=1e-5)


def test_copying_by_activations() -> None:
    kept = items(read(InductionProbe(n_tokens=12)), "prefix_query_max", "test")
    drawn = np.asarray(kept["tokens"], dtype=np.int64)
    theirs = Theirs(drawn)
    for layer in range(Y):
        for head in range(H):
            ratios = []
            for sample, row in enumerate(drawn):
                pattern, logits = theirs.patterns[layer][sample, head], theirs.added[layer][head][sample]
                raised = np.maximum(logits[:, row], 0)
                attended = sum(pattern[i, j] * raised[i, j] for i in range(12) for j in range(12))
                ratios.append(attended / (attended + raised.sum()))
            expected = 4 * np.mean(ratios) - 1
            assert float(kept["ov_activation"][layer, head]) == pytest.approx(expected, abs=1e-3)


def test_attribution_to_the_token_that_follows() -> None:
    kept = items(read(AttributionProbe(on=("test",), texts=(TEXT,))), "attribution_max", "test")
    ids = np.frombuffer(TEXT.encode() * 2, dtype=np.uint8).astype(np.int64)
    targets = np.asarray(kept["targets"])[0]
    # Bytes are ids of their own, up to a shift that the tokenizer decides.
    assert len(set((targets - ids).tolist())) == 1
    theirs = Theirs(np.concatenate([[0], targets[:-1]])[None])
    for layer in range(Y):
        for head in range(H):
            expected = [theirs.added[layer][head][0, i, target] for i, target in enumerate(targets)]
            np.testing.assert_allclose(kept["attribution"][layer, head, 0], expected, atol=2e-3)


def test_loss_by_index_and_in_context_score() -> None:
    found = read(InContextProbe(early=6, late=56, width=4))
    rows = text()["test"].sequences.rows(np.arange(25))
    theirs = Theirs(rows.tokens)
    by_index = [
        [theirs.loss(b, i, rows.targets[b, i]) for b in range(25) if rows.scored[b, i]] for i in range(L)
    ]
    kept = items(found, "in_context", "test")
    expected = np.array([float(np.mean(losses)) for losses in by_index])
    np.testing.assert_allclose(kept["loss"].astype(np.float64), expected, atol=1e-4)
    early, late = (np.mean([x for one in by_index[i : i + 4] for x in one]) for i in (6, 56))
    assert found["in_context", "test"].value == pytest.approx(late - early, abs=1e-4)


def test_loss_of_every_copy() -> None:
    passage = Passage(name="names", text=TEXT)
    found = read(CopyingProbe(passages=(RandomTokens(n_tokens=20, n_samples=3), passage)))
    drawn = np.asarray(items(found, "copying_loss", "random")["ids"], dtype=np.int64)
    theirs = Theirs(behind_start([drawn] * 3)[:, :-1])
    copies = [
        [theirs.loss(s, 20 * k + i, drawn[s, i]) for s in range(3) for i in range(20)] for k in range(3)
    ]
    assert found["copying_loss", "random"].value == pytest.approx(np.mean(copies), abs=1e-4)
    later = np.mean(copies[1:])
    assert found["copy_gain", "random"].value == pytest.approx(np.mean(copies[0]) - later, abs=1e-4)
    # The text: two copies with a line break between, which is read and not scored.
    ids = np.asarray(items(found, "copying_loss", "names")["ids"], dtype=np.int64)
    line_break = PlantedSet(np.ones((1, 1))).encode("\n")[None]
    theirs = Theirs(behind_start([ids, line_break, ids])[:, :-1])
    n = ids.shape[1]
    places = [*range(n), *range(n + 1, 2 * n + 1)]
    expected = np.mean([theirs.loss(0, place, ids[0, at % n]) for at, place in enumerate(places)])
    assert found["copying_loss", "names"].value == pytest.approx(expected, abs=1e-4)


def test_loss_of_each_token_and_chance_of_names() -> None:
    found = read(NamesProbe(passages=(Passage(name="names", text=TEXT, names=("Ollery",)),)))
    detail = found["passage_loss", "names"].detail
    assert detail is not None
    ids = PlantedSet(np.ones((1, 1))).encode(TEXT)
    theirs = Theirs(np.concatenate([[0], ids[:-1]])[None])
    losses = [theirs.loss(0, place, target) for place, target in enumerate(ids)]
    np.testing.assert_allclose(detail["losses"], losses, atol=1e-4)
    second = TEXT.rindex("Ollery")
    # All bytes of the name's second occurrence but its first.
    chance = np.mean([np.exp(-losses[i]) for i in range(second + 1, second + 6)])
    assert found["name_probability_exact", "names"].value == pytest.approx(chance, abs=1e-4)
