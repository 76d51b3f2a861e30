"""Names follow docs/vocabulary.md, and everything public says what it is."""

import ast
import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src" / "repetita"
FILES = sorted(SOURCE.rglob("*.py"))

FORBIDDEN = {
    "epoch": "pass (times a set was seen)",
    "finetune": "a run from run@step or hf:name@revision",
    "dataloader": "schedule (its position is the step)",
    "callback": "probe, or a plain argument named on_something",
    "ckpt": "checkpoint",
    "cfg": "config",
    "hparam": "recipe",
    "memorisation": "memorization",
}
"""Words that have another name here; looked for among the names that this package defines."""

Public = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def name_of(file: Path) -> str:
    return str(file.relative_to(ROOT))


def defined_names(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Names of functions, classes, arguments and variables with their lines; none of a library's own."""
    for node in ast.walk(tree):
        if isinstance(node, Public):
            yield node.name, node.lineno
        elif isinstance(node, ast.arg):
            yield node.arg, node.lineno
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id, node.lineno


def words(name: str) -> set[str]:
    """The words of a snake_case or CamelCase name, and its neighbours joined (fine_tune, data_loader)."""
    parts = [part.lower() for part in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", name)]
    joined = {first + second for first, second in itertools.pairwise(parts)}
    single = set(parts) | joined
    return single | {word.removesuffix("s") for word in single}


def undocumented(body: list[ast.stmt], prefix: str = "") -> Iterator[str]:
    """Public functions, classes and methods without a docstring; nested functions do not count."""
    for node in body:
        if not isinstance(node, Public) or node.name.startswith("_"):
            continue
        decorators = {ast.unparse(decorator).rpartition(".")[2] for decorator in node.decorator_list}
        if not ast.get_docstring(node) and not decorators & {"overload", "override", "setter"}:
            yield prefix + node.name
        if isinstance(node, ast.ClassDef):
            yield from undocumented(node.body, prefix=f"{node.name}.")


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_file_speaks_the_vocabulary(file: Path) -> None:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    found = [
        f"line {line}: {name}, say {FORBIDDEN[word]}"
        for name, line in defined_names(tree)
        for word in words(name) & FORBIDDEN.keys()
    ]
    found += [
        f"line {line}: {name}, say n_..." for name, line in defined_names(tree) if name.startswith("num_")
    ]
    assert not found, f"{name_of(file)}: {'; '.join(found)}"


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_public_things_have_docstrings(file: Path) -> None:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    if file.name != "__init__.py":
        assert ast.get_docstring(tree), f"{name_of(file)}: say in one sentence what the module is"
    missing = list(undocumented(tree.body))
    assert not missing, f"{name_of(file)}: no docstring: {', '.join(missing)}"


def test_inner_packages_say_nothing() -> None:
    """A name has one home: inner `__init__` files are empty, but for the command line's entry."""
    full = [
        name_of(file)
        for file in SOURCE.glob("*/__init__.py")
        if file.stat().st_size and file.parent.name != "cli"
    ]
    assert not full


def test_words_of_names() -> None:
    assert "epoch" in words("n_epochs")
    assert "finetune" in words("fine_tune_steps")
    assert not words("number_of_passes") & FORBIDDEN.keys()
