"""What is printed for a terminal cannot move its cursor or paint it."""

import io
import unicodedata

from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from repetita.report.terminal import findings_lines, findings_table, printable
from tests.report import samples

EVIL = "\x1b]0;owned\x07[bold red]x[/bold red]\u202eabc\r\n"


def test_findings_show_verdict_estimate_and_n():
    out = io.StringIO()
    Console(file=out, width=120).print(findings_table(samples.claims(), title="Findings"))
    for claim in samples.claims():
        assert claim.verdict in out.getvalue()
        assert claim.estimate is not None
        assert claim.estimate.text() in out.getvalue()
    assert len(findings_lines(samples.claims())) == 4


def test_hostile_names_stay_inert():
    claim = samples.claims()[0]._replace(statement=EVIL, note=EVIL)
    out = io.StringIO()
    Console(file=out, width=200, force_terminal=True, color_system=None).print(
        findings_table([claim], title=EVIL)
    )
    assert "[bold red]x[/bold red]" in out.getvalue()
    assert "\x1b]0" not in out.getvalue()
    assert "\u202e" not in out.getvalue()
    assert "\x1b" not in findings_lines([claim])[0]


@given(st.text())
def test_printable_text_has_no_control_characters(text):
    assert not {unicodedata.category(char) for char in printable(text)} & {"Cc", "Cf", "Cs", "Zl", "Zp"}
