"""A Ray cluster of several nodes on this machine computes what worker processes do, whatever dies."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from repetita.errors import EngineError, RunStopped, SpecError
from repetita.journal.folder import read_journal, status
from repetita.study.execute import run_study
from repetita.study.progress import read_sight
from tests.study.places import Place

GENEROUS = 300.0


@pytest.fixture
def cluster() -> Iterator[Any]:
    """A head and a second node with a core each."""
    from repetita.study.ray_cluster import SETTINGS

    os.environ |= SETTINGS
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "memory": 1 << 30, "object_store_memory": 1 << 27, "include_dashboard": False}
    made = Cluster(initialize_head=True, head_node_args=node)
    made.second = made.add_node(**node)
    yield made
    made.shutdown()


def journals(root: Path) -> dict[str, list[dict[str, Any]]]:
    """What the runs of a root say, but for times and events."""
    return {
        f"{run.name}/{name}": [
            {key: value for key, value in line.items() if key != "seconds"}
            for line in read_journal(run, journal=name)
        ]
        for run in sorted((root / "runs").iterdir())
        for name in ("steps", "measurements")
    }


def once(what: Callable[[], bool], act: Callable[[], object]) -> threading.Thread:
    """Has something done, from a thread, as soon as something is the case."""

    def watch() -> None:
        until = time.monotonic() + GENEROUS
        while not what() and time.monotonic() < until:
            time.sleep(0.02)
        act()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread


def both_under_way(place: Place, *, beyond: int) -> Callable[[], bool]:
    def look() -> bool:
        files = (place.root / "studies" / "tiny_study-long").glob("work-*/*.json")
        sights = [read_sight(file) for file in files]
        return len(sights) == 2 and all(one is not None and beyond < one.step < one.steps for one in sights)

    return look


@pytest.mark.slow
@pytest.mark.ci
def test_a_stop_and_a_node_that_dies_change_nothing(place: Place, cluster: Any) -> None:
    here = place._replace(root=place.root.parent / "here")
    run_study(place.study, scale="long", root=here.root, processes=2)

    def run() -> Any:
        return run_study(
            place.study, scale="long", root=place.root, engine="ray", address=cluster.address
        )

    once(both_under_way(place, beyond=5), lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(RunStopped, match="2 runs to go"):
        run()
    runs = list((place.root / "runs").iterdir())
    assert [status(path) for path in runs] == ["unfinished"] * 2
    assert all(list(path.glob("checkpoints/*/position.json")) for path in runs)

    killer = once(
        both_under_way(place, beyond=300),
        lambda: cluster.remove_node(cluster.second, allow_graceful=False),
    )
    outcome = run()
    killer.join()
    assert (outcome.n_done, outcome.failed) == (2, ())
    resumed = [[line["kind"] for line in read_journal(path, journal="events")].count("resumed") for path in runs]
    assert max(resumed) >= 1
    assert journals(place.root) == journals(here.root)
