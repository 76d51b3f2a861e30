"""Studies in a storage: another machine goes on with them, and has their page, from what was pushed."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from repetita.journal.folder import status
from repetita.study.execute import run_study
from tests.study.places import write_study


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of a bucket on a server of this machine."""
    server = pytest.importorskip("moto.server").ThreadedMotoServer(port=0, verbose=False)
    boto3 = pytest.importorskip("boto3")
    pytest.importorskip("s3fs")
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    boto3.client("s3").create_bucket(Bucket="bucket")
    yield "s3://bucket/here"
    server.stop()


@pytest.mark.slow
@pytest.mark.ci
def test_a_study_on_s3_is_gone_on_with_and_reported_elsewhere(tmp_path: Path, s3: str) -> None:
    place = write_study(tmp_path)
    outcome = run_study(place.study, scale="tiny", root=tmp_path / "a", processes=2, storage=s3)
    assert not outcome.failed
    (tmp_path / "corpus").rename(tmp_path / "gone")
    again = run_study(place.study, scale="tiny", root=tmp_path / "b", processes=2, storage=s3)
    assert again.n_present == again.n_runs and not again.n_done
    command = [sys.executable, "-m", "repetita", "study", "report", str(place.study), "--storage", s3]
    done = subprocess.run(
        [*command, "--root", str(tmp_path / "c")], capture_output=True, text=True, env=os.environ
    )
    assert done.returncode == 0, done.stderr
    runs = list((tmp_path / "c" / "runs").iterdir())
    assert len(runs) == outcome.n_runs and {status(run) for run in runs} == {"done"}
    assert not list((tmp_path / "c").rglob("*.safetensors")) or not list(
        (tmp_path / "c").rglob("checkpoints")
    )
