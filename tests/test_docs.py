"""The documentation is true: it builds strictly, loads nothing from elsewhere, and shows what there is."""

import importlib.resources
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import repetita
from tests.test_readme import help_of, verbs_of
from tools import docs

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted((ROOT / "docs").glob("*.md"))

LOADED = re.compile(r"""<(?:script|img|iframe|source)[^>]*\bsrc=["']?(?:https?:)?//""")
LINKED = re.compile(r"""<link[^>]*\bhref=["']?(?:https?:)?//""")
STYLED = re.compile(r"""(?:@import\s*|url\()["']?(?:https?:)?//""")


def blocks(page: Path, *languages: str) -> list[str]:
    """The code blocks of a page in one of these languages."""
    text = page.read_text(encoding="utf-8")
    return re.findall(rf"^```(?:{'|'.join(languages)})\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


COMMANDS = sorted(
    {
        line.split("#")[0].strip()
        for page in PAGES
        for block in blocks(page, "bash")
        for line in re.findall(r"^repetita (.+)$", block, re.MULTILINE)
    }
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.mark.slow
@pytest.mark.ci
def test_every_page_is_there_and_loads_nothing_from_elsewhere(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    assert {page.stem for page in pages} >= {page.stem for page in PAGES} | {"commands", "python", "files"}
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert not LOADED.search(text), page.name
        assert not LINKED.search(text), page.name
        assert not STYLED.search(text), page.name
    for sheet in site.rglob("*.css"):
        assert not STYLED.search(sheet.read_text(encoding="utf-8")), sheet.name


def test_the_reference_holds_every_public_name_once() -> None:
    names = [name for group in docs.GROUPS.values() for name in group.split()]
    assert sorted(names) == sorted(repetita.__all__)
    page = docs.python()
    for name in names:
        assert f"\n### {name}\n" in page


def test_the_reference_holds_every_verb_as_it_helps_itself() -> None:
    verbs = list(docs.verbs())
    assert {(), ("watch",), ("study", "new"), ("corpus", "build")} <= set(verbs)
    assert ("work",) not in verbs
    page = docs.commands()
    for words in verbs:
        assert f"## repetita {' '.join(words)}".rstrip() + "\n" in page
    assert "--log-dir" in docs.help_of(("watch",))


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_that_is_shown_exists_with_its_options(command: str) -> None:
    said = help_of(verbs_of(command))
    for option in re.findall(r"(?<=\s)--[a-z][a-z-]*", f" {command}"):
        assert option in said, f"repetita {command} has no {option}"


def test_the_walk_through_shows_the_file_that_study_new_writes() -> None:
    template = (
        importlib.resources.files("repetita.study").joinpath("template.txt").read_text(encoding="utf-8")
    )
    page = ROOT / "docs" / "your-study.md"
    shown = [block for block in blocks(page, "python") if "import repetita" not in block]
    assert len(shown) >= 5
    plain = [line.split("  # ")[0].strip() for line in template.splitlines()]
    for block in shown:
        for line in textwrap.dedent(block).splitlines():
            assert line.split("  # ")[0].strip() in plain, f"the template has no line: {line}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_on_a_page_is_python(page: Path) -> None:
    for block in blocks(page, "python"):
        compile(f"def page():\n{textwrap.indent(block, '    ')}", page.name, "exec")
