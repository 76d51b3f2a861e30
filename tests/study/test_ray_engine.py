"""A Ray cluster of several nodes on this machine computes what worker processes do, whatever dies."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from repetita.errors import EngineError, RunStopped, SpecError, UserError
from repetita.journal.folder import read_journal, status
from repetita.journal.storage import Storage
from repetita.study import ray_cluster
from repetita.study.engines import Errand, Needs
from repetita.study.execute import run_study
from repetita.study.progress import Sight, read_sight
from repetita.study.ray_cluster import MOST_ON_A_GPU, Node, check_room, gpu_share
from repetita.study.ray_engine import RayEngine, Sent
from repetita.study.ray_task import TOKEN, look
from repetita.study.stored_progress import StoredSights
from tests.study.places import Place, do

GENEROUS = 120.0


NODE: dict[str, Any] = {
    "num_cpus": 1,
    "memory": 1 << 30,
    "object_store_memory": 1 << 27,
    "include_dashboard": False,
}


@pytest.fixture(scope="module")
def head() -> Iterator[Any]:
    """A cluster of one node with a core."""
    from repetita.study.ray_cluster import SETTINGS

    os.environ |= SETTINGS
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    made: Any = Cluster(initialize_head=True, head_node_args=NODE)
    made.second = None
    yield made
    made.shutdown()


@pytest.fixture
def cluster(head: Any) -> Any:
    """A head and a second node with a core each."""
    if head.second not in head.worker_nodes:
        head.second = head.add_node(**NODE)
    return head


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
    """Whether the newest driver sees its two runs between that step and their last."""

    def look() -> bool:
        folders = (place.root / "studies" / "tiny_study-long").glob("work-*")
        newest = max(folders, key=lambda folder: folder.stat().st_ctime_ns, default=None)
        sights = [read_sight(file) for file in newest.glob("*.json")] if newest else []
        return len(sights) == 2 and all(one is not None and beyond < one.step < one.steps for one in sights)

    return look


@pytest.mark.slow
@pytest.mark.ci
def test_a_stop_and_a_node_that_dies_change_nothing(place: Place, cluster: Any) -> None:
    here = place._replace(root=place.root.parent / "here")
    do(here, scale="long")

    def run() -> Any:
        return run_study(place.study, scale="long", root=place.root, engine="ray", address=cluster.address)

    once(both_under_way(place, beyond=5), lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(RunStopped, match="2 runs to go"):
        run()
    runs = list((place.root / "runs").iterdir())
    assert [status(path) for path in runs] == ["unfinished"] * 2
    assert all(list(path.glob("checkpoints/*/position.json")) for path in runs)

    killer = once(
        both_under_way(place, beyond=100),
        lambda: cluster.remove_node(cluster.second, allow_graceful=False),
    )
    outcome = run()
    killer.join()
    assert (outcome.n_done, outcome.failed) == (2, ())
    resumed = [
        [line["kind"] for line in read_journal(path, journal="events")].count("resumed") for path in runs
    ]
    assert max(resumed) >= 1
    assert journals(place.root) == journals(here.root)


def start(place: Place, address: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "repetita", "study", "run", str(place.study), "--scale", "long"]
    command += ["--root", str(place.root), "--engine", "ray", "--address", address]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_two_drivers_and_one_that_is_killed(place: Place, cluster: Any) -> None:
    first = start(place, cluster.address)
    under_way = threading.Event()
    once(both_under_way(place, beyond=5), under_way.set).join()
    assert under_way.is_set()
    first.kill()
    first.communicate()
    # What the dead driver gave out may still be written; two more ask for it at the same time.
    drivers = [start(place, cluster.address) for _ in range(2)]
    for driver in drivers:
        said, complained = driver.communicate(timeout=2 * GENEROUS)
        assert (driver.returncode, said.splitlines()[-1][:6]) == (0, "2 runs"), complained
        assert not [line for line in complained.splitlines() if "ray" in line.lower()], complained
    assert [status(path) for path in (place.root / "runs").iterdir()] == ["done"] * 2
    here = place._replace(root=place.root.parent / "here")
    run_study(place.study, scale="long", root=here.root, processes=2)
    assert journals(place.root) == journals(here.root)


@pytest.mark.slow
def test_what_a_cluster_cannot_do_is_said_before_anything_is_trained(
    place: Place, cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(**options: Any) -> str:
        with pytest.raises(UserError) as error:
            run_study(
                place.study, scale="tiny", root=place.root, engine="ray", address=cluster.address, **options
            )
        assert not list(place.root.glob("runs/*"))
        assert not list(place.root.glob("studies/*/work-*")), "nothing is left behind"
        return str(error.value)

    assert "no node of the cluster has a GPU" in refused(device="cuda")
    with monkeypatch.context() as patch:
        patch.setattr(ray_cluster, "BLOCK", 1 << 34)
        assert "takes 1 CPU and 17.2 GB, and no node has room" in refused()
    with monkeypatch.context() as patch:
        patch.setattr(ray_cluster, "TOKEN", "another")
        blind = refused()
        assert blind.startswith("node ") and "it does not see" in blind and "--root" in blind


def test_options_that_cannot_be(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(**options: Any) -> str:
        with pytest.raises(UserError) as error:
            run_study(place.study, scale="tiny", root=place.root, **options)
        assert not place.root.exists()
        return str(error.value)

    assert "--address has no effect with --engine local" in refused(address="10.0.0.1:6379")
    assert "did you mean 'ray'?" in refused(engine="rays")
    assert "did you mean 'cuda'?" in refused(device="cud")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with monkeypatch.context() as patch:
        patch.setattr("importlib.util.find_spec", lambda name: None)
        assert "pip install 'repetita[ray]'" in refused(engine="ray")
    pytest.importorskip("ray")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        assert f"no Ray cluster answers at 127.0.0.1:{port}" in refused(
            engine="ray", address=f"127.0.0.1:{port}"
        )
    assert "HOST:PORT" in refused(engine="ray", address="ray://10.0.0.1:10001")


def test_a_gpu_where_none_is(place: Place) -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(SpecError, match="torch sees no GPU"):
        run_study(place.study, scale="tiny", root=place.root, device="cuda")
    assert not list(place.root.glob("runs/*"))


def test_a_node_says_why_it_cannot_take_part(place: Place, tmp_path: Path) -> None:
    errand = Errand.of([place.portion()], root=place.root)
    assert Errand.from_json(errand.as_json()) == errand
    folder = tmp_path / "work"
    assert "does not see" in json.loads(look(errand.as_json(), str(folder)))[0]
    folder.mkdir()
    (folder / TOKEN).write_text("another folder of this name")
    assert "does not see" in json.loads(look(errand.as_json(), str(folder)))[0]
    (folder / TOKEN).write_text(folder.name)
    assert json.loads(look(errand.as_json(), str(folder)))[0] == ""
    place.edit("A tiny study", "Another study")
    assert "was changed" in json.loads(look(errand.as_json(), str(folder)))[0]


def test_shares_of_a_gpu_and_room_on_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    gigabyte = 1_000_000_000
    small = Needs(gigabyte, 1.0, gpu_memory=10 * gigabyte)
    assert gpu_share(small, gpu_bytes=80 * gigabyte) == 0.1428  # seven of them fit into nine tenths
    assert gpu_share(small._replace(gpu_memory=1), gpu_bytes=80 * gigabyte) == 1 / MOST_ON_A_GPU
    assert gpu_share(small._replace(gpu_memory=73 * gigabyte), gpu_bytes=80 * gigabyte) == 0.0
    assert gpu_share(small, gpu_bytes=0) == 1.0
    node = Node("id", "host (10.0.0.1)", 4.0, 3.3 * gigabyte, 2.0)
    assert node.holds(small, gpu_share=0.0) == 3, "memory is given out in blocks"
    assert node.holds(small._replace(memory=1), gpu_share=0.0) == 4
    assert node.holds(small._replace(memory=1), gpu_share=1.0) == 2
    assert node.holds(small._replace(memory=4 * gigabyte), gpu_share=0.0) == 0
    monkeypatch.setattr("repetita.study.ray_cluster.nodes", lambda: [node])
    check_room({"run": small}, cuda=True, gpu_bytes=80 * gigabyte)
    with pytest.raises(
        EngineError, match=r"run takes 10 GB of a GPU, and a node of the cluster has 8 GB; it cannot be"
    ):
        check_room({"run": small}, cuda=True, gpu_bytes=8 * gigabyte)
    with pytest.raises(EngineError, match=r"run takes 1 CPU and 4.03 GB, and no node has room"):
        check_room({"run": small._replace(memory=4 * gigabyte)}, cuda=False, gpu_bytes=0)


def test_runs_that_no_node_has_room_for_any_more_are_not_waited_for_without_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    needs = Needs(1 << 28, 1.0)
    big, small = (Node("id", "host", 1.0, float(memory), 0.0) for memory in (1 << 28, 1 << 20))
    engine = RayEngine.__new__(RayEngine)
    engine._cuda, engine._sent = False, {}
    assert engine._goes_on([])
    engine._sent["a task"] = Sent("a" * 64, 1, Sight(order=1), needs)
    assert engine._goes_on([small, big]) and not engine._goes_on([small]) and not engine._goes_on([])
    engine._sent["another"] = Sent("b" * 64, 2, Sight(order=2, state="running"), needs)
    assert engine._goes_on([small])
    said: list[str] = []
    monkeypatch.setattr(ray_cluster.log, "warning", lambda text, *_: said.append(text))
    monkeypatch.setattr(ray_cluster, "WITHOUT_SECONDS", 900.0)
    without = ray_cluster.Without()
    for room in (False, True, False, False):
        without.note(room=room)
    assert [text.partition(" that")[0] for text in said] == ["no node of the Ray cluster"] * 2
    monkeypatch.setattr(ray_cluster, "WITHOUT_SECONDS", -1.0)
    without.note(room=True)
    without.note(room=False)
    with pytest.raises(EngineError, match="run the same command again to continue"):
        without.note(room=False)


def test_a_node_that_cannot_take_part_does_not_fail_run_after_run(tmp_path: Path) -> None:
    ray = pytest.importorskip("ray")

    class Blind:
        exceptions = ray.exceptions
        cancelled: list[str] = []  # noqa: RUF012

        def get(self, _: str) -> str:
            raise ray.exceptions.RayTaskError("do", "", EngineError("it does not see the folder"))

        def cancel(self, reference: str, **_: bool) -> None:
            self.cancelled.append(reference)

        def wait(self, references: list[str], **_: float) -> tuple[list[str], list[str]]:
            return references, []

    engine: Any = RayEngine.__new__(RayEngine)
    engine._ray, engine._folder = Blind(), tmp_path
    engine._sent = {name: Sent(name, 1, Sight(order=1), Needs(1, 1.0)) for name in ("this", "that")}
    with pytest.raises(EngineError, match="joined the cluster cannot take part: it does not see"):
        engine._end("this")
    assert Blind.cancelled == ["that"], "those that are computed write their checkpoints"


def test_a_driver_that_is_stopped_takes_its_progress_out_of_the_storage(tmp_path: Path) -> None:
    storage = Storage.open(f"memory://{tmp_path.name}-stopped")
    storage.put("progress/work-1/a.json", b"{}")
    engine = RayEngine.__new__(RayEngine)
    engine._opened, engine._sent = False, {}
    engine._sights = StoredSights(storage, work=Path("work-1"))
    engine.kill()
    assert not storage.names("progress/work-1")


def test_a_head_that_answers_no_more_is_not_waited_for_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_cluster, "COUNT_SECONDS", -1.0)
    with socket.socket() as listens:
        listens.bind(("127.0.0.1", 0))
        listens.listen()
        port = listens.getsockname()[1]
        head = ray_cluster.Head(f"127.0.0.1:{port}")
        assert head.ask()
    assert not head.ask(), "it may come back"
    monkeypatch.setattr(ray_cluster, "HEAD_SECONDS", -1.0)
    with pytest.raises(EngineError, match=f"head of the Ray cluster at 127.0.0.1:{port} answers no more"):
        head.ask()
