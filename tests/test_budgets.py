"""Budgets of size: a file, a function and a class stay small enough to be read at once."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FILES = sorted(file for folder in ("src", "tests", "tools") for file in (ROOT / folder).rglob("*.py"))

LINES_A_FILE = 400
LINES_A_FUNCTION = 60
METHODS_A_CLASS = 12
DRAWERS = {"utils", "util", "common", "misc", "helpers", "helper", "base"}

Function = ast.FunctionDef | ast.AsyncFunctionDef


def name_of(file: Path) -> str:
    return str(file.relative_to(ROOT))


def nodes(file: Path) -> Iterator[ast.AST]:
    return ast.walk(ast.parse(file.read_text(encoding="utf-8")))


def lines_of(function: Function) -> int:
    """From `def` to the last line; decorators do not count."""
    assert function.end_lineno is not None
    return function.end_lineno - function.lineno + 1


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_budget(file: Path) -> None:
    over = []
    n_lines = len(file.read_text(encoding="utf-8").splitlines())
    if n_lines > LINES_A_FILE:
        over.append(f"{n_lines} lines; split it by concept (at most {LINES_A_FILE})")
    for node in nodes(file):
        if isinstance(node, Function) and lines_of(node) > LINES_A_FUNCTION:
            over.append(f"{node.name} has {lines_of(node)} lines (at most {LINES_A_FUNCTION})")
        if isinstance(node, ast.ClassDef):
            n_methods = sum(isinstance(item, Function) for item in node.body)
            if n_methods > METHODS_A_CLASS:
                over.append(f"{node.name} has {n_methods} methods (at most {METHODS_A_CLASS})")
    assert not over, f"{name_of(file)}: {'; '.join(over)}"


def test_no_file_is_a_drawer() -> None:
    drawers = [
        name_of(file)
        for file in FILES
        if DRAWERS & {part.strip("_") for part in (file.stem, file.parent.name)}
    ]
    assert not drawers, "name a file by the concept that it holds"
