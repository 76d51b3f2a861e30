"""The README is true: its tree is the code's, its commands and targets exist, its links lead somewhere."""

import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from tools.readme_tree import WIDTH, first_sentence, modules, replaced, tree

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
GENERATED = ("commands.md", "python.md", "files.md")
"""Pages of the documentation that only its site has; `tests/test_docs.py` follows every link there."""
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])

CODE = "\n".join(re.findall(r"^```(?:bash|sh|console)\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL))
COMMANDS = sorted(
    {line.split("#")[0].strip() for line in re.findall(r"^(?:\$ )?repetita (.+)$", CODE, re.MULTILINE)}
)
TARGETS = sorted(set(re.findall(r"\bmake ([a-z][a-z-]+)", CODE)))


@cache
def help_of(verbs: tuple[str, ...]) -> str:
    """What the command line says about a verb; fails when there is no such verb."""
    code = f"import sys; sys.argv = {['repetita', *verbs, '--help']!r}; from repetita.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=os.environ | {"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"},
    )
    assert done.returncode == 0, f"repetita {' '.join(verbs)}: {done.stderr}"
    return done.stdout


def verbs_of(command: str) -> tuple[str, ...]:
    """The verb, and the verb below it for those that have such."""
    parts = command.split()
    return tuple(parts[:2] if parts[0] in ("study", "corpus", "canaries") else parts[:1])


def test_tree_is_that_of_the_code() -> None:
    assert replaced(README) == README, "run make readme"


def test_tree_holds_every_module_and_fits_the_page() -> None:
    drawn = tree()
    for file in (ROOT / "src" / "repetita").rglob("*.py"):
        if file in modules(file.parent):
            assert file.name in drawn
            assert first_sentence(file), file
    assert max(map(len, drawn.splitlines())) <= WIDTH


@pytest.mark.parametrize("command", COMMANDS)
def test_command_exists_with_its_options(command: str) -> None:
    verbs = verbs_of(command)
    if verbs[0].startswith("-"):
        verbs = ()
    said = help_of(verbs)
    for option in re.findall(r"(?<=\s)--[a-z][a-z-]*", f" {command}"):
        assert option in said, f"repetita {' '.join(verbs)} has no {option}"


def test_readme_shows_commands_and_targets() -> None:
    assert COMMANDS
    assert {"demo", "test"} <= set(TARGETS)


def test_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert set(TARGETS) <= set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", text) + re.findall(r'(?:src|srcset|href)="([^"#]+)"', text)
    missing = [
        link
        for link in links
        if "://" not in link and link not in GENERATED and not (page.parent / link).exists()
    ]
    assert not missing, f"{page.name}: {missing}"
