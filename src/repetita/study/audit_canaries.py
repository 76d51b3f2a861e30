"""What stands beside the exposure of canaries: its interval, whether it is a bound, and a fitted tail."""

from collections.abc import Sequence
from typing import Any

from repetita.fit.exposure import exposure_estimates
from repetita.journal.records import Reading
from repetita.measure.canaries import CanaryProbe
from repetita.measure.probe import PassProbe


def beside_exposure(probe: PassProbe, /, readings: Sequence[Reading]) -> dict[str, dict[str, Any]]:
    """`low`, `high` and `note` of each metric of canaries; nothing for other probes, and without a value."""
    items = next((one.items for one in readings if one.items is not None), None)
    if not isinstance(probe, CanaryProbe) or items is None:
        return {}
    return {
        f"exposure_{one.written}": {"low": one.sampled.low, "high": one.sampled.high, "note": one.text}
        for one in exposure_estimates(items, space=probe.canaries.space)
    }
