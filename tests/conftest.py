"""What holds for every test: property tests try the same examples each time, denormals are numbers again."""

import gc
import re
import signal
import sys

import pytest
from hypothesis import settings

# The same examples on every machine: a property that fails in CI fails here, too.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")


def pytest_runtest_teardown(item: pytest.Item) -> None:
    """Undo what `model.device.setup` sets for the whole process: numpy and hypothesis want denormals."""
    if torch := sys.modules.get("torch"):
        torch.set_flush_denormal(False)


@pytest.fixture(scope="session", autouse=True)
def _interruptible() -> None:
    """A shell starts what it puts into the background with Ctrl-C ignored, and children inherit that."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Studies that are planned for a night are slow to analyse, too; files with slow tests come first.

    Workers take file after file, and none is to begin its longest last.
    """
    for item in items:
        if "overnight" in re.split(r"[\[\]-]", item.name):
            item.add_marker(pytest.mark.slow)
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def pytest_collection_finish() -> None:
    """What modules and thousands of tests hold stays, and is not looked through again by each collection."""
    gc.collect()
    gc.freeze()
