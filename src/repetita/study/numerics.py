"""The numerics guard: a sample of an audit's rows again in float32 at batch 1, and what rounding changed.

Shapes: B rows of a batch, L tokens of a row.
"""

import hashlib
from typing import NamedTuple

import numpy as np

from repetita.corpus.windows import Windows
from repetita.measure.probe import EvalSet, questions
from repetita.study.audit_rows import TEXTS
from repetita.subject import Deciding

NEAR_NATS = 0.01
"""Two tokens are nearly tied where their logits are closer than this, in float32."""


class Guard(NamedTuple):
    """What a sample of tokens says about the rounding of an audit."""

    tokens: int
    flips: int
    """Tokens whose most likely token is another one in float32 at batch 1."""
    hit_changes: int
    """Tokens that are memorized in one of the two only."""
    near_ties: int
    """Tokens whose two most likely tokens are within NEAR_NATS: where a flip is to be expected."""
    largest_difference: float
    """Of the loss of a token, nats."""
    mean_difference: float
    """Mean of the losses of the audit less those in float32: what rounding adds to the loss, nats."""

    @property
    def text(self) -> str:
        """In a sentence."""
        n = max(self.tokens, 1)
        return (
            f"in float32 at batch 1, {self.flips / n:.2%} of {self.tokens} tokens have another most likely "
            f"token ({self.hit_changes / n:.2%} another hit), {self.near_ties / n:.2%} are near ties; losses "
            f"differ by up to {self.largest_difference:.2g} nats, on average {self.mean_difference:+.2g}"
        )


def guard(subject: Deciding, /, *, exact: Deciding, over: EvalSet) -> Guard:
    """Compares a subject as it was asked with itself in float32, a row at a time, on the rows of a set."""
    tokens = flips = hits = ties = 0
    largest, total = 0.0, 0.0
    for _, _, asked in questions(subject, over=over):
        for rows in asked:
            own, right = subject.predict(rows), exact.predict(rows)
            here = rows.scored
            assert own.predicted is not None
            assert right.predicted is not None
            apart = (own.loss.astype(np.float64) - right.loss)[here]
            tokens += int(here.sum())
            flips += int((own.predicted != right.predicted)[here].sum())
            hits += int((own.hit != right.hit)[here].sum())
            ties += int((exact.margins(rows) < NEAR_NATS)[here].sum())
            largest, total = max(largest, float(np.abs(apart).max(initial=0))), total + float(apart.sum())
    return Guard(tokens, flips, hits, ties, largest, total / max(tokens, 1))


def sample(windows: Windows, /, *, most: int) -> EvalSet:
    """At most so many rows, always the same ones of the same texts, in whatever order these come."""
    texts = windows.document()
    numbers = np.arange(len(windows))
    keys = [
        hashlib.sha256(f"{windows.texts[text].text}\n{offset}".encode()).digest()
        for text, offset in zip(texts.tolist(), windows.offset().tolist(), strict=True)
    ]
    chosen = sorted(numbers.tolist(), key=lambda number: keys[number])[:most]
    return EvalSet(TEXTS, windows, np.array(sorted(chosen), dtype=np.int64))
