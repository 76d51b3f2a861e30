"""What the documentation site generates while it is built: the commands, the public names, the files.

mkdocs.yml names this file as a hook: mkdocs calls `on_files` and `on_page_markdown`, and all of it is
as new as the code.
"""

import ast
import inspect
import os
import textwrap
import types
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import repetita
from tools.readme_tree import tree

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files

WIDTH = 100

GROUPS = {
    "Studies": "new_study plan_study run_study report_study table watch_runs",
    "Single runs and corpora": "build_corpus train_run measure_run",
    "Series of checkpoints": "series_audit measure_series FromTable diagnose",
    "In other trainers, and back": "open_elsewhere journalled StepBatches export_run",
    "Models of others": "Audit run_audit ReadingRule",
    "What a study is made of": "Study PlannedRun Analysis",
    "What a run is made of": "RunSpec Recipe ModelConfig ladder pretrained_model",
    "What is read": "CorpusSpec TokenizerSpec hf_tokenizer_spec Splits SyntheticSpec DocumentIds",
    "What is done to the data": "Stream Passes RepeatedSubset SpecialBatch Insertions Insertion",
    "What is measured, and when": "ScoreProbe Every At AtPasses LogSpaced Several",
    "What is concluded": "directional equivalent from_estimate undecided paired fit_law Claim Estimate",
    "What is drawn": "Figure Axis Series Layer Panels Rule",
    "Errors": "UserError RepetitaError",
}
"""The public names in the order in which a reader needs them; a test says when one is missing."""


def on_files(files: "Files", config: "MkDocsConfig") -> "Files":
    """Adds the generated pages."""
    from mkdocs.structure.files import File

    for name, text in (("commands.md", commands()), ("python.md", python()), ("files.md", listing())):
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, **_: object) -> str:
    """Leads what links to the README of the repository to the list of files."""
    return markdown.replace("](../README.md)", "](files.md)")


def commands() -> str:
    """The page of the commands: what each says with --help."""
    parts = [
        "# Commands",
        "Every verb takes `-h`. `--root` (or `REPETITA_ROOT`) is the folder of corpora, runs and studies; a "
        "verb that prints takes `--json`. Exit codes: 0 done, 1 a run failed, 2 something to mend, said in "
        "one sentence.",
    ]
    for words in verbs():
        parts += [f"## repetita {' '.join(words)}".rstrip(), f"```text\n{help_of(words)}\n```"]
    return "\n\n".join(parts) + "\n"


def verbs() -> Iterator[tuple[str, ...]]:
    """Every verb of the command line that is not hidden, groups before what is in them."""
    from typer.main import get_command

    from repetita.cli.app import app

    def below(command: Any, words: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        yield words
        for name, inner in getattr(command, "commands", {}).items():
            if not inner.hidden:
                yield from below(inner, (*words, name))

    yield from below(get_command(app), ())


def help_of(words: tuple[str, ...]) -> str:
    """What a verb says with --help, at a width that does not depend on the terminal."""
    from typer.testing import CliRunner

    from repetita.cli.app import app

    os.environ["TERMINAL_WIDTH"] = str(WIDTH)
    said = CliRunner(env={"COLUMNS": str(WIDTH), "REPETITA_ROOT": None}).invoke(
        app, [*words, "--help"], prog_name="repetita", terminal_width=WIDTH, max_content_width=WIDTH
    )
    assert said.exit_code == 0, said.output
    return "\n".join(line.rstrip() for line in said.stdout.strip().splitlines())


def python() -> str:
    """The page of the public names: signature or fields, and docstring."""
    parts = [
        "# Python",
        "Everything that the command line does can be called. All names here are imported from `repetita`; "
        "they are fetched when they are first used, so that `import repetita` is quick. They stay: one that "
        "must go is announced a minor release before. Every example on this page is run by a test.",
    ]
    for group, names in GROUPS.items():
        parts.append(f"## {group}")
        for name in names.split():
            parts += list(entry(name))
    return "\n\n".join(parts) + "\n"


def entry(name: str) -> Iterator[str]:
    """One public name as Markdown."""
    thing = getattr(repetita, name)
    yield f"### {name}"
    if isinstance(thing, types.FunctionType):
        yield f"```python\n{signature(thing)}\n```"
        yield prose(inspect.getdoc(thing) or "")
        return
    yield prose(inspect.getdoc(thing) or "")
    shown = list(fields(thing))
    if shown:
        yield "\n".join(shown)


def signature(function: types.FunctionType) -> str:
    """A function's `def` line as its source has it."""
    source = textwrap.dedent(inspect.getsource(function))
    node = ast.parse(source).body[0]
    assert isinstance(node, ast.FunctionDef)
    lines = source.splitlines()[node.lineno - 1 : node.body[0].lineno - 1]
    return "\n".join(lines).removesuffix(":")


def fields(thing: type) -> Iterator[str]:
    """The fields of a value: name, type and default as its source has them, and what is said below it."""
    body = ast.parse(textwrap.dedent(inspect.getsource(thing))).body[0]
    assert isinstance(body, ast.ClassDef)
    for place, node in enumerate(body.body):
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
            continue
        default = f" = {ast.unparse(node.value)}" if node.value is not None else ""
        line = f"- `{node.target.id}: {ast.unparse(node.annotation)}{default}`"
        after = body.body[place + 1] if place + 1 < len(body.body) else None
        if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
            line += f": {' '.join(str(after.value.value).split())}"
        yield line


def prose(docstring: str) -> str:
    """A docstring as Markdown, its examples as code."""
    paragraphs = docstring.split("\n\n")
    return "\n\n".join(
        f"```pycon\n{paragraph}\n```" if paragraph.startswith(">>>") else paragraph
        for paragraph in paragraphs
    )


def listing() -> str:
    """The page of the files: the tree of the README."""
    drawn = tree().split("```")[1].strip("\n")
    return f"# Files\n\nOne concept a file; its first line says what it holds.\n\n```text\n{drawn}\n```\n"
