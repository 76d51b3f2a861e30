"""The floors of the house hold: imports go down, and the torch-free half needs no torch."""

import json
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from importlinter.cli import lint_imports

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src"
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
CONTRACTS: dict[str, dict[str, Any]] = {contract["id"]: contract for contract in SETTINGS["contracts"]}

HEAVY = ("torch", "transformers")

BLOCKED = """
import sys

class Without:
    # As if not installed: a library may ask whether torch is there (polars does), and hears no.
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in BLOCKED else self.finder.find_spec(name, path, target)

    def __getattr__(self, name):
        return getattr(self.finder, name)

sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
"""


def python(code: str, *, blocked: tuple[str, ...] = HEAVY, cwd: Path | None = None) -> str:
    """What `code` prints in a fresh interpreter that cannot import `blocked`."""
    code = f"BLOCKED = {blocked!r}\n{BLOCKED}\n{code}"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=cwd, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def command(line: str) -> str:
    """Code that runs the command line and swallows a plain exit."""
    return (
        f"sys.argv = {['repetita', *line.split()]!r}\n"
        "from repetita.cli import main\n"
        "try:\n    main()\n"
        "except SystemExit as stop:\n    assert not stop.code, stop.code\n"
    )


def modules_below(name: str) -> list[str]:
    """The module `name`, and all that are inside it when it is a package."""
    place = SOURCE.joinpath(*name.split("."))
    if not place.is_dir():
        assert place.with_suffix(".py").is_file(), f"{name} is in a contract and does not exist"
        return [name]
    files = sorted(place.rglob("*.py"))
    return [
        ".".join(file.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__") for file in files
    ]


def test_every_contract_is_kept(capsys: pytest.CaptureFixture[str]) -> None:
    failed = lint_imports(config_filename=str(ROOT / "pyproject.toml"), no_cache=True, no_logo=True)
    assert not failed, capsys.readouterr().out


def test_contracts_name_the_half_without_torch() -> None:
    contract = CONTRACTS["torch-free"]
    assert set(contract["forbidden_modules"]) == set(HEAVY)
    whole = {"journal", "corpus", "measure", "fit", "report", "studies"}
    single = {"study.plan", "study.collect", "train.recipe", "model.config"}
    assert set(contract["source_modules"]) == {f"repetita.{name}" for name in whole | single}


def test_modules_import_with_torch_blocked() -> None:
    """A linter misses what a library pulls in, so the modules are imported without torch at hand."""
    names = [
        module for source in CONTRACTS["torch-free"]["source_modules"] for module in modules_below(source)
    ]
    python("import importlib\n" + "\n".join(f"importlib.import_module({name!r})" for name in names))


def test_worker_imports_with_tables_and_drawing_blocked() -> None:
    contract = CONTRACTS["worker"]
    names = [module for source in contract["source_modules"] for module in modules_below(source)]
    code = "import importlib\n" + "\n".join(f"importlib.import_module({name!r})" for name in names)
    python(code, blocked=tuple(contract["forbidden_modules"]))


@pytest.mark.parametrize(
    "line", ["--help", "study --help", "study list", "study plan double_descent --scale tiny"]
)
def test_commands_run_with_torch_blocked(line: str, tmp_path: Path) -> None:
    python(command(line), cwd=tmp_path)


def test_help_loads_nothing_heavy(tmp_path: Path) -> None:
    show = "import json\nprint(json.dumps(sorted(sys.modules)))"
    printed = python(command("--help") + show, blocked=(), cwd=tmp_path)
    loaded = set(json.loads(printed.splitlines()[-1]))
    heavy = {*HEAVY, "polars", "scipy", "altair", "vl_convert", "tokenizers"}
    assert not loaded & heavy, "import these inside the command that needs them"


def test_top_level_import_is_lazy() -> None:
    printed = python("import json, repetita\nprint(json.dumps(sorted(sys.modules)))", blocked=())
    loaded = set(json.loads(printed))
    assert not loaded & {*HEAVY, "polars", "scipy", "altair", "numpy"}
