"""A model that somebody else trained, measured by us and by what people use: `generate`, lm-eval, attentions.

`python -m benchmarks.foreign MODEL --lm-eval FOLDER` needs a folder in transformers' layout, and the place of
lm_eval where it is not installed beside us (`pip install --target FOLDER --no-deps lm_eval`). Equality is
asserted token by token; times are of one thread of the processor, in interleaved rounds, so that others at
work on the machine matter less.
"""

import argparse
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.rounds import Compared, estimate, interleaved, machine, save, say
from repetita.corpus.built_in import built_in
from repetita.corpus.source import Document
from repetita.corpus.windows import ReadingRule, Windows
from repetita.measure.continuation import matches
from repetita.measure.copying import CopyingProbe
from repetita.measure.extraction import continued, exact_prefix
from repetita.measure.induction import prefix_matching, previous_token
from repetita.measure.passages import RandomTokens
from repetita.measure.probe import EvalSet
from repetita.model.pretrained import PretrainedSubject, open_pretrained

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

PROMPT = SUFFIX = 50
ONE_BY_ONE = 3
"""Texts a round that `generate` is given one by one, other ones each time: its time a text needs no more."""
GOAL = 10.0
"""How many times as fast as `generate`, one text at a time."""
WINDOW = 128
"""Tokens read at once for the perplexity: texts of a few thousand tokens then fill many windows."""
COPIES, DISTINCT, SAMPLES = 4, 25, 2
CORPORA = ("sotu", "python-stdlib")


def texts(subject: PretrainedSubject, *, n: int, most: int) -> list[Document]:
    """The first tokens of documents of two corpora in turn: prose and code."""
    found: list[Document] = []
    for one, other in zip(*(built_in(name).documents() for name in CORPORA), strict=False):
        for document in (one, other):
            ids = subject.tokenizing.encode_all([document.text[: 20 * most]])[0].ids
            if len(ids) > PROMPT + SUFFIX:
                found.append(document._replace(text=subject.tokenizing.decode(ids[:most].tolist())))
        if len(found) >= n:
            return found[:n]
    return found


class Extraction:
    """The same texts, asked for by us and by `generate`."""

    def __init__(self, subject: PretrainedSubject, read_NM: Ints, *, a_round: int) -> None:
        self.subject, self.read_NM, self.a_round, self.at = subject, read_NM, a_round, 0
        self.start = subject.tokenizing.bos_id
        self.written_NT = self.generated(read_NM)
        own = subject.continue_(self.prompts(read_NM), n_tokens=SUFFIX)
        assert np.array_equal(own, self.written_NT), "batched generate writes something else"
        self.known_NM = np.concatenate([read_NM[:, :PROMPT], self.written_NT], axis=1)
        """Texts that the model writes itself: every suffix is known by heart."""

    def prompts(self, text_NM: Ints) -> Ints:
        """The start token, where there is one, and the first tokens."""
        start = [] if self.start is None else [np.full((len(text_NM), 1), self.start)]
        return np.concatenate([*start, text_NM[:, :PROMPT]], axis=1)

    def generated(self, text_NM: Ints) -> Ints:
        """What `generate` writes behind the prompts, as one batch."""
        given = torch.from_numpy(self.prompts(text_NM))
        model: Any = self.subject.model
        made = model.generate(
            given,
            attention_mask=torch.ones_like(given),
            do_sample=False,
            max_new_tokens=SUFFIX,
            eos_token_id=None,
            pad_token_id=0,
        )
        return np.asarray(made[:, given.shape[1] :].numpy())

    def loop(self) -> float:
        """Seconds a text of `generate`, one text at a time; other texts in each round."""
        rows = [(self.at + i) % len(self.read_NM) for i in range(self.a_round)]
        self.at += self.a_round
        began = time.process_time()
        written = [self.generated(self.read_NM[row : row + 1])[0] for row in rows]
        seconds = time.process_time() - began
        assert np.array_equal(written, self.written_NT[rows]), "generate one by one writes something else"
        return seconds / len(rows)

    def each(self, text_NM: Ints, ask: Callable[[Ints], Any], expected: Any) -> float:
        """Seconds a text of any of the others, whose answer is as `generate`'s."""
        began = time.process_time()
        found = ask(text_NM)
        seconds = time.process_time() - began
        assert np.array_equal(found, expected), "another answer than generate's"
        return seconds / len(text_NM)

    def contenders(self) -> Mapping[str, Callable[[], float]]:
        """`extractable`: only whether and how far a suffix is returned; `score`: token by token."""

        def score(text_NM: Ints) -> Any:
            return matches(self.subject, text_NM, prompt=PROMPT, start=self.start)

        def extractable(text_NM: Ints) -> Any:
            return continued(self.subject, text_NM, prompt=PROMPT, start=self.start)

        right_NT = self.written_NT == self.read_NM[:, PROMPT:]
        every = np.ones_like(right_NT)
        return {
            "generate, one by one": self.loop,
            "generate, one batch": lambda: self.each(self.read_NM, self.generated, self.written_NT),
            "extractable": lambda: self.each(self.read_NM, extractable, exact_prefix(right_NT)),
            "score": lambda: self.each(self.read_NM, score, right_NT),
            "score, known by heart": lambda: self.each(self.known_NM, score, every),
        }


def extraction(subject: PretrainedSubject, *, n: int, rounds: int) -> dict[str, Any]:
    """Seconds a text, and how many times as fast as `generate` one text at a time."""
    documents = texts(subject, n=n, most=PROMPT + SUFFIX + 10)
    encoded = subject.tokenizing.encode_all([document.text for document in documents])
    read_NM = np.stack([one.ids[: PROMPT + SUFFIX] for one in encoded]).astype(np.int64)
    asked = Extraction(subject, read_NM, a_round=ONE_BY_ONE)

    def tell(number: int, values: Mapping[str, float]) -> None:
        say(f"round {number}: " + ", ".join(f"{name} {value:.3f}" for name, value in values.items()))

    found: Compared = interleaved(asked.contenders(), rounds=rounds, on_round=tell)
    slowest = "generate, one by one"
    ratios = {name: found.ratio(slowest, to=name) for name in found.values if name != slowest}
    for name, ratio in ratios.items():
        say(f"{name}: {ratio.value or 0:.1f} times as fast [{ratio.low or 0:.1f}, {ratio.high or 0:.1f}]")
    right_NT = asked.written_NT == read_NM[:, PROMPT:]
    return {
        "texts": len(read_NM),
        "prompt": PROMPT,
        "suffix": SUFFIX,
        "right_before_first_wrong": exact_prefix(right_NT).tolist(),
        "right_in_place": right_NT.sum(axis=1).tolist(),
        "seconds_a_text": {name: round(found.middle(name), 3) for name in found.values},
        "times_as_fast_as_one_by_one": {name: estimate(ratio) for name, ratio in ratios.items()},
        "goal": GOAL,
        "met": {name: (ratio.low or 0.0) >= GOAL for name, ratio in ratios.items()},
    }


def perplexity(subject: PretrainedSubject, *, n: int, tokenizer: Any) -> dict[str, Any]:
    """Nats of whole texts by lm-evaluation-harness' own `loglikelihood_rolling`, and by the default rule."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    documents = texts(subject, n=n, most=5 * WINDOW)
    # Around a full last window, where an off-by-one would show.
    lengths = [WINDOW - 1, WINDOW, WINDOW + 1, 2 * WINDOW, 2 * WINDOW + 1, 3 * WINDOW - 1, 5 * WINDOW]
    cut = [
        document._replace(text=subject.tokenizing.decode(one.ids[:length].tolist()))
        for document, one, length in zip(
            documents,
            subject.tokenizing.encode_all([document.text for document in documents]),
            [lengths[i % len(lengths)] for i in range(n)],
            strict=False,
        )
    ]
    harness = HFLM(pretrained=subject.model, tokenizer=tokenizer, max_length=WINDOW, batch_size=1)
    requests = [Instance("loglikelihood_rolling", {}, (document.text,), i) for i, document in enumerate(cut)]
    theirs = -np.array(harness.loglikelihood_rolling(requests, disable_tqdm=True), dtype=np.float64)
    windows = Windows(cut, tokenizing=subject.tokenizing, rule=ReadingRule(window=WINDOW))
    every = np.arange(len(windows))
    loss = subject.score(windows.rows(every)).loss.sum(axis=1, dtype=np.float64)
    own = np.bincount(windows.document(), weights=loss, minlength=len(cut))
    differ = float(np.abs(own - theirs).max())
    say(f"perplexity: {len(cut)} texts, {len(every)} windows: at most {differ:.2g} nats apart")
    assert differ <= 1e-5 * theirs.max(), "another rolling perplexity than lm-evaluation-harness'"
    return {
        "texts": len(cut),
        "tokens": windows.n_tokens.tolist(),
        "windows": len(every),
        "nats": [round(value, 4) for value in theirs.tolist()],
        "largest_difference_nats": differ,
        "perplexity": math.exp(theirs.sum() / windows.n_tokens.sum()),
        "largest_difference_nats_a_token": float((np.abs(own - theirs) / windows.n_tokens).max()),
    }


def shown(subject: PretrainedSubject, tokens_BL: Ints) -> tuple[Sequence[NDArray[np.float32]], Floats]:
    """Every layer's attention by `output_attentions=True`, and the loss of each next token (B, L - 1)."""
    model: Any = subject.model
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        with torch.no_grad():
            answer = model(torch.from_numpy(tokens_BL), output_attentions=True)
    finally:
        model.set_attn_implementation(before)
    log_p = answer.logits[:, :-1].log_softmax(-1).gather(2, torch.from_numpy(tokens_BL)[:, 1:, None])
    return [layer.numpy() for layer in answer.attentions], -log_p[:, :, 0].double().numpy()


def heads(subject: PretrainedSubject, *, n: int) -> dict[str, Any]:
    """Scores of heads, and the loss of copies, against loops over what transformers shows."""
    over = EvalSet.whole(
        "texts",
        sequences=Windows(
            texts(subject, n=n, most=WINDOW - 9), tokenizing=subject.tokenizing, context=WINDOW
        ),
    )
    probe = CopyingProbe(
        on=("texts",), passages=(RandomTokens(n_tokens=DISTINCT, n_samples=SAMPLES),), n_copies=COPIES
    )
    items = next(one.items for one in probe.measure(subject, {"texts": over}) if one.items is not None)
    drawn, losses = np.asarray(items["ids"], dtype=np.int64), np.asarray(items["tokens"], dtype=np.float64)
    start = subject.tokenizing.bos_id
    assert start is not None, "these scores stand behind a start token"
    rows = np.concatenate([np.full((SAMPLES, 1), start), np.tile(drawn, (1, COPIES))], axis=1)
    patterns, loss = shown(subject, rows)
    match = prefix_matching(subject, drawn, n_copies=COPIES, start=start)
    read = over.sequences.rows(over.indices)
    of_text, _ = shown(subject, read.tokens)
    previous = previous_token(subject, over=over)
    apart = {"prefix_query": 0.0, "prefix_entry": 0.0, "previous_token": 0.0}
    for layer, head in np.ndindex(match.query_YH.shape):
        entries, queries, before = [], [], []
        for pattern, row in zip(patterns[layer][:, head], rows.tolist(), strict=True):
            for p in range(1 + DISTINCT, len(row)):
                followers = [float(pattern[p, t + 1]) for t in range(1, p) if row[t] == row[p]]
                entries += followers
                queries.append(sum(followers))
        for pattern, n_read in zip(of_text[layer][:, head], read.scored.sum(axis=1).tolist(), strict=True):
            before += [float(pattern[i, i - 1]) for i in range(1, n_read)]
        for name, own, theirs in (
            ("prefix_query", match.query_YH, queries),
            ("prefix_entry", match.entry_YH, entries),
            ("previous_token", previous, before),
        ):
            apart[name] = max(apart[name], abs(float(own[layer, head]) - float(np.mean(theirs))))
    apart["copy_loss_nats"] = float(np.abs(losses.reshape(SAMPLES, -1) - loss).max())
    say("heads: " + ", ".join(f"{name} {value:.2g} apart" for name, value in apart.items()))
    assert max(apart.values()) < 1e-3, "other scores than the loop's"
    best = np.unravel_index(int(match.query_YH.argmax()), match.query_YH.shape)
    return {
        "heads": int(match.query_YH.size),
        "best_prefix_query": {"head": [int(i) for i in best], "score": float(match.query_YH[best])},
        "largest_previous_token": float(previous.max()),
        "mean_loss_by_copy": [round(value, 4) for value in losses.mean(axis=(0, 2)).tolist()],
        "largest_difference": apart,
    }


def main() -> None:
    """Measures, prints, and writes `results/foreign.json`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="a folder in transformers' layout")
    parser.add_argument("--lm-eval", default=None, help="where lm_eval was installed to")
    parser.add_argument("--texts", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--try-out", action="store_true", help="write no result")
    given = parser.parse_args()
    from transformers import AutoTokenizer

    if given.lm_eval is not None:
        sys.path.append(given.lm_eval)
    torch.set_num_threads(1)
    subject = open_pretrained(given.model, device="cpu", dtype="float32")
    result = {
        "machine": machine("transformers", "lm_eval"),
        "model": {name: subject.record()[name] for name in ("class", "sha256", "n_params", "dtype")},
        "heads": heads(subject, n=4),
        "perplexity": perplexity(subject, n=7, tokenizer=AutoTokenizer.from_pretrained(given.model)),
        "extraction": extraction(subject, n=given.texts, rounds=given.rounds),
    }
    if not given.try_out:
        save("foreign", result)


if __name__ == "__main__":
    main()
