"""Models of others against lm-evaluation-harness' rolling perplexity and literal loops over attentions.

Not quick, for the library is large.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from repetita.corpus.source import Document
from repetita.corpus.tokenizer import ByteTokenizer
from repetita.corpus.windows import OfCorpus, ReadingRule, Windows
from repetita.measure.copying import CopyingProbe
from repetita.measure.induction import prefix_matching, previous_token
from repetita.measure.passages import RandomTokens
from repetita.measure.probe import EvalSet
from repetita.model.answering import Answering
from repetita.model.foreign import Foreign
from repetita.model.memory import Batches
from repetita.model.pretrained_attention import attend
from tests.model.strangers import stranger

pytestmark = [pytest.mark.slow, pytest.mark.ci]

CPU = torch.device("cpu")
CONTEXT, V = 16, 257
Lists = tuple[list[int], list[int]]


def get_rolling_token_windows(
    token_list: list[int], prefix_token: int, max_seq_len: int, context_len: int
) -> Iterator[Lists]:
    """`lm_eval.utils.get_rolling_token_windows` of lm-evaluation-harness 0.4.13, literally (MIT licence)."""
    assert 1 <= context_len <= max_seq_len
    if not token_list:
        return
    pred_len = max_seq_len - context_len + 1
    predicted = 0
    first_seq_len = min(max_seq_len, len(token_list))
    yield [prefix_token] + token_list[: first_seq_len - 1], token_list[:first_seq_len]  # noqa: RUF005
    predicted += first_seq_len
    while predicted < len(token_list):
        window_pred_len = min(len(token_list) - predicted, pred_len)
        window_end = predicted + window_pred_len
        yield (
            token_list[window_end - max_seq_len - 1 : window_end - 1],
            token_list[window_end - window_pred_len : window_end],
        )
        predicted += window_pred_len


def make_disjoint_window(pair: Lists) -> Lists:
    """`lm_eval.utils.make_disjoint_window`: only the context of each window that is not in the one before."""
    a, b = pair
    return a[: len(a) - (len(b) - 1)], b


def loglikelihood(model: Any, context: list[int], continuation: list[int]) -> float:
    """`HFLM._loglikelihood_tokens` of one window: the sum over the last logits, log-softmax in float32."""
    read = (context + continuation)[-(CONTEXT + 1) :][:-1]
    with torch.no_grad():
        logits = model(torch.tensor([read])).logits[0].float().log_softmax(-1)
    target = torch.tensor(continuation)
    return float(logits[-len(continuation) :].gather(1, target[:, None]).double().sum())


def model_of(kind: str) -> Any:
    return stranger(kind, vocab_size=V, max_position_embeddings=CONTEXT)


def subject_of(model: Any) -> Answering:
    return Answering(Foreign(model, device=CPU), batches=Batches(CPU, tokens=64))


def texts() -> list[Document]:
    """Random ones, of every length around one, two and three contexts."""
    drawn = np.random.default_rng(0)
    lengths = [1, 2, *(k * CONTEXT + off for k in (1, 2, 3) for off in (-1, 0, 1)), *drawn.integers(1, 70, 6)]
    letters = [bytes(drawn.integers(97, 123, int(n)).tolist()).decode() for n in lengths]
    return [Document(text, f"text{i}", "", None) for i, text in enumerate(letters)]


@pytest.mark.parametrize("kind", ["gpt2", "gpt_neox"])
def test_rolling_perplexity(kind: str) -> None:
    """The same windows, in the same order, and the same sum of each text."""
    model, asked = model_of(kind), subject_of(model_of(kind))
    assert asked.readout.context == CONTEXT
    tokenizing = OfCorpus(ByteTokenizer())
    windows = Windows(texts(), tokenizing=tokenizing, rule=ReadingRule(), context=asked.readout.context)
    rows = windows.rows(np.arange(len(windows)))
    nats = asked.score(rows).loss.sum(axis=1, dtype=np.float64)
    row = 0
    for number, text in enumerate(texts()):
        ids = tokenizing.encode_all([text.text])[0].ids.tolist()
        total, first = 0.0, row
        for pair in get_rolling_token_windows(ids, tokenizing.bos_id, CONTEXT, 1):
            context, continuation = make_disjoint_window(pair)
            read = (context + continuation)[-(CONTEXT + 1) :][:-1]
            assert windows.document(np.array([row]))[0] == number
            assert rows.tokens[row, : len(read)].tolist() == read
            assert rows.targets[row, rows.scored[row]].tolist() == continuation
            assert rows.scored[row].nonzero()[0].tolist() == [
                *range(len(read) - len(continuation), len(read))
            ]
            total += loglikelihood(model, context, continuation)
            row += 1
        assert -nats[first:row].sum() == pytest.approx(total, rel=1e-5)
    assert row == len(windows)


def test_another_rule_is_another_number() -> None:
    """So that the equality above is of the rule: without the start token, or with overlap, it fails."""
    asked = subject_of(model_of("gpt2"))
    sums = []
    for rule in (ReadingRule(), ReadingRule(bos="never"), ReadingRule(stride=CONTEXT // 2)):
        windows = Windows(texts(), tokenizing=OfCorpus(ByteTokenizer()), rule=rule, context=CONTEXT)
        sums.append(asked.score(windows.rows(np.arange(len(windows)))).loss.sum(dtype=np.float64))
    assert min(abs(sums[0] - other) for other in sums[1:]) > 1


class Shown(Answering):
    """With its attention."""

    def attend(self, tokens: Any, /) -> Any:
        model: Any = self.readout.model  # type: ignore[attr-defined]
        return attend(model, tokens)


@pytest.mark.parametrize("kind", ["gpt_neox", "llama"])
def test_scores_of_heads_and_copies(kind: str) -> None:
    """A literal loop over `output_attentions=True` of the same weights, and over its logits."""
    n, copies, samples = 6, 3, 2
    sizes: dict[str, Any] = {"vocab_size": V, "max_position_embeddings": 32}
    asked = Shown(Foreign(stranger(kind, **sizes), device=CPU), batches=Batches(CPU))
    plain: Any = stranger(kind, attention="eager", **sizes)
    windows = Windows(texts(), tokenizing=OfCorpus(ByteTokenizer()), rule=ReadingRule(window=20), context=32)
    over = EvalSet.whole("texts", sequences=windows)
    probe = CopyingProbe(
        on=("texts",), passages=(RandomTokens(n_tokens=n, n_samples=samples),), n_copies=copies
    )
    items = next(one.items for one in probe.measure(asked, {"texts": over}) if one.items is not None)
    drawn = np.asarray(items["ids"], dtype=np.int64)
    rows = np.concatenate([np.zeros((samples, 1), np.int64), np.tile(drawn, (1, copies))], axis=1)
    read = windows.rows(over.indices)
    with torch.no_grad():
        theirs = plain(torch.from_numpy(rows), output_attentions=True)
        of_text = plain(torch.from_numpy(read.tokens), output_attentions=True)
    log_p = theirs.logits[:, :-1].log_softmax(-1).numpy()
    for s, k, t in np.ndindex(samples, copies, n):
        expected = -log_p[s, k * n + t, drawn[s, t]]
        assert float(items["tokens"][s, k, t]) == pytest.approx(expected, abs=1e-4)
    match, previous = prefix_matching(asked, drawn, n_copies=copies), previous_token(asked, over=over)
    for layer, head in np.ndindex(match.query_YH.shape):
        entries, queries, before = [], [], []
        for s, row in enumerate(rows.tolist()):
            for p in range(1 + n, len(row)):
                followers = [
                    float(theirs.attentions[layer][s, head, p, t + 1])
                    for t in range(1, p)
                    if row[t] == row[p]
                ]
                entries += followers
                queries.append(sum(followers))
        for b, n_read in enumerate(
            read.scored.any(axis=1) * (windows.length - read.scored[:, ::-1].argmax(axis=1))
        ):
            before += [float(of_text.attentions[layer][b, head, i, i - 1]) for i in range(1, int(n_read))]
        assert float(match.entry_YH[layer, head]) == pytest.approx(np.mean(entries), abs=1e-6)
        assert float(match.query_YH[layer, head]) == pytest.approx(np.mean(queries), abs=1e-6)
        assert float(previous[layer, head]) == pytest.approx(np.mean(before), abs=1e-6)
