"""Stop requests (SIGTERM, Ctrl-C) kept until the loop has a moment to honour them."""

import signal
import threading
from types import FrameType
from typing import Any, Self

SIGNALS = (signal.SIGTERM, signal.SIGINT)
STOPS = tuple(number.name for number in SIGNALS)


class StopRequests:
    """While entered, notes the first stop signal in `asked`; a second one acts as it did before.

    One that is entered within another tells it, so that what is too late for the inner is known to the outer.
    Outside the main thread, where Python takes no signals, it notes nothing.
    """

    def __init__(self) -> None:
        self._asked: str | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)
        self._before = {}

    @property
    def asked(self) -> str | None:
        """The name of the first signal; None before it."""
        return self._asked

    def _note(self, number: int, _: FrameType | None) -> None:
        self._asked = signal.Signals(number).name
        outer = getattr(self._before.get(number), "__self__", None)
        self.__exit__()
        if isinstance(outer, StopRequests):
            outer._note(number, None)
