"""What a person sees: one line for a view, a table on a terminal, nothing when quiet."""

import io

from rich.console import Console

from repetita.study.display import OnTerminal, Plain, Running, Silent, View
from repetita.study.progress import Sight

SIGHT = Sight(order=1, state="running", step=30, steps=60, tokens_per_second=12_000.0)
VIEW = View(n_runs=5, n_done=2, n_failed=1, running=[Running("25k-[red]-s0", SIGHT)], seconds_left=600.0)


def test_a_view_in_a_line() -> None:
    assert VIEW.line() == "2/5 done, 1 failed, 1 running, 12k tokens/s, about 10 min left"


def test_plain_lines_now_and_then() -> None:
    file = io.StringIO()
    plain = Plain(file)
    plain.update(VIEW)
    plain.say("done x")
    plain._last -= 100
    plain.update(VIEW)
    plain.update(VIEW)
    plain.close()
    assert file.getvalue().splitlines() == ["done x", VIEW.line()]


def test_silence() -> None:
    file = io.StringIO()
    silent = Silent(file)
    silent.say("x")
    assert not file.getvalue()


def test_a_table_on_a_terminal() -> None:
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=120, no_color=True)
    display = OnTerminal(console)
    display.update(VIEW)
    display.say("done [bold]x")
    display.update(VIEW)
    display.close()
    text = file.getvalue()
    for part in (
        "25k-[red]-s0",
        " 50%",
        "12k tokens/s",
        "2 of 5 runs done",
        "10 min left",
        "1 failed",
        "[bold]x",
    ):
        assert part in text
    assert "\x1b[31m" not in text
