"""Spikes of loss or gradient norm: named as events, never acted upon."""

import math
from collections import deque
from collections.abc import Sequence

from repetita.journal.records import StepRecord

WINDOW = 128
"""Steps before the one that is judged."""
LEAST = 32
"""Steps there must be before any is judged."""
SIGMAS = 6.0
"""Standard deviations above the window's mean that make a spike (as in OLMo-core)."""


class Spikes:
    """Watches the steps of a run; a pure function of their records, so that a resumed run agrees.

    A spike is above all of the window and six standard deviations above its mean.
    """

    def __init__(self) -> None:
        self._recent: dict[str, deque[float]] = {
            "loss": deque(maxlen=WINDOW),
            "gradient norm": deque(maxlen=WINDOW),
        }

    def see(self, record: StepRecord) -> list[str]:
        """Adds a step; a sentence for each of its values that stands out. Empty steps do not count."""
        n = sum(lane[2] for lane in record.sets.values())
        if n == 0:
            return []
        found = []
        loss = sum(lane[0] for lane in record.sets.values()) / n
        for (name, recent), value in zip(self._recent.items(), (loss, record.gradient_norm), strict=True):
            if len(recent) >= LEAST and value > max(recent):
                # fsum is exact, so that the result does not depend on the order of the window.
                mean = math.fsum(recent) / len(recent)
                variance = math.fsum([(x - mean) ** 2 for x in recent]) / len(recent)
                limit = mean + SIGMAS * max(math.sqrt(variance), 1e-3 * mean)
                if value > limit:
                    found.append(
                        f"{name} {value:.6g}, {SIGMAS:.0f} sigmas above the last {len(recent)} steps"
                    )
            recent.append(value)
        return found

    def recall(self, records: Sequence[StepRecord]) -> None:
        """Adds steps of before, to go on from there."""
        for record in [record for record in records if record.sets][-WINDOW:]:
            self.see(record)
