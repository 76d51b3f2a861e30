"""`repetita watch`: a table, lines or JSON of what runs have written; to a tracker without torch."""

import json
import signal
import subprocess
import sys
import time

import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

from repetita.cli.app import app
from repetita.cli.watch import line, table
from repetita.errors import SpecError
from repetita.study.watch import Seen
from tests.study.places import Place
from tests.test_layers import BLOCKED, command

RUNNING = Seen("25k-stream-s0", "running", 3, 8, 2.5, 16_000.0, 0.25, "repeated at 2", "spike: x")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_once_is_a_table_and_a_sum(done: Place) -> None:
    said = run("watch", "--root", done.root, "--once").stdout.splitlines()
    assert said[0].split() == ["run", "state", "step", "loss", "tokens/s", "M(f)", "of"]
    assert said[-1] == "5 runs: 5 done"
    assert len(said) == 7
    rows = json.loads(run("watch", "tiny_study-tiny", "--root", done.root, "--once", "--json").stdout)
    assert {(row["state"], row["step"], row["steps"]) for row in rows} == {("done", 12, 12), ("done", 6, 6)}


def test_following_runs_that_have_ended_says_a_line_each(done: Place) -> None:
    said = run("watch", "--root", done.root).stdout.splitlines()
    assert len(said) == 6
    assert all(": done, step " in one and "M(f) of " in one for one in said[:5])
    followed = run("watch", "--root", done.root, "--json").stdout.splitlines()
    assert [json.loads(one)["state"] for one in followed] == ["done"] * 5
    assert run("-q", "watch", "--root", done.root).stdout == "5 runs: 5 done\n"


def test_copying_says_where_to_look(done: Place) -> None:
    said = run("watch", "--root", done.root, "--once", "--to", "tensorboard")
    assert "tensorboard --logdir" in said.stderr
    assert "new lines copied" in said.stdout
    again = run("watch", "--root", done.root, "--once", "--to", "tensorboard")
    assert again.stdout == "5 runs: 5 done, 0 new lines copied\n"


def test_mistakes(done: Place) -> None:
    for arguments, hint in (
        (("--to", "tensorbored"), "valid: tensorboard, wandb"),
        (("--log-dir", "here"), "no effect without --to"),
    ):
        said = run("watch", "--root", done.root, *arguments)
        assert isinstance(said.exception, SpecError)
        assert hint in str(said.exception)


def test_copying_never_reaches_torch(done: Place) -> None:
    code = command(f"watch --root {done.root} --once --to tensorboard")
    code = f"BLOCKED = ('torch', 'transformers', 'polars', 'scipy')\n{BLOCKED}\n{code}"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, capture_output=True)


def test_ctrl_c_ends_the_watch_and_nothing_else(done: Place) -> None:
    next((done.root / "runs").glob("*/done")).unlink()
    arguments = [sys.executable, "-m", "repetita", "watch", "--root", str(done.root)]
    watch = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert watch.stdout is not None
    assert watch.stdout.readline()
    time.sleep(0.2)
    watch.send_signal(signal.SIGINT)
    _, said = watch.communicate(timeout=30)
    assert watch.returncode == 0
    assert said == "stopped watching; the runs go on\n"


@pytest.mark.parametrize("n_runs", [1, 60])
def test_the_live_table_shows_what_goes_on_first(n_runs: int) -> None:
    runs = [RUNNING._replace(run=f"run-{number}", state="done") for number in range(n_runs)] + [RUNNING]
    console = Console(width=120, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    console.print(table(runs))
    lines = console.export_text().splitlines()
    assert lines[1].split()[:2] == ["25k-stream-s0", "running"]
    assert lines[-1].strip() == f"{n_runs + 1} runs: 1 running, {n_runs} done"
    assert len(lines) <= 43


def test_a_run_in_one_line() -> None:
    assert line(RUNNING) == (
        "25k-stream-s0: running, step 3/8, loss 2.500, 16k tokens/s, M(f) of repeated at 2: 0.250"
    )
    failed = RUNNING._replace(state="failed", message="the loss is nan")
    assert line(failed).endswith("the loss is nan")
