"""What an audit finds is what plain transformers finds, probe by probe, by each one's definition.

The model is small and has learned its text a little, so that no number is trivial. Not quick: it is decoded
literally.
"""

import math
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from repetita.corpus.canaries import CanarySpec, make_canaries
from repetita.corpus.windows import ReadingRule, Windows
from repetita.measure.induction import random_tokens
from repetita.measure.probe import EvalSet
from repetita.model.pretrained import open_pretrained
from repetita.study.audit import Audit, Audited, run_audit
from repetita.study.audit_texts import read_texts
from tests.model.strangers import stranger
from tests.model.test_pretrained_tokenizing import causal
from tests.study.audited import SIZES

pytestmark = pytest.mark.slow

TEXT = (
    "Neun Gänse fliegen südwärts, naïve Zürich coûte 12 € - 日本語も. The heron counts seventeen "
    "umbrellas each Thursday, and my aunt swears that the eighteenth was lost in a flood of marmalade; "
    "nobody else in the village remembers."
)
CANARIES = CanarySpec(counts=(0, 3), each=3, n_digits=4)
BOS, WINDOW, CONTEXT = 0, 128, 600


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the model, the text with canaries in it, and their key."""
    folder = tmp_path_factory.mktemp("place")
    (folder / "text.txt").write_text(TEXT)
    make_canaries(CANARIES, source=str(folder / "text.txt"), folder=folder / "made")
    (written,) = read_texts((str(folder / "made" / "documents.jsonl"),))
    (folder / "read.txt").write_text(written.text)
    model = stranger("llama", **{**SIZES, "max_position_embeddings": CONTEXT})
    causal(folder / "model")
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    ids = torch.tensor(encoded(folder / "model", written.text))
    generator = torch.Generator().manual_seed(0)
    for _ in range(150):
        starts = torch.randint(0, len(ids) - 80, (8,), generator=generator).tolist()
        rows = torch.stack([torch.cat([torch.tensor([BOS]), ids[start : start + 80]]) for start in starts])
        loss = F.cross_entropy(model(input_ids=rows[:, :-1]).logits.flatten(0, 1), rows[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    model.save_pretrained(str(folder / "model"))
    return folder


@pytest.fixture(scope="module")
def library(place: Path) -> Any:
    from transformers import AutoModelForCausalLM

    found: Any = AutoModelForCausalLM.from_pretrained(str(place / "model"), attn_implementation="eager")
    return found.eval()


@pytest.fixture(scope="module")
def ids(place: Path) -> list[int]:
    found = encoded(place / "model", (place / "read.txt").read_text())
    assert 3 * WINDOW < len(found) < CONTEXT
    return found


def encoded(model: Path, text: str) -> list[int]:
    from transformers import AutoTokenizer

    found: list[int] = AutoTokenizer.from_pretrained(str(model))(text, add_special_tokens=False).input_ids
    return found


def audited(place: Path, root: Path, *probes: str, **more: Any) -> dict[tuple[str, str], Any]:
    """Each value of the one text, by metric and passage."""
    values = {"subjects": (str(place / "model"),), "texts": (str(place / "read.txt"),), "probes": probes}
    done: Audited = run_audit(Audit(**{**values, **more}), root=root)
    return {(row["metric"], row["on"]): row["value"] for row in done.by_group.iter_rows(named=True)}


def log_probs(library: Any, read: list[int]) -> torch.Tensor:
    """Of every id behind each token, (L, V), in double precision."""
    with torch.no_grad():
        found: torch.Tensor = library(input_ids=torch.tensor([read])).logits[0].double().log_softmax(-1)
    return found


def near(value: float) -> Any:
    return pytest.approx(value, rel=2e-5, abs=1e-6)


@pytest.mark.parametrize("stride", ["disjoint", 50])
def test_a_text_of_several_windows(
    place: Path, library: Any, ids: list[int], tmp_path: Path, stride: Any
) -> None:
    found = audited(place, tmp_path, "score", "unit_length", rule=ReadingRule(window=WINDOW, stride=stride))
    stream, done, nats, hits, runs = [BOS, *ids], 0, 0.0, 0, list[int]()
    while done < len(ids):
        new = WINDOW if done == 0 or stride == "disjoint" else stride
        stop = min(len(ids), done + new)
        start = max(0, stop - WINDOW)
        log_p = log_probs(library, stream[start:stop])
        truth = torch.tensor(stream[start + 1 : stop + 1])
        hit = (log_p.argmax(1) == truth)[done - start :]
        nats -= float(log_p[range(len(truth)), truth][done - start :].sum())
        hits += int(hit.sum())
        runs += [len(list(run)) for value, run in groupby(hit.tolist()) if value]
        done = stop
    assert 0.1 < hits / len(ids) < 0.99
    assert found["loss", ""] == near(nats / len(ids))
    n_bytes = len((place / "read.txt").read_text().encode())
    assert found["bits_per_byte", ""] == near(nats / math.log(2) / n_bytes)
    assert found["memorized", ""] == near(hits / len(ids))
    assert found["unit_length", ""] == near(float(np.mean(runs)))


def test_greedy_extraction(place: Path, library: Any, ids: list[int], tmp_path: Path) -> None:
    prompts, suffixes = (2, 8, 16), (1, 4, 12)
    found = audited(place, tmp_path, "extraction", prompts=prompts, suffixes=suffixes)
    starts = range(16, len(ids) - 12 + 1, 12)
    values = list[float]()
    for k in prompts:
        wrote = [greedy(library, [BOS, *ids[at - k : at]], 12) for at in starts]
        right = np.array(
            [[a == b for a, b in zip(w, ids[at:], strict=False)] for w, at in zip(wrote, starts, strict=True)]
        )
        exact = np.logical_and.accumulate(right, axis=1).sum(1)
        assert found[f"verbatim_length_{k}", ""] == near(exact.mean())
        for s in suffixes:
            assert found[f"extractable_{k}_{s}", ""] == near((exact >= s).mean())
            assert found[f"memorization_score_{k}_{s}", ""] == near(right[:, :s].mean())
            values.append(found[f"memorization_score_{k}_{s}", ""])
    assert len(set(values)) > 4


def test_extraction_strength(place: Path, library: Any, tmp_path: Path) -> None:
    """A prompt from which the rest is not returned has no shorter one from which it is."""
    (tmp_path / "line.txt").write_text(CANARIES.prefix)
    own = encoded(place / "model", CANARIES.prefix)
    found = audited(place, tmp_path, "extraction", texts=(str(tmp_path / "line.txt"),))
    shortest = len(own)
    while (
        shortest
        and greedy(library, [BOS, *own[: shortest - 1]], len(own) - shortest + 1) == own[shortest - 1 :]
    ):
        shortest -= 1
    assert shortest < len(own) - 3
    assert found["extraction_strength", ""] == near(1 - shortest / len(own))


def greedy(library: Any, read: list[int], n: int) -> list[int]:
    if n == 0:
        return []
    given = torch.tensor([read])
    written: list[int] = library.generate(
        given,
        attention_mask=torch.ones_like(given),
        do_sample=False,
        max_new_tokens=n,
        min_new_tokens=n,
        pad_token_id=0,
        eos_token_id=None,
    )[0, len(read) :].tolist()
    return written


@pytest.mark.parametrize(
    "drawn",
    [{"temperature": 0.8}, {"top_k": 5}, {"top_p": 0.9}, {"temperature": 0.8, "top_k": 5, "top_p": 0.9}],
    ids=str,
)
def test_probabilistic_extraction(
    place: Path, library: Any, ids: list[int], tmp_path: Path, drawn: dict[str, Any]
) -> None:
    from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

    warpers = {"temperature": TemperatureLogitsWarper, "top_k": TopKLogitsWarper, "top_p": TopPLogitsWarper}
    found = audited(place, tmp_path, "probabilistic", prompts=(4, 8), suffixes=(2, 3), **drawn)
    for k in (4, 8):
        for s in (2, 3):
            chances = list[float]()
            for at in range(8, len(ids) - 3 + 1, 3):
                with torch.no_grad():
                    logits = library(input_ids=torch.tensor([[BOS, *ids[at - k : at + s]]])).logits[
                        0, k : k + s
                    ]
                for name, value in drawn.items():
                    logits = warpers[name](value)(None, logits)
                log_p = logits.double().log_softmax(-1)[range(s), ids[at : at + s]]
                chances.append(math.exp(float(log_p.sum())))
            assert max(chances) > 0.05
            assert found[f"p_z_{k}_{s}", ""] == near(float(np.mean(chances)))
            for n, p in ((1, 0.1), (10, 0.5), (1000, 0.9)):
                share = np.mean([1 - (1 - chance) ** n >= p for chance in chances])
                assert found[f"discoverable_{k}_{s}_{n}_{p}", ""] == near(float(share))


def test_exposure(place: Path, library: Any, tmp_path: Path) -> None:
    found = audited(place, tmp_path, "canaries", canaries=str(place / "made"))

    def nats(text: str) -> float:
        own = encoded(place / "model", text)
        return -float(log_probs(library, [BOS, *own])[range(len(own)), own].sum())

    others = np.array([nats(one.text) for one in CANARIES.candidates(1023)])
    bits = np.array([math.log2(1024 / (1 + (others < nats(one.text)).sum())) for one in CANARIES.canaries()])
    assert found["exposure_0", ""] == near(float(bits[:3].mean()))
    assert found["exposure_3", ""] == near(float(bits[3:].mean()))
    assert found["exposure_3", ""] > found["exposure_0", ""]


def drawn_tokens(place: Path) -> NDArray[np.int64]:
    subject = open_pretrained(place / "model")
    documents = [one.document for one in read_texts((str(place / "read.txt"),))]
    windows = Windows(documents, tokenizing=subject.tokenizing, context=subject.context)
    over = EvalSet.whole("texts", sequences=windows)
    return random_tokens(over, n_tokens=25, n_samples=10, excluded=0.04)


def patterns(library: Any, read: list[int]) -> Iterator[NDArray[np.float64]]:
    with torch.no_grad():
        shown = library(input_ids=torch.tensor([read]), output_attentions=True).attentions
    yield from (one[0].double().numpy() for one in shown)


def test_heads_and_copying(place: Path, library: Any, ids: list[int], tmp_path: Path) -> None:
    found = audited(place, tmp_path, "heads", "copying", "in_context", indices=(5, 120))
    samples = drawn_tokens(place).tolist()
    matched: Any = 0.0
    for sample in samples:
        for p in range(26, 101):
            targets = [p - 25 * copy + 1 for copy in range(1, (p - 1) // 25 + 1)]
            assert all(([BOS, *sample * 4])[t - 1] == ([BOS, *sample * 4])[p] for t in targets)
        shown = np.stack(list(patterns(library, [BOS, *sample * 4])))
        matched += sum(
            shown[:, :, p, p - 25 * copy + 1] for p in range(26, 101) for copy in range(1, (p - 1) // 25 + 1)
        )
    by_head = np.asarray(matched) / (75 * len(samples))
    assert found["prefix_query_max", ""] == near(by_head.max())
    assert found["prefix_query_mean", ""] == near(by_head.mean())
    before = np.stack([one.diagonal(-1, 1, 2).mean(1) for one in patterns(library, [BOS, *ids[:-1]])])
    assert found["previous_token_max", ""] == near(before.max())
    losses = np.array(
        [
            -log_probs(library, [BOS, *sample * 11])[range(275), sample * 11].numpy().reshape(11, 25)
            for sample in samples
        ]
    )
    assert found["first_copy_loss", "random"] == near(losses[:, 0].mean())
    assert found["later_copies_loss", "random"] == near(losses[:, 1:].mean())
    assert found["copy_gain", "random"] == near(losses[:, 0].mean() - losses[:, 1:].mean())
    own = -log_probs(library, [BOS, *ids])[range(len(ids)), ids].numpy()
    assert found["in_context", ""] == near(own[120] - own[5])
